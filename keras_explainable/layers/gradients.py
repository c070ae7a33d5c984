"""Gradients by the input as outputs of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped

_PACKAGE = "keras_explainable"


def _sum(outputs, from_logits):
    del from_logits
    return outputs


def _categorical(outputs, from_logits):
    if from_logits:
        return tf.nn.log_softmax(outputs)
    return tf.math.log(_clipped(outputs))


def _binary(outputs, from_logits):
    if from_logits:
        return tf.math.log_sigmoid(outputs) + tf.math.log_sigmoid(-outputs)
    outputs = _clipped(outputs)
    return tf.math.log(outputs) + tf.math.log1p(-outputs)


def _clipped(probabilities):
    """Keep probabilities off 0 and 1, as the losses of Keras do."""
    epsilon = keras.config.epsilon()
    return tf.clip_by_value(probabilities, epsilon, 1 - epsilon)


SCORES = {"categorical": _categorical, "binary": _binary, "sum": _sum}


def _metrics(layer):
    """List the metrics of a layer; of a model those of its layers, not its own."""
    if isinstance(layer, keras.Model):
        return [metric for part in layer.layers for metric in _metrics(part)]
    return layer.metrics


@keras.saving.register_keras_serializable(_PACKAGE)
class InputGradients(keras.layers.Wrapper):
    r"""Runs a model, and returns the gradients of a score of its outputs by its inputs, too.

    With :math:`p_u` the probabilities and :math:`y_u` the outputs, the score is

    - "categorical": :math:`\sum_u \log p_u`, of classes that exclude each other, as published;
    - "binary": :math:`\sum_u \big(\log p_u + \log(1 - p_u)\big)`, of units that are on or off
      each by itself: the sum over both classes of each unit;
    - "sum": :math:`\sum_u y_u`, of logits or whatever the model returns.

    The gradients can be differentiated again, so that a penalty on them trains the model. The model
    is run once, in the mode that this layer is called in: batch normalization updates its
    statistics once, dropout is that of the outputs. Where the samples of a batch are normalized
    together, gradients are of the sum of all their scores.

    The score is in single precision, and gradients come in the dtype of the inputs, which aren't
    cast. In a model of `mixed_float16` they go through half precision on the way.

    Methods such as `ke.cam` and `ke.gradcam` explain the outputs through the layers of the model
    inside. What that model is compiled with, such as its metrics, has no part in the training.

    Args:
        layer: model or layer with one output, or with several if `score` takes them.
        score: "categorical", "binary" or "sum", or a function from the outputs to a tensor that is
            summed up; register it with `keras.saving` to save the model. The gradients of
            "categorical" and "binary" are 0 where a model is undecided, and grow as it decides;
            those of "sum" don't depend on how sure it is, but only say what raises all outputs.
            Defaults to "categorical".
        from_logits: whether outputs are logits, and not probabilities, to "categorical" and
            "binary". Prefer it: probabilities of less than `keras.config.epsilon()` have no
            gradient. Defaults to False.
        **kwargs: further arguments of `keras.layers.Layer`.

    Returns:
        a layer, which makes of inputs a list of:

        - outputs: those of the model.
        - gradients: of the shape, dtype and structure of the inputs.

    Raises:
        TypeError: if `layer` is no layer, `score` is none, or, when it is called, inputs aren't
            floats.
        ValueError: if no score has that name.

    References:
        - Ross, Hughes, Doshi-Velez, "Right for the Right Reasons: Training Differentiable Models by
          Constraining their Explanations", IJCAI 2017. arXiv 1703.03717.

    Example:
        >>> import keras, keras_explainable as ke
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(),
        ...                           keras.layers.Dense(3, activation="softmax")])
        >>> images = keras.Input((8, 8, 1))
        >>> predictions, gradients = ke.layers.InputGradients(model)(images)
        >>> gradients.shape
        (None, 8, 8, 1)
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        score: str | Callable = "categorical",
        from_logits: bool = False,
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, keras.layers.Layer):
            raise mistyped("layer", "a `keras.Model` or `keras.layers.Layer`", layer)
        if isinstance(score, dict):
            score = keras.saving.deserialize_keras_object(score)
        if not callable(score) and not isinstance(score, str):
            raise mistyped("score", "the name of a score, or a function of outputs", score)
        if isinstance(score, str) and score not in SCORES:
            raise invalid("score", f"one of {', '.join(SCORES)}, or a function", repr(score))
        if not isinstance(from_logits, bool):
            raise mistyped("from_logits", "a boolean", from_logits)
        # A mixed policy would cast inputs, and round their gradients.
        kwargs["dtype"] = layer.variable_dtype
        super().__init__(layer, **kwargs, autocast=False)
        self.score, self.from_logits = score, from_logits

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Metrics of the layers inside, without those that a model inside is compiled with.

        Keras would report these, its loss among them, in place of those of the model outside.
        """
        return _metrics(self.layer)

    def call(self, inputs: Any, training: bool | None = None) -> list[Any]:
        """Return outputs, and gradients of the shape of the inputs.

        Args:
            inputs: what the model takes, floats.
            training: whether to train, which Keras tells the layers inside.
        """
        del training
        for tensor in tf.nest.flatten(inputs):
            if not tensor.dtype.is_floating:
                expected = "floats, by which there are gradients"
                hint = "Cast them before this layer, as by `keras.layers.Rescaling`."
                raise mistyped("inputs", expected, tensor.dtype.name, hint)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            outputs = self.layer(inputs)
            score = self._scored(outputs)
        gradients = tape.gradient(score, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [outputs, gradients]

    def explained_outputs(self, inputs: Any) -> Any:
        """Return the outputs alone, which methods explain through the layers inside."""
        return self.layer(inputs)

    def _scored(self, outputs):
        if callable(self.score):
            return self.score(outputs)
        if not tf.is_tensor(outputs):
            hint = "A function `score` takes several outputs."
            raise invalid("layer", "a model with one output", type(outputs).__name__, hint)
        exact = tf.float64 if outputs.dtype == tf.float64 else tf.float32
        return SCORES[self.score](tf.cast(outputs, exact), self.from_logits)

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made from."""
        score = self.score
        if callable(score):
            score = keras.saving.serialize_keras_object(score)
        return {**super().get_config(), "score": score, "from_logits": self.from_logits}
