"""An experiment: one trainer on one configuration, fold by fold, to cross-validated scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfcfg import registry
from selfcfg.engine import pipeline
from selfcfg.engine.batches import Batches, Source
from selfcfg.engine.device import choose_device, machine_facts, package_versions
from selfcfg.engine.evaluate import Evaluation, evaluate
from selfcfg.engine.loop import fit
from selfcfg.engine.opening import open_run
from selfcfg.engine.predict import load_model
from selfcfg.engine.preprocess import Prepared
from selfcfg.engine.store import Store
from selfcfg.engine.trainer import Settings, Trainer
from selfcfg.errors import DataError, UsageError
from selfcfg.files import hash_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.fixes import Fixes
from selfcfg.io import write_label
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import progress, say
from selfcfg.project import Project
from selfcfg.records import Record
from selfcfg.runs import RunFolder, RunRecord, experiment_name, fold_folders
from selfcfg.splits import Split, label_subset
from selfcfg.workspace import Workspace


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
    store: Store

    @property
    def folder(self) -> Path:
        """The parent of the fold folders."""
        name = experiment_name(self.request.trainer, self.plan_name, self.configuration_name, self.request.name)
        return self.project.results / name

    def trainer(self) -> Trainer[Any]:
        """A new trainer, for one fold."""
        return self.trainer_type(self.settings, self.plan, self.configuration)

    def run(self, fold: int) -> RunFolder:
        """The folder of one fold."""
        return RunFolder(self.folder / f"fold_{fold}")

    def record(self, fold: int) -> RunRecord:
        """What makes one fold's run.

        Raises:
            UsageError: there is no such fold.
        """
        if not 0 <= fold < len(self.splits):
            raise UsageError(f"fold {fold}", f"{self.project.name} has {len(self.splits)} folds", "count from 0")
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
            plan_hash=self.plan.content_hash(),
            data_hash=hash_json([self.store.open(case).info.source for case in train]),
            train=train,
            validation=split.val,
            versions=package_versions(),
            machine={**machine_facts(device), "precision": self.trainer().precision(device)},
        )


def open_experiment(project: Project, request: TrainRequest, jobs: int) -> Experiment:
    """The experiment that a request names, with fingerprint, splits and preprocessed cases brought up to date.

    Raises:
        UsageError: the plan, configuration, trainer or a setting does not exist.
        DataError: cases cannot be read, or the splits leak.
    """
    plan_name, plan = project.plan(request.planner)
    configuration_name = request.configuration or plan.default_configuration
    planned = plan.configuration(configuration_name)
    if planned.after is not None:
        raise UsageError(
            f"train {configuration_name}",
            f"it refines the predictions of {planned.after}, and a chain of two networks cannot be trained yet",
            f"train {planned.after} or 3d_fullres",
        )
    trainer_type: type[Trainer[Any]] = registry.load("trainers", request.trainer)
    settings = parse_settings(trainer_type, request.settings)
    facts = pipeline.known_fingerprint(project, jobs)
    return Experiment(
        project=project,
        request=request,
        plan_name=plan_name,
        plan=plan,
        configuration_name=configuration_name,
        configuration=with_settings(planned, settings),
        trainer_type=trainer_type,
        settings=settings,
        facts=facts,
        splits=pipeline.splits(project, facts),
        store=pipeline.store(project, plan, configuration_name, jobs),
    )


def train_fold(experiment: Experiment, fold: int) -> FoldResult:
    """Trains one fold and scores its validation cases; a finished fold is only scored.

    Raises:
        UsageError: no such fold, or the folder holds another or an unfinished run.
        Stopped: stopped on request; the same call with `resume` continues.
    """
    run, record = experiment.run(fold), experiment.record(fold)
    if open_run(run, record, resume=experiment.request.resume):
        say(f"{run.path.name} is finished already")
    else:
        device = choose_device(experiment.request.device)
        sources = {
            stream: Source(experiment.store.folder, record.train, record.validation, need)
            for stream, need in experiment.trainer_type.needs.items()
        }
        experiment.plan.write(run.plan)
        experiment.facts.write(experiment.folder / "fingerprint.json")
        batches = Batches(sources, experiment.settings, experiment.configuration, experiment.plan, device, record.seed)
        request = experiment.request
        fit(experiment.trainer(), run, record, batches, device=device, resume=request.resume, init=request.init)
    return FoldResult(run, validate(experiment, run, record.validation))


def validate(experiment: Experiment, run: RunFolder, cases: Sequence[str]) -> Evaluation:
    """Predicts and scores whole validation cases with the final weights; cases predicted already are kept."""
    ending = experiment.project.dataset.description.label_ending
    outputs = {case: run.validation / f"{case}{ending}" for case in cases}
    made = run.final.stat().st_mtime
    missing = [case for case, file in outputs.items() if not file.is_file() or file.stat().st_mtime < made]
    if missing:
        model = load_model(run.path, device=experiment.request.device, precision=experiment.settings.precision)
        with progress(f"validate {run.path.name}", len(missing)) as step:
            for case in missing:
                stored = experiment.store.open(case)
                prepared = Prepared(image=stored.image[...], label=None, info=stored.info)
                prediction = model.predict_prepared(prepared)
                write_label(outputs[case], prediction.labels, prediction.geometry)
                step(case)
    return _evaluated(experiment, outputs, run.validation)


def cross_validated(experiment: Experiment, results: Sequence[FoldResult]) -> Evaluation:
    """The scores over the validation cases of all given folds together, written into the experiment's folder."""
    ending = experiment.project.dataset.description.label_ending
    outputs = {
        case: result.run.validation / f"{case}{ending}"
        for result in results
        for case in RunRecord.read(result.run.record).validation
    }
    return _evaluated(experiment, outputs, experiment.folder / "cross_validation")


def _evaluated(experiment: Experiment, predictions: Mapping[str, Path], destination: Path) -> Evaluation:
    dataset = experiment.project.dataset
    references = {case: label for case in predictions if (label := dataset.case(case).label) is not None}
    predicted = {case: predictions[case] for case in references}
    scores = evaluate(references, predicted, experiment.plan.labels, fixes=Fixes.of(dataset.root))
    scores.write(destination)
    return scores


def parse_settings(trainer: type[Trainer[Any]], given: Mapping[str, Any]) -> Settings:
    """The typed settings of a trainer; values given as text are read by the setting's type, "a.b" is b within a.

    Raises:
        UsageError: an unknown setting (with the nearest name) or a value it cannot take.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        outer, dot, inner = key.partition(".")
        if dot:
            values.setdefault(outer, {})[inner] = _read_value(value)
        else:
            values[key] = _read_value(value)
    try:
        return trainer.settings_type.parse(values, f"settings of trainer '{trainer.name}'")
    except DataError as error:
        raise UsageError(error.asked, error.found, "see: selfcfg list trainers") from error


def _read_value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() in ("none", "null"):
        return None
    return value.split(",") if "," in value else value


def with_settings(configuration: Configuration, settings: Settings) -> Configuration:
    """The configuration with the batch and patch size of the settings, where they name any.

    Raises:
        UsageError: the network cannot take that patch size.
    """
    try:
        return configuration.resized(batch_size=settings.batch_size, patch_size=settings.patch_size)
    except DataError as error:
        raise UsageError(error.asked, error.found, "choose another size") from error


def experiments_of(target: str, workspace: Workspace) -> list[Path]:
    """The experiment folders that a run folder, or a dataset, names.

    Raises:
        UsageError: neither a folder of runs nor a dataset with any.
    """
    path = Path(target)
    if path.is_dir() and not (path / "dataset.json").is_file():
        return [fold_folders(path)[0].path.parent]
    results = Project.of(workspace, target).results
    found = sorted({file.parent.parent for file in results.glob("*/fold_*/run.json")})
    if not found:
        raise UsageError(f"experiments of '{target}'", f"none in {results}", f"run: selfcfg train {target}")
    return found
