"""Which of several processes is taken for the one that failed, and after which failures all are started again."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfcfg.cli.sharing import code_of_process
from selfcfg.engine import launching
from selfcfg.engine.elastic import Failure, cause, run_processes
from selfcfg.engine.launching import Launch, launch
from selfcfg.errors import (
    TOLD,
    DataError,
    ProcessLost,
    SelfcfgError,
    Stopped,
    ToldElsewhere,
    TrainingDiverged,
    UsageError,
    WorkerDied,
)

LOST, KILLED, ASKED = ProcessLost.exit_code, -signal.SIGKILL, -signal.SIGTERM


@pytest.mark.parametrize(
    ("ended", "first"),
    [
        ([(1, KILLED, 10), (0, LOST, 10)], (1, KILLED)),
        ([(0, LOST, 10), (1, KILLED, 11)], (1, KILLED)),
        ([(1, TOLD, 10), (0, KILLED, 40)], (1, TOLD)),
        ([(0, LOST, 10), (1, KILLED, 40)], (0, LOST)),
        ([(1, 1, 10), (0, Stopped.exit_code, 10)], (1, 1)),
        ([(0, KILLED, 40), (1, 1, 10)], (1, 1)),
        ([(0, LOST, 10), (1, Stopped.exit_code, 11)], (0, LOST)),
        ([(0, Stopped.exit_code, 10), (1, Stopped.exit_code, 10)], (0, Stopped.exit_code)),
        ([(1, ASKED, 10), (0, LOST, 10)], (1, ASKED)),
        ([(0, LOST, 10), (1, ASKED, 12)], (0, LOST)),
        ([], None),
    ],
    ids=[
        "killed, the other lost it",
        "the loss was seen first",
        "an error, and one that did not end was killed",
        "another machine is lost, and one that did not end was killed",
        "an error, and the other was asked to stop",
        "the first in time",
        "lost, and the other was asked to stop",
        "all were asked to stop",
        "somebody ended one",
        "lost, and the other ended",
        "none failed",
    ],
)
def test_the_first_to_fail_by_itself_is_blamed(
    ended: list[tuple[int, int, int]], first: tuple[int, int] | None
) -> None:
    failures: dict[int, Any] = {
        rank: SimpleNamespace(exitcode=code, timestamp=seconds) for rank, code, seconds in ended
    }
    assert cause(failures) == first


def of_rank_1(code: int, folder: Path) -> list[str]:
    """A program whose second process leaves a file for each attempt and then ends with a code; the first ends well."""
    program = f"""
import os, sys, tempfile
if os.environ["RANK"] == "1":
    os.close(tempfile.mkstemp(dir={str(folder)!r})[0])
    sys.exit({code})
"""
    return [sys.executable, "-S", "-c", program]


@pytest.mark.parametrize(
    ("code", "attempts"), [(TOLD, 1), (UsageError.exit_code, 1), (Stopped.exit_code, 1), (1, 3), (LOST, 3)]
)
def test_what_would_come_again_is_not_tried_again(tmp_path: Path, code: int, attempts: int) -> None:
    assert run_processes(of_rank_1(code, tmp_path), 2, max_restarts=2) == Failure(1, code)
    assert len(list(tmp_path.iterdir())) == attempts


@pytest.mark.parametrize(
    ("code", "told", "given"),
    [
        (TOLD, "failed", 1),
        (UsageError.exit_code, "failed", 2),
        (Stopped.exit_code, "failed", 75),
        (KILLED, "process 1 was ended by SIGKILL, most likely for want of memory; continue with --resume", 1),
        (LOST, "the connection to a process of this machine is lost", 1),
    ],
)
def test_all_end_with_the_code_and_words_of_the_first(
    monkeypatch: pytest.MonkeyPatch, code: int, told: str, given: int
) -> None:
    monkeypatch.setattr("selfcfg.engine.elastic.run_processes", lambda *_: Failure(1, code))
    with pytest.raises(SelfcfgError, match=told) as error:
        launch(Launch(2), ["train"], "cpu")
    assert error.value.exit_code == given


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("asked", "found"), TOLD),
        (TrainingDiverged("asked", "found"), TOLD),
        (ToldElsewhere.of(DataError("asked", "found")), TOLD),
        (UsageError("asked", "found"), 2),
        (Stopped("asked", "found"), 75),
        (WorkerDied("asked", "found"), 1),
        (ToldElsewhere.of(WorkerDied("asked", "found")), 1),
        (ProcessLost("asked", "found"), LOST),
    ],
)
def test_a_process_says_by_its_code_what_would_come_again(error: SelfcfgError, code: int) -> None:
    assert code_of_process(error) == error.exit_code
    os.environ.update({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"})
    assert code_of_process(error) == code


def test_asked_to_stop_it_asks_the_processes_and_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"""
import os, signal, sys, tempfile, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
if os.environ["RANK"] == "1":
    while len(os.listdir({str(tmp_path)!r})) < 1:
        time.sleep(0.01)
    os.kill(os.getppid(), signal.SIGTERM)
else:
    open({str(tmp_path / "ready")!r}, "w").close()
while not asked:
    time.sleep(0.01)
os.close(tempfile.mkstemp(dir={str(tmp_path)!r}, prefix="saved")[0])
sys.exit(75)
"""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(launching, "CHILD", (sys.executable, "-S", "-c", program))
    with pytest.raises(Stopped, match="stopped by SIGTERM; continue with --resume"):
        launch(Launch(2), [], "cpu")
    assert len(list(tmp_path.glob("saved*"))) == 2
    assert signal.getsignal(signal.SIGTERM) == before
