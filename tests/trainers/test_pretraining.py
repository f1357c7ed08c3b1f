"""What strategies that learn without labels share: their scores, and the probe of their features."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from selfcfg.engine.trainer import Batch, Parts
from selfcfg.labels import LabelSchema
from selfcfg.testing import MemoryBatches, small_plan
from selfcfg.trainers.masked import Masked, MaskedSettings
from selfcfg.trainers.pretraining import PROBE, UNLABELLED, Probe

IGNORE = LabelSchema(labels={"background": 0, "a": 1, "ignore": 2})


class Numbered(Masked):
    """Scores a batch by its first voxel, and reads it from the image itself."""

    exports = ("encoder",)

    def scores(self, parts: Parts, batch: Batch) -> dict[str, torch.Tensor]:
        return {"first": batch.image.flatten()[0]}


def numbered(labels: LabelSchema | None = None) -> Numbered:
    plan = small_plan(2, labels) if labels else small_plan(2)
    return Numbered(MaskedSettings(), plan, plan.configurations["small"])


def parts() -> Parts:
    return torch.nn.ModuleDict({"encoder": Echo()})


class Echo(torch.nn.Module):
    """An encoder whose only features are the image."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image]


def validation(trainer: Numbered, count: int = 4) -> Iterator[dict[str, Batch]]:
    return MemoryBatches(trainer.needs, trainer.configuration, trainer.plan, count).validation(0)


def test_scores_are_means_over_the_batches() -> None:
    trainer = numbered()
    expected = [streams[UNLABELLED].image.flatten()[0].item() for streams in validation(trainer)]
    found = trainer.validate(parts(), validation(trainer))
    assert list(found) == ["first", "probe"]
    assert found["first"] == pytest.approx(sum(expected) / 4)


def test_the_probe_reads_labels_from_features() -> None:
    trainer = numbered()
    sharp = []
    for streams in validation(trainer):
        label = streams[PROBE].labels()
        one_hot = torch.cat([label == value for value in (0, 1, 2)], 1).float()
        sharp.append({PROBE: replace(streams[PROBE], image=one_hot)})
    assert trainer.validate(parts(), sharp) == {"probe": 1.0}
    blind = [{PROBE: replace(streams[PROBE], image=torch.zeros(2, 1, 16, 16))} for streams in sharp]
    assert trainer.validate(parts(), blind)["probe"] == pytest.approx(1 / 3)


def test_voxels_that_are_not_annotated_are_not_probed() -> None:
    trainer = numbered(IGNORE)
    batches = [{PROBE: streams[PROBE]} for streams in validation(trainer)]
    probe = Probe(trainer.plan.labels, with_decoder=False)
    values = torch.cat([probe.voxels(parts(), streams[PROBE], 0)[1] for streams in batches])
    assert set(values.tolist()) == {0, 1}


def test_without_labelled_images_there_is_no_probe() -> None:
    trainer = numbered()
    batches = [{UNLABELLED: streams[UNLABELLED]} for streams in validation(trainer)]
    assert math.isnan(trainer.validate(parts(), batches)["probe"])
    assert list(trainer.validate(parts(), [])) == ["probe"]


def test_the_labels_reach_no_loss() -> None:
    assert Masked.needs[PROBE].validation_only and not Masked.needs[UNLABELLED].targets
    assert not Masked.segments(MaskedSettings()) and not Masked.labelled(MaskedSettings())
