"""Seconds that a worker process takes to start: `SECONDS_TO_START` of `selfcfg.engine.footprint`.

    python benchmarks/worker_start.py [--rounds 7]

Two tiny cases are preprocessed by two new processes, and by this one, which has done so before; what the former take
longer is the start, imports included. Prints median and all rounds of that, and of the processor time of each of the
two: on an otherwise idle machine they are about the same, on a busy one only the latter tells something.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from selfcfg.convert.synthetic import make_synthetic
from selfcfg.dataset import Dataset
from selfcfg.engine import pipeline
from selfcfg.engine.data.preprocess import preprocess
from selfcfg.plan import Plan
from selfcfg.project import Project
from selfcfg.workspace import Workspace


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        dataset = make_synthetic(root / "raw" / "Dataset001_Tiny", n_cases=2, mean_shape=(8, 12, 12))
        project = Project.of(Workspace.at(root), "1")
        _, plan = pipeline.make_plan(project, pipeline.fingerprint(project, 1), "standard")
        seconds(dataset, plan, root / "warm", 1)
        longer, processor = [], []
        for number in range(options.rounds):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            took = {jobs: seconds(dataset, plan, root / f"{number}-{jobs}", jobs) for jobs in (2, 1)}
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            longer.append(took[2] - took[1])
            processor.append((after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / 2)
    print_all("longer", longer)
    print_all("processor", processor)


def seconds(dataset: Dataset, plan: Plan, folder: Path, jobs: int) -> float:
    """How long the cases take with so many processes, all of which are started."""
    with patch("selfcfg.engine.data.preprocess.SECONDS_TO_START", 1e-9):
        began = time.perf_counter()
        preprocess(dataset, plan, plan.default_configuration, folder, jobs=jobs)
        return time.perf_counter() - began


def print_all(what: str, found: list[float]) -> None:
    """Prints the median and all rounds."""
    print(f"{what}: median {statistics.median(found):.2f} s of " + ", ".join(f"{one:.2f}" for one in sorted(found)))


if __name__ == "__main__":
    main()
