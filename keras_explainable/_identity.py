"""Tell values, functions, models and data from others, across processes."""

import functools
import hashlib
import json

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable import inspection


def described(value):
    """Return what tells a value from others, in terms that JSON can hold."""
    if isinstance(value, dict):
        return {str(name): described(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [described(v) for v in value]
    if isinstance(value, np.ndarray | tf.Tensor):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, inspection.Target):
        return [described(part) for part in (value.kind, value.data, value.inner)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, np.generic):
        return value.item()
    name = getattr(value, "__qualname__", getattr(value, "name", type(value).__name__))
    if isinstance(value, functools.partial):
        return described([value.func, value.args, value.keywords])
    if hasattr(value, "options"):  # Those of a meta method.
        return [name, described(value.options)]
    if not hasattr(value, "__code__"):
        return name
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    held = [getattr(v, "__qualname__", None) if callable(v) else described(v) for v in held]
    defaults = described([value.__defaults__, value.__kwdefaults__])
    return [name, _code(value.__code__), held, defaults]


def _code(code):
    """Return what a function does, the functions inside it included."""
    constants = [_code(c) if hasattr(c, "co_code") else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names)]


def _configuration(layer):
    """Return how a layer was made, as text."""
    try:
        config = layer.get_config()
    except NotImplementedError:  # A layer of one's own may not say.
        return ""
    kept = {k: v for k, v in config.items() if k not in ("name", "dtype")}
    return json.dumps(kept, default=described)


def fingerprint(model):
    """Return what tells the layers and weights of a model from others; names tell nothing."""
    hashed = hashlib.sha256()
    for layer in _compat.sublayers(model):
        if not _compat.sublayers(layer):
            kind = f"{type(layer).__name__} {layer.compute_dtype}"
            hashed.update(f"{kind} {_configuration(layer)}".encode())
    for weight in model.weights:
        hashed.update(f"{weight.shape} {weight.dtype}".encode())
        hashed.update(np.ascontiguousarray(weight).tobytes())
    return hashed.hexdigest()


def digest(data, size):
    """Return a digest of all values of arrays, read some rows at a time."""
    hashed = hashlib.sha256()
    for array in keras.tree.flatten(data):
        hashed.update(f"{array.shape} {array.dtype}".encode())
        for start in range(0, len(array), size):
            hashed.update(np.ascontiguousarray(array[start : start + size]).tobytes())
    return hashed.hexdigest()
