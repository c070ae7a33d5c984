"""The study of `docs/faithfulness.md`: numbers are measured again in part, its findings hold."""

import re
from pathlib import Path

import pytest

from tests.conftest import script

faithfulness = script("faithfulness")
PAGE = (Path(__file__).parents[2] / "docs" / "faithfulness.md").read_text("utf-8")
CELL = re.compile(r"([\d.]+) \(([\d.]+) – ([\d.]+)\)")


def table(title):
    """Return the table below a title: columns by method, of value, low and high by metric."""
    below = PAGE.split(f"\n### {title}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return {
        method: {
            row[0].rstrip(" ↑↓"): tuple(map(float, CELL.fullmatch(row[column]).groups()))
            for row in rows
        }
        for column, method in enumerate(head[1:], start=1)
    }


VOC, DIGITS = table("VOC"), table("Digits")


def is_above(one, other):
    """Tell whether an interval lies above another."""
    return one[1] > other[2]


@pytest.mark.slow
def test_numbers_of_photographs_are_measured_again(shared):
    del shared  # Skips without the photographs.
    model, x = faithfulness.photographs()
    # A photograph takes as long for every method; where maps lie, `voc_test` measures for all.
    methods = {"MinMax-CAM": "minmaxcam"}
    found = faithfulness.measure(model, x, methods, num_resamples=200)
    names = faithfulness.SHORT | {
        m: f"{faithfulness.SHORT[m.split(',')[0]]}, several" for m in found.metrics[7:]
    }
    for method in methods:
        for metric, name in names.items():
            value, low, high = VOC[method][name]
            assert 100 * found.value(method, metric) == pytest.approx(value, abs=0.3)
            assert low <= value <= high


def test_contrast_costs_the_class_and_spares_the_others():
    cam = VOC["CAM"]
    for method in ("MinMax-CAM", "D-MinMax-CAM"):
        row = VOC[method]
        assert row["AD"][1] >= cam["AD"][2]
        assert is_above(row["ADO"], cam["ADO"])
        assert is_above(row["ADO, several"], cam["ADO, several"])
        assert not is_above(cam["ARO"], row["ARO"])
        assert row["ADO"][0] > 2 * cam["ADO"][0]
        assert row["ARO"][0] < cam["ARO"][0] / 2
        assert row["IC"][0] < cam["IC"][0]
        assert row["AR"][0] < cam["AR"][0]
        assert not is_above(cam["AR"], row["AR"])
        assert row["F1⁻"][0] < cam["F1⁻"][0]


def test_the_other_methods_show_more():
    for rows in (VOC, DIGITS):
        for method in ("Grad-CAM++", "Score-CAM"):
            assert rows[method]["ADO"][0] < rows["CAM"]["ADO"][0]
            assert rows[method]["ARO"][0] > rows["CAM"]["ARO"][0]
        assert min(rows, key=lambda m: rows[m]["AD"][0]) == "Score-CAM"
        assert max(rows, key=lambda m: rows[m]["AR"][0]) == "Score-CAM"
    assert VOC["Grad-CAM++"]["AD"][0] > VOC["CAM"]["AD"][0]
    assert not is_above(VOC["Grad-CAM++"]["AD"], VOC["CAM"]["AD"])
    assert is_above(DIGITS["CAM"]["AD"], DIGITS["Grad-CAM++"]["AD"])
    assert is_above(DIGITS["Grad-CAM++"]["IC"], DIGITS["CAM"]["IC"])


def test_digits_leave_little_to_gain():
    assert DIGITS["CAM"]["ADO, several"][0] > 99
    assert DIGITS["CAM"]["ARO, several"][0] <= 1
    assert DIGITS["MinMax-CAM"]["ARO"][0] < DIGITS["CAM"]["ARO"][0]
    assert not is_above(DIGITS["CAM"]["ARO"], DIGITS["MinMax-CAM"]["ARO"])
    assert DIGITS["MinMax-CAM"]["AD"][0] > DIGITS["CAM"]["AD"][0]


def test_the_published_figures_stand_there():
    assert faithfulness.published() in PAGE
    assert faithfulness.PUBLISHED["CAM"] == (26.83, 23.52, 23.58, 54.39, 6.26)
