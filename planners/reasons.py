"""The planner's decisions in words: each with the rule, the numbers it was taken from, and what would change it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from selfcfg.fingerprint import ChannelStatistics
from selfcfg.geometry import times
from selfcfg.labels import LabelSchema
from selfcfg.plan import Normalization, Reason
from selfcfg.planners.budget import MAX_FEATURES, MIN_BATCH, MIN_EDGE, START_EDGE, Fit
from selfcfg.planners.lowres import SEES_ENOUGH, WORTHWHILE, LowResolution
from selfcfg.planners.normalization import MASK_THRESHOLD
from selfcfg.planners.spacing import ANISOTROPY, FINER_PERCENTILE, TargetSpacing

AXES = "zyx"


def memory(memory_gb: float, *, given: bool) -> Reason:
    """Which accelerator the plan is made for."""
    return Reason(
        what="accelerator memory",
        value=f"{memory_gb:g} GB",
        why="Given with --memory." if given else "What this planner is made for; nothing else was asked.",
        change="--memory GB, where the training runs on another accelerator.",
    )


def spacing(target: TargetSpacing, rule: TargetSpacing, n_cases: int) -> Reason:
    """Why volumes are resampled to this spacing.

    Args:
        target: what was decided.
        rule: what the rule alone would have decided.
        n_cases: number of cases measured.
    """
    if target.rule == "given":
        why = f"Given with --spacing; the rule would have taken {times(rule.values)} mm."
    elif target.rule == "finer":
        why = _thick_slices(target)
    elif n_cases == 1:
        why = "The spacing of the only case."
    else:
        why = f"The median over the {n_cases} cases, axis by axis. Every image is resampled to it."
    return Reason(
        what="target spacing",
        value=f"{times(target.values)} mm (z, y, x)",
        why=why,
        change="--spacing z,y,x. Coarser: a patch shows more of the body, small structures fade. Finer than the files: "
        "no more detail, only more time.",
    )


def picture_spacing(target: TargetSpacing) -> Reason:
    """Why pictures are resampled to this spacing."""
    why = "The median over the pictures. Where a file says nothing about the size of a pixel, it counts as 1."
    return Reason(
        what="target spacing",
        value=f"{times(target.values[1:])} (y, x)",
        why="Given with --spacing." if target.rule == "given" else why,
        change="--spacing 1,y,x (the first number counts for nothing in pictures).",
    )


def axes(order: Sequence[int], target: TargetSpacing) -> Reason:
    """Why the axes are in this order."""
    names = ", ".join(AXES[axis] for axis in order)
    first = order[0]
    if max(target.values) == min(target.values):
        why = "All axes have the same spacing."
    else:
        why = (
            f"The coarsest axis, {AXES[first]} ({target.values[first]:.4g} mm), comes first, so that 2D networks see "
            "the two finest."
        )
    return Reason(
        what="order of the axes",
        value=f"{names} ({'as in the files' if first == 0 else 'turned; the files have z, y, x'})",
        why=why,
        change="--spacing with another axis as the coarsest.",
    )


def normalizations(
    channels: Sequence[str], schemes: Sequence[Normalization], statistics: Sequence[ChannelStatistics]
) -> list[Reason]:
    """How intensities are scaled; channels that are scaled in the same way share a reason."""
    alike: dict[tuple[str, str], list[int]] = {}
    for index, (scheme, found) in enumerate(zip(schemes, statistics, strict=True)):
        alike.setdefault((scheme, _scaling(scheme, found)), []).append(index)
    return [
        Reason(
            what="intensities of " + ", ".join(channels[index] for index in indices),
            value=scheme,
            why=why,
            change="the channel's name in dataset.json: CT, noNorm, rescale_to_0_1 and rgb_to_0_1 choose what they "
            "say, every other name zscore.",
        )
        for (scheme, why), indices in alike.items()
    ]


def mask(used: Sequence[bool], median_relative_size: float) -> Reason:
    """Whether only the inside of the non-zero mask is normalised."""
    left = f"Cutting the empty (zero) border off leaves {100 * median_relative_size:.3g} % of the typical image"
    limit = f"{100 * MASK_THRESHOLD:g} %"
    value = "no"
    if any(used):
        value = "for channel " + ", ".join(str(index) for index, uses in enumerate(used) if uses)
        why = (
            f"{left}, less than {limit}: the images were masked, as by skull stripping. Mean and deviation are taken "
            "inside the mask, and the outside stays 0."
        )
    elif median_relative_size < MASK_THRESHOLD:
        why = f"{left}, but no channel is scaled by zscore, the only way that keeps zeros."
    else:
        why = f"{left}, not less than {limit}: the images are not masked."
    return Reason(
        what="intensities inside the mask only",
        value=value,
        why=why,
        change="use_mask_for_norm of each configuration in the plan." if any(used) else "",
    )


def mirroring(
    allowed: Sequence[int], order: Sequence[int], labels: LabelSchema, *, excluded: Sequence[int], dimensions: int
) -> Reason:
    """Along which axes images may be mirrored.

    Args:
        allowed: axes in the plan's order.
        order: the plan's axis order.
        labels: the label schema.
        excluded: file axes left out because they run left-right.
        dimensions: 2 when every case is a picture.
    """
    change = "mirror_axes in the plan; for one training --set transforms.mirror_p=0, where all images hang alike."
    if not labels.lateral_pairs:
        why = "No two classes are told apart by left and right."
    else:
        left, right = labels.lateral_pairs[0]
        pair = f"'{left}' and '{right}'"
        if excluded:
            names = " and ".join(AXES[axis] for axis in excluded)
            how = "taken to run left-right, as pictures do not tell" if dimensions == 2 else "which runs left-right"
            why = f"A mirrored image would show {pair} swapped, so none is mirrored along {names}, {how}."
        else:
            why = (
                f"{pair} are a left-right pair, but the fingerprint does not tell which axis runs left-right: "
                "mirroring may teach the network the wrong side."
            )
            change = "measuring the dataset with `selfcfg fingerprint`, which notes orientations, or " + change
    value = "along " + ", ".join(AXES[order[axis]] for axis in allowed) if allowed else "along no axis"
    return Reason(what="mirroring", value=value, why=why, change=change)


def no_3d(median_shape: Sequence[float], *, pictures: bool) -> Reason:
    """Why there are no 3D configurations."""
    slices = f"The typical image is a single slice ({times(median_shape)} voxels)."
    return Reason(
        what="3D networks",
        value="not planned",
        why="All cases are pictures." if pictures else slices,
        change="" if pictures else "if these are slices of volumes, store the slices of a volume in one file.",
    )


def low_resolution(found: LowResolution) -> Reason:
    """Why there is a low-resolution stage with a cascade, or not."""
    limit = f"{100 * SEES_ENOUGH:g} %"
    seen = f"A 3D patch at full resolution shows {_percent(found.share)} of the typical image"
    value, change = "not planned", ""
    if found.fit is not None and found.spacing is not None:
        value = "planned"
        why = (
            f"{seen}, less than {limit}: too little of the surroundings. A first network works at "
            f"{times(found.spacing)} mm, where the image has {found.reduction:.3g} times fewer voxels and a patch "
            "shows more of it; in the cascade a second network refines its result at full resolution."
        )
        change = "a patch grows with --memory, an image shrinks with a coarser --spacing; then one network may do."
    elif found.share >= SEES_ENOUGH:
        why = f"{seen}, at least {limit}: enough of the surroundings."
    else:
        why = (
            f"{seen}, less than {limit}, but an image with only {found.reduction:.3g} times fewer voxels would mend "
            f"that. Below {WORTHWHILE:g} times, two stages are not worth their time."
        )
    return Reason(
        what="low resolution and cascade",
        value=value,
        why=why,
        change=change,
    )


def of_configuration(
    fitted: Fit, memory_gb: float, spacing_mm: Sequence[float], shape: Sequence[float], *, batch_dice: str
) -> tuple[Reason, ...]:
    """Why patch, batch, network and batch Dice of a configuration are what they are.

    Args:
        fitted: patch, batch and network with the numbers that led there.
        memory_gb: accelerator memory planned for.
        spacing_mm: target spacing along the network's axes; empty for pictures, whose pixels may have no known size.
        shape: median image there.
        batch_dice: why the Dice loss sums over the batch; "" where it does not.
    """
    return (
        _patch(fitted, memory_gb, spacing_mm, shape),
        _batch(fitted, memory_gb),
        _network(fitted),
        Reason(
            what="Dice loss over the whole batch",
            value="yes" if batch_dice else "no",
            why=batch_dice or "A patch shows enough of the image to be scored on its own.",
            change="batch_dice of the configuration in the plan.",
        ),
    )


def cascade() -> Reason:
    """What the cascade is."""
    return Reason(
        what="cascade",
        value="after 3d_lowres",
        why="As 3d_fullres, with the result at low resolution as further input channels.",
    )


def _thick_slices(target: TargetSpacing) -> str:
    axis, taken, median = AXES[target.axis], target.values[target.axis], target.median[target.axis]
    others = [value for index, value in enumerate(target.median.tolist()) if index != target.axis]
    same = " (here the same as the median)" if taken == median else ""
    return (
        f"The slices are thick: the median spacing along {axis} is {median:.4g} mm, more than {ANISOTROPY:g} times "
        f"that of the other axes ({times(others)} mm), and there are less than a third as many voxels. So as not to "
        f"throw slices of finer cases away, the {FINER_PERCENTILE:g}th percentile is taken along {axis}: "
        f"{taken:.4g} mm{same}. The other axes have the median."
    )


def _scaling(scheme: Normalization, found: ChannelStatistics) -> str:
    if scheme == "ct":
        return (
            f"CT numbers mean the same in every image. They are cut to {found.percentile_00_5:.4g} .. "
            f"{found.percentile_99_5:.4g} (the 0.5th and 99.5th percentile inside the labelled structures), then the "
            f"mean {found.mean:.4g} is subtracted and the rest divided by the standard deviation {found.std:.4g}."
        )
    return {
        "zscore": "The same number may mean different things in two images, so each image is shifted to mean 0 and "
        "scaled to standard deviation 1.",
        "none": "The channel's name asks for its values to be left as they are.",
        "rescale_to_0_1": "The channel's name asks for each image to be scaled to 0 .. 1.",
        "rgb_to_0_1": "The channel's name says 8-bit colour, so values are divided by 255.",
    }[scheme]


def _patch(fitted: Fit, memory_gb: float, spacing_mm: Sequence[float], shape: Sequence[float]) -> Reason:
    extent = [voxels * mm for voxels, mm in zip(fitted.patch_size, spacing_mm, strict=False)]
    in_mm = f" ({times(extent)} mm)" if extent else ""
    body = "square" if len(shape) == 2 else "cube"
    steps = [
        f"A patch of equal length in mm along every axis, with as many voxels as a {body} of edge "
        f"{START_EDGE[len(shape)]}, would have {times(fitted.start)}."
    ]
    patch, divisors = (",".join(map(str, sides)) for sides in (fitted.patch_size, fitted.topology.divisors))
    advice = [f"for one training --set patch_size={patch} with other multiples of {divisors}"]
    if list(fitted.clipped) != list(fitted.start):
        steps.append(f"The typical image has {times(shape)}, so it is cut to {times(fitted.clipped)}.")
    if list(fitted.padded) != list(fitted.clipped):
        steps.append(f"The network halves it step by step, so it is rounded up to {times(fitted.padded)}.")
    if fitted.n_shrinks:
        often = "once" if fitted.n_shrinks == 1 else f"{fitted.n_shrinks} times"
        steps.append(
            f"That is too much for {memory_gb:g} GB, so the edge that was longest beside the image's was shortened, "
            f"{often}."
        )
        advice.insert(0, "more --memory, or a coarser --spacing, so that the same patch shows more")
    else:
        steps.append(f"That fits into {memory_gb:g} GB.")
    return Reason(
        what="patch size",
        value=f"{times(fitted.patch_size)} voxels{in_mm}, {_percent(_share(fitted, shape))} of the typical image",
        why=" ".join(steps),
        change="; ".join(advice) + ".",
    )


def _batch(fitted: Fit, memory_gb: float) -> Reason:
    possible = max(fitted.batch_by_memory, MIN_BATCH)
    why = f"{memory_gb:g} GB hold {possible} such patches."
    advice = ["for one training --set batch_size=N"]
    if fitted.batch_by_coverage < fitted.batch_by_memory:
        share = f"{100 * fitted.coverage:g} %"
        why += f" A batch may hold at most {share} of the dataset's voxels: that would be {fitted.batch_by_coverage}."
    else:
        advice.insert(0, "more --memory")
    if fitted.batch_by_coverage < MIN_BATCH:
        why += f" It is never less than {MIN_BATCH}."
    return Reason(
        what="batch size",
        value=f"{fitted.batch_size} patches",
        why=why,
        change="; ".join(advice) + ".",
    )


def _network(fitted: Fit) -> Reason:
    topology = fitted.topology
    name = "U-Net" if topology.kind == "plain" else "U-Net with a residual encoder"
    bottom = [edge // step for edge, step in zip(fitted.patch_size, topology.divisors, strict=True)]
    why = (
        f"Each stage halves every axis that stays at least {MIN_EDGE} voxels long, down to {times(bottom)} voxels. "
        f"Feature maps double from stage to stage, up to {MAX_FEATURES[topology.dimensions]}."
    )
    if any(1 in kernel for kernel in topology.kernel_sizes):
        why += " Axes at least twice as coarse as the finest are halved and convolved only from a later stage on."
    return Reason(
        what="network",
        value=f"{name}, {topology.n_stages} stages, {topology.features[0]} to {topology.features[-1]} feature maps",
        why=why,
        change="--planner residual-m plans a residual encoder."
        if topology.kind == "plain"
        else "--planner standard plans a plain U-Net.",
    )


def _share(fitted: Fit, shape: Sequence[float]) -> float:
    """How much of the median image a patch shows."""
    return math.prod(min(edge / whole, 1.0) for edge, whole in zip(fitted.patch_size, shape, strict=True))


def _percent(share: float) -> str:
    return "all" if share >= 1 else f"{100 * share:.2g} %"
