"""Models of ours in nnU-Net's form: its own networks take the weights, and reading them back loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selfcfg.cli import main
from selfcfg.dataset import DatasetDescription
from selfcfg.engine.checkpoint import save_weights
from selfcfg.engine.prediction.loading import load_model
from selfcfg.errors import DataError, UsageError
from selfcfg.files import hash_file
from selfcfg.interop.nnunet_model_read import import_model
from selfcfg.interop.nnunet_model_write import export_model
from selfcfg.labels import LabelSchema
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Plan
from selfcfg.runs import RunFolder
from selfcfg.testing import small_record
from selfcfg.trainers.supervised import Supervised
from tests.interop.conftest import FIRST, SECOND, cascade_plan, description_of, plan_of, their_network

REGIONS = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}


def our_model(folder: Path, plan: Plan, folds: tuple[int, ...] = (0,), **changes: Any) -> Path:
    """A finished experiment with random weights; of a cascade plan both stages, the second is given."""
    previous: dict[str, Any] = {}
    for name, configuration in plan.configurations.items():
        experiment = folder / f"supervised__standard__{name}"
        for fold in folds:
            parts = build_parts(configuration.topology, plan.input_channels(configuration), plan.labels.n_outputs)
            for parameter in parts.parameters():
                nn.init.normal_(parameter, std=0.3)
            run = RunFolder(experiment / f"fold_{fold}")
            save_weights(run.final, parts, {})
            plan.write_whole(run.plan)
            made = {"fold": fold, "configuration": name, "status": "finished", **previous, **changes}
            small_record("supervised", Supervised.settings_type(), plan).model_copy(update=made).write(run.record)
        hashes = {f"fold_{fold}": hash_file(RunFolder(experiment / f"fold_{fold}").final) for fold in folds}
        previous = {"previous": experiment.name, "previous_weights": hashes}
    return experiment


def checkpoint_in(folder: Path, fold: int = 0) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth", weights_only=True)
    return content


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_nnunets_own_network_takes_every_weight(
    kind: str, dimensions: int, labels: LabelSchema | None, tmp_path: Path
) -> None:
    plan = plan_of(kind, dimensions, labels)
    model = our_model(tmp_path, plan)
    export_model(model, tmp_path / "theirs")
    plans = json.loads((tmp_path / "theirs" / "plans.json").read_text())
    network = their_network(plans, "small", 1, plan.labels.n_outputs)
    checkpoint = checkpoint_in(tmp_path / "theirs")
    network.load_state_dict(checkpoint["network_weights"], strict=True)
    image = torch.randn(1, 1, *(16,) * dimensions)
    with torch.inference_mode():
        expected = network(image)
        found = load_model(model, **CPU).networks[0](image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert checkpoint["inference_allowed_mirroring_axes"] == tuple(range(dimensions))


def test_what_nnunets_prediction_reads_is_there(tmp_path: Path) -> None:
    made = export_model(our_model(tmp_path, plan_of(), (0, 3)), tmp_path / "theirs")
    assert made.folds == ("fold_0", "fold_3")
    plans, dataset = (json.loads((tmp_path / "theirs" / name).read_text()) for name in ("plans.json", "dataset.json"))
    checkpoint = checkpoint_in(tmp_path / "theirs", 3)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    arguments = checkpoint["init_args"]
    assert (arguments["configuration"], arguments["fold"]) == ("small", 3)
    assert json.loads(json.dumps(arguments["plans"])) == plans
    assert json.loads(json.dumps(arguments["dataset_json"])) == dataset
    assert set(dataset) == {"channel_names", "labels", "numTraining", "file_ending"}


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_there_and_back_again_keeps_every_bit(kind: str, tmp_path: Path) -> None:
    model = our_model(tmp_path, plan_of(kind), (0, 1))
    export_model(model, tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "back")
    before, after = load_model(model, **CPU), load_model(tmp_path / "back", **CPU)
    for one, other in zip(before.networks, after.networks, strict=True):
        tensors = other.state_dict()
        assert all(tensor.equal(tensors[name]) for name, tensor in one.state_dict().items())
    ours, theirs = (m.configuration.model_dump(exclude={"reasons"}) for m in (before, after))
    assert ours == theirs and before.mirror_axes == after.mirror_axes


def test_both_stages_of_a_cascade_go_and_come(tmp_path: Path) -> None:
    model = our_model(tmp_path, cascade_plan())
    out = tmp_path / f"nnUNetTrainer__nnUNetPlans__{SECOND}"
    made = export_model(model, out)
    assert made.first == tmp_path / f"nnUNetTrainer__nnUNetPlans__{FIRST}"
    assert checkpoint_in(made.first)["init_args"]["configuration"] == FIRST
    import_model(out, tmp_path / "back")
    assert load_model(tmp_path / "back", **CPU).first is not None


def test_a_training_without_mirroring_is_predicted_without(tmp_path: Path) -> None:
    model = our_model(tmp_path, plan_of(), settings={"augmentation": "none"})
    made = export_model(model, tmp_path / "theirs")
    assert checkpoint_in(tmp_path / "theirs")["inference_allowed_mirroring_axes"] is None
    assert any("did not mirror" in note for note in made.notes)


def test_sizes_that_a_setting_changed_are_those_to_predict_with(tmp_path: Path) -> None:
    model = our_model(tmp_path, plan_of(), settings={"patch_size": [16, 32, 16]})
    export_model(model, tmp_path / "theirs")
    plans = json.loads((tmp_path / "theirs" / "plans.json").read_text())
    assert plans["configurations"]["small"]["patch_size"] == [16, 32, 16]


def test_the_suffix_is_that_of_dataset_json_or_is_said(tmp_path: Path) -> None:
    plan = plan_of()
    model = our_model(tmp_path, plan)
    nrrd = description_of(plan).model_copy(update={"file_ending": ".nrrd"})
    assert not export_model(model, tmp_path / "a", description=nrrd).notes
    assert json.loads((tmp_path / "a" / "dataset.json").read_text())["file_ending"] == ".nrrd"
    assert ".nii.gz" in export_model(model, tmp_path / "b").notes[0]
    import_model(tmp_path / "a", tmp_path / "back")
    assert not export_model(tmp_path / "back", tmp_path / "c").notes
    assert json.loads((tmp_path / "c" / "dataset.json").read_text())["file_ending"] == ".nrrd"


def test_subjects_and_ids_stay_here(tmp_path: Path) -> None:
    plan = plan_of()
    content = {**description_of(plan).model_dump(exclude_none=True), "selfcfg": {"subjects": {"case": "Jane Doe"}}}
    model = our_model(tmp_path, plan, train=("Jane Doe",))
    export_model(model, tmp_path / "theirs", description=DatasetDescription.parse(content, "d"))
    assert not [file for file in (tmp_path / "theirs").rglob("*") if file.is_file() and b"Jane" in file.read_bytes()]


def test_refusals(tmp_path: Path) -> None:
    plan = plan_of()
    model = our_model(tmp_path, plan)
    other = description_of(plan).model_copy(update={"labels": {"background": 0, "x": 1}})
    with pytest.raises(DataError, match="channels or labels in it are not those of the model"):
        export_model(model, tmp_path / "theirs", description=other)
    with pytest.raises(UsageError, match=r"nnU-Net reads no \.jpg files"):
        export_model(
            model, tmp_path / "theirs", description=description_of(plan).model_copy(update={"file_ending": ".jpg"})
        )
    with pytest.raises(UsageError, match="no fold 4"):
        export_model(model, tmp_path / "theirs", folds=[4])
    assert [path.name for path in tmp_path.iterdir()] == [model.name]
    export_model(model, tmp_path / "theirs")
    with pytest.raises(UsageError, match="it is there already"):
        export_model(model, tmp_path / "theirs")


def test_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = our_model(tmp_path, plan_of(), (0, 1))
    command = ["export", str(model), "--to", "nnunet", "--out", str(tmp_path / "theirs"), "--fold", "1", "--json"]
    assert main([*command, "--workspace", str(tmp_path)]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out.splitlines()[-1]) == {"model": str(tmp_path / "theirs"), "folds": ["fold_1"]}
    assert "nnUNetv2_predict_from_modelfolder -m" in said.err
    assert main(["export", str(tmp_path / "none"), "--to", "nnunet", "--out", str(tmp_path / "x")]) == 2
    assert "there is no such folder" in capfd.readouterr().err
