"""How far an explanation is: samples done, samples per second, and the time that is left."""

import sys
import time

import keras

_WIDTH = 20
# Seconds between two looks, on a screen and elsewhere.
_OFTEN, _SELDOM = 0.1, 10.0


class Progress:
    """A line that is written over while batches are done, and stays when all of them are.

    Where the output is neither a terminal nor a notebook, every line stays, one in ten seconds.

    Args:
        verbose: 0 for nothing, 1 for that, 2 for the last line alone.
        num_batches: number of batches, or `None` where it is unknown.
        num_samples: number of samples, or `None` where it is unknown.
        noun: what samples are called.
    """

    def __init__(self, verbose, num_batches, num_samples, noun):
        self._is_shown = bool(verbose) and keras.config.is_interactive_logging_enabled()
        self._is_bar = verbose != 2
        self._num_batches, self._num_samples = num_batches, num_samples
        self._noun = noun
        terminal = getattr(sys.stdout, "isatty", bool)()
        self._is_screen = terminal or "ipykernel" in sys.modules
        self._start = self._looked = self._last = time.monotonic()
        self._first = None  # Its time and its samples.
        self._batches, self._samples = 0, 0
        self._place = self._done = 0
        self._length = 0
        self._is_open = False

    def add(self, rows, place, done=None):
        """Note a batch that was computed.

        Args:
            rows: samples of it.
            place: batches up to it, those of earlier calls among them.
            done: samples of these. Defaults to those computed.
        """
        now = self._last = time.monotonic()
        self._first = self._first or (now, rows)
        self._batches, self._samples = self._batches + 1, self._samples + rows
        self._place, self._done = place, self._samples if done is None else done
        interval = _OFTEN if self._is_screen else _SELDOM
        # What is said when all are done, the last line says.
        is_going_on = self._num_batches is None or place < self._num_batches
        if self._is_shown and self._is_bar and is_going_on and now - self._looked >= interval:
            self._looked = now
            self._write(self._left(), is_last=False)

    def finish(self):
        """Write the last line, if anything was done."""
        if self._is_shown and self._batches:
            self._write([_duration(time.monotonic() - self._start)], is_last=True)

    def close(self):
        """End the line that is written over, so that what comes next has its own."""
        if self._is_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._is_open = False

    def _span(self):
        """Return the batches, samples and seconds that tell the speed.

        The first batch is left out, if there are others: the step is compiled for it.
        """
        if self._batches < 2:
            return self._batches, self._samples, self._last - self._start
        time_of_first, samples_of_first = self._first
        return self._batches - 1, self._samples - samples_of_first, self._last - time_of_first

    def _left(self):
        if self._num_batches is None:
            return []
        batches, _, seconds = self._span()
        return [f"{_duration((self._num_batches - self._place) * seconds / batches)} left"]

    def _write(self, times, *, is_last):
        total = "" if self._num_samples is None else f"/{self._num_samples}"
        text = f"{self._done:{len(total[1:])}d}{total} {self._noun}"
        _, samples, seconds = self._span()
        rate = f"{_digits(samples / max(seconds, 1e-6))} {self._noun}/s"
        if self._is_bar and self._num_batches:
            text += f" {_bar(self._place / self._num_batches)} {', '.join([rate, *times])}"
        else:
            text = ", ".join([text, rate, *times])
        if self._is_screen:
            # What is left of a longer line is written over, too.
            text, self._length = "\r" + text.ljust(self._length), len(text)
        self._is_open = self._is_screen and not is_last
        sys.stdout.write(text if self._is_open else f"{text}\n")
        sys.stdout.flush()


def _bar(share):
    """Draw which share is done, in characters that the output has."""
    full, empty = "━─" if "utf" in (sys.stdout.encoding or "").lower() else "=-"
    done = int(_WIDTH * min(share, 1))
    return full * done + empty * (_WIDTH - done)


def _digits(number):
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _duration(seconds):
    """Write seconds, in hours and minutes where there are any."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
