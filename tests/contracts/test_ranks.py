"""Two processes that share every batch end with what one ends with, whatever the trainer."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfcfg import registry
from selfcfg.engine.choice import Choice, refuse_unshared
from selfcfg.engine.trainer import Settings
from selfcfg.errors import DataError, ToldElsewhere, UsageError, WorkerDied
from selfcfg.kernels import ranks
from selfcfg.kernels.ranks import Ranks
from selfcfg.testing import small_plan
from tests.together import BROKEN, Ended, cases, train

Processes = list[subprocess.Popen[bytes]]

pytestmark = pytest.mark.timeout(900)  # all cases are trained before the first test; on a free machine in 20 seconds


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Processes]]:
    """Two processes that train every case, and the folder they leave it in."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = []
    for rank in ("0", "1"):
        environment = {**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank}
        command = [sys.executable, "-m", "tests.together", str(folder)]
        root = Path(__file__).parents[2]
        started.append(subprocess.Popen(command, env=environment, cwd=root, stderr=subprocess.PIPE))
    yield folder, started
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def together(running: tuple[Path, Processes], alone: dict[str, Ended]) -> Path:
    """The folder, when both are through; meanwhile one process has trained the same."""
    folder, started = running
    for process in started:
        _, errors = process.communicate(timeout=840)
        assert process.returncode == 0, errors.decode()
    return folder


@pytest.fixture(scope="module")
def alone(running: tuple[Path, Processes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """What one process ends with."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: train(case, folder / name) for name, case in cases().items() if name != BROKEN}


def of_rank(folder: Path, name: str, rank: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    parts, scores = torch.load(folder / f"{name}.{rank}", weights_only=True)
    return parts, scores


@pytest.mark.parametrize("name", [name for name in cases() if name != BROKEN])
def test_two_processes_end_with_what_one_does(name: str, together: Path, alone: dict[str, Ended]) -> None:
    parts, scores = of_rank(together, name, 0)
    assert parts.keys() == alone[name].parts.keys()
    for key, wanted in alone[name].parts.items():
        torch.testing.assert_close(parts[key], wanted, atol=1e-5, rtol=1e-4, msg=lambda told, key=key: f"{key}: {told}")
    assert scores == pytest.approx(alone[name].scores, abs=1e-3, nan_ok=True)
    assert list(scores) == list(alone[name].scores)


@pytest.mark.parametrize("name", cases())
def test_both_hold_the_same(name: str, together: Path) -> None:
    (parts, scores), (others, other_scores) = (of_rank(together, name, rank) for rank in (0, 1))
    assert [key for key in parts if not torch.equal(parts[key], others[key])] == []
    assert scores == other_scores


def test_two_processes_continue_bit_for_bit(together: Path) -> None:
    (wanted, _), (parts, _) = of_rank(together, "contrastive replaced", 0), of_rank(together, "continued", 0)
    assert [key for key in parts if not torch.equal(parts[key], wanted[key])] == []


def test_one_process_continues_what_two_began(together: Path, alone: dict[str, Ended]) -> None:
    ended = train(replace(cases()[BROKEN], broken=None), together / "kept")
    for key, wanted in alone["contrastive replaced"].parts.items():
        torch.testing.assert_close(ended.parts[key], wanted, atol=1e-5, rtol=1e-4)


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
