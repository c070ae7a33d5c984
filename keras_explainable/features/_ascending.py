"""Climb to the highest activation, in the space of the parameters of images."""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid

# Adam, as in its paper, but that steps shall not shrink where gradients are small throughout.
_DECAYS, _EPSILON = (0.9, 0.999), 1e-12
# Gradients of a mean over many positions would be rounded to zero in half precision.
_LOSS_SCALE = 1024.0
# Positions along an axis for each position of jitter, and the most of them.
_PER_JITTER, _MOST_JITTER = 16, 8


class Schedule(NamedTuple):
    """How an optimisation goes, see `maximize_activation`."""

    num_steps: int
    learning_rate: float
    noise: float
    jitter: int | str
    blur: float
    blur_every: int
    tv_weight: float
    l2_weight: float


class State(NamedTuple):
    """What a step takes and returns: parameters, and the running moments of their gradient."""

    parameters: tf.Tensor
    first: tf.Tensor
    second: tf.Tensor
    count: tf.Tensor


class Ascent:
    """The steps of an optimisation, of images that don't see each other.

    Args:
        measure: function from images, held inputs and targets to activations `(n,)`.
        parametrization: `Parametrization`.
        schedule: `Schedule`.
        run_eagerly: run without compiling.
        jit_compile: compile with XLA.
    """

    def __init__(self, measure, parametrization, schedule, run_eagerly=False, jit_compile=False):
        self.schedule = schedule
        self._measure = measure
        self._parametrization = parametrization
        self._compiled_step, self._compiled_finish = self._step, self._finish
        if not run_eagerly:
            compiled = tf.function(autograph=False, jit_compile=jit_compile)
            # TensorFlow counts the traces of a function by its code, which all ascents share.
            self._compiled_step = compiled(functools.partial(self._step))
            self._compiled_finish = compiled(functools.partial(self._finish))

    def climb(self, start, seeds, held, targets, report):
        """Optimise a batch of images.

        Args:
            start: float32 array `(n, *sizes, channels)`.
            seeds: integers `(n,)`.
            held: list of arrays `(n, ...)`, the other inputs of the model.
            targets: integers `(n,)`, what is measured.
            report: function that is called with the activations of every step.

        Returns:
            images: float32 array `(n, *sizes, channels)`.
            trace: float32 array `(num_steps, n)`.
        """
        held, targets = keras.tree.map_structure(tf.convert_to_tensor, (held, targets))
        schedule, parametrization = self.schedule, self._parametrization
        parameters = parametrization.parameters(start) + self._noise(seeds, start.shape[1:])
        shifts = self._shifts(seeds, start.shape[1:-1])
        zeros, trace = tf.zeros_like(parameters), []
        state = State(parameters, zeros, zeros, tf.constant(0.0))
        for step in range(schedule.num_steps):
            shift = None if shifts is None else shifts[:, step]
            state, activations = self._compiled_step(state, shift, held, targets)
            trace.append(activations)
            report(activations)
            due = schedule.blur > 0 and (step + 1) % schedule.blur_every == 0
            if due and step + 1 < schedule.num_steps:
                blurred = parametrization.blur(state.parameters, schedule.blur)
                state = state._replace(parameters=blurred)
        images, activations = self._compiled_finish(state.parameters, held, targets)
        return images.numpy(), np.stack([*trace[1:], activations])

    def _noise(self, seeds, shape):
        """Draw the noise of each image from its own seed."""
        return tf.map_fn(
            lambda seed: tf.random.stateless_normal(shape, [seed, 0], stddev=self.schedule.noise),
            seeds,
            fn_output_signature=tf.float32,
        )

    def _shifts(self, seeds, sizes):
        """Draw by how much each image is rolled in each step, `(n, num_steps, axes)`, if at all."""
        reach = [self.schedule.jitter] * len(sizes)
        if self.schedule.jitter == "auto":
            reach = [min(size // _PER_JITTER, _MOST_JITTER) for size in sizes]
        if not any(reach):
            return None
        shape, reach = (self.schedule.num_steps, len(sizes)), np.array(reach)
        uniform = tf.map_fn(
            lambda seed: tf.random.stateless_uniform(shape, [seed, 1]),
            seeds,
            fn_output_signature=tf.float32,
        )
        return tf.cast(tf.floor(uniform * (2 * reach + 1)), tf.int32) - reach

    def _step(self, state, shifts, held, targets):
        """Make a step of Adam.

        Args:
            state: `State`.
            shifts: integers `(n, axes)`, by how much each image is rolled; `None` for not at all.
            held: list of the other inputs of the model.
            targets: integers `(n,)`, what is measured.

        Returns:
            state: `State` after the step.
            activations: float32 tensor `(n,)`, those before the step.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state.parameters)
            scaled = self._parametrization.scaled(state.parameters)
            images = self._parametrization.images(scaled)
            images = images if shifts is None else roll(images, shifts)
            activations = self._measure(images, held, targets)
            height = _LOSS_SCALE * (activations - self._penalty(scaled))
        gradient = tape.gradient(height, state.parameters)
        if gradient is None:
            expected = "an activation that can be differentiated by the input"
            raise invalid("model", expected, "one that no gradient leads to")
        gradient /= _LOSS_SCALE
        return _adam(state, gradient, self.schedule.learning_rate), activations

    def _finish(self, parameters, held, targets):
        """Return the images, and their activations."""
        images = self._parametrization.images(self._parametrization.scaled(parameters))
        return images, self._measure(images, held, targets)

    def _penalty(self, scaled):
        penalty = 0.0
        if self.schedule.tv_weight:
            penalty += self.schedule.tv_weight * total_variation(scaled)
        if self.schedule.l2_weight:
            squares = tf.reduce_sum(scaled**2, axis=range(1, scaled.shape.rank))
            penalty += self.schedule.l2_weight * squares
        return penalty


def total_variation(images):
    """Sum the magnitudes of the differences of neighbours, along every axis of positions.

    Args:
        images: tensor `(n, *sizes, channels)`.

    Returns:
        tensor `(n,)`.
    """
    total = tf.zeros_like(images[(slice(None), *[0] * (images.shape.rank - 1))])
    for axis in _axes.spatial(images.shape.rank):
        after = tf.gather(images, tf.range(1, images.shape[axis]), axis=axis)
        before = tf.gather(images, tf.range(images.shape[axis] - 1), axis=axis)
        total += tf.reduce_sum(tf.abs(after - before), axis=range(1, images.shape.rank))
    return total


def roll(images, shifts):
    """Roll each image by shifts of its own; what leaves at one end comes back at the other.

    Args:
        images: tensor `(n, *sizes, channels)`.
        shifts: integer tensor `(n, axes)`.

    Returns:
        tensor of the same shape.
    """

    # That of gathering would add up every value in place, at many times the cost.
    @tf.custom_gradient
    def rolled(images):
        return _roll(images, shifts), lambda upstream: _roll(upstream, -shifts)

    return rolled(images)


def _roll(images, shifts):
    for number, axis in enumerate(_axes.spatial(images.shape.rank)):
        size = images.shape[axis]
        taken = (tf.range(size) - shifts[:, number, None]) % size
        images = tf.gather(images, taken, axis=axis, batch_dims=1)
    return images


def _adam(state, gradient, rate):
    """Make a step up the gradient."""
    count = state.count + 1
    first = _DECAYS[0] * state.first + (1 - _DECAYS[0]) * gradient
    second = _DECAYS[1] * state.second + (1 - _DECAYS[1]) * gradient**2
    mean, square = first / (1 - _DECAYS[0] ** count), second / (1 - _DECAYS[1] ** count)
    parameters = state.parameters + rate * mean / (tf.sqrt(square) + _EPSILON)
    return State(parameters, first, second, count)
