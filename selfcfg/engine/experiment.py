"""An experiment: one trainer on one configuration, fold by fold, to cross-validated scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

from selfcfg import registry
from selfcfg.engine import pipeline
from selfcfg.engine.batches import Batches, Source
from selfcfg.engine.cascade import PreviousStage, bring_to_grid, cross_validated_labels
from selfcfg.engine.checkpoint import weights_of
from selfcfg.engine.device import choose_device, machine_facts, package_versions
from selfcfg.engine.evaluate import Evaluation
from selfcfg.engine.forecast import Forecast, Job, forecast, refuse_too_large
from selfcfg.engine.loop import fit
from selfcfg.engine.store import Store
from selfcfg.engine.trainer import Settings, Trainer
from selfcfg.engine.validation import predict_validation, score_validation
from selfcfg.errors import DataError, UsageError, listed
from selfcfg.files import hash_file, hash_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Configuration, Plan
from selfcfg.project import Project
from selfcfg.records import Record
from selfcfg.runs import RunFolder, RunRecord, experiment_name
from selfcfg.splits import Split, label_subset


class TrainRequest(Record):
    """What to train, as the command line says it.

    Args:
        configuration: name within the plan; None: its default.
        planner: name of the plan; None: the only one there is.
        trainer: entry-point name.
        settings: setting name to its value, still as given.
        label_fraction: share of the training subjects whose labels are used.
        seed: of every random number.
        init: a run whose weights are taken over, or None.
        previous: for a cascade, the experiment folder of the stage before; None: the one with the same trainer, plan
            and name.
        name: distinguishes this experiment from others of the same trainer, plan and configuration.
        resume: continue an unfinished run.
        device: such as "cpu" or "cuda:0"; None: the best there is.
    """

    configuration: str | None = None
    planner: str | None = None
    trainer: str = "supervised"
    settings: dict[str, Any] = {}
    label_fraction: float = 1.0
    seed: int = 0
    init: Path | None = None
    previous: Path | None = None
    name: str | None = None
    resume: bool = False
    device: str | None = None


@dataclass(frozen=True)
class FoldResult:
    """One finished fold: its folder and the scores of its validation cases."""

    run: RunFolder
    evaluation: Evaluation


@dataclass(frozen=True)
class Experiment:
    """Everything the folds of one experiment share; made by `open_experiment`."""

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
    previous: PreviousStage | None = None
    time_budget: float | None = None

    @property
    def folder(self) -> Path:
        """The parent of the fold folders."""
        name = experiment_name(self.request.trainer, self.plan_name, self.configuration_name, self.request.name)
        return self.project.results / name

    def trainer(self) -> Trainer[Any]:
        """A new trainer, for one fold."""
        return self.trainer_type(self.settings, self.plan, self.configuration)

    def batches(self, record: RunRecord) -> Batches:
        """Where the batches of one fold come from."""
        previous = self.previous.folder if self.previous else None
        sources = {
            stream: Source(self.store.folder, record.train, record.validation, need, previous)
            for stream, need in self.trainer_type.needs.items()
        }
        device = choose_device(self.request.device)
        return Batches(sources, self.settings, self.configuration, self.plan, device, record.seed)

    def run(self, fold: int) -> RunFolder:
        """The folder of one fold."""
        return RunFolder(self.folder / f"fold_{fold}")

    def record(self, fold: int) -> RunRecord:
        """What makes one fold's run."""
        split = self.splits[fold]
        subjects = {case.id: case.subject for case in self.project.dataset.cases}
        train = label_subset(split.train, subjects, self.request.label_fraction, self.request.seed)
        device = choose_device(self.request.device)
        return RunRecord(
            dataset=self.project.name,
            trainer=self.request.trainer,
            planner=self.plan_name,
            configuration=self.configuration_name,
            fold=fold,
            settings=self.settings.model_dump(mode="json"),
            label_fraction=self.request.label_fraction,
            seed=self.request.seed,
            init=str(self.request.init) if self.request.init else None,
            init_hash=self._init_hash(fold),
            previous=self.previous.experiment.name if self.previous else None,
            previous_weights=self.previous.weights if self.previous else {},
            plan_hash=self.plan.content_hash(),
            data_hash=hash_json([self._source(case) for case in train]),
            train=train,
            validation=split.val,
            time_budget=self.time_budget,
            versions=package_versions(),
            machine={**machine_facts(device), "precision": self.trainer().precision(device)},
        )

    def _source(self, case: str) -> str:
        """The hash of what a case was made from."""
        source = self.store.open(case).info.source
        return source if self.previous is None else source + self.previous.sources[case]

    def _init_hash(self, fold: int) -> str:
        """The hash of the weights it starts from; of a run that has started, they may be gone."""
        if self.request.init is None:
            return ""
        if not self.request.init.exists() and self.run(fold).record.is_file():
            return RunRecord.read(self.run(fold).record).init_hash
        return hash_file(weights_of(self.request.init))


class Choice(NamedTuple):
    """What a request names: the plan, the configuration with the sizes of the training, and the strategy."""

    plan_name: str
    plan: Plan
    configuration_name: str
    configuration: Configuration
    trainer_type: type[Trainer[Any]]
    settings: Settings


def choose(project: Project, request: TrainRequest) -> Choice:
    """What a request names.

    Raises:
        UsageError: the plan, configuration, trainer or a setting does not exist.
    """
    plan_name, plan = project.plan(request.planner)
    name = request.configuration or plan.default_configuration
    planned = plan.configuration(name)
    trainer_type: type[Trainer[Any]] = registry.load("trainers", request.trainer)
    settings = parse_settings(trainer_type, request.settings)
    return Choice(plan_name, plan, name, with_settings(planned, settings), trainer_type, settings)


def forecast_of(project: Project, request: TrainRequest, n_folds: int, jobs: int) -> Forecast:
    """What preprocessing, training and prediction of a request will take of this machine.

    Raises:
        UsageError: something that the request names does not exist.
        SelfcfgError: the training does not fit the memory.
    """
    _, plan, name, configuration, trainer_type, settings = choose(project, request)
    facts = pipeline.known_fingerprint(project, jobs)
    return forecast(Job(plan, name, configuration, trainer_type, settings, facts, request.device, n_folds, jobs))


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
    plan_name, plan, configuration_name, configuration, trainer_type, settings = choose(project, request)
    device = choose_device(request.device)
    refuse_too_large(plan, configuration, trainer_type(settings, plan, configuration).precision(device), device)
    if request.init is not None and not request.resume:
        weights_of(request.init)
    after = configuration.after
    first = None if after is None else _first_stage(project, request, plan_name, after)
    facts = pipeline.known_fingerprint(project, jobs)
    splits = pipeline.splits(project, facts)
    folds = tuple(dict.fromkeys(range(len(splits)) if folds is None else folds))
    if unknown := sorted(set(folds) - set(range(len(splits)))):
        raise UsageError(f"fold {listed(unknown)}", f"{project.name} has {len(splits)} folds", "count from 0")
    store = pipeline.store(project, plan, configuration_name, jobs)
    previous = bring_to_grid(first[1], first[0], store, configuration_name, configuration, jobs=jobs) if first else None
    return Experiment(
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
        previous=previous,
    )


def train_fold(experiment: Experiment, fold: int) -> FoldResult:
    """Trains one fold and scores its validation cases; a finished fold is only scored.

    Raises:
        UsageError: the folder holds another or an unfinished run.
        Stopped: stopped on request; the same call with `resume` continues.
    """
    request, project = experiment.request, experiment.project
    run, record = experiment.run(fold), experiment.record(fold)
    device = choose_device(request.device)
    facts = experiment.folder / "fingerprint.json"
    if not facts.is_file():
        experiment.facts.write(facts)
    batches = experiment.batches(record)
    fit(experiment.trainer(), run, record, batches, device=device, resume=request.resume, init=request.init)
    ending, precision = project.dataset.description.label_ending, experiment.settings.precision
    predictions = predict_validation(
        run,
        record.validation,
        experiment.store,
        ending,
        device=request.device,
        precision=precision,
        previous=experiment.previous,
    )
    scores = score_validation(project, experiment.plan.labels, predictions, run.validation, experiment.jobs)
    return FoldResult(run, scores)


def stages(project: Project, request: TrainRequest) -> list[TrainRequest]:
    """The trainings that a request takes, in order: of a cascade both stages, else the one.

    Raises:
        UsageError: the plan or the configuration does not exist.
    """
    _, plan = project.plan(request.planner)
    after = plan.configuration(request.configuration or plan.default_configuration).after
    if after is None or request.previous is not None:
        return [request]
    return [*stages(project, request.model_copy(update={"configuration": after})), request]


def _first_stage(project: Project, request: TrainRequest, plan_name: str, after: str) -> tuple[Path, dict[str, Path]]:
    """The experiment folder of a cascade's first stage, and the label map of each case by it."""
    folder = request.previous or project.results / experiment_name(request.trainer, plan_name, after, request.name)
    if folder.parent != project.results:
        raise UsageError(f"train after {folder}", f"it is not in {project.results}", "move or train it there")
    cases, ending = [case.id for case in project.dataset.cases], project.dataset.description.label_ending
    return folder, cross_validated_labels(folder, cases, after, ending)


def parse_settings(trainer: type[Trainer[Any]], given: Mapping[str, Any]) -> Settings:
    """The typed settings of a trainer; values given as text are read by the setting's type, "a.b" is b within a.

    Raises:
        UsageError: an unknown setting (with the nearest name) or a value it cannot take.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        outer, dot, inner = key.partition(".")
        if outer in values and isinstance(values[outer], dict) != bool(dot):
            raise UsageError(f"setting '{outer}'", "given as a whole and in part", "give either of them")
        if dot:
            values.setdefault(outer, {})[inner] = _read_value(value)
        else:
            values[key] = None if _means_none(trainer.settings_type, key, value) else _read_value(value)
    try:
        return trainer.settings_type.parse(values, f"settings of trainer '{trainer.name}'")
    except DataError as error:
        raise UsageError(error.asked, error.found, "see: selfcfg list trainers") from error


def _read_value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.split(",") if "," in value else value


def _means_none(settings: type[Settings], name: str, value: Any) -> bool:
    """Whether a text stands for None: "none" is also the name of a choice of some settings."""
    field = settings.model_fields.get(name)
    return value in ("none", "None", "null") and field is not None and type(None) in get_args(field.annotation)


def with_settings(configuration: Configuration, settings: Settings) -> Configuration:
    """The configuration with the batch and patch size of the settings, where they name any.

    Raises:
        UsageError: the network cannot take that patch size.
    """
    try:
        return configuration.resized(batch_size=settings.batch_size, patch_size=settings.patch_size)
    except DataError as error:
        raise UsageError("train with the given sizes", error.found, "choose others") from error
