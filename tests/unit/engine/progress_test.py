"""What the progress bar says, with a clock that is set by hand."""

import io

import keras
import pytest

from keras_explainable.engine import _progress


class _Output(io.StringIO):
    encoding = "utf-8"

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def shown(monkeypatch):
    """Return a function that lets batches of `(seconds, rows)` pass, and what is written then."""

    def show(*batches, known=True, first=0, num_batches=4, verbose=1, terminal=True):
        output = _Output(terminal)
        now = [100.0]
        monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(_progress.sys, "stdout", output)
        monkeypatch.delitem(_progress.sys.modules, "ipykernel", raising=False)
        size = 8
        total = size * num_batches if known else None
        progress = _progress.Progress(verbose, num_batches, total, "images")
        for place, (seconds, rows) in enumerate(batches, first + 1):
            now[0] += seconds
            progress.add(rows, place, size * place if known else None)
        progress.finish()
        return output.getvalue()

    return show


def test_bar_tells_what_is_done_and_what_is_left(shown):
    lines = shown((10, 8), (0.5, 8), (0.5, 8), (0.5, 8)).split("\r")
    assert lines == [
        "",
        " 8/32 images ━━━━━─────────────── 0.8 images/s, 30 s left",
        "16/32 images ━━━━━━━━━━────────── 16 images/s, 1.0 s left",
        "24/32 images ━━━━━━━━━━━━━━━───── 16 images/s, 0.5 s left",
        "32/32 images ━━━━━━━━━━━━━━━━━━━━ 16 images/s, 12 s      \n",
    ]


def test_rate_of_a_resumed_run_is_that_of_what_is_computed_now(shown):
    last = shown((1, 8), (2, 8), first=2).split("\r")[-1]
    assert last.startswith("32/32 images ━━━━━━━━━━━━━━━━━━━━ 4 images/s, 3.0 s")
    first = shown((1, 8), first=2).split("\r")[1]
    assert first == "24/32 images ━━━━━━━━━━━━━━━───── 8 images/s, 1.0 s left"


def test_samples_of_unknown_number_are_counted(shown):
    lines = shown((1, 8), (1, 5), known=False, num_batches=2).split("\r")
    assert lines[1] == "8 images ━━━━━━━━━━────────── 8 images/s, 1.0 s left"
    assert lines[-1].startswith("13 images ━━━━━━━━━━━━━━━━━━━━ 5 images/s, 2.0 s")


def test_nothing_is_said_of_what_is_left_where_the_end_is_unknown(shown):
    lines = shown((1, 8), (0.02, 5), known=False, num_batches=None).split("\r")
    assert lines[1:] == ["8 images, 8 images/s", "13 images, 250 images/s, 1.0 s\n"]


def test_lines_stay_where_there_is_no_screen(shown):
    lines = shown((4, 8), (4, 8), (4, 8), (4, 8), terminal=False).splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["24/32", "32/32"]


def test_a_line_alone(shown):
    assert shown((2, 8), (1, 8), verbose=2, num_batches=2, terminal=False) == (
        "16/16 images, 8 images/s, 3.0 s\n"
    )
    assert shown((2, 8), verbose=0) == ""


def test_nothing_is_written_where_keras_keeps_silent(shown):
    keras.config.disable_interactive_logging()
    try:
        assert shown((2, 8)) == ""
    finally:
        keras.config.enable_interactive_logging()


def test_characters_are_those_that_the_output_has(shown, monkeypatch):
    monkeypatch.setattr(_Output, "encoding", "ascii")
    assert shown((2, 8), num_batches=2, verbose=1, terminal=False) == (
        f" 8/16 images {'=' * 10}{'-' * 10} 4 images/s, 2.0 s\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (3723, "1:02:03"),
    ],
)
def test_durations(seconds, text):
    assert _progress._duration(seconds) == text
