"""Diagnostics of heads, against NumPy and counting by brute force, and their figures."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from matplotlib import pyplot as plt

import keras_explainable as ke

MEASURES = (
    ke.diagnostics.class_correlations,
    ke.diagnostics.mean_absolute_correlation,
    ke.diagnostics.kernel_usage,
    ke.diagnostics.share_of_positive_weights,
)
every_measure = pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def kernel():
    return np.random.default_rng(0).normal(size=(7, 4))


def classifier(head, policy=None):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(5, 3, activation="relu", dtype=policy)(inputs)
    x = layers.GlobalAveragePooling2D(dtype=policy)(x)
    return keras.Model(inputs, head(x))


def built(layer):
    layer.build((None, 3))
    return layer


def least_number(weights, share):
    """Try all sets of kernels, small ones first."""
    total = weights.sum()
    for count in range(len(weights) + 1):
        sets = itertools.combinations(weights, count)
        if any(sum(chosen) >= share * total - 1e-12 for chosen in sets):
            return count
    raise AssertionError


def test_correlations_are_those_of_numpy(kernel):
    found = ke.diagnostics.class_correlations(kernel)
    expected = np.corrcoef(kernel, rowvar=False)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    pairs = [abs(expected[i, j]) for i in range(4) for j in range(4) if i != j]
    mean = ke.diagnostics.mean_absolute_correlation(kernel)
    assert mean == pytest.approx(np.mean(pairs), abs=1e-12)


def test_correlations_are_of_directions_away_from_the_mean(kernel):
    moved = kernel * [1, 2, 3, -4] + [5, -6, 7, 8]
    signs = np.array([1, 1, 1, -1])
    expected = ke.diagnostics.class_correlations(kernel) * signs * signs[:, None]
    np.testing.assert_allclose(ke.diagnostics.class_correlations(moved), expected, atol=1e-12)


def test_a_constant_column_is_like_itself_only(kernel):
    kernel[:, 2] = 0.1
    found = ke.diagnostics.class_correlations(kernel)
    np.testing.assert_array_equal(found[2], [0, 0, 1, 0])
    np.testing.assert_array_equal(found[:, 2], [0, 0, 1, 0])
    rest = [0, 1, 3]
    expected = np.corrcoef(kernel[:, rest], rowvar=False)
    np.testing.assert_allclose(found[np.ix_(rest, rest)], expected, atol=1e-12)
    mean = ke.diagnostics.mean_absolute_correlation(kernel)
    assert mean == pytest.approx((np.abs(expected).sum() - 3) / 12)


def test_units_that_are_alike_correlate_by_one_at_most():
    column = np.random.default_rng(0).normal(size=(100, 1)) * 1e-3
    found = ke.diagnostics.class_correlations(column * [1, 3, -7])
    np.testing.assert_allclose(found, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], atol=1e-12)
    assert np.abs(found).max() <= 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("absolute", [False, True])
def test_usage_is_the_least_number_of_kernels(kernel, share, absolute):
    counted = np.abs(kernel) if absolute else np.maximum(kernel, 0)
    expected = [least_number(column, share) for column in counted.T]
    found = ke.diagnostics.kernel_usage(kernel, share, absolute)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype.kind == "i"


def test_a_share_that_is_met_exactly_takes_no_further_kernel():
    # Sums of floats are off by their last digit.
    assert ke.diagnostics.kernel_usage(np.full((6, 1), 0.3), share=0.5) == [3]
    assert ke.diagnostics.kernel_usage(np.full((10, 1), 0.1), share=0.9) == [9]
    assert ke.diagnostics.kernel_usage(np.full((10, 1), 0.1), share=1) == [10]
    assert ke.diagnostics.kernel_usage(np.full((10, 1), 0.1), share=0.91) == [10]


def test_units_without_positive_weights_use_no_kernel():
    kernel = np.array([[-1.0, 0.0, 2.0], [-2.0, 0.0, 0.0]])
    np.testing.assert_array_equal(ke.diagnostics.kernel_usage(kernel), [0, 0, 1])
    np.testing.assert_array_equal(ke.diagnostics.kernel_usage(kernel, absolute=True), [2, 0, 1])
    assert ke.diagnostics.share_of_positive_weights(kernel) == 1 / 6


@every_measure
@pytest.mark.parametrize("policy", [None, "mixed_float16"])
def test_models_layers_and_arrays_are_measured_alike(measure, policy):
    head = layers.Dense(4, "sigmoid", dtype=policy)
    model = classifier(head, policy)
    kernel = head.get_weights()[0]
    for source in (model, head, keras.Sequential([keras.Input((6, 6, 3)), model])):
        np.testing.assert_allclose(measure(source), measure(kernel), rtol=1e-6)


@every_measure
def test_the_effective_kernel_is_read(measure):
    head = ke.layers.KernelUsageDense(4, "sigmoid", alpha=2.0, temperature=0.2)
    model = classifier(head)
    kernel = head.get_weights()[0].astype("float64")
    shares = np.exp(kernel / 0.2)
    used = 2 * kernel * shares / shares.sum(axis=1, keepdims=True)
    for source in (model, head):
        np.testing.assert_allclose(measure(source), measure(used), rtol=1e-4)
    if measure in MEASURES[:2]:
        assert np.abs(measure(used) - measure(kernel)).max() > 0.01


@every_measure
def test_kernels_of_convolutions_are_rows(measure, kernel):
    head = layers.Conv2D(4, 1)
    head.build((None, None, None, 7))
    head.set_weights([kernel[None, None], np.zeros(4)])
    np.testing.assert_allclose(measure(head), measure(kernel.astype("float32")), rtol=1e-6)
    three = np.random.default_rng(1).normal(size=(3, 3, 5, 4))
    np.testing.assert_array_equal(measure(three), measure(three.reshape(45, 4)))


@every_measure
def test_heads_on_replicas_are_measured(measure):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        head = ke.layers.KernelUsageDense(4)
        model = classifier(head)
    twin = ke.layers.KernelUsageDense(4)
    twin.build((None, 5))
    twin.set_weights(head.get_weights())
    np.testing.assert_allclose(measure(model), measure(twin), rtol=1e-6)


def with_maps(head):
    """Return a model whose first output, in the order of names, are maps, and their layer."""
    inputs = keras.Input((6, 6, 3))
    layer = ke.layers.ActivationMaps(head)
    predictions, maps = layer(layers.Conv2D(5, 3, activation="relu")(inputs))
    return keras.Model(inputs, {"p": predictions, "maps": maps}), layer


@every_measure
@pytest.mark.parametrize("kind", [layers.Dense, ke.layers.KernelUsageDense])
def test_heads_of_activation_maps_are_measured(measure, kind):
    head = kind(4, activation="sigmoid")
    model, layer = with_maps(head)
    for source in (model, layer, ke.layers.with_activation_maps(classifier(head))):
        np.testing.assert_array_equal(measure(source), measure(head))
    with pytest.raises(ValueError, match="`head`.*is built. Received: 'late'"):
        measure(ke.layers.ActivationMaps(layers.Dense(4, name="late")))


def test_of_several_outputs_the_first_head_is_measured():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(5, 3, activation="relu")(inputs)
    pooled = layers.GlobalAveragePooling2D()(x)
    one, other = layers.Dense(4), layers.Dense(2)
    model = keras.Model(inputs, [layers.Flatten()(x), one(pooled), other(pooled)])
    found = ke.diagnostics.class_correlations(model)
    np.testing.assert_array_equal(found, ke.diagnostics.class_correlations(one))
    flat = layers.Flatten()(x)
    model = keras.Model(inputs, [layers.Dense(4)(flat), layers.Dense(2)(flat)])
    with pytest.raises(ValueError, match="`head`.*linear layer away.*`model.get_layer"):
        ke.diagnostics.class_correlations(model)


def test_no_choice_is_recommended_that_there_is_not():
    model = classifier(layers.Dense(4))
    model = keras.Model(model.inputs, layers.Lambda(lambda x: x + 0)(model.output))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="`head`.*Lambda.*`model.get_layer"):
            ke.diagnostics.kernel_usage(model)
    assert not [w for w in caught if "output=" in str(w.message)]


@every_measure
def test_scores_that_are_averaged_have_no_kernel_after_the_pooling(measure):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(5, 3, activation="relu")(inputs)
    scores = layers.Conv2D(4, 1, name="scores")
    pooled = layers.GlobalAveragePooling2D()(scores(x))
    model = keras.Model(inputs, layers.Activation("sigmoid")(pooled))
    found = "`head`.*averages the scores of its units, so that no kernel comes after its pooling"
    with pytest.raises(ValueError, match=rf"{found}.*`model.get_layer\('scores'\)`"):
        measure(model)
    np.testing.assert_array_equal(measure(scores), measure(scores.get_weights()[0]))
    nested = keras.Sequential([keras.Input((6, 6, 3)), model])
    rectified = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.ReLU()(scores(x))))
    for other in (nested, rectified):  # Which layer that is takes more to tell.
        with pytest.raises(ValueError, match=rf"{found}.*`model.get_layer\(...\)`"):
            measure(other)


@pytest.mark.parametrize(
    ("pooling", "received"),
    [
        (layers.Flatten(), "Conv2D 'conv2d.*was found before the last linear layer"),
        (None, "no spatial activation"),
    ],
)
def test_models_without_a_linear_head_are_refused(pooling, received):
    inputs = keras.Input((6, 6, 3) if pooling else (3,))
    x = pooling(layers.Conv2D(5, 3, activation="relu")(inputs)) if pooling else inputs
    model = keras.Model(inputs, layers.Dense(4)(x))
    with pytest.raises(ValueError, match=f"`head`.*linear layer.*{received}.*`model.get_") as info:
        ke.diagnostics.kernel_usage(model)
    assert "layer=" not in str(info.value)
    assert "gradient" not in str(info.value)
    assert ke.diagnostics.kernel_usage(model.layers[-1]).shape == (4,)


def test_other_errors_of_models_are_kept():
    with pytest.raises(ValueError, match="`model`.*a built model"):
        ke.diagnostics.kernel_usage(keras.Sequential([layers.Dense(4)]))


@every_measure
@pytest.mark.parametrize(
    ("head", "error", "message"),
    [
        (layers.Dense(4, name="late"), ValueError, "`head`.*is built. Received: 'late'"),
        (built(layers.ReLU()), TypeError, "`head`.*a layer with a kernel"),
        ("head", TypeError, "`head`.*a `keras.Model`, a layer.*Received: 'head'"),
        (None, ValueError, r"`head`.*Received: one of shape \(\)"),
        (np.ones(3), ValueError, r"`head`.*Received: one of shape \(3,\)"),
        (np.ones((0, 3)), ValueError, r"`head`.*Received: one of shape \(0, 3\)"),
        (np.full((2, 2), np.nan), ValueError, "`head`.*finite weights"),
    ],
)
def test_what_is_no_head_is_refused(measure, head, error, message):
    with pytest.raises(error, match=message):
        measure(head)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, np.nan, "all", True])
def test_shares_that_are_none_are_refused(kernel, share):
    with pytest.raises(ValueError, match="`share`"):
        ke.diagnostics.kernel_usage(kernel, share)


def test_absolute_is_a_boolean(kernel):
    with pytest.raises(TypeError, match="`absolute`.*Received: 1"):
        ke.diagnostics.kernel_usage(kernel, absolute=1)


def test_one_unit_has_no_pairs():
    with pytest.raises(ValueError, match="`head`.*Received: 1 unit"):
        ke.diagnostics.mean_absolute_correlation(np.ones((3, 1)))
    assert ke.diagnostics.class_correlations(np.ones((3, 1))) == [[1]]


def test_matrices_are_drawn_with_one_scale_centred_on_zero(kernel):
    matrices = {
        "plain": ke.diagnostics.class_correlations(kernel),
        "KUR": ke.diagnostics.class_correlations(kernel**3),
    }
    figure = ke.visualization.correlations(matrices, "abcd")
    plain, kur, bar = figure.axes
    others = ~np.eye(4, dtype=bool)
    limit = max(np.abs(m[others]).max() for m in matrices.values())
    for axes, (name, matrix) in zip((plain, kur), matrices.items(), strict=True):
        image = axes.images[0]
        assert image.get_clim() == (-limit, limit)
        assert image.cmap.name == "coolwarm"
        drawn = np.ma.filled(image.get_array(), np.nan)
        np.testing.assert_allclose(drawn[others], matrix[others])
        assert np.isnan(np.diag(drawn)).all()
        assert axes.get_title(loc="left") == name
        mean = np.abs(matrix[others]).mean()
        assert axes.texts[0].get_text() == f"mean |r| = {mean:.2f}"
        assert [tick.get_text() for tick in axes.get_xticklabels()] == list("abcd")
    assert [tick.get_text() for tick in plain.get_yticklabels()] == list("abcd")
    np.testing.assert_allclose(bar.get_ylim(), (-limit, limit))
    assert bar.get_ylabel() == "correlation r"
    fixed = ke.visualization.correlations(matrices, limit=0.5)
    assert fixed.axes[1].images[0].get_clim() == (-0.5, 0.5)
    assert [tick.get_text() for tick in fixed.axes[0].get_xticklabels()] == list("0123")


def test_usage_is_drawn_as_bars_and_ranges():
    figure = ke.visualization.usage(
        {"plain": [4, 8], "KUR": [[1, 2], [3, 4]]}, ["cat", "dog"], num_kernels=9
    )
    axes = figure.axes[0]
    plain, kur = axes.containers
    assert [bar.get_height() for bar in plain] == [4, 8]
    assert [bar.get_height() for bar in kur] == [2, 3]
    lines = axes.collections[-1].get_segments()
    assert [line[:, 1].tolist() for line in lines] == [[1, 3], [2, 4]]
    for one, other in zip(plain, kur, strict=True):
        assert one.get_x() + one.get_width() <= other.get_x()
    assert axes.get_ylabel() == "kernels used, of 9"
    assert all(tick == round(tick) for tick in axes.get_yticks())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "plain, mean 6.0",
        "KUR, mean 2.5",
    ]


@pytest.mark.parametrize("num_units", [2, 20])
def test_texts_of_figures_stay_inside_and_apart(num_units):
    names = [f"a class {number}" for number in range(num_units)]
    matrices = {name: np.eye(num_units) for name in ("plain", "KUR", "L2")}
    figure = ke.visualization.correlations(matrices, names)
    figure.canvas.draw()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def along(texts):
    """Return how far texts in a row are from each other, and how high their letters are."""
    places = [text.get_transform().transform(text.get_position())[0] for text in texts]
    return np.diff(places), texts[0].get_fontsize() * texts[0].figure.dpi / 72


@pytest.mark.parametrize("num_heads", [2, 9])
@pytest.mark.parametrize("num_units", [10, 20, 100])
def test_texts_of_usage_are_apart(num_heads, num_units):
    names = [f"a class {number}" for number in range(num_units)]
    counts = {f"a penalty, number {n}": np.ones((2, num_units)) for n in range(num_heads)}
    figure = ke.visualization.usage(counts, names)
    figure.canvas.draw()
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [f"{n}, mean 1.0" for n in counts]
    box, whole = legend.get_window_extent(), figure.axes[0].get_tightbbox()
    assert min(box.x0, whole.x0) >= 0
    assert max(box.x1, whole.x1) <= figure.bbox.x1
    assert box.y0 >= whole.y1
    assert figure.axes[0].get_window_extent().height > 0.4 * figure.bbox.height
    pitches, heights = along(figure.axes[0].get_xticklabels())
    assert pitches.min() >= heights / np.sin(np.deg2rad(45))
    bar = figure.axes[0].containers[0][0].get_window_extent().width * 72 / figure.dpi
    assert max(lines.get_linewidth() for lines in figure.axes[0].collections) < bar


@pytest.mark.parametrize("num_units", [10, 20, 30, 100])
@pytest.mark.parametrize("named", [True, False])
def test_texts_of_matrices_are_apart(num_units, named):
    names = [f"a class {number}" for number in range(num_units)] if named else None
    figure = ke.visualization.correlations({"plain": np.eye(num_units)}, names)
    figure.canvas.draw()
    axes = figure.axes[0]
    for ticks, axis in ((axes.get_xticklabels(), "x"), (axes.get_yticklabels(), "y")):
        boxes = [text.get_window_extent() for text in ticks]
        boxes = sorted((getattr(b, f"{axis}0"), getattr(b, f"{axis}1")) for b in boxes)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(boxes))
    texts = [text.get_text() for text in axes.get_xticklabels()]
    every = [str(name) for name in names or range(num_units)]
    assert texts == every[:: 1 if num_units <= 30 else 3]
    assert [text.get_text() for text in axes.get_yticklabels()] == texts


@pytest.mark.parametrize(
    ("draw", "arguments", "message"),
    [
        ("correlations", {"matrices": {}}, "`matrices`.*Received: {}"),
        (
            "correlations",
            {"matrices": np.eye(3)},
            r"`matrices`.*a dictionary.*Received: an array of shape \(3, 3\)$",
        ),
        ("correlations", {"matrices": {"a": np.ones((2, 3))}}, r"matrices\['a'\].*\(2, 3\)"),
        ("correlations", {"matrices": {"a": [[np.nan]]}}, r"matrices\['a'\].*finite"),
        (
            "correlations",
            {"matrices": {"a": np.eye(2), "b": np.eye(3)}},
            "`matrices`.*{'a': 2, 'b': 3}",
        ),
        ("correlations", {"matrices": {"a": np.eye(2)}, "class_names": "abc"}, "2 names.*: 3"),
        ("correlations", {"matrices": {"a": np.eye(2)}, "limit": 0}, "`limit`.*Received: 0"),
        ("usage", {"counts": {}}, "`counts`.*Received: {}"),
        ("usage", {"counts": [1, 2]}, r"`counts`.*a dictionary.*Received: \[1, 2\]$"),
        (
            "usage",
            {"counts": list(range(99))},
            r"`counts`.*Received: \[0, 1, 2, 3, 4, 5, \.\.\.\]$",
        ),
        ("usage", {"counts": {"a": np.ones((2, 2, 2))}}, r"counts\['a'\].*\(2, 2, 2\)"),
        ("usage", {"counts": {"a": [1], "b": [1, 2]}}, "`counts`.*{'a': 1, 'b': 2}"),
        ("usage", {"counts": {"a": [1, 2]}, "class_names": ["x"]}, "2 names.*: 1"),
    ],
)
def test_figures_say_what_is_wrong(draw, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(ke.visualization, draw)(**arguments)
