import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke
from tests import zoo

pytestmark = pytest.mark.usefixtures("_eagerly")

RAW = {"postprocessing": None, "resizing": False}
ACTIVATIONS = zoo.activations()


def _deep_model(units=5, seed=3):
    """Build a model whose head is not linear, so that gradients differ from place to place."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="last")(x)
    x = keras.layers.Flatten()(keras.layers.Conv2D(6, 3, activation="tanh")(x))
    return keras.Model(inputs, keras.layers.Dense(units)(x))


IMAGES = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype("float32")


def test_gradcam_is_its_equation_by_finite_differences():
    model = _deep_model()
    _, maps = ke.gradcam(model, IMAGES, layer="last", **RAW)
    trunk = keras.Model(model.input, model.get_layer("last").output)
    x = shifted = keras.Input((6, 6, 4))
    for layer in model.layers[2:]:
        x = layer(x)
    head = keras.Model(shifted, x)
    activations = trunk(IMAGES).numpy()
    # The mean gradient over positions is the slope along a shift of a whole channel.
    weights = np.empty((2, 4, 5))
    for k, shift in enumerate(1e-2 * np.eye(4)):
        difference = head(activations + shift) - head(activations - shift)
        weights[:, k] = difference.numpy() / (2e-2 * 36)
    expected = np.einsum("bhwk,bku->bhwu", activations, weights)
    np.testing.assert_allclose(maps, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("units", [20, 50])
def test_gradcam_of_many_units_is_that_of_each(units):
    """Above 36 units the Jacobian is taken by positions, below by units."""
    model = _deep_model(units)
    _, maps = ke.gradcam(model, IMAGES, layer="last", **RAW)
    for unit in (0, units // 2, units - 1):
        _, alone = ke.gradcam(model, IMAGES, unit, layer="last", **RAW)
        scale = np.abs(alone).max()
        np.testing.assert_allclose(maps[..., unit], alone[..., 0], atol=1e-5 * scale)
    chosen = np.random.default_rng(0).permuted(np.tile(np.arange(units), (2, 1)), axis=1)
    _, permuted = ke.gradcam(_deep_model(units), IMAGES, chosen, layer="last", **RAW)
    taken = np.take_along_axis(maps, chosen[:, None, None], 3)
    np.testing.assert_allclose(permuted, taken, atol=1e-5 * np.abs(maps).max())


@pytest.mark.parametrize(("units", "loops"), [(20, True), (50, False)])
def test_more_units_than_positions_take_no_pass_each(units, loops):
    exposed = ke.inspection.expose(_deep_model(units), "last")
    step = tf.function(lambda x: ke.methods.gradcam(exposed, x))
    graph = step.get_concrete_function(tf.constant(IMAGES)).graph
    assert any("While" in operation.type for operation in graph.get_operations()) == loops


def test_positions_in_chunks_give_the_same_maps(monkeypatch):
    model, chunks, jacobian = _deep_model(50), [], tf.GradientTape.batch_jacobian

    def noted(*arguments, parallel_iterations):
        chunks.append(parallel_iterations)
        return jacobian(*arguments, parallel_iterations=parallel_iterations)

    monkeypatch.setattr(tf.GradientTape, "batch_jacobian", noted)
    _, expected = ke.gradcam(model, IMAGES, layer="last", **RAW)
    for max_bytes in (1, 7 * 2 * 36 * 4 * 4):
        _, maps = ke.gradcam(model, IMAGES, layer="last", max_bytes=max_bytes, **RAW)
        np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())
    assert chunks == [None, 2, 7]


@pytest.mark.parametrize("max_bytes", [0, 1.5, True, "1 GB"])
def test_memory_that_is_no_number_of_bytes_is_refused(max_bytes):
    with pytest.raises(ValueError, match="`max_bytes`. Expected a positive integer"):
        ke.gradcam(_deep_model(2), IMAGES, max_bytes=max_bytes)


def test_cam_is_gradcam_times_the_number_of_positions():
    model = zoo.functional().model
    _, cam = ke.cam(model, zoo.IMAGES, **RAW)
    _, gradcam = ke.gradcam(model, zoo.IMAGES, **RAW)
    np.testing.assert_allclose(cam, 36 * gradcam, rtol=1e-4, atol=1e-5)


def test_a_logit_is_the_mean_of_its_cam_and_the_bias():
    logits, maps = ke.cam(zoo.functional().model, zoo.IMAGES, **RAW)
    np.testing.assert_allclose(maps.mean((1, 2)) + zoo.BIAS, logits, rtol=1e-5, atol=1e-5)


def test_cam_of_a_network_without_linear_layer_is_its_activations():
    x = inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(5, 3, activation="relu", name="classes")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    _, maps = ke.cam(model, zoo.IMAGES, **RAW)
    activations = keras.Model(inputs, x)(zoo.IMAGES)
    np.testing.assert_allclose(maps, activations, rtol=1e-6)


def test_cam_reads_the_effective_kernel():
    class Halved(keras.layers.Dense):
        @property
        def effective_kernel(self):
            return self.kernel / 2

        def call(self, inputs):
            return keras.ops.matmul(inputs, self.effective_kernel)

    x = inputs = keras.Input((6, 6, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(x))
    model = keras.Model(inputs, Halved(5)(x))
    logits, maps = ke.cam(model, zoo.IMAGES, **RAW)
    np.testing.assert_allclose(maps.mean((1, 2)), logits, rtol=1e-5)


class Cosine(keras.layers.Layer):
    """A head with a kernel, which is not linear in its inputs."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5))

    def call(self, inputs):
        return keras.ops.normalize(inputs) @ keras.ops.normalize(self.kernel, axis=0)


class Negated(keras.layers.Dense):
    def call(self, inputs):
        return -super().call(inputs)


class Reshape(keras.layers.Layer):
    """A layer that has the name of another one, and does something else."""

    def call(self, inputs):
        return keras.ops.cumsum(inputs, axis=-1)


def _averaged(x, **options):
    return keras.layers.GlobalAveragePooling2D(**options)(x)


HEADS = {
    "cosine": lambda x: Cosine()(_averaged(x)),
    "negated": lambda x: Negated(5)(_averaged(x)),
    "namesake": lambda x: keras.layers.Dense(5)(Reshape()(_averaged(x))),
    "einsum": lambda x: keras.layers.EinsumDense("ab,cb->ac", 5)(_averaged(x)),
    "transposed": lambda x: keras.layers.Conv2DTranspose(5, 1)(_averaged(x, keepdims=True)),
    "depthwise": lambda x: keras.layers.DepthwiseConv2D(1)(_averaged(x, keepdims=True)),
    "groups": lambda x: keras.layers.Conv2D(4, 1, groups=2)(_averaged(x, keepdims=True)),
    "windows": lambda x: keras.layers.Dense(5)(
        keras.layers.Flatten()(keras.layers.AveragePooling2D(2)(x))
    ),
    "Flatten": lambda x: keras.layers.Dense(5)(keras.layers.Flatten()(x)),
    "max pooling": lambda x: keras.layers.Dense(5)(keras.layers.GlobalMaxPooling2D()(x)),
    "two layers": lambda x: keras.layers.Dense(5)(
        keras.layers.Dense(5, activation="relu")(keras.layers.GlobalAveragePooling2D()(x))
    ),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("method", ["cam", "minmaxcam", "d_minmaxcam"])
def test_heads_that_are_not_linear_are_named(method, head):
    x = inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, HEADS[head](keras.layers.Conv2D(4, 3)(x)))
    with pytest.raises(ValueError, match=r"one linear layer away.*was found.*Use `gradcam`"):
        ke.explain(method, model, zoo.IMAGES)


def test_cam_of_another_layer_is_refused():
    with pytest.raises(ValueError, match="pools other activations than the ones chosen"):
        ke.cam(zoo.functional().model, zoo.IMAGES, layer="conv")


def _minmaxcam(**options):
    return ke.minmaxcam(zoo.functional().model, zoo.IMAGES, **RAW, **options)[1]


def _d_minmaxcam(**options):
    return ke.d_minmaxcam(zoo.functional().model, zoo.IMAGES, **RAW, **options)[1]


def _weigh(weights):
    return np.einsum("bhwk,ku->bhwu", ACTIVATIONS, weights)


ONE = np.tile([0, 0, 1, 0, 0], (3, 1))
TWO = np.tile([0, 1, 1, 0, 0], (3, 1))
NONE = np.zeros((3, 5))


def test_minmaxcam_with_one_detection_is_cam():
    for maps in (_minmaxcam(detections=ONE), _d_minmaxcam(detections=ONE)):
        np.testing.assert_allclose(maps[..., 2], _weigh(zoo.HEAD)[..., 2], rtol=1e-4, atol=1e-5)


def test_minmaxcam_without_detections_is_cam_and_the_d_form_that_of_positive_weights():
    np.testing.assert_allclose(_minmaxcam(detections=NONE), _weigh(zoo.HEAD), atol=1e-5)
    positive = _weigh(np.maximum(zoo.HEAD, 0))
    np.testing.assert_allclose(_d_minmaxcam(detections=NONE), positive, atol=1e-5)


def test_detections_are_the_predictions_above_the_threshold():
    x = inputs = keras.Input((6, 6, 3))
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, padding="same")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    for activation in ("sigmoid", "softmax", None):
        model = zoo._weigh(keras.Model(inputs, keras.layers.Dense(5, activation=activation)(x)))
        predictions = keras.activations.get(activation or "sigmoid")(zoo.logits()).numpy()
        for threshold in (0.5, 0.2):
            expected = ke.minmaxcam(model, zoo.IMAGES, detections=predictions > threshold, **RAW)[1]
            maps = ke.minmaxcam(model, zoo.IMAGES, threshold=threshold, **RAW)[1]
            np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)
    maps = ke.minmaxcam(model, zoo.IMAGES, activation="softmax", **RAW)[1]
    softmax = keras.activations.softmax(zoo.logits()).numpy() > 0.5
    expected = ke.minmaxcam(model, zoo.IMAGES, detections=softmax, **RAW)[1]
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)


def test_lambdas_weigh_the_terms():
    cam, w = _weigh(zoo.HEAD), zoo.HEAD
    pair = np.array([0, 0, 0, 1, 1])  # Some kernels speak against both of these together.
    others = _weigh(w[:, 1:2] + w[:, 2:3])[..., 0]
    maps = _minmaxcam(detections=TWO, lambda_positive=3.0, lambda_negative=0.5)
    np.testing.assert_allclose(maps[..., 0], 3 * cam[..., 0] - 0.5 * others, atol=1e-4)

    maps = _d_minmaxcam(
        detections=np.tile(pair, (3, 1)),
        lambda_positive=3.0,
        lambda_negative=0.5,
        lambda_background=0.25,
    )
    present = w @ pair
    assert (present < 0).any()
    weights = 3 * np.maximum(w[:, 0], 0) - 0.5 * np.maximum(present, 0)
    weights += 0.25 * np.minimum(present, 0) / 2
    np.testing.assert_allclose(maps[..., 0], _weigh(weights[:, None])[..., 0], atol=1e-4)


def test_strict_divides_by_the_number_of_others_detected():
    cam = _weigh(zoo.HEAD)
    maps = _minmaxcam(detections=TWO, strict=True)
    expected = cam[..., 0] - (cam[..., 1] + cam[..., 2]) / 2
    np.testing.assert_allclose(maps[..., 0], expected, atol=1e-4)
    np.testing.assert_allclose(maps[..., 1], cam[..., 1] - cam[..., 2], atol=1e-4)
    present = np.maximum(zoo.HEAD[:, 1] + zoo.HEAD[:, 2], 0) / 2
    loose, strict = _d_minmaxcam(detections=TWO), _d_minmaxcam(detections=TWO, strict=True)
    difference = _weigh(present[:, None])[..., 0]
    np.testing.assert_allclose(strict[..., 0] - loose[..., 0], difference, atol=1e-4)
    np.testing.assert_allclose(strict[..., 1], loose[..., 1], atol=1e-5)


def test_detections_are_not_differentiated():
    exposed = ke.inspection.expose(zoo.functional().model)
    detections = tf.Variable(np.ones((3, 5), "float32"))
    with tf.GradientTape() as tape:
        _, maps = ke.methods.minmaxcam(exposed, zoo.IMAGES, detections=detections)
    assert tape.gradient(maps, detections) is None


def test_a_model_that_was_not_exposed_is_refused():
    model = zoo.functional().model
    with pytest.raises(ValueError, match=r"ke.inspection.expose\(model\)"):
        ke.methods.gradcam(model, zoo.IMAGES)
    with pytest.raises(ValueError, match="expose"):
        ke.methods.cam(model, zoo.IMAGES)


def test_logits_that_cannot_be_differentiated_by_the_layer_are_refused():
    x = inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(tf.stop_gradient)(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    with pytest.raises(ValueError, match=r"`layer`.*can be differentiated.*\(3, 4, 4, 4\)"):
        ke.gradcam(model, zoo.IMAGES, layer="conv")


def test_activations_without_positions_are_refused():
    with pytest.raises(ValueError, match=r"`layer`.*\(batch, \*positions, kernels\).*\(3, 4\)"):
        ke.gradcam(zoo.functional().model, zoo.IMAGES, layer=3)


@pytest.mark.parametrize("method", zoo.METHODS)
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extreme_logits_and_dead_activations_stay_finite(method, scale):
    model = zoo.functional().model
    kernel, bias = model.layers[-1].weights
    kernel.assign(kernel * scale)
    model.get_layer("conv").bias.assign(np.full(4, -1e3 if scale == 0 else 1.0))
    logits, maps = ke.explain(method, model, zoo.IMAGES)
    assert np.isfinite(logits).all()
    assert np.isfinite(maps).all()
    assert bias is not None
