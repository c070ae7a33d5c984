"""The table of an evaluation: what it says, prints and writes."""

import csv
import io
import json
import math
import sys

import pytest

import keras_explainable as ke
from keras_explainable.evaluation.table import Row

NAN = math.nan


@pytest.fixture
def table():
    rows = [
        Row("cam", "drop", "all", 0.25, 0.2, 0.3, 8),
        Row("cam", "drop", "cat", 0.5, 0.4, 0.6, 3),
        Row("cam", "hits", "all", 0.75, 0.5, 1.0, 8),
        Row("gradcam", "drop", "all", 0.125, 0.1, 0.2, 8),
        Row("gradcam", "drop", "dog", 0.25, NAN, NAN, 1),
        Row("gradcam", "hits", "all", 0.5, 0.3, 0.7, 8),
        Row("a|b", "drop", "all", NAN, NAN, NAN, 0),
        Row("a|b", "hits", "all", 0.75, 0.5, 1.0, 8),
    ]
    curves = {("cam", "hits"): [0.0, 0.5, 1.0]}
    directions = {"drop": False, "hits": True}
    axes = {"hits": "threshold"}
    return ke.Evaluation(rows, curves, directions, 9, {"seed": 0}, axes)


def test_values_are_found_by_their_labels(table):
    assert table.methods == ["cam", "gradcam", "a|b"]
    assert table.metrics == ["drop", "hits"]
    assert table.value("cam", "drop") == 0.25
    assert table.value("cam", "drop", "cat") == 0.5
    assert [row.method for row in table.select(metric="hits")] == ["cam", "gradcam", "a|b"]
    assert len(table) == len(list(table)) == 8
    for wrong, message in (
        (("cat", "drop"), "`method`. Expected one of cam, gradcam"),
        (("cam", "drops"), "`metric`. Expected one of drop, hits. Received: 'drops'"),
        (("cam", "drop", "cow"), r"`unit`. Expected one of \['all', 'cat'\]. Received: 'cow'"),
    ):
        with pytest.raises(ValueError, match=message):
            table.value(*wrong)


def test_the_best_is_that_of_the_direction(table):
    assert table.best("drop") == "gradcam"
    assert table.best("hits") == "cam"
    table.higher_is_better["drop"] = None
    assert table.best("drop") is None
    with pytest.raises(ValueError, match="Received: 'drops'"):
        table.best("drops")


def test_text_marks_what_is_best(table):
    lines = str(table).splitlines()
    assert lines[0].split() == ["method", "drop", "↓", "hits", "↑"]
    assert lines[2].split("  ")[0] == "cam"
    assert "0.250 [0.200, 0.300]" in lines[2]
    assert "0.125 [0.100, 0.200] *" in lines[3]
    assert lines[2].endswith("0.750 [0.500, 1.000] *")
    assert lines[4].endswith("*")  # The same as the best.
    assert "–" in lines[4]
    assert repr(table).startswith("<Evaluation of 3 methods by 2 metrics on 9 samples>\n")


def test_more_metrics_than_methods_go_into_lines(table):
    rows = [row for row in table if row.method == "cam"]
    lines = str(ke.Evaluation(rows, higher_is_better={"drop": False})).splitlines()
    assert lines[0].split() == ["metric", "cam"]
    assert [line.split()[0] for line in lines[2:]] == ["drop", "hits"]
    assert "*" not in lines[2]


def test_markdown(table, tmp_path):
    text = table.to_markdown(tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text("utf-8") == text
    lines = text.splitlines()
    assert lines[1] == "| --- | --- | --- |"
    assert lines[3] == "| gradcam | **0.125 [0.100, 0.200]** | 0.500 [0.300, 0.700] |"
    assert lines[4].startswith(r"| a\|b | – |")
    assert table._repr_markdown_() == text
    all_rows = table.to_markdown(per_class=True).splitlines()
    assert all_rows[0] == "| method | metric | class | value | low | high | count |"
    assert all_rows[3] == "| cam | drop | cat | 0.5000 | 0.4000 | 0.6000 | 3 |"
    assert len(all_rows) == 10


def test_csv(table, tmp_path):
    text = table.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text("utf-8") == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[1] == {
        "method": "cam",
        "metric": "drop",
        "class": "cat",
        "value": "0.5",
        "low": "0.4",
        "high": "0.6",
        "count": "3",
    }
    assert len(rows) == 8


def test_json_is_read_again(table, tmp_path):
    text = table.to_json(tmp_path / "table.json")
    assert json.loads(text)["rows"][6]["value"] is None
    for source in (text, tmp_path / "table.json", str(tmp_path / "table.json")):
        again = ke.Evaluation.from_json(source)
        assert again == table
        assert again.curves == table.curves
        assert math.isnan(again.value("a|b", "drop"))
    assert again != ke.Evaluation(table.rows[:2])


def test_a_data_frame_has_all_rows(table):
    pandas = pytest.importorskip("pandas")
    frame = table.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    columns = ["method", "metric", "class", "value", "low", "high", "count"]
    assert list(frame.columns) == columns
    assert frame["count"].sum() == sum(row.count for row in table)


def test_without_pandas_the_error_says_what_to_install(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        table.to_dataframe()
