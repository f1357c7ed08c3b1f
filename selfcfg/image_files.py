"""Names of image files: the suffixes that are known, what stands before them, and the images of a folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from selfcfg.errors import DataError, UsageError

RASTER_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
FILE_ENDINGS = VOLUME_ENDINGS + RASTER_ENDINGS
DICOM_ENDINGS = (".dcm", ".dicom")
"""Suffixes that are only read by converters: a dataset holds no DICOM."""


def ending_in(name: str) -> str | None:
    """The known suffix that a file name ends with, in lower case; None where it is of no known format."""
    lower = name.lower()
    return next((ending for ending in FILE_ENDINGS if lower.endswith(ending)), None)


def stem_in(name: str) -> str:
    """A file name without its known suffix; all of it where it has none."""
    return name[: len(name) - len(ending_in(name) or "")]


def is_case_name(name: str) -> bool:
    r"""Whether a text can be the id of a case: files are named after it, and tables, pages and logs hold it.

    >>> is_case_name("patient 7"), is_case_name("../patient"), is_case_name(""), is_case_name(".hidden")
    (True, False, False, False)
    >>> is_case_name("a\\b"), is_case_name("a\nb"), is_case_name("=cmd()")
    (False, False, True)
    """
    plain = all(sign not in "/\\" and unicodedata.category(sign) not in ("Cc", "Cs") for sign in name)
    return bool(name) and plain and not name.startswith(".")


def refuse_names(names: Iterable[str], where: Path) -> None:
    """Nothing, where every name of a file can be that of a case.

    Raises:
        DataError: one holds control characters, backslashes, or bytes that are no text in UTF-8.
    """
    if bad := next((name for name in names if not is_case_name(name)), None):
        found = f"the name {bad[:80]!a} holds control characters, backslashes, or bytes that are no text in UTF-8"
        raise DataError(f"read {where}", found, "rename the file")


def image_files(folder: Path) -> dict[str, Path]:
    """The image files of a folder by their name without suffix; hidden files and other kinds are left out.

    Raises:
        UsageError: there is no such folder, or no image in it.
        DataError: two files differ only in their suffix.
    """
    if not folder.is_dir():
        raise UsageError(f"read {folder}", "there is no such folder", "check the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if ending_in(path.name) is None or path.name.startswith(".") or not path.is_file():
            continue
        refuse_names([path.name], folder)
        stem = stem_in(path.name)
        if stem in found:
            raise DataError(
                f"case '{stem}'", f"both {found[stem].name} and {path.name} are in {folder}", "keep one of them"
            )
        found[stem] = path
    if not found:
        raise UsageError(f"read {folder}", f"no image in it ({', '.join(FILE_ENDINGS)})", "check the path")
    return found
