"""One compressed array on disk, cut into blocks so that a part of it is read without the rest."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from selfcfg.errors import DataError

_BLOCK_VOXELS = 32 * 1024
"""Voxels in the smallest piece that is decompressed: 128 KiB of float32, which fits a core's second-level cache."""
_CHUNK_BLOCKS = (2, 4, 4)
"""Blocks along (z, y, x) that are written together."""


class StoredArray:
    """An array on disk of which any slice can be read; only the blocks it touches are decompressed.

    The file is opened for each read (0.1 ms), so thousands of cases need no open files and any process may read.
    """

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._path, self._dtype = path, dtype

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Its shape: (C, Z, Y, X) of an image, (Z, Y, X) of a label map."""
        return tuple(int(size) for size in self._open().shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        stored = self._open()
        try:
            return np.asarray(stored[key]).astype(self._dtype, copy=False)
        except RuntimeError as error:
            raise damaged(self._path) from error

    def _open(self) -> Any:
        import blosc2  # noqa: PLC0415 - prediction uses this module without ever opening a store

        memory_map = {} if os.name == "nt" else {"mmap_mode": "r"}
        try:
            return blosc2.open(str(self._path), mode="r", dparams={"nthreads": 1}, **memory_map)
        except (RuntimeError, OSError, ValueError) as error:
            raise damaged(self._path) from error


def write_array(path: Path, array: NDArray[Any], patch: Sequence[int] | None) -> None:
    """Stores an array of three axes or more in a new file, and reads it back to see that it is whole.

    LZ4 reads two to three times as fast as ZSTD and takes up to a third more space; one thread, since with more the
    bytes of the file vary from run to run.

    Args:
        path: the file.
        array: its last three axes are (Z, Y, X).
        patch: voxels of the patches that will be read, which the blocks are fitted to.

    Raises:
        OSError: the disk refused the bytes, or they do not read back as they were written.
    """
    import blosc2  # noqa: PLC0415

    lead = (1,) * (array.ndim - 3)
    block = (*lead, *_fitted(array.shape[-3:], patch))
    pieces = (*lead, *_CHUNK_BLOCKS)
    chunk = tuple(
        min(count * part, whole) for count, part, whole in zip(pieces, block, (*lead, *array.shape[-3:]), strict=True)
    )
    settings = {"codec": blosc2.Codec.LZ4, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    try:
        options = {"cparams": settings, "dparams": {"nthreads": 1}, "chunks": chunk, "blocks": block}
        blosc2.asarray(array, urlpath=str(path), mode="w", **options)
    except RuntimeError as error:
        raise OSError(f"the disk took only a part of {path.name}") from error
    _verify(path, array)


def checksum(path: Path) -> int:
    """The CRC-32 of a file's bytes, which any one changed bit changes; blosc2 keeps none.

    Measured: 57 MB take as long (7 ms) as reading a patch of 96 x 160 x 160 voxels from them.
    """
    found, block = 0, bytearray(1 << 20)
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(block):
            found = isal_zlib.crc32(memoryview(block)[:size], found)
    return found


def refuse_changed(path: Path, expected: int | None) -> None:
    """Nothing, where a file has the checksum it was written with; it is looked at once in a process.

    Raises:
        DataError: it has another, or is not there.
    """
    try:
        now = path.stat()
        state = str(path), now.st_size, now.st_mtime_ns
        if expected is None or state in _intact:
            return
        if checksum(path) != expected:
            raise damaged(path)
    except OSError as error:
        raise damaged(path) from error
    _intact.add(state)


_intact: set[tuple[str, int, int]] = set()
"""Name, size and time of the last change of files whose bytes were seen to be those that were written."""


def damaged(path: Path) -> DataError:
    """The error of a stored file that cannot be read."""
    return DataError(
        f"read {path}", "it is missing or damaged", f"delete {path.parent} and run selfcfg preprocess again"
    )


def _verify(path: Path, array: NDArray[Any]) -> None:
    stored = StoredArray(path, array.dtype.type)
    step = max(1, (1 << 22) // max(1, math.prod(array.shape[-2:])))
    try:
        good = stored.shape == array.shape and all(
            np.array_equal(stored[..., start : start + step, :, :], array[..., start : start + step, :, :])
            for start in range(0, array.shape[-3], step)
        )
    except DataError:
        good = False
    if not good:
        raise OSError(f"{path.name} does not read back as it was written")


def _fitted(shape: Sequence[int], patch: Sequence[int] | None) -> tuple[int, ...]:
    """A block in the proportions of the patch, of at most `_BLOCK_VOXELS`, that divides the image evenly."""
    wanted = tuple(shape) if patch is None else (*(1 for _ in range(3 - len(patch))), *patch)
    block = [min(size, whole) for size, whole in zip(wanted, shape, strict=True)]
    while math.prod(block) > _BLOCK_VOXELS:
        axis = max(range(3), key=lambda index: block[index] / wanted[index] if block[index] > 1 else 0.0)
        block[axis] = math.ceil(block[axis] / 2)
    return tuple(math.ceil(whole / math.ceil(whole / size)) for size, whole in zip(block, shape, strict=True))
