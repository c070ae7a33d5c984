"""Guide gradients through the rectifiers of a model."""

import functools

import keras
import tensorflow as tf

from keras_explainable._checks import one_of
from keras_explainable.inspection import _heads
from keras_explainable.inspection import _redirecting
from keras_explainable.inspection import exposing

_POOLINGS = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
_RECTIFYING = ("Relu", "Relu6", "LeakyRelu", "Elu", "Selu")


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


def expose_guided(model, outputs=None, *, rule="guided", inputs=None):
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

    def rules(calls, _):
        chosen = [through_rectifiers if _heads.is_rectifier(call.layer) else None for call in calls]
        if not any(chosen):
            activated = [c.path for c in calls if _heads.is_activated(c.layer)]
            raise ValueError(
                f"The model {model.name!r} has no rectifier to guide gradients through; its "
                f"activations are: {activated or 'none'}. Use `gradients`."
            )
        return [
            through_poolings if isinstance(call.layer, _POOLINGS) else rule
            for call, rule in zip(calls, chosen, strict=True)
        ]

    exposed = exposing._expose(model, [], outputs, inputs, _heads.is_fused, rules)
    left = _rectifiers_left(exposed)
    if left:
        raise ValueError(
            f"The gradient of these rectifiers of the model {model.name!r} can't be replaced: "
            f"{left[:8]}. Write them as layers or `keras.ops` functions called in the model."
        )
    exposed.gradient_rule = rule
    return exposed


def _rectifiers_left(exposed):
    """List the names of the rectifying TensorFlow operations that keep their own gradient."""
    signature = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), exposed.input
    )
    run = tf.function(functools.partial(exposed, training=False), autograph=False)
    graph = run.get_concrete_function(signature).graph.as_graph_def()
    nodes = [*graph.node]
    for function in graph.library.function:
        nodes += function.node_def
    names = [n.name for n in nodes if n.op in _RECTIFYING and _redirecting.MARK not in n.name]
    # The first name is that of the exposed model.
    return sorted(name.split("/", 1)[-1] for name in names)
