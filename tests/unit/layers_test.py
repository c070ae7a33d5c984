"""Layers of kernel usage, against NumPy, and in the places that plain layers have."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from tests.conftest import two_replicas

UNITS = 4
OPTIONS = [{}, {"alpha": 1.0}, {"temperature": 0.3}, {"absolute": True, "alpha": 2.0}]


def oracle(kernel, alpha=None, temperature=1.0, absolute=False):
    """Return the effective kernel, row by row."""
    rows = kernel.reshape(-1, kernel.shape[-1]).astype("float64")
    used = []
    for row in rows:
        compared = np.abs(row) if absolute else row
        shares = np.exp((compared - compared.max()) / temperature)
        used.append(row * shares / shares.sum())
    alpha = kernel.shape[-1] if alpha is None else alpha
    return alpha * np.stack(used).reshape(kernel.shape)


def oracle_gradient(kernel, upstream, alpha=None, temperature=1.0, absolute=False):
    """Return the derivative by the kernel, entry by entry, of that by the effective kernel.

    With shares s, the effective weight of unit n has the derivative by the weight of unit u
    α ([u = n] s_n + w_n s_n ([u = n] − s_u) c_u / τ), where c is the sign of weights whose
    magnitudes are compared, and 1 otherwise.
    """
    alpha = kernel.shape[-1] if alpha is None else alpha
    rows = kernel.reshape(-1, kernel.shape[-1]).astype("float64")
    found = np.zeros_like(rows)
    for k, (row, above) in enumerate(zip(rows, upstream.reshape(rows.shape), strict=True)):
        compared = np.abs(row) if absolute else row
        shares = np.exp((compared - compared.max()) / temperature)
        shares /= shares.sum()
        signs = np.sign(row) if absolute else np.ones_like(row)
        for u in range(len(row)):
            for n in range(len(row)):
                factor = row[n] * shares[n] * ((u == n) - shares[u]) * signs[u] / temperature
                found[k, u] += above[n] * alpha * ((u == n) * shares[n] + factor)
    return found.reshape(kernel.shape)


def dense(**options):
    layer = ke.layers.KernelUsageDense(UNITS, **options)
    layer.build((None, 6))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(0, 1, w.shape) for w in layer.weights])
    return layer


def classifier(head, policy=None):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="features", dtype=policy)(inputs)
    x = layers.GlobalAveragePooling2D(dtype=policy)(x)
    return keras.Model(inputs, head(x))


@pytest.mark.parametrize("options", OPTIONS)
def test_a_dense_layer_multiplies_by_the_effective_kernel(options):
    layer = dense(**options, activation="sigmoid")
    x = np.random.default_rng(1).normal(size=(3, 6))
    kernel, bias = layer.get_weights()
    used = oracle(kernel, **options)
    np.testing.assert_allclose(layer.effective_kernel, used, rtol=1e-5, atol=1e-6)
    expected = 1 / (1 + np.exp(-(x @ used + bias)))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("size", [1, 3])
def test_a_convolution_takes_the_effective_kernel(options, size):
    layer = ke.layers.KernelUsageConv2D(UNITS, size, 1, "same", **options)
    plain = layers.Conv2D(UNITS, size, padding="same")
    x = np.random.default_rng(1).normal(size=(2, 5, 5, 3)).astype("float32")
    layer(x), plain(x)
    kernel, bias = (np.random.default_rng(2).normal(size=w.shape) for w in layer.weights)
    layer.set_weights([kernel, bias])
    plain.set_weights([oracle(kernel, **options), bias])
    np.testing.assert_allclose(layer.effective_kernel, plain.kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_go_through_both_factors(options):
    layer = dense(**options, use_bias=False)
    x = np.random.default_rng(1).normal(size=(3, 6))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(x)))
    found = tape.gradient(loss, layer.trainable_variables[0]).numpy()
    kernel = layer.get_weights()[0]
    used = oracle(kernel, **options)
    np.testing.assert_allclose(loss, np.square(x @ used).sum(), rtol=1e-5)
    expected = oracle_gradient(kernel, 2 * x.T @ (x @ used), **options)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_of_a_convolution_go_through_both_factors(options):
    layer = ke.layers.KernelUsageConv2D(UNITS, 3, groups=2, use_bias=False, **options)
    x = np.random.default_rng(1).normal(size=(2, 3, 3, 6)).astype("float32")
    layer.build(x.shape)
    layer.set_weights([np.random.default_rng(2).normal(size=layer.kernel.shape)])
    weights = np.random.default_rng(3).normal(size=(2, UNITS))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x)[:, 0, 0] * weights.astype("float32"))
    found = tape.gradient(loss, layer.trainable_variables[0]).numpy()
    expected = []
    for group in range(2):
        channels, units = slice(3 * group, 3 * group + 3), slice(2 * group, 2 * group + 2)
        upstream = np.einsum("bhwk,bu->hwku", x[..., channels].astype("float64"), weights[:, units])
        kernel = layer.get_weights()[0][..., units]
        expected.append(oracle_gradient(kernel, upstream, **options))
    expected = np.concatenate(expected, -1)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def test_the_default_keeps_the_scale_of_a_new_kernel():
    keras.utils.set_random_seed(0)
    layer = ke.layers.KernelUsageDense(20)
    layer.build((None, 512))
    ratio = np.linalg.norm(layer.effective_kernel) / np.linalg.norm(layer.kernel)
    assert ratio == pytest.approx(1, abs=0.1)
    published = ke.layers.KernelUsageDense.from_config({**layer.get_config(), "alpha": 1.0})
    published.build((None, 512))
    published.set_weights(layer.get_weights())
    ratio = np.linalg.norm(published.effective_kernel) / np.linalg.norm(layer.kernel)
    assert ratio == pytest.approx(1 / 20, abs=0.01)


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_models_are_saved_cloned_and_loaded(kind, tmp_path):
    head = {
        "dense": lambda: ke.layers.KernelUsageDense(
            UNITS, "sigmoid", temperature=0.5, kernel_regularizer="l2", name="head"
        ),
        "convolution": lambda: ke.layers.KernelUsageConv2D(
            UNITS, 1, absolute=True, alpha=3.0, use_bias=False, name="head"
        ),
    }[kind]()
    if kind == "dense":
        model = classifier(head)
    else:
        inputs = keras.Input((6, 6, 3))
        x = layers.Conv2D(5, 3, activation="relu")(inputs)
        model = keras.Model(inputs, layers.GlobalAveragePooling2D()(head(x)))
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype("float32")
    expected = model(x).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    for other in (loaded, cloned):
        assert other.get_layer("head").get_config() == model.get_layer("head").get_config()
        np.testing.assert_allclose(other(x), expected, rtol=1e-6)
        np.testing.assert_allclose(sum(other.losses), sum(model.losses))


@pytest.mark.parametrize("method", ["cam", "minmaxcam", "gradcam", "lrp"])
def test_methods_read_the_effective_kernel(method):
    model = classifier(ke.layers.KernelUsageDense(UNITS, "sigmoid", temperature=0.2, name="head"))
    head = model.get_layer("head")
    plain = classifier(layers.Dense(UNITS, "sigmoid"))
    kernel, bias = head.get_weights()
    plain.set_weights([*model.get_weights()[:2], oracle(kernel, temperature=0.2), bias])
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype("float32")
    found = ke.explain(method, model, x, postprocessing=None)
    expected = ke.explain(method, plain, x, postprocessing=None)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def fit(head, run_eagerly=False, jit_compile=False, policy=None, strategy=None):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6, 6, 3)).astype("float32")
    y = (rng.uniform(size=(32, UNITS)) > 0.5).astype("float32")
    with (strategy or tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(5)
        model = classifier(head(), policy)
        options = {"run_eagerly": run_eagerly, "jit_compile": jit_compile}
        model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", **options)
    fitted = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return np.asarray(fitted.history["loss"])


@pytest.mark.parametrize("mode", ["eager", "xla", "mixed_float16", "replicas"])
def test_fitting_is_the_same_in_every_mode(mode):
    def head():
        policy = mode if mode == "mixed_float16" else None
        penalty = ke.regularizers.KernelUsage(0.01)
        return ke.layers.KernelUsageDense(
            UNITS, "sigmoid", kernel_regularizer=penalty, dtype=policy
        )

    def reference():
        return ke.layers.KernelUsageDense(
            UNITS, "sigmoid", kernel_regularizer=ke.regularizers.KernelUsage(0.01)
        )

    options = {
        "eager": {"run_eagerly": True},
        "xla": {"jit_compile": True},
        "mixed_float16": {"policy": "mixed_float16"},
        "replicas": {"strategy": two_replicas()},
    }[mode]
    if mode == "replicas":
        curves = [fit(lambda: layers.Dense(UNITS, "sigmoid"), **o) for o in (options, {})]
        if not np.allclose(*curves, rtol=1e-4):
            pytest.skip("this version of Keras reports another loss on replicas for any head")
    tolerance = 5e-3 if mode == "mixed_float16" else 1e-4
    np.testing.assert_allclose(fit(head, **options), fit(reference), rtol=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("temperature", [1e-3, 0.05, 1.0])
def test_kernels_of_half_precision_are_used_as_in_single(dtype, temperature):
    # Steps that half precision holds, so that both compare the same weights.
    kernel = np.random.default_rng(0).integers(-100, 100, (64, 5)).astype("float32") / 64
    kernel[0, 0] = 70
    found = ke.layers.used_kernel(tf.cast(kernel, dtype), 5, temperature)
    assert found.dtype == dtype
    expected = tf.cast(oracle(kernel, 5, temperature), dtype)
    np.testing.assert_array_equal(tf.cast(found, "float32"), tf.cast(expected, "float32"))


def test_kernels_of_double_precision_are_used_in_it():
    kernel = np.random.default_rng(0).normal(size=(6, 5))
    found = ke.layers.used_kernel(tf.constant(kernel), 5, 0.1)
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, oracle(kernel, 5, 0.1), rtol=1e-12)


def test_small_temperatures_train_in_half_precision():
    layer = ke.layers.KernelUsageDense(3, temperature=1e-3, dtype="mixed_float16")
    layer.build((None, 2))
    layer.kernel.assign([[70, 2, 0.1], [1, -70, 3]])
    used = [[210, 0, 0], [0, 0, 9]]
    np.testing.assert_allclose(layer(np.eye(2)), used, atol=1e-3)
    np.testing.assert_allclose(layer.effective_kernel, used, atol=1e-3)


@pytest.mark.parametrize("options", OPTIONS)
def test_filters_of_a_group_share_its_channels(options):
    layer = ke.layers.KernelUsageConv2D(UNITS, 3, groups=2, **options)
    plain = layers.Conv2D(UNITS, 3, groups=2)
    x = np.random.default_rng(1).normal(size=(2, 5, 5, 6)).astype("float32")
    layer.build(x.shape), plain.build(x.shape)
    kernel, bias = (np.random.default_rng(2).normal(size=w.shape) for w in layer.weights)
    layer.set_weights([kernel, bias])
    used = np.concatenate([oracle(part, **options) for part in np.split(kernel, 2, -1)], -1)
    plain.set_weights([used, bias])
    np.testing.assert_allclose(layer.effective_kernel, used, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(x), plain(x), rtol=1e-4, atol=1e-5)


def test_the_kernel_of_groups_is_no_kernel_of_all_channels():
    layer = ke.layers.KernelUsageConv2D(UNITS, 1, groups=2)
    layer.build((None, 5, 5, 6))
    assert not ke.inspection.has_linear_kernel(layer)


def test_a_subclass_is_made_of_the_same_plain_layer():
    class Head(ke.layers.KernelUsageDense):
        pass

    plain = layers.Dense(UNITS)
    plain.build((None, 6))
    made = Head.from_trained(plain)
    assert type(made) is Head
    np.testing.assert_array_equal(made.kernel, plain.kernel)


def test_a_trained_layer_is_converted_on_request():
    plain = layers.Dense(UNITS, "sigmoid", name="head")
    plain.build((None, 6))
    made = ke.layers.KernelUsageDense.from_trained(plain, temperature=0.5)
    assert made.get_config()["activation"] == "sigmoid"
    assert made.temperature == 0.5
    for one, other in zip(made.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    convolution = layers.Conv2D(UNITS, 1)
    convolution.build((None, 5, 5, 3))
    made = ke.layers.KernelUsageConv2D.from_trained(convolution)
    np.testing.assert_array_equal(made.kernel, convolution.kernel)
    with pytest.raises(TypeError, match=r"`layer`. Expected a `keras.layers.Dense`"):
        ke.layers.KernelUsageDense.from_trained(convolution)
    with pytest.raises(ValueError, match="`layer`. Expected a layer that is built"):
        ke.layers.KernelUsageDense.from_trained(layers.Dense(2))


def test_a_quantized_layer_is_not_converted():
    plain = layers.Dense(UNITS)
    plain.build((None, 6))
    plain.quantize("int8")
    message = "^Invalid value for argument `layer`. Expected a policy without quantization.*int8"
    with pytest.raises(ValueError, match=message):
        ke.layers.KernelUsageDense.from_trained(plain)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": "many"}, ValueError, "`alpha`.*Received: 'many'"),
        ({"temperature": 0}, ValueError, "`temperature`.*Received: 0"),
        ({"absolute": 1}, TypeError, "`absolute`.*Received: 1"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ke.layers.KernelUsageDense(3, **options)
    with pytest.raises(error, match=message):
        ke.layers.KernelUsageConv2D(3, 1, **options)


def test_a_single_unit_has_all_of_each_kernel():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    head = ke.layers.KernelUsageDense(1)
    plain = keras.layers.Dense(1)
    plain.build((None, 4))
    head.build((None, 4))
    head.set_weights(plain.get_weights())
    np.testing.assert_allclose(head(x), plain(x), rtol=1e-6)
    kernel = plain.get_weights()[0]
    for form in ("unused", "entropy"):
        assert float(ke.regularizers.KernelUsage(1.0, form=form)(kernel)) == 0
    grouped = ke.layers.KernelUsageConv2D(4, 1, groups=4)
    grouped.build((None, 2, 2, 4))
    np.testing.assert_array_equal(grouped.effective_kernel, grouped.kernel)


@pytest.mark.parametrize("alpha", [0, -1.0])
def test_factors_that_turn_kernels_over_are_refused(alpha):
    with pytest.raises(ValueError, match="`alpha`.*above 0"):
        ke.layers.KernelUsageDense(3, alpha=alpha)


def test_quantized_layers_are_refused():
    with pytest.raises(ValueError, match="`dtype`. Expected a policy without quantization.*int8"):
        ke.layers.KernelUsageDense(3, dtype="int8_from_float32")
