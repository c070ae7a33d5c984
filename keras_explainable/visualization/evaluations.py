"""Figures of evaluations: a table in which colours tell what is better, and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_explainable.evaluation import Evaluation

_COLORS = "YlGnBu"
_NEUTRAL = "0.93"
_INK, _FAINT = "0.15", "0.45"
# By which a cell is light or dark, and its ink the other.
_LUMINANCE = (0.3, 0.59, 0.11)
_DPI = 150
# Inches.
_CELL, _ROW, _LETTER, _MARGIN, _FOOT = 1.28, 0.5, 0.085, 0.15, 0.55
_COLUMNS = 6
_ALL = "all"
_PANELS = 3
_WIDE = 5.2  # Inches that take the longer legend.
# Lines that tell methods apart without their colours, too.
_STYLES = ("-", "--", "-.", ":")


def table(
    evaluation: Evaluation,
    *,
    metrics: Sequence[str] | None = None,
    unit: object = _ALL,
    intervals: bool = True,
    percent: bool = False,
) -> Figure:
    """Draw an evaluation as a table of methods by metrics, coloured from worst to best per metric.

    Of more than six metrics, the rest is drawn below, so that numbers can be read on a page.

    Args:
        evaluation: `Evaluation`.
        metrics: labels of the metrics to draw, in order. Defaults to all.
        unit: class whose values are drawn. Defaults to "all".
        intervals: whether to write the 95 % intervals below the values. Defaults to `True`.
        percent: whether to write values times 100. Defaults to `False`.

    Returns:
        the matplotlib figure. An arrow in a heading points to what is better; a metric without a
        direction has no colours; the best value of each metric over all classes is bold. Where
        intervals are wider than the differences of values, colours are closer to each other.

    Raises:
        TypeError: if `evaluation` is none.
        ValueError: if it has no such metric or class.
    """
    from matplotlib import pyplot as plt

    metrics = _chosen(evaluation, metrics)
    methods = evaluation.methods
    cells = [[_cell(evaluation, method, metric, unit) for metric in metrics] for method in methods]
    headings = [_heading(evaluation, metric) for metric in metrics]
    best = [evaluation.best(metric) if unit == _ALL else None for metric in metrics]
    shades = [
        _shades([line[column] for line in cells], evaluation.higher_is_better.get(metric))
        for column, metric in enumerate(metrics)
    ]
    blocks = np.array_split(np.arange(len(metrics)), -(-len(metrics) // _COLUMNS))
    heads = [0.2 * max(headings[i].count("\n") + 1 for i in block) + _MARGIN for block in blocks]
    left = _LETTER * max(map(len, methods)) + 2 * _MARGIN
    height = (_ROW if intervals else 0.7 * _ROW) * len(methods)
    width = _CELL * len(blocks[0])
    size = left + width + _MARGIN, sum(heads) + height * len(blocks) + _FOOT
    figure = plt.figure(figsize=size, dpi=_DPI)
    bottom = size[1]
    for block, head in zip(blocks, heads, strict=True):
        bottom -= head + height
        width = _CELL * len(block)
        place = left / size[0], bottom / size[1], width / size[0], height / size[1]
        axes = figure.add_axes(place)
        for column, metric in enumerate(block):
            for line, method in enumerate(methods):
                shade = shades[metric][line]
                bold = best[metric] == method and shade is not None
                _draw_cell(
                    axes, line, column, cells[line][metric], shade, "bold" if bold else "normal",
                    intervals, 100 if percent else 1,
                )  # fmt: skip
        axes.set(xlim=(0, len(block)), ylim=(len(methods), 0))
        texts = [headings[metric] for metric in block]
        axes.set_xticks(np.arange(len(block)) + 0.49, texts, fontsize=9, color=_INK)
        axes.set_yticks(np.arange(len(methods)) + 0.47, methods, fontsize=10, color=_INK)
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)
    _draw_legend(figure, left / size[0], size)
    return figure


def curves(
    evaluation: Evaluation,
    metrics: Sequence[str] | None = None,
    *,
    methods: Sequence[str] | None = None,
) -> Figure:
    """Draw the mean curves that metrics are areas of, such as those of insertion and deletion.

    Args:
        evaluation: `Evaluation`.
        metrics: labels of the metrics to draw, one panel each. Defaults to all that have curves.
        methods: labels of the methods to draw. Defaults to all.

    Returns:
        the matplotlib figure. The legend of a panel tells the value of each method, the best first.

    Raises:
        TypeError: if `evaluation` is none.
        ValueError: if it has no such metric or method, or a metric has no curves.
    """
    from matplotlib import pyplot as plt

    if not hasattr(evaluation, "curve_axes"):
        raise mistyped("evaluation", "an `Evaluation`", evaluation)
    lines = {pair: np.asarray(curve) for pair, curve in evaluation.curves.items()}
    having = [m for m in evaluation.curve_axes if any(pair[1] == m for pair in lines)]
    metrics = having if metrics is None else _chosen(evaluation, metrics)
    for metric in metrics or [None]:
        if metric not in having:
            expected = f"metrics that have curves ({', '.join(having) or 'there are none'})"
            raise invalid("metrics", expected, repr(metric))
    methods = evaluation.methods if methods is None else list(methods)
    for method in methods:
        evaluation.select(method)
    columns = min(len(metrics), _PANELS)
    rows = -(-len(metrics) // columns)
    size = 4.6 * columns, 3.6 * rows
    figure, panels = plt.subplots(
        rows, columns, figsize=size, dpi=_DPI, squeeze=False, layout="constrained"
    )
    for axes in panels.flat[len(metrics) :]:
        axes.set_axis_off()
    for axes, metric in zip(panels.flat, metrics, strict=False):
        direction = evaluation.higher_is_better.get(metric)
        colors = dict(zip(methods, plt.cm.cividis(np.linspace(0, 0.9, len(methods))), strict=True))
        order = sorted(methods, key=lambda m: evaluation.value(m, metric), reverse=bool(direction))
        for method in order:
            curve = lines.get((method, metric))
            if curve is None:
                continue  # Nothing was explained.
            style = _STYLES[methods.index(method) % len(_STYLES)]
            label = f"{method}  {evaluation.value(method, metric):.3f}"
            places = np.linspace(0, 1, len(curve))
            axes.plot(places, curve, style, color=colors[method], label=label, linewidth=1.6)
        axes.set_title(_heading(evaluation, metric, width=99), fontsize=10, color=_INK)
        axes.set_xlabel(evaluation.curve_axes[metric], fontsize=9, color=_INK)
        axes.set_xlim(0, 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, color=_FAINT, labelcolor=_INK)
        axes.grid(color="0.92")
        axes.legend(fontsize=7.5, frameon=False)
    for axes in panels[:, 0]:
        axes.set_ylabel("mean over pairs", fontsize=9, color=_INK)
    return figure


def _chosen(evaluation, metrics):
    if not hasattr(evaluation, "select"):
        raise mistyped("evaluation", "an `Evaluation`", evaluation)
    metrics = evaluation.metrics if metrics is None else metrics
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    for metric in metrics:
        evaluation.select(metric=metric)
    return metrics


def _cell(evaluation, method, metric, unit):
    rows = evaluation.select(method, metric, unit)
    if rows:
        return rows[0]
    # A class that a method was not measured on has no row; one that none was measured on is wrong.
    if not evaluation.select(unit=unit):
        units = list(dict.fromkeys(row.unit for row in evaluation))
        raise invalid("unit", f"one of {units}", repr(unit))
    return evaluation.select(method, metric)[0]._replace(value=math.nan)


def _heading(evaluation, metric, width=13):
    """Return the words of a metric in short lines, and an arrow to what is better."""
    arrow = {True: "\N{NO-BREAK SPACE}↑", False: "\N{NO-BREAK SPACE}↓"}
    arrow = arrow.get(evaluation.higher_is_better.get(metric), "")
    lines = [""]
    for word in f"{metric.replace('_', ' ')}{arrow}".split(" "):
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _shades(rows, higher_is_better):
    """Return a number from 0, the worst, to 1, the best, for each row; `None` for no colour.

    Where intervals are wider than what values differ by, all are closer to the middle.
    """
    values = np.asarray([row.value for row in rows])
    if higher_is_better is None or len(set(values[~np.isnan(values)])) < 2:
        return [None] * len(rows)
    spread = np.nanmax(values) - np.nanmin(values)
    widths = [row.high - row.low for row in rows if not math.isnan(row.high - row.low)]
    spread = max(spread, np.mean(widths) if widths else 0)
    middle = (np.nanmax(values) + np.nanmin(values)) / 2
    shades = 0.5 + (values - middle) / spread * (1 if higher_is_better else -1)
    return [None if math.isnan(shade) else float(shade) for shade in shades]


def _draw_cell(axes, line, column, row, shade, weight, intervals, factor):
    from matplotlib import pyplot as plt

    # The lightest and the darkest colours are left out, so that ink can be read on all.
    color = _NEUTRAL if shade is None else plt.get_cmap(_COLORS)(0.08 + 0.72 * shade)
    axes.add_patch(plt.Rectangle((column, line), 0.975, 0.94, color=color, linewidth=0))
    dark = shade is not None and np.dot(color[:3], _LUMINANCE) < 0.55
    ink = "white" if dark else _INK
    text = "–" if math.isnan(row.value) else _number(row.value * factor)
    shown = intervals and not any(map(math.isnan, (row.value, row.low, row.high)))
    place = {"ha": "center", "va": "center", "color": ink}
    axes.text(column + 0.49, line + (0.33 if shown else 0.47), text, fontsize=10, weight=weight,
              **place)  # fmt: skip
    if shown:
        ends = f"{_number(row.low * factor)} – {_number(row.high * factor)}"
        axes.text(column + 0.49, line + 0.71, ends, fontsize=7.5, **place)


def _draw_legend(figure, left, size):
    from matplotlib import pyplot as plt

    colors = plt.get_cmap(_COLORS)(0.08 + 0.72 * np.linspace(0, 1, 64))[None]
    axes = figure.add_axes([left, 0.2 / size[1], 1.2 / size[0], 0.12 / size[1]])
    axes.imshow(colors, aspect="auto")
    axes.set_axis_off()
    middle = 0.26 / size[1]
    figure.text(left - 0.08 / size[0], middle, "worst", ha="right", va="center", fontsize=8,
                color=_FAINT)  # fmt: skip
    text = "best of its column"
    if size[0] - left * size[0] > _WIDE:
        text += ", paler where differences are smaller than intervals"
    figure.text(left + 1.28 / size[0], middle, text, ha="left", va="center",
                fontsize=8, color=_FAINT)  # fmt: skip


def _number(value):
    """Return a number with three digits that count, as few places as these take."""
    if value == 0 or abs(value) >= 1e5 or abs(value) < 1e-3:
        return "0" if value == 0 else f"{value:.1e}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 3)}f}".replace("-", "−")
