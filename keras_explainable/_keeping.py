"""Keep what was built and compiled for a model, for later calls with the same arguments."""

import collections
import weakref

import numpy as np
import tensorflow as tf

from keras_explainable import inspection


class Kept:
    """Values built for models, which are kept no longer than these.

    Args:
        most: number of values kept for a model; those used last stay.
    """

    def __init__(self, most):
        self.most = most
        self._values = weakref.WeakKeyDictionary()

    def __len__(self):
        """Count the models that something is kept for."""
        return len(self._values)

    def of(self, model):
        """List what is kept for a model."""
        return list(self._values.get(model, {}).values())

    def get(self, model, key, build):
        """Return what was built for a model, or build it.

        Args:
            model: `keras.Model`.
            key: all that the value depends on but for the model, nested tuples and dicts.
            build: function that returns the value, which may hold layers of the model and not
                itself.
        """
        # Layers and variables tell a model that was rebuilt, quantized or extended since.
        state = [id(layer) for layer in model.layers], [id(v) for v in model.variables]
        key = frozen((key, state))
        try:
            values = self._values.setdefault(model, collections.OrderedDict())
            found = key in values
        except TypeError:  # What can't be hashed can't be found again.
            return build()
        if not found:
            values[key] = build()
        values.move_to_end(key)
        if len(values) > self.most:
            values.popitem(last=False)
        return values[key]


def frozen(value):
    """Return a hashable stand-in for nested lists, dicts and arrays, and a target's kind."""
    if isinstance(value, inspection.Target):
        return inspection.Target, frozen(value.kind)
    if isinstance(value, dict):
        return tuple((name, frozen(v)) for name, v in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(frozen(v) for v in value)
    value = value.numpy() if isinstance(value, tf.Tensor) else value
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    # 1, 1.0 and True are equal as keys, and not as arguments.
    return type(value), value
