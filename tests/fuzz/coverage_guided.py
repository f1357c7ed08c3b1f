"""A coverage-guided search for files that a reader does not stand; not part of the tests.

    pip install atheris
    python -m tests.fuzz.coverage_guided --seconds 60 --out benchmarks/results/fuzzing.jsonl
    python -m tests.fuzz.coverage_guided "nifti gz, whole" --seconds 600

Every parser of `targets.py` has a process of its own, in which our code is instrumented, and begins with its valid
files; they are changed by libFuzzer and by `mutations.py`. Anything but a result or one of our errors is a finding, as
are 10 seconds of computing for one file and 2.5 GB of memory. What is found goes into
`test_findings.py`, with the file that shows it, and its line says what it was and which test keeps it (`test`).
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import Change, changed
from tests.fuzz.targets import TARGETS, scratch

LONGEST = 1 << 15
SECONDS = 10
"""Of computing for one file, from which on it is a finding."""


def main() -> None:
    """Searches in one parser after the other, and adds a line for each to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parsers", nargs="*", default=[], help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each parser")
    parser.add_argument("--out", type=Path, help="file of results, a JSON line a parser")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        search(given.parsers[0], given.seconds, given.seed)
        return
    for name in given.parsers or TARGETS:
        line = searched(name, given.seconds, given.seed)
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        if given.out is not None:
            with given.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")


def searched(name: str, seconds: int, seed: int) -> dict[str, Any]:
    """What the search in one parser came to."""
    command = [sys.executable, "-m", "tests.fuzz.coverage_guided", name, "--inside"]
    command += ["--seconds", str(seconds), "--seed", str(seed)]
    start = time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    inputs = re.findall(r"stat::number_of_executed_units:\s*(\d+)|Done (\d+) runs|#(\d+)\s", done.stderr)
    counts = [int(number) for found in inputs for number in found if number]
    reached = re.findall(r"cov: (\d+)", done.stderr)
    crash = done.returncode != 0
    if crash:
        sys.stderr.write(done.stderr[-6000:])
    return {
        "parser": name,
        "inputs": max(counts, default=0),
        "seconds": round(time.monotonic() - start),
        "places_reached": int(reached[-1]) if reached else None,
        "finding": re.findall(r"(?:Uncaught Python exception[^\n]*\n)(.*?)\n|(ERROR: libFuzzer: [^\n]*)", done.stderr)[
            :1
        ]
        if crash
        else None,
        "python": platform.python_version(),
    }


def search(name: str, seconds: int, seed: int) -> None:
    """Fuzzes one parser in this process; it ends with the process."""
    import atheris

    with atheris.instrument_imports(include=["selfcfg"], enable_loader_override=False):
        for seed_file in TARGETS[name].seeds():
            warm(name, seed_file)

        target = TARGETS[name]
    folder, corpus = scratch(), scratch()
    for number, content in enumerate(target.seeds()):
        (corpus / f"seed{number}").write_bytes(content)
    whole = target.whole or (lambda content: content)

    def once(content: bytes) -> None:
        read(name, folder, whole(content))

    def mutate(content: bytes, longest: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.4:
            return bytes(atheris.Mutate(content, longest))
        draws = rng.randint(1, 3)
        changes = [
            Change(rng.randrange(1001), rng.random(), rng.randrange(1 << 16), rng.randrange(1 << 16))
            for _ in range(draws)
        ]
        return changed(content, changes, target.kind)[:longest]

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-seed={seed}",
        "-timeout=120",
        "-rss_limit_mb=2500",
    ]
    options += ["-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={Path.cwd() / 'finding-'}"]
    atheris.Setup([sys.argv[0], str(corpus), *options], once, custom_mutator=mutate)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(corpus, ignore_errors=True)


def read(name: str, folder: Path, content: bytes) -> None:
    """Reads a file; our own errors are answers."""
    from selfcfg.errors import SelfcfgError

    start = time.process_time()
    with suppress(SelfcfgError):
        TARGETS[name].run(folder, content)
    if time.process_time() - start > SECONDS:
        raise TimeoutError(f"{time.process_time() - start:.0f} s for {len(content)} bytes")


def warm(name: str, content: bytes) -> None:
    """Imports all that a parser needs, by reading a valid file."""
    folder = scratch()
    target = TARGETS[name]
    read(name, folder, target.whole(content) if target.whole else content)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
