"""The contract of a training strategy: named parts, loss terms, needs. The loop does everything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from selfcfg.engine.augmentation.transforms import Augmentation
from selfcfg.engine.device import Precision, training_precision
from selfcfg.engine.settings import Settings
from selfcfg.errors import SelfcfgError
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration, Plan

__all__ = ["OWN", "Batch", "Datasets", "Need", "Parts", "Settings", "Teaching", "Trainer"]

Parts = nn.ModuleDict
"""The named parts of a network, "encoder" always among them."""


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Need:
    """What a trainer wants from one stream of batches.

    Args:
        targets: whether it reads `Batch.labels`.
        image_targets: whether it reads `Batch.image_values`; patches are of cases that have such a value.
        views: independently augmented copies of each patch.
        sequence: patches in a row along the first axis of the case, in order and augmented alike but for their noise:
            neighbouring slices for a 2D network, slabs that overlap by half for a 3D one, by more in short cases. They
            are moved in the plane only. A batch holds as many sequences as have its number of patches, at least one.
        shift: how far from the first view the others are taken at most, along each axis of the network, in parts of
            the patch; of a sequence in the plane only.
        one_channel: each patch is one channel of its case, drawn at random, so that the image has one channel.
        validation_only: the stream is read in validation alone.
        soft: whether training reads `Batch.soft`, what teachers say.
        optional: the stream is there only where further images are given (``--unlabelled``).
        reference: patches of the reference dataset (``--reference``), whose labels have a meaning of their own.
        transforms: what its patches are augmented with; None: what the settings say.
    """

    targets: bool = True
    image_targets: bool = False
    views: int = 1
    sequence: int = 1
    shift: float = 0.0
    one_channel: bool = False
    validation_only: bool = False
    soft: bool = False
    optional: bool = False
    reference: bool = False
    transforms: Augmentation | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether it takes anything that was annotated: label maps, or values of whole images."""
        return self.targets or self.image_targets

    def drawn_in(self, batch_size: int) -> int:
        """How many draws make a batch: patches, or sequences of them."""
        return -(-batch_size // self.sequence)

    @property
    def is_training_label(self) -> bool:
        """Whether it takes annotations of the dataset itself to train on."""
        return self.is_labelled and not self.validation_only and not self.reference


@dataclass(frozen=True)
class Batch:
    """Patches of one stream.

    Args:
        image: float32 (B, C, [Z,] Y, X), normalised; the first view. In a cascade its last channels say where the
            stage before saw each foreground value (1, else 0).
        target: int16 (B, 1, [Z,] Y, X) label values, the ignore value included; None in a stream without targets.
        cases: case id of each patch.
        views: further augmented copies of `image`, as many as needed beyond the first.
        positions: float32 (B, 3), where the centre of each patch lies in its case along z, y and x, in parts of its
            lengths; in a stream of sequences the patches of a sequence follow each other.
        lengths: int64 (B,), voxels of the case along z.
        domains: int64 (B,), index of the dataset that each patch is of.
        groups: int64 (B,), index of the group of datasets that this one belongs to.
        soft: float32 (B, F, [Z,] Y, X), the probability that teachers give each foreground class or region, moved as
            the image is and 0 beyond its border; None in validation, and in a stream without teachers.
        image_targets: float32 (B, T), the values of each patch's case for the image-level targets of the plan in order:
            the index of a class or a number, NaN where there is none; None in a stream that does not need them.
    """

    image: Tensor
    target: Tensor | None
    cases: tuple[str, ...]
    views: tuple[Tensor, ...] = ()
    positions: Tensor | None = None
    lengths: Tensor | None = None
    domains: Tensor | None = None
    groups: Tensor | None = None
    soft: Tensor | None = None
    image_targets: Tensor | None = None

    def labels(self) -> Tensor:
        """The target.

        Raises:
            SelfcfgError: the stream was asked for without targets.
        """
        if self.target is None:
            raise SelfcfgError("read the labels of a batch", "its stream has none", "declare Need(targets=True) for it")
        return self.target

    def soft_target(self) -> Tensor:
        """What teachers say.

        Raises:
            SelfcfgError: the stream was asked for without it, or the batch is one of validation.
        """
        if self.soft is None:
            raise SelfcfgError("read the soft targets of a batch", "there are none", "declare Need(soft=True) for it")
        return self.soft

    def image_values(self) -> Tensor:
        """The image-level values.

        Raises:
            SelfcfgError: the stream was asked for without them.
        """
        if self.image_targets is None:
            raise SelfcfgError(
                "read the image-level values of a batch",
                "its stream has none",
                "declare Need(image_targets=True) for it",
            )
        return self.image_targets


@dataclass(frozen=True)
class Datasets:
    """What streams draw from besides the labelled cases of the dataset that is trained for.

    Args:
        names: of the datasets that streams without targets draw from, by their index in `Batch.domains`; the dataset
            that is trained for is the first.
        groups: their names by their index in `Batch.groups`.
        reference: what the label values of the reference dataset mean; None without one.
        scales: mean and standard deviation of each image-level regression over the training cases.
    """

    names: tuple[str, ...] = ("own",)
    groups: tuple[str, ...] = ("own",)
    reference: LabelSchema | None = None
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)


OWN = Datasets()
"""The dataset that is trained for, and no other."""


@dataclass(frozen=True)
class Teaching:
    """How several teachers are made one.

    Args:
        combine: the mean of their probabilities or of their logits.
        weighting: of that mean: the same for all; by what each scores on the cases that it validated, over all classes
            or by class; or the same for those that a greedy choice by the ensemble's score keeps.
        scale: Dice by which a teacher must be better for e times the weight.
        temperature: that logits are divided by.
    """

    combine: Literal["probability", "logit"] = "probability"
    weighting: Literal["uniform", "validation", "per_class", "greedy"] = "uniform"
    scale: float = 0.03
    temperature: float = 1.0


class Trainer(ABC, Generic[S]):
    """One training algorithm; hyper-parameters are its `settings`, never a subclass.

    `needs`, `exports`, `second_order` and `splits` hold for all settings, unless `needs_for`, `exports_for`,
    `second_order_for` and `why_not_split` say otherwise. With `splits`, processes that each hold their own rows of a
    batch do together what one does with the whole of it: see `selfcfg.kernels.ranks`.

    Args:
        settings: typed settings, all of them.
        plan: what the planner decided.
        configuration: the one to train, patch and batch already replaced by the settings' where given.
        datasets: that its unlabelled images are of, and its reference.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Settings]]
    needs: ClassVar[Mapping[str, Need]] = {"labelled": Need()}
    second_order: ClassVar[bool] = False
    splits: ClassVar[bool] = False
    exports: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "head")

    def __init__(self, settings: S, plan: Plan, configuration: Configuration, datasets: Datasets = OWN) -> None:
        self.settings = settings
        self.plan = plan
        self.configuration = configuration
        self.datasets = datasets

    @classmethod
    def needs_for(cls, settings: S) -> Mapping[str, Need]:
        """What it needs with these settings, by stream."""
        return cls.needs

    @classmethod
    def exports_for(cls, settings: S) -> tuple[str, ...]:
        """The parts that it hands on with these settings."""
        return cls.exports

    @classmethod
    def second_order_for(cls, settings: S) -> bool:
        """Whether it takes gradients of gradients with these settings."""
        return cls.second_order

    @classmethod
    def why_not_split(cls, settings: S) -> str:
        """Why several processes cannot share its batches with these settings; empty where they can."""
        return "" if cls.splits else "it is not made for batches that processes share"

    @classmethod
    def segments(cls, settings: S) -> bool:
        """Whether what it hands on predicts label maps; else it only pretrains."""
        return "head" in cls.exports_for(settings)

    @classmethod
    def unlabelled(cls, settings: S) -> list[Need]:
        """The needs of the streams that are drawn from images without labels."""
        return [need for need in cls.needs_for(settings).values() if not need.is_labelled]

    @classmethod
    def takes_reference(cls, settings: S) -> bool:
        """Whether it needs a labelled dataset besides the one that is trained for."""
        return any(need.reference for need in cls.needs_for(settings).values())

    @classmethod
    def labelled(cls, settings: S) -> list[str]:
        """The streams of the dataset itself whose labels it trains on."""
        return [stream for stream, need in cls.needs_for(settings).items() if need.is_training_label]

    def handed_on(self, parts: Parts) -> Parts:
        """Those of its parts that it hands on."""
        return nn.ModuleDict({name: parts[name] for name in self.exports_for(self.settings) if name in parts})

    @classmethod
    def is_taught(cls, settings: S) -> bool:
        """Whether it learns from teachers."""
        return any(need.soft for need in cls.needs_for(settings).values())

    def teaching(self) -> Teaching:
        """How what its teachers say becomes `Batch.soft`."""
        return Teaching()

    def precision(self, device: torch.device) -> Precision:
        """The precision it trains in on a device.

        Raises:
            UsageError: the setting asks for one that computes wrongly there.
        """
        configuration = self.configuration
        return training_precision(device, self.settings.precision, configuration.topology, configuration.patch_size)

    @abstractmethod
    def build(self) -> Parts:
        """The network as named parts; parameters that need no gradient are not given to the optimiser.

        Parts among `exports` that its settings leave out are not handed on.

        Everything that must survive an interruption is a parameter or a buffer of some part. Random numbers come from
        torch's global generator, which was seeded.
        """

    def started(self, parts: Parts) -> None:
        """Called once before the first step, without gradient, after weights were taken over (``--init``).

        Here copies that follow a part are brought to where it is. Not called when a training continues.
        """

    @abstractmethod
    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """Scalar loss terms by name, not weighted; each mapping is one graph, backpropagated before the next is built.

        Runs under autocast, on bare modules in training mode.
        """

    def weights(self) -> Mapping[str, float]:
        """The weight of each loss term by name; a term that is not named has weight 1."""
        return {}

    def backward(self, terms: dict[str, Tensor], parts: Parts) -> None:
        """Turns one group of terms into gradients; the default is the backward pass of their weighted sum."""
        weights = self.weights()
        total = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
        torch.autograd.backward(total)

    def after_step(self, parts: Parts) -> None:
        """Called after each optimiser step, without gradient: momentum encoders, queues."""

    def validate(self, parts: Parts, batches: Iterable[Mapping[str, Batch]]) -> dict[str, float]:
        """Scores on validation batches; "best" and early stopping go by the first, and higher is better.

        Runs without gradient, under autocast, on modules in evaluation mode. NaN: nothing to score.
        """
        return {}
