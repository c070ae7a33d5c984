"""From the activations of one or several layers, and their gradients, to maps."""

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import filters
from keras_explainable._checks import invalid
from keras_explainable._checks import one_of
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import head_kernel
from keras_explainable.methods._units import explain_columns
from keras_explainable.methods._units import explain_linear
from keras_explainable.methods._units import float_logits

FUSIONS = {
    "mean": lambda maps: tf.add_n(maps) / len(maps),
    "max": lambda maps: tf.reduce_max(tf.stack(maps), axis=0),
    "product": lambda maps: tf.reduce_prod(tf.stack(maps), axis=0),
}


def explain_layers(
    model,
    inputs,
    indices,
    explain,
    *,
    contrast=None,
    fusion="mean",
    always_fuse=False,
    linear=False,
    whole=False,
):
    """Explain units with the activations of every layer that a model exposes, and its gradients.

    Args:
        model: model that returns `[logits, *activations]`.
        inputs: what it takes.
        indices: units to explain, as in `inspection.gather_units`.
        explain: function from float32 activations `(batch, *positions, kernels)`, and the gradient
            of a logit by them, to float32 maps `(batch, *positions)`.
        contrast: function from a unit, one-hot `(batch, units)`, and the logits to the cotangent
            that is differentiated for it. Defaults to the unit itself.
        fusion: see `fuse`.
        always_fuse: see `fuse`.
        linear: whether the maps are linear in the gradient.
        whole: whether `explain` holds something of the size of the activations for each unit, so
            that units aren't explained side by side.

    Returns:
        logits: float32 `(batch, n)`.
        maps: float32 `(batch, *positions, n)`.
    """
    outputs = Differentiable(model, inputs, fusion)
    logits, activations = outputs.logits, outputs.activations

    def explain_all(gradients):
        return [explain(*pair) for pair in zip(activations, gradients, strict=True)]

    def explain_cotangent(cotangent):
        if contrast is not None:
            cotangent = contrast(cotangent, logits)
        return explain_all(outputs.gradients(cotangent))

    def explain_unit(column):
        if contrast is not None:
            return explain_cotangent(tf.one_hot(column, logits.shape[-1]))
        return explain_all(outputs.unit_gradients(column))

    if len(activations) == 1 and linear and not always_fuse:
        maps = explain_linear(
            lambda cotangent: explain_cotangent(cotangent)[0],
            lambda column: explain_unit(column)[0],
            logits,
            indices,
            activations[0],
            outputs.held,
        )
    else:
        # The budget counts kernels, and not what maps that are resized to the input take.
        held = None if whole or always_fuse else outputs.held
        maps = explain_fused(
            explain_unit, logits, indices, model, inputs, fusion, always_fuse, held
        )
    return gather_units(logits, indices), maps


def explain_fused(explain, logits, indices, model, inputs, fusion, always=False, held=None):
    """Explain one unit after the other, the maps of its layers fused.

    Args:
        explain: function from the number of a unit of each sample, `(batch,)`, to a list of maps
            `(batch, *positions)`.
        logits: float tensor `(batch, units)`.
        indices: units to explain, as in `inspection.gather_units`.
        model: see `fuse`.
        inputs: see `fuse`.
        fusion: see `fuse`.
        always: see `fuse`.
        held: see `explain_columns`.

    Returns:
        float32 maps `(batch, *positions, n)`.
    """

    def explain_unit(column):
        maps = [m[..., None] for m in explain(column)]
        return fuse(maps, model, inputs, fusion, always)[..., 0]

    return explain_columns(explain_unit, logits, indices, held=held)


class Differentiable:
    """Logits and activations of a model, and gradients of the ones by the others.

    Where averaged activations enter the logits by one linear layer, the gradient of a logit is a
    column of its kernel over the number of positions, and nothing is differentiated. It is the same
    at every position then, and has one that stands for all: `(batch, *ones, kernels)`.

    Args:
        model: model that returns `[logits, *activations]`.
        inputs: what it takes.
        fusion: see `fuse`; checked here, before anything is computed.

    Attributes:
        logits: float32 `(batch, units)`.
        activations: list of float32 tensors `(batch, *positions, kernels)`.
        held: number of values of a gradient of one sample where it is the same at every position;
            `None` elsewhere.
    """

    def __init__(self, model, inputs, fusion="mean"):
        self._kernel = self.held = None
        if _averages_linearly(model):
            self._kernel = head_kernel(model)
            self.held = self._kernel.shape[0]
            self.logits, self._tensors = exposed_outputs(model, inputs, fusion)
        else:
            self._tape, self.logits, self._tensors = differentiable_outputs(model, inputs, fusion)
        self.activations = [tf.cast(layer, tf.float32) for layer in self._tensors]

    def gradients(self, cotangent):
        """Return the gradients, by each of the activations, of logits weighted by a cotangent."""
        if self._kernel is None:
            return gradients_by_layers(self._tape, self.logits, self._tensors, cotangent)
        return self._everywhere(tf.matmul(cotangent, self._kernel, transpose_b=True))

    def unit_gradients(self, column):
        """Return the gradients of one unit of each sample, integers `(batch,)`."""
        if self._kernel is None:
            return self.gradients(tf.one_hot(column, self.logits.shape[-1]))
        return self._everywhere(tf.gather(tf.transpose(self._kernel), column))

    def _everywhere(self, weights):
        number = tf.cast(num_positions(self.activations[0]), tf.float32)
        rank = self.activations[0].shape.rank
        return [tf.reshape(weights / number, (-1, *[1] * (rank - 2), weights.shape[-1]))]


def _averages_linearly(model):
    """Tell whether the logits are a linear layer of averages of the only activations exposed."""
    if getattr(model, "head_error", "no exposed model") or model.gradient_rule is not None:
        return False
    # Averages of sequences may be masked.
    return len(model.outputs) == 2 and len(model.outputs[1].shape) > 3


def differentiable_outputs(model, inputs, fusion="mean"):
    """Run a model under a tape.

    Args:
        model: model that returns `[logits, *activations]`.
        inputs: what it takes.
        fusion: see `fuse`; checked here, before anything is computed.

    Returns:
        tape: persistent `tf.GradientTape`.
        logits: float32 `(batch, units)`.
        activations: list of tensors in the dtype of the model.
    """
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([tensor for tensor in tf.nest.flatten(inputs) if tensor.dtype.is_floating])
        logits, activations = exposed_outputs(model, inputs, fusion)
    return tape, logits, activations


def gradients_by_layers(tape, logits, layers, cotangent):
    """Return the float32 gradients of logits, weighted by a cotangent, by activations."""
    gradients = tape.gradient(logits, layers, cotangent)
    for gradient, layer in zip(gradients, layers, strict=True):
        if gradient is None:
            expected = "a layer by which the logits can be differentiated"
            raise invalid(
                "layer", expected, f"activations {tuple(layer.shape)} that they don't see"
            )
    return [tf.cast(gradient, tf.float32) for gradient in gradients]


def exposed_outputs(model, inputs, fusion="mean"):
    """Return float32 logits, and the list of activations in the dtype of the model."""
    one_of("fusion", fusion, FUSIONS)
    logits, *layers = tf.nest.flatten(model(inputs, training=False))
    if not layers:
        expected = "a model with outputs [logits, *activations]"
        hint = "Make one with `ke.inspection.expose(model)`."
        raise invalid("model", expected, "one output", hint)
    for activations in layers:
        if activations.shape.rank < 3:
            expected = "a layer with activations (batch, *positions, kernels)"
            raise invalid("layer", expected, f"activations of shape {tuple(activations.shape)}")
    return float_logits(logits), layers


def pooled_outputs(model, inputs):
    """Return float32 logits and the float32 activations that a linear head pools."""
    logits, layers = exposed_outputs(model, inputs)
    if len(layers) > 1:
        expected = "one layer: that which is pooled"
        hint = "Methods that weight by gradients or scores fuse several."
        raise invalid("layer", expected, f"{len(layers)} layers", hint)
    return logits, tf.cast(layers[0], tf.float32)


def fuse(maps, model, inputs, fusion, always=False):
    """Make one map of those of several layers; the map of a single layer stays as it is.

    Each is rectified and stretched to [0, 1], for the scales of layers have nothing in common, and
    resized to the input that the activations show, or else to the largest map.

    Args:
        maps: list of float32 tensors `(batch, *positions, n)`.
        model: `inspection.Exposed` model.
        inputs: what it takes.
        fusion: "mean", "max" or "product", over layers.
        always: whether to treat the map of a single layer in the same way.

    Returns:
        float32 maps.
    """
    if len(maps) == 1 and not always:
        return maps[0]
    shown = tf.nest.flatten(inputs)[getattr(model, "input_index", 0)]
    if shown.shape.rank != maps[0].shape.rank:
        shown = max(maps, key=lambda m: m.shape[1:-1].num_elements() or 0)
    sizes = _axes.sizes(shown)[1:-1]
    return FUSIONS[fusion]([filters.resize(filters.positive_normalize(m), sizes) for m in maps])


def mean_over_positions(tensor):
    """Average `(batch, *positions, kernels)` over its positions."""
    total = tf.reduce_sum(tensor, _axes.spatial(tensor.shape.rank))
    # The derivative of a mean divides at every position, that of a sum just once.
    return total / tf.cast(num_positions(tensor), tensor.dtype)


def num_positions(tensor):
    """Count the positions of `(batch, *positions, kernels)`."""
    # A number that is known is folded into a factor, whose rounding isn't to depend on the trace.
    known = tensor.shape[1:-1].num_elements()
    return tf.reduce_prod(tf.shape(tensor)[1:-1]) if known is None else known


def is_everywhere(weights):
    """Tell whether weights, `(batch, *ones, kernels)`, are the same at every position."""
    return weights.shape[1:-1].num_elements() == 1


def weighted_sum(activations, weights):
    """Sum over kernels what activations are at each position times their weight there.

    Args:
        activations: float32 `(batch, *positions, kernels)`.
        weights: tensor of the same shape, or `(batch, *ones, kernels)` for all positions alike.

    Returns:
        float32 `(batch, *positions)`.
    """
    if not is_everywhere(weights):
        return tf.reduce_sum(activations * weights, axis=-1)
    weights = tf.reshape(weights, (-1, weights.shape[-1]))
    return einsum("b...k,bk->b...", activations, weights)


def einsum(equation, maps, other):
    """Contract maps, whose positions `...` stands for, with other values."""
    # A letter per axis in place of the ellipsis makes the derivative a third cheaper.
    letters = "hwdefg"[: maps.shape.rank - 2]
    return tf.einsum(equation.replace("...", letters), maps, other)
