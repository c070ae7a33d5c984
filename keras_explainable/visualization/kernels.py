"""Figures of linear heads: how alike their units are, and how many kernels they use."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from keras_explainable._checks import invalid
from keras_explainable._typing import ArrayLike
from keras_explainable.visualization.evaluations import _DPI
from keras_explainable.visualization.evaluations import _FAINT
from keras_explainable.visualization.evaluations import _INK
from keras_explainable.visualization.maps import DIVERGING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOTHING = "1"
# Inches.
_LEAST, _MOST = 2.4, 4.4
_LINE, _LETTER, _EDGE, _BETWEEN, _BAR = 0.17, 0.066, 0.12, 0.22, 0.11
_HEAD, _TICKS = 0.5, 0.75
# What a label takes along its axis, lying and at 45°, and an entry of a legend beside its text.
_LYING, _TURNED, _KEY = 0.13, 0.17, 0.6
_LABELS = 8


def correlations(
    matrices: Mapping[str, ArrayLike],
    class_names: Sequence[str] | None = None,
    *,
    limit: float | None = None,
) -> Figure:
    """Draw the correlations between the units of heads side by side, with one scale of colours.

    The diagonal, which is 1, is left white, so that the colours are those of pairs of units. Of
    many units every nth has its name.

    Args:
        matrices: dictionary from the name of each head to the array `(units, units)` that
            `keras_explainable.diagnostics.class_correlations` returns.
        class_names: names of the units. Defaults to their indices.
        limit: float, magnitude of the correlation with the strongest colour; the scale is centred
            on 0. Defaults to the greatest one of different units.

    Returns:
        the matplotlib figure. The number below a name is the mean magnitude of the correlations of
        different units.

    Raises:
        ValueError: if matrices and names don't go together, or `limit` is not above 0.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> matrices = {"plain": np.eye(3), "KUR": np.eye(3)}
        >>> figure = ke.visualization.correlations(matrices, ["cat", "dog", "cow"])
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['plain', 'KUR', '']
    """
    from matplotlib import pyplot as plt

    matrices = _checked(matrices, "matrices", "(units, units)", 2)
    names = _names(class_names, len(next(iter(matrices.values()))))
    others = ~np.eye(len(names), dtype=bool)
    sizes = {name: np.abs(matrix[others]) for name, matrix in matrices.items()}
    if limit is None:
        limit = max((values.max() for values in sizes.values() if values.size), default=0) or 1.0
    elif not limit > 0:
        raise invalid("limit", "a number above 0", limit)
    side = float(np.clip(_LINE * len(names), _LEAST, _MOST))
    written = _EDGE + _LETTER * max(map(len, names))
    width = _EDGE + written + (side + _BETWEEN) * len(matrices) + _BAR + _TICKS
    height = _HEAD + side + written + _EDGE
    figure = plt.figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    bottom = (written + _EDGE) / height
    for number, (name, matrix) in enumerate(matrices.items()):
        left = _EDGE + written + (side + _BETWEEN) * number
        axes = figure.add_axes((left / width, bottom, side / width, side / height))
        values = np.where(others, matrix, np.nan)
        image = _draw_matrix(axes, values, limit, names, side, number == 0)
        axes.set_title(name, loc="left", fontsize=10, weight="bold", color=_INK, pad=17)
        if sizes[name].size:
            text = f"mean |r| = {sizes[name].mean():.2f}"
            axes.annotate(
                text,
                (0, 1),
                xytext=(0, 5),
                xycoords="axes fraction",
                textcoords="offset points",
                fontsize=_LABELS,
                color=_FAINT,
            )
    left = (width - _BAR - _TICKS) / width
    bar = figure.add_axes((left, bottom, _BAR / width, side / height))
    figure.colorbar(image, cax=bar)
    bar.set_ylabel("correlation r", fontsize=9, color=_INK)
    bar.tick_params(labelsize=_LABELS, length=2, color="0.7", labelcolor=_INK)
    bar.spines[:].set(color="0.7", linewidth=0.5)
    return figure


def usage(
    counts: Mapping[str, ArrayLike],
    class_names: Sequence[str] | None = None,
    *,
    num_kernels: int | None = None,
) -> Figure:
    """Draw how many kernels each unit of heads uses. Of many units every nth has its name.

    Args:
        counts: dictionary from the name of each head to the array `(units,)` that
            `keras_explainable.diagnostics.kernel_usage` returns, or to an array `(heads, units)` of
            several, as of repeated training: bars are means, and lines go from least to greatest.
        class_names: names of the units. Defaults to their indices.
        num_kernels: number of kernels that there are, told in the label. Defaults to not told.

    Returns:
        the matplotlib figure. The number beside a name is the mean over units.

    Raises:
        ValueError: if counts and names don't go together.

    Example:
        >>> import keras_explainable as ke
        >>> counts = {"plain": [9, 8, 9], "KUR": [3, 2, 4]}
        >>> figure = ke.visualization.usage(counts, ["cat", "dog", "cow"])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['plain, mean 8.7', 'KUR, mean 3.0']
    """
    from matplotlib import pyplot as plt

    if isinstance(counts, dict):
        counts = {name: np.atleast_2d(values) for name, values in counts.items()}
    counts = _checked(counts, "counts", "(units,) or (heads, units)", 2, square=False)
    names = _names(class_names, next(iter(counts.values())).shape[1])
    breadth = 0.8 / len(counts)
    width = float(np.clip(0.16 * len(names) * (len(counts) + 1), 4.5, 10))
    labels = {name: f"{name}, mean {values.mean():.1f}" for name, values in counts.items()}
    columns = int(width / (_KEY + _LETTER * max(map(len, labels.values())))) or 1
    rows = math.ceil(len(labels) / columns)
    columns = math.ceil(len(labels) / rows)
    size = width, 2.9 + _LINE * (rows - 1)
    points = 72 * breadth * (width - 1) / len(names)
    figure, axes = plt.subplots(figsize=size, dpi=_DPI, layout="constrained")
    colors = plt.cm.cividis(np.linspace(0.05, 0.9, len(counts)))
    for number, (name, values) in enumerate(counts.items()):
        places = np.arange(len(names)) + (number - (len(counts) - 1) / 2) * breadth
        means = values.mean(axis=0)
        axes.bar(places, means, 0.9 * breadth, color=colors[number], label=labels[name])
        if len(values) > 1:
            ends = values.min(axis=0), values.max(axis=0)
            for color, linewidth, part in (("white", 2.2, 0.6), (_INK, 0.9, 0.25)):
                axes.vlines(places, *ends, color=color, linewidth=min(linewidth, part * points))
    shown, pitch = _shown(names, width - 1, _TURNED)
    long = max(map(len, names)) * _LETTER > pitch
    turned: dict[str, Any] = {}
    if long:
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(shown, [names[i] for i in shown], fontsize=_LABELS, color=_INK, **turned)
    axes.set_xlim(-0.6, len(names) - 0.4)
    label = "kernels used" if num_kernels is None else f"kernels used, of {num_kernels}"
    axes.set_ylabel(label, fontsize=9, color=_INK)
    axes.locator_params(axis="y", integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=_LABELS, color=_FAINT, labelcolor=_INK)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", fontsize=_LABELS, frameon=False, ncols=columns)
    return figure


def _shown(names, length, room):
    """Choose which units have their names, so that each has room for it.

    Args:
        names: names of the units.
        length: of their axis.
        room: what a name takes of it.

    Returns:
        shown: indices of units.
        pitch: how far they are from each other.
    """
    step = math.ceil(room * len(names) / length)
    return np.arange(0, len(names), step), length * step / len(names)


def _draw_matrix(axes, matrix, limit, names, side, is_first):
    """Draw a matrix, the names of its rows only where it is the first."""
    axes.set_facecolor(_NOTHING)
    image = axes.imshow(
        matrix, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto"
    )
    shown, pitch = _shown(names, side, _LYING)
    texts, longest = [names[i] for i in shown], max(map(len, names))
    lies = longest <= 2 and longest * _LETTER < pitch
    axes.set_xticks(shown, texts, rotation=0 if lies else 90)
    axes.set_yticks(shown, texts if is_first else [""] * len(texts))
    axes.tick_params(length=0, labelsize=_LABELS, labelcolor=_INK, pad=2)
    axes.spines[:].set_visible(False)
    return image


def _checked(values, argument, shape, rank, square=True):
    """Return arrays of floats that have the same units."""
    if not isinstance(values, dict) or not values:
        shape = getattr(values, "shape", None)
        received = reprlib.repr(values) if shape is None else f"an array of shape {tuple(shape)}"
        raise invalid(argument, "a dictionary {name of a head: array}", received)
    arrays = {str(name): np.asarray(array, float) for name, array in values.items()}
    for name, array in arrays.items():
        fits = array.ndim == rank and array.size and (not square or len(set(array.shape)) == 1)
        if not fits:
            raise invalid(f"{argument}[{name!r}]", f"an array of shape {shape}", array.shape)
        if not np.isfinite(array).all():
            raise invalid(f"{argument}[{name!r}]", "finite values", "NaN or infinity")
    numbers = {name: array.shape[-1] for name, array in arrays.items()}
    if len(set(numbers.values())) > 1:
        raise invalid(argument, "arrays of the same number of units", numbers)
    return arrays


def _names(class_names, num_units):
    names = range(num_units) if class_names is None else class_names
    names = [str(name) for name in names]
    if len(names) != num_units:
        raise invalid("class_names", f"{num_units} names", len(names))
    return names
