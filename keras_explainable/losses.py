"""Losses of outputs with positions that don't count."""

import keras

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import number

_PACKAGE = "keras_explainable"


@keras.saving.register_keras_serializable(_PACKAGE)
class IgnoreLabelCrossentropy(keras.losses.Loss):
    r"""Cross-entropy over the positions whose label isn't to be ignored.

    .. math:: -\frac{1}{\max(|V|, 1)} \sum_{i \in V} \sum_c t_{ic} \log q_{ic},
              \quad V = \{i : y_i \neq \text{ignored}\},
              \quad t_{ic} = (1 - \alpha) [y_i = c] + \alpha / C

    It is `keras.losses.SparseCategoricalCrossentropy(ignore_class=255)` with label smoothing. With
    no position that counts it is 0, and has no gradient.

    Args:
        ignore_label: label of the positions left out. Defaults to 255.
        label_smoothing: :math:`\alpha`, from 0 to 1. Defaults to 0.
        from_logits: whether predictions are logits, and not probabilities. Defaults to False.
        reduction: as in `keras.losses.Loss`. With "sum_over_batch_size" it is the mean over the
            positions that count, with "sum" their sum, and with "none" there is 0 at the others.
            Defaults to "sum_over_batch_size".
        name: name of the loss.
        dtype: dtype policy of the loss. Defaults to that of Keras.

    Raises:
        ValueError: if `label_smoothing` is out of range.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> loss = ke.losses.IgnoreLabelCrossentropy()
        >>> predicted = np.array([[[0.5, 0.5], [0.9, 0.1]]], "float32")
        >>> round(float(loss(np.array([[0, 255]]), predicted)), 3)
        0.693
    """

    def __init__(
        self,
        ignore_label=255,
        label_smoothing=0.0,
        from_logits=False,
        reduction="sum_over_batch_size",
        name="ignore_label_crossentropy",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        if not isinstance(from_logits, bool):
            raise mistyped("from_logits", "a boolean", from_logits)
        self.ignore_label = int(ignore_label)
        self.label_smoothing = number("label_smoothing", label_smoothing, least=0)
        if self.label_smoothing > 1:
            raise invalid("label_smoothing", "a number from 0 to 1", label_smoothing)
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        """Return losses of the shape of the labels.

        Args:
            y_true: integers `(batch, *positions)`, or with a last axis of size 1.
            y_pred: float `(batch, *positions, classes)`.
        """
        y_pred = keras.ops.convert_to_tensor(y_pred)
        y_true = keras.ops.cast(y_true, "int32")
        if len(y_true.shape) == len(y_pred.shape):
            y_true = keras.ops.squeeze(y_true, axis=-1)
        counts = keras.ops.not_equal(y_true, self.ignore_label)
        num_classes = y_pred.shape[-1]
        labels = keras.ops.one_hot(keras.ops.where(counts, y_true, 0), num_classes)
        smoothing = keras.ops.cast(self.label_smoothing, y_pred.dtype)
        labels = keras.ops.cast(labels, y_pred.dtype) * (1 - smoothing) + smoothing / num_classes
        losses = keras.ops.categorical_crossentropy(labels, y_pred, from_logits=self.from_logits)
        losses = keras.ops.where(counts, losses, 0)
        if self.reduction in ("none", "sum", None):
            return losses
        # Keras divides by the number of all positions.
        number_of = keras.ops.cast(keras.ops.size(losses), losses.dtype)
        counted = keras.ops.sum(keras.ops.cast(counts, losses.dtype))
        return losses * (number_of / keras.ops.maximum(counted, 1))

    def get_config(self):
        """Return what the loss is made from."""
        return {
            **super().get_config(),
            "ignore_label": self.ignore_label,
            "label_smoothing": self.label_smoothing,
            "from_logits": self.from_logits,
        }
