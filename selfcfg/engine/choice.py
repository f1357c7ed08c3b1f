"""What a training is asked to be, and the plan, configuration, strategy and settings that this names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from selfcfg import registry
from selfcfg.engine.data.collection import Unlabelled
from selfcfg.engine.scoring.validation import Keeping
from selfcfg.engine.trainer import Settings, Trainer
from selfcfg.errors import DataError, UsageError, counted
from selfcfg.plan import Configuration, Plan
from selfcfg.project import Project
from selfcfg.records import Record
from selfcfg.runs import StageOf


class TrainRequest(Record):
    """What to train, as the command line says it.

    Args:
        configuration: name within the plan; None: its default.
        planner: name of the plan; None: the only one there is.
        trainer: entry-point name.
        settings: setting name to its value, still as given.
        label_fraction: share of the training subjects whose labels are used.
        seed: of every random number.
        init: a run or a weights file whose weights are taken over, or None; of an experiment with folds each fold takes
            the run of the same fold.
        teachers: runs that it learns from, for trainers that do: experiment or fold folders, or imported models; of an
            experiment with folds each fold takes the run of the same fold, where there is one.
        unlabelled: images to pretrain on besides the dataset's own, for trainers that take images without labels.
        reference: raw folder of the labelled dataset that guides it, for trainers that need one; else None.
        previous: for a cascade, the experiment folder of the stage before; None: the one with the same trainer, plan
            and name.
        stage: the stage of a recipe that it is, or None.
        name: distinguishes this experiment from others of the same trainer, plan and configuration.
        resume: continue an unfinished run.
        processes: that share each batch.
        device: such as "cpu" or "cuda:0"; None: the best there is.
        probabilities: whether those of the validation cases are written, too: "none", "passing" (until `select` is
            done with them) or "kept".
        elsewhere: whether it is trained on another machine, of whose device and memory this one knows nothing.
    """

    configuration: str | None = None
    planner: str | None = None
    trainer: str = "supervised"
    settings: dict[str, Any] = {}
    label_fraction: float = 1.0
    seed: int = 0
    init: Path | None = None
    teachers: tuple[Path, ...] = ()
    unlabelled: tuple[Unlabelled, ...] = ()
    reference: Path | None = None
    previous: Path | None = None
    stage: StageOf | None = None
    name: str | None = None
    resume: bool = False
    processes: int = 1
    device: str | None = None
    probabilities: Keeping = "none"
    elsewhere: bool = False


class Choice(NamedTuple):
    """What a request names: the plan, the configuration with the sizes of the training, and the strategy."""

    plan_name: str
    plan: Plan
    configuration_name: str
    configuration: Configuration
    trainer_type: type[Trainer[Any]]
    settings: Settings

    def share(self, processes: int) -> Configuration:
        """The configuration with the part of a batch that one of several processes has."""
        whole = self.configuration
        memory = None if whole.memory_bytes is None else whole.memory_bytes // processes
        return whole.model_copy(update={"batch_size": whole.batch_size // processes, "memory_bytes": memory})


def choose(project: Project, request: TrainRequest) -> Choice:
    """What a request names.

    Raises:
        UsageError: the plan, configuration, trainer or a setting does not exist, or one does not suit the other.
    """
    plan_name, plan = project.plan(request.planner)
    name = request.configuration or plan.default_configuration
    planned = plan.configuration(name)
    trainer_type: type[Trainer[Any]] = registry.load("trainers", request.trainer)
    settings = parse_settings(trainer_type, request.settings)
    if request.teachers and not trainer_type.is_taught(settings):
        found = f"trainer '{request.trainer}' has no teachers"
        raise UsageError("--teacher", found, "leave it out, or choose --trainer distillation")
    if request.unlabelled and not trainer_type.unlabelled(settings):
        found = f"trainer '{request.trainer}' learns from labels alone"
        raise UsageError(
            "--unlabelled", found, "leave it out, or choose a trainer that pretrains: selfcfg list trainers"
        )
    if request.reference is not None and not trainer_type.takes_reference(settings):
        found = f"trainer '{request.trainer}' looks at no reference dataset"
        raise UsageError("--reference", found, "leave it out, or choose --trainer reference_guided")
    if planned.after is not None and (request.unlabelled or not trainer_type.segments(settings)):
        found = f"{name} is the second stage of a cascade, which needs the results of the first for every image"
        raise UsageError("pretrain", found, "pretrain with another -c, and take that over with --init")
    return Choice(plan_name, plan, name, with_settings(planned, settings), trainer_type, settings)


def refuse_without_reference(request: TrainRequest, trainer_type: type[Trainer[Any]], settings: Settings) -> None:
    """Nothing, where the reference dataset that a training needs is named, or none is needed.

    Raises:
        UsageError: one is needed.
    """
    if request.reference is None and trainer_type.takes_reference(settings):
        found = "it needs a labelled dataset besides the one that is trained for"
        raise UsageError(f"trainer '{request.trainer}'", found, "name one with --reference DATASET")


def refuse_unshared(chosen: Choice, processes: int) -> None:
    """Nothing, where so many processes can share the batches of a training.

    Raises:
        UsageError: the trainer is not made for it, or a batch cannot be split evenly.
    """
    asked = f"train with {processes} processes"
    if processes > 1 and (why := chosen.trainer_type.why_not_split(chosen.settings)):
        raise UsageError(asked, f"trainer '{chosen.trainer_type.name}': {why}", "leave --devices out")
    size = chosen.configuration.batch_size
    for stream, need in chosen.trainer_type.needs_for(chosen.settings).items():
        count = need.drawn_in(size)
        if count % processes and not need.validation_only:
            found = f"the batch of {size}, which all share, cannot be split among them"
            if need.sequence > 1:
                found += f": in stream '{stream}' it is {counted(count, 'sequence')} of {need.sequence}"
            step = processes * need.sequence
            fitting = -(-size // step) * step
            raise UsageError(asked, found, f"give --set batch_size={fitting}, or other --devices")


def parse_settings(trainer: type[Trainer[Any]], given: Mapping[str, Any]) -> Settings:
    """The typed settings of a trainer; values given as text are read by the setting's type, "a.b" is b within a.

    Raises:
        UsageError: an unknown setting (with the nearest name) or a value it cannot take.
    """
    try:
        values = setting_values(trainer.settings_type, given)
        return trainer.settings_type.parse(values, f"settings of trainer '{trainer.name}'")
    except DataError as error:
        raise UsageError(error.asked, error.found, "see: selfcfg list trainers") from error


def setting_values(settings: type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that given settings stand for; what is not said within a table stays as the trainer has it.

    Raises:
        UsageError: a table is given as a whole and in part.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        outer, dot, inner = key.partition(".")
        if outer in values and isinstance(values[outer], dict) != bool(dot):
            raise UsageError(f"setting '{outer}'", "given as a whole and in part", "give either of them")
        if dot:
            values[outer] = {**values.get(outer, {}), inner: _read_value(value)}
        else:
            values[key] = None if _means_none(settings, key, value) else _read_value(value)
    for name, value in values.items():
        default = settings.model_fields[name].get_default() if name in settings.model_fields else None
        if isinstance(default, Record) and isinstance(value, dict):
            values[name] = {**default.model_dump(), **value}
    return values


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
