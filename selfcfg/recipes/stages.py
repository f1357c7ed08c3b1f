"""The stages of a recipe as they are written in TOML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from selfcfg.records import Record

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""What becomes a folder's name; it has no dot, as ``--set`` writes STAGE.setting."""

Fold = Annotated[int, Field(strict=True, ge=0)]

Metric = Literal["dice", "iou", "nsd", "hd95"]
"""What candidates can be compared by; of HD95 the lowest is the best."""


class Images(Record):
    """A dataset whose images are pretrained on, as one of a group of related ones.

    Args:
        name: id or folder name of a dataset in the workspace, or a path, which has a slash.
        group: name of the group that it belongs to; default: a group of its own.
    """

    name: str
    group: str | None = None


class Keep(Record):
    """What is kept of several candidates: those that score best on the validation cases of all folds together.

    Scores that are equal to four digits are a tie, which goes to the candidate with fewer optimiser steps (those of the
    stages it starts from included), then to the one that comes first.

    Args:
        of: the earlier stages whose candidates are compared; default: the stage's own.
        best_by: the score, averaged over the foreground classes; of hd95 the lowest is the best.
        per: a key that tells candidates apart: the best for each of its values is kept; default: the best of all.
    """

    of: tuple[str, ...] = ()
    best_by: Metric = "dice"
    per: str | None = None


class Stage(Record):
    """One training of a recipe, or several that differ in some values; or, with `keep.of`, a choice among trainings.

    Args:
        name: of its folder; `init`, `teachers` and `keep` of later stages and ``--set NAME.setting=value`` call it by
            this.
        trainer: its algorithm, by entry-point name: `selfcfg list trainers`.
        settings: the trainer's settings that differ from its defaults.
        foreach: lists of values by key; each combination is a candidate, which is trained on its own. A key is a
            setting of the trainer, "trainer", or "init", where "none" stands for random weights.
        keep: what of its candidates later stages get; default: all.
        folds: those it trains, or "all"; default: those that ``--fold`` asks for.
        init: what its first weights are taken from: the name of an earlier stage, of which each fold takes the run of
            the same fold, and each candidate has one that starts from it; or the path of a run or a weights file, which
            has a slash. Default: random weights.
        teachers: for trainers that learn from finished runs: names of earlier stages, of each all candidates or
            what was kept of them, and paths of runs, which have a slash.
        unlabelled: datasets whose images are pretrained on besides the dataset's own: ids, folder names, or paths,
            which have a slash.
        datasets: the same with the group that each belongs to.
        reference: for trainers that need one, the labelled dataset that guides them: an id, a folder name, or a path,
            which has a slash. Default: what ``--reference`` names.
    """

    name: Name
    trainer: str | None = None
    settings: dict[str, Any] = {}
    foreach: dict[str, Any] = {}
    keep: Keep | None = None
    folds: Literal["all"] | tuple[Fold, ...] | None = None
    init: str | None = None
    teachers: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    datasets: tuple[Images, ...] = ()
    reference: str | None = None

    @property
    def images(self) -> tuple[Images, ...]:
        """`unlabelled` and `datasets` together."""
        return (*(Images(name=name) for name in self.unlabelled), *self.datasets)

    @property
    def trains(self) -> bool:
        """Whether it trains; else it only chooses among what others have trained."""
        return self.keep is None or not self.keep.of

    @property
    def varied(self) -> dict[str, list[Any]]:
        """`foreach` with a key for each list: a setting within a table has a dot."""
        return flat(self.foreach)


def flat(table: dict[str, Any]) -> dict[str, Any]:
    """A table without tables in it: the keys of inner ones follow those of outer ones after a dot."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        inner = flat(value) if isinstance(value, dict) else None
        found |= {key: value} if inner is None else {f"{key}.{name}": one for name, one in inner.items()}
    return found


def is_path(name: str) -> bool:
    """Whether a text is the path of something, and not the name of a stage or a dataset: it has a slash."""
    return "/" in name or "\\" in name
