"""Methods that explain with the gradient of the logits by the input."""

import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable.inspection import gather_units
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods._units import explain_each
from keras_explainable.methods._units import float_logits

REDUCTIONS = {
    "max": lambda g: tf.reduce_max(tf.abs(g), axis=-1),
    "mean": lambda g: tf.reduce_mean(tf.abs(g), axis=-1),
    "sum_abs": lambda g: tf.reduce_sum(tf.abs(g), axis=-1),
    "signed_sum": lambda g: tf.reduce_sum(g, axis=-1),
    "l2": lambda g: tf.norm(g, axis=-1),
}


@explaining_method(family="gradient", postprocessing="normalize", axioms={"class_sensitivity"})
def gradients(model, inputs, indices=None, *, reduction="max"):
    r"""Explain units with Vanilla Gradients, how much each input value moves the logit.

    .. math:: M_u(i, j) = \max_c \left| \frac{\partial \ell_u}{\partial x_{ijc}} \right|

    Cost: one forward pass, and one backward pass per explained unit.

    Args:
        model: `keras.Model` whose first output is the logits, see `inspection.expose`.
        inputs: float tensor `(batch, *positions, channels)`, or a list or dict of several inputs,
            of which the float ones are explained.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        reduction: how channels become one value: "max" (of magnitudes, as in the paper), "mean" or
            "sum_abs" (of magnitudes), "signed_sum", "l2", or `None` to keep them, in maps
            `(batch, *positions, channels, n)`.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw, in the structure of the float inputs. A vector
            input `(batch, features)` keeps its features as positions. Unit: logit per input unit.

    Raises:
        ValueError: if `reduction` is unknown or the logits are not `(batch, units)`.
        TypeError: if no input is of a float dtype.

    References:
        - Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image
          Classification Models and Saliency Maps", ICLR Workshop 2014. arXiv 1312.6034.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
        ...                           keras.layers.Dense(5, activation="softmax")])
        >>> logits, maps = ke.gradients(model, np.ones((2, 8, 8, 3)), [0, 4])
        >>> maps.shape
        (2, 8, 8, 1)
    """
    if reduction is not None and reduction not in REDUCTIONS:
        raise invalid("reduction", f"one of {', '.join(REDUCTIONS)} or `None`", repr(reduction))
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    explained = _float_inputs(inputs)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(explained)
        logits = float_logits(tf.nest.flatten(model(inputs, training=False))[0])

    def explain(cotangent):
        gradient = tape.gradient(
            logits, explained, cotangent, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return tf.nest.map_structure(lambda g: _reduce(tf.cast(g, tf.float32), reduction), gradient)

    signature = tf.nest.map_structure(lambda _: tf.float32, explained)
    return gather_units(logits, indices), explain_each(explain, logits, indices, signature)


def _float_inputs(inputs):
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


def _reduce(gradient, reduction):
    if gradient.shape.rank == 2:
        gradient = gradient[..., None]
    return gradient if reduction is None else REDUCTIONS[reduction](gradient)
