"""Which units are explained, sample by sample."""

import tensorflow as tf

from keras_explainable._checks import invalid


def gather_units(values, indices=None, axis=-1):
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


def unit_indices(logits, indices=None):
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
    indices = tf.convert_to_tensor(indices)
    if not indices.dtype.is_integer or indices.shape.rank not in (0, 1, 2):
        expected = "integers of shape (), (batch,) or (batch, n)"
        raise invalid("indices", expected, f"{indices.dtype.name} {tuple(indices.shape)}")
    if indices.shape.rank == 0:
        indices = tf.repeat(indices[None], tf.shape(logits)[0])
    return indices[:, None] if indices.shape.rank == 1 else indices
