"""What pretraining without labels is worth on real data, at the size of two processor cores.

    python benchmarks/label_efficiency_study.py --data DIR --work DIR [--only hippocampus] [--fractions 1,0.05,0.1,1.0]
        [--arms scratch,several] [--seeds 3] [--jobs 2] [--ablate]

DIR of ``--data`` holds the datasets of `DOMAINS`. Each target is planned as a 2D network of four stages and 0.5 million
parameters, and ``selfcfg benchmark label-efficiency`` compares `ARMS`: every strategy on the target's images alone, and
`several`, which is `hierarchical` on the images of all domains. With ``--ablate`` it compares `ABLATIONS` instead, each
without one of its terms. What is done is kept in ``--work``, so that the same command goes on where it stopped;
reports, tables and a line a job are copied to ``benchmarks/results/label_efficiency``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from small_plan import CONFIGURATION
from studying import BUDGETS, DOMAINS, RATES, RESULTS, compared, converted, planned

NAME = "label_efficiency"
"""Of the folder of its results."""

FRACTIONS, SEEDS = "1,0.05,0.1,1.0", 3
ARMS = {
    "scratch": "scratch",
    "masked": "masked",
    "contrastive": "contrastive",
    "sequential": "sequential",
    "hierarchical": "hierarchical",
    "several": "hierarchical",
}
ABLATIONS = {
    "sequential": ("contrast", "place", "order", "neighbour"),
    "several": ("contrast", "dataset", "group", "reconstruction"),
}
"""The terms of two arms that are left out one at a time."""

PRETRAINING = {"epochs": 24, "iterations_per_epoch": 50, "validation_iterations": 6, "workers": 0}
TARGETS = ("hippocampus", "headneck")
SIZES = {"hippocampus": ([56, 40], 16), "headneck": ([96, 96], 8)}
"""Patch and batch of each target."""


def arms_of(options: argparse.Namespace) -> dict[str, tuple[str, str | None]]:
    """By arm, its trainer or "scratch", and the term that is left out."""
    arms = {arm: ARMS[arm] for arm in (options.arms.split(",") if options.arms else ARMS)}
    if not options.ablate:
        return {arm: (trainer, None) for arm, trainer in arms.items()}
    whole = {arm: (trainer, None) for arm, trainer in arms.items() if arm in ABLATIONS}
    parts = {f"{arm}-no-{term}": (arms[arm], term) for arm in whole for term in ABLATIONS[arm]}
    return {"scratch": ("scratch", None), **whole, **parts}


def studied(name: str, options: argparse.Namespace) -> None:
    """One benchmark, and its results where they are kept."""
    words, arms = [], arms_of(options)
    for arm, (trainer, without) in arms.items():
        if trainer == "scratch":
            continue
        settings = PRETRAINING if without is None else {**PRETRAINING, f"{without}_weight": 0}
        words += [word for key, value in settings.items() for word in ("--pretrain-set", f"{arm}.{key}={value}")]
        if arm.startswith("several"):
            others = [domain for other, domain in DOMAINS.items() if other != name]
            words += [w for one in others for w in ("--pretrain-on", f"{arm}:{one.group}={one.number}")]
    words += ["--arms", ",".join(f"{arm}={trainer}" if arm != trainer else arm for arm, (trainer, _) in arms.items())]
    words += ["--fractions", options.fractions, "--seeds", options.seeds, "--budgets", BUDGETS, "--rates", RATES]
    words += ["--jobs", options.jobs]
    label = f"{name}_ablations" if options.ablate else name
    place = ["-c", CONFIGURATION, "--workspace", options.work]
    compared(DOMAINS[name].number, [*words, *place], options.work / "studies" / label, RESULTS / NAME / label)


def main() -> None:
    """Every target, on its own images and on those of all domains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(TARGETS))
    parser.add_argument("--arms", default="", help="of the study, with commas; default: all")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--fractions", default=FRACTIONS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.work = options.work.absolute()
    for name in DOMAINS:
        converted(name, options.data, options.work)
    for name in options.only.split(","):
        planned(name, options.work, *SIZES[name])
        studied(name, options)


if __name__ == "__main__":
    main()
