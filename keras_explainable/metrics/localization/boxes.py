"""Localization by boxes: those drawn around what a map shows, and those of the objects."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import positive_integer
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Units
from keras_explainable.metrics._arguments import checked_boxes
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Scores
from keras_explainable.metrics._scoring import maps_of_units

# Positions that share a corner are connected; those of different maps are not.
_NEIGHBOURS = np.zeros((3, 3, 3), bool)
_NEIGHBOURS[1] = True


@explanation_metric(category="localization", higher_is_better=False)
def localization_error(
    maps: tf.Tensor,
    boxes: dict[str, tf.Tensor],
    indices: Units = None,
    *,
    logits: ArrayLike | None = None,
    top: int | None = None,
    fraction: float = 0.2,
    iou: float = 0.5,
) -> Scores:
    r"""Tell whether the box around what a map shows misses all objects of its class.

    .. math:: 1 - [\max_b \mathrm{IoU}(\mathrm{box}(M), b) \geq t] \cdot [c \in \mathrm{top}_k]

    over the boxes b of class c, with t the `iou` and k the `top`. Undefined where the sample has no
    box of the class: explain the classes labelled, not those predicted, or wrong predictions are
    left out and count as no error.

    Args:
        maps: `(samples, height, width, n)`.
        boxes: dict of "boxes" `(samples, m, 4)`, `x0, y0, x1, y1` in pixels of the maps, and
            "labels" `(samples, m)`, the class of each, -1 where there is no box.
        indices: classes explained, integers `(samples,)` or `(samples, n)`; "argmax" where there
            are `logits`. Defaults to those in the order of the maps.
        logits: `(samples, units)`, needed for `top`. Defaults to `None`.
        top: among how many of the highest logits the class has to be: 1 and 5 in most tables; of
            equal ones the first counts. Defaults to `None`, any: the class is known.
        fraction: as in `extract_boxes`. Defaults to 0.2.
        iou: intersection over union t from which on boxes agree. Defaults to 0.5.

    Raises:
        ValueError: if an argument doesn't fit the others.

    References:
        - Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative
          Localization", CVPR 2016. arXiv 1512.04150.
        - Choe, Oh, Lee, Chun, Akata, Shim, "Evaluating Weakly Supervised Object Localization
          Methods Right", CVPR 2020. arXiv 2001.07437.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> boxes = {"boxes": np.array([[[0, 0, 4, 3]]]), "labels": np.array([[0]])}
        >>> ke.metrics.localization_error(np.eye(4)[None, :, :, None], boxes)
        array([[0.]], dtype=float32)
    """
    iou = number("iou", iou, least=0)
    if top is not None:
        top = positive_integer("top", top)
        if logits is None:
            raise invalid("logits", "logits `(samples, units)` where `top` is given", "None")
    maps, units = maps_of_units(maps, indices, logits)
    labels = tf.cast(boxes["labels"], tf.int32)
    if units is None:
        units = tf.repeat(tf.range(maps.shape[-1])[None], tf.shape(maps)[0], axis=0)
    same = labels[:, None] == units[..., None]
    drawn = extract_boxes(maps, fraction)
    agrees = _overlaps(drawn, tf.cast(boxes["boxes"], tf.float32)) >= iou
    hit = tf.reduce_any(same & agrees, axis=-1)
    if top is not None:
        hit &= _rank(units, logits) < top
    weights = tf.cast(tf.reduce_any(same, axis=-1), tf.float32)
    return Scores(weights * (1 - tf.cast(hit, tf.float32)), weights)


def extract_boxes(maps: ArrayLike, fraction: float = 0.2) -> np.ndarray:
    """Draw the box around the largest part of each map that is near its maximum.

    Positions of at least a fraction of the maximum are kept; of their parts, connected along sides
    or corners, the largest is taken, and of equal ones the first in the order of rows.

    Args:
        maps: `(batch, height, width, n)`.
        fraction: share of the maximum, from 0 to 1. Defaults to 0.2, from CAM; Grad-CAM takes 0.15.

    Returns:
        float32 tensor `(batch, n, 4)`, `x0, y0, x1, y1`: a box covers pixels from x0 to x1 - 1. The
        whole image where nothing is positive.

    Raises:
        ValueError: if the maps are none of images, or the fraction is out of range.

    References:
        - Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative
          Localization", CVPR 2016. arXiv 1512.04150.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> ke.metrics.extract_boxes(np.eye(4)[None, :3, :, None]).numpy()
        array([[[0., 0., 3., 3.]]], dtype=float32)
    """
    if number("fraction", fraction, least=0) > 1:
        raise invalid("fraction", "a number from 0 to 1", repr(fraction))
    maps = tf.cast(tf.convert_to_tensor(maps), tf.float32)
    if maps.shape.rank != 4:
        expected = "maps of images (batch, height, width, n)"
        raise invalid("maps", expected, f"shape {tuple(maps.shape)}")
    drawn = tf.numpy_function(
        lambda rows: _drawn(rows, fraction),
        [tf.transpose(maps, (0, 3, 1, 2))],
        tf.float32,
        stateful=False,
    )
    return tf.ensure_shape(drawn, (maps.shape[0], maps.shape[-1], 4))


def _drawn(maps, fraction):
    """Return boxes `(batch, n, 4)` of arrays `(batch, n, height, width)`."""
    from scipy import ndimage

    rows = maps.reshape(-1, *maps.shape[2:])
    highest = rows.max(axis=(1, 2), keepdims=True)
    parts, count = ndimage.label((rows >= fraction * highest) & (rows > 0), _NEIGHBOURS)
    owner = np.zeros(count + 1, int)
    owner[parts.ravel()] = np.repeat(np.arange(len(rows)), rows[0].size)
    pixels = np.bincount(parts.ravel(), minlength=count + 1)
    # The last one assigned stays: the largest part, and the first of those.
    order = 1 + np.lexsort((-np.arange(count), pixels[1:]))
    largest = np.full(len(rows), -1)
    largest[owner[order]] = order
    kept = (parts == largest[:, None, None]) | (largest < 0)[:, None, None]
    edges = []
    for along in (kept.any(axis=1), kept.any(axis=2)):
        edges += [along.argmax(axis=1), along.shape[1] - along[:, ::-1].argmax(axis=1)]
    x0, x1, y0, y1 = edges
    return np.stack([x0, y0, x1, y1], -1).reshape(*maps.shape[:2], 4).astype("float32")


def box_masks(boxes: Mapping[str, ArrayLike], sizes: Sequence[int], num_classes: int) -> np.ndarray:
    """Make masks of boxes, for metrics that compare maps with masks.

    Args:
        boxes: dict as in `localization_error`.
        sizes: height and width of the masks, those of the maps.
        num_classes: number of classes.

    Returns:
        array `(samples, height, width, num_classes)`, 1 where a box of the class is. The box
        `x0, y0, x1, y1` covers pixels x with `x0 <= x < x1`.

    Raises:
        TypeError: if the boxes are no such dict.
        ValueError: if a box is empty, not inside its image or of another class.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> boxes = {"boxes": np.array([[[1, 0, 3, 2]]]), "labels": np.array([[0]])}
        >>> ke.metrics.box_masks(boxes, (2, 4), 1)[0, :, :, 0]
        array([[0., 1., 1., 0.],
               [0., 1., 1., 0.]], dtype=float32)
    """
    num_classes = positive_integer("num_classes", num_classes)
    sizes = tuple(positive_integer("sizes", size) for size in sizes)
    boxes = checked_boxes(boxes, sizes, num_classes=num_classes)
    x0, y0, x1, y1 = np.moveaxis(boxes["boxes"][..., None], -2, 0)
    columns = (x0 <= np.arange(sizes[1])) & (np.arange(sizes[1]) < x1)
    rows = (y0 <= np.arange(sizes[0])) & (np.arange(sizes[0]) < y1)
    masks = np.zeros((len(rows), num_classes, *sizes), "float32")
    for sample, row in np.argwhere(boxes["labels"] >= 0):
        place = sample, boxes["labels"][sample, row]
        masks[place] = np.maximum(masks[place], np.outer(rows[sample, row], columns[sample, row]))
    return np.moveaxis(masks, 1, -1)


def _overlaps(drawn, boxes):
    """Return the intersection over union `(batch, n, m)` of boxes `(batch, n or m, 4)`."""
    first, second = drawn[:, :, None], boxes[:, None]
    low = tf.maximum(first[..., :2], second[..., :2])
    high = tf.minimum(first[..., 2:], second[..., 2:])
    common = tf.reduce_prod(tf.nn.relu(high - low), axis=-1)
    areas = [tf.reduce_prod(b[..., 2:] - b[..., :2], axis=-1) for b in (first, second)]
    return tf.math.divide_no_nan(common, areas[0] + areas[1] - common)


def _rank(units, logits):
    """Return how many logits are above that of each unit, or equal and before it."""
    logits = tf.cast(logits, tf.float32)
    own = tf.gather(logits, units, axis=-1, batch_dims=1)[..., None]
    before = tf.range(tf.shape(logits)[-1]) < units[..., None]
    above = (logits[:, None] > own) | ((logits[:, None] == own) & before)
    return tf.reduce_sum(tf.cast(above, tf.int32), axis=-1)
