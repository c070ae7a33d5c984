"""Guided Grad-CAM and its relatives."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import _showing
from keras_explainable import filters
from keras_explainable._checks import invalid
from keras_explainable._typing import Method
from keras_explainable.methods._inputs import check_reduction
from keras_explainable.methods._registry import get
from keras_explainable.methods._registry import meta_method
from keras_explainable.methods._registry import registration


@meta_method(postprocessing="absolute_normalize")
def guided(
    method: Method, *, by: Method = "guided_backprop", reduction: str | None = "max"
) -> Callable:
    r"""Multiply the maps of a method by those of another one in the space of the input.

    .. math:: M_u = {\uparrow} \big( m_u^+ \big) \odot g_u

    with :math:`m` the map of the method, rectified and resized to the input, and :math:`g` that of
    the other one: Guided Grad-CAM for `gradcam` and `guided_backprop`, which says with the
    resolution of the latter what the former finds for the unit. Cost: that of both methods.

    Args:
        method: name of a method of the CAM family, or a function
            `(model, inputs, indices, ...) -> (logits, maps)`, such as what a meta method returns.
        by: the other method, of the gradient family: its name, or what a meta method returns.
            Defaults to "guided_backprop".
        reduction: how the channels of the maps of `by` become one value, as in that method, without
            effect on one that has no such option. Defaults to "max".

    Returns:
        a method with the options of the one given, whose maps have the size of the input.

    Raises:
        ValueError: if there is no such method, or it is of the wrong family.
        TypeError: if `method` is neither a name nor a function.

    References:
        - Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
          Localization", ICCV 2017, section 3.2. arXiv 1610.02391.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> method = ke.methods.guided("gradcam")
        >>> logits, maps = ke.explain(method, model, np.ones((1, 64, 64, 3)), 7)
        >>> maps.shape
        (1, 64, 64, 1)
    """
    coarse, fine = registration(method), registration(get(by))
    check_reduction(reduction)
    _check_family("method", coarse, "another than the gradient family")
    _check_family("by", fine, "the gradient family")
    options = {"reduction": reduction} if _takes(fine.method, "reduction") else {}

    def explain(model, inputs, indices=None, **own):
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        if getattr(model, "guide", None) is None:
            hint = "Run the method with `ke.explain`."
            raise invalid("model", "a model that was exposed for this method", model.name, hint)
        logits, maps = method(model, inputs, indices, **own)
        _, details = fine.method(model.guide, inputs, indices, **options)
        return logits, _product(maps, details, inputs, model.input_index)

    def expose(model, arguments=None, outputs=None, *, inputs=None, reshape=None):
        exposed = coarse.exposed(model, arguments, outputs, inputs=inputs, reshape=reshape)
        exposed.guide = fine.exposed(model, None, outputs, inputs=inputs)
        return exposed

    vars(explain)["expose"] = expose
    return explain


def _check_family(argument, known, expected):
    is_gradient = known.family == "gradient"
    if is_gradient != (argument == "by"):
        raise invalid(argument, f"a method of {expected}", _showing.named(known.method))


def _takes(method, option):
    return option in inspect.signature(method).parameters


def _product(maps, details, inputs, shown):
    """Multiply positive maps, resized, by those of the input that they show."""
    flat = tf.nest.flatten(inputs)
    if tf.nest.is_nested(details):
        number = sum(tensor.dtype.is_floating for tensor in flat[:shown])
        details = tf.nest.flatten(details)[number]
    coarse = filters.resize(filters.positive(maps), _axes.sizes(flat[shown])[1:-1])
    return details * (coarse if details.shape.rank == coarse.shape.rank else coarse[..., None, :])
