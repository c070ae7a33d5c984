"""Methods that multiply the attention of all blocks, whatever the unit."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import one_of
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods.attention._scores import arrange
from keras_explainable.methods.attention._scores import attention_outputs
from keras_explainable.methods.attention._scores import by_heads
from keras_explainable.methods.attention._scores import of_query

HEADS = {"mean": tf.reduce_mean, "max": tf.reduce_max, "min": tf.reduce_min}


@explaining_method(
    family="attention",
    postprocessing="positive_normalize",
    expose=inspection.expose_attention,
    needs="attention",
)
def attention_rollout(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    heads: str = "mean",
    discard_ratio: float = 0.0,
) -> Tensors:
    r"""Explain an input with attention rollout, the attention of all blocks multiplied.

    .. math:: M = \Big( \hat{A}_L \cdots \hat{A}_1 \Big)_{\mathrm{class}}, \quad
              \hat{A}_l = \frac{1}{2} \Big( \frac{1}{h} \sum_h A_{lh} + I \Big)

    with the rows of :math:`\hat{A}_l` divided by their sums, and :math:`I` for the connections
    around attention. The map is the row of the class token at the patches, or the mean over rows
    where the logits are of all tokens, and with a target on outputs of several. It doesn't depend
    on the unit: every unit gets the same. Cost: one forward pass.

    Args:
        model: model made by `inspection.expose_attention`.
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        heads: how the heads of a block become one: "mean" (as in the paper), "max" or "min".
        discard_ratio: share of the lowest scores in each block of a sample that are set to zero,
            after the heads are one and before the rows are divided, from 0 to below 1. Defaults to
            0.0, as in the paper.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *grid, n)`, raw. Unit: share of attention.

    Raises:
        ValueError: if an option is none of the above, or the model has no attention that can be
            reached.

    References:
        - Abnar, Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, section 3,
          equation 1. arXiv 2005.00928.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> x = inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Reshape((16, 6))(keras.layers.Conv2D(6, 2, strides=2)(x))
        >>> x = keras.layers.MultiHeadAttention(2, 3)(x, x)
        >>> x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling1D()(x))
        >>> logits, maps = ke.attention_rollout(keras.Model(inputs, x), np.ones((1, 8, 8, 3)))
        >>> maps.shape
        (1, 8, 8, 5)
    """
    one_of("heads", heads, HEADS)
    discard_ratio = number("discard_ratio", discard_ratio, 0)
    if discard_ratio >= 1:
        raise invalid("discard_ratio", "a number from 0 to below 1", repr(discard_ratio))
    logits, blocks = attention_outputs(model, inputs)
    logits = gather_units(logits, indices)
    rolled = None
    for block in blocks:
        scores = _without_lowest(HEADS[heads](by_heads(block), axis=1), discard_ratio)
        scores = scores + tf.eye(_axes.sizes(scores)[1])
        scores /= tf.reduce_sum(scores, axis=-1, keepdims=True)
        rolled = scores if rolled is None else tf.matmul(scores, rolled)
    maps = arrange(model, of_query(model, rolled))
    return logits, tf.repeat(maps[..., None], tf.shape(logits)[-1], axis=-1)


def _without_lowest(scores, ratio):
    """Set a share of the scores `(batch, tokens, tokens)` of each sample to zero."""
    if ratio == 0:
        return scores
    length = scores.shape[-1]
    count = int(ratio * length**2)
    flat = tf.reshape(scores, (-1, length**2))
    ranks = tf.argsort(tf.argsort(flat, stable=True), stable=True)
    return tf.reshape(tf.where(ranks < count, 0.0, flat), (-1, length, length))
