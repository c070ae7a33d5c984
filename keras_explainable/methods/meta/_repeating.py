"""Noise, and the units that are explained whatever it does."""

import math
import numbers

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import positive_integer
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import unit_indices
from keras_explainable.methods._units import float_logits


def explained_units(model, inputs, indices):
    """Fix the units that are explained by the inputs as they are.

    Args:
        model: model whose first output is the logits.
        inputs: what it takes.
        indices: as in `inspection.gather_units`.

    Returns:
        logits: float32 `(batch, n)`.
        indices: integers `(batch, n)`, or `None` for every unit.
    """
    logits = float_logits(tf.nest.flatten(model(inputs, training=False))[0])
    indices = unit_indices(logits, indices)
    return gather_units(logits, indices), indices


def add_noise(inputs, stddev, relative, seed, repetition):
    """Add normal noise to the float inputs, the same draw for all samples.

    Args:
        inputs: tensor, or a structure of tensors, `(batch, ...)`.
        stddev: standard deviation, a number or one per sample `(batch,)`.
        relative: whether that is a share of the range of each sample.
        seed: integer.
        repetition: number of the draw.

    Returns:
        tensors of the same structure.
    """
    flat = tf.nest.flatten(inputs)
    if not any(tensor.dtype.is_floating for tensor in flat):
        dtypes = ", ".join(tensor.dtype.name for tensor in flat)
        raise invalid("inputs", "at least one input of a float dtype, for noise", dtypes)
    noisy = [
        _noisy(x, stddev, relative, tf.stack([seed + 7919 * i, repetition]))
        if x.dtype.is_floating
        else x
        for i, x in enumerate(flat)
    ]
    return tf.nest.pack_sequence_as(inputs, noisy)


def repeated(structure, count):
    """Repeat tensors `(batch, ...)` a number of times, one batch after the other."""
    return tf.nest.map_structure(
        lambda t: None if t is None else tf.concat([tf.convert_to_tensor(t)] * count, 0), structure
    )


def unfolded(tensor, count):
    """Return `(count, batch, ...)` of what was explained of a batch repeated so many times."""
    sizes = _axes.sizes(tensor)
    return tf.reshape(tensor, (count, sizes[0] // count, *sizes[1:]))


def check_noise(num_samples, stddev, seed):
    """Refuse options of noise that make no sense."""
    positive_integer("num_samples", num_samples)
    number("stddev", stddev, least=0)
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise invalid("seed", "an integer", repr(seed))


def own_seed(method, seed):
    """Return the seed of noise around a method that may make noise itself."""
    return int(seed) + 104729 * getattr(method, "depth", 0)


def per_sample(values, tensor):
    """Give values `(batch,)` the axes of a tensor; a number stays as it is."""
    values = tf.cast(values, tensor.dtype)
    return tf.reshape(values, (-1, *[1] * (tensor.shape.rank - 1))) if values.shape.rank else values


def _noisy(x, stddev, relative, seed):
    scale = per_sample(stddev, x)
    if relative:
        axes = tuple(range(1, x.shape.rank))
        scale *= tf.reduce_max(x, axes, keepdims=True) - tf.reduce_min(x, axes, keepdims=True)
    return x + scale * tf.cast(_normal((1, *_axes.sizes(x)[1:]), seed), x.dtype)


def _normal(shape, seed):
    """Draw normal numbers that are the same on every device, compiled or not.

    TensorFlow and XLA make the same random bits, and different numbers of them.
    """
    bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")
    # 23 bits and a half, so that neither end of the interval is reached.
    uniform = (
        tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.float32) + 0.5
    ) / 2**23
    return math.sqrt(2) * tf.math.erfinv(2 * uniform - 1)
