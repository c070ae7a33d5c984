"""Draw what the README and the documentation show of methods, on scenes of handwritten digits.

Usage: `make figures` (or `python benchmarks/figures.py`) trains the classifier of `make demo`,
another head on its activations, and a small transformer, explains one scene that they have never
seen with every method, and writes

- `docs/images/digits.png`, the picture at the top of the README, of a classifier whose training
  scenes mostly have the digits of a pair together, see `choose_partners`; `--readme` writes this
  one alone,
- `docs/images/methods_digits.png`, all methods side by side,
- `docs/images/methods_heads.png`, methods that are equal with a linear head, with the other one,
- `docs/images/methods/*.png`, one strip per method: its maps after the default filter, and raw, on
  one scale,
- the table of `docs/multilabel.md`, which `make demo` prints: where the maps of three methods lie.

On two processor cores it takes five to ten minutes. Titles say the digit, and the probability that
the model explained gives it.
"""

import argparse
import io
import time
from pathlib import Path
from typing import NamedTuple

import keras
import marked
import matplotlib
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

import keras_explainable as ke
from keras_explainable import demo

DOCS = Path(__file__).parents[1] / "docs"
IMAGES = DOCS / "images"
# The raw maps of meta methods are those of what they wrap.
META_METHODS = {
    # About the noise of the scenes. More than the network has seen spreads over the background.
    "smooth": ke.methods.smooth("gradients", stddev=0.05, num_samples=50),
    "smooth_taylor": ke.methods.smooth_taylor(stddev=0.2),
    "guided": ke.methods.guided("gradcam"),
    # Mirrored digits are none.
    "tta": ke.methods.tta("cam", scales=(1.0, 1.5, 2.0), flip=False),
}
README = {
    "Grad-CAM": "gradcam",
    "MinMax-CAM": "minmaxcam",
    "LayerCAM, early": ("layercam", {"layer": "relu_1"}),
    "Score-CAM": "scorecam",
    "SmoothGrad": META_METHODS["smooth"],
    "Integrated gradients": "integrated_gradients",
    "LRP": "lrp",
}
# Methods of which some are equal with a linear head, and after a rectifier.
BEFORE = {"layer": "normalization_4"}
HEADS = {
    "gradcam": "gradcam",
    "hirescam": "hirescam",
    "xgradcam": "xgradcam",
    "layercam": "layercam",
    "layercam before the ReLU": ("layercam", BEFORE),
    "gradcam_elementwise before the ReLU": ("gradcam_elementwise", BEFORE),
}
COLUMNS = 6
NUM_DIGITS = 3
# Of the training scenes with a digit of a pair, 0 and 1, 2 and 3 and so on, what share has both.
CO_OCCURRENCE = 0.8
# The few extremes that gradients have would leave nothing to be seen of the rest.
FINE = "percentile_normalize"


class Explained(NamedTuple):
    """A model, and a scene whose digits it detects.

    Attributes:
        model: `keras.Model` from images to probabilities.
        image: array, `(1, 64, 64, 1)`.
        digits: integer array, `(1, digits)`.
        titles: list of a text per digit.
    """

    model: keras.Model
    image: np.ndarray
    digits: np.ndarray
    titles: list

    def maps(self, method, postprocessing="auto"):
        """Return maps `(1, 64, 64, digits)` of a method, its name or a pair with options."""
        method, options = method if isinstance(method, tuple) else (method, {})
        if postprocessing == "fine":
            postprocessing = FINE if _is_fine(method) else "auto"
        options = {**options, "postprocessing": postprocessing}
        return ke.explain(method, self.model, self.image, self.digits, verbose=0, **options)[1]


def _is_fine(method):
    known = ke.methods.registration(method)
    return known.family == "gradient" or getattr(method, "__name__", "").startswith("guided(")


def build_transformer(width=48, heads=4, blocks=3):
    """Build a small transformer, on the 8×8 tokens that convolutions make of a scene.

    Args:
        width: number of channels of a token.
        heads: number of heads of each attention.
        blocks: number of blocks.

    Returns:
        A `keras.Model` from `(64, 64, 1)` images to the probabilities of ten classes.
    """
    inputs = tokens = keras.Input((demo.CANVAS, demo.CANVAS, 1))
    for filters in (16, 32, width):
        tokens = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(tokens)
        tokens = keras.layers.BatchNormalization(momentum=0.9)(tokens)
        tokens = keras.layers.ReLU()(tokens)
    tokens = keras.layers.Reshape((-1, width))(tokens)
    for _ in range(blocks):
        normalized = keras.layers.LayerNormalization()(tokens)
        tokens += keras.layers.MultiHeadAttention(heads, width // heads)(normalized, normalized)
        hidden = keras.layers.LayerNormalization()(tokens)
        hidden = keras.layers.Dense(2 * width, activation="gelu")(hidden)
        tokens += keras.layers.Dense(width)(hidden)
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(tokens))
    outputs = keras.layers.Dense(demo.CLASSES, activation="sigmoid")(pooled)
    return keras.Model(inputs, outputs, name="transformer")


def train(build, digits, rate, num_scenes, epochs, co_occurrence=None):
    """Train a model on scenes, from a learning rate that decays to zero.

    Args:
        build: function that returns the `keras.Model`.
        digits: `demo.Digits` to draw the scenes with.
        rate: learning rate at first.
        num_scenes: number of scenes.
        epochs: number of epochs.
        co_occurrence: as in `demo.draw_scenes`.

    Returns:
        The trained `keras.Model`.
    """
    keras.utils.set_random_seed(0)
    model = build()
    scenes = demo.draw_scenes(digits, num_scenes, seed=0, co_occurrence=co_occurrence)
    decay = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-num_scenes // 64))
    model.compile(keras.optimizers.Adam(decay), "binary_crossentropy")
    model.fit(scenes.images, scenes.labels, batch_size=64, epochs=epochs, verbose=0)
    return model


def train_head(model, digits, num_scenes=4000, epochs=6):
    """Train another head on the activations of a classifier, one that flattens them.

    Args:
        model: `keras.Model` of `demo.build_model`.
        digits: `demo.Digits` to draw scenes with.
        num_scenes: number of scenes.
        epochs: number of epochs.

    Returns:
        The `keras.Model` with the same convolutions and the trained head.
    """
    keras.utils.set_random_seed(0)
    body = keras.Model(model.input, model.get_layer("average").input)
    layers = [
        keras.layers.AveragePooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(demo.CLASSES, activation="sigmoid"),
    ]
    head = keras.Sequential([keras.Input(body.output_shape[1:]), *layers])
    head.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    scenes = demo.draw_scenes(digits, num_scenes, seed=2)
    activations = body.predict(scenes.images, verbose=0)
    head.fit(activations, scenes.labels, batch_size=64, epochs=epochs, verbose=0)
    outputs = body.output
    for layer in layers:  # The head itself would be a layer below which methods don't look.
        outputs = layer(outputs)
    return keras.Model(body.input, outputs, name="flattening_head")


def resizable(model):
    """Return a model of the same layers and weights that takes images of any size."""
    config = model.get_config()
    config["layers"][0]["config"]["batch_shape"] = (None, None, None, 1)
    clone = keras.Model.from_config(config)
    clone.set_weights(model.get_weights())
    return clone


def choose_scene(models, scenes, num_digits=NUM_DIGITS):
    """Return the index of the first scene with a number of digits that all models get right."""
    right = scenes.labels.sum(axis=1) == num_digits
    for model in models:
        scores = model.predict(scenes.images, verbose=0)
        right &= ((scores > demo.THRESHOLD) == (scenes.labels > 0)).all(axis=1)
    return int(np.flatnonzero(right)[0])


def choose_partners(scores, maps, scenes):
    """Return the index of the scene of a pair in which a map lies most on the other digit.

    Args:
        scores: array `(scenes, classes)`, probabilities.
        maps: array `(scenes, height, width, classes)`, from 0 on.
        scenes: `demo.Scenes`.

    Returns:
        the index, of the scenes that have the two digits of a pair alone and are detected so.
    """
    present = scenes.labels > 0
    partner = np.arange(present.shape[1]) ^ 1  # Of 0 it is 1, of 1 it is 0, of 2 it is 3 …
    both = (present.sum(axis=1) == 2) & (present & present[:, partner]).any(axis=1)
    right = both & ((scores > demo.THRESHOLD) == present).all(axis=1)
    if not right.any():
        raise ValueError("no scene has the two digits of a pair alone, predicted right")
    on_partner = (maps * scenes.masks[..., partner]).sum(axis=(1, 2))
    shares = on_partner / np.maximum(maps.sum(axis=(1, 2)), keras.config.epsilon())
    return int(np.where(right, np.where(present, shares, -1).max(axis=1), -1).argmax())


def explained(model, scenes, index):
    """Return a model and a scene, with the digits that are there."""
    image = scenes.images[index : index + 1]
    scores = model.predict(image, verbose=0)[0]
    digits = np.flatnonzero(scenes.labels[index])
    return Explained(model, image, digits[None], [f"digit {d} {scores[d]:.2f}" for d in digits])


def rows():
    """Return the names of the methods in the rows of the sheet that shows all of them."""
    names = ke.methods.names()
    families = {name: ke.methods.registration(name).family for name in names}
    minmax = [name for name in names if "minmax" in name]
    cams = [name for name in names if families[name] == "cam" and name not in minmax]
    convolutional = [name for name in names if families[name] == "gradient"] + cams + minmax
    cut = range(0, len(convolutional), COLUMNS)
    return [
        *(convolutional[start : start + COLUMNS] for start in cut),
        list(ke.methods.meta_names()),
        [name for name in names if families[name] == "attention"],
    ]


def draw_sheet(sources):
    """Draw all methods side by side, two digits in rows.

    Args:
        sources: function from the name of a method to a pair of `Explained` and the method.

    Returns:
        A Pillow image.
    """
    parts = []
    for number, names in enumerate(rows()):
        found = [sources(name) for name in names]
        shown = found[0][0]
        maps = [source.maps(method, "fine")[..., :2] for source, method in found]
        figure = ke.visualization.grid(
            shown.image,
            dict(zip(names, maps, strict=True)),
            titles=[shown.titles[:2]],
            colorbar=number == 0,
            cell_size=1.0,
        )
        parts.append(_pixels(figure))
    return _stacked(parts)


def draw_strip(source, method):
    """Draw the maps of a method: after its default filter, and raw, on one scale.

    Args:
        source: `Explained`.
        method: name of a method, or a method.

    Returns:
        A Pillow image.
    """
    parts = []
    names = {"auto": ke.methods.registration(method).postprocessing, None: "one scale"}
    for postprocessing, name in names.items():
        maps = source.maps(method, postprocessing)
        figure = ke.visualization.grid(
            source.image,
            {title: maps[..., number] for number, title in enumerate(source.titles)},
            shared_scale=postprocessing is None,
            cell_size=1.2,
        )
        heading = "raw" if postprocessing is None else "filtered"
        parts.append(_labelled(_pixels(figure), heading, name))
    return _stacked(parts)


def draw_heads(source):
    """Draw methods that are equal with a linear head, by a model with another one."""
    figure = ke.visualization.grid(
        source.image,
        {label: source.maps(method) for label, method in HEADS.items()},
        titles=[source.titles],
        cell_size=1.1,
    )
    return _pixels(figure)


def draw_readme(source):
    """Draw the picture of the README: each digit of a scene, by several methods."""
    figure = ke.visualization.grid(
        source.image,
        {label: source.maps(method, "fine") for label, method in README.items()},
        titles=[source.titles],
        cell_size=1.05,
    )
    return _pixels(figure)


def shares_table(study):
    """Write as Markdown where the energy of maps lies.

    Args:
        study: `demo.Study`.

    Returns:
        The table, and a line that says what it is a mean of.
    """
    lines = ["| Method | Own digit | Other digits | Background | Own / other |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, (own, others) in study.shares.items():
        shares = " | ".join(f"{share:.1%}" for share in (own, others, 1 - own - others))
        ratio = own / max(others, keras.config.epsilon())
        lines.append(f"| {name} | {shares} | {ratio:.{0 if ratio >= 10 else 1}f} |")
    return "\n".join([*lines, "", f"Means over {study.num_maps} maps.", ""])


def save(image, path, colors=None):
    """Write a picture, with a number of colours for a smaller file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if colors:
        image = image.quantize(colors, method=Image.Quantize.MAXCOVERAGE)
    image.save(path, optimize=True)


def _pixels(figure):
    """Return a figure as a Pillow image, and forget it."""
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


def _labelled(image, heading, note):
    """Write a heading and a note on the left of a picture, from below to above."""
    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    strip = Image.new("RGB", (image.height, 58), "white")
    draw = ImageDraw.Draw(strip)
    lines = ((heading, "DejaVuSans-Bold", 21, 10), (note, "DejaVuSans", 17, 36))
    for text, font, size, top in lines:
        font = ImageFont.truetype(str(fonts / f"{font}.ttf"), size)
        # Beside the maps, which lie below their names.
        draw.text((image.height * 0.39, top), text, font=font, fill="#262626", anchor="mt")
    return _beside(strip.transpose(Image.Transpose.ROTATE_90), image)


def _beside(left, right):
    sheet = Image.new("RGB", (left.width + right.width, right.height), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width, 0))
    return sheet


def _stacked(images):
    """Put pictures below each other."""
    width, height = max(i.width for i in images), sum(i.height for i in images)
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    return sheet


def main():
    """Train, explain, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readme", action="store_true", help="draw the README's picture alone")
    arguments = parser.parse_args()
    matplotlib.use("agg")  # No screen is needed.
    start = time.perf_counter()
    train_digits, held_out = demo.load_digits()
    scenes = demo.draw_scenes(held_out, 300, seed=1)
    biased = train(demo.build_model, train_digits, 5e-3, 4000, 6, CO_OCCURRENCE)
    scores = biased.predict(scenes.images, verbose=0)
    _, maps = ke.gradcam(biased, scenes.images, postprocessing="positive", verbose=0)
    chosen = choose_partners(scores, maps, scenes)
    save(draw_readme(explained(biased, scenes, chosen)), IMAGES / "digits.png")
    if arguments.readme:
        return
    transformer = train(build_transformer, train_digits, 3e-3, 6000, 10)
    models = demo.train(train_digits, verbose=0), transformer
    for model in models:
        accuracy, exact = demo.evaluate(model, scenes)
        print(f"{model.name}: {accuracy:.1%} of labels, {exact:.1%} of scenes right", flush=True)
    index = choose_scene(models, scenes)
    plain, attentive = (explained(model, scenes, index) for model in models)
    any_size = plain._replace(model=resizable(plain.model))
    flattening = explained(train_head(plain.model, train_digits), scenes, index)

    def sources(name):
        if name in ke.methods.meta_names():
            return any_size if name == "tta" else plain, META_METHODS[name]
        is_attention = ke.methods.registration(name).family == "attention"
        return attentive if is_attention else plain, name

    save(draw_sheet(sources), IMAGES / "methods_digits.png", colors=256)
    save(draw_heads(flattening), IMAGES / "methods_heads.png")
    for name in (*ke.methods.names(), *ke.methods.meta_names()):
        save(draw_strip(*sources(name)), IMAGES / "methods" / f"{name}.png")
    study = demo.study(plain.model, scenes, verbose=0)
    marked.write(DOCS / "multilabel.md", "figures", shares_table(study))
    print(f"Drawn in {time.perf_counter() - start:.0f} seconds.")


if __name__ == "__main__":
    main()
