"""Open a model: list the calls of its layers, nested ones included, and find one by name."""

import difflib
import functools
import inspect
import math
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable.inspection import _layouts


class Call(NamedTuple):
    """One call of one layer in an opened model.

    Attributes:
        path: names of the nested models and of the layer, "backbone/relu".
        layer: the layer called, or its twin.
        inputs: tensors that went in, a flat list.
        outputs: tensors that came out, a flat list.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        is_first: whether what is called takes channels first, of which `inputs` and `outputs` are
            the counterparts with channels last.
    """

    path: str
    layer: object
    inputs: list
    outputs: list
    args: tuple = ()
    kwargs: dict = {}  # noqa: RUF012
    is_first: bool = False


class Unreachable(Exception):  # noqa: N818
    """A subclassed model can't be run on symbolic tensors; the cause of this says why."""


class Calls:
    """The calls in an opened model, among which an endpoint is found.

    Args:
        model: the `keras.Model` that was opened.
    """

    def __init__(self, model):
        self.name = model.name
        self.layers = model.layers
        self.calls = []
        self._linear_paths = {}

    def locate(self, endpoint, argument="arguments"):
        """Find the call that an endpoint names.

        Args:
            endpoint: as `inspection.expose` takes it.
            argument: name of the argument that it was given for.

        Returns:
            call: the `Call`.
            link: "input" or "output".
        """
        link, node = "output", None
        if isinstance(endpoint, dict):
            link, node = endpoint.get("link", "output"), endpoint.get("node")
            unknown = set(endpoint) - {"layer", "name", "link", "node"}
            named = len({"layer", "name"} & set(endpoint)) == 1
            if unknown or not named or link not in ("input", "output"):
                expected = 'a dict with "layer" or "name", "link" ("input" or "output") and "node"'
                raise invalid(argument, expected, endpoint)
            endpoint = endpoint.get("layer", endpoint.get("name"))
        if is_symbolic(endpoint):
            calls = self._calls_of_tensor(endpoint, argument)
        else:
            calls = self._calls_of_layer(endpoint, argument)
        return self._one_call(calls, endpoint, node, argument), link

    def paths(self):
        """Return the path of the layer that each tensor comes from, by the id of the tensor."""
        paths = {id(t): call.path for call in reversed(self.calls) for t in call.outputs}
        return paths | self._linear_paths

    def _one_call(self, calls, endpoint, node, argument):
        paths = list(dict.fromkeys(call.path for call in calls))
        if len(paths) > 1:
            raise invalid(argument, f"one of the paths {paths}", repr(endpoint))
        if node is None and len(calls) > 1:
            hint = f'Pass {{"name": {paths[0]!r}, "node": 0}} up to {len(calls) - 1} to choose.'
            expected = f"the call meant: the layer is called {len(calls)} times"
            raise invalid(argument, expected, repr(endpoint), hint)
        if node is not None and not -len(calls) <= node < len(calls):
            expected = f'a "node" below {len(calls)}, the number of calls of {paths[0]!r}'
            raise invalid(argument, expected, node)
        return calls[node or 0]

    def _calls_of_layer(self, endpoint, argument):
        if isinstance(endpoint, int) and not isinstance(endpoint, bool):
            if not -len(self.layers) <= endpoint < len(self.layers):
                expected = f"an index into the {len(self.layers)} layers of {self.name!r}"
                raise invalid(argument, expected, endpoint)
            endpoint = self.layers[endpoint]
        if isinstance(endpoint, keras.Operation):
            calls = [call for call in self.calls if call.layer is endpoint]
            endpoint = endpoint.name
        elif isinstance(endpoint, str):
            calls = [call for call in self.calls if call.path == endpoint]
            calls = calls or [c for c in self.calls if c.path.endswith(f"/{endpoint}")]
        else:
            expected = "a layer, its name, path or index, a `KerasTensor`, or a dict"
            raise mistyped(argument, expected, endpoint)
        if not calls:
            raise invalid(argument, "a layer of the model", repr(endpoint), self._closest(endpoint))
        return calls

    def _calls_of_tensor(self, tensor, argument):
        def makes(operation):
            try:
                return any(t is tensor for t in keras.tree.flatten(operation.output))
            except (AttributeError, ValueError):
                return False

        calls = [call for call in self.calls if makes(call.layer)]
        if not calls:
            hint = 'Name the layer, as in {"name": ..., "node": 0}, where it is called repeatedly.'
            raise invalid(argument, "a tensor computed inside the model", tensor, hint)
        return calls

    def _closest(self, name):
        paths = list(dict.fromkeys(call.path for call in self.calls))
        leaves = {path.rsplit("/", 1)[-1]: path for path in reversed(paths)}
        near = difflib.get_close_matches(name, [*paths, *leaves], n=3, cutoff=0.4)
        near = list(dict.fromkeys(leaves.get(n, n) for n in near)) or paths[-3:]
        return f"Closest: {', '.join(repr(n) for n in near)}."


class Graph(Calls):
    """A model opened into twins of its layers, each called once on new symbolic inputs.

    All tensors have their channels last, also those that the model has with channels first.

    Args:
        model: `keras.Model`, built.
        inputs: batch of inputs, for a subclassed model whose input shape Keras doesn't know.
        split: function that tells which layers are opened into a linear one and their activation.
        opens: function that tells which layers made of other layers are opened, where they can be
            run on symbolic tensors. Defaults to those that attend.
        attends: whether layers of attention return their scores too.

    Attributes:
        scores: dict from the id of the scores of a layer of attention to its path.
        inputs: symbolic inputs, in the structure that the model takes.
        outputs: symbolic outputs, in the structure that it returns.
        channels_first: indices, among the flat inputs, of those that the model takes with channels
            first.

    Raises:
        Unreachable: if it is, or holds, a subclassed model whose `call` fails on symbolic tensors.
    """

    def __init__(self, model, inputs=None, split=None, opens=None, attends=False):
        super().__init__(model)
        self._split = split or (lambda _: False)
        self._opens = opens or _compat.holds_attention
        self._attends = attends
        self.scores = {}
        self._names = {}
        self._made = {}
        self._layouts = _layouts.Layouts()
        self.channels_first = ()
        self.inputs = placeholders(model, inputs)
        counts = _compat.call_counts(model)
        try:
            self.outputs = self._open(model, (self.inputs,), {}, path="")
        finally:
            called = _compat.undo_calls(counts)
        if called:
            raise Unreachable from RuntimeError(f"layers held elsewhere are called: {called}")
        if any(_layouts.is_first(call.layer) for call in self.calls):
            inputs, outputs = keras.tree.flatten(self.inputs), keras.tree.flatten(self.outputs)
            calls = self.ancestry(outputs)
            self.channels_first = _layouts.inputs_with_channels_first(inputs, calls)
            self._arrange()

    def endpoint(self, endpoint, argument="arguments"):
        """Find the symbolic tensor that an endpoint names."""
        if is_symbolic(endpoint) and len(self._made.get(id(endpoint), ())) == 1:
            return self._made[id(endpoint)][0]
        call, link = self.locate(endpoint, argument)
        return call.outputs[0] if link == "output" else call.inputs[0]

    def ancestry(self, tensor):
        """List the calls that a symbolic tensor is computed by, first ones first."""
        calls = []

        def note(operation, *args, **kwargs):
            inputs = [t for t in keras.tree.flatten((args, kwargs)) if is_symbolic(t)]
            outputs = keras.tree.flatten(operation.output)
            if not any(self._layouts.is_moved(t) for t in outputs):
                taken, made = ([self._layouts.last(t) for t in ts] for ts in (inputs, outputs))
                is_first = any(t is not last for t, last in zip(inputs, taken, strict=True))
                call = Call(operation.name, operation, taken, made, args, kwargs, is_first)
                calls.append(call)
            return operation.output

        _compat.run_graph(keras.Model(self.inputs, tensor), self.inputs, note)
        return calls

    def _arrange(self):
        """Open the graph once more, into one that has the channels of all tensors last."""
        old = keras.tree.flatten(self.inputs)
        new = [
            _layouts.placeholder(t) if i in self.channels_first else t for i, t in enumerate(old)
        ]
        given = [
            self._layouts.native(t) if i in self.channels_first else t for i, t in enumerate(new)
        ]
        found = {id(t): tensor for t, tensor in zip(old, given, strict=True)}
        paths = self.paths()

        def run(operation, *args, **kwargs):
            made = keras.tree.flatten(operation.output)
            twin = _compat.twin(operation, operation.name)
            path = paths.get(id(made[0]), operation.name)
            outputs = self._layouts.run(twin, path, args, kwargs)
            found.update(zip(map(id, made), keras.tree.flatten(outputs), strict=True))
            return outputs

        def last(tensor):
            return self._layouts.last(found.get(id(tensor), tensor))

        graph = keras.Model(old, keras.tree.flatten(self.outputs))
        _compat.run_graph(graph, given, run)
        self.inputs = keras.tree.pack_sequence_as(self.inputs, new)
        self.outputs = keras.tree.map_structure(last, self.outputs)
        self.calls = [
            c._replace(inputs=[*map(last, c.inputs)], outputs=[*map(last, c.outputs)])
            for c in self.calls
        ]
        self._made = {key: [*map(last, tensors)] for key, tensors in self._made.items()}
        linear = self._linear_paths.items()
        self._linear_paths = {id(self._layouts.last(found[i])): p for i, p in linear if i in found}

    def _open(self, model, args, kwargs, path):
        training = kwargs.get("training")

        def call(operation, *args, **kwargs):
            if training is not None and isinstance(operation, keras.Layer):
                kwargs = {**kwargs, "training": training}
            outputs = self._call(operation, args, kwargs, path)
            # A tensor that a nested model and its last layer return is one endpoint, not two.
            for tensor, new in zip(next(made), keras.tree.flatten(outputs), strict=True):
                self._made.setdefault(id(tensor), []).append(new)
            return outputs

        if _compat.is_functional(model):
            made = (made for *_, made in _compat.symbolic_calls(model))
            return _compat.run_graph(model, args[0] if args else kwargs["inputs"], call)
        copy = shadow(model, lambda layer, a, k: self._call(layer, a, k, path))
        try:
            outputs = call_of(copy)(*args, **kwargs)
            if _settle_reshapes(args, kwargs, outputs):
                _check_runs(args, kwargs, outputs)
        except Unreachable:
            raise
        except Exception as error:
            raise Unreachable from error
        return outputs

    def _call(self, operation, args, kwargs, path):
        path = f"{path}/{operation.name}" if path else operation.name
        if hasattr(operation, "explained_outputs"):
            twin = self._twin(operation, path)
            opened = open_explained(
                twin, args, kwargs, lambda part, a, k: self._call(part, a, k, path)
            )
        else:
            opened = self._open_composite(operation, args, kwargs, path)
        if isinstance(operation, keras.Model):
            outputs = self._open(operation, args, kwargs, path)
        elif opened is not None:
            outputs = opened
        elif self._attends and isinstance(operation, _compat.ATTENTIONS):
            outputs = self._attend(operation, args, kwargs, path)
        elif self._split(operation):
            before, after = split_activation(self._twin(operation, path))
            linear = before(*args, **kwargs)
            self._linear_paths[id(linear)] = path
            outputs = after(linear)
        else:
            outputs = self._twin(operation, path)(*args, **kwargs)
        inputs = [t for t in keras.tree.flatten((args, kwargs)) if is_symbolic(t)]
        self.calls.append(Call(path, operation, inputs, keras.tree.flatten(outputs)))
        return outputs

    def _open_composite(self, layer, args, kwargs, path):
        """Open a layer made of layers, or return `None` where it can't be opened, or needn't."""
        if isinstance(layer, keras.Model):
            return None
        if not _compat.is_composite(layer) or not self._opens(layer):
            return None
        known, outputs = len(self.calls), None
        counts = _compat.call_counts(layer)
        kwargs = {name: value for name, value in kwargs.items() if name != "training"}
        if takes_training(layer):
            kwargs["training"] = False
        args, kwargs = keras.tree.map_structure(lambda t: _autocast(layer, t), (args, kwargs))
        try:
            outputs = self._open(layer, args, kwargs, path)
            _check_runs(args, kwargs, outputs)
        except Exception:  # Whatever its `call` does, it may be run as it is.
            outputs = None
        if _compat.undo_calls(counts) or outputs is None:
            del self.calls[known:]
            return None
        return outputs

    def _attend(self, layer, args, kwargs, path):
        """Call a layer of attention, and note its scores."""
        asked = kwargs.get("return_attention_scores", False)
        kwargs = {**kwargs, "return_attention_scores": True}
        twin = self._twin(layer, path)
        if isinstance(layer, keras.layers.Attention):
            # Some versions of Keras state the output alone.
            vars(twin)["compute_output_spec"] = functools.partial(
                keras.Operation.compute_output_spec, twin
            )
        outputs = twin(*args, **kwargs)
        self.scores[id(outputs[1])] = path
        return outputs if asked else outputs[0]

    def _twin(self, operation, path):
        name = path.replace("/", ".")
        count = self._names[name] = self._names.get(name, -1) + 1
        return _compat.twin(operation, f"{name}_{count}" if count else name)


def open_explained(layer, args, kwargs, call):
    """Run a layer whose `explained_outputs` tells how layers inside make its first output.

    Args:
        layer: the layer, which the other outputs are left to.
        args: positional arguments of its call.
        kwargs: keyword arguments of its call.
        call: function `(layer, args, kwargs) -> outputs`, called for the layers inside.

    Returns:
        list of outputs.
    """
    _, *rest = layer(*args, **kwargs)
    return [shadow(layer, call).explained_outputs(args[0] if args else kwargs["inputs"]), *rest]


def _symbolic(*structure):
    """List the symbolic tensors in a structure, each once."""
    return list({id(t): t for t in keras.tree.flatten(structure) if is_symbolic(t)}.values())


def _settle_reshapes(args, kwargs, outputs):
    """State sizes that a `call` read from a symbolic tensor, and tell whether there were any."""
    settled = []

    def settle(operation, *_, **__):
        sizes = getattr(operation, "newshape", None)
        if isinstance(sizes, list | tuple) and None in sizes:
            operation.newshape = _settled(sizes, tuple(operation.input.shape))
            settled.append(operation)
        return operation.output

    inputs = _symbolic(args, kwargs)
    if inputs and _symbolic(outputs):
        _compat.run_graph(keras.Model(inputs, _symbolic(outputs)), inputs, settle)
    return bool(settled)


def _settled(sizes, before):
    """Return the sizes of a reshaped tensor with -1 for the batch, and no other one unknown."""
    if -1 in sizes and None not in before[1:]:
        known = math.prod(size for size in sizes if size not in (None, -1))
        sizes = [math.prod(before[1:]) // known if size == -1 else size for size in sizes]
    return tuple(-1 if size is None else size for size in sizes)


def _check_runs(args, kwargs, outputs):
    """Raise what running a part of a graph raises, or that it doesn't keep the batch."""
    inputs, size = _symbolic(args, kwargs), 2
    part = keras.Model(inputs, _symbolic(outputs))
    kinds = [tf.TensorSpec((size, *tensor.shape[1:]), tensor.dtype) for tensor in inputs]
    run = tf.function(lambda *tensors: part(list(tensors)), autograph=False)
    found = keras.tree.flatten(run.get_concrete_function(*kinds).structured_outputs)
    if any(tensor.shape[0] not in (None, size) for tensor in found):
        raise ValueError("the batch became another one")


def split_activation(layer):
    """Return a linear layer and an activation layer that do together what a layer does."""
    linear = _compat.twin(layer, layer.name, activation=keras.activations.linear)
    name = f"{layer.name}_activation"
    return linear, keras.layers.Activation(layer.activation, name=name, dtype=layer.dtype_policy)


def shadow(model, call):
    """Return a copy of a subclassed model or layer in which calls of its layers go elsewhere.

    Args:
        model: subclassed `keras.Model`, or layer made of layers, built.
        call: function `(layer, args, kwargs) -> outputs`.

    Returns:
        an object like the model, whose `call` calls `call` for every layer in its attributes.
    """

    def stand_in(value):
        if isinstance(value, keras.Layer):
            return _StandIn(value, lambda *args, **kwargs: call(value, args, kwargs))
        return value

    attributes = {
        name: keras.tree.map_structure(stand_in, _plain(value))
        for name, value in vars(model).items()
        if any(isinstance(leaf, keras.Layer) for leaf in keras.tree.flatten(_plain(value)))
    }
    copy = _compat.twin(model, model.name, **attributes)
    vars(copy).update(_compat.rebound(model, copy))
    return copy


def call_of(model):
    """Return the `call` of a model; of one that is a `tf.function`, the function inside."""
    return getattr(model.call, "python_function", model.call)


def _autocast(layer, value):
    """Cast a symbolic tensor as calling a layer does."""
    floats = is_symbolic(value) and keras.backend.is_float_dtype(value.dtype)
    if not floats or not layer.autocast or value.dtype == layer.compute_dtype:
        return value
    return keras.ops.cast(value, layer.compute_dtype)


class _StandIn:
    """Stands in for a layer inside a subclassed model: its calls go elsewhere."""

    def __init__(self, layer, call):
        self._layer = layer
        self._call = call

    def __call__(self, *args, **kwargs):
        return self._call(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._layer, name)

    @property  # type: ignore[misc]  # That of an object can be set.
    def __class__(self):
        return type(self._layer)


def placeholders(model, inputs=None):
    """Return new symbolic inputs for a model, in the structure that it takes."""
    return _placeholders(_input_specification(model, inputs))


def is_symbolic(value):
    """Tell whether a value is a symbolic tensor."""
    return isinstance(value, keras.KerasTensor)


def is_spatial(tensor):
    """Tell whether a tensor has more than one position."""
    sizes = tuple(tensor.shape)[1:-1]
    return len(sizes) > 0 and any(size is None or size > 1 for size in sizes)


def output_names(model, outputs):
    """Return the names of the outputs of a model, in the order of their flat list."""
    if isinstance(outputs, dict):
        return [str(key) for key in sorted(outputs)]
    names = getattr(model, "output_names", None)
    return list(names or [f"output_{i}" for i, _ in enumerate(keras.tree.flatten(outputs))])


def takes_training(model):
    """Tell whether the `call` of a subclassed model has an argument `training`."""
    return "training" in inspect.signature(call_of(model)).parameters


def _input_specification(model, inputs):
    if _compat.is_functional(model):
        return _compat.input_structure(model)
    if not model.built:
        raise invalid("model", "a built model", repr(model.name), "Call it once on a batch first.")
    if inputs is not None:
        return keras.tree.map_structure(_specification, inputs)
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        hint = "Pass a batch of them, as in `expose(model, inputs=x)`."
        raise invalid("inputs", f"the inputs of the subclassed model {model.name!r}", None, hint)
    return _from_shape(shape)


def _from_shape(shape):
    if isinstance(shape, dict):
        return {name: _from_shape(s) for name, s in shape.items()}
    if any(isinstance(size, list | tuple) for size in shape):
        return [_from_shape(s) for s in shape]
    return keras.KerasTensor((None, *shape[1:]), dtype=keras.config.floatx())


def _specification(value):
    value = value if hasattr(value, "dtype") else tf.convert_to_tensor(value)
    if getattr(value.shape, "rank", 0) is None:
        raise invalid("inputs", "inputs of a known rank", "a tensor of unknown shape")
    dtype = keras.backend.standardize_dtype(value.dtype)
    dtype = keras.config.floatx() if "int" in dtype or "float" in dtype else dtype
    return keras.KerasTensor((None, *value.shape[1:]), dtype=dtype)


def _placeholders(specification, name=None):
    if isinstance(specification, dict):
        return {key: _placeholders(value, key) for key, value in specification.items()}
    if isinstance(specification, list | tuple):
        return [_placeholders(value) for value in specification]
    name = name if isinstance(name, str) else specification.name
    shape, dtype = tuple(specification.shape), specification.dtype
    # Images of integers are masked, shifted and differentiated too.
    dtype = keras.config.floatx() if len(shape) > 3 and "int" in str(dtype) else dtype
    return keras.Input(batch_shape=shape, dtype=dtype, name=name)


def _plain(value):
    """Return the container that Keras tracks as a plain one, to be filled with stand-ins."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
