"""The slices of a case as compact pictures within the page, with outlines that can be shown and hidden one by one."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfcfg.geometry import Geometry
from selfcfg.report.pictures import Image, Label, View, choose_view

BUDGET = 14_000_000
"""Bytes that all slices of a page may take, as they stand in it; with everything else it stays below 20 MB."""

LADDER = ((512, 400), (384, 300), (320, 160), (256, 120), (256, 64), (192, 48), (160, 32), (128, 20), (96, 12), (64, 6))
"""Longest side in pixels and number of slices at most; a case takes the first that its share of the budget holds."""

UNITS = 2000
"""Length of the longer side of a slice in the units of its outlines."""

_QUALITY = 82
_SAMPLE = 5
_MAX_CHANNELS = 4
_MARGIN, _WORTH_ENLARGING = 0.2, 0.75
"""Room around what is outlined, and the share of a slice up to which it may be enlarged."""

_TOLERANCE = 0.25
"""Pixels by which an outline may be simplified: no centre of a pixel is nearer to it, so none changes sides."""


@dataclass(frozen=True)
class Pictured:
    """A case that was read.

    Args:
        image: (C, Z, Y, X), or None where there is none.
        channels: their names.
        maps: label map (Z, Y, X) of the reference and of each system, by name; the reference first.
        geometry: of all of them.
        classes: name of each value to outline.
    """

    image: Image | None
    channels: tuple[str, ...]
    maps: Mapping[str, Label]
    geometry: Geometry
    classes: Mapping[int, str]


@dataclass(frozen=True)
class Frame:
    """One slice.

    Args:
        number: of it, counted from 1.
        pictures: data URI of each channel; empty without an image.
        outlines: for each map, the outline of each class as SVG path data; "" where it is not in the slice.
    """

    number: int
    pictures: tuple[str, ...]
    outlines: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> int:
        """Bytes in the page, about."""
        texts = (text for of_map in self.outlines for text in of_map)
        return sum(map(len, self.pictures)) + sum(len(text) + 4 for text in texts) + 40


@dataclass(frozen=True)
class Slices:
    """The slices of a case, cut and turned as usual: patient's right on the left.

    Args:
        width: of a slice, in units of the outlines.
        height: the same.
        edges: letters at the left, right, top and bottom edge; empty for pictures.
        plane: "axial", "coronal", "sagittal"; empty for pictures.
        total: slices that the image has.
        central: place in `frames` of the one that is shown first.
        frames: in order.
        focus: left, top, width and height of what holds all that is outlined, in the same shape as a slice; None where
            that is most of it.
        channels: names of the pictures of each frame.
        maps: names of what is outlined, the reference first.
        classes: their names.
    """

    width: int
    height: int
    edges: tuple[str, ...]
    plane: str
    total: int
    central: int
    frames: tuple[Frame, ...]
    focus: tuple[int, int, int, int] | None
    channels: tuple[str, ...]
    maps: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes in the page, about."""
        return sum(frame.size for frame in self.frames)

    @property
    def data(self) -> dict[str, Any]:
        """What the page's program needs to move through them."""
        frames = [{"n": one.number, "p": one.pictures, "o": one.outlines} for one in self.frames]
        boxes = {"whole": (0, 0, self.width, self.height), "focus": self.focus}
        return {"central": self.central, "total": self.total, "plane": self.plane, "frames": frames, **boxes}

    @property
    def shown(self) -> Frame:
        """The slice that is shown first."""
        return self.frames[self.central]


def slices_of(case: Pictured, budget: int) -> Slices:
    """The slices of a case within a number of bytes: all of them, else fewer and smaller ones.

    Args:
        case: at least its reference.
        budget: bytes; what even the last step of the ladder exceeds is cut down to its central slice.
    """
    cutter = _Cutter.of(case)
    for side, count in LADDER:
        chosen = _spread(cutter.indices, cutter.view.index, count)
        sample = [*cutter.frames(chosen[:: max(1, len(chosen) // _SAMPLE)], side)]
        if sum(frame.size for frame in sample) / len(sample) * len(chosen) > 1.2 * budget:
            continue
        made = cutter.slices([*cutter.frames(chosen, side)])
        if made.size <= budget:
            return made
    side = LADDER[-1][0]
    return cutter.slices([*cutter.frames([cutter.view.index], side)])


@dataclass(frozen=True)
class _Cutter:
    """Cuts slices of one case.

    Args:
        case: to cut.
        view: of its central slice.
        windows: for each channel the values that are black and white.
        outlines: of the slices that were cut before; they are the same for pictures of any size.
    """

    case: Pictured
    view: View
    windows: tuple[tuple[float, float], ...]
    outlines: dict[int, tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Pictured) -> _Cutter:
        masks = [np.isin(label, list(case.classes)) for label in case.maps.values()]
        found = np.logical_or.reduce(masks[1:]) if len(masks) > 1 else masks[0]
        view = choose_view(masks[0], found, case.geometry)
        if case.image is None:
            return cls(case, view, ())
        if _is_color(case):
            top = max(float(np.percentile(_finite(case.image), 99.9)), 1e-6)
            return cls(case, view, ((0.0, top),))
        foreground = masks[0] | found
        return cls(case, view, tuple(_window(channel, foreground) for channel in case.image[:_MAX_CHANNELS]))

    @property
    def indices(self) -> range:
        """Of all slices, in the order of looking: upwards or forwards."""
        return range(self.case.geometry.shape[self.view.axis])

    def frames(self, indices: Sequence[int], side: int) -> Iterator[Frame]:
        """The slices at these places, with pictures of at most `side` pixels."""
        for index in indices:
            view = replace(self.view, index=index)
            if index not in self.outlines:
                self.outlines[index] = self._outlined(view)
            pictures = tuple(_encoded(plane, side) for plane in self._planes(view))
            yield Frame(index + 1, pictures, self.outlines[index])

    def slices(self, frames: list[Frame]) -> Slices:
        """These slices as the page holds them."""
        rows, columns = self.view.cut(next(iter(self.case.maps.values()))).shape
        down, across = self._scale((rows, columns))
        central = next(place for place, frame in enumerate(frames) if frame.number == self.view.index + 1)
        channels = self.case.channels[: len(self.windows)]
        return Slices(
            width=round(columns * across),
            height=round(rows * down),
            edges=self.view.edges,
            plane=self.view.name.partition(" ")[0],
            total=len(self.indices),
            central=central,
            frames=tuple(frames),
            focus=self._focus((round(columns * across), round(rows * down)), (down, across)),
            channels=("colours",) if self.case.image is not None and _is_color(self.case) else channels,
            maps=tuple(self.case.maps),
            classes=tuple(self.case.classes.values()),
        )

    def _focus(self, size: tuple[int, int], scale: tuple[float, float]) -> tuple[int, int, int, int] | None:
        """What holds the foreground of all slices; `size`: units of a slice, `scale`: of a row and of a column."""
        shown = np.logical_or.reduce([np.isin(label, list(self.case.classes)) for label in self.case.maps.values()])
        plane = replace(self.view, index=0).cut(shown.any(self.view.axis, keepdims=True))
        if not plane.any():
            return None
        rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
        ends = [(columns[0], columns[-1] + 1, scale[1], size[0]), (rows[0], rows[-1] + 1, scale[0], size[1])]
        share = max((last - first) * unit / whole for first, last, unit, whole in ends) * (1 + 2 * _MARGIN)
        if share > _WORTH_ENLARGING:
            return None
        sides = [round(share * whole) for whole in size]
        middles = [(first + last) / 2 * unit for first, last, unit, _ in ends]
        left, top = (
            round(min(max(middle - side / 2, 0), whole - side))
            for middle, side, whole in zip(middles, sides, size, strict=True)
        )
        return left, top, sides[0], sides[1]

    def _outlined(self, view: View) -> tuple[tuple[str, ...], ...]:
        cuts = [view.cut(label) for label in self.case.maps.values()]
        scale = self._scale(cuts[0].shape)
        return tuple(tuple(outline(cut == value, scale) for value in self.case.classes) for cut in cuts)

    def _scale(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Units a row and a column."""
        down, across = self.view.pixel_mm
        longest = max(shape[0] * down, shape[1] * across)
        return UNITS * down / longest, UNITS * across / longest

    def _planes(self, view: View) -> Iterator[NDArray[np.uint8]]:
        """The pictures of a slice: (rows, columns), or (rows, columns, 3) of colours."""
        if self.case.image is None:
            return
        cuts = [_bytes(view.cut(self.case.image[place]), *window) for place, window in enumerate(self.windows)]
        if _is_color(self.case):
            (window,) = self.windows
            cuts = [np.stack([_bytes(view.cut(channel), *window) for channel in self.case.image], axis=-1)]
        yield from cuts


def outline(mask: NDArray[np.bool_], scale: tuple[float, float]) -> str:
    """The outlines of a mask (rows, columns) as SVG path data in whole units; "" where it is empty.

    Args:
        mask: of one class in one slice.
        scale: units a row and a column.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return ""
    from skimage import measure  # noqa: PLC0415 - slow to import

    find_contours: Callable[..., list[NDArray[np.float64]]] = measure.find_contours
    approximate_polygon: Callable[..., NDArray[np.float64]] = measure.approximate_polygon

    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    parts = []
    for line in find_contours(np.pad(inside, 1).astype(np.float32), 0.5):
        corners = approximate_polygon(line, _TOLERANCE) if len(line) > 8 else line
        # the centre of the first pixel is at (1, 1) of what was padded, and half a pixel from the edge of the slice
        places = np.rint((corners - 0.5 + (rows[0], columns[0])) * scale).astype(int)[:, ::-1]
        steps = np.diff(places, axis=0)[:-1]
        moves = " ".join(f"{x} {y}" for x, y in steps.tolist())
        parts.append(f"M{places[0][0]} {places[0][1]}l{moves}z")
    return "".join(parts)


def _spread(indices: range, central: int, count: int) -> list[int]:
    """At most `count` places evenly over a range, the central one among them."""
    if len(indices) <= count:
        return list(indices)
    step = -(-len(indices) // count)
    return list(indices[central % step :: step])


def _is_color(case: Pictured) -> bool:
    return case.image is not None and case.geometry.dimensions == 2 and len(case.image) == 3


def _window(channel: Image, foreground: NDArray[np.bool_]) -> tuple[float, float]:
    """The values between which a volume is shown: those of the foreground and most of the others, with some room."""
    around = _finite(channel)
    within = _finite(channel[foreground]) if foreground.any() else around
    low = float(min(np.percentile(within, 2), np.percentile(around, 10)))
    high = float(max(np.percentile(within, 98), np.percentile(around, 95)))
    room = 0.1 * (high - low) or 0.5
    return low - room, high + room


def _finite(values: Image) -> Image:
    found = values[np.isfinite(values)]
    step = max(1, found.size // 1_000_000)
    return found[::step].astype(np.float32) if found.size else np.zeros(1, np.float32)


def _bytes(plane: Image, low: float, high: float) -> NDArray[np.uint8]:
    scaled = (np.nan_to_num(plane.astype(np.float32)) - low) / (high - low)
    return np.asarray(np.clip(scaled, 0, 1) * 255, dtype=np.uint8)


def _encoded(plane: NDArray[np.uint8], side: int) -> str:
    """A JPEG as a data URI, made smaller where it is longer than `side`; it holds pixels and nothing else."""
    from PIL import Image as Pillow  # noqa: PLC0415 - slow to import

    picture = Pillow.fromarray(plane)
    if max(picture.size) > side:
        ratio = side / max(picture.size)
        width, height = (max(1, round(edge * ratio)) for edge in picture.size)
        picture = picture.resize((width, height), Pillow.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
