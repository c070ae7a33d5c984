"""Examples in docstrings take their network from one place, where it is built once."""

import functools

import keras
import pytest

_build = functools.cache(keras.applications.MobileNetV2)


@pytest.fixture(autouse=True)
def _built_once(request, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.setattr(keras.applications, "MobileNetV2", _build)
