"""Shortcuts: `ke.gradcam(model, x)` for `ke.explain("gradcam", model, x)`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import overload

import keras

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
    explain_with.__doc__ = (
        f"Shortcut of `ke.explain({name!r}, model, x, y, ...)`, which tells the arguments that all "
        f"methods share.\n\nThe method and its options:\n\n{inspect.cleandoc(method.__doc__ or '')}"
    )
    vars(explain_with).update(__signature__=signature, shortcut_of=name)
    return explain_with


def _hints(known):
    """Return the types of the options of a method, by name."""
    functions = (known.expose, known.method) if known.expose_options else (known.method,)
    return {name: hint for f in functions for name, hint in hints_of(f).items()}
