"""Images that maximise classes of a trained network are of these classes, and can be read."""

import re
from pathlib import Path

import numpy as np
import pytest

import keras_explainable as ke
from tests.real import photographs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]
UNITS = [19, 107, 934]  # Chickadee, jellyfish, hot dog.
PAGE = Path(__file__).parents[2] / "docs" / "features.md"


def _share_of_high_frequencies(images):
    """Return the share of the power beyond a quarter of a cycle per pixel."""
    power = np.abs(np.fft.fft2(images - images.mean((1, 2), keepdims=True), axes=(1, 2))) ** 2
    rows, columns = np.meshgrid(*[np.fft.fftfreq(images.shape[1])] * 2, indexing="ij")
    return power[:, np.hypot(rows, columns) > 0.25].sum() / power.sum()


def test_images_of_classes_are_recognised_after_shifts_and_smooth():
    network = photographs.module("mobilenet_v2")
    weights = photographs.WEIGHTS / "mobilenet_v2_imagenet.npz"
    model = network.load(weights, classifier_activation="softmax", input_shape=(160, 160, 3))
    options = {"value_range": (-1, 1), "num_steps": 48, "verbose": 0}

    def probabilities(images):
        return model.predict(images, verbose=0)[range(len(UNITS)), UNITS]

    images, _ = ke.maximize_activation(model, UNITS, **options)
    assert (probabilities(images) > 0.9).all()
    assert (probabilities(np.roll(images, (3, 3), axis=(1, 2))) > 0.9).all()
    assert _share_of_high_frequencies(images) < 0.1

    # Without all that, a model is as sure, of noise that says nothing to it once it is shifted.
    bare = {"parametrization": "pixel", "blur": 0, "jitter": 0}
    images, _ = ke.maximize_activation(model, UNITS, **options, **bare)
    assert (probabilities(images) > 0.9).all()
    shifted = probabilities(np.roll(images, (3, 3), axis=(1, 2)))
    assert (shifted < 0.5).all()
    page = " ".join(PAGE.read_text("utf-8").split())
    stated = re.search(r"steps, and ([\d.]+), ([\d.]+) and ([\d.]+) once they are shifted", page)
    np.testing.assert_allclose(shifted, np.array(stated.groups(), float), atol=0.05)
    assert _share_of_high_frequencies(images) > 0.3
