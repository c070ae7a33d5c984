"""Measure how long importing the package takes beside importing Keras.

Usage: `python benchmarks/importing.py` prints a Markdown table; `--json FILE` writes the numbers
too. Each turn is a fresh process, on the TensorFlow backend, which imports Keras and then the
package. What the package takes beside Keras is to be 0.3 s at most.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

BOUND = 0.3
KERAS, OURS = "keras", "keras_explainable"
SCRIPT = f"""
import json, time
moments = [time.perf_counter()]
import {KERAS}
moments.append(time.perf_counter())
import {OURS}
moments.append(time.perf_counter())
print(json.dumps([after - before for before, after in zip(moments, moments[1:])]))
"""


def measure(turns):
    """Return the seconds of each turn, a list for each module."""
    variables = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    found = {KERAS: [], OURS: []}
    for turn in range(turns + 1):
        command = [sys.executable, "-c", SCRIPT]
        finished = subprocess.run(command, check=True, env=variables, stdout=subprocess.PIPE)
        if turn:  # The first one fills caches.
            for module, seconds in zip(found, json.loads(finished.stdout), strict=True):
                found[module].append(seconds)
    return found


def render(found):
    """Write times as Markdown."""
    lines = ["| Import | Median | Fastest | Slowest |", "| --- | ---: | ---: | ---: |"]
    for name, times in zip((f"`{KERAS}`", f"`{OURS}`, after it"), found.values(), strict=True):
        cells = (statistics.median(times), min(times), max(times))
        lines.append(f"| {name} | {' | '.join(f'{cell:.2f} s' for cell in cells)} |")
    more = statistics.median(found[OURS])
    return "\n".join([*lines, "", f"The package takes {more:.2f} s more than Keras (≤ {BOUND})."])


def main(arguments=None):
    """Measure, print the table, and write the numbers where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10, help="turns (default: 10)")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args(arguments)
    found = measure(options.turns)
    print(render(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
