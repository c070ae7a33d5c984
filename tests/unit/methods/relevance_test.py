"""LRP against the rules in NumPy, one contribution at a time, and what follows from them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from keras_explainable.inspection import _rules

pytestmark = pytest.mark.usefixtures("_eagerly")

RAW = {"postprocessing": None, "reduction": None}
SIZE = 4
OPTIONS = {"epsilon": 1e-6, "gamma": 0.25, "alpha": 2.0, "low": -3.0, "high": 3.5}
RULES = ("epsilon", "gamma", "z_plus", "alpha_beta", "flat", "w_square")


def share(rule, a, weights, bias, relevance, gamma=0.25, alpha=2.0, epsilon=1e-6):
    """Share relevance `(outputs,)` out among inputs `(inputs,)` of a linear layer."""

    def by(contributions, total):
        kept = total != 0
        return (contributions[:, kept] * (relevance[kept] / total[kept])).sum(1)

    c = a[:, None] * weights
    up, down = np.maximum(c, 0), np.minimum(c, 0)
    if rule == "epsilon":
        z = c.sum(0) + bias
        return (c * (relevance / (z + epsilon * np.where(z >= 0, 1, -1)))).sum(1)
    if rule == "gamma":
        return by(c + gamma * up, (c + gamma * up).sum(0) + bias + gamma * np.maximum(bias, 0))
    if rule == "z_plus":
        return by(up, up.sum(0))
    if rule == "alpha_beta":
        return alpha * by(up, up.sum(0)) - (alpha - 1) * by(down, down.sum(0))
    if rule == "z_box":
        low, high = OPTIONS["low"], OPTIONS["high"]
        c = c - low * np.maximum(weights, 0) - high * np.minimum(weights, 0)
        return by(c, c.sum(0))
    if rule == "flat":
        # What no weight is for, as outside of the kernel, is no input of that output.
        c = (weights != 0) * 1.0
        return by(c, c.sum(0))
    return by(weights**2, (weights**2).sum(0))


def matrix(kernel, depthwise=False, groups=1):
    """Return a convolution that keeps the size as a matrix, `(inputs, outputs)`."""
    height, width, taken, made = kernel.shape
    channels, filters = taken * groups, made * (taken if depthwise else 1)
    weights = np.zeros((SIZE, SIZE, channels, SIZE, SIZE, filters))
    for i, j in np.ndindex(SIZE, SIZE):
        for k, m, c, f in np.ndindex(*kernel.shape):
            y, x = i + k - (height - 1) // 2, j + m - (width - 1) // 2
            if 0 <= y < SIZE and 0 <= x < SIZE:
                source, target = c + taken * (f // (made // groups)), f
                if depthwise:
                    source, target = c, c * made + f
                weights[y, x, source, i, j, target] = kernel[k, m, c, f]
    return weights.reshape(SIZE**2 * channels, -1)


def _network():
    """Build a network with batch normalizations, a residual and a concatenation."""
    keras.utils.set_random_seed(3)
    own = {"padding": "same", "bias_initializer": keras.initializers.RandomUniform(0.2, 0.5)}
    x = inputs = keras.Input((SIZE, SIZE, 2))
    x = layers.Conv2D(4, 3, name="conv", **own)(x)
    x = residual = layers.ReLU()(layers.BatchNormalization(name="after")(x))
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise", **own)(x)
    x = layers.Conv2D(4, 1, groups=2, name="grouped", **own)(x)
    x = layers.BatchNormalization(name="alone")(layers.Add()([x, residual]))
    x = layers.Concatenate()([keras.ops.relu(x), residual])
    x = layers.GlobalMaxPooling2D()(layers.AveragePooling2D(2)(x))
    x = layers.Dense(5, activation="relu", name="hidden", bias_initializer="ones")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head", bias_initializer="ones")(x))
    random = np.random.default_rng(0)
    for name in ("after", "alone"):
        for variable in model.get_layer(name).weights:
            variable.assign(random.uniform(0.2, 1.5, variable.shape))
    return model


def _conserving():
    """Build a network without biases, in which every sum has terms of both signs."""
    keras.utils.set_random_seed(3)
    own = {"padding": "same", "use_bias": False}
    x = inputs = keras.Input((SIZE, SIZE, 6))
    x = layers.BatchNormalization(center=False)(layers.Conv2D(8, 3, **own, name="conv")(x))
    x = residual = layers.ReLU()(x)
    x = layers.Conv2D(8, 3, groups=2, **own)(x)
    x = layers.BatchNormalization(center=False)(layers.Add()([x, residual]))
    x = layers.Concatenate()([keras.ops.relu(x), residual])
    x = layers.GlobalMaxPooling2D()(layers.AveragePooling2D(2)(x))
    x = layers.Dense(8, activation="relu", use_bias=False)(x)
    return keras.Model(inputs, layers.Dense(3, use_bias=False)(x))


IMAGES = np.random.default_rng(1).uniform(-2, 3, (2, SIZE, SIZE, 2)).astype("float32")
DEEPER = np.random.default_rng(2).uniform(-2, 3, (2, SIZE, SIZE, 6)).astype("float32")


def _normalization(layer):
    values = {v.name: np.asarray(v, "float64") for v in layer.weights}
    factor = values["gamma"] / np.sqrt(values["moving_variance"] + layer.epsilon)
    return factor, values["beta"] - values["moving_mean"] * factor


def _oracle(model, image, unit, rule, first):
    """Propagate through the network of `_network` in NumPy, layer by layer, batch norm folded."""

    def weights_of(name):
        return [np.asarray(w, "float64") for w in model.get_layer(name).get_weights()]

    positions = SIZE**2
    factor, shift = _normalization(model.get_layer("after"))
    kernel, bias = weights_of("conv")
    conv = matrix(kernel * factor), np.tile(bias * factor + shift, positions)
    kernel, bias = weights_of("depthwise")
    depthwise = matrix(kernel, depthwise=True), np.tile(bias, positions)
    kernel, bias = weights_of("grouped")
    grouped = matrix(kernel, groups=2), np.tile(bias, positions)
    hidden, head = weights_of("hidden"), weights_of("head")
    factor, shift = (np.tile(v, positions) for v in _normalization(model.get_layer("alone")))

    a0 = image.reshape(-1).astype("float64")
    a1 = np.maximum(a0 @ conv[0] + conv[1], 0)
    a2 = np.maximum(a1 @ depthwise[0] + depthwise[1], 0)
    a3 = a2 @ grouped[0] + grouped[1]
    a4 = a3 + a1
    a5 = a4 * factor + shift
    a6 = np.concatenate([np.maximum(a5, 0).reshape(SIZE, SIZE, -1), a1.reshape(SIZE, SIZE, -1)], -1)
    a7 = a6.reshape(2, 2, 2, 2, -1).mean((1, 3))
    a8 = a7.max((0, 1))
    a9 = np.maximum(a8 @ hidden[0] + hidden[1], 0)
    logits = a9 @ head[0] + head[1]

    epsilon = OPTIONS["epsilon"]

    def stable(z):
        return z + epsilon * np.where(z >= 0, 1, -1)

    relevance = np.zeros(3)
    relevance[unit] = logits[unit]
    relevance = share(rule, a9, *head, relevance)
    relevance = share(rule, a8, *hidden, relevance)
    pooled = np.where(a7 == a8, relevance, 0)
    relevance = a6 * np.repeat(np.repeat(pooled / stable(a7) / 4, 2, 0), 2, 1)
    relevance, shortcut = relevance[..., :4].reshape(-1), relevance[..., 4:].reshape(-1)
    relevance = a4 * factor * relevance / stable(a5)
    relevance, skipped = a3 * relevance / stable(a4), a1 * relevance / stable(a4)
    relevance = share(rule, a2, *grouped, relevance)
    relevance = share(rule, a1, *depthwise, relevance) + skipped + shortcut
    return logits[unit], share(first, a0, *conv, relevance).reshape(image.shape)


@pytest.mark.parametrize(("rule", "first"), [*((r, r) for r in RULES), ("gamma", "z_box")])
def test_relevance_is_that_of_the_rules_in_numpy(rule, first):
    model = _network()
    composite = {"first": first, "convolution": rule, "dense": rule}
    logits, maps = ke.lrp(model, IMAGES, composite=composite, **OPTIONS, **RAW)
    for i, image in enumerate(IMAGES):
        for unit in range(3):
            logit, expected = _oracle(model, image, unit, rule, first)
            np.testing.assert_allclose(logits[i, unit], logit, rtol=1e-4)
            scale = np.abs(expected).max()
            np.testing.assert_allclose(maps[i, ..., unit], expected, atol=1e-4 * scale)


@pytest.mark.parametrize("composite", ke.inspection.COMPOSITES)
def test_relevance_is_conserved(composite):
    """Without biases, which take relevance, every composite hands all of it on."""
    model = _conserving()
    logits, maps = ke.lrp(model, DEEPER, composite=composite, low=-3, high=3.5, **RAW)
    np.testing.assert_allclose(maps.sum((1, 2, 3)), logits, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_plus_flat"])
def test_biases_of_convolutions_take_nothing_by_z_plus(composite):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 8))
    x = layers.Conv2D(8, 3, activation="relu", bias_initializer="ones")(layers.ZeroPadding2D(1)(x))
    x = layers.Conv2D(8, 3, activation="relu", bias_initializer="ones", strides=2)(x)
    x = layers.Dense(2, use_bias=False)(layers.Flatten()(x))
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 8))
    logits, maps = ke.lrp(keras.Model(inputs, x), images, composite=composite, **RAW)
    np.testing.assert_allclose(maps.sum((1, 2, 3)), logits, rtol=1e-4)


def _without_bias():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, use_bias=False, activation="relu")(x)
    x = layers.MaxPooling2D()(layers.Conv2D(4, 3, use_bias=False, padding="same")(x))
    x = layers.Add()([layers.SeparableConv2D(4, 3, padding="same", use_bias=False)(x), x])
    x = layers.GlobalAveragePooling2D()(keras.ops.relu(x))
    return keras.Model(inputs, layers.Dense(3, use_bias=False)(x))


def test_epsilon_moves_sums_away_from_zero():
    shares = _rules.divide(tf.ones(3), tf.constant([2.0, -2.0, 0.0]), 0.5)
    np.testing.assert_allclose(shares, [1 / 2.5, -1 / 2.5, 1 / 0.5])


def test_epsilon_is_input_x_gradient_without_biases():
    model = _without_bias()
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 2))
    _, maps = ke.lrp(model, images, composite="epsilon", epsilon=1e-9, **RAW)
    _, expected = ke.input_x_gradient(model, images, **RAW)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "target",
    [
        ke.targets.segment("all"),
        ke.targets.segment("predicted"),
        ke.targets.position((1, -1)),
        ke.targets.contrast(0, 2, output=ke.targets.segment("all")),
    ],
)
def test_a_target_gives_each_score_what_it_adds(target):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, use_bias=False, activation="relu")(x)
    model = keras.Model(inputs, layers.Conv2D(3, 1, use_bias=False, activation="softmax")(x))
    images = np.random.default_rng(0).normal(size=(3, 6, 6, 2))
    options = {"output": target, **RAW}
    logits, maps = ke.lrp(model, images, composite="epsilon", epsilon=1e-9, **options)
    expected_logits, expected = ke.input_x_gradient(model, images, **options)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-5)
    np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())
    _, maps = ke.lrp(model, images, **options)
    np.testing.assert_allclose(maps.sum((1, 2, 3)), logits, atol=1e-4 * np.abs(logits).max())


def _between(make, shape=(6, 2)):
    """Put a layer between an activation and a head."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input(shape)
    rank = len(shape) - 1
    convolution = layers.Conv1D if rank == 1 else layers.Conv2D
    x = convolution(4, 3, padding="same", use_bias=False)(x)
    x = layers.Flatten()(make(layers.ReLU()(x)))
    return keras.Model(inputs, layers.Dense(2, use_bias=False)(x))


OTHERS = {
    "causal": lambda: (
        _between(layers.Conv1D(3, 3, padding="causal", dilation_rate=2)),
        _between(lambda x: layers.Conv1D(3, 3, dilation_rate=2)(layers.ZeroPadding1D((4, 0))(x))),
    ),
    "separable": lambda: (
        _between(layers.SeparableConv1D(3, 3, padding="same")),
        _between(
            lambda x: layers.Conv1D(3, 1)(
                layers.DepthwiseConv1D(3, padding="same", use_bias=False)(x)
            )
        ),
    ),
    "einsum": lambda: (
        _between(layers.EinsumDense("...c,cf->...f", 3, bias_axes="f")),
        _between(layers.Dense(3)),
    ),
    "pointwise": lambda: (_between(layers.Conv1D(3, 1)), _between(layers.Dense(3))),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z_plus", "alpha_beta"])
def test_layers_that_do_the_same_have_the_same_relevance(name, rule):
    model, other = OTHERS[name]()
    for mine, theirs in zip(other.weights, model.weights, strict=True):
        mine.assign(np.reshape(theirs, mine.shape))
    signals = np.random.default_rng(0).normal(size=(2, 6, 2))
    composite = dict.fromkeys(("first", "convolution", "dense"), rule)
    logits, maps = ke.lrp(model, signals, composite=composite, **RAW)
    expected_logits, expected = ke.lrp(other, signals, composite=composite, **RAW)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-5)
    np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("rule", ["epsilon", "z_plus", "flat"])
def test_a_transposed_convolution_is_its_matrix(rule):
    model = _between(layers.Conv1DTranspose(3, 3, strides=2, bias_initializer="ones"))
    transposed = model.layers[3]
    signals = np.random.default_rng(0).normal(size=(1, 6, 2)).astype("float32")
    activations = keras.Model(model.input, model.layers[2].output)(signals)
    unit = np.eye(24, dtype="float32").reshape(24, 6, 4)
    weights = (transposed(unit) - 1).numpy().reshape(24, -1)
    composite = {"first": "epsilon", "convolution": rule, "dense": "epsilon"}
    _, maps = ke.lrp(model, signals, 0, composite=composite, **RAW)
    a = activations.numpy().reshape(-1)
    logit = model(signals).numpy()[0, 0]
    last = a @ weights + 1
    head = model.layers[-1].kernel.numpy()
    relevance = share("epsilon", last, head[:, :1], 0, np.array([logit]))
    relevance = share(rule, a, weights, np.ones(len(last)), relevance)
    first = model.layers[1]
    unit = np.eye(12, dtype="float32").reshape(12, 6, 2)
    expected = share(
        "epsilon", signals.reshape(-1), first(unit).numpy().reshape(12, -1), 0, relevance
    )
    np.testing.assert_allclose(maps.reshape(-1), expected, atol=1e-4 * np.abs(expected).max())


def test_a_folded_normalization_is_that_of_folded_weights():
    model, folded = _network(), None
    x = inputs = keras.Input((SIZE, SIZE, 2))
    x = layers.Flatten()(layers.ReLU()(layers.Conv2D(4, 3, padding="same")(x)))
    folded = keras.Model(inputs, layers.Dense(3)(x))
    stack = [model.get_layer("conv"), model.get_layer("after"), layers.ReLU(), layers.Flatten()]
    model = keras.Sequential([keras.Input((SIZE, SIZE, 2)), *stack, layers.Dense(3)])
    factor, shift = _normalization(model.layers[1])
    kernel, bias = model.layers[0].get_weights()
    folded.set_weights([kernel * factor, bias * factor + shift, *model.layers[-1].get_weights()])
    for composite in ("epsilon", "epsilon_gamma_box", "epsilon_alpha2_beta1"):
        options = {"composite": composite, "low": -3, "high": 3.5, **RAW}
        _, maps = ke.lrp(model, IMAGES, **options)
        _, expected = ke.lrp(folded, IMAGES, **options)
        np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())
    _, apart = ke.lrp(model, IMAGES, batch_normalization="affine", **RAW)
    assert np.abs(apart - ke.lrp(model, IMAGES, **RAW)[1]).max() > 1e-2 * np.abs(apart).max()


def test_a_gate_takes_no_relevance():
    """As of squeeze and excitation, by its shape or its sigmoid."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, use_bias=False, activation="silu")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(3, 1, activation="sigmoid", name="excite")(gate)
    x = layers.Multiply()([x, gate]) * keras.ops.sigmoid(x)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(layers.Flatten()(x)))
    logits, maps = ke.lrp(model, IMAGES, **RAW)
    np.testing.assert_allclose(maps.sum((1, 2, 3)), logits, rtol=1e-4)


def test_scores_are_sums_of_relevance():
    model = _conserving()
    logits, scores = ke.lrp(model, DEEPER, scores=True)
    _, maps = ke.lrp(model, DEEPER, **RAW)
    np.testing.assert_allclose(scores["pixel"], maps.sum(-2), atol=1e-5)
    np.testing.assert_allclose(scores["color"], maps.sum((1, 2)), atol=1e-5)
    assert scores["edge"].shape == (2, 8, 3)
    np.testing.assert_allclose(scores["edge"].sum(1), logits, atol=1e-4)
    # One filter sees nothing but what the others lack.
    model.get_layer("conv").kernel.assign(model.get_layer("conv").kernel * np.eye(8)[0])
    _, scores = ke.lrp(model, DEEPER, scores=True)
    np.testing.assert_allclose(scores["edge"][:, 1:], 0, atol=1e-6)
    assert np.abs(scores["edge"][:, 0]).max() > 0


@pytest.mark.parametrize("slope", [0.0, 0.5])
@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1"])
def test_a_rectifier_that_leaks_is_not_positive(slope, composite):
    model = _between(lambda x: layers.Conv1D(3, 3)(layers.ReLU(negative_slope=slope)(x)))
    other = _between(lambda x: layers.Conv1D(3, 3)(layers.LeakyReLU(slope)(x)))
    for net in (model, other):
        net.layers[2].threshold = -10.0  # The rectifier before lets all values through.
    other.set_weights(model.get_weights())
    signals = np.random.default_rng(0).normal(size=(2, 6, 2))
    logits, maps = ke.lrp(model, signals, composite=composite, **RAW)
    expected_logits, expected = ke.lrp(other, signals, composite=composite, **RAW)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-5)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())


def test_a_constant_added_later_is_a_bias():
    shifted = _between(lambda x: keras.ops.relu(layers.Conv1D(3, 3)(x) + 2.0))
    biased = _between(layers.Conv1D(3, 3, activation="relu"))
    kernel, bias = shifted.layers[3].get_weights()
    biased.set_weights([*shifted.get_weights()[:1], kernel, bias + 2, shifted.get_weights()[-1]])
    signals = np.random.default_rng(0).normal(size=(2, 6, 2))
    options = {"composite": "epsilon", **RAW}
    _, maps = ke.lrp(shifted, signals, **options)
    _, expected = ke.lrp(biased, signals, **options)
    np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_gamma_box"])
def test_padding_takes_no_relevance(composite):
    def build(pad):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6, 6, 3))
        x = layers.Conv2D(8, 3, use_bias=False, activation="relu")(pad(inputs))
        return keras.Model(inputs, layers.Dense(2, use_bias=False)(layers.Flatten()(x)))

    images = np.random.default_rng(0).uniform(-1, 1, (2, 6, 6, 3))
    options = {"composite": composite, "low": [-1, -1, -1.5], "high": 1, **RAW}
    for pad in (
        layers.ZeroPadding2D(2),
        lambda x: keras.ops.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))),
    ):
        logits, maps = ke.lrp(build(pad), images, **options)
        np.testing.assert_allclose(maps.sum((1, 2, 3)), logits, atol=1e-4 * np.abs(logits).max())


class Doubling(layers.Layer):
    def call(self, inputs):
        return tf.square(inputs)


class WithFunction(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten, self.head = layers.Flatten(), layers.Dense(2)

    def call(self, inputs):
        return self.head(self.flatten(tf.exp(inputs)))


def test_what_there_is_no_rule_for_is_listed():
    x = inputs = keras.Input((4, 3))
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.MultiHeadAttention(1, 2, name="attention")(x, x)
    x = Doubling(name="double")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    expected = r"LayerNormalization 'norm', MultiHeadAttention 'attention', Doubling 'double'"
    with pytest.raises(ValueError, match=expected):
        ke.lrp(model, np.ones((1, 4, 3)))
    x = layers.Dense(4, activation=lambda t: keras.ops.roll(t, 1, axis=-1), name="rolling")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="Activation 'rolling_activation'"):
        ke.lrp(model, np.ones((1, 4, 3)))
    stems = [layers.Conv1D(n, 1)(inputs) for n in (2, 3)]
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Concatenate()(stems))))
    with pytest.raises(ValueError, match=r"one first layer.*2 first layers"):
        ke.lrp(model, np.ones((1, 4, 3)), scores=True)
    model = WithFunction()
    model(np.ones((1, 2), "float32"))
    with pytest.raises(ValueError, match="Exp '"):
        ke.lrp(model, np.ones((1, 2), "float32"))


def test_options_are_checked():
    model = _network()
    for options, message in (
        ({"composite": "zplus"}, "`composite`.*epsilon_plus.*'zplus'"),
        ({"composite": {"first": "flat"}}, "`composite`.*convolution"),
        ({"composite": "epsilon_gamma_box"}, "`low`.*number.*None"),
        ({"composite": "epsilon_gamma_box", "low": 1, "high": -1}, "`high`.*above `low`"),
        (
            {"composite": "epsilon_gamma_box", "low": [0] * 3, "high": 1},
            "`low`.*2, one per channel",
        ),
        ({"epsilon": -1}, "`epsilon`"),
        ({"alpha": 0.5}, "`alpha`.*from 1 on"),
        ({"batch_normalization": "merge"}, "`batch_normalization`.*fold, affine"),
        ({"layer": "conv"}, "`layer`.*lrp explains the input"),
    ):
        with pytest.raises(ValueError, match=message):
            ke.lrp(model, IMAGES, **options)
    with pytest.raises(TypeError, match=r"'bias'.*composite, epsilon.*scores"):
        ke.lrp(model, IMAGES, bias=1)
    with pytest.raises(ValueError, match="expose_relevance"):
        ke.methods.lrp(model, IMAGES)
