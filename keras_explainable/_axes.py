"""Where things are in a tensor: batch first, channels (or units) last, positions between."""

import tensorflow as tf

BATCH = 0
CHANNELS = -1


def spatial(rank):
    """Return the axes of the positions in a tensor of some rank, `(1, 2)` for images."""
    return tuple(range(1, rank - 1))


def sizes(tensor):
    """Return the shape of a tensor: integers where they are known, scalar tensors elsewhere."""
    dynamic = tf.shape(tensor)
    return [dynamic[i] if size is None else size for i, size in enumerate(tensor.shape)]
