"""The course of a training as one picture: loss terms, validation scores, learning rate and time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfcfg.files import replacing

ON_LOG_AXIS = "gradient norm"
"""Begins the names of validation scores that are drawn on an axis of their own, since they are of any size."""

_SIZE = (8.0, 9.0)
_MARGINS = {"left": 0.1, "right": 0.9, "top": 0.98, "bottom": 0.06, "hspace": 0.08}


def draw_curves(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes a PNG with the curves of the epochs in a log, whole or not at all.

    Args:
        entries: the lines of log.jsonl in order, at least one.
        path: a ``.png`` file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=_SIZE)
    FigureCanvasAgg(figure)
    losses, scores, rates = figure.subplots(3, 1, sharex=True, gridspec_kw=_MARGINS)
    _plot(losses, entries, lambda entry: {"loss": entry["loss"], **entry["terms"]})
    losses.set_ylabel("training loss")
    _plot_scores(scores, entries)
    _plot(rates, entries, lambda entry: {"learning rate": entry["learning_rate"]})
    rates.set_ylabel("learning rate")
    times = rates.twinx()
    times.set_prop_cycle(color=["dimgray", "tab:red"])
    names = {"seconds_per_iteration": "seconds an iteration", "data_wait": "of it waiting for data"}
    _plot(times, entries, lambda entry: {text: entry[name] for name, text in names.items()}, style="--")
    times.set_ylabel("seconds")
    times.set_ylim(bottom=0, top=1.5 * times.dataLim.y1 or 1.0)  # room for the legend
    times.grid(visible=False)
    rates.set_xlabel("epoch")
    rates.xaxis.set_major_locator(MaxNLocator(integer=True))
    rates.get_legend().remove()
    times.legend(handles=[*rates.get_lines(), *times.get_lines()], loc="upper right", fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _plot_scores(axes: Any, entries: Sequence[Mapping[str, Any]]) -> None:
    """The validation scores, with norms on an axis of their own."""

    def chosen(entry: Mapping[str, Any], *, norms: bool) -> dict[str, float | None]:
        return {name: score for name, score in entry["validation"].items() if name.startswith(ON_LOG_AXIS) == norms}

    _plot(axes, entries, lambda entry: {**chosen(entry, norms=False), "moving average": entry["average"]})
    axes.set_ylabel("validation score")
    if any(chosen(entry, norms=True) for entry in entries):
        sizes = axes.twinx()
        sizes.set_prop_cycle(color=["dimgray", "black"])
        _plot(sizes, entries, lambda entry: chosen(entry, norms=True), style="--")
        sizes.set(yscale="log", ylabel=ON_LOG_AXIS)
        sizes.grid(visible=False)
        axes.get_legend().remove()
        sizes.legend(handles=[*axes.get_lines(), *sizes.get_lines()], loc="best", fontsize="small")


def _plot(
    axes: Any,
    entries: Sequence[Mapping[str, Any]],
    values: Callable[[Mapping[str, Any]], Mapping[str, float | None]],
    style: str = "-",
) -> None:
    """One line a name, with a gap where an epoch has no value for it."""
    rows = [values(entry) for entry in entries]
    epochs = [entry["epoch"] + 1 for entry in entries]
    for name in dict.fromkeys(name for row in rows for name in row):
        numbers = [row.get(name) for row in rows]
        heights = [math.nan if number is None else number for number in numbers]
        axes.plot(epochs, heights, style, label=name, marker="." if len(entries) < 30 else "")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize="small")
    axes.grid(alpha=0.3)
