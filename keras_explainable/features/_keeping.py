"""Keep what was built and compiled for a model, for later calls with the same arguments."""

import collections
import weakref

from keras_explainable.engine.explaining import _frozen

# Each may hold a compiled step, and an image needs two.
_MOST = 8
_kept = weakref.WeakKeyDictionary()


def keep(model, key, build):
    """Return what was built for a model, or build it.

    Args:
        model: `keras.Model`; nothing is kept any longer than it.
        key: all that the value depends on but for the model, nested tuples and dicts.
        build: function that returns the value, which may hold layers of the model and not itself.
    """
    # Layers and variables tell a model that was rebuilt, quantized or extended since.
    state = [id(layer) for layer in model.layers], [id(v) for v in model.variables]
    key = _frozen((key, state))
    try:
        values = _kept.setdefault(model, collections.OrderedDict())
        found = key in values
    except TypeError:  # What can't be hashed can't be found again.
        return build()
    if not found:
        values[key] = build()
    values.move_to_end(key)
    if len(values) > _MOST:
        values.popitem(last=False)
    return values[key]
