"""Radiographs or other pictures with a table of run-length codes for masks, into the standard folder format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from selfcfg.convert.building import (
    CaseSurvey,
    SourceCase,
    Writing,
    building,
    common_ending,
    every_case,
    label_file,
    refuse,
    survey_case,
    write_images,
)
from selfcfg.convert.code_table import ImageCodes, image_name, read_codes
from selfcfg.convert.description import describe, name_channels, subjects_by_pattern
from selfcfg.convert.label_plan import plan_class
from selfcfg.dataset import Dataset, Provenance
from selfcfg.errors import DataError, UsageError, counted, listed
from selfcfg.files import write_json
from selfcfg.image_files import DICOM_ENDINGS, RASTER_ENDINGS, refuse_names
from selfcfg.io.images import write_label
from selfcfg.kernels.run_lengths import CODINGS, Coding, decode_runs, misfit
from selfcfg.progress import say
from selfcfg.records import Record

ENDINGS = RASTER_ENDINGS + DICOM_ENDINGS


class RleRequest(Record):
    """What to convert, as the command line says it.

    Args:
        images: folder of pictures, searched with all its subfolders.
        table: CSV file of run-length codes.
        coding: what the starts of runs count from; None: the coding that the codes fit.
        id_column: column that names the image; None: found by its name.
        code_column: column of the codes; None: found by its name.
        unlisted: what an image without a row is: unlabelled and left out, or without any mask.
        label_name: name of what the masks show.
        channels: channel names in order; empty: "R", "G", "B" for colour pictures, else "image".
        subject_pattern: regular expression whose first group, found in an image's name, is its subject.
    """

    images: Path
    table: Path
    coding: Coding | None = None
    id_column: str | None = None
    code_column: str | None = None
    unlisted: Literal["leave-out", "empty"] = "leave-out"
    label_name: str = "foreground"
    channels: tuple[str, ...] = ()
    subject_pattern: str | None = None


@dataclass(frozen=True)
class _Survey:
    """What reading a picture told; `patient` is its PatientID, which no file and no message may hold."""

    case: CaseSurvey
    patient: str


@dataclass(frozen=True)
class _Masked:
    """One case to write, its mask as codes."""

    writing: Writing
    codes: tuple[tuple[int, ...], ...]
    coding: Coding


def convert_rle_csv(request: RleRequest, destination: Path) -> Dataset:
    """The dataset that it wrote to `destination`, which appears whole or not at all.

    Every picture is read to its end and becomes a PNG (or TIFF, where PNG cannot hold its numbers); pictures that are
    such already are copied without their notes. Nothing else of a DICOM file is taken over: cases of one PatientID get
    one subject, named by a number. Several rows of one image are one mask together.

    Raises:
        UsageError: the request cannot be met, or `destination` exists.
        DataError: rows or images cannot be used, or codes do not fit their images; each is named with its reason.
    """
    if destination.exists():
        raise UsageError(f"convert to {destination}", "it exists already", "choose another id or remove that folder")
    plan = plan_class(request.label_name)
    table = read_codes(request.table, request.id_column, request.code_column)
    sources = _matched(request, table, _find_images(request.images))
    codes = {case.id: table.get(case.id, ImageCodes()) for case in sources}
    found = every_case(_survey, {case.id: case for case in sources}, sources, "read")
    surveys = {case: survey.case for case, survey in found.items()}
    coding = _coding(request, codes, surveys)
    if not any(image.codes for image in codes.values()):
        raise DataError(f"masks of {request.table}", "no image has one", "check the table")
    subjects = _subjects(request, sources, {case: survey.patient for case, survey in found.items()})
    ending = common_ending(sources, surveys)
    channels = name_channels(request.channels, surveys, ending)
    provenance = Provenance(
        subjects={case: subject for case, subject in subjects.items() if case != subject},
        source=f"images {request.images}, {coding} run lengths {request.table}",
    )
    description = describe(destination, channels, plan, provenance, ending=ending, n_cases=len(sources))
    with building(destination) as folder:
        items = {
            case.id: _Masked(
                Writing(case, surveys[case.id], folder, "Tr", ending, plan.label_map),
                tuple(codes[case.id].codes.values()),
                coding,
            )
            for case in sources
        }
        every_case(_write, items, sources, "convert")
        write_json(folder / "dataset.json", description)
    _tell(codes, subjects, coding)
    return Dataset.open(destination)


def _find_images(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and all folders in it, by their name without suffix; hidden files are left out."""
    if not folder.is_dir():
        raise UsageError(f"read {folder}", "there is no such folder", "check the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.name.lower().endswith(ENDINGS) or not path.is_file():
            continue
        refuse_names([path.name], folder)
        if before := found.get(name := image_name(path.name)):
            raise DataError(f"image '{name}'", f"both {before} and {path} are of this name", "keep one of them")
        found[name] = path
    if not found:
        raise UsageError(f"read {folder}", f"no picture in it ({', '.join(ENDINGS)})", "check the path")
    return found


def _matched(request: RleRequest, table: Mapping[str, ImageCodes], images: Mapping[str, Path]) -> list[SourceCase]:
    """The cases to convert; what has no partner is said."""
    if not set(table) & set(images):
        raise DataError(
            f"match {request.table} with {request.images}",
            f"no name fits: rows of images such as {listed(table, 3)}, files such as {listed(images, 3)}",
            "name the column of file names with --id-column, or choose the folder of these images",
        )
    absent = [name for name in table if name not in images]
    if absent:
        say(f"left out {counted(len(absent), 'image')} of the table without a file: {listed(absent)}")
    unlisted = [name for name in images if name not in table]
    if unlisted and request.unlisted == "empty":
        say(f"{counted(len(unlisted), 'image')} without a row, taken as without a mask: {listed(unlisted)}")
    elif unlisted:
        remedy = "to take them as without a mask: --unlisted empty"
        say(f"left out {counted(len(unlisted), 'image')} without a row: {listed(unlisted)} ({remedy})")
    taken = sorted(name for name in images if name in table or request.unlisted == "empty")
    return [SourceCase(name, (images[name],), None) for name in taken]


def _survey(case: SourceCase) -> _Survey:
    survey = survey_case((case, None))
    path = case.images[0]
    if survey.geometry.dimensions != 2:
        raise DataError(f"read {path}", f"{survey.geometry.shape[0]} slices", "a code stands for one flat picture")
    if not path.name.lower().endswith(DICOM_ENDINGS):
        return _Survey(survey, "")
    from selfcfg.io.dicom import patient_of  # noqa: PLC0415 - only DICOM files need SimpleITK

    return _Survey(survey, patient_of(path))


def _coding(request: RleRequest, codes: Mapping[str, ImageCodes], surveys: Mapping[str, CaseSurvey]) -> Coding:
    """The coding that was asked for, else the only one that all codes fit.

    Raises:
        UsageError: all codes fit both.
        DataError: codes do not fit their images; each is named with its row.
    """
    tried: tuple[Coding, ...] = (request.coding,) if request.coding else CODINGS
    wrong = {coding: _misfits(coding, codes, surveys) for coding in tried}
    fitting = [coding for coding in tried if not wrong[coding]]
    if len(fitting) > 1 and any(image.codes for image in codes.values()):
        found = "the codes fit both --coding relative and --coding absolute"
        raise UsageError(f"read {request.table}", found, "give the one that the table's description says")
    if fitting:
        return fitting[0]
    best = min(tried, key=lambda coding: len(wrong[coding]))
    remedy = "mend the table"
    if request.coding:
        other = next(coding for coding in CODINGS if coding != best)
        fits = not _misfits(other, codes, surveys)
        remedy = f"they all fit with --coding {other}" if fits else remedy
    refuse(wrong[best], f"decode {request.table} as {best} run lengths", remedy, "codes")
    return best


def _misfits(coding: Coding, codes: Mapping[str, ImageCodes], surveys: Mapping[str, CaseSurvey]) -> list[str]:
    return [
        f"row {row}, image '{case}': {found}"
        for case, image in codes.items()
        for row, code in image.codes.items()
        if (found := misfit(code, coding, surveys[case].geometry.shape[1:]))
    ]


def _subjects(request: RleRequest, sources: list[SourceCase], patients: Mapping[str, str]) -> dict[str, str]:
    """Case to subject: by the pattern where one is given, else by PatientID, else the case itself.

    Names of subjects are numbers in the order of their first cases, so they are the same whenever the same images are
    converted, and tell nothing of the patient.
    """
    if request.subject_pattern is not None:
        return subjects_by_pattern(request.subject_pattern, [case.id for case in sources])
    known = [case.id for case in sources if patients[case.id]]
    if len(known) > 1 and len({patients[case] for case in known}) == 1:
        say(f"the PatientID of {counted(len(known), 'image')} is the same: each image is taken as a subject of its own")
        known = []
    numbers: dict[str, int] = {}
    for case in known:
        numbers.setdefault(patients[case], len(numbers) + 1)
    digits = max(4, len(str(len(numbers))))
    named = {case: f"patient_{numbers[patients[case]]:0{digits}d}" for case in known}
    return {case.id: named.get(case.id, case.id) for case in sources}


def _write(item: _Masked) -> None:
    write_images(item.writing)
    geometry = item.writing.survey.geometry
    mask = np.zeros(geometry.shape, bool)
    for code in item.codes:
        mask[0] |= decode_runs(code, item.coding, geometry.shape[1:])
    write_label(label_file(item.writing), mask, geometry)


def _tell(codes: Mapping[str, ImageCodes], subjects: Mapping[str, str], coding: Coding) -> None:
    n_masks = sum(len(image.codes) for image in codes.values())
    n_with = sum(bool(image.codes) for image in codes.values())
    people = counted(len(set(subjects.values())), "subject")
    say(f"{counted(n_masks, 'mask')} ({coding} run lengths) in {n_with} of {counted(len(codes), 'image')}, {people}")
