"""Faithfulness by correlation: do predictions fall by what maps say that features are worth?"""

from __future__ import annotations

import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import positive_integer
from keras_explainable.metrics._scoring import Rows
from keras_explainable.metrics._scoring import in_chunks
from keras_explainable.metrics.faithfulness import _perturbing
from keras_explainable.metrics.faithfulness._perturbing import ExplainedInputs
from keras_explainable.metrics.faithfulness.curves import curve_metric

# What varies by no more than this share of its size doesn't vary but by rounding.
_ROUNDING = 1e-6


@curve_metric(higher_is_better=True)
def faithfulness_correlation(
    inputs: ExplainedInputs,
    *,
    num_subsets: int = 100,
    subset_size: int | None = None,
    fill: str = "zero",
    seed: int = 0,
) -> Rows:
    r"""Tell whether predictions fall by what a map is worth on features that are removed.

    .. math:: \operatorname{corr}_S \left( \sum_{i \in S} m_i, \; p(x) - p(x_{-S}) \right)

    over random sets S of features, with :math:`x_{-S}` the input without those of S. The sets are
    the same for all samples. It is undefined where the map or the prediction doesn't vary.

    Args:
        inputs: `ExplainedInputs`.
        num_subsets: number of sets. Defaults to 100.
        subset_size: number of features in a set. Defaults to the square root of their number, 224
            for images of 224².
        fill: what takes the place of what is removed: "zero", "mean" of the image, per channel, or
            "blur". Defaults to "zero".
        seed: integer. Defaults to 0.

    References:
        - Bhatt, Weller, Moura, "Evaluating and Aggregating Feature-based Model Explanations", IJCAI
          2020. arXiv 2005.00631.
    """
    num_subsets = positive_integer("num_subsets", num_subsets, 2)
    sets = _subsets(inputs.num_features, num_subsets, subset_size, _perturbing.checked_seed(seed))
    other = inputs.filled(fill)

    def predict(rows):
        pairs = rows // num_subsets
        maps = _perturbing.of_pairs(inputs.attributions, pairs)
        chosen = tf.gather(sets, rows % num_subsets)
        flat = tf.reshape(maps, (tf.shape(rows)[0], -1))
        worth = tf.reduce_sum(tf.gather(flat, chosen, axis=1, batch_dims=1), axis=1)
        places = tf.zeros_like(chosen) + tf.range(tf.shape(rows)[0])[:, None]
        ones = tf.ones_like(chosen)
        removed = tf.scatter_nd(tf.stack([places, chosen], -1), ones, tf.shape(flat)) > 0
        removed = tf.reshape(removed, tf.shape(maps))
        images = inputs.mixed(pairs, tf.ensure_shape(removed, maps.shape), other)
        return tf.stack([worth, inputs.outputs(pairs, images)], axis=1)

    return _correlated(inputs, predict, num_subsets)


@curve_metric(higher_is_better=True)
def faithfulness_estimate(
    inputs: ExplainedInputs,
    *,
    num_steps: int = 50,
    step_size: int | None = None,
    fill: str = "zero",
) -> Rows:
    r"""Tell whether predictions fall by what a map is worth on features of one rank.

    .. math:: \operatorname{corr}_j \left( \sum_{i \in S_j} m_i, \; p(x) - p(x_{-S_j}) \right)

    with :math:`S_j` the j-th of the sets that features are divided into, by their rank, and
    :math:`x_{-S}` the input without the features of S. It is undefined where the map or the
    prediction doesn't vary.

    Args:
        inputs: `ExplainedInputs`.
        num_steps: number of sets. Defaults to 50.
        step_size: number of features per set, in place of `num_steps`; 1 for one by one. Defaults
            to `None`.
        fill: what takes the place of what is removed: "zero", "mean" of the image, per channel, or
            "blur". Defaults to "zero".

    References:
        - Alvarez-Melis, Jaakkola, "Towards Robust Interpretability with Self-Explaining Neural
          Networks", NeurIPS 2018. arXiv 1806.07538.
    """
    counts = _perturbing.removal_counts(inputs.num_features, num_steps, step_size)
    num_points = tf.size(counts) - 1
    other = inputs.filled(fill)

    def predict(rows):
        pairs, points = rows // num_points, rows % num_points
        maps = _perturbing.of_pairs(inputs.attributions, pairs)
        found = _perturbing.of_pairs(
            lambda some: _perturbing.ranks(inputs.attributions(some)), pairs
        )
        start, stop = (_perturbing.aligned(tf.gather(counts, points + i), found) for i in (0, 1))
        removed = (found >= start) & (found < stop)
        axes = list(range(1, maps.shape.rank))
        worth = tf.reduce_sum(tf.where(removed, maps, 0.0), axis=axes)
        images = inputs.mixed(pairs, removed, other)
        return tf.stack([worth, inputs.outputs(pairs, images)], axis=1)

    return _correlated(inputs, predict, num_points)


def _correlated(inputs, predict, num_points):
    """Correlate what features are worth with how far predictions fall without them."""
    count = tf.shape(inputs.pairs.samples)[0]
    rows = in_chunks(predict, count * num_points, inputs.chunk, 2)
    worth, after = tf.unstack(tf.reshape(rows, tf.stack([count, num_points, 2])), axis=2)
    before = inputs.before[:, None]
    drops = before - after
    known = _varies(worth, worth) & _varies(drops, tf.concat([before, after], axis=1))
    a, b = (v - tf.reduce_mean(v, axis=1, keepdims=True) for v in (worth, drops))
    a, b = (tf.math.l2_normalize(v / _largest(v), axis=1, epsilon=0.0) for v in (a, b))
    values = tf.reduce_sum(a * b, axis=1)
    values = tf.where(known, tf.clip_by_value(values, -1.0, 1.0), 0.0)
    return values, tf.cast(known, tf.float32), drops


def _subsets(num_features, num_subsets, size, seed):
    """Draw sets of features, int32 `(sets, size)`."""
    if size is None:
        root = tf.sqrt(tf.cast(num_features, tf.float32))
        size = tf.maximum(tf.cast(tf.round(root), tf.int32), 1)
    else:
        size = positive_integer("subset_size", size)
        if isinstance(num_features, int) and size > num_features:
            raise invalid("subset_size", f"at most {num_features} features", size)

    def draw(i):
        noise = tf.random.stateless_uniform(tf.reshape(num_features, [1]), tf.stack([seed, i]))
        return tf.math.top_k(noise, size, sorted=False).indices

    return tf.map_fn(draw, tf.range(num_subsets))


def _varies(values, scale):
    """Tell which rows vary by more than rounding."""
    spread = tf.reduce_max(values, axis=1) - tf.reduce_min(values, axis=1)
    return spread > _ROUNDING * tf.reduce_max(tf.abs(scale), axis=1)


def _largest(values):
    """Return the largest size of a value in each row, or 1 where all are 0."""
    largest = tf.reduce_max(tf.abs(values), axis=1, keepdims=True)
    return tf.where(largest > 0, largest, 1.0)
