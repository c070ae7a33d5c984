"""Properties that methods declare in the registry, each tested on every method that declares it.

`tests/contract` shows that maps are the same on every kind of model, so one stands for all here.
"""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

import keras_explainable as ke
from tests import token_zoo
from tests import zoo

pytestmark = pytest.mark.usefixtures("_eagerly")

RAW = {"postprocessing": None, "resizing": False}


def _raw(method, model, images, **options):
    return ke.explain(method, model, images, **RAW, **options)[1]


def _head_of(model):
    flat = [layer for layer in model.layers if layer.weights and layer.weights[0].ndim == 2]
    return flat[-1]


def _deep_model():
    """Build a model with two convolutions after the activations that are explained."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="explained")(x)
    x = layers.Conv2D(5, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def check_class_sensitivity(method):
    """Explaining a unit depends on the weights of that unit, and another one's don't matter."""
    model, images = zoo.functional().model, zoo.IMAGES
    if ke.methods.registration(method).needs == "attention":
        model, images = token_zoo.functional("class"), token_zoo.IMAGES
    parameters = inspect.signature(ke.methods.get(method)).parameters
    # Without detections the contrastive methods take no other unit in, nor does a sigmoid.
    options = {"detections": np.zeros((3, 5))} if "detections" in parameters else {}
    options |= {"activation": "sigmoid"} if "activation" in parameters else {}
    before = _raw(method, model, images, **options)
    kernel = _head_of(model).kernel
    changed = kernel.numpy()
    changed[:, 1] = changed[::-1, 1]
    kernel.assign(changed)
    after = _raw(method, model, images, **options)
    others, same = np.delete(before, 1, -1), np.delete(after, 1, -1)
    np.testing.assert_allclose(same, others, atol=1e-6 * np.abs(others).max())
    assert not np.allclose(before[..., 1], after[..., 1])


def check_flip_equivariance(method):
    """Where the network commutes with a mirror, so does its explanation."""
    model = zoo.functional().model
    kernel = model.get_layer("conv").kernel
    kernel.assign((kernel + kernel[:, ::-1]) / 2)
    maps = _raw(method, model, zoo.IMAGES)
    flipped = _raw(method, model, zoo.IMAGES[:, :, ::-1])
    scale = np.abs(maps).max()
    np.testing.assert_allclose(flipped[:, :, ::-1], maps, atol=1e-5 * scale)


def check_cam_is_gradcam(method):
    """On a pooled linear head, the map is that of Grad-CAM; of CAM, h·w times that."""
    model = zoo.functional().model
    maps = _raw(method, model, zoo.IMAGES)
    reference = _raw("gradcam", model, zoo.IMAGES)
    factor = 36 if method == "cam" else 1
    np.testing.assert_allclose(maps, factor * reference, atol=1e-5 * np.abs(maps).max())


def check_minmax_is_minmaxcam(method):
    """On a pooled linear head, h·w times the map is that of the method that reads the kernel."""
    model = zoo.functional().model
    detections = np.array([[1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], "float32")
    for options in ({"detections": detections}, {"detections": detections, "strict": True}, {}):
        maps = _raw(method, model, zoo.IMAGES, **options)
        reference = _raw(method.replace("_gradcam", "cam"), model, zoo.IMAGES, **options)
        np.testing.assert_allclose(36 * maps, reference, atol=1e-5 * np.abs(reference).max())


def check_completeness_without_bias(method):
    """In a network of convolutions and rectifiers without bias, the map sums to the logit."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, activation="relu")(x)
    x = layers.LeakyReLU()(layers.Conv2D(5, 3, use_bias=False)(layers.MaxPooling2D()(x)))
    model = keras.Model(inputs, layers.Dense(3, use_bias=False)(layers.Flatten()(x)))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    logits, maps = ke.explain(method, model, images, **RAW)
    np.testing.assert_allclose(maps.sum((1, 2)), logits, rtol=1e-4, atol=1e-5)


def check_completeness_of_path(method):
    """The map sums to the difference of the logits, by every rule, and the residual says so."""
    keras.utils.set_random_seed(5)
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="tanh")(x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype("float32")
    baseline = np.full((6, 6, 2), 0.25, "float32")
    wanted = model.predict(images, verbose=0) - model.predict(baseline[None], verbose=0)
    errors = {"gausslegendre": 1e-5, "riemann_trapezoid": 1e-3, "riemann_middle": 1e-3}
    for rule in ke.methods.gradients.RULES:
        options = {"baseline": baseline, "rule": rule, "residual": True}
        found = _raw(method, model, images, **options)
        difference = found["maps"].sum((1, 2)) - wanted
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(difference, 0, atol=errors.get(rule, 0.05) * scale)
        np.testing.assert_allclose(found["residual"], difference, atol=1e-5 * scale)
        # A rule whose weights don't sum to 1 would miss by their share whatever the steps.
        more = _raw(method, model, images, **options, num_steps=200)["residual"]
        assert np.abs(more).max() < max(np.abs(difference).max() / 3, 1e-5 * scale), rule


def check_completeness_of_terms(method):
    """The terms of the input and of the biases sum to the logit, on every kind of model."""
    for kind in zoo.KINDS.values():
        specimen = kind()
        options = {**specimen.options, "terms": True}
        options.pop("layer", None)
        logits, terms = ke.explain(method, specimen.model, specimen.x, **options)
        total = sum(t.reshape(len(t), -1, t.shape[-1]).sum(1) for t in terms.values())
        scale = specimen.tolerance * np.abs(logits).max()
        np.testing.assert_allclose(total, logits, atol=scale, err_msg=kind.__name__)


def check_guided_is_plain(method):
    """Where no weight behind a rectifier is negative, the gradients guided are the gradients."""
    model = _deep_model()
    for layer in model.layers[2:]:
        layer.set_weights([np.abs(w) for w in layer.get_weights()])
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    plain = {"guided_backprop": "gradients"}.get(method, "integrated_gradients")
    maps = _raw(method, model, images)
    np.testing.assert_allclose(maps, _raw(plain, model, images), atol=1e-6 * np.abs(maps).max())


def check_linearity(method):
    """The map of a sum of logits is the sum of their maps."""
    model = _deep_model()
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    head = _head_of(model)
    kernel = head.kernel.numpy()
    kernel[:, 2] = 2 * kernel[:, 0] - 3 * kernel[:, 1]
    head.kernel.assign(kernel)
    is_cam = ke.methods.registration(method).family == "cam"
    maps = _raw(method, model, images, **({"layer": "explained"} if is_cam else {}))
    expected = 2 * maps[..., 0] - 3 * maps[..., 1]
    np.testing.assert_allclose(maps[..., 2], expected, atol=1e-5 * np.abs(maps).max())


AXIOMS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
DECLARED = [
    (method, axiom)
    for method in ke.methods.names()
    for axiom in sorted(ke.methods.registration(method).axioms)
]


def test_every_axiom_declared_has_a_test_and_every_test_a_method():
    assert {axiom for _, axiom in DECLARED} == set(AXIOMS)


@pytest.mark.parametrize(("method", "axiom"), DECLARED)
def test_methods_have_the_axioms_that_they_declare(method, axiom):
    AXIOMS[axiom](method)
