"""Everything public states its types, and checkers of a user's code see them."""

import ast
import configparser
import inspect
import subprocess
import sys
import typing
from pathlib import Path
from types import SimpleNamespace

import matplotlib.axes
import matplotlib.figure
import pandas
import pytest

import keras_explainable as ke

ROOT = Path(__file__).parents[2]
# What modules import for type checkers only.
FOR_CHECKERS = {
    "Axes": matplotlib.axes.Axes,
    "Evaluation": ke.Evaluation,
    "Figure": matplotlib.figure.Figure,
    "pd": pandas,
}
# Their modules are families, of which users get what is registered.
REGISTRIES = (ke.methods, ke.metrics)


def _shown(module):
    """Return what a module imports under the same name, defines, or has registered."""
    imports = [
        n for n in ast.parse(inspect.getsource(module)).body if isinstance(n, ast.ImportFrom)
    ]
    names = {a.name for node in imports for a in node.names if a.asname == a.name}
    values = vars(module).items()
    names |= {n for n, value in values if getattr(value, "__module__", "") == module.__name__}
    if module is ke:
        names |= {*ke.methods.names()}
    if module in REGISTRIES:
        names |= {*dir(module)} - {*vars(module)}
    return {name: getattr(module, name) for name in sorted(names) if name[0] != "_"}


def _callables(module):
    """Yield the functions, methods and properties that a module shows, with their names."""
    for name, value in _shown(module).items():
        path = f"{module.__name__.removeprefix('keras_explainable').lstrip('.')}.{name}".lstrip(".")
        if inspect.ismodule(value):
            if module not in REGISTRIES:
                yield from _callables(value)
        elif inspect.isclass(value):
            yield from ((f"{path}.{name}", method) for name, method in _methods(value))
        elif callable(value):
            yield path, value


def _methods(kind):
    """Yield the public methods and properties that a class defines."""
    for name, value in vars(kind).items():
        if name[0] == "_" and name not in ("__init__", "__call__", "__getitem__"):
            continue
        value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        # A protocol has an overloaded function without a body.
        if inspect.isfunction(value) and value.__module__ != "typing":
            yield name, value


PUBLIC = dict(_callables(ke))
# The functions behind methods and metrics, whose options become those of the public ones.
PUBLIC |= {f"registered {n}": ke.methods.get(n) for n in ke.methods.names()}
PUBLIC |= {f"registered {n}": ke.metrics.registration(n).function for n in ke.metrics.names()}
PUBLIC |= {
    f"{row.__module__}.{name}": function
    for row in (
        type(ke.methods.registration("cam")),
        type(ke.metrics.registration("deletion")),
        ke.metrics.Scores,
    )
    for name, function in _methods(row)
}


def _types(function):
    return typing.get_type_hints(function, localns=FOR_CHECKERS)


def _untyped(function):
    """Return the names of what a function takes or returns without saying of which type."""
    parameters = inspect.signature(function).parameters
    bound = next(iter(parameters), None) in ("self", "cls")
    return [n for n in [*parameters, "return"][bound:] if n not in _types(function)]


def test_the_public_functions_are_found():
    expected = {
        "gradcam",
        "explain",
        "Explainer.explain",
        "Explainer.num_units",
        "Store.__getitem__",
        "Evaluation.from_json",
        "evaluate",
        "maximize_activation",
        "callbacks.Explain.__init__",
        "filters.positive",
        "inspection.expose",
        "inspection.feeding.accepted",
        "layers.ActivationMaps.call",
        "losses.EnergyOutside.__init__",
        "methods.gradcam",
        "methods.smooth",
        "methods.explaining_method",
        "metrics.deletion",
        "metrics.ExplanationMetric.update_state",
        "regularizers.get",
        "targets.segment",
        "visualization.grid",
    }
    assert expected - {*PUBLIC} == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_and_result_has_a_type(name):
    assert _untyped(PUBLIC[name]) == []


@pytest.mark.parametrize("name", PUBLIC)
def test_a_default_of_none_is_of_the_type(name):
    parameters = inspect.signature(PUBLIC[name]).parameters.values()
    types = _types(PUBLIC[name])
    missing = [
        p.name
        for p in parameters
        if p.default is None
        and types[p.name] not in (typing.Any, object)
        and type(None) not in typing.get_args(types[p.name])
    ]
    assert missing == []


def test_a_function_without_a_type_is_noticed():
    def half(model: int, inputs, *, seed: int = 0):
        return model, inputs, seed

    assert _untyped(half) == ["inputs", "return"]


def test_the_signature_of_a_shortcut_has_the_types_of_its_options():
    assert "fusion: 'str' = 'mean'" in str(inspect.signature(ke.gradcam))
    types = typing.get_type_hints(ke.gradcam)
    assert (types["fusion"], types["batch_size"]) == (str, int | None)
    assert types["return"] == typing.get_type_hints(ke.explain)["return"]


def test_the_options_of_a_function_that_states_no_types_are_left_as_they_are(monkeypatch):
    registry = sys.modules[ke.methods.names.__module__]
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    @ke.methods.explaining_method(family="cam", postprocessing=None)
    def own(model, inputs, indices=None, *, power: "Power" = 2):  # noqa: F821
        return model(inputs), indices, power

    shortcut = ke.engine.shortcut("own")
    assert "power: 'Power' = 2" in str(inspect.signature(shortcut))
    assert "power" not in typing.get_type_hints(shortcut)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("engine.explaining.explain", ke.explain),
        ("engine.explaining.Explainer.explain", ke.Explainer.explain),
        ("engine.shortcuts.Shortcut.__call__", ke.explain),
    ],
)
def test_checkers_see_the_parameters_of_the_function(name, function):
    # Overloads are found by names, also those of a protocol, which has no function of the name.
    package, module, path = name.split(".", 2)
    module = f"keras_explainable.{package}.{module}"
    overloads = typing.get_overloads(SimpleNamespace(__module__=module, __qualname__=path))
    overload = inspect.signature(overloads[-1]).parameters
    own = dict(inspect.signature(function).parameters)
    if "Shortcut" in name:
        own = {"self": overload["self"]} | {n: p for n, p in own.items() if n != "method"}
    # With a path, what is returned is another, and the other overload tells of it.
    told = {
        n: p.replace(annotation="None") if n in ("path", "shard") else p for n, p in own.items()
    }
    assert list(overload.items()) == list(told.items())


def test_the_package_says_that_it_is_typed():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    assert settings["options.package_data"]["keras_explainable"] == "py.typed"
    assert Path(ke.__file__).with_name("py.typed").exists()


def test_a_checker_sees_the_types_in_code_of_a_user(tmp_path):
    pytest.importorskip("mypy")
    code = """
        import keras, numpy as np, keras_explainable as ke
        x = np.ones((1, 8, 8, 3))
        reveal_type(ke.gradcam(keras.Model(), x, "argmax", layer="conv")[0])
        reveal_type(ke.gradcam(keras.Model(), x, path="maps.h5"))
        reveal_type(ke.Explainer("cam", keras.Model()).explain(x)[0])
        reveal_type(ke.methods.meta.smooth("gradients", num_samples=3))
        reveal_type(ke.targets.segment("all"))
        ke.gradcam(keras.Model(), x, batch_size="8")
        ke.methods.meta.smooth("gradients", num_samples="3")
        ke.filters.threshold(x, fraction="0.2")
    """
    path = tmp_path / "code.py"
    path.write_text(inspect.cleandoc(code))
    command = [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = [line.split(": ", 1)[1] for line in done.stdout.splitlines() if ": " in line]
    revealed = [line for line in found if line.startswith("note: Revealed")]
    errors = [line for line in found if line.startswith("error:")]
    for line, kind in zip(
        revealed, ("ndarray", "Store", "ndarray", "def (*Any, **Any)", "Target"), strict=True
    ):
        assert kind in line
    for line, part in zip(
        errors, ('of "Shortcut"', '"num_samples" to "smooth"', '"fraction"'), strict=True
    ):
        assert part in line
