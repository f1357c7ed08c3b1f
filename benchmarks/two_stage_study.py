"""What the two stages of auxiliary tasks and distillation are worth on real radiographs, beside the controls.

    python benchmarks/two_stage_study.py --data DIR --work DIR [--seeds 0,1,2] [--jobs 2] [--ablate]
        [--brief]

DIR of ``--data`` holds ``cxr_lung/montgomery``: 138 radiographs of as many patients, of which
``montgomery_split.json`` makes 98 for training, 20 for validation and 20 for testing. For each seed 10 of the 98 are
labelled, the others are images without labels; 20, among them these 10, for the controls with twice the labels. All
networks have four stages and 0.5 million parameters, and the same number of steps with labels; all students see the
same images without labels.

Systems: ``plain`` (five networks that differ in their seed), ``twice`` (five more), the ten candidates of the recipe
``two_stage``, its ``student``, and the controls that separate the tasks from mere ensembling: the ensembles of five
plain networks and of the five winners, and the students of the plain ones. Candidates are chosen by the validation
images alone; every system is scored on the test images, a row each in ``benchmarks/results/two_stage.jsonl``. What is
there is not done again.

With ``--ablate`` the first of the seeds, whose trainings are there, has students of the winners with other shares of
the teachers in the loss (``balance``; 0.5 is ``student`` itself, and 0 is ``plain0``, which has no teacher), and of the
best one to four of them by validation (``student`` is that of five).
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
from studying import ours

from selfcfg.files import write_json
from selfcfg.recipes.kept import KEPT, Contender, Kept

RESULTS = "two_stage.jsonl"
SPLIT = Path(__file__).with_name("montgomery_split.json")
NUMBER, NAME = 31, "Dataset031_lungs"
FEW, TWICE, PLAIN = 10, 20, 5
BALANCES, TEACHERS = (0.25, 0.75, 1.0), (1, 2, 3, 4)
"""Of the students of an ablation: share of the teachers in the loss, and their number."""

STEPS = {"epochs": 20, "iterations_per_epoch": 20, "validation_iterations": 2, "workers": 0}
UPRIGHT = {"transforms.mirror_p": 0, "transforms.rotation_2d": 0.26}
STAGES = ("joint", "finetune", "student")
"""Of the recipe, those with labels."""


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
        is_brief: two steps of everything, with results in the workspace alone.
    """

    def __init__(self, work: Path, seed: int, jobs: int, *, is_brief: bool = False) -> None:
        self.work, self.seed, self.jobs = work, seed, jobs
        self.results = str(work / RESULTS) if is_brief else RESULTS
        self.steps = {**STEPS, "epochs": 1, "iterations_per_epoch": 2} if is_brief else STEPS
        self.known = {row["system"] for row in read(self.results) if row["seed"] == seed}
        self.shared = ["-c", CONFIGURATION, "--resume", "--workspace", work]

    def run(self) -> None:
        """Everything that has no row yet."""
        for system, fold in (("plain", 2 * self.seed), ("twice", 2 * self.seed + 1)):
            names = [f"{system}{one}" for one in range(PLAIN)]
            teachers = [self.trained(name, fold, 10 * self.seed + one) for one, name in enumerate(names)]
            self.beside(system, self.student(f"of-{system}", fold, teachers))
        self.beside("two_stage", self.two_stage() / "student")

    def ablated(self) -> None:
        """The students with another balance, and those of fewer teachers.

        Raises:
            SystemExit: the candidates are not there yet.
        """
        folder, fold = self.recipe_folder(), 2 * self.seed
        if not (folder / "candidates" / KEPT).is_file():
            raise SystemExit(f"seed {self.seed} has no candidates in {folder}: run the study without --ablate first")
        kept = Kept.read(folder / "candidates" / KEPT)
        winners = [folder / one.key for one in ranked(kept)]
        for balance in BALANCES:
            self.student(f"student balance {balance:g}", fold, winners, balance=balance)
        for count in TEACHERS:
            self.student(f"student of {count}", fold, winners[:count])

    def student(self, system: str, fold: int, teachers: list[Path], **settings: object) -> Path:
        """The experiment folder of a student, scored; it sees the images without labels that the recipe's sees."""
        learns = [word for folder in teachers for word in ("--teacher", folder)]
        how = ["--trainer", "distillation", *learns, *self.images(), *sets(settings)]
        return self.trained(system, fold, 10 * self.seed, *how)

    def images(self) -> list[object]:
        """The option that gives images without labels."""
        return ["--unlabelled", self.work / "known" / "images"]

    def recipe_folder(self) -> Path:
        """Where the recipe's trainings are."""
        return self.work / "results" / NAME / f"two_stage__standard__{CONFIGURATION}__seed{self.seed}"

    def trained(self, system: str, fold: int, seed: int, *how: object) -> Path:
        """The experiment folder of one training, scored."""
        name, trainer = f"{system.replace(' ', '-')}-seed{self.seed}", how[1] if how else "supervised"
        settings = sets({**self.steps, **UPRIGHT})
        ours("train", NUMBER, "--fold", fold, "--seed", seed, "--name", name, *how, *settings, *self.shared)
        folder = self.work / "results" / NAME / f"{trainer}__standard__{CONFIGURATION}__{name}"
        self.scored(system, folder, fold)
        return folder

    def two_stage(self) -> Path:
        """The recipe's folder, its candidates and what was kept of them scored."""
        settings = [word for stage in STAGES for word in sets({**self.steps, **UPRIGHT}, stage)] + sets(
            self.steps, "pretrain"
        )
        own = ["--recipe", "two_stage", "--fold", 2 * self.seed, "--seed", 10 * self.seed, "--name", f"seed{self.seed}"]
        ours("train", NUMBER, *own, *settings, *self.images(), "--jobs", self.jobs, *self.shared)
        folder = self.recipe_folder()
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
        append(self.results, facts)


def ranked(kept: Kept) -> list[Contender]:
    """The candidates that are kept, the best by validation first, of equals the first of the recipe."""
    chosen = set(kept.kept.values())
    return sorted((one for one in kept.candidates if one.key in chosen), key=lambda one: -(one.score or 0.0))


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
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--brief", action="store_true", help="two steps of everything, kept in --work alone")
    options = parser.parse_args()
    work = options.work.absolute()
    prepared(options.data, work)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.ablate:
        Study(work, seeds[0], options.jobs, is_brief=options.brief).ablated()
        return
    for seed in seeds:
        Study(work, seed, options.jobs, is_brief=options.brief).run()


if __name__ == "__main__":
    main()
