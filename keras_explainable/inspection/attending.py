"""Make a model return its attention scores."""

from __future__ import annotations

import warnings

import keras

from keras_explainable import _compat
from keras_explainable._checks import mistyped
from keras_explainable._typing import Inputs
from keras_explainable._typing import Output
from keras_explainable._typing import Reshape
from keras_explainable.inspection import _attention
from keras_explainable.inspection import _heads
from keras_explainable.inspection import _tokens
from keras_explainable.inspection import exposing
from keras_explainable.inspection._graphs import Graph
from keras_explainable.inspection._graphs import Unreachable
from keras_explainable.inspection._graphs import is_spatial
from keras_explainable.inspection.exposing import Exposed


def expose_attention(
    model: keras.Model,
    outputs: Output = None,
    *,
    inputs: Inputs | None = None,
    reshape: Reshape = None,
) -> Exposed:
    """Build the model that returns logits and how much every token attends to every other.

    The scores are those of `keras.layers.MultiHeadAttention`, `GroupQueryAttention` and
    `Attention`, called in the model, in nested ones or in layers made of layers, and what a softmax
    makes of `(batch, heads, tokens, tokens)`. Attention of other than all tokens to all is left
    out, as in a window, or of a class token alone.

    Args:
        model: as in `expose`.
        outputs: as in `expose`.
        inputs: as in `expose`.
        reshape: as in `expose`, of the tokens that attend.

    Returns:
        an `Exposed` model with outputs `[logits, *scores]`, scores `(batch, heads, tokens,
        tokens)`, after the softmax, first blocks first, and with `arrange` and `query`.

    Raises:
        TypeError: as `expose`.
        ValueError: as `expose`, or if there is no attention that can be reached.

    Example:
        >>> import keras, keras_explainable as ke
        >>> x = inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Reshape((16, 6))(keras.layers.Conv2D(6, 2, strides=2)(x))
        >>> x = keras.layers.MultiHeadAttention(2, 3)(x, x)
        >>> x = keras.layers.GlobalAveragePooling1D()(x)
        >>> exposed = ke.inspection.expose_attention(keras.Model(inputs, x))
        >>> [tuple(tensor.shape) for tensor in exposed.outputs]
        [(None, 6), (None, 2, 16, 16)]
    """
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    _tokens.check_reshape(reshape)
    try:
        graph = Graph(model, inputs, opens=_compat.is_composite, attends=True)
    except Unreachable as unreachable:
        return _expose_by_tap(model, outputs, inputs, reshape, unreachable.__cause__)
    found = exposing.explained(model, graph, outputs)
    calls = graph.ancestry(found.tensors)
    places = _tokens.Places(calls)
    scores = _attention.scores(calls, graph.scores, places)
    if not scores:
        raise _no_attention(model)
    _warn_of_hidden(model.name, graph.calls)
    exposed = exposing.exposed_model(model, graph, found, scores)
    exposing.set_inputs(exposed, graph, calls, scores)
    last = [tensor for tensor in _heads.last_spatial(calls) if tensor.shape[1] != 1]
    pooled = any(_tokens.is_pooled(calls, tensor) for tensor in last)
    pooled = pooled or _has_positions(found.tensors)
    read = () if pooled else places.read_after(scores)
    _set_arrangement(exposed, scores, places, reshape, pooled, read)
    return exposed


def _expose_by_tap(model, outputs, inputs, reshape, cause):
    """Expose the attention of a subclassed model that can't run on symbolic tensors."""
    tap, symbolic = exposing.tapped(model, inputs, cause, attends=True)
    activation, tensors, splice = exposing.explained_by_tap(model, tap, outputs)
    places, scores = tap.places(*tensors), tap.scores_above(*tensors)
    if not scores:
        raise _no_attention(model)
    _warn_of_hidden(model.name, tap.opened.calls)
    pooled = tap.is_pooled(*tensors) or _has_positions(tensors)
    read = () if pooled else places.read_after(scores)
    for score in scores:
        tap.pick(score)
    exposed = exposing.run_tap(model, tap, symbolic, scores, splice)
    exposed.activation = activation
    _set_arrangement(exposed, exposed.outputs[1:], places, reshape, pooled, read)
    return exposed


def _has_positions(tensors):
    """Tell whether a target takes the outputs of several tokens, any of which it may explain."""
    return any(is_spatial(tensor) for tensor in tensors)


def _set_arrangement(exposed, scores, places, reshape, pooled, read):
    shown = exposed.inputs[exposed.input_index]
    arranged = _attention.arranged(scores, places, shown, reshape)
    exposed.arrange = arranged.arrange
    tokens = () if pooled else tuple(read or arranged.others)
    if len(tokens) == scores[-1].shape[-1]:
        tokens = ()
    exposed.query = tokens if len(tokens) > 1 else next(iter(tokens), None)


def _warn_of_hidden(name, calls):
    """Warn of layers of attention inside layers that couldn't be opened."""
    seen = {id(call.layer) for call in calls}
    called = [call.layer for call in calls if not isinstance(call.layer, keras.Model)]
    held = [part for layer in called for part in _compat.sublayers(layer)]
    held = [part for part in held if isinstance(part, _compat.ATTENTIONS)]
    hidden = list(dict.fromkeys(layer.name for layer in held if id(layer) not in seen))
    if hidden:
        warnings.warn(
            f"The attention of {hidden[:8]} in the model {name!r} can't be reached, and maps "
            "leave it out. Let the layers around it apply layers and `keras.ops` only.",
            stacklevel=5,
        )


def _no_attention(model):
    return ValueError(
        f"No attention can be reached in the model {model.name!r}: no layer or softmax in it is "
        "one of attention of all tokens to all. Build it with "
        "`keras.layers.MultiHeadAttention`, or with a softmax of `(batch, heads, tokens, tokens)`, "
        "called in a functional or subclassed `keras.Model`, or in a layer whose `call` applies "
        "layers and `keras.ops`."
    )
