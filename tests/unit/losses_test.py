"""The cross-entropy that leaves positions out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke

LABELS = np.array([[[0, 2], [255, 1]], [[1, 255], [255, 0]]])
LOGITS = np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype("float32")


def oracle(labels, logits, smoothing=0.0):
    total, count = 0.0, 0
    for place in np.ndindex(labels.shape):
        if labels[place] == 255:
            continue
        row = logits[place].astype("float64")
        log = row - np.log(np.exp(row).sum())
        target = (1 - smoothing) * np.eye(3)[labels[place]] + smoothing / 3
        total -= (target * log).sum()
        count += 1
    return total, count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("from_logits", [True, False])
def test_it_is_the_mean_over_the_positions_that_count(smoothing, from_logits):
    loss = ke.losses.IgnoreLabelCrossentropy(label_smoothing=smoothing, from_logits=from_logits)
    predicted = LOGITS if from_logits else keras.ops.softmax(LOGITS)
    total, count = oracle(LABELS, LOGITS, smoothing)
    np.testing.assert_allclose(loss(LABELS, predicted), total / count, rtol=1e-5)
    np.testing.assert_allclose(loss(LABELS[..., None], predicted), total / count, rtol=1e-5)
    options = {"label_smoothing": smoothing, "from_logits": from_logits}
    summed = ke.losses.IgnoreLabelCrossentropy(**options, reduction="sum")
    np.testing.assert_allclose(summed(LABELS, predicted), total, rtol=1e-5)
    each = ke.losses.IgnoreLabelCrossentropy(**options, reduction="none")(LABELS, predicted)
    assert each.shape == LABELS.shape
    assert (np.asarray(each)[LABELS == 255] == 0).all()


def test_without_smoothing_it_is_that_of_keras():
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    loss = ke.losses.IgnoreLabelCrossentropy(from_logits=True)
    np.testing.assert_allclose(loss(LABELS, LOGITS), expected(LABELS, LOGITS), rtol=1e-5)


def test_ignored_positions_have_no_gradient():
    loss = ke.losses.IgnoreLabelCrossentropy(label_smoothing=0.1, from_logits=True)
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        value = loss(LABELS, logits)
    gradient = np.asarray(tape.gradient(value, logits))
    assert (gradient[LABELS == 255] == 0).all()
    assert np.abs(gradient[LABELS != 255]).min() > 0


def test_no_position_that_counts_gives_zero():
    loss = ke.losses.IgnoreLabelCrossentropy(from_logits=True)
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        value = loss(np.full_like(LABELS, 255), logits)
    assert float(value) == 0
    assert (np.asarray(tape.gradient(value, logits)) == 0).all()


def test_it_is_serialized_and_trains():
    loss = ke.losses.IgnoreLabelCrossentropy(7, 0.2, True, name="own")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    model = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Conv2D(3, 1)])
    model.compile("sgd", ke.losses.IgnoreLabelCrossentropy(from_logits=True))
    history = model.fit(LOGITS, LABELS, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="`label_smoothing`.*Received: 1.5"):
        ke.losses.IgnoreLabelCrossentropy(label_smoothing=1.5)
    with pytest.raises(TypeError, match="`from_logits`.*Received: 'yes'"):
        ke.losses.IgnoreLabelCrossentropy(from_logits="yes")
