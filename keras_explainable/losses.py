"""Losses of outputs with positions: labels that don't count, and maps that look aside."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_explainable import _showing
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import number
from keras_explainable._typing import Array
from keras_explainable._typing import ArrayLike

_PACKAGE = "keras_explainable"


@keras.saving.register_keras_serializable(_PACKAGE)
class IgnoreLabelCrossentropy(keras.losses.Loss):
    r"""Cross-entropy over the positions whose label isn't to be ignored.

    .. math:: -\frac{1}{\max(|V|, 1)} \sum_{i \in V} \sum_c t_{ic} \log q_{ic},
              \quad V = \{i : y_i \neq \text{ignored}\},
              \quad t_{ic} = (1 - \alpha) [y_i = c] + \alpha / C

    It is `keras.losses.SparseCategoricalCrossentropy(ignore_class=255)` with label smoothing. With
    no position that counts it is 0, and has no gradient. What is predicted at ignored positions
    doesn't matter, finite or not. A label that is neither ignored nor a class makes the loss NaN.

    Under a `tf.distribute` strategy the mean is that of the replicas' means, each over its own
    positions, as with `ignore_class`.

    Args:
        ignore_label: label of the positions left out, an integer. Defaults to 255.
        label_smoothing: :math:`\alpha`, from 0 to 1. Defaults to 0.
        from_logits: whether predictions are logits, and not probabilities. Defaults to False.
        reduction: as in `keras.losses.Loss`. With "sum_over_batch_size" it is the mean over the
            positions that count, with "sum" their sum, and with "none" there is 0 at the others.
            "mean_with_sample_weight" is refused. Defaults to "sum_over_batch_size".
        name: name of the loss.
        dtype: dtype policy of the loss. It is computed in single precision at least, as there are
            more positions than half precision counts. Defaults to that of Keras.

    Raises:
        TypeError: if `from_logits` is no boolean.
        ValueError: if `label_smoothing` is out of range, `ignore_label` no integer, or the
            reduction unknown or refused; when it is called, if labels are not of the size of the
            predictions.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> loss = ke.losses.IgnoreLabelCrossentropy()
        >>> predicted = np.array([[[0.5, 0.5], [0.9, 0.1]]], "float32")
        >>> round(float(loss(np.array([[0, 255]]), predicted)), 3)
        0.693
    """

    def __init__(
        self,
        ignore_label: int = 255,
        label_smoothing: float = 0.0,
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "ignore_label_crossentropy",
        dtype: Any = None,
    ) -> None:
        if reduction == "mean_with_sample_weight":
            hint = "Divide by the sum of the weights that count yourself, with `reduction='sum'`."
            raise invalid("reduction", "a sum, a mean over positions, or none", reduction, hint)
        policy = keras.dtype_policies.get(dtype or keras.config.floatx())
        self._returned = policy.compute_dtype
        computed = "float64" if self._returned == "float64" else "float32"
        super().__init__(reduction=reduction, name=name, dtype=computed)
        if not isinstance(from_logits, bool):
            raise mistyped("from_logits", "a boolean", from_logits)
        self.ignore_label = int(number("ignore_label", ignore_label))
        if self.ignore_label != ignore_label:
            raise invalid("ignore_label", "an integer", ignore_label)
        self.label_smoothing = number("label_smoothing", label_smoothing, least=0)
        if self.label_smoothing > 1:
            raise invalid("label_smoothing", "a number from 0 to 1", label_smoothing)
        self.from_logits = from_logits

    def __call__(
        self, y_true: Array, y_pred: Array, sample_weight: ArrayLike | None = None
    ) -> tf.Tensor:
        """Return the loss, reduced, see `call`.

        Args:
            y_true: labels.
            y_pred: predictions.
            sample_weight: weights of the shape of the labels, or of samples `(batch,)`.
        """
        return keras.ops.cast(super().__call__(y_true, y_pred, sample_weight), self._returned)

    def call(self, y_true: Array, y_pred: Array) -> tf.Tensor:
        """Return losses of the shape of the labels.

        Args:
            y_true: integers `(batch, *positions)`, or with a last axis of size 1.
            y_pred: float `(batch, *positions, classes)`.
        """
        y_pred = keras.ops.convert_to_tensor(y_pred)
        y_true = _fitting_labels(keras.ops.cast(y_true, "int32"), y_pred)
        counts = keras.ops.not_equal(y_true, self.ignore_label)
        # Their loss is left out below, and their gradient only if it is finite.
        y_pred = keras.ops.where(counts[..., None], y_pred, 1)
        num_classes = y_pred.shape[-1]
        labels = keras.ops.one_hot(y_true, num_classes)
        smoothing = keras.ops.cast(self.label_smoothing, y_pred.dtype)
        labels = keras.ops.cast(labels, y_pred.dtype) * (1 - smoothing) + smoothing / num_classes
        losses = keras.ops.categorical_crossentropy(labels, y_pred, from_logits=self.from_logits)
        is_class = keras.ops.logical_and(y_true >= 0, y_true < num_classes)
        losses = keras.ops.where(is_class, losses, math.nan)
        losses = keras.ops.where(counts, losses, 0)
        if self.reduction in ("none", "sum", None):
            return losses
        # Keras divides by the number of all positions.
        number_of = keras.ops.cast(keras.ops.size(losses), losses.dtype)
        counted = keras.ops.sum(keras.ops.cast(counts, "int32"))
        return losses * (number_of / keras.ops.cast(keras.ops.maximum(counted, 1), losses.dtype))

    def __repr__(self):
        """Tell the options that are no defaults."""
        options = _showing.changed(type(self).__init__, self.get_config())
        options.pop("dtype", None)  # What Keras made of it.
        return _showing.line(self, **options)

    def get_config(self) -> dict[str, Any]:
        """Return what the loss is made from."""
        return {
            **super().get_config(),
            "ignore_label": self.ignore_label,
            "label_smoothing": self.label_smoothing,
            "from_logits": self.from_logits,
        }


@keras.saving.register_keras_serializable(_PACKAGE)
class EnergyOutside(keras.losses.Loss):
    r"""Energy of maps, or of gradients, outside of where the evidence may be.

    .. math:: E = \sum_{i, c} \big( (1 - a_{ic}) M_{ic} \big)^2

    of positions i and channels c, with masks :math:`a` of 1 where the evidence may be and 0 where
    it may not. Of the gradients that `ke.layers.InputGradients` returns it is the published penalty
    for the right reasons. Of class activation maps, `positive=True` takes the part that speaks for
    a unit, :math:`\max(M, 0)`, and `per_unit=True` makes one loss of each unit.

    A model lowers it also by making all of its maps smaller. `relative=True` is the share of the
    energy that lies outside,

    .. math:: S = \frac{\sum_{i, c} \big( (1 - a_{ic}) M_{ic} \big)^2}{\sum_{i, c} M_{ic}^2}

    from 0 to 1, which doesn't depend on the scale of the maps. Where there is no energy it is 0,
    without a gradient.

    Args:
        positive: whether only what is positive in maps has energy. Defaults to False.
        relative: whether the energy outside is divided by all of it. Defaults to False.
        per_unit: whether each channel of the maps is a unit, with a loss of its own. Losses are
            `(batch, units)` then, and else `(batch,)`; a `sample_weight` has that shape. Weights of
            `(batch, units)`, such as the labels, choose the units that are penalized, and those of
            samples are `(batch, 1)`. Defaults to False.
        reduction: as in `keras.losses.Loss`. The mean is over all losses, units of weight 0
            included. Defaults to "sum_over_batch_size".
        name: name of the loss.
        dtype: dtype policy of the loss. Defaults to that of Keras.

    Raises:
        TypeError: if an option is no boolean.
        ValueError: if, when it is called, masks are not as many as the maps or of another size, or
            weights of units have one axis only.

    References:
        - Ross, Hughes, Doshi-Velez, "Right for the Right Reasons: Training Differentiable Models by
          Constraining their Explanations", IJCAI 2017. arXiv 1703.03717. First term of equation 1
          in the masks and gradients; the positive and relative forms are this library's.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> maps = np.array([[[[3.0], [-4.0]]]], "float32")
        >>> masks = np.array([[[1, 0]]])
        >>> float(ke.losses.EnergyOutside()(masks, maps))
        16.0
        >>> round(float(ke.losses.EnergyOutside(relative=True)(masks, maps)), 2)
        0.64
    """

    def __init__(
        self,
        positive: bool = False,
        relative: bool = False,
        per_unit: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "energy_outside",
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.options = {"positive": positive, "relative": relative, "per_unit": per_unit}
        for option, value in self.options.items():
            if not isinstance(value, bool):
                raise mistyped(option, "a boolean", value)

    def __call__(
        self, y_true: Array, y_pred: Array, sample_weight: ArrayLike | None = None
    ) -> tf.Tensor:
        """Return the loss, reduced, see `call`.

        Args:
            y_true: masks.
            y_pred: maps.
            sample_weight: weights `(batch,)`, or `(batch, units)` or `(batch, 1)` of each unit.
        """
        if self.options["per_unit"] and sample_weight is not None:
            shape = tuple(keras.ops.convert_to_tensor(sample_weight).shape)
            if len(shape) == 1:
                hint = "Pass `weights[:, None]` for weights of samples."
                raise invalid("sample_weight", "(batch, units) or (batch, 1)", shape, hint)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Array, y_pred: Array) -> tf.Tensor:
        """Return losses `(batch,)`, or `(batch, units)` of each unit.

        Args:
            y_true: masks of 0 and 1 `(batch, *positions)`, or with a last axis of 1 or of one mask
                per channel or unit. Divide those of images, of 0 and 255.
            y_pred: float maps `(batch, *positions, channels)`.
        """
        maps = keras.ops.convert_to_tensor(y_pred)
        masks = _fitting_masks(keras.ops.cast(y_true, maps.dtype), maps)
        if self.options["positive"]:
            maps = keras.ops.relu(maps)
        axes = tuple(range(1, len(maps.shape) - self.options["per_unit"]))
        if self.options["relative"]:
            # Of the same share, and squares that neither vanish nor overflow.
            scale = keras.ops.max(keras.ops.abs(keras.ops.stop_gradient(maps)), axes, keepdims=True)
            maps = maps / keras.ops.where(scale > 0, scale, 1)
        outside = keras.ops.sum(keras.ops.square((1 - masks) * maps), axes)
        if not self.options["relative"]:
            return outside
        energy = keras.ops.sum(keras.ops.square(maps), axes)
        return outside / keras.ops.where(energy > 0, energy, 1)

    def __repr__(self):
        """Tell the options that are no defaults."""
        options = _showing.changed(type(self).__init__, self.get_config())
        options.pop("dtype", None)  # What Keras made of it.
        return _showing.line(self, **options)

    def get_config(self) -> dict[str, Any]:
        """Return what the loss is made from."""
        return {**super().get_config(), **self.options}


def _fitting_labels(labels, predicted):
    """Give labels the shape of predictions without their classes, or say that they don't fit."""
    given, shape = tuple(labels.shape), tuple(predicted.shape)
    has_axis = len(given) == len(shape) and given[-1] in (None, 1)
    if not _alike(given[:-1] if has_axis else given, shape[:-1]):
        expected = f"integers for each position of predictions {shape}"
        hint = "Of one-hot labels take `argmax(-1)`." if given[-1:] == shape[-1:] else ""
        raise invalid("y_true", expected, f"shape {given}", hint)
    return keras.ops.reshape(labels, keras.ops.shape(predicted)[:-1]) if has_axis else labels


def _alike(one, other):
    """Tell whether shapes are the same, as far as they are known."""
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def _fitting_masks(masks, maps):
    """Give masks the rank of maps, or say that they don't fit."""
    given = tuple(masks.shape)
    if len(given) == len(maps.shape) - 1:
        masks = keras.ops.expand_dims(masks, -1)
    fits = _alike(masks.shape[:-1], maps.shape[:-1])
    if not fits or masks.shape[-1] not in (1, maps.shape[-1]):
        expected = f"a mask for each map, of its size, of the maps {tuple(maps.shape)}"
        hint = "Resize the masks, or the maps with `resizing=` where they are made."
        raise invalid("y_true", expected, f"shape {given}", hint)
    return masks
