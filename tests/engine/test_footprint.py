"""What a plan takes, from its numbers, against what is really counted or written."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from selfcfg.cli import main
from selfcfg.dataset import Dataset
from selfcfg.engine.data.store import Store
from selfcfg.engine.footprint import (
    n_passes,
    prediction_bytes,
    refuse_full_disk,
    resampled_shapes,
    store_bytes,
    training_bytes,
)
from selfcfg.engine.forecasting.forecast import refuse_too_large
from selfcfg.engine.prediction.sliding import Window, slide
from selfcfg.errors import SelfcfgError
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Plan
from selfcfg.testing import small_plan

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose tiny dataset is planned and preprocessed."""
    workspace = tmp_path_factory.mktemp("footprint")
    shutil.copytree(tiny_dataset.root, workspace / "raw" / tiny_dataset.name)
    for command in (["plan", "901"], ["preprocess", "901", "--jobs", "1"]):
        assert main([*command, "--workspace", str(workspace)]) == 0
    return workspace / "preprocessed" / tiny_dataset.name


def test_shapes_and_disk_of_preprocessed_cases(prepared: Path) -> None:
    plan = Plan.read(prepared / "plans" / "standard.json")
    facts = Fingerprint.read(prepared / "fingerprint.json")
    shapes = resampled_shapes(facts, plan, plan.configuration("3d_fullres"))
    folder = next(prepared.glob("3d_fullres-*"))
    assert shapes == {case: Store(folder).open(case).info.shape for case in Store(folder).cases()}
    taken = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert taken <= store_bytes(list(shapes.values()), plan)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("shape", [(1, 20, 20), (9, 40, 17), (40, 64, 33)])
def test_passes_are_those_that_prediction_makes(dimensions: int, shape: tuple[int, int, int]) -> None:
    plan = small_plan(dimensions)
    configuration = plan.configurations["small"]
    axes = tuple(axis for axis in plan.mirror_axes if axis >= 3 - dimensions)
    seen = 0

    class Counting(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            nonlocal seen
            seen += len(batch)
            return batch[:, :1].repeat(1, plan.labels.n_outputs, *(1 for _ in configuration.patch_size))

    window = Window(
        patch=configuration.patch_size, n_outputs=plan.labels.n_outputs, mirror_axes=axes, step=0.5, batch=1,
        precision="float32",
    )  # fmt: skip
    image = torch.zeros((len(plan.channels), *shape)).numpy()
    for _ in slide([Counting()], image, window, CPU, CPU):
        pass
    assert seen == n_passes(shape, plan, configuration)


def test_what_grows_grows() -> None:
    plan = small_plan(3)
    small = plan.configurations["small"]
    large = small.model_copy(update={"batch_size": 8 * small.batch_size})
    assert training_bytes(plan, large, 2) > training_bytes(plan, small, 2)
    assert training_bytes(plan, small, 4) > training_bytes(plan, small, 2)
    assert prediction_bytes((200, 200, 200), plan, small) > prediction_bytes((20, 20, 20), plan, small)


def test_a_training_that_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(3)
    small = plan.configurations["small"]
    refuse_too_large(plan, small, "float32", CPU)
    huge = small.model_copy(update={"batch_size": 10**7})
    with pytest.raises(SelfcfgError, match=r"a step takes about .* GB, there are .*--memory"):
        refuse_too_large(plan, huge, "float32", CPU)


def test_a_disk_that_is_too_full_is_noticed_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = small_plan(3), tmp_path / "not" / "there"
    refuse_full_disk(folder, [(20, 20, 20)], plan)
    assert not capsys.readouterr().err
    with pytest.raises(SelfcfgError, match="are free"):
        refuse_full_disk(folder, [(10**6, 10**6, 10**6)], plan)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 8000 + 100_000))
    refuse_full_disk(folder, [(20, 20, 20)], plan)
    assert "warning: the preprocessed cases take up to" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
