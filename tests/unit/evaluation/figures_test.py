"""Figures of evaluations say what the evaluation says."""

import math

import keras
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

import keras_explainable as ke
from keras_explainable.evaluation.table import Row


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def table():
    values = {"drop": (0.2, 0.4, 0.6), "hits": (0.9, 0.5, 0.7), "size": (1.0, 2.0, 3.0)}
    rows = [
        Row(f"method {i}", metric, unit, value, value - 0.01, value + 0.01, 5)
        for metric, found in values.items()
        for i, value in enumerate(found)
        for unit in ("all", 3)
    ]
    curves = {(f"method {i}", "hits"): np.linspace(i, 0, 5).tolist() for i in range(3)}
    directions = {"drop": False, "hits": True, "size": None}
    return ke.Evaluation(rows, curves, directions, 5, {}, {"hits": "threshold"})


def texts(axes):
    return [text.get_text() for text in axes.texts]


def darkness(axes):
    """Return how dark each cell is, methods by metrics."""
    cells = {(int(p.get_y()), int(p.get_x())): p.get_facecolor() for p in axes.patches}
    rows, columns = (max(key[axis] for key in cells) + 1 for axis in (0, 1))
    return np.asarray(
        [[1 - np.mean(to_rgb(cells[r, c])) for c in range(columns)] for r in range(rows)]
    )


def test_a_table_is_dark_where_values_are_good(table):
    axes = ke.visualization.table(table).axes[0]
    dark = darkness(axes)
    assert dark.shape == (3, 3)
    assert list(np.argsort(dark[:, 0])) == [2, 1, 0]  # The lowest drop is the best.
    assert list(np.argsort(dark[:, 1])) == [1, 2, 0]
    assert len(set(dark[:, 2])) == 1  # Without a direction there is no colour.
    assert [label.get_text() for label in axes.get_yticklabels()] == table.methods
    headings = [
        label.get_text().replace("\N{NO-BREAK SPACE}", " ") for label in axes.get_xticklabels()
    ]
    assert headings == ["drop ↓", "hits ↑", "size"]


def test_a_table_has_values_and_intervals(table):
    written = texts(ke.visualization.table(table).axes[0])
    assert "0.200" in written
    assert "0.190 – 0.210" in written
    bold = [
        t.get_text()
        for t in ke.visualization.table(table).axes[0].texts
        if t.get_weight() == "bold"
    ]
    assert bold == ["0.200", "0.900"]
    without = texts(ke.visualization.table(table, intervals=False, percent=True).axes[0])
    assert len(without) == 9
    assert "20.0" in without
    assert len(texts(ke.visualization.table(table, metrics="hits", unit=3).axes[0])) == 6


def test_more_than_six_metrics_go_on_below():
    names = [f"metric {number}" for number in range(9)]
    rows = [
        Row(f"method {i}", name, "all", number + i / 10, math.nan, math.nan, 5)
        for number, name in enumerate(names)
        for i in range(3)
    ]
    many = ke.Evaluation(rows, {}, dict.fromkeys(names, True), 5, {}, {})
    figure = ke.visualization.table(many)
    above, below, _ = figure.axes
    headings = [[t.get_text().split("\N{NO-BREAK SPACE}")[0] for t in axes.get_xticklabels()]
                for axes in (above, below)]  # fmt: skip
    assert headings == [names[:5], names[5:]]
    assert texts(above)[:3] == ["0", "0.100", "0.200"]
    assert texts(below)[-3:] == ["8.00", "8.10", "8.20"]
    np.testing.assert_allclose(darkness(below)[:, 0], darkness(above)[:, 0], atol=1e-6)
    # Cells are of one size, below each other, and nothing leaves the figure.
    boxes = [axes.get_position() for axes in (above, below)]
    assert boxes[0].width / 5 == pytest.approx(boxes[1].width / 4)
    assert boxes[0].x0 == pytest.approx(boxes[1].x0)
    assert boxes[0].y0 > boxes[1].y1
    figure.canvas.draw()
    for axes in (above, below):
        assert axes.get_tightbbox().y0 >= 0
        assert axes.get_tightbbox().y1 <= figure.bbox.y1
    assert len(ke.visualization.table(many, metrics=names[:6]).axes) == 2


def test_wide_intervals_make_colours_alike(table):
    clear = np.ptp(darkness(ke.visualization.table(table).axes[0])[:, 0])
    table.rows = [row._replace(low=row.value - 5, high=row.value + 5) for row in table.rows]
    assert np.ptp(darkness(ke.visualization.table(table).axes[0])[:, 0]) < 0.1 * clear


def test_what_was_not_measured_is_a_dash(table):
    table.rows = [
        row._replace(value=math.nan) if row[:2] == ("method 1", "drop") else row
        for row in table.rows
        if row[:3] != ("method 2", "hits", 3)
    ]
    assert "–" in texts(ke.visualization.table(table).axes[0])
    assert "–" in texts(ke.visualization.table(table, unit=3).axes[0])


def test_curves_are_those_of_the_evaluation(table):
    figure = ke.visualization.curves(table)
    (axes,) = figure.axes
    lines = {line.get_label().split("  ")[0]: line for line in axes.lines}
    for i in range(3):
        line = lines[f"method {i}"]
        np.testing.assert_allclose(line.get_ydata(), table.curves[f"method {i}", "hits"])
        np.testing.assert_allclose(line.get_xdata(), np.linspace(0, 1, 5))
    assert len({line.get_linestyle() for line in axes.lines}) == 3
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["method 0  0.900", "method 2  0.700", "method 1  0.500"]
    assert axes.get_xlabel() == "threshold"
    chosen = ke.visualization.curves(table, "hits", methods=["method 2"])
    assert len(chosen.axes[0].lines) == 1


def test_bad_arguments_are_named(table):
    for draw in (ke.visualization.table, ke.visualization.curves):
        with pytest.raises(TypeError, match="`evaluation`. Expected an `Evaluation`"):
            draw([1, 2])
    with pytest.raises(ValueError, match="Received: 'drops'"):
        ke.visualization.table(table, metrics=["drops"])
    with pytest.raises(ValueError, match="`unit`.*Received: 'cat'"):
        ke.visualization.table(table, unit="cat")
    with pytest.raises(ValueError, match=r"metrics that have curves \(hits\). Received: 'drop'"):
        ke.visualization.curves(table, ["drop"])
    with pytest.raises(ValueError, match="Received: 'method 9'"):
        ke.visualization.curves(table, methods=["method 9"])


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_a_curve_of_random_weights_begins_with_the_model_as_trained(order):
    keras.utils.set_random_seed(0)
    stack = [keras.Input((4, 4, 1)), keras.layers.Flatten()]
    stack += [keras.layers.Dense(units, use_bias=False) for units in (8, 3)]
    model = keras.Sequential(stack)
    x = np.random.default_rng(0).uniform(size=(2, 4, 4, 1)).astype("float32")
    metric = ke.metrics.ModelParameterRandomization(order=order)
    found = ke.evaluate(
        model, x, [1, 1], methods="gradients", metrics={"similarity": metric}, verbose=0
    )
    (line,) = ke.visualization.curves(found).axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), [0, 0.5, 1])  # None, the head, and what follows.
    first, *stages = line.get_ydata()
    assert first == pytest.approx(1)
    assert max(stages) < 0.9
    assert found.value("gradients", "similarity") == pytest.approx(np.mean(stages))
