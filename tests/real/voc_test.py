"""Maps of trained networks lie on the objects of PASCAL VOC photographs.

`python -m tests.real.voc_test` measures again, and prints the tables of `docs/real_models.md`.
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


class Row(NamedTuple):
    """A method, how it is run, and what was measured."""

    method: str  # its name, or that of a meta method with that of a method, "meta(method)"
    measured: Measured
    options: dict = {}
    every: int = 1  # the pairs of every n-th photograph are explained
    tested: Measured | None = None  # the same for the photographs which the tests explain

    @property
    def name(self):
        """The method with its options, as in "tta(gradcam, flip=False)"."""
        outer, bracket, inner = self.method.partition("(")
        arguments = [inner.rstrip(")")] if bracket else []
        arguments += [f"{name}={value}" for name, value in self.options.items()]
        return f"{outer}({', '.join(arguments)})" if arguments else outer

    def resolve(self):
        """Return the method, and the options that are left to set."""
        if "(" not in self.method:
            return self.method, dict(self.options)
        meta, method = self.method.rstrip(")").split("(")
        return ke.methods.get_meta(meta)(method, **self.options), {}


# The tests allow for a change of this part of the distance from a uniform map, and of this share of
# the energy in any case.
SLACK, LEAST = 0.05, 0.003
# The tests explain every fourth photograph, and of methods of many passes every eighth.
TESTED, TESTED_OF_MANY_PASSES = 4, 8
# On a linear head after the pooling of rectified activations, methods that are the same, and
# whether the first is an average over positions where the second is a sum.
SAME = [
    ("gradcam", "cam", True),
    ("hirescam", "gradcam", False),
    ("xgradcam", "gradcam", False),
    ("gradcam_elementwise", "layercam", False),
    ("minmax_gradcam", "minmaxcam", True),
    ("d_minmax_gradcam", "d_minmaxcam", True),
]
# On MobileNetV2, whose head is linear, `properties_test` compares their maps.
COMPARED = {method for method, *_ in SAME if method != "gradcam"}
# To add a method, add its row, with any numbers, and copy those that this module prints.
MEASURED = {
    "DeepLabV3": [
        Row(
            "gradcam",
            Measured(97, 66, 0.2328, 0.1791, 0.1691, 0.1652),
            tested=Measured(22, 12, 0.25493, 0.21892, 0.19202, 0.19188),
        ),
        Row(
            "layercam",
            Measured(97, 66, 0.2058, 0.1676, 0.1691, 0.1652),
            tested=Measured(22, 12, 0.23048, 0.20573, 0.19202, 0.19188),
        ),
        Row(
            "eigencam",
            Measured(97, 66, 0.1693, 0.0916, 0.1691, 0.1652),
            tested=Measured(22, 12, 0.26119, 0.24691, 0.19202, 0.19188),
        ),
        Row(
            "eigen_gradcam",
            Measured(97, 66, 0.4303, 0.2694, 0.1691, 0.1652),
            tested=Measured(22, 12, 0.49703, 0.34917, 0.19202, 0.19188),
        ),
        Row(
            "minmaxcam",
            Measured(97, 66, 0.3790, 0.0345, 0.1691, 0.1652),
            tested=Measured(22, 12, 0.39684, 0.09485, 0.19202, 0.19188),
        ),
        Row(
            "d_minmaxcam",
            Measured(97, 66, 0.4512, 0.0581, 0.1691, 0.1652),
            tested=Measured(22, 12, 0.42877, 0.16687, 0.19202, 0.19188),
        ),
        Row(
            "gradients",
            Measured(97, 66, 0.2174, 0.1933, 0.1691, 0.1652),
            tested=Measured(22, 12, 0.25968, 0.24127, 0.19202, 0.19188),
        ),
    ],
    "DeepLabV3, background detected": [
        Row(
            "minmaxcam",
            Measured(97, 66, 0.7350, 0.0839, 0.1691, 0.1652),
            tested=Measured(22, 12, 0.76192, 0.17700, 0.19202, 0.19188),
        ),
        Row(
            "d_minmaxcam",
            Measured(97, 66, 0.6879, 0.1137, 0.1691, 0.1652),
            tested=Measured(22, 12, 0.69176, 0.23739, 0.19202, 0.19188),
        ),
    ],
    "MobileNetV2": [
        Row(
            "cam",
            Measured(63, 43, 0.3653, 0.1651, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.38275, 0.26341, 0.22091, 0.20760),
        ),
        Row(
            "gradcam",
            Measured(63, 43, 0.3653, 0.1651, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.38275, 0.26341, 0.22091, 0.20760),
        ),
        Row("gradcam", Measured(14, 7, 0.3827, 0.2634, 0.2209, 0.2076), every=4),
        Row(
            "hirescam",
            Measured(63, 43, 0.3653, 0.1651, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.38275, 0.26341, 0.22091, 0.20760),
        ),
        Row(
            "xgradcam",
            Measured(63, 43, 0.3653, 0.1651, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.38275, 0.26341, 0.22091, 0.20760),
        ),
        Row(
            "gradcampp",
            Measured(63, 43, 0.3208, 0.1836, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.34363, 0.25795, 0.22091, 0.20760),
        ),
        Row(
            "layercam",
            Measured(63, 43, 0.3212, 0.1837, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.34446, 0.25870, 0.22091, 0.20760),
        ),
        Row(
            "gradcam_elementwise",
            Measured(63, 43, 0.3212, 0.1837, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.34446, 0.25870, 0.22091, 0.20760),
        ),
        Row("zoomcam", Measured(14, 7, 0.2957, 0.2380, 0.2209, 0.2076), every=4),
        Row(
            "eigencam",
            Measured(63, 43, 0.3519, 0.2509, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.38507, 0.31662, 0.22091, 0.20760),
        ),
        Row(
            "eigen_gradcam",
            Measured(63, 43, 0.4135, 0.2231, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.43432, 0.31904, 0.22091, 0.20760),
        ),
        Row("ablationcam", Measured(14, 7, 0.3569, 0.2759, 0.2209, 0.2076), every=4),
        Row(
            "scorecam",
            Measured(14, 7, 0.3510, 0.2787, 0.2209, 0.2076),
            {"top_k": 32},
            every=4,
            tested=Measured(8, 4, 0.29237, 0.22518, 0.14694, 0.11257),
        ),
        Row(
            "minmaxcam",
            Measured(63, 43, 0.4036, 0.1091, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.39316, 0.21808, 0.22091, 0.20760),
        ),
        Row(
            "minmax_gradcam",
            Measured(63, 43, 0.4036, 0.1091, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.39316, 0.21808, 0.22091, 0.20760),
        ),
        Row(
            "d_minmaxcam",
            Measured(63, 43, 0.4152, 0.1073, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.41383, 0.19276, 0.22091, 0.20760),
        ),
        Row(
            "d_minmax_gradcam",
            Measured(63, 43, 0.4152, 0.1073, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.41383, 0.19276, 0.22091, 0.20760),
        ),
        Row(
            "gradients",
            Measured(63, 43, 0.3005, 0.1939, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.32718, 0.25709, 0.22091, 0.20760),
        ),
        Row("gradients", Measured(14, 7, 0.3272, 0.2571, 0.2209, 0.2076), every=4),
        Row(
            "input_x_gradient",
            Measured(63, 43, 0.3172, 0.2134, 0.21484, 0.1405),
            tested=Measured(14, 7, 0.32996, 0.30595, 0.22091, 0.20760),
        ),
        Row(
            "integrated_gradients",
            Measured(14, 7, 0.3591, 0.3040, 0.2209, 0.2076),
            {"num_steps": 16},
            every=4,
            tested=Measured(8, 4, 0.28465, 0.25942, 0.14694, 0.11257),
        ),
        Row("full_gradients", Measured(14, 7, 0.3188, 0.2528, 0.2209, 0.2076), every=4),
        Row("guided_backprop", Measured(14, 7, 0.4750, 0.3172, 0.2209, 0.2076), every=4),
        Row("deconvnet", Measured(14, 7, 0.2527, 0.2217, 0.2209, 0.2076), every=4),
        Row(
            "gnl_integrated_gradients",
            Measured(14, 7, 0.4795, 0.3580, 0.2209, 0.2076),
            {"num_steps": 16},
            every=4,
            tested=Measured(8, 4, 0.43661, 0.34976, 0.14694, 0.11257),
        ),
        Row("lrp", Measured(14, 7, 0.5845, 0.3534, 0.2209, 0.2076), every=4),
        Row(
            "lrp",
            Measured(14, 7, 0.3445, 0.3111, 0.2209, 0.2076),
            {"composite": "epsilon"},
            every=4,
        ),
        Row("guided(gradcam)", Measured(14, 7, 0.5632, 0.3061, 0.2209, 0.2076), every=4),
        Row(
            "smooth(gradients)",
            Measured(14, 7, 0.3400, 0.2442, 0.2209, 0.2076),
            {"num_samples": 8},
            every=4,
            tested=Measured(8, 4, 0.28882, 0.16562, 0.14694, 0.11257),
        ),
        Row(
            "smooth_taylor(gradients)",
            Measured(14, 7, 0.2932, 0.2388, 0.2209, 0.2076),
            {"num_samples": 16},
            every=4,
            tested=Measured(8, 4, 0.23652, 0.14901, 0.14694, 0.11257),
        ),
    ],
    "MobileNetV2, any size": [
        Row("tta(gradcam)", Measured(14, 7, 0.3217, 0.2609, 0.2209, 0.2076), every=4),
        Row(
            "tta(gradcam)",
            Measured(14, 7, 0.3552, 0.2604, 0.2209, 0.2076),
            {"normalize": True},
            every=4,
        ),
    ],
}


@functools.lru_cache(maxsize=1)
def _deeplab():
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
    return Case(model, np.stack(x), np.stack(masks), images, labels, labels, detections)


def deeplab(background=False):
    """Return DeepLabV3 with a CAM head; for want of probabilities, labels say what is present.

    Args:
        background: whether the background, which has a unit of its own, counts as present.
    """
    case = _deeplab()
    detections = case.detections.copy()
    detections[:, 0] = background
    return case._replace(detections=detections)


def mobilenet(size=448, fixed=True):
    """Return a sigmoid head on a nested MobileNetV2, and the classes that it rightly detects.

    Args:
        size: height and width of the photographs.
        fixed: whether the model takes no other size.
    """
    model, preprocess = photographs.voc_classifier(size if fixed else None)
    _, entries = photographs.voc()
    x = [preprocess(photographs.stretch(image, size)) for _, image, _, _ in entries]
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
    "MobileNetV2, any size": functools.partial(mobilenet, fixed=False),
}


def explain(case, row):
    """Return the pairs that a row takes, and their maps at the size of the input.

    Maps that are shown by their magnitude are measured by it, others by their positive part.

    Returns:
        pairs: boolean `(all pairs,)`.
        maps: `(pairs, height, width)`.
    """
    pairs = case.images % row.every == 0
    images, (method, options) = case.images[pairs], row.resolve()
    known = ke.methods.registration(method)
    if "detections" in known.sample_options and case.detections is not None:
        options["detections"] = case.detections[images]
    signed = known.postprocessing == "absolute_normalize"
    options |= {"postprocessing": "absolute" if signed else "positive"}
    options |= {"batch_size": 8, "verbose": 0}
    _, maps = ke.explain(method, case.model, case.x[images], case.units[pairs], **options)
    return pairs, maps[..., 0]


def measure(case, row):
    """Return where the energy of the maps of a method lies, on average."""
    pairs, maps = explain(case, row)
    masks = case.masks[case.images[pairs]]
    valid, own = masks != photographs.VOID, masks == case.labels[pairs, None, None]
    others = valid & ~own & (masks != 0)
    several = others.any((1, 2))

    def average(maps):
        inside = photographs.energy_share(maps, own, valid)
        outside = photographs.energy_share(maps[several], others[several], valid[several])
        return inside.mean(), outside.mean()

    return Measured(len(own), several.sum(), *average(maps), *average(np.ones_like(masks)))


def _tested(row):
    """Return what the tests measure of a row."""
    return row._replace(every=TESTED_OF_MANY_PASSES if _has_many_passes(row) else TESTED)


def _has_many_passes(row):
    """Tell whether a method takes some ten passes or more for a map."""
    return bool({"num_steps", "num_samples", "top_k"} & set(row.options))


def tables(measured):
    """Return the tables of `docs/real_models.md`, one for each network and number of pairs."""
    groups = {}
    for network, rows in measured.items():
        for row in rows:
            m = row.measured
            # What a constant map has is the same for all methods of a group.
            uniform = f"{m.uniform:.3f} in the object and {m.uniform_others:.3f} in others"
            counts = f"{m.pairs} pairs, {m.several} of them with others"
            cells = f"{m.own:.3f} | {m.own / m.uniform:.2f} | {m.others:.3f}"
            lines = groups.setdefault(f"**{network}**: {counts}. A constant map: {uniform}.", [])
            lines.append(f"| `{row.name}` | {cells} |\n")
    head = "| Method | In the object | Ratio | In others |\n| --- | ---: | ---: | ---: |\n"
    return "\n".join(f"{title}\n\n{head}{''.join(lines)}" for title, lines in groups.items())


def test_documentation_states_what_the_tests_expect():
    assert tables(MEASURED) in DOCUMENT.read_text("utf-8")


def test_what_is_measured_exists():
    every = {row.method for rows in MEASURED.values() for row in rows}
    assert {name for name in every if "(" not in name} <= set(ke.methods.names())
    assert {name.split("(")[0] for name in every if "(" in name} <= set(ke.methods.meta_names())


@functools.lru_cache(maxsize=1)
def _case(network):
    """Return the case of a network, that the rows of the network share."""
    return NETWORKS[network]()


def _rows():
    """Yield each network with the rows that the tests measure, none of them twice."""
    for network, rows in MEASURED.items():
        taken = {}
        for row in rows:
            if network != "MobileNetV2" or row.method not in COMPARED:
                taken.setdefault(row.name, row)
        yield from ((network, row) for row in taken.values())


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    ("network", "row"),
    [
        pytest.param(network, row, id=f"{network}-{row.name}-{row.measured.pairs}")
        for network, row in _rows()
    ],
)
def test_energy_of_maps_lies_where_it_was_measured(network, row):
    expected, measured = row.tested or row.measured, measure(_case(network), _tested(row))
    assert measured[:2] == expected[:2]
    np.testing.assert_allclose(measured[4:], expected[4:], atol=1e-3)
    distances = [expected.own - expected.uniform, expected.others - expected.uniform_others]
    allowed = np.maximum(SLACK * np.abs(distances), LEAST)
    now = [measured.own - measured.uniform, measured.others - measured.uniform_others]
    assert (np.abs(np.subtract(now, distances)) <= allowed).all(), measured


@pytest.mark.parametrize(("method", "same"), [pair[:2] for pair in SAME])
def test_rows_of_methods_that_are_the_same_are_equal(method, same):
    rows = {row.method: row for row in MEASURED["MobileNetV2"] if row.every == 1}
    for one, other in zip(rows[method][1:], rows[same][1:], strict=True):
        if isinstance(one, Measured):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_rows_of_a_part_are_what_is_tested_of_the_whole():
    rows = MEASURED["MobileNetV2"]
    whole = {row.name: row.tested for row in rows if row.every == 1}
    parts = [row for row in rows if row.every == TESTED and row.name in whole]
    assert parts
    for row in parts:
        np.testing.assert_allclose(row.measured, whole[row.name], atol=1e-4)


@pytest.mark.parametrize("network", ["DeepLabV3", "MobileNetV2"])
def test_minmax_turns_away_from_other_objects(network):
    found = {row.method: row.measured for row in MEASURED[network] if row.every == 1}
    contrasted = [measured for method, measured in found.items() if "minmax" in method]
    assert contrasted
    for measured in contrasted:
        assert measured.others < min(measured.uniform_others, found["gradcam"].others)


def source(row):
    """Return a row as it stands in this file."""
    more = f", {row.options}" if row.options else ""
    more += f", every={row.every}" if row.every > 1 else ""
    more += f", tested={_rounded(row.tested)}" if row.tested else ""
    return f'Row("{row.method}", {_rounded(row.measured)}{more}),'


def _rounded(measured):
    shares = ", ".join(f"{share:.5f}" for share in measured[2:])
    return f"Measured({measured.pairs}, {measured.several}, {shares})"


def measure_again():
    """Measure everything, and print the rows for this file and the tables for the document."""
    found = {network: [] for network in MEASURED}
    for network, rows in MEASURED.items():
        case = NETWORKS[network]()
        sys.stdout.write(f'"{network}":\n')
        for row in rows:
            tested = measure(case, _tested(row)) if row.every != _tested(row).every else None
            row = row._replace(measured=measure(case, row), tested=tested)
            found[network].append(row)
            sys.stdout.write(f"{source(row)}\n")
            sys.stdout.flush()
    sys.stdout.write(tables(found))


if __name__ == "__main__":
    measure_again()
