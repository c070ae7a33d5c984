"""Choose by which rule relevance goes back through each call of a model."""

import re
import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable.inspection import _heads
from keras_explainable.inspection import _linear
from keras_explainable.inspection import _rules
from keras_explainable.inspection._graphs import is_spatial
from keras_explainable.inspection._targets import TargetLayer


def _classes(*names):
    """Return the layer classes of some names, with `1D` to `3D` after them or without."""
    pattern = re.compile(rf"({'|'.join(names)})([123]D)?")
    return tuple(
        getattr(keras.layers, name) for name in dir(keras.layers) if pattern.fullmatch(name)
    )


# The gradient of these takes each value of the output back to where it is from.
_KEEPING = _classes(
    *("ActivityRegularization", "CenterCrop", "Concatenate", "Cropping", "Flatten", "Identity"),
    *(r"\w*Dropout", "GaussianNoise", r"\w*MaxPooling", "Permute", r"Random\w+", "RepeatVector"),
    *("Reshape", "ZeroPadding"),
)
_KEEPING_OPERATIONS = (
    *("Cast", "Concatenate", "ExpandDims", "Flip", "GetItem", "Identity", "Max", "MaxPool"),
    *("Moveaxis", "Pad", "Ravel", "Reshape", "Split", "Squeeze", "Stack", "Swapaxes", "Transpose"),
)
_AFFINE = _classes(
    *("Add", "Average", r"\w*AveragePooling", "BatchNormalization", "Resizing", "Subtract"),
    "UpSampling",
)
_AFFINE_OPERATIONS = ("Add", "AveragePool", "Mean", "Resize", "Subtract", "Sum")
# With a constant, these make one value of one value.
_ONE_BY_ONE = ("Add", "Divide", "Multiply", "Negative", "Subtract", "TrueDivide")
# Values of the output that are not negative, wherever those of the input are not.
_GROWING = (*_KEEPING, *_classes("Add", "Average", r"\w*AveragePooling", "UpSampling"))
_GROWING_OPERATIONS = (*set(_KEEPING_OPERATIONS) - {"Pad"}, "Add", "AveragePool", "Mean", "Sum")
_POSITIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "softplus", "exponential", "softmax")
_SHARED_OUT = ("softmax", "logsoftmax", "glu", "sparsemax")
_BY_VALUE = {name.replace("_", "") for name in dir(keras.activations)} - set(_SHARED_OUT)


def plan(calls, upstream, composite, options, folds):
    """Choose the rules of the calls of a model.

    Args:
        calls: list of `Call`, in the order of computation.
        upstream: function from a tensor to the calls that it is computed by.
        composite: dict from "first", "convolution" and "dense" to names of rules.
        options: those of the rules.
        folds: whether batch normalizations are folded into the linear layers before them.

    Returns:
        list of rules, see `_redirecting.redirect`; `None` for a call that keeps its gradient.

    Raises:
        ValueError: if there is no rule for a call.
    """
    folded = _normalizations_by_source(calls) if folds else {}
    into = [id(normalization) for normalization in folded.values()]
    parts = _parts(calls, upstream)
    positive, rules, unknown = set(), [], []
    for call in calls:
        if _linear.is_linear(call.layer):
            rule = composite[parts[id(call)]]
            if rule == "z_box":
                _check_bounds(options, call.inputs[0].shape[-1])
            rules.append(
                _through_linear(
                    call.layer,
                    folded.get(id(call.outputs[0])),
                    rule,
                    is_positive=id(call.inputs[0]) in positive,
                    inside=_inside(_padding(call, calls)),
                    **options,
                )
            )
        elif id(call) in into:
            rules.append(_rules.pass_on)
        else:
            follows = any(_linear.is_linear(c.layer) for t in call.inputs for c in upstream(t))
            rule = _rule(call, calls, options["epsilon"], follows)
            unknown += [call] if rule is _UNKNOWN else []
            rules.append(rule)
        if _is_positive(call, positive):
            positive.update(id(tensor) for tensor in call.outputs)
    if unknown:
        listed = [f"{type(call.layer).__name__} {call.path!r}" for call in unknown]
        raise ValueError(
            f"Layer-wise relevance propagation has no rule for {', '.join(listed[:8])}. Use a "
            "method that takes any layer, such as `input_x_gradient` or `integrated_gradients`."
        )
    return rules


def _check_bounds(options, channels):
    """Refuse bounds of the inputs of a layer that has another number of channels."""
    for argument in ("low", "high"):
        bound = options[argument]
        if bound.ndim and len(bound) != channels:
            expected = f"a number, or {channels}, one per channel of the input of the first layer"
            raise invalid(argument, expected, bound.tolist())


def _parts(calls, upstream):
    """Tell by id which part of a composite the rule of each linear layer is from."""
    parts, inner = {}, set()
    linear = [call for call in calls if _linear.is_linear(call.layer)]
    for call in linear:
        above = [id(c) for c in upstream(call.inputs[0]) if _linear.is_linear(c.layer)]
        inner.update(above)
        # A convolution at a single position is a dense layer.
        moves = _linear.is_convolution(call.layer) and is_spatial(call.inputs[0])
        parts[id(call)] = "first" if not above else "convolution" if moves else "dense"
    # One that gives the logits, which aren't rectified, counts as a dense one.
    logits = {n: "dense" for n, part in parts.items() if n not in inner and part == "convolution"}
    return parts | logits


_UNKNOWN = object()


def _rule(call, calls, epsilon, follows):
    """Return the rule of a call of a layer that is not linear, which may follow one that is."""
    layer, name = call.layer, type(call.layer).__name__
    is_operation = not isinstance(layer, keras.Layer)
    if _heads.is_activation(layer) or (is_operation and _heads.is_activated(layer)):
        return _rules.pass_on if _acts_value_by_value(layer) else _UNKNOWN
    if _linear.is_one_of(layer, _KEEPING) or (is_operation and name in _KEEPING_OPERATIONS):
        return None
    by_one = is_operation and name in _ONE_BY_ONE and len(call.inputs) == 1
    by_one &= tuple(call.inputs[0].shape) == tuple(call.outputs[0].shape)
    if by_one or _linear.is_one_of(layer, (keras.layers.Normalization, keras.layers.Rescaling)):
        # What prepares an input leaves its values where they are; what is added later is a bias.
        return _rules.through_affine(epsilon) if follows else _rules.pass_on
    is_affine = _linear.is_one_of(layer, _AFFINE) or isinstance(layer, TargetLayer)
    if is_affine or (is_operation and name in _AFFINE_OPERATIONS):
        return _rules.through_affine(epsilon)
    if name == "Multiply" and (is_operation or isinstance(layer, keras.layers.Multiply)):
        gated = _gated(call, calls)
        return _UNKNOWN if gated is None else _rules.pass_to(gated)
    return _UNKNOWN


def _padding(call, calls):
    """Return what zero-padding layers add around the input of a call, one pair per axis."""
    makers = {id(t): c for c in reversed(calls) for t in c.outputs}
    total, maker = 0, makers.get(id(call.inputs[0]))
    while maker is not None and _added(maker) is not None:
        total = total + _added(maker)
        maker = makers.get(id(maker.inputs[0]))
    return total


def _added(call):
    """Return what a call adds around its input, all zeros, or `None` if it does something else."""
    layer, name = call.layer, type(call.layer).__name__
    if _linear.is_one_of(layer, _classes("ZeroPadding")):
        return np.reshape(layer.padding, (-1, 2))
    if isinstance(layer, keras.Layer) or name != "Pad" or layer.mode != "constant":
        return None
    around, filled = np.reshape(layer.pad_width, (-1, 2)), call.kwargs.get("constant_values")
    if len(around) != len(call.inputs[0].shape) or around[[0, -1]].any() or filled:
        return None
    return around[1:-1]


def _inside(padding):
    """Return the function from padded inputs to 1 where they are not padding."""

    def inside(x):
        if np.all(padding == 0):
            return tf.ones_like(x)
        taken = padding.sum(1)
        sizes = [size - n for size, n in zip(_axes.sizes(x)[1:-1], taken, strict=True)]
        return tf.pad(tf.ones((1, *sizes, 1), x.dtype), [(0, 0), *padding, (0, 0)]) + 0 * x

    return inside


def _gated(call, calls):
    """Tell which factor of a product is let through by the other one; `None` if none is."""
    if len(call.inputs) != 2:
        return None
    sizes = [sum(size != 1 for size in tensor.shape[1:-1]) for tensor in call.inputs]
    if sizes[0] != sizes[1]:
        return int(sizes[1] > sizes[0])
    makers = {id(t): c.layer for c in reversed(calls) for t in c.outputs}
    gates = [_activation_name(makers.get(id(t))).endswith("sigmoid") for t in call.inputs]
    return gates.index(False) if sum(gates) == 1 else None


def _acts_value_by_value(layer):
    """Tell whether an activation makes each value of one value."""
    name, activation = _activation_name(layer), getattr(layer, "activation", None)
    if activation is None or name in _BY_VALUE:
        return name not in _SHARED_OUT
    values = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype("float32")
    changed = values.copy()
    changed[1, 1, 1, 1] += 1
    with tf.init_scope():
        before, after = (np.array(activation(tf.constant(v))) for v in (values, changed))
    if before.shape != values.shape:
        return False
    after[1, 1, 1, 1] = before[1, 1, 1, 1]
    return np.allclose(before, after)


def _activation_name(layer):
    """Return the name of an activation without underscores, in lower case."""
    activation = getattr(layer, "activation", None)
    name = type(layer).__name__ if activation is None else getattr(activation, "__name__", "")
    return name.lower().replace("_", "")


def _is_positive(call, positive):
    """Tell whether no value that a call returns is negative."""
    layer, name = call.layer, type(call.layer).__name__
    if _activation_name(layer) in _POSITIVE:
        # A rectifier may leak, or begin below zero.
        return not getattr(layer, "negative_slope", 0) and getattr(layer, "threshold", 0) >= 0
    grows = _linear.is_one_of(layer, _GROWING)
    grows |= not isinstance(layer, keras.Layer) and name in _GROWING_OPERATIONS
    return grows and all(id(tensor) in positive for tensor in call.inputs)


def _normalizations_by_source(calls):
    """Return the batch normalizations that nothing but a linear layer feeds, by what it returns."""
    takers = {}
    for call in calls:
        for tensor in call.inputs:
            takers.setdefault(id(tensor), []).append(call)
    found = {}
    for call in calls:
        if not _linear.is_scalable(call.layer):
            continue
        taker = takers.get(id(call.outputs[0]), [])
        is_normalization = len(taker) == 1 and isinstance(
            taker[0].layer, keras.layers.BatchNormalization
        )
        if is_normalization and taker[0].layer.axis in (-1, len(call.outputs[0].shape) - 1):
            found[id(call.outputs[0])] = taker[0]
    return found


def _through_linear(layer, normalization, rule, **options):
    """Return the way back through a linear layer, and a batch normalization folded into it."""
    # TensorFlow keeps the functions of gradients for good.
    layer, folded = weakref.ref(layer), None
    if normalization is not None:
        normalization = weakref.ref(normalization.layer)

        def folded():
            return _factor_and_shift(normalization())

    if rule == "epsilon":
        return _rules.through_affine(options["epsilon"], folded)

    def read():
        *first, last = _linear.stages(layer())
        if folded is None:
            return [*first, last]
        factor, shift = folded()
        kernel = last.scaled(last.kernel, factor)
        return [*first, last._replace(kernel=kernel, bias=last.bias * factor + shift)]

    return _rules.through_linear(_rules.SHARES[rule], read, **options)


def _factor_and_shift(layer):
    """Return what a batch normalization multiplies by and adds, in inference."""
    factor = tf.math.rsqrt(tf.cast(layer.moving_variance, tf.float32) + layer.epsilon)
    if layer.scale:
        factor *= tf.cast(layer.gamma, tf.float32)
    shift = -tf.cast(layer.moving_mean, tf.float32) * factor
    return factor, shift + tf.cast(layer.beta, tf.float32) if layer.center else shift
