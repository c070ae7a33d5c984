"""Do explanations of inputs that hardly differ agree?"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import positive_integer
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Units
from keras_explainable.metrics._explaining import norms
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Pairs
from keras_explainable.metrics._scoring import Rows
from keras_explainable.metrics._scoring import explained_pairs
from keras_explainable.metrics._scoring import predictions
from keras_explainable.metrics._scoring import replaced
from keras_explainable.metrics._scoring import shown_index

# What relative changes are divided by at least, as published.
_LEAST = 1e-6
_RANGE = np.finfo("float32").min, np.finfo("float32").max


class PerturbedExplanations(NamedTuple):
    """What becomes of explanations when inputs are perturbed: arrays `(pairs, draws)`.

    Attributes:
        pairs: `Pairs`, what is explained.
        lengths: `(pairs,)`, norm of each map.
        changes: norm of the change of each map.
        relative_changes: norm of the change as a share of the map, position by position.
        input_changes: norm of the perturbation.
        relative_input_changes: norm of the perturbation as a share of the input, value by value.
        output_changes: norm of the change of the logits; `None` where not asked for.
        same_class: whether the class predicted stays; `None` where not asked for.
    """

    pairs: Pairs
    lengths: np.ndarray
    changes: np.ndarray
    relative_changes: np.ndarray
    input_changes: np.ndarray
    relative_input_changes: np.ndarray
    output_changes: np.ndarray | Any
    same_class: np.ndarray | Any

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the change of each map as a share of its norm, and weights `(pairs,)`."""
        known = (self.lengths > 0) & (self.input_changes > 0).any(axis=1)
        return _divided(self.changes, self.lengths[:, None]), known.astype("float32")

    def instability(self, changes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the highest relative change of a map per change, of those that keep the class."""
        ratios = self.relative_changes / np.maximum(changes, _LEAST)
        known = self.same_class & (self.input_changes > 0) & (self.lengths > 0)[:, None]
        return _highest(np.where(known, ratios, 0)), known.any(axis=1).astype("float32")


def perturbed_explanations(
    model: keras.Model,
    x: Inputs,
    maps: tf.Tensor,
    indices: Units = None,
    explain: Any = None,
    *,
    num_samples: int = 10,
    radius: float = 0.02,
    seed: int = 0,
    logits: ArrayLike | None = None,
    detections: ArrayLike | None = None,
    threshold: float = 0.5,
    activation: Callable | None = None,
    parts: Collection[str] = ("outputs",),
) -> PerturbedExplanations:
    r"""Explain inputs with noise added to them.

    The maps are compared with those of inputs with noise, drawn R times,

    .. math:: M'_r = M(x + \delta_r), \quad \delta_r \sim \mathcal{U}(-\rho, \rho)

    with :math:`\rho` the radius times the range (maximum less minimum) of a sample. The same noise
    is added to all samples, up to its scale, so that a value doesn't depend on what else is in the
    batch. The units explained are those of the inputs without noise, and norms are Euclidean, over
    all positions. Of several inputs, the first one with the rank of the maps gets the noise.

    Args:
        model: `keras.Model`, as trained.
        x: inputs, what the model takes.
        maps: `(samples, *positions, units)` or `(samples, *positions, n)`, what `explain` returns
            for `x`, of the same size and postprocessing.
        indices: units explained, integers `(samples,)` or `(samples, n)`, or "argmax". Defaults to
            the units whose predicted probability is above `threshold`; all are explained then.
        explain: function `(model, x, indices) -> (logits, maps)` that made the maps, such as
            `ke.gradcam`, or a `functools.partial` of it with options. It can't be left out, and is
            called `num_samples` times, and once more to compare the maps.
        num_samples: number of perturbations. Defaults to 10.
        radius: the largest change of a value of the input, as a share of the range of the sample.
            Defaults to 0.02.
        seed: integer from 0 on; the same seed gives the same noise. Defaults to 0.
        logits: `(samples, units)`, which save a pass of the model. Defaults to `None`.
        detections: boolean or float `(samples, units)`, 1 for the explained units, such as labels.
            Defaults to those of `indices`, or above `threshold`.
        threshold: probability above which a unit is detected. Defaults to 0.5.
        activation: function from logits to probabilities. Defaults to the one at the end of the
            model, or to a sigmoid where it has none.
        parts: "outputs" to predict the perturbed inputs too, at the price of a pass for each.

    Returns:
        `PerturbedExplanations`.

    Raises:
        TypeError: if `explain` is no such function.
        ValueError: if an argument doesn't fit the others.
    """
    num_samples = positive_integer("num_samples", num_samples)
    if number("radius", radius, least=0) == 0:
        raise invalid("radius", "a number above 0", repr(radius))
    seed = positive_integer("seed", seed, least=0)
    logits = predictions(model, x, "linear") if logits is None else tf.cast(logits, tf.float32)
    pairs = explained_pairs(model, x, maps, indices, logits, detections, threshold, activation)
    explain.check(x, pairs)
    samples, original = pairs.samples.numpy(), pairs.maps.numpy().astype("float64")
    index = shown_index(x, maps)
    found = []
    for draw in range(num_samples):
        noisy, noise, share = _perturbed(x, index, radius, (seed, draw))
        rows = explain(noisy, pairs)
        change = rows - original
        outputs, same = None, None
        if "outputs" in parts:
            new = predictions(model, noisy, "linear")
            outputs, same = norms(new - logits)[samples], _same_class(new, logits)[samples]
        relative = norms(_divided(change, original))
        found.append((norms(change), relative, noise[samples], share[samples], outputs, same))
    columns: list[Any] = [
        None if c[0] is None else np.stack(c, axis=1) for c in zip(*found, strict=True)
    ]
    return PerturbedExplanations(pairs, norms(original), *columns)


def _perturbed(x, index, radius, seed):
    """Return inputs with noise, its norm `(batch,)`, and the norm of its share in each value."""
    flat = keras.tree.flatten(x)
    image = flat[index]
    if not image.dtype.is_floating:
        expected = "an input of floating point of the rank of the maps, to add noise to"
        raise invalid("x", expected, image.dtype.name)
    axes = tuple(range(1, image.shape.rank))
    scale = tf.reduce_max(image, axes, True) - tf.reduce_min(image, axes, True)
    noise = tf.random.stateless_uniform((1, *image.shape[1:]), seed, -1, 1, alg="philox")
    noisy = image + radius * scale * tf.cast(noise, image.dtype)
    # The difference that rounding left is the one that the model sees.
    original, change = (np.asarray(t, "float64") for t in (image, noisy - image))
    inputs = replaced(x, index, noisy, tf.range(tf.shape(image)[0]))
    return inputs, norms(change), norms(_divided(change, original))


def _same_class(new, old):
    """Tell of which samples `(batch,)` the class predicted is the same; of one unit, the sign."""
    if old.shape[-1] == 1:
        return np.asarray((new > 0) == (old > 0))[:, 0]
    return np.asarray(tf.argmax(new, axis=-1) == tf.argmax(old, axis=-1))


def _divided(values, divisors):
    """Divide, with 0 for a division by 0."""
    divisors = np.broadcast_to(divisors, np.shape(values))
    with np.errstate(over="ignore"):
        found = np.divide(values, divisors, out=np.zeros(np.shape(values)), where=divisors != 0)
    return np.clip(found, *_RANGE)


def _highest(values):
    return np.minimum(values.max(axis=1), _RANGE[1]).astype("float32")


def _robustness_metric(*parts):
    return explanation_metric(
        category="robustness",
        higher_is_better=False,
        protocol=perturbed_explanations,
        parts=parts,
    )


@_robustness_metric()
def max_sensitivity(scores: PerturbedExplanations) -> Rows:
    r"""Tell how far a map is moved by noise in the input at most, as a share of its norm.

    .. math:: \max_r \| M'_r - M \| / \| M \|

    The maximum over random draws is a lower bound of the one over the ball. A map of zeros has no
    value, nor has an input that is the same everywhere, as its range is 0.

    Args:
        scores: `PerturbedExplanations`.

    References:
        - Yeh, Hsieh, Suggala, Inouye, Ravikumar, "On the (In)fidelity and Sensitivity of
          Explanations", NeurIPS 2019. arXiv 1901.09392.
    """
    shares, weights = scores.shares()
    return _highest(shares), weights


@_robustness_metric()
def average_sensitivity(scores: PerturbedExplanations) -> Rows:
    r"""Tell how far a map is moved by noise in the input on average, as a share of its norm.

    .. math:: \frac{1}{R} \sum_{r=1}^R \| M'_r - M \| / \| M \|

    What `max_sensitivity` leaves out has no value here either.

    Args:
        scores: `PerturbedExplanations`.

    References:
        - Yeh, Hsieh, Suggala, Inouye, Ravikumar, "On the (In)fidelity and Sensitivity of
          Explanations", NeurIPS 2019. arXiv 1901.09392.
        - Bhatt, Weller, Moura, "Evaluating and Aggregating Feature-based Model Explanations", IJCAI
          2020. arXiv 2005.00631.
    """
    shares, weights = scores.shares()
    return shares.mean(axis=1).astype("float32"), weights


@_robustness_metric()
def local_lipschitz(scores: PerturbedExplanations) -> Rows:
    r"""Tell how much faster than the input a map changes: a Lipschitz constant near the input.

    .. math:: \max_r \| M'_r - M \| / \| \delta_r \|

    It has the unit of maps over that of inputs: compare maps of one scale only. An input that is
    the same everywhere has no value, as its range is 0.

    Args:
        scores: `PerturbedExplanations`.

    References:
        - Alvarez-Melis, Jaakkola, "On the Robustness of Interpretability Methods", ICML Workshop on
          Human Interpretability in Machine Learning 2018. arXiv 1806.08049.
    """
    known = (scores.input_changes > 0).any(axis=1).astype("float32")
    return _highest(_divided(scores.changes, scores.input_changes)), known


@_robustness_metric("outputs")
def relative_input_stability(scores: PerturbedExplanations) -> Rows:
    r"""Tell how much more than the input a map changes, each in shares of its values.

    .. math:: \max_r \frac{\| (M'_r - M) / M \|}{\max(\| \delta_r / x \|, 10^{-6})}

    over the draws that leave the class predicted, the highest logit, as it is (of a single unit:
    the sign of its logit); where there is none, there is no value. Positions where the map is 0,
    and values of the input that are 0, have no relative change and are left out of the norms.

    Args:
        scores: `PerturbedExplanations`.

    References:
        - Agarwal, Johnson, Pawelczyk, Krishna, Saxena, Zitnik, Lakkaraju, "Rethinking Stability for
          Attribution-based Explanations", 2022. arXiv 2203.06877.
    """
    return scores.instability(scores.relative_input_changes)


@_robustness_metric("outputs")
def relative_output_stability(scores: PerturbedExplanations) -> Rows:
    r"""Tell how much a map changes, in shares of its values, per change of the logits.

    .. math:: \max_r \frac{\| (M'_r - M) / M \|}{\max(\| f(x + \delta_r) - f(x) \|, 10^{-6})}

    with f the logits of all units. The draws that count are those of `relative_input_stability`.

    Args:
        scores: `PerturbedExplanations`.

    References:
        - Agarwal, Johnson, Pawelczyk, Krishna, Saxena, Zitnik, Lakkaraju, "Rethinking Stability for
          Attribution-based Explanations", 2022. arXiv 2203.06877.
    """
    return scores.instability(scores.output_changes)
