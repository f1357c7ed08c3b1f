"""What a reader in a hurry has to know."""

from __future__ import annotations

from collections.abc import Iterator

from selfcfg.engine.comparison.alignment import MEAN
from selfcfg.engine.comparison.records import SystemScore
from selfcfg.engine.scoring.evaluate import one_empty
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.errors import counted, listed
from selfcfg.kernels.statistics import FEW, FEWEST
from selfcfg.report.page.blocks import Block, Bullets, Section, Text, Tile, Tiles
from selfcfg.report.page.facts import Facts

NOTICE = "For research only: not a medical device, and no basis for decisions about a patient."
_TILES = 3


def summary(facts: Facts) -> Section:
    """The main numbers, and what may be concluded."""
    blocks: list[Block] = []
    if facts.found is None:
        blocks.append(Text("No case has a score: no class is in a reference or a prediction.", "lead"))
        return Section("summary", "Summary", tuple(blocks))
    if len(facts.systems) == 1:
        blocks.append(Tiles(tuple(_tiles(facts))))
    else:
        conclusions = (facts.names.text(sentence) for sentence in facts.found.conclusions)
        blocks += [Text("What may be concluded:", "lead"), Bullets(tuple(conclusions))]
    blocks.append(Text(" ".join(_caveats(facts))))
    return Section("summary", "Summary", tuple(blocks))


def _interval(score: SystemScore) -> str:
    if score.low is None or score.high is None:
        return "too few subjects for an interval"
    return f"95 % interval {score.low:.{_digits(score)}f} to {score.high:.{_digits(score)}f}"


def _digits(score: SystemScore) -> int:
    return min(METRICS[score.metric].digits, 3)


def _tiles(facts: Facts) -> Iterator[Tile]:
    if facts.found is None:
        return
    for score in [one for one in facts.found.scores if one.target == MEAN][:_TILES]:
        title = METRICS[score.metric].title
        if score.metric == "nsd" and facts.found.nsd_tolerance is not None:
            title += f" at {facts.found.nsd_tolerance:g}{facts.found.unit('distance')}"
        mean = f"{score.mean:.{_digits(score)}f}{facts.found.unit(METRICS[score.metric].unit)}"
        yield Tile(mean, title, _interval(score))
    yield Tile(str(facts.found.cases), "cases", f"of {counted(facts.found.subjects, 'subject')}")
    if facts.evaluation is not None:
        failed = sum(any(map(one_empty, case.scores.values())) for case in facts.evaluation.cases)
        yield Tile(str(failed), "cases with a failure", "a class missed or invented altogether")


def _caveats(facts: Facts) -> Iterator[str]:
    if facts.found is None:
        return
    classes = listed(facts.found.classes, 12)
    if len(facts.found.classes) > 1:
        yield f"Means over {len(facts.found.classes)} classes ({classes}), then over cases, then over subjects."
    else:
        yield f"The class is {classes}; means are over cases, then over subjects."
    experiment = facts.experiment
    if experiment is not None:
        yield "Each case was predicted by the fold's network that did not train on it: this is internal validation."
        if len(experiment.scored) == 1 or len(experiment.scored) < len(experiment.folds):
            folds = counted(len(experiment.scored), "fold")
            yield f"{folds} alone {'is' if len(experiment.scored) == 1 else 'are'} scored: a part of the dataset."
    if facts.found.subjects < FEWEST:
        yield f"With fewer than {FEWEST} subjects nothing can be said of how sure the numbers are."
    elif facts.found.subjects < FEW:
        yield f"{facts.found.subjects} subjects are few: expect other numbers on others."
