"""The planners ``residual-m``, ``-l`` and ``-xl``: nnU-Net's rules with residual encoders for 8, 24 and 40 GB."""

from __future__ import annotations

from selfcfg.planners.budget import Budget
from selfcfg.planners.standard import RulePlanner


def _planner(name: str, reference_3d: float, reference_2d: float, gigabytes: float) -> RulePlanner:
    budget = Budget(
        kind="residual",
        reference_3d=reference_3d,
        reference_2d=reference_2d,
        gigabytes=gigabytes,
        coverage=1.0,
        encoder_blocks=(1, 3, 4, 6),
        decoder_blocks=1,
        shrinks_to_minimum=False,
    )
    summary = f"nnU-Net's rules for U-Nets with residual encoders on {gigabytes:g} GB, with no limit on the batch."
    return RulePlanner(name, summary, budget)


plan_m = _planner("residual-m", 680e6, 135e6, 8)
"""Source: nnU-Net v2.8.1, ``nnUNetPlannerResEncM``."""
plan_l = _planner("residual-l", 2100e6, 380e6, 24)
"""Source: nnU-Net v2.8.1, ``nnUNetPlannerResEncL``."""
plan_xl = _planner("residual-xl", 3600e6, 560e6, 40)
"""Source: nnU-Net v2.8.1, ``nnUNetPlannerResEncXL``."""
