"""Opening a run folder: another run's is never written over, and what differs from the first start is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from selfcfg.errors import UsageError
from selfcfg.locks import Held, locked
from selfcfg.progress import say
from selfcfg.recipes.recipe import RECIPE
from selfcfg.runs import RunFolder, RunRecord

_LONG = {
    "train": "the training cases differ",
    "validation": "the validation cases differ",
    "init_hash": "the weights it starts from differ",
    "teacher_hashes": "the teachers differ",
    "teacher_weights": "the weights of the teachers differ",
    "plan_hash": "the plan differs",
    "reference": "the reference differs",
    "data_hash": "the training images or labels differ",
}
"""Fields whose values say nothing to a reader, and what to say instead."""


PATIENCE = 10.0
"""Seconds to wait for a run that another process holds: one that was asked to stop needs a moment to save."""


@contextmanager
def claimed(run: RunFolder) -> Iterator[None]:
    """Keeps a run to this process for the block; one that dies lets go of it.

    Raises:
        UsageError: another process trains it.
        SelfcfgError: the folder beside it cannot be written to.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(run.path.parent / f".{run.path.name}.lock", PATIENCE))
        except Held as held:
            remedy = f"wait for it, or give this one a new --name{held.remedy and '; '}{held.remedy}"
            raise UsageError(f"train into {run.path}", f"{held.holder} is training this run", remedy) from held
        yield


def open_run(run: RunFolder, record: RunRecord, *, resume: bool) -> bool:
    """Makes the folder this run's; whether the run is finished already, its final weights included.

    Raises:
        UsageError: the folder holds another run, or this one with checkpoints and without `resume`; or the folds beside
            it were trained in another way.
    """
    asked = f"train into {run.path}"
    has_checkpoint = run.last.is_file() or run.previous.is_file()
    if not run.record.is_file():
        if has_checkpoint:
            raise UsageError(asked, "it holds checkpoints but no run.json", "empty the folder, or give a new --name")
        _refuse_other_folds(run, record)
        record.write(run.record)
        return False
    found = RunRecord.read(run.record)
    if differences := _differences(found.identity(), record.identity()):
        remedy = "give this one a new --name"
        if found.time_budget is not None and found.time_budget != record.time_budget:
            remedy = f"continue it with --time-budget {found.time_budget:g}s, or {remedy}"
        raise UsageError(asked, f"it holds another run ({differences})", remedy)
    if found.status == "finished" and run.final.is_file():
        return True
    if not has_checkpoint:
        record.write(run.record)
    elif not resume:
        raise UsageError(asked, "it holds this run unfinished", "continue it with --resume, or give a new --name")
    else:
        _warn(found, record)
    return False


def _refuse_other_folds(run: RunFolder, record: RunRecord) -> None:
    """The scores of all folds are averaged, so they must be folds of one experiment."""
    if (run.path.parent / RECIPE).is_file():
        found = f"{run.path.parent.name} is the folder of a recipe of that name"
        raise UsageError(f"train into {run.path}", found, "give this one a --name")
    for file in sorted(run.path.parent.glob("fold_*/run.json")):
        if differences := _differences(RunRecord.read(file).shared_identity(), record.shared_identity()):
            found = f"{file.parent.name} beside it was trained in another way ({differences})"
            raise UsageError(f"train into {run.path}", found, "give this one a new --name")


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Which values make it another run, in words."""
    parts = []
    for name in here:
        if there[name] != here[name]:
            inner = name == "settings"
            parts += changes(there[name], here[name]) if inner else [_change(name, there[name], here[name])]
    return "; ".join(parts)


def _warn(found: RunRecord, record: RunRecord) -> None:
    there, here = ({"processes": 1, **one.machine} for one in (found, record))
    told = changes(found.versions, record.versions) + changes(there, here)
    if told:
        say(f"warning: continuing, but not bit for bit as it would have been: {'; '.join(told)}")


def changes(there: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """Each value that is not the same in both, in words."""
    names = dict.fromkeys([*there, *here])
    return [_change(name, there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)]


def _change(name: str, there: object, here: object) -> str:
    return _LONG.get(name, f"{name}: {there} there, {here} here")
