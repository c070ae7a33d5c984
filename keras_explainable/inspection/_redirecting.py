"""Pass gradients back through an operation by a rule of one's own."""

import functools

import keras
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable.inspection._graphs import is_symbolic

# The scope of the TensorFlow operations whose gradient is another one.
MARK = "redirected"


class Redirected(keras.layers.Layer):
    """Does what an operation does, with another gradient.

    Args:
        operation: layer or `keras.Operation` that returns one tensor.
        rule: see `redirect`.
        args: positional arguments of its call.
        kwargs: keyword arguments of its call.
        output: symbolic tensor that the operation returns for them.
    """

    def __init__(self, operation, rule, args, kwargs, output):
        # A type of its own would be forced on what the operation takes.
        super().__init__(name=f"{operation.name}_{MARK}", autocast=False)
        self.operation = operation
        self._rule = rule
        # Symbolic tensors would keep alive the graph that they are of.
        self._arguments = keras.tree.map_structure(
            lambda leaf: _Place() if is_symbolic(leaf) else leaf, (args, kwargs)
        )
        self._specification = tuple(output.shape), output.dtype
        self.built = True

    def compute_output_spec(self, tensors):
        """Return what the operation returns, which takes long to find out anew."""
        del tensors
        shape, dtype = self._specification
        return keras.KerasTensor(shape, dtype)

    def call(self, tensors):
        """Call the operation on the tensors among its arguments."""
        tensors = iter(tensors)
        args, kwargs = keras.tree.map_structure(
            lambda leaf: next(tensors) if isinstance(leaf, _Place) else leaf, self._arguments
        )
        return redirected_call(self.operation, self._rule)(*args, **kwargs)


class _Place:
    """Stands where a tensor goes."""


def redirected_call(operation, rule):
    """Return the function that does what an operation does, with another gradient.

    Args:
        operation: layer or `keras.Operation` that returns one tensor.
        rule: see `redirect`.
    """

    def call(*args, **kwargs):
        flat = keras.tree.flatten((args, kwargs))
        floats = (tf.is_tensor(leaf) and leaf.dtype.is_floating for leaf in flat)
        places = [i for i, is_float in enumerate(floats) if is_float]

        def run(tensors):
            for place, tensor in zip(places, tensors, strict=True):
                flat[place] = tensor
            given, named = keras.tree.pack_sequence_as((args, kwargs), flat)
            return operation(*given, **named)

        return redirect(run, rule, [flat[place] for place in places])

    return call


def redirect(run, rule, tensors):
    """Run a function whose gradient follows a rule.

    Args:
        run: function from a list of tensors to a tensor.
        rule: function `(pull, gradient, inputs, output) -> gradients` of the gradient by what `run`
            returns, of the tensors and of what it returns; `pull` is the ordinary way back, from a
            gradient by the output to a list of gradients by the inputs.
        tensors: list of float tensors.

    Returns:
        what `run` returns.
    """
    tensors = list(tensors)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        with tf.name_scope(MARK):
            output = run(tensors)

    def pull(gradient):
        return tape.gradient(
            output, tensors, gradient, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    @tf.custom_gradient
    def redirected(value, *_):
        # TensorFlow keeps this function for good: layers and variables are not to be in it.
        return value, lambda gradient: [None, *rule(pull, gradient, tensors, output)]

    return redirected(tf.stop_gradient(output), *tensors)


def traced(exposed):
    """Return the graph of TensorFlow operations that an exposed model runs."""
    signature = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), exposed.input
    )
    run = tf.function(functools.partial(exposed, training=False), autograph=False)
    return run.get_concrete_function(signature).graph


def redirected_graph(inputs, output, calls, rules):
    """Compute a symbolic tensor anew, with other gradients.

    Args:
        inputs: symbolic inputs.
        output: tensor.
        calls: calls that it is computed by, as `Graph.ancestry` lists them.
        rules: rule of each, or `None`.

    Returns:
        dict from the id of each tensor that the calls make to the new one in its place.
    """
    chosen = {id(call.layer): rule for call, rule in zip(calls, rules, strict=True)}
    made = {}

    def call(operation, *args, **kwargs):
        rule, old = chosen.get(id(operation)), keras.tree.flatten(operation.output)
        if rule is None:
            outputs = operation(*args, **kwargs)
        else:
            taken = [t for t in keras.tree.flatten((args, kwargs)) if is_symbolic(t)]
            outputs = Redirected(operation, rule, args, kwargs, old[0])(taken)
        made.update(zip(map(id, old), keras.tree.flatten(outputs), strict=True))
        return outputs

    _compat.run_graph(keras.Model(inputs, output), inputs, call)
    return made
