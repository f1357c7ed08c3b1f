"""Trained models of nnU-Net as models of ours: the same outputs, everything linked, nothing unsaid."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfcfg.cli import main
from selfcfg.engine.checkpoint import take_over
from selfcfg.engine.prediction.loading import load_model
from selfcfg.errors import DataError, UsageError
from selfcfg.interop.nnunet_model_read import import_model
from selfcfg.labels import LabelSchema
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Plan
from selfcfg.runs import RunFolder, RunRecord
from tests.interop.conftest import FIRST, SECOND, Write, cascade_plan, plan_of

REGIONS = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}


def image_of(plan: Plan, channels: int = 1) -> torch.Tensor:
    dimensions = next(iter(plan.configurations.values())).dimensions
    return torch.randn(1, channels, *(16,) * dimensions)


def record_of(model: Path, fold: int | str = 0) -> RunRecord:
    return RunRecord.read(RunFolder(model / f"fold_{fold}").record)


def rewritten(file: Path, old: bytes, new: bytes) -> None:
    """Replaces bytes in the pickle of a checkpoint."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_outputs_are_those_of_nnunets_own_network(
    kind: str, dimensions: int, labels: LabelSchema | None, write_theirs: Write, tmp_path: Path
) -> None:
    plan = plan_of(kind, dimensions, labels)
    source, (theirs,) = write_theirs(plan, inference_allowed_mirroring_axes=tuple(range(dimensions)))
    import_model(source, tmp_path / "m")
    (ours,) = load_model(tmp_path / "m", **CPU).networks
    image = image_of(plan)
    with torch.inference_mode():
        expected = theirs(image)
        torch.testing.assert_close(ours(image), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_what_made_it_is_noted(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of())
    import_model(source, tmp_path / "m")
    record = record_of(tmp_path / "m")
    assert record.origin is not None and record.status == "finished"
    assert (record.origin.trainer, record.origin.epoch) == ("nnUNetTrainer", 1000)
    assert (record.origin.checkpoint, record.origin.source) == ("fold_0/checkpoint_final.pth", source.name)
    assert len(record.origin.checkpoint_hash) == 32


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrapped_networks_are_the_same_network(prefix: str, write_theirs: Write, tmp_path: Path) -> None:
    source, (network,) = write_theirs(plan_of())
    import_model(source, tmp_path / "bare")
    file = source / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["network_weights"] = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    torch.save(content, file)
    import_model(source, tmp_path / "wrapped")
    wrapped, bare = (RunFolder(tmp_path / name / "fold_0").final.read_bytes() for name in ("wrapped", "bare"))
    assert wrapped == bare


def test_numbers_of_older_numpy_are_read(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of())
    rewritten(source / "fold_0" / "checkpoint_final.pth", b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    assert import_model(source, tmp_path / "m").folds == ("fold_0",)


def test_every_numbered_fold_is_taken_and_fold_all_only_alone(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of(), folds=(0, 2, "all"))
    several = import_model(source, tmp_path / "several")
    assert several.folds == ("fold_0", "fold_2") and "fold_all" in several.notes[0]
    assert len(load_model(tmp_path / "several", **CPU).networks) == 2
    assert import_model(source, tmp_path / "all", folds=["all"]).folds == ("fold_all",)
    assert record_of(tmp_path / "all", "all").fold == "all"
    shutil.rmtree(source / "fold_0")
    shutil.rmtree(source / "fold_2")
    assert import_model(source, tmp_path / "alone").folds == ("fold_all",)


@pytest.mark.parametrize(
    ("dimensions", "theirs", "ours"), [(3, (0, 1, 2), (0, 1, 2)), (3, (2,), (2,)), (2, (0, 1), (1, 2)), (3, None, ())]
)
def test_mirroring_is_as_the_checkpoint_allows(
    dimensions: int, theirs: Any, ours: tuple[int, ...], write_theirs: Write, tmp_path: Path
) -> None:
    source, _ = write_theirs(plan_of(dimensions=dimensions), inference_allowed_mirroring_axes=theirs)
    made = import_model(source, tmp_path / "m")
    assert load_model(tmp_path / "m", **CPU).mirror_axes == ours
    assert any("no mirroring" in note for note in made.notes) == (not ours)


def test_both_stages_of_a_cascade_are_linked_and_predict(write_theirs: Write, tmp_path: Path) -> None:
    write_theirs(cascade_plan(), ("all",), FIRST)
    source, _ = write_theirs(cascade_plan(), ("all",), SECOND)
    made = import_model(source, tmp_path / "m")
    assert made.first == tmp_path / f"m__{FIRST}"
    model = load_model(tmp_path / "m", **CPU)
    assert model.first is not None and model.first.configuration.after is None
    image = np.random.default_rng(0).normal(size=(1, 20, 18, 17)).astype(np.float32)
    assert model.predict((image, (1.0, 1.0, 1.0))).labels.shape == (20, 18, 17)


def test_the_first_stage_is_named_like_the_second(write_theirs: Write, tmp_path: Path) -> None:
    write_theirs(cascade_plan(), (0,), FIRST)
    source, _ = write_theirs(cascade_plan(), (0,), SECOND)
    assert import_model(source, tmp_path / f"a__{SECOND}").first == tmp_path / f"a__{FIRST}"


def test_a_cascade_without_its_first_stage_is_refused(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(cascade_plan(), (0, 1), SECOND)
    with pytest.raises(DataError, match=f"the model of {FIRST}, whose result it takes in, is not there"):
        import_model(source, tmp_path / "m")
    write_theirs(cascade_plan(), (0,), FIRST)
    with pytest.raises(UsageError, match=r"no checkpoint_final\.pth of fold_1 \(there are fold_0\)"):
        import_model(source, tmp_path / "m")
    assert not list(tmp_path.glob("*m*"))


def test_best_and_latest_weights(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of())
    write_theirs(plan_of(), file="best")
    import_model(source, tmp_path / "m")
    run = RunFolder(tmp_path / "m" / "fold_0")
    assert run.best.is_file() and run.best.read_bytes() != run.final.read_bytes()
    import_model(source, tmp_path / "b", weights="best")
    assert RunFolder(tmp_path / "b" / "fold_0").final.read_bytes() == run.best.read_bytes()
    (source / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(DataError, match=r"no checkpoint_final\.pth in fold_0, but checkpoint_best\.pth; choose one"):
        import_model(source, tmp_path / "n")


def test_plans_of_before_2_4(write_theirs: Write, tmp_path: Path) -> None:
    plan = plan_of()
    source, (theirs,) = write_theirs(plan)
    content = json.loads((source / "plans.json").read_text())
    network = content["configurations"]["small"].pop("architecture")["arch_kwargs"]
    # features were base * 2^stage, at most the largest
    content["configurations"]["small"] |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": network["n_conv_per_stage"],
        "n_conv_per_stage_decoder": network["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": network["strides"],
        "conv_kernel_sizes": network["kernel_sizes"],
    }
    (source / "plans.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"encoder\.stages\.1.* is \(6, 4.* there and \(8, 4"):
        import_model(source, tmp_path / "m")
    content["configurations"]["small"] |= {"UNet_base_num_features": 6, "unet_max_num_features": 6}
    wide = plan.configurations["small"].topology.model_copy(update={"features": (6, 6, 6)})
    source, (theirs,) = write_theirs(
        plan.model_copy(
            update={"configurations": {"small": plan.configurations["small"].model_copy(update={"topology": wide})}}
        )
    )
    (source / "plans.json").write_text(json.dumps(content))
    import_model(source, tmp_path / "m")
    image = image_of(plan)
    with torch.inference_mode():
        torch.testing.assert_close(
            load_model(tmp_path / "m", **CPU).networks[0](image), theirs(image), rtol=1e-4, atol=1e-4
        )


def test_other_configurations_of_the_plans_need_not_be_understood(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of())
    content = json.loads((source / "plans.json").read_text())
    content["configurations"]["own"] = {"inherits_from": "small", "preprocessor_name": "MyOwn"}
    (source / "plans.json").write_text(json.dumps(content))
    import_model(source, tmp_path / "m")
    assert list(load_model(tmp_path / "m", **CPU).plan.configurations) == ["small"]


def test_trainers_of_others_are_named(write_theirs: Write, tmp_path: Path) -> None:
    for trainer, is_named in [
        ("nnUNetTrainer_250epochs_NoMirroring", False),
        ("nnUNetTrainerDA5ord0", False),
        ("nnUNetTrainerNoDeepSupervision", False),
        ("MyTrainer", True),
    ]:
        source, _ = write_theirs(plan_of(), trainer_name=trainer)
        made = import_model(source, tmp_path / trainer)
        assert any(trainer in note for note in made.notes) == is_named, trainer


def test_training_starts_from_it(write_theirs: Write, tmp_path: Path) -> None:
    plan = plan_of()
    source, _ = write_theirs(plan)
    import_model(source, tmp_path / "m")
    parts = build_parts(plan.configurations["small"].topology, 1, plan.labels.n_outputs)
    assert take_over(tmp_path / "m" / "fold_0", parts).taken == ("encoder", "decoder", "head")


def test_the_fingerprint_is_kept_where_it_is_one(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of())
    statistics = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
    facts = {
        "spacings": [[1, 1, 1]],
        "shapes_after_crop": [[9, 9, 9]],
        "foreground_intensity_properties_per_channel": {"0": statistics},
        "median_relative_size_after_cropping": 1.0,
    }
    (source / "dataset_fingerprint.json").write_text(json.dumps(facts))
    import_model(source, tmp_path / "m")
    known = load_model(tmp_path / "m", **CPU).facts
    assert known is not None and known.n_cases == 1
    (source / "dataset_fingerprint.json").write_text("{}")
    made = import_model(source, tmp_path / "n")
    assert any("dataset_fingerprint.json" in note for note in made.notes)
    assert load_model(tmp_path / "n", **CPU).facts is None


def test_the_command_line(write_theirs: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, _ = write_theirs(plan_of())
    command = ["import", "nnunet", str(source), "--out", str(tmp_path / "m"), "--json"]
    assert main(command) == 0
    said = capfd.readouterr()
    assert json.loads(said.out.splitlines()[-1]) == {"model": str(tmp_path / "m")}
    assert "not taken over" in said.err and "selfcfg predict" in said.err
    assert main(command) == 2
    assert "it is there already" in capfd.readouterr().err
    assert main(["report", str(tmp_path / "m")]) == 1
    assert "error: " in capfd.readouterr().err
