"""Label efficiency from the command to its report, on small pictures; and what its jobs may see of the data."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from selfcfg.cli import main
from selfcfg.cli.benchmarking import arms_of
from selfcfg.convert.synthetic import make_synthetic
from selfcfg.engine import pipeline
from selfcfg.engine.comparison.systems import Given, read_system
from selfcfg.engine.data.source import Source
from selfcfg.engine.experiment import Experiment
from selfcfg.engine.label_efficiency import jobs as label_jobs
from selfcfg.engine.label_efficiency.benchmark import FOLD, Benchmark, open_benchmark
from selfcfg.engine.label_efficiency.jobs import run_benchmark
from selfcfg.engine.label_efficiency.results import LabelResult
from selfcfg.engine.label_efficiency.wanted import LabelEfficiency
from selfcfg.errors import Stopped, UsageError
from selfcfg.project import Project
from selfcfg.runs import RunRecord
from selfcfg.workspace import Workspace

pytestmark = pytest.mark.usefixtures("no_curves")

NAME = "Dataset902_Pictures"
SMALL = {"batch_size": 2, "patch_size": (32, 32)}
BRIEF = {"epochs": 1, "iterations_per_epoch": 2, **SMALL}
ARMS = ("scratch", "masked", "contrastive")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen pictures of 32 pixels or so, three in each fold, with the plan of a very small network."""
    folder = tmp_path_factory.mktemp("label_efficiency")
    made = make_synthetic(folder / "raw" / NAME, n_cases=15, dimensions=2, mean_shape=(1, 32, 32))
    project = Project.of(Workspace.at(folder), str(made.root))
    file, _ = pipeline.make_plan(project, pipeline.fingerprint(project, 1), "standard")
    content = json.loads(file.read_text())
    topology = content["configurations"]["2d"]["topology"]
    topology["features"] = [4] * len(topology["features"])
    file.write_text(json.dumps(content))
    return folder


@pytest.fixture
def project(workspace: Path) -> Project:
    return Project.of(Workspace.at(workspace), NAME)


def wanted(**changes: Any) -> LabelEfficiency:
    values: dict[str, Any] = {
        "arms": ARMS, "fractions": (1, 0.5, 1.0), "seeds": 2, "budgets": {"short": 2, "long": 40}, "settings": SMALL,
        "pretraining": {"masked": BRIEF, "contrastive": BRIEF},
    }  # fmt: skip
    values |= changes
    return LabelEfficiency(**{**values, "arms": arms_of(list(values["arms"]))})


@pytest.fixture
def benchmark(project: Project, tmp_path: Path) -> Benchmark:
    return open_benchmark(project, wanted(), tmp_path)


def test_every_job_comes_once_and_seed_by_seed(benchmark: Benchmark) -> None:
    jobs = benchmark.jobs()
    assert len({job.name for job in jobs}) == len(jobs) == 3 * 3 * 2 * 2
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)


def test_all_arms_have_the_same_labels_and_smaller_sets_lie_in_bigger_ones(benchmark: Benchmark) -> None:
    found: dict[tuple[int, str], set[Any]] = {}
    for job in benchmark.jobs():
        found.setdefault((job.seed, str(job.fraction)), set()).add(benchmark.labelled(job))
    assert all(len(same) == 1 for same in found.values())
    for seed in (0, 1):
        one, half, every = (next(iter(found[seed, fraction])) for fraction in ("1", "0.5", "1.0"))
        assert set(one.train) < set(half.train) < set(every.train)
        assert set(one.val) <= set(half.val) < set(every.val)
        assert {*every.train, *every.val} == set(benchmark.train)
    assert found[0, "0.5"] != found[1, "0.5"]


def test_cases_kept_out_for_the_choice_are_not_trained_on(benchmark: Benchmark) -> None:
    sizes = {}
    for job in benchmark.jobs():
        split = benchmark.labelled(job)
        assert not set(split.train) & set(split.val)
        sizes[str(job.fraction)] = (len(split.train), len(split.val))
    assert sizes == {"1": (1, 0), "0.5": (5, 1), "1.0": (10, 2)}


def test_without_a_choice_nothing_is_kept_out(project: Project, tmp_path: Path) -> None:
    benchmark = open_benchmark(project, wanted(rates=(0.01,)), tmp_path)
    assert all(not benchmark.labelled(job).val for job in benchmark.jobs())


def sources(experiment: Experiment) -> dict[str, Source]:
    """Where each stream of a training draws from."""
    return dict(experiment.batches(experiment.record(FOLD))._content.sources)


def test_no_stream_of_any_training_can_draw_a_test_case(benchmark: Benchmark) -> None:
    experiments = [benchmark.training(job, 0.01) for job in benchmark.jobs() if job.arm == "scratch"]
    experiments += [benchmark.pretraining(arm, 0) for arm in benchmark.pretrained]
    assert len(benchmark.test) == 3
    for experiment in experiments:
        for source in sources(experiment).values():
            for domain in source.domains:
                assert not {*domain.training, *domain.validation} & set(benchmark.test)


def test_copies_of_test_images_among_further_images_are_left_out(project: Project, tmp_path: Path) -> None:
    images = {"images": project.root / "imagesTr"}
    benchmark = open_benchmark(
        project, wanted(arms=("scratch", "masked"), pretraining={}, unlabelled=(images,)), tmp_path
    )
    own, further = sources(benchmark.pretraining("masked", 0))["unlabelled"].domains
    assert own.training == benchmark.train
    assert {*further.training, *further.validation} == set(benchmark.train)


def test_one_trainer_may_be_several_arms_with_settings_and_images_of_its_own(project: Project, tmp_path: Path) -> None:
    images = {"images": project.root / "imagesTr"}
    arms = ("scratch", "masked", "coarse=masked", "more=masked")
    pretraining = {"masked": BRIEF, "coarse": {**BRIEF, "mask_block": 16}, "more": BRIEF}
    asked = wanted(arms=arms, pretraining=pretraining, further={"more": (images,)})
    benchmark = open_benchmark(project, asked, tmp_path)
    opened = {arm: benchmark.pretraining(arm, 0) for arm in ("masked", "coarse", "more")}
    assert len({one.folder for one in opened.values()}) == 3
    assert [one.settings.mask_block for one in opened.values()] == [8, 16, 8]
    assert [len(sources(one)["unlabelled"].domains) for one in opened.values()] == [1, 1, 2]
    assert [arm.pretrainer for arm in benchmark.protocol().arms.values()] == [None, "masked", "masked", "masked"]


def test_arms_that_differ_in_their_training_with_labels_alone_share_a_pretraining(
    project: Project, tmp_path: Path
) -> None:
    arms = ("masked", "alone=masked", "coarse=masked")
    pretraining = {"masked": BRIEF, "alone": BRIEF, "coarse": {**BRIEF, "mask_block": 16}}
    asked = wanted(arms=arms, pretraining=pretraining, tuning={"alone": {"taken_parts": ("encoder",)}})
    benchmark = open_benchmark(project, asked, tmp_path)
    assert [benchmark.pretrained_as(arm) for arm in benchmark.pretrained] == ["masked", "masked", "coarse"]
    trainings = {job.arm: benchmark.training(job, 0.01) for job in benchmark.jobs()}
    assert trainings["masked"].request.init == trainings["alone"].request.init != trainings["coarse"].request.init
    taken = {arm: training.settings.taken_parts for arm, training in trainings.items()}
    assert taken == {"masked": None, "alone": ("encoder",), "coarse": None}
    assert benchmark.protocol().arms["alone"].settings["taken_parts"] == ["encoder"]


def test_a_reference_guides_the_arms_that_need_one_and_copies_of_test_images_are_left_out(
    project: Project, tmp_path: Path
) -> None:
    guide = Path(shutil.copytree(project.root, tmp_path / "Dataset902_Guide"))
    asked = wanted(arms=("scratch", "reference_guided"), pretraining={}, reference=guide)
    benchmark = open_benchmark(project, asked, tmp_path / "out")
    (drawn,) = sources(benchmark.pretraining("reference_guided", 0))["reference"].domains
    assert {*drawn.training, *drawn.validation} == set(benchmark.train)
    arms = benchmark.protocol().arms
    assert list(arms["reference_guided"].reference) == ["Dataset902_Guide"] and arms["scratch"].reference == {}


FOLLOWED: dict[str, Any] = {
    "arms": ("second=masked", "first=masked"), "pretraining": {"first": BRIEF, "second": BRIEF},
    "pretrain_from": {"second": "first"}, "fractions": (1,), "seeds": 2, "budgets": {"short": 2}, "rates": (0.01,),
}  # fmt: skip


def test_a_pretraining_may_start_from_that_of_another_arm_seed_by_seed(project: Project, tmp_path: Path) -> None:
    benchmark = open_benchmark(project, wanted(**FOLLOWED), tmp_path)
    for seed in (0, 1):
        first = benchmark.pretraining("first", seed)
        assert first.request.init is None
        assert benchmark.pretraining("second", seed).request.init == first.run(FOLD).final
    assert [arm.pretrained_from for arm in benchmark.protocol().arms.values()] == ["first", None]
    with pytest.raises(UsageError, match=r"made otherwise \(arm 'second'\)"):
        open_benchmark(project, wanted(**{**FOLLOWED, "pretrain_from": {}}), tmp_path)


def test_the_pretraining_that_another_starts_from_is_done_first(project: Project, tmp_path: Path) -> None:
    asked = wanted(**{**FOLLOWED, "arms": ("second=masked", "first=masked", "scratch"), "seeds": 1})
    benchmark = open_benchmark(project, asked, tmp_path)
    results, failed = run_benchmark(benchmark, jobs=1)
    assert not failed and [one.arm for one in results] == ["second", "first", "scratch"]
    for job, result in zip(benchmark.jobs(), results, strict=True):
        assert not benchmark.training(job, result.rate).folder.exists()
        (kept,) = read_system(Given(job.arm, (benchmark.scores(job),)), None, None).runs
        dice = {case: [one.values["dice"] for one in found.values()] for case, found in kept.cases.items()}
        assert result.cases == {case: fmean(one for one in found if one is not None) for case, found in dice.items()}
    first, second = (RunRecord.read(benchmark.pretraining(arm, 0).run(FOLD).record) for arm in ("first", "second"))
    assert first.init is None and second.init == str(benchmark.pretraining("first", 0).run(FOLD).final)


def test_what_starts_from_a_pretraining_that_failed_fails_for_the_same_reason(project: Project, tmp_path: Path) -> None:
    bad = {"first": {**BRIEF, "learning_rate": 1e30}, "second": BRIEF}
    benchmark = open_benchmark(project, wanted(**{**FOLLOWED, "pretraining": bad, "seeds": 1}), tmp_path)
    results, failed = run_benchmark(benchmark, jobs=1)
    assert not results and list(failed) == ["second-1-short-0", "first-1-short-0"]
    assert len({str(error) for error in failed.values()}) == 1
    assert not benchmark.pretraining("second", 0).folder.exists()


def test_pretraining_sees_all_training_images_and_is_shared(benchmark: Benchmark) -> None:
    experiment = benchmark.pretraining("masked", 1)
    assert sources(experiment)["unlabelled"].domains[0].training == benchmark.train
    for job in benchmark.jobs():
        if (job.arm, job.seed) == ("masked", 1):
            assert benchmark.training(job, 0.01).request.init == experiment.run(FOLD).final


def test_budgets_rates_and_settings_are_equal_for_all_arms(benchmark: Benchmark) -> None:
    for budget, steps in (("short", 2), ("long", 40)):
        jobs = [job for job in benchmark.jobs() if job.budget == budget]
        settings = [benchmark.training(job, 0.01).settings.model_dump() for job in jobs]
        assert all(one == settings[0] for one in settings)
        assert settings[0]["epochs"] * settings[0]["iterations_per_epoch"] == steps


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": ("scratch", "maskd"), "pretraining": {}}, "trainer 'maskd'.*did you mean 'masked'"),
        ({"fractions": (13,)}, "13 asked for, there are 12 to train on"),
        ({"fractions": (1.5,)}, "above 0 and up to 1"),
        ({"fractions": ()}, "no fraction was given"),
        ({"budgets": {"short": 130}}, "130 steps are no multiple of epochs of 6; take a multiple of 20"),
        ({"budgets": {"a/b": 20}}, "budget 'a/b'"),
        ({"rates": (0.0,)}, "rates above 0"),
        ({"settings": {"epochs": 3}}, "every job decides it; give --budgets"),
        ({"settings": {"learning_rte": 3}}, "learning_rte"),
        ({"tuning": {"scratch": {"epochs": 3}}}, "--arm-set scratch.epochs: every job decides it"),
        ({"tuning": {"masked": {"learning_rte": 3}}}, "learning_rte"),
        ({"tuning": {"nobody": {"momentum": 0}}}, "--arm-set nobody"),
        ({"pretraining": {"scratch": {"epochs": 3}}}, "this arm does not pretrain; use --set"),
        ({"pretraining": {"nobody": {"epochs": 3}}}, "--pretrain-set nobody"),
        ({"arms": ("scratch",), "pretraining": {}, "unlabelled": ({"images": "x"},)}, "no arm learns from images"),
        ({"further": {"scratch": ({"images": "x"},)}}, "--pretrain-on scratch: this arm learns from no images"),
        ({"further": {"nobody": ({"images": "x"},)}}, "--pretrain-on nobody"),
        ({"arms": ("scratch",), "pretraining": {}, "reference": "x"}, "no arm is guided by"),
        (
            {"pretrain_from": {"masked": "scratch"}},
            "--pretrain-from masked:scratch: the arm 'scratch' does not pretrain",
        ),
        ({"pretrain_from": {"masked": "nobody"}}, "--pretrain-from nobody"),
        (
            {"pretrain_from": {"masked": "contrastive", "contrastive": "masked"}},
            "masked from contrastive from masked is a circle",
        ),
        ({"arms": ("reference_guided",), "pretraining": {}}, "name one with --reference DATASET"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(
    project: Project, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        open_benchmark(project, wanted(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


TWO_ARMS: dict[str, Any] = {
    "arms": ("scratch", "masked"), "pretraining": {"masked": BRIEF}, "fractions": (1, 2), "seeds": 1,
    "budgets": {"short": 2}, "rates": (0.01,),
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> list[LabelResult]:
    """The results of two arms, one job after another."""
    project = Project.of(Workspace.at(workspace), NAME)
    return run_benchmark(
        open_benchmark(project, wanted(**TWO_ARMS), tmp_path_factory.mktemp("undisturbed")), jobs=1
    ).results


def test_an_interrupted_benchmark_goes_on_where_it_stopped(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[LabelResult]
) -> None:
    fit, done = label_jobs.fit_fold, []

    def stops(experiment: Any, fold: int) -> Any:
        done.append(experiment.request.name)
        if len(done) == 4:
            raise KeyboardInterrupt
        return fit(experiment, fold)

    monkeypatch.setattr(label_jobs, "fit_fold", stops)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(open_benchmark(project, wanted(**TWO_ARMS), tmp_path), jobs=1)
    before = (tmp_path / "results.jsonl").read_text()
    results, failed = run_benchmark(open_benchmark(project, wanted(**TWO_ARMS), tmp_path), jobs=1)
    assert not failed
    assert (tmp_path / "results.jsonl").read_text().startswith(before)
    assert [(one.name, one.cases) for one in results] == [(one.name, one.cases) for one in undisturbed]
    jobs = [f"{one.name}-0.01" for one in undisturbed]
    assert done == ["masked-seed0", *jobs[:3], "masked-seed0", *jobs[2:]]


def test_jobs_side_by_side_give_the_same_results(
    project: Project, tmp_path: Path, undisturbed: list[LabelResult]
) -> None:
    scratch = wanted(**{**TWO_ARMS, "arms": ("scratch",), "pretraining": {}})
    results, _ = run_benchmark(open_benchmark(project, scratch, tmp_path), jobs=2)
    expected = {one.name: one.cases for one in undisturbed if one.arm == "scratch"}
    assert {one.name: one.cases for one in results} == expected


def test_side_by_side_sigterm_ends_every_process(project: Project, tmp_path: Path) -> None:
    long = wanted(**{**TWO_ARMS, "arms": ("scratch",), "pretraining": {}, "budgets": {"long": 20_000}})
    benchmark = open_benchmark(project, long, tmp_path)
    threading.Timer(5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Stopped, match="stopped on request"):
        run_benchmark(benchmark, jobs=2)
    assert not multiprocessing.active_children()


def test_side_by_side_none_may_start_processes(project: Project, tmp_path: Path) -> None:
    benchmark = open_benchmark(project, wanted(**{**TWO_ARMS, "settings": {**SMALL, "workers": 1}}), tmp_path)
    with pytest.raises(UsageError, match="--jobs 2: workers above 0 were set too"):
        run_benchmark(benchmark, jobs=2)


def test_the_command_trains_compares_and_reports(
    workspace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", "batch_size=2", "--set", "patch_size=32,32"]
    for setting in ("epochs=1", "iterations_per_epoch=2", "batch_size=2", "patch_size=32,32"):
        sets += ["--pretrain-set", f"masked.{setting}"]
    command = ["benchmark", "label-efficiency", NAME, "--arms", "scratch,masked", "--fractions", "5", "--seeds", "1"]
    command += [
        "--budgets",
        "short=2",
        *sets,
        "--workspace",
        str(workspace),
        "--out",
        str(tmp_path),
        "--jobs",
        "1",
        "--json",
    ]
    assert main(command) == 0
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert [(one["arm"], one["fraction"], one["seed"]) for one in told["results"]] == [
        ("scratch", 5, 0),
        ("masked", 5, 0),
    ]
    assert all(0 <= one["dice"] <= 1 and len(one["tried"]) == 3 for one in told["results"])
    assert {one["chosen_on"] for one in told["results"]} == {"kept out"}
    assert [one["difference"] is not None for one in told["comparisons"][1:]] == [True]
    assert "Nothing: the test set has 3 subjects" in Path(told["report"]).read_text(encoding="utf-8")
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["masked__standard__2d__masked-seed0"]

    lines = (tmp_path / "results.jsonl").read_text()
    assert main(command) == 0
    assert (tmp_path / "results.jsonl").read_text() == lines, "finished jobs are not done again"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--fractions", "many", "'many' is not a number; write 3 for three subjects"),
        ("--budgets", "quick", "'quick' is not NAME=STEPS; write it as short=100"),
        ("--rates", "fast", "'fast' is not a number"),
        ("--arm-set", "momentum=0.9", "'momentum' names no arm; write it as masked.momentum=0.9"),
        ("--pretrain-set", "epochs=3", "'epochs' names no arm; write it as masked.epochs=3"),
        ("--pretrain-on", "ct=3", "'ct=3' is not ARM:IMAGES; write it as masked:ct=3"),
        ("--pretrain-from", "masked", "'masked' is not ARM:OTHER; write it as guided:masked"),
        ("--pretrain-from", "a:b,a:c", "'a' is there twice; give one arm that it starts from"),
        ("--arms", "scratch,masked,masked", "'masked' is there twice; give names of your own: NAME=TRAINER"),
        ("--arms", "a/b=masked", "'a/b' is no name"),
    ],
)
def test_options_that_cannot_be_read_are_refused(
    workspace: Path, capfd: pytest.CaptureFixture[str], option: str, value: str, words: str
) -> None:
    assert main(["benchmark", "label-efficiency", NAME, option, value, "--workspace", str(workspace)]) == 2
    assert words in capfd.readouterr().err


def test_a_job_that_fails_stops_no_other(project: Project, tmp_path: Path) -> None:
    small = wanted(arms=("scratch", "masked"), pretraining={"masked": {**BRIEF, "learning_rate": 1e30}},
                   fractions=(1,), seeds=1, budgets={"short": 2}, rates=(0.01,))  # fmt: skip
    results, failed = run_benchmark(open_benchmark(project, small, tmp_path), jobs=1)
    assert [one.name for one in results] == ["scratch-1-short-0"]
    assert list(failed) == ["masked-1-short-0"]


def test_a_rate_that_diverges_is_not_chosen(project: Project, tmp_path: Path) -> None:
    small = wanted(arms=("scratch",), pretraining={}, fractions=(1,), seeds=1, budgets={"short": 2}, rates=(1e30, 0.01))
    (result,), failed = run_benchmark(open_benchmark(project, small, tmp_path), jobs=1, keep=True)
    assert not failed
    assert result.rate == 0.01
    assert result.tried[0] == (1e30, None)
    run = tmp_path / "runs" / "supervised__standard__2d__scratch-1-short-0-0.01" / "fold_0"
    assert RunRecord.read(run / "run.json").train == result.train
