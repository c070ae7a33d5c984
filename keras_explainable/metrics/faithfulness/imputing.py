"""Faithfulness without traces of what is removed: ROAD, which imputes it from what is around."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import one_of
from keras_explainable.metrics._scoring import Rows
from keras_explainable.metrics.faithfulness import _perturbing
from keras_explainable.metrics.faithfulness._perturbing import ExplainedInputs
from keras_explainable.metrics.faithfulness.curves import curve_metric

ORDERS = ("both", "morf", "lerf")
# Shares of a removed pixel that its neighbours in a row or column, and on a diagonal, make up.
_DIRECT, _DIAGONAL = 1 / 6, 1 / 12
# Each takes a tenth of the error or less, whatever is missing; rounding is reached with 10.
_NUM_ITERATIONS = 10
_NUM_SMOOTHING = 2
_DAMPING = 0.8
# Levels for images whose size isn't known before they come, enough for 1024².
_NUM_LEVELS = 10


@curve_metric(higher_is_better=True)
def road(
    inputs: ExplainedInputs,
    *,
    order: str = "both",
    percentiles: Sequence[float] = (10, 20, 30, 40, 50, 60, 70, 80, 90),
    noise: float = 0.01,
    seed: int = 0,
) -> Rows:
    r"""Tell how far a prediction falls as pixels are imputed, most or least relevant ones first.

    .. math:: \frac{1}{n} \sum_j p(x) - p(x^{most}_j), \quad
              \frac{1}{n} \sum_j p(x^{least}_j) - p(x), \quad
              \frac{1}{2n} \sum_j p(x^{least}_j) - p(x^{most}_j)

    for the orders "morf" (most relevant first), "lerf" (least relevant first) and "both", with
    :math:`x_j` the input in which the j-th percentage of pixels is imputed: each is a weighted mean
    of its 8 neighbours, imputed or not, and noise. The noise is the same for all samples. Positions
    have two axes. Maps of channels are added up over channels.

    Args:
        inputs: `ExplainedInputs`.
        order: "both", "morf" or "lerf". Defaults to "both".
        percentiles: percentages of pixels that are imputed, above 0 and below 100. Defaults to
            10, 20, …, 90.
        noise: standard deviation of the noise, in the unit of the input. Defaults to 0.01.
        seed: integer. Defaults to 0.

    References:
        - Rong, Leemann, Borisov, Kasneci, Kasneci, "A Consistent and Efficient Evaluation Strategy
          for Attribution Methods", ICML 2022. arXiv 2202.00449.
    """
    one_of("order", order, ORDERS)
    noise, seed = number("noise", noise, 0), _perturbing.checked_seed(seed)
    shares = _shares(percentiles)
    if inputs.image.shape.rank != 4:
        expected = "images, inputs with two axes of positions"
        raise invalid("x", expected, f"shape {tuple(inputs.image.shape)}")
    height, width, num_channels = _axes.sizes(inputs.image)[1:]
    num_pixels = tf.cast(height * width, tf.float32)
    counts = tf.cast(tf.floor(tf.constant(shares) * num_pixels), tf.int32)

    def disturbed(points):
        shape = tf.stack([height, width, num_channels])
        draw = lambda i: tf.random.stateless_normal(shape, tf.stack([seed, i]))  # noqa: E731
        return noise * tf.map_fn(draw, points, fn_output_signature=tf.float32)

    def ranked(pairs):
        maps = tf.reduce_sum(inputs.attributions(pairs), axis=-1, keepdims=True)
        return tf.stack([_perturbing.ranks(sign * maps) for sign in signs], axis=1)

    def change(pairs, points):
        found = _perturbing.of_pairs(ranked, pairs)
        found = tf.gather(found, points // len(shares), axis=1, batch_dims=1)
        count = tf.gather(counts, points % len(shares))
        missing = found < _perturbing.aligned(count, found)
        image = tf.gather(inputs.image, tf.gather(inputs.pairs.samples, pairs))
        filled = imputed(image, tf.cast(missing, tf.float32))
        return tf.where(missing, filled + disturbed(points % len(shares)), image)

    signs = {"morf": (1.0,), "lerf": (-1.0,), "both": (1.0, -1.0)}[order]
    after = inputs.predicted(len(signs) * len(shares), change)
    if order == "both":
        curve = (after[:, len(shares) :] - after[:, : len(shares)]) / 2
    else:
        curve = signs[0] * (inputs.before[:, None] - after)
    return tf.reduce_mean(curve, axis=1), None, curve


def imputed(image: tf.Tensor, missing: tf.Tensor) -> tf.Tensor:
    r"""Impute pixels from their 8 neighbours, which may be imputed themselves.

    .. math:: u_i \sum_j w_{ij} = \sum_j w_{ij} u_j

    for every missing pixel i, with weights 1/6 for neighbours in its row or column, 1/12 for those
    on a diagonal, and none beyond the border. The linear system is solved by conjugate gradients
    that are preconditioned with multigrid, so that large holes take no more iterations than small
    ones.

    Args:
        image: float32 `(rows, height, width, channels)`.
        missing: float32 `(rows, height, width, 1)`, 1 for missing pixels and 0 for known ones, of
            which there is one or more.

    Returns:
        float32 tensor of the shape of the image.
    """
    levels = _levels(missing)
    solution = _spread(image * (1 - missing), 1 - missing, len(levels))
    residual = -_applied(levels[0], solution)

    def step(i, solution, residual, direction, product):
        improved = _cycle(levels, residual)
        following = _inner(residual, improved)
        direction = improved + tf.math.divide_no_nan(following, product) * direction
        applied = _applied(levels[0], direction)
        length = tf.math.divide_no_nan(following, _inner(direction, applied))
        return (
            i + 1,
            solution + length * direction,
            residual - length * applied,
            direction,
            following,
        )

    nothing = tf.zeros_like(residual)
    state = (0, solution, residual, nothing, _inner(nothing, nothing))
    return tf.while_loop(lambda i, *_: i < _NUM_ITERATIONS, step, state, parallel_iterations=1)[1]


def _levels(missing):
    """Return what is missing, and the sum of the weights of neighbours, at halved sizes."""
    levels = [(missing, _neighbours(tf.ones_like(missing[:1])))]
    sizes = missing.shape[1:3].as_list()
    known = None not in sizes
    for _ in range((max(sizes) - 1).bit_length() - 1 if known else _NUM_LEVELS):
        # A cell is known with any pixel of it.
        missing = 1 - tf.nn.max_pool2d(1 - missing, 2, 2, "SAME")
        levels.append((missing, _neighbours(tf.ones_like(missing[:1]))))
    return levels


def _neighbours(image):
    """Return the weighted sum of the neighbours of each pixel."""
    padded = tf.pad(image, [[0, 0], [1, 1], [1, 1], [0, 0]])
    above_below = padded[:, :-2] + padded[:, 2:]
    beside = _DIAGONAL * above_below + _DIRECT * padded[:, 1:-1]
    return _DIRECT * above_below[:, :, 1:-1] + beside[:, :, :-2] + beside[:, :, 2:]


def _applied(level, image):
    """Apply the system to an image: how far missing pixels are from the mean around them."""
    missing, total = level
    return missing * (total * image - _neighbours(image))


def _cycle(levels, residual):
    """Solve the system for a residual about, smoothing it and correcting it at halved sizes."""
    missing, total = levels[0]
    smoothing = tf.math.divide_no_nan(_DAMPING * missing, total)
    found = smoothing * residual
    for _ in range(_NUM_SMOOTHING - 1):
        found += smoothing * (residual - _applied(levels[0], found))
    if len(levels) == 1:
        return found
    coarse = levels[1][0] * _halved(residual - _applied(levels[0], found))
    found += missing * _doubled(_cycle(levels[1:], coarse), _axes.sizes(missing)[1:3])
    for _ in range(_NUM_SMOOTHING):
        found += smoothing * (residual - _applied(levels[0], found))
    return found


def _halved(image):
    """Add up the pixels of every cell of 2 × 2."""
    height, width = _axes.sizes(image)[1:3]
    padded = tf.pad(image, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]])
    return 4 * tf.nn.avg_pool2d(padded, 2, 2, "VALID")


def _doubled(image, sizes):
    """Repeat pixels, which is the adjoint of `_halved`."""
    return tf.repeat(tf.repeat(image, 2, axis=1), 2, axis=2)[:, : sizes[0], : sizes[1]]


def _spread(image, known, num_levels):
    """Fill what isn't known with the mean of what is known in the smallest cell around."""
    if num_levels == 0:
        total = tf.reduce_sum(image * known, axis=(1, 2), keepdims=True)
        count = tf.reduce_sum(known, axis=(1, 2), keepdims=True)
        return tf.zeros_like(image) + tf.math.divide_no_nan(total, count)
    share = tf.nn.avg_pool2d(known, 2, 2, "SAME")
    coarse = tf.math.divide_no_nan(tf.nn.avg_pool2d(image * known, 2, 2, "SAME"), share)
    coarse = _spread(coarse, tf.cast(share > 0, tf.float32), num_levels - 1)
    return tf.where(known > 0, image, tf.image.resize(coarse, _axes.sizes(image)[1:3]))


def _inner(a, b):
    return tf.reduce_sum(a * b, axis=(1, 2), keepdims=True)


def _shares(percentiles):
    """Return percentages as shares."""
    if not isinstance(percentiles, list | tuple) or not percentiles:
        raise invalid("percentiles", "one or more percentages", repr(percentiles))
    shares = [number("percentiles", value) / 100 for value in percentiles]
    if min(shares) <= 0 or max(shares) >= 1:
        raise invalid("percentiles", "percentages above 0 and below 100", repr(percentiles))
    return shares
