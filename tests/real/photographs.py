"""Photographs, masks and trained networks of `../shared/data`, and the energy of maps in masks."""

import importlib.util
import json

import keras
import numpy as np
from PIL import Image

from tests.conftest import SHARED

DATA = SHARED / "data"
WEIGHTS = DATA / "weights"
VOID = 255


def module(name):
    """Import a module of the data folder by its path: the code that builds and loads a network."""
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def voc_classifier(size=None):
    """Return a sigmoid head on a nested MobileNetV2, and the function that prepares its pixels.

    Args:
        size: height and width of the photographs, or `None` for any.
    """
    network, shape = module("mobilenet_v2"), (size, size, 3)
    weights = WEIGHTS / "mobilenet_v2_imagenet.npz"
    trained = network.load(weights, classifier_activation=None, input_shape=shape)
    backbone = keras.Model(trained.input, trained.get_layer("avg_pool").output, name="backbone")
    head = keras.layers.Dense(20, activation="sigmoid", name="predictions")
    model = keras.Sequential([keras.Input(shape), backbone, head])
    with np.load(WEIGHTS / "voc_head_on_mobilenet_v2.npz") as arrays:
        head.set_weights([arrays["predictions.kernel"], arrays["predictions.bias"]])
    return model, network.preprocess


def read(path, mode="RGB"):
    """Return an image; the mode `None` keeps the indices of a mask."""
    with Image.open(path) as image:
        return image.convert(mode) if mode else image.copy()


def centre_crop(image, size, shorter=256):
    """Return the square in the middle of an image that is resized to a shorter side."""
    scale = shorter / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def stretch(image, size):
    """Return an image resized to a square, whatever its aspect."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def stretch_mask(mask, size):
    return np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))


def letterbox_mask(mask, size, part):
    """Return a mask resized to the part `(width, height)` that holds the image, void elsewhere."""
    width, height = part
    boxed = np.full((size, size), VOID, "uint8")
    boxed[:height, :width] = np.asarray(mask.resize(part, Image.Resampling.NEAREST))
    return boxed


def energy_share(maps, inside, valid):
    """Return the share of the positive energy of each map that lies inside its region.

    Args:
        maps: `(n, height, width)`. Without anything positive, the share is 0.
        inside: boolean regions, of the same shape.
        valid: boolean, of the same shape; positions outside are ignored.
    """
    energy = np.maximum(maps, 0.0) * valid
    total = energy.sum((1, 2), dtype="float64")
    part = (energy * inside).sum((1, 2), dtype="float64")
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def voc():
    """Return the names of the classes, and `(name, image, mask, present classes)` of each image."""
    labels = json.loads((DATA / "voc" / "labels.json").read_text("utf-8"))
    classes = labels["classes"]
    photographs = []
    for name, entry in labels["images"].items():
        image = read(DATA / "voc" / "JPEGImages" / f"{name}.jpg")
        mask = read(DATA / "voc" / "SegmentationClass" / f"{name}.png", mode=None)
        present = [classes.index(label) for label in entry["image_level"]]
        photographs.append((name, image, mask, present))
    return classes, photographs
