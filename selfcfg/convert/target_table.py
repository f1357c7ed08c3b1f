"""Tables of image-level targets: a row a case, a column a target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfcfg.convert.building import refuse
from selfcfg.convert.code_table import rows_of
from selfcfg.errors import DataError, UsageError, counted, listed, nearest
from selfcfg.image_targets import GivenTarget
from selfcfg.progress import say

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_LONGEST = 200
"""Characters of a column's name."""

_UNIT = re.compile(r"(?P<name>.*\S)\s*\[(?P<unit>[^\]]+)\]")


def read_targets(path: Path, class_columns: Sequence[str], cases: Sequence[str]) -> dict[str, GivenTarget]:
    """The image-level targets of the cases, by name; rows of other cases are left out, which is said.

    A column whose values are all numbers is a regression, whose unit may follow its name in brackets, as in
    ``age [years]``; any other column is a classification, with its classes in order of the alphabet, or of their
    numbers. An empty cell is no value.

    Args:
        path: a text file of values set apart by commas, semicolons or tabs; its first row names the columns, of which
            the first holds the case ids.
        class_columns: columns of numbers that are classes.
        cases: ids of the cases.

    Raises:
        UsageError: there is no such file or column.
        DataError: it is no such table, or rows or columns cannot be used; each is named.
    """
    heading, rows = _read(path)
    if strange := sorted(set(class_columns) - set(heading[1:])):
        raise UsageError(f"--classes {strange[0]}", f"no such column in {path}", nearest(strange[0], heading[1:]))
    known = {case: row for case, row in rows.items() if case in set(cases)}
    if not known:
        found = f"none of its {counted(len(rows), 'row')} is of a case, such as '{cases[0]}'"
        raise DataError(f"read {path}", found, "name the cases in the first column, without suffix")
    if others := sorted(set(rows) - set(known)):
        say(f"left out {counted(len(others), 'row')} of {path.name} that are of no case: {listed(others)}")
    targets = {}
    for index, head in enumerate(heading[1:], 1):
        values = {case: row[index] for case, row in known.items() if row[index]}
        name, target = _target(head, values, is_class=head in class_columns)
        if problem := _problem(target):
            raise DataError(f"read {path}, column '{head}'", problem, "give values, or leave the column out")
        targets[name] = GivenTarget.parse(target, f"{path}, column '{head}'")
        say(f"image-level target '{name}': {_told(targets[name])}, known of {len(values)} of {len(cases)} cases")
    return targets


def _read(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The heading, and the row of each case."""
    rows = rows_of(path)
    heading = [name.strip() for name in next(rows, ())]
    if len(heading) < 2 or not all(heading[1:]) or len(set(heading)) < len(heading):
        found = f"its first row holds {listed(map(repr, heading)) or 'nothing'}"
        raise DataError(f"read {path}", found, "name the columns there: case, then a different name for each target")
    if longest := next((name for name in heading if len(name) > _LONGEST), ""):
        found = f"a column's name of {len(longest)} characters, '{longest[:40]}...'"
        raise DataError(f"read {path}", found, f"use {_LONGEST} at most")
    found_rows: dict[str, list[str]] = {}
    problems = []
    for number, row in enumerate(rows, 2):
        cells = [value.strip() for value in row]
        if not any(cells):
            continue
        if len(cells) != len(heading):
            problems.append(f"row {number}: {len(cells)} values in {len(heading)} columns")
        elif not cells[0] or cells[0] in found_rows:
            problems.append(f"row {number}: " + (f"case '{cells[0]}' again" if cells[0] else "no case is named"))
        else:
            found_rows[cells[0]] = cells
    refuse(problems, f"read {path}", "mend the table", "rows")
    return heading, found_rows


def _target(head: str, values: dict[str, str], *, is_class: bool) -> tuple[str, dict[str, Any]]:
    is_numeric = all(_NUMBER.fullmatch(value) for value in values.values())
    if is_numeric and not is_class:
        named = _UNIT.fullmatch(head)
        name, unit = (named["name"], named["unit"]) if named else (head, "")
        return name, {"unit": unit, "values": {case: float(value) for case, value in values.items()}}
    order = (lambda value: (float(value), value)) if is_numeric else (lambda value: (0.0, value))
    return head, {"classes": sorted(set(values.values()), key=order), "values": values}


def _problem(target: dict[str, Any]) -> str:
    if not target["values"]:
        return "no case has a value"
    one = target.get("classes", ())
    return f"every value is '{one[0]}', so there is nothing to tell apart" if len(one) == 1 else ""


def _told(target: GivenTarget) -> str:
    if target.classes:
        return f"classes {listed(target.classes, 8)}"
    return f"a number in {target.unit}" if target.unit else "a number"
