"""Plans as files: what is refused and how it is told, and what one configuration inherits from another."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfcfg.errors import DataError
from selfcfg.fingerprint import ChannelStatistics
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration, Plan, Reason
from selfcfg.topology import Topology

FLAT = ChannelStatistics(mean=0, std=1, min=-1, max=1, median=0, percentile_00_5=-1, percentile_99_5=1)
Content = dict[str, Any]


def configuration(dimensions: int = 3, **changed: Any) -> Configuration:
    topology = Topology(
        features=(4, 6, 8),
        kernel_sizes=((3,) * dimensions,) * 3,
        strides=((1,) * dimensions, (2,) * dimensions, (2,) * dimensions),
        encoder_blocks=(2, 2, 2),
        decoder_blocks=(2, 1),
    )
    values: Content = {
        "spacing": (1.5, 1.0, 1.0)[-dimensions:],
        "patch_size": (16, 24, 24)[-dimensions:],
        "batch_size": 2,
        "median_shape": (40.5, 60.0, 60.0)[-dimensions:],
        "normalization": ("ct", "zscore"),
        "use_mask_for_norm": (False, True),
        "topology": topology,
        "batch_dice": True,
        "memory_bytes": 5_000_000_000,
        "reasons": (Reason(what="patch", value="as large as it goes", why="Memory."),),
    }
    return Configuration(**{**values, **changed})


def plan() -> Plan:
    full = configuration()
    cascade = full.model_copy(update={"after": "3d_lowres", "reasons": (Reason(what="cascade", value="", why=""),)})
    return Plan(
        dataset="Dataset001_Test",
        planner="standard",
        memory_gb=8,
        channels=("CT", "PET"),
        labels=LabelSchema(labels={"background": 0, "liver": 1}),
        axis_order=(0, 1, 2),
        median_spacing=(1.5, 1.0, 1.0),
        median_shape=(40.5, 60.0, 60.0),
        intensities=(FLAT, FLAT),
        mirror_axes=(0, 1, 2),
        dimensions=3,
        configurations={
            "2d": configuration(2),
            "3d_lowres": configuration(spacing=(3.0, 2.0, 2.0)),
            "3d_fullres": full,
            "3d_cascade_fullres": cascade,
        },
    )


def edited(folder: Path, edit: Callable[[Content], Any]) -> Path:
    """The plan's file after somebody edited its content."""
    file = folder / "plan.json"
    plan().write(file)
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return file


def full(content: Content) -> Content:
    return content["configurations"]["3d_fullres"]


WRONG: dict[str, tuple[Callable[[Content], Any], str]] = {
    "unknown key": (
        lambda c: full(c).update(patch_sise=[1]),
        "3d_fullres.patch_sise: unknown key, did you mean 'patch_s",
    ),
    "unknown key at the top": (lambda c: c.update(chanels=[]), "chanels: unknown key, did you mean 'channels'"),
    "unknown key of the network": (
        lambda c: full(c)["topology"].update(stride=[]),
        "configurations.3d_fullres.topology.stride: unknown key, did you mean 'strides'",
    ),
    "misspelt inheritance": (
        lambda c: full(c).update(inherit_from="2d"),
        "configurations.3d_fullres.inherit_from: unknown key, did you mean 'inherits_from'",
    ),
    "missing key": (lambda c: full(c).pop("batch_size"), "configurations.3d_fullres.batch_size: is missing"),
    "missing key of the network": (
        lambda c: full(c)["topology"].pop("features"),
        "configurations.3d_fullres.topology.features: is missing",
    ),
    "text for a number": (lambda c: full(c).update(batch_size="2"), "3d_fullres.batch_size: must be a valid integer"),
    "yes for a number": (lambda c: full(c).update(batch_size=True), "3d_fullres.batch_size: must be a valid integer"),
    "broken number": (lambda c: full(c).update(batch_size=2.5), "3d_fullres.batch_size: must be a valid integer"),
    "number for a yes": (lambda c: full(c).update(batch_dice=1), "3d_fullres.batch_dice: must be a valid boolean"),
    "negative batch": (lambda c: full(c).update(batch_size=-1), "3d_fullres.batch_size: must be greater .* found -1"),
    "negative spacing": (lambda c: full(c)["spacing"].__setitem__(2, -1), r"3d_fullres.spacing\[2\]: must be greater"),
    "no number": (lambda c: full(c)["spacing"].__setitem__(0, float("nan")), r"spacing\[0\]: must be .*, found nan"),
    "no end": (lambda c: c.update(memory_gb=float("inf")), "memory_gb: must be a finite number, found inf"),
    "no end of intensities": (
        lambda c: c["intensities"][1].update(std=float("inf")),
        r"intensities\[1\].std: must be a",
    ),
    "text for an object": (lambda c: full(c).update(topology="unet"), "3d_fullres.topology: must be an object"),
    "text for a configuration": (
        lambda c: c["configurations"].update(big="2d"),
        "configurations.big: must be an object",
    ),
    "no configurations": (lambda c: c.update(configurations={}), "configurations: must have at least 1 item"),
    "misspelt scheme": (
        lambda c: full(c)["normalization"].__setitem__(1, "zscor"),
        r"configurations.3d_fullres.normalization\[1\]: found 'zscor', did you mean 'zscore'",
    ),
    "misspelt network": (
        lambda c: full(c)["topology"].update(kind="residul"),
        "configurations.3d_fullres.topology.kind: found 'residul', did you mean 'residual'",
    ),
    "misspelt predecessor": (
        lambda c: c["configurations"]["3d_cascade_fullres"].update(after="3d_lowre"),
        "configurations.3d_cascade_fullres.after: found '3d_lowre', did you mean '3d_lowres'",
    ),
    "predecessor of its own": (
        lambda c: c["configurations"]["3d_lowres"].update(after="3d_cascade_fullres"),
        "configurations.3d_lowres.after: found '3d_cascade_fullres', which works after '3d_lowres' itself",
    ),
    "predecessor in 2D": (
        lambda c: c["configurations"]["3d_cascade_fullres"].update(after="2d"),
        "configurations.3d_cascade_fullres.after: joins 2d and 3d_cascade_fullres, .* both must be 3D",
    ),
    "a name that is a path": (
        lambda c: c["configurations"].update({"../up": {"inherits_from": "2d"}}),
        "configurations.../up: must match",
    ),
    "stride of two axes": (
        lambda c: full(c)["topology"]["strides"].__setitem__(2, [2, 2]),
        r"configurations.3d_fullres.topology.strides\[2\]: needs 3 numbers like the others, found \[2, 2\]",
    ),
    "stride of zero": (
        lambda c: full(c)["topology"]["strides"][2].__setitem__(1, 0),
        r"configurations.3d_fullres.topology.strides\[2\]\[1\]: must be greater than or equal to 1, found 0",
    ),
    "first stride": (
        lambda c: full(c)["topology"]["strides"].__setitem__(0, [2, 2, 2]),
        r"topology.strides\[0\]: must be all ones, found \[2, 2, 2\]",
    ),
    "kernel too many": (
        lambda c: full(c)["topology"]["kernel_sizes"].append([3, 3, 3]),
        "topology.kernel_sizes: needs one entry for each of the 3 stages of 'features', found 4",
    ),
    "even kernel": (
        lambda c: full(c)["topology"]["kernel_sizes"][1].__setitem__(0, 2),
        r"topology.kernel_sizes\[1\]\[0\]: must be odd, found 2",
    ),
    "decoder too long": (
        lambda c: full(c)["topology"].update(decoder_blocks=[1, 1, 1]),
        "topology.decoder_blocks: needs 2 entries, one fewer than 'features', found 3",
    ),
    "patch of two axes": (
        lambda c: full(c).update(patch_size=[16, 16]),
        "3d_fullres.patch_size: needs 3 numbers for this 3D network, found 2",
    ),
    "patch that does not halve": (
        lambda c: full(c)["patch_size"].__setitem__(1, 22),
        r"3d_fullres.patch_size\[1\]: must be a multiple of 4 along y, such as 20 or 24, found 22",
    ),
    "a last stage of one voxel": (
        lambda c: full(c).update(patch_size=[4, 4, 4]),
        "3d_fullres.patch_size: must be more than 4 x 4 x 4 voxels: the last stage .* single one",
    ),
    "schemes of other channels": (
        lambda c: full(c).update(normalization=["ct"], use_mask_for_norm=[False]),
        "3d_fullres.normalization: needs one scheme for each of 2 channels, found 1",
    ),
    "masks of other channels": (
        lambda c: full(c).update(use_mask_for_norm=[False]),
        "3d_fullres.use_mask_for_norm: needs 2 values like 'normalization', found 1",
    ),
    "intensities of other channels": (
        lambda c: c["intensities"].pop(),
        "intensities: needs one entry .* 2 ch.*found 1",
    ),
    "axes twice": (
        lambda c: c.update(axis_order=[0, 1, 1]),
        r"axis_order: must hold 0, 1 and 2 once each, found \[0, 1",
    ),
    "two axes": (lambda c: c.update(axis_order=[0, 1]), r"axis_order\[2\]: is missing"),
    "mirror a fourth axis": (lambda c: c.update(mirror_axes=[0, 3]), r"mirror_axes\[1\]: must be less .* found 3"),
    "mirror twice": (lambda c: c.update(mirror_axes=[1, 1]), r"mirror_axes\[1\]: must be one of .*, found 1"),
    "3D networks for pictures": (
        lambda c: c.update(dimensions=2, mirror_axes=[1, 2]),
        "configurations.3d_lowres.topology: is a 3D network, but every case is a 2D image",
    ),
    "labels with a gap": (lambda c: c["labels"]["labels"].update(tumour=3), "labels: label values must be consecutive"),
    "text for a label": (
        lambda c: c["labels"]["labels"].update(liver="one"),
        "labels.labels.liver: must be a valid int",
    ),
    "inherits from nobody": (
        lambda c: c["configurations"].update(big={"inherits_from": "3d_fulres"}),
        "configurations.big.inherits_from: found '3d_fulres', did you mean '3d_fullres'",
    ),
    "inherits from no name": (
        lambda c: c["configurations"].update(big={"inherits_from": ["2d"]}),
        r"configurations.big.inherits_from: found \['2d'\]",
    ),
    "inherits in a circle": (
        lambda c: c["configurations"].update(a={"inherits_from": "b"}, b={"inherits_from": "a"}),
        "configurations.a.inherits_from: goes in a circle through a, b",
    ),
    "inherits from itself": (
        lambda c: c["configurations"].update(a={"inherits_from": "a"}),
        "configurations.a.inherits_from: goes in a circle through a",
    ),
    "another format": (lambda c: c.update(format=2), "format: must be 1, found 2"),
}


@pytest.mark.parametrize("kind", list(WRONG))
def test_a_wrong_value_is_told_with_its_place_in_one_line(tmp_path: Path, kind: str) -> None:
    edit, message = WRONG[kind]
    file = edited(tmp_path, edit)
    with pytest.raises(DataError) as caught:
        Plan.read(file)
    assert str(file) in str(caught.value)
    assert any(re.search(message, line) for line in str(caught.value).splitlines())


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        content["chanels"] = 1
        full(content)["batch_size"] = 0
        full(content)["topology"]["kind"] = "plian"
        content["configurations"]["2d"]["patch_size"] = [22, 24]
        content["configurations"]["3d_cascade_fullres"]["after"] = "lowres"
        content["configurations"]["own"] = {"inherits_from": "3d"}

    with pytest.raises(DataError, match="6 problems") as caught:
        Plan.read(edited(tmp_path, edit))
    for place in (
        "chanels",
        "3d_fullres.batch_size",
        "topology.kind",
        "2d.patch_size",
        "fullres.after",
        "own.inherits",
    ):
        assert place in str(caught.value)


def test_a_wrong_value_is_told_of_the_configuration_that_says_it(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        full(content)["batch_size"] = 0
        content["configurations"]["heir"] = {"inherits_from": "3d_fullres", "patch_size": [16, 16, 16]}

    with pytest.raises(DataError, match=r"configurations\.3d_fullres\.batch_size") as caught:
        Plan.read(edited(tmp_path, edit))
    assert "heir" not in str(caught.value) and "cascade" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"), [('{\n "format": 1,\n "dataset" "x"}', "line 3, column 12"), ("[" * 100_000, "not valid JSON")]
)
def test_a_file_that_is_no_json_is_told_with_the_line(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(DataError, match=place):
        Plan.read(tmp_path / "plan.json")


def test_a_list_is_no_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(DataError, match="must be an object"):
        Plan.read(tmp_path / "plan.json")


def test_a_plan_read_back_is_the_same(tmp_path: Path) -> None:
    made = plan()
    made.write(tmp_path / "plan.json")
    read = Plan.read(tmp_path / "plan.json")
    assert read == made
    assert read.content_hash() == made.content_hash()


def test_the_cascade_is_written_as_what_differs_from_full_resolution(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        assert set(content["configurations"]["3d_cascade_fullres"]) == {
            "inherits_from", "after", "memory_bytes", "reasons",
        }  # fmt: skip
        full(content)["patch_size"] = [24, 24, 24]

    assert Plan.read(edited(tmp_path, edit)).configurations["3d_cascade_fullres"].patch_size == (24, 24, 24)


def test_a_cascade_unlike_any_other_configuration_is_written_in_full(tmp_path: Path) -> None:
    cascade = configuration(batch_size=3, after="3d_lowres")
    made = plan().model_copy(update={"configurations": {**plan().configurations, "3d_cascade_fullres": cascade}})
    made.write(tmp_path / "plan.json")
    assert "inherits_from" not in (tmp_path / "plan.json").read_text()
    assert Plan.read(tmp_path / "plan.json") == made


def test_an_heir_says_only_what_differs_through_any_number_of_steps(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        content["configurations"]["huge"] = {"inherits_from": "big", "topology": {"features": [8, 12, 16]}}
        content["configurations"]["big"] = {"inherits_from": "3d_fullres", "patch_size": [32, 32, 32], "batch_size": 1}

    read = Plan.read(edited(tmp_path, edit))
    parent, huge = read.configurations["3d_fullres"], read.configurations["huge"]
    assert (huge.patch_size, huge.batch_size, huge.spacing) == ((32, 32, 32), 1, parent.spacing)
    assert huge.topology == parent.topology.model_copy(update={"features": (8, 12, 16)})


def test_what_is_said_about_the_parents_values_is_not_inherited(tmp_path: Path) -> None:
    read = Plan.read(edited(tmp_path, lambda c: c["configurations"].update(heir={"inherits_from": "3d_fullres"})))
    heir = read.configurations["heir"]
    assert read.configurations["3d_fullres"].reasons and not heir.reasons
    assert heir.memory_bytes is None


def test_null_takes_an_inherited_value_away(tmp_path: Path) -> None:
    heir = {"inherits_from": "3d_cascade_fullres", "after": None}
    read = Plan.read(edited(tmp_path, lambda c: c["configurations"].update(heir=heir)))
    assert read.configurations["heir"].after is None


def test_an_heir_with_the_same_preprocessing_has_the_same_preprocessing_hash(tmp_path: Path) -> None:
    heirs = {
        "big": {"inherits_from": "3d_fullres", "patch_size": [32, 32, 32]},
        "fine": {"inherits_from": "3d_fullres", "spacing": [1, 1, 1]},
    }
    read = Plan.read(edited(tmp_path, lambda c: c["configurations"].update(heirs)))
    assert (
        read.preprocessing_hash("big")
        == read.preprocessing_hash("3d_fullres")
        == plan().preprocessing_hash("3d_fullres")
    )
    assert read.preprocessing_hash("fine") != read.preprocessing_hash("big")


def test_the_default_configuration_is_one_that_works_alone() -> None:
    whole = plan()
    assert whole.default_configuration == "3d_fullres"
    others = {name: c for name, c in whole.configurations.items() if name in ("3d_cascade_fullres", "3d_lowres")}
    assert whole.model_copy(update={"configurations": others}).default_configuration == "3d_lowres"
