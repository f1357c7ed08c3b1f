"""The subject of each case that is compared: cases of one person are not independent of each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfcfg.convert.code_table import rows_of
from selfcfg.convert.description import subjects_by_pattern
from selfcfg.dataset import DatasetDescription
from selfcfg.engine.comparison.compare import EACH_CASE
from selfcfg.engine.comparison.systems import System
from selfcfg.errors import DataError, UsageError, counted
from selfcfg.files import read_json
from selfcfg.workspace import Workspace


def subjects_of(
    systems: Sequence[System], told: str | None, dataset_json: Path | None, workspace: Workspace
) -> tuple[dict[str, str], str]:
    """The subjects of cases, and where they come from; a case without an entry is a subject of its own.

    Args:
        systems: that are compared.
        told: a table (columns case and subject), or a regular expression whose first group is the subject in a case id.
        dataset_json: without `told`, what it says of subjects.
        workspace: without either, where the dataset of the runs is looked for.

    Raises:
        UsageError: there is no such table, or the expression is wrong.
        DataError: the table cannot be used, or the expression is not found in a case.
    """
    cases = sorted(set.union(*(set(run.cases) for system in systems for run in system.runs)))
    if told is not None and told.lower().endswith((".csv", ".tsv", ".txt")):
        found = _table(Path(told))
        return found, f"{Path(told).name}{_others(cases, found)}"
    if told is not None:
        return subjects_by_pattern(told, cases), f"the pattern {told} in case ids"
    file = dataset_json or _dataset_json(systems, workspace)
    if file is None:
        return {}, EACH_CASE
    found = DatasetDescription.parse(read_json(file), str(file)).selfcfg.subjects
    return found, f"dataset.json of the cases{_others(cases, found)}" if found else EACH_CASE


def _others(cases: Sequence[str], subjects: dict[str, str]) -> str:
    without = sum(case not in subjects for case in cases)
    return f"; {counted(without, 'case')} without an entry there by itself" if without else ""


def _dataset_json(systems: Sequence[System], workspace: Workspace) -> Path | None:
    """That of the dataset of the first run; None where it is not in the workspace."""
    for name in dict.fromkeys(system.dataset for system in systems if system.dataset):
        try:
            file = workspace.dataset_folder(name) / "dataset.json"
        except UsageError:
            continue
        if file.is_file():
            return file
    return None


def _table(path: Path) -> dict[str, str]:
    rows = [[cell.strip() for cell in row] for row in rows_of(path)]
    heading = [name.lower() for name in rows[0]] if rows else []
    if not {"case", "subject"} <= set(heading):
        found = f"its first row is {', '.join(heading) or 'empty'}"
        raise DataError(f"read {path}", found, "name two columns there: case and subject")
    at = heading.index("case"), heading.index("subject")
    subjects: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        case, subject = (row[place] if place < len(row) else "" for place in at)
        if not case or not subject or subjects.get(case, subject) != subject:
            raise DataError(f"read {path}", f"row {number} names no case and subject, or another one", "mend the row")
        subjects[case] = subject
    return subjects
