"""Metrics of randomization: similarities, random weights, random units, and two axioms."""

import functools
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from keras_explainable.metrics import _computing
from keras_explainable.metrics.randomization import similarities
from keras_explainable.metrics.randomization import weights as random_weights
from tests import zoo

pytestmark = pytest.mark.usefixtures("_eagerly")

SIZE = 4
UNITS = 3
X = np.random.default_rng(1).normal(size=(3, SIZE, SIZE, 1)).astype("float32")
KERNEL = np.random.default_rng(2).normal(size=(SIZE * SIZE, UNITS)).astype("float32")
BIAS = np.array([0.5, -1, 2], "float32")
SIMILARITIES = ("rank_correlation", "pearson", "ssim")
RANDOMIZED = "model_parameter_randomization"


def _linear():
    stack = [keras.Input((SIZE, SIZE, 1)), layers.Flatten(), layers.Dense(UNITS, name="head")]
    built = keras.Sequential(stack)
    built.get_layer("head").set_weights([KERNEL, BIAS])
    return built


def _deep():
    """Return a model of two Dense layers, of 16 · 16 and 16 · 3 weights."""
    stack = [
        keras.Input((SIZE, SIZE, 1)),
        layers.Flatten(),
        layers.Dense(16, use_bias=False, name="first"),
        layers.Dense(UNITS, use_bias=False, name="head"),
    ]
    return keras.Sequential(stack)


def _kernel_maps(model, x, units, name="head"):
    """Return maps that are columns of a kernel, of the first units for a wider layer."""
    units = np.repeat([np.arange(UNITS)], len(x), axis=0) if units is None else np.asarray(units)
    kernel = np.asarray(model.get_layer(name).kernel)[:, units]
    return None, kernel.reshape(SIZE, SIZE, *units.shape).transpose(2, 0, 1, 3)


def _image(model, x, units):
    """Return maps that depend on the input alone."""
    del model
    count = UNITS if units is None else np.shape(units)[1]
    return None, np.repeat(x, count, axis=-1)


def _scores(name, model, explain, indices=1, x=X, **options):
    """Return all that a metric says of the maps of `explain`."""
    known = ke.metrics.registration(name)
    units = np.full((len(x), 1), indices) if isinstance(indices, int) else indices
    maps = explain(model, x, units)[1]
    arguments = {"model": model, "x": x, "maps": maps, "indices": units, "explain": explain}
    computation = _computing.Computation(known, options, arguments)
    return computation.run(computation.checked(arguments))


def test_these_are_the_metrics_of_randomization():
    names = ke.metrics.names("randomization")
    assert set(names) == {RANDOMIZED, "random_logit", "completeness", "input_invariance"}
    for name in names:
        assert ke.metrics.registration(name).higher_is_better is False
        needs = ("model",) if name == "completeness" else ("model", "explain")
        assert ke.metrics.registration(name).needs == needs


@pytest.mark.parametrize(
    ("name", "one", "other", "expected"),
    [
        ("rank_correlation", [1, 2, 3, 4], [10, 30, 20, 40], 0.8),
        ("rank_correlation", [1, 2, 2, 3], [1, 2, 3, 4], 4.5 / np.sqrt(4.5 * 5)),
        ("rank_correlation", [1, 2, 3, 4], [1, 8, 27, 64], 1),
        ("pearson", [1, 2, 3, 4], [8, 6, 4, 2], -1),
        ("pearson", [0, 0, 0, 1], [1, 0, 0, 0], -1 / 3),
        ("pearson", [1e-200, 0, 0, 0], [1e200, 0, 0, 0], 1),
    ],
)
def test_similarity_is_that_computed_by_hand(name, one, other, expected):
    maps = [np.array([values], "float64").reshape(1, 2, 2) for values in (one, other)]
    values, known = similarities.similarity(name, *maps)
    assert values[0] == pytest.approx(expected, abs=1e-12)
    assert known.all()


@pytest.mark.parametrize("size", [5, 11, 14])
def test_structural_similarity_is_that_of_numpy(size):
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, size, size)), random.uniform(size=(2, size, size))
    width = min(size, 11)
    taps = np.exp(-0.5 * ((np.arange(width) - (width - 1) / 2) / 1.5) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2

    def mean(values):
        windows = np.lib.stride_tricks.sliding_window_view(values, window.shape)
        return (windows * window).sum((-2, -1))

    for index in range(2):
        a, b = ((m - m.min()) / (m.max() - m.min()) for m in (one[index], other[index]))
        ma, mb = mean(a), mean(b)
        va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        luminance = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
        expected = (luminance * (2 * cov + 9e-4) / (va + vb + 9e-4)).mean()
        found = similarities.similarity("ssim", one, other)[0][index]
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity_is_of_shape_alone_and_unknown_for_constants(name):
    maps = np.random.default_rng(0).normal(size=(3, 6, 7))
    others = 5 * maps + 3
    others[1] = 2
    values, known = similarities.similarity(name, maps, others)
    np.testing.assert_allclose(values, [1, 0, 1], atol=1e-5)
    np.testing.assert_array_equal(known, [True, False, True])
    assert similarities.similarity(name, maps[:0], others[:0])[0].shape == (0,)


def test_unknown_similarities_are_refused():
    maps = np.ones((1, 3, 3, 3))
    with pytest.raises(ValueError, match="`similarity`.*ssim.*Received: 'l2'"):
        similarities.similarity("l2", maps, maps)
    with pytest.raises(ValueError, match="for images.*Received: maps of 3 axes"):
        similarities.similarity("ssim", maps, maps)


def test_maps_of_the_image_alone_stay_what_they_are():
    scores = _scores(RANDOMIZED, _deep(), _image)
    np.testing.assert_allclose(scores.values, 1)
    np.testing.assert_allclose(scores.curve, np.ones((3, 1, 3)))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("order", ["cascading", "independent"])
@pytest.mark.parametrize("name", ["first", "head"])
def test_curve_tells_after_which_stage_a_map_changes(name, order, similarity):
    model = _deep()
    before = model.get_layer(name).get_weights()[0]
    explain = functools.partial(_kernel_maps, name=name)
    options = {"order": order, "similarity": similarity, "seed": 3}
    scores = _scores(RANDOMIZED, model, explain, **options)
    stages = random_weights.stages(model)
    assert [[s.variable.shape for s in stage] for stage in stages] == [[(16, 3)], [(16, 16)]]
    random_weights.randomize(stages[name == "first"], 3)
    after = model.get_layer(name).get_weights()[0]
    pair = (k[:, 1].reshape(1, SIZE, SIZE).astype("float64") for k in (before, after))
    other = similarities.similarity(similarity, *pair)[0].item()
    assert abs(other) < 0.9
    by_name = {"first": [1, other], "head": [other, other if order == "cascading" else 1]}
    np.testing.assert_allclose(scores.curve[:, 0], [[1, *by_name[name]]] * 3, atol=1e-5)
    np.testing.assert_allclose(scores.values[:, 0], np.mean(by_name[name]), atol=1e-5)


def test_layers_are_grouped_into_stages():
    stack = [keras.Input((SIZE, SIZE, 1)), layers.Flatten()]
    stack += [layers.Dense(4, name=f"wide_{i}") for i in range(4)] + [layers.Dense(UNITS)]
    model = keras.Sequential(stack)
    assert [len(stage) for stage in random_weights.stages(model)] == [2] * 5
    assert [len(stage) for stage in random_weights.stages(model, 2)] == [6, 4]
    assert _scores(RANDOMIZED, model, _image, num_stages=3).curve.shape == (3, 1, 4)
    whole = sum(random_weights.stages(model, 1), [])
    assert whole == sum(random_weights.stages(model, 3), [])
    with pytest.raises(ValueError, match="`num_stages`.*up to 5.*Received: 6"):
        _scores(RANDOMIZED, model, _image, num_stages=6)


def test_options_of_random_weights_change_the_result():
    model = _deep()
    explain = functools.partial(_kernel_maps, name="head")
    found = [
        _scores(RANDOMIZED, model, explain, **options).values[0, 0].numpy()
        for options in ({}, {"seed": 1}, {"order": "independent"}, {"num_stages": 1})
        + tuple({"similarity": name} for name in SIMILARITIES[1:])
    ]
    assert len({round(float(value), 5) for value in found[:3] + found[4:]}) == 5
    # The head has the same random weights, whatever it is grouped with.
    assert found[3] == pytest.approx(found[0])
    assert _scores(RANDOMIZED, model, explain).values[0, 0].numpy() == found[0]


def test_weights_are_put_back_whatever_happens():
    model = _deep()
    before = [w.copy() for w in model.get_weights()]
    for error in (None, ValueError, KeyboardInterrupt):
        calls = []

        def explain(model, x, units, error=error, calls=calls):
            calls.append(model.get_weights())
            if error is not None and len(calls) == 4:
                raise error
            return _image(model, x, units)

        if error is None:
            _scores(RANDOMIZED, model, explain)
        else:
            with pytest.raises(error):
                _scores(RANDOMIZED, model, explain)
        assert len(calls) == 4
        assert np.abs(calls[-1][0] - before[0]).max() > 0.01
        for weight, original in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, original)


def test_constant_map_has_no_value_and_one_that_becomes_constant_counts_as_zero():
    model = _deep()
    start = model.get_layer("head").get_weights()[0]

    def explain(model, x, units):
        _, maps = _image(model, x, units)
        same = np.array_equal(model.get_layer("head").get_weights()[0], start)
        return None, np.where(np.arange(3)[:, None, None, None] == 2, 1, maps if same else 0 * maps)

    scores = _scores(RANDOMIZED, model, explain)
    np.testing.assert_array_equal(scores.values, 0)
    np.testing.assert_array_equal(scores.weights, [[1], [1], [0]])


def test_new_weights_are_those_that_layers_start_with():
    stack = [
        keras.Input((8, 8, 2)),
        layers.Conv2D(6, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.DepthwiseConv2D(3, depthwise_initializer="ones", name="depthwise"),
        layers.SeparableConv2D(4, 3, pointwise_initializer="ones", name="separable"),
        layers.Reshape((-1, 4)),
        layers.MultiHeadAttention(2, 2, name="attention"),
        layers.GRU(3, recurrent_initializer="orthogonal", name="gru"),
        layers.Dense(2, kernel_initializer=keras.initializers.RandomNormal(3.0), name="head"),
    ]
    x = inputs = stack[0]
    for layer in stack[1:]:
        x = layer(x, x) if layer.name == "attention" else layer(x)
    model = keras.Model(inputs, x)
    model.set_weights([np.full_like(weight, 7) for weight in model.get_weights()])
    stages = random_weights.stages(model)
    for stage in stages:
        random_weights.randomize(stage, 0)
    for weight in model.get_weights():
        assert (weight != 7).any()
    layer = {name.name: name for name in model.layers}
    gamma, beta, mean, variance = layer["norm"].get_weights()
    assert (gamma == 1).all()
    assert (variance == 1).all()
    assert not np.any([beta, mean])
    kernel, bias = layer["conv"].get_weights()
    assert not bias.any()
    assert len(np.unique(kernel)) == kernel.size
    assert np.abs(kernel).max() <= np.sqrt(6 / (9 * (2 + 6)))  # Of Glorot.
    assert (layer["depthwise"].get_weights()[0] == 1).all()
    assert (layer["separable"].get_weights()[1] == 1).all()
    recurrent = layer["gru"].get_weights()[1]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(3), atol=1e-5)
    assert 2.5 < layer["head"].get_weights()[0].mean() < 3.5
    names = [[slot.layers[-1].name for slot in stage][0] for stage in stages]
    assert names[:2] == ["head", "gru"]
    assert names[-1] in ("conv", "norm")


def test_layers_without_initializers_are_shuffled_and_statistics_stay():
    class Weighted(layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=shape[1:], initializer="ones", name="factor")
            self.built = True

        def call(self, inputs):
            return inputs * self.factor

    norm = layers.Normalization()
    norm.adapt(X)
    stack = [keras.Input((SIZE, SIZE, 1)), norm, Weighted(name="own"), layers.Flatten()]
    model = keras.Sequential([*stack, layers.Dense(UNITS)])
    values = np.arange(16.0).reshape(SIZE, SIZE, 1)
    model.get_layer("own").set_weights([values])
    statistics = [keras.ops.convert_to_numpy(w).copy() for w in norm.weights]
    for stage in random_weights.stages(model):
        random_weights.randomize(stage, 0)
    (found,) = model.get_layer("own").get_weights()
    assert (found != values).mean() > 0.5
    np.testing.assert_array_equal(np.sort(found.ravel()), values.ravel())
    for before, after in zip(statistics, norm.weights, strict=True):
        np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(after))


def test_model_without_weights_can_not_be_randomized():
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="`num_stages`.*up to 0"):
        _scores(RANDOMIZED, model, _image, indices=0)


KINDS = ("functional", "nested_three_deep", "subclassed", "subclassed_with_tensorflow")


@pytest.mark.parametrize("kind", [*KINDS, "channels_first"])
def test_models_of_any_topology_are_randomized_from_the_output_and_left_as_found(kind):
    model, x, options, *_ = getattr(zoo, kind)()
    before = zoo.fingerprint(model)
    stages = random_weights.stages(model)
    shapes = [[tuple(slot.variable.shape) for slot in stage] for stage in stages]
    assert shapes[0] == [(zoo.KERNELS, zoo.UNITS), (zoo.UNITS,)]
    assert shapes[-1] == [(3, 3, 3, zoo.KERNELS), (zoo.KERNELS,)]
    explain = functools.partial(ke.gradcam, postprocessing=None, resizing=False, **options)
    maps = explain(model, x, [[1, 2]] * 3)[1]
    found = ke.metrics.model_parameter_randomization(model, x, maps, [[1, 2]] * 3, explain)
    assert found.shape == (6,)
    assert (np.abs(found) < 0.999).all()
    assert zoo.fingerprint(model) == before


@pytest.mark.compiled
def test_model_that_was_randomized_is_explained_by_the_step_of_the_first_time():
    traces = []

    def method(model, inputs, indices=None):
        traces.append(indices)
        return ke.methods.cams.gradcam(model, inputs, indices)

    explain = functools.partial(ke.explain, method)
    model = zoo.functional().model
    maps = explain(model, zoo.IMAGES, 1)[1]
    for _ in range(2):
        ke.metrics.model_parameter_randomization(model, zoo.IMAGES, maps, 1, explain)
    assert len(traces) == 1


def test_units_that_are_the_highest_stay_those_of_the_trained_model():
    asked = []

    def explain(model, x, units):
        asked.append(np.asarray(units))
        return _image(model, x, units)

    model = _linear()
    best = (X.reshape(3, -1) @ KERNEL + BIAS).argmax(1)[:, None]
    maps = _image(model, X, best)[1]
    ke.metrics.model_parameter_randomization(model, X, maps, "argmax", explain)
    assert len(asked) == 2
    for units in asked:
        np.testing.assert_array_equal(units, best)


def test_map_of_another_unit_is_compared():
    model, columns = _linear(), np.corrcoef(KERNEL.T)
    # The pairs that are one step apart, and two.
    expected = {step: [columns[u, (u + step) % 3] for u in range(3)] for step in (1, 2)}
    seen = set()
    for seed in range(6):
        options = {"similarity": "pearson", "seed": seed, "indices": np.array([[0, 1, 2]] * 3)}
        values = _scores("random_logit", model, _kernel_maps, **options).values
        steps = [s for s, v in expected.items() if np.allclose(values, [v] * 3, atol=1e-5)]
        assert len(steps) == 1
        seen |= {*steps}
    assert seen == {1, 2}


def test_maps_that_are_alike_for_all_units_are_found_out():
    for similarity in SIMILARITIES:
        scores = _scores("random_logit", _linear(), _image, similarity=similarity)
        np.testing.assert_allclose(scores.values, 1, atol=1e-6)
        np.testing.assert_array_equal(scores.weights, 1)
    flat = lambda model, x, units: (None, 0 * _image(model, x, units)[1])  # noqa: E731
    scores = _scores("random_logit", _linear(), flat)
    assert not np.any([scores.values, scores.weights])


def test_model_with_one_unit_has_no_other():
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.Flatten(), layers.Dense(1)])
    with pytest.raises(ValueError, match="two units or more. Received: 1"):
        _scores("random_logit", model, _image, indices=0)


def test_input_times_gradient_of_a_linear_model_is_complete():
    model = _linear()
    maps = ke.input_x_gradient(model, X, [[0, 2]] * 3, postprocessing=None)[1]
    np.testing.assert_allclose(
        ke.metrics.completeness(model, X, maps, [[0, 2]] * 3), np.zeros(6), atol=1e-5
    )
    doubled = ke.metrics.completeness(model, X, 2 * maps, [[0, 2]] * 3)
    gains = (X.reshape(3, -1) @ KERNEL)[:, [0, 2]]
    np.testing.assert_allclose(doubled, np.abs(gains).reshape(-1), rtol=1e-4)


def test_baseline_of_completeness_is_a_number_or_a_sample():
    model = _linear()
    maps = np.zeros((3, SIZE, SIZE, 1), "float32")
    own = np.random.default_rng(0).normal(size=(SIZE, SIZE, 1))
    for baseline in (0.0, 2.5, own, own[:, :1], own[0]):
        shifted = X - np.broadcast_to(baseline, (SIZE, SIZE, 1))
        expected = np.abs(shifted.reshape(3, -1) @ KERNEL[:, 1])
        found = ke.metrics.completeness(model, X, maps, 1, baseline=baseline)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("baseline", "received"),
    [("black", "'black'"), (np.nan, "nan"), (np.zeros((3, 1)), r"shape \(3, 1\)"), (None, "None")],
)
def test_bad_baselines_are_refused(baseline, received):
    with pytest.raises(ValueError, match=rf"`baseline`.*\(4, 4, 1\). Received: {received}"):
        ke.metrics.completeness(_linear(), X, X, 1, baseline=baseline)


def test_gradients_do_not_depend_on_a_shift_and_input_times_gradient_does():
    model = _linear()
    explain = functools.partial(ke.gradients, postprocessing=None)
    np.testing.assert_allclose(_scores("input_invariance", model, explain).values, 0, atol=1e-6)
    explain = functools.partial(ke.input_x_gradient, postprocessing=None)
    weight = KERNEL[:, 1].reshape(SIZE, SIZE, 1)
    lengths = np.sqrt(((X * weight) ** 2).sum((1, 2, 3)))
    for shift in (1, -3.5):
        scores = _scores("input_invariance", model, explain, shift=shift)
        expected = abs(shift) * np.linalg.norm(weight) / lengths
        np.testing.assert_allclose(scores.values[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "several_inputs", "channels_first"])
def test_cams_do_not_depend_on_a_shift_whatever_the_topology(kind):
    model, x, options, *_ = getattr(zoo, kind)()
    before = zoo.fingerprint(model)
    explain = functools.partial(ke.gradcam, postprocessing=None, **options)
    found = ke.metrics.input_invariance(model, x, explain(model, x, 1)[1], 1, explain)
    np.testing.assert_allclose(found, 0, atol=1e-4)
    assert zoo.fingerprint(model) == before


@pytest.mark.compiled
def test_shifted_model_is_kept_as_long_as_its_model():
    traces = []

    def method(model, inputs, indices=None):
        traces.append(indices)
        return ke.methods.cams.gradcam(model, inputs, indices)

    model = zoo.functional().model
    explain = functools.partial(ke.explain, method)
    maps = explain(model, zoo.IMAGES, 1)[1]
    for _ in range(3):
        ke.metrics.input_invariance(model, zoo.IMAGES, maps, 1, explain)
    assert len(traces) == 2
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_layers_named_are_found_in_the_shifted_model():
    model = zoo.nested_three_deep().model
    explain = functools.partial(ke.gradcam, layer="relu", postprocessing=None)
    found = ke.metrics.input_invariance(
        model, zoo.IMAGES, explain(model, zoo.IMAGES, 1)[1], 1, explain
    )
    np.testing.assert_allclose(found, 0, atol=1e-4)


@pytest.mark.parametrize("name", [RANDOMIZED, "random_logit", "input_invariance"])
def test_maps_that_explain_does_not_return_are_refused(name):
    model = _linear()
    for maps in (2 * X, X[:, ::2, ::2]):
        with pytest.raises(ValueError, match="`maps`.*the same size and postprocessing"):
            getattr(ke.metrics, name)(model, X, maps, 1, _image)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        (RANDOMIZED, {"order": "up"}, "`order`.*Received: 'up'"),
        (RANDOMIZED, {"similarity": "l2"}, "`similarity`.*Received: 'l2'"),
        (RANDOMIZED, {"num_stages": 0}, "`num_stages`.*Received: 0"),
        (RANDOMIZED, {"seed": -1}, "`seed`.*Received: -1"),
        ("random_logit", {"seed": 1.5}, "`seed`.*Received: 1.5"),
        ("random_logit", {"similarity": 1}, "`similarity`.*Received: 1"),
        ("input_invariance", {"shift": 0}, "`shift`.*Received: 0"),
        ("input_invariance", {"shift": "1"}, "`shift`.*Received: '1'"),
    ],
)
def test_bad_options_are_refused(name, options, error):
    with pytest.raises(ValueError, match=error):
        getattr(ke.metrics, name)(_linear(), X, X, 1, _image, **options)


@pytest.mark.parametrize("name", [RANDOMIZED, "random_logit", "input_invariance", "completeness"])
def test_values_do_not_depend_on_the_batch_and_are_of_pairs_detected(name):
    model = _linear()
    explain = functools.partial(ke.input_x_gradient, postprocessing=None)
    maps = explain(model, X)[1]
    arguments = {} if name == "completeness" else {"explain": explain}
    function = functools.partial(getattr(ke.metrics, name), model, **arguments)
    detected = (X.reshape(3, -1) @ KERNEL + BIAS) > 0
    values, weights = function(X, maps, return_weights=True)
    np.testing.assert_array_equal(weights, detected)
    np.testing.assert_array_equal(values[~detected], 0)
    together = function(X, maps)
    assert together.shape == (detected.sum(),)
    np.testing.assert_allclose(together, function(X, maps, batch_size=2), rtol=1e-4, atol=1e-5)
    alone = np.concatenate([function(X[i : i + 1], maps[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    every = function(X, maps, detections=np.ones((3, 3)))
    assert len(every) == 9
    fewer = function(X, maps, threshold=0.999)
    assert len(fewer) < len(together)
    metric = ke.metrics.get(name)
    metric.update_state(model, X[:2], maps[:2], **arguments)
    metric.update_state(model, X[2:], maps[2:], **arguments)
    assert float(metric.result()) == pytest.approx(together.mean(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", [*ke.metrics.names("robustness"), RANDOMIZED, "random_logit"])
def test_nothing_detected_is_nothing_scored(name):
    values, weights = getattr(ke.metrics, name)(
        _linear(), X, np.repeat(X, 3, -1), explain=_image, threshold=2, return_weights=True
    )
    assert not np.any([values, weights])
    assert values.shape == (3, 3)


def test_signals_and_volumes_are_scored():
    for sizes in ((6,), (2, 3, 2)):
        stack = [keras.Input((*sizes, 1)), layers.Flatten(), layers.Dense(2)]
        model = keras.Sequential(stack)
        x = np.random.default_rng(0).normal(size=(2, *sizes, 1)).astype("float32")
        explain = functools.partial(ke.input_x_gradient, postprocessing=None)
        maps = explain(model, x, 0)[1]
        for name in (RANDOMIZED, "random_logit", "input_invariance", "max_sensitivity"):
            values = getattr(ke.metrics, name)(model, x, maps, 0, explain)
            assert values.shape == (2,)
            assert tf.reduce_all(tf.math.is_finite(values))
        assert np.all(ke.metrics.completeness(model, x, maps, 0) < 1e-5)
