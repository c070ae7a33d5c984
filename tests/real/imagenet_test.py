"""Networks trained on ImageNet are explained on photographs of what they name."""

import json

import keras
import numpy as np
import pytest

import keras_explainable as ke
from tests.real import photographs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]
FOLDER = photographs.DATA / "open"
RAW = {"postprocessing": None, "resizing": False}

# What SqueezeNet names: photographs, units.
NAMED = {
    "bird.png": 19,
    "dog_segmentation_256.png": 258,
    "dragonfly.png": 319,
    "hot_dog.jpg": 934,
    "parrot.jpg": 88,
    "sunflower.png": 985,
}
# Photograph, its mask, the animal in the mask, the border to leave out, and what was measured: the
# share of the energy on the animal, and its share of the area.
ANIMALS = [
    ("bird_segmentation.png", "bird_segmentation_mask.png", 3, photographs.VOID, 0.322, 0.196),
    ("dog_segmentation_256.png", "dog_segmentation_mask_256.png", 0, 2, 0.796, 0.536),
]


def _mobilenet(activation, **options):
    network = photographs.module("mobilenet_v2")
    weights = photographs.WEIGHTS / "mobilenet_v2_imagenet.npz"
    return network, network.load(weights, classifier_activation=activation, **options)


def _fuse(model):
    """Return a model whose softmax is within its last layer rather than after it."""
    head = keras.layers.Dense(1000, activation="softmax", name="fused")
    fused = keras.Model(model.input, head(model.get_layer("avg_pool").output))
    head.set_weights(model.get_layer("predictions").get_weights())
    return fused


@pytest.mark.parametrize("fused", [False, True], ids=["layer", "fused"])
def test_logits_and_classes_of_mobilenet_are_the_recorded_ones(fused):
    expected = json.loads((photographs.DATA / "expected_open.json").read_text("utf-8"))
    units = np.array([[entry["index"] for entry in top] for top in expected.values()])
    wanted = np.array([[entry["logit"] for entry in top] for top in expected.values()])
    network, model = _mobilenet("softmax")
    model = _fuse(model) if fused else model
    x = [photographs.centre_crop(photographs.read(FOLDER / name), 224) for name in expected]
    x = network.preprocess(np.stack(x))

    probabilities = model.predict(x, verbose=0)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(np.argsort(-probabilities)[:, :2], units)
    for method in ("cam", "gradcam"):
        logits, _ = ke.explain(method, model, x, units, **RAW)
        # Three decimals were recorded.
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-3)
        top, _ = ke.explain(method, model, x, "argmax", **RAW)
        np.testing.assert_allclose(top, logits[:, :1], rtol=0, atol=1e-5)


def test_squeezenet_without_a_dense_layer_is_explained_by_its_class_maps():
    network = photographs.module("squeezenet")
    model = network.load(photographs.WEIGHTS / "squeezenet_v1.0_imagenet.npz")
    x = [photographs.centre_crop(photographs.read(FOLDER / name), 227) for name in NAMED]
    x, units = network.preprocess(np.stack(x)), np.array(list(NAMED.values()))
    np.testing.assert_array_equal(model.predict(x, verbose=0).argmax(1), units)

    class_maps = keras.Model(model.input, model.get_layer("relu_conv_final").output)
    class_maps = class_maps.predict(x, verbose=0)
    wanted = np.take_along_axis(class_maps, units[:, None, None, None], -1)
    logits, cam = ke.cam(model, x, "argmax", **RAW)
    np.testing.assert_allclose(cam, wanted, rtol=0, atol=1e-5 * wanted.max())
    np.testing.assert_allclose(logits, wanted.mean((1, 2)), rtol=1e-5)

    logits, gradcam = ke.gradcam(model, x, "argmax", **RAW)
    num_positions = np.prod(wanted.shape[1:3])
    np.testing.assert_allclose(gradcam * num_positions, cam, rtol=0, atol=1e-5 * wanted.max())
    np.testing.assert_allclose(logits, wanted.mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("method", ["cam", "gradcam"])
@pytest.mark.parametrize(("image", "mask", "animal", "border", "measured", "area"), ANIMALS)
def test_maps_of_mobilenet_lie_on_the_animal(method, image, mask, animal, border, measured, area):
    network, model = _mobilenet("softmax")
    x = photographs.stretch(photographs.read(FOLDER / image), 224)[None]
    mask = photographs.stretch_mask(photographs.read(FOLDER / mask, mode=None), 224)[None]
    inside, valid = mask == animal, mask != border
    uniform = photographs.energy_share(np.ones(mask.shape), inside, valid)
    np.testing.assert_allclose(uniform, area, atol=1e-3)

    _, maps = ke.explain(method, model, network.preprocess(x), "argmax", postprocessing="positive")
    share = photographs.energy_share(maps[..., 0], inside, valid)
    assert share - uniform >= 0.95 * (measured - area)
