"""Random but plausible datasets to plan for, each made from its seed alone: fingerprint, dataset.json and options."""

from __future__ import annotations

import math
from random import Random
from typing import Any

PLANNERS = {"standard": 8, "residual-m": 8, "residual-l": 24, "residual-xl": 40}
"""Our planners, and the gigabytes each plans for unless told otherwise."""
KINDS = ("isotropic", "thick-slice", "huge", "tiny", "one-slice", "picture", "mixed", "off-axis", "wild")
MEMORY = (2, 3, 4, 6, 11, 16, 32, 48, 80)
CASES = (1, 2, 3, 5, 9, 20, 60)
LABELS = (2, 2, 3, 4, 8, 20, 61, 120)
CHANNELS = ("CT", "MRI", "T1", "rescale_to_0_1", "rgb_to_0_1", "noNorm", "zscore", "PET")

Triple = tuple[float, float, float]


def random_job(seed: int, most_cases: int = CASES[-1]) -> dict[str, Any]:
    """A dataset and how to plan it; planners and kinds take turns, so that any run of 36 seeds holds each pair once.

    Args:
        seed: of all its random numbers.
        most_cases: the largest number of cases.
    """
    random = Random(seed)
    planner, kind = list(PLANNERS)[seed % 4], KINDS[seed // 4 % len(KINDS)]
    n_cases = min(random.choice(CASES), most_cases)
    spacings, shapes = _cases(random, kind, n_cases)
    dataset = _dataset(random, n_cases)
    return {
        "seed": seed,
        "kind": kind,
        "planner": planner,
        "memory_gb": _memory(random, kind, PLANNERS[planner]),
        "spacing": _given_spacing(random, kind, spacings) if random.random() < 0.2 else None,
        "fingerprint": {
            "spacings": spacings,
            "shapes_after_crop": shapes,
            "foreground_intensity_properties_per_channel": {
                channel: _statistics(random) for channel in dataset["channel_names"]
            },
            "median_relative_size_after_cropping": random.choice((1.0, 0.9, 0.75, 0.7499, 0.3)),
        },
        "dataset": dataset,
    }


def _cases(random: Random, kind: str, n_cases: int) -> tuple[list[list[float]], list[list[int]]]:
    """Spacings and shapes that vary from case to case around what is typical of the kind, (z, y, x)."""
    typical = [_typical(random, kind) for _ in range(2)]
    vary_spacing, vary_shape = random.choice((0, 0.02, 0.2)), random.choice((0, 0.15, 0.3))
    digits = random.choice((2, 3, 6))
    spacings, shapes = [], []
    for _ in range(n_cases):
        spacing, shape = typical[random.randrange(2) if kind == "mixed" else 0]
        if kind == "picture":
            spacings.append(list(spacing))
        else:
            spacings.append([round(max(_vary(random, mm, vary_spacing), 0.01), digits) for mm in spacing])
        shapes.append([1 if edge == 1 else max(round(_vary(random, edge, vary_shape)), 1) for edge in shape])
    return spacings, shapes


def _typical(random: Random, kind: str) -> tuple[Triple, Triple]:
    """A spacing in mm and a shape in voxels, (z, y, x)."""
    fine, thick = round(random.uniform(0.3, 1.2), 3), round(random.uniform(2, 10), 2)
    mm = random.choice((0.5, 0.8, 1.0, 1.5, 3.0))
    wide, high, few = random.randint(96, 640), random.randint(96, 640), random.randint(5, 120)
    deep = random.randint(200, 1200)
    choices: dict[str, tuple[tuple[Triple, Triple], ...]] = {
        "isotropic": (((mm, mm, mm), (min(deep, 300), wide // 2, high // 2)),),
        "thick-slice": (((thick, fine, fine), (few, wide, high)),),
        "huge": (((fine, fine, fine), (deep, 2 * wide, 2 * high)), ((thick, fine, fine), (deep, 2 * wide, 2 * high))),
        "tiny": (((2 * fine, fine, fine), (1 + few // 6, 1 + wide // 16, 1 + high // 16)),),
        "one-slice": (((thick, fine, fine), (1, wide, high)),),
        "picture": (((999.0, 1.0, 1.0), (1, 4 * wide, 4 * high)), ((999.0, 1.0, 1.0), (1, wide // 3, high // 3))),
        "mixed": (((thick, fine, fine), (few, wide, high)), ((1.0, 1.0, 1.0), (180, 220, 200))),
        "off-axis": (((fine, fine, thick), (wide, high, few)), ((fine, thick, fine), (wide, few, high))),
        "wild": ((_log_uniform(random, 0.05, 20), _log_uniform(random, 1, 1500)),),
    }
    return random.choice(choices[kind])


def _dataset(random: Random, n_cases: int) -> dict[str, Any]:
    n_labels = random.choice(LABELS)
    labels: dict[str, Any] = {"background": 0}
    regions: dict[str, Any] = {}
    if n_labels > 3 and random.random() < 0.3:
        labels["whole"] = list(range(1, n_labels))
        labels |= {f"class {value}": value for value in range(2, n_labels)}
        regions["regions_class_order"] = list(range(1, n_labels))
    else:
        labels |= {f"class {value}": value for value in range(1, n_labels)}
    if random.random() < 0.2:
        labels["ignore"] = n_labels
    return {
        "channel_names": {str(index): random.choice(CHANNELS) for index in range(random.randint(1, 5))},
        "labels": labels,
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
        **regions,
    }


def _memory(random: Random, kind: str, default: float) -> float:
    if kind == "wild":
        return round(_log_uniform(random, 0.5, 200)[0], 2)
    return default if random.random() < 0.5 else random.choice(MEMORY)


def _given_spacing(random: Random, kind: str, spacings: list[list[float]]) -> list[float]:
    """A target near the first case's spacing; across the plane of pictures it has no meaning and stays."""
    far = 1.0 if kind == "wild" else 0.3
    varied = [max(round(_vary(random, mm, far), 2), 0.01) for mm in spacings[0]]
    return [spacings[0][0], *varied[1:]] if kind == "picture" else varied


def _statistics(random: Random) -> dict[str, float]:
    mean, std = round(random.gauss(50, 30), 1), round(random.uniform(1, 90), 1)
    percentiles = {"percentile_00_5": mean - 2 * std, "percentile_99_5": mean + 2 * std}
    return {"max": mean + 9 * std, "mean": mean, "median": mean, "min": mean - 9 * std, **percentiles, "std": std}


def _vary(random: Random, value: float, relative: float) -> float:
    return value * math.exp(random.gauss(0, relative))


def _log_uniform(random: Random, low: float, high: float) -> Triple:
    """Three numbers over all orders of magnitude alike."""
    z, y, x = (math.exp(random.uniform(math.log(low), math.log(high))) for _ in range(3))
    return z, y, x
