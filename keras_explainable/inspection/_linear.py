"""Take a linear layer apart: what it does with a kernel, its kernel, its bias."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf


class Stage(NamedTuple):
    """One linear map within a layer.

    Attributes:
        apply: function from inputs and a kernel to what the layer makes of them without its bias.
        kernel: float32 tensor.
        bias: float32 tensor that broadcasts to the outputs.
        scaled: function from a kernel and a factor per output channel to the kernel times these;
            `None` where the factors have no place.
    """

    apply: Callable
    kernel: tf.Tensor
    bias: tf.Tensor
    scaled: Callable | None


_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_DENSE = (keras.layers.Dense, keras.layers.EinsumDense)


def is_convolution(layer):
    """Tell whether a layer is a linear one with a kernel that moves over positions."""
    return is_one_of(layer, (*_CONVOLUTIONS, *_TRANSPOSED, *_DEPTHWISE, *_SEPARABLE))


def is_linear(layer):
    """Tell whether a layer is a linear one with a kernel, which can be taken apart."""
    return is_convolution(layer) or is_one_of(layer, _DENSE)


def is_scalable(layer):
    """Tell whether a layer is a linear one whose kernel has a place for a factor per output."""
    return is_linear(layer) and not isinstance(layer, keras.layers.EinsumDense)


def stages(layer):
    """Return the linear maps that a layer applies one after the other, a list of `Stage`."""
    bias = tf.zeros(()) if layer.bias is None else _float32(layer.bias)
    if is_one_of(layer, _SEPARABLE):
        across = Stage(
            lambda x, kernel: keras.ops.conv(x, kernel, data_format="channels_last"),
            _float32(layer.pointwise_kernel),
            bias,
            _scaled_last,
        )
        return [Stage(_depthwise(layer), _float32(layer.depthwise_kernel), 0.0, None), across]
    kernel = _float32(getattr(layer, "effective_kernel", layer.kernel))
    if is_one_of(layer, _DEPTHWISE):
        return [Stage(_depthwise(layer), kernel, bias, _scaled_by_multiplier)]
    if is_one_of(layer, _TRANSPOSED):
        return [Stage(_transposed(layer), kernel, bias, _scaled_before_last)]
    if is_one_of(layer, _CONVOLUTIONS):
        return [Stage(_convolution(layer), kernel, bias, _scaled_last)]
    if isinstance(layer, keras.layers.EinsumDense):
        return [Stage(lambda x, k: tf.einsum(_letters(layer, x), x, k), kernel, bias, None)]
    return [Stage(keras.ops.matmul, kernel, bias, _scaled_last)]


def is_one_of(layer, kinds):
    """Tell whether a layer computes as one of some kinds of layers does."""
    # A subclass may use its kernel in another way, unless it says which kernel it uses.
    says = hasattr(type(layer), "effective_kernel")
    return any(isinstance(layer, kind) and (says or _computes_as(layer, kind)) for kind in kinds)


def _computes_as(layer, kind):
    names = ("call", "convolution_op")
    return all(getattr(type(layer), name, None) is getattr(kind, name, None) for name in names)


def _float32(variable):
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def _arguments(layer):
    return {
        "strides": layer.strides,
        "padding": "valid" if layer.padding == "causal" else layer.padding,
        "data_format": layer.data_format,
        "dilation_rate": layer.dilation_rate,
    }


def _convolution(layer):
    def apply(x, kernel):
        if layer.padding == "causal":
            reach = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
            x = tf.pad(x, ((0, 0), (reach, 0), (0, 0)))
        return keras.ops.conv(x, kernel, **_arguments(layer))

    return apply


def _depthwise(layer):
    return lambda x, kernel: keras.ops.depthwise_conv(x, kernel, **_arguments(layer))


def _transposed(layer):
    def apply(x, kernel):
        arguments = _arguments(layer)
        return keras.ops.conv_transpose(x, kernel, output_padding=layer.output_padding, **arguments)

    return apply


def _letters(layer, x):
    """Return the equation of an `EinsumDense` with a letter for each axis of the ellipsis."""
    inputs, rest = layer.equation.split(",")
    free = [letter for letter in "ABCDEFGH" if letter not in layer.equation]
    axes = "".join(free[: x.shape.rank - len(inputs.replace("...", ""))])
    return f"{inputs},{rest}".replace("...", axes)


def _scaled_last(kernel, factors):
    return kernel * factors


def _scaled_before_last(kernel, factors):
    return kernel * factors[:, None]


def _scaled_by_multiplier(kernel, factors):
    return kernel * tf.reshape(factors, kernel.shape[-2:])
