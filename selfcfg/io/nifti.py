"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped: decoded once, from bytes that were verified to the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import isal_zlib

from selfcfg.files import replacing
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io.inflate import GZIP, inflate, inflate_start, is_gzip
from selfcfg.io.problems import COPY_AGAIN, BadSpacing, FileProblem, Unsupported
from selfcfg.io.world import checked_geometry

_HEADER_BYTES = 540
_SHORT = 348
_MAX_NIFTI1_SIDE = 32767

_UNITS_TO_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""The spatial part of xyzt_units: metre, millimetre, micrometre; anything else is taken as millimetres."""

_COLOURS = {128: 3, 2304: 4}
"""Data type codes of RGB24 and RGBA32."""

_REAL = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}
"""Data type codes of integers of 8 to 64 bits and of floats of 32 and 64 bits."""

_SCANNER = 1

_LEVEL = 2
"""Of ISA-L's compression: files as large as zlib's fastest makes them, five times as fast for CT."""

_Nifti1: Any = nib.Nifti1Header
_Nifti2: Any = nib.Nifti2Header

Array = np.ndarray[Any, Any]
Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Header:
    """What a NIfTI header says.

    Args:
        dims: voxels along x, y, z and the further axes, trailing ones of size 1 kept.
        dtype: of one stored number, in the file's byte order.
        samples: numbers a voxel: 1, or 3 or 4 for colours.
        offset: first byte of the voxels.
        slope: stored numbers are multiplied by this ...
        intercept: ... and this is added.
        geometry: where the image lies.
        doubts: what looks suspicious although it can be read, in words.
    """

    dims: tuple[int, ...]
    dtype: np.dtype[Any]
    samples: int
    offset: int
    slope: float
    intercept: float
    geometry: Geometry
    doubts: tuple[str, ...]

    @property
    def channels(self) -> int:
        """Channels of the image: the fourth axis, or the colours."""
        return math.prod(self.dims[3:]) * self.samples

    @property
    def n_bytes(self) -> int:
        """Size of the whole file, decompressed."""
        return self.offset + math.prod(self.dims) * self.samples * self.dtype.itemsize


def read_header(path: Path) -> Header:
    """The header of a NIfTI file; no voxel is decoded.

    Raises:
        FileProblem: not NIfTI, or a header that cannot be true.
    """
    return _parse(path, inflate_start(path, _HEADER_BYTES))


def read(path: Path) -> tuple[Array, Header]:
    """The image (C, Z, Y, X) with scl_slope and scl_inter applied, and its header.

    Raises:
        FileProblem: the file is damaged, cut short, longer than its header says, or not NIfTI.
    """
    header = read_header(path)
    content = path.read_bytes()
    if is_gzip(content):
        data = inflate(path, content, header.n_bytes)
    else:
        if len(content) != header.n_bytes:
            found = f"it holds {len(content)} bytes where its header promises {header.n_bytes}"
            raise FileProblem(f"read {path}", found, COPY_AGAIN)
        data = bytearray(content)
    del content
    stored = np.frombuffer(data, header.dtype, offset=header.offset)
    z, y, x = header.geometry.shape
    if header.samples > 1:
        image = np.ascontiguousarray(np.moveaxis(stored.reshape(z, y, x, header.samples), -1, 0))
    else:
        image = stored.reshape(header.channels, z, y, x)
    return _scaled(image, header), header


def write(path: Path, image: Array, geometry: Geometry) -> None:
    """Writes a volume (Z, Y, X), qform and sform both set, gzipped where the name ends in .gz.

    The same voxels always give the same bytes.
    """
    z, y, x = geometry.shape
    dims = (x, y) if geometry.dimensions == 2 else (x, y, z)
    spacing = geometry.spacing[::-1][: len(dims)]
    kind = _Nifti1 if max(dims) <= _MAX_NIFTI1_SIDE else _Nifti2
    header = kind()
    stored = _storable(image)
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(dims)
    affine = _to_affine(geometry)
    header.set_sform(affine, _SCANNER)
    header.set_qform(affine, _SCANNER)
    header.set_zooms(spacing)
    header.set_xyzt_units("mm")
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    start = BytesIO()
    header.write_to(start)
    start.write(bytes(header.single_vox_offset - start.tell()))
    voxels: Any = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        if not path.name.endswith(".gz"):
            stream.write(start.getvalue())
            stream.write(voxels)
            return
        for part in _packing(start.getvalue(), voxels):
            stream.write(part)


def packed(content: bytes) -> bytes:
    """A whole file, gzipped as `write` does."""
    return b"".join(_packing(content))


def _packing(*parts: Any) -> Iterator[bytes]:
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, GZIP)
    for part in parts:
        yield compressor.compress(part)
    yield compressor.flush()


def _storable(image: Array) -> Array:
    """The same values in a type that NIfTI has, little-endian."""
    if image.dtype == np.bool_:
        return image.astype(np.uint8)
    if image.dtype == np.float16:
        return image.astype("<f4")
    return image.astype(image.dtype.newbyteorder("<"), copy=False)


def _scaled(image: Array, header: Header) -> Array:
    image = image.astype(header.dtype.newbyteorder("="), copy=False)
    if (header.slope, header.intercept) == (1.0, 0.0):
        return image
    precise = image.dtype.itemsize >= 4 and image.dtype != np.float32
    scaled: Array = image.astype(np.float64 if precise else np.float32)
    scaled *= header.slope
    scaled += header.intercept
    return scaled


def raw_header(path: Path, content: bytes) -> Any:
    """The header at the beginning of a file as nibabel has it: fields by name, in the file's byte order.

    Raises:
        FileProblem: it begins with no NIfTI header.
    """
    sizes = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
    kind = _Nifti1 if _SHORT in sizes else _Nifti2 if _HEADER_BYTES in sizes else None
    if kind is None:
        raise FileProblem(f"read {path}", "not a NIfTI file", "check what the file is, and its suffix")
    return kind(content[: kind.template_dtype.itemsize], check=False)


def _parse(path: Path, block: bytes) -> Header:
    if len(block) < _SHORT:
        raise FileProblem(f"read {path}", f"only {len(block)} bytes, too few for a NIfTI header", COPY_AGAIN)
    raw = raw_header(path, block)
    kind = type(raw)
    if bytes(raw["magic"])[:3] != kind.single_magic[:3]:
        raise FileProblem(f"read {path}", "not a NIfTI file with header and voxels in one", "convert it to .nii.gz")
    dims = _dims(path, raw)
    code = int(raw["datatype"])
    if code not in _REAL and code not in _COLOURS:
        raise Unsupported(f"read {path}", f"voxels of NIfTI data type {code}", "store whole numbers or 32-bit floats")
    dtype = np.dtype(np.uint8) if code in _COLOURS else raw.get_data_dtype()
    slope, intercept = (float(raw[key]) for key in ("scl_slope", "scl_inter"))
    geometry, doubts = _geometry(path, raw, dims)
    return Header(
        dims=dims,
        dtype=dtype,
        samples=_COLOURS.get(code, 1),
        offset=int(raw["vox_offset"]) or kind.single_vox_offset,
        slope=slope if math.isfinite(slope) and slope != 0 else 1.0,
        intercept=intercept if math.isfinite(intercept) and math.isfinite(slope) and slope != 0 else 0.0,
        geometry=geometry,
        doubts=doubts,
    )


def _dims(path: Path, raw: Any) -> tuple[int, ...]:
    n_axes = int(raw["dim"][0])
    if not 2 <= n_axes <= 7:
        raise FileProblem(f"read {path}", f"{n_axes} axes", "store two or three axes, or a fourth for channels")
    dims = tuple(int(size) for size in raw["dim"][1 : n_axes + 1])
    if min(dims) < 1:
        raise FileProblem(f"read {path}", f"an axis without voxels: {dims}", COPY_AGAIN)
    if sum(size > 1 for size in dims[3:]) > 1 or (int(raw["datatype"]) in _COLOURS and math.prod(dims[3:]) > 1):
        raise Unsupported(f"read {path}", f"more than one axis besides x, y, z: {dims}", "store one file a channel")
    return dims


def _geometry(path: Path, raw: Any, dims: tuple[int, ...]) -> tuple[Geometry, tuple[str, ...]]:
    """Spacing from pixdim, place and direction from sform or qform by ITK's rule of preference.

    Source: InsightToolkit 5.4, NiftiImageIO::SetImageIOOrientationFromNIfTI.
    """
    flat = len(dims) == 2
    unit = _UNITS_TO_MM.get(int(raw["xyzt_units"]) & 7, 1.0)
    sides = [abs(float(side)) * unit for side in raw["pixdim"][1:4]]
    if flat:
        sides[2] = FLAT_SPACING
    matrix, doubts = _choose(path, raw)
    if unit != 1.0:
        doubts.append("spacing is not stored in millimetres")
    if matrix is None:
        columns, origin = np.eye(3), np.zeros(3)
        doubts.append("neither qform nor sform is set, so nothing says where the patient's sides are")
    else:
        columns, origin = np.diag([-1.0, -1.0, 1.0]) @ matrix[:, :3], matrix[:, 3] * [-1.0, -1.0, 1.0]
        if flat and not columns[:, 2].any():
            columns[:, 2] = np.cross(columns[:, 0], columns[:, 1])
    geometry, sheared = checked_geometry(
        path, ((*dims, 1)[:3]), (sides[0], sides[1], sides[2]), origin, columns, dimensions=2 if flat else 3
    )
    return geometry, (*doubts, *sheared)


def _choose(path: Path, raw: Any) -> tuple[Matrix | None, list[str]]:
    """The RAS matrix (3, 4) to believe, in the file's own millimetres, and doubts about it."""
    qform = _qform(raw) if int(raw["qform_code"]) > 0 else None
    sform = (
        np.stack([raw["srow_x"], raw["srow_y"], raw["srow_z"]]).astype(float) if int(raw["sform_code"]) > 0 else None
    )
    doubts: list[str] = []
    for name, matrix in (("qform", qform), ("sform", sform)):
        if matrix is not None and not np.isfinite(matrix).all():
            raise BadSpacing(f"read {path}", f"its {name} is not a number", "set a correct qform or sform")
    if sform is None:
        return qform, doubts
    lengths, sides = np.linalg.norm(sform[:, :3], axis=0), np.abs(raw["pixdim"][1:4].astype(float))
    if int(raw["dim"][0]) > 2 and np.abs(lengths - sides).max() > 1e-3 * max(1.0, float(sides.max())):
        doubts.append(f"spacing is {_text(sides)} by pixdim, which is used, but {_text(lengths)} by sform")
    if qform is None:
        return sform, doubts
    if np.abs(qform - sform).max() > 1e-2:
        doubts.append("qform and sform say different places")
    units = sform[:, :3] / np.where(lengths > 0, lengths, 1)
    orthonormal = np.abs(units @ units.T - np.eye(3)).max() < 1e-4
    alike = np.abs(qform - sform).max() < 1e-4
    preferred = orthonormal and (int(raw["sform_code"]) == _SCANNER or alike)
    return (sform if preferred else qform), doubts


def _qform(raw: Any) -> Matrix:
    """The matrix (3, 4) of the quaternion, as the NIfTI-1 standard's method 2."""
    b, c, d = (float(raw[f"quatern_{name}"]) for name in "bcd")
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < 1e-7:
        length = math.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = math.sqrt(rest)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    sides = np.abs(raw["pixdim"][1:4].astype(float))
    sides = np.where(sides > 0, sides, 1.0)
    sides[2] *= -1.0 if float(raw["pixdim"][0]) < 0 else 1.0
    offsets = [[float(raw[f"qoffset_{name}"])] for name in "xyz"]
    return np.hstack([rotation * sides, offsets])


def _to_affine(geometry: Geometry) -> Matrix:
    """The RAS matrix (4, 4) of a geometry; the missing axis of a flat image counts 1 mm."""
    flip = np.diag([-1.0, -1.0, 1.0])
    sides = np.array(geometry.spacing[::-1])
    if geometry.dimensions == 2:
        sides[2] = 1.0
    affine = np.eye(4)
    affine[:3, :3] = flip @ np.array(geometry.direction).reshape(3, 3) * sides
    affine[:3, 3] = flip @ np.array(geometry.origin)
    return affine


def _text(values: Matrix) -> str:
    return "x".join(f"{value:g}" for value in values)
