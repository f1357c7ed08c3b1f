"""The table of what a model says of whole images, beside the label maps: one row a case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfcfg.convert.code_table import rows_of
from selfcfg.engine.prediction.ledger import Ledger
from selfcfg.errors import DataError, listed
from selfcfg.files import write_text
from selfcfg.image_targets import ImageLevel, ImageTarget, columns
from selfcfg.sheets import comma_separated

TABLE = "image_targets.csv"


def holds_values(ledger: Ledger) -> bool:
    """Whether something was said of a whole image of the folder of a ledger."""
    return any(entry.image_targets for entry in ledger.entries().values())


def write_image_table(folder: Path, ledger: Ledger, targets: Mapping[str, ImageTarget] | None = None) -> None:
    """Writes the table of all finished cases of a folder, whole or not at all; without such a case, takes it away.

    Args:
        folder: of the predictions.
        ledger: of the folder.
        targets: what the table is to tell; cases of which something else was said are left out. None: what was said
            of the first case.
    """
    entries = {case: entry for case, entry in ledger.entries().items() if entry.output and entry.image_targets}
    rows = {case: _cells(entry.image_targets) for case, entry in entries.items()}
    heads = columns(targets) if targets else next((["case", *row] for row in rows.values()), [])
    told = {case: row for case, row in rows.items() if ["case", *row] == heads}
    if not told:
        (folder / TABLE).unlink(missing_ok=True)
        return
    write_text(folder / TABLE, comma_separated(heads, ([case, *row.values()] for case, row in told.items())))


def read_image_table(path: Path, targets: Mapping[str, ImageTarget]) -> dict[str, dict[str, ImageLevel]]:
    """By target, what such a table says of each case; targets that it does not tell are left out.

    Raises:
        DataError: it is no such table, or tells other classes.
    """
    cells = rows_of(path)
    heads = next(cells, [])
    rows = [dict(zip(heads, row, strict=False)) for row in cells if row]
    if not heads or heads[0] != "case":
        raise DataError(f"read {path}", "its first column is not 'case'", "give a table that 'selfcfg predict' wrote")
    found = {}
    for name, target in targets.items():
        if name not in heads:
            continue
        wanted, there = columns({name: target})[2:], [head for head in heads if head.startswith(f"{name}=")]
        if sorted(wanted) != sorted(there):
            told = f"columns {listed(there) or 'of no class'} for the classes {listed(target.classes) or '(none)'}"
            raise DataError(f"read {path}", told, "give the dataset.json that the model was trained with")
        found[name] = {row["case"]: _level(row, name, target, path) for row in rows}
    return found


def _cells(levels: Mapping[str, ImageLevel]) -> dict[str, str | float]:
    """The cells of a row by column, without the case."""
    cells: dict[str, str | float] = {}
    for name, level in levels.items():
        cells[name] = level.value
        cells |= {f"{name}={one}": probability for one, probability in level.probabilities.items()}
    return cells


def _level(row: Mapping[str, str], name: str, target: ImageTarget, path: Path) -> ImageLevel:
    try:
        probabilities = {one: float(row[f"{name}={one}"]) for one in target.classes}
        value = row[name] if target.classes else float(row[name])
    except (KeyError, ValueError) as error:
        found = f"row of case '{row['case']}', target '{name}': {error}"
        raise DataError(f"read {path}", found, "predict again: the table is made anew") from error
    return ImageLevel(value=value, probabilities=probabilities)
