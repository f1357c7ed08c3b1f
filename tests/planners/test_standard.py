"""The whole plan: which configurations, which axes, and reasons a reader can follow."""

from __future__ import annotations

import json
import math
import time

import pytest

from selfcfg.errors import DataError, UsageError
from selfcfg.plan import Plan
from selfcfg.planners.residual import plan_m
from selfcfg.planners.standard import plan

ISOTROPIC = ([(1.0, 1.0, 1.0)] * 4, [(40, 60, 50)] * 4)
LARGE = ([(1.0, 0.8, 0.8)] * 4, [(400, 512, 512)] * 4)


def reason(reasons, what):
    (found,) = [item for item in reasons if item.what.startswith(what)]
    return found


def test_small_volumes_have_no_cascade(facts, describe):
    made = plan(facts(*ISOTROPIC), describe(), dataset="D")
    assert list(made.configurations) == ["2d", "3d_fullres"]
    assert made.configurations["2d"].batch_dice
    assert not made.configurations["3d_fullres"].batch_dice
    assert made.dimensions == 3
    assert made.mirror_axes == (0, 1, 2)
    assert reason(made.reasons, "low resolution").value == "not planned"


def test_large_volumes_have_a_cascade(facts, describe):
    made = plan(facts(*LARGE), describe(), dataset="D")
    assert list(made.configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    low, full, cascade = (made.configurations[name] for name in ("3d_lowres", "3d_fullres", "3d_cascade_fullres"))
    assert (low.batch_dice, full.batch_dice, cascade.batch_dice) == (False, True, True)
    assert (low.after, full.after, cascade.after) == (None, None, "3d_lowres")
    assert cascade.model_copy(update={"after": None, "reasons": full.reasons}) == full
    assert min(low.spacing) > min(full.spacing)


def test_pictures_are_planned_in_2d(facts, describe):
    made = plan(facts([(999.0, 1.0, 1.0)] * 3, [(1, 512, 400)] * 3), describe(), dataset="D")
    assert list(made.configurations) == ["2d"]
    assert made.dimensions == 2
    assert made.axis_order == (0, 1, 2)
    assert made.mirror_axes == (1, 2)
    assert made.configurations["2d"].spacing == (1, 1)
    assert reason(made.reasons, "3D networks").why == "All cases are pictures."
    assert reason(made.reasons, "target spacing").value == "1 x 1 (y, x)"


def test_spacing_given_for_pictures_holds_in_the_plane(facts, describe):
    pictures = facts([(999.0, 1.0, 1.0)] * 3, [(1, 512, 400)] * 3)
    made = plan(pictures, describe(), dataset="D", spacing=(1.0, 2.0, 2.0))
    assert list(made.configurations) == ["2d"]
    assert made.configurations["2d"].spacing == (2, 2)
    assert made.configurations["2d"].median_shape == (256, 200)


def test_single_slices_of_a_volume_are_not_pictures(facts, describe):
    made = plan(facts([(5.0, 1.0, 1.0)] * 3, [(1, 512, 400)] * 3), describe(), dataset="D")
    assert (list(made.configurations), made.dimensions) == (["2d"], 3)
    assert "single slice (1 x 512 x 400 voxels)" in reason(made.reasons, "3D networks").why


PAIR = ("left kidney", "right kidney")


@pytest.mark.parametrize(
    ("spacing", "orientation", "order", "mirror_axes"),
    [
        ((5.0, 1.0, 1.0), "SPL", (0, 1, 2), (0, 1)),
        ((1.0, 1.0, 4.0), "SPL", (2, 0, 1), (1, 2)),
        ((1.0, 4.0, 1.0), "SRP", (1, 0, 2), (1, 2)),
        ((1.0, 4.0, 1.0), "RSP", (1, 0, 2), (0, 2)),
    ],
)
def test_left_right_pairs_are_not_mirrored(facts, describe, spacing, orientation, order, mirror_axes):
    fingerprint = facts([spacing] * 2, [(60, 60, 60)] * 2, orientations=[orientation] * 2)
    made = plan(fingerprint, describe(classes=PAIR), dataset="D")
    assert made.axis_order == order
    assert made.mirror_axes == mirror_axes
    assert "left kidney" in reason(made.reasons, "mirroring").why
    assert plan(fingerprint, describe(), dataset="D").mirror_axes == (0, 1, 2)


def test_mixed_orientations_leave_out_every_left_right_axis(facts, describe):
    fingerprint = facts(*[column[:2] for column in ISOTROPIC], orientations=["SPL", "LSP"])
    assert plan(fingerprint, describe(classes=PAIR), dataset="D").mirror_axes == (1,)


def test_unknown_orientations_are_said_to_be_unknown(facts, describe):
    made = plan(facts(*ISOTROPIC), describe(classes=PAIR), dataset="D")
    assert made.mirror_axes == (0, 1, 2)
    found = reason(made.reasons, "mirroring")
    assert "does not tell" in found.why
    assert "selfcfg fingerprint" in found.change


def test_pictures_with_sides_are_not_mirrored_horizontally(facts, describe):
    made = plan(facts([(999.0, 1.0, 1.0)], [(1, 64, 64)]), describe(classes=("left_lung", "right_lung")), dataset="D")
    assert made.mirror_axes == (1,)


def test_memory_and_spacing_given(facts, describe):
    made = plan(facts(*LARGE), describe(), dataset="D", memory_gb=24, spacing=(2.0, 2.0, 2.0))
    assert made.memory_gb == 24
    assert made.configurations["3d_fullres"].spacing == (2, 2, 2)
    found = reason(made.reasons, "target spacing")
    assert found.value.startswith("2 x 2 x 2 mm")
    assert "1 x 0.8 x 0.8" in found.why
    assert made.median_spacing == (1, 0.8, 0.8)


def test_slices_thinner_than_the_target_are_planned(facts, describe):
    made = plan(facts([(1.0, 1.0, 1.0)], [(2, 64, 64)]), describe(), dataset="D", spacing=(5.0, 1.0, 1.0))
    assert list(made.configurations) == ["2d"]


def test_channels_that_are_scaled_alike_share_a_reason(facts, describe):
    made = plan(facts(*ISOTROPIC, channels=3), describe(("T1", "CT", "T2")), dataset="D")
    said = {item.what: item.value for item in made.reasons if item.what.startswith("intensities of")}
    assert said == {"intensities of T1, T2": "zscore", "intensities of CT": "ct"}


def test_thick_slices_say_so(facts, describe):
    made = plan(facts([(10.0, 1.5, 1.4)] * 3, [(9, 200, 210)] * 3), describe(), dataset="D")
    why = reason(made.reasons, "target spacing").why
    assert "along z is 10 mm, more than 3 times that of the other axes (1.5 x 1.4 mm)" in why
    assert "here the same as the median" in why


def test_mask_and_schemes(facts, describe):
    made = plan(facts(*ISOTROPIC, channels=3, relative_size=0.4), describe(("CT", "T1", "noNorm")), dataset="D")
    full = made.configurations["3d_fullres"]
    assert full.normalization == ("ct", "zscore", "none")
    assert full.use_mask_for_norm == (False, True, False)
    ct = reason(made.reasons, "intensities of CT")
    assert "-120 .. 310" in ct.why
    assert "mean 40" in ct.why
    assert reason(made.reasons, "intensities inside").value == "for channel 1"


def test_channels_count_by_their_number_not_by_their_place_in_the_file(facts, describe):
    given = describe(("T1", "CT"))
    turned = given.model_copy(update={"channel_names": dict(reversed(given.channel_names.items()))})
    made = plan(facts(*ISOTROPIC, channels=2), turned, dataset="D")
    assert list(turned.channel_names) == ["1", "0"]
    assert made.channels == ("T1", "CT")
    assert made.configurations["3d_fullres"].normalization == ("zscore", "ct")


@pytest.mark.parametrize("planner", [plan, plan_m])
@pytest.mark.parametrize("data", [ISOTROPIC, LARGE, ([(999.0, 1.0, 1.0)], [(1, 2048, 2500)])])
def test_every_decision_has_a_reason_with_its_numbers(facts, describe, planner, data):
    made = planner(facts(*data), describe(), dataset="D")
    for configuration in made.configurations.values():
        said = {item.what: item for item in configuration.reasons}
        if configuration.after:
            assert set(said) == {"cascade"}
            continue
        assert {"patch size", "batch size", "network", "Dice loss over the whole batch"} <= set(said)
        assert said["patch size"].value.startswith(" x ".join(map(str, configuration.patch_size)))
        assert said["batch size"].value == f"{configuration.batch_size} patches"
        assert f"{configuration.topology.n_stages} stages" in said["network"].value
    for item in [*made.reasons, *(r for c in made.configurations.values() for r in c.reasons)]:
        assert item.value, item
        assert item.why.endswith("."), item
        assert not item.change or item.change.endswith("."), item


def test_a_plan_survives_its_file(facts, describe, tmp_path):
    made = plan(facts(*LARGE), describe(), dataset="D")
    made.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == made
    assert "NaN" not in json.dumps(made.model_dump(mode="json"))


@pytest.mark.parametrize("memory", [0, -3, float("nan"), float("inf"), 1e300])
def test_memory_must_be_possible(facts, describe, memory):
    with pytest.raises(UsageError, match="--memory"):
        plan(facts(*ISOTROPIC), describe(), dataset="D", memory_gb=memory)


def test_a_fingerprint_of_another_dataset(facts, describe):
    with pytest.raises(DataError, match="holds 1 channels"):
        plan(facts(*ISOTROPIC), describe(("T1", "T2")), dataset="D")


@pytest.mark.parametrize(("spacings", "shapes"), [([], []), ([(1, 1, 1)], [])])
def test_a_broken_fingerprint(facts, describe, spacings, shapes):
    with pytest.raises(DataError, match="plan from a fingerprint: "):
        plan(facts(spacings, shapes), describe(), dataset="D")


@pytest.mark.parametrize("spacing", [0.0, -1.0, math.nan, math.inf, 5e-324, 1e300])
def test_a_spacing_that_no_image_has(facts, describe, spacing):
    with pytest.raises(DataError, match="a spacing in mm of"):
        plan(facts([(1.0, spacing, 1.0)], [(5, 5, 5)]), describe(), dataset="D")


@pytest.mark.parametrize("edge", [0, -5, 10**12, 10**30])
def test_an_edge_that_no_image_has(facts, describe, edge):
    with pytest.raises(DataError, match=f"an edge in voxels of {edge}"):
        plan(facts([(1.0, 1.0, 1.0)], [(5, edge, 5)]), describe(), dataset="D")


def test_intensities_that_are_no_numbers(facts, describe):
    fingerprint = facts(*ISOTROPIC)
    nothing = fingerprint.foreground_intensity_properties_per_channel["0"].model_copy(update={"mean": math.nan})
    with pytest.raises(DataError, match=r"channel 'MRI' .* no foreground to measure"):
        plan(
            fingerprint.model_copy(update={"foreground_intensity_properties_per_channel": {"0": nothing}}),
            describe(),
            dataset="D",
        )


@pytest.mark.parametrize("planner", [plan, plan_m])
@pytest.mark.parametrize(
    ("spacing", "shape", "given"),
    [
        ((1.0, 1e-6, 1e6), (500, 10**9, 10**9), None),
        ((1.0, 1.0, 1.0), (153, 11, 92), (0.7, 1e-6, 0.3)),
        ((1e6, 1e6, 1e6), (10**9, 10**9, 10**9), (1e-6, 1e-6, 1e-6)),
        ((999.0, 1.0, 1.0), (1, 10**9, 3), None),
    ],
)
def test_the_most_extreme_data_is_planned_in_a_moment(facts, describe, planner, spacing, shape, given):
    fingerprint, description = facts([spacing], [shape]), describe()
    began = time.process_time()
    made = planner(fingerprint, description, dataset="D", spacing=given)
    assert time.process_time() - began < 1
    assert made.configurations["2d"].batch_size >= 2
