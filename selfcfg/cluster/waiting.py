"""Waiting for a graph: what ends is told as it does, and nothing is lost where the one who waits goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from selfcfg.cluster.graph import GraphFolder
from selfcfg.cluster.states import State, borne, counts, told_failures
from selfcfg.errors import SelfcfgError, Stopped

QUICKEST, SLOWEST, GROWTH = 0.5, 30.0, 1.2
"""Seconds between two looks: few after something happened, more and more the longer nothing does."""


class Ended(NamedTuple):
    """What came of a graph.

    Args:
        states: by name, of its tasks.
        borne: names of those that failed and that the others could do without.
    """

    states: dict[str, State]
    borne: set[str]

    @property
    def is_well(self) -> bool:
        """Whether all is done that had to be."""
        return all(one.state == "done" or name in self.borne for name, one in self.states.items())

    def error(self, name: str) -> SelfcfgError:
        """Names every task that failed with the end of its log, and those that came to nothing with it."""
        told = told_failures({task: one for task, one in self.states.items() if task not in self.borne})
        return SelfcfgError(f"jobs of {name}", told, "mend these and give the same command again: what is done is kept")


def wait(graph: GraphFolder, names: Collection[str], tell: Callable[[str], None]) -> Ended:
    """Waits until none of some tasks waits or runs.

    Args:
        graph: that was submitted.
        names: of tasks.
        tell: called with each that ends, and with how many are how far.

    Raises:
        Stopped: Ctrl-C; the jobs go on.
    """
    known: dict[str, str] = {}
    pause, is_sure = QUICKEST, False
    try:
        while True:
            states = _looked(graph, names)
            if states is not None:
                news = {name: one for name, one in states.items() if known.get(name) != one.state}
                known |= {name: one.state for name, one in news.items()}
                for name, one in news.items():
                    if not one.is_open:
                        tell(f"{name}: {one.state}" + (f", {one.note}" if one.note else ""))
                if news:
                    tell(f"{graph.folder.name}: {counts(states)}")
                if not any(one.is_open for one in states.values()):
                    if is_sure or all(one.state == "done" for one in states.values()):
                        tasks = [task for task in graph.read().tasks if task.name in states]
                        return Ended(states, borne(tasks, states))
                    # what was written on another machine may be seen a moment later than Slurm's word
                    is_sure, pause = True, QUICKEST
                else:
                    is_sure, pause = False, QUICKEST if news else min(SLOWEST, pause * GROWTH)
            time.sleep(pause)
    except KeyboardInterrupt:
        again = f"the same command waits again; see: selfcfg status {graph.folder.name}, selfcfg cancel"
        raise Stopped(f"wait for {graph.folder.name}", "stopped on request; its jobs go on", again) from None


def _looked(graph: GraphFolder, names: Collection[str]) -> dict[str, State] | None:
    """The states now; None where Slurm does not answer, as it may for a while on a busy cluster."""
    try:
        return {name: one for name, one in graph.states().items() if name in names}
    except SelfcfgError as error:
        if error.asked.startswith("run squeue"):
            return None
        raise
