"""Where things are in a tensor: batch first, channels (or units) last, positions between."""

BATCH = 0
CHANNELS = -1


def spatial(rank):
    """Return the axes of the positions in a tensor of some rank, `(1, 2)` for images."""
    return tuple(range(1, rank - 1))
