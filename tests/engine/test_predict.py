from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from torch import Tensor, nn

from selfcfg.engine.checkpoint import save_weights
from selfcfg.engine.data.preprocess import prepare
from selfcfg.engine.prediction.loading import load_model
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.predict import Outcome, PredictOptions, find_inputs, predict_cases
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.files import read_json, write_json
from selfcfg.fingerprint import ChannelStatistics
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import read_image, read_label, write_image
from selfcfg.labels import LabelSchema
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Configuration, Plan
from selfcfg.runs import RunRecord
from selfcfg.topology import Topology

GEOMETRY = Geometry(
    shape=(7, 12, 14),
    spacing=(2.0, 1.0, 1.5),
    origin=(3.0, -20.0, 7.5),
    direction=(0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
)
FLAT = Geometry(shape=(1, 18, 20), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
VOLUME, PICTURE = "3d_fullres", "2d"


def plan(dimensions: int, channels: Sequence[str] = ("MR",), order: tuple[int, int, int] = (0, 1, 2)) -> Plan:
    spatial = (8, 8, 8)[:dimensions]
    topology = Topology(
        features=(4, 6),
        kernel_sizes=((3,) * dimensions,) * 2,
        strides=((1,) * dimensions, (2,) * dimensions),
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )
    spacing = tuple(GEOMETRY.spacing[axis] for axis in order)
    configuration = Configuration(
        spacing=spacing if dimensions == 3 else (1.0, 1.0),
        patch_size=spatial,
        batch_size=2,
        median_shape=tuple(map(float, spatial)),
        normalization=("none",) * len(channels),
        use_mask_for_norm=(False,) * len(channels),
        topology=topology,
        batch_dice=True,
    )
    statistics = ChannelStatistics(max=10, mean=0, median=0, min=-10, percentile_00_5=-10, percentile_99_5=10, std=1)
    return Plan(
        dataset="Dataset001_Test",
        planner="standard",
        memory_gb=8,
        channels=tuple(channels),
        labels=LabelSchema(labels={"background": 0, "organ": 1}),
        axis_order=order,
        median_spacing=spacing,
        median_shape=tuple(float(GEOMETRY.shape[axis]) for axis in order),
        intensities=(statistics,) * len(channels),
        mirror_axes=(0, 1, 2)[-dimensions:],
        dimensions=dimensions,
        configurations={VOLUME if dimensions == 3 else PICTURE: configuration},
    )


class Threshold(nn.Module):
    """The class "organ" wherever the mean of all channels is above one half."""

    def forward(self, image: Tensor) -> Tensor:
        above = image.mean(1, keepdim=True) - 0.5
        return torch.cat([-above, above], 1)


def threshold_model(plan: Plan) -> Model:
    (configuration,) = plan.configurations.values()
    return Model(plan, configuration, (Threshold(),), torch.device("cpu"), "float32")


def save_run(folder: Path, plan: Plan, seed: int = 0, noted_plan: str | None = None, **changes: object) -> Path:
    """A finished run with random weights."""
    (name,) = plan.configurations
    values = {
        "dataset": plan.dataset,
        "trainer": "supervised",
        "planner": "standard",
        "configuration": name,
        "fold": 0,
        "settings": {"patch_size": None, "batch_size": None},
        "label_fraction": 1.0,
        "seed": seed,
        "init": None,
        "plan_hash": plan.content_hash(),
        "data_hash": "",
        "train": ("a",),
        "validation": ("b",),
        "versions": {},
        "machine": {},
        "status": "finished",
    }
    RunRecord(**{**values, **changes}).write(folder / "run.json")
    plan.write(folder / "plan.json")
    torch.manual_seed(seed)
    parts = build_parts(plan.configurations[name].topology, len(plan.channels), plan.labels.n_outputs)
    metadata = {"plan_hash": noted_plan or plan.content_hash()}
    for file in ("final", "best"):
        save_weights(folder / f"{file}.safetensors", parts, metadata)
    return folder


def random_image(seed: int = 0, n_channels: int = 1, geometry: Geometry = GEOMETRY) -> np.ndarray:
    image = np.random.default_rng(seed).normal(0.5, 1, (n_channels, *geometry.shape)).astype(np.float32)
    image[..., :2] = 0
    return image


def save_images(folder: Path, **seeds: int) -> Path:
    for case, seed in seeds.items():
        write_image(folder / f"{case}_0000.nii.gz", random_image(seed), GEOMETRY)
    return folder


def run(model: Model, folder: Path, output: Path, **options: bool | float) -> Outcome:
    return predict_cases(model, find_inputs(folder, model.plan), output, PredictOptions(**options))


# --- a model


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_labels_lie_where_the_image_says(order: tuple[int, int, int]) -> None:
    image = random_image()
    found = threshold_model(plan(3, order=order)).predict((image, GEOMETRY.spacing))
    np.testing.assert_array_equal(found.labels, image[0] > 0.5)
    assert found.labels.dtype == np.uint8
    assert found.probabilities is None


def test_probabilities_agree_with_the_labels_and_are_background_outside_the_crop() -> None:
    found = threshold_model(plan(3)).predict((random_image(), GEOMETRY.spacing), probabilities=True)
    assert found.probabilities is not None
    assert found.probabilities.shape == (2, *GEOMETRY.shape)
    np.testing.assert_array_equal(found.probabilities.argmax(0), found.labels)
    np.testing.assert_allclose(found.probabilities.sum(0, dtype=np.float32), 1, atol=2e-3)
    assert (found.probabilities[0, ..., :2] == 1).all()


def test_an_image_may_be_given_in_several_ways(tmp_path: Path) -> None:
    model = threshold_model(plan(3, ("CT", "PET")))
    image = random_image(n_channels=2)
    files = [tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"]
    for file, channel in zip(files, image, strict=True):
        write_image(file, channel[None], GEOMETRY)
    from_files = model.predict(files)
    assert not from_files.geometry.differences(GEOMETRY)
    np.testing.assert_array_equal(from_files.labels, image.mean(0) > 0.5)
    joined = sitk.Compose(*(sitk.ReadImage(str(file)) for file in files))
    from_simpleitk = model.predict(joined)
    assert not from_simpleitk.geometry.differences(GEOMETRY)
    from_array = model.predict((image, GEOMETRY.spacing))
    np.testing.assert_array_equal(from_simpleitk.labels, from_files.labels)
    np.testing.assert_array_equal(from_array.labels, from_files.labels)
    with pytest.raises(DataError, match="1 channels, the model was trained on 2"):
        model.predict(files[0])


@pytest.mark.parametrize(
    ("array", "spacing", "message"),
    [
        (np.zeros((4, 5, 6)), (1, 1, 1), r"\(C, Z, Y, X\)"),
        (np.zeros((1, 4, 5, 6)), (1, 1), "three positive numbers"),
        (np.zeros((1, 4, 5, 6)), (1, 0, 1), "three positive numbers"),
        (np.full((1, 4, 5, 6), np.nan), (1, 1, 1), "NaN"),
    ],
)
def test_an_array_that_is_no_image_is_refused(array: np.ndarray, spacing: tuple[float, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        threshold_model(plan(3)).predict((array, spacing))


def test_a_2d_network_predicts_volumes_slice_by_slice() -> None:
    flat = plan(2).model_copy(update={"dimensions": 3, "median_spacing": (2.0, 1.0, 1.0)})
    image = random_image()
    found = threshold_model(flat).predict((image, (2.0, 1.0, 1.0)))
    np.testing.assert_array_equal(found.labels, image[0] > 0.5)


def test_a_prepared_case_gives_the_same(tmp_path: Path) -> None:
    model = load_model(save_run(tmp_path / "fold_0", plan(3)), device="cpu", precision="float32")
    image = random_image()
    prepared = prepare("case", image, None, GEOMETRY, model.plan, model.configuration)
    from_file = model.predict((image, GEOMETRY.spacing), mirroring=False)
    np.testing.assert_array_equal(model.predict_prepared(prepared, mirroring=False).labels, from_file.labels)
    assert (model.predict_prepared(prepared, step=0.9).labels != from_file.labels).any()
    with pytest.raises(UsageError, match="step"):
        model.predict_prepared(prepared, step=0)


def test_too_little_memory_is_met_with_single_tiles() -> None:
    class Hungry(Threshold):
        largest: int = 0

        def forward(self, image: Tensor) -> Tensor:
            if len(image) > self.largest:
                raise torch.OutOfMemoryError
            return super().forward(image)

    plain, image = threshold_model(plan(3)), random_image()
    hungry = replace(plain, networks=(Hungry(),))
    with pytest.raises(SelfcfgError, match="too little free memory for one tile"):
        hungry.predict((image, GEOMETRY.spacing))
    hungry.networks[0].largest = 1
    found = hungry.predict((image, GEOMETRY.spacing))
    np.testing.assert_array_equal(found.labels, plain.predict((image, GEOMETRY.spacing)).labels)


# --- loading


def test_folds_are_averaged_and_can_be_chosen(tmp_path: Path) -> None:
    made = plan(3)
    for fold in range(3):
        save_run(tmp_path / f"fold_{fold}", made, seed=fold, fold=fold)
    everything = load_model(tmp_path, device="cpu", precision="float32")
    assert len(everything.networks) == 3
    chosen = load_model(tmp_path, folds=[0, 2], device="cpu", precision="float32")
    assert [file.parent.name for file in chosen.files] == ["fold_0", "fold_2"]
    single = load_model(tmp_path / "fold_1", device="cpu", precision="float32")
    assert len({everything.identity, chosen.identity, single.identity}) == 3
    image = torch.from_numpy(random_image(geometry=Geometry(shape=(8, 8, 8), spacing=(1, 1, 1))))[None]
    with torch.no_grad():
        first, last = (load_model(tmp_path / f"fold_{fold}", device="cpu").networks[0](image) for fold in (0, 2))
        assert (first != last).any()
    with pytest.raises(UsageError, match="no fold 3, 7"):
        load_model(tmp_path, folds=[0, 3, 7])


def test_the_patch_of_the_training_is_used(tmp_path: Path) -> None:
    settings = {"patch_size": [4, 12, 8], "batch_size": None}
    assert load_model(save_run(tmp_path / "fold_0", plan(3), settings=settings)).configuration.patch_size == (4, 12, 8)


def test_copies_are_mirrored_only_where_the_training_mirrored(tmp_path: Path) -> None:
    mirrored = load_model(save_run(tmp_path / "a", plan(3)), device="cpu")
    assert mirrored.mirror_axes == plan(3).mirror_axes != ()
    assert "1 network of" in repr(mirrored)
    for number, settings in enumerate(({"transforms": {"mirror_p": 0.0}}, {"augmentation": "none"})):
        run = save_run(tmp_path / str(number), plan(3), settings=settings)
        assert load_model(run, device="cpu").mirror_axes == ()


def test_an_unfinished_run_is_refused_unless_its_best_weights_are_wanted(tmp_path: Path) -> None:
    run = save_run(tmp_path / "fold_0", plan(3), status="running")
    with pytest.raises(DataError, match=r"not finished.*--weights best"):
        load_model(run)
    assert load_model(run, weights="best").files == (run / "best.safetensors",)
    (run / "best.safetensors").unlink()
    with pytest.raises(DataError, match=r"best\.safetensors is missing"):
        load_model(run, weights="best")


def test_folds_of_different_plans_are_refused(tmp_path: Path) -> None:
    save_run(tmp_path / "fold_0", plan(3))
    save_run(tmp_path / "fold_1", plan(3).model_copy(update={"memory_gb": 24.0}))
    with pytest.raises(DataError, match="fold_0 and fold_1 were trained by different plans"):
        load_model(tmp_path)


def test_weights_of_another_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="another plan"):
        load_model(save_run(tmp_path / "noted", plan(3), noted_plan="something else"))
    run = save_run(tmp_path / "shapes", plan(3))
    save_run(tmp_path / "other", plan(3, ("CT", "PET")), noted_plan=plan(3).content_hash())
    (tmp_path / "other" / "final.safetensors").replace(run / "final.safetensors")
    with pytest.raises(DataError):
        load_model(run)


def test_an_edited_plan_is_refused(tmp_path: Path) -> None:
    run = save_run(tmp_path / "fold_0", plan(3))
    plan(3).model_copy(update={"memory_gb": 9.0}).write(run / "plan.json")
    with pytest.raises(DataError, match="not the plan it was trained by"):
        load_model(run)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no run\.json"):
        load_model(tmp_path)


# --- many cases


def test_cases_are_written_in_their_own_geometry(tmp_path: Path) -> None:
    images = save_images(tmp_path / "images", a=0, b=1)
    outcome = run(threshold_model(plan(3)), images, tmp_path / "out")
    assert outcome == Outcome(done=("a", "b"), skipped=(), failed=(), warnings=())
    for case, seed in (("a", 0), ("b", 1)):
        label, geometry = read_label(tmp_path / "out" / f"{case}.nii.gz")
        np.testing.assert_array_equal(label, random_image(seed)[0] > 0.5)
        assert not geometry.differences(read_image(images / f"{case}_0000.nii.gz")[1])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [".predictions", "a.nii.gz", "b.nii.gz"]


def test_a_finished_case_is_skipped_only_if_nothing_changed(tmp_path: Path) -> None:
    images, out = save_images(tmp_path / "images", a=0, b=1), tmp_path / "out"
    model = threshold_model(plan(3))
    run(model, images, out)
    again = run(model, images, out)
    assert (again.done, again.skipped) == ((), ("a", "b"))
    write_image(images / "a_0000.nii.gz", random_image(5), GEOMETRY)
    assert run(model, images, out).done == ("a",)
    np.testing.assert_array_equal(read_label(out / "a.nii.gz")[0], random_image(5)[0] > 0.5)
    (out / "b.nii.gz").unlink()
    assert run(model, images, out).done == ("b",)
    whole = (out / "b.nii.gz").read_bytes()
    (out / "b.nii.gz").write_bytes(whole[:-9])
    assert run(model, images, out).done == ("b",)
    assert (out / "b.nii.gz").read_bytes() == whole
    assert run(model, images, out, mirroring=False).done == ("a", "b")
    assert run(model, images, out, mirroring=False, overwrite=True).done == ("a", "b")
    other = threshold_model(plan(3).model_copy(update={"memory_gb": 24.0}))
    assert run(other, images, out, mirroring=False).done == ("a", "b")


def test_a_run_that_was_killed_while_writing_is_continued(tmp_path: Path) -> None:
    images, out = save_images(tmp_path / "images", a=0), tmp_path / "out"
    model = threshold_model(plan(3))
    run(model, images, out)
    note = read_json(out / ".predictions" / "a.json")
    write_json(out / ".predictions" / "a.json", {**note, "output": ""})
    assert run(model, images, out).done == ("a",)


def test_two_runs_share_an_output_folder(tmp_path: Path) -> None:
    images, out = save_images(tmp_path / "images", a=0, b=1), tmp_path / "out"
    cases = find_inputs(images, plan(3))
    first, second = (threshold_model(plan(3)) for _ in range(2))

    def predict(model: Model, case: str) -> Outcome:
        return predict_cases(model, {case: cases[case]}, out)

    with ThreadPoolExecutor(2) as both:
        list(both.map(predict, [first, second] * 8, ["a", "b"] * 8))
    assert run(first, images, out).skipped == ("a", "b")


def test_files_of_others_are_kept(tmp_path: Path) -> None:
    images, out = save_images(tmp_path / "images", a=0, b=1), tmp_path / "out"
    model = threshold_model(plan(3))
    write_image(out / "a.nii.gz", random_image(9), GEOMETRY)
    before = (out / "a.nii.gz").read_bytes()
    outcome = run(model, images, out)
    assert outcome.done == ("b",)
    assert [failure.case for failure in outcome.failed] == ["a"]
    assert "was not predicted here" in outcome.failed[0].reason
    assert (out / "a.nii.gz").read_bytes() == before
    write_image(out / "b.nii.gz", np.ones((1, *GEOMETRY.shape), dtype=np.uint8), GEOMETRY)
    outcome = run(model, images, out)
    assert ["was changed after it was predicted" in failure.reason for failure in outcome.failed] == [False, True]
    assert read_label(out / "b.nii.gz")[0].all()
    assert run(model, images, out, overwrite=True).done == ("a", "b")


def test_a_bad_case_stops_no_other(tmp_path: Path) -> None:
    images = save_images(tmp_path / "images", a=0, b=1, c=2, d=3, e=4)
    file = images / "b_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    write_image(images / "c_0000.nii.gz", np.zeros((1, *GEOMETRY.shape), dtype=np.float32), GEOMETRY)
    broken = random_image()
    broken[0, 0, 0, 3] = np.nan
    write_image(images / "e_0000.nii.gz", broken, GEOMETRY)
    outcome = run(threshold_model(plan(3)), images, tmp_path / "out")
    assert outcome.done == ("a", "d")
    assert [failure.case for failure in outcome.failed] == ["b", "c", "e"]
    for failure, fact in zip(outcome.failed, ("b_0000.nii.gz", "every voxel", "NaN"), strict=True):
        assert fact in failure.reason
    assert sorted(file.name for file in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz", "d.nii.gz"]


def test_a_mistake_inside_a_case_is_listed_with_its_place(tmp_path: Path) -> None:
    class Broken(Threshold):
        def forward(self, image: Tensor) -> Tensor:
            if image.mean() > 0.6:
                raise ValueError("broken here")
            return super().forward(image)

    images = save_images(tmp_path / "images", a=0, c=2)
    write_image(images / "b_0000.nii.gz", random_image() + 3, GEOMETRY)
    model = threshold_model(plan(3))
    outcome = run(
        Model(model.plan, model.configuration, (Broken(),), model.device, "float32"), images, tmp_path / "out"
    )
    assert outcome.done == ("a", "c")
    assert "unexpected ValueError: broken here (test_predict.py, line" in outcome.failed[0].reason


def test_a_missing_channel_fails_only_its_case(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("a_0000", "a_0001", "b_0000"):
        write_image(images / f"{name}.nii.gz", random_image(), GEOMETRY)
    outcome = run(threshold_model(plan(3, ("CT", "PET"))), images, tmp_path / "out")
    assert outcome.done == ("a",)
    assert "b_0001.nii.gz" in outcome.failed[0].reason


def test_unusual_inputs_are_warned_about(tmp_path: Path) -> None:
    images = save_images(tmp_path / "images", a=0)
    write_image(images / "b_0000.nii.gz", random_image() * 1e4, GEOMETRY)
    outcome = run(threshold_model(plan(3)), images, tmp_path / "out")
    assert len(outcome.warnings) == 1
    assert "case 'b'" in outcome.warnings[0]
    assert "foreground intensities" in outcome.warnings[0]


def test_probabilities_are_saved_beside_the_labels(tmp_path: Path) -> None:
    images, out = save_images(tmp_path / "images", a=0), tmp_path / "out"
    model = threshold_model(plan(3))
    run(model, images, out)
    assert run(model, images, out, probabilities=True).done == ("a",)
    with np.load(out / "a.npz", allow_pickle=False) as archive:
        saved = archive["probabilities"]
    assert saved.dtype == np.float16
    np.testing.assert_array_equal(saved.argmax(0), read_label(out / "a.nii.gz")[0])
    assert run(model, images, out, probabilities=True).skipped == ("a",)
    assert run(model, images, out).skipped == ("a",)
    run(model, images, out, overwrite=True)
    assert not (out / "a.npz").exists()


@pytest.mark.parametrize(
    ("ending", "written"), [(".png", ".png"), (".bmp", ".bmp"), (".tif", ".tif"), (".jpg", ".png")]
)
def test_colour_pictures_are_predicted(tmp_path: Path, ending: str, written: str) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (18, 20, 3)).astype(np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / f"one{ending}")
    outcome = run(threshold_model(plan(2, ("R", "G", "B"))), tmp_path / "images", tmp_path / "out")
    assert outcome.failed == ()
    label, geometry = read_label(tmp_path / "out" / f"one{written}")
    assert label.shape == (1, 18, 20)
    assert geometry.dimensions == 2


@pytest.mark.parametrize("name", ["file/inside", "labels.nii.gz"])
def test_an_output_folder_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    images = save_images(tmp_path / "images", a=0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SelfcfgError, match="output") as caught:
        run(threshold_model(plan(3)), images, tmp_path / name)
    assert caught.value.remedy


def test_a_single_case_tells_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(threshold_model(plan(3)), save_images(tmp_path / "images", a=0), tmp_path / "out")
    assert "predict a, slices: 7/7" in capsys.readouterr().err
    run(threshold_model(plan(3)), save_images(tmp_path / "images", b=0), tmp_path / "out")
    assert "predict: 2/2" in capsys.readouterr().err


def test_no_case_is_no_mistake(tmp_path: Path) -> None:
    assert predict_cases(threshold_model(plan(3)), {}, tmp_path).done == ()
