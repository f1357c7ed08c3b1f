"""What was asked of this program as command lines of it, for jobs that run elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfcfg.cluster.site import Site, environment_of
from selfcfg.engine.choice import TrainRequest
from selfcfg.engine.cluster.resources import Machine
from selfcfg.engine.data.collection import Unlabelled
from selfcfg.engine.label_efficiency.wanted import LabelEfficiency
from selfcfg.project import Project
from selfcfg.workspace import Workspace

NNUNET = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@dataclass(frozen=True)
class Caller:
    """How commands name a dataset, and what they are given.

    Args:
        project: of the dataset.
        place: that holds it.
        site: how jobs are submitted.
        gpus: accelerators of tasks that can use one.
    """

    project: Project
    place: Workspace
    site: Site
    gpus: int

    def command(self, name: str, *options: object) -> tuple[str, ...]:
        """A command on the dataset."""
        root = self.project.root
        dataset = root.name if root == self.place.raw / root.name else str(root)
        words = (*name.split(), dataset, *options, *workspace_options(self.place))
        return tuple(str(word) for word in words)

    def machine(self, kind: str, cpus: int, *, gpus: int | None = None) -> Machine:
        """What a task of a kind has: what was said, else so many cores."""
        given, found = self.site.said(kind).get("gpus"), self.gpus if gpus is None else gpus
        return Machine(self.site.number(kind, "cpus", cpus), found if given is None else int(given not in ("0", "")))


def words(*options: object) -> tuple[str, ...]:
    """Options as they are typed."""
    return tuple(str(option) for option in options)


def workspace_options(place: Workspace) -> list[str]:
    """The option that names a workspace; none where nnU-Net's variables do, which jobs get (`workspace_variables`)."""
    root = place.raw.parent
    is_whole = place == Workspace(raw=root / "raw", preprocessed=root / "preprocessed", results=root / "results")
    return ["--workspace", str(root)] if is_whole else []


def workspace_variables(place: Workspace) -> dict[str, str]:
    """The variables that name a workspace where no option does."""
    return {} if workspace_options(place) else environment_of(NNUNET)


def request_options(request: TrainRequest) -> list[str]:
    """A training as options of `selfcfg train`: all but its trainer, settings and fold; it goes on where it was."""
    probabilities = {"none": [], "passing": ["--for-select"], "kept": ["--save-probabilities"]}
    given: dict[str, object] = {
        "--configuration": request.configuration,
        "--planner": request.planner,
        "--name": request.name,
        "--device": request.device,
        "--init": request.init,
        "--reference": request.reference,
        "--previous": request.previous,
        "--label-fraction": None if request.label_fraction == 1 else request.label_fraction,
        "--seed": request.seed or None,
    }
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    words += [word for teacher in request.teachers for word in ("--teacher", str(teacher))]
    for one in request.unlabelled:
        words += ["--unlabelled", f"{one.group}={one.images}" if one.group else str(one.images)]
    return [*words, *probabilities[request.probabilities], "--resume"]


def setting_options(request: TrainRequest) -> list[str]:
    """The trainer of a request and its settings, as they were given on the command line, as options."""
    settings = [word for key, value in request.settings.items() for word in ("--set", f"{key}={value}")]
    return ["--trainer", request.trainer, *settings]


def benchmark_options(wanted: LabelEfficiency) -> list[str]:
    """What a benchmark of label efficiency compares, as options of it."""

    def images(one: Unlabelled) -> str:
        return f"{one.group}={one.images}" if one.group else str(one.images)

    def settings(by_arm: Mapping[str, Mapping[str, Any]]) -> list[str]:
        return [f"{arm}.{key}={value}" for arm, given in by_arm.items() for key, value in given.items()]

    repeated = {
        "--arms": [f"{name}={trainer}" for name, trainer in wanted.arms.items()],
        "--fractions": wanted.fractions,
        "--budgets": [f"{name}={steps}" for name, steps in wanted.budgets.items()],
        "--rates": wanted.rates,
        "--set": [f"{key}={value}" for key, value in wanted.settings.items()],
        "--arm-set": settings(wanted.tuning),
        "--pretrain-set": settings(wanted.pretraining),
        "--unlabelled": [images(one) for one in wanted.unlabelled],
        "--pretrain-on": [f"{arm}:{images(one)}" for arm, some in wanted.further.items() for one in some],
        "--pretrain-from": [f"{arm}:{other}" for arm, other in wanted.pretrain_from.items()],
    }
    once = {
        "--seeds": wanted.seeds,
        "--reference": wanted.reference,
        "--configuration": wanted.configuration,
        "--planner": wanted.planner,
        "--device": wanted.device,
    }
    words = [str(word) for option, values in repeated.items() for value in values for word in (option, value)]
    words += [str(word) for option, value in once.items() if value is not None for word in (option, value)]
    return [*words, *([] if wanted.mirroring else ["--no-mirroring"])]
