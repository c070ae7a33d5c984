"""What is optimised in place of an image: its values, or its spectrum, where each weighs alike."""

import numpy as np
import tensorflow as tf

from keras_explainable import _axes

PARAMETRIZATIONS = ("fourier", "pixel")
# By the number of axes of positions.
_TRANSFORMS = {1: tf.signal.fft, 2: tf.signal.fft2d, 3: tf.signal.fft3d}
MOST_AXES = max(_TRANSFORMS)
# Images to start from are kept off the ends of the range, which hyperbolic tangents never reach.
_INNERMOST = 0.999


class Parametrization:
    """The map from parameters to images, and back.

    Images are scaled to [-1, 1] in between, where they have a range, and left as they are where
    they have none. Parameters drawn from a normal distribution give images of its deviation.

    Args:
        name: "pixel" or "fourier".
        sizes: numbers of positions, one per axis.
        value_range: pair of the lowest and the highest value of an image, or `None` for no limits.
        mixing: array `(channels, channels)`, whose rows are the directions in which the channels
            are optimised, or `None` for each by itself.
    """

    def __init__(self, name, sizes, value_range=None, mixing=None):
        self._bounded = value_range is not None
        low, high = value_range or (-1.0, 1.0)
        self._middle, self._reach = (low + high) / 2, (high - low) / 2
        self._frequencies = frequencies(sizes)
        self._amplitudes = amplitudes(sizes) if name == "fourier" and sizes else None
        self._mixing = mixing

    def scaled(self, parameters):
        """Return images in [-1, 1], or without a range in their own units.

        Args:
            parameters: float32 tensor `(n, *sizes, channels)`.
        """
        values = parameters
        if self._amplitudes is not None:
            values = hartley(self._amplitudes * values)
        if self._mixing is not None:
            values = tf.tensordot(values, self._mixing, 1)
        return tf.tanh(values) if self._bounded else values

    def images(self, scaled):
        """Return images in the range that the model takes."""
        return self._middle + self._reach * scaled

    def parameters(self, images):
        """Return what gives images, the inverse of all that.

        Args:
            images: float32 array `(n, *sizes, channels)`, in the range that the model takes.
        """
        values = tf.convert_to_tensor((images - self._middle) / self._reach, tf.float32)
        if self._bounded:
            values = tf.atanh(tf.clip_by_value(values, -_INNERMOST, _INNERMOST))
        if self._mixing is not None:
            values = tf.tensordot(values, np.linalg.inv(self._mixing), 1)
        if self._amplitudes is not None:
            values = hartley(values) / self._amplitudes
        return values

    def blur(self, parameters, stddev):
        """Blur what enters the hyperbolic tangent with a Gaussian; the edges wrap around."""
        gain = np.exp(-2 * (np.pi * stddev * self._frequencies) ** 2).astype("float32")
        if self._amplitudes is not None:
            return gain * parameters
        return hartley(gain * hartley(parameters))


def hartley(images):
    r"""Take the Hartley transform: orthonormal, real and its own inverse.

    .. math:: H = (\Re F - \Im F) / \sqrt{N}

    Args:
        images: float32 tensor `(n, *sizes, channels)`.

    Returns:
        tensor of the same shape; the same tensor where there are no positions.
    """
    rank = images.shape.rank
    axes = _axes.spatial(rank)
    if not axes:
        return images
    signal = tf.transpose(images, (0, rank - 1, *axes))
    # A cast would warn of the imaginary part that its gradient leaves out.
    spectrum = _TRANSFORMS[len(axes)](tf.complex(signal, tf.zeros_like(signal)))
    spectrum = tf.math.real(spectrum) - tf.math.imag(spectrum)
    count = np.prod([images.shape[axis] for axis in axes])
    return tf.transpose(spectrum, (0, *range(2, rank), 1)) / np.float32(np.sqrt(count))


def frequencies(sizes):
    """Return the frequency of each term of the transform, in cycles per position.

    Args:
        sizes: numbers of positions, one per axis.

    Returns:
        float array `(*sizes, 1)`.
    """
    along = np.meshgrid(*(np.fft.fftfreq(size) for size in sizes), indexing="ij")
    return np.sqrt(np.sum(np.square(along), axis=0, dtype=float) + np.zeros(sizes))[..., None]


def amplitudes(sizes):
    """Return the amplitude of each term, in inverse proportion to its frequency; rms is 1."""
    values = 1 / np.maximum(frequencies(sizes), 1 / max(sizes))
    return (values / np.sqrt(np.mean(values**2))).astype("float32")
