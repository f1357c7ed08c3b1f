"""Files and folders that are either whole or not there: atomic writing, JSON, and content hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from selfcfg.errors import DataError, SelfcfgError

_BLOCK = 1 << 20

_LARGE, _MOMENT = 500, 1.0
"""Files in a folder from which on it is not listed at every writing, but at most once in so many seconds.

Measured: 10,000 files of two bytes are written into a folder in 6 s of processor time, with a listing each in 55 s.
"""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_listed: dict[Path, tuple[float, list[str]]] = {}
"""Until when the names found in a folder are taken to be all."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not.

    The temporary name keeps the suffixes of `path`, so writers that choose a format by suffix work on it.

    Raises:
        SelfcfgError: the folder cannot be made, or the disk refused the bytes.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that becomes it when the block ends well, and vanishes when it does not.

    Raises:
        SelfcfgError: the folder cannot be made, or the disk refused the bytes.
    """
    temporary = _temporary(path)
    try:
        temporary.mkdir(parents=True)
        _remove_abandoned(path)
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refused(path: Path, error: OSError) -> SelfcfgError:
    """What to tell a user when the system refused to write `path`."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space or choose another place" if is_full else "choose another place"
    return SelfcfgError(f"write {path}", error.strerror or str(error), remedy)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 text to `path`, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, key order kept, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: there is no such file, or it is not JSON (names line and column); see `parse_json`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"read {path}", "there is no such file", "check the path, or run the step that makes it"
        ) from error
    except OSError as error:
        raise DataError(f"read {path}", str(error), "check the path and its permissions") from error
    return parse_json(content, str(path))


def parse_json(content: bytes, source: str) -> Any:
    """The content of a JSON text, which was read from `source` (for messages).

    Raises:
        DataError: it is not JSON in UTF-8, or an object has a key twice, of which other programs take either value.
    """
    asked, remedy = f"read {source}", "mend the file or make it again"
    try:
        found = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once)
        if _SURROGATE.search(content):
            # a half of a pair, which JSON can spell, is no text that can be written again
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        told = f"not valid JSON, line {error.lineno}, column {error.colno}: {error.msg}"
        raise DataError(asked, told, remedy) from error
    except UnicodeEncodeError as error:
        told = f"text that is none: {ascii(error.object[error.start])[1:-1]}, half of a surrogate pair"
        raise DataError(asked, told, remedy) from error
    except (ValueError, RecursionError) as error:
        raise DataError(asked, f"not valid JSON ({error})", remedy) from error
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some keys and values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key '{ascii(twice[:80])[1:-1]}' stands twice in one object")
    return found


def hash_file(path: Path) -> str:
    """The blake2b hash of a file's bytes, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hash_json(content: Any) -> str:
    """The blake2b hash of a JSON-able value, independent of key order, 32 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _temporary(path: Path) -> Path:
    """A name beside `path` that no other attempt to write it uses."""
    return path.with_name(f"{_mark(os.getpid())}{uuid.uuid4().hex[:8]}-{path.name}")


def _mark(process: int | str) -> str:
    """How the temporary files of a process of this machine begin."""
    machine = hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()
    return f".tmp-{machine}-{process}-"


def _remove_abandoned(path: Path) -> None:
    """Removes what killed processes of this machine left of earlier attempts to write `path`."""
    start = _mark("")[:-1]
    for name in _beginning_with(start, path.parent):
        if name.endswith(f"-{path.name}"):
            file, process = path.with_name(name), name.removeprefix(start).partition("-")[0]
            if process.isdigit() and not psutil.pid_exists(int(process)):
                with suppress(OSError):
                    shutil.rmtree(file) if file.is_dir() else file.unlink()


def _beginning_with(start: str, folder: Path) -> list[str]:
    """The names in a folder that begin so; of a large one as they were a moment ago.

    Else listing it at every writing would make the time to fill it grow with the square of the number of its files.
    """
    now = time.monotonic()
    until, names = _listed.get(folder, (now, []))
    if now < until:
        return names
    with os.scandir(folder) as entries:
        everything = [entry.name for entry in entries]
    names = [name for name in everything if name.startswith(start)]
    if len(everything) > _LARGE:
        _listed[folder] = now + _MOMENT, names
    return names
