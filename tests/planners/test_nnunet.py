"""Plans that nnU-Net 2.8.1 made of random datasets, stored with them, reproduced in every field."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.planner_fields import differences, fields_of_ours, fields_of_theirs
from selfcfg.dataset import DatasetDescription
from selfcfg.engine.planner import load_planner
from selfcfg.fingerprint import Fingerprint

STORED: dict[str, Any] = json.loads(gzip.decompress(Path(__file__).with_name("nnunet_plans.json.gz").read_bytes()))
"""Made by ``benchmarks/planner_equality.py --store``."""


@pytest.mark.parametrize("job", STORED["jobs"], ids=lambda job: f"{job['kind']}-{job['planner']}-{job['seed']}")
def test_plan_equals_nnunets(job: dict[str, Any]) -> None:
    made = load_planner(job["planner"])(
        Fingerprint.parse(job["fingerprint"], "fingerprint"),
        DatasetDescription.parse(job["dataset"], "dataset.json"),
        dataset="Dataset001_Random",
        memory_gb=job["memory_gb"],
        spacing=job["spacing"],
    )
    assert differences(fields_of_ours(made), job["plan"]) == []


def test_the_stored_plans_meet_everything_that_is_planned() -> None:
    jobs = STORED["jobs"]
    assert STORED["versions"]["nnunetv2"] == "2.8.1"
    assert min(Counter(job["planner"] for job in jobs).values()) >= 50
    assert min(Counter(job["kind"] for job in jobs).values()) >= 20
    configurations = Counter(tuple(sorted(job["plan"]["configurations"])) for job in jobs)
    assert len(configurations) == 3  # 2D alone, with full resolution, with a cascade
    assert min(configurations.values()) >= 20
    of_2d = [job["plan"]["configurations"]["2d"] for job in jobs]
    assert {scheme for fields in of_2d for scheme in fields["normalization_schemes"]} == {
        "CTNormalization",
        "ZScoreNormalization",
        "NoNormalization",
        "RescaleTo01Normalization",
        "RGBTo01Normalization",
    }
    assert {used for fields in of_2d for used in fields["use_mask_for_norm"]} == {True, False}
    assert len({tuple(job["plan"]["transpose_forward"]) for job in jobs}) == 3
    assert any("ignore" in job["dataset"]["labels"] for job in jobs)
    assert any("regions_class_order" in job["dataset"] for job in jobs)
    assert any(job["spacing"] for job in jobs)


def test_a_field_that_changes_is_found() -> None:
    theirs = STORED["jobs"][0]["plan"]
    ours = json.loads(json.dumps(theirs))
    ours["configurations"]["2d"]["batch_size"] += 1
    del ours["transpose_forward"]
    found = differences(ours, theirs)
    assert [line.partition(":")[0] for line in found] == ["configurations.2d.batch_size", "transpose_forward"]


def test_a_field_of_nnunet_that_should_be_the_same_everywhere_is_checked() -> None:
    with pytest.raises(ValueError, match="conv_bias: False in nnU-Net's plan, True here"):
        fields_of_theirs({"configurations": {"2d": {"architecture": {"arch_kwargs": {"conv_bias": False}}}}})
