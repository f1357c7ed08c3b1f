"""What files say besides their image: free text that may name a patient, taken out without touching a voxel.

NIfTI has fields for a description, file names and the like, and extensions that hold anything; gzip keeps a file name;
NRRD and MetaImage have comments and pairs of the user's own; PNG has text, times and Exif. What an image needs to be
read stays as it is, byte for byte.
"""

from __future__ import annotations

import re
from pathlib import Path

from selfcfg.io.problems import reading

_NIFTI_TEXT = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
_GZIP_NAMED = 0b0001_1110
"""Flags of a gzip header that more than its ten bytes follow: checksum, extra field, name, comment."""

_NRRD_KEPT = frozenset(
    [
        *("type", "dimension", "sizes", "spacings", "thicknesses", "axis mins", "axismins", "axis maxs", "axismaxs"),
        *("centers", "centerings", "kinds", "units", "space", "space dimension", "space units", "space origin"),
        *("space directions", "measurement frame", "encoding", "endian", "block size", "blocksize"),
    ]
)
_NRRD_STANDARD = (
    b"# Complete NRRD file format specification at:",
    b"# http://teem.sourceforge.net/nrrd/format.html",
)
_META_KEPT = frozenset(
    [
        *("ObjectType", "NDims", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData"),
        *("CompressedDataSize", "TransformMatrix", "Orientation", "Rotation", "Offset", "Position", "Origin"),
        *("CenterOfRotation", "AnatomicalOrientation", "ElementSpacing", "ElementSize", "DimSize", "HeaderSize"),
        *("ElementNumberOfChannels", "ElementType", "ElementMin", "ElementMax", "ElementDataFile"),
    ]
)
_PNG_KEPT = frozenset(
    [b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs"]
)


def without_notes(path: Path) -> bytes | None:
    """The bytes of a NIfTI, NRRD, MetaImage or PNG file without its notes; None where it has none.

    Raises:
        FileProblem: it cannot be read.
    """
    name = path.name.lower()
    with reading(path):
        content = path.read_bytes()
        if name.endswith((".nii", ".nii.gz")):
            made = _nifti(path, content)
        elif name.endswith(".nrrd"):
            made = _nrrd(content)
        elif name.endswith(".mha"):
            made = _metaimage(content)
        else:
            made = _png(content) if name.endswith(".png") else content
    return None if made == content else made


def _nifti(path: Path, content: bytes) -> bytes:
    from selfcfg.io import nifti  # noqa: PLC0415 - only NIfTI files need nibabel
    from selfcfg.io.inflate import inflate, is_gzip  # noqa: PLC0415

    header = nifti.read_header(path)
    is_packed = is_gzip(content)
    data = bytes(inflate(path, content, header.n_bytes)) if is_packed else content
    raw = nifti.raw_header(path, data)
    for field in set(_NIFTI_TEXT) & set(raw.template_dtype.names):
        raw[field] = b""
    between = data[raw.template_dtype.itemsize : header.offset]
    raw["vox_offset"] = raw.single_vox_offset if any(between) else header.offset
    kept = bytes(raw.single_vox_offset - raw.template_dtype.itemsize) if any(between) else between
    made = bytes(raw.binaryblock) + kept + data[header.offset :]
    if made == data and not (is_packed and content[3] & _GZIP_NAMED):
        return content
    return nifti.packed(made) if is_packed else made


def _nrrd(content: bytes) -> bytes:
    end = re.search(rb"\r?\n\r?\n", content)
    if end is None:
        return content
    lines = content[: end.start()].splitlines()
    kept = [line for line in lines[1:] if line in _NRRD_STANDARD or _is_nrrd_field(line)]
    if len(kept) == len(lines) - 1:
        return content
    return b"\n".join([lines[0], *kept]) + b"\n\n" + content[end.end() :]


def _is_nrrd_field(line: bytes) -> bool:
    return b":=" not in line and _field(line, b":").lower() in _NRRD_KEPT


def _metaimage(content: bytes) -> bytes:
    end = re.search(rb"^ElementDataFile[^\n]*\n", content, re.MULTILINE)
    if end is None:
        return content
    lines = content[: end.end()].splitlines(keepends=True)
    return b"".join(line for line in lines if _field(line, b"=") in _META_KEPT) + content[end.end() :]


def _field(line: bytes, mark: bytes) -> str:
    return line.partition(mark)[0].decode("latin-1").strip()


def _png(content: bytes) -> bytes:
    made, at = [content[:8]], 8
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        name = content[at + 4 : at + 8]
        if name in _PNG_KEPT:
            made.append(content[at:end])
        at = len(content) if name == b"IEND" else end
    return b"".join(made)
