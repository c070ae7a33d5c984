"""Faithfulness by curves, against NumPy, linear models and Quantus."""

import gc
import itertools
import re
import weakref

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.sparse
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from keras_explainable._variation import simpson_weights
from keras_explainable.metrics import _computing
from keras_explainable.metrics.faithfulness import _perturbing
from keras_explainable.metrics.faithfulness import imputing
from tests.parity.peers_test import _network

pytestmark = pytest.mark.usefixtures("_eagerly")

METRICS = {
    "insertion": {"num_steps": 4},
    "deletion": {"num_steps": 4},
    "pixel_flipping": {"num_steps": 4},
    "selectivity": {"patch_size": 2},
    "monotonicity": {"num_steps": 4},
    "faithfulness_correlation": {"num_subsets": 6},
    "faithfulness_estimate": {"num_steps": 4},
    "road": {"percentiles": (30, 60)},
    "aupc": {"window": 2, "num_regions": 2, "num_copies": 3},
}
random = np.random.default_rng(0)
IMAGES = random.normal(size=(3, 6, 5, 2)).astype("float32")
MAPS = random.normal(size=(3, 6, 5, 2)).astype("float32")
UNITS = np.array([[0, 2], [1, 0], [2, 2]])


def _model(shape=(6, 5, 2), activation="softmax", **options):
    inputs = keras.Input(shape, **options)
    x = layers.Flatten()(inputs) if len(shape) > 1 else inputs
    model = keras.Model(inputs, layers.Dense(3, activation=activation)(x))
    model.layers[-1].set_weights([w + 0.1 for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return _model()


def _scores(name, model, x, maps, indices=None, **options):
    """Return the `Scores` of a metric."""
    arguments = {"model": model, "x": x, "maps": maps, "indices": indices}
    computation = _computing.Computation(ke.metrics.registration(name), options, arguments)
    return computation.run(computation.checked(arguments))


def _oracle(model, maps, counts, other, *, inserted=False, ascending=False, per_channel=False):
    """Predict, one by one, what is left of the images without the first features."""
    curve = np.zeros((3, 2, len(counts)))
    for i, k, j in np.ndindex(*curve.shape):
        flat = maps[i, ..., k].reshape(-1)
        order = np.argsort(flat if ascending else -flat, kind="stable")
        first = np.zeros(len(flat), bool)
        first[order[: counts[j]]] = True
        first = first.reshape(maps.shape[1:-1]) if per_channel else first.reshape(6, 5, 1)
        image = np.where(first != inserted, other[i], IMAGES[i])
        curve[i, k, j] = model(image[None])[0, UNITS[i, k]]
    return curve


def _area(curve):
    return (curve[..., 1:] + curve[..., :-1]).mean(-1) / 2


def _blurred(images):
    kernel = np.exp(-0.5 * (np.arange(-5, 6) / 5) ** 2)
    for axis in (1, 2):
        mix = lambda row: np.convolve(row, kernel, "full")[5:-5]  # noqa: E731
        total = np.apply_along_axis(mix, axis, np.ones_like(images))
        images = np.apply_along_axis(mix, axis, images) / total
    return images


FILLED = {
    "zero": np.zeros_like(IMAGES),
    "mean": np.zeros_like(IMAGES) + IMAGES.mean((1, 2), keepdims=True),
    "blur": _blurred(IMAGES),
}


@pytest.mark.parametrize("fill", FILLED)
@pytest.mark.parametrize("name", ["insertion", "deletion", "pixel_flipping"])
def test_curves_are_what_the_model_predicts_step_by_step(name, fill, model):
    counts = [0, 7, 15, 22, 30]
    found = _scores(name, model, IMAGES, MAPS, UNITS, num_steps=4, fill=fill)
    inserted = name == "insertion"
    curve = _oracle(model, MAPS, counts, FILLED[fill], inserted=inserted)
    value = curve[..., 1:].mean(-1) if name == "pixel_flipping" else _area(curve)
    np.testing.assert_allclose(found.values, value, atol=1e-6)
    curve = curve[..., 1:] if name == "pixel_flipping" else curve
    np.testing.assert_allclose(found.curve, curve, atol=1e-6)
    np.testing.assert_array_equal(found.weights, np.ones((3, 2)))


def test_step_size_is_that_of_all_steps_but_the_last(model):
    found = _scores("deletion", model, IMAGES, MAPS, UNITS, step_size=8)
    curve = _oracle(model, MAPS, [0, 8, 16, 24, 30], FILLED["zero"])
    np.testing.assert_allclose(found.curve, curve, atol=1e-6)
    np.testing.assert_allclose(found.values, _area(curve), atol=1e-6)


def test_there_are_no_more_steps_than_features(model):
    found = _scores("deletion", model, IMAGES, MAPS, UNITS, num_steps=50)
    np.testing.assert_allclose(
        found.curve, _oracle(model, MAPS, range(31), FILLED["zero"]), atol=1e-6
    )


def test_channels_of_a_position_go_one_by_one_with_maps_of_channels(model):
    maps = np.random.default_rng(1).normal(size=(3, 6, 5, 2, 2)).astype("float32")
    found = _scores("deletion", model, IMAGES, maps, UNITS, num_steps=4)
    curve = _oracle(model, maps, [0, 15, 30, 45, 60], FILLED["zero"], per_channel=True)
    np.testing.assert_allclose(found.curve, curve, atol=1e-6)


def test_equal_positions_go_in_their_order(model):
    found = _scores("deletion", model, IMAGES, np.ones_like(MAPS), UNITS, num_steps=30)
    order = np.broadcast_to(-np.arange(30.0).reshape(1, 6, 5, 1), MAPS.shape)
    np.testing.assert_allclose(
        found.curve, _oracle(model, order, range(31), FILLED["zero"]), atol=1e-6
    )


def test_small_maps_are_resized(model):
    small = MAPS[:, ::2, ::2]
    large = ke.filters.resize(small, (6, 5)).numpy()
    expected = ke.metrics.insertion(model, IMAGES, large, UNITS, num_steps=4)
    found = ke.metrics.insertion(model, IMAGES, small, UNITS, num_steps=4)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture(scope="module")
def linear():
    """Return a model that adds up positions, each with a weight, its image and its weights."""
    inputs = keras.Input((2, 3, 1))
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(layers.Flatten()(inputs)))
    weights = np.array([3, -1, 2, 0.5, -2, 1], "float32")
    model.set_weights([weights[:, None]])
    return model, np.ones((1, 2, 3, 1), "float32"), weights.reshape(1, 2, 3, 1)


def test_areas_of_a_sum_are_best_for_what_is_added(linear):
    model, x, weights = linear
    options = {"indices": [0], "activation": "linear", "step_size": 1, "fill": "zero"}
    areas = {"insertion": [], "deletion": []}
    for _ in range(20):
        maps = np.random.default_rng(len(areas["deletion"])).permutation(weights.reshape(-1))
        for name, found in areas.items():
            maps = maps.reshape(weights.shape)
            found += list(getattr(ke.metrics, name)(model, x, maps, **options))
    best = {n: getattr(ke.metrics, n)(model, x, weights, **options)[0] for n in areas}
    total = np.cumsum([0, 3, 2, 1, 0.5, -1, -2])
    assert best["insertion"] == pytest.approx(_area(total))
    assert best["deletion"] == pytest.approx(_area(3.5 - total))
    assert max(areas["insertion"]) <= best["insertion"] + 1e-6
    assert min(areas["deletion"]) >= best["deletion"] - 1e-6


@pytest.mark.parametrize("name", ["faithfulness_correlation", "faithfulness_estimate"])
@pytest.mark.parametrize(("factor", "value"), [(1, 1), (5, 1), (-1, -1)])
def test_what_a_sum_adds_up_correlates_with_its_drops(name, factor, value, linear):
    model, x, weights = linear
    found = getattr(ke.metrics, name)(model, x, factor * weights, [0], activation="linear")
    assert found == pytest.approx([value], abs=1e-5)


@pytest.mark.parametrize("name", ["faithfulness_correlation", "faithfulness_estimate"])
def test_correlations_with_what_does_not_vary_are_undefined(name, linear, model):
    options = {"activation": "linear", "return_weights": True}
    constant = getattr(ke.metrics, name)(*linear[:2], np.ones((1, 2, 3, 1)), [0], **options)
    black = getattr(ke.metrics, name)(model, 0 * IMAGES, MAPS, UNITS, return_weights=True)
    for values, weights in (constant, black):
        assert not values.any()
        assert not weights.any()


def test_correlation_is_that_of_worth_and_drop_over_random_sets(model):
    options = {"num_subsets": 7, "subset_size": 4, "seed": 5}
    found = ke.metrics.faithfulness_correlation(model, IMAGES, MAPS, UNITS, **options)
    before = model(IMAGES).numpy()
    expected = []
    for i, k in np.ndindex(3, 2):
        worth, drops = [], []
        for j in range(7):
            noise = tf.random.stateless_uniform([30], [5, j]).numpy()
            chosen = np.zeros(30, bool)
            chosen[np.argsort(-noise)[:4]] = True
            image = np.where(chosen.reshape(6, 5, 1), 0, IMAGES[i])
            worth.append(MAPS[i, ..., k].reshape(-1)[chosen].sum())
            drops.append(before[i, UNITS[i, k]] - model(image[None]).numpy()[0, UNITS[i, k]])
        expected.append(np.corrcoef(worth, drops)[0, 1])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_set_has_the_square_root_of_the_number_of_features(model):
    root = ke.metrics.faithfulness_correlation(model, IMAGES, MAPS, UNITS, subset_size=5)
    found = ke.metrics.faithfulness_correlation(model, IMAGES, MAPS, UNITS)
    np.testing.assert_allclose(found, root, atol=1e-6)


def test_predictions_of_a_sum_of_positive_parts_rise(linear):
    model, x, weights = linear
    options = {"activation": "linear", "step_size": 1, "return_weights": True}
    falls = ke.metrics.monotonicity(model, x, weights, [0], **options)
    rises = ke.metrics.monotonicity(model, x * np.sign(weights), weights, [0], **options)
    assert (falls[0], falls[1]) == (0, 1)
    assert (rises[0], rises[1]) == (1, 1)


def test_monotonicity_adds_the_least_relevant_first(model):
    found = _scores("monotonicity", model, IMAGES, MAPS, UNITS, num_steps=5)
    counts = [0, 6, 12, 18, 24, 30]
    curve = _oracle(model, MAPS, counts, FILLED["zero"], inserted=True, ascending=True)
    np.testing.assert_allclose(found.curve, curve, atol=1e-6)
    np.testing.assert_array_equal(found.values, (np.diff(curve) >= 0).all(-1))


def test_patches_go_by_their_sums_also_at_the_end_of_axes(model):
    found = _scores("selectivity", model, IMAGES, MAPS, UNITS, patch_size=4)
    rows, columns = np.arange(6) // 4, np.arange(5) // 4
    number = rows[:, None] * 2 + columns
    curve = np.zeros((3, 2, 5))
    for i, k in np.ndindex(3, 2):
        sums = [MAPS[i, ..., k][number == n].sum() for n in range(4)]
        image = IMAGES[i].copy()
        for j in range(5):
            curve[i, k, j] = model(image[None]).numpy()[0, UNITS[i, k]]
            image[number == np.argsort(sums)[::-1][min(j, 3)]] = 0
    np.testing.assert_allclose(found.curve, curve, atol=1e-6)
    np.testing.assert_allclose(found.values, _area(curve), atol=1e-6)


def _solved(image, missing):
    """Impute an image with a sparse solver."""
    indices = np.full(missing.shape, -1)
    places = np.argwhere(missing)
    indices[missing] = np.arange(len(places))
    system = scipy.sparse.lil_matrix((len(places), len(places)))
    right = np.zeros((len(places), image.shape[-1]))
    for n, (y, x) in enumerate(places):
        for v, u in itertools.product((y - 1, y, y + 1), (x - 1, x, x + 1)):
            if (v, u) == (y, x) or not (0 <= v < len(image) and 0 <= u < image.shape[1]):
                continue
            weight = 1 / 6 if v == y or u == x else 1 / 12
            system[n, n] += weight
            if missing[v, u]:
                system[n, indices[v, u]] -= weight
            else:
                right[n] += weight * image[v, u]
    filled = image.astype("float64").copy()
    filled[missing] = scipy.sparse.linalg.spsolve(system.tocsc(), right).reshape(right.shape)
    return filled


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
@pytest.mark.parametrize("sizes", [(24, 24), (7, 19)])
def test_imputed_pixels_solve_the_linear_system(sizes, share):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *sizes, 3)).astype("float32")
    holes = ke.filters.resize(rng.normal(size=(1, 3, 3, 1)), sizes).numpy()[..., 0]
    values = np.concatenate([holes, rng.normal(size=(1, *sizes))])
    missing = np.stack([v > np.quantile(v, 1 - share) for v in values])
    found = imputing.imputed(tf.constant(images), tf.constant(missing[..., None], tf.float32))
    for image, mask, filled in zip(images, missing, found.numpy(), strict=True):
        np.testing.assert_allclose(filled, _solved(image, mask), atol=1e-4)
        np.testing.assert_array_equal(filled[~mask], image[~mask])


@pytest.mark.compiled
def test_images_of_any_size_are_imputed():
    images = np.random.default_rng(0).normal(size=(1, 9, 6, 1)).astype("float32")
    missing = np.ones((1, 9, 6, 1), "float32")
    missing[:, 4:, :2] = 0
    signature = [tf.TensorSpec((None, None, None, 1))] * 2
    found = tf.function(imputing.imputed, input_signature=signature)(images, missing)
    np.testing.assert_allclose(found[0], _solved(images[0], missing[0, ..., 0] > 0), atol=1e-4)


@pytest.mark.parametrize("order", imputing.ORDERS)
def test_road_predicts_imputed_images(order, model):
    before = model(IMAGES).numpy()
    curve = {"morf": np.zeros((3, 2, 2)), "lerf": np.zeros((3, 2, 2))}
    for i, k, j in np.ndindex(3, 2, 2):
        flat = MAPS[i, ..., k].reshape(-1)
        for kind, ranked in (("morf", -flat), ("lerf", flat)):
            missing = np.zeros(30, bool)
            missing[np.argsort(ranked, kind="stable")[: (9, 18)[j]]] = True
            missing = missing.reshape(6, 5)
            noise = 0.1 * tf.random.stateless_normal((6, 5, 2), [4, j]).numpy()
            image = _solved(IMAGES[i], missing) + noise * missing[..., None]
            after = model(image[None].astype("float32")).numpy()[0, UNITS[i, k]]
            curve[kind][i, k, j] = after - before[i, UNITS[i, k]]
    expected = {
        "morf": -curve["morf"],
        "lerf": curve["lerf"],
        "both": (curve["lerf"] - curve["morf"]) / 2,
    }[order]
    options = {"percentiles": (30, 60), "noise": 0.1, "seed": 4, "order": order}
    found = _scores("road", model, IMAGES, MAPS, UNITS, **options)
    np.testing.assert_allclose(found.curve, expected, atol=1e-4)
    np.testing.assert_allclose(found.values, expected.mean(-1), atol=1e-4)


@pytest.mark.parametrize("n", range(1, 8))
def test_weights_are_those_of_simpson(n):
    points = np.random.default_rng(n).normal(size=n + 1)
    expected = scipy.integrate.simpson(points)
    assert simpson_weights(n + 1) @ points == pytest.approx(expected, abs=1e-5)


def _aupc(model, image, values, unit, noise, low, high, seed=3, window=2, num=6, copies=4):
    """Walk over regions, one copy at a time."""
    kernel, offset = model.get_weights()
    logits = lambda x: x.reshape(len(x), -1) @ kernel + offset  # noqa: E731
    means = np.lib.stride_tricks.sliding_window_view(np.abs(values), (window, window)).mean((2, 3))
    low, high = image.min() if low is None else low, image.max() if high is None else high
    curve, base = [float(logits(image[None])[0, unit])], image
    for i in range(num):
        if means.max() < 0:
            break
        y, x = np.unravel_index(np.argmax(means), means.shape)
        means[max(y - window + 1, 0) : y + window, max(x - window + 1, 0) : x + window] = -1
        region = np.zeros(values.shape + (1,), bool)
        region[y : y + window, x : x + window] = True
        images = []
        for n in range(i * copies, (i + 1) * copies):
            if noise == "uniform":
                drawn = tf.random.stateless_uniform(image.shape, [seed, n]).numpy()
                drawn = low + (high - low) * drawn
            else:
                drawn = tf.random.stateless_normal(image.shape, [seed, n]).numpy()
                drawn = np.clip(image.mean((0, 1)) + image.std((0, 1)) * drawn, low, high)
            images.append(np.where(region, drawn, base))
        found = logits(np.array(images))[:, unit]
        base = images[np.argsort(found, kind="stable")[(copies - 1) // 2]]
        curve.append(found.mean())
    return scipy.integrate.simpson(np.array(curve) / abs(curve[0])), len(curve) - 1


@pytest.mark.parametrize(
    "options", [{}, {"noise": "gaussian"}, {"low": -4.0, "high": 3.0}, {"normalize": True}]
)
def test_aupc_perturbs_windows_one_after_the_other(options, model):
    named = {"noise": "uniform", "low": None, "high": None} | options
    normalize = named.pop("normalize", False)
    areas, numbers = np.array(
        [
            _aupc(model, IMAGES[i], MAPS[i, ..., k], UNITS[i, k], **named)
            for i, k in np.ndindex(3, 2)
        ]
    ).T
    # Of a map of 6 × 5 positions, six windows of 2 × 2 don't always fit.
    assert len(set(numbers)) > 1
    found = ke.metrics.aupc(
        model, IMAGES, MAPS, UNITS, window=2, num_regions=6, num_copies=4, seed=3, **options
    )
    expected = areas / numbers if normalize else areas
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_aupc_of_a_logit_of_zero_is_undefined(linear):
    model, x, weights = linear
    options = {"window": 2, "num_regions": 1, "num_copies": 2, "return_weights": True}
    values, known = ke.metrics.aupc(model, 0 * x, weights, [0], **options)
    assert (values, known) == (0, 0)


@pytest.mark.parametrize("name", METRICS)
def test_chunks_and_batches_make_no_difference(name, model):
    function, options = getattr(ke.metrics, name), METRICS[name]
    expected = function(model, IMAGES, MAPS, UNITS, **options)
    found = function(model, IMAGES, MAPS, UNITS, chunk=5, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    found = function(model, IMAGES, MAPS, UNITS, batch_size=1, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert len(np.unique(expected)) > 1 or name == "monotonicity"


@pytest.mark.parametrize("name", METRICS)
def test_what_is_not_detected_has_no_value(name, model):
    maps = np.zeros((3, 6, 5, 3), "float32")
    options = METRICS[name] | {"threshold": 1.0}
    values, weights = getattr(ke.metrics, name)(model, IMAGES, maps, return_weights=True, **options)
    assert values.shape == weights.shape == (3, 3)
    assert not values.any()
    assert not weights.any()
    detections = np.zeros((3, 3))
    detections[1, 2] = 1
    values = getattr(ke.metrics, name)(
        model, IMAGES, np.repeat(MAPS[..., :1], 3, -1), detections=detections, **METRICS[name]
    )
    own = getattr(ke.metrics, name)(model, IMAGES[1:2], MAPS[1:2, ..., :1], [2], **METRICS[name])
    np.testing.assert_allclose(values, own, atol=1e-5)


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["aupc"])
def test_metrics_run_on_replicas(name, model):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        metric = ke.metrics.get(name).__class__(**METRICS[name])
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
    exposed = ke.inspection.expose(copy, ())

    @tf.function
    def step(x, maps, indices):
        strategy.run(lambda *a: metric.update_state(exposed, *a), (x, maps, indices))

    step(IMAGES, MAPS, UNITS.astype("int32"))
    expected = getattr(ke.metrics, name)(model, IMAGES, MAPS, UNITS, **METRICS[name]).mean()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["insertion", "faithfulness_correlation", "road", "aupc"])
def test_metrics_of_half_precision_models_are_float32(name):
    policy = keras.DTypePolicy("mixed_float16")
    inputs = keras.Input((6, 5, 2))
    flat = layers.Flatten(dtype=policy)(inputs)
    half = keras.Model(inputs, layers.Dense(3, activation="softmax", dtype=policy)(flat))
    full = keras.Model(inputs, layers.Dense(3, activation="softmax")(flat))
    full.set_weights(half.get_weights())
    options = METRICS[name] | ({"noise": 0.0} if name == "road" else {})
    values = getattr(ke.metrics, name)(half, IMAGES, MAPS, UNITS, **options)
    assert values.dtype == "float32"
    expected = getattr(ke.metrics, name)(full, IMAGES, MAPS, UNITS, **options)
    np.testing.assert_allclose(values, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("sizes", [(8,), (4, 3, 2)])
@pytest.mark.parametrize("name", [n for n in METRICS if n != "road"])
def test_signals_and_volumes_are_measured_as_images_are(name, sizes):
    """An axis of positions is worth as much as two of which one has the size 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *sizes, 2)).astype("float32")
    maps = rng.normal(size=(2, *sizes, 1)).astype("float32")
    model = _model((*sizes, 2))
    values = getattr(ke.metrics, name)(model, x, maps, [0, 1], **METRICS[name])
    assert np.isfinite(values).all()
    if len(sizes) > 1 or name in ("aupc", "faithfulness_correlation"):
        return
    image = keras.Sequential([keras.Input((8, 1, 2)), layers.Reshape((8, 2)), model])
    again = getattr(ke.metrics, name)(
        image, x[:, :, None], maps[:, :, None], [0, 1], **METRICS[name]
    )
    np.testing.assert_allclose(values, again, atol=1e-5)


def test_rows_of_a_table_are_features():
    model, x = _model((4,)), np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    maps = np.array([[4, 3, 2, 1], [1, 2, 3, 4.0]])[..., None]
    found = _scores("deletion", model, x, maps, [0, 1], step_size=1)
    for row, values, unit, order in ((0, x[0], 0, 1), (1, x[1], 1, -1)):
        curve = []
        for j in range(5):
            left = values[::order].copy()
            left[:j] = 0
            curve.append(float(model(left[::order][None])[0, unit]))
        np.testing.assert_allclose(found.curve[row, 0], curve, atol=1e-6)
    with pytest.raises(ValueError, match="'blur'"):
        ke.metrics.insertion(model, x, maps, [0, 1])


@pytest.mark.parametrize("name", ["deletion", "faithfulness_correlation", "road", "aupc"])
def test_other_inputs_stay_as_they_are(name, model):
    scale = keras.Input((1,), name="scale")
    image = keras.Input((6, 5, 2), name="image")
    both = keras.Model([scale, image], model(image * scale[:, :, None, None]))
    ones = np.ones((3, 1), "float32")
    options = METRICS[name]
    expected = getattr(ke.metrics, name)(model, 2 * IMAGES, MAPS, UNITS, **options)
    # Noise of half the size is doubled with the image.
    options = options | ({"noise": 0.005} if name == "road" else {})
    found = getattr(ke.metrics, name)(both, [2 * ones, IMAGES], MAPS, UNITS, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("insertion", "num_steps", 0),
        ("insertion", "fill", "noise"),
        ("deletion", "step_size", 1.5),
        ("deletion", "chunk", 0),
        ("deletion", "threshold", "high"),
        ("selectivity", "patch_size", -1),
        ("faithfulness_correlation", "num_subsets", 1),
        ("faithfulness_correlation", "subset_size", 31),
        ("faithfulness_correlation", "seed", 0.5),
        ("road", "order", "first"),
        ("road", "percentiles", ()),
        ("road", "percentiles", (50, 100)),
        ("road", "noise", -1),
        ("road", "seed", None),
        ("aupc", "window", 6),
        ("aupc", "num_regions", 0),
        ("aupc", "num_copies", 0),
        ("aupc", "noise", "salt"),
        ("aupc", "low", "none"),
    ],
)
def test_bad_options_are_refused(name, option, value, model):
    with pytest.raises(ValueError, match=rf"`{option}`.*Received: .*{re.escape(repr(value))}"):
        getattr(ke.metrics, name)(model, IMAGES, MAPS, UNITS, **{option: value})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("insertion", {"num_steps": 3}),
        ("insertion", {"step_size": 4}),
        ("insertion", {"activation": "linear"}),
        ("insertion", {"fill": "zero"}),
        ("monotonicity", {"fill": "blur"}),
        ("selectivity", {"patch_size": 3}),
        ("selectivity", {"fill": "mean"}),
        ("faithfulness_correlation", {"seed": 1}),
        ("faithfulness_correlation", {"num_subsets": 9}),
        ("faithfulness_correlation", {"subset_size": 2}),
        ("faithfulness_correlation", {"fill": "blur"}),
        ("faithfulness_estimate", {"num_steps": 5}),
        ("faithfulness_estimate", {"step_size": 2}),
        ("faithfulness_estimate", {"fill": "blur"}),
        ("road", {"seed": 1, "noise": 0.1}),
        ("road", {"percentiles": [40]}),
        ("aupc", {"seed": 1}),
        ("aupc", {"num_copies": 2}),
        ("aupc", {"num_regions": 1}),
        ("aupc", {"window": 3}),
    ],
)
def test_every_option_changes_the_curve(name, options, model):
    one = _scores(name, model, IMAGES, MAPS, UNITS, **METRICS[name])
    other = _scores(name, model, IMAGES, MAPS, UNITS, **METRICS[name] | options)
    assert one.curve.shape != other.curve.shape or np.abs(one.curve - other.curve).max() > 1e-5


def test_positions_of_road_have_two_axes():
    with pytest.raises(ValueError, match=r"two axes.*Received: shape \(None, 8, 2\)|\(2, 8, 2\)"):
        ke.metrics.road(_model((8, 2)), np.zeros((2, 8, 2)), np.ones((2, 8, 1)), [0, 1])


def test_maps_of_no_input_are_refused(model):
    with pytest.raises(ValueError, match=r"`maps`.*6, 5, 3, 1"):
        ke.metrics.deletion(model, IMAGES, np.ones((3, 6, 5, 3, 1)), [0, 1, 2])


PASSES = {
    "insertion": 6 * 4,
    "deletion": 6 * 4,
    "pixel_flipping": 6 * 4,
    "selectivity": 6 * 9,
    "monotonicity": 6 * 4,
    "faithfulness_correlation": 6 * 6,
    "faithfulness_estimate": 6 * 4,
    "road": 6 * 2 * 2,
    "aupc": 6 * 2 * 3,
}


@pytest.mark.parametrize("name", METRICS)
def test_passes_are_those_that_are_stated_in_full_chunks(name, model, monkeypatch):
    expected = getattr(ke.metrics, name)(model, IMAGES, MAPS, UNITS, **METRICS[name])
    sizes = []
    call = _perturbing.predictions

    def counted(model, inputs, activation=None):
        sizes.append(len(inputs))
        return call(model, inputs, activation)

    monkeypatch.setattr(_perturbing, "predictions", counted)
    known, options = ke.metrics.registration(name), METRICS[name]
    arguments = ke.inspection.expose(model, ()), *map(tf.constant, (IMAGES, MAPS))
    inputs = _perturbing.explained_inputs(*arguments, tf.constant(UNITS, tf.int32), chunk=10)
    assert sizes == [3]
    known = known.function(inputs, **options)
    del sizes[0]
    assert sum(sizes) == PASSES[name]
    assert max(sizes) <= 10
    # The copies of aupc are in chunks of whole samples, as one region follows from another.
    assert len(sizes) == (2 * 2 if name == "aupc" else -(-PASSES[name] // 10))
    values = inputs.pairs.scores(*known).values
    np.testing.assert_allclose(tf.reshape(values, [-1]), expected, rtol=1e-4, atol=1e-5)
    logits = tf.math.log(inputs.pairs.probabilities)
    _perturbing.explained_inputs(*arguments, tf.constant(UNITS, tf.int32), logits=logits)
    assert sum(sizes) == PASSES[name]


def test_the_units_predicted_most_are_explained_on_request(model):
    best = model(IMAGES).numpy().argmax(-1)
    found = ke.metrics.deletion(model, IMAGES, MAPS[..., :1], "argmax", num_steps=3)
    expected = ke.metrics.deletion(model, IMAGES, MAPS[..., :1], best, num_steps=3)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_steps_do_not_keep_models_alive():
    model = _model()
    ke.metrics.deletion(model, IMAGES, MAPS, UNITS, num_steps=2)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_maps_of_another_number_compile_another_step(model):
    """Ranks, and numbers of maps, are not unknown after calls with others."""
    one = ke.metrics.deletion(model, IMAGES, MAPS[..., :1], UNITS[:, :1], num_steps=2)
    two = ke.metrics.deletion(model, IMAGES, MAPS, UNITS, num_steps=2)
    channels = np.repeat(MAPS[:, :, :, None], 2, 3)
    assert ke.metrics.deletion(model, IMAGES, channels, UNITS, num_steps=2).shape == (6,)
    np.testing.assert_allclose(two[::2], one, atol=1e-6)


@pytest.fixture(scope="module")
def quantus(shared):
    with np.load(shared / "goldens" / "peers.npz") as arrays:
        references = dict(arrays)
    return _network(references), references


def _of_quantus(name, quantus, maps, **options):
    network, references = quantus
    maps = references[f"quantus/{maps}"][..., None]
    return _scores(name, network, references["x"], maps, references["targets"], **options)


def test_pixel_flipping_is_that_of_quantus(quantus):
    found = _of_quantus("pixel_flipping", quantus, "a3", step_size=64)
    expected = quantus[1]["quantus/pixel_flipping"]
    np.testing.assert_allclose(found.curve[:, 0], expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.values[:, 0], expected.mean(1), rtol=1e-5)


def test_faithfulness_estimate_is_that_of_quantus(quantus):
    options = {"step_size": 64, "activation": "linear"}
    found = _of_quantus("faithfulness_estimate", quantus, "a3", **options)
    expected = quantus[1]["quantus/faithfulness_estimate"]
    np.testing.assert_allclose(found.values[:, 0], expected, atol=1e-5)


def test_selectivity_is_that_of_quantus_with_the_unchanged_input_first(quantus):
    found = _of_quantus("selectivity", quantus, "a")
    expected = quantus[1]["quantus/selectivity"]
    np.testing.assert_allclose(found.curve[:, 0, 1:], expected, rtol=1e-5, atol=1e-7)


def test_quantus_finds_everything_monotone_as_it_adds_nothing(quantus):
    assert quantus[1]["quantus/monotonicity_arya"].all()
    black = quantus[0], {**quantus[1], "x": 0 * quantus[1]["x"]}
    assert _of_quantus("monotonicity", black, "a").values.numpy().all()
    assert not _of_quantus("monotonicity", quantus, "a").values.numpy().any()


@pytest.mark.parametrize("name", ["selectivity", "faithfulness_estimate", "road"])
def test_sizes_may_change_from_call_to_call(name):
    inputs = keras.Input((None, None, 2))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    fresh = keras.models.clone_model(model)
    fresh.set_weights(model.get_weights())
    larger = [np.pad(a, ((0, 0), (0, 3), (0, 2), (0, 0)), "reflect") for a in (IMAGES, MAPS)]
    expected = getattr(ke.metrics, name)(fresh, *larger, UNITS, **METRICS[name])
    getattr(ke.metrics, name)(model, IMAGES, MAPS, UNITS, **METRICS[name])
    found = getattr(ke.metrics, name)(model, *larger, UNITS, **METRICS[name])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
