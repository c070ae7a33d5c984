"""Names of the types that annotations share.

TensorFlow and Keras bring no types, so that checkers take what comes from them for `Any`.
"""

import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal
from typing import TypeAlias
from typing import TypeVar
from typing import get_type_hints

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

# What a decorator returns as it was.
Function = TypeVar("Function", bound=Callable[..., Any])

Array: TypeAlias = np.ndarray | tf.Tensor
ArrayLike: TypeAlias = npt.ArrayLike | tf.Tensor
# Of a model with several inputs, a list, tuple or dict of arrays, nested as the model takes it.
Inputs: TypeAlias = ArrayLike | Sequence[Any] | Mapping[str, Any]
Data: TypeAlias = Inputs | tf.data.Dataset | keras.utils.PyDataset
# Integers, one for all samples, one per sample or several per sample; `None` for every unit.
Units: TypeAlias = Literal["argmax"] | ArrayLike | None
# Name, path or index, what has it, or dict of these and what tells calls of a layer apart.
Endpoint: TypeAlias = str | int | keras.layers.Layer | keras.KerasTensor | Mapping[str, Any]
Layers: TypeAlias = Endpoint | Sequence[Endpoint] | None
# An output, a function of the outputs, or a target, which is one.
Output: TypeAlias = Endpoint | Callable[..., Any] | None
# Name, or function `(model, inputs, indices, ...) -> (logits, maps)`.
Method: TypeAlias = str | Callable[..., Any]
# One, a list, or a dict by labels, where arguments may go with a method.
Methods: TypeAlias = (
    Method | Sequence[Method] | Mapping[str, Method | tuple[Method, Mapping[str, Any]]]
)
Metric: TypeAlias = str | keras.metrics.Metric | Callable[..., Any]
Metrics: TypeAlias = Metric | Sequence[Metric] | Mapping[str, Metric]
# Name, or function from maps to maps; `None` leaves them.
Filter: TypeAlias = str | Callable[..., Any] | None
# Whether to resize, one size for all axes, or one for each.
Resizing: TypeAlias = bool | int | Sequence[int] | None
Reshape: TypeAlias = Sequence[int] | Callable[..., Any] | Literal[False] | None
Verbose: TypeAlias = int | Literal["auto"]
PathLike: TypeAlias = str | os.PathLike[str]
Head: TypeAlias = keras.Model | keras.layers.Layer | ArrayLike

# Logits and maps. `Any` is for what only some calls return, lists and dicts of maps, so that
# others need no check.
Tensors: TypeAlias = tuple[tf.Tensor, tf.Tensor | Any]
Arrays: TypeAlias = tuple[np.ndarray, np.ndarray | Any]


def hints_of(function):
    """Return the types that a function states, by name; none where they can't be evaluated."""
    try:
        return get_type_hints(function)
    except (NameError, TypeError):  # Of names that only checkers import; of no plain function.
        return {}
