"""`ke.evaluate`: what it says is what methods and metrics say, in whatever way data come."""

import functools
import itertools
import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke

METHODS = ["cam", "gradients"]
METRICS = ["average_drop", "f1_plus", "pointing_game"]
IMAGES = np.random.default_rng(1).uniform(-1, 1, (7, 6, 6, 3)).astype("float32")
QUIET = {"verbose": 0, "num_resamples": 20}


def network(activation="sigmoid", units=4):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(5, 3, activation="relu", padding="same", name="first")(inputs)
    x = layers.Conv2D(5, 3, activation="relu", padding="same", name="second")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(units, activation=activation)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.6, weight.shape))
    # Of each class, some images are above the threshold and some below.
    kernel = rng.normal(0, 12, (5, units))
    pooled = keras.Model(inputs, x).predict(IMAGES, verbose=0)
    model.layers[-1].set_weights([kernel, -np.median(pooled @ kernel, axis=0) + 0.1])
    return model


@pytest.fixture(scope="module")
def case():
    rng, x = np.random.default_rng(2), IMAGES
    masks = (rng.uniform(size=(7, 6, 6, 4)) > 0.7).astype("uint8")
    masks[0, ..., 1] = 0
    model = network()
    detected = model.predict(x, verbose=0) > 0.5
    assert {*detected.sum(1)} == {2, 3}
    return model, x, masks


def evaluated(model, x, y=None, *, masks, methods=METHODS, metrics=METRICS, **options):
    return ke.evaluate(
        model, x, y, methods=methods, metrics=metrics, masks=masks, **{**QUIET, **options}
    )


def by_hand(model, x, masks, method):
    """Run the method, then each metric, on all data at once."""
    logits, maps = ke.explain(method, model, x, verbose=0)
    present = 1 / (1 + np.exp(-logits)) > 0.5
    drop, plus = (ke.metrics.get(name) for name in ("average_drop", "f1_plus"))
    for metric in (drop, plus):
        metric.update_state(model, x, maps)
    hits, weights = ke.metrics.pointing_game(maps, masks, return_weights=True)
    return {
        "average_drop": float(drop.result()),
        "f1_plus": float(plus.result()),
        "pointing_game": (hits * weights * present).sum() / (weights * present).sum(),
    }


@pytest.mark.parametrize("batch_size", [3, 32])
def test_values_are_those_of_the_metrics_of_all_maps(case, batch_size):
    model, x, masks = case
    table = evaluated(model, x, masks=masks, batch_size=batch_size)
    assert table.methods == METHODS
    assert table.metrics == METRICS
    assert table.num_samples == 7
    for method in METHODS:
        expected = by_hand(model, x, masks, method)
        for metric, value in expected.items():
            np.testing.assert_allclose(table.value(method, metric), value, atol=1e-5)


def test_values_per_class_and_counts(case):
    model, x, masks = case
    table = evaluated(model, x, masks=masks, methods="cam", metrics="average_drop")
    _, maps = ke.cam(model, x, verbose=0)
    metric = ke.metrics.AverageDrop(average=None)
    metric.update_state(model, x, maps)
    per_class = np.asarray(metric.result())
    present = model.predict(x, verbose=0) > 0.5
    found = {row.unit: row for row in table.select(metric="average_drop")}
    assert set(found) == {"all", *np.flatnonzero(present.any(0))}
    for unit in np.flatnonzero(present.any(0)):
        np.testing.assert_allclose(found[unit].value, per_class[unit], atol=1e-5)
        assert found[unit].count == present[:, unit].sum()
    assert found["all"].count == present.sum()
    named = evaluated(
        model, x, masks=masks, methods="cam", metrics="average_drop", class_names="abcd"
    )
    assert {row.unit for row in named} <= {"all", *"abcd"}


def test_averages_are_those_of_the_metric(case):
    model, x, masks = case
    metrics = {"macro": ke.metrics.AverageDrop(average="macro"), "blur": "average_drop"}
    metrics["blur"] = ke.metrics.AverageDrop(fill="blur")
    table = evaluated(model, x, masks=masks, methods="cam", metrics=metrics)
    _, maps = ke.cam(model, x, verbose=0)
    for label, metric in metrics.items():
        metric.update_state(model, x, maps)
        np.testing.assert_allclose(table.value("cam", label), metric.result(), atol=1e-5)
    assert table.value("cam", "macro") != table.value("cam", "blur")


@pytest.mark.parametrize("kind", ["labels", "multi-hot", "argmax", "several", "one"])
def test_units_explained_are_those_given(case, kind):
    model, x, masks = case
    labels = np.asarray([0, 1, 2, 3, 0, 1, 2])
    y = {
        "labels": labels,
        "multi-hot": np.eye(4)[labels] + np.eye(4)[(labels + 1) % 4],
        "argmax": "argmax",
        "several": np.stack([labels, (labels + 1) % 4], 1),
        "one": 2,
    }[kind]
    units = {
        "argmax": model.predict(x, verbose=0).argmax(1)[:, None],
        "labels": labels[:, None],
        "one": np.full((7, 1), 2),
    }.get(kind, np.stack([labels, (labels + 1) % 4], 1))
    table = evaluated(model, x, y, masks=masks, methods="cam")
    _, maps = ke.cam(model, x, units, verbose=0)
    drop = ke.metrics.average_drop(model, x, maps, units)
    np.testing.assert_allclose(table.value("cam", "average_drop"), drop.mean(), atol=1e-5)
    hits, weights = ke.metrics.pointing_game(maps, masks, units, return_weights=True)
    expected = (hits * weights).sum() / weights.sum()
    np.testing.assert_allclose(table.value("cam", "pointing_game"), expected, atol=1e-6)


def test_a_softmax_is_explained_at_its_highest_unit(case):
    _, x, masks = case
    model = network("softmax")
    table = evaluated(model, x, masks=masks, methods="cam")
    argmax = evaluated(model, x, "argmax", masks=masks, methods="cam")
    assert table.rows == argmax.rows
    assert table.select("cam", "average_drop", "all")[0].count == 7


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, masks):
        super().__init__()
        self.data = x, y, masks

    def __len__(self):
        return 3

    def __getitem__(self, i):
        x, y, masks = (a[3 * i : 3 * i + 3] for a in self.data)
        return x, y, {"masks": masks}


@pytest.mark.parametrize("kind", ["dataset", "py_dataset", "list"])
def test_data_sets_are_gone_through_as_arrays_are(case, kind):
    model, x, masks = case
    y = np.asarray([0, 1, 2, 3, 0, 1, 2])
    expected = evaluated(model, x, y, masks=masks, batch_size=3)
    dataset = tf.data.Dataset.from_tensor_slices((x, y, masks)).batch(3)
    dataset = dataset.map(lambda x, y, m: (x, y, {"masks": m}))
    source = {
        "dataset": dataset,
        "py_dataset": Batches(x, y, masks),
        "list": iterable(dataset),
    }[kind]
    actual = evaluated(model, source, masks=None)
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_allclose(one[3:], other[3:], atol=1e-5)
        assert one[:3] == other[:3]


def iterable(dataset):
    class Source:
        def __iter__(self):
            return dataset.as_numpy_iterator()

    return Source()


def test_replicas_share_the_data(case):
    model, x, masks = case
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        mirrored = network()
    mirrored.set_weights(model.get_weights())
    expected = evaluated(model, x, masks=masks)
    actual = evaluated(mirrored, x, masks=masks, batch_size=4)
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_allclose(one[3:], other[3:], atol=1e-5)


@pytest.mark.parametrize("method", sorted(set(ke.methods.names()) - {"minmaxcam"}))
def test_every_method_is_evaluated(case, method):
    model, x, masks = case
    if ke.methods.registration(method).needs == "attention":
        with pytest.raises(ValueError, match="No attention can be reached"):
            evaluated(model, x[:2], "argmax", masks=masks[:2], methods=method)
        return
    table = evaluated(model, x[:2], "argmax", masks=masks[:2], methods=method)
    _, maps = ke.explain(method, model, x[:2], "argmax", verbose=0)
    expected = ke.metrics.average_drop(model, x[:2], maps, "argmax").mean()
    np.testing.assert_allclose(table.value(method, "average_drop"), expected, atol=1e-4)


def test_the_logits_of_the_explained_pass_are_used(case):
    """One pass explains, one per pair judges, and none predicts what is known."""
    _, x, masks = case
    model = network()
    counted = []

    class Counting(layers.Layer):
        def call(self, inputs):
            tf.numpy_function(lambda n: counted.append(int(n)), [tf.shape(inputs)[0]], [])
            return inputs

    counting = keras.Sequential([keras.Input((6, 6, 3)), Counting(), model])
    for method, passes in (("cam", 7 + 14), ("smooth(gradients)", 7 + 7 * 3 + 14)):
        method = ke.methods.smooth("gradients", num_samples=3) if "smooth" in method else method
        counted.clear()
        evaluated(
            counting, x, "argmax", masks=masks, methods=[method], metrics=["f1_plus"], batch_size=7
        )
        assert sum(counted) == passes


def test_options_of_methods_go_by_label(case):
    model, x, masks = case
    methods = {"deep": ("gradcam", {"layer": "second"}), "shallow": ("gradcam", {"layer": "first"})}
    table = evaluated(model, x, masks=masks, methods=methods)
    shared = evaluated(model, x, masks=masks, methods=["gradcam", "gradients"], layer="first")
    assert table.methods == ["deep", "shallow"]
    assert table.value("deep", "average_drop") != table.value("shallow", "average_drop")
    assert table.value("shallow", "average_drop") == shared.value("gradcam", "average_drop")


def test_threshold_and_activation_tell_what_is_detected(case):
    _, x, masks = case
    model = network(activation=None)
    reference = evaluated(network(), x, masks=masks, methods="cam")
    assert evaluated(model, x, masks=masks, methods="cam").rows == reference.rows
    strict = evaluated(model, x, masks=masks, methods="cam", threshold=0.7)
    rows = [t.select("cam", "average_drop", "all")[0].count for t in (strict, reference)]
    assert rows[0] < rows[1]
    soft = evaluated(model, x, masks=masks, methods="cam", activation="softmax")
    assert soft.select("cam", "average_drop", "all")[0].count == 7


def test_intervals_are_percentiles_of_resamples(case):
    model, x, masks = case
    table = evaluated(model, x, masks=masks, methods="cam", metrics="average_drop")
    row = table.select("cam", "average_drop", "all")[0]
    _, maps = ke.cam(model, x, verbose=0)
    values, weights = ke.metrics.average_drop(model, x, maps, return_weights=True)
    means = []
    for resample in range(20):
        times = [np.random.default_rng((0, i)).poisson(1.0, 20)[resample] for i in range(7)]
        weighted = weights * np.asarray(times)[:, None]
        means.append((values * weighted).sum() / weighted.sum())
    np.testing.assert_allclose([row.low, row.high], np.percentile(means, [2.5, 97.5]), rtol=1e-4)
    other = evaluated(model, x, masks=masks, methods="cam", metrics="average_drop", seed=1)
    assert other.rows[0].low != row.low
    assert other.rows[0].value == row.value


def test_intervals_hold_the_mean_as_often_as_they_say():
    from keras_explainable.evaluation._accumulating import Accumulator
    from keras_explainable.evaluation._accumulating import resample_weights

    rng = np.random.default_rng(3)
    known = ke.metrics.registration("average_drop")
    held = 0
    for repetition in range(200):
        values = rng.exponential(size=(60, 1))
        accumulator = Accumulator(known, "weighted")
        scores = {"values": values, "weights": np.ones_like(values)}
        resamples = resample_weights(0, 60, 300, repetition)
        accumulator.add(scores, np.zeros((60, 1), int), resamples)
        _, _, low, high, _ = accumulator.summary()[0]
        held += low < 1 < high
    assert 175 <= held <= 199


def test_metrics_that_explain_again_and_those_of_raw_maps_are_computed(case):
    model, x, _ = case
    methods = {"ig": ("integrated_gradients", {"num_steps": 8})}
    metrics = ["max_sensitivity", "completeness", "random_logit"]
    table = ke.evaluate(model, x, [1] * 7, methods=methods, metrics=metrics, **QUIET, batch_size=7)
    explain = functools.partial(ke.integrated_gradients, num_steps=8)
    maps = {
        p: explain(model, x, [1] * 7, postprocessing=p)[1] for p in ("absolute_normalize", None)
    }
    units = np.full((7, 1), 1)
    for metric in metrics:
        given = maps[None if metric == "completeness" else "absolute_normalize"]
        again = {} if metric == "completeness" else {"explain": explain}
        expected = getattr(ke.metrics, metric)(model, x, given, units, **again).mean()
        np.testing.assert_allclose(table.value("ig", metric), expected, rtol=1e-4, atol=1e-5)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
@pytest.mark.parametrize("stop", [1, 2, 4, 5])
def test_an_interrupted_evaluation_goes_on_with_bit_equal_results(
    case, kind, stop, tmp_path, monkeypatch
):
    from keras_explainable.evaluation._stepping import Step

    model, x, masks = case
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(7, int), masks)).batch(3)
    dataset = dataset.map(lambda x, y, m: (x, y, {"masks": m}))
    given = {
        "arrays": {"x": x, "y": np.zeros(7, int), "masks": masks, "batch_size": 3},
        "dataset": {"x": dataset, "masks": None},
    }[kind]
    whole = evaluated(model, **given)
    path = tmp_path / "evaluation.npz"
    run, steps = Step.scores, itertools.count(1)

    def run_until(self, *arguments):
        if next(steps) > stop:
            raise Interrupted
        return run(self, *arguments)

    monkeypatch.setattr(Step, "scores", run_until)
    with pytest.raises(Interrupted):
        evaluated(model, path=path, **given)
    counted = itertools.count()

    def run_on(self, *arguments):
        next(counted)
        return run(self, *arguments)

    monkeypatch.setattr(Step, "scores", run_on)
    assert evaluated(model, path=path, **given) == whole
    assert next(counted) == 6 - stop
    assert evaluated(model, path=path, **given) == whole
    assert next(counted) == 6 - stop + 1  # Which is the count itself.
    assert [f.name for f in tmp_path.iterdir()] == ["evaluation.npz"]


def test_an_interrupt_between_two_metrics_of_a_batch_counts_no_sample_twice(
    case, tmp_path, monkeypatch
):
    from keras_explainable.evaluation._accumulating import Accumulator

    model, x, masks = case
    given = {"masks": masks, "methods": "cam", "batch_size": 3}
    whole = evaluated(model, x, **given)
    add, calls = Accumulator.add, itertools.count(1)

    def add_until(self, *arguments):
        if next(calls) > 2 * len(METRICS) - 1:
            raise KeyboardInterrupt
        add(self, *arguments)

    monkeypatch.setattr(Accumulator, "add", add_until)
    with pytest.raises(KeyboardInterrupt):
        evaluated(model, x, path=tmp_path / "a.npz", **given)
    monkeypatch.setattr(Accumulator, "add", add)
    assert evaluated(model, x, path=tmp_path / "a.npz", **given) == whole


def test_the_file_of_another_evaluation_is_refused(case, tmp_path):
    model, x, masks = case
    path = tmp_path / "evaluation.npz"
    arguments = {"masks": masks, "methods": ["cam"], "path": path}
    evaluated(model, x, **arguments)
    before = path.read_bytes()
    for changes, what in (
        ({"methods": ["gradcam"]}, "methods"),
        ({"metrics": ["average_drop"]}, "metrics"),
        ({"metrics": [ke.metrics.AverageDrop(fill="mean")]}, "metrics"),
        ({"seed": 3}, "options"),
        ({"batch_size": 3}, "data"),
    ):
        with pytest.raises(ValueError, match=f"made with another .*{what}"):
            evaluated(model, x, **{**arguments, **changes})
    changed = x.copy()
    changed[5, 1, 1, 1] += 0.1
    with pytest.raises(ValueError, match="made with another data"):
        evaluated(model, changed, **arguments)
    for changes in ({"threshold": 0.6}, {"activation": "softmax"}):
        with pytest.raises(ValueError, match=r"made with another .*options"):
            evaluated(model, x, **{**arguments, **changes})
    trained = network()
    trained.set_weights([w + 1e-3 for w in model.get_weights()])
    with pytest.raises(ValueError, match="made with another model"):
        evaluated(trained, x, **arguments)
    assert path.read_bytes() == before
    rebuilt = network()
    rebuilt.set_weights(model.get_weights())
    assert evaluated(rebuilt, x, **arguments) == evaluated(model, x, **arguments)
    rebuilt.get_layer("second").activation = keras.activations.tanh
    with pytest.raises(ValueError, match="made with another model"):
        evaluated(rebuilt, x, **arguments)
    np.save(tmp_path / "array", x)
    for content in (b"something else", before[:-40], (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"`path`. Expected the file of an evaluation"):
            evaluated(model, x, **arguments)
        assert path.read_bytes() == content
    for missing in (tmp_path, tmp_path / "none" / "evaluation.npz"):
        with pytest.raises(ValueError, match=r"`path`. Expected a file in a folder that is there"):
            evaluated(model, x, **{**arguments, "path": missing})


def test_files_tell_methods_and_data_sets_apart(case, tmp_path):
    model, x, masks = case

    def dataset(x, masks):
        dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(7, int), masks)).batch(3)
        return dataset.map(lambda x, y, m: (x, y, {"masks": m}))

    options = {"masks": None, "metrics": ["pointing_game"], "path": tmp_path / "a.npz"}
    smooth = ke.methods.smooth
    first = [smooth("gradients", num_samples=2)]
    evaluated(model, dataset(x, masks), methods=first, **options)
    evaluated(model, dataset(x, masks), methods=[smooth("gradients", num_samples=2)], **options)
    with pytest.raises(ValueError, match="made with another methods"):
        evaluated(model, dataset(x, masks), methods=[smooth("gradients", num_samples=3)], **options)
    for other in (dataset(x + 1, masks), dataset(x, 1 - masks), dataset(x, masks).take(2)):
        with pytest.raises(ValueError, match="made with another data"):
            evaluated(model, other, methods=first, **options)
    with pytest.raises(ValueError, match="made with another data"):
        evaluated(model, dataset(x, masks), "argmax", methods=first, **options)
    filters = [lambda maps: maps, lambda maps: 0 * maps]
    options["path"] = tmp_path / "b.npz"
    for function, expected in zip(filters, (None, "made with another methods"), strict=True):
        methods = {"cam": ("gradients", {"postprocessing": function})}
        if expected is None:
            evaluated(model, dataset(x, masks), methods=methods, **options)
        else:
            with pytest.raises(ValueError, match=expected):
                evaluated(model, dataset(x, masks), methods=methods, **options)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"methods": ["gradcan"]}, ValueError, "Did you mean 'gradcam'"),
        ({"methods": []}, ValueError, "`methods`. Expected at least one"),
        ({"methods": 3}, TypeError, "`methods`"),
        ({"metrics": ["average_dorp"]}, ValueError, "Did you mean 'average_drop'"),
        ({"metrics": []}, ValueError, "`metrics`. Expected at least one"),
        ({"metrics": ["average_drop", "average_drop"]}, ValueError, "values that differ in name"),
        ({"masks": None}, ValueError, "`masks`. Expected what the metric 'pointing_game' needs"),
        ({"masks": np.zeros((7, 5, 6, 4))}, ValueError, r"Received: shape \(7, 5, 6, 4\)"),
        ({"masks": np.zeros((7, 6, 6, 3))}, ValueError, r"Received: shape \(7, 6, 6, 3\)"),
        ({"masks": np.full((7, 6, 6, 4), 7)}, ValueError, "Received: 7"),
        ({"y": [4] * 7}, ValueError, "indices from 0 to 3.*Received: 4$"),
        ({"y": [0] * 6}, ValueError, r"Received: shape \(6,\)"),
        ({"x": np.zeros((7, 6, 6, 2))}, ValueError, r"`x`. Expected shape"),
        ({"layer": "third"}, ValueError, "third"),
        ({"class_names": ["a"]}, ValueError, "`class_names`. Expected 4 names. Received: 1"),
        ({"batch_size": 0}, ValueError, "`batch_size`"),
        ({"num_resamples": -1}, ValueError, "`num_resamples`"),
        ({"model": "model"}, TypeError, "`model`. Expected a `keras.Model`"),
        ({"x": tf.data.Dataset.range(3), "y": np.zeros(3)}, TypeError, "`x`"),
        ({"x": 3}, TypeError, "`x`"),
        ({"x": (a for a in [IMAGES])}, TypeError, "`x`. Expected data that can be gone through ag"),
        ({"x": tf.data.Dataset.from_tensors(IMAGES).repeat()}, ValueError, "repeats for ever"),
        ({"x": np.where(IMAGES > 0.99, np.nan, IMAGES)}, ValueError, "`x`.*finite"),
        ({"y": np.full((7, 4), 0.5)}, ValueError, "`y`.*0 and 1 for each unit.*Received: values f"),
        ({"methods": ["cam", "cam"]}, ValueError, "`methods`. Expected values that differ"),
        ({"methods": {"a\nb": "cam"}}, ValueError, "labels in one line"),
        ({"methods": {"a": ("cam", {"resizing": 3})}}, ValueError, "no `resizing`"),
        (
            {"class_names": ["a", "b", "all", "c"]},
            ValueError,
            "names that differ, other than 'all'",
        ),
        (
            {"masks": None, "metrics": ["mask_iou"]},
            ValueError,
            "`ke.metrics.box_masks` makes masks",
        ),
    ],
)
def test_bad_input_is_named_before_any_pass(case, changes, error, message, monkeypatch):
    model, x, masks = case
    monkeypatch.setattr(ke.Explainer, "run_batch", lambda *_: pytest.fail("a pass was run"))
    arguments = {"model": model, "x": x, "masks": masks, **changes}
    with pytest.raises(error, match=message):
        evaluated(**arguments)


def test_the_second_evaluation_of_a_model_leaves_nothing_behind(case):
    import gc
    import weakref

    _, x, masks = case
    model = network()
    evaluated(model, x, masks=masks)
    kept = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert kept() is None


def test_maps_that_cannot_be_judged_are_refused(case):
    model, x, masks = case

    def broken(model, inputs, indices=None):
        logits, maps = ke.methods.get("cam")(model, inputs, indices)
        return logits, tf.where(maps > tf.reduce_max(maps), maps, np.nan)

    with pytest.raises(ValueError, match="finite maps of these inputs, as broken hasn't"):
        evaluated(model, x, masks=masks, methods=broken)
    signed = {"a": ("input_x_gradient", {"postprocessing": None})}
    with pytest.raises(
        ValueError, match=r"maps from 0 to 1 for average_drop.*Received: -.*input_x"
    ):
        evaluated(model, 20 * x, masks=masks, methods=signed)
    evaluated(model, 20 * x, masks=masks, methods=signed, metrics=["pointing_game"])


def test_what_is_not_explained_is_not_looked_at(case):
    """The maximum over maps is that over explained ones, and others may be anything."""
    model, x, masks = case
    labels = np.asarray([0, 1, 2, 3, 0, 1, 2])

    def broken(model, inputs, indices=None):
        logits, maps = ke.methods.get("cam")(model, inputs, indices)
        one = tf.one_hot(labels, 4)[:, None, None]
        return logits, maps if indices is not None else tf.where(one > 0, maps, np.nan)

    methods = {"own": (broken, {"postprocessing": "positive_normalize"})}
    metrics = {"all": ke.metrics.MaskError(protocol="agnostic"), "sparseness": "sparseness"}
    options = {"methods": methods, "metrics": metrics, "masks": masks[..., 0]}
    hot = evaluated(model, x, np.eye(4)[labels], **options)
    plain = evaluated(model, x, labels, **options)
    for label in metrics:
        np.testing.assert_allclose(hot.value("own", label), plain.value("own", label), rtol=1e-5)


def test_numbers_of_boxes_take_few_traces(case):
    model, x, _ = case
    traces = []

    def method(model, inputs, indices=None):
        traces.append(inputs)
        return ke.methods.get("cam")(model, inputs, indices)

    def batches():
        for count in (1, 2, 3, 4, 3):
            corners = np.tile([[1.0, 1, 4, 5]], (7, count, 1)).astype("float32")
            boxes = {"boxes": corners, "labels": np.zeros((7, count), "int32")}
            yield x, np.zeros(7, "int32"), {"boxes": boxes}

    labels = tf.TensorSpec((7, None), tf.int32)
    boxes = {"boxes": tf.TensorSpec((7, None, 4)), "labels": labels}
    specification = tf.TensorSpec(x.shape), tf.TensorSpec((7,), tf.int32), {"boxes": boxes}
    dataset = tf.data.Dataset.from_generator(batches, output_signature=specification)
    metrics = ["localization_error"]
    table = ke.evaluate(model, dataset, methods=method, metrics=metrics, **QUIET)
    assert len(traces) == 3  # Of 1, 2 and 4.
    assert table.select("method", "localization_error", "all")[0].count == 35


def test_a_model_without_activation_of_two_units_is_no_softmax():
    model = network(activation=None, units=2)
    masks = np.ones((7, 6, 6, 2), "uint8")
    options = {"methods": "cam", "metrics": "sparseness", "activation": "linear"}
    table = evaluated(model, IMAGES, masks=masks, threshold=-999, **options)
    assert {row.unit for row in table} == {"all", 0, 1}


def test_segmentations_have_a_background(case):
    model, x, _ = case
    labels = np.random.default_rng(3).integers(0, 5, (7, 6, 6))
    metrics = {"iou": ke.metrics.SegmentationIou(average="macro"), "f1": "segmentation_f1"}
    metrics["accuracy"] = "segmentation_accuracy"
    table = ke.evaluate(
        model, x, methods="cam", metrics=metrics, labels=labels, class_names="abcd", **QUIET
    )
    logits, maps = ke.cam(model, x, verbose=0)
    # Classes that aren't detected are not predicted.
    given = {"maps": maps, "labels": labels, "detections": (logits > 0).astype("float32")}
    for label, metric in metrics.items():
        metric = ke.metrics.get(metric)
        metric.reset_state()
        metric.update_state(**given)
        np.testing.assert_allclose(table.value("cam", label), metric.result(), rtol=1e-5)
    found = [row.unit for row in table.select(metric="iou")]
    assert found == ["all", "background", *"abcd"]
    per_class = ke.metrics.SegmentationIou(average=None)
    per_class.update_state(**given)
    values = [row.value for row in table.select(metric="iou")][1:]
    np.testing.assert_allclose(values, per_class.result(), rtol=1e-5)
    with pytest.raises(ValueError, match="`y`.*as 'iou' takes a map of each.*indices of units"):
        ke.evaluate(model, x, "argmax", methods="cam", metrics=metrics, labels=labels, **QUIET)


def test_labels_of_one_unit_and_of_two(case):
    _, x, masks = case
    single, labels = network(units=1), np.asarray([1, 0, 1, 0, 0, 1, 1])
    for y in (labels, labels[:, None], labels.astype(bool), labels.astype("float32")):
        table = evaluated(single, x, y, masks=masks[..., :1], methods="cam")
        assert table.select("cam", "average_drop", "all")[0].count == 4
    table = evaluated(single, x, 0, masks=masks[..., :1], methods="cam")
    assert table.select("cam", "average_drop", "all")[0].count == 7
    double = network(units=2)
    with pytest.raises(ValueError, match="`y`.*may be indices or labels"):
        evaluated(double, x, [[0, 1]] * 7, masks=masks[..., :2], methods="cam")
    hot = evaluated(double, x, np.eye(2)[labels], masks=masks[..., :2], methods="cam")
    plain = evaluated(double, x, labels, masks=masks[..., :2], methods="cam")
    assert hot.rows == plain.rows


def test_nothing_measured_is_warned_of(case):
    model, x, masks = case
    with pytest.warns(UserWarning, match="Nothing was measured by average_drop, f1_plus: no unit"):
        table = ke.evaluate(
            model, x, methods="cam", metrics=["average_drop", "f1_plus"], threshold=1.0, **QUIET
        )
    assert np.isnan(table.value("cam", "average_drop"))
    with pytest.warns(UserWarning, match="Nothing was measured by pointing_game"):
        evaluated(model, x, masks=0 * masks, methods="cam")


def test_shortcuts_are_methods(case):
    model, x, masks = case
    table = evaluated(model, x, masks=masks, methods=[ke.cam, "gradients"])
    assert table.rows == evaluated(model, x, masks=masks).rows


def test_vectors_are_evaluated():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(3, activation="sigmoid")(inputs))
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    metrics = ["average_drop", "sparseness", ke.metrics.Deletion(num_steps=5)]
    table = ke.evaluate(
        model, x, [0, 1, 2, 0], methods="input_x_gradient", metrics=metrics, **QUIET
    )
    _, maps = ke.input_x_gradient(model, x, [0, 1, 2, 0], verbose=0)
    masked = model.predict(x * maps[..., 0], verbose=0)
    before = model.predict(x, verbose=0)
    units = np.asarray([0, 1, 2, 0])[:, None]
    before, masked = (np.take_along_axis(p, units, 1) for p in (before, masked))
    expected = np.maximum(before - masked, 0) / before
    value = table.value("input_x_gradient", "average_drop")
    np.testing.assert_allclose(value, expected.mean(), atol=1e-5)
    with pytest.raises(ValueError, match='`fill`. Expected "zero" for vectors'):
        ke.metrics.average_drop(model, x, maps, units, fill="mean")


def test_targets_of_the_same_kind_keep_their_data(tmp_path):
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(inputs))
    masks = np.random.default_rng(0).uniform(size=(2, 7, 6, 6)) > 0.5
    options = {"methods": "input_x_gradient", "metrics": ["sparseness", "random_logit"], **QUIET}
    for mask in masks:
        output = ke.targets.segment(mask)
        table = ke.evaluate(model, IMAGES, 1, output=output, batch_size=7, **options)
        _, maps = ke.input_x_gradient(model, IMAGES, 1, output=output, verbose=0)
        expected = ke.metrics.sparseness(maps).mean()
        value = table.value("input_x_gradient", "sparseness")
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    kept = {**options, "batch_size": 7, "path": tmp_path / "a.npz"}
    ke.evaluate(model, IMAGES, 1, output=ke.targets.segment(masks[0]), **kept)
    with pytest.raises(ValueError, match=r"made with another .*options"):
        ke.evaluate(model, IMAGES, 1, output=ke.targets.segment(masks[1]), **kept)


def test_curves_are_means_over_pairs():
    from keras_explainable.evaluation._accumulating import Accumulator

    known = ke.metrics.registration("average_drop")
    accumulator = Accumulator(known, "weighted")
    rng = np.random.default_rng(0)
    values, curve = rng.random((4, 2)), rng.random((4, 2, 5))
    weights = np.asarray([[1, 0], [1, 1], [0, 0], [0, 1]], "float32")
    for rows in (slice(0, 3), slice(3, 4)):
        scores = {"values": values[rows], "weights": weights[rows], "curve": curve[rows]}
        classes = np.tile([0, 1], (4, 1))[rows]
        accumulator.add(scores, classes, np.ones((len(classes), 3)))
    np.testing.assert_allclose(accumulator.curve(), curve[weights > 0].mean(0))


def test_json_keeps_all(case, tmp_path):
    model, x, masks = case
    table = evaluated(model, x, masks=masks)
    path = tmp_path / "table.json"
    assert table.to_json(path) == path.read_text()
    assert ke.Evaluation.from_json(path) == table
    assert ke.Evaluation.from_json(json.dumps(json.loads(table.to_json()))) == table


def test_time_is_not_spent_on_tracing_again(case):
    model, x, masks = case
    traces = []

    def method(model, inputs, indices=None):
        traces.append(time.monotonic())
        return ke.methods.get("cam")(model, inputs, indices)

    methods = {"own": (method, {"postprocessing": "positive_normalize"})}
    for _ in range(2):
        evaluated(model, x, "argmax", masks=masks, methods=methods, batch_size=3)
    assert len(traces) == 1
