"""Pictures of a comparison: the differences of each subject, and how stable the ranks are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfcfg.engine.comparison.alignment import MEAN, Aligned
from selfcfg.engine.comparison.records import Comparison, Pair, Ranking
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS, _DARK, _MEAN = "#56B4E9", "#0072B2", "#D55E00"
"""Okabe and Ito's palette, told apart with every colour vision."""

_WIDEST = 32


def draw_differences(found: Comparison, scores: Aligned, path: Path) -> None:
    """Writes a PNG: a panel a metric, a row a pair, a dot a case; the mean over subjects with its interval."""
    pairs = [pair for pair in found.pairs if pair.target == MEAN]
    metrics = [metric for metric in found.metrics if any(pair.metric == metric for pair in pairs)]
    rows = max(sum(pair.metric == metric for pair in pairs) for metric in metrics)
    figure = _figure(4.4 * len(metrics) + 1.2, 0.55 * rows + 1.3)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        mine = [pair for pair in pairs if pair.metric == metric]
        values, _ = scores.of(metric, MEAN)
        for row, pair in enumerate(mine):
            one, other = (scores.systems.index(name) for name in (pair.first, pair.second))
            _row(panel, row, values[one] - values[other], pair)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_yticks(range(len(mine)), [_named(pair) for pair in mine], fontsize=8, parse_math=False)
        panel.set_ylim(len(mine) - 0.5, -0.5)
        kind = METRICS[metric]
        better = "right" if kind.is_higher_better else "left"
        panel.set_xlabel(f"{kind.title}{found.unit(kind.unit)}, difference; first better on the {better}", fontsize=8)
        panel.tick_params(axis="x", labelsize=8)
        panel.grid(axis="x", alpha=0.3)
        if found.margin is not None and metric == found.metrics[0]:
            for edge in (-found.margin, found.margin):
                panel.axvline(edge, color="black", linewidth=0.8, linestyle=":")
    _save(figure, path)


def draw_ranks(found: Comparison, path: Path) -> None:
    """Writes a PNG: a panel a metric and way of ranking; the area of a circle is how often a system has a rank."""
    methods = list(dict.fromkeys(ranking.method for ranking in found.rankings))
    metrics = [metric for metric in found.metrics if any(ranking.metric == metric for ranking in found.rankings)]
    side = 0.5 * len(found.systems) + 1.4
    figure = _figure((side + 1.4) * len(metrics), (side + 0.3) * len(methods))
    panels = figure.subplots(len(methods), len(metrics), squeeze=False)
    for ranking in found.rankings:
        _circles(panels[methods.index(ranking.method)][metrics.index(ranking.metric)], ranking)
    _save(figure, path)


def _row(panel: Axes, row: int, differences: np.ndarray, pair: Pair) -> None:
    """The dots of one pair, spread a little by their order, and the mean with its interval on top."""
    spread = ((np.arange(len(differences)) * 0.618) % 1 - 0.5) * 0.5
    faint = min(0.8, max(0.15, 30 / max(len(differences), 1)))
    panel.scatter(differences, row + spread, s=9, color=_DOTS, alpha=faint, linewidths=0)
    if pair.low is not None and pair.high is not None:
        panel.plot([pair.low, pair.high], [row, row], color=_MEAN, linewidth=2.5, solid_capstyle="butt")
    panel.plot(pair.difference, row, marker="D", markersize=5, color=_MEAN)


def _circles(panel: Axes, ranking: Ranking) -> None:
    names = [standing.system for standing in ranking.standings]
    places = range(1, len(names) + 1)
    for row, standing in enumerate(ranking.standings, 1):
        sizes = 300 * np.array(standing.frequency)
        panel.scatter(places, [row] * len(names), s=sizes, color=_DARK, alpha=0.7, linewidths=0)
        panel.plot([standing.low, standing.high], [row, row], color="black", linewidth=0.8)
        panel.plot(standing.rank, row, marker="x", color=_MEAN, markersize=7)
    panel.set_xticks(places)
    panel.set_yticks(places, [_short(name) for name in names], fontsize=8, parse_math=False)
    panel.set_xlim(0.4, len(names) + 0.6)
    panel.set_ylim(len(names) + 0.6, 0.4)
    panel.set_xlabel("rank", fontsize=8)
    panel.set_title(f"{METRICS[ranking.metric].title}, {ranking.method}", fontsize=9)
    panel.grid(alpha=0.3)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def _named(pair: Pair) -> str:
    return f"{_short(pair.first)} - {_short(pair.second)}"


def _short(name: str) -> str:
    return name if len(name) <= _WIDEST else name[: _WIDEST - 1] + "…"
