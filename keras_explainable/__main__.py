"""Command line: a demonstration, or the explanation of any Keras model on images.

Without arguments, train a small classifier of handwritten digits and explain it. With images,
explain a saved model, or a model of `keras.applications`, and write one picture per image.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_explainable import methods
from keras_explainable._checks import nearest

PREPROCESSINGS = {
    "none": lambda pixels: pixels,
    "unit": lambda pixels: pixels / 255.0,
    "symmetric": lambda pixels: pixels / 127.5 - 1.0,
}
DEMO_SCENES = 300
MAX_PICTURE_SIZE = 768
DESCRIPTION = """Explain what a Keras model looks at in images: write one picture per image.
Without arguments, train a small classifier of handwritten digits, in a minute or two, and
explain it."""
EXAMPLES = """examples:
  python -m keras_explainable
  python -m keras_explainable cat.jpg --model ResNet50V2 --units top3
  python -m keras_explainable scan.png --model my_model.keras --preprocessing unit --units 3 5

TensorFlow says less with TF_CPP_MIN_LOG_LEVEL=3 in the environment.
"""


class CommandError(Exception):
    """What the user asked for cannot be done, in one sentence."""


class Classifier(NamedTuple):
    """A model, and what goes before and after it.

    Attributes:
        model: `keras.Model`, from images to scores.
        preprocess: function from pixels in [0, 255] to the inputs of the model.
        name_units: function from an array of units to their names.
    """

    model: keras.Model
    preprocess: Callable
    name_units: Callable


class _Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(arguments=None):
    """Run the command line.

    Args:
        arguments: list of strings, by default those of the process.

    Returns:
        The exit code: 0, or 2 when what was asked cannot be done.
    """
    import matplotlib

    matplotlib.use("agg")  # No screen is needed.
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.images:
            explain_images(options)
        elif options.model:
            raise CommandError("no image to explain: give at least one image file")
        else:
            run_demo(options)
    except (CommandError, ImportError) as error:
        print(f"{parser.prog}: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _parser():
    parser = _Parser(
        prog="python -m keras_explainable",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files to explain")
    parser.add_argument(
        "--model",
        metavar="PATH|NAME",
        help="a saved model (.keras), or the name of a model of keras.applications, used with "
        "its ImageNet weights, its preprocessing and its class names",
    )
    parser.add_argument(
        "--method",
        default="gradcam",
        help=f"explaining method, one of {', '.join(methods.names())} (default: gradcam)",
    )
    parser.add_argument(
        "--layer", help="layer to explain at (default: the last one with a spatial activation)"
    )
    parser.add_argument(
        "--units",
        nargs="+",
        default=["argmax"],
        metavar="UNIT",
        help="what to explain: unit numbers, as in `3 5`, or `argmax`, or the best few, as in "
        "`top3` (default: argmax)",
    )
    parser.add_argument(
        "--preprocessing",
        choices=sorted(PREPROCESSINGS),
        help="pixel values that the model takes: none for 0 to 255, unit for 0 to 1, symmetric "
        "for -1 to 1 (default: none, or that of the named model)",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="size that images are resized to, for a model that takes any size",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="directory of the pictures (default: keras_explainable_demo, or "
        "keras_explainable_maps with images)",
    )
    return parser


def run_demo(options):
    """Train the classifier of digits, explain it, and print what was found.

    Args:
        options: parsed command line.
    """
    from keras_explainable import demo

    directory = _open_directory(options.output or Path("keras_explainable_demo"))
    train_digits, held_out_digits = demo.load_digits()
    print("Training a classifier on scenes of one to four handwritten digits.", flush=True)
    model = demo.train(train_digits)
    scenes = demo.draw_scenes(held_out_digits, DEMO_SCENES, seed=1)
    accuracy, exact = demo.evaluate(model, scenes)
    print(f"\nOn {DEMO_SCENES} scenes of digits that it has never seen, the classifier gets")
    print(f"{accuracy:.1%} of labels right, and every label of {exact:.1%} of scenes.\n")
    print(f"Explaining with {', '.join(demo.METHODS.values())}.")
    study = demo.study(model, scenes, verbose=0)
    path = _save(study.figure, directory / "digits.png")
    print("\n" + format_shares(study))
    print(f"\nPicture: {path}")


def format_shares(study):
    """Format the table of a study.

    Args:
        study: `keras_explainable.demo.Study`.

    Returns:
        The lines of the table, joined.
    """
    lines = [
        f"Where the energy of the maps lies (mean of {study.num_maps} maps):",
        f"{'':14}{'own digit':>12}{'other digits':>15}{'background':>13}{'own / other':>14}",
    ]
    for name, (own, others) in study.shares.items():
        ratio = own / max(others, keras.config.epsilon())
        rest = 1 - own - others
        lines.append(f"{name:14}{own:>12.1%}{others:>15.1%}{rest:>13.1%}{ratio:>14.1f}")
    return "\n".join(lines)


def explain_images(options):
    """Explain a model on the images of the command line, and write one picture per image.

    Args:
        options: parsed command line.

    Raises:
        CommandError: if anything asked for is missing or wrong.
    """
    from keras_explainable.engine.explaining import explain

    if not options.model:
        raise CommandError("no model to explain: give --model PATH or --model NAME")
    units = parse_units(options.units)
    try:
        methods.get(options.method)
    except ValueError as error:
        raise CommandError(error) from error
    for path in options.images:
        load_image(path)
    classifier = load_classifier(options.model, options.preprocessing)
    shape = input_shape(classifier.model, options.size)
    inputs = np.stack([_pixels(load_image(path), shape) for path in options.images])
    inputs = classifier.preprocess(inputs)
    scores = classifier.model.predict(inputs, verbose=0)
    if not isinstance(scores, np.ndarray) or scores.ndim != 2:
        shapes = keras.tree.map_structure(lambda s: (None, *s.shape[1:]), scores)
        raise CommandError(f"the model gives outputs of shape {shapes}, not (None, units)")
    chosen = choose_units(units, scores)
    directory = _open_directory(options.output or Path("keras_explainable_maps"))
    try:
        _, maps = explain(
            options.method, classifier.model, inputs, chosen, layer=options.layer, verbose=0
        )
    except (TypeError, ValueError) as error:
        raise CommandError(error) from error
    names = classifier.name_units(chosen)
    for index, path in enumerate(_targets(options.images, options.method, directory)):
        titles = [
            f"{name} ({scores[index, unit]:.2f})"
            for name, unit in zip(names[index], chosen[index], strict=True)
        ]
        figure = _draw(load_image(options.images[index]), options, index, maps[index], titles)
        print(_save(figure, path))


def parse_units(words):
    """Parse what to explain.

    Args:
        words: list of strings, unit numbers, or one word: "argmax", "top3".

    Returns:
        A list of units, or the number of best units.

    Raises:
        CommandError: if the words are anything else.
    """
    best = re.fullmatch(r"argmax|top([1-9]\d*)", words[0])
    if best and len(words) == 1:
        return int(best[1] or 1)
    if all(re.fullmatch(r"-?\d+", word) for word in words):
        return [int(word) for word in words]
    received = " ".join(words)
    raise CommandError(f"--units takes numbers, or argmax, or top3 and the like, not: {received}")


def choose_units(units, scores):
    """Choose the units to explain for each image.

    Args:
        units: list of units, or the number of best units.
        scores: array, `(images, units of the model)`.

    Returns:
        Integer array, `(images, units to explain)`.

    Raises:
        CommandError: if a unit is out of range.
    """
    num_units = scores.shape[-1]
    if isinstance(units, int):
        if units > num_units:
            raise CommandError(f"--units top{units}: the model has {num_units} units")
        return np.argsort(-scores, axis=-1, kind="stable")[:, :units]
    for unit in units:
        if not 0 <= unit < num_units:
            raise CommandError(f"--units {unit}: the units of the model are 0 to {num_units - 1}")
    return np.tile(units, (len(scores), 1))


def load_image(path):
    """Load an image, upright.

    Args:
        path: image file.

    Returns:
        A Pillow image, RGB.

    Raises:
        CommandError: if the file is missing or is not an image.
    """
    from PIL import ImageOps

    if not Path(path).is_file():
        raise CommandError(f"no such image file: {path}")
    try:
        return ImageOps.exif_transpose(keras.utils.load_img(path))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all of these.
        raise CommandError(f"not an image that can be read: {path}") from error


def load_classifier(name, preprocessing=None):
    """Load a saved model, or a model of `keras.applications`.

    Args:
        name: file, or name of a model in any case.
        preprocessing: one of `PREPROCESSINGS`, by default that of the named model.

    Returns:
        `Classifier`.

    Raises:
        CommandError: if there is no such model, or it cannot be loaded or downloaded.
    """
    if Path(name).exists() or Path(name).suffix:
        model = _load_saved(name)
        return Classifier(model, PREPROCESSINGS[preprocessing or "none"], _number_units)
    module, constructor = find_application(name)
    try:
        model = constructor(weights="imagenet")
        module.decode_predictions(np.zeros((1, 1000)), top=1)  # Downloads the class names.
    except Exception as error:  # Keras raises bare exceptions when a download fails.
        raise CommandError(f"cannot get the weights of {name}: {error}") from error

    def name_units(units):
        return [_decode(module, row) for row in units]

    return Classifier(model, PREPROCESSINGS.get(preprocessing, module.preprocess_input), name_units)


def find_application(name):
    """Find a model of `keras.applications` by its name.

    Args:
        name: name of the model, in any case.

    Returns:
        The module of the model, and the function that builds it.

    Raises:
        CommandError: if there is no such model.
    """
    constructors = dict(inspect.getmembers(keras.applications, inspect.isfunction))
    found = {known.lower(): known for known in constructors}
    if name.lower() not in found:
        near = nearest(name, constructors)
        hint = f"; did you mean {near}?" if near else ""
        raise CommandError(f"no saved model nor model of keras.applications named {name}{hint}")
    constructor = constructors[found[name.lower()]]
    module = constructor.__module__.rpartition(".")[-1]
    return getattr(keras.applications, module), constructor


def input_shape(model, size=None):
    """Return the shape of the images that a model takes.

    Args:
        model: `keras.Model`.
        size: height and width, for a model that takes any.

    Returns:
        Tuple `(height, width, channels)`.

    Raises:
        CommandError: if the model does not take images, or takes any size and none is given.
    """
    shape = getattr(model, "input_shape", None)
    if shape is None:  # A subclassed model knows what it was built with.
        shape = tuple((model.get_build_config() or {}).get("input_shape") or ())
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[-1] in (1, 3)):
        raise CommandError(f"the model takes inputs of shape {shape}, not (None, H, W, 1 or 3)")
    if size and all(shape[1:3]) and tuple(size) != tuple(shape[1:3]):
        raise CommandError(f"--size: the model takes images of {shape[1]} by {shape[2]} only")
    size = tuple(known or given for known, given in zip(shape[1:3], size or (0, 0), strict=True))
    if min(size) < 1:
        raise CommandError("the model takes images of any size: give --size HEIGHT WIDTH")
    return (*size, shape[-1])


def _load_saved(path):
    if not Path(path).exists():
        raise CommandError(f"no such model file: {path}")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Whatever a broken file makes Keras, h5py or zipfile raise.
        raise CommandError(f"cannot load the model {path}: {error}") from error


def _number_units(units):
    return [[f"unit {unit}" for unit in row] for row in units]


def _decode(module, units):
    """Return the ImageNet names of units."""
    rows = np.zeros((len(units), 1000))
    rows[np.arange(len(units)), units] = 1.0
    decoded = module.decode_predictions(rows, top=1)
    return [best[0][1].replace("_", " ") for best in decoded]


def _pixels(image, shape):
    """Return the pixels of an image, in [0, 255], of the shape that a model takes."""
    height, width, channels = shape
    image = image.convert("L" if channels == 1 else "RGB")
    return keras.utils.img_to_array(image.resize((width, height), resample=2))


def _draw(image, options, index, maps, titles):
    from keras_explainable import visualization

    image.thumbnail((MAX_PICTURE_SIZE, MAX_PICTURE_SIZE))
    return visualization.grid(
        np.asarray(image)[None],
        {options.method: maps[None]},
        titles=[titles],
        captions=[Path(options.images[index]).name],
        layout="columns" if len(titles) > 1 else "rows",
        cell_size=2.8,
    )


def _targets(images, method, directory):
    """Return the file of each picture; images of the same name get numbers."""
    targets = []
    for image in images:
        stem = f"{Path(image).stem}_{method}"
        path, number = directory / f"{stem}.png", 2
        while path in targets:
            path, number = directory / f"{stem}_{number}.png", number + 1
        targets.append(path)
    return targets


def _open_directory(directory):
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot write in {directory}: {error.strerror}") from error
    return directory


def _save(figure, path):
    """Write a figure and forget it; return the path."""
    from matplotlib import pyplot as plt

    figure.savefig(path)
    plt.close(figure)
    return path


def _one_line(error):
    """Return the first sentence or two of an error."""
    text = " ".join(str(error).split())
    # What was received, and a hint, stand at the end.
    return text if len(text) <= 400 else f"{text[:249]} \N{HORIZONTAL ELLIPSIS} {text[-148:]}"


if __name__ == "__main__":
    sys.exit(main())
