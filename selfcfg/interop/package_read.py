"""Packages of trained models, taken in only when everything about them is as their manifest says."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from selfcfg.engine.prediction.ensemble import Ensemble
from selfcfg.engine.prediction.opening import load_model
from selfcfg.engine.prediction.packaged import (
    CROSS_VALIDATION,
    MANIFEST,
    PLAN,
    RUN,
    WEIGHTS,
    Manifest,
    is_member,
    unsafe_path,
)
from selfcfg.engine.prediction.selected import MODEL, SelectedModel
from selfcfg.errors import DataError, UsageError, listed
from selfcfg.files import new_folder, parse_json
from selfcfg.interop.archive import extract, opened, reading, refuse_bombs, refuse_unsafe, shown, told_as
from selfcfg.interop.cross_validation import CrossValidation
from selfcfg.interop.exchanged import refuse_existing
from selfcfg.interop.mistaken import holding, mistaken, names_in
from selfcfg.plan import Plan
from selfcfg.runs import RunRecord

MAX_MEMBERS = 20_000
"""Files of a package: three a fold."""

MAX_TEXT = 64 << 20
"""Bytes of each file that is no weights."""

_REMEDY = "take another copy of the package"
_NONE = "a package is what selfcfg export MODEL --to package writes; for nnU-Net's archives: selfcfg import nnunet"


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Args:
        folder: that was made.
        model: folder of the model in it.
        networks: how many it has.
        made_by: version of selfcfg that wrote the package.
    """

    folder: Path
    model: Path
    networks: int
    made_by: str


def import_package(file: Path, out: Path) -> Imported:
    """Unpacks a package into a new folder, which appears whole or not at all, after its model was loaded from it.

    Nothing is written before every name, size and kind in the archive was found right; every byte is compared with the
    hash in the manifest; nothing in it is run.

    Args:
        file: what `selfcfg.interop.package_write.write_package` wrote.
        out: the folder to make.

    Raises:
        UsageError: there is no such file, it is a folder, or `out` is there already.
        DataError: something in it is missing, damaged, unsafe, or not of a package.
    """
    asked = f"import {file}"
    if file.is_dir():
        names = names_in(file)
        nothing = f"a folder, no package: {holding(names)}", _NONE
        raise UsageError(asked, *(mistaken(names, is_folder=True) or nothing))
    refuse_existing(out)
    with opened(file, asked, _NONE) as archive:
        manifest, entries = _checked(archive, file, asked)
        with new_folder(out) as folder, told_as(folder, out):
            (folder / MANIFEST).write_bytes(_text(archive, entries[MANIFEST], asked))
            for name, member in manifest.files.items():
                found = extract(archive, entries[name], folder.joinpath(*PurePosixPath(name).parts), asked)
                if found != member.sha256:
                    raise DataError(asked, f"'{shown(name)}' is not the file that its manifest says", _REMEDY)
            _refuse_escapes(folder, manifest)
            model = load_model(folder, device="cpu", precision="float32")
            outlines = [member.outline for member in model.members] if isinstance(model, Ensemble) else [model]
    return Imported(out, out / manifest.model, sum(len(one.files) for one in outlines), manifest.selfcfg)


def _checked(archive: zipfile.ZipFile, file: Path, asked: str) -> tuple[Manifest, dict[str, zipfile.ZipInfo]]:
    """The manifest, and the entries by name, after all of them were found harmless and as it says."""
    every = archive.infolist()
    refuse_unsafe(every, asked)
    used = {str(parent) + "/" for entry in every for parent in PurePosixPath(entry.filename).parents}
    entries = {entry.filename: entry for entry in every if not (_is_folder(entry) and entry.filename in used)}
    if MANIFEST not in entries:
        nothing = f"there is no {MANIFEST} in it, {holding(entries)}", _NONE
        raise DataError(asked, *(mistaken(entries, is_folder=False) or nothing))
    if len(entries) > MAX_MEMBERS:
        raise DataError(asked, f"{len(entries)} files in it, {MAX_MEMBERS} at most", "do not trust it")
    refuse_bombs(list(entries.values()), file, asked)
    source = f"{file}/{MANIFEST}"
    manifest = Manifest.parse(parse_json(_text(archive, entries[MANIFEST], asked), source), source)
    _refuse_strange(manifest, entries, asked)
    return manifest, entries


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    """Whether it is but the name of a folder, as some tools store it."""
    return entry.filename.endswith("/") and entry.file_size == 0


def _refuse_strange(manifest: Manifest, entries: Mapping[str, zipfile.ZipInfo], asked: str) -> None:
    """Nothing, where archive and manifest hold the same files, of the kinds and sizes that a package has.

    Raises:
        DataError: they do not.
    """
    there = set(entries) - {MANIFEST}
    for names, what in (
        ({name for name in there | set(manifest.files) if not is_member(name)}, "which no package holds"),
        (there - set(manifest.files), "of which its manifest says nothing"),
        (set(manifest.files) - there, "which its manifest names, but is not there"),
    ):
        if names:
            raise DataError(asked, f"'{listed(map(shown, sorted(names)), 3)}' in it, {what}", _REMEDY)
    for name, member in manifest.files.items():
        if entries[name].file_size != member.size:
            found = f"'{shown(name)}' has {entries[name].file_size} bytes, its manifest says {member.size}"
            raise DataError(asked, found, _REMEDY)
        if not name.endswith(WEIGHTS) and member.size > MAX_TEXT:
            raise DataError(asked, f"'{shown(name)}' has {member.size} bytes, {MAX_TEXT} at most", _REMEDY)
    if problem := unsafe_path(manifest.model):
        raise DataError(asked, f"its manifest says that the model '{shown(manifest.model)}' {problem}", _REMEDY)
    if not any(name.startswith(f"{manifest.model}/") for name in manifest.files):
        raise DataError(asked, f"the model '{shown(manifest.model)}' of its manifest is not in it", _REMEDY)


def _refuse_escapes(folder: Path, manifest: Manifest) -> None:
    """Nothing, where the records name nothing but what can lie in the package.

    Raises:
        DataError: one leads out of it, or is not usable.
    """
    for name in manifest.files:
        file = folder / name
        told: list[str] = []
        if file.name == RUN:
            record = RunRecord.read(file)
            told = [record.dataset, *([record.previous] if record.previous is not None else [])]
        elif file.name == MODEL:
            selected = SelectedModel.read(file)
            told = [selected.dataset, *(member.experiment for member in selected.members)]
        elif file.name == CROSS_VALIDATION:
            CrossValidation.read(file)
        elif file.name == PLAN:
            told = [Plan.read(file).dataset]
        if bad := next((one for one in told if unsafe_path(one)), None):
            raise DataError(f"read {file}", f"the name {bad[:80]!a} {unsafe_path(bad)}", "do not trust the package")


def _text(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, asked: str) -> bytes:
    if entry.file_size > MAX_TEXT:
        raise DataError(asked, f"{entry.filename} has {entry.file_size} bytes, {MAX_TEXT} at most", _REMEDY)
    with reading(asked):
        return archive.read(entry)
