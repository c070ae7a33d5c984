"""The table of metrics of explanations."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from collections.abc import Iterable
from typing import NamedTuple

from keras_explainable import _showing
from keras_explainable._checks import invalid
from keras_explainable._checks import meant
from keras_explainable._checks import one_of
from keras_explainable._tables import Listing
from keras_explainable._tables import summary
from keras_explainable._typing import Function

CATEGORIES = (
    "faithfulness",
    "localization",
    "robustness",
    "complexity",
    "randomization",
    "fixations",
)
# What metrics are computed from, by the names of their arguments, which have one row per sample.
ARGUMENTS = (
    "x",
    "maps",
    "indices",
    "masks",
    "boxes",
    "labels",
    "fixations",
    "detections",
    "logits",
)
# What a metric needs beside maps: the user's `keras.Model`, which the function of a metric gets as
# `Exposed` model, and the user's `explain`, which it gets bound to that model, as `Explanations`.
NEEDS = ("model", "masks", "boxes", "labels", "fixations", "explain")


class Registration(NamedTuple):
    """What the library knows of a metric.

    Attributes:
        function: the function, which returns `Scores`, or rows of values from the evidence of a
            protocol.
        category: "faithfulness", "localization", "robustness", "complexity",
            "randomization" or "fixations".
        higher_is_better: direction; `None` where neither is better.
        protocol: function that gathers the evidence which several metrics share, at the price of
            some passes of the model; `None` for a metric that shares none.
        parts: names of the parts of the evidence that the metric reads.
        combine: function from means `(..., *parts)` to values `(...)`, for metrics that are no mean
            themselves, such as a harmonic mean of two; `None` for a mean.
        unit_interval: whether the maps are masks, from 0 to 1.
        per_class: whether its values belong to classes, and not to samples.
        raw: whether the maps are those of the method, not filtered and not resized.
        curve_axis: what goes from 0 to 1 along its curve; empty for a metric without one.
        with_background: whether its values are those of the background and of all classes.
    """

    function: Callable
    category: str
    higher_is_better: bool | None
    protocol: Callable | None = None
    parts: frozenset = frozenset()
    combine: Callable | None = None
    unit_interval: bool = False
    per_class: bool = True
    raw: bool = False
    curve_axis: str = ""
    with_background: bool = False

    def __repr__(self):
        """Tell what is known, by short names."""
        return _showing.made("Registration", _showing.changed(Registration, self._asdict()))

    @property
    def name(self) -> str:
        """Name of the metric."""
        return self.function.__name__

    @property
    def class_name(self) -> str:
        """Name of the class of the metric, as in `AverageDrop` for "average_drop"."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def arguments(self) -> list[inspect.Parameter]:
        """Parameters that hold data, in the order of the signature."""
        first = inspect.signature(self.protocol or self.function).parameters.values()
        return [p for p in first if p.name in ("model", "explain", *ARGUMENTS)]

    @property
    def needs(self) -> tuple[str, ...]:
        """What the metric is computed from beside maps, by the names of its arguments."""
        return tuple(p.name for p in self.arguments if p.name in NEEDS)

    @property
    def protocol_options(self) -> list[inspect.Parameter]:
        """Parameters that are options of the protocol."""
        return _options(self.protocol) if self.protocol else []

    @property
    def options(self) -> list[inspect.Parameter]:
        """Parameters that are options, in the order of their signatures."""
        return [*self.protocol_options, *_options(self.function)]

    def check_options(self, options: Iterable[str]) -> None:
        """Raise that there is no such option."""
        known = [parameter.name for parameter in self.options]
        for name in options:
            if name not in known:
                said = (
                    f"The metric {self.name!r} got an unknown option {name!r}. "
                    f"Its options are: {', '.join(known) or 'none'}."
                )
                raise TypeError(f"{said} {meant(name, known)}".rstrip())


_METRICS: dict[str, Registration] = {}


def explanation_metric(
    *,
    category: str,
    higher_is_better: bool | None,
    protocol: Callable | None = None,
    parts: Iterable[str] = (),
    combine: Callable | None = None,
    unit_interval: bool = False,
    per_class: bool = True,
    raw: bool = False,
    curve_axis: str = "",
    with_background: bool = False,
) -> Callable[[Function], Function]:
    """Register a function as a metric.

    Args:
        category: "faithfulness", "localization", "robustness", "complexity",
            "randomization" or "fixations".
        higher_is_better: see `Registration`.
        protocol: see `Registration`.
        parts: see `Registration`.
        combine: see `Registration`.
        unit_interval: see `Registration`.
        per_class: see `Registration`.
        raw: see `Registration`.
        curve_axis: see `Registration`.
        with_background: see `Registration`.

    Returns:
        a decorator that returns the function as it was.
    """

    def register(function):
        _METRICS[function.__name__] = Registration(
            function,
            category,
            higher_is_better,
            protocol,
            frozenset(parts),
            combine,
            unit_interval,
            per_class,
            raw,
            curve_axis,
            with_background,
        )
        return function

    return register


def names(category: str | None = None) -> tuple[str, ...]:
    """Return the names of the registered metrics, sorted.

    Args:
        category: "faithfulness", "localization", "robustness", "complexity",
            "randomization" or "fixations". Defaults to all.
    """
    if category is not None and category not in CATEGORIES:
        raise invalid("category", f"one of {', '.join(CATEGORIES)}", repr(category))
    found = (n for n, r in _METRICS.items() if category in (None, r.category))
    return tuple(sorted(found))


class Description(NamedTuple):
    """What is said of a metric in a list of them.

    Attributes:
        name: its name.
        category: "faithfulness", "localization", "robustness", "complexity",
            "randomization" or "fixations".
        summary: what it tells.
        needs: what it is computed from beside maps, as in `Registration`.
        better: "higher" or "lower"; empty where neither is.
    """

    name: str
    category: str
    summary: str
    needs: str
    better: str


def describe(category: str | None = None) -> Listing:
    """List the metrics, with a line on each.

    The list prints as a table, and a notebook shows it as one.

    Args:
        category: "faithfulness", "localization", "robustness", "complexity",
            "randomization" or "fixations". Defaults to all.

    Returns:
        that list; its `rows` are named tuples of `name`, `category`, `summary`, `needs` and
        `better`.

    Raises:
        ValueError: if there is no such category.

    Example:
        >>> import keras_explainable as ke
        >>> print(ke.metrics.describe("complexity").rows[-1].summary)
        The Gini index of a map: how unequally its magnitude is shared out
    """
    if category is not None:
        one_of("category", category, CATEGORIES)
    words = {True: "higher", False: "lower", None: ""}
    rows = []
    for group in CATEGORIES if category is None else (category,):
        for name in names(group):
            known = _METRICS[name]
            better = words[known.higher_is_better]
            needs = ", ".join(known.needs)
            rows.append(Description(name, group, _said(known.function), needs, better))
    return Listing(rows)


def _said(function):
    """Return what a metric tells, without that it does."""
    told = re.sub(r"^(Tell|Measure) ", "", summary(function))
    return told[:1].upper() + told[1:]


def registration(name: str) -> Registration:
    """Return what is known of a metric.

    Args:
        name: one of `names()`.

    Returns:
        its `Registration`.

    Raises:
        ValueError: if no metric has that name.
    """
    if not isinstance(name, str) or name not in _METRICS:
        hint = meant(name, _METRICS)
        raise invalid("metric", f"one of {', '.join(names())}", repr(name), hint)
    return _METRICS[name]


def _options(function):
    parameters = inspect.signature(function).parameters.values()
    own = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return [p for p in own if p.name not in (*ARGUMENTS, "parts", "explain")]
