import numpy as np
import pytest
import tensorflow as tf

from keras_explainable import filters

MAPS = np.array([[-2.0, 0.0], [1.0, 3.0]], "float32")[None, ..., None] * [1.0, -2.0]
ORACLES = {
    "positive": lambda m: m * (m > 0),
    "negative": lambda m: m * (m < 0),
    "absolute": np.abs,
    "normalize": lambda m: (m - m.min()) / (m.max() - m.min()),
    "positive_normalize": lambda m: m * (m > 0) / m.max(),
    "negative_normalize": lambda m: -m * (m < 0) / -m.min(),
    "absolute_normalize": lambda m: np.abs(m) / np.abs(m).max(),
    "signed_normalize": lambda m: m / np.abs(m).max(),
    "percentile_normalize": lambda m: _percentile_normalize(m, 99),
    "threshold": lambda m: m * (m >= 0.2 * m.max()) * (m > 0),
}


def _percentile_normalize(m, percentile):
    low, high = np.abs(m).min(), np.percentile(np.abs(m), percentile)
    return np.clip((np.abs(m) - low) / (high - low), 0, 1)


def test_every_filter_has_an_oracle():
    assert set(ORACLES) == set(filters.FILTERS)


@pytest.mark.parametrize("name", ORACLES)
def test_filters_treat_every_map_by_itself(name):
    filtered = filters.get(name)(tf.constant(MAPS, tf.float32)).numpy()
    for unit in range(2):
        np.testing.assert_allclose(filtered[0, ..., unit], ORACLES[name](MAPS[0, ..., unit]))


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_constant_maps_stay_finite(name, value):
    filtered = filters.get(name)(tf.fill((1, 2, 2, 1), value)).numpy()
    assert np.isfinite(filtered).all()
    if name.endswith("normalize") and name != "signed_normalize":
        assert (filtered == 0).all()


@pytest.mark.parametrize("name", ORACLES)
def test_filters_take_any_number_of_positions(name):
    flat = filters.get(name)(tf.constant(MAPS.reshape(1, 4, 2), tf.float32))
    square = filters.get(name)(tf.constant(MAPS, tf.float32))
    np.testing.assert_allclose(flat, tf.reshape(square, (1, 4, 2)))


@pytest.mark.parametrize("name", ORACLES)
def test_filters_take_arrays(name):
    maps = MAPS.astype("float32")
    np.testing.assert_allclose(filters.get(name)(maps), filters.get(name)(tf.constant(maps)))
    assert filters.resize(maps, (4, 4)).shape == (1, 4, 4, 2)


@pytest.mark.parametrize("percentile", [0, 30, 50, 99.5, 100])
def test_the_percentile_that_becomes_one_is_chosen(percentile):
    maps = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype("float32")
    filtered = filters.percentile_normalize(maps, percentile).numpy()
    for i, u in np.ndindex(2, 3):
        one = maps[i, ..., u].astype("float64")
        expected = _percentile_normalize(one, percentile) if percentile else np.zeros((5, 7))
        np.testing.assert_allclose(filtered[i, ..., u], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "int32"])
def test_percentiles_of_other_dtypes_are_exact(dtype):
    maps = np.arange(300 * 300).reshape(1, 300, 300, 1) % 1999
    filtered = np.asarray(filters.percentile_normalize(maps.astype(dtype)), "float32")
    expected = _percentile_normalize(maps.astype("float64"), 99)
    np.testing.assert_allclose(filtered, expected, atol=1e-3)


def test_a_percentile_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`percentile`.*101"):
        filters.percentile_normalize(MAPS, 101)


def test_the_share_of_the_maximum_that_is_kept_is_chosen():
    maps = np.array([1.0, 2.0, 3.0, 4.0, -4.0], "float32").reshape(1, 5, 1)
    assert filters.threshold(maps, 0.5).numpy().ravel().tolist() == [0, 2, 3, 4, 0]
    assert filters.threshold(maps, 0).numpy().ravel().tolist() == [1, 2, 3, 4, 0]


def test_signals_are_resized_like_images_of_one_row():
    maps = tf.constant(MAPS[:, 0], tf.float32)
    resized = filters.resize(maps, (8,))
    np.testing.assert_allclose(resized, tf.image.resize(maps[:, None], (1, 8))[:, 0])


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`resizing`.*\(1, 2, 2, 2\).*Received: \(8,\)"):
        filters.resize(tf.constant(MAPS), (8,))
