"""Sequences of slices: which are alike by their place, what the tasks count, and which parts each of them needs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfcfg.engine.checkpoint import load_state, read_weights
from selfcfg.engine.trainer import Batch, Parts
from selfcfg.engine.training.loop import fit
from selfcfg.engine.training.optimisation import Optimisation, seed_globals
from selfcfg.errors import DataError, UsageError
from selfcfg.nets.heads import Queue
from selfcfg.runs import RunFolder
from selfcfg.testing import CPU, BatchBroken, MemoryBatches, small_plan, small_record
from selfcfg.trainers.places import Likeness, Pairs, Places, compared_pairs
from selfcfg.trainers.sequential import (
    SEQUENCE,
    Sequential,
    SequentialSettings,
    standardised,
)

CONTRASTS = {"projection", "slow_encoder", "slow_projection", "centre", "queue"}
TASKS = {"contrast": CONTRASTS, "place": CONTRASTS, "order": {"ranking"}, "neighbour": {"decoder", "neighbours"}}
every_task = pytest.mark.parametrize("task", TASKS)


def sequential(dimensions: int = 2, **settings: object) -> Sequential:
    plan = small_plan(dimensions)
    return Sequential(SequentialSettings(**settings), plan, plan.configurations["small"])


def only(task: str) -> dict[str, float]:
    return {f"{name}_weight": float(name == task) for name in TASKS}


def one_batch(trainer: Sequential, number: int = 0) -> dict[str, Batch]:
    return next(MemoryBatches(trainer.needs, trainer.configuration, trainer.plan).training(number, number + 1))


def built(trainer: Sequential) -> Parts:
    seed_globals(0, "build", 0)
    return trainer.build()


def places(z: list[float], group: int = 0, whole: bool = True) -> Places:
    tags = torch.tensor([[at, 0.5, 0.5, group] for at in z])
    return Places(tags, torch.arange(len(z)), torch.full((len(z),), whole))


def filled_queue(*tags: tuple[float, float, float, int]) -> Queue:
    queue = Queue(len(tags) + 1, 2, tags=4)
    queue.push(torch.ones(len(tags), 2), torch.tensor(tags, dtype=torch.float32))
    return queue


# --- alike by place ---------------------------------------------------------------------------------------------------


def compared(own: Places, queue: Queue, steps: int = 1) -> Pairs:
    return compared_pairs(own, queue, SEQUENCE, Likeness(steps, within=0.05, apart=0.15))


def test_what_is_alike_and_what_is_unlike_worked_by_hand() -> None:
    queue = filled_queue((0.12, 0.5, 0.5, 0), (0.22, 0.5, 0.5, 0), (0.8, 0.5, 0.5, 0), (0.1, 0.5, 0.5, 1))
    found = compared(places([0.1, 0.2, 0.3, 0.4]), queue)
    # its own view and one step on
    assert torch.nonzero(found.in_sequence[0]).flatten().tolist() == [0, 1]
    # the first of the queue; the second is near, the third far, the fourth of another group, the fifth place empty
    assert torch.nonzero(found.at_place[0]).flatten().tolist() == [4]
    # of its sequence what is two steps on, one step being near
    assert torch.nonzero(found.unlike[0]).flatten().tolist() == [2, 3, 6, 7]


def test_the_same_height_elsewhere_in_the_plane_is_another_place() -> None:
    found = compared(places([0.1] * 4), filled_queue((0.1, 0.9, 0.5, 0)))
    assert not found.at_place[0, 4] and found.unlike[0, 4]


def test_sequences_of_other_cases_are_compared_by_place_not_by_step() -> None:
    found = compared(places([0.1, 0.2, 0.3, 0.4, 0.41, 0.6, 0.7, 0.8]), Queue(1, 2, 4))
    assert torch.nonzero(found.in_sequence[3]).flatten().tolist() == [2, 3]
    assert torch.nonzero(found.at_place[3]).flatten().tolist() == [4]


def test_without_steps_only_the_own_second_view_is_alike_in_the_sequence() -> None:
    found = compared(places([0.1] * 4), Queue(1, 2, 4), steps=0)
    assert torch.equal(found.in_sequence[:, :4], torch.eye(4, dtype=torch.bool))
    assert not found.at_place.any() and not found.unlike.any()


def test_patches_that_hang_over_an_end_are_not_compared() -> None:
    found = compared(places([0.1] * 4, whole=False), filled_queue((0.1, 0.5, 0.5, 0), (0.9, 0.5, 0.5, 0)))
    assert not any(pairs.any() for pairs in found)


def test_a_patch_is_whole_where_its_case_has_all_its_slices() -> None:
    depth, length = 4, 6
    first = torch.tensor([-1, 0, 2, 3])
    centres = (first + depth / 2) / length
    positions = torch.stack([centres, centres * 0 + 0.5, centres * 0 + 0.5], 1)
    zeros = torch.zeros(4, dtype=torch.int64)
    batch = Batch(torch.zeros(4, 1, depth, 8, 8), None, ("a",) * 4, (), positions, zeros + length, zeros, zeros)
    found = Places.of(batch)
    assert found.slices.tolist() == first.tolist() and found.whole.tolist() == [False, True, True, False]


def test_drifting_intensities_are_gone() -> None:
    image = torch.randn(3, 2, 8, 8)
    drift = torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1, 1)
    torch.testing.assert_close(standardised(image), standardised(image * drift + 3 * drift), atol=1e-5, rtol=1e-5)
    assert torch.equal(standardised(torch.ones(1, 1, 4, 4)), torch.zeros(1, 1, 4, 4))


# --- what the neighbour task counts -----------------------------------------------------------------------------------


def counted_error(dimensions: int, image: Tensor, lengths: int | None = None) -> float:
    """The error of a network that paints zeros, where a single voxel is hidden."""
    trainer = sequential(dimensions, **only("neighbour"), mask_ratio=1e-6, mask_block=1)
    parts, batch = built(trainer), one_batch(trainer)["unlabelled"]
    for parameter in parts["neighbours"].parameters():
        torch.nn.init.zeros_(parameter)
    batch = replace(batch, image=image.expand(SEQUENCE, 1, *trainer.configuration.patch_size))
    if dimensions == 3:
        assert batch.lengths is not None and batch.positions is not None
        centres = (torch.arange(SEQUENCE) * 8 + 8) / 40  # slabs of 16 slices that overlap by half
        batch = replace(batch, positions=torch.stack([centres] * 3, 1), lengths=torch.full((SEQUENCE,), lengths or 40))
    (terms,) = trainer.losses(parts, {"unlabelled": batch})
    return terms["neighbour"].item()


def test_of_a_neighbouring_slice_everything_counts() -> None:
    assert counted_error(2, torch.tensor(3.0)) == pytest.approx(9)


def test_of_an_overlapping_slab_only_what_lies_beyond_counts() -> None:
    beyond = torch.arange(16.0).view(16, 1, 1)
    after, before = [z * z for z in range(8, 16)], [z * z for z in range(8)]
    assert counted_error(3, beyond) == pytest.approx(sum(after + before) / 16, rel=2e-3)


def test_without_a_whole_neighbour_nothing_counts() -> None:
    assert counted_error(3, torch.tensor(3.0), lengths=10) == 0


# --- the tasks --------------------------------------------------------------------------------------------------------


@every_task
def test_a_task_alone_builds_only_its_own_parts(task: str) -> None:
    trainer = sequential(**only(task))
    parts = trainer.build()
    assert set(parts) == {"encoder"} | TASKS[task]
    assert [name for terms in trainer.losses(parts, one_batch(trainer)) for name in terms] == [task]


@every_task
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_task_alone_trains(task: str, dimensions: int) -> None:
    trainer = sequential(dimensions, **only(task), learning_rate=0.01, alike_steps=0, follow=0.9)
    parts, streams = built(trainer), one_batch(trainer)
    optimisation, losses = Optimisation(trainer.settings, parts), []
    list(trainer.losses(parts, streams))
    trainer.after_step(parts)  # the queue holds patches at the same places
    for number in range(25):
        seed_globals(0, "step", 0)  # the same blocks are hidden each time
        (terms,) = trainer.losses(parts, streams)
        trainer.backward(terms, parts)
        optimisation.gradient_norm(number)
        optimisation.step(number)
        losses.append(terms[task].item())
    assert losses[-1] < 0.7 * losses[0]


def test_all_weights_zero_are_refused() -> None:
    with pytest.raises(DataError, match="are all 0"):
        SequentialSettings.parse({f"{task}_weight": 0 for task in TASKS}, "settings")


def test_alike_must_be_nearer_than_apart() -> None:
    with pytest.raises(DataError, match="alike_within must not exceed"):
        SequentialSettings.parse({"alike_within": 0.3}, "settings")


def test_scores_start_where_chance_is() -> None:
    trainer = sequential()
    parts, streams = built(trainer), one_batch(trainer)
    with torch.no_grad():
        first = trainer.validate(parts, [streams])
        assert list(first)[:3] == ["explained", "explained by copying", "order accuracy"]
        assert first["explained"] < 0.1 and "place accuracy" not in first
        list(trainer.losses(parts, streams))
        trainer.after_step(parts)
        assert trainer.validate(parts, [streams])["place accuracy"] <= 1


def test_what_is_explained_is_a_ratio_of_means() -> None:
    trainer = sequential(**only("neighbour"))
    parts, streams = built(trainer), one_batch(trainer)
    torch.nn.init.zeros_(parts["neighbours"].layer.weight)
    air = {"unlabelled": replace(streams["unlabelled"], image=torch.full_like(streams["unlabelled"].image, -2.0))}
    with torch.no_grad():
        assert -10 < trainer.validate(parts, [air, streams])["explained"] < 0


# --- runs -------------------------------------------------------------------------------------------------------------


def test_the_queue_is_resumed(tmp_path: Path) -> None:
    settings = {"epochs": 2, "iterations_per_epoch": 2, "precision": "float32", "validation_iterations": 0}
    queues = []
    for name, interruptions in (("undisturbed", [None]), ("disturbed", [3, None])):
        run = RunFolder(tmp_path / name)
        for at in interruptions:
            trainer = sequential(**settings)
            batches = MemoryBatches(trainer.needs, trainer.configuration, trainer.plan, broken=at)
            with suppress(BatchBroken):
                record = small_record("sequential", trainer.settings, trainer.plan)
                fit(trainer, run, record, batches, device=CPU, resume=True)
        state = load_state(run)
        assert state is not None
        queues.append({name: one for name, one in state["parts"].items() if name.startswith("queue.")})
    assert queues[0]["queue.filled"].sum() == 4 * SEQUENCE
    assert all(torch.equal(queues[0][name], queues[1][name]) for name in queues[0])


def test_a_decoder_that_is_not_trained_is_not_handed_on(tmp_path: Path) -> None:
    trainer = sequential(**only("order"), epochs=1, iterations_per_epoch=1, validation_iterations=2)
    batches = MemoryBatches(trainer.needs, trainer.configuration, trainer.plan, validation_iterations=2)
    run = RunFolder(tmp_path / "run")
    record = small_record("sequential", trainer.settings, trainer.plan)
    scores = fit(trainer, run, record, batches, device=CPU, resume=False).scores
    assert set(scores) == {"order accuracy", "probe"}
    assert {name.partition(".")[0] for name in read_weights(run.final)[0]} == {"encoder"}


@pytest.mark.parametrize(
    ("dimensions", "length", "words"),
    [
        (2, 1.0, "half of the cases have 1 slices or fewer"),
        (3, 20.0, r"patches are 16 slices deep, half of the cases have 20 .* --set patch_size=8,16,16"),
        (3, 5.0, "choose another trainer"),
    ],
)
def test_cases_without_neighbours_are_refused(dimensions: int, length: float, words: str) -> None:
    plan = small_plan(dimensions).model_copy(update={"median_shape": (length, 24.0, 24.0)})
    configuration = plan.configurations["small"].model_copy(update={"median_shape": (length, 24.0, 24.0)[:dimensions]})
    with pytest.raises(UsageError, match=words):
        Sequential(SequentialSettings(), plan, configuration)


def test_slow_copies_begin_where_weights_were_taken_over() -> None:
    trainer = sequential()
    parts = built(trainer)
    with torch.no_grad():
        for parameter in parts["encoder"].parameters():
            parameter.add_(1)
        trainer.started(parts)
    for ahead, behind in zip(parts["encoder"].parameters(), parts["slow_encoder"].parameters(), strict=True):
        assert torch.equal(ahead, behind)
