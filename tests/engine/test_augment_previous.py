"""Faults in the label map of a cascade's first stage."""

from __future__ import annotations

import numpy as np
import pytest

from selfcfg.engine.augmentation.previous_stage import Change, Faults, Removal, draw_faults, spoil
from selfcfg.engine.augmentation.transforms import REFERENCE, Augmentation
from selfcfg.engine.randomness import generator

ALWAYS = Augmentation(previous_change_p=1, previous_change_p_class=1, previous_removal_p=1, previous_removal_p_class=1)


def two_boxes() -> np.ndarray:
    labels = np.zeros((20, 20, 20), np.int16)
    labels[4:10, 4:10, 4:10] = 1
    labels[10:15, 4:10, 4:10] = 2
    return labels


def test_what_a_class_gains_is_taken_from_the_others_and_what_it_loses_is_background() -> None:
    labels = two_boxes()
    grown = spoil(labels, Faults(changes=(Change(1, "dilate", 1),)))
    assert (grown[10, 4:10, 4:10] == 1).all() and (grown[11:15, 4:10, 4:10] == 2).all()
    shrunk = spoil(labels, Faults(changes=(Change(1, "erode", 1),)))
    assert (shrunk[9, 4:10, 4:10] == 0).all() and (shrunk[5:9, 5:9, 5:9] == 1).all()
    np.testing.assert_array_equal(labels, two_boxes())


def test_one_component_that_is_small_enough_goes() -> None:
    labels = np.zeros((20, 20), np.int16)
    labels[:10] = 1
    labels[12:14, 2:4] = labels[16:18, 8:12] = 1
    left = [spoil(labels, Faults(removals=(Removal(1, pick),), largest=0.1)) for pick in (0.0, 0.9)]
    for found, gone in zip(left, [labels[12:14, 2:4].size, labels[16:18, 8:12].size], strict=True):
        assert (labels == 1).sum() - (found == 1).sum() == gone
    nothing = spoil(labels, Faults(removals=(Removal(1, 0.5), Removal(3, 0.5)), largest=0.001))
    np.testing.assert_array_equal(nothing, labels)


def test_a_class_that_is_not_there_is_left_alone() -> None:
    labels = two_boxes()
    np.testing.assert_array_equal(spoil(labels, Faults(changes=(Change(7, "dilate", 3),))), labels)


@pytest.mark.parametrize(("augmentation", "per_class"), [(REFERENCE, (0.2, 0.1)), (ALWAYS, (1.0, 1.0))])
def test_how_often_faults_are_drawn(augmentation: Augmentation, per_class: tuple[float, float]) -> None:
    values, many = (1, 2, 3), 4000
    drawn = [draw_faults(generator(0, "test", number), values, augmentation) for number in range(many)]
    changes = [change for faults in drawn for change in faults.changes]
    removals = [removal for faults in drawn for removal in faults.removals]
    assert len(changes) / (many * len(values)) == pytest.approx(per_class[0], abs=0.02)
    assert len(removals) / (many * len(values)) == pytest.approx(per_class[1], abs=0.02)
    assert {change.operation for change in changes} == {"dilate", "erode", "close", "open"}
    assert min(change.radius for change in changes) >= 1 and max(change.radius for change in changes) <= 8
    for change in changes[:20]:
        assert change.value in values


def test_the_order_of_the_classes_varies() -> None:
    orders = {
        tuple(change.value for change in draw_faults(generator(0, "test", number), (1, 2), ALWAYS).changes)
        for number in range(20)
    }
    assert orders == {(1, 2), (2, 1)}
