"""Class activation maps as outputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import _compat
from keras_explainable import filters
from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import one_of
from keras_explainable._checks import renamed
from keras_explainable._typing import Endpoint
from keras_explainable._typing import Inputs
from keras_explainable._typing import Output
from keras_explainable._typing import Reshape
from keras_explainable._typing import Resizing

_PACKAGE = "keras_explainable"


@keras.saving.register_keras_serializable(_PACKAGE)
class _HeadMaps(keras.layers.Layer):
    """Returns the maps of a linear head that stands elsewhere, whose weights it shares.

    Args:
        layer: the head; `None` where activations are maps already.
        postprocessing: as in `ActivationMaps`.
        resizing: as in `ActivationMaps`, or `True` for the size of a second argument of the call.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, layer, postprocessing=None, resizing=None, **kwargs):
        # A mixed policy would cast the kernel, and `ke.cam` reads it as it is.
        kwargs["dtype"] = keras.config.floatx() if layer is None else layer.variable_dtype
        super().__init__(**kwargs, autocast=False)
        if postprocessing is not None:
            one_of("postprocessing", postprocessing, filters.FILTERS)
        self.layer = layer
        self.postprocessing = postprocessing
        self.resizing = filters.checked_sizes(resizing)

    def call(self, inputs, shown=None):
        """Return float maps `(batch, *positions, units)` of activations.

        Args:
            inputs: float `(batch, *positions, kernels)`.
            shown: tensor whose positions have the size that maps are resized to, if they are to.
        """
        single = "float64" if inputs.dtype == "float64" else "float32"
        maps = tf.cast(inputs, single)
        if self.layer is not None:
            # A letter per axis in place of an ellipsis makes the derivative a third cheaper.
            axes = "hwdefg"[: maps.shape.rank - 2]
            kernel = tf.cast(inspection.linear_kernel(self.layer), single)
            maps = tf.einsum(f"b{axes}k,ku->b{axes}u", maps, kernel)
        maps = filters.get(self.postprocessing)(maps)
        sizes = self.resizing
        if sizes is True and shown.shape.rank == maps.shape.rank:
            return filters.resize(maps, _axes.sizes(shown)[1:-1])
        if isinstance(sizes, bool):
            return maps
        sizes = (sizes,) * (maps.shape.rank - 2) if isinstance(sizes, int) else sizes
        return filters.resize(maps, sizes)

    def get_config(self):
        """Return what the layer is made from."""
        layer = self.layer and keras.saving.serialize_keras_object(self.layer)
        return {
            **super().get_config(),
            "layer": layer,
            "postprocessing": self.postprocessing,
            "resizing": self.resizing,
        }

    @classmethod
    def from_config(cls, config):
        """Make the layer from what `get_config` returns."""
        layer = config["layer"] and keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


@keras.saving.register_keras_serializable(_PACKAGE)
class ActivationMaps(_HeadMaps):
    r"""Applies a linear head to averaged activations, and returns its class activation maps, too.

    .. math:: y = f\Big(\frac{1}{n} \sum_i A_i W + b\Big), \quad M_{iu} = \sum_k A_{ik} W_{ku}

    It takes the place of a global average pooling and the head after it. The maps are those of
    `ke.cam`, before its postprocessing: a logit is the mean of its map, plus the bias. They can be
    differentiated, so that a loss of them is trained with. They are in single precision whatever
    the dtype policy, as rounded maps would not be those of `ke.cam`; double activations give double
    maps. The outputs have the dtype that the policy of the head says. Methods such as `ke.cam` and
    `ke.gradcam` explain the outputs of a model with this layer through the head inside.

    Args:
        layer: head with a kernel that inputs are multiplied by: `keras.layers.Dense`, a 1×1
            convolution with channels last, or a layer that tells its `effective_kernel`, such as
            `KernelUsageDense`. Its activation makes the outputs, and has no part in the maps.
        postprocessing: name of a filter of the maps, see `ke.filters`. Defaults to raw maps.
        resizing: sizes such as `(height, width)` that maps are resized to, after that; one integer
            stands for all axes. Defaults to the size of the activations.
        **kwargs: further arguments of `keras.layers.Layer`.

    Returns:
        a layer, which makes of activations `(batch, *positions, kernels)` a list of:

        - outputs: `(batch, units)`, as of global average pooling and the head.
        - maps: float32 `(batch, *positions, units)`.

    Raises:
        TypeError: if `layer` is no layer.
        ValueError: if the filter is unknown, sizes are no sizes, or, when it is called, the layer
            has no such kernel or the activations have no positions.

    References:
        - Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative
          Localization", CVPR 2016. arXiv 1512.04150.

    Example:
        >>> import keras, keras_explainable as ke
        >>> images = keras.Input((32, 32, 3))
        >>> features = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(images)
        >>> head = ke.layers.ActivationMaps(keras.layers.Dense(5, activation="sigmoid"))
        >>> predictions, maps = head(features)
        >>> predictions.shape, maps.shape
        ((None, 5), (None, 15, 15, 5))
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        postprocessing: str | None = None,
        resizing: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, keras.layers.Layer):
            raise mistyped("layer", "a `keras.layers.Layer`", layer)
        if resizing is True:
            expected = "`None`, a positive integer or a tuple of them"
            hint = "`ke.layers.with_activation_maps` resizes maps to the input."
            raise invalid("resizing", expected, resizing, hint)
        super().__init__(layer, postprocessing, resizing, **kwargs)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Build the head for averaged activations."""
        if len(input_shape) < 3:
            expected = "activations (batch, *positions, kernels)"
            raise invalid("inputs", expected, f"shape {tuple(input_shape)}")
        if not self.layer.built:
            ones = (1,) * len(self._kept_axes(input_shape))
            self.layer.build((input_shape[0], *ones, input_shape[-1]))
            self.layer.built = True
        first = getattr(self.layer, "data_format", None) == "channels_first"
        if first or not inspection.has_linear_kernel(self.layer):
            expected = "a Dense layer, a 1×1 convolution with channels last, or a layer with an "
            expected += "`effective_kernel`"
            found = f"the {type(self.layer).__name__} {self.layer.name!r}"
            raise invalid("layer", expected, found)
        self.built = True

    def call(self, inputs: tf.Tensor) -> list[tf.Tensor]:  # type: ignore[override]
        """Return outputs and maps of activations `(batch, *positions, kernels)`."""
        return [self.explained_outputs(inputs), super().call(inputs)]

    def explained_outputs(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the outputs alone, which methods explain through the head."""
        kept = self._kept_axes(inputs.shape)
        axes = _axes.spatial(len(inputs.shape))
        outputs = self.layer(keras.ops.mean(inputs, axis=axes, keepdims=bool(kept)))
        return keras.ops.squeeze(outputs, kept) if kept else outputs

    def _kept_axes(self, shape):
        """Return the axes of positions that the head takes, of size 1: those of a convolution."""
        return _axes.spatial(len(shape)) if hasattr(self.layer, "kernel_size") else ()


def with_activation_maps(
    model: keras.Model,
    *,
    layer: Endpoint | None = None,
    output: Output = None,
    postprocessing: str | None = "auto",
    resizing: Resizing = True,
    reshape: Reshape = None,
    logits: bool = True,
    inputs: Inputs | None = None,
) -> keras.Model:
    """Make the model that returns class activation maps beside its logits, or its predictions.

    By default the maps are those of `ke.cam`. The model shares its weights with the one that it is
    made of, which is left as found. It is a plain Keras model: `predict` it, `export` it to serve
    maps without this library, compile and `fit` it with a loss of the maps. It is saved and loaded
    like others, but for one made of a subclassed model whose `call` uses TensorFlow functions,
    which can be exported only. A copy by `keras.models.clone_model` doesn't tie the head of its
    logits to that of its maps: clone the classifier instead.

    Args:
        model: `keras.Model`, as trained: functional, sequential or subclassed, nested.
        layer: endpoint of the activations, see `ke.inspection.expose`. Defaults to what the global
            pooling takes.
        output: which output of the model is explained, see `ke.inspection.expose`. Defaults to
            the first.
        postprocessing: name of a filter of the maps, `None` for raw maps, or "auto" for that of
            `ke.cam`.
        resizing: `True` resizes maps to the input, `False` leaves them at the size of the
            activations; sizes such as `(height, width)`, or one integer for all axes, are another
            choice.
        reshape: how tokens are arranged as an image, see `ke.inspection.expose`.
        logits: `True` returns logits, `False` what the activation of the output makes of them.
        inputs: batch of inputs, needed only for a subclassed model whose input shape Keras doesn't
            know.

    Returns:
        `keras.Model` that takes what `model` does, and returns a dict, also in a SavedModel, of:

        - "logits", or "predictions": float32 `(batch, units)`.
        - "maps": float32 `(batch, *positions, units)`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if the output isn't one linear layer away from averaged activations, an endpoint
            doesn't exist, or the filter is unknown.

    References:
        - Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative
          Localization", CVPR 2016. arXiv 1512.04150.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> served = ke.layers.with_activation_maps(model)
        >>> served(np.ones((2, 64, 64, 3)))["maps"].shape
        TensorShape([2, 64, 64, 1000])
    """
    if not isinstance(logits, bool):
        raise mistyped("logits", "a boolean", logits)
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    filtered = "positive_normalize" if postprocessing == "auto" else postprocessing
    options = {"postprocessing": filtered, "resizing": resizing}
    with model.distribute_strategy.scope(), renamed(arguments="layer", outputs="output"):
        exposed = inspection.expose(model, layer, output, inputs=inputs, reshape=reshape)
        inspection.head_kernel(exposed)  # Says why there is none.
        head = exposed.head and exposed.head()
        scores, activations = exposed.outputs
        key = "logits" if logits else "predictions"
        scores = _finished(scores, None if logits else exposed.activation, _unused(key, exposed))
        shown = keras.tree.flatten(exposed.input)[exposed.input_index]
        maps = _HeadMaps(head, **options, name=_unused("maps", exposed))(activations, shown)
        name = f"{model.name}_with_maps"
        made = keras.Model(exposed.input, {key: scores, "maps": maps}, name=name)
        return _with_channels_first(made, exposed.channels_first)


def _finished(scores, activation, name):
    """Apply an activation to logits, in single precision."""
    owner = getattr(activation, "__self__", None)
    if isinstance(owner, keras.Operation):
        scores = _compat.twin(owner, owner.name)(scores)
        activation = None
    return keras.layers.Activation(activation or "linear", dtype="float32", name=name)(scores)


def _unused(name, model):
    """Return a name that no layer of a model has."""
    while any(operation.name == name for operation in model.operations):
        name = f"{name}_output"
    return name


def _with_channels_first(model, indices):
    """Let a model take some of its inputs with channels first."""
    if not indices:
        return model
    given, moved = [], []
    for i, tensor in enumerate(model.inputs):
        batch, *sizes, channels = tensor.shape
        shape = (channels, *sizes) if i in indices else tuple(tensor.shape[1:])
        given.append(keras.Input(shape, batch, tensor.dtype, name=f"{tensor.name}_first"))
        order = (*range(2, len(shape) + 1), 1)
        moved.append(keras.layers.Permute(order)(given[-1]) if i in indices else given[-1])
    given, moved = (keras.tree.pack_sequence_as(model.input, flat) for flat in (given, moved))
    return keras.Model(given, model(moved), name=model.name)
