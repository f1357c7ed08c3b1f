"""Tables as comma-separated text, which a spreadsheet may open: no cell of ours is a formula to it.

A spreadsheet runs a cell that begins with one of ``= + - @``, a tab or a carriage return as a formula, which may start
programs. Ids of cases and names of classes come from others, so text that begins so, and is no number, is written with
an apostrophe before it; every table that is read here loses that apostrophe again. All else is written as it is.

Source: OWASP, CSV Injection.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Also the wide forms of these signs, which some spreadsheets take for them."""


def comma_separated(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """The text of a CSV file; None becomes an empty cell, and no cell a formula.

    >>> print(comma_separated(["case", "dice"], [["=cmd()", -0.5], ["-3", None]]), end="")
    case,dice
    '=cmd(),-0.5
    -3,
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(_harmless, heads))
    writer.writerows(map(_harmless, row) for row in rows)
    return stream.getvalue()


def as_given(cell: str) -> str:
    """The text of a cell that was read, without the apostrophe that kept it from being a formula.

    >>> as_given("'=cmd()"), as_given("'s-Hertogenbosch"), as_given("-3")
    ('=cmd()', "'s-Hertogenbosch", '-3')
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    if not text.startswith(_BEGINNINGS):
        return False
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return True
