"""Faithfulness by masking: what the prediction becomes with what a map shows, and without."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Units
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Pairs
from keras_explainable.metrics._scoring import Rows
from keras_explainable.metrics._scoring import at_input
from keras_explainable.metrics._scoring import explained_pairs
from keras_explainable.metrics._scoring import filler
from keras_explainable.metrics._scoring import in_chunks
from keras_explainable.metrics._scoring import predictions
from keras_explainable.metrics._scoring import replaced
from keras_explainable.metrics._scoring import shown_index

FILLS = ("zero", "mean", "blur")
# A prediction that grows by no more than rounding didn't grow.
_ROUNDING = 1e-6


class MaskedScores(NamedTuple):
    """What the model predicts for masked inputs.

    Attributes:
        pairs: `Pairs`, what is explained.
        retained: float32 `(pairs, units)`, probabilities with only what the map shows; `None` where
            not asked for.
        removed: float32 `(pairs, units)`, probabilities without what the map shows; `None` where
            not asked for.
    """

    pairs: Pairs
    retained: tf.Tensor | None
    removed: tf.Tensor | None

    @property
    def probabilities(self):
        """Probabilities `(pairs, units)` for the inputs as they are."""
        return tf.gather(self.pairs.probabilities, self.pairs.samples)

    def drop(self, masked):
        """Return the share `(pairs, units)` of each probability that is lost by masking."""
        before = self.probabilities
        return tf.math.divide_no_nan(tf.nn.relu(before - masked), before)

    def own_drop(self, masked):
        """Return the drop `(pairs,)` of the unit explained, and weights, 0 where it was 0."""
        known = tf.cast(self.pairs.of_units(self.probabilities) > 0, tf.float32)
        return self.pairs.of_units(self.drop(masked)), known

    def drop_of_others(self, masked, others):
        """Return the mean drop `(pairs,)` of the other units explained, and weights."""
        one_of("others", others, ("zero", "skip"))
        own = tf.one_hot(self.pairs.units, tf.shape(masked)[-1])
        present = tf.gather(self.pairs.present, self.pairs.samples) * (1 - own)
        count = tf.reduce_sum(present, axis=1)
        total = tf.reduce_sum(present * self.drop(masked), axis=1)
        known = tf.ones_like(count) if others == "zero" else tf.cast(count > 0, tf.float32)
        return total / tf.maximum(count, 1), known


def masked_scores(
    model: keras.Model,
    x: Inputs,
    maps: tf.Tensor,
    indices: Units = None,
    *,
    logits: ArrayLike | None = None,
    detections: ArrayLike | None = None,
    threshold: float = 0.5,
    activation: Callable | None = None,
    fill: str = "zero",
    chunk: int = 32,
    parts: Collection[str] = ("retained", "removed"),
) -> MaskedScores:
    r"""Predict masked inputs, with one pass of the model per explained pair and part.

    What the model predicts of unit c is :math:`p_{ic}` for sample i as it is,

    .. math:: o_{ic} = p_c(x_i \odot m_{ic}), \quad \bar o_{ic} = p_c(x_i \odot (1 - m_{ic}))

    for what the map of the unit shows, and for what it doesn't, with :math:`m_{ic}` that map,
    resized to the input: a mask from 0 to 1.

    Args:
        model: `keras.Model`, as trained.
        x: inputs, what the model takes.
        maps: `(samples, *positions, units)`, from 0 to 1, one map per unit; or
            `(samples, *positions, n)`, one for each of `indices`.
        indices: units explained, integers `(samples,)` or `(samples, n)`, or "argmax". Defaults to
            the units whose predicted probability is above `threshold`.
        logits: `(samples, units)`, which save the pass of the model that tells what it predicts.
            Defaults to `None`.
        detections: boolean or float `(samples, units)`, 1 for the explained units, such as labels.
            Defaults to those of `indices`, or above `threshold`.
        threshold: probability above which a unit is detected. Defaults to 0.5.
        activation: function from logits to probabilities. Defaults to the one at the end of the
            model, or to a sigmoid where it has none.
        fill: what takes the place of what is left out: "zero", which published figures take, "mean"
            of the image, per channel, or "blur", the image blurred. Defaults to "zero".
        chunk: the most masked inputs predicted at once. Defaults to 32.
        parts: which predictions to make, "retained" and "removed".

    Returns:
        `MaskedScores`.

    Raises:
        ValueError: if an argument doesn't fit the others.
    """
    one_of("fill", fill, FILLS)
    chunk = positive_integer("chunk", chunk)
    pairs = explained_pairs(model, x, maps, indices, logits, detections, threshold, activation)
    index = shown_index(x, maps)
    image = keras.tree.flatten(x)[index]
    other = filler(image, fill)

    def predict(rows, part):
        samples = tf.gather(pairs.samples, rows)
        kept = tf.cast(at_input(tf.gather(pairs.maps, rows), image), image.dtype)
        kept = kept if part == "retained" else 1 - kept
        mixed = kept * tf.gather(image, samples) + (1 - kept) * tf.gather(other, samples)
        return predictions(model, replaced(x, index, mixed, samples), activation)

    def predicted(part):
        if part not in parts:
            return None
        num_units = pairs.probabilities.shape[-1]
        count = tf.shape(pairs.samples)[0]
        return in_chunks(lambda rows: predict(rows, part), count, chunk, num_units)

    return MaskedScores(pairs, predicted("retained"), predicted("removed"))


def _masking_metric(higher_is_better, *parts, combine=None):
    return explanation_metric(
        category="faithfulness",
        higher_is_better=higher_is_better,
        protocol=masked_scores,
        parts=parts,
        combine=combine,
        unit_interval=True,
    )


@_masking_metric(True, "retained")
def increase_in_confidence(scores: MaskedScores) -> Rows:
    r"""Tell whether the unit is predicted with more confidence from what its map shows alone.

    .. math:: [p_{ic} < o_{ic}]

    Differences below 1e-6, which rounding makes, count as none.

    Args:
        scores: `MaskedScores`.

    References:
        - Chattopadhay, Sarkar, Howlader, Balasubramanian, "Grad-CAM++: Improved Visual Explanations
          for Deep Convolutional Networks", WACV 2018. arXiv 1710.11063.
    """
    before = scores.pairs.of_units(scores.probabilities)
    after = scores.pairs.of_units(scores.retained)
    return tf.cast(after - before > _ROUNDING, tf.float32)


@_masking_metric(False, "retained")
def average_drop(scores: MaskedScores) -> Rows:
    r"""Tell which share of its confidence a unit loses when only what its map shows is left.

    .. math:: \max(p_{ic} - o_{ic}, 0) / p_{ic}

    Args:
        scores: `MaskedScores`.

    References:
        - Chattopadhay, Sarkar, Howlader, Balasubramanian, "Grad-CAM++: Improved Visual Explanations
          for Deep Convolutional Networks", WACV 2018. arXiv 1710.11063.
    """
    return scores.own_drop(scores.retained)


@_masking_metric(True, "removed")
def average_retention(scores: MaskedScores) -> Rows:
    r"""Tell which share of its confidence a unit loses when what its map shows is removed.

    .. math:: \max(p_{ic} - \bar o_{ic}, 0) / p_{ic}

    Args:
        scores: `MaskedScores`.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.
    """
    return scores.own_drop(scores.removed)


@_masking_metric(True, "retained")
def average_drop_of_others(scores: MaskedScores, *, others: str = "zero") -> Rows:
    r"""Tell which share of their confidence the other explained units of a sample lose.

    .. math:: \frac{1}{\max(k_i - 1, 1)} \sum_{d \in D_i \setminus c}
              \max(p_{id} - o_{icd}, 0) / p_{id}

    with :math:`o_{icd}` the prediction of unit d from what the map of c shows, and :math:`D_i` the
    :math:`k_i` units explained of the sample. A map that shows nothing of them makes it high.

    Args:
        scores: `MaskedScores`.
        others: what a sample with no other unit counts for: "zero", as published, or "skip",
            nothing. Defaults to "zero".

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.
    """
    return scores.drop_of_others(scores.retained, others)


@_masking_metric(False, "removed")
def average_retention_of_others(scores: MaskedScores, *, others: str = "zero") -> Rows:
    r"""Tell which share the other explained units lose when what a map shows is removed.

    It is `average_drop_of_others` with :math:`\bar o_{icd}` for :math:`o_{icd}`: a map that covers
    what the others need makes it high.

    Args:
        scores: `MaskedScores`.
        others: as in `average_drop_of_others`.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.
    """
    return scores.drop_of_others(scores.removed, others)


def harmonic_mean(parts: tf.Tensor) -> tf.Tensor:
    """Return the harmonic mean of two parts `(..., 2)`, 0 where their sum is 0."""
    return tf.math.divide_no_nan(2 * parts[..., 0] * parts[..., 1], parts[..., 0] + parts[..., 1])


@_masking_metric(True, "retained", "removed", combine=harmonic_mean)
def f1_plus(scores: MaskedScores, *, others: str = "zero") -> Rows:
    r"""Combine what should be high: the harmonic mean of retention and drop of others.

    .. math:: F_1^+ = 2 \, AR \cdot ADO / (AR + ADO)

    of the means of a class, AR of `average_retention` and ADO of `average_drop_of_others`, before
    these are averaged over classes.

    Args:
        scores: `MaskedScores`.
        others: as in `average_drop_of_others`.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.
    """
    return _stacked(average_retention(scores), average_drop_of_others(scores, others=others))


@_masking_metric(False, "retained", "removed", combine=harmonic_mean)
def f1_minus(scores: MaskedScores, *, others: str = "zero") -> Rows:
    r"""Combine what should be low: the harmonic mean of drop and retention of others.

    .. math:: F_1^- = 2 \, AD \cdot ARO / (AD + ARO)

    of the means of a class, AD of `average_drop` and ARO of `average_retention_of_others`, before
    these are averaged over classes.

    Args:
        scores: `MaskedScores`.
        others: as in `average_drop_of_others`.

    References:
        - David, Pedrini, Dias, "MinMax-CAM: Improving Focus of CAM-based Visualization Techniques
          in Multi-label Problems", VISAPP 2022.
    """
    return _stacked(average_drop(scores), average_retention_of_others(scores, others=others))


def _stacked(*parts):
    return tuple(tf.stack(rows, axis=-1) for rows in zip(*parts, strict=True))
