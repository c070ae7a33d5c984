"""Exported models and explainers give the same maps in a process that can't import this package."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_explainable as ke
from tests import zoo

SERVER = """
import sys

sys.modules["keras_explainable"] = sys.modules["tests"] = None
import numpy as np
import tensorflow as tf

for folder in sys.argv[1:]:
    data = np.load(f"{folder}/data.npz")
    loaded = tf.saved_model.load(f"{folder}/model")
    signature = loaded.signatures["serving_default"]
    (kind,) = signature.structured_input_signature[1].values()
    for i in ("0", "1"):
        x = data["x" + i]
        served = loaded.serve(tf.constant(x, kind.dtype))
        signed = signature(tf.constant(x, kind.dtype))
        names = sorted({key[:-1] for key in data} - {"x"})
        assert sorted(served) == sorted(signed) == names
        for name in names:
            difference = np.abs(served[name] - data[name + i]).max()
            difference = max(difference, np.abs(signed[name] - data[name + i]).max())
            alike = served[name].shape == data[name + i].shape
            alike = alike and served[name].dtype == signed[name].dtype == data[name + i].dtype
            print(folder.rsplit("/", 1)[-1], name, i, alike, float(difference))
"""
UNITS = 3
FIXED = ("mixed", "sequential", "guided")


def transferred(head, policy=None, size=(None, None, 3)):
    """Return a model over a nested backbone."""
    x = inputs = keras.Input(size)
    x = layers.Conv2D(6, 3, strides=2, activation="relu", dtype=policy)(x)
    x = layers.BatchNormalization(dtype=policy)(x)
    backbone = keras.Model(inputs, x, name="backbone")
    x = inputs = keras.Input(size)
    x = layers.GlobalAveragePooling2D(dtype=policy)(backbone(x, training=False))
    return keras.Model(inputs, head(layers.Dropout(0.5)(x)))


def sequential():
    stack = [
        layers.Conv2D(6, 3, activation="relu"),
        layers.GlobalAveragePooling2D(keepdims=True),
        ke.layers.KernelUsageConv2D(UNITS, 1, activation="sigmoid"),
        layers.Flatten(),
    ]
    return keras.Sequential([keras.Input((12, 12, 3)), *stack])


EXPLAINED = {
    "gradcam": ("gradcam", {}, None),
    "argmax": ("minmaxcam", {"resizing": (20, 9)}, "argmax"),
    "guided": ("guided_backprop", {}, None),
    "channels_first_gradients": ("gradients", {}, None),
    "smooth": (ke.methods.smooth("gradcam", num_samples=2, stddev=0.0), {}, "argmax"),
}
MODELS = {
    "plain": lambda: transferred(layers.Dense(UNITS, activation="softmax")),
    "kernel_usage": lambda: transferred(
        ke.layers.KernelUsageDense(UNITS, "sigmoid", temperature=0.2)
    ),
    "mixed": lambda: transferred(
        layers.Dense(UNITS, dtype="mixed_float16"), "mixed_float16", (12, 12, 3)
    ),
    "sequential": sequential,
    "subclassed": lambda: zoo.subclassed_with_tensorflow().model,
    "channels_first": lambda: zoo.channels_first().model,
    "gradcam": lambda: transferred(layers.Dense(UNITS, activation="relu")),
    "argmax": lambda: transferred(layers.Dense(UNITS, activation="softmax")),
    "smooth": lambda: transferred(layers.Dense(UNITS, activation="softmax")),
    "guided": sequential,
    "channels_first_gradients": lambda: zoo.channels_first().model,
}


def images(name):
    """Return two batches that differ in size, also of the images where the model takes any."""
    rng = np.random.default_rng(3)
    if name == "subclassed":
        return [zoo.IMAGES, zoo.IMAGES[:1]]
    if name.startswith("channels_first"):
        return [np.moveaxis(zoo.IMAGES, -1, 1), np.moveaxis(zoo.IMAGES[:1], -1, 1)]
    sizes = [(12, 12), (15, 10)] if name not in FIXED else [(12, 12)] * 2
    return [rng.normal(size=(2 + i, *size, 3)).astype("float32") for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Export every model, serve all of them in one process, and return what that printed."""
    root, folders = tmp_path_factory.mktemp("served"), []
    for name, build in MODELS.items():
        folder = root / name
        folder.mkdir()
        model, data = build(), {}
        for i, x in enumerate(images(name)):
            data[f"x{i}"] = x
            method, options, y = EXPLAINED.get(name, ("cam", {}, None))
            data[f"logits{i}"], data[f"maps{i}"] = ke.explain(method, model, x, y, **options)
            if y == "argmax":
                logits, _ = ke.explain(method, model, x, **options)
                data[f"units{i}"] = logits.argmax(-1)[:, None].astype("int32")
        target = str(folder / "model")
        if name in EXPLAINED:
            ke.Explainer(method, model, **options).export(target, y)
        else:
            inputs = zoo.IMAGES if name == "subclassed" else None
            ke.layers.with_activation_maps(model, inputs=inputs).export(target)
        np.savez(folder / "data.npz", **data)
        folders.append(str(folder))
    run = subprocess.run(
        [sys.executable, "-I", "-c", SERVER, *folders],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return [line.split() for line in run.stdout.splitlines()]


@pytest.mark.parametrize("name", MODELS)
def test_a_served_model_gives_the_same_maps_without_this_package(name, printed):
    rows = [row for row in printed if row[0] == name]
    names = ["logits", "maps"] + (["units"] if EXPLAINED.get(name, [None])[-1] else [])
    assert [row[1:3] for row in rows] == [[k, i] for i in "01" for k in names]
    assert all(row[3] == "True" for row in rows)
    assert max(float(row[4]) for row in rows) <= 1e-6


def test_what_is_not_served_is_refused(tmp_path):
    explainer = ke.Explainer("gradcam", zoo.nested().model)
    with pytest.raises(ValueError, match='`y`. Expected `None` or "argmax". Received: 3'):
        explainer.export(tmp_path, 3)
