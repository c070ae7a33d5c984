"""Maps agree with what other libraries return for the same network.

`../shared/goldens/README.md` says how the reference arrays were made, in float64.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_explainable as ke

RAW = {"postprocessing": None, "resizing": False}

# Method, options, reference array.
AGREEMENTS = [
    ("gradients", {"reduction": None}, "captum/saliency"),
    ("gradcam", {"layer": "relu3"}, "pgc/gradcam@relu3/raw"),
    ("gradcam", {"layer": "relu2"}, "pgc/gradcam@relu2/raw"),
    ("gradcam", {"layer": "conv3"}, "pgc/gradcam@conv3/raw"),
    ("gradcam", {"layer": "relu3"}, "captum/layer_gradcam@relu3"),
    ("gradcam", {"layer": "relu2"}, "captum/layer_gradcam@relu2"),
    ("gradcam", {"layer": "conv3"}, "captum/layer_gradcam@conv3"),
    (
        "gradcam",
        {"layer": "relu3", "postprocessing": "positive"},
        "torchcam/gradcam@relu3/raw_relu",
    ),
    (
        "gradcam",
        {"layer": "relu2", "postprocessing": "positive"},
        "torchcam/gradcam@relu2/raw_relu",
    ),
    ("cam", {}, "torchcam/cam@relu3/raw_relu"),
]
# Captum and the others resize raw maps bilinearly with half-pixel centres, as we do.
RESIZED = [
    ("relu3", "captum/layer_gradcam@relu3/interp_bilinear32"),
    ("relu2", "captum/layer_gradcam@relu2/interp_bilinear32"),
    ("conv3", "captum/layer_gradcam@conv3/interp_bilinear32"),
]


@pytest.fixture(scope="module")
def references(shared):
    with np.load(shared / "goldens" / "peers.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def network(references):
    x = inputs = keras.Input((32, 32, 3))
    for i, width in enumerate((8, 12, 16), start=1):
        x = layers.MaxPooling2D(name=f"pool{i - 1}")(x) if i > 1 else x
        x = layers.Conv2D(width, 3, padding="same", name=f"conv{i}")(x)
        x = layers.BatchNormalization(name=f"bn{i}", epsilon=1e-3)(x)
        x = layers.ReLU(name=f"relu{i}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(5, activation="softmax", name="dense")(x))
    for layer in model.layers:
        names = ("gamma", "beta", "mean", "var") if "bn" in layer.name else ("kernel", "bias")
        if layer.weights:
            layer.set_weights([references[f"w/{layer.name}/{name}"] for name in names])
    return model


def _relative_error(actual, desired):
    return np.abs(actual - desired).max() / np.abs(desired).max()


@pytest.mark.parametrize(("method", "options", "reference"), AGREEMENTS)
def test_maps_agree_with_peers(method, options, reference, network, references):
    options = RAW | options
    logits, maps = ke.explain(method, network, references["x"], references["targets"], **options)
    wanted = np.take_along_axis(references["logits"], references["targets"][:, None], 1)
    assert _relative_error(logits, wanted) <= 1e-5
    maps = np.abs(maps) if method == "gradients" else maps
    assert _relative_error(maps[..., 0], references[reference]) <= 1e-5


@pytest.mark.parametrize(("layer", "reference"), RESIZED)
def test_resizing_agrees_with_peers(layer, reference, network, references):
    x, targets = references["x"], references["targets"]
    _, maps = ke.gradcam(network, x, targets, layer=layer, postprocessing=None)
    assert _relative_error(maps[..., 0], references[reference]) <= 1e-5


def test_signed_gradients_agree_with_peers(network, references):
    x, targets = references["x"], references["targets"]
    _, kept = ke.gradients(network, x, targets, reduction=None, postprocessing=None)
    assert _relative_error(kept[..., 0], references["captum/gradient"]) <= 1e-5
    _, summed = ke.gradients(network, x, targets, reduction="signed_sum", postprocessing=None)
    assert _relative_error(summed[..., 0], references["captum/gradient"].sum(-1)) <= 1e-5
