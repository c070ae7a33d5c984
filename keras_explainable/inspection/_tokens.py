"""Tell where tokens are in an image, and arrange them so."""

import math
import numbers
import warnings
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable._checks import invalid
from keras_explainable.inspection import _heads
from keras_explainable.inspection import _moves
from keras_explainable.inspection import _probing
from keras_explainable.inspection._graphs import is_spatial

# Class, distillation and register tokens that are looked for among operations of TensorFlow.
_MOST_EXTRA = 16
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_PROJECTIONS = (keras.layers.Dense, keras.layers.EinsumDense)


class Place(NamedTuple):
    """Where the patches are among tokens, and in the image.

    Attributes:
        grid: number of patches along each axis of the image.
        start: index of the first patch among the tokens.
        length: number of tokens, those that are no patches included.
    """

    grid: tuple
    start: int
    length: int

    @property
    def stop(self):
        """Index after the last patch."""
        return self.start + math.prod(self.grid)

    @property
    def is_all(self):
        """Whether all tokens are patches."""
        return math.prod(self.grid) == self.length


class Places:
    """Where the tokens in a model are, found by following its calls.

    Args:
        calls: list of `Call`, first ones first.
    """

    def __init__(self, calls):
        self._calls, self._exact, self._carried = calls, {}, {}
        self._moves = _moves.Moves()
        has_tokens = any(len(_sizes(tensor)) == 3 for call in calls for tensor in call.outputs)
        for call in calls:
            if has_tokens and not isinstance(call.layer, tf.Operation):
                self._moves.follow(call)
            for tensor in call.outputs:
                place = self._follow(call, tensor)
                if place is not None:
                    self._exact[_key(tensor)] = place
                    self._number(tensor, place)
                carried = self._carried_to(call) or self._rearranged(call)
                if place is not None or carried:
                    self._carried[_key(tensor)] = place or carried[0]

    def of(self, tensor):
        """Return the `Place` of tokens `(batch, tokens, channels)`, or `None`."""
        return self._exact.get(_key(tensor))

    def is_carried(self, tensor):
        """Tell whether a tensor is computed from tokens."""
        return _key(tensor) in self._carried

    def with_length(self, length):
        """Return the last place of so many tokens, or `None`."""
        found = [place for place in self._exact.values() if place.length == length]
        return found[-1] if found else None

    def read_after(self, scores):
        """List the tokens that are taken out of all of them after the last attention.

        Args:
            scores: list of attention scores, tensors `(batch, ..., tokens, tokens)`.

        Returns:
            sorted list of their indices, empty where none is seen to be taken.
        """
        keys, length = {_key(tensor) for tensor in scores}, scores[-1].shape[-1]
        if length is None:
            return []
        numbers = range(len(self._calls))
        made = [i for i in numbers if any(_key(t) in keys for t in self._calls[i].outputs)]
        moves, found = _moves.Moves(), set()
        for call in self._calls[made[-1] + 1 :] if made else ():
            if isinstance(call.layer, tf.Operation):
                found.update(_sliced(call.layer, length))
                continue
            for tensor in call.inputs:
                known, sizes = moves.of(tensor), _sizes(tensor)
                is_followed = known is not None and known[1] == (length,)
                if len(sizes) == 3 and sizes[1] == length and sizes[2] and not is_followed:
                    moves.set(tensor, _moves.rows((length,), 0, *sizes[1:]), (length,))
            moves.follow(call)
            if any(len(_sizes(tensor)) == 3 for tensor in call.inputs):
                arrays = [
                    moves.of(t)[0] for t in call.outputs if t.shape[1:-1] == () and moves.of(t)
                ]
                found.update(int(i) - 1 for array in arrays for i in np.unique(array) if i)
        return sorted(found)

    def _number(self, tensor, place):
        """Let patches that were found in another way be followed through what moves them."""
        if self._moves.of(tensor) is None and None not in _sizes(tensor)[1:]:
            rows = _moves.rows(place.grid, place.start, *_sizes(tensor)[1:])
            self._moves.set(tensor, rows, place.grid)

    def _carried_to(self, call):
        return [self._carried[_key(t)] for t in call.inputs if _key(t) in self._carried]

    def _rearranged(self, call):
        """List the grid of an image that a call gives another shape, as that of windows."""
        sizes = _sizes(call.inputs[0])[1:-1] if call.inputs else ()
        if len(sizes) < 2 or None in sizes or not _heads.keeps_values(call.layer):
            return []
        is_other = any(len(_sizes(tensor)) != len(sizes) + 2 for tensor in call.outputs)
        return [Place(sizes, 0, math.prod(sizes))] if is_other else []

    def _follow(self, call, tensor):
        if len(_sizes(tensor)) != 3:
            return None
        length = _sizes(tensor)[1]
        if length is None:
            return self._of_unknown_length(call, tensor)
        known = self._moves.of(tensor)
        if known or self._moves.is_lost(tensor):
            grid, start = (known and _moves.in_rows(*known)) or ((1,), 0)
            return Place(grid, start, length) if min(grid) > 1 else None
        joined = self._joined(call, length)
        if joined is not None:
            return joined
        carried = self._carried_to(call)
        for place in carried:
            if place.length == length:
                return place
        if isinstance(call.layer, tf.Operation):
            return self._by_sizes(call, length, carried)
        for number, source in enumerate(call.inputs):
            place = self._exact.get(_key(source))
            if place is not None:
                return _changed(call, number, tensor, place)
        if carried:
            return None
        images = [i for i, t in enumerate(call.inputs) if len(_sizes(t)) > 3]
        found = (_embedded(call, number, tensor) for number in images)
        return next((place for place in found if place), None)

    def _by_sizes(self, call, length, carried):
        """Follow an operation of TensorFlow, of which sizes tell where patches are."""
        grids = [_sizes(t)[1:-1] for t in call.inputs if len(_sizes(t)) > 3]
        for grid in grids:
            if None not in grid and min(grid) > 1 and math.prod(grid) == length:
                return Place(grid, 0, length)
        exact = [self._exact[_key(t)] for t in call.inputs if _key(t) in self._exact]
        if not carried or not exact:
            return None
        place, more = exact[0], length - exact[0].length
        if 0 < more <= _MOST_EXTRA:
            return Place(place.grid, place.start + more, length)
        if length >= math.prod(place.grid):
            return Place(place.grid, max(0, place.start + more), length)
        merged = _merged(place.grid)
        return Place(merged, 0, length) if merged and math.prod(merged) == length else None

    def _of_unknown_length(self, call, tensor):
        """Follow what keeps tokens, or arranges an image as tokens, whose number isn't stated."""
        for source in call.inputs:
            sizes = _sizes(source)
            grid, same = sizes[1:-1], sizes[-1:] == _sizes(tensor)[-1:]
            kept = same and _heads.keeps_values(call.layer)
            if _key(source) in self._exact and (kept or sizes[1] is None):
                return self._exact[_key(source)]
            if len(grid) > 1 and None not in grid and kept:
                return Place(grid, 0, math.prod(grid)) if min(grid) > 1 else None
        return None

    def _joined(self, call, length):
        """Follow a concatenation along the tokens."""
        if _concatenated_axis(call.layer) not in (1, -2):
            return None
        before = 0
        for tensor in call.inputs:
            if _key(tensor) in self._exact:
                place = self._exact[_key(tensor)]
                return Place(place.grid, before + place.start, length)
            sizes = _sizes(tensor)
            if len(sizes) != 3 or sizes[1] is None:
                return None
            before += sizes[1]
        return None


def _concatenated_axis(layer):
    """Return the axis along which a layer, or an operation of TensorFlow, concatenates."""
    if isinstance(layer, tf.Operation):
        return tf.get_static_value(layer.inputs[-1]) if layer.type == "ConcatV2" else None
    return getattr(layer, "axis", -1) if type(layer).__name__ == "Concatenate" else None


def _sliced(operation, length):
    """List the token that an operation of TensorFlow takes out of so many."""
    if operation.type != "StridedSlice" or operation.outputs[0].shape.rank != 2:
        return []
    begin = tf.get_static_value(operation.inputs[1])
    is_one = operation.get_attr("shrink_axis_mask") == 2 and not operation.get_attr("ellipsis_mask")
    if begin is None or not is_one or _sizes(operation.inputs[0])[1:2] != (length,):
        return []
    return [int(begin[1]) % length]


def _key(tensor):
    """Tell a tensor from others of its model."""
    return id(tensor) if isinstance(tensor, keras.KerasTensor) else tensor.name


def _sizes(tensor):
    """Return the shape of a tensor, empty where not even its rank is known."""
    return () if getattr(tensor.shape, "rank", 0) is None else tuple(tensor.shape)


def _merged(grid):
    """Return the grid of patches merged by two along each axis, or `None`."""
    even = all(size % 2 == 0 for size in grid)
    return tuple(size // 2 for size in grid) if even else None


def _changed(call, number, tensor, place):
    """Follow a layer that takes tokens and returns more of them, or fewer."""
    inside = slice(place.start, place.stop)
    tokens = np.full(place.length, -1)
    length = _sizes(tensor)[1]
    try:
        probe = _probing.Probe(call, number, tensor)
        tokens[inside] = 0
        count = probe.changed(tokens == 0).sum()
        for grid in filter(None, (place.grid, _merged(place.grid))):
            if math.prod(grid) == count:
                tokens[inside] = _probing.blocks(place.grid, grid).ravel()
                start = _probing.start_of_patches(probe, tokens)
                return None if start is None else Place(grid, start, length)
    except Exception:  # Whatever it takes, where its tokens are isn't known.
        return None
    return None


def _embedded(call, number, tensor):
    """Follow a layer that isn't opened and makes tokens of an image."""
    try:
        probe = _probing.Probe(call, number, tensor)
        count = probe.changed(np.ones(probe.sizes, "bool")).sum()
        if _is_of_keras(call.layer) and count != math.prod(probe.sizes):
            return None
        grid = _embedded_grid(call, probe, count)
        if grid is None or min(grid) < 2:
            return None
        start = _probing.start_of_patches(probe, _probing.blocks(probe.sizes, grid))
    except Exception:  # Whatever it takes, where its tokens are isn't known.
        return None
    return None if start is None else Place(grid, start, _sizes(tensor)[1])


def _is_of_keras(layer):
    """Tell whether it is known of a layer or an operation that it embeds no patches."""
    is_own = type(layer).__module__.split(".")[0] == "keras"
    return is_own and not isinstance(layer, keras.layers.Lambda)


def _embedded_grid(call, probe, patches):
    """Return the grid of so many patches that a layer makes of an image, or `None`."""
    sizes = probe.sizes
    if patches == math.prod(sizes):
        return sizes
    for layer in _compat.sublayers(call.layer):
        if isinstance(layer, _CONVOLUTIONS) and tuple(layer.strides) == tuple(layer.kernel_size):
            grid = tuple(size // step for size, step in zip(sizes, layer.strides, strict=True))
            return grid if math.prod(grid) == patches else None
    # So many patches are along an edge of the image where none reaches into another.
    edges = [probe.changed(index == 0).sum() for index in np.indices(sizes)]
    grid = tuple(int(patches // max(edge, 1)) for edge in edges)
    if math.prod(grid) == patches:
        return grid
    side = round((math.prod(sizes) / max(patches, 1)) ** (1 / len(sizes)))
    grid = tuple(size // max(side, 1) for size in sizes)
    is_whole = all(size % max(side, 1) == 0 for size in sizes)
    return grid if is_whole and math.prod(grid) == patches else None


class Arrangement(NamedTuple):
    """How tokens are arranged as an image, and put back.

    Attributes:
        arrange: function from tokens `(batch, tokens, channels)` to `(batch, *grid, channels)`.
        restore: function from tokens and what they are arranged to, to tokens with that inside.
        is_all: whether every token is a patch.
        others: indices of the tokens that are no patches.
    """

    arrange: object
    restore: object
    is_all: bool
    others: tuple


def check_reshape(reshape):
    """Refuse what is no way to arrange tokens."""
    if reshape is None or reshape is False or callable(reshape):
        return
    sizes = reshape if isinstance(reshape, list | tuple) else ()
    whole = all(isinstance(s, numbers.Integral) and not isinstance(s, bool) for s in sizes)
    if not sizes or not whole or min(sizes) < 1:
        expected = "`None`, `False`, a tuple of positive integers or a function of tokens"
        raise invalid("reshape", expected, repr(reshape))


def arrangement(shape, place, reshape, dimensions):
    """Choose how tokens are arranged.

    Args:
        shape: shape of the tokens.
        place: their `Place`, or `None` where it isn't known.
        reshape: as in `inspection.expose`, and not `False`.
        dimensions: number of spatial axes of the input that they show.

    Returns:
        `Arrangement`.
    """
    length = shape[1]
    if callable(reshape):
        return _by_function(reshape, shape, dimensions)
    if reshape is not None:
        grid = tuple(int(size) for size in reshape)
        extra = 0 if length is None else length - math.prod(grid)
        if len(grid) != dimensions or extra < 0:
            expected = f"{dimensions} sizes whose product is at most {length}, the number of tokens"
            raise invalid("reshape", expected, reshape)
        if place is not None and math.prod(grid) != math.prod(place.grid):
            expected = f"sizes of as many patches as there are, which are on a grid {place.grid}"
            raise invalid("reshape", expected, reshape)
        start = extra if place is None else place.start
        place = Place(grid, start, length or math.prod(grid))
    if place is None or len(place.grid) != dimensions:
        raise ValueError(
            f"It isn't known where the tokens {tuple(shape)} of the layer are in the input. Pass "
            "`reshape=(height, width)` where the patches are the last of them, a function from "
            "tokens to `(batch, height, width, channels)` otherwise, `reshape=False` to leave "
            "them as they are, as the steps of a sequence, or `layer=` to choose activations that "
            f"have the {dimensions} axes of the input."
        )
    others = (*range(place.start), *range(place.stop, place.length))
    return Arrangement(_Arrange(place), _Restore(place), place.is_all, others)


def _by_function(function, shape, dimensions):
    if shape[1] is None or shape[2] is None:
        raise invalid("reshape", "tokens of a known number", f"tokens {tuple(shape)}")
    kind = tf.TensorSpec((None, *shape[1:]))
    traced = tf.function(function, autograph=False).get_concrete_function(kind)
    returned = traced.structured_outputs.shape
    if returned.rank != dimensions + 2:
        expected = f"a function whose value has {dimensions} axes between batch and channels"
        raise invalid("reshape", expected, f"one that returns {returned}")
    tokens = np.random.default_rng(0).normal(size=shape[1:]).astype("float32")
    try:
        grid = traced(tf.constant(tokens[None])).numpy()
        used = _used(tokens, grid.reshape(-1, grid.shape[-1]))
    except tf.errors.InvalidArgumentError:
        # Windows, of which it takes several, and which have no tokens besides patches.
        used = np.ones(shape[1], "bool")
    others = tuple(int(i) for i in np.flatnonzero(~used))
    return Arrangement(function, _RestoreBy(function), bool(used.all()), others)


def _used(tokens, patches):
    """Tell which tokens there are among patches, or refuse what is no selection of tokens."""
    order = np.argsort(tokens[:, 0])
    found = np.searchsorted(tokens[order, 0], patches[:, 0]).clip(max=len(tokens) - 1)
    found = order[found]
    is_token = patches.shape[1] == tokens.shape[1] and (tokens[found] == patches).all()
    if not is_token or len(set(found)) < len(found):
        expected = "a function that selects and permutes tokens, each at most once"
        raise invalid("reshape", expected, "one that changes or repeats their values")
    used = np.zeros(len(tokens), "bool")
    used[found] = True
    return used


class _Arrange:
    """Takes the patches out of tokens, and arranges them."""

    def __init__(self, place):
        self._place = place

    def __call__(self, tokens):
        place = self._place
        patches = tokens if place.is_all else tokens[:, place.start : place.stop]
        return tf.reshape(patches, (-1, *place.grid, tokens.shape[-1]))


class _Restore:
    """Puts patches back among tokens."""

    def __init__(self, place):
        self._place = place

    def __call__(self, tokens, patches):
        place, channels = self._place, patches.shape[-1]
        patches = tf.reshape(patches, (-1, math.prod(place.grid), channels))
        if place.is_all:
            return patches
        parts = [tokens[:, : place.start], patches, tokens[:, place.stop :]]
        return tf.concat(parts, axis=1)


class _RestoreBy:
    """Puts back what a function that selects and permutes tokens made of them."""

    def __init__(self, function):
        self._function = function

    def __call__(self, tokens, patches):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tokens)
            present = self._function(tokens)
        # The transpose of a selection is its inverse where it selects.
        return tokens + tape.gradient(present, tokens, patches - present)


class TokensToGrid(keras.layers.Layer):
    """Arranges tokens."""

    def __init__(self, arrange, dtype):
        super().__init__(dtype=dtype, autocast=False)
        self._arrange = arrange

    def call(self, tokens):
        """Return tokens as `(batch, *grid, channels)`."""
        return self._arrange(tokens)


class GridToTokens(keras.layers.Layer):
    """Puts arranged tokens back."""

    def __init__(self, restore, dtype):
        super().__init__(dtype=dtype, autocast=False)
        self._restore = restore

    def call(self, grid, tokens=None):
        """Return tokens with those of the grid among them."""
        return self._restore(tokens, grid)


def splice(inputs, logits, endpoints, arrangements):
    """Let logits be computed from tokens that were arranged and put back.

    Args:
        inputs: symbolic inputs.
        logits: symbolic tensor.
        endpoints: list of symbolic tensors.
        arrangements: list of their `Arrangement`s, or `None` for those that stay as they are.

    Returns:
        logits: symbolic tensor, which depends on the endpoints.
        endpoints: list of symbolic tensors.
    """
    chosen = {id(e): a for e, a in zip(endpoints, arrangements, strict=True) if a is not None}
    if not chosen:
        return logits, endpoints
    given = {id(e): None for e in endpoints}

    def expose(old, new):
        if id(old) not in given or given[id(old)] is not None:
            return new
        given[id(old)] = new
        if id(old) not in chosen:
            return new
        arrange, restore, is_all, _ = chosen[id(old)]
        by_function = not isinstance(restore, _Restore)
        grid = given[id(old)] = TokensToGrid(arrange, new.dtype)(new)
        layer = GridToTokens(restore, new.dtype)
        return layer(grid) if is_all and not by_function else layer(grid, new)

    def call(operation, *args, **kwargs):
        return keras.tree.map_structure(expose, operation.output, operation(*args, **kwargs))

    flat = keras.tree.flatten(inputs)
    for tensor in flat:
        expose(tensor, tensor)
    logits, *_ = _compat.run_graph(keras.Model(flat, [logits, *endpoints]), flat, call)
    return logits, [given[id(endpoint)] for endpoint in endpoints]


def is_pooled(calls, endpoint):
    """Tell whether all positions of an endpoint count alike in what comes next."""
    return any(
        any(tensor is endpoint for tensor in call.inputs)
        and not _heads.is_spatial(call.outputs[0])
        and _heads.pools_everything(call)
        for call in calls
    )


def hides_attention(calls):
    """Tell whether there are tokens of an image, and no attention among them is seen."""
    places = Places(calls)
    has_tokens = any(places.of(tensor) for call in calls for tensor in call.outputs)
    return has_tokens and attended(calls, places) is None


def not_only_read(calls, endpoint, places=None):
    """Return what enters the last attention in place of tokens of which few are read thereafter.

    Args:
        calls: list of `Call`, first ones first.
        endpoint: tensor, what enters the pooling.
        places: `Places` of the tokens. Defaults to what the calls tell.

    Returns:
        tensor.
    """
    places = places or Places(calls)
    if places.of(endpoint) is None or is_pooled(calls, endpoint):
        return endpoint
    found = attended(calls, places)
    if found is None:
        warnings.warn(
            "The logits may be read from a single token, by which no other token counts, and the "
            "attention before it can't be reached. Pass `layer=` to choose what enters it.",
            stacklevel=5,
        )
    return endpoint if found is None else found


def of_input_rank(calls, endpoint, places, rank):
    """Return the last activation with the axes of the input in place of one that has lost some.

    That is what enters a pooling of each frame of a video, or a layer that returns the last frame.

    Args:
        calls: list of `Call`, those that the endpoint is computed by, first ones first.
        endpoint: tensor.
        places: `Places` of the tokens.
        rank: number of axes of the input that it shows.

    Returns:
        tensor; the endpoint where it has all axes, is of tokens, or there is no such activation.
    """
    if len(endpoint.shape) >= rank or places.of(endpoint) is not None:
        return endpoint
    found, is_learned = None, False
    for call in calls:
        is_learned = is_learned or _heads.makes_scores(call.layer)
        for tensor in call.outputs if is_learned else ():
            found = tensor if len(tensor.shape) == rank and is_spatial(tensor) else found
    takes = [call for call in calls if any(tensor is found for tensor in call.inputs)]
    loses = any(_loses_axes(call, found) for call in takes if found is not None)
    return found if loses else endpoint


def _loses_axes(call, source):
    """Tell whether a call pools or drops axes of what it takes, and makes no tokens of it."""
    sizes = [_sizes(tensor) for tensor in call.outputs]
    if not _is_of_keras(call.layer) or any(len(size) >= len(source.shape) for size in sizes):
        return False
    if not _heads.keeps_values(call.layer):
        return True
    # Steps of a sequence that hold all of a frame, and no channels at every position.
    channels, steps = source.shape[-1], source.shape[1:-1]
    return all(len(s) < 3 or (s[-1] != channels and s[1] in steps) for s in sizes)


def attended(calls, places):
    """Find the tokens that enter the last attention, normalized where they are beforehand.

    Args:
        calls: list of `Call`, first ones first.
        places: `Places` of the calls.

    Returns:
        tensor, or `None` if there is no attention.
    """
    for number in reversed(range(len(calls))):
        call = calls[number]
        if _compat.holds_attention(call.layer):
            found = next((t for t in call.inputs if places.of(t)), None)
        elif is_attention_softmax(call, places):
            found = _common_source(calls[: number + 1], places)
        else:
            continue
        if found is not None:
            return found
    return None


def is_attention_softmax(call, places):
    """Tell whether a call is the softmax of attention scores of tokens by tokens."""
    name = getattr(getattr(call.layer, "activation", None), "__name__", type(call.layer).__name__)
    if name.lower() != "softmax" or not call.outputs:
        return False
    shape = tuple(call.outputs[0].shape)
    is_square = len(shape) > 3 and shape[-1] is not None and shape[-1] == shape[-2] > 1
    return is_square and places.is_carried(call.outputs[0])


def _common_source(calls, places):
    """Find the tokens that queries and keys are both computed from."""
    needed = {id(calls[-1].outputs[0])}
    for number in reversed(range(len(calls))):
        call = calls[number]
        made = {id(tensor) for tensor in call.outputs}
        alone = next((t for t in call.outputs if needed == {id(t)}), None)
        linear = isinstance(call.layer, _PROJECTIONS) or _heads.keeps_values(call.layer)
        if alone is not None and places.of(alone) and not linear:
            return alone
        if needed & made:
            needed = needed - made | {id(tensor) for tensor in call.inputs}
    return None
