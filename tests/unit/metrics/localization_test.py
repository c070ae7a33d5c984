"""Metrics of localization: exact values, slow oracles, peers, and what they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke

OF_MASKS = [
    name
    for name in ke.metrics.names("localization")
    if "masks" in ke.metrics.registration(name).needs
]
SALIENT = [
    name
    for name in OF_MASKS
    if "protocol" in [o.name for o in ke.metrics.registration(name).options]
]
SEGMENTATION = ("segmentation_iou", "segmentation_f1", "segmentation_accuracy")
RNG = np.random.default_rng(5)
# Values that tie, and a last mask that is empty.
MAPS = (RNG.integers(0, 9, (4, 6, 7, 3)) / 8).astype("float32")
MASKS = RNG.choice([0, 1, 255], (4, 6, 7, 3), p=[0.5, 0.35, 0.15])
MASKS[3, :, :, 2] = np.where(MASKS[3, :, :, 2] == 1, 0, MASKS[3, :, :, 2])
BOXES = {
    "boxes": np.array(
        [
            [[0, 0, 7, 6], [1, 1, 3, 4]],
            [[2, 0, 6, 5], [0, 0, 0, 0]],
            [[0, 0, 3, 3], [4, 3, 7, 6]],
            [[0, 0, 7, 6], [0, 0, 7, 3]],
        ]
    ),
    "labels": np.array([[0, 2], [1, -1], [0, 0], [2, 1]]),
}
LOGITS = RNG.normal(size=(4, 3)).astype("float32")
LABELS = RNG.choice([0, 1, 2, 3, 255], (4, 6, 7))
LABELS[0] = np.where(LABELS[0] == 2, 0, LABELS[0])


def _made(name, **options):
    return getattr(ke.metrics, ke.metrics.registration(name).class_name)(**options)


def _ground_truth(name):
    needs = ke.metrics.registration(name).needs
    return {"masks": MASKS, "boxes": BOXES, "labels": LABELS}[needs[0]]


def _rows():
    """Yield place, map and mask, both in a row and without what is ignored."""
    for sample, unit in np.ndindex(4, 3):
        mask = MASKS[sample, :, :, unit].ravel()
        counted = mask != 255
        yield (
            (sample, unit),
            MAPS[sample, :, :, unit].ravel()[counted].astype(float),
            mask[counted] == 1,
        )


def _point(row, mask):
    return mask[np.argmax(row)]


def _energy(row, mask):
    row = row - row.min()
    return row[mask].sum() / row.sum()


def _mass(row, mask):
    return row[mask].sum() / row.sum()


def _rank(row, mask):
    return mask[np.argsort(-row, kind="stable")[: mask.sum()]].mean()


def _top_k(k):
    return lambda row, mask: mask[np.argsort(-row, kind="stable")[:k]].mean()


def _auc(row, mask):
    higher = row[mask][:, None] - row[~mask]
    return (higher > 0).mean() + (higher == 0).mean() / 2


def _error(row, mask):
    return np.abs(row - mask).mean()


def _iou(threshold):
    return lambda row, mask: ((row > threshold) & mask).sum() / ((row > threshold) | mask).sum()


def _over_thresholds(count, value):
    def values(row, mask):
        marked = [row >= np.float32(k / (count - 1)) for k in range(count)]
        return np.array([value(marks, mask) for marks in marked])

    return values


def _f_beta_of(marked, mask, beta_squared=0.3):
    precision = (marked & mask).sum() / max(marked.sum(), 1)
    recall = (marked & mask).sum() / mask.sum()
    both = beta_squared * precision + recall
    return (1 + beta_squared) * precision * recall / both if both else 0.0


def _average_precision(row, mask):
    """Return the mean of precisions at every position of the object, levels of ties as one."""
    total, above = 0.0, 0
    for level in sorted(set(row), reverse=True):
        marked = row >= level
        gained = (marked & mask).sum() - above
        above += gained
        total += gained / mask.sum() * (marked & mask).sum() / marked.sum()
    return total


def _best_iou(count):
    curve = _over_thresholds(count, lambda m, g: (m & g).sum() / (m | g).sum())
    return lambda row, mask: curve(row, mask).max()


def _adaptive(row, mask):
    return _f_beta_of((row >= min(2 * row.mean(), 1)) & (row > 0), mask)


ORACLES = [
    ("pointing_game", {"tolerance": 0}, _point),
    ("energy_pointing_game", {}, _energy),
    ("relevance_mass_accuracy", {}, _mass),
    ("relevance_rank_accuracy", {}, _rank),
    ("top_k_intersection", {"k": 5}, _top_k(5)),
    ("top_k_intersection", {}, _top_k(1000)),
    ("localization_auc", {}, _auc),
    ("mask_error", {}, _error),
    ("mask_iou", {}, _iou(0.25)),
    ("mask_iou", {"threshold": 0.5}, _iou(0.5)),
    ("best_mask_iou", {}, _best_iou(256)),
    ("best_mask_iou", {"num_thresholds": 4}, _best_iou(4)),
    ("average_precision", {"num_thresholds": 9}, _average_precision),
    ("average_precision", {"num_thresholds": 257}, _average_precision),
    ("max_f_beta", {}, lambda r, g: _over_thresholds(256, _f_beta_of)(r, g).max()),
    ("mean_f_beta", {}, lambda r, g: _over_thresholds(256, _f_beta_of)(r, g).mean()),
    (
        "mean_f_beta",
        {"num_thresholds": 7, "beta_squared": 1},
        lambda r, g: _over_thresholds(7, lambda m, g: _f_beta_of(m, g, 1))(r, g).mean(),
    ),
    ("adaptive_f_beta", {}, _adaptive),
]


@pytest.mark.parametrize(("name", "options", "oracle"), ORACLES)
def test_values_are_those_of_an_oracle(name, options, oracle):
    values, weights = getattr(ke.metrics, name)(MAPS, MASKS, **options, return_weights=True)
    expected = np.zeros((4, 3))
    for place, row, mask in _rows():
        expected[place] = oracle(row, mask) if mask.any() else 0
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(weights, 1 - np.eye(12)[-1].reshape(4, 3))


def test_every_metric_of_masks_has_an_oracle():
    assert {name for name, _, _ in ORACLES} == {*OF_MASKS}


@pytest.mark.parametrize("name", OF_MASKS)
def test_perfect_maps_are_the_best(name):
    mask = np.zeros((1, 8, 8))
    mask[0, 2:5, 3:7] = 1
    options = {"pointing_game": {"tolerance": 0}, "top_k_intersection": {"k": 12}}.get(name, {})
    known = ke.metrics.registration(name)
    perfect = getattr(ke.metrics, name)(mask[..., None], mask, **options)
    inverse = getattr(ke.metrics, name)(1 - mask[..., None], mask, **options)
    best = 1.0 if known.higher_is_better else 0.0
    # At the threshold 0 everything is marked.
    rounding = 4e-3 if name == "mean_f_beta" else 1e-6
    assert perfect == pytest.approx(np.array([[best]]), abs=rounding)
    assert abs(best - inverse) > 0.7


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("energy_pointing_game", 0),
        ("relevance_mass_accuracy", 0.25),
        ("localization_auc", 0.5),
        ("mask_error", 0.5),
        ("mask_iou", 0.25),
        ("average_precision", 0.25),
        ("adaptive_f_beta", 0),
        ("best_mask_iou", 0.25),
    ],
)
def test_constant_maps_have_the_value_of_chance(name, expected):
    mask = np.zeros((1, 4, 4))
    mask[0, 1:3, 1:3] = 1
    values = getattr(ke.metrics, name)(np.full((1, 4, 4, 1), 0.5, "float32"), mask)
    np.testing.assert_allclose(values, [[expected]], atol=1e-6)


def test_shares_are_of_what_is_positive():
    masks = np.array([[1, 0, 0, 255]])
    maps = np.array([[3.0, 1.0, -2.0, 9.0], [3.0, 2.0, 1.0, 0.0]]).T[None]
    energy = ke.metrics.energy_pointing_game(maps, masks)
    np.testing.assert_allclose(energy, [[3 / 4, 2 / 3]], atol=1e-6)
    mass = ke.metrics.relevance_mass_accuracy(maps, masks)
    np.testing.assert_allclose(mass, [[3 / 4, 3 / 6]], atol=1e-6)
    nothing = -np.ones((1, 4, 1))
    for compute in (ke.metrics.energy_pointing_game, ke.metrics.relevance_mass_accuracy):
        values, weights = compute(nothing, masks, return_weights=True)
        assert (values.item(), weights.item()) == (0, 1)


def test_adaptive_f_beta_marks_nothing_of_a_map_of_zeros():
    mask = np.ones((1, 4, 4))
    assert ke.metrics.adaptive_f_beta(np.zeros((1, 4, 4, 1)), mask) == 0
    assert ke.metrics.adaptive_f_beta(np.ones((1, 4, 4, 1)), mask) == 1


def test_equal_positions_rank_in_the_order_of_rows():
    maps, masks = np.ones((2, 2, 3, 1)), np.zeros((2, 2, 3))
    masks[0, 0, :2] = masks[1, 1, 1:] = 1
    assert ke.metrics.pointing_game(maps, masks, tolerance=0).ravel().tolist() == [1, 0]
    assert ke.metrics.relevance_rank_accuracy(maps, masks).ravel().tolist() == [1, 0]
    assert ke.metrics.top_k_intersection(maps, masks, k=4).ravel().tolist() == [0.5, 0]


def test_auc_is_undefined_without_background():
    masks = np.ones((1, 3, 3))
    masks[0, 0] = 255
    values, weights = ke.metrics.localization_auc(MAPS[:1, :3, :3], masks, return_weights=True)
    assert not values.any()
    assert not weights.any()


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3])
def test_tolerance_widens_masks_by_a_square(tolerance):
    masks = np.zeros((1, 9, 9))
    masks[0, 4, 4] = 1
    hits = np.zeros((9, 9))
    for row, column in np.ndindex(9, 9):
        maps = np.zeros((1, 9, 9, 1))
        maps[0, row, column] = 1
        hits[row, column] = ke.metrics.pointing_game(maps, masks, tolerance=tolerance)[0, 0]
    expected = np.zeros((9, 9))
    expected[4 - tolerance : 5 + tolerance, 4 - tolerance : 5 + tolerance] = 1
    np.testing.assert_array_equal(hits, expected)


@pytest.mark.parametrize("positions", [(42,), (3, 2, 7)])
def test_metrics_of_masks_take_any_number_of_axes(positions):
    for name in OF_MASKS:
        options = {"tolerance": 0} if name == "pointing_game" else {}
        compute = getattr(ke.metrics, name)
        other = compute(MAPS.reshape(4, *positions, 3), MASKS.reshape(4, *positions, 3), **options)
        np.testing.assert_allclose(other, compute(MAPS, MASKS, **options), atol=1e-6)


def test_tolerance_is_along_every_axis():
    maps, masks = np.zeros((1, 4, 5, 6, 1)), np.zeros((1, 4, 5, 6))
    maps[0, 1, 1, 1], masks[0, 2, 0, 3] = 1, 1
    hits = [ke.metrics.pointing_game(maps, masks, tolerance=t)[0, 0] for t in (0, 1, 2)]
    assert hits == [0, 0, 1]


@pytest.mark.parametrize("name", OF_MASKS)
def test_masks_are_paired_with_maps_by_units(name):
    compute = getattr(ke.metrics, name)
    options = {"tolerance": 0} if name == "pointing_game" else {}
    full = compute(MAPS, MASKS, **options)
    indices = np.array([[2, 0], [1, 1], [0, 2], [1, 0]])
    taken = np.take_along_axis(full, indices, 1)
    maps = np.take_along_axis(MAPS, indices[:, None, None], -1)
    masks = np.take_along_axis(MASKS, indices[:, None, None], -1)
    for given in ((MAPS, MASKS), (maps, MASKS), (maps, masks), (MAPS, masks)):
        np.testing.assert_allclose(compute(*given, indices, **options), taken, atol=1e-6)
    shared = compute(MAPS, MASKS[..., 0], **options)
    repeated = np.repeat(MASKS[..., :1], 3, -1)
    np.testing.assert_allclose(shared, compute(MAPS, repeated, **options), atol=1e-6)
    np.testing.assert_allclose(shared, compute(MAPS, MASKS[..., :1], **options), atol=1e-6)


@pytest.mark.parametrize("name", SALIENT)
def test_agnostic_protocol_takes_the_maximum_over_maps(name):
    compute = getattr(ke.metrics, name)
    found = compute(MAPS, MASKS[..., 0], protocol="agnostic")
    expected = compute(MAPS.max(-1, keepdims=True), MASKS[..., 0])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, compute(MAPS, MASKS[..., 0]))
    with pytest.raises(ValueError, match="Received: 3 per sample"):
        compute(MAPS, MASKS, protocol="agnostic")
    with pytest.raises(ValueError, match="Received: 'both'"):
        compute(MAPS, MASKS, protocol="both")


@pytest.mark.parametrize("average", ["weighted", "macro"])
def test_agnostic_values_belong_to_samples_whatever_is_explained(average):
    metric = ke.metrics.MaskError(protocol="agnostic", average=average, num_classes=3)
    indices = np.array([[2, 0], [1, 1], [0, 2], [1, 0]])
    metric.update_state(MAPS, MASKS[..., 0], indices)
    maps = np.take_along_axis(MAPS, indices[:, None, None], -1)
    expected = ke.metrics.mask_error(maps, MASKS[..., 0], protocol="agnostic").mean()
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-5)


def test_curves_are_what_values_are_taken_from():
    given = tf.constant(MAPS), tf.constant(MASKS.astype("float32"))
    scores = {n: ke.metrics.registration(n).function(*given) for n in SALIENT}
    top = tf.reduce_max(scores["best_mask_iou"].curve, -1) * scores["best_mask_iou"].weights
    np.testing.assert_allclose(scores["best_mask_iou"].values, top)
    f_beta = scores["max_f_beta"].curve
    np.testing.assert_allclose(f_beta, scores["mean_f_beta"].curve)
    np.testing.assert_allclose(tf.reduce_mean(f_beta, -1), scores["mean_f_beta"].values, atol=1e-6)
    recall, precision = np.moveaxis(scores["average_precision"].curve, -1, 0)
    area = -(np.diff(recall, append=0) * precision).sum(-1)
    np.testing.assert_allclose(area, scores["average_precision"].values, atol=1e-6)
    assert recall.shape == (4, 3, 256)
    assert (recall[:3, :, 0] == 1).all()


def _box_of(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def _largest_part(kept):
    """Return the largest 8-connected part of a mask, by flooding."""
    left, parts = {*map(tuple, np.argwhere(kept))}, []
    while left:
        front = [min(left)]
        part = {*front}
        while front:
            row, column = front.pop()
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
            front += (near & left) - part
            part |= near & left
        left -= part
        parts.append(part)
    largest = max(parts, key=len)
    mask = np.zeros_like(kept)
    mask[tuple(np.transpose([*largest]))] = True
    return mask


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.6, 0.9, 1.0])
def test_boxes_are_drawn_around_the_largest_part(fraction):
    maps = np.random.default_rng(0).normal(size=(3, 8, 9, 4)).astype("float32")
    drawn = ke.metrics.extract_boxes(maps, fraction).numpy()
    for sample, unit in np.ndindex(3, 4):
        one = maps[sample, :, :, unit]
        part = _largest_part((one >= np.float32(fraction) * one.max()) & (one > 0))
        assert drawn[sample, unit].tolist() == _box_of(part)


def test_maps_that_show_nothing_have_the_box_of_the_image():
    maps = np.stack([np.zeros((4, 5)), -np.ones((4, 5)), np.eye(4, 5)], -1)[None]
    drawn = ke.metrics.extract_boxes(maps)
    np.testing.assert_array_equal(drawn, [[[0, 0, 5, 4], [0, 0, 5, 4], [0, 0, 4, 4]]])


def test_masks_of_boxes_cover_their_pixels():
    masks = ke.metrics.box_masks(BOXES, (6, 7), 3)
    expected = np.zeros((4, 6, 7, 3))
    for sample, row in np.ndindex(4, 2):
        label = BOXES["labels"][sample, row]
        x0, y0, x1, y1 = BOXES["boxes"][sample, row]
        if label >= 0:
            expected[sample, y0:y1, x0:x1, label] = 1
    np.testing.assert_array_equal(masks, expected)
    boxes = {"boxes": [[[0.5, 1.0, 2.5, 1.5]]], "labels": [[0]]}
    drawn = ke.metrics.box_masks(boxes, (3, 4), 1)[0, ..., 0]
    np.testing.assert_array_equal(drawn, [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])


def _overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = np.prod(np.maximum(high - low, 0))
    area = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return common / (area - common)


def _localization_errors(fraction=0.2, iou=0.5, top=None):
    drawn = ke.metrics.extract_boxes(MAPS, fraction).numpy()
    values, weights = np.zeros((4, 3)), np.zeros((4, 3))
    for sample, unit in np.ndindex(4, 3):
        own = BOXES["boxes"][sample][BOXES["labels"][sample] == unit]
        if len(own):
            hit = max(_overlap(drawn[sample, unit], box) for box in own) >= iou
            if top is not None:
                hit &= unit in np.argsort(-LOGITS[sample])[:top]
            values[sample, unit], weights[sample, unit] = not hit, 1
    return values, weights


@pytest.mark.parametrize(
    "options",
    [{}, {"fraction": 0.9}, {"iou": 0.1}, {"iou": 0.9}, {"top": 1}, {"top": 2, "iou": 0.1}],
)
def test_localization_error_is_that_of_an_oracle(options):
    found = ke.metrics.localization_error(
        MAPS, BOXES, logits=LOGITS, **options, return_weights=True
    )
    np.testing.assert_array_equal(found, _localization_errors(**options))


def test_localization_error_depends_on_every_option():
    settings = [{"iou": 0.1}, {"iou": 0.1, "fraction": 0.9}, {"iou": 0.1, "top": 1}, {}]
    found = {_localization_errors(**options)[0].tobytes() for options in settings}
    assert len(found) == 4


def test_localization_error_finds_the_boxes_of_the_class_explained():
    expected, weights = _localization_errors()
    indices = np.array([2, 1, 0, 2])
    maps = np.take_along_axis(MAPS, indices[:, None, None, None], -1)
    found = ke.metrics.localization_error(maps, BOXES, indices, return_weights=True)
    np.testing.assert_array_equal(found[0], expected[np.arange(4), indices][:, None])
    np.testing.assert_array_equal(found[1], weights[np.arange(4), indices][:, None])
    best = ke.metrics.localization_error(MAPS, BOXES, "argmax", logits=LOGITS, top=1)
    np.testing.assert_array_equal(best, expected[np.arange(4), LOGITS.argmax(1)][:, None])


def test_of_equal_logits_the_first_is_the_highest():
    boxes = {"boxes": np.array([[[0, 0, 3, 3], [0, 0, 3, 3]]]), "labels": np.array([[0, 1]])}
    maps, logits = np.ones((1, 3, 3, 2)), np.zeros((1, 2))
    errors = [ke.metrics.localization_error(maps, boxes, logits=logits, top=t)[0] for t in (1, 2)]
    np.testing.assert_array_equal(errors, [[0, 1], [0, 0]])


def _segmented(threshold, detections=None):
    """Return labels `(batch, height, width)` and whether they count."""
    maps = MAPS if detections is None else np.where(detections[:, None, None] > 0, MAPS, -1)
    stacked = np.concatenate([np.full_like(maps[..., :1], threshold), maps], -1)
    return stacked.argmax(-1), LABELS != 255


def _areas(threshold, detections, samples):
    predicted, counted = _segmented(threshold, detections)
    for label in range(4):
        truth = (label == LABELS)[samples]
        marked = ((predicted == label) & counted)[samples]
        yield (truth & marked).sum(), truth.sum(), marked.sum()


DETECTIONS = np.array([[1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("detections", [None, DETECTIONS])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_segmentations_are_those_of_an_oracle(threshold, detections):
    options = {"threshold": threshold}
    given = {} if detections is None else {"detections": detections}
    for samples in ([0], [3], [0, 1, 2, 3]):
        areas = [np.array(a, float) for a in _areas(threshold, detections, samples)]
        iou = [tp / (t + p - tp) if t + p else 0 for tp, t, p in areas]
        f1 = [2 * tp / (t + p) if t + p else 0 for tp, t, p in areas]
        tp, t, _ = np.sum(areas, 0)
        expected = dict(zip(SEGMENTATION, (iou, f1, [tp / t]), strict=True))
        for name in SEGMENTATION:
            metric = _made(name, **options)
            for sample in samples:
                part = {n: d[[sample]] for n, d in given.items()}
                metric.update_state(MAPS[[sample]], LABELS[[sample]], **part)
            np.testing.assert_allclose(metric.result(), np.mean(expected[name]), atol=1e-6)
            if len(samples) == 1:
                part = {n: d[samples] for n, d in given.items()}
                compute = getattr(ke.metrics, name)
                found = compute(MAPS[samples], LABELS[samples], **part, **options)
                np.testing.assert_allclose(found, [expected[name]], atol=1e-6)


def test_values_of_classes_are_of_the_data_set():
    metric = ke.metrics.SegmentationIou(average=None)
    metric.update_state(MAPS[:2], LABELS[:2])
    metric.update_state(MAPS[2:], LABELS[2:, ..., None])
    areas = _areas(0.25, None, slice(None))
    np.testing.assert_allclose(
        metric.result(), [tp / (t + p - tp) for tp, t, p in areas], atol=1e-6
    )


@pytest.mark.parametrize("name", ["segmentation_iou", "segmentation_f1"])
def test_absent_classes_count_for_nothing_or_are_skipped(name):
    maps = np.array([0.9, 0.9, 0.1, 0.1]).reshape(1, 2, 2, 1) * np.array([1, 0, 0])
    labels = np.array([[[1, 1], [0, 0]]])
    results = {}
    for options in ({}, {"absent": "skip"}, {"background": False}):
        metric = _made(name, average="macro", **options)
        metric.update_state(maps, labels)
        results[str(options)] = float(metric.result())
    np.testing.assert_allclose([*results.values()], [2 / 4, 1, 1 / 3], atol=1e-6)
    compute = getattr(ke.metrics, name)
    _, weights = compute(maps, labels, absent="skip", background=False, return_weights=True)
    assert weights.tolist() == [[0, 1, 0, 0]]


def test_labels_that_are_ignored_count_nowhere():
    labels = np.full_like(LABELS, 255)
    for name in SEGMENTATION:
        values, weights = getattr(ke.metrics, name)(MAPS, labels, return_weights=True)
        assert not values.any()
        assert not weights.any()


def test_sweeps_report_the_best_threshold():
    thresholds = (0.9, 0.1, 0.3, 0.5, 0.7)
    sweep = ke.metrics.ThresholdSweep("segmentation_iou", thresholds, average="macro")
    values = []
    for threshold in thresholds:
        metric = ke.metrics.SegmentationIou(threshold=threshold, average="macro")
        metric.update_state(MAPS, LABELS)
        values.append(float(metric.result()))
    for sample in range(4):
        sweep.update_state(MAPS[[sample]], LABELS[[sample]])
    np.testing.assert_allclose(sweep.results(), values, atol=1e-6)
    result = {name: float(value) for name, value in sweep.result().items()}
    best = int(np.argmax(values))
    assert result == pytest.approx(
        {"segmentation_iou": values[best], "threshold": thresholds[best]}
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(sweep))
    assert again.get_config() == sweep.get_config()
    sweep.reset_state()
    assert not np.any(sweep.results())


def test_sweeps_of_errors_report_the_lowest():
    model = keras.Sequential([keras.Input((4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.layers[-1].set_weights([np.eye(4)[:, :2] * [3, 1], np.zeros(2)])
    x, maps = np.ones((1, 4, 1)), np.zeros((1, 4, 2))
    maps[0, 1] = 1
    sweep = ke.metrics.ThresholdSweep("average_drop", (0.9, 0.5))
    sweep.update_state(model, x, maps)
    # Unit 0 alone is detected above 0.9, and loses all of its logit; unit 1 keeps its own.
    first = 1 - 0.5 / (1 / (1 + np.exp(-3)))
    np.testing.assert_allclose(sweep.results(), [first, first / 2], atol=1e-6)
    assert float(sweep.result()["threshold"]) == 0.5


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        (("mask_error",), "'mask_error'"),
        (("no_metric",), "'no_metric'"),
        (("mask_iou", ()), r"\(\)"),
        (("mask_iou", (0.1, "high")), "'high'"),
        (("mask_iou", 0.5), "0.5"),
    ],
)
def test_sweeps_refuse_what_they_cannot_take(arguments, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        ke.metrics.ThresholdSweep(*arguments)


def test_sweeps_need_one_value():
    with pytest.raises(ValueError, match="`average`.*Received: None"):
        ke.metrics.ThresholdSweep("mask_iou", average=None)


def _with(array, value):
    array = np.array(array, dtype=float)
    array.flat[3] = value
    return array


def _box(*corners, label=0):
    return {"boxes": np.array([[corners]] * 4, float), "labels": np.array([[label]] * 4)}


@pytest.mark.parametrize("name", OF_MASKS)
@pytest.mark.parametrize(
    ("maps", "masks", "received"),
    [
        (MAPS, MASKS[:, 1:], r"shape \(4, 5, 7, 3\)"),
        (MAPS, MASKS[1:], r"shape \(3, 6, 7, 3\)"),
        (MAPS, MASKS[..., :2], r"shape \(4, 6, 7, 2\)"),
        (MAPS, _with(MASKS, 2), "2.0"),
        (MAPS, _with(MASKS, np.nan), "nan"),
        (_with(MAPS, np.nan), MASKS, "NaN or infinity in 1 samples, the first of index 0"),
    ],
)
def test_wrong_masks_and_maps_are_refused(name, maps, masks, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        getattr(ke.metrics, name)(maps, masks)


@pytest.mark.parametrize("name", SALIENT)
def test_maps_beyond_the_unit_interval_are_refused(name):
    with pytest.raises(ValueError, match="Received: 0 to 2"):
        getattr(ke.metrics, name)(_with(MAPS, 2), MASKS)


@pytest.mark.parametrize(
    ("name", "arguments", "options", "received"),
    [
        ("pointing_game", (MAPS, MASKS), {"tolerance": -1}, "-1"),
        ("pointing_game", (MAPS, MASKS), {"tolerance": 1.5}, "1.5"),
        ("pointing_game", (MAPS, MASKS), {"indices": "argmax"}, "'argmax'"),
        ("pointing_game", (MAPS, MASKS), {"indices": [0, 1, 2, 3]}, "0 to 3"),
        ("pointing_game", (MAPS, MASKS), {"indices": [0, 1, 2, -1]}, "-1 to 2"),
        ("pointing_game", (MAPS[..., :1], MASKS), {"indices": [0, 1, 2, 3]}, "0 to 3"),
        ("mask_error", (MAPS[..., :1], MASKS), {}, r"shape \(4, 6, 7, 3\)"),
        ("mask_error", (MAPS[..., :1], MASKS), {"indices": [[0, 1]] * 4}, "1 per sample"),
        ("top_k_intersection", (MAPS, MASKS), {"k": 0}, "0"),
        ("mask_iou", (MAPS, MASKS), {"threshold": np.nan}, "nan"),
        ("best_mask_iou", (MAPS, MASKS), {"num_thresholds": 1}, "1"),
        ("max_f_beta", (MAPS, MASKS), {"beta_squared": -1}, "-1"),
        ("localization_error", (MAPS, BOXES), {"iou": -1}, "-1"),
        ("localization_error", (MAPS, BOXES), {"fraction": 1.1}, "1.1"),
        ("localization_error", (MAPS, BOXES), {"top": 1}, "None"),
        ("localization_error", (MAPS, BOXES), {"top": 0, "logits": LOGITS}, "0"),
        ("localization_error", (MAPS, BOXES), {"indices": "argmax"}, "'argmax'"),
        (
            "localization_error",
            (MAPS[..., :1], BOXES),
            {"indices": [0, 1, 2, 3], "logits": LOGITS},
            "0 to 3",
        ),
        ("localization_error", (MAPS, _box(0, 0, 8, 2)), {}, r"\[0.0, 0.0, 8.0, 2.0\] of sample 0"),
        ("localization_error", (MAPS, _box(-1, 0, 2, 2)), {}, r"\[-1.0, "),
        ("localization_error", (MAPS, _box(0, 0, 2, 7)), {}, r"\[0.0, 0.0, 2.0, 7.0\]"),
        ("localization_error", (MAPS, _box(2, 0, 2, 2)), {}, r"\[2.0, 0.0, 2.0, 2.0\]"),
        ("localization_error", (MAPS, _box(0, 0, np.nan, 2)), {}, r"\[0.0, 0.0, nan, 2.0\]"),
        ("localization_error", (MAPS, _box(0, 0, 2, 2, label=3)), {}, "3 to 3"),
        ("localization_error", (MAPS, _box(0, 0, 2, 2, label=-2)), {}, "-2"),
        ("localization_error", (MAPS, _box(0, 0, 2, 2, label=0.5)), {}, "0.5"),
        ("localization_error", (MAPS[:2], BOXES), {}, r"shape \(4, 2, 4\)"),
        ("localization_error", (MAPS[:, 0], BOXES), {}, r"shape \(4, 7, 3\)"),
        ("localization_error", (MAPS, BOXES | {"labels": [[0]] * 4}), {}, r"shape \(4, 1\)"),
        ("segmentation_iou", (MAPS, _with(LABELS, 4)), {}, "4.0"),
        ("segmentation_iou", (MAPS, _with(LABELS, -1)), {}, "-1.0"),
        ("segmentation_iou", (MAPS, LABELS[:, 1:]), {}, r"shape \(4, 5, 7\)"),
        ("segmentation_iou", (MAPS, LABELS), {"absent": "one"}, "'one'"),
        ("segmentation_iou", (MAPS, LABELS), {"threshold": "high"}, "'high'"),
        ("segmentation_iou", (MAPS, LABELS), {"detections": LOGITS[:, :2]}, "2 per sample"),
    ],
)
def test_wrong_arguments_are_refused(name, arguments, options, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        getattr(ke.metrics, name)(*arguments, **options)


def test_boxes_that_are_no_dict_are_refused():
    with pytest.raises(TypeError, match='a dict of "boxes" .samples, n, 4. and "labels"'):
        ke.metrics.localization_error(MAPS, BOXES["boxes"])
    with pytest.raises(ValueError, match="Received: -1 to 2"):
        ke.metrics.box_masks(BOXES, (6, 7), 2)
    with pytest.raises(ValueError, match=r"Received: shape \(4, 7, 3\)"):
        ke.metrics.extract_boxes(MAPS[:, 0])


@pytest.mark.parametrize("name", ke.metrics.names("localization"))
def test_compiled_values_are_those_of_eager_mode(name):
    known = ke.metrics.registration(name)
    given = MAPS, _ground_truth(name)
    options = {"tolerance": 1} if name == "pointing_game" else {}
    expected = getattr(ke.metrics, name)(*given, **options)
    xla = name != "localization_error"  # Boxes are drawn on the host.

    @tf.function(jit_compile=xla)
    def compute(*given):
        scores = known.function(*given, **options)
        return scores.values, scores.weights

    float32 = lambda a: tf.constant(np.asarray(a, "float32"))  # noqa: E731
    values, weights = compute(*keras.tree.map_structure(float32, given))
    values = values if known.combine is None else known.combine(values)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    metric = _made(name, average="macro", **options)
    add = tf.function(metric.update_state)
    for sample in range(4):
        add(*keras.tree.map_structure(lambda a, s=sample: float32(a[s : s + 1]), given))
    if known.combine is None:
        total, count = (values * weights).numpy().sum(0), weights.numpy().sum(0)
        np.testing.assert_allclose(metric.result(), (total / count).mean(), atol=1e-6)


def _golden(shared):
    return np.load(shared / "goldens" / "peers.npz")


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("pointing_game", {"tolerance": 0}, "pointing_game"),
        ("relevance_mass_accuracy", {}, "relevance_mass"),
        ("relevance_mass_accuracy", {}, "attribution_localisation"),
        ("relevance_rank_accuracy", {}, "relevance_rank"),
        ("top_k_intersection", {"k": 100}, "top_k_intersection"),
        ("localization_auc", {}, "auc"),
    ],
)
def test_values_are_those_of_quantus(shared, name, options, reference):
    arrays = _golden(shared)
    maps, masks = arrays["quantus/a"][..., None], arrays["quantus/mask"]
    found = getattr(ke.metrics, name)(maps, masks, **options)[:, 0]
    np.testing.assert_allclose(found, arrays[f"quantus/{reference}"], rtol=1e-5)
