"""Several models of different plans as one: their weighted mean probabilities, decoded, and what is removed after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from selfcfg.engine.data.inputs import refuse_unfit
from selfcfg.engine.data.preprocess import Prepared
from selfcfg.engine.data.store import CaseInfo
from selfcfg.engine.prediction.averaging import Mean, add_weighted, decoded
from selfcfg.engine.prediction.model import Model, Prediction, read_input
from selfcfg.engine.prediction.postprocessing import Step, needs_probabilities, postprocessed, voxel_size
from selfcfg.engine.prediction.quality import Quality
from selfcfg.engine.prediction.uncertainty import Wanted, uncertainty_of_mean
from selfcfg.errors import counted
from selfcfg.files import hash_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import Geometry
from selfcfg.image_targets import ImageLevel
from selfcfg.plan import Plan


@dataclass(frozen=True)
class Member:
    """A model of an ensemble.

    Args:
        name: of its experiment.
        weight: of what it says; of all members together 1.
        outline: the model, with or without its networks: enough to preprocess an image for it.
        identity: of the model.
        preprocessing: what members share that see the same preprocessed image.
        tells: whether it says something of images as a whole.
        load: gives the model with its networks.
    """

    name: str
    weight: float
    outline: Model
    identity: str
    preprocessing: str
    tells: bool
    load: Callable[[], Model]


@dataclass(frozen=True)
class PreparedCase:
    """An image preprocessed for every member; members that see the same share one.

    Args:
        info: what was done to it for the first member.
        images: one a member.
    """

    info: CaseInfo
    images: tuple[Prepared, ...]


@dataclass(frozen=True, repr=False)
class Ensemble:
    """One model or several whose probabilities are averaged, and the steps that follow.

    Args:
        members: at least one; of the same labels and channels.
        steps: what is removed from the label map.
    """

    members: tuple[Member, ...]
    steps: tuple[Step, ...] = ()

    def __repr__(self) -> str:
        names = ", ".join(f"{member.weight:.3g} {member.name}" for member in self.members)
        return f"Ensemble({names}; {counted(len(self.steps), 'step')} after)"

    @property
    def plan(self) -> Plan:
        """Of the first member: labels and channels are those of all."""
        return self.members[0].outline.plan

    @property
    def facts(self) -> Fingerprint | None:
        """Of the training cases."""
        return self.members[0].outline.facts

    @property
    def tells(self) -> bool:
        """Whether all members say something of images as a whole."""
        return all(member.tells for member in self.members)

    @property
    def quality(self) -> Quality | None:
        """That of a single member whose label maps stay as they are: it was fitted on these."""
        return self.members[0].outline.quality if len(self.members) == 1 and not self.steps else None

    @cached_property
    def identity(self) -> str:
        """The hash of everything that makes its predictions, 32 hex digits."""
        members = [(member.identity, member.weight) for member in self.members]
        return hash_json([members, [step.model_dump(mode="json") for step in self.steps]])

    def predict(
        self,
        image: Any,
        *,
        mirroring: bool = True,
        step: float = 0.5,
        probabilities: bool = False,
        uncertainty: bool = False,
    ) -> Prediction:
        """The prediction for one image, see `selfcfg.engine.prediction.model.Model.predict`.

        Raises:
            DataError: the image cannot be read, or is not what the members were trained on.
        """
        case, array, geometry = read_input(image, self.plan)
        refuse_unfit(case, len(array), geometry, self.plan)
        prepared = self.prepare(case, array, geometry)
        wanted: Wanted | None = "all" if uncertainty else None
        return self.predict_prepared(
            prepared, mirroring=mirroring, step=step, probabilities=probabilities, uncertainty=wanted
        )

    def prepare(self, case: str, array: npt.NDArray[Any], geometry: Geometry) -> PreparedCase:
        """An image (C, Z, Y, X) preprocessed once for each way in which its members want it.

        Raises:
            DataError: the image does not fit the plan.
        """
        known: dict[str, Prepared] = {}
        for member in self.members:
            if member.preprocessing not in known:
                known[member.preprocessing] = member.outline.prepare(case, array, geometry)
        images = tuple(known[member.preprocessing] for member in self.members)
        return PreparedCase(images[0].info, images)

    def predict_prepared(
        self,
        prepared: PreparedCase,
        *,
        mirroring: bool = True,
        step: float = 0.5,
        probabilities: bool = False,
        uncertainty: Wanted | None = None,
        told: bool = False,
    ) -> Prediction:
        """The prediction for an image that was preprocessed by `prepare`.

        The steps change the label map alone: the probabilities are those of the members, averaged.

        Args:
            prepared: the image.
            mirroring: also predict mirrored images, where the training mirrored.
            step: largest distance between tiles, in tile lengths.
            probabilities: also give the mean probability of each class.
            uncertainty: what of it is wanted; members disagree as the networks of one do.
            told: show on stderr how far each member is.

        Raises:
            SelfcfgError: see `selfcfg.engine.prediction.model.Model.predict_prepared`, or a member's files are gone.
        """
        several = len(self.members) > 1
        wanted = probabilities or several or needs_probabilities(self.steps) or (uncertainty is not None and self.steps)
        mean: Mean | None = None
        said: list[Prediction] = []
        for member, image in zip(self.members, prepared.images, strict=True):
            one = member.load().predict_prepared(
                image,
                mirroring=mirroring,
                step=step,
                probabilities=bool(wanted),
                uncertainty=uncertainty,
                told=told,
            )
            if several and one.probabilities is not None:
                mean = np.zeros(one.probabilities.shape, dtype=np.float32) if mean is None else mean
                add_weighted(mean, one.probabilities, member.weight)
            said.append(replace(one, probabilities=None) if several else one)
        stack = said[0].probabilities if mean is None else mean
        labels = said[0].labels if mean is None else decoded(mean, self.plan.labels)
        size = voxel_size(said[0].geometry, self.plan.dimensions)
        labels = postprocessed(labels, stack, size, self.plan.labels, self.steps)
        kept = stack.astype(np.float16) if probabilities and stack is not None else None
        unsure = said[0].uncertainty
        if stack is not None and unsure is not None:
            pairs = zip(self.members, said, strict=True)
            parts = [(member.weight, one.uncertainty) for member, one in pairs if one.uncertainty is not None]
            unsure = uncertainty_of_mean(stack, labels, self.plan.labels, parts)
        return Prediction(labels, kept, said[0].geometry, self._image_level(said), unsure)

    def _image_level(self, said: Sequence[Prediction]) -> dict[str, ImageLevel]:
        """The weighted mean of what the members say of the image as a whole, where all of them do."""
        if not self.tells:
            return {}
        weights = [member.weight for member in self.members]
        return {name: _mean_level([one.image_level[name] for one in said], weights) for name in said[0].image_level}


def _mean_level(levels: Sequence[ImageLevel], weights: Sequence[float]) -> ImageLevel:
    first = levels[0]
    if not first.probabilities:
        return ImageLevel(value=sum(w * float(one.value) for one, w in zip(levels, weights, strict=True)))
    mean = {
        name: sum(w * one.probabilities[name] for one, w in zip(levels, weights, strict=True))
        for name in first.probabilities
    }
    return ImageLevel(value=max(mean, key=mean.__getitem__), probabilities=mean)


def without_networks(model: Model) -> Model:
    """What is left of a model when its networks go: enough to preprocess images for it."""
    first = None if model.first is None else without_networks(model.first)
    return replace(model, networks=(), tellers=(), first=first)
