"""How far a task is, from what it wrote of itself and what Slurm says; no Slurm is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from selfcfg.cluster.slurm import Queued
from selfcfg.cluster.states import State, state_of, table, tail, told_failures

BEGAN = {"event": "started", "code": "0", "time": "100", "job": "7", "host": "n1"}
BACK = {**BEGAN, "event": "requeued", "code": "75", "time": "200"}
FAILED, STOPPED, WELL = ({**BEGAN, "event": "ended", "code": code, "time": "300"} for code in ("3", "75", "0"))


@pytest.mark.parametrize(
    ("slurm", "reason", "events", "word", "note"),
    [
        ("PENDING", "Priority", [], "waiting", "Priority"),
        ("RUNNING", "None", [BEGAN], "running", ""),
        ("COMPLETING", "None", [BEGAN, FAILED], "running", ""),
        ("COMPLETED", "None", [BEGAN], "done", ""),
        (None, "", [BEGAN, WELL], "done", ""),
        ("PENDING", "BeginTime", [BEGAN, BACK], "waiting", "back in the queue"),
        ("PENDING", "BeginTime", [BEGAN, STOPPED], "waiting", "back in the queue"),
        ("RUNNING", "None", [BEGAN, STOPPED, BEGAN], "running", ""),
        ("FAILED", "NonZeroExitCode", [BEGAN, FAILED], "failed", "exit code 3"),
        (None, "", [BEGAN, STOPPED], "failed", "it was stopped, and saved where it was"),
        ("TIMEOUT", "TimeLimit", [BEGAN, STOPPED], "failed", "Slurm ended it at its time limit"),
        (
            "OUT_OF_MEMORY",
            "None",
            [BEGAN],
            "failed",
            "it took more memory than it was given (more: --cluster-set mem=...)",
        ),
        (None, "", [BEGAN], "failed", "it was killed: by hand, for want of memory or time, or with its machine"),
        ("CANCELLED", "None", [], "cancelled", "it was cancelled"),
        (None, "", [], "cancelled", ""),
        ("NODE_FAIL", "None", [], "failed", "its machine failed"),
    ],
)
def test_a_state_follows_from_both(
    slurm: str | None, reason: str, events: list[dict[str, str]], word: str, note: str
) -> None:
    queued = Queued("7", "name", slurm, reason) if slurm else None
    found = state_of("a", queued, events, needs=[], given=State(name="a", state="waiting", job="7"))
    assert (found.state, found.note) == (word, note)
    assert (found.ended is None) == (found.is_open or not events or events[-1] is BEGAN)


def test_what_waits_for_what_failed_is_skipped_before_slurm_has_removed_it() -> None:
    needs = [State(name="before", state="failed"), State(name="fine", state="done")]
    for queued in (
        Queued("7", "n", "PENDING", "DependencyNeverSatisfied"),
        Queued("7", "n", "CANCELLED", "None"),
        None,
    ):
        found = state_of("a", queued, [], needs=needs, given=State(name="a", state="waiting"))
        assert (found.state, found.note) == ("skipped", "it needs before")


def test_turns_and_times_are_counted_from_the_first_to_the_last() -> None:
    events = [BEGAN, BACK, {**BEGAN, "time": "250", "host": "n2"}, {**WELL, "host": "n2"}]
    found = state_of("a", None, events, needs=[], given=State(name="a", state="waiting", submitted=40, job="7_1"))
    assert (found.turns, found.started, found.ended, found.host) == (2, 100, 300, "n2")
    row = table({"a": found}, now=1000).splitlines()[1]
    assert re.split(" {2,}", row) == ["a", "done", "7_1", "1 min 00 s", "3 min 20 s", "started 2 times"]


def test_a_failure_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n\n" for number in range(5000)))
    states = {
        "bad": State(name="bad", state="failed", note="exit code 1", log=log),
        "after": State(name="after", state="skipped"),
        "good": State(name="good", state="done"),
    }
    told = told_failures(states)
    assert "1 job did not end well" in told and "bad failed, exit code 1\n    | line 4992\n" in told
    assert "line 4999" in told and "line 4991" not in told and "and with them after" in told and "good" not in told
    assert tail(tmp_path / "none") == []
