"""Sequences of slices: what is alike along a volume, what comes first, and what the next slice looks like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, NamedTuple, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts, Settings
from selfcfg.errors import UsageError
from selfcfg.kernels import ranks
from selfcfg.kernels.contrast import Contrast, contrast, in_order, spread
from selfcfg.kernels.masking import hidden_blocks, seen_ahead
from selfcfg.nets.heads import DenseHead, GlobalHead, Queue
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Configuration, Plan
from selfcfg.trainers.momentum import MomentumSettings, add_contrast, follow_both, vectors_of
from selfcfg.trainers.places import Likeness, Places, compared_pairs, place_accuracy
from selfcfg.trainers.pretraining import PROBE, PROBED, UNLABELLED, Pretraining

SEQUENCE = 4
"""Patches of a sequence: six pairs to be ordered, and two patches with a neighbour on either side."""


class SequentialSettings(MomentumSettings):
    """The settings of momentum contrast, and those of the three tasks; a task of weight 0 is left out."""

    contrast_weight: float = Field(1.0, ge=0, description="weight of the contrast within sequences")
    place_weight: float = Field(1.0, ge=0, description="weight of the contrast with the same place of other cases")
    order_weight: float = Field(1.0, ge=0, description="weight of the order of two patches")
    neighbour_weight: float = Field(1.0, ge=0, description="weight of the prediction of both neighbours")
    alike_steps: int = Field(1, ge=0, description="steps along its sequence up to which another patch is alike")
    alike_within: float = Field(
        0.05, gt=0, le=1, description="patches whose places differ by less are at the same, in parts of the case"
    )
    apart_beyond: float = Field(
        0.15, ge=0, le=1, description="patches whose places differ by as much or more are unlike, in parts of the case"
    )
    mask_ratio: float = Field(0.6, gt=0, lt=1, description="share of the blocks hidden before neighbours are predicted")
    mask_block: int = Field(8, ge=1, description="edge of a hidden block in voxels, at most half the patch's")

    @property
    def likeness(self) -> Likeness:
        """When two patches are alike."""
        return Likeness(self.alike_steps, self.alike_within, self.apart_beyond)

    @property
    def contrasts(self) -> bool:
        """Whether vectors are compared at all."""
        return self.contrast_weight + self.place_weight > 0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.contrasts and not self.order_weight + self.neighbour_weight:
            raise ValueError("the weights of contrast, place, order and neighbour are all 0; one must be above")
        if self.alike_within > self.apart_beyond:
            raise ValueError(f"alike_within must not exceed apart_beyond ({self.apart_beyond})")
        return self


class Sequential(Pretraining[SequentialSettings]):
    """Pretrains encoder and decoder by three tasks on sequences of slices: likeness, order and neighbours.

    "contrast": momentum contrast in which a patch is alike to its own second view and to its neighbours in the
    sequence; "place": the same with patches at the same place of other cases of its group of datasets. Patches that
    are near but not alike count neither way. They are two terms, or the many patches at the same place would outweigh
    the few of the sequence. "order": which of two patches of a sequence comes first. "neighbour": the decoder paints
    the patches before and after from one of which blocks are hidden.

    A 2D network sees neighbouring slices, a 3D one slabs that overlap; of a neighbouring slab only those voxels count
    that the network was not shown, so that nothing is gained by copying the overlap.

    What would give a task away is kept out: patches that hang over either end of a case are left out of every term (the
    filled-up part says where they are); for "contrast" and "order" each patch is brought to zero mean and unit
    variance, for intensities that drift along the axis tell the order (a border filled up in the plane still shows a
    little of it); the noise of each patch has a seed of its own.
    Places are parts of the case's length: they suit cases that show about the same region.

    Source: Dong et al., Self-Supervised Multi-Task Representation Learning for Sequential Medical Images, 2021:
    sequences, several pretext tasks, encoder and decoder pretrained together. Their tasks are not known in detail;
    these are our choice. Likeness by place: Zeng et al., Positional Contrastive Learning, 2021. Order: each patch
    gets one number and the difference of two decides (Burges et al., Learning to Rank using Gradient Descent, 2005,
    equation 3): the chance level is one half whatever the sequence, and, unlike the distance of two slices, their order
    cannot be read off how similar they are.
    """

    name: ClassVar[str] = "sequential"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[Settings]] = SequentialSettings
    needs: ClassVar[Mapping[str, Need]] = {
        UNLABELLED: Need(targets=False, views=2, sequence=SEQUENCE, shift=0.1),
        PROBE: PROBED,
    }

    def __init__(
        self, settings: SequentialSettings, plan: Plan, configuration: Configuration, datasets: Datasets = OWN
    ) -> None:
        super().__init__(settings, plan, configuration, datasets)
        self._refuse_short_cases()
        self._keys: list[tuple[Tensor, Tensor]] = []

    def build(self) -> Parts:
        """Encoder, and by the tasks: "projection", slow copies and "queue"; "ranking"; decoder and "neighbours"."""
        topology, settings = self.configuration.topology, self.settings
        parts = build_parts(topology, self.n_inputs, 1)
        del parts["head"]
        if settings.contrasts:
            add_contrast(parts, topology, settings, tags=4)
        if settings.order_weight:
            parts["ranking"] = GlobalHead(topology, 1)
        if settings.neighbour_weight:
            parts["neighbours"] = DenseHead(topology, 2 * self.n_inputs)
        else:
            del parts["decoder"]
        return parts

    def weights(self) -> Mapping[str, float]:
        """As the settings say."""
        settings = self.settings
        weights = {
            "contrast": settings.contrast_weight,
            "place": settings.place_weight,
            "order": settings.order_weight,
            "neighbour": settings.neighbour_weight,
        }
        return {name: weight for name, weight in weights.items() if weight}

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """Two groups: "contrast", "place", "order", in nats; "neighbour", mean squared error of about unit variance."""
        batch, settings = batches[UNLABELLED], self.settings
        places = Places.of(batch)
        terms: dict[str, Tensor] = {}
        if settings.contrasts or settings.order_weight:
            features = parts["encoder"](standardised(batch.image))
            if settings.contrasts:
                compared, vectors = self._compared(parts, features, batch, places)
                self._keys.append((vectors[places.whole], places.tags[places.whole]))
                terms |= {name: one.loss for name, one in compared.items()}
            if settings.order_weight:
                terms["order"] = self._ordered(parts, features, places).loss
            yield terms
        if settings.neighbour_weight:
            yield {"neighbour": self._painted(parts, batch, places).error}

    def after_step(self, parts: Parts) -> None:
        """The slow copies follow, and the keys of this step go into the queue with their places."""
        if self.settings.contrasts:
            follow_both(parts, self.settings.follow)
            vectors, tags = (torch.cat(column) for column in zip(*self._keys, strict=True))
            cast(Queue, parts["queue"]).push(vectors, tags)
            self._keys.clear()

    def started(self, parts: Parts) -> None:
        """The slow copies begin where the first encoder and its projection do, which may have been taken over."""
        if self.settings.contrasts:
            follow_both(parts, 0)

    def validate(self, parts: Parts, batches: Iterable[Mapping[str, Batch]]) -> dict[str, float]:
        """Numbers of the tasks that are on, "best" going by the first of them, and the probe.

        "explained" is the share of the neighbours' variance that is painted, "explained by copying" what copying the
        nearest slice shown would give; "order accuracy" is 0.5 by chance; "contrast accuracy" is the share of patches
        whose most similar one is alike; "place accuracy" tells how much nearer than by chance (0) the most similar
        training patch lies, as seen along the first axis (1: at the same place); "spread" is 0 for collapsed vectors.
        """
        found = super().validate(parts, batches)
        if "variance" not in found:
            return found
        # of the means, for a batch of slices that hold little but air has hardly any variance
        variance = max(found.pop("variance"), 1e-8)
        shares = {"explained": "error", "explained by copying": "error of copying"}
        return {**{name: 1 - found.pop(error) / variance for name, error in shares.items()}, **found}

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """What `validate` averages of one batch."""
        settings, places = self.settings, Places.of(batch)
        found: dict[str, Tensor] = {}
        if settings.neighbour_weight:
            painted = self._painted(parts, batch, places, torch.Generator().manual_seed(0))
            if painted.known:
                found |= {"error": painted.error, "error of copying": painted.of_copying, "variance": painted.variance}
        if not places.whole.any() or not (settings.contrasts or settings.order_weight):
            return found
        features = parts["encoder"](standardised(batch.image))
        if settings.order_weight:
            found["order accuracy"] = self._ordered(parts, features, places).accuracy
        if settings.contrasts:
            compared, vectors = self._compared(parts, features, batch, places)
            if "contrast" in compared:
                found["contrast accuracy"] = compared["contrast"].accuracy
            queue = cast(Queue, parts["queue"])
            found |= place_accuracy(vectors[places.whole], places.tags[places.whole], queue)
            found["spread"] = spread(vectors[places.whole])
        return found

    def _compared(
        self, parts: Parts, features: list[Tensor], batch: Batch, places: Places
    ) -> tuple[dict[str, Contrast], Tensor]:
        """The contrasts that are on, of a batch with its second views and the queue, and the second views' vectors."""
        settings, queue = self.settings, cast(Queue, parts["queue"])
        queries, keys = vectors_of(parts, features, standardised(batch.views[0]), places.whole)
        pairs = compared_pairs(places, queue, SEQUENCE, settings.likeness)
        everything = torch.cat([keys, queue.vectors])
        wanted = {"contrast": pairs.in_sequence, "place": pairs.at_place}
        weights = self.weights()
        found = {
            name: contrast(queries, everything, positive, settings.temperature, pairs.unlike)
            for name, positive in wanted.items()
            if name in weights
        }
        return found, keys

    def _ordered(self, parts: Parts, features: list[Tensor], places: Places) -> Contrast:
        """The order within each sequence, of patches that lie inside their case."""
        numbers = ranks.gathered(parts["ranking"](features)).view(-1, SEQUENCE)
        return in_order(numbers, places.whole.view(-1, SEQUENCE))

    def _painted(
        self, parts: Parts, batch: Batch, places: Places, generator: torch.Generator | None = None
    ) -> _Painted:
        """How well the neighbours of each patch are painted, over the voxels that it was not shown."""
        image, settings = batch.image, self.settings
        slices, inside = ranks.own(places.slices), ranks.own(places.whole)
        hidden = hidden_blocks(image, settings.mask_block, settings.mask_ratio, generator)
        features = parts["decoder"](parts["encoder"](image.masked_fill(hidden, 0)))
        before, after = parts["neighbours"](features).float().chunk(2, 1)
        numbers = torch.arange(len(image), device=image.device).view(-1, SEQUENCE)
        left, right = numbers[:, :-1].flatten(), numbers[:, 1:].flatten()
        found = []
        for painted, here, there in ((after, left, right), (before, right, left)):
            steps = slices[there] - slices[here]
            copied, shown = seen_ahead(image[here], hidden[here], steps)
            whole = (inside[here] & inside[there]).view(-1, *[1] * (image.dim() - 1))
            counted = (~shown & whole).expand_as(copied)
            found.append((painted[here][counted], image[there][counted].float(), copied[counted].float()))
        return _Painted(*(torch.cat(column) for column in zip(*found, strict=True)))

    def _refuse_short_cases(self) -> None:
        """Before anything is trained: patches need neighbours, and slabs must differ from theirs."""
        size, flat = self.configuration.patch_size, self.configuration.dimensions == 2
        length = int(self.plan.median_shape[0] if flat else self.configuration.median_shape[0])
        if length >= _least_length(1 if flat else size[0]):
            return
        divisor = 1 if flat else self.configuration.topology.divisors[0]
        fitting = max(divisor, length // 2 // divisor * divisor)
        asked, remedy = "train with sequential", "choose another trainer, such as masked"
        if flat or _least_length(fitting) > length:
            raise UsageError(asked, f"half of the cases have {length} slices or fewer: no neighbours", remedy)
        thinner = ",".join(str(edge) for edge in (fitting, *size[1:]))
        found = f"patches are {size[0]} slices deep, half of the cases have {length} or fewer: no neighbours"
        raise UsageError(asked, found, f"give thinner patches: --set patch_size={thinner}")


def _least_length(depth: int) -> int:
    """Slices that a case needs for a sequence of slabs, each at least an eighth of its depth after the one before."""
    return depth + (SEQUENCE - 1) * max(1, depth // 8)


def standardised(image: Tensor) -> Tensor:
    """Patches (B, C, [Z,] Y, X) with zero mean and unit variance in each channel."""
    axes = tuple(range(2, image.dim()))
    deviation = image.std(axes, correction=0, keepdim=True).clamp_min(1e-3)
    return (image - image.mean(axes, keepdim=True)) / deviation


class _Painted(NamedTuple):
    """The voxels of neighbours that count, one after the other.

    Args:
        painted: by the network.
        wanted: what they are.
        copied: the nearest slice that was shown.
    """

    painted: Tensor
    wanted: Tensor
    copied: Tensor

    @property
    def known(self) -> int:
        """Their number."""
        return len(self.wanted)

    @property
    def error(self) -> Tensor:
        """The mean squared error; 0 without voxels."""
        return ranks.ratio((self.painted - self.wanted).square().sum(), self.known)

    @property
    def of_copying(self) -> Tensor:
        """The mean squared error of what copying gives."""
        return (self.copied - self.wanted).square().mean()

    @property
    def variance(self) -> Tensor:
        """Their variance."""
        return self.wanted.var(correction=0)
