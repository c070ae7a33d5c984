"""The study of `docs/kernel_usage.md`: its pairing, its arithmetic, its tables, its findings."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy import stats

import keras_explainable as ke
from keras_explainable import demo
from tests.conftest import script

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "kernel_usage.md").read_text("utf-8")
RESULTS = json.loads((DOCS / "kernel_usage.json").read_text("utf-8"))

kur = script("kernel_usage")
TINY = kur.Scale(seeds=2, num_train=16, num_test=24, epochs=1, voc_epochs=2)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def voc(monkeypatch):
    """Return the study of frozen features, of random ones and two units."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype("float32")
    y = (x[:, :2] + 0.5 * rng.normal(size=(40, 2)) > 0).astype("float32")
    monkeypatch.setattr(kur, "load_features", lambda: (x[:20], y[:20], x[20:], y[20:]))
    monkeypatch.setattr(kur.Voc, "units", 2)
    monkeypatch.setattr(kur.Voc, "kernels", 6)
    return kur.Voc(TINY)


@pytest.fixture(scope="module")
def digits():
    return kur.Digits(TINY)


def test_heads_of_a_seed_start_alike_and_see_the_same(digits, monkeypatch):
    def given(model, x, y, seed, epochs, rate):
        del epochs, rate
        return model.get_weights(), x, y, seed

    monkeypatch.setattr(kur, "fit", given)
    plain, *others = (digits.train(1, *head) for head in ((kur.PLAIN,), (kur.LAYER,), ("L2", 0.1)))
    for other in others:
        for one, same in zip(plain[0], other[0], strict=True):
            np.testing.assert_array_equal(one, same)
        np.testing.assert_array_equal(plain[1], other[1])
        assert plain[3] == other[3] == 1
    another = digits.train(2, kur.PLAIN)
    assert np.abs(another[0][0] - plain[0][0]).max() > 0.01
    assert np.abs(another[1] - plain[1]).max() > 0.1


def test_training_and_validation_are_biased_and_testing_is_not():
    digits = kur.Digits(TINY._replace(num_train=400, num_test=400))
    shares = []
    for scenes in (digits.scenes(1), digits.biased, digits.test):
        pairs = np.stack([scenes.labels[:, list(p)].sum(axis=1) for p in demo.PAIRS], axis=1)
        shares.append((pairs == 2).sum() / (pairs > 0).sum())
    assert shares == pytest.approx([0.8, 0.8, 0.125], abs=0.06)


def test_the_order_of_data_is_that_of_the_seed():
    x, y = np.random.default_rng(0).normal(size=(64, 3)), np.eye(2)[np.arange(64) % 2]
    kernels = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "sigmoid")])
        kernels.append(kur.fit(model, x, y, seed, 2, 0.01, batch_size=4).get_weights()[0])
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-6


def test_f2_weighs_recall_twice_as_much_as_precision():
    labels = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
    found = np.array([[0.9, 0.8], [0.4, 0.7], [0.3, 0.6], [0.2, 0.1]])
    # Precision and recall are 1 and 1/2 for one class, 2/3 and 1 for the other one.
    expected = {"map": (1 + 5 / 6) / 2, "f2": (5 / 9 + 10 / 11) / 2}
    assert kur.scores(labels, found) == pytest.approx(expected)


def test_four_fifths_are_trained_on_and_the_last_one_is_measured(voc, monkeypatch):
    seen = {}

    def train(seed, *head, part):
        seen.update(seed=seed, head=head, part=part)

    def predict(model, x):
        del model
        seen["left"] = x
        return x[:, :2]

    monkeypatch.setattr(voc, "train", train)
    monkeypatch.setattr(kur, "predict", predict)
    voc.validate(3, "L2", 0.1)
    assert (seen["seed"], seen["head"]) == (3, ("L2", 0.1))
    assert (len(seen["part"]), len(seen["left"])) == (16, 4)
    rows = np.concatenate([voc.x[seen["part"]], seen["left"]])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(voc.x, axis=0))


def test_alarms_are_counted_by_whether_the_partner_is_there():
    rng = np.random.default_rng(0)
    labels, found = (rng.uniform(size=(30, 10)) > 0.6).astype(float), rng.uniform(size=(30, 10))
    counted = {"partner": [], "others": []}
    for row, scores in zip(labels, found, strict=True):
        for one, other in demo.PAIRS:
            for digit, partner in ((one, other), (other, one)):
                if not row[digit]:
                    kind = "partner" if row[partner] else "others"
                    counted[kind].append(scores[digit] > 0.5)
    expected = {kind: np.mean(values) for kind, values in counted.items()}
    assert kur.alarms(labels, found) == pytest.approx(expected)


def test_what_is_measured_of_digits_is_what_the_tables_show(digits):
    model = digits.train(1, kur.LAYER)
    measured = digits.measure(model)
    assert list(measured) == [*kur.TABLES["Digits"], *kur.OF_MAPS]
    head = model.get_layer("head")
    assert measured["correlation"] == ke.diagnostics.mean_absolute_correlation(head)
    maps = ke.explain("cam", model, digits.test.images, verbose=0)[1]
    maps -= maps.min((1, 2), keepdims=True)
    inside = (maps * digits.test.masks).sum((1, 2))[digits.test.labels > 0]
    energy = maps.sum((1, 2))[digits.test.labels > 0]
    expected = np.mean(np.divide(inside, energy, out=np.zeros_like(inside), where=energy > 0))
    assert measured["cam energy_pointing_game"] == pytest.approx(expected, rel=1e-3)
    assert kur.draw_maps({kur.PLAIN: model, kur.LAYER: model}, digits.test).axes


@pytest.mark.slow
def test_the_study_fills_all_tables(voc, monkeypatch):
    tried = {"KUR penalty": (0.1,), "L2": (0.1,)}
    monkeypatch.setitem(kur.STRENGTHS, "VOC", tried)
    for name in ("1", "√C", "2C"):
        monkeypatch.delitem(kur.ALPHAS, name)
    found, drawn = kur.run(voc, (0,))
    assert list(found["heads"]) == [kur.PLAIN, kur.LAYER, *tried]
    for values in found["heads"].values():
        assert list(values) == list(kur.TABLES["VOC"])
        assert {len(numbers) for numbers in values.values()} == {2}
    assert list(drawn) == list(kur.DRAWN)
    layer = drawn[kur.LAYER].get_layer("head")
    assert found["usage"][kur.LAYER][0] == ke.diagnostics.kernel_usage(layer).tolist()
    plain, l2 = found["heads"][kur.PLAIN], found["heads"]["L2"]
    assert plain["penalized"] == plain["loss"]
    assert np.all(np.subtract(l2["penalized"], l2["loss"]) > 0)
    assert found["alphas"]["C"]["map"] == found["heads"][kur.LAYER]["map"]
    text = kur.render({"studies": {"VOC": found}})
    assert text.count("\n| KUR layer |") == 2  # Its row, and the published one.
    assert len(re.findall(r"^### ", text, re.MULTILINE)) == 5


def test_penalties_are_those_of_their_heads(voc):
    for name, penalty in kur.PENALTIES.items():
        head = kur.make_head(name, voc.units, 0.5)
        assert head.kernel_regularizer.get_config() == penalty(0.5).get_config()
    assert kur.make_head(kur.PLAIN, 2).kernel_regularizer is None


def test_a_paired_difference_is_the_difference_of_means_with_its_t_interval():
    one, other = np.random.default_rng(0).normal(size=(2, 5))
    mean, half, above = kur.difference(one, other)
    assert mean == pytest.approx(one.mean() - other.mean())
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx(tuple(interval))
    assert above == sum(a > b for a, b in zip(one, other, strict=True))


def test_the_greatest_of_the_good_strengths_is_chosen():
    assert kur.chosen({"0.01": 0.8, "0.1": 0.796, "1": 0.79}) == 0.1
    assert kur.chosen({"0.01": 0.7, "0.1": 0.8, "1": 0.6}) == 0.1


def test_the_page_has_the_numbers_of_the_last_run():
    assert kur.marked.fill(PAGE, "kernel_usage", kur.render(RESULTS)) == PAGE
    assert RESULTS["scale"] == kur.Scale()._asdict()
    assert list(RESULTS["studies"]) == ["Digits", "VOC"]
    for title, found in RESULTS["studies"].items():
        for head, values in found["heads"].items():
            assert {len(numbers) for numbers in values.values()} == {kur.SEEDS}, head
        assert {h: list(map(float, v)) for h, v in found["tried"].items()} == {
            head: list(strengths) for head, strengths in kur.STRENGTHS[title].items()
        }


def test_the_page_tells_how_many_seeds_a_factor_has():
    for title, found in RESULTS["studies"].items():
        numbers = {len(values) for row in found["alphas"].values() for values in row.values()}
        assert numbers == {kur.ALPHA_SEEDS[title]}
        heading = f"### {title}: the factor of the KUR layer (seeds: {kur.ALPHA_SEEDS[title]})\n"
        assert heading in PAGE


def test_the_page_shows_all_figures_and_says_how_to_run_the_script():
    shown = set(re.findall(r"\]\(images/([^)]+)\)", PAGE))
    assert shown == {path.name for path in (DOCS / "images").glob("kernel_usage_*.png")}
    assert len(shown) == 5
    assert "make kur" in PAGE


def change(title, head, key):
    """Return a paired difference to plain heads: its mean, and the ends of its interval."""
    heads = RESULTS["studies"][title]["heads"]
    mean, half, _ = kur.difference(heads[head][key], heads[kur.PLAIN][key])
    return mean, mean - half, mean + half


def mean(title, head, key, kind="heads"):
    return np.mean(RESULTS["studies"][title][kind][head][key])


@pytest.mark.parametrize("title", ["Digits", "VOC"])
def test_the_layer_is_sparser_and_its_classes_are_as_alike(title):
    for head in (kur.LAYER, "KUR penalty"):
        assert change(title, head, "usage")[2] < 0
        assert change(title, head, "positive")[2] < 0
    assert mean(title, "KUR penalty", "usage") < mean(title, kur.LAYER, "usage")
    _, low, high = change(title, kur.LAYER, "correlation")
    assert low <= 0 <= high
    other = {"Digits": ("orthogonal", 0.36), "VOC": ("cosines", 0.55)}[title]
    plain = mean(title, kur.PLAIN, "correlation")
    assert mean(title, other[0], "correlation") < other[1] * plain


def test_the_layer_predicts_better_on_digits_and_does_not_undo_the_bias():
    for key in ("map", "f2"):
        assert change("Digits", kur.LAYER, key)[1] > 0
    _, low, high = change("VOC", kur.LAYER, "map")
    assert low <= 0 <= high
    _, low, high = change("Digits", kur.LAYER, "partner")
    assert low <= 0 <= high
    for head in (kur.PLAIN, kur.LAYER):
        assert mean("Digits", head, "partner") == pytest.approx(0.4, abs=0.02)
        assert mean("Digits", head, "others") < 0.005
        matrix = np.array(RESULTS["studies"]["Digits"]["correlations"][head])
        assert np.mean([matrix[pair] for pair in demo.PAIRS]) == pytest.approx(0.8, abs=0.05)
    for head in ("orthogonal", "L2"):
        assert mean("Digits", head, "partner") == pytest.approx(0.25, abs=0.02)
        assert change("Digits", head, "f2")[2] < -0.08


def test_partners_make_up_nearly_half_of_the_correlations_of_digits():
    matrices = RESULTS["studies"]["Digits"]["correlations"]
    measured = {}
    for head, matrix in matrices.items():
        matrix = np.array(matrix)
        partners = np.array([matrix[pair] for pair in demo.PAIRS])
        total, pairs = np.abs(np.triu(matrix, 1)).sum(), np.abs(partners).sum()
        measured[head] = partners.min(), partners.max(), pairs / total, (total - pairs) / 40
    for head in (kur.PLAIN, kur.LAYER):
        assert measured[head] == pytest.approx((0.77, 0.84, 0.475, 0.11), abs=0.025)
    assert measured["KUR penalty"] == pytest.approx((0.29, 0.654, 0.38, 0.11), abs=0.005)
    by_seed = RESULTS["studies"]["Digits"]["heads"]["KUR penalty"]["correlation"]
    assert min(by_seed) == by_seed[0]


def test_maps_of_the_layer_keep_less_and_take_more_from_others():
    for method in kur.MAPS:
        assert change("Digits", kur.LAYER, f"{method} average_drop")[1] > 0
        assert change("Digits", kur.LAYER, f"{method} average_drop_of_others")[1] > 0
        assert change("Digits", kur.LAYER, f"{method} energy_pointing_game")[1] > 0
        _, low, high = change("Digits", kur.LAYER, f"{method} average_retention_of_others")
        assert low <= 0 <= high
        assert change("Digits", "KUR penalty", f"{method} average_drop_of_others")[2] < 0
    for head in RESULTS["studies"]["Digits"]["heads"]:
        others, energy = (
            [mean("Digits", head, f"{method} {metric}") for method in kur.MAPS]
            for metric in ("average_drop_of_others", "energy_pointing_game")
        )
        assert (others[1] > others[0]) == (head != "L2")
        assert energy[1] < energy[0]


@pytest.mark.parametrize(("title", "cost"), [("Digits", 0.05), ("VOC", 0.03)])
def test_the_published_factor_costs_precision_and_is_the_sparsest(title, cost):
    by_factor = RESULTS["studies"][title]["alphas"]
    usage, found = (
        {name: np.mean(values[key]) for name, values in by_factor.items()}
        for key in ("usage", "map")
    )
    assert sorted(("1", "√C", "C", "2C"), key=usage.get) == ["1", "√C", "C", "2C"]
    assert found["1"] < mean(title, kur.PLAIN, "map") - cost
    assert found["1"] < min(found["√C"], found["C"], found["2C"]) - cost
    assert (found["2C"] > found["C"] + 0.02) == (title == "Digits")
    f2 = {name: np.mean(values["f2"]) for name, values in by_factor.items()}
    assert found["C, absolute"] < found["C"]
    assert f2["C, absolute"] < f2["C"]
    alike = {name: np.mean(values["correlation"]) for name, values in by_factor.items()}
    assert sorted(("1", "√C", "C", "2C"), key=alike.get) == ["2C", "C", "√C", "1"]
    ratios = {name: np.mean(values["ratio"]) for name, values in by_factor.items()}
    assert ratios["C"] == pytest.approx(1, abs=0.05)
