"""What tells functions, objects and models from others, by what they do."""

import cmath
import collections
import dataclasses
import datetime
import decimal
import functools
import json
import logging
import math
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import unittest.mock

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from keras_explainable._identity import described
from keras_explainable._identity import fingerprint
from keras_explainable.methods import _registry
from tests import zoo

IMAGES = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")


def scaled_by(factor):
    return lambda maps: factor * maps


def applying(function):
    return lambda maps: function(maps)


class Scaled:
    def __init__(self, factor):
        self.factor = factor
        self.itself = self

    def __call__(self, maps):
        return self.apply(maps)

    def apply(self, maps):
        return self.factor * maps


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, maps):
        return self.factor * maps


class Wrapping:
    def __init__(self, factor):
        functools.update_wrapper(self, scaled_by)
        self.factor = factor

    def __call__(self, maps):
        return self.factor * maps


class Named:
    __slots__ = "factor", "other"

    def __init__(self, factor):
        self.factor = factor


class Optional(Scaled):
    options = ()


@dataclasses.dataclass
class Settings:
    factor: float


def with_global(factor):
    """Return a function of a module that takes its factor from there, by another function."""
    module = {"__name__": "filters", "FACTOR": factor}
    text = "def scale(maps):\n    return FACTOR * maps\n\ndef direct(maps):\n    return scale(maps)"
    exec(text, module)  # noqa: S102
    return module["direct"]


def mine(factor):
    def mine(model, inputs, indices=None):
        logits = ke.inspection.gather_units(model(inputs)[0], indices)
        return logits, factor * inputs

    return mine


def dense(factor):
    layer = layers.Dense(1, kernel_initializer=keras.initializers.Constant(factor))
    layer.build((None, 2))
    return layer


class Base:
    factor = 2

    def __call__(self, maps):
        return self.scaled(maps)

    def scaled(self, maps):
        return self.factor * maps


class Other(Base):
    factor = 3


class Through(Base):
    def scaled(self, maps):
        return super().scaled(maps) + 1


class ThroughOther(Other):
    def scaled(self, maps):
        return super().scaled(maps) + 1


def of_class(body):
    """Return a function that calls a method of a class of its module, with another body."""
    module = {"__name__": "filters"}
    text = f"class Own:\n    def go(self, m):\n        return {body}\n\ndef f(m):\n"
    exec(text + "    return Own().go(m)", module)  # noqa: S102
    return module["f"]


def with_property(factor):
    class Own:
        @property
        def factor(self):
            return factor

        @staticmethod
        def scaled(maps, by):
            return by * maps

        def __call__(self, maps):
            return self.scaled(maps, self.factor)

    return Own()


class Pipe(list):
    def __call__(self, maps):
        for function in self:
            maps = function(maps)
        return maps


class Sum(list):
    def __call__(self, maps):
        return sum(function(maps) for function in self)


class Paired:
    def __init__(self, factor):
        self.factor = factor

    def __getstate__(self):
        return "state", self.factor


def with_partial(factor):
    class Own:
        scaled = functools.partial(np.multiply, factor)

        def __call__(self, maps):
            return self.scaled(maps)

    return Own()


def in_a_worker(factor):
    """Return a function of the main module of a process that a package started."""
    module = {"__name__": "__main__"}
    exec(f"def f(m):\n    return {factor} * m", module)  # noqa: S102
    return module["f"]


def meta(factor):
    def wrap(method):
        def explain(model, inputs, indices=None):
            logits, maps = method(model, inputs, indices)
            return logits, factor * maps

        return explain

    return ke.methods.meta_method()(wrap)("gradients")


SMOOTH = functools.partial(ke.methods.smooth, num_samples=2)
PAIRS = {
    "names": (lambda m: tf.sin(m), lambda m: tf.cos(m)),
    "constants": (lambda m: 2 * m, lambda m: 3 * m),
    "closures": (scaled_by(2), scaled_by(3)),
    "partials": (functools.partial(np.clip, a_min=0), functools.partial(np.clip, a_min=1)),
    "meta": (SMOOTH(ke.methods.tta("cam", scales=1)), SMOOTH(ke.methods.tta("cam", scales=2))),
    "methods of users": (SMOOTH(mine(1)), SMOOTH(mine(2))),
    "objects": (Scaled(2), Scaled(3)),
    "slots": (Slotted(2), Slotted(3)),
    "unset slots": (Named(2), Named(3)),
    "wrappers": (Wrapping(2), Wrapping(3)),
    "options": (Optional(2), Optional(3)),
    "bound methods": (Scaled(2).apply, Scaled(3).apply),
    "functions held": (applying(lambda m: 2 * m), applying(lambda m: 3 * m)),
    "objects held": (applying(Scaled(2)), applying(Scaled(3))),
    "settings": (Scaled(Settings(2.0)), Scaled(Settings(3.0))),
    "globals": (with_global(2), with_global(3)),
    "global tuples": (with_global((2,)), with_global((3,))),
    "global objects": (with_global(Settings(2.0)), with_global(Settings(3.0))),
    "global layers": (with_global(dense(2)), with_global(dense(3))),
    "ufuncs": (np.abs, np.sqrt),
    "sets": (lambda m: m in {"a", "b"}, lambda m: m in {"a", "c"}),
    "variables": (Scaled(tf.Variable(2.0)), Scaled(tf.Variable(3.0))),
    "variables of Keras": (Scaled(keras.Variable(2.0)), Scaled(keras.Variable(3.0))),
    "types of arrays": (np.zeros(2, "float32"), np.zeros(2, "int32")),
    "bytes": (Scaled(b"2"), Scaled(b"3")),
    "paths": (Scaled(pathlib.Path("a/w")), Scaled(pathlib.Path("b/w"))),
    "cached": (functools.lru_cache(lambda m: 2 * m), functools.lru_cache(lambda m: 3 * m)),
    "compiled": (tf.function(lambda m: 2 * m), tf.function(lambda m: 3 * m)),
    "class attributes": (Base(), Other()),
    "base classes": (Through(), ThroughOther()),
    "classes used": (of_class("2 * m"), of_class("3 * m")),
    "properties": (with_property(2), with_property(3)),
    "dates": (Scaled(datetime.date(2020, 1, 1)), Scaled(datetime.date(2021, 1, 1))),
    "decimals": (Scaled(decimal.Decimal("2")), Scaled(decimal.Decimal("3"))),
    "patterns": (re.compile("a" * 300 + "a"), re.compile("a" * 300 + "b")),
    "callable lists": (Pipe([np.abs]), Sum([np.abs])),
    "states": (Paired(2), Paired(3)),
    "partials of classes": (with_partial(2), with_partial(3)),
    "main modules": (in_a_worker(2), in_a_worker(3)),
    "losses": (keras.losses.Huber(delta=1.0), keras.losses.Huber(delta=2.0)),
    "vectorized": (np.vectorize(lambda m: 2 * m), np.vectorize(lambda m: 3 * m)),
    "shapes": (tf.TensorShape([2]), tf.TensorShape([3])),
    "queues": (collections.deque([2]), collections.deque([3])),
    "functions of NumPy": (np.sort, np.flip),
    "modules of functions": (math.sin, cmath.sin),
    "methods of objects": ({1: 1}.get, {1: 2}.get),
    "types of keys": ({1: 0, "1": 5}, {1: 7, "1": 5}),
    "functions of SciPy": (scipy.ndimage.gaussian_filter, scipy.ndimage.uniform_filter),
    "initializers": (keras.initializers.Constant(2), keras.initializers.Constant(3)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_values_are_told_apart_by_what_they_do(kind, monkeypatch):
    if kind == "main modules":
        installed = np.__file__  # Stands for the script of a worker that was installed.
        monkeypatch.setattr(sys.modules["__main__"], "__file__", installed, raising=False)
    one, other = PAIRS[kind]
    assert json.dumps(described(one)) == json.dumps(described(one))
    assert described(one) != described(other)


def test_meta_methods_of_users_are_told_apart(monkeypatch):
    monkeypatch.setattr(_registry, "_META_METHODS", {})
    assert described(meta(2)) == described(meta(2)) != described(meta(3))


def test_what_a_function_compiled_changes_nothing():
    function = tf.function(lambda m: 2 * m)
    before = described(function)
    function(tf.ones(2))
    assert described(function) == before


def test_the_order_of_keywords_changes_nothing():
    one, other = functools.partial(sorted, a=1, b=2), functools.partial(sorted, b=2, a=1)
    assert described(one) == described(other)


LOG = logging.getLogger("filters")


class Lazy:
    calls = 0
    offset = None

    @functools.cached_property
    def factor(self):
        return 2.0

    def __call__(self, maps):
        self.calls += 1
        if self.offset is None:
            self.offset = 1.0
        LOG.debug("called")
        return self.factor * maps + self.offset


def test_what_a_call_keeps_changes_nothing():
    filter_maps = Lazy()
    before = described(filter_maps)
    filter_maps(1.0)
    logging.getLogger("another").setLevel("DEBUG")
    assert described(filter_maps) == before


def test_not_a_number_is_equal_to_itself():
    assert described({"factor": float("nan")}) == described({"factor": float("nan")})


class Lying:
    @property
    def __class__(self):
        raise RuntimeError("no class")


class Refusing:
    def __call__(self, maps):
        return maps

    def __getattr__(self, name):
        raise RuntimeError(name)


def _cyclic():
    cyclic = []
    cyclic.append({"itself": cyclic})
    return cyclic


def _deep():
    filter_maps = Scaled(1)
    for _ in range(2000):
        filter_maps = applying(filter_maps)
    return filter_maps


STRANGE = {
    "slots": lambda: Slotted(1),
    "cycle": lambda: Scaled(_cyclic()),
    "data set": lambda: Scaled(tf.data.Dataset.range(3)),
    "date": lambda: Scaled(np.datetime64("2020-01-01")),
    "mock": unittest.mock.MagicMock,
    "refusing": Refusing,
    "lying": Lying,
    "deep": _deep,
    "keys": lambda: Scaled({(1, 2): 3, None: 4}),
    "generator": lambda: Scaled(n for n in range(3)),
    "objects": lambda: Scaled(np.array([Settings(1.0), None], object)),
    "counter": lambda: Scaled(collections.Counter("aab")),
    "optimizer": lambda: Scaled(keras.optimizers.Adam()),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_any_object_is_described(kind):
    value = STRANGE[kind]()
    assert json.dumps(described(value)) == json.dumps(described(value))


def _chain(wiring, k=1.0):
    class Doubled(layers.Layer):
        def __init__(self):
            super().__init__()
            self.k = k

        def call(self, x):
            return self.k * x

    inputs = keras.Input((6, 6, 3))
    tensors = [inputs]
    for _ in range(3):
        tensors.append(layers.Conv2D(3, 1, kernel_initializer="ones")(tensors[-1]))
    x = layers.Add()([tensors[i] for i in wiring])
    x = layers.Lambda(lambda x: x + 1)(Doubled()(x)) * 2.0
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


class Called(keras.Model):
    def __init__(self, k):
        super().__init__()
        self.k = k
        self.pool = layers.GlobalAveragePooling2D()

    def call(self, x):
        return self.k * self.pool(x)


class Private(Called):
    def __init__(self, k):
        super().__init__(0)
        self._k = k

    def call(self, x):
        return self.scaled(self.pool(x))

    def scaled(self, x):
        return self._k * x


class Shifted(Private):
    def scaled(self, x):
        return self._k + x


class Compiled(Called):
    @tf.function
    def call(self, x):
        return self.k * self.pool(x)


def _merged(mode):
    inputs = keras.Input((6, 3))
    recurrent = layers.LSTM(2, kernel_initializer="ones", recurrent_initializer="ones")
    return keras.Model(inputs, layers.Bidirectional(recurrent, merge_mode=mode)(inputs))


def test_models_of_the_same_weights_are_told_apart_by_how_they_compute():
    built = [_chain((3, 1)), _chain((3, 2)), _chain((3, 1), k=-1.0), Called(1), Called(2)]
    built += [Private(1), Private(tf.constant(2.0)), Private({"a": 1}), Shifted(1)]
    built += [Compiled(1), Compiled(2), _merged("sum"), _merged("ave")]
    told = [fingerprint(model) for model in built]
    assert len(set(told)) == len(told)
    # Built again, and of other names, they are the same.
    assert fingerprint(_chain((3, 1))) == told[0]
    assert fingerprint(Called(1)) == told[3]
    assert fingerprint(_merged("ave")) == told[-1]


def _activated(factor):
    return lambda x: factor * x


class Held(layers.Layer):
    """A layer that says nothing of what it holds."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def get_config(self):
        return {}

    def call(self, x):
        self.last = keras.ops.shape(x)
        return self.held(x) if callable(self.held) else self.held * x


class Doubled(keras.Operation):
    def call(self, x):
        return 2 * x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class Tripled(Doubled):
    def call(self, x):
        return 3 * x


LAYERS = {
    "closures": lambda k: layers.Activation(_activated(k)),
    "partials": lambda k: layers.Activation(functools.partial(tf.nn.leaky_relu, alpha=k)),
    "configurations": lambda k: layers.Conv2D(
        3,
        2,
        padding=["same", "valid"][int(k) - 1],
        activation=functools.partial(tf.nn.leaky_relu, alpha=0.5),
    ),
    "axes": lambda k: layers.MultiHeadAttention(1, 2, attention_axes=(int(k),)),
    "scalars": lambda k: Held(np.float32(k)),
    "functions": lambda k: Held(functools.partial(tf.multiply, k)),
    "compiled": lambda k: Held(tf.function(lambda x: k * x)),
    "objects": lambda k: Held(Scaled(k)),
    "callables": lambda k: layers.Activation(Scaled(k)),
    "operations": lambda k: [Doubled, Tripled][int(k) - 1](),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_the_same_weights_are_told_apart_by_what_they_hold(kind):
    def built(factor):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6, 6, 3))
        arguments = (inputs, inputs) if kind == "axes" else (inputs,)
        return keras.Model(inputs, LAYERS[kind](factor)(*arguments))

    assert fingerprint(built(1.0)) == fingerprint(built(1.0)) != fingerprint(built(2.0))


class Noting(layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor, self.last = factor, None

    def get_config(self):
        raise RuntimeError("has none")

    def call(self, x):
        self.last = tuple(x.shape)
        return self.factor * x


def test_what_a_layer_keeps_of_a_call_changes_no_fingerprint():
    model = keras.Sequential([keras.Input((6, 6, 3)), Noting(2.0)])
    before = fingerprint(model)
    model(IMAGES)
    assert fingerprint(model) == before


def test_shared_parts_are_written_once():
    shared = Scaled(1)
    for _ in range(30):
        shared = Scaled([shared, shared])
    assert len(json.dumps(described(shared))) < 1000


def test_training_settings_change_no_fingerprint():
    for model in (_chain((3, 1)), Called(1)):
        model(IMAGES)
        before = fingerprint(model)
        model.compile("adam", "mse")
        model.predict(IMAGES, verbose=0)
        model.trainable = False
        assert fingerprint(model) == before


def test_a_model_built_again_goes_on_with_its_own_layer(tmp_path):
    for _ in range(2):
        model = _chain((3, 1))
        store = ke.gradcam(model, IMAGES, layer=model.layers[1], path=tmp_path / "a.h5", verbose=0)
    assert len(store) == len(IMAGES)
    with pytest.raises(ValueError, match="made with another .*model"):
        ke.gradcam(model, IMAGES, layer=model.layers[2], path=tmp_path / "a.h5", verbose=0)


@pytest.mark.parametrize("kind", ["functional", "nested", "subclassed_with_tensorflow"])
def test_layers_are_told_apart(kind, tmp_path):
    model = zoo.KINDS[kind]().model
    found = [n for n in ke.inspection.find_layers(model, lambda _: True) if n.endswith("conv")]
    options = {"path": tmp_path / "a.h5", "verbose": 0}
    ke.gradcam(model, zoo.IMAGES, layer=found[0], **options)
    with pytest.raises(ValueError, match="made with another (`layer`|model)"):
        ke.gradcam(model, zoo.IMAGES, layer=found[0].replace("conv", "relu"), **options)


def test_options_given_as_their_defaults_are_those_left_out(tmp_path):
    model, options = _chain((3, 1)), {"path": tmp_path / "a.h5", "verbose": 0}
    for more in ({}, {"fusion": "mean", "postprocessing": ke.filters.get("positive_normalize")}):
        ke.gradcam(model, IMAGES, **options, **more)
    for layer in (model.layers[3], model.layers[3].name, 3):
        options["path"] = tmp_path / "b.h5"
        ke.gradcam(model, IMAGES, layer=layer, **options)
    assert SMOOTH("gradients") is SMOOTH("gradients", seed=0)


def test_filters_that_are_compiled_go_on(tmp_path):
    filter_maps = tf.function(lambda m: 2 * m)
    options = {"postprocessing": filter_maps, "path": tmp_path / "a.h5", "verbose": 0}
    for _ in range(2):
        assert len(ke.gradcam(_chain((3, 1)), IMAGES, **options)) == len(IMAGES)


SCRIPT = """
    import json
    import keras
    import keras_explainable as ke
    from keras_explainable._identity import described, fingerprint

    def helper(x):
        return x if x in {"a", "b", "c"} else {"d": {"e", "f"}}

    def method(model, inputs, indices=None, *, names=frozenset({"x", "y", "z"})):
        return helper(inputs)

    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 3, kernel_initializer="ones")(inputs)
    x = keras.layers.Lambda(lambda x: x + 1)(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    smoothed = ke.methods.smooth(method, num_samples=2)
    print(json.dumps([described(smoothed), fingerprint(model)]))
"""


def test_other_processes_describe_the_same():
    found = set()
    for seed in "12":
        # The lines of a script may move, too.
        command = [sys.executable, "-c", "\n" * int(seed) + textwrap.dedent(SCRIPT)]
        environment = os.environ | {"PYTHONHASHSEED": seed, "TF_CPP_MIN_LOG_LEVEL": "3"}
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found.add(run.stdout.splitlines()[-1])
    assert len(found) == 1


class Method:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, model, inputs, indices=None):
        return mine(self.factor)(model, inputs, indices)


def _partial(factor):
    return functools.partial(mine(factor))


def _compiled(factor):
    return tf.function(mine(factor))


@pytest.mark.parametrize("make", [Method, _partial, _compiled])
@pytest.mark.parametrize("wrap", [lambda m: m, SMOOTH], ids=["plain", "smooth"])
def test_whatever_can_be_called_explains_and_is_told_apart(make, wrap, tmp_path):
    options = {"x": IMAGES, "path": tmp_path / "a.h5", "resizing": False, "verbose": 0}
    model = _chain((3, 1))
    for _ in range(2):
        maps = ke.explain(wrap(make(2.0)), model, **options).numpy()[1]
    _, expected = ke.explain(wrap(mine(2.0)), model, IMAGES, resizing=False, verbose=0)
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="made with another method"):
        ke.explain(wrap(make(3.0)), model, **options)
    with pytest.raises(TypeError, match="unknown option 'other'"):
        ke.explain(make(2.0), model, other=1, **options)
