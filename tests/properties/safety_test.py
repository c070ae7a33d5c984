"""No method returns a value that is not finite, whatever a network comes to."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_explainable as ke
from tests import zoo

SIZE = 6
METHODS = {name: name for name in zoo.METHODS} | {
    "smooth": ke.methods.smooth("gradients", num_samples=3),
    "variance": ke.methods.smooth("gradcampp", num_samples=3, statistic="variance"),
    "smooth_taylor": ke.methods.smooth_taylor(num_samples=3),
    "adaptive": ke.methods.smooth_taylor(num_samples=2, stddev="adaptive"),
    "tta": ke.methods.tta("gradcampp", scales=1),
}
KERNEL = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype("float32")
HEAD = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
IMAGES = np.random.default_rng(2).normal(size=(2, SIZE, SIZE, 2)).astype("float32")
ZEROS, ONES = np.zeros(4, "float32"), np.ones(4, "float32")
# Kernel and bias of the convolution, kernel of the head, its bias, images.
CASES = {
    "ordinary": (KERNEL, ONES, HEAD, 0.0, IMAGES),
    "dead rectifiers": (KERNEL, -1e3 * ONES, HEAD, 0.0, IMAGES),
    "one channel alive": (KERNEL, np.array([0, -1e3, -1e3, -1e3]), HEAD, 0.0, IMAGES),
    "weights of zero": (0 * KERNEL, ZEROS, 0 * HEAD, 0.0, IMAGES),
    "constant activations": (0 * KERNEL, ONES, HEAD, 0.0, IMAGES),
    "constant images": (KERNEL, ONES, HEAD, 0.0, np.ones_like(IMAGES)),
    "images of zero": (KERNEL, ZEROS, HEAD, 0.0, np.zeros_like(IMAGES)),
    "logits of 1e4": (KERNEL, ONES, HEAD, 1e4, IMAGES),
    "logits of -1e4": (KERNEL, ONES, HEAD, -1e4, IMAGES),
    "logits of ±1e4": (KERNEL, ONES, 1e4 * HEAD, 0.0, IMAGES),
    "logits of zero": (KERNEL, ONES, 0 * HEAD, 0.0, IMAGES),
    "tiny gradients": (KERNEL, ONES, 1e-25 * HEAD, 0.0, IMAGES),
    "activations of 1e-30": (1e-30 * KERNEL, 1e-30 * ONES, HEAD, 0.0, IMAGES),
}
# What half precision has no numbers for: logits and gradients that large or small.
BEYOND_HALF = ("logits of ±1e4", "tiny gradients", "activations of 1e-30")


def _model(dtype):
    x = inputs = keras.Input((SIZE, SIZE, 2))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv", dtype=dtype)(x)
    x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
    x = layers.Dense(3, name="head", dtype=dtype)(x)
    return keras.Model(inputs, layers.Activation("softmax", dtype="float32")(x))


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name", METHODS)
def test_maps_are_finite(name, dtype):
    model = _model(dtype)
    explainers = [
        ke.Explainer(METHODS[name], model, resizing=False, **options)
        for options in ({"postprocessing": None}, {})
    ]
    for case, (kernel, bias, head, shift, images) in CASES.items():
        if dtype == "mixed_float16" and case in BEYOND_HALF:
            continue
        model.get_layer("conv").set_weights([kernel, bias])
        model.get_layer("head").set_weights([head, np.full(3, shift)])
        for explainer in explainers:
            logits, maps = explainer.explain(images)
            assert np.isfinite(logits).all(), case
            assert np.isfinite(maps).all(), case
        assert maps.min() >= 0, case
        assert maps.max() <= 1 + 1e-6, case
        # A deconvolution doesn't ask whether a rectifier was open.
        if case == "weights of zero" or (case == "dead rectifiers" and name != "deconvnet"):
            assert np.abs(maps).max() == 0, case


@pytest.mark.parametrize("name", METHODS)
def test_the_ordinary_case_is_not_empty(name):
    model = _model("float32")
    kernel, bias, head, *_ = CASES["ordinary"]
    model.get_layer("conv").set_weights([kernel, bias])
    model.get_layer("head").set_weights([head, np.zeros(3)])
    _, maps = ke.explain(METHODS[name], model, IMAGES)
    assert maps.max() > 0.5
