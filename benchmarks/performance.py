"""Measures the hot paths here and with nnU-Net, in turn, on the same data, cores and threads: time and peak memory.

    python benchmarks/performance.py --peer PYTHON [--only preprocessing,image,...] [--rounds 3] [--work DIR]
    python benchmarks/performance.py --table

PYTHON is the interpreter of an environment that holds nnunetv2 2.8.1. The data are made on the spot in DIR (about 8
GB). Both sides take turns, as many as rounds; each row states its first turns and the medians of all, and checks in the
same run that both sides made the same. Finished rows are appended to ``benchmarks/results/performance.jsonl`` and not
done again; ``--table`` writes the table of ``docs/performance.md`` from them, which a run also does at its end.
``--quick`` takes small data and one round and records nothing: it shows whether everything runs here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import psutil
from hot_paths import rows_data, rows_use
from hot_paths.contests import Check, Row
from hot_paths.inputs import peer_versions, real_source
from hot_paths.measuring import Place, Usage
from hot_paths.table import write_page
from recording import append, read

RESULTS = "performance.jsonl"
ROWS: dict[str, Row] = {**rows_data.ROWS, **rows_use.ROWS}
CORES = 2


def main() -> None:
    """Does every row that is asked for and not done yet, and writes the table."""
    options = _options()
    failed = [] if options.table else measure_all(options.only.split(","), _place(options), options.rounds)
    if not options.quick:
        print(write_page(ROWS, read(RESULTS)))
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")


def measure_all(names: list[str], place: Place, rounds: int) -> list[str]:
    """Appends each row to the results, where it is not there yet; gives the names of those that ended with an error."""
    failed = []
    _keep_to(place.cores)
    done = set() if place.quick else {row["row"] for row in read(RESULTS)}
    versions = peer_versions(place)
    for name in names:
        if name in done:
            continue
        try:
            measured = measure(name, ROWS[name], place, 1 if place.quick else rounds)
        except RuntimeError as error:
            failed.append(name)
            print(f"{name}: {error}", flush=True)
            continue
        if place.quick:
            print(measured, flush=True)
        else:
            append(RESULTS, {"row": name, **measured, "cores": place.cores, "peer": versions})
    return failed


def measure(name: str, row: Row, place: Place, rounds: int) -> dict[str, Any]:
    """Both sides in turn: seconds and MiB of every turn, their ratios, and what was compared."""
    ours: list[Usage] = []
    theirs: list[Usage] = []
    checks: list[Check] = []
    began = time.perf_counter()
    with row.contest(place) as contest:
        for turn in range(min(rounds, row.turns)):
            ours.append(contest.ours())
            if contest.theirs is not None:
                theirs.append(contest.theirs())
            if turn == 0:
                checks = contest.check()
            print(f"{name}, turn {turn + 1}: ours {ours[-1]}, nnU-Net {theirs[-1:]}", flush=True)
    result: dict[str, Any] = {
        "seconds": [round(usage.seconds, 5) for usage in ours],
        "peer_seconds": [round(usage.seconds, 5) for usage in theirs],
        "megabytes": [round(usage.megabytes) for usage in ours],
        "peer_megabytes": [round(usage.megabytes) for usage in theirs],
        "equality": [check._asdict() for check in checks],
        "took": round(time.perf_counter() - began),
    }
    if theirs:
        result["first_ratio"] = round(theirs[0].seconds / ours[0].seconds, 2)
        result["ratio"] = _ratio(result["peer_seconds"], result["seconds"])
        result["memory_ratio"] = _ratio(result["peer_megabytes"], result["megabytes"])
    return result


def _ratio(theirs: list[float], ours: list[float]) -> float:
    return round(statistics.median(theirs) / max(statistics.median(ours), 1e-9), 2)


def _keep_to(cores: int) -> None:
    """Keeps this process and all that it starts to the first cores that it may use."""
    process = psutil.Process()
    process.cpu_affinity(process.cpu_affinity()[:cores])


def _place(options: argparse.Namespace) -> Place:
    work = options.work / "quick" if options.quick else options.work
    work.mkdir(parents=True, exist_ok=True)
    return Place(work.resolve(), options.peer.absolute(), min(CORES, len(os.sched_getaffinity(0))), options.quick)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path)
    default = [name for name in ROWS if name != "preprocessing_real" or real_source().is_dir()]
    parser.add_argument("--only", default=",".join(default), help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("workspace") / "performance")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true", help="only write the page from the results")
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if not (options.table or options.peer):
        parser.error("--peer is needed: the interpreter of an environment that holds nnunetv2")
    return options


if __name__ == "__main__":
    main()
