"""Plots as SVG within the page: drawn by hand, so that every mark can be named, and escaped by the XML writer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

WIDTH = 640
MAX_MARKS = 3000
"""Marks of a plot at most, shared by its rows."""

_LEFT, _RIGHT, _ROW = 168, 16, 34
_AXIS = 44
_LONGEST = 21
_CURVES_LEFT = 56
_LETTER, _GAP = 8.4, 16
"""Width of a letter of a name of a curve, and between two names."""


@dataclass(frozen=True)
class Drawing:
    """A finished plot.

    Args:
        markup: one `svg` element.
        has_marks: whether it holds marks with names.
        left_out: marks between others that were not drawn, because there are so many.
    """

    markup: str
    has_marks: bool = False
    left_out: int = 0


@dataclass(frozen=True)
class Mark:
    """One value of a row, with the words that name it."""

    value: float
    name: str


@dataclass(frozen=True)
class Row:
    """A row of a strip plot.

    Args:
        name: at its left.
        marks: one a case.
        mean: of them, as it is to be drawn; None: not.
        low: lower end of its interval.
        high: upper end.
        color: number of the colour, from 0.
    """

    name: str
    marks: Sequence[Mark]
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    color: int = 0


@dataclass(frozen=True)
class Axis:
    """The horizontal axis of a plot.

    Args:
        title: what it shows, with the unit.
        low: where it begins; None: where the values do.
        high: where it ends.
        lines: places of vertical lines.
    """

    title: str
    low: float | None = None
    high: float | None = None
    lines: tuple[float, ...] = ()


def strips(rows: Sequence[Row], axis: Axis, label: str) -> Drawing:
    """A row of marks a class or system, each mark a case, with the mean and its interval.

    Args:
        rows: from top to bottom.
        axis: common to all.
        label: what the plot shows, for who cannot see it.
    """
    values = [mark.value for row in rows for mark in row.marks]
    values += [value for row in rows for value in (row.mean, row.low, row.high) if value is not None]
    values += axis.lines
    scale = _Scale.over(values, axis, _LEFT, WIDTH - _RIGHT)
    height = _ROW * len(rows) + _AXIS
    svg = _svg(height, label, role="group")
    _draw_axis(svg, scale, axis, height - _AXIS)
    for place in axis.lines:
        _line(svg, scale.at(place), 0, scale.at(place), height - _AXIS, kind="reference-line")
    for number, row in enumerate(rows):
        middle = _ROW * (number + 0.5)
        name = _text(svg, _LEFT - 10, middle + 4, _short(row.name), "end")
        if _short(row.name) != row.name:
            ET.SubElement(name, "title").text = row.name
        group = ET.SubElement(svg, "g", {"class": f"color-{row.color % 4}"})
        for place, mark in enumerate(_thinned(row.marks, MAX_MARKS // len(rows))):
            spread = ((place * 0.618) % 1 - 0.5) * _ROW * 0.55
            _mark(group, scale.at(mark.value), middle + spread, mark.name)
        if row.low is not None and row.high is not None:
            _line(group, scale.at(row.low), middle, scale.at(row.high), middle, kind="interval")
        if row.mean is not None:
            x = scale.at(row.mean)
            ET.SubElement(group, "path", {"d": f"M{x - 5:.1f} {middle:.1f}l5-5 5 5-5 5z", "class": "mean"})
    drawn = sum(min(len(row.marks), max(2, MAX_MARKS // len(rows))) for row in rows)
    given = sum(len(row.marks) for row in rows)
    return Drawing(_written(svg), has_marks=given > 0, left_out=given - drawn)


@dataclass(frozen=True)
class Line:
    """A curve: points (x, y), with a gap where y is None."""

    name: str
    points: Sequence[tuple[float, float | None]]
    color: int = 0
    is_dashed: bool = False


def curves(lines: Sequence[Line], x_title: str, y_title: str, label: str) -> Drawing | None:
    """Lines over a common axis; None where there is nothing to draw."""
    known = [(x, y) for line in lines for x, y in line.points if y is not None]
    if not known:
        return None
    height, bottom = 250, 250 - _AXIS
    x_scale = _Scale.over([x for x, _ in known], Axis(x_title), _CURVES_LEFT, WIDTH - _RIGHT, padding=0.02)
    y_scale = _Scale.over([y for _, y in known], Axis(y_title), bottom - 4, 24)
    svg = _svg(height, label)
    is_whole = all(float(x).is_integer() for x, _ in known)
    _draw_axis(svg, x_scale, Axis(x_title), bottom, begin=_CURVES_LEFT, whole=is_whole)
    for place in _ticks(y_scale.low, y_scale.high):
        _line(svg, _CURVES_LEFT, y_scale.at(place), WIDTH - _RIGHT, y_scale.at(place), kind="grid")
        _text(svg, _CURVES_LEFT - 8, y_scale.at(place) + 4, f"{place:g}", "end")
    _text(svg, 4, 14, y_title, "start", kind="axis-title")
    for line, end in zip(lines, _key_ends([line.name for line in lines]), strict=True):
        group = ET.SubElement(svg, "g", {"class": f"color-{line.color % 4}"})
        if end is not None:
            _text(group, end, 14, line.name, "end")
        ET.SubElement(group, "title").text = line.name
        attributes = {"class": "curve dashed" if line.is_dashed else "curve"}
        for stretch in _stretches(line.points):
            points = " ".join(f"{x_scale.at(x):.1f},{y_scale.at(y):.1f}" for x, y in stretch)
            ET.SubElement(group, "polyline", {**attributes, "points": points})
            if len(stretch) == 1:
                x, y = stretch[0]
                ET.SubElement(group, "circle", {"cx": f"{x_scale.at(x):.1f}", "cy": f"{y_scale.at(y):.1f}", "r": "2.5"})
    return Drawing(_written(svg))


def histograms(panels: Mapping[str, Sequence[float]], label: str, bins: int = 16) -> Drawing:
    """A small histogram for each list of numbers, by what it is of, with its ends and its median."""
    columns = min(3, len(panels))
    width, tall = WIDTH / columns, 132
    svg = _svg(tall * -(-len(panels) // columns), label)
    for number, (name, values) in enumerate(panels.items()):
        left, top = (number % columns) * width + 8, (number // columns) * tall
        _text(svg, left, top + 16, name, "start", kind="axis-title")
        low, high = min(values), max(values)
        inner, base = width - 16, top + 96
        counts = _counted(values, low, high, bins)
        for place, count in enumerate(counts):
            tallness = 68 * count / max(counts)
            box = {"x": left + place * inner / len(counts), "y": base - tallness, "height": tallness}
            box["width"] = max(inner / len(counts) - 1, 1)
            bar = ET.SubElement(svg, "rect", {key: f"{value:.1f}" for key, value in box.items()} | {"class": "bar"})
            ET.SubElement(bar, "title").text = f"{count} of {len(values)}"
        _line(svg, left, base, left + inner, base, kind="axis")
        if low == high:
            _text(svg, left, base + 16, f"all {low:.4g}", "start")
        else:
            _text(svg, left, base + 16, f"{low:.4g}", "start")
            _text(svg, left + inner, base + 16, f"{high:.4g}", "end")
            _text(svg, left + inner / 2, base + 16, f"median {sorted(values)[len(values) // 2]:.4g}", "middle")
    return Drawing(_written(svg))


@dataclass(frozen=True)
class _Scale:
    """From values to places in the picture."""

    low: float
    high: float
    begin: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], axis: Axis, begin: float, end: float, padding: float = 0.04) -> _Scale:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = (high - low or abs(high) or 1.0) * padding
        low = low - room if axis.low is None else axis.low
        high = high + room if axis.high is None else axis.high
        return cls(low, high, begin, end)

    def at(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)


def _draw_axis(
    svg: ET.Element, scale: _Scale, axis: Axis, base: float, begin: float = _LEFT, *, whole: bool = False
) -> None:
    """The horizontal axis at the height `base`, with lines upwards at its ticks."""
    for place in _ticks(scale.low, scale.high, whole=whole):
        _line(svg, scale.at(place), 0 if not whole else 24, scale.at(place), base, kind="grid")
        _text(svg, scale.at(place), base + 18, f"{place:g}", "middle")
    _line(svg, begin, base, WIDTH - _RIGHT, base, kind="axis")
    _text(svg, (begin + WIDTH - _RIGHT) / 2, base + 38, axis.title, "middle", kind="axis-title")


def _thinned(marks: Sequence[Mark], most: int) -> list[Mark]:
    """At most so many of them, evenly by value: both ends are among them."""
    most = max(2, most)
    if len(marks) <= most:
        return list(marks)
    ranked = sorted(marks, key=lambda mark: mark.value)
    return [ranked[round(place * (len(ranked) - 1) / (most - 1))] for place in range(most)]


def _key_ends(names: Sequence[str]) -> list[float | None]:
    """Where the name of each line ends, the last one at the right; None for the last ones where there is no room."""
    widths = [_LETTER * len(name) + _GAP for name in names]
    fitting = next((n for n in range(len(names), 0, -1) if sum(widths[:n]) < WIDTH - _RIGHT - _CURVES_LEFT), 0)
    ends = [WIDTH - _RIGHT - sum(widths[number + 1 : fitting]) for number in range(fitting)]
    return [*ends, *[None] * (len(names) - fitting)]


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """About five round numbers from `low` to `high`."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _counted(values: Sequence[float], low: float, high: float, bins: int) -> list[int]:
    counts = [0] * (bins if high > low else 1)
    for value in values:
        place = int((value - low) / (high - low) * bins) if high > low else 0
        counts[min(place, len(counts) - 1)] += 1
    return counts


def _stretches(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            found.append([])
        else:
            found[-1].append((x, y))
    return [stretch for stretch in found if stretch]


def _svg(height: float, label: str, role: str = "img") -> ET.Element:
    box = f"0 0 {WIDTH} {height:.0f}"
    return ET.Element("svg", {"viewBox": box, "role": role, "aria-label": label, "class": "plot"})


def _mark(parent: ET.Element, x: float, y: float, name: str) -> None:
    made = ET.SubElement(parent, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "4", "class": "mark"})
    made.set("role", "img")
    ET.SubElement(made, "title").text = name


def _line(parent: ET.Element, x1: float, y1: float, x2: float, y2: float, *, kind: str) -> None:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    ET.SubElement(parent, "line", {name: f"{value:.1f}" for name, value in ends.items()} | {"class": kind})


def _text(parent: ET.Element, x: float, y: float, text: str, anchor: str, *, kind: str = "") -> ET.Element:
    made = ET.SubElement(parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
    if kind:
        made.set("class", kind)
    made.text = text
    return made


def _short(name: str) -> str:
    """The name, with its middle left out where it is too long: names of experiments often differ at their ends."""
    half = (_LONGEST - 1) // 2
    return name if len(name) <= _LONGEST else f"{name[:half]}…{name[-half:]}"


def _written(svg: ET.Element) -> str:
    return ET.tostring(svg, encoding="unicode")
