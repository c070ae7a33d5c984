"""Every method on every kind of model returns what the NumPy oracle says."""

import numpy as np
import pytest

import keras_explainable as ke
from tests import zoo

ACTIVATIONS = zoo.activations()
RAW_CAM = np.einsum("bhwk,ku->bhwu", ACTIVATIONS, zoo.HEAD)
# Given, so that mixed precision can't move a probability over the threshold.
DETECTED = np.array([[1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], "float32")


def _minmaxcam():
    weights = np.empty((3, zoo.KERNELS, zoo.UNITS))
    for b, d in enumerate(DETECTED):
        for u in range(zoo.UNITS):
            others = sum(d[n] * zoo.HEAD[:, n] for n in range(zoo.UNITS) if n != u)
            weights[b, :, u] = zoo.HEAD[:, u] - others / max(d.sum() - 1, 1)
    return np.einsum("bhwk,bku->bhwu", ACTIVATIONS, weights)


def _d_minmaxcam():
    weights = np.empty((3, zoo.KERNELS, zoo.UNITS))
    for b, d in enumerate(DETECTED):
        present = zoo.HEAD @ d
        for u in range(zoo.UNITS):
            others = present - d[u] * zoo.HEAD[:, u]
            weights[b, :, u] = (
                np.maximum(zoo.HEAD[:, u], 0)
                - np.maximum(others, 0) / max(d.sum() - 1, 1)
                + np.minimum(present, 0) / max(d.sum(), 1)
            )
    return np.einsum("bhwk,bku->bhwu", ACTIVATIONS, weights)


ORACLES = {
    "gradients": lambda: np.abs(zoo.input_gradients()).max(axis=-2),
    "cam": lambda: RAW_CAM,
    "gradcam": lambda: RAW_CAM / zoo.SIZE**2,
    "minmaxcam": _minmaxcam,
    "d_minmaxcam": _d_minmaxcam,
}
NEEDS_LINEAR_HEAD = ("cam", "minmaxcam", "d_minmaxcam")


def _explain(method, specimen, **options):
    options = {"postprocessing": None, "resizing": False, **specimen.options, **options}
    if method == "gradients":
        options.pop("layer", None)
    if "minmax" in method:
        options["detections"] = DETECTED
    logits, maps = ke.explain(method, specimen.model, specimen.x, **options)
    image = specimen.image if method == "gradients" else None
    return logits, maps if image is None else maps[image]


def _close(actual, desired, tolerance):
    if tolerance > 1e-4:
        # In half precision a value near zero may pass the other side of a ReLU.
        assert np.linalg.norm(actual - desired) < tolerance * np.linalg.norm(desired)
    else:
        scale = np.abs(desired).max()
        np.testing.assert_allclose(actual, desired, atol=tolerance * scale, rtol=0)


def test_every_method_has_an_oracle():
    assert set(ORACLES) == set(ke.methods.names())


@pytest.mark.parametrize("kind", [*zoo.KINDS, "loaded"])
@pytest.mark.parametrize("method", ORACLES)
def test_maps_are_those_of_the_oracle(method, kind, tmp_path):
    specimen = zoo.loaded(tmp_path) if kind == "loaded" else zoo.KINDS[kind]()
    if method in NEEDS_LINEAR_HEAD and not specimen.linear_head:
        with pytest.raises(ValueError, match=r"one linear layer away.*Use `gradcam`"):
            _explain(method, specimen)
        return
    logits, maps = _explain(method, specimen)
    assert logits.dtype == maps.dtype == np.float32
    _close(logits, zoo.logits(), specimen.tolerance)
    _close(maps, ORACLES[method](), specimen.tolerance)


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize("y", [2, [4, 0, 3], [[1, 0], [2, 2], [4, 3]], "argmax"])
def test_indices_slice_the_map_of_all_units(method, y):
    specimen = zoo.functional()
    all_logits, all_maps = _explain(method, specimen)
    logits, maps = _explain(method, specimen, y=y)
    taken = (
        all_logits.argmax(-1)
        if y == "argmax"
        else np.broadcast_to(np.asarray(y).T, (3,)).T
        if np.ndim(y) < 2
        else np.asarray(y)
    )
    taken = taken[:, None] if taken.ndim == 1 else taken
    np.testing.assert_allclose(logits, np.take_along_axis(all_logits, taken, 1), rtol=1e-6)
    expected = np.take_along_axis(all_maps, taken[:, None, None], 3)
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ORACLES)
def test_a_batch_equals_its_samples_one_by_one(method):
    specimen = zoo.functional()
    options = {"postprocessing": None, "resizing": False}
    _, together = ke.explain(method, specimen.model, specimen.x, **options)
    for i, image in enumerate(specimen.x):
        _, alone = ke.explain(method, specimen.model, image[None], **options)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", [{"run_eagerly": True}, {"jit_compile": True}])
@pytest.mark.parametrize("method", ORACLES)
def test_eager_and_xla_equal_graph(method, mode):
    specimen = zoo.nested_with_pooling()
    logits, maps = _explain(method, specimen, **mode)
    _close(logits, zoo.logits(), 1e-5)
    _close(maps, ORACLES[method](), 1e-5)
