"""Zip archives of strangers: looked through as a whole before anything in them is unpacked."""

from __future__ import annotations

import hashlib
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.interop.mistaken import no_archive

MAX_ENTRIES = 200_000
"""Names in an archive: with all predictions of a cross-validation, real ones have some ten thousand."""

MAX_NAME, MAX_DEPTH = 1000, 32
"""Characters of a path in an archive, and its parts."""

MAX_BYTES = 64 << 30
"""Unpacked size of what is taken out of an archive; the weights of a network have some hundred megabytes."""

MAX_RATIO = 200
"""Unpacked bytes for each byte of an entry: JSON has 30 at most, and deflate cannot make it more than 1032."""

_FREE = 1 << 20
"""Bytes of an entry whose ratio does not matter."""

_BLOCK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextmanager
def opened(file: Path, asked: str, remedy: str) -> Iterator[zipfile.ZipFile]:
    """An archive, open for reading.

    Args:
        file: the archive.
        asked: for messages.
        remedy: what to give in its place, where it is none.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        DataError: it is no zip archive, or damaged.
    """
    try:
        other = no_archive(file) or ("not a zip archive, or cut short", remedy)
    except FileNotFoundError as error:
        raise UsageError(asked, "there is no such file", "check the path") from error
    except OSError as error:
        raise UsageError(asked, error.strerror or str(error), "check the file and its permissions") from error
    with reading(asked):
        if not zipfile.is_zipfile(file):
            raise DataError(asked, *other)
        archive = zipfile.ZipFile(file)
    with archive:
        yield archive


@contextmanager
def reading(asked: str) -> Iterator[None]:
    """Turns what is raised on a damaged archive into a `DataError`."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
        *(ValueError, OverflowError, struct.error, OSError),
    ) as error:
        raise DataError(asked, f"damaged ({error})", "take another copy of it") from error


def refuse_unsafe(entries: Sequence[zipfile.ZipInfo], asked: str) -> None:
    """Nothing, where every name in an archive is harmless.

    Raises:
        DataError: there are too many; or one leads out of a folder, is no file, or is the same as another.
    """
    if len(entries) > MAX_ENTRIES:
        raise DataError(asked, f"{len(entries)} files in it, {MAX_ENTRIES} at most", "export the model alone")
    for entry in entries:
        if len(entry.filename) > MAX_NAME or entry.filename.count("/") > MAX_DEPTH:
            found = f"'{shown(entry.filename)}' is longer or deeper than any name of a model; nothing was unpacked"
            raise DataError(asked, found, "do not trust it")
        if danger := _danger(entry):
            raise DataError(asked, f"'{shown(entry.filename)}' is {danger}; nothing was unpacked", "do not trust it")
    if twice := same_names(entry.filename for entry in entries):
        found = f"'{shown(twice[0])}' and '{shown(twice[1])}' are the same name to some systems; nothing was unpacked"
        raise DataError(asked, found, "do not trust it")


def refuse_bombs(taken: Sequence[zipfile.ZipInfo], file: Path, asked: str) -> None:
    """Nothing, where what is to be unpacked is as large as its archive makes it likely.

    Raises:
        DataError: it is too large, too strongly compressed, compressed in another way, or some bytes are used twice.
    """
    size = sum(entry.file_size for entry in taken)
    if size > MAX_BYTES:
        raise DataError(asked, f"{size} bytes unpacked, {MAX_BYTES} at most", "export fewer models at once")
    for entry in taken:
        if entry.compress_type not in _METHODS:
            found = f"'{shown(entry.filename)}' is compressed otherwise than by deflate; nothing was unpacked"
            raise DataError(asked, found, "pack it again with deflate, or without compression")
        if entry.file_size > MAX_RATIO * entry.compress_size + _FREE:
            found = f"'{shown(entry.filename)}' unpacks to {entry.file_size} bytes of {entry.compress_size}"
            raise DataError(asked, f"{found}; nothing was unpacked", "do not trust it")
    if sum(entry.compress_size for entry in taken) > file.stat().st_size:
        raise DataError(asked, "its entries overlap; nothing was unpacked", "do not trust it")


def extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, asked: str) -> str:
    """Unpacks one entry to a new file; the SHA-256 of its bytes.

    Raises:
        DataError: it is damaged, or has another size than it says.
        OSError: the disk refused the bytes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with reading(asked):
        packed = archive.open(entry)
    with packed, target.open("xb") as stream:
        while True:
            # reading stops at the size that the entry declares, and a wrong checksum is an error
            with reading(asked):
                block = packed.read(_BLOCK)
            if not block:
                break
            stream.write(block)
            digest.update(block)
            size += len(block)
    if size != entry.file_size:
        found = f"'{shown(entry.filename)}' holds {size} bytes where it says {entry.file_size}"
        raise DataError(asked, found, "take another copy of it")
    return digest.hexdigest()


@contextmanager
def told_as(folder: Path, source: Path) -> Iterator[None]:
    """Errors about files in a temporary folder name what it was made of: when they are read, the folder is gone."""
    try:
        yield
    except SelfcfgError as error:
        told = (part.replace(str(folder), str(source)) for part in (error.asked, error.found, error.remedy))
        raise type(error)(*told) from error


def same_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that some file system takes for one: equal but for case or Unicode normal form, or a file and a folder.

    >>> same_names(["a/b", "A/c"]), same_names(["a/b", "A/B"]), same_names(["a", "a/b"])
    (None, ('a/b', 'A/B'), ('a', 'a/b'))
    """
    known: dict[str, str] = {}
    for name in names:
        key = _folded(name)
        if key in known:
            return known[key], name
        known[key] = name
    for key, name in known.items():
        parts = key.split("/")
        for depth in range(1, len(parts)):
            if (above := "/".join(parts[:depth])) in known and not known[above].endswith("/"):
                return known[above], name
    return None


def shown(name: str) -> str:
    """A name as it can be printed, whatever it holds."""
    return ascii(name[:80])[1:-1]


def _folded(name: str) -> str:
    """What is the same of names that differ in case or normal form alone."""
    plain = unicodedata.normalize("NFD", name.rstrip("/")).casefold()
    return unicodedata.normalize("NFC", plain)


def _danger(entry: zipfile.ZipInfo) -> str:
    """Why an entry must not be unpacked, or ""."""
    parts = entry.filename.replace("\\", "/").split("/")
    if parts[0] == "" or re.match(r"[A-Za-z]:", parts[0]):
        return "an absolute path"
    if ".." in parts:
        return "a path that leads out of the folder"
    if any(unicodedata.category(sign)[0] == "C" for sign in entry.filename):
        return "a name with signs that cannot be seen"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "no file"
    return "encrypted" if entry.flag_bits & 1 else ""
