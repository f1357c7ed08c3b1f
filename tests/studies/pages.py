"""The commands of a study's page, as a shell makes them of the page's blocks, to be run on small data.

The blocks of kind ``sh`` are given to a real shell, in which ``selfcfg`` only writes down its arguments; everything
else (loops, variables, ``mv``) happens. What was written down is then run in this process, each command with the
changes that `SMALLER` says: options whose values make a study long get small values, and settings are appended. What a
page plans are networks an eighth as wide.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from selfcfg.cli import main
from selfcfg.recipes.recipe import find_recipe
from tests.conftest import slim

STUDIES = Path(__file__).parents[2] / "docs" / "studies"
BLOCK = re.compile(r"^```(\w[^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

RECORDER = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["RECORDED"], "a") as stream:
    stream.write(json.dumps(sys.argv[1:]) + "\\n")
"""

BRIEF = ("epochs=1", "iterations_per_epoch=1", "validation_iterations=1", "batch_size=2", "workers=0")

SMALLER: dict[str, dict[str, str]] = {
    "train": {},
    "label-efficiency": {"--fractions": "1.0", "--seeds": "1", "--budgets": "short=1", "--rates": "0.01"},
}
"""By command: options that get these values, whatever the page says."""


def blocks(page: str, heading: str) -> list[str]:
    """The texts of a page's blocks of a heading, such as ``sh`` or ``python notest``, in order."""
    return [text for found, text in BLOCK.findall((STUDIES / page).read_text(encoding="utf-8")) if found == heading]


def commands(text: str, folder: Path) -> list[list[str]]:
    """The arguments of every ``selfcfg`` that a block calls, after the rest of it was done in `folder`."""
    tools, recorded = folder / ".tools", folder / ".recorded"
    tools.mkdir(exist_ok=True)
    (tools / "selfcfg").write_text(RECORDER)
    (tools / "selfcfg").chmod(0o755)
    recorded.write_text("")
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "RECORDED": str(recorded)}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environment, check=False)
    assert done.returncode == 0, text
    return [json.loads(line) for line in recorded.read_text().splitlines()]


def smaller(arguments: Sequence[str], patch: str) -> list[str]:
    """A command with the changes of `SMALLER`, one step an epoch, and patches of this size."""
    command = arguments[1] if arguments[0] == "benchmark" else arguments[0]
    if command not in SMALLER:
        return list(arguments)
    options = [*arguments]
    for option, value in SMALLER[command].items():
        if option in options:
            options[options.index(option) + 1] = value
        else:
            options += [option, value]
    sets = [*BRIEF, f"patch_size={patch}"]
    if "--recipe" in options:
        stages = find_recipe(options[options.index("--recipe") + 1]).stage
        sets = [f"{stage.name}.{value}" for stage in stages if stage.trains for value in sets]
    if command == "train":
        return options + [part for value in sets for part in ("--set", value)]
    arms = options[options.index("--arms") + 1].split(",")
    options += ["--set", "batch_size=2", "--set", "workers=0", "--set", f"patch_size={patch}"]
    options += ["--no-mirroring", "--jobs", "1"]
    for arm in (text.partition("=")[0] for text in arms):
        if arm != "scratch":
            options += [part for value in sets for part in ("--pretrain-set", f"{arm}.{value}")]
    return options


def run(arguments: Sequence[str], patch: str = "", code: int = 0) -> None:
    """Runs a command here, made smaller where a patch is given."""
    given = smaller(arguments, patch) if patch else list(arguments)
    assert main(given) == code, " ".join(given)
    if given[0] == "plan":
        (plan,) = Path("workspace").glob("preprocessed/*/plans/*.json")
        slim(plan)
