"""Filters of maps: functions from maps to maps, per sample and per unit.

Maps are `(batch, *positions, units)`; every filter treats each sample and each unit by itself.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from collections.abc import Sequence
from typing import TypeGuard

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._typing import Array
from keras_explainable._typing import Filter
from keras_explainable._typing import Resizing


def positive(maps: Array) -> tf.Tensor:
    r"""Keep the positive part.

    .. math:: \max(M, 0)

    Args:
        maps: float tensor or array `(batch, *positions, units)`.

    Returns:
        tensor of the same shape and dtype.
    """
    return tf.nn.relu(maps)


def negative(maps: Array) -> tf.Tensor:
    r"""Keep the negative part, sign included.

    .. math:: \min(M, 0)

    Args:
        maps: float tensor or array `(batch, *positions, units)`.

    Returns:
        tensor of the same shape and dtype.
    """
    return -tf.nn.relu(-maps)


def absolute(maps: Array) -> tf.Tensor:
    r"""Take the magnitude.

    .. math:: |M|

    Args:
        maps: float tensor or array `(batch, *positions, units)`.

    Returns:
        tensor of the same shape and dtype.
    """
    return tf.abs(maps)


def normalize(maps: Array) -> tf.Tensor:
    r"""Stretch every map to [0, 1].

    .. math:: \psi(M) = \frac{M - \min M}{\max M - \min M}

    Args:
        maps: float tensor or array `(batch, *positions, units)`.

    Returns:
        tensor of the same shape and dtype; 0 where a map is constant.
    """
    maps = tf.convert_to_tensor(maps)
    axes = _axes.spatial(maps.shape.rank)
    lowest = tf.reduce_min(maps, axis=axes, keepdims=True)
    highest = tf.reduce_max(maps, axis=axes, keepdims=True)
    return tf.math.divide_no_nan(maps - lowest, highest - lowest)


def positive_normalize(maps: Array) -> tf.Tensor:
    r"""Keep the positive part, stretched to [0, 1].

    .. math:: \psi(\max(M, 0))

    Args:
        maps: float tensor or array `(batch, *positions, units)`.

    Returns:
        tensor of the same shape and dtype; 0 where nothing is positive.
    """
    return normalize(positive(maps))


def negative_normalize(maps: Array) -> tf.Tensor:
    r"""Keep the magnitude of the negative part, stretched to [0, 1].

    .. math:: \psi(\max(-M, 0))

    Args:
        maps: float tensor or array `(batch, *positions, units)`.

    Returns:
        tensor of the same shape and dtype; 0 where nothing is negative.
    """
    return normalize(positive(-maps))


def absolute_normalize(maps: Array) -> tf.Tensor:
    r"""Take the magnitude, stretched to [0, 1].

    .. math:: \psi(|M|)

    Args:
        maps: float tensor or array `(batch, *positions, units)`.

    Returns:
        tensor of the same shape and dtype.
    """
    return normalize(absolute(maps))


def signed_normalize(maps: Array) -> tf.Tensor:
    r"""Scale every map by its largest magnitude, to [-1, 1] with zero kept in place.

    .. math:: M / \max |M|

    Args:
        maps: float tensor or array `(batch, *positions, units)`.

    Returns:
        tensor of the same shape and dtype; 0 where a map is 0 everywhere.
    """
    maps = tf.convert_to_tensor(maps)
    axes = _axes.spatial(maps.shape.rank)
    return tf.math.divide_no_nan(maps, tf.reduce_max(tf.abs(maps), axis=axes, keepdims=True))


def percentile_normalize(maps: Array, percentile: float = 99.0) -> tf.Tensor:
    r"""Take the magnitude, stretched to [0, 1] with the highest values cut off.

    .. math:: \min\left( \frac{|M| - \min |M|}{P(|M|) - \min |M|}, 1 \right)

    A few extreme values, which gradients often have, leave nothing to be seen of the rest under
    `absolute_normalize`.

    Args:
        maps: float tensor or array `(batch, *positions, units)`.
        percentile: percentile P of the values of a map, interpolated linearly, from 0 to 100, that
            becomes 1. Defaults to 99.

    Returns:
        tensor of the same shape and dtype; 0 where the percentile is the minimum.

    Raises:
        ValueError: if `percentile` is out of range.
    """
    if not 0 <= percentile <= 100:
        raise invalid("percentile", "a number from 0 to 100", percentile)
    maps = tf.convert_to_tensor(maps)
    dtype = maps.dtype if maps.dtype.is_floating else tf.float32
    maps = absolute(tf.cast(maps, tf.float32))
    axes = _axes.spatial(maps.shape.rank)
    shape = tf.shape(maps)
    values = tf.sort(tf.reshape(maps, (shape[0], -1, shape[-1])), axis=1)
    rank = tf.cast(tf.shape(values)[1] - 1, tf.float64) * (percentile / 100)
    below = tf.cast(tf.floor(rank), tf.int32)
    above = tf.minimum(below + 1, tf.shape(values)[1] - 1)
    low, high = tf.gather(values, below, axis=1), tf.gather(values, above, axis=1)
    highest = low + tf.cast(rank - tf.floor(rank), tf.float32) * (high - low)
    for _ in axes:
        highest = highest[:, None]
    lowest = tf.reduce_min(maps, axis=axes, keepdims=True)
    return tf.cast(tf.minimum(tf.math.divide_no_nan(maps - lowest, highest - lowest), 1), dtype)


def threshold(maps: Array, fraction: float = 0.2) -> tf.Tensor:
    r"""Keep the positions near the highest one, and set the others to zero.

    .. math:: M \cdot [M \geq t \max M]

    Args:
        maps: float tensor or array `(batch, *positions, units)`.
        fraction: share t of the maximum from which on values are kept, as they are. Defaults to
            0.2, from which CAM draws its boxes.

    Returns:
        tensor of the same shape and dtype; 0 where nothing is positive.
    """
    maps = positive(tf.convert_to_tensor(maps))
    highest = tf.reduce_max(maps, axis=_axes.spatial(maps.shape.rank), keepdims=True)
    return tf.where(maps >= fraction * highest, maps, tf.zeros_like(maps))


def resize(maps: Array, sizes: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Resize maps linearly with half-pixel centres, which keeps mass where it belongs.

    The centre of cell `i` of `n` lands at `(i + 0.5) * size / n - 0.5` pixels. Axes are resized one
    by one, without smoothing maps that become smaller.

    Args:
        maps: tensor or array `(batch, *positions, units)` with one or more axes of positions.
        sizes: sizes after resizing, a list or tuple of one per axis of positions, also where there
            is one axis; integers or scalar tensors.

    Returns:
        float32 tensor `(batch, *sizes, units)`.

    Raises:
        ValueError: if `sizes` doesn't fit the maps.
    """
    maps = tf.convert_to_tensor(maps)
    rank = maps.shape.rank - 2
    if rank < 1 or not _are_sizes(sizes) or len(sizes) != rank:
        expected = f"one size per axis of positions of maps {tuple(maps.shape)}"
        hint = "`resizing=False` leaves maps as they are, where the method doesn't resize them."
        raise invalid("resizing", expected, repr(sizes), hint)
    if all(isinstance(size, int) for size in sizes) and tuple(maps.shape[1:-1]) == tuple(sizes):
        return tf.cast(maps, tf.float32)
    if rank == 1:
        return tf.image.resize(maps[:, None], (1, sizes[0]))[:, 0]
    if rank == 2:
        return tf.image.resize(maps, sizes)
    batch, size, *rest = _axes.sizes(maps)
    # All that is not resized goes with the units, and then with the batch.
    maps = tf.image.resize(tf.reshape(maps, (batch, 1, size, -1)), (1, sizes[0]))
    maps = resize(tf.reshape(maps, (-1, *rest)), sizes[1:])
    return tf.reshape(maps, (batch, *sizes, rest[-1]))


def checked_sizes(resizing: Resizing) -> bool | int | tuple[int, ...]:
    """Check what maps are to be resized to.

    Args:
        resizing: boolean or `None`, a positive integer for all axes, or a tuple of one per axis.

    Returns:
        `True`, `False`, an integer for all axes, or a tuple of integers.

    Raises:
        ValueError: if it is something else.
    """
    if isinstance(resizing, bool):
        return resizing
    if resizing is None:
        return False
    if _is_integer(resizing) and resizing > 0:
        return int(resizing)
    if (
        isinstance(resizing, list | tuple)
        and len(resizing) > 0
        and all(_is_integer(size) and size > 0 for size in resizing)
    ):
        return tuple(int(size) for size in resizing)
    expected = "a boolean, a positive integer or a tuple of them"
    raise invalid("resizing", expected, repr(resizing))


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _are_sizes(sizes):
    """Tell whether something holds positive integers, or scalar tensors."""
    try:
        sizes = list(sizes)
    except TypeError:
        return False
    return all(tf.is_tensor(size) or (_is_integer(size) and size > 0) for size in sizes)


FILTERS = {
    f.__name__: f
    for f in (
        positive,
        negative,
        absolute,
        normalize,
        positive_normalize,
        negative_normalize,
        absolute_normalize,
        signed_normalize,
        percentile_normalize,
        threshold,
    )
}


def get(identifier: Filter) -> Callable:
    """Resolve a filter.

    Args:
        identifier: name of a filter, a function from maps to maps, or `None` for the identity.

    Returns:
        a function from maps to maps.

    Raises:
        ValueError: if no filter has that name.
        TypeError: if `identifier` is something else.
    """
    if identifier is None:
        return tf.identity
    if callable(identifier):
        return identifier
    if not isinstance(identifier, str):
        expected = "the name of a filter, a function from maps to maps, or `None`"
        raise mistyped("postprocessing", expected, identifier)
    if identifier not in FILTERS:
        raise invalid("postprocessing", f"one of {', '.join(FILTERS)}", repr(identifier))
    return FILTERS[identifier]
