"""Models of every topology, all of which compute the same function of an image.

The function is a 3×3 convolution, ReLU, global average pooling, and a linear layer, so that one
NumPy oracle says what every model must return. `KINDS` maps names to functions that return a
`Specimen`.
"""

import warnings
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_explainable import inspection
from keras_explainable import methods

SIZE = 6
KERNELS = 4
UNITS = 5

_random = np.random.default_rng(0)
IMAGES = _random.normal(size=(3, SIZE, SIZE, 3)).astype("float32")
FILTER = _random.normal(size=(3, 3, 3, KERNELS)).astype("float32")
OFFSET = _random.normal(size=KERNELS).astype("float32")
HEAD = _random.normal(size=(KERNELS, UNITS)).astype("float32")
BIAS = _random.normal(size=UNITS).astype("float32")

# The methods that apply to these models; `tests/token_zoo.py` has models for the others.
METHODS = tuple(n for n in methods.names() if methods.registration(n).needs != "attention")


class Specimen(NamedTuple):
    """A model, and what is passed with it to explain the image."""

    model: keras.Model
    x: object = IMAGES
    options: dict = {}  # noqa: RUF012
    linear_head: bool = True
    tolerance: float = 1e-5
    # Which of the maps of a gradient method is that of the image.
    image: object = None


def activations(images=IMAGES):
    """Convolve in NumPy, with padding, and rectify."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.maximum(np.einsum("bhwcij,ijck->bhwk", windows, FILTER) + OFFSET, 0)


def logits(images=IMAGES):
    """Return what every model computes before its activation."""
    return activations(images).mean((1, 2)) @ HEAD + BIAS


def input_gradients(images=IMAGES):
    """Return the derivative of every logit by the image, `(batch, height, width, channels, u)`."""
    gate = (activations(images) > 0).astype("float32") / SIZE**2
    cotangent = np.einsum("bhwk,ku->bhwku", gate, HEAD)
    gradient = np.zeros((len(images), SIZE + 2, SIZE + 2, 3, UNITS))
    for i in range(3):
        for j in range(3):
            part = np.einsum("bhwku,ck->bhwcu", cotangent, FILTER[i, j])
            gradient[:, i : i + SIZE, j : j + SIZE] += part
    return gradient[:, 1:-1, 1:-1]


def fingerprint(model):
    """Return what explaining a model must not change."""
    found = list(inspection.find_layers(model, lambda _: True).values())
    return {
        "weights": [w.numpy().tobytes() for w in model.weights],
        "layers": [id(layer) for layer in found],
        "flags": [layer.trainable for layer in found],
        "activations": [getattr(layer, "activation", None) for layer in found],
        "keys": [sorted(vars(layer)) for layer in [model, *found]],
        "history": [(len(x._inbound_nodes), len(x._outbound_nodes)) for x in [model, *found]],
        "losses": len(model.losses),
    }


def _convolution(**arguments):
    return layers.Conv2D(KERNELS, 3, padding="same", name="conv", **arguments)


def _weigh(model):
    """Give the layers of a model, found by their weights' shapes, the weights of the oracle."""
    values = {w.shape: w for w in (FILTER, OFFSET, HEAD, BIAS, HEAD[None, None])}
    for variable in model.weights:
        if tuple(variable.shape) in values:
            variable.assign(values[tuple(variable.shape)])
    return model


def _backbone(pooling=None, name="backbone", **arguments):
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU(name="relu")(_convolution(**arguments)(x))
    if pooling:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, x, name=name)


def functional():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU(name="relu")(_convolution()(x))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    x = layers.Dense(UNITS, activation="softmax", name="predictions")(x)
    return Specimen(_weigh(keras.Model(inputs, x)))


def sequential():
    stack = [
        keras.Input((SIZE, SIZE, 3)),
        _convolution(activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(UNITS),
        layers.Softmax(),
    ]
    return Specimen(_weigh(keras.Sequential(stack)))


def sequential_built_by_call():
    stack = [_convolution(activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(UNITS)]
    model = keras.Sequential(stack)
    model(IMAGES)
    return Specimen(_weigh(model))


def nested():
    stack = [
        keras.Input((SIZE, SIZE, 3)),
        _backbone(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(UNITS, activation="sigmoid"),
    ]
    return Specimen(_weigh(keras.Sequential(stack)))


def nested_with_pooling():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Dense(UNITS, activation="softmax")(_backbone("avg")(x, training=False))
    return Specimen(_weigh(keras.Model(inputs, x)))


def nested_three_deep():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    middle = keras.Model(inputs, _backbone("avg")(x), name="middle")
    outer = keras.Sequential([keras.Input((SIZE, SIZE, 3)), middle], name="outer")
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Dense(UNITS, activation="softmax")(outer(x))
    return Specimen(_weigh(keras.Model(inputs, x)))


def siamese():
    backbone = _backbone("avg")
    first, second = keras.Input((SIZE, SIZE, 3), name="a"), keras.Input((SIZE, SIZE, 3), name="b")
    # The second image counts for nothing in the logits, and is still differentiable.
    x = layers.Add()([backbone(first), layers.Rescaling(0.0)(backbone(second))])
    model = keras.Model([first, second], layers.Dense(UNITS)(x))
    options = {"layer": {"name": "backbone/relu", "node": 0}}
    other = IMAGES[::-1].copy()
    return Specimen(_weigh(model), [IMAGES, other], options, linear_head=False, image=0)


def several_inputs():
    image, vector = keras.Input((SIZE, SIZE, 3), name="image"), keras.Input((2,), name="vector")
    x = layers.GlobalAveragePooling2D()(_backbone()(image))
    x = layers.Dense(UNITS)(x) + layers.Dense(UNITS, kernel_initializer="zeros")(vector)
    model = keras.Model({"image": image, "vector": vector}, layers.Softmax()(x))
    x = {"image": IMAGES, "vector": np.ones((3, 2), "float32")}
    return Specimen(_weigh_head_first(model), x, linear_head=False, image="image")


def several_outputs():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(_backbone()(x))
    other = layers.Dense(2, name="other")(x)
    x = layers.Dense(UNITS, activation="softmax", name="species")(x)
    return Specimen(_weigh(keras.Model(inputs, [other, x])), options={"output": "species"})


class Subclassed(keras.Model):
    """A classifier written as a class, its layers in attributes and lists."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.trunk = [_convolution(), layers.ReLU(name="relu")]
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(UNITS, activation="softmax")

    def call(self, inputs, training=False):
        x = inputs
        for layer in self.trunk:
            x = layer(x, training=training)
        return self.head(self.pool(x))


class SubclassedOverBackbone(keras.Model):
    """A classifier written as a class around a functional backbone."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.backbone = _backbone("avg")
        self.head = layers.Dense(UNITS)

    def call(self, inputs):
        return keras.ops.softmax(self.head(self.backbone(inputs)))


class SubclassedWithTensorFlow(keras.Model):
    """A classifier whose `call` mixes layers and TensorFlow functions."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.blocks = {"first": [_convolution(), layers.ReLU(name="relu")]}
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(UNITS, name="head")

    def call(self, inputs, training=None):
        x = tf.concat([inputs, inputs], axis=0)[: tf.shape(inputs)[0]]
        for layer in self.blocks["first"]:
            x = layer(x)
        return tf.nn.softmax(self.head(self.drop(self.pool(x), training=training)))


class BackboneWithTensorFlow(SubclassedOverBackbone):
    """A classifier around a functional backbone, with TensorFlow functions and a fused softmax."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.head = layers.Dense(UNITS, activation="softmax")

    def call(self, inputs):
        return self.head(self.backbone(tf.reverse(tf.reverse(inputs, [1]), [1])))


def _called(model):
    """Build a model by a call, as Keras can't build it from shapes, and says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model(IMAGES)
    return model


def subclassed_with_tensorflow():
    return Specimen(_weigh(_called(SubclassedWithTensorFlow())))


def backbone_with_tensorflow():
    return Specimen(_weigh(_called(BackboneWithTensorFlow())))


def nested_backbone_with_tensorflow():
    inner = _called(BackboneWithTensorFlow())
    x = inputs = keras.Input((SIZE, SIZE, 3))
    return Specimen(_weigh(keras.Model(inputs, inner(x))))


def subclassed():
    model = Subclassed()
    model(IMAGES)
    return Specimen(_weigh(model))


def subclassed_over_backbone():
    model = SubclassedOverBackbone()
    model(IMAGES)
    return Specimen(_weigh(model))


def nested_subclassed():
    inner = Subclassed(name="inner")
    x = inputs = keras.Input((SIZE, SIZE, 3))
    return Specimen(_weigh(keras.Model(inputs, inner(x))))


def loaded(folder):
    path = folder / "model.keras"
    functional().model.save(path)
    return Specimen(keras.saving.load_model(path))


def frozen():
    specimen = functional()
    specimen.model.trainable = False
    return specimen


def preprocessing():
    stack = [
        keras.Input((SIZE, SIZE, 3)),
        layers.RandomFlip(),
        layers.Rescaling(0.5),
        layers.Rescaling(2.0),
        _backbone(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(UNITS, activation="softmax"),
    ]
    return Specimen(_weigh(keras.Sequential(stack)))


def operations():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.ops.relu(_convolution()(x))
    x = keras.ops.mean(x, axis=(1, 2))
    x = keras.ops.sigmoid(layers.Dense(UNITS)(x))
    return Specimen(_weigh(keras.Model(inputs, x)))


def convolutional_head():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D(keepdims=True)(_backbone()(x))
    x = layers.Conv2D(UNITS, 1, activation="softmax")(x)
    return Specimen(_weigh(keras.Model(inputs, layers.Flatten()(x))))


def any_size():
    x = inputs = keras.Input((None, None, 3))
    x = layers.ReLU()(_convolution()(x))
    x = layers.Dense(UNITS)(layers.GlobalAveragePooling2D()(x))
    return Specimen(_weigh(keras.Model(inputs, x)))


def channels_first():
    """Return a model of which `inspection.expose` makes one with channels last."""
    x = inputs = keras.Input((3, SIZE, SIZE))
    x = layers.ReLU(name="relu")(_convolution(data_format="channels_first")(x))
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = keras.Model(inputs, layers.Dense(UNITS, activation="softmax")(x))
    return Specimen(_weigh(model), np.ascontiguousarray(np.moveaxis(IMAGES, -1, 1)))


def _mixed(dtype):
    def build():
        x = inputs = keras.Input((SIZE, SIZE, 3))
        x = layers.ReLU(dtype=dtype)(_convolution(dtype=dtype)(x))
        x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
        x = layers.Dense(UNITS, dtype=dtype)(x)
        x = layers.Activation("softmax", dtype="float32")(x)
        # With 8 bits of precision, a value near zero passes the other side of the rectifier.
        tolerance = 1e-2 if dtype == "mixed_float16" else 0.2
        return Specimen(_weigh(keras.Model(inputs, x)), tolerance=tolerance)

    return build


def _weigh_head_first(model):
    """Weigh a model whose second linear layer is to stay at zero."""
    _weigh(model)
    for variable in model.weights:
        if tuple(variable.shape) == (2, UNITS):
            variable.assign(np.zeros((2, UNITS)))
    biases = [variable for variable in model.weights if tuple(variable.shape) == (UNITS,)]
    biases[1].assign(np.zeros(UNITS))
    return model


KINDS = {
    build.__name__: build
    for build in (
        functional,
        sequential,
        sequential_built_by_call,
        nested,
        nested_with_pooling,
        nested_three_deep,
        siamese,
        several_inputs,
        several_outputs,
        subclassed,
        subclassed_over_backbone,
        subclassed_with_tensorflow,
        backbone_with_tensorflow,
        nested_backbone_with_tensorflow,
        nested_subclassed,
        frozen,
        preprocessing,
        operations,
        convolutional_head,
        any_size,
    )
} | {"mixed_float16": _mixed("mixed_float16"), "mixed_bfloat16": _mixed("mixed_bfloat16")}
