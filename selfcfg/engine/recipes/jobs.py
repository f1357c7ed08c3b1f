"""The jobs of a recipe, one after another or several at once; each begins when all that it needs have ended well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from selfcfg.engine import pipeline
from selfcfg.engine.choice import TrainRequest, choose
from selfcfg.engine.data.collection import gather, gather_reference
from selfcfg.engine.experiment import open_experiment
from selfcfg.engine.folds import train_fold
from selfcfg.engine.recipes.graph import Contest, Graph, job_name
from selfcfg.engine.scoring.evaluate import SUMMARY, Evaluation, combine
from selfcfg.engine.stopping import interrupted_by_sigterm
from selfcfg.errors import SelfcfgError, Stopped, TrainingDiverged, listed
from selfcfg.parallel import run_cases
from selfcfg.progress import named, progress, say
from selfcfg.project import Project
from selfcfg.recipes.kept import KEPT, PAGE, Contender, Kept, best_of
from selfcfg.runs import RunFolder, RunRecord

AGAIN = "the same command with --resume goes on where it stopped"

DIVERGED = "diverged"
"""The status of a run that is not tried again: the same steps would lead to the same end."""


@dataclass(frozen=True)
class RunJob:
    """A job that can begin, with everything a process needs to run it.

    Args:
        name: of the job.
        project: of the dataset.
        request: what to train, with what it takes from other jobs.
        fold: that it trains.
        jobs: processes that it may start.
        is_alone: whether no other job runs beside it.
    """

    name: str
    project: Project
    request: TrainRequest
    fold: int
    jobs: int
    is_alone: bool


@dataclass
class Finished:
    """What came of the jobs of a recipe.

    Args:
        places: by key of each candidate and each place of a kept one, the experiment folder.
        failed: by name, why jobs and contests failed; not those that came to nothing because others did.
        waiting: by name of these, the name of one that failed before them.
        diverged: by name, jobs that diverged and that nothing but a choice among others waited for.
    """

    places: dict[str, Path]
    failed: dict[str, SelfcfgError] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    diverged: dict[str, SelfcfgError] = field(default_factory=dict)


def run_graph(
    project: Project, graph: Graph, *, jobs: int, at_once: int = 1, tell: Callable[[str], None] = say
) -> Finished:
    """Runs all jobs; what is finished is kept, and what does not depend on a job that fails is done all the same.

    Args:
        project: of the dataset.
        graph: of the recipe.
        jobs: processes at most that prepare, and score.
        at_once: trainings at once, each in a process with one thread that loads its own patches; fewer where the
            memory does not allow it. With 1 they run in this process.
        tell: called with the outcome of each job as it ends.

    Raises:
        Stopped: on request; the same command goes on where it stopped.
        DataError: cases cannot be read.
    """
    at_once = min(at_once, graph.width)
    prepare_all(project, graph, jobs)
    state = _State(project, graph, jobs if at_once == 1 else 1, at_once == 1, tell)
    outcomes = run_cases(run_job, state.ready(), jobs=at_once, doing="train", memory=state.memory, then=state.ended)
    if at_once == 1:
        for name, outcome in outcomes:
            _obey(name, outcome)
        return state.finished()
    try:
        with interrupted_by_sigterm(), progress("recipe", len(graph.jobs)) as step:
            for name, outcome in outcomes:
                _obey(name, outcome)
                step(name)
    except KeyboardInterrupt:
        raise Stopped("train the recipe", "stopped on request; the jobs that ran are saved", AGAIN) from None
    return state.finished()


def run_job(job: RunJob) -> Evaluation | None:
    """Trains one fold and scores it; the scores, or None of a pretraining.

    Raises:
        TrainingDiverged: it did, now or when it was tried before.
        SelfcfgError: it cannot be trained.
    """
    request = job.request
    if not job.is_alone:  # a process of several may not start others; what loads the patches changes no weight
        request = request.model_copy(update={"settings": {**request.settings, "workers": 0}})
    with named("" if job.is_alone else job.name):
        experiment = open_experiment(job.project, request, [job.fold], jobs=job.jobs)
        run = experiment.run(job.fold)
        if run.record.is_file() and RunRecord.read(run.record).status == DIVERGED:
            remedy = f"it would again; to try nevertheless remove {run.path}"
            raise TrainingDiverged(f"train {job.name}", "it diverged before", remedy)
        try:
            return train_fold(experiment, job.fold).evaluation
        except TrainingDiverged:
            run.note(status=DIVERGED)
            raise


class _State:
    """Which jobs have begun and ended, and what they were for."""

    def __init__(self, project: Project, graph: Graph, jobs: int, is_alone: bool, tell: Callable[[str], None]) -> None:
        self.project, self.graph, self.jobs, self.is_alone, self.tell = project, graph, jobs, is_alone, tell
        self.places = {job.key: graph.folder / job.key for job in graph.jobs}
        self.begun: set[str] = set()
        self.outcomes: dict[str, SelfcfgError | None] = {}
        self.causes: dict[str, str] = {}

    def ready(self) -> dict[str, RunJob]:
        """The jobs that can begin now; contests whose jobs have ended are held, and jobs that wait in vain end."""
        found = {}
        for node in self.graph.nodes:
            if node.name in self.begun or not all(name in self.outcomes for name in node.needs):
                continue
            self.begun.add(node.name)
            if isinstance(node, Contest):
                self._hold(node)
            elif bad := [name for name in node.needs if self.outcomes[name] is not None]:
                self._give_up(node.name, bad)
            else:
                request = node.resolved(self.places)
                found[node.name] = RunJob(node.name, self.project, request, node.fold, self.jobs, self.is_alone)
        return found

    def ended(self, name: str, outcome: Evaluation | SelfcfgError | None) -> dict[str, RunJob]:
        """Notes how a job ended; gives the jobs that can begin now."""
        if isinstance(outcome, Stopped):
            return {}
        is_error = isinstance(outcome, SelfcfgError)
        self.outcomes[name] = outcome if isinstance(outcome, SelfcfgError) else None
        scores = f"\n{outcome.table()}" if isinstance(outcome, Evaluation) else ", pretrained"
        self.tell(f"{name} failed: {outcome}" if is_error else f"{name}: {self.graph.folder / name}{scores}")
        return self.ready()

    def memory(self, job: RunJob) -> int:
        """Bytes that a job takes of a processor, at most."""
        return next(one.memory for one in self.graph.jobs if one.name == job.name)

    def finished(self) -> Finished:
        """What came of it all."""
        found = Finished(self.places, waiting=self.causes)
        for name, error in self.outcomes.items():
            if error is not None and name not in self.causes:
                (found.diverged if self._is_borne(name) else found.failed)[name] = error
        return found

    def _give_up(self, name: str, bad: list[str]) -> None:
        """Ends a node one of whose needs failed; as diverged where all of these did."""
        cause = self.causes.get(bad[0], bad[0])
        kind = (
            TrainingDiverged if all(isinstance(self.outcomes[one], TrainingDiverged) for one in bad) else SelfcfgError
        )
        self.outcomes[name], self.causes[name] = kind(name, f"it needs {cause}, which failed"), cause

    def _hold(self, contest: Contest) -> None:
        errors = {name: error for name in contest.needs if (error := self.outcomes[name]) is not None}
        if bad := [name for name, error in errors.items() if not isinstance(error, TrainingDiverged)]:
            self._give_up(contest.name, bad)
            return
        diverged = {name: self.causes.get(name, name) for name in errors}
        try:
            kept = hold(contest, self.graph.folder, diverged)
        except SelfcfgError as error:
            self.outcomes[contest.name] = error
            return
        self.outcomes[contest.name] = None
        self.places |= {place: self.graph.folder / key for place, key in kept.kept.items()}
        file = self.graph.folder / contest.stage / PAGE
        self.tell(f"{contest.name}: {listed(kept.kept.values(), 20)}; why: {file}")

    def _is_borne(self, name: str) -> bool:
        """Whether a job diverged, and all that depends on it chose another."""
        if not isinstance(self.outcomes[name], TrainingDiverged):
            return False
        after = [node for node in self.graph.nodes if name in node.needs]
        return bool(after) and all(
            self.outcomes[one.name] is None if isinstance(one, Contest) else self._is_borne(one.name) for one in after
        )


def hold(contest: Contest, folder: Path, diverged: Mapping[str, str]) -> Kept:
    """What a contest keeps; a choice that was made before among the same candidates holds.

    Leaves candidates.json and candidates.md in the folder of the stage.

    Args:
        contest: all jobs of which have ended.
        folder: of the recipe's results.
        diverged: by name, jobs that ended without a score, and the name of the one that diverged.

    Raises:
        SelfcfgError: no candidate for a place has a score.
    """
    place = folder / contest.stage
    if (place / KEPT).is_file():
        before = Kept.read(place / KEPT)
        if set(before.kept) == {slot.key for slot in contest.slots}:
            known = {
                name: one.diverged
                for one in before.candidates
                for name in (job_name(one.key, fold) for fold in before.folds)
                if one.diverged and not _scored(folder / name).is_file()
            }
            again = _contenders(contest, folder, before.folds, {**known, **diverged})
            if before.same_contest(before.model_copy(update={"candidates": again, **_rule(contest)})):
                return before
    contenders = _contenders(contest, folder, contest.folds, diverged)
    kept = best_of(contest.stage, contest.keep, contest.slots, contenders, contest.folds)
    kept.write_whole(place)
    return kept


def prepare_all(project: Project, graph: Graph, jobs: int) -> None:
    """Preprocesses whatever jobs read, so that no two of them do it at the same time.

    Raises:
        DataError: cases cannot be read.
    """
    done: set[tuple[object, ...]] = set()
    for job in graph.jobs:
        chosen = choose(project, job.request.model_copy(update={"teachers": ()}))
        alike = [need.one_channel for need in chosen.trainer_type.unlabelled(chosen.settings)]
        reference = job.request.reference
        what = (bool(alike), any(alike), job.request.unlabelled, reference)
        if what in done:
            continue
        done.add(what)
        plan, configuration = chosen.plan, chosen.configuration_name
        pipeline.store(project, plan, configuration, jobs)
        if alike:
            gather(project, plan, configuration, job.request.unlabelled, alike=any(alike), jobs=jobs)
        if reference is not None:
            gather_reference(project, plan, configuration, reference, jobs=jobs)


def _obey(name: str, outcome: object) -> None:
    """Raises where a job was stopped on request."""
    if isinstance(outcome, Stopped):
        raise Stopped(f"train {name}", outcome.found, AGAIN)


def _scored(folder: Path) -> Path:
    """Where a run has the scores of its validation cases."""
    return RunFolder(folder).validation / SUMMARY


def _rule(contest: Contest) -> dict[str, str | None]:
    return {"best_by": contest.keep.best_by, "per": contest.keep.per}


def _contenders(
    contest: Contest, folder: Path, folds: tuple[int, ...], diverged: Mapping[str, str]
) -> tuple[Contender, ...]:
    """The candidates with their scores in some folds."""
    found, metric = [], contest.keep.best_by
    for key, steps in contest.steps.items():
        names = [job_name(key, fold) for fold in folds]
        bad = next((diverged[name] for name in names if name in diverged), None)
        files = {} if bad else {str(fold): _scored(folder / name) for fold, name in zip(folds, names, strict=True)}
        scores = {fold: Evaluation.read(file) for fold, file in files.items() if file.is_file()}
        contender = Contender(
            key=key,
            values=contest.values[key],
            steps=steps,
            scores={fold: one.foreground_mean[metric] for fold, one in scores.items()},
            score=combine(list(scores.values())).foreground_mean[metric] if scores else None,
            diverged=bad,
        )
        found.append(contender)
    return tuple(found)
