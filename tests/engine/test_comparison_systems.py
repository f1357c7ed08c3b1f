"""The scores of a system are found wherever they lie: runs, evaluations of ours and of nnU-Net, label maps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfcfg.engine.comparison.scoring import LabelScoring
from selfcfg.engine.comparison.subjects import subjects_of
from selfcfg.engine.comparison.systems import Given, System, given_systems, read_system, scored_of
from selfcfg.engine.scoring.evaluate import Evaluation, evaluate
from selfcfg.engine.scoring.scores import Scoring
from selfcfg.errors import DataError, UsageError
from selfcfg.geometry import Geometry
from selfcfg.io import write_label
from selfcfg.labels import LabelSchema
from selfcfg.workspace import Workspace

NNUNET = Path(__file__).parent / "nnunet_summary.json"
"""Written by nnunetv2 2.8.1 (compute_metrics_on_folder) on the label maps of `maps`, classes 1, 2 and (1, 2)."""

REGIONS = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))
PLAIN = LabelSchema(labels={"background": 0, "organ": 1, "lesion": 2})
GEOMETRY = Geometry(shape=(4, 8, 9), spacing=(2.0, 1.0, 1.0))


def maps() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reference and prediction of three cases: a lesion in both, in neither, and in the prediction alone."""
    found = {}
    for number, case in enumerate("abc"):
        reference, prediction = np.zeros((2, *GEOMETRY.shape), np.uint8)
        reference[1:3, 1:6, 1:7] = 1
        prediction[1:3, 2:6, 1 + number : 7] = 1
        if case == "a":
            reference[1:3, 2:4, 2:4] = 2
            prediction[1:3, 2:4, 3:6] = 2
        if case == "c":
            prediction[2, 4, 4:6] = 2
        found[case] = reference, prediction
    return found


def write_maps(root: Path) -> tuple[Path, Path]:
    """Folders of references and predictions."""
    for case, (reference, prediction) in maps().items():
        write_label(root / "references" / f"{case}.nii.gz", reference, GEOMETRY)
        write_label(root / "predictions" / f"{case}.nii.gz", prediction, GEOMETRY)
    return root / "references", root / "predictions"


def scoring_of(root: Path, references: Path, tolerance: float = 1.0) -> LabelScoring:
    return LabelScoring(references, PLAIN, Scoring(tolerance), 1, root / "scores")


def one(path: Path, labels: LabelSchema | None = None, scoring: LabelScoring | None = None) -> System:
    return read_system(Given("one", (path,)), labels, scoring)


def values(system: System, metric: str) -> dict[str, dict[str, Any]]:
    cases = system.runs[0].cases
    return {case: {name: scores.values[metric] for name, scores in cases[case].items()} for case in cases}


def test_systems_are_given_by_name_or_named_after_their_folder() -> None:
    assert given_systems(["a=x,y", "results/masked"]) == (
        Given("a", (Path("x"), Path("y"))),
        Given("masked", (Path("results/masked"),)),
    )


def test_a_folder_whose_name_holds_an_equals_sign_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "rate=0.1").mkdir()
    assert given_systems([str(tmp_path / "rate=0.1")]) == (Given("rate=0.1", (tmp_path / "rate=0.1",)),)


def test_a_pattern_stands_for_all_repetitions(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        (tmp_path / f"masked-{seed}").mkdir()
    assert given_systems([f"masked={tmp_path}/masked-*"]) == (
        Given("masked", tuple(tmp_path / f"masked-{seed}" for seed in (0, 1, 2))),
    )
    with pytest.raises(UsageError, match="nothing matches"):
        given_systems([f"other={tmp_path}/other-*"])


@pytest.mark.parametrize("texts", [["=x"], ["a="], ["a=x", "a=y"], ["x/masked", "y/masked"], ["../a=x"]])
def test_a_name_that_cannot_be_used_is_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="NAME=PATH"):
        given_systems(texts)


def test_nnunets_own_summary_says_the_same_as_ours(tmp_path: Path) -> None:
    references, predictions = write_maps(tmp_path)
    for labels, names in ((PLAIN, ("organ", "lesion")), (REGIONS, ("whole", "core"))):
        content = json.loads(NNUNET.read_text())
        wanted = {"organ": "1", "lesion": "2", "whole": "(1, 2)", "core": "2"}
        for case in content["metric_per_case"]:
            case["metrics"] = {key: case["metrics"][key] for key in (wanted[name] for name in names)}
        (tmp_path / "theirs").mkdir(exist_ok=True)
        (tmp_path / "theirs" / "summary.json").write_text(json.dumps(content))
        theirs = one(tmp_path / "theirs", labels)
        ours = scored_of(evaluate(references, predictions, labels))
        assert theirs.kind == "nnU-Net's evaluation" and theirs.runs[0].empty == "exclude"
        assert set(theirs.runs[0].cases) == {"a", "b", "c"}
        for case, classes in theirs.runs[0].cases.items():
            assert set(classes) == set(names)
            for name, scores in classes.items():
                same = ours.cases[case][name]
                assert (scores.n_reference, scores.n_prediction) == (same.n_reference, same.n_prediction)
                assert scores.values == {key: pytest.approx(same.values[key]) for key in scores.values}


def test_nnunets_classes_keep_their_values_without_a_dataset_json() -> None:
    found = one(NNUNET)
    assert set(found.runs[0].cases["a"]) == {"1", "2", "(1, 2)"}
    assert values(found, "dice")["b"]["2"] is None
    assert values(found, "dice")["c"]["2"] == 0


def test_a_class_of_nnunets_that_is_not_declared_is_refused() -> None:
    with pytest.raises(DataError, match=r"class \(1, 2\) is not among those of the dataset.json given \(organ, lesion"):
        one(NNUNET, PLAIN)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"metric_per_case": [{"metrics": {"1": {}}}]}, "not as nnU-Net writes it"),
        ({"metric_per_case": [{"reference_file": "a.nii.gz", "metrics": {"1": {"Dice": 1.0}}}]}, "n_ref"),
        ({"metric_per_case": []}, "holds no case"),
        ({"results": {"all": []}}, "unknown key"),
    ],
)
def test_a_summary_of_another_kind_is_refused(tmp_path: Path, content: object, found: str) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=found):
        one(tmp_path)


def test_the_folds_of_nnunets_training_are_taken_together(tmp_path: Path) -> None:
    content = json.loads(NNUNET.read_text())
    for fold, entry in enumerate(content["metric_per_case"]):
        folder = tmp_path / f"fold_{fold}" / "validation"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({**content, "metric_per_case": [entry]}))
    assert set(one(tmp_path).runs[0].cases) == {"a", "b", "c"}
    assert set(one(tmp_path / "fold_1").runs[0].cases) == {"b"}
    shutil.copy(tmp_path / "fold_0/validation/summary.json", tmp_path / "fold_1/validation/summary.json")
    with pytest.raises(DataError, match="in more than one fold: a"):
        one(tmp_path)


def test_an_evaluation_of_ours_is_read_as_it_is(tmp_path: Path) -> None:
    references, predictions = write_maps(tmp_path)
    made = evaluate(references, predictions, PLAIN, nsd_tolerance=1.5)
    made.write(tmp_path / "mine")
    found = one(tmp_path / "mine")
    assert found.kind == "evaluation"
    assert found.runs[0] == scored_of(made) and found.runs[0].nsd_tolerance == 1.5
    assert values(found, "hd95")["a"]["organ"] == made.cases[0].scores["organ"].hd95


def test_label_maps_are_scored_here_and_what_is_unchanged_is_kept(tmp_path: Path) -> None:
    references, predictions = write_maps(tmp_path)
    scoring = scoring_of(tmp_path, references)
    first = one(predictions, PLAIN, scoring)
    assert first.kind == "label maps scored here"
    assert first.runs[0] == scored_of(evaluate(references, predictions, PLAIN, nsd_tolerance=1.0))
    # a case that is kept is not computed again: its score, changed by hand, comes back
    file = tmp_path / "scores" / "one" / "summary.json"
    kept = Evaluation.read(file)
    marked = [case.model_copy(update={"scores": {**case.scores, "organ": _with(case, 0.25)}}) for case in kept.cases]
    kept.model_copy(update={"cases": tuple(marked)}).write(file.parent)
    write_label(predictions / "b.nii.gz", maps()["b"][0], GEOMETRY)
    again = values(one(predictions, PLAIN, scoring), "dice")
    assert (again["a"]["organ"], again["b"]["organ"], again["c"]["organ"]) == (0.25, 1.0, 0.25)
    other = values(one(predictions, PLAIN, scoring_of(tmp_path, references, tolerance=3.0)), "dice")
    assert 0.25 not in (other["a"]["organ"], other["c"]["organ"])


def _with(case: Any, dice: float) -> Any:
    return case.scores["organ"].model_copy(update={"dice": dice})


def test_references_go_before_scores_that_lie_beside_label_maps(tmp_path: Path) -> None:
    references, predictions = write_maps(tmp_path)
    shutil.copy(NNUNET, predictions / "summary.json")
    assert one(predictions).kind == "nnU-Net's evaluation"
    assert one(predictions, PLAIN, scoring_of(tmp_path, references)).kind == "label maps scored here"


def test_what_cannot_be_compared_is_told_with_what_to_do(tmp_path: Path) -> None:
    references, predictions = write_maps(tmp_path)
    with pytest.raises(UsageError, match="not scored yet; add --references DIR --dataset-json FILE"):
        one(predictions)
    with pytest.raises(UsageError, match="no such folder"):
        one(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="neither scores nor label maps in it"):
        one(tmp_path / "empty")
    (tmp_path / "others").mkdir()
    shutil.copy(references / "a.nii.gz", tmp_path / "others" / "z.nii.gz")
    with pytest.raises(DataError, match=r"none of its label maps \(z\) has a reference \(a, b, c\)"):
        one(tmp_path / "others", PLAIN, scoring_of(tmp_path, references))


def test_repetitions_must_be_of_one_kind(tmp_path: Path) -> None:
    references, predictions = write_maps(tmp_path)
    evaluate(references, predictions, PLAIN).write(tmp_path / "mine")
    with pytest.raises(UsageError, match="different kinds"):
        read_system(Given("a", (tmp_path / "mine", NNUNET)), None, None)
    assert len(read_system(Given("a", (NNUNET, NNUNET)), None, None).runs) == 2


def test_subjects_come_from_a_table_a_pattern_or_the_dataset(tmp_path: Path) -> None:
    systems, workspace = [one(NNUNET)], Workspace.at(tmp_path)
    (tmp_path / "who.csv").write_text("Subject;case\np1;a\np1;b\n")
    found, source = subjects_of(systems, str(tmp_path / "who.csv"), None, workspace)
    assert found == {"a": "p1", "b": "p1"} and source == "who.csv; 1 case without an entry there by itself"
    assert subjects_of(systems, "([a-c])", None, workspace)[0] == {"a": "a", "b": "b", "c": "c"}
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}, "numTraining": 3}
    content |= {"file_ending": ".nii.gz", "selfcfg": {"subjects": {"a": "p", "b": "p", "c": "q"}}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert subjects_of(systems, None, tmp_path / "dataset.json", workspace)[0]["b"] == "p"
    assert subjects_of(systems, None, None, workspace) == ({}, "each case by itself")
    of_run = [System("run", "experiment", systems[0].runs, "Dataset001_A")]
    shutil.copytree(tmp_path, tmp_path / "raw" / "Dataset001_A", ignore=shutil.ignore_patterns("raw"))
    assert subjects_of(of_run, None, None, workspace)[0]["b"] == "p"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("id,subject\na,1\n", "first row is id, subject"),
        ("case,subject\na,1\na,2\n", "row 3"),
        ("case,subject\na\n", "row 2"),
    ],
)
def test_a_table_of_subjects_that_cannot_be_used_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "who.csv").write_text(text)
    with pytest.raises(DataError, match=found):
        subjects_of([one(NNUNET)], str(tmp_path / "who.csv"), None, Workspace.at(tmp_path))
