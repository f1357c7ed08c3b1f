"""nnU-Net's side of the calls that are measured in a warm process; needs nnunetv2 2.8.1 and nothing of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Call = Callable[[], Any]


def _resample(file: str, shape: list[int], old: list[float], new: list[float], **options: Any) -> Call:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    values = np.load(file)
    return lambda: resample_data_or_seg_to_shape(values, shape, old, new, **options, order_z=0, force_separate_z=None)


def resample_image(image: str, shape: list[int], old: list[float], new: list[float]) -> Call:
    """The cubic spline of one channel."""
    return _resample(image, shape, old, new, is_seg=False, order=3)


def resample_labels(label: str, shape: list[int], old: list[float], new: list[float]) -> Call:
    """A label map, linearly by indicators."""
    return _resample(label, shape, old, new, is_seg=True, order=1)


def _enlarged(patch: list[int]) -> tuple[list[int], tuple[float, float]]:
    """The patch that is read for a patch of the network, and the rotation that it allows."""
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

    limit = np.deg2rad(30 if len(patch) == 3 else 180)
    rotation = (-limit, limit)
    return [int(size) for size in get_patch_size(patch, rotation, rotation, rotation, (0.85, 1.25))], rotation


def enlarged(patch: list[int]) -> Call:
    """The size of the patch that is read for a patch of the network."""
    return lambda: np.array(_enlarged(patch)[0])


def augment(image: str, label: str, patch: list[int], samples: int) -> Call:
    """Augments samples of an enlarged patch; gives mean, deviation and foreground share of each."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    values, labels = torch.from_numpy(np.load(image)), torch.from_numpy(np.load(label))
    if len(patch) == 2:
        values, labels = values[:, 0], labels[:, 0]
    size, rotation = _enlarged(patch)
    cut = (slice(None), *(slice((w - n) // 2, (w - n) // 2 + n) for w, n in zip(values.shape[1:], size)))  # noqa: B905
    values, labels = values[cut], labels[cut]
    mirror = tuple(range(len(patch)))
    transforms = nnUNetTrainer.get_training_transforms(
        patch, rotation, None, mirror, False, use_mask_for_norm=[False], foreground_labels=[1, 2, 3, 4, 5]
    )
    np.random.seed(0)
    torch.manual_seed(0)

    def call() -> Call:
        made = [transforms(image=values.clone(), segmentation=labels.clone()) for _ in range(samples)]
        return lambda: np.array(
            [
                [float(m["image"].mean()), float(m["image"].std()), float((m["segmentation"] > 0).float().mean())]
                for m in made
            ]
        )

    return call


def load_patches(store: str, patch: list[int], samples: int) -> Call:
    """What training reads for its samples: the enlarged patch of each."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(Path(store).parent / "nnUNetPlans.json"))
    labels = plans.get_label_manager(json.loads((Path(store).parent / "dataset.json").read_text()))
    loader = nnUNetDataLoader(nnUNetDatasetBlosc2(store), 2, _enlarged(patch)[0], patch, labels, 0.33)
    np.random.seed(0)

    def call() -> None:
        for _ in range(samples // 2):
            loader.generate_train_batch()

    return call


def read_boxes(store: str, boxes: list[tuple[str, list[int]]], size: list[int]) -> Call:
    """The same boxes on both sides, with padding; every eighth voxel along each axis is kept for comparison."""
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    stored = nnUNetDatasetBlosc2(store)

    def call() -> Call:
        found = []
        for name, corner in boxes:
            image, label, _, _ = stored.load_case(name)
            box = [[first, first + length] for first, length in zip(corner, size)]  # noqa: B905 - older Pythons, too
            found.append((crop_and_pad_nd(image, box, 0), crop_and_pad_nd(label, box, -1)))
        return lambda: np.stack([np.concatenate([i, t])[:, ::8, ::8, ::8] for i, t in found])

    return call


def export(logits: str, shape: list[int], spacing: list[float], n_classes: int, network_spacing: float) -> Call:
    """The label map of a case from its logits (K, Z, Y, X) float16, as after prediction."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    stored = np.load(logits, mmap_mode="r")
    names = {"background": 0, **{f"class {value}": value for value in range(1, n_classes)}}
    labels = LabelManager(names, None)

    def call() -> np.ndarray:
        options = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
        full = resample_data_or_seg_to_shape(stored, shape, [network_spacing] * 3, spacing, **options)
        return np.asarray(labels.convert_logits_to_segmentation(full)).astype(np.uint8)

    return call


def overlap(pairs: list[tuple[str, str]], n_labels: int) -> Call:
    """Reads pairs of label files and counts every class; gives tp, fp, fn, tn (pairs, classes, 4)."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    values, keys = list(range(1, n_labels + 1)), ("TP", "FP", "FN", "TN")

    def one(reference: str, prediction: str) -> list[list[int]]:
        found = compute_metrics(reference, prediction, SimpleITKIO(), values)["metrics"]
        return [[int(found[value][key]) for key in keys] for value in values]

    return lambda: np.array([one(*pair) for pair in pairs])


def train_step(model: str, batch: str) -> Call:
    """One training step on a given batch, with the weights of a model folder; gives its loss."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    folder = Path(model)
    plans = {**json.loads((folder / "plans.json").read_text()), "continue_training": False}
    dataset = json.loads((folder / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, dataset, torch.device("cpu"))
    trainer.initialize()
    weights = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    trainer.network.load_state_dict(weights)
    trainer.network.train()
    stored = np.load(batch)
    target = torch.from_numpy(stored["target"])
    scales = trainer._get_deep_supervision_scales()
    downsample = DownsampleSegForDSTransform(ds_scales=scales)
    samples = [downsample(segmentation=sample, image=None)["segmentation"] for sample in target]
    targets = [torch.stack(level) for level in zip(*samples)]  # noqa: B905
    made = {"data": torch.from_numpy(stored["image"]), "target": targets}
    return lambda: np.array([float(trainer.train_step(made)["loss"])])


JOBS = {
    job.__name__: job
    for job in (
        resample_image,
        resample_labels,
        enlarged,
        augment,
        load_patches,
        read_boxes,
        export,
        overlap,
        train_step,
    )
}
