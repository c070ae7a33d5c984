"""Layer-wise relevance propagation."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.methods._inputs import check_reduction
from keras_explainable.methods._inputs import float_inputs
from keras_explainable.methods._inputs import reduce_channels
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods._units import explain_each
from keras_explainable.methods._units import float_logits

RULE_OPTIONS = (*("composite", "epsilon", "gamma", "alpha", "low", "high", "batch_normalization"),)


@explaining_method(
    family="gradient",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "completeness_without_bias", "flip_equivariance"},
    expose=inspection.expose_relevance,
    expose_options=RULE_OPTIONS,
    raw_options=("scores",),
    needs="relevance rules",
)
def lrp(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    reduction: str | None = "signed_sum",
    scores: bool = False,
) -> Tensors:
    r"""Explain units with LRP, the relevance of the input by layer-wise relevance propagation.

    .. math:: M_u = R^0, \quad R^{l}_i = \sum_j \frac{\rho(c_{ij})}{\sum_k \rho(c_{kj})} R^{l+1}_j,
              \quad R^L_v = \ell_u [v = u]

    with :math:`c_{ij}` what input i of layer l adds to its output j, and :math:`\rho` by the rule
    of the layer, see `inspection.expose_relevance`, whose options are options of this method. What
    biases take part in, with the rules "epsilon" and "gamma", is lost to them, and so is what has
    no contribution of the sign that a rule asks for, of which "alpha_beta" takes one share without
    the other; apart from that relevance is conserved, and a map sums to the logit. Cost: one
    forward pass, and per explained unit a backward pass and, for rules other than "epsilon", one or
    two more forward passes.

    Args:
        model: model made by `inspection.expose_relevance`.
        inputs: as in `gradients`.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        reduction: how channels become one value, as in `input_x_gradient`. Defaults to
            "signed_sum".
        scores: return in place of the map a dict of what a first layer sees: "pixel", the map;
            "color", the relevance of each channel of the input that it sees, `(batch, channels,
            n)`; and "edge", that of each of its filters, `(batch, filters, n)`, such as edge
            filters. For models with one first layer. Defaults to False.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw, in the structure of the float inputs. A vector
            input `(batch, features)` keeps its features as positions. Unit: logit.

    Raises:
        ValueError: if `reduction` is unknown, `model` is another one, or has several first layers
            with `scores`, or the logits are not `(batch, units)`.
        TypeError: if no input is of a float dtype.

    References:
        - Bach, Binder, Montavon, Klauschen, Müller, Samek, "On Pixel-Wise Explanations for
          Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation", PLOS ONE 2015.
        - Montavon, Binder, Lapuschkin, Samek, Müller, "Layer-Wise Relevance Propagation: An
          Overview", 2019.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.lrp(model, np.ones((1, 64, 64, 3)), 7, composite="epsilon_plus")
        >>> maps.shape
        (1, 64, 64, 1)
    """
    check_reduction(reduction)
    if getattr(model, "gradient_rule", None) != "relevance":
        raise invalid("model", "a model made by `ke.inspection.expose_relevance`", model.name)
    if scores and len(model.outputs) != 2:
        expected = "a model with one first layer, with `scores=True`"
        raise invalid("model", expected, f"{len(model.outputs) - 1} first layers")
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    explained = float_inputs(inputs)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(explained)
        outputs, *first = tf.nest.flatten(model(inputs, training=False))
        logits = float_logits(outputs)

    def explain(cotangent):
        relevance, *filters = tape.gradient(
            logits, [explained, *first], cotangent * logits, tf.UnconnectedGradients.ZERO
        )
        relevance = tf.nest.map_structure(lambda r: tf.cast(r, tf.float32), relevance)
        maps = tf.nest.map_structure(lambda r: reduce_channels(r, reduction), relevance)
        if not scores:
            return maps
        seen = _seen(relevance, inputs, model)
        edges = _over_positions(tf.cast(filters[0], tf.float32))
        return {"pixel": maps, "color": _over_positions(seen), "edge": edges}

    signature = tf.nest.map_structure(lambda _: tf.float32, explained)
    if scores:
        signature = {"pixel": signature, "color": tf.float32, "edge": tf.float32}
    return gather_units(logits, indices), explain_each(explain, logits, indices, signature)


def _seen(relevance, inputs, model):
    """Return the relevance of the input that the first layer sees."""
    before = tf.nest.flatten(inputs)[: model.input_index]
    return tf.nest.flatten(relevance)[sum(tensor.dtype.is_floating for tensor in before)]


def _over_positions(relevance):
    return tf.reduce_sum(relevance, axis=tuple(range(1, relevance.shape.rank - 1)))
