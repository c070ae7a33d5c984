"""The sanity check of Adebayo et al.: what is left of a map when the weights are random."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Units
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Scores
from keras_explainable.metrics._scoring import explained_pairs
from keras_explainable.metrics.randomization import weights
from keras_explainable.metrics.randomization.similarities import SIMILARITIES
from keras_explainable.metrics.randomization.similarities import similarity as compare

ORDERS = ("cascading", "independent")


@explanation_metric(
    category="randomization",
    higher_is_better=False,
    # True of both orders: with "independent" a stage is randomized alone.
    curve_axis="stage, from none to the one nearest to the input",
)
def model_parameter_randomization(
    model: keras.Model,
    x: Inputs,
    maps: tf.Tensor,
    indices: Units = None,
    explain: Any = None,
    *,
    order: str = "cascading",
    similarity: str = "rank_correlation",
    num_stages: int | None = None,
    seed: int = 0,
    logits: ArrayLike | None = None,
    detections: ArrayLike | None = None,
    threshold: float = 0.5,
    activation: Callable | None = None,
) -> Scores:
    r"""Tell how alike a map and those of the model with random weights are.

    .. math:: \frac{1}{K} \sum_{k=1}^K s(M, M_k)

    with :math:`M_k` the map after stage k, which replaces the weights of some layers, the ones
    nearest to the output first. The curve of the scores is the similarity s of the map to itself,
    and after each of the K stages. A map that stays what it is shows the input, and not what the
    model has learnt; below 0, which a correlation can be, lower is not better either.

    A weight gets what the initializer of its layer draws; where the layer tells none, such as a
    layer of one's own, its own values in another order. Statistics of `Normalization` layers stay.
    The weights are put back at the end, whatever happens, and until then the model must not be used
    by anything else. `explain` has to read the weights at each call, as `ke.explain` does.

    A map that is constant has no value; one that becomes constant has a similarity of 0.

    Args:
        model: `keras.Model`, as trained.
        x: inputs, what the model takes.
        maps: `(samples, *positions, units)` or `(samples, *positions, n)`, what `explain` returns
            for `x`, of the same size and postprocessing.
        indices: units explained, integers `(samples,)` or `(samples, n)`, or "argmax" of the model
            as trained. Defaults to the units whose predicted probability is above `threshold`; all
            are explained then.
        explain: function `(model, x, indices) -> (logits, maps)` that made the maps, such as
            `ke.gradcam`. It can't be left out, and is called once per stage, and once more to
            compare the maps.
        order: "cascading", each stage on top of those before, or "independent", each stage alone.
            Defaults to "cascading".
        similarity: "rank_correlation" (Spearman, equal values with the mean of their ranks),
            "pearson", or "ssim" (structural similarity of maps of images, stretched to [0, 1], with
            a window of 11 positions, or of the map where it is smaller). Defaults to
            "rank_correlation".
        num_stages: number of stages, into which layers are grouped evenly. Defaults to one for each
            layer with weights, together with the batch normalization that follows it.
        seed: integer from 0 on; the same seed gives the same weights. Defaults to 0.
        logits: `(samples, units)`, which save a pass of the model. Defaults to `None`.
        detections: boolean or float `(samples, units)`, 1 for the explained units, such as labels.
            Defaults to those of `indices`, or above `threshold`.
        threshold: probability above which a unit is detected. Defaults to 0.5.
        activation: function from logits to probabilities. Defaults to the one at the end of the
            model, or to a sigmoid where it has none.

    Raises:
        TypeError: if `explain` is no such function.
        ValueError: if an argument doesn't fit the others.

    References:
        - Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, "Sanity Checks for Saliency Maps",
          NeurIPS 2018. arXiv 1810.03292.
    """
    one_of("order", order, ORDERS)
    one_of("similarity", similarity, SIMILARITIES)
    seed = positive_integer("seed", seed, least=0)
    if num_stages is not None:
        num_stages = positive_integer("num_stages", num_stages)
    pairs = explained_pairs(model, x, maps, indices, logits, detections, threshold, activation)
    stages = weights.stages(explain.model, num_stages)
    explain.check(x, pairs)
    original = pairs.maps.numpy().astype("float64")
    unchanged, known = compare(similarity, original, original)
    curve = [unchanged]  # As trained, before any stage.
    with weights.kept([slot for stage in stages for slot in stage]):
        for stage in stages:
            alone = weights.kept(stage) if order == "independent" else contextlib.nullcontext()
            with alone:
                weights.randomize(stage, seed)
                curve.append(compare(similarity, original, explain(x, pairs))[0])
    curve = np.stack(curve, axis=1).astype("float32")
    return pairs.scores(curve[:, 1:].mean(axis=1), known.astype("float32"), curve)
