"""Evaluate methods on data by metrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_explainable import _compat
from keras_explainable import methods as methods_module
from keras_explainable import metrics as metrics_module
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import positive_integer
from keras_explainable._checks import renamed
from keras_explainable._identity import described
from keras_explainable._identity import fingerprint
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Data
from keras_explainable._typing import Layers
from keras_explainable._typing import Methods
from keras_explainable._typing import Metrics
from keras_explainable._typing import Output
from keras_explainable._typing import PathLike
from keras_explainable._typing import Units
from keras_explainable._typing import Verbose
from keras_explainable.evaluation import _batches
from keras_explainable.evaluation._accumulating import Accumulator
from keras_explainable.evaluation._accumulating import resample_weights
from keras_explainable.evaluation._keeping import Record
from keras_explainable.evaluation._stepping import step_for
from keras_explainable.evaluation.table import ALL
from keras_explainable.evaluation.table import Evaluation
from keras_explainable.evaluation.table import Row

BACKGROUND = "background"


def evaluate(
    model: keras.Model,
    x: Data | Iterable,
    y: Units = None,
    *,
    methods: Methods,
    metrics: Metrics,
    masks: ArrayLike | None = None,
    boxes: Mapping[str, ArrayLike] | None = None,
    fixations: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    layer: Layers = None,
    output: Output = None,
    activation: Callable | None = None,
    threshold: float = 0.5,
    batch_size: int | None = None,
    class_names: Sequence[str] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    path: PathLike | None = None,
    verbose: Verbose = "auto",
) -> Evaluation:
    """Compare methods by metrics on data, which are streamed once per method.

    What is explained: the units of `y`; without them, the units predicted with a probability above
    `threshold`, or the most probable one of a model that ends in a softmax. Maps pass the default
    filter of their method, and are resized to the input. Data and passes that metrics have in
    common are shared: the metrics that mask inputs take two passes of the model per explained pair
    together.

    Intervals are those of a Poisson bootstrap over samples: the 2.5th and 97.5th percentile of the
    metric over `num_resamples` resamples of the data, the same for all methods.

    Args:
        model: `keras.Model`, as trained. Under a `tf.distribute` strategy, its replicas share each
            batch.
        x: arrays, as `keras.Model.predict` takes, or a `tf.data.Dataset` (or another iterable that
            can be gone through again, and has the same batches then) of batches `x`, `(x, y)` or
            `(x, y, more)`, with `more` a dict of "masks", "boxes", "fixations" and "labels".
        y: units explained: integers `(samples,)` or `(samples, n)`, an integer, "argmax", or an
            array `(samples, units)` of 0 and 1, such as labels; of a single unit, also such labels
            `(samples,)`. Defaults to what the model detects.
        methods: names of methods or functions, a list; or a dict from labels to them, or to pairs
            of one and a dict of arguments of `ke.Explainer`, as in
            `{"deep": ("gradcam", {"layer": "block4"})}`.
        metrics: names of metrics or `ExplanationMetric`s, a list; or a dict from labels to them.
        masks: array, what metrics of localisation compare maps with, see there.
        boxes: boxes, see there.
        fixations: array, see there.
        labels: array, see there.
        layer: endpoint of the activations for every method that takes one, see `ke.explain`.
        output: which output is explained, see `ke.explain`.
        activation: function from logits to probabilities. Defaults to the one at the end of the
            model, or to a sigmoid where it has none.
        threshold: probability above which a unit is detected. Defaults to 0.5.
        batch_size: samples per step, for arrays. Defaults to 32.
        class_names: names of the units. Defaults to their indices.
        num_resamples: number of resamples that intervals are drawn from. Defaults to 1000.
        seed: integer that the resamples are drawn from. Defaults to 0.
        path: file that keeps what is done, such as "evaluation.npz". An evaluation that was
            interrupted is called again with the same arguments, goes on from the file, and gives
            the very result that it would have given. Defaults to none.
        verbose: 0 for silence, 1 for a progress bar. "auto" shows a bar when there are several
            batches.

    Returns:
        an `Evaluation`.

    Raises:
        TypeError: if an argument has a wrong type.
        ValueError: if a name is unknown, arrays don't fit each other, a metric needs what isn't
            given, or the file is of another evaluation; before the first pass of the model.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(
        ...     weights=None, input_shape=(64, 64, 3), classes=6, classifier_activation="sigmoid")
        >>> x = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3))
        >>> table = ke.evaluate(
        ...     model, x, [0, 1, 2, 3], methods=["cam", "gradcam"], metrics=["sparseness"])
        >>> table.methods, table.value("cam", "sparseness") > 0
        (['cam', 'gradcam'], True)
    """
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    comparison = Comparison(
        x,
        y,
        methods=methods,
        metrics=metrics,
        masks=masks,
        boxes=boxes,
        fixations=fixations,
        labels=labels,
        layer=layer,
        output=output,
        activation=activation,
        threshold=threshold,
        batch_size=batch_size,
        class_names=class_names,
        num_resamples=num_resamples,
        seed=seed,
    )
    comparison.prepare(model)
    return comparison.run(model, path, verbose)


class Comparison:
    """Methods, metrics and data, made ready to evaluate a model as often as its weights change.

    It takes the arguments of `evaluate`, and checks them as far as that takes no model.

    Attributes:
        chosen: dict from labels to pairs of a method and its arguments.
        judged: dict from labels to metrics.
    """

    def __init__(
        self,
        x,
        y=None,
        *,
        methods,
        metrics,
        masks=None,
        boxes=None,
        fixations=None,
        labels=None,
        layer=None,
        output=None,
        activation=None,
        threshold=0.5,
        batch_size=None,
        class_names=None,
        num_resamples=1000,
        seed=0,
    ):
        self.chosen = _methods(methods)
        self.judged = _metrics(metrics, activation, threshold)
        num_resamples = positive_integer("num_resamples", num_resamples, least=0)
        more = {"masks": masks, "boxes": boxes, "fixations": fixations, "labels": labels}
        more = {name: value for name, value in more.items() if value is not None}
        self._source = _batches.source(x, y, more, batch_size)
        _check_needs(self.judged, self._source)
        self._shared = {"layer": layer, "output": output}
        self._judging = {"activation": activation, "threshold": threshold}
        self._resampling = num_resamples, seed
        self._class_names = class_names
        self._steps, self._names = {}, None

    def prepare(self, model):
        """Build the steps for a model, and check the rest of the arguments.

        Args:
            model: `keras.Model`, as trained.
        """
        example = None if _compat.is_functional(model) else self._source.example
        self._steps = {
            label: step_for(
                method,
                model,
                self.judged,
                **self._judging,
                **{**self._shared, "inputs": example, **arguments},
            )
            for label, (method, arguments) in self.chosen.items()
        }
        first = next(iter(self._steps.values()))
        self._source.check(first)
        self._names = _class_names(self._class_names, first.num_units)

    def try_out(self, model):
        """Evaluate the first batch, which compiles the steps, and forget what was found.

        Args:
            model: the model of `prepare`.
        """
        batch = next(iter(self._source.batches(0)))
        for step in self._steps.values():
            step.scores(model, batch, self._source.size)

    def run(self, model, path=None, verbose="auto"):
        """Evaluate the model.

        Args:
            model: the model of `prepare`.
            path: as in `evaluate`.
            verbose: as in `evaluate`.

        Returns:
            an `Evaluation`.
        """
        identity = self._identity(model, path)
        record = Record(path, identity)
        progress = _Progress(len(self._steps), self._source.num_batches, verbose)
        run = _Run(model, self.judged, self._source, record, self._resampling, progress)
        evaluated = {label: run.evaluate(label, step) for label, step in self._steps.items()}
        rows, curves = [], {}
        for label, accumulators in evaluated.items():
            for metric, accumulator in accumulators.items():
                rows += [
                    Row(label, metric, ALL if unit is None else self._names(unit), *values)
                    for unit, *values in accumulator.summary()
                ]
                curve = accumulator.curve()
                if curve is not None:
                    curves[label, metric] = curve.tolist()
        _warn_of_nothing(rows)
        judged = self.judged.items()
        return Evaluation(
            rows,
            curves,
            {label: metric.higher_is_better for label, metric in judged},
            next(iter(record.done.values()))["samples"],
            {name: identity[name] for name in ("methods", "metrics", "options")},
            {label: m.registration.curve_axis for label, m in judged if m.registration.curve_axis},
        )

    def _identity(self, model, path):
        """Return what tells this evaluation from others, for its file."""
        options = [*self._shared.values(), *self._judging.values(), *self._resampling]
        return {
            "methods": {label: described(pair) for label, pair in self.chosen.items()},
            "metrics": {
                label: [m.registration.name, described(m.get_config())]
                for label, m in self.judged.items()
            },
            "data": None if path is None else self._source.identity(),
            "model": None if path is None else fingerprint(model),
            "options": described(options),
        }


def _warn_of_nothing(rows):
    """Warn of metrics that nothing was measured by."""
    empty = sorted({row.metric for row in rows if row.unit == ALL and not row.count})
    if empty:
        warnings.warn(
            f"Nothing was measured by {', '.join(empty)}: no unit that has what it needs was "
            "explained. Without `y` units are explained whose probability is above `threshold`.",
            stacklevel=4,
        )


class _Progress:
    """A progress bar over the batches of all methods."""

    def __init__(self, num_methods, num_batches, verbose):
        total = None if num_batches is None else num_methods * num_batches
        shown = total != num_methods if verbose == "auto" else bool(verbose)
        self._bar = keras.utils.Progbar(total, unit_name="batch") if shown else None
        self._done = 0

    def add(self, num_batches):
        """Note that some batches are done."""
        self._done += num_batches
        if self._bar is not None and num_batches:
            self._bar.update(self._done)


class _Run(NamedTuple):
    """What all methods are evaluated with."""

    model: keras.Model
    judged: dict
    source: object
    record: Record
    resampling: tuple
    progress: _Progress

    def evaluate(self, label, step):
        """Stream the data through one method; return an accumulator for each metric."""
        found = {name: Accumulator(m.registration, m.average) for name, m in self.judged.items()}
        done = self.record.done.get(label, {"batches": 0, "samples": 0, "final": False})
        for metric, state in self.record.states(label).items():
            found[metric].restore(state)
        self.progress.add(done["batches"])
        if done["final"]:
            return found
        num_batches, num_samples = done["batches"], done["samples"]

        def note(final=False):
            states = {name: accumulator.state() for name, accumulator in found.items()}
            self.record.update(label, num_batches, num_samples, states, final)

        try:
            for batch in self.source.batches(num_batches):
                scores, classes = step.scores(self.model, batch, self.source.size)
                resamples = resample_weights(num_samples, len(classes), *self.resampling)
                for name, fields in scores.items():
                    found[name].add(fields, fields.get("classes", classes), resamples)
                num_batches, num_samples = num_batches + 1, num_samples + len(classes)
                note()
                self.progress.add(1)
        except BaseException:
            self.record.save()  # What was computed is kept, whatever happened.
            raise
        note(final=True)
        return found


def _methods(methods):
    """Return a dict from labels to pairs of a method and arguments of `ke.explain`."""
    if isinstance(methods, str) or callable(methods):
        methods = [methods]
    if not isinstance(methods, dict):
        methods = _labelled("methods", methods, _label)
    if not methods:
        raise invalid("methods", "at least one method", methods)
    pairs = {}
    for label, method in methods.items():
        method, arguments = method if isinstance(method, tuple) else (method, {})
        if "resizing" in arguments:
            raise invalid("methods", "no `resizing`: maps are resized to the input", label)
        pairs[_label_of("methods", label)] = methods_module.get(method), dict(arguments)
    return pairs


def _metrics(metrics, activation, threshold):
    """Return a dict from labels to metrics, with the options that they share with all."""
    if isinstance(metrics, str) or not isinstance(metrics, list | tuple | dict):
        metrics = [metrics]
    if not isinstance(metrics, dict):
        resolved = [_metric(m) for m in metrics]
        metrics = _labelled("metrics", resolved, lambda metric: metric.name)
    if not metrics:
        raise invalid("metrics", "at least one metric", metrics)
    judged = {}
    for label, metric in metrics.items():
        metric = _metric(metric)
        known = {parameter.name for parameter in metric.registration.options}
        # Of a metric without a model it is another threshold.
        known = known if "model" in metric.registration.needs else ()
        shared = {"activation": activation, "threshold": threshold}
        shared = {n: v for n, v in shared.items() if n in known and n not in metric.options}
        judged[_label_of("metrics", label)] = metric.from_config({**metric.get_config(), **shared})
    return judged


def _metric(identifier):
    """Resolve a metric, with errors that name the argument given here."""
    with renamed(metric="metrics"):
        return metrics_module.get(identifier)


def _labelled(argument, values, label):
    """Return a dict from the labels of listed values to them."""
    if not isinstance(values, list | tuple):
        raise mistyped(argument, "a list, or a dict from labels", values)
    labels = [label(value) for value in values]
    if len(set(labels)) < len(labels):
        hint = "Pass a dict from labels of your own."
        raise invalid(argument, "values that differ in name", labels, hint)
    return dict(zip(labels, values, strict=True))


def _label(method):
    return method if isinstance(method, str) else getattr(method, "__name__", repr(method))


def _label_of(argument, label):
    """Return a label as text in one line, as files and tables need it."""
    if "\n" in str(label):
        raise invalid(argument, "labels in one line", repr(label))
    return str(label)


def _check_needs(judged, source):
    """Raise that there is not what a metric needs."""
    for label, metric in judged.items():
        missing = [
            need
            for need in metric.registration.needs
            if need not in ("model", "explain") and need not in source.names
        ]
        if missing:
            expected = f"what the metric {label!r} needs"
            hint = "`ke.metrics.box_masks` makes masks of boxes." if missing[0] == "masks" else ""
            raise invalid(missing[0], expected, None, hint)


def _class_names(class_names, num_units):
    """Return the function from the index of a unit to its name."""
    if class_names is None:
        return lambda unit: BACKGROUND if unit < 0 else unit
    class_names = [str(name) for name in class_names]
    if len(class_names) != num_units:
        raise invalid("class_names", f"{num_units} names", len(class_names))
    if len({ALL, BACKGROUND, *class_names}) < num_units + 2:
        expected = f"names that differ, other than {ALL!r} and {BACKGROUND!r}"
        raise invalid("class_names", expected, class_names)
    return lambda unit: BACKGROUND if unit < 0 else class_names[unit]
