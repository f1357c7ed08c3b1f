"""The model folders within a folder, or within an archive as nnU-Net's export writes it."""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from selfcfg.errors import DataError, SelfcfgError, UsageError

MAX_ENTRIES = 200_000
"""Names in an archive: with all predictions of a cross-validation, real ones have some ten thousand."""

MAX_BYTES = 64 << 30
"""Unpacked size of what is taken out of an archive; a checkpoint has some hundred megabytes."""

MAX_DEPTH = 3
"""Folders above a model's files."""

_FOLD = r"fold_(0|[1-9]\d{0,3}|all)"
FOLD = re.compile(_FOLD)
_NEEDED = re.compile(
    r"(plans|dataset|dataset_fingerprint)\.json|fold_(\d{1,4}|all)/checkpoint_(final|best|latest)\.pth"
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
    if not zipfile.is_zipfile(source):
        raise DataError(asked, "not a zip archive, or cut short", "give a model folder, or what nnU-Net exported")
    with tempfile.TemporaryDirectory(prefix="selfcfg-") as name:
        try:
            with zipfile.ZipFile(source) as archive:
                _extract(archive, Path(name), asked)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
            raise DataError(asked, f"damaged ({error})", "take another copy of it") from error
        except OSError as error:
            raise DataError(asked, error.strerror or str(error), "free some space for temporary files") from error
        try:
            yield Path(name)
        except SelfcfgError as error:
            # by the time it is read, the temporary folder is gone
            told = (part.replace(name, str(source)) for part in (error.asked, error.found, error.remedy))
            raise type(error)(*told) from error


def find_models(folder: Path) -> list[Path]:
    """The model folders in `folder`, itself among them: those with plans.json and a fold."""
    places = ["plans.json", *("/".join(["*"] * depth) + "/plans.json" for depth in range(1, MAX_DEPTH + 1))]
    found = [file.parent for place in places for file in sorted(folder.glob(place))]
    return [model for model in found if any(FOLD.fullmatch(fold.name) for fold in model.iterdir())]


def _extract(archive: zipfile.ZipFile, folder: Path, asked: str) -> None:
    """Unpacks what a model needs, after the whole list of content was found harmless."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise DataError(asked, f"{len(entries)} files in it, {MAX_ENTRIES} at most", "export the model alone")
    for entry in entries:
        if danger := _danger(entry):
            raise DataError(asked, f"'{entry.filename[:80]}' is {danger}; nothing was unpacked", "do not trust it")
    needed = {entry.filename: entry for entry in entries if _is_needed(entry.filename)}
    size = sum(entry.file_size for entry in needed.values())
    if size > MAX_BYTES:
        raise DataError(asked, f"{size} bytes unpacked, {MAX_BYTES} at most", "export fewer models at once")
    for name, entry in needed.items():
        target = folder.joinpath(*PurePosixPath(name).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        # reading stops at the size that the entry declares, and a wrong checksum is an error
        with archive.open(entry) as packed, target.open("xb") as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)


def _danger(entry: zipfile.ZipInfo) -> str:
    """Why an entry must not be unpacked, or ""."""
    parts = entry.filename.replace("\\", "/").split("/")
    if parts[0] == "" or re.match(r"[A-Za-z]:", parts[0]):
        return "an absolute path"
    if ".." in parts:
        return "a path that leads out of the folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link"
    return "encrypted" if entry.flag_bits & 1 else ""


def _is_needed(name: str) -> bool:
    parts = name.split("/")
    inner = 2 if parts[-1].endswith(".pth") else 1
    return len(parts) - inner <= MAX_DEPTH and _NEEDED.fullmatch("/".join(parts[-inner:])) is not None
