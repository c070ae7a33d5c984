"""Gradients that are the kernel of a head, and units side by side, change no map."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke
from keras_explainable.methods import _activations
from keras_explainable.methods import _units

NAMES = [
    *("gradcam", "hirescam", "gradcam_elementwise", "xgradcam", "layercam", "gradcampp"),
    *("eigen_gradcam", "minmax_gradcam", "d_minmax_gradcam"),
]
SIDE_BY_SIDE = [*(name for name in NAMES if name != "eigen_gradcam"), "d_minmaxcam"]
UNITS = {"one": [[3], [3], [0]], "many": np.tile(np.arange(1, 12), (3, 1)), "all": None}


def _exposed(units=20, activation=None):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((7, 6, 2))
    x = keras.layers.Conv2D(5, 2, activation=activation)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(units, activation="sigmoid")(x))
    return ke.inspection.expose(model)


def _differentiated(exposed):
    """Return a model of which no head is known, so that it is differentiated."""
    return keras.Model(exposed.inputs, exposed.outputs)


X = np.random.default_rng(0).normal(size=(3, 7, 6, 2)).astype("float32")


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_of_a_linear_head_is_its_gradient(name, activation):
    exposed = _exposed(activation=activation)
    method = ke.methods.get(name)
    for indices in UNITS.values():
        logits, maps = method(exposed, X, indices)
        expected = method(_differentiated(exposed), X, indices)
        np.testing.assert_allclose(logits, expected[0], atol=1e-6)
        np.testing.assert_allclose(maps, expected[1], atol=2e-5 * np.abs(expected[1]).max())


def test_grad_cam_plus_plus_normalizes_where_gradients_are_the_same_everywhere():
    exposed = _exposed(activation="relu")
    method = ke.methods.get("gradcampp")
    maps = method(exposed, X, None, normalize_alpha=True)[1]
    expected = method(_differentiated(exposed), X, None, normalize_alpha=True)[1]
    np.testing.assert_allclose(maps, expected, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_chunks_of_units_change_no_map(name, jit_compile, monkeypatch):
    exposed = _exposed()
    method = ke.methods.get(name)
    expected = method(exposed, X)[1]
    # Of 3 samples and 5 kernels, 7 units: the last chunk has 6 of the 20.
    for budget in (1, 4 * 3 * 5 * 7):
        monkeypatch.setattr(_units, "_CHUNK_BUDGET", budget)
        compiled = tf.function(lambda x: method(exposed, x)[1], jit_compile=jit_compile)
        np.testing.assert_allclose(compiled(tf.constant(X)), expected, atol=1e-6)


def test_a_budget_bounds_the_units_side_by_side(monkeypatch):
    sizes, side_by_side = [], tf.vectorized_map

    def noted(explain, chunk):
        sizes.append(chunk.shape[0])
        return side_by_side(explain, chunk)

    monkeypatch.setattr(tf, "vectorized_map", noted)
    monkeypatch.setattr(_units, "_CHUNK_BUDGET", 4 * 2 * 10 * 16)
    logits = tf.zeros((2, 40))
    found = _units.explain_columns(lambda c: tf.cast(c, tf.float32), logits, held=10)
    np.testing.assert_array_equal(found, np.tile(np.arange(40.0), (2, 1)))
    assert sizes == [16] * 3


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_that_groups_of_averages_share_is_differentiated(name):
    inputs = keras.Input((7, 6, 2))
    averages = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 2)(inputs))
    shared, dense = keras.layers.Dense(1, name="shared"), keras.layers.Dense(4)
    scores = shared(keras.layers.Reshape((4, 2))(averages))
    grouped = keras.Model(inputs, keras.layers.Flatten()(scores))
    plain = keras.Model(inputs, dense(averages))
    kernel, bias = shared.get_weights()
    dense.set_weights([np.kron(np.eye(4), kernel), np.tile(bias, 4)])
    method = ke.methods.get(name)
    logits, maps = method(ke.inspection.expose(grouped), X)
    expected = method(ke.inspection.expose(plain), X)
    np.testing.assert_allclose(logits, expected[0], atol=1e-6)
    np.testing.assert_allclose(maps, expected[1], atol=2e-5 * np.abs(expected[1]).max())
    with pytest.raises(ValueError, match=r"kernel of 'shared' is \(2, 1\) in place of \(8, 4\)"):
        ke.cam(grouped, X)


def test_averages_of_masked_sequences_are_differentiated():
    inputs = keras.Input((6, 2))
    x = keras.layers.Masking(0.0)(inputs)
    x = keras.layers.Dense(4)(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(x)))
    sequence = np.random.default_rng(1).normal(size=(1, 6, 2)).astype("float32")
    sequence[:, 3:] = 0
    exposed = ke.inspection.expose(model, model.layers[2].name)
    assert not _activations._averages_linearly(exposed)


def test_nothing_is_differentiated_by_activations_of_a_linear_head():
    exposed = _exposed()
    for model, known in ((exposed, True), (_differentiated(exposed), False)):
        outputs = _activations.Differentiable(model, X)
        (gradient,) = outputs.unit_gradients(tf.constant([1, 2, 3]))
        assert _activations.is_everywhere(gradient) == known
        (other,) = outputs.gradients(tf.one_hot([1, 2, 3], 20))
        np.testing.assert_allclose(gradient, other, atol=1e-7)


def test_maps_have_the_same_bits_whatever_is_known_of_the_batch():
    exposed = _exposed()
    x = np.random.default_rng(2).normal(size=(32, 7, 6, 2)).astype("float32")
    found = []
    for batch in (32, None):
        specification = tf.TensorSpec((batch, 7, 6, 2))
        compiled = tf.function(lambda x: ke.methods.gradcam(exposed, x, 3)[1], [specification])
        found.append(compiled(x).numpy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [*((name, True) for name in SIDE_BY_SIDE), ("eigen_gradcam", False), ("zoomcam", False)],
)
def test_units_are_side_by_side_unless_one_holds_more_than_kernels(name, expected, monkeypatch):
    used, side_by_side = [], tf.vectorized_map
    monkeypatch.setattr(tf, "vectorized_map", lambda f, c: used.append(1) or side_by_side(f, c))
    ke.methods.get(name)(_exposed(), tf.constant(X))
    assert bool(used) == expected
