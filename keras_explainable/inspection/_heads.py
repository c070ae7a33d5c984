"""Tell what a layer does at the end of a model: activation, linear head, pooling."""

from __future__ import annotations

import math
import warnings

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import _compat
from keras_explainable.inspection import _layouts
from keras_explainable.inspection._graphs import is_spatial

_POOLINGS = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)
_MAXIMA = (
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
)
_AVERAGES = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
)
_LINEAR = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.Softmax,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
)
# `keras.ops` functions become operations of these class names in a functional model.
_ACTIVATION_OPERATIONS = ("Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid", "HardSigmoid", "Tanh")
_FUNCTIONS = {name.replace("_", "") for name in dir(keras.activations)} - {"linear"}
_RECTIFIERS = (
    *("relu", "relu6", "leakyrelu", "prelu", "elu", "celu", "selu", "gelu", "silu", "swish"),
    *("hardsilu", "hardswish", "mish", "softplus"),
)
_SHAPE_OPERATIONS = ("Reshape", "Squeeze", "Cast", "Identity")
# What computes each position from the same position of its inputs.
_POINTWISE = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    keras.layers.LayerNormalization,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Rescaling,
    keras.layers.Subtract,
)
_MIXING_OPERATIONS = ("Conv", "Pool", "MatMul", "Einsum", "Resize", "Roll", "Flip")
_PASSED_IN_INFERENCE = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
)


def _operation_name(layer):
    """Return the class name of an operation of `keras.ops`, which no user's layer is taken for."""
    return "" if isinstance(layer, keras.Layer) else type(layer).__name__


def is_activation(layer):
    """Tell whether a layer is an activation and nothing else."""
    return isinstance(layer, _ACTIVATIONS) or _operation_name(layer) in _ACTIVATION_OPERATIONS


def is_activated(layer):
    """Tell whether a layer ends in an activation function of any kind."""
    if isinstance(layer, keras.Layer):
        return is_activation(layer) or is_nonlinear(getattr(layer, "activation", None))
    return _operation_name(layer).lower() in _FUNCTIONS


def is_rectifier(layer):
    """Tell whether a layer is an activation that grows without bounds, or up to a cut-off."""
    if isinstance(layer, keras.Layer) and not is_activation(layer):
        return False
    activation = getattr(layer, "activation", None)
    name = type(layer).__name__ if activation is None else getattr(activation, "__name__", "")
    return name.lower().replace("_", "") in _RECTIFIERS


def is_fused(layer):
    """Tell whether a layer is linear up to an activation of its own."""
    is_linear = hasattr(layer, "kernel") or hasattr(layer, "pointwise_kernel")
    return is_linear and is_nonlinear(getattr(layer, "activation", None))


def keeps_values(layer):
    """Tell whether a layer gives its values another shape or type at most, in inference."""
    return isinstance(layer, _PASSED_IN_INFERENCE) or _operation_name(layer) in _SHAPE_OPERATIONS


def activation_of(layer):
    """Return the activation of a layer as a function of one tensor; `None` for a linear one."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return layer.__call__
    return activation if is_nonlinear(activation) else None


def linear_twin(layer):
    """Return a layer with the weights of another, and no activation."""
    return _compat.twin(layer, layer.name, activation=keras.activations.linear)


def without_activation(tensor, producers):
    """Find what a symbolic tensor is before its activation.

    Args:
        tensor: symbolic tensor.
        producers: dict from the id of a tensor to the call that it comes from.

    Returns:
        logits: symbolic tensor.
        activation: function that was left out, or `None`.
    """
    call = producers.get(id(tensor))
    if call is None or not call.inputs:
        return tensor, None
    if is_fused(call.layer):
        return linear_twin(call.layer)(*call.args, **call.kwargs), call.layer.activation
    if is_activation(call.layer):
        activation = activation_of(call.layer)
        if activation is not None:
            return call.inputs[0], activation
        return without_activation(call.inputs[0], producers)
    if keeps_values(call.layer):
        logits, activation = without_activation(call.inputs[0], producers)
        if activation is not None:
            twin = _compat.twin(call.layer, call.layer.name)
            logits = _layouts.to_first(logits) if call.is_first else logits
            return twin(logits, *call.args[1:], **call.kwargs), activation
    return tensor, None


def last_spatial(calls):
    """Find what enters the poolings or flattenings that feed the last of some calls.

    Args:
        calls: calls in the order of computation.

    Returns:
        list of tensors, the last first, none of which another one is computed from.
    """
    if not calls:
        return []
    if is_spatial(calls[-1].outputs[0]):
        return calls[-1].inputs[:1]
    ancestors, learned = {}, set()
    for call in calls:
        above = set().union(*(ancestors.get(id(t), set()) | {id(t)} for t in call.inputs))
        has_weights = bool(getattr(call.layer, "weights", ())) or not learned.isdisjoint(above)
        for tensor in call.outputs:
            ancestors[id(tensor)] = above
            if has_weights:
                learned.add(id(tensor))
    found = []
    for call in reversed(calls):
        if any(is_spatial(tensor) for tensor in call.outputs):
            continue
        for tensor in call.inputs:
            new = all(tensor is not f and id(tensor) not in ancestors[id(f)] for f in found)
            if is_spatial(tensor) and id(tensor) in learned and new:
                found.append(tensor)
    return found


def before_scores(calls, outputs):
    """Find the activations that the scores at positions are computed from.

    What enters the last layer is often turned into scores position by position, which leaves
    nothing to be explained. So it is the last one of the smallest size that positions elsewhere are
    computed from too: the bottleneck. Sizes at which no kernel looks around, as in the branches of
    a pooling pyramid, don't count.

    Args:
        calls: calls in the order of computation.
        outputs: outputs with positions.

    Returns:
        list of tensors: one, or for outputs from several branches what enters their last layers.
    """
    learned = set()
    for call in calls:
        inputs = {id(tensor) for tensor in call.inputs}
        if getattr(call.layer, "weights", ()) or inputs & learned:
            learned.update(id(tensor) for tensor in call.outputs)
    entering = [t for t in _enter_scores(calls, outputs) if id(t) in learned]
    if len(entering) != 1:
        return entering
    looks_around = [call for call in calls if makes_scores(call.layer) and _mixes(call)]
    sizes = {tuple(t.shape[1:-1]) for call in looks_around for t in call.outputs}
    above, mixed, found = {id(entering[0])}, set(), []
    for call in reversed(calls):
        made = {id(tensor) for tensor in call.outputs}
        found += [t for t in call.outputs if id(t) in mixed & learned and is_spatial(t)]
        if made & above:
            above.update(id(tensor) for tensor in call.inputs)
            if made & mixed or _mixes(call):
                mixed.update(id(tensor) for tensor in call.inputs)
    found = [tensor for tensor in found if tuple(tensor.shape[1:-1]) in sizes]
    if any(None in t.shape[1:-1] for t in found):
        return found[:1]
    return [min(found, key=lambda t: math.prod(t.shape[1:-1]))] if found else entering


def _enter_scores(calls, outputs):
    """List what enters the last layers with kernels on the ways to some outputs."""
    producers = {id(tensor): call for call in reversed(calls) for tensor in call.outputs}
    found, seen, waiting = [], set(), list(outputs)
    while waiting:
        tensor = waiting.pop(0)
        call = producers.get(id(tensor))
        if call is None or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if not makes_scores(call.layer):
            waiting.extend(call.inputs)
            continue
        found += [t for t in call.inputs if is_spatial(t) and all(t is not f for f in found)]
    return found


def makes_scores(layer):
    """Tell whether a layer computes scores with a kernel."""
    if is_activation(layer):
        return False
    return any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ()))


def _mixes(call):
    """Tell whether a call computes positions from other ones."""
    layer = call.layer
    if is_activation(layer) or keeps_values(layer) or isinstance(layer, _POINTWISE):
        return False
    if isinstance(layer, _LINEAR):
        return any(size > 1 for size in layer.kernel.shape[:-2])
    if isinstance(layer, keras.Layer):
        return True
    return any(name in _operation_name(layer) for name in _MIXING_OPERATIONS)


def default_endpoint(candidates, opened):
    """Choose the first of the last spatial activations, or say that there is none.

    Args:
        candidates: what `last_spatial` found.
        opened: `Calls` of the model.

    Returns:
        the tensor.
    """
    if not candidates:
        last = [call for call in opened.calls if call.outputs][-12:]
        shapes = ", ".join(f"{call.path} {tuple(call.outputs[0].shape)}" for call in last)
        raise ValueError(
            f"The model {opened.name!r} has no spatial activation that its logits are pooled "
            f"from; its last layers are: {shapes}. Choose the activations with `layer=`, or a "
            "method of the gradient family, which needs none."
        )
    if len(candidates) > 1:
        makers = {id(t): call.path for call in reversed(opened.calls) for t in call.outputs}
        names = [makers.get(id(tensor), "an input") for tensor in candidates]
        warnings.warn(
            f"Several spatial activations feed the logits: {names}; explaining {names[0]!r}. Pass "
            "`layer=` to choose, with a `node` for a layer that is called more than once.",
            stacklevel=4,
        )
    return candidates[0]


def linear_head(calls, logits, endpoint):
    """Find the layer between the averaged endpoint and the logits.

    Args:
        calls: calls that the logits are computed by.
        logits: tensor.
        endpoint: tensor.

    Returns:
        head: the layer; `None` where there is none, or where the averages are the logits.
        error: why there is none, a clause; empty where the head is linear.
    """
    # A layer that returns its input as it is, as dropout does, is not where a tensor comes from.
    producers = {id(tensor): call for call in reversed(calls) for tensor in call.outputs}

    def walk(tensor):
        call = producers.get(id(tensor))
        while call is not None and (keeps_values(call.layer) or _is_linear_activation(call.layer)):
            call = producers.get(id(call.inputs[0]))
        return call

    call, head = walk(logits), None
    if call is not None and _is_linear(call.layer):
        head, call = call.layer, walk(call.inputs[0])
    if call is None or not _is_global_average(call):
        found = f"{type(call.layer).__name__} {call.path!r}" if call else "something else"
        return None, f"{found} was found {'before the last linear layer' if head else 'there'}"
    if call.inputs[0] is not endpoint:
        return None, f"{call.path!r} pools other activations than the ones chosen"
    if head is not None:
        # After a reshape, groups of the averages may share a kernel.
        kernel, expected = tuple(_kernel(head).shape[-2:]), (endpoint.shape[-1], logits.shape[-1])
        if kernel != expected:
            return None, f"the kernel of {head.name!r} is {kernel} in place of {expected}"
    return head, ""


def _is_linear(layer):
    return not is_nonlinear(getattr(layer, "activation", None)) and has_linear_kernel(layer)


def has_linear_kernel(layer: keras.layers.Layer) -> bool:
    """Tell whether a layer multiplies by a kernel, at each position, before any activation.

    Args:
        layer: built `keras.Layer`, such as a Dense one, a 1×1 convolution, or one that tells its
            `effective_kernel`.
    """
    if getattr(layer, "groups", 1) != 1:
        return False
    if not hasattr(layer, "effective_kernel"):
        # A kernel of another layer may be used in another way, as in a transposed convolution.
        plain = any(type(layer).call is kind.call for kind in _LINEAR if isinstance(layer, kind))
        quantized = getattr(layer, "quantization_mode", None) is not None
        if not plain or quantized:
            return False
    shape = _kernel(layer).shape
    return len(shape) == 2 or all(size == 1 for size in shape[:-2])


def linear_kernel(layer: keras.layers.Layer) -> tf.Tensor:
    """Read the kernel that a layer multiplies by.

    Args:
        layer: built `keras.Layer` of which `has_linear_kernel` is true.

    Returns:
        tensor `(kernels, units)`, in the dtype of the weights.
    """
    kernel = tf.convert_to_tensor(_kernel(layer))
    return tf.reshape(kernel, (-1, kernel.shape[-1]))


def _kernel(layer):
    return layer.effective_kernel if hasattr(layer, "effective_kernel") else layer.kernel


def _is_global_average(call):
    if isinstance(call.layer, _POOLINGS):
        return True
    if not call.inputs:
        return False
    (source, *_), (pooled, *_) = call.inputs, call.outputs
    if not is_spatial(source) or is_spatial(pooled):
        return False
    if isinstance(call.layer, _AVERAGES):
        return tuple(call.layer.pool_size) == tuple(source.shape[1:-1])
    if _operation_name(call.layer) == "Mean":
        axes = {axis % len(source.shape) for axis in keras.tree.flatten(call.layer.axis)}
        return axes == set(_axes.spatial(len(source.shape)))
    return False


def pools_everything(call):
    """Tell whether a call makes one position of all, each of which counts."""
    return (
        _is_global_average(call)
        or isinstance(call.layer, (*_MAXIMA, keras.layers.Flatten, keras.layers.Reshape))
        or _operation_name(call.layer) in ("Mean", "Max", "Sum", "Reshape")
    )


def is_nonlinear(activation):
    """Tell whether the activation of a layer does something."""
    return activation is not None and activation is not keras.activations.linear


def _is_linear_activation(layer):
    return isinstance(layer, keras.layers.Activation) and not is_nonlinear(layer.activation)
