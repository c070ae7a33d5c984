"""What metrics of ranks share: rows in the order of their values, and areas under curves."""

import tensorflow as tf


def ranked(maps, *others):
    """Sort rows from the highest value on, equal ones by their position, the lowest first.

    Args:
        maps: float32 `(batch, n, places)`.
        *others: tensors of the same shape, which are put into the order of the maps.

    Returns:
        list of tensors of the same shape.
    """
    order = tf.math.top_k(maps, tf.shape(maps)[-1]).indices
    return [tf.gather(rows, order, axis=-1, batch_dims=2) for rows in (maps, *others)]


def levels(values):
    """Number equal neighbours of sorted rows `(batch, n, places)` from 0 on, as int32."""
    differs = tf.cast(values[..., 1:] != values[..., :-1], tf.int32)
    return tf.cumsum(tf.pad(differs, [[0, 0], [0, 0], [1, 0]]), axis=-1)


def sums_per_level(rows, numbers, count):
    """Add up values of rows by their numbers.

    Args:
        rows: float32 `(batch, n, places)`.
        numbers: int32 of the same shape, from 0 to `count - 1`.
        count: integer or scalar tensor.

    Returns:
        float32 `(batch, n, count)`.
    """
    shape = tf.shape(rows)
    first = count * tf.reshape(tf.range(shape[0] * shape[1]), (shape[0], shape[1], 1))
    places = tf.reshape(numbers + first, [-1])
    total = tf.math.unsorted_segment_sum(
        tf.reshape(rows, [-1]), places, shape[0] * shape[1] * count
    )
    return tf.reshape(total, (shape[0], shape[1], count))


def area_under_roc(positives, negatives):
    """Return the area under the curve of the rates of true and false positives.

    Args:
        positives: float32 `(batch, n, levels)`, how many there are per level, highest level first.
        negatives: float32 of the same shape.

    Returns:
        float32 `(batch, n)`, 0 where there are no positives or no negatives.
    """
    share = tf.math.divide_no_nan(positives, tf.reduce_sum(positives, -1, keepdims=True))
    width = tf.math.divide_no_nan(negatives, tf.reduce_sum(negatives, -1, keepdims=True))
    return tf.reduce_sum(width * (tf.cumsum(share, axis=-1) - share / 2), axis=-1)
