"""What was found in a dataset: by `selfcfg check` in its files, and by planning in what was measured."""

from __future__ import annotations

from typing import Literal

from selfcfg.records import Record

Kind = Literal[
    "description",
    "count",
    "channel names",
    "missing image",
    "missing label",
    "orphan",
    "outside",
    "unreadable",
    "unsupported",
    "worker died",
    "alpha",
    "spacing",
    "channels",
    "not finite",
    "constant image",
    "thin axis",
    "shape mismatch",
    "spacing mismatch",
    "direction mismatch",
    "origin mismatch",
    "geometry drift",
    "label values",
    "empty label",
    "absent class",
    "image targets",
    "dimensions",
    "spacing outlier",
    "header",
    "orientation",
    "intensities",
    "duplicate image",
    "duplicate channel",
    "splits",
    "leakage",
    "fixes",
]
"""What a finding is about."""

Severity = Literal["error", "warning"]
"""Whether training would go wrong, or somebody should only have a look."""


MAX_NAMED = 8
"""Cases or classes that a caution names; of more, the number of the others is said."""


class Finding(Record):
    """One thing that is wrong or suspicious.

    Args:
        case: id of the case; empty when it is about the dataset as a whole.
        file: path within the dataset; empty when it is about no single file.
        kind: what it is about.
        found: what was found, with values and counts.
        remedy: what to do about it.
        severity: "error" where training would go wrong or be misled, else "warning".
    """

    case: str
    file: str
    kind: Kind
    found: str
    remedy: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = " ".join(part for part in (self.case, self.file) if part)
        return f"{self.severity}: {place}: {self.kind}: {self.found}; {self.remedy}"


class Caution(Record):
    """One thing to know about a dataset before training on it.

    Args:
        kind: what it is about.
        text: what was found, with values and the names of cases.
        remedy: what to do about it; empty where nothing need be done.
        cases: ids of the cases that are named, or would be if they were fewer.
        severity: "warning" where the plan may be a bad one, "note" where somebody should only have a look.
    """

    kind: Literal[
        "spacing", "resampling", "thin structure", "orientation", "left and right", "intensities", "odd cases"
    ]
    text: str
    remedy: str = ""
    cases: tuple[str, ...] = ()
    severity: Literal["warning", "note"] = "warning"

    def __str__(self) -> str:
        return "; ".join(part for part in (self.text, self.remedy) if part)


def order(finding: Finding) -> tuple[str, str, str, str]:
    """The key findings are sorted by: the dataset's own first, then by case and file."""
    return finding.case, finding.file, finding.kind, finding.found
