"""Every metric keeps its promises: batches, replicas, compiled or not, serialization, bad input."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke

METRICS = ke.metrics.names()
# Cheap settings, and those that fit maps of 8 x 8.
OPTIONS = {
    "aupc": {"window": 3, "num_regions": 2, "num_copies": 3},
    "deletion": {"num_steps": 4},
    "faithfulness_correlation": {"num_subsets": 8},
    "faithfulness_estimate": {"num_steps": 4},
    "insertion": {"num_steps": 4},
    "monotonicity": {"num_steps": 4},
    "pixel_flipping": {"num_steps": 4},
    "pointing_game": {"tolerance": 0},
    "road": {"percentiles": (20, 60)},
    "selectivity": {"patch_size": 4},
    "top_k_intersection": {"k": 12},
}
SIZE, CLASSES, SAMPLES = 8, 3, 6


def explain(model, x, indices=None):
    return ke.gradcam(model, x, indices, layer="features", verbose=0)


@functools.cache
def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((SIZE, SIZE, 2))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="features")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(CLASSES, activation="sigmoid", bias_initializer="ones")(x)
    return keras.Model(inputs, outputs)


@functools.cache
def data():
    """Return all that metrics are computed from."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (SAMPLES, SIZE, SIZE, 2)).astype("float32")
    corners = rng.integers(0, 4, (SAMPLES, 2, 2))
    boxes = np.concatenate([corners, corners + rng.integers(2, 5, corners.shape)], axis=-1)
    masks = (rng.uniform(size=(SAMPLES, SIZE, SIZE, CLASSES)) > 0.6).astype("uint8")
    masks[0, ..., 1], masks[1, 0] = 0, 255
    logits, maps = explain(network(), x)
    return {
        "model": network(),
        "x": x,
        "maps": maps,
        "masks": masks,
        "boxes": {
            "boxes": boxes.astype("float32"),
            "labels": rng.integers(0, CLASSES, (SAMPLES, 2)),
        },
        "labels": rng.integers(0, CLASSES + 1, (SAMPLES, SIZE, SIZE)),
        "fixations": rng.integers(0, 2, (SAMPLES, SIZE, SIZE)),
        "explain": explain,
    }


def arguments(name, rows=..., **changes):
    """Return what a metric is computed from, for some samples."""
    needed = [parameter.name for parameter in ke.metrics.registration(name).arguments]
    given = {n: v for n, v in data().items() if n in needed}
    arrays = {n: v for n, v in given.items() if n not in ("model", "explain")} | changes
    return given | keras.tree.map_structure(lambda a: a[rows], arrays)


def of(name, rows=..., **options):
    options = {**OPTIONS.get(name, {}), **options}
    return getattr(ke.metrics, name)(**arguments(name, rows), return_weights=True, **options)


def state_of(name, average="weighted"):
    known = ke.metrics.registration(name)
    return getattr(ke.metrics, known.class_name)(average=average, **OPTIONS.get(name, {}))


@functools.cache
def scores(name):
    return of(name)


@pytest.mark.parametrize("name", METRICS)
def test_values_are_finite_and_some_are_defined(name):
    values, weights = scores(name)
    assert values.dtype == weights.dtype == np.float32
    assert values.shape == weights.shape
    assert np.isfinite(values).all()
    assert weights.sum() > 0
    assert (values[weights == 0] == 0).all()


@pytest.mark.parametrize("name", METRICS)
def test_samples_do_not_see_each_other(name):
    values, weights = scores(name)
    alone = [of(name, slice(i, i + 1)) for i in range(2)]
    for i, (value, weight) in enumerate(alone):
        np.testing.assert_allclose(value[0], values[i], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(weight[0], weights[i])


@pytest.mark.parametrize("name", METRICS)
def test_batches_add_up_to_the_data(name):
    values, weights = scores(name)
    whole, parts = state_of(name), state_of(name)
    whole.update_state(**arguments(name))
    for rows in (slice(0, 4), slice(4, None)):
        parts.update_state(**arguments(name, rows))
    np.testing.assert_allclose(parts.result(), whole.result(), rtol=1e-4, atol=1e-6)
    if ke.metrics.registration(name).combine is None:
        mean = (values * weights).sum() / weights.sum()
        np.testing.assert_allclose(whole.result(), mean, rtol=1e-4, atol=1e-6)
    before = whole.result()
    whole.reset_state()
    assert float(whole.result()) == 0
    whole.update_state(**arguments(name))
    np.testing.assert_allclose(whole.result(), before, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_replicas_share_the_data(compiled):
    names = [n for n in METRICS if "explain" not in ke.metrics.registration(n).needs]
    # Metrics share how they are computed: one of each category tells, and of each that adds up
    # other things than values.
    known = {name: ke.metrics.registration(name) for name in names}
    names = {(r.category, r.combine is None): name for name, r in known.items()}.values()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    original = network()  # Made outside of the scope, as other tests take it.
    with strategy.scope():
        model = keras.models.clone_model(original)
        model.set_weights(original.get_weights())
        states = {name: state_of(name) for name in names}
    arrays = {k: v for k, v in data().items() if k not in ("model", "explain")}

    def step(batch):
        for name, state in states.items():
            needed = [parameter.name for parameter in ke.metrics.registration(name).arguments]
            given = {n: v for n, v in {**batch, "model": model}.items() if n in needed}
            state.update_state(**given)

    step = tf.function(step, autograph=False) if compiled else step
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(4)
    for batch in strategy.experimental_distribute_dataset(dataset):
        strategy.run(step, (batch,))
    for name, state in states.items():
        whole = state_of(name)
        whole.update_state(**arguments(name))
        result = whole.result()
        np.testing.assert_allclose(state.result(), result, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "name", [n for n in METRICS if "explain" in ke.metrics.registration(n).needs]
)
def test_what_explains_again_says_that_it_runs_outside_of_compiled_functions(name):
    state, given = state_of(name), arguments(name)
    with pytest.raises(RuntimeError, match="outside of `tf.function`"):
        tf.function(lambda: state.update_state(**given))()


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_made_again_from_what_they_are_made_of(name):
    metric = state_of(name, average="macro")
    for again in (
        type(metric).from_config(metric.get_config()),
        ke.metrics.get(keras.saving.serialize_keras_object(metric)),
    ):
        assert type(again) is type(metric)
        assert again.get_config() == metric.get_config()
    made = ke.metrics.get(name), ke.metrics.get(type(metric).__name__), ke.metrics.get(type(metric))
    assert {type(other) for other in made} == {type(metric)}
    assert ke.metrics.get(getattr(ke.metrics, name)).name == name
    assert ke.metrics.get(metric) is metric
    assert metric.higher_is_better in (True, False, None)


@pytest.mark.parametrize("name", METRICS)
def test_weights_of_samples_count(name):
    metric = state_of(name)
    alone = state_of(name)
    weights = np.zeros(SAMPLES)
    weights[:3] = 1
    metric.update_state(**arguments(name), sample_weight=weights)
    alone.update_state(**arguments(name, slice(0, 3)))
    np.testing.assert_allclose(metric.result(), alone.result(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_bad_input_is_named_before_any_pass(name, monkeypatch):
    monkeypatch.setattr(keras.Model, "__call__", lambda *_, **__: pytest.fail("a pass was run"))
    maps = data()["maps"]
    broken = maps.copy()
    broken[1, 2, 2, 0] = np.nan
    compute = functools.partial(getattr(ke.metrics, name), **OPTIONS.get(name, {}))
    for wrong, message in (
        (broken, "`maps`.*Received: NaN or infinity in 1 samples, the first of index 1"),
        (maps[:0], "`maps`"),
        (maps[:, 0, 0], r"`maps`.*shape \(6, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            compute(**{**arguments(name), "maps": wrong})


@pytest.mark.parametrize("need", ["masks", "boxes", "labels", "fixations"])
def test_what_doesnt_fit_the_maps_is_named(need):
    names = [name for name in METRICS if need in ke.metrics.registration(name).needs]
    assert names
    given = data()[need]
    larger = data()["maps"].repeat(2, axis=1)
    for name in names:
        compute = functools.partial(getattr(ke.metrics, name), **OPTIONS.get(name, {}))
        if need == "boxes":
            outside = {**given, "boxes": given["boxes"] + 6}
            with pytest.raises(ValueError, match=r"`boxes`.*inside images.*Received: \["):
                compute(**{**arguments(name), "boxes": outside})
            unknown = {**given, "labels": given["labels"] + CLASSES}
            with pytest.raises(ValueError, match=r"`boxes`.*classes from 0 to 2"):
                compute(**{**arguments(name), "boxes": unknown})
        else:
            with pytest.raises(ValueError, match=rf"`{need}`.*Received: shape"):
                compute(**{**arguments(name), "maps": larger})


def test_each_metric_is_filed():
    for name in METRICS:
        known = ke.metrics.registration(name)
        assert known.category in ke.metrics.CATEGORIES
        assert name in ke.metrics.names(known.category)
        assert ke.metrics.get(name).registration is known
        assert callable(getattr(ke.metrics, name))
        assert getattr(ke.metrics, known.class_name).registration is known
    assert sorted(n for c in ke.metrics.CATEGORIES for n in ke.metrics.names(c)) == [*METRICS]
    with pytest.raises(ValueError, match="Received: 'beauty'"):
        ke.metrics.names("beauty")
