"""The scores of every case as CSV, beside a report."""

from __future__ import annotations

import csv
import io

import numpy as np

from selfcfg.engine.comparison.alignment import Aligned
from selfcfg.report.names import PLAIN, Names

SCORES = "cases.csv"


def cases_table(scores: Aligned, names: Names = PLAIN) -> str:
    """Every score that is compared as CSV: a row a case, class and system; empty where it is left out."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "subject", "class", "system", *scores.values])
    for row, (case, subject) in enumerate(zip(scores.cases, scores.subjects, strict=True)):
        for column, name in enumerate(scores.classes):
            for place, system in enumerate(scores.systems):
                found = [float(values[place, row, column]) for values in scores.values.values()]
                writer.writerow(
                    [
                        names.case(case),
                        names.case(subject),
                        name,
                        system,
                        *("" if np.isnan(one) else one for one in found),
                    ]
                )
    return stream.getvalue()
