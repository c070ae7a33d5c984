"""Shortcuts: `ke.gradcam(model, x)` for `ke.explain("gradcam", model, x)`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import overload

import keras

from keras_explainable import _docstrings
from keras_explainable._typing import Arrays
from keras_explainable._typing import Data
from keras_explainable._typing import Filter
from keras_explainable._typing import Layers
from keras_explainable._typing import Output
from keras_explainable._typing import PathLike
from keras_explainable._typing import Reshape
from keras_explainable._typing import Resizing
from keras_explainable._typing import Units
from keras_explainable._typing import Verbose
from keras_explainable._typing import hints_of
from keras_explainable.engine.explaining import explain
from keras_explainable.engine.storing import Store
from keras_explainable.methods import _registry

_HINTS = hints_of(explain)


class Shortcut(Protocol):
    """What type checkers, which don't run the registry, see of every shortcut."""

    @overload
    def __call__(
        self, model: keras.Model, x: Data, y: Units = None, *, path: PathLike, **arguments: Any
    ) -> Store: ...

    @overload
    def __call__(
        self,
        model: keras.Model,
        x: Data,
        y: Units = None,
        *,
        layer: Layers = None,
        output: Output = None,
        batch_size: int | None = None,
        steps: int | None = None,
        verbose: Verbose = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        postprocessing: Filter = "auto",
        resizing: Resizing = True,
        reshape: Reshape = None,
        run_eagerly: bool = False,
        jit_compile: bool = False,
        max_bytes: int | None = None,
        path: None = None,
        dtype: str = "float32",
        shard: None = None,
        **options: Any,
    ) -> Arrays: ...


def shortcut(name: str) -> Shortcut:
    """Return the function `(model, x, y=None, ...)` that explains with a registered method.

    Args:
        name: name of the method.

    Returns:
        `explain` with that method, the options of the method in its signature.
    """
    known = _registry.registration(name)
    method = known.method

    def explain_with(model, x, y=None, **arguments):
        return explain(method, model, x, y, **arguments)

    whole = inspect.signature(explain)
    parameters = [*list(whole.parameters.values())[1:-1], *known.options]
    signature = whole.replace(parameters=parameters)
    hints = {**_hints(known), **_HINTS}
    explain_with.__name__ = explain_with.__qualname__ = name
    explain_with.__annotations__ = {
        parameter: hints[parameter]
        for parameter in (*signature.parameters, "return")
        if parameter in hints
    }
    # Where it is found by its name, so that `pickle` and `help` find it too.
    explain_with.__module__ = "keras_explainable"
    explain_with.__doc__ = _documented(known, signature)
    vars(explain_with).update(__signature__=signature, shortcut_of=name)
    return explain_with


def _hints(known):
    """Return the types of the options of a method, by name."""
    functions = (known.expose, known.method) if known.expose_options else (known.method,)
    return {name: hint for f in functions for name, hint in hints_of(f).items()}


def _documented(known, signature):
    """Return the docstring of a shortcut: that of its method, with the arguments of `explain`."""
    name, sections = known.method.__name__, _docstrings.sections(known.method.__doc__)
    exposing = _docstrings.sections(known.expose.__doc__ if known.expose_options else None)
    entries = _docstrings.entries(exposing["Args"]) | _docstrings.entries(sections["Args"])
    own = [parameter.name for parameter in known.options]
    shared = [n for n in list(signature.parameters)[3:] if n not in own]
    size = "" if known.family == "gradient" else " and resized to the input"
    passed = known.postprocessing
    filtered = f'after the filter "{passed}"' if passed else "unfiltered"
    sections["Args"] = _joined(
        _docstrings.entry("model", "`keras.Model`, as trained."),
        _docstrings.entry("x", "data, as `keras.Model.predict` takes them; see `ke.explain`."),
        _docstrings.entry(
            "y",
            "units explained: `None` for every unit, an integer, integers `(samples,)` or "
            '`(samples, n)`, or "argmax"; see `ke.explain`.',
        ),
        *(entries[option] for option in own if option in entries),
        _docstrings.entry(", ".join(shared), "as in `ke.explain`."),
    )
    sections["Returns"] = _joined(
        "    a `ke.Store`, where there is a `path`; otherwise\n",
        _docstrings.entry("logits", "float32 NumPy array `(samples, n)`, before any activation."),
        _docstrings.entry(
            "maps",
            f"float32 NumPy array `(samples, *positions, n)`, {filtered}{size}, unless arguments "
            "ask for something else.",
        ),
    )
    raised = _docstrings.entry("ValueError, TypeError", "also as in `ke.explain`.")
    sections["Raises"] = _joined(sections["Raises"], raised)
    sections[""] = _joined(
        f"{sections['']}\n" if sections[""] else "",
        f'Shortcut of `ke.explain("{name}", model, x, y, ...)`.',
    )
    return _docstrings.joined(sections)


def _joined(*lines):
    return "\n".join(filter(None, lines))
