"""Draw what excites classes and channels of a network trained on ImageNet.

`python -m tests.real.features_sheet` writes `docs/images/features.jpg`, in a few minutes.
"""

import io
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

import keras_explainable as ke
from tests.real import photographs

PATH = Path(__file__).parents[2] / "docs" / "images" / "features.jpg"
COLUMNS, CELL, DPI = 7, 1.4, 100

CLASSES = {
    "chickadee": 19,
    "flamingo": 130,
    "jellyfish": 107,
    "volcano": 980,
    "hot dog": 934,
    "monarch": 323,
    "daisy": 985,
}
CHANNELS = [
    ("block_3_expand", 1),
    ("block_3_expand", 5),
    ("block_6_expand", 0),
    ("block_6_expand", 5),
    ("block_9_expand", 7),
    ("block_12_expand", 6),
    ("block_15_expand", 7),
]
UNIT = CLASSES["monarch"]
# What is changed in turn, from the options of the other rows.
OPTIONS = {
    "no mixing": {"mixing": None},
    "no blur": {"blur": 0},
    "no jitter": {"jitter": 0},
    "no blur or jitter": {"blur": 0, "jitter": 0},
    "pixel": {"parametrization": "pixel"},
    "pixel, without them": {"parametrization": "pixel", "blur": 0, "jitter": 0},
    "another seed": {"seed": 1},
}


def mobilenet():
    """Return MobileNetV2 for images of any size."""
    network = photographs.module("mobilenet_v2")
    weights = photographs.WEIGHTS / "mobilenet_v2_imagenet.npz"
    return network.load(weights, classifier_activation="softmax", input_shape=(None, None, 3))


def principal_components():
    """Return the directions in which the colours of photographs vary, `(3, 3)`."""
    files = sorted((photographs.DATA / "open").glob("*.*"))
    images = [photographs.read(f).resize((64, 64)) for f in files if "mask" not in f.name]
    pixels = np.stack([np.asarray(image) for image in images]).reshape(-1, 3) / 127.5 - 1
    values, vectors = np.linalg.eigh(np.cov(pixels.T))
    return (vectors * np.sqrt(values)).T


def main():
    """Optimise all images, and write the figure."""
    model = mobilenet()
    options = {"value_range": (-1, 1), "mixing": principal_components()}
    images = [
        *ke.maximize_activation(model, list(CLASSES.values()), size=224, **options).images,
        *(
            ke.maximize_activation(model, layer=layer, channels=k, size=112, **options).images[0]
            for layer, k in CHANNELS
        ),
        *(
            ke.maximize_activation(model, UNIT, size=224, **options | changed).images[0]
            for changed in OPTIONS.values()
        ),
    ]
    channels = [f"{layer.removesuffix('_expand')}, {k}" for layer, k in CHANNELS]
    titles = [*CLASSES, *channels, *OPTIONS]
    images = [np.asarray(_shown(image)) for image in images]
    figure = ke.visualization.gallery(images, titles=titles, columns=COLUMNS, cell_size=CELL)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)
    Image.open(buffer).convert("RGB").save(PATH, quality=85, optimize=True)


def _shown(image):
    """Return an image as bytes, averaged to the size of a cell."""
    side = round(CELL * DPI)
    pixels = Image.fromarray(np.uint8(np.round((image + 1) * 127.5)))
    return pixels.resize((side, side), Image.Resampling.BOX)


if __name__ == "__main__":
    main()
