"""Whether the intensities of a channel are on one scale in all cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from selfcfg.engine.checks.findings import MAX_NAMED, Caution
from selfcfg.errors import counted, listed
from selfcfg.fingerprint import CaseFingerprint, ChannelStatistics
from selfcfg.plan import Plan

CT_OFFSET = 700.0
"""Least shift of a whole range of CT numbers that no anatomy explains: about two thirds of the usual offset of 1024."""
CT_SCALED = (5.0, 50.0)
"""A case whose CT numbers stay below the first while typical ones exceed the second was standardised beforehand."""
MIXED_SCALES = 10.0
"""Ratio of the typical intensities of two cases from which a channel's scales count as mixed."""


def mixed_scales(plan: Plan, cases: Sequence[CaseFingerprint]) -> Iterator[Caution]:
    """A caution for each channel whose intensities are on several scales; a note where normalisation evens that out."""
    schemes = next(iter(plan.configurations.values())).normalization
    for index, (channel, scheme) in enumerate(zip(plan.channels, schemes, strict=True)):
        known = {case.case: found for case in cases if (found := case.intensities[index]) is not None}
        if scheme == "ct":
            yield from _ct_numbers(channel, known)
        elif known:
            yield from _scales(channel, known, evens_out=scheme in ("zscore", "rescale_to_0_1"))


def _ct_numbers(channel: str, known: Mapping[str, ChannelStatistics]) -> Iterator[Caution]:
    """Cases whose whole range of CT numbers lies off that of the typical case, or that look rescaled."""
    if len(known) < 2:
        return
    ends = np.array([(found.percentile_00_5, found.percentile_99_5) for found in known.values()])
    # an actual case, not a value between two groups
    typical = np.percentile(ends, 50, axis=0, method="lower")
    shifts = ends - typical
    shift = np.where(np.sign(shifts[:, 0]) == np.sign(shifts[:, 1]), np.abs(shifts).min(axis=1), 0)
    small, usual = CT_SCALED
    scaled = (np.abs(ends).max(axis=1) <= small) & (np.abs(typical).max() >= usual)
    wide = np.ptp(ends, axis=1) > MIXED_SCALES * max(np.ptp(typical), 1)
    odd = [name for name, is_odd in zip(known, (shift > CT_OFFSET) | scaled | wide, strict=True) if is_odd]
    if odd:
        examples = [f"{name} ({_extent(known[name])})" for name in odd]
        yield Caution(
            kind="intensities",
            text=f"'{channel}' is not on one scale of CT numbers: inside the classes most cases lie about "
            f"{typical[0]:.4g} to {typical[1]:.4g}, but not {listed(examples, MAX_NAMED)}",
            remedy="convert them to Hounsfield units (stored value times rescale slope plus intercept)",
            cases=tuple(odd),
        )


def _scales(channel: str, known: Mapping[str, ChannelStatistics], *, evens_out: bool) -> Iterator[Caution]:
    """Cases far brighter or darker than the typical one."""
    means = {name: found.mean for name, found in known.items()}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[low] <= 0 or means[high] < MIXED_SCALES * means[low]:
        return
    typical = float(np.median(list(means.values())))
    reach = MIXED_SCALES**0.5
    odd = tuple(name for name, mean in means.items() if not typical / reach <= mean <= typical * reach)
    text = (
        f"the intensities of {channel} are on different scales: the mean inside the classes is {means[low]:.4g} in "
        f"{low} and {means[high]:.4g} in {high}; {counted(len(odd), 'case')} far from the median {typical:.4g}: "
        f"{listed(odd, MAX_NAMED)}"
    )
    if evens_out:
        remedy = "each image is scaled on its own, which evens that out"
        yield Caution(kind="intensities", text=text, remedy=remedy, cases=odd, severity="note")
    else:
        remedy = "bring them to one scale, or give the channel a name that is scaled image by image, such as MRI"
        yield Caution(kind="intensities", text=text, remedy=remedy, cases=odd)


def _extent(found: ChannelStatistics) -> str:
    return f"{found.percentile_00_5:.4g} to {found.percentile_99_5:.4g}"
