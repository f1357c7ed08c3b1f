"""Checkpoints and archives that are damaged, hostile or of another kind are refused in one line; nothing is written."""

from __future__ import annotations

import json
import os
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.interop import archive as archives
from selfcfg.interop.nnunet_model_read import import_model
from tests.interop.conftest import FIRST, SECOND, Content, Write, cascade_plan, plan_of

NAME = "encoder.stages.0.0.convs.0.conv.weight"
EVIL = str(Path(tempfile.gettempdir(), "selfcfg-was-here"))
"""What hostile files of these tests try to make."""


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {EVIL}",)


def without(key: str) -> Callable[[Content], Content]:
    return lambda content: {name: value for name, value in content.items() if name != key}


def with_weights(**tensors: Any) -> Callable[[Content], Content]:
    return lambda content: {**content, "network_weights": {**content["network_weights"], **tensors}}


def poisoned(content: Content) -> Content:
    for tensor in content["network_weights"].values():
        tensor[...] = float("nan")
    return content


CHECKPOINTS: dict[str, tuple[Callable[[Content], Any], str]] = {
    "code": (lambda content: {**content, "logging": Evil()}, r"it would run code to be read: (posix|nt)\.system; only"),
    "a class": (lambda content: {**content, "extra": torch.nn.Linear(1, 1)}, r"run code.*nn\.modules\.linear\.Linear"),
    "a list": (lambda content: [1], "it holds a list"),
    "no weights": (without("network_weights"), "no usable network_weights"),
    "empty weights": (lambda content: {**content, "network_weights": {}}, "no usable network_weights"),
    "no trainer": (without("trainer_name"), "no usable trainer_name"),
    "a trainer in Markdown": (lambda content: {**content, "trainer_name": "a\n# b"}, "no usable trainer_name"),
    "no configuration": (lambda content: {**content, "init_args": {}}, r"no usable init_args\.configuration"),
    "batch norm": (lambda content: {**content, "trainer_name": "nnUNetTrainerBN"}, "TrainerBN builds another network"),
    "transformer": (lambda content: {**content, "trainer_name": "nnUNet_Primus_M_Trainer"}, "builds another network"),
    "another configuration": (
        lambda content: {**content, "init_args": {"configuration": "3d_fullres"}},
        r"plans\.json: no configuration '3d_fullres', of which checkpoint_final\.pth is; known: small",
    ),
    "axes of text": (lambda content: {**content, "inference_allowed_mirroring_axes": "xy"}, "mirroring_axes xy"),
    "a fourth axis": (lambda content: {**content, "inference_allowed_mirroring_axes": (0, 3)}, r"axes \(0, 3\)"),
    "whole numbers": (with_weights(**{NAME: torch.ones(4, 1, 1, 3, 3, dtype=torch.int64)}), "no tensor of real n"),
    "a number": (with_weights(**{NAME: 1.0}), "no tensor of real n"),
    "another shape": (with_weights(**{NAME: torch.ones(4, 2, 1, 3, 3)}), "is not the same tensor as"),
    "two values": (with_weights(**{f"decoder.{NAME}": torch.ones(4, 1, 1, 3, 3)}), "is not the same tensor as"),
    "batch means": (with_weights(**{"encoder.stages.0.0.convs.0.norm.running_mean": torch.ones(4)}), "is not in this"),
    "another network": (with_weights(**{"eva.blocks.0.weight": torch.ones(4)}), r"eva\.blocks\.0\.weight is in no"),
    "not a number": (poisoned, "holds NaN or infinite values"),
    "too large for float32": (
        with_weights(**{"decoder.seg_layers.0.bias": torch.full((3,), 1e300, dtype=torch.float64)}),
        r"head\.seg_layers\.0\.bias holds NaN or infinite values",
    ),
}  # fmt: skip


@pytest.fixture
def source(write_theirs: Write) -> Path:
    return write_theirs(plan_of())[0]


def refused(source: Path, out: Path, match: str, kind: type[SelfcfgError] = DataError, **options: Any) -> None:
    """Asserts that the import is refused in one line and leaves nothing."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(kind, match=match) as caught:
        import_model(source, out, **options)
    assert "\n" not in str(caught.value)
    assert sorted(out.parent.iterdir()) == before and not Path(EVIL).exists()


@pytest.mark.parametrize(("change", "message"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoints(change: Callable[[Content], Any], message: str, source: Path, tmp_path: Path) -> None:
    file = source / "fold_0" / "checkpoint_final.pth"
    torch.save(change(torch.load(file, weights_only=False)), file)
    refused(source, tmp_path / "m", message)


def test_weights_that_are_missing(source: Path, tmp_path: Path) -> None:
    file = source / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["network_weights"] = {k: v for k, v in content["network_weights"].items() if "seg_layers.1" not in k}
    torch.save(content, file)
    refused(source, tmp_path / "m", r"head\.seg_layers\.1\.weight .* is missing")


def test_a_third_axis_of_a_2d_network(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of(dimensions=2))
    refused(source, tmp_path / "m", r"mirroring_axes \(0, 1, 2\) of a 2D network")


def test_damaged_checkpoints(source: Path, tmp_path: Path) -> None:
    file = source / "fold_0" / "checkpoint_final.pth"
    whole = file.read_bytes()
    at = whole.rindex(b"PK\x05\x06") // 2
    for content, message in [
        (whole[: len(whole) // 2], "not a checkpoint of PyTorch, or cut short"),
        (b"", "not a checkpoint of PyTorch"),
        (whole[:at] + bytes(byte ^ 255 for byte in whole[at : at + 64]) + whole[at + 64 :], "damaged"),
    ]:
        file.write_bytes(content)
        refused(source, tmp_path / "m", message)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    refused(source, tmp_path / "m", "it holds more than its size")


def test_folds_of_different_trainings(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of(), (0,))
    write_theirs(plan_of(), (1,), inference_allowed_mirroring_axes=(0,))
    refused(source, tmp_path / "m", "fold_0 and fold_1 are of different configurations or mirror axes")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("features_per_stage", [2**31 - 1] * 3, "the plans ask for 2147483647 feature maps"),
        ("features_per_stage", [2**20] * 3, r"is \(4, 1, 1, 3, 3\) there and \(1048576, 1, 1, 3, 3\) in this network"),
        ("n_conv_per_stage", [2**31 - 1, 1, 1], "but the plans ask for 2147483652 blocks of layers"),
    ],
)
def test_plans_of_a_network_without_bounds(
    key: str, value: list[int], message: str, source: Path, tmp_path: Path
) -> None:
    content = json.loads((source / "plans.json").read_text())
    content["configurations"]["small"]["architecture"]["arch_kwargs"][key] = value
    (source / "plans.json").write_text(json.dumps(content))
    refused(source, tmp_path / "m", message)


def test_a_first_stage_of_another_training(write_theirs: Write, tmp_path: Path) -> None:
    first, _ = write_theirs(cascade_plan(), (0,), FIRST)
    source, _ = write_theirs(cascade_plan(), (0,), SECOND)
    content = json.loads((first / "dataset.json").read_text())
    (first / "dataset.json").write_text(json.dumps({**content, "channel_names": {"0": "another"}}))
    refused(source, tmp_path / "m", f"{FIRST} is of {FIRST}, or has other channels or labels")


@pytest.mark.parametrize("name", ["dataset.json", "plans.json"])
def test_missing_files(name: str, source: Path, tmp_path: Path) -> None:
    (source / name).unlink()
    refused(source, tmp_path / "m", name)


def test_sources_that_are_no_models(source: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none", tmp_path / "m", "no such folder or file", UsageError)
    refused(source / "fold_0", tmp_path / "m", "one fold of a model of nnU-Net; give the folder above it")
    refused(source / "plans.json", tmp_path / "m", "not a zip archive")
    refused(source, tmp_path / "m", r"no checkpoint_final\.pth of fold_7 \(there are fold_0\)", UsageError, folds=[7])
    refused(source, tmp_path / "m", "no configuration '2d' in it; known: small", UsageError, configuration="2d")


def packed(folder: Path, file: Path) -> Path:
    """The archive that nnU-Net's export writes of its results folder."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return file


def test_an_archive_is_the_folder_in_it(source: Path, tmp_path: Path) -> None:
    (source / "fold_0" / "validation").mkdir()
    (source / "fold_0" / "validation" / "summary.json").write_text("{}")
    (source / "fold_0" / "progress.png").write_bytes(b"")
    import_model(source, tmp_path / "folder")
    import_model(packed(tmp_path / "theirs", tmp_path / "m.zip"), tmp_path / "archive")
    first, second = (tmp_path / name / "fold_0" / "final.safetensors" for name in ("folder", "archive"))
    assert first.read_bytes() == second.read_bytes()


def test_of_an_archive_of_several_one_is_chosen(write_theirs: Write, tmp_path: Path) -> None:
    plan = cascade_plan()
    for configuration in (FIRST, SECOND):
        write_theirs(plan, (0,), configuration)
    archive = packed(tmp_path / "theirs", tmp_path / "m.zip")
    assert import_model(archive, tmp_path / "m").first == tmp_path / f"m__{FIRST}"
    assert import_model(archive, tmp_path / "first", configuration=FIRST).first is None
    write_theirs(plan_of(), (0,))
    archive = packed(tmp_path / "theirs", tmp_path / "m.zip")
    refused(archive, tmp_path / "n", f"it holds nnU.*__{SECOND}, nnU.*__small; choose one with --config", UsageError)
    assert import_model(archive, tmp_path / "o", configuration="nnUNetTrainer__nnUNetPlans__small").first is None


def test_what_is_wrong_in_an_archive_is_named_by_its_place_there(source: Path, tmp_path: Path) -> None:
    (source / "plans.json").write_text("{")
    archive = packed(tmp_path / "theirs", tmp_path / "m.zip")
    refused(archive, tmp_path / "m", rf"{archive}/Dataset999_Small/.*/plans\.json: not valid JSON")


HOSTILE = {
    "/etc/fold_0/plans.json": "an absolute path",
    "C:/plans.json": "an absolute path",
    "\\\\server\\plans.json": "an absolute path",
    "../plans.json": "a path that leads out",
    "a/../../plans.json": "a path that leads out",
    "a\\..\\..\\plans.json": "a path that leads out",
}


@pytest.mark.parametrize(("name", "message"), HOSTILE.items(), ids=[*map(repr, HOSTILE)])
def test_hostile_names_in_an_archive(name: str, message: str, source: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path / "theirs", tmp_path / "m.zip")
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr(name, "{}")
    refused(archive, tmp_path / "m", f"{message}.*nothing was unpacked")


def test_links_and_secrets_in_an_archive(source: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path / "theirs", tmp_path / "m.zip")
    entry = zipfile.ZipInfo("Dataset999_Small/dataset.json")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr(entry, "/etc/passwd")
    refused(archive, tmp_path / "m", "is a link; nothing was unpacked")
    archive = packed(tmp_path / "theirs", tmp_path / "m.zip")
    raw = bytearray(archive.read_bytes())
    place = raw.index(b"PK\x01\x02") + 8
    raw[place : place + 2] = struct.pack("<H", 1)
    archive.write_bytes(raw)
    refused(archive, tmp_path / "m", "is encrypted; nothing was unpacked")


def test_limits_of_an_archive(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(tmp_path / "theirs", tmp_path / "m.zip")
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    refused(archive, tmp_path / "m", "bytes unpacked, 1000 at most")
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    refused(archive, tmp_path / "m", "3 files in it, 2 at most")


def test_an_entry_larger_than_it_says_is_refused(source: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path / "theirs", tmp_path / "m.zip")
    raw = bytearray(archive.read_bytes())
    place = raw.index(b"PK\x01\x02") + 24
    raw[place : place + 4] = struct.pack("<I", 5)
    archive.write_bytes(raw)
    refused(archive, tmp_path / "m", "damaged")


def test_an_archive_cut_short_or_changed(source: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path / "theirs", tmp_path / "m.zip")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    refused(archive, tmp_path / "m", "not copied or downloaded whole")
    middle = len(whole) // 2
    archive.write_bytes(whole[:middle] + bytes(byte ^ 255 for byte in whole[middle : middle + 9]) + whole[middle + 9 :])
    refused(archive, tmp_path / "m", "damaged")
