"""Kills every step of the road at random moments, a thousand times in all, and counts what did not end as undisturbed.

    python benchmarks/faults.py --work DIR [--kills 1000] [--batch 20]

The road is that of ``tests/faults``: convert, plan, preprocess, train, predict, select, and a graph of jobs. A step is
killed once or several times in a row, then run to its end; every file must then be as a run that nobody disturbed
leaves it, and no other file be there. Each batch is a row in ``benchmarks/results/faults.jsonl`` with the kills that
found the step at work; the next call goes on after those that are there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

from recording import append, read

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.faults.kills import killed
from tests.faults.road import STEPS, Road

RESULTS = "faults.jsonl"


def main() -> None:
    """Step after step in turns, so that all have their share whenever it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=20, help="kills of a step before the next one's turn")
    options = parser.parse_args()
    folder = options.work.absolute() / "road"
    shutil.rmtree(folder, ignore_errors=True)
    road = Road(folder)
    done, batches = Counter({step.name: 0 for step in STEPS}), read(RESULTS)
    for row in batches:
        done[row["step"]] += row["kills"]
    batch = len(batches)
    while done.total() < options.kills:
        name = min(done, key=lambda name: done[name])
        began = time.monotonic()
        found = killed(road, name, options.batch, seed=batch)
        append(RESULTS, {"step": name, **found._asdict(), "seconds": round(time.monotonic() - began, 1)})
        done[name] += found.kills
        batch += 1


if __name__ == "__main__":
    main()
