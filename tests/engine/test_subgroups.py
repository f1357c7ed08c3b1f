from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.scoring.attributes import groups_of, read_attributes
from selfcfg.engine.scoring.evaluate import Evaluation, evaluate, with_subgroups
from selfcfg.engine.scoring.subgroups import spread
from selfcfg.errors import DataError, UsageError
from selfcfg.geometry import Geometry
from selfcfg.io import write_label
from selfcfg.kernels.statistics import estimate
from selfcfg.labels import LabelSchema

LABELS = LabelSchema(labels={"background": 0, "organ": 1, "tumour": 2})
GEOMETRY = Geometry(shape=(4, 10, 10), spacing=(2.0, 1.0, 1.0))
CASES = [f"case{number:02}" for number in range(10)]


@pytest.fixture
def scores(tmp_path: Path) -> Evaluation:
    for index, case in enumerate(CASES):
        reference, prediction = (np.zeros(GEOMETRY.shape, dtype=np.uint8) for _ in range(2))
        reference[1:3, 2:8, 2:8] = 1
        prediction[1:3, 2:8, 2 : 8 - index % 5] = 1
        if index == 0:
            reference[3, 0, 0] = 2
        write_label(tmp_path / "references" / f"{case}.nii.gz", reference, GEOMETRY)
        write_label(tmp_path / "predictions" / f"{case}.nii.gz", prediction, GEOMETRY)
    return evaluate(tmp_path / "references", tmp_path / "predictions", LABELS)


def table(path: Path, text: str) -> Path:
    file = path / "attributes.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_groups_have_the_mean_of_their_cases_and_an_interval_from_six_on(scores: Evaluation, tmp_path: Path) -> None:
    sites = ["A"] * 7 + ["B"] * 2
    rows = "".join(
        f"{case},{site},{40 + index}\n" for index, (case, site) in enumerate(zip(CASES, sites, strict=False))
    )
    given = table(tmp_path, f"case,site,age\n{rows}{CASES[9]},,\nsomebody,A,1\n")
    found = with_subgroups(scores, given).subgroups
    assert found is not None
    site, age = found.attributes
    assert (site.attribute, site.is_banded, site.n_missing) == ("site", False, 1)
    assert [(group.name, group.n_cases) for group in site.groups] == [("A", 7), ("B", 2)]
    dice = [case.scores["organ"].dice for case in scores.cases]
    large, small = (group.scores["organ"]["dice"] for group in site.groups)
    expected = estimate(dice[:7], np.random.default_rng(0))
    assert (large.n, large.mean) == (7, pytest.approx(np.mean(dice[:7])))
    assert (large.low, large.high) == expected.interval
    assert (small.n, small.mean, small.low, small.high) == (2, pytest.approx(np.mean(dice[7:9])), None, None)
    over_classes = site.groups[0].scores["mean"]["dice"]
    assert over_classes.mean == pytest.approx(np.mean([dice[0] / 2, *dice[1:7]]))
    assert site.groups[1].scores["tumour"]["dice"].n == 0
    assert (age.is_banded, [group.n_cases for group in age.groups]) == (True, [3, 3, 3])
    assert (found.n_unknown, found.without_row) == (1, ())


def test_they_are_written_read_and_told(scores: Evaluation, tmp_path: Path) -> None:
    rows = "".join(f"{case};{'f' if index % 2 else 'm'}\n" for index, case in enumerate(CASES[:9]))
    found = with_subgroups(scores, table(tmp_path, f"case;sex\n{rows}"))
    found.write(tmp_path)
    assert Evaluation.read(tmp_path / "summary.json") == found
    with (tmp_path / "subgroups.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert {(line["attribute"], line["group"], line["class"]) for line in lines} == {
        ("sex", sex, name) for sex in "fm" for name in ("mean", "organ", "tumour")
    }
    text = found.text()
    assert "1 case without a row: case09." in text
    assert "1 case without a value left out" in text
    assert "[" not in text.split("sex")[1].split("In brackets")[0]
    scores.write(tmp_path)
    assert not (tmp_path / "subgroups.csv").exists(), "of an earlier evaluation"


def test_cases_of_one_subject_count_once(scores: Evaluation, tmp_path: Path) -> None:
    rows = "".join(f"{case},p{index // 2},one\n" for index, case in enumerate(CASES))
    found = with_subgroups(scores, table(tmp_path, f"case,subject,site\n{rows}")).subgroups
    assert found is not None
    (site,) = found.attributes
    assert site.groups[0].n_cases == 10
    assert site.groups[0].scores["organ"]["dice"].n == 5
    assert spread({"a": 1.0, "b": 0.0, "c": 0.0}, {"a": "p", "b": "p"}).mean == 0.25
    assert spread({"a": 1.0, "p": 0.0}, {"a": "p"}).n == 2, "a case is no subject of the same name"


def test_numbers_are_cut_where_they_are_many() -> None:
    assert groups_of({"a": "0", "b": "1", "c": "0"}) == ({"0": ["a", "c"], "1": ["b"]}, False)
    assert groups_of({"a": "10", "b": "9", "c": "x"})[0].keys() == {"10", "9", "x"}
    same = groups_of({name: value for name, value in zip("abcdefgh", "11112234", strict=True)})
    assert same == ({"up to 1": list("abcd"), "above 1 to 2": ["e", "f"], "above 2": ["g", "h"]}, True)
    mostly = groups_of({name: value for name, value in zip("abcdefghi", "111111234", strict=True)})
    assert mostly == ({"up to 1": list("abcdef"), "above 1": ["g", "h", "i"]}, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"first row names the columns \(none\)"),
        ("case\na\n", "at least one further column"),
        ("case,site,site\na,1,2\n", "names the columns case, site, site"),
        ("case,site\na,1,2\n", "row 2 has 3 cells for 2 columns"),
        ("case,site\na,1\n\na,2\n", r"case 'a' has two rows \(the second is row 4\)"),
        ("case,site\nz,1\n", r"none of its 1 cases \(z\) is among those scored \(a, b\)"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_attributes(table(tmp_path, text), {"a", "b"})
    with pytest.raises(UsageError, match="no such file"):
        read_attributes(tmp_path / "nothing.csv", {"a"})
