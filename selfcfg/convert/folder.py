"""Folders of images and labels, paired by name, into the standard folder format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfcfg.convert.building import (
    CaseSurvey,
    Writing,
    building,
    common_ending,
    every_case,
    survey_case,
    write_case,
)
from selfcfg.convert.description import describe, name_channels, refuse_undeclared, subjects_by_pattern
from selfcfg.convert.label_plan import Declared, LabelPlan, plan_declared, plan_found, plan_mask, read_declared
from selfcfg.convert.pairing import Pairs, pair
from selfcfg.convert.target_table import read_targets
from selfcfg.dataset import Dataset, Provenance
from selfcfg.errors import DataError, UsageError, counted, listed
from selfcfg.files import write_json
from selfcfg.image_targets import GivenTarget
from selfcfg.progress import say
from selfcfg.records import Record


class FolderRequest(Record):
    """What to convert, as the command line says it.

    Args:
        images: one folder a channel, or one folder with CASE_0000, CASE_0001, ... in it.
        labels: folder of the label maps.
        channels: channel names in order; empty: "R", "G", "B" for colour pictures, else "image".
        labels_json: file of names and original values; None: values are named after themselves.
        threshold: values of a mask above this are foreground; None takes values as they are.
        subject_pattern: regular expression whose first group, found in a case id, is its subject.
        image_targets: table of image-level targets, see `selfcfg.convert.target_table`.
        class_columns: its columns that are classes although they hold numbers.
    """

    images: tuple[Path, ...]
    labels: Path
    channels: tuple[str, ...] = ()
    labels_json: Path | None = None
    threshold: float | None = None
    subject_pattern: str | None = None
    image_targets: Path | None = None
    class_columns: tuple[str, ...] = ()


def convert_folder(request: FolderRequest, destination: Path) -> Dataset:
    """The dataset that it wrote to `destination`, which appears whole or not at all.

    Every file is read to its end. Files that need no change are copied, without notes that may name a patient; volumes
    of several channels are split, pictures lose palettes and opaque alpha channels; JPEG becomes PNG, since labels
    share the suffix and JPEG changes values. Labels get consecutive values; the original ones are recorded in
    dataset.json.

    Raises:
        UsageError: the request cannot be met, or `destination` exists.
        DataError: names do not pair, or cases cannot be used; each is named with its reason.
    """
    if not request.images:
        raise UsageError("convert folder", "no folder of images", "give one with --images")
    if destination.exists():
        raise UsageError(f"convert to {destination}", "it exists already", "choose another id or remove that folder")
    declared = read_declared(request.labels_json) if request.labels_json else None
    pairs = pair(request.images, request.labels)
    _tell(pairs)
    sources = list(pairs.cases)
    subjects = subjects_by_pattern(request.subject_pattern, [case.id for case in sources])
    cases = [case.id for case in sources]
    targets = _targets(request, cases)
    surveys = every_case(survey_case, {case.id: (case, request.threshold) for case in sources}, sources, "read")
    plan = _label_plan(request, declared, surveys)
    ending = common_ending(sources, surveys)
    channels = name_channels(request.channels, surveys, ending)
    source = f"images {', '.join(map(str, request.images))}, labels {request.labels}"
    provenance = Provenance(
        subjects={case: subject for case, subject in subjects.items() if case != subject},
        label_map={str(old): new for old, new in plan.label_map.items()} if plan.changes else {},
        source=source,
        threshold=request.threshold,
    )
    description = describe(destination, channels, plan, provenance, ending=ending, n_cases=len(cases), targets=targets)
    with building(destination) as folder:
        items = {
            case.id: Writing(case, surveys[case.id], folder, "Tr", ending, plan.label_map, request.threshold)
            for case in sources
        }
        every_case(write_case, items, sources, "convert")
        write_json(folder / "dataset.json", description)
    return Dataset.open(destination)


def _targets(request: FolderRequest, cases: list[str]) -> dict[str, GivenTarget]:
    if request.image_targets is None:
        if request.class_columns:
            raise UsageError("--classes", "no table", "give it with --image-targets")
        return {}
    return read_targets(request.image_targets, request.class_columns, cases)


def _tell(pairs: Pairs) -> None:
    for names, what, lacking in (
        (pairs.lonely_images, "image", "without a label"),
        (pairs.lonely_labels, "label", "without an image"),
    ):
        if names:
            say(f"left out {counted(len(names), what)} {lacking}: {listed(names)}")


def _label_plan(request: FolderRequest, declared: Declared | None, surveys: Mapping[str, CaseSurvey]) -> LabelPlan:
    if request.threshold is not None:
        if not any(survey.values.get(1) for survey in surveys.values()):
            found = "no voxel of any mask is above it"
            raise DataError(f"threshold {request.threshold:g}", found, "choose a smaller one")
        return plan_mask(declared)
    if declared is None:
        return plan_found({value for survey in surveys.values() for value in survey.values}, str(request.labels))
    plan = plan_declared(declared)
    refuse_undeclared(plan, surveys, declared.source)
    return plan
