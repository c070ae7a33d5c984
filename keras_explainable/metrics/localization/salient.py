r"""Localization by masks: how far a map is from the mask of the object, over all thresholds.

Ground truth is either the mask of a class, compared with its map, or the one mask of whatever
stands out of an image, compared with the maximum over its maps. Which of both, `protocol` says: a
map that rightly shows one class of several fails the latter.
"""

from __future__ import annotations

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Units
from keras_explainable.metrics._ranking import sums_per_level
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Scores
from keras_explainable.metrics._scoring import maps_of_units
from keras_explainable.metrics._scoring import masked_maps

PROTOCOLS = ("class", "agnostic")


def _salient_metric(higher_is_better, curve_axis=""):
    return explanation_metric(
        category="localization",
        higher_is_better=higher_is_better,
        unit_interval=True,
        curve_axis=curve_axis,
    )


@_salient_metric(False)
def mask_error(
    maps: tf.Tensor, masks: tf.Tensor, indices: Units = None, *, protocol: str = "class"
) -> Scores:
    r"""Tell how far a map is from the mask, as the mean absolute error (MAE).

    .. math:: \frac{1}{|R|} \sum_r |M_r - g_r|

    over the positions R that count, with g the mask, 1 on the object and 0 elsewhere.

    Args:
        maps: `(samples, *positions, n)`, from 0 to 1, of the size of the masks.
        masks: as in `pointing_game`; with "agnostic" one per sample.
        indices: as in `pointing_game`.
        protocol: "class", each map by the mask of its class, or "agnostic", the maximum over the
            maps of a sample by its one mask, with one value per sample. Defaults to "class".

    Raises:
        ValueError: if an argument doesn't fit the others.

    References:
        - Perazzi, Krähenbühl, Pritch, Hornung, "Saliency Filters: Contrast Based Filtering for
          Salient Region Detection", CVPR 2012.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> ke.metrics.mask_error(np.full((1, 2, 2, 1), 0.25), np.array([[[0, 1], [0, 0]]]))
        array([[0.375]], dtype=float32)
    """
    found, finish = _paired(maps, masks, indices, protocol)
    return finish(_mean(tf.abs(found.maps - found.inside), found))


@_salient_metric(True)
def mask_iou(
    maps: tf.Tensor,
    masks: tf.Tensor,
    indices: Units = None,
    *,
    protocol: str = "class",
    threshold: float = 0.25,
) -> Scores:
    r"""Tell how well the part of a map above a threshold covers the mask.

    .. math:: \mathrm{IoU}(t) = |\{M > t\} \cap G| / |\{M > t\} \cup G|

    with t the threshold, and G the positions of the mask.

    Args:
        maps: as in `mask_error`.
        masks: as in `mask_error`.
        indices: as in `mask_error`.
        protocol: as in `mask_error`.
        threshold: t; 0.15, 0.25 and 0.5 are common. Defaults to 0.25.

    References:
        - Everingham, Van Gool, Williams, Winn, Zisserman, "The Pascal Visual Object Classes (VOC)
          Challenge", IJCV 2010.
    """
    threshold = number("threshold", threshold)
    found, finish = _paired(maps, masks, indices, protocol)
    common, marked, present = _areas(found, found.maps > threshold)
    return finish(tf.math.divide_no_nan(common, marked + present - common))


@_salient_metric(True, curve_axis="threshold")
def best_mask_iou(
    maps: tf.Tensor,
    masks: tf.Tensor,
    indices: Units = None,
    *,
    protocol: str = "class",
    num_thresholds: int = 256,
) -> Scores:
    r"""Tell how well a map covers the mask at the threshold that is best for it.

    .. math:: \max_k \mathrm{IoU}(t_k), \quad t_k = k / (K - 1)

    with IoU as in `mask_iou`, but positions from a threshold on are marked. `curve` of its scores
    holds the IoU at every one.

    Args:
        maps: as in `mask_error`.
        masks: as in `mask_error`.
        indices: as in `mask_error`.
        protocol: as in `mask_error`.
        num_thresholds: number K of thresholds from 0 to 1. Defaults to 256.

    References:
        - Choe, Oh, Lee, Chun, Akata, Shim, "Evaluating Weakly Supervised Object Localization
          Methods Right", CVPR 2020. arXiv 2001.07437.
    """
    found, finish = _paired(maps, masks, indices, protocol)
    common, marked, present = _areas_over_thresholds(found, num_thresholds)
    curve = tf.math.divide_no_nan(common, marked + present - common)
    return finish(tf.reduce_max(curve, axis=-1), curve)


@_salient_metric(True)
def average_precision(
    maps: tf.Tensor,
    masks: tf.Tensor,
    indices: Units = None,
    *,
    protocol: str = "class",
    num_thresholds: int = 256,
) -> Scores:
    r"""Tell the precision of a map, averaged over its recall.

    .. math:: \sum_k (R(t_k) - R(t_{k+1})) \, P(t_k), \quad R(t_K) = 0

    with R the recall, the share of the object that is marked, and P the precision, the share of
    what is marked that is on the object, 0 where nothing is marked. Positions from a threshold on
    are marked, at the K thresholds of `best_mask_iou`. `curve` of its scores holds recall and
    precision, `(samples, n, K, 2)`.

    Args:
        maps: as in `mask_error`.
        masks: as in `mask_error`.
        indices: as in `mask_error`.
        protocol: as in `mask_error`.
        num_thresholds: as in `best_mask_iou`.

    References:
        - Borji, Cheng, Jiang, Li, "Salient Object Detection: A Benchmark", IEEE TIP 2015. arXiv
          1501.02741.
    """
    found, finish = _paired(maps, masks, indices, protocol)
    common, marked, present = _areas_over_thresholds(found, num_thresholds)
    precision = tf.math.divide_no_nan(common, marked)
    recall = tf.math.divide_no_nan(common, present)
    steps = recall - tf.pad(recall[..., 1:], [[0, 0], [0, 0], [0, 1]])
    return finish(tf.reduce_sum(steps * precision, axis=-1), tf.stack([recall, precision], -1))


@_salient_metric(True, curve_axis="threshold")
def max_f_beta(
    maps: tf.Tensor,
    masks: tf.Tensor,
    indices: Units = None,
    *,
    protocol: str = "class",
    num_thresholds: int = 256,
    beta_squared: float = 0.3,
) -> Scores:
    r"""Tell the F-measure of a map at the threshold that is best for it.

    .. math:: \max_k F_\beta(t_k), \quad F_\beta = \frac{(1 + \beta^2) P R}{\beta^2 P + R}

    with the recall R, the precision P and the K thresholds of `average_precision`. `curve` of its
    scores holds :math:`F_\beta` at every threshold.

    Args:
        maps: as in `mask_error`.
        masks: as in `mask_error`.
        indices: as in `mask_error`.
        protocol: as in `mask_error`.
        num_thresholds: as in `best_mask_iou`.
        beta_squared: weight of the recall. Defaults to 0.3.

    References:
        - Achanta, Hemami, Estrada, Süsstrunk, "Frequency-tuned Salient Region Detection", CVPR
          2009.
        - Borji, Cheng, Jiang, Li, "Salient Object Detection: A Benchmark", IEEE TIP 2015. arXiv
          1501.02741.
    """
    found, finish = _paired(maps, masks, indices, protocol)
    curve = _f_beta(_areas_over_thresholds(found, num_thresholds), beta_squared)
    return finish(tf.reduce_max(curve, axis=-1), curve)


@_salient_metric(True, curve_axis="threshold")
def mean_f_beta(
    maps: tf.Tensor,
    masks: tf.Tensor,
    indices: Units = None,
    *,
    protocol: str = "class",
    num_thresholds: int = 256,
    beta_squared: float = 0.3,
) -> Scores:
    r"""Tell the F-measure of a map, averaged over thresholds.

    .. math:: \frac{1}{K} \sum_k F_\beta(t_k)

    over the K thresholds of `max_f_beta`. `curve` of its scores holds :math:`F_\beta` at every one.

    Args:
        maps: as in `mask_error`.
        masks: as in `mask_error`.
        indices: as in `mask_error`.
        protocol: as in `mask_error`.
        num_thresholds: as in `best_mask_iou`.
        beta_squared: as in `max_f_beta`.

    References:
        - Borji, Cheng, Jiang, Li, "Salient Object Detection: A Benchmark", IEEE TIP 2015. arXiv
          1501.02741.
    """
    found, finish = _paired(maps, masks, indices, protocol)
    curve = _f_beta(_areas_over_thresholds(found, num_thresholds), beta_squared)
    return finish(tf.reduce_mean(curve, axis=-1), curve)


@_salient_metric(True)
def adaptive_f_beta(
    maps: tf.Tensor,
    masks: tf.Tensor,
    indices: Units = None,
    *,
    protocol: str = "class",
    beta_squared: float = 0.3,
) -> Scores:
    r"""Tell the F-measure of a map at twice its mean.

    .. math:: F_\beta(\min(2 \bar M, 1))

    with :math:`F_\beta` as in `max_f_beta`, and :math:`\bar M` the mean of the map. Positions from
    the threshold on are marked, save those of 0.

    Args:
        maps: as in `mask_error`.
        masks: as in `mask_error`.
        indices: as in `mask_error`.
        protocol: as in `mask_error`.
        beta_squared: as in `max_f_beta`.

    References:
        - Achanta, Hemami, Estrada, Süsstrunk, "Frequency-tuned Salient Region Detection", CVPR
          2009.
    """
    found, finish = _paired(maps, masks, indices, protocol)
    threshold = tf.minimum(2 * _mean(found.maps, found), 1)[..., None]
    marked = (found.maps >= threshold) & (found.maps > 0)
    return finish(_f_beta(_areas(found, marked), beta_squared))


def _paired(maps, masks, indices, protocol):
    """Return `MaskedMaps`, and the function from their values, and curves, to `Scores`."""
    one_of("protocol", protocol, PROTOCOLS)
    if protocol == "class":
        found = masked_maps(maps, masks, indices)
        return found, lambda values, curve=None: found.scores(values, curve=curve)
    if masks.shape[-1] != 1:
        received = f"{masks.shape[-1]} per sample"
        raise invalid("masks", 'one mask per sample with `protocol="agnostic"`', received)
    maps, _ = maps_of_units(maps, indices)
    found = masked_maps(tf.reduce_max(maps, axis=_axes.CHANNELS, keepdims=True), masks)

    def finish(values, curve=None):
        scores = found.scores(values, curve=curve)
        return Scores(*scores[:3], classes=tf.zeros_like(values, tf.int32))

    return found, finish


def _mean(rows, found):
    total = tf.reduce_sum(rows * found.counted, axis=-1)
    return tf.math.divide_no_nan(total, tf.reduce_sum(found.counted, axis=-1))


def _areas(found, marked):
    """Return sizes `(batch, n)` of what is marked inside the mask, marked, and inside the mask."""
    marked = tf.cast(marked, tf.float32)
    rows = (marked * found.inside, marked * found.counted, found.inside)
    return tuple(tf.reduce_sum(row, axis=-1) for row in rows)


def _areas_over_thresholds(found, num_thresholds):
    """Return `_areas` `(batch, n, thresholds)`, from one histogram."""
    num_thresholds = positive_integer("num_thresholds", num_thresholds, least=2)
    thresholds = tf.constant([k / (num_thresholds - 1) for k in range(num_thresholds)])
    # How many thresholds a position reaches; rounding leaves maps a little outside of 0 to 1.
    values = tf.reshape(tf.clip_by_value(found.maps, 0, 1), [-1])
    reached = tf.reshape(tf.searchsorted(thresholds, values, side="right"), tf.shape(found.maps))
    common, marked = (
        tf.cumsum(sums_per_level(rows, reached - 1, num_thresholds), axis=-1, reverse=True)
        for rows in (found.inside, found.counted)
    )
    return common, marked, tf.reduce_sum(found.inside, axis=-1, keepdims=True)


def _f_beta(areas, beta_squared):
    common, marked, present = areas
    # Precision and recall written out, which leaves one division.
    beta_squared = number("beta_squared", beta_squared, least=0)
    return tf.math.divide_no_nan((1 + beta_squared) * common, beta_squared * present + marked)
