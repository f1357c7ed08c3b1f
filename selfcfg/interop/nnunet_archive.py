"""The model folders within a folder, or within an archive as nnU-Net's export writes it."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from selfcfg.errors import DataError, UsageError
from selfcfg.interop.archive import extract, opened, refuse_bombs, refuse_unsafe, told_as
from selfcfg.interop.mistaken import NNUNET, holding, mistaken

MAX_DEPTH = 3
"""Folders above a model's files."""

_FOLD = r"fold_(0|[1-9]\d{0,3}|all)"
FOLD = re.compile(_FOLD)
_NEEDED = re.compile(
    r"(plans|dataset|dataset_fingerprint)\.json|fold_(\d{1,4}|all)/(checkpoint_(final|best|latest)\.pth|"
    r"validation/summary\.json)"
)


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """The folder itself, or a temporary one with the models of an archive, which is gone when the block ends.

    Raises:
        UsageError: there is nothing at `source`.
        DataError: the archive is damaged, or something in it is unsafe to unpack; then nothing of it is.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise UsageError(f"import {source}", "there is no such folder or file", "check the path")
    asked = f"unpack {source}"
    with tempfile.TemporaryDirectory(prefix="selfcfg-") as name:
        try:
            with opened(source, asked, "give a model folder, or what nnU-Net exported") as archive:
                _extract(archive, source, Path(name), asked)
        except OSError as error:
            raise DataError(asked, error.strerror or str(error), "free some space for temporary files") from error
        with told_as(Path(name), source):
            yield Path(name)


def find_models(folder: Path) -> list[Path]:
    """The model folders in `folder`, itself among them: those with plans.json and a fold."""
    places = ["plans.json", *("/".join(["*"] * depth) + "/plans.json" for depth in range(1, MAX_DEPTH + 1))]
    found = [file.parent for place in places for file in sorted(folder.glob(place))]
    return [model for model in found if any(FOLD.fullmatch(fold.name) for fold in model.iterdir())]


def no_model(names: Sequence[str], is_folder: bool) -> tuple[str, str]:
    """What a folder or an archive is that holds no model of nnU-Net, and what to give in its place."""
    nothing = f"no plans.json with fold_* folders beside it; {holding(names)}"
    return mistaken(names, is_folder, NNUNET) or (nothing, "give nnU-Net's model folder")


def _extract(archive: zipfile.ZipFile, source: Path, folder: Path, asked: str) -> None:
    """Unpacks what a model needs, after the whole list of content was found harmless."""
    entries = archive.infolist()
    refuse_unsafe(entries, asked)
    needed = [entry for entry in entries if _is_needed(entry.filename)]
    if not needed:
        raise DataError(asked, *no_model([entry.filename for entry in entries], is_folder=False))
    refuse_bombs(needed, source, asked)
    for entry in needed:
        extract(archive, entry, folder.joinpath(*PurePosixPath(entry.filename).parts), asked)


def _is_needed(name: str) -> bool:
    parts = name.split("/")
    inner = 3 if parts[-1] == "summary.json" else 2 if parts[-1].endswith(".pth") else 1
    return len(parts) - inner <= MAX_DEPTH and _NEEDED.fullmatch("/".join(parts[-inner:])) is not None
