"""Pictures of one case: the slice that shows most, with the reference's and the prediction's outlines on it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from selfcfg.files import replacing
from selfcfg.geometry import Geometry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#56B4E9", "#E69F00")
"""Reference and prediction: sky blue and orange of Okabe and Ito's palette, told apart with every colour vision."""

_WIDTHS = (2.6, 1.2)

_STYLES: tuple[Literal["solid", "dashed", "dotted", "dashdot"], ...] = ("solid", "dashed", "dotted", "dashdot")
"""Of the classes in turn."""

_PLANES = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "L": "sagittal", "R": "sagittal"}

_MAX_PANELS = 3
_MAX_NAMED = 6
_PANEL_INCHES = 3.1
_MARGIN = 0.35
_STRAY = 0.02
_WORTH_ENLARGING = 0.6
_SMALLEST_VIEW_MM = 40.0

Image = NDArray[Any]
Frame = tuple[float, float, float, float]
"""First and last row and column of a part of a picture, in pixels."""
Label = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class View:
    """How a volume is cut and turned to be looked at: conventional orientation, patient's right on the left.

    Args:
        axis: array axis (0 = z) that the cut goes through.
        index: position of the cut along it.
        transpose: whether the two remaining axes change places.
        flip: whether rows and columns run the other way round.
        pixel_mm: height and width of a pixel as shown.
        edges: letters at the left, right, top and bottom edge; empty for pictures.
        name: of the slice, such as "axial slice 12 of 40"; empty for pictures.
    """

    axis: int
    index: int
    transpose: bool
    flip: tuple[bool, bool]
    pixel_mm: tuple[float, float]
    edges: tuple[str, ...] = ()
    name: str = ""

    def cut(self, volume: Image) -> Image:
        """The slice (rows, columns) of an array (Z, Y, X), as shown."""
        plane = np.take(volume, self.index, axis=self.axis)
        plane = plane.T if self.transpose else plane
        turned = tuple(axis for axis in (0, 1) if self.flip[axis])
        return np.asarray(np.flip(plane, turned))


def overlay(
    image: Image,
    reference: Label,
    prediction: Label,
    geometry: Geometry,
    path: Path,
    *,
    title: str = "",
    classes: Mapping[int, str] | None = None,
) -> None:
    """Writes a PNG: the plain slice, and each channel with both outlines, enlarged to where the foreground is.

    Args:
        image: (C, Z, Y, X); three channels of a 2D geometry are the colours of one picture.
        reference: (Z, Y, X) label values.
        prediction: (Z, Y, X) label values.
        geometry: of all three; gives the aspect ratio and the letters at the edges.
        path: where to write.
        title: a line above the pictures.
        classes: the values to outline, with their names; default: all but 0.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    if classes is None:
        found = sorted({*np.unique(reference).tolist(), *np.unique(prediction).tolist()} - {0})
        classes = {value: f"value {value}" for value in found}
    values = list(classes)
    view = choose_view(np.isin(reference, values), np.isin(prediction, values), geometry)
    cuts = [view.cut(label) for label in (reference, prediction)]
    shown = np.isin(cuts[0], values) | np.isin(cuts[1], values)
    frame = _frame(shown, view.pixel_mm)
    is_color = geometry.dimensions == 2 and len(image) == 3
    planes = [view.cut(channel) for channel in image[:_MAX_PANELS]]
    layers = [_color(planes)] if is_color else [_windowed(plane, frame, shown) for plane in planes]
    ratio = cuts[0].shape[0] * view.pixel_mm[0] / (cuts[0].shape[1] * view.pixel_mm[1])
    panels = len(layers) + 1
    figure = Figure(
        figsize=(_PANEL_INCHES * panels, _PANEL_INCHES * min(max(ratio, 0.4), 1.6) + 0.55), layout="constrained"
    )
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _show(axes[0], layers[0], view)
    if _inside(frame, shown).size < shown.size:
        _mark(axes[0], frame)
    if _inside(frame, shown).sum() < shown.sum():
        _outlines(axes[0], cuts, values, scale=0.5)
    _letters(axes[0], view)
    for axis, layer in zip(axes[1:], layers, strict=True):
        _show(axis, layer, view)
        _outlines(axis, cuts, values, scale=1.0)
        _zoom(axis, frame)
    figure.suptitle("\n".join(filter(None, (title, _about(view, cuts, values)))), fontsize=9, parse_math=False)
    _legend(figure, cuts, classes)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def choose_view(reference: NDArray[np.bool_], prediction: NDArray[np.bool_], geometry: Geometry) -> View:
    """The cut across the coarsest axis (the axial one when none is coarser) that holds most of the foreground.

    The two masks (Z, Y, X) count by their sum; the reference decides alone where it is not empty.
    """
    if geometry.dimensions == 2:
        return View(0, 0, transpose=False, flip=(False, False), pixel_mm=(geometry.spacing[1], geometry.spacing[2]))
    code = geometry.orientation
    axis = _cut_axis(geometry)
    mask = reference if reference.any() else prediction
    counts = mask.sum(axis=tuple(other for other in range(3) if other != axis))
    index = int(counts.argmax()) if counts.any() else geometry.shape[axis] // 2
    row, column = (other for other in range(3) if other != axis)
    transpose = _upright(code[row]) < _upright(code[column])
    if transpose:
        row, column = column, row
    flip = (code[row] in "SA", code[column] in "RA")
    edges = _edges(code[row], code[column], flip)
    name = f"{_PLANES[code[axis]]} slice {index + 1} of {geometry.shape[axis]}"
    return View(axis, index, transpose, flip, (geometry.spacing[row], geometry.spacing[column]), edges, name)


def _about(view: View, cuts: Sequence[Label], values: Sequence[int]) -> str:
    """Which slice it is, and what is not in it."""
    is_there = [bool(np.isin(cut, values).any()) for cut in cuts]
    absent = [name for name, there in zip(("reference", "prediction"), is_there, strict=True) if not there]
    note = f"no {' and no '.join(absent)} in it" if absent and len(view.name) else ""
    return ": ".join(filter(None, (view.name, note)))


def _cut_axis(geometry: Geometry) -> int:
    coarsest = int(np.argmax(geometry.spacing))
    if geometry.spacing[coarsest] > 1.2 * sorted(geometry.spacing)[1]:
        return coarsest
    return next(axis for axis, letter in enumerate(geometry.orientation) if letter in "SI")


def _upright(letter: str) -> int:
    """How much an anatomical direction wants to be the vertical one: head-foot, then front-back, then sides."""
    return {"S": 2, "I": 2, "A": 1, "P": 1, "L": 0, "R": 0}[letter]


def _edges(row: str, column: str, flip: tuple[bool, bool]) -> tuple[str, str, str, str]:
    opposite = {"S": "I", "I": "S", "A": "P", "P": "A", "L": "R", "R": "L"}
    bottom = opposite[row] if flip[0] else row
    right = opposite[column] if flip[1] else column
    return opposite[right], right, opposite[bottom], bottom


def _color(planes: Sequence[Image]) -> Image:
    """One colour picture (rows, columns, 3) from 0 to 1; a dark one is made brighter, its hues kept."""
    picture = np.stack(planes, axis=-1).astype(np.float32)
    brightest = max(float(np.percentile(_finite(picture), 99.9)), 1e-6)
    return np.asarray(np.clip(np.nan_to_num(picture), 0, brightest) / brightest)


def _windowed(plane: Image, frame: Frame, foreground: NDArray[np.bool_]) -> Image:
    """A gray picture (rows, columns) from 0 to 1 whose contrast suits the foreground and most of what is around it."""
    around = _finite(_inside(frame, plane))
    within = _finite(plane[foreground]) if foreground.any() else around
    low = min(np.percentile(within, 2), np.percentile(around, 10))
    high = max(np.percentile(within, 98), np.percentile(around, 90))
    room = 0.15 * (high - low)
    shown = np.clip(np.nan_to_num(plane.astype(np.float64)), low - room, high + room)
    return np.asarray((shown - low + room) / max(high - low + 2 * room, 1e-6))


def _finite(values: Image) -> Image:
    found = values[np.isfinite(values)].astype(np.float32)
    return found if found.size else np.zeros(1, np.float32)


def _frame(mask: NDArray[np.bool_], pixel_mm: tuple[float, float]) -> Frame:
    """The part of the slice that holds nearly all foreground, with a margin; all of it when there is little else."""
    rows, columns = mask.shape
    whole = (0.0, rows - 1.0, 0.0, columns - 1.0)
    if not mask.any():
        return whole
    bounds = []
    for axis, mm in enumerate(pixel_mm):
        share = np.cumsum(mask.sum(axis=1 - axis)) / mask.sum()
        first, last = np.searchsorted(share, _STRAY, side="right"), np.searchsorted(share, 1 - _STRAY)
        half = (last - first + 1) / 2 * (1 + 2 * _MARGIN)
        bounds.append(((first + last) / 2 * mm, max(half * mm, _SMALLEST_VIEW_MM / 2)))
    reach = max(half for _, half in bounds)
    found: list[float] = []
    for (middle, _), mm, size in zip(bounds, pixel_mm, mask.shape, strict=True):
        found += [max((middle - reach) / mm, 0.0), min((middle + reach) / mm, size - 1.0)]
    frame = (found[0], found[1], found[2], found[3])
    return frame if _inside(frame, mask).size < _WORTH_ENLARGING * mask.size else whole


def _inside(frame: Frame, plane: Image) -> Image:
    """The part of a picture inside a frame."""
    first_row, last_row, first_column, last_column = (round(value) for value in frame)
    return plane[first_row : last_row + 1, first_column : last_column + 1]


def _show(axis: Axes, layer: Image, view: View) -> None:
    height, width = view.pixel_mm
    axis.imshow(layer, cmap="gray", vmin=0, vmax=1, aspect=height / width, interpolation="nearest")
    axis.set_axis_off()


def _mark(axis: Axes, frame: Frame) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - slow to import

    first_row, last_row, first_column, last_column = frame
    corner, size = (first_column - 0.5, first_row - 0.5), (last_column - first_column + 1, last_row - first_row + 1)
    axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=0.8, linestyle="--"))


def _letters(axis: Axes, view: View) -> None:
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.98, "center", "top"),
        (0.5, 0.02, "center", "bottom"),
    )
    for letter, (x, y, horizontal, vertical) in zip(view.edges, places, strict=False):
        axis.text(
            x,
            y,
            letter,
            transform=axis.transAxes,
            ha=horizontal,
            va=vertical,
            fontsize=9,
            color="white",
            bbox={"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0},
        )


def _outlines(axis: Axes, cuts: Sequence[Label], values: Sequence[int], *, scale: float) -> None:
    """The reference's outline, wide, and the prediction's on it, narrow: where they agree both are seen."""
    for label, color, width in zip(cuts, _COLORS, _WIDTHS, strict=True):
        rows, columns = np.arange(-1, label.shape[0] + 1), np.arange(-1, label.shape[1] + 1)
        for value, style in zip(values, itertools.cycle(_STYLES), strict=False):
            mask = np.pad(label == value, 1).astype(np.float32)
            if mask.any():
                lines = axis.contour(columns, rows, mask, levels=[0.5], colors=[color], linewidths=[width * scale])
                lines.set(linestyle=style)


def _zoom(axis: Axes, frame: Frame) -> None:
    first_row, last_row, first_column, last_column = frame
    axis.set_xlim(first_column - 0.5, last_column + 0.5)
    axis.set_ylim(last_row + 0.5, first_row - 0.5)


def _legend(figure: Any, cuts: Sequence[Label], classes: Mapping[int, str]) -> None:
    """Colours say whose outline it is, line styles which class; classes that are not in the slice are left out."""
    from matplotlib.lines import Line2D  # noqa: PLC0415 - slow to import

    handles = [
        Line2D([], [], color=color, linewidth=width, label=label)
        for color, width, label in zip(_COLORS, _WIDTHS, ("reference", "prediction"), strict=True)
    ]
    if len(classes) > 1:
        styles = zip(classes.items(), itertools.cycle(_STYLES), strict=False)
        seen = [(name, style) for (value, name), style in styles if any((cut == value).any() for cut in cuts)]
        handles += [Line2D([], [], color="dimgray", linestyle=style, label=name) for name, style in seen[:_MAX_NAMED]]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
