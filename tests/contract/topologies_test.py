"""Every method returns the same on every kind of model.

All kinds compute one function of the image (`tests/zoo.py`), so what a method returns for the plain
functional model holds for all; the tests of each family compare it with NumPy.
"""

import functools
import inspect
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke
from keras_explainable.methods import _units
from tests import zoo

METHODS = zoo.METHODS
# Given, so that mixed precision can't move a probability over the threshold.
DETECTED = np.array([[1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], "float32")

# Of every kind; the others are compiled for one kind and run eagerly for all, in half the time.
COMPILED = ("gradcam", "gradients", "lrp", "scorecam")


def _explain(method, specimen, y=None, **options):
    registration = ke.methods.registration(method)
    options = {"postprocessing": None, "resizing": False, **specimen.options, **options}
    if registration.family == "gradient":
        options.pop("layer", None)
    if "detections" in registration.sample_options:
        options["detections"] = DETECTED
    if "activation" in inspect.signature(registration.method).parameters:
        options["activation"] = "sigmoid"  # Some kinds have a softmax, some a sigmoid.
    logits, maps = ke.explain(method, specimen.model, specimen.x, y, **options)
    return logits, maps[specimen.image] if isinstance(maps, dict | list) else maps


@functools.cache
def _specimen(kind):
    if kind == "loaded":
        with tempfile.TemporaryDirectory() as folder:
            return zoo.loaded(Path(folder))
    return zoo.channels_first() if kind == "channels_first" else zoo.KINDS[kind]()


@functools.cache
def _reference(method):
    return _explain(method, _specimen("functional"))[1]


def _close(actual, desired, tolerance):
    if tolerance > 1e-4:
        # In half precision a value near zero may pass the other side of a ReLU.
        assert np.linalg.norm(actual - desired) < tolerance * np.linalg.norm(desired)
    else:
        scale = np.abs(desired).max()
        np.testing.assert_allclose(actual, desired, atol=tolerance * scale, rtol=0)


def _ways():
    """Return a method of each way of exposing a model, and those that run it on other inputs."""
    known = {name: ke.methods.registration(name) for name in METHODS}
    ways = {(str(r.expose), r.family, r.needs): name for name, r in known.items()}
    return {*ways.values(), *COMPILED, "ablationcam", "integrated_gradients"}


ALL_KINDS = [*zoo.KINDS, "loaded", "channels_first"]
# Methods that expose a model alike get the same from all kinds but these, whose inputs, precision
# or gradients are others.
APART = ("functional", "siamese", "several_inputs", "several_outputs", "subclassed_with_tensorflow")
APART += ("mixed_float16", "mixed_bfloat16", "channels_first")


@pytest.mark.parametrize(
    ("method", "kind"),
    [(m, k) for m in METHODS for k in (ALL_KINDS if m in _ways() else APART)],
)
def test_maps_are_those_of_the_functional_model_and_the_model_is_left_as_found(method, kind):
    specimen = _specimen(kind)
    needs = ke.methods.registration(method).needs
    if needs == "linear head" and not specimen.linear_head:
        with pytest.raises(ValueError, match=r"one linear layer away.*Use `gradcam`"):
            _explain(method, specimen)
        return
    before = zoo.fingerprint(specimen.model)
    logits, maps = _explain(method, specimen, run_eagerly=method not in COMPILED)
    assert zoo.fingerprint(specimen.model) == before
    assert logits.dtype == maps.dtype == np.float32
    _close(logits, zoo.logits(), specimen.tolerance)
    _close(maps, _reference(method), specimen.tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_indices_slice_the_map_of_all_units(method):
    specimen, mode = _specimen("functional"), {"run_eagerly": method not in COMPILED}
    all_logits, all_maps = _explain(method, specimen)
    argmax = all_logits.argmax(-1)[:, None]
    for y in (2, [4, 0, 3], [[1, 0], [2, 2], [4, 3]], "argmax"):
        logits, maps = _explain(method, specimen, y, **mode)
        taken = argmax if y == "argmax" else np.reshape(y, (-1, 1)) if np.ndim(y) < 2 else y
        taken = np.broadcast_to(taken, (3, np.shape(taken)[1]))
        np.testing.assert_allclose(logits, np.take_along_axis(all_logits, taken, 1), rtol=1e-6)
        expected = np.take_along_axis(all_maps, taken[:, None, None], 3)
        scale = np.abs(all_maps).max()
        np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_samples_one_by_one(method):
    specimen = _specimen("functional")
    options = {"postprocessing": None, "resizing": False}
    _, together = ke.explain(method, specimen.model, specimen.x, **options)
    scale = np.abs(together).max()
    for i, image in enumerate(specimen.x):
        _, alone = ke.explain(method, specimen.model, image[None], **options)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("mode", [{"run_eagerly": True}, {"jit_compile": True}])
@pytest.mark.parametrize("method", METHODS)
def test_eager_and_xla_equal_graph(method, mode):
    logits, maps = _explain(method, _specimen("nested_with_pooling"), **mode)
    _close(logits, zoo.logits(), 1e-5)
    _close(maps, _reference(method), 1e-5)


def _on_two_replicas():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        return zoo.functional()


WAYS = {
    "graph": (zoo.functional, {}),
    "eager": (zoo.functional, {"run_eagerly": True}),
    "xla": (zoo.functional, {"jit_compile": True}),
    "replicas": (_on_two_replicas, {}),
    "mixed_float16": (zoo.KINDS["mixed_float16"], {}),
    "mixed_bfloat16": (zoo.KINDS["mixed_bfloat16"], {}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["gradcam", "layercam", "minmax_gradcam", "d_minmaxcam"])
def test_units_side_by_side_have_the_maps_of_each(method, way, monkeypatch):
    expected, used, side_by_side = _reference(method), [], tf.vectorized_map
    monkeypatch.setattr(tf, "vectorized_map", lambda f, c: used.append(1) or side_by_side(f, c))
    monkeypatch.setattr(_units, "_FEW", 1)
    build, options = WAYS[way]
    specimen = build()
    # Two units of a batch of three: the last chunk is filled up.
    options = {"max_bytes": 2 * 4 * 3 * zoo.KERNELS, **options}
    _close(_explain(method, specimen, **options)[1], expected, specimen.tolerance)
    assert used
