"""Workers that die or hang, several runs at once on the same folders, and a clock that jumps back."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tests.faults.road import Road, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ONE_WORKER = ("--set", "workers=1")


def impatient() -> None:
    """A batch may be waited for only so long."""
    from selfcfg.engine.data import workers

    workers.PATIENCE = 10


def jumping() -> None:
    """The clock of this process jumps back by a day every other time that it is looked at."""
    looked = [0]
    true = time.time

    def time_back() -> float:
        looked[0] += 1
        return true() - 86400 * (looked[0] % 2)

    time.time = time_back


def a_worker_of(running: Running) -> psutil.Process:
    """The first process that loads patches for a training."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and running.process.exitcode is None:
        for child in psutil.Process(running.process.pid).children(recursive=True):
            try:
                if "forkserver" in " ".join(child.cmdline()) and child.parent() != psutil.Process(running.process.pid):
                    return child
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.01)
    raise AssertionError(f"no worker was started: {running.ended().said}")


@pytest.mark.parametrize(
    ("done_to_it", "words"),
    [(signal.SIGKILL, "was ended by SIGKILL"), (signal.SIGSTOP, "no answer for 10 s")],
    ids=["dies", "hangs"],
)
def test_a_worker_that_dies_or_hangs_is_told_and_nothing_is_lost(road: Road, done_to_it: int, words: str) -> None:
    road.start("train")
    running = road.run("train", impatient if done_to_it == signal.SIGSTOP else None, ONE_WORKER)
    worker = a_worker_of(running)
    worker.send_signal(done_to_it)
    ended = running.ended()
    assert ended.code == 1 and words in ended.said and "Traceback" not in ended.said, ended.said
    assert not worker.is_running()
    assert road.finished("train") == []


@pytest.mark.parametrize(("name", "count"), [("preprocess", 4), ("train", 4), ("predict", 2), ("graph", 2)])
def test_several_at_once_get_into_nobodys_way(road: Road, name: str, count: int) -> None:
    road.start(name)
    together = [road.run(name) for _ in range(count)]
    ended = [one.ended() for one in together]
    assert 0 in [one.code for one in ended], [one.said for one in ended]
    assert not [one.said for one in ended if "Traceback" in one.said]
    assert road.finished(name) == []


@pytest.mark.parametrize("name", ["preprocess", "train", "select"])
def test_a_clock_that_jumps_back(road: Road, name: str) -> None:
    road.start(name)
    ended = road.run(name, jumping).ended()
    assert ended.code == 0, ended.said
    assert road.finished(name) == []
