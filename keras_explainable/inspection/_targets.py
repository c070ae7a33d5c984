"""What is explained of the outputs of a model, where it is not one of them as it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypeGuard

import keras
import numpy as np
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import one_of
from keras_explainable._typing import Array
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Output
from keras_explainable.inspection._taps import operations_above

MIRRORING = ("same", "mask", "refused")
# Name of the layer that a target becomes.
TARGET = "explained_target"
# A model with inputs by name gets the data of a target by these.
_DATA = "target_data_{}"
# Samples in the trial run of a target, so that an axis that it puts first is not taken for them.
_TRIAL = 3
_MODULE = f"{__name__.partition('.')[0]}.targets"


class Target:
    """A function from the outputs of a model to values `(batch, units)`, which are explained.

    Outputs of a model with channels first are those of its copy with channels last.

    Its data become inputs of the exposed model, so that other data of the same shape and type are
    explained by the step that was compiled for the first ones.

    Args:
        function: function `(outputs, *data, **settings)` of tensors that returns `(batch, units)`.
        data: arrays of numbers or booleans with one row per sample, or with a single row for all.
        output: what the function takes: `None` for all outputs, in the structure that the model
            returns; one output or layer, as `inspection.expose` takes it; what a function picks out
            of that structure; or the values of another target.
        before_activation: whether outputs are taken before their last activation, one by one, also
            by the target in `output`. Defaults to what that one takes, or to True.
        mirroring: what holds for mirrored and resized images: "same" where the data say nothing of
            places, "mask" where their axes after the first are positions, and are mirrored too, or
            "refused". Defaults to "same".
        keeps_units: whether the units are those of the output, so that the activation left out
            turns values into probabilities. Defaults to False, for which values count as they are.
        limits: function from the outputs that `function` takes to a list of one pair, or none: the
            lowest values that the columns of the first of `data` may have, and what they stay
            below. Values that follow these two are allowed all the same.
        takes_activation: whether the function has a keyword `activation`, the function that was
            left out of the output, or `None`.
        takes_returned: whether the function has a keyword `returned`, the same outputs as the model
            returns them, after their activations.
        **settings: keyword arguments of the function.
    """

    def __init__(
        self,
        function: Callable,
        data: Sequence[ArrayLike] = (),
        *,
        output: Output = None,
        before_activation: bool | None = None,
        mirroring: str = "same",
        keeps_units: bool = False,
        limits: Callable | None = None,
        takes_activation: bool = False,
        takes_returned: bool = False,
        **settings: Any,
    ) -> None:
        if not callable(function):
            raise mistyped("function", "a function of outputs", function)
        one_of("mirroring", mirroring, MIRRORING)
        _refuse_uncalled(output)
        encoded = [_encoded(array) for array in data]
        self.inner = output if isinstance(output, Target) else None
        self.function = function
        self.output = None if self.inner else output
        self.keeps_units = keeps_units
        self.takes_activation = takes_activation
        self.takes_returned = takes_returned
        self.needs_returned: bool = takes_returned or bool(self.inner and self.inner.needs_returned)
        self.limits = limits
        self.settings = settings
        self.own = tuple((array.shape[1:], dtype) for array, dtype in encoded)
        self.mirrored = tuple(mirroring == "mask" for _ in self.own)
        self.is_fixed = mirroring == "refused"
        self.data = tuple(array for array, _ in encoded)
        self.num_inner = 0
        if self.inner:
            self.output = self.inner.output
            self.mirrored = self.inner.mirrored + self.mirrored
            self.is_fixed = self.is_fixed or self.inner.is_fixed
            self.keeps_units = keeps_units and self.inner.keeps_units
            self.num_inner = len(self.inner.data)
            self.data = self.inner.data + self.data
        self._settle(before_activation)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        rows: list[int | None] = [len(array) for array in (self.data or ())[self.num_inner :]]
        own = zip(rows or [None] * len(self.own), self.own, strict=True)
        shown = [name] + [f"{dtype} {(number, *shape)}" for number, (shape, dtype) in own]
        shown += [f"{key}={value!r}" for key, value in self.settings.items()]
        output = self.inner or self.output
        shown += [] if output is None else [f"output={output!r}"]
        return f"Target({', '.join(shown)})"

    def _settle(self, choice):
        """Note whether outputs are taken before their activation, and so whether values are."""
        inner = self.inner
        given = inner.gives_before if inner else None
        if choice is not None and given not in (None, choice):
            received = f"one of values {'before' if given else 'after'} it"
            expected = f"a target of values {'before' if choice else 'after'} the activation"
            raise invalid("output", expected, received)
        # A target that turns logits into probabilities by itself still takes logits.
        self.choice = choice if inner is None or inner.choice is None else inner.choice
        self.before_activation = self.choice is not False
        # Nothing, where a target of this one may choose.
        self.gives_before = self.choice if given is None else given
        if (self.takes_activation or self.takes_returned) and not self.keeps_units:
            self.gives_before = False

    @property
    def takes_all(self) -> bool:
        """Whether it takes all outputs, in the structure that the model returns."""
        return self.output is None or _is_function(self.output)

    @property
    def specification(self) -> tuple:
        """Shape of a row, and type, of each of the data."""
        return (self.inner.specification if self.inner else ()) + self.own

    @property
    def kind(self) -> tuple:
        """All that tells this target from others, but for the values of the data."""
        inner = self.inner.kind if self.inner else None
        switches = (self.before_activation, self.mirrored, self.is_fixed, self.keeps_units)
        return (self.function, self.settings, self.own, inner, self.output, switches)

    def template(self) -> Target:
        """Return this target without its data."""
        copy = object.__new__(type(self))
        copy.__dict__.update(vars(self), data=None)
        copy.inner = self.inner and self.inner.template()
        return copy

    def rows(self, num_samples: int) -> list[np.ndarray]:
        """Return the data, integers and booleans, with a row for each of a number of samples."""
        found = []
        for array in self.data:
            if len(array) not in (1, num_samples):
                expected = (
                    f"data with one row for all, or one for each of the {num_samples} samples"
                )
                raise invalid("output", expected, f"{len(array)} rows")
            found.append(np.broadcast_to(array, (num_samples, *array.shape[1:])))
        return found

    def check(self, limits: tuple) -> None:
        """Refuse data that are out of the range that outputs have.

        Args:
            limits: tuples of the number of an array of the data, the lowest values that its columns
                may have, what they stay below, and values that are allowed all the same.

        Raises:
            ValueError: if there are others.
        """
        for number, lowest, highest, *exempt in limits:
            array, (_, kind) = self.data[number], self.specification[number]
            array = array.view("float32") if kind == "float32" else array
            is_outside = (array < lowest) | (array >= highest)
            if (is_outside & ~np.isin(array, exempt)).any():
                allowed = f", or {', '.join(map(str, exempt))}" if exempt else ""
                received = f"{array.min()} to {array.max()}"
                raise invalid("output", f"indices below {tuple(highest)}{allowed}", received)

    def __call__(
        self,
        outputs: Any,
        data: Sequence[tf.Tensor] = (),
        activation: Callable | None = None,
        noted: list | None = None,
        returned: Any = None,
    ) -> tf.Tensor:
        """Return the values.

        Args:
            outputs: what the model returns, in the structure that `output` asks for.
            data: list of tensors.
            activation: what was left out of the outputs, or `None`.
            noted: list that ranges of the data are added to, as `check` takes them.
            returned: the outputs after their activations, in the same structure. Defaults to
                `outputs`.

        Returns:
            tensor `(batch, units)`.
        """
        returned = outputs if returned is None else returned
        taken = self._taken(outputs, data, activation, noted, returned)
        if noted is not None and self.limits:
            noted.extend((self.num_inner, *found) for found in self.limits(taken))
        more = {"activation": activation} if self.takes_activation else {}
        if self.takes_returned:
            more["returned"] = self._taken(returned, data, None, None, returned)
        own = data[self.num_inner :]
        function = functools.partial(self.function, **self.settings, **more)
        return _run(function, self.function, noted is not None, taken, *own)

    def _taken(self, outputs, data, activation, noted, returned):
        """Return what the function takes of outputs."""
        if self.inner:
            return self.inner(outputs, data[: self.num_inner], activation, noted, returned)
        if _is_function(self.output):
            return _run(self.output, self.output, noted is not None, outputs)
        return outputs


class Splice(NamedTuple):
    """A target fitted to the outputs of one model.

    Attributes:
        layer: layer from a list of tensors and a list of data to `(batch, units)`.
        used: the tensors that it takes, which are those that the target depends on.
        indices: what numbers they have among those given.
        data: symbolic inputs for the data.
        activation: what turns its values into probabilities, or `None`.
        limits: tuples of the number of an array of the data, the lowest values that its columns may
            have, what they stay below, and values that are allowed all the same.
        mirrored: whether each of the data is mirrored where images are.
        is_fixed: whether images can't be mirrored or resized.
    """

    layer: keras.layers.Layer
    used: list
    indices: list
    data: list
    activation: object
    limits: tuple
    mirrored: tuple
    is_fixed: bool


class TargetLayer(keras.layers.Layer):
    """Turns outputs of a model, and data, into the values that are explained."""

    def __init__(self, run, autocast):
        super().__init__(name=TARGET, dtype="float32", autocast=autocast)
        self.run = run
        self.built = True

    def call(self, tensors, data):
        """Return values `(batch, units)`."""
        return self.run(tensors, data)


def as_target(outputs: Output) -> Target | None:
    """Return the target that an argument `outputs` stands for, or `None`."""
    if isinstance(outputs, Target):
        return outputs
    _refuse_uncalled(outputs)
    return Target(outputs, before_activation=False) if _is_function(outputs) else None


def splice(target, structure, activations):
    """Fit a target to the outputs of a model.

    Args:
        target: `Target`.
        structure: tensors that it takes, symbolic or of a graph, in the structure that it takes.
        activations: what was left out of each of them, a flat list.

    Returns:
        a `Splice`.

    Raises:
        ValueError: if it doesn't return `(batch, units)`, with a fixed number of units.
    """
    flat = keras.tree.flatten(structure)
    target = target.template()
    specification = target.specification
    skeleton = keras.tree.map_structure(lambda _: 0, structure)

    def run_on(tensors, data, activation=tf.identity, noted=None):
        outputs = keras.tree.pack_sequence_as(skeleton, tensors)
        pairs = zip(data, specification, strict=True)
        decoded = [_decoded(array, kind) for array, (_, kind) in pairs]
        returned = None
        if target.needs_returned:
            after = [t if f is None else f(t) for t, f in zip(tensors, activations, strict=True)]
            returned = keras.tree.pack_sequence_as(skeleton, after)
        return target(outputs, decoded, activation, noted, returned)

    used, limits = _tried(run_on, flat, specification)
    left_out = _common([activations[i] for i in used])
    # A target that asks for an activation says so if there is none.
    _tried(functools.partial(run_on, activation=left_out), flat, specification)
    empty = [([size or 1 for size in t.shape], t.dtype) for t in flat]

    def run(tensors, data):
        # An output that nothing is computed from is not computed.
        given = dict(zip(used, tensors, strict=True))
        full = [given[i] if i in given else tf.zeros(*e) for i, e in enumerate(empty)]
        return tf.convert_to_tensor(run_on(full, data, left_out))

    inputs = [
        keras.Input(shape, dtype=_stored(kind), name=_DATA.format(i))
        for i, (shape, kind) in enumerate(specification)
    ]
    layer = TargetLayer(run, autocast=target.before_activation)
    activation = left_out if target.keeps_units else keras.activations.linear
    tensors = [flat[i] for i in used]
    return Splice(
        layer, tensors, used, inputs, activation, limits, target.mirrored, target.is_fixed
    )


def with_data(inputs: Inputs, data: Sequence[Array]) -> Inputs:
    """Return inputs of a model, tensors or arrays, with the data of a target added.

    Args:
        inputs: in the structure that the model takes.
        data: list of what is added.

    Returns:
        inputs of the exposed model; those given, where nothing is added.
    """
    if not data:
        return inputs
    if isinstance(inputs, dict):
        return {**inputs, **{_DATA.format(i): array for i, array in enumerate(data)}}
    return [*inputs, *data] if isinstance(inputs, list | tuple) else [inputs, *data]


def _tried(run, flat, specification):
    """Run a target on placeholders.

    Returns:
        used: indices of the tensors that it depends on.
        limits: as in `Splice`.
    """
    size = next((t.shape[0] for t in flat if t.shape[0] is not None), _TRIAL)
    taken = [tf.TensorSpec((t.shape[0] or size, *t.shape[1:]), t.dtype) for t in flat]
    data = [tf.TensorSpec((size, *shape), _stored(kind)) for shape, kind in specification]
    found, limits = [], []

    def trial(tensors, data):
        values = run(tensors, data, noted=limits)
        _check(values, size)
        above = operations_above(values) if hasattr(values, "graph") else ()
        found.extend(i for i, t in enumerate(tensors) if t.op.name in above)

    tf.function(trial, autograph=False).get_concrete_function(taken, data)
    if not found:
        expected = "a function of the outputs of the model, which depends on one at least"
        raise invalid("outputs", expected, "one that doesn't")
    return found, tuple(limits)


def _run(function, named, is_trial, outputs, *data):
    """Run a function of outputs, of which a trial run tells how it failed."""
    if not is_trial or getattr(named, "__module__", None) == _MODULE:
        return function(outputs, *data)
    try:
        return function(outputs, *data)
    except Exception as error:
        shapes = keras.tree.map_structure(_Shape.of, outputs)
        name = getattr(named, "__name__", type(named).__name__)
        received = f"{name!r}, which failed with {type(error).__name__}: {error}"
        raise invalid("outputs", f"a function that takes {shapes}", received) from error


class _Shape(NamedTuple):
    """Type and shape of a tensor, without the axis of samples."""

    dtype: str
    shape: tuple

    @classmethod
    def of(cls, value):
        return cls(value.dtype.name, tuple(value.shape)[1:]) if tf.is_tensor(value) else value

    def __repr__(self):
        return f"{self.dtype} ({', '.join(['batch', *map(str, self.shape)])})"


def _refuse_uncalled(output):
    """Refuse a function that makes targets in place of one that it makes."""
    is_class = isinstance(output, type) and issubclass(output, Target)
    if is_class or (_is_function(output) and getattr(output, "__module__", None) == _MODULE):
        name = output.__name__
        hint = f"Call it, as in `output=ke.targets.{name}(...)`."
        raise invalid("output", "a target", f"the function {name!r} that makes one", hint)


def _common(activations):
    """Return the activation that several outputs have in common, or `None`."""
    same = all(activation is activations[0] for activation in activations)
    return activations[0] if same else None


def _check(values, size):
    """Refuse what is not a float tensor `(size, units)`."""
    expected = "a function that returns a float tensor (batch, units)"
    if not tf.is_tensor(values):
        received = f"one that returns an object of type {type(values).__name__}"
        raise invalid("outputs", expected, received)
    shape = tuple(values.shape) if values.shape.rank is not None else "unknown"
    if not values.dtype.is_floating:
        raise invalid("outputs", expected, f"one that returns {values.dtype.name}")
    if values.shape.rank != 2 or values.shape[0] not in (None, size):
        received = f"one that returns the shape {shape} for {size} samples"
        hint = "`ke.targets` has functions for outputs of several positions."
        raise invalid("outputs", expected, received, hint)
    if values.shape[1] is None:
        raise invalid("outputs", f"{expected}, with a fixed number of units", f"shape {shape}")


def _is_function(output: object) -> TypeGuard[Callable]:
    """Tell functions from endpoints, of which layers can be called too."""
    return callable(output) and not isinstance(output, keras.Operation)


def _encoded(array):
    """Return data as integers or booleans, which no method moves or differentiates, and a type."""
    array = np.asarray(array)
    if array.ndim == 0 or not (array.dtype == bool or np.issubdtype(array.dtype, np.number)):
        raise mistyped("data", "arrays of numbers with an axis of samples", array.tolist())
    if array.dtype == bool:
        return array, "bool"
    if np.issubdtype(array.dtype, np.integer):
        return array.astype("int32"), "int32"
    return np.ascontiguousarray(array, "float32").view("int32"), "float32"


def _stored(kind):
    return "bool" if kind == "bool" else "int32"


def _decoded(tensor, kind):
    return tf.bitcast(tensor, tf.float32) if kind == "float32" else tensor
