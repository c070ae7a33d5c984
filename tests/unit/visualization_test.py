import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

from keras_explainable import visualization

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def drawn_map(ax):
    return np.asarray(ax.images[1].get_array())


def hot(row, column, shape=(4, 4)):
    map = np.zeros(shape)
    map[row, column] = 1.0
    return map


def bilinear_oracle(map, size):
    """Resize pixel by pixel: pixels are squares, values sit at their centres."""
    result = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y = min(max((row + 0.5) * map.shape[0] / size[0] - 0.5, 0), map.shape[0] - 1)
            x = min(max((column + 0.5) * map.shape[1] / size[1] - 0.5, 0), map.shape[1] - 1)
            for i in range(map.shape[0]):
                for j in range(map.shape[1]):
                    weight = max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
                    result[row, column] += weight * map[i, j]
    return result


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (3, 5), (4, 4), (1, 7)])
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1, 1), (1, 4)])
def test_maps_are_resized_bilinearly_between_centres_of_pixels(shape, size):
    map = np.random.default_rng(0).random(shape)
    ax = visualization.overlay(np.zeros(size), map).axes[0]
    np.testing.assert_allclose(drawn_map(ax), bilinear_oracle(map, size), atol=1e-12)


def test_hot_cell_lands_on_its_pixels():
    ax = visualization.overlay(np.zeros((20, 40)), hot(1, 3)).axes[0]
    rows, columns = np.nonzero(drawn_map(ax) > 0.999 * drawn_map(ax).max())
    # Cell (1, 3) of 4 × 4 spans rows 5 to 10 and columns 30 to 40: the border repeats its value.
    assert set(rows) == {7}
    assert set(columns) == set(range(35, 40))


def test_hot_cell_is_painted_at_its_place_on_the_figure():
    figure = visualization.overlay(np.zeros((32, 32)), hot(3, 0), colormap="viridis", opacity=1.0)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    box = figure.axes[0].get_window_extent()
    top, left = pixels.shape[0] - box.y1, box.x0
    painted = pixels[..., 1] - pixels[..., 2] > 100  # Viridis ends in yellow.
    rows, columns = np.nonzero(painted)
    assert (rows.mean() - top) / box.height == pytest.approx(7 / 8, abs=0.04)
    assert (columns.mean() - left) / box.width == pytest.approx(1 / 8, abs=0.04)


def test_map_and_image_cover_the_same_area():
    image, map = visualization.overlay(np.zeros((6, 10, 3)), np.ones((2, 2))).axes[0].images
    assert image.get_extent() == map.get_extent()


def test_aspect_of_the_image_is_kept():
    figure = visualization.overlay(np.zeros((20, 60)), np.ones((4, 4)))
    figure.canvas.draw()
    box = figure.axes[0].get_window_extent()
    assert box.width / box.height == pytest.approx(3, abs=0.02)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[0, 51], [102, 255]], "uint8"), [[0, 0.2], [0.4, 1]]),
        (np.array([[0.1, 0.2], [0.4, 0.9]]), [[0.1, 0.2], [0.4, 0.9]]),
        (np.array([[-1.0, 0.0], [0.5, 1.0]]), [[0, 0.5], [0.75, 1]]),
        (np.array([[0.0, 51.0], [102.0, 255.0]]), [[0, 0.2], [0.4, 1]]),
        (np.full((2, 2), 7.0), [[1, 1], [1, 1]]),
    ],
)
def test_images_of_any_range_are_drawn_between_black_and_white(image, expected):
    ax = visualization.overlay(image, np.ones((2, 2))).axes[0]
    np.testing.assert_allclose(ax.images[0].get_array(), expected, atol=1e-9)
    assert ax.images[0].get_clim() == (0, 1)


def test_colour_images_are_grey_under_the_map_and_coloured_beside_it():
    image = np.zeros((2, 2, 3))
    image[..., 1] = 1.0
    figure = visualization.grid(image[None], {"m": np.ones((1, 2, 2))})
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image)
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), np.full((2, 2), 0.587))


def test_zero_is_transparent_and_opacity_is_that_of_the_greatest_value():
    colors = visualization.overlay(np.zeros((4, 4)), hot(0, 0), opacity=0.6).axes[0].images[1].cmap
    assert colors(0.0)[3] == 0
    assert colors(1.0)[3] == pytest.approx(0.6)
    assert np.all(np.diff(colors(np.linspace(0, 1, 9))[:, 3]) > 0)


def test_maps_with_negative_values_are_centred_on_zero():
    image = visualization.overlay(np.zeros((2, 2)), np.array([[-1.0, 0], [0, 3]])).axes[0].images[1]
    assert image.get_clim() == (-3, 3)
    assert image.cmap(0.5)[3] == pytest.approx(0, abs=0.01)
    np.testing.assert_allclose(image.cmap(1.0)[:3], matplotlib.colormaps["coolwarm"](1.0)[:3])


def test_maps_without_negative_values_start_at_zero():
    image = visualization.overlay(np.zeros((2, 2)), np.array([[1.0, 2], [2, 3]])).axes[0].images[1]
    assert image.get_clim() == (0, 3)


def test_map_of_zeros_leaves_the_image_bare():
    image = visualization.overlay(np.zeros((2, 2)), np.zeros((2, 2))).axes[0].images[1]
    assert image.get_clim() == (0, 1)


def test_options_of_overlay_are_obeyed():
    figure, ax = plt.subplots()
    returned = visualization.overlay(
        np.zeros((2, 2)), np.eye(2), ax=ax, colormap="cividis", limits=(0.5, 2), title="cat 0.9"
    )
    assert returned is figure
    assert ax.get_title() == "cat 0.9"
    assert ax.images[1].get_clim() == (0.5, 2)
    np.testing.assert_allclose(ax.images[1].cmap(1.0)[:3], matplotlib.colormaps["cividis"](1.0)[:3])


def test_grid_shows_every_unit_by_every_method_under_its_title():
    maps = np.random.default_rng(0).random((2, 4, 4, 3))
    titles = [["a 0.1", "b 0.2", "c 0.3"], ["d 0.4", "e 0.5", "f 0.6"]]
    figure = visualization.grid(
        np.zeros((2, 4, 4, 1)), {"one": maps, "two": 2 * maps}, titles=titles, captions=["x", "y"]
    )
    drawn = {}
    for ax in figure.axes[:-1]:
        values = drawn_map(ax) if len(ax.images) == 2 else None
        drawn.setdefault(ax.get_title(), []).append(values)
    assert drawn["x"] == drawn["y"] == [None]
    for index, row in enumerate(titles):
        for unit, title in enumerate(row):
            one, two = drawn[title]
            np.testing.assert_allclose(one, maps[index, ..., unit])
            np.testing.assert_allclose(two, 2 * maps[index, ..., unit])
    assert [text.get_text() for text in figure.texts] == ["one", "two"]


def test_images_may_have_different_numbers_of_units():
    maps = {"m": [np.ones((2, 2, 3)), np.ones((2, 2))]}
    titles = [["a", "b", "c"], ["d"]]
    figure = visualization.grid(np.zeros((2, 4, 4)), maps, titles=titles)
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_nothing_overlaps_nor_leaves_the_figure(layout):
    long = "a class with a name that is much too long for its cell 0.93"
    figure = visualization.grid(
        np.zeros((2, 10, 16, 3)),
        {"Grad-CAM": np.ones((2, 4, 4, 2)), "A method with a long name": np.ones((2, 4, 4, 2))},
        titles=[[long, "b"], ["c", long]],
        captions=["first", "second"],
        layout=layout,
    )
    figure.canvas.draw()
    texts = [ax.title for ax in figure.axes if ax.get_title()] + figure.texts
    boxes = [ax.get_window_extent() for ax in figure.axes]
    boxes += [text.get_window_extent() for text in texts]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for other in boxes[:index]:
            apart = box.x0 >= other.x1 or other.x0 >= box.x1
            assert apart or box.y0 >= other.y1 - 1 or other.y0 >= box.y1 - 1


def test_bold_names_of_methods_keep_apart():
    names = ["full_gradients", "guided_backprop", "input_x_gradient", "integrated_gradients"]
    figure = visualization.grid(
        np.zeros((1, 8, 8)), {name: np.ones((1, 4, 4)) for name in names}, cell_size=1.2
    )
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))


def test_names_of_methods_take_another_line_before_they_shrink():
    names = ["gnl_integrated_gradients", "a method, by its name", "cam"]
    figure = visualization.grid(
        np.zeros((1, 8, 8)), {name: np.ones((1, 4, 4)) for name in names}, cell_size=1.0
    )
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["gnl_\nintegrated_\ngradients", "a method,\nby its name", "cam"]
    assert min(text.get_size() for text in figure.texts) > 8.5
    # Names in one line and in several stand on the same line.
    figure.canvas.draw()
    assert np.ptp([text.get_window_extent().y0 for text in figure.texts]) < 1


def rows_of(figure, boxes):
    """Return how many places there are from top to bottom, by how much each has."""
    tops = [round(box.y1 * figure.get_figheight(), 1) for box in boxes]
    return [tops.count(top) for top in sorted(set(tops), reverse=True)]


def test_methods_beyond_the_width_go_below_with_their_image():
    maps = {f"m{number}": np.full((1, 4, 4), number + 1.0) for number in range(7)}
    image = np.zeros((1, 8, 8, 1))
    figure = visualization.grid(image, maps, titles=["cat 0.9"])
    assert figure.get_figwidth() <= 12
    *cells, _ = figure.axes
    assert rows_of(figure, [ax.get_position() for ax in cells]) == [5, 4]
    assert [len(ax.images) for ax in cells] == [1, 2, 2, 2, 2, 1, 2, 2, 2]
    drawn = [drawn_map(ax).max() for ax in cells if len(ax.images) == 2]
    assert drawn == [1, 2, 3, 4, 5, 6, 7]
    assert [text.get_text() for text in figure.texts] == list(maps)
    for text, ax in zip(figure.texts, [ax for ax in cells if ax.get_title()], strict=True):
        box = ax.get_position()
        assert text.get_position()[0] == pytest.approx((box.x0 + box.x1) / 2)
        assert text.get_position()[1] > box.y1
    wide = visualization.grid(image, maps, titles=["cat 0.9"], max_width=16)
    assert rows_of(wide, [ax.get_position() for ax in wide.axes[:-1]]) == [8]
    narrow = visualization.grid(image, maps, max_width=0)
    assert rows_of(narrow, [ax.get_position() for ax in narrow.axes[:-1]]) == [2] * 7


def test_images_beyond_the_width_go_below_with_the_names_of_methods():
    maps = {name: [np.ones((4, 4, n)) for n in (4, 3, 4)] for name in ("one", "two")}
    captions = ["a", "b", "c"]
    figure = visualization.grid(
        np.zeros((3, 8, 8, 1)), maps, captions=captions, layout="columns", cell_size=1.2
    )
    assert figure.get_figwidth() <= 12
    *cells, _ = figure.axes
    assert rows_of(figure, [ax.get_position() for ax in cells]) == [2, 7, 7, 1, 4, 4]
    assert [ax.get_title() for ax in cells if ax.get_title()] == captions
    assert [text.get_text() for text in figure.texts] == ["one", "two"] * 2


def test_abridged_titles_keep_their_score():
    title = "a class with a name that is much too long for its cell 0.93"
    figure = visualization.grid(np.zeros((1, 4, 4)), {"m": np.ones((1, 2, 2))}, titles=[title])
    start, end = figure.axes[1].get_title().split("…")
    assert start.startswith("a class")
    assert end.endswith("cell 0.93")
    assert figure.axes[1].get_title().startswith("a class")


def test_rows_put_units_below_each_other_and_columns_beside():
    maps = {"m": np.ones((1, 2, 2, 2))}
    for layout, axis in [("rows", "y0"), ("columns", "x0")]:
        figure = visualization.grid(np.zeros((1, 4, 4)), maps, layout=layout)
        image, first, second, _ = (ax.get_position() for ax in figure.axes)
        other = "x0" if axis == "y0" else "y0"
        assert abs(getattr(first, axis) - getattr(second, axis)) > 0.1
        assert getattr(first, other) == pytest.approx(getattr(second, other))
        middle = (getattr(first, axis) + getattr(second, axis)) / 2
        assert getattr(image, axis) == pytest.approx(middle)


def test_shared_scale_gives_a_colour_one_meaning():
    maps = {"one": np.ones((1, 2, 2)), "two": 4 * np.ones((1, 2, 2))}
    shared = visualization.grid(np.zeros((1, 2, 2)), maps, shared_scale=True)
    assert [ax.images[1].get_clim() for ax in shared.axes[1:3]] == [(0, 4), (0, 4)]
    assert shared.axes[-1].get_ylim() == (0, 4)
    own = visualization.grid(np.zeros((1, 2, 2)), maps)
    assert [ax.images[1].get_clim() for ax in own.axes[1:3]] == [(0, 1), (0, 4)]
    assert [tick.get_text() for tick in own.axes[-1].get_yticklabels()] == ["0", "max"]


def test_one_negative_map_makes_every_colour_map_of_a_grid_diverging():
    maps = {"one": np.ones((1, 2, 2)), "two": -np.ones((1, 2, 2))}
    figure = visualization.grid(np.zeros((1, 2, 2)), maps)
    assert [ax.images[1].get_clim() for ax in figure.axes[1:3]] == [(-1, 1), (-1, 1)]
    assert [t.get_text() for t in figure.axes[-1].get_yticklabels()] == ["−max", "0", "max"]


def test_options_of_grid_are_obeyed():
    maps = {"m": np.eye(2)[None]}
    plain = visualization.grid(np.zeros((1, 2, 2)), maps)
    figure = visualization.grid(
        np.zeros((1, 2, 2)), maps, colormap="magma", opacity=0.3, colorbar=False, cell_size=3.4
    )
    assert len(figure.axes) == len(plain.axes) - 1
    colors = figure.axes[1].images[1].cmap
    np.testing.assert_allclose(colors(1.0), [*matplotlib.colormaps["magma"](1.0)[:3], 0.3])
    sizes = [f.axes[0].get_position().width * f.get_figwidth() for f in (plain, figure)]
    np.testing.assert_allclose(sizes, [1.7, 3.4])


def test_arguments_are_left_as_they_were():
    image, map = np.full((4, 4, 3), 300.0), np.eye(2)
    visualization.overlay(image, map)
    assert (image == 300).all()
    np.testing.assert_array_equal(map, np.eye(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": np.zeros((2, 2, 4))}, r"`image`.*Received: \(2, 2, 4\)"),
        ({"image": np.full((2, 2), np.nan)}, "`image`.*Received: NaN"),
        ({"map": np.zeros((2, 2, 1))}, r"`map`.*Received: an array of shape \(2, 2, 1\)"),
        ({"map": np.full((2, 2), np.inf)}, "`map`.*infinity"),
        ({"opacity": 0}, "`opacity`.*Received: 0"),
        ({"opacity": 1.5}, "`opacity`.*Received: 1.5"),
        ({"limits": (1, 0)}, r"`limits`.*Received: \(1, 0\)"),
        ({"image": np.zeros((4, 5, 6, 3))}, r"`image`.*\(4, 5, 6, 3\).*a volume.*pass a slice"),
        ({"map": np.zeros((4, 5, 6))}, r"`map`.*\(4, 5, 6\).*a volume.*pass a slice"),
        ({"colormap": "jett"}, "`colormap`.*Received: 'jett'"),
    ],
)
def test_overlay_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        visualization.overlay(**({"image": np.zeros((2, 2)), "map": np.zeros((2, 2))} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maps": {}}, "`maps`.*Received: {}"),
        ({"maps": np.ones((2, 2, 2))}, r"`maps`.*Received: float64 \(2, 2, 2\)$"),
        ({"maps": {"m": np.ones((3, 2, 2))}}, r"`maps\['m'\]`.*2 images.*Received: 3 maps"),
        ({"maps": {"m": np.ones((2, 2))}}, r"`maps\['m'\]`.*Received: an array of shape \(2,\)"),
        (
            {"maps": {"m": np.ones((2, 2, 2)), "n": np.ones((2, 2, 2, 3))}},
            r"`maps`.*Received: {'m': \[1, 1\], 'n': \[3, 3\]}",
        ),
        ({"titles": ["one"]}, r"`titles`.*\[1, 1\].*Received: \[1\]"),
        ({"captions": ["one"]}, r"`captions`.*\[1, 1\].*Received: \[1\]"),
        ({"layout": "diagonal"}, "`layout`.*Received: 'diagonal'"),
        ({"max_width": -1}, "`max_width`.*Received: -1"),
        ({"opacity": -1}, "`opacity`.*Received: -1"),
    ],
)
def test_grid_says_what_is_wrong(arguments, message):
    accepted = {"images": np.zeros((2, 4, 4)), "maps": {"m": np.ones((2, 2, 2))}}
    with pytest.raises(ValueError, match=message):
        visualization.grid(**(accepted | arguments))


def test_gallery_draws_images_in_rows_between_black_and_white():
    images = np.linspace(-3, 3, 5 * 4 * 6 * 3).reshape(5, 4, 6, 3)
    figure = visualization.gallery(images, titles="abcde", columns=2, value_range=(-2, 2))
    assert [ax.get_title() for ax in figure.axes] == list("abcde")
    for ax, image in zip(figure.axes, images, strict=True):
        drawn = np.asarray(ax.images[0].get_array())
        np.testing.assert_allclose(drawn, np.clip((image + 2) / 4, 0, 1))
    corners = np.array([ax.get_position().corners()[1] for ax in figure.axes])
    np.testing.assert_allclose(corners[[0, 2, 4], 0], corners[0, 0])
    np.testing.assert_allclose(corners[[1, 3], 0], corners[1, 0])
    assert corners[1, 0] > corners[0, 0]
    assert corners[0, 1] > corners[2, 1] > corners[4, 1]


def test_gallery_without_titles_leaves_no_room_for_them():
    image = np.zeros((1, 4, 4, 1))
    with_title = visualization.gallery(image, titles=["a"]).get_size_inches()
    without = visualization.gallery(image).get_size_inches()
    np.testing.assert_allclose(with_title[0], without[0])
    assert with_title[1] > without[1] + 0.2


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((0, 4, 4, 3)), {}, "one image at least"),
        (np.zeros((2, 4, 4, 3)), {"titles": ["a"]}, "2 texts. Received: 1"),
        (np.zeros((2, 4, 4, 3)), {"columns": 0}, "`columns`"),
        (np.zeros((2, 4, 4, 3)), {"value_range": (1, 0)}, r"`value_range`.*\(1, 0\)"),
        (np.zeros((2, 4, 4, 2)), {}, r"\(4, 4, 2\)"),
    ],
)
def test_gallery_refuses_what_does_not_go_together(images, options, message):
    with pytest.raises(ValueError, match=message):
        visualization.gallery(images, **options)


def cells_of(picture, image, num_maps, head, columns=4):
    """Cut a raster of a square image back into its cells, at the size of the image."""
    size = image.shape[0]
    factor = -(-160 // size)
    step, found = size * factor + 6, []
    for number in range(num_maps + 1):
        row, column = divmod(number, columns)
        top, left = 6 + head + (step + head) * row, 6 + step * column
        cell = picture[top : top + size * factor, left : left + size * factor]
        blocks = cell.reshape(size, factor, size, factor, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
        found.append(blocks[:, 0, :, 0])
    return found


def blended(image, map, **options):
    """Blend the layers of the figure that `overlay` draws."""
    grey, colors = visualization.overlay(image, map, **options).axes[0].images
    rgba = colors.to_rgba(colors.get_array())
    grey = np.asarray(grey.get_array())[..., None]
    return 255 * (grey * (1 - rgba[..., 3:]) + rgba[..., :3] * rgba[..., 3:])


@pytest.mark.parametrize(
    "options", [{}, {"colormap": "viridis", "opacity": 0.4}, {"limits": (-1.0, 0.5)}]
)
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_raster_has_the_pixels_of_an_overlay(options, shift):
    random = np.random.default_rng(0)
    image, maps = random.random((24, 24, 3)), random.random((5, 5, 6)) - shift
    picture = visualization.raster(image, maps, **options)
    assert picture.dtype == np.uint8
    first, *others = cells_of(picture, image, 6, head=0)
    np.testing.assert_allclose(first, 255 * image, atol=0.51)
    for unit, cell in enumerate(others):
        np.testing.assert_allclose(cell, blended(image, maps[..., unit], **options), atol=0.51)


def test_raster_of_a_map_that_is_signed_draws_all_maps_as_such():
    image = np.random.default_rng(0).random((32, 32))
    maps = np.stack([hot(0, 0), -hot(1, 1)], -1)
    _, first, second = cells_of(visualization.raster(image, maps), image, 2, head=0)
    assert first[2, 2, 0] > first[2, 2, 2]  # Red,
    assert second[12, 12, 2] > second[12, 12, 0]  # blue.


def test_raster_writes_titles_above_their_maps():
    image = np.zeros((40, 40))
    titles = ["", "digit 3 0.98"]
    picture = visualization.raster(image, np.ones((4, 4, 2)), titles=titles, caption="7")
    assert picture.shape == (24 + 160 + 12, 3 * 166 + 6, 3)
    inked = (picture[6:30] < 128).any((0, 2))
    runs = [inked[6 + 166 * n : 166 * (n + 1)] for n in range(3)]
    assert [run.any() for run in runs] == [True, False, True]
    places = np.flatnonzero(runs[2])
    assert places.mean() == pytest.approx(80, abs=4)
    assert 80 < np.ptp(places) < 140
    plain = visualization.raster(image, np.ones((4, 4, 2)))
    np.testing.assert_array_equal(picture[30:], plain[6:])


def test_raster_enlarges_small_images_and_leaves_large_ones():
    assert visualization.raster(np.zeros((8, 16)), np.ones((2, 2))).shape == (92, 338, 3)
    assert visualization.raster(np.zeros((200, 90)), np.ones((2, 2))).shape == (212, 198, 3)
    # Narrow images are given room for their titles.
    titled = visualization.raster(np.zeros((200, 90)), np.ones((2, 2)), titles=["digit 1 0.5"])
    assert titled.shape == (236, 290, 3)
    rows = visualization.raster(np.zeros((160, 160)), np.ones((2, 2, 4)), columns=2)
    assert rows.shape == (3 * 166 + 6, 2 * 166 + 6, 3)


@pytest.mark.parametrize("is_bitmap", [False, True])
def test_raster_abridges_titles_and_keeps_the_score(monkeypatch, is_bitmap):
    from PIL import ImageDraw
    from PIL import ImageFont

    from keras_explainable.visualization import rasters

    if is_bitmap and not hasattr(ImageFont, "load_default_imagefont"):
        pytest.skip("this version of Pillow has no other font to ask for")
    font = ImageFont.load_default_imagefont() if is_bitmap else rasters._font()
    monkeypatch.setattr(rasters, "_font", lambda: font)
    drawn, draw = [], ImageDraw.ImageDraw.text

    def note(self, place, text, **options):
        drawn.append((place[0], text))
        return draw(self, place, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    title = "a soft-coated wheaten terrier\nof the north 0.93"
    visualization.raster(np.zeros((32, 32)), np.eye(4), titles=[title])
    ((left, text),) = drawn
    start, middle, end = text.partition(".." if is_bitmap else "\N{HORIZONTAL ELLIPSIS}")
    assert middle
    assert title.startswith(start)
    assert title.endswith(end)
    assert len(start) > 3
    assert len(end) > len(" 0.93") + 2
    assert left >= 0
    assert 115 < font.getlength(text) <= 160 - 2 * left + 1


def test_rasters_shrink_large_images_and_fill_their_rows():
    image = np.zeros((640, 320, 3), "uint8")
    image[:, 160:] = 200
    assert visualization.raster(image, np.eye(4)).shape == (320 + 12, 2 * 160 + 18, 3)
    cell = visualization.raster(image, np.zeros((4, 4)))[6:326, 6:166]
    np.testing.assert_array_equal(
        cell[:, [0, 79, 80, 159]], np.full((320, 4, 3), [[0], [0], [200], [200]])
    )
    five = visualization.raster(np.zeros((160, 160)), np.ones((4, 4, 4)))
    assert five.shape == (2 * 166 + 6, 3 * 166 + 6, 3)


def test_raster_does_without_the_font_of_matplotlib(monkeypatch, tmp_path):
    from keras_explainable.visualization import rasters

    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    rasters._font.cache_clear()
    picture = visualization.raster(np.zeros((32, 32)), np.eye(4), titles=["digit 3 0.98"])
    rasters._font.cache_clear()
    assert (picture[6:30, 172:] < 128).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": np.zeros((2, 8, 8, 3))}, "`image`"),
        ({"maps": np.ones((2, 4, 4, 3))}, "`maps`"),
        ({"maps": np.full((4, 4), np.nan)}, "`maps`. Expected finite"),
        ({"titles": ["a", "b"]}, r"`titles`. Expected numbers of texts \[1\]"),
        ({"columns": 0}, "`columns`"),
        ({"opacity": 2}, "`opacity`"),
    ],
)
def test_raster_names_bad_arguments(arguments, message):
    arguments = {"image": np.zeros((8, 8)), "maps": np.ones((4, 4)), **arguments}
    with pytest.raises(ValueError, match=message):
        visualization.raster(**arguments)
