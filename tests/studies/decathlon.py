"""Tiny task folders with the layout of the archives of the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

N_CASES = 5
SHAPE = (20, 22, 18)  # x, y, z, as nibabel has them


def write_task(root: Path, name: str, channels: tuple[str, ...]) -> None:
    """A task folder as the archives hold it: 4D where there are several channels, test images, files of macOS."""
    stem = name.partition("_")[2].lower()
    key = [int(name[4:6]), 21]
    rng = np.random.Generator(np.random.Philox(key=key))
    training, test = [], []
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / name / folder).mkdir(parents=True)
    for number in range(N_CASES + 1):
        part = "Tr" if number < N_CASES else "Ts"
        file = f"{stem}_{number:03d}.nii.gz"
        label = np.zeros(SHAPE, np.uint8)
        low = rng.integers(3, 7, 3)
        label[tuple(slice(start, start + 9) for start in low)] = 1
        image = rng.normal(100, 20, (*SHAPE, len(channels))) + 150 * label[..., np.newaxis]
        affine = np.diag([1.0, 1.0, 1.4, 1.0])
        stored = image.astype(np.int16) if len(channels) > 1 else image[..., 0].astype(np.int16)
        nib.save(nib.Nifti1Image(stored, affine), root / name / f"images{part}" / file)
        (root / name / f"images{part}" / f"._{file}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
        if part == "Ts":
            test.append(f"./imagesTs/{file}")
            continue
        nib.save(nib.Nifti1Image(label, affine), root / name / "labelsTr" / file)
        (root / name / "labelsTr" / f"._{file}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
        training.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    content = {
        "name": stem,
        "description": "random numbers",
        "reference": "none",
        "licence": "CC-BY-SA 4.0",
        "release": "1.0 04/05/2018",
        "tensorImageSize": "4D" if len(channels) > 1 else "3D",
        "modality": {str(index): channel for index, channel in enumerate(channels)},
        "labels": {"0": "background", "1": "structure"},
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }
    (root / name / "dataset.json").write_text(json.dumps(content))
