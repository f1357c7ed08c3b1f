from __future__ import annotations

from pathlib import Path

from selfcfg.dataset import Case
from selfcfg.engine.data.collection import _split


def cases(n_subjects: int) -> list[Case]:
    files = (Path("image.nii.gz"),)
    return [
        Case(id=f"{subject}{time}", images=files, label=None, subject=subject)
        for subject in (f"s{number:02}" for number in range(n_subjects))
        for time in "ab"
    ]


def test_no_subject_is_trained_on_and_held_out() -> None:
    training, held_out = _split("further", cases(20))
    assert len(held_out) == 4 and len(training) == 36
    assert not {name[:-1] for name in training} & {name[:-1] for name in held_out}


def test_of_few_subjects_all_are_trained_on() -> None:
    training, held_out = _split("further", cases(9))
    assert len(training) == 18 and held_out == ()
