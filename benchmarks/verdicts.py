"""How pages of results put differences into words: by their intervals alone, the same rule for every claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfcfg.errors import counted
from selfcfg.kernels.statistics import Estimate, Interval, NonInferiority

HOLDS, OPEN, OPPOSITE, TOO_FEW = "holds", "not shown", "the opposite", "too few subjects"
SO_FAR = " so far"

RULE = (
    "A claim **holds** where the 95 % interval of the paired difference (bootstrap over test subjects, of the mean "
    "over seeds) lies above 0, **the opposite** where it lies below, and is **not shown** where it holds 0; **so far** "
    "where seeds of the study are still missing, of which the next may well say otherwise. Nothing else is weighed, "
    "and what another choice of labelled subjects would change is not in the intervals."
)


def verdict(difference: Estimate, *, is_whole: bool) -> str:
    """What the interval of a paired difference says of the claim that it is above 0.

    Args:
        difference: with its interval.
        is_whole: whether all seeds of the study are in it.
    """
    if difference.interval is None:
        return TOO_FEW
    found = HOLDS if difference.interval.low > 0 else OPPOSITE if difference.interval.high < 0 else OPEN
    return found if is_whole else found + SO_FAR


def no_worse(found: NonInferiority, *, is_whole: bool) -> str:
    """What the lower bound of a paired difference says of the claim that it is above minus a margin; see `verdict`."""
    if found.low is None:
        return TOO_FEW
    return (HOLDS if found.is_shown else OPEN) + SO_FAR * (not is_whole)


def between(mean: float, interval: Interval | None, sign: str = "") -> str:
    """A mean with its interval."""
    ends = f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f}" if interval else "too few"
    return f"{mean:{sign}.3f} ({ends})"


def probability(p: float | None) -> str:
    """The p of a test, or that there were too few subjects for it."""
    return "too few" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def summed_up(claim: str, verdicts: Sequence[str]) -> str:
    """One line on a claim, over all that it was tested on."""
    counts = Counter(verdicts)
    kinds = [kind + after for kind in (HOLDS, OPEN, OPPOSITE, TOO_FEW) for after in ("", SO_FAR)]
    told = ", ".join(f"{kind} in {counts[kind]}" for kind in kinds if counts[kind])
    return f"- {claim}: {told} of {counted(len(verdicts), 'comparison')}."


def makers(rows: Iterable[Mapping[str, Any]]) -> str:
    """One sentence on the versions and machines that the records of results name."""
    found = []
    for row in rows:
        versions, machine = row["versions"], row["machine"]
        software = ", ".join(f"{name} {versions[name]}" for name in ("selfcfg", "torch", "python"))
        kind = f"{machine['processor']} ({machine['instructions']}), {machine['device']}, {machine['system']}"
        found.append(f"{software}; {kind}, {counted(machine['threads'], 'thread')}")
    return "Made with " + "; and ".join(dict.fromkeys(found)) + "." if found else "Versions and machine: not recorded."
