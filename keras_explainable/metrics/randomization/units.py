"""Do maps depend on the unit that they explain?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Units
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Scores
from keras_explainable.metrics._scoring import explained_pairs
from keras_explainable.metrics.randomization.similarities import SIMILARITIES
from keras_explainable.metrics.randomization.similarities import similarity as compare


@explanation_metric(category="randomization", higher_is_better=False)
def random_logit(
    model: keras.Model,
    x: Inputs,
    maps: tf.Tensor,
    indices: Units = None,
    explain: Any = None,
    *,
    similarity: str = "rank_correlation",
    seed: int = 0,
    logits: ArrayLike | None = None,
    detections: ArrayLike | None = None,
    threshold: float = 0.5,
    activation: Callable | None = None,
) -> Scores:
    r"""Tell how alike the map of a unit and that of another unit, taken at random, are.

    .. math:: s(M_c, M_{c'}), \quad c' = (c + k) \bmod C

    with k drawn once, from 1 to C - 1, so that a value doesn't depend on what else is in the batch.
    Maps that are alike for all units don't tell what a unit sees. Units that see the same place
    may have maps that are alike and right, so that low is better only on average.

    Where one of the maps is constant, there is no value.

    Args:
        model: `keras.Model`, as trained, with two units or more.
        x: inputs, what the model takes.
        maps: `(samples, *positions, units)` or `(samples, *positions, n)`, what `explain` returns
            for `x`, of the same size and postprocessing.
        indices: units explained, integers `(samples,)` or `(samples, n)`, or "argmax". Defaults to
            the units whose predicted probability is above `threshold`; all are explained then.
        explain: function `(model, x, indices) -> (logits, maps)` that made the maps, such as
            `ke.gradcam`. It can't be left out, and is called for the other units, and once more to
            compare the maps.
        similarity: "rank_correlation", "pearson" or "ssim", see `model_parameter_randomization`.
            Defaults to "rank_correlation".
        seed: integer from 0 on, which draws k. Defaults to 0.
        logits: `(samples, units)`, which save a pass of the model. Defaults to `None`.
        detections: boolean or float `(samples, units)`, 1 for the explained units, such as labels.
            Defaults to those of `indices`, or above `threshold`.
        threshold: probability above which a unit is detected. Defaults to 0.5.
        activation: function from logits to probabilities. Defaults to the one at the end of the
            model, or to a sigmoid where it has none.

    Raises:
        TypeError: if `explain` is no such function.
        ValueError: if an argument doesn't fit the others, or the model has a single unit.

    References:
        - Sixt, Granz, Landgraf, "When Explanations Lie: Why Many Modified BP Attributions Fail",
          ICML 2020. arXiv 1912.09818.
    """
    one_of("similarity", similarity, SIMILARITIES)
    seed = positive_integer("seed", seed, least=0)
    num_units = model.outputs[0].shape[-1]
    if num_units < 2:
        raise invalid("model", "a model with two units or more", f"{num_units}")
    pairs = explained_pairs(model, x, maps, indices, logits, detections, threshold, activation)
    explain.check(x, pairs)
    step = np.random.default_rng(seed).integers(1, num_units)
    others = explain(x, pairs, (pairs.classes.numpy() + step) % num_units)
    values, known = compare(similarity, pairs.maps.numpy().astype("float64"), others)
    return pairs.scores(values.astype("float32"), known.astype("float32"))
