"""Bad input through the whole command line: the exit code, a message with case and remedy, nothing half-written."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfcfg.io import read_image, read_label, write_image, write_label

CASE = "case_003"
SETS = ["--set", "epochs=1", "--set", "iterations_per_epoch=1", "--set", "validation_iterations=0"]


def image(raw: Path, channel: int = 0, case: str = CASE) -> Path:
    return raw / "imagesTr" / f"{case}_{channel:04d}.nii.gz"


def label(raw: Path) -> Path:
    return raw / "labelsTr" / f"{CASE}.nii.gz"


def change_image(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(raw: Path) -> None:
        voxels, place = read_image(image(raw))
        changed = change(voxels.astype(np.float32))
        write_image(image(raw), changed, place.model_copy(update={"shape": changed.shape[1:]}))

    return damage


def change_label(change: Callable[[Any], Any], **geometry: Any) -> Callable[[Path], None]:
    def damage(raw: Path) -> None:
        values, place = read_label(label(raw))
        changed = change(values.astype(np.float32))
        place = place.model_copy(update={"shape": changed.shape, **geometry})
        write_image(label(raw), changed[np.newaxis], place)

    return damage


def with_values(value: float) -> Callable[[Any], Any]:
    def change(voxels: Any) -> Any:
        voxels[..., 2:4, 3] = value
        return voxels

    return change


def cut(raw: Path) -> None:
    image(raw).write_bytes(image(raw).read_bytes()[:-500])


def flip(raw: Path) -> None:
    content = bytearray(image(raw).read_bytes())
    content[len(content) // 2] ^= 1
    image(raw).write_bytes(content)


def zero_spacing(raw: Path) -> None:
    content = bytearray(gzip.decompress(image(raw).read_bytes()))
    content[80:84] = np.float32(0).tobytes()
    image(raw).write_bytes(gzip.compress(bytes(content)))


def describe(**changes: Any) -> Callable[[Path], None]:
    def damage(raw: Path) -> None:
        file = raw / "dataset.json"
        content = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return damage


def splits(content: Any) -> Callable[[Path], None]:
    return lambda raw: (raw / "splits_final.json").write_text(json.dumps(content)) and None


def one_slice(raw: Path) -> None:
    for channel in range(2):
        voxels, place = read_image(image(raw, channel))
        write_image(
            image(raw, channel), voxels[:, :, :1], place.model_copy(update={"shape": voxels[:, :, :1].shape[1:]})
        )
    values, place = read_label(label(raw))
    write_label(label(raw), values[:, :1], place.model_copy(update={"shape": values[:, :1].shape}))


def copied(raw: Path) -> None:
    for channel in range(2):
        shutil.copyfile(image(raw, channel, "case_001"), image(raw, channel))


ROTATED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
LABELS = {"background": 0, "organ": 1, "lesion": 2}

BAD: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "truncated gzip": (cut, [CASE, "copy or export"]),
    "flipped byte": (flip, [CASE, "copy or export"]),
    "empty file": (lambda raw: image(raw).write_bytes(b"") and None, [CASE, "0 bytes"]),
    "another format": (lambda raw: image(raw).write_text("no image at all") and None, [CASE]),
    "NaN": (change_image(with_values(float("nan"))), [CASE, "NaN"]),
    "infinite": (change_image(with_values(float("inf"))), [CASE, "infinite"]),
    "all zero": (change_image(lambda voxels: voxels * 0), [CASE, "all voxels are 0"]),
    "zero spacing": (zero_spacing, [CASE, "spacing"]),
    "another shape": (change_image(lambda voxels: voxels[:, 1:]), [CASE, "shape"]),
    "one-voxel axis": (one_slice, [CASE]),
    "channel missing": (lambda raw: image(raw, 1).unlink(), [CASE, "channels"]),
    "label missing": (lambda raw: label(raw).unlink(), [CASE]),
    "undeclared value": (change_label(with_values(7)), [CASE, "7"]),
    "half a label": (change_label(with_values(0.5)), [CASE, "0.5"]),
    "NaN in a label": (change_label(with_values(float("nan"))), [CASE]),
    "rotated label": (change_label(lambda values: values, direction=ROTATED), [CASE, "direction"]),
    "moved label": (change_label(lambda values: values, origin=(90.0, 0.0, 0.0)), [CASE]),
    "orphan label": (
        lambda raw: shutil.copyfile(label(raw), raw / "labelsTr" / "nobody.nii.gz") and None,
        ["nobody"],
    ),
    "copy of another case": (copied, [CASE, "case_001"]),
    "unknown key": (describe(file_endings=".nii.gz"), ["file_endings", "did you mean 'file_ending'"]),
    "key missing": (describe(labels=None), ["labels", "missing"]),
    "labels with a gap": (describe(labels={**LABELS, "lesion": 3}), ["consecutive"]),
    "channels misnumbered": (describe(channel_names={"T1": "0", "T2": "1"}), ["channel_names"]),
    "ending not supported": (describe(file_ending=".dcm"), [".dcm"]),
    "not JSON": (lambda raw: (raw / "dataset.json").write_text("{") and None, ["dataset.json", "not valid JSON"]),
    "split of unknown cases": (splits([{"train": ["case_000"], "val": ["case_099"]}]), ["case_099"]),
    "split that leaks": (splits([{"train": ["case_000", "case_001"], "val": ["case_001"]}]), ["case_001"]),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_data_stops_the_road_before_anything_is_made(selfcfg, workspace: Path, kind: str) -> None:
    damage, words = BAD[kind]
    raw = workspace / "raw" / "Dataset901_Tiny"
    damage(raw)
    before = {file: file.read_bytes() for file in raw.rglob("*") if file.is_file()}
    for command in (["check", 901], ["plan-and-train", 901, *SETS]):
        answer = selfcfg(*command, "--jobs", 1, "--workspace", workspace)
        assert answer.code == 1, answer.err
        for word in words:
            assert word in answer.err, (word, answer.err)
    assert {file: file.read_bytes() for file in raw.rglob("*") if file.is_file()} == before
    assert not list(workspace.rglob("plans")) and not list(workspace.rglob("run.json"))
    assert not [path for path in workspace.rglob("*") if path.name.startswith(".tmp-")]


def test_an_output_that_cannot_be_made_is_named(selfcfg, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    answer = selfcfg("check", 901, "--jobs", 1, "--workspace", workspace)
    assert answer.code == 0
    pictures = workspace / "raw" / "Dataset901_Tiny" / "imagesTr"
    labels = workspace / "raw" / "Dataset901_Tiny" / "labelsTr"
    options = ["--images", pictures, "--labels", labels, "--id", 5, "--name", "Blocked", "--channels", "T1,T2"]
    answer = selfcfg("convert", "folder", *options, "--workspace", tmp_path / "file" / "w")
    assert answer.code in (1, 2)
    assert "file" in answer.err
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.slow
def test_weights_of_another_plan_are_refused(selfcfg, workspace: Path, tmp_path: Path) -> None:
    settings = [*SETS, "--set", "workers=0", "--jobs", 1, "--workspace", workspace]
    run = Path(selfcfg("plan-and-train", 901, "--fold", 0, *settings).result["run"])
    plan = run / "fold_0" / "plan.json"
    content = json.loads(plan.read_text())
    content["configurations"]["3d_fullres"]["spacing"][0] *= 2
    plan.write_text(json.dumps(content))
    source = workspace / "raw" / "Dataset901_Tiny" / "imagesTs"
    answer = selfcfg("predict", run, "-i", source, "-o", tmp_path / "out")
    assert answer.code == 1
    assert "plan" in answer.err
    assert not list((tmp_path / "out").glob("*.nii.gz"))
