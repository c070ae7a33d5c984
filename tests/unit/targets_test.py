import gc
import inspect
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from keras_explainable import targets
from tests import zoo

pytestmark = pytest.mark.usefixtures("_eagerly")

RAW = {"postprocessing": None, "resizing": False, "verbose": 0}
NEEDS = {name: ke.methods.registration(name).needs for name in zoo.METHODS}
# A head that is a function has no rule of relevance; `relevance_test` compares it with gradients.
METHODS = [name for name, needs in NEEDS.items() if needs in (None, "max-pooling")]
LINEAR = [name for name, needs in NEEDS.items() if needs == "linear head"]
FEW = ("gradients", "gradcam", "scorecam")
CLASSES = 4
_random = np.random.default_rng(3)
IMAGES = _random.normal(size=(3, 6, 6, 3)).astype("float32")
MASK = _random.integers(0, 2, (1, 6, 6)).astype(bool)
MASKS = _random.integers(0, 2, (3, 6, 6)).astype(bool)
REFERENCES = _random.normal(size=(2, 8)).astype("float32")


class Function(layers.Layer):
    """A function as a layer, which nothing is known of."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def _trunk():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="first")(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="second")(x)
    return inputs, layers.Conv2D(8, 3, padding="same", name="third", activation="relu")(x)


def _segmenter(activation="softmax"):
    inputs, x = _trunk()
    x = layers.Conv2D(CLASSES, 1, activation=activation, name="scores", bias_initializer="normal")(
        x
    )
    return keras.Model(inputs, x)


def _classifier(activation="softmax"):
    inputs, x = _trunk()
    x = layers.GlobalAveragePooling2D(name="embedding")(x)
    x = layers.Dense(CLASSES, activation=activation, bias_initializer="normal")(x)
    return keras.Model(inputs, x)


def _with_head(model, function, endpoint=None):
    """Return a model that returns a function of what comes before the last activation."""
    tensor = model.get_layer(endpoint).output if endpoint else None
    if tensor is None:
        *_, before, last = model.layers
        config = last.get_config() | {"activation": "linear", "name": "linear"}
        linear = type(last).from_config(config)
        tensor = linear(before.output)
        linear.set_weights(last.get_weights())
    return keras.Model(model.inputs, Function(function)(tensor))


def _predicted(scores):
    region = tf.one_hot(tf.argmax(scores, -1), CLASSES)
    total = tf.reduce_sum(region, (1, 2))
    return tf.reduce_sum(scores * region, (1, 2)) / tf.maximum(total, 1)


def _cosine(embedding):
    reference = REFERENCES / np.linalg.norm(REFERENCES, axis=1, keepdims=True)
    return tf.matmul(tf.math.l2_normalize(embedding, -1), reference, transpose_b=True)


MEAN = MASK[..., None] / MASK.sum()
CASES = {
    "all": (_segmenter, targets.segment("all"), lambda z: tf.reduce_mean(z, (1, 2))),
    "mask": (_segmenter, targets.segment(MASK), lambda z: tf.reduce_sum(z * MEAN, (1, 2))),
    "predicted": (_segmenter, targets.segment(), _predicted),
    "pixel": (_segmenter, targets.position((2, -1)), lambda z: z[:, 2, 5]),
    "contrast": (_classifier, targets.contrast(3, 1), lambda z: z[:, 3:] - z[:, 1:2]),
    "probability": (_classifier, targets.probability(), tf.nn.softmax),
    "log": (_classifier, targets.probability(log=True), tf.nn.log_softmax),
    "loss": (_classifier, targets.loss(2), lambda z: -tf.nn.log_softmax(z)[:, 2:3]),
    "contrasted regions": (
        _segmenter,
        targets.contrast(0, 2, output=targets.segment("all")),
        lambda z: tf.reduce_mean(z[..., :1] - z[..., 2:3], (1, 2)),
    ),
}


def _options(method):
    options = dict(RAW)
    if ke.methods.registration(method).family == "cam" and method != "zoomcam":
        options["layer"] = "second"
    if "activation" in inspect.signature(ke.methods.get(method)).parameters:
        options["activation"] = "sigmoid"
    return options


def _assert_close(actual, desired, tolerance=1e-5):
    for a, d in zip(actual, desired, strict=True):
        assert a.shape == d.shape
        np.testing.assert_allclose(a, d, rtol=1e-4, atol=tolerance * max(np.abs(d).max(), 1e-3))


# Of an activation at the end that is explained too.
@pytest.mark.filterwarnings("ignore:The terms of FullGrad")
@pytest.mark.parametrize(
    ("method", "case"),
    [(m, c) for c in CASES for m in METHODS if c in ("mask", "predicted") or m in FEW],
)
def test_a_target_is_explained_like_a_head_that_returns_it(method, case):
    build, target, function = CASES[case]
    model = build()
    expected = ke.explain(method, _with_head(model, function), IMAGES, **_options(method))
    actual = ke.explain(method, model, IMAGES, output=target, batch_size=2, **_options(method))
    _assert_close(actual, expected)


@pytest.mark.parametrize("method", FEW)
def test_an_embedding_is_explained_by_its_similarity(method):
    model = _classifier()
    expected = _with_head(model, _cosine, "embedding")
    expected = ke.explain(method, expected, IMAGES, **_options(method))
    target = targets.similarity(REFERENCES, output="embedding")
    _assert_close(ke.explain(method, model, IMAGES, output=target, **_options(method)), expected)


@pytest.mark.parametrize("method", LINEAR)
def test_methods_that_need_a_linear_head_say_so(method):
    with pytest.raises(ValueError, match=r"one linear layer away.*a function of the outputs"):
        ke.explain(method, _segmenter(), IMAGES, output=targets.segment("all"), layer="second")


def _per_sample():
    labels = np.array([1, 3, 0])
    return {
        "masks": (_segmenter, lambda i: targets.segment(MASKS[i])),
        "weights": (_segmenter, lambda i: targets.segment(MASKS[i].astype("float32") * 0.3)),
        "pixels": (_segmenter, lambda i: targets.position(np.array([[1, 2], [0, 5], [4, 4]])[i])),
        "units": (_classifier, lambda i: targets.contrast(labels[i], 2)),
        "labels": (_classifier, lambda i: targets.loss(labels[i])),
        "one-hot": (
            _classifier,
            lambda i: targets.loss(np.eye(CLASSES)[labels[i]], "categorical_crossentropy"),
        ),
        "references": (
            _classifier,
            lambda i: targets.similarity(IMAGES[i][:, :1, :2, :].reshape(-1, 1, 6)[..., :4]),
        ),
    }


@pytest.mark.parametrize("method", METHODS)
def test_data_of_samples_travel_with_them(method):
    _check_one_by_one(method, "masks")


@pytest.mark.parametrize("case", sorted(set(_per_sample()) - {"masks"}))
def test_data_of_all_kinds_travel_with_their_samples(case):
    _check_one_by_one("gradients", case)
    _check_one_by_one("gradcam", case)


def _check_one_by_one(method, case):
    build, target = _per_sample()[case]
    model, options = build(), _options(method)
    together = ke.explain(
        method, model, IMAGES, output=target(slice(None)), batch_size=2, **options
    )
    for i in range(3):
        rows = slice(i, i + 1)
        alone = ke.explain(method, model, IMAGES[rows], output=target(rows), **options)
        _assert_close([part[rows] for part in together], alone)


@pytest.mark.parametrize("method", [*FEW, "ablationcam", "integrated_gradients"])
def test_two_replicas_share_the_data_of_a_target(method):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        mirrored = _segmenter()
    model = _segmenter()
    model.set_weights(mirrored.get_weights())
    options = _options(method) | {"output": targets.segment(MASKS)}
    expected = ke.explain(method, model, IMAGES, **options)
    _assert_close(ke.explain(method, mirrored, IMAGES, batch_size=2, **options), expected)


@pytest.mark.compiled
@pytest.mark.parametrize("mode", [{"run_eagerly": True}, {"jit_compile": True}])
@pytest.mark.parametrize(
    "target",
    [
        targets.segment(MASKS),
        targets.segment(),
        targets.position((1, 2)),
        targets.segment(MASKS[:, :4]),
    ],
)
def test_targets_run_in_every_mode(mode, target):
    model = _segmenter()
    for method in ("gradcam", "integrated_gradients") if target.mirrored == (True,) else FEW[:1]:
        expected = ke.explain(method, model, IMAGES, output=target, **_options(method))
        actual = ke.explain(method, model, IMAGES, output=target, **_options(method), **mode)
        _assert_close(actual, expected)


def _traced(method):
    traces = []

    def traced(model, inputs, indices=None):
        traces.append(1)
        return ke.methods.get(method)(model, inputs, indices)

    traced.registration = ke.methods.registration(method)._replace(method=traced)
    return traced, traces


@pytest.mark.compiled
def test_other_data_of_the_same_shape_do_not_retrace():
    model, (method, traces) = _segmenter(), _traced("gradients")
    others = [MASKS, ~MASKS, MASK, MASKS[:, ::-1]]
    found = [ke.explain(method, model, IMAGES, output=targets.segment(m), **RAW) for m in others]
    assert len(traces) == 1
    assert np.abs(found[0][1] - found[1][1]).max() > 1e-3
    for y, index in ((0, (1, 2)), (1, (3, 4))):
        ke.explain(method, model, IMAGES, y, output=targets.position(index), **RAW)
    assert len(traces) == 2
    function = lambda outputs: outputs[:, 0, 0]  # noqa: E731
    for _ in range(2):
        ke.explain(method, model, IMAGES, output=function, **RAW)
    assert len(traces) == 3


def test_an_explainer_takes_other_data():
    model = _segmenter()
    explainer = ke.Explainer("gradcam", model, output=targets.segment(MASKS), layer="second")
    expected = ke.gradcam(model, IMAGES, output=targets.segment(~MASKS), layer="second")
    _assert_close(explainer.explain(IMAGES, target=targets.segment(~MASKS)), expected)
    with pytest.raises(ValueError, match="`target`.*differs from `output` in its data"):
        explainer.explain(IMAGES, target=targets.segment())


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_every_kind_of_model_takes_targets(kind):
    specimen = zoo.KINDS[kind]()
    options = {k: v for k, v in specimen.options.items() if k != "output"} | RAW
    before = zoo.fingerprint(specimen.model)
    pairs = np.array([1, 4, 2])
    target = targets.contrast(pairs, 0, output=specimen.options.get("output"))
    derivative = np.take_along_axis(zoo.input_gradients(), pairs[:, None, None, None, None], -1)
    weights = (zoo.HEAD[:, pairs] - zoo.HEAD[:, :1]) / zoo.SIZE**2
    wanted = {
        "gradients": np.abs(derivative - zoo.input_gradients()[..., :1]).max(3),
        "gradcam": np.einsum("bhwk,kb->bhw", zoo.activations(), weights)[..., None],
    }
    for method, expected in wanted.items():
        own = options if method != "gradients" else RAW
        logits, maps = ke.explain(method, specimen.model, specimen.x, output=target, **own)
        if method == "gradients":
            maps = maps[specimen.image] if isinstance(maps, list | dict) else maps
        error = np.linalg.norm(maps - expected) / np.linalg.norm(expected)
        assert error < max(specimen.tolerance, 1e-4)
        difference = zoo.logits()[[0, 1, 2], pairs] - zoo.logits()[:, 0]
        np.testing.assert_allclose(logits[:, 0], difference, atol=10 * specimen.tolerance)
    assert zoo.fingerprint(specimen.model) == before


@pytest.mark.compiled
@pytest.mark.parametrize(
    "kind", ["functional", "nested_with_pooling", "subclassed", "nested_backbone_with_tensorflow"]
)
def test_models_explained_with_targets_leave_nothing_alive(kind):
    alive, kept = [], len(ke.engine.explaining._explainers)
    for target in (targets.contrast([1, 2, 3], 0), targets.probability()):
        model = zoo.KINDS[kind]().model
        for method in ("gradcam", "ablationcam", "full_gradients"):
            ke.explain(method, model, zoo.IMAGES, output=target, verbose=0)
        alive.append(weakref.ref(model))
        alive.extend(weakref.ref(variable) for variable in model.variables)
        del model
    keras.backend.clear_session()
    gc.collect()
    assert sum(reference() is not None for reference in alive) == 0
    assert len(ke.engine.explaining._explainers) <= kept


def _detector(boxes=4):
    inputs, x = _trunk()
    small = layers.MaxPooling2D(name="small")(x)
    levels = []
    for name, units in (("scores", CLASSES), ("boxes", boxes)):
        found = [
            layers.Reshape((-1, units))(
                layers.Conv2D(units, 3, padding="same", name=f"{name}{i}")(x)
            )
            for i, x in enumerate((x, small))
        ]
        levels.append(layers.Concatenate(axis=1)(found))
    return keras.Model(inputs, {"cls_logits": levels[0], "bbox_regression": levels[1]})


def _gradients_of(model, function):
    """Differentiate by the images what a function makes of the outputs, one value per sample."""
    x = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(model(x))
    return np.abs(tape.gradient(value, x)).max(-1), value.numpy()


@pytest.mark.parametrize("name", ["cls_logits", "bbox_regression"])
def test_boxes_are_explained(name):
    model = _detector()
    outputs = {key: value.numpy() for key, value in model(IMAGES).items()}
    highest = outputs["cls_logits"].argmax(1)
    rows = np.arange(3)
    if name == "cls_logits":
        cases = [(targets.box_score(), 2, highest[:, 2])]
        cases += [
            (targets.box_score([7, 0, 44]), 1, [7, 0, 44]),
            (targets.box_score(5), 0, [5] * 3),
        ]
        cases.append((targets.box_score(5, scores=lambda o: o["cls_logits"]), 0, [5] * 3))
    else:
        overall = outputs["cls_logits"].max(-1).argmax(1)
        cases = [(targets.box_coordinate(), 2, overall)]
        cases.append((targets.box_coordinate(label=3), 1, highest[:, 3]))
        cases.append((targets.box_coordinate(label=[1, 2, 0]), 1, highest[rows, [1, 2, 0]]))
        cases.append((targets.box_coordinate([7, 0, 44]), 3, [7, 0, 44]))
    for target, unit, anchors in cases:
        indices = np.stack([rows, anchors, np.full(3, unit)], 1)
        expected, values = _gradients_of(model, lambda o: tf.gather_nd(o[name], indices))  # noqa: B023
        logits, maps = ke.gradients(model, IMAGES, unit, output=target, **RAW)
        np.testing.assert_allclose(logits[:, 0], values, rtol=1e-5)
        np.testing.assert_allclose(maps[..., 0], expected, rtol=1e-4, atol=1e-6)


def _transformer_detector():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Reshape((36, 8))(x)
    scores = layers.Dense(CLASSES, kernel_initializer=keras.initializers.RandomNormal(0, 2))(x)
    boxes = layers.Dense(4, activation="sigmoid", kernel_initializer="he_normal")(x)
    return keras.Model(inputs, {"scores": layers.Softmax()(scores), "boxes": boxes})


class SubclassedDetector(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = _transformer_detector()

    def call(self, inputs):
        return self.inner(tf.reverse(tf.reverse(inputs, [1]), [1]))


@pytest.mark.filterwarnings("ignore:.*does not have a `build..` method:UserWarning")
@pytest.mark.parametrize("build", [_transformer_detector, SubclassedDetector])
def test_boxes_are_chosen_and_explained_as_the_model_returns_them(build):
    keras.utils.set_random_seed(1)
    model = build()
    outputs = model.predict(IMAGES, verbose=0)
    probabilities, boxes, rows = outputs["scores"], outputs["boxes"], np.arange(3)
    inner = getattr(model, "inner", model)
    logits = next(
        keras.Model(inner.inputs, layer.input).predict(IMAGES, verbose=0)
        for layer in inner.layers
        if isinstance(layer, layers.Softmax)
    )
    highest = probabilities.argmax(1)
    # Logits alone would choose other boxes.
    assert (highest != logits.argmax(1)).any()
    found, _ = ke.gradients(model, IMAGES, output=targets.box_score(scores="scores"))
    np.testing.assert_allclose(found, np.take_along_axis(logits, highest[:, None], 1)[:, 0], 1e-4)
    keys = {"boxes": "boxes", "scores": "scores"}
    cases = [(None, probabilities.max(-1).argmax(1))]
    cases += [(label, highest[:, label]) for label in range(CLASSES)]
    for label, anchors in cases:
        target = targets.box_coordinate(label=label, **keys)
        found, _ = ke.gradients(model, IMAGES, output=target)
        np.testing.assert_allclose(found, boxes[rows, anchors], rtol=1e-4)
    indices = np.stack([rows, [7, 0, 30], [2] * 3], 1)
    expected, values = _gradients_of(model, lambda o: tf.gather_nd(o["boxes"], indices))
    target = targets.box_coordinate([7, 0, 30], boxes="boxes")
    found, maps = ke.gradients(model, IMAGES, 2, output=target, **RAW)
    np.testing.assert_allclose(found[:, 0], values, rtol=1e-4)
    np.testing.assert_allclose(maps[..., 0], expected, rtol=1e-3, atol=1e-6)
    target = targets.loss(boxes + 1, "mse", output=lambda o: o["boxes"])
    np.testing.assert_allclose(ke.gradients(model, IMAGES, output=target)[0], 1, rtol=1e-4)


def test_every_level_that_scores_a_box_is_explained():
    model = _detector()
    exposed = ke.inspection.expose(model, outputs=targets.box_score())
    assert [tuple(t.shape) for t in exposed.outputs] == [
        (None, 4),
        (None, 6, 6, 8),
        (None, 3, 3, 8),
    ]
    _, maps = ke.gradcam(model, IMAGES, 1, output=targets.box_score(), postprocessing=None)
    assert maps.shape == (3, 6, 6, 1)


def test_a_head_that_is_not_explained_is_not_run():
    model = _detector()
    exposed = ke.inspection.expose(model, outputs=lambda o: o["bbox_regression"][:, 0])
    names = {layer.name for layer in exposed.layers}
    assert "boxes0" in names
    assert not {"scores0", "scores1"} & names


@pytest.mark.parametrize("kind", ["subclassed", "nested_backbone_with_tensorflow"])
def test_a_function_takes_outputs_as_the_model_returns_them(kind):
    model = zoo.KINDS[kind]().model
    logits, maps = ke.gradients(model, zoo.IMAGES, output=lambda p: p[:, 1:3] * 2, **RAW)
    probabilities = tf.nn.softmax(zoo.logits()).numpy()
    np.testing.assert_allclose(logits, 2 * probabilities[:, 1:3], rtol=1e-4)
    jacobian = zoo.input_gradients()
    mean = np.einsum("bhwcu,bu->bhwc", jacobian, probabilities)
    expected = 2 * probabilities[:, None, None, None, 1] * (jacobian[..., 1] - mean)
    np.testing.assert_allclose(maps[..., 0], np.abs(expected).max(-1), rtol=1e-3, atol=1e-6)


def test_functions_get_outputs_of_models_with_channels_first_with_channels_last():
    last = _segmenter(None)
    x = inputs = keras.Input((3, 6, 6))
    for layer in last.layers[1:]:
        x = layers.Conv2D.from_config(layer.get_config() | {"data_format": "channels_first"})(x)
    first = keras.Model(inputs, x)
    first.set_weights(last.get_weights())
    assert first.output_shape == (None, CLASSES, 6, 6)
    images = IMAGES.transpose(0, 3, 1, 2)
    for target in (lambda o: o[:, 2, 5], targets.Target(lambda o: o[:, 2, 5])):
        found, _ = ke.gradients(first, images, output=target)
        np.testing.assert_allclose(found, last(IMAGES)[:, 2, 5], rtol=1e-4, atol=1e-5)


def test_values_of_any_shape_are_units():
    inputs, x = _trunk()
    x = layers.GlobalAveragePooling2D()(x)
    depth = keras.ops.squeeze(layers.Dense(1)(x), -1)
    grid = layers.Reshape((2, 3))(layers.Dense(6)(x))
    model = keras.Model(inputs, {"depth": depth, "grid": grid})
    outputs = model(IMAGES)
    logits, _ = ke.gradcam(model, IMAGES, output=targets.values(output="depth"))
    np.testing.assert_allclose(logits[:, 0], outputs["depth"], rtol=1e-5)
    logits, _ = ke.gradcam(model, IMAGES, layer="third", output=targets.values(output="grid"))
    np.testing.assert_allclose(logits, np.reshape(outputs["grid"], (3, 6)), rtol=1e-5)
    logits, _ = ke.gradcam(model, IMAGES, output=lambda o: o["depth"][:, None])
    np.testing.assert_allclose(logits[:, 0], outputs["depth"], rtol=1e-5)


@pytest.mark.parametrize("sizes", [(7,), (4, 6), (2, 4, 3)])
@pytest.mark.parametrize("region", ["predicted", "all", "mask", "masks of classes", "nothing"])
def test_regions_of_any_rank(sizes, region):
    scores = _random.normal(size=(2, *sizes, 3)).astype("float32")
    masks = {
        "predicted": np.eye(3)[scores.argmax(-1)],
        "all": np.ones(scores.shape),
        "mask": _random.integers(0, 2, (2, *sizes, 1)) > 0,
        "masks of classes": _random.integers(0, 2, (2, *sizes, 3)) > 0,
        "nothing": np.zeros((2, *sizes, 1), bool),
    }
    mask = np.broadcast_to(masks[region], scores.shape)
    axes = tuple(range(1, scores.ndim - 1))
    expected = (scores * mask).sum(axes) / np.maximum(mask.sum(axes), 1)
    given = masks[region][..., 0] if masks[region].shape[-1] == 1 else masks[region]
    target = targets.segment(region if region in ("predicted", "all") else given)
    inputs = keras.Input((*sizes, 3))
    model = keras.Model(inputs, Function(tf.identity)(inputs))
    logits, maps = ke.gradients(model, scores, output=target, **RAW, reduction="signed_sum")
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    derivative = mask / np.maximum(mask.sum(axes, keepdims=True), 1)
    np.testing.assert_allclose(maps, derivative, rtol=1e-5, atol=1e-6)


def test_a_single_class_is_predicted_where_it_is_positive():
    inputs = keras.Input((5, 1))
    model = keras.Model(inputs, layers.Activation("sigmoid")(Function(tf.identity)(inputs)))
    scores = np.array([[-1.0, 2.0, 3.0, -4.0, 0.0], [-1.0, -1.0, -1.0, -1.0, -1.0]])[..., None]
    logits, _ = ke.gradients(model, scores, output=targets.segment())
    np.testing.assert_allclose(logits, [[2.5], [0.0]])


def test_masks_of_the_image_count_positions_by_their_share():
    inputs = keras.Input((12, 9, 3))
    x = layers.Conv2D(CLASSES, 3, strides=3, padding="same")(inputs)
    model = keras.Model(inputs, x)
    images = _random.normal(size=(2, 12, 9, 3)).astype("float32")
    masks = _random.integers(0, 2, (2, 12, 9)) > 0
    shares = masks.reshape(2, 4, 3, 3, 3).mean((2, 4))
    expected = np.einsum("bhwc,bhw->bc", model(images), shares) / shares.sum((1, 2))[:, None]
    logits, _ = ke.gradients(model, images, output=targets.segment(masks))
    np.testing.assert_allclose(logits, expected, rtol=1e-4)
    # Cells of a mask coarser than the output are spread over it.
    coarse = _random.integers(0, 2, (2, 2, 3)) > 0
    fine = coarse.repeat(2, axis=1)
    expected = np.einsum("bhwc,bhw->bc", model(images), fine) / np.maximum(
        fine.sum((1, 2))[:, None], 1
    )
    logits, _ = ke.gradients(model, images, output=targets.segment(coarse))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


def _any_size():
    x = inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="second")(x)
    return keras.Model(inputs, layers.Conv2D(CLASSES, 3, padding="same", name="scores")(x))


@pytest.mark.parametrize("method", ["gradcam", "gradients"])
def test_masks_are_mirrored_and_resized_with_images(method):
    model, options = _any_size(), {"postprocessing": None, "output": targets.segment(MASKS)}
    found = []
    for scale in (1, 2):
        images = tf.image.resize(IMAGES, (6 * scale, 6 * scale)).numpy()
        for step in (1, -1):
            mask = MASKS[:, :, ::step].repeat(scale, 1).repeat(scale, 2)
            target = {"output": targets.segment(mask)}
            _, maps = ke.explain(method, model, images[:, :, ::step], **(options | target))
            maps = np.maximum(maps, 0)[:, :, ::step]
            found.append(tf.image.resize(maps, (6, 6)).numpy())
    tta = ke.methods.tta(method, scales=(1, 2))
    _, maps = ke.explain(tta, model, IMAGES, **options)
    np.testing.assert_allclose(maps, np.mean(found, 0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "target"),
    [
        (_segmenter, targets.position((1, 1))),
        (_detector, targets.box_score(3)),
        (_detector, targets.box_coordinate()),
        (_segmenter, targets.contrast(0, 1, output=targets.position((1, 1)))),
        (_segmenter, targets.loss(np.zeros((3, 6, 6), int))),
    ],
)
def test_a_fixed_place_can_not_be_mirrored(build, target):
    tta = ke.methods.tta("gradcam", scales=1)
    with pytest.raises(ValueError, match="`output`.*can be mirrored.*as a mask"):
        ke.explain(tta, build(), IMAGES, output=target, layer="second")


def test_noise_leaves_the_data_of_a_target_alone():
    model = _classifier()
    smooth = ke.methods.smooth("gradients", num_samples=3)
    target = targets.similarity(REFERENCES, output="embedding")
    expected = ke.explain(smooth, _with_head(model, _cosine, "embedding"), IMAGES, **RAW)
    _assert_close(ke.explain(smooth, model, IMAGES, output=target, **RAW), expected)


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return IMAGES[2 * index : 2 * index + 2]


@pytest.mark.compiled
@pytest.mark.parametrize(
    "source", [tf.data.Dataset.from_tensor_slices(IMAGES).batch(2), Sequence(workers=1)]
)
def test_data_sets_take_data_for_all_samples_only(source):
    model = _segmenter()
    expected = ke.gradcam(model, IMAGES, 1, output=targets.segment(MASK))
    actual = ke.gradcam(model, source, 1, output=targets.segment(MASK), verbose=0)
    _assert_close(actual, expected)
    with pytest.raises(TypeError, match="`x`.*arrays, with an `output` that has data for each"):
        ke.gradcam(model, source, 1, output=targets.segment(MASKS))


@pytest.mark.parametrize("named", [False, True])
def test_several_inputs_and_data(named):
    image, vector = keras.Input((6, 6, 3), name="image"), keras.Input((2,), name="vector")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(image)
    x = layers.Conv2D(CLASSES, 1)(x) + layers.Dense(CLASSES)(vector)[:, None, None]
    model = keras.Model({"vector": vector, "image": image} if named else [vector, image], x)
    vectors = np.ones((3, 2), "float32")
    given = {"vector": vectors, "image": IMAGES} if named else [vectors, IMAGES]
    mask = MASKS[..., None] / MASKS.sum((1, 2))[:, None, None, None]
    expected = np.einsum("bhwc,bhwk->bc", model(given), mask)
    options = {"output": targets.segment(MASKS), "batch_size": 2}
    logits, maps = ke.gradients(model, given, **options)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert [m.shape for m in keras.tree.flatten(maps)] in (
        [(3, 6, 6, 4), (3, 2, 4)],
        [(3, 2, 4), (3, 6, 6, 4)],
    )
    assert isinstance(maps, dict) == named
    for method in ("gradcam", "scorecam", "ablationcam"):
        logits, maps = ke.explain(method, model, given, layer="conv", **options)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        assert maps.shape == (3, 6, 6, 4)


def test_the_map_peaks_where_the_target_is():
    x = inputs = keras.Input((16, 16, 1))
    x = layers.Conv2D(2, 3, padding="same", activation="relu", name="conv")(x)
    x = layers.Conv2D(2, 3, padding="same", use_bias=False, name="scores")(x)
    model = keras.Model(inputs, x)
    model.get_layer("conv").set_weights([np.ones((3, 3, 1, 2)), np.zeros(2)])
    model.get_layer("scores").set_weights([np.ones((3, 3, 2, 2))])
    image = np.zeros((2, 16, 16, 1), "float32")
    places = [((3, 4), (11, 10)), ((12, 5), (4, 13))]
    for sample, pair in enumerate(places):
        for row, column in pair:
            image[sample, row, column] = 1
    for method in ("input_x_gradient", "integrated_gradients", "layercam", "hirescam"):
        for which in (0, 1):
            index = np.array([pair[which] for pair in places])
            masks = np.zeros((2, 16, 16), bool)
            for mask, (row, column) in zip(masks, index, strict=True):
                mask[row - 1 : row + 2, column - 1 : column + 2] = True
            for target in (targets.position(index), targets.segment(masks)):
                _, maps = ke.explain(method, model, image, 0, output=target)
                for map_, place in zip(maps[..., 0], index, strict=True):
                    near = np.argwhere(map_ > 0.999 * map_.max()).mean(0)
                    assert np.abs(near - place).max() <= 0.5, (method, which)


def _unet(size=8):
    x = inputs = keras.Input((size, size, 3))
    skip = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D()(skip)
    x = layers.Conv2D(5, 3, padding="same", name="deep")(x)
    x = layers.ReLU(name="bottleneck")(x)
    x = layers.Concatenate()([skip, layers.UpSampling2D()(x)])
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="decoder")(x)
    x = layers.Conv2D(CLASSES, 1, name="scores")(x)
    return keras.Model(inputs, layers.Softmax()(layers.Reshape((-1, CLASSES))(x)))


def _pyramid():
    inputs, x = _trunk()
    x = layers.MaxPooling2D()(x)
    x = backbone = layers.Conv2D(7, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(2, 1, activation="relu")(layers.AveragePooling2D((1, 3))(x))
    x = layers.Concatenate()([backbone, layers.UpSampling2D((1, 3))(x)])
    x = layers.Conv2D(8, 1, activation="relu", name="fused")(x)
    return keras.Model(inputs, layers.UpSampling2D()(layers.Conv2D(CLASSES, 1)(x)))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (_pyramid, (None, 3, 3, 7)),
        (_unet, (None, 4, 4, 5)),
        (_segmenter, (None, 6, 6, 6)),
        (_any_size, (None, None, None, 4)),
    ],
)
def test_the_default_layer_of_scores_at_positions_is_the_bottleneck(build, shape):
    exposed = ke.inspection.expose(build(), outputs=targets.segment())
    assert tuple(exposed.outputs[1].shape) == shape


class SegmenterWithTensorFlow(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(5, 3, padding="same", activation="relu", name="first")
        self.second = layers.Conv2D(6, 3, padding="same", activation="relu", name="second")
        self.scores = layers.Conv2D(CLASSES, 1, name="scores")
        self.other = layers.Dense(2)

    def call(self, inputs):
        x = self.second(self.first(tf.reverse(tf.reverse(inputs, [1]), [1])))
        return {
            "other": self.other(tf.reduce_mean(x, (1, 2))),
            "map": tf.nn.softmax(self.scores(x)),
        }


@pytest.mark.filterwarnings("ignore:.*does not have a `build..` method:UserWarning")
@pytest.mark.parametrize("method", ["gradcam", "ablationcam", "scorecam", "gradients"])
def test_models_with_tensorflow_functions_take_targets_of_positions(method):
    model = SegmenterWithTensorFlow()
    model(IMAGES)
    x = inputs = keras.Input((6, 6, 3))
    for layer in (model.first, model.second, model.scores):
        x = type(layer).from_config(layer.get_config())(x)
    plain = keras.Model(inputs, x)
    plain.set_weights(
        [w for part in (model.first, model.second, model.scores) for w in part.get_weights()]
    )
    target = targets.segment(MASKS, output=lambda o: o["map"])
    logits, maps = ke.explain(method, model, IMAGES, output=target, batch_size=2, **RAW)
    layer = {} if method == "gradients" else {"layer": "second"}
    activation = {"activation": "softmax"} if method == "scorecam" else {}
    expected = ke.explain(
        method, plain, IMAGES, output=targets.segment(MASKS), **RAW, **layer, **activation
    )
    _assert_close((logits, maps), expected)


def test_losses_of_all_forms():
    model = _classifier()
    labels = np.array([1, 3, 0])
    one_hot = np.eye(CLASSES, dtype="float32")[labels]
    expected = keras.losses.categorical_crossentropy(one_hot, model(IMAGES))
    logits_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for target in (
        targets.loss(labels),
        targets.loss(one_hot, "categorical_crossentropy"),
        targets.loss(one_hot, keras.losses.CategoricalCrossentropy()),
        targets.loss(one_hot.astype(int), keras.losses.categorical_crossentropy),
        targets.loss(labels, logits_loss, before_activation=True),
    ):
        found, _ = ke.gradients(model, IMAGES, output=target)
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)
    grid = _segmenter()
    classes = _random.integers(0, CLASSES, (3, 6, 6))
    expected = keras.losses.sparse_categorical_crossentropy(classes, grid(IMAGES))
    found, _ = ke.gradients(grid, IMAGES, output=targets.loss(classes))
    np.testing.assert_allclose(found[:, 0], np.mean(expected, (1, 2)), rtol=1e-4)


def test_sparse_losses_take_integral_labels_and_ignore_a_class():
    model = _classifier()
    expected, _ = ke.gradients(model, IMAGES, output=targets.loss([1, 3, 0]))
    found, _ = ke.gradients(model, IMAGES, output=targets.loss([1.0, 3.0, 0.0]))
    np.testing.assert_array_equal(found, expected)
    grid, classes = _segmenter(), _random.integers(0, CLASSES, (3, 6, 6))
    losses = keras.losses.sparse_categorical_crossentropy(classes, grid(IMAGES)).numpy()
    ignored = _random.integers(0, 2, (3, 6, 6)) > 0
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    target = targets.loss(np.where(ignored, 255, classes), loss)
    found, _ = ke.gradients(grid, IMAGES, output=target)
    np.testing.assert_allclose(found[:, 0], (losses * ~ignored).mean((1, 2)), rtol=1e-4)


def test_labels_get_the_axis_of_a_single_unit():
    inputs, x = _trunk()
    x = layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    unit, scalar = keras.Model(inputs, x), keras.Model(inputs, layers.Reshape(())(x))
    outputs, labels = unit(IMAGES).numpy()[:, 0], np.array([0, 1, 1])
    squares = (labels - outputs) ** 2
    entropies = -np.log(np.where(labels, outputs, 1 - outputs))

    def squared(y_true, y_pred):
        return (y_true - y_pred) ** 2

    for model in (unit, scalar):
        for given in (labels, labels.astype("float32"), labels[:, None], labels > 0):
            for loss, expected in (
                (squared, squares),
                ("mse", squares),
                (keras.losses.MeanSquaredError(), squares),
                ("binary_crossentropy", entropies),
            ):
                found, _ = ke.gradients(model, IMAGES, output=targets.loss(given, loss))
                np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)
    found, _ = ke.gradients(unit, IMAGES, output=targets.loss(1, "mse"))
    np.testing.assert_allclose(found[:, 0], (1 - outputs) ** 2, rtol=1e-4)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_targets_within_a_loss_or_a_similarity_take_outputs_as_these_do(activation):
    model, labels = _classifier(activation), np.eye(CLASSES, dtype="float32")[[1, 3, 0]]
    probabilities = model(IMAGES).numpy()
    logits, _ = ke.gradients(model, IMAGES)
    loss = "categorical_crossentropy" if activation == "softmax" else "binary_crossentropy"
    expected = -(labels * np.log(probabilities)).sum(1)
    if activation == "sigmoid":
        expected = (expected - ((1 - labels) * np.log(1 - probabilities)).sum(1)) / CLASSES
    inner = targets.values(), targets.probability(), targets.values(output=targets.values())
    for within in inner:
        found, _ = ke.gradients(model, IMAGES, output=targets.loss(labels, loss, output=within))
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)
    target = targets.loss(
        logits + 2, "mean_squared_error", before_activation=True, output=targets.values()
    )
    found, _ = ke.gradients(model, IMAGES, output=target)
    np.testing.assert_allclose(found, np.full((3, 1), 4), rtol=1e-4)
    grid = _segmenter(activation)
    means = grid(IMAGES).numpy().mean((1, 2))
    reference = _random.normal(size=CLASSES).astype("float32")
    expected = means @ reference / np.linalg.norm(means, axis=1) / np.linalg.norm(reference)
    target = targets.similarity(reference, output=targets.segment("all"))
    found, _ = ke.gradients(grid, IMAGES, output=target)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-6)


def test_activations_of_models_make_probabilities():
    sigmoid = _classifier("sigmoid")
    expected = tf.math.log(sigmoid(IMAGES))
    found, _ = ke.gradients(sigmoid, IMAGES, output=targets.probability(log=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    linear = _classifier(None)
    found, _ = ke.gradients(linear, IMAGES, output=targets.probability("softmax"))
    np.testing.assert_allclose(found, tf.nn.softmax(linear(IMAGES)), rtol=1e-4)
    exposed = ke.inspection.expose(_segmenter(), outputs=targets.segment())
    assert exposed.activation is keras.activations.softmax


@pytest.mark.parametrize(("name", "activation"), [("a", "softmax"), ("b", "sigmoid")])
def test_the_activation_is_that_of_the_output_taken(name, activation):
    inputs, x = _trunk()
    heads = {
        key: layers.Conv2D(CLASSES, 1, activation=function)(x)
        for key, function in (("a", "softmax"), ("b", "sigmoid"))
    }
    model = keras.Model(inputs, heads)
    for choice in (name, lambda o: o[name]):
        exposed = ke.inspection.expose(model, outputs=targets.segment(output=choice))
        assert exposed.activation is keras.activations.get(activation)
        target = targets.probability(output=targets.position((1, 2), output=choice))
        found, _ = ke.gradients(model, IMAGES, output=target)
        np.testing.assert_allclose(found, model(IMAGES)[name][:, 1, 2], rtol=1e-4)
    both = targets.Target(lambda o: o["a"][:, 0, 0] - o["b"][:, 0, 0], keeps_units=True)
    assert ke.inspection.expose(model, outputs=both).activation is None


@pytest.mark.compiled
def test_an_exposed_model_takes_the_rows_of_a_target():
    model, target = _segmenter(), targets.segment(MASK)
    exposed = ke.inspection.expose(model, "second", target)
    logits, maps = tf.function(ke.methods.gradcam)(exposed, [IMAGES, *target.rows(3)])
    expected = ke.gradcam(model, IMAGES, output=target, layer="second", **RAW)
    _assert_close((logits.numpy(), maps.numpy()), expected)


VECTOR_OF_COSINES = targets.similarity(REFERENCES)
BAD = [
    (_segmenter, lambda o: o, r"`output`.*\(batch, units\).*\(3, 6, 6, 4\)"),
    (_segmenter, lambda o: o[:, 0, 0, 0], r"`output`.*shape \(3,\) for 3 samples"),
    (_segmenter, lambda o: tf.reshape(o, (-1, CLASSES)), r"shape \(108, 4\) for 3 samples"),
    (_classifier, lambda o: tf.reduce_mean(o, 0, keepdims=True), r"shape \(1, 4\) for 3"),
    (_classifier, lambda o: tf.argmax(o, -1)[:, None], "`output`.*float tensor.*int64"),
    (_classifier, lambda _: 3.0, "`output`.*object of type float"),
    (_classifier, lambda _: tf.zeros_like(np.zeros((3, 1))) + 1.0, "depends on one"),
    (_any_size, lambda o: tf.reshape(o, (3, -1)), "fixed number of units"),
    (_classifier, targets.segment("all"), r"`output`.*\(batch, \*positions, units\).*\(batch, 4\)"),
    (_segmenter, targets.contrast(1, 2), r"`output`.*segment\('all'\)"),
    (_detector, targets.segment("all"), "`output`.*2 outputs.*Choose one"),
    (
        _detector,
        targets.box_score(scores="logits"),
        r"`scores`.*\['bbox_regression', 'cls_logits'\]",
    ),
    (_detector, targets.box_score(45), r"`output`.*below \(45,\).*45 to 45"),
    (_detector, targets.box_coordinate(label=4), r"`output`.*below \(4,\)"),
    (_segmenter, targets.segment(MASKS[:2]), "`output`.*each of the 3 samples.*2 rows"),
    (_segmenter, targets.segment(MASKS[:, 0]), r"`region`.*rank 2\. .*`mask\[None\]`"),
    (_segmenter, targets.segment(MASKS[..., None].repeat(2, -1)), "`region`.*4 classes.*2"),
    (_segmenter, targets.position(1), "`index`.*2 axes.*1 for"),
    (_segmenter, targets.position((1, 6)), r"`output`.*below \(6, 6\).*1 to 6"),
    (_segmenter, targets.position((1, -7)), r"`output`.*below \(6, 6\)"),
    (_classifier, targets.contrast(0, 4), r"`output`.*below \(4,\)"),
    (
        _classifier,
        targets.loss(np.zeros(3), lambda a, b: a - b),
        r"`labels`.*\(batch, 4\).*\(batch\)",
    ),
    *(
        (_classifier, targets.loss(2, loss), r"`labels`.*\(batch, 4\).*\(batch\)")
        for loss in ("mse", keras.losses.MeanSquaredError(), keras.losses.mean_squared_error)
    ),
    (
        _classifier,
        targets.loss(2, lambda _, p: tf.reduce_mean(p, 0)),
        r"`loss`.*one value per sample.*\(4,\) for 3",
    ),
    (_classifier, targets.loss(2, lambda _, p: tf.reduce_mean(p)), "`loss`.*one value per sample"),
    (_segmenter, targets.loss(np.full((3, 6, 6), 255)), r"`output`.*below \(4,\).*255 to 255"),
    (
        _segmenter,
        targets.loss(
            np.full((3, 6, 6), 200), keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
        ),
        r"`output`.*below \(4,\), or 255\. Received: 200",
    ),
    (_classifier, targets.loss([0.0, 1.0, 5.0]), r"`output`.*below \(4,\).*0 to 5"),
    (_classifier, targets.loss(4), r"`output`.*below \(4,\)"),
    (_classifier, targets.similarity(np.ones(7)), "`reference`.*4 values.*7 values"),
    (lambda: _classifier(None), targets.probability(), "`activation`.*ends in none"),
    (_segmenter, None, r"ke.targets"),
    (_segmenter, targets.segment, r"`output`.*'segment' that makes one.*ke.targets.segment\("),
    (_segmenter, targets.Target, r"`output`.*'Target' that makes one"),
    (
        _detector,
        lambda o: o["logits"],
        r"`output`.*cls_logits': float32 \(batch, 45, 4\).*'<lambda>'.*KeyError: 'logits'",
    ),
    (
        _detector,
        targets.values(output=lambda o: o.missing),
        r"`output`.*cls_logits': float32 \(batch, 45, 4\).*AttributeError",
    ),
    (
        _classifier,
        targets.Target(lambda o, d: o @ d, [np.ones((1, 3, 2))], before_activation=False),
        r"`output`.*takes float32 \(batch, 4\).*'<lambda>', which failed with",
    ),
]


@pytest.mark.parametrize(("build", "output", "message"), BAD)
def test_what_does_not_fit_is_named(build, output, message):
    with pytest.raises(ValueError, match=message):
        ke.gradients(build(), IMAGES, output=output)


def test_an_error_in_a_function_is_the_cause_of_what_is_raised():
    with pytest.raises(ValueError, match="ZeroDivisionError") as raised:
        ke.gradients(_classifier(), IMAGES, output=lambda o: o / 0 if 1 // 0 else o)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: targets.segment("everything"), ValueError, "`region`.*predicted, all"),
        (lambda: targets.segment(np.full((3, 6, 6), 15)), ValueError, "`region`.*range"),
        (lambda: targets.segment(MASKS.astype(int)), ValueError, "`region`.*range.*astype.bool"),
        (lambda: targets.segment(-np.ones((3, 6, 6))), ValueError, "`region`.*finite weights"),
        (lambda: targets.segment(np.full((3, 6), np.nan)), ValueError, "`region`.*finite weights"),
        (lambda: targets.segment(1), ValueError, "`region`"),
        (lambda: targets.position(0.5), ValueError, "`index`"),
        (lambda: targets.position(np.zeros((1, 1, 1), int)), ValueError, "`index`"),
        (lambda: targets.contrast("cat", 1), ValueError, "`first`"),
        (lambda: targets.contrast([1, 2, 3], [1, 2]), ValueError, "`second`.*3 and 2"),
        (lambda: targets.contrast([[1]], 2), ValueError, "`first`"),
        (lambda: targets.probability("soft"), ValueError, "soft"),
        (lambda: targets.similarity(np.ones((1, 1, 1, 1))), ValueError, "`reference`"),
        (lambda: targets.box_score("highest"), ValueError, "`anchor`"),
        (lambda: targets.box_coordinate(3, 1), ValueError, "`label`.*`None`"),
        (lambda: targets.loss(1, "no_loss"), ValueError, "no_loss"),
        (lambda: targets.loss([0.5, 1]), ValueError, "`labels`.*integers"),
        (lambda: targets.loss([np.nan, 1]), ValueError, "`labels`.*integers"),
        (lambda: targets.contrast(0, 1, output=targets.segment), ValueError, "`output`.*'segment'"),
        (lambda: targets.similarity([1.0, np.nan]), ValueError, "`reference`.*finite"),
        (lambda: targets.loss(1, keras.losses.Huber), TypeError, r"`loss`.*class.*`Huber\(\)`"),
        (lambda: targets.loss(1, 7), TypeError, "`loss`"),
        (
            lambda: targets.loss(1, before_activation=True, output=VECTOR_OF_COSINES),
            ValueError,
            "`output`.*before the activation.*after it",
        ),
        (lambda: targets.Target(7), TypeError, "`function`"),
        (lambda: targets.Target(abs, ["text"]), TypeError, "`data`"),
        (lambda: targets.Target(abs, mirroring="maybe"), ValueError, "`mirroring`"),
    ],
)
def test_bad_arguments_of_targets_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_target_shows_what_it_is_made_of():
    target = targets.contrast(3, 1, output=targets.segment(MASKS, output="scores"))
    expected = (
        "Target(_difference, int32 (1, 2), output=Target(_mean_over_mask, bool (3, 6, 6), "
        "output='scores'))"
    )
    assert repr(target) == expected
    assert repr(target.template()) == expected.replace("(1, ", "(None, ").replace("(3, ", "(None, ")
    assert repr(targets.segment("all")) == "Target(_mean_over_region, region='all')"


def test_a_target_of_ones_own_has_data():
    def weighted(outputs, weights):
        return tf.reduce_sum(outputs * weights, -1, keepdims=True)

    model = _classifier("sigmoid")
    weights = _random.normal(size=(3, CLASSES))
    target = targets.Target(weighted, [weights], before_activation=False)
    found, _ = ke.gradients(model, IMAGES, output=target, batch_size=2)
    np.testing.assert_allclose(found[:, 0], (model(IMAGES) * weights).numpy().sum(1), rtol=1e-4)
