"""Recipes with candidates through the command line: what is kept, what fails, and what is done again after a kill."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfcfg.cli import main
from selfcfg.project import experiments_of
from selfcfg.recipes.kept import Kept
from selfcfg.runs import RunRecord, experiment_folder
from selfcfg.workspace import Workspace
from tests.cli.conftest import RATES, SHORT

pytestmark = pytest.mark.usefixtures("no_curves")

TRIED = f"""
description = "Tries two ways to pretrain, and goes on from the better one."

[[stage]]
name = "pretrain"
foreach = {{ trainer = ["masked", "contrastive"] }}
settings = {{ {SHORT} }}

[[stage]]
name = "finetune"
trainer = "supervised"
init = "pretrain"
settings = {{ {SHORT} }}

[[stage]]
name = "better"
keep = {{ of = ["finetune"], best_by = "dice" }}

[[stage]]
name = "last"
trainer = "supervised"
init = "better"
settings = {{ {SHORT} }}
"""
NAME = "tried__standard__3d_fullres"
JOBS = [f"{stage}/{trainer}" for stage in ("pretrain", "finetune") for trainer in ("masked", "contrastive")]


@pytest.fixture(scope="module")
def written(narrow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which nothing is trained, with recipes beside it; copy it before changing it."""
    place = tmp_path_factory.mktemp("graphs") / "w"
    shutil.copytree(narrow, place)
    (place / "tried.toml").write_text(TRIED)
    (place / "rates.toml").write_text(RATES)
    return place


@pytest.fixture(scope="module")
def done(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which `TRIED` was trained on fold 0, one job after another; copy it before changing it."""
    place = tmp_path_factory.mktemp("done") / "w"
    shutil.copytree(written, place)
    assert main(command(place, "tried.toml", "--jobs", "1")) == 0
    return place


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "w"))


def command(workspace: Path, recipe: str, *options: str) -> list[str]:
    return ["train", "901", "--recipe", str(workspace / recipe), *options, "--workspace", str(workspace)]


def results(workspace: Path, name: str = NAME) -> Path:
    return workspace / "results" / "Dataset901_Tiny" / name


def weights(workspace: Path) -> dict[str, bytes]:
    files = results(workspace).rglob("final.safetensors")
    return {str(file.parent.relative_to(results(workspace))): file.read_bytes() for file in files}


def times(workspace: Path) -> dict[str, int]:
    files = results(workspace).rglob("final.safetensors")
    return {str(file.parent.relative_to(results(workspace))): file.stat().st_mtime_ns for file in files}


def kept(workspace: Path) -> Kept:
    return Kept.read(results(workspace) / "better" / "candidates.json")


@pytest.mark.slow
def test_the_better_candidate_is_gone_on_from(done: Path) -> None:
    assert set(weights(done)) == {f"{job}/fold_0" for job in [*JOBS, "last"]}
    choice = kept(done)
    scores = {one.key: one.score for one in choice.candidates}
    assert set(scores) == {"finetune/masked", "finetune/contrastive"}
    best = choice.kept["better:best"]
    assert scores[best] == max(score for score in scores.values() if score is not None)
    last = RunRecord.read(results(done) / "last" / "fold_0" / "run.json")
    assert Path(last.init or "") == results(done) / best / "fold_0"
    assert best in (results(done) / "better" / "candidates.md").read_text()
    assert experiment_folder(results(done)) == results(done) / "last"
    tuned = RunRecord.read(results(done) / "finetune" / "masked" / "fold_0" / "run.json").stage
    assert tuned is not None and (tuned.stage, tuned.candidate) == ("finetune", "masked")


@pytest.mark.slow
def test_another_fold_is_trained_by_the_choice_that_was_made(selfcfg, copy: Path) -> None:
    before, choice = times(copy), kept(copy)
    answer = selfcfg(*command(copy, "tried.toml", "--fold", "1", "--jobs", "1"))
    assert answer.code == 0, answer.err
    assert before.items() < times(copy).items()
    assert kept(copy) == choice
    last = RunRecord.read(results(copy) / "last" / "fold_1" / "run.json")
    assert Path(last.init or "") == results(copy) / choice.kept["better:best"] / "fold_1"


@pytest.mark.slow
def test_a_failed_job_names_itself_and_fails_what_depends_on_it_alone(selfcfg, copy: Path) -> None:
    folder = results(copy)
    shutil.rmtree(folder / "finetune" / "contrastive")
    shutil.rmtree(folder / "last")
    shutil.rmtree(folder / "better")
    spoilt = folder / "pretrain" / "masked" / "fold_0" / "final.safetensors"
    shutil.copy(folder / "pretrain" / "contrastive" / "fold_0" / "final.safetensors", spoilt)
    answer = selfcfg(*command(copy, "tried.toml", "--jobs", "1"))
    assert answer.code == 2
    for words in ("job finetune/masked/fold_0", "weights it starts from differ", "keep better, last/fold_0"):
        assert words in answer.err
    assert (folder / "finetune" / "contrastive" / "fold_0" / "final.safetensors").is_file()
    assert not (folder / "last").exists() and not (folder / "better").exists()


@pytest.mark.slow
def test_a_candidate_that_diverges_is_not_kept_and_not_tried_again(selfcfg, written: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(written, tmp_path / "w"))
    answer = selfcfg(*command(place, "rates.toml", "--jobs", "1"))
    assert answer.code == 0, answer.err
    folder = results(place, "rates__standard__3d_fullres")
    good, bad = folder / "rates" / "learning_rate_0.01", folder / "rates" / "learning_rate_1e_38"
    assert "left out of the choice" in answer.err and RunRecord.read(bad / "fold_0" / "run.json").status == "diverged"
    assert Kept.read(folder / "rates" / "candidates.json").kept == {"rates:best": "rates/learning_rate_0.01"}
    assert experiment_folder(folder) == good
    assert experiments_of("901", Workspace.at(place)) == [good]
    before = (bad / "fold_0" / "run.json").stat().st_mtime_ns
    again = selfcfg(*command(place, "rates.toml", "--jobs", "1"))
    assert again.code == 0 and "it diverged before" in again.err
    assert (bad / "fold_0" / "run.json").stat().st_mtime_ns == before


def start(workspace: Path, jobs: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "selfcfg", *command(workspace, "tried.toml", "--resume", "--jobs", str(jobs))]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


@pytest.mark.slow
def test_killed_between_jobs_it_repeats_none_and_gives_the_same_bits(written: Path, done: Path, tmp_path: Path) -> None:
    place, at = Path(shutil.copytree(written, tmp_path / "w")), "finetune/contrastive"
    process, record = start(place, 2), results(place) / at / "fold_0" / "run.json"
    wait_for(lambda: record.is_file() and json.loads(record.read_text())["status"] == "finished", process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive, "processes end with the one that started them"
    finished = times(place)
    assert f"{at}/fold_0" in finished and "last/fold_0" not in finished
    assert main(command(place, "tried.toml", "--resume", "--jobs", "2")) == 0
    assert finished.items() < times(place).items()
    assert weights(place) == weights(done)
    assert kept(place) == kept(done)


@pytest.mark.slow
def test_asked_to_stop_jobs_side_by_side_save_and_go_on(written: Path, done: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(written, tmp_path / "w"))
    process = start(place, 2)
    wait_for(lambda: any(results(place).glob("pretrain/*/fold_0/run.json")), process)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors.decode()
    assert "last/fold_0" not in times(place)
    assert main(command(place, "tried.toml", "--resume", "--jobs", "1")) == 0
    assert weights(place) == weights(done)


@pytest.mark.slow
def test_plan_and_train_takes_a_recipe(selfcfg, written: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(written, tmp_path / "w"))
    shutil.rmtree(place / "preprocessed")
    given = ["--recipe", place / "rates.toml", "--memory", "0.02", "--fold", "0", "--jobs", "1", "--workspace", place]
    answer = selfcfg("plan-and-train", "901", *given)
    assert answer.code == 0, answer.err
    assert answer.result["folds"] == ["fold_0"] and answer.result["warnings"] is not None
    refused = selfcfg("plan-and-train", "901", *given, "--trainer", "supervised")
    assert refused.code == 2 and "--trainer was given, too" in refused.err


def test_show_tells_the_whole_graph(selfcfg, written: Path) -> None:
    answer = selfcfg("show", written / "tried.toml")
    assert answer.code == 0, answer.err
    told: dict[str, Any] = answer.result["recipe"]
    assert (told["jobs_per_fold"], told["steps_per_fold"]) == (5, 10)
    tuned = told["stage"][1]["candidates"]
    assert [one["key"] for one in tuned] == ["finetune/masked", "finetune/contrastive"]
    assert [one["steps_with_starts"] for one in tuned] == [4, 4]
    assert tuned[0]["inherits"] == ["encoder", "decoder"] and tuned[1]["inherits"] == ["encoder"]
    assert told["stage"][2]["kept"][0]["among"] == ["finetune/masked", "finetune/contrastive"]
    assert "better: trains nothing, keeps of finetune" in answer.err
    assert "for each fold: 5 trainings, 10 optimiser steps" in answer.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('["masked"', '["maskd"'), "stage[0].foreach.trainer[0]: no such name is installed, found 'maskd'"),
        (("epochs = 1", "epochs = 0"), "stage[0].settings.epochs: must be greater"),
        (('of = ["finetune"]', 'of = ["pretrain"]'), "stage[2].keep: 'pretrain/masked' only pretrains"),
        (('init = "better"', 'teachers = ["better"]'), "stage[3].teachers: the trainer 'supervised' learns from no"),
    ],
)
def test_what_trainers_cannot_do_is_told_with_its_place(
    selfcfg, written: Path, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    (tmp_path / "wrong.toml").write_text(TRIED.replace(*change))
    answer = selfcfg("train", "901", "--recipe", tmp_path / "wrong.toml", "--workspace", written)
    assert answer.code == 2 and words in answer.err


def test_a_value_that_a_setting_cannot_take_is_told_with_its_place(selfcfg, written: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(RATES.replace("1e38", "-1.0"))
    answer = selfcfg("train", "901", "--recipe", tmp_path / "wrong.toml", "--workspace", written)
    assert answer.code == 2 and "stage[0].foreach.learning_rate[1]: must be greater than 0" in answer.err
