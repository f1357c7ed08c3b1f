"""What was given in place of a model to import, told by what it holds, and what to do with it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from selfcfg.errors import listed

_DEPTH, _MOST = 4, 20_000
"""Parts of the paths that are looked at in a folder, and how many of them."""

_FOLD = r"fold_(\d+|all)"
_UNDER = r"([^/]+/){0,2}"


class _Kind(NamedTuple):
    """Something that is mistaken for a model to import.

    Args:
        sign: a path in it by which it is known.
        found: what it is.
        remedy: what to do with it.
    """

    sign: re.Pattern[str]
    found: str
    remedy: str


_PACKAGE = _Kind(re.compile(r"manifest\.json"), "a package of selfcfg", "take it in with selfcfg import FILE")
_UNPACKED = _Kind(
    re.compile(r"manifest\.json"),
    "the folder of a package that is unpacked already",
    "give it to selfcfg predict as it is; what is imported is the .zip file",
)
_EITHER = (
    _Kind(
        re.compile(rf"{_UNDER}{_FOLD}/checkpoint_\w+\.pth"),
        "a model of nnU-Net",
        "take it in with selfcfg import nnunet MODEL_DIR_OR_ZIP --out MODEL",
    ),
    _Kind(
        re.compile(r"checkpoint_\w+\.pth"),
        "one fold of a model of nnU-Net",
        "give the folder above it, with plans.json: selfcfg import nnunet MODEL_DIR --out MODEL --fold FOLD",
    ),
    _Kind(
        re.compile(r"[^/]+/data\.pkl"),
        "a checkpoint of PyTorch",
        "of nnU-Net's, give the whole model folder to selfcfg import nnunet; others cannot be imported",
    ),
    _Kind(
        re.compile(r"[^/]+/manifest\.json"),
        "a package that is a folder deeper than it was exported",
        "give the .zip file as selfcfg export wrote it",
    ),
    _Kind(
        re.compile(rf"{_UNDER}({_FOLD}/)?run\.json"),
        "an experiment of selfcfg",
        "give its folder to selfcfg predict; selfcfg export makes a package of it",
    ),
    _Kind(
        re.compile(r"([^/]+/)?imagesT[rs]/.*"),
        "a dataset",
        "train with it (selfcfg run DATASET), or give a trained model",
    ),
    _Kind(re.compile(r"[^/]+\.zip"), "a folder with archives", "give one of the .zip files in it"),
)

_BEGINNINGS = (
    (b"PK", "it begins as a zip archive and has no end: not copied or downloaded whole", "copy or download it again"),
    (b"\x1f\x8b", "a gzip file", "give the .zip file as it was written"),
    (b"7z\xbc\xaf", "a 7z archive", "give the .zip file as it was written"),
    (b"Rar!", "a rar archive", "give the .zip file as it was written"),
    (b"<", "a web page or other markup", "download the file itself; a page may ask to log in first"),
)


NNUNET = _EITHER[0].found


def mistaken(names: Iterable[str], is_folder: bool, wanted: str = "") -> tuple[str, str] | None:
    """What a folder or an archive is, and what to do with it; None where that cannot be told.

    Args:
        names: of the files in it, with slashes.
        is_folder: whether they lie in a folder.
        wanted: what it was given for, which it thus is not.

    >>> mistaken(["model/plans.json", "model/fold_0/checkpoint_final.pth"], is_folder=False)[0]
    'it is a model of nnU-Net'
    """
    held = list(names)
    for kind in (_UNPACKED if is_folder else _PACKAGE, *_EITHER):
        if kind.found != wanted and any(kind.sign.fullmatch(name) for name in held):
            return f"it is {kind.found}", kind.remedy
    return None


def names_in(folder: Path) -> list[str]:
    """Paths of what lies in a folder, some folders deep."""
    patterns = ["/".join(["*"] * depth) for depth in range(1, _DEPTH + 1)]
    found = (file.relative_to(folder).as_posix() for pattern in patterns for file in folder.glob(pattern))
    return list(islice(found, _MOST))


def holding(names: Iterable[str]) -> str:
    """What is in a folder or an archive, for a message."""
    tops = sorted({name.split("/")[0][:80] for name in names})
    return f"it holds {listed(tops, 3) or 'nothing'}"


def no_archive(file: Path) -> tuple[str, str] | None:
    """What a file is that is no zip archive, and what to do; None where that cannot be told."""
    with file.open("rb") as stream:
        beginning = stream.read(64).lstrip()
    if not beginning:
        return "it is empty", "copy or download it again"
    return next(((found, remedy) for sign, found, remedy in _BEGINNINGS if beginning.startswith(sign)), None)
