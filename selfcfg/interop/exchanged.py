"""What importing and exporting a model have in common: the result, and where a cascade's first model goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfcfg.errors import UsageError


@dataclass(frozen=True)
class Exchanged:
    """What an import or export made.

    Args:
        model: folder of the model.
        first: folder of a cascade's first model, else None.
        folds: names of its folds.
        notes: what a user should know, in words.
    """

    model: Path
    first: Path | None
    folds: tuple[str, ...]
    notes: tuple[str, ...]


def beside(folder: Path, configuration: str, previous: str) -> Path:
    """Where the first model of a cascade goes: named like its second with the name of its own configuration."""
    stem = folder.name.removesuffix(configuration)
    return folder.with_name(f"{stem}{previous}" if stem != folder.name else f"{folder.name}__{previous}")


def refuse_existing(folder: Path) -> None:
    """Nothing, where there is no such folder yet.

    Raises:
        UsageError: there is.
    """
    if folder.exists():
        raise UsageError(f"write {folder}", "it is there already", "choose another --out, or move it away")
