"""From attention scores to maps of the patches."""

import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable.methods._activations import differentiable_outputs
from keras_explainable.methods._activations import exposed_outputs
from keras_explainable.methods._activations import gradients_by_layers
from keras_explainable.methods._units import explain_each


def attention_outputs(model, inputs):
    """Return float32 logits, and the list of attention scores in the dtype of the model."""
    check_arranged(model)
    return exposed_outputs(model, inputs)


def check_arranged(model):
    """Refuse a model of which it isn't known what its tokens show."""
    if getattr(model, "arrange", None) is None:
        name = getattr(model, "name", type(model).__name__)
        raise invalid("model", "a model made by `ke.inspection.expose_attention`", repr(name))


def by_heads(scores):
    """Return float32 scores `(batch, heads, tokens, tokens)`, also of attention without heads."""
    scores = tf.cast(scores, tf.float32)
    return scores if scores.shape.rank == 4 else scores[:, None]


def explain_blocks(model, inputs, explain, indices=None):
    """Explain units with the attention scores of all blocks, and the gradients by them.

    Args:
        model: model made by `inspection.expose_attention`.
        inputs: what it takes.
        explain: function from the lists of scores and of the gradients of a logit by them, float32
            `(batch, heads, tokens, tokens)`, to the relevance of tokens for tokens,
            `(batch, tokens, tokens)`, or of tokens, `(batch, tokens)`.
        indices: units to explain, as in `inspection.gather_units`.

    Returns:
        logits: float32 `(batch, units)`.
        maps: float32 `(batch, *grid, n)`.
    """
    check_arranged(model)
    tape, logits, layers = differentiable_outputs(model, inputs)
    scores = [by_heads(tensor) for tensor in layers]

    def explain_unit(cotangent):
        gradients = gradients_by_layers(tape, logits, layers, cotangent)
        found = explain(scores, [by_heads(gradient) for gradient in gradients])
        return arrange(model, found if found.shape.rank == 2 else of_query(model, found))

    return logits, explain_each(explain_unit, logits, indices)


def of_query(model, relevance):
    """Take the row of the token that is read, or the mean over rows where several, or all, are."""
    if model.query is None:
        return tf.reduce_mean(relevance, axis=1)
    if isinstance(model.query, tuple):
        return tf.reduce_mean(tf.gather(relevance, model.query, axis=1), axis=1)
    return relevance[:, model.query]


def arrange(model, relevance):
    """Arrange the relevance of tokens, `(batch, tokens)`, as a map `(batch, *grid)`."""
    return model.arrange(relevance[..., None])[..., 0]
