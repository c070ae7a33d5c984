import gc
import inspect
import pickle
import re
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke
from keras_explainable.engine import _progress
from tests import zoo

RAW = {"postprocessing": None, "resizing": False, "verbose": 0}
METHODS = zoo.METHODS


def _model():
    return zoo.nested_with_pooling().model


def _images(num_samples):
    return np.random.default_rng(1).normal(size=(num_samples, 6, 6, 3)).astype("float32")


def _traced(method):
    """Return a method that counts the times it is traced."""
    traces = []

    def traced(model, inputs, indices=None):
        traces.append(inputs.shape)
        return ke.methods.get(method)(model, inputs, indices)

    traced.registration = ke.methods.registration(method)._replace(method=traced)
    return traced, traces


class Sequence(keras.utils.PyDataset):
    def __init__(self, x, y=None, batch_size=2):
        super().__init__()
        self.x, self.y, self.batch_size = x, y, batch_size

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return self.x[part] if self.y is None else (self.x[part], self.y[part])


def _sources(x, y, batch_size):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    return {
        "array": (x, y, {"batch_size": batch_size}),
        "tensor": (tf.constant(x), tf.constant(y), {"batch_size": batch_size}),
        "list": ([x], list(y), {"batch_size": batch_size}),
        "dataset": (dataset, None, {}),
        "dataset_without_labels": (dataset.map(lambda x, _: x), 3, {}),
        "pydataset": (Sequence(x, y, batch_size), None, {}),
        "pydataset_without_labels": (Sequence(x, None, batch_size), 3, {}),
    }


@pytest.mark.parametrize("source", _sources(np.zeros((1, 1)), [0], 1))
def test_every_source_gives_the_same_maps(source):
    model, images = _model(), _images(5)
    expected = ke.gradcam(model, images, 3, **RAW)
    x, y, options = _sources(images, np.full(5, 3), 2)[source]
    for actual, desired in zip(ke.gradcam(model, x, y, **RAW, **options), expected, strict=True):
        assert isinstance(actual, np.ndarray)
        np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_samples", range(1, 10))
@pytest.mark.parametrize("source", ["array", "dataset", "pydataset"])
def test_two_replicas_give_the_maps_of_one_device_in_order(num_samples, source):
    images, units = _images(num_samples), np.arange(num_samples) % zoo.UNITS
    expected = ke.gradcam(_model(), images, units, **RAW)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = _model()
    x, y, options = _sources(images, units, 4)[source]
    for actual, desired in zip(ke.gradcam(model, x, y, **RAW, **options), expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options"),
    [(method, {}) for method in METHODS]
    # On one device all methods run in these modes, in tests/contract.
    + [
        (method, options)
        for method in ("gradcam", "gradients", "lrp", "minmaxcam", "scorecam")
        for options in ({"jit_compile": True}, {"run_eagerly": True})
    ],
)
def test_every_method_runs_on_two_replicas(method, options):
    images = _images(5)
    expected = ke.explain(method, _model(), images, **RAW)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = _model()
    actual = ke.explain(method, model, images, batch_size=4, **RAW, **options)
    for a, d in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, d, rtol=0, atol=1e-5 * max(1, np.abs(d).max()))


@pytest.mark.parametrize("method", METHODS)
def test_second_call_does_not_retrace(method):
    traced, traces = _traced(method)
    model, images = _model(), _images(5)
    for y in (0, 3):
        ke.explain(traced, model, images, y, **RAW)
    assert len(traces) == 1
    for y in (1, 2):
        ke.explain(traced, model, images, y, batch_size=2, **RAW)
    first = len(traces)
    ke.explain(traced, model, images, 4, batch_size=2, **RAW)
    assert len(traces) == first


def test_a_last_batch_of_another_size_does_not_retrace():
    traced, traces = _traced("cam")
    ke.explain(traced, _model(), _images(5), 0, batch_size=2, **RAW)
    assert len(traces) == 1


@pytest.mark.parametrize("source", ["array", "dataset", "pydataset"])
def test_after_warming_up_nothing_is_traced(source):
    traced, traces = _traced("cam")
    x, y, options = _sources(_images(4), np.zeros(4, int), 2)[source]
    explainer = ke.Explainer(traced, _model()).warm_up(x, y, **options)
    assert len(traces) == 1
    explainer.explain(x, y, **options)
    assert len(traces) == 1


def test_many_explainers_are_not_taken_for_retracing(caplog):
    for _ in range(7):
        ke.gradcam(_model(), zoo.IMAGES)
    assert "retracing" not in caplog.text


@pytest.mark.parametrize("kind", ["siamese", "several_inputs"])
@pytest.mark.parametrize("method", ["gradients", "gradcam"])
def test_several_inputs_are_cut_into_batches_together(kind, method):
    specimen = zoo.KINDS[kind]()
    options = RAW | (specimen.options if method == "gradcam" else {})
    _, together = ke.explain(method, specimen.model, specimen.x, **options)
    dataset = tf.data.Dataset.from_tensor_slices(
        (tuple(specimen.x) if isinstance(specimen.x, list) else specimen.x, np.zeros(3, int))
    ).batch(2)
    for x, y in ((specimen.x, 0), (dataset, None)):
        _, maps = ke.explain(method, specimen.model, x, y, batch_size=2, **options)
        for a, d in zip(keras.tree.flatten(maps), keras.tree.flatten(together), strict=True):
            np.testing.assert_allclose(a[..., 0], d[..., 0], rtol=1e-5, atol=1e-6)


def test_shortcuts_and_explainers_keep_their_step():
    model, images = _model(), _images(2)
    calls = []
    layer = model.layers[-1]
    original = type(layer).call

    def call(self, *args, **kwargs):
        calls.append(self.name)
        return original(self, *args, **kwargs)

    type(layer).call = call
    try:
        ke.gradcam(model, images, 1)
        first = len(calls)
        assert first > 0
        ke.gradcam(model, images, 2)
        ke.gradcam(model, images + 1, [0, 1])
        assert len(calls) == first
    finally:
        type(layer).call = original


def test_a_changed_model_is_not_explained_by_an_old_step():
    model = keras.Sequential([keras.Input((6, 6, 3)), *zoo.sequential().model.layers])
    before, _ = ke.gradcam(model, zoo.IMAGES)
    model.pop()
    model.pop()
    model.add(keras.layers.Dense(2))
    after, _ = ke.gradcam(model, zoo.IMAGES)
    assert before.shape[1] == zoo.UNITS
    assert after.shape[1] == 2


def test_new_weights_are_explained_by_the_kept_step():
    model = _model()
    ke.gradcam(model, zoo.IMAGES)
    model.layers[-1].bias.assign(zoo.BIAS + 1)
    logits, _ = ke.gradcam(model, zoo.IMAGES)
    np.testing.assert_allclose(logits, zoo.logits() + 1, rtol=1e-5)


def _ways():
    """Return a method of each way of exposing a model and of using it."""
    known = {name: ke.methods.registration(name) for name in METHODS}
    return {(str(r.expose), r.family, r.needs): name for name, r in known.items()}.values()


@pytest.mark.parametrize(
    ("kind", "methods"),
    [
        ("functional", METHODS),
        # What a method keeps doesn't depend on the kind, but how the model is exposed.
        ("nested_with_pooling", tuple(_ways())),
        ("subclassed", tuple(_ways())),
        ("nested_backbone_with_tensorflow", tuple(_ways())),
    ],
)
def test_models_explained_and_deleted_leave_nothing_alive(kind, methods):
    alive, kept = [], len(ke.engine.explaining._explainers)
    for _ in range(1 if methods is METHODS else 2):
        model = zoo.KINDS[kind]().model
        for method in methods:
            ke.explain(method, model, zoo.IMAGES, verbose=0)
        alive.append(weakref.ref(model))
        alive.extend(weakref.ref(variable) for variable in model.variables)
        del model
    keras.backend.clear_session()
    gc.collect()
    assert sum(reference() is not None for reference in alive) == 0
    assert len(ke.engine.explaining._explainers) <= kept


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_a_call_that_fails_leaves_the_model_as_found(kind):
    specimen = zoo.KINDS[kind]()
    before = zoo.fingerprint(specimen.model)
    with pytest.raises(ValueError, match="Invalid value"):
        ke.gradcam(specimen.model, specimen.x, **(specimen.options | {"layer": "missing"}))
    assert zoo.fingerprint(specimen.model) == before


def test_after_a_failing_call_the_next_one_works():
    model, images = _model(), _images(2)
    expected = ke.gradcam(model, images)

    def failing(model, inputs, indices=None):
        model(inputs)
        assert indices is None
        raise RuntimeError("on purpose")

    for bad in (
        lambda: ke.gradcam(model, images, 99),
        lambda: ke.gradcam(model, images[..., :2]),
        lambda: ke.explain(failing, model, images),
    ):
        with pytest.raises((ValueError, RuntimeError)):
            bad()
    for actual, desired in zip(ke.gradcam(model, images), expected, strict=True):
        np.testing.assert_array_equal(actual, desired)


def test_after_a_trace_that_fails_inside_a_loop_strategies_are_entered():
    x = inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(tf.stop_gradient)(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    with pytest.raises(ValueError, match="can be differentiated"):
        ke.gradcam(model, zoo.IMAGES, layer="conv")
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = _model()
    assert ke.gradcam(model, _images(3), 0)[0].shape == (3, 1)


def test_integer_images_are_explained_like_floats():
    model = _model()
    images = np.random.default_rng(0).integers(0, 255, (2, 6, 6, 3)).astype("uint8")
    for method in METHODS:
        expected = ke.explain(method, model, images.astype("float32"), 1, **RAW)
        for actual, desired in zip(
            ke.explain(method, model, images, 1, **RAW), expected, strict=True
        ):
            np.testing.assert_allclose(actual, desired, rtol=1e-6)


def test_resizing_keeps_the_mass_where_it_belongs():
    maps = np.zeros((1, 7, 7, 1), "float32")
    maps[0, 1, 1] = 1
    resized = ke.filters.resize(tf.constant(maps), (224, 224)).numpy()[0, ..., 0]
    centre = (resized.sum(1) * np.arange(224)).sum() / resized.sum()
    assert centre == pytest.approx(47.5)


@pytest.mark.parametrize(
    ("resizing", "shape"),
    [(True, (6, 6)), (False, (3, 3)), (12, (12, 12)), ((4, 8), (4, 8))],
)
def test_resizing_gives_the_size_asked_for(resizing, shape):
    x = inputs = keras.Input((6, 6, 3))
    x = keras.layers.GlobalAveragePooling2D()(
        keras.layers.Conv2D(4, 3, strides=2, padding="same")(x)
    )
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    _, small = ke.gradcam(model, zoo.IMAGES, resizing=False, postprocessing=None)
    _, maps = ke.gradcam(model, zoo.IMAGES, resizing=resizing, postprocessing=None)
    assert maps.shape == (3, *shape, 2)
    if resizing is not False:
        np.testing.assert_allclose(maps, tf.image.resize(small, shape), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "resizing", "sizes"),
    [
        ((8,), True, (8,)),
        ((8,), (20,), (20,)),
        ((8,), 5, (5,)),
        ((4, 6, 8), True, (4, 6, 8)),
        ((4, 6, 8), False, (2, 3, 4)),
        ((4, 6, 8), (3, 12, 5), (3, 12, 5)),
        ((4, 6, 8), 7, (7, 7, 7)),
    ],
)
def test_signals_and_volumes_are_resized(shape, resizing, sizes):
    x = inputs = keras.Input((*shape, 2))
    rank = len(shape)
    x = getattr(keras.layers, f"Conv{rank}D")(3, 2, strides=2, activation="relu")(x)
    x = getattr(keras.layers, f"GlobalAveragePooling{rank}D")()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    data = np.random.default_rng(0).normal(size=(2, *shape, 2)).astype("float32")
    _, small = ke.gradcam(model, data, resizing=False)
    _, maps = ke.gradcam(model, data, resizing=resizing)
    assert maps.shape == (2, *sizes, 3)
    expected = small if resizing is False else ke.filters.resize(small, sizes)
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    _, maps = ke.gradients(model, data, resizing=sizes)
    assert maps.shape == (2, *sizes, 3)


def test_channels_that_are_kept_are_not_resized():
    model = zoo.functional().model
    with pytest.raises(ValueError, match=r"`resizing`.*6, 6, 3, 5.*Received: \(8, 8\)"):
        ke.gradients(model, zoo.IMAGES, resizing=8, reduction=None)


@pytest.mark.parametrize("size", [(6, 6), (9, 12)])
def test_images_of_any_size_are_explained_by_one_explainer(size):
    explainer = ke.Explainer("gradcam", zoo.any_size().model)
    for shape in ((6, 6), size, (8, 5)):
        images = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype("float32")
        _, maps = explainer.explain(images, 1)
        assert maps.shape == (2, *shape, 1)


def test_default_postprocessing_is_that_of_the_method():
    model, images = _model(), _images(2)
    _, raw = ke.gradcam(model, images, **RAW)
    _, maps = ke.gradcam(model, images, resizing=False)
    np.testing.assert_allclose(maps, ke.filters.positive_normalize(tf.constant(raw)), atol=1e-6)
    _, maps = ke.gradcam(model, images, resizing=False, postprocessing=ke.filters.negative)
    np.testing.assert_allclose(maps, np.minimum(raw, 0), atol=1e-7)


def test_options_reach_the_method():
    model, images = _model(), _images(2)
    _, largest = ke.gradients(model, images, reduction="max", **RAW)
    _, mean = ke.gradients(model, images, reduction="mean", **RAW)
    assert (mean < largest).all()


def test_detections_are_cut_into_batches_with_their_samples():
    model, images = _model(), _images(5)
    detections = np.random.default_rng(0).integers(0, 2, (5, zoo.UNITS))
    together = ke.minmaxcam(model, images, detections=detections, **RAW)
    batched = ke.minmaxcam(model, images, detections=detections, batch_size=2, **RAW)
    for actual, desired in zip(batched, together, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-6)


def test_steps_limit_the_batches_of_a_dataset():
    dataset = tf.data.Dataset.from_tensor_slices(_images(6)).batch(2).repeat()
    logits, _ = ke.gradcam(_model(), dataset, 0, steps=2, verbose=0)
    assert logits.shape == (4, 1)


def test_steps_limit_the_batches_of_arrays():
    logits, _ = ke.gradcam(_model(), _images(6), 0, batch_size=2, steps=2, verbose=0)
    assert logits.shape == (4, 1)


def test_callbacks_may_stop():
    class Stop(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = batch == 1 and logs is not None

    options = {"batch_size": 2, "callbacks": [Stop()], "verbose": 0}
    logits, _ = ke.gradcam(_model(), _images(8), 0, **options)
    assert logits.shape == (4, 1)


def test_doubles_do_not_retrace():
    traced, traces = _traced("cam")
    model = _model()
    for dtype in ("float32", "float64"):
        ke.explain(traced, model, _images(2).astype(dtype), 0)
    assert len(traces) == 1


def test_inputs_by_name_fit_a_model_of_listed_inputs():
    first, second = keras.Input((6, 6, 3), name="b"), keras.Input((2,), name="a")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(first))
    model = keras.Model(
        [first, second], keras.layers.Dense(2)(keras.ops.concatenate([x, second], 1))
    )
    x = {"a": np.ones((3, 2), "float32"), "b": zoo.IMAGES}
    _, expected = ke.gradcam(model, [x["b"], x["a"]], **RAW)
    for source in (x, tf.data.Dataset.from_tensor_slices(x).batch(2)):
        _, maps = ke.gradcam(model, source, **RAW)
        np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)


def test_an_explainer_says_how_it_is_used():
    explainer = ke.Explainer("gradcam", _model())
    for use in (explainer, explainer.predict):
        with pytest.raises(TypeError, match=r"explainer.explain\(x, y\)"):
            use(zoo.IMAGES)


def test_callbacks_see_every_batch():
    batches = []
    counter = keras.callbacks.LambdaCallback()
    counter.on_predict_batch_end = lambda batch, logs: batches.append((batch, logs)[0])
    ke.gradcam(_model(), _images(5), 0, batch_size=2, callbacks=[counter], verbose=0)
    assert batches == [0, 1, 2]
    ke.gradcam(_model(), _images(2), 0, callbacks=[counter], verbose=0)
    assert batches == [0, 1, 2, 0]


def test_few_samples_are_not_filled_up_to_a_whole_batch():
    traced, traces = _traced("cam")
    ke.explain(traced, _model(), _images(2), 0, verbose=1)
    assert traces[0][0] in (2, None)
    slices = ke.engine._batching.Slices({"inputs": _images(3)}, 32, replicas=2)
    assert [len(batch["inputs"]) for _, batch in slices.batches([(0, None)])] == [4]


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_progress_bar_counts_images_on_every_number_of_devices(replicas, capsys):
    with tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)]).scope():
        model = _model()
    ke.gradcam(model, _images(5), 0, batch_size=2, verbose=1)
    assert capsys.readouterr().out.startswith("5/5 images ━")


def test_several_batches_show_a_bar_and_nothing_else(capsys):
    line = r"\r?5/5 images [━=]{20} [\d.]+ images/s, [\d.]+ s\n"
    ke.gradcam(_model(), _images(5), 0, batch_size=2)
    printed = capsys.readouterr()
    assert re.fullmatch(line, printed.out)
    assert printed.err == ""
    ke.gradcam(_model(), _images(5), 0)
    ke.gradcam(_model(), _images(5), 0, batch_size=2, verbose=0)
    assert capsys.readouterr().out == ""
    ke.gradcam(_model(), _images(5), 0, batch_size=2, verbose=2)
    assert re.fullmatch(r"5/5 images, [\d.]+ images/s, [\d.]+ s\n", capsys.readouterr().out)


def test_data_of_unknown_size_are_counted(capsys):
    batches = tf.data.Dataset.from_tensor_slices(_images(5)).batch(2)
    ke.gradcam(_model(), batches, 0)
    assert re.match(r"5 images [━=]{20} [\d.]+ images/s", capsys.readouterr().out)
    ke.gradcam(_model(), batches.filter(lambda _: True), 0)
    assert re.match(r"5 images, [\d.]+ images/s, [\d.]+ s\n", capsys.readouterr().out)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_does_not_stand_on_the_line_of_the_bar(error, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_OFTEN", 0)
    monkeypatch.setattr(_progress.sys.stdout, "isatty", lambda: True)

    def raised(batch, logs):
        del logs
        if batch == 2:
            raise error

    stopper = keras.callbacks.LambdaCallback()
    stopper.on_predict_batch_begin = raised
    with pytest.raises(error):
        ke.gradcam(_model(), _images(8), 0, batch_size=2, callbacks=[stopper])
    printed = capsys.readouterr().out
    assert re.search(r"\r4/8 images [━─=-]{20} [\d.]+ images/s, [\d.]+ s left *\n$", printed)
    assert printed.count("\n") == 1
    ke.gradcam(_model(), _images(8), 0, batch_size=2)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.count("\r8/8") == 1


def test_empty_data_of_unknown_size_are_refused(capsys, tmp_path):
    def none():
        yield from ()

    specification = tf.TensorSpec((6, 6, 3))
    dataset = tf.data.Dataset.from_generator(none, output_signature=specification).batch(8)
    message = "`x`. Expected a data set with at least one batch. Received: an empty one"
    for options in ({}, {"path": tmp_path / "maps.h5"}):
        with pytest.raises(ValueError, match=message):
            ke.gradcam(_model(), dataset, 0, **options)
    with pytest.raises(ValueError, match=message):
        ke.Explainer("gradcam", _model()).warm_up(dataset, 0)
    with pytest.raises(ValueError, match=message):
        ke.gradcam(_model(), Sequence(_images(0)), 0)
    assert capsys.readouterr().out == ""


def test_other_inputs_are_counted_as_samples(capsys):
    signal = keras.Sequential(
        [
            keras.Input((6, 2)),
            keras.layers.Conv1D(3, 3),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2),
        ]
    )
    ke.gradcam(signal, np.ones((3, 6, 2)), 0, verbose=1)
    assert capsys.readouterr().out.startswith("3/3 samples ")


def test_an_unknown_verbosity_is_refused():
    with pytest.raises(ValueError, match="`verbose`.*Received: 3"):
        ke.gradcam(_model(), _images(2), 0, verbose=3)


def test_maps_are_differentiable_in_the_weights():
    model = _model()
    exposed = ke.inspection.expose(model)
    kernel = model.layers[-1].kernel.value

    @tf.function
    def penalty(x):
        with tf.GradientTape() as tape:
            _, maps = ke.methods.gradcam(exposed, x)
            loss = tf.reduce_sum(maps**2)
        return tape.gradient(loss, [kernel])[0]

    # The loss is a quadratic form of the kernel, so its derivative is twice itself along it.
    loss = (np.einsum("bhwk,ku->bhwu", zoo.activations(), zoo.HEAD) / 36) ** 2
    gradient = penalty(tf.constant(zoo.IMAGES)).numpy()
    assert (gradient * zoo.HEAD).sum() == pytest.approx(2 * loss.sum(), rel=1e-4)


def test_shortcuts_show_the_options_of_their_method():
    parameters = inspect.signature(ke.minmaxcam).parameters
    assert list(parameters)[:3] == ["model", "x", "y"]
    assert {"layer", "batch_size", "threshold", "lambda_negative"} <= set(parameters)
    assert "MinMax-CAM" in ke.minmaxcam.__doc__


@pytest.mark.parametrize("name", ke.methods.names())
def test_shortcuts_document_what_they_take_and_return(name):
    shortcut, method = getattr(ke, name), ke.methods.get(name)
    text = shortcut.__doc__
    titles = [f"\n\n{title}:\n" for title in ("Args", "Returns", "Raises", "References", "Example")]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert [text.count(title) for title in titles] == [1] * len(titles)
    begun = text[: places[0]]
    assert begun.startswith(inspect.getdoc(method).split("\n\nArgs:\n")[0])
    assert f'`ke.explain("{name}", ' in begun
    arguments = text[places[0] : places[1]]
    names = re.findall(r"^    (\w+(?:,\s+\w+)*):", arguments, re.MULTILINE)
    assert re.split(r",\s+", ", ".join(names)) == _documented_order(shortcut, method)
    assert "raw" not in text[places[1] : places[2]]
    assert text.endswith(inspect.getdoc(method).split("\n\nExample:\n")[1])
    assert max(map(len, text.splitlines())) <= 100


def _documented_order(shortcut, method):
    """Return the parameters of a shortcut, those of its method before those of `explain`."""
    own = [parameter.name for parameter in ke.methods.registration(method).options]
    first, rest = np.split(list(inspect.signature(shortcut).parameters), [3])
    return [*first, *own, *(parameter for parameter in rest if parameter not in own)]


def test_a_shortcut_of_a_method_without_a_docstring_tells_the_arguments(monkeypatch):
    registry = sys.modules[ke.methods.names.__module__]
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    @ke.methods.explaining_method(family="cam", postprocessing=None)
    def own(model, inputs, indices=None, *, power=2):
        return model(inputs), indices, power

    text = ke.engine.shortcut("own").__doc__
    assert text.startswith(
        'Shortcut of `ke.explain("own", model, x, y, ...)`.\n\nArgs:\n    model:'
    )
    assert "unfiltered" in text
    assert "References" not in text


@pytest.mark.parametrize("name", ke.methods.names())
def test_shortcuts_can_be_pickled(name):
    shortcut = getattr(ke, name)
    assert pickle.loads(pickle.dumps(shortcut)) is shortcut
    assert shortcut.__module__ == "keras_explainable"


BAD = [
    ({"y": 5}, ValueError, r"`y`.*0 to 4.*5 units.*Received: 5$"),
    ({"y": -1}, ValueError, r"Received: -1$"),
    ({"y": [7] * 3}, ValueError, r"Received: 7$"),
    ({"y": [1, 9, 7]}, ValueError, r"Received: 1 to 9$"),
    ({"y": np.zeros((3, 0), int)}, ValueError, r"Received: shape \(3, 0\)"),
    ({"y": [1, 2]}, ValueError, r"`y`.*3 samples.*shape \(2,\)"),
    ({"y": np.zeros((3, 1, 1), int)}, ValueError, r"shape \(3, 1, 1\)"),
    ({"y": "top"}, ValueError, "'top'"),
    ({"y": [0.5, 1, 2]}, TypeError, "float64"),
    ({"y": True}, TypeError, "bool"),
    ({"y": np.eye(3, 5, dtype=int)}, ValueError, r"a one-hot array of type int64.*argmax\(-1\)"),
    ({"y": np.eye(3, 5)}, ValueError, r"a one-hot array of type float64.*`y.argmax\(-1\)`"),
    ({"y": np.tri(3, 5)}, ValueError, "a multi-hot array of type float64.*`y=None`"),
    ({"y": np.tri(3, 5, dtype=bool)}, ValueError, "a multi-hot array of type bool.*`y=None`"),
    ({"y": np.full((3, 5), 0.5)}, TypeError, "float64"),
    ({"x": zoo.IMAGES[0]}, ValueError, r"`x`.*\(6, 6, 3\).*x\[None\]"),
    ({"x": zoo.IMAGES[..., :1]}, ValueError, r"\(None, 6, 6, 3\).*Received: \(3, 6, 6, 1\)"),
    ({"x": zoo.IMAGES[:0]}, ValueError, r"at least one.*Received: \[0\] samples"),
    ({"x": list(zoo.IMAGES)}, ValueError, "np.stack"),
    ({"x": {"image": zoo.IMAGES}}, ValueError, "keys"),
    ({"batch_size": 0}, ValueError, "`batch_size`"),
    ({"batch_size": 2.0}, ValueError, "`batch_size`"),
    ({"steps": 0}, ValueError, "`steps`"),
    ({"postprocessing": lambda maps: maps[..., 0]}, ValueError, "keeps the axes"),
    ({"method": ke.methods.gradients}, TypeError, "ke.methods.gradients.gradients"),
    ({"resizing": (0, 3)}, ValueError, r"`resizing`.*\(0, 3\)"),
    ({"resizing": "big"}, ValueError, "'big'"),
    ({"postprocessing": "posit"}, ValueError, "positive_normalize"),
    ({"postprocessing": 3}, TypeError, "`postprocessing`"),
    ({"model": "resnet"}, TypeError, r"keras.Model.*'resnet'"),
    ({"method": "gradcamm"}, ValueError, "Did you mean 'gradcam'"),
    ({"method": 7}, TypeError, "`method`"),
    ({"reduction": "max"}, TypeError, "'gradcam'.*'reduction'.*are: fusion"),
    ({"method": "cam", "reduction": "max"}, TypeError, r"'cam'.*'reduction'.*none\.$"),
    ({"batchsize": 3}, TypeError, r"'batchsize'.*are: fusion\. Did you mean 'batch_size'\?$"),
    ({"Fusions": "max"}, TypeError, r"'Fusions'.*Did you mean 'fusion'\?$"),
    ({"method": "gradients", "layer": "conv"}, ValueError, "takes|explains the input"),
    ({"method": "gradients", "reduction": "median"}, ValueError, "'median'"),
    ({"method": "minmaxcam", "detections": np.ones((2, 5))}, ValueError, r"3 samples.*\(2, 5\)"),
    ({"method": "minmaxcam", "detections": np.ones((3, 4))}, ValueError, r"\(3, 4\)"),
    ({"layer": "convv"}, ValueError, "Closest: 'backbone/conv'"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_arguments_are_named(arguments, error, message):
    arguments = {"method": "gradcam", "model": _model(), "x": zoo.IMAGES} | arguments
    with pytest.raises(error, match=message):
        ke.explain(**arguments)


def test_labels_of_a_dataset_are_checked():
    images = _images(2)
    for labels, message in (
        (np.full((2,), 0.5), "float64"),
        (np.eye(2, 5), r"one label per unit.*tf.argmax\(y, -1\)"),
        (np.eye(2, 5, dtype=int), "one label per unit"),
        (np.zeros((2, 1, 1), int), "shape"),
    ):
        dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
        with pytest.raises(ValueError, match=message):
            ke.gradcam(_model(), dataset, verbose=0)
    with pytest.raises(ValueError, match=r"dataset.batch\(32\)"):
        ke.gradcam(_model(), tf.data.Dataset.from_tensor_slices(images))
    with pytest.raises(ValueError, match="at least one batch"):
        ke.gradcam(_model(), tf.data.Dataset.from_tensor_slices(images[:0]).batch(2))
    dataset = tf.data.Dataset.from_tensor_slices((images, [0, 5])).batch(2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="5 units"):
        ke.gradcam(_model(), dataset, verbose=0)
