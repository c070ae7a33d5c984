"""Check what metrics are computed from, before any pass of a model."""

import keras
import numpy as np
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable.inspection import feeding

# What a mask holds at positions that count neither as object nor as background.
IGNORED = 255
# By which rounding may take a map out of its interval.
_TOLERANCE = 1e-4


def checked(arguments, *, num_units=None, unit_interval=False, exposed=None):
    """Return arguments as arrays that fit each other.

    Args:
        arguments: dict with some of the keys of `_registry.ARGUMENTS`; `None` for what isn't given.
        num_units: number of units of the model, where there is one.
        unit_interval: whether maps are to be from 0 to 1.
        exposed: `Exposed` model that `x` goes into, where there is one.

    Returns:
        dict of arrays, without what isn't given.

    Raises:
        TypeError: if an argument has a wrong type.
        ValueError: if a shape or a value doesn't fit.
    """
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if "x" in arguments and exposed is not None:
        arguments["x"] = feeding.structured(exposed, arguments["x"])
    if "maps" in arguments:
        arguments["maps"] = _maps(arguments["maps"], unit_interval)
    lengths = {n: len(keras.tree.flatten(a)[0]) for n, a in arguments.items() if n in ("x", "maps")}
    length = next(iter(lengths.values()))
    if length == 0 or len(set(lengths.values())) > 1:
        expected = "one or more maps per sample of `x`" if "x" in lengths else "at least one sample"
        raise invalid("maps", expected, f"{lengths} samples" if length else "none")
    maps = arguments.get("maps")
    for name, check in _CHECKS.items():
        if name in arguments:
            arguments[name] = check(arguments[name], length, maps, num_units)
    return arguments


def checked_beside(arguments, maps_shape, num_units):
    """Return what goes with maps that are still to be made, as arrays that fit them.

    Args:
        arguments: dict with some of the keys of `_registry.ARGUMENTS` but `x` and `maps`.
        maps_shape: `(samples, *positions, n)`, the shape of the maps.
        num_units: number of units of the model.

    Raises:
        TypeError: if an argument has a wrong type.
        ValueError: if a shape or a value doesn't fit.
    """
    maps = np.broadcast_to(np.float32(0), maps_shape)
    return {
        name: _CHECKS[name](value, maps_shape[0], maps, num_units)
        for name, value in arguments.items()
        if value is not None
    }


def shaped(arguments):
    """Return tensors inside a compiled function in the form of `checked`, their values unseen."""
    arguments = {name: value for name, value in arguments.items() if value is not None}
    maps, indices, masks = (arguments.get(name) for name in ("maps", "indices", "masks"))
    if indices is not None and not isinstance(indices, str) and len(indices.shape) == 1:
        arguments["indices"] = indices[:, None]
    if masks is not None:
        masks = tf.cast(masks, tf.float32)
        arguments["masks"] = masks if len(masks.shape) == len(maps.shape) else masks[..., None]
    return arguments


def _maps(maps, unit_interval):
    maps = _numbers("maps", maps)
    if maps.ndim < 3:
        expected = "maps (samples, *positions, units)"
        raise invalid("maps", expected, f"shape {maps.shape}")
    maps = maps.astype("float32")
    finite = np.isfinite(maps).reshape(len(maps), -1).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        received = f"NaN or infinity in {int((~finite).sum())} samples, the first of index {first}"
        raise invalid("maps", "finite values", received)
    if unit_interval and maps.size and (maps.min() < -_TOLERANCE or maps.max() > 1 + _TOLERANCE):
        hint = "Pass them through `ke.filters.positive_normalize`."
        received = f"{maps.min():.4g} to {maps.max():.4g}"
        raise invalid("maps", "values from 0 to 1, which mask inputs", received, hint)
    return maps


def _indices(indices, length, maps, num_units):
    del maps  # They are compared with the indices where it is known which maps are chosen.
    if isinstance(indices, str):
        if indices != "argmax":
            raise invalid("indices", 'integers or "argmax"', repr(indices))
        return indices
    indices = np.asarray(indices)
    if not np.issubdtype(indices.dtype, np.integer):
        raise mistyped("indices", 'integers or "argmax"', indices.dtype.name)
    indices = np.full((length,), indices) if indices.ndim == 0 else indices
    if indices.ndim > 2 or len(indices) != length:
        expected = f"shape ({length},) or ({length}, n)"
        raise invalid("indices", expected, f"shape {indices.shape}")
    if num_units is not None and (indices.min() < 0 or indices.max() >= num_units):
        expected = f"units from 0 to {num_units - 1}"
        raise invalid("indices", expected, f"{indices.min()} to {indices.max()}")
    return indices.astype("int32")[:, None] if indices.ndim == 1 else indices.astype("int32")


def _masks(masks, length, maps, num_units):
    masks = _numbers("masks", masks)
    positions = maps.shape[1:-1]
    per_unit = masks.ndim == maps.ndim
    if len(masks) != length or masks.shape[1 : maps.ndim - 1] != positions:
        expected = f"masks {(length, *positions)}, or one per map, of the size of the maps"
        hint = "Resize the maps to the masks: `ke.explain(..., resizing=masks.shape[1:3])`."
        raise invalid("masks", expected, f"shape {masks.shape}", hint)
    if masks.ndim not in (maps.ndim - 1, maps.ndim) or (
        per_unit and masks.shape[-1] not in (1, maps.shape[-1], num_units)
    ):
        expected = f"one mask per sample, or for each of the {maps.shape[-1]} maps"
        raise invalid("masks", expected, f"shape {masks.shape}")
    masks = masks.astype("uint8") if masks.dtype == bool else masks
    known = (masks == 0) | (masks == 1) | (masks == IGNORED)
    if not known.all():
        other = masks[~known].flat[0]
        hint = "A mask of labels becomes one of a class with `masks == label`."
        raise invalid("masks", f"0, 1 or {IGNORED} (ignored)", f"{other}", hint)
    return (masks if per_unit else masks[..., None]).astype("float32")


def _per_unit(name):
    def check(values, length, maps, num_units):
        del maps
        values = _numbers(name, values)
        if values.ndim != 2 or len(values) != length or num_units not in (None, values.shape[1]):
            expected = f"shape ({length}, {num_units or 'units'})"
            raise invalid(name, expected, f"shape {values.shape}")
        if not np.isfinite(values.astype("float32")).all():
            raise invalid(name, "finite values", "NaN or infinity")
        return values.astype("float32")

    return check


def _numbers(name, value):
    value = value.numpy() if isinstance(value, tf.Tensor) else np.asarray(value)
    if not (np.issubdtype(value.dtype, np.number) or value.dtype in (bool, "bfloat16")):
        raise mistyped(name, "an array of numbers", value)
    return value


_CHECKS = {
    "indices": _indices,
    "masks": _masks,
    "detections": _per_unit("detections"),
    "logits": _per_unit("logits"),
}
