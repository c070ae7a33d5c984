"""Maps of the score of a class over a region lie in that region of PASCAL VOC photographs.

`python -m tests.real.segmentation_test` measures again, and prints the table of
`docs/real_models.md`.
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
# What enters the pooling pyramid, and what enters the 1×1 convolution that makes the scores.
BOTTLENECK, LAST = None, "concat_projection_relu"
NAMES = {BOTTLENECK: "`block_16_project` (default)", LAST: f"`{LAST}`"}
# As in `voc_test`.
SLACK, LEAST = 0.05, 0.003


class Case(NamedTuple):
    """The network, its photographs, and the pairs of a photograph and a present class."""

    model: keras.Model
    x: np.ndarray  # (photographs, height, width, channels)
    masks: np.ndarray  # (photographs, height, width): class of VOC, 0 background, 255 void
    predicted: np.ndarray  # (photographs, height, width): class predicted
    images: np.ndarray  # (pairs,): photograph of each pair
    labels: np.ndarray  # (pairs,): class of each pair


class Measured(NamedTuple):
    """Mean share of the energy of maps in the region explained, void and padding left out."""

    pairs: int
    inside: float
    uniform: float  # of a map of ones: the share of the area


class Row(NamedTuple):
    """A region, a method, its layer, and what was measured."""

    region: str  # "predicted" or "labelled"
    method: str
    layer: str | None
    measured: Measured
    fourth: Measured  # of every fourth photograph, which is what the tests measure


# To add a method, add its row, with any numbers, and copy those that this module prints.
MEASURED = [
    Row(
        "predicted",
        "gradcam",
        BOTTLENECK,
        Measured(86, 0.35320, 0.17537),
        Measured(20, 0.38527, 0.18353),
    ),
    Row(
        "predicted", "gradcam", LAST, Measured(86, 0.24376, 0.17537), Measured(20, 0.24934, 0.18353)
    ),
    Row(
        "predicted",
        "hirescam",
        BOTTLENECK,
        Measured(86, 0.56884, 0.17537),
        Measured(20, 0.57633, 0.18353),
    ),
    Row(
        "predicted",
        "layercam",
        BOTTLENECK,
        Measured(86, 0.59502, 0.17537),
        Measured(20, 0.59268, 0.18353),
    ),
    Row(
        "predicted",
        "layercam",
        LAST,
        Measured(86, 0.88541, 0.17537),
        Measured(20, 0.88337, 0.18353),
    ),
    Row(
        "predicted",
        "gradients",
        BOTTLENECK,
        Measured(86, 0.26423, 0.17537),
        Measured(20, 0.28598, 0.18353),
    ),
    Row(
        "labelled",
        "gradcam",
        BOTTLENECK,
        Measured(97, 0.34401, 0.16912),
        Measured(22, 0.39315, 0.19202),
    ),
    Row(
        "labelled", "gradcam", LAST, Measured(97, 0.23275, 0.16912), Measured(22, 0.25493, 0.19202)
    ),
    Row(
        "labelled",
        "hirescam",
        BOTTLENECK,
        Measured(97, 0.56593, 0.16912),
        Measured(22, 0.58783, 0.19202),
    ),
    Row(
        "labelled",
        "layercam",
        BOTTLENECK,
        Measured(97, 0.58918, 0.16912),
        Measured(22, 0.60438, 0.19202),
    ),
    Row(
        "labelled", "layercam", LAST, Measured(97, 0.89542, 0.16912), Measured(22, 0.90066, 0.19202)
    ),
    Row(
        "labelled",
        "gradients",
        BOTTLENECK,
        Measured(97, 0.26884, 0.16912),
        Measured(22, 0.30709, 0.19202),
    ),
]


@functools.lru_cache(maxsize=1)
def deeplab():
    """Return DeepLabV3, whose output is `(33, 33, 21)`, and the photographs."""
    network = photographs.module("deeplab_voc")
    weights = photographs.WEIGHTS / "deeplabv3_mnv2_voc.npz"
    model = network.load(weights, head="segmentation", activation="softmax")
    _, entries = photographs.voc()
    x, masks, pairs = [], [], []
    for i, (_, image, mask, present) in enumerate(entries):
        pixels, part = network.letterbox(image)
        x.append(network.preprocess(pixels))
        masks.append(photographs.letterbox_mask(mask, len(pixels), part))
        pairs += [(i, label) for label in present]
    x, masks = np.stack(x), np.stack(masks)
    classes = model.predict(x, batch_size=8, verbose=0).argmax(-1)
    near = ((np.arange(x.shape[1]) + 0.5) * classes.shape[1] / x.shape[1]).astype(int)
    predicted = classes[:, near][:, :, near]
    return Case(model, x, masks, predicted, *np.array(pairs).T)


def measure(case, row, every=1):
    """Return where the energy of the maps of a row lies, on average over every n-th photograph."""
    regions = case.predicted if row.region == "predicted" else case.masks
    inside = regions[case.images] == case.labels[:, None, None]
    valid = case.masks[case.images] != photographs.VOID
    # What isn't predicted anywhere has no region.
    taken = (inside & valid).any((1, 2)) & (case.images % every == 0)
    inside, valid, images = inside[taken], valid[taken], case.images[taken]
    region = inside if row.region == "labelled" else "predicted"
    options = {} if row.layer is None else {"layer": row.layer}
    _, maps = ke.explain(
        row.method,
        case.model,
        case.x[images],
        case.labels[taken],
        output=ke.targets.segment(region),
        postprocessing="positive",
        batch_size=8,
        verbose=0,
        **options,
    )
    share = photographs.energy_share(maps[..., 0], inside, valid).mean()
    uniform = photographs.energy_share(np.ones_like(valid, "float32"), inside, valid).mean()
    return Measured(len(images), share, uniform)


def table(measured):
    """Return the table of `docs/real_models.md`."""
    heads = ["Region", "Method", "Layer", "Pairs", "In the region", "Uniform", "Ratio"]
    lines = [[*heads, "Difference"], ["---"] * 3 + ["---:"] * 5]
    for row in measured:
        m = row.measured
        layer = "" if row.method == "gradients" else NAMES[row.layer]
        numbers = [f"{m.inside:.3f}", f"{m.uniform:.3f}", f"{m.inside / m.uniform:.2f}"]
        numbers += [f"{m.inside - m.uniform:+.3f}"]
        lines.append([row.region, f"`{row.method}`", layer, str(m.pairs), *numbers])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def test_documentation_states_what_the_tests_expect():
    assert table(MEASURED) in DOCUMENT.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(map(str, row[:3])))
def test_energy_of_maps_lies_in_the_region_explained(row):
    measured, expected = measure(deeplab(), row, every=4), row.fourth
    assert measured.pairs == expected.pairs
    assert measured.uniform == pytest.approx(expected.uniform, abs=1e-3)
    distance = expected.inside - expected.uniform
    allowed = max(SLACK * abs(distance), LEAST)
    assert measured.inside - measured.uniform == pytest.approx(distance, abs=allowed)


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_the_mean_over_all_positions_is_explained_like_the_head_that_takes_it():
    network = photographs.module("deeplab_voc")
    weights = photographs.WEIGHTS / "deeplabv3_mnv2_voc.npz"
    case, classifier = deeplab(), network.load(weights, head="cam")
    x, labels = case.x[case.images[:4]], case.labels[:4]
    options = {"layer": LAST, "postprocessing": None, "resizing": False}
    target = ke.targets.segment("all")
    logits, maps = ke.gradcam(case.model, x, labels, output=target, **options)
    wanted_logits, wanted = ke.gradcam(classifier, x, labels, **options)
    np.testing.assert_allclose(logits, wanted_logits, atol=1e-4)
    assert np.abs(maps - wanted).max() <= 1e-4 * np.abs(wanted).max()
    # What enters a 1×1 convolution gives the scores, less their bias, whatever the region.
    scores = ke.inspection.expose(case.model, (), "semantic").predict(x, verbose=0)
    bias = case.model.get_layer("semantic").bias.numpy()
    scores = np.take_along_axis(scores - bias, labels[:, None, None, None], -1)
    for region in ("all", "predicted"):
        target = ke.targets.segment(region)
        _, maps = ke.gradcam(case.model, x, labels, output=target, **options)
        assert np.abs(maps * 33**2 - scores).max() <= 1e-4 * np.abs(scores).max()


def measure_again():
    """Measure everything, and print the rows for this file and the table for the document."""
    found = []
    for row in MEASURED:
        measured = [measure(deeplab(), row, every) for every in (1, 4)]
        found.append(row._replace(measured=measured[0], fourth=measured[1]))
        layer = {BOTTLENECK: "BOTTLENECK", LAST: "LAST"}[row.layer]
        numbers = [f"Measured({m.pairs}, {m.inside:.5f}, {m.uniform:.5f})" for m in measured]
        numbers = ", ".join(numbers)
        sys.stdout.write(f'    Row("{row.region}", "{row.method}", {layer}, {numbers}),\n')
        sys.stdout.flush()
    sys.stdout.write(table(found))


if __name__ == "__main__":
    measure_again()
