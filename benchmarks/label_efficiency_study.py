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
import shutil
from dataclasses import dataclass
from pathlib import Path

from small_plan import CONFIGURATION, add_small

from selfcfg.cli import main as selfcfg

RESULTS = Path(__file__).resolve().parent / "results" / "label_efficiency"
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
BUDGETS = "short=100,converged=600"
RATES = "0.1,0.03"
"""With 8 labelled subjects of the hippocampus and 100 steps, scratch had a Dice of 0.62 with 0.1 and 0.19 with 0.01."""

KEPT = ("report.md", "label_efficiency.png", "cases.csv", "results.jsonl", "protocol.json")


@dataclass(frozen=True)
class Domain:
    """A dataset: its id, where images and labels are, its channels and the group it belongs to.

    Args:
        number: id in the workspace.
        images: folder within the data.
        labels: likewise.
        channels: names, with commas.
        group: of related datasets.
        subjects: expression for the subject in a case id, or "".
    """

    number: int
    images: str
    labels: str
    channels: str
    group: str
    subjects: str = ""


DOMAINS = {
    "hippocampus": Domain(1, "hippocampus/images", "hippocampus/labels", "MRI", "mr"),
    "headneck": Domain(2, "openkbp_headneck_ct/images", "openkbp_headneck_ct/labels", "CT", "ct"),
    "heart": Domain(3, "acdc_cardiac_mr/images", "acdc_cardiac_mr/labels", "MRI", "mr", r"(patient\d+)"),
    "chest": Domain(4, "cxr_lung/montgomery/images", "cxr_lung/montgomery/labels", "XR", "xray"),
    "sarcoma": Domain(5, "sts_sarcoma/ctpet_2ch/images", "sts_sarcoma/ctpet_2ch/labels", "CT,PET", "ct"),
}
"""ACDC and STS: see the notes of the data on what may be published; numbers are."""

TARGETS = ("hippocampus", "headneck")
SIZES = {"hippocampus": ([56, 40], 16), "headneck": ([96, 96], 8)}
"""Patch and batch of each target."""


def ours(*words: object) -> None:
    """Runs one command of selfcfg."""
    if code := selfcfg([str(word) for word in words]):
        raise SystemExit(f"selfcfg {' '.join(map(str, words))}: exit code {code}")


def converted(name: str, data: Path, work: Path) -> None:
    """The dataset in the standard folder format, once."""
    domain = DOMAINS[name]
    if (work / "raw" / f"Dataset{domain.number:03d}_{name}").is_dir():
        return
    options = ["--subject-pattern", domain.subjects] if domain.subjects else []
    folders = ["--images", data / domain.images, "--labels", data / domain.labels]
    known = ["--id", domain.number, "--name", name, "--channels", domain.channels]
    ours("convert", "folder", *folders, *known, *options, "--workspace", work)


def planned(name: str, work: Path) -> None:
    """A plan with the small configuration."""
    number = DOMAINS[name].number
    file = work / "preprocessed" / f"Dataset{number:03d}_{name}" / "plans" / "standard.json"
    if not file.is_file():
        ours("plan", number, "--jobs", 2, "--workspace", work)
        add_small(file, *SIZES[name])


def compared(options: argparse.Namespace) -> dict[str, tuple[str, str | None]]:
    """By arm, its trainer or "scratch", and the term that is left out."""
    arms = {arm: ARMS[arm] for arm in (options.arms.split(",") if options.arms else ARMS)}
    if not options.ablate:
        return {arm: (trainer, None) for arm, trainer in arms.items()}
    whole = {arm: (trainer, None) for arm, trainer in arms.items() if arm in ABLATIONS}
    parts = {f"{arm}-no-{term}": (arms[arm], term) for arm in whole for term in ABLATIONS[arm]}
    return {"scratch": ("scratch", None), **whole, **parts}


def studied(name: str, options: argparse.Namespace) -> None:
    """One benchmark, and its results where they are kept."""
    words, arms = [], compared(options)
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
    out = options.work / "studies" / label
    target = RESULTS / label
    if (earlier := target / "results.jsonl").is_file() and not (out / "results.jsonl").is_file():
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(earlier, out / "results.jsonl")
        shutil.copyfile(target / "protocol.json", out / "protocol.json")
    place = ["-c", CONFIGURATION, "--out", out, "--workspace", options.work]
    try:
        ours("benchmark", "label-efficiency", DOMAINS[name].number, *words, *place)
    finally:
        target.mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            if (out / file).is_file():
                shutil.copyfile(out / file, target / file)


def main() -> None:
    """Every target, on its own images and on those of all domains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(TARGETS))
    parser.add_argument("--arms", default="", help="of the study, with commas; default: all")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--fractions", default="1,0.05,0.1,1.0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.work = options.work.absolute()
    for name in DOMAINS:
        converted(name, options.data, options.work)
    for name in options.only.split(","):
        planned(name, options.work)
        studied(name, options)


if __name__ == "__main__":
    main()
