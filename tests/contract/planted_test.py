"""Every method finds what decides a unit, in inputs of every rank.

The models know two patterns, bright spots in two channels, and have a unit for each. The stronger
one of an input is what every method must point at, and the weaker one is what those must point at
that tell units apart.

A specimen is a function from the head of its model to a `Specimen`; `@specimen` makes it take part.
What a method needs of a model, the specimen has, or the method says that it is missing.
"""

import functools
import inspect
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from tests import token_zoo
from tests import zoo

METHODS = ke.methods.names()
NOT_OF_TERMS = pytest.mark.filterwarnings("ignore:The terms of FullGrad")
SPECIMENS = {}
MISSING = {
    "attention": "No attention can be reached",
    "linear head": "one linear layer away",
    "relevance rules": "no rule for",
}
KERNELS = 3
# How far from the centre of a pattern the maximum of a map may lie, along each axis: a pattern has
# three cells across, and the filters see one more.
REACH = 2


class Specimen(NamedTuple):
    """A model that knows planted patterns.

    Attributes:
        model: `keras.Model` with one unit per pattern, and perhaps others.
        x: what it takes, one sample per pattern, which is the strongest there.
        places: integers `(patterns, samples, axes)`, where the patterns of each sample are.
        sizes: sizes of the maps, those of the positions of the input.
        region: target that makes the logits of scores at every position.
        lacks: what methods may need, of `ke.methods.NEEDS`, that the model doesn't have.
        reach: how far from a pattern the maximum of a map may lie, along each axis.
        other: a unit that no pattern speaks for.
    """

    model: keras.Model
    x: object
    places: np.ndarray
    sizes: tuple
    region: object
    lacks: tuple = ("attention",)
    reach: int = REACH
    other: int = 2


def specimen(build):
    """List a specimen, which is built once for each way of calling it."""
    SPECIMENS[build.__name__] = functools.cache(build)
    return build


@specimen
def signal(head, any_size=False):
    return planted((32,), [(9,), (22,)], head, any_size)


@specimen
def image(head, any_size=False):
    return planted((16, 20), [(4, 13), (11, 6)], head, any_size)


@specimen
def volume(head, any_size=False):
    return planted((10, 12, 14), [(3, 8, 9), (7, 3, 4)], head, any_size)


@specimen
def image_with_channels_first(head, any_size=False):
    last = planted((16, 20), [(4, 13), (11, 6)], head, any_size, "channels_first")
    return last._replace(x=np.moveaxis(last.x, -1, 1))


@specimen
def tokens_with_a_class_token(head, any_size=False):
    del any_size  # Positions are learnt for one size.
    model = token_zoo.knowing("class", head == "dense")
    lacks = ("linear head", "relevance rules")
    return _of_tokens(model, lacks, ke.targets.position(0))


@specimen
def tokens(head, any_size=False):
    del any_size
    model = token_zoo.knowing("mean", head == "dense")
    return _of_tokens(model, ("relevance rules",), ke.targets.segment("all"))


def _of_tokens(model, lacks, region):
    corner = np.multiply(token_zoo.BRIGHT, 2)
    image = token_zoo.bright_images()[:1]
    return Specimen(model, image, corner[None, None], (8, 8), region, lacks, 1, 1)


def planted(sizes, places, head, any_size=False, layout="channels_last"):
    """Return a classifier of inputs of some sizes, and inputs with patterns at two places."""
    model = classifier((None,) * len(sizes) if any_size else sizes, layout, head)
    kernel = np.full((3,) * len(sizes), 0.2 / 3 ** len(sizes))
    kernel[(1,) * len(sizes)] = 1.0
    # The third kernel sees both patterns and the noise, and counts for nothing.
    mixture = np.array([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1]])
    mixing = np.reshape(np.eye(KERNELS), (*[1] * len(sizes), KERNELS, KERNELS))
    gain = np.prod(sizes) / 2 ** len(sizes)
    weights = kernel[..., None, None] * mixture, mixing
    weights += (gain * np.array([[1.0, -0.25, 0.0], [-0.25, 1.0, 0.0], [0.0, 0.0, 0.0]]),)
    biases = np.array([-0.8, -0.8, 0.1]), np.zeros(KERNELS), np.zeros(3)
    for name, *values in zip(("detect", "mix", "head"), weights, biases, strict=True):
        layer = model.get_layer(name)
        layer.set_weights([v.reshape(w.shape) for v, w in zip(values, layer.weights, strict=True)])
    every = np.repeat(np.array(places)[:, None], len(places), 1)
    return Specimen(model, patterns(sizes, places), every, sizes, ke.targets.segment("all"))


def classifier(sizes, layout="channels_last", head="average"):
    """Return a convolutional network with one pooling on the way.

    Its head pools the average, or the maximum, or it is "dense", with scores at every position.
    """
    shape = (*sizes, 2) if layout == "channels_last" else (2, *sizes)
    x = inputs = keras.Input(shape)
    convolution, pooling, average, maximum = (
        functools.partial(getattr(layers, f"{kind}{len(sizes)}D"), data_format=layout)
        for kind in ("Conv", "MaxPooling", "GlobalAveragePooling", "GlobalMaxPooling")
    )
    spread = [1 if size == 1 else 3 for size in sizes]
    x = convolution(KERNELS, spread, padding="same", activation="relu", name="detect")(x)
    x = pooling([1 if size == 1 else 2 for size in sizes])(x)
    x = convolution(KERNELS, 1, activation="relu", name="mix")(x)
    if head == "dense":
        x = convolution(3, 1, name="head")(x)
        axes = (*range(2, len(sizes) + 2), 1) if layout == "channels_first" else None
        return keras.Model(inputs, layers.Permute(axes)(x) if axes else x)
    x = (maximum if head == "maximum" else average)()(x)
    return keras.Model(inputs, layers.Dense(3, activation="sigmoid", name="head")(x))


def patterns(sizes, places):
    """Return one input per pattern: spots in noise, that of the pattern brighter than the other."""
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (len(places), *sizes, 2)).astype("float32")
    for sample, strongest in enumerate(places):
        for channel, place in enumerate(places):
            brightness = 3.0 if place == strongest else 2.0
            around = tuple(slice(i - 1, i + 2) for i in place)
            x[(sample, *around, channel)] += brightness - 0.8
            x[(sample, *place, channel)] += 0.8
    return x


def assert_found(maps, places, specimen):
    """Check that the maximum of each map is within reach of a place."""
    assert maps.shape == (len(places), *specimen.sizes, 1)
    for map, place in zip(maps[..., 0], places, strict=True):
        found = np.unravel_index(map.argmax(), map.shape)
        assert map.max() > 0.3
        assert np.abs(np.subtract(found, place)).max() <= specimen.reach, (found, tuple(place))


def wrapped(meta, **options):
    """Return the method that a meta method makes of the one it is for, or of another."""
    wrap = ke.methods.get_meta(meta)
    parameters = inspect.signature(wrap).parameters
    options |= {"num_samples": 4, "stddev": 0.1} if "num_samples" in parameters else {}
    has_default = parameters["method"].default is not inspect.Parameter.empty
    return wrap(**options) if has_default else wrap("gradcam", **options)


# The logits of a contrast have no positions, whatever the rank of the input.
CONTRASTED = ("image", "tokens_with_a_class_token")


@NOT_OF_TERMS
@pytest.mark.parametrize(
    ("name", "target"),
    [
        (name, target)
        for name in SPECIMENS
        for target in ("unit", "contrast", "region")
        if target != "contrast" or name in CONTRASTED
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_methods_find_the_pattern_that_decides(method, name, target):
    needs = ke.methods.registration(method).needs
    head = "maximum" if needs == "max-pooling" else "average"
    specimen = SPECIMENS[name]("dense" if target == "region" else head)
    samples = np.arange(len(specimen.x))
    options = {
        "unit": {},
        "contrast": {"output": ke.targets.contrast(samples, specimen.other)},
        "region": {"output": specimen.region},
    }[target]
    if needs == "max-pooling" and target == "region":
        options = {"output": _highest}
    lacks = (*specimen.lacks, *(["linear head"] if target != "unit" else []))
    if needs in lacks:
        with pytest.raises(ValueError, match=MISSING[needs]):
            ke.explain(method, specimen.model, specimen.x, **options)
        return
    if method.endswith("integrated_gradients"):
        options["num_steps"] = 10
    # Compiled for one kind of data; running eagerly takes less time than tracing.
    eager = name != "image"
    _, maps = ke.explain(method, specimen.model, specimen.x, run_eagerly=eager, **options)
    tells_apart = "class_sensitivity" in ke.methods.registration(method).axioms
    for shift in range(len(samples) if tells_apart and target != "contrast" else 1):
        units = (samples + shift) % len(samples)
        taken = maps if target == "contrast" else maps[samples, ..., units][..., None]
        assert_found(taken, specimen.places[units, samples], specimen)


def _highest(outputs):
    """Take the highest score of each class."""
    return tf.reduce_max(outputs, axis=tuple(range(1, len(outputs.shape) - 1)))


@pytest.mark.parametrize("name", SPECIMENS)
@pytest.mark.parametrize("meta", ke.methods.meta_names())
def test_meta_methods_find_the_pattern_that_decides(meta, name):
    specimen = SPECIMENS[name]("average", any_size=True)
    samples = np.arange(len(specimen.x))
    options = {} if None in specimen.model.input_shape[1:] else {"scales": 1}
    method = wrapped(meta, **(options if meta == "tta" else {}))
    _, maps = ke.explain(method, specimen.model, specimen.x, samples, run_eagerly=name != "image")
    assert_found(maps, specimen.places[samples, samples], specimen)


def unit_axis_twins(sizes, head):
    """Return a model and one of a rank higher that computes the same of inputs of size 1 there."""
    flat, deep = classifier(sizes, head=head), classifier((1, *sizes), head=head)
    random = np.random.default_rng(1)
    for one, other in zip(flat.weights, deep.weights, strict=True):
        values = random.uniform(-0.5, 1.0, one.shape)
        one.assign(values)
        other.assign(values.reshape(other.shape))
    for model in (flat, deep):
        # Where several values are the maximum, which one passes its gradient is not the same.
        model.get_layer("detect").bias.assign_add([3.0] * KERNELS)
    return flat, deep


@pytest.mark.parametrize("sizes", [(12,), (6, 10)], ids=["signal", "image"])
@pytest.mark.parametrize("method", [*zoo.METHODS, *ke.methods.meta_names()])
def test_an_axis_of_size_one_changes_nothing(method, sizes):
    if method not in METHODS:
        method = wrapped(method, **({"scales": 1} if method == "tta" else {}))
    flat, deep = unit_axis_twins(sizes, "average")
    x = np.random.default_rng(2).normal(size=(2, *sizes, 2)).astype("float32")
    options = {"postprocessing": None, "run_eagerly": True}
    logits, maps = ke.explain(method, flat, x, **options)
    deep_logits, deep_maps = ke.explain(method, deep, x[:, None], **options)
    np.testing.assert_allclose(deep_logits, logits, rtol=1e-5, atol=1e-6)
    largest = np.abs(maps).max()
    assert largest > 0
    np.testing.assert_allclose(deep_maps, maps[:, None], rtol=1e-5, atol=1e-5 * largest)
