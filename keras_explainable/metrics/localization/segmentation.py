r"""Localization by labels: maps of the classes as a segmentation, over a whole data set.

A position is labelled

.. math:: \hat y_r = \arg\max(t, M_{r1}, \ldots, M_{rC})

with 0, the background, for the threshold t, and c for class c, the first of equal ones. Ratios are
those of positions added up over the data set.
"""

from __future__ import annotations

import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import one_of
from keras_explainable._typing import ArrayLike
from keras_explainable.metrics._ranking import sums_per_level
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Scores
from keras_explainable.metrics._scoring import in_rows

ABSENT = ("zero", "skip")


def intersection_over_union(parts):
    """Return the ratio of parts `(..., 3)`: sizes of what is common, labelled and predicted."""
    common, labelled, predicted = tf.unstack(parts, axis=-1)
    return tf.math.divide_no_nan(common, labelled + predicted - common)


def f1_of_areas(parts):
    """Return the F1 of parts `(..., 3)`: sizes of what is common, labelled and predicted."""
    common, labelled, predicted = tf.unstack(parts, axis=-1)
    return tf.math.divide_no_nan(2 * common, labelled + predicted)


def share(parts):
    """Return the ratio of parts `(..., 2)`."""
    return tf.math.divide_no_nan(parts[..., 0], parts[..., 1])


def _segmentation_metric(combine, per_class=True):
    return explanation_metric(
        category="localization",
        higher_is_better=True,
        combine=combine,
        per_class=per_class,
        with_background=per_class,
    )


@_segmentation_metric(intersection_over_union)
def segmentation_iou(
    maps: tf.Tensor,
    labels: tf.Tensor,
    *,
    detections: ArrayLike | None = None,
    threshold: float = 0.25,
    absent: str = "zero",
    background: bool = True,
) -> Scores:
    r"""Tell how well each class is segmented by its maps; the mean over classes is the mIoU.

    .. math:: \mathrm{IoU}_c = TP_c / (T_c + P_c - TP_c)

    with the numbers of positions of class c that are labelled :math:`T_c`, predicted :math:`P_c`,
    and both, :math:`TP_c`, of a sample, or with `SegmentationIou` of all.

    Args:
        maps: `(samples, *positions, classes)`, one map per class, such as from
            `ke.filters.positive_normalize`.
        labels: integers `(samples, *positions)`, of the size of the maps: 0 for the background,
            c + 1 for the class of map c, or 255 where a position doesn't count.
        detections: boolean or float `(samples, classes)`, 1 for the classes that may be predicted;
            published figures of pseudo labels take those that the image is labelled with. Defaults
            to all.
        threshold: t, above which a map is no background. Defaults to 0.25.
        absent: what a class counts for that is neither labelled nor predicted: "zero", 0, as
            published, or "skip", nothing, for which take `average="macro"`. Defaults to "zero".
        background: whether the background is one of the classes. Defaults to `True`.

    Returns:
        one row per sample, one value per class, the background first.

    Raises:
        ValueError: if an argument doesn't fit the others.

    References:
        - Everingham, Van Gool, Williams, Winn, Zisserman, "The Pascal Visual Object Classes (VOC)
          Challenge", IJCV 2010.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> maps = np.array([0.9, 0.8, 0.6, 0.1]).reshape(1, 2, 2, 1)
        >>> ke.metrics.segmentation_iou(maps, np.array([[[1, 1], [0, 0]]]))
        array([[0.5      , 0.6666667]], dtype=float32)
    """
    parts = _parts(maps, labels, detections, threshold)
    return _scores(parts, absent, background)


@_segmentation_metric(f1_of_areas)
def segmentation_f1(
    maps: tf.Tensor,
    labels: tf.Tensor,
    *,
    detections: ArrayLike | None = None,
    threshold: float = 0.25,
    absent: str = "zero",
    background: bool = True,
) -> Scores:
    r"""Tell the F1 of each class, segmented by its maps.

    .. math:: F_{1c} = 2 TP_c / (T_c + P_c)

    with the numbers of positions of `segmentation_iou`.

    Args:
        maps: as in `segmentation_iou`.
        labels: as in `segmentation_iou`.
        detections: as in `segmentation_iou`.
        threshold: as in `segmentation_iou`.
        absent: as in `segmentation_iou`.
        background: as in `segmentation_iou`.

    Returns:
        one row per sample, one value per class, the background first.

    References:
        - Dice, "Measures of the Amount of Ecologic Association Between Species", Ecology 1945.
    """
    parts = _parts(maps, labels, detections, threshold)
    return _scores(parts, absent, background)


@_segmentation_metric(share, per_class=False)
def segmentation_accuracy(
    maps: tf.Tensor,
    labels: tf.Tensor,
    *,
    detections: ArrayLike | None = None,
    threshold: float = 0.25,
) -> Scores:
    r"""Tell which share of the positions is labelled right by the maps (pixel accuracy).

    .. math:: \sum_c TP_c / \sum_c T_c

    with the numbers of positions of `segmentation_iou`.

    Args:
        maps: as in `segmentation_iou`.
        labels: as in `segmentation_iou`.
        detections: as in `segmentation_iou`.
        threshold: as in `segmentation_iou`.

    Returns:
        one value per sample.

    References:
        - Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR
          2015. arXiv 1411.4038.
    """
    parts = _parts(maps, labels, detections, threshold)
    parts = tf.reduce_sum(parts[..., :2], axis=1, keepdims=True)
    return Scores(parts, tf.cast(parts[..., 1] > 0, tf.float32))


def _parts(maps, labels, detections, threshold):
    """Return the sizes `(batch, 1 + classes, 3)` of what is common, labelled and predicted."""
    threshold = number("threshold", threshold)
    rows = in_rows(tf.cast(maps, tf.float32))
    num_classes = maps.shape[-1]
    if detections is not None:
        if detections.shape[-1] != num_classes:
            expected = f"one for each of the {num_classes} classes"
            raise invalid("detections", expected, f"{detections.shape[-1]} per sample")
        rows = tf.where(tf.cast(detections, tf.float32)[..., None] > 0, rows, rows.dtype.min)
    highest, which = tf.math.top_k(tf.transpose(rows, (0, 2, 1)), 1)
    predicted = tf.where(highest > threshold, which + 1, 0)[..., 0][:, None]
    labels = tf.reshape(tf.cast(labels, tf.int32), tf.shape(predicted))
    counted = tf.cast((labels >= 0) & (labels <= num_classes), tf.float32)
    labels = tf.clip_by_value(labels, 0, num_classes)
    common = counted * tf.cast(predicted == labels, tf.float32)
    groups = ((common, labels), (counted, labels), (counted, predicted))
    sizes = [sums_per_level(weight, numbers, num_classes + 1) for weight, numbers in groups]
    return tf.stack(sizes, axis=-1)[:, 0]


def _scores(parts, absent, background):
    """Return `Scores` of parts, with a weight for each class that counts."""
    one_of("absent", absent, ABSENT)
    occurs = tf.reduce_sum(parts, axis=-1)
    if absent == "zero":
        occurs = tf.reduce_sum(occurs, axis=1, keepdims=True) + tf.zeros_like(occurs)
    weights = tf.cast(occurs > 0, tf.float32)
    if not background:
        weights *= tf.cast(tf.range(tf.shape(parts)[1]) > 0, tf.float32)
    return Scores(parts * weights[..., None], weights)
