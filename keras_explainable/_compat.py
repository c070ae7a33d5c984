"""The only door to what Keras keeps private; `tests/unit/compat_test.py` notices a change."""

import types

import keras
from keras.src.models.functional import Functional

ATTENTIONS = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
)
# What Keras sets on an instance to wrap a method: it points back at the instance it was made for.
_WRAPPED_METHODS = ("build", "quantize", "train_function", "test_function", "predict_function")


def twin(operation, name, **attributes):
    """Return a copy of an operation that shares its state and has a call history of its own.

    Keras notes every symbolic call in the operation called, so a user's layer can't be called on
    new symbolic tensors and be left as it was found; its twin can.

    Args:
        operation: layer or `keras.Operation`, built.
        name: name of the twin, unique in the graph that it is used in.
        **attributes: attributes that differ in the twin, as in `activation=None`.

    Returns:
        an object of the class of `operation` that holds the very same variables.
    """
    copy = object.__new__(type(operation))
    state = {k: v for k, v in vars(operation).items() if k not in _WRAPPED_METHODS}
    copy.__dict__.update(state, name=name, _inbound_nodes=[], _outbound_nodes=[], **attributes)
    return copy


def run_graph(model, inputs, call):
    """Walk through a functional model, with `call` in place of calling its operations.

    Args:
        model: functional or sequential `keras.Model`, built.
        inputs: what the walk starts from, in the structure of the inputs of the model.
        call: `(operation, *args, **kwargs) -> outputs`, called once per call in the model.

    Returns:
        what `call` made of the outputs of the model, in their structure.
    """
    if isinstance(model, keras.Sequential):
        model = keras.Model(input_structure(model), output_structure(model))

    def bind(operation):
        return lambda *args, **kwargs: call(operation, *args, **kwargs)

    return model._run_through_graph(inputs, operation_fn=bind)


def symbolic_calls(model):
    """List the calls in a functional model, as they were when it was built.

    Args:
        model: functional or sequential `keras.Model`, built.

    Returns:
        list of triples of the operation, its `(args, kwargs)`, and the flat list of the symbolic
        tensors that it made, in the order in which `run_graph` calls.
    """
    calls = []

    def note(operation, *args, **kwargs):
        taken = [t for t in keras.tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)]
        for node in operation._inbound_nodes:
            if [id(t) for t in node.input_tensors] == [id(t) for t in taken]:
                break
        calls.append((operation, (args, kwargs), list(node.output_tensors)))
        return calls[-1][-1]

    run_graph(model, input_structure(model), note)
    return calls


def sublayers(layer):
    """List the layers inside a layer, at any depth."""
    if not isinstance(layer, keras.Layer):
        return []
    return list(layer._flatten_layers(include_self=False))


def is_composite(layer):
    """Tell whether a layer that Keras doesn't define is made of other layers."""
    is_own = type(layer).__module__.split(".")[0] == "keras"
    return not is_own and bool(sublayers(layer))


def holds_attention(layer):
    """Tell whether a layer is one of attention, or is made of layers among which there is one."""
    return any(isinstance(part, ATTENTIONS) for part in (layer, *sublayers(layer)))


def call_counts(model):
    """Count the symbolic calls of a model and of all its layers.

    Args:
        model: `keras.Model`.

    Returns:
        list of triples of a list of calls that Keras keeps, its length, and the layer's name.
    """
    layers = [model, *model._flatten_layers(include_self=False)]
    histories = [(h, x.name) for x in layers for h in (x._inbound_nodes, x._outbound_nodes)]
    return [(history, len(history), name) for history, name in histories]


def undo_calls(counts):
    """Forget symbolic calls made since `call_counts`, and return the names of their layers."""
    called = [name for history, length, name in counts if len(history) > length]
    for history, length, _ in counts:
        del history[length:]
    return called


def rebound(model, copy):
    """Return the attributes of a model that are methods of it, as methods of a copy."""
    return {
        name: types.MethodType(value.__func__, copy)
        for name, value in vars(model).items()
        if isinstance(value, types.MethodType) and value.__self__ is model
    }


def is_functional(model):
    """Tell whether a model is a graph of operations (functional, or sequential and built)."""
    if isinstance(model, keras.Sequential):
        own = type(model).call is not keras.Sequential.call
        return not own and getattr(model, "_functional", None) is not None
    return isinstance(model, Functional) and type(model).call is Functional.call


def has_graph(layer):
    """Tell whether a layer keeps a graph of operations, whether or not it is called by it."""
    return isinstance(layer, Functional) or getattr(layer, "_functional", None) is not None


def input_structure(model):
    """Return the symbolic inputs of a functional or sequential model as its user wrote them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def output_structure(model):
    """Return the symbolic outputs of a functional or sequential model as its user wrote them."""
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output
