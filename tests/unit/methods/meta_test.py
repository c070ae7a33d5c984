"""Meta methods, on methods whose maps are known by hand, and on real ones."""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from keras_explainable._variation import area_under_total_variation
from keras_explainable.methods import _registry
from tests import zoo

RAW = {"postprocessing": None, "resizing": False, "verbose": 0}
METAS = {
    "smooth": lambda method, **options: ke.methods.smooth(method, num_samples=3, **options),
    "smooth_taylor": lambda method, **options: ke.methods.smooth_taylor(
        method, num_samples=3, **options
    ),
    "tta": lambda method, **options: ke.methods.tta(method, scales=(1, 1.5), **options),
}
IMAGES = zoo.IMAGES


def _explain(method, model=None, x=IMAGES, y=None, **options):
    return ke.explain(method, model or zoo.any_size().model, x, y, **RAW, **options)[1]


def identity(model, inputs, indices=None, *, reduction=None):
    """Return the input itself as the map, its channels as units."""
    del reduction
    logits = model(inputs, training=False)[0]
    return ke.inspection.gather_units(logits, indices), tf.identity(inputs)


def doubled(model, inputs, indices=None, *, reduction=None):
    """Return the gradient of the squared input, 2 z, for every unit."""
    del reduction
    logits = ke.inspection.gather_units(model(inputs, training=False)[0], indices)
    return logits, tf.repeat(2 * inputs[..., None], tf.shape(logits)[1], -1)


def ones(model, inputs, indices=None, *, reduction=None):
    del reduction
    logits = ke.inspection.gather_units(model(inputs, training=False)[0], indices)
    return logits, tf.repeat(tf.ones_like(inputs)[..., None], tf.shape(logits)[1], -1)


def draws(count, stddev, **options):
    """Return the noisy inputs of each repetition, from the running means of `identity`."""
    totals = [np.zeros_like(IMAGES)] + [
        n * _explain(ke.methods.smooth(identity, num_samples=n, stddev=stddev, **options))
        for n in range(1, count + 1)
    ]
    return np.diff(totals, axis=0)


def test_what_repeats_a_method_is_tested_here():
    # `guided` runs two methods once, and is tested beside guided backpropagation.
    assert {*METAS, "guided"} == set(ke.methods.meta_names())


@pytest.mark.parametrize("name", METAS)
def test_wrapping_twice_gives_the_same_function(name):
    wrap = getattr(ke.methods, name)
    assert wrap("gradients") is wrap(ke.methods.gradients.gradients)
    assert wrap("gradients") is getattr(ke.methods.meta, name)("gradients")
    other = {"tta": {"flip": False}}.get(name, {"seed": 1})
    assert wrap("gradients", **other) is not wrap("gradients")
    assert wrap("gradients").__name__ == f"{name}(gradients)"


@pytest.mark.parametrize("method", zoo.METHODS)
def test_without_noise_the_mean_is_the_method(method):
    model, options = zoo.functional().model, {}
    smoothed = ke.methods.smooth(method, num_samples=3, stddev=0)
    logits, maps = ke.explain(smoothed, model, IMAGES, [[1, 0], [2, 2], [4, 3]], **RAW, **options)
    expected = ke.explain(method, model, IMAGES, [[1, 0], [2, 2], [4, 3]], **RAW, **options)
    np.testing.assert_allclose(logits, expected[0], rtol=1e-5)
    np.testing.assert_allclose(maps, expected[1], atol=1e-5 * np.abs(expected[1]).max())


def test_noise_is_a_share_of_the_range_of_each_sample_or_absolute():
    images = IMAGES * np.array([1.0, 3.0, 10.0], "float32")[:, None, None, None]
    method = ke.methods.smooth(identity, num_samples=400, stddev=0.2, statistic="variance")
    deviation = np.sqrt(_explain(method, x=images).mean((1, 2, 3)))
    ranges = np.ptp(images, axis=(1, 2, 3))
    np.testing.assert_allclose(deviation, 0.2 * ranges, rtol=0.02)
    method = ke.methods.smooth(
        identity, num_samples=400, stddev=0.2, statistic="variance", relative=False
    )
    deviation = np.sqrt(_explain(method, x=images).mean((1, 2, 3)))
    np.testing.assert_allclose(deviation, 0.2, rtol=0.02)


def test_statistics_are_those_of_the_maps_of_all_repetitions():
    noisy = draws(4, 0.3)
    assert np.abs(noisy.mean(0) - IMAGES).max() > 0.05
    for statistic, expected in {
        "mean": noisy.mean(0),
        "mean_square": (noisy**2).mean(0),
        "variance": noisy.var(0),
    }.items():
        method = ke.methods.smooth(identity, num_samples=4, stddev=0.3, statistic=statistic)
        np.testing.assert_allclose(_explain(method), expected, rtol=1e-4, atol=1e-5)


def test_the_seed_decides_the_noise():
    maps = _explain(METAS["smooth"]("gradients"))
    np.testing.assert_array_equal(maps, _explain(METAS["smooth"]("gradients", seed=0)))
    np.testing.assert_array_equal(
        _explain(METAS["smooth"](identity)), _explain(METAS["smooth"](identity))
    )
    other = _explain(METAS["smooth"](identity, seed=1))
    assert not np.allclose(_explain(METAS["smooth"](identity)), other, atol=1e-2)


@pytest.mark.parametrize("name", METAS)
def test_a_map_does_not_depend_on_the_rest_of_the_batch(name):
    model, method = zoo.any_size().model, METAS[name]("gradients")
    together = _explain(method, model)
    for i, image in enumerate(IMAGES):
        np.testing.assert_allclose(_explain(method, model, image[None])[0], together[i], rtol=1e-4)


@pytest.mark.parametrize("name", METAS)
def test_the_highest_unit_is_that_of_the_inputs_as_they_are(name):
    model = zoo.any_size().model
    options = {} if name == "tta" else {"stddev": 3.0}
    logits, maps = ke.explain(METAS[name]("gradients", **options), model, IMAGES, "argmax", **RAW)
    highest = model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(logits[:, 0], highest.max(-1), rtol=1e-6)
    expected = _explain(METAS[name]("gradients", **options), model, y=highest.argmax(-1))
    np.testing.assert_allclose(maps, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["eager", "xla", "replicas"])
@pytest.mark.parametrize("name", METAS)
def test_every_way_of_running_gives_the_same_maps(name, mode):
    method = METAS[name]("input_x_gradient" if name != "smooth_taylor" else "gradients")
    expected = _explain(method)
    if mode == "replicas":
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = zoo.any_size().model
        maps = _explain(method, model)
    else:
        maps = _explain(
            method, **({"run_eagerly": True} if mode == "eager" else {"jit_compile": True})
        )
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", METAS)
def test_options_of_the_method_and_several_inputs_are_passed_on(name):
    specimen = zoo.several_inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        maps = _explain(METAS[name]("gradients"), specimen.model, specimen.x, reduction=None)
    shapes = {key: m.shape for key, m in maps.items()}
    assert shapes == {"image": (3, 6, 6, 3, 5), "vector": (3, 2, 1, 5)}
    with pytest.raises(TypeError, match="unknown option 'colour'"):
        _explain(METAS[name]("gradients"), specimen.model, specimen.x, colour=1)


@pytest.mark.parametrize("statistic", ["mean", "mean_square", "variance"])
def test_copies_explained_side_by_side_change_no_map(statistic):
    kind = {"num_samples": 7, "stddev": 0.3, "statistic": statistic}
    one_by_one = _explain(ke.methods.smooth(identity, chunk_size=1, **kind))
    copies = draws(7, 0.3, chunk_size=1)
    expected = {
        "mean": np.mean(copies, 0),
        "mean_square": np.mean(np.square(copies), 0),
        "variance": np.var(copies, 0),
    }[statistic]
    np.testing.assert_allclose(one_by_one, expected, atol=1e-4)
    for copies_at_a_time in (2, 3, 7, 100):
        size = copies_at_a_time * len(IMAGES)
        method = ke.methods.smooth(identity, chunk_size=size, **kind)
        np.testing.assert_allclose(_explain(method), one_by_one, 1e-5, 1e-6)


def test_a_chunk_holds_as_many_copies_as_it_says():
    batches = []

    def noted(model, inputs, indices=None):
        batches.append(inputs.shape[0])
        return identity(model, inputs, indices)

    method = ke.methods.smooth(noted, num_samples=5, chunk_size=2 * len(IMAGES) + 1)
    _explain(method, y=1, run_eagerly=True)
    assert batches == [len(IMAGES), 2 * len(IMAGES), 2 * len(IMAGES)]


@pytest.mark.parametrize("name", ["smooth", "smooth_taylor"])
@pytest.mark.parametrize("mode", [{}, {"jit_compile": True}])
def test_batches_of_any_size_are_explained_in_chunks_as_large_as_others(name, mode):
    sizes = []

    def noted(model, inputs, indices=None, *, reduction="max"):
        if not mode:  # XLA can't call back.
            tf.py_function(lambda n: sizes.append(int(n)), [tf.shape(inputs)[0]], [])
        return ke.methods.get("gradients")(model, inputs, indices, reduction=reduction)

    meta = getattr(ke.methods, name)
    method = meta(noted, num_samples=5, stddev=0.3, chunk_size=7)
    explainer = ke.Explainer(method, zoo.any_size().model, postprocessing=None, **mode)
    for batch, expected in ((3, [1, 2, 2]), (2, [2, 3]), (1, [5]), (3, [1, 2, 2])):
        sizes.clear()
        maps = explainer.explain(IMAGES[:batch], 1, verbose=0)[1]
        assert sorted(sizes) == ([] if mode else [copies * batch for copies in expected])
        alone = meta("gradients", num_samples=5, stddev=0.3)
        expected = ke.explain(alone, zoo.any_size().model, IMAGES[:batch], 1, **RAW)[1]
        np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5 * np.abs(maps).max())


def test_copies_that_one_chunk_holds_are_traced_once():
    traces = []

    def counted(model, inputs, indices=None):
        traces.append(1)
        return identity(model, inputs, indices)

    _explain(ke.methods.smooth(counted, num_samples=5, chunk_size=5 * len(IMAGES)), y=1)
    assert len(traces) == 1


@pytest.mark.parametrize(("statistic", "count"), [("mean", 0), ("mean_square", 1), ("variance", 1)])
def test_nothing_is_squared_that_the_statistic_does_not_need(statistic, count):
    method = ke.methods.smooth(identity, num_samples=2, statistic=statistic)
    exposed = ke.inspection.expose(zoo.functional().model)
    compiled = tf.function(lambda x: method(exposed, x))
    graph = compiled.get_concrete_function(tf.constant(IMAGES)).graph
    assert [operation.type for operation in graph.get_operations()].count("Square") == count


def test_detections_go_along_with_their_samples():
    detections = np.array([[1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]], "float32")
    model = zoo.functional().model
    smoothed = ke.methods.smooth("minmaxcam", num_samples=2, stddev=0.0)
    maps = _explain(smoothed, model, detections=detections, batch_size=2)
    expected = _explain("minmaxcam", model, detections=detections)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)


def test_copies_of_points_have_the_options_of_their_samples(monkeypatch):
    monkeypatch.setattr(_registry, "_METHODS", dict(_registry._METHODS))

    @ke.methods.explaining_method(
        family="gradient", postprocessing=None, sample_options=["factors"], is_gradient=True
    )
    def multiplied(model, inputs, indices=None, *, reduction=None, factors=None):
        logits, maps = gradients(model, inputs, indices, reduction=reduction)
        return logits, maps * factors[:, None, None, None]

    gradients, factors = ke.methods.get("gradients"), np.arange(15, dtype="float32").reshape(3, 5)
    options = {"num_samples": 4, "chunk_size": 6}
    found = _explain(ke.methods.smooth_taylor("multiplied", **options), factors=factors)
    once = _explain(ke.methods.smooth_taylor("gradients", **options))
    np.testing.assert_allclose(found, once * factors[:, None, None], rtol=1e-5, atol=1e-6)


def test_meta_methods_nest():
    model = zoo.any_size().model
    inner = ke.methods.tta("gradcam", scales=(1, 2))
    nested = ke.methods.smooth(inner, num_samples=2, stddev=0.0)
    assert nested.__name__ == "smooth(tta(gradcam))"
    np.testing.assert_allclose(_explain(nested, model), _explain(inner, model), rtol=1e-5)
    layers_fused = ke.methods.smooth("zoomcam", num_samples=2, stddev=0.0)
    np.testing.assert_allclose(_explain(layers_fused, model), _explain("zoomcam", model), atol=1e-6)


def test_a_second_call_does_not_trace_again():
    traces = []

    def counted(model, inputs, indices=None):
        traces.append(1)
        return identity(model, inputs, indices)

    model = zoo.any_size().model
    for seed in (0, 0, 0):
        method = ke.methods.smooth(counted, num_samples=5, seed=seed, chunk_size=6)
        _explain(method, model, y=1)
    assert len(traces) == 2  # The first noisy copy, and the loop over the others.


# SmoothTaylor


def test_one_root_at_zero_on_a_linear_model_is_input_times_gradient():
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(5)])
    maps = _explain(ke.methods.smooth_taylor(root=0.0), model)
    expected = _explain("input_x_gradient", model)
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)


def test_a_root_may_be_an_array():
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(5)])
    maps = _explain(ke.methods.smooth_taylor(root=IMAGES[0]), model)
    kernel = model.layers[-1].kernel.numpy().reshape(6, 6, 3, 5)
    expected = ((IMAGES - IMAGES[0])[..., None] * kernel).sum(-2)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)


def test_smooth_taylor_is_the_mean_of_the_expansions_at_the_roots():
    roots = draws(3, 0.5, relative=False)
    terms = ((IMAGES - roots) * 2 * roots).mean(0)
    method = ke.methods.smooth_taylor(doubled, num_samples=3)
    for reduction, expected in {
        None: terms,
        "signed_sum": terms.sum(-1),
        "max": np.abs(terms).max(-1),
    }.items():
        maps = _explain(method, y=1, reduction=reduction)
        np.testing.assert_allclose(maps[..., 0], expected, rtol=1e-3, atol=1e-5)
    default = _explain(method, y=1)
    np.testing.assert_allclose(default[..., 0], terms.sum(-1), rtol=1e-3, atol=1e-5)
    wider = _explain(ke.methods.smooth_taylor(doubled, num_samples=3, stddev=1.0), y=1)
    assert not np.allclose(wider, default, rtol=0.1)


def search(objective, scale):
    """Search in the authors' way, one image at a time."""
    step, worse_moves, value = 0.1, 0, objective(scale)
    best = (value, scale)
    for _ in range(20):
        up, down = abs(scale + step), abs(scale - step)
        moved = up if objective(up) <= value else down
        reached = objective(moved)
        if reached > value:
            step *= 0.9
            worse_moves += 1
        else:
            worse_moves = 0
        best = min(best, (reached, moved))
        scale, value = moved, reached
        if worse_moves == 4:
            break
    return best[1]


def test_the_adaptive_search_moves_as_the_authors_do():
    # The maps of constant gradients are as wide as the noise, so the objective is one of its scale.
    noise = _explain(ke.methods.smooth_taylor(ones, num_samples=2, stddev=1.0), y=1)[..., 0]
    unit = np.abs(noise[0]).max()
    images = IMAGES * np.array([0.2, 1.0, 3.0], "float32")[:, None, None, None]
    # The rugged one ends elsewhere if three or five worse moves in a row end it.
    rugged = [lambda m, s: m.sin(80 * s) * m.cos(136 * s) - 0.02 * s]
    for score in [*(lambda m, s, t=t: m.abs(s - t) for t in (0.35, 0.9, 5.0)), *rugged]:

        def objective(maps, score=score):
            return score(tf.math, tf.reduce_max(tf.abs(maps), axis=(1, 2)) / unit)

        method = ke.methods.smooth_taylor(
            ones, num_samples=2, stddev="adaptive", objective=objective
        )
        maps = _explain(method, x=images, y=1)
        found = np.abs(maps[..., 0]).max((1, 2)) / unit
        expected = [search(lambda s, f=score: f(np, s), np.abs(x).mean()) for x in images]
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_adaptive_search_never_ends_above_its_start():
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    method = ke.methods.smooth_taylor(num_samples=2, stddev="adaptive")
    model = zoo.any_size().model
    found = area_under_total_variation(_explain(method, model, images, 1))
    start = ke.methods.smooth_taylor(num_samples=2, stddev=float(np.abs(images).mean()))
    assert found <= area_under_total_variation(_explain(start, model, images, 1)) + 1e-6


def test_total_variation_falls_for_smoother_maps():
    noise = np.random.default_rng(0).normal(size=(1, 64, 64, 1)).astype("float32")
    smooth = tf.image.resize(noise[:, :8, :8], (64, 64))
    assert area_under_total_variation(smooth) < 0.5 * area_under_total_variation(noise)
    np.testing.assert_array_equal(area_under_total_variation(np.ones((2, 64, 64, 3))), 0)


def test_total_variation_of_a_step_is_known_by_hand():
    # 40 × 40, one edge of 40 neighbours of height 1: 40 / 1600; one level, for the next is 27 wide.
    maps = np.zeros((1, 40, 40, 1), "float32")
    maps[:, :, 20:] = -3.0
    np.testing.assert_allclose(area_under_total_variation(maps), [[40 / 1600]], rtol=1e-6)


def test_total_variation_of_a_step_is_known_in_any_number_of_axes():
    # Of the 40 neighbours of each row of a volume, one differs; a signal has one row.
    for sizes in ((40,), (1, 40), (4, 6, 40)):
        maps = np.zeros((1, *sizes, 2), "float32")
        maps[..., 20:, 1] = -3.0
        np.testing.assert_allclose(area_under_total_variation(maps), [[0, 1 / 40]], rtol=1e-6)


def test_total_variation_of_a_signal_is_that_of_an_image_of_one_row():
    signal = np.random.default_rng(0).normal(size=(2, 100, 3)).astype("float32")
    found = area_under_total_variation(signal).numpy()
    np.testing.assert_allclose(found, area_under_total_variation(signal[:, None]), rtol=1e-5)
    assert (found > 1.5 * area_under_total_variation(signal[:, :40]).numpy()).all()  # Three levels.


@pytest.mark.parametrize("sizes", [(40,), (6, 5, 4)])
def test_the_adaptive_search_runs_on_inputs_of_any_rank(sizes):
    rank = len(sizes)
    x = inputs = keras.Input((*sizes, 2))
    x = getattr(layers, f"Conv{rank}D")(3, 3, activation="relu")(x)
    x = getattr(layers, f"GlobalAveragePooling{rank}D")()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    data = np.random.default_rng(0).normal(size=(2, *sizes, 2)).astype("float32")
    method = ke.methods.smooth_taylor(num_samples=3, stddev="adaptive")
    maps = _explain(method, model, data)
    assert maps.shape == (2, *sizes, 2)
    assert np.isfinite(maps).all()
    assert np.abs(maps).max() > 0


@pytest.mark.parametrize("size", [64, 96, 100, 150])
def test_total_variation_over_scales_is_that_of_scipy(size):
    """The levels are 2, 3, 4 and 5, so that every form of Simpson's rule is met."""
    ndimage = pytest.importorskip("scipy.ndimage")
    integrate = pytest.importorskip("scipy.integrate")
    level = np.random.default_rng(0).normal(size=(size, size))
    maps, curve = level.astype("float32")[None, ..., None], []
    while len(level) >= 30:
        m = np.abs(level) - np.abs(level).min()
        m = np.clip(m / np.percentile(m, 99), 0, 1)
        total = np.abs(np.diff(m, axis=0)).sum() + np.abs(np.diff(m, axis=1)).sum()
        curve.append(total / m.size)
        level = ndimage.gaussian_filter(level, 0.5, mode="reflect", truncate=4)
        smaller = -(-len(level) * 2 // 3)
        level = resize(level.astype("float32")[None, ..., None], (smaller, smaller))[0, ..., 0]
    expected = integrate.simpson(curve)
    np.testing.assert_allclose(area_under_total_variation(maps), [[expected]], rtol=1e-4)


# Test-time augmentation


def resize(x, sizes):
    return tf.image.resize(x, sizes).numpy()


@pytest.fixture(scope="module")
def resizable():
    """Return one model for all passes, whose steps are compiled once."""
    return zoo.any_size().model


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "max"])
def test_augmented_maps_are_those_of_every_pass(resizable, flip, rectify, normalize, reduction):
    model, passes = resizable, []
    for scale in (0.5, 1, 2):
        scaled = resize(IMAGES, (int(6 * scale), int(6 * scale)))
        for mirror in (1, -1) if flip else (1,):
            maps = _explain("gradcam", model, scaled[:, :, ::mirror].copy())[:, :, ::mirror]
            maps = np.maximum(maps, 0) if rectify else maps
            maps = maps / np.abs(maps).max((1, 2), keepdims=True) if normalize else maps
            passes.append(resize(maps, (6, 6)))
    expected = getattr(np, reduction)(passes, axis=0)
    options = {"scales": (0.5, 1, 2), "flip": flip, "rectify": rectify, "reduction": reduction}
    options["normalize"] = normalize
    # Every way of running is tested above.
    maps = _explain(ke.methods.tta("gradcam", **options), model, run_eagerly=True)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())


def test_volumes_are_scaled_along_every_axis_and_mirrored_along_the_last():
    inputs = keras.Input((None, None, None, 2))
    x = layers.Conv3D(3, 2, padding="same", activation="relu")(inputs)
    x = layers.Dense(2)(layers.GlobalAveragePooling3D()(x))
    model = keras.Model(inputs, x)
    volumes = np.random.default_rng(0).normal(size=(2, 4, 5, 6, 2)).astype("float32")
    expected = []
    for sizes in ((4, 5, 6), (8, 10, 12)):
        scaled = ke.filters.resize(volumes, sizes).numpy()
        for mirror in (1, -1):
            maps = _explain("gradcam", model, scaled[..., ::mirror, :].copy())[..., ::mirror, :]
            expected.append(ke.filters.resize(np.maximum(maps, 0), (4, 5, 6)))
    expected = np.mean(expected, axis=0)
    maps = _explain(ke.methods.tta("gradcam", scales=(1, 2)), model, volumes)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * expected.max())


def test_defaults_are_those_of_the_authors():
    model = zoo.any_size().model
    maps = _explain(ke.methods.tta("gradcam"), model)
    options = {"scales": (0.5, 1.0, 1.5, 2.0), "flip": True, "rectify": True, "reduction": "mean"}
    options["normalize"] = False
    np.testing.assert_array_equal(maps, _explain(ke.methods.tta("gradcam", **options), model))


@pytest.mark.parametrize("method", ["gradients", "gradcam", "full_gradients", "layercam"])
def test_a_mirrored_image_has_the_mirrored_map(method):
    model = zoo.any_size().model  # Its kernels are not symmetric.
    augmented = ke.methods.tta(method, scales=(1, 1.5), rectify=False)
    maps = _explain(augmented, model)
    mirrored = _explain(augmented, model, IMAGES[:, :, ::-1].copy())[:, :, ::-1]
    np.testing.assert_allclose(mirrored, maps, atol=1e-5 * np.abs(maps).max())
    plain = _explain(method, model)
    flipped = _explain(method, model, IMAGES[:, :, ::-1].copy())[:, :, ::-1]
    assert not np.allclose(flipped, plain, atol=1e-2 * np.abs(plain).max())


def test_the_mean_of_a_constant_method_is_the_constant():
    def constant(model, inputs, indices=None):
        logits = ke.inspection.gather_units(model(inputs, training=False)[0], indices)
        return logits, tf.ones_like(inputs[..., :1]) * tf.ones_like(logits)[:, None, None]

    maps = _explain(ke.methods.tta(constant))
    np.testing.assert_allclose(maps, np.ones((3, 6, 6, 5)), rtol=1e-6)


def test_a_model_of_one_size_is_explained_with_its_mirror_image_only():
    model = zoo.functional().model
    with pytest.warns(UserWarning, match=r"fixed size \(6, 6\).*not at \(0.5, 1.0"):
        maps = _explain(ke.methods.tta("gradcam"), model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = _explain(ke.methods.tta("gradcam", scales=1), model)
    np.testing.assert_allclose(maps, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda: ke.methods.smooth("gradient"), "Did you mean 'gradients'"),
        (lambda: ke.methods.smooth("gradcam", num_samples=0), r"`num_samples`.*0"),
        (lambda: ke.methods.smooth("gradcam", stddev=-1.0), r"`stddev`.*-1.0"),
        (lambda: ke.methods.smooth("gradcam", chunk_size=0), r"`chunk_size`.*0"),
        (lambda: ke.methods.smooth("gradcam", seed=0.5), r"`seed`.*0.5"),
        (lambda: ke.methods.smooth("gradcam", statistic="median"), r"`statistic`.*'median'"),
        (lambda: ke.methods.smooth_taylor("gradcam"), r"option `reduction`.*'gradcam'"),
        (lambda: ke.methods.smooth_taylor("input_x_gradient"), r"are gradients.*input_x_gradient"),
        (lambda: ke.methods.smooth_taylor(ke.methods.smooth("input_x_gradient")), "are gradients"),
        (lambda: ke.methods.smooth_taylor(ke.methods.tta("gradients")), "are gradients"),
        (lambda: ke.methods.smooth("gradcam", stddev=float("inf")), r"`stddev`.*inf"),
        (lambda: ke.methods.tta("gradcam", scales=(float("nan"),)), r"`scales`.*nan"),
        (lambda: ke.methods.smooth_taylor(stddev="auto"), r"`stddev`.*'auto'"),
        (lambda: ke.methods.smooth_taylor(stddev="adaptive", root=0), r"`root`.*0"),
        (lambda: ke.methods.tta("gradcam", scales=()), r"`scales`.*\(\)"),
        (lambda: ke.methods.tta("gradcam", scales=(1, -2)), r"`scales`.*\(1, -2\)"),
        (lambda: ke.methods.tta("gradcam", reduction="median"), r"`reduction`.*'median'"),
    ],
)
def test_bad_options_are_named(wrap, message):
    with pytest.raises(ValueError, match=message):
        wrap()


def test_augmentation_takes_maps_only():
    with pytest.raises(ValueError, match=r"`method`.*one map per input"):
        _explain(ke.methods.tta("full_gradients"), terms=True)


def test_meta_methods_take_methods_only():
    with pytest.raises(TypeError, match="`method`"):
        ke.methods.tta(3)
    with pytest.raises(TypeError, match="`method`"):
        ke.methods.smooth()
    vector = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"`inputs`.*positions.*\(2, 4\)"):
        _explain(ke.methods.tta("gradients", scales=1), vector, np.ones((2, 4)))


def test_meta_methods_are_found_by_name():
    assert ke.methods.get_meta("tta") is ke.methods.tta
    with pytest.raises(
        ValueError, match=r"one of guided, smooth, smooth_taylor, tta. Received: 'tti'"
    ):
        ke.methods.get_meta("tti")


def test_lists_and_numbers_of_numpy_are_taken():
    assert ke.methods.tta("gradcam", scales=[1, 2]) is ke.methods.tta("gradcam", scales=(1, 2))
    options = {"num_samples": np.int64(3), "stddev": np.float32(0.25), "seed": np.int64(1)}
    maps = _explain(ke.methods.smooth("gradients", **options))
    expected = _explain(ke.methods.smooth("gradients", num_samples=3, stddev=0.25, seed=1))
    np.testing.assert_allclose(maps, expected, rtol=1e-6)


def test_noise_inside_noise_is_another_noise():
    inner = ke.methods.smooth(identity, num_samples=1, stddev=0.5, relative=False)
    outer = ke.methods.smooth(inner, num_samples=1, stddev=0.5, relative=False)
    first = _explain(inner) - IMAGES
    second = _explain(outer) - IMAGES - first
    assert np.abs(second - first).max() > 0.1
    assert abs(np.corrcoef(first[0].ravel(), second[0].ravel())[0, 1]) < 0.3


def test_the_seed_and_the_number_of_roots_change_the_map():
    maps = _explain(METAS["smooth_taylor"](doubled), y=1)
    for options in ({"seed": 1}, {"num_samples": 4}):
        other = _explain(ke.methods.smooth_taylor(doubled, **{"num_samples": 3} | options), y=1)
        assert np.abs(other - maps).max() > 0.05 * np.abs(maps).max()


def test_the_adaptive_scale_of_a_unit_is_its_own():
    model = zoo.any_size().model
    method = ke.methods.smooth_taylor(num_samples=2, stddev="adaptive")
    every = _explain(method, model)
    for unit in (0, 3):
        one = _explain(method, model, y=unit)
        np.testing.assert_allclose(one[..., 0], every[..., unit], atol=1e-4 * np.abs(every).max())


def test_an_input_of_which_one_size_is_fixed_keeps_its_size():
    x = inputs = keras.Input((6, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(5)(x))
    with pytest.warns(UserWarning, match="fixed size"):
        maps = _explain(ke.methods.tta("gradcam", scales=(1, 2)), model)
    assert maps.shape == (3, 6, 6, 5)


def test_bad_roots_and_objectives_are_named():
    with pytest.raises(ValueError, match=r"`root`.*broadcasts to \(3, 6, 6, 3\).*'a'"):
        _explain(ke.methods.smooth_taylor(root="a"))
    with pytest.raises(TypeError, match=r"`objective`.*3"):
        ke.methods.smooth_taylor(stddev="adaptive", objective=3)


def test_a_function_around_a_method_is_not_passed_over():
    inner = ke.methods.smooth("gradients", num_samples=1, stddev=0.0)

    @functools.wraps(inner)
    def doubling(*args, **options):
        logits, maps = inner(*args, **options)
        return logits, 2 * maps

    model = zoo.any_size().model
    np.testing.assert_allclose(_explain(doubling, model), 2 * _explain(inner, model), rtol=1e-6)
