"""Faithfulness by regions: logits while the most relevant windows are perturbed, one by one."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._variation import simpson_weights
from keras_explainable.metrics._scoring import Rows
from keras_explainable.metrics._scoring import in_chunks
from keras_explainable.metrics.faithfulness import _perturbing
from keras_explainable.metrics.faithfulness._perturbing import ExplainedInputs
from keras_explainable.metrics.faithfulness.curves import curve_metric

NOISES = ("uniform", "gaussian")


@curve_metric(higher_is_better=False, curve_axis="share of the windows perturbed")
def aupc(
    inputs: ExplainedInputs,
    *,
    window: int = 15,
    num_regions: int = 30,
    num_copies: int = 50,
    noise: str = "uniform",
    low: float | None = None,
    high: float | None = None,
    normalize: bool = False,
    seed: int = 0,
) -> Rows:
    r"""Tell how long the logit of a unit stays up while the most relevant regions are perturbed.

    .. math:: \int_0^n \ell(t) \, dt \, / \, |\ell(0)|

    by Simpson's rule, with :math:`\ell(0)` the logit of the unit and :math:`\ell(j)` its mean over
    perturbed copies of the j-th region, on top of the regions before, which keep the noise of the
    copy whose logit is the median, the lower of two. Regions are windows that don't overlap, with
    the greatest mean size of the map. They are n or, where no more fit, fewer. The noise is the
    same for all samples. A value is undefined where the logit is 0.

    Args:
        inputs: `ExplainedInputs`.
        window: number of positions per axis of a region. Defaults to 15.
        num_regions: number n of regions. Defaults to 30.
        num_copies: number of perturbed copies per region. Defaults to 50.
        noise: what regions are replaced with: "uniform" from `low` to `high`, or "gaussian" with
            mean and standard deviation of the image, per channel, clipped to `low` and `high`.
            Defaults to "uniform".
        low: least value of an input. Defaults to that of the image.
        high: greatest value of an input. Defaults to that of the image.
        normalize: whether to divide by n, which makes the area a mean. Defaults to `False`, as in
            published figures.
        seed: integer. Defaults to 0.

    References:
        - Goh, Lapuschkin, Weber, Samek, Binder, "Understanding Integrated Gradients with
          SmoothTaylor for Deep Neural Network Attribution", ICPR 2020. arXiv 2004.10484.
    """
    one_of("noise", noise, NOISES)
    num_regions = positive_integer("num_regions", num_regions)
    walk = _Walk(
        inputs,
        positive_integer("window", window),
        positive_integer("num_copies", num_copies),
        noise,
        None if low is None else number("low", low),
        None if high is None else number("high", high),
        _perturbing.checked_seed(seed),
    )
    walk.check()
    count = tf.shape(inputs.pairs.samples)[0]
    at_once = max(inputs.chunk // walk.num_copies, 1)
    found = in_chunks(lambda rows: walk.run(rows, num_regions), count, at_once, num_regions + 1)
    scores, num_steps = found[:, :-1], tf.cast(found[:, -1], tf.int32)
    before = inputs.pairs.of_units(tf.gather(inputs.logits, inputs.pairs.samples))[:, None]
    curve = tf.math.divide_no_nan(tf.concat([before, scores], axis=1), tf.abs(before))
    weights = np.zeros((num_regions + 1, num_regions + 1), "float32")
    for n in range(1, num_regions + 1):
        weights[n, : n + 1] = simpson_weights(n + 1)
    weights = tf.gather(tf.constant(weights), num_steps)
    values = tf.reduce_sum(weights * curve, axis=1)
    known = (before[:, 0] != 0) & (num_steps > 0)
    values = values / tf.cast(tf.maximum(num_steps, 1), tf.float32) if normalize else values
    return tf.where(known, values, 0.0), tf.cast(known, tf.float32), curve


class _Walk:
    """Perturbs the regions of some pairs, the most relevant ones first."""

    def __init__(self, inputs, window, num_copies, noise, low, high, seed):
        self.inputs = inputs
        self.window = window
        self.num_copies = num_copies
        self.noise = noise
        self.low = low
        self.high = high
        self.seed = seed
        self.sizes = _axes.sizes(inputs.image)[1:]

    def check(self):
        """Raise that regions don't fit the input."""
        least = min([size for size in self.sizes[:-1] if isinstance(size, int)], default=None)
        if len(self.sizes) == 1:
            raise invalid("x", "inputs with axes of positions", "none")
        if least is not None and self.window > least:
            raise invalid("window", f"at most {least} positions", self.window)

    def run(self, pairs, num_regions):
        """Return mean logits `(rows, regions)`, and with them the number of regions there were."""
        rows = tf.shape(pairs)[0]

        def step(i, image, relevance, scores, count):
            chosen, relevance, region = self.next_region(relevance)
            found = self.scored(pairs, i, image, region)
            ordered = tf.argsort(found, axis=1, stable=True)
            # Of an even number, two are equally close to the median, but for rounding.
            nearest = ordered[:, (self.num_copies - 1) // 2]
            image = self.perturbed(pairs, image, region, i * self.num_copies + nearest)
            scores += tf.reduce_mean(found, axis=1)[:, None] * tf.one_hot(i, num_regions)
            return i + 1, image, relevance, scores, count + tf.cast(chosen, tf.float32)

        image = tf.gather(self.inputs.image, tf.gather(self.inputs.pairs.samples, pairs))
        state = (0, image, self.relevance(pairs), tf.zeros([rows, num_regions]), tf.zeros([rows]))
        found = tf.while_loop(lambda i, *_: i < num_regions, step, state, parallel_iterations=1)
        return tf.concat([found[3], found[4][:, None]], axis=1)

    def relevance(self, pairs):
        """Return the mean size of maps in every window, `(rows, *starts)`."""
        maps = tf.reduce_mean(tf.abs(self.inputs.attributions(pairs)), axis=-1, keepdims=True)
        for axis in _axes.spatial(maps.shape.rank):
            maps = _perturbing.pooled(maps, axis, self.window, 1)
        return maps[..., 0]

    def next_region(self, relevance):
        """Choose the next window.

        Args:
            relevance: `(rows, *starts)`, -1 for windows that overlap one chosen before.

        Returns:
            whether there is one, `(rows,)`; relevance without it and what overlaps it; and where
            it is, boolean `(rows, *sizes, 1)`.
        """
        starts = _axes.sizes(relevance)[1:]
        flat = tf.reshape(relevance, (tf.shape(relevance)[0], -1))
        chosen = tf.reduce_max(flat, axis=1) >= 0
        places = tf.unravel_index(tf.argmax(flat, axis=1, output_type=tf.int32), starts)
        overlaps = region = None
        rank = len(starts) + 1
        for axis, size in enumerate(starts, start=1):
            shape = [1] * rank
            shape[axis] = -1
            place = tf.reshape(places[axis - 1], [-1] + [1] * (rank - 1))
            near = tf.abs(tf.reshape(tf.range(size), shape) - place) < self.window
            after = tf.reshape(tf.range(self.sizes[axis - 1]), shape) - place
            inside = (after >= 0) & (after < self.window)
            overlaps = near if overlaps is None else overlaps & near
            region = inside if region is None else region & inside
        region &= tf.reshape(chosen, [-1] + [1] * (rank - 1))
        return chosen, tf.where(overlaps, -1.0, relevance), region[..., None]

    def scored(self, pairs, i, image, region):
        """Return the logits `(rows, copies)` of copies with a region perturbed."""

        def predict(rows):
            which, copies = rows // self.num_copies, rows % self.num_copies
            some, number = tf.gather(pairs, which), i * self.num_copies + copies
            changed = tf.gather(image, which), tf.gather(region, which)
            return self.inputs.outputs(some, self.perturbed(some, *changed, number), "linear")

        count = tf.shape(pairs)[0] * self.num_copies
        found = in_chunks(predict, count, self.inputs.chunk, ())
        return tf.reshape(found, (-1, self.num_copies))

    def perturbed(self, pairs, image, region, numbers):
        """Return images with noise in a region, the n-th of all draws."""
        original = tf.gather(self.inputs.image, tf.gather(self.inputs.pairs.samples, pairs))
        axes = tuple(range(1, original.shape.rank))
        low, high = self.low, self.high
        low = tf.reduce_min(original, axis=axes, keepdims=True) if low is None else low
        high = tf.reduce_max(original, axis=axes, keepdims=True) if high is None else high
        shape = tf.stack(self.sizes)

        def draw(n):
            seed = tf.stack([self.seed, n])
            if self.noise == "uniform":
                return tf.random.stateless_uniform(shape, seed)
            return tf.random.stateless_normal(shape, seed)

        noise = tf.map_fn(draw, numbers, fn_output_signature=tf.float32)
        noise = tf.ensure_shape(noise, original.shape)
        if self.noise == "uniform":
            noise = low + (high - low) * noise
        else:
            mean, variance = tf.nn.moments(original, axes[:-1], keepdims=True)
            noise = tf.clip_by_value(mean + tf.sqrt(variance) * noise, low, high)
        return tf.where(region, noise, image)
