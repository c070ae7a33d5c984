"""Look inside a model: its logits, its activations, its layers."""

import difflib
import warnings
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import _compat
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped

_POOLINGS = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)
_AVERAGES = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
)
_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.Softmax,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
)
# `keras.ops` functions become operations of these class names in a functional model.
_ACTIVATION_OPERATIONS = ("Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid", "HardSigmoid", "Tanh")
_SHAPE_OPERATIONS = ("Reshape", "Squeeze", "Cast", "Identity")
_PASSED_IN_INFERENCE = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
)


class Exposed(keras.Model):
    """A model that returns `[logits, *activations]`, made by `expose`.

    Its layers share the weights of the model that it was made from, which it leaves as it was.

    Attributes:
        activation: what turns the logits into the predictions of the original model, a function of
            tensors; `None` where its output layer has no activation.
        head: name of the layer here that maps the pooled activations linearly to the logits; `None`
            where there is no such layer.
        head_error: why there is none, a sentence; empty where there is one, or where the pooled
            activations are the logits.
        input_index: index, among the flattened inputs, of the input that the activations show.
    """

    activation = None
    head = None
    head_error = "the model exposes no activations"
    input_index = 0


def expose(model, arguments=None, outputs=None, *, inputs=None):
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
            feeds the logits.
        outputs: which output the logits are of: its index among the outputs of the model, its name,
            or an endpoint. `None` takes the only output, or the first one with a warning.
        inputs: batch of inputs, needed only for a subclassed model whose input shape Keras doesn't
            know.

    Returns:
        an `Exposed` model with outputs `[logits, *activations]`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if the model is not built, an endpoint doesn't exist or is ambiguous, the logits
            don't depend on an endpoint, or there is no spatial activation.

    Example:
        >>> import keras, keras_explainable as ke
        >>> backbone = keras.applications.MobileNetV2(
        ...     weights=None, include_top=False, pooling="avg", input_shape=(96, 96, 3))
        >>> model = keras.Sequential([backbone, keras.layers.Dense(5, activation="softmax")])
        >>> exposed = ke.inspection.expose(model)
        >>> [tuple(tensor.shape) for tensor in exposed.outputs]
        [(None, 5), (None, 3, 3, 1280)]
    """
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    graph = _Graph(model, inputs)
    logits, activation = graph.logits(outputs)
    calls = graph.ancestry(logits)
    if arguments is None:
        endpoints = [_last_spatial(graph, calls, logits)]
    else:
        endpoints = [graph.endpoint(a) for a in _listed(arguments)]
    reached = {id(tensor) for call in calls for tensor in [*call.inputs, *call.outputs]}
    for endpoint, argument in zip(endpoints, _listed(arguments), strict=False):
        if id(endpoint) not in reached:
            hint = f"Choose a layer that `{logits.name}` is computed from, or another output."
            raise invalid("arguments", "a layer that the logits depend on", repr(argument), hint)

    exposed = Exposed(graph.inputs, [logits, *endpoints], name=f"{model.name}_exposed")
    exposed.activation = activation
    if endpoints:
        exposed.head, exposed.head_error = _linear_head(calls, logits, endpoints[0])
        exposed.input_index = _shown_input(exposed, calls, endpoints[0])
    return exposed


def find_layers(model, kind):
    """Find the layers of a model, nested ones included, by class or property.

    Args:
        model: `keras.Model`, built.
        kind: a layer class, a tuple of classes, or a predicate `layer -> bool`.

    Returns:
        dict from path (`"backbone/conv1"`) to layer, in order of the calls.

    Example:
        >>> import keras, keras_explainable as ke
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="c")])
        >>> list(ke.inspection.find_layers(model, keras.layers.Conv2D))
        ['c']
    """
    matches = (lambda layer: isinstance(layer, kind)) if _is_class(kind) else kind
    calls = _Graph(model).calls
    return {c.path: c.layer for c in calls if isinstance(c.layer, keras.Layer) and matches(c.layer)}


def layers_with_bias(model):
    """Find the layers of a model that add a bias: a `bias`, or the offset of a normalization.

    Args:
        model: `keras.Model`, built.

    Returns:
        dict from path to layer, in order of the calls.
    """
    normalizations = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)

    def has_bias(layer):
        if isinstance(layer, normalizations):
            return layer.center or isinstance(layer, keras.layers.BatchNormalization)
        return getattr(layer, "bias", None) is not None

    return find_layers(model, has_bias)


def gather_units(values, indices=None, axis=-1):
    """Take the units that are explained, sample by sample.

    Args:
        values: tensor `(batch, ..., units)`.
        indices: `None` for every unit, `"argmax"` for the highest of each sample, or an integer
            tensor: scalar, `(batch,)` or `(batch, n)`.
        axis: axis of the units, never 0. Defaults to the last.

    Returns:
        tensor with the axis of the units reduced to the `n` taken.

    Example:
        >>> import keras_explainable as ke
        >>> ke.inspection.gather_units([[1., 5., 2.], [7., 8., 9.]], [[1, 0], [2, 2]]).numpy()
        array([[5., 1.],
               [9., 9.]], dtype=float32)
    """
    values = tf.convert_to_tensor(values)
    indices = unit_indices(values, indices)
    return values if indices is None else tf.gather(values, indices, axis=axis, batch_dims=1)


def unit_indices(logits, indices=None):
    """Bring the indices of the explained units into one form.

    Args:
        logits: tensor `(batch, units)`.
        indices: as in `gather_units`.

    Returns:
        integer tensor `(batch, n)`, or `None` for every unit.

    Raises:
        ValueError: if `indices` is none of those.
    """
    if indices is None:
        return None
    if isinstance(indices, str):
        if indices != "argmax":
            raise invalid("indices", '`None`, "argmax" or integers', repr(indices))
        return tf.argmax(logits, axis=-1, output_type=tf.int32)[:, None]
    indices = tf.convert_to_tensor(indices)
    if not indices.dtype.is_integer or indices.shape.rank not in (0, 1, 2):
        expected = "integers of shape (), (batch,) or (batch, n)"
        raise invalid("indices", expected, f"{indices.dtype.name} {tuple(indices.shape)}")
    if indices.shape.rank == 0:
        indices = tf.repeat(indices[None], tf.shape(logits)[0])
    return indices[:, None] if indices.shape.rank == 1 else indices


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
    error = getattr(model, "head_error", "it was not made by `ke.inspection.expose`")
    if error:
        raise ValueError(
            "CAM needs logits that are one linear layer away from globally averaged activations, "
            f"but {error}. Use `gradcam`, its generalization to any model."
        )
    if model.head is None:
        return tf.eye(model.outputs[0].shape[-1])
    layer = model.get_layer(model.head)
    kernel = tf.convert_to_tensor(getattr(layer, "effective_kernel", layer.kernel))
    return tf.cast(tf.reshape(kernel, (-1, kernel.shape[-1])), tf.float32)


class _Call(NamedTuple):
    """One call of one layer in an opened model."""

    path: str
    layer: object
    inputs: list
    outputs: list
    args: tuple = ()
    kwargs: dict = {}  # noqa: RUF012


class _Graph:
    """A model opened into twins of its layers, each called once on new symbolic inputs."""

    def __init__(self, model, inputs=None):
        self.model = model
        self.calls = []
        self._names = {}
        self.inputs = keras.tree.map_structure(_placeholder, _input_specification(model, inputs))
        try:
            self.outputs = self._open(model, (self.inputs,), {}, path="")
        except _Unreachable as error:
            raise ValueError(
                f"The layers inside the subclassed model {model.name!r} can't be reached: its "
                f"`call` failed on symbolic tensors ({_first_line(error.__cause__)}). Write it "
                "with `keras.ops` and layers in place of TensorFlow functions."
            ) from error.__cause__

    def _open(self, model, args, kwargs, path):
        training = kwargs.get("training")

        def call(operation, *args, **kwargs):
            if training is not None and isinstance(operation, keras.Layer):
                kwargs = {**kwargs, "training": training}
            return self._call(operation, args, kwargs, path)

        if _compat.is_functional(model):
            return _compat.run_graph(model, args[0] if args else kwargs["inputs"], call)
        return self._replay(model, args, kwargs, path)

    def _replay(self, model, args, kwargs, path):
        """Run the `call` of a subclassed model with stand-ins for its layers."""

        def stand_in(value):
            if isinstance(value, keras.Layer):
                return _StandIn(value, lambda *a, **k: self._call(value, a, k, path))
            return value

        attributes = {
            name: keras.tree.map_structure(stand_in, _plain(value))
            for name, value in vars(model).items()
            if _holds_layers(value)
        }
        shadow = _compat.twin(model, model.name, **attributes)
        mark = len(self.calls)
        try:
            return shadow.call(*args, **kwargs)
        except Exception as error:
            del self.calls[mark:]
            raise _Unreachable from error

    def _call(self, operation, args, kwargs, path):
        path = f"{path}/{operation.name}" if path else operation.name
        outputs = None
        if isinstance(operation, keras.Model):
            try:
                outputs = self._open(operation, args, kwargs, path)
            except _Unreachable:
                outputs = None
        if outputs is None:
            outputs = self._twin(operation, path)(*args, **kwargs)
        inputs = [t for t in keras.tree.flatten((args, kwargs)) if _is_symbolic(t)]
        self.calls.append(_Call(path, operation, inputs, keras.tree.flatten(outputs)))
        return outputs

    def _twin(self, operation, path, **attributes):
        name = path.replace("/", ".")
        count = self._names[name] = self._names.get(name, -1) + 1
        return _compat.twin(operation, f"{name}_{count}" if count else name, **attributes)

    def ancestry(self, tensor):
        """List the calls that a tensor is computed by, first ones first."""
        calls = []

        def note(operation, *args, **kwargs):
            inputs = [t for t in keras.tree.flatten((args, kwargs)) if _is_symbolic(t)]
            outputs = keras.tree.flatten(operation.output)
            calls.append(_Call(operation.name, operation, inputs, outputs, args, kwargs))
            return operation.output

        _compat.run_graph(keras.Model(self.inputs, tensor), self.inputs, note)
        return calls

    def logits(self, choice):
        """Find the chosen output, without its activation."""
        tensor = self._output(choice)
        if any(tensor is t for t in keras.tree.flatten(self.inputs)):
            raise invalid("outputs", "an output or a layer of the model", repr(choice))
        producers = {id(t): call for call in self.ancestry(tensor) for t in call.outputs}
        logits, activation = self._peel(tensor, producers)
        shape = tuple(logits.shape)
        if len(shape) > 2 and all(size == 1 for size in shape[1:-1]):
            logits = keras.layers.Flatten(name=f"{logits.name}_flat")(logits)
        return logits, activation

    def _output(self, choice):
        flat = keras.tree.flatten(self.outputs)
        names = _output_names(self.model, self.outputs)
        if choice is None:
            if len(flat) > 1:
                warnings.warn(
                    f"The model {self.model.name!r} has the outputs {names}; explaining "
                    f"{names[0]!r}. Pass `output=` to choose.",
                    stacklevel=5,
                )
            return flat[0]
        if isinstance(choice, int) and not isinstance(choice, bool):
            if not -len(flat) <= choice < len(flat):
                expected = f"an index into the {len(flat)} outputs {names}"
                raise invalid("outputs", expected, choice)
            return flat[choice]
        if isinstance(choice, str) and choice in names:
            return flat[names.index(choice)]
        return self.endpoint(choice, argument="outputs")

    def _peel(self, tensor, producers):
        """Leave out the activation that a tensor comes from."""
        call = producers.get(id(tensor))
        if call is None or not call.inputs:
            return tensor, None
        layer = call.layer
        if isinstance(layer, _ACTIVATIONS) or type(layer).__name__ in _ACTIVATION_OPERATIONS:
            logits, inner = self._peel(call.inputs[0], producers)
            linear = getattr(layer, "activation", None) is keras.activations.linear
            return logits, inner if linear or inner else _as_function(layer)
        if hasattr(layer, "kernel") and _is_nonlinear(getattr(layer, "activation", None)):
            twin = _compat.twin(layer, layer.name, activation=keras.activations.linear)
            return twin(*call.args, **call.kwargs), layer.activation
        if isinstance(layer, _PASSED_IN_INFERENCE) or type(layer).__name__ in _SHAPE_OPERATIONS:
            logits, activation = self._peel(call.inputs[0], producers)
            if activation is not None:
                twin = _compat.twin(layer, layer.name)
                return twin(logits, *call.args[1:], **call.kwargs), activation
        return tensor, None

    def endpoint(self, endpoint, argument="arguments"):
        """Find the tensor that an endpoint names."""
        link, node = "output", None
        if isinstance(endpoint, dict):
            link, node = endpoint.get("link", "output"), endpoint.get("node")
            unknown = set(endpoint) - {"layer", "name", "link", "node"}
            if (
                unknown
                or link not in ("input", "output")
                or len({"layer", "name"} & {*endpoint}) != 1
            ):
                expected = 'a dict with "layer" or "name", "link" ("input" or "output") and "node"'
                raise invalid(argument, expected, endpoint)
            endpoint = endpoint.get("layer", endpoint.get("name"))
        if _is_symbolic(endpoint):
            calls = self._calls_of_tensor(endpoint)
        else:
            calls = self._calls_of_layer(endpoint, argument)
        call = self._one_call(calls, endpoint, node, argument)
        return call.outputs[0] if link == "output" else call.inputs[0]

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
            layers = self.model.layers
            if not -len(layers) <= endpoint < len(layers):
                expected = f"an index into the {len(layers)} layers of {self.model.name!r}"
                raise invalid(argument, expected, endpoint)
            endpoint = layers[endpoint]
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

    def _calls_of_tensor(self, tensor):
        def makes(operation):
            try:
                return any(t is tensor for t in keras.tree.flatten(operation.output))
            except (AttributeError, ValueError):
                return False

        calls = [call for call in self.calls if makes(call.layer)]
        if not calls:
            hint = (
                'Name the layer, as in {"name": ..., "node": 0}, where it is called several times.'
            )
            expected = "a tensor computed inside the model"
            raise invalid("arguments", expected, tensor, hint)
        return calls

    def _closest(self, name):
        paths = list(dict.fromkeys(call.path for call in self.calls))
        leaves = {path.rsplit("/", 1)[-1]: path for path in reversed(paths)}
        near = difflib.get_close_matches(name, [*paths, *leaves], n=3, cutoff=0.4)
        near = list(dict.fromkeys(leaves.get(n, n) for n in near)) or paths[-3:]
        return f"Closest: {', '.join(repr(n) for n in near)}."


class _Unreachable(Exception):  # noqa: N818
    """The layers inside a subclassed model can't be reached; its cause says why."""


class _StandIn:
    """Stands in for a layer inside a subclassed model: its calls go elsewhere."""

    def __init__(self, layer, call):
        self._layer = layer
        self._call = call

    def __call__(self, *args, **kwargs):
        return self._call(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._layer, name)

    @property
    def __class__(self):
        return type(self._layer)


def _last_spatial(graph, calls, logits):
    """Find what enters the pooling or flattening that feeds the logits."""
    if _is_spatial(logits):
        return calls[-1].inputs[0]
    consumers = {}
    for call in calls:
        for tensor in call.inputs:
            consumers.setdefault(id(tensor), []).append(call)
    ancestors = {}
    learned = set()
    for call in calls:
        above = set().union(*(ancestors.get(id(t), set()) | {id(t)} for t in call.inputs))
        has_weights = bool(getattr(call.layer, "weights", ())) or any(i in learned for i in above)
        for tensor in call.outputs:
            ancestors[id(tensor)] = above
            if has_weights:
                learned.add(id(tensor))
    found = []
    for call in reversed(calls):
        if any(_is_spatial(tensor) for tensor in call.outputs):
            continue
        for tensor in call.inputs:
            new = all(tensor is not f and id(tensor) not in ancestors[id(f)] for f in found)
            if _is_spatial(tensor) and id(tensor) in learned and new:
                found.append(tensor)
    if not found:
        shapes = ", ".join(f"{c.path} {tuple(c.outputs[0].shape)}" for c in graph.calls[-12:])
        raise ValueError(
            f"The model {graph.model.name!r} has no spatial activation that its logits are pooled "
            f"from; its last layers are: {shapes}. Choose the activations with `layer=`, or a "
            "method of the gradient family, which needs none."
        )
    if len(found) > 1:
        names = [_path_of(graph, tensor) for tensor in found]
        warnings.warn(
            f"Several spatial activations feed the logits: {names}; explaining {names[0]!r}. Pass "
            "`layer=` to choose.",
            stacklevel=4,
        )
    return found[0]


def _linear_head(calls, logits, endpoint):
    """Find the layer between the pooled endpoint and the logits, or say why there is none."""
    producers = {id(tensor): call for call in calls for tensor in call.outputs}

    def walk(tensor):
        call = producers.get(id(tensor))
        while call is not None and (
            isinstance(call.layer, _PASSED_IN_INFERENCE)
            or type(call.layer).__name__ in _SHAPE_OPERATIONS
            or getattr(call.layer, "activation", None) is keras.activations.linear
            and isinstance(call.layer, keras.layers.Activation)
        ):
            call = producers.get(id(call.inputs[0]))
        return call

    call = walk(logits)
    head = None
    if call is not None and _is_linear(call.layer):
        head, call = call.layer, walk(call.inputs[0])
    if call is None or not _is_global_average(call):
        found = f"{type(call.layer).__name__} {call.path!r}" if call else "an input of the model"
        return None, f"{found} was found {'before the last linear layer' if head else 'there'}"
    if call.inputs[0] is not endpoint:
        return None, f"{call.path!r} pools other activations than the ones chosen"
    return (head.name if head is not None else None), ""


def _is_linear(layer):
    kernel = getattr(layer, "effective_kernel", getattr(layer, "kernel", None))
    if kernel is None or _is_nonlinear(getattr(layer, "activation", None)):
        return False
    return len(kernel.shape) == 2 or all(size == 1 for size in kernel.shape[:-2])


def _is_global_average(call):
    if isinstance(call.layer, _POOLINGS):
        return True
    (source, *_), (pooled, *_) = call.inputs, call.outputs
    if not _is_spatial(source) or _is_spatial(pooled):
        return False
    if isinstance(call.layer, _AVERAGES):
        return tuple(call.layer.pool_size) == tuple(source.shape[1:-1])
    if type(call.layer).__name__ == "Mean":
        axes = {axis % len(source.shape) for axis in keras.tree.flatten(call.layer.axis)}
        return axes == set(_axes.spatial(len(source.shape)))
    return False


def _shown_input(exposed, calls, endpoint):
    """Find the first input that an endpoint is computed from, of its rank if there is one."""
    above = {id(endpoint)}
    for call in reversed(calls):
        if any(id(tensor) in above for tensor in call.outputs):
            above.update(id(tensor) for tensor in call.inputs)
    indices = [i for i, tensor in enumerate(exposed.inputs) if id(tensor) in above]
    ranked = [i for i in indices if len(exposed.inputs[i].shape) == len(endpoint.shape)]
    return (ranked or indices or [0])[0]


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
    dtype = keras.backend.standardize_dtype(value.dtype)
    dtype = keras.config.floatx() if "int" in dtype or "float" in dtype else dtype
    return keras.KerasTensor((None, *value.shape[1:]), dtype=dtype)


def _placeholder(tensor):
    return keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=tensor.name)


def _output_names(model, outputs):
    if isinstance(outputs, dict):
        return [str(key) for key in sorted(outputs)]
    return list(getattr(model, "output_names", [t.name for t in keras.tree.flatten(outputs)]))


def _path_of(graph, tensor):
    return next(c.path for c in graph.calls if any(t is tensor for t in c.outputs))


def _listed(arguments):
    if arguments is None:
        return []
    return list(arguments) if isinstance(arguments, list | tuple) else [arguments]


def _as_function(layer):
    """Return a function of one tensor that does what an activation layer does."""
    return getattr(layer, "activation", None) or (lambda tensor: layer(tensor))


def _is_nonlinear(activation):
    return activation is not None and activation is not keras.activations.linear


def _is_spatial(tensor):
    sizes = tuple(tensor.shape)[1:-1]
    return len(sizes) > 0 and any(size is None or size > 1 for size in sizes)


def _is_symbolic(value):
    return isinstance(value, keras.KerasTensor)


def _is_class(kind):
    return isinstance(kind, type | tuple)


def _plain(value):
    """Return the container that Keras tracks as a plain one, to be filled with stand-ins."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _holds_layers(value):
    return any(isinstance(leaf, keras.Layer) for leaf in keras.tree.flatten(_plain(value)))


def _first_line(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
