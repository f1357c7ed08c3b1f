import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import resize

from selfcfg.dataset import Dataset
from selfcfg.engine.data.preprocess import _useful_jobs, prepare, preprocess
from selfcfg.engine.data.store import Store
from selfcfg.engine.footprint import PROCESS_BYTES, SECONDS_PER_BYTE, SECONDS_PER_CASE, SECONDS_TO_START
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.fingerprint import ChannelStatistics
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import read_case, write_image, write_label
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration, Plan
from selfcfg.topology import Topology

STATISTICS = ChannelStatistics(
    max=900, mean=40.0, median=35, min=-200, percentile_00_5=-100, percentile_99_5=300, std=60.0
)
LABELS = {"background": 0, "edge": 1, "core": 2}


@dataclass(frozen=True)
class Wish:
    """What a plan made by hand is to be like."""

    spacing: tuple[float, ...] = (2.0, 1.1, 0.9)
    schemes: tuple[str, ...] = ("zscore",)
    masked: bool = False
    order: tuple[int, int, int] = (0, 1, 2)
    labels: LabelSchema = field(default_factory=lambda: LabelSchema(labels=LABELS))


def make_plan(wish=None):
    wish = wish or Wish()
    axes = len(wish.spacing)
    topology = Topology(
        features=(8, 16),
        kernel_sizes=((3,) * axes,) * 2,
        strides=((1,) * axes, (2,) * axes),
        encoder_blocks=(2, 2),
        decoder_blocks=(2,),
    )
    configuration = Configuration(
        spacing=wish.spacing,
        patch_size=(16,) * axes,
        batch_size=2,
        median_shape=(16.0,) * axes,
        normalization=wish.schemes,
        use_mask_for_norm=(wish.masked,) * len(wish.schemes),
        topology=topology,
        batch_dice=False,
    )
    return Plan(
        dataset="Dataset900_Made",
        planner="by hand",
        memory_gb=8,
        channels=tuple(f"channel {index}" for index in range(len(wish.schemes))),
        labels=wish.labels,
        axis_order=wish.order,
        median_spacing=(1.0, 1.0, 1.0),
        median_shape=(16.0, 16.0, 16.0),
        intensities=(STATISTICS,) * len(wish.schemes),
        mirror_axes=(0, 1, 2),
        dimensions=3,
        configurations={"3d_fullres" if axes == 3 else "2d": configuration},
    )


def make_case(shape=(18, 40, 36), channels=1, seed=0, border=True):
    """A body with a hole in zeros, and a label map of two classes, one of which reaches out of the body."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape)
    centre = np.reshape([(size - 1) / 2 for size in shape], (3, 1, 1, 1))
    distance = (((grid - centre) / np.reshape(shape, (3, 1, 1, 1))) ** 2).sum(0) ** 0.5
    body = distance < 0.42
    body &= ~(distance < 0.05)
    image = ndimage.gaussian_filter(rng.normal(size=(channels, *shape)), (0, 1, 1, 1)) * 200 + 50
    if border:
        image *= body
    label = ((distance < 0.3).astype(np.int16) + (distance < 0.15)).astype(np.int16)
    label[shape[0] // 2, shape[1] // 2, : shape[2] // 4] = 1
    return image.astype(np.float32), label


def reference(image, label, spacing, plan, configuration):
    """The same by plain means: scipy fills, numpy normalises, skimage resamples, each label's indicator by itself."""
    order = plan.axis_order
    image = image.transpose(0, *(axis + 1 for axis in order)).astype(np.float32)
    label = label.transpose(order).astype(np.int16)
    spacing = [spacing[axis] for axis in order]
    mask = ndimage.binary_fill_holes((image != 0).any(0))
    where = np.argwhere(mask)
    box = tuple(slice(low, high + 1) for low, high in zip(where.min(0), where.max(0), strict=True))
    image, label, mask = image[:, *box].copy(), label[box].copy(), mask[box]
    label[(label == 0) & ~mask] = -1
    for channel, scheme, masked in zip(
        image, configuration.normalization, configuration.use_mask_for_norm, strict=True
    ):
        if scheme == "ct":
            channel[:] = (np.clip(channel, -100, 300) - 40) / 60
        else:
            inside = label >= 0 if masked else np.ones_like(mask)
            values = channel[inside].astype(np.float64)
            channel[inside] = (values - values.mean()) / values.std()
    target = list(configuration.spacing)
    target = target if len(target) == 3 else [spacing[0], *target]
    shape = tuple(round(s / t * n) for s, t, n in zip(spacing, target, label.shape, strict=True))
    separate = max(spacing) / min(spacing) > 3 or max(target) / min(target) > 3
    image = np.stack([_resized(channel, shape, separate, _cubic) for channel in image])
    return image, _resized(label, shape, separate, _voted)


def _resized(values, shape, separate, function):
    if values.shape == shape:
        return values
    if not separate:
        return function(values, shape)
    planes = np.stack([function(plane, shape[1:]) for plane in values])
    position = len(planes) / shape[0] * (np.arange(shape[0]) + 0.5) - 0.5
    return planes[ndimage.map_coordinates(np.arange(len(planes)), [position], order=0, mode="nearest")]


def _cubic(values, shape):
    return resize(values.astype(np.float64), shape, 3, mode="edge", anti_aliasing=False)


def _voted(label, shape):
    """The label with the largest indicator; of equals that of the nearest voxel, else the lowest."""
    present = np.unique(label)
    shares = np.stack([resize((label == v).astype(float), shape, 1, mode="edge", anti_aliasing=False) for v in present])
    tied = shares > shares.max(0) - 1e-9
    near = resize(label.astype(float), shape, 0, mode="edge", anti_aliasing=False)
    near_is_tied = (tied & (present.reshape(-1, *[1] * label.ndim) == near)).any(0)
    return np.where(near_is_tied, near, present[tied.argmax(0)])


@pytest.mark.parametrize(
    ("wish", "spacing"),
    [
        (Wish(), (2.5, 1.0, 1.0)),
        (Wish(masked=True), (2.5, 1.0, 1.0)),
        (Wish(schemes=("ct", "zscore")), (2.0, 0.8, 1.3)),
        (Wish(order=(1, 2, 0)), (1.0, 1.7, 1.4)),
        (Wish(spacing=(5.0, 1.3, 0.8)), (6.0, 1.0, 1.0)),  # z separate
        (Wish(spacing=(1.3, 0.8)), (2.5, 1.0, 1.0)),
        (Wish(spacing=(1.3, 0.8), order=(2, 0, 1)), (1.0, 1.1, 4.0)),
        (Wish(spacing=(2.5, 1.0, 1.0), masked=True), (2.5, 1.0, 1.0)),  # nothing to resample
    ],
)
def test_equals_plain_numpy_scipy_and_skimage(wish, spacing):
    plan = make_plan(wish)
    (configuration,) = plan.configurations.values()
    image, label = make_case(channels=len(wish.schemes))
    expected_image, expected_label = reference(image, label, spacing, plan, configuration)
    found = prepare("c", image, label, Geometry(shape=label.shape, spacing=spacing), plan, configuration)
    assert found.image.shape == expected_image.shape
    for channel, expected in zip(found.image, expected_image, strict=True):
        assert np.abs(channel - expected).max() <= 1e-4 * expected.std()
    assert (found.label != expected_label).mean() <= 1e-4
    assert (found.label == -1).any()
    assert found.info.shape == expected_label.shape


def test_arrays_that_are_given_stay_as_they_are():
    image, label = make_case(border=False)
    before = image.copy(), label.copy()
    plan = make_plan(Wish(spacing=(1.0, 1.0, 1.0)))
    geometry = Geometry(shape=label.shape, spacing=(1.0, 1.0, 1.0))
    found = prepare("c", image, label, geometry, plan, plan.configuration("3d_fullres"))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])
    assert not np.shares_memory(found.image, image)
    assert not np.shares_memory(found.label, label)


def test_info_tells_what_was_done():
    plan = make_plan(Wish(order=(1, 2, 0)))
    image = np.zeros((1, 10, 12, 14), np.float32)
    image[0, 2:9, 3:11, 4:6] = np.random.default_rng(0).normal(5, 1, (7, 8, 2))
    geometry = Geometry(shape=(10, 12, 14), spacing=(1.8, 4.0, 2.2))
    found = prepare("c", image, None, geometry, plan, plan.configuration("3d_fullres"))
    assert found.label is None
    info = found.info
    assert info.box == ((3, 11), (4, 6), (2, 9))
    assert info.cropped_shape == (8, 2, 7)
    assert info.spacing == (4.0, 2.2, 1.8)
    assert info.shape == (16, 4, 14)
    assert (info.axis_order, info.geometry, info.source, info.case) == ((1, 2, 0), geometry, "", "c")


def test_without_label_the_mask_still_normalises():
    image, label = make_case()
    plan = make_plan(Wish(spacing=(1.0, 1.0, 1.0), masked=True))
    geometry = Geometry(shape=label.shape, spacing=(1.0, 1.0, 1.0))
    configuration = plan.configuration("3d_fullres")
    alone = prepare("c", image, None, geometry, plan, configuration)
    together = prepare("c", image, np.zeros_like(label), geometry, plan, configuration)
    np.testing.assert_array_equal(alone.image, together.image)
    inside = together.label >= 0
    assert not inside.all()
    assert alone.image[0][inside].mean(dtype=float) == pytest.approx(0, abs=1e-4)
    assert alone.image[0][inside].std(dtype=float) == pytest.approx(1, abs=1e-4)
    assert not alone.image[0][~inside].any()


def test_a_picture():
    plan = make_plan(Wish(spacing=(1.0, 1.0), schemes=("rgb_to_0_1",) * 3))
    picture = np.random.default_rng(0).integers(1, 256, (3, 1, 20, 30)).astype(np.uint8)
    geometry = Geometry(shape=(1, 20, 30), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
    found = prepare("c", picture, None, geometry, plan, plan.configuration("2d"))
    np.testing.assert_allclose(found.image, picture / 255, atol=1e-7)


def bad(**change):
    image, label = make_case()
    return {"image": image, "label": label, "geometry": Geometry(shape=label.shape, spacing=(1.0, 1.0, 1.0)), **change}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (bad(image=make_case(channels=2)[0]), "1 channels were planned"),
        (bad(image=np.zeros((1, 18, 40, 36), np.float32)), "every voxel of every channel is 0"),
        (bad(label=np.zeros((18, 40, 35), np.int16)), "label of (18, 40, 35)"),
        (bad(label=np.full((18, 40, 36), 7, np.int16)), "label values from 7 to 7 where 0 to 2 are declared"),
        (bad(geometry=Geometry(shape=(18, 40, 37), spacing=(1.0, 1.0, 1.0))), "geometry of (18, 40, 37)"),
        (bad(image=np.full((1, 18, 40, 36), np.nan, np.float32)), "NaN or infinite"),
        (bad(image=np.full((1, 18, 40, 36), np.inf, np.float32)), "NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_refused_naming_the_case(case, message):
    plan = make_plan()
    with pytest.raises(DataError) as error:
        prepare("case_7", case["image"], case["label"], case["geometry"], plan, plan.configuration("3d_fullres"))
    assert "case 'case_7'" in str(error.value)
    assert message in str(error.value)


def test_colours_out_of_range_are_refused():
    plan = make_plan(Wish(schemes=("rgb_to_0_1",)))
    image, label = make_case()
    with pytest.raises(DataError, match=r"case 'c', channel channel 0: colour values"):
        prepare("c", image, label, bad()["geometry"], plan, plan.configuration("3d_fullres"))


def write_case(root: Path, name: str, seed: int, shape=(14, 26, 24)) -> None:
    image, label = make_case(shape, seed=seed)
    geometry = Geometry(shape=shape, spacing=(2.5, 1.0, 1.0))
    write_image(root / "imagesTr" / f"{name}_0000.nii.gz", image, geometry)
    write_label(root / "labelsTr" / f"{name}.nii.gz", label, geometry)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "Dataset900_Made"
    root.mkdir()
    content = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": 4, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content))
    for index in range(4):
        write_case(root, f"case_{index}", index)
    return root


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def _always_as_many_jobs_as_asked_for(monkeypatch):
    monkeypatch.setattr("selfcfg.engine.data.preprocess.SECONDS_TO_START", 1e-9)


def run(root, folder, jobs=1, plan=None):
    return preprocess(Dataset.open(root), plan or make_plan(), "3d_fullres", folder, jobs=jobs)


def content(folder):
    """All files of a store but the locks."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and ".locks" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def ages(folder):
    """When each case's image was written."""
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("*/image.b2nd")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_store_holds_what_prepare_gives(root, folder, jobs):
    store = run(root, folder, jobs)
    assert store.cases() == ("case_0", "case_1", "case_2", "case_3")
    plan = make_plan()
    for case in Dataset.open(root).cases:
        arrays = read_case(case)
        expected = prepare(case.id, arrays.image, arrays.label, arrays.geometry, plan, plan.configuration("3d_fullres"))
        found = store.open(case.id)
        np.testing.assert_array_equal(found.image[:], expected.image)
        np.testing.assert_array_equal(found.label[:], expected.label)
        assert found.info.model_copy(update={"source": ""}) == expected.info
        assert len(found.info.source) == 32
        for value, name in enumerate(("edge", "core"), start=1):
            np.testing.assert_array_equal(found.locations[name], np.flatnonzero(expected.label == value))


def test_locations_with_an_ignore_value_and_regions(root, folder):
    schema = LabelSchema(labels={"background": 0, "whole": (1, 2), "ignore": 3, "core": 2}, regions_class_order=(1, 2))
    description = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(
        json.dumps({**description, "labels": schema.model_dump()["labels"], "regions_class_order": [1, 2]})
    )
    found = run(root, folder, plan=make_plan(Wish(labels=schema))).open("case_0")
    assert list(found.locations) == ["whole", "core", "annotated"]
    label = found.label[:].ravel()
    np.testing.assert_array_equal(found.locations["whole"], np.flatnonzero(label >= 1))
    annotated = found.locations["annotated"]
    assert len(annotated) == min(10_000, (label >= 0).sum())
    assert set(np.unique(label[annotated])) == {0, 1, 2}


def test_running_again_does_nothing(root, folder):
    run(root, folder)
    before, written = content(folder), ages(folder)
    run(root, folder, jobs=2)
    assert (content(folder), ages(folder)) == (before, written)


def test_an_added_case_is_the_only_one_done_and_a_removed_one_stays_unused(root, folder):
    run(root, folder)
    written = ages(folder)
    write_case(root, "case_9", 9)
    (root / "imagesTr" / "case_0_0000.nii.gz").unlink()
    store = run(root, folder)
    assert store.cases() == ("case_0", "case_1", "case_2", "case_3", "case_9")
    assert {name: age for name, age in ages(folder).items() if name != "case_9"} == written


def test_only_changed_bytes_make_a_case_again(root, folder):
    run(root, folder)
    written, source = ages(folder), Store(folder).open("case_1").info.source
    image = root / "imagesTr" / "case_1_0000.nii.gz"
    os.utime(image, ns=(1, 1))
    run(root, folder)
    assert ages(folder) == written
    assert Store(folder).stored_info("case_1").inputs[0].changed == 1
    write_case(root, "case_1", seed=77)
    run(root, folder)
    assert {name for name, age in ages(folder).items() if age != written[name]} == {"case_1"}
    assert Store(folder).open("case_1").info.source != source


def test_a_damaged_stored_case_is_made_again(root, folder):
    run(root, folder)
    before = content(folder)
    for name in ("case_0/image.b2nd", "case_1/case.json", "case_2/locations.npz"):
        (folder / name).write_bytes(b"")
    run(root, folder)
    assert content(folder) == before


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_cases_are_listed_together_and_the_others_are_done(root, folder, jobs):
    image = root / "imagesTr" / "case_1_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:-200])
    (root / "labelsTr" / "case_2.nii.gz").unlink()
    with pytest.raises(DataError) as error:
        run(root, folder, jobs)
    message = str(error.value)
    assert "preprocess 3d_fullres of Dataset900_Made: 2 of 4 cases failed" in message
    assert "case_1" in message
    assert "case_2" in message
    assert "case_0" not in message
    assert Store(folder).cases() == ("case_0", "case_3")
    assert not list(folder.glob(".tmp-*"))
    written = ages(folder)
    for index in (1, 2):
        write_case(root, f"case_{index}", index)
    assert run(root, folder).cases() == ("case_0", "case_1", "case_2", "case_3")
    assert {name: age for name, age in ages(folder).items() if name in written} == written


def test_few_small_cases_are_not_worth_a_process(root, folder, monkeypatch):
    monkeypatch.setattr("selfcfg.engine.data.preprocess.SECONDS_TO_START", SECONDS_TO_START)
    monkeypatch.setattr("multiprocessing.get_context", None)
    assert len(run(root, folder, jobs=8).cases()) == 4


@pytest.mark.parametrize(("starts", "jobs"), [(0.5, 1), (1.9, 1), (2.1, 2), (5.1, 5)])
def test_processes_are_started_where_that_is_faster_than_doing_without(monkeypatch, starts, jobs):
    monkeypatch.setattr("selfcfg.engine.data.preprocess.SECONDS_TO_START", SECONDS_TO_START)
    seconds = (starts * SECONDS_TO_START - SECONDS_PER_CASE) / SECONDS_PER_BYTE
    assert _useful_jobs([SimpleNamespace(memory=PROCESS_BYTES + seconds)]) == jobs
    alone, several = starts * SECONDS_TO_START, SECONDS_TO_START * (1 + starts / max(2, jobs))
    assert (several < alone) == (jobs > 1)


def test_an_unplanned_configuration_is_refused(root, folder):
    with pytest.raises(UsageError, match="3d_fullres"):
        preprocess(Dataset.open(root), make_plan(), "3d_fulres", folder, jobs=1)
    assert not folder.exists()


def _child(root, folder, started):
    started.set()
    run(root, folder)


def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(root, folder, tmp_path):
    run(root, tmp_path / "undisturbed")
    expected = content(tmp_path / "undisturbed")
    begin = time.monotonic()
    run(root, tmp_path / "timed")
    duration = time.monotonic() - begin
    context = multiprocessing.get_context("fork")
    rng, killed, unfinished = random.Random(4), 0, 0
    for _ in range(14):
        if len(Store(folder).cases()) == 4:
            shutil.rmtree(folder)
        started = context.Event()
        child = context.Process(target=_child, args=(root, folder, started))
        child.start()
        started.wait(60)
        time.sleep(rng.uniform(0, duration))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        for name in Store(folder).cases():
            assert {k: v for k, v in content(folder).items() if k.startswith(name)} == {
                k: v for k, v in expected.items() if k.startswith(name)
            }
        unfinished += bool(list(folder.glob(".tmp-*")))
    assert killed >= 7
    assert unfinished
    run(root, folder)
    assert content(folder) == expected


def test_two_runs_share_the_work(root, folder, tmp_path):
    run(root, tmp_path / "alone")
    context = multiprocessing.get_context("fork")
    events = [context.Event() for _ in range(3)]
    children = [context.Process(target=_child, args=(root, folder, event)) for event in events]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert content(folder) == content(tmp_path / "alone")


def test_a_run_waits_for_a_case_another_one_is_at(root, folder):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    with Store(folder).claim("case_2", wait=True):
        child = context.Process(target=_child, args=(root, folder, started))
        child.start()
        deadline = time.monotonic() + 60
        while len(Store(folder).cases()) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert Store(folder).cases() == ("case_0", "case_1", "case_3")
        assert child.is_alive()
    child.join(60)
    assert child.exitcode == 0
    assert Store(folder).cases() == ("case_0", "case_1", "case_2", "case_3")


def _with_little_space(root, folder, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        run(root, folder)
    except SelfcfgError as error:
        answers.put(str(error))


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(root, folder):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_with_little_space, args=(root, folder, answers))
    child.start()
    message = answers.get(timeout=60)
    child.join()
    assert "4 of 4 cases failed" in message
    assert f"write {folder / 'case_0'}" in message
    assert "free some space" in message
    assert content(folder) == {}
    assert len(run(root, folder).cases()) == 4


def test_a_folder_that_cannot_be_made_is_an_error(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SelfcfgError, match=r"file/store"):
        run(root, tmp_path / "file" / "store")


@pytest.mark.parametrize(
    ("name", "spacing"), [("hippocampus", (1.3, 0.8, 1.1)), ("openkbp_headneck_ct", (3.0, 3.0, 3.0))]
)
def test_real_cases_equal_plain_numpy_scipy_and_skimage(real_data, name, spacing):
    from selfcfg.dataset import Case

    values = {"background": 0, **{f"class {value}": value for value in range(1, 6)}}
    plan = make_plan(
        Wish(spacing=spacing, schemes=("ct" if "ct" in name else "zscore",), labels=LabelSchema(labels=values))
    )
    configuration = plan.configuration("3d_fullres")
    for file in sorted((real_data(name) / "images").glob("*.nii.gz"))[1:3]:
        label = real_data(name) / "labels" / file.name
        case = read_case(Case(id=file.name, images=(file,), label=label, subject=file.name))
        expected_image, expected_label = reference(case.image, case.label, case.geometry.spacing, plan, configuration)
        found = prepare(file.name, case.image, case.label, case.geometry, plan, configuration)
        assert np.abs(found.image - expected_image).max() <= 1e-3 * expected_image.std()
        assert (found.label != expected_label).mean() <= 1e-4
