"""FullGrad."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import filters
from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import one_of
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.methods._activations import einsum
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods._units import explain_each
from keras_explainable.methods._units import float_logits

NORMALIZATIONS = ("sample", "channel")


@explaining_method(
    family="gradient",
    postprocessing="normalize",
    axioms={"class_sensitivity", "completeness_of_terms", "flip_equivariance"},
    expose=inspection.expose_biases,
    raw_options=("terms",),
)
def full_gradients(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    normalization: str = "sample",
    terms: bool = False,
) -> Tensors:
    r"""Explain units with FullGrad, the shares of the input and of every bias in the logit.

    .. math:: M_u = \sum_c \psi \left( x_c \odot \frac{\partial \ell_u}{\partial x_c} \right)
              + \sum_l \sum_k \mathrm{up} \, \psi \left( b_{lk}
              \frac{\partial \ell_u}{\partial z_{lk}} \right)

    with :math:`z_l` what layer l returns before its activation, :math:`b_l` what it adds to its
    input (for a batch normalization :math:`\beta - \gamma \mu / \sqrt{\sigma^2 + \epsilon}`),
    :math:`\mathrm{up}` the resizing to the input, and :math:`\psi` the magnitude stretched to
    [0, 1]. Before :math:`\psi`, the terms of a network of linear layers, leaky or plain
    rectifiers and poolings sum to its logit; with other activations, such as swish, GELU or ReLU6
    where it is cut off, with layer normalization or attention, they don't. Layers without
    positions have no place in the map. Cost: one forward pass, and one backward pass per
    explained unit.

    Args:
        model: model made by `inspection.expose_biases`.
        inputs: float tensor `(batch, *positions, channels)`, or the structure that the model takes.
            The map shows the first float input with positions, and the biases of all layers.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        normalization: what :math:`\psi` takes the extremes over: "sample", all positions and
            channels of a term together (as in the paper), or "channel", the positions of each.
        terms: return the terms in place of the map: a dict from "input" and the paths of layers to
            `(batch, *positions, channels, n)`, or `(batch, features, n)` for a layer without
            positions. Several inputs are "input:0" and so on; where a layer has one of these names,
            the input is "input_of_model". Defaults to False.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: none. Of `terms`: logit.

    Raises:
        ValueError: if `normalization` is unknown, the logits are not `(batch, units)`, or no float
            input has positions.

    References:
        - Srinivas, Fleuret, "Full-Gradient Representation for Neural Network Visualization",
          NeurIPS 2019, proposition 1 and equation 8. arXiv 1905.00780.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        ...     keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(5, name="head")])
        >>> logits, terms = ke.full_gradients(model, np.ones((2, 8, 8, 3)), terms=True)
        >>> {name: term.shape for name, term in terms.items()}
        {'input': (2, 8, 8, 3, 5), 'conv': (2, 6, 6, 4, 5), 'head': (2, 5, 5)}
    """
    one_of("normalization", normalization, NORMALIZATIONS)
    if not hasattr(model, "offsets") or len(model.offsets) != len(model.outputs) - 1:
        expected = "a model made by `ke.inspection.expose_biases`"
        raise invalid("model", expected, f"{model.name!r} with {len(model.outputs)} outputs")
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    floats = [tensor for tensor in tf.nest.flatten(inputs) if tensor.dtype.is_floating]
    shown = next((tensor for tensor in floats if tensor.shape.rank > 2), None)
    if shown is None and not terms:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tf.nest.flatten(inputs))
        raise invalid("inputs", "a float input with positions, or `terms=True`", shapes)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(floats)
        outputs, *layers = tf.nest.flatten(model(inputs, training=False))
        logits = float_logits(outputs)
    names = [f"input:{i}" for i in range(len(floats))] if len(floats) > 1 else ["input"]
    names = [f"{name}_of_model" if name in model.offsets else name for name in names]
    names += list(model.offsets)
    factors = [*floats, *(read() for read in model.offsets.values())]

    def has_place(tensor):
        is_other_input = any(tensor is x for x in floats) and tensor is not shown
        is_spatial = (
            tensor.shape.rank == shown.shape.rank and tensor.shape[1:-1].num_elements() != 1
        )
        return is_spatial and not is_other_input

    def explain(cotangent):
        gradients = tape.gradient(
            logits, [*floats, *layers], cotangent, tf.UnconnectedGradients.ZERO
        )
        gradients = [tf.cast(gradient, tf.float32) for gradient in gradients]
        if terms:
            found = [g * tf.cast(f, g.dtype) for g, f in zip(gradients, factors, strict=True)]
            return dict(zip(names, found, strict=True))
        pairs = zip([*floats, *layers], gradients, factors, strict=True)
        return _aggregate([p[1:] for p in pairs if has_place(p[0])], normalization, shown)

    signature = dict.fromkeys(names, tf.float32) if terms else tf.float32
    return gather_units(logits, indices), explain_each(explain, logits, indices, signature)


def _aggregate(pairs, normalization, shown):
    """Sum normalized terms over channels, at the size of the input, with one resizing per size."""
    by_size = {}
    for gradient, factor in pairs:
        # Sizes that are not known may differ.
        known = gradient.shape[1:].is_fully_defined()
        size = tuple(gradient.shape[1:-1]) if known else len(by_size)
        by_size.setdefault(size, []).append(_normalized_sum(gradient, factor, normalization))
    sizes = _axes.sizes(shown)[1:-1]
    sums = [tf.add_n(parts)[..., None] for parts in by_size.values()]
    return tf.add_n([filters.resize(part, sizes) for part in sums])[..., 0]


def _normalized_sum(gradient, factor, normalization):
    """Sum the magnitudes of a term, stretched to [0, 1], over channels.

    A factor per channel is not multiplied out, which would take a pass over the whole term.
    """
    factor = tf.cast(factor, tf.float32)
    if factor.shape.num_elements() == factor.shape[-1] == gradient.shape[-1]:
        magnitude, factor = tf.abs(gradient), tf.abs(tf.reshape(factor, (1, -1)))
    else:
        magnitude, factor = tf.abs(gradient * factor), tf.ones((1, _axes.sizes(gradient)[-1]))
    axes = _axes.spatial(gradient.shape.rank)
    lowest = tf.reduce_min(magnitude, axes) * factor
    highest = tf.reduce_max(magnitude, axes) * factor
    if normalization == "sample":
        lowest = tf.zeros_like(lowest) + tf.reduce_min(lowest, -1, keepdims=True)
        highest = tf.reduce_max(highest, -1, keepdims=True)
    scale = tf.math.divide_no_nan(1.0, highest - lowest)
    total = einsum("b...k,bk->b...", magnitude, factor * scale)
    offset = tf.reduce_sum(lowest * scale, axis=-1)
    return total - tf.reshape(offset, (-1, *[1 for _ in axes]))
