"""The metrics that mask inputs, against values known by hand and a slow oracle in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_explainable as ke

MASKING = (
    "average_drop",
    "average_drop_of_others",
    "average_retention",
    "average_retention_of_others",
    "f1_minus",
    "f1_plus",
    "increase_in_confidence",
)


def linear_model(activation="sigmoid", kernel=((4.0, 0.0), (0.0, 4.0)), bias=(0.0, 0.0)):
    """A model whose unit u sees the mean of channel u alone."""
    model = keras.Sequential(
        [
            keras.Input((2, 2, 2)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation=activation),
        ]
    )
    model.layers[-1].set_weights([np.asarray(kernel), np.asarray(bias)])
    return model


def conv_model(units=4, activation="sigmoid"):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(5, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(units, activation=activation, kernel_initializer="random_normal"),
        ]
    )
    rng = np.random.default_rng(0)
    model.layers[-1].set_weights([rng.normal(0, 4, (5, units)), rng.normal(0, 0.5, units)])
    return model


@pytest.fixture
def case():
    """A model, images of which several units are detected, and maps of every unit."""
    rng = np.random.default_rng(1)
    model = conv_model()
    x = rng.uniform(-1, 1, (5, 6, 6, 3)).astype("float32")
    return model, x, rng.uniform(0, 1, (5, 6, 6, 4)).astype("float32")


def probabilities(model, x):
    return np.asarray(model(x), "float64")


def oracle(model, x, maps, chosen, other=None):
    """Compute all masking metrics, pair by pair: the definitions, slowly."""
    other = np.zeros_like(x) if other is None else other
    before = probabilities(model, x)
    found = {name: [] for name in MASKING}
    for i, c in np.argwhere(chosen):
        m = maps[i, ..., c, None]
        kept, removed = (
            probabilities(model, (m_ * x[i] + (1 - m_) * other[i])[None])[0] for m_ in (m, 1 - m)
        )
        lost = [np.maximum(before[i] - after, 0) / before[i] for after in (kept, removed)]
        others = [d for d in np.flatnonzero(chosen[i]) if d != c]
        drop, retention = lost[0][c], lost[1][c]
        drop_of_others, retention_of_others = (
            sum(part[d] for d in others) / max(len(others), 1) for part in lost
        )
        found["increase_in_confidence"].append(float(kept[c] > before[i, c]))
        found["average_drop"].append(drop)
        found["average_retention"].append(retention)
        found["average_drop_of_others"].append(drop_of_others)
        found["average_retention_of_others"].append(retention_of_others)
        found["f1_plus"].append(harmonic_mean(retention, drop_of_others))
        found["f1_minus"].append(harmonic_mean(drop, retention_of_others))
    return {name: np.asarray(values) for name, values in found.items()}


def harmonic_mean(a, b):
    return 2 * a * b / (a + b) if a + b else 0.0


@pytest.mark.parametrize("name", MASKING)
def test_values_are_those_of_the_definition(case, name):
    model, x, maps = case
    chosen = probabilities(model, x) > 0.5
    assert 5 < chosen.sum() < chosen.size
    values = getattr(ke.metrics, name)(model, x, maps)
    np.testing.assert_allclose(values, oracle(model, x, maps, chosen)[name], atol=1e-5)


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_fills_take_the_place_of_what_is_left_out(case, fill):
    model, x, maps = case
    if fill == "mean":
        other = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
    else:
        away = np.subtract.outer(np.arange(6), np.arange(6))
        weights = np.exp(-0.5 * (away / 5) ** 2) * (np.abs(away) <= 5)
        weights /= weights.sum(1, keepdims=True)
        other = np.einsum("ij,kl,bjlc->bikc", weights, weights, x)
    expected = oracle(model, x, maps, probabilities(model, x) > 0.5, other)["average_drop"]
    values = ke.metrics.average_drop(model, x, maps, fill=fill)
    np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("name", MASKING)
def test_a_map_that_keeps_all_changes_nothing(case, name):
    model, x, maps = case
    values = getattr(ke.metrics, name)(model, x, np.ones_like(maps))
    if name in ("average_retention", "average_retention_of_others"):
        blank = probabilities(model, np.zeros_like(x))
        assert values.max() > 0
        expected = oracle(model, x, np.ones_like(maps), probabilities(model, x) > 0.5)[name]
        np.testing.assert_allclose(values, expected, atol=1e-5)
        assert np.allclose(blank, blank[:1])
    else:
        np.testing.assert_allclose(values, 0, atol=1e-6)


def test_values_known_by_hand():
    # Unit 0 sees channel 0, unit 1 channel 1: p = sigmoid(4 * mean), of 1 here, and 1/2 of nothing.
    model = linear_model()
    x = np.ones((1, 2, 2, 2), "float32")
    maps = np.zeros((1, 2, 2, 2), "float32")
    maps[0, 0, :, 0] = 1  # The map of unit 0 shows half of the image, that of unit 1 nothing.
    before, half, blank = (1 / (1 + np.exp(-v)) for v in (4, 2, 0))
    losses = (before - half) / before, (before - blank) / before
    metric = ke.metrics.average_drop(model, x, maps)
    np.testing.assert_allclose(metric, losses, atol=1e-6)
    removed = ke.metrics.average_retention(model, x, maps)
    np.testing.assert_allclose(removed, [losses[0], 0], atol=1e-6)
    # Each is the only other of the other.
    others = ke.metrics.average_drop_of_others(model, x, maps)
    np.testing.assert_allclose(others, losses, atol=1e-6)


def test_a_map_that_hides_what_speaks_against_a_unit_increases_its_confidence():
    model = linear_model(kernel=((4.0, 0.0), (-2.0, 0.0)), bias=(0.1, -9.0))
    x = np.ones((1, 2, 2, 2), "float32")
    x[0, 0, :, 0] = 2
    x[0, 1, :, 0] = 0
    maps = np.zeros((1, 2, 2, 1), "float32")
    maps[0, 0] = 1
    assert ke.metrics.increase_in_confidence(model, x, maps, [0]).tolist() == [1]
    assert ke.metrics.increase_in_confidence(model, x, 1 - maps, [0]).tolist() == [0]


def test_only_the_sole_unit_of_a_sample_has_no_others():
    model = linear_model(bias=(0.0, -9.0))
    x = np.ones((2, 2, 2, 2), "float32")
    x[1, ..., 1] = 9
    maps = np.full((2, 2, 2, 2), 0.5, "float32")
    zero = ke.metrics.average_drop_of_others(model, x, maps)
    skip = ke.metrics.average_drop_of_others(model, x, maps, others="skip")
    assert len(zero) == 3
    assert zero[0] == 0
    np.testing.assert_array_equal(skip, zero[1:])


def test_pairs_are_those_given(case):
    model, x, maps = case
    everything = np.ones((5, 4), bool)
    expected = oracle(model, x, maps, everything)["average_drop"].reshape(5, 4)
    units = np.asarray([[0, 3], [1, 2], [3, 0], [2, 1], [0, 1]])
    rows = np.arange(5)[:, None]
    for given in (
        {"maps": maps, "indices": units},
        {"maps": maps[rows, :, :, units].transpose(0, 2, 3, 1), "indices": units},
    ):
        values = ke.metrics.average_drop(model, x, given["maps"], given["indices"])
        np.testing.assert_allclose(values, expected[rows, units].ravel(), atol=1e-5)
    detections = np.eye(4)[[0, 1, 2, 3, 0]]
    values = ke.metrics.average_drop(model, x, maps, detections=detections)
    np.testing.assert_allclose(values, expected[detections > 0], atol=1e-5)
    strict = probabilities(model, x) > 0.8
    values = ke.metrics.average_drop(model, x, maps, threshold=0.8)
    np.testing.assert_allclose(values, expected[strict], atol=1e-5)
    best = probabilities(model, x).argmax(1)
    values = ke.metrics.average_drop(
        model, x, maps[np.arange(5), ..., best][..., None], indices="argmax"
    )
    np.testing.assert_allclose(values, expected[np.arange(5), best], atol=1e-5)


def test_detections_are_there_or_not(case):
    model, x, maps = case
    whole = np.asarray([[1, 1, 0, 1]] * 5, "float32")
    expected = ke.metrics.average_drop_of_others(model, x, maps, detections=whole)
    assert expected.max() > 0
    for given in (0.3 * whole, whole.astype(bool)):
        values = ke.metrics.average_drop_of_others(model, x, maps, detections=given)
        np.testing.assert_array_equal(values, expected)
    units = np.tile([0, 1, 3, 3], (5, 1))
    chosen = ke.metrics.average_drop_of_others(model, x, maps[..., [0, 1, 3, 3]], units)
    np.testing.assert_allclose(chosen.reshape(5, 4)[:, :3].ravel(), expected, atol=1e-6)
    both = ke.metrics.average_drop_of_others(
        model, x, maps[..., [0, 1, 3]], units[:, :3], detections=np.asarray([[1, 0, 1, 1]] * 5)
    )
    without = ke.metrics.average_drop_of_others(
        model, x, maps, detections=np.asarray([[1, 0, 0, 1]] * 5)
    )
    np.testing.assert_allclose(both, without, atol=1e-6)


@pytest.mark.parametrize("name", ["f1_plus", "f1_minus", "average_retention_of_others"])
def test_others_may_be_left_out(name):
    model = linear_model(bias=(0.0, -9.0))
    x = np.ones((2, 2, 2, 2), "float32")
    x[1, ..., 1] = 9
    maps = np.full((2, 2, 2, 2), 0.5, "float32")
    compute = getattr(ke.metrics, name)
    assert len(compute(model, x, maps)) == 3
    assert len(compute(model, x, maps, others="skip")) == 2


def test_logits_given_are_not_predicted_again(case):
    model, x, maps = case
    logits = np.tile([[9.0, -9.0, -9.0, -9.0]], (5, 1))
    values = ke.metrics.average_drop(model, x, maps, logits=logits)
    assert len(values) == 5


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_the_activation_of_a_model_that_ends_in_logits_is_told(case, activation):
    _, x, maps = case
    model, reference = conv_model(activation=None), conv_model(activation=activation or "sigmoid")
    reference.set_weights(model.get_weights())
    everything = np.ones((5, 4))
    for name in ("average_drop", "average_retention"):
        compute = getattr(ke.metrics, name)
        values = compute(model, x, maps, detections=everything, activation=activation)
        expected = compute(reference, x, maps, detections=everything)
        assert expected.max() > 0.01
        np.testing.assert_allclose(values, expected, atol=1e-6)


def test_maps_of_another_size_are_resized_to_the_input(case):
    model, x, maps = case
    small = maps[:, ::2, ::2]
    large = np.asarray(ke.filters.resize(small, (6, 6)))
    np.testing.assert_allclose(
        ke.metrics.average_drop(model, x, small),
        ke.metrics.average_drop(model, x, large),
        atol=1e-6,
    )


def test_no_pair_gives_no_value(case):
    model, x, maps = case
    assert ke.metrics.average_drop(model, x, maps, threshold=1.0).shape == (0,)
    metric = ke.metrics.AverageDrop(threshold=1.0)
    metric.update_state(model, x, maps)
    assert float(metric.result()) == 0


@pytest.mark.parametrize("name", MASKING)
def test_averages_over_classes(case, name):
    model, x, maps = case
    chosen = probabilities(model, x) > 0.5
    metrics = {a: ke.metrics.get(name) for a in ("weighted", "macro", None)}
    metrics = {a: type(m).from_config({**m.get_config(), "average": a}) for a, m in metrics.items()}
    for metric in metrics.values():
        metric.update_state(model, x[:2], maps[:2])
        metric.update_state(model, x[2:], maps[2:])
    parts = oracle(model, x, maps, chosen)
    unit = np.argwhere(chosen)[:, 1]
    occurring = sorted(set(unit))

    def per_class(part):
        return np.asarray([parts[part][unit == c].mean() for c in occurring])

    expected = per_class(name)
    if name == "f1_plus":
        expected = [
            harmonic_mean(*pair)
            for pair in zip(
                per_class("average_retention"), per_class("average_drop_of_others"), strict=True
            )
        ]
    if name == "f1_minus":
        expected = [
            harmonic_mean(*pair)
            for pair in zip(
                per_class("average_drop"), per_class("average_retention_of_others"), strict=True
            )
        ]
    counts = [np.sum(unit == c) for c in occurring]
    found = np.asarray(metrics[None].result())
    np.testing.assert_allclose(found[occurring], expected, atol=1e-5)
    assert np.isnan(np.delete(found, occurring)).all()
    np.testing.assert_allclose(metrics["macro"].result(), np.mean(expected), atol=1e-5)
    np.testing.assert_allclose(
        metrics["weighted"].result(), np.average(expected, weights=counts), atol=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": lambda m: m * 2}, r"`maps`. Expected values from 0 to 1.*Received: .* to "),
        ({"maps": lambda m: m - 0.5}, r"Received: -0\.4"),
        ({"maps": lambda m: np.where(m > 0.9, np.nan, m)}, r"Received: NaN or infinity in 5 samp"),
        ({"maps": lambda m: m[..., :3]}, r"one map for each of the 4 units.*Received: 3"),
        ({"maps": lambda m: m[:4]}, r"Received: \{'x': 5, 'maps': 4\} samples"),
        ({"maps": lambda m: m[:, 0, 0]}, r"Received: shape \(5, 4\)"),
        ({"x": lambda x: x[..., :2]}, r"`x`. Expected shape \(None, 6, 6, 3\). Received: \(5, 6"),
        ({"indices": [[4]] * 5}, r"units from 0 to 3. Received: 4 to 4"),
        ({"indices": [[0]] * 4}, r"`indices`.*Received: shape \(4, 1\)"),
        ({"indices": [[0, 1, 2]] * 5, "maps": lambda m: m[..., :2]}, "3 maps.*Received: 2 per sam"),
        ({"indices": "best"}, "Received: 'best'"),
        ({"detections": np.ones((5, 3))}, r"`detections`.*\(5, 4\). Received: shape \(5, 3\)"),
        ({"logits": np.full((5, 4), np.nan)}, "`logits`.*Received: NaN"),
        ({"fill": "noise"}, "`fill`.*Received: 'noise'"),
        ({"others": "none"}, "`others`.*Received: 'none'"),
        ({"threshold": "high"}, "`threshold`.*Received: 'high'"),
        ({"chunk": 0}, "`chunk`.*Received: 0"),
        ({"batch_size": 0}, "`batch_size`.*Received: 0"),
    ],
)
def test_bad_input_is_named(case, changes, message):
    model, x, maps = case
    given = {"x": x, "maps": maps, "indices": None} | {
        name: change({"x": x, "maps": maps}[name]) if callable(change) else change
        for name, change in changes.items()
    }
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        ke.metrics.average_drop_of_others(model, **given)


def test_wrong_types_are_named(case):
    model, x, maps = case
    with pytest.raises(TypeError, match="`model`. Expected a `keras.Model`"):
        ke.metrics.average_drop("model", x, maps)
    with pytest.raises(TypeError, match="`indices`. Expected integers"):
        ke.metrics.average_drop(model, x, maps, [0.5] * 5)
    with pytest.raises(TypeError, match="unknown option 'other'"):
        ke.metrics.AverageDrop(other=1)
    with pytest.raises(TypeError, match=r"'numsteps'.*Did you mean 'num_steps'\?$"):
        ke.metrics.Insertion(numsteps=3)
    with pytest.raises(ValueError, match="Did you mean 'average_drop'"):
        ke.metrics.get("average_dorp")
    with pytest.raises(TypeError, match="Received: 3"):
        ke.metrics.get(3)


@pytest.mark.parametrize("kind", ["mixed_float16", "two_inputs", "signal", "channels_first"])
def test_other_models_are_judged(kind):
    rng = np.random.default_rng(2)
    if kind == "signal":
        inputs = keras.Input((6, 3))
        x, positions = rng.normal(size=(3, 6, 3)).astype("float32"), (6,)
        hidden = layers.Conv1D(4, 3, activation="relu")(inputs)
        hidden = layers.GlobalAveragePooling1D()(hidden)
    elif kind == "two_inputs":
        inputs = [keras.Input((2,)), keras.Input((6, 6, 3))]
        x = [rng.normal(size=(3, *i.shape[1:])).astype("float32") for i in inputs]
        hidden = layers.Conv2D(4, 3, activation="relu")(inputs[1])
        hidden = layers.Concatenate()([inputs[0], layers.GlobalAveragePooling2D()(hidden)])
        positions = (6, 6)
    else:
        policy = kind if kind == "mixed_float16" else None
        first = kind == "channels_first"
        inputs = keras.Input((3, 6, 6) if first else (6, 6, 3))
        x = rng.normal(size=(3, *inputs.shape[1:])).astype("float32")
        form = "channels_first" if first else "channels_last"
        hidden = layers.Conv2D(4, 3, activation="relu", data_format=form, dtype=policy)(inputs)
        hidden = layers.GlobalAveragePooling2D(data_format=form, dtype=policy)(hidden)
        positions = (6, 6)
    model = keras.Model(inputs, layers.Dense(2, activation="sigmoid")(hidden))
    maps = rng.uniform(0, 1, (3, *positions, 2)).astype("float32")
    values = ke.metrics.average_drop(model, x, maps, [[0, 1]] * 3)
    shown = x[1] if kind == "two_inputs" else x
    for i in range(3):
        for u in range(2):
            mask = maps[i, ..., u]
            mask = mask[None] if kind == "channels_first" else mask[..., None]
            masked = (shown[i] * mask)[None]
            masked = [x[0][i : i + 1], masked] if kind == "two_inputs" else masked
            sample = [a[i : i + 1] for a in x] if kind == "two_inputs" else x[i : i + 1]
            try:
                before, after = (np.asarray(model(v))[0, u] for v in (sample, masked))
            except Exception:  # noqa: BLE001
                pytest.skip("TensorFlow runs no convolution with channels first here")
            expected = max(before - after, 0) / before
            tolerance = 5e-3 if kind == "mixed_float16" else 1e-5
            np.testing.assert_allclose(values[2 * i + u], expected, atol=tolerance)
