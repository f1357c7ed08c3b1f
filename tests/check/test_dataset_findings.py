"""What is wrong with a dataset as a whole: names, counts, orphans, headers that stand out, splits, fixes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfcfg.dataset import Dataset
from selfcfg.engine.checks.check import Finding, check, write_fixes
from selfcfg.errors import DataError
from selfcfg.fixes import Fixes
from selfcfg.geometry import Geometry
from selfcfg.io import read_case, write_image, write_label

SHAPE = (6, 8, 7)
PLACE = Geometry(shape=SHAPE, spacing=(3.0, 1.0, 1.0), origin=(1.0, 2.0, 3.0))
CASES = [f"case_{number}" for number in range(6)]


def labelled() -> np.ndarray[Any, Any]:
    label = np.zeros(SHAPE, np.uint8)
    label[1:4, 2:5, 1:3], label[1:4, 2:5, 3:6] = 1, 2
    return label


def put_case(root: Path, case: str, number: int, place: Geometry = PLACE) -> None:
    rng = np.random.Generator(np.random.Philox(key=[number, 0]))
    write_image(root / "imagesTr" / f"{case}_0000.nii.gz", rng.normal(-500, 300, (1, *SHAPE)).astype(np.float32), place)
    write_label(root / "labelsTr" / f"{case}.nii.gz", labelled(), place)


def describe(root: Path, **change: Any) -> None:
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    description |= change
    (root / "dataset.json").write_text(json.dumps(description))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset002_Whole"
    for number, case in enumerate(CASES):
        put_case(folder, case, number)
    describe(folder)
    return folder


def only(root: Path, kind: str) -> Finding:
    hits = [finding for finding in check(root, 1) if finding.kind == kind]
    assert len(hits) == 1, check(root, 1)
    return hits[0]


def test_all_is_well(root: Path) -> None:
    assert check(root, 1) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"chanel_names": {"0": "CT"}}, "unknown key 'chanel_names', did you mean 'channel_names'"),
        ({"channel_names": {"CT": "0"}}, "must be numbered"),
        ({"labels": {"background": 0, "organ": 2}}, "must be consecutive"),
        ({"labels": {"organ": 1}}, "must declare 'background'"),
        ({"file_ending": ".dcm"}, "is not supported"),
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, "regions_class_order needs one value"),
        ({"numTraining": "many"}, "numTraining"),
    ],
)
def test_a_wrong_description_is_an_error(root: Path, change: dict[str, Any], found: str) -> None:
    describe(root, **change)
    hit = only(root, "description")
    assert (hit.severity, hit.file, hit.case) == ("error", "dataset.json", "")
    assert found in hit.found


def test_a_misspelt_key_does_not_hide_the_cases(root: Path) -> None:
    describe(root, regions_clas_order=[1, 2])
    (root / "labelsTr" / "case_2.nii.gz").unlink()
    assert {finding.kind for finding in check(root, 1)} == {"description", "missing label"}


def test_no_description_and_no_json(tmp_path: Path) -> None:
    assert only(tmp_path, "description").found == "there is no such file"
    (tmp_path / "dataset.json").write_text("{")
    assert "not valid JSON" in only(tmp_path, "description").found


def test_no_cases(tmp_path: Path) -> None:
    describe(tmp_path)
    assert only(tmp_path, "count").found == "no training case was found"


def test_unknown_keys_and_doubtful_channel_names_are_warnings(root: Path) -> None:
    describe(root, acquisition="x", channel_names={"0": "CTA"})
    assert only(root, "description").severity == "warning"
    hit = only(root, "channel names")
    assert (hit.severity, "normalised by z-score" in hit.found, "'CT'" in hit.remedy) == ("warning", True, True)


@pytest.mark.parametrize("name", ["MRI", "T1", "PET", "ct", "RGB_TO_0_1", "FLAIR"])
def test_ordinary_channel_names_are_not_doubted(root: Path, name: str) -> None:
    describe(root, channel_names={"0": name})
    assert not [finding for finding in check(root, 1) if finding.kind == "channel names"]


def test_wrong_number_of_cases(root: Path) -> None:
    describe(root, numTraining=9)
    hit = only(root, "count")
    assert (hit.severity, hit.found) == ("error", "numTraining is 9, but there are 6 cases")


@pytest.mark.parametrize(
    ("name", "severity", "found"),
    [
        ("labelsTr/case_9.nii.gz", "error", "a label without images"),
        ("labelsTr/case_9.nrrd", "error", "not named CASE.nii.gz"),
        ("imagesTr/case_9.nii.gz", "error", "not named CASE_0000.nii.gz"),
        ("imagesTr/case_9_0000.nrrd", "error", "not named CASE_0000.nii.gz"),
        ("imagesTs/case_9.nii.gz", "warning", "not named CASE_0000.nii.gz"),
    ],
)
def test_orphans(root: Path, name: str, severity: str, found: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    shutil.copyfile(root / "labelsTr" / "case_1.nii.gz", root / name)
    hit = only(root, "orphan")
    assert (hit.severity, hit.file) == (severity, name)
    assert found in hit.found
    assert "case_9" in hit.case


def test_test_images_are_read_too_and_are_warnings(root: Path) -> None:
    good = root / "imagesTr" / "case_1_0000.nii.gz"
    folder = root / "imagesTs"
    folder.mkdir()
    rng = np.random.default_rng(9)
    write_image(folder / "case_1_0000.nii.gz", rng.normal(-500, 300, (1, *SHAPE)).astype(np.float32), PLACE)
    assert check(root, 1) == [], "a test case may have the name of a training case"
    shutil.copyfile(good, folder / "same_0000.nii.gz")
    (folder / "cut_0000.nii.gz").write_bytes(good.read_bytes()[:-20])
    write_image(folder / "empty_0000.nii.gz", np.zeros((1, *SHAPE), np.float32), PLACE)
    shifted = PLACE.model_copy(update={"origin": (1.001, 2.0, 3.0)})
    for channel, place in enumerate((PLACE, shifted)):
        write_image(folder / f"two_000{channel}.nii.gz", rng.normal(0, 9, (1, *SHAPE)).astype(np.float32), place)
    found = check(root, 1)
    assert {(finding.case, finding.kind, finding.severity) for finding in found} == {
        ("imagesTs/same", "duplicate image", "warning"),
        ("imagesTs/cut", "unreadable", "warning"),
        ("imagesTs/empty", "constant image", "warning"),
        ("imagesTs/two", "channels", "warning"),
        ("imagesTs/two", "origin mismatch", "warning"),
    }
    assert "training case 'case_1'" in next(one.found for one in found if one.kind == "duplicate image")
    assert check(root, 2) == found and check(root, 1, test_images=False) == []
    assert write_fixes(root, found) == []


def test_hidden_and_other_files_are_not_orphans(root: Path) -> None:
    for name in ("imagesTr/._case_0_0000.nii.gz", "labelsTr/.DS_Store", "imagesTr/notes.txt", "readme.md"):
        (root / name).write_bytes(b"x")
    assert check(root, 1) == []


def test_a_label_without_its_image_is_named_with_what_to_do(root: Path) -> None:
    (root / "imagesTr" / "case_4_0000.nii.gz").unlink()
    describe(root, numTraining=5)
    hit = only(root, "orphan")
    assert (hit.case, hit.remedy) == ("case_4", "put case_4_0000.nii.gz into imagesTr, or move it away")


def test_paths_that_leave_the_dataset_are_told(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "case_1_0000.nii.gz"
    outside.parent.mkdir()
    inside = root / "imagesTr" / outside.name
    shutil.move(inside, outside)
    inside.symlink_to(outside)
    hit = only(root, "outside")
    assert (hit.case, hit.severity) == ("case_1", "warning")
    assert str(outside.resolve()) in hit.found
    listing = {case: {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"} for case in CASES}
    listing["case_1"]["images"] = ["../elsewhere/case_1_0000.nii.gz"]
    describe(root, dataset=listing)
    assert only(root, "outside").case == "case_1"


def test_many_links_out_of_the_dataset_are_told_once(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "imagesTr", tmp_path / "images")
    shutil.move(root / "labelsTr", tmp_path / "labels")
    for name in ("images", "labels"):
        (root / f"{name}Tr").mkdir()
        for path in (tmp_path / name).iterdir():
            (root / f"{name}Tr" / path.name).symlink_to(path)
    hit = only(root, "outside")
    assert hit.found.startswith("12 files lie outside the dataset, such as ")
    assert len(check(root, 1)) == 1


def test_a_listing_that_names_missing_files(root: Path) -> None:
    listing: dict[str, dict[str, Any]] = {
        "a": {"images": ["imagesTr/case_0_0000.nii.gz"], "label": "labelsTr/case_0.nii.gz"}
    }
    listing["b"] = {"images": ["imagesTr/no.nii.gz"], "label": "labelsTr/no.nii.gz"}
    describe(root, dataset=listing, numTraining=2)
    kinds = {(finding.case, finding.kind) for finding in check(root, 1) if finding.severity == "error"}
    assert kinds == {("b", "missing image"), ("b", "missing label")}
    listing["b"] = {"images": ["imagesTr/case_1_0000.nii.gz"]}
    describe(root, dataset=listing, numTraining=2)
    assert only(root, "missing label").found == "no label is listed for it"


def test_classes_that_no_label_shows(root: Path) -> None:
    describe(root, labels={"background": 0, "organ": 1, "lesion": 2, "cyst": 3})
    hit = only(root, "absent class")
    assert (hit.severity, hit.found) == ("warning", "declared, but in no label: 'cyst' (3)")


def test_a_label_without_foreground_is_a_warning_and_one_to_ignore_an_error(root: Path) -> None:
    describe(root, labels={"background": 0, "organ": 1, "lesion": 2, "ignore": 3})
    write_label(root / "labelsTr" / "case_2.nii.gz", labelled() * 0, PLACE)
    assert (only(root, "empty label").severity, only(root, "empty label").case) == ("warning", "case_2")
    write_label(root / "labelsTr" / "case_2.nii.gz", labelled() * 0 + 3, PLACE)
    assert (only(root, "empty label").severity, only(root, "empty label").case) == ("error", "case_2")


def test_outlying_and_impossible_spacings(root: Path) -> None:
    put_case(root, "case_1", 1, PLACE.model_copy(update={"spacing": (3.0, 11.0, 1.0)}))
    hit = only(root, "spacing outlier")
    assert (hit.case, hit.severity) == ("case_1", "warning")
    assert hit.found == "spacing 3x11x1 mm, while the median over the dataset is 3x1x1 mm"
    for number, case in enumerate(CASES):
        put_case(
            root, case, number, PLACE.model_copy(update={"spacing": (3e-6, 1e-6, 1e-6), "origin": (0.0, 0.0, 1.0)})
        )
    assert only(root, "spacing outlier").found.startswith("6 cases (case_0, case_1, case_2 and 3 more)")


def test_a_header_that_was_lost(root: Path) -> None:
    put_case(root, "case_1", 1, Geometry(shape=SHAPE, spacing=(1.0, 1.0, 1.0)))
    hit = only(root, "header")
    assert (hit.case, hit.severity) == ("case_1", "warning")
    assert "1x1x1 mm, origin 0" in hit.found


def test_mixed_orientations_are_told_once(root: Path) -> None:
    put_case(root, "case_1", 1, PLACE.model_copy(update={"direction": (-1.0, 0, 0, 0, 1, 0, 0, 0, 1)}))
    hit = only(root, "orientation")
    assert (hit.case, hit.severity) == ("", "warning")
    assert "SPL in 5 cases" in hit.found
    assert "SPR in 1 cases (case_1)" in hit.found


def test_ct_that_is_not_in_hounsfield_units(root: Path) -> None:
    for number, case in enumerate(CASES):
        rng = np.random.Generator(np.random.Philox(key=[number, 1]))
        gray = rng.integers(0, 255, (1, *SHAPE), dtype=np.uint8)
        write_image(root / "imagesTr" / f"{case}_0000.nii.gz", gray, PLACE)
    hit = only(root, "intensities")
    assert (hit.severity, "not Hounsfield units" in hit.remedy) == ("warning", True)


def test_copies_of_one_subject_are_a_warning(root: Path) -> None:
    shutil.copyfile(root / "imagesTr" / "case_1_0000.nii.gz", root / "imagesTr" / "case_2_0000.nii.gz")
    assert only(root, "duplicate image").severity == "error"
    describe(root, selfcfg={"subjects": {"case_1": "ann", "case_2": "ann"}})
    assert only(root, "duplicate image").severity == "warning"


def test_two_equal_channels_are_a_warning(root: Path) -> None:
    for case in CASES:
        path = root / "imagesTr" / f"{case}_0000.nii.gz"
        shutil.copyfile(path, path.with_name(f"{case}_0001.nii.gz"))
    describe(root, channel_names={"0": "T1", "1": "T2"})
    hits = [finding for finding in check(root, 1) if finding.kind == "duplicate channel"]
    assert [(hit.case, hit.severity) for hit in hits] == [(case, "warning") for case in CASES]


def test_one_subject_cannot_be_split(root: Path) -> None:
    describe(root, selfcfg={"subjects": dict.fromkeys(CASES, "ann")})
    assert only(root, "splits").severity == "error"


@pytest.mark.parametrize(
    ("splits", "kind", "found"),
    [
        ([{"train": ["case_0"], "val": ["nobody"]}], "splits", "nobody"),
        ([{"train": ["case_0", "case_1"], "val": ["case_1"]}], "splits", "both train and val"),
        ({"train": []}, "splits", "not a list of folds"),
        ([{"train": ["case_0", "case_1"], "val": ["case_2"]}], "leakage", "subject 'ann' (cases case_1, case_2)"),
    ],
)
def test_problems_of_a_users_splits(root: Path, splits: Any, kind: str, found: str) -> None:
    describe(root, selfcfg={"subjects": {"case_1": "ann", "case_2": "ann"}})
    (root / "splits_final.json").write_text(json.dumps(splits))
    hit = only(root, kind)
    assert (hit.severity, hit.file) == ("error", "splits_final.json")
    assert found in hit.found


def test_drift_is_fixed_by_a_record_and_no_image_is_changed(root: Path) -> None:
    drifted = PLACE.model_copy(update={"origin": (1.0, 2.03, 3.0)})
    write_label(root / "labelsTr" / "case_1.nii.gz", labelled(), drifted)
    write_label(root / "labelsTr" / "case_2.nii.gz", labelled(), PLACE.model_copy(update={"spacing": (3.001, 1, 1)}))
    before = {path: path.read_bytes() for path in root.rglob("*.nii.gz")}
    findings = check(root, 1)
    assert {(finding.case, finding.kind) for finding in findings} == {
        ("case_1", "geometry drift"),
        ("case_2", "geometry drift"),
    }
    with pytest.raises(DataError, match=r"case_1.*origin"):
        read_case(Dataset.open(root).case("case_1"))
    assert write_fixes(root, findings) == findings
    assert {path: path.read_bytes() for path in root.rglob("*.nii.gz")} == before
    assert check(root, 1) == []
    assert read_case(Dataset.open(root).case("case_1"), Fixes.of(root)).geometry == PLACE
    record = json.loads((root / "fixes.json").read_text())["geometry"]["case_1"][0]
    assert (record["file"], record["channel"]) == ("labelsTr/case_1.nii.gz", None)
    assert "origin" in record["difference"]


def test_a_fix_ends_when_the_file_changes_again_and_others_are_kept(root: Path) -> None:
    for case, y in (("case_1", 2.03), ("case_2", 2.03)):
        write_label(
            root / "labelsTr" / f"{case}.nii.gz", labelled(), PLACE.model_copy(update={"origin": (1.0, y, 3.0)})
        )
    write_fixes(root, check(root, 1))
    write_label(root / "labelsTr" / "case_1.nii.gz", labelled(), PLACE.model_copy(update={"origin": (1.0, 2.05, 3.0)}))
    assert only(root, "geometry drift").case == "case_1"
    write_fixes(root, check(root, 1))
    assert check(root, 1) == []
    assert sorted(Fixes.of(root).geometry) == ["case_1", "case_2"]
    write_label(root / "labelsTr" / "case_1.nii.gz", labelled(), PLACE.model_copy(update={"origin": (1.0, 7.0, 3.0)}))
    assert only(root, "origin mismatch").case == "case_1"
    assert write_fixes(root, check(root, 1)) == []


def test_a_channel_that_drifted_is_fixed_too(root: Path) -> None:
    for number, case in enumerate(CASES):
        rng = np.random.Generator(np.random.Philox(key=[number, 9]))
        second = rng.normal(size=(1, *SHAPE)).astype(np.float32)
        place = PLACE.model_copy(update={"origin": (1.0, 2.03, 3.0)}) if case == "case_3" else PLACE
        write_image(root / "imagesTr" / f"{case}_0001.nii.gz", second, place)
    describe(root, channel_names={"0": "T1", "1": "T2"})
    assert only(root, "geometry drift").file == "imagesTr/case_3_0001.nii.gz"
    write_fixes(root, check(root, 1))
    assert check(root, 1) == []
    assert Fixes.of(root).geometry["case_3"][0].channel == 1


def test_a_record_of_fixes_that_cannot_be_read(root: Path) -> None:
    (root / "fixes.json").write_text('{"geometri": {}}')
    hit = only(root, "fixes")
    assert (hit.severity, "did you mean 'geometry'" in hit.found) == ("error", True)


def test_pictures_of_the_wrong_kind(tmp_path: Path) -> None:
    root = tmp_path / "Dataset003_Pictures"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    rng = np.random.Generator(np.random.Philox(key=[5, 5]))
    for number in range(4):
        picture = rng.integers(0, 255, (9, 8, 4), dtype=np.uint8)
        picture[..., 3] = 255 if number != 2 else rng.integers(0, 255, (9, 8))
        colours = picture if number in (1, 2) else picture[..., :3] if number == 0 else picture[..., 0]
        Image.fromarray(colours).save(root / "imagesTr" / f"p{number}_0000.png")
        Image.fromarray((picture[..., 0] > 99).astype(np.uint8)).save(root / "labelsTr" / f"p{number}.png")
    describe(
        root,
        channel_names={"0": "R", "1": "G", "2": "B"},
        labels={"background": 0, "a": 1},
        file_ending=".png",
        numTraining=4,
    )
    found = {(finding.case, finding.kind) for finding in check(root, 1)}
    assert found == {("p2", "alpha"), ("p3", "channels")}


@pytest.mark.parametrize(
    ("images", "labels", "channels", "values", "ending"),
    [
        ("hippocampus/images", "hippocampus/labels", ["MRI"], {"background": 0, "a": 1, "b": 2}, ".nii.gz"),
        ("cxr_lung/montgomery/images", "cxr_lung/montgomery/labels", ["x"], {"background": 0, "lung": 1}, ".png"),
        ("dsb2018_nuclei/images", "dsb2018_nuclei/labels", ["R", "G", "B"], {"background": 0, "a": 1}, ".png"),
    ],
)
def test_real_data_have_no_errors(
    real_data: Any, tmp_path: Path, images: str, labels: str, channels: list[str], values: dict[str, int], ending: str
) -> None:
    folders = real_data(images), real_data(labels)
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    files = sorted(folders[0].glob(f"*{ending}"))[:20]
    for path in files:
        case = path.name.removesuffix(ending)
        (tmp_path / "imagesTr" / f"{case}_0000{ending}").symlink_to(path)
        (tmp_path / "labelsTr" / path.name).symlink_to(folders[1] / path.name)
    names = {str(index): channel for index, channel in enumerate(channels)}
    describe(tmp_path, channel_names=names, labels=values, file_ending=ending, numTraining=len(files))
    assert {finding.kind for finding in check(tmp_path, 1)} == {"outside"}


def test_image_targets_are_compared_with_the_cases(root: Path) -> None:
    finding = {
        "classes": ["no", "yes", "never"],
        "values": dict.fromkeys(CASES, "no") | {"case_1": "yes", "test": "no"},
    }
    age = {"unit": "years", "values": {"case_0": 3, "case_77": 4}}
    describe(root, image_targets={"finding": finding, "age": age})
    write_image(root / "imagesTs" / "test_0000.nii.gz", np.full((1, *SHAPE), 7, np.float32), PLACE)
    hits = [finding for finding in check(root, 1) if finding.kind == "image targets"]
    assert [hit.found for hit in hits] == [
        "target 'age' has values of 1 case not there: case_77",
        "target 'age': 1 of 6 training cases have a value",
        "target 'finding': no training case is 'never'",
    ]
    assert {hit.severity for hit in hits} == {"warning"}
    describe(root, image_targets={"age": {"values": {"test": 3}}})
    hit = only(root, "image targets")
    assert (hit.severity, hit.found) == ("error", "target 'age' has no value of any training case")


def test_a_wrong_value_is_named_and_the_cases_are_looked_at_all_the_same(root: Path) -> None:
    finding = {"classes": ["no", "yes"], "values": {"case_0": "perhaps"}}
    describe(root, image_targets={"finding": finding})
    (root / "labelsTr" / "case_3.nii.gz").unlink()
    hit = only(root, "description")
    assert "image_targets.finding.values.case_0: found 'perhaps'" in hit.found and hit.severity == "error"
    assert only(root, "missing label").case == "case_3"
