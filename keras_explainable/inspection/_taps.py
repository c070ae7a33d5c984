"""Reach into a model that takes TensorFlow tensors only, while it runs."""

import itertools

import keras
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable._checks import invalid
from keras_explainable.inspection import _heads
from keras_explainable.inspection import _tokens
from keras_explainable.inspection._graphs import Call
from keras_explainable.inspection._graphs import Calls
from keras_explainable.inspection._graphs import call_of
from keras_explainable.inspection._graphs import is_spatial
from keras_explainable.inspection._graphs import open_explained
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
        attends: whether layers of attention return their scores too.

    Attributes:
        scores: after the first run, list of the tensors that are attention scores.
        opened: `Calls` of the last run; after a call, without them.
        outputs: symbolic outputs of the model.
        picks: functions `(calls, outputs) -> tensor` of what a call returns; with none, it returns
            the outputs of the model.
    """

    def __init__(self, model, inputs, split=None, attends=False):
        super().__init__(name=f"{model.name}_tap", autocast=False)
        self.opened = Calls(model)
        self.picks = ()
        self.taken = []
        self._split = split or (lambda _: False)
        self._structure = inputs
        self._replaced, self._value = (), None
        self._rules = {}
        self._attends, self.scores = attends, []
        # Where tokens are arranged and put back, and what they are arranged to in this run.
        self._spliced, self._arranged, self._restored = {}, {}, {}
        self._inner = model.layers
        self._run = self._runner(model, "")
        self.built = True
        self.outputs = self.compute_output_spec(inputs)

    def call(self, inputs):
        """Run the model, and return what is picked."""
        self.opened.calls, self._arranged, self._restored = [], {}, {}
        outputs = self._run(inputs)
        flat = keras.tree.flatten(outputs)
        self.taken = keras.tree.flatten(inputs)
        if not self.picks:
            self.opened.returned = flat
            return outputs
        picked = [pick(self.opened.calls, flat) for pick in self.picks]
        self.opened.calls, self._arranged, self._restored = [], {}, {}
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

        def run(*args, **kwargs):
            if not options:
                kwargs.pop("training", None)
            return call_of(copy)(*args, **(kwargs | options))

        return run

    def _note(self, layer, args, kwargs, path):
        path = f"{path}/{layer.name}" if path else layer.name
        args, kwargs = self._replace((args, kwargs), "inputs")
        if self._split(layer):
            before, after = split_activation(layer)
            linear = self._run_layer(before, args, kwargs, path)
            return self._run_layer(after, (linear,), {}, f"{path}/activation")
        return self._run_layer(layer, args, kwargs, path)

    def _run_layer(self, layer, args, kwargs, path):
        scores = []
        if isinstance(layer, keras.Model):
            outputs = self._runner(layer, path)(*args, **kwargs)
        elif hasattr(layer, "explained_outputs"):
            outputs = open_explained(
                layer, args, kwargs, lambda part, a, k: self._note(part, a, k, path)
            )
        elif self._attends and isinstance(layer, _compat.ATTENTIONS):
            outputs, *scores = layer(*args, **{**kwargs, "return_attention_scores": True})
            outputs = (outputs, *scores) if kwargs.get("return_attention_scores") else outputs
        else:
            rule = self._rules.get((len(self.opened.calls), path))
            if rule is None:
                outputs = self._run_parts(layer, args, kwargs, path)
            else:
                outputs = redirected_call(layer, rule)(*args, **kwargs)
        outputs = self._replace(outputs, "outputs")
        inputs = [t for t in keras.tree.flatten((args, kwargs)) if tf.is_tensor(t)]
        flat = keras.tree.flatten(outputs)
        flat += [t for t in scores if all(t is not other for other in flat)]
        self.scores = [*self.scores, *scores] if not self.picks else []
        self.opened.calls.append(Call(path, layer, inputs, flat, args, kwargs))
        return outputs

    def _run_parts(self, layer, args, kwargs, path):
        """Run the layers inside one that attends, or that layer where this fails."""
        opens = self._attends or _compat.holds_attention(layer)
        if not opens or not _compat.is_composite(layer):
            return layer(*args, **kwargs)
        known, scores = len(self.opened.calls), self.scores
        try:
            return self._runner(layer, path)(*args, **kwargs)
        except Exception:  # Whatever its `call` does, it may be run as it is.
            del self.opened.calls[known:]
            self.scores = scores
            return layer(*args, **kwargs)

    def _replace(self, structure, link):
        """Put other values, as of `resuming`, in the place of what is computed."""
        if self._value is None and not self._spliced:
            return structure
        number, count = len(self.opened.calls), itertools.count()

        def replace(leaf):
            if not tf.is_tensor(leaf):
                return leaf
            place = number, link, next(count)
            if self._value is not None and place in self._replaced:
                _, arrangement = self._spliced.get(place, (None, None))
                return arrangement.restore(leaf, self._value) if arrangement else self._value
            return self._splice(leaf, *self._spliced[place]) if place in self._spliced else leaf

        return keras.tree.map_structure(replace, structure)

    def _splice(self, tokens, number, arrangement):
        """Arrange tokens, once in a run, and put them back."""
        if id(tokens) not in self._restored:
            grid = self._arranged[number] = arrangement.arrange(tokens)
            self._restored[id(tokens)] = tokens, arrangement.restore(tokens, grid)
        return self._restored[id(tokens)][1]

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
        return self._resume_at(made or places, self.picks[:num_outputs])

    def _resume_at(self, places, picks):
        def resume(tensors):
            *inputs, self._value = tensors
            self._replaced = places
            self.opened.calls, self._arranged, self._restored = [], {}, {}
            try:
                outputs = self._run(keras.tree.pack_sequence_as(self._structure, inputs))
                flat = keras.tree.flatten(outputs)
                return [pick(self.opened.calls, flat) for pick in picks]
            finally:
                self.opened.calls, self._value = [], None
                self._arranged, self._restored = {}, {}

        return resume

    def redirect(self, calls, rules):
        """Pass gradients through calls of the first run, in later runs, by rules or `None`."""
        numbers = [self._index(call) for call in calls]
        places = [(number, call.path) for number, call in zip(numbers, calls, strict=True)]
        self._rules = {p: rule for p, rule in zip(places, rules, strict=True) if rule is not None}

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
            places = self.places(*logits)
            tensor = _tokens.not_only_read(self.ancestry(*logits), tensor, places)
            tensor = self.of_input_rank(tensor, places)
        else:
            call, link = self.opened.locate(endpoint)
            tensor = (call.outputs if link == "output" else call.inputs)[0]
        if tensor.op.name not in above:
            hint = "Choose a layer that they are computed from, or another output."
            expected = "a layer that the logits depend on"
            raise invalid("arguments", expected, repr(endpoint), hint)
        return tensor

    def of_input_rank(self, tensor, places):
        """Return what takes the place of activations by default, see `_tokens.of_input_rank`."""
        rank = self.taken[self.shown_input(tensor)].shape.rank
        return _tokens.of_input_rank(self.ancestry(tensor), tensor, places, rank)

    def pick(self, tensor, arrangement=None):
        """Pick a tensor of the first run, after those picked before, tokens arranged."""
        number = len(self.picks)
        if arrangement is None:
            self.picks = (*self.picks, self._pick(tensor))
            return
        places = self._places(tensor)
        made = [place for place in places if place[1] == "outputs"][:1]
        self._spliced |= dict.fromkeys(made or places, (number, arrangement))
        self.picks = (*self.picks, lambda *_: self._arranged[number])

    def scores_above(self, *logits):
        """List the attention scores of all tokens to all that logits are computed from."""
        above = operations_above(*logits)
        found = [t for t in self.scores if t.op.name in above and t.shape.rank > 2]
        return [t for t in found if t.shape[-1] == t.shape[-2] != 1]

    def is_pooled(self, *logits):
        """Tell whether all tokens that the head takes count alike."""
        last = self._last_spatial(operations_above(*logits))
        return any(_tokens.is_pooled(self.opened.calls, tensor) for tensor in last)

    def places(self, *logits):
        """Return the `Places` of the tokens that logits are computed from."""
        above = operations_above(*logits)
        operations = [o for o in logits[0].op.graph.get_operations() if o.name in above]
        calls = [Call(o.name, o, list(o.inputs), list(o.outputs)) for o in operations]
        return _tokens.Places(calls)

    def ancestry(self, *tensors):
        """List the calls that tensors are computed by, first ones first, those opened not."""
        calls = [c for c in self._calls_above(*tensors) if not isinstance(c.layer, keras.Model)]
        opened = {path for call in calls for path in _paths_above(call.path)}
        return [c for c in calls if not (_compat.is_composite(c.layer) and c.path in opened)]

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
            opened = isinstance(call.layer, keras.Model) or hasattr(call.layer, "explained_outputs")
            if any(t is tensor for t in call.outputs) and not opened:
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


def _paths_above(path):
    """List the paths of the models and layers that a layer is in."""
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


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
