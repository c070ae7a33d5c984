"""Metrics of robustness, on explanations that are known functions of the input."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke

NAMES = ke.metrics.names("robustness")
STABILITY = ("relative_input_stability", "relative_output_stability")
SIZE = 4
UNITS = 3
X = np.random.default_rng(1).normal(size=(3, SIZE, SIZE, 1)).astype("float32")
KERNEL = np.random.default_rng(2).normal(size=(SIZE * SIZE, UNITS)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """Return a linear model."""
    stack = [keras.Input((SIZE, SIZE, 1)), layers.Flatten(), layers.Dense(UNITS, name="head")]
    built = keras.Sequential(stack)
    built.get_layer("head").set_weights([KERNEL, np.zeros(UNITS)])
    return built


def explaining(function):
    """Return a function that explains with maps `function(x)`, multiplied by unit plus one."""

    def explain(model, x, indices):
        units = np.arange(UNITS)[None] if indices is None else np.asarray(indices)
        factors = (units + 1.0)[:, None, None].astype("float32")
        return model(x).numpy(), function(x) * factors

    return explain


identity = explaining(lambda x: x)
square = explaining(lambda x: x**2)
constant = explaining(lambda x: np.ones_like(x))


def _noise(num_samples=10, radius=0.02, seed=0, x=X):
    """Return the noise `(draws, samples, size, size, 1)`."""
    scale = radius * (x.max((1, 2, 3)) - x.min((1, 2, 3)))[:, None, None, None]
    draws = [
        tf.random.stateless_uniform((1, SIZE, SIZE, 1), (seed, r), -1, 1).numpy()
        for r in range(num_samples)
    ]
    # As float32 keeps it.
    return np.stack([(x + scale * draw) - x for draw in draws]).astype("float64")


def _norm(values):
    return np.sqrt((values**2).sum((-3, -2, -1)))


def _call(name, model, explain, x=X, indices=1, **options):
    _, maps = explain(model, x, np.full((len(x), 1), indices))
    return getattr(ke.metrics, name)(model, x, maps, indices, explain, **options)


def test_these_are_the_metrics_of_robustness():
    expected = {"max_sensitivity", "average_sensitivity", "local_lipschitz", *STABILITY}
    assert set(NAMES) == expected
    for name in NAMES:
        known = ke.metrics.registration(name)
        assert known.higher_is_better is False
        assert known.needs == ("model", "explain")


def test_map_that_is_the_input_moves_as_the_noise_does(model):
    shares = _norm(_noise()) / _norm(X.astype("float64"))
    found = _call("max_sensitivity", model, identity)
    np.testing.assert_allclose(found, shares.max(0), rtol=1e-4)
    found = _call("average_sensitivity", model, identity)
    np.testing.assert_allclose(found, shares.mean(0), rtol=1e-4)


def test_lipschitz_constant_of_a_linear_map_is_its_factor(model):
    for unit in range(UNITS):
        found = _call("local_lipschitz", model, identity, indices=unit)
        np.testing.assert_allclose(found, unit + 1, rtol=1e-4)


def test_input_stability_of_a_multiple_of_the_input_is_one(model):
    found = _call("relative_input_stability", model, identity, radius=1e-3)
    np.testing.assert_allclose(found, 1, rtol=1e-2)


def test_constant_maps_are_stable(model):
    for name in NAMES:
        np.testing.assert_array_equal(_call(name, model, constant), 0)


def test_values_are_those_of_numpy(model):
    noise = _noise(4, 0.7, seed=5)
    x = X.astype("float64")
    change = (x + noise) ** 2 - x**2
    new, old = ((x + n).reshape(-1, SIZE * SIZE) @ KERNEL for n in (noise, 0))
    new = new.reshape(4, len(X), UNITS)
    kept = new.argmax(-1) == old.argmax(-1)
    assert kept.any(0).all()
    assert not kept.all()
    relative = _norm(change / x**2)
    outputs = np.linalg.norm(new - old, axis=-1)
    expected = {
        "max_sensitivity": (_norm(change) / _norm(x**2)).max(0),
        "average_sensitivity": (_norm(change) / _norm(x**2)).mean(0),
        "local_lipschitz": (2 * _norm(change) / _norm(noise)).max(0),
        "relative_input_stability": np.where(kept, relative / _norm(noise / x), 0).max(0),
        "relative_output_stability": np.where(kept, relative / outputs, 0).max(0),
    }
    options = {"num_samples": 4, "radius": 0.7, "seed": 5}
    for name in NAMES:
        found = _call(name, model, square, **options)
        np.testing.assert_allclose(found, expected[name], rtol=1e-4)


def test_draws_that_change_the_class_are_left_out(model):
    x = np.zeros_like(X)
    # Two logits that are all but equal, and an axis along which they part.
    x[:, 0, 0] = 1
    kernel = np.zeros_like(KERNEL)
    kernel[5, 1] = 1
    kernel[5, 0] = -1
    kernel[:, 2] = -1
    copy = keras.models.clone_model(model)
    copy.set_weights([kernel, np.array([1e-6, 0, 0])])
    noise = _noise(6, x=x)[:, :, 1, 1, 0]
    kept = (noise < 0).all(1)
    assert 0 < kept.sum() < 6
    found = _call("relative_input_stability", copy, identity, x=x, num_samples=6)
    np.testing.assert_allclose(found, 1, rtol=1e-3)
    # Of the draws that change the class nothing is left.
    seed = next(s for s in range(20) if _noise(1, seed=s, x=x)[0, 0, 1, 1, 0] > 1e-3)
    arguments = {"num_samples": 1, "seed": seed, "return_weights": True}
    for name in STABILITY:
        values, weights = _call(name, copy, identity, x=x, **arguments)
        np.testing.assert_array_equal(values, 0)
        np.testing.assert_array_equal(weights, 0)


def test_model_with_one_unit_predicts_by_sign():
    stack = [keras.Input((SIZE, SIZE, 1)), layers.Flatten(), layers.Dense(1, use_bias=False)]
    single = keras.Sequential(stack)
    kernel = np.zeros((SIZE * SIZE, 1), "float32")
    kernel[0] = 1
    single.set_weights([kernel])
    x = np.ones((2, SIZE, SIZE, 1), "float32")
    x[:, 1:] = 2
    x[0, 0, 0] = 1e-5  # Nearly no logit: half of the noise turns its sign.
    explain = lambda model, x, indices: (model(x).numpy(), x)  # noqa: ARG005, E731
    signs = [_noise(1, seed=s, x=x)[0, 0, 0, 0, 0] > -1e-5 for s in range(4)]
    assert len(set(signs)) == 2
    for seed, stays in enumerate(signs):
        _, weights = ke.metrics.relative_output_stability(
            single, x, x, 0, explain, num_samples=1, seed=seed, return_weights=True
        )
        np.testing.assert_array_equal(weights, [[stays], [True]])


def test_zeros_of_maps_and_inputs_have_no_relative_change(model):
    x = np.where(np.abs(X) < 0.5, 0, X)
    assert (x == 0).any()
    found = _call("relative_input_stability", model, identity, x=x, radius=1e-3)
    np.testing.assert_allclose(found, 1, rtol=1e-2)


def test_what_has_no_value_is_left_out(model):
    x = X.copy()
    x[1] = 3  # No range.
    explain = explaining(lambda x: x * (x.max((1, 2, 3), keepdims=True) > X[2].max()))
    _, maps = explain(model, x, None)
    assert [m.any() for m in maps] == [X[0].max() > X[2].max(), True, False]
    for name in NAMES:
        function = getattr(ke.metrics, name)
        values, weights = function(model, x, maps, 0, explain, return_weights=True)
        assert np.isfinite(values).all()
        assert weights[1, 0] == 0
        assert weights[2, 0] == (name == "local_lipschitz")
        np.testing.assert_array_equal(values[weights == 0], 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_changes_the_result(model, name):
    first = _call(name, model, square)
    for options in ({"num_samples": 2}, {"radius": 0.1}, {"seed": 1}):
        assert np.abs(_call(name, model, square, **options) - first).max() > 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_see_each_other(model, name):
    together = _call(name, model, square)
    alone = [_call(name, model, square, x=X[i : i + 1])[0] for i in range(len(X))]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    batched = _call(name, model, square, batch_size=2)
    np.testing.assert_allclose(together, batched, rtol=1e-5)


def test_units_explained_are_those_of_the_input_without_noise(model):
    asked = []

    def explain(model, x, indices):
        asked.append(indices)
        return square(model, x, indices)

    best = (X.reshape(len(X), -1) @ KERNEL).argmax(1)[:, None]
    _, maps = square(model, X, best)
    ke.metrics.max_sensitivity(model, X, maps, "argmax", explain, num_samples=2, radius=5.0)
    assert len(asked) == 3
    for indices in asked:
        np.testing.assert_array_equal(indices, best)


def test_without_indices_all_units_are_explained_and_those_detected_count(model):
    asked = []

    def explain(model, x, indices):
        asked.append(indices)
        return square(model, x, indices)

    _, maps = square(model, X, None)
    detected = (X.reshape(len(X), -1) @ KERNEL) > 0
    assert 0 < detected.sum() < detected.size
    function = ke.metrics.max_sensitivity
    values, weights = function(model, X, maps, explain=explain, return_weights=True)
    assert asked == [None] * 11
    np.testing.assert_array_equal(weights, detected)
    single = _call("max_sensitivity", model, square, indices=2)
    np.testing.assert_allclose(values[:, 2], np.where(detected[:, 2], single, 0), rtol=1e-5)
    assert function(model, X, maps, explain=explain).shape == (detected.sum(),)
    labels = np.eye(3)
    _, weights = function(
        model, X, maps, explain=explain, detections=labels, return_weights=True, num_samples=1
    )
    np.testing.assert_array_equal(weights, labels)


def test_all_units_in_any_order_are_explained_at_once(model):
    orders = np.array([[2, 0, 1], [0, 1, 2], [1, 2, 0]])
    _, maps = square(model, X, orders)
    found = ke.metrics.local_lipschitz(model, X, maps, orders, square, return_weights=True)[0]
    expected = [_call("local_lipschitz", model, square, indices=u) for u in range(UNITS)]
    expected = np.take_along_axis(np.stack(expected, axis=1), orders, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def _refused(model, error, maps=None, explain=square, name="max_sensitivity", **options):
    maps = square(model, X, np.ones((3, 1), int))[1] if maps is None else maps
    with pytest.raises((TypeError, ValueError), match=error):
        getattr(ke.metrics, name)(model, X, maps, 1, explain, **options)


def test_maps_that_explain_does_not_return_are_refused(model):
    maps = square(model, X, np.ones((3, 1), int))[1]
    _refused(model, "same size and postprocessing.*differ from those by 1 of", maps=maps / 2)
    _refused(model, r"positions \(2, 2\), and \(4, 4\) of", maps=maps[:, ::2, ::2])
    _refused(model, "differ from those by inf", maps=0 * maps)


def test_bad_explain_is_refused(model):
    _refused(model, "`explain`.*Received: None", explain=None)
    _refused(model, "`explain`.*Received: 'gradcam'", explain="gradcam")
    _refused(model, "`explain`.*an object of type ndarray", explain=lambda *_: X)
    _refused(model, "one array of maps.*dict", explain=lambda *_: (None, {"a": X}))
    _refused(model, r"maps \(3, '\*positions', 1\).*\(1, 4, 4, 1\)", explain=lambda *_: (0, X[:1]))
    _refused(model, "finite maps.*NaN", explain=lambda *_: (0, X * np.nan))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_samples": 0}, "`num_samples`.*Received: 0"),
        ({"radius": 0}, "`radius`.*Received: 0"),
        ({"radius": -1}, "`radius`.*Received: -1"),
        ({"seed": -1}, "`seed`.*Received: -1"),
        ({"seed": 0.5}, "`seed`.*Received: 0.5"),
    ],
)
def test_bad_options_are_refused(model, options, error):
    _refused(model, error, **options)


def test_input_of_integers_is_refused():
    stack = [keras.Input((6, 1), dtype="int32"), layers.Flatten(), layers.Dense(2)]
    x = np.ones((2, 6, 1), "int32")
    explain = lambda *_: (0, x.astype("float32"))  # noqa: E731
    with pytest.raises(ValueError, match="floating point.*int32"):
        ke.metrics.max_sensitivity(keras.Sequential(stack), x, x, 0, explain)


def test_within_a_compiled_function_explain_is_refused(model):
    metric = ke.metrics.MaxSensitivity()
    maps = square(model, X, np.ones((3, 1), int))[1]

    @tf.function(autograph=False)
    def step(x, maps):
        metric.update_state(model, x, maps, np.ones((3, 1), "int32"), square)

    with pytest.raises(RuntimeError, match="outside of `tf.function`"):
        step(X, maps)


def test_class_gathers_batches(model):
    _, maps = square(model, X, np.ones((3, 1), int))
    for name in NAMES:
        metric = ke.metrics.get(name)
        metric.update_state(model, X[:2], maps[:2], 1, square)
        metric.update_state(model, X[2:], maps[2:], 1, square)
        expected = _call(name, model, square).mean()
        assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_methods_of_the_library_are_explained_again_by_the_step_of_the_first_time(model):
    traces = []

    def signed(maps):
        traces.append(maps)
        return maps

    explain = functools.partial(ke.input_x_gradient, postprocessing=signed)
    _, maps = explain(model, X, 1)
    found = ke.metrics.local_lipschitz(model, X, maps, 1, explain)
    weight = KERNEL[:, 1].reshape(SIZE, SIZE, 1)
    expected = (_norm(_noise() * weight) / _norm(_noise())).max(0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert len(traces) == 1
