import sys

import keras
import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn import datasets

from keras_explainable import demo

matplotlib.use("agg")

# Classes of scenes with the seed (4, 2), and the sum of their pixels.
UNBIASED, INKED = [[0, 4, 8, 9], [6, 8], [2, 5, 7]], 1484.439


@pytest.fixture(scope="module")
def digits():
    return demo.load_digits()


@pytest.fixture(scope="module")
def scenes(digits):
    return demo.draw_scenes(digits[1], 64, seed=3)


@pytest.fixture(scope="module")
def studied(scenes):
    keras.utils.set_random_seed(0)
    study = demo.study(always(), scenes, num_pictured=2, verbose=0)
    yield study
    plt.close("all")


def always():
    """Build an untrained classifier that detects every digit everywhere."""
    model = demo.build_model(filters=(4, 4))
    kernel, bias = model.get_layer("digits").get_weights()
    model.get_layer("digits").set_weights([kernel, bias + 50])
    return model


def test_held_out_digits_are_not_trained_with(digits):
    train, held_out = digits
    assert not set(train.indices) & set(held_out.indices)
    assert sorted([*train.indices, *held_out.indices]) == list(range(1797))
    assert len(held_out.indices) == 359


def test_digits_keep_their_labels(digits):
    scans = datasets.load_digits()
    for part in digits:
        np.testing.assert_array_equal(part.labels, scans.target[part.indices])
        for size, images in part.images.items():
            assert images.shape == (len(part.labels), size, size)
            # An enlarged scan has the mean of the scan, but for its borders and clipped overshoot.
            means = scans.images[part.indices].mean((1, 2)) / 16
            np.testing.assert_allclose(images.mean((1, 2)), means, atol=0.03)


def test_held_out_share_and_seed_change_the_split(digits):
    held_out = demo.load_digits(held_out=0.5, seed=1)[1]
    assert len(held_out.labels) == 898
    assert set(held_out.indices[:359]) != set(digits[1].indices)


def test_missing_scikit_learn_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "keras-explainable\[demo\]"'):
        demo.load_digits()


def test_scenes_hold_one_to_four_digits_of_distinct_classes(scenes):
    assert set(scenes.labels.sum(axis=1)) == {1, 2, 3, 4}
    assert set(np.unique(scenes.labels)) == {0, 1}
    assert scenes.labels.any(axis=0).all()
    assert scenes.images.dtype == "float32"
    assert scenes.images.min() >= 0
    assert scenes.images.max() <= 1


def test_masks_are_the_inked_pixels_of_present_classes(scenes):
    np.testing.assert_array_equal(scenes.masks.any((1, 2)), scenes.labels > 0)
    assert scenes.masks.sum(axis=-1).max() == 1
    inked = scenes.masks.any(axis=-1)
    for image, mask in zip(scenes.images[..., 0], inked, strict=True):
        assert image[mask].mean() > image[~mask].mean() + 0.2


def test_a_mask_is_the_digit_that_was_drawn(digits):
    for seed in range(5):
        scenes = demo.draw_scenes(digits[1], 1, seed=seed)
        for label in np.flatnonzero(scenes.labels[0]):
            mask = scenes.masks[0, ..., label]
            rows, columns = np.nonzero(mask)
            crop = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            drawn = [
                _crop(image > demo.INKED)
                for images in digits[1].images.values()
                for image in images[digits[1].labels == label]
            ]
            assert any(np.array_equal(crop, candidate) for candidate in drawn)


def _crop(mask):
    rows, columns = np.nonzero(mask)
    return mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def test_seeds_make_scenes(digits):
    one, same, other = (demo.draw_scenes(digits[0], 4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.images, same.images)
    np.testing.assert_array_equal(one.masks, same.masks)
    assert np.abs(one.images - other.images).max() > 0.1


def test_scenes_without_a_bias_stay_as_they_were(digits):
    scenes = demo.draw_scenes(digits[1], 3, seed=(4, 2))
    assert [np.flatnonzero(row).tolist() for row in scenes.labels] == UNBIASED
    assert scenes.images.sum(dtype="float64") == pytest.approx(INKED, abs=0.01)
    again = demo.draw_scenes(digits[1], 3, (4, 2), co_occurrence=None)
    np.testing.assert_array_equal(again.images, scenes.images)


@pytest.mark.parametrize("co_occurrence", [0.0, 0.3, 0.8, 1.0])
def test_pairs_occur_together_as_often_as_said(digits, co_occurrence):
    labels = demo.draw_scenes(digits[1], 1500, 0, co_occurrence).labels > 0
    pairs = np.stack([labels[:, list(pair)].sum(axis=1) for pair in demo.PAIRS], axis=1)
    for counts in pairs.T:
        share = (counts == 2).sum() / (counts > 0).sum()
        assert share == pytest.approx(co_occurrence, abs=0.08)
    assert (pairs == 2).sum() / (pairs > 0).sum() == pytest.approx(co_occurrence, abs=0.03)
    # One or two pairs, equally often, and both digits of a pair alone equally often.
    num_pairs = (pairs > 0).sum(axis=1)
    assert set(num_pairs) == {1, 2}
    assert np.mean(num_pairs == 1) == pytest.approx(0.5, abs=0.04)
    expected = 1.5 / 5 * (1 + co_occurrence) / 2
    np.testing.assert_allclose(labels.mean(axis=0), expected, atol=0.04)


def test_digits_of_different_pairs_do_not_depend_on_each_other_in_biased_scenes(digits):
    labels = demo.draw_scenes(digits[1], 1500, 0, 0.8).labels > 0
    two = labels[[(row.reshape(5, 2).any(axis=1)).sum() == 2 for row in labels]]
    first = two.reshape(-1, 5, 2).any(axis=2)
    together = first.T.astype(int) @ first / len(first)
    np.testing.assert_allclose(together[~np.eye(5, dtype=bool)], 0.1, atol=0.04)


def test_one_in_eight_scenes_with_a_digit_of_a_pair_has_both_without_a_bias(digits):
    labels = demo.draw_scenes(digits[1], 1500, 0).labels > 0
    pairs = np.stack([labels[:, list(pair)].sum(axis=1) for pair in demo.PAIRS], axis=1)
    assert (pairs == 2).sum() / (pairs > 0).sum() == pytest.approx(1 / 8, abs=0.03)


def test_biased_scenes_are_drawn_by_their_seed(digits):
    one, same, other = (demo.draw_scenes(digits[0], 4, s, 0.8) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.images, same.images)
    assert np.abs(one.images - other.images).max() > 0.1


@pytest.mark.parametrize("co_occurrence", [-0.1, 1.5, "0.8", float("nan")])
def test_a_bias_that_is_no_share_is_refused(digits, co_occurrence):
    with pytest.raises(ValueError, match="`co_occurrence`"):
        demo.draw_scenes(digits[0], 1, co_occurrence=co_occurrence)


def test_model_has_activations_of_decent_resolution():
    model = demo.build_model()
    assert model.get_layer("average").input.shape == (None, 16, 16, 64)
    assert model.output_shape == (None, 10)
    assert model.layers[-1].activation is keras.activations.sigmoid


def test_training_lowers_the_loss_and_is_repeatable(digits):
    models = [demo.train(digits[0], epochs=2, steps=4, batch_size=8, verbose=0) for _ in range(2)]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    first, last = models[0].history.history["loss"]
    assert last < first


def test_evaluation_counts_right_labels_and_scenes():
    labels = np.zeros((2, 10), "float32")
    labels[0, :5] = 1

    class Constant:
        def predict(self, images, verbose):
            del images, verbose
            return np.where(np.arange(10) < 5, 0.9, 0.1)[None].repeat(2, axis=0)

    scenes = demo.Scenes(np.zeros((2, 64, 64, 1)), labels, None)
    assert demo.evaluate(Constant(), scenes) == (0.75, 0.5)


def test_energy_shares_are_those_computed_by_hand():
    maps = np.zeros((1, 2, 2, 3))
    maps[0, ..., 0] = [[6, 3], [1, 0]]
    maps[0, ..., 1] = [[0, 0], [0, 2]]
    masks = np.zeros((1, 2, 2, 3), bool)
    masks[0, 0, 0, 0] = masks[0, 0, 1, 1] = True
    one = demo.energy_shares(maps, masks, np.array([[True, False, False]]))
    np.testing.assert_allclose(one, (0.6, 0.3))
    both = demo.energy_shares(maps, masks, np.array([[True, True, False]]))
    np.testing.assert_allclose(both, (0.3, 0.15))


def test_map_of_zeros_has_no_energy_anywhere():
    masks = np.ones((1, 2, 2, 1), bool)
    assert demo.energy_shares(np.zeros((1, 2, 2, 1)), masks, np.array([[True]])) == (0, 0)


def test_study_compares_methods_with_a_uniform_map(studied, scenes):
    assert list(studied.shares) == ["Grad-CAM", "MinMax-CAM", "D-MinMax-CAM", "Uniform"]
    assert studied.num_maps == scenes.labels.sum()
    areas = scenes.masks.mean((1, 2))[scenes.labels > 0]
    assert studied.shares["Uniform"][0] == pytest.approx(areas.mean())
    for own, others in studied.shares.values():
        assert own >= 0
        assert others >= 0
        assert own + others <= 1


def test_picture_shows_every_detected_digit_by_every_method(studied, scenes):
    titles = [ax.get_title() for ax in studied.figure.axes]
    for scene in range(2):
        assert f"Scene {scene + 1}" in titles
    absent = [title for title in titles if "absent" in title]
    assert len(absent) == 3 * (20 - scenes.labels[:2].sum())
    present = np.flatnonzero(scenes.labels[0])
    for digit in present:
        assert f"digit {digit} (1.00)" in titles
    # All ten digits are detected in both scenes: the second is below the first.
    assert [text.get_text() for text in studied.figure.texts] == 2 * list(demo.METHODS.values())


def test_classifier_that_detects_nothing_is_refused(scenes):
    model = demo.build_model(filters=(4, 4))
    kernel, bias = model.get_layer("digits").get_weights()
    model.get_layer("digits").set_weights([kernel, bias - 50])
    with pytest.raises(ValueError, match="Received: no digit detected"):
        demo.study(model, scenes, verbose=0)


def test_study_measures_the_maps_of_its_methods(studied, scenes):
    # Digits are all detected, and the maps of this head are linear: CAM by hand.
    keras.utils.set_random_seed(0)
    model = always()
    activations = keras.Model(model.inputs, model.get_layer("average").input)
    kernel = model.get_layer("digits").get_weights()[0]
    maps = np.maximum(activations.predict(scenes.images, verbose=0) @ kernel, 0)
    maps = keras.ops.convert_to_numpy(keras.ops.image.resize(maps, (64, 64)))
    expected = demo.energy_shares(maps, scenes.masks, scenes.labels > 0)
    np.testing.assert_allclose(studied.shares["Grad-CAM"], expected, rtol=1e-3)


@pytest.mark.slow
def test_trained_classifier_is_right_and_its_maps_lie_on_its_digits(digits, classifier):
    scenes = demo.draw_scenes(digits[1], 300, seed=1)
    accuracy, exact = demo.evaluate(classifier, scenes)
    assert accuracy >= 0.97
    assert exact >= 0.8
    study = demo.study(classifier, scenes, verbose=0)
    plt.close(study.figure)
    uniform = study.shares.pop("Uniform")
    for own, others in study.shares.values():
        assert own > 4 * uniform[0]
        assert others < uniform[1] / 4
    assert study.shares["MinMax-CAM"][1] < study.shares["Grad-CAM"][1]
