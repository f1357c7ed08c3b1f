"""Recipes, folds and benchmarks as tasks of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from selfcfg.cluster.tasks import Resources, Task
from selfcfg.dataset import Case
from selfcfg.engine import pipeline
from selfcfg.engine.choice import Choice, TrainRequest, choose
from selfcfg.engine.cluster.commands import Caller, request_options, setting_options
from selfcfg.engine.cluster.resources import (
    PREPROCESSING_CPUS,
    SMALL,
    TRAINING_CPUS,
    preprocessing,
    reading,
    training,
)
from selfcfg.engine.data.store import Store
from selfcfg.engine.experiment import Experiment, existing_folds
from selfcfg.engine.label_efficiency.benchmark import Benchmark
from selfcfg.engine.label_efficiency.jobs import PREPARE_BENCHMARK, pretraining_name
from selfcfg.engine.recipes.alone import PREPARE
from selfcfg.engine.recipes.graph import Contest, Graph
from selfcfg.files import hash_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.project import Project
from selfcfg.runs import experiment_name

KINDS = ("check", "fingerprint", "preprocess", "prepare", "train", "keep", "select", "pretrain", "benchmark")


def dataset_state(project: Project) -> str:
    """A text that is another one when files of a raw dataset come, go or change; none of them is read."""
    files = [project.root / "dataset.json", *(file for case in project.dataset.cases for file in files_of(case))]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return hash_json([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])[:8]


def files_of(case: Case) -> list[Path]:
    """The files of a case."""
    return [*case.images, *([case.label] if case.label is not None else [])]


def measuring_tasks(caller: Caller) -> list[Task]:
    """The check of a raw dataset, and its fingerprint."""
    project = caller.project
    files = [file for case in project.dataset.cases for file in files_of(case)]
    largest = max(file.stat().st_size if file.is_file() else 0 for file in files)
    found: list[Task] = []
    for kind in ("check", "fingerprint"):
        cpus = caller.machine(kind, PREPROCESSING_CPUS, gpus=0).cpus
        command = caller.command(kind, jobs=cpus)
        after = tuple(task.name for task in found)
        found.append(Task(name=kind, kind=kind, command=command, after=after, resources=reading(largest, cpus)))
    return found


def recipe_tasks(
    caller: Caller, graph: Graph, request: TrainRequest, recipe: Path, folds: Sequence[int] | None, *, select: bool
) -> list[Task]:
    """The jobs of a recipe with what comes before them, each a command that runs it alone.

    A choice waits until its candidates have ended, well or not: one that diverged is left out of it, and of one that
    failed it says so.

    Args:
        caller: how commands are written.
        graph: of the recipe.
        request: what holds for all stages.
        recipe: file of the recipe, which stays as it is.
        folds: those asked for; None: all.
        select: whether a model is selected at the end.
    """
    chosen = choose(caller.project, graph.jobs[0].request.model_copy(update={"teachers": ()}))
    facts = pipeline.known_fingerprint(caller.project, 1)
    before = _preprocess(caller, [chosen], facts)
    given = ["--recipe", recipe, "--fold", ",".join(map(str, folds)) if folds is not None else "all"]
    said = {"planner": chosen.plan_name, "unlabelled": (), "reference": None}  # the file has the images by now
    options = [*given, *request_options(request.model_copy(update=said))]
    if any(job.request.unlabelled or job.request.reference for job in graph.jobs):
        cpus = caller.machine("prepare", PREPROCESSING_CPUS, gpus=0).cpus
        command = caller.command("train", *options, "--only", PREPARE, jobs=cpus)
        _, takes = preprocessing(chosen.plan, chosen.configuration, facts, cpus)
        before.append(Task(name=PREPARE, kind="prepare", command=command, after=_names(before), resources=takes))
    found, first, takes_of = list(before), _names(before), dict[str, Resources]()
    for node in graph.nodes:
        is_contest = isinstance(node, Contest)
        kind = "keep" if is_contest else "train"
        if isinstance(node, Contest):
            takes = SMALL
        else:
            if node.key not in takes_of:
                takes_of[node.key] = _training(caller, node.request.model_copy(update={"teachers": ()}), facts)
            takes = takes_of[node.key]
        command = caller.command("train", *options, "--only", node.name, jobs=takes.cpus)
        after = node.needs or first
        way = {"after": (), "after_any": after} if is_contest else {"after": after, "after_any": ()}
        found.append(Task(name=node.name, kind=kind, command=command, resources=takes, **way))
    if select:
        needed = {need for node in graph.nodes for need in node.needs}
        ends = [node.name for node in graph.nodes if node.name not in needed]
        found.append(_select(caller, request, ends, max(takes_of.values(), key=lambda takes: takes.memory)))
    return found


def fold_tasks(
    caller: Caller, requests: Sequence[TrainRequest], folds: Sequence[int] | None, *, select: bool
) -> list[Task]:
    """The folds of trainings of which each but the first needs all of the one before, with what comes before them.

    Args:
        caller: how commands are written.
        requests: the trainings.
        folds: of the last of them; None: all. Of the others all.
        select: whether a model is selected at the end.
    """
    project = caller.project
    facts = pipeline.known_fingerprint(project, 1)
    n_folds = len(pipeline.splits(project, facts))
    choices = [choose(project, request) for request in requests]
    found = _preprocess(caller, choices, facts)
    before, takes = _names(found), SMALL
    for request, chosen in zip(requests, choices, strict=True):
        takes = _training(caller, request, facts)
        named = request.model_copy(update={"configuration": chosen.configuration_name, "planner": chosen.plan_name})
        options, stage = [*setting_options(request), *request_options(named)], list[Task]()
        for fold in existing_folds(project, folds if request is requests[-1] else None, n_folds):
            command = caller.command("train", *options, "--fold", fold, jobs=takes.cpus)
            name = f"{chosen.configuration_name}/fold_{fold}"
            stage.append(Task(name=name, kind="train", command=command, after=before, resources=takes))
        found += stage
        before = _names(stage)
    if select:
        found.append(_select(caller, requests[-1], before, takes))
    return found


def fold_graph_name(requests: Sequence[TrainRequest], chosen: Choice) -> str:
    """The name of the graph of `fold_tasks`: that of the experiment that it ends with."""
    last = requests[-1]
    return experiment_name(last.trainer, chosen.plan_name, chosen.configuration_name, last.name)


def preparing_task(caller: Caller, words: Sequence[object], configuration: str | None, planner: str | None) -> Task:
    """What a benchmark of label efficiency reads, preprocessed.

    Args:
        caller: how commands are written.
        words: options of the benchmark.
        configuration: name of one; None: the plan's default.
        planner: name of the plan; None: the only one.
    """
    request = TrainRequest(configuration=configuration, planner=planner, elsewhere=True)
    chosen = choose(caller.project, request)
    cpus = caller.machine("prepare", PREPROCESSING_CPUS, gpus=0).cpus
    facts = pipeline.known_fingerprint(caller.project, 1)
    _, takes = preprocessing(chosen.plan, chosen.configuration, facts, cpus)
    command = caller.command(*_benchmark(words, PREPARE_BENCHMARK), jobs=1)
    return Task(name=PREPARE_BENCHMARK, kind="prepare", command=command, resources=takes)


def benchmark_tasks(caller: Caller, benchmark: Benchmark, words: Sequence[object]) -> list[Task]:
    """The pretrainings and jobs of a benchmark of label efficiency; `words` are the options that it was given."""
    found: dict[str, Task] = {}
    for job in benchmark.jobs():
        after: tuple[str, ...] = ()
        chain = benchmark.wanted.pretrainings(job.arm) if job.arm in benchmark.pretrained else []
        for arm in chain:
            first = benchmark.pretrained_as(arm)
            name = pretraining_name(first, job.seed)
            if name not in found:
                experiment = benchmark.pretrained[first]
                takes = _takes(caller, "pretrain", experiment, experiment.facts)
                command = caller.command(*_benchmark(words, name), jobs=1)
                found[name] = Task(name=name, kind="pretrain", command=command, after=after, resources=takes)
            after = (name,)
        experiment = benchmark.training(job, benchmark.wanted.rates[0])
        takes = _takes(caller, "benchmark", experiment, experiment.facts, len(benchmark.wanted.rates))
        command = caller.command(*_benchmark(words, job.name), jobs=1)
        found[job.name] = Task(name=job.name, kind="benchmark", command=command, after=after, resources=takes)
    return list(found.values())


def _benchmark(words: Sequence[object], only: str) -> tuple[str, ...]:
    return ("benchmark label-efficiency", *(str(word) for word in words), "--only", only)


def _preprocess(caller: Caller, choices: Iterable[Choice], facts: Fingerprint) -> list[Task]:
    """Preprocessing of the configurations whose cases are not all there, each in shares."""
    found: list[Task] = []
    project, cases = caller.project, {case.id for case in caller.project.dataset.cases}
    for chosen in choices:
        if cases <= set(Store(project.store_folder(chosen.plan, chosen.configuration_name)).cases()):
            continue
        cpus = caller.machine("preprocess", PREPROCESSING_CPUS, gpus=0).cpus
        shards, takes = preprocessing(chosen.plan, chosen.configuration, facts, cpus)
        shards = min(caller.site.number("preprocess", "shards", shards), len(cases))
        for number in range(1, shards + 1):
            share = f"{number}/{shards}"
            options = ["-c", chosen.configuration_name, "--planner", chosen.plan_name, "--shard", share]
            command = caller.command("preprocess", *options, jobs=cpus)
            name = f"preprocess {chosen.configuration_name} {share}"
            found.append(Task(name=name, kind="preprocess", command=command, resources=takes))
    return found


def _training(caller: Caller, request: TrainRequest, facts: Fingerprint) -> Resources:
    return _takes(caller, "train", choose(caller.project, request), facts)


def _takes(caller: Caller, kind: str, one: Choice | Experiment, facts: Fingerprint, runs: int = 1) -> Resources:
    cpus = TRAINING_CPUS if kind == "train" else 1 + one.settings.workers
    machine = caller.machine(kind, cpus)
    return training(one.plan, one.configuration, one.settings, facts, machine=machine, runs=runs)


def _select(caller: Caller, request: TrainRequest, after: Iterable[str], takes: Resources) -> Task:
    device = ["--device", request.device] if request.device else []
    machine = caller.machine("select", takes.cpus)
    takes = takes.model_copy(update={"cpus": machine.cpus, "gpus": machine.gpus})
    command = caller.command("select", *device, jobs=machine.cpus)
    return Task(name="select", kind="select", command=command, after=tuple(after), resources=takes)


def _names(tasks: Iterable[Task]) -> tuple[str, ...]:
    return tuple(task.name for task in tasks)
