"""Benchmarks of label efficiency as tasks of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfcfg.cluster.tasks import Resources, Task
from selfcfg.engine import pipeline
from selfcfg.engine.choice import TrainRequest, choose
from selfcfg.engine.cluster.commands import Caller, words
from selfcfg.engine.cluster.inputs import Start
from selfcfg.engine.cluster.resources import PREPROCESSING_CPUS, preprocessing, training
from selfcfg.engine.experiment import Experiment
from selfcfg.engine.label_efficiency.benchmark import FOLD, Benchmark
from selfcfg.engine.label_efficiency.jobs import PREPARE_BENCHMARK, pretraining_name
from selfcfg.engine.label_efficiency.results import Job, Protocol, apart_file, read_results
from selfcfg.engine.label_efficiency.wanted import LabelEfficiency
from selfcfg.files import hash_json
from selfcfg.project import Project

COMMAND = "benchmark label-efficiency"


def benchmark_name(project: Project, folder: Path) -> str:
    """The name of the graph of a benchmark in a folder, which no benchmark in another one has."""
    if folder.parent == project.results:
        return folder.name
    return f"{folder.name}-{hash_json(str(folder))[:8]}"


def preparing_task(caller: Caller, wanted: LabelEfficiency, folder: Path, options: Sequence[object]) -> Task:
    """What a benchmark of label efficiency reads, preprocessed.

    Args:
        caller: how commands are written.
        wanted: what is compared.
        folder: of the benchmark.
        options: that it was given.
    """
    request = TrainRequest(configuration=wanted.configuration, planner=wanted.planner, elsewhere=True)
    chosen = choose(caller.project, request)
    cpus = caller.machine("prepare", PREPROCESSING_CPUS, gpus=0).cpus
    facts = pipeline.known_fingerprint(caller.project, 1)
    further = tuple(one for sets in (wanted.unlabelled, *wanted.further.values()) for one in sets)
    read = request.model_copy(update={"unlabelled": further, "reference": wanted.reference})
    return Task(
        name=PREPARE_BENCHMARK,
        kind="prepare",
        command=caller.command(COMMAND, "--out", folder, "--only", PREPARE_BENCHMARK),
        options=words(*options),
        inputs=Start.of(caller.project, chosen.plan, facts).inputs([read]),
        leaves=(caller.project.store_folder(chosen.plan, chosen.configuration_name),),
        keeps=(caller.project.preprocessed.parent,),
        resources=preprocessing(chosen.plan, chosen.configuration, facts, cpus)[1],
    )


def benchmark_tasks(caller: Caller, benchmark: Benchmark, options: Sequence[object]) -> list[Task]:
    """The pretrainings and jobs of a benchmark of label efficiency; `options` are those that it was given."""
    made = _BenchmarkTasks(caller, benchmark, words(*options), benchmark.protocol())
    finished = {result.name for result in read_results(benchmark.folder)}
    found: dict[str, Task] = {}
    for job in benchmark.jobs():
        after: tuple[str, ...] = ()
        chain = benchmark.wanted.pretrainings(job.arm) if job.arm in benchmark.pretrained else []
        for arm in reversed(chain):
            first = benchmark.pretrained_as(arm)
            name = pretraining_name(first, job.seed)
            if name not in found or job.name not in finished:
                found[name] = made.pretrain(name, first, job.seed, after, is_needed=job.name not in finished)
            after = (name,)
        found[job.name] = made.train(job, after, is_finished=job.name in finished)
    return list(found.values())


@dataclass(frozen=True)
class _BenchmarkTasks:
    """Makes the tasks of a benchmark; `options` are those of all its commands."""

    caller: Caller
    benchmark: Benchmark
    options: tuple[str, ...]
    protocol: Protocol

    def pretrain(self, name: str, arm: str, seed: int, after: tuple[str, ...], *, is_needed: bool) -> Task:
        """A pretraining; its weights may be gone where no job needs them any more."""
        run = self.benchmark.pretraining(arm, seed).run(FOLD)
        return Task(
            name=name,
            kind="pretrain",
            command=self._command(name),
            options=self.options,
            inputs=self._inputs(arm, seed),
            leaves=(run.final,) if is_needed else (),
            keeps=(run.path,),
            after=after,
            resources=_takes(self.caller, "pretrain", self.benchmark.pretrained[arm], 1),
        )

    def train(self, job: Job, after: tuple[str, ...], *, is_finished: bool) -> Task:
        """The trainings of a job; one that is finished may have its result among the others'."""
        rates = self.benchmark.wanted.rates
        trainings = [self.benchmark.training(job, rate) for rate in rates]
        return Task(
            name=job.name,
            kind="benchmark",
            command=self._command(job.name),
            options=self.options,
            inputs=self._inputs(job.arm, job.model_dump(mode="json"), self.protocol.budgets[job.budget]),
            leaves=() if is_finished else (apart_file(self.benchmark.folder, job),),
            keeps=(*(one.run(FOLD).path for one in trainings), self.benchmark.scores(job)),
            after=after,
            resources=_takes(self.caller, "benchmark", trainings[0], len(rates)),
        )

    def _command(self, only: str) -> tuple[str, ...]:
        return self.caller.command(COMMAND, "--out", self.benchmark.folder, "--only", only)

    def _inputs(self, arm: str, *what: object) -> str:
        shared = self.protocol.model_dump(mode="json", exclude={"arms", "budgets"})
        arms = [self.protocol.arms[one].model_dump(mode="json") for one in self.benchmark.wanted.pretrainings(arm)]
        return hash_json([shared, arms, what])


def _takes(caller: Caller, kind: str, one: Experiment, runs: int) -> Resources:
    """What trainings take that are alike and done one after the other."""
    machine = caller.machine(kind, 1 + one.settings.workers)
    return training(one.plan, one.configuration, one.settings, one.facts, machine=machine, runs=runs)
