"""What the documentation shows works: its blocks are run in order, page by page, in an empty folder.

Blocks of the kinds ``console`` (lines after ``$``) and ``python`` are run; those of other kinds are only shown. A block
whose first line carries ``notest`` needs something that the page does not make. To be quick, a line that is one command
of ours is run in this process, and what is trained are networks an eighth as wide as planned, without curves.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import slim

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<kind>console|python)(?P<options>[^\n]*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"[|&;<>$`*?~\\#]")
"""Signs that mean something to a shell."""
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


class Block(NamedTuple):
    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["kind"], match["text"]) for match in found if "notest" not in match["options"]]


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def run_console(text: str) -> None:
    """Runs the lines after ``$`` as a person would type them, with the program of this environment."""
    for line in re.findall(r"^\$ (.*)", text, re.MULTILINE):
        if line.startswith("selfcfg ") and not SHELL.search(line):
            run_ours(line)
        else:
            run_by_shell(line)


def run_ours(line: str) -> None:
    """Runs a command of ours in this process; the plans that it makes become those of small networks."""
    from selfcfg.cli import main

    before = set(Path().rglob("plans/*.json"))
    assert main(shlex.split(line)[1:]) == 0, line
    for plan in set(Path().rglob("plans/*.json")) - before:
        slim(plan)


def run_by_shell(line: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "-euo", "pipefail", "-c", line]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=title)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "documentation"}
    for block in blocks(page):
        if block.kind == "console":
            run_console(block.text)
        else:
            exec(compile(block.text, title(page), "exec"), names)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=title)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in PAGES[1:]} - {"index"}
    assert {page for page in pages if page not in index} == set()


def test_commands_that_are_only_shown_exist() -> None:
    """Every ``selfcfg`` line of a block names a command and options that there are."""
    from selfcfg.cli.app import app

    groups = {group.name for group in app.registered_groups}
    for page in PAGES:
        text = "".join(SHOWN.findall(page.read_text(encoding="utf-8")))
        for line in re.findall(r"^(?:\$ )?(selfcfg [^\n#]*)", text, re.MULTILINE):
            words = line.split()[1:]
            command = words[:2] if words[0] in groups else words[:1]
            told = help_of(tuple(command))
            options = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
            assert all(option in told for option in options), f"{title(page)}: {line}"


def help_of(command: tuple[str, ...]) -> str:
    from typer.testing import CliRunner

    from selfcfg.cli.app import app

    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0, f"selfcfg {' '.join(command)}"
    return result.stdout


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference" / "cli.html").read_text(encoding="utf-8")
    assert "selfcfg plan-and-train" in reference and "--label-fraction" in reference
