"""The pictures of `benchmarks/figures.py` show every method, from the maps of a model."""

import keras
import numpy as np
import pytest
from PIL import Image

import keras_explainable as ke
from keras_explainable import demo
from tests.conftest import script

figures = script("figures")


@pytest.fixture(scope="module")
def source():
    image = np.zeros((1, 64, 64, 1), "float32")
    image[0, 8:30, 8:30] = 1
    model = demo.build_model(filters=(4, 4, 4))
    titles = ["digit 3 0.91", "digit 5 0.87"]
    return figures.Explained(model, image, np.array([[3, 5]]), titles)


def test_every_method_is_on_the_sheet_once():
    shown = [name for row in figures.rows() for name in row]
    assert sorted(shown) == sorted([*ke.methods.names(), *ke.methods.meta_names()])
    assert max(map(len, figures.rows())) <= figures.COLUMNS


def test_every_meta_method_is_drawn_with_a_method():
    assert set(figures.META_METHODS) == set(ke.methods.meta_names())


def test_fine_maps_are_those_of_the_gradient_family():
    fine = {name for name in ke.methods.names() if figures._is_fine(name)}
    family = {n for n in ke.methods.names() if ke.methods.registration(n).family == "gradient"}
    assert fine == family
    assert figures._is_fine(ke.methods.guided("gradcam"))
    assert not figures._is_fine(ke.methods.tta("gradcam"))


def test_strips_show_filtered_and_raw_maps(source, monkeypatch):
    drawn = []
    grid = ke.visualization.grid

    def noted(images, maps, **options):
        drawn.append(maps)
        return grid(images, maps, **options)

    monkeypatch.setattr(ke.visualization, "grid", noted)
    strip = figures.draw_strip(source, "gradcam")
    filtered, raw = drawn
    assert list(filtered) == list(raw) == source.titles
    maps = ke.gradcam(source.model, source.image, [[3, 5]], postprocessing=None)[1]
    for number, title in enumerate(source.titles):
        np.testing.assert_allclose(raw[title], maps[..., number], atol=1e-6)
        assert filtered[title].min() >= 0
    assert strip.height > 2 * 150
    assert np.ptp(np.asarray(strip)) > 200
    # A heading on the left of each row, and nothing else there.
    ink = (np.asarray(strip)[:, :58] < 128).any(axis=(1, 2))
    halves = np.split(ink, 2)
    assert all(20 < half.sum() < 200 for half in halves)
    assert halves[0].sum() > halves[1].sum()  # "positive_normalize" is longer than "one scale".


def test_methods_that_a_linear_head_makes_equal_differ_with_the_other_head(source, monkeypatch):
    scans = np.random.default_rng(0).random((20, 24, 24)).astype("float32")
    images = {size: scans[:, :size, :size] for size in demo.DIGIT_SIZES}
    digits = demo.Digits(images, np.arange(20) % 10, np.arange(20))
    trained = figures.train_head(source.model, digits, num_scenes=8, epochs=1)
    flattening = source._replace(model=trained)
    activations = [
        keras.Model(model.input, model.get_layer("relu_2").output)(source.image)
        for model in (source.model, trained)
    ]
    np.testing.assert_allclose(*activations)

    def distance(one, other, explained):
        pair = [explained.maps(figures.HEADS.get(name, name), None) for name in (one, other)]
        return np.abs(pair[0] - pair[1]).max() / np.abs(pair[0]).max()

    pairs = [("gradcam", "hirescam"), ("gradcam", "xgradcam"), ("hirescam", "xgradcam")]
    assert max(distance(*pair, source) for pair in pairs) < 1e-5
    assert min(distance(*pair, flattening) for pair in pairs) > 1e-2
    assert distance("layercam", "gradcam_elementwise", flattening) < 1e-5
    monkeypatch.setattr(figures, "HEADS", {"one": ("layercam", {"layer": "relu_2"})})
    assert figures.draw_heads(flattening).width > 200


def test_scene_is_one_that_all_models_get_right():
    class Fixed:
        def __init__(self, scores):
            self.scores = np.asarray(scores, float)

        def predict(self, _, **__):
            return self.scores

    labels = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], float)
    scenes = demo.Scenes(None, labels, None)
    wrong = labels.copy()
    wrong[0, 2] = 0.9
    models = [Fixed(labels * 0.8), Fixed(wrong)]
    assert figures.choose_scene(models, scenes, num_digits=2) == 1


def test_scene_of_the_readme_is_that_of_partners_with_the_map_most_on_the_wrong_digit():
    labels = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]])
    masks = np.zeros((5, 1, 4, 4), bool)
    masks[:, 0, range(4), range(4)] = True  # Each digit at a place of its own.
    maps = np.zeros((5, 1, 4, 4))
    maps[:, 0] = np.eye(4)
    maps[0, 0, :, 0] = [0.7, 0.3, 0, 0]  # 30 % of the map of 0 is on 1.
    maps[1, 0, :, 3] = [0, 0, 0.4, 0.6]
    maps[2, 0, :, 1] = [0, 0, 1, 0]  # No partners.
    maps[3, 0, :, 1] = [1, 0, 0, 0]  # There is a third digit.
    maps[4, 0, :, 1] = [1, 0, 0, 0]  # Not detected.
    scores = labels * np.array([0.9, 0.9, 0.9, 0.9, 0.4])[:, None]
    scenes = demo.Scenes(None, labels, masks)
    assert figures.choose_partners(scores, maps, scenes) == 1


def test_resizable_models_predict_the_same(source):
    clone = figures.resizable(source.model)
    assert clone.input_shape == (None, None, None, 1)
    np.testing.assert_allclose(
        clone.predict(source.image, verbose=0), source.model.predict(source.image, verbose=0)
    )


def test_pictures_are_saved_small_and_alike(tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 9, (40, 60, 3), dtype="uint8") * 28)
    for colors in (None, 256):
        path = tmp_path / "folder" / "picture.png"
        figures.save(image, path, colors)
        saved = np.asarray(Image.open(path).convert("RGB"), int)
        assert np.abs(saved - np.asarray(image, int)).mean() < (16 if colors else 1e-9)


def test_table_tells_where_maps_lie():
    study = demo.Study(None, {"Grad-CAM": (0.32, 0.002), "Uniform": (0.05, 0.1)}, num_maps=767)
    lines = figures.shares_table(study).splitlines()
    assert lines[2:] == [
        "| Grad-CAM | 32.0% | 0.2% | 67.8% | 160 |",
        "| Uniform | 5.0% | 10.0% | 85.0% | 0.5 |",
        "",
        "Means over 767 maps.",
    ]


def test_documentation_has_a_place_for_the_table():
    page = (figures.DOCS / "multilabel.md").read_text("utf-8")
    begin, end = figures.marked.markers("figures")
    table = page.split(begin)[1].split(end)[0]
    assert all(f"| {name} |" in table for name in [*demo.METHODS.values(), "Uniform"])
