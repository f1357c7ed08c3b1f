"""Image-level targets of a table in the dataset that is made, and tables that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfcfg.convert.folder import FolderRequest, convert_folder
from selfcfg.convert.target_table import read_targets
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.image_targets import GivenTarget
from tests.blobs import write_blobs

CASES = ("a", "b", "c")


def table(tmp_path: Path, text: str) -> Path:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    return tmp_path / "t.csv"


def test_columns_of_numbers_are_regressions_and_others_classes(tmp_path: Path, capsys) -> None:
    text = "\ufeffid;finding;age [years];grade\nb; tb ;63;10\na;normal;40.5;9\nc;;;10\nz;tb;1;1\n"
    found = read_targets(table(tmp_path, text), ["grade"], CASES)
    assert found == {
        "finding": GivenTarget(classes=("normal", "tb"), values={"a": "normal", "b": "tb"}),
        "age": GivenTarget(unit="years", values={"a": 40.5, "b": 63}),
        "grade": GivenTarget(classes=("9", "10"), values={"a": "9", "b": "10", "c": "10"}),
    }
    said = capsys.readouterr().err
    assert "left out 1 row of t.csv that are of no case: z" in said
    assert "'age': a number in years, known of 2 of 3 cases" in said


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("id,x\na,1\na,2\n", DataError, "row 3: case 'a' again"),
        ("id,x\na,1,2\n", DataError, "row 2: 3 values in 2 columns"),
        ("id,x\n,1\n", DataError, "row 2: no case is named"),
        ("id,x,x\na,1,2\n", DataError, "name the columns"),
        ("id\na\n", DataError, "name the columns"),
        ("id,x\nz,1\n", DataError, "none of its 1 row is of a case, such as 'a'"),
        ("id,x\na,\n", DataError, "column 'x': no case has a value"),
        ("id,x\na,same\nb,same\n", DataError, "every value is 'same'"),
    ],
)
def test_tables_that_cannot_be_used_say_why(tmp_path: Path, text: str, kind: type[SelfcfgError], words: str) -> None:
    with pytest.raises(kind) as caught:
        read_targets(table(tmp_path, text), [], CASES)
    assert words in str(caught.value)


def test_columns_and_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--classes grad: no such column in .*did you mean 'grade'"):
        read_targets(table(tmp_path, "id,grade\na,1\n"), ["grad"], CASES)
    with pytest.raises(UsageError, match="there is no such file"):
        read_targets(tmp_path / "none.csv", [], CASES)


def test_a_folder_is_converted_with_its_targets(tmp_path: Path) -> None:
    known = write_blobs(tmp_path / "src", 8)
    folders = {"images": (tmp_path / "src" / "images",), "labels": tmp_path / "src" / "labels"}
    made = convert_folder(
        FolderRequest(**folders, image_targets=tmp_path / "src" / "targets.csv"), tmp_path / "Dataset001_Spots"
    )
    content = json.loads((made.root / "dataset.json").read_text())["image_targets"]
    assert content["finding"]["classes"] == ["clear", "spot"] and content["brightness"]["unit"] == "%"
    assert content["finding"]["values"] == {case: one[0] for case, one in known.items() if case != "case_02"}
    assert content["brightness"]["values"] == {case: one[1] for case, one in known.items() if case != "case_03"}
    plain = convert_folder(FolderRequest(**folders), tmp_path / "Dataset002_Plain")
    assert "image_targets" not in json.loads((plain.root / "dataset.json").read_text())
    with pytest.raises(UsageError, match="give it with --image-targets"):
        convert_folder(FolderRequest(**folders, class_columns=("finding",)), tmp_path / "Dataset003_None")
