"""Whether a picture's bytes are all there and unharmed, by the picture formats' own marks and checksums."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from selfcfg.io.inflate import DEFLATE_RATIO
from selfcfg.io.problems import COPY_AGAIN, FileProblem, refuse_swelling

PNG_START = b"\x89PNG\r\n\x1a\n"
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
"""JPEG markers that no length follows."""

_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers that the picture's size follows."""

_JPEG_RATIO = 2048
"""Pixels of a byte: a block of 64 takes a bit at least; and four times that, to be on the safe side."""

_BMP_RATIO = 256
"""Pixels of a byte of run lengths, of which two hold 255 at most; twice that."""

_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Numbers of a pixel by colour type."""


def verify_png(path: Path, content: bytes) -> tuple[int, int]:
    """Bit depth and colour type of a PNG, after every chunk's checksum and the end chunk were found right.

    Raises:
        FileProblem: not a PNG, a wrong checksum, cut short, or too short for its size.
    """
    if not content.startswith(PNG_START):
        raise FileProblem(f"read {path}", "not a PNG file", "check what the file is, and its suffix")
    at, held = len(PNG_START), 0
    if content[12:16] != b"IHDR" or len(content) < 33 or content[8:12] != b"\0\0\0\r":
        raise FileProblem(f"read {path}", "damaged: it does not begin with its header", COPY_AGAIN)
    width, height, depth, colour = struct.unpack_from(">IIBB", content, 16)
    while True:
        if at + 12 > len(content):
            raise FileProblem(f"read {path}", f"cut short: no end mark after {len(content)} bytes", COPY_AGAIN)
        (length,), name = struct.unpack_from(">I", content, at), content[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(content):
            raise FileProblem(f"read {path}", f"cut short within a chunk after {len(content)} bytes", COPY_AGAIN)
        (checksum,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(memoryview(content)[at + 4 : end - 4]) != checksum:
            raise FileProblem(f"read {path}", f"damaged: wrong checksum of chunk {name!r} at byte {at}", COPY_AGAIN)
        held += length if name == b"IDAT" else 0
        if name == b"IEND":
            rows = height * ((width * depth * _PNG_SAMPLES.get(colour, 4) + 7) // 8)
            refuse_swelling(path, rows, held, DEFLATE_RATIO)
            return depth, colour
        at = end


def verify_jpeg(path: Path, content: bytes) -> None:
    """Walks through the segments of a JPEG to its end mark; what a camera appends after it does not matter.

    Raises:
        FileProblem: not a JPEG, cut short, or too short for its size.
    """
    if not content.startswith(b"\xff\xd8\xff"):
        raise FileProblem(f"read {path}", "not a JPEG file", "check what the file is, and its suffix")
    at = 2
    while at + 2 <= len(content):
        if content[at] != 0xFF:
            raise FileProblem(f"read {path}", f"damaged: no segment where one should begin, at byte {at}", COPY_AGAIN)
        marker = content[at + 1]
        at += 2
        if marker == _JPEG_END:
            return
        if marker == 0xFF:
            at -= 1
        elif marker not in _WITHOUT_LENGTH:
            if marker in _JPEG_FRAMES:
                height, width = (int.from_bytes(content[at + place : at + place + 2], "big") for place in (3, 5))
                refuse_swelling(path, height * width, len(content), _JPEG_RATIO)
            at += int.from_bytes(content[at : at + 2], "big") or 2
            if marker == _JPEG_SCAN:
                at = _end_of_scan(content, at)
    raise FileProblem(f"read {path}", f"cut short: no end mark after {len(content)} bytes", COPY_AGAIN)


def verify_bmp(path: Path, content: bytes) -> None:
    """Whether the rows that a BMP's header promises are there.

    Raises:
        FileProblem: not a BMP, or cut short.
    """
    if not content.startswith(b"BM") or len(content) < 34:
        raise FileProblem(f"read {path}", "not a BMP file", "check what the file is, and its suffix")
    start, header = struct.unpack_from("<II", content, 10)
    if header == 12:
        (width, height, _, bits), compression = struct.unpack_from("<HHHH", content, 18), 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", content, 18)
    refuse_swelling(path, abs(width * height), len(content), _BMP_RATIO)
    row = (abs(width) * bits + 31) // 32 * 4
    if compression in (0, 3) and start + row * abs(height) > len(content):
        raise FileProblem(
            f"read {path}", f"cut short: {len(content)} bytes, {start + row * abs(height)} promised", COPY_AGAIN
        )


def verify_tiff(path: Path, content: bytes) -> int:
    """The number of pages of a TIFF, after the chain of its page tables was followed to the end.

    Raises:
        FileProblem: not a TIFF, or the chain leads out of the file or in a circle.
    """
    order = {b"II": "<", b"MM": ">"}.get(content[:2], "")
    version = struct.unpack_from(f"{order}H", content, 2)[0] if order and len(content) >= 8 else 0
    if version not in (42, 43):
        raise FileProblem(f"read {path}", "not a TIFF file", "check what the file is, and its suffix")
    first, count, entry, link = (4, "H", 12, "I") if version == 42 else (8, "Q", 20, "Q")
    (at,) = struct.unpack_from(order + link, content, first)
    seen: set[int] = set()
    while at:
        width = struct.calcsize(count)
        if at in seen or at + width > len(content):
            raise FileProblem(
                f"read {path}", f"cut short: page {len(seen) + 1} is not in its {len(content)} bytes", COPY_AGAIN
            )
        seen.add(at)
        after = at + width + entry * struct.unpack_from(order + count, content, at)[0]
        if after + struct.calcsize(link) > len(content):
            raise FileProblem(
                f"read {path}", f"cut short: page {len(seen)} is not in its {len(content)} bytes", COPY_AGAIN
            )
        (at,) = struct.unpack_from(order + link, content, after)
    return len(seen)


def _end_of_scan(content: bytes, at: int) -> int:
    """Where the next segment begins after compressed data that begin at `at`; the file's end if none does."""
    while (at := content.find(b"\xff", at)) >= 0 and at + 1 < len(content):
        following = content[at + 1]
        if following and following != 0xFF and following not in range(0xD0, 0xD8):
            return at
        at += 1 if following == 0xFF else 2
    return len(content)
