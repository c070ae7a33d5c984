"""Integrated Gradients, Input × Gradient and FullGrad against NumPy."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from keras_explainable.methods._inputs import even_chunks
from tests import zoo
from tests.unit.methods.gradients_test import ORACLES

pytestmark = pytest.mark.usefixtures("_eagerly")

RAW = {"postprocessing": None, "resizing": False}
X = np.random.default_rng(4).normal(size=(3, 6, 6, 2)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(5, 3, activation="tanh", bias_initializer="random_normal")(x)
    x = layers.Conv2D(4, 3, activation="relu", bias_initializer="random_normal")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))


def gradient(model, x):
    """Differentiate the logits, `(batch, height, width, channels, units)`."""
    linear = keras.models.clone_model(model)
    linear.set_weights(model.get_weights())
    linear.layers[-1].activation = keras.activations.linear
    x = tf.constant(x, tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        logits = linear(x)
    jacobian = tape.batch_jacobian(logits, x, experimental_use_pfor=False).numpy()
    return np.moveaxis(jacobian, 1, -1).astype("float64")


def input_x_gradient(model, reduction="signed_sum"):
    return ORACLES[reduction](X[..., None] * gradient(model, X))


def integrated_gradients(
    model, baseline=0.0, num_steps=50, rule="gausslegendre", reduction="signed_sum"
):
    if callable(baseline):
        baseline = baseline(X)
    path = X - np.broadcast_to(baseline, X.shape)
    if rule == "gausslegendre":
        points, weights = np.polynomial.legendre.leggauss(num_steps)
        points, weights = (points + 1) / 2, weights / 2
    elif rule == "riemann_trapezoid":
        points = np.arange(num_steps) / (num_steps - 1)
        weights = np.ones(num_steps) / (num_steps - 1)
        weights[0] = weights[-1] = weights[0] / 2
    else:
        shift = {"riemann_left": 0, "riemann_middle": 0.5, "riemann_right": 1}[rule]
        points, weights = (np.arange(num_steps) + shift) / num_steps, np.ones(num_steps) / num_steps
    total = 0
    for t, weight in zip(points, weights, strict=True):
        total = total + weight * gradient(model, X - path + t * path)
    return ORACLES[reduction](path[..., None] * total)


RULES = [{"rule": rule, "num_steps": 7} for rule in ke.methods.gradients.RULES]
REDUCTIONS = [{"reduction": reduction} for reduction in ORACLES]
CASES = [
    *((input_x_gradient, options) for options in [{}, *REDUCTIONS]),
    *((integrated_gradients, {"num_steps": 4, **options}) for options in REDUCTIONS),
    *((integrated_gradients, options) for options in RULES),
    (integrated_gradients, {}),
    (integrated_gradients, {"num_steps": 1}),
    (integrated_gradients, {"num_steps": 5, "baseline": -0.5}),
    (integrated_gradients, {"num_steps": 5, "baseline": X[0]}),
    (integrated_gradients, {"num_steps": 5, "baseline": X[:1] + 1}),
    (integrated_gradients, {"num_steps": 5, "baseline": np.array([0.5, -1.0], "float32")}),
]


@pytest.mark.parametrize(("oracle", "options"), CASES)
def test_maps_are_those_of_the_equation(oracle, options, model):
    _, maps = ke.explain(oracle.__name__, model, X, **RAW, **options)
    expected = oracle(model, **options)
    np.testing.assert_allclose(maps, expected, atol=2e-5 * np.abs(expected).max())


def test_a_baseline_may_be_computed_from_the_inputs(model):
    def mean_colour(inputs):
        return tf.reduce_mean(inputs, axis=(1, 2), keepdims=True)

    _, maps = ke.integrated_gradients(model, X, baseline=mean_colour, num_steps=5, **RAW)
    expected = integrated_gradients(model, X.mean((1, 2), keepdims=True), num_steps=5)
    np.testing.assert_allclose(maps, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["input_x_gradient", "integrated_gradients"])
def test_every_option_has_a_case_that_changes_the_maps(name, model):
    cases = [options for oracle, options in CASES if oracle.__name__ == name]
    parameters = inspect.signature(ke.methods.get(name)).parameters.values()
    own = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"residual", "chunk_size"}
    assert own == set().union(*cases)
    default = ke.explain(name, model, X, **RAW)[1]
    for option in own:
        given = {"rule": {"rule": "riemann_left"}, "num_steps": {"num_steps": 2}}.get(option)
        given = given or next(c for c in cases if option in c)
        maps = ke.explain(name, model, X, **RAW, **given)[1]
        assert maps.shape != default.shape or np.abs(maps - default).max() > 1e-4, option


def test_chunks_don_t_change_the_maps(model):
    expected = integrated_gradients(model, num_steps=7)
    # Of one sample, of several samples but not all of their steps, and of all.
    for chunk_size in (1, 3, 5, 7, 16, 1000):
        _, maps = ke.integrated_gradients(model, X, num_steps=7, chunk_size=chunk_size, **RAW)
        np.testing.assert_allclose(maps, expected, atol=2e-5 * np.abs(expected).max())


def test_samples_have_units_of_their_own(model):
    units = np.array([[0, 2], [1, 1], [2, 0]])
    expected = np.take_along_axis(
        integrated_gradients(model, num_steps=5), units[:, None, None], axis=-1
    )
    _, maps = ke.integrated_gradients(model, X, units, num_steps=5, chunk_size=7, **RAW)
    np.testing.assert_allclose(maps, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.compiled
def test_chunks_hold_as_many_samples_where_the_batch_size_is_unknown(model):
    exposed = ke.inspection.expose_affine(model)
    explain = functools.partial(ke.methods.get("integrated_gradients"), exposed, num_steps=7)
    compiled = tf.function(explain, input_signature=[tf.TensorSpec((None, *X.shape[1:]))])
    for x in (X, X[:1]):
        expected = integrated_gradients(model, num_steps=7)[: len(x)]
        np.testing.assert_allclose(compiled(x)[1], expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.compiled
@pytest.mark.parametrize("mode", [{}, {"jit_compile": True}])
def test_a_sample_that_is_no_number_leaves_those_of_its_chunk_alone(model, mode):
    x = np.concatenate([X, X])
    x[2, 0, 0, 0], x[4] = np.nan, np.inf
    _, maps = ke.integrated_gradients(model, x, num_steps=5, chunk_size=12, **mode, **RAW)
    expected = integrated_gradients(model, num_steps=5)
    for number in (0, 1, 3, 5):
        np.testing.assert_allclose(maps[number], expected[number % 3], atol=1e-5)
    assert np.isnan(maps[[2, 4]]).any((1, 2)).all()


def _starting_with(*first, shape=(6, 6, 2)):
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input(shape)
    for layer in first:
        x = layer(x)
    x = layers.Activation("softplus")(x)
    if len(shape) > 1:
        x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


class _InTensorFlow(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.normalize = layers.Conv2D(3, 1), layers.BatchNormalization()

    def call(self, inputs):
        x = self.first(inputs)
        return tf.reduce_mean(tf.nn.softplus(x) * self.normalize(x), (1, 2))


class _Squared(layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return keras.ops.square(super().convolution_op(inputs, kernel))


def _reading_the_front_twice():
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same")(x)
    joined = layers.Concatenate()([layers.BatchNormalization()(x), layers.Activation("tanh")(x)])
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(joined)))


AFFINE = {
    "convolution": lambda: _starting_with(
        layers.Rescaling(0.3, offset=0.1),
        layers.ZeroPadding2D(1),
        layers.Conv2D(4, 3, strides=2, bias_initializer="random_normal"),
        layers.BatchNormalization(moving_mean_initializer="random_normal"),
    ),
    "separable": lambda: _starting_with(layers.SeparableConv2D(4, 3)),
    "nested": lambda: _starting_with(keras.Sequential([layers.Conv2D(4, 3)])),
    "dense": lambda: _starting_with(layers.Dense(4), shape=(2,)),
    "linear": lambda: keras.Sequential([keras.Input((2,)), layers.Dense(3, activation="softmax")]),
    "branches": _reading_the_front_twice,
}
MODES = {
    "graph": {"y": [[1, 0], [2, 2], [0, 1]]},
    "eager": {"run_eagerly": True},
    "xla": {"jit_compile": True, "y": 2},
}


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("kind", "mode"), [*((kind, "graph") for kind in AFFINE), ("nested", "eager"), ("dense", "xla")]
)
def test_gradients_summed_behind_affine_layers_are_those_of_the_input(kind, mode):
    model, options = AFFINE[kind](), MODES[mode]
    x = X[:, 0, 0] if kind in ("dense", "linear") else X
    units = options.get("y")
    own = {"num_steps": 5, "baseline": -0.5, "reduction": None, "chunk_size": 7}
    assert ke.inspection.expose_affine(model).front
    _, maps = ke.integrated_gradients(model, x, **options, **own, **RAW)
    plain = ke.inspection.expose(model, ())
    units = np.full((len(x), 1), units) if isinstance(units, int) else units
    _, expected = ke.methods.get("integrated_gradients")(plain, x, units, **own)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("mode", [{}, {"run_eagerly": True}])
def test_inputs_that_the_logits_do_not_depend_on_have_maps_of_zeros(mode):
    image, ids = keras.Input((6, 6, 2), name="image"), keras.Input((4,), dtype="int32", name="ids")
    vector = keras.Input((2,), name="vector")
    own = layers.Dense(3, name="own")(layers.Flatten()(layers.Conv2D(4, 3)(image)))
    embedded = layers.Flatten()(layers.Embedding(9, 2)(ids))
    model = keras.Model(
        [image, ids, vector], [own, layers.Dense(3)(embedded) + own * vector[:, :1]]
    )
    assert ke.inspection.expose_affine(model, "own").front
    x = [X, np.ones((3, 4), "int32"), X[:, 0, 0]]
    _, maps = ke.integrated_gradients(model, x, output="own", num_steps=5, **mode, **RAW)
    alone = keras.Model(image, own)
    _, expected = ke.integrated_gradients(alone, X, num_steps=5, **RAW)
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)
    np.testing.assert_array_equal(maps[1], np.zeros((3, 2, 3)))


@pytest.mark.parametrize(("number", "most", "size"), [(400, 8, 8), (9, 8, 5), (2, 8, 2)])
def test_chunks_are_about_as_large_as_one_another(number, most, size):
    assert even_chunks(number, most) == size
    assert even_chunks(number, tf.constant(most)) == size


@pytest.mark.parametrize(
    "kind", ["activated", "own convolution", "several inputs", "subclassed", "target"]
)
def test_models_that_start_otherwise_have_no_affine_layers_to_sum_behind(kind):
    model, output = AFFINE["convolution"](), None
    if kind == "activated":
        model = _starting_with(layers.Conv2D(4, 3, activation="tanh"))
    elif kind == "own convolution":
        model = _starting_with(_Squared(4, 3))
    elif kind == "several inputs":
        model = zoo.several_inputs().model
    elif kind == "subclassed":
        model = _InTensorFlow()
        model(X)
    else:
        front = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))
        model = keras.Model(model.inputs, [front.output, model.output])
        output = lambda outputs: tf.reduce_sum(outputs[0], (1, 2))[:, :3] + outputs[1]  # noqa: E731
    exposed = ke.inspection.expose_affine(model, output)
    assert exposed.front is None
    assert len(exposed.outputs) == 1


def test_several_inputs_have_a_baseline_each():
    specimen = zoo.several_inputs()
    kernel = next(w for w in specimen.model.weights if tuple(w.shape) == (2, zoo.UNITS))
    kernel.assign(np.arange(10).reshape(2, 5) - 4.0)
    baseline = {"image": 0.5, "vector": np.array([-1.0, 2.0], "float32")}
    options = {"baseline": baseline, "num_steps": 30, "residual": True, **RAW}
    logits, found = ke.integrated_gradients(specimen.model, specimen.x, **options)
    maps = found["maps"]
    offsets = (specimen.x["vector"] - baseline["vector"])[..., None]
    np.testing.assert_allclose(maps["vector"], offsets * kernel.numpy(), rtol=1e-5)
    lowest = zoo.logits(np.full_like(zoo.IMAGES, 0.5)) + baseline["vector"] @ kernel.numpy()
    total = maps["image"].sum((1, 2)) + maps["vector"].sum(1)
    np.testing.assert_allclose(total - found["residual"], logits - lowest, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "simpson"}, r"`rule`. Expected one of gausslegendre.*'simpson'"),
        ({"num_steps": 0}, r"`num_steps`.*positive integer.*0"),
        ({"num_steps": 1, "rule": "riemann_trapezoid"}, r"`num_steps`.*from 2 on.*1"),
        ({"baseline": np.zeros((5, 6, 2))}, r"`baseline`.*\(1, 6, 6, 2\).*\(5, 6, 2\)"),
        ({"chunk_size": 0}, r"`chunk_size`.*0"),
        ({"reduction": "median"}, r"`reduction`.*'median'"),
    ],
)
def test_bad_options_are_named(options, message, model):
    with pytest.raises(ValueError, match=message):
        ke.integrated_gradients(model, X, **options)


def test_a_baseline_that_is_no_array_is_refused(model):
    with pytest.raises(TypeError, match=r"`baseline`.*'black'"):
        ke.integrated_gradients(model, X, baseline="black")


def _affine_model(**norm):
    """Build a network of every kind of layer that adds something, its variables at random."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(0.5, offset=0.25, name="rescaling")(x)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0], name="normal")(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="fused")(x)
    x = layers.BatchNormalization(name="norm", **norm)(x)
    x = layers.LeakyReLU()(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="leaky_relu", name="depthwise")(x)
    x = layers.SeparableConv2D(5, 3, padding="same", name="separable")(layers.MaxPooling2D()(x))
    x = layers.Add()([x, layers.Conv2D(5, 1, use_bias=False)(x)])
    x = layers.PReLU()(layers.Conv2DTranspose(3, 3, strides=2, name="transpose")(x))
    x = keras.ops.add(x, 0.5)
    x = layers.Dense(4, activation="leaky_relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.rsplit("/", 1)[-1] != "count":
            weight.assign(random.uniform(0.2, 1.0, weight.shape) * random.choice([-1, 1]))
        if "variance" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return model


NORMS = [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}]
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize("norm", [*NORMS, {"epsilon": 0.3}])
def test_full_gradients_take_every_offset_in(norm):
    model = _affine_model(**norm)
    logits, terms = ke.full_gradients(model, IMAGES, terms=True)
    named = ["rescaling", "normal", "fused", "norm", "depthwise", "separable", "transpose"]
    assert [name for name in terms if not name.startswith("add")] == [
        "input", *named, "hidden", "head",
    ]  # fmt: skip
    assert len(terms) == 11
    total = sum(t.reshape(2, -1, 3).sum(1) for t in terms.values())
    np.testing.assert_allclose(total, logits, atol=1e-4 * np.abs(logits).max())
    assert all(np.abs(t).max() > 0 for t in terms.values())


def test_the_offset_of_a_batch_normalization_is_its_image_of_zero():
    model = _affine_model(epsilon=0.3)
    exposed = ke.inspection.expose_biases(model)
    norm = model.get_layer("norm")
    gamma, beta, mean, variance = norm.get_weights()
    expected = beta - gamma * mean / np.sqrt(variance + 0.3)
    offset = exposed.offsets["norm"]().numpy()
    np.testing.assert_allclose(offset.ravel(), expected, rtol=1e-5)
    norm.beta.assign(beta + 1)
    np.testing.assert_allclose(exposed.offsets["norm"]().numpy().ravel(), expected + 1, rtol=1e-5)


def _half_pixel(maps, size):
    """Resize `(batch, n, n, units)` linearly, weight by weight."""
    n = maps.shape[1]
    matrix = np.zeros((size, n))
    for i in range(size):
        centre = np.clip((i + 0.5) * n / size - 0.5, 0, n - 1)
        low = min(int(centre), max(n - 2, 0))
        matrix[i, low] += 1 - (centre - low)
        matrix[i, min(low + 1, n - 1)] += centre - low
    return np.einsum("ih,jw,bhwu->biju", matrix, matrix, maps)


@pytest.mark.parametrize("normalization", ["sample", "channel"])
def test_maps_of_full_gradients_are_those_of_the_equation(normalization):
    model = _affine_model()
    _, terms = ke.full_gradients(model, IMAGES, terms=True)
    options = {} if normalization == "sample" else {"normalization": "channel"}
    _, maps = ke.full_gradients(model, IMAGES, **RAW, **options)
    expected = 0
    for term in (t for t in terms.values() if t.ndim == 5):
        axes = (1, 2, 3) if normalization == "sample" else (1, 2)
        f = np.abs(term.astype("float64"))
        f -= f.min(axes, keepdims=True)
        highest = f.max(axes, keepdims=True)
        f = np.divide(f, highest, out=np.zeros_like(f), where=highest > 0)
        expected = expected + _half_pixel(f.sum(-2), 8)
    np.testing.assert_allclose(maps, expected, atol=2e-5 * expected.max())
    assert maps.shape == (2, 8, 8, 3)


def test_a_network_without_biases_has_the_term_of_the_input_only():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, use_bias=False, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(3, use_bias=False)(x))
    _, terms = ke.full_gradients(model, IMAGES, terms=True)
    assert list(terms) == ["input"]
    _, product = ke.input_x_gradient(model, IMAGES, reduction=None, **RAW)
    np.testing.assert_allclose(terms["input"], product, rtol=1e-6)


def test_default_maps_of_full_gradients_are_stretched_and_terms_are_not():
    model = _affine_model()
    _, maps = ke.full_gradients(model, IMAGES)
    assert maps.min() == 0
    assert maps.max() == 1
    _, default = ke.full_gradients(model, IMAGES, terms=True)
    _, raw = ke.full_gradients(model, IMAGES, terms=True, **RAW)
    np.testing.assert_array_equal(default["norm"], raw["norm"])


def test_full_gradients_say_what_they_need(model):
    with pytest.raises(ValueError, match=r"`normalization`.*'batch'"):
        ke.full_gradients(_affine_model(), IMAGES, normalization="batch")
    exposed = ke.inspection.expose(model)
    with pytest.raises(ValueError, match=r"`model`.*expose_biases"):
        ke.methods.get("full_gradients")(exposed, X)
    vector = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="dense")])
    with pytest.raises(ValueError, match=r"float input with positions.*\(3, 4\)"):
        ke.full_gradients(vector, np.ones((3, 4)))
    logits, terms = ke.full_gradients(vector, np.ones((3, 4)), terms=True)
    np.testing.assert_allclose(terms["input"].sum(1) + terms["dense"].sum(1), logits, rtol=1e-5)


def test_a_residual_passes_no_filter(model):
    options = {"residual": True, "num_steps": 2}
    _, raw = ke.integrated_gradients(model, X, **options, **RAW)
    _, default = ke.integrated_gradients(model, X, **options)
    np.testing.assert_array_equal(default["residual"], raw["residual"])
    np.testing.assert_allclose(default["maps"].max((1, 2)), 1.0)


def test_a_baseline_per_sample_is_computed_and_not_given(model):
    with pytest.raises(ValueError, match=r"`baseline`.*\(3, 6, 6, 2\).*function of the inputs"):
        ke.integrated_gradients(model, X, baseline=X[::-1].copy())


@pytest.mark.parametrize("form", [np.int64, np.int32])
def test_integers_of_numpy_are_integers(form, model):
    _, maps = ke.integrated_gradients(model, X, num_steps=form(5), chunk_size=form(3), **RAW)
    expected = integrated_gradients(model, num_steps=5)
    np.testing.assert_allclose(maps, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.compiled
def test_a_tensor_for_a_baseline_does_not_compile_again(model):
    traces = []

    def counted(model, inputs, indices=None, *, baseline=0.0):
        traces.append(1)
        return ke.methods.integrated_gradients(model, inputs, indices, baseline=baseline)

    counted.registration = ke.methods.registration("integrated_gradients")._replace(method=counted)
    for _ in range(3):
        ke.explain(counted, model, X, baseline=tf.constant(X[0]), **RAW)
    assert len(traces) == 1


def test_the_term_of_the_input_has_a_name_of_its_own():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", bias_initializer="ones", name="input")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))
    logits, terms = ke.full_gradients(model, IMAGES, terms=True)
    assert list(terms) == ["input_of_model", "input", "head"]
    total = sum(t.reshape(2, -1, 3).sum(1) for t in terms.values())
    np.testing.assert_allclose(total, logits, atol=1e-4 * np.abs(logits).max())


class Block(layers.Layer):
    """A convolution inside a layer, where it can't be seen."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.conv = layers.Conv2D(4, 3)

    def build(self, shape):
        self.conv.build(shape)

    def call(self, inputs):
        return self.conv(inputs)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: Block(name="block"), "block"),
        (lambda: layers.LayerNormalization(name="norm"), "norm"),
        (lambda: layers.Conv2D(4, 3, activation="gelu", name="curved"), "curved"),
        (lambda: layers.Activation("swish", name="swish"), "swish"),
        (lambda: layers.SpectralNormalization(layers.Conv2D(4, 3), name="wrapped"), "wrapped"),
    ],
)
def test_layers_whose_terms_are_not_known_are_named(layer, name):
    x = inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layer()(x))))
    with pytest.warns(UserWarning, match=rf"don't sum to the logits.*'{name}"):
        ke.full_gradients(model, IMAGES)


def test_an_offset_per_row_is_not_taken_for_one_per_channel():
    x = inputs = keras.Input((4, 4, 4))
    x = layers.BatchNormalization(axis=1, name="norm")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    model.get_layer("norm").beta.assign([1.0, -2.0, 3.0, 0.5])
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype("float32")
    _, terms = ke.full_gradients(model, images, terms=True)
    _, maps = ke.full_gradients(model, images, **RAW)
    expected = 0
    for name in ("input", "norm"):
        f = np.abs(terms[name])
        f = f - f.min((1, 2, 3), keepdims=True)
        expected = expected + (f / f.max((1, 2, 3), keepdims=True)).sum(-2)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * expected.max())


def test_the_output_may_be_a_layer_with_an_activation():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(x))
    middle = layers.Dense(5, activation="relu", name="middle")(x)
    model = keras.Model(inputs, layers.Dense(3)(middle))
    logits, terms = ke.full_gradients(model, IMAGES, terms=True, output="middle")
    total = sum(t.reshape(2, -1, 5).sum(1) for t in terms.values())
    np.testing.assert_allclose(total, logits, atol=1e-4 * np.abs(logits).max())
