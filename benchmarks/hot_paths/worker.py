"""Runs jobs of one side in an interpreter that stays warm; started by `measuring.Worker`, never by hand.

    PYTHON worker.py own_jobs|peer_jobs

Reads one JSON request a line and answers each with one line: ``prepare`` (a job's name, with ``arguments``), ``call``
(runs and times the prepared job) or ``keep`` (the file that the last result is written
to; a result that is a function is called for it, so that what is only compared is not timed).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def main() -> None:
    """Answers until the input ends; what the libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    jobs = importlib.import_module(sys.argv[1]).JOBS
    job, result = None, None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, object] = {}
        if "prepare" in request:
            job = jobs[request["prepare"]](**request["arguments"])
        elif "call" in request:
            result = None
            began = time.perf_counter()
            result = job()
            answer["seconds"] = time.perf_counter() - began
        else:
            import numpy as np

            np.save(request["keep"], result() if callable(result) else result)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
