"""Run an explaining method over data: compiled, batched, distributed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Literal
from typing import NoReturn
from typing import overload

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import _compat
from keras_explainable import _showing
from keras_explainable import filters
from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import meant
from keras_explainable._checks import mistyped
from keras_explainable._checks import positive_integer
from keras_explainable._checks import renamed
from keras_explainable._identity import fingerprint
from keras_explainable._identity import told
from keras_explainable._keeping import Kept
from keras_explainable._keeping import frozen
from keras_explainable._typing import Arrays
from keras_explainable._typing import Data
from keras_explainable._typing import Filter
from keras_explainable._typing import Inputs
from keras_explainable._typing import Layers
from keras_explainable._typing import Method
from keras_explainable._typing import Output
from keras_explainable._typing import PathLike
from keras_explainable._typing import Reshape
from keras_explainable._typing import Resizing
from keras_explainable._typing import Units
from keras_explainable._typing import Verbose
from keras_explainable.engine import storing
from keras_explainable.engine._batching import Loaded
from keras_explainable.engine._batching import Slices
from keras_explainable.engine._batching import Streamed
from keras_explainable.engine._batching import check_shared
from keras_explainable.engine._batching import filled
from keras_explainable.engine._batching import is_chief
from keras_explainable.engine._batching import multiple
from keras_explainable.engine._batching import no_batches
from keras_explainable.engine._batching import num_rows
from keras_explainable.engine._batching import shared_out
from keras_explainable.engine._batching import trimmed
from keras_explainable.engine._batching import wait_for_workers
from keras_explainable.engine._listening import listened
from keras_explainable.engine._progress import Progress
from keras_explainable.inspection import feeding
from keras_explainable.methods import _registry
from keras_explainable.methods._units import limited

# Explainers kept per model, so that a second call with the same options finds its compiled step.
_explainers = Kept(64)


class Explainer(keras.Model):
    """A method made ready for one model; it keeps the compiled step from call to call.

    Args:
        method: name of a method, or a function `(model, inputs, indices, ...) -> (logits, maps)`.
        model: `keras.Model`, as trained. It is left exactly as found.
        layer: endpoint of the activations, see `inspection.expose`. Defaults to the last spatial
            activation. Methods of the gradient and attention families take none.
        output: which output of the model is explained, as `outputs` in `inspection.expose`, or a
            function of the outputs or target, see `targets`.
        postprocessing: filter of the maps: its name, a function from maps to maps, `None` for raw
            maps, or "auto" for the default of the method.
        resizing: `True` resizes maps to the input, `False` leaves them at the size of the
            activations; sizes such as `(height, width)`, or one integer for all axes, are another
            choice.
        reshape: how tokens are arranged as an image, see `inspection.expose`. Defaults to the grid
            of the patch embedding.
        run_eagerly: run without compiling, for debugging. Defaults to False.
        jit_compile: compile with XLA. Defaults to False.
        max_bytes: memory for what is explained side by side, as in `explain`.
        inputs: batch of inputs, needed only for a subclassed model whose input shape Keras doesn't
            know.
        **options: keyword arguments of the method, the same for all samples.

    Raises:
        TypeError: if the method doesn't take one of the options.
        ValueError: as `inspection.expose`, and for an unknown method or filter.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> explainer = ke.Explainer("gradcam", model)
        >>> logits, maps = explainer.explain(np.ones((3, 64, 64, 3)), "argmax")
        >>> maps.shape
        (3, 64, 64, 1)
    """

    # Whether one trace of the step serves shapes that differ in any size.
    reduces_retracing = True
    predict_function: Any  # Keras sets it.

    def __init__(
        self,
        method: Method,
        model: keras.Model,
        *,
        layer: Layers = None,
        output: Output = None,
        postprocessing: Filter = "auto",
        resizing: Resizing = True,
        reshape: Reshape = None,
        run_eagerly: bool = False,
        jit_compile: bool = False,
        max_bytes: int | None = None,
        inputs: Inputs | None = None,
        **options: Any,
    ) -> None:
        registration = _registry.registration(method)
        if not isinstance(model, keras.Model):
            raise mistyped("model", "a `keras.Model`", model)
        given = {
            "layer": layer,
            "output": output,
            "postprocessing": postprocessing,
            "resizing": resizing,
            "reshape": reshape,
            "run_eagerly": run_eagerly,
            "jit_compile": jit_compile,
            "max_bytes": max_bytes,
        }
        own = _showing.changed(registration.options, options)
        given = own | _showing.changed(Explainer.__init__, given)
        of = f"of {_showing.shown(registration.method)} for {model.name!r}"
        if isinstance(postprocessing, str) and postprocessing == "auto":
            is_raw = any(options.get(name) for name in registration.raw_options)
            postprocessing = None if is_raw else registration.postprocessing
        filter_maps = filters.get(postprocessing)
        sizes = filters.checked_sizes(resizing)
        if max_bytes is not None:
            positive_integer("max_bytes", max_bytes)
        _check_options(registration, options)
        with model.distribute_strategy.scope():
            super().__init__(name=f"{model.name}_explainer")
            kept = {n: options.pop(n) for n in registration.expose_options if n in options}
            self.exposed = _expose(registration, model, layer, output, inputs, reshape, kept)
        # A text, as Keras would track the layers among the arguments.
        self._said = _showing.line(self, of, **given)
        self.target = output if isinstance(output, inspection.Target) else None
        identified = {**given, "postprocessing": filter_maps}
        for name in ("run_eagerly", "layer"):  # The exposed model tells the layer.
            identified.pop(name, None)
        # Held by a function, for the same reason.
        self._identified = lambda: identified
        self.method = functools.partial(registration.method, **options)
        self._max_bytes = max_bytes
        self.sample_options = registration.sample_options
        self.postprocessing = filter_maps
        # Maps of gradient methods are born at the size of the input.
        self.sizes = False if sizes is True and registration.family == "gradient" else sizes
        self.run_eagerly = run_eagerly
        # Keras' own `jit_compile` compiles the replicas of some versions into one program.
        self.jit_compile = False
        self._explain_batch = self._explain_eagerly
        if jit_compile and not run_eagerly:
            self._explain_batch = tf.function(
                self._explain_eagerly, jit_compile=True, autograph=False, reduce_retracing=True
            )
        self.built = True

    def __repr__(self):
        """Tell what is explained, by which method, and the options that are no defaults."""
        return getattr(self, "_said", None) or super().__repr__()

    @property
    def num_units(self) -> int:
        """Number of units of the explained output."""
        return self.exposed.outputs[0].shape[-1]

    @overload
    def explain(
        self, x: Data, y: Units = None, *, path: PathLike, **arguments: Any
    ) -> storing.Store: ...

    @overload
    def explain(
        self,
        x: Data,
        y: Units = None,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        verbose: Verbose = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        target: inspection.Target | None = None,
        path: None = None,
        dtype: str = "float32",
        shard: None = None,
        **options: Any,
    ) -> Arrays: ...

    def explain(
        self,
        x: Data,
        y: Units = None,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        verbose: Verbose = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        target: inspection.Target | None = None,
        path: PathLike | None = None,
        dtype: str = "float32",
        shard: tuple[int, int] | None = None,
        **options: Any,
    ) -> Arrays | storing.Store:
        """Explain data.

        Args:
            x: what `keras.Model.predict` takes: array, tensor, list or dict of them (several
                inputs), `tf.data.Dataset` of batches of `x` or `(x, y)`, `keras.utils.PyDataset`.
            y: units explained: `None` (every unit, or those that the data set yields), an integer
                (the same for all samples), integers `(batch,)` or `(batch, n)`, or "argmax".
            batch_size: samples per step, for arrays. Defaults to 32.
            steps: number of batches to explain. Defaults to all.
            verbose: 0 for silence, 1 for a progress bar with images per second and the time that
                is left, 2 for a line at the end. "auto" shows a bar when there are several batches.
            callbacks: list of `keras.callbacks.Callback`, called as in `keras.Model.predict`.
            target: target like `output`, with other data. Defaults to `output` itself.
            path: file to write to, as in `explain`.
            dtype: in what type maps are written, as in `explain`.
            shard: number of the shard that is written, and number of shards, as in `explain`.
            **options: options of the method with one row per sample, such as `detections`.

        Returns:
            a `Store`, where there is a `path`; otherwise

            logits: float32 array `(samples, n)`, before any activation.
            maps: float32 array `(samples, *positions, n)`, such as `(samples, height, width, n)`,
                or a list or dict of them for a gradient method on several inputs.

        Raises:
            ValueError: if `x` doesn't fit the model, `y` doesn't fit `x` or is out of range, or
                there are no samples.
            TypeError: if an argument has a wrong type.
        """
        if steps is not None and (not _is_integer(steps) or steps < 1):
            raise invalid("steps", "a positive integer or `None`", repr(steps))
        shard = _checked_shard(shard, path)
        if path is None and dtype != "float32":
            raise invalid("dtype", "the default where there is no `path`", repr(dtype))
        target = self._checked_target(target)
        if verbose not in ("auto", 0, 1, 2):
            raise invalid("verbose", '"auto", 0, 1 or 2', repr(verbose))
        source = self._source(x, y, batch_size, options, target)
        num_batches = source.num_batches
        if steps is not None:
            num_batches = steps if num_batches is None else min(steps, num_batches)
        if path is not None:
            return self._stored(path, dtype, source, num_batches, verbose, callbacks, shard)
        parts = list(self._explained(source, num_batches, verbose, callbacks))
        if not parts:
            raise no_batches()
        if len(parts) == 1:
            return parts[0]
        return keras.tree.map_structure(_joined, *parts)

    def warm_up(
        self,
        x: Data,
        y: Units = None,
        *,
        batch_size: int | None = None,
        target: inspection.Target | None = None,
        **options: Any,
    ) -> Explainer:
        """Compile the step for data of some form, so that the first explanation doesn't wait.

        It runs one batch. Data of other sizes, or another number of units, compile again.

        Args:
            x: data like those that will be explained, as for `explain`; the first batch counts.
            y: units explained, as for `explain`: how many of each sample counts.
            batch_size: samples per step, as for `explain`.
            target: as for `explain`.
            **options: as for `explain`.

        Returns:
            the explainer itself.

        Raises:
            ValueError: as `explain`.
            TypeError: as `explain`.

        Example:
            >>> import keras, numpy as np, keras_explainable as ke
            >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
            >>> explainer = ke.Explainer("gradcam", model).warm_up(np.ones((8, 64, 64, 3)), 0)
        """
        source = self._source(x, y, batch_size, options, self._checked_target(target))
        self._run(source.first())
        return self

    def _stored(self, path, dtype, source, num_batches, verbose, callbacks, shard):
        """Write logits and maps to a store, which goes on where it was."""
        strategy = self.distribute_strategy
        identity = self._identity(source, num_batches, shard)
        if shard is not None and num_batches is not None:
            if shard[1] > num_batches:
                raise invalid("shard", f"{num_batches} shards at most, one per batch", shard)
            num_batches = len(range(shard[0], num_batches, shard[1]))
        is_first = is_chief(strategy)
        if not is_first:
            wait_for_workers(strategy)  # The first one removes what can't be used.
        try:
            writer = storing.Writer(path, dtype, identity, not is_first, shard)
        finally:
            if is_first:
                wait_for_workers(strategy)
        if not writer.is_complete:
            with writer:
                missing = writer.missing(), *(shard or (0, 1))
                for logits, maps in self._explained(
                    source, num_batches, verbose, callbacks, *missing
                ):
                    writer.append(logits, maps)
            if self.stop_predicting and writer.num_batches != num_batches:
                found = f"A callback stopped after {writer.num_batches} batches of {path}"
                raise RuntimeError(f"{found}, which are kept. The same call goes on from there.")
            writer.finish()
            wait_for_workers(strategy)
        return storing.Store(writer.path)

    def _explained(
        self, source, num_batches, verbose, callbacks, ranges=((0, None),), index=0, count=1
    ):
        """Yield the logits and maps of batches, of some ranges of a shard, as `predict` does."""
        if verbose == "auto" and num_batches == 1:
            verbose = 0
        callbacks = keras.callbacks.CallbackList(
            callbacks,
            add_progbar=False,
            verbose=verbose,
            epochs=1,
            steps=num_batches,
            model=self,
        )
        self.stop_predicting = False

        def counted(batches):
            """Return the samples of the first batches of the shard, `None` where it is unknown."""
            return None if batches is None else source.num_samples(index, batches * count, count)

        progress = Progress(verbose, num_batches, counted(num_batches), self._noun)
        callbacks.on_predict_begin()
        size = source.size
        try:
            ends = [(first, num_batches if stop is None else stop) for first, stop in ranges]
            ends = [(first, stop) for first, stop in ends if stop is None or first < stop]
            for step, batch in source.batches(ends, index, count):
                callbacks.on_predict_batch_begin(step)
                size = size or num_rows(batch)
                # What is computed of a batch, to the bit, mustn't depend on those before.
                outputs = self._run(filled(batch, size))
                callbacks.on_predict_batch_end(step, {"outputs": outputs})
                logits, maps = trimmed(outputs)
                yield logits, maps
                progress.add(len(logits), step + 1, counted(step + 1))
                if self.stop_predicting:
                    break
            progress.finish()
        finally:
            progress.close()
        callbacks.on_predict_end()

    @property
    def _noun(self):
        """What samples are called where they are counted."""
        shown = keras.tree.flatten(self.exposed.own_inputs)[self.exposed.input_index]
        return "images" if len(shown.shape) == 4 else "samples"

    def _run(self, batch):
        """Run the step on one batch, on all replicas."""
        return self.predict_on_batch(shared_out(batch, self.distribute_strategy))

    def export(self, filepath: PathLike, y: Literal["argmax"] | None = None) -> None:
        """Export a SavedModel that explains, and is served without this library.

        It answers with a dict of "logits" and "maps", as `explain` returns them; where units are
        chosen, also of "units", int32 `(batch, n)`, those that are explained.

        Args:
            filepath: folder that is written.
            y: units explained: `None` for every unit, or "argmax".

        Raises:
            ValueError: if `y` is something else, or the target has data, which are not served.
        """
        if y is not None and y != "argmax":
            raise invalid("y", '`None` or "argmax"', repr(y))
        if self.target is not None and self.target.data:
            raise invalid("output", "a target without data", self.target)

        def served(inputs):
            if y is None:
                return self._explain_eagerly({"inputs": inputs})
            heard = listened(self, {"inputs": inputs, y: True}, self.exposed)
            return self._finished(heard.inputs, *heard.returned) | {"units": heard.units}

        own, kinds = self.exposed.own_inputs, []
        for i, tensor in enumerate(keras.tree.flatten(own)):
            batch, *sizes, channels = tensor.shape
            first = i in self.exposed.channels_first
            shape = (batch, channels, *sizes) if first else tensor.shape
            kinds.append(tf.TensorSpec(shape, tensor.dtype, tensor.name))
        archive = keras.export.ExportArchive()
        for part in (self.exposed, self.exposed.guide):
            if part is not None:
                archive.track(part)
        archive.add_endpoint("serve", served, [keras.tree.pack_sequence_as(own, kinds)])
        archive.write_out(filepath)

    def predict_step(self, data: Any) -> dict[str, Any]:
        """Explain one batch: the hook that Keras compiles and distributes."""
        data, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if not isinstance(data, dict) or "inputs" not in data:
            raise TypeError("An `Explainer` explains data with `explainer.explain(x, y)`.")
        outputs = self._explain_batch({k: v for k, v in data.items() if k != "valid"})
        return outputs | ({"valid": tf.convert_to_tensor(data["valid"])} if "valid" in data else {})

    def run_batch(self, data: dict[str, Any], size: int | None = None) -> dict[str, Any]:
        """Run the step on one batch, on all replicas.

        Args:
            data: dict with "inputs", and "indices" or "argmax", in the form that the step takes.
            size: number of samples that a smaller batch is filled up to. Defaults to none.

        Returns:
            dict of what the step returns, and "valid", 0 for samples that fill the batch up.
        """
        size = max(size or 1, len(keras.tree.flatten(data["inputs"])[0]))
        batches = Slices(data, None, self.distribute_strategy.num_replicas_in_sync, size)
        return self._run(batches[0])

    def _explain_eagerly(self, data):
        inputs, indices = self._given(data)
        returned = self._apply(self.exposed, inputs, indices, data.get("options", {}))
        return self._finished(inputs, *returned)

    def _apply(self, model, inputs, indices, options):
        """Run the method on tensors, within the memory that it may take."""
        with limited(self._max_bytes):
            return self.method(model, inputs, indices, **options)

    def _finished(self, inputs, logits, maps):
        """Return what a method returned, in the form that it leaves the step."""
        shown = keras.tree.flatten(inputs)[self.exposed.input_index]
        return {
            "logits": tf.cast(logits, tf.float32),
            "maps": keras.tree.map_structure(lambda m: self._finish(m, shown), maps),
        }

    def _given(self, data):
        """Return the inputs of the exposed model and the units explained of a batch."""
        inputs = feeding.accepted(self.exposed, data["inputs"])
        target_data = [tf.convert_to_tensor(array) for array in data.get("target", ())]
        indices = "argmax" if "argmax" in data else data.get("indices")
        return inspection.with_data(inputs, target_data), indices

    def call(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to be called: explaining takes more than a call."""
        raise TypeError("An `Explainer` explains data with `explainer.explain(x, y)`.")

    def make_predict_function(self, force: bool = False) -> Callable:
        """Make the step, which TensorFlow is to tell from the steps of other explainers.

        It counts the traces of a function by its code, which all Keras models share, and would warn
        of retracing after a handful of explainers that traced once each.
        """
        if self.predict_function is None or force:
            super().make_predict_function(force)
            if not self.run_eagerly:
                step = functools.partial(self.predict_function.python_function)
                self.predict_function = tf.function(step, reduce_retracing=self.reduces_retracing)
        return self.predict_function

    def _finish(self, maps, shown):
        """Filter and resize maps; `shown` is the input whose size they take."""
        maps = tf.cast(maps, tf.float32)
        if maps.shape.rank == 2:
            return maps  # One value per unit, such as an error, is no map.
        return self._resized(self._filtered(maps), shown)

    def _filtered(self, raw):
        maps = tf.convert_to_tensor(self.postprocessing(raw))
        if maps.shape.rank != raw.shape.rank:
            expected = f"a function that keeps the axes of maps {tuple(raw.shape)}"
            raise invalid("postprocessing", expected, f"maps {tuple(maps.shape)}")
        return maps

    def _resized(self, maps, shown):
        if self.sizes is False or (self.sizes is True and shown.shape.rank != maps.shape.rank):
            return maps
        if self.sizes is True:
            return filters.resize(maps, _axes.sizes(shown)[1:-1])
        if not isinstance(self.sizes, int):
            return filters.resize(maps, self.sizes)
        # Channels that were kept, which come after the positions, are no axis to resize.
        kept = maps.shape.rank == shown.shape.rank + 1 > 3
        return filters.resize(maps, (self.sizes,) * (maps.shape.rank - 2 - kept))

    def _checked_target(self, target):
        """Return the target that data are explained with, or refuse one of another kind."""
        if target is None:
            target = self.target
        elif self.target is None or frozen(target) != frozen(self.target):
            raise invalid("target", "a target that differs from `output` in its data", target)
        if target is not None:
            target.check(self.exposed.limits)
        return target

    def _source(self, x, y, batch_size, options, target):
        """Return data as batches in the form that the step takes."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        if isinstance(x, tf.data.Dataset):
            return Streamed(self._dataset(x, y, options, target))
        if not isinstance(x, keras.utils.PyDataset):
            return Slices(self._arrays(x, y, options, target), batch_size, replicas)
        check_shared(x, options, target)
        self._units(y, 1)
        if len(x) == 0:
            raise no_batches()

        def prepare(element):
            inputs, labels = element, None
            if isinstance(element, tuple):
                inputs, labels = element[0], element[1] if len(element) > 1 else None
            batch = self._arrays(inputs, labels if y is None else y, {}, target)
            return batch, len(keras.tree.flatten(batch["inputs"])[0])

        return Loaded(x, prepare, replicas)

    def _identity(self, source, num_batches, shard):
        """Return what tells an explanation of data from others."""
        # Names that no option has.
        options = {f"`{name}`": told(option) for name, option in self._identified().items()}
        return {
            **options,
            "method": told(self.method.func),
            "model": fingerprint(self.exposed),
            "number of batches": num_batches,
            **source.identity(whole=shard is None),
        }

    def _arrays(self, x, y, options, target=None):
        """Check arrays and bring them into the form of a batch."""
        inputs = feeding.structured(self.exposed, x)
        lengths = {len(array) for array in keras.tree.flatten(inputs)}
        if len(lengths) != 1 or lengths == {0}:
            expected = "inputs with the same number of samples, at least one"
            raise invalid("x", expected, f"{sorted(lengths)} samples")
        return self._batch(inputs, y, options, target)

    def _batch(self, inputs, y, options, target):
        num_samples = len(keras.tree.flatten(inputs)[0])
        batch = {"inputs": inputs, **self._units(y, num_samples)}
        if target is not None and target.data:
            batch["target"] = tuple(target.rows(num_samples))
        options = {name: np.asarray(o) for name, o in options.items() if o is not None}
        for name, option in options.items():
            if name not in self.sample_options:
                raise mistyped("options", f"some of {self.sample_options}", name)
            if option.shape != (num_samples, self.num_units):
                expected = f"one value for each of the {num_samples} samples and "
                expected += f"{self.num_units} units"
                raise invalid(name, expected, f"shape {option.shape}")
        return batch | ({"options": options} if options else {})

    def _units(self, y, num_samples):
        """Return what a batch holds of the explained units; every unit for none."""
        if y is None:
            return {}
        if isinstance(y, str):
            if y != "argmax":
                raise invalid("y", '`None`, an integer, integers or "argmax"', repr(y))
            return {"argmax": np.zeros((num_samples,), bool)}
        y = np.asarray(y)
        is_per_unit = y.ndim == 2 and y.shape[1] == self.num_units > 1 and y.dtype.kind in "biuf"
        if is_per_unit and set(np.unique(y)) <= {0, 1}:
            hint = "For a multi-hot array pass `y=None`, which explains every unit."
            is_one_hot = (y.sum(axis=1) == 1).all()
            if is_one_hot:
                hint = "Pass `y.argmax(-1)` for one unit of each sample, or `None` for every unit."
            received = f"a {'one' if is_one_hot else 'multi'}-hot array of type {y.dtype}"
            raise invalid("y", "indices of units", received, hint)
        if not np.issubdtype(y.dtype, np.integer):
            expected = '`None`, an integer, integers or "argmax"'
            raise TypeError(str(invalid("y", expected, f"values of type {y.dtype}")))
        if y.ndim == 0:
            y = np.full((num_samples,), y)
        if y.ndim > 2 or len(y) != num_samples:
            expected = f"units for each of the {num_samples} samples, `({num_samples},)` or "
            raise invalid("y", f"{expected}`({num_samples}, n)`", f"shape {y.shape}")
        if y.size == 0 or y.min() < 0 or y.max() >= self.num_units:
            expected = (
                f"indices from 0 to {self.num_units - 1}: the output has {self.num_units} units"
            )
            received = " to ".join(map(str, dict.fromkeys((y.min(), y.max())))) if y.size else ""
            raise invalid("y", expected, received or f"shape {y.shape}")
        return {"indices": y.astype("int32")[:, None] if y.ndim == 1 else y.astype("int32")}

    def _dataset(self, dataset, y, options, target):
        """Bring a `tf.data.Dataset` of batches into the form of batches, padded for replicas."""
        check_shared(dataset, options, target)
        constant = self._units(y, 1)
        shared = target.rows(1) if target is not None else []
        paired = isinstance(dataset.element_spec, tuple)
        self._check_batched(dataset.element_spec[0] if paired else dataset.element_spec)
        if dataset.cardinality() == 0:
            raise no_batches()

        @tf.autograph.experimental.do_not_convert
        def prepare(*element):
            batch = {"inputs": feeding.arranged(self.exposed, element[0])}
            rows = tf.shape(keras.tree.flatten(element[0])[0])[0]
            if constant:
                batch |= {k: tf.repeat(tf.constant(v), rows, axis=0) for k, v in constant.items()}
            elif paired and len(element) > 1 and y is None:
                batch["indices"] = self._checked(element[1])
            if shared:
                batch["target"] = tuple(tf.repeat(tf.constant(a), rows, axis=0) for a in shared)
            return self._pad(batch, rows)

        return dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(1)

    def _check_batched(self, specification):
        """Refuse a data set of single samples."""
        flat = keras.tree.flatten(feeding.arranged(self.exposed, specification))
        own = keras.tree.flatten(self.exposed.own_inputs)
        for element, kind in zip(flat, own, strict=False):
            if element.shape.rank is not None and element.shape.rank < len(kind.shape):
                expected = f"a data set of batches {tuple(kind.shape)}"
                hint = "Batch it with `dataset.batch(32)`."
                raise invalid("x", expected, f"elements {tuple(element.shape)}", hint)

    def _checked(self, labels):
        """Check the units that a data set yields."""
        hint = "Drop other labels with `dataset.map(lambda x, y: x)`, or pass `y`."
        is_array = isinstance(labels, tf.Tensor) and labels.shape.rank == 2
        if is_array and labels.shape[1] == self.num_units > 1:
            one_hot = "Make indices of one-hot labels with `tf.argmax(y, -1)`."
            expected = "indices of units"
            raise invalid("x", expected, "one label per unit in the data set", f"{one_hot} {hint}")
        if not isinstance(labels, tf.Tensor) or not labels.dtype.is_integer:
            found = labels.dtype.name if isinstance(labels, tf.Tensor) else type(labels).__name__
            raise invalid("x", "integer labels in the data set", found, hint)
        if labels.shape.rank not in (1, 2):
            expected = "labels of shape (batch,) or (batch, n) in the data set"
            raise invalid("x", expected, tuple(labels.shape), hint)
        message = (
            f"The output has {self.num_units} units: labels go from 0 to {self.num_units - 1}."
        )
        tf.debugging.assert_less(labels, tf.cast(self.num_units, labels.dtype), message)
        tf.debugging.assert_non_negative(labels, message)
        labels = tf.cast(labels, tf.int32)
        return labels[:, None] if labels.shape.rank == 1 else labels

    def _pad(self, batch, rows):
        """Fill a batch up, so that every replica gets the same number of samples."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        padded = tf.range(multiple(rows, replicas))
        if replicas > 1:
            taken = tf.minimum(padded, rows - 1)
            batch = keras.tree.map_structure(lambda t: tf.gather(t, taken), batch)
        return batch | {"valid": tf.cast(padded < rows, tf.int32)}


@overload
def explain(
    method: Method,
    model: keras.Model,
    x: Data,
    y: Units = None,
    *,
    path: PathLike,
    **arguments: Any,
) -> storing.Store: ...


@overload
def explain(
    method: Method,
    model: keras.Model,
    x: Data,
    y: Units = None,
    *,
    layer: Layers = None,
    output: Output = None,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: Verbose = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    postprocessing: Filter = "auto",
    resizing: Resizing = True,
    reshape: Reshape = None,
    run_eagerly: bool = False,
    jit_compile: bool = False,
    max_bytes: int | None = None,
    path: None = None,
    dtype: str = "float32",
    shard: None = None,
    **options: Any,
) -> Arrays: ...


def explain(
    method: Method,
    model: keras.Model,
    x: Data,
    y: Units = None,
    *,
    layer: Layers = None,
    output: Output = None,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: Verbose = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    postprocessing: Filter = "auto",
    resizing: Resizing = True,
    reshape: Reshape = None,
    run_eagerly: bool = False,
    jit_compile: bool = False,
    max_bytes: int | None = None,
    path: PathLike | None = None,
    dtype: str = "float32",
    shard: tuple[int, int] | None = None,
    **options: Any,
) -> Arrays | storing.Store:
    """Explain the units of a model on data.

    The first call for a model compiles a step, which calls with the same model and options reuse.

    Args:
        method: name of a method (`ke.methods.names()`), or a function
            `(model, inputs, indices, ...) -> (logits, maps)`.
        model: `keras.Model`, as trained: functional, sequential or subclassed, nested, with several
            inputs or outputs, in any dtype policy. It is left exactly as found.
        x: what `keras.Model.predict` takes: array, tensor, list or dict of them (several inputs),
            `tf.data.Dataset` of batches of `x` or `(x, y)`, `keras.utils.PyDataset`.
        y: units explained: `None` (every unit, or those that the data set yields), an integer (the
            same for all samples), integers `(samples,)` or `(samples, n)`, or "argmax".
        layer: endpoint of the activations: name, path through nested models
            ("resnet50v2/post_relu"), index, layer, `KerasTensor` or dict, see
            `ke.inspection.expose`. Defaults to the last spatial activation.
        output: which output is explained, for a model with several: index, name or endpoint.
            Defaults to the first, with a warning. Also a function from the outputs, as the model
            returns them, to `(batch, units)`, or one of `ke.targets`, whose units `y` chooses then.
            Of a model with channels first it gets the outputs with channels last.
            Keep a function in a variable, as for `postprocessing`.
        batch_size: samples per step, for arrays. Defaults to 32.
        steps: number of batches to explain. Defaults to all.
        verbose: 0 for silence, 1 for a progress bar with images per second and the time that is
            left, 2 for a line at the end. "auto" shows a bar when there are several batches.
        callbacks: list of `keras.callbacks.Callback`, called as in `keras.Model.predict`.
        postprocessing: filter of the maps: its name (`ke.filters`), a function from maps to maps,
            `None` for raw maps, or "auto" for the default of the method. Keep a function in a
            variable: a new `lambda` in every call is compiled in every call.
        resizing: `True` resizes maps to the input, `False` leaves them at the size of the
            activations; sizes such as `(height, width)`, or one integer for all axes, are another
            choice.
        reshape: how tokens are arranged as an image, see `inspection.expose`. Defaults to the grid
            of the patch embedding.
        run_eagerly: run without compiling, for debugging. Defaults to False.
        jit_compile: compile with XLA. Defaults to False.
        max_bytes: memory, in bytes, for gradients that are held side by side where there are many
            units: as many units, or positions, as fit are explained at once, one unit or two
            positions at the least. It changes time and memory, and no map but by rounding. Defaults
            to 2^24 for units and 2^30 for positions, which is fast; see the page on speed.
        path: file to write logits and maps to, such as "maps.h5", or "maps.zarr" with the package
            zarr, in place of returning arrays: memory doesn't grow with the data. A call that was
            interrupted goes on when it is made again, and gives the very same file.
        dtype: in what type maps are written: "float32", "float16" (a relative error of 2^-11 at
            most), or "uint8" (an error of 1/510 of the range of each map at most). Defaults to
            "float32".
        shard: `(index, count)`, with a `path`: explain every `count`-th batch of the data from
            `index` on, and write them to a file beside, such as "maps-00001-of-00004.h5". When all
            shards are there, written by any processes, `ke.Store(path)` reads them in the order of
            the data. Defaults to all batches, in one file.
        **options: keyword arguments of the method.

    Returns:
        a `Store`, where there is a `path`; otherwise

        logits: float32 array `(samples, n)`, before any activation.
        maps: float32 array `(samples, *positions, n)`, such as `(samples, height, width, n)`, or a
            list or dict of them for a gradient method on several inputs, or where an option of the
            method asks for more.

    Raises:
        ValueError: if `x` doesn't fit the model, `y` is out of range, an endpoint doesn't exist, or
            a name is unknown; the message says what is accepted.
        TypeError: if an argument has a wrong type, or the method doesn't take an option.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.explain("gradcam", model, np.ones((2, 64, 64, 3)), [[1, 7], [2, 9]])
        >>> logits.shape, maps.shape
        ((2, 2), (2, 64, 64, 2))
    """
    registration = _registry.registration(method)
    kept = registration.sample_options
    target = output if isinstance(output, inspection.Target) else None
    explainer = _kept_explainer(
        registration.method,
        model,
        x,
        {
            "layer": layer,
            "output": output if target is None else target.template(),
            "postprocessing": postprocessing,
            "resizing": resizing,
            "reshape": reshape,
            "run_eagerly": run_eagerly,
            "jit_compile": jit_compile,
            "max_bytes": max_bytes,
            **{name: option for name, option in options.items() if name not in kept},
        },
    )
    return explainer.explain(
        x,
        y,
        batch_size=batch_size,
        steps=steps,
        verbose=verbose,
        callbacks=callbacks,
        target=target,
        path=path,
        dtype=dtype,
        shard=shard,
        **{name: option for name, option in options.items() if name in kept},
    )


def _kept_explainer(method, model, x, arguments):
    """Return the explainer of earlier calls with the same arguments, or a new one."""
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    specification, inputs = None, None
    if not _compat.is_functional(model):
        inputs = _first_batch(x)
        specification = [(np.shape(a)[1:], str(a.dtype)) for a in keras.tree.flatten(inputs)]
    return _explainers.get(
        model,
        (method, arguments, specification),
        lambda: Explainer(method, model, inputs=inputs, **arguments),
    )


def _first_batch(x):
    """Return inputs of the form that a data source yields."""
    if isinstance(x, tf.data.Dataset):
        specification = x.element_spec
        return specification[0] if isinstance(specification, tuple) else specification
    if isinstance(x, keras.utils.PyDataset):
        element = x[0]
        return element[0] if isinstance(element, tuple) else element
    return keras.tree.map_structure(feeding.as_array, x)


def _expose(registration, model, layer, output, inputs, reshape, options):
    """Expose what the family of a method needs, with errors that name the arguments given here."""
    with renamed(arguments="layer", outputs="output"):
        return registration.exposed(model, layer, output, inputs=inputs, reshape=reshape, **options)


def _check_options(registration, options):
    """Refuse options that the method doesn't have."""
    parameters = inspect.signature(registration.method).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in registration.options]
    shared = set(inspect.signature(explain).parameters) - {"options"}
    for name in options:
        if name not in known:
            method = _showing.named(registration.method)
            said = (
                f"The method {method!r} got an unknown option {name!r}. "
                f"Its options are: {', '.join(known) or 'none'}."
            )
            raise TypeError(f"{said} {meant(name, [*known, *sorted(shared - {name})])}".rstrip())


def _joined(*parts):
    """Join what was explained of batches."""
    sizes = list(dict.fromkeys(part.shape[1:] for part in parts))
    if len(sizes) > 1:
        raise storing.unequal("maps", *sizes[:2])
    return np.concatenate(parts)


def _checked_shard(shard, path):
    """Return the number of a shard and of all of them, or refuse others."""
    if shard is None:
        return None
    is_pair = isinstance(shard, list | tuple) and len(shard) == 2 and all(map(_is_integer, shard))
    if not is_pair or not 0 <= shard[0] < shard[1]:
        raise invalid("shard", "`None`, or `(index, count)` with an index from 0 on", repr(shard))
    if path is None:
        raise invalid("shard", "`None` where there is no `path`", repr(shard))
    return tuple(map(int, shard))


def _is_integer(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
