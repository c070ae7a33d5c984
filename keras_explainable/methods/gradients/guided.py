"""Methods whose gradients are guided through the rectifiers of a model."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods.gradients import integrated
from keras_explainable.methods.gradients import vanilla


@explaining_method(
    family="gradient",
    postprocessing="normalize",
    axioms={"class_sensitivity", "flip_equivariance", "guided_is_plain"},
    expose=inspection.expose_guided,
)
def guided_backprop(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, reduction: str | None = "max"
) -> Tensors:
    r"""Explain units with Guided Backpropagation, gradients of which only what is positive goes on.

    .. math:: M_u(i, j) = \max_c \left| R^0_{ijc} \right|, \quad
              R^{l} = f'(z^l) \odot \big( R^{l+1} \big)^+

    at every rectifier :math:`f` of input :math:`z^l`, with :math:`R` the gradient of the logit
    everywhere else. Its fine maps show what a network detects more than what it decides by: they
    hardly depend on the weights of the last layers. Cost: that of `gradients`.

    Args:
        model: model made by `inspection.expose_guided`.
        inputs: as in `gradients`.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        reduction: how channels become one value, as in `gradients`. Defaults to "max".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: as in `gradients`. Unit: logit per input unit.

    Raises:
        ValueError: as `gradients`, and if `model` is another one.
        TypeError: as `gradients`.

    References:
        - Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity: The All
          Convolutional Net", ICLR Workshop 2015, section 3.4. arXiv 1412.6806.
        - Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018. arXiv 1810.03292.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.guided_backprop(model, np.ones((1, 64, 64, 3)), 7)
        >>> maps.shape
        (1, 64, 64, 1)
    """
    _check_rule(model, "guided")
    return vanilla.gradients(model, inputs, indices, reduction=reduction)


@explaining_method(
    family="gradient",
    postprocessing="normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
    expose=functools.partial(inspection.expose_guided, rule="deconvolution"),
    needs="max-pooling",
)
def deconvnet(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, reduction: str | None = "max"
) -> Tensors:
    r"""Explain units with a deconvolutional network, rectified on the way back.

    .. math:: M_u(i, j) = \max_c \left| R^0_{ijc} \right|, \quad R^{l} = \big( R^{l+1} \big)^+

    at every rectifier, with :math:`R` the gradient of the logit everywhere else; max-poolings pass
    it to where the maximum was. Cost: that of `gradients`.

    Args:
        model: model made by `inspection.expose_guided` with `rule="deconvolution"`.
        inputs: as in `gradients`.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        reduction: how channels become one value, as in `gradients`. Defaults to "max".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: as in `gradients`. Unit: logit per input unit.

    Raises:
        ValueError: as `gradients`, and if `model` is another one.
        TypeError: as `gradients`.

    References:
        - Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section
          2.1. arXiv 1311.2901.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.deconvnet(model, np.ones((1, 64, 64, 3)), 7)
        >>> maps.shape
        (1, 64, 64, 1)
    """
    _check_rule(model, "deconvolution")
    return vanilla.gradients(model, inputs, indices, reduction=reduction)


@explaining_method(
    family="gradient",
    postprocessing="absolute_normalize",
    axioms={"class_sensitivity", "flip_equivariance", "guided_is_plain"},
    expose=functools.partial(inspection.expose_guided, rule="guided_pooling"),
)
def gnl_integrated_gradients(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    baseline: Inputs | Callable = 0.0,
    num_steps: int = 50,
    rule: str = "gausslegendre",
    reduction: str | None = "signed_sum",
    chunk_size: int = 8,
) -> Tensors:
    r"""Explain units with Integrated Gradients whose gradients are guided (GNL).

    .. math:: M_u = (x - x') \odot \sum_s w_s R^0_u \big( x' + t_s (x - x') \big)

    with :math:`R^0_u` the gradient of the logit of which, behind every rectifier and max-pooling,
    only what is positive goes on, as in `guided_backprop`. A map doesn't sum to the difference of
    the logits, as one of `integrated_gradients` does. Cost: that of `integrated_gradients`.

    Args:
        model: model made by `inspection.expose_guided` with `rule="guided_pooling"`.
        inputs: as in `integrated_gradients`.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        baseline: as in `integrated_gradients`. Defaults to 0.
        num_steps: number of steps. Defaults to 50.
        rule: quadrature, as in `integrated_gradients`. Defaults to "gausslegendre".
        reduction: how channels become one value, as in `input_x_gradient`. Defaults to
            "signed_sum".
        chunk_size: as in `integrated_gradients`. Defaults to 8.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: as in `integrated_gradients`. Unit: logit.

    Raises:
        ValueError: as `integrated_gradients`, and if `model` is another one.
        TypeError: as `integrated_gradients`.

    References:
        - Kwon, Koo, Cho, "Improving Explainability of Integrated Gradients with Guided
      Non-Linearity", ICPR 2020.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.gnl_integrated_gradients(
        ...     model, np.ones((1, 64, 64, 3)), 7, num_steps=4)
        >>> maps.shape
        (1, 64, 64, 1)
    """
    _check_rule(model, "guided_pooling")
    return integrated.integrated_gradients(
        model,
        inputs,
        indices,
        baseline=baseline,
        num_steps=num_steps,
        rule=rule,
        reduction=reduction,
        chunk_size=chunk_size,
    )


def _check_rule(model, rule):
    """Refuse a model whose gradients are not replaced, or in another way."""
    found = getattr(model, "gradient_rule", None)
    if found != rule:
        expected = f'a model made by `ke.inspection.expose_guided(model, rule="{rule}")`'
        raise invalid("model", expected, f"{model.name!r} with the rule {found!r}")
