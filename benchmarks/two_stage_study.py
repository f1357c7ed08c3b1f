"""What the two stages of auxiliary tasks and distillation are worth on real radiographs, beside the controls.

    python benchmarks/two_stage_study.py --data DIR --work DIR [--seeds 0,1,2] [--jobs 2]

DIR of ``--data`` holds ``cxr_lung/montgomery``: 138 radiographs of as many patients, of which
``montgomery_split.json`` makes 98 for training, 20 for validation and 20 for testing. For each seed 10 of the 98 are
labelled, the others are images without labels; 20, among them these 10, for the control with twice the labels. All
networks have four stages and 0.5 million parameters, and the same number of steps with labels.

Systems: ``plain`` (five networks that differ in their seed), ``twice``, the ten candidates of the recipe ``two_stage``,
its ``student``, and the controls that separate the tasks from mere ensembling: the ensembles of the five plain networks
and of the five winners, and the student of the plain ones. Candidates are chosen by the validation images alone; every
system is scored on the test images, a row each in ``benchmarks/results/two_stage.jsonl``. What is there is not done
again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from recording import append, read
from small_plan import CONFIGURATION, add_small

from selfcfg.cli import main as selfcfg
from selfcfg.files import write_json
from selfcfg.kept import KEPT, Kept

RESULTS = "two_stage.jsonl"
SPLIT = Path(__file__).with_name("montgomery_split.json")
NUMBER, NAME = 31, "Dataset031_lungs"
FEW, TWICE, PLAIN = 10, 20, 5
BRIEF = {"epochs": 20, "iterations_per_epoch": 20, "validation_iterations": 2, "workers": 0}
UPRIGHT = {"transforms.mirror_p": 0, "transforms.rotation_2d": 0.26}
STAGES = ("joint", "finetune", "student")
"""Of the recipe, those with labels."""


def ours(*words: object) -> None:
    """Runs one command of selfcfg."""
    if code := selfcfg([str(word) for word in words]):
        raise SystemExit(f"selfcfg {' '.join(map(str, words))}: exit code {code}")


def sets(values: dict[str, Any], stage: str = "") -> list[str]:
    """Settings as options, those of a recipe with the name of the stage."""
    before = f"{stage}." if stage else ""
    return [word for key, value in values.items() for word in ("--set", f"{before}{key}={value}")]


def labelled(seed: int, training: list[str]) -> list[str]:
    """The training cases in an order of the seed; the first of them are labelled."""
    return random.Random(seed).sample(sorted(training), TWICE)


def prepared(data: Path, work: Path) -> None:
    """The dataset without the test images, its folds (two a seed: few labels, twice as many), and its plan."""
    source, split = data / "cxr_lung" / "montgomery", json.loads(SPLIT.read_text())
    if not (work / "test").is_dir():
        for kind in ("images", "labels"):
            for part in ("test", "known"):
                (work / part / kind).mkdir(parents=True)
            for case in split["test"]:
                shutil.copy(source / kind / f"{case}.png", work / "test" / kind)
            for case in (*split["train"], *split["validation"]):
                shutil.copy(source / kind / f"{case}.png", work / "known" / kind)
    raw = work / "raw" / NAME
    if not raw.is_dir():
        folders = ["--images", work / "known" / "images", "--labels", work / "known" / "labels"]
        ours("convert", "folder", *folders, "--id", NUMBER, "--name", "lungs", "--channels", "XR", "--workspace", work)
    folds = []
    for seed in range(3):
        order = labelled(seed, split["train"])
        folds += [{"train": sorted(order[:count]), "val": split["validation"]} for count in (FEW, TWICE)]
    write_json(raw / "splits_final.json", folds)
    if not (file := work / "preprocessed" / NAME / "plans" / "standard.json").is_file():
        ours("plan", NUMBER, "--workspace", work)
        add_small(file, [128, 128], 8, spacing=[3.0, 3.0], median_shape=[151.0, 171.0])


class Study:
    """The trainings and scores of one seed.

    Args:
        work: workspace.
        seed: of the labelled images and of all trainings.
        jobs: trainings at once.
    """

    def __init__(self, work: Path, seed: int, jobs: int) -> None:
        self.work, self.seed, self.jobs = work, seed, jobs
        self.known = {row["system"] for row in read(RESULTS) if row["seed"] == seed}
        self.shared = ["-c", CONFIGURATION, "--resume", "--workspace", work]

    def run(self) -> None:
        """Everything that has no row yet."""
        plain = [self.trained(f"plain{one}", fold=2 * self.seed, seed=10 * self.seed + one) for one in range(PLAIN)]
        self.trained("twice", fold=2 * self.seed + 1, seed=10 * self.seed)
        teachers = [word for folder in plain for word in ("--teacher", folder)]
        control = self.trained("of-plain", 2 * self.seed, 10 * self.seed, "--trainer", "distillation", *teachers)
        self.beside("plain", control)
        self.beside("two_stage", self.two_stage() / "student")

    def trained(self, system: str, fold: int, seed: int, *how: object) -> Path:
        """The experiment folder of one training, scored."""
        name, trainer = f"{system}-seed{self.seed}", how[1] if how else "supervised"
        settings = sets({**BRIEF, **UPRIGHT})
        ours("train", NUMBER, "--fold", fold, "--seed", seed, "--name", name, *how, *settings, *self.shared)
        folder = self.work / "results" / NAME / f"{trainer}__standard__{CONFIGURATION}__{name}"
        self.scored(system, folder, fold)
        return folder

    def two_stage(self) -> Path:
        """The recipe's folder, its candidates and what was kept of them scored."""
        settings = [word for stage in STAGES for word in sets({**BRIEF, **UPRIGHT}, stage)] + sets(BRIEF, "pretrain")
        name = f"seed{self.seed}"
        own = ["--recipe", "two_stage", "--fold", 2 * self.seed, "--seed", 10 * self.seed, "--name", name]
        images = ["--unlabelled", self.work / "known" / "images", "--jobs", self.jobs]
        ours("train", NUMBER, *own, *settings, *images, *self.shared)
        folder = self.work / "results" / NAME / f"two_stage__standard__{CONFIGURATION}__{name}"
        kept = Kept.read(folder / "candidates" / KEPT)
        chosen = set(kept.kept.values())
        for one in kept.candidates:
            about = {"validation": one.score, "kept": one.key in chosen}
            self.scored(one.key, folder / one.key, 2 * self.seed, **about)
        self.scored("student", folder / "student", 2 * self.seed)
        return folder

    def beside(self, teachers: str, student: Path) -> None:
        """The ensemble of a student's teachers, scored, and the side by side of all, kept as a report."""
        if f"ensemble of {teachers}" in self.known:
            return
        out = self.work / "side_by_side" / f"{teachers}-{self.seed}"
        test = ["--images", self.work / "test" / "images", "--labels", self.work / "test" / "labels"]
        ours("benchmark", "distillation", student, *test, "--out", out, "--workspace", self.work)
        folder = next(path for path in out.rglob("summary.json") if path.parent.name == "ensemble")
        self.row(f"ensemble of {teachers}", folder)

    def scored(self, system: str, folder: Path, fold: int, **about: object) -> None:
        """The row of a finished training."""
        if system in self.known:
            return
        out = self.work / "predicted" / f"{self.seed}" / system
        test = self.work / "test"
        description = self.work / "raw" / NAME / "dataset.json"
        ours("predict", folder, "--fold", fold, "-i", test / "images", "-o", out, "--workspace", self.work)
        ours("evaluate", test / "labels", out, "--dataset-json", description)
        self.row(system, out / "summary.json", **about)

    def row(self, system: str, summary: Path, **about: object) -> None:
        """Adds what a summary says of the test cases to the results."""
        cases = dict(_dice(json.loads(summary.read_text())))
        facts = {"seed": self.seed, "system": system, "dice": fmean(cases.values()), **about, "cases": cases}
        append(RESULTS, facts)


def _dice(summary: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Each case with the mean Dice over its classes."""
    for case in summary["cases"]:
        yield case["case"], fmean(scores["dice"] for scores in case["scores"].values() if scores["dice"] is not None)


def main() -> None:
    """Every seed in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    work = options.work.absolute()
    prepared(options.data, work)
    for seed in options.seeds.split(","):
        Study(work, int(seed), options.jobs).run()


if __name__ == "__main__":
    main()
