"""Methods that weigh attention by the gradients of the logits."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods.attention._scores import explain_blocks


@explaining_method(
    family="attention",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity"},
    expose=inspection.expose_attention,
    needs="attention",
)
def getam(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, first_block: int | None = None
) -> Tensors:
    r"""Explain units with GETAM, attention times its gradient, times its gradient once more.

    .. math:: M_u = \sum_{l \geq l_0} \Big( \frac{1}{h} \sum_h [G_{ulh} \odot A_{lh}]^+ \odot
              \frac{1}{h} \sum_h G_{ulh}^+ \Big)_{\mathrm{class}}, \quad
              G_{ulh} = \frac{\partial \ell_u}{\partial A_{lh}}

    The map is the row of the class token at the patches, or the mean over rows where the logits
    are of all tokens, and with a target on outputs of several, which the paper doesn't treat. Cost:
    one forward pass, and a backward pass per explained unit.

    Args:
        model: as in `attention_rollout`.
        inputs: as in `attention_rollout`.
        indices: units to explain, as in `attention_rollout`. Defaults to every unit.
        first_block: index of the first block that counts. Defaults to the second half of the
            blocks, as the last six of twelve in the paper.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *grid, n)`, raw. Unit: squared logit.

    Raises:
        ValueError: if there is no block `first_block`, or the model has no attention that can be
            reached.

    References:
        - Sun et al., "GETAM: Gradient-weighted Element-wise Transformer Attention Map for
          Weakly-supervised Semantic Segmentation", 2021. arXiv 2112.02841.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> x = inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Reshape((16, 6))(keras.layers.Conv2D(6, 2, strides=2)(x))
        >>> x = keras.layers.MultiHeadAttention(2, 3)(x, x)
        >>> x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling1D()(x))
        >>> logits, maps = ke.getam(keras.Model(inputs, x), np.ones((1, 8, 8, 3)), "argmax")
        >>> maps.shape
        (1, 8, 8, 1)
    """

    def explain(scores, gradients):
        first = len(scores) // 2 if first_block is None else first_block
        first = positive_integer("first_block", first, 0)
        if first >= len(scores):
            raise invalid("first_block", f"an index into the {len(scores)} blocks", first)
        pairs = list(zip(scores, gradients, strict=True))[first:]
        return tf.add_n([_mean_positive(a * g) * _mean_positive(g) for a, g in pairs])

    logits, maps = explain_blocks(model, inputs, explain, indices)
    return gather_units(logits, indices), maps


@explaining_method(
    family="attention",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity"},
    expose=inspection.expose_attention,
    needs="attention",
)
def legrad(model: keras.Model, inputs: Inputs, indices: Units = None) -> Tensors:
    r"""Explain units in the manner of LeGrad, with the positive gradients by attention alone.

    .. math:: M_u = \frac{1}{L h T} \sum_l \sum_h \sum_i
              \Big[ \frac{\partial \ell_u}{\partial A_{lhi}} \Big]^+

    with i the tokens that attend, the class token included, and the map at the patches that are
    attended to. The paper differentiates in each block a score computed from the output of that
    block; here it is the logit of the model in every block, which serves all blocks with one pass
    and needs no other head. Cost: one forward pass, and a backward pass per explained unit.

    Args:
        model: as in `attention_rollout`.
        inputs: as in `attention_rollout`.
        indices: units to explain, as in `attention_rollout`. Defaults to every unit.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *grid, n)`, raw. Unit: logit.

    Raises:
        ValueError: if the model has no attention that can be reached.

    References:
        - Bousselham, Boggust, Chaybouti, Strobelt, Kuehne, "LeGrad: An Explainability Method for
          Vision Transformers via Feature Formation Sensitivity", 2024. arXiv 2404.03214.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> x = inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Reshape((16, 6))(keras.layers.Conv2D(6, 2, strides=2)(x))
        >>> x = keras.layers.MultiHeadAttention(2, 3)(x, x)
        >>> x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling1D()(x))
        >>> logits, maps = ke.legrad(keras.Model(inputs, x), np.ones((1, 8, 8, 3)), "argmax")
        >>> maps.shape
        (1, 8, 8, 1)
    """

    def explain(_, gradients):
        columns = [tf.reduce_mean(_mean_positive(g), axis=1) for g in gradients]
        return tf.add_n(columns) / len(columns)

    logits, maps = explain_blocks(model, inputs, explain, indices)
    return gather_units(logits, indices), maps


@explaining_method(
    family="attention",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity"},
    expose=inspection.expose_attention,
    needs="attention",
)
def attention_relevance(model: keras.Model, inputs: Inputs, indices: Units = None) -> Tensors:
    r"""Explain units with generic attention explainability, attention rolled by its gradients.

    .. math:: M_u = (R_L)_{\mathrm{class}}, \quad R_l = R_{l-1} + \bar{A}_l R_{l-1}, \quad
              R_0 = I, \quad \bar{A}_l = \frac{1}{h} \sum_h
              \Big[ A_{lh} \odot \frac{\partial \ell_u}{\partial A_{lh}} \Big]^+

    The map is the row of the class token at the patches, or the mean over rows where the logits
    are of all tokens, and with a target on outputs of several, which the paper doesn't treat. Cost:
    one forward pass, and a backward pass per explained unit.

    Args:
        model: as in `attention_rollout`.
        inputs: as in `attention_rollout`.
        indices: units to explain, as in `attention_rollout`. Defaults to every unit.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *grid, n)`, raw. Unit: none.

    Raises:
        ValueError: if the model has no attention that can be reached.

    References:
        - Chefer, Gur, Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
          Encoder-Decoder Transformers", ICCV 2021, equations 5 and 6. arXiv 2103.15679.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> x = inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Reshape((16, 6))(keras.layers.Conv2D(6, 2, strides=2)(x))
        >>> x = keras.layers.MultiHeadAttention(2, 3)(x, x)
        >>> x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling1D()(x))
        >>> model = keras.Model(inputs, x)
        >>> logits, maps = ke.attention_relevance(model, np.ones((1, 8, 8, 3)), "argmax")
        >>> maps.shape
        (1, 8, 8, 1)
    """

    def explain(scores, gradients):
        relevance = tf.eye(_axes.sizes(scores[0])[-1])
        for block, gradient in zip(scores, gradients, strict=True):
            relevance += tf.matmul(_mean_positive(block * gradient), relevance)
        return relevance

    logits, maps = explain_blocks(model, inputs, explain, indices)
    return gather_units(logits, indices), maps


def _mean_positive(scores):
    """Rectify `(batch, heads, tokens, tokens)`, and average over heads."""
    return tf.reduce_mean(tf.nn.relu(scores), axis=1)
