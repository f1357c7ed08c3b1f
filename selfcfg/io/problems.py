"""What can be wrong with one image file, each with a kind that `selfcfg check` groups by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from selfcfg.errors import DataError, SelfcfgError

COPY_AGAIN = "copy or export the file again"

_FREE = 1 << 20
"""Bytes that any header may promise."""


class FileProblem(DataError):
    """A file that cannot be used: damaged, cut short, or not of the format its name promises."""

    kind: ClassVar[str] = "unreadable"


class Unsupported(FileProblem):
    """A whole file that stores something no segmentation is trained on: complex numbers, several pictures, ..."""

    kind: ClassVar[str] = "unsupported"


class BadSpacing(FileProblem):
    """A header whose spacing or axes cannot be true: zero, not a number, singular."""

    kind: ClassVar[str] = "spacing"


class BadAlpha(FileProblem):
    """A picture whose transparency differs from pixel to pixel."""

    kind: ClassVar[str] = "alpha"


class BadLabel(FileProblem):
    """A label map with values that are not whole numbers, or with several channels."""

    kind: ClassVar[str] = "label values"


def refuse_swelling(path: Path, promised: int, stored: int, ratio: int) -> None:
    """Nothing, where the bytes that are stored can hold what a header promises; asked before memory is taken for it.

    Args:
        path: for messages.
        promised: bytes, or pixels, by the header.
        stored: bytes there are.
        ratio: how many times as much the encoding can hold at most.

    Raises:
        FileProblem: they cannot.
    """
    if promised > ratio * stored + _FREE:
        found = f"its header promises {promised} bytes or pixels, {stored} stored bytes cannot hold them"
        raise FileProblem(f"read {path}", found, COPY_AGAIN)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever a library raises on foreign bytes into a `FileProblem` that names the file."""
    try:
        yield
    except SelfcfgError:
        raise
    except FileNotFoundError as error:
        raise FileProblem(f"read {path}", "there is no such file", "check the path") from error
    except MemoryError as error:
        raise FileProblem(f"read {path}", "it does not fit into memory", "use a machine with more memory") from error
    except Exception as error:  # readers raise anything on damaged files: OSError, ValueError, SyntaxError, their own
        text = " ".join(str(error).split()) or type(error).__name__
        raise FileProblem(f"read {path}", text[:300], COPY_AGAIN) from error
