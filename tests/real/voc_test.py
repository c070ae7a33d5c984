"""Maps of trained networks lie on the objects of PASCAL VOC photographs.

`python -m tests.real.voc_test` measures again, and prints the table of `docs/real_models.md`.
"""

import functools
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest

import keras_explainable as ke
from tests.real import photographs

DOCUMENT = Path(__file__).parents[2] / "docs" / "real_models.md"


class Case(NamedTuple):
    """A network, its photographs, and the pairs of a photograph and a present class to explain."""

    model: keras.Model
    x: np.ndarray  # (photographs, height, width, channels)
    masks: np.ndarray  # (photographs, height, width): class of VOC, 0 background, 255 void
    images: np.ndarray  # (pairs,): photograph of each pair
    labels: np.ndarray  # (pairs,): class of VOC of each pair
    units: np.ndarray  # (pairs,): unit of the network of each pair
    detections: np.ndarray | None  # (photographs, units), or what the network says


class Measured(NamedTuple):
    """Mean share of the energy of maps in masks, where void and padding are left out."""

    pairs: int
    several: int  # pairs of photographs where other classes are present too
    own: float  # over all pairs, in the mask of the class explained
    others: float  # over those several, in the masks of the other classes
    uniform: float  # as `own`, for a map of ones: the share of the area
    uniform_others: float  # as `others`, for a map of ones


# The tests allow for a loss of this part of what was measured as a margin.
SLACK = 0.05
MEASURED = {
    "DeepLabV3": {
        "gradcam": Measured(97, 66, 0.2328, 0.1791, 0.1691, 0.1652),
        "minmaxcam": Measured(97, 66, 0.3790, 0.0345, 0.1691, 0.1652),
        "d_minmaxcam": Measured(97, 66, 0.4512, 0.0581, 0.1691, 0.1652),
        "gradients": Measured(97, 66, 0.2174, 0.1933, 0.1691, 0.1652),
    },
    "DeepLabV3, background detected": {
        "minmaxcam": Measured(97, 66, 0.7350, 0.0839, 0.1691, 0.1652),
        "d_minmaxcam": Measured(97, 66, 0.6879, 0.1137, 0.1691, 0.1652),
    },
    "MobileNetV2": {
        "gradcam": Measured(63, 43, 0.3653, 0.1651, 0.21485, 0.1405),
        "minmaxcam": Measured(63, 43, 0.4036, 0.1091, 0.21485, 0.1405),
        "d_minmaxcam": Measured(63, 43, 0.4152, 0.1073, 0.21485, 0.1405),
        "gradients": Measured(63, 43, 0.3005, 0.1939, 0.21485, 0.1405),
    },
}


def deeplab(background=False):
    """Return DeepLabV3 with a CAM head; for want of probabilities, labels say what is present.

    Args:
        background: whether the background, which has a unit of its own, counts as present.
    """
    network = photographs.module("deeplab_voc")
    model = network.load(photographs.WEIGHTS / "deeplabv3_mnv2_voc.npz", head="cam")
    _, entries = photographs.voc()
    x, masks = [], []
    for _, image, mask, _ in entries:
        pixels, part = network.letterbox(image)
        x.append(network.preprocess(pixels))
        masks.append(photographs.letterbox_mask(mask, len(pixels), part))
    detections = np.zeros((len(entries), model.output_shape[-1]), "float32")
    for row, (*_, present) in zip(detections, entries, strict=True):
        row[present] = 1.0
    images, labels = np.nonzero(detections)
    detections[:, 0] = background
    return Case(model, np.stack(x), np.stack(masks), images, labels, labels, detections)


def mobilenet(size=448):
    """Return a sigmoid head on a nested MobileNetV2, and the classes that it rightly detects."""
    network = photographs.module("mobilenet_v2")
    weights = photographs.WEIGHTS / "mobilenet_v2_imagenet.npz"
    trained = network.load(weights, classifier_activation=None, input_shape=(size, size, 3))
    pooled = trained.get_layer("avg_pool").output
    head = keras.layers.Dense(20, activation="sigmoid", name="predictions")
    model = keras.Sequential(
        [keras.Input((size, size, 3)), keras.Model(trained.input, pooled, name="backbone"), head]
    )
    with np.load(photographs.WEIGHTS / "voc_head_on_mobilenet_v2.npz") as arrays:
        head.set_weights([arrays["predictions.kernel"], arrays["predictions.bias"]])

    _, entries = photographs.voc()
    x = [network.preprocess(photographs.stretch(image, size)) for _, image, _, _ in entries]
    masks = [photographs.stretch_mask(mask, size) for _, _, mask, _ in entries]
    x, masks = np.stack(x), np.stack(masks)
    probabilities = model.predict(x, verbose=0)
    pairs = [
        (image, label)
        for image, (*_, present) in enumerate(entries)
        for label in present
        if probabilities[image, label - 1] > 0.5
    ]
    images, labels = np.array(pairs).T
    return Case(model, x, masks, images, labels, labels - 1, None)  # The head has no background.


NETWORKS = {
    "DeepLabV3": deeplab,
    "DeepLabV3, background detected": functools.partial(deeplab, background=True),
    "MobileNetV2": mobilenet,
}


EVERY_PAIR = slice(None)


def explain(case, method, pairs=EVERY_PAIR, **options):
    """Return the maps of pairs, `(pairs, height, width)`, at the size of the input."""
    images = case.images[pairs]
    if "minmax" in method and case.detections is not None:
        options["detections"] = case.detections[images]
    options = {"postprocessing": "positive", "batch_size": 8, "verbose": 0} | options
    _, maps = ke.explain(method, case.model, case.x[images], case.units[pairs], **options)
    return maps[..., 0]


def measure(case, methods):
    """Return where the energy of the maps of each method lies, on average."""
    masks = case.masks[case.images]
    valid, own = masks != photographs.VOID, masks == case.labels[:, None, None]
    others = valid & ~own & (masks != 0)
    several = others.any((1, 2))

    def average(maps):
        inside = photographs.energy_share(maps, own, valid)
        outside = photographs.energy_share(maps[several], others[several], valid[several])
        return inside.mean(), outside.mean()

    (uniform, uniform_others), counts = average(np.ones_like(masks)), (len(own), several.sum())
    return {
        method: Measured(*counts, *average(explain(case, method)), uniform, uniform_others)
        for method in methods
    }


def table(measurements):
    """Return the table of `docs/real_models.md`, one row for each network and method."""
    heads = ["Network", "Method", "Pairs", "With others", "In the object", "Uniform", "Ratio"]
    heads += ["Difference", "In others", "Uniform"]
    rows = [heads, ["---"] * len(heads)]
    for network, methods in measurements.items():
        for method, m in methods.items():
            own, others = f"{m.own:.3f} | {m.uniform:.3f}", f"{m.others:.3f}"
            margins = f"{m.own / m.uniform:.2f} | {m.own - m.uniform:+.3f}"
            counts, last = f"{m.pairs} | {m.several}", f"{m.uniform_others:.3f}"
            rows.append([network, f"`{method}`", counts, own, margins, others, last])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_documentation_states_what_the_tests_expect():
    assert table(MEASURED) in DOCUMENT.read_text("utf-8")


@pytest.fixture(scope="module", params=MEASURED)
def measurements(shared, request):
    """Return what is expected of a network and what is measured, by method."""
    del shared  # It skips where there are no data.
    expected = MEASURED[request.param]
    return expected, measure(NETWORKS[request.param](), expected)


@pytest.mark.slow
def test_maps_lie_on_the_objects(measurements):
    for method, expected in measurements[0].items():
        measured = measurements[1][method]
        assert measured[:2] == expected[:2], method
        np.testing.assert_allclose(measured[4:], expected[4:], atol=1e-3, err_msg=method)
        margin = expected.own - expected.uniform
        assert measured.own - measured.uniform >= (1 - SLACK) * margin > 0, method


@pytest.mark.slow
def test_minmax_turns_away_from_other_objects(measurements):
    # Grad-CAM doesn't depend on what is detected, so its network stands for its variants.
    expected, measured = measurements
    for method in ("minmaxcam", "d_minmaxcam"):
        margin = expected[method].uniform_others - expected[method].others
        now = measured[method].uniform_others - measured[method].others
        assert now >= (1 - SLACK) * margin > 0, method
        if "gradcam" in expected:
            margin = expected["gradcam"].others - expected[method].others
            now = measured["gradcam"].others - measured[method].others
            assert now >= (1 - SLACK) * margin > 0, method


if __name__ == "__main__":
    found = {name: measure(NETWORKS[name](), methods) for name, methods in MEASURED.items()}
    sys.stdout.write(table(found))
