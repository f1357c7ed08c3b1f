"""Runs a command of nnU-Net for prediction that adds up logits in float32, where it adds them up in half precision.

PYTHON exact_prediction.py MODULE:FUNCTION ARGUMENTS...
"""

from __future__ import annotations

import functools
import importlib
import sys


def main() -> None:
    """Calls the function as its command would, with the one number format exchanged."""
    import torch
    from nnunetv2.inference import predict_from_raw_data as module

    module_name, _, function = sys.argv[1].partition(":")
    sys.argv = [function, *sys.argv[2:]]
    weights = module.compute_gaussian
    module.compute_gaussian = functools.partial(weights, dtype=torch.float32)
    module.compute_gaussian.cache_clear = weights.cache_clear
    torch.half = torch.float32
    getattr(importlib.import_module(module_name), function)()


if __name__ == "__main__":
    main()
