"""Class activation maps: methods that weigh the activations of a layer."""

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import head_kernel
from keras_explainable.inspection import unit_indices
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods._units import explain_each
from keras_explainable.methods._units import explain_linear
from keras_explainable.methods._units import float_logits


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"cam_is_gradcam", "class_sensitivity", "flip_equivariance"},
)
def cam(model, inputs, indices=None):
    r"""Explain units with CAM, the share of each position in a logit that averages them.

    .. math:: M_u = \sum_k W_{ku} A_k

    The bias of the head is left out, so a logit is the mean of its map plus the bias. Cost: one
    forward pass, whatever the number of units.

    Args:
        model: model made by `inspection.expose`, whose head is one global average pooling and one
            linear layer (Dense or 1×1 convolution).
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: if the head is another one; the message says what was found.

    References:
        - Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative
          Localization", CVPR 2016. arXiv 1512.04150.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.cam(model, np.ones((1, 64, 64, 3)), 7, resizing=False)
        >>> maps.shape
        (1, 2, 2, 1)
    """
    kernel = head_kernel(model)
    logits, activations = _logits_and_activations(model, inputs)
    indices = unit_indices(logits, indices)
    if indices is None:
        maps = _einsum("b...k,ku->b...u", activations, kernel)
    else:
        maps = _einsum("b...k,kbu->b...u", activations, tf.gather(kernel, indices, axis=1))
    return gather_units(logits, indices), maps


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"cam_is_gradcam", "class_sensitivity", "linearity"},
)
def gradcam(model, inputs, indices=None):
    r"""Explain units with Grad-CAM, activations weighed by the mean gradient of the logit.

    .. math:: M_u = \sum_k \alpha_{uk} A_k, \quad
              \alpha_{uk} = \frac{1}{hw} \sum_{ij} \frac{\partial \ell_u}{\partial A_{ijk}}

    On a head that is one global average pooling and one linear layer, it is `cam` divided by the
    number of positions. Cost: one forward pass, and a backward pass from the logits to the
    activations per explained unit, or per position where those are fewer.

    Args:
        model: model that returns `[logits, activations]`, see `inspection.expose`.
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: if the activations have no positions, or the logits are not `(batch, units)`.

    References:
        - Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
          Localization", ICCV 2017, equations 1 and 2. arXiv 1610.02391.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.gradcam(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([tensor for tensor in tf.nest.flatten(inputs) if tensor.dtype.is_floating])
        logits, raw = _exposed_outputs(model, inputs)
    activations = tf.cast(raw, tf.float32)
    positions = _axes.spatial(activations.shape.rank)
    num_positions = tf.cast(tf.reduce_prod(tf.shape(activations)[1:-1]), tf.float32)

    def explain(cotangent):
        gradient = tape.gradient(logits, raw, cotangent)
        if gradient is None:
            expected = "a layer by which the logits can be differentiated"
            raise invalid("layer", expected, f"activations {tuple(raw.shape)} that they don't see")
        gradient = tf.cast(gradient, tf.float32)
        # The derivative of a mean divides at every position, that of a sum just once.
        weights = tf.reduce_sum(gradient, positions) / num_positions
        return _einsum("b...k,bk->b...", activations, weights)

    return gather_units(logits, indices), explain_linear(explain, logits, indices, activations)


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
    sample_options=("detections",),
)
def minmaxcam(
    model,
    inputs,
    indices=None,
    *,
    detections=None,
    threshold=0.5,
    activation=None,
    strict=False,
    lambda_positive=1.0,
    lambda_negative=1.0,
):
    r"""Explain units with MinMax-CAM, what speaks for a unit and not for the others detected.

    .. math:: M_u = \sum_k A_k \left( \lambda_+ W_{ku}
              - \frac{\lambda_-}{\max(c - 1, 1)} \sum_{n \neq u} d_n W_{kn} \right)

    with :math:`d_n` 1 for the detected units and 0 for others, and :math:`c = \sum_n d_n`. With no
    detection, or with the explained unit as the only one, it is `cam`. Cost: one forward pass,
    whatever the number of units.

    Args:
        model: model made by `inspection.expose`, with the head that `cam` needs.
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        detections: float or boolean `(batch, units)`, 1 where a unit is present. Defaults to the
            units whose predicted probability is above `threshold`. Not differentiated.
        threshold: probability above which a unit is detected. Defaults to 0.5.
        activation: function from logits to probabilities. Defaults to the one at the end of the
            model, or to a sigmoid where it has none.
        strict: divide by the number of other units detected, which for a unit that is not detected
            itself is :math:`c` in place of the published :math:`c - 1`. Defaults to False.
        lambda_positive: weight of the unit itself. Defaults to 1.
        lambda_negative: weight of the other units detected. Defaults to 1.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: if the head is another one, or an option is none of the above.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(
        ...     weights=None, input_shape=(64, 64, 3), classes=6, classifier_activation="sigmoid")
        >>> logits, maps = ke.minmaxcam(model, np.ones((1, 64, 64, 3)), [[0, 3]])
        >>> maps.shape
        (1, 64, 64, 2)
    """
    kernel = head_kernel(model)
    logits, activations = _logits_and_activations(model, inputs)
    detected = _detected(model, logits, detections, threshold, activation)
    indices = unit_indices(logits, indices)
    own = gather_units(detected, indices)
    count = _num_others(detected, own, strict)

    maps = _einsum("b...k,ku->b...u", activations, kernel)
    present = _einsum("b...u,bu->b...", maps, detected)[..., None]
    maps = gather_units(maps, indices)
    own, count = _over_positions(own, maps), _over_positions(count, maps)
    others = (present - own * maps) / count
    return gather_units(logits, indices), lambda_positive * maps - lambda_negative * others


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
    sample_options=("detections",),
)
def d_minmaxcam(
    model,
    inputs,
    indices=None,
    *,
    detections=None,
    threshold=0.5,
    activation=None,
    strict=False,
    lambda_positive=1.0,
    lambda_negative=1.0,
    lambda_background=1.0,
):
    r"""Explain units with D-MinMax-CAM, MinMax-CAM with positive and negative parts kept apart.

    .. math:: M_u = \sum_k A_k \left( \lambda_+ W_{ku}^+
              - \frac{\lambda_-}{\max(c - 1, 1)} \Big[ \sum_{n \neq u} d_n W_{kn} \Big]^+
              + \frac{\lambda_{bg}}{\max(c, 1)} \Big[ \sum_n d_n W_{kn} \Big]^- \right)

    with :math:`d_n` 1 for the detected units and 0 for others, and :math:`c = \sum_n d_n`. With the
    explained unit as the only detection it is `cam`; with none, `cam` of the positive part of the
    kernel. Cost: one forward pass, and one product with the kernel per explained unit.

    Args:
        model: model made by `inspection.expose`, with the head that `cam` needs.
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        detections: as in `minmaxcam`.
        threshold: as in `minmaxcam`.
        activation: as in `minmaxcam`.
        strict: as in `minmaxcam`.
        lambda_positive: weight of the positive part of the unit. Defaults to 1.
        lambda_negative: weight of the positive part of the other units detected. Defaults to 1.
        lambda_background: weight of the negative part of all units detected. Defaults to 1.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: if the head is another one, or an option is none of the above.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(
        ...     weights=None, input_shape=(64, 64, 3), classes=6, classifier_activation="sigmoid")
        >>> logits, maps = ke.d_minmaxcam(model, np.ones((1, 64, 64, 3)), [[0, 3]])
        >>> maps.shape
        (1, 64, 64, 2)
    """
    kernel = head_kernel(model)
    logits, activations = _logits_and_activations(model, inputs)
    detected = _detected(model, logits, detections, threshold, activation)
    present = tf.einsum("bu,ku->bk", detected, kernel)
    background = -tf.nn.relu(-present) / tf.maximum(tf.reduce_sum(detected, 1, keepdims=True), 1.0)

    def explain(unit):
        own = tf.reduce_sum(unit * detected, axis=1, keepdims=True)
        weights = tf.einsum("bu,ku->bk", unit, kernel)
        others = tf.nn.relu(present - own * weights) / _num_others(detected, own, strict)
        weights = (
            lambda_positive * tf.nn.relu(weights)
            - lambda_negative * others
            + lambda_background * background
        )
        return _einsum("b...k,bk->b...", activations, weights)

    return gather_units(logits, indices), explain_each(explain, logits, indices)


def _einsum(equation, maps, other):
    """Contract maps, whose positions `...` stands for, with other values."""
    # A letter per axis in place of the ellipsis makes the derivative a third cheaper.
    positions = "hwd"[: maps.shape.rank - 2]
    return tf.einsum(equation.replace("...", positions), maps, other)


def _exposed_outputs(model, inputs):
    """Return float32 logits, and activations in the dtype of the model."""
    outputs = tf.nest.flatten(model(inputs, training=False))
    if len(outputs) != 2:
        expected = "a model with outputs [logits, activations], of one layer"
        hint = "Make one with `ke.inspection.expose(model)`, or pass one endpoint as `layer`."
        raise invalid("model", expected, f"{len(outputs)} outputs", hint)
    logits, activations = outputs
    if activations.shape.rank < 3:
        expected = "a layer with activations (batch, *positions, kernels)"
        raise invalid("layer", expected, f"activations of shape {tuple(activations.shape)}")
    return float_logits(logits), activations


def _logits_and_activations(model, inputs):
    logits, activations = _exposed_outputs(model, inputs)
    return logits, tf.cast(activations, tf.float32)


def _detected(model, logits, detections, threshold, activation):
    """Return 1 for the units detected and 0 for others, as constants `(batch, units)`."""
    if detections is None:
        activation = activation or getattr(model, "activation", None) or "sigmoid"
        detections = keras.activations.get(activation)(logits) > threshold
    detections = tf.cast(detections, tf.float32)
    if not detections.shape.is_compatible_with(logits.shape):
        expected = f"shape {tuple(logits.shape)}, one value per sample and unit"
        raise invalid("detections", expected, tuple(detections.shape))
    return tf.stop_gradient(detections)


def _num_others(detected, own, strict):
    """Return what the sum over the other units is divided by, `(batch, n)` or `(batch, 1)`."""
    count = tf.reduce_sum(detected, axis=1, keepdims=True)
    return tf.maximum(count - (own if strict else 1.0), 1.0)


def _over_positions(values, maps):
    """Give values `(batch, n)` the axes of positions that maps have."""
    for axis in _axes.spatial(maps.shape.rank):
        values = tf.expand_dims(values, axis)
    return values
