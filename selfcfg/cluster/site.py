"""What a site asks of its jobs: options of sbatch, for all tasks or for one kind of them."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from selfcfg.cluster.tasks import Resources
from selfcfg.errors import UsageError
from selfcfg.records import Record

NAMES = {"cpus": "cpus-per-task", "gpus": "gres"}
"""Our short words and what sbatch calls them; a number of GPUs is written as gres, which every version knows."""

LEFT_OUT = "none"
"""The value of an option of ours that is not to be given to sbatch at all: some sites refuse one."""

OURS = ("setup", "shards")
"""What is said among the options, and is none of sbatch."""

DECIDED = ("array", "dependency", "job-name", "output", "error", "open-mode", "requeue", "signal", "wrap", "parsable")
"""Options of sbatch on which the scripts rely."""

GIVEN = re.compile(r"(?:(?P<kind>[a-z]+)\.)?(?P<key>[a-z][a-z0-9-]*)=(?P<value>.*)", re.DOTALL)


class Site(Record):
    """How jobs are to be submitted.

    Args:
        options: by name of the option, its value.
        by_kind: those that hold for one kind of tasks alone, and go before the others.
        warning: seconds before the time limit at which a task is asked to save.
        environment: variables that jobs are started with.
        folder: in which the commands run.
        program: words that begin a command line.
    """

    options: dict[str, str] = {}
    by_kind: dict[str, dict[str, str]] = {}
    warning: int = 120
    environment: dict[str, str] = {}
    folder: Path
    program: tuple[str, ...]

    @classmethod
    def here(cls, given: Iterable[str], kinds: Iterable[str], environment: Mapping[str, str]) -> Site:
        """The site that options of the form ``KEY=VALUE`` or ``KIND.KEY=VALUE`` describe; commas part several.

        Args:
            given: options.
            kinds: of tasks that there may be.
            environment: see above.

        Raises:
            UsageError: an option is of another form, names an unknown kind, or is one that the scripts rely on.
        """
        known = tuple(kinds)
        options: dict[str, str] = {}
        by_kind: dict[str, dict[str, str]] = {}
        for text in _parts(given):
            found = GIVEN.fullmatch(text)
            if found is None:
                raise UsageError("--cluster-set", f"'{text}' is not KEY=VALUE", "write mem=32G,time=2:00:00,gpus=1")
            kind, key, value = found["kind"], found["key"], found["value"]
            if kind is not None and kind not in known:
                raise UsageError("--cluster-set", f"'{kind}' is no kind of job", f"the kinds are {', '.join(known)}")
            if key in DECIDED:
                raise UsageError("--cluster-set", f"'{key}' is decided by the graph of the jobs", "leave it out")
            (options if kind is None else by_kind.setdefault(kind, {}))[key] = value
        return cls(
            options=options,
            by_kind=by_kind,
            environment=dict(environment),
            folder=Path.cwd(),
            program=(sys.executable, "-m", "selfcfg"),
        )

    def said(self, kind: str) -> dict[str, str]:
        """What was said of a kind of tasks."""
        return {**self.options, **self.by_kind.get(kind, {})}

    def cpus(self, kind: str, default: int) -> int:
        """Processor cores of a kind of tasks.

        Raises:
            UsageError: not a number above 0.
        """
        return self.number(kind, "cpus", default)

    def number(self, kind: str, key: str, default: int) -> int:
        """A whole number that was said of a kind of tasks.

        Raises:
            UsageError: not a number above 0.
        """
        text = self.said(kind).get(key, str(default))
        if not text.isdigit() or int(text) < 1:
            raise UsageError(f"--cluster-set {key}={text}", "it is not a number above 0", f"write {key}=4")
        return int(text)

    def sbatch(self, kind: str, resources: Resources) -> dict[str, str]:
        """The options of a kind of tasks: what they take, with what was said in its place or besides."""
        minutes = math.ceil(resources.seconds / 60)
        found = {
            "time": f"{minutes // 1440}-{minutes // 60 % 24:02d}:{minutes % 60:02d}:00",
            "mem": f"{math.ceil(resources.memory / 2**20)}M",
            "cpus-per-task": str(resources.cpus),
            "gres": _gres(str(resources.gpus)),
        }
        for key, value in self.said(kind).items():
            if key not in OURS:
                found[NAMES.get(key, key)] = _gres(value) if key == "gpus" else value
        if "mem-per-cpu" in found or "mem-per-gpu" in found:
            found["mem"] = self.said(kind).get("mem", LEFT_OUT)
        left_out = {"gres": "", "mem": LEFT_OUT, "time": LEFT_OUT}
        return {key: value for key, value in found.items() if left_out.get(key) != value}


def environment_of(variables: Iterable[str]) -> dict[str, str]:
    """Those of some variables that are set."""
    return {name: os.environ[name] for name in variables if name in os.environ}


def _gres(gpus: str) -> str:
    """GPUs ("1", "a100:2", "0") as Slurm's generic resource; none: empty."""
    return "" if gpus in ("0", "") else f"gpu:{gpus}"


def _parts(given: Iterable[str]) -> Iterable[str]:
    """The options, parted at commas; what follows a comma and has no "=" belongs to the value before ("a,b")."""
    for text in given:
        parts: list[str] = []
        for part in text.split(","):
            if parts and "=" not in part:
                parts[-1] += f",{part}"
            else:
                parts.append(part)
        yield from (part.strip() for part in parts)
