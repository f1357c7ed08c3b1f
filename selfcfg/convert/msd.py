"""Task folders of the Medical Segmentation Decathlon into the standard folder format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfcfg.convert.building import SourceCase, Writing, building, common_ending, every_case, survey_case, write_case
from selfcfg.convert.description import describe, refuse_undeclared
from selfcfg.convert.label_plan import parse_declared, plan_declared
from selfcfg.dataset import Dataset, Provenance
from selfcfg.errors import DataError, UsageError, listed
from selfcfg.files import read_json, write_json
from selfcfg.image_files import ending_in, is_case_name, stem_in
from selfcfg.progress import say


def convert_msd(source: Path, destination: Path) -> Dataset:
    """The dataset that it wrote to `destination`, which appears whole or not at all.

    Every file that dataset.json lists is read to its end. Images of several channels are split into one file each, what
    needs no change is copied without its notes; label values must be declared. Test images go to imagesTs.

    Raises:
        UsageError: `source` is no such task, or `destination` exists.
        DataError: files that are listed are missing, or cases cannot be used; each is named with its reason.
    """
    if destination.exists():
        raise UsageError(f"convert to {destination}", "it exists already", "choose another id or remove that folder")
    if not (source / "dataset.json").is_file():
        raise UsageError(
            f"convert {source}",
            "there is no dataset.json in it",
            "give the folder of one task, such as Task04_Hippocampus",
        )
    content = read_json(source / "dataset.json")
    training, test = _cases_of(source, content)
    _tell_unlisted(source, training)
    file = f"{source / 'dataset.json'}"
    plan = plan_declared(parse_declared(content.get("labels"), file))
    channels = _channels(content, file)
    everything = [*training, *test]
    surveys = every_case(survey_case, {_key(case): (case, None) for case in everything}, everything, "read")
    trained = {case.id: surveys[_key(case)] for case in training}
    refuse_undeclared(plan, trained, file)
    _refuse_channels(channels, {key: sum(survey.n_channels) for key, survey in surveys.items()})
    ending = common_ending(everything, {case.id: surveys[_key(case)] for case in everything})
    label_map = {str(old): new for old, new in plan.label_map.items()} if plan.changes else {}
    provenance = Provenance(label_map=label_map, source=f"MSD {content.get('name', source.name)}, {source}")
    description = describe(destination, channels, plan, provenance, ending=ending, n_cases=len(training))
    description |= {key: content[key] for key in ("description", "reference", "licence", "release") if key in content}
    with building(destination) as folder:
        parts = [("Tr", case) for case in training] + [("Ts", case) for case in test]
        items = {
            _key(case): Writing(case, surveys[_key(case)], folder, part, ending, plan.label_map) for part, case in parts
        }
        every_case(write_case, items, everything, "convert")
        write_json(folder / "dataset.json", description)
    return Dataset.open(destination)


def _cases_of(source: Path, content: Any) -> tuple[list[SourceCase], list[SourceCase]]:
    """The training and test cases that dataset.json lists."""
    file = source / "dataset.json"
    if not isinstance(content, dict) or not isinstance(content.get("training"), list) or not content["training"]:
        raise DataError(
            f"read {file}", "no list of 'training' cases", "give the folder of one task, with its own dataset.json"
        )
    if not isinstance(content.get("test") or [], list):
        raise DataError(f"read {file}", "'test' is no list of file names", "mend dataset.json, or leave it out")
    training, test, problems = [], [], []
    for entry in content["training"]:
        image = entry.get("image") if isinstance(entry, dict) else None
        label = entry.get("label") if isinstance(entry, dict) else None
        if not isinstance(image, str) or not isinstance(label, str):
            problems.append(f"'training' entry {entry!r} is not {{'image': ..., 'label': ...}}")
        elif not _is_hidden(image):
            training.append(SourceCase(_stem(image), (source / image,), source / label))
    for entry in content.get("test") or []:
        image = entry.get("image") if isinstance(entry, dict) else entry
        if not isinstance(image, str):
            problems.append(f"'test' entry {entry!r} is not a file name")
        elif not _is_hidden(image):
            test.append(SourceCase(_stem(image), (source / image,), None))
    names = [case.id for case in training]
    bad = [case.id[:80] for case in (*training, *test) if not is_case_name(case.id)]
    problems += [f"{name!a} cannot be the name of a case" for name in bad] or _file_problems(source, [*training, *test])
    problems += [f"case '{name}' is listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems:
        raise DataError(
            f"read {file}", listed(problems, separator="; "), "complete the task folder, or mend dataset.json"
        )
    return training, test


def _file_problems(source: Path, cases: list[SourceCase]) -> list[str]:
    found = []
    for case in cases:
        for path in (*case.images, *([case.label] if case.label else [])):
            if not path.resolve().is_relative_to(source.resolve()):
                found.append(f"case '{case.id}': {path} leaves the task folder")
            elif not _is_file(path):
                found.append(f"case '{case.id}': there is no file {path}")
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the system
        return False


def _tell_unlisted(source: Path, training: list[SourceCase]) -> None:
    used = {path.resolve() for case in training for path in case.images}
    folder = source / "imagesTr"
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    unlisted = [
        path.name for path in files if ending_in(path.name) and not _is_hidden(path.name) and path.resolve() not in used
    ]
    if unlisted:
        say(f"left out {len(unlisted)} images that dataset.json does not list: {listed(unlisted)}")


def _channels(content: Mapping[str, Any], file: str) -> tuple[str, ...]:
    modality = content.get("modality", content.get("channel_names"))
    if not isinstance(modality, dict) or sorted(modality) != sorted(str(index) for index in range(len(modality))):
        raise DataError(f"read {file}", f"'modality' is {modality!r}", 'write {"0": "MRI"}, one entry a channel')
    return tuple(str(modality[str(index)]) for index in range(len(modality)))


def _refuse_channels(channels: tuple[str, ...], counts: Mapping[str, int]) -> None:
    wrong = [f"case '{case}' has {count}" for case, count in counts.items() if count != len(channels)]
    if wrong:
        found = f"{len(channels)} channels in 'modality', but {listed(wrong)}"
        raise DataError("convert", found, "mend 'modality' in dataset.json, or the images")


def _key(case: SourceCase) -> str:
    """Training and test cases may share an id."""
    return case.id if case.label is not None else f"{case.id} (test)"


def _is_hidden(name: str) -> bool:
    return Path(name).name.startswith(".")


def _stem(name: str) -> str:
    return stem_in(Path(name).name)
