"""How often `select` adopts what is worth nothing, and what is worth something, by simulation.

    python benchmarks/selection_simulation.py [--repetitions 200]

Writes ``benchmarks/results/selection_simulation.jsonl``, a line a rate. A few minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from selfcfg.engine.prediction.postprocessing import Components, parts_of
from selfcfg.engine.randomness import generator
from selfcfg.engine.selection.component_tables import ComponentTables, PartTable
from selfcfg.engine.selection.records import Candidate
from selfcfg.engine.selection.tuning import Trialled, tune
from selfcfg.engine.selection.verdict import judged
from selfcfg.files import write_text
from selfcfg.labels import LabelSchema

RESULTS = Path(__file__).parent / "results" / "selection_simulation.jsonl"
ONE = LabelSchema(labels={"background": 0, "organ": 1})
SUBJECTS, FOLDS = 16, 5

CANDIDATES = tuple(
    Candidate(name=name, kind=kind, weights={name: 1}, dice=0.5, classes={}, score=0, cost=cost)
    for name, kind, cost in (("cheap", "single", 1), ("dear", "single", 5), ("cheap + dear", "pair", 6))
)


def drawn_tables(rng: np.random.Generator, subjects: int, wrong: float) -> ComponentTables:
    """Tables of one class: in each case a large component, and two small ones that are wrong with a probability."""
    parts = parts_of(ONE)
    case = np.repeat(np.arange(subjects), 3)
    size = rng.integers(5, 60, len(case)).astype(np.float64)
    is_wrong = rng.random(len(case)) < wrong
    sure = rng.uniform(0.5, 1, len(case))
    size[::3] = 900
    tp, fp = np.where(is_wrong, 0, size).astype(np.int64), np.where(is_wrong, size, 0).astype(np.int64)
    tp[::3], fp[::3] = 850, 50
    components = Components(case, np.zeros(len(case), dtype=np.intp), size, sure, sure)
    return ComponentTables(ONE, parts, (PartTable(components, tp, fp),), np.full((subjects, 1), 1000))


def cases_of(subjects: int, seed: int) -> Trialled:
    """A case a subject, dealt into folds."""
    return Trialled(np.arange(subjects) % FOLDS, np.arange(subjects), "mm3", seed)


def adoption(wrong: float, repetitions: int) -> float:
    """How often post-processing is adopted where small components are wrong with a probability."""
    rng = generator(0, "components", round(100 * wrong))
    found = [tune(drawn_tables(rng, SUBJECTS, wrong), cases_of(SUBJECTS, seed)).steps for seed in range(repetitions)]
    return sum(map(bool, found)) / repetitions


def passing_over(gain: float, repetitions: int) -> float:
    """How often the cheapest of three candidates is not chosen, where the other two are better by a mean gain."""
    rng = generator(0, "candidates", round(10_000 * gain))
    passed = 0
    for seed in range(repetitions):
        base = rng.uniform(0.6, 0.9, SUBJECTS)
        scores = [base + rng.normal(gain * (place > 0), 0.03, SUBJECTS) for place in range(3)]
        passed += not judged(CANDIDATES, scores, "simplest", seed)[0].chosen
    return passed / repetitions


def rows(repetitions: int) -> Iterator[dict[str, Any]]:
    """A row a rate."""
    common = {"subjects": SUBJECTS, "repetitions": repetitions}
    for wrong in (0.5, 0.75, 1.0):
        rate = adoption(wrong, repetitions)
        yield {"what": "post-processing adopted", "small components wrong": wrong, "rate": rate, **common}
    for gain in (0.0, 0.02, 0.05):
        rate = passing_over(gain, repetitions)
        yield {"what": "cheapest candidate passed over", "others better by": gain, "rate": rate, **common}


def main() -> None:
    """Simulates and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=200)
    lines = []
    for row in rows(parser.parse_args().repetitions):
        lines.append(json.dumps(row))
        sys.stdout.write(lines[-1] + "\n")
    write_text(RESULTS, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
