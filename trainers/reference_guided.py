"""Pretraining without labels that the segmentation of another, labelled dataset guides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import torch
from pydantic import Field, create_model, model_validator
from torch import Tensor, nn

from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts, Settings, Trainer
from selfcfg.errors import UsageError, nearest
from selfcfg.kernels import ranks
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Configuration, Plan
from selfcfg.trainers.matching import MISMATCH, Alignment, Matching, MatchingSettings, Schedule, total
from selfcfg.trainers.pretext.installed import TASKS, task_tables, why_not_split
from selfcfg.trainers.pretext.task import Task
from selfcfg.trainers.pretraining import PROBE, PROBED, UNLABELLED, Means, PretrainingSettings, Probe
from selfcfg.trainers.supervised import Supervised, SupervisedSettings

PRETEXT, REFERENCE = "pretext", "reference"

WITHOUT_LABELS = tuple(name for name, task in TASKS.items() if not task.need.is_labelled and not task.need.one_channel)
"""The installed tasks that any unlabelled image will do for."""


class GuidedBase(MatchingSettings, PretrainingSettings, SupervisedSettings):
    """The settings of pretraining, of a segmentation's loss, and of how both are brought together."""

    task: str = Field("masked", description=f"what is learnt without labels, of {', '.join(WITHOUT_LABELS)}")
    pretext_weight: float | None = Field(None, ge=0, description="weight of the task's loss; default: the task's own")
    reference_weight: float = Field(1.0, ge=0, description="weight of the segmentation's loss on the reference")

    @model_validator(mode="after")
    def _has_a_task(self) -> Self:
        if self.task not in WITHOUT_LABELS:
            raise ValueError(f"there is no task '{self.task}' without labels, {nearest(self.task, WITHOUT_LABELS)}")
        if not self.weight_of_pretext + self.reference_weight:
            raise ValueError("pretext_weight and reference_weight are both 0; one must be above")
        return self

    @property
    def weight_of_pretext(self) -> float:
        """The weight of the task's loss."""
        return TASKS[self.task].weight if self.pretext_weight is None else self.pretext_weight


GuidedSettings = create_model("GuidedSettings", __base__=GuidedBase, __module__=__name__, **task_tables(WITHOUT_LABELS))
"""The same, with the table of each installed task."""


class ReferenceGuided(Trainer[GuidedBase]):
    """Pretrains encoder and decoder by a task without labels and the segmentation of a labelled reference dataset.

    Both share the encoder, and their gradients on it are matched (`selfcfg.trainers.matching.Matching`). The decoder
    is the segmentation's; a task that paints has one of its own, which is not handed on, nor is the head for the
    reference's labels.

    Source: Xie et al., ReFs: A hybrid pre-training paradigm for 3D medical image segmentation, Medical Image Analysis
    91, 2024: one representation for a task without labels and a supervised reference task, whose gradients on the
    encoder are to be similar. Not known from its abstract, so our choice: the task, the form of the matching, all
    weights, and that the decoder is handed on.
    """

    name: ClassVar[str] = "reference_guided"
    settings_type: ClassVar[type[Settings]] = GuidedSettings
    exports: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    def __init__(
        self, settings: GuidedBase, plan: Plan, configuration: Configuration, datasets: Datasets = OWN
    ) -> None:
        super().__init__(settings, plan, configuration, datasets)
        self.task = self._new_task()
        self._mismatch_weight = 0.0

    @classmethod
    def needs_for(cls, settings: GuidedBase) -> Mapping[str, Need]:
        """Images as the task wants them, labelled patches of the reference, and own ones to probe features on."""
        return {UNLABELLED: TASKS[settings.task].need, REFERENCE: Need(reference=True), PROBE: PROBED}

    @classmethod
    def why_not_split(cls, settings: GuidedBase) -> str:
        """As the task says."""
        return why_not_split([TASKS[settings.task]])

    @classmethod
    def second_order_for(cls, settings: GuidedBase) -> bool:
        """With matching "cosine" and "l2"."""
        return settings.takes_second_order

    @cached_property
    def segmentation(self) -> Supervised:
        """What learns from the reference.

        Raises:
            UsageError: there is none.
        """
        labels = self.datasets.reference
        if labels is None:
            raise UsageError(f"trainer '{self.name}'", "no reference dataset is known", "give Datasets(reference=...)")
        return Supervised(self.settings, self.plan.model_copy(update={"labels": labels}), self.configuration)

    def build(self) -> Parts:
        """Encoder and decoder, the "reference_head", the task's own parts as "pretext", and the "matching"."""
        parts, settings = self.segmentation.build(), self.settings
        parts["reference_head"] = parts.pop("head")
        shared = {"encoder": parts["encoder"]}
        view = nn.ModuleDict(shared)
        if self.task.trains_decoder:
            view["decoder"] = build_parts(self.configuration.topology, self.task.n_inputs, 1)["decoder"]
        self.task.build(view)
        parts[PRETEXT] = nn.ModuleDict({name: part for name, part in view.items() if name not in shared})
        schedule = Schedule(settings.epochs * settings.iterations_per_epoch, settings.clip_norm)
        parts["matching"] = Matching(settings, schedule)
        return parts

    def started(self, parts: Parts) -> None:
        """As the task does."""
        self.task.started(_of_task(parts))

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """The terms by the task's name and the term's, "reference dice" and "reference cross_entropy", "mismatch".

        Together in one group where their gradients are matched to each other, else a group each. The mismatch is 0 in
        steps that do not match.
        """
        matching = _matching(parts)
        self._mismatch_weight = matching.weight()
        tasks = (
            lambda: self._pretext_terms(self.task, parts, batches[UNLABELLED]),
            lambda: self._reference_terms(parts, batches[REFERENCE]),
        )
        yield from matching.groups(tasks, self.weights(), parts["encoder"])

    def weights(self) -> Mapping[str, float]:
        """Those within both losses, times the settings' weights; of the mismatch, that of the present step."""
        settings, within = self.settings, self.task.weights()
        found = {
            f"{self.task.name} {term}": settings.weight_of_pretext * within.get(term, 1.0) for term in self.task.terms
        }
        found |= {
            f"{REFERENCE} {term}": settings.reference_weight * weight
            for term, weight in self.segmentation.weights().items()
        }
        return found | ({MISMATCH: self._mismatch_weight} if settings.takes_second_order else {})

    def after_step(self, parts: Parts) -> None:
        """As the task does."""
        self.task.after_step(_of_task(parts))
        _matching(parts).count_step()

    def validate(self, parts: Parts, batches: Iterable[Mapping[str, Batch]]) -> dict[str, float]:
        """First "reference dice" on cases held out of the reference; then scores of the task, agreement and probe.

        "gradient cosine" and "gradient norm ..." are of the encoder and of the weighted losses of both tasks, each
        averaged over all validation batches.
        """
        self._mismatch_weight = _matching(parts).weight()
        means, probe = Means(), Probe(self.plan.labels, with_decoder=True)
        alignment, asked = Alignment(parts["encoder"], (PRETEXT, REFERENCE)), self._new_task()

        def labelled() -> Iterator[Mapping[str, Batch]]:
            for index, streams in enumerate(batches):
                if UNLABELLED in streams:
                    found = self.task.scores(_of_task(parts), streams[UNLABELLED])
                    means.add({f"{self.task.name} {score}": value for score, value in found.items()})
                if PROBE in streams:
                    probe.add(parts, streams[PROBE])
                if UNLABELLED in streams and REFERENCE in streams:
                    self._align(alignment, asked, parts, streams, ranks.number(index))
                if REFERENCE in streams:
                    yield {"labelled": streams[REFERENCE]}

        dice = self.segmentation.validate(_of_reference(parts), labelled())
        scores = {f"{REFERENCE} {name}": score for name, score in dice.items()}
        return {**scores, **means.values(), **alignment.scores(), "probe": probe.score()}

    def _align(
        self, alignment: Alignment, asked: Task[Any], parts: Parts, streams: Mapping[str, Batch], number: int
    ) -> None:
        """Takes the gradients of one validation batch in; what the task draws depends on its number alone."""
        device = streams[UNLABELLED].image.device
        mixed = torch.autocast(device.type, enabled=torch.is_autocast_enabled(device.type), cache_enabled=False)
        # weights that autocast has kept from the scores have no gradient
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad(), mixed:
            torch.manual_seed(number)
            weights = self.weights()
            pretext = total(self._pretext_terms(asked, parts, streams[UNLABELLED]), weights)
            reference = total(self._reference_terms(parts, streams[REFERENCE]), weights)
            alignment.add(pretext, reference)

    def _pretext_terms(self, task: Task[Any], parts: Parts, batch: Batch) -> dict[str, Tensor]:
        return {f"{task.name} {term}": value for term, value in task.losses(_of_task(parts), batch).items()}

    def _reference_terms(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        (terms,) = self.segmentation.losses(_of_reference(parts), {"labelled": batch})
        return {f"{REFERENCE} {term}": value for term, value in terms.items()}

    def _new_task(self) -> Task[Any]:
        """A task with nothing remembered of earlier batches."""
        settings = self.settings
        return TASKS[settings.task](getattr(settings, settings.task), self.plan, self.configuration)


def _of_task(parts: Parts) -> Parts:
    """The parts as the task knows them."""
    return nn.ModuleDict({"encoder": parts["encoder"], **cast(Parts, parts[PRETEXT])})


def _of_reference(parts: Parts) -> Parts:
    """The parts as the segmentation knows them."""
    return nn.ModuleDict({"encoder": parts["encoder"], "decoder": parts["decoder"], "head": parts["reference_head"]})


def _matching(parts: Parts) -> Matching:
    return cast(Matching, parts["matching"])
