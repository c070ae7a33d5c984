"""The table of an evaluation."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

from keras_explainable import _tables
from keras_explainable._checks import invalid
from keras_explainable._checks import one_of
from keras_explainable._typing import PathLike

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"


class Row(NamedTuple):
    """One value of an evaluation.

    Attributes:
        method: label of the method.
        metric: label of the metric.
        unit: name or index of the class, or "all".
        value: the value; NaN where nothing was measured.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        count: number of explained pairs that it is the mean of.
    """

    method: str
    metric: str
    unit: object
    value: float
    low: float
    high: float
    count: int  # type: ignore[assignment]  # A tuple has a method of that name.


class Evaluation:
    """What `ke.evaluate` found: rows of method × metric × class.

    Attributes:
        rows: list of `Row`s.
        curves: dict from pairs of a method and a metric to the mean curve, a list of floats.
        curve_axes: dict from metrics that have curves to what goes from 0 to 1 along these.
        higher_is_better: dict from metrics to their direction.
        num_samples: number of samples.
        config: dict of how it was evaluated.

    Example:
        >>> from keras_explainable.evaluation import Evaluation, Row
        >>> evaluation = Evaluation([Row("cam", "sparseness", "all", 0.5, 0.4, 0.6, 9)])
        >>> print(evaluation)
        method  sparseness
        ------  --------------------
        cam     0.500 [0.400, 0.600]
    """

    def __init__(
        self,
        rows: Iterable[Row],
        curves: Mapping[tuple[str, str], list[float]] | None = None,
        higher_is_better: Mapping[str, bool | None] | None = None,
        num_samples: int | None = None,
        config: Mapping[str, Any] | None = None,
        curve_axes: Mapping[str, str] | None = None,
    ) -> None:
        self.rows = list(rows)
        self.curve_axes = dict(curve_axes or {})
        self.curves = dict(curves or {})
        self.higher_is_better = dict(higher_is_better or {})
        self.num_samples = num_samples
        self.config = dict(config or {})
        self._found = {(row.method, row.metric, row.unit): row for row in self.rows}

    @property
    def methods(self) -> list[str]:
        """Labels of the methods, in order."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def metrics(self) -> list[str]:
        """Labels of the metrics, in order."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows."""
        return iter(self.rows)

    def __eq__(self, other: object) -> bool:
        """Tell whether another evaluation found the same."""
        return isinstance(other, Evaluation) and self.to_json() == other.to_json()

    def select(
        self, method: str | None = None, metric: str | None = None, unit: object = None
    ) -> list[Row]:
        """Return the rows of a method, a metric and a class.

        Args:
            method: label, or `None` for all.
            metric: label, or `None` for all.
            unit: name or index of a class, "all" for what is over all classes, or `None`.

        Returns:
            list of `Row`s.

        Raises:
            ValueError: if there is no such method or metric.
        """
        for argument, value, names in (
            ("method", method, self.methods),
            ("metric", metric, self.metrics),
        ):
            if value is not None:
                one_of(argument, value, names)
        return [
            row
            for row in self.rows
            if method in (None, row.method)
            and metric in (None, row.metric)
            and unit in (None, row.unit)
        ]

    def value(self, method: str, metric: str, unit: object = ALL) -> float:
        """Return one value, a float.

        Args:
            method: label.
            metric: label.
            unit: name or index of a class. Defaults to "all".

        Raises:
            ValueError: if there is no such row.
        """
        if (method, metric, unit) not in self._found:
            units = [row.unit for row in self.select(method, metric)]
            raise invalid("unit", f"one of {units}", repr(unit))
        return self._found[method, metric, unit].value

    def best(self, metric: str) -> str | None:
        """Return the label of the best method by a metric, `None` where none is better.

        Args:
            metric: label.
        """
        higher = self.higher_is_better.get(metric)
        one_of("metric", metric, self.metrics)
        rows = [self._found.get((method, metric, ALL)) for method in self.methods]
        rows = [row for row in rows if row is not None and not math.isnan(row.value)]
        if higher is None or not rows:
            return None
        return (max if higher else min)(rows, key=lambda row: row.value).method

    def to_markdown(self, path: PathLike | None = None, *, per_class: bool = False) -> str:
        """Return a Markdown table, methods by metrics, with intervals; the best in bold.

        Args:
            path: file to write it to as well. Defaults to none.
            per_class: write all rows, one per line, in place of those over all classes.

        Returns:
            the table, a string.
        """
        if per_class:
            lines = [list(_COLUMNS)]
            lines += [[str(v) if not isinstance(v, float) else f"{v:.4f}" for v in r] for r in self]
        else:
            lines = self._cells("**")
        return _written(path, _tables.markdown(lines))

    def to_csv(self, path: PathLike | None = None) -> str:
        """Return all rows as CSV.

        Args:
            path: file to write it to as well. Defaults to none.

        Returns:
            a string.
        """
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(self.rows)
        return _written(path, file.getvalue())

    def to_json(self, path: PathLike | None = None) -> str:
        """Return rows, curves and how they were made as JSON, which `from_json` reads.

        Args:
            path: file to write it to as well. Defaults to none.

        Returns:
            a string. What is not a number is `null`.
        """
        content = {
            "rows": [dict(zip(_COLUMNS, map(_plain, row), strict=True)) for row in self.rows],
            "curves": [[*pair, list(map(float, curve))] for pair, curve in self.curves.items()],
            "higher_is_better": self.higher_is_better,
            "curve_axes": self.curve_axes,
            "num_samples": self.num_samples,
            "config": self.config,
        }
        return _written(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def from_json(cls, text_or_path: PathLike) -> Evaluation:
        """Read what `to_json` wrote.

        Args:
            text_or_path: the string, or the path of the file.

        Returns:
            an `Evaluation`.
        """
        if isinstance(text_or_path, str) and text_or_path.lstrip().startswith("{"):
            content = json.loads(text_or_path)
        else:
            content = json.loads(Path(text_or_path).read_text("utf-8"))
        rows = [
            Row._make(math.nan if row[c] is None else row[c] for c in _COLUMNS)
            for row in content.pop("rows")
        ]
        curves = {(method, metric): c for method, metric, c in content.pop("curves")}
        return cls(rows, curves, **content)

    def to_dataframe(self) -> pd.DataFrame:
        """Return all rows as a `pandas.DataFrame`.

        Raises:
            ImportError: if pandas isn't installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "`to_dataframe` needs pandas, which isn't installed. Run `pip install pandas`."
            ) from error
        return pandas.DataFrame(self.rows, columns=_COLUMNS)

    def __str__(self) -> str:
        """Return the table over all classes as text, the best of each metric marked."""
        return _tables.aligned(self._cells("*"))

    def __repr__(self) -> str:
        """Return what it is of, and the table."""
        return (
            f"<Evaluation of {len(self.methods)} methods by {len(self.metrics)} metrics on "
            f"{self.num_samples} samples>\n{self}"
        )

    def _repr_markdown_(self):
        return self.to_markdown()

    def _cells(self, mark):
        """Return lines of cells: a line per method, or per metric where there are more of these."""
        metrics = [self._heading(metric) for metric in self.metrics]
        lines = [
            [method, *(self._cell(method, metric, mark) for metric in self.metrics)]
            for method in self.methods
        ]
        if len(self.metrics) <= len(self.methods):
            return [["method", *metrics], *lines]
        columns = [["metric", *metrics], *lines]
        return [list(line) for line in zip(*columns, strict=True)]

    def _heading(self, metric):
        arrow = {True: " ↑", False: " ↓"}.get(self.higher_is_better.get(metric), "")
        return f"{metric}{arrow}"

    def _cell(self, method, metric, mark):
        row = self._found.get((method, metric, ALL))
        if row is None or math.isnan(row.value):
            return "–"
        text = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
        best = self.best(metric)
        shown = {f"{self._found[m, metric, ALL].value:.3f}" for m in self.methods}
        # What looks the same is marked alike, and not at all where all do.
        if best is None or len(shown) == 1 or f"{self.value(best, metric):.3f}" != text.split()[0]:
            return text
        return f"{mark}{text}{mark}" if mark == "**" else f"{text} {mark}"


_COLUMNS = ("method", "metric", "class", "value", "low", "high", "count")


def _plain(value):
    return None if isinstance(value, float) and math.isnan(value) else value


def _written(path, text):
    if path is not None:
        Path(path).write_text(text, "utf-8")
    return text
