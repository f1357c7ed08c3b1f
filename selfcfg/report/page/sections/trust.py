"""How far the probabilities can be trusted, and which model was selected from the candidates of the dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfcfg.engine.calibration.temperature import Temperature
from selfcfg.engine.prediction.quality import CALIBRATION, QUALITY, Quality
from selfcfg.engine.prediction.selected import selected_models
from selfcfg.engine.scoring.calibration import Reliability
from selfcfg.engine.selection.records import FILE, Selection, Tuned, in_brackets, weighted
from selfcfg.report.page import svg
from selfcfg.report.page.blocks import SPACE, Block, Plot, Section, Table, Text
from selfcfg.report.page.facts import Facts
from selfcfg.report.tables import number


def calibration(facts: Facts) -> Section | None:
    """What `selfcfg calibrate` found: reliability before and after, and whether the Dice of a case can be foretold."""
    folder, blocks = facts.folder, []
    if facts.experiment is None or folder is None:
        return None
    if (folder / CALIBRATION).is_file():
        blocks += [*_temperature(Temperature.read(folder / CALIBRATION), facts)]
    if (folder / QUALITY).is_file():
        quality = Quality.read(folder / QUALITY)
        told = "Dice of new cases" if quality.is_useful else "No Dice is predicted for new cases"
        blocks.append(Text(f"{told}: {facts.names.text(quality.reason)}."))
    return Section("calibration", "Calibration", tuple(blocks)) if blocks else None


def _temperature(found: Temperature, facts: Facts) -> Iterator[Block]:
    curves = {"as the networks say": found.before, "with a temperature": found.after}
    cases = f"{found.n_cases} cases, each by networks that did not train on it"
    yield Text(f"Of {cases}: {facts.names.text(found.reason)}.", "lead")
    rows = [(name, *(number(score, 4) for score in (one.ece, one.brier, one.nll))) for name, one in curves.items()]
    heads = ("probabilities", "calibration error (ECE)", "Brier score", "log likelihood, negative")
    yield Table("Probabilities near the structures; lower is better", heads, tuple(rows))
    lines = [svg.Line(name, _points(one), color=place) for place, (name, one) in enumerate(curves.items())]
    ideal = svg.Line("ideal", [(0.0, 0.0), (1.0, 1.0)], color=len(lines), is_dashed=True)
    drawing = svg.curves([*lines, ideal], "confidence", "accuracy", "Accuracy by confidence")
    if drawing is not None:
        yield Plot(
            drawing,
            "How often what is believed is true. Below the dashed line, which is ideal, the networks are too sure.",
        )


def _points(one: Reliability) -> Sequence[tuple[float, float | None]]:
    return [(confidence, accuracy) for *_, confidence, accuracy in one.bins() if confidence is not None]


def selection(facts: Facts) -> Section | None:
    """What `selfcfg select` compared among the experiments of the dataset, and what follows its choice."""
    if facts.experiment is None or facts.folder is None:
        return None
    found = [folder / FILE for folder in selected_models(facts.folder.parent) if (folder / FILE).is_file()]
    if not found:
        return None
    made = Selection.read(found[0])
    chosen = f"{weighted(made.chosen)}, Dice {number(made.dice, 4)}: {facts.names.text(made.chosen.why)}."
    counts = f"{made.cases} cases of {made.subjects} subjects in {made.folds} folds"
    rows = [
        (
            weighted(one),
            "yes" if one.chosen else "no",
            number(one.dice, 4),
            number(one.score, 4) + _ends(one.interval),
            f"{one.difference:+.4f}" + _ends(one.difference_interval, signed=True),
            f"{one.cost:.3g}",
        )
        for one in made.candidates
    ]
    heads = ("candidate", "chosen", "Dice", "by subject (95 %)", "to the best (95 %)", "time to predict")
    blocks: list[Block] = [
        Text(f"The model that predicts new images of this dataset: {chosen}", "lead"),
        Table(f"Candidates on {counts}", heads, tuple(rows), numbers_from=2),
    ]
    if made.postprocessing:
        steps = [_step(one) for one in made.postprocessing]
        heads = ("of", "adopted", "components that stay", "before", "after", "gain (95 %)")
        blocks.append(Table("What was tried after it", heads, tuple(steps), numbers_from=3))
    elif made.postprocessing_note:
        blocks.append(Text(made.postprocessing_note, "note"))
    return Section("selection", "Selected model", tuple(blocks))


def _step(one: Tuned) -> tuple[str, ...]:
    return (
        one.target or "all foreground",
        "yes" if one.adopted else "no",
        "; ".join(map(str, one.steps)) or "all of them",
        number(one.before, 4),
        number(one.after, 4),
        f"{one.gain:+.4f}" + _ends(one.interval, signed=True),
    )


def _ends(interval: tuple[float, float] | None, *, signed: bool = False) -> str:
    """An interval that stays on one line."""
    return in_brackets(interval, signed=signed).replace(" to ", f"{SPACE}to{SPACE}")
