"""What is maximised: functions from what an exposed model returns to one value per image."""

import keras
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable import inspection
from keras_explainable._checks import invalid


def choose(model, chosen, layer, position, objective, output, start):
    """Expose what is maximised.

    Args:
        model: `keras.Model`.
        chosen: "units", "channels", "layer" or "objective".
        layer: endpoint.
        position: of channels: "mean", "center" or a tuple.
        objective: function of the outputs.
        output: which output units are of.
        start: what the model takes, which tells its shapes where a subclassed model doesn't.

    Returns:
        exposed: `inspection.Exposed` model to be run.
        measure: function from its outputs and the units or channels, `(n,)`, to values `(n,)`.
    """
    given = all(array is not None for array in keras.tree.flatten(start))
    inputs = start if given and is_of_unknown_shape(model) else None
    if chosen in ("channels", "layer"):
        exposed = _expose_layer(model, layer, inputs)
        if chosen == "layer":
            return exposed, lambda outputs, _: _mean_square(outputs[1])
        return exposed, lambda outputs, channels: inspection.gather_units(
            _at(outputs[1], position), channels
        )[:, 0]
    exposed = _expose(model, () if layer is None else layer, output, inputs, "output")
    if chosen == "objective":
        return exposed, lambda outputs, _: _checked(objective(outputs), outputs[0].shape[0])
    shape = tuple(exposed.outputs[0].shape)
    if len(shape) != 2:
        hint = "Pass a target of `ke.targets`, such as `output=ke.targets.segment()`, another "
        hint += "`output=`, or `channels=` of a `layer=`."
        raise invalid("model", "an output of shape (batch, units)", shape, hint)
    return exposed, lambda outputs, units: inspection.gather_units(outputs[0], units)[:, 0]


def _expose_layer(model, layer, inputs):
    """Expose a layer as an activation, so that tokens are arranged, also if no output needs it."""
    if layer is None or isinstance(layer, list | tuple):
        raise invalid("layer", "one layer of the model", repr(layer))
    itself = inspection.Target(_total, output=_named(layer), before_activation=False)
    try:
        return _expose(model, layer, itself, inputs, "layer")
    except ValueError:
        # Tokens that have no place in the input are positions themselves.
        return _expose(model, layer, itself, inputs, "layer", reshape=False)


def _total(values):
    """Add up what a layer returns, in place of the logits that an exposed model has."""
    return tf.reduce_sum(tf.cast(values, tf.float32), range(1, values.shape.rank))[:, None]


def _expose(model, arguments, outputs, inputs, name, reshape=None):
    """Expose a model, with errors that name the arguments given here."""
    try:
        return inspection.expose(model, arguments, outputs, inputs=inputs, reshape=reshape)
    except (TypeError, ValueError) as error:
        message = str(error).replace("`arguments`", "`layer`").replace("`outputs`", f"`{name}`")
        message = message.replace("`inputs`", "`start`").replace(
            "expose(model, inputs=x)", "start=x"
        )
        raise type(error)(message) from error.__cause__


def _named(layer):
    """Return an endpoint that names a layer, and no output."""
    return layer if isinstance(layer, dict | keras.KerasTensor) else {"layer": layer}


def is_of_unknown_shape(model):
    """Tell whether only inputs can say of what shapes they are."""
    known = _compat.is_functional(model) or (model.get_build_config() or {}).get("input_shape")
    return not known


def _mean_square(values):
    return tf.reduce_mean(tf.square(values), axis=range(1, values.shape.rank))


def _at(values, position):
    """Reduce `(n, *sizes, channels)` to `(n, channels)`."""
    sizes = tuple(values.shape)[1:-1]
    if position == "mean":
        return tf.reduce_mean(values, axis=range(1, len(sizes) + 1))
    if position == "center":
        position = [size // 2 for size in sizes]
    fits = len(position) == len(sizes)
    if not fits or not all(-n <= i < n for i, n in zip(position, sizes, strict=True)):
        raise invalid("position", f"indices into sizes {sizes}", tuple(position))
    return values[(slice(None), *position)]


def _checked(values, num_images):
    """Return what an objective of a user's own returns, or say what is wrong with it."""
    expected = f"a function that returns floats of shape {(num_images,)}"
    try:
        values = tf.convert_to_tensor(values)
    except (TypeError, ValueError):
        received = f"one that returns an object of type {type(values).__name__}"
        raise invalid("objective", expected, received) from None
    if not values.dtype.is_floating or tuple(values.shape) != (num_images,):
        raise invalid("objective", expected, f"{values.dtype.name} {tuple(values.shape)}")
    return tf.cast(values, tf.float32)
