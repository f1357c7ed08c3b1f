"""Which axes the curves of a training are drawn on."""

from __future__ import annotations

from matplotlib.figure import Figure

from selfcfg.engine.training.curves import _plot_scores


def drawn(validation: dict[str, float]) -> dict[str, list[str]]:
    """The names of the lines by the scale of their axis, and those of the legend."""
    figure = Figure()
    entry = {"epoch": 0, "validation": validation, "average": 0.5}
    _plot_scores(figure.subplots(), [entry])
    lines = {axes.get_yscale(): [str(line.get_label()) for line in axes.get_lines()] for axes in figure.axes}
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    return {**lines, "legend": [text.get_text() for text in legend.get_texts()]}


def test_norms_of_gradients_have_a_logarithmic_axis_of_their_own() -> None:
    found = drawn({"dice": 0.3, "gradient norm one": 20.0, "gradient cosine": 0.1})
    assert found["linear"] == ["dice", "gradient cosine", "moving average"]
    assert found["log"] == ["gradient norm one"]
    assert found["legend"] == [*found["linear"], *found["log"]]


def test_without_norms_there_is_one_axis() -> None:
    assert set(drawn({"dice": 0.3})) == {"linear", "legend"}
