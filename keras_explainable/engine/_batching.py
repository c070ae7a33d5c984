"""Cut data into batches that replicas can share, and go through them from any batch on."""

import collections
import concurrent.futures
import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import positive_integer
from keras_explainable._identity import digest


class Slices:
    """Arrays cut into batches of one size, the last one filled up with its last sample.

    Args:
        data: dict of arrays, "inputs" among them.
        batch_size: samples per batch. Defaults to 32, or to all of fewer samples.
        replicas: number of replicas that share a batch.
        size: samples per batch, also where there are fewer. Defaults to none.

    Attributes:
        num_batches: number of batches.
        size: samples per batch.
    """

    def __init__(self, data, batch_size, replicas, size=None):
        batch_size = 32 if batch_size is None else positive_integer("batch_size", batch_size)
        self._data = data
        self._num_samples = len(keras.tree.flatten(data["inputs"])[0])
        self._asked = multiple(batch_size, replicas)
        if size is None:
            size = min(batch_size, self._num_samples)
        self.size = multiple(size, replicas)
        self.num_batches = -(-self._num_samples // self.size)

    def __getitem__(self, index):
        """Return a batch."""
        start = index * self.size
        stop = min(start + self.size, self._num_samples)
        batch = keras.tree.map_structure(lambda a: a[start:stop], self._data)
        return fill(batch, stop - start, self.size)

    def first(self):
        """Return the first batch."""
        return self[0]

    def batches(self, ranges, index=0, count=1):
        """Yield the batches of ranges of a shard, with their numbers within it."""
        return ((n, self[n * count + index]) for n in _numbers(self, ranges, index, count))

    def num_samples(self, first=0, stop=None, step=1):
        """Count the samples of the batches from one on."""
        numbers = range(self.num_batches)[first:stop:step]
        lacking = self.num_batches * self.size - self._num_samples
        return len(numbers) * self.size - lacking * (self.num_batches - 1 in numbers)

    def identity(self, whole=True):
        """Return what tells the data from others: all, or the first and the last batch."""
        # Of shards each worker reads its own; the units of all are no work.
        parts = [self._data] if whole else [self[0], self[self.num_batches - 1]]
        told = _told(parts, self._data, self._asked)
        return {"samples": self._num_samples, **told}


class Loaded:
    """The batches of a user's `PyDataset`, loaded by its number of threads.

    Args:
        dataset: `keras.utils.PyDataset`.
        prepare: function from one of its elements to a batch and its number of samples.
        replicas: number of replicas that share a batch.

    Attributes:
        num_batches: number of batches.
        size: samples of the first batch, once `identity` has read it.
    """

    def __init__(self, dataset, prepare, replicas):
        self._dataset = dataset
        self._prepare = prepare
        self._replicas = replicas
        self.num_batches = len(dataset)
        self.size = None

    def __getitem__(self, index):
        """Return a batch."""
        batch, rows = self._prepare(self._dataset[index])
        return fill(batch, rows, multiple(rows, self._replicas))

    def first(self):
        """Return the first batch."""
        return self[0]

    def batches(self, ranges, index=0, count=1):
        """Yield the batches of ranges of a shard, with their numbers within it."""
        ahead = max(self._dataset.workers, self._dataset.max_queue_size)
        waiting = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(max(self._dataset.workers, 1)) as pool:
            try:
                for number in _numbers(self, ranges, index, count):
                    loaded = pool.submit(self.__getitem__, number * count + index)
                    waiting.append((number, loaded))
                    if len(waiting) > ahead:
                        number, loaded = waiting.popleft()
                        yield number, loaded.result()
                for number, loaded in waiting:
                    yield number, loaded.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def num_samples(self, *_):
        """Return `None`: how many there are is known when they were read."""

    def identity(self, whole=True):  # noqa: ARG002
        """Return what tells the data from others: the first batch."""
        batch = self[0]
        self.size = num_rows(batch)
        return _told([batch], batch, self.size)


class Streamed:
    """The batches of a `tf.data.Dataset`, in the form that the step takes.

    Args:
        dataset: data set of such batches.

    Attributes:
        num_batches: number of batches, or `None` where it is unknown.
        size: samples of the first batch, once `identity` has read it.
    """

    def __init__(self, dataset):
        self._dataset = dataset
        known = int(dataset.cardinality())
        self.num_batches = known if known >= 0 else None
        self.size = None

    def first(self):
        """Return the first batch."""
        batch = next(iter(self._dataset), None)
        if batch is None:
            raise no_batches()
        return batch

    def batches(self, ranges, index=0, count=1):
        """Yield the batches of ranges of a shard, with their numbers within it.

        The data set is gone through once, as it may come in another order the next time.
        """
        if not ranges:
            return iter(())
        *_, last = ranges
        dataset = self._dataset.enumerate()
        if last[1] is not None:
            dataset = dataset.take(last[1] * count)
        dataset = dataset.shard(count, index)
        if [*ranges] != [(0, last[1])]:
            starts, stops = zip(*ranges, strict=True)
            stops = [tf.int64.max if stop is None else stop for stop in stops]
            dataset = dataset.filter(
                lambda n, _: tf.reduce_any((starts <= n // count) & (n // count < stops))
            )
        return ((int(n) // count, batch) for n, batch in dataset)

    def num_samples(self, *_):
        """Return `None`: how many there are is known when they were read."""

    def identity(self, whole=True):  # noqa: ARG002
        """Return what tells the data from others: the first batch."""
        batch = keras.tree.map_structure(np.asarray, self.first())
        self.size = num_rows(batch)
        return _told([batch], batch, self.size)


def _numbers(source, ranges, index, count):
    """Go through the numbers, within a shard, of the batches of some ranges of it."""
    of_shard = len(range(index, source.num_batches, count))
    return itertools.chain(*(range(of_shard)[slice(*ends)] for ends in ranges))


def _told(parts, units, size):
    """Return what tells data from others, each under what users call it.

    Args:
        parts: list of batches, or of all data.
        units: batch, or all data, of which the units count.
        size: samples per batch.
    """
    chosen = {name: units[name] for name in ("indices", "argmax") if name in units}
    beside = [{n: part[n] for n in ("target", "options") if n in part} for part in parts]
    return {
        "batch_size": size,
        "data": digest([part["inputs"] for part in parts], size),
        "y": [*chosen, digest(chosen, size)],
        "data of options": digest(beside, size),
    }


def no_batches():
    """Return the error that data have no batch."""
    return invalid("x", "a data set with at least one batch", "an empty one")


def check_shared(source, options, target):
    """Refuse what has one row per sample beside a data set, whose samples aren't counted."""
    given = [name for name, option in options.items() if option is not None]
    if target is not None and any(len(array) > 1 for array in target.data):
        given.append("an `output` that has data for each sample")
    if given:
        raise mistyped("x", f"arrays, with {' and '.join(given)}", source)


def multiple(rows, replicas):
    """Round a number of samples up to one that replicas can share."""
    return -(-rows // replicas) * replicas


def num_rows(batch):
    """Return the number of samples of a batch, those that fill it up among them."""
    return len(keras.tree.flatten(batch["inputs"])[0])


def filled(batch, size):
    """Fill a batch up where it is smaller than others."""
    return batch if num_rows(batch) >= size else fill(batch, np.sum(batch["valid"]), size)


def fill(batch, rows, size):
    """Repeat the last sample of a batch up to some size, and mark the samples that count."""
    taken = np.minimum(np.arange(size), rows - 1)
    if size > rows:
        batch = keras.tree.map_structure(lambda a: np.asarray(a)[taken], batch)
    # An integer: some versions of TensorFlow can't gather booleans from replicas.
    return batch | {"valid": (np.arange(size) < rows).astype("int32")}


def shared_out(batch, strategy):
    """Return a batch of which each replica has its part.

    Args:
        batch: nested dict of arrays, of a number of samples that replicas can share.
        strategy: `tf.distribute.Strategy`.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batch

    def part(context):
        number = context.replica_id_in_sync_group

        def rows(array):
            size = len(array) // replicas
            return tf.convert_to_tensor(array[number * size : (number + 1) * size])

        return keras.tree.map_structure(rows, batch)

    return strategy.experimental_distribute_values_from_function(part)


def trimmed(outputs):
    """Return logits and maps without the samples that filled up batches."""
    logits, maps = outputs["logits"], outputs["maps"]
    valid = np.asarray(outputs.get("valid", 1)) > 0
    if not valid.all():
        logits, maps = keras.tree.map_structure(lambda a: a[valid], (logits, maps))
    return logits, maps


def is_chief(strategy):
    """Tell whether this process is the one of a strategy that writes."""
    resolver = strategy.cluster_resolver
    # The chief, or else the first of the workers, has the number 0.
    return resolver is None or not resolver.task_type or resolver.task_id == 0


def wait_for_workers(strategy):
    """Wait until all processes of a strategy are here."""
    if strategy.cluster_resolver is not None:
        ones = strategy.run(tf.function(lambda: tf.ones(())))
        strategy.reduce(tf.distribute.ReduceOp.SUM, ones, axis=None)
