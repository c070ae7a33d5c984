"""Methods that weight each channel by what the logits become with it alone, or without it."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import filters
from keras_explainable._checks import invalid
from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import unit_indices
from keras_explainable.methods._activations import einsum
from keras_explainable.methods._activations import exposed_outputs
from keras_explainable.methods._activations import fuse
from keras_explainable.methods._registry import explaining_method
from keras_explainable.methods._units import float_logits


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
)
def scorecam(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    weights: str = "probability",
    activation: Callable | None = None,
    top_k: int | None = None,
    chunk_size: int = 32,
    fusion: str = "mean",
) -> Tensors:
    r"""Explain units with Score-CAM, activations weighted by the score of the input they mask.

    .. math:: M_u = \sum_k w_{uk} A_k, \quad w_{uk} = p_u(x \odot \psi(\mathrm{up}(A_k)))

    with :math:`p_u` the probability of the unit, as in the authors' code, :math:`\mathrm{up}` the
    resizing to the input and :math:`\psi` the stretching to [0, 1]. The paper has the softmax over
    channels of the logits in place of :math:`p_u`, for which see `weights`; the baseline that it
    takes off the logits first cancels out. A channel that is constant over an input masks nothing:
    it is skipped, exactly. Cost: one forward pass, and one per channel that is not constant, which
    serves all units.

    Args:
        model: model that returns `[logits, *activations]`, see `inspection.expose`.
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes. What
            is masked is the input that the activations show.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        weights: "probability", or "softmax" for the softmax of the logits over channels.
        activation: function from logits to probabilities. Defaults to the one at the end of the
            model, or to a softmax where it has none, for a single unit to a sigmoid.
        top_k: number of channels per sample to take in, those of the largest standard deviation
            over positions. Defaults to all.
        chunk_size: number of masked inputs that go through the model at a time. It changes time and
            memory, not the result. Defaults to 32.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: activation.

    Raises:
        ValueError: if an option is none of the above, the activations have no positions, or the
            input that they show has none.

    References:
        - Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
          Networks", CVPR Workshops 2020, equations 6 to 8. arXiv 1910.01279.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.scorecam(model, np.ones((1, 64, 64, 3)), "argmax", top_k=8)
        >>> maps.shape
        (1, 64, 64, 1)
    """
    one_of("weights", weights, ("probability", "softmax"))
    top_k = None if top_k is None else positive_integer("top_k", top_k)
    chunk_size = positive_integer("chunk_size", chunk_size)
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    logits, layers = exposed_outputs(model, inputs, fusion)
    indices = unit_indices(logits, indices)
    score = _scoring(model, weights, activation)

    maps = []
    for number, activations in enumerate(tf.cast(tensor, tf.float32) for tensor in layers):
        masked = _masking(model, inputs, activations, number)

        def evaluate(samples, channels, masked=masked):
            outputs = tf.nest.flatten(model(masked(samples, channels), training=False))
            scores = score(float_logits(outputs[0]))
            return scores if indices is None else _gather(scores, tf.gather(indices, samples))

        live = _spread(activations) > 0
        if top_k is not None:
            live &= _is_highest(_spread(activations), top_k)
        scores = _each_channel(evaluate, live, _num_units(logits, indices), chunk_size, top_k)
        if weights == "softmax":
            scores = tf.where(live[..., None], scores, scores.dtype.min)
            scores = tf.where(live[..., None], tf.nn.softmax(scores, axis=1), 0.0)
        maps.append(einsum("b...k,bku->b...u", activations, scores))
    return gather_units(logits, indices), fuse(maps, model, inputs, fusion)


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
)
def ablationcam(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    chunk_size: int = 64,
    fusion: str = "mean",
) -> Tensors:
    r"""Explain units with Ablation-CAM, activations weighted by what the logit loses without them.

    .. math:: M_u = \sum_k w_{uk} A_k, \quad w_{uk} = \frac{\ell_u - \ell_u^{(k)}}{\ell_u}

    with :math:`\ell_u^{(k)}` the logit where channel k is set to zero. A negative logit turns the
    sign of its map around. A channel that is zero at every position is skipped, exactly. Cost: one
    forward pass, and for each other channel one pass of what comes after the layer, which serves
    all units. That part is run by itself, except for a subclassed model that calls TensorFlow
    functions, all of which is run.

    Args:
        model: model made by `inspection.expose`.
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        chunk_size: number of ablated activations that go through the rest of the model at a time.
            It changes time and memory, not the result. Defaults to 64.
        fusion: as in `scorecam`. The channels of one layer are ablated at a time.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: activation.

    Raises:
        ValueError: if an option is none of the above, or the activations have no positions.

    References:
        - Desai, Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network via
          Gradient-free Localization", WACV 2020, equation 3.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.ablationcam(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """
    chunk_size = positive_integer("chunk_size", chunk_size)
    if not hasattr(model, "resume"):
        raise invalid("model", "a model made by `ke.inspection.expose`", repr(model.name))
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    logits, layers = exposed_outputs(model, inputs, fusion)
    indices = unit_indices(logits, indices)
    explained = gather_units(logits, indices)

    maps = []
    for number, layer in enumerate(layers):
        kernels = layer.shape[-1]

        def evaluate(samples, channels, number=number, layer=layer, kernels=kernels):
            kept = 1.0 - tf.one_hot(channels, kernels, dtype=layer.dtype)
            kept = tf.reshape(kept, (-1, *[1] * (layer.shape.rank - 2), kernels))
            taken = tf.nest.map_structure(lambda tensor: tf.gather(tensor, samples), inputs)
            ablated = float_logits(model.resume(taken, tf.gather(layer, samples) * kept, number))
            drop = tf.gather(logits, samples) - ablated
            return drop if indices is None else _gather(drop, tf.gather(indices, samples))

        activations = tf.cast(layer, tf.float32)
        axes = _axes.spatial(layer.shape.rank)
        live = tf.reduce_any(activations != 0, axis=axes)
        drops = _each_channel(evaluate, live, _num_units(logits, indices), chunk_size)
        weights = tf.math.divide_no_nan(drops, explained[:, None])
        maps.append(einsum("b...k,bku->b...u", activations, weights))
    return explained, fuse(maps, model, inputs, fusion)


def _each_channel(evaluate, live, num_units, chunk_size, most=None):
    """Evaluate the channels that are live in a sample, and no others.

    Args:
        evaluate: function from `samples` and `channels`, integers `(chunk_size,)`, to values
            `(chunk_size, num_units)`.
        live: boolean `(batch, channels)`.
        num_units: number of values per channel.
        chunk_size: number of pairs of a sample and a channel evaluated at a time, at the most.
        most: largest number of channels that are live in a sample. Defaults to all.

    Returns:
        float32 `(batch, channels, num_units)`, 0 where a channel is not live.
    """
    num_samples, num_channels = tf.shape(live)[0], live.shape[1]
    if live.shape[0] is not None:
        chunk_size = min(chunk_size, live.shape[0] * min(most or num_channels, num_channels))
    live = tf.reshape(live, [-1])
    # Live pairs first, so that they fill up chunks whatever samples they belong to.
    order = tf.argsort(tf.cast(live, tf.int32), direction="DESCENDING", stable=True)
    num_live = tf.reduce_sum(tf.cast(live, tf.int32))

    def evaluate_chunk(start, values):
        taken = tf.minimum(start + tf.range(chunk_size), tf.size(order) - 1)
        pairs = tf.gather(order, taken)
        found = evaluate(pairs // num_channels, pairs % num_channels)
        found = tf.where(tf.gather(live, pairs)[:, None], found, 0.0)
        return start + chunk_size, tf.tensor_scatter_nd_update(values, pairs[:, None], found)

    values = tf.zeros((num_samples * num_channels, num_units))
    _, values = tf.while_loop(
        lambda start, _: start < num_live, evaluate_chunk, (0, values), parallel_iterations=1
    )
    return tf.reshape(values, (num_samples, num_channels, num_units))


def _masking(model, inputs, activations, number):
    """Return the function from samples and channels to inputs masked by the channels."""
    flat = tf.nest.flatten(inputs)
    indices = getattr(model, "input_indices", ())
    shown = indices[number] if indices else 0
    if flat[shown].shape.rank != activations.shape.rank:
        expected = f"activations with the axes of the input {tuple(flat[shown].shape)}"
        hint = "Choose a layer with `layer=`, or another method, which doesn't mask the input."
        raise invalid("layer", expected, f"activations {tuple(activations.shape)}", hint)
    num_channels = activations.shape[-1]
    channels_first = tf.transpose(
        activations, (0, activations.shape.rank - 1, *_axes.spatial(activations.shape.rank))
    )
    channels_first = tf.reshape(channels_first, (-1, *tf.unstack(tf.shape(activations)[1:-1])))
    sizes = _axes.sizes(flat[shown])[1:-1]

    def masked(samples, channels):
        maps = tf.gather(channels_first, samples * num_channels + channels)
        maps = tf.ensure_shape(maps, (None, *activations.shape[1:-1]))
        mask = filters.normalize(filters.resize(maps[..., None], sizes))
        taken = [tf.gather(tensor, samples) for tensor in flat]
        taken[shown] *= tf.cast(mask, taken[shown].dtype)
        return tf.nest.pack_sequence_as(inputs, taken)

    return masked


def _scoring(model, weights, activation):
    """Return the function from logits to what weights channels."""
    if weights == "softmax":
        return tf.identity
    # A softmax of a single logit is 1, whatever the logit.
    default = "softmax" if model.outputs[0].shape[-1] != 1 else "sigmoid"
    activation = activation or getattr(model, "activation", None) or default
    return keras.activations.get(activation)


def _spread(activations):
    """Return the standard deviation of each channel over positions; 0 if it is constant."""
    axes = _axes.spatial(activations.shape.rank)
    constant = tf.reduce_max(activations, axes) == tf.reduce_min(activations, axes)
    return tf.where(constant, 0.0, tf.math.reduce_std(activations, axes))


def _is_highest(values, count):
    """Tell which values `(batch, n)` are the `count` highest of their row."""
    ranks = tf.argsort(tf.argsort(values, direction="DESCENDING", stable=True), stable=True)
    return ranks < count


def _gather(values, indices):
    return tf.gather(values, indices, axis=1, batch_dims=1)


def _num_units(logits, indices):
    return logits.shape[-1] if indices is None else tf.shape(indices)[1]
