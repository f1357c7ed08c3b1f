"""The summary.json that nnU-Net's own evaluation writes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfcfg.engine.comparison.values import ClassValues, Scored
from selfcfg.errors import DataError, listed
from selfcfg.image_files import stem_in
from selfcfg.labels import LabelSchema

_REMEDY = "give the summary.json of nnUNetv2_evaluate_folder, or of a fold's validation"


def is_nnunet(content: Any) -> bool:
    """Whether the content of a summary.json is nnU-Net's."""
    return isinstance(content, dict) and "metric_per_case" in content


def read_nnunet(file: Path, content: Mapping[str, Any], labels: LabelSchema | None) -> Scored:
    """The scores in nnU-Net's summary.json: Dice, IoU and the relative volume error; it has no distances.

    A class that neither mask holds has no Dice there (NaN), which is our ``empty="exclude"``.

    Args:
        file: for messages.
        content: of it.
        labels: names for its classes; None: their values, such as "1" and "(1, 2)".

    Raises:
        DataError: it is not written as nnU-Net v2 does, a class is not in `labels`, or a case is there twice.

    Source: nnU-Net v2.8.1, ``evaluation/evaluate_predictions.py``; volumes follow from its voxel counts.
    """
    names = {_values(",".join(map(str, values))): name for name, values in labels.targets.items()} if labels else None
    cases: dict[str, dict[str, ClassValues]] = {}
    if not isinstance(content["metric_per_case"], list):
        raise DataError(f"read {file}", "metric_per_case is no list", _REMEDY)
    for number, entry in enumerate(content["metric_per_case"]):
        try:
            case = stem_in(re.split(r"[\\/]", entry["reference_file"])[-1])
            scores = {key: _class(metrics) for key, metrics in entry["metrics"].items()}
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            found = f"metric_per_case[{number}] is not as nnU-Net writes it ({type(error).__name__}: {error})"
            raise DataError(f"read {file}", found, _REMEDY) from error
        if case in cases:
            raise DataError(f"read {file}", f"case '{case}' is there twice", _REMEDY)
        cases[case] = {_named(file, key, names): values for key, values in scores.items()}
    if not cases:
        raise DataError(f"read {file}", "it holds no case", _REMEDY)
    return Scored(cases, "exclude")


def _class(metrics: Mapping[str, Any]) -> ClassValues:
    reference, prediction = int(metrics["n_ref"]), int(metrics["n_pred"])
    found = {
        "dice": _number(metrics["Dice"]),
        "iou": _number(metrics["IoU"]),
        "volume_error_relative": abs(prediction - reference) / reference if reference else None,
    }
    return ClassValues(found, reference, prediction)


def _number(value: Any) -> float | None:
    """A number; None for NaN, as which nnU-Net writes what is not defined."""
    return None if value is None or math.isnan(value) else float(value)


def _values(key: str) -> tuple[int, ...]:
    """The label values that a key such as "1" or "(1, 2)" stands for, sorted."""
    return tuple(sorted(int(number) for number in re.findall(r"\d+", key)))


def _named(file: Path, key: str, names: Mapping[tuple[int, ...], str] | None) -> str:
    if names is None:
        return key
    if _values(key) not in names:
        found = f"class {key} is not among those of the dataset.json given ({listed(names.values(), 20)})"
        raise DataError(f"read {file}", found, "give the dataset.json that it was made with")
    return names[_values(key)]
