"""The installed tasks, and the settings of a trainer that lets its user choose among them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from selfcfg.errors import listed
from selfcfg.registry import load, registered
from selfcfg.trainers.pretext.task import Task

TASKS: dict[str, type[Task[Any]]] = {name: load("tasks", name) for name in registered("tasks")}
"""The installed tasks by name."""


def why_not_split(tasks: Iterable[type[Task[Any]]]) -> str:
    """Why several processes cannot share the batches of a trainer with these tasks; empty where they can."""
    names = [f"'{task.name}'" for task in tasks if not task.splits]
    return f"task {listed(names)} is not made for batches that processes share" if names else ""


def task_tables(names: Iterable[str]) -> dict[str, Any]:
    """A settings field for each of these tasks, by its name: the table of its settings."""
    kinds = {name: TASKS[name].settings_type for name in names}
    return {name: (kind, Field(kind(), description=f"of the task {name}")) for name, kind in kinds.items()}
