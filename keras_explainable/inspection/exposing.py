"""Make a model return its logits and activations."""

import warnings
import weakref

import keras
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable.inspection import _attention
from keras_explainable.inspection import _biases
from keras_explainable.inspection import _heads
from keras_explainable.inspection import _tokens
from keras_explainable.inspection._graphs import Graph
from keras_explainable.inspection._graphs import Unreachable
from keras_explainable.inspection._graphs import is_spatial
from keras_explainable.inspection._graphs import output_names
from keras_explainable.inspection._graphs import placeholders
from keras_explainable.inspection._taps import Tap


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
        offsets: dict from the path of each biased layer to a function that reads what it adds to
            its input, in the order of the activations; empty but for `expose_biases`.
        arrange: function from tokens `(batch, tokens, channels)` to `(batch, *grid, channels)`;
            `None` but for `expose_attention`.
        query: index of the class token, or `None` where the logits are of all tokens.
    """

    activation = None
    head = None
    head_error = "the model exposes no activations"
    input_index = 0
    input_indices = ()
    offsets = {}  # noqa: RUF012
    arrange = None
    query = None
    _resume = None

    def resume(self, inputs, activations, number=0):
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


def expose(model, arguments=None, outputs=None, *, inputs=None, reshape=None):
    """Build the model that returns the logits of a model and the activations inside it.

    Nested models are opened at any depth, and layers share their weights with the model given,
    which is left exactly as found. The **logits** are pre-activation scores: a softmax, sigmoid or
    other activation at the end of the model, as a layer or within the last Dense or convolution, is
    left out. An **endpoint** is one of

    - a layer's name or its path through nested models, `"post_relu"` or `"resnet50v2/post_relu"`;
    - an index into `model.layers`, a layer, or a `KerasTensor` of the model;
    - a dict with `"layer"` (any of the above) or `"name"`, and optionally `"link"` (`"output"`,
      default, or `"input"`) and `"node"`, which call it is of a layer called more than once.

    Args:
        model: `keras.Model`, functional, sequential or subclassed, built.
        arguments: endpoint of the activations, or a list of endpoints, or `()` for none. `None`
            takes the last spatial activation: what enters the global pooling (or flattening) that
            feeds the logits. Where these read a class token, it is what enters the last attention.
        outputs: which output the logits are of: its index among the outputs of the model, its name,
            or an endpoint. `None` takes the only output, or the first one with a warning.
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


def expose_rectified(model, outputs=None, *, inputs=None, reshape=None):
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


def expose_biases(model, outputs=None, *, inputs=None):
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


def expose_attention(model, outputs=None, *, inputs=None, reshape=None):
    """Build the model that returns logits and how much every token attends to every other.

    The scores are those of `keras.layers.MultiHeadAttention`, `GroupQueryAttention` and
    `Attention`, called in the model, in nested ones or in layers made of layers, and what a softmax
    makes of `(batch, heads, tokens, tokens)`. Attention of other than all tokens to all is left
    out, as in a window, or of a class token alone.

    Args:
        model: as in `expose`.
        outputs: as in `expose`.
        inputs: as in `expose`.
        reshape: as in `expose`, of the tokens that attend.

    Returns:
        an `Exposed` model with outputs `[logits, *scores]`, scores `(batch, heads, tokens,
        tokens)`, after the softmax, first blocks first, and with `arrange` and `query`.

    Raises:
        TypeError: as `expose`.
        ValueError: as `expose`, or if there is no attention that can be reached.

    Example:
        >>> import keras, keras_explainable as ke
        >>> x = inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Reshape((16, 6))(keras.layers.Conv2D(6, 2, strides=2)(x))
        >>> x = keras.layers.MultiHeadAttention(2, 3)(x, x)
        >>> x = keras.layers.GlobalAveragePooling1D()(x)
        >>> exposed = ke.inspection.expose_attention(keras.Model(inputs, x))
        >>> [tuple(tensor.shape) for tensor in exposed.outputs]
        [(None, 6), (None, 2, 16, 16)]
    """
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    _tokens.check_reshape(reshape)
    try:
        graph = Graph(model, inputs, opens=_compat.is_composite, attends=True)
    except Unreachable as unreachable:
        return _expose_attention_by_tap(model, outputs, inputs, reshape, unreachable.__cause__)
    tensor, activation = _logits(graph, _output(model, graph.outputs, outputs), outputs)
    calls = graph.ancestry(tensor)
    places = _tokens.Places(calls)
    scores = _attention.scores(calls, graph.scores, places)
    if not scores:
        raise _no_attention(model)
    exposed = Exposed(graph.inputs, [_flat(tensor), *scores], name=f"{model.name}_attention")
    exposed.activation = activation
    exposed._resume = _resuming(exposed.inputs, exposed.outputs)
    _set_inputs(exposed, [_shown_input(graph, calls, score) for score in scores])
    pooled = any(_tokens.is_pooled(calls, tensor) for tensor in _heads.last_spatial(calls))
    _set_arrangement(exposed, scores, places, reshape, pooled)
    return exposed


def head_kernel(model):
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
    layer = model.head()
    kernel = tf.convert_to_tensor(getattr(layer, "effective_kernel", layer.kernel))
    return tf.cast(tf.reshape(kernel, (-1, kernel.shape[-1])), tf.float32)


def _expose_attention_by_tap(model, outputs, inputs, reshape, cause):
    """Expose the attention of a subclassed model that can't run on symbolic tensors."""
    tap, symbolic = _tapped(model, inputs, cause, attends=True)
    activation, logits = tap.pick_logits(_output(model, tap.outputs, outputs), outputs)
    places, scores = tap.places(logits), tap.scores_above(logits)
    if not scores:
        raise _no_attention(model)
    pooled = tap.is_pooled(logits)
    shown = [tap.shown_input(score) for score in scores]
    resuming = [tap.resuming(score) for score in scores]
    for score in scores:
        tap.pick(score)
    tap.opened.calls = tap.opened.returned = tap.taken = tap.scores = []
    tensor, *found = tap(symbolic)
    exposed = Exposed(symbolic, [_flat(tensor), *found], name=f"{model.name}_attention")
    exposed.activation = activation
    exposed._resume = lambda number, tensors: resuming[number](tensors)
    _set_inputs(exposed, shown)
    _set_arrangement(exposed, found, places, reshape, pooled)
    return exposed


def _set_arrangement(exposed, scores, places, reshape, pooled):
    shown = exposed.inputs[exposed.input_index]
    arranged = _attention.arranged(scores, places, shown, reshape)
    exposed.arrange = arranged.arrange
    exposed.query = None if pooled else arranged.query


def _no_attention(model):
    return ValueError(
        f"No attention can be reached in the model {model.name!r}: no layer or softmax in it is "
        "one of attention of all tokens to all. Build it with "
        "`keras.layers.MultiHeadAttention`, or with a softmax of `(batch, heads, tokens, tokens)`, "
        "called in a functional or subclassed `keras.Model`, or in a layer whose `call` applies "
        "layers and `keras.ops`."
    )


def _expose(model, choice, outputs, inputs, split=None, reshape=None):
    """Expose the endpoints in a list, or those that a function finds among the calls of a model."""
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    _tokens.check_reshape(reshape)
    try:
        graph = Graph(model, inputs, split)
    except Unreachable as unreachable:
        return _expose_by_tap(model, choice, outputs, inputs, split, reshape, unreachable.__cause__)

    index = _output(model, graph.outputs, outputs)
    tensor, activation = _logits(graph, index, outputs)
    calls = graph.ancestry(tensor)
    if (callable(choice) or None in choice) and _tokens.hides_attention(calls):
        graph = Graph(model, inputs, split, opens=_compat.is_composite)
        tensor, activation = _logits(graph, index, outputs)
        calls = graph.ancestry(tensor)
    reached = {id(t) for call in calls for t in [*call.inputs, *call.outputs]}
    endpoints = []
    for argument in choice(calls) if callable(choice) else choice:
        if argument is None:
            candidates = _heads.last_spatial(calls)
            endpoint = _tokens.not_only_read(calls, _heads.default_endpoint(candidates, graph))
        else:
            endpoint = argument if callable(choice) else graph.endpoint(argument)
        if id(endpoint) not in reached:
            hint = "Choose a layer that they are computed from, or another output."
            expected = "a layer that the logits depend on"
            raise invalid("arguments", expected, repr(argument), hint)
        endpoints.append(endpoint)
    if choice is _rectified:
        endpoints = _of_one_input(endpoints, [_shown_input(graph, calls, e) for e in endpoints])

    shown = [_shown_input(graph, calls, endpoint) for endpoint in endpoints]
    images = [keras.tree.flatten(graph.inputs)[index] for index in shown]
    arranged = _arrangements(endpoints, images, _tokens.Places(calls), reshape)
    logits, exposing = _tokens.splice(graph.inputs, tensor, endpoints, arranged)
    exposed = Exposed(graph.inputs, [_flat(logits), *exposing], name=f"{model.name}_exposed")
    exposed.activation = activation
    exposed._resume = _resuming(exposed.inputs, exposed.outputs)
    if split:
        exposed.offsets = _biases.offsets(calls, graph.paths())
        _biases.warn_of_others(calls, graph.paths())
    if endpoints:
        head = _heads.linear_head(calls, tensor, endpoints[0])
        _set_head(exposed, *_with_all_pooled(*head, arranged))
        _set_inputs(exposed, shown)
    return exposed


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
        if len(endpoint.shape) != 3 or rank < 4:
            found.append(None)
            continue
        place = places.of(endpoint)
        found.append(_tokens.arrangement(tuple(endpoint.shape), place, reshape, rank - 2))
    return found


def _expose_by_tap(model, choice, outputs, inputs, split, reshape, cause):
    """Expose a model that is, or holds, a subclassed one that can't run on symbolic tensors."""
    tap, symbolic = _tapped(model, inputs, cause, split=split)
    activation, logits = tap.pick_logits(_output(model, tap.outputs, outputs), outputs)
    calls = tap.ancestry(logits)
    endpoints = [
        argument if callable(choice) and argument is not None else tap.activations(argument, logits)
        for argument in (choice(calls) if callable(choice) else choice)
    ]
    if choice is _rectified:
        endpoints = _of_one_input(endpoints, [tap.shown_input(e) for e in endpoints])
    shown = [tap.shown_input(endpoint) for endpoint in endpoints]
    images = [tap.taken[index] for index in shown]
    arranged = _arrangements(endpoints, images, tap.places(logits), reshape)
    for endpoint, arrangement in zip(endpoints, arranged, strict=True):
        tap.pick(endpoint, arrangement)
    head = tap.linear_head(logits, endpoints[0]) if endpoints else (None, Exposed.head_error)
    head = _with_all_pooled(*head, arranged)
    offsets = _biases.offsets(calls, tap.opened.paths()) if split else {}
    if split:
        _biases.warn_of_others(calls, tap.opened.paths())
    resuming = [tap.resuming(endpoint) for endpoint in endpoints]
    tap.opened.calls = tap.opened.returned = tap.taken = tap.scores = []
    tensor, *activations = tap(symbolic)
    exposed = Exposed(symbolic, [_flat(tensor), *activations], name=f"{model.name}_exposed")
    exposed.activation = activation
    exposed.offsets = offsets
    exposed._resume = lambda number, tensors: resuming[number](tensors)
    _set_head(exposed, *head)
    if shown:
        _set_inputs(exposed, shown)
    return exposed


def _tapped(model, inputs, cause, **options):
    """Run a model that can't run on symbolic tensors, and return its `Tap` and its inputs."""
    symbolic = placeholders(model, inputs)
    try:
        return Tap(model, symbolic, **options), symbolic
    except Exception as error:
        raise ValueError(
            f"The layers inside the model {model.name!r} can't be reached: the `call` of a "
            f"subclassed model in it failed on symbolic tensors ({_first_line(cause)}), and on "
            f"TensorFlow's ({_first_line(error)}). Write it with layers and `keras.ops`."
        ) from error


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


def _logits(graph, index, endpoint):
    """Find the chosen output of a graph, without its activation."""
    if index is None:
        tensor = graph.endpoint(endpoint, argument="outputs")
    else:
        tensor = keras.tree.flatten(graph.outputs)[index]
    if any(tensor is t for t in keras.tree.flatten(graph.inputs)):
        raise invalid("outputs", "an output or a layer of the model", repr(endpoint))
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


def _shown_input(graph, calls, endpoint):
    """Find the first input that an endpoint is computed from, of its rank if there is one."""
    above = {id(endpoint)}
    for call in reversed(calls):
        if any(id(tensor) in above for tensor in call.outputs):
            above.update(id(tensor) for tensor in call.inputs)
    inputs = keras.tree.flatten(graph.inputs)
    indices = [i for i, tensor in enumerate(inputs) if id(tensor) in above]
    ranked = [i for i in indices if len(inputs[i].shape) == len(endpoint.shape)]
    return (ranked or indices or [0])[0]


def _first_line(error):
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first.split('. ')[0]}"
