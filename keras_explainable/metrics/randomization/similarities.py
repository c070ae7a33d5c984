"""How alike two maps are."""

import numpy as np
import tensorflow as tf

from keras_explainable import filters
from keras_explainable._checks import invalid
from keras_explainable._checks import one_of

# The width of the window of structural similarity, in positions; of smaller maps, their own.
_WINDOW = 11


def similarity(name, maps, others):
    """Compare maps, one by one.

    Args:
        name: one of `SIMILARITIES`.
        maps: array `(maps, *positions)`.
        others: array of the same shape.

    Returns:
        values: float64 array `(maps,)`, up to 1 for maps that are alike; 0 where it is undefined.
        known: booleans `(maps,)`, `False` where one of the maps is constant.

    Raises:
        ValueError: if there is no such similarity, or it isn't defined for maps of that rank.
    """
    one_of("similarity", name, SIMILARITIES)
    if name == "ssim" and np.ndim(maps) != 3:
        expected = 'one that is defined for maps of this rank: "ssim" is for images'
        raise invalid("similarity", expected, f"maps of {np.ndim(maps) - 1} axes")
    known = ~(_is_constant(maps) | _is_constant(others))
    values = np.zeros(len(maps))
    if known.any():
        values[known] = SIMILARITIES[name](maps[known], others[known])
    return values, known


def rank_correlation(maps, others):
    """Correlate maps by rank (Spearman): 1 in the same order, -1 in the opposite one."""
    return correlations(centred_ranks(maps), centred_ranks(others))


def pearson(maps, others):
    """Correlate the values of maps (Pearson)."""
    maps, others = (np.reshape(np.asarray(m, "float64"), (len(m), -1)) for m in (maps, others))
    centred = [m - m.mean(axis=1, keepdims=True) for m in (maps, others)]
    # Squares of very small values would leave the range of floats.
    scaled = [m / np.maximum(np.abs(m).max(axis=1, keepdims=True), 1e-300) for m in centred]
    return correlations(*scaled)


def structural_similarity(maps, others):
    """Return the structural similarity (SSIM) of maps of images, each stretched to [0, 1]."""
    stretched = [filters.normalize(tf.cast(m[..., None], tf.float32)) for m in (maps, others)]
    size = min(_WINDOW, *maps.shape[1:])
    return tf.image.ssim(*stretched, max_val=1.0, filter_size=size).numpy()


def centred_ranks(maps):
    """Rank the values of each map, around zero.

    Args:
        maps: array `(maps, *positions)`.

    Returns:
        array `(maps, positions)`. Equal values have the mean of their ranks, so that a constant map
        has zeros.

    Raises:
        ValueError: if a value is not finite.
    """
    maps = np.reshape(maps, (len(maps), -1))
    if not np.isfinite(maps).all():
        raise ValueError("Maps have values that are not finite.")
    # Imported when it is first used, as it takes half a second.
    from scipy import stats

    return stats.rankdata(maps, axis=1) - (maps.shape[1] + 1) / 2


def correlations(rows, others):
    """Correlate rows that are centred around zero.

    Args:
        rows: array `(maps, positions)`, such as `centred_ranks` returns.
        others: array of the same shape.

    Returns:
        array `(maps,)`, 0 where either row is constant.
    """
    # Sums of halves are exact, and so is a correlation of 1.
    products = np.einsum("np,np->n", rows, others)
    squares = np.einsum("np,np->n", rows, rows) * np.einsum("np,np->n", others, others)
    return np.divide(products, np.sqrt(squares), out=np.zeros_like(products), where=squares > 0)


SIMILARITIES = {
    "rank_correlation": rank_correlation,
    "pearson": pearson,
    "ssim": structural_similarity,
}


def _is_constant(maps):
    flat = np.reshape(maps, (len(maps), int(np.prod(np.shape(maps)[1:]))))
    return (flat == flat[:, :1]).all(axis=1)
