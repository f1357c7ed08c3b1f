"""Several processes, the ranks, that train one network together, each on its own rows of one batch.

What is minimised is the mean over ranks of the loss that each computes, and gradients are averaged over ranks. A loss
that is a mean over samples therefore needs nothing from here. One whose samples are counted, or compared with each
other, takes its sums from all ranks by `total`, `mean` and `ratio`, or all samples by `gathered`: every rank then has
the loss of the whole batch, and its derivatives of any order are those of one process. Random numbers are the same on
all ranks, and drawn for the whole batch: `whole` says for how many rows, `own` gives those of this rank.

In validation, whole batches are dealt out to the ranks instead, and nothing is exchanged until a rank is through:
then `collected` and `summed` bring together what each found.

All of it holds within `Ranks.splitting` and `Ranks.spreading`; elsewhere, and in a single process, every function gives
back what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from selfcfg.errors import SelfcfgError, ToldElsewhere

T = TypeVar("T")

BUCKET = 2**25
"""Numbers that gradients are sent in at most at once: 128 MB of float32."""


@dataclass(frozen=True)
class Ranks:
    """One process among those that train together; alone, every method does nothing more than its argument does.

    What is exchanged comes in the same order on all ranks, so each must call the same methods.

    Args:
        rank: of this process, from 0.
        size: their number.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    @contextmanager
    def splitting(self) -> Iterator[None]:
        """Within the block each rank holds its own rows of every batch."""
        token = _SPLIT.set(self)
        try:
            yield
        finally:
            _SPLIT.reset(token)

    @contextmanager
    def spreading(self) -> Iterator[None]:
        """Within the block each rank has whole batches of its own: of all, every one that `size` divides to `rank`."""
        token = _SPREAD.set(self)
        try:
            yield
        finally:
            _SPREAD.reset(token)

    def dealt(self, items: Sequence[T]) -> Sequence[T]:
        """The items that are this rank's, where they are dealt out in turn."""
        return items[self.rank :: self.size]

    def rows(self, count: int) -> range:
        """Which rows of a batch of `count` are this rank's; all ranks have as many."""
        share = count // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def first(self, function: Callable[[], T]) -> T:
        """What a function gives that is called on the first rank alone; the others wait for it.

        Raises:
            SelfcfgError: what it raised there.
            ToldElsewhere: the same on the others.
        """
        if self.size == 1:
            return function()
        box: list[Any] = [None, None]
        failed: SelfcfgError | None = None
        if self.is_first:
            try:
                box[0] = function()
            except SelfcfgError as error:
                failed, box[1] = error, ToldElsewhere.of(error)
        dist.broadcast_object_list(box)
        if failed or box[1]:
            raise failed or box[1]
        found: T = box[0]
        return found

    def in_turn(self, function: Callable[[], T]) -> T:
        """What a function gives on each rank that is called on the first one before: the others find what it made."""
        made: list[T] = []
        self.first(lambda: made.append(function()))
        return made[0] if made else function()

    def shared(self, function: Callable[[], T]) -> T:
        """What a function gives on the first rank, where alone it is called: tensors, in dicts, lists and tuples.

        Raises:
            SelfcfgError: what it raised there.
            ToldElsewhere: the same on the others.
        """
        if self.size == 1:
            return function()
        made: list[T] = []

        def shapes() -> Any:
            made.append(function())
            return _each(made[0], lambda tensor: tensor.to("meta"))

        empty = self.first(shapes)
        found: T = made[0] if made else _each(empty, lambda tensor: torch.empty_like(tensor, device="cpu"))
        _each(found, lambda tensor: dist.broadcast(tensor, 0))
        return found

    def agreed(self, word: str | None) -> str | None:
        """A word on which all agree: that of the lowest rank that says one."""
        if self.size == 1:
            return word
        says = torch.zeros(self.size, dtype=torch.int32)
        says[self.rank] = word is not None
        dist.all_reduce(says)
        if not says.any():
            return None
        return next(one for one in self.gathered([word]) if one is not None)

    def gathered(self, items: Sequence[T]) -> list[T]:
        """The items of all ranks: the first of each rank in turn, then the second of each."""
        if self.size == 1:
            return list(items)
        lists: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(lists, list(items))
        longest = max(len(one) for one in lists)
        return [one[index] for index in range(longest) for one in lists if index < len(one)]

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each value over ranks; all have the same names in the same order."""
        if self.size == 1:
            return dict(values)
        packed = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(packed)
        return dict(zip(values, (packed / self.size).tolist(), strict=True))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Makes each gradient the mean of that of all ranks; one that only some of them have counts 0 on the others."""
        if self.size == 1:
            return
        everything = list(parameters)
        reached = torch.tensor([one.grad is not None for one in everything], dtype=torch.int32)
        dist.all_reduce(reached)
        trained = [one for one, count in zip(everything, reached.tolist(), strict=True) if count]
        for one in trained:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        self.average([one.grad for one in trained if one.grad is not None])

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Makes each tensor the mean of that of all ranks."""
        for bucket in _buckets(tensors) if self.size > 1 else ():
            flat = torch.cat([one.reshape(-1) for one in bucket])
            dist.all_reduce(flat)
            flat /= self.size
            for one, mean in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                one.copy_(mean.view(one.shape))

    @torch.no_grad()
    def make_equal(self, tensors: Iterable[Tensor]) -> None:
        """Gives tensors the values that they have on the first rank."""
        for one in tensors if self.size > 1 else ():
            values = one.detach().contiguous().clone()
            dist.broadcast(values, 0)
            one.copy_(values)


ALONE = Ranks()
"""A single process."""

_SPLIT = ContextVar("split", default=ALONE)
_SPREAD = ContextVar("spread", default=ALONE)


def whole(count: int) -> int:
    """Rows of the whole batch, where this rank has `count`."""
    return count * _SPLIT.get().size


def rows(count: int) -> range:
    """Which rows of the whole batch are the `count` of this rank."""
    return _SPLIT.get().rows(whole(count))


def own(tensor: Tensor) -> Tensor:
    """The rows of this rank, of a tensor with those of the whole batch."""
    ranks = _SPLIT.get()
    mine = ranks.rows(len(tensor))
    return tensor if ranks.size == 1 else tensor[mine.start : mine.stop]


def gathered(tensor: Tensor) -> Tensor:
    """The rows of the whole batch, of a tensor with those of this rank; any derivative reaches every rank's rows.

    Of several ranks, floating-point numbers of lower precision become float32.
    """
    ranks = _SPLIT.get()
    if ranks.size == 1:
        return tensor
    if tensor.dtype == torch.bool:
        return gathered(tensor.to(torch.uint8)) > 0
    if tensor.is_floating_point() and tensor.itemsize < 4:
        return gathered(tensor.float())
    mine, (count, *shape) = ranks.rows(whole(len(tensor))), tensor.shape
    before, after = mine.start, ranks.size * count - mine.stop
    # the sum of rows that are zero elsewhere: unlike a gathering, its derivative is of its own kind
    return total(torch.cat([tensor.new_zeros((before, *shape)), tensor, tensor.new_zeros((after, *shape))]))


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over ranks."""
    if _SPLIT.get().size == 1:
        return tensor
    found: Tensor = _Total.apply(tensor)  # type: ignore[no-untyped-call]
    return found


def mean(values: Tensor) -> Tensor:
    """The mean of the values of all ranks, of which each may have another number."""
    if _SPLIT.get().size == 1:
        return values.mean()
    return ratio(values.sum(), values.numel())


def ratio(sum_: Tensor, count: Tensor | int) -> Tensor:
    """The sum over ranks of a scalar, over that of a count, which is taken for at least 1."""
    if _SPLIT.get().size == 1:
        return sum_ / (max(1, count) if isinstance(count, int) else count.clamp_min(1))
    counted = torch.as_tensor(count, device=sum_.device).to(sum_.dtype)
    packed = total(torch.stack([sum_, counted]))
    return packed[0] / packed[1].clamp_min(1)


def averaged(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The mean of each tensor over ranks, through which any derivative flows; None stays None on all ranks."""
    ranks = _SPLIT.get()
    given = [one for one in tensors if one is not None]
    if ranks.size == 1 or not given:
        return list(tensors)
    flat = total(torch.cat([one.flatten() for one in given])) / ranks.size
    found = iter(torch.split(flat, [one.numel() for one in given]))
    return [None if one is None else next(found).view(one.shape) for one in tensors]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Makes each gradient the mean over ranks: see `Ranks.average_gradients`."""
    _SPLIT.get().average_gradients(parameters)


def number(index: int) -> int:
    """The number among all validation batches of this rank's batch `index`."""
    ranks = _SPREAD.get()
    return index * ranks.size + ranks.rank


def collected(items: Sequence[T]) -> list[T]:
    """What all ranks found of validation batches; of one item a batch, in the order of the batches."""
    return _SPREAD.get().gathered(_each(list(items), _at_hand) if _SPREAD.get().size > 1 else items)


def summed(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """The sum over ranks of what each found of its validation batches, None counting 0; `like` tells the shapes."""
    if _SPREAD.get().size == 1:
        return list(tensors)
    found: list[Tensor | None] = []
    for one, pattern in zip(tensors, like, strict=True):
        sum_ = torch.zeros(pattern.shape, dtype=pattern.dtype, device=pattern.device)
        dist.all_reduce(sum_ if one is None else sum_.copy_(one))
        found.append(None if one is None else sum_)
    return found


class _Total(torch.autograd.Function):
    """The sum over ranks; its derivative is the sum over ranks of what comes back, so that it has any derivative."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        """The sum."""
        found = tensor.contiguous().clone()
        dist.all_reduce(found)
        return found

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        """The sum of the gradients."""
        found: Tensor = _Total.apply(gradient)  # type: ignore[no-untyped-call]
        return found


def _each(item: Any, change: Callable[[Tensor], Any]) -> Any:
    """What a function makes of each tensor in dicts, lists and tuples; the rest as it is."""
    if isinstance(item, Tensor):
        return change(item)
    if isinstance(item, dict):
        return {name: _each(one, change) for name, one in item.items()}
    if isinstance(item, list | tuple):
        changed = [_each(one, change) for one in item]
        return changed if isinstance(item, list) else tuple(changed)
    return item


def _at_hand(tensor: Tensor) -> Tensor:
    """A tensor in the memory of the processor, where it can be sent."""
    return tensor.detach().cpu()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of one type that are sent at once."""
    bucket: list[Tensor] = []
    for one in tensors:
        if bucket and (one.dtype != bucket[0].dtype or sum(map(torch.numel, bucket)) + one.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(one)
    if bucket:
        yield bucket
