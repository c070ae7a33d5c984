"""Where an optimisation starts, and what the model takes beside the input that is optimised."""

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import positive_integer
from keras_explainable.features._parametrizing import MOST_AXES


class Inputs:
    """The inputs of an exposed model: the one that is optimised, and those that are held.

    Args:
        exposed: `inspection.Exposed` model.
        choice: index or name of the input to optimise; `None` for the first with positions.
        size: number of positions along every axis, or a tuple of them; `None` for the model's.
        start: what to start from, in the form that the model takes, or `None`.
        value_range: pair of the lowest and the highest value of an image, or `None`.

    Attributes:
        index: index of the input to optimise among the flat inputs.
        sizes: numbers of positions, a tuple.
        channels: number of channels.
        start: float32 array `(rows, *sizes, channels)`; without one given, the middle of the range.
        held: list of arrays, each `(rows, ...)`, of the other inputs, with channels last.
    """

    def __init__(self, exposed, choice, size, start, value_range=None):
        self._structure = exposed.own_inputs
        self._kinds = keras.tree.flatten(self._structure)
        self._channels_first = exposed.channels_first
        by_name = isinstance(self._structure, dict)
        self._names = sorted(self._structure) if by_name else [kind.name for kind in self._kinds]
        self.index = self._find(choice)
        self.held = self._arrays(start)
        start = self.held.pop(self.index)
        self._check_held()
        shape = tuple(self._kinds[self.index].shape)
        if shape[-1] is None or len(shape) - 2 > MOST_AXES:
            expected = f"an input of known channels and up to {MOST_AXES} axes of positions"
            raise invalid("model", expected, f"one of shape {shape}")
        self.channels = shape[-1]
        self.sizes = self._sizes(shape[1:-1], size, start)
        if start is None:
            middle = np.mean(value_range) if value_range else 0.0
            start = np.full((1, *self.sizes, self.channels), middle)
        elif value_range and not value_range[0] <= start.min() <= start.max() <= value_range[1]:
            expected = f"values in the `value_range` {value_range}"
            raise invalid("start", expected, f"{start.min()} to {start.max()}")
        self.start = start.astype("float32")

    def as_taken(self, images):
        """Return images `(n, *sizes, channels)` in the layout that the model takes."""
        return np.moveaxis(images, -1, 1) if self.index in self._channels_first else images

    def _find(self, choice):
        floats = [i for i, k in enumerate(self._kinds) if keras.backend.is_float_dtype(k.dtype)]
        if not floats:
            dtypes = ", ".join(kind.dtype for kind in self._kinds)
            raise mistyped("model", "a model with an input of floats", dtypes)
        if choice is None:
            return next((i for i in floats if len(self._kinds[i].shape) > 2), floats[0])
        index = self._names.index(choice) if choice in self._names else choice
        if isinstance(index, bool) or index not in range(len(self._kinds)):
            raise invalid("input", f"an index or a name of the inputs {self._names}", repr(choice))
        if index not in floats:
            raise invalid("input", "an input of floats", repr(choice))
        return int(index)

    def _check_held(self):
        others = [name for i, name in enumerate(self._names) if i != self.index]
        missing = [n for n, array in zip(others, self.held, strict=True) if array is None]
        if missing:
            expected = f"arrays for the inputs that are held, {others}"
            hint = "Pass a list or dict, with `None` for the input that is optimised."
            raise invalid("start", expected, f"none for {missing}", hint)

    def _arrays(self, start):
        """Return one array, or `None`, for each input."""
        if start is None:
            return [None] * len(self._kinds)
        if isinstance(start, dict):
            if set(start) != set(self._names):
                expected = f"a dict with keys {self._names}"
                raise invalid("start", expected, f"keys {list(start)}")
            start = [start[name] for name in self._names]
        elif len(self._kinds) == 1:
            start = [start]
        if not isinstance(start, list | tuple) or len(start) != len(self._kinds):
            expected = f"a list or dict of {len(self._kinds)} arrays, one per input {self._names}"
            raise invalid("start", expected, f"an object of type {type(start).__name__}")
        return [None if v is None else self._array(i, v) for i, v in enumerate(start)]

    def _array(self, index, value):
        """Return rows of an input, with channels last."""
        kind, is_first = self._kinds[index], index in self._channels_first
        shape = tuple(kind.shape)
        shape = (shape[0], shape[-1], *shape[1:-1]) if is_first else shape
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise mistyped("start", "arrays of numbers", value)
        rows = array[None] if array.ndim == len(shape) - 1 else array
        if rows.ndim == 0 or len(rows) == 0 or not _fit(rows.shape[1:], shape[1:]):
            raise invalid("start", f"an array of shape {shape}, or one row of it", array.shape)
        if not np.isfinite(rows).all():
            raise invalid("start", "finite values", "NaN or infinity among its values")
        rows = rows.astype(kind.dtype if kind.dtype != "bfloat16" else "float32")
        return np.moveaxis(rows, 1, -1) if is_first else rows

    def _sizes(self, known, size, start):
        """Return the sizes of the images: those of the start, those asked for, or the model's."""
        if size is not None:
            sizes = size if isinstance(size, list | tuple) else [size] * len(known)
            sizes = tuple(positive_integer("size", length) for length in sizes)
            if not _fit(sizes, known):
                raise invalid("size", f"sizes that fit an input of {tuple(known)}", repr(size))
            known = sizes
        if start is not None:
            if not _fit(start.shape[1:-1], known):
                raise invalid("start", f"an array of sizes {tuple(known)}", start.shape[1:-1])
            known = start.shape[1:-1]
        if None in known:
            hint = "The model takes images of any."
            raise invalid("size", "the size of the images", repr(size), hint)
        return tuple(known)


def runner(exposed, index):
    """Return the function that runs a model on images in place of the input that is optimised.

    Args:
        exposed: the `inspection.Exposed` model.
        index: index of that input among the flat inputs.

    Returns:
        function from images, a float32 tensor `(n, *sizes, channels)`, and a list of the other
        inputs, the data of a target after them, to a list of the outputs in float32.
    """
    structure = exposed.own_inputs
    kinds = keras.tree.flatten(structure)

    def run(images, held):
        images = tf.cast(images, kinds[index].dtype)
        flat = [*held[:index], images, *held[index:]]
        inputs = keras.tree.pack_sequence_as(structure, flat[: len(kinds)])
        outputs = exposed(inspection.with_data(inputs, flat[len(kinds) :]), training=False)
        return [tf.cast(tensor, tf.float32) for tensor in keras.tree.flatten(outputs)]

    return run


def _fit(sizes, known):
    """Tell whether sizes are those known, where they are."""
    pairs = zip(known, sizes, strict=False)
    return len(sizes) == len(known) and all(k in (None, size) for k, size in pairs)
