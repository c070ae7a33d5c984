"""Tell values, functions, models and data from others, across processes."""

import functools
import hashlib
import inspect
import json

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable import inspection

_PLAIN = (type(None), str, int, float, bool)
_NAMES = ("__qualname__", "__name__", "name")


def described(value, seen=None):
    """Return what tells a value from others, in terms that JSON can hold.

    Functions are told by what they do: their code, what they hold, and the functions and plain
    values of their module that they use; objects that are called by their class and attributes;
    layers by their name and weights; other objects by their name alone.

    Args:
        value: what is described.
        seen: dict of what was described on the way, by its `id`. Defaults to nothing.
    """
    seen = {} if seen is None else seen
    if isinstance(value, dict):
        return {str(name): described(v, seen) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [described(v, seen) for v in value]
    if isinstance(value, set | frozenset):  # They come in another order in each process.
        return sorted(map(repr, value))
    if isinstance(value, np.ndarray | tf.Tensor):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, inspection.Target):
        return [described(part, seen) for part in (value.kind, value.data, value.inner)]
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, functools.partial):
        return described([value.func, value.args, value.keywords], seen)
    if isinstance(value, keras.Layer):
        return [value.name, fingerprint(value)]
    name = next((getattr(value, n) for n in _NAMES if hasattr(value, n)), type(value).__name__)
    if id(value) in seen:
        return name
    seen[id(value)] = value
    if hasattr(value, "options"):  # Those of a meta method.
        return [name, described(value.options, seen)]
    if hasattr(value, "__code__"):
        owner = getattr(value, "__self__", None)
        return [name, *_function(value, seen), described(_attributes(owner), seen)]
    call = type(value).__call__ if callable(value) else None
    if hasattr(call, "__code__"):
        return [type(value).__qualname__, *_function(call, seen), described(vars(value), seen)]
    return name


def _attributes(owner):
    """Return what a bound method works with."""
    if owner is None or isinstance(owner, keras.Layer):
        return owner
    return getattr(owner, "__dict__", type(owner).__name__)


def _function(function, seen):
    """Return the code of a function, and the values that it works with."""
    code, known = function.__code__, function.__globals__
    used = {name: known[name] for name in sorted(_names(code)) if name in known}
    used = {
        name: value
        for name, value in used.items()
        if isinstance(value, (*_PLAIN, np.ndarray))
        or (callable(value) and getattr(value, "__module__", None) == function.__module__)
    }
    held = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    defaults = [function.__defaults__, function.__kwdefaults__]
    return [_code(code), described([held, defaults, used], seen)]


def _names(code):
    """Return the names that a function uses, and those that functions inside it do."""
    inner = (_names(constant) for constant in code.co_consts if hasattr(constant, "co_code"))
    return {*code.co_names}.union(*inner)


def _code(code):
    """Return what a function does, the functions inside it included."""
    constants = [_code(c) if hasattr(c, "co_code") else _constant(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names)]


def _constant(value):
    return described(value) if isinstance(value, frozenset) else repr(value)


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
