"""The page on the search for files that a reader does not stand: what was tried, found, and kept mended by tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfcfg.report.tables import table

FILE = "fuzzing.jsonl"

Row = Mapping[str, Any]


def page(rows: Sequence[Row]) -> Iterator[str]:
    """The blocks of the page; a row is a search in one parser, which ended at its time or at a finding."""
    found = [row for row in rows if row["finding"]]
    done = [row for row in rows if not row["finding"]]
    tried = sum(row["inputs"] for row in done)
    yield "## What was found"
    yield (
        f"{len(found)} searches ended at a file that its reader did not stand; all are mended, and a test keeps each. "
        "More files that only the mutations of the tests found are in `tests/fuzz/test_findings.py`."
    )
    heads = ["parser", "finding", "kept by", "files until then"]
    yield table(heads, ([row["parser"], row["finding"], row["test"], row["inputs"]] for row in found), numbers_from=3)
    yield "## What was tried after that"
    yield (
        f"{tried:,} files in {len(done)} parsers, nothing found. Places are branches of our Python code that files "
        "reached, - where the search did not count them; those of libraries in C are not counted. The tests try 60 "
        "mutations of valid files in each parser on every run "
        "(`tests/fuzz/test_readers.py::test_only_our_errors_come_out[PARSER]`), in younger parsers than these, too."
    )
    heads = ["parser", "files tried", "seconds", "places reached"]
    rows_of_parsers = ([row["parser"], row["inputs"], row["seconds"], row["places_reached"] or "-"] for row in done)
    yield table(heads, rows_of_parsers)
