"""What cases are called in a report that is given away."""

from __future__ import annotations

import hashlib
import re

import pytest

from selfcfg.report.names import PLAIN, Names


def test_a_name_is_a_keyed_hash_and_says_nothing_without_the_key() -> None:
    names = Names.hidden(["patient_1", "patient_2"], b"k" * 32)
    digest = hashlib.blake2b(b"patient_1", key=b"k" * 32, digest_size=4).hexdigest()
    assert names.case("patient_1") == f"case-{digest}"
    assert names.case("patient_1") != Names.hidden(["patient_1"], b"l" * 32).case("patient_1")
    assert re.fullmatch(r"case-[0-9a-f]{16}", names.case("somebody else"))
    assert PLAIN.case("patient_1") == "patient_1"


def test_names_that_would_be_the_same_are_made_longer() -> None:
    ids = [f"case {number}" for number in range(120_000)]
    names = Names.hidden(ids, b"a" * 32)
    assert len(set(names.shown.values())) == len(ids)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/user/data/case_1.nii.gz", "(a path)"),
        ("read /home/user/data/case_1.nii.gz: damaged", "read (a path) damaged"),
        (r"C:\data\patients\x", "(a path)"),
        ("in ~/data/x and \\\\server\\share", "in (a path) and (a path)"),
        ("12 / 3 of 4 mm/px, 1/2", "12 / 3 of 4 mm/px, 1/2"),
        ("../secret/file", "(a path)"),
        ("no path at all", "no path at all"),
    ],
)
def test_paths_are_left_out_of_texts(text: str, shown: str) -> None:
    assert PLAIN.text(text) == shown


def test_ids_are_left_out_of_texts_as_whole_words() -> None:
    names = Names.hidden(["a1", "a1_b"], b"k" * 32)
    text = names.text("a1 and a1_b, but not a12 (a1)")
    assert text == f"{names.case('a1')} and {names.case('a1_b')}, but not a12 ({names.case('a1')})"


def test_ids_with_something_after_them_and_those_that_are_numbers() -> None:
    names = Names.hidden(["ward_7", "012", "50"], b"k" * 32)
    ward, number = names.case("ward_7"), names.case("012")
    assert names.text("imagesTr/ward_7_0000.nii.gz") == f"imagesTr/{ward}_0000.nii.gz"
    numbers = "better by 0.012 (0.012 to 0.50) over 50 cases"
    assert names.text(numbers) == numbers
    assert names.text("case 012 and '012'") == f"case {number} and '{number}'"
    assert names.text("see file:///home/jane/x here") == "see (a path) here"


def test_a_file_name_of_a_case_cannot_lead_elsewhere() -> None:
    assert PLAIN.file_stem("../../etc/passwd") == "______etc_passwd"
