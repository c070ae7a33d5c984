"""Give models with channels first a graph of tensors with channels last.

Tensors go through a model as it has them, so that any operation finds what it expects. Those with
channels first have a counterpart with channels last, from which they are computed; layers that are
known are run on the counterparts, others between two transpositions.
"""

import keras
import numpy as np

from keras_explainable import _compat

FIRST, LAST = "channels_first", "channels_last"
# Layers that do the same with channels last, once they are told to.
_ARRANGED = (
    *(getattr(keras.layers, f"Conv{n}D") for n in (1, 2, 3)),
    *(getattr(keras.layers, f"Conv{n}DTranspose") for n in (1, 2, 3)),
    *(
        getattr(keras.layers, f"{kind}Conv{n}D")
        for kind in ("Depthwise", "Separable")
        for n in "12"
    ),
    *(
        getattr(keras.layers, f"{kind}Pooling{n}D")
        for kind in ("Average", "Max", "GlobalAverage", "GlobalMax")
        for n in (1, 2, 3)
    ),
    *(getattr(keras.layers, f"{kind}{n}D") for kind in ("UpSampling", "ZeroPadding") for n in "23"),
    *(keras.layers.Cropping2D, keras.layers.Cropping3D),
)
# Layers whose `axis` is that of the channels.
_ALONG_CHANNELS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.Concatenate,
    keras.layers.Softmax,
)
# Layers that treat every value by itself, in inference.
_ELEMENTWISE = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
)
_FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish"),
    *("sigmoid", "hard_sigmoid", "log_sigmoid", "tanh", "softplus", "softsign", "linear"),
    *("hard_silu", "hard_swish", "exponential"),
)
_OPERATIONS = (
    *(name.replace("_", "") for name in _FUNCTIONS),
    *("add", "subtract", "multiply", "divide", "truedivide", "maximum", "minimum", "cast"),
)
_SEQUENTIAL = (
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
    keras.layers.TimeDistributed,
    keras.layers.Bidirectional,
)
_POOLED = ("Mean", "Max")
_PERMUTATIONS = ("Permute", "Transpose", "Moveaxis", "Swapaxes")
_RESHAPED = ("Reshape", "Squeeze", "Flatten")


def to_last(tensor):
    """Move the channels of a tensor from the first place after the batch to the last."""
    return keras.ops.transpose(tensor, (0, *range(2, len(tensor.shape)), 1))


def to_first(tensor):
    """Move the channels of a tensor from the last place to the first after the batch."""
    rank = len(tensor.shape)
    return keras.ops.transpose(tensor, (0, rank - 1, *range(1, rank - 1)))


def is_first(operation):
    """Tell whether an operation, or a layer in it, has its channels first."""
    parts = [operation, *_compat.sublayers(operation)]
    return any(getattr(layer, "data_format", None) == FIRST for layer in parts)


def refuse(calls, name):
    """Refuse layers with channels first in a model whose tensors can't be transposed."""
    for call in calls:
        if is_first(call.layer):
            raise ValueError(
                f"The layer {call.path!r} has its channels first, which is not supported in the "
                f"subclassed model {name!r}, whose `call` uses TensorFlow functions. Write it with "
                'layers and `keras.ops`, or with `data_format="channels_last"`.'
            )


def inputs_with_channels_first(inputs, calls):
    """List the indices of the inputs that go into layers with channels first.

    Args:
        inputs: flat list of the inputs of a graph.
        calls: list of `Call` in it, first ones first.

    Returns:
        tuple of integers.
    """
    first = set()
    for call in reversed(calls):
        keeps_axes = _name(call.layer) not in (*_PERMUTATIONS, *_RESHAPED)
        if is_first(call.layer):
            first.update(id(t) for t in call.inputs if len(t.shape) > 2)
        elif keeps_axes and any(id(t) in first for t in call.outputs):
            ranks = [len(t.shape) for t in call.outputs]
            first.update(id(t) for t in call.inputs if len(t.shape) in ranks)
    return tuple(i for i, tensor in enumerate(inputs) if id(tensor) in first)


def placeholder(tensor):
    """Return a symbolic input with the channels of another one last."""
    shape = tuple(tensor.shape)
    shape = (shape[0], *shape[2:], shape[1])
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)


class Layouts:
    """Keeps the counterparts, with channels last, of tensors with channels first."""

    def __init__(self):
        self._lasts = {}
        self._moved = {}

    def native(self, last):
        """Return the tensor of the model, with channels first, that a counterpart stands for."""
        if len(last.shape) < 3:
            return last
        native = self._move(to_first, last)
        self._lasts[id(native)] = last
        return native

    def last(self, tensor):
        """Return the counterpart of a tensor, or the tensor itself where it has none."""
        return self._lasts.get(id(tensor), tensor)

    def is_moved(self, tensor):
        """Tell whether a tensor is another one, transposed here."""
        return id(tensor) in self._moved

    def run(self, twin, path, args, kwargs):
        """Call the twin of an operation.

        Args:
            twin: twin of a layer or `keras.Operation`, to be called.
            path: its path in the model.
            args: positional arguments, with the tensors of the model.
            kwargs: keyword arguments.

        Returns:
            tensors of the model.
        """
        tensors = [t for t in keras.tree.flatten((args, kwargs)) if _is_symbolic(t)]
        first = is_first(twin)
        if first:
            _refuse_sequences(twin, path)
        if not first and not any(id(t) in self._lasts for t in tensors):
            return twin(*args, **kwargs)
        arranged = self._arranged(twin, tensors, args, kwargs)
        if arranged is not None:
            args, kwargs = keras.tree.map_structure(self._counterpart, (args, kwargs))
            return keras.tree.map_structure(self.native, arranged(*args, **kwargs))
        ranks = [len(t.shape) for t in tensors if first or id(t) in self._lasts]
        outputs = twin(*args, **kwargs)
        if not _keeps_channels(twin, tensors):
            return outputs
        return keras.tree.map_structure(
            lambda t: self._between(t) if len(t.shape) in ranks else t, outputs
        )

    def _between(self, tensor):
        """Pass a tensor with channels first through its counterpart, so that it is computed."""
        return self.native(self._counterpart(tensor))

    def _counterpart(self, leaf):
        if not _is_symbolic(leaf) or len(leaf.shape) < 3:
            return leaf
        if id(leaf) not in self._lasts:
            self._lasts[id(leaf)] = self._move(to_last, leaf)
        return self._lasts[id(leaf)]

    def _move(self, transpose, tensor):
        moved = transpose(tensor)
        # Both are kept, so that no other tensor gets their ids.
        self._moved[id(moved)] = moved, tensor
        return moved

    def _arranged(self, twin, tensors, args, kwargs):
        """Return what does with channels last what a twin does with them first, or `None`."""
        rank = len(tensors[0].shape)
        if rank < 3 or any(len(t.shape) != rank for t in tensors) or kwargs.get("training"):
            return None
        name = _name(twin)
        if _is_one_of(twin, _ARRANGED) and twin.data_format == FIRST:
            if _treats_values_alone(getattr(twin, "activation", None)):
                return _told(twin, data_format=LAST)
        elif _is_one_of(twin, _ALONG_CHANNELS):
            if twin.axis in (1, 1 - rank):
                return _told(twin, axis=-1)
        elif name in _RESHAPED:
            if _flattens(twin, self._counterpart(tensors[0])):
                return keras.layers.Flatten(data_format=LAST, name=twin.name)
        elif name in _POOLED:
            axes = {axis % rank for axis in keras.tree.flatten(twin.axis) if axis is not None}
            if axes == set(range(2, rank)):
                return _compat.twin(twin, twin.name, axis=tuple(range(1, rank - 1)))
        elif _is_elementwise(twin, args, kwargs):
            return twin
        return None


def _told(twin, **attributes):
    """Return a twin of a twin with another layout."""
    copy = _compat.twin(twin, twin.name, **attributes)
    copy.input_spec = None
    return copy


def _refuse_sequences(layer, path):
    """Refuse layers whose channels come after the batch and an axis of time."""
    if _is_one_of(layer, _SEQUENTIAL):
        raise ValueError(
            f"The layer {path!r}, a {type(layer).__name__}, has its channels first in each step of "
            'a sequence, which is not supported. Build it with `data_format="channels_last"`.'
        )


def _is_elementwise(operation, args, kwargs):
    """Tell whether an operation treats every value by itself."""
    leaves = keras.tree.flatten((args, kwargs))
    if any(np.ndim(leaf) > 0 for leaf in leaves if not _is_symbolic(leaf)):
        return False
    if not isinstance(operation, keras.Layer):
        return type(operation).__name__.lower() in _OPERATIONS
    if _is_one_of(operation, (keras.layers.Activation,)):
        return _treats_values_alone(operation.activation)
    if _is_one_of(operation, (keras.layers.Rescaling,)):
        return np.ndim(operation.scale) == np.ndim(operation.offset) == 0
    return _is_one_of(operation, _ELEMENTWISE)


def _name(operation):
    """Return the name of an operation of Keras, for which no layer of a user is taken."""
    own = (keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute)
    is_own = not isinstance(operation, keras.Layer) or _is_one_of(operation, own)
    return type(operation).__name__ if is_own else ""


def _is_one_of(operation, kinds):
    """Tell whether a layer is of one of some classes, and runs as that class does."""
    return any(isinstance(operation, k) and type(operation).call is k.call for k in kinds)


def _treats_values_alone(activation):
    return activation is None or getattr(activation, "__name__", "") in _FUNCTIONS


def _flattens(operation, last):
    """Tell whether a reshaping gives what flattening a tensor with channels last does."""
    is_layer = isinstance(operation, keras.layers.Flatten)
    if is_layer and operation.data_format == FIRST:
        return True
    shape = tuple(last.shape)
    native = keras.KerasTensor((shape[0], shape[-1], *shape[1:-1]), dtype=last.dtype)
    single = all(size == 1 for size in shape[1:-1])
    return single and len(operation.compute_output_spec(native).shape) == 2


def _keeps_channels(operation, tensors):
    """Tell whether the channels of what an operation returns are still the first axis."""
    if _name(operation) not in _PERMUTATIONS:
        return True
    # Sizes that tell which axis went where.
    probe = keras.KerasTensor(tuple(range(2, 2 + len(tensors[0].shape))))
    return tuple(operation.compute_output_spec(probe).shape)[1] == 3


def _is_symbolic(value):
    return isinstance(value, keras.KerasTensor)
