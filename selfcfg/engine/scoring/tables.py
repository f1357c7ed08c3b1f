"""Scores as text: aligned tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfcfg.engine.scoring.metrics import METRICS


def number(metric: str, value: float | None) -> str:
    """The value of a metric as text; "-" for None.

    >>> number("dice", 0.91267), number("hd95", 3.0), number("volume_error", 0.01234), number("volume_error", 12.3)
    ('0.9127', '3.00', '0.0123', '12.30')
    """
    if value is None:
        return "-"
    if metric == "volume_error":
        return ("{:.2f}" if value >= 1 else "{:.3g}").format(value)
    if metric == "volume_error_relative":
        return f"{value:.1%}"
    return f"{value:.{METRICS[metric].digits if metric in METRICS else 4}f}"


def aligned(heads: Sequence[str], rows: Iterable[Sequence[str]], *, last_apart: bool = False) -> list[str]:
    """The lines of a table: the first column to the left, the others to the right, a rule below the heads.

    Args:
        heads: of the columns.
        rows: as long as the heads.
        last_apart: whether the last row has a rule above.
    """
    every = [tuple(heads), *map(tuple, rows)]
    widths = [max(len(row[column]) for row in every) for column in range(len(heads))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in every]
    rule = "-" * max(map(len, lines))
    body = [*lines[1:-1], rule, lines[-1]] if last_apart else lines[1:]
    return [lines[0], rule, *body]
