"""Measure how long importing the package takes, next to importing Keras alone.

Usage: `python benchmarks/importing.py` prints a Markdown table; `--json FILE` writes the numbers
too. Every import runs in a fresh process, on the TensorFlow backend, and the two take turns. Times
are those of the whole process, the start of Python included, which both have. The difference of the
medians is to be 0.3 s at most.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

KERAS, OURS = "keras", "keras_explainable"
BOUND = 0.3


def measure(module):
    """Return the seconds of a fresh process that imports a module."""
    variables = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=variables)
    return time.perf_counter() - start


def compare(turns):
    """Return the seconds of each turn, a list for each module.

    The first turn, which fills caches, is left out, and neither module is always the first.
    """
    found = {KERAS: [], OURS: []}
    for turn in range(turns + 1):
        for module in (KERAS, OURS) if turn % 2 else (OURS, KERAS):
            seconds = measure(module)
            if turn:
                found[module].append(seconds)
    return found


def render(found):
    """Write times as Markdown."""
    lines = ["| Import | Median | Fastest | Slowest |", "| --- | ---: | ---: | ---: |"]
    for module, times in found.items():
        cells = (statistics.median(times), min(times), max(times))
        lines.append(f"| `{module}` | {' | '.join(f'{cell:.2f} s' for cell in cells)} |")
    more = statistics.median(found[OURS]) - statistics.median(found[KERAS])
    lines += ["", f"The package takes {more:.2f} s more than Keras (≤ {BOUND})."]
    return "\n".join(lines)


def main(arguments=None):
    """Measure, print the table, and write the numbers where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10, help="turns (default: 10)")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args(arguments)
    found = compare(options.turns)
    print(render(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
