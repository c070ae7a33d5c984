"""Metrics of explanations as `keras.metrics.Metric`s."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _showing
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import positive_integer
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Metric
from keras_explainable._typing import Output
from keras_explainable.metrics import _arguments
from keras_explainable.metrics import _computing
from keras_explainable.metrics import _registry

AVERAGES = ("weighted", "macro", None)


class ExplanationMetric(keras.metrics.Metric):
    """A metric of explanations over batches; each registered metric has a class of its own.

    `update_state` takes what the function of the metric takes, `ke.metrics.average_drop(model, x,
    maps)` as `AverageDrop().update_state(model, x, maps)`, also within a compiled function and on
    the replicas of a `tf.distribute` strategy.

    Args:
        average: "weighted", the mean over all explained pairs, in which classes weigh what they
            occur; "macro", the mean over classes that occur; `None` for a value per class, NaN for
            those that don't occur. Defaults to "weighted".
        num_classes: number of classes, where neither the model nor the maps tell.
        name: name of the metric. Defaults to the one that it is registered by.
        dtype: dtype of the state. Defaults to "float32".
        **options: options of the function of the metric.

    Raises:
        TypeError: if there is no such option.
        ValueError: if `average` is none of these.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> metric = ke.metrics.Sparseness(average="macro")
        >>> metric.update_state(np.eye(4).reshape(1, 4, 4, 1))
        >>> round(float(metric.result()), 3)
        0.75
    """

    registration: Any = None

    def __init__(
        self,
        *,
        average: str | None = "weighted",
        num_classes: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        if self.registration is None:
            raise TypeError("Make a metric by its class, or by `ke.metrics.get(name)`.")
        self.registration.check_options(options)
        if average not in AVERAGES:
            raise invalid("average", f"one of {AVERAGES}", repr(average))
        super().__init__(name=name or self.registration.name, dtype=dtype)
        self.average = average
        self.num_classes = (
            None if num_classes is None else positive_integer("num_classes", num_classes)
        )
        self.options = options
        self.total: Any = None
        self.count: Any = None

    def __repr__(self):
        """Tell the name, and the options that are no defaults."""
        own = {"average": self.average, "num_classes": self.num_classes}
        own = _showing.changed(ExplanationMetric.__init__, own) | self.options
        return _showing.line(self, f"name={self.name}", **own)

    @property
    def higher_is_better(self) -> bool | None:
        """Direction of the metric."""
        return self.registration.higher_is_better

    def update_state(
        self,
        *arguments: Any,
        sample_weight: ArrayLike | None = None,
        output: Output = None,
        **named: Any,
    ) -> None:
        """Add a batch.

        Args:
            *arguments: what the function of the metric takes.
            sample_weight: one number per sample, or `None` for 1.
            output: which output of the model is explained, see `inspection.expose`.
            **named: what the function of the metric takes, by name.

        Raises:
            TypeError: as the function of the metric.
            ValueError: as the function of the metric.
        """
        known = self.registration
        names = [p.name for p in known.arguments if p.kind is p.POSITIONAL_OR_KEYWORD]
        if len(arguments) > len(names):
            raise TypeError(f"{known.name!r} takes {', '.join(names)}, and got {len(arguments)}.")
        given = dict(zip(names, arguments, strict=False))
        twice = sorted({*given} & {*named})
        missing = [p.name for p in known.arguments if p.default is p.empty]
        missing = [name for name in missing if name not in given and name not in named]
        unknown = sorted({*named} - {p.name for p in known.arguments})
        if twice or missing or unknown:
            expected = ", ".join(p.name for p in known.arguments)
            raise mistyped(
                ", ".join(twice or missing or unknown), f"the arguments {expected}", None
            )
        computation = _computing.Computation(known, self.options, given | named, output)
        check = _arguments.shaped if tf.inside_function() else computation.checked
        data = check({n: a for n, a in (given | named).items() if n not in ("model", "explain")})
        self._add(computation.run(data), data.get("indices"), computation.exposed, sample_weight)

    def _add(self, scores, indices, exposed, sample_weight):
        """Add scores to the sums of their classes."""
        values, weights, _, classes = scores
        if values.shape.rank == weights.shape.rank + 1:
            weights = tf.repeat(weights[..., None], values.shape[-1], axis=-1)
        if values.shape.rank == 2:
            values, weights = values[..., None], weights[..., None]
        if sample_weight is not None:
            sample_weight = tf.reshape(tf.cast(sample_weight, weights.dtype), (-1, 1, 1))
            weights *= sample_weight
        num_parts = values.shape[-1]
        if classes is None:
            columns = tf.range(tf.shape(values)[1])[None] + tf.zeros_like(values[..., 0], tf.int32)
            classes = columns if indices is None else tf.cast(indices, tf.int32)
        if self.total is None:
            told = indices if scores.classes is None else None
            shape = self._num_buckets(values, told, exposed), num_parts
            self.total = self.add_variable(shape, "zeros", name="total")
            self.count = self.add_variable(shape, "zeros", name="count")
        buckets = self.total.shape[0]
        rows = tf.reshape(classes if buckets > 1 else tf.zeros_like(classes), [-1])
        for state, summand in ((self.total, values * weights), (self.count, weights)):
            summand = tf.cast(tf.reshape(summand, (-1, num_parts)), state.dtype)
            state.assign_add(tf.math.unsorted_segment_sum(summand, rows, buckets))

    def _num_buckets(self, values, indices, exposed):
        """Return the number of classes that are told apart."""
        known = self.registration
        if not known.per_class or (self.average == "weighted" and known.combine is None):
            return 1
        if exposed is not None:
            return exposed.outputs[0].shape[-1]
        if self.num_classes is not None:
            return self.num_classes
        if indices is None:
            return values.shape[1]
        expected = "the number of classes, where maps are those of `indices`"
        raise invalid("num_classes", expected, None)

    def result(self) -> tf.Tensor:
        """Return the mean, float `()`, or with `average=None` `(classes,)`."""
        if self.total is None:
            return tf.zeros(())
        total, count = tf.convert_to_tensor(self.total), tf.convert_to_tensor(self.count)
        means = tf.math.divide_no_nan(total, count)
        values, count = _computing.combined(self.registration, means, count)
        if self.registration.combine is None:
            values, count = values[:, 0], count[:, 0]
        return averaged(values, count, self.average)

    def reset_state(self) -> None:
        """Forget what was added."""
        for state in (self.total, self.count):
            if state is not None:
                state.assign(tf.zeros_like(state))

    def get_config(self) -> dict[str, Any]:
        """Return what the metric is made from."""
        return {
            **super().get_config(),
            "average": self.average,
            "num_classes": self.num_classes,
            **self.options,
        }


def averaged(values, count, average):
    """Reduce values of classes.

    Args:
        values: tensor `(..., classes)`.
        count: tensor `(..., classes)`, the weight of each; 0 where a class doesn't occur.
        average: one of `AVERAGES`.

    Returns:
        tensor `(...)`, or `(..., classes)` for `None`.
    """
    occurs = tf.cast(count > 0, values.dtype)
    if average is None:
        return tf.where(count > 0, values, np.nan)
    weight = occurs if average == "macro" else count
    return tf.math.divide_no_nan(tf.reduce_sum(values * weight, -1), tf.reduce_sum(weight, -1))


@functools.cache
def class_of(name: str) -> type[ExplanationMetric]:
    """Return the class of a registered metric.

    Args:
        name: name of the metric.

    Returns:
        subclass of `ExplanationMetric`, which Keras can serialize.
    """
    known = _registry.registration(name)
    metaclass: Any = type(ExplanationMetric)
    text = (
        f"`{name}` over batches, see there for its arguments and options, and "
        "`ExplanationMetric` for the others."
    )
    made = metaclass(
        known.class_name,
        (ExplanationMetric,),
        {"registration": known, "__doc__": text, "__module__": "keras_explainable.metrics"},
    )
    return keras.saving.register_keras_serializable("keras_explainable")(made)


def get(identifier: Metric | dict[str, Any]) -> ExplanationMetric:
    """Resolve a metric.

    Args:
        identifier: name of a metric, "average_drop", or of its class, "AverageDrop"; its class; an
            instance; or what `keras.saving.serialize_keras_object` made of one.

    Returns:
        an `ExplanationMetric`.

    Raises:
        TypeError: if it is something else.
        ValueError: if no metric has that name.

    Example:
        >>> import keras_explainable as ke
        >>> ke.metrics.get("average_drop").get_config()["average"]
        'weighted'
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, ExplanationMetric):
        return identifier
    if isinstance(identifier, str):
        names = {_registry.registration(n).class_name: n for n in _registry.names()}
        return class_of(names.get(identifier, identifier))()
    if isinstance(identifier, type) and issubclass(identifier, ExplanationMetric):
        return identifier()
    if inspect.isfunction(identifier) and identifier.__name__ in _registry.names():
        return class_of(identifier.__name__)()
    raise mistyped("metric", "the name of a metric, or a metric", identifier)
