"""A trained model as one archive: everything that `predict` needs of it, and nothing that names a case."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

from selfcfg import __version__
from selfcfg.dataset import DatasetDescription
from selfcfg.engine.prediction.loading import Weights, load_model
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.packaged import (
    CARD,
    CROSS_VALIDATION,
    DATASET,
    FINGERPRINT,
    MANIFEST,
    PLAN,
    RUN,
    WEIGHTS,
    Manifest,
    Member,
    is_member,
    model_folder,
    unsafe_path,
)
from selfcfg.engine.prediction.quality import CALIBRATION, QUALITY
from selfcfg.engine.prediction.selected import MODEL, SelectedModel, load_selected, refuse_choices
from selfcfg.errors import DataError, UsageError
from selfcfg.files import replacing
from selfcfg.fingerprint import Fingerprint
from selfcfg.interop.archive import same_names
from selfcfg.interop.cross_validation import cross_validation_of
from selfcfg.interop.exchanged import came_with, described, refuse_existing, shareable
from selfcfg.interop.package_card import Part, card
from selfcfg.records import Record
from selfcfg.runs import RunFolder, RunRecord

_BLOCK = 1 << 20
_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every entry: the same model makes the same bytes."""

_MODE = stat.S_IFREG | 0o644
_LARGE = 1 << 31

Content = bytes | Path
"""The bytes of a file, or where they lie."""


@dataclass(frozen=True)
class Packaged:
    """What was written.

    Args:
        file: the archive.
        model: folder of the model within it.
        size: bytes of the archive.
        experiments: folders of the experiments in it.
        notes: what a user should know, in words.
    """

    file: Path
    model: str
    size: int
    experiments: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Contents:
    """What goes into a package, by path within it."""

    files: dict[str, Content] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)

    def add(self, name: PurePosixPath, content: Content) -> None:
        self.files[str(name)] = content

    def add_experiment(self, name: PurePosixPath, model: Model, weight: float = 1.0) -> None:
        """Adds the runs of a model, and the first model of a cascade beside them."""
        records = [RunRecord.read(RunFolder(file.parent).record) for file in model.files]
        for file, record in zip(model.files, records, strict=True):
            folder = name / file.parent.name
            self.add(folder / RUN, _text(_without_cases(record)))
            self.add(folder / PLAN, RunFolder(file.parent).plan)
            self.add(folder / WEIGHTS, file)
        scores = cross_validation_of(model)
        if scores is not None:
            self.add(name / CROSS_VALIDATION, _text(scores))
        if model.facts is not None:
            self.add(name / FINGERPRINT, _text(_anonymous(model.facts)))
        if model.temperature != 1 or model.quality is not None:
            for beside in (model.files[0].parent.parent / kind for kind in (CALIBRATION, QUALITY)):
                if beside.is_file():
                    self.add(name / beside.name, beside)
        self.parts.append(Part(str(name), model, tuple(records), weight, scores))
        if model.first is not None and records[0].previous is not None:
            self.add_experiment(name.parent / records[0].previous, model.first)


def write_package(
    model: Path,
    out: Path,
    *,
    folds: Sequence[int | str] | None = None,
    weights: Weights = "final",
    description: DatasetDescription | None = None,
) -> Packaged:
    """Writes a trained model as one zip archive, whole or not at all; the same model always gives the same bytes.

    It holds the networks as safetensors, and plan, settings, calibration and selection as JSON; no image, no case id,
    no path of this machine, no pickle.

    Args:
        model: experiment folder, fold folder, or folder of a selected model.
        out: the file to make.
        folds: those to take; None: all.
        weights: which become the final weights in the package.
        description: dataset.json of the training, of which channels, labels, licence and reference are taken; None:
            what came with the model, where it was imported.

    Raises:
        UsageError: `out` is there already, or folds of a selected model are named.
        DataError: the model cannot be loaded, or a name in it cannot be that of a folder on every system.
    """
    refuse_existing(out)
    model = model_folder(model).resolve()
    contents, entry, loaded = _gathered(model, folds, weights)
    if problem := next((f"'{name}' {why}" for name in contents.files if (why := _unfit(name))), ""):
        raise DataError(f"export {model}", f"a name in it is not fit for a package: {problem}", "rename that folder")
    notes = []
    description = description or came_with(model)
    if description is None:
        description = described(loaded.plan, contents.parts[0].records[0])
        notes.append("licence and reference of the dataset are not in it: give --dataset-json")
    dataset = shareable(loaded.plan, description, loaded.plan.dataset)
    contents.add(PurePosixPath(DATASET), (json.dumps(dataset, indent=2) + "\n").encode())
    steps = _selected(model).postprocessing if (model / MODEL).is_file() else ()
    contents.add(PurePosixPath(CARD), card(entry, contents.parts, steps, description).encode())
    if twice := same_names(contents.files):
        raise DataError(f"export {model}", f"'{twice[0]}' and '{twice[1]}' are one name to some systems", "rename one")
    files = dict(sorted(contents.files.items()))
    manifest = Manifest(selfcfg=__version__, model=entry, files={name: _member(files[name]) for name in files})
    _write(out, manifest, files)
    return Packaged(out, entry, out.stat().st_size, tuple(part.name for part in contents.parts), tuple(notes))


def _gathered(model: Path, folds: Sequence[int | str] | None, weights: Weights) -> tuple[_Contents, str, Model]:
    """What goes into the package, the folder of the model in it, and its (first) model."""
    contents = _Contents()
    if (model / MODEL).is_file():
        refuse_choices(model, folds, weights)
        ensemble, said = load_selected(model, device="cpu", precision="float32"), _selected(model)
        for one, member in zip(said.members, ensemble.members, strict=True):
            contents.add_experiment(PurePosixPath(one.experiment), member.outline, one.weight)
        contents.add(PurePosixPath(model.name) / MODEL, model / MODEL)
        return contents, model.name, ensemble.members[0].outline
    loaded = load_model(model, folds=folds, device="cpu", precision="float32", weights=weights)
    name = loaded.files[0].parent.parent.name
    contents.add_experiment(PurePosixPath(name), loaded)
    if unfinished := [record for record in contents.parts[0].records if record.status != "finished"]:
        found = f"its training is not finished (fold {unfinished[0].fold}, status '{unfinished[0].status}')"
        raise DataError(f"export {model}", found, "continue it with --resume, or choose other folds")
    return contents, name, loaded


def _selected(model: Path) -> SelectedModel:
    return SelectedModel.read(model / MODEL)


def _unfit(name: str) -> str:
    """Why a package cannot hold a file of this path; empty where it can."""
    if is_member(name):
        return ""
    return unsafe_path(str(PurePosixPath(name).parent)) or "is no file of a package"


def _without_cases(record: RunRecord) -> RunRecord:
    """The record of a run without ids of cases, hashes of files and paths here; none of it changes a prediction."""
    taken = record.taken_over
    changes: dict[str, Any] = {
        "train": (),
        "validation": (),
        "data_hash": "",
        "unlabelled": dict.fromkeys(record.unlabelled, ""),
        "reference": dict.fromkeys(record.reference, ""),
        "init": record.init and Path(record.init).name,
        "teachers": tuple(Path(teacher).name for teacher in record.teachers),
        "taken_over": taken and taken.model_copy(update={"source": Path(taken.source).name}),
    }
    return record.model_copy(update=changes)


def _anonymous(facts: Fingerprint) -> Fingerprint:
    """The fingerprint with numbers in place of ids, and without what tells its files apart."""
    subjects = {case.subject: f"subject_{number:04d}" for number, case in enumerate(facts.cases, 1)}
    cases = [
        case.model_copy(
            update={
                "case": f"case_{number:04d}",
                "subject": subjects[case.subject],
                "source": "",
                "picture": "",
                "quantiles": (),
            }
        )
        for number, case in enumerate(facts.cases, 1)
    ]
    return facts.model_copy(update={"cases": tuple(cases)})


def _text(record: Record) -> bytes:
    return (record.model_dump_json(indent=2) + "\n").encode()


def _member(content: Content) -> Member:
    digest, size = hashlib.sha256(), 0
    for block in _blocks(content):
        digest.update(block)
        size += len(block)
    return Member(size=size, sha256=digest.hexdigest())


def _blocks(content: Content) -> Iterator[bytes]:
    with _stream(content) as stream:
        while block := stream.read(_BLOCK):
            yield block


@contextmanager
def _stream(content: Content) -> Iterator[IO[bytes]]:
    try:
        with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
            yield stream
    except OSError as error:
        raise UsageError(f"read {content!r}", error.strerror or str(error), "check the file") from error


def _write(out: Path, manifest: Manifest, files: Mapping[str, Content]) -> None:
    everything: dict[str, Content] = {MANIFEST: _text(manifest), **files}
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in everything.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = _MODE << 16
            # weights hardly become smaller
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(WEIGHTS) else zipfile.ZIP_DEFLATED
            digest = hashlib.sha256()
            with archive.open(entry, "w", force_zip64=size >= _LARGE) as target:
                for block in _blocks(content):
                    target.write(block)
                    digest.update(block)
            if name != MANIFEST and digest.hexdigest() != manifest.files[name].sha256:
                raise DataError(f"export {out}", f"{name} was changed meanwhile", "export it once nothing trains it")
