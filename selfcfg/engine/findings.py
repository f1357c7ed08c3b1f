"""What `selfcfg check` found: one record a finding, and the words they are grouped by."""

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


def order(finding: Finding) -> tuple[str, str, str, str]:
    """The key findings are sorted by: the dataset's own first, then by case and file."""
    return finding.case, finding.file, finding.kind, finding.found
