"""Integrated Gradients."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import unit_indices
from keras_explainable.methods._inputs import at_once
from keras_explainable.methods._inputs import check_reduction
from keras_explainable.methods._inputs import float_inputs
from keras_explainable.methods._inputs import gradients_by_inputs
from keras_explainable.methods._inputs import reduce_channels
from keras_explainable.methods._inputs import with_floats
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods._units import explain_each
from keras_explainable.methods._units import float_logits


def _gausslegendre(num_steps):
    nodes, weights = np.polynomial.legendre.leggauss(num_steps)
    return (1 + nodes) / 2, weights / 2


def _riemann_trapezoid(num_steps):
    weights = np.full(num_steps, 1 / max(num_steps - 1, 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, num_steps), weights


# Functions from a number of steps to nodes and weights on [0, 1]; weights sum to 1.
RULES = {
    "gausslegendre": _gausslegendre,
    "riemann_trapezoid": _riemann_trapezoid,
    "riemann_left": lambda n: (np.arange(n) / n, np.full(n, 1 / n)),
    "riemann_middle": lambda n: ((np.arange(n) + 0.5) / n, np.full(n, 1 / n)),
    "riemann_right": lambda n: ((np.arange(n) + 1) / n, np.full(n, 1 / n)),
}


@explaining_method(
    family="gradient",
    postprocessing="absolute_normalize",
    axioms={
        "class_sensitivity",
        "completeness_of_path",
        "completeness_without_bias",
        "flip_equivariance",
        "linearity",
    },
)
def integrated_gradients(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    baseline: Inputs | Callable = 0.0,
    num_steps: int = 50,
    rule: str = "gausslegendre",
    reduction: str | None = "signed_sum",
    residual: bool = False,
    chunk_size: int = 8,
) -> Tensors:
    r"""Explain units with Integrated Gradients, gradients along the way from a baseline.

    .. math:: M_u(i, j) = \sum_c (x_{ijc} - x'_{ijc}) \sum_{s} w_s
              \frac{\partial \ell_u}{\partial x_{ijc}} \big(x' + t_s (x - x')\big)

    with nodes :math:`t_s` and weights :math:`w_s` of a quadrature on [0, 1]. The sum of a map tends
    to :math:`\ell_u(x) - \ell_u(x')` as the steps grow in number. Cost: one forward pass; per step,
    one forward pass and one backward pass per explained unit.

    Args:
        model: `keras.Model` whose first output is the logits, see `inspection.expose`.
        inputs: float tensor `(batch, *positions, channels)`, or a list or dict of several inputs,
            of which the float ones are explained.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        baseline: where the way starts, in the space of the inputs of the model: a number, an array
            that broadcasts to a sample, or a function from a batch of inputs to an array that
            broadcasts to it.
            For several inputs also a list or dict of these. Defaults to 0, which is black, grey or
            the mean colour according to the preprocessing that comes before the model.
        num_steps: number of steps. Defaults to 50.
        rule: quadrature: "gausslegendre" (default), "riemann_trapezoid" (with the ends in half, for
            2 steps or more), "riemann_right" (the paper's sum), "riemann_left", "riemann_middle".
        reduction: how channels become one value, as in `input_x_gradient`. Defaults to
            "signed_sum".
        residual: return a dict of the "maps" and of the "residual", by which the sum of a map
            misses the difference of the logits, `(batch, n)`. It takes another forward pass.
            Defaults to False.
        chunk_size: number of samples that go through the model at a time, steps of the same sample
            counted apart, but at least one step of the batch. It changes time and memory, not the
            result. Defaults to 8.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw, in the structure of the float inputs. A vector
            input `(batch, features)` keeps its features as positions. Unit: logit.

    Raises:
        ValueError: if an option is none of the above, or the logits are not `(batch, units)`.
        TypeError: if no input is of a float dtype.

    References:
        - Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, equations 1
          and 3. arXiv 1703.01365.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.integrated_gradients(
        ...     model, np.ones((1, 64, 64, 3)), 7, num_steps=4, residual=True)
        >>> maps["maps"].shape, maps["residual"].shape
        ((1, 64, 64, 1), (1, 1))
    """
    check_reduction(reduction)
    positive_integer("chunk_size", chunk_size)
    nodes, weights = quadrature(rule, num_steps)
    num_steps = len(nodes)
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    explained = float_inputs(inputs)
    ends = tf.nest.flatten(explained)
    starts = _baselines(baseline, explained)
    logits = float_logits(tf.nest.flatten(model(inputs, training=False))[0])
    indices = unit_indices(logits, indices)

    paths = [end - start for start, end in zip(starts, ends, strict=True)]
    steps = at_once(ends[0].shape[0], num_steps, chunk_size)
    # The last chunk is filled up with steps that count for nothing.
    missing = -num_steps % steps
    nodes = tf.constant(np.pad(nodes, (0, missing)).reshape(-1, steps), tf.float32)
    weights = tf.constant(np.pad(weights, (0, missing)).reshape(-1, steps), tf.float32)

    def add_chunk(i, totals):
        points = [
            _fold(start + _outer(tf.gather(nodes, i), path))
            for start, path in zip(starts, paths, strict=True)
        ]
        others = tf.nest.map_structure(lambda t: _fold(tf.repeat(t[None], steps, 0)), inputs)
        repeated = None if indices is None else tf.tile(indices, (steps, 1))
        points, differentiate = gradients_by_inputs(model, with_floats(others, points))
        signature = tf.nest.map_structure(lambda _: tf.float32, explained)
        gradients = tf.nest.flatten(explain_each(differentiate, points, repeated, signature))
        parts = [tf.reshape(g, (steps, -1, *_axes.sizes(g)[1:])) for g in gradients]
        sums = [tf.tensordot(tf.gather(weights, i), part, 1) for part in parts]
        return i + 1, [total + part for total, part in zip(totals, sums, strict=True)]

    units = logits if indices is None else indices
    totals = [
        tf.repeat(tf.zeros_like(end, tf.float32)[..., None], tf.shape(units)[1], -1) for end in ends
    ]
    _, means = tf.while_loop(
        lambda i, _: i < nodes.shape[0],
        add_chunk,
        (0, totals),
        parallel_iterations=1,
    )
    full = [tf.cast(path, tf.float32)[..., None] * m for path, m in zip(paths, means, strict=True)]
    maps = [reduce_channels(m, reduction, axis=-2) for m in full]
    maps = tf.nest.pack_sequence_as(explained, maps)
    logits = gather_units(logits, indices)
    if not residual:
        return logits, maps
    starts = [tf.broadcast_to(s, tf.shape(e)) for s, e in zip(starts, ends, strict=True)]
    lowest = float_logits(tf.nest.flatten(model(with_floats(inputs, starts), training=False))[0])
    sums = tf.add_n([tf.reduce_sum(m, axis=range(1, m.shape.rank - 1)) for m in full])
    return logits, {"maps": maps, "residual": sums - (logits - gather_units(lowest, indices))}


def quadrature(rule: str, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and weights of a rule on [0, 1], arrays `(num_steps,)`."""
    one_of("rule", rule, RULES)
    least = 2 if rule == "riemann_trapezoid" else 1
    return RULES[rule](positive_integer("num_steps", num_steps, least))


def _baselines(baseline, explained):
    """Return a flat list of tensors that broadcast to the explained inputs."""
    one_for_all = not callable(baseline)
    if not one_for_all:
        baseline = baseline(explained)
    ends = tf.nest.flatten(explained)
    starts = [baseline] * len(ends)
    if isinstance(baseline, dict | list | tuple) and tf.nest.is_nested(explained):
        tf.nest.assert_same_structure(explained, baseline)
        starts = tf.nest.flatten(baseline)
    return [_baseline(start, end, one_for_all) for start, end in zip(starts, ends, strict=True)]


def _baseline(given, end, one_for_all):
    try:
        start = tf.convert_to_tensor(given)
    except (TypeError, ValueError):
        start = None
    if start is None or not (start.dtype.is_floating or start.dtype.is_integer):
        raise mistyped("baseline", "a number, an array, or a function of inputs", given)
    shape = (1, *end.shape[1:]) if one_for_all else tuple(end.shape)
    if not _broadcasts(start.shape, shape):
        hint = "One per sample is computed by a function of the inputs."
        raise invalid("baseline", f"a shape that broadcasts to {shape}", tuple(start.shape), hint)
    return tf.cast(start, end.dtype)


def _broadcasts(small, large):
    pairs = zip(reversed(tuple(small)), reversed(tuple(large)), strict=False)
    return len(small) <= len(large) and all(a in (1, b) or None in (a, b) for a, b in pairs)


def _outer(values, tensor):
    """Return `(values, *tensor)`, the tensor times each value."""
    return tf.reshape(tf.cast(values, tensor.dtype), (-1, *[1] * tensor.shape.rank)) * tensor


def _fold(tensor):
    """Merge the first two axes."""
    return tf.reshape(tensor, (-1, *_axes.sizes(tensor)[2:]))
