"""Commands and options for clusters: who submits, who looks, and who ends what was submitted."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from selfcfg.cli.options import DebugOption, JsonOption, Speaker, WorkspaceOption
from selfcfg.errors import UsageError, counted, listed
from selfcfg.project import Project
from selfcfg.workspace import Workspace

if TYPE_CHECKING:
    from selfcfg.cluster.tasks import Task
    from selfcfg.engine.cluster.commands import Caller

ClusterKind = Literal["slurm", "print"]

ClusterOption = Annotated[
    ClusterKind | None,
    typer.Option(
        help="submit the jobs to Slurm and wait for them, or write (print) the scripts that do; default: here"
    ),
]

ClusterSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster-set",
        metavar="KEY=VALUE",
        help="options of sbatch, such as mem=32G,time=2:00:00,gpus=1,partition=gpu; KIND.KEY=VALUE for one kind of job",
    ),
]


class Here(NamedTuple):
    """How a command was to run on this machine.

    Args:
        device: such as "cpu" or "cuda:0"; None: the best there is.
        jobs: processes at most; 0: nothing was said.
        only: the job that is to run alone; None: all.
    """

    device: str | None
    jobs: int = 0
    only: str | None = None

    def refuse_with(self, kind: ClusterKind) -> None:
        """Nothing, where all of it can be meant for the jobs of a cluster.

        Raises:
            UsageError: something cannot; names it, and what to say instead.
        """
        asked, number = f"--cluster {kind}", (self.device or "").partition(":")[2]
        if self.only is not None:
            found = "one submits all jobs, the other runs one here"
            raise UsageError(f"{asked} --only {self.only}", found, "drop one")
        if self.jobs:
            remedy = "leave it out; the cores of a job: --cluster-set cpus=4"
            raise UsageError(f"{asked} --jobs {self.jobs}", "Slurm decides how many jobs run at once", remedy)
        if number not in ("", "0"):
            remedy = "write --device cuda; a kind of GPU: --cluster-set gpus=a100:1"
            raise UsageError(f"{asked} --device {self.device}", "a job sees its own GPUs only, counted from 0", remedy)


@dataclass(frozen=True)
class Cluster:
    """Where the jobs of a command go.

    Args:
        kind: to Slurm, or into scripts.
        caller: how commands are written.
        speaker: of the command.
    """

    kind: ClusterKind
    caller: Caller
    speaker: Speaker

    @classmethod
    def of(
        cls,
        kind: ClusterKind | None,
        given: list[str] | None,
        speaker: Speaker,
        project: Project,
        workspace: Path | None,
        here: Here,
    ) -> Cluster | None:
        """What the options say; None: the jobs are run here.

        Raises:
            UsageError: options of sbatch without a cluster, options of this machine with one, or no Slurm here.
        """
        if kind is None:
            if given:
                raise UsageError("--cluster-set", "no cluster was named", "add --cluster slurm, or leave it out")
            return None
        here.refuse_with(kind)
        from selfcfg.cluster import slurm  # noqa: PLC0415
        from selfcfg.cluster.site import Site  # noqa: PLC0415
        from selfcfg.engine.cluster.commands import Caller, workspace_variables  # noqa: PLC0415
        from selfcfg.engine.cluster.graphs import KINDS  # noqa: PLC0415

        if kind == "slurm":
            slurm.refuse_without()
        place = Workspace.at(workspace)
        site = Site.here(given or (), KINDS, workspace_variables(place))
        gpus = 0 if here.device == "cpu" or slurm.has_gpus() is False else 1
        return cls(kind, Caller(project, place, site, gpus), speaker)

    def folder(self, name: str) -> Path:
        """Where the graph of a name lies, or its scripts."""
        from selfcfg.cluster.graph import FOLDER  # noqa: PLC0415

        return self.caller.project.results / FOLDER / (f"{name}-scripts" if self.kind == "print" else name)

    def measure(self) -> None:
        """Has the dataset checked and measured by jobs, where these have not done it for its files as they are.

        Raises:
            SelfcfgError: something would make training go wrong; what it is stands in the log.
        """
        from selfcfg.engine.cluster.graphs import measuring_tasks  # noqa: PLC0415

        self.run("measure", measuring_tasks(self.caller))

    def run(self, name: str, tasks: Sequence[Task]) -> bool:
        """Whether all tasks are done: submitted and waited for; else the scripts that do them are written.

        Args:
            name: of the graph.
            tasks: to do; those that were submitted before and wait or run are waited for.

        Raises:
            SelfcfgError: tasks failed; each is named with the end of its log, what does not depend on them is done.
            Stopped: Ctrl-C; the jobs go on.
        """
        from selfcfg.cluster.graph import GraphFolder  # noqa: PLC0415
        from selfcfg.cluster.waiting import wait  # noqa: PLC0415

        graph, site, say = GraphFolder(self.folder(name)), self.caller.site, self.speaker.say
        if self.kind == "print":
            script = graph.write_scripts(tasks, site, self.caller.project.name)
            said = f"wrote {counted(len(tasks), 'job')} as scripts into {graph.folder}"
            say(f"{said}; when all are done, the same command without --cluster tells the scores")
            self.speaker.done({"scripts": str(graph.folder), "submit": str(script)}, f"bash {shlex.quote(str(script))}")
            return False
        made = graph.submit(tasks, site, ["selfcfg", *sys.argv[1:]])
        jobs = sum(len(one.tasks) for one in made)
        ids = listed((one.job for one in made), 20)
        say(f"submitted {counted(jobs, 'job')} of {name} to Slurm: {ids}" if made else f"{name}: nothing to submit")
        say(f"look: selfcfg status {name}; end: selfcfg cancel {name}; scripts and logs: {graph.folder}")
        ended = wait(graph, {task.name for task in tasks}, say)
        if not ended.is_well:
            raise ended.error(name)
        for task in sorted(ended.borne):
            say(f"left out of the choice: {task} {ended.states[task].state}; {ended.states[task].log}")
        return True


def status(
    graph: Annotated[
        str | None, typer.Argument(help="name of a graph, such as two_stage__standard__2d, or its folder; default: all")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Shows how far the jobs on a cluster are: waiting, running, done, failed, with times."""
    from selfcfg.cluster import slurm  # noqa: PLC0415
    from selfcfg.cluster.finding import find_graph, graphs_of  # noqa: PLC0415
    from selfcfg.cluster.graph import GraphFolder  # noqa: PLC0415
    from selfcfg.cluster.states import counts, table, tail  # noqa: PLC0415

    speaker, results = Speaker(as_json), Workspace.at(workspace).results
    graphs = graphs_of(results) if graph is None else [find_graph(results, graph)]
    if not graphs:
        raise UsageError("status", f"no jobs were submitted from {results.parent}", "add --cluster slurm to a training")
    users = {one.folder: GraphFolder(one.folder).read().user for one in graphs}
    queue = slurm.queue(sorted(set(users.values())))
    told = []
    for one in graphs:
        states, owner = GraphFolder(one.folder).states(queue), users[one.folder]
        whose = f", jobs of {owner}, as far as Slurm shows them to you" if owner != slurm.user() else ""
        speaker.say(f"{one.name}: {counts(states)}{whose}")
        if graph is not None:
            speaker.say(table(states, time.time()))
            for state in states.values():
                if state.state == "failed":
                    speaker.say(
                        "\n".join([f"{state.name}: {state.log} ends with", *(f"  {x}" for x in tail(state.log))])
                    )
        told.append({"graph": one.name, "jobs": [state.model_dump(mode="json") for state in states.values()]})
    speaker.done({"graphs": told}, "" if graph else f"selfcfg status {graphs[-1].name}")


def cancel(
    graph: Annotated[str, typer.Argument(help="name of a graph, see: selfcfg status; or its folder")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ends all jobs of a graph that wait or run; what is done stays, and the command that submitted them goes on."""
    from selfcfg.cluster.finding import find_graph  # noqa: PLC0415
    from selfcfg.cluster.graph import GraphFolder  # noqa: PLC0415

    speaker = Speaker(as_json)
    found = find_graph(Workspace.at(workspace).results, graph)
    names = GraphFolder(found.folder).cancel()
    speaker.say(f"{found.name}: cancelled {counted(len(names), 'job')}" + (f": {listed(names, 20)}" if names else ""))
    speaker.done({"graph": found.name, "cancelled": names})
