"""Batches of patches for training and validation, whose content depends on nothing but the seed and their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from selfcfg.engine.augmentation.previous_stage import Faults, draw_faults, spoil
from selfcfg.engine.augmentation.transforms import UNCHANGED, AugmentDraw, PatchSpace, View, apply, draw
from selfcfg.engine.data.sampling import (
    OUTSIDE_IMAGE,
    OUTSIDE_LABEL,
    OneChannel,
    PatchWish,
    Sliceable,
    draw_case,
    draw_domain,
    draw_sequence,
    draw_shifts,
    is_foreground,
    moved,
    read_box,
    relative_position,
)
from selfcfg.engine.data.source import Domain, Phase, Source
from selfcfg.engine.data.store import Store, StoredCase
from selfcfg.engine.data.workers import Tell, WorkerPool, make_here
from selfcfg.engine.randomness import generator, noise_field
from selfcfg.engine.trainer import Batch, Need, Settings
from selfcfg.errors import DataError, UsageError
from selfcfg.geometry import Shape
from selfcfg.kernels.ranks import ALONE, Ranks
from selfcfg.plan import Configuration, Plan

_OPENED = 64
"""Cases a process keeps the foreground locations of."""


class Batches:
    """Training and validation batches of every stream, loaded ahead by worker processes.

    On a CPU the workers also augment; on an accelerator they read, and this process augments on the device. With
    executor "batchgenerators" the workers always augment. The numbers drawn are the same in every case, and on a CPU
    so is every bit of the batches, whatever the number of workers.

    Args:
        sources: stream name to where its patches come from.
        settings: of the trainer; batch and patch size are the configuration's.
        configuration: the one trained.
        plan: what the configuration belongs to.
        device: where batches are put.
        seed: of the run.
        ranks: this process among those that share each training batch by rows; validation batches are dealt out.

    Raises:
        UsageError: a stream has no training cases.
    """

    def __init__(  # noqa: PLR0917 - each is a fact of its own, and there is one caller
        self,
        sources: Mapping[str, Source],
        settings: Settings,
        configuration: Configuration,
        plan: Plan,
        device: torch.device,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        for stream, source in sources.items():
            if not source.need.validation_only and not source.drawn_from("training"):
                raise UsageError(f"train on stream '{stream}'", "it has no training cases", "check the split")
        self._content = _Content(sources, settings, configuration, plan, device, seed, ranks)
        self._settings, self._device = settings, device
        self._pools: dict[Phase, WorkerPool[_Number, _Made]] = {}

    def training(self, first: int, last: int) -> Iterator[dict[str, Batch]]:
        """Yields the batches of iterations `first` to `last` - 1; workers are started once and serve all of them.

        Raises:
            DataError: a stored case cannot be read; names it.
            WorkerDied: a worker process ended; names the case it was on and the likely cause.
        """
        return self._batches("training", (_Number("training", index) for index in range(first, last)))

    def validation(self, epoch: int) -> Iterator[dict[str, Batch]]:
        """Yields `settings.validation_iterations` batches, not augmented, always the same for the same epoch.

        Nothing is yielded when no stream has validation cases.

        Raises:
            DataError: a stored case cannot be read; names it.
            WorkerDied: a worker process ended; names the case it was on and the likely cause.
        """
        count = self._settings.validation_iterations if self._content.streams("validation") else 0
        if not count:
            return iter(())  # no worker is started for nothing
        numbers = (_Number("validation", epoch, index) for index in self._content.ranks.dealt(range(count)))
        return self._batches("validation", numbers)

    def close(self) -> None:
        """Ends all worker processes; asking for batches again starts new ones."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batches(self, phase: Phase, numbers: Iterable[_Number]) -> Iterator[dict[str, Batch]]:
        for made in self._made(phase, numbers):
            yield {stream: self._batch(part, self._content.sources[stream]) for stream, part in made.items()}

    def _made(self, phase: Phase, numbers: Iterable[_Number]) -> Iterator[_Made]:
        workers = self._settings.workers if phase == "training" else (self._settings.workers + 1) // 2
        if not workers:
            return make_here(self._content, numbers)
        if phase not in self._pools:
            self._pools[phase] = WorkerPool(self._content, workers, __name__, pin=self._device.type == "cuda")
        return self._pools[phase].iterate(numbers)

    def _batch(self, part: _Read | _Ready, source: Source) -> Batch:
        ready = part if isinstance(part, _Ready) else self._content.finish(part)
        first, *others = (image.to(self._device, non_blocking=True) for image in ready.images)
        target, soft, values = (
            None if part is None else part.to(self._device, non_blocking=True)
            for part in (ready.target, ready.soft, source.image_targets(ready.cases))
        )
        columns = (torch.tensor(column, device=self._device) for column in zip(*ready.places, strict=True))
        positions, lengths, domains, groups = columns
        placed = (positions.to(torch.float32), lengths, domains, groups)
        return Batch(first, target, tuple(ready.cases), tuple(others), *placed, soft, values)


class _Number(NamedTuple):
    """Which batch: the iteration of training, or the epoch and the batch in it of validation."""

    phase: Phase
    first: int
    second: int = 0


class _Place(NamedTuple):
    """Where a patch is from: its place in its case, the case's length, the dataset, the group of datasets."""

    position: tuple[float, ...]
    length: int
    domain: int
    group: int


class _Read(NamedTuple):
    """A batch as it was read: for each sample, its views before their draws are applied."""

    cases: list[str]
    places: list[_Place]
    samples: list[Sequence[View]]
    need: Need
    space: PatchSpace


class _Ready(NamedTuple):
    """A finished batch: the image (B, C, *patch) of each view, target (B, 1, *patch) and soft target, or None."""

    cases: Sequence[str]
    places: Sequence[_Place]
    images: Sequence[Tensor]
    target: Tensor | None
    soft: Tensor | None = None


_Made = dict[str, _Read | _Ready]


@dataclass
class _Content:
    """Makes batches by number; the same in this process and, pickled, in every worker."""

    sources: Mapping[str, Source]
    settings: Settings
    configuration: Configuration
    plan: Plan
    device: torch.device
    seed: int
    ranks: Ranks = ALONE
    opened: dict[tuple[Path, str], StoredCase] = field(default_factory=dict)

    def space_of(self, source: Source) -> PatchSpace:
        """The patches of a stream."""
        need, space = source.need, PatchSpace.of(self.configuration, source.plan or self.plan)
        space = replace(space, masked=(False,)) if need.one_channel else space
        return space.in_stack() if need.sequence > 1 else space

    @property
    def in_workers(self) -> bool:
        """Whether batches are finished where they are read."""
        return self.device.type == "cpu" or self.settings.executor == "batchgenerators"

    def __call__(self, number: _Number, tell: Tell) -> _Made:
        reads = ((stream, self._read(stream, number, tell)) for stream in self.streams(number.phase))
        return {stream: self.finish(read) if self.in_workers else read for stream, read in reads}

    def streams(self, phase: Phase) -> list[str]:
        return [stream for stream, source in self.sources.items() if source.drawn_from(phase)]

    def finish(self, read: _Read) -> _Ready:
        """Carries out the draws."""
        execute, device = _executor(self.settings.executor), torch.device("cpu") if self.in_workers else self.device
        count = len(read.space.masked)
        done = [[execute(view.to(device), read.space) for view in views] for views in read.samples]
        images = tuple(
            torch.stack([self._input(image[:count], labels) for image, labels in column])
            for column in zip(*done, strict=True)
        )
        targets = [labels[:1] for (_, labels), *_ in done if labels is not None]
        target = torch.stack(targets) if read.need.targets else None
        soft = torch.stack([image[count:] for (image, _), *_ in done])
        return _Ready(read.cases, read.places, images, target, soft if soft.shape[1] else None)

    def _input(self, image: Tensor, labels: Tensor | None) -> Tensor:
        """The image and, in a cascade, where the previous stage saw each foreground value."""
        if labels is None or len(labels) == 1:
            return image
        return torch.cat([image, *(labels[1:] == value for value in self.plan.labels.foreground_values)])

    def _read(self, stream: str, number: _Number, tell: Tell) -> _Read:
        source = self.sources[stream]
        need = source.need
        read = _Read([], [], [], need, self.space_of(source))
        sharing = self.ranks if number.phase == "training" else ALONE
        for place in sharing.rows(need.drawn_in(self.configuration.batch_size)):
            rng = generator(self.seed, f"{number.phase}/{stream}", number.first, number.second, place)
            index = draw_domain(rng, source.drawn_from(number.phase))
            domain = source.domains[index]
            name = draw_case(rng, domain.cases(number.phase))
            tell(name)
            case = self._open(domain, name, need)
            channel = int(rng.integers(case.image.shape[0])) if need.one_channel else None
            soft = domain.soft_targets(name) if need.soft and number.phase == "training" else None
            wish = self._wish(place, source)
            corners = draw_sequence(rng, case, wish, need.sequence)
            draws = [self._draw(rng, source, number.phase) for _ in range(need.views)]
            shifts = draw_shifts(rng, self.configuration.patch_size, need)
            for step, corner in enumerate(corners):
                read.cases.append(name)
                position = relative_position(corner, wish.size, case)
                read.places.append(_Place(position, case.image.shape[1], index, domain.group))
                readers = [_Reader(source, case, moved(corner, shift), channel, step, soft) for shift in shifts]
                read.samples.append([self._view(*one) for one in zip(readers, draws, strict=True)])
        return read

    def _open(self, domain: Domain, name: str, need: Need) -> StoredCase:
        key = (domain.store_folder, name)
        if key not in self.opened:
            if len(self.opened) >= _OPENED:
                self.opened.pop(next(iter(self.opened)))
            case = Store(domain.store_folder).open(name)
            if need.targets and case.label is None:
                raise DataError(f"train on case '{name}'", "it has no label", "take it out of the training cases")
            self.opened[key] = case
        return self.opened[key]

    def _wish(self, place: int, source: Source) -> PatchWish:
        need, size, labels = source.need, self.configuration.patch_size, (source.plan or self.plan).labels
        z, y, x = size if len(size) == 3 else (1, *size)
        foreground = is_foreground(place, self.configuration.batch_size, self.settings.foreground_fraction)
        return PatchWish((z, y, x), need.targets and foreground, need.targets and labels.ignore is not None)

    def _draw(self, rng: np.random.Generator, source: Source, phase: Phase) -> _Draws:
        if phase == "validation" or self.settings.augmentation == "none":
            return UNCHANGED, Faults()
        transforms = source.need.transforms or self.settings.transforms
        one = draw(rng, self.space_of(source), transforms)
        if source.previous is None:
            return one, Faults()
        return one, draw_faults(rng, self.plan.labels.foreground_values, transforms)

    def _view(self, reader: _Reader, draws: _Draws) -> View:
        source, case, (one, faults) = reader.source, reader.case, draws
        space = self.space_of(source)
        box = one.source_box(space)
        is_flat = len(box) == 2
        whole = ((0, 1), *box) if is_flat else box
        image, label, noise = reader.image(whole), None, None
        if case.label is not None and (source.need.targets or any(space.masked)):
            label = read_box(case.label, reader.corner, whole, OUTSIDE_LABEL)[None]
        if (stored := source.previous_labels(case.folder.name)) is not None:
            previous = spoil(read_box(stored, reader.corner, whole, OUTSIDE_LABEL).numpy(), faults)
            found = torch.from_numpy(previous)[None]
            label = torch.cat([torch.zeros_like(found) if label is None else label, found])
        if one.noise is not None:
            noise = torch.from_numpy(noise_field(one.noise[1] + reader.step, (len(image), *space.patch_size)))
        if reader.soft is not None:
            image = torch.cat([image, read_box(reader.soft, reader.corner, whole, OUTSIDE_IMAGE)])
        if is_flat:
            image, label = image[:, 0], None if label is None else label[:, 0]
        return View(image, label, noise, one)


_Draws = tuple[AugmentDraw, Faults]


class _Reader(NamedTuple):
    """One patch of a case.

    Args:
        source: of the stream.
        case: that is open.
        corner: first voxel of the patch in it.
        channel: the one to read; None: all.
        step: its number in its sequence.
        soft: what teachers say of the case, or None.
    """

    source: Source
    case: StoredCase
    corner: Shape
    channel: int | None
    step: int
    soft: Sliceable | None = None

    def image(self, box: Sequence[tuple[int, int]]) -> Tensor:
        """A box of the image, (C, *box)."""
        stored = self.case.image
        return read_box(
            stored if self.channel is None else OneChannel(stored, self.channel), self.corner, box, OUTSIDE_IMAGE
        )


def _executor(
    name: Literal["torch", "batchgenerators"],
) -> Callable[[View, PatchSpace], tuple[Tensor, Tensor | None]]:
    """What carries out a draw, giving image and label; batchgenerators is imported only when it is asked for."""
    if name == "torch":
        return apply
    from selfcfg.engine.augmentation.with_batchgenerators import apply_with_batchgenerators  # noqa: PLC0415

    return apply_with_batchgenerators
