"""Tell values, functions, models and data from others, across processes."""

import copyreg
import dis
import enum
import functools
import hashlib
import itertools
import json
import math
import os
import sys
import types
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _compat
from keras_explainable import inspection

_PLAIN = (type(None), str, int, float, bool)
_ARRAYS = (np.ndarray, tf.Tensor, tf.Variable, keras.Variable)
# What is told by how it is written.
_BY_REPR = (bytes, complex, range, slice, enum.Enum, os.PathLike)
_BY_REPR += (np.generic, np.dtype, tf.DType, tf.TensorShape)
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
_FUNCTIONS += (tf.types.experimental.PolymorphicFunction,)
# Of the configuration of a layer, what says nothing of how it predicts.
_IGNORED_SETTINGS = ("name", "dtype", "trainable", "seed")
# Of its attributes, likewise.
_IGNORED_PARTS = (keras.Metric, keras.random.SeedGenerator)
# Packages whose objects are told by their class and configuration alone.
_LIBRARIES = ("keras", "keras_explainable", "numpy", "tensorflow")
# Objects in objects that are described at the most.
_DEPTH = 40


def described(value):
    """Return what tells a value from others, in terms that JSON can hold.

    Functions and classes that users wrote are told by their code, what they hold, and what they use
    of their own module; those that are installed by name; objects by class and state; models and
    layers by their weights and how they compute. What refuses all of this is told by its class.
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
        if type(value) in _PLAIN:
            finite = not isinstance(value, float) or math.isfinite(value)
            return value if finite else repr(value)  # As NaN isn't equal to itself.
        if id(value) in self._known:
            return self._known[id(value)][1]
        name = _name(type(value))
        if self._depth == _DEPTH:
            return name
        self._known[id(value)] = value, name  # For what holds itself.
        self._depth += 1
        try:
            found = self._of(value)
        except Exception:  # noqa: BLE001
            # Objects of others may refuse anything; what holds them is still told.
            found = name
        self._depth -= 1
        self._known[id(value)] = value, found
        return found

    def _of(self, value):
        if not callable(value):  # What is called does more than to hold things.
            if isinstance(value, dict):
                return self._dict(value)
            if isinstance(value, list | tuple):
                return [self.of(v) for v in value]
            if isinstance(value, set | frozenset):
                return sorted(_written(self.of(v)) for v in value)
        if isinstance(value, np.generic) and type(value.item()) in _PLAIN:
            return self.of(value.item())
        if isinstance(value, _ARRAYS):
            return self._array(np.asarray(value))
        if isinstance(value, _BY_REPR):
            return [type(value).__qualname__, repr(value)]
        if isinstance(value, keras.KerasTensor):
            return ["KerasTensor", str(value.shape), value.dtype]
        if isinstance(value, keras.Layer):
            return self.layer(value)
        if isinstance(value, inspection.Target):
            return self.of([value.kind, value.data, value.inner])
        if isinstance(value, functools.partial):
            return self.of([value.func, value.args, value.keywords])
        if isinstance(value, tf.types.experimental.PolymorphicFunction):
            return self.of(value.python_function)
        if isinstance(value, types.MethodType):
            return self.of([value.__func__, value.__self__])
        if isinstance(value, types.FunctionType):
            return [_name(value), _hashed(self._function(value))]
        if isinstance(value, types.BuiltinFunctionType):
            of = value.__self__
            return [_name(value), None if isinstance(of, types.ModuleType) else self.of(of)]
        if isinstance(value, type):
            return [_name(value), None if _is_installed(value) else _hashed(self._class(value))]
        if isinstance(value, types.ModuleType):
            return _name(value)
        return self._object(value)

    def _dict(self, value):
        if all(type(key) is str for key in value):
            return {key: self.of(v) for key, v in value.items()}
        return sorted([_written(self.of(key)), self.of(v)] for key, v in value.items())

    def _array(self, array):
        if array.dtype.hasobject:
            return self.of(array.tolist())
        return _added(hashlib.sha256(), array).hexdigest()

    def _object(self, value):
        """Describe an object by its class, and by what a copy of it is made of."""
        kind = type(value)
        if _is_made_by_meta_method(value):
            return self.of([value.options, value.__wrapped__, value._function])
        if isinstance(value, keras.losses.Loss):  # Configurations leave some settings out.
            return [_name(kind), self.of([kind, vars(value)])]
        if _package(kind) in _LIBRARIES and not isinstance(value, np.ufunc | np.vectorize):
            own = _name(value if hasattr(value, "__name__") else kind)  # As functions of NumPy.
            return [own, self.of(value.get_config())] if hasattr(value, "get_config") else own
        if hasattr(value, "cache_parameters"):  # Of `functools.lru_cache`.
            return self.of(value.__wrapped__)
        reduce = copyreg.dispatch_table.get(kind)
        made = reduce(value) if reduce else value.__reduce_ex__(4)
        if isinstance(made, str):
            return [_name(kind), made]
        maker, arguments, state = (*made, None)[:3]
        slots, untold = {}, _set_by_call(kind, "__call__")
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state, slots = state
        if isinstance(state, dict | None):
            state = {**(state or {}), **(slots or {})}
            state = {name: held for name, held in state.items() if name not in untold}
        items = [list(pairs) for pairs in made[3:5] if pairs]
        # Hashed, as parts that are shared would be written as often as they are.
        return [_name(kind), _hashed(self.of([kind, maker, arguments, state, items]))]

    def layer(self, layer):
        """Describe a layer or model."""
        hashed, layers = hashlib.sha256(), [layer, *_compat.sublayers(layer)]
        # Where layers hold one another, their places tell them.
        self._known |= {id(part): (part, ["layer", i]) for i, part in enumerate(layers)}
        for part in layers:
            described, kind = [], type(part)
            if not isinstance(part, keras.Model):
                described += [kind.__name__, part.compute_dtype, self._configuration(part)]
            if not _is_installed(kind):
                described += [self.of(kind), self.of(_attributes(part))]
            if _compat.has_graph(part):
                described.append(self.of(_wiring(part)))
            hashed.update(_written(described).encode())
        for weight in layer.weights:
            _added(hashed, np.asarray(weight))
        return hashed.hexdigest()

    def _configuration(self, layer):
        """Describe how a layer was made."""
        # Configurations hold the names of functions, or the lines of the file they stand in.
        ignored = _kept_by_keras() | _set_by_call(type(layer), "call")
        own = {n: v for n, v in vars(layer).items() if n not in ignored}
        parts = (keras.Layer, *_IGNORED_PARTS)
        called = {n: v for n, v in own.items() if callable(v) and not isinstance(v, parts)}
        functions = called | {n: v for n, v in own.items() if _all_of(_FUNCTIONS, v)}
        try:
            config = layer.get_config()
        except Exception:  # noqa: BLE001
            # Keras writes no function of some kinds, and a layer of one's own may not say.
            config = {n: v for n, v in own.items() if _all_of(_PLAIN, v)}
        kept = {
            k: v for k, v in config.items() if k not in _IGNORED_SETTINGS and k not in functions
        }
        if _compat.sublayers(layer):  # Which are told by themselves, and not by their names.
            kept = {k: v for k, v in kept.items() if _all_of(_PLAIN, v)}
        return self.of([kept, functions])

    def _function(self, function):
        """Describe what a function holds, and of one that a user wrote the code as well."""
        cells = function.__closure__ or ()
        held = [None if cell == types.CellType() else cell.cell_contents for cell in cells]
        values = [held, function.__defaults__, function.__kwdefaults__]
        if _is_installed(function):
            return self.of(values)
        code, found = function.__code__, function.__globals__
        used = {n: found[n] for n in sorted(_globals(code)) if n in found}
        used = {n: v for n, v in used.items() if _belongs_to(function.__module__, v)}
        return [self._code(code), self.of([*values, used])]

    def _class(self, kind):
        """Describe what a class of a user and those it comes from consist of."""
        members = _members(kind)
        return [[name, self.of(_functions(member) or member)] for name, member in members]

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


def _added(hashed, array):
    hashed.update(f"{array.shape} {array.dtype}".encode())
    hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed


def _name(value):
    """Return how a function or class is called, with the module of one that is installed."""
    name = getattr(value, "__qualname__", value.__name__)
    return f"{value.__module__}.{name}" if _is_installed(value) else name


def _package(value):
    return (getattr(value, "__module__", None) or "").partition(".")[0]


def _is_installed(value):
    """Tell whether a function or class was installed, and not written by the user."""
    return _is_installed_package(_package(value))


@functools.cache
def _is_installed_package(name):
    if name == "__main__":  # Its file is that of a package in a process that a package started.
        return False
    if name in _LIBRARIES or name in sys.stdlib_module_names:
        return True
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(path).parts)


def _is_made_by_meta_method(value):
    return _package(type(value)) == "keras_explainable" and hasattr(value, "__wrapped__")


def _all_of(kinds, value):
    """Tell whether a value is of some kinds, or a list or tuple of such."""
    parts = value if isinstance(value, list | tuple) else [value]
    return bool(parts) and all(isinstance(part, kinds) for part in parts)


def _belongs_to(module, value):
    """Tell whether a global value is one of a function's module, and no import of it."""
    if isinstance(value, types.FunctionType | type):
        return value.__module__ == module
    return not isinstance(value, types.ModuleType | types.BuiltinFunctionType)


def _codes(code):
    """List a code, and those of the functions inside it."""
    inner = (_codes(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return [code, *itertools.chain(*inner)]


def _globals(code):
    """Return the names of globals that a function uses, and functions inside it do."""
    read = (i for c in _codes(code) for i in dis.get_instructions(c))
    return {i.argval for i in read if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def _members(kind):
    """List what a class, and those of users that it comes from, were written with."""
    kinds = (k for k in kind.__mro__ if not _is_installed(k))
    members = (pair for k in kinds for pair in sorted(vars(k).items(), key=lambda pair: pair[0]))
    # Python and `dataclasses` note down what says nothing else.
    return [(n, m) for n, m in members if n[:2] != "__" or _functions(m)]


def _functions(member):
    """List the functions that a member of a class is made of."""
    if isinstance(member, property):
        return [f for f in (member.fget, member.fset) if f]
    if isinstance(member, functools.cached_property):
        member = member.func
    elif isinstance(member, staticmethod | classmethod):
        member = member.__func__
    elif isinstance(member, tf.types.experimental.PolymorphicFunction):
        member = member.python_function
    return [member] if isinstance(member, types.FunctionType) else []


def _set_by_call(kind, called):
    """Return the names of attributes that calling an object sets: results, no settings."""
    members = _members(kind)
    calls = [f.__code__ for name, member in members if name == called for f in _functions(member)]
    stored = (i for code in calls for c in _codes(code) for i in dis.get_instructions(c))
    lazy = {name for name, member in members if isinstance(member, functools.cached_property)}
    return lazy | {i.argval for i in stored if i.opname == "STORE_ATTR"}


def _attributes(operation):
    """Return what an operation or layer keeps, apart from what Keras does."""
    members = [f for _, member in _members(type(operation)) for f in _functions(member)]
    used = {name for f in members for c in _codes(f.__code__) for name in c.co_names}
    untold = _kept_by_keras() | _set_by_call(type(operation), "call")
    own = {n: v for n, v in vars(operation).items() if n[0] != "_" or n in used}
    return {n: v for n, v in own.items() if n not in untold and not isinstance(v, _IGNORED_PARTS)}


@functools.cache
def _kept_by_keras():
    """Return the names of what Keras keeps in layers and models, trained or not."""
    model = keras.Sequential(name="model")
    model.compile("sgd", "mse")
    trained = {"history", "stop_training", "stop_evaluating", "stop_predicting"}
    return {*vars(keras.Layer(name="layer")), *vars(model)} | trained


def _wiring(model):
    """Return what each operation of a graph takes, by the order in which tensors are made."""
    numbers = {}

    def number(value):
        if isinstance(value, keras.KerasTensor):
            return ["tensor", numbers.setdefault(id(value), len(numbers))]
        return value

    def numbered(structure):
        return keras.tree.map_structure(number, structure)

    inputs, calls = numbered(_compat.input_structure(model)), []
    for operation, taken, made in _compat.symbolic_calls(model):
        if not isinstance(operation, keras.Layer):
            operation = [type(operation), _attributes(operation)]
        calls.append([operation, numbered(taken), numbered(made)])
    return [inputs, calls, numbered(_compat.output_structure(model))]
