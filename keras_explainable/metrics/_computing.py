"""Compute metrics: of arrays with a function, over batches with a `keras.metrics.Metric`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from collections.abc import Mapping
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable import _docstrings
from keras_explainable import inspection
from keras_explainable._checks import mistyped
from keras_explainable._checks import positive_integer
from keras_explainable._keeping import Kept
from keras_explainable._keeping import frozen
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Output
from keras_explainable._typing import Units
from keras_explainable._typing import hints_of
from keras_explainable.inspection import feeding
from keras_explainable.metrics import _arguments
from keras_explainable.metrics import _registry
from keras_explainable.metrics._explaining import Explanations

# What is told of the arguments that every metric gets, those of the model where there is one.
_TOLD = {
    "output": "which output of the model is explained, see `inspection.expose`.",
    "batch_size": "samples per step. Defaults to 32.",
    "return_weights": "whether to return weights too, see below. Defaults to `False`.",
}
# Compiled steps kept per model.
_steps = Kept(64)
_exposed = Kept(8)


def scores(metrics, arguments):
    """Compute metrics of one batch; those with a protocol in common share its evidence.

    Args:
        metrics: dict from any key to a pair of a `Registration` and its options.
        arguments: dict of what metrics are computed from: tensors, an `Exposed` model as "model",
            and `Explanations` as "explain".

    Returns:
        dict from the keys to `Scores`.
    """
    groups, found = {}, {}
    for key, (known, options) in metrics.items():
        shared = {p.name: options[p.name] for p in known.protocol_options if p.name in options}
        own = {name: value for name, value in options.items() if name not in shared}
        group = (known.protocol, frozen(shared)) if known.protocol else key
        groups.setdefault(group, []).append((key, known, shared, own))
    for members in groups.values():
        first, shared = members[0][1:3]
        given = {p.name: arguments[p.name] for p in first.arguments if p.name in arguments}
        if first.protocol is None:
            key, _, _, own = members[0]
            found[key] = first.function(**given, **own)
            continue
        parts = frozenset().union(*(known.parts for _, known, _, _ in members))
        evidence = first.protocol(**given, **shared, parts=parts)
        for key, known, _, own in members:
            rows = known.function(evidence, **own)
            rows = rows if isinstance(rows, tuple) else (rows,)
            found[key] = evidence.pairs.scores(*rows)
    return found


def combined(known, values, weights):
    """Return values `(..., units)` and weights without the parts that a metric is combined of."""
    if known.combine is None:
        return values, weights
    per_part = len(weights.shape) == len(values.shape)
    return known.combine(values), tf.reduce_min(weights, -1) if per_part else weights


def exposed_model(model, output=None, inputs=None):
    """Return the model from inputs to logits that metrics call; it is made once per model."""
    if isinstance(model, inspection.Exposed):
        return model
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    # A functional model tells its own shapes.
    taken = None if _compat.is_functional(model) else inputs
    shapes = repr(keras.tree.map_structure(np.shape, taken))
    build = lambda: inspection.expose(model, (), output, inputs=taken)  # noqa: E731
    return _exposed.get(model, (output, shapes), build)


@functools.cache
def function_of(name):
    """Return the function of a registered metric that takes arrays.

    Args:
        name: name of the metric.

    Returns:
        function with the arguments and options of the metric.
    """
    known = _registry.registration(name)
    signature = _signature(known)

    def compute(*arguments, **options):
        given = signature.bind(*arguments, **options)
        given.apply_defaults()
        return _compute(known, **given.arguments)

    compute.__name__ = compute.__qualname__ = name
    compute.__module__ = known.function.__module__
    hints = _hints(known)
    compute.__annotations__ = {n: hints[n] for n in (*signature.parameters, "return") if n in hints}
    compute.__signature__ = signature
    compute.__doc__ = _doc(known, signature)
    return compute


def _doc(known, signature):
    """Return the docstring of a function of arrays: that of its metric, and of its protocol."""
    own = _docstrings.sections(known.function.__doc__)
    protocol = _docstrings.sections(known.protocol.__doc__ if known.protocol else None)
    told = {name: _docstrings.entry(name, text) for name, text in _TOLD.items()}
    told = _docstrings.entries(protocol["Args"]) | _docstrings.entries(own["Args"]) | told
    raised = _docstrings.entries(protocol["Raises"]) | _docstrings.entries(own["Raises"])
    # The first sentence of a protocol is what it does itself.
    evidence = protocol[""].partition("\n\n")[2]
    parts = {
        "": "\n\n".join(filter(None, [own[""], evidence])),
        "Args": "\n".join(told[name] for name in signature.parameters),
        "Returns": _docstrings.filled(_returned(known, " ".join(own["Returns"].split()))),
        "Raises": "\n".join(raised.values()),
    }
    return _docstrings.joined(own | parts)


def _returned(known, rows):
    """Tell what the function of a metric returns; `rows` says what of, where it isn't of maps."""
    if "model" in known.needs:
        return (
            "float32 values of the pairs explained, `(pairs,)`, those that have one. With "
            "`return_weights=True`, values and weights, both `(samples, n)`, of all maps; weights "
            "are 0 where there is no value."
        )
    # Of an internal function, that it returns `Scores`.
    rows = "one per map, `(samples, n)`" if not rows or rows[0] == "`" else rows.removesuffix(".")
    return (
        f"float32 values, {rows}, 0 where there is none. With `return_weights=True`, values and "
        "weights, which are 0 where there is no value."
    )


class _Shared(Protocol):
    """States the types of what users pass to metrics, whose functions get tensors."""

    def __call__(
        self,
        model: keras.Model,
        x: Inputs,
        maps: ArrayLike,
        indices: Units = None,
        explain: Callable | None = None,
        *,
        masks: ArrayLike,
        boxes: Mapping[str, ArrayLike],
        labels: ArrayLike,
        fixations: ArrayLike,
        logits: ArrayLike | None = None,
        detections: ArrayLike | None = None,
        output: Output = None,
        batch_size: int = 32,
        return_weights: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]: ...


_SHARED = inspect.signature(_Shared.__call__)
_SHARED_HINTS = hints_of(_Shared.__call__)


def _signature(known):
    data = [p.replace(annotation=_SHARED.parameters[p.name].annotation) for p in known.arguments]
    own = ("output", "batch_size") if "model" in known.needs else ()
    added = [_SHARED.parameters[name] for name in (*own, "return_weights")]
    parameters = sorted([*data, *known.options, *added], key=lambda p: p.kind)
    return _SHARED.replace(parameters=parameters)


def _hints(known):
    """Return the types of all that the function of a metric takes, by name."""
    functions = [f for f in (known.protocol, known.function) if f is not None]
    return {n: h for f in functions for n, h in hints_of(f).items()} | _SHARED_HINTS


def _compute(known, *, output=None, batch_size=32, return_weights=False, **given):
    arguments = {p.name: given.pop(p.name) for p in known.arguments}
    batch_size = positive_integer("batch_size", batch_size)
    computation = Computation(known, given, arguments, output)
    data = computation.checked(arguments)
    length = len(data["maps"])
    results = []
    for start in range(0, length, batch_size):
        found = computation.run(_rows(data, start, start + batch_size))
        values, weights = combined(known, found.values, found.weights)
        results.append((np.asarray(values), np.asarray(weights)))
    values, weights = (np.concatenate(parts) for parts in zip(*results, strict=True))
    if return_weights:
        return values, weights
    return values[weights > 0] if computation.exposed is not None else values


class Computation:
    """One metric, made ready for a model.

    Args:
        known: `Registration`.
        options: dict of options of the metric.
        arguments: dict of what it is computed from, `checked` or not.
        output: which output of the model is explained.
    """

    def __init__(self, known, options, arguments, output=None):
        self.known = known
        self.options = options
        self.explain = None
        model = arguments.get("model")
        self.exposed = None
        self._model = model
        self._key = known.name, options, output
        if model is None and "model" in known.needs:
            raise mistyped("model", "a `keras.Model`", None)
        if model is not None:
            self.exposed = exposed_model(model, output, arguments.get("x"))
        if "explain" in known.needs:
            self.explain = Explanations(arguments.get("explain"), model, self.exposed)

    def checked(self, arguments):
        """Return data as arrays that fit each other and the model, see `_arguments.checked`."""
        return _arguments.checked(
            {n: a for n, a in arguments.items() if n in _registry.ARGUMENTS},
            num_units=None if self.exposed is None else self.exposed.outputs[0].shape[-1],
            unit_interval=self.known.unit_interval,
            exposed=self.exposed,
        )

    def run(self, batch):
        """Return the `Scores` of a batch of data."""
        # What is kept for a model must not hold it.
        run = functools.partial(_scores, self.known, self.options, self.exposed, self.explain)
        if self.exposed is None or self.explain is not None or tf.inside_function():
            return run({}, batch)
        if self.exposed is self._model:
            return run({}, batch)  # A step would be kept for what it holds.
        strings, arrays = _parted(batch)
        shapes = keras.tree.map_structure(_specification, arrays)
        step = _steps.get(
            self._model,
            (self._key, strings, repr(shapes)),
            # TensorFlow warns of retracing by a function's code, which a partial has none of.
            lambda: tf.function(
                functools.partial(run, strings), input_signature=[shapes], autograph=False
            ),
        )
        return step(arrays)


def _scores(known, options, exposed, explain, strings, batch):
    arguments = tensors(batch | strings, exposed) | {"model": exposed, "explain": explain}
    return scores({known.name: (known, options)}, arguments)[known.name]


def tensors(batch, exposed=None):
    """Return a batch as tensors, its inputs as an exposed model takes them."""
    batch = dict(batch)
    if exposed is not None:
        batch["x"] = feeding.accepted(exposed, batch["x"])
    strings, arrays = _parted(batch)
    return keras.tree.map_structure(tf.convert_to_tensor, arrays) | strings


def _rows(data, start, stop):
    strings, arrays = _parted(data)
    return keras.tree.map_structure(lambda a: a[start:stop], arrays) | strings


def _parted(data):
    """Return what says in a word what is explained, and arrays."""
    strings = {name: value for name, value in data.items() if isinstance(value, str)}
    return strings, {name: value for name, value in data.items() if name not in strings}


def _specification(array):
    """Return the form of an array in batches of any size."""
    return tf.TensorSpec([None, *array.shape[1:]], tf.as_dtype(array.dtype))
