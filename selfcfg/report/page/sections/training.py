"""How the training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfcfg.report.page import svg
from selfcfg.report.page.blocks import Block, Plot, Section, Table, Text
from selfcfg.report.page.facts import Facts

MAX_POINTS = 400
"""Epochs of a curve at most; of more, evenly chosen ones are drawn."""

Entries = Sequence[Mapping[str, Any]]


def training(facts: Facts) -> Section | None:
    """A table of folds, and the curves of all of them."""
    experiment = facts.experiment
    if experiment is None:
        return None
    rows = []
    for _, record in experiment.folds:
        log = experiment.logs[record.fold]
        hours = sum(entry.get("seconds") or 0.0 for entry in log) / 3600
        numbers = (str(len(record.train)), str(len(record.validation)), str(len(log)), f"{hours:.2f}")
        rows.append((str(record.fold), record.status, *numbers))
    heads = ("fold", "status", "trained on", "validated on", "epochs", "hours")
    blocks: list[Block] = [Table("Folds", heads, tuple(rows), numbers_from=2)]
    plots = [_curve(experiment.logs, *one) for one in _CURVES]
    blocks += [plot for plot in plots if plot is not None]
    if any(plots):
        blocks.append(
            Text(
                "A colour a fold, in the order of the table. Validation while training is on patches, and not the "
                "scores above.",
                "note",
            )
        )
    else:
        blocks.append(Text("There is no log of the training.", "note"))
    return Section("training", "Training", tuple(blocks))


def _loss(entry: Mapping[str, Any]) -> float | None:
    value: float | None = entry.get("loss")
    return value


def _score(entry: Mapping[str, Any]) -> float | None:
    return next(iter((entry.get("validation") or {}).values()), None)


_CURVES = (
    ("Training loss", "loss", _loss),
    ("Validation while training", "score", _score),
)


def _curve(logs: Mapping[int | str, Entries], title: str, axis: str, read: Any) -> Plot | None:
    lines = []
    for color, (fold, log) in enumerate(logs.items()):
        kept = log[:: max(1, -(-len(log) // MAX_POINTS))]
        points = [(float(entry["epoch"] + 1), read(entry)) for entry in kept]
        lines.append(svg.Line(f"fold {fold}", points, color=color, is_dashed=color >= 4))
    drawing = svg.curves(lines, "epoch", axis, f"{title} by epoch, a line a fold")
    return None if drawing is None else Plot(drawing, f"{title}.")
