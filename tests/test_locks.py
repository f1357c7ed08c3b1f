"""One process at a time holds a lock; where the file system has none, one that was killed does not keep it."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from selfcfg import locks
from selfcfg.engine.training import opening
from selfcfg.engine.training.opening import claimed
from selfcfg.errors import UsageError
from selfcfg.locks import Held, locked
from selfcfg.runs import RunFolder

fcntl = pytest.importorskip("fcntl")


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system as some network disks are."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)


def left_over(file: Path, host: str) -> int:
    """A lock's file as a process that was killed leaves it where there are no locks; the number of that process."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{process.pid}\n{host}\n")
    return process.pid


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.lock"
    with locked(file), pytest.raises(Held, match="another process"), locked(file, 0):
        pass
    with locked(file, 0):
        pass


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("without_locks")
def test_without_locks_the_file_is_one(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    with locked(file), pytest.raises(Held, match=f"process {os.getpid()} on {socket.gethostname()}"), locked(file, 0):
        pass
    assert not file.exists()


@pytest.mark.usefixtures("without_locks")
def test_a_process_of_this_machine_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "fold_0")
    left_over(tmp_path / ".fold_0.lock", socket.gethostname())
    with claimed(run):
        assert (tmp_path / ".fold_0.lock").read_text().startswith(f"{os.getpid()}\n")


@pytest.mark.usefixtures("without_locks")
def test_of_another_machine_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PATIENCE", 0)
    file = tmp_path / ".fold_0.lock"
    pid = left_over(file, "node7")
    told = f"process {pid} on node7 is training this run; wait for it.*; if that was killed, delete {file}"
    with pytest.raises(UsageError, match=told), claimed(RunFolder(tmp_path / "fold_0")):
        pass
    file.unlink()
    with claimed(RunFolder(tmp_path / "fold_0")):
        pass


@pytest.mark.usefixtures("without_locks")
def test_who_waits_says_for_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, told = tmp_path / "a.lock", list[str]()
    pid = left_over(file, "node7")

    def say(text: str) -> None:
        told.append(text)
        file.unlink()

    monkeypatch.setattr(locks, "SILENT", 0)
    monkeypatch.setattr(locks, "say", say)
    with locked(file):
        assert told == [f"waiting: process {pid} on node7 holds {file}; if that was killed, delete {file}"]
