"""SmoothTaylor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Literal

import tensorflow as tf

from keras_explainable import _showing
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import positive_integer
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Method
from keras_explainable._variation import area_under_total_variation
from keras_explainable.methods._inputs import check_reduction
from keras_explainable.methods._inputs import float_inputs
from keras_explainable.methods._inputs import reduce_channels
from keras_explainable.methods._inputs import with_floats
from keras_explainable.methods._registry import meta_method
from keras_explainable.methods._registry import registration
from keras_explainable.methods.meta._repeating import check_noise
from keras_explainable.methods.meta._repeating import copies_at_once
from keras_explainable.methods.meta._repeating import explained_units
from keras_explainable.methods.meta._repeating import moments
from keras_explainable.methods.meta._repeating import noisy_copies
from keras_explainable.methods.meta._repeating import own_seed
from keras_explainable.methods.meta._repeating import repeated
from keras_explainable.methods.meta._repeating import repeated_options
from keras_explainable.methods.meta._repeating import unfolded

# The search of the authors: its first step, what steps shrink by, and when it ends.
_FIRST_STEP = 0.1
_DECAY = 0.9
_MAX_WORSE = 4
_MAX_MOVES = 20


@meta_method(postprocessing="absolute_normalize")
def smooth_taylor(
    method: Method = "gradients",
    *,
    num_samples: int = 150,
    stddev: float | Literal["adaptive"] = 0.5,
    objective: Callable | None = None,
    root: ArrayLike | None = None,
    seed: int = 0,
    chunk_size: int = 16,
) -> Callable:
    r"""Explain inputs by their first-order Taylor expansions at random roots: SmoothTaylor.

    .. math:: M_u(i, j) = \sum_c \frac{1}{R} \sum_{r=1}^R (x_{ijc} - z_{r,ijc})
              \frac{\partial \ell_u}{\partial x_{ijc}}(z_r), \quad
              z_r = x + \epsilon_r, \quad \epsilon_r \sim \mathcal{N}(0, \sigma^2)

    The same noise is added to all samples, so that a map doesn't depend on what else is in the
    batch. With `stddev="adaptive"`, the scale of each map is searched for in the authors' way:
    from the mean magnitude of the input on, in steps up or down that shrink where the `objective`
    gets worse, until it does so four times in a row, or for 20 steps; the best is kept. Cost: one
    forward pass, and R times that of the method; adaptive, up to 42 times that.

    Args:
        method: method with the option `reduction`, or its name; its maps without reduction stand
            for the gradients. Defaults to "gradients".
        num_samples: R, the number of roots. Defaults to 150.
        stddev: standard deviation of the noise, in the units of the input, or "adaptive". Defaults
            to 0.5, for inputs of a standard deviation near 1.
        objective: function from maps `(batch, *positions, n)` to `(batch, n)` that the adaptive
            search makes small, for each unit by itself. Defaults to the area under the total
            variation curve of the maps (AUTVC).
        root: one root for all, in place of random ones: a number, or an array that broadcasts to
            the inputs. Defaults to `None`.
        seed: integer; the same seed gives the same maps. Defaults to 0.
        chunk_size: number of samples that are explained at a time, as in `smooth`. Defaults to 16.

    Returns:
        a method with the options of the one given. Its `reduction` defaults to "signed_sum".

    Raises:
        ValueError: if there is no such method, it has no option `reduction`, it multiplies with the
            input already, or an option is none of the above.
        TypeError: if `method` is neither a name nor a function.

    References:
        - Goh, Lapuschkin, Weber, Samek, Binder, "Understanding Integrated Gradients with
          SmoothTaylor for Deep Neural Network Attribution", ICPR 2020. arXiv 2004.10484.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> method = ke.methods.smooth_taylor(num_samples=4)
        >>> logits, maps = ke.explain(method, model, np.ones((1, 64, 64, 3)), 7)
        >>> maps.shape
        (1, 64, 64, 1)
    """
    is_adaptive = isinstance(stddev, str) and stddev == "adaptive"
    if isinstance(stddev, str) and not is_adaptive:
        raise invalid("stddev", 'a number from 0 on or "adaptive"', repr(stddev))
    check_noise(num_samples, 0.0 if is_adaptive else stddev, seed)
    positive_integer("chunk_size", chunk_size)
    if is_adaptive and root is not None:
        raise invalid("root", '`None` with `stddev="adaptive"`', repr(root))
    known = registration(method)
    name = _showing.named(known.method)
    if "reduction" not in inspect.signature(known.method).parameters:
        raise invalid("method", "a method with the option `reduction`", repr(name))
    if known.is_gradient is False:
        expected = "a method whose maps are gradients, such as `gradients` and `smooth` of it"
        raise invalid("method", expected, repr(name))
    if objective is not None and not callable(objective):
        raise mistyped("objective", "a function of maps or `None`", objective)
    objective = objective or area_under_total_variation
    seed = own_seed(method, seed)

    def explain(model, inputs, indices=None, *, reduction="signed_sum", **options):
        check_reduction(reduction)
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        explained = float_inputs(inputs)
        ends = tf.nest.flatten(explained)
        logits, indices = explained_units(model, inputs, indices)

        size = copies_at_once(inputs, num_samples, chunk_size)

        def expand(roots, units, count=1):
            own = repeated_options(method, options, count)
            gradients = method(model, roots, units, reduction=None, **own)[1]
            offsets = [
                end - z for end, z in zip(repeated(ends, count), _floats(roots), strict=True)
            ]
            pairs = zip(tf.nest.flatten(gradients), offsets, strict=True)
            return [g * tf.reshape(tf.cast(o, g.dtype), tf.shape(g[..., :1])) for g, o in pairs]

        def average(scale, units):
            def explain_noisy(first, count):
                roots = noisy_copies(inputs, scale, False, seed, first, count)
                return unfolded(expand(roots, repeated(units, count), count), count)

            return moments(explain_noisy, num_samples, size)[0]

        def adapt(column):
            def score(scale):
                maps = [reduce_channels(m, "signed_sum", -2) for m in average(scale, units)]
                return tf.add_n([objective(m) for m in maps])[:, 0]

            units = column[:, None]
            return [m[..., 0] for m in average(_search(score, ends), units)]

        if root is not None:
            roots = [tf.broadcast_to(_root(root, end), tf.shape(end)) for end in ends]
            found = expand(with_floats(inputs, roots), indices)
        elif is_adaptive:
            # The scale that is best for one unit is not for another.
            every = tf.tile(tf.range(tf.shape(logits)[1])[None], (tf.shape(logits)[0], 1))
            columns = tf.transpose(every if indices is None else indices)
            signature = [tf.float32 for _ in ends]
            found = tf.map_fn(adapt, columns, fn_output_signature=signature, parallel_iterations=1)
            found = [tf.transpose(m, (*range(1, m.shape.rank), 0)) for m in found]
        else:
            found = average(float(stddev), indices)
        maps = [reduce_channels(m, reduction, axis=-2) for m in found]
        return logits, tf.nest.pack_sequence_as(explained, maps)

    return explain


def _floats(inputs):
    return [tensor for tensor in tf.nest.flatten(inputs) if tensor.dtype.is_floating]


def _root(root, end):
    """Return the root as a tensor that broadcasts to an input."""
    try:
        tensor = tf.convert_to_tensor(root)
        tf.broadcast_static_shape(tensor.shape, end.shape)
        valid = tensor.dtype.is_floating or tensor.dtype.is_integer
    except (TypeError, ValueError):
        valid = False
    if not valid:
        expected = f"a number, or an array that broadcasts to {tuple(end.shape)}"
        raise invalid("root", expected, repr(root))
    return tf.cast(tensor, end.dtype)


def _search(score, ends):
    """Return the scale of the noise of each sample, `(batch,)`, that makes a score small."""
    magnitudes = [tf.reduce_mean(tf.abs(x), tuple(range(1, x.shape.rank))) for x in ends]
    scale = tf.cast(tf.add_n(magnitudes) / len(ends), tf.float32)
    value = score(scale)
    step = tf.fill(tf.shape(scale), _FIRST_STEP)
    worse_in_a_row = tf.zeros_like(scale, tf.int32)

    def move(i, scale, value, step, count, best, lowest):
        up, down = tf.abs(scale + step), tf.abs(scale - step)
        above = score(up)
        turns = above > value
        below = tf.cond(tf.reduce_any(turns), lambda: score(down), lambda: above)
        moved, reached = tf.where(turns, down, up), tf.where(turns, below, above)
        worse, active = reached > value, count < _MAX_WORSE
        better = active & (reached < lowest)
        best, lowest = tf.where(better, moved, best), tf.where(better, reached, lowest)
        step = tf.where(worse, _DECAY * step, step)
        count = tf.where(active, tf.where(worse, count + 1, 0), count)
        return i + 1, moved, reached, step, count, best, lowest

    state = (0, scale, value, step, worse_in_a_row, scale, value)
    _, _, _, _, _, best, _ = tf.while_loop(
        lambda _i, _scale, _value, _step, count, *_: tf.reduce_any(count < _MAX_WORSE),
        move,
        state,
        maximum_iterations=_MAX_MOVES,
        parallel_iterations=1,
    )
    return best
