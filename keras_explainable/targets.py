"""What is explained, where it is not an output as it is: `output=ke.targets.segment()`.

A target makes values `(batch, units)` of what a model returns, and `y` chooses among its units. Any
function of the outputs, in the structure that the model returns, is one too. A model with channels
first is explained by a copy with channels last, and it is the outputs of that one that are given.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import one_of
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Output
from keras_explainable._typing import Units
from keras_explainable.inspection import Target as Target

REGIONS = ("predicted", "all")
_COORDINATES = 4


def segment(region: ArrayLike = "predicted", *, output: Output = None) -> Target:
    r"""Explain the mean score of each class over a region.

    .. math:: \ell_c = \frac{1}{\sum_p m_{pc}} \sum_p m_{pc} z_{pc}

    with :math:`z` the scores at positions p before their activation, and :math:`m` the region, a
    constant. An empty one gives 0.

    Args:
        region: "predicted" for the positions where the class is the highest of all, for each class
            by itself, or, of a single class, where its score is positive; "all"; or a mask,
            `(samples, *positions)` or `(samples, *positions, classes)`, booleans or floats from 0
            on as weights, in a single row if it is the same for all samples. Integers, which could
            be classes, are refused. A mask of another size than the
            output, such as that of the image, counts a position by the share of it that is covered.
            The predicted region is that of each input that a method makes.
        output: which output, as `inspection.expose` takes it, a function that picks it out of
            the outputs, or a target. Defaults to the only one.

    Returns:
        a `Target`, whose units are the classes, of scores `(batch, *positions, classes)` of any
        rank.

    Raises:
        ValueError: if the region is none of those.

    References:
        - Vinogradova, Dibrov, Myers, "Towards Interpretable Semantic Segmentation via
          Gradient-weighted Class Activation Mapping", AAAI 2020. arXiv 2002.11434.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu"),
        ...     keras.layers.Conv2D(5, 3, activation="softmax")])
        >>> target = ke.targets.segment("predicted")
        >>> logits, maps = ke.gradcam(model, np.ones((2, 8, 8, 3)), y=3, output=target)
        >>> maps.shape
        (2, 8, 8, 1)
    """
    if isinstance(region, str):
        one_of("region", region, REGIONS)
        return Target(_mean_over_region, output=output, keeps_units=True, region=region)
    mask = np.asarray(region)
    is_weight = np.issubdtype(mask.dtype, np.floating)
    if mask.ndim < 2 or not (mask.dtype == bool or is_weight):
        names = ", ".join(map(repr, REGIONS))
        expected = f"{names}, or a mask (samples, *positions) of booleans or weights"
        received = f"{mask.dtype} {mask.shape}" if mask.ndim else repr(region)
        hint = (
            "A map of classes becomes one with `classes[..., None] == range(num_classes)`, and "
            "zeros and ones do with `mask.astype(bool)`."
        )
        raise invalid("region", expected, received, hint)
    if is_weight and not (np.isfinite(mask) & (mask >= 0)).all():
        received = f"weights from {mask.min()} to {mask.max()}"
        raise invalid("region", "finite weights from 0 on", received)
    return Target(
        _mean_over_mask,
        [mask],
        output=output,
        keeps_units=True,
        mirroring="mask",
    )


def position(index: ArrayLike, *, output: Output = None) -> Target:
    """Explain the scores at a position: a pixel, a voxel, a time step or a token.

    Args:
        index: integer for an output with one axis of positions, or one integer for each axis, as in
            `(row, column)`, the same for all samples; or an array `(samples, axes)`. Negative ones
            count from the end. It is a position of the output, whatever the size of the input.
        output: as in `segment`.

    Returns:
        a `Target`, whose units are those of the output `(batch, *positions, units)`.

    Raises:
        ValueError: if the index is none of those.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.Sequential([
        ...     keras.Input((10, 3)), keras.layers.LSTM(4, return_sequences=True),
        ...     keras.layers.Dense(2)])
        >>> target = ke.targets.position(-1)
        >>> logits, maps = ke.gradients(model, np.ones((2, 10, 3)), output=target)
        >>> maps.shape
        (2, 10, 2)
    """
    index = _integers("index", index)
    index = index.reshape(1, -1) if index.ndim < 2 else index
    if index.ndim != 2:
        raise invalid("index", "integers (axes,) or (samples, axes)", f"shape {index.shape}")
    return Target(
        _at_position,
        [index],
        output=output,
        keeps_units=True,
        mirroring="refused",
        limits=_position_limits,
    )


def values(*, output: Output = None) -> Target:
    """Explain every value of an output that is not `(batch, units)`, such as `(batch,)`.

    Args:
        output: as in `segment`.

    Returns:
        a `Target`, whose units are all values of a sample, the last axis running fastest.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> inputs = keras.Input((4,))
        >>> depth = keras.ops.squeeze(keras.layers.Dense(1)(inputs), -1)
        >>> model = keras.Model(inputs, depth)
        >>> logits, maps = ke.gradients(model, np.ones((2, 4)), output=ke.targets.values())
        >>> logits.shape
        (2, 1)
    """
    return Target(_flattened, output=output)


def contrast(first: ArrayLike, second: ArrayLike, *, output: Output = None) -> Target:
    r"""Explain why one unit and not another: the difference of two units.

    .. math:: \ell = \ell_a - \ell_b

    Args:
        first: unit a: an integer for all samples, or integers `(samples,)`.
        second: unit b, likewise.
        output: as in `segment`. For outputs with positions it is a target, as in
            `contrast(3, 7, output=ke.targets.segment("all"))`.

    Returns:
        a `Target` of one unit.

    Raises:
        ValueError: if a unit is none of those.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(9)])
        >>> logits, maps = ke.gradients(model, np.ones((2, 4)), output=ke.targets.contrast(3, 7))
        >>> logits.shape
        (2, 1)
    """
    pair = [_one_each(name, unit) for name, unit in (("first", first), ("second", second))]
    try:
        pair = np.stack(np.broadcast_arrays(*pair), axis=-1)
    except ValueError:
        lengths = f"{len(pair[0])} and {len(pair[1])}"
        raise invalid("second", "as many units as `first` has", lengths) from None
    return Target(_difference, [pair], output=output, limits=_unit_limits)


def probability(
    activation: str | Callable | None = None, *, log: bool = False, output: Output = None
) -> Target:
    """Explain probabilities in place of logits, so that other units count too.

    Args:
        activation: function from logits to probabilities, or its name in `keras.activations`.
            Defaults to the one at the end of the model.
        log: take the logarithm. Defaults to False.
        output: as in `segment`.

    Returns:
        a `Target`, whose units are those of the output.

    Raises:
        ValueError: if no activation is given, and the model ends in none.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(9, "softmax")])
        >>> target = ke.targets.probability()
        >>> probabilities, _ = ke.gradients(model, np.ones((2, 4)), output=target)
        >>> bool(np.allclose(probabilities.sum(1), 1))
        True
    """
    if activation is not None:
        keras.activations.get(activation)
    return Target(
        _probability,
        output=output,
        before_activation=True,
        takes_activation=True,
        chosen=activation,
        log=log,
    )


def similarity(reference: ArrayLike, *, output: Output = None) -> Target:
    r"""Explain how similar embeddings are to references, by the cosine.

    .. math:: \ell_n = \frac{e \cdot r_n}{\lVert e \rVert \lVert r_n \rVert}

    The embedding is taken as the model returns it, its last activation included, also by a target
    in `output`.

    Args:
        reference: `(size,)`, one for all samples; `(n, size)`, several for all samples, each a
            unit; or `(samples, n, size)`, so that one per sample is `references[:, None]`.
        output: as in `segment`; also an inner layer, by its name.

    Returns:
        a `Target` of one unit per reference.

    Raises:
        ValueError: if the references are none of those.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(
        ...     weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3))
        >>> images = np.random.default_rng(0).normal(size=(2, 64, 64, 3))
        >>> target = ke.targets.similarity(model.predict(images[:1], verbose=0)[0])
        >>> logits, maps = ke.gradcam(model, images, output=target)
        >>> logits.shape, maps.shape
        ((2, 1), (2, 64, 64, 1))
    """
    reference = np.asarray(reference, "float32")
    if reference.ndim not in (1, 2, 3):
        expected = "references (size,), (n, size) or (samples, n, size)"
        raise invalid("reference", expected, f"shape {reference.shape}")
    if not np.isfinite(reference).all():
        raise invalid("reference", "finite references", "NaN or infinite values")
    reference = reference.reshape(1, -1, reference.shape[-1]) if reference.ndim < 3 else reference
    return Target(_cosine, [reference], output=output, before_activation=False)


def box_score(
    anchor: Units = "argmax",
    *,
    scores: str | int | Callable | None = "cls_logits",
    output: Output = None,
) -> Target:
    """Explain the class scores of a box of a detector, before their activation.

    Args:
        anchor: which box: "argmax" for the one with the highest score that the model returns, after
            an activation such as softmax, for each class by itself and for each input that a method
            makes; or an index, or indices `(samples,)`.
        scores: where the scores `(batch, boxes, classes)` are in what the model returns: a key, an
            index, or a function of the outputs. Defaults to "cls_logits", the key of
            KerasHub's RetinaNet. `None` stands for a model that returns nothing else.
        output: as in `segment`, before `scores` are picked. Defaults to all outputs.

    Returns:
        a `Target`, whose units are the classes.

    Raises:
        ValueError: if the anchor is none of those.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> x = inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 3, activation="relu")(x)
        >>> scores = keras.layers.Reshape((-1, 5))(keras.layers.Conv2D(5, 3)(x))
        >>> model = keras.Model(inputs, {"cls_logits": scores})
        >>> target = ke.targets.box_score()
        >>> logits, maps = ke.gradcam(model, np.ones((2, 8, 8, 3)), 3, output=target)
        >>> maps.shape
        (2, 8, 8, 1)
    """
    arguments: dict[str, Any] = {"output": output, "keeps_units": True, "scores": scores}
    if isinstance(anchor, str):
        one_of("anchor", anchor, ("argmax",))
        return Target(_highest_score, takes_returned=True, **arguments)
    return Target(
        _score_of_box,
        [_one_each("anchor", anchor)],
        mirroring="refused",
        limits=functools.partial(_box_limits, key=scores),
        **arguments,
    )


def box_coordinate(
    anchor: Units = "argmax",
    label: ArrayLike | None = None,
    *,
    boxes: str | int | Callable | None = "bbox_regression",
    scores: str | int | Callable | None = "cls_logits",
    output: Output = None,
) -> Target:
    """Explain the coordinates of a box of a detector, as the model returns them.

    An activation that they end in, such as the sigmoid of relative coordinates, is included.

    Args:
        anchor: as in `box_score`.
        label: class whose highest score tells the box with "argmax": an integer, or integers
            `(samples,)`. Defaults to the highest score of all classes.
        boxes: where the boxes `(batch, boxes, 4)` are, as `scores` in `box_score`. Defaults to
            "bbox_regression", the key of KerasHub's RetinaNet.
        scores: as in `box_score`; looked at with "argmax" only.
        output: as in `box_score`.

    Returns:
        a `Target` of four units, or as many numbers as a box has.

    Raises:
        ValueError: if the anchor or the label is none of those.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> x = inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 3, activation="relu")(x)
        >>> scores = keras.layers.Reshape((-1, 5))(keras.layers.Conv2D(5, 3)(x))
        >>> boxes = keras.layers.Reshape((-1, 4))(keras.layers.Conv2D(4, 3)(x))
        >>> model = keras.Model(inputs, {"cls_logits": scores, "bbox_regression": boxes})
        >>> target = ke.targets.box_coordinate(label=3)
        >>> logits, maps = ke.gradients(model, np.ones((2, 8, 8, 3)), output=target)
        >>> logits.shape
        (2, 4)
    """
    arguments: dict[str, Any] = {"output": output, "mirroring": "refused", "boxes": boxes}
    arguments["takes_returned"] = True
    if not isinstance(anchor, str):
        if label is not None:
            raise invalid("label", "`None`, as `anchor` tells the box", repr(label))
        limits = functools.partial(_box_limits, key=boxes)
        return Target(_box, [_one_each("anchor", anchor)], limits=limits, **arguments)
    one_of("anchor", anchor, ("argmax",))
    if label is None:
        return Target(_highest_box, scores=scores, **arguments)
    limits = functools.partial(_label_limits, key=scores)
    labels = [_one_each("label", label)]
    return Target(_highest_box, labels, limits=limits, scores=scores, **arguments)


def loss(
    labels: ArrayLike,
    loss: str | Callable = "sparse_categorical_crossentropy",
    *,
    before_activation: bool = False,
    output: Output = None,
) -> Target:
    """Explain the loss of labels: what is positive in a map makes it larger.

    Args:
        labels: what the loss compares outputs with: a label for all samples, or an array with one
            row per sample, as `keras.Model.fit` takes it, which also gives `(samples,)` the axis of
            outputs `(batch, 1)`.
        loss: name of a loss in `keras.losses`, a `keras.losses.Loss`, or a function
            `(labels, outputs)`. Keep an object or a function in a variable: a new one is compiled
            again. It is taken per sample, as the mean of what is left of other axes. Outputs
            `(batch,)` are taken as `(batch, 1)`. Defaults to "sparse_categorical_crossentropy".
        before_activation: whether the loss takes outputs before their last activation, as one with
            `from_logits=True` does. It holds for a target in `output` too. Defaults to False.
        output: as in `segment`.

    Returns:
        a `Target` of one unit.

    Raises:
        ValueError: if there is no such loss, the labels of a sparse one are no integers, or
            `output` settles `before_activation` otherwise.
        TypeError: if `loss` is something else.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(9, "softmax")])
        >>> target = ke.targets.loss([3, 8])
        >>> losses, maps = ke.gradients(model, np.ones((2, 4)), output=target)
        >>> losses.shape
        (2, 1)
    """
    if not (isinstance(loss, str) or callable(loss)):
        raise mistyped("loss", "a loss of `keras.losses`, its name, or a function", loss)
    if inspect.isclass(loss):
        hint = f"Call it, as in `{loss.__name__}()`."
        raise mistyped("loss", "a loss, not its class", loss, hint)
    if isinstance(loss, str):
        keras.losses.get(loss)
    labels = np.asarray(labels)
    labels = labels[None] if labels.ndim == 0 else labels
    is_sparse = _is_sparse(loss)
    if is_sparse:
        labels = _classes(labels)
    return Target(
        _loss,
        [labels],
        output=output,
        before_activation=before_activation,
        # Labels of positions.
        mirroring="refused" if labels.ndim > (1 if is_sparse else 2) else "same",
        limits=functools.partial(_class_limits, ignored=_ignored(loss)) if is_sparse else None,
        loss=loss,
    )


def _mean_over_region(outputs, region):
    scores = _scores(outputs)
    if region == "all":
        region = tf.ones_like(scores)
    elif scores.shape[-1] == 1:
        region = tf.cast(scores > 0, scores.dtype)
    else:
        region = tf.one_hot(tf.argmax(scores, axis=-1), scores.shape[-1], dtype=scores.dtype)
    return _weighted_mean(scores, region)


def _mean_over_mask(outputs, mask):
    scores = _scores(outputs)
    if mask.shape.rank not in (scores.shape.rank - 1, scores.shape.rank):
        expected = f"a mask of an output {_shown(scores)}, with or without its last axis"
        is_single = mask.shape.rank == scores.shape.rank - 2
        hint = "One that is the same for all samples is `mask[None]`." if is_single else ""
        raise invalid("region", expected, f"rank {mask.shape.rank}", hint)
    mask = mask[..., None] if mask.shape.rank < scores.shape.rank else mask
    if mask.shape[-1] not in (1, scores.shape[-1]):
        expected = f"one mask, or one for each of the {scores.shape[-1]} classes"
        raise invalid("region", expected, mask.shape[-1])
    mask = tf.cast(mask, scores.dtype)
    sizes = _axes.sizes(scores)
    for axis in _axes.spatial(scores.shape.rank):
        mask = _resampled(mask, axis, sizes[axis])
    return _weighted_mean(scores, mask)


def _weighted_mean(scores, weights):
    axes = _axes.spatial(scores.shape.rank)
    total = tf.reduce_sum(scores * weights, axes)
    return tf.math.divide_no_nan(total, tf.reduce_sum(weights, axes))


def _resampled(mask, axis, size):
    """Average a mask along an axis over the cells that a number of cells of equal size cover."""
    given = _axes.sizes(mask)[axis]
    if isinstance(given, int) and isinstance(size, int) and given == size:
        return mask
    # In units in which cells of both sizes are integers, so that equal sizes give the identity.
    ends, own_ends = (tf.range(size) + 1) * given, (tf.range(given) + 1) * size
    overlap = tf.minimum(ends[:, None], own_ends) - tf.maximum(
        ends[:, None] - given, own_ends - size
    )
    shares = tf.cast(tf.maximum(overlap, 0), mask.dtype) / tf.cast(given, mask.dtype)
    moved = tf.tensordot(mask, shares, [[axis], [1]])
    order = list(range(mask.shape.rank))
    order.insert(axis, order.pop())
    return tf.transpose(moved, order)


def _at_position(outputs, index):
    scores = _scores(outputs)
    num_axes = scores.shape.rank - 2
    if index.shape[-1] != num_axes:
        expected = f"one integer for each of the {num_axes} axes of positions of the output"
        raise invalid("index", expected, f"{index.shape[-1]} for {_shown(scores)}")
    sizes = tf.shape(scores)[1:-1]
    return tf.gather_nd(scores, tf.where(index < 0, index + sizes, index), batch_dims=1)


def _position_limits(outputs):
    scores = _scores(outputs)
    sizes = tuple(scores.shape[1:-1])
    return [] if None in sizes else [(tuple(-size for size in sizes), sizes)]


def _flattened(outputs):
    tensor = _one_tensor(outputs)
    return tf.reshape(tensor, (-1, int(np.prod(tensor.shape[1:], dtype=int))))


def _difference(outputs, pair):
    both = tf.gather(_units(outputs), pair, axis=1, batch_dims=1)
    return both[:, :1] - both[:, 1:]


def _unit_limits(outputs):
    return [((0,), (_one_tensor(outputs).shape[-1],))]


def _probability(outputs, chosen, log, activation):
    logits = _one_tensor(outputs)
    if chosen is None and activation is None:
        hint = "The model ends in none that could be left out."
        raise invalid("activation", "the function from logits to probabilities", None, hint)
    function = activation if chosen is None else keras.activations.get(chosen)
    name = getattr(function, "__name__", "")
    if log and name in ("softmax", "sigmoid"):
        return getattr(tf.nn if name == "softmax" else tf.math, f"log_{name}")(logits)
    probabilities = function(logits)
    return tf.math.log(probabilities + keras.config.epsilon()) if log else probabilities


def _cosine(outputs, reference):
    embedding = _one_tensor(outputs)
    # A 1×1 convolution leaves axes of positions of size 1.
    embedding = tf.reshape(embedding, (-1, int(np.prod(embedding.shape[1:], dtype=int))))
    if embedding.shape[-1] != reference.shape[-1]:
        expected = f"references of the {embedding.shape[-1]} values that an embedding has"
        raise invalid("reference", expected, f"{reference.shape[-1]} values")
    pair = [tf.math.l2_normalize(tensor, axis=-1) for tensor in (embedding, reference)]
    return tf.einsum("bd,bnd->bn", *pair)


def _score_of_box(outputs, anchor, scores):
    return tf.gather(_picked(outputs, "scores", scores), anchor, axis=1, batch_dims=1)


def _highest_score(outputs, scores, returned):
    # A softmax over classes doesn't keep the order of boxes.
    highest = tf.argmax(_picked(returned, "scores", scores), axis=1)
    scores = _picked(outputs, "scores", scores)
    # The maximum would share its gradient out among boxes that tie.
    chosen = tf.one_hot(highest, tf.shape(scores)[1], axis=1, dtype=scores.dtype)
    return tf.reduce_sum(scores * chosen, axis=1)


def _box(outputs, anchor, boxes, returned):
    del outputs  # Coordinates have no logits to explain.
    return tf.gather(_picked(returned, "boxes", boxes), anchor, axis=1, batch_dims=1)


def _highest_box(outputs, label=None, *, boxes, scores, returned):
    scores = _picked(returned, "scores", scores)
    if label is None:
        scores = tf.reduce_max(scores, axis=-1)
    else:
        scores = tf.gather(scores, label, axis=2, batch_dims=1)
    return _box(outputs, tf.argmax(scores, axis=1), boxes, returned)


def _box_limits(outputs, key):
    number = _picked(outputs, "boxes", key).shape[1]
    return [] if number is None else [((0,), (number,))]


def _label_limits(outputs, key):
    return [((0,), (_picked(outputs, "scores", key).shape[-1],))]


def _loss(outputs, labels, loss):
    predictions = _one_tensor(outputs)
    predictions = predictions[:, None] if predictions.shape.rank == 1 else predictions
    if not _is_sparse(loss):
        labels = _like(predictions, labels, loss)
    found = keras.losses.get(loss) if isinstance(loss, str) else loss
    # The method takes no mean over samples, which calling the loss does.
    found = found.call if isinstance(found, keras.losses.Loss) else found
    losses = tf.convert_to_tensor(found(labels, predictions))
    size = predictions.shape[0]
    if losses.shape.rank == 0 or (size and losses.shape[0] != size):
        received = f"shape {tuple(losses.shape)} for {size or 'all'} samples"
        raise invalid("loss", "a loss with one value per sample", received)
    axes = tuple(range(1, losses.shape.rank))
    return tf.reduce_mean(losses, axes)[:, None] if axes else losses[:, None]


def _like(predictions, labels, loss):
    """Bring labels to the rank and type of predictions, as `keras.Model.fit` does."""
    rank = predictions.shape.rank
    if labels.shape.rank == rank - 1 and predictions.shape[-1] == 1:
        labels = labels[..., None]
    elif labels.shape.rank == rank + 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.shape.rank == rank:
        is_class = labels.dtype.is_integer and labels.shape[-1] != predictions.shape[-1]
        return labels if is_class else tf.cast(labels, predictions.dtype)
    # A function may take integers as classes; anything else would set samples against each other.
    own = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    is_known = isinstance(loss, str) or str(getattr(own, "__module__", "")).startswith("keras.")
    if is_known or not labels.dtype.is_integer:
        expected = f"labels of the shape of the output {_shown(predictions)}"
        raise invalid("labels", expected, _shown(labels))
    return labels


def _classes(labels):
    """Return labels of a sparse loss as integers."""
    if labels.dtype.kind not in "bf":
        return labels
    found = labels.astype("int32") if np.isfinite(labels).all() else np.zeros_like(labels) - 1
    if (found != labels).any():
        raise invalid("labels", "integers for a sparse loss", f"{labels.dtype} {labels.shape}")
    return found


def _ignored(loss):
    """Return the class that a sparse loss ignores, as a list, which is empty without one."""
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    return [] if config.get("ignore_class") is None else [config["ignore_class"]]


def _class_limits(outputs, ignored):
    return [((0,), (_one_tensor(outputs).shape[-1],), *ignored)]


def _is_sparse(loss):
    return "sparse" in str(loss).lower()


def _picked(outputs, argument, key):
    """Return the tensor `(batch, boxes, values)` that a key, an index or a function picks."""
    try:
        tensor = key(outputs) if callable(key) else outputs if key is None else outputs[key]
    except (KeyError, IndexError, TypeError):
        names = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
        expected = f"a key, an index or a function of the outputs {names}"
        raise invalid(argument, expected, repr(key)) from None
    if len(getattr(tensor, "shape", ())) != 3:
        expected = "the tensor (batch, boxes, values)"
        raise invalid(argument, expected, f"shape {tuple(getattr(tensor, 'shape', ()))}")
    return tensor


def _scores(outputs):
    """Return the only output, or raise that it has no positions."""
    tensor = _one_tensor(outputs)
    if tensor.shape.rank < 3:
        expected = "an output (batch, *positions, units) for this target"
        raise invalid("output", expected, f"shape {_shown(tensor)}")
    return tensor


def _units(outputs):
    tensor = _one_tensor(outputs)
    if tensor.shape.rank != 2:
        hint = "Reduce it first, as in `output=ke.targets.segment('all')`."
        raise invalid("output", "an output (batch, units) for this target", _shown(tensor), hint)
    return tensor


def _one_tensor(outputs):
    flat = keras.tree.flatten(outputs)
    if len(flat) != 1:
        hint = "Choose one with `output=` of the target."
        raise invalid("output", "one output for this target", f"{len(flat)} outputs", hint)
    return flat[0]


def _shown(tensor):
    return f"({', '.join(['batch', *map(str, tensor.shape[1:])])})"


def _integers(argument, value):
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.integer) or array.size == 0:
        raise invalid(argument, "an integer, or integers", repr(value))
    return array


def _one_each(argument, value):
    """Return one integer for all samples, or one each, as an array."""
    array = _integers(argument, value)
    if array.ndim > 1:
        raise invalid(argument, "an integer, or integers (samples,)", f"shape {array.shape}")
    return array.reshape(-1)
