"""Integrated Gradients."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import unit_indices
from keras_explainable.methods._inputs import check_reduction
from keras_explainable.methods._inputs import even_chunks
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
    expose=inspection.expose_affine,
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
            counted apart. It changes time and memory, not the result. Defaults to 8.

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
    chunk_size = positive_integer("chunk_size", chunk_size)
    nodes, weights = (tf.constant(v, tf.float32) for v in quadrature(rule, num_steps))
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    explained = float_inputs(inputs)
    ends = tf.nest.flatten(explained)
    starts = _baselines(baseline, explained)
    logits = float_logits(tf.nest.flatten(model(inputs, training=False))[0])
    indices = unit_indices(logits, indices)
    chosen = logits if indices is None else indices
    totals = [
        tf.repeat(tf.zeros_like(end, tf.float32)[..., None], tf.shape(chosen)[1], -1)
        for end in ends
    ]
    means = _add_gradients(totals, model, inputs, indices, starts, nodes, weights, chunk_size)
    paths = [tf.cast(end - start, tf.float32) for start, end in zip(starts, ends, strict=True)]
    full = [path[..., None] * mean for path, mean in zip(paths, means, strict=True)]
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
    ones = [1] * (end.shape.rank - start.shape.rank)
    return tf.reshape(tf.cast(start, end.dtype), (*ones, *_axes.sizes(start)))


def _broadcasts(small, large):
    pairs = zip(reversed(tuple(small)), reversed(tuple(large)), strict=False)
    return len(small) <= len(large) and all(a in (1, b) or None in (a, b) for a, b in pairs)


def _add_gradients(totals, model, inputs, indices, starts, nodes, weights, chunk_size):
    """Add the weighted gradients along the way to totals.

    What goes through the model at a time are pairs of a sample and a step of it, all steps of a
    sample one after the other.

    Args:
        totals: list of a float32 tensor `(batch, *positions, channels, n)` for each float input.
        model: as in `integrated_gradients`.
        inputs: as in `integrated_gradients`.
        indices: integer `(batch, n)`, or `None`.
        starts: list of tensors of the rank of the float inputs, of the batch or of one sample.
        nodes: float32 `(steps,)`.
        weights: float32 `(steps,)`.
        chunk_size: number of pairs that go through the model at a time.

    Returns:
        list of the sums.
    """
    batch, num_steps = _axes.sizes(totals[0])[0], nodes.shape[0]
    if not tf.is_tensor(batch):
        chunk_size = even_chunks(batch * num_steps, chunk_size)
    num_chunks = -(-batch * num_steps // chunk_size)
    most_samples = (chunk_size - 2) // num_steps + 2  # Of a chunk.
    # Gradients pass through affine layers alike at every step: their sum does.
    has_front = getattr(model, "front", None) is not None

    def add_chunk(i, totals):
        pairs = i * chunk_size + tf.range(chunk_size)
        samples, steps = pairs // num_steps, pairs % num_steps
        # The last chunk is filled up with pairs that count for nothing.
        factors = tf.where(samples < batch, tf.gather(weights, steps), 0.0)
        samples = tf.minimum(samples, batch - 1)
        others, points = _taken(inputs, samples), []
        for start, end in zip(starts, tf.nest.flatten(float_inputs(others)), strict=True):
            start = start if start.shape[0] == 1 else tf.gather(start, samples)
            points.append(start + _times(tf.gather(nodes, steps), end - start))
        scores, differentiate = gradients_by_inputs(model, with_floats(others, points), has_front)
        rows = tf.minimum(samples[0] + tf.range(most_samples), batch - 1)
        pull_back = _through(model.front, _taken(inputs, rows)) if has_front else list

        def explain(cotangent):
            gradients = tf.nest.flatten(differentiate(cotangent))
            return pull_back(
                _sums(factors, g, samples - samples[0], most_samples) for g in gradients
            )

        chosen = None if indices is None else tf.gather(indices, samples)
        sums = explain_each(explain, scores, chosen, [tf.float32] * len(points))
        return i + 1, [
            tf.tensor_scatter_nd_add(total, rows[:, None], part)
            for total, part in zip(totals, sums, strict=True)
        ]

    return tf.while_loop(
        lambda i, _: i < num_chunks, add_chunk, (0, totals), parallel_iterations=1
    )[1]


def _through(front, inputs):
    """Return the function that passes gradients through the affine layers that a model starts with.

    Args:
        front: model of these layers.
        inputs: what it takes.

    Returns:
        function from an iterable of one float32 tensor, gradients by what the layers return, to a
        list of the gradients by the float inputs.
    """
    explained = tf.nest.flatten(float_inputs(inputs))
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(explained)
        outputs = front(tf.nest.flatten(inputs), training=False)

    def pull_back(gradients):
        [gradients] = gradients
        pulled = tape.gradient(
            outputs,
            explained,
            tf.cast(gradients, outputs.dtype),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [tf.cast(gradient, tf.float32) for gradient in pulled]

    return pull_back


def _taken(tensors, places):
    """Take samples out of all tensors of a structure."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, places), tensors)


def _sums(factors, tensor, places, number):
    """Sum the samples of a tensor, each times a factor, that have the same place."""
    sums = tf.tensordot(factors * tf.one_hot(places, number, axis=0), tensor, 1)
    # Products with zeros, which are quick, spread what is no number to other places.
    return tf.cond(
        tf.reduce_all(tf.math.is_finite(sums)),
        lambda: sums,
        lambda: tf.math.unsorted_segment_sum(_times(factors, tensor), places, number),
    )


def _times(values, tensor):
    """Multiply each sample of a tensor by a value."""
    return tf.reshape(tf.cast(values, tensor.dtype), (-1, *[1] * (tensor.shape.rank - 1))) * tensor
