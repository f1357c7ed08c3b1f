"""Options that several commands share, and how a command speaks."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfcfg.errors import UsageError, printable
from selfcfg.project import Project
from selfcfg.workspace import Workspace

if TYPE_CHECKING:
    from selfcfg.engine.scoring.validation import Keeping

DatasetArgument = Annotated[str, typer.Argument(help="id (4), folder name (Dataset004_Hippocampus) or path")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        help="folder of all data and results; default: $SELFCFG_WORKSPACE, else nnU-Net's variables, else ./workspace"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="end with one JSON object on the last line of stdout")]
DebugOption = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


def _processes(given: int) -> int:
    from selfcfg.parallel import default_jobs  # noqa: PLC0415

    return given or default_jobs()


JobsOption = Annotated[
    int, typer.Option(min=0, callback=_processes, show_default=False, help="processes at most; 0: one a core")
]
ConfigurationOption = Annotated[
    str | None, typer.Option("-c", "--configuration", help="default: 3d_fullres where planned, else 2d")
]
PlannerOption = Annotated[str, typer.Option(help="planner, see: selfcfg list planners")]
PlanOption = Annotated[str | None, typer.Option("--planner", help="plan to use; default: the only one there is")]
MemoryOption = Annotated[
    float | None, typer.Option(help="accelerator memory to plan for, in GB; default: the planner's")
]
TimeBudgetOption = Annotated[
    str | None, typer.Option("--time-budget", help="such as 4h, 90min, 1h30m: as many epochs as can be done in it")
]
SpacingOption = Annotated[str | None, typer.Option(help="target spacing z,y,x in mm instead of the planner's rule")]
FoldOption = Annotated[
    list[str] | None, typer.Option(help="folds, repeated or with commas, or all; default: 0 for train, else all")
]
TrainerOption = Annotated[str, typer.Option(help="training strategy, see: selfcfg list trainers")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="a setting of the trainer, of a recipe STAGE.KEY; repeat for several"
    ),
]
FractionOption = Annotated[
    float, typer.Option(min=0, max=1, help="share of the training subjects whose labels are used")
]
SeedOption = Annotated[int, typer.Option(min=0, help="seed of every random number")]
NameOption = Annotated[str | None, typer.Option(help="keeps this experiment apart from others like it")]
SaveProbabilitiesOption = Annotated[
    bool,
    typer.Option("--save-probabilities", help="also keep the class probabilities of the validation cases, for select"),
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best there is")]
AnonymiseOption = Annotated[
    bool, typer.Option("--anonymise", help="name cases by hashes; the report goes into a folder 'anonymised'")
]
AnonymiseKeyOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="write which case has which name, to keep; given again, the same names are used"),
]


def refuse_key_alone(anonymise: bool, key: Path | None) -> None:
    """Raises when a table of names is asked for, but no names.

    Raises:
        UsageError: says which option is missing.
    """
    if key is not None and not anonymise:
        raise UsageError(f"--anonymise-key {key}", "cases keep their ids", "add --anonymise")


_ends: ContextVar[list[dict[str, Any]] | None] = ContextVar("ends", default=None)


@contextmanager
def going_on() -> Iterator[list[dict[str, Any]]]:
    """Commands within it end without a word: what they would have answered is put into the list."""
    ends: list[dict[str, Any]] = []
    token = _ends.set(ends)
    try:
        yield ends
    finally:
        _ends.reset(token)


def is_followed() -> bool:
    """Whether a selection follows the command."""
    return _ends.get() is not None


def keeping(save_probabilities: bool, for_select: bool = False) -> Keeping:
    """Whether a training writes the probabilities of its validation cases: also where a selection follows."""
    return "kept" if save_probabilities else "passing" if for_select or is_followed() else "none"


class Speaker:
    """What a command tells: text for people, and with --json one object for programs on the last line of stdout."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, text: str) -> None:
        """Writes text for people; to stderr when stdout belongs to a program."""
        stream = sys.stderr if self.as_json else sys.stdout
        stream.write(printable(text.rstrip("\n")) + "\n")
        stream.flush()

    def done(self, result: dict[str, Any], next_command: str = "") -> None:
        """Ends a command that went well."""
        ends = _ends.get()
        if ends is not None:
            ends.append(result)
            return
        if next_command:
            self.say(f"next: {next_command}")
        if self.as_json:
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


def open_project(dataset: str, workspace: Path | None) -> Project:
    """The project that DATASET and --workspace name."""
    return Project.of(Workspace.at(workspace), dataset)


def typed(value: object) -> str:
    """A name or path as a person would have to type it in a shell, whatever signs are in it and begin it.

    >>> print(typed("my images"), typed("-o"))
    'my images' ./-o
    """
    text = str(value)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def split_values(values: Iterable[str] | None) -> list[str]:
    """Values given by repetition, commas, or both."""
    return [part.strip() for value in values or () for part in value.split(",") if part.strip()]


def folds_of(values: list[str] | None, default: list[int]) -> list[int] | None:
    """Fold numbers; None for all of them.

    Raises:
        UsageError: neither a number nor "all".
    """
    names = split_values(values)
    if "all" in names:
        return None
    if bad := [name for name in names if not name.isdecimal()]:
        raise UsageError("--fold", f"'{bad[0]}' is neither a number nor 'all'", "give 0, or 0,1, or all")
    return [int(name) for name in names] or default


def settings_of(values: list[str] | None, option: str = "--set") -> dict[str, str]:
    """The settings given as KEY=VALUE.

    Raises:
        UsageError: an entry without "=".
    """
    settings = {}
    for value in values or ():
        key, equals, text = value.partition("=")
        if not equals:
            raise UsageError(option, f"'{value}' has no '='", "write it as epochs=100")
        settings[key.strip()] = text.strip()
    return settings


def seconds_of(text: str | None) -> float | None:
    """The length of time given as 4h, 90min, 1h30m, 2d.

    Raises:
        UsageError: not a length of time.
    """
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)", text.lower())
    rest = re.sub(r"\d+(?:\.\d+)?\s*(d|h|min|m|s)|\s", "", text.lower())
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if rest or not seconds:
        raise UsageError("--time-budget", f"'{text}' is not a length of time", "write it as 4h, 90min, 1h30m or 2d")
    return seconds


_SECONDS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}


def spacing_of(text: str | None) -> tuple[float, float, float] | None:
    """The spacing given as z,y,x.

    Raises:
        UsageError: not three positive numbers.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or min(values) <= 0:
        raise UsageError(
            "--spacing", f"'{text}' is not three positive numbers", "write it as 3,0.8,0.8 (z, y, x in mm)"
        )
    return values[0], values[1], values[2]
