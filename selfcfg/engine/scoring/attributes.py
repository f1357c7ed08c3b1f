"""What is known of cases beside their images, such as site, scanner, sex and age: a table, and the groups it makes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfcfg.convert.code_table import rows_of
from selfcfg.errors import DataError, listed

SUBJECT = "subject"
"""The column that says which cases are of one person."""

N_BANDS = 3
"""A column of more different numbers than this is cut into so many bands."""


@dataclass(frozen=True)
class Attributes:
    """A table of cases.

    Args:
        columns: of each attribute, the cells by case; empty ones are left out.
        subjects: whose each case is, where there is such a column.
        n_unknown: rows of cases that are not among those asked for.
        without_row: cases that have no row.
    """

    columns: dict[str, dict[str, str]]
    subjects: dict[str, str]
    n_unknown: int
    without_row: tuple[str, ...]


def read_attributes(path: Path, cases: Collection[str]) -> Attributes:
    """The table of attributes of cases.

    Args:
        path: a CSV file in UTF-8, set apart by commas, semicolons or tabs: the first row names the columns, the first
            column holds the ids of the cases.
        cases: those that are asked for.

    Raises:
        UsageError: there is no such file.
        DataError: it is no such table, a case has two rows, or none of the cases has one.
    """
    asked = f"read {path}"
    rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(rows_of(path), 1)]
    rows = [(number, row) for number, row in rows if any(row)]
    heads, rows = (rows[0][1], rows[1:]) if rows else ([], [])
    if len(heads) < 2 or not all(heads) or len(set(heads)) < len(heads):
        found = f"its first row names the columns {listed(heads, 12) or '(none)'}"
        raise DataError(asked, found, "give 'case' and one name each for at least one further column")
    table: dict[str, list[str]] = {}
    for line, row in rows:
        if len(row) != len(heads):
            raise DataError(asked, f"row {line} has {len(row)} cells for {len(heads)} columns", "mend the table")
        if row[0] in table:
            raise DataError(asked, f"case '{row[0]}' has two rows (the second is row {line})", "keep one of them")
        table[row[0]] = row
    known = {case: table[case] for case in cases if case in table}
    if not known:
        found = f"none of its {len(table)} cases ({listed(table)}) is among those scored ({listed(sorted(cases))})"
        raise DataError(asked, found, "give the names of the files without suffix in the first column")
    columns = {
        head: {case: row[index] for case, row in known.items() if row[index]}
        for index, head in enumerate(heads)
        if index
    }
    subjects = columns.pop(SUBJECT, {})
    return Attributes(columns, subjects, len(table) - len(known), tuple(sorted(set(cases) - set(known))))


def groups_of(cells: Mapping[str, str]) -> tuple[dict[str, list[str]], bool]:
    """The cases of each group of an attribute, and whether they are bands of numbers.

    Categories are groups of their own, in alphabetical order, and so are up to three different numbers. More numbers
    are cut at their terciles, which are values that occur, so that the bands hold about as many cases each.

    >>> groups_of({"a": "31", "b": "44", "c": "58", "d": "60", "e": "71", "f": "80"})
    ({'up to 44': ['a', 'b'], 'above 44 to 60': ['c', 'd'], 'above 60': ['e', 'f']}, True)
    >>> groups_of({"a": "f", "b": "m", "c": "f"})
    ({'f': ['a', 'c'], 'm': ['b']}, False)
    """
    numbers = {case: value for case, cell in cells.items() if (value := _number(cell)) is not None}
    if len(numbers) < len(cells) or len(set(numbers.values())) <= N_BANDS:
        groups: dict[str, list[str]] = {}
        for case, cell in sorted(cells.items(), key=lambda item: (numbers.get(item[0], 0.0), item[1], item[0])):
            groups.setdefault(cell, []).append(case)
        return groups, False
    steps = [step / N_BANDS for step in range(1, N_BANDS)]
    cuts = np.quantile(list(numbers.values()), steps, method="lower")
    low, high = (f"{cut:.10g}" for cut in cuts)
    names = (f"up to {low}", f"above {low} to {high}", f"above {high}")
    bands: dict[str, list[str]] = {name: [] for name in names}
    for case, value in sorted(numbers.items()):
        bands[names[int(np.searchsorted(cuts, value, side="left"))]].append(case)
    return {name: members for name, members in bands.items() if members}, True


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
