"""Plans random datasets here and with nnU-Net, compares every field that a plan decides, and prints the differences.

    python benchmarks/planner_equality.py --peer PYTHON [--jobs 864] [--real 20] [--limit 600]
    python benchmarks/planner_equality.py --peer PYTHON --store 216

PYTHON is the interpreter of an environment that holds nnunetv2 2.8.1. Jobs are made from their number alone, spread
evenly over planners and kinds of data. Each finished one is appended to ``benchmarks/results/planner_equality.jsonl``
and not done again. For speed nnU-Net builds its networks on the meta device; ``--real`` of the jobs are done again with
real ones and have to give the same plan. ``--store`` writes jobs of few cases with nnU-Net's plans to the file that the
test suite compares with, where there is no nnU-Net.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
from pathlib import Path
from typing import Any

from line_protocol import Peer
from planner_fields import differences, fields_of_ours, fields_of_theirs
from planner_jobs import KINDS, random_job
from recording import append, read

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.planner import load_planner
from selfcfg.errors import SelfcfgError
from selfcfg.files import hash_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Plan

RESULTS = "planner_equality.jsonl"
PEER = "peer_planner.py"
HERE = Path(__file__).resolve().parent
STORE = HERE.parent / "tests" / "planners" / "nnunet_plans.json.gz"
STORED_SEEDS, STORED_CASES = 100_000, 5
READER = {"dataset": {"case": {"images": ["image"], "label": "label"}}, "overwrite_image_reader_writer": "SimpleITKIO"}
"""With these keys in dataset.json nnU-Net looks for no image."""


def plan_theirs(peer: Peer, job: dict[str, Any], limit: float, *, real: bool = False) -> dict[str, Any]:
    """What nnU-Net makes of a job: ``plans`` or ``error``, and ``seconds``.

    Args:
        peer: runs peer_planner.py.
        job: what to plan.
        limit: seconds that it may take.
        real: whether networks are really built.
    """
    return peer.ask(**{**job, "dataset": {**job["dataset"], **READER}, "real": real, "limit": limit})


def plan_ours(job: dict[str, Any]) -> tuple[Plan | SelfcfgError, float]:
    """Our plan of a job or its refusal, and the seconds from the content of the files to it."""
    planner = load_planner(job["planner"])
    began = time.perf_counter()
    try:
        made: Plan | SelfcfgError = planner(
            Fingerprint.parse(job["fingerprint"], "fingerprint"),
            DatasetDescription.parse(job["dataset"], "dataset.json"),
            dataset="Dataset001_Random",
            memory_gb=job["memory_gb"],
            spacing=job["spacing"],
        )
    except SelfcfgError as error:
        made = error
    return made, time.perf_counter() - began


def compare(job: dict[str, Any], peer: Peer, limit: float) -> dict[str, Any]:
    """One row of the results: whether the plans are equal, else every difference or what either side raised."""
    theirs = plan_theirs(peer, job, limit)
    ours, seconds = plan_ours(job)
    row = {
        **{name: job[name] for name in ("seed", "kind", "planner", "memory_gb", "spacing")},
        "job": hash_json(job)[:8],
        "peer_seconds": round(theirs["seconds"], 4),
        "seconds": round(seconds, 5),
    }
    if "error" in theirs:
        return {**row, "outcome": "nnU-Net fails", "error": theirs["error"], "ours": _in_short(ours)}
    fields = fields_of_theirs(theirs["plans"])
    found = [_in_short(ours)] if isinstance(ours, SelfcfgError) else differences(fields_of_ours(ours), fields)
    return {**row, "outcome": "different" if found else "equal", "fields": hash_json(fields)[:8], "differences": found}


def _in_short(ours: Plan | SelfcfgError) -> str:
    if isinstance(ours, SelfcfgError):
        return f"refused: {ours}"
    return ", ".join(f"{name} {c.patch_size} x {c.batch_size}" for name, c in ours.configurations.items())


def compare_with_real(job: dict[str, Any], peer: Peer, limit: float) -> dict[str, Any]:
    """One row of the results: whether nnU-Net plans the same with real networks as on the meta device."""
    real, meta = (plan_theirs(peer, job, limit, real=real) for real in (True, False))
    same = {**real, "seconds": 0} == {**meta, "seconds": 0}
    return {
        "seed": job["seed"],
        "job": hash_json(job)[:8],
        "outcome": "meta equals real" if same else "meta differs from real",
        "peer_seconds": round(real["seconds"], 4),
        "meta_seconds": round(meta["seconds"], 4),
    }


def store(peer: Peer, count: int, limit: float) -> None:
    """Writes the jobs and nnU-Net's plans that the test suite compares with."""
    kept: list[dict[str, Any]] = []
    seed = STORED_SEEDS
    while len(kept) < count:
        job = random_job(seed, STORED_CASES)
        answer = plan_theirs(peer, job, limit)
        if "plans" in answer:
            kept.append({**job, "plan": fields_of_theirs(answer["plans"])})
        seed += 1
    content = {"made_by": "benchmarks/planner_equality.py --store", "versions": peer.versions, "jobs": kept}
    STORE.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))
    print(f"{len(kept)} of {seed - STORED_SEEDS} jobs written to {STORE}, {STORE.stat().st_size} bytes")


def summarise() -> None:
    """Prints the count and the times by kind of data, then whatever is not equal."""
    rows = read(RESULTS)
    plans = [row for row in rows if "kind" in row]
    heads = ("jobs", "equal", "different", "nnU-Net fails", "nnU-Net, ms", "ours, ms")
    print("".join([f"\n{'kind':12}", *(f"{head:>15}" for head in heads)]))
    for kind in (*KINDS, "all"):
        own = [row for row in plans if kind in (row["kind"], "all")]
        if own:
            counts = [
                sum(row["outcome"] == outcome for row in own) for outcome in ("equal", "different", "nnU-Net fails")
            ]
            times = [1e3 * statistics.median(row[name] for row in own) for name in ("peer_seconds", "seconds")]
            numbers = [str(len(own)), *map(str, counts), *(f"{time:.2f}" for time in times)]
            print("".join([f"{kind:12}", *(f"{number:>15}" for number in numbers)]))
    ratio = statistics.median(row["peer_seconds"] / row["seconds"] for row in plans)
    print(f"nnU-Net's time, with networks on the meta device, by ours: median {ratio:.0f}")
    print(f"our slowest plan: {max(row['seconds'] for row in plans):.3f} s")
    real = [row for row in rows if "meta_seconds" in row]
    same = sum(row["outcome"] == "meta equals real" for row in real)
    print(f"real networks: {len(real)} jobs, the same plan as on the meta device in {same}")
    for row in plans:
        if row["outcome"] != "equal":
            said = row.get("differences") or f"{row['error']}; ours: {row['ours']}"
            print(
                f"{row['outcome']}: seed {row['seed']}, {row['kind']}, {row['planner']}, {row['memory_gb']} GB: {said}"
            )


def main() -> None:
    """Does what is asked for and not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=864)
    parser.add_argument("--real", type=int, default=20)
    parser.add_argument("--limit", type=float, default=600)
    parser.add_argument("--store", type=int, default=0)
    options = parser.parse_args()
    with Peer(options.peer, PEER) as peer:
        if options.store:
            store(peer, options.store, options.limit)
            return
        done = {("kind" in row, row["seed"], row["job"]) for row in read(RESULTS)}
        # steps of 29 meet every planner and every kind in turn
        tasks = [(compare, seed) for seed in range(options.jobs)]
        tasks += [(compare_with_real, 29 * turn % max(options.jobs, 1)) for turn in range(options.real)]
        for task, seed in tasks:
            job = random_job(seed)
            if (task is compare, seed, hash_json(job)[:8]) not in done:
                append(RESULTS, {**task(job, peer, options.limit), "peer": peer.versions})
    summarise()


if __name__ == "__main__":
    main()
