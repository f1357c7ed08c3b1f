from __future__ import annotations

import torch

from selfcfg.kernels.contrast import two_views


def test_vectors_that_are_nearly_alike_are_compared_in_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    first = 1 + 0.01 * torch.randn(8, 32)
    second = first + 0.001 * torch.randn(8, 32)
    plain = two_views(first, second, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = two_views(first, second, 0.2)
    assert plain.accuracy == under_autocast.accuracy == 1
    assert torch.equal(plain.loss, under_autocast.loss)
