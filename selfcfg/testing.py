"""The contract of trainers as a test: run it on your own, and use the small stand-ins to write further ones.

Example:
    >>> from selfcfg import registry
    >>> check_trainer(registry.load("trainers", "supervised"))
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfcfg.engine.checkpoint import read_weights
from selfcfg.engine.device import machine_facts, package_versions
from selfcfg.engine.randomness import generator
from selfcfg.engine.trainer import Batch, Datasets, Need, Parts, Settings, Trainer
from selfcfg.engine.training.journal import without_curves
from selfcfg.engine.training.loop import fit
from selfcfg.engine.training.optimisation import seed_globals
from selfcfg.fingerprint import ChannelStatistics
from selfcfg.image_targets import ImageTarget
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration, Plan
from selfcfg.runs import RunFolder, RunRecord
from selfcfg.topology import Topology

CPU = torch.device("cpu")
LABELS = LabelSchema(labels={"background": 0, "a": 1, "b": 2})
REFERENCE = LabelSchema(labels={"background": 0, "x": 1, "y": 2, "z": 3})
"""What label values mean in streams of a reference dataset."""

IMAGE_TARGETS = {"kind": ImageTarget(classes=("p", "q", "r")), "age": ImageTarget(unit="years")}
"""Image-level targets: one of classes, and a number."""

DATASETS = Datasets(("first", "second"), ("one", "other"), REFERENCE)


class ContractBroken(AssertionError):
    """A trainer does not do what the contract of trainers promises."""


class BatchBroken(Exception):
    """An interruption in the place of a batch."""


def small_plan(dimensions: int = 3, labels: LabelSchema = LABELS, n_channels: int = 1) -> Plan:
    """A plan with one configuration "small": a network of three stages on patches of 16 voxels a side, batch 2."""
    topology = Topology(
        features=(4, 6, 8),
        kernel_sizes=((3,) * dimensions,) * 3,
        strides=((1,) * dimensions, (2,) * dimensions, (2,) * dimensions),
        encoder_blocks=(1, 1, 1),
        decoder_blocks=(1, 1),
    )
    configuration = Configuration(
        spacing=(1.0,) * dimensions,
        patch_size=(16,) * dimensions,
        batch_size=2,
        median_shape=(24.0,) * dimensions,
        normalization=tuple("zscore" for _ in range(n_channels)),
        use_mask_for_norm=(False,) * n_channels,
        topology=topology,
        batch_dice=False,
    )
    flat = ChannelStatistics(mean=0, std=1, min=-1, max=1, median=0, percentile_00_5=-1, percentile_99_5=1)
    return Plan(
        dataset="Dataset999_Small",
        planner="standard",
        memory_gb=1,
        channels=tuple(f"channel {index}" for index in range(n_channels)),
        labels=labels,
        image_targets=IMAGE_TARGETS,
        axis_order=(0, 1, 2),
        median_spacing=(1.0, 1.0, 1.0),
        median_shape=(24.0, 24.0, 24.0),
        intensities=(flat,) * n_channels,
        mirror_axes=(0, 1, 2)[-dimensions:],
        dimensions=dimensions,
        configurations={"small": configuration},
    )


def small_record(trainer: str, settings: Settings, plan: Plan, seed: int = 0) -> RunRecord:
    """The record of a run of the plan's first configuration on this machine's CPU."""
    return RunRecord(
        dataset=plan.dataset,
        trainer=trainer,
        planner=plan.planner,
        configuration=next(iter(plan.configurations)),
        fold=0,
        settings=settings.model_dump(mode="json"),
        label_fraction=1.0,
        seed=seed,
        init=None,
        plan_hash=plan.content_hash(),
        data_hash="",
        train=("case 0", "case 1"),
        validation=("case 2",),
        versions=package_versions(),
        machine=machine_facts(CPU),
    )


@dataclass
class MemoryBatches:
    """Batches made up in memory: boxes of every label value in noise, the same for the same number.

    Args:
        needs: streams to make, and what they hold.
        configuration: patch and batch size.
        plan: channels and label values.
        validation_iterations: batches of a validation.
        seed: of what they hold.
        broken: number of a training batch in whose place `BatchBroken` is raised, or None.
        is_closed: whether `close` was called.
    """

    needs: Mapping[str, Need]
    configuration: Configuration
    plan: Plan
    validation_iterations: int = 1
    seed: int = 0
    broken: int | None = None
    is_closed: bool = False

    def training(self, first: int, last: int) -> Iterator[dict[str, Batch]]:
        """The batches `first` to `last` - 1."""
        for number in range(first, last):
            if number == self.broken:
                raise BatchBroken(f"batch {number}, as asked for")
            yield self._streams("training", number)

    def validation(self, epoch: int) -> Iterator[dict[str, Batch]]:
        """The validation batches, the same for every epoch."""
        for number in range(self.validation_iterations):
            yield self._streams("validation", number)

    def close(self) -> None:
        """Notes that it was called."""
        self.is_closed = True

    def _streams(self, phase: str, number: int) -> dict[str, Batch]:
        return {
            stream: self.batch(f"{phase}/{stream}", number, need)
            for stream, need in self.needs.items()
            if phase == "validation" or not need.validation_only
        }

    def batch(self, purpose: str, number: int, need: Need) -> Batch:
        """One batch of one stream; what it holds depends on the seed, `purpose` and `number`."""
        rng = generator(self.seed, purpose, number)
        shape, n_sequences = self.configuration.patch_size, need.drawn_in(self.configuration.batch_size)
        size, depth = n_sequences * need.sequence, shape[0] if len(shape) == 3 else 1
        n_channels = 1 if need.one_channel else self.plan.input_channels(self.configuration)
        target = torch.zeros(size, 1, *shape, dtype=torch.int16)
        for sample in target:
            for value in (REFERENCE if need.reference else self.plan.labels).values[1:]:
                corner = [int(rng.integers(0, side // 2)) for side in shape]
                sample[(0, *(slice(start, start + 6) for start in corner))] = value
        views = []
        for _ in range(need.views):
            noise = rng.standard_normal((size, n_channels, *shape), dtype="float32")
            views.append(target + torch.from_numpy(noise) * 0.5)
        sample = torch.arange(size) // need.sequence
        which = (number + sample) % 2
        place = (torch.arange(size) % need.sequence + 1) / (need.sequence + 1)
        return Batch(
            image=views[0],
            target=target if need.targets else None,
            cases=tuple(f"case {index}" for index in which.tolist()),
            views=tuple(views[1:]),
            positions=torch.stack([place, torch.full_like(place, 0.5), torch.full_like(place, 0.5)], 1),
            lengths=torch.full((size,), depth * (need.sequence + 1)),
            domains=which,
            groups=which,
            soft=self._soft(rng, target) if need.soft and purpose.startswith("training") else None,
            image_targets=self._image_targets(size) if need.image_targets else None,
        )

    def _image_targets(self, size: int) -> Tensor:
        """Values that differ from patch to patch; every third patch has none."""
        targets = self.plan.image_targets.values()
        rows = [[float(number % (len(target.classes) or size)) for target in targets] for number in range(size)]
        values = torch.tensor(rows)
        values[2::3] = torch.nan
        return values

    def _soft(self, rng: np.random.Generator, target: Tensor) -> Tensor:
        """What teachers who are unsure say: the probability of each foreground class or region at each voxel."""
        labels = self.plan.labels
        shape = (len(target), labels.n_outputs, *target.shape[2:])
        logits = torch.from_numpy(rng.standard_normal(shape, dtype="float32"))
        for channel, values in enumerate(labels.targets.values(), start=0 if labels.has_regions else 1):
            logits[:, channel : channel + 1] += 3 * torch.isin(target, torch.tensor(values))
        return logits.sigmoid() if labels.has_regions else logits.softmax(1)[:, 1:]


def check_trainer(trainer_type: type[Trainer[Any]], *, datasets: Datasets = DATASETS, **settings: Any) -> None:
    """Holds a trainer to the contract of `selfcfg.engine.trainer`, on small networks in 2D and 3D; takes seconds.

    Its parts are named as promised; every trainable parameter gets a finite gradient; a stream or target that it does
    not declare to need is not read; the same seed builds the same network; and a training that was interrupted and
    continued ends with exactly the weights of an undisturbed one.

    Args:
        trainer_type: a subclass of `Trainer`.
        datasets: that its images without labels are of; batches are of the first two.
        settings: those that it cannot do without.

    Raises:
        ContractBroken: it does something else; says what.
    """
    _require(issubclass(trainer_type, Trainer), f"{trainer_type} is not a subclass of Trainer")
    _require(bool(trainer_type.__doc__), "it has no docstring, whose first line 'selfcfg list trainers' shows")
    _require(issubclass(trainer_type.settings_type, Settings), "settings_type is not a subclass of Settings")
    given = {"epochs": 2, "iterations_per_epoch": 2, "validation_iterations": 1, "precision": "float32", "ema": 0.5}
    for dimensions in (2, 3):
        plan = small_plan(dimensions)
        values = trainer_type.settings_type(**{**given, **settings})
        made = trainer_type(values, plan, plan.configurations["small"], datasets)
        _check_parts(made)
        _check_gradients(made)
        _check_resume(made)


def _check_parts(trainer: Trainer[Any]) -> None:
    parts, again = _built(trainer), _built(trainer)
    exports = trainer.exports_for(trainer.settings)
    _require("encoder" in exports, "'encoder' is not among its exports")
    missing = [name for name in exports if name not in parts]
    _require(not missing, f"exports {missing}, which build() does not make (it makes {list(parts)})")
    for (name, first), second in zip(parts.state_dict().items(), again.state_dict().values(), strict=True):
        _require(torch.equal(first, second), f"'{name}' differs between two networks built with the same seed")


def _check_gradients(trainer: Trainer[Any]) -> None:
    parts, plan, needs = _built(trainer), trainer.plan, trainer.needs_for(trainer.settings)
    offered = {**needs, "not needed": Need()}
    streams = _Watched(next(MemoryBatches(offered, trainer.configuration, plan).training(0, 1)))
    named: set[str] = set()
    for terms in trainer.losses(parts, streams):
        _require(bool(terms), "losses() yields a group without terms")
        for name, term in terms.items():
            _require(
                term.dim() == 0 and bool(torch.isfinite(term)), f"the term '{name}' is not a finite number: {term}"
            )
            named.add(name)
        trainer.backward(terms, parts)
    unknown = set(trainer.weights()) - named
    _require(not unknown, f"weights() names the terms {unknown}, which losses() does not yield")
    unneeded = streams.read - set(needs)
    _require(not unneeded, f"it reads the streams {unneeded}, which are not among its needs")
    for name, parameter in parts.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            _require(gradient is not None, f"the trainable parameter '{name}' gets no gradient")
            _require(
                gradient is None or bool(torch.isfinite(gradient).all()), f"the gradient of '{name}' is not finite"
            )


def _check_resume(trainer: Trainer[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, without_curves():
        undisturbed = _fitted(trainer, RunFolder(Path(folder) / "undisturbed"))
        disturbed = RunFolder(Path(folder) / "disturbed")
        # in the middle of the second epoch, after the first checkpoint
        broken = (trainer.settings.iterations_per_epoch + 1) * trainer.settings.accumulate
        with suppress(BatchBroken):
            _fitted(trainer, disturbed, broken=broken)
        _require(disturbed.last.is_file(), "it left no checkpoint when it was interrupted")
        continued = _fitted(trainer, disturbed)
    _require(set(undisturbed) == set(continued), "an interrupted training ends with other parts")
    for name, tensor in undisturbed.items():
        _require(torch.equal(tensor, continued[name]), f"'{name}' differs after an interruption")


def _fitted(trainer: Trainer[Any], run: RunFolder, broken: int | None = None) -> dict[str, Tensor]:
    made = type(trainer)(trainer.settings, trainer.plan, trainer.configuration, trainer.datasets)
    needs = trainer.needs_for(trainer.settings)
    batches = MemoryBatches(needs, trainer.configuration, trainer.plan, broken=broken)
    fit(made, run, small_record(trainer.name, trainer.settings, trainer.plan), batches, device=CPU, resume=True)
    return read_weights(run.final)[0]


def _built(trainer: Trainer[Any]) -> Parts:
    seed_globals(0, "build", 0)
    return trainer.build()


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractBroken(otherwise)


class _Watched(Mapping[str, Batch]):
    """Batches by stream that note which were read."""

    def __init__(self, batches: Mapping[str, Batch]) -> None:
        self.batches, self.read = batches, set[str]()

    def __getitem__(self, stream: str) -> Batch:
        self.read.add(stream)
        return self.batches[stream]

    def __iter__(self) -> Iterator[str]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
