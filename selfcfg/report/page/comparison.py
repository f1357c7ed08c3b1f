"""The facts of a comparison, or of a single system that was scored: by whatever tool, without any training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfcfg.dataset import TEST_IMAGES, Dataset, DatasetDescription
from selfcfg.engine.comparison.alignment import Aligned
from selfcfg.engine.comparison.records import Comparison
from selfcfg.engine.comparison.systems import Given, is_run, label_maps
from selfcfg.engine.scoring.evaluate import SUMMARY, Evaluation
from selfcfg.engine.scoring.validation import pooled
from selfcfg.errors import SelfcfgError, listed
from selfcfg.files import read_json
from selfcfg.fixes import Fixes
from selfcfg.image_files import image_files
from selfcfg.labels import LabelSchema
from selfcfg.plan import Plan
from selfcfg.report.cases import prediction_of, shuffled
from selfcfg.report.names import Names
from selfcfg.report.page.blocks import Viewer
from selfcfg.report.page.facts import Facts
from selfcfg.report.page.shown import REFERENCE, Chosen, chosen_cases, scores_in_words, viewers_of
from selfcfg.runs import RunRecord, fold_folders
from selfcfg.workspace import Workspace

MAX_OUTLINED = 4
"""Systems whose outlines are shown at most; there are as many colours."""

_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Places:
    """Where the files of a comparison lie.

    Args:
        given: its systems.
        out: folder of the comparison; scores made there lie in it.
        references: folder of reference label maps; None: as the scores say.
        images: folder of the images; None: beside `dataset_json`, or those of the runs' dataset.
        dataset_json: says what label values mean; None: as the runs' plans say.
        workspace: where the runs' dataset is looked for.
    """

    given: Sequence[Given]
    out: Path
    references: Path | None
    images: Path | None
    dataset_json: Path | None
    workspace: Workspace


def facts_of_comparison(found: Comparison, scores: Aligned, places: Places | None, names: Names) -> Facts:
    """What a page on a comparison is made from; what its files do not tell is left out.

    Args:
        found: what may be said.
        scores: of every case.
        places: where the files lie; None: no case can be shown.
        names: what cases are called.

    Raises:
        UsageError: there is no folder of images where one was given.
    """
    sources = [_source(one, places) for one in places.given] if places is not None else []
    alone = len(scores.systems) == 1
    title = f"Report on {found.systems[0].name}" if alone else f"Comparison of {listed(scores.systems, 6)}"
    viewers: tuple[Viewer, ...] = ()
    setting = _setting(places) if places is not None else None
    if setting is not None:
        chosen = _chosen(scores, sources, setting)
        viewers = viewers_of(chosen, setting.labels, setting.channels, names) if chosen else ()
    evaluation = sources[0].evaluation if alone and sources else None
    return Facts(
        title=title,
        subtitle=f"{found.cases} cases of {found.subjects} subjects ({names.text(found.subjects_from)})",
        folder=places.out if places is not None else None,
        names=names,
        found=found,
        scores=scores,
        evaluation=evaluation if evaluation is None else shuffled(evaluation, names),
        viewers=viewers,
        sources=tuple((system.name, system.kind) for system in found.systems),
    )


@dataclass(frozen=True)
class _Source:
    """What is known of a system's files.

    Args:
        maps: label map of each case.
        references: reference of each case, where the scores name it.
        evaluation: its scores whole, where selfcfg made them.
    """

    maps: Mapping[str, Path] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)
    evaluation: Evaluation | None = None


@dataclass(frozen=True)
class _Setting:
    """What label values mean, and the images."""

    labels: LabelSchema
    channels: tuple[str, ...]
    images: Mapping[str, tuple[Path, ...]]
    references: Mapping[str, Path]
    fixes: Fixes


def _source(given: Given, places: Places) -> _Source:
    """The files of the first repetition of a system."""
    path, is_single = given.paths[0], len(given.paths) == 1
    try:
        if path.is_dir() and is_run(path):
            found = _of_evaluation(pooled(path), path)
        elif places.references is not None and path.is_dir() and (maps := label_maps([path])):
            name = given.name if is_single else f"{given.name}-1"
            found = _Source(maps, {}, Evaluation.read(places.out / "scores" / name / SUMMARY))
        else:
            file = next(one for one in (path, path / SUMMARY, path / "validation" / SUMMARY) if one.is_file())
            found = _of_evaluation(Evaluation.read(file), path)
    except (SelfcfgError, StopIteration):  # scores of another tool: there are no label maps to be shown
        return _Source()
    return found if is_single else _Source(found.maps, found.references)


def _of_evaluation(evaluation: Evaluation, path: Path) -> _Source:
    maps, references = {}, {}
    for case in evaluation.cases:
        maps[case.case], references[case.case] = prediction_of(case, path), case.reference
    return _Source(maps, references, evaluation)


def _setting(places: Places) -> _Setting | None:
    """From the dataset.json, else from the first run; None where neither is there."""
    references = image_files(places.references) if places.references is not None else {}
    given = _channels(places.images) if places.images is not None else {}
    try:
        if places.dataset_json is not None:
            file = places.dataset_json
            description = DatasetDescription.parse(read_json(file), str(file))
            images = given or _beside(file.parent)
            return _Setting(
                description.schema_of_labels, description.channels, images, references, Fixes.of(file.parent)
            )
        for one in places.given:
            if one.paths[0].is_dir() and is_run(one.paths[0]):
                return _of_run(one.paths[0], places.workspace, given, references)
    except SelfcfgError:
        return None
    return None


def _of_run(
    path: Path, workspace: Workspace, given: Mapping[str, tuple[Path, ...]], references: Mapping[str, Path]
) -> _Setting:
    run = fold_folders(path)[0]
    plan = Plan.read(run.plan)
    try:
        dataset = Dataset.open(workspace.dataset_folder(RunRecord.read(run.record).dataset))
    except SelfcfgError:
        return _Setting(plan.labels, plan.channels, given, references, Fixes())
    images = {case.id: case.images for case in dataset.cases}
    labels = {case.id: case.label for case in dataset.cases if case.label is not None}
    return _Setting(plan.labels, plan.channels, given or images, {**labels, **references}, Fixes.of(dataset.root))


def _chosen(scores: Aligned, sources: Sequence[_Source], setting: _Setting) -> list[Chosen]:
    """The cases worth looking at whose label maps are known."""
    chosen = []
    for case, why in chosen_cases(scores):
        told = (one.references[case] for one in sources if case in one.references)
        reference = setting.references.get(case) or next(told, None)
        systems = {
            name if name != REFERENCE else f"{name} (system)": source.maps[case]
            for name, source in zip(scores.systems, sources, strict=True)
            if case in source.maps
        }
        if reference is not None and systems:
            maps = {REFERENCE: reference, **dict(list(systems.items())[:MAX_OUTLINED])}
            about = scores_in_words(scores, case)
            chosen.append(Chosen(case, why, about, maps, setting.images.get(case, ()), setting.fixes))
    return chosen


def _beside(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The images that lie beside a dataset.json."""
    found: dict[str, tuple[Path, ...]] = {}
    for name in (TEST_IMAGES, "imagesTr"):
        if (folder / name).is_dir():
            found |= _channels(folder / name)
    return found


def _channels(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The images of a folder by case: CASE_0000, CASE_0001 ... are channels, any other name is a case by itself."""
    found: dict[str, list[Path]] = {}
    for stem, file in image_files(folder).items():
        match = _CHANNEL.fullmatch(stem)
        found.setdefault(match[1] if match else stem, []).append(file)
    return {case: _sorted(files) for case, files in found.items()}


def _sorted(files: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(sorted(files, key=lambda file: file.name))
