"""Find where a layer that isn't opened puts the patches of an image, by changing what it takes."""

import math

import keras
import numpy as np
import tensorflow as tf


class Probe:
    """Runs a call with numbers in place of what it takes.

    Args:
        call: `Call` of a Keras layer or operation.
        source: index, among its inputs, of the tensor that is changed.
        tensor: what it returns, tokens `(batch, tokens, channels)`.
    """

    def __init__(self, call, source, tensor):
        self._call, self._source = call, source
        self._output = next(i for i, t in enumerate(call.outputs) if t is tensor)
        random = np.random.default_rng(0)
        self._values, self._others = ([_drawn(t, random) for t in call.inputs] for _ in range(2))
        self._present = self._run(np.zeros(self.sizes, "bool"))

    @property
    def sizes(self):
        """Sizes of what is changed, without batch and channels."""
        return self._values[self._source].shape[1:-1]

    def changed(self, places):
        """Tell which tokens change with some places, both as arrays of booleans."""
        return (self._run(places) != self._present).any((0, -1))

    def _run(self, places):
        values, count = list(self._values), iter(range(len(self._values)))
        other = self._others[self._source]
        values[self._source] = np.where(places[None, ..., None], other, values[self._source])

        def given(leaf):
            if not isinstance(leaf, keras.KerasTensor):
                return leaf
            number = next(count)
            tensor, value = self._call.inputs[number], values[number]
            is_moved = tensor is not leaf and value.ndim > 2
            return tf.cast(np.moveaxis(value, -1, 1) if is_moved else value, leaf.dtype)

        args, kwargs = keras.tree.map_structure(given, (self._call.args, self._call.kwargs))
        with tf.init_scope():
            outputs = keras.tree.flatten(self._call.layer(*args, **kwargs))
            return tf.cast(outputs[self._output], tf.float32).numpy()


def _drawn(tensor, random):
    """Draw values for a tensor."""
    batch, *sizes = tensor.shape
    if None in sizes:
        raise ValueError("the sizes aren't known")
    values = random.uniform(0.1, 1, size=(batch or 1, *sizes))
    is_float = keras.backend.standardize_dtype(tensor.dtype).startswith(("float", "bfloat"))
    return values if is_float else (values * 100).astype("int32")


def blocks(sizes, grid):
    """Number the places of an image by the patch on a grid that they are in, -1 for none."""
    steps = [size // count for size, count in zip(sizes, grid, strict=True)]
    index = np.indices(sizes)
    index = [axis // step for axis, step in zip(index, steps, strict=True)]
    inside = np.all([axis < count for axis, count in zip(index, grid, strict=True)], axis=0)
    clipped = [np.minimum(axis, count - 1) for axis, count in zip(index, grid, strict=True)]
    return np.where(inside, np.ravel_multi_index(clipped, grid), -1)


def start_of_patches(probe, numbers):
    """Find where patches start among tokens.

    Args:
        probe: `Probe`.
        numbers: which patch each place is in that can be changed, -1 for none.

    Returns:
        index of the first patch, or `None` if patches aren't side by side in the order of rows.
    """
    patches = int(numbers.max()) + 1
    changed = probe.changed(numbers >= 0)
    start = int(changed.argmax())
    if changed.sum() != patches or not changed[start : start + patches].all():
        return None
    for bit in range(math.ceil(math.log2(max(2, patches)))):
        moved = probe.changed((numbers >= 0) & ((numbers >> bit) % 2 == 1))
        expected = (np.arange(patches) >> bit) % 2 == 1
        if (expected & ~moved[start : start + patches]).any():
            return None
    return start
