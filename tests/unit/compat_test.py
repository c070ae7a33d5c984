"""The door to what Keras keeps private still opens, and what it is opened for stays as it was."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_explainable import _compat

X = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)


class Subclassed(keras.Model):
    """A model that is no graph."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


class SubclassedGraph(keras.Model):
    """A model with a class of its own that is a graph nevertheless."""

    def __init__(self):
        inputs = keras.Input((3,))
        super().__init__(inputs=inputs, outputs=layers.Dense(2)(inputs))


@pytest.fixture
def dense():
    layer = layers.Dense(2, activation="relu", name="dense")
    layer.build((None, 3))
    return layer


@pytest.fixture
def twice():
    """Make a model that calls a shared layer, a nested model, a function and the layer again."""
    shared = layers.Dense(3, name="shared")
    source = keras.Input((3,))
    inner = keras.Model(source, layers.Dense(3, name="inside")(source), name="inner")
    x = inputs = keras.Input((3,), name="x")
    x = inner(shared(x), training=False)
    return keras.Model({"x": inputs}, {"first": x, "second": shared(keras.ops.relu(x))})


def _count(operation):
    return len(operation._inbound_nodes), len(operation._outbound_nodes)


def _apply(operation, *args, **kwargs):
    return operation(*args, **kwargs)


def _array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_a_twin_shares_the_variables_of_the_original(dense):
    twin = _compat.twin(dense, "other")
    assert [id(v) for v in twin.weights] == [id(v) for v in dense.weights]
    dense.kernel.assign(np.full((3, 2), 2.0))
    expected = np.maximum(2 * X.sum(axis=1, keepdims=True), 0).repeat(2, axis=1)
    np.testing.assert_allclose(_array(twin(X)), expected, rtol=1e-6)


def test_a_twin_differs_in_its_name_and_the_attributes_given(dense):
    twin = _compat.twin(dense, "other", activation=keras.activations.linear)
    assert type(twin) is layers.Dense
    assert (twin.name, dense.name) == ("other", "dense")
    assert dense.activation is keras.activations.relu
    expected = X @ _array(dense.kernel)
    np.testing.assert_allclose(_array(twin(X)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(_array(dense(X)), np.maximum(expected, 0), rtol=1e-5, atol=1e-6)


def test_calling_a_twin_leaves_an_original_that_was_never_called_so(dense):
    twin = _compat.twin(dense, "other")
    outputs = twin(keras.Input((3,)))
    assert twin.output is outputs
    assert _count(dense) == (0, 0)
    with pytest.raises((AttributeError, ValueError), match="has no defined output"):
        _ = dense.output


def test_calling_a_twin_leaves_the_history_of_an_original_that_was_called(dense):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Softmax()(dense(inputs)))
    output, count, expected = dense.output, _count(dense), _array(model(X))
    twin = _compat.twin(dense, "other")
    assert _count(twin) == (0, 0)
    layers.ReLU()(twin(keras.Input((3,))))
    assert _count(twin) == (1, 1)
    assert dense.output is output
    assert _count(dense) == count == (1, 1)
    np.testing.assert_array_equal(_array(model(X)), expected)


def test_a_twin_of_an_operation_that_is_no_layer_has_a_history_of_its_own():
    source = keras.Input((3,))
    output = keras.ops.relu(source)
    found = []
    _compat.run_graph(keras.Model(source, output), X, lambda *call: found.append(call[0]))
    (operation,) = found
    assert not isinstance(operation, keras.Layer)
    twin = _compat.twin(operation, "other")
    assert twin(keras.Input((3,))) is twin.output
    assert operation.output is output
    assert _count(operation) == (1, 0)


@pytest.mark.parametrize("symbolic", [False, True])
def test_building_a_twin_leaves_its_original_unbuilt(symbolic):
    original = layers.Dense(2)
    twin = _compat.twin(original, "other")
    twin(keras.Input((3,)) if symbolic else X)
    assert twin.built
    assert not original.built


def test_a_twin_of_a_model_runs_its_call_with_the_attributes_given():
    model = Subclassed()
    expected = _array(model(X))
    twin = _compat.twin(model, "other", dense=lambda inputs: model.dense(inputs) + 1)
    np.testing.assert_allclose(_array(twin.call(X)), expected + 1, rtol=1e-6)
    np.testing.assert_array_equal(_array(model(X)), expected)


def test_running_a_graph_calls_once_per_call_in_order_with_nested_models_closed(twice):
    calls = []

    def note(operation, *args, **kwargs):
        calls.append((operation.name, args, kwargs.get("training")))
        return f"output {len(calls)}"

    outputs = _compat.run_graph(twice, {"x": "input"}, note)
    relu = calls[2][0]
    assert calls == [
        ("shared", ("input",), None),
        ("inner", ("output 1",), False),
        (relu, ("output 2",), None),
        ("shared", ("output 3",), None),
    ]
    assert outputs == {"first": "output 2", "second": "output 4"}


def test_running_a_graph_with_its_own_operations_is_calling_the_model(twice):
    counts = [_count(layer) for layer in twice.layers]
    outputs = _compat.run_graph(twice, {"x": keras.ops.convert_to_tensor(X)}, _apply)
    for name, expected in twice({"x": X}).items():
        np.testing.assert_allclose(_array(outputs[name]), _array(expected), rtol=1e-6)
    assert [_count(layer) for layer in twice.layers] == counts


def test_a_sequential_model_runs_as_its_layers_and_stays_as_it_was():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="a"), layers.ReLU(name="b")])
    counts, output = [_count(layer) for layer in model.layers], model.layers[0].output
    names = []

    def note(operation, x):
        names.append(operation.name)
        return operation(x)

    outputs = _compat.run_graph(model, keras.ops.convert_to_tensor(X), note)
    assert names == ["a", "b"]
    np.testing.assert_allclose(_array(outputs), _array(model(X)), rtol=1e-6)
    assert [_count(layer) for layer in model.layers] == counts
    assert model.layers[0].output is output


def _functional():
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Dense(2)(inputs))


def _called(model):
    model(X)
    return model


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (_functional, True),
        (SubclassedGraph, True),
        (lambda: keras.models.clone_model(_functional()), True),
        (lambda: keras.Sequential([keras.Input((3,)), layers.Dense(2)]), True),
        (lambda: _called(keras.Sequential([layers.Dense(2)])), True),
        (lambda: keras.Sequential([layers.Dense(2)]), False),
        (Subclassed, False),
        (lambda: _called(Subclassed()), False),
        (lambda: layers.Dense(2), False),
        (lambda: None, False),
    ],
    ids=[
        "functional",
        "subclassed graph",
        "clone",
        "sequential with an input",
        "sequential built by a call",
        "sequential unbuilt",
        "subclassed",
        "subclassed built by a call",
        "layer",
        "nothing",
    ],
)
def test_functional_models_are_told_from_others(build, expected):
    assert _compat.is_functional(build()) is expected


def test_inputs_have_the_structure_that_their_user_wrote(twice):
    functional = _functional()
    assert _compat.input_structure(functional) is functional.inputs[0]
    assert _compat.input_structure(twice) == {"x": twice.inputs[0]}
    sequential = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert _compat.input_structure(sequential) is sequential.inputs[0]


def test_symbolic_calls_are_listed_in_the_order_of_the_graph():
    inputs = keras.Input((3,))
    shared = keras.layers.Dense(3)
    first = shared(inputs)
    second = shared(first)
    model = keras.Model(inputs, keras.layers.Add()([first, second]))
    calls = _compat.symbolic_calls(model)
    assert [operation for operation, *_ in calls] == [shared, shared, model.layers[-1]]
    taken, made = ([[id(t) for t in keras.tree.flatten(c[i])] for c in calls] for i in (1, 2))
    assert taken == [[id(inputs)], [id(first)], [id(first), id(second)]]
    assert made == [[id(first)], [id(second)], [id(model.output)]]


def test_symbolic_calls_are_counted_and_forgotten():
    inputs = keras.Input((3,))
    inner = keras.layers.Dense(3, name="inner")
    model = keras.Model(inputs, keras.Sequential([keras.Input((3,)), inner])(inputs))
    counts = _compat.call_counts(model)
    assert _compat.undo_calls(counts) == []
    before = _count(inner)
    inner(keras.Input((3,)))
    assert _count(inner) == (before[0] + 1, before[1])
    assert _compat.undo_calls(counts) == ["inner"]
    assert _count(inner) == before


def test_methods_kept_in_attributes_are_bound_to_the_copy():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.kept = self.method
            self.other = keras.activations.relu

        def method(self):
            return self

    model, copy = Model(), object()
    (name, method), *rest = _compat.rebound(model, copy).items()
    assert (name, rest, method()) == ("kept", [], copy)


def test_a_model_with_a_call_of_its_own_is_no_graph():
    class Doubled(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(3)(inputs)
    assert _compat.is_functional(keras.Model(inputs, outputs))
    assert not _compat.is_functional(Doubled(inputs, outputs))
