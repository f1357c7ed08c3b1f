from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from selfcfg.engine.prediction.sliding import Window, slide

CPU = torch.device("cpu")


class Asymmetric(nn.Module):
    """Depends on position, neighbours and direction, so that any mistake in place or flip changes the result."""

    def __init__(self, dimensions: int, n_outputs: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(2, n_outputs, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        ramp = torch.linspace(0.5, 1.5, image.shape[-1]) * torch.linspace(1, 2, image.shape[-2])[:, None]
        return self.layer(image) * ramp


def collected(slabs: Iterable[Tensor]) -> np.ndarray:
    """(K, Z, Y, X); each slab is copied before the next one is asked for."""
    return np.concatenate([slab.clone().numpy() for slab in slabs]).swapaxes(0, 1)


def image(shape: tuple[int, int, int], seed: int = 0, n_channels: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_channels, *shape)).astype(np.float32)


def subsets(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [chosen for size in range(len(axes) + 1) for chosen in itertools.combinations(axes, size)]


def brute_force(
    networks: list[nn.Module], volume: np.ndarray, patch: tuple[int, ...], step: float, mirror: tuple[int, ...]
) -> np.ndarray:
    """The reference's algorithm written down plainly: pad, tiles, mirrors, Gaussian weights, divide, un-pad."""
    flat = len(patch) == 2
    tile = (1, *patch) if flat else patch
    shape = volume.shape[1:]
    missing = [max(0, size - length) for size, length in zip(tile, shape, strict=True)]
    padded = np.pad(volume, [(0, 0), *((lack // 2, lack - lack // 2) for lack in missing)])
    positions = []
    for axis, (length, size) in enumerate(zip(padded.shape[1:], tile, strict=True)):
        if flat and axis == 0:
            positions.append(list(range(length)))
            continue
        count = int(np.ceil((length - size) / (size * step))) + 1
        positions.append([int(np.round(i * (length - size) / max(count - 1, 1))) for i in range(count)])
    delta = np.zeros(patch)
    delta[tuple(size // 2 for size in patch)] = 1
    weight = gaussian_filter(delta, [size / 8 for size in patch], mode="constant").reshape(tile)
    total, norm = 0.0, np.zeros(padded.shape[1:])
    for start in itertools.product(*positions):
        where = tuple(slice(first, first + size) for first, size in zip(start, tile, strict=True))
        crop = torch.from_numpy(padded[(slice(None), *where)])[None]
        crop = crop[:, :, 0] if flat else crop
        outputs = []
        for network in networks:
            for axes in subsets(mirror):
                turned = [axis + (1 if flat else 2) for axis in axes]
                with torch.no_grad():
                    outputs.append(network(crop.flip(turned)).flip(turned).numpy().astype(np.float64)[0])
        mean = np.mean(outputs, axis=0)
        mean = mean[:, None] if flat else mean
        if isinstance(total, float):
            total = np.zeros((len(mean), *padded.shape[1:]))
        total[(slice(None), *where)] += weight * mean
        norm[where] += weight
    inside = tuple(slice(lack // 2, lack // 2 + length) for lack, length in zip(missing, shape, strict=True))
    return (total / norm)[(slice(None), *inside)]


@pytest.mark.parametrize(
    ("shape", "patch", "mirror"),
    [
        ((13, 17, 20), (8, 8, 8), ()),
        ((13, 17, 20), (8, 12, 8), (0, 1, 2)),
        ((13, 9, 20), (8, 9, 8), (1,)),
        ((8, 8, 8), (8, 8, 8), (0, 2)),
        ((5, 17, 6), (8, 8, 8), (0, 1, 2)),
        ((3, 4, 5), (8, 8, 8), ()),
        ((21, 3, 8), (4, 8, 8), (2,)),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_3d_network_is_moved_as_in_brute_force(
    shape: tuple[int, int, int], patch: tuple[int, int, int], mirror: tuple[int, ...], batch: int
) -> None:
    volume, network = image(shape), Asymmetric(3, 3, seed=1)
    found = collected(slide([network], volume, Window(patch, 3, mirror, batch=batch), CPU))
    np.testing.assert_allclose(found, brute_force([network], volume, patch, 0.5, mirror), atol=1e-5)


@pytest.mark.parametrize(("shape", "patch"), [((7, 17, 20), (8, 12)), ((1, 30, 8), (8, 8)), ((4, 5, 20), (8, 8))])
@pytest.mark.parametrize("mirror", [(), (0, 1, 2), (2,)])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_2d_network_is_moved_slice_by_slice(
    shape: tuple[int, int, int], patch: tuple[int, int], mirror: tuple[int, ...], batch: int
) -> None:
    volume, network = image(shape), Asymmetric(2, 3, seed=2)
    found = collected(slide([network], volume, Window(patch, 3, mirror, batch=batch), CPU))
    in_plane = tuple(axis for axis in mirror if axis > 0)
    np.testing.assert_allclose(found, brute_force([network], volume, patch, 0.5, in_plane), atol=1e-5)


@pytest.mark.parametrize("step", [0.25, 0.8, 1.0])
def test_several_networks_are_averaged_at_any_step(step: float) -> None:
    volume, networks = image((12, 15, 14)), [Asymmetric(3, 2, seed=seed) for seed in range(3)]
    found = collected(slide(networks, volume, Window((8, 8, 8), 2, (0,), step, batch=2), CPU))
    np.testing.assert_allclose(found, brute_force(networks, volume, (8, 8, 8), step, (0,)), atol=1e-5)


@pytest.mark.parametrize("patch", [(8, 8, 8), (16, 8, 4), (8, 8)])
@pytest.mark.parametrize("shape", [(19, 23, 9), (8, 8, 8), (2, 3, 30)])
def test_a_network_that_returns_its_input_gives_the_image_back(
    patch: tuple[int, ...], shape: tuple[int, int, int]
) -> None:
    volume = image(shape)
    before = volume.copy()
    window = Window(patch, 2, (0, 1, 2), 0.3, batch=5)
    found = collected(slide([nn.Identity(), nn.Identity()], volume, window, CPU))
    np.testing.assert_allclose(found, volume, atol=1e-5)
    np.testing.assert_array_equal(volume, before)


def test_planes_come_as_soon_as_no_tile_touches_them() -> None:
    volume = image((64, 8, 8))
    seen: list[int] = []

    class Counting(nn.Module):
        calls = 0

        def forward(self, patch: Tensor) -> Tensor:
            Counting.calls += 1
            return patch

    for slab in slide([Counting()], volume, Window((16, 8, 8), 2), CPU):
        seen.append(len(slab))
        assert slab.untyped_storage().nbytes() == 16 * 2 * 8 * 8 * 4
        assert Counting.calls == len(seen)
    assert seen == [8, 8, 8, 8, 8, 8, 16]


def test_a_network_in_bfloat16_stays_close() -> None:
    volume, network = image((12, 12, 12)), Asymmetric(3, 2, seed=0)
    full = collected(slide([network], volume, Window((8, 8, 8), 2), CPU))
    half = collected(slide([network], volume, Window((8, 8, 8), 2, precision="bfloat16"), CPU))
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.1
