"""What a package of a trained model holds, and which of its models is meant, as the imported folder says it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from selfcfg.engine.prediction.quality import CALIBRATION, QUALITY
from selfcfg.engine.prediction.selected import MODEL
from selfcfg.errors import DataError
from selfcfg.records import Record

MANIFEST, CARD, DATASET = "manifest.json", "README.md", "training_dataset.json"
FINGERPRINT, RUN, PLAN, WEIGHTS = "fingerprint.json", "run.json", "plan.json", "final.safetensors"
CROSS_VALIDATION = "cross_validation.json"

MAX_DEPTH = 4
"""Folders above an experiment's files: a recipe's, a stage's, a candidate's."""

_FOLD = re.compile(r"fold_(0|[1-9]\d{0,3}|all)")
_IN_FOLD = frozenset({RUN, PLAN, WEIGHTS})
_IN_EXPERIMENT = frozenset({FINGERPRINT, CALIBRATION, CROSS_VALIDATION, QUALITY, MODEL})
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows takes for devices."""


class Member(Record):
    """A file of a package.

    Args:
        size: bytes.
        sha256: of its bytes.
    """

    size: Annotated[int, Field(strict=True, ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Record):
    """The list of what a package holds; every other file of it is named here, and nothing else is in it.

    Args:
        format: what it is.
        version: of the layout.
        selfcfg: version of the program that wrote it.
        model: folder of the model within the package, which `predict` takes.
        files: by path within the package, with slashes.
    """

    format: Literal["selfcfg package"] = "selfcfg package"
    version: Literal[1] = 1
    selfcfg: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+!-]{1,40}$")]
    model: str
    files: Annotated[dict[str, Member], Field(min_length=1)]


def model_folder(path: Path) -> Path:
    """The folder of the model: of an imported package the one that its manifest names, of any other path itself.

    Raises:
        DataError: the manifest is not usable.
    """
    file = path / MANIFEST
    if not file.is_file():
        return path
    name = Manifest.read(file).model
    if problem := unsafe_path(name):
        raise DataError(f"read {file}", f"model {name[:80]!a} {problem}", "import the package again")
    return path / name


def unsafe_path(name: str) -> str:
    """Why a path cannot name the folder of an experiment on every system, in words; empty where it can.

    >>> unsafe_path("supervised__standard__2d"), unsafe_path("../2d"), unsafe_path("a/con.txt")
    ('', "holds the part '..'", "holds the part 'con.txt'")
    """
    parts = name.split("/")
    if len(parts) > MAX_DEPTH:
        return f"is {len(parts)} folders deep, {MAX_DEPTH} at most"
    bad = next((part for part in parts if not _is_portable(part) or _FOLD.fullmatch(part)), None)
    return "" if bad is None else f"holds the part {bad[:80]!a}"


def is_member(name: str) -> bool:
    """Whether a package may hold a file of this path."""
    if name in (CARD, DATASET):
        return True
    path = PurePosixPath(name)
    if str(path) != name:
        return False
    folder = path.parent
    if path.name in _IN_FOLD and _FOLD.fullmatch(folder.name):
        folder = folder.parent
    elif path.name not in _IN_EXPERIMENT:
        return False
    return str(folder) != "." and not unsafe_path(str(folder))


def _is_portable(part: str) -> bool:
    """Whether a name of a folder is one on every system."""
    if not 0 < len(part.encode("utf-8", "surrogatepass")) <= 200 or part[-1] in " .":
        return False
    return part.isprintable() and not _FORBIDDEN.search(part) and not _DEVICE.fullmatch(part)
