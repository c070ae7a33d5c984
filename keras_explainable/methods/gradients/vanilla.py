"""Methods that take the gradient of the logits by the input once."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.methods._inputs import check_reduction
from keras_explainable.methods._inputs import float_inputs
from keras_explainable.methods._inputs import gradients_by_inputs
from keras_explainable.methods._inputs import reduce_channels
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods._units import explain_each


@explaining_method(
    family="gradient",
    postprocessing="normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
    is_gradient=True,
)
def gradients(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, reduction: str | None = "max"
) -> Tensors:
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
    check_reduction(reduction)
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    logits, differentiate = gradients_by_inputs(model, inputs)

    def explain(cotangent):
        gradients = differentiate(cotangent)
        return tf.nest.map_structure(lambda g: reduce_channels(g, reduction), gradients)

    signature = tf.nest.map_structure(lambda _: tf.float32, float_inputs(inputs))
    return gather_units(logits, indices), explain_each(explain, logits, indices, signature)


@explaining_method(
    family="gradient",
    postprocessing="absolute_normalize",
    axioms={"class_sensitivity", "completeness_without_bias", "flip_equivariance", "linearity"},
)
def input_x_gradient(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    reduction: str | None = "signed_sum",
) -> Tensors:
    r"""Explain units with Input × Gradient, the first-order share of each input value in a logit.

    .. math:: M_u(i, j) = \sum_c x_{ijc} \frac{\partial \ell_u}{\partial x_{ijc}}

    In a network of linear layers without bias, rectifiers and poolings, the sum of a map is the
    logit. Cost: one forward pass, and one backward pass per explained unit.

    Args:
        model: `keras.Model` whose first output is the logits, see `inspection.expose`.
        inputs: float tensor `(batch, *positions, channels)`, or a list or dict of several inputs,
            of which the float ones are explained.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        reduction: how channels become one value: "signed_sum" (default), "sum_abs", "mean" or "max"
            of magnitudes, "l2", or `None` to keep them, in maps `(batch, *positions, channels, n)`.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw, in the structure of the float inputs. A vector
            input `(batch, features)` keeps its features as positions. Unit: logit.

    Raises:
        ValueError: if `reduction` is unknown or the logits are not `(batch, units)`.
        TypeError: if no input is of a float dtype.

    References:
        - Shrikumar, Greenside, Shcherbina, Kundaje, "Not Just a Black Box: Learning Important
          Features Through Propagating Activation Differences", 2016. arXiv 1605.01713.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
        ...                           keras.layers.Dense(5, activation="softmax")])
        >>> logits, maps = ke.input_x_gradient(model, np.ones((2, 8, 8, 3)), postprocessing=None)
        >>> np.allclose(maps.sum((1, 2)), logits, atol=1e-4)
        True
    """
    check_reduction(reduction)
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    explained = float_inputs(inputs)
    logits, differentiate = gradients_by_inputs(model, inputs)

    def multiply(tensor, gradient):
        return reduce_channels(tf.cast(tensor, tf.float32) * gradient, reduction)

    def explain(cotangent):
        return tf.nest.map_structure(multiply, explained, differentiate(cotangent))

    signature = tf.nest.map_structure(lambda _: tf.float32, explained)
    return gather_units(logits, indices), explain_each(explain, logits, indices, signature)
