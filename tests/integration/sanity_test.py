"""The sanity check that `docs/sanity.md` documents: its tables, its arithmetic, its findings."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib import pyplot as plt

import keras_explainable as ke
from keras_explainable import demo
from tests.conftest import script

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sanity.md").read_text("utf-8")


sanity = script("sanity")


def _table(title, text=PAGE):
    """Return the head of the table below a title, and its cells, a list for each row."""
    below = text.split(f"\n### {title}\n", 1)[1]
    head, _, *rows = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)[0].splitlines()
    split = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in (head, *rows)]
    return split[0], split[1:]


def _number(cell):
    return float(cell.replace("\N{MINUS SIGN}", "-"))


@pytest.mark.parametrize("title", ["Values", "Magnitudes"])
def test_rows_of_the_page_are_methods(title):
    head, rows = _table(title)
    assert head == ["Family", "Method", *sanity.STEPS, *sanity.BASELINES]
    families = {name: family for family, name, *_ in rows}
    assert len(families) == len(rows)
    # A method that is new gets its row by `make sanity`.
    assert set(families) <= {*sanity.methods(), sanity.EDGES}
    for name in set(families) & set(ke.methods.names()):
        assert families[name] == ke.methods.registration(name).family


@pytest.mark.parametrize("title", ["Values", "Magnitudes"])
def test_numbers_of_the_page_are_correlations(title):
    numbers = {name: [_number(cell) for cell in cells] for _, name, *cells in _table(title)[1]}
    assert {len(row) for row in numbers.values()} == {8}
    assert all(-1 <= number <= 1 for row in numbers.values() for number in row)
    assert numbers[sanity.EDGES][:-1] == [1.0] * 7
    # What the head is has no part in the principal component of its inputs.
    assert numbers["eigencam"][0] == 1.0


def test_page_shows_the_plot_and_says_how_to_run_the_script():
    assert re.search(r"!\[[^]]+\]\(images/sanity\.png\)", PAGE)
    assert sanity.PLOT == ROOT / "docs" / "images" / "sanity.png"
    assert sanity.PLOT.exists()
    assert "make sanity" in PAGE
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(r"^sanity: .*\n\t.* benchmarks/sanity\.py", makefile, re.MULTILINE)


def test_methods_that_the_page_names_exist():
    below = PAGE.split(sanity.marked.END)[1]
    named = set(re.findall(r"`([a-z_]+)`", below))
    assert named
    assert named <= {*ke.methods.names(), *ke.methods.meta_names(), "detections"}


def _correlate(one, other):
    one, other = (sanity.centred_ranks(np.array([values])) for values in (one, other))
    return sanity.correlations(one, other)[0]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4], [10, 30, 20, 40], 0.8),  # 1 - 6 · 2 / (4 · 15)
        ([1, 2, 3, 4], [1, 8, 27, 64], 1.0),
        ([1, 2, 3, 4], [-1, -8, -27, -64], -1.0),
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / np.sqrt(4.5 * 5)),  # Ranks -1.5, 0, 0, 1.5.
        ([0, 0, 0, 1], [1, 0, 0, 0], -1 / 3),  # Ranks -0.5, -0.5, -0.5, 1.5, and their reverse.
        ([5, 5, 5, 5], [1, 2, 3, 4], 0.0),
        ([5, 5, 5, 5], [5, 5, 5, 5], 0.0),
    ],
)
def test_rank_correlation_is_that_computed_by_hand(one, other, expected):
    assert _correlate(one, other) == pytest.approx(expected, abs=1e-12)
    assert _correlate(other, one) == pytest.approx(expected, abs=1e-12)


def test_maps_are_correlated_one_by_one_over_all_positions():
    maps = np.arange(8.0).reshape(2, 2, 2)
    others = np.stack([maps[0] ** 2, -maps[1]])
    found = sanity.correlations(sanity.centred_ranks(maps), sanity.centred_ranks(others))
    np.testing.assert_allclose(found, [1, -1])


def test_correlation_of_a_map_with_itself_is_exactly_one():
    ranks = sanity.centred_ranks(np.random.default_rng(0).normal(size=(20, 63)).round(1))
    assert (sanity.correlations(ranks, ranks) == 1).all()


def test_maps_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        sanity.centred_ranks(np.array([[1.0, np.nan]]))


def _classifier():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, use_bias=False, name="first"),
            layers.BatchNormalization(name="first_norm"),
            layers.ReLU(),
            layers.Conv2D(4, 3, name="second"),
            layers.BatchNormalization(name="second_norm"),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="head"),
        ]
    )
    for layer in model.layers:
        layer.set_weights([np.full_like(weight, 7) for weight in layer.get_weights()])
    return model


def test_cascade_goes_from_the_output_to_the_input():
    model, done = _classifier(), set()
    expected = [["head"], ["second_norm", "second"], ["first_norm", "first"]]
    for block, names in zip(sanity.cascade(model), expected, strict=True):
        assert [layer.name for layer in block] == names
        done |= set(names)
        for layer in model.layers:
            for weight in layer.get_weights():
                assert (weight != 7).all() if layer.name in done else (weight == 7).all()


def test_cascade_leaves_the_weights_of_new_layers():
    model = _classifier()
    assert len(list(sanity.cascade(model))) == 3
    gamma, beta, mean, variance = model.get_layer("first_norm").get_weights()
    assert (gamma == 1).all()
    assert (variance == 1).all()
    assert not np.any([beta, mean])
    kernel, bias = model.get_layer("second").get_weights()
    assert not bias.any()
    assert len(np.unique(kernel)) == kernel.size
    assert np.abs(kernel).max() <= np.sqrt(6 / (9 * (3 + 4)))  # Of Glorot.


def test_cascade_depends_on_its_seed_alone():
    kernels = []
    for seed in (0, 0, 1):
        model = _classifier()
        for block in sanity.cascade(model, seed):
            keras.utils.set_random_seed(len(kernels) + len(block))
        kernels.append(model.get_layer("first").get_weights()[0])
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels[0] - kernels[2]).max() > 0.01


@pytest.fixture(scope="module")
def untrained():
    """Return an untrained classifier that detects some digits, and scenes."""
    keras.utils.set_random_seed(3)
    model = demo.build_model(filters=(4, 6))
    scenes = demo.draw_scenes(demo.load_digits()[1], 3, seed=3).images
    kernel, bias = model.get_layer("digits").get_weights()
    bias[:] = np.where(np.arange(10) < 3, 50, -50)
    model.get_layer("digits").set_weights([kernel, bias])
    return model, scenes


def _measure_by_hand(method, model, scenes, seed, **options):
    """Return the mean rank correlation after each step, of the three digits of each scene."""
    x, units = np.repeat(scenes, 3, axis=0), np.tile(np.arange(3), 3)
    arguments = {"postprocessing": None, "resizing": False, "run_eagerly": True} | options
    maps = [ke.explain(method, model, x, units, **arguments)[1]]
    trained = model.get_weights()
    for _ in sanity.cascade(model, seed):
        maps.append(ke.explain(method, model, x, units, **arguments)[1])
    model.set_weights(trained)
    ranks = [sanity.centred_ranks(m) for m in maps]
    return [sanity.correlations(ranks[0], other).mean() for other in ranks[1:]]


def test_measured_are_raw_maps_of_the_digits_detected_at_first(untrained):
    model, scenes = untrained
    before = model.get_weights()
    sources = {"gradcam": "gradcam", "minmaxcam": "minmaxcam"}
    results = sanity.measure(model, scenes, sources, seeds=(0, 4))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    detections = np.tile(np.arange(10) < 3, (9, 1))
    for name, options in {"gradcam": {}, "minmaxcam": {"detections": detections}}.items():
        result = results[name]
        assert result.steps["signed"].shape == (2, 3)
        expected = [_measure_by_hand(name, model, scenes, seed, **options) for seed in (0, 4)]
        np.testing.assert_allclose(result.steps["signed"], expected, atol=1e-3)
        assert (result.num_constant, result.num_maps) == (0, 9 * 7)
    free = [_measure_by_hand("minmaxcam", model, scenes, seed) for seed in (0, 4)]
    assert np.abs(results["minmaxcam"].steps["signed"] - free).max() > 0.01


def test_baselines_compare_digits_of_a_scene_and_scenes(untrained):
    model, scenes = untrained
    results = sanity.measure(model, scenes, {"eigencam": "eigencam"}, seeds=(0,))
    for result in results.values():  # Neither depends on the unit, edges not on the weights.
        for kind in sanity.KINDS:
            assert result.baselines[kind][0] == pytest.approx(1)
            assert result.baselines[kind][1] < 0.9
    assert (results[sanity.EDGES].steps["signed"] == 1).all()
    np.testing.assert_allclose(results["eigencam"].steps["signed"][0, 0], 1)
    assert results["eigencam"].steps["signed"][0, 2] < 0.99


def test_constant_maps_count_as_zero_and_are_counted(untrained):
    model, scenes = untrained

    def flat(model, inputs, indices=None):
        logits, maps = ke.methods.gradcam(model, inputs, indices)
        return logits, 0 * maps + 1

    result = sanity.measure(model, scenes, {"flat": flat}, seeds=(0,))["flat"]
    assert not result.steps["signed"].any()
    assert result.num_constant == result.num_maps == 9 * 4


def test_one_digit_per_scene_leaves_nothing_to_compare(untrained):
    model, scenes = untrained
    with pytest.raises(ValueError, match="Nothing to compare"):
        sanity.measure(model, scenes[:1], {})


@pytest.fixture
def results():
    """Return made-up results of three methods and the edges, by name."""
    values = {"gradcam": ("cam", 0.2), "layercam": ("cam", 0.7), "gradients": ("gradient", -0.004)}
    values[sanity.EDGES] = ("baseline", 1.0)
    return {
        name: sanity.Result(
            family,
            {kind: np.full((2, 6), value) for kind in sanity.KINDS},
            {"signed": (0.5, -0.25), "magnitude": (0.5, 0.25)},
            3 if name == "gradcam" else 0,
            130,
        )
        for name, (family, value) in values.items()
    }


def test_tables_are_grouped_by_family_and_sorted(results):
    text = "\n" + sanity.tables(results)
    head, rows = _table("Values", text)
    assert len(head) == 10
    assert [row[1] for row in rows] == ["layercam", "gradcam", "gradients", sanity.EDGES]
    assert rows[0] == ["cam", "layercam", *["0.70"] * 6, "0.50", "\N{MINUS SIGN}0.25"]
    assert rows[2][2] == "0.00"
    assert _table("Magnitudes", text)[1][0][-1] == "0.25"


def test_legend_counts_digits_and_constant_maps(results):
    text = " ".join(sanity.legend(results, num_scenes=7, exact=0.5).split())
    assert "10 digits detected in 7 scenes and 2 draws" in text
    assert "all labels of 50%" in text
    assert "3 of 130 of `gradcam`. Measured" in text


def test_plot_has_every_number_of_the_tables(results):
    figure = sanity.draw(results)
    figure.canvas.draw()
    drawn = [text.get_text() for axes in figure.axes[:2] for text in axes.texts]
    for number, count in {"0.70": 12, "0.20": 12, "1.00": 12, "0.50": 8, "0.25": 4}.items():
        assert drawn.count(number) == count
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == sanity.rows(results)
    plt.close(figure)


def test_plot_is_drawn_from_the_tables_of_the_page():
    found = sanity.read(PAGE)
    assert list(found) == [row[1] for row in _table("Values")[1]]
    for title, kind in (("Values", "signed"), ("Magnitudes", "magnitude")):
        for row in _table(title)[1]:
            numbers = [_number(cell) for cell in row[2:]]
            np.testing.assert_array_equal(sanity.cells(found[row[1]], kind), numbers)


@pytest.mark.slow
def test_findings_hold_for_a_model_trained_for_less_long(classifier):
    model, scenes = classifier, demo.draw_scenes(demo.load_digits()[1], 16, seed=5)
    assert demo.evaluate(model, scenes)[0] > 0.9
    names = ("gradcam", "minmaxcam", "layercam", "eigencam", "input_x_gradient")
    results = sanity.measure(model, scenes.images, {name: name for name in names}, seeds=(0, 1))
    signed, magnitude = (
        {name: result.steps[kind].mean(axis=0) for name, result in results.items()}
        for kind in ("signed", "magnitude")
    )
    assert (signed[sanity.EDGES] == 1).all()
    assert abs(signed["gradcam"][-1]) < 0.25
    assert abs(signed["minmaxcam"][-1]) < 0.25
    assert signed["layercam"][-1] > 0.5
    assert signed["eigencam"][0] > 0.999
    assert signed["eigencam"][1] < 0.8
    assert abs(signed["input_x_gradient"][-1]) < 0.1
    assert magnitude["input_x_gradient"][-1] > 0.35
