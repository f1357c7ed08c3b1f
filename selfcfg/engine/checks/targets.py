"""What is wrong or suspicious in the image-level targets of a dataset."""

from __future__ import annotations

from collections.abc import Collection

from selfcfg.dataset import TEST_IMAGES, DatasetDescription
from selfcfg.engine.checks.findings import Finding, Severity
from selfcfg.errors import counted, listed
from selfcfg.image_targets import GivenTarget


def target_findings(
    description: DatasetDescription, cases: Collection[str], test_cases: Collection[str]
) -> list[Finding]:
    """Values of cases that are not there, classes that no case has, and how many cases have a value.

    Args:
        description: the dataset's dataset.json.
        cases: ids of the training cases.
        test_cases: ids of the test cases, which may have values too, to be scored by.
    """
    tests = {case.removeprefix(f"{TEST_IMAGES}/") for case in test_cases}
    return [
        finding
        for name, target in description.image_targets.items()
        for finding in _findings(name, target, cases, tests)
    ]


def _findings(name: str, target: GivenTarget, cases: Collection[str], tests: Collection[str]) -> list[Finding]:
    findings = []
    if strange := sorted(set(target.values) - set(cases) - set(tests)):
        text = f"target '{name}' has values of {counted(len(strange), 'case')} not there: {listed(strange)}"
        findings.append(_about(text, "mend their ids in image_targets, or take the values out"))
    known = {case: value for case, value in target.values.items() if case in cases}
    if not known:
        text = f"target '{name}' has no value of any training case"
        return [*findings, _about(text, "give values, or take the target out", "error")]
    if absent := [one for one in target.classes if one not in known.values()]:
        text = f"target '{name}': no training case is {listed(map(repr, absent))}"
        findings.append(_about(text, "it cannot be learnt: add such cases, or take the class out"))
    if len(known) < len(cases):
        text = f"target '{name}': {len(known)} of {len(cases)} training cases have a value"
        findings.append(_about(text, "harmless if it is meant: the others are not used for it"))
    return findings


def _about(found: str, remedy: str, severity: Severity = "warning") -> Finding:
    return Finding(case="", file="dataset.json", kind="image targets", found=found, remedy=remedy, severity=severity)
