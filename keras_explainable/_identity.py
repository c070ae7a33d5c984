"""Tell values, functions, models and data from others, across processes."""

import dis
import enum
import functools
import hashlib
import inspect
import itertools
import json
import os
import types

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable import inspection

_PLAIN = (type(None), str, int, float, bool)
_ARRAYS = (np.ndarray, tf.Tensor, tf.Variable, keras.Variable)
# What is told by how it is written.
_WRITTEN = (bytes, complex, range, slice, enum.Enum, os.PathLike, np.generic, np.dtype, tf.DType)
# Of the configuration of a layer, what says nothing of how it predicts. The function of a `Lambda`
# holds the lines of the file that it stands in there.
_UNSAID = ("name", "dtype", "trainable", "seed", "function")
# Packages whose objects are told by their class and configuration alone.
_LIBRARIES = ("keras", "keras_explainable", "numpy", "tensorflow")
# Objects in objects that are described at the most.
_DEPTH = 40


def described(value):
    """Return what tells a value from others, in terms that JSON can hold.

    Functions are told by their code, what they hold, and what they use of their own module; objects
    by their class, their attributes and how they are called; models and layers by their weights and
    how they compute. What can't be told in these ways is told by its name.
    """
    return _Description().of(value)


def told(value):
    """Return a digest of what tells a value from others."""
    return _hashed(described(value))


def fingerprint(model):
    """Return what tells how a model computes from others; names tell nothing."""
    return _Description().layer(model)


def digest(data, size):
    """Return a digest of all values of arrays, read some rows at a time."""
    hashed = hashlib.sha256()
    for array in keras.tree.flatten(data):
        hashed.update(f"{array.shape} {array.dtype}".encode())
        for start in range(0, len(array), size):
            hashed.update(np.ascontiguousarray(array[start : start + size]).tobytes())
    return hashed.hexdigest()


class _Description:
    """Describes a value, each object inside it once."""

    def __init__(self):
        self._depth = 0
        # By `id`, with the objects, so that no other ones get it.
        self._known = {}

    def of(self, value):
        """Return the description of a value."""
        if isinstance(value, _PLAIN):
            return value
        if id(value) in self._known:
            return self._known[id(value)][1]
        name = _name(value)
        if self._depth == _DEPTH:
            return name
        self._known[id(value)] = value, name  # For what holds itself.
        self._depth += 1
        try:
            found = self._of(value, name)
        except Exception:  # noqa: BLE001
            # Objects of others may refuse anything.
            found = name
        self._depth -= 1
        self._known[id(value)] = value, found
        return found

    def _of(self, value, name):
        if isinstance(value, dict):
            keys = (k if isinstance(k, str) else _written(self.of(k)) for k in value)
            return dict(zip(keys, map(self.of, value.values()), strict=True))
        if isinstance(value, list | tuple):
            return [self.of(v) for v in value]
        if isinstance(value, set | frozenset):
            return sorted(_written(self.of(v)) for v in value)
        if isinstance(value, np.generic) and isinstance(value.item(), _PLAIN):
            return value.item()
        if isinstance(value, _ARRAYS):
            return self._array(np.asarray(value))
        if isinstance(value, _WRITTEN):
            return [type(value).__qualname__, repr(value)]
        if isinstance(value, keras.KerasTensor):
            return ["KerasTensor", str(value.shape), value.dtype]
        if isinstance(value, keras.Layer):
            return self.layer(value)
        if isinstance(value, inspection.Target):
            return self.of([value.kind, value.data, value.inner])
        if _is_made(value):
            return [name, self.of(value.options), self.of(value.__wrapped__)]
        if isinstance(value, functools.partial):
            return self.of([value.func, value.args, value.keywords])
        if isinstance(value, tf.types.experimental.PolymorphicFunction):
            return self.of(value.python_function)
        if isinstance(value, types.MethodType):
            return self.of([value.__func__, value.__self__])
        if isinstance(value, types.FunctionType):
            return [name, _hashed(self._function(value))]
        if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
            return name
        if _package(type(value)) in _LIBRARIES:
            return [name, self.of(value.get_config())] if hasattr(value, "get_config") else name
        return [type(value).__qualname__, _hashed(self._object(value))]

    def _array(self, array):
        if array.dtype.hasobject:
            return self.of(array.tolist())
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]

    def _object(self, value):
        """Describe how an object of a user is called, and its attributes."""
        slots = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
        slots = {n for s in slots for n in ([s] if isinstance(s, str) else s)}
        names = [n for n in sorted(slots) if n[:2] != "__" and hasattr(value, n)]
        held = {n: getattr(value, n) for n in names} | getattr(value, "__dict__", {})
        return self.of([_methods(type(value), "__call__"), held])

    def layer(self, layer):
        """Describe a layer or model."""
        hashed, layers = hashlib.sha256(), [layer, *_compat.sublayers(layer)]
        for part in layers:
            told, methods = [], _methods(type(part), "call")
            if not isinstance(part, keras.Model):
                told += [type(part).__name__, part.compute_dtype, self._configuration(part)]
            if methods:
                told += [self.of(methods), self.of(_settings(part, methods))]
            if _compat.has_graph(part):
                told.append(self.of(_wiring(part, layers)))
            hashed.update(_written(told).encode())
        for weight in layer.weights:
            hashed.update(f"{weight.shape} {weight.dtype}".encode())
            hashed.update(np.ascontiguousarray(weight).tobytes())
        return hashed.hexdigest()

    def _configuration(self, layer):
        """Describe how a layer was made."""
        try:
            config = layer.get_config()
        except Exception:  # noqa: BLE001
            return None  # A layer of one's own may not say.
        kept = {k: v for k, v in config.items() if k not in _UNSAID}
        if _compat.sublayers(layer):  # Which are told by themselves, and not by their names.
            kept = {k: v for k, v in kept.items() if isinstance(v, _PLAIN)}
        return self.of([kept, getattr(layer, "function", None)])

    def _function(self, function):
        """Describe the code of a function, and the values that it works with."""
        code = function.__code__
        cells = function.__closure__ or ()
        held = [None if cell == types.CellType() else cell.cell_contents for cell in cells]
        used = {}
        if _is_users(function):
            found = function.__globals__
            used = {n: found[n] for n in sorted(_globals(code)) if n in found}
            used = {n: v for n, v in used.items() if _is_own(v, function.__module__)}
        values = [held, function.__defaults__, function.__kwdefaults__, used]
        return [self._code(code), *(self.of(v) for v in values)]

    def _code(self, code):
        """Describe what a function does, the functions inside it included."""
        constants = [
            self._code(c) if isinstance(c, types.CodeType) else self.of(c) for c in code.co_consts
        ]
        return [code.co_code.hex(), constants, list(code.co_names)]


def _hashed(description):
    return hashlib.sha256(_written(description).encode()).hexdigest()


def _written(description):
    return json.dumps(description, sort_keys=True)


def _name(value):
    """Return how a value is called, or its class."""
    kinds = type, types.FunctionType, types.BuiltinFunctionType, np.ufunc
    if _is_made(value):  # What it is made of may be shown with its address.
        return value.__name__.partition("(")[0]
    if isinstance(value, kinds):
        return getattr(value, "__qualname__", value.__name__)
    return type(value).__qualname__


def _is_made(value):
    """Tell whether a value is what a meta method of the library made of a method."""
    return _package(type(value)) == "keras_explainable" and hasattr(value, "__wrapped__")


def _codes(code):
    """List a code, and those of the functions inside it."""
    inner = (_codes(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return [code, *itertools.chain(*inner)]


def _globals(code):
    """Return the names of globals that a function uses, and functions inside it do."""
    read = (i for c in _codes(code) for i in dis.get_instructions(c))
    return {i.argval for i in read if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def _methods(kind, name):
    """Return a method of a class, and those that it calls, as far as users wrote them."""
    found, waiting = {}, [name]
    while waiting:
        name = waiting.pop()
        method = inspect.getattr_static(kind, name, None)
        method = getattr(method, "python_function", method)
        if name not in found and _is_users(method):
            found[name] = method
            waiting += [n for c in _codes(method.__code__) for n in c.co_names]
    return found


def _is_own(value, module):
    """Tell whether a global value is one of a function's module, and no import of it."""
    if isinstance(value, types.FunctionType):
        return value.__module__ == module
    return not isinstance(value, type | types.ModuleType | types.BuiltinFunctionType)


def _package(kind):
    return (kind.__module__ or "").partition(".")[0]


def _is_users(function):
    return isinstance(function, types.FunctionType) and _package(function) not in _LIBRARIES


def _settings(layer, methods=()):
    """Return the values that an operation keeps, or that some methods of a layer use."""
    own = {n: v for n, v in vars(layer).items() if n not in _kept_by_keras()}
    used = {n for m in dict(methods).values() for c in _codes(m.__code__) for n in c.co_names}
    kinds = *_PLAIN, *_ARRAYS, list, tuple, dict, set, types.FunctionType
    return {n: v for n, v in own.items() if (n in used or n[0] != "_") and isinstance(v, kinds)}


@functools.cache
def _kept_by_keras():
    """Return the names of what Keras keeps in layers and models, trained or not."""
    model = keras.Sequential(name="model")
    model.compile("sgd", "mse")
    trained = {"history", "stop_training", "stop_evaluating", "stop_predicting"}
    return {*vars(keras.Layer(name="layer")), *vars(model)} | trained


def _wiring(model, layers):
    """Return what each operation of a graph takes, by the order in which tensors are made."""
    numbers = {}

    def number(value):
        if isinstance(value, keras.KerasTensor):
            return ["tensor", numbers.setdefault(id(value), len(numbers))]
        return value

    def numbered(structure):
        return keras.tree.map_structure(number, structure)

    places = {id(layer): place for place, layer in enumerate(layers)}
    inputs, calls = numbered(_compat.input_structure(model)), []
    for operation, taken, made in _compat.symbolic_calls(model):
        kind = places.get(id(operation)) or [type(operation).__name__, _settings(operation)]
        calls.append([kind, numbered(taken), numbered(made)])
    return [inputs, calls, numbered(_compat.output_structure(model))]
