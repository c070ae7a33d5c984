"""Draw the maps of all methods, on photographs that a trained network classifies.

`python -m tests.real.contact_sheet` writes `docs/images/methods.png`, in a few minutes. With
`--voc FILE` it takes photographs of PASCAL VOC, which may be looked at and not be published.
"""

import argparse
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

import keras_explainable as ke
from tests.real import photographs
from tests.real.voc_test import MEASURED
from tests.real.voc_test import Row

PATH = Path(__file__).parents[2] / "docs" / "images" / "methods.png"


class Photograph(NamedTuple):
    """A photograph whose licence allows to show it, and the classes to explain."""

    path: str
    classes: tuple
    source: str


PHOTOGRAPHS = [
    Photograph("coco/000000128372.jpg", ("bus", "person"), "Flickr 8172792873, CC BY-SA 2.0"),
    Photograph("coco/000000343934.jpg", ("motorbike",), "Flickr 10051858643, CC BY 2.0"),
    Photograph("open/bird_segmentation.png", ("bird",), "Open Images 12142db5804533c8, CC BY 2.0"),
]
VOC = [
    Photograph(f"voc/JPEGImages/{name}.jpg", classes, f"VOC {name}")
    for name, *classes in (
        ("2007_004380", "motorbike", "person"),
        ("2007_002094", "bird"),
        ("2007_001288", "aeroplane"),
    )
]
# What the methods of a module are shown under, in this order.
HEADINGS = {
    "gradients.vanilla": "Gradients by the input",
    "gradients.integrated": "Gradients by the input",
    "gradients.full": "Gradients by the input",
    "gradients.guided": "Gradients by other rules, and relevance",
    "gradients.relevance": "Gradients by other rules, and relevance",
    "cams.linear": "Class activation maps",
    "cams.weighted": "Class activation maps",
    "cams.minmax": "Class activation maps against the other classes detected",
    "cams.masked": "Activations weighted by what they do to the score",
    "cams.eigen": "Principal components of activations",
}
OPTIONS = {
    "scorecam": {"top_k": 256},  # It would take as many passes as there are channels.
    "tta(gradcam)": {"normalize": True},
}
NOTES = [
    "What every method makes of four classes, on a MobileNetV2",
    "with a sigmoid head for the 20 classes of PASCAL VOC.",
    "All options are the defaults where none are stated.",
]
SCALE = [
    "0 to the largest value of a map. Gradients by the",
    "input: magnitude, to its 99th percentile.",
]

# Pixels; text of matplotlib is measured in points.
SIZE, CELL, GAP, MARGIN = 448, 120, 4, 18
CAPTION, TITLE, SPACE, HEADING, FOOT = 16, 24, 14, 46, 24
COLUMNS, COLUMN_GAP = 2, 30
TEXT, PALE = "0.15", "0.4"
DPI = 100


def groups():
    """Return the rows under each heading: all methods, and the meta methods that are measured."""
    known = {name: ke.methods.registration(name) for name in ke.methods.names()}
    names = [name for name in known if known[name].needs != "attention"]
    every = [Row(name, None, OPTIONS.get(name, {})) for name in names]
    metas = {row.method for rows in MEASURED.values() for row in rows if "(" in row.method}
    every += [Row(name, None, OPTIONS.get(name, {})) for name in metas]
    found = {heading: [] for heading in HEADINGS.values()}
    for row in sorted(every, key=_place):
        found.setdefault(HEADINGS.get(_module(row), _module(row)), []).append(row)
    return {heading: rows for heading, rows in found.items() if rows}


def _module(row):
    """Return the module of a method, or of the method that a meta method wraps."""
    method = ke.methods.get(row.resolve()[0])
    return method.__module__.removeprefix(f"{ke.methods.__name__}.")


def _place(row):
    """Order methods as they stand in their modules, with meta methods after them."""
    if "(" in row.method:
        return True, row.method
    line = ke.methods.get(row.method).__code__.co_firstlineno
    return False, list(HEADINGS).index(_module(row)) if _module(row) in HEADINGS else 0, line


def draw(images, captions, maps, foot):
    """Draw strips of maps, one per method, under headings.

    Args:
        images: arrays `(size, size, 3)` of integers, one per class explained.
        captions: pairs of the texts over each, its class and its scores.
        maps: dictionary from headings to dictionaries from titles to maps `(images, size, size)`.
        foot: line at the bottom, where the photographs come from.

    Returns:
        the matplotlib figure, a pixel of which is one of a photograph.
    """
    sheet = _Sheet(len(images), [len(methods) for methods in maps.values()])
    small = [_shrink(image) for image in images]
    strip = sheet.strip()
    for number, (image, caption) in enumerate(zip(small, captions, strict=True)):
        left, top = strip[0] + number * (CELL + GAP), strip[1]
        sheet.write(left, top - CAPTION, caption[0], weight="bold")
        sheet.write(left, top + 5, caption[1], size=9.5)
        sheet.place(left, top + TITLE, CELL, CELL).imshow(image, interpolation="nearest")
    _explain(sheet, *sheet.strip())
    for heading, methods in maps.items():
        sheet.head(heading)
        for title, found in methods.items():
            left, top = sheet.strip()
            sheet.write(left, top, title, weight="bold")
            for number, (image, map) in enumerate(zip(small, found, strict=True)):
                ax = sheet.place(left + number * (CELL + GAP), top + TITLE, CELL, CELL)
                ke.visualization.overlay(image, _shrink(map), ax=ax, limits=(0, 1))
    sheet.write(MARGIN, sheet.height - MARGIN - FOOT / 2, foot, size=7.4, color=PALE)
    return sheet.figure


def _explain(sheet, left, top):
    """Say what is shown, and draw the colours."""
    for number, note in enumerate(NOTES):
        sheet.write(left, top + TITLE + number * 23, note, size=11)
    middle = np.full((12, 256, 3), 128, "uint8")
    bar = sheet.place(left, top + TITLE + 88, 200, 12)
    ke.visualization.overlay(middle, np.tile(np.linspace(0, 1, 256), (12, 1)), ax=bar)
    bar.set_aspect("auto")
    for number, note in enumerate(SCALE):
        sheet.write(left, top + TITLE + 106 + number * 18, note, size=9, color=PALE)


class _Sheet:
    """A figure that is filled with strips, from left to right and from top to bottom.

    Args:
        cells: number of cells of a strip.
        counts: number of strips under each heading; those before the first fill one line.
    """

    def __init__(self, cells, counts):
        self._length = cells * (CELL + GAP) - GAP
        self._line = TITLE + CELL + SPACE
        self.width = 2 * MARGIN + COLUMNS * (self._length + COLUMN_GAP) - COLUMN_GAP
        lines = 1 + sum(-(-count // COLUMNS) for count in counts)
        self.height = 2 * MARGIN + CAPTION + lines * self._line + len(counts) * HEADING + FOOT
        size = self.width / DPI, self.height / DPI
        self.figure = plt.figure(figsize=size, dpi=DPI, facecolor="white")
        self._top, self._column = MARGIN + CAPTION, 0

    def strip(self):
        """Return where the next strip starts, its left and its top."""
        if self._column == COLUMNS:
            self._top, self._column = self._top + self._line, 0
        self._column += 1
        return MARGIN + (self._column - 1) * (self._length + COLUMN_GAP), self._top

    def head(self, text):
        """Write a heading, which starts a new line."""
        self._top, self._column = self._top + self._line + HEADING, 0
        self.write(MARGIN, self._top - HEADING + 10, text, size=14, color=PALE)

    def place(self, left, top, width, height):
        """Return new axes."""
        bottom = self.height - top - height
        rectangle = np.divide([left, bottom, width, height], [self.width, self.height] * 2)
        ax = self.figure.add_axes(rectangle)
        ax.set_axis_off()
        return ax

    def write(self, left, top, text, size=12, color=TEXT, **options):
        """Write a line of text."""
        place = left / self.width, 1 - top / self.height
        self.figure.text(*place, text, va="top", size=size, color=color, **options)


def _shrink(array):
    """Average an image or a map to the size of a cell."""
    image = Image.fromarray(array if array.ndim == 3 else array.astype("float32"))
    return np.asarray(image.resize((CELL, CELL), Image.Resampling.BOX))


def save(figure, path):
    """Write a figure in 256 colours, for a file of a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)
    image = Image.open(buffer).convert("RGB")
    colours = image.quantize(256, method=Image.Quantize.FASTOCTREE)
    image.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def main():
    """Explain the photographs with every method, and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voc", type=Path, help="file for a figure with photographs of VOC")
    arguments = parser.parse_args()
    chosen = VOC if arguments.voc else PHOTOGRAPHS
    sources = "; ".join(f"{', '.join(p.classes)}: {p.source}" for p in chosen)
    licence = "Not to be published." if arguments.voc else "This figure: CC BY-SA 2.0."
    classes, _ = photographs.voc()
    pairs = [(p, label) for p in chosen for label in p.classes]
    files = [photographs.read(photographs.DATA / p.path) for p, _ in pairs]
    images = [photographs.centre_crop(file, SIZE, SIZE) for file in files]
    units = np.array([classes.index(label) - 1 for _, label in pairs])
    model, preprocess = photographs.voc_classifier(SIZE)
    resizable, _ = photographs.voc_classifier()
    x = np.stack([preprocess(image) for image in images])

    logits, _ = ke.cam(model, x, units)
    captions = [
        (label, f"{1 / (1 + np.exp(-logit)):.3f}, logit {logit:.1f}")
        for (_, label), logit in zip(pairs, logits[:, 0], strict=True)
    ]
    maps = {}
    for heading, rows in groups().items():
        maps[heading] = {}
        for row in rows:
            method, options = row.resolve()
            # The few extremes that gradients have would leave nothing to be seen of the rest.
            by_input = ke.methods.registration(method).family == "gradient"
            by_input |= row.method.startswith("guided(")
            options["postprocessing"] = "percentile_normalize" if by_input else "positive_normalize"
            shown = resizable if row.method.startswith("tta(") else model
            maps[heading][row.name] = ke.explain(method, shown, x, units, **options)[1][..., 0]
    foot = f"Photographs, cropped: {sources}. {licence}"
    save(draw(images, captions, maps, foot), arguments.voc or PATH)


if __name__ == "__main__":
    main()
