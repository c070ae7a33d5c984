"""MinMax-CAM: what speaks for a unit and not for the other units detected."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import one_of
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import head_kernel
from keras_explainable.inspection import unit_indices
from keras_explainable.methods._activations import Differentiable
from keras_explainable.methods._activations import einsum
from keras_explainable.methods._activations import explain_fused
from keras_explainable.methods._activations import explain_layers
from keras_explainable.methods._activations import mean_over_positions
from keras_explainable.methods._activations import pooled_outputs
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods._units import explain_columns


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
    sample_options=("detections",),
    needs="linear head",
)
def minmaxcam(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    detections: ArrayLike | None = None,
    others: str = "detected",
    threshold: float = 0.5,
    activation: Callable | None = None,
    strict: bool = False,
    lambda_positive: float = 1.0,
    lambda_negative: float = 1.0,
) -> Tensors:
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
        others: which units a unit is contrasted with: "detected" ones, or "all", which counts every
            unit as detected. Defaults to "detected".
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
    _check_numbers(lambda_positive=lambda_positive, lambda_negative=lambda_negative)
    logits, activations = pooled_outputs(model, inputs)
    kernel = head_kernel(model)
    detected = _detected(model, logits, detections, others, threshold, activation)
    indices = unit_indices(logits, indices)
    own = gather_units(detected, indices)
    count = _num_others(detected, own, strict)

    maps = einsum("b...k,ku->b...u", activations, kernel)
    present = einsum("b...u,bu->b...", maps, detected)[..., None]
    maps = gather_units(maps, indices)
    own, count = _over_positions(own, maps), _over_positions(count, maps)
    negative = (present - own * maps) / count
    return gather_units(logits, indices), lambda_positive * maps - lambda_negative * negative


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
    sample_options=("detections",),
    needs="linear head",
)
def d_minmaxcam(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    detections: ArrayLike | None = None,
    others: str = "detected",
    threshold: float = 0.5,
    activation: Callable | None = None,
    strict: bool = False,
    lambda_positive: float = 1.0,
    lambda_negative: float = 1.0,
    lambda_background: float = 1.0,
) -> Tensors:
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
        others: as in `minmaxcam`.
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
    _check_numbers(
        lambda_positive=lambda_positive,
        lambda_negative=lambda_negative,
        lambda_background=lambda_background,
    )
    logits, activations = pooled_outputs(model, inputs)
    kernel = head_kernel(model)
    detected = _detected(model, logits, detections, others, threshold, activation)
    present = tf.einsum("bu,ku->bk", detected, kernel)
    background = -tf.nn.relu(-present) / tf.maximum(tf.reduce_sum(detected, 1, keepdims=True), 1.0)

    def explain(column):
        own = tf.gather(detected, column[:, None], axis=1, batch_dims=1)
        weights = tf.gather(tf.transpose(kernel), column)
        negative = tf.nn.relu(present - own * weights) / _num_others(detected, own, strict)
        weights = (
            lambda_positive * tf.nn.relu(weights)
            - lambda_negative * negative
            + lambda_background * background
        )
        return einsum("b...k,bk->b...", activations, weights)

    maps = explain_columns(explain, logits, indices, held=kernel.shape[0])
    return gather_units(logits, indices), maps


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance", "minmax_is_minmaxcam"},
    sample_options=("detections",),
)
def minmax_gradcam(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    detections: ArrayLike | None = None,
    others: str = "detected",
    threshold: float = 0.5,
    activation: Callable | None = None,
    strict: bool = False,
    lambda_positive: float = 1.0,
    lambda_negative: float = 1.0,
    fusion: str = "mean",
) -> Tensors:
    r"""Explain units with MinMax-Grad-CAM, Grad-CAM of a logit less those of the others detected.

    .. math:: M_u = \sum_k A_k \frac{1}{hw} \sum_{ij} \frac{\partial J_u}{\partial A_{ijk}}, \quad
              J_u = \lambda_+ \ell_u - \frac{\lambda_-}{\max(c - 1, 1)} \sum_{n \neq u} d_n \ell_n

    with :math:`d_n` 1 for the detected units and 0 for others, and :math:`c = \sum_n d_n`. It is
    `minmaxcam` for models with any head; where that applies, it is `minmaxcam` divided by the
    number of positions. Cost: that of `gradcam`.

    Args:
        model: as in `gradcam`.
        inputs: as in `gradcam`.
        indices: units to explain, as in `gradcam`. Defaults to every unit.
        detections: as in `minmaxcam`.
        others: as in `minmaxcam`.
        threshold: as in `minmaxcam`.
        activation: as in `minmaxcam`.
        strict: as in `minmaxcam`.
        lambda_positive: weight of the unit itself. Defaults to 1.
        lambda_negative: weight of the other units detected. Defaults to 1.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: as `gradcam`, or if an option is none of the above.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(
        ...     weights=None, input_shape=(64, 64, 3), classes=6, classifier_activation="sigmoid")
        >>> logits, maps = ke.minmax_gradcam(model, np.ones((1, 64, 64, 3)), [[0, 3]])
        >>> maps.shape
        (1, 64, 64, 2)
    """
    _check_numbers(lambda_positive=lambda_positive, lambda_negative=lambda_negative)

    def contrast(unit, logits):
        detected = _detected(model, logits, detections, others, threshold, activation)
        # Linear in the unit, so that the Jacobian may be taken on its cheaper side.
        share = unit / _num_others(detected, detected, strict)
        negative = detected * (tf.reduce_sum(share, axis=1, keepdims=True) - share)
        return lambda_positive * unit - lambda_negative * negative

    def explain(activations, gradient):
        return einsum("b...k,bk->b...", activations, mean_over_positions(gradient))

    return explain_layers(
        model, inputs, indices, explain, contrast=contrast, fusion=fusion, linear=True
    )


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance", "minmax_is_minmaxcam"},
    sample_options=("detections",),
)
def d_minmax_gradcam(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    detections: ArrayLike | None = None,
    others: str = "detected",
    threshold: float = 0.5,
    activation: Callable | None = None,
    strict: bool = False,
    lambda_positive: float = 1.0,
    lambda_negative: float = 1.0,
    lambda_background: float = 1.0,
    fusion: str = "mean",
) -> Tensors:
    r"""Explain units with D-MinMax-Grad-CAM, with positive and negative gradients kept apart.

    .. math:: M_u &= \sum_k A_k \frac{1}{hw} \sum_{ij} \bigg( \lambda_+ J_{uijk}^+
              - \frac{\lambda_-}{\max(c - 1, 1)} \Big[ \sum_{n \neq u} d_n J_{nijk} \Big]^+ \\
              &\qquad + \frac{\lambda_{bg}}{\max(c, 1)} \Big[ \sum_n d_n J_{nijk} \Big]^- \bigg),
              \quad J_n = \frac{\partial \ell_n}{\partial A}

    with :math:`d_n` 1 for the detected units and 0 for others, and :math:`c = \sum_n d_n`. It is
    `d_minmaxcam` for models with any head; where that applies, it is `d_minmaxcam` divided by the
    number of positions. Cost: one forward pass, and for all detected units, and per explained unit,
    a backward pass from the logits to the activations or, behind a linear head, a product with its
    kernel.

    Args:
        model: as in `gradcam`.
        inputs: as in `gradcam`.
        indices: units to explain, as in `gradcam`. Defaults to every unit.
        detections: as in `minmaxcam`.
        others: as in `minmaxcam`.
        threshold: as in `minmaxcam`.
        activation: as in `minmaxcam`.
        strict: as in `minmaxcam`.
        lambda_positive: weight of the positive part of the unit. Defaults to 1.
        lambda_negative: weight of the positive part of the other units detected. Defaults to 1.
        lambda_background: weight of the negative part of all units detected. Defaults to 1.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: as `gradcam`, or if an option is none of the above.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(
        ...     weights=None, input_shape=(64, 64, 3), classes=6, classifier_activation="sigmoid")
        >>> logits, maps = ke.d_minmax_gradcam(model, np.ones((1, 64, 64, 3)), [[0, 3]])
        >>> maps.shape
        (1, 64, 64, 2)
    """
    _check_numbers(
        lambda_positive=lambda_positive,
        lambda_negative=lambda_negative,
        lambda_background=lambda_background,
    )
    outputs = Differentiable(model, inputs, fusion)
    logits = outputs.logits
    detected = _detected(model, logits, detections, others, threshold, activation)
    present = outputs.gradients(detected)
    num_detected = tf.maximum(tf.reduce_sum(detected, axis=1), 1.0)

    def explain(column):
        own = tf.gather(detected, column[:, None], axis=1, batch_dims=1)
        num_others = _num_others(detected, own, strict)[:, 0]
        maps = []
        for activations, signal, total in zip(
            outputs.activations, outputs.unit_gradients(column), present, strict=True
        ):
            negative = tf.nn.relu(total - _over_positions(own, signal) * signal)
            weights = (
                lambda_positive * mean_over_positions(tf.nn.relu(signal))
                - lambda_negative * mean_over_positions(negative) / num_others[:, None]
                - lambda_background
                * mean_over_positions(tf.nn.relu(-total))
                / num_detected[:, None]
            )
            maps.append(einsum("b...k,bk->b...", activations, weights))
        return maps

    maps = explain_fused(explain, logits, indices, model, inputs, fusion, held=outputs.held)
    return gather_units(logits, indices), maps


def _check_numbers(**options):
    for name, value in options.items():
        number(name, value)


def _detected(model, logits, detections, others, threshold, activation):
    """Return 1 for the units detected and 0 for others, as constants `(batch, units)`."""
    one_of("others", others, ("detected", "all"))
    if others == "all":
        if detections is not None:
            raise invalid("detections", '`None` with `others="all"`', "an array")
        detections = tf.ones_like(logits)
    if detections is None:
        threshold = number("threshold", threshold)
        activation = activation or getattr(model, "activation", None) or "sigmoid"
        detections = keras.activations.get(activation)(logits) > threshold
    detections = tf.cast(detections, tf.float32)
    if not detections.shape.is_compatible_with(logits.shape):
        expected = f"shape {tuple(logits.shape)}, one value per sample and unit"
        raise invalid("detections", expected, tuple(detections.shape))
    return tf.stop_gradient(tf.ensure_shape(detections, (None, logits.shape[-1])))


def _num_others(detected, own, strict):
    """Return what the sum over the other units is divided by, `(batch, n)` or `(batch, 1)`."""
    count = tf.reduce_sum(detected, axis=1, keepdims=True)
    return tf.maximum(count - (own if strict else 1.0), 1.0)


def _over_positions(values, maps):
    """Give values `(batch, n)` the axes of positions that maps have."""
    for axis in _axes.spatial(maps.shape.rank):
        values = tf.expand_dims(values, axis)
    return values
