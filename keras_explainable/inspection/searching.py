"""Find layers in a model."""

from __future__ import annotations

from collections.abc import Callable

import keras

from keras_explainable.inspection._graphs import Graph
from keras_explainable.inspection._graphs import Unreachable
from keras_explainable.inspection._graphs import placeholders
from keras_explainable.inspection._taps import Tap


def find_layers(
    model: keras.Model, kind: type | tuple[type, ...] | Callable
) -> dict[str, keras.layers.Layer]:
    """Find the layers of a model, nested ones included, by class or property.

    Args:
        model: `keras.Model`, built.
        kind: a layer class, a tuple of classes, or a predicate `layer -> bool`.

    Returns:
        dict from path (`"backbone/conv1"`) to layer, in order of the calls.

    Example:
        >>> import keras, keras_explainable as ke
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="c")])
        >>> list(ke.inspection.find_layers(model, keras.layers.Conv2D))
        ['c']
    """
    return {
        call.path: call.layer
        for call in _calls(model)
        if isinstance(call.layer, keras.Layer)
        and (isinstance(call.layer, kind) if isinstance(kind, type | tuple) else kind(call.layer))
    }


def layers_with_bias(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Find the layers of a model that add a bias: a `bias`, or the offset of a normalization.

    Args:
        model: `keras.Model`, built.

    Returns:
        dict from path to layer, in order of the calls.
    """

    def has_bias(layer):
        if isinstance(layer, keras.layers.BatchNormalization):
            return True
        if isinstance(layer, keras.layers.LayerNormalization):
            return layer.center
        return getattr(layer, "bias", None) is not None

    return find_layers(model, has_bias)


def _calls(model):
    try:
        return Graph(model).calls
    except Unreachable:
        return Tap(model, placeholders(model)).opened.calls
