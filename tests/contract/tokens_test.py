"""Every method returns the same on every make of transformer, and on the grid of its patches.

All makes compute one of two functions of the image (`tests/token_zoo.py`).
"""

import contextlib
import functools

import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke
from tests import token_zoo
from tests import zoo

METHODS = ke.methods.names()
ATTENTION = tuple(n for n in METHODS if ke.methods.registration(n).needs == "attention")
FULL = pytest.mark.filterwarnings("ignore:The terms of FullGrad")


def _ways():
    """Return a method of each way of exposing a model and of using it, and all of attention."""
    known = {name: ke.methods.registration(name) for name in METHODS}
    ways = {(str(r.expose), r.family, r.needs): name for name, r in known.items()}
    return *ways.values(), *(name for name in ATTENTION if name not in ways.values())


def _explain_with_all(model, methods=METHODS):
    """Return logits and raw maps by every method, models exposed alike exposed once."""

    @functools.cache
    def expose(function, arguments):
        return function(model, *arguments)

    found, images = {}, tf.constant(token_zoo.IMAGES)
    for method in methods:
        known = ke.methods.registration(method)
        if known.needs == "relevance rules":
            with pytest.raises(ValueError, match=r"no rule for .*LayerNormalization"):
                known.exposed(model)
            continue
        arguments = ((),) if known.family == "gradient" and known.expose is None else ()
        exposed = expose(known.expose or ke.inspection.expose, arguments)
        options = {"detections": np.eye(3, dtype="float32")} if known.sample_options else {}
        options |= {"activation": "sigmoid"} if method == "scorecam" else {}
        options |= {"num_steps": 2} if method.endswith("integrated_gradients") else {}
        if known.needs == "linear head" and exposed.head is None:
            with pytest.raises(ValueError, match=r"one linear layer away"):
                known.method(exposed, token_zoo.IMAGES, **options)
            continue
        found[method] = [t.numpy() for t in known.method(exposed, images, **options)]
    return found


@functools.cache
def _reference(pooling):
    return _explain_with_all(token_zoo.functional(pooling))


@FULL
@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        *((kind, "class") for kind in [*list(token_zoo.KINDS)[1:], "loaded"]),
        ("composite_layers", "mean"),
    ],
)
def test_maps_are_those_of_the_functional_model_and_the_model_is_left_as_found(
    kind, pooling, tmp_path
):
    is_loaded = kind == "loaded"
    model = token_zoo.loaded(pooling, tmp_path) if is_loaded else token_zoo.KINDS[kind](pooling)
    before = zoo.fingerprint(model)
    # Of a kind depends how a model is exposed, and of its precision and of gradients through
    # functions that nothing is known of every method.
    every = pooling == "class" and kind in ("mixed_precision", "subclassed_with_tensorflow")
    methods, expected = METHODS if every else _ways(), _reference(pooling)
    found = _explain_with_all(model, methods)
    assert zoo.fingerprint(model) == before
    assert set(found) == set(expected) & set(methods)
    # FullGrad takes each bias where its layer adds it, and layers differ where they hold several.
    for method in set(found) - {"full_gradients"}:
        for actual, desired in zip(found[method], expected[method], strict=True):
            assert actual.shape == desired.shape, method
            assert actual.dtype == np.float32, method
            if kind == "mixed_precision":
                distance = np.linalg.norm(actual - desired)
                assert distance < 0.25 * np.linalg.norm(desired), method
            else:
                scale = np.abs(desired).max()
                np.testing.assert_allclose(actual, desired, atol=2e-5 * scale, err_msg=method)


@FULL
@pytest.mark.parametrize("pooling", token_zoo.POOLINGS)
def test_maps_have_the_grid_of_the_patches(pooling):
    for method, (logits, maps) in _reference(pooling).items():
        own_size = method == "zoomcam" or ke.methods.registration(method).family == "gradient"
        side = token_zoo.SIZE if own_size else token_zoo.SIDE
        assert logits.shape == (3, token_zoo.UNITS)
        assert maps.shape == (3, side, side, token_zoo.UNITS), method
        assert np.ptp(maps, axis=(1, 2)).max(-1).min() > 0, method


@pytest.mark.parametrize(
    ("method", "kind"),
    [*((name, "functional") for name in ATTENTION), *(("getam", kind) for kind in zoo.KINDS)],
)
def test_methods_that_need_attention_say_so_of_models_without_it(method, kind):
    specimen = zoo.KINDS[kind]()
    before = zoo.fingerprint(specimen.model)
    options = {k: v for k, v in specimen.options.items() if k != "layer"}
    with pytest.raises(ValueError, match=r"No attention can be reached.*`keras.ops`"):
        ke.explain(method, specimen.model, specimen.x, **options)
    assert zoo.fingerprint(specimen.model) == before


MODES = {
    "graph": {},
    "xla": {"jit_compile": True},
    "replicas": {},
    "argmax": {"y": "argmax", "run_eagerly": True},
}
# Compiling takes long: one method of attention scores, and one of activations, tell of each mode.
MODES_OF = [
    *((method, mode) for method in ("attention_relevance", "gradcam") for mode in MODES),
    *((method, mode) for method in ATTENTION for mode in ("graph", "argmax")),
]


@FULL
@pytest.mark.parametrize(("method", "mode"), dict.fromkeys(MODES_OF))
def test_every_mode_gives_the_maps_of_methods_called_directly(method, mode):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope() if mode == "replicas" else contextlib.nullcontext():
        model = token_zoo.functional("class")
    options = {"postprocessing": None, "resizing": False, "verbose": 0, **MODES[mode]}
    found = ke.explain(method, model, token_zoo.IMAGES, **options)
    expected = _reference("class")[method]
    if mode == "argmax":
        units = expected[0].argmax(-1)[:, None]
        maps = np.take_along_axis(expected[1], units[:, None, None], -1)
        expected = np.take_along_axis(expected[0], units, -1), maps
    for a, d in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, d, atol=2e-5 * np.abs(d).max())


@FULL
@pytest.mark.parametrize("method", [*ATTENTION, "gradcam"])
def test_maps_are_resized_and_normalized(method):
    model = token_zoo.functional("class")
    _, resized = ke.explain(method, model, token_zoo.IMAGES, 1, run_eagerly=True)
    assert resized.shape == (3, token_zoo.SIZE, token_zoo.SIZE, 1)
    assert resized.min() >= 0
    assert resized.max() <= 1


@pytest.mark.parametrize("method", ["attention_relevance", "gradcam"])
def test_second_call_does_not_retrace(method):
    traces = []

    def traced(model, inputs, indices=None):
        traces.append(inputs.shape)
        return ke.methods.get(method)(model, inputs, indices)

    traced.registration = ke.methods.registration(method)._replace(method=traced)
    model = token_zoo.composite_layers("class")
    for y in (0, 2):
        ke.explain(traced, model, token_zoo.IMAGES, y)
    assert len(traces) == 1


@pytest.mark.parametrize("method", [*ATTENTION, "gradcam"])
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extreme_logits_give_finite_maps(method, scale):
    model = token_zoo.functional("class")
    kernel = model.get_layer("head").kernel
    kernel.assign(kernel * scale)
    logits, maps = ke.explain(method, model, token_zoo.IMAGES, run_eagerly=True)
    assert np.isfinite(logits).all()
    assert np.isfinite(maps).all()
