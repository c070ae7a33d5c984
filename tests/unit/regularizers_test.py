"""Penalties of kernels, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke

KERNEL = np.random.default_rng(0).normal(0, 1, (6, 4))


def softmax(rows):
    shares = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def oracle(kernel, l, temperature=0.1, absolute=False, form="unused"):  # noqa: E741
    rows = kernel.reshape(-1, kernel.shape[-1])
    compared = np.abs(rows) if absolute or form == "entropy" else rows
    shares = softmax(compared / temperature)
    if form == "entropy":
        return -l * sum(p * np.log(p) for p in shares.ravel() if p > 1e-30)
    return l * np.square(rows * (1 - shares)).sum()


def oracle_gradient(kernel, l, temperature=0.1, absolute=False, form="unused"):  # noqa: E741
    """Differentiate the penalty, entry by entry, through the shares and beside them."""
    rows = kernel.reshape(-1, kernel.shape[-1]).astype("float64")
    by_magnitude = absolute or form == "entropy"
    found = np.zeros_like(rows)
    for k, row in enumerate(rows):
        shares = softmax((np.abs(row) if by_magnitude else row) / temperature)
        signs = np.sign(row) if by_magnitude else np.ones_like(row)
        if form == "entropy":
            entropy = -(shares * np.log(shares)).sum()
            found[k] = -l * signs * shares * (np.log(shares) + entropy) / temperature
            continue
        for u in range(len(row)):
            for n in range(len(row)):
                share = shares[n] * ((u == n) - shares[u]) * signs[u] / temperature
                unused = (u == n) * (1 - shares[n]) - row[n] * share
                found[k, u] += 2 * l * row[n] * (1 - shares[n]) * unused
    return found.reshape(kernel.shape)


OPTIONS = [
    {"l": 0.5},
    {"l": 2.0, "temperature": 1.0},
    {"l": 1.0, "absolute": True},
    {"l": 1.0, "form": "entropy", "temperature": 0.7},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(6, 4), (1, 2, 3, 4)])
def test_values_and_gradients_are_those_of_the_equation(options, shape):
    kernel = KERNEL.reshape(shape)
    penalty = ke.regularizers.KernelUsage(**options)
    variable = tf.Variable(kernel, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = penalty(variable)
    np.testing.assert_allclose(value, oracle(kernel, **options), rtol=1e-5)
    found = np.asarray(tape.gradient(value, variable))
    expected = oracle_gradient(variable.numpy(), **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_strong_weights_that_are_not_the_largest_are_penalized_in_full():
    # What the documentation says of limits.
    penalty = ke.regularizers.KernelUsage(1.0)
    assert float(penalty(np.array([[-3.0, 1.0]], "float32"))) == pytest.approx(9)
    assert float(penalty(np.array([[2.0, 2.0]], "float32"))) == pytest.approx(1 + 1)
    by_magnitude = ke.regularizers.KernelUsage(1.0, absolute=True)
    assert float(by_magnitude(np.array([[-3.0, 1.0]], "float32"))) == pytest.approx(1)


def test_equal_magnitudes_have_the_largest_entropy_and_no_gradient():
    penalty = ke.regularizers.KernelUsage(1.0, 0.5, form="entropy")
    kernel = tf.Variable([[0.3, -0.3, 0.3, -0.3]])
    with tf.GradientTape() as tape:
        value = penalty(kernel)
    assert float(value) == pytest.approx(np.log(4))
    np.testing.assert_allclose(tape.gradient(value, kernel), np.zeros((1, 4)), atol=1e-7)
    grown = [float(penalty(factor * KERNEL.astype("float32"))) for factor in (1, 2, 4)]
    assert grown == sorted(grown, reverse=True)


def test_gradients_of_units_with_much_in_common_are_those_of_the_equation():
    variable = tf.Variable(KERNEL.reshape(1, 2, 3, 4), dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = ke.regularizers.Orthogonal(3.0)(variable)
    rows = variable.numpy().reshape(6, 4).astype("float64")
    expected = 4 * 3 / 16 * rows @ (rows.T @ rows - np.eye(4))
    found = np.asarray(tape.gradient(value, variable)).reshape(6, 4)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_more_units_than_kernels_are_never_orthogonal():
    wide = np.linalg.qr(KERNEL)[0].T.astype("float32")
    assert float(ke.regularizers.Orthogonal(1.0)(wide)) == pytest.approx(2 / 36)


def test_rows_with_one_winner_cost_nothing():
    winners = 50 * np.eye(4, dtype="float32")
    for form in ("unused", "entropy"):
        penalty = ke.regularizers.KernelUsage(1.0, form=form)
        assert float(penalty(winners)) == pytest.approx(0, abs=1e-6)
        assert float(penalty(KERNEL.astype("float32"))) > 0.01


def test_near_zero_it_is_an_l2_penalty():
    kernel = 1e-3 * KERNEL
    value = float(ke.regularizers.KernelUsage(1.0, temperature=100.0)(kernel.astype("float32")))
    assert value == pytest.approx((3 / 4) ** 2 * np.square(kernel).sum(), rel=1e-3)


def test_orthogonal_units_of_length_one_cost_nothing():
    basis = np.linalg.qr(KERNEL)[0].astype("float32")
    penalty = ke.regularizers.Orthogonal(3.0)
    assert float(penalty(basis)) == pytest.approx(0, abs=1e-6)
    product = KERNEL.T @ KERNEL - np.eye(4)
    expected = 3 * np.square(product).mean()
    assert float(penalty(KERNEL.astype("float32"))) == pytest.approx(expected, rel=1e-5)
    convolution = KERNEL.reshape(1, 2, 3, 4).astype("float32")
    assert float(penalty(convolution)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "penalty",
    [ke.regularizers.KernelUsage(0.2, 0.3, True, "entropy"), ke.regularizers.Orthogonal(2)],
)
def test_penalties_are_serialized_and_found_by_name(penalty, tmp_path):
    again = keras.regularizers.deserialize(keras.regularizers.serialize(penalty))
    assert type(again) is type(penalty)
    assert again.get_config() == penalty.get_config()
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, kernel_regularizer=penalty)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.losses, model.losses)
    assert float(model.losses[0]) > 0
    names = {"KernelUsage": "kernel_usage", "Orthogonal": "orthogonal"}
    assert type(ke.regularizers.get(names[type(penalty).__name__])) is type(penalty)
    assert ke.regularizers.get(penalty) is penalty
    assert ke.regularizers.get("l2").get_config() == keras.regularizers.get("l2").get_config()
    assert ke.regularizers.get(None) is None


@pytest.mark.parametrize("name", ["kernel_usage", "orthogonal"])
def test_layers_take_what_is_found_by_name(name):
    penalty = ke.regularizers.get(name)
    for given in (penalty, keras.regularizers.serialize(penalty)):
        taken = keras.layers.Dense(3, kernel_regularizer=given).kernel_regularizer
        assert type(taken) is type(penalty)
        assert taken.get_config() == penalty.get_config()
    with pytest.raises(ValueError, match=name):
        keras.layers.Dense(3, kernel_regularizer=name)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"l": -1}, ValueError, "`l`.*Received: -1"),
        ({"temperature": 0}, ValueError, "`temperature`.*Received: 0"),
        ({"form": "square"}, ValueError, "`form`.*Received: 'square'"),
        ({"absolute": "no"}, TypeError, "`absolute`.*Received: 'no'"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ke.regularizers.KernelUsage(**options)
