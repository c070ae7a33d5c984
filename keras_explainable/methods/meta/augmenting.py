"""Test-time augmentation: maps of several sizes of an image, and of its mirror image."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import filters
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import one_of
from keras_explainable._typing import Method
from keras_explainable.methods._registry import meta_method
from keras_explainable.methods.meta._repeating import explained_units

REDUCTIONS = ("mean", "sum", "max")


@meta_method()
def tta(
    method: Method,
    *,
    scales: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
    flip: bool = True,
    rectify: bool = True,
    normalize: bool = False,
    reduction: str = "mean",
) -> Callable:
    r"""Explain images at several scales, with their mirror images, and average.

    .. math:: M = \frac{1}{\lvert S \rvert \lvert F \rvert} \sum_{s \in S} \sum_{f \in F}
              \mathrm{up} \, f^{-1} \big( m(f(\mathrm{scale}_s(x))) \big)^+

    with :math:`m` the map of the method, :math:`F` the identity and the reflection of the last axis
    of positions (the width of images, volumes and video, the time of signals), and
    :math:`\mathrm{up}` the resizing to the input. Scales apply to every axis of positions. A model
    whose input has a fixed size can't take another: only the mirror image is explained beside the
    image then, with a warning. Inputs without positions stay as they are, and masks of a target are
    mirrored. The units that "argmax" stands for are those of the inputs as they are, and so are the
    logits. Cost: that of the method for every scale, on images of that size, twice with mirror
    images; one forward pass more for "argmax", or where 1 is not among the scales.

    Args:
        method: name of a method, or a function `(model, inputs, indices, ...) -> (logits, maps)`,
            such as what a meta method returns.
        scales: factors of all sizes, positive numbers. Defaults to (0.5, 1, 1.5, 2).
        flip: explain the mirror images too. Defaults to True.
        rectify: drop the negative part of each map before it is added to others. Defaults to True.
        normalize: divide each map by its largest magnitude before it is added, so that all passes
            count the same. Maps that are divided by the number of positions, as those of `gradcam`
            are, are larger at small scales, and need it; those of `cam` don't. Defaults to False.
        reduction: "mean", "sum" or "max" over the passes. Defaults to "mean".

    Returns:
        a method with the options of the one given, whose maps have the size of the input.

    Raises:
        ValueError: if there is no such method, or an option is none of the above.
        TypeError: if `method` is neither a name nor a function.

    References:
        - Ahn, Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly
          Supervised Semantic Segmentation", CVPR 2018, whose code fuses CAMs in this way. arXiv
          1803.10464.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(
        ...     weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3))
        >>> method = ke.methods.tta("gradcam", scales=(1, 1.5))
        >>> logits, maps = ke.explain(method, model, np.ones((1, 64, 64, 3)), 7)
        >>> maps.shape
        (1, 64, 64, 1)
    """
    scales = _checked(scales)
    one_of("reduction", reduction, REDUCTIONS)

    filtering = [filters.positive] if rectify else []
    filtering += [filters.signed_normalize] if normalize else []

    def explain(model, inputs, indices=None, **options):
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        if not any(_is_image(tensor) for tensor in tf.nest.flatten(inputs)):
            shapes = ", ".join(str(tuple(t.shape)) for t in tf.nest.flatten(inputs))
            raise invalid("inputs", "an input with positions", shapes)
        if getattr(model, "has_fixed_places", False):
            hint = "Give it as a mask, or leave out `tta`."
            raise invalid("output", "a target that can be mirrored", "one at a fixed place", hint)
        possible = _possible(scales, model)
        logits, total, passes = None, None, 0
        if isinstance(indices, str) or 1 not in possible:
            logits, indices = explained_units(model, inputs, indices)
        for scale in possible:
            scaled = tf.nest.map_structure(lambda x, scale=scale: _scale(x, scale), inputs)
            for mirror in (False, True) if flip else (False,):
                seen = _mirror(scaled, model) if mirror else scaled
                found, maps = method(model, seen, indices, **options)
                if logits is None and scale == 1:
                    logits = found
                for apply in filtering:
                    maps = tf.nest.map_structure(apply, maps)
                maps = _restored(maps, inputs, model, mirror)
                add = tf.maximum if reduction == "max" else tf.add
                total = maps if total is None else tf.nest.map_structure(add, total, maps)
                passes += 1
        if reduction == "mean":
            total = tf.nest.map_structure(lambda m: m / passes, total)
        return logits, total

    return explain


def _checked(scales):
    scales = scales if isinstance(scales, list | tuple) else (scales,)
    if not scales or min(number("scales", scale) for scale in scales) <= 0:
        raise invalid("scales", "positive numbers, one at least", repr(scales))
    return tuple(float(scale) for scale in scales)


def _is_image(tensor):
    return tensor.dtype.is_floating and tensor.shape.rank > 2


def _possible(scales, model):
    """Return the scales that a model takes."""
    images = [x for x in model.inputs if keras.backend.is_float_dtype(x.dtype)]
    fixed = {tuple(x.shape[1:-1]) for x in images if len(x.shape) > 2 and any(x.shape[1:-1])}
    if not fixed or set(scales) == {1}:
        return scales
    size = sorted(fixed, key=str)[0]
    free = ", ".join("None" for _ in size)
    warnings.warn(
        f"The input of the model has a fixed size {size}, so it is explained at scale 1, not at "
        f"{scales}. Build the model for inputs of any size, ({free}, channels), for others.",
        stacklevel=2,
    )
    return (1.0,)


def _scale(tensor, scale):
    if scale == 1 or not _is_image(tensor):
        return tensor
    sizes = [_scaled(size, scale) for size in _axes.sizes(tensor)[1:-1]]
    return tf.cast(filters.resize(tensor, sizes), tensor.dtype)


def _scaled(size, scale):
    if isinstance(size, int):
        return max(1, round(size * scale))
    return tf.maximum(1, tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32))


def _mirror(inputs, model):
    """Reflect the last axis of positions, in masks of a target too."""
    flat = tf.nest.flatten(inputs)
    last = _shown_image(flat, model).shape.rank - 2
    masks = getattr(model, "mirrored_indices", ())
    mirrored = [
        tf.reverse(x, [last if i in masks else x.shape.rank - 2])
        if _is_image(x) or i in masks
        else x
        for i, x in enumerate(flat)
    ]
    return tf.nest.pack_sequence_as(inputs, mirrored)


def _shown_image(flat, model):
    """Return the input that maps show, or else the first one with positions."""
    chosen = flat[getattr(model, "input_index", 0)]
    return chosen if _is_image(chosen) else next(filter(_is_image, flat))


def _restored(maps, inputs, model, mirrored):
    """Bring maps to the size of the inputs that they show, the right way round."""
    flat = tf.nest.flatten(inputs)
    if tf.nest.is_nested(maps):
        shown = [tensor for tensor in flat if tensor.dtype.is_floating]
        if len(shown) != len(tf.nest.flatten(maps)):
            hint = "Leave out options that ask for something beside maps."
            raise invalid("method", "a method that returns one map per input", "others", hint)
    else:
        shown = [_shown_image(flat, model)]
    restored = [
        _restored_map(m, x, mirrored) if _is_image(x) else m
        for m, x in zip(tf.nest.flatten(maps), shown, strict=True)
    ]
    return tf.nest.pack_sequence_as(maps, restored)


def _restored_map(maps, shown, mirrored):
    rank = shown.shape.rank
    if mirrored:
        maps = tf.reverse(maps, [rank - 2])
    # Channels that are kept go with the units for a moment.
    sizes, rest = _axes.sizes(maps), _axes.sizes(maps)[rank - 1 :]
    flat = tf.reshape(maps, [*sizes[: rank - 1], -1]) if len(rest) > 1 else maps
    flat = filters.resize(flat, _axes.sizes(shown)[1:-1])
    return tf.reshape(flat, [*_axes.sizes(flat)[:-1], *rest])
