"""The plots of the page: what is where, and what is left out of many."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from selfcfg.report.page.svg import MAX_MARKS, Axis, Line, Mark, Row, curves, histograms, strips


def parsed(markup: str) -> ET.Element:
    return ET.fromstring(markup)


def test_a_mark_stands_at_its_value_and_has_its_name() -> None:
    marks = [Mark(0.0, "none"), Mark(0.5, "half & <half>"), Mark(1.0, "all")]
    drawing = strips([Row("a", marks, 0.5, 0.25, 0.75)], Axis("Dice", 0.0, 1.0), "label")
    circles = parsed(drawing.markup).findall(".//circle")
    places = [float(circle.get("cx") or "") for circle in circles]
    assert places[1] == pytest.approx((places[0] + places[2]) / 2, abs=0.1)
    assert [circle.findtext("title") for circle in circles] == ["none", "half & <half>", "all"]
    (interval,) = parsed(drawing.markup).findall(".//line[@class='interval']")
    ends = [float(interval.get(name) or "") for name in ("x1", "x2")]
    assert ends[1] - ends[0] == pytest.approx((places[2] - places[0]) / 2, abs=0.2)
    assert drawing.has_marks and not drawing.left_out


def test_of_very_many_marks_both_ends_are_drawn_and_the_rest_is_counted() -> None:
    marks = [Mark(value, str(value)) for value in range(4000)]
    drawing = strips([Row("a", marks), Row("b", marks[:10])], Axis("x"), "label")
    names = [circle.findtext("title") for circle in parsed(drawing.markup).findall(".//circle")]
    assert len(names) == MAX_MARKS // 2 + 10 and drawing.left_out == 4000 - MAX_MARKS // 2
    assert {"0", "3999"} <= set(names)


def test_a_plot_of_equal_values_has_an_axis() -> None:
    for marks in ([], [Mark(0.0, "x")], [Mark(3.0, "x"), Mark(3.0, "y")]):
        root = parsed(strips([Row("a", marks)], Axis("x"), "label").markup)
        assert len(root.findall(".//text")) >= 3


def test_a_curve_has_a_gap_where_a_value_is_missing() -> None:
    points = [(1.0, 0.5), (2.0, None), (3.0, 0.25), (4.0, 0.125)]
    drawing = curves([Line("fold 0", points)], "epoch", "loss", "label")
    assert drawing is not None
    root = parsed(drawing.markup)
    lines = [(line.get("points") or "").split() for line in root.findall(".//polyline")]
    assert [len(line) for line in lines] == [1, 2]
    heights = [float(point.split(",")[1]) for point in lines[1]]
    assert heights[0] < heights[1], "less is lower"
    assert "fold 0" in [text.text for text in root.findall(".//text")]
    assert curves([Line("fold 0", [(1.0, None)])], "epoch", "loss", "label") is None


def test_the_bars_of_a_histogram_count_every_value() -> None:
    root = parsed(histograms({"size": [1.0, 1.0, 2.0, 9.0], "same": [3.0] * 5}, "label").markup)
    told = [bar.findtext("title") or "" for bar in root.findall(".//rect")]
    assert sum(int(one.split()[0]) for one in told if one.endswith("of 4")) == 4
    assert [one for one in told if one.endswith("of 5")] == ["5 of 5"]
    lefts = [float(bar.get("x") or "") for bar in root.findall(".//rect")]
    assert all(a < b for a, b in pairwise(lefts))


def test_names_of_curves_stand_side_by_side_as_far_as_there_is_room() -> None:
    points = [(0.0, 0.1), (0.055, 0.6)]
    drawing = curves(
        [Line(name, points) for name in ("as the networks say", "ideal")], "confidence", "accuracy", "label"
    )
    ends = [float(x) for x in re.findall(r'x="([\d.]+)" y="14[.0]*" text-anchor="end"', drawing.markup)]
    assert len(ends) == 2 and ends[1] - ends[0] > 5 * 8
    assert ">0.02<" in drawing.markup, "an axis that is not of whole numbers has ticks between them"
    many = curves([Line(f"a rather long name {number}", points) for number in range(9)], "x", "y", "label")
    assert 0 < len(re.findall(r'y="14[.0]*" text-anchor="end"', many.markup)) < 9
