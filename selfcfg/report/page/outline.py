"""Which sections a page has, and in which order."""

from __future__ import annotations

from collections.abc import Callable

from selfcfg.report.page.blocks import Section
from selfcfg.report.page.facts import Facts
from selfcfg.report.page.sections.card import card
from selfcfg.report.page.sections.cases import cases, failed
from selfcfg.report.page.sections.checklist import checklist
from selfcfg.report.page.sections.data import data
from selfcfg.report.page.sections.differences import differences, rivals
from selfcfg.report.page.sections.groups import lesions, readers, subgroups, whole_images
from selfcfg.report.page.sections.methods import methods
from selfcfg.report.page.sections.plan import plan
from selfcfg.report.page.sections.scores import scores
from selfcfg.report.page.sections.summary import summary
from selfcfg.report.page.sections.training import training
from selfcfg.report.page.sections.trust import calibration, selection

SECTIONS: tuple[Callable[[Facts], Section | None], ...] = (
    summary,
    scores,
    differences,
    cases,
    failed,
    lesions,
    whole_images,
    subgroups,
    readers,
    rivals,
    selection,
    calibration,
    training,
    data,
    plan,
    methods,
    card,
    checklist,
)
"""From top to bottom; a section that the facts do not tell is None and left out. A further one is a function more."""


def sections_of(facts: Facts) -> list[Section]:
    """The sections that there are."""
    return [section for make in SECTIONS if (section := make(facts)) is not None]
