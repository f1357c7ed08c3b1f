from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selfcfg.engine.checkpoint import load_state, read_weights, save_state
from selfcfg.engine.trainer import Batch
from selfcfg.engine.training.journal import read_log
from selfcfg.engine.training.loop import FitResult, fit
from selfcfg.errors import SelfcfgError, Stopped, TrainingDiverged, UsageError
from selfcfg.runs import RunFolder, RunRecord
from selfcfg.testing import CPU, MemoryBatches, small_plan, small_record
from selfcfg.trainers.supervised import Supervised, SupervisedSettings

pytestmark = pytest.mark.usefixtures("no_curves")

SETTINGS = {"epochs": 3, "iterations_per_epoch": 4, "validation_iterations": 2, "ema": 0.9, "accumulate": 2}
TIMES = ("seconds", "seconds_per_iteration", "data_wait")


@dataclass
class Disturbed(MemoryBatches):
    """Batches that do something when a certain one is asked for."""

    at: tuple[str, int] = ("nothing", 0)
    action: Callable[[], None] = lambda: None

    def batch(self, purpose: str, number: int, need: Any) -> Batch:
        if (purpose.split("/", maxsplit=1)[0], number) == self.at:
            self.action()
        return super().batch(purpose, number, need)


def made(
    disturbance: dict[str, Any] | None = None, seed: int = 0, kind: type[Disturbed] = Disturbed, **settings: Any
) -> tuple[Supervised, RunRecord, Disturbed]:
    plan = small_plan(2)
    typed = SupervisedSettings(**{**SETTINGS, **settings})
    trainer = Supervised(typed, plan, plan.configurations["small"])
    batches = kind(trainer.needs, trainer.configuration, plan, typed.validation_iterations, **(disturbance or {}))
    return trainer, small_record("supervised", typed, plan, seed), batches


def trained(
    folder: Path,
    disturbance: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    resume: bool = False,
    init: Path | None = None,
    **settings: Any,
) -> FitResult:
    trainer, record, batches = made(disturbance, seed, **settings)
    try:
        return fit(trainer, RunFolder(folder), record, batches, device=CPU, resume=resume, init=init)
    finally:
        assert batches.is_closed


def weights(folder: Path, name: str = "final") -> dict[str, Tensor]:
    return read_weights(folder / f"{name}.safetensors")[0]


def same(a: Path, b: Path) -> bool:
    names = ("final", "best")
    weights_are = all(torch.equal(x, weights(b, name)[key]) for name in names for key, x in weights(a, name).items())
    return weights_are and (a / "last.pt").read_bytes() == (b / "last.pt").read_bytes()


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read_log(RunFolder(folder))]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitResult]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, trained(folder)


def test_what_a_training_leaves(undisturbed: tuple[Path, FitResult]) -> None:
    folder, result = undisturbed
    weights_of_it = {"best.safetensors", "final.safetensors", "last.pt", "previous.pt"}
    assert {path.name for path in folder.iterdir()} == weights_of_it | {
        "curves.png",
        "log.jsonl",
        "plan.json",
        "run.json",
    }
    log = read_log(RunFolder(folder))
    assert [line["epoch"] for line in log] == [0, 1, 2]
    for line in log:
        assert line["loss"] == pytest.approx(line["terms"]["dice"] + line["terms"]["cross_entropy"])
        assert set(line["validation"]) == {"dice", "dice a", "dice b"}
        assert 0 <= line["data_wait"] < line["seconds_per_iteration"] < line["seconds"]
    assert log[2]["average"] == pytest.approx(0.9 * log[1]["average"] + 0.1 * log[2]["validation"]["dice"])
    assert log[2]["learning_rate"] == pytest.approx(0.01 * (1 / 3) ** 0.9)
    assert result.epochs == 3
    assert result.best == max(line["average"] for line in log)
    assert result.scores == log[2]["validation"]
    assert not result.stopped_early
    record = RunRecord.read(folder / "run.json")
    assert record.status == "finished"
    assert record.machine["threads"] == torch.get_num_threads()
    _, metadata = read_weights(folder / "final.safetensors")
    assert metadata["plan_hash"] == record.plan_hash
    assert metadata["epoch"] == "3"


def test_the_seed_decides_every_bit(undisturbed: tuple[Path, FitResult], tmp_path: Path) -> None:
    folder, result = undisturbed
    assert trained(tmp_path / "again") == result
    assert same(folder, tmp_path / "again")
    assert timeless(folder) == timeless(tmp_path / "again")
    trained(tmp_path / "other", seed=1)
    assert not same(folder, tmp_path / "other")


def test_a_finished_run_is_left_as_it_is(undisturbed: tuple[Path, FitResult]) -> None:
    folder, result = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert trained(folder, {"at": ("training", 0), "action": lambda: 1 / 0}) == result
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_another_run_is_never_written_over(undisturbed: tuple[Path, FitResult]) -> None:
    folder, _ = undisturbed
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match=r"seed: 0 there, 1 here.*--name"):
        trained(folder, seed=1)
    with pytest.raises(UsageError, match=r"learning_rate: 0.01 there, 0.02 here.*--name"):
        trained(folder, resume=True, learning_rate=0.02)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def stop(number: signal.Signals) -> Callable[[], None]:
    return lambda: signal.raise_signal(number)


@pytest.mark.parametrize(
    ("at", "number", "position"),
    [
        (("training", 0), signal.SIGTERM, (0, 1)),
        (("training", 11), signal.SIGINT, (1, 2)),
        (("training", 15), signal.SIGTERM, (1, 4)),
        (("validation", 0), signal.SIGTERM, (0, 4)),
        (("training", 23), signal.SIGTERM, (2, 4)),
    ],
)
def test_asked_to_stop_it_saves_in_mid_epoch_and_continues_exactly(
    undisturbed: tuple[Path, FitResult],
    tmp_path: Path,
    at: tuple[str, int],
    number: signal.Signals,
    position: tuple[int, int],
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Stopped, match=f"stopped by {number.name} in epoch .*--resume") as stopped:
        trained(tmp_path, {"at": at, "action": stop(number)})
    assert stopped.value.exit_code == 75
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    state = load_state(RunFolder(tmp_path))
    assert state is not None
    assert (state["position"]["epoch"], state["position"]["step"]) == position
    with pytest.raises(UsageError, match=r"holds this run unfinished.*--resume"):
        trained(tmp_path)
    assert trained(tmp_path, resume=True) == undisturbed[1]
    assert same(undisturbed[0], tmp_path)
    assert timeless(undisturbed[0]) == timeless(tmp_path)


def crash() -> None:
    raise OSError("a crash")


@pytest.mark.parametrize("at", [("training", 3), ("training", 12), ("validation", 1), ("training", 23)])
def test_a_crash_loses_an_epoch_at_most(
    undisturbed: tuple[Path, FitResult], tmp_path: Path, at: tuple[str, int]
) -> None:
    with pytest.raises(OSError, match="a crash"):
        trained(tmp_path, {"at": at, "action": crash})
    assert trained(tmp_path, resume=True) == undisturbed[1]
    assert same(undisturbed[0], tmp_path)
    assert timeless(undisturbed[0]) == timeless(tmp_path)


def interrupted(folder: Path, at: int = 19) -> None:
    with pytest.raises(OSError, match="a crash"):
        trained(folder, {"at": ("training", at), "action": crash})


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    undisturbed: tuple[Path, FitResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path)
    content = bytearray((tmp_path / "last.pt").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)  # more than the padding between two tensors
    (tmp_path / "last.pt").write_bytes(content)
    trained(tmp_path, resume=True)
    said = capsys.readouterr().err
    assert "last.pt" in said
    assert "previous.pt" in said
    assert "at epoch 1, iteration 0" in said
    assert same(undisturbed[0], tmp_path)
    assert timeless(undisturbed[0]) == timeless(tmp_path)


def test_a_log_that_is_ahead_or_torn_is_cut_back(undisturbed: tuple[Path, FitResult], tmp_path: Path) -> None:
    interrupted(tmp_path)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + log.read_text().splitlines()[-1].replace('"epoch": 1', '"epoch": 2') + '\n{"epo')
    trained(tmp_path, resume=True)
    assert timeless(undisturbed[0]) == timeless(tmp_path)


def test_checkpoints_of_another_run_are_refused(tmp_path: Path) -> None:
    interrupted(tmp_path / "a")
    with pytest.raises(OSError, match="a crash"):
        trained(tmp_path / "b", {"at": ("training", 19), "action": crash}, seed=1)
    (tmp_path / "b" / "last.pt").replace(tmp_path / "a" / "last.pt")
    with pytest.raises(SelfcfgError, match="belongs to another run"):
        trained(tmp_path / "a", resume=True)
    (tmp_path / "b" / "run.json").unlink()
    with pytest.raises(UsageError, match=r"no run\.json"):
        trained(tmp_path / "b", seed=1, resume=True)


def test_other_threads_or_versions_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    record["machine"]["threads"], record["versions"]["torch"] = 64, "1.0"
    (tmp_path / "run.json").write_text(json.dumps(record))
    trained(tmp_path, resume=True)
    said = capsys.readouterr().err
    assert "threads: 64 there, 1 here" in said
    assert "torch: 1.0 there" in said


class NotANumber(Disturbed):
    """Batches of which one holds NaN."""

    def batch(self, purpose: str, number: int, need: Any) -> Batch:
        found = super().batch(purpose, number, need)
        if (purpose, number) == ("training/labelled", 13):
            found.image[1] = torch.nan
        return found


def test_a_loss_that_is_not_a_number_names_the_cases(tmp_path: Path) -> None:
    trainer, record, batches = made(kind=NotANumber)
    with pytest.raises(
        TrainingDiverged, match=r"epoch 1, iteration 2: dice is nan .*'case 0', 'case 1'.*learning_rate"
    ):
        fit(trainer, RunFolder(tmp_path), record, batches, device=CPU, resume=False)
    assert batches.is_closed
    state = load_state(RunFolder(tmp_path))
    assert state is not None
    assert all(torch.isfinite(tensor).all() for tensor in state["parts"].values())


class Constant(Supervised):
    """Always scores the same."""

    def validate(self, parts: Any, batches: Any) -> dict[str, float]:
        return {"dice": 0.5}


def test_early_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, record, batches = made(patience=2, epochs=20, iterations_per_epoch=1, accumulate=1)
    constant = Constant(trainer.settings, trainer.plan, trainer.configuration)
    result = fit(constant, RunFolder(tmp_path), record, batches, device=CPU, resume=False)
    assert result.stopped_early
    assert (result.epochs, result.best_epoch) == (3, 0)
    assert "stopped early" in capsys.readouterr().err
    assert RunRecord.read(tmp_path / "run.json").status == "finished"
    again = fit(constant, RunFolder(tmp_path), record, batches, device=CPU, resume=False)
    assert again.stopped_early


def test_weights_of_another_run_are_taken_over(
    undisturbed: tuple[Path, FitResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"epochs": 1, "iterations_per_epoch": 1, "learning_rate": 1e-9, "ema": None}
    result = trained(tmp_path, init=undisturbed[0], **tiny)
    assert result.taken_over is not None
    assert result.taken_over.taken == ("encoder", "decoder", "head")
    assert "took over encoder, decoder, head" in capsys.readouterr().err
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, weights(undisturbed[0])[name], rtol=1e-4, atol=1e-6)


def test_without_validation_there_is_no_best(tmp_path: Path) -> None:
    result = trained(tmp_path, epochs=1, iterations_per_epoch=1, validation_iterations=0)
    assert result.best is None
    assert result.scores == {}
    assert (tmp_path / "final.safetensors").is_file()
    assert not (tmp_path / "best.safetensors").exists()


def test_bfloat16_resumes_exactly_too(tmp_path: Path) -> None:
    trained(tmp_path / "a", precision="bfloat16")
    with pytest.raises(Stopped):
        trained(tmp_path / "b", {"at": ("training", 11), "action": stop(signal.SIGTERM)}, precision="bfloat16")
    trained(tmp_path / "b", resume=True, precision="bfloat16")
    assert same(tmp_path / "a", tmp_path / "b")


def test_a_disk_that_fills_up_is_said_and_loses_nothing(undisturbed: tuple[Path, FitResult], tmp_path: Path) -> None:
    def fill_up() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    child = os.fork()
    if child == 0:
        try:
            trained(tmp_path, {"at": ("training", 12), "action": fill_up})
        except SelfcfgError as error:
            os._exit(0 if "free some space" in str(error) else 3)
        finally:
            os._exit(4)
    assert end(child) == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]
    trained(tmp_path, resume=True)
    assert same(undisturbed[0], tmp_path)


class Slow(Disturbed):
    """Batches that take a while."""

    def batch(self, purpose: str, number: int, need: Any) -> Batch:
        time.sleep(0.02)
        return super().batch(purpose, number, need)


def start(folder: Path) -> int:
    """The id of a new process that trains, or continues to."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            trainer, record, batches = made(kind=Slow)
            fit(trainer, RunFolder(folder), record, batches, device=CPU, resume=True)
            code = 0
        except SelfcfgError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return child


def end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def await_file(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_it_ends_with_the_same_bits(
    undisturbed: tuple[Path, FitResult], tmp_path: Path, seed: int
) -> None:
    moments = random.Random(seed)
    for _ in range(3):
        child = start(tmp_path)
        await_file(tmp_path / "run.json")
        time.sleep(moments.uniform(0, 1.5))
        os.kill(child, signal.SIGKILL)
        end(child)
    assert end(start(tmp_path)) == 0
    assert same(undisturbed[0], tmp_path)
    assert timeless(undisturbed[0]) == timeless(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_from_outside_ends_the_process_with_exit_code_75(
    undisturbed: tuple[Path, FitResult], tmp_path: Path, number: signal.Signals
) -> None:
    child = start(tmp_path)
    await_file(tmp_path / "last.pt")
    os.kill(child, number)
    assert end(child) == 75
    assert RunRecord.read(tmp_path / "run.json").status == "running"
    trained(tmp_path, resume=True)
    assert same(undisturbed[0], tmp_path)


def test_outside_the_main_thread_signals_are_left_alone(tmp_path: Path) -> None:
    from threading import Thread

    results: list[FitResult] = []
    thread = Thread(target=lambda: results.append(trained(tmp_path, epochs=1, iterations_per_epoch=1)))
    thread.start()
    thread.join()
    assert results[0].epochs == 1


def test_batch_numbers_count_on_over_epochs_and_accumulation(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    class Noting(Disturbed):
        def training(self, first: int, last: int) -> Iterator[dict[str, Batch]]:
            asked.append((first, last))
            return super().training(first, last)

    trainer, record, _ = made()
    batches = Noting(trainer.needs, trainer.configuration, trainer.plan, 2, at=("training", 9), action=crash)
    with pytest.raises(OSError, match="a crash"):
        fit(trainer, RunFolder(tmp_path), record, batches, device=CPU, resume=False)
    batches.at = ("nothing", 0)
    fit(trainer, RunFolder(tmp_path), record, batches, device=CPU, resume=True)
    assert asked == [(0, 24), (8, 24)]


def test_asked_to_stop_after_the_last_epoch_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_and_stop(run: RunFolder, state: dict[str, Any]) -> None:
        save_state(run, state)
        if state["position"]["epoch"] == SETTINGS["epochs"]:
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("selfcfg.engine.training.loop.save_state", keep_and_stop)
    with pytest.raises(Stopped):
        trained(tmp_path)
    assert trained(tmp_path, resume=True).epochs == SETTINGS["epochs"]
    assert (tmp_path / "final.safetensors").is_file()


def test_settings_that_change_no_weight_may_change(undisturbed: tuple[Path, FitResult], tmp_path: Path) -> None:
    interrupted(tmp_path)
    trained(tmp_path, resume=True, workers=0, tensorboard=False)
    assert same(tmp_path, undisturbed[0])


def test_final_weights_that_were_lost_are_written_again(undisturbed: tuple[Path, FitResult], tmp_path: Path) -> None:
    trained(tmp_path)
    (tmp_path / "final.safetensors").unlink()
    trained(tmp_path, resume=True)
    assert same(tmp_path, undisturbed[0])


def test_a_run_is_bound_to_the_weights_it_starts_from_not_to_where_they_lie() -> None:
    record = small_record("supervised", SupervisedSettings(), small_plan(2))
    started = record.model_copy(update={"init": "/a/final.safetensors", "init_hash": "1"})
    assert started.model_copy(update={"init": "/b/final.safetensors"}).identity() == started.identity()
    assert started.model_copy(update={"init_hash": "2"}).identity() != started.identity()


def test_a_processor_may_be_named_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "training")
    trainer, record, batches = made(epochs=1)
    run = RunFolder(tmp_path)
    assert fit(trainer, run, record, batches, device=torch.device("cpu:0"), resume=False).epochs == 1
