"""Replace the weights of a model with random ones, and put them back."""

import contextlib
from typing import NamedTuple

import keras
import numpy as np

from keras_explainable import _compat
from keras_explainable import inspection
from keras_explainable._checks import invalid

# What is kept of the data and not learnt by training.
_NOT_LEARNT = (keras.layers.Normalization,)


class Slot(NamedTuple):
    """A variable to be replaced.

    Attributes:
        variable: `keras.Variable` of floats.
        layers: layers that may have an initializer for it, the innermost first.
        number: its place among those of the model, which its new values depend on.
    """

    variable: keras.Variable
    layers: list
    number: int = 0


def blocks(model):
    """Group the layers that have weights, from the output to the input.

    Args:
        model: `keras.Model`, built.

    Returns:
        list of lists of layers, each with the batch normalizations that follow a layer before it.
        Layers of nested models are listed in their place.
    """
    found, block = [], []
    for layer in reversed(_weighted(model)):
        block.append(layer)
        if not isinstance(layer, keras.layers.BatchNormalization):
            found.append(block)
            block = []
    return [*found, block] if block else found


def stages(model, num_stages=None):
    """Return the variables that each stage randomizes, from the output to the input.

    Args:
        model: `keras.Model`, built.
        num_stages: number of stages, into which `blocks` are grouped evenly. Defaults to one for
            each block.

    Returns:
        list of lists of `Slot`.

    Raises:
        ValueError: if the model has no weights, or fewer blocks than stages.
    """
    groups, seen = [], set()
    for owners in (*blocks(model), [model]):
        found = {id(slot.variable): slot for owner in owners for slot in _slots(owner)}
        # A layer inside two others, or inside one and called by itself, is randomized once.
        groups.append([slot for key, slot in found.items() if key not in seen])
        seen |= set(found)
    # What no layer holds, but the model itself, goes with the layers nearest to the input.
    *groups, rest = groups
    groups = [group for group in groups if group] or [[]]
    groups[-1] = [*groups[-1], *rest]
    count = len(groups) if num_stages is None else num_stages
    if not seen or count > len(groups):
        expected = f"a number up to {len(groups) if seen else 0}, that of layers with weights"
        raise invalid("num_stages", expected, num_stages)
    numbers = iter(range(len(seen)))
    groups = [[slot._replace(number=next(numbers)) for slot in group] for group in groups]
    parts = np.array_split(np.arange(len(groups)), count)
    return [[slot for i in part for slot in groups[i]] for part in parts]


def randomize(stage, seed):
    """Give variables new values, in place.

    A variable gets what the initializer of its layer draws; where the layer tells none, its own
    values in another order.

    Args:
        stage: one of `stages`.
        seed: integer from 0 on. What a variable gets depends on it, and on its place in the model.
    """
    for variable, layers, number in stage:
        state = np.random.SeedSequence([seed, number])
        initializer = _initializer(variable, layers, int(state.generate_state(1)[0] >> 1))
        if initializer is not None:
            variable.assign(initializer(tuple(variable.shape), dtype=variable.dtype))
            continue
        values = keras.ops.convert_to_numpy(variable)
        shuffled = np.random.default_rng(state).permutation(values.reshape(-1))
        variable.assign(shuffled.reshape(values.shape))


@contextlib.contextmanager
def kept(stage):
    """Put the values of variables back at the end, whatever happens before.

    Args:
        stage: list of `Slot`.
    """
    # A copy: the array may be the memory of the variable.
    values = [(slot.variable, keras.ops.convert_to_numpy(slot.variable).copy()) for slot in stage]
    try:
        yield
    finally:
        for variable, value in values:
            variable.assign(value)


def _weighted(model):
    """List the layers with weights, first ones first."""

    def has_weights(layer):
        return bool(layer.weights) and not isinstance(layer, keras.Model)

    try:
        called = inspection.find_layers(model, has_weights).values()
    except ValueError:  # What a subclassed model is called with isn't known.
        called = [layer for layer in _compat.sublayers(model) if has_weights(layer)]
    return list({id(layer): layer for layer in called}.values())


def _slots(layer):
    """List the variables of floats in a layer that training may have changed."""
    parts = [layer, *_compat.sublayers(layer)]
    left_out = {id(v) for part in parts if isinstance(part, _NOT_LEARNT) for v in part.weights}
    found = {}
    for part in parts:
        for variable in part.weights:
            found.setdefault(id(variable), Slot(variable, [])).layers.insert(0, part)
    return [
        slot
        for key, slot in found.items()
        if key not in left_out and keras.backend.is_float_dtype(slot.variable.dtype)
    ]


def _initializer(variable, layers, seed):
    """Return the initializer of a variable, with another seed, or `None` where there is none."""
    name = variable.name
    names = [f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer"]
    names += ["depthwise_initializer"] if name == "kernel" else []
    for layer in layers:
        for attribute in names:
            found = getattr(layer, attribute, None)
            if isinstance(found, keras.initializers.Initializer):
                config = found.get_config()
                config |= {"seed": seed} if "seed" in config else {}
                return type(found).from_config(config)
    return None
