"""Do people look at what a map shows?

Fixations are those of a sample, whatever unit is explained.
"""

from __future__ import annotations

import tensorflow as tf

from keras_explainable._typing import Units
from keras_explainable.metrics._ranking import area_under_roc
from keras_explainable.metrics._ranking import levels
from keras_explainable.metrics._ranking import ranked
from keras_explainable.metrics._ranking import sums_per_level
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Scores
from keras_explainable.metrics._scoring import in_rows
from keras_explainable.metrics._scoring import maps_of_units


def _fixation_metric(function):
    return explanation_metric(category="fixations", higher_is_better=True)(function)


@_fixation_metric
def normalized_scanpath_saliency(
    maps: tf.Tensor, fixations: tf.Tensor, indices: Units = None
) -> Scores:
    r"""Tell how far above its mean a map is where people look (NSS), in standard deviations.

    .. math:: \sum_r f_r \frac{M_r - \bar M}{\sigma_M} / \sum_r f_r

    0 is chance. Undefined without fixations, and for constant maps.

    Args:
        maps: `(samples, *positions, n)`.
        fixations: `(samples, *positions)`, of the size of the maps: how many fixations each
            position has, every one of which counts.
        indices: units explained, integers `(samples,)` or `(samples, n)`. Defaults to those in the
            order of the maps.

    Raises:
        ValueError: if an argument doesn't fit the others.

    References:
        - Peters, Iyer, Itti, Koch, "Components of bottom-up gaze allocation in natural images",
          Vision Research 2005.
        - Bylinskii, Judd, Oliva, Torralba, Durand, "What do different evaluation metrics tell us
          about saliency models?", TPAMI 2019. arXiv 1604.03605.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> maps = np.array([3.0, 1.0, 1.0, 1.0, 1.0]).reshape(1, 5, 1)
        >>> ke.metrics.normalized_scanpath_saliency(maps, np.array([[1, 0, 0, 0, 0]])).round(4)
        array([[2.]], dtype=float32)
    """
    maps, fixations = _rows(maps, fixations, indices)
    standard, varies = _standardized(maps)
    count = tf.reduce_sum(fixations, axis=-1)
    values = tf.math.divide_no_nan(tf.reduce_sum(standard * fixations, axis=-1), count)
    return _scores(values, varies * tf.cast(count > 0, tf.float32))


@_fixation_metric
def auc_judd(maps: tf.Tensor, fixations: tf.Tensor, indices: Units = None) -> Scores:
    r"""Tell how well a map tells positions that people look at from the others.

    It is the area under the line through the rates of true and false positives at the thresholds
    that are values of the map at fixations, from (0, 0) to (1, 1); 0.5 for constant maps. Undefined
    without fixations, or with fixations everywhere.

    Args:
        maps: as in `normalized_scanpath_saliency`.
        fixations: as in `normalized_scanpath_saliency`; a position counts once.
        indices: as in `normalized_scanpath_saliency`.

    References:
        - Judd, Ehinger, Durand, Torralba, "Learning to Predict Where Humans Look", ICCV 2009.
        - Bylinskii, Judd, Oliva, Torralba, Durand, "What do different evaluation metrics tell us
          about saliency models?", TPAMI 2019. arXiv 1604.03605.
    """
    maps, fixations = _rows(maps, fixations, indices)
    values, fixated = ranked(maps, tf.cast(fixations > 0, tf.float32))
    count = tf.shape(values)[-1]
    numbers = levels(values)
    fixated, others = (sums_per_level(rows, numbers, count) for rows in (fixated, 1 - fixated))
    # A threshold is a level with a fixation, and takes what lies between it and the one above.
    steps = tf.cumsum(tf.cast(fixated > 0, tf.int32), axis=-1, exclusive=True)
    fixated, others = (sums_per_level(rows, steps, count + 1) for rows in (fixated, others))
    some = tf.reduce_sum(fixated, axis=-1) * tf.reduce_sum(others, axis=-1) > 0
    return _scores(area_under_roc(fixated, others), tf.cast(some, tf.float32))


@_fixation_metric
def fixation_correlation(maps: tf.Tensor, fixations: tf.Tensor, indices: Units = None) -> Scores:
    r"""Tell how a map correlates with the density of fixations (CC).

    .. math:: \mathrm{cov}(M, f) / (\sigma_M \sigma_f)

    Undefined for constant maps and densities.

    Args:
        maps: as in `normalized_scanpath_saliency`.
        fixations: `(samples, *positions)`, of the size of the maps: density of fixations, in most
            cases counts blurred by a Gaussian of one degree of visual angle.
        indices: as in `normalized_scanpath_saliency`.

    References:
        - Bylinskii, Judd, Oliva, Torralba, Durand, "What do different evaluation metrics tell us
          about saliency models?", TPAMI 2019. arXiv 1604.03605.
    """
    maps, fixations = _rows(maps, fixations, indices)
    (maps, varies), (fixations, differs) = _standardized(maps), _standardized(fixations)
    return _scores(tf.reduce_mean(maps * fixations, axis=-1), varies * differs)


def _rows(maps, fixations, indices):
    """Return maps and fixations as rows `(batch, n, places)`."""
    rows = in_rows(maps_of_units(maps, indices)[0])
    shape = tf.shape(rows)
    fixations = tf.reshape(tf.cast(fixations, tf.float32), (shape[0], 1, shape[2]))
    return rows, tf.broadcast_to(fixations, shape)


def _standardized(rows):
    """Return rows of mean 0 and standard deviation 1, and whether they vary, `(batch, n)`."""
    lowest, highest = tf.reduce_min(rows, -1, keepdims=True), tf.reduce_max(rows, -1, keepdims=True)
    # Of a scale at which squares neither overflow nor vanish.
    rows = tf.math.divide_no_nan(rows - lowest, highest - lowest)
    rows -= tf.reduce_mean(rows, axis=-1, keepdims=True)
    deviation = tf.sqrt(tf.reduce_mean(tf.square(rows), axis=-1, keepdims=True))
    varies = tf.cast(highest > lowest, tf.float32)[..., 0]
    return tf.math.divide_no_nan(rows, deviation) * varies[..., None], varies


def _scores(values, weights):
    return Scores(values * weights, weights)
