"""Reach into a model that takes TensorFlow tensors only, while it runs."""

import itertools

import keras
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable._checks import invalid
from keras_explainable.inspection import _heads
from keras_explainable.inspection._graphs import Call
from keras_explainable.inspection._graphs import Calls
from keras_explainable.inspection._graphs import call_of
from keras_explainable.inspection._graphs import is_spatial
from keras_explainable.inspection._graphs import shadow
from keras_explainable.inspection._graphs import split_activation
from keras_explainable.inspection._graphs import takes_training
from keras_explainable.inspection._redirecting import redirected_call

_ACTIVATIONS = {
    "Softmax": keras.activations.softmax,
    "LogSoftmax": keras.activations.log_softmax,
    "Sigmoid": keras.activations.sigmoid,
}


class Tap(keras.layers.Layer):
    """Runs a model and notes the calls of its layers, to return tensors inside it.

    Args:
        model: `keras.Model`, built, which is or holds a subclassed one.
        inputs: symbolic inputs, in the structure that it takes.
        split: function that tells which layers are opened into a linear one and their activation.

    Attributes:
        opened: `Calls` of the last run; after a call, without them.
        outputs: symbolic outputs of the model.
        picks: functions `(calls, outputs) -> tensor` of what a call returns; with none, it returns
            the outputs of the model.
    """

    def __init__(self, model, inputs, split=None):
        super().__init__(name=f"{model.name}_tap", autocast=False)
        self.opened = Calls(model)
        self.picks = ()
        self.taken = []
        self._split = split or (lambda _: False)
        self._structure = inputs
        self._replaced, self._value = (), None
        self._rules = {}
        self._inner = model.layers
        self._run = self._runner(model, "")
        self.built = True
        self.outputs = self.compute_output_spec(inputs)

    def call(self, inputs):
        """Run the model, and return what is picked."""
        self.opened.calls = []
        outputs = self._run(inputs)
        flat = keras.tree.flatten(outputs)
        self.taken = keras.tree.flatten(inputs)
        if not self.picks:
            self.opened.returned = flat
            return outputs
        picked = [pick(self.opened.calls, flat) for pick in self.picks]
        self.opened.calls = []
        return picked

    def _runner(self, model, path):
        """Return a function that runs a model with its calls noted, and doesn't hold the model."""

        def note(operation, *args, **kwargs):
            return self._note(operation, args, kwargs, path)

        if _compat.is_functional(model):
            graph = keras.Model(_compat.input_structure(model), _compat.output_structure(model))
            return lambda inputs, **_: _compat.run_graph(graph, inputs, note)
        copy = shadow(model, lambda layer, args, kwargs: note(layer, *args, **kwargs))
        options = {"training": False} if takes_training(model) else {}
        return lambda *args, **kwargs: call_of(copy)(*args, **(kwargs | options))

    def _note(self, layer, args, kwargs, path):
        path = f"{path}/{layer.name}" if path else layer.name
        args, kwargs = self._replace((args, kwargs), "inputs")
        if self._split(layer):
            before, after = split_activation(layer)
            linear = self._run_layer(before, args, kwargs, path)
            return self._run_layer(after, (linear,), {}, f"{path}/activation")
        return self._run_layer(layer, args, kwargs, path)

    def _run_layer(self, layer, args, kwargs, path):
        if isinstance(layer, keras.Model):
            run = self._runner(layer, path)
        else:
            rule = self._rules.get(len(self.opened.calls))
            run = layer if rule is None else redirected_call(layer, rule)
        outputs = self._replace(run(*args, **kwargs), "outputs")
        inputs = [t for t in keras.tree.flatten((args, kwargs)) if tf.is_tensor(t)]
        flat = keras.tree.flatten(outputs)
        self.opened.calls.append(Call(path, layer, inputs, flat, args, kwargs))
        return outputs

    def _replace(self, structure, link):
        """Put the value that `resuming` gives in the place of what is computed."""
        if self._value is None:
            return structure
        at = [j for i, where, j in self._replaced if (i, where) == (len(self.opened.calls), link)]
        count = itertools.count()

        def replace(leaf):
            return self._value if tf.is_tensor(leaf) and next(count) in at else leaf

        return keras.tree.map_structure(replace, structure)

    def resuming(self, tensor, num_outputs=1):
        """Return a function from inputs, and what stands for a tensor of the first run, to outputs.

        Args:
            tensor: tensor that the first run computed.

            num_outputs: number of those picked first, which are what is explained.

        Returns:
            function of a flat list, the inputs and the value of the tensor, to a list of outputs.
        """
        places = self._places(tensor)
        made = [place for place in places if place[1] == "outputs"][:1]
        picks = self.picks[:num_outputs]

        def resume(tensors):
            *inputs, self._value = tensors
            self._replaced = made or places
            self.opened.calls = []
            try:
                outputs = self._run(keras.tree.pack_sequence_as(self._structure, inputs))
                flat = keras.tree.flatten(outputs)
                return [pick(self.opened.calls, flat) for pick in picks]
            finally:
                self.opened.calls, self._value = [], None

        return resume

    def redirect(self, calls, rules):
        """Pass gradients through calls of the first run, in later runs, by rules or `None`."""
        numbers = [self._index(call) for call in calls]
        self._rules = {n: r for n, r in zip(numbers, rules, strict=True) if r is not None}

    def pick_logits(self, choice, output, before_activation=True):
        """Pick an output, without its activation, after those picked before.

        Args:
            choice: index among the flat outputs, or `None` for the endpoint `output`.
            output: endpoint, as `inspection.expose` takes it.
            before_activation: whether its activation is left out. Defaults to True.

        Returns:
            activation: function that was left out, or `None`.
            tensor: the tensor picked, as it was in the first run.
        """
        if choice is None:
            call, link = self.opened.locate(output, "outputs")
            tensor = (call.outputs if link == "output" else call.inputs)[0]
        else:
            tensor = self.opened.returned[choice]
        if not before_activation:
            self.pick(tensor)
            return None, tensor
        activation, call = None, self._producer(tensor)
        while activation is None:
            if call is None and tensor.op.type in _ACTIVATIONS:
                activation = _ACTIVATIONS[tensor.op.type]
                tensor = tensor.op.inputs[0]
            elif call is not None and _heads.is_activation(call.layer):
                activation = _heads.activation_of(call.layer)
                tensor = call.inputs[0]
            else:
                break
            call = self._producer(tensor)
        if activation is None and call is not None and _heads.is_fused(call.layer):
            index = self._index(call)
            self.picks = (*self.picks, lambda calls, _: _without_activation(calls[index]))
            return call.layer.activation, tensor
        self.pick(tensor)
        return activation, tensor

    def activations(self, endpoint, *logits):
        """Find activations.

        Args:
            endpoint: as `inspection.expose` takes it, or `None` for the last spatial activation.
            *logits: tensors that must depend on it.

        Returns:
            the tensor, as it was in the first run.
        """
        above = operations_above(*logits)
        if endpoint is None:
            found = (
                self._before_scores(above) if is_spatial(logits[0]) else self._last_spatial(above)
            )
            tensor = _heads.default_endpoint(found, self.opened)
        else:
            call, link = self.opened.locate(endpoint)
            tensor = (call.outputs if link == "output" else call.inputs)[0]
        if tensor.op.name not in above:
            hint = "Choose a layer that they are computed from, or another output."
            expected = "a layer that the logits depend on"
            raise invalid("arguments", expected, repr(endpoint), hint)
        return tensor

    def pick(self, tensor):
        """Pick a tensor of the first run, after those picked before."""
        self.picks = (*self.picks, self._pick(tensor))

    def ancestry(self, *tensors):
        """List the calls that tensors are computed by, first ones first, those of models not."""
        calls = self._calls_above(*tensors)
        return [call for call in calls if not isinstance(call.layer, keras.Model)]

    def shown_input(self, tensor):
        """Return the index of the input that a tensor is computed from, see `_shown_input`."""
        above = operations_above(tensor)
        indices = [i for i, taken in enumerate(self.taken) if taken.op.name in above]
        ranked = [i for i in indices if self.taken[i].shape.rank == tensor.shape.rank]
        return (ranked or indices or [0])[0]

    def linear_head(self, logits, endpoint):
        """Find the linear head, see `_heads.linear_head`."""
        calls = [
            c._replace(layer=_heads.linear_twin(c.layer)) if _heads.is_fused(c.layer) else c
            for c in self.opened.calls
        ]
        head, error = _heads.linear_head(calls, logits, endpoint)
        names = {c.layer.name: c.layer for c in self.opened.calls}
        return (names[head.name] if head is not None else None), error

    def _last_spatial(self, above):
        """Find what the last pooling layer takes, or what the last spatial layer gives."""
        for call in reversed(self.opened.calls):
            if isinstance(call.layer, keras.Model):
                continue
            for tensor in [*call.outputs, *call.inputs]:
                learned = any(getattr(c.layer, "weights", ()) for c in self._calls_above(tensor))
                if is_spatial(tensor) and tensor.op.name in above and learned:
                    return [tensor]
        return []

    def _before_scores(self, above):
        """Find what the last layer with weights makes dense outputs of."""
        calls = [c for c in self.opened.calls if not isinstance(c.layer, keras.Model)]
        for call in reversed(calls):
            made = any(tensor.op.name in above for tensor in call.outputs)
            if made and _heads.makes_scores(call.layer):
                return [tensor for tensor in call.inputs[:1] if is_spatial(tensor)]
        return []

    def _calls_above(self, *tensors):
        above = operations_above(*tensors)
        return [c for c in self.opened.calls if any(t.op.name in above for t in c.outputs)]

    def _producer(self, tensor):
        for call in self.opened.calls:
            if any(t is tensor for t in call.outputs) and not isinstance(call.layer, keras.Model):
                return call
        return None

    def _index(self, call):
        return next(i for i, c in enumerate(self.opened.calls) if c is call)

    def _pick(self, tensor):
        """Return the function that finds, in another run, the tensor that takes the same place."""
        for i, link, j in self._places(tensor):
            return lambda calls, _, at=(i, link, j): getattr(calls[at[0]], at[1])[at[2]]
        for j, candidate in enumerate(self.opened.returned):
            if candidate is tensor:
                return lambda _, outputs, at=j: outputs[at]
        raise ValueError(
            f"The logits of the subclassed model {self.opened.name!r} are computed by TensorFlow "
            "functions, out of reach of its layers. Let a layer return them, such as a Dense "
            "followed by a softmax."
        )

    def _places(self, tensor):
        """List where a tensor is among the calls: number of the call, side, position."""
        return [
            (i, link, j)
            for i, call in enumerate(self.opened.calls)
            for link in ("outputs", "inputs")
            for j, candidate in enumerate(getattr(call, link))
            if candidate is tensor
        ]


def _without_activation(call):
    return _heads.linear_twin(call.layer)(*call.args, **call.kwargs)


def operations_above(*tensors):
    """Return the names of the TensorFlow operations that tensors are computed by."""
    found, waiting = {tensor.op.name for tensor in tensors}, [tensor.op for tensor in tensors]
    while waiting:
        for source in waiting.pop().inputs:
            if source.op.name not in found:
                found.add(source.op.name)
                waiting.append(source.op)
    return found
