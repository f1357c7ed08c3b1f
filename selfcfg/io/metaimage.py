"""NRRD and MetaImage (.mha): headers that are understood or refused, and voxels that are all there.

ITK's parsers of these headers write outside of their memory where a header is odd enough (found by fuzzing). So they
are given none of it: a header is read here, every field by its form, and ITK, whose rules for orientation hold, sees
one that is made anew of what was understood.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfcfg.io.inflate import GZIP, ZLIB, inflate
from selfcfg.io.problems import COPY_AGAIN, FileProblem, Unsupported

HEADER_LIMIT = 1 << 20
"""Bytes at the beginning of a file in which its header ends."""

_LONGEST_NUMBER = 40
"""Characters of a number in a header (our choice: real ones have half)."""

_NUMBER = re.compile(r"[-+]?((\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?|nan|inf)", re.ASCII | re.IGNORECASE)
_VECTOR = re.compile(r"none|\([^()]*\)")
_WORD = re.compile(r"[A-Za-z0-9?*-]{1,40}", re.ASCII)
_NOTE = re.compile(r"[^:]*:=")
"""How a line of an NRRD begins that says something of the user's own."""

_NRRD_TYPES = {
    "int8": "signed char, int8, int8_t",
    "uint8": "uchar, unsigned char, uint8, uint8_t",
    "int16": "short, short int, signed short, signed short int, int16, int16_t",
    "uint16": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "int32": "int, signed int, int32, int32_t",
    "uint32": "uint, unsigned int, uint32, uint32_t",
    "int64": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "uint64": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "float32": "float",
    "float64": "double",
}
_META_TYPES = {
    "MET_CHAR": "int8",
    "MET_UCHAR": "uint8",
    "MET_SHORT": "int16",
    "MET_USHORT": "uint16",
    "MET_INT": "int32",
    "MET_UINT": "uint32",
    "MET_LONG": "int32",
    "MET_ULONG": "uint32",
    "MET_LONG_LONG": "int64",
    "MET_ULONG_LONG": "uint64",
    "MET_FLOAT": "float32",
    "MET_DOUBLE": "float64",
}
_NRRD_SPACE = ("space", "space dimension")
_NRRD_NUMBERS = ("spacings", "axis mins", "axis maxs")
_NRRD_WORDS = ("centerings", "kinds")
_NRRD_ALIKE = {
    "datafile": "data file",
    "lineskip": "line skip",
    "byteskip": "byte skip",
    "axismins": "axis mins",
    "axismaxs": "axis maxs",
    "centers": "centerings",
}
_DOMAIN = ("domain", "space", "time", "???", "none")
"""Kinds of NRRD axes along which an image extends; along any other lie the numbers of one voxel."""

_META_VECTORS = ("ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation")
_META_MATRICES = ("TransformMatrix", "Orientation", "Rotation")
_META_READ = frozenset(
    [
        *("ElementDataFile", "HeaderSize", "ElementType", "DimSize", "NDims", "ElementNumberOfChannels"),
        *("BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData", "BinaryData", "AnatomicalOrientation"),
        *(*_META_VECTORS, *_META_MATRICES),
    ]
)
"""Keys that say where voxels are or what they mean; any other is a note of the user's own, which nothing here reads."""


@dataclass(frozen=True)
class Volume:
    """What a header says.

    Args:
        start: first byte of the voxels.
        encoding: "raw", "gzip", "zlib" or "text".
        dtype: of a number, in the file's byte order.
        sizes: of all axes, the fastest first.
        component_axis: which of them holds the numbers of one voxel, or None.
        canonical: a header that says the same of the geometry, for ITK.
    """

    start: int
    encoding: str
    dtype: np.dtype[Any]
    sizes: tuple[int, ...]
    component_axis: int | None
    canonical: str

    @property
    def spatial(self) -> tuple[int, ...]:
        """The sizes of the axes along which the image extends."""
        return tuple(size for axis, size in enumerate(self.sizes) if axis != self.component_axis)


def read_header(path: Path, content: bytes) -> Volume:
    """What the header at the beginning of an NRRD or .mha file says.

    Raises:
        FileProblem: not of this format, or a header that cannot be understood.
    """
    return _nrrd(path, content) if path.name.lower().endswith(".nrrd") else _meta(path, content)


def read_voxels(path: Path, content: bytes) -> tuple[NDArray[Any], Volume]:
    """The numbers of a file, its slowest axis first, and its header; checksums and length were compared with that.

    Raises:
        FileProblem: damaged, cut short, longer than its header says, or not of this format.
    """
    volume = read_header(path, content)
    count = math.prod(volume.sizes)
    stored = memoryview(content)[volume.start :]
    if volume.encoding == "text":
        values = _spelt(path, bytes(stored), count, volume.dtype)
    else:
        size = count * volume.dtype.itemsize
        if volume.encoding == "raw":
            if len(stored) != size:
                found = f"it holds {len(stored)} bytes where its header promises {size}"
                raise FileProblem(f"read {path}", found, COPY_AGAIN)
            data = bytearray(stored)
        else:
            data = inflate(path, bytes(stored), size, GZIP if volume.encoding == "gzip" else ZLIB)
        values = np.frombuffer(data, volume.dtype)
    native = values.astype(volume.dtype.newbyteorder("="), copy=False)
    return native.reshape(volume.sizes[::-1]), volume


def _spelt(path: Path, stored: bytes, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers that are spelt out."""
    words = stored.split()
    if len(words) != count:
        raise FileProblem(f"read {path}", f"{len(words)} numbers where its header promises {count}", COPY_AGAIN)
    if not all(len(word) <= _LONGEST_NUMBER and _NUMBER.fullmatch(word.decode("latin-1")) for word in words):
        raise FileProblem(f"read {path}", "what should be numbers is none", COPY_AGAIN)
    if dtype.kind == "f":
        return np.array([float(word) for word in words], dtype)
    numbers = [int(word) for word in words]
    limits = np.iinfo(dtype)
    if numbers and not limits.min <= min(numbers) <= max(numbers) <= limits.max:
        raise FileProblem(f"read {path}", f"numbers from {min(numbers)} to {max(numbers)} as {dtype}", COPY_AGAIN)
    return np.array(numbers, dtype)


def _nrrd(path: Path, content: bytes) -> Volume:
    if not content.startswith(b"NRRD"):
        raise FileProblem(f"read {path}", "not an NRRD file", "check what the file is, and its suffix")
    ends = [(content.find(mark, 0, HEADER_LIMIT), len(mark)) for mark in (b"\n\n", b"\r\n\r\n")]
    place, width = min(((at, width) for at, width in ends if at >= 0), default=(-1, 0))
    if place < 0:
        raise FileProblem(f"read {path}", "its header does not end", COPY_AGAIN)
    fields = _nrrd_fields(path, content[:place].decode("latin-1"))
    if "data file" in fields:
        raise Unsupported(f"read {path}", "its voxels are in another file", "store header and voxels in one file")
    if any(fields.get(key, "0") != "0" for key in ("line skip", "byte skip")):
        raise Unsupported(f"read {path}", "bytes are to be skipped before its voxels", "store it without")
    types = {name: dtype for dtype, names in _NRRD_TYPES.items() for name in names.split(", ")}
    encodings = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "text": "text", "txt": "text", "ascii": "text"}
    kind, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    if kind not in types or encoding not in encodings:
        raise Unsupported(f"read {path}", f"type '{kind[:40]}', encoding '{encoding[:40]}'", "store it as gzip or raw")
    sizes = _sizes(path, fields.get("sizes", ""))
    dtype = np.dtype(types[kind])
    if dtype.itemsize > 1 and encodings[encoding] != "text":
        if (order := fields.get("endian", "").lower()) not in ("little", "big"):
            raise FileProblem(f"read {path}", f"its byte order is '{order[:40]}'", COPY_AGAIN)
        dtype = dtype.newbyteorder("<" if order == "little" else ">")
    names = [name.lower() for name in fields.get("kinds", "").split()]
    along = [axis for axis, name in enumerate(names) if name not in _DOMAIN]
    if len(along) > 1:
        raise Unsupported(f"read {path}", f"axes {' '.join(names)[:60]}", "store one axis of channels at most")
    canonical = "\n".join(["NRRD0005", "type: uint8", *_nrrd_geometry(path, fields, len(sizes)), "encoding: raw"])
    return Volume(
        start=place + width,
        encoding=encodings[encoding],
        dtype=dtype,
        sizes=tuple(sizes),
        component_axis=along[0] if along else None,
        canonical=canonical + "\n\n",
    )


def _nrrd_fields(path: Path, header: str) -> dict[str, str]:
    lines = re.split(r"\r?\n", header)
    if not re.fullmatch(r"NRRD000[1-5]", lines[0].strip()):
        raise FileProblem(f"read {path}", f"it begins with {lines[0][:20]!a}", COPY_AGAIN)
    fields: dict[str, str] = {}
    for line in lines[1:]:
        if line.startswith("#") or _NOTE.match(line):
            continue
        key, mark, value = (part.strip() for part in line.partition(":"))
        if not mark:
            raise FileProblem(f"read {path}", f"'{line[:40]}' in its header is no field", COPY_AGAIN)
        _note(path, fields, _NRRD_ALIKE.get(key.lower(), key.lower()), value)
    return fields


def _nrrd_geometry(path: Path, fields: dict[str, str], axes: int) -> Iterator[str]:
    """The lines of a header that say where an image lies, each of the form that it should have."""
    if fields.get("dimension", str(axes)) != str(axes) or not 2 <= axes <= 5:
        raise Unsupported(f"read {path}", f"{axes} axes", "store two or three axes, or a fourth for channels")
    yield f"dimension: {axes}"
    for key in _NRRD_SPACE:
        if key in fields:
            yield f"{key}: {_words(path, key, fields[key], 1)}"
    yield f"sizes: {_numbers(path, 'sizes', fields['sizes'], axes)}"
    for key in _NRRD_NUMBERS:
        if key in fields:
            yield f"{key}: {_numbers(path, key, fields[key], axes)}"
    for key in _NRRD_WORDS:
        if key in fields:
            yield f"{key}: {_words(path, key, fields[key], axes)}"
    for key, count in (("space directions", axes), ("space origin", 1)):
        if key in fields:
            yield f"{key}: {_vectors(path, key, fields[key], count)}"


def _vectors(path: Path, key: str, text: str, count: int) -> str:
    """Vectors in brackets, or "none", with single spaces between them."""
    found = _VECTOR.findall(text)
    if len(found) != count or _VECTOR.sub("", text).strip():
        raise _odd(path, key, text)
    plain = []
    for vector in found:
        inner = vector.strip("()").split(",")
        wanted = vector if vector == "none" else ",".join(_numbers(path, key, part, 1) for part in inner)
        plain.append(wanted if vector == "none" else f"({wanted})")
    return " ".join(plain)


def _meta(path: Path, content: bytes) -> Volume:
    fields: dict[str, str] = {}
    at = 0
    while "ElementDataFile" not in fields:
        end = content.find(b"\n", at, HEADER_LIMIT)
        line = content[at : max(end, at)].decode("latin-1")
        key, mark, value = (part.strip() for part in line.partition("="))
        if end < 0 or (line.strip() and not mark):
            raise FileProblem(f"read {path}", "not a MetaImage file, or its header does not end", COPY_AGAIN)
        if key in _META_READ:
            _note(path, fields, key, value)
        at = end + 1
    if fields["ElementDataFile"].upper() != "LOCAL":
        raise Unsupported(f"read {path}", "its voxels are in another file", "store header and voxels in one .mha file")
    if fields.get("HeaderSize", "0") not in ("0", "-1"):
        raise Unsupported(f"read {path}", "bytes are to be skipped before its voxels", "store it without")
    kind = fields.get("ElementType", "")
    if kind not in _META_TYPES:
        raise Unsupported(f"read {path}", f"ElementType '{kind[:40]}'", "store whole numbers or 32-bit floats")
    sizes = _sizes(path, fields.get("DimSize", ""))
    samples = _sizes(path, fields.get("ElementNumberOfChannels", "1"))[0]
    order = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")).lower()
    compressed, binary = (
        fields.get(key, said).lower() for key, said in (("CompressedData", "no"), ("BinaryData", "1"))
    )
    yes = ("true", "1", "yes", "t", "y")
    return Volume(
        start=at,
        encoding="text" if binary not in yes else "zlib" if compressed in yes else "raw",
        dtype=np.dtype(_META_TYPES[kind]).newbyteorder(">" if order in yes else "<"),
        sizes=tuple(sizes) if samples == 1 else (samples, *sizes),
        component_axis=None if samples == 1 else 0,
        canonical="\n".join(_meta_geometry(path, fields, len(sizes), samples)) + "\n",
    )


def _meta_geometry(path: Path, fields: dict[str, str], axes: int, samples: int) -> Iterator[str]:
    if fields.get("NDims") != str(axes) or not 2 <= axes <= 4:
        raise Unsupported(f"read {path}", f"{axes} axes", "store two or three axes, or a fourth for channels")
    yield from ("ObjectType = Image", f"NDims = {axes}", "BinaryData = True", "BinaryDataByteOrderMSB = False")
    for key, value in fields.items():
        if key in _META_VECTORS:
            yield f"{key} = {_numbers(path, key, value, axes)}"
        elif key in _META_MATRICES:
            yield f"{key} = {_numbers(path, key, value, axes * axes)}"
        elif key == "AnatomicalOrientation":
            yield f"{key} = {_words(path, key, value, 1)}"
    yield f"DimSize = {_numbers(path, 'DimSize', fields['DimSize'], axes)}"
    yield from (f"ElementNumberOfChannels = {samples}", "ElementType = MET_UCHAR", "ElementDataFile = LOCAL")


def _note(path: Path, fields: dict[str, str], key: str, value: str) -> None:
    """Adds a field of a header; of one that stands there twice, readers take either."""
    if key in fields:
        raise FileProblem(f"read {path}", f"'{key[:40]}' stands twice in its header", COPY_AGAIN)
    fields[key] = value


def _numbers(path: Path, key: str, text: str, count: int) -> str:
    """So many numbers, with single spaces between them."""
    words = text.split()
    if len(words) != count or not all(len(one) <= _LONGEST_NUMBER and _NUMBER.fullmatch(one) for one in words):
        raise _odd(path, key, text)
    return " ".join(words)


def _words(path: Path, key: str, text: str, count: int) -> str:
    """So many plain words, with single spaces between them."""
    words = text.split()
    if len(words) != count or not all(map(_WORD.fullmatch, words)):
        raise _odd(path, key, text)
    return " ".join(words)


def _sizes(path: Path, text: str) -> list[int]:
    words = text.split()
    if not words or not all(re.fullmatch(r"0*[1-9][0-9]{0,9}", word) for word in words):
        raise FileProblem(f"read {path}", f"sizes '{text[:60]}'", COPY_AGAIN)
    return [int(word) for word in words]


def _odd(path: Path, key: str, text: str) -> FileProblem:
    return FileProblem(f"read {path}", f"'{key[:40]}' in its header is '{text[:60]}'", COPY_AGAIN)
