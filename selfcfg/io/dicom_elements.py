"""Whether every data element of a DICOM file lies within it.

GDCM takes memory for the length that an element says, before it looks whether there are so many bytes, and does not
give it back where there are not: some hundred bytes took 770 MB of it in fuzzing. So lengths are compared here first.

Source: DICOM PS3.5, section 7 (data elements, nested items), and PS3.10, section 7.1 (the file's own elements).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from selfcfg.io.problems import COPY_AGAIN, FileProblem, Unsupported

_LONG = frozenset([b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"])
"""Value representations whose length has four bytes."""

_SHORT = frozenset(
    [
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"),
        *(b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    ]
)
_UNKNOWN = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_DELIMITERS = 0xFFFE
_PIXELS = (0x7FE0, 0x0010)
_SYNTAX = (0x0002, 0x0010)
_IMPLICIT, _BIG, _DEFLATED = (f"1.2.840.10008.1.2{end}" for end in ("", ".2", ".1.99"))
_DEEPEST = 20
_START = 132


@dataclass(frozen=True)
class _Element:
    """One data element: its tag, how its value is written, where that begins, and its length."""

    tag: tuple[int, int]
    kind: bytes
    start: int
    length: int


def verify_elements(path: Path, content: bytes) -> None:
    """Nothing, where all elements of a file lie within it, nested ones within those that hold them.

    Raises:
        FileProblem: no DICOM file, cut short, or damaged.
    """
    if content[128:_START] != b"DICM":
        raise FileProblem(f"read {path}", "not a DICOM picture, or cut short: there is no mark of one", COPY_AGAIN)
    at, syntax = _START, ""
    own = _Walk(path, content, "<", explicit=True)
    while content[at : at + 2] == b"\x02\0":
        element = own.element(at, len(content))
        if element.kind not in _LONG | _SHORT or element.length == _UNKNOWN:
            raise own.damaged(at)
        at = element.start + element.length
        if element.tag == _SYNTAX:
            syntax = content[element.start : at].decode("latin-1").strip(" \0")
    if syntax == _DEFLATED:
        raise Unsupported(f"read {path}", "it is compressed as a whole", "store it without deflate")
    order = ">" if syntax == _BIG else "<"
    _Walk(path, content, order, explicit=syntax != _IMPLICIT).elements(at, len(content), 0)


@dataclass(frozen=True)
class _Walk:
    path: Path
    content: bytes
    order: str
    explicit: bool

    def elements(self, at: int, end: int, depth: int) -> int:
        """Where the elements from a place on end: at `end`, or behind the mark that ends an item."""
        while at < end:
            if depth == 0 and not any(self.content[at : at + 8]) and not any(self.content[at:end]):
                return end
            element = self.element(at, end)
            if element.tag == (_DELIMITERS, _ITEM_END) and depth:
                return element.start
            if element.tag[0] == _DELIMITERS:
                raise self.damaged(at)
            is_sequence = element.kind == b"SQ" or element.length == _UNKNOWN or self._holds_items(element)
            if is_sequence and element.length:
                at = self._items(element, end, depth + 1)
            else:
                at = element.start + element.length
        return at

    def element(self, at: int, end: int) -> _Element:
        """The element at a place."""
        if at + 8 > end:
            raise self.damaged(at)
        tag = struct.unpack_from(f"{self.order}HH", self.content, at)
        kind = self.content[at + 4 : at + 6]
        if self.explicit and tag[0] != _DELIMITERS and kind in _SHORT:
            start, (length,) = at + 8, struct.unpack_from(f"{self.order}H", self.content, at + 6)
        elif self.explicit and tag[0] != _DELIMITERS and kind in _LONG:
            if at + 12 > end:
                raise self.damaged(at)
            start, (length,) = at + 12, struct.unpack_from(f"{self.order}I", self.content, at + 8)
        else:
            kind, start = b"", at + 8
            (length,) = struct.unpack_from(f"{self.order}I", self.content, at + 4)
        if length != _UNKNOWN and start + length > end:
            raise self.damaged(at)
        return _Element((tag[0], tag[1]), kind, start, length)

    def damaged(self, at: int) -> FileProblem:
        """The error of what is no element."""
        found = f"not a DICOM picture, or cut short: at byte {at} is no element that lies within it"
        return FileProblem(f"read {self.path}", found, COPY_AGAIN)

    def _holds_items(self, element: _Element) -> bool:
        """Whether a value of which nothing is said begins like a sequence."""
        mark = struct.pack(f"{self.order}HH", _DELIMITERS, _ITEM)
        return element.kind in (b"", b"UN") and self.content[element.start : element.start + 4] == mark

    def _items(self, element: _Element, end: int, depth: int) -> int:
        """Where the items of a sequence, or the pieces of compressed pixels, end."""
        if depth > _DEEPEST:
            raise self.damaged(element.start)
        is_open = element.length == _UNKNOWN
        at, last = element.start, end if is_open else element.start + element.length
        while at < last or is_open:
            item = self.element(at, last)
            if is_open and item.tag == (_DELIMITERS, _SEQUENCE_END):
                return item.start
            if item.tag != (_DELIMITERS, _ITEM):
                raise self.damaged(at)
            if element.tag == _PIXELS and item.length != _UNKNOWN:
                at = item.start + item.length
            elif item.length == _UNKNOWN:
                at = self.elements(item.start, last, depth + 1)
            else:
                at = item.start + item.length
                if self.elements(item.start, at, depth + 1) != at:
                    raise self.damaged(item.start)
        return at
