"""The table of explaining methods."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

import keras

from keras_explainable import _showing
from keras_explainable import inspection
from keras_explainable._checks import invalid
from keras_explainable._checks import meant
from keras_explainable._checks import mistyped
from keras_explainable._checks import nearest
from keras_explainable._checks import one_of
from keras_explainable._tables import Listing
from keras_explainable._tables import summary
from keras_explainable._typing import Function
from keras_explainable._typing import Inputs
from keras_explainable._typing import Layers
from keras_explainable._typing import Method
from keras_explainable._typing import Output
from keras_explainable._typing import Reshape

FAMILIES = ("gradient", "cam", "attention")
# Attention of all tokens to all; a head as `inspection.head_kernel` reads it; layers for which
# there is a rule of relevance; max-poolings, without which maps don't tell places apart.
NEEDS = ("attention", "linear head", "relevance rules", "max-pooling")
# What the methods of a family explain in place of a layer.
_WITHOUT_LAYER = {
    "gradient": "explains the input, not a layer",
    "attention": "explains with the attention of all layers",
}


class Registration(NamedTuple):
    """What the library knows of a method.

    Attributes:
        method: the function.
        family: "gradient" methods explain with the logits of a model alone, "cam" methods with its
            logits and activations, "attention" methods with its logits and attention scores.
        postprocessing: name of the filter that its maps pass by default, or `None`.
        axioms: names of the properties that it has, each with a test in
            `tests/properties/axioms_test.py`.
        sample_options: keyword arguments that hold one value per sample and unit.
        expose: function `(model, outputs, *, inputs)` that makes the model that the method takes
            where no layer is chosen; `None` for `inspection.expose` as the family needs it.
        raw_options: keyword arguments that, where they are set, ask for something that no filter
            passes by default.
        is_gradient: whether the maps, with `reduction=None`, are the gradients of the logits by the
            input; `None` where it isn't known.
        expose_options: keyword arguments of `expose` that are options of the method.
        needs: what a model has to have for the method beside spatial activations: "attention",
            "linear head", "relevance rules" or "max-pooling"; `None` for nothing.
    """

    method: Callable
    family: str
    postprocessing: str | None
    axioms: frozenset = frozenset()
    sample_options: tuple = ()
    expose: Callable | None = None
    raw_options: tuple = ()
    is_gradient: bool | None = None
    expose_options: tuple = ()
    needs: str | None = None

    def __repr__(self):
        """Tell what is known, by short names."""
        return _showing.made("Registration", _showing.changed(Registration, self._asdict()))

    @property
    def options(self) -> list[inspect.Parameter]:
        """Parameters that are options of the method, in the order of its signature."""
        own = inspect.signature(self.method).parameters.values()
        options = [parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
        if not self.expose_options:
            return options
        others = inspect.signature(self.expose or inspection.expose).parameters
        return [*(others[name] for name in self.expose_options), *options]

    def exposed(
        self,
        model: keras.Model,
        layer: Layers = None,
        outputs: Output = None,
        *,
        inputs: Inputs | None = None,
        reshape: Reshape = None,
        **options: Any,
    ) -> inspection.Exposed:
        """Make the model that the method takes.

        Args:
            model: `keras.Model`, as trained.
            layer: endpoints of the activations, or `None` for those that the method explains by
                default.
            outputs: as in `inspection.expose`.
            inputs: as in `inspection.expose`.
            reshape: as in `inspection.expose`, for methods that explain tokens.
            **options: those of `expose_options`.

        Returns:
            an `inspection.Exposed` model.

        Raises:
            TypeError: as `inspection.expose`.
            ValueError: as `inspection.expose`, and for a layer where the method takes none.
        """
        name = _showing.named(self.method)
        if self.family in _WITHOUT_LAYER and layer is not None:
            raise invalid("layer", f"`None`: {name} {_WITHOUT_LAYER[self.family]}", repr(layer))
        if self.family == "gradient" and reshape is not None:
            expected = f"`None`: {name} explains the input, not tokens"
            raise invalid("reshape", expected, repr(reshape))
        if isinstance(layer, list | tuple) and not layer:
            raise invalid("layer", "a layer, or a list of one at least", repr(layer))
        if reshape is not None:
            options["reshape"] = reshape
        if self.expose is None or (layer is not None and not self.exposes_layers):
            arguments = () if self.family == "gradient" else layer
            return inspection.expose(model, arguments, outputs, inputs=inputs, **options)
        if self.exposes_layers:
            options["arguments"] = layer
        return self.expose(model, outputs=outputs, inputs=inputs, **options)

    @property
    def exposes_layers(self) -> bool:
        """Whether `expose` takes the endpoints of activations."""
        return self.expose is not None and "arguments" in inspect.signature(self.expose).parameters


_METHODS: dict[str, Registration] = {}
_META_METHODS: dict[str, Callable] = {}


def explaining_method(
    *,
    family: str,
    postprocessing: str | None,
    axioms: Iterable[str] = (),
    sample_options: Iterable[str] = (),
    expose: Callable | None = None,
    raw_options: Iterable[str] = (),
    is_gradient: bool | None = False,
    expose_options: Iterable[str] = (),
    needs: str | None = None,
) -> Callable[[Function], Function]:
    """Register a function `(model, inputs, indices, ...) -> (logits, maps)` as a method.

    Args:
        family: "gradient", "cam" or "attention".
        postprocessing: see `Registration`.
        axioms: see `Registration`.
        sample_options: see `Registration`.
        expose: see `Registration`.
        raw_options: see `Registration`.
        is_gradient: see `Registration`.
        expose_options: see `Registration`.
        needs: see `Registration`.

    Returns:
        a decorator that returns the function as it was.
    """

    def register(method):
        _METHODS[method.__name__] = Registration(
            method,
            family,
            postprocessing,
            frozenset(axioms),
            tuple(sample_options),
            expose,
            tuple(raw_options),
            is_gradient,
            tuple(expose_options),
            needs,
        )
        return method

    return register


class _Made:
    """A method that a meta method made, which says of what.

    Args:
        function: the method.
        said: what it says.
    """

    # Apart from the attributes that `functools.wraps` takes over from the method inside.
    __slots__ = ("__dict__", "__weakref__", "_function", "_said")

    def __init__(self, function, said):
        vars(self).update(vars(function))
        self._function = function
        self._said = said

    def __call__(self, *arguments, **options):
        return self._function(*arguments, **options)

    def __repr__(self):
        return self._said

    def __copy__(self):
        return self  # As of a function: it is what compiled steps are found by.

    def __deepcopy__(self, _):
        return self


def meta_method(*, postprocessing: str | None = None) -> Callable[[Function], Function]:
    """Register a function `(method, *, ...) -> method` as a meta method.

    What it returns is kept, so that wrapping a method again in the same way gives the very same
    function, and the step that was compiled for it. It takes over what is known of the method.

    Args:
        postprocessing: name of the filter that its maps pass by default. Defaults to that of the
            method wrapped.

    Returns:
        a decorator that returns the meta method, which takes a name for a method too.
    """

    def register(function):
        parameter = next(iter(inspect.signature(function).parameters.values()))

        @functools.lru_cache(maxsize=256, typed=True)
        def kept(method, **options):
            known = registration(method)
            explain = function(method, **options)
            keeps = getattr(explain, "keeps_gradients", False)
            expose = getattr(explain, "expose", known.expose)
            said = _showing.made(function.__name__, options, _showing.shown(method))
            explain = functools.wraps(method)(_Made(explain, said))
            explain.__doc__ = _made_of(function.__name__, method, options)
            # Noise inside noise has a seed of its own.
            explain.depth = getattr(method, "depth", 0) + 1
            explain.__name__ = explain.__qualname__ = (
                f"{function.__name__}({_showing.named(method)})"
            )
            # With those of the method inside, which may be another meta method's.
            explain.options = {**options, "method": getattr(method, "options", None)}
            explain.registration = known._replace(
                method=explain,
                postprocessing=postprocessing or known.postprocessing,
                axioms=frozenset(),
                is_gradient=known.is_gradient if keeps else False,
                expose=expose,
            )
            return explain

        @functools.wraps(function)
        def wrap(method=parameter.default, **options):
            if method is parameter.empty:
                raise mistyped("method", "a method or its name", None)
            options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
            options = _showing.changed(function, options)
            hashable = all(_is_hashable(value) for value in options.values())
            return (kept if hashable else kept.__wrapped__)(get(method), **options)

        _META_METHODS[function.__name__] = wrap
        return wrap

    return register


def _made_of(name, method, options):
    """Return the docstring of what a meta method makes of a method."""
    settings = ", ".join(f"{option}={_showing.shown(value)}" for option, value in options.items())
    begun = f"`{name}` of `{_showing.shown(method)}`{settings and ', with '}{settings}."
    return f"{begun}\n\n{inspect.cleandoc(method.__doc__ or '')}".rstrip()


def names() -> tuple[str, ...]:
    """Return the names of the registered methods, sorted."""
    return tuple(sorted(_METHODS))


class Description(NamedTuple):
    """What is said of a method in a list of them.

    Attributes:
        name: its name.
        family: "gradient", "cam", "attention" or "meta".
        summary: what it does.
        needs: what a model has to have for it, as in `Registration`; empty for nothing special.
    """

    name: str
    family: str
    summary: str
    needs: str


def describe(family: str | None = None) -> Listing:
    """List the methods and meta methods, with a line on each.

    The list prints as a table, and a notebook shows it as one.

    Args:
        family: "gradient", "cam", "attention", or "meta" for the meta methods. Defaults to all.

    Returns:
        that list; its `rows` are named tuples of `name`, `family`, `summary` and `needs`.

    Raises:
        ValueError: if there is no such family.

    Example:
        >>> import keras_explainable as ke
        >>> print(ke.methods.describe("attention"))
        attention
          attention_relevance  Generic attention explainability, attention rolled by its gradients
          attention_rollout    Attention rollout, the attention of all blocks multiplied
          getam                GETAM, attention times its gradient, times its gradient once more
          legrad               LeGrad, with the positive gradients by attention alone
    """
    families = (*FAMILIES, "meta")
    if family is not None:
        one_of("family", family, families)
    found = [(n, r.family, r.method, r.needs) for n, r in sorted(_METHODS.items())]
    found += [(n, "meta", f, None) for n, f in sorted(_META_METHODS.items())]
    rows = [Description(n, group, _said(f), needs or "") for n, group, f, needs in found]
    # A family of one's own comes last.
    order = {group: place for place, group in enumerate(families)}
    rows.sort(key=lambda row: order.get(row.family, len(order)))
    return Listing(row for row in rows if family in (None, row.family))


def _said(function):
    """Return what a method does, without what all of them do."""
    said = summary(function)
    told = re.sub(r"^Explain (units|an input) (with|in the manner of) ", "", said)
    return told[:1].upper() + told[1:]


def _is_hashable(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True


def defined_in(package: str) -> dict[str, Callable]:
    """Return the methods that the modules of a package define, by name."""
    inside = f"{package}."
    return {n: r.method for n, r in _METHODS.items() if r.method.__module__.startswith(inside)}


def get_meta(name: str) -> Callable:
    """Return the meta method of a name.

    Args:
        name: one of `meta_names()`.

    Returns:
        function from a method, or its name, and options to a method.

    Raises:
        ValueError: if no meta method has that name.
    """
    if name not in _META_METHODS:
        hint = meant(name, _META_METHODS)
        raise invalid("name", f"one of {', '.join(meta_names())}", repr(name), hint)
    return _META_METHODS[name]


def meta_names() -> tuple[str, ...]:
    """Return the names of the registered meta methods, sorted."""
    return tuple(sorted(_META_METHODS))


def get(identifier: Method) -> Callable:
    """Resolve a method.

    Args:
        identifier: name of a registered method, or a function of that form.

    Returns:
        the function.

    Raises:
        ValueError: if no method has that name.
        TypeError: if `identifier` is neither a name nor callable.
    """
    return registration(identifier).method


def registration(identifier: Method) -> Registration:
    """Return what is known of a method; of an unregistered function, that it is of the CAM family.

    Args:
        identifier: as in `get`.

    Returns:
        its `Registration`.
    """
    identifier = getattr(identifier, "shortcut_of", identifier)
    if isinstance(identifier, str):
        if identifier not in _METHODS:
            near = nearest(identifier, [*_METHODS, *_META_METHODS])
            hint = meant(identifier, _METHODS)
            if near in _META_METHODS:
                example = f'`ke.methods.{near}("gradcam")`'
                hint = f"{near!r} is a meta method, which makes a method of another: {example}."
            raise invalid("method", f"one of {', '.join(names())}", repr(identifier), hint)
        return _METHODS[identifier]
    if inspect.ismodule(identifier):
        hint = "Name the function in it, as in `ke.methods.gradients.gradients`, or pass its name."
        raise mistyped("method", "a method", identifier, hint)
    if not callable(identifier):
        expected = "the name of a method or a function `(model, inputs, indices) -> (logits, maps)`"
        raise mistyped("method", expected, identifier)
    known = getattr(identifier, "registration", None)
    if isinstance(known, Registration):
        # A function that wraps another one has its attributes.
        return known._replace(method=identifier)
    known = _METHODS.get(getattr(identifier, "__name__", ""))
    if known is not None and known.method is identifier:
        return known
    return Registration(identifier, "cam", None)
