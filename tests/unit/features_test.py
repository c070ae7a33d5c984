"""Images that maximise activations are those of closed forms, on every kind of model."""

import functools
import gc
import itertools
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from keras_explainable.features import _ascending
from keras_explainable.features import _parametrizing
from keras_explainable.features import maximizing
from tests import token_zoo
from tests import zoo

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(6, 5, 2)).astype("float32")
# An ascent without chance and penalties, whose end can be calculated.
PLAIN = {"jitter": 0, "noise": 0.0, "blur": 0.0, "verbose": 0}
EXACT = {**PLAIN, "value_range": None, "num_steps": 400}
SHORT = {"value_range": (-1, 1), "num_steps": 3, "verbose": 0}


def linear(weights, bias=0.5):
    """Return a model whose units are products with weights `(units, *shape)`."""
    flat = weights.reshape(len(weights), -1)
    model = keras.Sequential(
        [keras.Input(weights.shape[1:]), layers.Flatten(), layers.Dense(len(weights))]
    )
    model.layers[-1].set_weights([flat.T, np.full(len(weights), bias, "float32")])
    return model


def convolution(kernel, size, strides=1, activation=None):
    """Return a model that is one convolution, of any rank."""
    rank = kernel.ndim - 2
    kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    layer = kind(
        kernel.shape[-1],
        kernel.shape[:rank],
        strides=strides,
        activation=activation,
        use_bias=False,
        name="conv",
    )
    model = keras.Sequential([keras.Input((*[size] * rank, kernel.shape[-2])), layer])
    layer.set_weights([kernel])
    return model


def functional(units, **options):
    return ke.maximize_activation(zoo.functional().model, units, **{**SHORT, **options})


WEIGHTS = RANDOM.normal(size=(3, *IMAGE.shape)).astype("float32")


@pytest.mark.parametrize("parametrization", ["pixel", "fourier"])
def test_maximum_of_a_linear_unit_less_its_norm_is_its_weights(parametrization):
    images, trace = ke.maximize_activation(
        linear(WEIGHTS), [2, 0], l2_weight=0.5, parametrization=parametrization, **EXACT
    )
    np.testing.assert_allclose(images, WEIGHTS[[2, 0]], atol=2e-3)
    squares = (WEIGHTS[[2, 0]] ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(trace[-1], squares + 0.5, rtol=1e-3)


def test_vectors_have_no_positions_to_transform_or_shift():
    weights = RANDOM.normal(size=(2, 5)).astype("float32")
    options = {**EXACT, "jitter": 3, "blur": 1.0, "tv_weight": 1.0}
    images, _ = ke.maximize_activation(linear(weights), 1, l2_weight=2.0, **options)
    np.testing.assert_allclose(images, weights[1:] / 4, atol=1e-3)


def test_norm_is_that_of_the_image_scaled_from_its_range():
    # Where it is not limited, 1 / (2 λ) is far beyond the range: a linear unit goes to the ends.
    images, _ = ke.maximize_activation(
        linear(WEIGHTS), 0, **{**EXACT, "value_range": (10, 30)}, l2_weight=0.0
    )
    assert ((images[0] - 20) * np.sign(WEIGHTS[0]) > 8).all()
    assert np.abs(images - 20).max() <= 10
    # The gradient of the unit by the scaled image is 10 times its weights.
    images, _ = ke.maximize_activation(
        linear(WEIGHTS), 0, **{**EXACT, "value_range": (10, 30)}, l2_weight=20.0
    )
    np.testing.assert_allclose((images[0] - 20) / 10, np.clip(WEIGHTS[0] / 4, -1, 1), atol=5e-3)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_mean_of_a_channel_shows_its_filter_wherever_it_looks(rank):
    kernel = RANDOM.normal(size=(*[3] * rank, 2, 4)).astype("float32")
    model = convolution(kernel, 6, strides=3)
    images, trace = ke.maximize_activation(
        model, layer="conv", channels=[1, 3], l2_weight=0.5 / 2**rank, **{**EXACT, "num_steps": 900}
    )
    tiles = np.tile(kernel, (*[2] * rank, 1, 1))
    np.testing.assert_allclose(images, np.moveaxis(tiles[..., [1, 3]], -1, 0), atol=5e-3)
    np.testing.assert_allclose(trace[-1], (kernel[..., [1, 3]] ** 2).sum((*range(rank), -2)), 2e-2)


@pytest.mark.parametrize(("position", "corner"), [("center", (2, 2)), ((0, 3), (0, 3))])
def test_one_position_of_a_channel_shows_the_filter_there(position, corner):
    kernel = RANDOM.normal(size=(3, 3, 2, 4)).astype("float32")
    model = convolution(kernel, 6)
    images, _ = ke.maximize_activation(
        model, layer="conv", channels=2, position=position, l2_weight=0.5, **EXACT
    )
    wanted = np.zeros((6, 6, 2))
    wanted[corner[0] : corner[0] + 3, corner[1] : corner[1] + 3] = kernel[..., 2]
    np.testing.assert_allclose(images[0], wanted, atol=5e-3)


def test_a_layer_is_measured_by_its_mean_square():
    start = zoo.IMAGES[:2]
    images, trace = ke.maximize_activation(
        zoo.functional().model, layer="relu", start=start, **SHORT | {"value_range": (-9, 9)}
    )
    assert len(images) == 2
    np.testing.assert_allclose(trace[-1], (zoo.activations(images) ** 2).mean((1, 2, 3)), 1e-5)
    assert (trace[-1] > (zoo.activations(start) ** 2).mean((1, 2, 3))).all()


def test_an_objective_takes_logits_and_activations():
    images, trace = ke.maximize_activation(
        zoo.functional().model,
        objective=lambda outputs: outputs[0][:, 1] - 2 * outputs[1][:, 3, 2, 0],
        layer="relu",
        seed=[0, 4],
        **SHORT,
    )
    wanted = zoo.logits(images)[:, 1] - 2 * zoo.activations(images)[:, 3, 2, 0]
    np.testing.assert_allclose(trace[-1], wanted, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, PLAIN, {"parametrization": "pixel", "tv_weight": 0.01}])
def test_trace_climbs_to_the_activation_of_the_images(options):
    images, trace = functional([1, 4, 2], num_steps=60, **{**options, "verbose": 0})
    assert images.dtype == trace.dtype == np.float32
    assert trace.shape == (60, 3)
    assert np.abs(images).max() <= 1
    logits = zoo.logits(images)[range(3), [1, 4, 2]]
    np.testing.assert_allclose(trace[-1], logits, rtol=1e-5)
    assert (trace[-1] > trace[0] + 0.3).all()
    if options is PLAIN:
        assert (np.diff(trace[:30], axis=0) > 0).all()


def test_spectrum_and_pixels_lead_to_about_the_same_activation():
    ends = [
        functional([1, 4], num_steps=150, parametrization=p)[1][-1] for p in ("pixel", "fourier")
    ]
    np.testing.assert_allclose(*ends, rtol=0.1)


def test_the_same_seed_gives_the_same_images_and_another_one_others():
    first, again, other = (functional(1, seed=seed).images for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_images_do_not_see_each_other():
    alone = [functional(unit, seed=seed) for unit, seed in ((1, 0), (4, 0), (4, 7))]
    for batch_size in (8, 2):
        images, trace = functional([1, 4, 4], seed=[0, 0, 7], batch_size=batch_size)
        for i, (image, its_trace) in enumerate(alone):
            np.testing.assert_allclose(images[i], image[0], atol=1e-5)
            np.testing.assert_allclose(trace[:, i], its_trace[:, 0], atol=1e-5)


def test_one_unit_goes_with_many_seeds():
    images, _ = functional(2, seed=[5, 6])
    np.testing.assert_allclose(images[1:], functional(2, seed=6).images, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["pixel", "fourier"])
@pytest.mark.parametrize("value_range", [None, (-1.0, 3.0)])
def test_parametrizations_are_inverted(rank, name, value_range):
    sizes = (5, 4, 3)[:rank]
    mixing = np.linalg.qr(RANDOM.normal(size=(2, 2)))[0].astype("float32")
    parametrization = _parametrizing.Parametrization(name, sizes, value_range, mixing)
    parameters = tf.constant(RANDOM.normal(size=(2, *sizes, 2)) / 2, tf.float32)
    images = parametrization.images(parametrization.scaled(parameters)).numpy()
    np.testing.assert_allclose(parametrization.parameters(images), parameters, atol=1e-4)


@pytest.mark.parametrize("sizes", [(5,), (4, 3), (3, 4, 2)])
def test_transform_is_that_of_hartley(sizes):
    image = tf.constant(RANDOM.normal(size=(1, *sizes, 1)), tf.float32)
    wanted = np.zeros(sizes)
    for k in itertools.product(*map(range, sizes)):
        for x in itertools.product(*map(range, sizes)):
            angle = 2 * np.pi * sum(i * j / n for i, j, n in zip(k, x, sizes, strict=True))
            wanted[k] += image.numpy()[(0, *x, 0)] * (np.cos(angle) + np.sin(angle))
    wanted /= np.sqrt(np.prod(sizes))
    np.testing.assert_allclose(_parametrizing.hartley(image)[0, ..., 0], wanted, atol=1e-5)


def test_spectrum_decays_with_the_frequency_and_keeps_the_scale():
    values = _parametrizing.amplitudes((8, 8))[..., 0]
    np.testing.assert_allclose(np.mean(values**2), 1, rtol=1e-6)
    np.testing.assert_allclose(values[0, 1] / values[0, 2:5], [2, 3, 4], rtol=1e-6)
    np.testing.assert_allclose(values[3, 4] / values[0, 5], 3 / 5, rtol=1e-6)
    np.testing.assert_allclose(values[0, 0], values[1, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["pixel", "fourier"])
def test_blur_is_gaussian(name):
    point = np.zeros((1, 24, 24, 1), "float32")
    point[0, 7, 9] = 1
    parametrization = _parametrizing.Parametrization(name, (24, 24))
    blurred = parametrization.blur(parametrization.parameters(point), 1.5)
    rows, columns = np.meshgrid(np.arange(24) - 7, np.arange(24) - 9, indexing="ij")
    wanted = np.exp(-(rows**2 + columns**2) / (2 * 1.5**2)) / (2 * np.pi * 1.5**2)
    np.testing.assert_allclose(parametrization.scaled(blurred)[0, ..., 0], wanted, atol=1e-5)


def test_total_variation_is_that_of_tensorflow():
    images = tf.constant(RANDOM.normal(size=(2, 4, 5, 3)), tf.float32)
    wanted = tf.image.total_variation(images)
    np.testing.assert_allclose(_ascending.total_variation(images), wanted, rtol=1e-5)


def test_rolling_and_its_gradient_are_those_of_numpy():
    images = RANDOM.normal(size=(2, 4, 5, 3)).astype("float32")
    weights = RANDOM.normal(size=images.shape).astype("float32")
    shifts = np.array([[1, -2], [-3, 0]], "int32")
    variable = tf.Variable(images)
    with tf.GradientTape() as tape:
        rolled = _ascending.roll(variable, shifts)
        total = tf.reduce_sum(rolled * weights)
    gradient = tape.gradient(total, variable)
    for i, shift in enumerate(shifts):
        np.testing.assert_array_equal(rolled[i], np.roll(images[i], shift, (0, 1)))
        np.testing.assert_array_equal(gradient[i], np.roll(weights[i], -shift, (0, 1)))


@pytest.mark.parametrize("parametrization", ["pixel", "fourier"])
def test_weights_lower_what_they_weigh(parametrization):
    options = {"num_steps": 60, "parametrization": parametrization}
    measures = {
        "tv_weight": lambda images: _ascending.total_variation(tf.constant(images))[0],
        "l2_weight": lambda images: np.sum(images**2),
    }
    for name, measure in measures.items():
        free, weighed = (float(measure(functional(1, **options, **{name: w})[0])) for w in (0, 0.1))
        assert weighed < 0.7 * free, name


def test_jitter_makes_images_robust_to_shifts():
    model = linear(WEIGHTS)

    def shifted(jitter):
        options = {**EXACT, "jitter": jitter, "value_range": (-1, 1)}
        images, _ = ke.maximize_activation(model, [0, 1, 2], **options)
        rolled = [np.roll(images, s, (1, 2)) for s in itertools.product((-1, 0, 1), repeat=2)]
        activations = [np.diag(model.predict(images, verbose=0)) for images in rolled]
        return activations[4], np.mean(activations, axis=0)

    (sharp, of_sharp), (blunt, of_blunt) = shifted(0), shifted(1)
    assert (blunt < sharp).all()
    assert (of_blunt > of_sharp + 1).all()


def test_mixing_optimises_directions_of_the_channels():
    # One direction is brightness, and the other ones count for next to nothing.
    mixing = np.array([[5.0, 5.0, 5.0], [1e-3, -1e-3, 0.0], [0.0, 1e-3, -1e-3]])
    images, _ = functional(1, mixing=mixing, num_steps=20)
    assert np.ptp(images, axis=-1).max() < 1e-2 < np.ptp(images, axis=(1, 2)).min()
    scaled, _ = functional(1, mixing=3 * mixing, num_steps=20)
    np.testing.assert_allclose(scaled, images, atol=1e-4)


def test_ascent_starts_from_an_image():
    start = np.tanh(zoo.IMAGES[:2])
    images, trace = functional([1, 4], start=start, num_steps=1, learning_rate=0.0, noise=0.0)
    np.testing.assert_allclose(images, start, atol=1e-3)
    images, _ = functional([1, 4], start=start[0], num_steps=1, learning_rate=0.0, noise=0.0)
    np.testing.assert_allclose(images, start[[0, 0]], atol=1e-3)
    np.testing.assert_allclose(trace[0], zoo.logits(start)[[0, 1], [1, 4]], atol=1e-2)


def test_steps_do_not_depend_on_the_scale_of_a_unit():
    scaled = np.stack([WEIGHTS[0], 1e-6 * WEIGHTS[0]])
    images, _ = ke.maximize_activation(linear(scaled), [0, 1], **SHORT)
    np.testing.assert_allclose(images[1], images[0], atol=1e-5)
    assert np.abs(images).max() > 0.1


def test_small_gradients_survive_half_precision():
    kernel = np.float32([1e-4, -1e-4]).reshape(1, 1, 1, 2)
    inputs = keras.Input((128, 128, 1))
    layer = layers.Conv2D(2, 1, name="conv", dtype="mixed_float16")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([kernel, np.zeros(2)])
    # A pixel counts for 1e-4 / 128², a tenth of the least number that half precision has.
    options = {**PLAIN, "value_range": None, "parametrization": "pixel", "num_steps": 2}
    images, _ = ke.maximize_activation(model, layer="conv", channels=[0, 1], **options)
    np.testing.assert_allclose(images[0], 0.1, rtol=1e-3)
    np.testing.assert_allclose(images[1], -0.1, rtol=1e-3)


def test_noise_is_of_its_deviation():
    for name in ("pixel", "fourier"):
        options = {"learning_rate": 0.0, "noise": 0.1, "parametrization": name}
        images, _ = functional(1, seed=range(60), batch_size=60, num_steps=1, **options)
        np.testing.assert_allclose(images.std(), 0.1, rtol=0.05)
        np.testing.assert_allclose(images.mean(), 0, atol=0.01)


def _of_kind(specimen, units=(3, 1), **options):
    start, inputs = None, getattr(specimen.model, "inputs", None)
    size = zoo.SIZE if inputs and None in inputs[0].shape[1:] else None
    if isinstance(specimen.x, list):
        start = [None, *(array[:1] for array in specimen.x[1:])]
    if isinstance(specimen.x, dict):
        start = {name: array[0] for name, array in specimen.x.items()} | {specimen.image: None}
    options = {n: v for n, v in specimen.options.items() if n == "output"} | options
    return ke.maximize_activation(specimen.model, units, start=start, size=size, **options)


@pytest.mark.parametrize("kind", [*zoo.KINDS, "loaded"])
def test_images_are_those_of_the_functional_model_and_the_model_is_left_as_found(kind, tmp_path):
    specimen = zoo.loaded(tmp_path) if kind == "loaded" else zoo.KINDS[kind]()
    before = zoo.fingerprint(specimen.model)
    # Adam's steps depend on the signs of gradients, which mixed precision moves where they are 0.
    images, trace = _of_kind(specimen, **SHORT)
    assert zoo.fingerprint(specimen.model) == before
    wanted, wanted_trace = functional([3, 1])
    assert images.dtype == np.float32
    scale = np.linalg.norm(wanted)
    assert np.linalg.norm(images - wanted) < 5 * specimen.tolerance * scale
    np.testing.assert_allclose(trace, wanted_trace, atol=max(1e-4, specimen.tolerance))


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("functional", "relu"),
        ("sequential", 0),
        ("nested", "backbone/relu"),
        ("nested", {"name": "backbone/conv", "link": "output"}),
        ("functional", {"name": "relu", "link": "input"}),
        ("subclassed", "relu"),
        ("subclassed_with_tensorflow", "relu"),
        ("subclassed_with_tensorflow", {"name": "relu", "link": "input"}),
        ("nested_backbone_with_tensorflow", "backbone/relu"),
    ],
)
def test_channels_are_those_that_the_layer_returns(kind, layer):
    model = zoo.KINDS[kind]().model
    before = zoo.fingerprint(model)
    options = {**SHORT, "start": zoo.IMAGES[0], "value_range": (-9, 9)}
    images, trace = ke.maximize_activation(model, layer=layer, channels=[0, 3], **options)
    assert zoo.fingerprint(model) == before
    rectified = zoo.activations(images).mean((1, 2))[[0, 1], [0, 3]]
    linear = _unrectified(images)[[0, 1], [0, 3]]
    is_linear = isinstance(layer, dict)
    assert np.abs(rectified - linear).max() > 1e-2
    np.testing.assert_allclose(trace[-1], linear if is_linear else rectified, rtol=1e-4, atol=1e-5)


def _unrectified(images):
    """Average in NumPy what the convolution returns."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return (np.einsum("bhwcij,ijck->bhwk", windows, zoo.FILTER) + zoo.OFFSET).mean((1, 2))


def test_the_last_layer_of_a_headless_backbone_is_maximised():
    model = zoo.functional().model
    backbone = keras.Model(model.input, model.get_layer("relu").output)
    images, trace = ke.maximize_activation(backbone, layer="relu", channels=1, **SHORT)
    np.testing.assert_allclose(trace[-1], zoo.activations(images).mean((1, 2))[:, 1], rtol=1e-5)


def test_a_layer_that_the_first_output_does_not_need_is_maximised():
    x = inputs = keras.Input((6, 6, 2))
    first = layers.Dense(2)(layers.Flatten()(x))
    side = layers.Conv2D(3, 2, activation="relu", name="side")(x)
    model = keras.Model(inputs, [first, side])
    images, trace = ke.maximize_activation(model, layer="side", channels=[2, 0], **SHORT)
    wanted = model.predict(images, verbose=0)[1].mean((1, 2))
    np.testing.assert_allclose(trace[-1], wanted[[0, 1], [2, 0]], rtol=1e-5)
    # So are those of a nested model that ends in it.
    nested = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(model(inputs)[0])))
    path = f"{model.name}/side"
    images, trace = ke.maximize_activation(nested, layer=path, channels=1, **SHORT)
    wanted = model.predict(images, verbose=0)[1].mean((1, 2))
    np.testing.assert_allclose(trace[-1], wanted[:, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        ("functional", "class"),
        ("functional", "mean"),
        ("composite_layers", "class"),
        ("subclassed_with_tensorflow", "mean"),
    ],
)
def test_tokens_are_arranged_on_the_grid_of_patches(kind, pooling):
    model = token_zoo.KINDS[kind](pooling)
    reference = token_zoo.functional(pooling)
    tokens = keras.Model(reference.input, reference.get_layer("last").output)

    def grid(images):
        found = tokens.predict(images, verbose=0)[:, int(pooling == "class") :]
        return found.reshape(-1, 4, 4, token_zoo.WIDTH)

    oracles = {
        "mean": lambda grid: grid.mean((1, 2)),
        "center": lambda grid: grid[:, 2, 2],
        (0, 3): lambda grid: grid[:, 0, 3],
    }
    for position, oracle in oracles.items():
        if kind != "functional" and position == "center":
            continue  # A position like any other, which the model has no part in.
        options = {**SHORT, "channels": [5, 1], "position": position}
        images, trace = ke.maximize_activation(model, layer="last", **options)
        wanted = oracle(grid(images))[[0, 1], [5, 1]]
        np.testing.assert_allclose(trace[-1], wanted, rtol=1e-4, atol=1e-5)
    images, trace = ke.maximize_activation(model, layer="last", **SHORT)
    wanted = (grid(images) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(trace[-1], wanted, rtol=1e-4)


def test_tokens_of_no_known_place_are_positions():
    x = inputs = keras.Input((4, 4, 2))
    x = layers.Dense(15)(layers.Flatten()(x))
    outputs = layers.Reshape((5, 3), name="tokens")(x)
    model = keras.Model(inputs, outputs)
    options = {**SHORT, "channels": [2, 0], "position": (4,)}
    images, trace = ke.maximize_activation(model, layer="tokens", **options)
    wanted = model.predict(images, verbose=0)[[0, 1], 4, [2, 0]]
    np.testing.assert_allclose(trace[-1], wanted, rtol=1e-5)


def test_an_input_of_a_subclassed_model_is_taken_from_the_start():
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(2)

        def call(self, inputs):
            return self.head(inputs["a"] + inputs["b"])

    model = Plain()
    x = {"a": np.ones((1, 3), "float32"), "b": np.full((1, 3), 2, "float32")}
    model(x)
    options = {**EXACT, "l2_weight": 0.5}
    images, _ = ke.maximize_activation(model, 1, start=x, input="b", **options)
    kernel = model.head.kernel.numpy()
    np.testing.assert_allclose(images[0], kernel[:, 1], atol=2e-3)


def _dense():
    """Return a model of scores `(batch, 6, 6, 5)`, its head, and the linear part in NumPy."""
    model = keras.Sequential(
        [*zoo.functional().model.layers[:3], layers.Conv2D(5, 1, activation="softmax")]
    )
    kernel = RANDOM.normal(size=(1, 1, 4, 5)).astype("float32")
    model.layers[-1].set_weights([kernel, np.zeros(5)])
    return model, lambda images: zoo.activations(images) @ kernel[0, 0]


MASK = RANDOM.uniform(size=(2, 6, 6)) < 0.4
REFERENCES = RANDOM.normal(size=(2, 1, 5)).astype("float32")


def _probabilities(scores):
    return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


def _chosen(scores, units):
    return scores[range(len(scores)), units]


def _over_region(scores, region, units):
    means = (scores * region).sum((1, 2)) / region.sum((1, 2))
    return _chosen(means, units)


DENSE_TARGETS = {
    "position": (
        ke.targets.position([[0, 1], [4, -2]]),
        [1, 3],
        lambda scores: scores[[0, 1], [0, 4], [1, 4], [1, 3]],
    ),
    "position of all": (
        ke.targets.position((2, 5)),
        [1, 3],
        lambda scores: scores[[0, 1], 2, 5, [1, 3]],
    ),
    "mask": (
        ke.targets.segment(MASK),
        [1, 3],
        lambda scores: _over_region(scores, MASK[..., None], [1, 3]),
    ),
    "all": (ke.targets.segment("all"), [1, 3], lambda s: _chosen(s.mean((1, 2)), [1, 3])),
    "values": (ke.targets.values(), [7, 179], lambda s: _chosen(s.reshape(2, -1), [7, 179])),
    "contrast": (
        ke.targets.contrast([3, 0], 1, output=ke.targets.segment(MASK)),
        0,
        lambda scores: (
            _over_region(scores, MASK[..., None], [3, 0])
            - _over_region(scores, MASK[..., None], [1, 1])
        ),
    ),
}
FLAT_TARGETS = {
    "contrast": (ke.targets.contrast([3, 0], 1), 0, lambda s: _chosen(s, [3, 0]) - s[:, 1]),
    "probability": (
        ke.targets.probability("softmax"),
        [1, 3],
        lambda scores: _chosen(_probabilities(scores), [1, 3]),
    ),
    "similarity": (
        ke.targets.similarity(REFERENCES),
        0,
        lambda scores: (
            (scores * REFERENCES[:, 0]).sum(-1)
            / np.linalg.norm(scores, axis=-1)
            / np.linalg.norm(REFERENCES[:, 0], axis=-1)
        ),
    ),
    "loss": (
        ke.targets.loss([2, 4]),
        0,
        lambda scores: -np.log(_chosen(_probabilities(scores), [2, 4])),
    ),
    "function": (lambda outputs: 2 * outputs, [1, 3], lambda scores: 2 * _chosen(scores, [1, 3])),
}


@pytest.mark.parametrize("batch_size", [8, 1])
@pytest.mark.parametrize("name", DENSE_TARGETS)
def test_targets_of_scores_with_positions_are_maximised(name, batch_size):
    target, units, wanted = DENSE_TARGETS[name]
    model, scores = _dense()
    options = {**SHORT, "seed": [0, 1], "batch_size": batch_size}
    images, trace = ke.maximize_activation(model, units, output=target, **options)
    np.testing.assert_allclose(trace[-1], wanted(scores(images)), rtol=1e-4, atol=1e-5)
    assert (trace[-1] > trace[0]).all()


@pytest.mark.parametrize("name", FLAT_TARGETS)
def test_targets_of_logits_are_maximised(name):
    target, units, wanted = FLAT_TARGETS[name]
    images, trace = functional(units, output=target, seed=[0, 1])
    logits = zoo.logits(images)
    # These take the output with its activation.
    outputs = _probabilities(logits) if name in ("similarity", "function") else logits
    np.testing.assert_allclose(trace[-1], wanted(outputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["box_score", "box_coordinate"])
def test_targets_of_boxes_are_maximised(kind):
    inputs = keras.Input((4, 4, 2))
    boxes = layers.Reshape((4, 4))(layers.Conv2D(4, 2, strides=2)(inputs))
    scores = layers.Reshape((4, 3))(layers.Conv2D(3, 2, strides=2)(inputs))
    model = keras.Model(inputs, {"bbox_regression": boxes, "cls_logits": scores})
    target = getattr(ke.targets, kind)([3, 1])
    images, trace = ke.maximize_activation(model, [0, 2], output=target, seed=[0, 1], **SHORT)
    key = "cls_logits" if kind == "box_score" else "bbox_regression"
    wanted = model.predict(images, verbose=0)[key][[0, 1], [3, 1], [0, 2]]
    np.testing.assert_allclose(trace[-1], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["several_inputs", "siamese", "subclassed_with_tensorflow"])
def test_data_of_a_target_follow_inputs_of_any_structure(kind):
    specimen = getattr(zoo, kind)()
    target = ke.targets.contrast([3, 0], 1)
    images, _ = _of_kind(specimen, **SHORT, output=target, units=0)
    np.testing.assert_allclose(images, functional(0, output=target).images, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": ke.targets.contrast(1, 5)}, r"indices below \(5,\).*1 to 5"),
        ({"output": ke.targets.contrast([1, 2], 0), "seed": range(3)}, "3 samples.*2 rows"),
        ({"output": ke.targets.contrast([1, 2, 3], 0), "seed": [0, 1]}, "for 3 rows of data"),
        ({"output": ke.targets.contrast(1, 0), "units": 1}, "indices from 0 to 0"),
    ],
)
def test_data_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        functional(**{"units": 0, **arguments})


@pytest.mark.parametrize("parametrization", ["fourier", "pixel"])
def test_channels_come_first_where_the_model_takes_them_so(parametrization):
    model, options = zoo.channels_first().model, {"parametrization": parametrization}
    images, trace = ke.maximize_activation(model, [1, 4], **SHORT, **options)
    wanted, wanted_trace = functional([1, 4], **options)
    np.testing.assert_allclose(images, np.moveaxis(wanted, -1, 1), atol=1e-5)
    np.testing.assert_allclose(trace, wanted_trace, atol=1e-5)
    start = np.tanh(zoo.IMAGES[:2])
    options |= {"start": np.moveaxis(start, -1, 1), "layer": "relu", "channels": 1}
    images, _ = ke.maximize_activation(model, **SHORT, **options)
    options |= {"start": start}
    wanted, _ = ke.maximize_activation(zoo.functional().model, **SHORT, **options)
    np.testing.assert_allclose(images, np.moveaxis(wanted, -1, 1), atol=1e-5)
    with pytest.raises(ValueError, match=r"`start`.*\(None, 3, 6, 6\)"):
        ke.maximize_activation(model, 1, **SHORT, start=start)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"jit_compile": True}])
def test_eager_and_xla_do_what_the_graph_does(options):
    images, trace = functional([1, 4], blur=0.5, blur_every=1, tv_weight=1e-3, **options)
    wanted, wanted_trace = functional([1, 4], blur=0.5, blur_every=1, tv_weight=1e-3)
    np.testing.assert_allclose(images, wanted, atol=1e-4)
    np.testing.assert_allclose(trace, wanted_trace, atol=1e-4)


def test_model_of_two_replicas_is_maximised():
    strategy = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
    with strategy.scope():
        model = zoo.functional().model
    images, _ = ke.maximize_activation(model, [1, 4], **SHORT)
    np.testing.assert_allclose(images, functional([1, 4]).images, atol=1e-5)


def test_steps_and_batches_are_traced_once():
    traces = []

    def objective(outputs):
        traces.append(outputs)
        return outputs[0][:, 0]

    ke.maximize_activation(
        zoo.functional().model, objective=objective, seed=range(5), batch_size=2, **SHORT
    )
    assert len(traces) == 2  # A step, and the end.


class Noted(layers.Layer):
    """Notes that it is called: while a model is exposed and a step traced, and then no more."""

    def call(self, inputs):
        NOTES.append(inputs)
        return inputs


NOTES = []
CONTRASTS = [ke.targets.contrast([1, 4], 0), ke.targets.contrast([2, 3], [1, 0])]


def _noted():
    """Return a model that notes its calls, of the same logits as `zoo.functional`."""
    inputs = keras.Input(zoo.IMAGES.shape[1:])
    return keras.Model(inputs, zoo.functional().model(Noted()(inputs)))


@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({"units": [1, 2]}, {"units": [3, 0], "start": np.tanh(zoo.IMAGES[:2])}),
        ({"units": 0, "output": CONTRASTS[0]}, {"output": CONTRASTS[1], "seed": [5, 2]}),
        ({"units": [1, 2], "mixing": np.diag([1.0, 2, 3])}, {"verbose": 0}),
    ],
    ids=["units", "data", "mixing"],
)
def test_later_calls_reuse_the_step(options, other):
    model = _noted()
    options = {**SHORT, "seed": [0, 1], **options}
    ke.maximize_activation(model, **options)
    noted = len(NOTES)
    images, trace = ke.maximize_activation(model, **options | other)
    assert len(NOTES) == noted > 0
    wanted, wanted_trace = functional(**{"units": None, **options, **other})
    np.testing.assert_allclose(images, wanted, atol=1e-5)
    np.testing.assert_allclose(trace, wanted_trace, atol=1e-5)


@functools.cache
def _usual():
    """Return what a model that was never maximised before gives."""
    return functional(1)


@pytest.mark.parametrize(
    "other",
    [
        {"value_range": (-2, 1)},
        {"learning_rate": 0.1},
        {"num_steps": 4},
        {"parametrization": "pixel"},
        {"mixing": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]},
        {"units": None, "layer": "relu"},
        {"units": None, "layer": "relu", "channels": 1},
        {"output": ke.targets.probability()},
        {"batch_size": 1, "seed": [0, 1]},
    ],
    ids=lambda other: " ".join(other),
)
def test_other_options_take_another_step(other):
    model, usual = zoo.functional().model, ({}, _usual())
    for options, expected in (usual, (other, functional(**{"units": 1, **other})), usual):
        images, trace = ke.maximize_activation(model, **{**SHORT, "units": 1, **options})
        wanted, wanted_trace = expected
        np.testing.assert_allclose(images, wanted, atol=1e-6)
        np.testing.assert_allclose(trace, wanted_trace, atol=1e-6)


def test_the_kept_step_reads_new_weights():
    model = linear(WEIGHTS)
    ke.maximize_activation(model, 0, **SHORT)
    model.layers[-1].set_weights([-w for w in model.layers[-1].get_weights()])
    images, trace = ke.maximize_activation(model, 0, **SHORT)
    np.testing.assert_allclose(trace[-1], model.predict(images, verbose=0)[:, 0], rtol=1e-5)


def _first_unit(_, outputs):
    return outputs[0][:, 0]


@pytest.mark.parametrize(
    "kind", ["functional", "nested_with_pooling", "subclassed", "nested_backbone_with_tensorflow"]
)
def test_models_that_are_deleted_leave_nothing_alive(kind):
    alive, kept = [], len(maximizing._ascents)
    for _ in range(2):
        model = zoo.KINDS[kind]().model
        for options in ({"units": 1}, {"units": 0, "output": ke.targets.contrast(1, 0)}):
            ke.maximize_activation(model, **SHORT, **options)
        objective = functools.partial(_first_unit, model)
        ke.maximize_activation(model, objective=objective, **SHORT)
        layer = "backbone/relu" if "nested" in kind else "relu"
        ke.maximize_activation(model, layer=layer, channels=1, **SHORT)
        assert 1 <= len(maximizing._ascents.of(model)) <= maximizing._ascents.most
        alive.append(weakref.ref(model))
        alive.extend(weakref.ref(variable) for variable in model.variables)
        del model, objective
    keras.backend.clear_session()
    gc.collect()
    assert sum(reference() is not None for reference in alive) == 0
    assert len(maximizing._ascents) <= kept


@pytest.mark.filterwarnings("default::UserWarning")
def test_an_activation_behind_a_shut_relu_is_told():
    kernel = -np.ones((3, 3, 1, 2), "float32")
    model = convolution(kernel, 4, activation="relu")
    options = {**SHORT, "start": np.full((4, 4, 1), 0.5), "channels": 0, "layer": "conv"}
    with pytest.warns(UserWarning, match=r"images \[0\] never changed"):
        ke.maximize_activation(model, **options)


def test_progress_is_shown(capsys):
    functional(1)
    assert capsys.readouterr().out == ""
    functional([1, 2, 3], batch_size=2, verbose="auto")
    out = capsys.readouterr().out
    assert "6/6" in out
    assert "activation" in out


BAD = [
    ({}, "one of `units`.*none"),
    ({"units": 1, "objective": len}, "`units` and `objective`"),
    ({"units": 5}, "indices from 0 to 4. Received: 5 to 5"),
    ({"units": [0, -1]}, "Received: -1 to 0"),
    ({"units": [[1]]}, "one per image"),
    ({"units": 1.0}, "an integer"),
    ({"units": 1, "layer": "relu"}, "`layer`.*`None` with `units`"),
    ({"channels": 1}, "the layer of the `channels`"),
    ({"channels": 4, "layer": "relu"}, "indices from 0 to 3"),
    ({"channels": 1, "layer": "rely"}, "`layer`.*'rely'.*Closest: 'relu'"),
    ({"channels": 1, "layer": ["relu"]}, "`layer`"),
    ({"channels": 1, "layer": "relu", "output": 0}, "`output`"),
    ({"channels": 1, "layer": "relu", "position": "middle"}, "`position`.*'middle'"),
    ({"channels": 1, "layer": "relu", "position": (1, 6)}, r"`position`.*\(1, 6\)"),
    ({"channels": 1, "layer": "relu", "position": (1,)}, r"`position`.*\(1,\)"),
    ({"units": 1, "position": "center"}, "`position`"),
    ({"objective": 3}, "`objective`"),
    ({"objective": lambda outputs: outputs[0]}, r"floats of shape \(1,\).*float32 \(1, 5\)"),
    ({"objective": lambda _: None}, r"`objective`.*an object of type NoneType"),
    ({"objective": lambda _: [None]}, r"`objective`.*an object of type list"),
    ({"objective": lambda outputs: tf.zeros_like(outputs[0][:, 0])}, "no gradient"),
    ({"units": 1, "output": 3}, "`output`"),
    ({"units": 1, "input": 1}, "`input`"),
    ({"units": 1, "input": "x"}, "`input`.*'x'"),
    ({"units": 1, "size": 7}, "`size`.*7"),
    ({"units": 1, "size": 0}, "`size`"),
    ({"units": 1, "start": np.ones((7, 6, 3))}, r"`start`.*\(7, 6, 3\)"),
    ({"units": 1, "start": np.full((6, 6, 3), np.nan)}, "`start`.*NaN"),
    ({"units": 1, "start": "noise"}, "`start`"),
    ({"units": 1, "start": np.full((6, 6, 3), 255)}, r"`start`.*\(-1.0, 1.0\).*255.0 to 255.0"),
    ({"units": [1, 2], "seed": [1, 2, 3]}, "2, 3 seeds and 1 images"),
    ({"units": 1, "seed": 0.5}, "`seed`.*0.5"),
    ({"units": 1, "value_range": (1, -1)}, r"`value_range`.*\(1, -1\)"),
    ({"units": 1, "value_range": 1}, "`value_range`"),
    ({"units": 1, "parametrization": "wavelet"}, "`parametrization`.*fourier, pixel"),
    ({"units": 1, "num_steps": 0}, "`num_steps`"),
    ({"units": 1, "learning_rate": -1}, "`learning_rate`"),
    ({"units": 1, "noise": -1}, "`noise`"),
    ({"units": 1, "jitter": 0.5}, "`jitter`"),
    ({"units": 1, "blur": "much"}, "`blur`"),
    ({"units": 1, "blur_every": 0}, "`blur_every`"),
    ({"units": 1, "tv_weight": None}, "`tv_weight`"),
    ({"units": 1, "l2_weight": -0.1}, "`l2_weight`"),
    ({"units": 1, "mixing": np.eye(2)}, r"`mixing`.*\(2, 2\)"),
    ({"units": 1, "mixing": np.ones((3, 3))}, "`mixing`.*inverted"),
    ({"units": 1, "batch_size": 0}, "`batch_size`"),
    ({"units": 1, "verbose": 3}, "`verbose`"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ke.maximize_activation(zoo.functional().model, **{**SHORT, **arguments})


def test_bad_models_are_refused():
    with pytest.raises(TypeError, match="`model`.*a `keras.Model`"):
        ke.maximize_activation(len, 1, value_range=None)
    with pytest.raises(ValueError, match="the size of the images"):
        ke.maximize_activation(zoo.any_size().model, 1, value_range=None)
    backbone = convolution(np.ones((3, 3, 1, 2), "float32"), 6)
    with pytest.raises(ValueError, match=r"\(batch, units\).*ke.targets.*`channels=`"):
        ke.maximize_activation(backbone, 1, value_range=None)
    tokens = keras.Input((4,), dtype="int32")
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(9, 2)(tokens))
    with pytest.raises(TypeError, match="an input of floats"):
        ke.maximize_activation(keras.Model(tokens, pooled), 1, value_range=None)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (None, r"held, \['vector'\]. Received: none for \['vector'\]"),
        ({"image": None}, "a dict with keys"),
        ([None], "2 arrays"),
        ({"image": None, "vector": np.ones(3)}, r"shape \(None, 2\)"),
    ],
)
def test_inputs_that_are_held_must_be_given(start, message):
    with pytest.raises(ValueError, match=message):
        ke.maximize_activation(zoo.several_inputs().model, 1, start=start, **SHORT)
