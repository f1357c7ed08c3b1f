"""What was predicted in a folder, by what and from what: so that a re-run does only what is not done or has changed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile
from typing import ClassVar, Self

from selfcfg.errors import DataError
from selfcfg.files import hash_file, refused
from selfcfg.image_targets import ImageLevel
from selfcfg.records import Sparing

FOLDER = ".predictions"


class LedgerEntry(Sparing):
    """How one case was predicted.

    Args:
        maker: hash of the model and the options.
        input: hash of the image files.
        output: hash of the label map; empty while it is being written.
        probabilities: bytes of the probabilities' file, 0 where there is none.
        passing: whether that file is there for a while only, and goes when what it was made for is done.
        image_targets: what was said of the image as a whole, by target.
        uncertainty: bytes of each map of uncertainty, by name.
        features: what is known of how good it is, see `selfcfg.engine.prediction.quality`.
        unusual: in words, each way in which the image is unlike the training cases.
    """

    spared: ClassVar[frozenset[str]] = frozenset({"image_targets", "passing", "uncertainty", "features", "unusual"})

    maker: str
    input: str
    output: str = ""
    probabilities: int = 0
    passing: bool = False
    image_targets: dict[str, ImageLevel] = {}
    uncertainty: dict[str, int] = {}
    features: dict[str, float | None] = {}
    unusual: tuple[str, ...] = ()

    def describes(self, file: Path, maker: str, source: str) -> bool:
        """Whether `file` is what `maker` made of `source`, unchanged since."""
        return (self.maker, self.input) == (maker, source) and file.is_file() and hash_file(file) == self.output


class Ledger:
    """The entries of an output folder, a file a case in a hidden folder: several processes never meet in one file.

    Args:
        folder: where predictions are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    @classmethod
    def at(cls, folder: Path) -> Self:
        """The ledger of a folder, which is made where there is none.

        Raises:
            SelfcfgError: it cannot be made or written to.
        """
        try:
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder / FOLDER) as probe:
                probe.write(b"0")
        except OSError as error:
            raise refused(folder, error) from error
        return cls(folder)

    def entry(self, case: str) -> LedgerEntry | None:
        """The entry of a case; None without one, or where it is damaged."""
        try:
            return LedgerEntry.read(self._file(case))
        except DataError:
            return None

    def entries(self) -> dict[str, LedgerEntry]:
        """All entries that can be read, by case in order."""
        names = sorted(file.name.removesuffix(".json") for file in self._folder.glob("*.json"))
        return {name: entry for name in names if (entry := self.entry(name)) is not None}

    def note(self, case: str, entry: LedgerEntry) -> None:
        """Replaces the entry of a case.

        Raises:
            SelfcfgError: the disk refused the bytes.
        """
        entry.write(self._file(case))

    def _file(self, case: str) -> Path:
        return self._folder / f"{case}.json"
