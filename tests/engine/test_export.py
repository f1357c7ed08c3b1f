from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from skimage.transform import resize

from selfcfg.engine.data.store import CaseInfo
from selfcfg.engine.prediction.export import export
from selfcfg.errors import SelfcfgError
from selfcfg.geometry import Geometry
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration
from selfcfg.topology import Topology

CLASSES = LabelSchema(labels={"background": 0, "a": 1, "b": 2, "c": 3})
REGIONS = LabelSchema(
    labels={"background": 0, "whole": (1, 2, 3), "core": (2, 3), "inner": 3}, regions_class_order=(1, 2, 3)
)


def case_info(
    file_shape: tuple[int, int, int],
    file_spacing: tuple[float, float, float],
    order: tuple[int, int, int],
    box: tuple[tuple[int, int], ...],
    spacing: tuple[float, float, float],
) -> CaseInfo:
    """As preprocessing would describe a case that is cut to `box` (plan order) and resampled to `spacing`."""
    ordered = tuple(file_spacing[axis] for axis in order)
    cropped = tuple(stop - start for start, stop in box)
    shape = tuple(max(1, round(n * old / new)) for n, old, new in zip(cropped, ordered, spacing, strict=True))
    geometry = Geometry(shape=file_shape, spacing=file_spacing)
    return CaseInfo(
        case="case", geometry=geometry, box=box, cropped_shape=cropped, shape=shape, spacing=ordered, axis_order=order
    )


def smooth_logits(n_outputs: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    coarse = np.random.default_rng(seed).normal(size=(n_outputs, *(max(2, size // 4) for size in shape)))
    fine = np.stack([resize(channel, shape, order=1, mode="edge", anti_aliasing=False) for channel in coarse])
    return torch.from_numpy(4 * fine).float()


def slabs(logits: torch.Tensor, sizes: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """The logits (K, Z, Y, X) in slabs (z, K, Y, X) that are overwritten once the next one is asked for."""
    start = 0
    while start < logits.shape[1]:
        for size in sizes:
            slab = logits[:, start : start + size].transpose(0, 1).clone()
            start += size
            if len(slab):
                yield slab
                slab.fill_(-99)


def whole_volume_way(logits: np.ndarray, info: CaseInfo, separate: int | None) -> np.ndarray:
    """Each class at full size, as the reference does it: (K, Z, Y, X) in the plan's order, cropped."""
    resized = []
    for channel in logits.astype(np.float64):
        if separate is None:
            resized.append(resize(channel, info.cropped_shape, order=1, mode="edge", anti_aliasing=False))
            continue
        planes = np.moveaxis(channel, separate, 0)
        plane_shape = [size for axis, size in enumerate(info.cropped_shape) if axis != separate]
        planes = np.stack([resize(plane, plane_shape, order=1, mode="edge", anti_aliasing=False) for plane in planes])
        old, new = len(planes), info.cropped_shape[separate]
        nearest = np.clip(np.floor((np.arange(new) + 0.5) * old / new), 0, old - 1).astype(int)
        resized.append(np.moveaxis(planes[nearest], 0, separate))
    return np.stack(resized)


def in_file(cropped: np.ndarray, info: CaseInfo, outside: float) -> np.ndarray:
    full = np.full([info.geometry.shape[axis] for axis in info.axis_order], outside, dtype=cropped.dtype)
    full[tuple(slice(*span) for span in info.box)] = cropped
    return full.transpose(np.argsort(info.axis_order))


GRIDS = {
    "finer": (((14, 20, 22), (2.0, 1.0, 1.0), (0, 1, 2), ((1, 13), (2, 19), (0, 22)), (3.0, 1.7, 1.4)), None),
    "coarser": (((14, 20, 22), (2.0, 1.0, 1.0), (0, 1, 2), ((1, 13), (2, 19), (0, 22)), (1.1, 0.8, 0.7)), None),
    "equal": (((9, 12, 10), (1.0, 1.0, 1.0), (0, 1, 2), ((0, 9), (0, 12), (1, 10)), (1.0, 1.0, 1.0)), None),
    "turned": (((20, 22, 12), (1.0, 1.2, 2.0), (2, 0, 1), ((1, 12), (3, 18), (2, 20)), (2.6, 1.5, 0.9)), None),
    "thick slices": (((8, 20, 22), (5.0, 1.0, 1.0), (0, 1, 2), ((0, 8), (2, 19), (0, 22)), (3.7, 1.3, 1.4)), 0),
    "thick along y": (((20, 8, 22), (1.0, 5.0, 1.0), (0, 1, 2), ((2, 19), (0, 8), (0, 22)), (1.5, 4.1, 1.4)), 1),
    "thick along x": (((20, 22, 8), (1.0, 1.0, 5.0), (0, 1, 2), ((2, 19), (0, 22), (0, 8)), (1.5, 1.4, 6.1)), 2),
    "one slice": (((1, 20, 22), (999.0, 1.0, 1.0), (0, 1, 2), ((0, 1), (0, 20), (0, 22)), (999.0, 1.4, 0.8)), 0),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("sizes", [(1,), (2, 3), (100,)])
def test_labels_and_probabilities_are_those_of_the_whole_volume_way(grid: str, sizes: tuple[int, ...]) -> None:
    arguments, separate = GRIDS[grid]
    info = case_info(*arguments)
    logits = smooth_logits(4, info.shape, seed=3)
    labels, probabilities = export(slabs(logits, sizes), info, arguments[-1], CLASSES, probabilities=True)
    expected = whole_volume_way(logits.numpy(), info, separate)
    softmax = torch.from_numpy(expected).softmax(0).numpy()
    np.testing.assert_array_equal(labels, in_file(expected.argmax(0), info, 0))
    assert labels.dtype == np.uint8
    assert len(np.unique(labels)) == 4
    for output in range(4):
        outside = 1.0 if output == 0 else 0.0
        np.testing.assert_allclose(probabilities[output], in_file(softmax[output], info, outside), atol=2e-3)
    assert probabilities.dtype == np.float16
    without, nothing = export(slabs(logits, sizes), info, arguments[-1], CLASSES)
    np.testing.assert_array_equal(without, labels)
    assert nothing is None


@pytest.mark.parametrize("grid", ["finer", "coarser", "turned", "thick slices"])
def test_regions_are_painted_in_their_order(grid: str) -> None:
    arguments, separate = GRIDS[grid]
    info = case_info(*arguments)
    logits = smooth_logits(3, info.shape, seed=4)
    labels, probabilities = export(slabs(logits, (2,)), info, arguments[-1], REGIONS, probabilities=True)
    expected = torch.from_numpy(whole_volume_way(logits.numpy(), info, separate)).sigmoid().numpy()
    painted = np.zeros(info.cropped_shape, dtype=int)
    for output, value in enumerate(REGIONS.regions_class_order):
        painted[expected[output] > 0.5] = value
    np.testing.assert_array_equal(labels, in_file(painted, info, 0))
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    for output in range(3):
        np.testing.assert_allclose(probabilities[output], in_file(expected[output], info, 0.0), atol=2e-3)


def test_regions_keep_their_own_order_of_values() -> None:
    labels = LabelSchema(labels={"background": 0, "core": 2, "whole": (1, 2)}, regions_class_order=(2, 1))
    info = case_info((2, 3, 3), (1.0, 1.0, 1.0), (0, 1, 2), ((0, 2), (0, 3), (0, 3)), (1.0, 1.0, 1.0))
    logits = torch.full((2, 2, 3, 3), -1.0)
    logits[:, 1] = 1.0
    painted, _ = export(slabs(logits, (1,)), info, (1.0, 1.0, 1.0), labels)
    assert painted[0].max() == 0
    assert (painted[1] == 1).all()


def test_many_classes_of_which_few_are_present() -> None:
    schema = LabelSchema(labels={"background": 0, **{f"class {index}": index for index in range(1, 300)}})
    info = case_info((6, 9, 8), (1.0, 1.0, 1.0), (0, 1, 2), ((0, 6), (0, 9), (0, 8)), (1.5, 1.5, 1.5))
    logits = torch.full((300, *info.shape), -5.0)
    logits[0] = 0.0
    logits[299, :2] = 3.0
    logits[7, -1, 2:] = 4.0
    labels, _ = export(slabs(logits, (1,)), info, (1.5, 1.5, 1.5), schema)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, whole_volume_way(logits.numpy(), info, None).argmax(0))
    assert set(np.unique(labels)) == {0, 7, 299}


def test_a_logit_that_is_not_finite_is_an_error() -> None:
    info = case_info((4, 5, 6), (1.0, 1.0, 1.0), (0, 1, 2), ((0, 4), (0, 5), (0, 6)), (1.0, 1.0, 1.0))
    logits = torch.zeros(4, 4, 5, 6)
    logits[2, 3, 1, 1] = float("nan")
    with pytest.raises(SelfcfgError, match="not finite"):
        export(slabs(logits, (2,)), info, (1.0, 1.0, 1.0), CLASSES)


def test_a_2d_network_keeps_the_slices_of_the_case() -> None:
    topology = Topology(
        features=(4, 8),
        kernel_sizes=((3, 3), (3, 3)),
        strides=((1, 1), (2, 2)),
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )
    flat = Configuration(
        spacing=(0.7, 0.8),
        patch_size=(32, 32),
        batch_size=2,
        median_shape=(40.0, 40.0),
        normalization=("zscore",),
        use_mask_for_norm=(False,),
        topology=topology,
        batch_dice=True,
    )
    info = case_info((4, 5, 6), (6.0, 1.0, 1.0), (0, 1, 2), ((0, 4), (0, 5), (0, 6)), (6.0, 1.0, 1.0))
    assert flat.target_spacing(info.spacing) == (6.0, 0.7, 0.8)
