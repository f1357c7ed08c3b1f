"""The page of a comparison: what it says first, what lies beside it, and what it never says."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.comparison.compare import Wanted, compare
from selfcfg.engine.comparison.records import Comparison
from selfcfg.engine.comparison.systems import System
from selfcfg.engine.comparison.values import ClassValues, Scored
from selfcfg.report.comparison import write_comparison

N = 12


def system(name: str, shift: float, seed: int) -> System:
    rng = np.random.default_rng(seed)
    cases = {
        f"case_{number:02d}": {
            organ: ClassValues({"dice": 0.8 + shift + rng.normal(0, 0.02), "hd95": 5 + rng.normal()}, 10, 10)
            for organ in ("liver", "gall|bladder")
        }
        for number in range(N)
    }
    return System(name, "evaluation", (Scored(cases, "exclude", 2.0, "mm", "ml"),))


SYSTEMS = [system("<b>new</b>", 0.1, 0), system("old", 0.0, 1), system("older", 0.0, 2)]


def written(folder: Path, systems: list[System], **wanted: object) -> str:
    return write_comparison(folder, *compare(systems, Wanted(**wanted))).markdown.read_text(encoding="utf-8")


def test_sentences_come_before_tables_and_pictures(tmp_path: Path) -> None:
    text = written(tmp_path, SYSTEMS, margin=0.02)
    places = [
        text.index(part)
        for part in ("## What may be concluded", "is better than old", "differences.png", "ranks.png", "## Scores")
    ]
    assert places == sorted(places)
    for part in (
        "| mean of 2 |",
        "gall\\|bladder",
        "rank-biserial",
        "### No worse by a margin of 0.02",
        "Kendall's tau",
    ):
        assert part in text
    assert "<b>" not in text and str(tmp_path) not in text
    assert {file.name for file in tmp_path.iterdir()} == {
        "comparison.html",
        "comparison.json",
        "comparison.md",
        "cases.csv",
        "differences.png",
        "ranks.png",
    }


def test_the_page_is_made_of_what_lies_in_the_record(tmp_path: Path) -> None:
    text = written(tmp_path, SYSTEMS)
    found = Comparison.read(tmp_path / "comparison.json")
    main = [pair for pair in found.pairs if pair.family == "main"]
    assert [(pair.first, pair.second) for pair in main] == [
        ("<b>new</b>", "old"),
        ("<b>new</b>", "older"),
        ("old", "older"),
    ]
    for pair in main:
        assert pair.low is not None and pair.high is not None
        assert f"{pair.difference:+.4f} ({pair.low:+.4f} to {pair.high:+.4f})" in text
    assert str(tmp_path) not in json.dumps(found.model_dump(mode="json"))


def test_every_score_is_in_the_table(tmp_path: Path) -> None:
    written(tmp_path, SYSTEMS, subjects={"case_00": "p1", "case_01": "p1"})
    rows = list(csv.DictReader(io.StringIO((tmp_path / "cases.csv").read_text())))
    assert len(rows) == N * 2 * 3
    first = next(row for row in rows if (row["case"], row["class"], row["system"]) == ("case_01", "liver", "old"))
    expected = SYSTEMS[1].runs[0].cases["case_01"]["liver"].values
    assert first["subject"] == "p1"
    assert {name: float(first[name]) for name in ("dice", "hd95")} == pytest.approx(expected)


def test_a_single_system_and_too_few_subjects_make_a_page_without_what_they_have_not(tmp_path: Path) -> None:
    text = written(tmp_path / "one", SYSTEMS[1:2])
    assert "nothing to compare it with" in text and "Ranking" not in text and "Paired" not in text
    few = [
        System(one.name, one.kind, (Scored({case: run.cases[case] for case in [*run.cases][:3]}, "exclude"),))
        for one in SYSTEMS
        for run in one.runs
    ]
    text = written(tmp_path / "few", few)
    assert "Nothing may be concluded" in text and "too few" in text and "## Ranking" not in text
    assert (tmp_path / "few" / "differences.png").is_file() and not (tmp_path / "few" / "ranks.png").is_file()
