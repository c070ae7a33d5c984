"""Stores hold what `ke.explain` returns, whatever interrupted their writing."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke
from keras_explainable.engine import storing

IMAGES = np.random.default_rng(0).normal(size=(11, 8, 8, 3)).astype("float32")
QUIET = {"batch_size": 3, "verbose": 0}


def build(seed=1):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, activation="sigmoid")(x))


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "maps.h5"


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return IMAGES[3 * index : 3 * index + 3]


def source(kind):
    if kind == "arrays":
        return IMAGES, {"batch_size": 3}
    if kind == "dataset":
        return tf.data.Dataset.from_tensor_slices(IMAGES).batch(3), {}
    if kind == "dataset of unknown length":
        dataset = tf.data.Dataset.from_tensor_slices(IMAGES).filter(lambda x: True)  # noqa: ARG005
        return dataset.batch(3), {}
    return Batches(workers=2), {}


def equal(found, expected):
    keras.tree.map_structure(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("kind", ["arrays", "dataset", "dataset of unknown length", "PyDataset"])
def test_a_store_holds_what_is_returned_without(model, path, kind):
    x, options = source(kind)
    expected = ke.gradcam(model, x, [[0, 2]] * 11 if kind == "arrays" else 2, verbose=0, **options)
    units = [[0, 2]] * 11 if kind == "arrays" else 2
    store = ke.gradcam(model, x, units, path=path, verbose=0, **options)
    equal(store.numpy(), expected)
    equal(store.logits, expected[0])
    assert len(store) == 11
    assert [p.name for p in path.parent.iterdir()] == ["maps.h5"]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["maps"], expected[1])


def test_replicas_write_what_one_device_does(path):
    expected = ke.gradcam(build(), IMAGES, batch_size=4, verbose=0)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = build()
    for x, options in (
        (IMAGES, {"batch_size": 4}),
        (tf.data.Dataset.from_tensor_slices(IMAGES).batch(3), {}),
        (Batches(workers=1), {}),
    ):
        store = ke.gradcam(model, x, path=path, verbose=0, **options)
        for found, wanted in zip(store.numpy(), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)
        path.unlink()


def test_samples_are_read_by_index_slice_and_list(model, path):
    logits, maps = ke.gradcam(model, IMAGES, **QUIET)
    store = ke.gradcam(model, IMAGES, path=path, **QUIET)
    for rows in (0, -1, slice(2, 9, 3), [4, 0, 4, 10], slice(0, 0), np.arange(11) > 6):
        equal(store[rows], (logits[rows], maps[rows]))
    with pytest.raises(IndexError):
        store[11]
    assert repr(store) == "<Store of 11 samples: logits (4,), maps (8, 8, 4)>"
    batches = [*store.dataset(4)]
    assert store.dataset(4).cardinality() == 3
    for number, (found_logits, found_maps) in enumerate(batches):
        rows = slice(4 * number, 4 * number + 4)
        equal((found_logits.numpy(), found_maps.numpy()), (logits[rows], maps[rows]))


def test_files_follow_each_other_in_a_store(model, tmp_path):
    paths = [tmp_path / "a.h5", tmp_path / "b.hdf5"]
    for path, rows in zip(paths, (slice(0, 5), slice(5, 11)), strict=True):
        ke.gradcam(model, IMAGES[rows], path=path, **QUIET)
    logits, maps = ke.gradcam(model, IMAGES, **QUIET)
    store = ke.Store(paths)
    equal(store.numpy(), (logits, maps))
    equal(store[[9, 2, 5]], (logits[[9, 2, 5]], maps[[9, 2, 5]]))
    other = tmp_path / "c.h5"
    ke.gradcam(model, IMAGES, path=other, resizing=False, **QUIET)
    with pytest.raises(ValueError, match=r"`path`. Expected files whose samples have the shapes"):
        ke.Store([*paths, other])


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("kind", ["arrays", "dataset", "dataset of unknown length", "PyDataset"])
def test_shards_are_read_in_the_order_of_the_data(model, path, kind, count):
    x, options = source(kind)
    logits, maps = ke.gradcam(model, x, verbose=0, **options)
    for index in reversed(range(count)):
        store = ke.gradcam(model, x, path=path, shard=(index, count), verbose=0, **options)
        rows = [row for row in range(11) if row // 3 % count == index]
        equal(store.numpy(), (logits[rows], maps[rows]))
    assert not path.exists()
    store = ke.Store(path)
    names = [f"maps-{index:05d}-of-{count:05d}.h5" for index in range(count)]
    assert [p.name for p in store.paths] == sorted(p.name for p in path.parent.iterdir()) == names
    equal(store.numpy(), (logits, maps))
    equal(store.logits, logits)
    for rows in (4, -1, slice(2, 9, 3), [4, 0, 4, 10], np.arange(11) > 6):
        equal(store[rows], (logits[rows], maps[rows]))
    equal(next(store.dataset(4).unbatch().batch(11).as_numpy_iterator()), (logits, maps))


def test_shards_explain_their_batches_of_the_first_steps(model, path):
    logits, maps = ke.gradcam(model, IMAGES, steps=3, **QUIET)
    for index in range(2):
        ke.gradcam(model, IMAGES, steps=3, path=path, shard=(np.int64(index), 2), **QUIET)
    equal(ke.Store(path).numpy(), (logits, maps))


def test_shards_load_no_batches_of_others(model, path):
    class Counted(Batches):
        def __getitem__(self, index):
            loaded.append(index)
            return super().__getitem__(index)

    loaded = []
    ke.gradcam(model, Counted(workers=1), path=path, shard=(1, 2), verbose=0)
    # The first one tells the data from others.
    assert sorted(loaded) == [0, 1, 3]


def test_shards_of_zarr_and_smaller_types_are_read(model, tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "maps.zarr"
    expected = ke.gradcam(model, IMAGES, path=tmp_path / "whole.h5", dtype="uint8", **QUIET)
    for index in range(3):
        ke.gradcam(model, IMAGES, path=path, shard=(index, 3), dtype="uint8", **QUIET)
    equal(ke.Store(path).numpy(), expected.numpy())


def test_numbers_of_batches_are_read_as_they_are():
    # Beyond the integers that float32 holds.
    numbers = np.array([2**24, 2**24 + 1])
    equal(storing._decoded("batches", {"batches": numbers}), numbers)


def test_an_interrupted_shard_goes_on(model, path, monkeypatch):
    monkeypatch.setattr(storing, "_PART_SECONDS", 0.0)
    run, runs = ke.Explainer._run, []

    def interrupted(self, batch):
        runs.append(batch)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return run(self, batch)

    monkeypatch.setattr(ke.Explainer, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ke.gradcam(model, IMAGES, path=path, shard=(0, 2), **QUIET)
    for index in range(2):
        ke.gradcam(model, IMAGES, path=path, shard=(index, 2), **QUIET)
    assert len(runs) == 5
    equal(ke.Store(path).numpy(), ke.gradcam(model, IMAGES, **QUIET))


def test_missing_shards_are_named(model, path):
    for index in (0, 2):
        ke.gradcam(model, IMAGES, path=path, shard=(index, 4), **QUIET)
    names = r"maps-00001-of-00004\.h5, maps-00003-of-00004\.h5. The call with `shard=\(1, 4\)`"
    with pytest.raises(ValueError, match=f"`path`. Expected all 4 shards of .*but {names}"):
        ke.Store(path)


def test_shards_that_do_not_go_together_are_refused(model, path):
    ke.gradcam(model, IMAGES, path=path, shard=(0, 2), **QUIET)
    ke.gradcam(model, IMAGES + 1, path=path, shard=(1, 2), **QUIET)
    with pytest.raises(ValueError, match=r"one explanation.*00001-of-00002\.h5.* another data$"):
        ke.Store(path)


def test_a_file_that_was_begun_is_named(model, path):
    with pytest.raises(FileNotFoundError, match=r"none of shards of it\.$"):
        ke.Store(path)
    for shard, parts in ((None, "maps.h5.parts"), ((1, 2), "maps-00001-of-00002.h5.parts")):
        with pytest.raises(RuntimeError):
            ke.gradcam(
                model, IMAGES, callbacks=[_stopping_after(1)], path=path, shard=shard, **QUIET
            )
        with pytest.raises(FileNotFoundError, match=f"begun in .*{parts}: the call"):
            ke.Store(path)
        with pytest.raises(ValueError, match=f"nothing is there but .*{parts}"):
            ke.gradcam(model, IMAGES, path=path, shard=(0, 3), **QUIET)
        shutil.rmtree(path.with_name(parts))


def test_small_files_take_what_their_type_takes(model, tmp_path):
    files = [tmp_path / f"{dtype}.h5" for dtype in storing.DTYPES]
    for file in files:
        ke.gradcam(model, IMAGES, resizing=64, path=file, dtype=file.stem, **QUIET)
    sizes = [file.stat().st_size for file in files]
    for size, width in zip(sizes, (4, 2, 1), strict=True):
        assert size < 11 * 4 * 64 * 64 * width + 20_000


@pytest.mark.parametrize("call", [ke.Store, lambda path: ke.gradcam(build(), IMAGES, path=path)])
def test_a_path_that_is_none_of_a_file_is_refused(call, path):
    with pytest.raises(TypeError, match="`path`. Expected the path of a file. Received: 3"):
        call(3)
    path.mkdir()
    with pytest.raises(ValueError, match="which is a folder"):
        call(path)


def test_a_data_set_whose_batches_are_all_there_is_not_gone_through(model, path, monkeypatch):
    monkeypatch.setattr(storing, "_assemble", lambda *_: 1 / 0)
    read = []

    def image(number):
        read.append(number)
        return IMAGES[number % 11]

    dataset = tf.data.Dataset.range(120).map(lambda n: tf.numpy_function(image, [n], tf.float32))
    dataset = dataset.map(lambda x: tf.ensure_shape(x, (8, 8, 3))).batch(3)
    with pytest.raises(ZeroDivisionError):
        ke.gradcam(model, dataset, path=path, verbose=0)
    assert {*read} == {*range(120)}
    monkeypatch.undo()
    read.clear()
    assert len(ke.gradcam(model, dataset, path=path, verbose=0)) == 120
    # The first batch tells it from others; some are loaded ahead.
    assert len({*read}) < 60


@pytest.mark.parametrize("other", [None, (1, 3)])
def test_a_store_beside_shards_of_another_number_is_refused(model, path, other, monkeypatch):
    ke.gradcam(model, IMAGES, path=path, shard=(0, 1), **QUIET)
    with monkeypatch.context() as patch:
        patch.delattr(ke.Explainer, "_run")
        with pytest.raises(ValueError, match=r"nothing is there but .*maps-00000-of-00001\.h5"):
            ke.gradcam(model, IMAGES, path=path, shard=other, **QUIET)
    ke.gradcam(model, IMAGES, path=path.with_name("new.h5"), shard=other, **QUIET)
    for file in path.parent.glob("new*"):
        file.rename(file.with_name(file.name.replace("new", "maps")))
    with pytest.raises(ValueError, match="`path`. Expected one file, or shards of one number"):
        ke.Store(path)


def test_stores_in_a_list_may_be_shards(model, tmp_path):
    paths = [tmp_path / f"{number}.h5" for number in range(3)]
    for index in range(2):
        ke.gradcam(model, IMAGES, path=paths[1], shard=(index, 2), **QUIET)
    for path in (paths[0], paths[2]):
        ke.gradcam(model, IMAGES + 1, path=path, **QUIET)
    parts = [ke.gradcam(model, images, **QUIET) for images in (IMAGES + 1, IMAGES, IMAGES + 1)]
    expected = [np.concatenate(part) for part in zip(*parts, strict=True)]
    equal(list(ke.Store(paths).numpy()), expected)
    # Their samples don't follow each other.
    with pytest.raises(ValueError, match=r"whole stores in a list. Received: the shard .*1-00000"):
        ke.Store(sorted(tmp_path.glob("1-*")))


def _stopping_after(number):
    stop = keras.callbacks.LambdaCallback()
    stop.on_predict_batch_end = lambda batch, logs=None: setattr(  # noqa: ARG005
        stop.model, "stop_predicting", batch + 1 == number
    )
    return stop


@pytest.mark.parametrize("kind", ["arrays", "dataset of unknown length"])
@pytest.mark.parametrize("shard", [None, (1, 2)])
def test_a_call_that_a_callback_stopped_goes_on(model, path, kind, shard, monkeypatch):
    x, options = source(kind)
    options |= {"path": path, "shard": shard, "verbose": 0}
    with pytest.raises(RuntimeError, match="stopped after 1 batches.*The same call goes on"):
        ke.gradcam(model, x, callbacks=[_stopping_after(1)], **options)
    assert not list(path.parent.glob("*.h5"))
    run, runs = ke.Explainer._run, []

    def counted(self, batch):
        runs.append(batch)
        return run(self, batch)

    monkeypatch.setattr(ke.Explainer, "_run", counted)
    found = ke.gradcam(model, x, **options).numpy()
    assert len(runs) == (3 if shard is None else 1)
    logits, maps = ke.gradcam(model, IMAGES, **QUIET)
    rows = slice(None) if shard is None else [3, 4, 5, 9, 10]
    equal(found, (logits[rows], maps[rows]))


def test_a_callback_that_stops_with_the_last_batch_stops_nothing(model, path):
    stop = _stopping_after(4)
    assert len(ke.gradcam(model, IMAGES, path=path, callbacks=[stop], **QUIET)) == 11


@pytest.mark.parametrize("name", ["gradients", "smooth", "integrated_gradients"])
def test_bits_do_not_depend_on_the_batches_before(model, path, name):
    method = ke.methods.smooth("gradients", num_samples=6) if name == "smooth" else name
    batches = tf.data.Dataset.from_tensor_slices(IMAGES).batch(4)
    expected = ke.explain(method, model, batches, 2, path=path, verbose=0).numpy()
    shards = path.with_name("shards.h5")
    for index in range(3):
        ke.explain(method, model, batches, 2, path=shards, shard=(index, 3), verbose=0)
    equal(ke.Store(shards).numpy(), expected)
    equal(ke.explain(method, model, batches, 2, verbose=0), expected)


@pytest.mark.parametrize("kind", ["arrays", "dataset", "dataset of unknown length", "PyDataset"])
@pytest.mark.parametrize("shard", [None, (1, 2)])
def test_the_last_batch_is_computed_in_the_size_of_the_others(
    model, path, kind, shard, monkeypatch
):
    run, sizes = ke.Explainer._run, []

    def noted(self, batch):
        sizes.append(len(batch["inputs"]))
        return run(self, batch)

    monkeypatch.setattr(ke.Explainer, "_run", noted)
    x, options = source(kind)
    ke.gradcam(model, x, path=path, shard=shard, verbose=0, **options)
    # A graph of another size may round in another way.
    assert sizes == [3] * (4 if shard is None else 2)


@pytest.mark.parametrize("kind", ["arrays", "dataset of unknown length"])
def test_a_shard_without_batches_is_refused(model, path, kind):
    x, options = source(kind)
    message = "Expected 4 shards at most" if kind == "arrays" else "no more shards than batches"
    with pytest.raises(ValueError, match=f"`shard`. .*{message}"):
        ke.gradcam(model, x, path=path, shard=(4, 5), verbose=0, **options)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("error", [BlockingIOError, PermissionError])
def test_files_that_cannot_be_read_are_not_called_damaged(model, path, error, monkeypatch):
    ke.gradcam(model, IMAGES, path=path, **QUIET)

    def locked(*_, **__):
        raise error(errno.EAGAIN, "unable to lock file")

    monkeypatch.setattr(h5py, "File", locked)
    with pytest.raises(error, match="unable to lock file"):
        ke.Store(path)


def test_a_file_that_is_not_there_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"no file .*maps\.h5, and none of shards"):
        ke.Store(path)


@pytest.mark.parametrize("shard", [3, (2, 2), (-1, 2), (0.0, 2), (0, 1, 2), "01"])
def test_bad_shards_are_named(model, path, shard):
    with pytest.raises(ValueError, match=r"`shard`. Expected `None`, or `\(index, count\)`"):
        ke.gradcam(model, IMAGES, path=path, shard=shard, **QUIET)


def test_a_shard_needs_a_path(model):
    with pytest.raises(ValueError, match="`shard`. Expected `None` where there is no `path`"):
        ke.gradcam(model, IMAGES, shard=(0, 2), **QUIET)


def test_maps_of_several_inputs_keep_their_structure(path):
    inputs = {"a": keras.Input((4, 4, 3), name="a"), "b": keras.Input((6,), name="b")}
    pooled = keras.layers.GlobalAveragePooling2D()(inputs["a"])
    joined = keras.layers.Concatenate()([pooled, inputs["b"]])
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softplus")(joined))
    x = {"a": IMAGES[:, :4, :4], "b": IMAGES[:, :2, 0].reshape(11, 6)}
    expected = ke.gradients(model, x, 1, **QUIET)
    store = ke.gradients(model, x, 1, path=path, **QUIET)
    equal(store.numpy(), expected)
    equal(store[3], keras.tree.map_structure(lambda a: a[3], expected))


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("postprocessing", ["auto", None])
def test_errors_of_smaller_types_are_as_stated(model, path, dtype, postprocessing):
    options = {"postprocessing": postprocessing, **QUIET}
    logits, maps = ke.gradcam(model, IMAGES, **options)
    store = ke.gradcam(model, IMAGES, path=path, dtype=dtype, **options)
    found = store.numpy()
    np.testing.assert_array_equal(found[0], logits)
    assert found[1].dtype == np.float32
    if dtype == "float16":
        bound = 2.0**-11 * np.abs(maps) + 2.0**-25
    else:
        bound = 1.001 / 510 * np.ptp(maps, axis=(1, 2), keepdims=True) + 1e-7
    assert (np.abs(found[1] - maps) <= bound).all()
    assert not np.array_equal(found[1], maps)
    with h5py.File(path) as file:
        assert file["maps"].dtype == dtype


def test_maps_beyond_float16_are_refused(model, path):
    options = {"postprocessing": ke.filters.get("positive"), "path": path, **QUIET}
    with pytest.raises(ValueError, match="`dtype`. Expected a type that holds the maps"):
        ke.gradcam(model, 1e9 * IMAGES, dtype="float16", **options)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
@pytest.mark.parametrize("number", range(4))
def test_an_interrupted_call_goes_on(model, path, number, seconds, monkeypatch):
    monkeypatch.setattr(storing, "_PART_SECONDS", seconds)
    expected = ke.gradcam(model, IMAGES, **QUIET)
    run, runs = ke.Explainer._run, []

    def interrupted(self, batch):
        runs.append(batch)
        if len(runs) == number + 1:
            raise KeyboardInterrupt
        return run(self, batch)

    monkeypatch.setattr(ke.Explainer, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ke.gradcam(model, IMAGES, path=path, **QUIET)
    assert not path.exists()
    runs[:] = [None] * 99
    equal(ke.gradcam(model, IMAGES, path=path, **QUIET).numpy(), expected)
    assert len(runs) - 99 == 4 - number
    # What is done is read, and nothing is run.
    equal(ke.gradcam(model, IMAGES, path=path, **QUIET).numpy(), expected)
    assert len(runs) - 99 == 4 - number


def test_a_full_disk_is_told_and_loses_nothing(model, path, monkeypatch):
    monkeypatch.setattr(storing, "_PART_SECONDS", 0.0)
    expected = ke.gradcam(model, IMAGES, **QUIET)
    save, saved = np.savez, []

    def full(file, **arrays):
        if len(saved) == 2:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(arrays)
        save(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space left on device"):
            ke.gradcam(model, IMAGES, path=path, **QUIET)
    parts = path.with_name("maps.h5.parts")
    assert len([*parts.glob("*.npz")]) == 2
    assert not [*parts.glob("*.partial")]
    with monkeypatch.context() as patch:
        patch.setattr(storing, "_create", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            ke.gradcam(model, IMAGES, path=path, **QUIET)
    assert not path.exists()
    equal(ke.gradcam(model, IMAGES, path=path, **QUIET).numpy(), expected)
    assert [p.name for p in path.parent.iterdir()] == ["maps.h5"]


def test_a_disk_that_is_full_for_the_last_step_loses_nothing(model, path):
    resource = pytest.importorskip("resource")
    units = np.tile([0, 1, 2, 3] * 64, (11, 1))
    expected = ke.gradcam(model, IMAGES, units, **QUIET)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # One part fits, and so do none of the files made of all.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing, "_PART_SECONDS", 0.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (expected[1].nbytes // 2, before[1]))
        try:
            with pytest.raises(OSError, match="(?s)maps.h5.partial.*File too large"):
                ke.gradcam(model, IMAGES, units, path=path, **QUIET)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in path.parent.iterdir()] == ["maps.h5.parts"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ke.Explainer, "_run", lambda *_: pytest.fail("a pass was run"))
        equal(ke.gradcam(model, IMAGES, units, path=path, **QUIET).numpy(), expected)


def test_a_folder_that_cannot_be_written_is_named_before_any_pass(model, monkeypatch):
    monkeypatch.setattr(ke.Explainer, "_run", lambda *_: pytest.fail("a pass was run"))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        user = os.geteuid() if hasattr(os, "geteuid") else None
        if user == 0:  # Who may write anywhere.
            os.seteuid(65534)
        try:
            if os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                pytest.skip("Folders here can be written by everyone.")
            with pytest.raises(PermissionError, match=re.escape(folder)):
                ke.gradcam(model, IMAGES, path=Path(folder, "maps.h5"), **QUIET)
        finally:
            if user == 0:
                os.seteuid(0)
            Path(folder).chmod(0o755)


def _parts(model, path, monkeypatch, x=IMAGES, **options):
    """Explain without the last step, and return the part of each batch."""
    with monkeypatch.context() as patch:
        patch.setattr(storing, "_PART_SECONDS", 0.0)
        patch.setattr(storing, "_assemble", lambda *_: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):  # noqa: PT011
            ke.gradcam(model, x, path=path, **(options or QUIET))
    return sorted(path.parent.glob("*.parts/*.npz"))


@pytest.mark.parametrize("damaged", [[0], [1, 2], [0, 2], [3], [0, 1, 2, 3]])
@pytest.mark.parametrize("kind", ["cut off", "empty", "deleted"])
def test_only_damaged_parts_are_explained_again(model, path, damaged, kind, monkeypatch):
    parts = _parts(model, path, monkeypatch)
    for number in damaged:
        size = {"cut off": parts[number].stat().st_size // 2, "empty": 0, "deleted": None}[kind]
        parts[number].unlink() if size is None else os.truncate(parts[number], size)
    run, runs = ke.Explainer._run, []
    monkeypatch.setattr(ke.Explainer, "_run", lambda self, b: runs.append(b) or run(self, b))
    store = ke.gradcam(model, IMAGES, path=path, **QUIET)
    assert len(runs) == len(damaged)
    equal(store.numpy(), ke.gradcam(model, IMAGES, **QUIET))
    assert [p.name for p in path.parent.iterdir()] == ["maps.h5"]


def _reshuffled():
    """Return a data set that comes in another order each time that it is gone through."""
    dataset = tf.data.Dataset.from_tensor_slices(IMAGES).shuffle(11, seed=3)
    return dataset.filter(lambda x: True).batch(3)  # noqa: ARG005


@pytest.mark.parametrize("shard", [None, (1, 2)])
def test_a_data_set_in_another_order_each_time_goes_on_in_one(model, path, shard, monkeypatch):
    options = {"shard": shard, "verbose": 0}
    store = ke.gradcam(model, _reshuffled(), path=path, **options)
    expected = store.numpy()
    store.paths[0].unlink()
    for part in _parts(model, path, monkeypatch, _reshuffled(), **options)[::2]:
        part.unlink()
    equal(ke.gradcam(model, _reshuffled(), path=path, **options).numpy(), expected)


def test_a_data_set_that_became_shorter_is_told(model, path, monkeypatch):
    dataset, _ = source("dataset of unknown length")
    for part in _parts(model, path, monkeypatch, dataset, verbose=0)[1:3]:
        part.unlink()
    with pytest.raises(OSError, match="Parts of .* are missing"):
        ke.gradcam(model, dataset.take(2), path=path, verbose=0)
    assert not path.exists()


def _damage(part):
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)


def test_parts_with_other_bits_are_explained_again(model, path, monkeypatch):
    for part in _parts(model, path, monkeypatch)[:2]:
        _damage(part)
    store = ke.gradcam(model, IMAGES, path=path, **QUIET)
    equal(store.numpy(), ke.gradcam(model, IMAGES, **QUIET))


def test_a_part_that_is_damaged_on_the_way_is_named_and_explained_again(model, path, monkeypatch):
    first, *others = _parts(model, path, monkeypatch)
    others[-1].unlink()
    run = ke.Explainer._run
    with monkeypatch.context() as patch:
        patch.setattr(ke.Explainer, "_run", lambda self, batch: _damage(first) or run(self, batch))
        with pytest.raises(OSError, match=rf"{first.name} was damaged, and is removed"):
            ke.gradcam(model, IMAGES, path=path, **QUIET)
    assert not path.exists()
    store = ke.gradcam(model, IMAGES, path=path, **QUIET)
    equal(store.numpy(), ke.gradcam(model, IMAGES, **QUIET))


def test_parts_that_vanish_on_the_way_are_told(model, path, monkeypatch):
    monkeypatch.setattr(storing, "_PART_SECONDS", 0.0)
    run, runs = ke.Explainer._run, []

    def vanishing(self, batch):
        runs.append(batch)
        if len(runs) == 3:
            next(path.with_name("maps.h5.parts").glob("*01-*.npz")).unlink()
        return run(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ke.Explainer, "_run", vanishing)
        with pytest.raises(OSError, match="Parts of .*maps.h5 are missing"):
            ke.gradcam(model, IMAGES, path=path, **QUIET)
    store = ke.gradcam(model, IMAGES, path=path, **QUIET)
    equal(store.numpy(), ke.gradcam(model, IMAGES, **QUIET))


def test_parts_of_a_damaged_identity_are_refused(model, path, monkeypatch):
    parts = _parts(model, path, monkeypatch)
    note = parts[0].with_name("identity.json")
    os.truncate(note, note.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"`path`.*maps.h5.parts. Delete the folder"):
        ke.gradcam(model, IMAGES, path=path, **QUIET)
    assert all(part.exists() for part in parts)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused_and_left(model, path, share):
    ke.gradcam(model, IMAGES, path=path, **QUIET)
    size = int(share * path.stat().st_size)
    os.truncate(path, size)
    message = "`path`. Expected a file that `ke.explain` wrote.*maps.h5. A damaged one is made anew"
    with pytest.raises(ValueError, match=message):
        ke.Store(path)
    with pytest.raises(ValueError, match=message):
        ke.gradcam(model, IMAGES, path=path, **QUIET)
    assert path.stat().st_size == size
    path.unlink()
    equal(ke.gradcam(model, IMAGES, path=path, **QUIET)[:], ke.gradcam(model, IMAGES, **QUIET))


@pytest.mark.parametrize("finished", [True, False])
def test_stores_of_other_explanations_are_refused(model, path, finished, monkeypatch):
    def explain(model=model, method="gradcam", x=IMAGES, y=1, **options):
        return ke.explain(method, model, x, y, path=path, **{**QUIET, **options})

    if finished:
        explain()
    else:
        with monkeypatch.context() as patch:
            patch.setattr(storing, "_assemble", lambda *_: (_ for _ in ()).throw(OSError))
            with pytest.raises(OSError):  # noqa: PT011
                explain()
    kept = path.read_bytes() if finished else None
    for other, named in (
        ({"model": build(2)}, "model"),
        ({"method": "layercam"}, "method"),
        ({"x": IMAGES + 1}, "data"),
        ({"x": IMAGES[:9]}, "data, number of batches, samples, y"),
        ({"y": 2}, "y"),
        ({"batch_size": 4}, "batch_size"),
        ({"steps": 2}, "number of batches"),
        ({"resizing": False}, "`resizing`"),
        ({"postprocessing": None}, "`postprocessing`"),
        ({"max_bytes": 2**20}, "`max_bytes`"),
        ({"fusion": "max"}, "`fusion`"),
        ({"dtype": "uint8"}, "dtype"),
    ):
        with pytest.raises(ValueError, match=rf"`path`.*made with another {named}\. Delete it"):
            explain(**other)
    if finished:
        assert path.read_bytes() == kept
    equal(explain().numpy(), ke.gradcam(model, IMAGES, 1, **QUIET))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("maps.txt", {}, r"`path`. Expected a name that ends in one of .*maps.txt"),
        ("absent/maps.h5", {}, r"`path`. Expected a file in a folder that is there.*absent"),
        ("other.h5", {}, r"`path`. Expected a file that `ke.explain` wrote.*other.h5"),
        ("maps.h5", {"dtype": "int8"}, r"`dtype`.*int8"),
    ],
)
def test_bad_paths_are_named_before_any_pass(model, tmp_path, name, options, message, monkeypatch):
    (tmp_path / "other.h5").write_bytes(b"something else")
    monkeypatch.setattr(ke.Explainer, "_run", lambda *_: pytest.fail("a pass was run"))
    with pytest.raises(ValueError, match=message):
        ke.gradcam(model, IMAGES, path=tmp_path / name, **QUIET, **options)


@pytest.mark.parametrize("seconds", [0.0, 15.0])
@pytest.mark.parametrize("name", ["a.h5", "a.zarr", None])
def test_maps_of_several_sizes_are_refused(tmp_path, name, seconds, monkeypatch):
    if name == "a.zarr":
        pytest.importorskip("zarr")
    monkeypatch.setattr(storing, "_PART_SECONDS", seconds)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))

    def batches():
        yield IMAGES[:2]
        yield IMAGES[:2, :6]

    specification = tf.TensorSpec((None, None, None, 3))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=specification)
    options = {"verbose": 0} if name is None else {"verbose": 0, "path": tmp_path / name}
    for _ in range(2):  # As well when it goes on.
        with pytest.raises(ValueError, match=r"maps have one size.*resizing=\(224, 224\)"):
            ke.cam(model, dataset, **options)
    maps = ke.cam(model, dataset, verbose=0, resizing=(8, 8))[1]
    assert maps.shape == (4, 8, 8, 2)


def test_an_interrupt_after_a_part_was_written_writes_it_once(model, path, monkeypatch):
    monkeypatch.setattr(storing, "_PART_SECONDS", 0.0)
    clock = storing.time.monotonic

    def interrupted():
        if list(path.parent.glob("*.parts/0*1.npz")):
            monkeypatch.setattr(storing.time, "monotonic", clock)
            raise KeyboardInterrupt
        return clock()

    monkeypatch.setattr(storing.time, "monotonic", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ke.gradcam(model, IMAGES, path=path, **QUIET)
    assert len(list(path.parent.glob("*.parts/*.npz"))) == 1
    equal(ke.gradcam(model, IMAGES, path=path, **QUIET).numpy(), ke.gradcam(model, IMAGES, **QUIET))


def test_parts_of_which_nothing_is_noted_are_made_again(model, path, monkeypatch):
    _parts(model, path, monkeypatch)[0].with_name("identity.json").unlink()
    store = ke.layercam(model, IMAGES, path=path, **QUIET)
    equal(store.numpy(), ke.layercam(model, IMAGES, **QUIET))


def broken(maps):
    """Return maps with a value that is no number, and an infinite one in the second unit."""
    flat = tf.reshape(maps, (tf.shape(maps)[0], -1, 2))
    flat = tf.concat([flat[:, :1] + [np.nan, np.inf], flat[:, 1:]], 1)
    return tf.reshape(flat, tf.shape(maps))


@pytest.mark.parametrize("dtype", storing.DTYPES)
def test_values_that_are_not_finite_stay_so_and_leave_other_maps_alone(model, path, dtype):
    def filtered(maps):
        return tf.concat([broken(maps[..., :2]), maps[..., 2:]], -1)

    options = {"postprocessing": filtered, "resizing": False, **QUIET}
    _, expected = ke.gradcam(model, IMAGES, **options)
    _, maps = ke.gradcam(model, IMAGES, path=path, dtype=dtype, **options).numpy()
    atol = np.ptp(expected[..., 2:]) / 255
    np.testing.assert_allclose(maps[..., 2:], expected[..., 2:], atol=atol)
    if dtype == "uint8":
        assert np.isnan(maps[..., :2]).all()
    else:
        np.testing.assert_allclose(maps[..., :2], expected[..., :2], rtol=1e-3, atol=1e-6)


def test_values_too_large_for_a_type_are_refused_beside_others_and_can_be_written(model, path):
    def filtered(maps):
        return tf.concat([broken(maps[..., :2]), 1e6 + maps[..., 2:]], -1)

    options = {"postprocessing": filtered, "resizing": (4, 4), "path": path, **QUIET}
    with pytest.raises(ValueError, match=r"`dtype`.*holds the maps.*float32"):
        ke.gradcam(model, IMAGES, dtype="float16", **options)
    assert not list(path.parent.iterdir())
    assert ke.gradcam(model, IMAGES, **options).numpy()[1][..., 2:].min() > 9e5


def test_zarr_holds_the_same(model, tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "maps.zarr"
    expected = ke.gradcam(model, IMAGES, **QUIET)
    store = ke.gradcam(model, IMAGES, path=path, **QUIET)
    equal(store.numpy(), expected)
    equal(store[[9, 2]], tuple(part[[9, 2]] for part in expected))
    store = ke.gradcam(model, IMAGES, path=tmp_path / "b.zarr", dtype="uint8", **QUIET)
    np.testing.assert_allclose(store.numpy()[1], expected[1], atol=1 / 500)


def test_zarr_is_named_with_its_install_line(model, tmp_path, monkeypatch):
    monkeypatch.setattr(storing.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"keras-explainable\[zarr\]"):
        ke.gradcam(model, IMAGES, path=tmp_path / "maps.zarr", **QUIET)


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_very_same_store(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        import keras, numpy as np
        import keras_explainable as ke
        from keras_explainable.engine import storing

        path, kill = sys.argv[1], int(sys.argv[2])
        storing._PART_SECONDS = 0.0
        keras.utils.set_random_seed(0)
        model = keras.Sequential([
            keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3),
            keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
        images = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
        calls = []
        def dying(*_):
            calls.append(0)
            if len(calls) == kill:
                os.kill(os.getpid(), signal.SIGKILL)
        replace = os.fsync
        os.fsync = lambda *a: (dying(), replace(*a))
        ke.gradcam(model, images, path=path, batch_size=5, verbose=0)
    """)

    def run(path, kill):
        command = [sys.executable, "-c", script, str(path), str(kill)]
        return subprocess.run(command, check=False, capture_output=True, timeout=300)

    path = tmp_path / "maps.h5"
    assert run(path, 4).returncode == -signal.SIGKILL
    assert not path.exists()
    finished = run(path, 0)
    assert finished.returncode == 0, finished.stderr
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 3)])
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(2))
    images = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
    equal(ke.Store(path).numpy(), ke.gradcam(model, images, batch_size=5, verbose=0))


def test_stores_are_not_unpacked_as_if_they_were_logits_and_maps(model, path):
    store = ke.gradcam(model, IMAGES[:2], path=path, **QUIET)
    assert len(store) == 2
    with pytest.raises(TypeError, match=r"`logits, maps = store.numpy\(\)`.*`store.dataset\(\)`"):
        logits, maps = store
    logits, maps = store.numpy()
    assert len(logits) == len(maps) == 2


def test_logits_are_read_when_they_are_asked_for(model, path):
    store = ke.gradcam(model, IMAGES, 1, path=path, verbose=0)
    logits, _ = store[3:5]
    assert "logits" not in vars(store)
    np.testing.assert_array_equal(store.logits[3:5], logits)
    assert store.logits is store.logits


def test_a_store_of_another_precision_is_refused(path):
    full = build()
    store = ke.gradcam(full, IMAGES, 1, path=path, verbose=0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build()
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(full.get_weights())
    with pytest.raises(ValueError, match="another model"):
        ke.gradcam(mixed, IMAGES, 1, path=path, verbose=0)
    assert len(ke.Store(path)) == len(store)


def test_a_type_of_maps_without_a_path_is_refused(model):
    with pytest.raises(ValueError, match=r"`dtype`.*where there is no `path`.*'uint8'"):
        ke.gradcam(model, IMAGES, 1, dtype="uint8", verbose=0)
