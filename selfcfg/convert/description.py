"""The dataset.json of a converted dataset: what it says of channels, subjects and labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfcfg.convert.building import CaseSurvey, refuse
from selfcfg.convert.label_plan import LabelPlan
from selfcfg.dataset import Provenance
from selfcfg.errors import DataError, UsageError, counted, listed
from selfcfg.image_files import RASTER_ENDINGS
from selfcfg.image_targets import GivenTarget


def describe(
    destination: Path,
    channels: tuple[str, ...],
    plan: LabelPlan,
    provenance: Provenance,
    *,
    ending: str,
    n_cases: int,
    targets: Mapping[str, GivenTarget] | None = None,
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
    if targets:
        found = {name: target.model_dump(mode="json") for name, target in targets.items()}
        content["image_targets"] = found
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


def name_channels(given: tuple[str, ...], surveys: Mapping[str, CaseSurvey], ending: str) -> tuple[str, ...]:
    """The channel names: those given, else "R", "G", "B" for colour pictures, "image" or "image0", "image1", ...

    Raises:
        UsageError: not as many were given as there are channels.
        DataError: cases differ in their number of channels.
    """
    groups: dict[int, list[str]] = {}
    for case, survey in sorted(surveys.items()):
        groups.setdefault(sum(survey.n_channels), []).append(case)
    if len(groups) > 1:
        counts = "; ".join(
            f"{count} in {len(cases)} cases such as {cases[0]}" for count, cases in sorted(groups.items())
        )
        raise DataError(
            "convert",
            f"cases differ in their number of channels: {counts}",
            "convert gray and colour images separately",
        )
    count = next(iter(groups))
    if given and len(given) != count:
        raise UsageError(
            f"channels {', '.join(given)}", f"{counted(count, 'channel')} found", f"give {counted(count, 'name')}"
        )
    colours = ending in RASTER_ENDINGS and count == 3
    default = ("R", "G", "B") if colours else ("image",) if count == 1 else tuple(f"image{n}" for n in range(count))
    return given or default


def subjects_by_pattern(pattern: str | None, cases: Sequence[str]) -> dict[str, str]:
    """Case id to subject: the first group of `pattern`, found in the id; without a pattern the id itself.

    Raises:
        UsageError: not a regular expression, or without a group.
        DataError: cases in whose id it is not found; they are named.
    """
    if pattern is None:
        return {case: case for case in cases}
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"subject pattern '{pattern}'", f"not a regular expression ({error})", "mend it") from error
    if not expression.groups:
        raise UsageError(
            f"subject pattern '{pattern}'", "it has no group", "put brackets round the subject, as (patient\\d+)"
        )
    found = {case: expression.search(case) for case in cases}
    missing = [case for case, hit in found.items() if hit is None or not hit[1]]
    if missing:
        raise DataError(f"subject pattern '{pattern}'", f"not found in {listed(missing)}", "change the pattern")
    return {case: hit[1] for case, hit in found.items() if hit is not None}
