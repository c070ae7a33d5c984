"""Go through the data of an evaluation, batch by batch."""

import keras
import numpy as np
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import positive_integer
from keras_explainable._identity import digest

MORE = ("masks", "boxes", "fixations", "labels")


def source(x, y, more, batch_size):
    """Return the data as batches.

    Args:
        x: arrays, or an iterable of batches.
        y: units explained, or `None`.
        more: dict of what metrics compare maps with.
        batch_size: samples per batch, for arrays.

    Returns:
        `Arrays` or `Iterated`.
    """
    if isinstance(x, np.ndarray | tf.Tensor | list | tuple | dict) or hasattr(x, "__array__"):
        return Arrays(x, y, more, batch_size)
    if isinstance(x, tf.data.Dataset) and x.cardinality() == tf.data.INFINITE_CARDINALITY:
        hint = "Take some of it with `dataset.take(100)`."
        raise invalid("x", "a data set that ends", "one that repeats for ever", hint)
    if isinstance(x, tf.data.Dataset | keras.utils.PyDataset) or hasattr(x, "__iter__"):
        if iter(x) is x:
            hint = "Pass an object whose `__iter__` begins anew, or a `tf.data.Dataset`."
            raise mistyped("x", "data that can be gone through again", x, hint)
        return Iterated(x, y, more, batch_size)
    raise mistyped("x", "arrays, or a data set of batches", x)


class Arrays:
    """Arrays, cut into batches.

    Attributes:
        names: what there is beside inputs and units.
        num_batches: number of batches.
        size: number of samples per batch.
        example: inputs of a sample.
    """

    def __init__(self, x, y, more, batch_size):
        self._given = {"x": x, "y": y, **more}
        self.size = positive_integer("batch_size", 32 if batch_size is None else batch_size)
        self.names = tuple(more)
        self.num_batches = None

    @property
    def example(self):
        """Inputs of a sample."""
        return keras.tree.map_structure(lambda a: np.asarray(a)[:1], self._given["x"])

    def check(self, step):
        """Check all data, and keep them in the form that steps take."""
        self._data = step.checked(self._given)
        self._length = len(keras.tree.flatten(self._data["inputs"])[0])
        self.size = min(self.size, self._length)
        self.num_batches = -(-self._length // self.size)

    def batches(self, first):
        """Yield batches from one on: dicts of arrays, of one size but for the last."""
        for start in range(first * self.size, self._length, self.size):
            stop = min(start + self.size, self._length)
            yield keras.tree.map_structure(lambda a: a[start:stop], self._data)  # noqa: B023

    def identity(self):
        """Return what tells the data from others."""
        return [self._length, self.size, digest(self._data, self.size)]


class Iterated:
    """A data set of batches, checked batch by batch.

    Attributes:
        names: what there is beside inputs and units.
        num_batches: number of batches, or `None` where it isn't known.
        size: number of samples of the first batch, which smaller ones are filled up to.
        example: inputs of a batch.
    """

    def __init__(self, dataset, y, more, batch_size):
        if more or not (y is None or isinstance(y, str | int)):
            expected = "a data set of `(x, y, more)`, which holds what goes with its samples"
            raise mistyped("x", expected, dataset)
        if batch_size is not None:
            raise invalid("batch_size", "`None` with a data set of batches", batch_size)
        self._dataset, self._y = dataset, y
        try:
            self.num_batches = len(dataset)
        except TypeError:
            self.num_batches = None
        element = next(iter(self._elements(0)), None)
        if element is None:
            raise invalid("x", "a data set with at least one batch", "an empty one")
        self._first, self.example = element, element["x"]
        self.size = len(keras.tree.flatten(element["x"])[0])
        self.names = tuple(name for name in element if name in MORE)

    def check(self, step):
        """Check the first batch."""
        self._checked = step.checked
        self._checked(self._first)

    def batches(self, first):
        """Yield batches from one on."""
        for number, element in enumerate(self._elements(first), first):
            try:
                yield self._checked(element)
            except (TypeError, ValueError) as error:
                error.add_note(f"It is batch {number} of the data set, counted from 0.")
                raise

    def identity(self):
        """Return what tells the data from others: their first batch, and how many there are."""
        return [self.num_batches, digest(self._checked(self._first), self.size)]

    def _elements(self, first):
        if isinstance(self._dataset, tf.data.Dataset):
            elements = self._dataset.skip(first).as_numpy_iterator()
        elif isinstance(self._dataset, keras.utils.PyDataset):
            elements = (self._dataset[i] for i in range(first, len(self._dataset)))
        else:
            elements = (e for i, e in enumerate(self._dataset) if i >= first)
        for element in elements:
            yield self._named(element)

    def _named(self, element):
        parts = element if isinstance(element, tuple) else (element,)
        batch = {"x": parts[0], "y": self._y}
        if len(parts) > 1 and self._y is None:
            batch["y"] = parts[1]
        if len(parts) > 2:
            if not isinstance(parts[2], dict) or not set(parts[2]) <= set(MORE):
                expected = f"batches whose third part is a dict of some of {MORE}"
                raise invalid("x", expected, type(parts[2]).__name__)
            batch |= parts[2]
        return batch
