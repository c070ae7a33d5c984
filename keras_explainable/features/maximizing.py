"""Find the images that a unit, a channel or a layer of a model responds to most."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from collections.abc import Sequence
from typing import Literal
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _showing
from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import number
from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._keeping import Kept
from keras_explainable._typing import ArrayLike
from keras_explainable._typing import Layers
from keras_explainable._typing import Output
from keras_explainable._typing import Verbose
from keras_explainable.features._ascending import Ascent
from keras_explainable.features._ascending import Schedule
from keras_explainable.features._inputs import Inputs
from keras_explainable.features._inputs import runner
from keras_explainable.features._objectives import choose
from keras_explainable.features._objectives import is_of_unknown_shape
from keras_explainable.features._parametrizing import PARAMETRIZATIONS
from keras_explainable.features._parametrizing import Parametrization

# Each may hold a compiled step, and an image needs two.
_ascents = Kept(8)


class Maximization(NamedTuple):
    """What `maximize_activation` returns.

    Attributes:
        images: float32 array `(n, *sizes, channels)`, in the space of the input of the model; with
            channels first, `(n, channels, *sizes)`, for a model that takes them so.
        trace: float32 array `(num_steps, n)`, the activation after each step, without penalties.
            The last row is that of `images`; the others are those of shifted images, where there
            is jitter.
    """

    images: np.ndarray
    trace: np.ndarray

    def __repr__(self):
        """Tell what there is, and not all of its values."""
        return _showing.made("Maximization", self._asdict())


def maximize_activation(
    model: keras.Model,
    units: ArrayLike | None = None,
    *,
    value_range: tuple[float, float] | None,
    layer: Layers = None,
    channels: ArrayLike | None = None,
    position: str | tuple[int, ...] = "mean",
    objective: Callable | None = None,
    output: Output = None,
    input: int | str | None = None,
    size: int | tuple[int, ...] | None = None,
    start: Inputs | None = None,
    parametrization: str = "fourier",
    num_steps: int = 256,
    learning_rate: float = 0.05,
    noise: float = 0.01,
    jitter: int | Literal["auto"] = "auto",
    blur: float = 0.35,
    blur_every: int = 4,
    tv_weight: float = 0.0,
    l2_weight: float = 0.0,
    mixing: ArrayLike | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int = 8,
    verbose: Verbose = "auto",
    run_eagerly: bool = False,
    jit_compile: bool = False,
) -> Maximization:
    r"""Find the images that excite units of a model, channels of a layer, or a layer most.

    .. math:: x^* = \arg\max_x a(x) - \lambda_2 \lVert x \rVert_2^2 - \lambda_{TV} TV(x)

    What is maximised, :math:`a`, is one of

    - `units` of the output, before its activation;
    - `channels` of a `layer`, as the layer returns them, averaged over positions or at one;
    - a `layer`, the mean square of all that it returns (DeepDream);
    - an `objective` of one's own.

    Images are optimised side by side, by Adam, and none depends on the others. The model runs as in
    inference, and is left exactly as found. Later calls for other units, seeds, starts or data, as
    many at once, reuse the step that was compiled, but for functions of one's own.

    Args:
        model: `keras.Model`, as for `explain`, with an input of floats.
        units: integer, or one per image.
        value_range: pair of the lowest and the highest value of the preprocessed input, such as
            `(-1, 1)`, between which images are kept by a hyperbolic tangent; `None` for no limits.
        layer: endpoint, as `inspection.expose` takes it; for an `objective`, also a list of them.
        channels: integer, or one per image.
        position: "mean" for the mean of a channel over positions, "center" for the one in the
            middle (a neuron), or a tuple of indices. Tokens are arranged on the grid of patches,
            without a class token, where that is known.
        objective: function from `[logits, *activations]`, float32 tensors of images side by side,
            to one float per image, `(n,)`.
        output: which output the units are of, as in `explain`: also a function of the outputs, or
            one of `ke.targets`, of whose data there is one row, or one per image.
        input: index or name of the input that is optimised, for a model of several. Defaults to the
            first one with positions.
        size: number of positions along every axis, or a tuple of them, for a model of any size.
        start: image to start from, in the layout that the model takes, `(*sizes, channels)` or
            `(channels, *sizes)`, or one per image; in the middle of `value_range` by default. For a
            model with several inputs, a list or dict of what it takes, in which the input that is
            optimised may be `None`; the others are held. Needed, with the axis of images, for a
            subclassed model whose input shape Keras doesn't know.
        parametrization: "fourier" optimises the spectrum of an image, its amplitudes in inverse
            proportion to the frequency; "pixel" the image itself.
        num_steps: number of steps. Defaults to 256.
        learning_rate: size of a step, in the units of the scaled image. Defaults to 0.05.
        noise: standard deviation of the normal noise added to the start. Defaults to 0.01.
        jitter: by how many positions an image is shifted at most, along each axis, anew in every
            step; what leaves at one end comes back at the other. "auto" is one in 16, 8 at most.
        blur: standard deviation, in positions, of a Gaussian that images are blurred with; 0 for
            none. Defaults to 0.35.
        blur_every: number of steps after which images are blurred, but for the last. Defaults to 4.
        tv_weight: weight of the total variation, the sum of the magnitudes of the differences of
            neighbours. As the norm, it is that of the image scaled from `value_range` to [-1, 1].
        l2_weight: weight of the squared norm.
        mixing: array `(channels, channels)`, whose rows are the directions in which channels vary
            together, such as the principal components of the pixels of photographs, each times its
            standard deviation; only ratios count. By default channels vary by themselves.
        seed: integer that noise and jitter follow from, or one per image.
        batch_size: most images that are optimised side by side. Defaults to 8.
        verbose: 0 for silence, 1 or "auto" for a progress bar, 2 for a line at the end.
        run_eagerly: run without compiling, for debugging. Defaults to False.
        jit_compile: compile with XLA. Defaults to False.

    Returns:
        `Maximization` of `images` and the `trace` of the activation. There are as many images as
        units, channels, seeds, images to start from or rows of data of a target; a single one of
        these goes with all.

    Raises:
        ValueError: if arguments don't go together or are out of range, an endpoint doesn't exist,
            or the size of the images isn't known.
        TypeError: if an argument has a wrong type, or no input is of floats.

    Warns:
        UserWarning: if an activation never changed, as that of a ReLU that is shut.

    References:
        - Erhan et al., "Visualizing Higher-Layer Features of a Deep Network", 2009.
        - Simonyan et al., "Deep Inside Convolutional Networks", ICLR workshop 2014, section 2.
          arXiv 1312.6034.
        - Olah et al., "Feature Visualization", Distill 2017. doi 10.23915/distill.00007.

    Example:
        >>> import keras, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3))
        >>> images, trace = ke.maximize_activation(
        ...     model, [207, 281], value_range=(-1, 1), num_steps=4, verbose=0)
        >>> images.shape, trace.shape
        ((2, 32, 32, 3), (4, 2))
    """
    if not isinstance(model, keras.Model):
        raise mistyped("model", "a `keras.Model`", model)
    chosen = _check_choice(units, layer, channels, position, objective, output)
    one_of("parametrization", parametrization, PARAMETRIZATIONS)
    if verbose not in ("auto", 0, 1, 2):
        raise invalid("verbose", '"auto", 0, 1 or 2', repr(verbose))
    value_range = _range(value_range)
    batch_size = positive_integer("batch_size", batch_size)
    schedule = Schedule(
        num_steps=positive_integer("num_steps", num_steps),
        learning_rate=number("learning_rate", learning_rate, 0),
        noise=number("noise", noise, 0),
        jitter=jitter if _is_auto(jitter) else positive_integer("jitter", jitter, 0),
        blur=number("blur", blur, 0),
        blur_every=positive_integer("blur_every", blur_every),
        tv_weight=number("tv_weight", tv_weight, 0),
        l2_weight=number("l2_weight", l2_weight, 0),
    )
    target = output if isinstance(output, inspection.Target) else None
    kept = _keeping(model, chosen, output, start)
    arguments = (chosen, layer, position, target.template() if target else output)
    with model.distribute_strategy.scope():
        exposed, measure = kept(
            arguments, lambda: choose(model, chosen, layer, position, objective, output, start)
        )
    if target:
        target.check(exposed.limits)
    inputs = Inputs(exposed, input, size, start, value_range)
    mixing = _mixing(mixing, inputs.channels)
    targets = _targets(chosen, units if channels is None else channels, exposed)
    rows = _rows(chosen, targets, _integers("seed", seed), inputs, target)
    width = math.ceil(len(rows[0]) / math.ceil(len(rows[0]) / batch_size))
    switches = (schedule, run_eagerly, jit_compile)
    space = (parametrization, inputs.sizes, value_range, mixing)
    run = runner(exposed, inputs.index)

    def build():
        def activations(images, held, targets):
            return measure(run(images, held), targets)

        return Ascent(activations, Parametrization(*space), *switches)

    ascent = kept((arguments, inputs.index, space, switches, width), build)
    images, trace = _in_batches(ascent, rows, width, verbose)
    _warn_of_constant(trace)
    return Maximization(inputs.as_taken(images), trace)


def _keeping(model, chosen, output, start):
    """Return the function from a key and a function to what that returns, kept for later calls."""
    # Functions of a user's own may hold the model, which would keep itself alive.
    is_own = inspection.as_target(output) and not isinstance(output, inspection.Target)
    if chosen == "objective" or is_own or (start is not None and is_of_unknown_shape(model)):
        return lambda _, build: build()
    return functools.partial(_ascents.get, model)


def _in_batches(ascent, rows, width, verbose):
    """Optimise all images, `width` of them side by side."""
    num_images = len(rows[0])
    bar = keras.utils.Progbar(
        math.ceil(num_images / width) * ascent.schedule.num_steps,
        verbose=1 if _is_auto(verbose) else verbose,
        stateful_metrics=["activation"],
    )

    def report(activations):
        if bar.verbose:
            bar.add(1, [("activation", float(tf.reduce_mean(activations)))])

    parts = []
    for first in range(0, num_images, width):
        # All batches have one size, so that there is one trace.
        taken = np.minimum(np.arange(first, first + width), num_images - 1)
        batch = keras.tree.map_structure(lambda array, at=taken: array[at], rows)
        parts.append(ascent.climb(*batch, report))
    images, traces = zip(*parts, strict=True)
    return np.concatenate(images)[:num_images], np.concatenate(traces, axis=1)[:, :num_images]


def _check_choice(units, layer, channels, position, objective, output):
    """Return which argument says what is maximised, and refuse those that don't go with it."""
    choices = {"units": units, "channels": channels, "objective": objective}
    given = [name for name, value in choices.items() if value is not None]
    if len(given) > 1 or (not given and layer is None):
        expected = "one of `units`, `channels` of a `layer`, a `layer` alone, and an `objective`"
        raise invalid("units", expected, " and ".join(f"`{name}`" for name in given) or "none")
    chosen = given[0] if given else "layer"
    if chosen == "units" and layer is not None:
        raise invalid("layer", "`None` with `units`", repr(layer), "Pass `channels` of a layer.")
    if chosen == "channels" and layer is None:
        raise invalid("layer", "the layer of the `channels`", None)
    if chosen == "objective" and not callable(objective):
        raise mistyped("objective", "a function from `[logits, *activations]` to `(n,)`", objective)
    if chosen in ("channels", "layer") and output is not None:
        raise invalid("output", "`None` with a layer", repr(output))
    is_named = isinstance(position, str) and position in ("mean", "center")
    is_tuple = isinstance(position, list | tuple) and all(isinstance(i, int) for i in position)
    if not (is_named or is_tuple):
        raise invalid("position", '"mean", "center" or a tuple of indices', repr(position))
    if chosen != "channels" and position != "mean":
        raise invalid("position", '"mean", but for `channels`', repr(position))
    return chosen


def _range(value_range):
    """Return the range of an image as a pair of floats, or `None`."""
    if value_range is None:
        return None
    expected = "a pair of the lowest and the highest value of the input, or `None`"
    if not isinstance(value_range, list | tuple | np.ndarray) or len(value_range) != 2:
        raise invalid("value_range", expected, repr(value_range))
    low, high = (number("value_range", end) for end in value_range)
    if low >= high:
        raise invalid("value_range", expected, repr(value_range))
    return low, high


def _mixing(mixing, channels):
    """Return a matrix as float32, of mean square row sums 1, so that values keep their scale."""
    if mixing is None:
        return None
    matrix = np.asarray(mixing, "float32")
    if matrix.shape != (channels, channels):
        raise invalid("mixing", f"an array of shape {(channels, channels)}", matrix.shape)
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix) < channels:
        raise invalid("mixing", "a matrix that can be inverted", matrix.tolist())
    return matrix / np.sqrt((matrix**2).sum() / channels)


def _targets(chosen, targets, exposed):
    """Return the units or channels as integers `(n,)`; zeros where there are none."""
    if chosen not in ("units", "channels"):
        return np.zeros(1, "int32")
    output = exposed.outputs[0 if chosen == "units" else 1]
    targets, count = _integers(chosen, targets), output.shape[-1]
    if targets.min() < 0 or (count is not None and targets.max() >= count):
        received = f"{targets.min()} to {targets.max()}"
        raise invalid(chosen, f"indices from 0 to {count - 1}", received)
    return targets


def _integers(argument, values):
    """Return one or more integers as an array `(n,)`."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.ndim > 1 or not array.size:
        raise invalid(argument, "an integer, or one per image", repr(values))
    return array.reshape(-1).astype("int32")


def _rows(chosen, targets, seeds, inputs, target):
    """Return the start, the seeds, what is held and the targets, each with one row per image.

    The data of a target, `inspection.Target` or `None`, follow what is held.
    """
    rows = (inputs.start, seeds, inputs.held, targets)
    data = target.data if target else ()
    counts = [len(array) for array in keras.tree.flatten(rows)]
    num_images = max(len(array) for array in keras.tree.flatten([rows, data]))
    if not set(counts) <= {1, num_images}:
        expected = "as many as there are seeds and images to start from, or one of them"
        found = f"{len(targets)}, {len(seeds)} seeds and {len(inputs.start)} images"
        found += f", for {num_images} rows of data in `output`" if num_images not in counts else ""
        raise invalid(chosen, expected, found)
    start, seeds, held, targets = keras.tree.map_structure(
        lambda array: np.broadcast_to(array, (num_images, *array.shape[1:])), rows
    )
    return start, seeds, [*held, *(target.rows(num_images) if target else ())], targets


def _warn_of_constant(trace):
    """Warn of activations that no step has changed."""
    stuck = np.flatnonzero(np.ptp(trace, axis=0) == 0)
    if len(trace) > 1 and len(stuck):
        warnings.warn(
            f"The activations of the images {stuck.tolist()} never changed: no gradient leads to "
            "the input, as behind a ReLU that is shut. Take the layer before it, as in "
            '`layer={"name": ..., "link": "input"}`, another seed, or more noise.',
            stacklevel=3,
        )


def _is_auto(value):
    return isinstance(value, str) and value == "auto"
