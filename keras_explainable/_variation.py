"""Total variation of maps over scales, which tells noise from shape."""

import numpy as np
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import filters
from keras_explainable._checks import invalid

_DOWNSCALE = 1.5
_SMALLEST = 30


def area_under_total_variation(maps):
    r"""Return the area under the total variation of maps as they are scaled down (AUTVC).

    Args:
        maps: as in `total_variation_curve`.

    Returns:
        float32 `(batch, units)`; lower for maps with less noise.

    Raises:
        ValueError: if the maps are not of that form.

    References:
        - Goh, Lapuschkin, Weber, Samek, Binder, "Understanding Integrated Gradients with
          SmoothTaylor for Deep Neural Network Attribution", ICPR 2020. arXiv 2004.10484.
    """
    return simpson(total_variation_curve(maps))


def total_variation_curve(maps):
    """Return the total variation of maps at each level of a Gaussian pyramid.

    At each level the map passes `filters.percentile_normalize`, and its total variation is the sum
    of the differences of neighbours, over the number of positions. An axis of size 1 is none.

    Args:
        maps: float tensor `(batch, *positions, units)`, of sizes that are known.

    Returns:
        float32 `(levels, batch, units)`.

    Raises:
        ValueError: if the maps are not of that form.
    """
    maps = tf.cast(maps, tf.float32)
    if maps.shape.rank < 3 or not maps.shape[1:-1].is_fully_defined():
        expected = "maps (batch, *positions, units) of sizes that are known"
        raise invalid("maps", expected, tuple(maps.shape))
    axes = [axis for axis in _axes.spatial(maps.shape.rank) if maps.shape[axis] > 1]
    curve = [_total_variation(maps, axes)]
    while axes:
        sizes = [-(-size * 2 // 3) if size > 1 else 1 for size in maps.shape[1:-1]]
        if min(sizes[axis - 1] for axis in axes) < _SMALLEST:
            break
        for axis in axes:
            maps = _blur(maps, axis)
        maps = filters.resize(maps, sizes)
        curve.append(_total_variation(maps, axes))
    return tf.stack(curve)


def simpson(curve):
    """Integrate a curve `(points, ...)` at unit spacing with Simpson's rule."""
    return tf.tensordot(tf.constant(simpson_weights(curve.shape[0]), tf.float32), curve, 1)


def _total_variation(maps, axes):
    maps = filters.percentile_normalize(maps)
    positions = _axes.spatial(maps.shape.rank)
    total = tf.zeros_like(tf.reduce_sum(maps, positions))
    for axis in axes:
        total += tf.reduce_sum(tf.abs(_difference(maps, axis)), positions)
    return total / maps.shape[1:-1].num_elements()


def _difference(maps, axis):
    """Subtract each value along an axis from the next one."""
    size = maps.shape[axis]
    return tf.gather(maps, range(1, size), axis=axis) - tf.gather(maps, range(size - 1), axis=axis)


def _blur(maps, axis):
    """Convolve one axis with a Gaussian as wide as the downscaling needs."""
    stddev = 2 * _DOWNSCALE / 6
    radius = int(4 * stddev + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / stddev) ** 2)
    paddings = [[0, 0] for _ in maps.shape]
    paddings[axis] = [radius, radius]
    padded = tf.pad(maps, paddings, "SYMMETRIC")
    size = maps.shape[axis]
    shifted = [tf.gather(padded, range(i, i + size), axis=axis) for i in range(len(taps))]
    return tf.add_n([float(t) * s for t, s in zip(taps / taps.sum(), shifted, strict=True)])


def simpson_weights(num_points):
    """Return the weights of Simpson's rule at unit spacing.

    Args:
        num_points: number of points of the curve. Where the number of intervals is odd, the last
            one goes below the parabola through the last three points.

    Returns:
        float array `(num_points,)`.
    """
    if num_points < 3:
        return np.full(num_points, 1 / num_points)
    odd = num_points - 1 + num_points % 2
    weights = np.zeros(num_points)
    for start in range(0, odd - 2, 2):
        weights[start : start + 3] += np.array([1, 4, 1]) / 3
    if odd < num_points:
        weights[-3:] += np.array([-1, 8, 5]) / 12
    return weights
