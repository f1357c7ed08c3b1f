"""Pictures whose image-level targets can be seen: a square to segment, and a bright spot in every other picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32


def write_blobs(root: Path, n_cases: int, *, first: int = 0) -> dict[str, tuple[str, float]]:
    """Writes images, labels and ``targets.csv`` (finding, brightness [%]); gives the finding and brightness by case.

    The case whose number is 2 more than a multiple of 8 has no finding in the table, and the next one no brightness.
    """
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    found, rows = {}, ["case,finding,brightness [%]"]
    for number in range(first, first + n_cases):
        rng = np.random.Generator(np.random.Philox(key=[number, 21]))
        case, has_spot, brightness = f"case_{number:02d}", number % 2 == 1, float(rng.integers(20, 60))
        picture = rng.normal(40, 8, (SIDE, SIDE))
        label = np.zeros((SIDE, SIDE), np.uint8)
        y, x = rng.integers(2, SIDE // 2 - 6, 2)
        label[y : y + 10, x : x + 10] = 1
        picture[label > 0] += 60
        if has_spot:
            y, x = rng.integers(SIDE // 2, SIDE - 6, 2)
            picture[y : y + 5, x : x + 5] += 150
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(root / "images" / f"{case}.png")
        Image.fromarray(label).save(root / "labels" / f"{case}.png")
        finding = "spot" if has_spot else "clear"
        found[case] = (finding, brightness)
        cells = ["" if number % 8 == 2 else finding, "" if number % 8 == 3 else f"{brightness:g}"]
        rows.append(",".join([case, *cells]))
    (root / "targets.csv").write_text("\n".join(rows) + "\n")
    return found
