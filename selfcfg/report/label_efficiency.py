"""The report of a benchmark of label efficiency: what may be concluded, tables, a plot, and every score as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfcfg.engine.label_efficiency.results import LabelResult, Protocol
from selfcfg.files import replacing, write_text
from selfcfg.kernels.statistics import Estimate, Interval
from selfcfg.report.label_cells import Cell, baseline_of, cells_of, conclusions, rates_at_an_end
from selfcfg.report.tables import cell as plain
from selfcfg.report.tables import number, table
from selfcfg.sheets import comma_separated

PAGE, PLOT, SCORES = "report.md", "label_efficiency.png", "cases.csv"

_COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00")
"""Okabe and Ito's palette without its yellow, told apart with every colour vision."""

_MARKERS = "os^D"
"""With each round through the colours the next one."""

_PANEL_INCHES = (4.6, 3.8)

_CHOICE = (
    " The learning rate was chosen by the Dice on labelled subjects that were kept out of training (every fifth, ten "
    "at most); with fewer than five, on those trained on."
)


def write_label_report(
    folder: Path, protocol: Protocol, results: Sequence[LabelResult], subjects: Mapping[str, str]
) -> list[Cell]:
    """The cells that report.md tells of, which is written into `folder` with the plot and the scores of all cases.

    Args:
        folder: of the benchmark.
        protocol: that its jobs share.
        results: of all jobs that are finished, at least one.
        subjects: of each test case.
    """
    cells, baseline = cells_of(results, subjects), baseline_of(results)
    sentences = [*conclusions(cells, baseline), *rates_at_an_end(results, protocol.rates)]
    write_text(folder / SCORES, _scores(results, subjects))
    draw_cells(cells, baseline, folder / PLOT)
    sections = [
        f"# Label efficiency: {protocol.dataset}, {protocol.configuration}, planner {protocol.planner}",
        "## What may be concluded",
        "\n".join(f"- {plain(sentence)}" for sentence in sentences),
        f"![Dice over labelled subjects]({PLOT})",
        *_tables(cells, baseline),
        "## How it was made",
        *_making(protocol, results),
    ]
    write_text(folder / PAGE, "\n\n".join(sections) + "\n")
    return cells


def table_of(cells: Sequence[Cell], baseline: str, *, with_budget: bool = False) -> str:
    """A Markdown table with one row a cell."""
    heads = [
        "arm",
        "labelled",
        "Dice (95 %)",
        "seeds",
        "range over seeds",
        f"difference to {baseline} (95 %)",
        "p",
        "p, Holm",
    ]
    if with_budget:
        return table(["budget", *heads], [[cell.budget, *_row(cell)] for cell in cells], numbers_from=2)
    return table(heads, [_row(cell) for cell in cells])


def draw_cells(cells: Sequence[Cell], baseline: str, path: Path) -> None:
    """Writes a PNG: mean Dice over labelled subjects, and below it the difference to the baseline.

    A line an arm, a column a budget, with intervals, and above with each seed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    budgets, arms = ([*dict.fromkeys(getattr(cell, what) for cell in cells)] for what in ("budget", "arm"))
    has_differences = any(cell.against for cell in cells)
    width, height = _PANEL_INCHES
    rows = 2 if has_differences else 1
    figure = Figure(figsize=(width * len(budgets), height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, len(budgets), sharex="col", sharey="row", squeeze=False)
    for column, budget in zip(panels.T, budgets, strict=True):
        shown = [cell for cell in cells if cell.budget == budget]
        for place, arm in enumerate(arms):
            if mine := [cell for cell in shown if cell.arm == arm]:
                turn, color = divmod(place, len(_COLORS))
                style = {"color": _COLORS[color], "marker": _MARKERS[turn % len(_MARKERS)], "label": arm}
                _line(column, mine, style, 1 + 0.02 * (place - (len(arms) - 1) / 2))
        counts = sorted({cell.subjects for cell in shown})
        for panel in column[1:]:
            panel.axhline(0, color="0.3", linewidth=1)
        for panel in column:
            panel.set_xscale("log")
            panel.set_xticks(counts, [str(count) for count in counts])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        column[0].set_title(f"{budget}: {shown[0].steps} steps", fontsize=10)
        column[-1].set_xlabel("labelled subjects")
    panels[0][0].set_ylabel("mean Dice of the test subjects")
    figure.legend(handles=panels[0][0].get_legend_handles_labels()[0], loc="outside right upper", fontsize="small")
    if has_differences:
        panels[1][0].set_ylabel(f"difference to {baseline}")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def _line(column: Sequence[Any], cells: Sequence[Cell], style: Mapping[str, str], beside: float) -> None:
    """One arm in the panels of a budget; arms stand a little beside each other."""
    _points(column[0], [(cell.subjects * beside, cell.dice) for cell in cells], style)
    for cell in cells:
        seeds = [*cell.by_seed.values()]
        column[0].plot([cell.subjects * beside] * len(seeds), seeds, ".", color=style["color"], alpha=0.4, markersize=4)
    for panel in column[1:]:
        found = [(cell.subjects * beside, cell.against.difference) for cell in cells if cell.against]
        _points(panel, found, style)


def _points(panel: Any, estimates: Sequence[tuple[float, Estimate]], style: Mapping[str, str]) -> None:
    """Means with their intervals, joined by a line."""
    means = [found.mean for _, found in estimates]
    intervals = [found.interval or Interval(found.mean, found.mean) for _, found in estimates]
    below = [mean - interval.low for mean, interval in zip(means, intervals, strict=True)]
    above = [interval.high - mean for mean, interval in zip(means, intervals, strict=True)]
    counts = [count for count, _ in estimates]
    panel.errorbar(counts, means, yerr=[below, above], markersize=5, capsize=3, **style)


def _tables(cells: Sequence[Cell], baseline: str) -> list[str]:
    blocks = ["## Scores"]
    for budget in dict.fromkeys(cell.budget for cell in cells):
        mine = [cell for cell in cells if cell.budget == budget]
        blocks += [f"### {plain(budget)}: {mine[0].steps} steps with labels", table_of(mine, baseline)]
    return blocks


def _row(cell: Cell) -> list[object]:
    scores = [*cell.by_seed.values()]
    row: list[object] = [cell.arm, cell.subjects, _with(cell.dice.mean, cell.dice.interval, ""), len(scores)]
    row.append(f"{min(scores):.3f} to {max(scores):.3f}")
    if cell.against is None:
        return [*row, "-", "-", "-"]
    difference = cell.against.difference
    probabilities = [
        "too few" if p is None else "< 0.001" if p < 0.001 else number(p) for p in (cell.against.sign_flip, cell.p)
    ]
    return [*row, _with(difference.mean, difference.interval, "+"), *probabilities]


def _with(mean: float, interval: Interval | None, sign: str) -> str:
    between = f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f}" if interval else "too few"
    return f"{mean:{sign}.3f} ({between})"


def _making(protocol: Protocol, results: Sequence[LabelResult]) -> list[str]:
    rows = []
    for name, arm in protocol.arms.items():
        before = "-"
        if arm.pretrainer is not None:
            steps = arm.pretraining["epochs"] * arm.pretraining["iterations_per_epoch"]
            before = f"{arm.pretrainer}, {steps} steps without labels on {len(protocol.train)} cases"
            before += "".join(f" and {further}" for further in arm.unlabelled)
            before += f", from the weights of {arm.pretrained_from}" if arm.pretrained_from else ""
            before += "".join(f", guided by the labels of {reference}" for reference in arm.reference)
        chosen = [result.rate for result in results if result.arm == name]
        counts = ", ".join(f"{rate:g} ({chosen.count(rate)} times)" for rate in protocol.rates)
        rows.append([name, before, arm.trainer, counts])
    return [
        table(["arm", "before", "with labels", "learning rate"], rows, numbers_from=9),
        f"Every job was scored on the same {len(protocol.test)} test cases, which no training and no choice of a rate "
        "has seen. For one seed all arms have the same labelled subjects, and those of a smaller number are among "
        "those of a bigger one." + (_CHOICE if len(protocol.rates) > 1 else ""),
        "The Dice of a case is the mean over its classes, that of a subject the mean over its cases and over the "
        "seeds. Intervals are of the bootstrap over test subjects; p is that of the sign-flip permutation "
        "test of paired differences, corrected by Holm's method for all comparisons of this page.",
        f"All scores: `{SCORES}`; all jobs: `results.jsonl`; what they share: `protocol.json`.",
    ]


def _scores(results: Sequence[LabelResult], subjects: Mapping[str, str]) -> str:
    heads = ["arm", "fraction", "labelled_subjects", "budget", "steps", "seed", "subject", "case", "dice"]
    rows = (
        [one.arm, one.fraction, one.subjects, one.budget, one.steps, one.seed, subjects[case], case, dice]
        for one in results
        for case, dice in one.cases.items()
    )
    return comma_separated(heads, rows)
