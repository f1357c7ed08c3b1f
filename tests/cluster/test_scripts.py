"""What the scripts do when they are asked to end; run by bash, with stand-ins for Slurm's programs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from selfcfg.cluster.arrays import Array
from selfcfg.cluster.scripts import Place, write_script
from selfcfg.cluster.site import Site
from selfcfg.cluster.states import State, read_events, state_of
from selfcfg.cluster.tasks import Resources, Task

RUNS = "{before} touch {begun}; exec sleep 60"
"""A task of shell that goes on until a signal ends it."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "bin").mkdir()
    for name in ("scontrol", "squeue"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/{name}.called\n')
        (tmp_path / "bin" / name).chmod(0o755)
    found = Place(tmp_path / "graph")
    found.make_ready()
    return found


def started(
    place: Place, line: str, *, ends_in: float, keeps: tuple[Path, ...] = (), index: str = ""
) -> subprocess.Popen[bytes]:
    """A script of one task, or of an array of two, that runs."""
    takes = Resources(memory=2**20, seconds=600)
    one = Task(name="a", kind="check", command=("-c", line), keeps=keeps, resources=takes)
    array = Array("00-00-check", {0: one, 1: one} if index else {0: one})
    script = write_script(place, "key", array, Site(folder=place.folder, program=("bash",)))
    path = f"{place.folder.parent / 'bin'}:{os.environ['PATH']}"
    times = {"SLURM_JOB_END_TIME": str(int(time.time() + ends_in))}
    variables = {**os.environ, "PATH": path, "SLURM_JOB_ID": "7", **times}
    if index:
        variables["SLURM_ARRAY_TASK_ID"] = index
    return subprocess.Popen(["bash", script], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def asked_to_end(place: Place, before: str = "", **given: object) -> tuple[bool, State]:
    """Whether the job went back into the queue after the signal of the time limit, and how far its task then is."""
    begun = place.folder / "begun"
    job = started(place, RUNS.format(begun=begun, before=before), **given)
    while not begun.exists():
        assert job.poll() is None
    job.send_signal(signal.SIGUSR1)
    out, _ = job.communicate()
    events = read_events(place.state("00-00-check", 0), None)
    went_back = (place.folder.parent / "scontrol.called").exists()
    assert went_back or b"--cluster-set check.time=HH:MM:SS" in out
    return went_back, state_of("a", None, events, needs=[], given=State(name="a", state="waiting"))


def test_at_its_time_limit_a_task_that_kept_nothing_fails_instead_of_beginning_anew_for_ever(place: Place) -> None:
    went_back, state = asked_to_end(place, ends_in=100)
    assert not went_back and state.state == "failed"
    assert "its time limit came before it had kept anything (more: --cluster-set time=" in state.note


def test_one_that_kept_something_in_this_turn_goes_on(place: Place, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    went_back, _ = asked_to_end(
        place, f"touch -d 2100-01-01 {run}/last.pt;", ends_in=100, keeps=(tmp_path / "none", run)
    )
    assert went_back


def test_what_every_start_writes_is_no_progress(place: Place, tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    (run / "last.pt").touch()
    os.utime(run / "last.pt", (1, 1))
    went_back, _ = asked_to_end(
        place, f"touch -d 2100-01-01 {run}/run.json {run}/log.jsonl;", ends_in=100, keeps=(run,)
    )
    assert not went_back


def test_long_before_its_time_limit_it_makes_room_and_goes_back_whatever_it_kept(place: Place) -> None:
    assert asked_to_end(place, ends_in=3600)[0]


def test_sigterm_of_a_preemption_reaches_script_and_command_which_ends_as_it_wants(place: Place) -> None:
    begun = place.folder / "begun"
    job = started(place, f"trap 'exit 75' TERM; touch {begun}; while true; do sleep 0.05; done", ends_in=3600)
    while not begun.exists():
        assert job.poll() is None
    children = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True).stdout.split()
    for process in (job.pid, *map(int, children)):
        os.kill(process, signal.SIGTERM)
    assert job.wait() == 75
    assert [event["event"] for event in read_events(place.state("00-00-check", 0), None)] == ["started", "ended"]


def test_an_index_that_no_task_has_fails(place: Place) -> None:
    job = started(place, "true", ends_in=3600, index="5")
    out, _ = job.communicate()
    assert job.returncode == 2 and b"no task of this script has the index 5" in out
    assert read_events(place.state("00-00-check", 5), None)[-1]["code"] == 2
