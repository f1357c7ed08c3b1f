"""Tables of masks as run-length codes: which columns hold what, and the codes of every image."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from selfcfg.convert.building import refuse
from selfcfg.errors import DataError, UsageError, listed, nearest
from selfcfg.image_files import DICOM_ENDINGS, stem_in
from selfcfg.sheets import as_given

_ID_NAMES = ("imageid", "image", "imagename", "img", "imgid", "imagefile", "filename", "file", "sopinstanceuid", "id")
_CODE_NAMES = ("encodedpixels", "encodedmask", "rle", "rlemask", "maskrle", "encoding", "segmentation", "mask")
"""Column names that are taken without being given, in capital letters or small ones, the first that is there."""

_NO_MASK = ("", "-1")
_NUMBER = re.compile(r"-?\d{1,12}")
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class ImageCodes:
    """What a table says of one image.

    Args:
        codes: row number to the numbers of the mask in that row; the first row of a file, its heading, is row 1.
        empty_rows: rows that say that there is no mask.
    """

    codes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    empty_rows: list[int] = field(default_factory=list)


def image_name(text: str) -> str:
    """The name by which a row and an image file are matched: without folders, and without a suffix of an image."""
    name = PurePosixPath(text.strip().replace("\\", "/")).name
    if name.lower().endswith(DICOM_ENDINGS):
        return name[: name.rindex(".")]
    return stem_in(name)


def read_codes(path: Path, id_column: str | None = None, code_column: str | None = None) -> dict[str, ImageCodes]:
    """What a table says of each image, by its name.

    Args:
        path: a text file of values set apart by commas, semicolons or tabs; its first row names the columns.
        id_column: the column that names the image; None finds it by its name.
        code_column: the column of the codes; None finds it by its name.

    Raises:
        UsageError: there is no such file or column, or a column has to be named.
        DataError: it is no such table, or rows cannot be used; each is named.
    """
    found: dict[str, ImageCodes] = {}
    problems: list[str] = []
    rows = rows_of(path)
    heading = [name.strip() for name in next(rows, ())]
    if not any(heading):
        raise DataError(f"read {path}", "it is empty", "give a table whose first row names its columns")
    at_id = _column(path, heading, id_column, _ID_NAMES, "--id-column")
    at_code = _column(path, heading, code_column, _CODE_NAMES, "--code-column")
    for number, row in enumerate(rows, 2):
        if not any(value.strip() for value in row):
            continue
        if len(row) != len(heading):
            problems.append(f"row {number}: {len(row)} values in {len(heading)} columns")
            continue
        name, text = image_name(row[at_id]), row[at_code].strip()
        wrong = [part for part in text.split() if not _NUMBER.fullmatch(part)]
        if not name:
            problems.append(f"row {number}: no image is named")
        elif wrong:
            problems.append(f"row {number}, image '{name}': '{wrong[0][:40]}' is not a whole number")
        elif text in _NO_MASK:
            found.setdefault(name, ImageCodes()).empty_rows.append(number)
        else:
            found.setdefault(name, ImageCodes()).codes[number] = tuple(int(part) for part in text.split())
    problems += [
        f"image '{name}': row {image.empty_rows[0]} says that there is no mask, row {min(image.codes)} holds one"
        for name, image in found.items()
        if image.codes and image.empty_rows
    ]
    refuse(problems, f"read {path}", "mend the table", "rows")
    if not found:
        raise DataError(f"read {path}", "it has no row below its heading", "give a table of masks")
    return found


def rows_of(path: Path) -> Iterator[list[str]]:
    """The rows of a text file of values set apart by commas, semicolons or tabs.

    Raises:
        UsageError: there is no such file.
        DataError: it is no such table.
    """
    if not path.is_file():
        raise UsageError(f"read {path}", "there is no such file", "check the path")
    before = csv.field_size_limit(sys.maxsize)  # codes of large masks are longer than the module's usual limit
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            for row in csv.reader(stream, delimiter=max(_DELIMITERS, key=first.count)):
                yield [as_given(cell) for cell in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"read {path}", f"not a table in UTF-8 ({error})", "save it as CSV") from error
    except OSError as error:
        raise DataError(f"read {path}", str(error), "check the path and its permissions") from error
    finally:
        csv.field_size_limit(before)


def _column(path: Path, heading: Sequence[str], given: str | None, known: Sequence[str], option: str) -> int:
    """The index of a column, given by name or found by one of its usual names."""
    asked = f"columns of {path}"
    if given is not None:
        if given.strip() not in heading:
            raise UsageError(asked, f"there is no '{given}'", nearest(given, heading))
        return heading.index(given.strip())
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in heading]
    for name in known:
        if name in plain:
            return plain.index(name)
    raise UsageError(asked, f"named {listed(heading, 12)}", f"say with {option} which it is")
