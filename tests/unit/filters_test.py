import re

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


def _linear(size, target):
    """Return the matrix `(target, size)` that resizes one axis, a row of weights per new cell."""
    matrix = np.zeros((target, size))
    for i in range(target):
        place = np.clip((i + 0.5) * size / target - 0.5, 0, size - 1)
        below = min(int(place), size - 2) if size > 1 else 0
        matrix[i, below] += 1 - (place - below)
        matrix[i, min(below + 1, size - 1)] += place - below
    return matrix


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((5,), (13,)),
        ((13,), (5,)),
        ((3, 4), (7, 6)),
        ((2, 3, 4), (5, 9, 6)),
        ((7, 6, 5), (3, 4, 2)),
        ((4, 7, 1), (9, 3, 1)),
        ((1, 5, 3), (3, 5, 3)),
        ((2, 3, 2, 3), (4, 3, 1, 5)),
    ],
)
def test_each_axis_is_resized_linearly_with_half_pixel_centres(old, new):
    maps = np.random.default_rng(0).normal(size=(2, *old, 3)).astype("float32")
    expected = maps.astype("float64")
    for axis, (size, target) in enumerate(zip(old, new, strict=True), start=1):
        resized = np.tensordot(_linear(size, target), expected, axes=(1, axis))
        expected = np.moveaxis(resized, 0, axis)
    np.testing.assert_allclose(filters.resize(maps, new), expected, atol=1e-5)


@pytest.mark.parametrize("new", [(5, 9, 6), (3, 3, 8)])
def test_volumes_are_enlarged_as_scipy_does_it_on_a_grid_of_cells(new):
    scipy = pytest.importorskip("scipy.ndimage")
    volume = np.random.default_rng(0).normal(size=(3, 3, 4))
    factors = [target / size for target, size in zip(new, volume.shape, strict=True)]
    expected = scipy.zoom(volume, factors, order=1, mode="nearest", grid_mode=True)
    resized = filters.resize(volume[None, ..., None].astype("float32"), new)
    np.testing.assert_allclose(resized[0, ..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_volumes_of_sizes_known_when_they_come_are_resized(jit_compile):
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 2, 3)).astype("float32")

    def resize(maps, like):
        return filters.resize(maps, [tf.shape(like)[axis] for axis in (1, 2, 3)])

    signature = [tf.TensorSpec((None, None, None, None, None))] * 2
    compiled = tf.function(resize, signature, jit_compile=jit_compile)
    expected = filters.resize(maps, (6, 3, 5))
    np.testing.assert_allclose(compiled(maps, np.zeros((1, 6, 3, 5, 1))), expected, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_resized_maps_are_float32(dtype, rank):
    maps = tf.cast(tf.reshape(tf.range(2**rank), (1, *[2] * rank, 1)), dtype)
    for size in (2, 3):
        assert filters.resize(maps, (size,) * rank).dtype == tf.float32


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`resizing`.*\(1, 2, 2, 2\).*Received: \(8,\)"):
        filters.resize(tf.constant(MAPS), (8,))
    with pytest.raises(ValueError, match=r"`resizing`.*\(2, 3\).*Received: \(\)"):
        filters.resize(tf.zeros((2, 3)), ())


@pytest.mark.parametrize(
    "sizes", [8, 3.5, None, "ab", (8, 3.5), (8, 0), (8, True), (8, None)], ids=repr
)
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ValueError, match=rf"`resizing`.*Received: {re.escape(repr(sizes))}"):
        filters.resize(tf.constant(MAPS), sizes)


@pytest.mark.parametrize(
    "sizes", [[3, 4], np.array([3, 4]), tf.constant([3, 4]), tf.TensorShape([3, 4])], ids=repr
)
def test_sizes_come_in_any_sequence(sizes):
    expected = filters.resize(tf.constant(MAPS), (3, 4))
    np.testing.assert_array_equal(filters.resize(tf.constant(MAPS), sizes), expected)
