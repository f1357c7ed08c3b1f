"""What a labelled reference dataset adds to pretraining without labels, and what matching their gradients adds.

    python benchmarks/reference_study.py --data DIR --work DIR [--only hippocampus,heart] [--arms scratch,ssl,sum]
        [--fractions 2] [--seeds 3] [--jobs 2] [--brief]

DIR of ``--data`` holds the datasets of `studying.DOMAINS`. Without labels are the 60 head-and-neck CT of OpenKBP that
lack some organs, and the training images of the target itself; the reference are the 40 others, with brainstem, spinal
cord and mandible. Targets are the hippocampus in MR and the heart in cine MR (ACDC: numbers may be published, images
not), whose labels are few. ``selfcfg benchmark label-efficiency`` compares `ARMS`. Each pretraining learns from as many
batches of a kind, so that `ssl_reference`, one task after the other, has as many of each as both at once.

Whether matching is worth anything is told by the Dice after fine-tuning, `fish`, `cosine` and `pcgrad` against `sum`,
and not by the cosine of the gradients; that and their norms are kept in ``gradients.csv``. What is done is kept in
``--work``, so that the same command goes on where it stopped; reports, tables and a line a job are copied to
``benchmarks/results/reference_guided``.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from small_plan import CONFIGURATION
from studying import BUDGETS, DOMAINS, RATES, RESULTS, compared, converted, planned, raw_folder

from selfcfg.files import write_json, write_text

NAME = "reference_guided"
"""Of the folder of its results."""

FRACTIONS, SEEDS = {"hippocampus": "0.05", "heart": "2"}, 3
"""Labelled subjects of each target: 8 of the 160 in training, and 2 of the 8."""


class Kind(NamedTuple):
    """An arm: its trainer, the settings that make it, and the arm from whose pretraining its own starts."""

    trainer: str
    settings: dict[str, Any] = {}
    start: str | None = None


REFERENCE_ALONE = {"pretext_weight": 0, "matching": "sum"}
ARMS = {
    "scratch": Kind("scratch"),
    "ssl": Kind("masked"),
    "reference": Kind(NAME, REFERENCE_ALONE),
    "ssl_reference": Kind(NAME, REFERENCE_ALONE, "ssl"),
    **{way: Kind(NAME, {"matching": way}) for way in ("sum", "fish", "cosine", "pcgrad")},
}

PRETRAINING = {"epochs": 24, "iterations_per_epoch": 30, "validation_iterations": 6, "workers": 0}
"""720 steps; of both tasks, at 0.2 to 0.35 s each on a busy core, four minutes at most, with "cosine" six."""


BRIEF = {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1}
BRIEF_BUDGETS = "short=2,converged=4"
"""Enough to see that the road is open."""


class Size(NamedTuple):
    """Patch (y, x) and batch of a target, and where images are large the spacing z,y,x in mm."""

    patch_size: list[int]
    batch_size: int
    spacing: str | None = None


SIZES = {"hippocampus": Size([56, 40], 16), "heart": Size([72, 72], 8, "10,2.5,2.5")}

TESTED = {"heart": 8}
"""Subjects of a target that are tested on, where a fifth of them would be too few for any test of a difference."""

UNLABELLED = "openkbp_headneck_ct/partial_labels/images"

GRADIENTS = "gradients.csv"
COLUMNS = (
    "gradient cosine",
    "gradient cosine last stage",
    "gradient norm pretext",
    "gradient norm reference",
    "masked explained",
    "reference dice",
    "probe",
)


def prepared(data: Path, work: Path, targets: list[str]) -> None:
    """The targets with splits and plans, and the reference with the organs that count."""
    for name in targets:
        converted(name, data, work)
        if name in TESTED:
            _split(name, work)
        planned(name, work, *SIZES[name])
    converted("organs", data, work)


def _split(name: str, work: Path) -> None:
    """One fold whose validation cases, which are the test cases of the study, are of so many subjects."""
    folder = raw_folder(name, work)
    cases = sorted(file.name.removesuffix(".nii.gz") for file in (folder / "labelsTr").iterdir())
    subject = {case: re.match(DOMAINS[name].subjects, case)[1] for case in cases}
    tested = random.Random(0).sample(sorted(set(subject.values())), TESTED[name])
    train, val = ([case for case in cases if (subject[case] in tested) == is_test] for is_test in (False, True))
    write_json(folder / "splits_final.json", [{"train": train, "val": val}])


def studied(name: str, options: argparse.Namespace) -> None:
    """One benchmark, and its results where they are kept."""
    arms = {arm: ARMS[arm] for arm in (options.arms.split(",") if options.arms else ARMS)}
    named = (f"{arm}={kind.trainer}".removesuffix("=scratch") for arm, kind in arms.items())
    words: list[object] = ["--arms", ",".join(named)]
    for arm, kind in arms.items():
        if kind.trainer == "scratch":
            continue
        settings = {**PRETRAINING, **kind.settings, **(BRIEF if options.brief else {})}
        words += [word for key, value in settings.items() for word in ("--pretrain-set", f"{arm}.{key}={value}")]
        words += ["--pretrain-from", f"{arm}:{kind.start}"] if kind.start else []
    if set(arms) != {"scratch"}:
        words += ["--unlabelled", options.data / UNLABELLED]
    if any(kind.trainer == NAME for kind in arms.values()):
        words += ["--reference", DOMAINS["organs"].number]
    words += ["--fractions", options.fractions or FRACTIONS[name], "--seeds", options.seeds]
    words += ["--budgets", BRIEF_BUDGETS if options.brief else BUDGETS, "--rates", RATES, "--jobs", options.jobs]
    place = ["-c", CONFIGURATION, "--workspace", options.work]
    out = options.work / "studies" / f"{NAME}_{name}{'_brief' if options.brief else ''}"
    target = (options.work / "results" if options.brief else RESULTS) / NAME / name
    try:
        compared(DOMAINS[name].number, [*words, *place], out, target)
    finally:
        keep_gradients(out, target)


def keep_gradients(out: Path, target: Path) -> None:
    """Adds what pretrainings have logged of both tasks, a row an epoch, to what is kept of earlier ones."""
    file, heads = target / GRADIENTS, ("arm", "seed", "epoch", *COLUMNS, "seconds_per_iteration")
    kept: dict[tuple[str, str], list[dict[str, Any]]] = {}
    if file.is_file():
        for row in csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))):
            kept.setdefault((row["arm"], row["seed"]), []).append(row)
    for arm, kind in ARMS.items():
        for log in sorted(out.glob(f"runs/{kind.trainer}__*__{arm}-seed*/fold_0/log.jsonl")):
            seed = log.parts[-3].rpartition("-seed")[2]
            kept[arm, seed] = [{"arm": arm, "seed": seed, **row} for row in _epochs(log)]
    if not kept:
        return
    stream = io.StringIO()
    writer = csv.DictWriter(stream, heads, lineterminator="\n")
    writer.writeheader()
    for _, rows in sorted(kept.items()):
        writer.writerows(rows)
    write_text(file, stream.getvalue())


def _epochs(log: Path) -> Iterator[dict[str, Any]]:
    """The columns of each epoch that a log has; empty where it lacks one."""
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        found = {**entry["validation"], "seconds_per_iteration": entry["seconds_per_iteration"]}
        told = {name: found[name] for name in (*COLUMNS, "seconds_per_iteration") if found.get(name) is not None}
        yield {"epoch": entry["epoch"], **{name: f"{value:.4g}" for name, value in told.items()}}


def main() -> None:
    """Every target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(SIZES))
    parser.add_argument("--arms", default="", help="of the study, with commas; default: all")
    parser.add_argument("--fractions", default="", help="labelled subjects; default: those of each target")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--brief", action="store_true", help="two steps of everything, kept in --work alone")
    options = parser.parse_args()
    options.work = options.work.absolute()
    targets = options.only.split(",")
    prepared(options.data, options.work, targets)
    for name in targets:
        studied(name, options)


if __name__ == "__main__":
    main()
