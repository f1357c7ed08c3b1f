"""The pages of docs/results: made of what is committed, and judged by the rule that they state."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from selfcfg.engine.label_efficiency.results import Arm, LabelResult, Protocol, add_result

ROOT = Path(__file__).parents[2]
FUZZING = ROOT / "benchmarks" / "results" / "fuzzing.jsonl"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of benchmarks as it imports its neighbours."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def generator(script: Any) -> ModuleType:
    return script("results_pages")


def test_the_pages_are_what_is_made_of_the_committed_results(generator: ModuleType) -> None:
    made = generator.pages()
    there = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "docs" / "results").glob("*.md")}
    assert there == made, "python benchmarks/results_pages.py makes them again"
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert generator.indexed(index, [*made]) == index and all(f"results/{name}\n" in index for name in made)


def test_every_finding_of_fuzzing_is_kept_by_a_test_that_there_is(generator: ModuleType) -> None:
    kept = [line["test"] for line in map(json.loads, FUZZING.read_text().splitlines()) if line["finding"]]
    for place, test, name in (re.fullmatch(r"([\w/.]+)::(\w+)(?:\[(.*)\])?", one).groups("") for one in kept):
        text = (ROOT / place).read_text(encoding="utf-8")
        assert f"def {test}(" in text and name in text
    page = "\n".join(generator.fuzzing(generator.RESULTS))
    assert all(one in page for one in kept)


def test_a_study_without_results_has_no_page(generator: ModuleType, tmp_path: Path) -> None:
    assert generator.pages(tmp_path) == {}
    assert (
        generator.indexed("```{toctree}\n:caption: Results\n:maxdepth: 1\n\nresults/old\n```\n", []).count("old") == 0
    )


def write_benchmark(folder: Path, arms: Mapping[str, float], seeds: int, n_test: int) -> None:
    """A benchmark with one fraction and budget, in which each arm has a mean Dice with a little noise around it."""
    rng = np.random.default_rng(0)
    cases = [f"patient{number:03d}_frame{frame:02d}" for number in range(n_test) for frame in (1, 9)]
    Protocol(
        dataset="Dataset003_heart", planner="standard", configuration="2d_small", plan_hash="p", data_hash="d",
        train=("patient900_frame01",), test=tuple(cases), rates=(0.1,), mirroring=True, budgets={"short": 100},
        arms={arm: Arm(trainer="supervised", settings={}) for arm in arms},
    ).write(folder / "protocol.json")  # fmt: skip
    for seed in range(seeds):
        for arm, mean in arms.items():
            scores = {case: mean + 0.01 * float(rng.normal()) for case in cases}
            add_result(
                folder,
                LabelResult(
                    arm=arm, fraction=2, budget="short", seed=seed, subjects=2, steps=100, dice=mean, rate=0.1,
                    tried=((0.1, None),), chosen_on="none", train=("patient900_frame01",), kept_out=(), cases=scores,
                    seconds=1.0,
                ),
            )  # fmt: skip


GUIDED = {"scratch": 0.5, "ssl": 0.6, "reference": 0.7, "ssl_reference": 0.7, "sum": 0.8, "fish": 0.7, "cosine": 0.8}


def test_what_is_shown_what_is_not_and_what_is_missing_of_a_benchmark(generator: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "reference_guided" / "heart"
    write_benchmark(folder, GUIDED, seeds=3, n_test=8)
    (tmp_path / "reference_guided" / "notes.md").write_text("What did not work: nothing.\n")
    (folder / "gradients.csv").write_text(
        "arm,seed,epoch,gradient cosine,gradient cosine last stage,gradient norm pretext,gradient norm reference,"
        "masked explained,reference dice,probe,seconds_per_iteration\n"
        "sum,0,0,0.1,,1,2,0.3,0.4,,0.2\nsum,0,1,0.3,,1,2,0.5,0.6,,0.2\nreference,0,0,0,0,0,2,,0.5,,0.1\n"
    )
    text = generator.pages(tmp_path)["reference-guided"]
    assert "1 training and 16 test cases (8 subjects). Versions and machine: not recorded." in text
    assert "**21 of 24 jobs** are done:" in text and "| 2 | 21 of 24 |" in text
    assert "(`sum` better than `ssl`): holds in 1 of 1 comparison." in text
    assert "(`fish` better than `sum`): the opposite in 1 of 1 comparison." in text
    assert "(`cosine` better than `sum`): not shown in 1 of 1 comparison." in text
    assert "Not compared yet: pcgrad with sum." in text
    assert "## Notes\n\nWhat did not work: nothing.\n" in text
    assert "| sum | 1 | 0.2 | - | 1 | 2 | 0.5 | 0.6 | 0.2 |" in text
    assert "| reference | 1 | - | - | 0 | 2 | - | 0.5 | 0.1 |" in text


@pytest.mark.parametrize(("seeds", "n_test", "words"), [(1, 8, "holds so far in 1"), (3, 5, "too few subjects in 1")])
def test_what_may_change_or_cannot_be_told_is_not_called_shown(
    generator: ModuleType, tmp_path: Path, seeds: int, n_test: int, words: str
) -> None:
    write_benchmark(tmp_path / "reference_guided" / "heart", GUIDED, seeds, n_test)
    assert f"(`sum` better than `ssl`): {words} of 1 comparison." in generator.pages(tmp_path)["reference-guided"]


PLACES = {"versions": {"selfcfg": "0.1.0", "torch": "2.13", "python": "3.11"},
          "machine": {"processor": "a processor", "instructions": "AVX2", "device": "cpu", "system": "linux",
                      "threads": 2}}  # fmt: skip


def two_stage_rows(seeds: int) -> list[dict[str, Any]]:
    """Winners above plain networks, their student above them and as good as plain ones with twice the labels."""
    rng = np.random.default_rng(0)
    means = {f"plain{one}": 0.6 for one in range(5)} | {f"twice{one}": 0.8 for one in range(5)}
    means |= {"student": 0.8, "of-plain": 0.9, "ensemble of plain": 0.65}
    rows = []
    for seed in range(seeds):
        for system, mean in [*means.items(), ("joint/a", 0.7), ("joint/b", 0.75)]:
            cases = {f"case{number}": mean + 0.005 * float(rng.normal()) for number in range(20)}
            about = {"validation": 1 - mean, "kept": True} if "/" in system else {}
            rows.append({"seed": seed, "system": system, "dice": mean, **about, "cases": cases, **PLACES})
    rows.append({"seed": 0, "system": "student of 2", "dice": 0.78, "cases": rows[10]["cases"], **PLACES})
    return rows


def test_the_claims_of_the_two_stages(generator: ModuleType, tmp_path: Path) -> None:
    lines = [json.dumps(row) + "\n" for row in two_stage_rows(3)]
    (tmp_path / "two_stage.jsonl").write_text("".join(lines))
    text = generator.pages(tmp_path)["two-stage"]
    claims = {line.split(" (")[0]: line.rpartition(": ")[2] for line in text.splitlines() if line.startswith("- ")}
    assert "**45 of 78 systems** are there, of 3 seeds: 0, 1, 2. Made with selfcfg 0.1.0, torch 2.13" in text
    assert claims["- Distillation is better than the best of its teachers"] == "**holds**."
    assert claims["- Both stages are better than plain training"] == "**holds**."
    assert claims["- The tasks add something to an ensemble that is distilled"] == "**the opposite**."
    assert claims["- The student matches plain training with twice the labels"] == "**holds**."
    assert "Not compared yet: ensemble of the winners against ensemble of plain." in text
    assert re.search(r"\| best single \| 3 \| 0\.(69|70)", text), "validation chooses, not the test cases"
    assert "| 2 | 0.780 |" in text and "| 3 | missing | - |" in text and "| 5 | 0.800 | - |" in text


def test_winners_are_ranked_by_validation_and_ablations_learn_from_the_best(script: Any, tmp_path: Path) -> None:
    study = script("two_stage_study")
    contender = {"values": {}, "steps": 1}
    scores = {"joint/a": 0.7, "finetune/a": 0.9, "joint/b": 0.8, "finetune/b": 0.95}
    candidates = [{"key": key, "score": score, **contender} for key, score in scores.items()]
    one = study.Study(tmp_path, 0, 1, is_brief=True)
    asked: list[tuple[object, ...]] = []
    one.trained = lambda system, fold, seed, *how: asked.append((system, fold, seed, *how))
    with pytest.raises(SystemExit, match="run the study without --ablate first"):
        one.ablated()
    folder = one.recipe_folder()
    study.Kept.parse(
        {
            "stage": "candidates", "best_by": "dice", "per": "tasks", "folds": [0], "candidates": candidates,
            "kept": {"a": "finetune/a", "b": "joint/b"},
        },
        "a test",
    ).write(folder / "candidates" / study.KEPT)  # fmt: skip
    one.ablated()
    systems = [f"student balance {value}" for value in ("0.25", "0.75", "1")]
    assert [words[0] for words in asked] == [*systems, *(f"student of {count}" for count in (1, 2, 3, 4))]
    for words, count in zip(asked, (2, 2, 2, 1, 2, 2, 2), strict=True):
        teachers = [words[place + 1] for place, word in enumerate(words) if word == "--teacher"]
        assert teachers == [folder / "finetune/a", folder / "joint/b"][:count]
        assert "--unlabelled" in words
    assert asked[2][-2:] == ("--set", "balance=1.0")


def test_gradients_of_pretrainings_are_added_to_those_that_are_kept(script: Any, tmp_path: Path) -> None:
    study = script("reference_study")
    out, target = tmp_path / "out", tmp_path / "target"
    for seed, cosine in ((0, 0.25), (1, 0.5)):
        log = out / "runs" / f"reference_guided__standard__2d_small__sum-seed{seed}" / "fold_0" / "log.jsonl"
        log.parent.mkdir(parents=True)
        entry = {"epoch": 0, "validation": {"gradient cosine": cosine, "probe": None}, "seconds_per_iteration": 0.125}
        log.write_text(json.dumps(entry) + "\n")
        study.keep_gradients(out, target)
        log.unlink()
    rows = (target / "gradients.csv").read_text().splitlines()
    assert rows[1:] == ["sum,0,0,0.25,,,,,,,0.125", "sum,1,0,0.5,,,,,,,0.125"]


def test_what_pretrainings_logged_is_kept_and_told_by_arm(script: Any, tmp_path: Path) -> None:
    pretrainings = script("pretrainings")
    for seed, status, scores in ((0, "finished", (2.0, 1.0)), (1, "finished", (4.0, 2.0)), (2, "running", (9.0, 9.0))):
        fold = tmp_path / "runs" / f"masked__standard__2d_small__hidden-seed{seed}" / "fold_0"
        fold.mkdir(parents=True)
        (fold / "run.json").write_text(json.dumps({"status": status}))
        lines = [
            {"seconds": 60.0, "terms": {"paint": value}, "validation": {"explained": value / 10, "probe": None}}
            for value in scores
        ]
        (fold / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "kept").mkdir()
    pretrainings.note_pretrainings(tmp_path, tmp_path / "kept")
    once = (tmp_path / "kept" / pretrainings.FILE).read_text(encoding="utf-8")
    pretrainings.note_pretrainings(tmp_path / "gone", tmp_path / "kept")
    assert (tmp_path / "kept" / pretrainings.FILE).read_text(encoding="utf-8") == once
    _, rows = pretrainings.what_was_learnt(tmp_path / "kept")
    assert rows.splitlines()[-1] == "| hidden | paint 3.00 to 1.50 | explained 0.15 | 2 | 2.0 |"
    assert pretrainings.what_was_learnt(tmp_path) == []
