"""The inputs that gradients are taken by, and their channels."""

import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable.methods._units import float_logits

REDUCTIONS = {
    "max": lambda g, axis=-1: tf.reduce_max(tf.abs(g), axis=axis),
    "mean": lambda g, axis=-1: tf.reduce_mean(tf.abs(g), axis=axis),
    "sum_abs": lambda g, axis=-1: tf.reduce_sum(tf.abs(g), axis=axis),
    "signed_sum": lambda g, axis=-1: tf.reduce_sum(g, axis=axis),
    "l2": lambda g, axis=-1: tf.norm(g, axis=axis),
}


def check_reduction(reduction):
    """Refuse a reduction that there isn't."""
    if reduction is None or (isinstance(reduction, str) and reduction in REDUCTIONS):
        return
    raise invalid("reduction", f"one of {', '.join(REDUCTIONS)} or `None`", repr(reduction))


def reduce_channels(gradients, reduction, axis=-1):
    """Reduce the channels of gradients; a tensor without positions gets one channel."""
    channels = gradients.shape.rank + axis
    if channels < 2:
        gradients = tf.expand_dims(gradients, channels + 1)
    return gradients if reduction is None else REDUCTIONS[reduction](gradients, axis)


def float_inputs(inputs):
    """Leave out the inputs that nothing can be differentiated by."""
    flat = tf.nest.flatten(inputs)
    if all(tensor.dtype.is_floating for tensor in flat):
        return inputs
    if not any(tensor.dtype.is_floating for tensor in flat):
        dtypes = ", ".join(tensor.dtype.name for tensor in flat)
        raise TypeError(str(invalid("inputs", "at least one input of a float dtype", dtypes)))
    if isinstance(inputs, dict):
        kept = {name: tensor for name, tensor in inputs.items() if tensor.dtype.is_floating}
        return kept if len(kept) > 1 else next(iter(kept.values()))
    kept = [tensor for tensor in flat if tensor.dtype.is_floating]
    return kept if len(kept) > 1 else kept[0]


def with_floats(inputs, floats):
    """Return inputs with others in place of the float ones, a flat list."""
    floats = iter(floats)
    flat = [next(floats) if x.dtype.is_floating else x for x in tf.nest.flatten(inputs)]
    return tf.nest.pack_sequence_as(inputs, flat)


def even_chunks(number, most):
    """Return a chunk size, at most the one given, by which chunks are of nearly one size.

    Args:
        number: number of what is cut into chunks.
        most: number of them that a chunk may have, an integer or a scalar tensor.
    """
    return -(-number // -(-number // most))


def gradients_by_inputs(model, inputs, by_activations=False):
    """Run a model under a tape.

    Args:
        model: model whose first output is the logits.
        inputs: what it takes.
        by_activations: whether to differentiate by its second output instead of by its inputs.

    Returns:
        logits: float32 `(batch, units)`.
        differentiate: function from a cotangent of the logits to float32 gradients, in the
            structure of the float inputs, or by the second output.
    """
    explained = float_inputs(inputs)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(explained)
        logits, *others = tf.nest.flatten(model(inputs, training=False))
        logits = float_logits(logits)
    sources = others[0] if by_activations else explained

    def differentiate(cotangent):
        gradients = tape.gradient(
            logits, sources, cotangent, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return tf.nest.map_structure(lambda g: tf.cast(g, tf.float32), gradients)

    return logits, differentiate
