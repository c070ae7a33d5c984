import inspect

import pytest

import keras_explainable as ke
from keras_explainable.methods import _registry

NAMES = ke.methods.names()


def test_names_are_those_of_the_first_methods():
    assert {"cam", "d_minmaxcam", "gradcam", "gradients", "minmaxcam"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_complete(name):
    registration = ke.methods.registration(name)
    assert registration.family in ke.methods.FAMILIES
    assert registration.postprocessing in ke.filters.FILTERS
    assert registration is ke.methods.registration(registration.method)
    assert callable(getattr(ke, name))
    parameters = list(inspect.signature(registration.method).parameters.values())
    assert [p.name for p in parameters[:3]] == ["model", "inputs", "indices"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[3:])
    assert set(registration.sample_options) <= {p.name for p in parameters[3:]}


@pytest.mark.parametrize("name", NAMES)
def test_every_docstring_has_its_parts(name):
    text = ke.methods.get(name).__doc__
    assert "Cost:" in text
    parts = [".. math::", "Args:", "Returns:", "Raises:", "References:", "Example:"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    for parameter in inspect.signature(ke.methods.get(name)).parameters:
        assert f"{parameter}:" in text


def test_a_function_that_is_not_registered_is_a_method_too():
    def own(model, inputs, indices=None):
        return model(inputs), indices

    registration = ke.methods.registration(own)
    assert (registration.method, registration.family, registration.postprocessing) == (
        own,
        "cam",
        None,
    )


def test_a_new_method_is_found_by_name(monkeypatch):
    monkeypatch.setattr(_registry, "_METHODS", dict(_registry._METHODS))

    @ke.methods.explaining_method(family="cam", postprocessing="absolute", axioms=["linearity"])
    def own(model, inputs, indices=None):
        return model(inputs), indices

    assert "own" in ke.methods.names()
    assert ke.methods.get("own") is ke.methods.own is own


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"cam, d_minmaxcam.*'grad-cam'.*Did you mean 'gradcam'"):
        ke.methods.get("grad-cam")
    for name in ("GradCAM", "Grad-CAM"):
        with pytest.raises(ValueError, match=f"Received: '{name}'. Did you mean 'gradcam'"):
            ke.methods.get(name)
    with pytest.raises(ValueError, match=r"'nothing like it'$"):
        ke.methods.get("nothing like it")
    with pytest.raises(AttributeError, match="'lime'"):
        ke.methods.lime  # noqa: B018


@pytest.mark.parametrize("name", ["smooth", "SmoothGrad", "tta"])
def test_a_meta_method_is_no_method_and_the_error_says_how_to_make_one(name):
    meta = "smooth" if name != "tta" else name
    message = f"'{meta}' is a meta method.*`ke.methods.{meta}\\(\"gradcam\"\\)`"
    with pytest.raises(ValueError, match=message):
        ke.methods.get(name)


def test_an_unknown_meta_method_is_named():
    with pytest.raises(ValueError, match="guided, smooth.*'Smooth'. Did you mean 'smooth'"):
        ke.methods.get_meta("Smooth")
