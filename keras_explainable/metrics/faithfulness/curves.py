"""Faithfulness by curves: predictions while what a map shows is removed, or comes back."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Function
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Rows
from keras_explainable.metrics.faithfulness import _perturbing
from keras_explainable.metrics.faithfulness._perturbing import ExplainedInputs

# A prediction that falls by no more than rounding didn't fall.
_ROUNDING = 1e-6


def curve_metric(
    higher_is_better: bool | None, curve_axis: str = ""
) -> Callable[[Function], Function]:
    """Register a metric that changes inputs."""
    return explanation_metric(
        category="faithfulness",
        higher_is_better=higher_is_better,
        protocol=_perturbing.explained_inputs,
        curve_axis=curve_axis,
    )


@curve_metric(higher_is_better=True, curve_axis="share of the features put in")
def insertion(
    inputs: ExplainedInputs,
    *,
    num_steps: int = 50,
    step_size: int | None = None,
    fill: str = "blur",
) -> Rows:
    r"""Tell how soon a unit is predicted when features come back, the most relevant ones first.

    .. math:: \frac{1}{n} \sum_{j=1}^n \frac{p_{j-1} + p_j}{2}

    with :math:`p_j` the probability of the unit for the blurred input in which the first
    :math:`\lfloor j N / n \rfloor` of N features, by the map, are those of the input. Of equal
    values of a map the first comes first.

    Args:
        inputs: `ExplainedInputs`.
        num_steps: number of steps n. Defaults to 50.
        step_size: number of features per step, in place of `num_steps`. Defaults to `None`.
        fill: what stands for what isn't there yet: "blur" (Gaussian of 11 pixels and standard
            deviation 5), "mean" of the image, per channel, or "zero". Defaults to "blur".

    References:
        - Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
          Models", BMVC 2018. arXiv 1806.07421.
    """
    counts = _perturbing.removal_counts(inputs.num_features, num_steps, step_size)
    curve = inputs.curve(counts[:-1], fill, inserted=True)
    curve = tf.concat([curve, inputs.before[:, None]], axis=1)
    return _perturbing.area(curve), None, curve


@curve_metric(higher_is_better=False, curve_axis="share of the features removed")
def deletion(
    inputs: ExplainedInputs,
    *,
    num_steps: int = 50,
    step_size: int | None = None,
    fill: str = "zero",
) -> Rows:
    r"""Tell how long a unit is predicted when features go, the most relevant ones first.

    It is the area of `insertion`, with :math:`p_j` the probability of the unit for the input
    without the first :math:`\lfloor j N / n \rfloor` of N features.

    Args:
        inputs: `ExplainedInputs`.
        num_steps: number of steps n. Defaults to 50.
        step_size: number of features per step, in place of `num_steps`. Defaults to `None`.
        fill: what takes the place of what is removed: "zero", "mean" of the image, per channel, or
            "blur". Defaults to "zero".

    References:
        - Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
          Models", BMVC 2018. arXiv 1806.07421.
    """
    counts = _perturbing.removal_counts(inputs.num_features, num_steps, step_size)
    curve = inputs.curve(counts[1:], fill)
    curve = tf.concat([inputs.before[:, None], curve], axis=1)
    return _perturbing.area(curve), None, curve


@curve_metric(higher_is_better=False)
def pixel_flipping(
    inputs: ExplainedInputs,
    *,
    num_steps: int = 50,
    step_size: int | None = None,
    fill: str = "zero",
) -> Rows:
    r"""Tell what is left of a prediction, on average, when features are flipped one by one.

    .. math:: \frac{1}{n} \sum_{j=1}^n p_j

    with :math:`p_j` as in `deletion`: the prediction for the unchanged input doesn't count.

    Args:
        inputs: `ExplainedInputs`.
        num_steps: number of steps n. Defaults to 50.
        step_size: number of features per step, in place of `num_steps`; 1 for one by one. Defaults
            to `None`.
        fill: what features are flipped to: "zero", "mean" of the image, per channel, or "blur".
            Defaults to "zero".

    References:
        - Bach, Binder, Montavon, Klauschen, Müller, Samek, "On Pixel-Wise Explanations for
          Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation", PLOS ONE 2015.
    """
    counts = _perturbing.removal_counts(inputs.num_features, num_steps, step_size)
    curve = inputs.curve(counts[1:], fill)
    return tf.reduce_mean(curve, axis=1), None, curve


@curve_metric(higher_is_better=False, curve_axis="share of the patches removed")
def selectivity(inputs: ExplainedInputs, *, patch_size: int = 8, fill: str = "zero") -> Rows:
    r"""Tell how long a unit is predicted when patches go, the most relevant ones first.

    It is the area of `deletion`, with a step for each patch of a grid; a patch is as relevant as
    the sum of the map inside. Those at the end of an axis are smaller where sizes ask for it.

    Args:
        inputs: `ExplainedInputs`.
        patch_size: number of positions per axis of a patch. Defaults to 8.
        fill: what takes the place of a patch: "zero", "mean" of the image, per channel, or "blur".
            Defaults to "zero".

    References:
        - Montavon, Samek, Müller, "Methods for Interpreting and Understanding Deep Neural
          Networks", Digital Signal Processing 2018. arXiv 1706.07979.
    """
    size = positive_integer("patch_size", patch_size)
    sizes = _axes.sizes(inputs.image)[1:-1]
    num_patches = math.prod(-(-length // size) for length in sizes)

    def ranked(maps):
        maps = tf.reduce_sum(maps, axis=-1, keepdims=True)
        axes = _axes.spatial(maps.shape.rank)
        rest = [[0, 0], *([0, -length % size] for length in sizes), [0, 0]]
        maps = tf.pad(maps, rest)
        for axis in axes:
            maps = _perturbing.pooled(maps, axis, size, size)
        found = _perturbing.ranks(maps)
        for axis, length in zip(axes, sizes, strict=True):
            found = tf.gather(found, tf.range(length) // size, axis=axis)
        return found

    curve = inputs.curve(tf.range(1, num_patches + 1), fill, ranked)
    curve = tf.concat([inputs.before[:, None], curve], axis=1)
    return _perturbing.area(curve), None, curve


@curve_metric(higher_is_better=True)
def monotonicity(
    inputs: ExplainedInputs,
    *,
    num_steps: int = 50,
    step_size: int | None = None,
    fill: str = "zero",
) -> Rows:
    r"""Tell whether a prediction never falls when features come, the least relevant ones first.

    .. math:: [p_0 \le p_1 \le \dots \le p_n]

    with :math:`p_j` the probability of the unit for the input with only the last
    :math:`\lfloor j N / n \rfloor` of N features. It may fall by 1e-6, which rounding does.

    Args:
        inputs: `ExplainedInputs`.
        num_steps: number of steps n. Defaults to 50.
        step_size: number of features per step, in place of `num_steps`. Defaults to `None`.
        fill: what stands for what isn't there yet: "zero", "mean" of the image, per channel, or
            "blur". Defaults to "zero".

    References:
        - Arya et al., "One Explanation Does Not Fit All: A Toolkit and Taxonomy of AI
          Explainability Techniques", 2019. arXiv 1909.03012.
    """
    counts = _perturbing.removal_counts(inputs.num_features, num_steps, step_size)
    least_first = lambda maps: _perturbing.ranks(-maps)  # noqa: E731
    curve = inputs.curve(counts[:-1], fill, least_first, inserted=True)
    curve = tf.concat([curve, inputs.before[:, None]], axis=1)
    rises = tf.reduce_all(curve[:, 1:] - curve[:, :-1] >= -_ROUNDING, axis=1)
    return tf.cast(rises, tf.float32), None, curve
