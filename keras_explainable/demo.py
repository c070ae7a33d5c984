"""A small multi-label study on handwritten digits: scenes, a classifier, and its explanations.

Digits are scikit-learn's 1,797 scanned ones, so nothing is downloaded. Digits of the explained
scenes are held out: the classifier has never seen these scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_explainable import visualization
from keras_explainable._checks import invalid
from keras_explainable._checks import number
from keras_explainable._typing import Verbose
from keras_explainable.engine.explaining import explain

CANVAS = 64
CLASSES = 10
INKED = 0.25
DIGIT_SIZES = (20, 22, 24)
METHODS = {"gradcam": "Grad-CAM", "minmaxcam": "MinMax-CAM", "d_minmaxcam": "D-MinMax-CAM"}
MAX_DIGITS = 4
SPACING = 2
# Digits that a bias makes occur together.
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
THRESHOLD = 0.5


class Digits(NamedTuple):
    """Scanned digits.

    Attributes:
        images: dictionary from the sizes 20, 22 and 24 to the digits enlarged to each, a float
            array `(digits, size, size)`, ink in [0, 1].
        labels: integer array, `(digits,)`.
        indices: integer array, `(digits,)`, position of each digit in scikit-learn's set.
    """

    images: dict
    labels: np.ndarray
    indices: np.ndarray


class Scenes(NamedTuple):
    """Scenes of one to four digits of distinct classes.

    Attributes:
        images: float array, `(scenes, 64, 64, 1)`, in [0, 1].
        labels: float array, `(scenes, 10)`, one where the class is present.
        masks: boolean array, `(scenes, 64, 64, 10)`, the inked pixels of each class.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


class Study(NamedTuple):
    """What the study found.

    Attributes:
        figure: matplotlib figure of some scenes and the maps of their detected digits.
        shares: dictionary from the name of each method, and "Uniform", to the mean shares of its
            maps' energy (their positive part) inside the explained digit, and inside the other
            digits of the scene.
        num_maps: integer, number of maps that each mean is over.
    """

    figure: Any
    shares: dict
    num_maps: int


def load_digits(held_out: float = 0.2, seed: int = 0) -> tuple[Digits, Digits]:
    """Load scikit-learn's scanned digits, in two disjoint parts.

    Args:
        held_out: share of the digits kept away from training.
        seed: integer, seed of the split.

    Returns:
        Two `Digits`: those to train with, and those held out.

    Raises:
        ImportError: if scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "The demonstration needs scikit-learn's handwritten digits. "
            'Install it with: pip install "keras-explainable[demo]"'
        ) from error
    scans = datasets.load_digits()
    order = np.random.default_rng(seed).permutation(len(scans.target))
    cut = round(len(order) * held_out)
    images = {size: _enlarge(scans.images / 16, size) for size in DIGIT_SIZES}
    kept, held = (
        Digits({size: images[size][part] for size in images}, scans.target[part], part)
        for part in (order[cut:], order[:cut])
    )
    return kept, held


def draw_scenes(
    digits: Digits,
    num_scenes: int,
    seed: int | Sequence[int] = 0,
    co_occurrence: float | None = None,
) -> Scenes:
    """Draw scenes with scanned digits.

    Digits have random classes, sizes, places and contrasts, on a noisy background. A scene has one
    to four digits, each number as often as any other, of classes that don't depend on each other
    but for being distinct.

    With a bias, a scene is drawn from one or two of the five pairs of digits (0, 1) to (8, 9),
    equally often: of each of its pairs it has both digits with the probability `co_occurrence`, and
    else one of the two, each as often. Without a bias, one scene in eight of those that have a
    digit of a pair has both.

    Args:
        digits: `Digits` to draw with.
        num_scenes: integer, number of scenes.
        seed: integer or sequence of integers; the same seed draws the same scenes.
        co_occurrence: float in [0, 1], the share of scenes with both digits of a pair among those
            with at least one of them. Defaults to no bias.

    Returns:
        `Scenes`.

    Raises:
        ValueError: if `co_occurrence` is no number in [0, 1].
    """
    if co_occurrence is not None and number("co_occurrence", co_occurrence, least=0) > 1:
        raise invalid("co_occurrence", "a number in [0, 1]", co_occurrence)
    rng = np.random.default_rng(seed)
    by_class = [np.flatnonzero(digits.labels == label) for label in range(CLASSES)]
    ink = np.zeros((num_scenes, CANVAS, CANVAS), "float32")
    masks = np.zeros((num_scenes, CANVAS, CANVAS, CLASSES), bool)
    for scene, mask in zip(ink, masks, strict=True):
        classes = _choose(rng, co_occurrence)
        for label, (top, left, size) in zip(classes, _place(len(classes), rng), strict=True):
            digit = digits.images[size][rng.choice(by_class[label])]
            box = slice(top, top + size), slice(left, left + size)
            scene[box] = digit * rng.uniform(0.6, 1.0)
            mask[(*box, label)] = digit > INKED
    background = rng.uniform(0.0, 0.2, (num_scenes, 1, 1)).astype("float32")
    noise = 0.04 * rng.standard_normal(ink.shape, "float32")
    images = np.clip(background + (1 - background) * ink + noise, 0, 1)
    return Scenes(images[..., None], masks.any((1, 2)).astype("float32"), masks)


def _choose(rng, co_occurrence):
    """Choose the classes of a scene."""
    if co_occurrence is None:
        return rng.permutation(CLASSES)[: rng.integers(1, MAX_DIGITS + 1)]
    pairs = rng.permutation(PAIRS)[: rng.integers(1, MAX_DIGITS // 2 + 1)]
    kept = [2 if rng.uniform() < co_occurrence else 1 for _ in pairs]
    return np.concatenate([rng.permutation(p)[:k] for p, k in zip(pairs, kept, strict=True)])


def _enlarge(images, size):
    images = images[..., None].astype("float32")
    enlarged = keras.ops.image.resize(images, (size, size), interpolation="bicubic")
    return np.clip(keras.ops.convert_to_numpy(enlarged)[..., 0], 0, 1)


def _place(num_boxes, rng):
    """Place square boxes on the canvas, apart from each other: a list of (top, left, size)."""
    boxes = []
    while len(boxes) < num_boxes:
        size = int(rng.choice(DIGIT_SIZES))
        starts = np.arange(SPACING, CANVAS - size - SPACING + 1)
        free = np.ones((len(starts), len(starts)), bool)
        for top, left, other in boxes:
            rows = (starts < top + other + SPACING) & (starts + size + SPACING > top)
            columns = (starts < left + other + SPACING) & (starts + size + SPACING > left)
            free &= ~(rows[:, None] & columns)
        places = np.flatnonzero(free)
        if len(places):
            row, column = divmod(rng.choice(places), len(starts))
            boxes.append((starts[row], starts[column], size))
        else:  # The boxes so far leave no room.
            boxes.clear()
    return boxes


class _Batches(keras.utils.PyDataset):
    """Batches of scenes never drawn before, so that there is nothing to learn by heart."""

    def __init__(self, digits, length, batch_size, seed):
        super().__init__()
        self.digits = digits
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.epoch = 0

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        scenes = draw_scenes(self.digits, self.batch_size, (self.seed, self.epoch, index))
        return scenes.images, scenes.labels

    def on_epoch_end(self):
        self.epoch += 1


def build_model(filters: Sequence[int] = (16, 32, 64, 64, 64)) -> keras.Model:
    """Build a small convolutional network: activations of 16×16 positions, averaged, ten sigmoids.

    Args:
        filters: number of kernels of each convolution; the first two halve the resolution.

    Returns:
        A `keras.Model` from `(64, 64, 1)` images to the probabilities of ten classes.
    """
    inputs = x = keras.Input((CANVAS, CANVAS, 1), name="images")
    for index, kernels in enumerate(filters):
        size, strides = (5, 2) if index == 0 else (3, 2 if index == 1 else 1)
        options = {"padding": "same", "use_bias": False, "name": f"convolution_{index}"}
        x = keras.layers.Conv2D(kernels, size, strides, **options)(x)
        # Training is too short for the default momentum, 0.99, to forget where it started.
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"normalization_{index}")(x)
        x = keras.layers.ReLU(name=f"relu_{index}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    outputs = keras.layers.Dense(CLASSES, activation="sigmoid", name="digits")(x)
    return keras.Model(inputs, outputs, name="digits_classifier")


def train(
    digits: Digits,
    epochs: int = 12,
    steps: int = 50,
    batch_size: int = 64,
    seed: int = 0,
    verbose: Verbose = "auto",
) -> keras.Model:
    """Train a classifier on scenes, in a minute or two on two processor cores.

    Args:
        digits: `Digits` to draw the scenes with.
        epochs: number of epochs.
        steps: number of batches in an epoch.
        batch_size: number of scenes in a batch, none of which is shown twice.
        seed: integer, seed of the weights and of the scenes.
        verbose: verbosity of `keras.Model.fit`.

    Returns:
        The trained `keras.Model`.
    """
    keras.utils.set_random_seed(seed)
    model = build_model()
    rate = keras.optimizers.schedules.CosineDecay(5e-3, epochs * steps)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["binary_accuracy"])
    model.fit(_Batches(digits, steps, batch_size, seed), epochs=epochs, verbose=verbose)
    return model


def evaluate(model: keras.Model, scenes: Scenes) -> tuple[float, float]:
    """Measure how often a classifier is right.

    Args:
        model: `keras.Model` from images to probabilities.
        scenes: `Scenes`.

    Returns:
        label_accuracy: share of the labels that are right.
        exact_match: share of the scenes whose ten labels are all right.
    """
    detected = model.predict(scenes.images, verbose=0) > THRESHOLD
    right = detected == (scenes.labels > THRESHOLD)
    return right.mean(), right.all(axis=1).mean()


def study(
    model: keras.Model,
    scenes: Scenes,
    num_pictured: int = 3,
    batch_size: int = 64,
    verbose: Verbose = "auto",
) -> Study:
    """Explain every digit detected in scenes, and measure where the energy of the maps lies.

    Args:
        model: `keras.Model` from images to probabilities.
        scenes: `Scenes`.
        num_pictured: number of scenes in the figure, the first where anything is detected.
        batch_size: number of scenes explained at a time.
        verbose: verbosity of `keras_explainable.explain`.

    Returns:
        `Study`.

    Raises:
        ValueError: if no digit of the scenes is detected.
    """
    scores = model.predict(scenes.images, batch_size=batch_size, verbose=0)
    detected = scores > THRESHOLD
    found = detected & (scenes.labels > THRESHOLD)
    if not found.any():
        raise invalid("model", "one that detects digits of the scenes", "no digit detected")
    options: dict[str, Any] = {
        "postprocessing": "positive",
        "batch_size": batch_size,
        "verbose": verbose,
    }
    maps = {
        name: explain(method, model, scenes.images, **options)[1]
        for method, name in METHODS.items()
    }
    shares = {name: energy_shares(values, scenes.masks, found) for name, values in maps.items()}
    shares["Uniform"] = energy_shares(np.ones_like(scenes.masks, "float32"), scenes.masks, found)
    pictured = np.flatnonzero(detected.any(axis=1))[:num_pictured]
    return Study(_picture(scenes, scores, maps, pictured), shares, int(found.sum()))


def energy_shares(maps: np.ndarray, masks: np.ndarray, selected: np.ndarray) -> tuple[float, float]:
    """Measure the mean shares of the energy of maps inside their own mask, and inside the others.

    Args:
        maps: non-negative array, `(scenes, height, width, classes)`.
        masks: boolean array, of the same shape.
        selected: boolean array, `(scenes, classes)`, the maps to measure.

    Returns:
        own: float, mean share inside the mask of the map's class.
        others: float, mean share inside the masks of the other classes.
    """
    scene, label = np.nonzero(selected)
    maps, own = maps[scene, :, :, label].astype(float), masks[scene, :, :, label]
    others = np.any(masks, axis=-1)[scene] & ~own
    energy = np.maximum(maps.sum(axis=(1, 2)), keras.config.epsilon())
    inside, outside = (float(np.mean((maps * mask).sum((1, 2)) / energy)) for mask in (own, others))
    return inside, outside


def _picture(scenes, scores, maps, pictured):
    """Draw some scenes, and the maps of the digits detected in them."""
    digits = [np.flatnonzero(scores[scene] > THRESHOLD) for scene in pictured]
    return visualization.grid(
        scenes.images[pictured],
        {
            name: [values[scene][..., units] for scene, units in zip(pictured, digits, strict=True)]
            for name, values in maps.items()
        },
        titles=[
            [_title(unit, scores[scene], scenes.labels[scene]) for unit in units]
            for scene, units in zip(pictured, digits, strict=True)
        ],
        captions=[f"Scene {number}" for number in range(1, len(pictured) + 1)],
        layout="columns",
        cell_size=1.3,
    )


def _title(unit, scores, labels):
    absent = "" if labels[unit] else "absent, "
    return f"digit {unit} ({absent}{scores[unit]:.2f})"
