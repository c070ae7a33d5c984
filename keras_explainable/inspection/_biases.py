"""Find what the layers of a model add to their inputs, whatever these are."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_explainable.inspection import _heads
from keras_explainable.inspection import _layouts

_AFFINE = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_SHIFTS = ("Add", "Subtract")
# A cut-off from above is rarely reached.
_PIECEWISE = ("relu", "relu6", "leakyrelu", "prelu", "linear")


def is_biased_and_activated(layer):
    """Tell whether a layer adds a bias and applies an activation to the sum."""
    biased = isinstance(layer, _AFFINE) and layer.bias is not None
    return biased and _heads.is_nonlinear(layer.activation)


def outputs_of_biased(calls):
    """List what the calls of layers with a bias return.

    Args:
        calls: list of `Call`.

    Returns:
        list of tensors, first ones first.
    """
    return [call.outputs[0] for call in calls if _reader(call)]


def offsets(calls, paths):
    """Return how to read what each layer with a bias adds.

    Args:
        calls: list of `Call`, in the order of `outputs_of_biased`.
        paths: dict from the id of a tensor to the path of the layer that it comes from.

    Returns:
        dict from path to a function without arguments that returns a float32 tensor, which
        broadcasts to the output of the layer.
    """
    found = {}
    for call in calls:
        reader = _reader(call)
        if reader:
            path = paths[id(call.outputs[0])]
            repeated = sum(name.split(":")[0] == path for name in found)
            found[f"{path}:{repeated}" if repeated else path] = reader
    return found


def warn_of_others(calls, paths):
    """Warn of layers of which it isn't known what they add.

    Args:
        calls: list of `Call`.
        paths: as in `offsets`.
    """
    unknown = [
        f"{paths.get(id(c.outputs[0]), c.path)} ({type(c.layer).__name__})"
        for c in calls
        if c.outputs and _is_other(c)
    ]
    if unknown:
        warnings.warn(
            f"The terms of FullGrad don't sum to the logits of this model: what the layers "
            f"{_each_kind_first(unknown)[:8]} add to their inputs is not known.",
            stacklevel=6,
        )


def _each_kind_first(names):
    """Order names so that every kind, in parentheses, comes before a kind comes again."""
    firsts = {name.rsplit("(", 1)[-1]: name for name in reversed(names)}
    firsts = [name for name in dict.fromkeys(names) if name in firsts.values()]
    return [*firsts, *(name for name in dict.fromkeys(names) if name not in firsts)]


def _is_other(call):
    """Tell whether a call is neither linear, nor one of an offset, nor piecewise linear."""
    layer = call.layer
    if _heads.is_activated(layer):
        name = getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__)
        return name.lower().replace("_", "") not in _PIECEWISE
    known = (*_AFFINE, keras.layers.BatchNormalization, keras.layers.Normalization)
    return bool(getattr(layer, "weights", ())) and not isinstance(layer, known)


def _reader(call):
    """Return the function that reads what a call adds, or `None` if it adds nothing."""
    layer = call.layer
    if isinstance(layer, keras.layers.BatchNormalization):
        return lambda: _normalization_offset(layer, len(call.outputs[0].shape))
    if isinstance(layer, _AFFINE):
        return None if layer.bias is None else lambda: tf.cast(layer.bias, tf.float32)
    rescales = isinstance(layer, keras.layers.Rescaling) and np.any(layer.offset)
    shifts = not isinstance(layer, keras.Layer) and type(layer).__name__ in _SHIFTS
    if rescales or isinstance(layer, keras.layers.Normalization):
        return lambda: _at_zero(call)
    return (lambda: _at_zero(call)) if shifts and len(call.inputs) == 1 else None


def _normalization_offset(layer, rank):
    r"""Return $`\beta - \gamma \mu / \sqrt{\sigma^2 + \epsilon}`$, the image of zero."""
    mean = tf.cast(layer.moving_mean, tf.float32)
    variance = tf.cast(layer.moving_variance, tf.float32)
    offset = -mean * tf.math.rsqrt(variance + layer.epsilon)
    if layer.scale:
        offset *= tf.cast(layer.gamma, tf.float32)
    if layer.center:
        offset += tf.cast(layer.beta, tf.float32)
    sizes = [1] * rank
    sizes[layer.axis] = -1
    return tf.reshape(offset, sizes)


def _at_zero(call):
    """Return what a call makes of zeros."""
    tensor = next(a for a in keras.tree.flatten(call.args) if hasattr(a, "shape"))
    zero = tf.zeros([size or 1 for size in tensor.shape], tensor.dtype)
    args = keras.tree.map_structure(lambda a: zero if a is tensor else a, call.args)
    offset = tf.cast(call.layer(*args, **call.kwargs), tf.float32)
    return _layouts.to_last(offset) if call.is_first else offset
