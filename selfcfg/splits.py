"""Which cases are trained on and which are validated on, fold by fold, in nnU-Net's splits_final.json format."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfcfg.errors import DataError, UsageError, listed, nearest
from selfcfg.files import read_json, write_json
from selfcfg.records import Record

N_FOLDS = 5
_FOLDS, _SUBSET = 1, 2
"""Purposes that random numbers are drawn for."""


class Split(Record):
    """One fold: the ids of its training cases and of its validation cases, each sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_splits(
    subjects: Mapping[str, str], classes: Mapping[str, Collection[int]], n_folds: int = N_FOLDS, seed: int = 12345
) -> tuple[Split, ...]:
    """Folds in which a subject is never on both sides and every class is spread as evenly as can be.

    Subjects are dealt out one after another. The next one has the rarest class that is still waiting, the subject with
    most cases of it first; it goes to the fold that misses this class most, among these to the fold that misses most
    cases, and a seeded draw decides what is still open. No fold stays empty. The same arguments give the same folds.

    Source: Sechidis, Tsoumakas, Vlahavas: On the stratification of multi-label data, ECML PKDD 2011, algorithm 1, with
    subjects in place of single examples.

    Args:
        subjects: case id to its subject.
        classes: case id to the classes present in its label; cases without an entry have none.
        n_folds: folds wanted; no more are made than there are subjects.
        seed: of the draws.

    Raises:
        DataError: fewer than two subjects.
    """
    cases_of = _by_subject(subjects)
    if len(cases_of) < 2:
        raise DataError(
            f"split {len(subjects)} cases into folds",
            f"they belong to {len(cases_of)} subject",
            "add cases of other subjects",
        )
    dealer = _Dealer(cases_of, classes, min(n_folds, len(cases_of)), seed)
    folds = dealer.deal()
    everything = set(subjects)
    return tuple(Split(train=tuple(sorted(everything - set(val))), val=tuple(sorted(val))) for val in folds)


def read_splits(path: Path, cases: Collection[str] | None = None) -> tuple[Split, ...]:
    """The folds of a splits_final.json.

    Args:
        path: the file.
        cases: ids that exist; None takes every id as it is.

    Raises:
        DataError: not a list of {"train": [...], "val": [...]}, an unknown id, a case on both sides or twice, an empty
            side. All problems are named at once.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise DataError(f"read {path}", "not a list of folds", 'write [{"train": [ids], "val": [ids]}, ...]')
    splits = tuple(Split.parse(fold, f"{path}, fold {number}") for number, fold in enumerate(content))
    problems = [problem for number, split in enumerate(splits) for problem in _problems(number, split, cases)]
    if problems:
        raise DataError(f"read {path}", "; ".join(problems), "mend the file, or remove it to have folds made")
    return splits


def write_splits(path: Path, splits: Sequence[Split]) -> None:
    """Writes the folds in nnU-Net's format."""
    write_json(path, [split.model_dump(mode="json") for split in splits])


def refuse_leakage(splits: Sequence[Split], subjects: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    """Raises when a fold would be validated on what it was trained on.

    Args:
        splits: the folds.
        subjects: case id to its subject; a case without an entry is its own subject.
        hashes: case id to a hash of its images; cases without an entry are not compared.

    Raises:
        DataError: a subject, or an image, is in training and validation of one fold; names the cases.
    """
    for number, split in enumerate(splits):
        by_subject = _shared(split, {case: subjects.get(case, case) for case in (*split.train, *split.val)})
        by_image = _shared(split, hashes)
        found = [f"subject '{subject}' (cases {', '.join(cases)})" for subject, cases in by_subject.items()]
        found += [f"the same image as cases {', '.join(cases)}" for cases in by_image.values()]
        if found:
            raise DataError(
                f"fold {number}",
                f"{listed(found, separator='; ')} in training and in validation",
                "keep all cases of a subject, and copies of an image, on one side",
            )


def labelled_subjects(
    train: Sequence[str], subjects: Mapping[str, str], amount: int | float, seed: int
) -> tuple[str, ...]:
    """The subjects whose labels are used, in a seeded order: a smaller amount is the beginning of a bigger one.

    Args:
        train: ids of the training cases.
        subjects: case id to its subject.
        amount: as an int, how many subjects; as a float, their share, rounded up and at least two.
        seed: of the order.

    Raises:
        UsageError: there are not so many, or the share is out of range.
    """
    names = sorted({subjects.get(case, case) for case in train})
    if isinstance(amount, int):
        if not 1 <= amount <= len(names):
            raise UsageError(
                "labelled subjects",
                f"{amount} asked for, there are {len(names)} to train on",
                f"choose 1 to {len(names)}; a share of them is written with a point, such as 0.1 or 1.0",
            )
        count = amount
    elif 0 < amount <= 1:
        # 0.1 x 30 is 3.0000000000000004: what rounding adds must not cost a subject.
        count = max(2, math.ceil(amount * len(names) - 1e-9))
    else:
        raise UsageError("label fraction", f"{amount}", "choose a number above 0 and up to 1")
    order = _generator(seed, _SUBSET).permutation(len(names))
    return tuple(names[index] for index in order[:count])


def label_subset(train: Sequence[str], subjects: Mapping[str, str], amount: int | float, seed: int) -> tuple[str, ...]:
    """The training cases whose labels are used: all of those of `labelled_subjects`, in the order given.

    A smaller amount's cases are always among a bigger one's.

    Raises:
        UsageError: there are not so many subjects, or the share is out of range.
    """
    chosen = set(labelled_subjects(train, subjects, amount, seed))
    return tuple(case for case in train if subjects.get(case, case) in chosen)


class _Dealer:
    """Deals subjects out to folds; what a fold still misses goes below zero when it has more than its share."""

    def __init__(
        self, cases_of: Mapping[str, Sequence[str]], classes: Mapping[str, Collection[int]], n_folds: int, seed: int
    ) -> None:
        self.cases_of = cases_of
        self.counts = {
            subject: Counter(value for case in cases for value in set(classes.get(case, ())))
            for subject, cases in cases_of.items()
        }
        total = sum(self.counts.values(), Counter[int]())
        self.missing = [{value: count / n_folds for value, count in total.items()} for _ in range(n_folds)]
        self.room = [sum(len(cases) for cases in cases_of.values()) / n_folds] * n_folds
        self.folds: list[list[str]] = [[] for _ in range(n_folds)]
        self.rng = _generator(seed, _FOLDS)

    def deal(self) -> list[list[str]]:
        names = list(self.cases_of)
        waiting = dict.fromkeys(names[index] for index in self.rng.permutation(len(names)))
        while waiting:
            value = self._rarest(waiting)
            holders = [subject for subject in waiting if value is None or self.counts[subject][value]]
            for subject in sorted(holders, key=lambda name: -self._size(name, value)):
                self._put(subject, value, len(waiting))
                del waiting[subject]
        return self.folds

    def _rarest(self, waiting: Collection[str]) -> int | None:
        left = sum((self.counts[subject] for subject in waiting), Counter[int]())
        return min(left, key=lambda value: (left[value], value), default=None)

    def _size(self, subject: str, value: int | None) -> int:
        return len(self.cases_of[subject]) if value is None else self.counts[subject][value]

    def _put(self, subject: str, value: int | None, n_waiting: int) -> None:
        empty = [fold for fold, cases in enumerate(self.folds) if not cases]
        candidates = empty if len(empty) >= n_waiting else range(len(self.folds))
        draws = self.rng.random(len(self.folds))
        fold = max(
            candidates,
            key=lambda number: (0 if value is None else self.missing[number][value], self.room[number], draws[number]),
        )
        self.folds[fold].extend(self.cases_of[subject])
        self.room[fold] -= len(self.cases_of[subject])
        for each, count in self.counts[subject].items():
            self.missing[fold][each] -= count


def _by_subject(subjects: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case in sorted(subjects):
        found.setdefault(subjects[case], []).append(case)
    return dict(sorted(found.items()))


def _generator(seed: int, purpose: int) -> Any:
    from numpy.random import Generator, Philox  # noqa: PLC0415 - the command line reads splits without numpy

    return Generator(Philox(key=[seed % 2**64, purpose]))


def _problems(number: int, split: Split, cases: Collection[str] | None) -> list[str]:
    found = []
    both = sorted(set(split.train) & set(split.val))
    if both:
        found.append(f"fold {number} has {listed(both)} in both train and val")
    for side, ids in (("train", split.train), ("val", split.val)):
        if not ids:
            found.append(f"'{side}' of fold {number} is empty")
        if twice := sorted(case for case, count in Counter(ids).items() if count > 1):
            found.append(f"'{side}' of fold {number} has {listed(twice)} twice")
        unknown = sorted(set(ids) - set(cases)) if cases is not None else []
        if unknown:
            hint = nearest(unknown[0], cases or ()).partition("(known")[0].strip()
            hint = f", {hint}" if hint.startswith("did") else ""
            found.append(f"'{side}' of fold {number} names {listed(unknown)}, which are no cases of this dataset{hint}")
    return found


def _shared(split: Split, keys: Mapping[str, str]) -> dict[str, list[str]]:
    """The keys that cases of both sides have, with those cases."""
    sides = [{keys[case] for case in side if case in keys} for side in (split.train, split.val)]
    common = sorted(sides[0] & sides[1])
    return {key: sorted(c for c in (*split.train, *split.val) if keys.get(c) == key) for key in common}
