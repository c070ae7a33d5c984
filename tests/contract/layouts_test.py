"""Models with channels first are explained as their twins with channels last are.

`BUILDERS` are functions from a layout to a model, which differs in nothing else.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras import ops

import keras_explainable as ke
from keras_explainable import inspection
from tests import zoo

FIRST, LAST = "channels_first", "channels_last"
SIZES = (6, 8)
IMAGES = np.random.default_rng(0).normal(size=(2, *SIZES, 3)).astype("float32")
BUILDERS = {}


def builder(build):
    BUILDERS[build.__name__] = build
    return build


def _axis(layout):
    return 1 if layout == FIRST else -1


def _positions(layout):
    return (2, 3) if layout == FIRST else (1, 2)


def _shape(layout, *sizes, channels=3):
    return (channels, *sizes) if layout == FIRST else (*sizes, channels)


def _first(array):
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def _conv(layout, kernels=4, size=3, **arguments):
    return layers.Conv2D(kernels, size, padding="same", data_format=layout, **arguments)


@builder
def plain(layout):
    x = inputs = keras.Input(_shape(layout, *SIZES), name="image")
    x = _conv(layout, activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D(data_format=layout)(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


@builder
def residual(layout):
    """Branches, normalization, attention to channels, parametric and other activations."""
    axis = _axis(layout)
    x = inputs = keras.Input(_shape(layout, *SIZES))
    x = layers.Rescaling(2.0, offset=0.1)(x)
    x = layers.ZeroPadding2D(1, data_format=layout)(x)
    x = layers.Conv2D(4, 3, data_format=layout)(x)
    x = layers.ReLU()(layers.BatchNormalization(axis=axis)(x))
    x = layers.MaxPooling2D(2, data_format=layout, name="pool")(x)
    y = _conv(layout, activation="relu", name="conv")(x)
    gate = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D(data_format=layout)(y))
    y = layers.Multiply()([y, layers.Reshape(_shape(layout, 1, 1, channels=4))(gate)])
    x = ops.relu(layers.Add()([x, y]))
    x = layers.Concatenate(axis=axis)([x, layers.SpatialDropout2D(0.5, data_format=layout)(y)])
    x = layers.GroupNormalization(2, axis=axis)(x)
    x = layers.DepthwiseConv2D(3, padding="same", data_format=layout)(x)
    x = layers.PReLU(shared_axes=_positions(layout), name="parametric")(x)
    x = layers.GlobalAveragePooling2D(data_format=layout)(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


@builder
def convolutional_head(layout):
    x = inputs = keras.Input(_shape(layout, *SIZES))
    x = _conv(layout, activation="relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True, data_format=layout)(x)
    x = layers.Conv2D(3, 1, activation="sigmoid", data_format=layout)(x)
    return keras.Model(inputs, layers.Flatten(data_format=LAST)(x))


@builder
def kept_axes(layout):
    """The logits are `(batch, units, 1, 1)`, or `(batch, 1, 1, units)`."""
    x = inputs = keras.Input(_shape(layout, *SIZES))
    x = layers.GlobalAveragePooling2D(keepdims=True, data_format=layout)(_conv(layout)(x))
    return keras.Model(inputs, layers.Conv2D(3, 1, data_format=layout)(x))


@builder
def flattened(layout):
    x = inputs = keras.Input(_shape(layout, *SIZES))
    x = layers.Flatten(data_format=layout)(_conv(layout, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(3)(x))


@builder
def operations(layout):
    x = inputs = keras.Input(_shape(layout, *SIZES))
    x = ops.gelu(_conv(layout)(x) * 2.0 + 0.5)
    x = ops.mean(x, axis=_positions(layout))
    return keras.Model(inputs, ops.softmax(layers.Dense(3)(x)))


@builder
def nested(layout):
    x = inputs = keras.Input(_shape(layout, *SIZES))
    x = _conv(layout, activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D(data_format=layout, keepdims=True)(x)
    backbone = keras.Model(inputs, x, name="backbone")
    stack = [keras.Input(_shape(layout, *SIZES)), backbone, layers.Reshape((4,)), layers.Dense(3)]
    return keras.Sequential(stack)


@builder
def any_size(layout):
    x = inputs = keras.Input(_shape(layout, None, None))
    x = layers.MaxPooling2D(data_format=layout)(_conv(layout, activation="relu")(x))
    x = layers.GlobalAveragePooling2D(data_format=layout)(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@builder
def mixed_precision(layout):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return plain(layout)
    finally:
        keras.config.set_dtype_policy("float32")


class Subclassed(keras.Model):
    """Layers, operators and functions, written for one layout."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.first = _conv(layout, name="first")
        self.second = _conv(layout, name="second")
        self.head = layers.Dense(3)

    def call(self, inputs):
        x = ops.relu(self.first(inputs * 2.0))
        x = x + self.second(x)
        averages = ops.mean(x, axis=_positions(self.layout), keepdims=True)
        averages = averages[:, :, 0, 0] if self.layout == FIRST else averages[:, 0, 0]
        return ops.softmax(self.head(averages))


@builder
def subclassed(layout):
    model = Subclassed(layout)
    model(_first(IMAGES) if layout == FIRST else IMAGES)
    return model


class Block(layers.Layer):
    """A layer that holds others."""

    def __init__(self, layout):
        super().__init__()
        self.inner = _conv(layout, activation="relu")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, inputs):
        return self.inner(inputs)


class Max(layers.Layer):
    """A layer with the name of another operation."""

    def call(self, inputs):
        return ops.maximum(inputs, 0.1)


@builder
def layers_of_ones_own(layout):
    x = inputs = keras.Input(_shape(layout, *SIZES))
    x = layers.GlobalAveragePooling2D(data_format=layout)(Max()(Block(layout)(x)))
    return keras.Model(inputs, layers.Dense(3)(x))


def twins(build):
    """Return models with channels last and first that have the same random weights."""
    last, first = build(LAST), build(FIRST)
    random = np.random.default_rng(1)
    for one, other in zip(last.weights, first.weights, strict=True):
        values = random.uniform(0.1, 0.5, one.shape)
        one.assign(values * random.choice([-1, 1, 1], one.shape) if one.trainable else values)
        # What has one value per channel broadcasts along another axis.
        other.assign(one if one.shape == other.shape else np.moveaxis(one, -1, 0))
    return last, first


def assert_equal(found, expected):
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


@pytest.mark.filterwarnings("ignore:The terms of FullGrad")
@pytest.mark.parametrize("name", BUILDERS)
def test_every_topology_is_explained_as_with_channels_last(name):
    last, first = twins(BUILDERS[name])
    x = _first(IMAGES)
    for method in ("gradients", "gradcam", "ablationcam"):
        before = zoo.fingerprint(first)
        options = {"postprocessing": None, "run_eagerly": True}
        found = ke.explain(method, first, x, **options)
        assert zoo.fingerprint(first) == before
        assert_equal(found, ke.explain(method, last, IMAGES, **options))
        assert np.abs(found[1]).max() > 0


@pytest.mark.parametrize("name", ["plain", "convolutional_head", "nested", "operations"])
def test_linear_heads_are_found(name):
    last, first = twins(BUILDERS[name])
    for method in ("cam", "d_minmaxcam"):
        found = ke.explain(method, first, _first(IMAGES), postprocessing=None)
        assert_equal(found, ke.explain(method, last, IMAGES, postprocessing=None))


@pytest.mark.filterwarnings("ignore:The terms of FullGrad")
@pytest.mark.parametrize(
    "method", ["zoomcam", "scorecam", "eigencam", "full_gradients", "integrated_gradients"]
)
def test_methods_of_every_kind_take_channels_first(method):
    last, first = twins(residual)
    found = ke.explain(method, first, _first(IMAGES), postprocessing=None)
    assert_equal(found, ke.explain(method, last, IMAGES, postprocessing=None))
    assert found[1].shape == (2, *SIZES, 3)


@pytest.mark.parametrize("endpoint", ["conv", "pool", {"name": "conv", "link": "input"}, 2, -3])
def test_any_layer_is_shown_with_channels_last(endpoint):
    last, first = twins(residual)
    exposed = inspection.expose(first, endpoint)
    expected = inspection.expose(last, endpoint)
    assert [tuple(t.shape) for t in exposed.outputs] == [tuple(t.shape) for t in expected.outputs]
    assert [tuple(t.shape) for t in exposed.inputs] == [(None, *SIZES, 3)]
    assert exposed.channels_first == (0,)
    assert expected.channels_first == ()
    assert_equal(exposed(IMAGES), expected(IMAGES))
    options = {"layer": endpoint, "resizing": False, "postprocessing": None}
    assert_equal(ke.gradcam(first, _first(IMAGES), **options), ke.gradcam(last, IMAGES, **options))


def test_logits_are_those_of_the_model():
    for build in BUILDERS.values():
        if build is not mixed_precision:
            model = twins(build)[1]
            exposed = inspection.expose(model, ())
            activation = exposed.activation or tf.identity
            logits = keras.tree.flatten(exposed(IMAGES))[0]
            predicted = np.reshape(model.predict(_first(IMAGES), verbose=0), logits.shape)
            np.testing.assert_allclose(activation(logits), predicted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_inputs_of_every_rank_have_channels_first(rank):
    sizes = (8, 6, 4)[:rank]

    def build(layout):
        x = inputs = keras.Input(_shape(layout, *sizes, channels=2))
        x = getattr(layers, f"Conv{rank}D")(3, 3, activation="relu", data_format=layout)(x)
        x = getattr(layers, f"GlobalAveragePooling{rank}D")(data_format=layout)(x)
        return keras.Model(inputs, layers.Dense(2)(x))

    last, first = twins(build)
    x = np.random.default_rng(0).normal(size=(2, *sizes, 2)).astype("float32")
    for method in ("scorecam", "input_x_gradient", ke.methods.tta("cam", scales=1)):
        assert_equal(ke.explain(method, first, _first(x)), ke.explain(method, last, x))


def test_biases_of_layers_that_are_run_with_channels_first_sum_to_the_logits():
    x = inputs = keras.Input(_shape(FIRST, *SIZES))
    normalization = layers.Normalization(axis=1, mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])
    x = layers.Rescaling(np.ones((3, 1, 1)), offset=np.array([0.1, 0.2, -0.3]).reshape(3, 1, 1))(x)
    x = _conv(FIRST, activation="relu")(normalization(x) + np.array([[[0.5]], [[0.1]], [[-0.5]]]))
    x = layers.PReLU(shared_axes=(2, 3), alpha_initializer="ones")(layers.Permute((1, 3, 2))(x))
    x = layers.GlobalMaxPooling2D(data_format=FIRST)(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Reshape((4,))(x)))
    logits, terms = ke.full_gradients(model, _first(IMAGES), terms=True)
    assert terms["input"].shape == (2, *SIZES, 3, 3)
    total = sum(term.sum(axis=tuple(range(1, term.ndim - 1))) for term in terms.values())
    np.testing.assert_allclose(total, logits, rtol=1e-4, atol=1e-5)
    assert len(terms) == 6


def test_what_depends_on_the_order_of_axes_sees_that_of_the_model():
    inputs = keras.Input(_shape(FIRST, *SIZES))
    x = layers.Flatten(data_format=LAST)(_conv(FIRST, activation="relu", name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(3, use_bias=False)(x))
    for endpoint in (None, "conv", model.get_layer("conv").output):
        logits, maps = ke.hirescam(
            model, _first(IMAGES), layer=endpoint, postprocessing=None, resizing=False
        )
        assert maps.shape == (2, *SIZES, 3)
        np.testing.assert_allclose(logits, model.predict(_first(IMAGES), verbose=0), rtol=1e-4)
        np.testing.assert_allclose(maps.sum((1, 2)), logits, rtol=1e-4, atol=1e-5)


def test_an_input_with_channels_last_stays_as_it_is():
    x = inputs = keras.Input((*SIZES, 3))
    x = _conv(FIRST, activation="relu", name="conv")(layers.Permute((3, 1, 2))(x))
    x = layers.Permute((2, 3, 1), name="last")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D(data_format=LAST)(x)))
    exposed = inspection.expose(model, ["conv", "last"])
    assert exposed.channels_first == ()
    assert [tuple(t.shape) for t in exposed.outputs[1:]] == [(None, *SIZES, 4)] * 2
    for method in ("gradients", "scorecam", "cam"):
        assert ke.explain(method, model, IMAGES)[1].shape == (2, *SIZES, 3)


def test_inputs_are_told_apart():
    first, last = keras.Input((3, *SIZES), name="first"), keras.Input((*SIZES, 3), name="last")
    vector = keras.Input((2,), name="vector")
    one = layers.GlobalAveragePooling2D(data_format=FIRST)(_conv(FIRST, name="conv")(first))
    other = layers.GlobalAveragePooling2D(data_format=LAST)(_conv(LAST)(last))
    x = layers.Dense(3)(layers.Concatenate()([one, other, vector]))
    model = keras.Model({"first": first, "last": last, "vector": vector}, x)
    data = {"first": _first(IMAGES), "last": IMAGES, "vector": np.ones((2, 2))}
    _, maps = ke.gradients(model, data)
    assert {name: m.shape for name, m in maps.items()} == {
        "first": (2, *SIZES, 3),
        "last": (2, *SIZES, 3),
        "vector": (2, 2, 3),
    }
    assert ke.gradcam(model, data, layer="conv")[1].shape == (2, *SIZES, 3)


def test_arrays_and_data_sets_have_channels_first():
    model = twins(plain)[1]
    x = _first(IMAGES)
    expected = ke.gradcam(model, x)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(1)
    assert_equal(ke.gradcam(model, dataset, verbose=0), expected)
    assert_equal(ke.gradcam(model, x, jit_compile=True), expected)
    assert_equal(ke.gradcam(model, {"image": x}, run_eagerly=True), expected)
    with pytest.raises(ValueError, match=r"`x`.*\(None, 3, 6, 8\).*Received: \(2, 6, 8, 3\)"):
        ke.gradcam(model, IMAGES)
    with pytest.raises(ValueError, match=r"Add the axis of samples"):
        ke.gradcam(model, x[0])


def test_sequences_with_channels_first_in_each_step_are_refused():
    inputs = keras.Input((2, 3, *SIZES))
    x = layers.TimeDistributed(_conv(FIRST), name="steps")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match=r"'steps', a TimeDistributed.*each step.*channels_last"):
        inspection.expose(model)


class WithTensorFlow(Subclassed):
    """A model that can't be followed on symbolic tensors."""

    def call(self, inputs):
        return self.head(tf.reduce_mean(self.first(inputs), _positions(self.layout)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_channels_first_under_tensorflow_functions_are_refused():
    model = WithTensorFlow(FIRST)
    model(_first(IMAGES))
    with pytest.raises(ValueError, match=r"'first' has its channels first.*TensorFlow functions"):
        ke.gradcam(model, _first(IMAGES))
