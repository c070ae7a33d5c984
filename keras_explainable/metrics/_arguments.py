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
    _check_units(arguments, num_units)
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
    arguments = {
        name: _CHECKS[name](value, maps_shape[0], maps, num_units)
        for name, value in arguments.items()
        if value is not None
    }
    _check_units({"maps": maps, **arguments}, num_units)
    return arguments


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
    if maps.size == 0:
        raise invalid("maps", "at least one sample, position and unit", f"shape {maps.shape}")
    maps = maps.astype("float32")
    finite = np.isfinite(maps).reshape(len(maps), -1).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        received = f"NaN or infinity in {int((~finite).sum())} samples, the first of index {first}"
        raise invalid("maps", "finite values", received)
    if unit_interval and (maps.min() < -_TOLERANCE or maps.max() > 1 + _TOLERANCE):
        hint = "Pass them through `ke.filters.positive_normalize`."
        received = f"{maps.min():.4g} to {maps.max():.4g}"
        raise invalid("maps", "values from 0 to 1, which mask inputs", received, hint)
    return maps


def _check_units(arguments, num_units):
    """Raise that there is no map, mask or box for a unit."""
    maps, indices, masks, boxes = (
        arguments.get(name) for name in ("maps", "indices", "masks", "boxes")
    )
    num_maps = maps.shape[-1] if maps is not None else None
    units = None if indices is None or isinstance(indices, str) else indices
    if masks is not None and masks.shape[-1] not in (1, num_maps, num_units):
        count = masks.shape[-1]
        if units is None or count < units.shape[1]:
            expected = f"one mask per sample, or for each of the {num_maps} maps"
            raise invalid("masks", expected, f"shape {masks.shape}")
        if count > units.shape[1]:
            _check_range("indices", units, count, "the masks")
    if units is not None and num_maps is not None and num_maps > units.shape[1]:
        _check_range("indices", units, num_maps, "the maps")
    logits = arguments.get("logits")
    if units is not None and logits is not None:
        _check_range("indices", units, logits.shape[1], "the logits")
    if boxes is not None:
        known = num_units or (logits.shape[1] if logits is not None else None)
        known = num_maps if known is None and indices is None else known
        if known is not None:
            _check_range("boxes", boxes["labels"], known, "the maps", least=-1)


def _check_range(name, values, count, of, least=0):
    """Raise that there is a class which others don't have."""
    if values.size and (values.min() < least or values.max() >= count):
        expected = f"classes from 0 to {count - 1}, those of {of}"
        raise invalid(name, expected, f"{values.min()} to {values.max()}")


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
    if indices.min(initial=0) < 0 or (num_units is not None and indices.max() >= num_units):
        expected = "units from 0 on" if num_units is None else f"units from 0 to {num_units - 1}"
        raise invalid("indices", expected, f"{indices.min()} to {indices.max()}")
    return indices.astype("int32")[:, None] if indices.ndim == 1 else indices.astype("int32")


def _masks(masks, length, maps, num_units):
    del num_units  # How many masks there may be depends on the indices, too.
    masks = _numbers("masks", masks)
    positions = maps.shape[1:-1]
    per_unit = masks.ndim == maps.ndim
    if len(masks) != length or masks.shape[1 : maps.ndim - 1] != positions:
        expected = f"masks {(length, *positions)}, or one per map, of the size of the maps"
        hint = "Bring both to one size; `ke.explain(..., resizing=masks.shape[1:3])` resizes maps."
        raise invalid("masks", expected, f"shape {masks.shape}", hint)
    if masks.ndim not in (maps.ndim - 1, maps.ndim):
        expected = f"one mask per sample, or for each of the {maps.shape[-1]} maps"
        raise invalid("masks", expected, f"shape {masks.shape}")
    masks = masks.astype("uint8") if masks.dtype == bool else masks
    known = (masks == 0) | (masks == 1) | (masks == IGNORED)
    if not known.all():
        other = masks[~known].flat[0]
        hint = "A mask of labels becomes one of a class with `masks == label`."
        raise invalid("masks", f"0, 1 or {IGNORED} (ignored)", f"{other}", hint)
    return (masks if per_unit else masks[..., None]).astype("float32")


def _boxes(boxes, length, maps, num_units):
    del num_units  # Which classes there are depends on the indices, too.
    if maps.ndim != 4:
        raise invalid("maps", "maps of images for boxes", f"shape {maps.shape}")
    return checked_boxes(boxes, maps.shape[1:3], length)


def checked_boxes(boxes, sizes, length=None, num_classes=None):
    """Return boxes as arrays.

    Args:
        boxes: dict of "boxes" `(samples, n, 4)`, `x0, y0, x1, y1` in pixels, and "labels"
            `(samples, n)`, -1 where there is no box.
        sizes: height and width of the images.
        length: number of samples, where it is known.
        num_classes: number of classes, where it is known.

    Returns:
        dict of "boxes", float32, 0 where there is none, and "labels", int32.

    Raises:
        TypeError: if they are no such dict.
        ValueError: if a box is empty or not inside its image, or a shape or label doesn't fit.
    """
    if not isinstance(boxes, dict) or not {"boxes", "labels"} <= {*boxes}:
        expected = 'a dict of "boxes" (samples, n, 4) and "labels" (samples, n)'
        if isinstance(boxes, dict):
            raise invalid("boxes", expected, f"a dict with keys {sorted(map(str, boxes))}")
        raise mistyped("boxes", expected, boxes)
    corners, labels = _numbers("boxes", boxes["boxes"]), _numbers("boxes", boxes["labels"])
    if corners.ndim != 3 or corners.shape[-1] != 4 or length not in (None, len(corners)):
        expected = f"boxes {('samples' if length is None else length, 'n', 4)}"
        raise invalid("boxes", expected, f"shape {corners.shape}")
    if labels.shape != corners.shape[:2]:
        expected = f"labels {corners.shape[:2]}, one per box"
        raise invalid("boxes", expected, f"shape {labels.shape}")
    if (labels != np.floor(labels)).any() or (labels < -1).any():
        wrong = labels[(labels != np.floor(labels)) | (labels < -1)][0]
        raise invalid("boxes", "labels from 0 on, or -1 where there is no box", f"{wrong}")
    if num_classes is not None:
        _check_range("boxes", labels, num_classes, "`num_classes`", least=-1)
    there = labels >= 0
    x0, y0, x1, y1 = np.moveaxis(corners, -1, 0)
    height, width = sizes
    # Written so that a NaN fails.
    fits = (x0 >= 0) & (y0 >= 0) & (x1 <= width) & (y1 <= height) & (x0 < x1) & (y0 < y1)
    if not fits[there].all():
        sample, row = np.argwhere(there & ~fits)[0]
        expected = f"boxes with an area inside images of height {height} and width {width}"
        received = f"{corners[sample, row].tolist()} of sample {sample}"
        raise invalid("boxes", expected, received)
    corners = np.where(there[..., None], corners, 0).astype("float32")
    return {"boxes": corners, "labels": labels.astype("int32")}


def _labels(labels, length, maps, num_units):
    del num_units  # Labels are of the classes that there are maps of.
    labels = _of_positions("labels", labels, length, maps)
    known = (labels == np.floor(labels)) & (labels >= 0) & (labels <= maps.shape[-1])
    known |= labels == IGNORED
    if not known.all():
        expected = f"0 for the background, 1 to {maps.shape[-1]} or {IGNORED} (ignored)"
        raise invalid("labels", expected, f"{labels[~known].flat[0]}")
    return labels.astype("int32")


def _fixations(fixations, length, maps, num_units):
    del num_units  # Fixations are of a sample, whatever is explained.
    fixations = _of_positions("fixations", fixations, length, maps).astype("float32")
    fits = (fixations >= 0) & np.isfinite(fixations)
    if not fits.all():
        raise invalid("fixations", "finite values from 0 on", f"{fixations[~fits].flat[0]}")
    return fixations


def _of_positions(name, values, length, maps):
    """Return values `(samples, *positions, 1)`."""
    values = _numbers(name, values)
    shape = (length, *maps.shape[1:-1])
    if values.shape not in (shape, (*shape, 1)):
        raise invalid(name, f"shape {shape}, of the size of the maps", f"shape {values.shape}")
    return values.reshape((*shape, 1))


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
    "boxes": _boxes,
    "labels": _labels,
    "fixations": _fixations,
    "detections": _per_unit("detections"),
    "logits": _per_unit("logits"),
}
