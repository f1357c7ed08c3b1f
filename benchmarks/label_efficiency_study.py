"""What pretraining without labels is worth on real data, at the size of two processor cores.

    python benchmarks/label_efficiency_study.py --data DIR --work DIR [--only hippocampus] [--fractions 1,0.05,0.1,1.0]
        [--arms scratch,several] [--seeds 3] [--jobs 2] [--ablate] [--long]

DIR of ``--data`` holds the datasets of `DOMAINS`. Each target is planned as a 2D network of four stages and 0.5 million
parameters, and ``selfcfg benchmark label-efficiency`` compares `ARMS`: every strategy on the target's images alone, and
`several`, which is `hierarchical` on the images of all domains. With ``--ablate`` it compares `ABLATIONS` instead, each
without one of its terms, and with the encoder alone of what was pretrained. With ``--long`` it compares `LONG_ARMS`
after three times the longest budget, from the same pretrainings: for a target that is not learnt by then. What is done
is kept in ``--work``, so that the same command goes on where it stopped; reports, tables and a line a job are copied to
``benchmarks/results/label_efficiency``.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from small_plan import CONFIGURATION
from studying import BUDGETS, DOMAINS, RATES, RESULTS, compared, converted, planned

NAME = "label_efficiency"
"""Of the folder of its results."""

LONG = "_long"
"""After the name of a target in the folder of its results with ``--long``."""

ARMS = {
    "scratch": "scratch",
    "masked": "masked",
    "contrastive": "contrastive",
    "sequential": "sequential",
    "hierarchical": "hierarchical",
    "several": "hierarchical",
}
POOLED = ("hippocampus", "headneck", "heart", "chest", "sarcoma")
"""The domains of `several`."""

ABLATIONS = {
    "sequential": ("contrast", "place", "order", "neighbour"),
    "several": ("contrast", "dataset", "group", "reconstruction"),
}
"""The terms of two arms that are left out one at a time."""

WITH_DECODER = ("masked", "sequential", "several")
"""Arms that are also fine-tuned from their encoder alone."""


class Extent(NamedTuple):
    """Of every arm: fractions of the labels, steps and learning rates, each with commas; and trainings of each."""

    fractions: str = "1,0.05,0.1,1.0"
    budgets: str = BUDGETS
    rates: str = RATES
    seeds: int = 3


WHOLE = Extent()
LONGER = Extent("0.05", "long=1800", "0.1")
"""Steps that nobody would call few; a single rate, the one that nearly all shorter trainings chose."""

LONG_ARMS = "scratch,contrastive,sequential,hierarchical,several"

PRETRAINING = {"epochs": 24, "iterations_per_epoch": 50, "validation_iterations": 6, "workers": 0}


class Target(NamedTuple):
    """How a dataset is trained on.

    Args:
        patch_size: (y, x) in voxels.
        batch_size: patches of a step with labels.
        spacing: z,y,x in mm in place of the planned one.
        pretraining: further settings of pretrainings.
        tuning: settings of trainings with labels.
        is_mirrored: whether predictions are means over mirrored images, which take four times as long.
    """

    patch_size: list[int]
    batch_size: int
    spacing: str | None = None
    pretraining: dict[str, Any] = {}
    tuning: dict[str, Any] = {}
    is_mirrored: bool = True


TARGETS = {
    "hippocampus": Target([56, 40], 16),
    # with the usual third of patches around an organ, small organs were not found within 600 steps: Dice 0.33, not 0.59
    "headneck": Target([64, 64], 6, "6,5.2,5.2", {"batch_size": 8}, {"foreground_fraction": 0.67}, is_mirrored=False),
}


class Kind(NamedTuple):
    """An arm: the one of `ARMS` that it is, the term that is left out, and whether it keeps its encoder alone."""

    arm: str
    without: str | None = None
    encoder_alone: bool = False


def arms_of(chosen: str, *, ablate: bool) -> dict[str, Kind]:
    """The arms by name, of all or of those that were chosen."""
    arms = chosen.split(",") if chosen else [*ARMS]
    if not ablate:
        return {arm: Kind(arm) for arm in arms}
    whole = {arm: Kind(arm) for arm in arms if arm in ABLATIONS or arm in WITH_DECODER}
    parts = {f"{arm}-no-{term}": Kind(arm, without=term) for arm in whole for term in ABLATIONS.get(arm, ())}
    alone = {f"{arm}-encoder": Kind(arm, encoder_alone=True) for arm in whole if arm in WITH_DECODER}
    return {"scratch": Kind("scratch"), **whole, **parts, **alone}


def studied(name: str, options: argparse.Namespace) -> None:
    """One benchmark, and its results where they are kept."""
    label = f"{name}_ablations" if options.ablate else f"{name}{LONG}" if options.long else name
    out = options.work / "studies" / label
    if options.long:
        pretrained = options.work / "studies" / name / "runs"
        if pretrained.is_dir() and not out.is_dir():
            shutil.copytree(pretrained, out / "runs", ignore=shutil.ignore_patterns("supervised__*"))
        options.arms = options.arms or LONG_ARMS
    extent = LONGER if options.long else WHOLE._replace(fractions=options.fractions, seeds=options.seeds)
    words = words_of(name, arms_of(options.arms, ablate=options.ablate), extent, options.work, options.jobs)
    compared(DOMAINS[name].number, words, out, RESULTS / NAME / label)


def words_of(name: str, arms: dict[str, Kind], extent: Extent, work: Path, jobs: int) -> list[object]:
    """The options of the benchmark of a target."""
    target = TARGETS[name]
    words: list[object] = [word for key, value in target.tuning.items() for word in ("--set", f"{key}={value}")]
    for arm, kind in arms.items():
        if kind.arm == "scratch":
            continue
        settings = {**PRETRAINING, **target.pretraining, **({f"{kind.without}_weight": 0} if kind.without else {})}
        words += [word for key, value in settings.items() for word in ("--pretrain-set", f"{arm}.{key}={value}")]
        words += ["--arm-set", f"{arm}.taken_parts=encoder"] if kind.encoder_alone else []
        if kind.arm == "several":
            others = [DOMAINS[other] for other in POOLED if other != name]
            words += [w for one in others for w in ("--pretrain-on", f"{arm}:{one.group}={one.number}")]
    trainers = {arm: ARMS[kind.arm] for arm, kind in arms.items()}
    words += ["--arms", ",".join(f"{arm}={trainer}" if arm != trainer else arm for arm, trainer in trainers.items())]
    words += ["--fractions", extent.fractions, "--budgets", extent.budgets, "--rates", extent.rates]
    words += ["--seeds", extent.seeds, "--jobs", jobs, *([] if target.is_mirrored else ["--no-mirroring"])]
    return [*words, "-c", CONFIGURATION, "--workspace", work]


def main() -> None:
    """Every target, on its own images and on those of all domains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(TARGETS))
    parser.add_argument("--arms", default="", help="of the study, with commas; default: all")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--fractions", default=WHOLE.fractions)
    parser.add_argument("--seeds", type=int, default=WHOLE.seeds)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.work = options.work.absolute()
    for name in POOLED:
        converted(name, options.data, options.work)
    for name in options.only.split(","):
        planned(name, options.work, TARGETS[name].patch_size, TARGETS[name].batch_size, TARGETS[name].spacing)
        studied(name, options)


if __name__ == "__main__":
    main()
