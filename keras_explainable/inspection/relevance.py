"""Propagate relevance through a model in place of gradients."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import one_of
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Output
from keras_explainable.inspection import _heads
from keras_explainable.inspection import _linear
from keras_explainable.inspection import _redirecting
from keras_explainable.inspection import _relevance
from keras_explainable.inspection import _rules
from keras_explainable.inspection import exposing
from keras_explainable.inspection._taps import Tap
from keras_explainable.inspection.exposing import Exposed

# Rule of the layers that no other one comes before, of convolutions, and of dense layers.
COMPOSITES = {
    "epsilon": ("epsilon", "epsilon", "epsilon"),
    "epsilon_plus": ("z_plus", "z_plus", "epsilon"),
    "epsilon_plus_flat": ("flat", "z_plus", "epsilon"),
    "epsilon_alpha2_beta1": ("alpha_beta", "alpha_beta", "epsilon"),
    "epsilon_alpha2_beta1_flat": ("flat", "alpha_beta", "epsilon"),
    "epsilon_gamma_box": ("z_box", "gamma", "epsilon"),
}
BATCH_NORMALIZATIONS = ("fold", "affine")
_PARTS = ("first", "convolution", "dense")


def expose_relevance(
    model: keras.Model,
    outputs: Output = None,
    *,
    composite: str | Mapping[str, str] = "epsilon_plus",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    batch_normalization: str = "fold",
    inputs: Inputs | None = None,
) -> Exposed:
    r"""Build the model that returns the logits, with relevance in place of gradients.

    What `tf.GradientTape` takes back through it, from relevance of the logits, is that of the
    layers and inputs, by layer-wise relevance propagation. With :math:`c_{ij}` the contribution of
    input i, a value times a weight, to output j of a linear layer, :math:`b_j` the bias and
    :math:`R_j` the relevance of the output, the relevance of the input is

    - "epsilon": :math:`\sum_j c_{ij} R_j / (z_j + \epsilon \, \mathrm{sign} \, z_j)`,
      :math:`z_j = \sum_i c_{ij} + b_j`;
    - "gamma": :math:`c_{ij} + \gamma c_{ij}^+` in place of :math:`c_{ij}`, and the bias likewise,
      without :math:`\epsilon`;
    - "z_plus": :math:`\sum_j c_{ij}^+ R_j / \sum_i c_{ij}^+`;
    - "alpha_beta": :math:`\alpha` times "z_plus", less :math:`\alpha - 1` times the same of
      :math:`c_{ij}^-`;
    - "z_box": :math:`c_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-` in place of :math:`c_{ij}^+` in
      "z_plus";
    - "flat" and "w_square": 1, and :math:`w_{ij}^2`, in place of it.

    Activations and layers that move or drop values pass relevance on; max-pooling gives it to the
    maximum; averages, sums and other affine layers share it in proportion to what they add up, as
    "epsilon", and so does a target, which is taken for a linear function of the outputs; a product
    with a gate, as of squeeze and excitation, gives it to what is gated.

    Args:
        model: as in `expose`.
        outputs: as in `expose`.
        composite: which rules linear layers follow: a dict from "first" (layers that no linear one
            comes before), "convolution" and "dense" to rules, or the name of one: "epsilon" (these
            rules are all "epsilon"), "epsilon_plus" (default; "z_plus", "z_plus", "epsilon"),
            "epsilon_plus_flat" ("flat", "z_plus", "epsilon"), "epsilon_alpha2_beta1"
            ("alpha_beta", "alpha_beta", "epsilon"), "epsilon_alpha2_beta1_flat" ("flat",
            "alpha_beta", "epsilon") or "epsilon_gamma_box" ("z_box", "gamma", "epsilon").
        epsilon: what sums are moved away from zero by. Defaults to 1e-6.
        gamma: as above. Defaults to 0.25.
        alpha: as above, 1 or more. Defaults to 2.
        low: least value l of the inputs of a first layer with the rule "z_box": a number, or one
            per channel.
        high: greatest value h, likewise.
        batch_normalization: "fold" (default) folds one into the linear layer that it follows, and
            takes others for affine layers; "affine" takes all for such.
        inputs: as in `expose`.

    Returns:
        an `Exposed` model with outputs `[logits, *outputs of first layers]`, and the
        `gradient_rule` "relevance".

    Raises:
        TypeError: as `expose`.
        ValueError: as `expose`, if an option is none of the above, or if there is no rule for a
            layer of the model, such as layer normalization, attention or a recurrent layer.

    References:
        - Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
          Relevance Propagation", PLOS ONE 2015.
        - Montavon et al., "Layer-Wise Relevance Propagation: An Overview", 2019.
    """
    rules = _composite(composite)
    options = {
        "epsilon": number("epsilon", epsilon, least=0),
        "gamma": number("gamma", gamma, least=0),
        "alpha": number("alpha", alpha, least=1),
    }
    one_of("batch_normalization", batch_normalization, BATCH_NORMALIZATIONS)
    if "z_box" in rules.values():
        options |= {"low": _bound("low", low), "high": _bound("high", high)}
        if (options["low"] >= options["high"]).any():
            raise invalid("high", f"bounds above `low`, {low}", high)

    def plan(calls, upstream):
        return _relevance.plan(calls, upstream, rules, options, batch_normalization == "fold")

    exposed = exposing._expose(model, _first_layers, outputs, inputs, _heads.is_fused, plan)
    if any(isinstance(layer, Tap) for layer in exposed.layers):
        _check_functions(exposed)
    exposed.gradient_rule = "relevance"
    return exposed


def _first_layers(calls):
    """List what the linear layers return that no other one comes before."""
    after, found = set(), []
    for call in calls:
        follows = any(id(tensor) in after for tensor in call.inputs)
        if _linear.is_linear(call.layer) and not follows:
            found.append(call.outputs[0])
        if _linear.is_linear(call.layer) or follows:
            after.update(id(tensor) for tensor in call.outputs)
    return found


# TensorFlow operations whose gradient takes values back to where they are from.
_MOVING = (
    *("Cast", "ConcatV2", "Const", "ExpandDims", "GatherV2", "Identity", "IdentityN", "Max"),
    *("MaxPool", "MaxPool3D", "Pack", "Pad", "PadV2", "Placeholder", "ReadVariableOp", "Reshape"),
    *("ReverseV2", "Slice", "Split", "SplitV", "Squeeze", "StopGradient", "StridedSlice", "Tile"),
    *("Transpose", "Unpack"),
)


def _composite(composite):
    """Return the dict of rules that a composite is."""
    if isinstance(composite, dict):
        if set(composite) != set(_PARTS):
            raise invalid("composite", f"a dict with keys {_PARTS}", repr(composite))
        for rule in composite.values():
            one_of("composite", rule, _rules.RULES)
        return dict(composite)
    one_of("composite", composite, COMPOSITES)
    return dict(zip(_PARTS, COMPOSITES[composite], strict=True))


def _bound(argument, value):
    """Return a bound of inputs as an array that broadcasts to them."""
    try:
        bound = np.asarray(value, "float32")
    except (TypeError, ValueError):
        bound = np.asarray(np.nan)
    if bound.ndim > 1 or not np.isfinite(bound).all():
        hint = "It is a bound of the inputs that the model sees, such as -1 and 1."
        raise invalid(argument, 'a number, or one per channel, for "z_box"', repr(value), hint)
    return bound


def _check_functions(exposed):
    """Refuse TensorFlow functions, called beside layers, that do more than move values."""
    graph = _redirecting.traced(exposed)
    waiting, seen, left = [t.op for t in graph.outputs[:1]], set(), []
    while waiting:
        operation = waiting.pop()
        if operation.name in seen or not any(t.dtype.is_floating for t in operation.outputs):
            continue
        seen.add(operation.name)
        if _redirecting.MARK not in operation.name and operation.type not in _MOVING:
            left.append(f"{operation.type} {operation.name!r}")
        waiting += [tensor.op for tensor in operation.inputs]
    if left:
        raise ValueError(
            "Layer-wise relevance propagation has no rule for these TensorFlow functions, which "
            f"are called beside layers: {', '.join(sorted(left)[:8])}. Write them as layers."
        )
