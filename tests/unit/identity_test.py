"""What tells functions, objects and models from others, by what they do."""

import collections
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from keras_explainable._identity import described
from keras_explainable._identity import fingerprint

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
    "initializers": (keras.initializers.Constant(2), keras.initializers.Constant(3)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_values_are_told_apart_by_what_they_do(kind):
    one, other = PAIRS[kind]
    assert json.dumps(described(one)) == json.dumps(described(one))
    assert described(one) != described(other)


def test_what_a_function_compiled_changes_nothing():
    function = tf.function(lambda m: 2 * m)
    before = described(function)
    function(tf.ones(2))
    assert described(function) == before


def test_the_order_of_keywords_changes_nothing():
    one, other = functools.partial(sorted, a=1, b=2), functools.partial(sorted, b=2, a=1)
    assert described(one) == described(other)


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
