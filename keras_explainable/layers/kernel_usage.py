"""Layers whose kernels are used sparingly: Kernel Usage Regularization (KUR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import number

_PACKAGE = "keras_explainable"


def used_kernel(
    kernel: tf.Tensor, alpha: float = 1.0, temperature: float = 1.0, absolute: bool = False
) -> tf.Tensor:
    r"""Weigh each weight of a kernel by its share among those of the other units.

    .. math:: W^e_{ku} = \alpha \, W_{ku} \,
              \frac{\exp(W_{ku} / \tau)}{\sum_n \exp(W_{kn} / \tau)}

    Args:
        kernel: float tensor `(..., units)`.
        alpha: factor :math:`\alpha`. Defaults to 1.
        temperature: :math:`\tau`; the smaller it is, the fewer units use a kernel. Defaults to 1.
        absolute: compare magnitudes, :math:`|W|` in place of :math:`W` in the exponentials, so that
            weights that speak against a unit are kept, too. Defaults to False.

    Returns:
        tensor of the same shape and dtype, computed in single precision at least.
    """
    kernel = keras.ops.convert_to_tensor(kernel)
    dtype = kernel.dtype
    if dtype != "float64":
        kernel = keras.ops.cast(kernel, "float32")
    used = alpha * kernel
    if kernel.shape[-1] > 1:  # A single unit has all of each kernel.
        compared = keras.ops.abs(kernel) if absolute else kernel
        used = used * keras.ops.softmax(compared / temperature, axis=-1)
    return keras.ops.cast(used, dtype)


def _check_policy(argument, policy):
    """Raise that a dtype policy quantizes kernels."""
    if "from_" in policy.name:  # As in "int8_from_float32".
        raise invalid(argument, "a policy without quantization", policy.name)


class _KernelUsage:
    """What layers of kernel usage share: their options, and the kernel that they use."""

    def _set_options(self, alpha, temperature, absolute):
        self.alpha = None if alpha is None else number("alpha", alpha)
        if self.alpha is not None and self.alpha <= 0:
            raise invalid("alpha", "`None` or a number above 0", alpha)
        self.temperature = number("temperature", temperature)
        if self.temperature <= 0:
            raise invalid("temperature", "a number above 0", temperature)
        if not isinstance(absolute, bool):
            raise mistyped("absolute", "a boolean", absolute)
        self.absolute = absolute
        _check_policy("dtype", self.dtype_policy)

    def _used(self, kernel):
        shape = tuple(kernel.shape)
        # Filters of different groups have no input channel in common.
        groups = getattr(self, "groups", 1)
        units = shape[-1] // groups
        kernel = keras.ops.reshape(kernel, (*shape[:-1], groups, units))
        alpha = units if self.alpha is None else self.alpha
        used = used_kernel(kernel, alpha, self.temperature, self.absolute)
        return keras.ops.reshape(used, shape)

    @property
    def effective_kernel(self):
        """The kernel that inputs are multiplied by, of the shape of `kernel`."""
        return self._used(self.kernel)

    def get_config(self):
        """Return what the layer is made from."""
        options = {
            "alpha": self.alpha,
            "temperature": self.temperature,
            "absolute": self.absolute,
        }
        return {**super().get_config(), **options}

    @classmethod
    def from_trained(cls, layer, **options):
        """Make a layer of kernel usage with the weights of a trained plain one.

        What it returns differs from what the plain layer returns, as weights are multiplied by
        their shares: it is a start for further training.

        Args:
            layer: built layer of the class that this one takes the place of.
            **options: `alpha`, `temperature`, `absolute`, and other arguments that are to differ.

        Returns:
            a built layer of this class, with copies of the weights.

        Raises:
            TypeError: if `layer` is of another class.
            ValueError: if it isn't built, or is quantized.
        """
        if type(layer) is not cls._plain_class:
            raise mistyped("layer", f"a `keras.layers.{cls._plain_class.__name__}`", layer)
        if not layer.built:
            raise invalid("layer", "a layer that is built", layer.name)
        _check_policy("layer", layer.dtype_policy)
        made = cls.from_config({**layer.get_config(), **options})
        made.build_from_config(layer.get_build_config())
        made.set_weights(layer.get_weights())
        return made


@keras.saving.register_keras_serializable(_PACKAGE)
class KernelUsageDense(_KernelUsage, keras.layers.Dense):
    r"""A Dense layer each of whose kernels is used by few units.

    .. math:: \ell_u = \sum_k h_k W^e_{ku} + b_u, \quad
              W^e_{ku} = \alpha \, W_{ku} \, \mathrm{softmax}_u(W_{ku} / \tau)

    The softmax is over the units, separately for each input k, and gradients flow through both
    factors. A weight that is small among those of its row is made smaller, so that in training each
    input ends up speaking for few units, and their maps overlap less. `cam` and the MinMax methods
    read `effective_kernel`.

    It is for a head that is trained: a plain head converts with `from_trained`, and goes on
    training. At initialization weights are about equal and the softmax is about one over the number
    of units, which the default `alpha` makes up for.

    Args:
        units: number of units.
        *args: further arguments of `keras.layers.Dense`, in its order.
        alpha: factor :math:`\alpha`. Defaults to the number of units; 1 is as published, and takes
            a learning rate higher by about that number.
        temperature: :math:`\tau`. Defaults to 1.
        absolute: compare magnitudes in the softmax, see `used_kernel`. Defaults to False.
        **kwargs: further arguments of `keras.layers.Dense`.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> head = ke.layers.KernelUsageDense(5, activation="sigmoid")
        >>> head(np.ones((2, 8))).shape
        TensorShape([2, 5])
    """

    _plain_class = keras.layers.Dense

    def __init__(
        self,
        units: int,
        *args: Any,
        alpha: float | None = None,
        temperature: float = 1.0,
        absolute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, *args, **kwargs)
        self._set_options(alpha, temperature, absolute)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Multiply inputs by the effective kernel."""
        del training
        x = keras.ops.matmul(inputs, self.effective_kernel)
        if self.bias is not None:
            x = keras.ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)


@keras.saving.register_keras_serializable(_PACKAGE)
class KernelUsageConv2D(_KernelUsage, keras.layers.Conv2D):
    r"""A convolution each of whose kernels is used by few filters, see `KernelUsageDense`.

    The softmax is over the filters, separately for each input channel and position of the kernel.
    With `groups`, it is over the filters of a group, as those of others take other channels.

    Args:
        filters: number of filters.
        kernel_size: as in `keras.layers.Conv2D`.
        *args: further arguments of `keras.layers.Conv2D`, in its order.
        alpha: factor. Defaults to the number of filters of a group, which is that of all filters
            unless there are `groups`.
        temperature: as in `KernelUsageDense`.
        absolute: as in `KernelUsageDense`.
        **kwargs: further arguments of `keras.layers.Conv2D`.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> head = ke.layers.KernelUsageConv2D(5, 1, use_bias=False)
        >>> head(np.ones((2, 4, 4, 8))).shape
        TensorShape([2, 4, 4, 5])
    """

    _plain_class = keras.layers.Conv2D

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        *args: Any,
        alpha: float | None = None,
        temperature: float = 1.0,
        absolute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, *args, **kwargs)
        self._set_options(alpha, temperature, absolute)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolve inputs with the kernel that is used of another."""
        return super().convolution_op(inputs, self._used(kernel))
