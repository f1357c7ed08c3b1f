"""Markdown tables and the numbers in them, as text."""

from __future__ import annotations

import html
import statistics
from collections.abc import Collection, Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, numbers_from: int = 1) -> str:
    r"""A Markdown table; columns from `numbers_from` on are right-aligned.

    >>> print(table(["class", "Dice"], [["liver|left", 0.5]]))
    | class | Dice |
    | :-- | --: |
    | liver\|left | 0.5 |
    """
    marks = [":--" if column < numbers_from else "--:" for column in range(len(heads))]
    lines = [heads, marks, *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: object) -> str:
    """A value as text that cannot break a table or be taken for markup."""
    return html.escape(str(value), quote=False).replace("|", "\\|").replace("\n", " ")


def for_terminal(table: str) -> str:
    """A Markdown table without the escapes that only a page needs.

    >>> print(for_terminal(table(["class", "p"], [["liver|left", "< 0.001"]])))
    | class | p |
    | :-- | --: |
    | liver|left | < 0.001 |
    """
    return html.unescape(table.replace("\\|", "|"))


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of digits after the point; "-" for None.

    >>> number(0.91265), number(None)
    ('0.913', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"


def spread(values: Sequence[float], digits: int = 3) -> list[str]:
    """Mean, median, standard deviation and the two ends of a list of numbers, as text; "-" where it is empty.

    >>> spread([1.0, 2.0, 6.0], 1)
    ['3.0', '2.0', '2.6', '1.0', '6.0']
    """
    if not values:
        return ["-"] * 5
    deviation = statistics.stdev(values) if len(values) > 1 else None
    found = (statistics.mean(values), statistics.median(values), deviation, min(values), max(values))
    return [number(value, digits) for value in found]


def span(numbers: Collection[int]) -> str:
    """The least and the largest of some numbers, as "3 to 5", or "3" where they are the same."""
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least} to {most}"
