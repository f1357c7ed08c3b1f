"""Pictures of what was measured of a dataset: sizes, volumes of the classes, intensities inside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.checks.cautions import target_by_axis
from selfcfg.engine.checks.outliers import unit_of_volume, volumes
from selfcfg.engine.intensities import QUANTILES
from selfcfg.files import replacing
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "space": "Spacing and size of the images",
    "volumes": "Volumes of the classes",
    "intensities": "Intensities inside the classes",
}
"""The pictures by name, with what they show."""

_BLUE, _DARK, _ORANGE = "#56B4E9", "#0072B2", "#E69F00"
"""Data, and what was decided: blues and orange of Okabe and Ito's palette, told apart with every colour vision."""
_COLORS = {"r": "#D55E00", "red": "#D55E00", "g": "#009E73", "green": "#009E73", "b": "#0072B2", "blue": "#0072B2"}
"""Of channels that are colours."""

_MAX_BINS = 30
_WIDE = 100.0
"""Ratio of largest to smallest typical intensity from which the axis is logarithmic."""


def draw_plots(plan: Plan, fingerprint: Fingerprint, place: Callable[[str], Path]) -> dict[str, str]:
    """The file names of the pictures that could be drawn, by what they show; each is written whole or not at all.

    Args:
        plan: what was decided.
        fingerprint: what was measured; without per-case values only sizes are drawn.
        place: the ``.png`` file for each name of `TITLES`.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    drawn = {"space": _draw_space}
    if fingerprint.cases:
        drawn["volumes"] = _draw_volumes
        if any(any(case.quantiles) for case in fingerprint.cases):
            drawn["intensities"] = _draw_intensities
    for name, draw in drawn.items():
        figure = Figure(layout="constrained")
        draw(figure, plan, fingerprint)
        with replacing(place(name)) as temporary:
            figure.savefig(temporary, dpi=100, metadata={"Software": None})
    return {name: place(name).name for name in drawn}


def _draw_space(figure: Figure, plan: Plan, fingerprint: Fingerprint) -> None:
    """Histograms of spacing, voxels and extent along each axis, with the target spacing and the patch."""
    spacings, shapes = np.array(fingerprint.spacings), np.array(fingerprint.shapes_after_crop, dtype=float)
    targets = target_by_axis(plan)
    chosen = plan.configuration(plan.default_configuration)
    order = plan.axis_order[3 - chosen.dimensions :]
    patch = {axis: edge * targets[axis] for axis, edge in zip(order, chosen.patch_size, strict=True)}
    axes = (1, 2) if plan.dimensions == 2 else (0, 1, 2)
    rows: list[tuple[str, NDArray[Any], str, dict[int, float]]] = [("voxels", shapes, "", {})]
    if plan.dimensions == 3 or np.ptp(spacings[:, 1:]) > 0:
        rows = [
            ("spacing in mm", spacings, "target", targets),
            *rows,
            ("extent in mm", spacings * shapes, "patch", patch),
        ]
    elif plan.dimensions == 2:
        rows = [("pixels", shapes, "patch", patch)]
    figure.set_size_inches(3.2 * len(axes), 2.1 * len(rows) + 0.4)
    panels = figure.subplots(len(rows), len(axes), squeeze=False)
    for row, (unit, values, decided, lines) in zip(panels, rows, strict=True):
        for panel, axis in zip(row, axes, strict=True):
            _histogram(panel, values[:, axis])
            panel.set_xlabel(f"{unit} along {'zyx'[axis]}", fontsize=9)
            if axis in lines:
                panel.axvline(lines[axis], color=_ORANGE, linewidth=2, label=f"{decided} {lines[axis]:.4g}")
                panel.legend(fontsize=8, loc="best")
        row[0].set_ylabel("cases", fontsize=9)


def _draw_volumes(figure: Figure, plan: Plan, fingerprint: Fingerprint) -> None:
    """A row of dots a class, one a case, with a bar from the lower to the upper quartile and a mark at the median."""
    found = volumes(plan, fingerprint.cases)
    names = list(found)
    height = 0.17 if len(names) > 30 else 0.32
    figure.set_size_inches(8, height * len(names) + 1.0)
    panel: Axes = figure.subplots()
    labels = []
    for row, (name, in_case) in enumerate(found.items()):
        present = np.array([volume for volume in in_case.values() if volume > 0])
        labels.append(f"{_short(name)} ({len(present)} of {len(in_case)})")
        if present.size:
            low, middle, high = np.percentile(present, [25, 50, 75])
            panel.barh(row, high - low, left=low, height=0.7, color=_BLUE, alpha=0.45, linewidth=0)
            faint = min(0.6, max(0.1, 20 / present.size))
            panel.scatter(present, row + _jitter(present.size), s=8, color=_DARK, alpha=faint, linewidths=0, zorder=2)
            panel.plot([middle, middle], [row - 0.35, row + 0.35], color=_ORANGE, linewidth=2.5, zorder=3)
    every = [volume for in_case in found.values() for volume in in_case.values() if volume > 0] or [1.0]
    panel.set_xscale("log")
    panel.set_xlim(0.8 * min(every), 1.25 * max(every))
    panel.set_xlabel(f"volume in {unit_of_volume(plan)}" if plan.dimensions == 3 else unit_of_volume(plan), fontsize=9)
    panel.set_yticks(range(len(names)), labels, fontsize=7 if len(names) > 30 else 9, parse_math=False)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(axis="x", alpha=0.3)
    panel.set_title("a dot a case; bar: middle half of the cases; mark: median", fontsize=9)
    _plain_ticks(panel)


def _draw_intensities(figure: Figure, plan: Plan, fingerprint: Fingerprint) -> None:
    """A panel a channel: the cases by rising median, each from its 0.5 to its 99.5 percentile."""
    columns = min(len(plan.channels), 3)
    rows = -(-len(plan.channels) // columns)
    figure.set_size_inches(max(3.4 * columns, 6), 2.8 * rows + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    schemes = next(iter(plan.configurations.values())).normalization
    for index, (panel, channel) in enumerate(zip(panels, plan.channels, strict=False)):
        known = [case.quantiles[index] for case in fingerprint.cases if case.quantiles and case.quantiles[index]]
        bands = np.array([_percentiles(text) for text in known]).reshape(-1, 5)
        bands = bands[np.argsort(bands[:, 2], kind="stable")]
        _bands(panel, bands, _COLORS.get(channel.lower(), _DARK))
        panel.set_title(_short(channel), fontsize=9, parse_math=False)
        panel.set_xlabel("cases by rising median", fontsize=9)
        if schemes[index] == "ct":
            found = plan.intensities[index]
            for bound in (found.percentile_00_5, found.percentile_99_5):
                panel.axhline(bound, color=_ORANGE, linestyle="--", linewidth=1.2, label="values are cut here")
        panel.set_ylabel("Hounsfield units" if schemes[index] == "ct" else "intensity", fontsize=9)
    for panel in panels[len(plan.channels) :]:
        panel.set_axis_off()
    named = {name: handle for panel in panels for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=len(named), fontsize=8, frameon=False)


def _bands(panel: Axes, bands: NDArray[np.float64], color: str) -> None:
    """Two bands and a line over the cases: (cases, 5) percentiles 0.5, 25, 50, 75, 99.5."""
    # a step a case, so that one case alone has a width
    edges = np.arange(len(bands) + 1) + 0.5
    low, lower, middle, upper, high = np.vstack([bands, bands[-1:]]).T
    for bottom, top, alpha, label in ((low, high, 0.25, "99 % of the voxels"), (lower, upper, 0.5, "middle half")):
        panel.fill_between(edges, bottom, top, step="post", color=color, alpha=alpha, linewidth=0, label=label)
    panel.step(edges, middle, where="post", color=color, linewidth=1.5, label="median")
    panel.set_xlim(edges[0], edges[-1])
    panel.xaxis.set_major_locator(_whole_numbers())
    positive = middle[middle > 0]
    if positive.size == middle.size and positive.max() > _WIDE * positive.min():
        panel.set_yscale("log")
        panel.set_ylim(bottom=max(low[low > 0].min(initial=positive.min()), positive.min() / _WIDE))
    panel.grid(axis="y", alpha=0.3)


def _histogram(panel: Axes, values: NDArray[np.float64]) -> None:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-3 * high:
        middle = (low + high) / 2
        panel.bar([middle], [len(values)], width=0.1 * middle, color=_BLUE)
        panel.set_xlim(0.5 * middle, 1.5 * middle)
    else:
        panel.hist(values, bins=min(_MAX_BINS, max(8, len(values))), color=_BLUE)
    panel.tick_params(labelsize=8)
    panel.yaxis.set_major_locator(_whole_numbers())
    panel.grid(axis="y", alpha=0.3)


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    return MaxNLocator(nbins=5, integer=True, min_n_ticks=1)


def _percentiles(text: str) -> list[float]:
    kept = np.array(text.split(), dtype=np.float64)
    return [float(value) for value in np.interp([0.005, 0.25, 0.5, 0.75, 0.995], QUANTILES, kept)]


def _jitter(count: int) -> NDArray[np.float64]:
    """Offsets within a row that keep dots apart; always the same."""
    return np.asarray(((np.arange(count) * 0.618) % 1 - 0.5) * 0.6)


def _plain_ticks(panel: Axes) -> None:
    """Numbers instead of powers of ten, also where the axis spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    low, high = panel.get_xlim()
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _short(name: str) -> str:
    return name if len(name) <= 32 else name[:31] + "…"
