"""Preprocessed cases on disk: one folder a case, compressed in blocks so that a patch is read without the rest.

A case's folder is made under a temporary name and renamed when it is whole and was read back; whatever else lies in
the store is left over from a process that was killed. Arrays are not forced onto the disk, which would cost more than
making them: case.json is, and it holds their sizes, so what a power failure cut short is seen and made again.
Nothing is pickled.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.data.stored_array import StoredArray, checksum, damaged, refuse_changed, write_array
from selfcfg.errors import DataError, SelfcfgError, nearest
from selfcfg.geometry import Geometry, Shape, Vector
from selfcfg.image_files import is_case_name
from selfcfg.locks import Held, locked
from selfcfg.records import Record

IMAGE, LABEL, LOCATIONS, CASE = "image.b2nd", "label.b2nd", "locations.npz", "case.json"

ANNOTATED = "annotated"
"""Key of `StoredCase.locations` for the voxels that hold a label other than ignore."""

_LARGEST_HALF = 60_000.0

Span = tuple[int, int]


class CaseInfo(Record):
    """What was done to a case, so that a prediction can be brought back onto its image.

    Args:
        case: its id.
        geometry: of its file.
        box: (start, stop) of the crop along each axis, in the plan's axis order.
        cropped_shape: voxels after cropping, in the plan's axis order.
        shape: voxels after resampling, in the plan's axis order.
        spacing: of the file in mm, in the plan's axis order.
        axis_order: array axes (z, y, x) of the file in the plan's order.
        source: hash of the files it was read from; empty when it came from memory.
    """

    case: str
    geometry: Geometry
    box: tuple[Span, Span, Span]
    cropped_shape: Shape
    shape: Shape
    spacing: Vector
    axis_order: tuple[int, int, int]
    source: str = ""

    @classmethod
    def unchanged(cls, case: str, geometry: Geometry, source: str = "") -> Self:
        """Of a case to which nothing was done: not cropped, not resampled, its axes in the file's order."""
        z, y, x = geometry.shape
        return cls(
            case=case, geometry=geometry, box=((0, z), (0, y), (0, x)), cropped_shape=(z, y, x), shape=(z, y, x),
            spacing=geometry.spacing, axis_order=(0, 1, 2), source=source,
        )  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A case as a network sees it.

    Args:
        image: float32 (C, Z, Y, X), normalised, axes in the plan's order.
        label: int16 (Z, Y, X), -1 outside the non-zero mask; None where the case has none.
        info: what was done to it.
        first: the same case as the network of the stage before sees it, in a cascade whose result is not known yet.
    """

    image: NDArray[np.float32]
    label: NDArray[np.int16] | None
    info: CaseInfo
    first: Prepared | None = None


class FileState(Record):
    """Size in bytes and time of the last change in ns of a file, which tell whether it has to be looked at again."""

    name: str
    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The state of a file now."""
        found = path.stat()
        return cls(name=path.name, size=found.st_size, changed=found.st_mtime_ns)


class StoredInfo(Record):
    """The content of case.json.

    Args:
        info: what was done to the case.
        inputs: the files it was made from, as they were.
        sizes: bytes of each file beside case.json.
        checksums: CRC-32 of those that have none within.
    """

    info: CaseInfo
    inputs: tuple[FileState, ...] = ()
    sizes: dict[str, int]
    checksums: dict[str, int] = {}


class StoredCase:
    """One preprocessed case: `image` (C, Z, Y, X) float32 and `label` (Z, Y, X) int16 or None, read by slicing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def image(self) -> StoredArray:
        """The image; its file is compared with its checksum, the first time in a process."""
        return self._array(IMAGE, np.float32)

    @cached_property
    def label(self) -> StoredArray | None:
        """The label map, likewise."""
        return self._array(LABEL, np.int16) if (self.folder / LABEL).is_file() else None

    def _array(self, name: str, dtype: type[np.generic]) -> StoredArray:
        refuse_changed(self.folder / name, self._notes.checksums.get(name))
        return StoredArray(self.folder / name, dtype)

    @cached_property
    def _notes(self) -> StoredInfo:
        return StoredInfo.read(self.folder / CASE)

    @cached_property
    def info(self) -> CaseInfo:
        """What was done to the case."""
        return self._notes.info

    @cached_property
    def locations(self) -> Mapping[str, NDArray[Any]]:
        """Flat indices (C order) into the label of sampled voxels of each target; empty for a target it lacks."""
        try:
            with np.load(self.folder / LOCATIONS, allow_pickle=False) as stored:
                indices, ends = stored["indices"], stored["ends"].tolist()
                spans = zip([0, *ends], ends, strict=False)
                return {name: indices[slice(*span)] for name, span in zip(stored["names"].tolist(), spans, strict=True)}
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise damaged(self.folder / LOCATIONS) from error


class Store:
    """A folder of preprocessed cases, all made by the same configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cases(self) -> tuple[str, ...]:
        """The ids of the cases it holds, sorted."""
        found = (file.parent.name for file in self.folder.glob(f"*/{CASE}"))
        return tuple(sorted(name for name in found if not name.startswith(".")))

    def open(self, case: str) -> StoredCase:
        """A case to read from; nothing is read yet.

        Raises:
            DataError: the store does not hold it.
        """
        folder = self._place(case)
        if not (folder / CASE).is_file():
            hint = nearest(case, self.cases()[:20])
            raise DataError(
                f"open case '{case}' of {self.folder}", "it is not there", f"run: selfcfg preprocess ({hint})"
            )
        return StoredCase(folder)

    def stored_info(self, case: str) -> StoredInfo | None:
        """What is noted about a case; None where it is absent, damaged or incomplete."""
        folder = self._place(case)
        try:
            found = StoredInfo.read(folder / CASE)
            whole = all((folder / name).stat().st_size == size for name, size in found.sizes.items())
        except (DataError, OSError):
            return None
        return found if whole else None

    def write(
        self,
        prepared: Prepared,
        locations: Mapping[str, NDArray[Any]],
        *,
        inputs: Sequence[FileState] = (),
        patch: Sequence[int] | None = None,
        half: bool = False,
    ) -> None:
        """Stores a case in place of what was there, whole or not at all.

        Args:
            prepared: the case.
            locations: see `StoredCase.locations`.
            inputs: the files it was made from.
            patch: voxels of the patches that will be read, which the blocks are fitted to.
            half: store the image as float16, in half the space; values are then exact to 0.05 %.

        Raises:
            SelfcfgError: the disk refused the bytes, or they do not read back as they were written.
        """
        target = self._place(prepared.info.case)
        with self._temporary(prepared.info.case) as folder:
            image: NDArray[Any] = prepared.image
            if half and float(np.abs(image).max()) < _LARGEST_HALF:
                image = image.astype(np.float16)
            write_array(folder / IMAGE, image, patch)
            if prepared.label is not None:
                write_array(folder / LABEL, prepared.label, patch)
            _write_locations(folder / LOCATIONS, locations)
            sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
            checksums = {name: checksum(folder / name) for name in (IMAGE, LABEL) if name in sizes}
            notes = StoredInfo(info=prepared.info, inputs=tuple(inputs), sizes=sizes, checksums=checksums)
            notes.write(folder / CASE)
            if target.exists():
                old = self._temporary_name(prepared.info.case)
                target.rename(old)
                folder.rename(target)
                shutil.rmtree(old, ignore_errors=True)
            else:
                folder.rename(target)

    def renew(self, case: str, inputs: Sequence[FileState]) -> None:
        """Notes that a case still belongs to its files, whose dates alone have changed."""
        if found := self.stored_info(case):
            found.model_copy(update={"inputs": tuple(inputs)}).write(self._place(case) / CASE)

    @contextmanager
    def claim(self, case: str, *, wait: bool) -> Iterator[bool]:
        """Keeps other processes off a case, and clears what a killed one left of it; yields whether that was possible.

        Args:
            case: its id.
            wait: whether to wait for a process that is at work on it; else the answer is then False.
        """
        self._place(case)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / ".locks" / f"{case}.lock", None if wait else 0))
            except Held:
                yield False
                return
            for leftover in self.folder.glob(f".tmp-????????-{escape(case)}"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield True

    def make_ready(self) -> None:
        """Makes the folder, or clears it of what killed processes left, except where another process is at work.

        Raises:
            SelfcfgError: the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(self.folder, str(error)) from error
        for leftover in self.folder.glob(".tmp-????????-*"):
            with self.claim(leftover.name[len(".tmp-????????-") :], wait=False):
                pass

    def _place(self, case: str) -> Path:
        if not is_case_name(case):
            raise DataError(f"case '{case}'", "its id cannot be a folder name", "rename its files")
        return self.folder / case

    def _temporary_name(self, case: str) -> Path:
        return self.folder / f".tmp-{uuid.uuid4().hex[:8]}-{case}"

    @contextmanager
    def _temporary(self, case: str) -> Iterator[Path]:
        folder = self._temporary_name(case)
        try:
            folder.mkdir(parents=True)
            yield folder
        except OSError as error:
            raise _refused(self.folder / case, str(error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _write_locations(path: Path, locations: Mapping[str, NDArray[Any]]) -> None:
    none = np.empty(0, np.uint32)
    with path.open("wb") as stream:
        np.savez(
            stream,
            names=np.array(list(locations), dtype=str),
            ends=np.cumsum([len(part) for part in locations.values()], dtype=np.uint64),
            indices=np.concatenate([none, *locations.values()]),
        )


def _refused(path: Path, found: str) -> SelfcfgError:
    free = ""
    if (existing := next((place for place in path.parents if place.exists()), None)) is not None:
        free = f" ({shutil.disk_usage(existing).free / 2**30:.1f} GB free there)"
    return SelfcfgError(f"write {path}", found + free, "free some space or choose another workspace, then run it again")
