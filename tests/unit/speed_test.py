"""The scripts that measure speed: what they compute, write and list. Nothing is timed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import keras_explainable as ke
from tests.conftest import script

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "speed.md").read_text("utf-8")

run, peers = script("run"), script("peers")
cases, marked, pages = run.cases, run.marked, run.pages
timing, units = run.timing, run.units


def _names(heading):
    """Return what the first column below a heading lists, in code style."""
    below = PAGE.split(f"\n{heading}\n", 1)[1]
    rows = re.search(r"^\|.*\n\|[ -:|]+\n((?:\|.*\n)+)", below, re.MULTILINE)[1]
    return sorted(re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE))


def test_formulas_are_those_of_the_registered_methods():
    assert _names("## Cost of each method") == list(ke.methods.names())
    assert _names("Meta methods, of a method that takes $`M`$:") == list(ke.methods.meta_names())


def test_costs_of_units_are_those_of_every_cam():
    cams = {n for n in ke.methods.names() if ke.methods.registration(n).family == "cam"}
    assert set(units.METHODS) == cams


def test_cases_name_methods_that_are_registered():
    called = {"explain", "shortcut", "maximize"}
    named = {case.method for case in cases.CASES.values() if isinstance(case.method, str)}
    assert named - called <= set(ke.methods.names())
    for case in cases.CASES.values():
        if callable(case.method):
            assert callable(case.method(ke))


def test_rows_of_the_readme_are_cases():
    assert {name for _, name in pages.README_ROWS} <= set(cases.CASES)


@pytest.mark.parametrize("name", ["run", "peers"])
def test_pages_have_a_place_for_every_script(name):
    begin, end = marked.markers(name)
    for page in (PAGE, pages.README.read_text("utf-8")):
        assert page.count(begin) == 1
        assert end in page.split(begin)[1]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"benchmarks/{name}.py" in makefile


def test_summary_is_that_computed_by_hand():
    pairs = [([1.0, 3.0], [4.0]), ([1.0, 1.0], [1.0]), ([2.0, 2.0], [6.0])]
    found = timing.summarize(pairs)
    # Of the references 1, 1, 1, 2, 2, 3 and of 1, 4, 6; the ratios within turns are 2, 1 and 3.
    assert found["reference"] == 1.5
    assert found["measured"] == 4.0
    assert (found["low"], found["ratio"], found["high"]) == (1.5, 2.0, 2.5)
    assert found["turns"] == 3
    assert timing.quartiles([2.0]) == [2.0] * 3


def test_functions_take_turns_and_neither_is_always_first():
    called = []
    found = timing.take_turns(lambda: called.append("r"), lambda: called.append("m"), 0)
    turns = "".join(called)[4:]  # Two calls of each come before.
    assert found["turns"] == 5
    assert re.fullmatch(r"r+mmr+r+mmr+r+m", turns)


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("Traceback\n  File\nValueError: no\nmore of it\n", 1, "ValueError: no"),
        ("a.b.InvalidError: x: y\n  here\n", 1, "a.b.InvalidError: x: y"),
        ("Something else\n", 1, "Something else"),
        ("", -9, "killed by signal 9"),
        ("", 3, "exit code 3"),
    ],
)
def test_errors_are_told_in_a_line(text, code, expected):
    assert timing.error_of(text, code) == expected


def test_script_that_fails_says_why(tmp_path):
    path = tmp_path / "failing.py"
    path.write_text("raise ValueError('a|b')\n")
    found = timing.in_process(path)
    assert found == {"error": "ValueError: a|b"}
    assert pages.failed(found) == "fails: ValueError: a\\|b"
    path.write_text("import sys\nprint('before')\nprint('[1, 2]')\n")
    assert timing.in_process(path) == [1, 2]


def test_numbers_have_three_digits():
    assert [pages.number(x) for x in (0.987, 1.0, 9.99, 9.999, 42.25)] == [
        "0.99", "1.00", "9.99", "10.0", "42.2"
    ]  # fmt: skip


def _times(ratio, **others):
    return {
        "ratio": ratio,
        "low": ratio - 0.1,
        "high": ratio + 0.1,
        "reference": 0.5,
        "measured": 0.5 * ratio,
        "turns": 5,
    } | others


def _results():
    found = {name: _times(1.0, memory=1.0e9, images=8) for name in cases.CASES}
    found["gradcam, one unit"] = _times(1.2, memory=1.1e9, images=8)
    found["gradcam, 1000 units"] = _times(1.1, memory=1.3e9, images=8)
    found["lrp, one unit"] = {"error": "ValueError: no"}
    start = {"exposing": 0.2, "tracing": 2.0, "first": 1.0, "total": 3.2, "second": 0.1}
    return {
        "environment": {
            "device": "CPU",
            "cores": 2,
            "tensorflow": "2.0",
            "keras": "3.0",
            "dtype": "float32",
            "jit_compile": False,
        },
        "cases": found,
        "units": {
            name: {str(n): {"ratio": 1 + n / 100} for n in units.COUNTS[: 4 - index % 3]}
            for index, name in enumerate(units.METHODS)
        },
        "startup": {kind: start for kind in run.startup.KINDS},
        "precision": {
            name: {
                "forward": _times(0.5),
                "gradcam": _times(0.5, error=1e-3),
                "gradients": _times(2.0, error=2e-2),
            }
            for name in run.precision.VARIANTS
        },
        "replicas": {
            "overhead": 1.02,
            "low": 1.0,
            "high": 1.04,
            "device": "CPU",
            "pinned": True,
            "rounds": 3,
            "predict": [0.08, 0.04],
            "explain": [0.09, 0.05],
        },
        "peers": {"environment": {}, "found": {}},
    }


def test_tables_say_what_was_measured():
    text = pages.render(_results())
    lines = text.splitlines()
    assert [line[5:] for line in lines if line.startswith("#### ")] == [
        "Class activation maps, one unit",
        "Class activation maps, 1000 units",
        "Class activation maps, 80 units, 16×16×2048 activations",
        "Gradients, LRP and meta methods, one unit",
        "Transformers, one unit",
        "Whole calls",
    ]
    below = lines[lines.index("#### Class activation maps, 80 units, 16×16×2048 activations") :]
    assert below[2] == "ResNet50V2 512², batch 8."
    assert below[6].startswith("| gradcam | 1.00 |")
    row = "| gradcam | **1.20** | 1.10 to 1.30 | 1.08 | 1.10 GB | 16.0 | 83.3% |"
    assert row in lines
    row = "| gradcam | 1.10 | 1.00 to 1.20 | 1.15 | **1.30 GB** (≤ 1.2) |"
    assert any(line.startswith(row) for line in lines)
    assert "| lrp | fails: ValueError: no |  |  |  |  |  |" in lines
    assert "| `cam` | 1.01 | 1.20 | 1.80 | 11.0 |" in lines
    assert "| `gradcam` | 0.20 s | 2.00 s | 1.00 s | 3.20 s | 0.10 s |" in lines
    assert any(line.startswith("| ke.gradcam of one image, second call, Mobile") for line in lines)
    assert "The largest part is tracing: 62% for `gradcam`, 62% for `gradients`." in text
    assert "| mixed_float16 | 2.00 | 2.00 | 1.0e-03 | 0.50 | 2.0e-02 |" in lines
    assert "| `model.predict` | 80.0 ms | 40.0 ms | 2.00 |" in lines
    assert "Explaining gains as much from a second replica as predicting does" in text
    assert "by a factor of 1.02 (1.00 to 1.04 in 3 rounds)." in text
    assert "float32, without XLA" in text
    # All rows of a table have as many cells.
    for below in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.split(r"(?<!\\)\|", row)) for row in below.splitlines()}) == 1


def test_replicas_gain_as_much_only_where_rounds_differ_on_both_sides():
    found = _results()["replicas"]
    for low, high, said in ((0.8, 0.9, "more from a second replica than"), (1.1, 1.2, "less from")):
        assert f"Explaining gains {said}" in pages.replicas_table(
            {**found, "low": low, "high": high}
        )


def test_table_of_the_readme_leaves_out_what_failed():
    results = _results()
    results["cases"]["gradients, one unit"] = {"error": "no"}
    rows = pages.readme_table(results).splitlines()
    assert rows[2] == "| Grad-CAM, one class | ResNet50V2 224², batch 8 | 1.20 | 1.10 GB |"
    assert len(rows) == 2 + len(pages.README_ROWS) - 1


def test_results_are_merged_in_the_order_of_jobs():
    results = _results()
    shuffled = dict(reversed(results.items()))
    shuffled["cases"] = dict(reversed(results["cases"].items())) | {"an old case": {}}
    kept = run.ordered(shuffled)
    assert json.dumps(kept) == json.dumps(results)


OF_CPU = {"device": "CPU", "pinned": True}


def test_replicas_are_compared_by_their_ratios():
    one, two = _times(1.1), _times(1.21, reference=0.25)
    found = run.replicas.combine([[one | OF_CPU, two | OF_CPU]] * 3)
    assert found["overhead"] == pytest.approx(1.1)
    assert found["predict"] == [0.5 / 64, 0.25 / 64]
    assert found["pinned"]


def test_processes_keep_to_the_first_two_cores_or_to_all(monkeypatch):
    kept = []
    os = run.replicas.os
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: kept.append(cores), raising=False)
    for cores, pinned in (({5, 1, 3}, True), ({4}, False)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, c=cores: c, raising=False)
        assert run.replicas.pin() == pinned
    assert kept == [[1, 3]]


def test_medians_are_of_each_number():
    found = [{"a": 1, "b": 5}, {"a": 2, "b": 4}, {"a": 9, "b": 3}]
    assert run.medians(found) == {"a": 2, "b": 4}
    assert run.medians([*found, {"error": "no"}]) == {"error": "no"}


def test_counts_are_reckoned_to_cost_more_where_units_take_something_each():
    last = 20, {"measured": 3.0, "reference": 1.0}
    assert units.reckoned("zoomcam", last, 80) == 9.0
    for method in ("gradcam", "ablationcam"):
        assert units.reckoned(method, last, 80) == 3.0


def test_error_is_relative_to_the_largest_magnitude():
    expected = np.array([[[1.0, -4.0]], [[0.5, 0.25]]])
    found = expected + np.array([[[0.0, 0.4]], [[0.1, 0.0]]])
    assert run.precision.relative_error(expected, found) == pytest.approx(0.2)


def test_rows_of_libraries_are_relative_to_this_one():
    found = {
        peers.GRADCAM: {
            peers.OURS: _times(1.1, device="CPU"),
            "captum": _times(1.0, device="CPU"),
            "torchcam": {"absent": True},
            "pytorch-grad-cam": _times(5.5, device="CPU"),
            "tf-keras-vis": {"error": "TypeError: no"},
        }
    }
    rows = {library: cells for _, library, *cells in peers.rows(found)}
    assert rows[peers.OURS][3:] == [""]
    assert rows["captum"] == ["1.00", "0.90 to 1.10", "500 ms, CPU", "0.91"]
    assert rows["torchcam"][0] == "not installed"
    assert rows["pytorch-grad-cam"][3:] == ["5.00"]
    assert rows["tf-keras-vis"][0] == "fails: TypeError: no"


def test_table_of_libraries_in_the_readme_has_a_column_for_each():
    found = {
        peers.GRADCAM: {peers.OURS: _times(1.1), "captum": _times(1.5), "torchcam": {"absent": 1}},
        peers.EIGEN: {peers.OURS: _times(1.0), "pytorch-grad-cam": {"error": "no"}},
    }
    head, _, *rows = peers.readme_table({"found": found}).splitlines()
    assert head == f"|  | {peers.OURS} | captum | torchcam | pytorch-grad-cam | tf-keras-vis |"
    assert rows == [
        f"| {peers.GRADCAM} | 1.10 | 1.50 | – | – | – |",
        f"| {peers.FULL} | – | – | – | – | – |",
        f"| {peers.EIGEN} | 1.00 | – | – | – | – |",
    ]


def test_parts_of_a_page_are_filled_one_by_one():
    first, second = marked.markers("run"), marked.markers("peers")
    page = f"A\n{first[0]}old\n{first[1]}B\n{second[0]}old\n{second[1]}C\n"
    filled = marked.fill(marked.fill(page, "peers", "two\n"), "run", "one\n")
    assert filled == (f"A\n{first[0]}\none\n\n{first[1]}B\n{second[0]}\ntwo\n\n{second[1]}C\n")
    assert marked.fill(filled, "run", "one\n") == filled


def test_documentation_has_the_numbers_that_were_measured():
    results = run.read(pages.NUMBERS)
    page = marked.fill(PAGE, "run", pages.page_text(results))
    assert marked.fill(page, "peers", peers.render(results["peers"])) == PAGE
    readme = pages.README.read_text("utf-8")
    filled = marked.fill(readme, "run", pages.readme_table(results))
    assert marked.fill(filled, "peers", peers.readme_table(results["peers"])) == readme


def test_plot_names_every_method(tmp_path):
    results = _results()
    results["units"]["hirescam"] = {"error": "no"}
    path = tmp_path / "images" / "plot.png"
    pages.draw(results["units"], path)
    assert path.stat().st_size > 10_000


def test_labels_are_apart_and_keep_their_order():
    assert pages.apart([0.0, 0.0, 0.1, 5.0], 1.0) == [0.0, 1.0, 2.0, 5.0]
