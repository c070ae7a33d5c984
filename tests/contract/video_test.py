"""The usual networks for video, whose sequences and last frames have fewer axes than the input."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from tests.contract import planted_test

SIZES = (6, 8, 8)
PLACES = [(1, 2, 5), (4, 5, 2)]
VIDEO = planted_test.patterns(SIZES, PLACES)
METHODS = [
    name
    for name in ke.methods.names()
    if ke.methods.registration(name).family in ("cam", "minmax")
    and ke.methods.registration(name).needs is None
]
POOLINGS = {"average": layers.GlobalAveragePooling2D, "all": layers.Flatten}


class Recurrent(keras.Model):
    """The convolution of each frame, a sequence of them, and its last state."""

    def __init__(self, pooling, memory=None, reverse=None):
        super().__init__()
        detect = layers.Conv2D(2, 3, padding="same", activation="relu")
        self.detect = layers.TimeDistributed(detect, name="detect")
        self.pool = layers.TimeDistributed(POOLINGS[pooling]())
        self.memory = memory or [layers.LSTM(2, name="memory")]
        self.head = layers.Dense(2, activation="softmax", name="head")
        self.reverse = reverse

    def call(self, x):
        x = self.reverse(self.reverse(x, [1]), [1]) if self.reverse else x
        x = self.pool(self.detect(x))
        for layer in self.memory:
            x = layer(x)
        return self.head(x)


def _functional(pooling, sizes=SIZES, memory=None):
    inputs = keras.Input((*sizes, 2))
    return keras.Model(inputs, Recurrent(pooling, memory).call(inputs))


def _subclassed(pooling, reverse=None):
    model = Recurrent(pooling, reverse=reverse)
    model(VIDEO)
    return model


KINDS = {
    "functional": _functional,
    "any_size": lambda pooling: _functional(pooling, (None, None, None)),
    "subclassed": _subclassed,
    "subclassed_with_tensorflow": lambda pooling: _subclassed(pooling, tf.reverse),
}


def _knowing(model, pooling):
    """Let a network detect the two patterns, and sum up over frames what it saw of each."""
    kernel = np.full((3, 3, 1, 1), 0.2 / 9) * np.eye(2)
    kernel[1, 1] += np.eye(2)
    model.get_layer("detect").set_weights([kernel, np.full(2, -0.8)])
    # Gates are open, and the cell takes up the pooled activations.
    taken = np.hstack([np.zeros((2, 4)), np.eye(2), np.zeros((2, 2))])
    repeats = 1 if pooling == "average" else SIZES[1] * SIZES[2]
    taken = np.tile(taken, (repeats, 1)) / repeats
    model.get_layer("memory").set_weights([taken, np.zeros((2, 8)), np.repeat([9, 9, 0, 9], 2)])
    model.get_layer("head").set_weights([np.array([[4, -1], [-1, 4]]), np.zeros(2)])
    return model


@pytest.mark.parametrize(
    ("method", "kind", "pooling"),
    [
        *((name, "functional", "average") for name in METHODS),
        *(("gradcam", kind, "average") for kind in list(KINDS)[1:]),
        *((name, "functional", "all") for name in ("gradcam", "scorecam")),
        ("zoomcam", "subclassed_with_tensorflow", "all"),
    ],
)
def test_frame_and_place_of_the_pattern_are_found(method, kind, pooling):
    model = _knowing(KINDS[kind](pooling), pooling)
    _, maps = ke.explain(method, model, VIDEO)
    tells_apart = "class_sensitivity" in ke.methods.registration(method).axioms
    for shift in range(1 + tells_apart):
        units = (np.arange(2) + shift) % 2
        taken = maps[np.arange(2), ..., units]
        assert taken.shape == (2, *SIZES)
        for map, unit in zip(taken, units, strict=True):
            found = np.unravel_index(map.argmax(), SIZES)
            assert map.max() > 0.3
            assert np.abs(np.subtract(found, PLACES[unit])).max() <= 1


def _default(model):
    """Return the shape of the activations that are explained by default."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tuple(ke.inspection.expose(model).outputs[1].shape)[1:]


def _over(frames, *parts, sizes=(*SIZES, 2)):
    """Build a network of some layers, and a linear one."""
    x = inputs = keras.Input(sizes)
    for part in [frames, *parts]:
        x = part(x)
    return keras.Model(inputs, layers.Dense(2)(x))


def _frames():
    return layers.TimeDistributed(layers.Conv2D(3, 3, activation="relu"), name="frames")


def test_default_layer_has_the_axes_of_the_input_where_a_layer_drops_some():
    several = [layers.GRU(3, return_sequences=True), layers.Bidirectional(layers.GRU(3))]
    assert _default(_functional("average", memory=several)) == (6, 8, 8, 2)
    last = layers.ConvLSTM2D(4, 3)
    assert _default(_over(_frames(), last, layers.GlobalAveragePooling2D())) == (6, 6, 6, 3)
    rows = layers.Conv2D(4, 3, padding="same"), layers.Reshape((6, 32)), layers.LSTM(3)
    assert _default(_over(*rows, sizes=(6, 8, 2))) == (6, 8, 4)
    state = layers.Flatten(), layers.RepeatVector(3), layers.LSTM(3)
    assert _default(_over(_frames(), *state)) == (6, 6, 6, 3)
    frames = layers.Lambda(lambda x: x), layers.TimeDistributed(layers.GlobalMaxPooling2D())
    attention = [layers.Conv1D(3, 2), layers.GlobalAveragePooling1D()]
    assert _default(_over(_frames(), *frames, *attention)) == (6, 6, 6, 3)


def test_default_layer_keeps_tokens_and_steps():
    patches = layers.Conv2D(4, 2, strides=2), layers.Reshape((16, 4)), layers.Dense(3)
    model = _over(*patches, layers.GlobalAveragePooling1D(), sizes=(8, 8, 2))
    assert _default(model) == (4, 4, 3)
    steps = layers.Conv1D(4, 3), layers.LSTM(3, return_sequences=True), layers.Flatten()
    assert _default(_over(*steps, sizes=(8, 2))) == (6, 3)


def test_target_at_a_frame_is_explained_at_the_convolution():
    scores = layers.LSTM(3, return_sequences=True)
    model = _over(_frames(), layers.TimeDistributed(layers.GlobalAveragePooling2D()), scores)
    target = ke.targets.position(2)
    _, maps = ke.gradcam(model, VIDEO, output=target, postprocessing=None, resizing=False)
    assert maps.shape == (2, 6, 6, 6, 2)
    raw = ke.layercam(model, VIDEO, output=target, postprocessing=None, resizing=False)[1]
    # What comes later doesn't count for it.
    assert np.abs(raw[:, :3]).max() > 0
    np.testing.assert_array_equal(raw[:, 3:], 0)


def test_activations_with_other_axes_are_warned_of_and_mask_nothing():
    model = _over(layers.ConvLSTM2D(4, 3), layers.GlobalAveragePooling2D())
    with pytest.warns(UserWarning, match=r"other axes.*isn't resized.*6, 6, 4\).*`layer=`"):
        _, maps = ke.gradcam(model, VIDEO)
    assert maps.shape == (2, 6, 6, 2)
    with pytest.raises(ValueError, match=r"`layer`.*axes of the input \(2, 6, 8, 8, 2\).*`layer=`"):
        ke.scorecam(model, VIDEO, reshape=False)


def test_frames_without_places_are_explained_one_by_one():
    # Keras 3.3 wraps no models, and a pooling hides the places of a frame as they do.
    wrapped = layers.GlobalAveragePooling2D(), layers.Dense(3)
    model = _over(*map(layers.TimeDistributed, wrapped), layers.LSTM(3))
    with pytest.raises(ValueError, match=r"tokens \(None, 6, 3\).*`layer=`.*3 axes"):
        ke.gradcam(model, VIDEO)
    for method in ("gradcam", "scorecam"):
        _, maps = ke.explain(method, model, VIDEO, reshape=(6, 1, 1))
        assert maps.shape == (2, 6, 8, 8, 2)
        assert np.ptp(maps, axis=(2, 3)).max() < 1e-6
        assert np.ptp(maps, axis=1).max() > 0
