"""Steps of the road killed at random moments, once or several times in a row, and then run to their end."""

from __future__ import annotations

import random
import signal
from typing import NamedTuple

from tests.faults.road import Road

MOST_IN_A_ROW = 3


class Killed(NamedTuple):
    """What came of it.

    Args:
        kills: that found the step at work.
        lives: times that it was then run to its end.
        faults: whatever was then not as an undisturbed run leaves it, or ended in another way than asked.
    """

    kills: int
    lives: int
    faults: list[str]


def killed(road: Road, name: str, kills: int, seed: int) -> Killed:
    """Kills a step at least so many times."""
    moments, count, lives = random.Random(f"{name} {seed}"), 0, 0
    faults: list[str] = []
    while count < kills:
        road.start(name)
        for _ in range(moments.randint(1, MOST_IN_A_ROW)):
            if road.is_done(name):
                break
            ended = road.run(name).killed_after(moments.uniform(0, road.seconds[name]))
            count += ended.code == -signal.SIGKILL
            if ended.code not in (0, -signal.SIGKILL):
                faults.append(f"{name} after a kill ended with {ended.code}: {ended.said[-500:]}")
        faults += road.finished(name)
        lives += 1
    return Killed(count, lives, faults)
