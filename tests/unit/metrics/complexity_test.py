"""Metrics of complexity on maps whose values are known by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke
from keras_explainable.metrics import _registry

NAMES = ke.metrics.names("complexity")


def _maps(*values):
    """Return maps `(maps, positions, 1)` of signals."""
    return np.array(values, "float32")[..., None]


def _one(name, values, **options):
    return float(getattr(ke.metrics, name)(_maps(values), **options)[0, 0])


def _noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_these_are_the_metrics_of_complexity():
    expected = ["area_under_total_variation", "complexity", "effective_complexity", "sparseness"]
    assert list(NAMES) == expected
    better = {n: ke.metrics.registration(n).higher_is_better for n in NAMES}
    assert better == {n: n == "sparseness" for n in NAMES}


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("sparseness", [0, 0, 0, 5], 3 / 4),
        ("sparseness", [2, 2, 2, 2], 0),
        ("sparseness", [3, 1, -4, 2], 2.5 / 10),  # (-3·1 - 1·2 + 1·3 + 3·4) / (4 · 10)
        ("complexity", [0, 7, 0, 0], 0),
        ("complexity", [2, -2, 2, 2], np.log(4)),
        ("complexity", [1, 0, -1, 2], 1.5 * np.log(2)),  # Shares 1/4, 0, 1/4, 1/2.
        ("effective_complexity", [0, -7, 1e-3, 1e-6], 2),
        ("effective_complexity", [1, 1, 1, 1], 4),
        ("area_under_total_variation", [0, 1, 0, -1], 3 / 4),  # Magnitudes 0, 1, 0, 1.
        ("area_under_total_variation", [5, 5, 6, 6], 1 / 4),
    ],
)
def test_value_is_that_computed_by_hand(name, values, expected):
    assert _one(name, values) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_neither_scale_nor_sign_matters(name):
    values = _noise(12)
    wanted = pytest.approx(_one(name, values), rel=1e-4)
    assert _one(name, -values) == wanted
    assert _one(name, 1e25 * values) == wanted
    assert _one(name, 1e-25 * values) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_map_of_zeros_has_no_value(name):
    maps = np.concatenate([_noise(1, 4, 4, 2), np.zeros((1, 4, 4, 2), "float32")])
    values, weights = getattr(ke.metrics, name)(maps, return_weights=True)
    np.testing.assert_array_equal(weights, [[1, 1], [0, 0]])
    np.testing.assert_array_equal(values[1], 0)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("values", [[3, 3, 3, 3], [3, -3, 3, 3], [0] * 199 + [1]])
def test_map_that_can_not_be_stretched_has_no_total_variation(values):
    found = ke.metrics.area_under_total_variation(_maps(values), return_weights=True)
    assert [part.item() for part in found] == [0, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sizes", [(9,), (3, 4), (2, 3, 4)])
def test_maps_of_any_rank_are_scored_one_by_one(name, sizes):
    maps = _noise(3, *sizes, 2)
    found = getattr(ke.metrics, name)(maps)
    assert found.shape == (3, 2)
    for sample in range(3):
        for unit in range(2):
            alone = getattr(ke.metrics, name)(maps[sample, ..., unit][None, ..., None])
            assert found[sample, unit] == pytest.approx(alone.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_metric_is_the_same(name):
    maps = _noise(2, 5, 6, 3)
    expected = getattr(ke.metrics, name)(maps)
    for jit_compile in (False, True):
        run = tf.function(_registry.registration(name).function, jit_compile=jit_compile)
        np.testing.assert_allclose(run(tf.constant(maps)).values, expected, rtol=1e-5)


def test_higher_threshold_counts_less():
    counts = [_one("effective_complexity", [1, 2, 3, 4], threshold=t) for t in (0, 0.3, 0.5, 0.9)]
    assert counts == [4, 3, 2, 1]


def test_curve_is_the_total_variation_of_every_level():
    maps = tf.constant(_noise(1, 72, 72, 2))
    function = _registry.registration("area_under_total_variation").function
    scores = function(maps)
    curve = scores.curve.numpy()
    assert curve.shape == (1, 2, 3)  # 72, 48 and 32 positions.
    np.testing.assert_allclose(scores.values, curve @ [1 / 3, 4 / 3, 1 / 3], rtol=1e-5)
    np.testing.assert_allclose(function(maps, normalize=True).values, scores.values / 2, rtol=1e-6)
    stretched = ke.filters.percentile_normalize(maps).numpy()
    differences = [np.abs(np.diff(stretched, axis=axis)).sum((1, 2)) for axis in (1, 2)]
    np.testing.assert_allclose(curve[..., 0], sum(differences) / 72**2, rtol=1e-5)


def test_smooth_map_has_less_variation_than_noise():
    noise = _noise(1, 40, 40, 1)
    smooth = ke.filters.resize(noise[:, :4, :4], (40, 40)).numpy()
    values = [ke.metrics.area_under_total_variation(m).item() for m in (smooth, noise)]
    assert values[0] < values[1] / 4


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("effective_complexity", {"threshold": 1}, "`threshold`.*Received: 1"),
        ("effective_complexity", {"threshold": -0.1}, "`threshold`.*Received: -0.1"),
        ("area_under_total_variation", {"normalize": "yes"}, "`normalize`.*Received: 'yes'"),
    ],
)
def test_bad_options_are_refused(name, options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        getattr(ke.metrics, name)(_noise(1, 4, 4, 1), **options)


def test_class_gathers_batches_and_leaves_out_maps_of_zeros():
    maps = np.concatenate([_noise(3, 4, 4, 1), np.zeros((1, 4, 4, 1), "float32")])
    for name in NAMES:
        metric = ke.metrics.get(name)
        metric.update_state(maps[:1])
        metric.update_state(maps[1:])
        expected = getattr(ke.metrics, name)(maps[:3]).mean()
        assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
        assert type(again) is type(metric)


@pytest.fixture(scope="module")
def quantus(shared):
    return dict(np.load(shared / "goldens" / "peers.npz"))


@pytest.mark.parametrize("name", ["sparseness", "complexity"])
def test_values_are_those_of_quantus(name, quantus):
    found = getattr(ke.metrics, name)(quantus["quantus/a"][..., None])[:, 0]
    np.testing.assert_allclose(found, quantus[f"quantus/{name}"], rtol=1e-5)


def test_quantus_counts_from_a_share_of_the_highest_value_of_the_batch(quantus):
    maps = quantus["quantus/a"]
    highest = np.abs(maps).max((1, 2))
    for index, count in enumerate(quantus["quantus/effective_complexity"]):
        options = {"threshold": float(0.05 * highest.max() / highest[index])}
        found = ke.metrics.effective_complexity(maps[index][None, ..., None], **options)
        assert found.item() == count
