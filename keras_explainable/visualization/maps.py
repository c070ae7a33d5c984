"""Figures of images and of maps over them.

Images are drawn, with maps of two axes; of a volume or a video, a slice of both is passed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import numpy as np

from keras_explainable import _checks
from keras_explainable import _showing
from keras_explainable._checks import invalid
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Array
from keras_explainable._typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEQUENTIAL = "inferno"
DIVERGING = "coolwarm"
LAYOUTS = ("rows", "columns")
_SLICE = "Of a batch, a volume or a video, pass a slice of the image and of its map."

_TEXT_COLOR = "0.15"
_FONT_SIZE, _SMALLEST_FONT_SIZE = 10, 7
_DPI = 150
# Inches.
_MARGIN, _GAP, _GROUP_GAP, _TEXT, _LINE, _BAR, _TICKS = 0.12, 0.1, 0.18, 0.24, 0.17, 0.12, 0.55
_BARRED = _GAP + _BAR + _TICKS
# Where names of methods may go on in the next line, and how many lines they may take.
_BREAKS, _LINES = re.compile(r"(?<=[_(/ -])"), 3


class _Scale(NamedTuple):
    """How values become colours."""

    colormap: str | None
    opacity: float
    signed: bool
    limits: tuple | None


def overlay(
    image: ArrayLike,
    map: ArrayLike,
    *,
    ax: Axes | None = None,
    colormap: str | None = None,
    opacity: float = 0.7,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a map over its image.

    The opacity of the map grows with the magnitude of its values, so that what the map ignores
    remains visible. The image is drawn in grey, so that every hue is the map's.

    Args:
        image: array, `(height, width)` or `(height, width, 1 | 3)`. Integers span [0, 255]; floats
            in [0, 1] are drawn as they are, other floats are stretched from their least and
            greatest values to [0, 1].
        map: array, `(map height, map width)`; resized to the image, bilinearly. A map with negative
            values is drawn with a diverging colour map centred on zero.
        ax: matplotlib axes to draw in, by default those of a new figure.
        colormap: name of a matplotlib colour map, by default a perceptually uniform one, or a
            diverging one, both legible to colour-blind readers.
        opacity: float in (0, 1], opacity of the greatest magnitude.
        limits: pair of floats, values of the first and last colours, by default `(0, max)`, or
            `(-max, max)` for a map with negative values.
        title: text above the image.

    Returns:
        the matplotlib figure.

    Raises:
        ValueError: if the image or the map is of another shape, the map is not finite, or the
            opacity or the limits make no sense.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> figure = ke.visualization.overlay(np.zeros((8, 8)), np.eye(4), title="diagonal")
        >>> figure.axes[0].images[1].get_array().shape
        (8, 8)
    """
    image, map = _displayable(image), _finite_map("map", map)
    scale = _scale(colormap, opacity, bool(map.min() < 0), limits)
    height, width = image.shape[:2]
    if ax is None:
        ax = _Sheet([_Block(_cell((height, width), 4), titled=bool(title))]).cell(0, 0)
    _draw_image(ax, _grey(image))
    _draw_map(ax, _resize(map, (height, width)), scale)
    _write_title(ax, title)
    figure: Any = ax.figure  # Or a part of one, where the axes are in that.
    return figure


def grid(
    images: Array | Sequence[Any],
    maps: Mapping[str, ArrayLike],
    *,
    titles: Sequence[str] | Sequence[Sequence[str]] | None = None,
    captions: Sequence[str] | None = None,
    layout: str = "rows",
    colormap: str | None = None,
    opacity: float = 0.7,
    shared_scale: bool = False,
    colorbar: bool = True,
    cell_size: float = 1.7,
    max_width: float = 12.0,
) -> Figure:
    """Draw a grid of images × methods: every image beside the maps of its units by each method.

    Args:
        images: array, `(images, height, width, 1 | 3)`, of the values that `overlay` accepts.
        maps: dictionary from the name of each method to its maps: an array of shape
            `(images, map height, map width)` or `(images, map height, map width, units)`, or a list
            of one array per image, when images have different numbers of units.
        titles: one text per image, or one list of texts per image with one text per unit, drawn
            above the maps, as in "golden retriever 0.93".
        captions: one text per image, drawn above the image.
        layout: "rows" draws each unit in a row and each method in a column; "columns" the reverse.
        colormap: name of a matplotlib colour map, by default as in `overlay`.
        opacity: float in (0, 1], opacity of the greatest magnitude.
        shared_scale: whether a colour means the same value in all maps, or is relative to the
            greatest magnitude of each map.
        colorbar: whether to draw a colour bar.
        cell_size: float, length of the longest side of an image, in inches.
        max_width: float, width in inches beyond which columns go below the others, so that texts
            can still be read where the figure is scaled to a page. Methods go below with their
            images, and in the layout "columns" whole images do.

    Returns:
        the matplotlib figure.

    Raises:
        ValueError: if images, maps and texts do not go together, or an option is not accepted.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> images = np.zeros((2, 8, 8, 1))
        >>> maps = {"Grad-CAM": np.ones((2, 4, 4)), "MinMax-CAM": np.ones((2, 4, 4))}
        >>> figure = ke.visualization.grid(images, maps, titles=["cat 0.9", "dog 0.8"])
        >>> [axes.get_title() for axes in figure.axes[:3]]
        ['', 'cat 0.9', 'cat 0.9']
    """
    images = [_displayable(image) for image in images]
    maps, counts = _check_maps(maps, len(images))
    titles = _check_texts("titles", titles, counts)
    captions = _check_texts("captions", captions, [1] * len(images))
    if layout not in LAYOUTS:
        raise invalid("layout", f"one of {LAYOUTS}", repr(layout))
    _checks.number("max_width", max_width, least=0)
    every = [map for units in maps.values() for image in units for map in image]
    signed = any(map.min() < 0 for map in every)
    limits = _limits(every, signed) if shared_scale else None
    scale = _scale(colormap, opacity, signed, limits)

    size = _cell(np.max([image.shape[:2] for image in images], axis=0), cell_size)
    titled = any(text for image in titles + captions for text in image)

    def block(indices, names):
        return _Block(size, [counts[i] for i in indices], names, layout == "rows", titled)

    width = max_width - 2 * _MARGIN - _BARRED * colorbar
    for parts in _partitions(len(images), list(maps), layout == "rows"):
        blocks = [block(*part) for part in parts]
        if all(block.stop[1] <= width for block in blocks):
            break
    sheet = _Sheet(blocks, barred=colorbar)
    for row, (indices, names) in enumerate(parts):
        for lanes, index in zip(blocks[row].lanes, indices, strict=True):
            image = images[index]
            ax = sheet.cell(lanes.mean(), 0, row)
            _draw_image(ax, image)
            _write_title(ax, captions[index][0])
            for track, name in enumerate(names, start=1):
                for unit, map in enumerate(maps[name][index]):
                    ax = sheet.cell(lanes[unit], track, row)
                    _draw_image(ax, _grey(image))
                    _draw_map(ax, _resize(map, image.shape[:2]), scale)
                    _write_title(ax, titles[index][unit])
    if colorbar:
        _draw_bar(sheet.bar(), scale)
    return sheet.figure


def gallery(
    images: Array | Sequence[Any],
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    value_range: tuple[float, float] | None = None,
    cell_size: float = 1.7,
) -> Figure:
    """Draw images side by side, such as those that `maximize_activation` returns.

    Args:
        images: array, `(images, height, width, 1 | 3)`.
        titles: one text per image, drawn above it.
        columns: number of images in a row. Defaults to 6, or to all of fewer images.
        value_range: pair of the values that are drawn black and white; by default, as in `overlay`,
            integers span [0, 255], and floats beyond [0, 1] are stretched, image by image.
        cell_size: float, length of the longest side of an image, in inches.

    Returns:
        the matplotlib figure.

    Raises:
        ValueError: if images, titles and options do not go together.

    Example:
        >>> import numpy as np, keras_explainable as ke
        >>> images = np.zeros((3, 8, 8, 3))
        >>> figure = ke.visualization.gallery(images, titles=["a", "b", "c"])
        >>> [axes.get_title() for axes in figure.axes]
        ['a', 'b', 'c']
    """
    if len(images) == 0:
        raise invalid("images", "one image at least", "none")
    images = [_displayable(_in_range(image, value_range)) for image in images]
    titles = [""] * len(images) if titles is None else list(titles)
    if len(titles) != len(images):
        raise invalid("titles", f"{len(images)} texts", len(titles))
    columns = positive_integer("columns", min(6, len(images)) if columns is None else columns)
    block = _Block(
        _cell(np.max([image.shape[:2] for image in images], axis=0), cell_size),
        counts=(-(-len(images) // columns),),
        methods=[""] * (columns - 1),
        titled=any(titles),
    )
    sheet = _Sheet([block])
    for number, (image, title) in enumerate(zip(images, titles, strict=True)):
        ax = sheet.cell(block.lanes[0][number // columns], number % columns)
        _draw_image(ax, image)
        _write_title(ax, title)
    return sheet.figure


class _Block:
    """The places of cells that belong together, in inches from their top left corner.

    A lane is a unit of an image, a track is a method; the first track is the images'.

    Args:
        size: pair of floats, height and width of a cell.
        counts: number of lanes of each image.
        methods: names of the tracks that follow the images'.
        rows: whether lanes are rows; otherwise they are columns.
        titled: whether there are texts above cells.
    """

    def __init__(self, size, counts=(1,), methods=(), rows=True, titled=False):
        self.size, self.rows = np.asarray(size), rows
        gap = np.array([_GAP + _TEXT * titled, _GAP])
        lane, track = (self.size + gap)[:: 1 if rows else -1]
        images = np.repeat(np.arange(len(counts)), counts)
        self.lanes = np.split(
            np.arange(len(images)) * lane + images * _GROUP_GAP, np.cumsum(counts)[:-1]
        )
        self.tracks = np.arange(len(methods) + 1) * track
        self.heads = [_wrapped(name, self.size[int(rows)]) for name in methods]
        lines = max((text.count("\n") for text, _ in self.heads), default=0)
        head = (_TEXT + _LINE * lines) * any(methods)
        self.start = np.array([_TEXT * titled + head * rows, head * (not rows)])
        self.stop = self.cell(self.lanes[-1][-1], self.tracks[-1]) + self.size
        self.edge = head - 0.07  # Of the names of methods, towards the cells.

    def cell(self, lane, track):
        """Return the corner of the cell at a position in both directions."""
        return self.start + ([lane, track] if self.rows else [track, lane])


class _Sheet:
    """A figure of blocks below each other.

    Args:
        blocks: list of `_Block`.
        barred: whether there is a colour bar.
    """

    def __init__(self, blocks, barred=False):
        from matplotlib import pyplot as plt

        self.blocks = blocks
        heights = [block.stop[0] + _GROUP_GAP for block in blocks]
        self.tops = np.cumsum([_MARGIN, *heights])
        self.width = _MARGIN + max(block.stop[1] for block in blocks)
        self.total = np.array([self.tops[-1] - _GROUP_GAP, self.width + _BARRED * barred])
        self.total += _MARGIN
        self.figure = plt.figure(figsize=self.total[::-1], dpi=_DPI, facecolor="white")
        for top, block in zip(self.tops, blocks, strict=False):
            for head, track in zip(block.heads, block.tracks[1:], strict=True):
                self._write_head(block, top, track, *head)

    def cell(self, lane, track, block=0):
        """Return new axes in a lane, given by its position, and a track, given by its number."""
        top, block = self.tops[block], self.blocks[block]
        corner = block.cell(lane, block.tracks[track])
        ax = self._axes(corner + [top, _MARGIN], block.size)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(color="0.7", linewidth=0.5)
        return ax

    def bar(self):
        """Return new axes for the colour bar, to the right of the cells."""
        block, top = self.blocks[0], self.tops[0] + self.blocks[0].start[0]
        height = min(block.stop[0] - block.start[0], 3 * block.size[0])
        return self._axes((top, self.width + _GAP), (height, _BAR))

    def _axes(self, corner, size):
        (top, left), (height, width) = corner / self.total, size / self.total
        return self.figure.add_axes((left, 1 - top - height, width, height))

    def _write_head(self, block, top, track, text, size):
        y, x = block.cell(0, track) + block.size / 2 + [top, _MARGIN]
        if block.rows:
            place = {"x": x, "y": top + block.edge, "ha": "center", "va": "bottom"}
        else:
            place = {"x": _MARGIN + block.edge, "y": y, "ha": "right", "va": "center"}
            place |= {"rotation": 90, "multialignment": "center"}
        place["x"], place["y"] = place["x"] / self.total[1], 1 - place["y"] / self.total[0]
        self.figure.text(s=text, size=size, weight="bold", color=_TEXT_COLOR, **place)


def _partitions(num_images, methods, rows):
    """Yield the ways to draw a grid in parts below each other, of one part first.

    A part is a pair of indices of images and names of methods.
    """
    length = len(methods) if rows else num_images
    for number in range(1, length + 1):
        cut = np.array_split(np.arange(length), number)
        if rows:
            yield [(range(num_images), [methods[i] for i in part]) for part in cut]
        else:
            yield [(part, methods) for part in cut]


def _cell(shape, longest):
    """Return the height and width, in inches, of an image whose longest side is given."""
    return np.asarray(shape) * longest / max(shape)


def _displayable(image):
    """Return an image as floats in [0, 1], `(height, width, 1 | 3)`."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
        expected = "an array of shape (H, W), (H, W, 1) or (H, W, 3)"
        raise invalid("image", expected, image.shape, _SLICE if image.ndim > 3 else "")
    if not np.isfinite(image).all():
        raise invalid("image", "finite values", "NaN or infinity among its values")
    if image.dtype.kind in "iu":
        return np.clip(image / 255.0, 0, 1)
    image = image.astype(float)
    low, high = image.min(), image.max()
    if low >= 0 and high <= 1:
        return image
    return (image - low) / (high - low) if high > low else np.clip(image, 0, 1)


def _in_range(image, value_range):
    """Return an image whose values are scaled from a range to [0, 1]; as it is without one."""
    if value_range is None:
        return image
    if len(value_range) != 2 or not value_range[0] < value_range[1]:
        raise invalid("value_range", "a pair of increasing floats", value_range)
    low, high = value_range
    return np.clip((np.asarray(image, float) - low) / (high - low), 0, 1)


def _grey(image):
    """Return the luma of an image, `(height, width, 1)`."""
    return image if image.shape[-1] == 1 else image @ np.array([[0.299], [0.587], [0.114]])


def _finite_map(argument, map):
    """Return a map as floats."""
    map = np.asarray(map, float)
    if map.ndim != 2 or not map.size:
        expected, hint = "a map of shape (height, width)", _SLICE if map.ndim > 2 else ""
        raise invalid(argument, expected, f"an array of shape {map.shape}", hint)
    if not np.isfinite(map).all():
        raise invalid(argument, "finite values", "NaN or infinity among its values")
    return map


def _check_maps(maps, num_images):
    """Return the maps, {method: [[map, …], …]}, and the number of maps of each image."""
    if not isinstance(maps, dict) or not maps:
        raise invalid("maps", "a dictionary {method name: maps}", _showing.shown(maps))
    checked = {}
    for name, values in maps.items():
        if len(values) != num_images:
            raise invalid(f"maps[{name!r}]", f"maps of {num_images} images", f"{len(values)} maps")
        checked[name] = [_split(f"maps[{name!r}]", value) for value in values]
    counts = {name: [len(units) for units in values] for name, values in checked.items()}
    first = next(iter(counts.values()))
    if not first or not all(first) or any(count != first for count in counts.values()):
        raise invalid("maps", "the same numbers of units, at least one, by every method", counts)
    return checked, first


def _split(argument, value):
    """Return the maps of one image: one, or one per unit."""
    value = np.asarray(value)
    units = [value] if value.ndim != 3 else np.moveaxis(value, -1, 0)
    return [_finite_map(argument, unit) for unit in units]


def _check_texts(argument, texts, counts):
    """Return one list of texts per image, one text per unit."""
    if texts is None:
        return [[""] * count for count in counts]
    texts = [[text] if isinstance(text, str) else list(text) for text in texts]
    received = [len(text) for text in texts]
    if received != list(counts):
        raise invalid(argument, f"numbers of texts {list(counts)}", received)
    return texts


def _scale(colormap, opacity, signed, limits):
    """Return a checked `_Scale`."""
    from matplotlib import colormaps

    if colormap is not None and colormap not in colormaps:
        raise invalid("colormap", "the name of a matplotlib colour map", repr(colormap))
    if not 0 < opacity <= 1:
        raise invalid("opacity", "a float in (0, 1]", opacity)
    if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
        raise invalid("limits", "a pair of increasing floats", limits)
    return _Scale(colormap, opacity, signed, limits)


def _limits(maps, signed):
    peak = max(np.abs(map).max() for map in maps) or 1.0
    return (-peak if signed else 0.0, peak)


def _colors(scale):
    """Return the colour map of a scale; its opacity grows with the magnitude of the values."""
    from matplotlib import colormaps
    from matplotlib import colors

    name = scale.colormap or (DIVERGING if scale.signed else SEQUENTIAL)
    positions = np.linspace(0, 1, 256)
    rgba = colormaps[name](positions)
    magnitude = np.abs(2 * positions - 1) if scale.signed else positions
    rgba[:, 3] = scale.opacity * magnitude * (2 - magnitude)
    return colors.ListedColormap(rgba, name=f"{name}_translucent")


def _resize(map, size):
    """Resize a map bilinearly: pixels are squares, so that borders of map and image coincide."""
    for axis, length in enumerate(size):
        count = map.shape[axis]
        if count == length:
            continue
        centres = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
        lower = np.minimum(centres.astype(int), max(count - 2, 0))
        upper = np.minimum(lower + 1, count - 1)
        share = np.expand_dims(centres - lower, 1 - axis)
        map = (1 - share) * map.take(lower, axis) + share * map.take(upper, axis)
    return map


def _draw_image(ax, image):
    if image.shape[-1] == 1:
        ax.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        ax.imshow(image, interpolation="nearest")


def _draw_map(ax, map, scale):
    low, high = scale.limits or _limits([map], scale.signed)
    ax.imshow(map, cmap=_colors(scale), vmin=low, vmax=high, interpolation="nearest")


def _draw_bar(ax, scale):
    """Draw the colour bar, over the grey of an image; without limits, each map has its own."""
    low, high = scale.limits or (-1.0 if scale.signed else 0.0, 1.0)
    values = np.linspace(low, high, 256)[:, None]
    ax.set_facecolor("0.5")
    extent = (0, 1, low, high)
    ax.imshow(values, cmap=_colors(scale), aspect="auto", origin="lower", extent=extent)
    ax.set(xticks=[])
    ax.yaxis.tick_right()
    ax.tick_params(labelsize=_SMALLEST_FONT_SIZE + 1, length=2, color="0.7", labelcolor=_TEXT_COLOR)
    ax.spines[:].set(color="0.7", linewidth=0.5)
    if scale.limits is None:
        ticks = [-1, 0, 1] if scale.signed else [0, 1]
        ax.set_yticks(ticks, [{-1: "−max", 0: "0", 1: "max"}[tick] for tick in ticks])


def _write_title(ax, title):
    if title:
        text, size = _fit(title, ax.get_position().width * ax.figure.get_size_inches()[0])
        ax.set_title(text, size=size, color=_TEXT_COLOR, pad=3)


def _wrapped(name, width):
    """Return the name of a method in as few lines as fit a width, in inches, and its font size."""
    pieces, found = _BREAKS.split(str(name)), []
    for number in range(min(_LINES, len(pieces))):
        cuts = itertools.combinations(range(1, len(pieces)), number)
        lines = min((_joined(pieces, cut) for cut in cuts), key=lambda lines: max(map(len, lines)))
        texts, sizes = zip(*(_fit(line, width, "bold") for line in lines), strict=True)
        found.append(("\n".join(texts), min(sizes)))
        if min(sizes) > 0.85 * _FONT_SIZE:
            break
    return max(found, key=lambda pair: pair[1])


def _joined(pieces, cuts):
    ends = itertools.pairwise([0, *cuts, len(pieces)])
    return ["".join(pieces[start:stop]).strip() for start, stop in ends]


def _fit(text, width, weight="normal"):
    """Return a text and its font size that fit a width, in inches: smaller, then abridged."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(weight=weight)

    def excess(text, size):
        path = TextPath((0, 0), text or "-", size=size, prop=font)
        # Text is drawn a little wider than its path, for its pixels are whole.
        return 1.04 * path.get_extents().width / 72 / width

    short = _abridged(str(text), lambda text: excess(text, _SMALLEST_FONT_SIZE) <= 1)
    return short, np.clip(_FONT_SIZE / excess(short, _FONT_SIZE), _SMALLEST_FONT_SIZE, _FONT_SIZE)


def _abridged(text, fits):
    """Return a text that fits, as a function tells, without its middle.

    Its last word, likely a score, is kept, and of the others the beginning and the end, for names
    may begin alike.
    """
    start, space, last = text.rpartition(" ")
    for kept in reversed(range(len(start))):
        if fits(text):
            break
        head, tail = start[: kept - kept // 2].rstrip(), start[len(start) - kept // 2 :].lstrip()
        text = f"{head}\N{HORIZONTAL ELLIPSIS}{tail}{space}{last}"
    return text
