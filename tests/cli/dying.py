"""The command line as one of several processes, the second of which is killed when the first checkpoint is there.

    python -m tests.cli.dying COMMAND LINE

Those that are started again are left alone.
"""

from __future__ import annotations

import os
import signal
import sys

from selfcfg.cli import main
from selfcfg.engine.training.loop import Training

save = Training.save


def save_and_die(training: Training) -> None:
    """The process is killed where all have come to the end of the first save."""
    save(training)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        Training.save = save_and_die  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
