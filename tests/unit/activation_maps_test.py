"""Class activation maps as outputs, against NumPy and `ke.cam`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from tests import zoo
from tests.conftest import two_replicas

UNITS = 4
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(3, 5, 6, 7)).astype("float32")
IMAGES = RNG.normal(size=(4, 9, 8, 3)).astype("float32")
HEADS = {
    "dense": lambda **o: layers.Dense(UNITS, activation="sigmoid", **o),
    "without bias": lambda **o: layers.Dense(UNITS, use_bias=False, **o),
    "convolution": lambda **o: layers.Conv2D(UNITS, 1, activation="softmax", **o),
    "kernel usage": lambda **o: ke.layers.KernelUsageDense(UNITS, "sigmoid", temperature=0.3, **o),
    "kernel usage convolution": lambda **o: ke.layers.KernelUsageConv2D(UNITS, 1, **o),
}


def kernel_of(layer):
    """Return the kernel that a head multiplies by, in NumPy."""
    kernel = np.asarray(layer.get_weights()[0], "float64").reshape(-1, UNITS)
    if hasattr(layer, "effective_kernel"):
        shares = np.exp(kernel / layer.temperature)
        kernel = UNITS * kernel * shares / shares.sum(-1, keepdims=True)
    return kernel


def classifier(policy=None, size=(9, 8, 3), head="dense", maps=None):
    x = inputs = keras.Input(size)
    x = layers.Conv2D(5, 3, strides=2, activation="relu", dtype=policy)(x)
    x = layers.BatchNormalization(dtype=policy)(x)
    if maps is not None:
        return keras.Model(inputs, ke.layers.ActivationMaps(HEADS[head](dtype=policy), **maps)(x))
    x = layers.GlobalAveragePooling2D(dtype=policy, keepdims="convolution" in head)(x)
    x = HEADS[head](dtype=policy)(layers.Dropout(0.5)(x))
    return keras.Model(inputs, layers.Reshape((UNITS,))(x))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_outputs_are_of_pooling_and_head_and_maps_of_the_kernel(head, axes):
    if axes != 2 and "convolution" in head:
        head = "kernel usage"
    features = {1: FEATURES[:, 0], 2: FEATURES, 3: np.stack([FEATURES, FEATURES + 1], 1)}[axes]
    layer = ke.layers.ActivationMaps(HEADS[head]())
    outputs, maps = layer(features)
    kept = layer.layer(features.mean(tuple(range(1, axes + 1)), keepdims="convolution" in head))
    np.testing.assert_allclose(outputs, np.reshape(kept, (3, UNITS)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps, features @ kernel_of(layer.layer), rtol=1e-4, atol=1e-5)
    assert maps.dtype == "float32"


def test_maps_are_filtered_and_resized_as_those_of_cam():
    plain = classifier()
    for resizing in (None, 7, (4, 9)):
        model = classifier(maps={"postprocessing": "positive_normalize", "resizing": resizing})
        model.set_weights(plain.get_weights())
        predictions, maps = model.predict(IMAGES, verbose=0)
        expected = ke.cam(plain, IMAGES, resizing=resizing)[1]
        np.testing.assert_allclose(maps, expected, atol=1e-6)
        np.testing.assert_allclose(predictions, plain.predict(IMAGES, verbose=0), atol=1e-6)


@pytest.mark.parametrize("head", ["dense", "kernel usage"])
def test_gradients_of_maps_reach_the_kernel_and_the_features(head):
    layer = ke.layers.ActivationMaps(HEADS[head]())
    layer.build(FEATURES.shape)
    features = tf.Variable(FEATURES)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(features)[1] ** 2)
    variable = layer.layer.trainable_variables[0]
    by_kernel, by_features = tape.gradient(loss, [variable, features])
    exact = FEATURES.astype("float64")
    effective = kernel_of(layer.layer)
    maps = exact @ effective
    np.testing.assert_allclose(by_features, 2 * maps @ effective.T, rtol=1e-4, atol=1e-4)
    start, step = layer.layer.get_weights(), 1e-2
    ends = []
    for sign in (1, -1):
        moved = [w.copy() for w in start]
        moved[0][2, 1] += sign * step
        layer.layer.set_weights(moved)
        ends.append(np.square(exact @ kernel_of(layer.layer)).sum())
    np.testing.assert_allclose(by_kernel[2, 1], (ends[0] - ends[1]) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_a_model_with_the_layer_is_saved_cloned_and_loaded(head, tmp_path):
    model = classifier(head=head, maps={"postprocessing": "positive", "resizing": (9, 8)})
    expected = model(IMAGES)
    model.save(tmp_path / "model.keras")
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    for other in (keras.models.load_model(tmp_path / "model.keras"), cloned):
        layer = other.layers[-1]
        assert (layer.postprocessing, layer.resizing) == ("positive", (9, 8))
        for found, value in zip(other(IMAGES), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-6)


@pytest.mark.parametrize("head", ["dense", "kernel usage"])
def test_maps_are_in_single_precision_under_mixed_precision(head):
    layer = ke.layers.ActivationMaps(HEADS[head](dtype="mixed_float16"), dtype="mixed_float16")
    features = FEATURES.astype("float16")
    outputs, maps = layer(features)
    assert (outputs.dtype, maps.dtype) == ("float16", "float32")
    exact = features.astype("float64") @ kernel_of(layer.layer)
    np.testing.assert_allclose(maps, exact, rtol=1e-5, atol=1e-5)
    pooled = layers.GlobalAveragePooling2D(dtype="mixed_float16")(features)
    np.testing.assert_array_equal(outputs, layer.layer(pooled))


def test_a_head_of_mixed_precision_leaves_single_activations_as_they_are():
    head = layers.Dense(3, dtype="mixed_float16")
    layer = ke.layers.ActivationMaps(head)
    features = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype("float32")
    _, maps = layer(features)
    assert maps.dtype == "float32"
    expected = features.astype("float64") @ head.kernel.numpy().astype("float64")
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_double_activations_give_double_maps():
    layer = ke.layers.ActivationMaps(layers.Dense(2, dtype="float64"), dtype="float64")
    assert layer(FEATURES.astype("float64"))[1].dtype == "float64"


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_maps_of_a_trained_model_are_those_of_cam(kind):
    specimen = zoo.KINDS[kind]()
    before = zoo.fingerprint(specimen.model)
    options = {**specimen.options}
    if isinstance(specimen.model, zoo.SubclassedWithTensorFlow | zoo.BackboneWithTensorFlow):
        options["inputs"] = zoo.IMAGES
    if not specimen.linear_head:
        with pytest.raises(ValueError, match="CAM needs logits that are one linear") as refused:
            ke.layers.with_activation_maps(specimen.model, **options)
        with pytest.raises(ValueError, match="CAM needs logits") as expected:
            ke.cam(specimen.model, specimen.x, **specimen.options)
        assert str(refused.value) == str(expected.value)
        return
    made = ke.layers.with_activation_maps(specimen.model, **options)
    returned = made(specimen.x, training=False)
    assert list(returned) == ["logits", "maps"]
    assert [t.dtype for t in returned.values()] == ["float32", "float32"]
    logits, maps = ke.cam(specimen.model, specimen.x, **specimen.options)
    # Compiled in half precision, sums are rounded otherwise.
    is_mixed = kind.startswith("mixed")
    np.testing.assert_allclose(returned["logits"], logits, atol=0.05 if is_mixed else 1e-5)
    np.testing.assert_allclose(returned["maps"], maps, atol=0.02 if is_mixed else 1e-6)
    raw = ke.layers.with_activation_maps(specimen.model, postprocessing=None, **options)
    exact = zoo.activations() @ zoo.HEAD
    scale = specimen.tolerance * max(1, 10 * np.abs(exact).max())
    np.testing.assert_allclose(raw(specimen.x, training=False)["maps"], exact, atol=scale)
    predicted = ke.layers.with_activation_maps(specimen.model, logits=False, **options)
    expected = specimen.model(specimen.x, training=False)
    if isinstance(expected, list):
        expected = expected[1]
    found = predicted(specimen.x, training=False)["predictions"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=specimen.tolerance)
    assert zoo.fingerprint(specimen.model) == before


def test_the_default_filter_is_that_of_cam():
    assert ke.methods.registration("cam").postprocessing == "positive_normalize"
    layer = ke.layers.with_activation_maps(classifier()).get_layer("maps")
    assert layer.postprocessing == "positive_normalize"


@pytest.mark.parametrize("resizing", [False, 5, (4, 11)])
def test_maps_of_a_trained_model_are_resized_as_those_of_cam(resizing):
    model = classifier(size=(None, None, 3))
    made = ke.layers.with_activation_maps(model, resizing=resizing)
    expected = ke.cam(model, IMAGES[:, :7], resizing=resizing)[1]
    np.testing.assert_allclose(made(IMAGES[:, :7])["maps"], expected, atol=1e-6)


def test_scores_at_positions_that_are_averaged_are_the_maps():
    x = inputs = keras.Input((9, 8, 3))
    x = layers.Conv2D(UNITS, 3)(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(UNITS, 1)(x))
    model = keras.Model(inputs, x)
    made = ke.layers.with_activation_maps(model)
    np.testing.assert_allclose(made(IMAGES)["maps"], ke.cam(model, IMAGES)[1], atol=1e-6)


def test_a_model_with_channels_first_takes_them():
    specimen = zoo.channels_first()
    made = ke.layers.with_activation_maps(specimen.model)
    returned = made.predict(specimen.x, verbose=0)
    logits, maps = ke.cam(specimen.model, specimen.x)
    np.testing.assert_allclose(returned["logits"], logits, rtol=1e-5)
    np.testing.assert_allclose(returned["maps"], maps, atol=1e-6)


@pytest.mark.parametrize("head", ["dense", "convolution", "kernel usage"])
@pytest.mark.parametrize("policy", [None, "mixed_float16"])
def test_a_trained_model_with_maps_is_saved_and_shares_its_weights(head, policy, tmp_path):
    model = classifier(policy, head=head)
    made = ke.layers.with_activation_maps(model, logits=False)
    assert {id(w) for w in made.weights} == {id(w) for w in model.weights}
    expected = made(IMAGES)
    made.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for key, value in expected.items():
        np.testing.assert_allclose(loaded(IMAGES)[key], value, atol=1e-6)
    # One head gives both outputs, also when it is loaded.
    assert len(loaded.weights) == len(model.weights)


class WithSoftmax(zoo.SubclassedWithTensorFlow):
    """A classifier that ends in a layer of its own, and calls TensorFlow functions."""

    def __init__(self):
        super().__init__()
        self.softmax = layers.Softmax()

    def call(self, inputs):
        x = self.blocks["first"][0](tf.reverse(inputs, [1]))
        return self.softmax(self.head(self.pool(x)))


def test_the_last_layer_of_a_subclassed_model_is_left_as_found():
    model = zoo._called(WithSoftmax())
    before = zoo.fingerprint(model)
    made = ke.layers.with_activation_maps(model, logits=False, inputs=zoo.IMAGES)
    np.testing.assert_allclose(made(zoo.IMAGES)["predictions"], model(zoo.IMAGES), rtol=1e-5)
    assert zoo.fingerprint(model) == before


def test_names_that_layers_have_already_are_left_to_them():
    x = inputs = keras.Input((9, 8, 3))
    x = layers.Conv2D(5, 3, name="maps")(x)
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)))
    assert list(ke.layers.with_activation_maps(model)(IMAGES)) == ["logits", "maps"]


def fit(build, jit_compile=False, strategy=None):
    labels = np.eye(UNITS, dtype="float32")[[0, 1, 2, 3]]
    masks = np.zeros((4, 9, 8), "float32")
    masks[:, :4] = 1
    with (strategy or tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(3)
        made = build()
        energy = ke.losses.EnergyOutside(positive=True, relative=True, per_unit=True)
        losses = {"predictions": "binary_crossentropy", "maps": energy}
        made.compile(keras.optimizers.SGD(0.1), losses, jit_compile=jit_compile)
    targets = {"predictions": labels, "maps": masks}
    # Weights of the losses, as of labels, choose the units whose maps are penalized.
    weights = {"predictions": np.ones(4), "maps": labels}
    history = made.fit(
        IMAGES, targets, sample_weight=weights, batch_size=4, epochs=2, shuffle=False, verbose=0
    )
    return np.asarray(history.history["loss"])


def trained(policy=None):
    """Return a function that makes a model with maps, its normalization frozen."""

    def build():
        model = classifier(policy, head="kernel usage")
        model.layers[2].trainable = False
        model.layers[4].rate = 0.0
        return ke.layers.with_activation_maps(model, logits=False, postprocessing=None)

    return build


@pytest.fixture(scope="module")
def curve():
    return fit(trained())


@pytest.mark.parametrize("mode", ["xla", "mixed_float16", "replicas"])
def test_training_with_maps_is_the_same_in_every_mode(mode, curve):
    strategy = two_replicas() if mode == "replicas" else None
    policy = mode if mode == "mixed_float16" else None
    assert curve[-1] < curve[0]
    found = fit(trained(policy), mode == "xla", strategy)
    if strategy and not np.isclose(found[0], curve[0], rtol=1e-4):
        pytest.skip("this version of Keras reports another loss on replicas")
    np.testing.assert_allclose(found, curve, rtol=1e-2 if policy else 1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "dense"}, TypeError, "`layer`.*Received: 'dense'"),
        ({"postprocessing": "sharpen"}, ValueError, "`postprocessing`.*Received: 'sharpen'"),
        ({"resizing": (0, 3)}, ValueError, r"`resizing`.*Received: \(0, 3\)"),
        ({"resizing": True}, ValueError, "`resizing`.*Received: True.*with_activation_maps"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ke.layers.ActivationMaps(**{"layer": layers.Dense(2), **options})


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(),
        layers.Conv2D(3, 3, padding="same"),
        layers.Conv2D(3, 1, data_format="channels_first"),
    ],
)
def test_a_layer_without_such_a_kernel_is_refused(layer):
    with pytest.raises(ValueError, match="`layer`. Expected a Dense layer, a 1×1 convolution"):
        ke.layers.ActivationMaps(layer)(keras.Input((5, 6, 7)))


def test_activations_without_positions_are_refused():
    with pytest.raises(ValueError, match=r"`inputs`.*Received: shape \(3, 7\)"):
        ke.layers.ActivationMaps(layers.Dense(2))(FEATURES[:, 0, 0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "model"}, TypeError, "`model`.*Received: 'model'"),
        ({"logits": 1}, TypeError, "`logits`.*Received: 1"),
        ({"layer": "nowhere"}, ValueError, "`layer`.*Received: 'nowhere'"),
        ({"output": 3}, ValueError, "`output`.*Received: 3"),
        ({"postprocessing": abs}, ValueError, "`postprocessing`"),
    ],
)
def test_bad_options_of_a_trained_model_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ke.layers.with_activation_maps(**{"model": zoo.nested().model, **options})


METHODS = ["cam", "minmaxcam", "gradcam", "gradients", "lrp", "scorecam"]


def wrapped(kind, head="dense"):
    """Return a plain classifier, and one with maps or gradients that has its weights."""
    plain = classifier(head=head)
    keras.utils.set_random_seed(0)
    plain.set_weights([RNG.uniform(0.1, 1, w.shape) for w in plain.get_weights()])
    if kind == "maps":
        made = classifier(head=head, maps={})
        made.set_weights(plain.get_weights())
        return plain, made
    inputs = keras.Input((9, 8, 3))
    gradients = ke.layers.InputGradients(plain)
    outputs = gradients(inputs)
    if kind == "nested gradients":
        inner = keras.Model(inputs, outputs)
        inputs = keras.Input((9, 8, 3))
        outputs = inner(inputs)
    return plain, keras.Model(inputs, outputs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["maps", "gradients", "nested gradients"])
def test_models_with_maps_or_gradients_are_explained_as_plain_ones(kind, method):
    plain, made = wrapped(kind)
    before = zoo.fingerprint(made)
    expected = ke.explain(method, plain, IMAGES, [0, 1, 2, 3])
    found = ke.explain(method, made, IMAGES, [0, 1, 2, 3], output=0)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert zoo.fingerprint(made) == before


@pytest.mark.parametrize("head", ["convolution", "kernel usage"])
@pytest.mark.parametrize("kind", ["maps", "gradients"])
def test_heads_inside_are_found(kind, head):
    plain, made = wrapped(kind, head)
    found = ke.diagnostics.class_correlations(made)
    expected = ke.diagnostics.class_correlations(plain)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    maps = ke.cam(made, IMAGES, postprocessing=None, output=0)[1]
    np.testing.assert_allclose(maps, ke.cam(plain, IMAGES, postprocessing=None)[1], atol=1e-4)
    served = ke.layers.with_activation_maps(made, output=0, postprocessing=None)
    np.testing.assert_allclose(served(IMAGES)["maps"], maps, atol=1e-4)


@pytest.mark.parametrize("kind", ["subclassed", "subclassed_with_tensorflow"])
@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_subclassed_models_with_gradients_are_explained_too(kind, method):
    specimen = zoo.KINDS[kind]()
    inputs = keras.Input(specimen.x.shape[1:])
    made = keras.Model(inputs, ke.layers.InputGradients(specimen.model)(inputs))
    expected = ke.explain(method, specimen.model, specimen.x, **specimen.options)
    found = ke.explain(method, made, specimen.x, output=0)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_is_served_is_in_single_precision_whatever_the_policy():
    model = classifier(policy="float32")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        for logits in (True, False):
            returned = ke.layers.with_activation_maps(model, logits=logits)(IMAGES)
            assert {t.dtype for t in returned.values()} == {tf.float32}
    finally:
        keras.config.set_dtype_policy(policy)
    np.testing.assert_allclose(returned["predictions"], model(IMAGES), rtol=1e-6)
