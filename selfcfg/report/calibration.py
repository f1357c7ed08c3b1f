"""What `selfcfg calibrate` found, for the report: a reliability diagram, and what the score of quality is worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfcfg.engine.calibration.temperature import Temperature
from selfcfg.engine.prediction.quality import CALIBRATION, QUALITY, Quality
from selfcfg.engine.scoring.calibration import Reliability
from selfcfg.files import replacing
from selfcfg.report.names import Names
from selfcfg.report.tables import number, table

PICTURE = "reliability.png"

_BEFORE, _AFTER = "#D55E00", "#0072B2"
"""Of Okabe and Ito's palette, told apart with every colour vision."""


def calibration_section(folder: Path, pictures: Path, names: Names) -> str:
    """The section of an experiment's report, and its picture; empty where nothing was calibrated.

    Args:
        folder: of the experiment.
        pictures: folder beside the report for its picture.
        names: what cases are called.

    Raises:
        DataError: a file of the calibration cannot be read.
    """
    text = []
    if (folder / CALIBRATION).is_file():
        found = Temperature.read(folder / CALIBRATION)
        curves = {"as the networks say": found.before, "with a temperature": found.after}
        draw_reliability(curves, pictures / PICTURE)
        rows = [[name, number(one.ece, 4), number(one.brier, 4), number(one.nll, 4)] for name, one in curves.items()]
        text += [
            f"Of {found.n_cases} cases, by networks that did not train on them: {names.text(found.reason)}.",
            table(["probabilities", "ECE", "Brier", "NLL"], rows),
            f"![how often what is believed is true]({pictures.name}/{PICTURE})",
        ]
    if (folder / QUALITY).is_file():
        quality = Quality.read(folder / QUALITY)
        text.append(
            f"{'Predicted' if quality.is_useful else 'No predicted'} Dice of new cases: {names.text(quality.reason)}."
        )
    return "\n\n".join(["## Calibration", *text]) if text else ""


def draw_reliability(curves: Mapping[str, Reliability], path: Path) -> None:
    """Writes a PNG: the accuracy over the mean confidence of each bin, and how many voxels each holds.

    Args:
        curves: one or two, by name.
        path: of the picture.

    Source: reliability diagrams, Guo et al. 2017, figure 1.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(4.4, 5.0), layout="constrained")
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    curve.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    for (name, one), colour in zip(curves.items(), (_BEFORE, _AFTER), strict=False):
        bins = [row for row in one.bins() if row[2]]
        curve.plot([row[3] for row in bins], [row[4] for row in bins], marker="o", color=colour, label=name)
        edges = [*(row[0] for row in one.bins()), 1.0]
        counts.stairs([row[2] for row in one.bins()], edges, color=colour)
    curve.set_ylabel("accuracy", fontsize=8)
    curve.set_ylim(0, 1)
    curve.legend(fontsize=8)
    counts.set_yscale("log")
    counts.set_ylim(bottom=1)
    counts.set_ylabel("voxels", fontsize=8)
    counts.set_xlabel("confidence", fontsize=8)
    counts.set_xlim(0, 1)
    for panel in (curve, counts):
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
