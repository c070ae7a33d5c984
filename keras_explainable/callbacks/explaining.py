"""Pictures of maps of chosen samples, epoch by epoch."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable import _showing
from keras_explainable import engine
from keras_explainable import inspection
from keras_explainable import methods
from keras_explainable import visualization
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import positive_integer
from keras_explainable._keeping import Kept
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Method
from keras_explainable._typing import PathLike
from keras_explainable._typing import Units
from keras_explainable.engine._listening import listened
from keras_explainable.inspection import feeding

# Beyond that, pictures and time of all units are too much for every epoch.
_MOST_UNITS = 16
# The name by which TensorBoard knows what is shown in its tab of images.
_PLUGIN = "images"
_RUN = "explanations"


class Explain(keras.callbacks.Callback):
    """Draw maps of chosen samples after epochs of `fit`, for TensorBoard and in a directory.

    The picture of a sample is the image and, over the image in grey, the map of each explained unit
    below the name and the score of the unit: its probability, if the model ends in an activation,
    or else its logit. Maps are those of `ke.explain` with the weights of that moment.

    - In TensorBoard's tab of images each sample is a tag, `"gradcam/0"`, whose slider goes
      through the epochs. Event files are in a run of their own, `log_dir/explanations/gradcam`,
      so that `keras.callbacks.TensorBoard(log_dir)` can write beside it. Steps are epochs counted
      from 0, as there.
    - In a directory it is `directory/epoch_000/gradcam_0.png`, and for step -1
      `directory/initial/gradcam_0.png`: `{tag}_{n}.png` for sample n.

    The step is compiled, and tried, before the first epoch, or after the first batch of a model
    that isn't built before; it is kept for later fits. Where a picture can't be written there is a
    warning, and training goes on.

    Args:
        x: samples, what `ke.explain` takes but for data sets: array, or list or dict of them.
        y: units explained: integers `(samples,)` or `(samples, n)`, an integer, "argmax" for the
            highest of each epoch, or `None` for all units of a model with at most 16.
        method: name of a method, or a function, see `ke.explain`.
        every: number of epochs from one picture to the next: the epochs explained are 0, `every`,
            `2 * every`, counted on where training is resumed. Defaults to 1.
        initial: whether to explain before the first epoch, too, as step `initial_epoch - 1`, which
            is -1 for a training that begins. Defaults to False.
        log_dir: where TensorBoard reads. Defaults to none.
        directory: where PNG files are written. Defaults to none.
        images: what is drawn: array `(samples, height, width, 1 | 3)` of the values that
            `ke.visualization.overlay` accepts. Defaults to the input that maps show.
        class_names: names of the units. Defaults to "unit 0" and so on.
        tag: what tags in TensorBoard, and names of files, begin with, and the name of the run.
            Callbacks that write to one place are told apart by it. Defaults to the name of the
            method.
        batch_size: samples per step. Defaults to 32.
        **options: further arguments of `ke.explain`, such as `layer`, and options of the method.

    Raises:
        ImportError: if there is a `log_dir`, and TensorBoard isn't installed.
        TypeError: if an argument has a wrong type.
        ValueError: if there is neither `log_dir` nor `directory`, or an argument has a wrong value,
            such as a `tag` that isn't the name of a file in the `directory`; as soon as there is a
            built model, if it doesn't fit that.

    Example:
        >>> import keras, numpy as np, tempfile, keras_explainable as ke
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3),
        ...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
        >>> model.compile("sgd", "mse")
        >>> x, directory = np.ones((4, 8, 8, 1)), tempfile.mkdtemp()
        >>> callback = ke.callbacks.Explain(x[:1], [2], directory=directory)
        >>> history = model.fit(x, np.ones((4, 3)), epochs=2, verbose=0, callbacks=[callback])
        >>> sorted(p.name for p in Path(directory).iterdir())
        ['epoch_000', 'epoch_001']
    """

    def __init__(
        self,
        x: Inputs,
        y: Units = None,
        *,
        method: Method = "gradcam",
        every: int = 1,
        initial: bool = False,
        log_dir: PathLike | None = None,
        directory: PathLike | None = None,
        images: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        tag: str | None = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if log_dir is None and directory is None:
            raise invalid("directory", "a folder, or one for TensorBoard as `log_dir`", None)
        if log_dir is not None and importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "The argument `log_dir` needs TensorBoard. "
                'Install it with: pip install "keras-explainable[tensorboard]"'
            )
        if isinstance(x, tf.data.Dataset | keras.utils.PyDataset):
            hint = "Take a batch of it, as with `x, y = next(iter(dataset))`."
            raise mistyped("x", "arrays", x, hint)
        self.every = positive_integer("every", every)
        self.initial = bool(initial)
        self.log_dir = _checked_path("log_dir", log_dir)  # It may be remote.
        directory = _checked_path("directory", directory)
        self.directory = None if directory is None else Path(directory)
        self.batch_size = positive_integer("batch_size", 32 if batch_size is None else batch_size)
        if isinstance(class_names, str | dict):
            raise mistyped("class_names", "a list of the names of the units", class_names)
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self._method, self._options = methods.get(method), options
        tag = getattr(self._method, "__name__", "explanations") if tag is None else str(tag)
        self.tag = _checked_tag(tag, self.directory is not None)
        self._x, self._y = keras.tree.map_structure(_as_array, x), y
        self._images = None if images is None else _checked_images("images", images)
        self._explainers = Kept(1)
        self._prepared = self._writer = None
        self._waits = False

    def __repr__(self):
        """Tell what is drawn, and where."""
        places = {"log_dir": self.log_dir, "directory": self.directory}
        places = {name: str(place) for name, place in places.items() if place is not None}
        number = len(keras.tree.flatten(self._x)[0])
        of = f"{_showing.shown(self._method)} of {number} samples"
        return _showing.line(self, of, **{"every": self.every} | self._options | places)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make the step for the model, and open what is written to."""
        del logs
        self._close()
        self._waits = self.initial
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
        if self.model.built:
            self._prepare()
        elif self.initial:
            warnings.warn(
                f"The model {self.model.name!r} is built by its first batch, so there are no "
                "explanations of it before. Build it, as by calling it on some inputs.",
                stacklevel=2,
            )
        if self.log_dir is not None:
            # A run has one file of events at a time.
            run = tf.io.gfile.join(self.log_dir, _RUN, self.tag)
            self._writer = tf.summary.create_file_writer(run)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Explain before training, if that is wanted."""
        del logs
        if self._waits and self._prepared is not None:
            self._draw(epoch - 1)
        self._waits = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Make the step for a model that was not built before."""
        del batch, logs
        if self._prepared is None:
            self._prepare()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Explain, if it is the turn of that epoch."""
        del logs
        if epoch % self.every == 0:
            self._draw(epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close what was written to."""
        del logs
        self._close()

    def _close(self):
        if self._writer is not None:
            self._writer.close()
        self._prepared = self._writer = None

    def _prepare(self):
        self._prepared = self._explainers.get(self.model, (), self._build)

    def _build(self):
        """Return an explainer of the model, its data and the images drawn, all of it checked."""
        registration = methods.registration(self._method)
        rows = {n: o for n, o in self._options.items() if n in registration.sample_options}
        shared = {n: o for n, o in self._options.items() if n not in rows}
        inputs = None if _compat.is_functional(self.model) else self._x
        explainer = _Scoring(self._method, self.model, inputs=inputs, **shared)
        num_units = explainer.num_units
        if self._y is None and num_units > _MOST_UNITS:
            expected = f"the units that are explained, of a model with more than {_MOST_UNITS}"
            raise invalid("y", expected, f"`None`, of {num_units} units")
        if self.class_names is not None and len(self.class_names) != num_units:
            raise invalid("class_names", f"{num_units} names", len(self.class_names))
        data = explainer.checked(self._x, self._y, rows)
        images = self._images
        if images is None:
            images = _checked_images("x", explainer.shown(data), "Pass what is drawn as `images`.")
        num_samples = len(keras.tree.flatten(data["inputs"])[0])
        if len(images) != num_samples:
            raise invalid("images", f"{num_samples} images", len(images))
        maps = explainer.scored(data, self.batch_size)["maps"]
        if maps.ndim != 4:
            expected = "a method with maps `(samples, height, width, units)` of the model"
            raise invalid("method", expected, f"maps {maps.shape}")
        return explainer, data, images

    def _draw(self, epoch):
        """Explain the samples, and write a picture of each."""
        explainer, data, images = self._prepared
        found = explainer.scored(data, self.batch_size)
        pictures = [
            self._painted(*sample)
            for sample in zip(images, found["maps"], found["units"], found["scores"], strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            contents = list(pool.map(_encoded, pictures))
        writes = [self._write_files] if self.directory is not None else []
        writes += [self._write_events] if self._writer is not None else []
        for write in writes:
            try:
                write(epoch, pictures, contents)
            except (OSError, tf.errors.OpError) as error:
                warnings.warn(
                    f"The explanations of epoch {epoch} were not written: {error}", stacklevel=2
                )

    def _painted(self, image, maps, units, scores):
        pairs = zip(units, scores, strict=True)
        titles = [f"{self._name(unit)} {score:.2f}" for unit, score in pairs]
        # A training that diverged has maps that aren't finite, which its scores tell.
        maps = np.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)
        return visualization.raster(image, maps, titles=titles)

    def _name(self, unit):
        return f"unit {unit}" if self.class_names is None else self.class_names[unit]

    def _write_files(self, epoch, pictures, contents):
        del pictures
        folder = self.directory / ("initial" if epoch < 0 else f"epoch_{epoch:03d}")
        folder.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(contents):
            _write_whole(folder / f"{self.tag}_{number}.png", content)

    def _write_events(self, epoch, pictures, contents):
        plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name=_PLUGIN)
        metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
        with self._writer.as_default():
            for number, (picture, content) in enumerate(zip(pictures, contents, strict=True)):
                height, width, _ = picture.shape
                values = tf.constant([str(width), str(height), content])
                tf.summary.write(f"{self.tag}/{number}", values, epoch, metadata)
        self._writer.flush()


class _Scoring(engine.Explainer):
    """An explainer that returns the units that it explains, and their scores, beside the maps."""

    def checked(self, x, y, options):
        """Return data in the form that the step takes."""
        return self._arrays(x, y, options, self._checked_target(None))

    def shown(self, data):
        """Return the input that maps show, with channels last."""
        index = self.exposed.input_index
        array = np.asarray(keras.tree.flatten(data["inputs"])[index])
        return np.moveaxis(array, 1, -1) if index in self.exposed.channels_first else array

    def scored(self, data, batch_size):
        """Return a dict of what the step returns, of all samples."""
        num_samples = len(keras.tree.flatten(data["inputs"])[0])
        size = min(batch_size, num_samples)
        found = []
        for start in range(0, num_samples, size):
            stop = start + size
            outputs = self.run_batch(
                keras.tree.map_structure(lambda a: a[start:stop], data),  # noqa: B023
                size,
            )
            valid = np.asarray(outputs.pop("valid")) > 0
            found.append({name: np.asarray(array)[valid] for name, array in outputs.items()})
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def _explain_eagerly(self, data):
        heard = listened(self, data, self.exposed)
        logits = tf.cast(heard.logits, tf.float32)
        scores = logits if self.exposed.activation is None else self.exposed.activation(logits)
        return {
            "maps": self._finish(heard.maps, heard.shown),
            "scores": inspection.gather_units(scores, heard.units),
            "units": heard.units,
        }


def _encoded(picture):
    return tf.io.encode_png(picture, compression=1).numpy()


def _write_whole(path, content):
    """Write a file, of which nobody sees a part."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _checked_path(argument, path):
    """Return a path as text, or raise that it is none."""
    if not isinstance(path, str | os.PathLike | None):
        raise mistyped(argument, "a path", path)
    return None if path is None else os.fspath(path)


def _checked_tag(tag, is_file):
    """Return a tag that names a run, and the files of a directory if there is one."""
    parts = tag.replace(os.sep, "/").split("/")
    if is_file and len(parts) > 1 or {"", ".", ".."} & {*parts}:
        expected = "the beginning of names of files" if is_file else "the name of a run"
        raise invalid("tag", expected, repr(tag))
    return tag


def _as_array(array):
    return np.asarray(feeding.as_array(array))


def _checked_images(argument, images, hint=""):
    """Return images that can be drawn."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        expected = "images of shape (samples, height, width, 1 or 3)"
        raise invalid(argument, expected, images.shape, hint)
    return images
