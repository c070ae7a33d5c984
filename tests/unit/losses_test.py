"""Losses of outputs with positions: labels that don't count, and maps that look aside."""

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


@pytest.mark.parametrize("ignored", [0, 2])
def test_a_class_can_be_ignored(ignored):
    labels = np.where(LABELS == 255, 2, LABELS)
    counted = np.where(labels == ignored, 255, labels)
    total, count = oracle(counted, LOGITS, 0.1)
    assert 0 < count < labels.size
    loss = ke.losses.IgnoreLabelCrossentropy(ignored, 0.1, from_logits=True)
    np.testing.assert_allclose(loss(labels, LOGITS), total / count, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_more_positions_than_half_precision_counts(dtype):
    logits = np.repeat(LOGITS[:1], 20000, 1)  # 80,000 of them, and a sum beyond its range.
    labels = np.repeat(LABELS[:1], 20000, 1)
    total, count = oracle(LABELS[:1], LOGITS[:1])
    loss = ke.losses.IgnoreLabelCrossentropy(from_logits=True, dtype=dtype)
    found = loss(labels, logits)
    assert found.dtype == dtype
    tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-12}[dtype]
    logits = logits.astype("float64")
    np.testing.assert_allclose(np.float64(found), total / count, rtol=tolerance)
    each = ke.losses.IgnoreLabelCrossentropy(from_logits=True, dtype=dtype, reduction="none")
    assert each(labels, logits).dtype == dtype


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((2, 2, 3), True), ((2, 2, 2, 3), True), ((2, 4), False), ((1, 2, 2), False), ((2,), False)],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_labels_that_do_not_fit_are_refused(shape, hint, compiled):
    loss = ke.losses.IgnoreLabelCrossentropy(from_logits=True)
    run = tf.function(loss) if compiled else loss
    message = r"`y_true`.*predictions \(2, 2, 2, 3\). Received: shape "
    with pytest.raises(ValueError, match=message) as error:
        run(np.zeros(shape), LOGITS)
    assert str(shape) in str(error.value)
    assert ("one-hot" in str(error.value)) == hint


def test_labels_of_unknown_sizes_are_taken_to_fit():
    loss = ke.losses.IgnoreLabelCrossentropy(from_logits=True)
    for rest in ((), (None,), (1,)):
        labels = LABELS.reshape(LABELS.shape + (1,) * len(rest))
        kinds = [tf.TensorSpec((None, None, 2, *rest)), tf.TensorSpec((None, 2, None, 3))]
        run = tf.function(loss, input_signature=kinds)
        np.testing.assert_allclose(run(labels, LOGITS), loss(LABELS, LOGITS), rtol=1e-6)


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


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_predictions_at_ignored_positions_may_be_anything(from_logits, value):
    loss = ke.losses.IgnoreLabelCrossentropy(label_smoothing=0.1, from_logits=from_logits)
    predicted = LOGITS if from_logits else keras.ops.convert_to_numpy(keras.ops.softmax(LOGITS))
    predicted = np.where(LABELS[..., None] == 255, value, predicted).astype("float32")
    variable = tf.Variable(predicted)
    with tf.GradientTape() as tape:
        found = loss(LABELS, variable)
    total, count = oracle(LABELS, LOGITS, 0.1)
    np.testing.assert_allclose(found, total / count, rtol=1e-5)
    gradient = np.asarray(tape.gradient(found, variable))
    assert np.isfinite(gradient).all()
    assert (gradient[LABELS == 255] == 0).all()


@pytest.mark.parametrize("label", [-1, 3, 254])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_labels_out_of_range_make_it_no_number(label, jit_compile):
    labels = np.where(LABELS == 2, label, LABELS)
    for smoothing in (0.0, 0.1):
        loss = ke.losses.IgnoreLabelCrossentropy(label_smoothing=smoothing, from_logits=True)
        run = tf.function(loss, jit_compile=jit_compile)
        assert np.isnan(run(tf.constant(labels), tf.constant(LOGITS)))
    ignoring = ke.losses.IgnoreLabelCrossentropy(label, from_logits=True, reduction="none")
    found = np.asarray(ignoring(labels, LOGITS))
    assert (found[labels == label] == 0).all()
    assert (np.isnan(found) == (labels == 255)).all()


@pytest.mark.parametrize("loss", [ke.losses.IgnoreLabelCrossentropy, ke.losses.EnergyOutside])
def test_no_reduction_is_none(loss):
    given = (LABELS, LOGITS) if loss is ke.losses.IgnoreLabelCrossentropy else (MASKS, MAPS)
    expected = np.asarray(loss(reduction="none")(*given))
    found = np.asarray(loss(reduction=None)(*given))
    assert found.shape == expected.shape == ((2, 2, 2) if len(given[0]) == 2 else (3,))
    np.testing.assert_array_equal(found, expected)


def test_weights_count_as_with_ignored_classes_of_keras():
    weights = np.random.default_rng(3).uniform(size=LABELS.shape)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    loss = ke.losses.IgnoreLabelCrossentropy(from_logits=True)
    found = loss(LABELS, LOGITS, sample_weight=weights)
    np.testing.assert_allclose(found, expected(LABELS, LOGITS, weights), rtol=1e-5)


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
    for label in (2.7, "no", None, True):
        with pytest.raises(ValueError, match=f"`ignore_label`.*Received: .?{label}"):
            ke.losses.IgnoreLabelCrossentropy(label)
    with pytest.raises(ValueError, match="`reduction`.*Received: .*mean_with_sample_weight"):
        ke.losses.IgnoreLabelCrossentropy(reduction="mean_with_sample_weight")


MAPS = np.random.default_rng(1).normal(size=(3, 4, 5, 2)).astype("float32")
MASKS = (np.random.default_rng(2).uniform(size=(3, 4, 5, 2)) > 0.5).astype("float32")
FORMS = [
    {"positive": p, "relative": r, "per_unit": u}
    for p in (False, True)
    for r in (False, True)
    for u in (False, True)
]


def energy_outside(masks, maps, positive=False, relative=False, per_unit=False):
    """Add up energies in a loop over all values."""
    maps = maps.astype("float64")
    shape = (len(maps), maps.shape[-1]) if per_unit else (len(maps),)
    outside, total = np.zeros(shape), np.zeros(shape)
    for place in np.ndindex(maps.shape):
        value = max(maps[place], 0) if positive else maps[place]
        unit = (place[0], place[-1]) if per_unit else place[:1]
        outside[unit] += ((1 - masks[place]) * value) ** 2
        total[unit] += value**2
    return outside / np.where(total > 0, total, 1) if relative else outside


@pytest.mark.parametrize("form", FORMS)
def test_energy_outside_is_that_of_a_loop_in_value_and_gradient(form):
    loss = ke.losses.EnergyOutside(**form, reduction="none")
    maps = tf.Variable(MAPS)
    with tf.GradientTape() as tape:
        losses = loss(MASKS, maps)
    np.testing.assert_allclose(losses, energy_outside(MASKS, MAPS, **form), rtol=1e-5)
    found, step = tape.gradient(losses, maps).numpy(), 1e-5
    for place in ((0, 0, 0, 0), (1, 2, 3, 1), (2, 3, 4, 0), (2, 1, 1, 1)):
        ends = []
        for sign in (1, -1):
            moved = MAPS.astype("float64")
            moved[place] += sign * step
            ends.append(energy_outside(MASKS, moved, **form).sum())
        expected = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(found[place], expected, rtol=1e-3, atol=1e-4)
    compiled = tf.function(loss, jit_compile=True)(tf.constant(MASKS), tf.constant(MAPS))
    np.testing.assert_allclose(compiled, losses, rtol=1e-5)


def test_masks_may_be_the_same_for_all_channels():
    loss, one = ke.losses.EnergyOutside(), MASKS[..., :1]
    expected = energy_outside(np.repeat(one, 2, -1), MAPS).mean()
    for masks in (one, one[..., 0], one[..., 0].astype(bool), one.astype("int64")):
        np.testing.assert_allclose(loss(masks, MAPS), expected, rtol=1e-5)
    half = np.full(MASKS.shape[:-1], 0.5)
    np.testing.assert_allclose(loss(half, MAPS), (MAPS**2).sum() / 4 / 3, rtol=1e-5)


def test_weights_choose_the_units():
    loss = ke.losses.EnergyOutside(per_unit=True)
    labels = np.array([[1, 0], [0, 1], [0, 0]])
    expected = (labels * energy_outside(MASKS, MAPS, per_unit=True)).sum() / labels.size
    np.testing.assert_allclose(loss(MASKS, MAPS, sample_weight=labels), expected, rtol=1e-5)
    whole = ke.losses.EnergyOutside()(MASKS, MAPS, sample_weight=[0, 2, 0])
    np.testing.assert_allclose(whole, 2 * energy_outside(MASKS, MAPS)[1] / 3, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_weights_of_samples_are_no_weights_of_units(size):
    # Two samples of two units: Keras would take their weights for those of the units.
    loss, hint = ke.losses.EnergyOutside(per_unit=True), r"`sample_weight`.*`weights\[:, None\]`"
    weights = np.arange(1.0, size + 1)
    with pytest.raises(ValueError, match=hint):
        loss(MASKS[:size], MAPS[:size], sample_weight=weights)
    expected = energy_outside(MASKS[:size], MAPS[:size], per_unit=True) * weights[:, None]
    found = loss(MASKS[:size], MAPS[:size], sample_weight=weights[:, None])
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss(MASKS, MAPS, sample_weight=2.0), 2 * loss(MASKS, MAPS))
    model = keras.Sequential([keras.Input((4, 5, 2)), keras.layers.Conv2D(2, 1)])
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=hint):
        model.fit(MAPS[:size], MASKS[:size], sample_weight=weights, verbose=0)
    model.fit(MAPS[:size], MASKS[:size], sample_weight=weights[:, None], verbose=0)


def test_unknown_sizes_are_taken_to_fit():
    loss = ke.losses.EnergyOutside()
    known, unknown = (tf.TensorSpec((None, *s, 2)) for s in ((4, 5), (None, None)))
    for kinds in ((known, unknown), (unknown, known), (unknown, unknown)):
        run = tf.function(loss, input_signature=kinds)
        np.testing.assert_allclose(run(MASKS, MAPS), loss(MASKS, MAPS), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_share_does_not_depend_on_the_scale(scale):
    loss = ke.losses.EnergyOutside(relative=True, reduction="none")
    share = energy_outside(MASKS, MAPS, relative=True)
    maps = tf.Variable((MAPS * np.float64(scale)).astype("float32"))
    with tf.GradientTape() as tape:
        losses = loss(MASKS, maps)
    np.testing.assert_allclose(losses, share, rtol=1e-5)
    assert np.isfinite(tape.gradient(losses, maps)).all()


def test_the_share_of_a_sample_does_not_depend_on_the_scale_of_others():
    scales = np.array([1e-30, 1.0, 1e30])
    for per_unit in (False, True):
        loss = ke.losses.EnergyOutside(relative=True, per_unit=per_unit, reduction="none")
        share = energy_outside(MASKS, MAPS, relative=True, per_unit=per_unit)
        maps = tf.Variable((MAPS * scales[:, None, None, None]).astype("float32"))
        with tf.GradientTape() as tape:
            losses = loss(MASKS, maps)
        np.testing.assert_allclose(losses, share, rtol=1e-5)
        assert np.isfinite(tape.gradient(losses, maps)).all()
    scaled = (MAPS[:1] * [1e-30, 1e30]).astype("float32")
    np.testing.assert_allclose(loss(MASKS[:1], scaled), share[:1], rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, -1e-45, 1e-45])
def test_maps_without_energy_have_no_loss_and_finite_gradients(form, value):
    loss = ke.losses.EnergyOutside(**form)
    maps = tf.Variable(np.full_like(MAPS, value))
    with tf.GradientTape() as tape:
        found = loss(np.zeros_like(MASKS), maps)
    assert float(found) == 0
    gradient = np.asarray(tape.gradient(found, maps))
    assert np.isfinite(gradient).all()
    if value == 0:
        assert (gradient == 0).all()


def test_energy_outside_is_serialized():
    loss = ke.losses.EnergyOutside(True, True, True, reduction="sum", name="own")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert again.get_config()["per_unit"] is True
    np.testing.assert_allclose(again(MASKS, MAPS), loss(MASKS, MAPS))


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 4, 5, 3), (3, 5), (3, 8, 10, 2), (1, 4, 5)])
def test_masks_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"`y_true`.*maps \(3, 4, 5, 2\).*`resizing=`") as error:
        ke.losses.EnergyOutside()(np.ones(shape), MAPS)
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("option", ["positive", "relative", "per_unit"])
def test_bad_options_of_energy_outside_are_named(option):
    with pytest.raises(TypeError, match=f"`{option}`.*Received: 'yes'"):
        ke.losses.EnergyOutside(**{option: "yes"})
