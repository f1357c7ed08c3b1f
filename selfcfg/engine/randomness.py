"""Random numbers that depend only on what they are for: a seed, a purpose and an index, never on who asked before."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """A generator of its own for one purpose and index; the same arguments always give the same numbers.

    Args:
        seed: the seed of the run.
        purpose: what the numbers are for, such as "training/labelled".
        index: which of them, such as iteration and place in the batch.

    Source: counter-based Philox 4x64 (Salmon et al., SC 2011), its 128-bit key a blake2b hash of the arguments.
    """
    text = "/".join([str(seed), purpose, *map(str, index)])
    key = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def noise_field(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 noise of a shape, a function of the drawn `seed` alone."""
    return generator(seed, "noise").standard_normal(shape, dtype=np.float32)
