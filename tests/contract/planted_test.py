"""Every method finds what decides a unit, in inputs of every rank.

The models know two patterns, bright spots in two channels, and have a unit for each. The stronger
one of an input is what every method must point at, and the weaker one is what those must point at
that tell units apart.

A specimen is a function from `any_size` to a `Specimen`; `@specimen` makes it take part.
"""

import functools
import inspect
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers

import keras_explainable as ke

METHODS = ke.methods.names()
SPECIMENS = {}
KERNELS = 3
# How far from the centre of a pattern the maximum of a map may lie, along each axis: a pattern has
# three cells across, and the filters see one more.
REACH = 2


class Specimen(NamedTuple):
    """A model that knows planted patterns.

    Attributes:
        model: `keras.Model` with one unit per pattern.
        x: what it takes, one sample per pattern, which is the strongest there.
        places: integers `(patterns, samples, axes)`, where the patterns of each sample are.
        sizes: sizes of the maps, those of the positions of the input.
    """

    model: keras.Model
    x: object
    places: np.ndarray
    sizes: tuple


def specimen(build):
    """List a specimen."""
    SPECIMENS[build.__name__] = build
    return build


@specimen
def signal(any_size):
    return planted((32,), [(9,), (22,)], any_size)


@specimen
def image(any_size):
    return planted((16, 20), [(4, 13), (11, 6)], any_size)


@specimen
def volume(any_size):
    return planted((10, 12, 14), [(3, 8, 9), (7, 3, 4)], any_size)


@specimen
def image_with_channels_first(any_size):
    last = planted((16, 20), [(4, 13), (11, 6)], any_size, "channels_first")
    return last._replace(x=np.moveaxis(last.x, -1, 1))


def planted(sizes, places, any_size=False, layout="channels_last"):
    """Return a classifier of inputs of some sizes, and inputs with patterns at two places."""
    model = classifier((None,) * len(sizes) if any_size else sizes, layout)
    kernel = np.full((3,) * len(sizes), 0.2 / 3 ** len(sizes))
    kernel[(1,) * len(sizes)] = 1.0
    # The third kernel sees both patterns and the noise, and counts for nothing.
    mixture = np.array([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1]])
    mixing = np.reshape(np.eye(KERNELS), (*[1] * len(sizes), KERNELS, KERNELS))
    gain = np.prod(sizes) / 2 ** len(sizes)
    head = gain * np.array([[1.0, -0.25], [-0.25, 1.0], [0.0, 0.0]])
    biases = np.array([-0.8, -0.8, 0.1]), np.zeros(KERNELS), np.zeros(2)
    weights = kernel[..., None, None] * mixture, mixing, head
    for name, *values in zip(("detect", "mix", "head"), weights, biases, strict=True):
        model.get_layer(name).set_weights(values)
    every = np.repeat(np.array(places)[:, None], len(places), 1)
    return Specimen(model, patterns(sizes, places), every, sizes)


def classifier(sizes, layout="channels_last"):
    """Return a convolutional network with one pooling on the way, and a linear head."""
    shape = (*sizes, 2) if layout == "channels_last" else (2, *sizes)
    x = inputs = keras.Input(shape)
    convolution, pooling, average = (
        functools.partial(getattr(layers, f"{kind}{len(sizes)}D"), data_format=layout)
        for kind in ("Conv", "MaxPooling", "GlobalAveragePooling")
    )
    spread = [1 if size == 1 else 3 for size in sizes]
    x = convolution(KERNELS, spread, padding="same", activation="relu", name="detect")(x)
    x = pooling([1 if size == 1 else 2 for size in sizes])(x)
    x = average()(convolution(KERNELS, 1, activation="relu", name="mix")(x))
    return keras.Model(inputs, layers.Dense(2, activation="sigmoid", name="head")(x))


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


def assert_found(maps, places, sizes):
    """Check that the maximum of each map is within reach of a place."""
    assert maps.shape == (len(places), *sizes, 1)
    for map, place in zip(maps[..., 0], places, strict=True):
        found = np.unravel_index(map.argmax(), map.shape)
        assert map.max() > 0.5
        assert np.abs(np.subtract(found, place)).max() <= REACH, (found, tuple(place))


def wrapped(meta, **options):
    """Return the method that a meta method makes of the one it is for, or of another."""
    wrap = ke.methods.get_meta(meta)
    parameters = inspect.signature(wrap).parameters
    options |= {"num_samples": 4, "stddev": 0.1} if "num_samples" in parameters else {}
    has_default = parameters["method"].default is not inspect.Parameter.empty
    return wrap(**options) if has_default else wrap("gradcam", **options)


@pytest.mark.parametrize("name", SPECIMENS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_find_the_pattern_that_decides(method, name):
    model, x, places, sizes = SPECIMENS[name](any_size=False)
    samples = np.arange(len(x))
    _, maps = ke.explain(method, model, x)
    for shift in range(len(x)):
        if shift == 0 or "class_sensitivity" in ke.methods.registration(method).axioms:
            units = (samples + shift) % len(x)
            taken = maps[samples, ..., units][..., None]
            assert_found(taken, places[units, samples], sizes)


@pytest.mark.parametrize("name", SPECIMENS)
@pytest.mark.parametrize("meta", ke.methods.meta_names())
def test_meta_methods_find_the_pattern_that_decides(meta, name):
    model, x, places, sizes = SPECIMENS[name](any_size=True)
    samples = np.arange(len(x))
    _, maps = ke.explain(wrapped(meta), model, x, "argmax")
    assert_found(maps, places[samples, samples], sizes)


def unit_axis_twins(sizes):
    """Return a model and one of a rank higher that computes the same of inputs of size 1 there."""
    flat, deep = classifier(sizes), classifier((1, *sizes))
    random = np.random.default_rng(1)
    for one, other in zip(flat.weights, deep.weights, strict=True):
        values = random.uniform(-0.5, 1.0, one.shape)
        one.assign(values)
        other.assign(values.reshape(other.shape))
    return flat, deep


@pytest.mark.parametrize("sizes", [(12,), (6, 10)], ids=["signal", "image"])
@pytest.mark.parametrize("method", [*METHODS, *ke.methods.meta_names()])
def test_an_axis_of_size_one_changes_nothing(method, sizes):
    if method not in METHODS:
        method = wrapped(method, **({"scales": 1} if method == "tta" else {}))
    flat, deep = unit_axis_twins(sizes)
    x = np.random.default_rng(2).normal(size=(2, *sizes, 2)).astype("float32")
    logits, maps = ke.explain(method, flat, x, postprocessing=None)
    deep_logits, deep_maps = ke.explain(method, deep, x[:, None], postprocessing=None)
    np.testing.assert_allclose(deep_logits, logits, rtol=1e-5, atol=1e-6)
    largest = np.abs(maps).max()
    assert largest > 0
    np.testing.assert_allclose(deep_maps, maps[:, None], rtol=1e-5, atol=1e-5 * largest)
