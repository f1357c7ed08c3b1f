"""What the results of tasks depend on, as hashes: of plans and settings, and of the sizes and times of files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfcfg.dataset import Case
from selfcfg.engine import pipeline
from selfcfg.engine.choice import TrainRequest
from selfcfg.engine.scoring.evaluate import SUMMARY
from selfcfg.files import hash_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.fixes import FIXES_FILE
from selfcfg.plan import Plan
from selfcfg.project import Project
from selfcfg.runs import RunFolder, experiment_folders

WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class Start:
    """What all trainings of a graph start from: dataset, folds and plan.

    Args:
        text: another one when any of them changes.
    """

    text: str

    @classmethod
    def of(cls, project: Project, plan: Plan, facts: Fingerprint) -> Start:
        """The start of a plan on a dataset."""
        folds = [split.model_dump(mode="json") for split in pipeline.splits(project, facts)]
        return cls(hash_json([dataset_state(project), folds, plan.content_hash()]))

    def inputs(self, requests: Iterable[TrainRequest] = (), weights: Iterable[Path] = (), what: Any = None) -> str:
        """A hash of the start, of what is asked for besides, and of the images and weights that are named.

        Args:
            requests: of the trainings.
            weights: further runs or files of weights that they start or learn from.
            what: JSON-able, is done.
        """
        images, known = set[Path](), set(weights)
        for request in requests:
            images |= {one.images for one in request.unlabelled} | ({request.reference} if request.reference else set())
            known |= {path for path in (request.init, request.previous, *request.teachers) if path is not None}
        files = [*_within(images, "*"), *_within(known, WEIGHTS)]
        return hash_json([self.text, what, files_state(files)])


def dataset_state(project: Project) -> str:
    """A text that is another one when files of a raw dataset come, go or change; none of them is read."""
    cases = (file for case in project.dataset.cases for file in files_of(case))
    return files_state([project.root / "dataset.json", project.root / FIXES_FILE, *cases])


def files_state(files: Iterable[Path]) -> str:
    """A hash of the names, sizes and times of those files that are there."""
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return hash_json([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def files_of(case: Case) -> list[Path]:
    """The files of a case."""
    return [*case.images, *([case.label] if case.label is not None else [])]


def left_by(run: RunFolder, *, segments: bool) -> tuple[Path, ...]:
    """What a finished training leaves: its weights and, where it segments, the scores of its validation cases."""
    return (run.final, *([run.validation / SUMMARY] if segments else []))


def others_of(project: Project, own: Iterable[Path]) -> tuple[Path, ...]:
    """What the trainings of a dataset left that are in none of some folders of its results."""
    known = set(own)
    folders = [folder for folder in sorted(project.results.glob("*")) if folder not in known]
    runs = [RunFolder(run) for folder in folders for one in experiment_folders(folder) for run in one.glob("fold_*")]
    return tuple(file for run in runs for file in left_by(run, segments=True) if file.is_file())


def _within(places: Iterable[Path], pattern: str) -> list[Path]:
    """Files themselves, and those in folders whose names fit."""
    return [file for place in sorted(places) for file in ([place] if place.is_file() else sorted(place.rglob(pattern)))]
