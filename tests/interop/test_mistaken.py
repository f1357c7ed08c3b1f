"""What people give to `import` that is no package, or no model of nnU-Net: each is named, with what to do."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from selfcfg.cli import main
from selfcfg.errors import DataError, UsageError
from selfcfg.interop.nnunet_model_read import import_model
from selfcfg.interop.package_read import import_package

Make = Callable[[Path], Path]


def holding(*names: str) -> Make:
    """A function that makes a folder with some empty files."""

    def make(place: Path) -> Path:
        for name in names:
            (place / "given" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "given" / name).write_bytes(b"")
        return place / "given"

    return make


def zipped(*names: str) -> Make:
    def make(place: Path) -> Path:
        with zipfile.ZipFile(place / "given.zip", "w") as archive:
            for name in names:
                archive.writestr(name, "{}")
        return place / "given.zip"

    return make


def file_of(content: bytes) -> Make:
    def make(place: Path) -> Path:
        (place / "given.zip").write_bytes(content)
        return place / "given.zip"

    return make


def checkpoint(place: Path) -> Path:
    torch.save({"network_weights": {}}, place / "checkpoint_final.pth")
    return place / "checkpoint_final.pth"


NNUNET = ("m/plans.json", "m/fold_0/checkpoint_final.pth")
PACKAGE = ("manifest.json", "README.md", "e/fold_0/run.json")
TO_PACKAGE: dict[str, tuple[Make, str]] = {
    "an unpacked package": (holding(*PACKAGE), "unpacked already; give it to selfcfg predict as it is"),
    "a folder of nnU-Net's": (holding(*NNUNET), "a model of nnU-Net; take it in with selfcfg import nnunet"),
    "nnU-Net's results": (holding(*(f"D/{name}" for name in NNUNET)), "selfcfg import nnunet MODEL_DIR_OR_ZIP"),
    "a fold of nnU-Net's": (holding("checkpoint_best.pth", "debug.json"), "one fold .*; give the folder above it"),
    "an experiment": (holding("fold_0/run.json", "fold_0/plan.json"), "an experiment of selfcfg; give its folder"),
    "a dataset": (holding("dataset.json", "imagesTr/a_0000.nii.gz"), "a dataset; train with it"),
    "a folder of archives": (holding("lesions.zip", "notes.txt"), "give one of the .zip files in it"),
    "any folder": (holding("a.txt", "b/c.txt"), "a folder, no package: it holds a.txt, b; a package is what"),
    "an empty folder": (lambda place: (place / "given").mkdir() or place / "given", "it holds nothing; a package is"),
    "nnU-Net's archive": (zipped(*(f"D/{name}" for name in NNUNET)), "a model of nnU-Net; take it in with selfcfg imp"),
    "a package packed again": (zipped(*(f"x/{name}" for name in PACKAGE)), "deeper than it was exported; give the"),
    "any archive": (zipped("a.txt", "b/c.txt"), "there is no manifest.json in it, it holds a.txt, b; a package is"),
    "a checkpoint": (checkpoint, "a checkpoint of PyTorch; of nnU-Net's, give the whole model folder"),
    "half a download": (file_of(b"PK\x03\x04" + bytes(900)), "not copied or downloaded whole; copy or download it"),
    "an empty file": (file_of(b""), "it is empty; copy or download it again"),
    "a login page": (file_of(b"\n<!DOCTYPE html><html>"), "a web page or other markup; download the file itself"),
    "a gzip file": (file_of(b"\x1f\x8b\x08\x00"), "a gzip file; give the .zip file"),
    "anything": (file_of(b"hello"), "not a zip archive, or cut short; a package is what"),
    "nothing": (lambda place: place / "nothing.zip", "there is no such file; check the path"),
}  # fmt: skip
TO_NNUNET: dict[str, tuple[Make, str]] = {
    "a package": (zipped(*PACKAGE), "a package of selfcfg; take it in with selfcfg import FILE"),
    "an unpacked package": (holding(*PACKAGE), "unpacked already; give it to selfcfg predict"),
    "a fold": (holding("checkpoint_final.pth"), "one fold of a model of nnU-Net; give the folder above it"),
    "no plans": (holding("fold_0/checkpoint_final.pth"), "no plans.json with fold_. folders beside it; it holds"),
    "a dataset": (holding("imagesTr/a_0000.nii.gz"), "a dataset; train with it"),
    "a checkpoint": (checkpoint, "a checkpoint of PyTorch; of nnU-Net's, give the whole model folder"),
    "any archive": (zipped("a.txt"), "no plans.json with fold_. folders beside it; it holds a.txt; give nnU-Net"),
    "half a download": (file_of(b"PK\x03\x04" + bytes(900)), "not copied or downloaded whole; copy or download it"),
    "nothing": (lambda place: place / "nothing", "there is no such folder or file; check the path"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TO_PACKAGE)
def test_what_is_no_package_is_named(kind: str, tmp_path: Path) -> None:
    make, told = TO_PACKAGE[kind]
    given = make(tmp_path)
    with pytest.raises((UsageError, DataError), match=f"import .*{given.name}: .*{told}"):
        import_package(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", TO_NNUNET)
def test_what_is_no_model_of_nnunet_is_named(kind: str, tmp_path: Path) -> None:
    make, told = TO_NNUNET[kind]
    with pytest.raises((UsageError, DataError), match=told):
        import_model(make(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_read_is_no_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = zipped(*PACKAGE)(tmp_path)

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    for take in (import_package, import_model):
        with pytest.raises(UsageError, match=r"Permission denied; check the file and its permissions"):
            take(given, tmp_path / "out")


def test_options_may_stand_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = zipped("a.txt")(tmp_path)
    for options in (["--out", str(tmp_path / "out")], ["--debug"], ["--json"]):
        assert main(["import", *options, str(given)]) == 1
        assert "there is no manifest.json in it" in capsys.readouterr().err
    assert main(["import", "--help"]) == 0
    assert "nnunet" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["nnunet"]], ids=["package", "nnunet"])
def test_an_out_that_is_there_is_named(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = zipped(*(NNUNET if command else PACKAGE))(tmp_path)
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file"):
        assert main(["import", *command, "--out", str(out), str(given), "--json"]) == 2
        told = f"write {out}: it is there already; name another place with --out, or move it away"
        assert json.loads(capsys.readouterr().out)["error"] == told


def test_a_default_out_that_is_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    zipped(*PACKAGE)(tmp_path)
    Path("given").mkdir()
    assert main(["import", "given.zip"]) == 2
    assert "write given: it is there already; name another place with --out" in capsys.readouterr().err
