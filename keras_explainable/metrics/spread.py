"""Is a map simple? How its magnitude is spread over positions."""

from __future__ import annotations

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import _variation
from keras_explainable import filters
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import number
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Scores


@explanation_metric(category="complexity", higher_is_better=True)
def sparseness(maps: tf.Tensor) -> Scores:
    r"""Measure the Gini index of a map: how unequally its magnitude is shared out.

    .. math:: \frac{\sum_{k=1}^N (2k - N - 1) |M|_{(k)}}{N \sum_{k=1}^N |M|_{(k)}}

    with :math:`|M|_{(k)}` the k-th smallest of the N magnitudes: 0 for a map that is the same
    everywhere, 1 - 1/N for one with a single position. A map of zeros has none.

    Args:
        maps: `(samples, *positions, units)`.

    References:
        - Chalasani, Chen, Chowdhury, Jha, Wu, "Concise Explanations of Neural Networks using
          Adversarial Training", ICML 2020. arXiv 1810.06583.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> ke.metrics.sparseness(np.eye(4).reshape(1, 4, 4, 1))
        array([[0.75]], dtype=float32)
    """
    values = tf.sort(_shares(maps), axis=1)
    size = tf.shape(values)[1]
    ranks = tf.cast(2 * tf.range(1, size + 1) - size - 1, tf.float32) / tf.cast(size, tf.float32)
    return Scores(tf.einsum("k,bku->bu", ranks, values), _known(maps))


@explanation_metric(category="complexity", higher_is_better=False)
def complexity(maps: tf.Tensor) -> Scores:
    r"""Measure the entropy of a map, in nats, its magnitudes taken as a distribution.

    .. math:: -\sum_p P_p \ln P_p, \quad P_p = |M_p| / \sum_q |M_q|

    It is 0 for a map with a single position, and ln N for one that is the same at N positions. A
    map of zeros has none.

    Args:
        maps: `(samples, *positions, units)`.

    References:
        - Bhatt, Weller, Moura, "Evaluating and Aggregating Feature-based Model Explanations", IJCAI
          2020. arXiv 2005.00631.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> np.exp(ke.metrics.complexity(np.eye(4).reshape(1, 4, 4, 1))).round(3)
        array([[4.]], dtype=float32)
    """
    shares = _shares(maps)
    return Scores(-tf.reduce_sum(tf.math.xlogy(shares, shares), axis=1), _known(maps))


@explanation_metric(category="complexity", higher_is_better=False)
def effective_complexity(maps: tf.Tensor, *, threshold: float = 1e-5) -> Scores:
    r"""Count the positions that a map gives some importance.

    .. math:: \left| \{ p : |M_p| > t \max_q |M_q| \} \right|

    A map of zeros has none.

    Args:
        maps: `(samples, *positions, units)`.
        threshold: t, the share of the highest magnitude of a map up to which a position counts for
            nothing, from 0 to 1. Defaults to 1e-5.

    References:
        - Nguyen, Martínez, "On Quantitative Aspects of Model Interpretability", 2020.
          arXiv 2007.07584.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> ke.metrics.effective_complexity(np.eye(4).reshape(1, 4, 4, 1))
        array([[4.]], dtype=float32)
    """
    if not 0 <= number("threshold", threshold) < 1:
        raise invalid("threshold", "a number from 0 up to, and without, 1", repr(threshold))
    magnitudes = tf.abs(tf.cast(maps, tf.float32))
    axes = _axes.spatial(maps.shape.rank)
    highest = tf.reduce_max(magnitudes, axes, keepdims=True)
    counted = tf.cast(magnitudes > threshold * highest, tf.float32)
    return Scores(tf.reduce_sum(counted, axes), _known(maps))


@explanation_metric(category="complexity", higher_is_better=False)
def area_under_total_variation(maps: tf.Tensor, *, normalize: bool = False) -> Scores:
    r"""Measure the noise of a map: its total variation over scales (AUTVC).

    .. math:: \int_0^L \frac{1}{N_l} \sum_{(p, q)} |\hat M_{lp} - \hat M_{lq}| \, dl

    with :math:`\hat M_l` level l of a Gaussian pyramid of the map, whose magnitude is stretched to
    [0, 1] by `ke.filters.percentile_normalize`; (p, q) its neighbours and :math:`N_l` its number of
    positions. Each level is smaller by 1.5, while all sides have 30 positions at least; the
    integral over levels, at unit spacing, is Simpson's. A smaller map has one level, and its total
    variation for a value. So maps of different sizes have different numbers of levels: compare
    those of one size, or with `normalize=True`.

    It is meant for raw, signed maps of the size of the input whose channels are summed, such as
    `ke.gradients(model, x, reduction="signed_sum", postprocessing=None)`: a rectified or resized
    map has lost its noise. A map that is constant, or of which less than one hundredth differs from
    its minimum, has none, as nothing is left of it when it is stretched.

    Args:
        maps: `(samples, *positions, units)`.
        normalize: divide by the width of the interval, which gives a mean over levels. Defaults to
            False, as published.

    References:
        - Goh, Lapuschkin, Weber, Samek, Binder, "Understanding Integrated Gradients with
          SmoothTaylor for Deep Neural Network Attribution", ICPR 2020. arXiv 2004.10484.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> ke.metrics.area_under_total_variation(np.eye(2).reshape(1, 2, 2, 1))
        array([[1.]], dtype=float32)
    """
    if not isinstance(normalize, bool):
        raise mistyped("normalize", "a boolean", normalize)
    curve = _variation.total_variation_curve(maps)
    values = _variation.simpson(curve)
    if normalize:
        values /= max(curve.shape[0] - 1, 1)
    stretched = filters.percentile_normalize(tf.cast(maps, tf.float32))
    known = tf.reduce_max(stretched, _axes.spatial(maps.shape.rank)) > 0
    known = tf.cast(known, tf.float32)
    return Scores(known * values, known, tf.transpose(known * curve, (1, 2, 0)))


def _shares(maps):
    """Return the share `(batch, positions, units)` of each position in the magnitude of a map."""
    maps = tf.abs(tf.cast(maps, tf.float32))
    flat = tf.reshape(maps, (tf.shape(maps)[0], -1, tf.shape(maps)[-1]))
    # Sums of very small or large magnitudes would leave the range of floats.
    flat = tf.math.divide_no_nan(flat, tf.reduce_max(flat, axis=1, keepdims=True))
    return tf.math.divide_no_nan(flat, tf.reduce_sum(flat, axis=1, keepdims=True))


def _known(maps):
    """Return weights `(batch, units)`, 0 for maps of zeros."""
    return tf.cast(tf.reduce_any(maps != 0, _axes.spatial(maps.shape.rank)), tf.float32)
