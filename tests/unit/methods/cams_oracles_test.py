"""CAM methods against NumPy, on a model whose gradients differ from place to place."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke

pytestmark = pytest.mark.usefixtures("_eagerly")

RAW = {"postprocessing": None, "resizing": False}
UNITS = 5
X = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype("float32")
DETECTED = np.array([[1, 1, 0, 0, 1], [0, 1, 0, 0, 0]], "float64")


@pytest.fixture(scope="module")
def model():
    """Return a model of two layers, the early one with a dead and a flat channel."""
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu", bias_initializer="random_normal", name="early")(x)
    x = layers.Conv2D(4, 3, activation="tanh", bias_initializer="random_normal", name="late")(x)
    x = layers.Dense(UNITS, bias_initializer="random_normal")(layers.Flatten()(x))
    built = keras.Model(inputs, layers.Softmax()(x))
    kernel, bias = built.get_layer("early").get_weights()
    kernel[..., :2] = 0.0
    bias[0], bias[1] = -1.0, 0.5
    built.get_layer("early").set_weights([kernel, bias])
    return built


class Truth:
    """What the equations are made of: activations A, gradients D by unit, and the logits."""

    def __init__(self, model, layer):
        self.model, self.layer = model, layer
        taken = model.get_layer(layer).output
        trunk = keras.Model(model.input, [taken, model.layers[-2].output])
        with tf.GradientTape(persistent=True) as tape:
            x = tf.constant(X)
            tape.watch(x)
            activations, logits = trunk(x)
        self.A = activations.numpy().astype("float64")
        jacobian = tape.batch_jacobian(logits, activations, experimental_use_pfor=False)
        self.D = jacobian.numpy().astype("float64")  # (batch, units, height, width, kernels)
        self.logits = logits.numpy().astype("float64")
        start = model.layers.index(model.get_layer(layer)) + 1
        self.rest = model.layers[start:-1]

    def head(self, activations):
        """Compute the logits from activations, layer by layer."""
        x = activations.astype("float32")
        for layer in self.rest:
            x = layer(x)
        return np.asarray(x, "float64")

    def weighed(self, weights):
        return np.einsum("bhwk,buk->bhwu", self.A, weights)


def units_last(maps):
    return np.moveaxis(maps, 1, -1)


def linear_weights(size, target):
    """Return the matrix `(target, size)` of linear resizing with half-pixel centres."""
    matrix = np.zeros((target, size))
    for i in range(target):
        centre = min(max((i + 0.5) * size / target - 0.5, 0), size - 1)
        low = min(int(centre), size - 2)
        matrix[i, low] += 1 - (centre - low)
        matrix[i, low + 1] += centre - low
    return matrix


def resized(maps, size=8):
    weights = linear_weights(maps.shape[1], size)
    return np.einsum("ih,jw,bhw...->bij...", weights, weights, maps)


def stretched(maps):
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return np.divide(maps - low, high - low, out=np.zeros_like(maps), where=high > low)


def gradcam(t):
    return t.weighed(t.D.mean((2, 3)))


def hirescam(t):
    return units_last((t.A[:, None] * t.D).sum(-1))


def gradcam_elementwise(t):
    return units_last(np.maximum(t.A[:, None] * t.D, 0).sum(-1))


def xgradcam(t):
    total = t.A.sum((1, 2))[:, None, None, None]
    share = np.divide(t.A[:, None], total, out=np.zeros_like(t.D), where=total != 0)
    return t.weighed((share * t.D).sum((2, 3)))


def layercam(t):
    return units_last((t.A[:, None] * np.maximum(t.D, 0)).sum(-1))


def gradcampp(t, normalize_alpha=False):
    weights = np.zeros((*t.D.shape[:2], t.D.shape[-1]))
    for b, u, k in np.ndindex(weights.shape):
        gradient, total = t.D[b, u, :, :, k], t.A[b, :, :, k].sum()
        denominator = 2 * gradient**2 + total * gradient**3
        alpha = np.zeros_like(gradient)
        alpha[gradient != 0] = gradient[gradient != 0] ** 2 / denominator[gradient != 0]
        if normalize_alpha and alpha[gradient > 0].sum():
            alpha /= alpha[gradient > 0].sum()
        weights[b, u, k] = (alpha * np.maximum(gradient, 0)).sum()
    return t.weighed(weights)


def component(tensor, centered):
    """Project `(height, width, kernels)` on the first component, from the full decomposition."""
    rows = tensor.reshape(-1, tensor.shape[-1])
    centred = rows - rows.mean(0) if centered else rows
    projected = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    sign = np.sign(projected @ rows.sum(1)) or 1.0
    return (sign * projected).reshape(tensor.shape[:-1])


def eigencam(t, centered=True):
    maps = np.stack([component(a, centered) for a in t.A])
    return np.repeat(maps[..., None], UNITS, -1)


def eigen_gradcam(t, centered=True):
    products = t.A[:, None] * t.D
    maps = [[component(p, centered) for p in sample] for sample in products]
    return units_last(np.array(maps))


def scorecam(t, weights="probability", activation="softmax", top_k=None):
    scores = np.full((len(X), UNITS, t.A.shape[-1]), -np.inf)
    model = keras.Model(t.model.input, t.model.layers[-2].output)
    highest = np.argsort(-t.A.std((1, 2)), axis=-1, kind="stable")[:, :top_k]
    for b, k in np.ndindex(len(X), t.A.shape[-1]):
        channel = t.A[b : b + 1, :, :, k]
        if channel.max() > channel.min() and k in highest[b]:
            mask = stretched(resized(channel))
            scores[b, :, k] = np.asarray(model((X[b : b + 1] * mask[..., None]).astype("float32")))
    if weights == "softmax":
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return t.weighed(powers / powers.sum(-1, keepdims=True))
    live = np.isfinite(scores)
    powers = np.exp(np.where(live, scores, 0))
    odds = {"softmax": powers / powers.sum(1, keepdims=True), "sigmoid": powers / (1 + powers)}
    return t.weighed(np.where(live, odds[activation], 0))


def ablationcam(t):
    weights = np.zeros((len(X), UNITS, t.A.shape[-1]))
    for k in range(t.A.shape[-1]):
        ablated = t.A.copy()
        ablated[..., k] = 0
        weights[..., k] = (t.logits - t.head(ablated)) / t.logits
    return t.weighed(weights)


def others_of(detected, u, strict):
    others = detected.copy()
    others[u] = 0
    return others, max(others.sum() if strict else detected.sum() - 1, 1)


def detected_of(t, detections=None, others="detected", threshold=0.5, activation="softmax"):
    if others == "all":
        return np.ones((len(X), UNITS))
    if detections is not None:
        return np.asarray(detections, "float64")
    powers = np.exp(t.logits)
    odds = {"softmax": powers / powers.sum(-1, keepdims=True), "sigmoid": powers / (1 + powers)}
    return (odds[activation] > threshold).astype("float64")


def minmax_gradcam(t, strict=False, lambda_positive=1.0, lambda_negative=1.0, **options):
    weights = np.zeros((len(X), UNITS, t.A.shape[-1]))
    for b, detected in enumerate(detected_of(t, **options)):
        for u in range(UNITS):
            others, count = others_of(detected, u, strict)
            jacobian = lambda_positive * t.D[b, u]
            for n in range(UNITS):
                jacobian = jacobian - lambda_negative * others[n] * t.D[b, n] / count
            weights[b, u] = jacobian.mean((0, 1))
    return t.weighed(weights)


def d_minmax_gradcam(
    t, strict=False, lambda_positive=1.0, lambda_negative=1.0, lambda_background=1.0, **options
):
    weights = np.zeros((len(X), UNITS, t.A.shape[-1]))
    for b, detected in enumerate(detected_of(t, **options)):
        for u in range(UNITS):
            others, count = others_of(detected, u, strict)
            negative = sum(others[n] * t.D[b, n] for n in range(UNITS)) / count
            background = sum(detected[n] * t.D[b, n] for n in range(UNITS)) / max(detected.sum(), 1)
            signal = (
                lambda_positive * np.maximum(t.D[b, u], 0)
                - lambda_negative * np.maximum(negative, 0)
                + lambda_background * np.minimum(background, 0)
            )
            weights[b, u] = signal.mean((0, 1))
    return t.weighed(weights)


LAMBDAS = [{"lambda_positive": 0.5}, {"lambda_negative": 0.25}]
CONTRAST = [
    {"detections": DETECTED},
    {"detections": DETECTED, "strict": True},
    {"others": "all"},
    {"threshold": 0.05},
    {"threshold": 0.2, "activation": "sigmoid"},
    *({"detections": DETECTED, **weights} for weights in LAMBDAS),
]
CASES = [
    (oracle, options)
    for oracle, variants in {
        gradcam: [],
        hirescam: [],
        gradcam_elementwise: [],
        xgradcam: [],
        layercam: [],
        gradcampp: [{"normalize_alpha": True}],
        eigencam: [{"centered": False}],
        eigen_gradcam: [{"centered": False}],
        scorecam: [{"weights": "softmax"}, {"activation": "sigmoid"}, {"top_k": 2}],
        ablationcam: [],
        minmax_gradcam: CONTRAST,
        d_minmax_gradcam: [*CONTRAST, {"detections": DETECTED, "lambda_background": 0.5}],
    }.items()
    for options in [{}, *variants]
]
# Compared elsewhere: they read the kernel of a linear head.
BY_KERNEL = ("cam", "minmaxcam", "d_minmaxcam")


def _close(maps, expected):
    np.testing.assert_allclose(maps, expected, atol=2e-5 * np.abs(expected).max())


def test_every_cam_method_has_an_oracle():
    methods = {n for n in ke.methods.names() if ke.methods.registration(n).family == "cam"}
    assert methods == {oracle.__name__ for oracle, _ in CASES} | {*BY_KERNEL, "zoomcam"}


@pytest.mark.parametrize("layer", ["early", "late"])
@pytest.mark.parametrize(("oracle", "options"), CASES)
def test_maps_are_those_of_the_equation(oracle, options, layer, model):
    _, maps = ke.explain(oracle.__name__, model, X, layer=layer, **RAW, **options)
    _close(maps, oracle(Truth(model, layer), **options))


@pytest.mark.parametrize("name", [n for n in {o.__name__: o for o, _ in CASES}])
def test_every_option_has_a_case_that_changes_the_maps(name, model):
    cases = [options for oracle, options in CASES if oracle.__name__ == name]
    parameters = inspect.signature(ke.methods.get(name)).parameters.values()
    own = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"fusion", "chunk_size"}
    assert own == set().union(*cases)
    for option in own:
        given = next(options for options in cases if option in options)
        without = {key: value for key, value in given.items() if key != option}
        maps = ke.explain(name, model, X, layer="early", **RAW, **given)[1]
        others = ke.explain(name, model, X, layer="early", **RAW, **without)[1]
        assert np.abs(maps - others).max() > 1e-3 * np.abs(others).max(), option


@pytest.mark.parametrize("name", ["scorecam", "ablationcam"])
def test_chunks_don_t_change_the_maps(name, model):
    expected = ke.explain(name, model, X, layer="early", **RAW)[1]
    for chunk_size in (1, 5, 100):
        maps = ke.explain(name, model, X, layer="early", chunk_size=chunk_size, **RAW)[1]
        _close(maps, expected)


FUSIONS = {"mean": lambda a, b: (a + b) / 2, "max": np.maximum, "product": np.multiply}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("oracle", list(dict.fromkeys(oracle for oracle, _ in CASES)))
def test_maps_of_several_layers_are_fused(oracle, fusion, model):
    options = {"fusion": fusion, "layer": ["early", "late"], **RAW}
    _, maps = ke.explain(oracle.__name__, model, X, **options)
    parts = [
        resized(stretched(np.maximum(oracle(Truth(model, layer)), 0)))
        for layer in ("early", "late")
    ]
    _close(maps, FUSIONS[fusion](*parts))
    _, swapped = ke.explain(oracle.__name__, model, X, **options | {"layer": ["late", "early"]})
    np.testing.assert_allclose(swapped, maps, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_zoomcam_fuses_the_products_of_every_activation(fusion, model):
    parts = [
        resized(stretched(np.maximum(hirescam(Truth(model, layer)), 0)))
        for layer in ("early", "late")
    ]
    _, maps = ke.zoomcam(model, X, fusion=fusion, **RAW)
    _close(maps, FUSIONS[fusion](*parts))
    _, one = ke.zoomcam(model, X, layer="early", fusion=fusion, **RAW)
    _close(one, parts[0])


def test_zoomcam_defaults_to_the_maximum(model):
    _, maps = ke.zoomcam(model, X, **RAW)
    _, expected = ke.zoomcam(model, X, fusion="max", **RAW)
    np.testing.assert_array_equal(maps, expected)


@pytest.mark.parametrize("name", BY_KERNEL)
def test_methods_that_read_the_kernel_take_one_layer(name):
    x = inputs = keras.Input((6, 6, 3))
    x = a = layers.Conv2D(3, 3, padding="same", name="a")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU(name="b")(a))
    model = keras.Model(inputs, layers.Dense(4)(x))
    with pytest.raises(ValueError, match=r"`layer`. Expected one layer.*2 layers"):
        ke.explain(name, model, X[:, :6, :6], layer=["a", "b"])


def _passes(model, method, **options):
    """Count the samples that go through the first layer and the last one, in an eager run."""
    counts = {"first": 0, "last": 0}

    class Counting(layers.Layer):
        def __init__(self, key):
            super().__init__(name=key)
            self.key = key

        def call(self, inputs):
            counts[self.key] += len(inputs) if tf.executing_eagerly() else 0
            return inputs

    x = inputs = keras.Input((8, 8, 3))
    x = model.get_layer("early")(Counting("first")(x))
    x = Counting("last")(layers.Flatten()(model.get_layer("late")(x)))
    counted = keras.Model(inputs, model.layers[-2](x))
    ke.explain(method, counted, X, 0, layer="early", run_eagerly=True, **RAW, **options)
    return counts


def test_scorecam_runs_the_channels_that_live_and_no_others(model):
    live = sum(np.ptp(Truth(model, "early").A, axis=(1, 2)).ravel() > 0)
    assert live < 2 * 6 - 2  # One channel is dead, one flat, in both samples.
    assert _passes(model, "scorecam", chunk_size=1) == {"first": 2 + live, "last": 2 + live}


def test_ablationcam_runs_what_comes_after_the_layer_only(model):
    live = sum(np.abs(Truth(model, "early").A).max((1, 2)).ravel() > 0)
    assert _passes(model, "ablationcam", chunk_size=1) == {"first": 2, "last": 2 + live}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "gradcam",
            {"fusion": "median"},
            r"`fusion`. Expected one of mean, max, product.*'median'",
        ),
        ("scorecam", {"weights": "logit"}, r"`weights`.*'logit'"),
        ("scorecam", {"top_k": 0}, r"`top_k`. Expected a positive integer.*0"),
        ("scorecam", {"chunk_size": 2.5}, r"`chunk_size`.*2.5"),
        ("ablationcam", {"chunk_size": -1}, r"`chunk_size`.*-1"),
        ("minmax_gradcam", {"others": "none"}, r"`others`.*'none'"),
        ("minmaxcam", {"others": "all", "detections": DETECTED}, r"`detections`.*`None`"),
    ],
)
def test_bad_options_are_named(name, options, message):
    x = inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(x))
    with pytest.raises(ValueError, match=message):
        ke.explain(name, keras.Model(inputs, layers.Dense(UNITS)(x)), X, **options)


def test_masks_need_an_input_with_positions():
    x = inputs = keras.Input((48,))
    x = layers.Conv2D(3, 3, name="conv")(layers.Reshape((4, 4, 3))(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match=r"axes of the input \(2, 48\)"):
        ke.scorecam(model, np.ones((2, 48), "float32"), layer="conv")


def test_signals_are_explained_too():
    x = inputs = keras.Input((12, 2))
    x = layers.GlobalMaxPooling1D()(layers.Conv1D(3, 3, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    signals = np.random.default_rng(0).normal(size=(2, 12, 2)).astype("float32")
    for name in ("gradcampp", "eigencam", "scorecam", "ablationcam", "d_minmax_gradcam"):
        _, maps = ke.explain(name, model, signals)
        _, small = ke.explain(name, model, signals, resizing=False)
        assert small.max() == 1.0, name
        expected = np.einsum("ih,bhu->biu", linear_weights(10, 12), small)
        np.testing.assert_allclose(maps, expected, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def pooled():
    """Return a model whose head is linear, and one more with other logits."""
    keras.utils.set_random_seed(7)
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu", bias_initializer="random_normal")(x)
    x = layers.Dense(UNITS, bias_initializer="random_normal")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Softmax()(x))


@pytest.mark.parametrize("options", [{}, *CONTRAST, {"lambda_background": 0.5}])
@pytest.mark.parametrize("name", ["minmaxcam", "d_minmaxcam"])
def test_options_of_the_contrast_are_those_of_its_gradient_form(name, options, pooled):
    if "lambda_background" in options and name == "minmaxcam":
        return
    _, maps = ke.explain(name, pooled, X, **RAW, **options)
    _, expected = ke.explain(name.replace("cam", "_gradcam"), pooled, X, **RAW, **options)
    _close(maps, 36 * expected)
    if options:
        kept = {"detections": DETECTED} if "strict" in options or "lambda" in str(options) else {}
        _, others = ke.explain(name, pooled, X, **RAW, **kept)
        assert np.abs(maps - others).max() > 1e-3 * np.abs(others).max()


@pytest.mark.parametrize("layer", ["early", "late"])
def test_with_no_or_one_detection_the_contrast_is_gradcam(layer, model):
    truth = Truth(model, layer)
    expected = gradcam(truth)
    options = {"layer": layer, **RAW}
    none, alone = np.zeros((2, UNITS)), np.eye(UNITS)[[1, 3]]
    _close(ke.minmax_gradcam(model, X, detections=none, **options)[1], expected)
    positive = truth.weighed(np.maximum(truth.D, 0).mean((2, 3)))
    _close(ke.d_minmax_gradcam(model, X, detections=none, **options)[1], positive)
    for name in ("minmax_gradcam", "d_minmax_gradcam"):
        _, maps = ke.explain(name, model, X, [1, 3], detections=alone, **options)
        _close(maps[..., 0], np.stack([expected[0, ..., 1], expected[1, ..., 3]]))


@pytest.mark.parametrize("name", ["scorecam", "gradcam", "input_x_gradient", "full_gradients"])
def test_images_of_integers_are_explained_like_those_of_floats(name):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype="uint8")
    maps = []
    for dtype in ("uint8", "float32"):
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((8, 8, 3), dtype=dtype)
        x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(x))
        x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
        maps.append(ke.explain(name, keras.Model(inputs, x), images, **RAW)[1])
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-5, atol=1e-7)


class TwoInputs(keras.Model):
    """A classifier of a record and an image that calls a TensorFlow function."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, activation="relu", name="conv")
        self.head = layers.Dense(3)
        self.record = layers.Dense(3)

    def call(self, inputs):
        record, image = inputs
        pooled = tf.reduce_mean(self.conv(image), axis=(1, 2))
        return self.head(pooled) + self.record(record)


def test_the_input_that_is_masked_is_the_one_that_the_layer_sees():
    tapped = TwoInputs()
    x = [np.ones((2, 5), "float32"), X]
    tapped([tf.constant(v) for v in x])
    record, image = keras.Input((5,)), keras.Input((8, 8, 3))
    a = tapped.head(layers.GlobalAveragePooling2D()(tapped.conv(image)))
    functional = keras.Model([record, image], layers.Add()([a, tapped.record(record)]))
    for name in ("scorecam", "gradcam"):
        _, maps = ke.explain(name, tapped, x, layer="conv", postprocessing=None)
        _, expected = ke.explain(name, functional, x, layer="conv", postprocessing=None)
        assert maps.shape == (2, 8, 8, 3)
        _close(maps, expected)


def _two_images():
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    a = layers.Conv2D(3, 3, activation="relu", name="a")(first)
    b = layers.Conv2D(4, 3, activation="relu", name="b")(second)
    pooled = [layers.GlobalAveragePooling2D()(t) for t in (a, b)]
    return keras.Model([first, second], layers.Dense(3)(layers.Concatenate()(pooled)))


def test_each_layer_masks_the_input_that_it_sees():
    model, x = _two_images(), [X, X[::-1].copy()]
    parts = [ke.scorecam(model, x, layer=n, **RAW)[1] for n in "ab"]
    expected = sum(resized(stretched(np.maximum(p, 0))) for p in parts) / 2
    for order in (["a", "b"], ["b", "a"]):
        _, maps = ke.scorecam(model, x, layer=order, **RAW)
        np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_zoomcam_shows_one_input_of_several():
    model, x = _two_images(), [X, X[::-1].copy()]
    with pytest.warns(UserWarning, match=r"several inputs.*`layer=`"):
        _, maps = ke.zoomcam(model, x, **RAW)
    parts = [ke.zoomcam(model, x, layer=n, **RAW)[1] for n in "ab"]
    assert sorted(np.allclose(maps, part, atol=1e-6) for part in parts) == [False, True]


def test_the_score_of_a_single_unit_is_its_sigmoid():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu", name="c")(x))
    model = keras.Model(inputs, layers.Dense(1)(x))
    _, maps = ke.scorecam(model, X, **RAW)
    _, expected = ke.scorecam(model, X, activation="sigmoid", **RAW)
    np.testing.assert_array_equal(maps, expected)
    plain = np.asarray(keras.Model(inputs, model.get_layer("c").output)(X)).sum(-1)
    assert not np.allclose(maps[..., 0], plain)


@pytest.mark.parametrize("name", ["minmaxcam", "d_minmaxcam", "minmax_gradcam", "d_minmax_gradcam"])
def test_the_contrast_refuses_what_would_broadcast(name, pooled):
    for samples in (2, 4, 6):
        images = np.repeat(X, samples // 2, axis=0)
        ke.explain(name, pooled, images, detections=np.ones((samples, UNITS)))
        with pytest.raises(ValueError, match=rf"`detections`.*{UNITS} units.*\({samples}, 1\)"):
            ke.explain(name, pooled, images, detections=np.ones((samples, 1)))
    with pytest.raises(ValueError, match=r"`lambda_positive`. Expected a number.*\[1, 2\]"):
        ke.explain(name, pooled, X, lambda_positive=[1, 2])
    with pytest.raises(ValueError, match=r"`threshold`. Expected a number.*'a'"):
        ke.explain(name, pooled, X, threshold="a")


def test_integers_of_numpy_are_integers(model):
    expected = ke.scorecam(model, X, layer="early", top_k=2, chunk_size=3, **RAW)[1]
    options = {"top_k": np.int64(2), "chunk_size": np.int32(3)}
    _close(ke.scorecam(model, X, layer="early", **options, **RAW)[1], expected)


def test_methods_say_which_model_they_need(model):
    plain = keras.Model(model.input, [model.output, model.get_layer("early").output])
    with pytest.raises(ValueError, match=r"`model`.*ke.inspection.expose"):
        ke.methods.ablationcam(plain, X)
    with pytest.raises(ValueError, match=r"`model`.*expose_biases"):
        ke.methods.full_gradients(model, X)
    with pytest.raises(ValueError, match=r"`layer`.*list of one at least.*\[\]"):
        ke.gradcam(model, X, layer=[])
