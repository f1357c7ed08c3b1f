"""How far tasks are: what each wrote of itself, and what Slurm says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from selfcfg.cluster.slurm import WAITING, Queued
from selfcfg.cluster.tasks import Task
from selfcfg.errors import Stopped, counted, listed
from selfcfg.progress import duration
from selfcfg.records import Record

Word = Literal["not submitted", "waiting", "running", "done", "failed", "cancelled", "skipped"]

OPEN = ("waiting", "running")

LINES = 8
"""Of a log, shown of a task that failed."""

SAID = {
    "TIMEOUT": "Slurm ended it at its time limit",
    "OUT_OF_MEMORY": "it took more memory than it was given (more: --cluster-set mem=...)",
    "NODE_FAIL": "its machine failed",
    "PREEMPTED": "another job took its place",
    "CANCELLED": "it was cancelled",
    "DEADLINE": "its deadline passed",
    "BOOT_FAIL": "its machine did not start",
}
"""What Slurm's words for an end mean."""


class State(Record):
    """How far a task is.

    Args:
        name: of the task.
        state: in a word; "skipped": one that it needs did not end well.
        job: Slurm's id.
        submitted: when, in seconds since 1970.
        started: when it ran first.
        ended: when it ended.
        turns: how often it was started.
        note: why it failed, or waits.
        host: name of the machine that ran it last.
        log: what it printed.
        cancelled: whether its end was asked for.
    """

    name: str
    state: Word
    job: str | None = None
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    turns: int = 0
    note: str = ""
    host: str = ""
    log: Path | None = None
    cancelled: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in OPEN


def read_events(file: Path, job: str | None) -> list[dict[str, str]]:
    """The lines that a task wrote of itself in the job of an id, or in any; a line that is cut short is left out."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if job is None or event["job"] == job:
            found.append(event)
    return found


def state_of(
    name: str, queued: Queued | None, events: Sequence[Mapping[str, str]], *, needs: Sequence[State], given: State
) -> State:
    """How far a task is.

    A task that wrote that it ended well has, and one that Slurm knows as completed; any other that Slurm does not know,
    or knows as ended, has failed. What Slurm puts back into the queue waits again, whatever it wrote last.

    Args:
        name: of the task.
        queued: what Slurm says; None: it does not know the job, or not any more.
        events: what the task wrote, in order.
        needs: the states of those that must end well before.
        given: what is known of it besides.
    """
    starts = [float(event["time"]) for event in events if event["event"] == "started"]
    last = events[-1] if events else None
    has_ended = last is not None and last["event"] != "started"
    known = {
        "turns": len(starts),
        "started": starts[0] if starts else None,
        "ended": float(last["time"]) if last is not None and has_ended else None,
        "host": str(last["host"]) if last is not None else "",
    }
    state, note = _judged(queued, last, needs, given)
    if state in OPEN:
        known["ended"] = None
    return given.model_copy(update={**known, "state": state, "note": note})


def _judged(
    queued: Queued | None, last: Mapping[str, str] | None, needs: Sequence[State], given: State
) -> tuple[Word, str]:
    is_well = last is not None and last["event"] == "ended" and int(last["code"]) == 0
    if is_well or (queued is not None and queued.state == "COMPLETED"):
        return "done", ""
    if queued is not None and queued.is_alive:
        waits: tuple[Word, str] = ("waiting", "back in the queue" if last is not None else queued.reason)
        return waits if queued.state in WAITING else ("running", "")
    if given.cancelled:
        return "cancelled", "on request"
    said = SAID.get(queued.state, "") if queued is not None else ""
    return _never_began(queued, needs, said) if last is None else ("failed", _ended(last, said))


def _never_began(queued: Queued | None, needs: Sequence[State], said: str) -> tuple[Word, str]:
    if bad := [one.name for one in needs if one.state in ("failed", "cancelled", "skipped")]:
        return "skipped", f"it needs {listed(bad)}"
    return "cancelled" if queued is None or queued.state == "CANCELLED" else "failed", said


def _ended(last: Mapping[str, str], said: str) -> str:
    """Why a task ended that did not end well; `said`: what Slurm says of it."""
    if last["event"] == "overdue":
        return "its time limit came before it had kept anything (more: --cluster-set time=...)"
    if said or last["event"] != "ended":
        return said or "it was killed: by hand, for want of memory or time, or with its machine"
    code = int(last["code"])
    return "it was stopped, and saved where it was" if code == Stopped.exit_code else f"exit code {code}"


def borne(tasks: Sequence[Task], states: Mapping[str, State]) -> set[str]:
    """Names of tasks that failed where everything that waited for them could do without.

    Such is a candidate that diverged: the choice among the candidates ended well with another one.
    """
    found: set[str] = set()
    for task in reversed(tasks):
        after = [other for other in tasks if task.name in other.needs]
        if states[task.name].state in ("failed", "skipped") and after:
            fine = [
                states[one.name].state == "done" if task.name in one.after_any else one.name in found for one in after
            ]
            if all(fine):
                found.add(task.name)
    return found


def told_failures(states: Mapping[str, State]) -> str:
    """Every task that failed or was cancelled, with the end of its log, and how many came to nothing with them."""
    lines = []
    for one in states.values():
        if one.state in ("failed", "cancelled", "not submitted"):
            lines.append(f"{one.name} {one.state}" + (f", {one.note}" if one.note else ""))
            lines += [f"  | {line}" for line in tail(one.log)] if one.state == "failed" else []
            lines += [f"  log: {one.log}"] if one.log is not None and one.state == "failed" else []
    skipped = [one.name for one in states.values() if one.state == "skipped"]
    if skipped:
        lines.append(f"and with them {listed(skipped, 10)}")
    every = "\n  ".join(lines)
    number = sum(one.state in ("failed", "cancelled", "not submitted") for one in states.values())
    return f"{counted(number, 'job')} did not end well, what does not depend on them is done:\n  {every}\n"


def tail(log: Path | None, lines: int = LINES) -> list[str]:
    """The last lines of a log that say something."""
    if log is None or not log.is_file():
        return []
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 20_000))
        text = stream.read().decode("utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()][-lines:]


def counts(states: Mapping[str, State]) -> str:
    """How many tasks are in each state, in words."""
    found: dict[str, int] = {}
    for one in states.values():
        found[one.state] = found.get(one.state, 0) + 1
    return ", ".join(f"{number} {word}" for word, number in found.items())


def table(states: Mapping[str, State], now: float) -> str:
    """The states of all tasks for people to read."""
    rows = [("job", "state", "Slurm", "waited", "ran", "")]
    for one in states.values():
        waited = "" if one.submitted is None else duration((one.started or one.ended or now) - one.submitted)
        ran = "" if one.started is None else duration((one.ended or now) - one.started)
        turns = f"started {one.turns} times" if one.turns > 1 else ""
        rows.append((one.name, one.state, one.job or "", waited, ran, "; ".join(filter(None, (one.note, turns)))))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
