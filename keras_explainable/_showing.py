"""Short lines that say what an object is."""

import functools
import inspect
import itertools
import reprlib

import keras

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value):
    """Write a value in a line: functions, layers and models by name, arrays by type and shape."""
    if isinstance(value, functools.partial):
        return made("partial", value.keywords, shown(value.func))
    if isinstance(value, keras.layers.Layer | keras.KerasTensor):
        return repr(value.name)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{getattr(value.dtype, 'name', value.dtype)} {tuple(value.shape)}"
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    if isinstance(value, dict):
        return f"{{{_first(f'{shown(k)}: {shown(v)}' for k, v in value.items())}}}"
    if isinstance(value, set | frozenset):
        return shown(sorted(value, key=str))
    if isinstance(value, list | tuple):
        ends = "[]" if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
        return f"{ends[0]}{_first(map(shown, value))}{ends[1]}"
    # What others write may have several lines.
    return " ".join(_SHORT.repr(value).split("\n"))


def named(function):
    """Return the name of a function, or of the class of an object that is called like one."""
    return getattr(function, "__name__", type(function).__name__)


def _first(texts, count=6):
    """Join the first texts, and tell that there are more."""
    texts = list(itertools.islice(texts, count + 1))
    return ", ".join([*texts[:count], *["..."] * (len(texts) > count)])


def made(name, options, *first):
    """Write a call, such as `smooth(gradients, num_samples=4)`."""
    return f"{name}({', '.join([*first, *_pairs(options)])})"


def line(instance, /, *first, **options):
    """Write what an object is, such as `<Explainer of gradients, resizing=False>`.

    Args:
        instance: the object.
        *first: phrases that come before its options.
        **options: its options.
    """
    said = ", ".join([*first, *_pairs(options)])
    return f"<{type(instance).__name__}{said and ' '}{said}>"


def changed(function, options):
    """Return the options that differ from the defaults of a function.

    Args:
        function: a function, a class, or a list of parameters.
        options: dict of options.
    """
    is_list = isinstance(function, list)
    known = {p.name: p for p in function} if is_list else inspect.signature(function).parameters
    defaults = {name: known[name].default for name in options if name in known}
    return {n: v for n, v in options.items() if n not in defaults or not _same(v, defaults[n])}


def _pairs(options):
    return [f"{name}={shown(value)}" for name, value in options.items()]


def _same(value, default):
    """Tell whether a value is a default; an array is one only if it is the same object."""
    if value is default or hasattr(value, "shape"):
        return value is default
    return type(value) is type(default) and repr(value) == repr(default)
