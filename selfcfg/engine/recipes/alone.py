"""One job or choice of a recipe by itself: what a cluster runs, and what can be run by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfcfg.engine.recipes.graph import Contest, Graph, Job
from selfcfg.engine.recipes.jobs import DIVERGED, RunJob, hold, prepare_all, run_job
from selfcfg.engine.scoring.evaluate import SUMMARY
from selfcfg.errors import UsageError, listed, nearest
from selfcfg.project import Project
from selfcfg.recipes.kept import KEPT, PAGE, Kept
from selfcfg.runs import RunRecord

PREPARE = "prepare"
"""The name of what comes before all jobs: preprocessing of everything that they read."""


def run_alone(project: Project, graph: Graph, name: str, *, jobs: int, tell: Callable[[str], None]) -> None:
    """Runs one job, holds one contest, or prepares what all jobs read.

    Args:
        project: of the dataset.
        graph: of the recipe.
        name: of the job or contest, or `PREPARE`.
        jobs: processes at most.
        tell: called with what came of it.

    Raises:
        UsageError: there is no such job, or what it needs is not done.
        TrainingDiverged: it did.
        SelfcfgError: it cannot be run.
    """
    if name == PREPARE:
        prepare_all(project, graph, jobs)
        return
    nodes = {node.name: node for node in graph.nodes}
    if name not in nodes:
        raise UsageError(f"job '{name}' of the recipe", "there is none", nearest(name, [PREPARE, *nodes]))
    node = nodes[name]
    if isinstance(node, Contest):
        kept = hold(node, graph.folder, _diverged(graph, node))
        tell(f"{name}: {listed(kept.kept.values(), 20)}; why: {graph.folder / node.stage / PAGE}")
        return
    if missing := [need for need in node.needs if not _is_done(graph, nodes[need])]:
        raise UsageError(f"job '{name}' of the recipe", f"it needs {listed(missing)}", "do these before it")
    request = node.resolved(places_of(graph))
    scores = run_job(RunJob(name, project, request, node.fold, jobs, is_alone=True))
    tell(f"{name}: {graph.folder / name}" + (f"\n{scores.table()}" if scores else ", pretrained"))


def places_of(graph: Graph) -> dict[str, Path]:
    """By key of each candidate, and of each place of a kept one that is decided on, the experiment folder."""
    places = {job.key: graph.folder / job.key for job in graph.jobs}
    for contest in graph.contests:
        if (file := graph.folder / contest.stage / KEPT).is_file():
            places |= {place: graph.folder / key for place, key in Kept.read(file).kept.items()}
    return places


def _is_done(graph: Graph, node: Job | Contest) -> bool:
    if isinstance(node, Contest):
        file = graph.folder / node.stage / KEPT
        return file.is_file() and set(Kept.read(file).kept) == {slot.key for slot in node.slots}
    run = node.run(graph.folder)
    if not run.record.is_file():
        return False
    record = RunRecord.read(run.record)
    return record.status == "finished" and (not record.segments or (run.validation / SUMMARY).is_file())


def _diverged(graph: Graph, contest: Contest) -> dict[str, str]:
    """By name, the jobs of a contest that have no score, each with the one that diverged.

    Raises:
        UsageError: a job has not ended, or failed.
    """
    nodes = {node.name: node for node in graph.nodes}
    found, missing = dict[str, str](), []
    for name in contest.needs:
        if _is_done(graph, nodes[name]):
            continue
        if (cause := _cause(graph, name)) is None:
            missing.append(name)
        else:
            found[name] = cause
    if missing:
        raise UsageError(f"'{contest.name}' of the recipe", f"it needs {listed(missing)}", "do these before it")
    return found


def _cause(graph: Graph, name: str) -> str | None:
    """The job that diverged because of which one is not done, perhaps itself; None: it failed, or is to be done."""
    node = next(node for node in graph.nodes if node.name == name)
    if isinstance(node, Job):
        record = node.run(graph.folder).record
        if record.is_file() and RunRecord.read(record).status == DIVERGED:
            return name
    bad = [need for need in node.needs if not _is_done(graph, next(one for one in graph.nodes if one.name == need))]
    causes = [_cause(graph, need) for need in bad]
    return causes[0] if causes and None not in causes else None
