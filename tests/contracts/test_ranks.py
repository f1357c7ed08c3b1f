"""Two processes that share every batch end with what one ends with, whatever the trainer."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfcfg import registry
from selfcfg.engine.checkpoint import load_state
from selfcfg.engine.choice import Choice, refuse_unshared
from selfcfg.engine.trainer import Settings
from selfcfg.errors import DataError, ToldElsewhere, UsageError, WorkerDied
from selfcfg.kernels import ranks
from selfcfg.kernels.ranks import Ranks
from selfcfg.runs import RunFolder
from selfcfg.testing import small_plan
from tests.together import STOPPED, Ended, cases, main, train

pytestmark = pytest.mark.timeout(900)  # all cases are trained before the first test; on a free machine in 20 seconds


def place_of(rank: int, port: str) -> dict[str, str]:
    """The environment in which a process finds the other of two."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Ended]]]:
    """Where two processes, this one and another, left what they ended with; and what this one ends with alone."""
    folder, own = (tmp_path_factory.mktemp(name) for name in ("together", "alone"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.together", str(folder)]
    environment = {**os.environ, **place_of(1, port)}
    other = subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    try:
        # while the other one starts
        alone = {name: train(case, own / name) for name, case in cases().items() if name != STOPPED}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in place_of(0, port).items():
                patch.setenv(name, value)
            main(folder)
        _, errors = other.communicate(timeout=100)
        assert other.returncode == 0, errors.decode()
        yield folder, alone
    finally:
        other.kill()
        other.communicate()


def of_rank(folder: Path, name: str, rank: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    parts, scores = torch.load(folder / f"{name}.{rank}", weights_only=True)
    return parts, scores


def assert_close(parts: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Asserts that what was summed in another order is the same up to that."""
    assert parts.keys() == wanted.keys()
    for key, tensor in wanted.items():
        # no weight, but a moving mean of vectors, whose numbers may be large
        relative = 1e-5 if key.endswith("centre.mean") else 0
        say = partial("{}: {}".format, key)
        torch.testing.assert_close(parts[key], tensor, atol=1e-5, rtol=relative, msg=say)


@pytest.mark.parametrize("name", [name for name in cases() if name != STOPPED])
def test_two_processes_end_with_what_one_does(name: str, together: tuple[Path, dict[str, Ended]]) -> None:
    (parts, scores), wanted = of_rank(together[0], name, 0), together[1][name]
    assert_close(parts, wanted.parts)
    assert scores == pytest.approx(wanted.scores, abs=1e-3, nan_ok=True)
    assert list(scores) == list(wanted.scores)


@pytest.mark.parametrize("name", [*cases(), "continued"])
def test_both_hold_the_same(name: str, together: tuple[Path, dict[str, Ended]]) -> None:
    (parts, scores), (others, other_scores) = (of_rank(together[0], name, rank) for rank in (0, 1))
    assert [key for key in parts if not torch.equal(parts[key], others[key])] == []
    assert scores == other_scores


def test_two_processes_of_which_one_was_stopped_continue_bit_for_bit(together: tuple[Path, dict[str, Ended]]) -> None:
    kept = load_state(RunFolder(together[0] / "kept"))
    assert kept is not None and (kept["position"]["epoch"], kept["position"]["step"]) == (1, 3)
    (wanted, _), (parts, _) = (of_rank(together[0], name, 0) for name in ("contrastive replaced", "continued"))
    assert [key for key in parts if not torch.equal(parts[key], wanted[key])] == []


def test_one_process_continues_what_two_began(together: tuple[Path, dict[str, Ended]]) -> None:
    folder, alone = together
    ended = train(replace(cases()[STOPPED], stop=None), folder / "kept")
    assert_close(ended.parts, alone["contrastive replaced"].parts)


def chosen(trainer: str, batch_size: int) -> Choice:
    plan = small_plan(2)
    configuration = plan.configurations["small"].resized(batch_size=batch_size, patch_size=None)
    trainer_type = registry.load("trainers", trainer)
    return Choice("standard", plan, "small", configuration, trainer_type, trainer_type.settings_type())


def test_batches_that_cannot_be_split_are_refused() -> None:
    refuse_unshared(chosen("supervised", 6), 3)
    with pytest.raises(UsageError, match=r"3 processes: the batch of 4.*give --set batch_size=6, or other --devices"):
        refuse_unshared(chosen("supervised", 4), 3)
    refuse_unshared(chosen("sequential", 8), 2)
    with pytest.raises(UsageError, match=r"1 sequence of 4.*batch_size=8"):
        refuse_unshared(chosen("sequential", 4), 2)


def test_trainers_that_do_not_say_that_they_can_are_refused() -> None:
    known = chosen("supervised", 4)
    strange = type("Strange", (known.trainer_type,), {"name": "strange", "splits": False})
    refuse_unshared(known._replace(trainer_type=strange), 1)
    with pytest.raises(UsageError, match="'strange': it is not made for batches that processes share"):
        refuse_unshared(known._replace(trainer_type=strange), 2)


def test_tasks_that_do_not_say_that_they_can_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.load("tasks", "moco"), "splits", False)
    settings = registry.load("trainers", "multitask").settings_type(tasks=("moco", "rubik"))
    with pytest.raises(UsageError, match="task 'moco' is not made for batches"):
        refuse_unshared(chosen("multitask", 4)._replace(settings=settings), 2)


def test_alone_nothing_is_changed_or_exchanged() -> None:
    tensor, one = torch.randn(4, 3), Ranks()
    with one.splitting(), one.spreading():
        assert all(f(tensor) is tensor for f in (ranks.own, ranks.gathered, ranks.total))
        assert (ranks.whole(4), ranks.rows(4), ranks.number(3)) == (4, range(4), 3)
        assert torch.equal(ranks.mean(tensor), tensor.mean())
        assert torch.equal(ranks.ratio(tensor.sum(), 0), tensor.sum())
        assert ranks.collected([1, 2]) == [1, 2]
    assert one.agreed("SIGTERM") == "SIGTERM"
    with pytest.raises(DataError, match="asked: found"):
        one.first(lambda: _fail(DataError("asked", "found")))


def _fail(error: Exception) -> None:
    raise error


def test_rows_and_batches_are_dealt_out_without_overlap() -> None:
    parts = [Ranks(rank, 3) for rank in range(3)]
    assert [list(one.rows(6)) for one in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [list(one.dealt("abcde")) for one in parts] == [["a", "d"], ["b", "e"], ["c"]]


def test_an_error_of_all_keeps_its_kind_where_it_is_not_told() -> None:
    for error in (UsageError("asked", "found"), WorkerDied("asked", "found")):
        again = pickle.loads(pickle.dumps(ToldElsewhere.of(error)))
        assert (type(again), str(again)) == (ToldElsewhere, str(error))
        assert (again.exit_code, again.may_pass) == (error.exit_code, error.may_pass)


def test_settings_know_nothing_of_processes() -> None:
    assert not [name for name in Settings.model_fields if "process" in name or "device" in name]
