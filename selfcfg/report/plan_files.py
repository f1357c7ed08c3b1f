"""The page of a plan and its pictures as files beside the plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfcfg.engine.planner import Alternative
from selfcfg.errors import UsageError
from selfcfg.files import write_text
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Plan
from selfcfg.report.plan_page import HEADING, plan_page
from selfcfg.report.plan_plots import TITLES, draw_plots


def write_page(file: Path, plan: Plan, fingerprint: Fingerprint, alternatives: Sequence[Alternative]) -> Path:
    """The Markdown page of a plan, written beside the plan's file with the pictures that it shows.

    Args:
        file: where the plan is stored, such as ``plans/standard.json``; the page is ``plans/standard.md``.
        plan: what was decided.
        fingerprint: what it was decided from.
        alternatives: what would be decided for other accelerators.

    Raises:
        UsageError: a file that is not such a page has its name.
    """
    page = file.with_suffix(".md")
    if page.exists() and not _is_page(page):
        raise UsageError(f"write {page}", "there is a file that selfcfg did not write", "give the plan another name")
    pictures = draw_plots(plan, fingerprint, lambda name: _picture(file, name))
    write_text(page, plan_page(plan, fingerprint, alternatives, pictures))
    return page


def remove_page(file: Path) -> None:
    """Removes the page and the pictures of an earlier plan in `file`, which would contradict the next one."""
    page = file.with_suffix(".md")
    if _is_page(page):
        for name in TITLES:
            _picture(file, name).unlink(missing_ok=True)
        page.unlink()


def _picture(file: Path, name: str) -> Path:
    return file.with_name(f"{file.stem}-{name}.png")


def _is_page(page: Path) -> bool:
    if not page.is_file():
        return False
    with page.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline().startswith(HEADING)
