"""Explanations inside `fit`: pictures and values of every epoch, and a training left alone."""

import csv
import functools
import importlib.util
import io
import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import keras_explainable as ke
from tests.conftest import two_replicas

SIZE, UNITS = 8, 3
_random = np.random.default_rng(0)
IMAGES = _random.random((24, SIZE, SIZE, 3), "float32")
LABELS = _random.integers(0, UNITS, 24)
CHOSEN, CHOSEN_UNITS = IMAGES[:2], [[0, 2], [1, 0]]


class Counting(layers.Layer):
    """Passes tensors on, and counts how often Python runs it outside training."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def call(self, x, training=False):
        self.count += not training
        return x


class Subclassed(keras.Model):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def call(self, x, training=False):
        for part in self.parts:
            x = part(x, training=training) if isinstance(part, layers.Dropout) else part(x)
        return x


def build(kind="functional", activation="softmax", counting=None, **options):
    """Build and compile a classifier with dropout; equal calls build equal ones."""
    keras.utils.set_random_seed(5)
    parts = [
        layers.Conv2D(4, 3, activation="relu"),
        *([counting] if counting else []),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.3),
        layers.Dense(UNITS, activation),
    ]
    if kind == "subclassed":
        model = Subclassed(parts)
    elif kind == "nested":
        backbone = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *parts[:1]], name="backbone")
        model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), backbone, *parts[1:]])
    else:
        model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *parts])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    model.compile(keras.optimizers.Adam(0.01), loss, **options)
    return model


def fit(model, callbacks=(), epochs=2, **options):
    options = {"batch_size": 8, "verbose": 0, **options}
    return model.fit(IMAGES, LABELS, epochs=epochs, callbacks=list(callbacks), **options).history


def explain(directory, y=CHOSEN_UNITS, **options):
    return ke.callbacks.Explain(CHOSEN, y, directory=directory, **options)


def evaluate(**options):
    options = {"methods": "gradcam", "metrics": ["average_drop"], **options}
    return ke.callbacks.Evaluate(IMAGES[:10], LABELS[:10], **options)


def files(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def pixels(path):
    return np.asarray(Image.open(path))


def events(directory):
    """Read what TensorBoard shows: {(tag, step): list of PNG files}."""
    found = {}
    for path in sorted((directory / "explanations").rglob("events*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "images"
                width, height, *contents = tf.make_ndarray(value.tensor)
                for content in contents:
                    assert Image.open(io.BytesIO(content)).size == (int(width), int(height))
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = contents
    return found


def expected_picture(model, number, class_names=("a", "b", "c")):
    """Draw what a sample's picture has to be, with public functions."""
    units = np.asarray(CHOSEN_UNITS[number])
    _, maps = ke.gradcam(model, CHOSEN, CHOSEN_UNITS)
    scores = model.predict(CHOSEN, verbose=0)[number][units]
    titles = [f"{class_names[u]} {s:.2f}" for u, s in zip(units, scores, strict=True)]
    return ke.visualization.raster(CHOSEN[number], maps[number], titles=titles)


MODES = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "xla": {"jit_compile": True},
    "mixed_float16": {},
    "nested": {"kind": "nested"},
    "subclassed": {"kind": "subclassed"},
    "replicas": {},
    "replicas, inside the scope": {},
}


def train(mode, callbacks=()):
    """Fit a model in some mode; return losses and weights."""
    replicas = two_replicas()
    strategy = replicas if "replicas" in mode else tf.distribute.get_strategy()
    with strategy.scope():
        model = build(**MODES[mode])
        if "inside" in mode:
            return fit(model, callbacks), model.get_weights()
    return fit(model, callbacks), model.get_weights()


@functools.cache
def trained(mode):
    """Train without callbacks, which the scope makes no difference to."""
    return train(mode)


@pytest.mark.parametrize("mode", MODES)
def test_training_is_the_same_with_callbacks_as_without(tmp_path, mode):
    if mode == "mixed_float16":
        keras.config.set_dtype_policy(mode)
    try:
        history, weights = trained(mode.split(",")[0])
        watched, watched_weights = train(mode, [evaluate(), explain(tmp_path)])
    finally:
        keras.config.set_dtype_policy("float32")
    assert watched["loss"] == history["loss"]
    for one, other in zip(watched_weights, weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(watched["val_average_drop"]) == 2
    assert len(files(tmp_path)) == 4


def test_pictures_show_the_weights_of_their_epoch(tmp_path):
    callback = explain(tmp_path, initial=True, class_names=list("abc"))
    expected = {}
    model = build()
    expected["initial"] = [expected_picture(model, n) for n in range(2)]

    def note(epoch, _):
        expected[f"epoch_{epoch:03d}"] = [expected_picture(model, n) for n in range(2)]

    fit(model, [callback, keras.callbacks.LambdaCallback(on_epoch_end=note)])
    assert files(tmp_path) == [f"{e}/gradcam_{n}.png" for e in sorted(expected) for n in range(2)]
    for epoch, pictures in expected.items():
        for number, picture in enumerate(pictures):
            drawn = pixels(tmp_path / epoch / f"gradcam_{number}.png")
            np.testing.assert_allclose(drawn.astype(int), picture, atol=1)
    assert (expected["epoch_000"][0] != expected["epoch_001"][0]).any()


def test_tensorboard_gets_the_pictures_of_the_directory(tmp_path):
    logs, directory = tmp_path / "logs", tmp_path / "pictures"
    callback = explain(directory, log_dir=logs, every=2, tag="maps")
    fit(build(), [callback, keras.callbacks.TensorBoard(logs)], epochs=3)
    found = events(logs)
    assert sorted(found) == [("maps/0", 0), ("maps/0", 2), ("maps/1", 0), ("maps/1", 2)]
    for (tag, step), contents in found.items():
        (content,) = contents
        written = directory / f"epoch_{step:03d}" / f"maps_{tag[-1]}.png"
        np.testing.assert_array_equal(tf.io.decode_png(content), pixels(written))
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(logs / "explanations" / "maps"), {"tensors": 0})
    reader.Reload()
    assert [event.step for event in reader.Tensors("maps/1")] == [0, 2]


def test_pictures_go_on_where_training_is_resumed(tmp_path):
    callback = explain(tmp_path / "png", log_dir=tmp_path / "logs", every=2)
    model = build()
    fit(model, [callback], epochs=3)
    fit(model, [callback], epochs=6, initial_epoch=3)
    assert [step for _, step in sorted(events(tmp_path / "logs"))] == [0, 2, 4] * 2
    folders = sorted(path.name for path in (tmp_path / "png").iterdir())
    assert folders == ["epoch_000", "epoch_002", "epoch_004"]


def test_steps_are_traced_once_whatever_the_number_of_epochs_and_fits(tmp_path):
    counting = Counting()
    model = build(counting=counting)
    callbacks = [
        explain(tmp_path / "png", log_dir=tmp_path / "logs", method="minmaxcam", initial=True),
        evaluate(methods=["gradcam", "cam"], metrics=["average_drop", "sparseness"]),
    ]
    counts = []
    noting = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: counts.append(counting.count),
        on_epoch_end=lambda *_: counts.append(counting.count),
    )
    fit(model, [*callbacks, noting], epochs=3)
    fit(model, [*callbacks, noting])
    assert counts[0] > 0
    assert counts == [counts[0]] * 10


@pytest.mark.parametrize(
    ("activation", "score"), [("softmax", tf.nn.softmax), ("sigmoid", tf.sigmoid), (None, None)]
)
def test_titles_have_the_probabilities_of_the_model(tmp_path, monkeypatch, activation, score):
    titles = []
    raster = ke.visualization.raster

    def note(*arguments, **options):
        titles.append(options["titles"])
        return raster(*arguments, **options)

    monkeypatch.setattr(ke.visualization, "raster", note)
    model = build(activation=activation)
    fit(model, [explain(tmp_path, "argmax")], epochs=1)
    logits, _ = ke.gradcam(model, CHOSEN)
    scores = logits if score is None else score(logits).numpy()
    units = logits.argmax(1)
    assert titles == [[f"unit {u} {s[u]:.2f}"] for u, s in zip(units, scores, strict=True)]


def test_without_units_all_of_a_few_are_explained(tmp_path):
    fit(build(), [explain(tmp_path, None)], epochs=1)
    assert pixels(tmp_path / "epoch_000" / "gradcam_0.png").shape == (196, 4 * 166 + 6, 3)


@pytest.mark.parametrize("method", ["smooth_gradients", "gradients", "scorecam"])
def test_methods_of_all_families_are_drawn_in_batches(tmp_path, method):
    chosen = ke.methods.smooth("gradients", num_samples=2) if "smooth" in method else method
    fit(build(), [explain(tmp_path, 1, method=chosen, batch_size=1)], epochs=1)
    one, other = (pixels(tmp_path / name) for name in files(tmp_path))
    assert one.shape == other.shape
    assert (one != other).any()


def test_what_is_drawn_can_be_another_image_and_inputs_can_be_several(tmp_path):
    numbers = keras.Input((2,), name="a")
    image = keras.Input((SIZE, SIZE, 5), name="b")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    model = keras.Model({"a": numbers, "b": image}, layers.Dense(2)(x) + layers.Dense(2)(numbers))
    model.compile("sgd", "mse")
    data = {"a": np.ones((4, 2)), "b": _random.random((4, SIZE, SIZE, 5))}
    drawn = _random.integers(0, 256, (4, 16, 16, 3), dtype="uint8")
    callback = ke.callbacks.Explain(data, 0, images=drawn, directory=tmp_path)
    model.fit(data, np.ones((4, 2)), verbose=0, callbacks=[callback])
    picture = pixels(tmp_path / "epoch_000" / "gradcam_3.png")
    np.testing.assert_array_equal(picture[30:190:10, 6:166:10], drawn[3])
    callback = ke.callbacks.Explain(data, 0, directory=tmp_path)
    with pytest.raises(ValueError, match=r"`x`.*Received: \(4, 8, 8, 5\). Pass what is drawn as"):
        model.fit(data, np.ones((4, 2)), verbose=0, callbacks=[callback])


def test_maps_of_a_training_that_diverged_are_drawn_empty(tmp_path):
    model = build()
    model.layers[-1].bias.assign([np.nan] * UNITS)
    worst = evaluate(metrics=["average_drop", "sparseness", "increase_in_confidence"])
    history = fit(model, [worst, explain(tmp_path), keras.callbacks.TerminateOnNaN()])
    assert len(files(tmp_path)) == 2
    assert history["val_average_drop"] == [math.inf]
    assert history["val_sparseness"] == [-math.inf]
    assert worst.evaluation is None


def test_maps_that_are_no_numbers_have_the_worst_values(tmp_path):
    model, worst = build(), evaluate()
    breaking = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: model.layers[-1].kernel.assign(np.full((4, UNITS), np.nan))
    )
    history = fit(model, [breaking, worst, explain(tmp_path)], epochs=1)
    assert math.isfinite(history["loss"][0])
    assert history["val_average_drop"] == [math.inf]
    assert worst.evaluation is None


def test_methods_share_a_directory_and_have_runs_of_their_own(tmp_path):
    options = {"log_dir": tmp_path / "logs"}
    callbacks = [explain(tmp_path / "png", method=m, **options) for m in ("cam", "gradients")]
    fit(build(), callbacks, epochs=1)
    names = [f"epoch_000/{method}_{n}.png" for method in ("cam", "gradients") for n in range(2)]
    assert files(tmp_path / "png") == names
    tags = [(f"{method}/{n}", 0) for method in ("cam", "gradients") for n in range(2)]
    assert sorted(events(tmp_path / "logs")) == tags
    runs = sorted(path.parent for path in (tmp_path / "logs").rglob("events*"))
    assert runs == [tmp_path / "logs" / "explanations" / m for m in ("cam", "gradients")]


def test_the_loader_of_tensorboard_reads_both_runs_while_they_are_written(tmp_path):
    multiplexer = pytest.importorskip(
        "tensorboard.backend.event_processing.plugin_event_multiplexer"
    ).EventMultiplexer(tensor_size_guidance={"tensors": 0})
    callbacks = [explain(None, method=m, log_dir=tmp_path) for m in ("cam", "gradients")]
    shown = []

    def read(*_):
        multiplexer.AddRunsFromDirectory(str(tmp_path))
        multiplexer.Reload()
        pairs = [(f"explanations/{method}", f"{method}/1") for method in ("cam", "gradients")]
        shown.append([len(multiplexer.Tensors(*pair)) for pair in pairs])

    fit(build(), [*callbacks, keras.callbacks.LambdaCallback(on_epoch_end=read)], epochs=3)
    assert shown == [[1, 1], [2, 2], [3, 3]]


def test_remote_log_dirs_stay_as_they_are(tmp_path, monkeypatch):
    opened = []
    create = tf.summary.create_file_writer

    def note(path):
        opened.append(path)
        return create(str(tmp_path))

    monkeypatch.setattr(tf.summary, "create_file_writer", note)
    fit(build(), [ke.callbacks.Explain(CHOSEN, 0, log_dir="gs://bucket/run")], epochs=1)
    assert opened == ["gs://bucket/run/explanations/gradcam"]


def test_a_model_that_its_first_batch_builds_is_told_of(tmp_path):
    def unbuilt():
        model = Subclassed([layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    batches = []
    noting = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: batches.append(1))
    for callback in (explain(tmp_path, 7), evaluate(layer="nowhere")):
        model = unbuilt()
        built = model.built
        with pytest.raises(ValueError, match=r"`y`|nowhere"):
            fit(model, [noting, callback])
        assert len(batches) <= (not built)
        batches.clear()
    model, callback = unbuilt(), explain(tmp_path, 0, initial=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, [callback], epochs=1)
    told = any("is built by its first batch" in str(w.message) for w in caught)
    assert told != (tmp_path / "initial").exists()


def test_batches_of_samples_are_filled_up_and_cut(tmp_path):
    callback = ke.callbacks.Explain(IMAGES[:3], 0, directory=tmp_path, batch_size=2)
    fit(build(), [callback], epochs=1)
    assert files(tmp_path) == [f"epoch_000/gradcam_{n}.png" for n in range(3)]
    whole = tmp_path / "whole"
    fit(build(), [ke.callbacks.Explain(IMAGES[:3], 0, directory=whole)], epochs=1)
    for n in range(3):
        name = f"epoch_000/gradcam_{n}.png"
        np.testing.assert_array_equal(pixels(tmp_path / name), pixels(whole / name))


def test_before_a_resumed_training_is_the_epoch_before(tmp_path):
    fit(build(), [explain(tmp_path, 0, initial=True)], epochs=4, initial_epoch=3)
    assert {name.split("/")[0] for name in files(tmp_path)} == {"epoch_002", "epoch_003"}


def test_sixteen_units_are_few_enough_to_be_all_explained(tmp_path):
    inputs = keras.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(16)(x))
    model.compile("sgd", "mse")
    callback = ke.callbacks.Explain(IMAGES[:1, ..., :1], directory=tmp_path)
    model.fit(IMAGES[..., :1], np.ones((24, 16)), verbose=0, callbacks=[callback])
    assert files(tmp_path) == ["epoch_000/gradcam_0.png"]


def test_maps_that_are_no_pictures_are_refused(tmp_path):
    inputs = keras.Input((8, 3))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(2, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.compile("sgd", "mse")
    callback = ke.callbacks.Explain(IMAGES[:1, 0], 0, images=IMAGES[:1], directory=tmp_path)
    with pytest.raises(ValueError, match=r"`method`.*maps \(1, 8, 1\)"):
        model.fit(IMAGES[:, 0], np.ones((24, 2)), verbose=0, callbacks=[callback])


def test_images_with_channels_first_are_drawn(tmp_path):
    inputs = keras.Input((3, SIZE, SIZE))
    x = layers.Conv2D(2, 3, data_format="channels_first")(inputs)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    callback = ke.callbacks.Explain(IMAGES[:1].transpose(0, 3, 1, 2), 0, directory=tmp_path)
    callback.set_model(keras.Model(inputs, layers.Dense(2)(x)))  # CPUs can't train it.
    callback.on_train_begin()
    callback.on_epoch_end(0)
    picture = pixels(tmp_path / "epoch_000" / "gradcam_0.png")
    drawn = (IMAGES[0] * 255 + 0.5).astype("uint8")
    np.testing.assert_array_equal(picture[30:190:20, 6:166:20], drawn)


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    fit(build(), [explain(tmp_path)], epochs=1)
    (path, *_) = (tmp_path / name for name in files(tmp_path))
    before = path.read_bytes()
    replace = type(path).replace

    def fail(self, target):
        if self.name.endswith("_0.png.partial"):
            raise OSError("no space")
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.warns(UserWarning, match="no space"):
        fit(build(), [explain(tmp_path, 0)], epochs=1)
    assert path.read_bytes() == before
    assert not list(tmp_path.rglob("*.partial"))


def test_a_picture_that_cannot_be_written_is_told_and_training_goes_on(tmp_path):
    directory = tmp_path / "pictures"
    callback = explain(directory)

    def obstruct(*_):
        (directory / "epoch_000" / "gradcam_1.png").mkdir(parents=True)

    obstructing = keras.callbacks.LambdaCallback(on_train_begin=obstruct)
    with pytest.warns(UserWarning, match=r"explanations of epoch 0 were not written: .*gradcam_1"):
        fit(build(), [obstructing, callback])
    assert files(directory) == [f"epoch_00{n}/gradcam_{m}.png" for n, m in ((0, 0), (1, 0), (1, 1))]


@pytest.mark.parametrize("failing", ["directory", "log_dir"])
def test_a_place_that_fails_does_not_keep_pictures_from_the_other(tmp_path, monkeypatch, failing):
    def fail(*_, **__):
        raise tf.errors.PermissionDeniedError(None, None, "locked")

    broken = (type(tmp_path), "write_bytes") if failing == "directory" else (tf.summary, "write")
    callback = explain(tmp_path / "png", log_dir=tmp_path / "logs")
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(*broken, fail)
        fit(build(), [callback], epochs=2)
    assert len(files(tmp_path / "png")) == (0 if failing == "directory" else 4)
    assert len(events(tmp_path / "logs")) == (4 if failing == "directory" else 0)
    told = [str(w.message) for w in caught if "locked" in str(w.message)]
    assert [f"epoch {n} were not written" in text for n, text in enumerate(told)] == [True] * 2


def test_a_folder_that_cannot_be_made_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    begun = []
    noting = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: begun.append(1))
    with pytest.raises(OSError, match="file"):
        fit(build(), [explain(tmp_path / "file" / "pictures"), noting])
    assert begun == []


def test_explain_names_bad_arguments(tmp_path, monkeypatch):
    make = ke.callbacks.Explain
    with pytest.raises(ValueError, match="`directory`.*`log_dir`. Received: None"):
        make(CHOSEN)
    with pytest.raises(ValueError, match="`every`.*Received: 0"):
        make(CHOSEN, directory=tmp_path, every=0)
    with pytest.raises(ValueError, match="gradcamm"):
        make(CHOSEN, directory=tmp_path, method="gradcamm")
    with pytest.raises(TypeError, match=r"`x`. Expected arrays.*next\(iter\(dataset\)\)"):
        make(tf.data.Dataset.from_tensors(CHOSEN), directory=tmp_path)
    with pytest.raises(ValueError, match=r"`images`.*Received: \(8, 8, 3\)"):
        make(CHOSEN, directory=tmp_path, images=CHOSEN[0])
    for name in ("directory", "log_dir"):
        with pytest.raises(TypeError, match=f"`{name}`. Expected a path. Received: 3"):
            make(CHOSEN, **{name: 3})
    for tag in ("a/b", "", "/a", "..", "../a"):
        with pytest.raises(
            ValueError, match=f"`tag`. Expected .*names of files. Received: '{tag}'"
        ):
            make(CHOSEN, directory=tmp_path, tag=tag)
        if tag != "a/b":
            with pytest.raises(ValueError, match=f"`tag`. Expected .*a run. Received: '{tag}'"):
                make(CHOSEN, log_dir=tmp_path, tag=tag)
    assert make(CHOSEN, log_dir=tmp_path, tag="a/b").tag == "a/b"
    for names in ("abc", {0: "a", 1: "b", 2: "c"}):
        with pytest.raises(TypeError, match="`class_names`. Expected a list"):
            make(CHOSEN, directory=tmp_path, class_names=names)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'pip install "keras-explainable\[tensorboard\]"'):
        make(CHOSEN, log_dir=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": 3}, "`y`"),
        ({"y": [0, 1, 2]}, "`y`"),
        ({"class_names": ["a"]}, "`class_names`. Expected 3 names. Received: 1"),
        ({"images": IMAGES[:1]}, "`images`. Expected 2 images. Received: 1"),
        ({"layer": "nowhere"}, "nowhere"),
        ({"method": "gradcam", "sigma": 2}, "unknown option 'sigma'"),
    ],
)
def test_what_does_not_fit_the_model_is_told_before_training(tmp_path, options, message):
    model = build()
    weights = model.get_weights()
    options = {"y": 0, "directory": tmp_path, **options}
    with pytest.raises((TypeError, ValueError), match=message):
        fit(model, [ke.callbacks.Explain(CHOSEN, **options)])
    np.testing.assert_array_equal(model.get_weights()[0], weights[0])


def test_all_units_of_many_are_refused_before_training(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.GlobalAveragePooling2D(), layers.Dense(20)]
    )
    model.compile("sgd", "mse")
    callback = ke.callbacks.Explain(np.ones((1, 8, 8, 1)), directory=tmp_path, method="gradients")
    with pytest.raises(ValueError, match="`y`.*more than 16. Received: `None`, of 20 units"):
        model.fit(np.ones((1, 8, 8, 1)), np.ones((1, 20)), verbose=0, callbacks=[callback])


def test_values_are_those_of_evaluate_with_the_weights_of_their_epoch():
    model, expected = build(), []
    options = {
        "methods": ["gradcam", "cam"],
        "metrics": {"drop": "average_drop", "s": "sparseness"},
    }
    callback = evaluate(**options)

    def note(*_):
        data = IMAGES[:10], LABELS[:10]
        expected.append(ke.evaluate(model, *data, **options, num_resamples=0, verbose=0))

    history = fit(model, [callback, keras.callbacks.LambdaCallback(on_epoch_end=note)])
    assert set(history) == {"loss", *callback.modes}
    assert callback.modes == {
        "val_gradcam_drop": "min",
        "val_gradcam_s": "max",
        "val_cam_drop": "min",
        "val_cam_s": "max",
    }
    for (method, metric), name in callback.names.items():
        assert history[name] == [table.value(method, metric) for table in expected]
    assert callback.evaluation == expected[-1]
    assert expected[0] != expected[-1]


@pytest.mark.parametrize("kind", ["dict", "dataset", "masks"])
def test_values_of_all_kinds_of_data(kind):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    model = keras.Model({"image": image}, layers.Dense(UNITS, "softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    options = {"methods": "gradcam", "metrics": "average_drop"}
    x, y = {"image": IMAGES[:6]}, LABELS[:6]
    if kind == "dataset":
        x, y = tf.data.Dataset.from_tensor_slices((x, y)).batch(4), None
    if kind == "masks":
        options |= {"masks": np.ones((6, SIZE, SIZE), bool), "metrics": "pointing_game"}
    callback = ke.callbacks.Evaluate(x, y, prefix="held_out_", **options)
    history = model.fit({"image": IMAGES}, LABELS, verbose=0, callbacks=[callback]).history
    table = ke.evaluate(model, x, y, **options, num_resamples=0, verbose=0)
    expected = table.value("gradcam", options["metrics"])
    assert history[f"held_out_{options['metrics']}"] == [expected]
    assert callback.evaluation.num_samples == 6


def monitoring(kind, callback, path):
    name, mode = next(iter(callback.modes.items()))
    if kind == "stopping":
        return keras.callbacks.EarlyStopping(
            name, mode=mode, patience=1, restore_best_weights=True, start_from_epoch=0
        )
    if kind == "checkpoint":
        path = str(path / "best.weights.h5")
        return keras.callbacks.ModelCheckpoint(
            path, name, mode=mode, save_best_only=True, save_weights_only=True
        )
    return keras.callbacks.CSVLogger(str(path / "log.csv"))


@pytest.mark.parametrize("kind", ["stopping", "checkpoint", "logger"])
def test_callbacks_of_keras_find_the_values(tmp_path, monkeypatch, kind):
    callback = evaluate(every=2)
    # Worse from epoch to epoch, as far as it is evaluated: in epochs 0, 2 and 4.
    values = iter([0.1, 0.2, 0.3])
    evaluated = ke.evaluation.Evaluation.value
    monkeypatch.setattr(ke.evaluation.Evaluation, "value", lambda *_: next(values))
    model, weights = build(), []
    noting = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: weights.append(model.get_weights())
    )
    history = fit(model, [callback, monitoring(kind, callback, tmp_path), noting], epochs=5)
    monkeypatch.setattr(ke.evaluation.Evaluation, "value", evaluated)
    if kind == "logger":
        with (tmp_path / "log.csv").open() as file:
            logged = [float(row["val_average_drop"]) for row in csv.DictReader(file)]
        assert logged == history["val_average_drop"] == [0.1, 0.1, 0.2, 0.2, 0.3]
        return
    if kind == "checkpoint":
        model.load_weights(str(tmp_path / "best.weights.h5"))
    else:
        assert history["val_average_drop"] == [0.1, 0.1]
    for one, other in zip(model.get_weights(), weights[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_not_measured_is_the_worst_so_that_what_comes_later_is_better(tmp_path):
    callback = ke.callbacks.Evaluate(
        IMAGES[:4], methods="gradcam", metrics=["average_drop", "sparseness"], threshold=0.999
    )
    model = build(activation="sigmoid")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It is told that nothing was measured.
        history = fit(model, [callback, monitoring("checkpoint", callback, tmp_path)], epochs=1)
    assert history["val_average_drop"] == [math.inf]
    assert history["val_sparseness"] == [-math.inf]
    assert math.isnan(callback.evaluation.value("gradcam", "sparseness"))


def test_a_loss_that_is_infinite_has_the_worst_values():
    callback = evaluate(metrics=["average_drop", "sparseness"])
    callback.set_model(build())
    callback.on_train_begin()
    logs = {"loss": math.inf}
    callback.on_epoch_end(0, logs)
    assert logs == {"loss": math.inf, "val_average_drop": math.inf, "val_sparseness": -math.inf}


def test_a_second_fit_begins_with_values_of_its_own():
    callback = evaluate(every=2)
    model = build()
    first = fit(model, [callback], epochs=1)["val_average_drop"]
    model.layers[-1].kernel.assign(-model.layers[-1].kernel)
    second = fit(model, [callback], epochs=2, initial_epoch=1)["val_average_drop"]
    assert first != second


def test_evaluate_is_quick_to_name_bad_arguments():
    with pytest.raises(ValueError, match="gradcamm"):
        evaluate(methods="gradcamm")
    for metrics in ("average_dropp", ["sparseness", "average_dropp"], {"d": "average_dropp"}):
        with pytest.raises(ValueError, match="`metrics`.*Received: 'average_dropp'"):
            evaluate(metrics=metrics)
    with pytest.raises(ValueError, match="`every`.*Received: 0"):
        evaluate(every=0)
    with pytest.raises(ValueError, match="`masks`"):
        evaluate(metrics="pointing_game")
    with pytest.raises(ValueError, match="`metrics`.*names of their own"):
        evaluate(metrics={"loss": "average_drop"})
    with pytest.raises(TypeError, match="path"):
        evaluate(path="evaluation.npz")


def test_evaluate_tells_before_training_what_does_not_fit_the_model():
    begun = []
    noting = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: begun.append(1))
    other = ke.callbacks.Evaluate(IMAGES, LABELS + 1, methods="gradcam", metrics="average_drop")
    with pytest.raises(ValueError, match="`y`"):
        fit(build(), [other, noting])
    few = np.eye(UNITS, dtype=bool)
    other = ke.callbacks.Evaluate(IMAGES, few, methods="gradcam", metrics="average_drop")
    with pytest.raises(ValueError, match=r"`y`. Expected shape \(24, 3\). Received: .*\(3, 3\)"):
        fit(build(), [other, noting])
    flat = [keras.Input((SIZE, SIZE, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential(flat)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="CAM needs logits"):
        fit(model, [evaluate(methods="cam"), noting])
    assert begun == []


def test_names_that_logs_have_are_refused():
    with pytest.raises(ValueError, match=r"`prefix`.*Received: \['val_average_drop'\]"):
        fit(build(), [evaluate(), evaluate()])
