"""Localization by values and ranks: is what stands out of a map inside the mask of the object?"""

from __future__ import annotations

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Units
from keras_explainable.metrics._ranking import area_under_roc
from keras_explainable.metrics._ranking import levels
from keras_explainable.metrics._ranking import ranked
from keras_explainable.metrics._ranking import sums_per_level
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Scores
from keras_explainable.metrics._scoring import masked_maps


@explanation_metric(category="localization", higher_is_better=True)
def pointing_game(
    maps: tf.Tensor, masks: tf.Tensor, indices: Units = None, *, tolerance: int = 15
) -> Scores:
    r"""Tell whether the highest position of a map is on the object, or near it.

    .. math:: [\exists q: \|q - \arg\max_r M_r\|_\infty \leq t, \ g_q = 1]

    with g the mask, 1 on the object, and t the tolerance. Among equal positions the first counts,
    in the order of rows. Boxes become masks with `box_masks`.

    Args:
        maps: `(samples, *positions, n)`, of the size of the masks.
        masks: 0, 1, or 255 where a position doesn't count: `(samples, *positions)`, or one per map
            or unit, `(samples, *positions, n)`.
        indices: units explained, integers `(samples,)` or `(samples, n)`. Defaults to those in the
            order of the maps.
        tolerance: positions by which the mask is wider than the object along each axis, in pixels
            of the maps. Defaults to 15, as published for images of some hundred pixels; take 0 for
            small maps.

    Raises:
        ValueError: if an argument doesn't fit the others.

    References:
        - Zhang, Lin, Brandt, Shen, Sclaroff, "Top-down Neural Attention by Excitation Backprop",
          ECCV 2016. arXiv 1608.00507.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> maps, masks = np.eye(4)[None, :, :, None], np.zeros((1, 4, 4))
        >>> masks[:, 1, 1] = 1
        >>> ke.metrics.pointing_game(maps, masks, tolerance=0)
        array([[0.]], dtype=float32)
        >>> ke.metrics.pointing_game(maps, masks, tolerance=1)
        array([[1.]], dtype=float32)
    """
    tolerance = positive_integer("tolerance", tolerance, least=0)
    found = masked_maps(maps, masks, indices)
    places = tf.range(tf.shape(found.maps)[-1])
    values = tf.where(found.counted > 0, found.maps, found.maps.dtype.min)
    highest = values == tf.reduce_max(values, axis=-1, keepdims=True)
    point = tf.reduce_min(tf.where(highest, places, places[-1]), axis=-1, keepdims=True)
    hits, stride = found.inside > 0, 1
    for size in reversed(_axes.sizes(maps)[1:-1]):
        away = places // stride % size - point // stride % size
        hits &= tf.abs(away) <= tolerance
        stride *= size
    return found.scores(tf.cast(tf.reduce_any(hits, axis=-1), tf.float32))


@explanation_metric(category="localization", higher_is_better=True)
def energy_pointing_game(maps: tf.Tensor, masks: tf.Tensor, indices: Units = None) -> Scores:
    r"""Tell which share of a map, stretched from 0 to 1, is on the object.

    .. math:: \sum_r g_r \psi(M^+)_r / \sum_r \psi(M^+)_r

    with g the mask, 1 on the object, :math:`M^+` the positive part of the map, and :math:`\psi` of
    `ke.filters.normalize`; 0 for a constant map, which shows nothing.

    Args:
        maps: as in `pointing_game`.
        masks: as in `pointing_game`.
        indices: as in `pointing_game`.

    References:
        - Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu, "Score-CAM: Score-Weighted Visual
          Explanations for Convolutional Neural Networks", CVPR Workshops 2020. arXiv 1910.01279.
    """
    found = masked_maps(maps, masks, indices)
    energy = tf.nn.relu(found.maps)
    lowest = tf.where(found.counted > 0, energy, energy.dtype.max)
    energy -= tf.reduce_min(lowest, axis=-1, keepdims=True)
    return found.scores(_share_inside(energy, found))


@explanation_metric(category="localization", higher_is_better=True)
def relevance_mass_accuracy(maps: tf.Tensor, masks: tf.Tensor, indices: Units = None) -> Scores:
    r"""Tell which share of the positive relevance is on the object.

    .. math:: \sum_r g_r M^+_r / \sum_r M^+_r

    with g the mask, 1 on the object, and :math:`M^+` the positive part of the map; 0 for a map with
    nothing positive.

    Args:
        maps: as in `pointing_game`.
        masks: as in `pointing_game`.
        indices: as in `pointing_game`.

    References:
        - Arras, Osman, Samek, "CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of
          Neural Network Explanations", Information Fusion 2022. arXiv 2003.07258.
    """
    found = masked_maps(maps, masks, indices)
    return found.scores(_share_inside(tf.nn.relu(found.maps), found))


@explanation_metric(category="localization", higher_is_better=True)
def relevance_rank_accuracy(maps: tf.Tensor, masks: tf.Tensor, indices: Units = None) -> Scores:
    r"""Tell which share of the highest positions, as many as the object has, is on the object.

    .. math:: |\mathrm{top}_K(M) \cap G| / K, \quad K = |G|

    with G the positions of the object. Equal positions rank in the order of rows.

    Args:
        maps: as in `pointing_game`.
        masks: as in `pointing_game`.
        indices: as in `pointing_game`.

    References:
        - Arras, Osman, Samek, "CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of
          Neural Network Explanations", Information Fusion 2022. arXiv 2003.07258.
    """
    found = masked_maps(maps, masks, indices)
    return found.scores(_share_of_highest(found, tf.reduce_sum(found.inside, axis=-1)))


@explanation_metric(category="localization", higher_is_better=True)
def top_k_intersection(
    maps: tf.Tensor, masks: tf.Tensor, indices: Units = None, *, k: int = 1000
) -> Scores:
    r"""Tell which share of the k highest positions of a map is on the object.

    .. math:: |\mathrm{top}_k(M) \cap G| / k

    with G the positions of the object. Equal positions rank in the order of rows.

    Args:
        maps: as in `pointing_game`.
        masks: as in `pointing_game`.
        indices: as in `pointing_game`.
        k: number of positions; all that count, if there are fewer. Defaults to 1000.

    References:
        - Theiner, Müller-Budack, Ewerth, "Interpretable Semantic Photo Geolocation", WACV 2022.
          arXiv 2104.14995.
    """
    k = positive_integer("k", k)
    found = masked_maps(maps, masks, indices)
    count = tf.minimum(float(k), tf.reduce_sum(found.counted, axis=-1))
    return found.scores(_share_of_highest(found, count))


@explanation_metric(category="localization", higher_is_better=True)
def localization_auc(maps: tf.Tensor, masks: tf.Tensor, indices: Units = None) -> Scores:
    r"""Tell how likely a position of the object is higher than one of the background.

    .. math:: P(M_r > M_s) + P(M_r = M_s) / 2, \quad r \in G, \ s \notin G

    with G the positions of the object. It is the area under the ROC curve of telling the object by
    the map; 0.5 for a constant map. Undefined where there is no background.

    Args:
        maps: as in `pointing_game`.
        masks: as in `pointing_game`.
        indices: as in `pointing_game`.

    References:
        - Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 2006.
    """
    found = masked_maps(maps, masks, indices)
    values, inside, outside = ranked(found.maps, found.inside, found.outside)
    numbers, count = levels(values), tf.shape(values)[-1]
    inside, outside = (sums_per_level(rows, numbers, count) for rows in (inside, outside))
    has_background = tf.cast(tf.reduce_sum(found.outside, axis=-1) > 0, tf.float32)
    return found.scores(area_under_roc(inside, outside), has_background)


def _share_inside(energy, found):
    inside = tf.reduce_sum(energy * found.inside, axis=-1)
    return tf.math.divide_no_nan(inside, tf.reduce_sum(energy * found.counted, axis=-1))


def _share_of_highest(found, count):
    """Return the share of the highest positions, `(batch, n)` many, that is inside."""
    values = tf.where(found.counted > 0, found.maps, found.maps.dtype.min)
    _, inside = ranked(values, found.inside)
    # Positions that don't count may tie with the lowest finite value, and are not inside.
    among = tf.cast(tf.range(tf.shape(inside)[-1]), tf.float32) < count[..., None]
    return tf.math.divide_no_nan(tf.reduce_sum(inside * tf.cast(among, tf.float32), -1), count)
