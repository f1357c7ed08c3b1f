"""Recipes and folds as tasks of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfcfg.cluster.tasks import Resources, Task
from selfcfg.engine import pipeline
from selfcfg.engine.choice import Choice, TrainRequest, choose
from selfcfg.engine.cluster.commands import Caller, request_options, setting_options, words
from selfcfg.engine.cluster.inputs import Start, dataset_state, files_of, left_by, others_of
from selfcfg.engine.cluster.resources import (
    PREPROCESSING_CPUS,
    SMALL,
    TRAINING_CPUS,
    preprocessing,
    reading,
    training,
)
from selfcfg.engine.data.preprocess import is_unchanged
from selfcfg.engine.data.store import Store
from selfcfg.engine.experiment import existing_folds, results_folder
from selfcfg.engine.prediction.selected import selected_folder
from selfcfg.engine.recipes.alone import PREPARE
from selfcfg.engine.recipes.graph import Contest, Graph, Job
from selfcfg.engine.selection.records import FILE
from selfcfg.fingerprint import Fingerprint
from selfcfg.recipes.kept import KEPT
from selfcfg.runs import RunFolder, experiment_name

KINDS = ("check", "fingerprint", "preprocess", "prepare", "train", "keep", "select", "pretrain", "benchmark")


def measuring_tasks(caller: Caller) -> list[Task]:
    """The check of a raw dataset, and its fingerprint."""
    project, state = caller.project, dataset_state(caller.project)
    files = [file for case in project.dataset.cases for file in files_of(case)]
    largest = max(file.stat().st_size if file.is_file() else 0 for file in files)
    found: list[Task] = []
    for kind, leaves in (("check", ()), ("fingerprint", (project.fingerprint_file,))):
        cpus = caller.machine(kind, PREPROCESSING_CPUS, gpus=0).cpus
        found.append(
            Task(
                name=kind,
                kind=kind,
                command=caller.command(kind),
                options=words("--jobs", cpus),
                inputs=state,
                leaves=leaves,
                after=_names(found),
                resources=reading(largest, cpus),
            )
        )
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
    given = ["--recipe", recipe, "--fold", ",".join(map(str, folds)) if folds is not None else "all"]
    said = {"planner": chosen.plan_name, "unlabelled": (), "reference": None}  # the file has the images by now
    options = words(*given, *request_options(request.model_copy(update=said)))
    made = _RecipeTasks(caller, graph, options, facts, Start.of(caller.project, chosen.plan, facts))
    found = [*_preprocess(caller, [chosen], facts)]
    if any(job.request.unlabelled or job.request.reference for job in graph.jobs):
        found.append(made.prepare(chosen, _names(found)))
    first, pieces = _names(found), {job.key: made.piece(job) for job in graph.jobs}
    for node in graph.nodes:
        found.append(made.keep(node) if isinstance(node, Contest) else made.train(node, *pieces[node.key], first))
    if select:
        needed = {need for node in graph.nodes for need in node.needs}
        ends = [node.name for node in graph.nodes if node.name not in needed]
        largest = max((takes for takes, _ in pieces.values()), key=lambda takes: takes.memory)
        found.append(_select(caller, request, ends, largest, [graph.folder]))
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
    before, takes, own = _names(found), SMALL, list[Path]()
    for request, chosen in zip(requests, choices, strict=True):
        takes = _takes(caller, chosen, facts)
        own.append(results_folder(project, request, chosen.plan_name, chosen.configuration_name))
        named = request.model_copy(update={"configuration": chosen.configuration_name, "planner": chosen.plan_name})
        options, stage = [*setting_options(request), *request_options(named)], list[Task]()
        inputs = Start.of(project, chosen.plan, facts).inputs([request], _stage_before(caller, requests, chosen))
        for fold in existing_folds(project, folds if request is requests[-1] else None, n_folds):
            run = RunFolder(own[-1] / f"fold_{fold}")
            stage.append(
                Task(
                    name=f"{chosen.configuration_name}/fold_{fold}",
                    kind="train",
                    command=caller.command("train", *options, "--fold", fold),
                    options=words("--jobs", takes.cpus),
                    inputs=inputs,
                    leaves=left_by(run, segments=chosen.trainer_type.segments(chosen.settings)),
                    keeps=(run.path, project.preprocessed),
                    after=before,
                    resources=takes,
                )
            )
        found += stage
        before = _names(stage)
    if select:
        found.append(_select(caller, requests[-1], before, takes, own))
    return found


def fold_graph_name(requests: Sequence[TrainRequest], chosen: Choice) -> str:
    """The name of the graph of `fold_tasks`: that of the experiment that it ends with."""
    last = requests[-1]
    return experiment_name(last.trainer, chosen.plan_name, chosen.configuration_name, last.name)


@dataclass(frozen=True)
class _RecipeTasks:
    """Makes the tasks of a recipe; `options` are those of all its commands."""

    caller: Caller
    graph: Graph
    options: tuple[str, ...]
    facts: Fingerprint
    start: Start

    def prepare(self, chosen: Choice, after: tuple[str, ...]) -> Task:
        """Preprocessing of all that the jobs read."""
        cpus = self.caller.machine("prepare", PREPROCESSING_CPUS, gpus=0).cpus
        return Task(
            name=PREPARE,
            kind="prepare",
            command=self.caller.command("train", "--only", PREPARE),
            options=(*self.options, *words("--jobs", cpus)),
            inputs=self.start.inputs(job.request for job in self.graph.jobs),
            keeps=(self.caller.project.preprocessed.parent,),
            after=after,
            resources=preprocessing(chosen.plan, chosen.configuration, self.facts, cpus)[1],
        )

    def piece(self, job: Job) -> tuple[Resources, bool]:
        """What the folds of a candidate take, and whether it segments."""
        chosen = choose(self.caller.project, job.request.model_copy(update={"teachers": ()}))
        return _takes(self.caller, chosen, self.facts), chosen.trainer_type.segments(chosen.settings)

    def train(self, job: Job, takes: Resources, segments: bool, first: tuple[str, ...]) -> Task:
        """One training; `first` comes before those that need no other."""
        keys = {job.key for job in self.graph.jobs} | {slot.key for one in self.graph.contests for slot in one.slots}
        given = [Path(source) for source in (job.init, *job.teachers) if source is not None and source not in keys]
        run = job.run(self.graph.folder)
        return Task(
            name=job.name,
            kind="train",
            command=self.caller.command("train", "--only", job.name),
            options=(*self.options, *words("--jobs", takes.cpus)),
            inputs=self.start.inputs([job.request], given, _without_whole(job)),
            leaves=left_by(run, segments=segments),
            keeps=(run.path, self.caller.project.preprocessed),
            after=job.needs or first,
            resources=takes,
        )

    def keep(self, contest: Contest) -> Task:
        """A choice among candidates."""
        return Task(
            name=contest.name,
            kind="keep",
            command=self.caller.command("train", "--only", contest.name),
            options=(*self.options, *words("--jobs", SMALL.cpus)),
            inputs=self.start.inputs(what=contest.model_dump(mode="json")),
            leaves=(self.graph.folder / contest.stage / KEPT,),
            after_any=contest.needs,
            resources=SMALL,
        )


def _without_whole(job: Job) -> object:
    """A job as JSON without the hash of the whole recipe, which changes with the other jobs."""
    return job.model_dump(mode="json", exclude={"request": {"stage": {"recipe_hash"}}})


def _stage_before(caller: Caller, requests: Sequence[TrainRequest], chosen: Choice) -> list[Path]:
    """In a cascade, where the first stage lies that is none of the trainings."""
    after, one = chosen.configuration.after, requests[0]
    if after is None or len(requests) > 1 or one.previous is not None:
        return []
    return [results_folder(caller.project, one, chosen.plan_name, after)]


def _preprocess(caller: Caller, choices: Sequence[Choice], facts: Fingerprint) -> list[Task]:
    """Shares of the cases of each configuration of which some are not preprocessed as they are now."""
    project, found = caller.project, list[Task]()
    cases, state = project.dataset.cases, dataset_state(project)
    for chosen in choices:
        folder = project.store_folder(chosen.plan, chosen.configuration_name)
        store = Store(folder)
        if all(is_unchanged(store, case) for case in cases):
            continue
        cpus = caller.machine("preprocess", PREPROCESSING_CPUS, gpus=0).cpus
        shards, takes = preprocessing(chosen.plan, chosen.configuration, facts, cpus)
        shards = min(caller.site.number("preprocess", "shards", shards), len(cases))
        for number in range(1, shards + 1):
            share = f"{number}/{shards}"
            options = ["-c", chosen.configuration_name, "--planner", chosen.plan_name, "--shard", share]
            own = pipeline.Shard(number, shards).of(project.dataset).cases
            found.append(
                Task(
                    name=f"preprocess {chosen.configuration_name} {share}",
                    kind="preprocess",
                    command=caller.command("preprocess", *options),
                    options=words("--jobs", cpus),
                    inputs=f"{state}-{folder.name}",
                    leaves=tuple(folder / case.id for case in own),
                    keeps=(folder,),
                    resources=takes,
                )
            )
    return found


def _takes(caller: Caller, chosen: Choice, facts: Fingerprint) -> Resources:
    machine = caller.machine("train", TRAINING_CPUS)
    return training(chosen.plan, chosen.configuration, chosen.settings, facts, machine=machine)


def _select(caller: Caller, request: TrainRequest, after: Iterable[str], takes: Resources, own: Iterable[Path]) -> Task:
    """The choice of the dataset's model, after trainings in some folders of its results."""
    device = ["--device", request.device] if request.device else []
    machine, project = caller.machine("select", takes.cpus), caller.project
    return Task(
        name="select",
        kind="select",
        command=caller.command("select", *device),
        options=words("--jobs", machine.cpus),
        inputs=dataset_state(project),
        leaves=(selected_folder(project.results) / FILE,),
        reads=others_of(project, own),
        after=tuple(after),
        resources=takes.model_copy(update={"cpus": machine.cpus, "gpus": machine.gpus}),
    )


def _names(tasks: Iterable[Task]) -> tuple[str, ...]:
    return tuple(task.name for task in tasks)
