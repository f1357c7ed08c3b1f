"""Changes of valid files: flipped bits, cuts, splices, numbers no file should hold, and JSON of the wrong shape."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

NUMBERS = (
    *(-1, 0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 10**6, 2**31 - 1, 2**31),
    *(2**32 - 1, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**30, -(10**30)),
)
WORDS = (
    *(b"nan", b"inf", b"-inf", b"1e999", b"-1e999", b"1e-320", b"0x10", b"1_000", b"\xef\xbb\xbf", b"\0", b"\n", b"\r"),
    *(b'"', b"'", b"=", b":=", b"\xff\xfe", b"\x1b[2J", b"\xed\xa0\x80", b"../", b"${HOME}", b"=cmd()|' /C calc'!A0"),
    *(b"9" * 5000, b"[" * 3000, b"(" * 3000, b'{"a":' * 3000, b" " * 3000, b"[[[stage]]]", "\u2028\u0662".encode()),
)
ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 10**400, -0.0, 0.5, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "x", "1", "nan", "../../x", "/etc/passwd", "\ud800", "a\0b", "\x1b[2J", "x" * 5000, "0" * 5000),
    *([], {}, [[]], [None], {"": ""}, {"\udfff": 1}, [0] * 300, ["x"] * 300),
)
FORMS = ("<h", ">h", "<i", ">i", "<q", ">q", "<f", ">f", "<d", ">d")


class Change(NamedTuple):
    """One change of a file: of which kind, where (as a share of the file), and two numbers that say how."""

    kind: int
    place: float
    one: int
    two: int


def changed(content: bytes, changes: Sequence[Change], kind: str) -> bytes:
    """A file with some changes."""
    for change in changes:
        if kind == "json" and change.kind % 8:
            content = _json(content, change)
        elif kind == "text" and change.kind % 4:
            content = _text(content, change)
        else:
            content = _bytes(content, change)
    return content


def _bytes(content: bytes, change: Change) -> bytes:
    at, one, two = int(change.place * len(content)), change.one, change.two
    number = NUMBERS[two % len(NUMBERS)]
    if not content:
        return bytes([one % 256])
    kinds = (
        lambda: content[:at] + bytes([content[min(at, len(content) - 1)] ^ (1 << one % 8)]) + content[at + 1 :],
        lambda: content[:at] + bytes([one % 256]) + content[at + 1 :],
        lambda: content[:at],
        lambda: content[:at] + content[at + 1 + one % 40 :],
        lambda: content[:at] + content[at : at + one % 200] * (1 + two % 5) + content[at:],
        lambda: content[:at] + WORDS[one % len(WORDS)] + content[at:],
        lambda: _packed(content, at, FORMS[one % len(FORMS)], number),
        lambda: _packed(content, at & ~3, FORMS[one % len(FORMS)], number),
        lambda: _number(content, at, str(number).encode()),
        lambda: content[at:] + content[:at],
        lambda: _packed(content, one % min(len(content), 400), FORMS[two % len(FORMS)], NUMBERS[at % len(NUMBERS)]),
    )
    return kinds[change.kind // 8 % len(kinds)]()


def _packed(content: bytes, at: int, form: str, number: int) -> bytes:
    """A number written over the bytes at a place."""
    size = struct.calcsize(form)
    if form[1] in "fd":
        value = (float("nan"), float("inf"), -1.0, 0.0, 1e30, 1e-30)[number % 6]
        data = struct.pack(form, value)
    else:
        data = (number % (1 << 8 * size)).to_bytes(size, "little" if form[0] == "<" else "big")
    return content[:at] + data + content[at + size :]


def _number(content: bytes, at: int, number: bytes) -> bytes:
    """Another number in place of the next one that is spelt out."""
    found = re.search(rb"-?\d+", content[at:])
    if found is None:
        return content + number
    return content[: at + found.start()] + number + content[at + found.end() :]


def _text(content: bytes, change: Change) -> bytes:
    at, word = int(change.place * len(content)), WORDS[change.one % len(WORDS)]
    lines = content.split(b"\n")
    line = change.two % len(lines)
    kinds = (
        lambda: _number(content, at, word),
        lambda: _number(content, at, str(NUMBERS[change.two % len(NUMBERS)]).encode()),
        lambda: content[:at] + word + content[at:],
        lambda: b"\n".join([*lines[:line], *lines[line + 1 :]]),
        lambda: b"\n".join([*lines[: line + 1], *lines[line:]]),
        lambda: b"\n".join([*lines[line:], *lines[:line]]),
        lambda: b"\n".join(re.sub(rb"[^\s,;=]+", word, one, count=1) if one == lines[line] else one for one in lines),
        lambda: content.decode("utf-8", "replace").encode("utf-16"),
    )
    return kinds[change.kind // 4 % len(kinds)]()


def _json(content: bytes, change: Change) -> bytes:
    """JSON of another shape; what is none is changed as text."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _text(content, change)
    if change.kind % 8 == 1:
        return _twice(content, change)
    if change.kind % 8 == 2:
        opening, closing = ((b"[", b"]"), (b'{"a":', b"}"))[change.one % 2]
        depth = (10, 400, 5000)[change.two % 3]
        return opening * depth + content + closing * depth
    try:
        return _reshaped(value, change)
    except RecursionError:
        return content


def _reshaped(value: Any, change: Change) -> bytes:
    """JSON of a value with one part taken out, put elsewhere or replaced."""
    places = list(_places(value))
    holder, key = places[int(change.place * len(places)) % len(places)] if places else (None, None)
    if holder is None or key is None:
        return json.dumps(ODD[change.one % len(ODD)]).encode()
    if change.kind % 8 == 3:
        del holder[key]
    elif change.kind % 8 == 4 and isinstance(holder, dict):
        holder[str(ODD[change.two % len(ODD)])[:6000] if change.two % 2 else f"{key}x"] = holder[key]
    elif change.kind % 8 == 5 and len(places) > 1:
        other, name = places[change.two % len(places)]
        holder[key] = json.loads(json.dumps(other[name] if name in other or isinstance(other, list) else None))
    else:
        holder[key] = ODD[change.one % len(ODD)]
    return json.dumps(value).encode()


def _places(value: Any) -> Any:
    """Every container with every key or index of it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _twice(content: bytes, change: Change) -> bytes:
    """A key that stands twice."""
    keys = list(re.finditer(rb'"(?:[^"\\]|\\.)*"\s*:', content))
    if not keys:
        return content
    found = keys[change.one % len(keys)]
    odd = json.dumps(ODD[change.two % len(ODD)]).encode()
    return content[: found.start()] + found[0] + odd + b"," + content[found.start() :]
