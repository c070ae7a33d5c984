"""Do maps add up to what they explain, and follow the function and not the way it is computed?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._keeping import Kept
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Units
from keras_explainable.metrics._explaining import norms
from keras_explainable.metrics._registry import explanation_metric
from keras_explainable.metrics._scoring import Scores
from keras_explainable.metrics._scoring import explained_pairs
from keras_explainable.metrics._scoring import predictions
from keras_explainable.metrics._scoring import replaced
from keras_explainable.metrics._scoring import shown_index

# Shifted models, by the model they are made of: their compiled steps are used again.
_shifted = Kept(4)


@explanation_metric(category="randomization", higher_is_better=False, raw=True)
def completeness(
    model: keras.Model,
    x: Inputs,
    maps: tf.Tensor,
    indices: Units = None,
    *,
    baseline: ArrayLike = 0.0,
    logits: ArrayLike | None = None,
    detections: ArrayLike | None = None,
    threshold: float = 0.5,
    activation: Callable | None = None,
) -> Scores:
    r"""Tell by how much a map misses what the logit gains on that of a baseline.

    .. math:: \left| \sum_p M_{cp} - (f_c(x) - f_c(x')) \right|

    with f the logits: 0 for attributions that are complete, such as integrated gradients in enough
    steps. It is meant for raw maps, neither filtered nor resized, in the unit of logits, whose
    channels are summed: `ke.integrated_gradients(model, x, postprocessing=None)`. Of several inputs
    the first one with the rank of the maps is replaced by the baseline. It costs one pass.

    Args:
        model: `keras.Model`, as trained.
        x: inputs, what the model takes.
        maps: `(samples, *positions, units)`, or `(samples, *positions, n)`, one for each of
            `indices`.
        indices: units explained, integers `(samples,)` or `(samples, n)`, or "argmax". Defaults to
            the units whose predicted probability is above `threshold`.
        baseline: x', a number, or an array that fits the shape of a sample, with channels last.
            Defaults to 0.
        logits: `(samples, units)`, which save a pass of the model. Defaults to `None`.
        detections: boolean or float `(samples, units)`, 1 for the explained units, such as labels.
            Defaults to those of `indices`, or above `threshold`.
        threshold: probability above which a unit is detected. Defaults to 0.5.
        activation: function from logits to probabilities. Defaults to the one at the end of the
            model, or to a sigmoid where it has none.

    Raises:
        ValueError: if an argument doesn't fit the others.

    References:
        - Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.
          arXiv 1703.01365.
    """
    index = shown_index(x, maps)
    image = keras.tree.flatten(x)[index]
    baseline = _baseline(baseline, image)
    logits = predictions(model, x, "linear") if logits is None else tf.cast(logits, tf.float32)
    pairs = explained_pairs(model, x, maps, indices, logits, detections, threshold, activation)
    everywhere = tf.zeros_like(image) + tf.cast(baseline, image.dtype)
    others = predictions(
        model, replaced(x, index, everywhere, tf.range(tf.shape(image)[0])), "linear"
    )
    gain = pairs.of_units(tf.gather(logits - others, pairs.samples))
    total = tf.reduce_sum(pairs.maps, axis=[*range(1, pairs.maps.shape.rank)])
    return pairs.scores(tf.abs(total - gain))


@explanation_metric(category="randomization", higher_is_better=False)
def input_invariance(
    model: keras.Model,
    x: Inputs,
    maps: tf.Tensor,
    indices: Units = None,
    explain: Any = None,
    *,
    shift: float = 1.0,
    logits: ArrayLike | None = None,
    detections: ArrayLike | None = None,
    threshold: float = 0.5,
    activation: Callable | None = None,
) -> Scores:
    r"""Tell how far a map is moved by a shift of the input that the model takes back.

    .. math:: \| M' - M \| / \| M \|

    with :math:`M'` the map of x + s for the model that computes f(x - s): the same function of the
    same image in other units, which a map should not depend on: 0 for gradients and for what is
    computed from inner activations, above 0 for what is multiplied by the input, or compares it
    with a baseline that isn't shifted with it. A map of zeros has no value.

    Args:
        model: `keras.Model`, as trained.
        x: inputs, what the model takes.
        maps: `(samples, *positions, units)` or `(samples, *positions, n)`, what `explain` returns
            for `x`, of the same size and postprocessing.
        indices: units explained, integers `(samples,)` or `(samples, n)`, or "argmax". Defaults to
            the units whose predicted probability is above `threshold`; all are explained then.
        explain: function `(model, x, indices) -> (logits, maps)` that made the maps, such as
            `ke.gradcam`. It can't be left out, and is called with a model around the layers of
            `model`, where layers keep their names but not their numbers, and once more to compare
            the maps.
        shift: s, a number other than 0, added to all values of the input. Of several inputs, the
            first one with the rank of the maps is shifted. Defaults to 1.
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
        - Kindermans, Hooker, Adebayo, Alber, Schütt, Dähne, Erhan, Kim, "The (Un)reliability of
          Saliency Methods", 2017. arXiv 1711.00867.
    """
    shift = number("shift", shift)
    if shift == 0:
        raise invalid("shift", "a number other than 0", repr(shift))
    pairs = explained_pairs(model, x, maps, indices, logits, detections, threshold, activation)
    explain.check(x, pairs)
    index = shown_index(x, maps)
    image = keras.tree.flatten(x)[index]
    shifted = _shifted.get(
        explain.model, (index, shift), lambda: _Shifted(explain.model, index, shift)
    )
    inputs = replaced(x, index, image + tf.cast(shift, image.dtype), tf.range(tf.shape(image)[0]))
    original = pairs.maps.numpy().astype("float64")
    away, length = norms(explain(inputs, pairs, model=shifted) - original), norms(original)
    values = np.divide(away, length, out=np.zeros_like(away), where=length > 0)
    return pairs.scores(values.astype("float32"), (length > 0).astype("float32"))


class _Shifted(keras.Model):
    """A model that takes a constant off one of its inputs, and computes what another one does."""

    def __init__(self, model, index, shift):
        super().__init__(name=f"{model.name}_shifted")
        # A copy, with the same layers, which doesn't keep the model alive.
        self.original = _compat.twin(model, model.name)
        vars(self.original).update(_compat.rebound(model, self.original))
        self.index = index
        self.shift = shift
        self.built = True

    def call(self, inputs):
        flat = keras.tree.flatten(inputs)
        flat[self.index] = flat[self.index] - self.shift
        inputs = keras.tree.pack_sequence_as(inputs, flat)
        return self.original(inputs)


def _baseline(baseline, image):
    """Return the baseline as an array that fits a sample."""
    array = np.asarray(baseline)
    is_number = np.issubdtype(array.dtype, np.number) and np.isfinite(array).all()
    shape = image.shape[1:]
    fits = is_number and array.ndim <= shape.rank
    if fits:
        sizes = zip(array.shape[::-1], [*shape][::-1], strict=False)
        fits = all(size in (1, other) or other is None for size, other in sizes)
    if not fits:
        received = repr(baseline) if array.ndim == 0 else f"shape {array.shape}"
        expected = f"a number, or an array of finite numbers that fits {tuple(shape)}"
        raise invalid("baseline", expected, received)
    return array
