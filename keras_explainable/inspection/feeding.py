"""Bring what a user passes for the inputs of a model into the form that the model takes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._typing import Array
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable.inspection.exposing import Exposed


def structured(exposed: Exposed, x: Inputs) -> Inputs:
    """Return arrays in a structure that an exposed model takes, their shapes checked.

    Args:
        exposed: `Exposed` model.
        x: array or tensor, or a list, tuple or dict of them, one per input.

    Returns:
        array, tuple of arrays, or dict of arrays.

    Raises:
        TypeError: if there are no arrays of numbers in `x`.
        ValueError: if a shape, or the number of inputs, is another one.
    """
    wanted = keras.tree.flatten(exposed.own_inputs)
    x = arranged(exposed, x)
    if isinstance(x, dict):
        x = {name: as_array(value) for name, value in x.items()}
    elif isinstance(x, list | tuple) and len(x) == len(wanted):
        x = tuple(as_array(v) for v in x) if len(x) > 1 else as_array(x[0])
    elif isinstance(x, list | tuple):
        hint = "Stack images into one array with `np.stack`." if len(wanted) == 1 else ""
        expected = f"{len(wanted)} array{'s' * (len(wanted) > 1)}, one per input of the model"
        raise invalid("x", expected, f"a {type(x).__name__} of {len(x)}", hint)
    else:
        x = as_array(x)
    flat = keras.tree.flatten(x)
    for i, (array, kind) in enumerate(zip(flat, wanted, strict=False)):
        batch, *shape = kind.shape
        if i in exposed.channels_first:
            shape = [shape[-1], *shape[:-1]]
        if not tf.TensorShape(array.shape[1:]).is_compatible_with(shape):
            one = tuple(array.shape) == tuple(shape)
            hint = "Add the axis of samples with `x[None]`." if one else ""
            raise invalid("x", f"shape {(batch, *shape)}", tuple(array.shape), hint)
    if len(flat) != len(wanted):
        raise invalid("x", f"{len(wanted)} inputs", len(flat))
    return keras.tree.map_structure(_single_precision, x)


def arranged(exposed: Exposed, x: Inputs) -> Inputs:
    """Return inputs given by name in the order of an exposed model.

    Args:
        exposed: `Exposed` model.
        x: dict from the names of inputs, or anything else, which is returned as it is.

    Raises:
        ValueError: if the names are others.
    """
    if not isinstance(x, dict):
        return x
    structure = exposed.own_inputs
    flat = keras.tree.flatten(structure)
    names = structure if isinstance(structure, dict) else [tensor.name for tensor in flat]
    if set(x) != set(names):
        raise invalid("x", f"a dict with keys {sorted(names)}", f"keys {sorted(x)}")
    x = {name: x[name] for name in names}
    return x if isinstance(structure, dict) else tuple(x.values())


def accepted(exposed: Exposed, inputs: Inputs) -> Any:
    """Cast inputs to the dtypes that an exposed model takes, and bring channels last.

    Args:
        exposed: `Exposed` model.
        inputs: what `structured` returns, or tensors in that structure.

    Returns:
        tensors in the same structure.
    """
    flat = keras.tree.flatten(inputs)
    own = keras.tree.flatten(exposed.own_inputs)
    flat = [_as_input(x, kind) for x, kind in zip(flat, own, strict=True)]
    for i in exposed.channels_first:
        flat[i] = tf.transpose(flat[i], (0, *range(2, flat[i].shape.rank), 1))
    return flat if isinstance(inputs, tuple) else keras.tree.pack_sequence_as(inputs, flat)


def returned(exposed: Exposed, inputs: Inputs) -> Any:
    """Bring inputs of an exposed model into the form that its original takes; undoes `accepted`.

    Args:
        exposed: `Exposed` model.
        inputs: what `accepted` returns.

    Returns:
        tensors in the same structure.
    """
    flat = keras.tree.flatten(inputs)
    for i in exposed.channels_first:
        flat[i] = tf.transpose(
            flat[i], (0, flat[i].shape.rank - 1, *range(1, flat[i].shape.rank - 1))
        )
    return keras.tree.pack_sequence_as(inputs, flat)


def as_array(value: ArrayLike) -> Array:
    """Return an array or tensor of numbers as it is, anything else as an array.

    Args:
        value: array, tensor or nested lists of numbers.

    Raises:
        TypeError: if it holds no numbers, or rows that differ in length.
        ValueError: if it has no axis of samples.
    """
    is_array = hasattr(value, "dtype") and hasattr(value, "shape")
    array: Any = value if is_array else np.asarray(value)
    if array.dtype == object:
        raise mistyped("x", "arrays of numbers, all samples of one shape", array.tolist())
    if len(array.shape) == 0:
        raise invalid("x", "an array with an axis of samples", array)
    return array


def _single_precision(array):
    """Cast doubles, which would take another trace of a compiled step."""
    is_double = isinstance(array, np.ndarray) and array.dtype == np.float64
    return array.astype("float32") if is_double else array


def _as_input(tensor, kind):
    """Cast integers, such as the pixels of an image, to the float dtype of a model's input."""
    tensor = tf.convert_to_tensor(tensor)
    if keras.backend.is_float_dtype(kind.dtype) and tensor.dtype != kind.dtype:
        return tf.cast(tensor, kind.dtype)
    return tensor
