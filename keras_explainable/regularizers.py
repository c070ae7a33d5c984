"""Penalties that make each kernel of a head be used by few units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_explainable import _showing
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import number
from keras_explainable._checks import one_of

_PACKAGE = "keras_explainable"
FORMS = ("unused", "entropy")


@keras.saving.register_keras_serializable(_PACKAGE)
class KernelUsage(keras.regularizers.Regularizer):
    r"""Penalty on the weights of a kernel that are not the largest among units.

    .. math:: R(W) = \lambda \sum_{k, u} \Big( W_{ku}
              \big(1 - \mathrm{softmax}_u(W_{ku} / \tau)\big) \Big)^2

    or, as `form="entropy"`, the entropy of the shares of a row,

    .. math:: R(W) = \lambda \sum_k H\big(\mathrm{softmax}_u(|W_{ku}| / \tau)\big)

    The first is the squared distance between the kernel and the one that
    `keras_explainable.layers.KernelUsageDense` uses with a factor of 1; as a penalty it is this
    library's, and not published. Its limits: where weights of a row differ by much less than
    :math:`\tau` it is an L2 penalty times :math:`((C - 1) / C)^2` for C units; the largest weight
    of a row is spared only where it is larger than the others by several :math:`\tau`. Weights are
    small, so that a `temperature` of a fraction of their deviation does more than 1. Without
    `absolute`, a weight that is far below the others is penalized in full, however strong it is;
    where two tie for the largest, half of each is penalized.

    The entropy is lowered by larger weights, too, and nothing keeps them from growing. Where all
    magnitudes of a row are equal it is at its maximum, and has no gradient. Neither form knows
    groups: the kernel is `(..., units)`, each of whose rows all units take, unlike that of a
    `Conv2D` with `groups` or of a `Conv2DTranspose`.

    Unlike the layer, it leaves what the head computes as it is, and fits any layer with such a
    kernel that takes a `kernel_regularizer`. Keras finds only its own regularizers by a string:
    pass this object, or `ke.regularizers.get("kernel_usage")`.

    Args:
        l: factor :math:`\lambda`. Defaults to 0.001.
        temperature: :math:`\tau`. Defaults to 0.1.
        absolute: compare magnitudes in the softmax of the first form. Defaults to False.
        form: "unused" for the first form, "entropy" for the second. Defaults to "unused".

    Raises:
        ValueError: if `l` is below 0, `temperature` not above it, or the form unknown.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> penalty = ke.regularizers.KernelUsage(1.0, temperature=1e-3)
        >>> float(penalty(np.array([[3.0, 0.0], [1.0, 2.0]], "float32")))
        1.0
    """

    def __init__(
        self,
        l: float = 0.001,  # noqa: E741
        temperature: float = 0.1,
        absolute: bool = False,
        form: str = "unused",
    ) -> None:
        self.l = number("l", l, least=0)
        self.temperature = number("temperature", temperature)
        if self.temperature <= 0:
            raise invalid("temperature", "a number above 0", temperature)
        if not isinstance(absolute, bool):
            raise mistyped("absolute", "a boolean", absolute)
        one_of("form", form, FORMS)
        self.absolute, self.form = absolute, form

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return the penalty of a kernel `(..., units)`, a scalar."""
        kernel = keras.ops.convert_to_tensor(x)
        if kernel.shape[-1] == 1:  # A single unit has all of each kernel.
            return keras.ops.zeros((), kernel.dtype)
        magnitude = keras.ops.abs(kernel)
        by_magnitude = self.absolute or self.form == "entropy"
        compared = (magnitude if by_magnitude else kernel) / self.temperature
        shares = keras.ops.softmax(compared, axis=-1)
        if self.form == "unused":
            return self.l * keras.ops.sum(keras.ops.square(kernel * (1 - shares)))
        return -self.l * keras.ops.sum(shares * keras.ops.log_softmax(compared, axis=-1))

    def __repr__(self):
        """Tell what it is made from."""
        return _showing.line(self, **self.get_config())

    def get_config(self) -> dict[str, Any]:
        """Return what the regularizer is made from."""
        return {
            "l": self.l,
            "temperature": self.temperature,
            "absolute": self.absolute,
            "form": self.form,
        }


@keras.saving.register_keras_serializable(_PACKAGE)
class Orthogonal(keras.regularizers.Regularizer):
    r"""Penalty on units whose weights have much in common, or another length than 1.

    .. math:: R(W) = \frac{\lambda}{C^2} \sum_{u, n} \big( (W^\top W)_{un} - [u = n] \big)^2

    `keras.regularizers.OrthogonalRegularizer` is the mean of absolute cosines between the units, so
    that lengths don't matter to it. This one pushes lengths to 1, also those of units that are
    orthogonal, and can't be 0 with more units than kernels. The kernel is `(..., units)`, without
    groups, as in `KernelUsage`.

    Args:
        l: factor :math:`\lambda`. Defaults to 0.01.

    Raises:
        ValueError: if `l` is below 0.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> float(ke.regularizers.Orthogonal(1.0)(np.eye(4, 2, dtype="float32")))
        0.0
    """

    def __init__(self, l: float = 0.01) -> None:  # noqa: E741
        self.l = number("l", l, least=0)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return the penalty of a kernel `(..., units)`, a scalar."""
        kernel = keras.ops.convert_to_tensor(x)
        kernel = keras.ops.reshape(kernel, (-1, kernel.shape[-1]))
        product = keras.ops.matmul(keras.ops.transpose(kernel), kernel)
        away = product - keras.ops.eye(kernel.shape[-1], dtype=product.dtype)
        return self.l * keras.ops.mean(keras.ops.square(away))

    def __repr__(self):
        """Tell what it is made from."""
        return _showing.line(self, **self.get_config())

    def get_config(self) -> dict[str, Any]:
        """Return what the regularizer is made from."""
        return {"l": self.l}


_NAMES = {"kernel_usage": KernelUsage, "orthogonal": Orthogonal}


def get(
    identifier: str | dict[str, Any] | Callable | None,
) -> keras.regularizers.Regularizer | None:
    """Resolve a regularizer.

    Keras itself finds only its own regularizers by a string. What this returns can be passed to a
    layer, as in `keras.layers.Dense(3, kernel_regularizer=ke.regularizers.get("kernel_usage"))`,
    and so can the dict that `keras.regularizers.serialize` makes of it.

    Args:
        identifier: "kernel_usage" or "orthogonal", or what `keras.regularizers.get` takes.

    Returns:
        a `keras.regularizers.Regularizer`, or `None` for `None`.
    """
    if isinstance(identifier, str) and identifier in _NAMES:
        return _NAMES[identifier]()
    return keras.regularizers.get(identifier)
