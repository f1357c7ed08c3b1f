"""What goes wrong for a user, as exceptions the command line prints without a traceback.

Every message reads ``what was asked: what was found, where; what to do``. A mistake in the program itself stays an
ordinary exception.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class SelfcfgError(Exception):
    """Something a user can mend.

    Args:
        asked: what was being done, and on what (a file, a case, an option).
        found: what was found there instead, with the value.
        remedy: what to do about it.
    """

    exit_code = 1
    may_pass = False
    """Whether the same may go well when it is tried once more, and nothing was mended."""

    def __init__(self, asked: str, found: str, remedy: str = "") -> None:
        before = "" if found.endswith("\n") else "; "
        super().__init__(f"{asked}: {found}" + (f"{before}{remedy}" if remedy else ""))
        self.asked, self.found, self.remedy = asked, found, remedy

    def __reduce__(self) -> tuple[type[SelfcfgError], tuple[str, str, str]]:
        return type(self), (self.asked, self.found, self.remedy)


class UsageError(SelfcfgError):
    """The command or a setting was used wrongly (exit code 2)."""

    exit_code = 2


class DataError(SelfcfgError):
    """An image, a label or a file that describes them is not usable."""


class WorkerDied(SelfcfgError):
    """A worker process ended without an answer; the message names the case and the likely cause."""

    may_pass = True


class TrainingDiverged(SelfcfgError):
    """A loss became NaN or infinite; the message names the cases of the batch."""


class Stopped(SelfcfgError):
    """Stopped on request (SIGINT, SIGTERM); everything is saved and the same command continues (exit code 75)."""

    exit_code = 75


class ProcessLost(SelfcfgError):
    """Another of the processes that train together ended; it, or whoever started it, says why (exit code 76)."""

    exit_code = 76
    may_pass = True


TOLD = 77
"""Exit code of one of several processes that has told an error that would come again; whoever started it gives 1."""


class AlreadyTold(SelfcfgError):
    """A process that was started failed, and has said why."""


class ToldElsewhere(SelfcfgError):
    """The error of all processes that train together, in one that leaves it to another one to say it."""

    @classmethod
    def of(cls, error: SelfcfgError) -> ToldElsewhere:
        """The same error, with its exit code, told by somebody else."""
        found = cls(error.asked, error.found, error.remedy)
        found.exit_code, found.may_pass = error.exit_code, error.may_pass
        return found

    def __reduce__(self) -> tuple[type[SelfcfgError], tuple[str, str, str], dict[str, int]]:  # type: ignore[override]
        return *super().__reduce__(), {"exit_code": self.exit_code, "may_pass": self.may_pass}


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest known name and all of them, for the end of an error message."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    known_ones = ", ".join(names) or "none"
    return f"did you mean '{close[0]}'? (known: {known_ones})" if close else f"known: {known_ones}"


def listed(names: Iterable[object], shown: int = 5, separator: str = ", ") -> str:
    """The first few names, and how many more there are."""
    everything = [str(name) for name in names]
    more = f" and {len(everything) - shown} more" if len(everything) > shown else ""
    return separator.join(everything[:shown]) + more


def printable(text: str) -> str:
    r"""Text as a terminal may show it: what would steer the terminal, or is no text, is spelt out; line ends stay.

    >>> print(printable("a\x1b[2J b\u202e c"))
    a\x1b[2J b\u202e c
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(sign if sign in "\n\t" or not _steers(sign) else ascii(sign)[1:-1] for sign in text)


def _steers(sign: str) -> bool:
    """Whether a character is a control, turns the direction of writing, or is half of a surrogate pair."""
    return unicodedata.category(sign) in ("Cc", "Cs") or unicodedata.bidirectional(sign) in _TURNING


_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what it counts: "1 case", "2 cases"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
