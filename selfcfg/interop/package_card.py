"""The model card of a package: what the model is and is not for, as Markdown for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.packaged import DATASET, FINGERPRINT, MANIFEST
from selfcfg.engine.prediction.postprocessing import Step
from selfcfg.errors import counted, listed
from selfcfg.geometry import times
from selfcfg.interop.cross_validation import CrossValidation
from selfcfg.interop.exchanged import INFORMING
from selfcfg.report.page.sections.summary import NOTICE
from selfcfg.report.tables import cell, number, table
from selfcfg.runs import RunRecord


@dataclass(frozen=True)
class Part:
    """An experiment of a package.

    Args:
        name: its folder within the package.
        model: with or without its networks.
        records: of its runs, with their cases.
        weight: of its probabilities in a selected model.
        scores: of its cross-validation, where they are known.
    """

    name: str
    model: Model
    records: tuple[RunRecord, ...]
    weight: float
    scores: CrossValidation | None


def card(entry: str, parts: Sequence[Part], steps: Sequence[Step], description: DatasetDescription) -> str:
    """The card of a model as Markdown; the topics follow Mitchell et al., Model Cards for Model Reporting, 2019.

    Args:
        entry: folder of the model within the package.
        parts: its experiments, the one that `entry` begins with first.
        steps: what follows the prediction.
        description: of the dataset of its training.
    """
    plan = parts[0].model.plan
    blocks = [f"# {cell(plan.dataset)}: {cell(entry)}", f"**{NOTICE}**"]
    blocks += ["## What it does", table(["", ""], _does(parts[0].model, description), numbers_from=9)]
    heads = ["experiment", "trainer", "planner", "configuration", "networks", "patch", "weight", "Dice of validation"]
    blocks += ["## What it is made of", table(heads, map(_row, parts), numbers_from=4)]
    if steps:
        blocks.append("After the prediction: " + "; ".join(cell(step) for step in steps) + ".")
    blocks.append(
        "The Dice is the mean over cases that the networks did not train on, of the same dataset; it says nothing of "
        "images from elsewhere."
    )
    blocks += ["## What it is for", _PURPOSE, "## How it is used"]
    blocks.append("```sh\nselfcfg import PACKAGE.zip --out model\nselfcfg predict model -i IMAGES -o PREDICTIONS\n```")
    blocks += ["## What is in the package", _CONTENT, "## Made with"]
    record = parts[0].records[0]
    blocks.append(table(["", ""], [*record.versions.items(), ("plan", record.plan_hash)], numbers_from=9))
    return "\n\n".join(blocks) + "\n"


_PURPOSE = (
    "For whoever shares it to say: which question, whose images, who reads the result. Out of scope are images unlike "
    "those of its training: other modalities, contrasts, body parts, ages or scanners. `selfcfg predict` warns of "
    "spacings and intensities far from the training's, which does not catch all of it. Whether it is as good for "
    "every group of people is not known from this page."
)

_CONTENT = (
    f"`{MANIFEST}` lists every file with its size and SHA-256. Weights are safetensors; plans, settings and what was "
    f"measured are JSON. There is no image in it, no case id, no path and no program code: `{FINGERPRINT}` numbers "
    f"the training cases, and `{DATASET}` names channels and labels alone."
)


def _does(model: Model, description: DatasetDescription) -> Iterator[tuple[str, str]]:
    plan = model.plan
    yield "Input", f"{counted(len(plan.channels), 'channel')} ({listed(plan.channels, 12)}), {plan.dimensions}D"
    yield "Usual spacing", f"{times(plan.median_spacing[3 - plan.dimensions :])} mm"
    yield "Output", f"label maps of {listed(plan.labels.targets, 24)}"
    if plan.image_targets:
        yield "Of whole images", listed(plan.image_targets, 12)
    yield "Training cases of the dataset", str(description.numTraining)
    told = description.model_extra or {}
    for key in INFORMING:
        if isinstance(told.get(key), str):
            yield f"Dataset's {key}", str(told[key])
    temperature = "none" if model.temperature == 1 else f"temperature {model.temperature:.3f}"
    yield "Calibration of probabilities", temperature


def _row(part: Part) -> list[object]:
    record, configuration = part.records[0], part.model.configuration
    kind = record.origin.tool if record.origin else record.trainer
    return [
        part.name,
        kind,
        record.planner,
        record.configuration,
        len(part.records),
        times(configuration.patch_size),
        f"{part.weight:.3g}",
        number(part.scores.dice if part.scores else None, 4),
    ]
