"""What the linear head of a model uses: how alike its units are, and how many kernels they take."""

from __future__ import annotations

import warnings

import keras
import numpy as np

from keras_explainable import _compat
from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import number
from keras_explainable._typing import Head

# Sums of weights in another order differ by less, so that a share of 1 is reached.
_ROUNDING = 1e-9


def class_correlations(head: Head) -> np.ndarray:
    r"""Measure how alike the weights of the units of a head are.

    .. math:: r_{un} = \frac{\sum_k (W_{ku} - \bar W_u)(W_{kn} - \bar W_n)}
              {\sqrt{\sum_k (W_{ku} - \bar W_u)^2 \sum_k (W_{kn} - \bar W_n)^2}}

    Units with weights that are alike have maps that are. The weights of a unit that are all the
    same have no correlation: it counts as 0 with the others, and as 1 with itself.

    Args:
        head: `keras.Model` with a linear head after its global average pooling, whose kernel is
            read, of several outputs that of the first with such a head; a layer, whose
            `effective_kernel` is read, or else its `kernel`, of an `ActivationMaps` that of its
            head; or an array `(..., units)`.

    Returns:
        float64 array `(units, units)`, Pearson correlations from −1 to 1.

    Raises:
        TypeError: if `head` is of another type.
        ValueError: if the model has no linear head after a global average pooling, the layer isn't
            built, or values aren't finite.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> ke.diagnostics.class_correlations(np.array([[1, 2, 3], [2, 4, 2], [3, 6, 1]]))
        array([[ 1.,  1., -1.],
               [ 1.,  1., -1.],
               [-1., -1.,  1.]])
    """
    kernel = _kernel(head)
    away = kernel - kernel.mean(axis=0)
    away[:, np.ptp(kernel, axis=0) == 0] = 0  # Means are rounded.
    lengths = np.linalg.norm(away, axis=0)
    directions = np.divide(away, lengths, out=np.zeros_like(away), where=lengths > 0)
    correlations = np.clip(directions.T @ directions, -1, 1)
    np.fill_diagonal(correlations, 1)
    return correlations


def mean_absolute_correlation(head: Head) -> float:
    """Measure how alike the weights of different units are, by one number.

    Args:
        head: as in `class_correlations`, of two units at least.

    Returns:
        float, the mean magnitude of the correlations of pairs of different units, from 0 to 1.

    Raises:
        TypeError: as `class_correlations`.
        ValueError: as `class_correlations`, and if there is but one unit.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> round(ke.diagnostics.mean_absolute_correlation(np.eye(3)), 6)
        0.5
    """
    correlations = class_correlations(head)
    num_units = len(correlations)
    if num_units < 2:
        raise invalid("head", "a head of two units at least", f"{num_units} unit")
    return float(np.abs(correlations[np.triu_indices(num_units, 1)]).mean())


def kernel_usage(head: Head, share: float = 0.9, absolute: bool = False) -> np.ndarray:
    r"""Count the kernels that carry each unit of a head.

    It is the least number of kernels (inputs of the head) whose positive weights sum up to a share
    of all positive weights of the unit,

    .. math:: \min \Big\{ n : \sum_{i \le n} W^+_{(i) u} \ge s \sum_k W^+_{ku} \Big\}

    for weights :math:`W^+_{(1) u} \ge W^+_{(2) u} \ge \dots`, the negative ones taken as 0. Weights
    are compared as they are, however strong the activations that they multiply. A unit without any
    positive weight takes 0 kernels.

    Args:
        head: as in `class_correlations`.
        share: float in (0, 1], :math:`s`. Defaults to 0.9.
        absolute: whether magnitudes of all weights are counted, in place of the positive ones.
            Defaults to False.

    Returns:
        integer array `(units,)`.

    Raises:
        TypeError: as `class_correlations`, and if `absolute` is no boolean.
        ValueError: as `class_correlations`, and if `share` is not in (0, 1].

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> kernel = np.array([[4.0, 1.0], [3.0, -9.0], [3.0, 0.0]])
        >>> ke.diagnostics.kernel_usage(kernel, share=0.7)
        array([2, 1])
        >>> ke.diagnostics.kernel_usage(kernel, share=0.95, absolute=True)
        array([3, 2])
    """
    if not 0 < number("share", share) <= 1:
        raise invalid("share", "a number in (0, 1]", share)
    if not isinstance(absolute, bool):
        raise mistyped("absolute", "a boolean", absolute)
    kernel = _kernel(head)
    counted = np.abs(kernel) if absolute else np.maximum(kernel, 0)
    sums = np.cumsum(-np.sort(-counted, axis=0), axis=0)
    short = sums < share * sums[-1] * (1 - _ROUNDING)
    return np.where(sums[-1] > 0, short.sum(axis=0) + 1, 0)


def share_of_positive_weights(head: Head) -> float:
    """Measure how sparse the positive weights of a head are.

    Args:
        head: as in `class_correlations`.

    Returns:
        float, number of weights above 0 over the number of all.

    Raises:
        TypeError: as `class_correlations`.
        ValueError: as `class_correlations`.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> ke.diagnostics.share_of_positive_weights(np.array([[1.0, -1.0], [0.0, -2.0]]))
        0.25
    """
    return float((_kernel(head) > 0).mean())


def _kernel(head):
    """Return the kernel that a head uses, a float64 array `(kernels, units)`."""
    if isinstance(head, keras.Model):
        values = _of_model(head)
    elif isinstance(head, keras.layers.Layer):
        values = _of_layer(head)
    else:
        values = head
    try:
        kernel = np.array(keras.ops.convert_to_numpy(values), "float64")
    except (TypeError, ValueError) as error:
        expected = "a `keras.Model`, a layer with a kernel, or an array"
        raise mistyped("head", expected, head) from error
    if kernel.ndim < 2 or not kernel.size:
        raise invalid("head", "a kernel of shape (kernels, units)", f"one of shape {kernel.shape}")
    if not np.isfinite(kernel).all():
        raise invalid("head", "finite weights", "NaN or infinity among its weights")
    return kernel.reshape(-1, kernel.shape[-1])


def _of_model(model):
    """Read the kernel of the first output that has one, or say why the first of all has none."""
    num_outputs = len(model.outputs) if _compat.is_functional(model) else 1
    errors = []
    for index in range(num_outputs):
        try:
            return _of_output(model, index)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _of_output(model, index):
    """Read the kernel between the pooling of a model and its logits, or say that there is none."""
    try:
        with warnings.catch_warnings():
            # There is no such argument here.
            warnings.filterwarnings("ignore", ".*with `output=`", UserWarning)
            exposed = inspection.expose(model, outputs=index)
    except ValueError as error:
        # What maps can be drawn of doesn't matter to a kernel, nor can it be chosen here.
        found, unchosen, _ = str(error).partition(" Choose the activations with `layer=`")
        if not unchosen:
            raise
        raise _headless(found[0].lower() + found[1:].removesuffix(".")) from None
    if exposed.head_error:
        raise _headless(f"the model {model.name!r}: {exposed.head_error}")
    if exposed.head is None:
        received = (
            f"the model {model.name!r}, which averages the scores of its units, so that no kernel "
            "comes after its pooling"
        )
        raise _headless(received, _name_of_scoring(model, exposed))
    return inspection.head_kernel(exposed)


def _headless(received, name="..."):
    expected = "a model whose logits are one linear layer away from globally averaged activations"
    hint = f"Pass the layer whose kernel it is in its place, `model.get_layer({name})`."
    return invalid("head", expected, received, hint)


def _name_of_scoring(model, exposed):
    """Return the name of the layer of a model that makes what is pooled, "..." for another one."""
    last = keras.Model(exposed.inputs, exposed.outputs[1]).layers[-1]
    kernel = getattr(last, "kernel", None)
    found = [x.name for x in model.layers if getattr(x, "kernel", None) is kernel is not None]
    return repr(found[0]) if found else "..."


def _of_layer(layer):
    if hasattr(layer, "explained_outputs"):  # As of `ActivationMaps`.
        layer = layer.layer
    if not layer.built:
        raise invalid("head", "a layer that is built", repr(layer.name))
    if hasattr(layer, "effective_kernel"):
        return layer.effective_kernel
    if not hasattr(layer, "kernel"):
        raise mistyped("head", "a layer with a kernel", layer)
    return layer.kernel
