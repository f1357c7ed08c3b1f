"""Each kind of bad input in one case of an otherwise good dataset: found with its case, its file and a remedy."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from selfcfg.dataset import Dataset
from selfcfg.engine.checks.check import Finding, check
from selfcfg.errors import DataError
from selfcfg.geometry import Geometry
from selfcfg.io import read_case, read_image, write_image, write_label

BAD = "case_003"
OTHER = "case_005"

SHAPE = (8, 12, 10)
PLACE = Geometry(shape=SHAPE, spacing=(2.0, 1.0, 1.0), origin=(5.0, 6.0, 7.0))


def voxels(number: int) -> np.ndarray[Any, Any]:
    return np.random.Generator(np.random.Philox(key=[number, 0])).normal(100, 20, (1, *SHAPE)).astype(np.float32)


def labelled() -> np.ndarray[Any, Any]:
    label = np.zeros(SHAPE, np.uint8)
    label[2:6, 3:9, 2:5], label[2:6, 3:9, 5:8] = 1, 2
    return label


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw") / "Dataset001_Good"
    for number in range(7):
        for channel in range(2):
            path = root / "imagesTr" / f"case_00{number}_000{channel}.nii.gz"
            write_image(path, voxels(10 * number + channel), PLACE)
        write_label(root / "labelsTr" / f"case_00{number}.nii.gz", labelled(), PLACE)
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": 7,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.fixture
def root(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / good.name))


def image(root: Path, case: str = BAD, channel: int = 0) -> Path:
    return root / "imagesTr" / f"{case}_{channel:04d}.nii.gz"


def label(root: Path, case: str = BAD) -> Path:
    return root / "labelsTr" / f"{case}.nii.gz"


def test_a_good_dataset_has_no_findings(root: Path) -> None:
    assert check(root, 1) == []
    assert sorted(path.name for path in root.iterdir()) == ["dataset.json", "imagesTr", "labelsTr"]


def rewrite_image(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        found, place = read_image(image(root))
        changed = change(found.copy())
        write_image(image(root), changed, place.model_copy(update={"shape": changed.shape[1:]}))

    return apply


def rewrite_label(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        changed = change(labelled())
        write_image(label(root), changed[np.newaxis], PLACE.model_copy(update={"shape": changed.shape}))

    return apply


def put(value: float) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    def change(found: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found = found.astype(np.float32)
        found[..., 0, 0, :3] = value
        return found

    return change


def move_label(**change: Any) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        write_label(label(root), labelled(), PLACE.model_copy(update=change))

    return apply


def cut(place: Callable[[Path], Path]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = place(root)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    return apply


def misnumber(root: Path) -> None:
    image(root, channel=1).rename(image(root, channel=2))


def flip(root: Path) -> None:
    content = bytearray(image(root).read_bytes())
    content[len(content) // 2] ^= 0x10
    image(root).write_bytes(content)


def header(**fields: Any) -> Callable[[Path], None]:
    """Overwrites header fields of the image, as a broken converter does."""

    def apply(root: Path) -> None:
        path = image(root)
        loaded: Any = nib.load(path)
        voxels = np.asarray(loaded.dataobj)
        raw = loaded.header.copy()
        for key, value in fields.items():
            raw[key] = value
        plain = path.with_name("x.nii")
        nib.save(nib.Nifti1Image(voxels, None, loaded.header), plain)
        content = raw.binaryblock + plain.read_bytes()[348:]
        plain.unlink()
        path.write_bytes(content)

    return apply


def flat_case(root: Path) -> None:
    for channel in range(2):
        found, place = read_image(image(root, channel=channel))
        write_image(image(root, channel=channel), found[:, :1], place.model_copy(update={"shape": (1, *SHAPE[1:])}))
    write_label(label(root), labelled()[3:4], PLACE.model_copy(update={"shape": (1, *SHAPE[1:])}))


def thin_case(root: Path) -> None:
    for channel in range(2):
        found, place = read_image(image(root, channel=channel))
        write_image(image(root, channel=channel), found[:, :, :1], place.model_copy(update={"shape": (8, 1, 10)}))
    write_label(label(root), labelled()[:, 4:5], PLACE.model_copy(update={"shape": (8, 1, 10)}))


def rotated(root: Path) -> None:
    direction = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    write_label(label(root), labelled(), PLACE.model_copy(update={"direction": direction}))


def copy_images(root: Path) -> None:
    for channel in range(2):
        shutil.copyfile(image(root, OTHER, channel), image(root, BAD, channel))


def copy_voxels(root: Path) -> None:
    """The same numbers in another type and with another header: no byte of the file is the same."""
    for channel in range(2):
        found, place = read_image(image(root, OTHER, channel))
        moved = place.model_copy(update={"origin": (0.0, 0.0, 1.0)})
        write_image(image(root, BAD, channel), found.astype(np.float64), moved)
    write_label(label(root), labelled(), moved)


BAD_CASES: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "truncated image": (cut(image), "unreadable", "cut short", "copy or export"),
    "truncated label": (cut(label), "unreadable", "cut short|too few", "copy or export"),
    "flipped byte": (flip, "unreadable", "damaged", "copy or export"),
    "text named as an image": (lambda root: image(root).write_text("hello") and None, "unreadable", "too few", "copy"),
    "empty file": (lambda root: image(root).write_bytes(b"") and None, "unreadable", "only 0 bytes", "copy or export"),
    "NaN": (rewrite_image(put(float("nan"))), "not finite", "3 NaN of 960 voxels", "replace them"),
    "infinite": (rewrite_image(put(float("inf"))), "not finite", "3 infinite of 960 voxels", "replace them"),
    "all zero": (
        rewrite_image(lambda found: found * 0),
        "constant image",
        "all voxels are 0",
        "export the image again",
    ),
    "constant": (rewrite_image(lambda found: found * 0 + 7), "constant image", "value 7", "export the image again"),
    "channels misnumbered": (misnumber, "channels", "numbered 0000, 0002", "number them"),
    "channel missing": (
        lambda root: image(root, channel=1).unlink(),
        "channels",
        r"1 channels in case_003_0000\.nii\.gz, but 2",
        "add",
    ),
    "first channel missing": (
        lambda root: image(root).unlink(),
        "channels",
        r"1 channels in case_003_0001\.nii\.gz, but 2",
        "add",
    ),
    "label missing": (lambda root: label(root).unlink(), "missing label", "no such file", "put the label there"),
    "undeclared value": (
        rewrite_label(lambda found: np.where(found == 2, 7, found).astype(np.uint8)),
        "label values",
        r"values 7 \(72 voxels\) are not declared",
        "declare them in labels",
    ),
    "mask of 255": (rewrite_label(lambda found: found * 127), "label values", r"127 .*254 ", "selfcfg convert folder"),
    "negative value": (rewrite_label(lambda found: found.astype(np.int16) - 1), "label values", "-1", "declare them"),
    "half a label": (
        rewrite_label(lambda found: found * np.float32(0.5)),
        "label values",
        "not whole numbers",
        "nearest",
    ),
    "NaN label": (rewrite_label(put(float("nan"))), "label values", "3 voxels are NaN", "whole numbers"),
    "label shape": (rewrite_label(lambda found: found[1:]), "shape mismatch", r"shape \(7, 12, 10\) and \(8", "grid"),
    "label spacing": (move_label(spacing=(2.0, 1.1, 1.0)), "spacing mismatch", "1.1", "resample one onto the other"),
    "label origin": (move_label(origin=(5.0, 9.0, 7.0)), "origin mismatch", "9.0", "same grid"),
    "rotated direction": (rotated, "direction mismatch", "direction", "same grid"),
    "tiny drift": (move_label(origin=(5.0, 6.02, 7.0)), "geometry drift", "a little", "check --fix"),
    "zero spacing": (header(pixdim=[1, 0, 1, 2, 0, 0, 0, 0]), "spacing", "spacing", "true spacing in mm"),
    "NaN spacing": (header(pixdim=[1, float("nan"), 1, 2, 0, 0, 0, 0]), "spacing", "nan", "true spacing in mm"),
    "singular axes": (header(srow_x=[0, 0, 0, 0], qform_code=0), "spacing", "directions", "true spacing in mm"),
    "longer than its header": (header(dim=[3, 10, 12, 7, 1, 1, 1, 1]), "unreadable", "its header promises", "copy"),
    "shorter than its header": (header(dim=[3, 10, 12, 9, 1, 1, 1, 1]), "unreadable", "its header promises", "copy"),
    "flat among volumes": (flat_case, "dimensions", r"one slice, shape \(1, 12, 10\), unlike 6 of 7", "separate"),
    "one voxel along y": (thin_case, "thin axis", "one voxel along y", "order of the axes"),
    "copied files": (copy_images, "duplicate image", "another subject", "remove one of the two"),
    "copied voxels": (copy_voxels, "duplicate image", "another subject", "remove one of the two"),
}


@pytest.mark.parametrize("name", BAD_CASES)
def test_bad_case(root: Path, name: str) -> None:
    damage, kind, found, remedy = BAD_CASES[name]
    damage(root)
    findings = check(root, 1)
    hits = [finding for finding in findings if finding.kind == kind]
    assert len(hits) == 1, findings
    hit = hits[0]
    assert hit.severity == "error"
    assert hit.case == (OTHER if kind == "duplicate image" else BAD)
    assert re.search(found, hit.found), hit.found
    assert remedy in hit.remedy
    # Nothing is said of the other cases, apart from the copy's original.
    assert {finding.case for finding in findings} <= {BAD, OTHER, ""}


@pytest.mark.parametrize(
    "name",
    [
        "truncated image",
        "truncated label",
        "flipped byte",
        "NaN",
        "infinite",
        "label missing",
        "half a label",
        "label shape",
        "label spacing",
        "rotated direction",
        "tiny drift",
        "zero spacing",
        "longer than its header",
    ],
)
def test_what_check_refuses_is_not_read_for_training_either(root: Path, name: str) -> None:
    BAD_CASES[name][0](root)
    with pytest.raises(DataError, match=BAD):
        read_case(Dataset.open(root).case(BAD))


def test_every_finding_of_every_case_in_one_pass(root: Path) -> None:
    cut(image)(root)
    move_label(origin=(5.0, 9.0, 7.0), spacing=(2.0, 1.5, 1.0))(root)
    write_image(image(root, OTHER, 1), voxels(1) * np.float32(np.nan), PLACE)
    label(root, OTHER).unlink()
    write_label(label(root, "case_006"), labelled() * 0, PLACE)
    (root / "labelsTr" / "case_099.nii.gz").write_bytes(label(root, "case_001").read_bytes())
    found = {(finding.case, finding.kind) for finding in check(root, 1)}
    assert {
        (BAD, "unreadable"),
        (BAD, "origin mismatch"),
        (BAD, "spacing mismatch"),
        (OTHER, "not finite"),
        (OTHER, "missing label"),
        ("case_006", "empty label"),
        ("case_099", "orphan"),
    } <= found


def test_several_processes_find_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(image)(root)
    rewrite_label(lambda found: found * 100)(root)
    alone = check(root, 1)
    monkeypatch.setattr("selfcfg.engine.checks.check._SMALL", 0)
    assert check(root, 2) == alone
    assert len(alone) == 2


def test_findings_are_sorted_and_say_everything(root: Path) -> None:
    for damage in (cut(image), cut(label)):
        damage(root)
    image(root, "case_001", 1).unlink()
    findings = check(root, 1)
    assert [finding.case for finding in findings] == sorted(finding.case for finding in findings)
    for finding in findings:
        assert isinstance(finding, Finding)
        assert finding.found
        assert finding.remedy
        assert not Path(finding.file).is_absolute()
