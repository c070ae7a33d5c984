"""Metrics of explanations among the logs of `keras.Model.fit`."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_explainable import _showing
from keras_explainable._checks import invalid
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Data
from keras_explainable._typing import Methods
from keras_explainable._typing import Metrics
from keras_explainable._typing import Units
from keras_explainable.evaluation._stepping import NotFinite
from keras_explainable.evaluation.evaluating import Comparison
from keras_explainable.evaluation.table import Evaluation


class Evaluate(keras.callbacks.Callback):
    """Evaluate explanations after epochs of `fit`, and add the values to `logs`.

    Callbacks that come after this one in the list find them there, as `EarlyStopping`,
    `ModelCheckpoint` and `CSVLogger` do; `History` and the progress bar, which Keras appends, too.
    Names are `"val_average_drop"` with one method, and `"val_gradcam_average_drop"` with several.
    Keras doesn't know what is better: pass `mode=callback.modes[name]` to what monitors a value.

    Where there is nothing to measure, as where a model detects nothing yet, or its loss or maps are
    no numbers any more, the value is the worst one, infinity or minus infinity, since some monitors
    keep a NaN as the best; of a metric without a direction it is NaN, as it is in `evaluation`.

    The steps are compiled, and tried with the first batch, before the first epoch, or after the
    first batch of a model that isn't built before.

    Args:
        x: validation data, as for `ke.evaluate`: arrays, or a data set of batches.
        y: units explained, as for `ke.evaluate`. Defaults to what the model detects.
        methods: as for `ke.evaluate`.
        metrics: as for `ke.evaluate`.
        every: number of epochs from one evaluation to the next: epochs 0, `every`, `2 * every`, and
            always the first of a fit. In the others the last values stay in `logs`. The `patience`
            of `EarlyStopping` counts epochs, those among them: with `every=5` it is 15 for three
            evaluations. Defaults to 1.
        prefix: what names begin with. Defaults to `"val_"`.
        num_resamples: as for `ke.evaluate`; `logs` have no intervals. Defaults to 0.
        **options: further arguments of `ke.evaluate`, such as `masks` and `batch_size`, but for
            `path` and `verbose`.

    Attributes:
        names: dict from pairs of a method and a metric, by their labels, to the name in `logs`.
        modes: dict from names to "max" where higher is better, "min" where lower is, and `None`.
        evaluation: the last `Evaluation`, or `None`.

    Raises:
        TypeError: as `ke.evaluate`.
        ValueError: as `ke.evaluate`, if names are not distinct, or if `logs` have one of them.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3),
        ...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.random.default_rng(0).normal(size=(4, 8, 8, 1)), np.ones((4, 3))
        >>> callback = ke.callbacks.Evaluate(x, [2] * 4, methods="gradcam", metrics="sparseness")
        >>> history = model.fit(x, y, verbose=0, callbacks=[callback])
        >>> sorted(history.history), callback.modes
        (['loss', 'val_sparseness'], {'val_sparseness': 'max'})
    """

    def __init__(
        self,
        x: Data,
        y: Units = None,
        *,
        methods: Methods,
        metrics: Metrics,
        every: int = 1,
        prefix: str = "val_",
        num_resamples: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.every = positive_integer("every", every)
        self._comparison = Comparison(
            x, y, methods=methods, metrics=metrics, num_resamples=num_resamples, **options
        )
        chosen, judged = self._comparison.chosen, self._comparison.judged
        self.names = {
            (method, metric): f"{prefix}{metric}"
            if len(chosen) == 1
            else f"{prefix}{method}_{metric}"
            for method in chosen
            for metric in judged
        }
        names = list(self.names.values())
        if len({"loss", "val_loss", *names}) < len(names) + 2:
            expected = "labels of methods and metrics that make names of their own"
            raise invalid("metrics", expected, names)
        modes = {True: "max", False: "min"}
        self.modes = {
            name: modes.get(judged[metric].higher_is_better)
            for (_, metric), name in self.names.items()
        }
        self.evaluation: Evaluation | None = None
        self._prepared = False
        self._values: Any = None

    def __repr__(self):
        """Tell what is put among the logs."""
        return _showing.line(self, ", ".join(self.names.values()), every=self.every)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make the steps for the model."""
        del logs
        self._prepared, self._values = False, None
        if self.model.built:
            self._prepare()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Make the steps for a model that was not built before."""
        del batch, logs
        if not self._prepared:
            self._prepare()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add values to `logs`, new ones if it is the turn of that epoch."""
        logs = {} if logs is None else logs
        taken = sorted(set(self.modes) & set(logs))
        if taken:
            hint = "Choose another `prefix`."
            raise invalid("prefix", "names that `logs` don't have", taken, hint)
        if not math.isfinite(logs.get("loss", 0.0)):
            self._values = {name: self._worst(name) for name in self.modes}
        elif self._values is None or epoch % self.every == 0:
            self._values = self._evaluated()
        logs.update(self._values)

    def _evaluated(self):
        """Return the values of the model as it is."""
        try:
            self.evaluation = self._comparison.run(self.model, verbose=0)
        except NotFinite:
            return {name: self._worst(name) for name in self.modes}
        return {
            name: self._monitored(name, self.evaluation.value(*pair))
            for pair, name in self.names.items()
        }

    def _prepare(self):
        self._comparison.prepare(self.model)
        self._comparison.try_out(self.model)
        self._prepared = True

    def _monitored(self, name, value):
        return self._worst(name) if math.isnan(value) else value

    def _worst(self, name):
        return {"max": -math.inf, "min": math.inf}.get(self.modes[name], math.nan)
