"""Folds by subject and class, a user's own folds, and nested subsets of labels."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from selfcfg.errors import DataError, UsageError
from selfcfg.splits import (
    Split,
    label_subset,
    labelled_subjects,
    make_splits,
    read_splits,
    refuse_leakage,
    write_splits,
)

SUBJECTS = {f"case_{number:02d}": f"subject_{number // 2}" for number in range(40)}
"""Twenty subjects of two cases each."""

CLASSES = {
    case: {1} | ({2} if number % 4 == 0 else set()) | ({3} if number in (0, 9, 18, 27, 36) else set())
    for number, case in enumerate(SUBJECTS)
}


def everything(splits: tuple[Split, ...]) -> Counter[str]:
    return Counter(case for split in splits for case in split.val)


def test_every_case_is_validated_once_and_subjects_stay_together() -> None:
    splits = make_splits(SUBJECTS, CLASSES)
    assert len(splits) == 5
    assert everything(splits) == Counter(list(SUBJECTS))
    for split in splits:
        assert sorted({*split.train, *split.val}) == sorted(SUBJECTS)
        assert not {SUBJECTS[case] for case in split.train} & {SUBJECTS[case] for case in split.val}
    refuse_leakage(splits, SUBJECTS, {case: case for case in SUBJECTS})


def test_classes_are_spread_evenly() -> None:
    splits = make_splits(SUBJECTS, CLASSES)
    for value, counts in ((1, {8}), (2, {2}), (3, {1})):
        assert {sum(value in CLASSES[case] for case in split.val) for split in splits} == counts


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_class_reaches_as_many_folds_as_it_can(seed: int) -> None:
    subjects = {f"c{number}": f"s{number % 13}" for number in range(47)}
    classes = {case: {1, 2} if number in (3, 4, 20) else {1} for number, case in enumerate(subjects)}
    splits = make_splits(subjects, classes, seed=seed)
    assert sum(any(2 in classes[case] for case in split.val) for split in splits) == 3
    sizes = [len(split.val) for split in splits]
    assert max(sizes) - min(sizes) <= 4
    assert everything(splits) == Counter(list(subjects))


def test_the_order_of_the_input_does_not_matter_but_the_seed_does() -> None:
    backwards = dict(reversed(SUBJECTS.items()))
    assert make_splits(SUBJECTS, CLASSES) == make_splits(backwards, CLASSES)
    assert make_splits(SUBJECTS, CLASSES, seed=1) != make_splits(SUBJECTS, CLASSES, seed=2)


def test_two_hundred_equal_cases_give_folds_of_forty() -> None:
    cases = {f"c{number}": f"c{number}" for number in range(200)}
    assert [len(split.val) for split in make_splits(cases, {case: {1, 2} for case in cases})] == [40] * 5


@pytest.mark.parametrize(("n_subjects", "n_folds"), [(2, 2), (3, 3), (4, 4), (5, 5), (6, 5)])
def test_few_subjects_give_few_folds_and_none_is_empty(n_subjects: int, n_folds: int) -> None:
    subjects = {f"c{number}": f"s{number % n_subjects}" for number in range(12)}
    classes = {case: {number % 3} for number, case in enumerate(subjects)}
    for seed in range(10):
        splits = make_splits(subjects, classes, seed=seed)
        assert len(splits) == n_folds
        assert all(split.train and split.val for split in splits)


def test_one_subject_cannot_be_split() -> None:
    with pytest.raises(DataError, match="they belong to 1 subject; add cases of other subjects"):
        make_splits({"a": "x", "b": "x"}, {})


def test_cases_without_any_class_are_dealt_too() -> None:
    splits = make_splits({f"c{number}": f"c{number}" for number in range(10)}, {})
    assert [len(split.val) for split in splits] == [2] * 5


def test_folds_come_back_from_their_file(tmp_path: Path) -> None:
    splits = make_splits(SUBJECTS, CLASSES)
    write_splits(tmp_path / "splits_final.json", splits)
    assert read_splits(tmp_path / "splits_final.json", SUBJECTS) == splits
    assert set(json.loads((tmp_path / "splits_final.json").read_text())[0]) == {"train", "val"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": []}, "not a list of folds"),
        ([], "not a list of folds"),
        ([{"train": ["a"], "validation": ["b"]}], r"fold 0: 2 problems\n  val: is missing\n  validation: unknown key"),
        ([{"train": ["a", "b"], "val": ["b", "c"]}], "fold 0 has b in both train and val"),
        ([{"train": ["a"], "val": ["cc"]}], "'val' of fold 0 names cc, which are no cases of this dataset"),
        ([{"train": ["case_a"], "val": ["b"]}], r"names case_a.*did you mean 'case_b'"),
        ([{"train": ["a", "a"], "val": ["b"]}], "'train' of fold 0 has a twice"),
        ([{"train": ["a"], "val": []}], "'val' of fold 0 is empty"),
        ([{"train": ["a"], "val": ["x"]}, {"train": ["y"], "val": ["b"]}], "x.*y"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "splits_final.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_splits(tmp_path / "splits_final.json", ["a", "b", "c", "case_b"])


def test_leakage_names_fold_subject_and_cases() -> None:
    splits = (Split(train=("a", "b"), val=("c",)), Split(train=("c",), val=("a", "b")))
    refuse_leakage(splits, {"a": "x", "b": "x", "c": "y"}, {"a": "1", "b": "1", "c": "2"})
    with pytest.raises(DataError, match=r"fold 0: subject 'x' .cases a, c. in training and in validation; keep all"):
        refuse_leakage(splits, {"a": "x", "b": "z", "c": "x"}, {})
    with pytest.raises(DataError, match="fold 0: the same image as cases b, c"):
        refuse_leakage(splits, {}, {"a": "1", "b": "2", "c": "2"})


def test_label_subsets_are_nested_and_counted_in_subjects() -> None:
    train = list(SUBJECTS)
    fractions = (0.01, 0.05, 0.1, 0.101, 0.15, 0.3, 0.5, 0.99, 1.0)
    chosen = [label_subset(train, SUBJECTS, fraction, seed=3) for fraction in fractions]
    counts = [len({SUBJECTS[case] for case in cases}) for cases in chosen]
    assert counts == [2, 2, 2, 3, 3, 6, 10, 20, 20]
    for smaller, bigger in itertools.pairwise(chosen):
        assert set(smaller) <= set(bigger)
    for cases in chosen:
        assert list(cases) == [case for case in train if case in set(cases)]
        assert len(cases) == 2 * len({SUBJECTS[case] for case in cases})
    assert chosen[-1] == tuple(train)


def test_rounding_does_not_add_a_subject() -> None:
    train = [f"c{number}" for number in range(30)]
    assert len(label_subset(train, {}, 0.1, 0)) == 3


def test_another_seed_gives_another_subset() -> None:
    subsets = {label_subset(list(SUBJECTS), SUBJECTS, 0.2, seed) for seed in range(8)}
    assert len(subsets) > 4


def test_a_whole_number_counts_subjects_and_is_nested_with_shares() -> None:
    train = list(SUBJECTS)
    chosen = [label_subset(train, SUBJECTS, amount, seed=3) for amount in (1, 2, 0.15, 5, 1.0)]
    assert [len({SUBJECTS[case] for case in cases}) for cases in chosen] == [1, 2, 3, 5, 20]
    for smaller, bigger in itertools.pairwise(chosen):
        assert set(smaller) < set(bigger)


def test_labelled_subjects_come_in_an_order_that_more_of_them_continue() -> None:
    order = labelled_subjects(list(SUBJECTS), SUBJECTS, 1.0, seed=3)
    assert sorted(order) == sorted(set(SUBJECTS.values()))
    assert all(labelled_subjects(list(SUBJECTS), SUBJECTS, count, seed=3) == order[:count] for count in (1, 7, 20))


@pytest.mark.parametrize("count", [0, -1, 21])
def test_more_subjects_than_there_are_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match="there are 20 to train on; choose 1 to 20; a share of them is written with"):
        label_subset(list(SUBJECTS), SUBJECTS, count, 0)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_fractions_out_of_range_are_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="above 0 and up to 1"):
        label_subset(["a"], {}, fraction, 0)
