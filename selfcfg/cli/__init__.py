"""The command line; each command calls one public function."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns 0 done, 1 failed or findings, 2 used wrongly, 75 stopped and resumable."""
    from selfcfg.cli.app import run  # noqa: PLC0415 - so that importing the package stays free

    return run(sys.argv[1:] if arguments is None else arguments)
