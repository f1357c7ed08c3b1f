"""Which label belongs to which image: the rules in their order, and everything that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfcfg.convert.pairing import match, pair
from selfcfg.errors import DataError, UsageError
from selfcfg.image_files import image_files


def folder(root: Path, name: str, files: str) -> Path:
    (root / name).mkdir()
    for file in files.split():
        (root / name / file).write_bytes(b"x")
    return root / name


def paired(root: Path, images: str, labels: str) -> dict[str, tuple[str, str]]:
    found = pair([folder(root, "images", images)], folder(root, "labels", labels))
    return {
        case.id: (" ".join(p.name for p in case.images), case.label.name if case.label else "") for case in found.cases
    }


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("a_1", "a_1 a_1_mask", ["a_1"]),
        ("a_1", "a_1_mask a_11_mask", ["a_1_mask"]),
        ("img_001", "mask_001 mask_002", ["mask_001"]),
        ("Image-7", "label-7 label-17", ["label-7"]),
        ("case1_ct", "case1 case10", ["case1"]),
        ("case1", "case1-liver case1-tumour", ["case1-liver", "case1-tumour"]),
        ("case1", "case10 case11", []),
        ("mask", "image", []),
    ],
)
def test_rules_of_matching(name: str, candidates: str, expected: list[str]) -> None:
    assert match(name, {candidate: Path(candidate) for candidate in candidates.split()}) == expected


def test_equal_names_whatever_the_suffix(tmp_path: Path) -> None:
    found = paired(tmp_path, "b.jpg a.png ._a.png notes.txt", "a.png b.png")
    assert found == {"a": ("a.png", "a.png"), "b": ("b.jpg", "b.png")}


def test_channels_by_number(tmp_path: Path) -> None:
    found = paired(tmp_path, "x_1_0000.nii.gz x_1_0001.nii.gz y_0000.nii.gz y_0001.nii.gz", "x_1.nii.gz y.nii.gz")
    assert found["x_1"] == ("x_1_0000.nii.gz x_1_0001.nii.gz", "x_1.nii.gz")
    assert list(found) == ["x_1", "y"]


def test_numbers_that_are_part_of_the_name(tmp_path: Path) -> None:
    found = paired(tmp_path, "patient_0001.nii patient_0002.nii", "patient_0001.nii patient_0002.nii")
    assert sorted(found) == ["patient_0001", "patient_0002"]


def test_one_folder_a_channel(tmp_path: Path) -> None:
    ct, pet = folder(tmp_path, "ct", "a.nii.gz b.nii.gz"), folder(tmp_path, "pet", "b_pet.nii.gz a_pet.nii.gz")
    found = pair([ct, pet], folder(tmp_path, "labels", "a.nii.gz b.nii.gz"))
    assert [[path.name for path in case.images] for case in found.cases] == [
        ["a.nii.gz", "a_pet.nii.gz"],
        ["b.nii.gz", "b_pet.nii.gz"],
    ]


def test_one_folder_a_channel_with_numbers(tmp_path: Path) -> None:
    first, second = folder(tmp_path, "t1", "a_0000.nii b_0000.nii"), folder(tmp_path, "t2", "a_0001.nii b_0001.nii")
    found = pair([first, second], folder(tmp_path, "labels", "a.nii b.nii"))
    assert [case.id for case in found.cases] == ["a", "b"]
    assert [path.name for path in found.cases[1].images] == ["b_0000.nii", "b_0001.nii"]


def test_what_has_no_partner_is_told(tmp_path: Path) -> None:
    found = pair([folder(tmp_path, "images", "a.png b.png c.png")], folder(tmp_path, "labels", "a.png d.png"))
    assert [case.id for case in found.cases] == ["a"]
    assert (found.lonely_images, found.lonely_labels) == (("b", "c"), ("d.png",))


def test_ambiguity_names_the_candidates(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"case 'a': 2 files of .*labels may belong to it: a_liver, a_tumour; name each"
    ):
        paired(tmp_path, "a.png", "a_liver.png a_tumour.png")


def test_a_label_for_two_images_is_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"file 'a' of .*: it may belong to 2 images: a_ct, a_mr"):
        paired(tmp_path, "a_ct.png a_mr.png", "a.png")


def test_numbers_that_may_be_both_are_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels fit both whole names .a_0000. and names without channel number .a."):
        paired(tmp_path, "a_0000.png b_0000.png", "a.png a_0000.png")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"case 'a': both a\.jpg and a\.png"):
        image_files(folder(tmp_path, "images", "a.png a.jpg"))


def test_a_missing_channel_names_the_case(tmp_path: Path) -> None:
    one, two = folder(tmp_path, "one", "a.nii b.nii"), folder(tmp_path, "two", "a.nii c.nii")
    with pytest.raises(DataError, match=r"two has no file of b; .*one has no file of c, which .*two has"):
        pair([one, two], folder(tmp_path, "labels", "a.nii b.nii"))
    with pytest.raises(DataError, match="case 'x': its channels are numbered 0000, 0002"):
        pair([folder(tmp_path, "three", "x_0000.nii x_0002.nii")], folder(tmp_path, "more", "x.nii"))


def test_nothing_that_fits_is_an_error_with_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no name fits: images such as a, labels such as b; name labels like"):
        paired(tmp_path, "a.png", "b.png")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        image_files(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no image in it"):
        image_files(folder(tmp_path, "empty", "notes.txt"))
    with pytest.raises(UsageError, match="the same --images folder twice"):
        pair([tmp_path / "empty"] * 2, tmp_path)
