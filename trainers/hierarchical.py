"""Hierarchical pretraining on several datasets: which image, which dataset, which group of datasets, which voxels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from pydantic import Field, model_validator
from torch import Tensor

from selfcfg.engine.augmentation.transforms import Augmentation
from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts, Settings
from selfcfg.errors import SelfcfgError, UsageError
from selfcfg.kernels import ranks
from selfcfg.kernels.contrast import Contrast, spread, two_views
from selfcfg.kernels.probe import linear_probe
from selfcfg.kernels.randomized import randomized
from selfcfg.nets.heads import DenseHead, GlobalHead
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import say
from selfcfg.trainers.masked import MaskedSettings
from selfcfg.trainers.pretext.masked import repainted
from selfcfg.trainers.pretraining import PROBE, PROBED, TILT, UNLABELLED, Pretraining

PLACEMENT = Augmentation(
    rotation_p=0.2, scale_p=0.5, noise_p=0, brightness_p=0, contrast_p=0, low_resolution_p=0.5, gamma_inverted_p=0,
    gamma_p=0, mirror_p=0, rotation_2d=TILT, rotation_3d=TILT,
)  # fmt: skip
"""What batches are augmented with: place and sharpness; intensities are changed by `kernels.randomized`."""

SOLVED = 0.99
"""Accuracy of a classification from which on it teaches nothing more."""

FEW = 8
"""Images in a batch below which the contrast has too few negatives to learn much (our choice)."""

_LEVELS, _LOOKED_AT = 16, 4096
"""Quantiles of an image's intensities that the look for shortcuts is given, and voxels they are taken from at most."""


class HierarchicalSettings(MaskedSettings):
    """The settings of masked reconstruction, and those of the levels above; a level of weight 0 is not computed."""

    transforms: Augmentation = Field(PLACEMENT, description="how often each transform is drawn, and its range")
    contrast_weight: float = Field(1.0, ge=0, description="weight of the contrast of images")
    dataset_weight: float = Field(0.5, ge=0, description="weight of telling which dataset an image is of")
    group_weight: float = Field(0.5, ge=0, description="weight of telling which group of datasets an image is of")
    reconstruction_weight: float = Field(1.0, ge=0, description="weight of the reconstruction of hidden blocks")
    temperature: float = Field(0.1, gt=0, description="that similarities are divided by")
    width: int = Field(128, ge=2, description="length of the vectors that are compared")
    negatives_within_dataset: bool = Field(False, description="compare images with those of their own dataset only")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of a class spread over all, in classification")

    @model_validator(mode="after")
    def _has_a_level(self) -> Self:
        if not self.contrast_weight + self.dataset_weight + self.group_weight + self.reconstruction_weight:
            raise ValueError("the weights of all four levels are 0; one must be above")
        return self


class Hierarchical(Pretraining[HierarchicalSettings]):
    """Pretrains encoder and decoder on several datasets at the levels of image, dataset, group and voxel.

    Four terms, each a setting's weight: the contrast of two views of each image (NT-Xent); the classification of the
    dataset, and of the group of datasets, that an image is of; and the reconstruction of hidden blocks, for the
    decoder. Without a second dataset there is nothing to classify; groups are classified where at least one holds
    several datasets and there are two or more. What has nothing to learn is left out.

    Source: implements the idea of Zheng et al., Hierarchical Self-Supervised Learning for Medical Image Segmentation
    Based on Multi-Domain Data Aggregation, MICCAI 2021: contrastive and classification losses pretrain an
    encoder-decoder on an aggregation of datasets. Details that its abstract does not give are our choice: the four
    levels, their heads and weights, the NT-Xent of Chen et al., SimCLR, 2020, equation 1, and the masked
    reconstruction of He et al., Masked Autoencoders, 2022. Against shortcuts (our choice, too), contrast and
    classification see images of `selfcfg.kernels.randomized`. Patches of the same case are no negatives of each other:
    they may show the same place. Measured on five small datasets: docs/strategies/hierarchical.md.
    """

    name: ClassVar[str] = "hierarchical"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[Settings]] = HierarchicalSettings
    needs: ClassVar[Mapping[str, Need]] = {
        UNLABELLED: Need(targets=False, views=2, shift=0.25, one_channel=True),
        PROBE: replace(PROBED, one_channel=True),
    }

    def __init__(
        self, settings: HierarchicalSettings, plan: Plan, configuration: Configuration, datasets: Datasets = OWN
    ) -> None:
        super().__init__(settings, plan, configuration, datasets)
        self._looks: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._warned: set[str] = set()

    def weights(self) -> Mapping[str, float]:
        """Of the terms that are computed, "contrast", "dataset", "group" and "reconstruction"."""
        return {name: weight for name, weight in self._asked().items() if weight and name not in self._pointless()}

    def build(self) -> Parts:
        """Encoder, and a head for each term: "projection", "dataset", "group"; "decoder" with "reconstruction".

        Raises:
            UsageError: nothing is left to learn.
        """
        self._say_what_to_expect()
        topology, weights = self.configuration.topology, self.weights()
        parts = build_parts(topology, self.n_inputs, 1)
        del parts["head"]
        if "contrast" in weights:
            parts["projection"] = GlobalHead(topology, self.settings.width)
        if "dataset" in weights:
            parts["dataset"] = GlobalHead(topology, len(self.datasets.names))
        if "group" in weights:
            parts["group"] = GlobalHead(topology, len(self.datasets.groups))
        if "reconstruction" in weights:
            parts["reconstruction"] = DenseHead(topology, self.n_inputs)
        else:
            del parts["decoder"]
        return parts

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """Up to two groups: "contrast", "dataset" and "group" in nats; "reconstruction", a mean squared error."""
        batch, weights = batches[UNLABELLED], self.weights()
        if weights.keys() - {"reconstruction"}:
            yield self._image_terms(parts, batch)
        if "reconstruction" in weights:
            yield {"reconstruction": repainted(parts, batch.image, self.settings).error}

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """How well each term is learnt; the same changes and blocks whenever it is asked for.

        "contrast accuracy": share of views whose nearest is the other view of the same patch; "dataset accuracy" and
        "group accuracy"; "explained": share of the hidden voxels' variance that is reconstructed; "spread" of the
        vectors that are compared (0: collapsed).
        """
        weights, found = self.weights(), dict[str, Tensor]()
        if weights.keys() - {"reconstruction"}:
            views = self._views(batch, torch.Generator().manual_seed(0))
            features = parts["encoder"](views)
            if "contrast" in weights:
                vectors = parts["projection"](features)
                found["contrast accuracy"] = self._contrast(vectors, batch).accuracy
            classes = self._classes(batch)
            for name, wanted in classes.items():
                found[f"{name} accuracy"] = (parts[name](features).argmax(1) == wanted.repeat(2)).float().mean()
            if "contrast" in weights:
                found["spread"] = spread(vectors[: len(batch.image)])
            self._looks.append((_levels(views[: len(batch.image)]), {name: one.cpu() for name, one in classes.items()}))
        if "reconstruction" in weights:
            generator = torch.Generator().manual_seed(0)
            found["explained"] = repainted(parts, batch.image, self.settings, generator).explained
        return found

    def validate(self, parts: Parts, batches: Iterable[Mapping[str, Batch]]) -> dict[str, float]:
        """The mean of each score, the probe, and what the accuracy of a classification is to be compared with.

        "... chance" is that of always naming the most frequent class; "... by intensities" is the balanced accuracy of
        a linear classifier that sees nothing but the histogram of the same images, fitted on one half of them and
        scored on the other: near 1, there is a shortcut.
        """
        self._looks.clear()
        found = super().validate(parts, batches)
        looks = ranks.collected(self._looks)
        if not looks:
            return found
        levels = torch.cat([one for one, _ in looks])
        for name in looks[0][1]:
            classes = torch.cat([one[name] for _, one in looks])
            found[f"{name} chance"] = max(Counter(classes.tolist()).values()) / len(classes)
            found[f"{name} by intensities"] = linear_probe(levels, classes, torch.arange(len(classes)) % 2 == 0)
            self._warn(name, found)
        return found

    def _asked(self) -> dict[str, float]:
        """The weight of every term, as the settings have it."""
        return {name: getattr(self.settings, f"{name}_weight") for name in ("contrast", *_CLASSES, "reconstruction")}

    def _pointless(self) -> dict[str, str]:
        """The terms that the datasets leave nothing to learn for, and why."""
        n_datasets, n_groups = len(self.datasets.names), len(self.datasets.groups)
        if n_datasets == 1:
            return dict.fromkeys(_CLASSES, "there is one dataset; --unlabelled names more")
        if n_groups == 1:
            return {"group": "all datasets are of one group"}
        if n_groups == n_datasets:
            return {"group": "each dataset is a group of its own; --unlabelled GROUP=DATASET puts them together"}
        return {}

    def _say_what_to_expect(self) -> None:
        asked = f"train '{self.name}'"
        if not self.weights():
            remedy = "name further datasets with --unlabelled, or give contrast_weight or reconstruction_weight"
            raise UsageError(asked, f"nothing to learn: {'; '.join(dict.fromkeys(self._pointless().values()))}", remedy)
        for name, why in self._pointless().items():
            if self._asked()[name]:
                say(f"{asked}: the classification of the {name} is left out: {why}")
        size = self.configuration.batch_size
        if "contrast" in self.weights() and size < FEW:
            say(f"{asked}: in a batch of {size} the contrast has few negatives; more, smaller patches suit it better")

    def _warn(self, name: str, found: Mapping[str, float]) -> None:
        """Says once that a classification is solved, and beside what to read that."""
        accuracy, chance, plain = (found[f"{name} {what}"] for what in ("accuracy", "chance", "by intensities"))
        if accuracy >= SOLVED and name not in self._warned:
            self._warned.add(name)
            say(
                f"the {name} of an image is recognised: accuracy {accuracy:.2f}, by chance {chance:.2f}, from "
                f"intensities alone {plain:.2f}; within a few epochs this may be a shortcut"
            )

    def _image_terms(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        features, terms = parts["encoder"](self._views(batch)), dict[str, Tensor]()
        if "contrast" in self.weights():
            terms["contrast"] = self._contrast(parts["projection"](features), batch).loss
        for name, wanted in self._classes(batch).items():
            logits, smoothing = parts[name](features).float(), self.settings.label_smoothing
            terms[name] = F.cross_entropy(logits, wanted.repeat(2), label_smoothing=smoothing)
        return terms

    def _views(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Both views of each patch with random intensities, (2 B, 1, [Z,] Y, X), all first views first."""
        return torch.cat([randomized(view, generator) for view in (batch.image, *batch.views)])

    def _contrast(self, vectors: Tensor, batch: Batch) -> Contrast:
        """The contrast of the vectors of both views, (2 B, width), in the whole batch."""
        datasets = _of(batch, "dataset")
        names = zip(datasets.tolist(), batch.cases, strict=True)
        cases = ranks.gathered(torch.tensor([_number_of(*name) for name in names], device=vectors.device))
        usable = cases[:, None] != cases
        datasets = ranks.gathered(datasets)
        if self.settings.negatives_within_dataset:
            usable &= datasets[:, None] == datasets
        first, second = (ranks.gathered(one) for one in vectors.chunk(2))
        return two_views(first, second, self.settings.temperature, usable)

    def _classes(self, batch: Batch) -> dict[str, Tensor]:
        """The class (B,) of each patch, by the name of the classification."""
        return {name: _of(batch, name) for name in _CLASSES if name in self.weights()}


_CLASSES = ("dataset", "group")


def _of(batch: Batch, name: str) -> Tensor:
    """Which dataset or group each patch is of, int64 (B,)."""
    found = batch.domains if name == "dataset" else batch.groups
    if found is None:
        raise SelfcfgError(
            f"read the {name} of each patch", "the batch does not say it", "give Batch.domains and groups"
        )
    return found


def _number_of(dataset: int, case: str) -> int:
    """A number that another case hardly has: the same in every process, in which cases are compared."""
    digest = hashlib.blake2b(f"{dataset}/{case}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _levels(images: Tensor) -> Tensor:
    """Numbers that tell the histogram of images (B, 1, [Z,] Y, X) but not whether it was inverted, (B, `_LEVELS`).

    They are the means of opposite quantiles, without sign, and half the distances between them.
    """
    flat = images.flatten(1).float().cpu()
    ranks = torch.linspace(0, 1, _LEVELS)
    levels = torch.quantile(flat[:, :: -(-flat.shape[1] // _LOOKED_AT)], ranks, dim=1).T
    low, high = levels[:, : _LEVELS // 2], levels.flip(1)[:, : _LEVELS // 2]
    return torch.cat([(high + low).abs(), high - low], 1) / 2
