"""An experiment: one trainer on one configuration, fold by fold, to cross-validated scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from selfcfg.engine import pipeline
from selfcfg.engine.checkpoint import weights_of
from selfcfg.engine.choice import Choice, TrainRequest, choose, refuse_unshared, refuse_without_reference
from selfcfg.engine.data.batches import Batches
from selfcfg.engine.data.collection import Collection, gather, gather_reference
from selfcfg.engine.data.store import Store
from selfcfg.engine.device import choose_device, machine_facts, package_versions
from selfcfg.engine.distillation.lessons import Lessons, Pupil, take_lessons
from selfcfg.engine.distillation.soft_targets import Classroom
from selfcfg.engine.forecasting.forecast import Forecast, Job, forecast, refuse_too_large
from selfcfg.engine.prediction.cascade import PreviousStage, bring_to_grid, first_stage
from selfcfg.engine.supply import Supply, values_for
from selfcfg.engine.trainer import Datasets, Settings, Trainer
from selfcfg.errors import UsageError, listed
from selfcfg.files import hash_file, hash_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.image_targets import Values, scales
from selfcfg.kernels.ranks import ALONE, Ranks
from selfcfg.plan import Configuration, Plan
from selfcfg.project import Project
from selfcfg.runs import RunFolder, RunRecord, experiment_name, same_fold
from selfcfg.splits import Split, label_subset


@dataclass(frozen=True)
class Experiment:
    """Everything the folds of one experiment share; made by `open_experiment`.

    `labelled` names the cases whose labels are used, to train on and to validate on, in place of those of the folds.
    """

    project: Project
    request: TrainRequest
    plan_name: str
    plan: Plan
    configuration_name: str
    configuration: Configuration
    trainer_type: type[Trainer[Any]]
    settings: Settings
    facts: Fingerprint
    splits: tuple[Split, ...]
    folds: tuple[int, ...]
    store: Store
    jobs: int
    collection: Collection = field(default_factory=Collection)
    previous: PreviousStage | None = None
    time_budget: float | None = None
    labelled: Split | None = None
    lessons: Mapping[int, Lessons] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The parent of the fold folders."""
        return results_folder(self.project, self.request, self.plan_name, self.configuration_name)

    def trainer(self, train: Sequence[str] = ()) -> Trainer[Any]:
        """A new trainer, for one fold; the values of its training cases scale image-level regressions."""
        guide = self.collection.reference
        found = scales(self.plan.image_targets, self.image_values, train)
        datasets = Datasets(self.collection.names, self.collection.groups, guide.plan.labels if guide else None, found)
        return self.trainer_type(self.settings, self.plan, self.configuration, datasets)

    def batches(self, record: RunRecord, ranks: Ranks = ALONE) -> Batches:
        """Where the batches of one fold come from, in this process."""
        fold = int(record.fold)
        supply = Supply(
            store_folder=self.store.folder,
            split=self.splits[fold],
            pictures={case.case: case.picture for case in self.facts.cases},
            collection=self.collection,
            previous=self.previous.folder if self.previous else None,
            lessons=self.lessons.get(fold),
            image_values=self.image_values,
        )
        sources = supply.sources(self.trainer_type.needs_for(self.settings), record.train, record.validation)
        device = choose_device(self.request.device)
        return Batches(sources, self.settings, self.configuration, self.plan, device, record.seed, ranks)

    def init(self, fold: int) -> Path | None:
        """What a fold's first weights are taken from: a run or a weights file."""
        return None if self.request.init is None else same_fold(self.request.init, fold)

    def run(self, fold: int) -> RunFolder:
        """The folder of one fold."""
        return RunFolder(self.folder / f"fold_{fold}")

    def record(self, fold: int) -> RunRecord:
        """What makes one fold's run."""
        split = self.splits[fold] if self.labelled is None else self.labelled
        train = self._trained_on(split)
        device, processes = choose_device(self.request.device), self.request.processes
        init = self.init(fold)
        return RunRecord(
            dataset=self.project.name,
            trainer=self.request.trainer,
            planner=self.plan_name,
            configuration=self.configuration_name,
            fold=fold,
            settings=self.settings.model_dump(mode="json"),
            label_fraction=self._share,
            seed=self.request.seed,
            init=str(init) if init else None,
            init_hash=self._init_hash(fold, init),
            **self._taught_by(fold),
            previous=self.previous.experiment.name if self.previous else None,
            previous_weights=self.previous.weights if self.previous else {},
            segments=self.trainer_type.segments(self.settings),
            unlabelled=self.collection.hashes,
            reference=self.collection.reference_hash,
            plan_hash=self.plan.content_hash(),
            data_hash=hash_json([self._source(case) for case in train]),
            train=train,
            validation=split.val,
            time_budget=self.time_budget,
            stage=self.request.stage,
            versions=package_versions(),
            machine={**machine_facts(device, processes), "precision": self.trainer().precision(device)},
        )

    @cached_property
    def image_values(self) -> Values:
        """The image-level values by case: see `values_for`."""
        return values_for(self.trainer_type.needs_for(self.settings), self.plan, self.project.dataset)

    @property
    def _share(self) -> float:
        """A pretraining takes no labels, so that it is the same for every share of them."""
        return self.request.label_fraction if self.trainer_type.labelled(self.settings) else 1.0

    def _trained_on(self, split: Split) -> tuple[str, ...]:
        """The training cases whose labels are used."""
        if self.labelled is not None or not self.trainer_type.labelled(self.settings):
            return split.train
        subjects = {case.id: case.subject for case in self.project.dataset.cases}
        return label_subset(split.train, subjects, self._share, self.request.seed)

    def _taught_by(self, fold: int) -> dict[str, Any]:
        """What a fold's record says of its teachers."""
        if fold not in self.lessons:
            return {}
        ensemble = self.lessons[fold].ensemble
        return {
            "teachers": tuple(str(teacher.path) for teacher in ensemble.teachers),
            "teacher_hashes": tuple(teacher.identity for teacher in ensemble.teachers),
            "teacher_weights": ensemble.weights,
        }

    def taught(self) -> Experiment:
        """The experiment with what its teachers say, predicted where it is not there yet.

        Raises:
            UsageError: there are no teachers, or one does not suit the student.
            SelfcfgError: see `selfcfg.engine.distillation.soft_targets.predict_soft_targets`.
        """
        return replace(
            self, lessons={fold: take_lessons(self.request.teachers, self._pupil(fold)) for fold in self.folds}
        )

    def _pupil(self, fold: int) -> Pupil:
        split, cases = self.splits[fold], {case.id: case for case in self.project.dataset.cases}
        train = split.train if self.request.unlabelled else self._trained_on(split)
        given = zip(self.collection.further, self.collection.cases, self.request.unlabelled, strict=True)
        room = Classroom(
            self.project.root, self.store, self.configuration, self.request.device, self.settings.precision
        )
        return Pupil(
            run=self.run(fold),
            fold=fold,
            plan=self.plan,
            teaching=self.trainer().teaching(),
            train=[cases[case] for case in train],
            validation=[cases[case] for case in split.val],
            further=[(domain, {case.id: case for case in own}, one.images) for domain, own, one in given],
            room=room,
        )

    def _source(self, case: str) -> str:
        """The hash of what a case was made from."""
        source = self.store.open(case).info.source + str(self.image_values.get(case, ""))
        return source if self.previous is None else source + self.previous.sources[case]

    def _init_hash(self, fold: int, init: Path | None) -> str:
        """The hash of the weights it starts from; of a run that has started, they may be gone."""
        if init is None:
            return ""
        if not init.exists() and self.run(fold).record.is_file():
            return RunRecord.read(self.run(fold).record).init_hash
        return hash_file(weights_of(init))


def forecast_of(project: Project, request: TrainRequest, folds: Sequence[int] | None = None, *, jobs: int) -> Forecast:
    """What preprocessing, training and prediction of a request will take of this machine; of a cascade its last stage.

    Args:
        project: of the dataset.
        request: what would be trained.
        folds: those that would be; None: all.
        jobs: processes at most.

    Raises:
        UsageError: something that the request names does not exist.
        SelfcfgError: the training does not fit the memory.
    """
    _, plan, name, configuration, trainer_type, settings = choose(project, request)
    facts = pipeline.known_fingerprint(project, jobs)
    splits = pipeline.splits(project, facts)
    folds = existing_folds(project, folds, len(splits))
    scored = sum(len(splits[fold].val) for fold in folds) / len(project.dataset.cases)
    job = Job(plan, name, configuration, trainer_type, settings, facts, request.device, len(folds), scored, jobs)
    return forecast(job)


def results_folder(project: Project, request: TrainRequest, plan_name: str, configuration: str) -> Path:
    """The parent of the folds of what a request asks for; of a stage it lies in the folder of the recipe."""
    stage = request.stage
    name = experiment_name(stage.recipe if stage else request.trainer, plan_name, configuration, request.name)
    return project.results / name / stage.stage / stage.candidate if stage else project.results / name


def existing_folds(project: Project, folds: Sequence[int] | None, n_folds: int) -> tuple[int, ...]:
    """The folds asked for, all without; each once.

    Raises:
        UsageError: there are fewer folds.
    """
    found = tuple(dict.fromkeys(range(n_folds) if folds is None else folds))
    if unknown := sorted(set(found) - set(range(n_folds))):
        raise UsageError(f"fold {listed(unknown)}", f"{project.name} has {n_folds} folds", "count from 0")
    return found


def open_experiment(
    project: Project, request: TrainRequest, folds: Sequence[int] | None = None, *, jobs: int
) -> Experiment:
    """The experiment that a request names, with fingerprint, splits and preprocessed cases brought up to date.

    Args:
        project: of the dataset.
        request: what to train.
        folds: those to train; None: all.
        jobs: processes at most.

    Raises:
        UsageError: the plan, configuration, trainer, device, a fold or a setting does not exist; said before any case
            is preprocessed.
        DataError: cases cannot be read, or the splits leak.
    """
    plan_name, plan, configuration_name, configuration, trainer_type, settings = choose_feasible(project, request)
    refuse_without_reference(request, trainer_type, settings)
    facts = pipeline.known_fingerprint(project, jobs)
    splits = pipeline.splits(project, facts)
    folds = existing_folds(project, folds, len(splits))
    if request.init is not None and not request.resume:
        for fold in folds:
            weights_of(same_fold(request.init, fold))
    after = configuration.after
    if after is None and request.previous is not None:
        raise UsageError(
            "--previous", f"{configuration_name} works on its own", "leave it out, or name a cascade with -c"
        )
    needed = [splits[fold] for fold in folds]
    first, before = None, {}
    if after is not None:
        first = request.previous or project.results / experiment_name(request.trainer, plan_name, after, request.name)
        ending = project.dataset.description.label_ending
        before = first_stage(first, project.results, needed, after, ending, request.label_fraction)
    store = pipeline.store(project, plan, configuration_name, jobs)
    previous = bring_to_grid(before, first, store, configuration, jobs=jobs) if first else None
    collection = Collection()
    if unlabelled := trainer_type.unlabelled(settings):
        alike = any(need.one_channel for need in unlabelled)
        collection = gather(project, plan, configuration_name, request.unlabelled, alike=alike, jobs=jobs)
    if request.reference is not None:
        guide = gather_reference(project, plan, configuration_name, request.reference, jobs=jobs)
        collection = replace(collection, reference=guide)
    experiment = Experiment(
        project=project,
        request=request,
        plan_name=plan_name,
        plan=plan,
        configuration_name=configuration_name,
        configuration=configuration,
        trainer_type=trainer_type,
        settings=settings,
        facts=facts,
        splits=splits,
        folds=folds,
        store=store,
        jobs=jobs,
        collection=collection,
        previous=previous,
    )
    return experiment.taught() if trainer_type.is_taught(settings) and not request.elsewhere else experiment


def choose_feasible(project: Project, request: TrainRequest) -> Choice:
    """What a request names, once it is known that a step of it fits the memory, where it is trained on this machine.

    Raises:
        UsageError: the plan, configuration, trainer, device or a setting does not exist.
        SelfcfgError: it does not fit.
    """
    chosen = choose(project, request)
    if request.elsewhere:
        return chosen
    device = choose_device(request.device)
    trainer = chosen.trainer_type(chosen.settings, chosen.plan, chosen.configuration)
    refuse_unshared(chosen, request.processes)
    refuse_too_large(chosen.plan, chosen.share(request.processes), trainer.precision(device), device)
    return chosen


def stages(project: Project, request: TrainRequest, folds: Sequence[int] | None, *, jobs: int) -> list[TrainRequest]:
    """The trainings that a request takes, in order: of a cascade both stages, else the one.

    What would make the second stage impossible is looked for before the first one is trained.

    Args:
        project: of the dataset.
        request: what to train.
        folds: of the request's own training; None: all.
        jobs: processes at most.

    Raises:
        UsageError: the plan, a configuration, a fold or a setting does not exist, or the folds do not suit a cascade.
        SelfcfgError: a stage does not fit the memory.
    """
    chosen = choose_feasible(project, request)
    after = chosen.configuration.after
    if after is None:
        return [request]
    first = request.model_copy(update={"configuration": after})
    choose_feasible(project, first)
    splits = pipeline.splits(project, pipeline.known_fingerprint(project, jobs))
    validated = {case for split in splits for case in split.val}
    used = [splits[fold] for fold in existing_folds(project, folds, len(splits))]
    if lone := sorted({case for split in used for case in (*split.train, *split.val)} - validated):
        found = f"validated in no fold: {listed(lone)}; the first stage gives no result for them"
        raise UsageError(f"train {chosen.configuration_name}", found, "put each case into the 'val' of one fold")
    return [first, request]
