"""Sums of scores over a data set, and over resamples of it."""

import numpy as np

from keras_explainable.metrics._computing import combined
from keras_explainable.metrics._stateful import averaged


class Accumulator:
    """Sums of the scores of one metric: by class, and for each resample of the data set.

    A resample is a Poisson bootstrap: each sample counts a number of times drawn from a Poisson
    distribution of mean one, so that data can be streamed, and memory doesn't grow with them.

    Args:
        known: `Registration` of the metric.
        average: how its values are averaged over classes, see `ExplanationMetric`.
    """

    def __init__(self, known, average):
        self.known = known
        self.average = average
        self.classes = []
        self.sums = self.counts = self.curve_sum = None
        self.num_curves = 0.0

    def add(self, scores, classes, resamples):
        """Add the scores of a batch.

        Args:
            scores: dict of "values" `(batch, n)` or `(batch, n, parts)`, "weights", "curve".
            classes: integers `(batch, n)`.
            resamples: float `(batch, 1 + resamples)`, how often each sample counts.
        """
        values, classes = np.asarray(scores["values"], "float64"), np.asarray(classes)
        weights = np.asarray(scores["weights"], "float64")
        values = values if values.ndim == 3 else values[..., None]
        weights = np.broadcast_to(
            weights if weights.ndim == 3 else weights[..., None], values.shape
        )
        values = np.where(weights > 0, values, 0)
        if not self.known.per_class:
            classes = np.zeros(values.shape[:2], int)
        elif self.known.with_background:
            # The background is the class before the first.
            classes = np.arange(values.shape[1])[None] - 1 + np.zeros(values.shape[:2], int)
        found = np.unique(classes[weights.max(axis=-1) > 0])
        self._grow([int(c) for c in found if int(c) not in self.classes], resamples, values)
        if self.sums is not None and len(found):
            self._add_to_classes(values, weights, classes, resamples, found)
        if scores.get("curve") is not None:
            curve = np.tensordot(weights[..., 0], np.asarray(scores["curve"], "float64"), 2)
            self.curve_sum = curve + (0 if self.curve_sum is None else self.curve_sum)
            self.num_curves += weights[..., 0].sum()

    def _grow(self, new, resamples, values):
        if not new:
            return
        shape = len(new), resamples.shape[1], values.shape[-1]
        zeros = np.zeros(shape)
        self.classes += new
        self.sums = zeros if self.sums is None else np.concatenate([self.sums, zeros])
        self.counts = zeros.copy() if self.counts is None else np.concatenate([self.counts, zeros])

    def _add_to_classes(self, values, weights, classes, resamples, found):
        for label in found:
            chosen = (classes == label)[..., None] * weights
            row = self.classes.index(label)
            self.sums[row] += resamples.T @ (chosen * values).sum(axis=1)
            self.counts[row] += resamples.T @ chosen.sum(axis=1)

    def summary(self, level=0.95):
        """Return rows of class, value, low and high end of the interval, and count.

        Args:
            level: probability that the interval is to have.

        Returns:
            list of tuples; the class of the first is `None`, for all.
        """
        if self.sums is None:
            return [(None, float("nan"), float("nan"), float("nan"), 0)]
        order = np.argsort(self.classes)
        counts = self.counts[order]
        means = np.divide(self.sums[order], counts, out=np.zeros_like(counts), where=counts > 0)
        means, counts = means.swapaxes(0, 1), counts.swapaxes(0, 1)
        values, counts = (np.asarray(a) for a in combined(self.known, means, counts))
        if self.known.combine is None:
            values, counts = values[..., 0], counts[..., 0]
        average = self.average or "weighted"
        overall = np.asarray(averaged(values, counts, average))
        rows = [(None, *_interval(overall, counts.sum(axis=1), level))]
        if self.known.per_class:
            classes = np.asarray(self.classes)[order]
            rows += [
                (int(c), *_interval(values[:, i], counts[:, i], level))
                for i, c in enumerate(classes)
            ]
        return rows

    def curve(self):
        """Return the mean curve `(points,)`, or `None` for a metric without one."""
        return None if not self.num_curves else self.curve_sum / self.num_curves

    def state(self):
        """Return what `restore` takes: a dict of arrays."""
        if self.sums is None:
            return {}
        # Copies: what is added later, and perhaps not to the end, is no part of them.
        state = {
            "classes": np.asarray(self.classes),
            "sums": self.sums.copy(),
            "counts": self.counts.copy(),
        }
        if self.curve_sum is not None:
            state |= {"curve_sum": self.curve_sum, "num_curves": np.asarray(self.num_curves)}
        return state

    def restore(self, state):
        """Take over sums that were kept."""
        if not state:
            return
        self.classes = [int(c) for c in state["classes"]]
        self.sums, self.counts = state["sums"].copy(), state["counts"].copy()
        if "curve_sum" in state:
            self.curve_sum, self.num_curves = state["curve_sum"], float(state["num_curves"])


def _interval(values, counts, level):
    """Return a value, the ends of its interval and its count; the first entry is no resample."""
    resampled = values[1:][counts[1:] > 0]
    tail = 50 * (1 - level)
    low, high = np.percentile(resampled, [tail, 100 - tail]) if len(resampled) else [np.nan] * 2
    return float(values[0]), float(low), float(high), int(round(counts[0]))


def resample_weights(first, size, num_resamples, seed):
    """Draw how often samples count in each resample.

    Args:
        first: number of the first sample.
        size: number of samples.
        num_resamples: number of resamples.
        seed: integer.

    Returns:
        float array `(size, 1 + num_resamples)`, whose first column is 1, the data as they are. A
        sample has the same row in batches of any size, and for all methods.
    """
    rows = [
        np.random.default_rng((seed, first + i)).poisson(1.0, num_resamples) for i in range(size)
    ]
    rows = np.asarray(rows, "float64").reshape(size, num_resamples)
    return np.concatenate([np.ones((size, 1)), rows], axis=1)
