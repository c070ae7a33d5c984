"""What metrics that change inputs step by step share: inputs and ranks of what a map shows."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from collections.abc import Collection
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import filters
from keras_explainable._checks import invalid
from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Inputs
from keras_explainable._typing import Units
from keras_explainable.inspection import Exposed
from keras_explainable.metrics._scoring import Pairs
from keras_explainable.metrics._scoring import explained_pairs
from keras_explainable.metrics._scoring import filler
from keras_explainable.metrics._scoring import in_chunks
from keras_explainable.metrics._scoring import predictions
from keras_explainable.metrics._scoring import replaced
from keras_explainable.metrics.faithfulness.masking import FILLS


class ExplainedInputs(NamedTuple):
    """Inputs to be changed feature by feature, and what the model predicts for them.

    Features are positions with all of their channels, or, for maps of channels, single values.

    Attributes:
        model: `Exposed` model.
        inputs: what it takes.
        index: which of the inputs the maps show.
        image: float32 `(batch, *sizes, channels)`, that input.
        per_channel: whether features are single values.
        pairs: `Pairs`, what is explained.
        logits: float32 `(batch, units)`, predicted for the inputs as they are.
        activation: function from logits to probabilities, `None` for that of the model.
        chunk: the most inputs predicted at once.
    """

    model: Exposed
    inputs: object
    index: int  # type: ignore[assignment]  # A tuple has a method of that name.
    image: tf.Tensor
    per_channel: bool
    pairs: Pairs
    logits: tf.Tensor
    activation: object
    chunk: int

    @property
    def num_features(self):
        """Number of features of a sample, an integer where it is known and else a tensor."""
        sizes = _axes.sizes(self.image)[1:]
        return math.prod(sizes if self.per_channel else sizes[:-1])

    @property
    def before(self):
        """Probabilities `(pairs,)` of the explained units for the inputs as they are."""
        return self.pairs.of_units(tf.gather(self.pairs.probabilities, self.pairs.samples))

    def filled(self, fill):
        """Return what takes the place of removed features, of the shape of the image."""
        one_of("fill", fill, FILLS)
        if fill != "zero" and self.image.shape.rank == 2:
            raise invalid("fill", '"zero" for inputs without positions', repr(fill))
        return filler(self.image, fill)

    def attributions(self, pairs):
        """Return maps of some pairs at the input, `(rows, *sizes, 1 or channels)`."""
        maps = tf.gather(self.pairs.maps, pairs)
        if self.image.shape.rank == 2:
            return maps
        maps = maps if self.per_channel else maps[..., None]
        return filters.resize(maps, _axes.sizes(self.image)[1:-1])

    def mixed(self, pairs, removed, other):
        """Return the images of some pairs, with another image where something is removed.

        Args:
            pairs: int32 `(rows,)`.
            removed: boolean `(rows, *sizes, 1 or channels)`.
            other: float32 `(batch, *sizes, channels)`.

        Returns:
            float32 `(rows, *sizes, channels)`.
        """
        samples = tf.gather(self.pairs.samples, pairs)
        return tf.where(removed, tf.gather(other, samples), tf.gather(self.image, samples))

    def outputs(self, pairs, images, activation=None):
        """Predict the explained units of some pairs, `(rows,)`, with other images."""
        samples = tf.gather(self.pairs.samples, pairs)
        changed = replaced(self.inputs, self.index, images, samples)
        found = predictions(self.model, changed, activation or self.activation)
        return tf.gather(found, tf.gather(self.pairs.units, pairs), axis=1, batch_dims=1)

    def predicted(self, num_points, change):
        """Predict every pair at some points, pairs and points in the same chunks.

        Args:
            num_points: number of points per pair, an integer or a scalar tensor.
            change: function from indices of pairs and of points, int32 `(rows,)`, to images.

        Returns:
            float32 `(pairs, points)`, probabilities of the explained units.
        """

        def predict(rows):
            pairs = rows // num_points
            return self.outputs(pairs, change(pairs, rows % num_points))

        count = tf.shape(self.pairs.samples)[0]
        found = in_chunks(predict, count * num_points, self.chunk, ())
        return tf.reshape(found, tf.stack([count, num_points]))

    def curve(self, counts, fill, ranked=None, inserted=False):
        """Predict inputs without the features that come first, or with these alone.

        Args:
            counts: int32 `(points,)`, how many features come first at each point.
            fill: what takes the place of the others, one of `FILLS`.
            ranked: function from maps at the input to the rank of each position, `ranks` by
                default.
            inserted: whether the first features are those that are left.

        Returns:
            float32 `(pairs, points)`, probabilities of the explained units.
        """
        other, ranked = self.filled(fill), ranked or ranks

        def change(pairs, points):
            found = of_pairs(lambda some: ranked(self.attributions(some)), pairs)
            first = found < aligned(tf.gather(counts, points), found)
            return self.mixed(pairs, ~first if inserted else first, other)

        return self.predicted(tf.size(counts), change)


def explained_inputs(
    model: keras.Model,
    x: Inputs,
    maps: tf.Tensor,
    indices: Units = None,
    *,
    logits: ArrayLike | None = None,
    detections: ArrayLike | None = None,
    threshold: float = 0.5,
    activation: Callable | None = None,
    chunk: int = 32,
    parts: Collection[str] = (),
) -> ExplainedInputs:
    """Find what is explained, and get ready to change it.

    Args:
        model: `keras.Model`, as trained.
        x: inputs, what the model takes.
        maps: `(samples, *positions, units)`, one map per unit, or `(samples, *positions, n)`, one
            for each of `indices`, resized to the input; or `(samples, *sizes, channels, n)`, which
            rank each channel of a position by itself.
        indices: units explained, integers `(samples,)` or `(samples, n)`, or "argmax". Defaults to
            the units whose predicted probability is above `threshold`.
        logits: `(samples, units)`, which save the pass of the model that tells what it predicts.
            Defaults to `None`.
        detections: boolean or float `(samples, units)`, 1 for the explained units, such as labels.
            Defaults to those of `indices`, or above `threshold`.
        threshold: probability above which a unit is detected. Defaults to 0.5.
        activation: function from logits to probabilities, "linear" for curves of logits. Defaults
            to the one at the end of the model, or to a sigmoid where it has none.
        chunk: the most changed inputs predicted at once. Defaults to 32.
        parts: of no use, as nothing is predicted before a metric asks for it.

    Returns:
        `ExplainedInputs`.

    Raises:
        ValueError: if an argument doesn't fit the others.
    """
    del parts  # Nothing is predicted before a metric asks for it.
    chunk = positive_integer("chunk", chunk)
    index, per_channel = _shown(x, maps)
    image = tf.cast(keras.tree.flatten(x)[index], tf.float32)
    logits = predictions(model, x, "linear") if logits is None else tf.cast(logits, tf.float32)
    pairs = explained_pairs(model, x, maps, indices, logits, detections, threshold, activation)
    return ExplainedInputs(model, x, index, image, per_channel, pairs, logits, activation, chunk)


def removal_counts(num_features, num_steps, step_size=None):
    """Return how many features are changed at each point, from none to all.

    Args:
        num_features: number of features, an integer or a scalar tensor.
        num_steps: number of steps of about equal size; not more than features are made.
        step_size: number of features in a step, the last one excepted; `None` for `num_steps`.

    Returns:
        int32 `(points,)`.
    """
    num_steps = positive_integer("num_steps", num_steps)
    size = None if step_size is None else positive_integer("step_size", step_size)
    known = isinstance(num_features, int)
    num_steps = (min if known else tf.minimum)(num_steps, num_features)
    num_steps = num_steps if size is None else -(-num_features // size)
    steps = tf.range(num_steps + 1)
    if size is not None:
        return tf.minimum(steps * size, num_features)
    whole = tf.cast(steps, tf.int64) * tf.cast(num_features, tf.int64)
    return tf.cast(whole // tf.cast(num_steps, tf.int64), tf.int32)


def ranks(values):
    """Return the rank of every feature, 0 for the greatest; the first of equal ones comes first.

    Args:
        values: tensor `(rows, *features)`.

    Returns:
        int32 tensor of the same shape.
    """
    flat = tf.reshape(values, (tf.shape(values)[0], -1))
    order = tf.argsort(flat, direction="DESCENDING", stable=True)
    rows = tf.zeros_like(order) + tf.range(tf.shape(order)[0])[:, None]
    steps = tf.zeros_like(order) + tf.range(tf.shape(order)[1])
    found = tf.scatter_nd(tf.stack([rows, order], axis=-1), steps, tf.shape(order))
    return tf.ensure_shape(tf.reshape(found, tf.shape(values)), values.shape)


def of_pairs(function, pairs):
    """Apply a function once to each pair of a chunk, where the same one comes in several rows.

    Args:
        function: from indices of pairs, int32 `(n,)`, to a tensor `(n, ...)`.
        pairs: int32 `(rows,)`, in order and without gaps.

    Returns:
        tensor `(rows, ...)`.
    """
    found = function(tf.range(pairs[0], pairs[-1] + 1))
    return tf.gather(found, pairs - pairs[0])


def pooled(maps, axis, size, stride):
    """Add up windows of one axis that are whole.

    Args:
        maps: tensor with an axis of positions.
        axis: which axis.
        size: length of a window.
        stride: distance of windows.

    Returns:
        tensor of the same rank.
    """
    last = [a for a in range(maps.shape.rank) if a != axis] + [axis]
    back = [last.index(a) for a in range(maps.shape.rank)]
    moved = tf.transpose(maps, last)
    *others, length = _axes.sizes(moved)
    windows = tf.nn.avg_pool1d(tf.reshape(moved, (-1, length, 1)), size, stride, "VALID")
    number = (length - size) // stride + 1
    return tf.transpose(tf.reshape(size * windows, (*others, number)), back)


def checked_seed(seed):
    """Return a seed, or raise that it is no integer."""
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise invalid("seed", "an integer", repr(seed))
    return int(seed)


def aligned(rows, tensor):
    """Add axes of size 1 to a vector until it has the rank of a tensor."""
    return tf.reshape(rows, (-1,) + (1,) * (tensor.shape.rank - 1))


def area(curve):
    """Return the area below curves `(pairs, points)`, of points of equal distance from 0 to 1."""
    return tf.reduce_mean((curve[:, 1:] + curve[:, :-1]) / 2, axis=1)


def _shown(inputs, maps):
    """Return the index of the input that maps show, and whether they tell its channels apart."""
    shapes = [tensor.shape for tensor in keras.tree.flatten(inputs)]
    ranks_ = [shape.rank for shape in shapes]
    rank = maps.shape.rank
    if rank in ranks_:
        return ranks_.index(rank), False
    index = ranks_.index(rank - 1) if rank - 1 in ranks_ else None
    if index is None or shapes[index][1:].as_list() != maps.shape[1:-1].as_list():
        expected = "`(samples, *positions, n)`, or `(samples, *sizes, channels, n)`, of an input"
        received = f"shape {tuple(maps.shape)} for {[tuple(shape) for shape in shapes]}"
        raise invalid("maps", expected, received)
    return index, True
