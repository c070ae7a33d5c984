"""Which units are explained, sample by sample."""

from __future__ import annotations

import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._typing import Units


def gather_units(values: tf.Tensor, indices: Units = None, axis: int = -1) -> tf.Tensor:
    """Take the units that are explained, sample by sample.

    Args:
        values: tensor `(batch, ..., units)`.
        indices: `None` for every unit, `"argmax"` for the highest of each sample, or an integer
            tensor: scalar, `(batch,)` or `(batch, n)`.
        axis: axis of the units, never 0. Defaults to the last.

    Returns:
        tensor with the axis of the units reduced to the `n` taken.

    Example:
        >>> import keras_explainable as ke
        >>> ke.inspection.gather_units([[1., 5., 2.], [7., 8., 9.]], [[1, 0], [2, 2]]).numpy()
        array([[5., 1.],
               [9., 9.]], dtype=float32)
    """
    values = tf.convert_to_tensor(values)
    indices = unit_indices(values, indices)
    return values if indices is None else tf.gather(values, indices, axis=axis, batch_dims=1)


def unit_indices(logits: tf.Tensor, indices: Units = None) -> tf.Tensor | None:
    """Bring the indices of the explained units into one form.

    Args:
        logits: tensor `(batch, units)`.
        indices: as in `gather_units`.

    Returns:
        integer tensor `(batch, n)`, or `None` for every unit.

    Raises:
        ValueError: if `indices` is none of those.
    """
    if indices is None:
        return None
    if isinstance(indices, str):
        if indices != "argmax":
            raise invalid("indices", '`None`, "argmax" or integers', repr(indices))
        return tf.argmax(logits, axis=-1, output_type=tf.int32)[:, None]
    units = tf.convert_to_tensor(indices)
    if not units.dtype.is_integer or units.shape.rank not in (0, 1, 2):
        expected = "integers of shape (), (batch,) or (batch, n)"
        raise invalid("indices", expected, f"{units.dtype.name} {tuple(units.shape)}")
    if units.shape.rank == 0:
        units = tf.repeat(units[None], tf.shape(logits)[0])
    return units[:, None] if units.shape.rank == 1 else units
