"""SmoothGrad and its relatives."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Method
from keras_explainable.methods._registry import meta_method
from keras_explainable.methods.meta._repeating import check_noise
from keras_explainable.methods.meta._repeating import copies_at_once
from keras_explainable.methods.meta._repeating import explained_units
from keras_explainable.methods.meta._repeating import moments
from keras_explainable.methods.meta._repeating import noisy_copies
from keras_explainable.methods.meta._repeating import own_seed
from keras_explainable.methods.meta._repeating import repeated
from keras_explainable.methods.meta._repeating import repeated_options
from keras_explainable.methods.meta._repeating import unfolded

STATISTICS = ("mean", "mean_square", "variance")


@meta_method()
def smooth(
    method: Method,
    *,
    num_samples: int = 25,
    stddev: float = 0.15,
    relative: bool = True,
    statistic: str = "mean",
    seed: int = 0,
    chunk_size: int = 16,
) -> Callable:
    r"""Explain noisy copies of the inputs, and average: SmoothGrad, for any method.

    .. math:: M = \frac{1}{N} \sum_{r=1}^N m(x + \epsilon_r), \quad
              \epsilon_r \sim \mathcal{N}(0, s^2)

    with :math:`m` the map of the method. The same noise is added to all samples, up to its scale,
    so that a map doesn't depend on what else is in the batch. The units that "argmax" stands for
    are those of the inputs without noise, and so are the logits. Cost: one forward pass, and N
    times that of the method; memory: that of the method for a chunk, and one or two maps.

    Args:
        method: name of a method, or a function `(model, inputs, indices, ...) -> (logits, maps)`,
            such as what a meta method returns.
        num_samples: N, the number of noisy copies. Defaults to 25.
        stddev: standard deviation s of the noise. Defaults to 0.15.
        relative: take `stddev` as a share of the range (maximum less minimum) of each sample.
            Defaults to True.
        statistic: "mean" (SmoothGrad), "mean_square" (of the maps, SmoothGrad-Squared) or
            "variance" (VarGrad).
        seed: integer; the same seed gives the same maps. Defaults to 0.
        chunk_size: number of samples that are explained at a time, noisy copies of the same sample
            counted apart, but at least one copy of the batch. It changes time and memory, not the
            result. Defaults to 16.

    Returns:
        a method with the options of the one given.

    Raises:
        ValueError: if there is no such method, or an option is none of the above.
        TypeError: if `method` is neither a name nor a function.

    References:
        - Smilkov, Thorat, Kim, Viégas, Wattenberg, "SmoothGrad: removing noise by adding noise",
          2017. arXiv 1706.03825.
        - Adebayo, Gilmer, Goodfellow, Kim, "Local Explanation Methods for Deep Neural Networks Lack
          Sensitivity to Parameter Values", ICLR Workshop 2018 (VarGrad). arXiv 1810.03307.
        - Hooker, Erhan, Kindermans, Kim, "A Benchmark for Interpretability Methods in Deep Neural
          Networks", NeurIPS 2019 (SmoothGrad-Squared). arXiv 1806.10758.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> smoothgrad = ke.methods.smooth("gradients", num_samples=4)
        >>> logits, maps = ke.explain(smoothgrad, model, np.ones((1, 64, 64, 3)), 7)
        >>> maps.shape
        (1, 64, 64, 1)
    """
    check_noise(num_samples, stddev, seed)
    positive_integer("chunk_size", chunk_size)
    one_of("statistic", statistic, STATISTICS)
    seed = own_seed(method, seed)

    def explain(model, inputs, indices=None, **options):
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        logits, indices = explained_units(model, inputs, indices)
        size = copies_at_once(inputs, num_samples, chunk_size)

        def explain_noisy(first, count):
            noisy = noisy_copies(inputs, stddev, relative, seed, first, count)
            own = repeated_options(method, options, count)
            maps = unfolded(method(model, noisy, repeated(indices, count), **own)[1], count)
            if statistic != "mean_square":
                return maps
            return tf.nest.map_structure(tf.square, maps)

        with_deviations = statistic == "variance"
        means, deviations = moments(explain_noisy, num_samples, size, with_deviations)
        if with_deviations:
            return logits, tf.nest.map_structure(lambda d: d / num_samples, deviations)
        return logits, means

    vars(explain)["keeps_gradients"] = statistic == "mean"
    return explain
