"""The commands that jobs of a cluster run, typed by hand: no Slurm is needed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfcfg.cli.recipes import recipe_of
from selfcfg.cluster.site import Site
from selfcfg.cluster.tasks import Task
from selfcfg.dataset import Dataset
from selfcfg.engine.choice import TrainRequest
from selfcfg.engine.cluster.commands import Caller
from selfcfg.engine.cluster.graphs import KINDS, fold_tasks, recipe_tasks
from selfcfg.engine.data.store import Store
from selfcfg.engine.pipeline import Shard
from selfcfg.engine.recipes.opening import open_recipe
from selfcfg.project import Project
from selfcfg.recipes.kept import Kept
from selfcfg.workspace import Workspace
from tests.cli.conftest import RATES, SHORT, Command

pytestmark = pytest.mark.usefixtures("no_curves")

RECIPE = f"""{RATES}
[[stage]]
name = "last"
trainer = "supervised"
init = "rates"
settings = {{ {SHORT} }}
"""
NAME = "graph__standard__3d_fullres"
GOOD, BAD = (f"rates/learning_rate_{rate}/fold_0" for rate in ("0.01", "1e_38"))
BENCHMARK = ["--arms", "scratch,masked", "--fractions", "2", "--seeds", "1", "--budgets", "tiny=2", "--rates", "0.01"]
QUICK = [
    "--set",
    "batch_size=2",
    "--pretrain-set",
    "masked.epochs=1",
    "--pretrain-set",
    "masked.iterations_per_epoch=2",
]


@pytest.fixture(scope="module")
def there(preprocessed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that is preprocessed, with a recipe beside it; copy it before training in it."""
    place = Path(shutil.copytree(preprocessed, tmp_path_factory.mktemp("there") / "w"))
    (place / "graph.toml").write_text(RECIPE)
    return place


@pytest.fixture
def copy(there: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(there, tmp_path / "w"))


def train(workspace: Path, *options: str) -> list[str]:
    return ["train", "901", "--recipe", str(workspace / "graph.toml"), *options, "--workspace", str(workspace)]


def commands(folder: Path) -> Iterator[list[str]]:
    """The command lines in the scripts that submit.sh submits, in its order."""
    for script in re.findall(r"([\w-]+\.sh)\)$", (folder / "submit.sh").read_text(), re.MULTILINE):
        subprocess.run(["bash", "-n", folder / script], check=True)
        for line in re.findall(r"^    selfcfg (.*) ;;$", (folder / script).read_text(), re.MULTILINE):
            yield shlex.split(line)


def test_shares_of_cases_are_together_all_of_them_each_once(tiny_dataset: Dataset, preprocessed: Path) -> None:
    dealt = [case.id for number in (1, 2, 3) for case in Shard(number, 3).of(tiny_dataset).cases]
    every = sorted(case.id for case in tiny_dataset.cases)
    assert sorted(dealt) == every
    (store,) = (preprocessed / "preprocessed" / "Dataset901_Tiny").glob("3d_fullres-*")
    assert sorted(Store(store).cases()) == every


@pytest.mark.parametrize("share", ["0/3", "4/3", "half"])
def test_what_is_no_share_is_refused(selfcfg: Command, there: Path, share: str) -> None:
    answer = selfcfg("preprocess", "901", "--shard", share, "--workspace", there)
    assert answer.code == 2 and f"'{share}' is no share" in answer.err


@pytest.mark.slow
def test_the_commands_of_a_recipe_run_by_hand_one_by_one(selfcfg: Command, copy: Path) -> None:
    answer = selfcfg(*train(copy, "--cluster", "print", "--cluster-set", "cpus=1,train.mem=3G"))
    assert answer.code == 0, answer.err
    folder = Path(answer.result["scripts"])
    every = list(commands(folder))
    assert [line[line.index("--only") + 1] for line in every] == [GOOD, BAD, "keep rates", "last/fold_0"]
    submit = (folder / "submit.sh").read_text()
    assert "afterany:${job_0" in submit and "afterok:${job_1" in submit
    assert "--mem=3G" in (folder / "00-00-train.sh").read_text()

    good, bad, keep, last = every
    early = selfcfg(*last)
    assert early.code == 2 and "it needs keep rates; do these before it" in early.err
    assert selfcfg(*good).code == 0
    undecided = selfcfg(*keep)
    assert undecided.code == 2 and f"it needs {BAD}" in undecided.err
    diverged = selfcfg(*bad)
    assert diverged.code == 1 and "dice is nan" in diverged.err
    assert selfcfg(*keep).code == 0
    results = copy / "results" / "Dataset901_Tiny" / NAME
    assert Kept.read(results / "rates" / "candidates.json").kept == {"rates:best": "rates/learning_rate_0.01"}
    assert selfcfg(*last).code == 0
    before = {file: file.stat().st_mtime_ns for file in results.rglob("final.safetensors")}
    here = selfcfg(*train(copy, "--jobs", "1"))
    assert here.code == 0 and here.result["dice"] is not None
    assert {file: file.stat().st_mtime_ns for file in results.rglob("final.safetensors")} == before


@pytest.mark.slow
def test_the_commands_of_a_benchmark_give_the_results_of_the_benchmark(selfcfg: Command, copy: Path) -> None:
    given = ["benchmark", "label-efficiency", "901", *BENCHMARK, *QUICK, "--workspace", str(copy)]
    answer = selfcfg(*given, "--out", copy / "apart", "--cluster", "print")
    assert answer.code == 0, answer.err
    every = list(commands(Path(answer.result["scripts"])))
    names = ["scratch-2-tiny-0", "pretrain masked 0", "masked-2-tiny-0"]
    assert sorted(line[line.index("--only") + 1] for line in every) == sorted(names)
    for line in every:
        assert selfcfg(*line).code == 0
    found = selfcfg(*given, "--out", copy / "apart")
    here = selfcfg(*given, "--out", copy / "here", "--jobs", "1")
    assert found.code == here.code == 0
    for one in (found, here):
        one.result["results"] = [{**row, "seconds": 0} for row in one.result["results"]]
    assert found.result["results"] == here.result["results"]


@pytest.mark.slow
def test_images_and_settings_of_the_command_are_in_the_recipe_that_jobs_read(selfcfg: Command, copy: Path) -> None:
    images = copy / "raw" / "Dataset901_Tiny" / "imagesTs"
    given = ["--recipe", "masked", "--unlabelled", images, "--set", "pretrain.epochs=7", "--fold", "0,1"]
    answer = selfcfg("train", "901", *given, "--cluster", "print", "--workspace", copy)
    assert answer.code == 0, answer.err
    every = list(commands(Path(answer.result["scripts"])))
    names = ["prepare", "pretrain/fold_0", "pretrain/fold_1", "finetune/fold_0", "finetune/fold_1"]
    assert [line[line.index("--only") + 1] for line in every] == names
    assert not any({"--unlabelled", "--set"} & set(line) for line in every)
    recipe = json.loads(Path(every[0][every[0].index("--recipe") + 1]).read_text())
    assert recipe["stage"][0]["settings"]["epochs"] == 7
    assert selfcfg(*every[0]).code == 0
    assert any((copy / "preprocessed" / "Dataset901_Tiny").rglob("unlabelled*"))


@pytest.mark.slow
def test_run_selects_in_a_job_after_all_folds(selfcfg: Command, copy: Path) -> None:
    given = ["--fold", "0,1", "--set", "epochs=1", "--device", "cpu", "--name", "a b", "--seed", "3"]
    answer = selfcfg("run", "901", *given, "--cluster", "print", "--workspace", copy)
    assert answer.code == 0, answer.err
    first, second, select = commands(Path(answer.result["scripts"]))
    assert first[first.index("--fold") + 1] == "0" and second[second.index("--fold") + 1] == "1"
    said = " ".join(first)
    for part in ("--trainer supervised --set epochs=1", "--name a b", "--seed 3", "--for-select --resume"):
        assert part in said
    assert select[:4] == ["select", "Dataset901_Tiny", "--device", "cpu"]
    assert '--dependency="afterok:${job_0%%;*}" 00-01-select.sh' in Path(answer.result["submit"]).read_text()


def test_the_signal_of_a_time_limit_asks_for_an_end() -> None:
    from selfcfg.engine.stopping import stop_request
    from selfcfg.errors import Stopped

    with stop_request() as request:
        request.obey()
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Stopped, match="stopped by SIGUSR1"):
            request.obey()


@pytest.mark.parametrize("options", [["--only", "prepare"], ["--jobs", "2"], ["--device", "cuda:1"]])
def test_a_benchmark_passes_over_no_option_in_silence(selfcfg: Command, there: Path, options: list[str]) -> None:
    given = ["benchmark", "label-efficiency", "901", *BENCHMARK, "--cluster", "print", "--workspace", there]
    answer = selfcfg(*given, *options)
    assert answer.code == 2 and f"--cluster print {' '.join(options)}" in answer.err


@pytest.mark.slow
def test_benchmarks_do_not_share_a_graph_and_pretrain_in_order(selfcfg: Command, there: Path, tmp_path: Path) -> None:
    arms = ["--arms", "masked,second=masked", "--pretrain-from", "second:masked", *BENCHMARK[2:]]
    given = ["benchmark", "label-efficiency", "901", *arms, "--cluster", "print", "--workspace", there]
    found = [Path(selfcfg(*given, "--out", tmp_path / name / "same").result["submit"]) for name in ("a", "b")]
    assert found[0] != found[1]
    every = list(commands(found[0].parent))
    names = [line[line.index("--only") + 1] for line in every]
    assert names.index("pretrain masked 0") < names.index("pretrain second 0") < names.index("second-2-tiny-0")


def caller_in(workspace: Path, *given: str) -> Caller:
    place = Workspace.at(workspace)
    return Caller(Project.of(place, "901"), place, Site.here(given, KINDS, {}), gpus=1)


def test_a_cascade_trains_all_folds_of_its_first_stage_before_the_second(copy: Path) -> None:
    requests = [TrainRequest(configuration=name, settings={"epochs": "3"}) for name in ("2d", "3d_fullres")]
    tasks = {task.name: task for task in fold_tasks(caller_in(copy), requests, [0], select=True)}
    trained = [f"2d/fold_{fold}" for fold in range(5)]
    assert list(tasks) == ["preprocess 2d 1/1", *trained, "3d_fullres/fold_0", "select"]
    assert set(tasks["2d/fold_4"].after) == {"preprocess 2d 1/1"}
    assert set(tasks["3d_fullres/fold_0"].after) == set(trained)
    assert tasks["select"].after == ("3d_fullres/fold_0",)
    first = tasks["2d/fold_0"]
    assert first.resources.gpus == 1 and first.resources.memory > 4 * 2**30
    assert "--set epochs=3" in " ".join(first.command) and first.command[:2] == ("train", "Dataset901_Tiny")


def test_a_task_is_another_one_where_its_plan_or_its_data_is_and_not_where_it_has_more_cores(copy: Path) -> None:
    def made(*given: str) -> dict[str, Task]:
        tasks = fold_tasks(caller_in(copy, *given), [TrainRequest(configuration="3d_fullres")], [0], select=True)
        return {task.name: task for task in tasks}

    first, larger = made(), made("cpus=2", "mem=9G")
    assert list(first) == ["3d_fullres/fold_0", "select"]
    assert all(larger[name].is_like(task) and larger[name].options != task.options for name, task in first.items())
    assert [path.name for path in first["3d_fullres/fold_0"].leaves] == ["final.safetensors", "summary.json"]

    plan = copy / "preprocessed" / "Dataset901_Tiny" / "plans" / "standard.json"
    content = json.loads(plan.read_text())
    content["configurations"]["3d_fullres"]["batch_size"] += 1
    plan.write_text(json.dumps(content))
    assert not made()["3d_fullres/fold_0"].is_like(first["3d_fullres/fold_0"])

    label = next((copy / "raw" / "Dataset901_Tiny" / "labelsTr").iterdir())
    os.utime(label, (1, 1))
    changed = made()
    assert "preprocess 3d_fullres 1/1" in changed and not changed["select"].is_like(first["select"])


def test_a_job_of_a_recipe_is_another_one_where_its_own_stage_is(copy: Path) -> None:
    def made(epochs: int) -> dict[str, Task]:
        said = recipe_of(str(copy / "graph.toml"), [f"last.epochs={epochs}"])
        caller, request = caller_in(copy), TrainRequest(elsewhere=True, resume=True)
        opened = open_recipe(caller.project, request, said, caller.place, [0], jobs=1)
        tasks = recipe_tasks(caller, opened.graph, request, copy / f"{epochs}.json", [0], select=False)
        return {task.name: task for task in tasks}

    first, other = made(1), made(2)
    assert [name for name in first if not other[name].is_like(first[name])] == ["last/fold_0"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cluster-set", "mem=3G"], "no cluster was named"),
        (["--cluster", "print", "--cluster-set", "memory"], "'memory' is not KEY=VALUE"),
        (["--only", "nothing"], "job 'nothing' of the recipe: there is none"),
        (["--only", "last/fold_0", "--cluster", "print"], "one submits all jobs, the other runs one here"),
        (["--jobs", "4", "--cluster", "print"], "Slurm decides how many jobs run at once; leave it out; the cores"),
        (["--device", "cuda:1", "--cluster", "print"], "a job sees its own GPUs only, counted from 0; write --device"),
    ],
)
def test_what_does_not_go_together_is_refused(selfcfg: Command, there: Path, options: list[str], words: str) -> None:
    answer = selfcfg(*train(there, *options))
    assert answer.code == 2 and words in answer.err


def test_without_slurm_it_says_what_to_do(selfcfg: Command, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(there))
    answer = selfcfg(*train(there, "--cluster", "slurm"))
    assert answer.code == 2 and "no program 'sbatch' on this machine; log in to" in answer.err
    assert selfcfg("status", "--workspace", there).code == 2
    unknown = selfcfg("cancel", "nothing", "--workspace", there)
    assert unknown.code == 2 and "graph 'nothing': there is none" in unknown.err


def test_a_time_budget_cannot_be_measured_for_another_machine(selfcfg: Command, there: Path) -> None:
    answer = selfcfg("train", "901", "--time-budget", "1h", "--cluster", "print", "--workspace", there)
    assert answer.code == 2 and "measured on this machine, not on the cluster's" in answer.err
