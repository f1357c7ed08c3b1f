"""Work for a process of another interpreter: a job a line goes in, its answer comes out, JSON both ways.

Both ends are here. The other interpreter belongs to an environment of its own, so nothing is imported but the standard
library. The first line that comes out holds the versions of what answers.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("nnunetv2", "dynamic-network-architectures", "torch", "numpy")
"""Packages of nnU-Net's environment whose versions are told."""

Answer = dict[str, Any]


class Peer:
    """A process that answers jobs; use as a context manager.

    Args:
        python: the interpreter.
        script: file beside this one, which calls `serve`.
        arguments: of the script.
    """

    def __init__(self, python: Path, script: str, *arguments: object) -> None:
        command = [str(python), str(Path(__file__).resolve().with_name(script)), *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._line()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, **job: Any) -> Answer:
        """The answer to a job; what JSON does not know, such as a path, goes as its text.

        Raises:
            RuntimeError: the process has ended.
        """
        if self._process.stdin is None:
            raise RuntimeError("nnU-Net's process takes no input")
        self._process.stdin.write(json.dumps(job, default=str) + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> Answer:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError("nnU-Net's process has ended")
        answer: Answer = json.loads(line)
        return answer


def serve(answer: Callable[[Answer], Answer], packages: Sequence[str] = PACKAGES) -> None:
    """Answers jobs until there are no more; whatever else is printed meanwhile is dropped."""
    answers, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115, PTH123 - nnU-Net prints all it does
    warnings.simplefilter("ignore")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    print(json.dumps(versions), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
