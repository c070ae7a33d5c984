import keras
import numpy as np
import pytest

import keras_explainable as ke
from tests import zoo

RAW = {"postprocessing": None, "resizing": False}
ORACLES = {
    "max": lambda g: np.abs(g).max(-2),
    "mean": lambda g: np.abs(g).mean(-2),
    "sum_abs": lambda g: np.abs(g).sum(-2),
    "signed_sum": lambda g: g.sum(-2),
    "l2": lambda g: np.sqrt((g**2).sum(-2)),
    None: lambda g: g,
}


def test_every_reduction_has_an_oracle():
    assert set(ORACLES) == {*ke.methods.gradients.REDUCTIONS, None}


@pytest.mark.parametrize("reduction", ORACLES)
def test_channels_are_reduced_as_asked(reduction):
    model = zoo.functional().model
    _, maps = ke.gradients(model, zoo.IMAGES, reduction=reduction, **RAW)
    expected = ORACLES[reduction](zoo.input_gradients())
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())


def test_default_reduction_is_the_largest_magnitude():
    model = zoo.functional().model
    _, default = ke.gradients(model, zoo.IMAGES, **RAW)
    _, largest = ke.gradients(model, zoo.IMAGES, reduction="max", **RAW)
    np.testing.assert_array_equal(default, largest)


def test_gradients_of_a_linear_model_are_its_weights():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype("float32")
    _, maps = ke.gradients(model, images, reduction=None, **RAW)
    kernel = model.layers[-1].kernel.numpy().reshape(4, 4, 2, 3)
    np.testing.assert_allclose(maps, np.stack([kernel, kernel]), rtol=1e-6)


def test_a_vector_input_keeps_its_features_as_positions():
    specimen = zoo.several_inputs()
    kernel = next(w for w in specimen.model.weights if tuple(w.shape) == (2, zoo.UNITS))
    kernel.assign(np.arange(10).reshape(2, 5) - 4.0)
    _, maps = ke.gradients(specimen.model, specimen.x, **RAW)
    assert set(maps) == {"image", "vector"}
    np.testing.assert_allclose(maps["vector"][0], np.abs(kernel.numpy()), rtol=1e-6)


def test_integer_inputs_of_a_model_are_left_out():
    image, label = keras.Input((6, 6, 3), name="image"), keras.Input((1,), dtype="int32", name="id")
    x = keras.layers.Flatten()(keras.layers.Embedding(4, 5)(label))
    x = keras.layers.Add()([x, keras.layers.Dense(5)(keras.layers.Flatten()(image))])
    model = keras.Model({"image": image, "id": label}, x)
    x = {"image": zoo.IMAGES, "id": np.array([[0], [1], [2]], "int32")}
    _, maps = ke.gradients(model, x, 1, **RAW)
    assert maps.shape == (3, 6, 6, 1)


def test_a_model_without_float_inputs_is_refused():
    inputs = keras.Input((3,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(4, 5)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    with pytest.raises(TypeError, match=r"float dtype. Received: int32$"):
        ke.gradients(model, np.zeros((2, 3), "int32"))


def test_logits_of_every_pixel_are_refused():
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 1)(inputs))
    with pytest.raises(ValueError, match=r"\(batch, units\).*\(3, 6, 6, 4\)"):
        ke.gradients(model, zoo.IMAGES)
