"""Guided backpropagation and its relatives against NumPy, in all forms that a rectifier has."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from tests import zoo

pytestmark = pytest.mark.usefixtures("_eagerly")

RAW = {"postprocessing": None, "reduction": None}
IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype("float32")
METHODS = ("guided_backprop", "deconvnet", "gnl_integrated_gradients")
# What a gradient by the output of a rectifier of `z` becomes.
RULES = {
    "guided_backprop": lambda z, gradient: (z > 0) * np.maximum(gradient, 0),
    "deconvnet": lambda _, gradient: np.maximum(gradient, 0),
}


@pytest.mark.parametrize("method", RULES)
def test_two_dense_layers_are_those_of_numpy(method):
    random = np.random.default_rng(0)
    first, second, head = (random.normal(size=(5, 5)) for _ in range(3))
    x = inputs = keras.Input((5,))
    for _ in range(2):
        x = layers.Dense(5, activation="relu", use_bias=False)(x)
    model = keras.Model(inputs, layers.Dense(5, use_bias=False)(x))
    model.set_weights([first, second, head])
    vectors = random.normal(size=(3, 5))
    _, maps = ke.explain(method, model, vectors, **RAW)
    a = vectors @ first
    b = np.maximum(a, 0) @ second
    for unit in range(5):
        gradient = RULES[method](b, head[:, unit]) @ second.T
        expected = RULES[method](a, gradient) @ first.T
        np.testing.assert_allclose(maps[..., 0, unit], np.broadcast_to(expected, (3, 5)), atol=1e-5)


def _fused():
    return [layers.Conv2D(3, 3, activation="relu"), layers.Conv2D(4, 3, activation="relu")]


def _apart(make):
    return lambda: [layers.Conv2D(3, 3), make(), layers.Conv2D(4, 3), make()]


class Block(keras.Model):
    def __init__(self, convolution, activation):
        super().__init__()
        self.convolution, self.activate = convolution, activation

    def call(self, inputs):
        return self.activate(self.convolution(inputs))


def _nested():
    first = keras.Sequential([keras.Input((6, 6, 2)), *_fused()[:1]])
    return [keras.Sequential([first, layers.Conv2D(4, 3)]), layers.ReLU()]


def _subclassed():
    return [Block(layers.Conv2D(3, 3), layers.ReLU()), Block(layers.Conv2D(4, 3), keras.ops.relu)]


FORMS = {
    "fused": _fused,
    "layers": _apart(layers.ReLU),
    "activation": _apart(lambda: layers.Activation("relu")),
    "operation": _apart(lambda: keras.ops.relu),
    "activation function": _apart(lambda: keras.activations.relu),
    "of TensorFlow": _apart(lambda: layers.Activation(tf.nn.relu)),
    "nested": _nested,
    "subclassed": _subclassed,
}


def _form(name):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 2))
    for layer in FORMS[name]():
        x = layer(x)
    x = layers.Dense(3)(layers.Flatten()(layers.MaxPooling2D()(x)))
    return keras.Model(inputs, x)


@functools.cache
def _reference():
    """Return the weights of a model of layers, and its maps by method."""
    model = _form("layers")
    maps = {method: ke.explain(method, model, IMAGES, **RAW)[1] for method in METHODS}
    return model.get_weights(), maps


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_a_rectifier_are_replaced(form):
    model, (weights, reference) = _form(form), _reference()
    model.set_weights(weights)
    before = zoo.fingerprint(model)
    plain = ke.gradients(model, IMAGES, **RAW)[1]
    for method, expected in reference.items():
        _, maps = ke.explain(method, model, IMAGES, **RAW)
        np.testing.assert_allclose(maps, expected, atol=1e-6 * np.abs(expected).max())
        assert np.abs(expected - plain).max() > 0.01 * np.abs(plain).max()
    assert zoo.fingerprint(model) == before


def test_a_shared_rectifier_is_replaced_at_every_call():
    relu, first, second = layers.ReLU(), layers.Conv2D(3, 3), layers.Conv2D(4, 3)
    x = inputs = keras.Input((6, 6, 2))
    x = relu(second(relu(first(x))))
    x = layers.Dense(3)(layers.Flatten()(layers.MaxPooling2D()(x)))
    model, reference = keras.Model(inputs, x), _form("layers")
    for mine, theirs in zip((first, second, model.layers[-1]), (1, 3, -1), strict=True):
        mine.set_weights(reference.layers[theirs].get_weights())
    _, maps = ke.guided_backprop(model, IMAGES, **RAW)
    _, expected = ke.guided_backprop(reference, IMAGES, **RAW)
    np.testing.assert_allclose(maps, expected, atol=1e-6 * np.abs(expected).max())


RECTIFIERS = {
    "relu6": lambda x: tf.nn.relu6(x),
    "leaky_relu": lambda x: keras.activations.leaky_relu(x),
    "elu": tf.nn.elu,
    "selu": tf.nn.selu,
    "gelu": tf.nn.gelu,
    "silu": tf.nn.silu,
    "softplus": tf.nn.softplus,
    "mish": lambda x: x * tf.tanh(tf.nn.softplus(x)),
    layers.ReLU(6.0): tf.nn.relu6,
    layers.LeakyReLU(negative_slope=0.3): lambda x: tf.nn.leaky_relu(x, 0.3),
    layers.PReLU(alpha_initializer="ones"): tf.identity,
    layers.ELU(): tf.nn.elu,
}


@pytest.mark.parametrize("rectifier", RECTIFIERS, ids=str)
def test_relatives_of_the_rectifier_are_guided_by_their_derivative(rectifier):
    vectors = np.linspace(-3, 9, 8, dtype="float32").reshape(2, 4)
    weights = np.array([[1.0, -2.0], [-1, 3], [2, 0.5], [-0.5, -1]], "float32")
    layer = layers.Activation(rectifier) if isinstance(rectifier, str) else rectifier
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(layer(inputs)))
    model.layers[-1].set_weights([weights])
    x = tf.constant(vectors)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = RECTIFIERS[rectifier](x)
    derivative = tape.gradient(y, x).numpy()[..., None]
    _, guided = ke.guided_backprop(model, vectors, **RAW)
    _, deconvolved = ke.deconvnet(model, vectors, **RAW)
    positive = np.broadcast_to(np.maximum(weights, 0), (2, 4, 2))
    np.testing.assert_allclose(guided[..., 0, :], derivative * positive, atol=1e-5)
    np.testing.assert_allclose(deconvolved[..., 0, :], positive, atol=1e-6)


def test_max_pooling_is_guided_in_gnl_only():
    inputs = keras.Input((4, 1))
    x = layers.MaxPooling1D(2)(layers.ReLU()(inputs))
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(layers.Flatten()(x)))
    model.layers[-1].set_weights([np.array([[2.0], [-3.0]])])
    signal = np.array([[[1.0], [4.0], [3.0], [2.0]]])
    _, maps = ke.gnl_integrated_gradients(model, signal, num_steps=3, **RAW)
    np.testing.assert_allclose(maps.reshape(-1), [0, 8, 0, 0], atol=1e-5)
    # Without a rectifier behind it, the pooling passes what is negative in guided backpropagation.
    x = layers.ReLU()(layers.MaxPooling1D(2)(inputs))
    x = layers.MaxPooling1D(1)(x)
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(layers.Flatten()(x)))
    model.layers[-1].set_weights([np.array([[2.0], [-3.0]])])
    _, maps = ke.guided_backprop(model, signal, **RAW)
    np.testing.assert_allclose(maps.reshape(-1), [0, 2, 0, 0], atol=1e-6)


def test_guided_product_is_that_of_its_parts():
    model = _form("fused")
    options = {"layer": model.layers[1], "postprocessing": None}
    coarse = ke.gradcam(model, IMAGES, layer=model.layers[1], postprocessing="positive")[1]
    for by in ("guided_backprop", "input_x_gradient", ke.methods.smooth("gradients")):
        method = ke.methods.guided("gradcam", by=by, reduction="sum_abs")
        logits, maps = ke.explain(method, model, IMAGES, **options)
        own = {"reduction": "sum_abs", "postprocessing": None}
        expected_logits, fine = ke.explain(by, model, IMAGES, **own)
        np.testing.assert_allclose(logits, expected_logits, rtol=1e-6)
        np.testing.assert_allclose(maps, coarse * fine, atol=1e-6 * np.abs(maps).max())


@pytest.mark.parametrize("kind", ["several_inputs", "siamese", "nested", "mixed_float16"])
def test_guided_product_takes_the_input_that_the_activations_show(kind):
    specimen, plain = zoo.KINDS[kind](), zoo.functional()
    method = ke.methods.guided("gradcam", reduction=None)
    _, maps = ke.explain(method, specimen.model, specimen.x, **specimen.options)
    _, expected = ke.explain(method, plain.model, plain.x)
    assert maps.shape == (3, 6, 6, 3, 5)
    np.testing.assert_allclose(maps, expected, atol=max(specimen.tolerance, 1e-5))


def test_guided_product_refuses_methods_of_the_wrong_family():
    with pytest.raises(ValueError, match=r"`method`.*another than the gradient family.*gradients"):
        ke.methods.guided("gradients")
    with pytest.raises(ValueError, match=r"`by`.*of the gradient family.*gradcam"):
        ke.methods.guided("gradcam", by="gradcam")
    with pytest.raises(ValueError, match=r"`reduction`.*'median'"):
        ke.methods.guided("gradcam", reduction="median")


class Own(layers.Layer):
    def __init__(self, function=tf.nn.relu, **arguments):
        super().__init__(**arguments)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


HIDDEN = {
    "maximum": lambda x: tf.maximum(x, 0.0),
    "silu": tf.nn.silu,
    "gelu": tf.nn.gelu,
    "softplus": tf.nn.softplus,
    "where": lambda x: tf.where(x > 0, x, 0.0),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_rectifier_in_a_layer_of_ones_own_is_named(name):
    x = inputs = keras.Input((3,))
    x = Own(HIDDEN[name], name="mine")(layers.Dense(4, activation="relu")(x))
    with pytest.raises(ValueError, match="can't be replaced.*mine"):
        ke.guided_backprop(keras.Model(inputs, layers.Dense(2)(x)), np.ones((1, 3)))


def test_what_is_no_rectifier_keeps_its_gradient():
    """Gates, normalization and clipping away from zero are none."""
    x = inputs = keras.Input((3,))
    x = layers.Dense(4, activation="relu")(x)
    x = x * keras.ops.sigmoid(layers.Dense(4)(x))
    x = layers.UnitNormalization()(keras.ops.clip(x, -3.0, 3.0) + layers.LayerNormalization()(x))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    assert np.isfinite(ke.guided_backprop(model, np.ones((1, 3)))[1]).all()


def test_a_maximum_with_a_constant_is_a_rectifier():
    reference = _form("layers")
    x = inputs = keras.Input((6, 6, 2))
    for layer in reference.layers[1:]:
        x = keras.ops.maximum(x, 0.0) if isinstance(layer, layers.ReLU) else layer(x)
    model = keras.Model(inputs, x)
    _, maps = ke.guided_backprop(model, IMAGES, **RAW)
    _, expected = ke.guided_backprop(reference, IMAGES, **RAW)
    np.testing.assert_allclose(maps, expected, atol=1e-6 * np.abs(expected).max())


class Function(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.head = layers.Dense(3, activation="relu"), layers.Dense(2)

    def call(self, inputs):
        return self.head(tf.nn.relu(self.first(inputs)))


@pytest.mark.parametrize("method", METHODS)
def test_a_rectifier_out_of_reach_is_named(method):
    inputs = keras.Input((4, 3))
    hidden = layers.ReLU()(inputs)
    flat = layers.Flatten()
    cases = {
        "mine.*Relu": layers.Dense(2)(flat(Own(name="mine")(hidden))),
        "lstm.*Relu": layers.Dense(2)(layers.LSTM(2, activation="relu", name="lstm")(hidden)),
        "distributed.*Relu": layers.Dense(2)(
            flat(layers.TimeDistributed(layers.Dense(2, activation="relu"))(hidden))
        ),
    }
    for name, outputs in cases.items():
        with pytest.raises(ValueError, match=f"can't be replaced.*{name}.*layers or `keras.ops`"):
            ke.explain(method, keras.Model(inputs, outputs), np.ones((1, 4, 3)))
    model = Function()
    model(np.ones((1, 3), "float32"))
    with pytest.raises(ValueError, match="can't be replaced.*Relu"):
        ke.explain(method, model, np.ones((1, 3), "float32"))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_rectifiers_is_refused(method):
    inputs = keras.Input((3,))
    outputs = layers.Dense(2)(layers.Dense(3, activation="tanh", name="bounded")(inputs))
    with pytest.raises(ValueError, match=r"no rectifier.*'bounded.*Use `gradients`"):
        ke.explain(method, keras.Model(inputs, outputs), np.ones((1, 3)))
    with pytest.raises(ValueError, match="expose_guided"):
        ke.methods.get(method)(keras.Model(inputs, outputs), np.ones((1, 3), "float32"))


@pytest.mark.parametrize("rule", ["guided", "deconvolution", "guided_pooling"])
def test_exposed_models_say_their_rule(rule):
    exposed = ke.inspection.expose_guided(_form("fused"), rule=rule)
    assert exposed.gradient_rule == rule
    assert len(exposed.outputs) == 1
    with pytest.raises(ValueError, match=r"`rule`.*guided, guided_pooling, deconvolution.*'lrp'"):
        ke.inspection.expose_guided(_form("fused"), rule="lrp")
