"""Pictures of maps as arrays of pixels, painted in a fraction of the time that a figure takes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_explainable._checks import positive_integer
from keras_explainable._typing import ArrayLike
from keras_explainable.visualization import maps as _maps

_INK = (38, 38, 38)
# Pixels.
_CELL, _LARGEST, _NARROWEST, _GAP, _HEAD, _FONT_SIZE = 160, 320, 136, 6, 24, 16


def raster(
    image: ArrayLike,
    maps: ArrayLike,
    *,
    titles: Sequence[str] | None = None,
    caption: str = "",
    columns: int = 4,
    colormap: str | None = None,
    opacity: float = 0.7,
    limits: tuple[float, float] | None = None,
) -> np.ndarray:
    """Paint an image beside maps over it, as `overlay` draws them, without matplotlib's figures.

    Small images are enlarged by a whole factor, to cells of 160 pixels at least, so that titles can
    be read, and large ones are shrunk to 320.

    Args:
        image: array, `(height, width)` or `(height, width, 1 | 3)`, of the values that `overlay`
            accepts.
        maps: array, `(map height, map width)` or `(map height, map width, units)`.
        titles: one text per map, above it, as in "golden retriever 0.93". What is too long is
            abridged before its last word.
        caption: text above the image.
        columns: greatest number of cells in a row. Defaults to 4.
        colormap: name of a matplotlib colour map, by default as in `grid`.
        opacity: float in (0, 1], opacity of the greatest magnitude.
        limits: pair of floats, values of the first and last colours, by default those of `overlay`,
            map by map.

    Returns:
        uint8 array `(picture height, picture width, 3)`.

    Raises:
        ValueError: as `grid`.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> image = np.zeros((32, 32))
        >>> ke.visualization.raster(image, np.eye(4), titles=["diagonal"]).shape
        (196, 338, 3)
    """
    image, maps = _shrunk(_maps._displayable(image)), _maps._split("maps", maps)
    titles = _maps._check_texts("titles", None if titles is None else [titles], [len(maps)])[0]
    columns = positive_integer("columns", columns)
    signed = any(map.min() < 0 for map in maps)
    scale = _maps._scale(colormap, opacity, signed, limits)
    grey = _maps._grey(image).astype("float32")
    cells = [np.broadcast_to(image, (*image.shape[:2], 3))]
    cells += [_painted(grey, map, scale) for map in maps]
    return _arranged(cells, [caption, *titles], columns)


def _shrunk(image):
    """Return an image no larger than a cell may be."""
    from PIL import Image

    height, width, channels = image.shape
    scale = _LARGEST / max(height, width)
    if scale >= 1:
        return image
    pixels = np.squeeze((image * 255 + 0.5).astype(np.uint8), axis=() if channels > 1 else -1)
    sizes = max(1, round(width * scale)), max(1, round(height * scale))
    shrunk = Image.fromarray(pixels).resize(sizes, Image.Resampling.BOX)
    return np.asarray(shrunk).reshape(*sizes[::-1], channels) / 255


def _painted(grey, map, scale):
    """Return a map over a grey image, floats in [0, 1]."""
    map = _maps._resize(map, grey.shape[:2])
    low, high = scale.limits or _maps._limits([map], scale.signed)
    shares = (map - low) / (high - low)
    table = _table(scale._replace(limits=None))
    color = table[np.clip(shares * len(table), 0, len(table) - 1).astype(int)]
    return grey + color[..., 3:] * (color[..., :3] - grey)


@functools.lru_cache(maxsize=8)
def _table(scale):
    return np.asarray(_maps._colors(scale).colors, "float32")


def _arranged(cells, texts, columns):
    """Return cells in rows, enlarged, with texts above them."""
    height, width = cells[0].shape[:2]
    factor = max(1, -(-_CELL // max(height, width)))
    height, width = height * factor, width * factor
    head = _HEAD if any(texts) else 0
    room = max(width, _NARROWEST) if head else width
    rows = -(-len(cells) // columns)
    columns = -(-len(cells) // rows)
    size = (head + height + _GAP) * rows + _GAP, (room + _GAP) * columns + _GAP
    sheet = np.full((*size, 3), 255, np.uint8)
    for number, (cell, text) in enumerate(zip(cells, texts, strict=True)):
        row, column = divmod(number, columns)
        top = _GAP + head + (head + height + _GAP) * row
        left = _GAP + (room + _GAP) * column
        if text:
            sheet[top - _HEAD : top, left : left + room] = _written(text, room)
        left += (room - width) // 2
        pixels = (cell * 255 + 0.5).astype(np.uint8)
        pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        sheet[top : top + height, left : left + width] = pixels
    return sheet


def _written(text, room):
    """Return the pixels of a text that is fitted to the room there."""
    from PIL import Image
    from PIL import ImageDraw
    from PIL import ImageFont

    font = _font()
    known = str if isinstance(font, ImageFont.FreeTypeFont) else _in_latin
    text = _maps._abridged(" ".join(text.split()), lambda t: font.getlength(known(t)) <= room)
    text = known(text)
    strip = Image.new("RGB", (room, _HEAD), "white")
    left = max(0, (room - font.getlength(text)) / 2)
    ImageDraw.Draw(strip).text((round(left), 2), text, font=font, fill=_INK)
    return np.asarray(strip)


def _in_latin(text):
    """Return a text in the letters that the font without FreeType has."""
    text = text.replace("\N{HORIZONTAL ELLIPSIS}", "..")
    return text.encode("latin-1", "replace").decode("latin-1")


@functools.lru_cache(maxsize=1)
def _font():
    """Return the font of matplotlib's figures, or the one that Pillow has without FreeType."""
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    try:
        return ImageFont.truetype(str(path), _FONT_SIZE)
    except (ImportError, OSError):
        return ImageFont.load_default()
