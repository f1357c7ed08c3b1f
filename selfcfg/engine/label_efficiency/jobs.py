"""The jobs of a benchmark of label efficiency, one after another or several at once; what is finished is kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from statistics import fmean
from typing import NamedTuple, TypeVar

from selfcfg.engine.device import choose_device
from selfcfg.engine.experiment import Experiment
from selfcfg.engine.folds import fit_fold, score_cases
from selfcfg.engine.footprint import training_bytes
from selfcfg.engine.label_efficiency.benchmark import FOLD, Benchmark
from selfcfg.engine.label_efficiency.results import Job, LabelResult, add_apart, add_result, read_results
from selfcfg.engine.scoring.evaluate import case_dice
from selfcfg.engine.stopping import interrupted_by_sigterm
from selfcfg.engine.training.journal import without_curves
from selfcfg.errors import SelfcfgError, Stopped, TrainingDiverged, UsageError, nearest
from selfcfg.kernels.statistics import subject_means
from selfcfg.parallel import default_jobs, run_cases
from selfcfg.progress import progress, quietly

Result = TypeVar("Result")

PREPARE_BENCHMARK = "prepare"
"""The name of what comes before all jobs: preprocessing of everything that they read, done when it is opened."""

AGAIN = "the same command goes on where it stopped"


class Finished(NamedTuple):
    """The results of all jobs that are done, and by name why others are not."""

    results: list[LabelResult]
    failed: dict[str, SelfcfgError]


def run_benchmark(benchmark: Benchmark, *, jobs: int = 0, keep: bool = False) -> Finished:
    """Does all jobs; those that are finished already are taken from results.jsonl.

    Args:
        benchmark: opened.
        jobs: trainings at once, each in a process with one thread that does one after another; 1: in this process;
            0: one a core without an accelerator, else 1. Small networks leave a second thread little to do: on two
            cores shared with others, four trainings took a quarter of the time side by side.
        keep: keep weights and predictions of finished jobs, which may be many.

    Raises:
        UsageError: several at once, which are to start processes of their own.
        Stopped: on request; the same benchmark goes on where it stopped.
    """
    has_workers = any(one.settings.workers for one in (*benchmark.tuned.values(), *benchmark.pretrained.values()))
    if not jobs:
        is_alone = has_workers or choose_device(benchmark.wanted.device).type != "cpu"
        jobs = 1 if is_alone else default_jobs()
    if jobs > 1 and has_workers:
        raise UsageError(
            f"--jobs {jobs}", "workers above 0 were set too", "leave them out: jobs load their own patches"
        )
    wanted = {job.name: job for job in benchmark.jobs()}
    done = {result.name: result for result in read_results(benchmark.folder)}
    waiting = {name: job for name, job in wanted.items() if name not in done}
    with _stopping(jobs):
        failed = _pretrained(benchmark, waiting, jobs)
    waiting = {name: job for name, job in waiting.items() if name not in failed}
    with _stopping(jobs), progress("label efficiency", len(waiting)) as step:
        for name, outcome in _outcomes(
            partial(_run, benchmark=benchmark, keep=keep), waiting, jobs, "train", partial(_bytes, benchmark)
        ):
            if isinstance(outcome, SelfcfgError):
                failed[name] = outcome
                step(f"{name} failed")
                continue
            add_result(benchmark.folder, outcome)
            done[name] = outcome
            if not keep:
                _remove(benchmark, waiting[name])
            step(f"{name}: Dice {outcome.dice:.3f}")
    return Finished([done[name] for name in wanted if name in done], failed)


def pretraining_name(arm: str, seed: int) -> str:
    """The name of the pretraining of an arm with a seed, which no job has."""
    return f"pretrain {arm} {seed}"


def run_alone(benchmark: Benchmark, name: str, *, keep: bool = False) -> None:
    """Does one pretraining or one job, what it needs being done; what is finished is kept.

    Args:
        benchmark: opened.
        name: of the job, or `pretraining_name`, or `PREPARE_BENCHMARK`.
        keep: keep weights and predictions of the job.

    Raises:
        UsageError: there is no such job.
        SelfcfgError: it cannot be done.
        Stopped: on request; the same call goes on where it stopped.
    """
    wanted = {job.name: job for job in benchmark.jobs()}
    before = {pretraining_name(job.arm, job.seed): job for job in wanted.values() if job.arm in benchmark.pretrained}
    if name in before:
        _pretrain(before[name], benchmark, quiet=False)
    elif name in wanted:
        if name not in {result.name for result in read_results(benchmark.folder)}:
            add_apart(benchmark.folder, _run(wanted[name], benchmark, keep=keep))
            if not keep:
                _remove(benchmark, wanted[name])
    elif name != PREPARE_BENCHMARK:
        raise UsageError(f"job '{name}'", "there is none", nearest(name, [PREPARE_BENCHMARK, *before, *wanted]))


def _remove(benchmark: Benchmark, job: Job) -> None:
    """Removes what the trainings of a job left."""
    for rate in benchmark.wanted.rates:
        shutil.rmtree(benchmark.training(job, rate).folder, ignore_errors=True)


@contextmanager
def _stopping(jobs: int) -> Iterator[None]:
    """Within the block SIGTERM and Ctrl-C have processes side by side save where they are; one in here does so itself.

    Raises:
        Stopped: they came.
    """
    if jobs == 1:
        yield
        return
    try:
        with interrupted_by_sigterm():
            yield
    except KeyboardInterrupt:
        raise Stopped("benchmark label-efficiency", "stopped on request; the jobs that ran are saved", AGAIN) from None


def mean_over_subjects(cases: Mapping[str, float], subjects: Mapping[str, str]) -> float:
    """The mean of a value over subjects, of each of them over its cases."""
    return fmean(subject_means(list(cases.values()), [subjects[case] for case in cases]).values())


def _pretrained(benchmark: Benchmark, waiting: Mapping[str, Job], jobs: int) -> dict[str, SelfcfgError]:
    """Does the pretrainings that jobs wait for, each after the one that it starts from.

    Gives those jobs that wait in vain, and why.
    """
    users: dict[str, list[str]] = {}
    needed: dict[str, Job] = {}
    for name, job in waiting.items():
        for arm in benchmark.wanted.pretrainings(job.arm) if job.arm in benchmark.pretrained else ():
            first = benchmark.pretrained_as(arm)
            which = f"{first}, seed {job.seed}"
            users.setdefault(which, []).append(name)
            needed.setdefault(which, job.model_copy(update={"arm": first}))
    before = benchmark.wanted.pretrain_from
    at_once = {which: job for which, job in needed.items() if job.arm not in before}

    def then(which: str, outcome: SelfcfgError | None) -> dict[str, Job]:
        if isinstance(outcome, SelfcfgError):
            return {}
        ended = needed[which]
        after = {arm for arm, other in before.items() if benchmark.pretrained_as(other) == ended.arm}
        return {name: job for name, job in needed.items() if job.arm in after and job.seed == ended.seed}

    pretrain = partial(_pretrain, benchmark=benchmark, quiet=jobs > 1)
    memory = partial(_bytes, benchmark)
    outcomes = dict(_outcomes(pretrain, at_once, jobs, "pretrain", memory, then=then if before else None))
    return {
        name: outcome
        for which, outcome in outcomes.items()
        if isinstance(outcome, SelfcfgError)
        for name in users[which]
    }


def _bytes(benchmark: Benchmark, job: Job) -> int:
    """Memory that a job takes of a processor, at most."""
    experiment = benchmark.tuned[job.arm]
    return training_bytes(experiment.plan, experiment.configuration, value_bytes=4)


def _pretrain(job: Job, benchmark: Benchmark, *, quiet: bool) -> None:
    with quietly(quiet):
        fit_fold(benchmark.pretraining(job.arm, job.seed), FOLD)


def _run(job: Job, benchmark: Benchmark, *, keep: bool) -> LabelResult:
    """One job: a training for each learning rate, and the test cases predicted by the one that was chosen."""
    began = time.perf_counter()
    trainings = {rate: benchmark.training(job, rate) for rate in benchmark.wanted.rates}
    labelled, subjects = benchmark.labelled(job), benchmark.subjects
    with quietly(), nullcontext() if keep else without_curves():
        tried = {rate: _judged(benchmark, training) for rate, training in trainings.items()}
        rate = max(tried, key=lambda rate: -1.0 if (score := tried[rate]) is None else score)
        chosen = trainings[rate]
        run = fit_fold(chosen, FOLD)
        mirroring = benchmark.wanted.mirroring
        scores = score_cases(chosen, run, benchmark.test, benchmark.scores(job), mirroring=mirroring)
    cases = {case.case: case_dice(case) for case in scores.cases}
    return LabelResult(
        **job.model_dump(),
        subjects=len({subjects[case] for case in (*labelled.train, *labelled.val)}),
        steps=chosen.settings.epochs * chosen.settings.iterations_per_epoch,
        dice=mean_over_subjects(cases, subjects),
        rate=rate,
        tried=tuple(tried.items()),
        chosen_on="none" if len(tried) == 1 else "kept out" if labelled.val else "trained on",
        train=labelled.train,
        kept_out=labelled.val,
        cases=cases,
        seconds=time.perf_counter() - began,
    )


def _judged(benchmark: Benchmark, training: Experiment) -> float | None:
    """The Dice that a learning rate is chosen by, after training with it; None: no choice, or it diverged.

    Our choice: labelled subjects that are kept out of training, the same for all arms, since they count as labelled.
    With fewer than five there are none to spare, and a network is judged by the cases it was trained on: with so few
    steps a rate is wrong when it has not fitted even these.
    """
    if len(benchmark.wanted.rates) == 1 or training.labelled is None:
        return None
    try:
        run = fit_fold(training, FOLD)
    except TrainingDiverged:
        return None
    cases = training.labelled.val or training.labelled.train
    scores = score_cases(training, run, cases, run.validation, mirroring=benchmark.wanted.mirroring)
    return mean_over_subjects({case.case: case_dice(case) for case in scores.cases}, benchmark.subjects)


def _outcomes(
    function: Callable[[Job], Result],
    waiting: Mapping[str, Job],
    jobs: int,
    doing: str,
    memory: Callable[[Job], int],
    *,
    then: Callable[[str, Result | SelfcfgError], Mapping[str, Job]] | None = None,
) -> Iterator[tuple[str, Result | SelfcfgError]]:
    """What `run_cases` yields; a request to stop ends all."""
    for name, outcome in run_cases(function, waiting, jobs=jobs, doing=doing, memory=memory, then=then):
        if isinstance(outcome, Stopped):
            raise Stopped("benchmark label-efficiency", outcome.found, AGAIN)
        yield name, outcome
