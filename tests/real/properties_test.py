"""What holds by the definition of methods holds on trained networks too."""

import numpy as np
import pytest

import keras_explainable as ke
from tests.real import photographs
from tests.real import voc_test

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]
RAW = {"postprocessing": None, "resizing": False, "verbose": 0}
NAMED = {"bird.png": 19, "parrot.jpg": 88}  # What SqueezeNet names: photographs, units.


@pytest.fixture(scope="module")
def squeezenet(shared):
    del shared  # It skips where there are no data.
    network = photographs.module("squeezenet")
    model = network.load(photographs.WEIGHTS / "squeezenet_v1.0_imagenet.npz")
    images = [photographs.read(photographs.DATA / "open" / name) for name in NAMED]
    x = network.preprocess(np.stack([photographs.centre_crop(image, 227) for image in images]))
    return model, x, np.array(list(NAMED.values()))


@pytest.fixture(scope="module")
def several(shared):
    """Return a classifier, and photographs with the units of which it detects several."""
    del shared
    case = voc_test.mobilenet()
    images, counts = np.unique(case.images, return_counts=True)
    taken = images[counts > 1]
    units = [case.units[case.images == image][:2] for image in taken]
    return case.model, case.x[taken], np.stack(units)


def test_terms_of_full_gradients_sum_to_the_logits_of_squeezenet(squeezenet):
    logits, terms = ke.full_gradients(*squeezenet, terms=True, verbose=0)
    parts = np.stack([term.reshape(len(logits), -1).sum(1) for term in terms.values()], 1)
    # The biases have a share that no tolerance hides.
    assert len(terms) == 27
    assert (np.abs(parts[:, 1:].sum(1)) > 0.02 * logits[:, 0]).all()
    np.testing.assert_allclose(parts.sum(1, keepdims=True), logits, rtol=1e-3)


def test_integrated_gradients_of_squeezenet_sum_to_the_difference_of_logits(squeezenet):
    model, x, units = (squeezenet[0], squeezenet[1][:1], squeezenet[2][:1])
    logits, found = ke.integrated_gradients(
        model, x, units, num_steps=50, residual=True, verbose=0, postprocessing=None
    )
    start, _ = ke.gradients(model, np.zeros_like(x), units, verbose=0)
    difference = logits - start
    assert abs(found["residual"]) < 0.01 * abs(difference)
    np.testing.assert_allclose(found["maps"].sum((1, 2)), difference, rtol=0.01)


@pytest.mark.parametrize(("method", "same", "averaged"), voc_test.SAME)
def test_methods_are_the_same_on_a_linear_head(several, method, same, averaged):
    logits, maps = ke.explain(method, *several, **RAW)
    wanted_logits, wanted = ke.explain(same, *several, **RAW)
    scale = np.prod(maps.shape[1:3]) if averaged else 1
    np.testing.assert_allclose(logits, wanted_logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(maps * scale, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_minmax_differs_from_what_it_contrasts_where_several_are_detected(several):
    model, x, units = several
    _, contrasted = ke.minmaxcam(model, x, units, **RAW)
    _, plain = ke.cam(model, x, units, **RAW)
    assert (np.abs(contrasted - plain).max((1, 2)) > 0.1 * np.abs(plain).max((1, 2))).all()


def test_weights_of_ablationcam_are_what_a_linear_head_loses(several):
    model, x, units = several
    x, units = x[:2], units[:2]
    logits, maps = ke.ablationcam(model, x, units, **RAW)
    _, activations = ke.inspection.expose(model).predict(x, verbose=0)
    kernel = model.get_layer("predictions").kernel.numpy()[:, units]  # (kernels, samples, 2)
    weights = (
        np.einsum("bk,kbu->bku", activations.mean((1, 2), dtype="float64"), kernel)
        / logits[:, None]
    )
    wanted = np.einsum("bhwk,bku->bhwu", activations, weights)
    np.testing.assert_allclose(maps, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_eigencam_is_the_same_for_all_units(several):
    _, maps = ke.eigencam(*several, **RAW)
    np.testing.assert_array_equal(maps[..., 0], maps[..., 1])
    assert (maps.std((1, 2)) > 0).all()
