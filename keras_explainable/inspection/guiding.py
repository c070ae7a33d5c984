"""Guide gradients through the rectifiers of a model."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from keras_explainable._checks import one_of
from keras_explainable._typing import Inputs
from keras_explainable._typing import Output
from keras_explainable.inspection import _heads
from keras_explainable.inspection import _redirecting
from keras_explainable.inspection import exposing
from keras_explainable.inspection._targets import TARGET
from keras_explainable.inspection.exposing import Exposed

_POOLINGS = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
_RECTIFYING = ("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Softplus", "Erf", "Erfc")


def _guided(pull, gradient, inputs, output):
    del inputs, output
    return pull(tf.nn.relu(gradient))


def _deconvolved(pull, gradient, inputs, output):
    del pull, inputs, output
    return [tf.nn.relu(gradient)]


# Rule of the rectifiers, and that of max-poolings.
GUIDES = {
    "guided": (_guided, None),
    "guided_pooling": (_guided, _guided),
    "deconvolution": (_deconvolved, None),
}


def expose_guided(
    model: keras.Model,
    outputs: Output = None,
    *,
    rule: str = "guided",
    inputs: Inputs | None = None,
) -> Exposed:
    r"""Build the model that returns the logits, with gradients guided through its rectifiers.

    With :math:`g` the gradient by what a rectifier :math:`f` returns, what goes on to its input is

    - "guided": :math:`f'(x) \odot g^+`;
    - "guided_pooling": the same, and through max-poolings the gradient of :math:`g^+`;
    - "deconvolution": :math:`g^+`.

    Rectifiers are ReLU, ReLU6, leaky and parametric ReLU, ELU, CELU, SELU, GELU, SiLU, Mish and
    softplus, as layers, as functions, or as the activation of a linear layer. Sigmoid, tanh and
    softmax keep their gradient.

    Args:
        model: as in `expose`.
        outputs: as in `expose`.
        rule: one of the above. Defaults to "guided".
        inputs: as in `expose`.

    Returns:
        an `Exposed` model with logits for its only output, and the attribute `gradient_rule`.

    Raises:
        TypeError: as `expose`.
        ValueError: as `expose`, and if the model has no rectifier, or one that is out of reach, as
            inside a layer of one's own.
    """
    one_of("rule", rule, GUIDES)
    through_rectifiers, through_poolings = GUIDES[rule]

    replaced, activated = [], []

    def rules(calls, _):
        rectifiers = [_is_rectifier(call) for call in calls]
        replaced.extend(c for c, rectifies in zip(calls, rectifiers, strict=True) if rectifies)
        activated.extend(c.path for c in calls if _heads.is_activated(c.layer))
        return [
            through_rectifiers
            if rectifies
            else through_poolings
            if isinstance(call.layer, _POOLINGS)
            else None
            for call, rectifies in zip(calls, rectifiers, strict=True)
        ]

    exposed = exposing._expose(model, [], outputs, inputs, _heads.is_fused, rules)
    left = _rectifiers_left(exposed)
    if left:
        raise ValueError(
            f"The gradient of these rectifiers of the model {model.name!r} can't be replaced: "
            f"{left[:8]}. Write them as layers or `keras.ops` functions called in the model."
        )
    if not replaced:
        raise ValueError(
            f"The model {model.name!r} has no rectifier to guide gradients through; its "
            f"activations are: {activated or 'none'}. Use `gradients`."
        )
    exposed.gradient_rule = rule
    return exposed


def _is_rectifier(call):
    """Tell whether a call is one of a rectifier, or takes the maximum of values and a constant."""
    is_maximum = type(call.layer).__name__ == "Maximum" and not isinstance(call.layer, keras.Layer)
    return _heads.is_rectifier(call.layer) or (is_maximum and len(call.inputs) == 1)


def _rectifiers_left(exposed):
    """List the names of the rectifying TensorFlow operations that keep their own gradient."""
    graph = _redirecting.traced(exposed)
    names = [operation.name for operation in graph.get_operations() if _rectifies(operation)]
    for function in graph.as_graph_def().library.function:
        names += [node.name for node in function.node_def if node.op in _RECTIFYING]
    # The first name is that of the exposed model.
    own = [n for n in names if _redirecting.MARK not in n and TARGET not in n]
    return sorted(name.split("/", 1)[-1] for name in own)


def _rectifies(operation):
    """Tell whether a TensorFlow operation is the heart of a rectifier."""
    if operation.type in _RECTIFYING:
        return True
    inputs = list(operation.inputs)
    if operation.type == "Maximum":
        constants = [tf.get_static_value(tensor) for tensor in inputs]
        return any(value is not None and not np.any(value) for value in constants)
    if operation.type == "Mul":
        # SiLU, and GELU by a sigmoid: a value times the sigmoid of itself, or a multiple.
        gates = [t.op.inputs[0] for t in inputs if t.op.type == "Sigmoid"]
        sources = [t for gate in gates for t in (gate, *gate.op.inputs)]
        return any(source is tensor for source in sources for tensor in inputs)
    if operation.type == "SelectV2":
        compared = inputs[0].op.inputs
        return any(source is tensor for source in compared for tensor in inputs[1:])
    return False
