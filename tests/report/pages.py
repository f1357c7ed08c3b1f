"""A page made of known numbers and pictures, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from selfcfg.engine.comparison.compare import Wanted, compare
from selfcfg.engine.comparison.systems import System
from selfcfg.engine.comparison.values import ClassValues, Scored
from selfcfg.geometry import Geometry
from selfcfg.report.names import PLAIN, Names
from selfcfg.report.page.blocks import Viewer
from selfcfg.report.page.facts import Facts
from selfcfg.report.page.slices import Pictured, slices_of

CLASSES = ("liver", "spleen")
N = 12


class Page(HTMLParser):
    """The elements of a page: their names with attributes, and the text outside of style and program."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def system(
    name: str, shift: float, seed: int, classes: Sequence[str] = CLASSES, prefix: str = "case", n: int = N
) -> System:
    rng = np.random.default_rng(seed)
    cases = {
        f"{prefix}_{number:02d}": {
            organ: ClassValues({"dice": 0.8 + shift + rng.normal(0, 0.02), "hd95": 5 + rng.normal()}, 10, 10)
            for organ in classes
        }
        for number in range(n)
    }
    return System(name, "evaluation", (Scored(cases, "exclude", 2.0, "mm", "ml"),))


def pictured(
    shape: tuple[int, int, int] = (9, 24, 30), classes: Sequence[str] = CLASSES, channels: int = 2
) -> Pictured:
    """A volume of noise with two boxes a map, the prediction's one voxel to the side."""
    image = np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)
    label = np.zeros(shape, np.int16)
    label[2:7, 4:14, 5:12] = 1
    label[3:8, 4:14, 16:24] = 2
    maps = {"reference": label, "prediction": np.roll(label, 1, axis=2)}
    named = {value + 1: name for value, name in enumerate(classes)}
    return Pictured(
        image, tuple(f"channel {n}" for n in range(channels)), maps, Geometry(shape=shape, spacing=(3, 1, 1)), named
    )


def facts(
    systems: Sequence[System] = (), names: Names = PLAIN, title: str = "Report", classes: Sequence[str] = CLASSES
) -> Facts:
    found, scores = compare(systems or [system("model", 0, 0)], Wanted())
    viewers = (
        Viewer("case-1", "worst: case_00", "Dice 0.1", slices_of(pictured((9, 48, 60), classes), 10**6)),
        Viewer("case-2", "best: case_01", "Dice 0.9", slices_of(pictured(classes=classes, channels=1), 10**6)),
    )
    return Facts(
        title=title,
        subtitle="of a test",
        folder=Path("nowhere"),
        names=names,
        found=found,
        scores=scores,
        evaluation=None,
        viewers=viewers,
    )
