"""Properties that methods declare in the registry, each tested on every method that declares it."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_explainable as ke
from tests import zoo

RAW = {"postprocessing": None, "resizing": False}


def _raw(method, model, images, **options):
    return ke.explain(method, model, images, **RAW, **options)[1]


def _head_of(model):
    return next(layer for layer in model.layers if layer.weights and layer.weights[0].ndim == 2)


def _deep_model():
    """Build a model with two convolutions after the activations that are explained."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="explained")(x)
    x = layers.Conv2D(5, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def check_class_sensitivity(method):
    """Explaining a unit depends on the weights of that unit, and another one's don't matter."""
    model = zoo.functional().model
    # Without detections the contrastive methods take no other unit in.
    options = {"detections": np.zeros((3, 5))} if "minmax" in method else {}
    before = _raw(method, model, zoo.IMAGES, **options)
    kernel = _head_of(model).kernel
    changed = kernel.numpy()
    changed[:, 1] *= -2
    kernel.assign(changed)
    after = _raw(method, model, zoo.IMAGES, **options)
    np.testing.assert_array_equal(np.delete(before, 1, -1), np.delete(after, 1, -1))
    assert not np.allclose(before[..., 1], after[..., 1])


def check_flip_equivariance(method):
    """Where the network commutes with a mirror, so does its explanation."""
    model = zoo.functional().model
    kernel = model.get_layer("conv").kernel
    kernel.assign((kernel + kernel[:, ::-1]) / 2)
    maps = _raw(method, model, zoo.IMAGES)
    flipped = _raw(method, model, zoo.IMAGES[:, :, ::-1])
    scale = np.abs(maps).max()
    np.testing.assert_allclose(flipped[:, :, ::-1], maps, atol=1e-5 * scale)


def check_cam_is_gradcam(method):
    """On a pooled linear head, the map is h·w times that of Grad-CAM up to a constant factor."""
    model = zoo.functional().model
    maps = _raw(method, model, zoo.IMAGES)
    reference = _raw("gradcam", model, zoo.IMAGES)
    factor = 1 if method == "gradcam" else 36
    np.testing.assert_allclose(maps, factor * reference, atol=1e-5 * np.abs(maps).max())


def check_linearity(method):
    """The map of a sum of logits is the sum of their maps."""
    model = _deep_model()
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    head = _head_of(model)
    kernel = head.kernel.numpy()
    kernel[:, 2] = 2 * kernel[:, 0] - 3 * kernel[:, 1]
    head.kernel.assign(kernel)
    maps = _raw(method, model, images, layer="explained")
    expected = 2 * maps[..., 0] - 3 * maps[..., 1]
    np.testing.assert_allclose(maps[..., 2], expected, atol=1e-5 * np.abs(maps).max())


AXIOMS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
DECLARED = [
    (method, axiom)
    for method in ke.methods.names()
    for axiom in sorted(ke.methods.registration(method).axioms)
]


def test_every_axiom_declared_has_a_test_and_every_test_a_method():
    assert {axiom for _, axiom in DECLARED} == set(AXIOMS)


@pytest.mark.parametrize(("method", "axiom"), DECLARED)
def test_methods_have_the_axioms_that_they_declare(method, axiom):
    AXIOMS[axiom](method)
