"""An experiment as its training leaves it, without the training."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from selfcfg.dataset import Dataset
from selfcfg.engine.scoring.evaluate import Evaluation, evaluate
from selfcfg.engine.scoring.validation import cross_validated
from selfcfg.fingerprint import ChannelStatistics
from selfcfg.io import read_label, write_label
from selfcfg.plan import Configuration, Plan, Reason
from selfcfg.report.report import write_report
from selfcfg.runs import RunRecord
from selfcfg.topology import Topology
from selfcfg.workspace import Workspace

LOG = [
    {"epoch": epoch, "loss": 1 / (epoch + 1), "validation": {"dice": epoch / 4}, "seconds": 60.0} for epoch in range(3)
]
STATISTICS = ChannelStatistics(max=9, mean=1, median=1, min=0, percentile_00_5=0, percentile_99_5=8, std=1)


@dataclass
class Road:
    """A workspace in which two folds of the tiny dataset were trained, as far as a report can tell."""

    workspace: Workspace
    dataset: Dataset
    folder: Path
    plan: Plan
    evaluation: Evaluation

    def report(self) -> str:
        return write_report(self.folder, self.evaluation, self.dataset, self.plan).markdown.read_text(encoding="utf-8")


@pytest.fixture
def road(tiny_dataset: Dataset, tmp_path: Path) -> Road:
    workspace = Workspace.at(tmp_path)
    shutil.copytree(tiny_dataset.root, workspace.raw / tiny_dataset.name)
    dataset = Dataset.open(workspace.raw / tiny_dataset.name)
    folder = workspace.results / dataset.name / "supervised__standard__3d_fullres"
    plan = plan_of(dataset)
    ids = [case.id for case in dataset.cases]
    predictions = {}
    for fold, validation in enumerate((ids[:4], ids[4:])):
        record(fold, ids, validation).write(folder / f"fold_{fold}" / "run.json")
        plan.write(folder / f"fold_{fold}" / "plan.json")
        (folder / f"fold_{fold}" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
        for case in validation:
            predictions[case] = folder / f"fold_{fold}" / "validation" / f"{case}.nii.gz"
            label, geometry = read_label(dataset.case(case).label)
            write_label(predictions[case], np.roll(label, ids.index(case), axis=2), geometry)
        scored = {case: predictions[case] for case in validation}
        references = {case: dataset.case(case).label for case in validation}
        evaluate(references, scored, dataset.labels).write(folder / f"fold_{fold}" / "validation")
    evaluation = cross_validated(folder)
    return Road(workspace, dataset, folder, plan, evaluation)


def record(fold: int, ids: list[str], validation: list[str]) -> RunRecord:
    return RunRecord(
        dataset="Dataset901_Tiny",
        trainer="supervised",
        planner="standard",
        configuration="3d_fullres",
        fold=fold,
        settings={"epochs": 12},
        label_fraction=1.0,
        seed=7,
        init=None,
        plan_hash="",
        data_hash="",
        train=tuple(case for case in ids if case not in validation),
        validation=tuple(validation),
        versions={"torch": "2.13.0"},
        machine={"threads": 1},
        status="finished",
    )


def plan_of(dataset: Dataset) -> Plan:
    ones, twos = (1, 1, 1), (2, 2, 2)
    topology = Topology(
        features=(32, 64),
        kernel_sizes=((3, 3, 3),) * 2,
        strides=(ones, twos),
        encoder_blocks=(2, 2),
        decoder_blocks=(2,),
    )
    configuration = Configuration(
        spacing=(2.0, 1.0, 1.0),
        patch_size=(14, 24, 20),
        batch_size=2,
        median_shape=(14, 24, 20),
        normalization=("zscore", "zscore"),
        use_mask_for_norm=(False, False),
        topology=topology,
        batch_dice=False,
        reasons=(Reason(what="patch", value="14 x 24 x 20", why="It fits | whole. More words.", change="--memory"),),
    )
    return Plan(
        dataset=dataset.name,
        planner="standard",
        memory_gb=8,
        channels=dataset.description.channels,
        labels=dataset.labels,
        axis_order=(0, 1, 2),
        median_spacing=(2.0, 1.0, 1.0),
        median_shape=(14, 24, 20),
        intensities=(STATISTICS, STATISTICS),
        mirror_axes=(0, 1, 2),
        dimensions=3,
        configurations={"3d_fullres": configuration},
    )
