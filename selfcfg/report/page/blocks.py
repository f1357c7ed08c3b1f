"""What a section of the page is made of. All text in it is plain: the template escapes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from selfcfg.report.page.slices import Slices
    from selfcfg.report.page.svg import Drawing

SPACE = "\u00a0"
"""Between words that stay on one line."""


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Args:
        text: its words.
        tone: "" for usual text, "lead" for the first of a section, "note" for an aside, "quote" for text to be taken.
    """

    kind: ClassVar[str] = "text"
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Heading:
    """The title of a part of a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; columns from `numbers_from` on are right-aligned, the first column names its row."""

    kind: ClassVar[str] = "table"
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers_from: int = 1


@dataclass(frozen=True)
class Terms:
    """Names with what is to be said of each."""

    kind: ClassVar[str] = "terms"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tile:
    """A number in large letters.

    Args:
        value: the number.
        name: what it is of.
        note: how sure it is, and of how many.
    """

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """Numbers side by side."""

    kind: ClassVar[str] = "tiles"
    items: tuple[Tile, ...]


@dataclass(frozen=True)
class Plot:
    """A drawing with what it shows; where marks are named, keys and pointer tell which is which."""

    kind: ClassVar[str] = "plot"
    drawing: Drawing
    caption: str


@dataclass(frozen=True)
class Viewer:
    """The slices of a case to move through.

    Args:
        identity: a word of its own on the page.
        title: which case, and why it is shown.
        about: its scores.
        slices: None where they cannot be shown.
        problem: why not.
    """

    kind: ClassVar[str] = "viewer"
    identity: str
    title: str
    about: str
    slices: Slices | None
    problem: str = ""


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away until they are asked for; printed they are all there."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: tuple[Block, ...]


Block = Text | Heading | Bullets | Table | Terms | Tiles | Plot | Viewer | Details


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        identity: a word of its own, part of its address.
        title: its heading.
        blocks: in order.
    """

    identity: str
    title: str
    blocks: tuple[Block, ...]
