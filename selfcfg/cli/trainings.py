"""What the commands that train do: recipes and folds, here or on a cluster, and what they tell of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from selfcfg.cli.budget import Budget
from selfcfg.cli.clusters import Cluster
from selfcfg.cli.options import Speaker, is_followed, typed
from selfcfg.cli.recipes import ends_of, tell_all, train_recipe
from selfcfg.cli.sharing import together
from selfcfg.errors import UsageError, counted
from selfcfg.parallel import default_jobs
from selfcfg.recipes.recipe import RECIPE, Recipe
from selfcfg.workspace import Workspace

if TYPE_CHECKING:
    from selfcfg.engine.choice import TrainRequest
    from selfcfg.engine.experiment import Experiment
    from selfcfg.engine.recipes.opening import OpenRecipe
    from selfcfg.fingerprint import Fingerprint
    from selfcfg.kernels.ranks import Ranks
    from selfcfg.project import Project

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Trainings:
    """Trainings on one dataset, and where they run.

    Args:
        speaker: of the command.
        project: of the dataset.
        place: that holds it.
        jobs: what was asked for; 0: nothing.
        processes: at most.
        cluster: that trains; None: this machine.
        budget: of the time.
    """

    speaker: Speaker
    project: Project
    place: Workspace
    jobs: int
    processes: int
    cluster: Cluster | None
    budget: Budget

    @classmethod
    def on(
        cls,
        speaker: Speaker,
        project: Project,
        workspace: Path | None,
        jobs: int,
        cluster: Cluster | None,
        budget: Budget,
    ) -> Trainings:
        """Trainings as the options say; with as many processes as cores where nothing is said."""
        return cls(speaker, project, Workspace.at(workspace), jobs, jobs or default_jobs(), cluster, budget)

    def measured(self) -> Fingerprint:
        """The fingerprint of the dataset, once it was checked; by jobs of the cluster where Slurm has them done.

        Raises:
            DataError: something would make training go wrong.
        """
        from selfcfg.engine import pipeline  # noqa: PLC0415

        project, n_cases = self.project, counted(len(self.project.dataset.cases), "case")
        if self.cluster and self.cluster.kind == "slurm":
            self.cluster.measure()
            self.speaker.say(f"{project.name}: {n_cases}, checked on the cluster")
            return pipeline.known_fingerprint(project, self.processes)
        warnings = pipeline.checked(project, self.processes)
        self.speaker.say(f"{project.name}: {n_cases}, {counted(len(warnings), 'warning')}")
        return pipeline.fingerprint(project, self.processes)

    def __post_init__(self) -> None:
        if self.cluster and self.budget.seconds is not None:
            found = "how long a step takes is measured on this machine, not on the cluster's"
            raise UsageError(
                "--time-budget with --cluster", found, "leave it out, and set the epochs: --set epochs=200"
            )

    def recipe(
        self,
        request: TrainRequest,
        said: Recipe,
        folds: Sequence[int] | None,
        told: Mapping[str, Any] = NOTHING,
        *,
        only: str | None = None,
    ) -> None:
        """Trains a recipe, or one job of it; the scores are those of what its last stage ends with."""
        from selfcfg.engine.recipes.alone import run_alone  # noqa: PLC0415
        from selfcfg.engine.recipes.opening import open_recipe  # noqa: PLC0415

        opened = open_recipe(self.project, self._there(request), said, self.place, folds, jobs=self.processes)
        graph = opened.graph
        if only is not None:
            run_alone(self.project, graph, only, jobs=self.processes, tell=self.speaker.say)
            self.speaker.done({"run": str(graph.folder), "job": only})
            return
        if self.cluster:
            experiments = self._submitted(self.cluster, opened, request, folds)
        else:
            experiments = train_recipe(self.speaker, self.project, opened, jobs=self.processes, at_once=self.jobs or 1)
        if len(experiments) == 1:
            self._tell(experiments[0], {"run": str(graph.folder), **told})
        elif experiments:
            tell_all(self.speaker, graph.folder, experiments, told)

    def folds(
        self,
        requests: Sequence[TrainRequest],
        folds: Sequence[int] | None,
        told: Mapping[str, Any] = NOTHING,
        *,
        n_folds: int = 1,
    ) -> None:
        """Trains folds of the last of some trainings, `n_folds` of them, and before it all of the others."""
        from selfcfg.engine.experiment import open_experiment  # noqa: PLC0415

        asked = None if folds is None else list(folds)
        if self.cluster:
            if self._submitted_folds(self.cluster, [self._there(one) for one in requests], asked):
                last = self._there(requests[-1])
                self._tell(open_experiment(self.project, last, asked, jobs=self.processes), told)
            return
        with together(requests[-1].device) as (ranks, device):
            *before, last = (one.model_copy(update={"device": device}) for one in requests)
            for stage in before:
                self._train(stage, None, ranks, n_later=n_folds)
            trained = self._train(last, asked, ranks)
            if ranks.is_first:
                self._tell(trained, told)

    def _there(self, request: TrainRequest) -> TrainRequest:
        """The request as it is opened on this machine; jobs of a cluster always go on where they were."""
        return request.model_copy(update={"elsewhere": True, "resume": True}) if self.cluster else request

    def _submitted(
        self, cluster: Cluster, opened: OpenRecipe, request: TrainRequest, folds: Sequence[int] | None
    ) -> list[Experiment]:
        """The experiments that a recipe ends with, once the cluster has trained it; none where it has not."""
        from selfcfg.engine.cluster.graphs import recipe_tasks  # noqa: PLC0415
        from selfcfg.engine.recipes.alone import places_of  # noqa: PLC0415

        name = opened.graph.folder.name
        # jobs that wait read theirs, whatever is trained there later
        file = cluster.folder(name) / f"{Path(RECIPE).stem}-{opened.recipe.content_hash()[:8]}.json"
        opened.recipe.write(file)
        tasks = recipe_tasks(cluster.caller, opened.graph, request, file, folds, select=is_followed())
        if not cluster.run(name, tasks):
            return []
        return ends_of(self.project, opened, places_of(opened.graph), jobs=self.processes)

    def _submitted_folds(self, cluster: Cluster, requests: Sequence[TrainRequest], folds: list[int] | None) -> bool:
        from selfcfg.engine.choice import choose  # noqa: PLC0415
        from selfcfg.engine.cluster.graphs import fold_graph_name, fold_tasks  # noqa: PLC0415

        name = fold_graph_name(requests, choose(self.project, requests[-1]))
        return cluster.run(name, fold_tasks(cluster.caller, requests, folds, select=is_followed()))

    def _train(self, request: TrainRequest, folds: list[int] | None, ranks: Ranks, *, n_later: int = 0) -> Experiment:
        """Trains and scores the folds of one experiment, in this process or with others."""
        from selfcfg.engine.experiment import open_experiment  # noqa: PLC0415
        from selfcfg.engine.folds import train_fold  # noqa: PLC0415

        opened = ranks.in_turn(lambda: open_experiment(self.project, request, folds, jobs=self.processes))
        experiment = self.budget.applied(opened, n_later)
        for fold in experiment.folds:
            result = train_fold(experiment, fold, ranks)
            scores = f"\n{result.evaluation.table()}" if result.evaluation else ", pretrained"
            if ranks.is_first:
                self.speaker.say(f"{experiment.configuration_name}, fold {fold}: {result.run.path}{scores}")
        return experiment

    def _tell(self, experiment: Experiment, told: Mapping[str, Any] = NOTHING) -> None:
        """The scores of all finished folds, and the report on them; `told` goes into the JSON object, and before it."""
        from selfcfg.engine.scoring.validation import cross_validated, scored_folds  # noqa: PLC0415
        from selfcfg.report.report import write_report  # noqa: PLC0415

        if not experiment.trainer_type.segments(experiment.settings):
            first = experiment.run(experiment.folds[0]).path
            folds = [experiment.run(fold).path.name for fold in experiment.folds]
            told = {"run": str(experiment.folder), "folds": folds, "dice": None, **told}
            again = f"selfcfg train {typed(experiment.project.name)} -c {experiment.configuration_name}"
            self.speaker.done(told, f"{again} --fold {experiment.folds[0]} --init {typed(first)}")
            return
        scores, scored = cross_validated(experiment.folder), scored_folds(experiment.folder)
        if len(scored) > 1:
            self.speaker.say(f"all finished folds together:\n{scores.table()}")
        measured = self.project.fingerprint_file
        report = write_report(experiment.folder, scores, self.project.dataset, experiment.plan, fingerprint=measured)
        self.speaker.say(f"report: {report.page}")
        result = {
            "run": str(experiment.folder),
            "folds": [run.path.name for run in scored],
            "dice": scores.foreground_mean["dice"],
            "report": str(report.page),
            "markdown": str(report.markdown),
            **told,
        }
        self.speaker.done(result, f"selfcfg predict {typed(result['run'])} -i INPUT -o OUTPUT")
