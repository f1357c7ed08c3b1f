"""Streams for pretraining: sequences, shifted views, single channels, several datasets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from selfcfg.engine.augmentation.transforms import Augmentation
from selfcfg.engine.data.batches import Batches
from selfcfg.engine.data.collection import Collection
from selfcfg.engine.data.source import Domain, Source
from selfcfg.engine.data.store import CaseInfo, Prepared, Store
from selfcfg.engine.supply import Supply
from selfcfg.engine.trainer import Batch, Need, Settings
from selfcfg.errors import UsageError
from selfcfg.geometry import Geometry
from selfcfg.splits import Split
from selfcfg.testing import CPU, small_plan

SHAPE = (12, 16, 20)
PER_CHANNEL, PER_CASE = 10_000, 100_000
NOTHING = Augmentation(**{name: 0.0 for name in Augmentation.model_fields if name.endswith("_p")})
MANY = (Domain(Path("large"), ("0", "1", "2", "3")), Domain(Path("small"), ("4",), ("5",), group=1))


def fill(folder: Path, names: tuple[str, ...]) -> Domain:
    """Cases of two channels whose voxels say which case, channel and voxel they are."""
    store = Store(folder)
    flat = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) + 1
    for name in names:
        image = np.stack([flat + PER_CASE * int(name), flat + PER_CASE * int(name) + PER_CHANNEL])
        info = CaseInfo.unchanged(name, Geometry(shape=SHAPE, spacing=(1, 1, 1)))
        store.write(Prepared(image, None, info), {})
    return Domain(folder, names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stores")
    fill(place / "large", ("0", "1", "2", "3"))
    fill(place / "small", ("4", "5"))
    return place


def made(
    folder: Path,
    need: Need,
    patch: tuple[int, ...],
    count: int = 4,
    domains: tuple[Domain, ...] = MANY[:1],
    **settings: object,
) -> list[Batch]:
    placed = tuple(Domain(folder / one.store_folder, one.training, one.validation, one.group) for one in domains)
    plan = small_plan(len(patch), n_channels=2)
    configuration = plan.configurations["small"].model_copy(
        update={"patch_size": patch, "batch_size": 3 * need.sequence}
    )
    typed = Settings.model_validate({"workers": 0, "augmentation": "none", **settings})
    with Batches({"stream": Source(placed, need)}, typed, configuration, plan, CPU, 0) as batches:
        return [one["stream"] for one in batches.training(0, count)]


def voxel(values: Tensor) -> Mapping[str, Tensor]:
    """Which voxel each value is of; channels by their difference."""
    case, rest = values.long() // PER_CASE, values.long() % PER_CASE
    channel, flat = rest // PER_CHANNEL, rest % PER_CHANNEL - 1
    z, y, x = np.unravel_index(flat.numpy(), SHAPE)
    return {"case": case, "channel": channel, "z": torch.as_tensor(z), "y": torch.as_tensor(y), "x": torch.as_tensor(x)}


def corners(image: Tensor) -> Mapping[str, Tensor]:
    """The first voxel of each patch that lies inside."""
    return voxel(image[(slice(None), 0, *(0,) * (image.dim() - 2))])


def test_a_sequence_of_slices_is_in_order(folder: Path) -> None:
    for batch in made(folder, Need(targets=False, sequence=4), (16, 20)):
        assert batch.image.shape == (12, 2, 16, 20)
        at = {name: values.view(3, 4) for name, values in corners(batch.image).items()}
        assert (at["z"].diff() == 1).all() and (at["case"].diff() == 0).all()
        assert batch.cases == tuple(str(int(case)) for case in at["case"].flatten())
        assert batch.positions is not None
        torch.testing.assert_close(batch.positions[:, 0], (at["z"].flatten() + 0.5) / SHAPE[0], check_dtype=False)


@pytest.mark.parametrize(("depth", "step"), [(4, 2), (6, 3)])
def test_slabs_overlap_by_half(folder: Path, depth: int, step: int) -> None:
    for batch in made(folder, Need(targets=False, sequence=3), (depth, 16, 20)):
        assert (corners(batch.image)["z"].view(3, 3).diff() == step).all()


def test_the_parts_of_a_sequence_are_augmented_alike(folder: Path) -> None:
    need, brighter = Need(targets=False, sequence=3), NOTHING.model_copy(update={"brightness_p": 1.0, "mirror_p": 1.0})
    plain = made(folder, need, (16, 20))
    for batch, before in zip(
        made(folder, need, (16, 20), augmentation="reference", transforms=brighter), plain, strict=True
    ):
        factors = (batch.image / before.image.flip(2, 3)).view(3, 3, 2, -1)
        torch.testing.assert_close(factors, factors[:, :1, :, :1].expand_as(factors))
        assert len(factors[:, 0, 0, 0].unique()) == 3, "each sequence has a draw of its own"


def test_but_each_has_noise_of_its_own(folder: Path) -> None:
    need, noisy = Need(targets=False, sequence=2), NOTHING.model_copy(update={"noise_p": 1.0, "noise": (50.0, 50.0)})
    (plain,) = made(folder, need, (16, 20), 1)
    (batch,) = made(folder, need, (16, 20), 1, augmentation="reference", transforms=noisy)
    noise = (batch.image - plain.image).view(3, 2, -1)
    assert noise.std() == pytest.approx(50, rel=0.1)
    assert (noise[:, 0] - noise[:, 1]).std() == pytest.approx(50 * 2**0.5, rel=0.1)


def test_other_views_are_moved_by_a_share_of_the_patch(folder: Path) -> None:
    found = []
    for batch in made(folder, Need(targets=False, views=2, shift=0.25), (4, 8, 8), 30):
        middle = (slice(None), 0, 2, 4, 4)
        first, second = voxel(batch.image[middle]), voxel(batch.views[0][middle])
        inside = batch.views[0][middle] > 0
        found.append(torch.stack([(second[axis] - first[axis])[inside] for axis in "zyx"], 1))
    moved = torch.cat(found)
    assert moved.amin(0).tolist() == [-1, -2, -2] and moved.amax(0).tolist() == [1, 2, 2]


def test_a_stream_may_be_augmented_as_suits_it(folder: Path) -> None:
    mirrored = Augmentation(**{**NOTHING.model_dump(), "mirror_p": 1.0})
    plain, own = (
        made(folder, Need(targets=False, transforms=one), (8, 8), augmentation="reference", transforms=NOTHING)
        for one in (None, mirrored)
    )
    assert all(torch.equal(one.image, other.image.flip(2, 3)) for one, other in zip(plain, own, strict=True))
    off = made(folder, Need(targets=False, transforms=mirrored), (8, 8))
    assert all(torch.equal(one.image, other.image) for one, other in zip(plain, off, strict=True))


def test_one_channel_is_drawn_for_each_patch(folder: Path) -> None:
    batches = made(folder, Need(targets=False, views=2, one_channel=True, sequence=2), (16, 20), 10)
    assert {batch.image.shape for batch in batches} == {(6, 1, 16, 20)}
    drawn = torch.stack([corners(batch.image)["channel"].view(3, 2) for batch in batches])
    assert set(drawn.flatten().tolist()) == {0, 1} and (drawn.diff() == 0).all()
    assert all(torch.equal(batch.image, batch.views[0]) for batch in batches)


def test_domains_are_equally_likely_whatever_their_size(folder: Path) -> None:
    batches = made(folder, Need(targets=False), (16, 20), 100, MANY)
    domains = torch.cat([batch.domains for batch in batches])
    cases = torch.cat([corners(batch.image)["case"] for batch in batches])
    assert domains.dtype == torch.int64 and domains.float().mean() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(domains, (cases >= 4).long())
    assert torch.equal(domains, torch.cat([batch.groups for batch in batches]))
    assert 5 not in cases


def test_a_domain_without_training_cases_keeps_the_index_of_the_others(folder: Path) -> None:
    (batch,) = made(folder, Need(targets=False), (16, 20), 1, (Domain(Path("large"), ()), *MANY))
    assert set(batch.domains.tolist()) <= {1, 2}


def test_what_is_for_validation_alone_is_not_read_in_training(folder: Path) -> None:
    plan = small_plan(2, n_channels=2)
    images = Source((Domain(folder / "large", ("0",), ("1",)),), Need(targets=False))
    look = Source(
        (Domain(folder / "gone", ("0",)), Domain(folder / "large", (), ("2",))),
        Need(targets=False, validation_only=True),
    )
    settings = Settings(workers=0, validation_iterations=1)
    sources = {"images": images, "look": look}
    with Batches(sources, settings, plan.configurations["small"], plan, CPU, 0) as batches:
        assert set(next(batches.training(0, 1))) == {"images"}
        (validation,) = batches.validation(0)
    assert set(validation) == {"images", "look"} and set(validation["look"].cases) == {"2"}


def test_any_number_of_workers_gives_the_same(folder: Path) -> None:
    need = Need(targets=False, views=2, shift=0.2, sequence=2, one_channel=True)
    found = [made(folder, need, (4, 8, 8), 3, MANY, augmentation="reference", workers=workers) for workers in (0, 1, 2)]
    for ours, *others in zip(*found, strict=True):
        for other in others:
            assert ours.cases == other.cases
            for name in ("image", "positions", "domains", "groups"):
                assert torch.equal(getattr(ours, name), getattr(other, name)), name
            assert torch.equal(ours.views[0], other.views[0])


def test_patches_carry_the_values_of_their_case(folder: Path) -> None:
    need, plan = Need(targets=False, image_targets=True), small_plan(3, n_channels=2)
    configuration = plan.configurations["small"].model_copy(update={"patch_size": (4, 4, 4), "batch_size": 6})
    split = Split(train=("0", "1", "2"), val=("3",))
    values = {"0": (2.0, math.nan), "2": (0.0, 63.5), "3": (1.0, 5.0)}
    supply = Supply(folder / "large", split, dict.fromkeys("0123", ""), Collection(), image_values=values)
    sources = supply.sources({"whole": need, "plain": Need(targets=False)}, split.train, split.val)
    assert sources["whole"].domains[0].training == ("0", "2"), "the others have nothing to learn from"
    settings = Settings(workers=0, validation_iterations=2)
    with Batches(sources, settings, configuration, plan, CPU, 0) as batches:
        for batch in (*batches.training(0, 4), *batches.validation(0)):
            wanted = torch.tensor([values[case] for case in batch["whole"].cases])
            assert torch.equal(batch["whole"].image_values().nan_to_num(-1), wanted.nan_to_num(-1))
            assert batch["plain"].image_targets is None
    with pytest.raises(UsageError, match="no training case of the fold has a value"):
        supply.sources({"whole": need}, ("1",), split.val)
