"""Look for the threshold at which a metric is best over a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _showing
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable.metrics import _registry
from keras_explainable.metrics._stateful import class_of

_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 17))


@keras.saving.register_keras_serializable("keras_explainable")
class ThresholdSweep(keras.metrics.Metric):
    """A metric of explanations at several thresholds, of which the best is reported.

    Args:
        metric: name of a metric with an option `threshold`, such as "segmentation_iou".
        thresholds: non-empty sequence of numbers. Defaults to 0.05, 0.1, ..., 0.8.
        name: name of the metric. Defaults to `"best_"` and that of the metric swept.
        dtype: dtype of the state. Defaults to "float32".
        **options: further arguments of the class of the metric.

    Raises:
        TypeError: if there is no such option.
        ValueError: if the metric has no threshold, or no mean over classes (`average=None`).

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> sweep = ke.metrics.ThresholdSweep("segmentation_iou", thresholds=(0.2, 0.5, 0.8))
        >>> maps = np.array([0.9, 0.6, 0.3, 0.1]).reshape(1, 2, 2, 1)
        >>> sweep.update_state(maps, np.array([[[1, 1], [0, 0]]]))
        >>> {key: round(float(value), 2) for key, value in sweep.result().items()}
        {'segmentation_iou': 1.0, 'threshold': 0.5}
    """

    def __init__(
        self,
        metric: str,
        thresholds: Sequence[float] = _THRESHOLDS,
        name: str | None = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        known = _registry.registration(metric)
        if "threshold" not in [option.name for option in known.options]:
            raise invalid("metric", "a metric with an option `threshold`", repr(metric))
        if options.get("average", "weighted") is None:
            raise invalid("average", "a mean over classes", "None")
        self._check(thresholds)
        super().__init__(name=name or f"best_{metric}", dtype=dtype)
        self.metric = metric
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        self.options = options
        made = class_of(metric)
        self.members = [made(threshold=t, dtype=dtype, **options) for t in self.thresholds]

    def __repr__(self):
        """Tell what is swept."""
        least, most = min(self.thresholds), max(self.thresholds)
        swept = f"{len(self.thresholds)} thresholds from {least:g} to {most:g}"
        return _showing.line(self, f"name={self.name}", f"{self.metric} at {swept}", **self.options)

    @staticmethod
    def _check(thresholds):
        if not np.iterable(thresholds) or isinstance(thresholds, str) or len(thresholds) == 0:
            raise invalid("thresholds", "a non-empty sequence of numbers", repr(thresholds))
        for threshold in thresholds:
            number("thresholds", threshold)

    def update_state(self, *arguments: Any, **named: Any) -> None:
        """Add a batch: what the metric that is swept takes."""
        for member in self.members:
            member.update_state(*arguments, **named)

    def results(self) -> tf.Tensor:
        """Return the value at each threshold, float `(thresholds,)`."""
        return tf.stack([member.result() for member in self.members])

    def result(self) -> dict[str, tf.Tensor]:
        """Return a dict of the best value, by the name of the metric, and its "threshold".

        Of equal values the first counts.
        """
        values = self.results()
        lower = _registry.registration(self.metric).higher_is_better is False
        best = tf.math.top_k(-values if lower else values, 1).indices[0]
        thresholds = tf.constant(self.thresholds, values.dtype)
        return {self.metric: tf.gather(values, best), "threshold": tf.gather(thresholds, best)}

    def reset_state(self) -> None:
        """Forget what was added."""
        for member in self.members:
            member.reset_state()

    def get_config(self) -> dict[str, Any]:
        """Return what the metric is made from."""
        own = {"metric": self.metric, "thresholds": list(self.thresholds)}
        return {**super().get_config(), **own, **self.options}
