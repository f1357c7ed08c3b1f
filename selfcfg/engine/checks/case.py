"""Everything that can be said about one case by reading its files once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfcfg.dataset import Case
from selfcfg.engine.checks.findings import Finding, Kind, Severity
from selfcfg.errors import DataError, listed
from selfcfg.fixes import Fixes, displacement
from selfcfg.geometry import Geometry
from selfcfg.io.images import inspect_image, read_label
from selfcfg.io.problems import FileProblem
from selfcfg.labels import LabelSchema

DRIFT = 0.1
"""Headers that put no corner farther apart than this many voxels differ by rounding; `check --fix` joins them."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class CaseItem:
    """What a worker needs to look at a case; of a test case nothing makes a training go wrong, so all is a warning."""

    root: Path
    case: Case
    n_channels: int
    schema: LabelSchema
    fixes: Fixes
    is_test: bool = False


@dataclass
class CaseFacts:
    """What was found in a case, and what the look at the whole dataset needs of it.

    Args:
        case: its id.
        findings: what is wrong with it.
        geometry: of its first readable image file.
        voxel_hash: of all its image voxels; None when some file is not readable or an image is constant.
        ranges: smallest and largest value of each channel.
        doubts: what looks suspicious in the first image's header, in words.
        values: label value to its number of voxels.
    """

    case: str
    findings: list[Finding] = field(default_factory=list)
    geometry: Geometry | None = None
    voxel_hash: str | None = None
    ranges: tuple[tuple[float, float], ...] = ()
    doubts: tuple[str, ...] = ()
    values: dict[int, int] = field(default_factory=dict)


def inspect_case(item: CaseItem) -> CaseFacts:
    """Reads every file of a case and says what is wrong with each; a bad file does not stop the look at the others."""
    return _Look(item).facts()


class _Look:
    """One pass over a case's files, collecting findings."""

    def __init__(self, item: CaseItem) -> None:
        self.item, self.case = item, item.case
        self.result = CaseFacts(self.case.id)

    def facts(self) -> CaseFacts:
        hashes, n_channels, complete = [], 0, bool(self.case.images)
        for index, path in enumerate(self.case.images):
            image = self._image(index, path)
            complete = complete and image is not None
            if image is not None:
                n_channels += len(image)
                hashes.append(_hash(image))
        if complete:
            self._channels(n_channels, hashes)
        if self.case.label is not None:
            self._label(self.case.label)
        elif not self.item.is_test:
            self.add(None, "missing label", "no label is listed for it", "list one in dataset.json, or remove the case")
        constant = any(finding.kind == "constant image" for finding in self.result.findings)
        self.result.voxel_hash = " ".join(hashes) if complete and not constant else None
        return self.result

    def add(self, path: Path | None, kind: Kind, found: str, remedy: str, severity: Severity = "error") -> None:
        file = relative(self.item.root, path) if path else ""
        severity = "warning" if self.item.is_test else severity
        self.result.findings.append(
            Finding(case=self.case.id, file=file, kind=kind, found=found, remedy=remedy, severity=severity)
        )

    def _image(self, index: int, path: Path) -> Array | None:
        if not path.is_file():
            self.add(path, "missing image", "there is no such file", "put it there, or remove the case")
            return None
        try:
            image, geometry, doubts = inspect_image(path)
        except DataError as error:
            self._unreadable(path, error)
            return None
        self._values(path, image)
        if self.result.geometry is None:
            self.result.geometry, self.result.doubts = geometry, doubts
            self._thin(path, geometry)
        self._place(path, index, geometry)
        return image

    def _thin(self, path: Path, geometry: Geometry) -> None:
        thin = [name for name, size in zip("yx", geometry.shape[1:], strict=True) if size == 1]
        if thin:
            found = f"one voxel along {' and '.join(thin)}: shape {geometry.shape}"
            self.add(path, "thin axis", found, "check the order of the axes; store slices along z")

    def _unreadable(self, path: Path, error: DataError) -> None:
        kind: Any = error.kind if isinstance(error, FileProblem) else "unreadable"
        self.add(path, kind, error.found, error.remedy)

    def _values(self, path: Path, image: Array) -> None:
        for channel in image:
            if channel.dtype.kind == "f":
                finite = np.isfinite(channel) & (np.abs(channel) <= np.finfo(np.float32).max)
                if not finite.all():
                    self._not_finite(path, channel, int(np.count_nonzero(~finite)))
                    self.result.ranges += ((float("nan"), float("nan")),)
                    continue
            low, high = float(channel.min()), float(channel.max())
            self.result.ranges += ((low, high),)
            if low == high:
                found = "all voxels are 0" if low == 0 else f"all voxels have the value {low:g}"
                self.add(path, "constant image", found, "export the image again, or remove the case")

    def _not_finite(self, path: Path, channel: Array, count: int) -> None:
        nan, infinite = int(np.isnan(channel).sum()), int(np.isinf(channel).sum())
        too_large = count - nan - infinite
        parts = [
            f"{n} {what}" for n, what in ((nan, "NaN"), (infinite, "infinite"), (too_large, "beyond float32")) if n
        ]
        found = f"{', '.join(parts)} of {channel.size} voxels"
        self.add(path, "not finite", found, "replace them, for example by the value of the background")

    def _channels(self, n_channels: int, hashes: list[str]) -> None:
        wanted = self.item.n_channels
        if n_channels != wanted:
            names = ", ".join(path.name for path in self.case.images)
            found = f"{n_channels} channels in {names}, but {wanted} in channel_names"
            self.add(self.case.images[0], "channels", found, "add the missing channel files, or mend channel_names")
        elif len(set(hashes)) < len(hashes):
            found = "two channels hold the same voxels"
            self.add(self.case.images[0], "duplicate channel", found, "check which files were exported", "warning")

    def _label(self, path: Path) -> None:
        if not path.is_file():
            self.add(path, "missing label", "there is no such file", "put the label there, or remove the images")
            return
        try:
            label, geometry = read_label(path)
        except DataError as error:
            self._unreadable(path, error)
            return
        if self.result.geometry is not None:
            self._place(path, None, geometry)
        values, counts = np.unique(label, return_counts=True)
        self.result.values = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
        self._label_values(path, label.size)

    def _label_values(self, path: Path, n_voxels: int) -> None:
        schema, values = self.item.schema, self.result.values
        undeclared = [f"{value} ({count} voxels)" for value, count in values.items() if value not in schema.values]
        if undeclared:
            found = f"values {listed(undeclared, 8)} are not declared in dataset.json"
            remedy = "declare them in labels, or map them with: selfcfg convert folder"
            self.add(path, "label values", found, remedy)
        elif schema.ignore is not None and values.get(schema.ignore, 0) == n_voxels:
            self.add(path, "empty label", "every voxel is to be ignored", "annotate some of it, or remove the case")
        elif not any(value in schema.foreground_values for value in values):
            found = "no voxel of any class"
            self.add(path, "empty label", found, "keep it only if the image truly shows nothing", "warning")

    def _place(self, path: Path, channel: int | None, found: Geometry) -> None:
        """Compares a file's geometry with the first channel's, after recorded fixes."""
        reference = self.result.geometry
        geometry = self.item.fixes.corrected(self.case.id, channel, found)
        differences = geometry.differences(reference) if reference is not None else []
        if reference is None or not differences:
            return
        what = "label" if channel is None else f"channel {channel}"
        if geometry.shape == reference.shape and displacement(geometry, reference) < DRIFT and not self.item.is_test:
            text = f"its header differs a little from the first channel's: {', '.join(differences)}"
            self.add(path, "geometry drift", text, "record it as rounding with: selfcfg check --fix")
            return
        for difference in differences:
            kind: Any = f"{difference.partition(' ')[0]} mismatch"
            text = f"{difference} of {what} and first channel"
            self.add(path, kind, text, "export both from the same grid, or resample one onto the other")


def relative(root: Path, path: Path) -> str:
    """The path within the dataset; the whole path where it lies outside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _hash(image: Array) -> str:
    """A hash of the voxels, the same for the same numbers in another integer or float type."""
    digest = hashlib.blake2b(str(image.shape).encode(), digest_size=16)
    for channel in image:
        voxels: Any = np.ascontiguousarray(channel, dtype=np.float32)
        digest.update(voxels)
    return digest.hexdigest()
