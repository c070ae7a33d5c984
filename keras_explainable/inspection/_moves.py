"""Follow where the values of an image go, by running what only moves them on numbers of places."""

import math

import keras
import numpy as np
import tensorflow as tf

_MOVING_LAYERS = (
    keras.layers.Concatenate,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Reshape,
)
_MOVING_OPERATIONS = (
    *("Concatenate", "ExpandDims", "Flip", "GetItem", "Moveaxis", "Ravel", "Reshape", "Roll"),
    *("Rot90", "Slice", "Split", "Squeeze", "Stack", "Swapaxes", "Take", "Transpose"),
)


class Moves:
    """Where the values in tensors come from in an image.

    Of a tensor that is followed it holds an array of its shape, with one sample or the windows of
    one: 1 plus the number of the place that a value comes from, and 0 for what comes from none.
    """

    def __init__(self):
        self._arrays, self._sizes = {}, {}
        self._made, self._images, self._lost = set(), set(), set()

    def of(self, tensor):
        """Return the array of a tensor and the sizes of its image, or `None`."""
        key = id(tensor)
        return (self._arrays[key], self._sizes[key]) if key in self._arrays else None

    def is_lost(self, tensor):
        """Tell whether a tensor is computed from an image whose places are out of order."""
        return id(tensor) in self._lost

    def set(self, tensor, array, sizes):
        """Note where the values of a tensor come from."""
        self._arrays[id(tensor)], self._sizes[id(tensor)] = array, tuple(sizes)

    def follow(self, call):
        """Follow a call of an opened model."""
        if _moves(call):
            self._move(call)
        else:
            for tensor in call.outputs:
                self._pass(call, tensor)
        for tensor in call.outputs:
            is_known = id(tensor) in self._arrays or id(tensor) in self._images
            if not is_known and any(id(source) in self._lost for source in call.inputs):
                self._lost.add(id(tensor))
        self._made.update(id(tensor) for tensor in call.outputs)

    def _known(self, tensor):
        """Return what is followed of a tensor, an image that wasn't moved yet included."""
        if id(tensor) not in self._arrays and self._is_image(tensor):
            sizes = tuple(tensor.shape[1:-1])
            self.set(tensor, numbered(sizes, tensor.shape[-1]), sizes)
        return self.of(tensor)

    def _is_image(self, tensor):
        new = id(tensor) not in self._made or id(tensor) in self._images
        return new and len(tensor.shape) > 3 and None not in tensor.shape[1:]

    def _move(self, call):
        found = [self._known(tensor) for tensor in call.inputs]
        sizes = {known[1] for known in found if known}
        if len(sizes) != 1:
            return
        batch = next(len(known[0]) for known in found if known)
        (sizes,) = sizes
        # Beside all patches, some of them stand for something else, as a class token made of them.
        whole = {id(t) for t in call.inputs if self.of(t) and in_rows(*self.of(t))}

        def given(leaf):
            if not isinstance(leaf, keras.KerasTensor):
                return leaf
            known = self.of(leaf) if not whole or id(leaf) in whole else None
            return tf.constant(known[0] if known else np.zeros((batch, *leaf.shape[1:]), "int32"))

        try:
            args, kwargs = keras.tree.map_structure(given, (call.args, call.kwargs))
            with tf.init_scope():
                outputs = keras.tree.flatten(call.layer(*args, **kwargs))
        except Exception:  # Whatever it takes besides tensors, it isn't followed.
            return
        for tensor, output in zip(call.outputs, outputs, strict=True):
            array = output.numpy()
            if _is_in_order(array, sizes):
                self._images.add(id(tensor))
            else:
                self.set(tensor, array, sizes)

    def _pass(self, call, tensor):
        """Follow what computes each position from others, that one first."""
        places, rank = tuple(tensor.shape[1:-1]), len(tensor.shape)
        if any(self._is_image(source) and len(source.shape) == rank for source in call.inputs):
            self._images.add(id(tensor))
            return
        known = [(source, self.of(source)) for source in call.inputs if self.of(source)]
        for source, (array, sizes) in known:
            if len(source.shape) != rank or tuple(source.shape[1:-1]) != places:
                continue
            if (array == array[..., :1]).all() and tensor.shape[-1] is not None:
                shape = (*array.shape[:-1], tensor.shape[-1])
                self.set(tensor, np.broadcast_to(array[..., :1], shape), sizes)
            elif not isinstance(call.layer, keras.Layer) and source.shape == tensor.shape:
                self.set(tensor, array, sizes)
            elif in_rows(array, sizes) is not None and tensor.shape[-1] is not None:
                grid, start = in_rows(array, sizes)
                self.set(tensor, rows(grid, start, *tensor.shape[1:]), grid)
            else:
                self._lost.add(id(tensor))
            return
        if any(len(source.shape) > 3 and rank > 2 for source, _ in known):
            self._lost.add(id(tensor))


def _moves(call):
    if call.is_first or not call.inputs:
        return False
    if isinstance(call.layer, keras.Layer):
        return isinstance(call.layer, _MOVING_LAYERS)
    name = type(call.layer).__name__
    return name in _MOVING_OPERATIONS or name == "Pad" and len(call.inputs[0].shape) == 3


def numbered(sizes, channels):
    """Number the places of an image `(1, *sizes, channels)` from 1 on."""
    numbers = np.arange(1, math.prod(sizes) + 1, dtype="int32")
    return np.broadcast_to(numbers.reshape(1, *sizes, 1), (1, *sizes, channels))


def rows(grid, start, length, channels):
    """Number patches among tokens `(1, length, channels)` from 1 on."""
    patches = math.prod(grid)
    numbers = np.zeros(length, "int32")
    numbers[start : start + patches] = np.arange(1, patches + 1)
    return np.broadcast_to(numbers[None, :, None], (1, length, channels))


def _is_in_order(array, sizes):
    """Tell whether what was moved is an image again, cut or with fewer places at most."""
    rank = array.ndim - 2
    if len(array) != 1 or rank != len(sizes) or rank < 2 or 0 in array.shape or array.min() < 1:
        return False
    if (array != array[..., :1]).any():
        return False
    found = np.unravel_index(array[0, ..., 0] - 1, sizes)
    for axis, coordinates in enumerate(found):
        lines = np.moveaxis(coordinates, axis, -1)
        line = lines.reshape(-1, lines.shape[-1])[0]
        if (lines != line).any() or (np.diff(line) <= 0).any():
            return False
    return True


def in_rows(array, sizes):
    """Tell where tokens `(1, length, channels)` are patches in the order of rows of an image.

    Args:
        array: as `Moves` holds it.
        sizes: sizes of its image.

    Returns:
        grid: number of patches along each axis, and
        start: index of the first patch, or `None` if tokens are in another order or incomplete.
    """
    if array.ndim != 3 or len(array) != 1 or not array.any():
        return None
    is_patch = (array[0] > 0).any(-1)
    start, count = int(is_patch.argmax()), int(is_patch.sum())
    patches = array[0, start : start + count]
    if patches.min() < 1:
        return None
    first, last, steps = [], [], []
    for coordinates, size in zip(np.unravel_index(patches - 1, sizes), sizes, strict=True):
        first.append(coordinates.min(-1))
        last.append(coordinates.max(-1))
        values = np.unique(first[-1])
        steps.append(size // len(values))
        if size % len(values) or (values != np.arange(len(values)) * steps[-1]).any():
            return None
    grid = tuple(size // step for size, step in zip(sizes, steps, strict=True))
    if math.prod(grid) != count:
        return None
    wanted = np.unravel_index(np.arange(count), grid)
    for low, high, step, index in zip(first, last, steps, wanted, strict=True):
        if (low != index * step).any() or (high != (index + 1) * step - 1).any():
            return None
    return grid, start
