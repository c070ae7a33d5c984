"""Maps agree with what other libraries return for the same network.

`../shared/goldens/README.md` says how the reference arrays were made, in float64. Run as a module,
`python -m tests.parity.peers_test` prints the table of methods, layers and relative errors.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_explainable as ke
from tests.conftest import SHARED

pytestmark = pytest.mark.usefixtures("_eagerly")

RAW = {"postprocessing": None, "resizing": False}
LAYERS = ("relu2", "relu3")


def _by_layer(method, reference, layers=LAYERS, **options):
    """Return a row for each layer, `{}` in the name of the reference standing for it."""
    return [(method, {"layer": n, **options}, reference.format(n)) for n in layers]


def _rectified(method, reference, layers=LAYERS):
    return _by_layer(method, reference, layers, postprocessing="positive")


# Method, options, reference array.
AGREEMENTS = [
    *_by_layer("gradcam", "pgc/gradcam@{}/raw", (*LAYERS, "conv3")),
    *_by_layer("gradcam", "captum/layer_gradcam@{}", (*LAYERS, "conv3")),
    *_rectified("gradcam", "torchcam/gradcam@{}/raw_relu"),
    *_by_layer("hirescam", "pgc/hirescam@{}/raw"),
    *_by_layer("gradcam_elementwise", "pgc/gradcam_elementwise@{}/raw"),
    *_by_layer("xgradcam", "pgc/xgradcam@{}/raw"),
    *_rectified("xgradcam", "torchcam/xgradcam@{}/raw_relu"),
    *_by_layer("layercam", "pgc/layercam@{}/raw"),
    *_rectified("layercam", "torchcam/layercam@{}/raw_relu"),
    *_by_layer("ablationcam", "pgc/ablationcam@{}/raw", (*LAYERS, "bn3")),
    *_by_layer("eigencam", "pgc/eigencam@{}/raw"),
    ("cam", {}, "torchcam/cam@relu3/raw_relu"),
    ("gradients", {"reduction": None, "postprocessing": "absolute"}, "captum/saliency"),
    ("gradients", {"reduction": None}, "captum/gradient"),
    ("input_x_gradient", {"reduction": None}, "captum/input_x_gradient"),
    *(
        ("integrated_gradients", {"rule": rule, "reduction": None}, f"captum/ig50_{rule}")
        for rule in ("gausslegendre", "riemann_left", "riemann_middle", "riemann_right")
    ),
    (
        "gradcam",
        {"layer": ["relu2", "relu3"], "postprocessing": "positive_normalize"},
        "pgc/gradcam_multi_relu23/out",
    ),
    ("guided_backprop", {"reduction": None}, "captum/guided_backprop"),
    ("guided_backprop", {"reduction": None}, "pgc/guided_backprop"),
    ("deconvnet", {"reduction": None}, "captum/deconvolution"),
    (
        "lrp",
        {
            "composite": "epsilon",
            "epsilon": 1e-9,
            "batch_normalization": "affine",
            "reduction": None,
        },
        "captum/lrp_epsilon",
    ),
    # Resized with half-pixel centres, as here.
    *_by_layer("gradcam", "captum/layer_gradcam@{}/interp_bilinear32", resizing=True),
    *_by_layer("scorecam", "ref/scorecam_haofanwang@{}/raw32", resizing=True),
]


def _flipped(maps, reference):
    """Give each map the sign of the reference, which a linear algebra library chose."""
    return maps * np.sign((maps * reference).sum((1, 2), keepdims=True))


def _gradcampp(references, layer, epsilon=0.0, normalize=False):
    """Compute Grad-CAM++ in NumPy, with something added to the denominator."""
    activations, gradient = references[f"act@{layer}"], references[f"grad@{layer}"]
    total = activations.sum((1, 2), keepdims=True)
    denominator = 2 * gradient**2 + total * gradient**3 + epsilon
    alpha = np.divide(gradient**2, denominator, out=np.zeros_like(gradient), where=denominator != 0)
    positive = np.maximum(gradient, 0)
    if normalize:
        share = (alpha * (positive > 0)).sum((1, 2), keepdims=True)
        alpha = np.divide(alpha, share, out=np.zeros_like(alpha), where=share != 0)
    return np.einsum("bhwk,bk->bhw", activations, (alpha * positive).sum((1, 2)))


def _aligned(maps, size):
    """Resize with the corners aligned."""
    n = maps.shape[1]
    if n == size:
        return maps
    low = np.minimum(np.linspace(0, n - 1, size).astype(int), n - 2)
    part = np.linspace(0, n - 1, size) - low
    maps = maps[:, low] * (1 - part)[:, None] + maps[:, low + 1] * part[:, None]
    return maps[:, :, low] * (1 - part) + maps[:, :, low + 1] * part


def _half_pixel(maps, size):
    return ke.filters.resize(maps[..., None].astype("float32"), (size, size)).numpy()[..., 0]


def _repeated(maps, size):
    times = size // maps.shape[1]
    return maps.repeat(times, 1).repeat(times, 2)


def _fullgrad(terms, axes, epsilon, resize):
    """Aggregate FullGrad's terms as other libraries do."""
    total = 0
    for term in (t[..., 0].astype("float64") for t in terms.values() if t.ndim == 5):
        f = np.abs(term)
        f -= f.min(axes, keepdims=True)
        total = total + resize((f / (f.max(axes, keepdims=True) + epsilon)).sum(-1), 32)
    return total


def _stretched(maps):
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return np.divide(maps - low, high - low, out=np.zeros_like(maps), where=high > low)


def _scorecam(network, references, layer, mask, constant=True):
    """Compute Score-CAM with the softmax over channels, constant ones taken in or not."""
    x, targets = references["x"], references["targets"]
    logits = ke.inspection.expose(network, ())
    scores = []
    for channel in np.moveaxis(references[f"act@{layer}"], -1, 0):
        masked = (x * mask(channel)[..., None]).astype("float32")
        found = np.asarray(keras.tree.flatten(logits(masked, training=False))[0], "float64")
        scores.append(found[np.arange(len(x)), targets])
    live = np.ptp(references[f"act@{layer}"], axis=(1, 2)).T > 0
    powers = np.exp(np.array(scores) - np.max(scores, axis=0)) * (live | constant)
    return np.einsum("bhwk,kb->bhw", references[f"act@{layer}"], powers / powers.sum(0))


# Name, what is different, and a function from an `explain` bound to the network, and the
# references, to pairs of arrays that agree once the difference is made up for.
DIFFERENCES = {
    "hirescam, captum: keeps the channels": lambda explain, r: [
        (explain("hirescam", layer=layer), r[f"captum/layer_grad_x_act@{layer}"].sum(-1))
        for layer in LAYERS
    ],
    "scorecam, pytorch-grad-cam: aligns corners, takes constant channels in": lambda explain, r: [
        pair
        for layer in LAYERS
        for pair in (
            (
                explain("scorecam", layer=layer, weights="softmax"),
                _scorecam(
                    explain.network, r, layer, lambda m: _stretched(_half_pixel(m, 32)), False
                ),
            ),
            (
                _scorecam(explain.network, r, layer, lambda m: _stretched(_aligned(m, 32))),
                r[f"pgc/scorecam@{layer}/raw"],
            ),
        )
    ],
    "scorecam, torchcam: stretches masks first, takes constant channels in": lambda explain, r: [
        (
            _scorecam(explain.network, r, layer, lambda m: _half_pixel(_stretched(m), 32)),
            r[f"torchcam/scorecam@{layer}/raw_relu"],
        )
        for layer in LAYERS
    ],
    "gradcampp, pytorch-grad-cam: adds 1e-6 to the denominator": lambda explain, r: [
        (ours, theirs)
        for layer in LAYERS
        for ours, theirs in (
            (explain("gradcampp", layer=layer), _gradcampp(r, layer)),
            (_gradcampp(r, layer, 1e-6), r[f"pgc/gradcampp@{layer}/raw"]),
        )
    ],
    "gradcampp, the authors: multiply by exp(logit), normalize alpha": lambda explain, r: [
        (
            explain("gradcampp", layer=layer, normalize_alpha=True)
            * np.exp(np.take_along_axis(r["logits"], r["targets"][:, None], 1))[..., None],
            r[f"ref/gradcampp_adityac94@{layer}/raw"],
        )
        for layer in LAYERS
    ],
    "eigen_gradcam, pytorch-grad-cam: the sign of the component is arbitrary": lambda explain, r: [
        (_flipped(explain("eigen_gradcam", layer=layer), reference), reference)
        for layer in LAYERS
        for reference in (r[f"pgc/eigengradcam@{layer}/raw"],)
    ],
    "guided(gradcam), captum: repeats values in place of resizing": lambda explain, r: [
        (
            explain("guided_backprop", reduction=None) * _repeated(maps, 32)[..., None],
            r[f"captum/guided_gradcam@{layer}"],
        )
        for layer in LAYERS
        for maps in (explain("gradcam", layer=layer, postprocessing="positive"),)
    ],
    "full_gradients, the authors: add 1e-6 to maxima, align corners": lambda explain, r: [
        (
            _fullgrad(explain("full_gradients", terms=True), (1, 2, 3), 1e-6, _aligned),
            r["idiap/fullgrad/out"],
        )
    ],
    "full_gradients, pytorch-grad-cam: adds 1e-7 to maxima": lambda explain, r: [
        (
            _stretched(_fullgrad(explain("full_gradients", terms=True), (1, 2), 1e-7, _half_pixel)),
            _stretched(r["pgc/fullgrad/out"]),
        )
    ],
}
NAMES = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "dense")


def _network(references):
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


@pytest.fixture(scope="module")
def references(shared):
    with np.load(shared / "goldens" / "peers.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def network(references):
    return _network(references)


def _explain(network, references, method, **options):
    """Check the logits, and return the maps of the targets."""
    options = RAW | options
    logits, maps = ke.explain(method, network, references["x"], references["targets"], **options)
    wanted = np.take_along_axis(references["logits"], references["targets"][:, None], 1)
    assert _relative_error(logits, wanted) <= 1e-5
    return maps if isinstance(maps, dict) else maps[..., 0]


def _bound(network, references):
    """Return `_explain` for a network, which the function has as an attribute."""

    def explain(method, **options):
        return _explain(network, references, method, **options)

    explain.network = network
    return explain


def _relative_error(actual, desired):
    return np.abs(actual - desired).max() / np.abs(desired).max()


@pytest.mark.parametrize(("method", "options", "reference"), AGREEMENTS)
def test_maps_agree_with_peers(method, options, reference, network, references):
    maps = _explain(network, references, method, **options)
    assert _relative_error(maps, references[reference]) <= 1e-5


@pytest.mark.parametrize("name", DIFFERENCES)
def test_maps_differ_from_peers_in_what_is_stated_only(name, network, references):
    pairs = DIFFERENCES[name](_bound(network, references), references)
    assert pairs
    for ours, theirs in pairs:
        assert _relative_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize("layer", LAYERS)
def test_weights_of_scorecam_are_those_of_the_authors(layer, network, references):
    weights = references[f"ref/scorecam_haofanwang@{layer}/weights"]
    expected = np.einsum("bhwk,bk->bhw", references[f"act@{layer}"], weights)
    maps = _explain(network, references, "scorecam", layer=layer)
    assert _relative_error(maps, expected) <= 1e-5


def test_terms_of_full_gradients_are_those_of_the_authors(network, references):
    terms = _explain(network, references, "full_gradients", terms=True)
    assert list(terms) == ["input", *NAMES]
    for i, name in enumerate(NAMES):
        expected = references[f"idiap/fullgrad/raw_bias_x_grad/{i}"]
        assert _relative_error(terms[name][..., 0], expected) <= 1e-5
    product = references["captum/input_x_gradient"]
    assert _relative_error(terms["input"][..., 0], product) <= 1e-5


def test_residuals_of_integrated_gradients_are_those_of_captum(network, references):
    found = _explain(network, references, "integrated_gradients", residual=True)
    expected = references["captum/ig50_gausslegendre/delta"]
    np.testing.assert_allclose(found["residual"][:, 0], expected, atol=1e-5)


def test_the_trapezoid_of_captum_misses_a_part_of_the_integral(network, references):
    options = {"rule": "riemann_trapezoid", "reduction": None, "residual": True}
    found = _explain(network, references, "integrated_gradients", **options)
    theirs = references["captum/ig50_riemann_trapezoid"]
    assert _relative_error(found["maps"][..., 0] * 49 / 50, theirs) <= 1e-5
    delta = np.abs(references["captum/ig50_riemann_trapezoid/delta"])
    assert (np.abs(found["residual"][:, 0]) < delta / 2).all()


# Beginnings of the names of arrays that no method of this package is compared with, and why.
ELSEWHERE = {
    ("captum/ig50_riemann_trapezoid", "torchcam/gradcampp"): "known to be wrong",
    ("pgc/refinecam", "pgc/gradcam_augsmooth", "pgc/gradcam_eigensmooth"): "another way to fuse",
    (
        "captum/occlusion",
        "captum/feature_ablation",
        "captum/deeplift",
        "pgc/segeigencam",
        "pgc/kpcacam",
        "pgc/fem",
        "pgc/shapleycam",
        "pgc/finercam",
        "torchcam/iscam",
        "idiap/simple_fullgrad",
    ): "not a method of this package",
    ("x", "targets", "logits", "w/", "act@", "grad@", "meta", "quantus/"): "no maps",
}


def test_every_reference_of_a_method_is_compared(references):
    """An array is compared itself, or by the stage of the same computation that is."""
    text = Path(__file__).read_text("utf-8")
    compared = {reference for _, _, reference in AGREEMENTS}
    left = tuple(name for names in ELSEWHERE for name in names)
    missing = []
    for name in references:
        stem = name.split("@")[0].split("/")
        stem = "/".join(stem[:2])
        known = name.removesuffix("/delta") in compared or name.startswith(left)
        if not known and stem not in text:
            missing.append(name)
    assert missing == []


def _print_table():
    with np.load(SHARED / "goldens" / "peers.npz") as arrays:
        references = dict(arrays)
    network = _network(references)
    sys.stdout.write("| method | layer | reference | relative error |\n|---|---|---|---|\n")
    for method, options, reference in AGREEMENTS:
        error = _relative_error(
            _explain(network, references, method, **options), references[reference]
        )
        layer = options.get("layer", "input")
        sys.stdout.write(f"| {method} | {layer} | {reference} | {error:.0e} |\n")
    for name, compare in DIFFERENCES.items():
        pairs = compare(_bound(network, references), references)
        worst = max(_relative_error(*pair) for pair in pairs)
        sys.stdout.write(f"| {name} | | made up for | {worst:.0e} |\n")


if __name__ == "__main__":
    _print_table()
