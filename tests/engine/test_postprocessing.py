"""Post-processing: what steps take away, and that tables of components foretell it to the voxel."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.selection_simulation import adoption, cases_of, drawn_tables
from selfcfg.engine.prediction.averaging import decoded
from selfcfg.engine.prediction.postprocessing import Step, parts_of, postprocessed, survivors, voxel_size
from selfcfg.engine.prediction.probabilities import write_probabilities
from selfcfg.engine.selection.component_tables import ComponentTables, Predicted, component_tables
from selfcfg.engine.selection.held_out import HeldOut
from selfcfg.engine.selection.trials import CaseFiles, Trials, tally
from selfcfg.engine.selection.tuning import Outcome, combinations, tune
from selfcfg.errors import DataError
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import read_label, write_label
from selfcfg.labels import LabelSchema

CLASSES = LabelSchema(labels={"background": 0, "organ": 1, "lesion": 2})
IGNORING = LabelSchema(labels={"background": 0, "organ": 1, "lesion": 2, "ignore": 3})
NESTED = LabelSchema(
    labels={"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}, regions_class_order=(1, 2, 3)
)
SHAPE = (6, 11, 12)
GEOMETRY = Geometry(shape=SHAPE, spacing=(2.0, 1.0, 0.5))


def random_probabilities(rng: np.random.Generator, labels: LabelSchema) -> np.ndarray:
    """Smooth random probabilities float16 (K, Z, Y, X) with many components, mostly background."""
    logits = ndimage.gaussian_filter(rng.normal(size=(labels.n_outputs, *SHAPE)), (0, 0.7, 1, 1)) * 12
    if labels.has_regions:
        return (1 / (1 + np.exp(3 - logits))).astype(np.float16)
    logits[0] += 4
    raised = np.exp(logits)
    return (raised / raised.sum(0)).astype(np.float16)


def random_case(
    tmp_path: Path, case: str, rng: np.random.Generator, labels: LabelSchema, members: int = 1
) -> CaseFiles:
    said = []
    for member in range(members):
        stack = random_probabilities(rng, labels)
        files = HeldOut(tmp_path / f"{case}_{member}.nii.gz", tmp_path / f"{case}_{member}.npz")
        write_label(files.labels, decoded(stack, labels), GEOMETRY)
        write_probabilities(files.probabilities, stack)
        said.append(files)
    reference = decoded(random_probabilities(rng, labels), labels)
    if labels.ignore is not None:
        reference[rng.random(SHAPE) < 0.3] = labels.ignore
    write_label(tmp_path / f"{case}.nii.gz", reference, GEOMETRY)
    return CaseFiles(case, tmp_path / f"{case}.nii.gz", tuple(said), labels.n_outputs)


def every_step(labels: LabelSchema, tables: ComponentTables) -> list[tuple[Step, ...]]:
    """Steps of all parts together, several ways, those of random values among them."""
    rng = np.random.default_rng(1)
    offered = [combinations(part, tables, place, "mm3") for place, part in enumerate(parts_of(labels))]
    return [tuple(itertools.chain(*(one[rng.integers(len(one))] for one in offered))) for _ in range(40)]


@pytest.mark.parametrize("labels", [CLASSES, IGNORING, NESTED], ids=["classes", "ignore", "regions"])
@pytest.mark.parametrize("weights", [(1.0,), (0.25, 0.75)], ids=["single", "ensemble"])
def test_tables_foretell_the_dice_of_every_trial_to_the_voxel(
    labels: LabelSchema, weights: tuple[float, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    cases = [Predicted(random_case(tmp_path, f"c{i}", rng, labels, len(weights)), weights) for i in range(3)]
    tables = component_tables(cases, labels, 3, jobs=1)
    trials = every_step(labels, tables)
    assert sum(bool(steps) for steps in trials) > 30
    changed = 0
    for steps in [(), *trials]:
        left = survivors(tables.parts, tables.components, steps)
        expected = []
        for case in cases:
            stacks = [np.load(one.probabilities)["probabilities"] for one in case.files.said]
            mean = sum(np.float32(w) * one.astype(np.float32) for w, one in zip(weights, stacks, strict=True))
            found = postprocessed(decoded(mean, labels), mean, GEOMETRY.voxel_volume, labels, steps)
            changed += not np.array_equal(found, decoded(mean, labels))
            expected.append(tally(read_label(case.files.reference)[0], found, labels))
        np.testing.assert_array_equal(tables.tallies(left), np.stack(expected))
    assert changed > 30


def by_hand(labels: np.ndarray, keep: Step, probabilities: np.ndarray, size: float) -> np.ndarray:
    """One step on a map of exclusive classes, component by component."""
    values = [1, 2] if keep.target is None else [CLASSES.targets[keep.target][0]]
    places, count = ndimage.label(np.isin(labels, values), np.ones((3, 3, 3)))
    sure = probabilities[values[0]].astype(np.float64)
    result = labels.copy()
    voxels = [int((places == number).sum()) for number in range(1, count + 1)]
    for number in range(1, count + 1):
        inside = places == number
        goes = {
            "keep_largest": number - 1 != int(np.argmax(voxels)),
            "min_size": voxels[number - 1] * size < keep.value,
            "min_mean_probability": sure[inside].mean() < keep.value,
            "min_max_probability": sure[inside].max() < keep.value,
        }[keep.kind]
        if goes:
            result[inside] = 0
    return result


@pytest.mark.slow
def test_several_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    cases = [Predicted(random_case(tmp_path, f"c{index}", rng, CLASSES, 2), (0.5, 0.5)) for index in range(3)]
    files = [case.files for case in cases]
    alone = component_tables(cases, CLASSES, 3, jobs=1), Trials(files, CLASSES, tmp_path, jobs=1)
    for module in ("trials", "component_tables"):
        monkeypatch.setattr(f"selfcfg.engine.selection.{module}.SMALL_BYTES", 0)
    several = component_tables(cases, CLASSES, 3, jobs=2), Trials(files, CLASSES, tmp_path, jobs=2)
    np.testing.assert_array_equal(*(one[0].tallies(one[0].everything()) for one in (alone, several)))
    np.testing.assert_array_equal(*(one[1].tallies([(1, 2)])[1, 2] for one in (alone, several)))


@pytest.mark.parametrize(
    "step",
    [
        Step(kind="keep_largest"),
        Step(kind="keep_largest", target="lesion"),
        Step(kind="min_size", target="organ", value=6, unit="mm3"),
        Step(kind="min_mean_probability", target="lesion", value=0.9),
        Step(kind="min_max_probability", target="organ", value=0.99),
    ],
    ids=str,
)
def test_a_step_takes_away_what_it_says(step: Step) -> None:
    stack = random_probabilities(np.random.default_rng(5), CLASSES)
    labels = decoded(stack, CLASSES)
    found = postprocessed(labels, stack, 1.0, CLASSES, [step])
    np.testing.assert_array_equal(found, by_hand(labels, step, stack, 1.0))
    assert not np.array_equal(found, labels)


def test_a_component_of_an_inner_region_becomes_what_is_around_it() -> None:
    labels = np.ones((1, 5, 12), np.uint8)
    labels[0, 1:4, 1:5] = 2
    labels[0, 2, 2] = 3
    labels[0, 2, 8] = 2
    labels[0, 2, 10] = 3
    found = postprocessed(labels, None, 1.0, NESTED, [Step(kind="keep_largest", target="core")])
    assert found[0, 2, 8] == found[0, 2, 10] == 1, "a voxel of the smaller cores is still in the whole"
    np.testing.assert_array_equal(found[0, :, :6], labels[0, :, :6])
    inner = postprocessed(labels, None, 1.0, NESTED, [Step(kind="min_size", target="enhancing", value=2, unit="mm3")])
    assert inner[0, 2, 2] == 2 and inner[0, 2, 10] == 2


def test_regions_that_cross_are_refused_with_the_reason() -> None:
    crossing = LabelSchema(labels={"background": 0, "a": (1, 2), "b": (2, 3), "c": (3,)}, regions_class_order=(1, 2, 3))
    with pytest.raises(DataError, match="neither lies within the other"):
        parts_of(crossing)
    split = LabelSchema(labels={"background": 0, "all": (1, 2), "a": (1,), "b": (2,)}, regions_class_order=(1, 1, 2))
    with pytest.raises(DataError, match="not in a"):
        parts_of(split)


def test_sizes_are_areas_for_pictures() -> None:
    flat = Geometry(shape=(1, 4, 4), spacing=(FLAT_SPACING, 0.5, 0.5), dimensions=2)
    assert voxel_size(flat, 2) == 0.25
    assert voxel_size(Geometry(shape=(3, 4, 4), spacing=(3, 0.5, 0.5)), 3) == 0.75
    assert voxel_size(Geometry(shape=(3, 4, 4), spacing=(3, 0.5, 0.5)), 2) == 0.25, "slices, each by itself"


def judged(wrong: float, rng: np.random.Generator, subjects: int) -> Outcome:
    return tune(drawn_tables(rng, subjects, wrong), cases_of(subjects, 0))


def test_wrong_components_are_removed_and_right_ones_kept() -> None:
    rng = np.random.default_rng(2)
    tables = drawn_tables(rng, 30, 1.0)
    outcome = tune(tables, cases_of(30, 0))
    assert [one.adopted for one in outcome.tuned] == [True]
    left = survivors(tables.parts, tables.components, outcome.steps)
    np.testing.assert_array_equal(outcome.tallies, tables.tallies(left))
    assert outcome.tuned[0].after > outcome.tuned[0].before
    assert judged(0.0, rng, 30).steps == ()


def test_too_few_subjects_adopt_nothing() -> None:
    (one,) = judged(1.0, np.random.default_rng(2), 5).tuned
    assert not one.adopted and one.why == "too few subjects to show a gain"


@pytest.mark.slow
def test_steps_that_are_worth_nothing_are_adopted_no_more_often_than_stated() -> None:
    """Small components are right or wrong by chance, so that removing them changes the Dice by nothing on average."""
    assert adoption(0.5, 60) <= 7 / 60, "at a rate of 0.05 more than 7 of 60 come with a chance below 2 %"
