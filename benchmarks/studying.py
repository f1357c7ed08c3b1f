"""What the studies on real data share: commands, datasets, small plans, and results that outlast the workspace."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pretrainings import note_pretrainings
from small_plan import add_small

from selfcfg.cli import main as selfcfg
from selfcfg.files import read_json, write_json
from selfcfg.io import read_label, write_label

RESULTS = Path(__file__).resolve().parent / "results"
"""Committed; `results_pages.py` makes pages of it."""

BUDGETS = "short=100,converged=600"
RATES = "0.1,0.03"
"""With 8 labelled subjects of the hippocampus and 100 steps, scratch had a Dice of 0.62 with 0.1 and 0.19 with 0.01."""

RESUMED = ("results.jsonl", "protocol.json")
"""What a benchmark of label efficiency needs in order to go on."""

KEPT = ("report.md", "label_efficiency.png", "cases.csv", *RESUMED)

MADE_ON = "made_on.json"
"""Versions and machines of the pretrainings, as their runs recorded them."""


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
        classes: values of the labels that make each class, in the order of the new values; those in none become
            background. Without it the labels are taken as they are.
    """

    number: int
    images: str
    labels: str
    channels: str
    group: str
    subjects: str = ""
    classes: Mapping[str, Sequence[int]] | None = None


HEADNECK = ("openkbp_headneck_ct/images", "openkbp_headneck_ct/labels", "CT", "ct")
ORGANS = {"brainstem": (1,), "spinal cord": (2,), "mandible": (5,)}

DOMAINS = {
    "hippocampus": Domain(1, "hippocampus/images", "hippocampus/labels", "MRI", "mr"),
    "headneck": Domain(2, *HEADNECK, classes={**ORGANS, "parotids": (3, 4)}),
    "heart": Domain(3, "acdc_cardiac_mr/images", "acdc_cardiac_mr/labels", "MRI", "mr", r"(patient\d+)"),
    "chest": Domain(4, "cxr_lung/montgomery/images", "cxr_lung/montgomery/labels", "XR", "xray"),
    "sarcoma": Domain(5, "sts_sarcoma/ctpet_2ch/images", "sts_sarcoma/ctpet_2ch/labels", "CT,PET", "ct"),
    "organs": Domain(6, *HEADNECK, classes=ORGANS),
}
"""ACDC and STS: see the notes of the data on what may be published; numbers are. The two parotids are one class: a
network of this size takes longest to tell left from right. `organs` are the reference of `reference_study.py`."""


def ours(*words: object) -> None:
    """Runs one command of selfcfg."""
    if code := selfcfg([str(word) for word in words]):
        raise SystemExit(f"selfcfg {' '.join(map(str, words))}: exit code {code}")


def raw_folder(name: str, work: Path) -> Path:
    """Where a domain's dataset is in the standard folder format."""
    return work / "raw" / f"Dataset{DOMAINS[name].number:03d}_{name}"


def converted(name: str, data: Path, work: Path) -> None:
    """The dataset in the standard folder format, once."""
    domain = DOMAINS[name]
    if raw_folder(name, work).is_dir():
        return
    labels, options = data / domain.labels, ["--subject-pattern", domain.subjects] if domain.subjects else []
    if domain.classes:
        labels = _reclassed(labels, domain.classes, work / "labels" / name)
        names = {"background": 0, **{kind: value for value, kind in enumerate(domain.classes, 1)}}
        write_json(work / "labels" / f"{name}.json", names)
        options += ["--labels-json", str(work / "labels" / f"{name}.json")]
    folders = ["--images", data / domain.images, "--labels", labels]
    known = ["--id", domain.number, "--name", name, "--channels", domain.channels]
    ours("convert", "folder", *folders, *known, *options, "--workspace", work)


def _reclassed(labels: Path, classes: Mapping[str, Sequence[int]], target: Path) -> Path:
    """Label maps with the values 1, 2, ... of the classes, in a folder of their own."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(labels.iterdir()):
        old, geometry = read_label(file)
        new = np.zeros_like(old)
        for value, members in enumerate(classes.values(), 1):
            new[np.isin(old, members)] = value
        write_label(target / file.name, new, geometry)
    return target


def planned(name: str, work: Path, patch_size: list[int], batch_size: int, spacing: str | None = None) -> None:
    """A plan with the small configuration.

    Args:
        name: of the domain.
        work: workspace.
        patch_size: (y, x) in voxels.
        batch_size: patches.
        spacing: z,y,x in mm in place of the planned one; slices lie across the axis with the largest.
    """
    number = DOMAINS[name].number
    file = work / "preprocessed" / f"Dataset{number:03d}_{name}" / "plans" / "standard.json"
    if file.is_file():
        return
    ours("plan", number, "--jobs", 2, "--workspace", work, *(["--spacing", spacing] if spacing else []))
    add_small(file, patch_size, batch_size)


def compared(number: int, words: list[object], out: Path, target: Path) -> None:
    """Runs a benchmark of label efficiency; what is committed of an earlier one goes on, what comes of it is kept.

    Args:
        number: of the dataset.
        words: options of the command.
        out: folder of the benchmark.
        target: folder of the committed results.
    """
    if (target / RESUMED[0]).is_file() and not (out / RESUMED[0]).is_file():
        out.mkdir(parents=True, exist_ok=True)
        for file in RESUMED:
            shutil.copyfile(target / file, out / file)
    try:
        ours("benchmark", "label-efficiency", number, *words, "--out", out)
    finally:
        target.mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            if (out / file).is_file():
                shutil.copyfile(out / file, target / file)
        note_makers(out, target)
        note_pretrainings(out, target)


def note_makers(out: Path, target: Path) -> None:
    """Adds to the kept versions and machines those of the runs that a benchmark has left."""
    file = target / MADE_ON
    found: list[Any] = read_json(file) if file.is_file() else []
    for record in sorted(out.glob("runs/*/fold_*/run.json")):
        content = read_json(record)
        facts = {"versions": content["versions"], "machine": content["machine"]}
        if facts not in found:
            found.append(facts)
    if found:
        write_json(file, found)
