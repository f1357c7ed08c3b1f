"""The table of how good predictions are likely to be, beside the label maps: a row a case, the doubtful ones first."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

from selfcfg.engine.prediction.ledger import Ledger, LedgerEntry
from selfcfg.engine.prediction.quality import FEATURES, Expected, Quality
from selfcfg.errors import listed
from selfcfg.files import write_text
from selfcfg.sheets import comma_separated

TABLE = "quality.csv"
N_TOLD = 3
"""Cases that are named in the terminal."""


class Row(NamedTuple):
    """A case of the table."""

    case: str
    expected: Expected | None
    rank: float | None
    entry: LedgerEntry

    @classmethod
    def of(cls, case: str, entry: LedgerEntry, quality: Quality | None) -> Self:
        """A case, and what a score of quality says of it."""
        if quality is None:
            return cls(case, None, None, entry)
        return cls(case, quality.expected(entry.features), quality.rank(entry.features), entry)

    def order(self) -> tuple[bool, float, str]:
        """The doubtful first: unusual images, then the lowest rank, or where it is not known the highest entropy."""
        if self.rank is not None:
            return not self.entry.unusual, self.rank, self.case
        entropy = self.entry.features.get("entropy_foreground")
        return not self.entry.unusual, -1.0 if entropy is None else -entropy, self.case

    def words(self) -> str:
        """The case and why it is to be looked at."""
        if self.expected is None:
            return f"{self.case} (unlike the training cases)" if self.entry.unusual else self.case
        dice, low, high = self.expected
        unlike = "; unlike the training cases, so that this may not hold" if self.entry.unusual else ""
        return f"{self.case} (Dice about {dice:.2f}, {low:.2f} to {high:.2f}{unlike})"


def holds_features(ledger: Ledger) -> bool:
    """Whether something of that table is known of the folder of a ledger."""
    return any(entry.features for entry in ledger.entries().values())


def write_quality_table(folder: Path, ledger: Ledger, quality: Quality | None, maker: str) -> list[Row]:
    """Writes the table of all finished cases of a folder, whole or not at all, and gives its rows, the doubtful first.

    Args:
        folder: of the predictions.
        ledger: of the folder.
        quality: what the features are worth; None: they are only told.
        maker: of the predictions that it holds for; features of others are only told.
    """
    known = {case: entry for case, entry in ledger.entries().items() if entry.output and entry.features}
    scored = (Row.of(case, one, quality if one.maker == maker else None) for case, one in known.items())
    rows = sorted(scored, key=Row.order)
    if not rows:
        (folder / TABLE).unlink(missing_ok=True)
        return []
    further = sorted({name for entry in known.values() for name in entry.features} - set(FEATURES))
    names = (*FEATURES, *further)
    told = []
    for case, expected, _, entry in rows:
        values = ("" if (value := entry.features.get(name)) is None else f"{value:.6g}" for name in names)
        cells = ("", "", "") if expected is None else tuple(f"{value:.4f}" for value in expected)
        told.append((case, *cells, "; ".join(entry.unusual), *values))
    heads = ("case", "predicted_dice", "low", "high", "unusual", *names)
    write_text(folder / TABLE, comma_separated(heads, told))
    return rows


def told(rows: list[Row]) -> str:
    """A sentence that names the most doubtful of the cases."""
    return f"look first at: {listed((row.words() for row in rows[:N_TOLD]), N_TOLD)} (all in {TABLE})"
