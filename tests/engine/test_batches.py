"""Batches: their shapes and content, the same from any number of workers, and what happens when a worker dies."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from selfcfg.engine.data.batches import Batches
from selfcfg.engine.data.sampling import ANNOTATED
from selfcfg.engine.data.source import Domain, Source
from selfcfg.engine.data.store import CaseInfo, Prepared, Store
from selfcfg.engine.trainer import Batch, Need, Settings
from selfcfg.errors import DataError, SelfcfgError, UsageError, WorkerDied
from selfcfg.fingerprint import ChannelStatistics
from selfcfg.geometry import Geometry
from selfcfg.kernels.ranks import Ranks
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration, Plan
from selfcfg.topology import Topology

CPU = torch.device("cpu")
CASES = ("one", "two", "three", "four")
N_CASES = len(CASES)


def configuration(patch: tuple[int, ...], batch_size: int = 3) -> Configuration:
    n = len(patch)
    topology = Topology(
        features=(4,), kernel_sizes=((3,) * n,), strides=((1,) * n,), encoder_blocks=(1,), decoder_blocks=()
    )
    return Configuration(
        spacing=(1.0,) * n,
        patch_size=patch,
        batch_size=batch_size,
        median_shape=(20.0,) * n,
        normalization=("zscore", "zscore"),
        use_mask_for_norm=(False, True),
        topology=topology,
        batch_dice=False,
    )


def plan(**labels: int) -> Plan:
    statistics = ChannelStatistics(mean=0, std=1, min=0, max=1, median=0, percentile_00_5=0, percentile_99_5=1)
    return Plan(
        dataset="Dataset001_Test",
        planner="standard",
        memory_gb=8,
        channels=("a", "b"),
        labels=LabelSchema(labels={"background": 0, "organ": 1, "lesion": 2, **labels}),
        axis_order=(0, 1, 2),
        median_spacing=(1, 1, 1),
        median_shape=(20, 20, 20),
        intensities=(statistics, statistics),
        mirror_axes=(0, 1, 2),
        dimensions=3,
        configurations={"3d": configuration((8, 8, 8))},
    )


def settings(**changed: object) -> Settings:
    return Settings.model_validate({"workers": 0, "validation_iterations": 2, **changed})


def fill(folder: Path, names: tuple[str, ...] = CASES, *, labelled: bool = True) -> Store:
    """Cases whose first channel says which voxel it is, and whose label is outside in a corner."""
    store = Store(folder)
    for number, name in enumerate(names):
        shape = (10 + number, 24, 20 + 2 * number)
        own = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 100_000 * number
        label = np.zeros(shape, np.int16)
        label[2:6, 5:9, 4:8] = 1
        label[4, 6, 5] = 2
        label[:, :3] = -1
        info = CaseInfo.unchanged(name, Geometry(shape=shape, spacing=(1, 1, 1)))
        places = {
            name: np.flatnonzero(label == value).astype(np.uint32) for name, value in (("organ", 1), ("lesion", 2))
        }
        places[ANNOTATED] = np.flatnonzero(label >= 0).astype(np.uint32)
        image = np.stack([own, own * 0 + 5])
        store.write(Prepared(image, label if labelled else None, info), places if labelled else {})
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fill(tmp_path_factory.mktemp("store") / "3d_fullres-0123abcd")


def source(store: Store, need: Need | None = None) -> Source:
    return Source((Domain(store.folder, CASES[:3], CASES[3:]),), need or Need())


def batches_of(
    store: Store,
    patch: tuple[int, ...] = (8, 12, 12),
    needs: Mapping[str, Need] | None = None,
    seed: int = 0,
    **changed: object,
) -> Batches:
    sources = {stream: source(store, need) for stream, need in (needs or {"labelled": Need()}).items()}
    return Batches(sources, settings(**changed), configuration(patch), plan(), CPU, seed)


def same(ours: Batch, theirs: Batch) -> bool:
    pairs = list(zip((ours.image, *ours.views), (theirs.image, *theirs.views), strict=True))
    if ours.target is not None and theirs.target is not None:
        pairs.append((ours.target, theirs.target))
    return ours.cases == theirs.cases and all(torch.equal(one, other) for one, other in pairs)


# --- what a batch is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["torch", "batchgenerators"])
@pytest.mark.parametrize("patch", [(8, 12, 12), (4, 24, 24), (16, 12)])
def test_shapes_and_types(store: Store, patch: tuple[int, ...], executor: str) -> None:
    with batches_of(store, patch, executor=executor) as batches:
        for made in batches.training(0, 4):
            batch = made["labelled"]
            assert batch.image.shape == (3, 2, *patch) and batch.image.dtype == torch.float32
            assert batch.labels().shape == (3, 1, *patch) and batch.labels().dtype == torch.int16
            assert batch.labels().min() >= 0 and set(batch.cases) <= set(CASES[:3]) and batch.views == ()


def test_without_augmentation_a_patch_is_the_voxels_of_its_case(store: Store) -> None:
    with batches_of(store, augmentation="none") as batches:
        for made in batches.training(0, 10):
            batch = made["labelled"]
            for image, target, name in zip(batch.image, batch.labels(), batch.cases, strict=True):
                case = store.open(name)
                whole, label = case.image[:], case.label[:]
                number = 100_000 * CASES.index(name)
                inside = image[0] != 0 if number == 0 else image[0] >= number
                index = (image[0][inside] - number).long().numpy()
                np.testing.assert_array_equal(image[0][inside], whole[0].reshape(-1)[index])
                np.testing.assert_array_equal(target[0][inside], label.reshape(-1)[index].clip(min=0))
                outside = torch.from_numpy(label.reshape(-1)[index] < 0)
                assert (image[1][inside][outside] == 0).all() and (image[1][inside][~outside] == 5).all()


def test_the_last_sample_of_each_batch_holds_foreground(store: Store) -> None:
    with batches_of(store, (4, 4, 4), augmentation="none") as batches:
        found = torch.cat([made["labelled"].labels()[:, 0, 2, 2, 2][None] for made in batches.training(0, 30)])
    assert (found[:, -1] > 0).all() and (found[:, 0] == 0).any()
    assert (found[:, -1] == 2).float().mean() == pytest.approx(0.5, abs=0.3)  # one voxel of 64, but half of the draws


def test_a_2d_network_sees_slices(store: Store) -> None:
    with batches_of(store, (12, 12), augmentation="none", foreground_fraction=1) as batches:
        made = next(batches.training(0, 1))["labelled"]
    assert (made.labels().amax((1, 2, 3)) > 0).all()
    rows = made.image[:, 0, 0, :]
    assert torch.equal(rows[:, 1:] - rows[:, :-1], torch.ones(3, 11))


def test_views_are_drawn_each_for_itself_around_one_place(store: Store) -> None:
    needs = {"pair": Need(targets=False, views=2), "labelled": Need(views=3)}
    with batches_of(store, needs=needs) as batches:
        made = list(batches.training(0, 5))
    assert all(len(one["pair"].views) == 1 and len(one["labelled"].views) == 2 for one in made)
    assert all(one["pair"].target is None and one["labelled"].target is not None for one in made)
    assert any(not torch.equal(one["pair"].image, one["pair"].views[0]) for one in made)
    with pytest.raises(SelfcfgError, match="declare Need"):
        made[0]["pair"].labels()
    with batches_of(store, needs=needs, augmentation="none") as batches:
        batch = next(batches.training(0, 1))["pair"]
    assert torch.equal(batch.image, batch.views[0])


@pytest.mark.parametrize("patch", [(12, 12), (4, 12, 12)])
def test_a_sequence_goes_on_along_the_first_axis(store: Store, patch: tuple[int, ...]) -> None:
    need = Need(targets=False, views=2, sequence=2)
    with batches_of(store, patch, {"rows": need}, augmentation="none") as batches:
        batch = next(batches.training(0, 1))["rows"]
    assert batch.positions is not None and batch.lengths is not None
    assert batch.image.shape == (4, 2, *patch), "two sequences hold the three patches of a batch"
    assert batch.cases[0] == batch.cases[1] and batch.cases[2] == batch.cases[3]
    size = torch.tensor([[int(store.open(name).info.shape[axis]) for axis in range(3)] for name in batch.cases])
    whole = batch.image[:, 0].amin(tuple(range(1, 1 + len(patch)))) > 0
    steps = (batch.positions * batch.lengths[:, None])[1::2, 0] - (batch.positions * batch.lengths[:, None])[::2, 0]
    assert torch.equal(batch.lengths, size[:, 0])
    expected = 1 if len(patch) == 2 else 2
    torch.testing.assert_close(steps, torch.full((2,), float(expected)))
    moved = (batch.image[1::2, 0] - batch.image[::2, 0]).flatten(1)
    a_slice = (size[::2, 1] * size[::2, 2]).float()
    assert whole.any() and torch.equal(moved.amax(1)[whole[::2]], expected * a_slice[whole[::2]])


def test_streams_are_drawn_separately(store: Store) -> None:
    with batches_of(store, needs={"a": Need(), "b": Need()}, augmentation="none") as batches:
        assert any(made["a"].cases != made["b"].cases for made in batches.training(0, 10))


def test_a_stream_without_labels(tmp_path: Path) -> None:
    unlabelled = fill(tmp_path / "store", labelled=False)
    with batches_of(unlabelled, needs={"images": Need(targets=False)}) as batches:
        assert all(made["images"].target is None for made in batches.training(0, 3))
    with batches_of(unlabelled) as batches, pytest.raises(DataError, match=r"case '(one|two|three)': it has no label"):
        next(batches.training(0, 1))


def test_every_dataset_is_drawn_as_often_whatever_its_size(store: Store, tmp_path: Path) -> None:
    small = fill(tmp_path / "small", ("alone",), labelled=False)
    need = Need(targets=False, views=2, one_channel=True)
    domains = (Domain(store.folder, CASES, group=1), Domain(small.folder, ("alone",)), Domain(small.folder, ()))
    sources = {"images": Source(domains, need)}
    with Batches(sources, settings(), configuration((4, 4, 4), 8), plan(), CPU, 0) as batches:
        made = [one["images"] for one in batches.training(0, 40)]
    assert {batch.image.shape for batch in made} == {(8, 1, 4, 4, 4)}
    found = torch.cat([batch.domains for batch in made])
    assert found.tolist() == [int(name == "alone") for batch in made for name in batch.cases]
    assert torch.cat([batch.groups for batch in made]).tolist() == (1 - found).tolist()
    assert found.float().mean() == pytest.approx(0.5, abs=0.1)


# --- validation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_validation_is_the_same_for_the_same_epoch_only(store: Store, workers: int) -> None:
    with batches_of(store, workers=workers) as batches:
        first, again, other = (list(batches.validation(epoch)) for epoch in (3, 3, 4))
    assert len(first) == 2 and {name for made in first for name in made["labelled"].cases} == {"four"}
    assert all(same(a["labelled"], b["labelled"]) for a, b in zip(first, again, strict=True))
    assert not any(same(a["labelled"], b["labelled"]) for a, b in zip(first, other, strict=True))
    values = first[0]["labelled"].image[:, 0]
    assert torch.equal(values, values.round()), "validation patches are not augmented"


def test_streams_without_validation_cases_are_left_out(store: Store) -> None:
    sources = {"labelled": source(store), "extra": Source((Domain(store.folder, CASES[:3]),), Need())}
    arguments = (settings(), configuration((8, 8, 8)), plan(), CPU, 0)
    with Batches(sources, *arguments) as batches:
        assert [set(made) for made in batches.validation(0)] == [{"labelled"}] * 2
    with Batches({"extra": sources["extra"]}, *arguments) as batches:
        assert list(batches.validation(0)) == []
    with pytest.raises(UsageError, match=r"stream 'extra'.*no training cases"):
        Batches({"extra": Source((Domain(store.folder, ()),), Need())}, *arguments)


# --- the same from anywhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["torch", "batchgenerators"])
def test_any_number_of_workers_gives_the_same_batches(store: Store, executor: str) -> None:
    needs = {"labelled": Need(), "pair": Need(targets=False, views=2)}
    made = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for workers in (0, 1, 2):
            with batches_of(store, needs=needs, workers=workers, executor=executor) as batches:
                made[workers] = list(batches.training(5, 15))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for workers in (1, 2):
        for ours, theirs in zip(made[0], made[workers], strict=True):
            assert all(same(ours[stream], theirs[stream]) for stream in needs)


def test_batches_depend_on_iteration_and_seed_alone(store: Store) -> None:
    with batches_of(store, workers=1) as batches:
        whole = [made["labelled"] for made in batches.training(0, 6)]
        started = batches.training(0, 6)
        next(started)
        later = [made["labelled"] for made in batches.training(4, 6)]
    assert all(same(a, b) for a, b in zip(whole[4:], later, strict=True))
    assert not any(same(a, b) for a, b in itertools.pairwise(whole))
    with batches_of(store, seed=1) as batches:
        assert not same(next(batches.training(0, 1))["labelled"], whole[0])


def test_processes_share_each_batch_by_rows_and_validation_by_batches(store: Store) -> None:
    needs = {"labelled": Need(), "views": Need(views=2, shift=0.25)}
    with batches_of(store, needs=needs, validation_iterations=4) as whole:
        expected, validated = list(whole.training(0, 3)), list(whole.validation(1))
    sources = {stream: source(store, need) for stream, need in needs.items()}
    for rank in range(3):
        own = settings(validation_iterations=4)
        with Batches(sources, own, configuration((8, 12, 12)), plan(), CPU, 0, Ranks(rank, 3)) as shared:
            found, dealt = list(shared.training(0, 3)), list(shared.validation(1))
        for mine, everything in zip(found, expected, strict=True):
            for stream, batch in mine.items():
                assert batch.cases == everything[stream].cases[rank : rank + 1]
                assert torch.equal(batch.labels(), everything[stream].labels()[rank : rank + 1])
                others = (everything[stream].image, *everything[stream].views)
                views = zip((batch.image, *batch.views), others, strict=True)
                assert all(torch.equal(one, other[rank : rank + 1]) for one, other in views)
        assert len(dealt) == len(validated[rank::3])
        pairs = zip(dealt, validated[rank::3], strict=True)
        assert all(same(one[stream], other[stream]) for one, other in pairs for stream in needs)


def test_loading_does_not_touch_the_global_random_numbers(store: Store) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(0)
    np.random.seed(0)
    with batches_of(store, workers=1) as batches:
        list(batches.training(0, 2))
        list(batches.validation(0))
    assert torch.equal(torch.rand(3), expected[0]) and np.array_equal(np.random.rand(3), expected[1])


# --- workers that end -------------------------------------------------------------------------------------------------


@pytest.fixture
def children() -> Iterator[set[multiprocessing.process.BaseProcess]]:
    yield set(multiprocessing.active_children())


def test_closing_ends_the_workers(store: Store, children: set[multiprocessing.process.BaseProcess]) -> None:
    batches = batches_of(store, workers=2)
    training = batches.training(0, 1000)
    next(training)
    next(batches.validation(0))
    ours = [child for child in multiprocessing.active_children() if child not in children]
    assert len(ours) == 3
    batches.close()
    assert not any(child.is_alive() for child in ours)
    assert list(training) == [], "a closed source yields nothing more"
    with batches:
        assert next(batches.training(0, 1))["labelled"].image.shape[0] == 3


def test_no_worker_is_started_for_a_validation_of_no_batches(
    store: Store, children: set[multiprocessing.process.BaseProcess]
) -> None:
    with batches_of(store, workers=1, validation_iterations=0) as batches:
        assert list(batches.validation(0)) == []
        assert set(multiprocessing.active_children()) == children


def test_a_killed_worker_is_named_with_its_case(tmp_path: Path) -> None:
    # Opening a named pipe that nobody writes to holds the worker on its case until it is killed.
    stuck = fill(tmp_path / "store", ("stuck",))
    pipe = stuck.folder / "stuck" / "locations.npz"
    pipe.unlink()
    os.mkfifo(pipe)
    sources = {"labelled": Source((Domain(stuck.folder, ("stuck",)),), Need())}
    with Batches(sources, settings(workers=1), configuration((8, 8, 8)), plan(), CPU, 0) as batches:
        training = batches.training(0, 10)
        killer = threading.Thread(target=kill_when_on, args=(batches, "stuck"))
        killer.start()
        with pytest.raises(WorkerDied, match=r"case 'stuck': .*SIGKILL.*ran out of memory.*workers=0"):
            next(training)
        killer.join()


def kill_when_on(batches: Batches, case: str) -> None:
    for _ in range(1200):
        time.sleep(0.05)
        for pool in batches._pools.values():
            for worker in pool._processes:
                if pool._board.working_on(worker.pid) == case:
                    worker.kill()
                    return


def test_a_worker_killed_between_cases_is_noticed(store: Store) -> None:
    with batches_of(store, workers=1) as batches:
        training = batches.training(0, 1000)
        next(training)
        for worker in batches._pools["training"]._processes:
            worker.kill()
        with pytest.raises(WorkerDied, match=r"load patches.*SIGKILL.*--resume"):
            for _ in training:
                pass


def test_a_request_to_stop_leaves_the_training_process_its_batches(store: Store) -> None:
    with batches_of(store, workers=1) as batches:
        training = batches.training(0, 1000)
        next(training)
        for worker in batches._pools["training"]._processes:
            os.kill(worker.pid or 0, signal.SIGTERM)
            os.kill(worker.pid or 0, signal.SIGINT)
        for _ in range(20):
            next(training)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "garbage", "gone"])
def test_a_damaged_file_is_named_with_its_case(tmp_path: Path, workers: int, damage: str) -> None:
    broken = fill(tmp_path / "store", ("broken",))
    file = broken.folder / "broken" / "image.b2nd"
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        file.write_bytes(b"\0" * len(content))
    else:
        file.unlink()
    sources = {"labelled": Source((Domain(broken.folder, ("broken",)),), Need())}
    with (
        Batches(sources, settings(workers=workers), configuration((8, 8, 8)), plan(), CPU, 0) as batches,
        pytest.raises(DataError, match=r"broken.*selfcfg preprocess"),
    ):
        next(batches.training(0, 10))


def test_a_mistake_of_the_program_stays_what_it_is(store: Store) -> None:
    sources = {"labelled": Source((Domain(None, CASES),), Need())}  # type: ignore[arg-type]
    with (
        Batches(sources, settings(workers=1), configuration((8, 8, 8)), plan(), CPU, 0) as batches,
        pytest.raises(TypeError, match="worker"),
    ):
        next(batches.training(0, 10))
