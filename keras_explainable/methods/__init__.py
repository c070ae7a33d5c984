"""Explaining methods: pure functions `(model, inputs, indices, ...) -> (logits, maps)`."""

from __future__ import annotations

from collections.abc import Callable

from keras_explainable.methods import attention as attention
from keras_explainable.methods import cams as cams
from keras_explainable.methods import gradients as gradients
from keras_explainable.methods import meta as meta
from keras_explainable.methods._registry import FAMILIES as FAMILIES
from keras_explainable.methods._registry import NEEDS as NEEDS
from keras_explainable.methods._registry import Registration as Registration
from keras_explainable.methods._registry import describe as describe
from keras_explainable.methods._registry import explaining_method as explaining_method
from keras_explainable.methods._registry import get as get
from keras_explainable.methods._registry import get_meta as get_meta
from keras_explainable.methods._registry import meta_method as meta_method
from keras_explainable.methods._registry import meta_names as meta_names
from keras_explainable.methods._registry import names as names
from keras_explainable.methods._registry import registration as registration


def __dir__() -> list[str]:
    return sorted({*globals(), *names(), *meta_names()})


def __getattr__(name: str) -> Callable:
    """Find every registered method and meta method here, besides in the module of its family."""
    if name in names():
        return get(name)
    if name in meta_names():
        return get_meta(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
