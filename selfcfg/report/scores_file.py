"""The scores of every case as CSV, beside a report."""

from __future__ import annotations

import numpy as np

from selfcfg.engine.comparison.alignment import Aligned
from selfcfg.report.names import PLAIN, Names
from selfcfg.sheets import comma_separated

SCORES = "cases.csv"


def cases_table(scores: Aligned, names: Names = PLAIN) -> str:
    """Every score that is compared as CSV: a row a case, class and system; empty where it is left out."""
    rows = (
        [
            names.case(case),
            names.case(subject),
            name,
            system,
            *(None if np.isnan(one := values[place, row, column]) else float(one) for values in scores.values.values()),
        ]
        for row, (case, subject) in enumerate(zip(scores.cases, scores.subjects, strict=True))
        for column, name in enumerate(scores.classes)
        for place, system in enumerate(scores.systems)
    )
    return comma_separated(["case", "subject", "class", "system", *scores.values], rows)
