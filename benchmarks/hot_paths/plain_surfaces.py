"""Dice, HD95 and NSD the plain way: two distance transforms of the whole volume for each class, in worker processes.

python plain_surfaces.py FOLDER CASES CLASSES PROCESSES OUT
"""

from __future__ import annotations

import json
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the customary name
from scipy.ndimage import binary_erosion, distance_transform_edt

TOLERANCE_MM = 2.0


def score(folder: Path, name: str, n_classes: int) -> dict[str, list[float]]:
    """Dice, HD95 and NSD of each class of one case, by class value."""
    reference, prediction = (sitk.ReadImage(str(folder / side / name)) for side in ("references", "predictions"))
    spacing = reference.GetSpacing()[::-1]
    labels = [sitk.GetArrayFromImage(image) for image in (reference, prediction)]
    return {str(value): one([label == value for label in labels], spacing) for value in range(1, n_classes + 1)}


def one(masks: list[np.ndarray], spacing: tuple[float, ...]) -> list[float]:
    """Dice, HD95 and NSD of two masks."""
    dice = 2 * np.count_nonzero(masks[0] & masks[1]) / sum(map(np.count_nonzero, masks))
    surfaces = [mask & ~binary_erosion(mask) for mask in masks]
    distances = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    sides = [distances[1][surfaces[0]], distances[0][surfaces[1]]]
    near = sum(np.count_nonzero(side <= TOLERANCE_MM) for side in sides)
    return [dice, max(float(np.percentile(side, 95)) for side in sides), near / sum(side.size for side in sides)]


def main() -> None:
    """Scores the first cases of a folder and writes them as JSON."""
    folder, count, n_classes, processes, out = sys.argv[1:]
    names = sorted(file.name for file in Path(folder, "references").iterdir())[: int(count)]
    work = [(Path(folder), name, int(n_classes)) for name in names]
    with get_context("spawn").Pool(int(processes)) as pool:
        found = pool.starmap(score, work, chunksize=1)
    Path(out).write_text(json.dumps(dict(zip(names, found, strict=True))))


if __name__ == "__main__":
    main()
