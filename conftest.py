"""Examples in docstrings take their network from one place, where it is built once."""

import functools

import keras
import pytest

# Shortcuts have the examples of their methods, which run there.
collect_ignore = ["keras_explainable/__init__.py"]

_build = functools.cache(keras.applications.MobileNetV2)


@pytest.fixture(autouse=True)
def _built_once(request, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.setattr(keras.applications, "MobileNetV2", _build)
