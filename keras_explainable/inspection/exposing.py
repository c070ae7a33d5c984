"""Make a model return its logits and activations."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable import _showing
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._typing import Inputs
from keras_explainable._typing import Layers
from keras_explainable._typing import Output
from keras_explainable._typing import Reshape
from keras_explainable.inspection import _biases
from keras_explainable.inspection import _fronts
from keras_explainable.inspection import _heads
from keras_explainable.inspection import _layouts
from keras_explainable.inspection import _targets
from keras_explainable.inspection import _tokens
from keras_explainable.inspection._graphs import Call
from keras_explainable.inspection._graphs import Graph
from keras_explainable.inspection._graphs import Unreachable
from keras_explainable.inspection._graphs import is_spatial
from keras_explainable.inspection._graphs import output_names
from keras_explainable.inspection._graphs import placeholders
from keras_explainable.inspection._redirecting import Redirected
from keras_explainable.inspection._redirecting import redirected_graph
from keras_explainable.inspection._taps import Tap

_NO_HEAD = (None, "a function of the outputs is explained")


class Exposed(keras.Model):
    """A model that returns `[logits, *activations]`, made by `expose`.

    Its layers share the weights of the model that it was made from, which it leaves as it was.

    Attributes:
        activation: what turns the logits into the predictions of the original model, a function of
            tensors; `None` where its output layer has no activation.
        head: weak reference to the layer that maps the averaged activations linearly to the logits;
            `None` where there is no such layer.
        head_error: why there is none, a clause; empty where there is one, or where the averaged
            activations are the logits.
        input_index: index, among the flattened inputs, of the input that the activations show.
        input_indices: the same for each of the activations.
        channels_first: indices, among the flattened inputs, of those that the original model takes
            with channels first, and this one with channels last.
        offsets: dict from the path of each biased layer to a function that reads what it adds to
            its input, in the order of the activations; empty but for `expose_biases`.
        arrange: function from tokens `(batch, tokens, channels)` to `(batch, *grid, channels)`;
            `None` but for `expose_attention`.
        query: index of the token that the logits are read from, or a tuple of several; `None`
            where they are of all tokens, or of any, which a target chooses.
        gradient_rule: by which rule gradients go through it, see `expose_guided`; `None` where
            they are the gradients of the model.
        guide: another `Exposed` model of the same one, for a method that needs two.
        own_inputs: symbolic inputs, in the structure that the original model takes them in, without
            the data of a target that follow.
        mirrored_indices: indices, among the flattened inputs, of data with positions.
        has_fixed_places: whether a target says that images can't be mirrored or resized.
        front: model of the first layers alone, which returns the activations, an affine function of
            the input; `None` but for `expose_affine`.
        limits: ranges of the data of a target, as `inspection.Target.check` takes them.
    """

    activation: Callable | None = None
    head: weakref.ref | None = None
    head_error: str = "the model exposes no activations"
    input_index: int = 0
    input_indices: tuple[int, ...] = ()
    channels_first: tuple[int, ...] = ()
    offsets: dict[str, Callable] = {}  # noqa: RUF012
    arrange: Callable | None = None
    query: int | tuple[int, ...] | None = None
    gradient_rule: str | None = None
    guide: Exposed | None = None
    mirrored_indices: tuple[int, ...] = ()
    has_fixed_places: bool = False
    front: keras.Model | None = None
    limits: tuple = ()
    _own_inputs: Any = None
    _resume: Any = None

    def __repr__(self):
        """Tell what is returned."""
        outputs = keras.tree.flatten(getattr(self, "outputs", None) or [])
        if not outputs:
            return super().__repr__()
        logits, *activations = (tuple(output.shape) for output in outputs)
        said = f"activations {', '.join(map(str, activations[:2]))}" if activations else ""
        more = f" and {len(activations) - 2} more" if len(activations) > 2 else ""
        parts = [repr(self.name), f"logits {logits}", *[said + more] * bool(said)]
        return _showing.line(self, *parts)

    @property
    def own_inputs(self) -> Any:
        """What the original model takes."""
        return self.input if self._own_inputs is None else self._own_inputs()

    def resume(self, inputs: Inputs, activations: tf.Tensor, number: int = 0) -> tf.Tensor:
        """Compute the logits from given activations, running what comes after them.

        What the logits take from the inputs beside the activations is run too; of a subclassed
        model that calls TensorFlow functions, all is.

        Args:
            inputs: what the model takes.
            activations: tensor in place of activations that the model returns.
            number: which of its activations that is. Defaults to the first.

        Returns:
            logits: tensor `(batch, units)`.
        """
        return self._resume(number, [*keras.tree.flatten(inputs), activations])


def expose(
    model: keras.Model,
    arguments: Layers = None,
    outputs: Output = None,
    *,
    inputs: Inputs | None = None,
    reshape: Reshape = None,
) -> Exposed:
    """Build the model that returns the logits of a model and the activations inside it.

    Nested models are opened at any depth, and layers share their weights with the model given,
    which is left exactly as found. The **logits** are pre-activation scores: a softmax, sigmoid or
    other activation at the end of the model, as a layer or within the last Dense or convolution, is
    left out. A model with channels first gets one that takes and returns tensors with channels
    last. An **endpoint** is one of

    - a layer's name or its path through nested models, `"post_relu"` or `"resnet50v2/post_relu"`;
    - an index into `model.layers`, a layer, or a `KerasTensor` of the model;
    - a dict with `"layer"` (any of the above) or `"name"`, and optionally `"link"` (`"output"`,
      default, or `"input"`) and `"node"`, which call it is of a layer called more than once.

    Args:
        model: `keras.Model`, functional, sequential or subclassed, built.
        arguments: endpoint of the activations, or a list of endpoints, or `()` for none. `None`
            takes the last spatial activation: what enters the global pooling (or flattening) that
            feeds the logits. Where these read a class token, it is what enters the last attention,
            and where a sequence of pooled frames is left, what has all axes of the input.
        outputs: which output the logits are of: its index among the outputs of the model, its name,
            or an endpoint. `None` takes the only output, or the first one with a warning. A
            function of the outputs that returns `(batch, units)`, or a target (`ke.targets`), gives
            what takes the place of logits; the data of a target are further inputs. They get the
            outputs of a model with channels first with channels last.
        inputs: batch of inputs, needed only for a subclassed model whose input shape Keras doesn't
            know.
        reshape: how tokens of an image, activations `(batch, tokens, channels)`, are arranged as
            `(batch, height, width, channels)`: `None` takes the grid of the patch embedding,
            `(height, width)` the last tokens, a function selects and permutes them, and `False`
            leaves them.

    Returns:
        an `Exposed` model with outputs `[logits, *activations]`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if the model is not built, an endpoint doesn't exist or is ambiguous, the logits
            don't depend on an endpoint, there is no spatial activation, or it isn't known where
            tokens are in the image.

    Example:
        >>> import keras, keras_explainable as ke
        >>> backbone = keras.applications.MobileNetV2(
        ...     weights=None, include_top=False, pooling="avg", input_shape=(96, 96, 3))
        >>> head = keras.layers.Dense(5, activation="softmax")
        >>> model = keras.Sequential([keras.Input((96, 96, 3)), backbone, head])
        >>> exposed = ke.inspection.expose(model)
        >>> [tuple(tensor.shape) for tensor in exposed.outputs]
        [(None, 5), (None, 3, 3, 1280)]
    """
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    listed = list(arguments) if isinstance(arguments, list | tuple) else [arguments]
    return _expose(model, listed, outputs, inputs, reshape=reshape)


def expose_rectified(
    model: keras.Model,
    outputs: Output = None,
    *,
    inputs: Inputs | None = None,
    reshape: Reshape = None,
) -> Exposed:
    """Build the model that returns logits and every spatial activation that enters them.

    Activations are what the activation functions return, as layers, as `keras.ops` functions or
    within convolutions, at more than one position. In a model without any, it is the one that
    `expose` takes by default.

    Args:
        model: as in `expose`.
        outputs: as in `expose`.
        inputs: as in `expose`.
        reshape: as in `expose`.

    Returns:
        an `Exposed` model.

    Raises:
        TypeError: as `expose`.
        ValueError: as `expose`.
    """
    return _expose(model, _rectified, outputs, inputs, reshape=reshape)


def expose_biases(
    model: keras.Model, outputs: Output = None, *, inputs: Inputs | None = None
) -> Exposed:
    """Build the model that returns logits and what every layer with a bias returns.

    These are Dense layers and convolutions with a bias, before their activation, batch
    normalizations, `Rescaling` and `Normalization` layers, and additions of constants.

    Args:
        model: as in `expose`.
        outputs: as in `expose`.
        inputs: as in `expose`.

    Returns:
        an `Exposed` model with `offsets`.

    Raises:
        TypeError: as `expose`.
        ValueError: as `expose`.
    """
    split = _biases.is_biased_and_activated
    return _expose(model, _biases.outputs_of_biased, outputs, inputs, split, reshape=False)


def expose_affine(
    model: keras.Model, outputs: Output = None, *, inputs: Inputs | None = None
) -> Exposed:
    """Build the model that returns logits and what its first layers, all affine, make of the input.

    These are convolutions and Dense layers without an activation, batch normalizations, paddings,
    and `Rescaling` and `Normalization` layers, one after the other. The model returns the logits
    alone where none of the first two are among these, where the logits depend on several inputs,
    and for a target, or a subclassed model that calls TensorFlow functions.

    Args:
        model: as in `expose`.
        outputs: as in `expose`.
        inputs: as in `expose`.

    Returns:
        an `Exposed` model, with a `front` if it returns them.

    Raises:
        TypeError: as `expose`.
        ValueError: as `expose`.
    """
    # A target may take what these layers make beside what comes of it.
    choice = () if _targets.as_target(outputs) else _fronts.last_affine
    exposed = _expose(model, choice, outputs, inputs, reshape=False)
    if len(exposed.outputs) > 1:
        exposed.front = keras.Model(keras.tree.flatten(exposed.inputs), exposed.outputs[1])
    return exposed


def head_kernel(model: Exposed) -> tf.Tensor:
    """Read the kernel of the linear head of an exposed model.

    A head that uses another kernel than it stores says so with an attribute `effective_kernel`.

    Args:
        model: `Exposed` model.

    Returns:
        float32 tensor `(kernels, units)`, such that `logits = mean(activations) @ kernel + bias`.

    Raises:
        ValueError: if the head is not one global average pooling and one linear layer.
    """
    error = getattr(model, "head_error", "the model was not made by `ke.inspection.expose`")
    if error:
        raise ValueError(
            "CAM needs logits that are one linear layer away from globally averaged activations, "
            f"but {error}. Use `gradcam`, or a MinMax-Grad-CAM, its generalizations to any model."
        )
    if model.head is None:
        return tf.eye(model.outputs[0].shape[-1])
    return tf.cast(_heads.linear_kernel(model.head()), tf.float32)


def _expose(model, choice, outputs, inputs, split=None, rules=None, reshape=None):
    """Expose the endpoints in a list, or those that a function finds among the calls of a model.

    Args:
        model: `keras.Model`.
        choice: list of endpoints, or function from the calls of the model to a list of tensors.
        outputs: as in `expose`.
        inputs: as in `expose`.
        split: function that tells which layers are opened into a linear one and their activation.
        rules: function from the calls of the model, and a function from a tensor to those that it
            is computed by, to the rules of their gradients, see `redirect`; `None` for a call that
            keeps its own.
        reshape: as in `expose`.

    Returns:
        an `Exposed` model.
    """
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    _tokens.check_reshape(reshape)
    opens = None if rules is None else _compat.is_composite
    try:
        graph = Graph(model, inputs, split, opens)
    except Unreachable as unreachable:
        cause = unreachable.__cause__
        return _expose_by_tap(model, choice, outputs, inputs, split, rules, reshape, cause)

    found = explained(model, graph, outputs)
    calls = graph.ancestry(found.tensors)
    if (callable(choice) or None in choice) and _tokens.hides_attention(calls):
        graph = Graph(model, inputs, split, _compat.is_composite)
        found = explained(model, graph, outputs)
        calls = graph.ancestry(found.tensors)
    dense = [t for t in found.tensors if found.splice and is_spatial(t)]
    endpoints = _endpoints(graph, calls, choice, dense)
    shown = [_shown_input(graph, calls, endpoint) for endpoint in endpoints]
    made = {}
    if rules:
        redirected = graph.ancestry(found.logits)
        chosen = rules(redirected, functools.partial(_calls_above, redirected))
        made = redirected_graph(graph.inputs, found.logits, redirected, chosen)
    logits, *exposing = (made.get(id(t), t) for t in [found.logits, *endpoints])
    images = [keras.tree.flatten(graph.inputs)[index] for index in shown]
    arranged = _arrangements(endpoints, images, _tokens.Places(calls), reshape)
    logits, exposing = _tokens.splice(graph.inputs, logits, exposing, arranged)
    exposed = exposed_model(model, graph, found._replace(logits=logits), exposing)
    if choice is _biases.outputs_of_biased:
        exposed.offsets = _biases.offsets(calls, graph.paths())
        _biases.warn_of_others(calls, graph.paths())
    if endpoints:
        head = _heads.linear_head(calls, found.logits, endpoints[0])
        _set_head(exposed, *(_NO_HEAD if found.splice else _with_all_pooled(*head, arranged)))
        set_inputs(exposed, graph, calls, endpoints)
    return exposed


class Explained(NamedTuple):
    """What is explained of an opened model.

    Attributes:
        logits: symbolic tensor, or what a target makes of the outputs.
        activation: what was left out of it, or `None`.
        tensors: what it is computed from by a target; without one, the logits.
        splice: how a target is fitted to the model, or `None`.
        own_inputs: symbolic inputs of the model, without the data of a target.
    """

    logits: object
    activation: object
    tensors: list
    splice: object
    own_inputs: object


def exposed_model(model, graph, found, endpoints):
    """Build the model that returns what is explained, and endpoints.

    Args:
        model: `keras.Model`.
        graph: `Graph` of it.
        found: `Explained`.
        endpoints: list of symbolic tensors.

    Returns:
        an `Exposed` model.
    """
    outputs = [_flat(found.logits), *endpoints]
    exposed = Exposed(graph.inputs, outputs, name=f"{model.name}_exposed")
    exposed.activation = found.activation
    exposed.channels_first = graph.channels_first
    exposed._resume = _resuming(exposed.inputs, exposed.outputs)
    if found.splice:
        _set_target(exposed, found.splice, found.own_inputs)
    return exposed


def set_inputs(exposed, graph, calls, endpoints):
    """Note which inputs endpoints show."""
    _set_inputs(exposed, [_shown_input(graph, calls, endpoint) for endpoint in endpoints])


def explained(model, graph, outputs):
    """Find what is explained of an opened model; the data of a target become inputs of the graph.

    Args:
        model: `keras.Model`.
        graph: `Graph` of it.
        outputs: as in `expose`.

    Returns:
        an `Explained`.
    """
    target, own = _targets.as_target(outputs), graph.inputs
    if target is None:
        tensor, activation = _logits(graph, _output(model, graph.outputs, outputs), outputs)
        return Explained(tensor, activation, [tensor], None, own)

    def take(*arguments):
        return _logits(graph, *arguments)[::-1]

    splice = _targets.splice(target, *_taken(model, graph.outputs, target, take))
    graph.inputs = _targets.with_data(own, splice.data)
    values = splice.layer(splice.used, splice.data)
    return Explained(values, splice.activation, splice.used, splice, own)


def _endpoints(graph, calls, choice, dense):
    """Find the endpoints in a list, or those that a function finds among calls.

    Args:
        graph: `Graph`.
        calls: calls that what is explained is computed by.
        choice: list of endpoints, `None` among them, or function from calls to one.
        dense: outputs with positions that a target takes.

    Returns:
        list of symbolic tensors.
    """
    reached = {id(t) for call in calls for t in [*call.inputs, *call.outputs]}
    places, endpoints = _tokens.Places(calls), []

    def ranked(endpoint):
        taken = keras.tree.flatten(graph.inputs)[_shown_input(graph, calls, endpoint)]
        above = _calls_above(calls, endpoint)[::-1]
        return _tokens.of_input_rank(above, endpoint, places, len(taken.shape))

    for argument in choice(calls) if callable(choice) else choice:
        if argument is None:
            found = _heads.before_scores(calls, dense) if dense else _heads.last_spatial(calls)
            found = [ranked(tensor) for tensor in found] if dense else found
            if dense and len(found) > 1:
                # Each branch makes scores of its own, as the levels of a detector do.
                endpoints += _of_one_input(found, [_shown_input(graph, calls, e) for e in found])
                continue
            endpoint = _tokens.not_only_read(calls, _heads.default_endpoint(found, graph), places)
            endpoint = ranked(endpoint)
        else:
            endpoint = argument if callable(choice) else graph.endpoint(argument)
        if id(endpoint) not in reached:
            hint = "Choose a layer that they are computed from, or another output."
            expected = "a layer that the logits depend on"
            raise invalid("arguments", expected, repr(argument), hint)
        endpoints.append(endpoint)
    if choice is _rectified:
        endpoints = _of_whole_rank(endpoints, ranked)
        endpoints = _of_one_input(endpoints, [_shown_input(graph, calls, e) for e in endpoints])
    return endpoints


def _of_whole_rank(endpoints, ranked):
    """Keep the endpoints with the axes of the input, or what one is computed from that has them.

    Args:
        endpoints: list of tensors.
        ranked: function from a tensor to what takes its place by default.
    """
    kept = [endpoint for endpoint in endpoints if ranked(endpoint) is endpoint]
    return kept or [ranked(endpoints[-1])]


def _with_all_pooled(head, error, arranged):
    """Refuse a head that pools more than what its activations are arranged to."""
    if not error and arranged[0] is not None and not arranged[0].is_all:
        return None, "tokens that are no patches, such as a class token, are pooled too"
    return head, error


def _arrangements(endpoints, shown, places, reshape):
    """Return how each endpoint is arranged that is a sequence of tokens of an image, or `None`."""
    if reshape is False:
        return [None] * len(endpoints)
    found = []
    for endpoint, taken in zip(endpoints, shown, strict=True):
        rank = len(taken.shape)
        if 3 < len(endpoint.shape) < rank:
            warnings.warn(
                f"The map has other axes than the input and isn't resized: the activations are "
                f"{tuple(endpoint.shape)} for an input {tuple(taken.shape)}; pass `layer=` to "
                "choose others, or `reshape=False` to keep them.",
                stacklevel=5,
            )
        if len(endpoint.shape) != 3 or rank < 4:
            found.append(None)
            continue
        place = places.of(endpoint)
        found.append(_tokens.arrangement(tuple(endpoint.shape), place, reshape, rank - 2))
    return found


def _expose_by_tap(model, choice, outputs, inputs, split, rules, reshape, cause):
    """Expose a model that is, or holds, a subclassed one that can't run on symbolic tensors."""
    tap, symbolic = tapped(model, inputs, cause, split=split)
    activation, tensors, splice = explained_by_tap(model, tap, outputs)
    calls = tap.ancestry(*tensors)
    if choice is _fronts.last_affine:
        choice = ()  # TensorFlow functions may take what a layer returns, too.
    endpoints = [
        argument
        if callable(choice) and argument is not None
        else tap.activations(argument, *tensors)
        for argument in (choice(calls) if callable(choice) else choice)
    ]
    if choice is _rectified:
        places = tap.places(*tensors)
        endpoints = _of_whole_rank(endpoints, lambda tensor: tap.of_input_rank(tensor, places))
        endpoints = _of_one_input(endpoints, [tap.shown_input(e) for e in endpoints])
    shown = [tap.shown_input(endpoint) for endpoint in endpoints]
    images = [tap.taken[index] for index in shown]
    arranged = _arrangements(endpoints, images, tap.places(*tensors), reshape)
    for endpoint, arrangement in zip(endpoints, arranged, strict=True):
        tap.pick(endpoint, arrangement)
    head = (None, Exposed.head_error)
    if endpoints:
        head = _NO_HEAD
        if not splice:
            head = _with_all_pooled(*tap.linear_head(tensors[0], endpoints[0]), arranged)
    offsets = {}
    if choice is _biases.outputs_of_biased:
        offsets = _biases.offsets(calls, tap.opened.paths())
        _biases.warn_of_others(calls, tap.opened.paths())
    target_rule = None
    if rules:
        last = [Call("target", splice.layer, tensors, [])] if splice else []
        chosen = rules([*calls, *last], tap.ancestry)
        target_rule = chosen.pop() if splice else None
        tap.redirect(calls, chosen)
    exposed = run_tap(model, tap, symbolic, endpoints, splice, target_rule)
    exposed.activation = activation
    exposed.offsets = offsets
    _set_head(exposed, *head)
    return exposed


def tapped(model, inputs, cause, **options):
    """Run a model that can't run on symbolic tensors, and return its `Tap` and its inputs."""
    symbolic = placeholders(model, inputs)
    try:
        tap = Tap(model, symbolic, **options)
    except Exception as error:
        raise ValueError(
            f"The layers inside the model {model.name!r} can't be reached: the `call` of a "
            f"subclassed model in it failed on symbolic tensors ({_first_line(cause)}), and on "
            f"TensorFlow's ({_first_line(error)}). Write it with layers and `keras.ops`."
        ) from error
    _layouts.refuse(tap.opened.calls, model.name)
    return tap, symbolic


def explained_by_tap(model, tap, outputs):
    """Find, and pick, what is explained of a tapped model.

    Args:
        model: `keras.Model`.
        tap: `Tap` of it.
        outputs: as in `expose`.

    Returns:
        activation: what was left out, or `None`.
        tensors: list of tensors of the first run: the logits, or what a target takes.
        splice: how a target is fitted to the model, or `None`.
    """
    target = _targets.as_target(outputs)
    if target is None:
        activation, tensor = tap.pick_logits(_output(model, tap.outputs, outputs), outputs)
        return activation, [tensor], None
    splice = _targets.splice(target, *_taken(model, tap.outputs, target, tap.pick_logits))
    tap.picks = tuple(tap.picks[i] for i in splice.indices)
    return splice.activation, splice.used, splice


def run_tap(model, tap, symbolic, endpoints, splice, target_rule=None):
    """Build the model that runs a `Tap`, all of what it returns picked.

    Args:
        model: `keras.Model`.
        tap: `Tap` of it.
        symbolic: its symbolic inputs.
        endpoints: tensors of the first run that are picked after what is explained.
        splice: as `explained_by_tap` returns it.
        target_rule: rule of the gradient of the target, or `None`.

    Returns:
        an `Exposed` model.
    """
    shown = [tap.shown_input(endpoint) for endpoint in endpoints]
    count = len(tap.picks) - len(endpoints)
    resuming = [tap.resuming(endpoint, count) for endpoint in endpoints]
    tap.opened.calls = tap.opened.returned = tap.taken = tap.scores = []
    returned = tap(symbolic)
    values, activations = returned[:count], returned[count:]
    data = splice.data if splice else []
    extended = _targets.with_data(symbolic, data)
    tensor = splice.layer(values, data) if splice else _flat(values[0])
    if target_rule:
        redirected = Redirected(splice.layer, target_rule, (values, data), {}, tensor)
        tensor = redirected([*values, *data])
    exposed = Exposed(extended, [tensor, *activations], name=f"{model.name}_exposed")
    places = [_places(x, extended) for x in (symbolic, data)]
    exposed._resume = _resuming_tapped(resuming, splice, *places)
    if splice:
        _set_target(exposed, splice, symbolic)
    if shown:
        _set_inputs(exposed, [places[0][index] for index in shown])
    return exposed


def _taken(model, structure, target, take):
    """Return what a target takes, and a flat list of the activations that were left out of it.

    Args:
        model: `keras.Model`.
        structure: its outputs.
        target: `Target`.
        take: function from the index of an output, or `None` and an endpoint, and whether its
            activation is left out, to that activation and a tensor.
    """
    if not target.takes_all:
        choice, output = _output(model, structure, target.output), target.output
        activation, tensor = take(choice, output, target.before_activation)
        return tensor, [activation]
    indices = range(len(keras.tree.flatten(structure)))
    pairs = [take(index, index, target.before_activation) for index in indices]
    return keras.tree.pack_sequence_as(structure, [p[1] for p in pairs]), [p[0] for p in pairs]


def _places(structure, extended):
    """Return the indices of inputs among the flattened ones of an exposed model."""
    flat = keras.tree.flatten(extended)
    return [next(i for i, t in enumerate(flat) if t is x) for x in keras.tree.flatten(structure)]


def _resuming_tapped(resuming, splice, own, data):
    """Return the function of `_resuming`, of functions that `Tap.resuming` made."""

    def resume(number, tensors):
        *inputs, activations = tensors
        outputs = resuming[number]([*(inputs[i] for i in own), activations])
        if splice:
            return splice.layer(outputs, [inputs[i] for i in data])
        logits = outputs[0]
        return tf.reshape(logits, (tf.shape(logits)[0], logits.shape[-1]))

    return resume


def _set_target(exposed, splice, own):
    """Note which inputs are data of a target."""
    data = _places(splice.data, exposed.input)
    exposed.mirrored_indices = tuple(i for i, m in zip(data, splice.mirrored, strict=True) if m)
    exposed.has_fixed_places = splice.is_fixed
    exposed.limits = splice.limits
    exposed._own_inputs = lambda: own


def _resuming(inputs, outputs):
    """Return the function from the number of a layer, and inputs and activations, to logits."""
    models = {}

    def resume(number, tensors):
        if number not in models:
            models[number] = keras.Model([*inputs, outputs[number + 1]], outputs[0])
        return models[number](tensors, training=False)

    return resume


def _rectified(calls):
    """List the spatial activations among the outputs of calls, or `None` for the default one."""
    places = _tokens.Places(calls)
    found = [
        tensor
        for call in calls
        if _heads.is_activated(call.layer)
        for tensor in call.outputs
        if is_spatial(tensor) and (places.of(tensor) or not places.is_carried(tensor))
    ]
    return found or [None]


def _output(model, structure, choice):
    """Return the index of an output, or `None` where the choice is an endpoint."""
    names = output_names(model, structure)
    if choice is None:
        if len(names) > 1:
            warnings.warn(
                f"The model {model.name!r} has the outputs {names}; explaining {names[0]!r}. Pass "
                "`output=` to choose.",
                stacklevel=3,
            )
        return 0
    if isinstance(choice, int) and not isinstance(choice, bool):
        if not -len(names) <= choice < len(names):
            raise invalid("outputs", f"an index into the {len(names)} outputs {names}", choice)
        return choice
    return names.index(choice) if isinstance(choice, str) and choice in names else None


def _logits(graph, index, endpoint, before_activation=True):
    """Find the chosen output of a graph, without its activation."""
    if index is None:
        tensor = graph.endpoint(endpoint, argument="outputs")
    else:
        tensor = keras.tree.flatten(graph.outputs)[index]
    if any(tensor is t for t in keras.tree.flatten(graph.inputs)):
        raise invalid("outputs", "an output or a layer of the model", repr(endpoint))
    if not before_activation:
        return tensor, None
    producers = {id(t): call for call in graph.ancestry(tensor) for t in call.outputs}
    if isinstance(producers[id(tensor)].layer, keras.layers.Lambda):
        warnings.warn(
            f"The output of {graph.name!r} comes from a Lambda layer: an activation in it is not "
            "left out of the logits. Choose a layer before it with `output=`.",
            stacklevel=3,
        )
    return _heads.without_activation(tensor, producers)


def _flat(logits):
    """Give logits at a single position, as of a 1×1 convolution, the shape `(batch, units)`."""
    shape = tuple(logits.shape)
    if len(shape) > 2 and all(size == 1 for size in shape[1:-1]):
        return keras.layers.Flatten(name="flat_logits")(logits)
    return logits


def _set_head(exposed, head, error):
    exposed.head = weakref.ref(head) if head is not None else None
    exposed.head_error = error


def _of_one_input(endpoints, indices):
    """Keep the endpoints that show the same input as the last one."""
    if len(set(indices)) > 1:
        warnings.warn(
            "Activations of several inputs feed the logits; those of one input are explained. "
            "Pass `layer=` to choose.",
            stacklevel=5,
        )
    return [e for e, index in zip(endpoints, indices, strict=True) if index == indices[-1]]


def _set_inputs(exposed, indices):
    exposed.input_indices = tuple(indices)
    exposed.input_index = indices[0]


def _calls_above(calls, tensor):
    """List the calls that a symbolic tensor is computed by, last ones first."""
    above, found = {id(tensor)}, []
    for call in reversed(calls):
        if any(id(tensor) in above for tensor in call.outputs):
            above.update(id(tensor) for tensor in call.inputs)
            found.append(call)
    return found


def _shown_input(graph, calls, endpoint):
    """Find the first input that an endpoint is computed from, of its rank if there is one."""
    above = {id(t) for call in _calls_above(calls, endpoint) for t in call.inputs} | {id(endpoint)}
    inputs = keras.tree.flatten(graph.inputs)
    indices = [i for i, tensor in enumerate(inputs) if id(tensor) in above]
    ranked = [i for i in indices if len(inputs[i].shape) == len(endpoint.shape)]
    return (ranked or indices or [0])[0]


def _first_line(error):
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first.split('. ')[0]}"
