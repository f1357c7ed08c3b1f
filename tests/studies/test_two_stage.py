"""The commands of docs/studies/two-stage.md, on tiny radiographs with the layout of SIIM-ACR's.

Six patients are labelled instead of 100, eight instead of 200.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfcfg.dataset import Dataset
from selfcfg.splits import read_splits
from tests.radiographs import uid, write_siim
from tests.studies.pages import blocks, commands, run

pytestmark = pytest.mark.usefixtures("no_curves")

PAGE = "two-stage.md"
N_IMAGES, N_PATIENTS = 40, 20


@pytest.mark.slow
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_siim(tmp_path / "siim", N_IMAGES, n_patients=N_PATIENTS)
    monkeypatch.chdir(tmp_path)
    converting, *training = blocks(PAGE, "sh")
    (splitting,) = blocks(PAGE, "python notest")
    for arguments in commands(converting, tmp_path):
        run(arguments)
    dataset = Dataset.open(tmp_path / "workspace" / "raw" / "Dataset006_Pneumothorax")
    assert len(dataset.cases) == N_IMAGES - 1, "one image has no row"
    assert uid(2) not in {case.id for case in dataset.cases}

    assert splitting.count("(100, 200)") == 1
    exec(compile(splitting.replace("(100, 200)", "(6, 8)"), PAGE, "exec"), {})
    few, twice = read_splits(dataset.root / "splits_final.json", [case.id for case in dataset.cases])
    sets = {name: {path.stem for path in Path(name, "images").iterdir()} for name in ("test", "unlabelled")}
    subject = {case.id: case.subject for case in dataset.cases}
    sides = {
        name: {subject[case] for case in cases}
        for name, cases in {
            "twice": twice.train,
            "validation": few.val,
            "test": (name.removesuffix("_0000") for name in sets["test"]),
            "unlabelled": (name.removesuffix("_0000") for name in sets["unlabelled"]),
        }.items()
    }
    assert set(few.train) < set(twice.train)
    assert few.val == twice.val
    assert (len({subject[case] for case in few.train}), len(sides["twice"])) == (6, 8)
    assert sum(map(len, sides.values())) == len(set.union(*sides.values())) == N_PATIENTS
    assert len({path.name for path in Path("test", "labels").iterdir()}) == len(sets["test"])

    for arguments in commands("\n".join(training), tmp_path):
        run(arguments, patch="32,32")
    results = tmp_path / "workspace" / "results" / "Dataset006_Pneumothorax"
    for name in ("plain0", "plain1", "plain2", "plain3", "plain4", "twice"):
        (record,) = (results / f"supervised__standard-24GB__2d__{name}").glob("fold_*/run.json")
        split = twice if name == "twice" else few
        assert set(json.loads(record.read_text())["train"]) == set(split.train)
        for folder in (name, f"{name}-scored"):
            cases = json.loads((tmp_path / "test" / folder / "summary.json").read_text())["cases"]
            assert len(cases) == len(sets["test"])
