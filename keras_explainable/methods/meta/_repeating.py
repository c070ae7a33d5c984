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
from keras_explainable.methods._inputs import even_chunks
from keras_explainable.methods._registry import registration
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


def noisy_copies(inputs, stddev, relative, seed, first, count):
    """Add normal noise to a number of copies of the inputs, from one draw on.

    Args:
        inputs: as in `add_noise`.
        stddev: as in `add_noise`.
        relative: as in `add_noise`.
        seed: as in `add_noise`.
        first: number of the first draw.
        count: number of copies, an integer or a scalar tensor.

    Returns:
        tensors `(count * batch, ...)`, one copy of the batch after the other.
    """
    copies = tf.map_fn(
        lambda repetition: add_noise(inputs, stddev, relative, seed, repetition),
        first + tf.range(count),
        fn_output_signature=tf.nest.map_structure(lambda x: x.dtype, inputs),
        parallel_iterations=1,
    )
    return tf.nest.map_structure(lambda c: tf.reshape(c, (-1, *_axes.sizes(c)[2:])), copies)


def repeated(structure, count):
    """Repeat tensors `(batch, ...)` a number of times, one batch after the other."""

    def repeat(tensor):
        ones = [1] * (tensor.shape.rank - 1)
        return tf.tile(tensor, (count, *ones))

    return tf.nest.map_structure(
        lambda t: None if t is None else repeat(tf.convert_to_tensor(t)), structure
    )


def repeated_options(method, options, count):
    """Return the options of a method, those with one row per sample repeated as `repeated` does."""
    names = [n for n in registration(method).sample_options if options.get(n) is not None]
    return options | repeated({n: options[n] for n in names}, count)


def unfolded(structure, count):
    """Return `(count, batch, ...)` of what was explained of a batch repeated so many times."""

    def unfold(tensor):
        sizes = _axes.sizes(tensor)
        return tf.reshape(tensor, (count, sizes[0] // count, *sizes[1:]))

    return tf.nest.map_structure(unfold, structure)


def copies_at_once(inputs, number, chunk_size):
    """Tell how many of a number of copies of a batch go through the model at a time.

    Args:
        inputs: tensors `(batch, ...)`.
        number: number of copies.
        chunk_size: number of samples that may go through it, but for a single copy.

    Returns:
        integer, or a scalar tensor where the batch is unknown, by which copies make chunks of
        nearly one size.
    """
    fitting = chunk_size // _axes.sizes(tf.nest.flatten(inputs)[0])[0]
    most = tf.maximum(fitting, 1) if tf.is_tensor(fitting) else max(fitting, 1)
    return even_chunks(number, most)


def moments(explain, number, size, with_deviations=False):
    """Average what is explained of copies, some of them at a time.

    Args:
        explain: function from the number of the first copy, and how many there are, to a structure
            of float32 tensors `(copies, ...)`.
        number: number of copies.
        size: number of copies at a time, an integer or a scalar tensor.
        with_deviations: also sum the squared deviations from the mean.

    Returns:
        means: structure of float32 tensors `(...)`.
        deviations: the same of the sums of squared deviations, or `()`.
    """

    def explain_part(first, count):
        parts = explain(first, count)
        means = tf.nest.map_structure(lambda p: tf.reduce_mean(p, 0), parts)
        if not with_deviations:
            return means, ()
        return means, tf.nest.map_structure(
            lambda p, mean: tf.reduce_sum(tf.square(p - mean), 0), parts, means
        )

    def update(done, means, deviations):
        found, others = explain_part(done, size)
        share = tf.cast(size / (done + size), tf.float32)
        steps = tf.nest.map_structure(tf.subtract, found, means)
        if with_deviations:
            # Squared deviations of parts are merged, which doesn't cancel.
            deviations = tf.nest.map_structure(
                lambda d, other, step: (
                    d + other + tf.square(step) * tf.cast(done, tf.float32) * share
                ),
                *(deviations, others, steps),
            )
        means = tf.nest.map_structure(lambda mean, step: mean + step * share, means, steps)
        return done + size, means, deviations

    # What is left over comes first.
    first = number - (number - 1) // size * size
    means, deviations = explain_part(0, first)
    if tf.is_tensor(first) or first < number:
        _, means, deviations = tf.while_loop(
            lambda done, *_: done < number,
            update,
            (first, means, deviations),
            parallel_iterations=1,
        )
    return means, deviations


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
