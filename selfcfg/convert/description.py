"""The dataset.json of a converted dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfcfg.convert.building import CaseSurvey, refuse
from selfcfg.convert.label_plan import LabelPlan
from selfcfg.dataset import Provenance


def describe(
    destination: Path, channels: tuple[str, ...], plan: LabelPlan, provenance: Provenance, *, ending: str, n_cases: int
) -> dict[str, Any]:
    """The content of the new dataset's dataset.json; its name is that of the folder without the number."""
    content: dict[str, Any] = {
        "name": destination.name.partition("_")[2] or destination.name,
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": {
            key: list(value) if isinstance(value, tuple) else value for key, value in plan.schema.labels.items()
        },
        "numTraining": n_cases,
        "file_ending": ending,
        "selfcfg": provenance.model_dump(mode="json", exclude_defaults=True),
    }
    if plan.schema.regions_class_order:
        content["regions_class_order"] = list(plan.schema.regions_class_order)
    return content


def refuse_undeclared(plan: LabelPlan, surveys: Mapping[str, CaseSurvey], source: str) -> None:
    """Raises when a case has a label value without a name; every such case is named with its values.

    Raises:
        DataError: as said.
    """
    failed = [
        f"case '{case}': its label has {undeclared}, not declared in {source}"
        for case, survey in sorted(surveys.items())
        if (undeclared := plan.undeclared(survey.values))
    ]
    refuse(failed, "map the labels", f"declare the values in {source}, or mend the labels")
