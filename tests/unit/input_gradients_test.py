"""Gradients by the input as outputs, against NumPy, and trained with."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from tests.conftest import two_replicas

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype("float32")
KERNEL = RNG.normal(size=(4, 3))
BIAS = RNG.normal(size=3)


def linear(activation=None):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, activation)])


def weigh(model):
    model.set_weights([KERNEL, BIAS])
    return model


def oracle(score, x=X):
    """Return the gradient of a score of a linear model, by hand."""
    z = x @ KERNEL + BIAS
    if score == "sum":
        return np.ones_like(z) @ KERNEL.T
    if score == "binary":
        return (1 - 2 / (1 + np.exp(-z))) @ KERNEL.T
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    return (1 - 3 * p) @ KERNEL.T


@pytest.mark.parametrize(
    ("score", "activation"),
    [
        ("categorical", "softmax"),
        ("categorical", None),
        ("binary", "sigmoid"),
        ("binary", None),
        ("sum", None),
    ],
)
def test_gradients_are_those_of_the_score(score, activation):
    model = weigh(linear(activation))
    layer = ke.layers.InputGradients(model, score, from_logits=activation is None)
    for run in (layer, tf.function(layer), tf.function(layer, jit_compile=True)):
        outputs, gradients = run(tf.constant(X))
        np.testing.assert_allclose(outputs, model(X), rtol=1e-5)
        np.testing.assert_allclose(gradients, oracle(score), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("score", "activation"), [("categorical", "softmax"), ("binary", "sigmoid")]
)
def test_probabilities_of_0_and_1_have_finite_gradients(score, activation, dtype):
    stack = [keras.Input((4,), dtype=dtype), layers.Dense(3, activation, dtype=dtype)]
    model = keras.Sequential(stack)
    model.set_weights([np.eye(4, 3) * 1e3, np.full(3, -500)])
    outputs, gradients = ke.layers.InputGradients(model, score)(np.eye(4, dtype=dtype)[:3])
    np.testing.assert_array_equal(outputs, np.eye(3))
    assert np.isfinite(gradients).all()


def test_scores_of_half_precision_are_computed_in_single():
    stack = [keras.Input((1,), dtype="float16"), layers.Dense(1, use_bias=False, dtype="float16")]
    model = keras.Sequential(stack)
    model.set_weights([np.ones((1, 1))])
    x = np.array([[12.0], [-12.0], [0.01]], "float16")
    found = ke.layers.InputGradients(model, "binary", True)(x)[1]
    expected = -np.tanh(x.astype("float64") / 2)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


class Counting(layers.Layer):
    """Has a metric of its own, as layers may."""

    def __init__(self, **options):
        super().__init__(**options)
        self.counted = keras.metrics.Sum(name="counted")

    def call(self, x):
        self.counted.update_state(1.0)
        return x


@pytest.mark.parametrize("nested", [False, True])
def test_losses_around_a_compiled_model_are_the_true_ones(nested):
    stack = [keras.Input((4,)), Counting(), layers.Dense(3, "softmax")]
    inner = keras.Sequential(stack)
    inner.set_weights([KERNEL, BIAS])
    inner.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    if nested:
        inputs = keras.Input((4,))
        inner = keras.Model(inputs, inner(inputs))
        inner.compile("sgd", "mse")
    inputs, labels = keras.Input((4,)), np.eye(3)[[0, 1, 2, 0, 1, 2]].astype("float32")
    model = keras.Model(inputs, ke.layers.InputGradients(inner)(inputs)[0])
    model.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")
    expected = -np.log((labels * np.asarray(inner(X))).sum(-1)).mean()
    history = model.fit(X, labels, validation_data=(X, labels), batch_size=6, verbose=0).history
    np.testing.assert_allclose([history["loss"], history["val_loss"]], expected, rtol=1e-5)
    assert history["counted"] == [1]
    assert model.evaluate(X, labels, batch_size=6, verbose=0, return_dict=True).keys() == {
        "loss",
        "counted",
    }


@keras.saving.register_keras_serializable("tests")
def first_of(outputs):
    return outputs[:, 0]


def test_a_function_of_the_outputs_is_a_score(tmp_path):
    layer = ke.layers.InputGradients(weigh(linear()), first_of)
    np.testing.assert_allclose(layer(X)[1], np.tile(KERNEL[:, 0], (6, 1)), rtol=1e-5)
    inputs = keras.Input((4,))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(X)[1], layer(X)[1], rtol=1e-6)


def test_a_model_with_the_layer_is_saved_and_cloned(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, ke.layers.InputGradients(linear(), "binary", True)(inputs))
    model.save(tmp_path / "model.keras")
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    for other in (keras.models.load_model(tmp_path / "model.keras"), cloned):
        assert (other.layers[-1].score, other.layers[-1].from_logits) == ("binary", True)
        np.testing.assert_allclose(other(X)[1], model(X)[1], rtol=1e-6)


def test_several_inputs_have_a_gradient_each():
    a, b, c = (keras.Input((n,), name=name) for n, name in ((2, "a"), (3, "b"), (1, "c")))
    x = {"a": np.ones((2, 2), "f"), "b": np.ones((2, 3), "f"), "c": np.ones((2, 1), "f")}
    x["a"][1] = 5
    total = keras.ops.sum(a**2, -1, keepdims=True) + 3 * keras.ops.sum(b, -1, keepdims=True)
    model = keras.Model({"a": a, "b": b, "c": c}, total)
    gradients = ke.layers.InputGradients(model, "sum")(x)[1]
    np.testing.assert_allclose(gradients["a"], 2 * x["a"])
    np.testing.assert_allclose(gradients["b"], np.full((2, 3), 3))
    np.testing.assert_allclose(gradients["c"], np.zeros((2, 1)))


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_a_penalty_is_differentiated_by_the_weights(activation):
    stack = [keras.Input((4,)), layers.Dense(5, activation), layers.Dense(3, "softmax")]
    model = keras.Sequential(stack)
    masks = (RNG.uniform(size=(6, 1)) > 0.5).astype("float32")
    layer, loss = ke.layers.InputGradients(model), ke.losses.EnergyOutside()

    def penalty():
        # Vectors as maps of one position, whose channels they are.
        return loss(masks, layer(X)[1][:, None])

    with tf.GradientTape() as tape:
        value = penalty()
    found = tape.gradient(value, model.trainable_variables[0]).numpy()
    start, step = model.get_weights(), 1e-2
    for place in ((0, 0), (3, 2)):
        ends = []
        for sign in (1, -1):
            moved = [w.copy() for w in start]
            moved[0][place] += sign * step
            model.set_weights(moved)
            ends.append(float(penalty()))
        expected = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(found[place], expected, rtol=0.02, atol=1e-3)


def normalized():
    stack = [layers.Dense(5), layers.BatchNormalization(momentum=0.5), layers.Dense(3, "softmax")]
    return keras.Sequential([keras.Input((4,)), *stack])


def test_the_model_runs_once_in_the_mode_of_the_layer():
    keras.utils.set_random_seed(0)
    model, alone = normalized(), normalized()
    alone.set_weights(model.get_weights())
    layer = ke.layers.InputGradients(model)
    np.testing.assert_allclose(layer(X, training=True)[0], alone(X, training=True), rtol=1e-5)
    for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_allclose(layer(X)[0], alone(X), rtol=1e-5)
    inputs = keras.Input((4,))
    outer = keras.Model(inputs, layer(inputs))
    before = model.get_weights()
    outer.compile(
        keras.optimizers.SGD(0.0), ["categorical_crossentropy", ke.losses.EnergyOutside()]
    )
    alone.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")
    labels = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    outer.fit(X, [labels, np.ones(6)], batch_size=6, verbose=0)
    alone.fit(X, labels, batch_size=6, verbose=0)
    assert not np.allclose(before[4], model.get_weights()[4])
    for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_gradients_are_in_the_dtype_of_the_inputs():
    stack = [keras.Input((4,)), layers.Dense(3, "softmax", dtype="mixed_float16")]
    model = weigh(keras.Sequential(stack))
    layer = ke.layers.InputGradients(model, dtype="mixed_float16")
    outputs, gradients = layer(X)
    assert (outputs.dtype, gradients.dtype) == ("float16", "float32")
    np.testing.assert_allclose(gradients, oracle("categorical"), rtol=0.02, atol=0.02)


def images_and_masks():
    rng = np.random.default_rng(1)
    masks = np.zeros((8, 6, 6), "float32")
    masks[:, 2:] = 1
    return rng.normal(size=(8, 6, 6, 3)).astype("float32"), np.eye(3)[np.arange(8) % 3], masks


def fit(policy=None, strategy=None, **options):
    x, y, masks = images_and_masks()
    with (strategy or tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(2)
        stack = [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, activation="softplus", dtype=policy),
            layers.GlobalAveragePooling2D(dtype=policy),
            layers.Dense(3, dtype=policy),
        ]
        inputs = keras.Input((6, 6, 3))
        layer = ke.layers.InputGradients(keras.Sequential(stack), from_logits=True)
        model = keras.Model(inputs, layer(inputs))
        losses = [keras.losses.CategoricalCrossentropy(from_logits=True)]
        losses += [ke.losses.EnergyOutside()]
        model.compile(keras.optimizers.SGD(0.1), losses, loss_weights=[1, 50], **options)
    history = model.fit(x, [y, masks], batch_size=8, epochs=2, shuffle=False, verbose=0)
    return np.asarray(history.history["loss"])


@pytest.fixture(scope="module")
def curve():
    return fit()


@pytest.mark.parametrize("mode", ["xla", "mixed_float16", "replicas"])
def test_training_with_gradients_is_the_same_in_every_mode(mode, curve):
    options = {
        "xla": {"jit_compile": True},
        "mixed_float16": {"policy": "mixed_float16"},
        "replicas": {"strategy": two_replicas()},
    }[mode]
    assert curve[-1] < curve[0]
    found = fit(**options)
    if mode == "replicas" and not np.isclose(found[0], curve[0], rtol=1e-4):
        pytest.skip("this version of Keras reports another loss on replicas")
    np.testing.assert_allclose(found, curve, rtol=1e-2 if mode == "mixed_float16" else 1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "model"}, TypeError, "`layer`.*Received: 'model'"),
        ({"score": "best"}, ValueError, "`score`.*Received: 'best'"),
        ({"score": 3}, TypeError, "`score`.*Received: 3"),
        ({"from_logits": 1}, TypeError, "`from_logits`.*Received: 1"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ke.layers.InputGradients(**{"layer": linear(), **options})


def test_integers_and_several_outputs_are_refused():
    with pytest.raises(TypeError, match="`inputs`. Expected floats.*Received: 'uint8'.*Rescaling"):
        ke.layers.InputGradients(linear())(tf.cast(X, "uint8"))
    inputs = keras.Input((4,))
    several = keras.Model(inputs, [inputs * 2, inputs * 3])
    with pytest.raises(ValueError, match="`layer`. Expected a model with one output"):
        ke.layers.InputGradients(several)(X)
