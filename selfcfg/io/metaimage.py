"""NRRD and MetaImage (.mha): whether the voxels that a header promises are all there, with right checksums."""

from __future__ import annotations

import bz2
import math
from dataclasses import dataclass
from pathlib import Path

from selfcfg.io.inflate import GZIP, ZLIB, inflate
from selfcfg.io.problems import COPY_AGAIN, FileProblem, Unsupported

_HEADER_LIMIT = 1 << 20

_NRRD_BYTES = {
    1: "signed char, int8, int8_t, uchar, unsigned char, uint8, uint8_t",
    2: "short, short int, signed short, signed short int, int16, int16_t, ushort, unsigned short, unsigned short int, "
    "uint16, uint16_t",
    4: "int, signed int, int32, int32_t, uint, unsigned int, uint32, uint32_t, float",
    8: "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t, ulonglong, "
    "unsigned long long, unsigned long long int, uint64, uint64_t, double",
}

_META_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_FLOAT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_DOUBLE": 8,
}


@dataclass(frozen=True)
class _Layout:
    """Where and how the voxels of a file are stored: bytes after the header, and what they must decompress to."""

    start: int
    size: int
    encoding: str
    count: int


def verify_volume(path: Path, content: bytes) -> None:
    """Decompresses the voxels of an NRRD or .mha file and compares checksums and length with its header.

    Raises:
        FileProblem: damaged, cut short, longer than its header says, or not of this format.
    """
    layout = _nrrd(path, content) if path.name.lower().endswith(".nrrd") else _meta(path, content)
    stored = content[layout.start :]
    if layout.encoding == "text":
        found = len(stored.split())
        if found != layout.count:
            raise FileProblem(f"read {path}", f"{found} numbers where its header promises {layout.count}", COPY_AGAIN)
    elif layout.encoding in ("gzip", "zlib"):
        inflate(path, stored, layout.size, GZIP if layout.encoding == "gzip" else ZLIB)
    else:
        found = len(bz2.decompress(stored)) if layout.encoding == "bzip2" else len(stored)
        if found != layout.size:
            raise FileProblem(
                f"read {path}", f"it holds {found} bytes where its header promises {layout.size}", COPY_AGAIN
            )


def _nrrd(path: Path, content: bytes) -> _Layout:
    if not content.startswith(b"NRRD"):
        raise FileProblem(f"read {path}", "not an NRRD file", "check what the file is, and its suffix")
    ends = [(content.find(mark, 0, _HEADER_LIMIT), len(mark)) for mark in (b"\n\n", b"\r\n\r\n")]
    place, width = min(((at, width) for at, width in ends if at >= 0), default=(-1, 0))
    if place < 0:
        raise FileProblem(f"read {path}", "its header does not end", COPY_AGAIN)
    lines = [line.strip() for line in content[:place].decode("latin-1").splitlines()[1:]]
    fields = {
        key.strip().lower(): value.strip()
        for key, mark, value in (line.partition(":") for line in lines if not line.startswith("#"))
        if mark
    }
    if "data file" in fields or "datafile" in fields:
        raise Unsupported(f"read {path}", "its voxels are in another file", "store header and voxels in one file")
    if any(fields.get(key, "0") != "0" for key in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise Unsupported(f"read {path}", "bytes are to be skipped before its voxels", "store it without")
    width_of = {name: size for size, names in _NRRD_BYTES.items() for name in names.split(", ")}
    kind, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    encodings = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
    encodings.update(dict.fromkeys(("text", "txt", "ascii"), "text"))
    if kind not in width_of or encoding not in encodings:
        raise Unsupported(f"read {path}", f"type '{kind}', encoding '{encoding}'", "store it as gzip or raw")
    count = math.prod(_sizes(path, fields.get("sizes", "")))
    return _Layout(place + width, count * width_of[kind], encodings[encoding], count)


def _meta(path: Path, content: bytes) -> _Layout:
    fields: dict[str, str] = {}
    at = 0
    while "ElementDataFile" not in fields:
        end = content.find(b"\n", at, _HEADER_LIMIT)
        key, mark, value = content[at : max(end, at)].decode("latin-1").partition("=")
        if end < 0 or not mark:
            raise FileProblem(f"read {path}", "not a MetaImage file, or its header does not end", COPY_AGAIN)
        fields[key.strip()] = value.strip()
        at = end + 1
    if fields["ElementDataFile"].upper() != "LOCAL":
        raise Unsupported(f"read {path}", "its voxels are in another file", "store header and voxels in one .mha file")
    if fields.get("HeaderSize", "0") not in ("0", "-1"):
        raise Unsupported(f"read {path}", "bytes are to be skipped before its voxels", "store it without")
    kind = fields.get("ElementType", "")
    if kind not in _META_BYTES:
        raise Unsupported(f"read {path}", f"ElementType '{kind}'", "store whole numbers or 32-bit floats")
    samples = int(fields.get("ElementNumberOfChannels", "1"))
    count = math.prod(_sizes(path, fields.get("DimSize", ""))) * samples
    compressed = fields.get("CompressedData", "False").lower() in ("true", "1")
    binary = fields.get("BinaryData", "True").lower() in ("true", "1")
    encoding = "text" if not binary else "zlib" if compressed else "raw"
    return _Layout(at, count * _META_BYTES[kind], encoding, count)


def _sizes(path: Path, text: str) -> list[int]:
    sizes = [int(word) for word in text.split()]
    if not sizes or min(sizes) < 1:
        raise FileProblem(f"read {path}", f"sizes '{text}'", COPY_AGAIN)
    return sizes
