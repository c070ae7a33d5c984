"""Metrics of human fixations: exact values, slow oracles, and what they refuse."""

import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke

NAMES = ke.metrics.names("fixations")
RNG = np.random.default_rng(3)
# Values that tie, and counts of fixations above one.
MAPS = (RNG.integers(0, 6, (3, 5, 6, 2)) / 4 - 0.5).astype("float32")
FIXATIONS = RNG.choice([0, 1, 2], (3, 5, 6), p=[0.7, 0.2, 0.1])


def _nss(row, fixations):
    standard = (row - row.mean()) / row.std()
    return np.repeat(standard, fixations).mean()


def _auc_judd(row, fixations):
    fixated = fixations > 0
    points = [(0, 0)]
    for threshold in sorted(set(row[fixated]), reverse=True):
        points.append(((row[~fixated] >= threshold).mean(), (row[fixated] >= threshold).mean()))
    (x, y) = np.transpose([*points, (1, 1)])
    return (np.diff(x) * (y[1:] + y[:-1]) / 2).sum()


def _correlation(row, fixations):
    return np.corrcoef(row, fixations)[0, 1]


ORACLES = {
    "normalized_scanpath_saliency": _nss,
    "auc_judd": _auc_judd,
    "fixation_correlation": _correlation,
}


def test_every_metric_has_an_oracle():
    assert sorted(ORACLES) == [*NAMES]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("positions", [(5, 6), (30,), (5, 2, 3)])
def test_values_are_those_of_an_oracle(name, positions):
    maps = MAPS.reshape(3, *positions, 2)
    fixations = FIXATIONS.reshape(3, *positions)
    found, weights = getattr(ke.metrics, name)(maps, fixations, return_weights=True)
    expected = np.zeros((3, 2))
    for sample, unit in np.ndindex(3, 2):
        row = MAPS[sample, :, :, unit].ravel().astype(float)
        expected[sample, unit] = ORACLES[name](row, FIXATIONS[sample].ravel())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert weights.all()
    np.testing.assert_allclose(getattr(ke.metrics, name)(maps, fixations[..., None]), found)


@pytest.mark.parametrize("name", NAMES)
def test_values_do_not_depend_on_the_scale_of_maps(name):
    compute = getattr(ke.metrics, name)
    for scaled in (MAPS * 1e30, MAPS * 1e-30, MAPS * 0.5 + 2):
        np.testing.assert_allclose(compute(scaled, FIXATIONS), compute(MAPS, FIXATIONS), atol=1e-5)


def test_maps_that_are_the_fixations_are_the_best():
    maps, fixations = np.zeros((1, 4, 4, 1)), np.zeros((1, 4, 4))
    maps[0, 1, 1:3] = fixations[0, 1, 1:3] = 1
    assert ke.metrics.auc_judd(maps, fixations) == 1
    assert ke.metrics.auc_judd(-maps, fixations) == 0.5
    assert ke.metrics.fixation_correlation(maps, fixations) == pytest.approx(1, abs=1e-6)
    assert ke.metrics.fixation_correlation(-maps, fixations) == pytest.approx(-1, abs=1e-6)
    # The standard deviation of a share 1/8 of ones is the square root of 7/64.
    expected = pytest.approx(np.sqrt(7), abs=1e-5)
    assert ke.metrics.normalized_scanpath_saliency(maps, fixations) == expected


def test_constant_maps_are_at_chance_or_undefined():
    maps = np.full((3, 5, 6, 2), 0.1, "float32")
    values, weights = ke.metrics.auc_judd(maps, FIXATIONS, return_weights=True)
    np.testing.assert_allclose(values, 0.5, atol=1e-6)
    assert weights.all()
    for name in ("normalized_scanpath_saliency", "fixation_correlation"):
        values, weights = getattr(ke.metrics, name)(maps, FIXATIONS, return_weights=True)
        assert not values.any()
        assert not weights.any()


@pytest.mark.parametrize("name", NAMES)
def test_samples_without_fixations_are_left_out(name):
    fixations = FIXATIONS.copy()
    fixations[1] = 0
    compute = getattr(ke.metrics, name)
    values, weights = compute(MAPS, fixations, return_weights=True)
    np.testing.assert_array_equal(weights, [[1, 1], [0, 0], [1, 1]])
    np.testing.assert_allclose(values[[0, 2]], compute(MAPS[[0, 2]], FIXATIONS[[0, 2]]), atol=1e-6)
    assert not values[1].any()
    metric = ke.metrics.get(name)
    metric.update_state(MAPS, fixations)
    np.testing.assert_allclose(metric.result(), values[[0, 2]].mean(), atol=1e-6)


def test_auc_is_undefined_where_people_look_everywhere():
    _, weights = ke.metrics.auc_judd(MAPS, np.ones((3, 5, 6)), return_weights=True)
    assert not weights.any()


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_taken_by_units(name):
    compute = getattr(ke.metrics, name)
    indices = np.array([1, 0, 1])
    expected = compute(MAPS, FIXATIONS)[np.arange(3), indices][:, None]
    np.testing.assert_allclose(compute(MAPS, FIXATIONS, indices), expected, atol=1e-6)
    taken = np.take_along_axis(MAPS, indices[:, None, None, None], -1)
    np.testing.assert_allclose(compute(taken, FIXATIONS, indices), expected, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_values_are_those_of_eager_mode(name):
    function = ke.metrics.registration(name).function
    compute = tf.function(lambda m, f: function(m, f).values, jit_compile=True)
    found = compute(tf.constant(MAPS), tf.constant(FIXATIONS, tf.float32))
    np.testing.assert_allclose(found, getattr(ke.metrics, name)(MAPS, FIXATIONS), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("maps", "fixations", "received"),
    [
        (MAPS, FIXATIONS[:, 1:], r"shape \(3, 4, 6\)"),
        (MAPS, FIXATIONS[1:], r"shape \(2, 5, 6\)"),
        (MAPS, np.stack([FIXATIONS] * 2, -1), r"shape \(3, 5, 6, 2\)"),
        (MAPS, FIXATIONS - 1, "-1.0"),
        (MAPS, np.where(FIXATIONS, np.nan, 0), "nan"),
        (MAPS + np.inf, FIXATIONS, "NaN or infinity"),
    ],
)
def test_wrong_fixations_and_maps_are_refused(name, maps, fixations, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        getattr(ke.metrics, name)(maps, fixations)
