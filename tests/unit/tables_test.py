"""Lists of methods and metrics, which follow from the registries."""

from typing import NamedTuple

import pytest

import keras_explainable as ke
from keras_explainable import _tables
from keras_explainable.methods import _registry

METHODS = ke.methods.describe()
METRICS = ke.metrics.describe()


class _Row(NamedTuple):
    name: str
    group: str
    summary: str
    needs: str


def test_every_method_and_meta_method_has_a_line():
    assert sorted(row.name for row in METHODS) == sorted(
        [*ke.methods.names(), *ke.methods.meta_names()]
    )
    groups = list(dict.fromkeys(row.family for row in METHODS))
    assert groups == [*ke.methods.FAMILIES, "meta"]
    rows = {row.name: row for row in METHODS}
    assert rows["cam"] == (
        "cam",
        "cam",
        "CAM, the share of each position in a logit that averages them",
        "linear head",
    )
    assert rows["smooth"].family == "meta"


def test_every_metric_has_a_line():
    assert sorted(row.name for row in METRICS) == list(ke.metrics.names())
    rows = {row.name: row for row in METRICS}
    assert rows["pointing_game"][1:] == (
        "localization",
        "Whether the highest position of a map is on the object, or near it",
        "masks",
        "higher",
    )
    assert rows["complexity"].summary.startswith("The entropy of a map, ")
    assert {row.summary.split()[0] for row in METRICS}.isdisjoint({"Tell", "Measure"})
    assert all(row.summary[0].isupper() for row in METRICS)


@pytest.mark.parametrize("listing", [METHODS, METRICS])
def test_lists_read_well_in_a_terminal(listing):
    lines = str(listing).splitlines()
    assert repr(listing) == str(listing)
    assert max(map(len, lines)) <= 100
    begins = {line.split()[0]: line for line in lines if line.startswith("  ") and line[2] != " "}
    assert list(begins) == [row.name for row in listing]
    starts = {len(line) - len(line[2:].partition(" ")[2].lstrip()) for line in begins.values()}
    assert len(starts) == 1  # Summaries stand below each other.
    for row in listing:
        assert row.summary
        assert not set(row.summary) & set("`*")


@pytest.mark.parametrize("listing", [METHODS, METRICS])
def test_notebooks_show_a_table(listing):
    head, rule, *rows = listing._repr_markdown_().splitlines()
    assert head == f"| {' | '.join(listing.rows[0]._fields)} |"
    assert rule.count("---") == len(listing.rows[0])
    assert len(rows) == len(listing)
    assert rows[0].startswith(f"| `{listing.rows[0].name}` | ")


def test_families_and_categories_choose():
    assert {row.family for row in ke.methods.describe("cam")} == {"cam"}
    assert [row.name for row in ke.methods.describe("meta")] == list(ke.methods.meta_names())
    assert [row.name for row in ke.metrics.describe("fixations")] == list(
        ke.metrics.names("fixations")
    )


@pytest.mark.parametrize("family", ["saliency", "CAM", 3, ""])
def test_an_unknown_family_is_refused_by_the_choices(family):
    expected = "`family`. Expected one of gradient, cam, attention, meta. Received: "
    with pytest.raises(ValueError, match=expected):
        ke.methods.describe(family)


def test_an_unknown_category_is_refused_by_the_choices():
    with pytest.raises(ValueError, match="`category`. Expected one of faithfulness, .*'faith'"):
        ke.metrics.describe("faith")


def test_a_new_method_appears_by_itself(monkeypatch):
    monkeypatch.setattr(_registry, "_METHODS", dict(_registry._METHODS))

    @ke.methods.explaining_method(family="cam", postprocessing=None, needs="linear head")
    def own(model, inputs, indices=None):
        """Explain units with *own* maps of `model`,
        over two lines. And more.

        Not this.
        """
        return model(inputs), indices

    @ke.methods.explaining_method(family="cam", postprocessing=None)
    def undocumented(model, inputs, indices=None):
        return model(inputs), indices

    rows = {row.name: row for row in ke.methods.describe("cam")}
    assert rows["own"][2:] == ("Own maps of model, over two lines", "linear head")
    assert rows["undocumented"][2:] == ("", "")
    assert str(ke.methods.describe("cam")).count("undocumented") == 1


def test_long_lines_are_broken_and_notes_are_not():
    rows = [
        _Row("a", "one", "word " * 30, "much"),
        _Row("bcd", "one", "x" * 85, "a linear head"),
        _Row("e", "much", "little", "much"),
    ]
    assert str(_tables.Listing(rows)).splitlines() == [
        "one",
        "  a    " + ("word " * 18).rstrip(),
        " " * 7 + ("word " * 12).rstrip() + " (needs: much)",
        "  bcd  " + "x" * 85,
        " " * 7 + "(needs: a linear head)",
        "",
        "much",
        "  e    little",
    ]
    assert str(_tables.Listing([])) == _tables.Listing([])._repr_markdown_() == ""


def test_cells_are_aligned_and_bars_escaped():
    lines = [["method", "value"], ["a|b", "1"]]
    assert _tables.aligned(lines) == "method  value\n------  -----\na|b     1"
    assert _tables.markdown(lines) == "| method | value |\n| --- | --- |\n| a\\|b | 1 |\n"
