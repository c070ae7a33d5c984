"""Explain again: what metrics call that compare explanations."""

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable.inspection import feeding

_FUNCTION = "a function `(model, x, indices) -> (logits, maps)`, such as `ke.gradcam`"
# How far the same map may be from itself, computed in another batch: a share of its norm.
_TOLERANCE = 1e-2


class Explanations:
    """The user's `explain`, bound to the user's model: what metrics get by that name.

    It runs outside of compiled functions, as each call of `explain` is compiled by itself.

    Args:
        function: `(model, x, indices) -> (logits, maps)`, such as `ke.gradcam`.
        model: `keras.Model`, as trained.
        exposed: `Exposed` model of it, in whose form inputs come.

    Raises:
        TypeError: if `function` can't be called.
    """

    def __init__(self, function, model, exposed):
        if not callable(function):
            raise mistyped("explain", _FUNCTION, function)
        self.function = function
        self.model = model
        self.exposed = exposed

    def __call__(self, inputs, pairs, units=None, model=None):
        """Explain inputs.

        Args:
            inputs: tensors as the exposed model takes them.
            pairs: `Pairs`, what is explained of each sample.
            units: integers `(batch, maps)`, which units are explained. Defaults to those of
                `pairs`.
            model: `keras.Model` to be explained. Defaults to the user's.

        Returns:
            float64 array `(pairs, *positions)`.

        Raises:
            RuntimeError: if it is called within a compiled function.
            ValueError: if `explain` doesn't return finite maps of these units.
        """
        if tf.inside_function():
            raise RuntimeError("A metric that needs `explain` runs outside of `tf.function`.")
        units = np.asarray(pairs.classes if units is None else units)
        num_units = self.exposed.outputs[0].shape[-1]
        # An explanation of all units at once has them in their order.
        takes_all = units.shape[1] == num_units > 1
        x = keras.tree.map_structure(np.asarray, feeding.returned(self.exposed, inputs))
        found = self.function(
            self.model if model is None else model, x, None if takes_all else units
        )
        maps = _maps(found, units.shape)
        if takes_all:
            order = units.reshape(len(units), *[1] * (maps.ndim - 2), -1)
            maps = np.take_along_axis(maps, order, axis=-1)
        rows = np.moveaxis(maps, -1, 1)[np.asarray(pairs.samples), np.asarray(pairs.columns)]
        if not np.isfinite(rows).all():
            raise invalid("explain", "a function that returns finite maps", "NaN or infinity")
        return rows.astype("float64")

    def check(self, inputs, pairs):
        """Refuse maps that are not what `explain` returns for the inputs."""
        found, given = self(inputs, pairs), np.asarray(pairs.maps, "float64")
        expected = "maps as `explain` returns them for `x`, of the same size and postprocessing"
        if found.shape != given.shape:
            received = f"positions {given.shape[1:]}, and {found.shape[1:]} of `explain`"
            raise invalid("maps", expected, received)
        away, length = norms(found - given), norms(given)
        if (away > _TOLERANCE * length + np.finfo("float32").tiny).any():
            share = np.max(
                np.divide(away, length, out=np.full_like(away, np.inf), where=length > 0)
            )
            received = f"maps that differ from those by {share:.3g} of their norm"
            raise invalid("maps", expected, received)


def norms(rows):
    """Return the Euclidean norm `(rows,)` of each of some arrays `(rows, ...)`."""
    rows = np.reshape(np.asarray(rows, "float64"), (len(rows), -1 if len(rows) else 1))
    return np.linalg.norm(rows, axis=1)


def _maps(found, shape):
    """Return the maps `(batch, *positions, units)` that `explain` returned."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise mistyped("explain", _FUNCTION, found)
    maps = found[1]
    if isinstance(maps, dict | list | tuple):
        raise mistyped("explain", "a function that returns one array of maps", maps)
    maps = np.asarray(maps, "float32")
    if maps.ndim < 3 or (len(maps), maps.shape[_axes.CHANNELS]) != tuple(shape):
        expected = f"a function that returns maps {(shape[0], '*positions', shape[1])}"
        raise invalid("explain", expected, f"shape {maps.shape}")
    return maps
