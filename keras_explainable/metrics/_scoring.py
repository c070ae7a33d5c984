"""What metrics share: scores, the explained pairs of samples and units, predictions in chunks."""

import math
from typing import Any
from typing import NamedTuple
from typing import TypeAlias

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import filters
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import unit_indices

_BLUR_RADIUS = 5
_BLUR_STDDEV = 5.0

# Values of pairs, or values, weights and a curve; `None` for weights of 1.
Rows: TypeAlias = tf.Tensor | tuple[Any, ...]


class Scores(NamedTuple):
    """What a metric says of maps.

    Attributes:
        values: float32 `(batch, units, *parts)`, finite; 0 where there is none. Parts are what the
            metric is combined from.
        weights: float32, 1 where there is a value and 0 where there is none, of the shape of
            `values` or without the parts.
        curve: float32 `(batch, units, points)`, what the value is the area of, or is taken from;
            `(batch, units, points, 2)` where both coordinates differ from map to map; or `None`.
        classes: int32 `(batch, units)`, which class each value belongs to; `None` where they are in
            the order of the maps, or as `indices` say.
    """

    values: tf.Tensor
    weights: tf.Tensor
    curve: tf.Tensor | None = None
    classes: tf.Tensor | None = None


class Pairs(NamedTuple):
    """The pairs of a sample and a unit that are explained, and what the model predicts.

    Attributes:
        samples: int32 `(pairs,)`, index of the sample.
        columns: int32 `(pairs,)`, index of the map among those of the sample.
        units: int32 `(pairs,)`, index of the unit among the outputs of the model.
        maps: float32 `(pairs, *positions)`.
        probabilities: float32 `(batch, units)`, predicted for the samples as they are.
        present: float32 `(batch, units)`, 1 for the explained units of a sample.
        classes: int32 `(batch, maps)`, the unit of each map of a sample.
    """

    samples: tf.Tensor
    columns: tf.Tensor
    units: tf.Tensor
    maps: tf.Tensor
    probabilities: tf.Tensor
    present: tf.Tensor
    classes: tf.Tensor

    def dense(self, rows):
        """Put one row per pair where it belongs among samples and maps, and zeros elsewhere.

        Args:
            rows: tensor `(pairs, ...)`.

        Returns:
            tensor `(batch, maps, ...)`.
        """
        places = tf.stack([self.samples, self.columns], axis=1)
        return tf.scatter_nd(
            places, rows, tf.concat([tf.shape(self.classes), tf.shape(rows)[1:]], 0)
        )

    def scores(self, values, weights=None, curve=None):
        """Return `Scores` of values, and weights, with one row per pair."""
        weights = tf.ones_like(values) if weights is None else weights
        curve = None if curve is None else self.dense(curve)
        return Scores(self.dense(values), self.dense(weights), curve, self.classes)

    def of_units(self, rows):
        """Take the value of the explained unit from rows `(pairs, ..., units)`."""
        return tf.gather(rows, self.units, axis=-1, batch_dims=1)


def explained_pairs(
    model, inputs, maps, indices, logits=None, detections=None, threshold=0.5, activation=None
):
    """Find what is explained.

    Args:
        model: `Exposed` model.
        inputs: what it takes.
        maps: tensor `(batch, *positions, n)`, a map for each of the indices, or for each unit.
        indices: units explained, as in `inspection.gather_units`; `None` for those detected.
        logits: `(batch, units)`, where they are known already.
        detections: boolean or float `(batch, units)`, 1 for the explained units, in place of
            `indices`.
        threshold: probability above which a unit is detected.
        activation: function from logits to probabilities. Defaults to the one at the end of the
            model, or to a sigmoid where it has none.

    Returns:
        `Pairs`.
    """
    threshold = number("threshold", threshold)
    if logits is None:
        logits = _logits(model, inputs)
    logits = tf.cast(logits, tf.float32)
    probabilities = probability(model, activation)(logits)
    num_units = logits.shape[-1]
    maps = tf.cast(maps, tf.float32)
    indices = unit_indices(logits, indices)
    if indices is None:
        if maps.shape[-1] != num_units:
            expected = f"one map for each of the {num_units} units without `indices`"
            raise invalid("maps", expected, f"{maps.shape[-1]} per sample")
        present = probabilities > threshold if detections is None else detections
        present = tf.cast(tf.cast(present, tf.float32) > 0, tf.float32)
        units = tf.repeat(tf.range(num_units)[None], tf.shape(logits)[0], axis=0)
        chosen = present > 0
    else:
        units = tf.cast(indices, tf.int32)
        if maps.shape[-1] != indices.shape[-1] and maps.shape[-1] == num_units:
            maps = gather_units(maps, indices)
        if maps.shape[-1] != indices.shape[-1]:
            expected = f"{indices.shape[-1]} maps, one for each of the `indices`"
            raise invalid("maps", expected, f"{maps.shape[-1]} per sample")
        present = tf.reduce_max(tf.one_hot(units, num_units), axis=1)
        chosen = tf.ones_like(units, tf.bool)
        if detections is not None:
            present *= tf.cast(tf.cast(detections, tf.float32) > 0, tf.float32)
            chosen = gather_units(present, units) > 0
    places = tf.cast(tf.where(chosen), tf.int32)
    rows = tf.transpose(maps, (0, maps.shape.rank - 1, *_axes.spatial(maps.shape.rank)))
    return Pairs(
        places[:, 0],
        places[:, 1],
        tf.gather_nd(units, places),
        tf.gather_nd(rows, places),
        probabilities,
        present,
        units,
    )


class MaskedMaps(NamedTuple):
    """Maps and what they are compared with, positions in a row.

    Attributes:
        maps: float32 `(batch, n, places)`.
        inside: float32 `(batch, n, places)`, 1 where the mask is 1.
        counted: float32 `(batch, n, places)`, 0 where the mask is 255.
    """

    maps: tf.Tensor
    inside: tf.Tensor
    counted: tf.Tensor

    @property
    def outside(self):
        """Float32 `(batch, n, places)`, 1 where the mask is 0."""
        return self.counted - self.inside

    @property
    def known(self):
        """Float32 `(batch, n)`, 0 where the mask is empty, for which nothing is defined."""
        return tf.reduce_max(self.inside, axis=-1)

    def scores(self, values, weights=None, curve=None):
        """Return `Scores` of values `(batch, n)`, without those of empty masks."""
        weights = self.known if weights is None else self.known * weights
        return Scores(values * weights, weights, curve)


def masked_maps(maps, masks, indices=None):
    """Pair maps with masks.

    Args:
        maps: tensor `(batch, *positions, n)`, one for each of `indices`, or one per unit, of which
            those of `indices` are taken.
        masks: tensor `(batch, *positions, 1)`, for all maps of a sample, or one per map, or one per
            unit, of which those of `indices` are taken.
        indices: integers `(batch, n)`, the unit of each map; `None` for one map per unit.

    Returns:
        `MaskedMaps`.
    """
    maps, units = maps_of_units(maps, indices)
    masks = tf.cast(masks, tf.float32)
    num_maps, num_masks = maps.shape[-1], masks.shape[-1]
    if num_masks not in (1, num_maps):
        if units is None or num_masks < num_maps:
            expected = f"one mask per sample, or for each of the {num_maps} maps"
            raise invalid("masks", expected, f"{num_masks} per sample")
        masks = gather_units(masks, units)
    maps = in_rows(maps)
    masks = tf.broadcast_to(in_rows(masks), tf.shape(maps))
    inside = tf.cast(masks == 1, tf.float32)
    return MaskedMaps(maps, inside, inside + tf.cast(masks == 0, tf.float32))


def maps_of_units(maps, indices=None, logits=None):
    """Take the map of each explained unit.

    Args:
        maps: tensor `(batch, *positions, n)`, one for each of `indices`, or one per unit.
        indices: integers `(batch, n)`, or "argmax" where there are `logits`; `None` for one map per
            unit.
        logits: `(batch, units)` or `None`.

    Returns:
        float32 `(batch, *positions, n)`, and the units, int32 `(batch, n)`, or `None` where they
        are those of the columns.
    """
    maps = tf.cast(maps, tf.float32)
    if indices is None:
        return maps, None
    if isinstance(indices, str) and logits is None:
        expected = "integers, as there are no logits to tell the highest"
        raise invalid("indices", expected, repr(indices))
    units = tf.cast(unit_indices(logits if isinstance(indices, str) else maps, indices), tf.int32)
    if maps.shape[-1] < units.shape[-1]:
        expected = f"{units.shape[-1]} maps, one for each of the `indices`"
        raise invalid("maps", expected, f"{maps.shape[-1]} per sample")
    same = maps.shape[-1] == units.shape[-1]
    return maps if same else gather_units(maps, units), units


def in_rows(maps):
    """Return maps `(batch, *positions, n)` as rows `(batch, n, places)`."""
    batch, *sizes, count = _axes.sizes(maps)
    places = tf.reduce_prod(tf.stack(sizes)) if None in maps.shape[1:-1] else math.prod(sizes)
    return tf.transpose(tf.reshape(maps, (batch, places, count)), (0, 2, 1))


def probability(model, activation=None):
    """Return the function from logits to probabilities of a model."""
    activation = activation or getattr(model, "activation", None) or "sigmoid"
    return keras.activations.get(activation)


def predictions(model, inputs, activation=None):
    """Return the probabilities, float32 `(batch, units)`, that an exposed model predicts."""
    return probability(model, activation)(tf.cast(_logits(model, inputs), tf.float32))


def in_chunks(function, num_rows, size, units):
    """Apply a function to rows, a chunk at a time.

    Args:
        function: from the indices of rows, int32 `(chunk,)`, to float32 `(chunk, units)`.
        num_rows: scalar tensor, number of rows.
        size: integer, the most rows in a chunk. There are as few chunks as that takes, all of one
            size but for the last, which may be smaller.
        units: integer or shape, size of what the function returns for a row.

    Returns:
        tensor `(num_rows, units)`.
    """
    units = tf.TensorShape([units] if isinstance(units, int) else units)
    num_chunks = -(-num_rows // size)
    chunk = tf.math.maximum(-(-num_rows // tf.math.maximum(num_chunks, 1)), 1)

    def step(i, results):
        rows = tf.range(i * chunk, tf.minimum((i + 1) * chunk, num_rows))
        return i + 1, results.write(i, function(rows))

    def run():
        results = tf.TensorArray(
            tf.float32, num_chunks, infer_shape=False, element_shape=[None, *units]
        )
        loop = tf.while_loop(
            lambda i, _: i * chunk < num_rows, step, (0, results), parallel_iterations=1
        )
        return loop[1].concat()

    return tf.cond(num_rows > 0, run, lambda: tf.zeros([0, *units]))


def shown_index(inputs, maps):
    """Return the index of the input that maps show: the first with the rank of the maps."""
    flat = keras.tree.flatten(inputs)
    ranks = [tensor.shape.rank for tensor in flat]
    return ranks.index(maps.shape.rank) if maps.shape.rank in ranks else 0


def replaced(inputs, index, tensor, samples):
    """Take samples from inputs, with another tensor for one of them."""
    flat = [tf.gather(array, samples) for array in keras.tree.flatten(inputs)]
    flat[index] = tf.cast(tensor, flat[index].dtype)
    return keras.tree.pack_sequence_as(inputs, flat)


def at_input(masks, image):
    """Resize masks `(rows, *positions)` to the positions of an image `(batch, *sizes, channels)`.

    Returns:
        float32 `(rows, *sizes, 1)`.
    """
    if image.shape.rank == 2:
        return tf.cast(masks, tf.float32)  # The features of a vector have no other size.
    return filters.resize(masks[..., None], _axes.sizes(image)[1:-1])


def filler(image, fill):
    """Return what takes the place of what is left out of images.

    Args:
        image: tensor `(batch, *sizes, channels)`.
        fill: "zero", "mean" (of an image, per channel) or "blur" (Gaussian, 11 pixels, standard
            deviation 5).

    Returns:
        tensor that can be mixed with the images.
    """
    if fill == "zero":
        return tf.zeros_like(image)
    if image.shape.rank == 2:
        raise invalid("fill", '"zero" for vectors, which have no positions', repr(fill))
    if fill == "mean":
        axes = _axes.spatial(image.shape.rank)
        return tf.zeros_like(image) + tf.reduce_mean(image, axis=axes, keepdims=True)
    return blurred(image)


def blurred(image):
    """Blur images with a Gaussian, whose weights inside the image add up to 1 at every position.

    Args:
        image: tensor `(batch, *sizes, channels)`.

    Returns:
        tensor of the same shape and dtype.
    """
    for axis in _axes.spatial(image.shape.rank):
        places = tf.range(tf.shape(image)[axis])
        away = tf.cast(places[:, None] - places, tf.float32)
        weights = tf.exp(-0.5 * tf.square(away / _BLUR_STDDEV))
        weights *= tf.cast(tf.abs(away) <= _BLUR_RADIUS, tf.float32)
        weights = tf.cast(weights / tf.reduce_sum(weights, axis=1, keepdims=True), image.dtype)
        last = [a for a in range(image.shape.rank) if a != axis] + [axis]
        back = [last.index(a) for a in range(image.shape.rank)]
        image = tf.transpose(tf.tensordot(tf.transpose(image, last), weights, [[-1], [1]]), back)
    return image


def _logits(model, inputs):
    return keras.tree.flatten(model(inputs, training=False))[0]
