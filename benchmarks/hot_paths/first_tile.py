"""Runs a program of either side until its network sees the first tile, says so and waits to be ended.

PYTHON first_tile.py MODULE:FUNCTION ARGUMENTS...
"""

from __future__ import annotations

import importlib
import sys
import time


def main() -> None:
    """Calls the function as its command would."""
    module, _, function = sys.argv[1].partition(":")
    sys.argv = [function, *sys.argv[2:]]
    import torch

    torch.nn.modules.module.register_module_forward_pre_hook(say_so)
    getattr(importlib.import_module(module), function)()


def say_so(*_: object) -> None:
    """What happens when the first module of the network is called."""
    sys.stdout.write("\nfirst tile\n")
    sys.stdout.flush()
    time.sleep(3600)


if __name__ == "__main__":
    main()
