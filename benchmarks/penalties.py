"""Measure what a penalty of maps does for accuracy, with the example of `docs/training.md`.

Usage: `python benchmarks/penalties.py` runs the code of the section on models that are right for
the right reasons, for several seeds, and writes its table; a few minutes. The digits are those of
scikit-learn.
"""

import argparse
import os
import re
from pathlib import Path

import marked

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
SEEDS = range(5)
# What is penalised, the function of the page that trains a model, and the weight of the penalty.
ROWS = (("gradients", "with_gradients", 1), ("activation maps", "with_maps", 0.01))


def example():
    """Return what the code of the section defines."""
    section = PAGE.read_text("utf-8").split("\n## Right for the right reasons\n")[1]
    section = section.split("\n## ")[0]
    found = {}
    # What the page imports before, and its code without the runs, which print.
    blocks = ["import keras\nimport numpy as np\nimport keras_explainable as ke\n"]
    blocks += re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    for block in blocks:
        exec(re.split(r"^plain, right = ", block, flags=re.MULTILINE)[0], found)
    return found


def measure(seeds=SEEDS):
    """Return the accuracies without and with each penalty, one per seed."""
    found = example()
    return {
        (name, weight): [[found[train](w, seed) for seed in seeds] for w in (0, weight)]
        for name, train, weight in ROWS
    }


def table(measured):
    """Write accuracies as Markdown, mean and deviation."""
    import numpy as np

    lines = ["| Penalty on | $`\\lambda = 0`$ | with the penalty |", "| --- | ---: | ---: |"]
    for (name, weight), pair in measured.items():
        cells = [f"{np.mean(values):.2f} ± {np.std(values):.2f}" for values in pair]
        lines.append(f"| {name}, $`\\lambda = {weight}`$ | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    text = table(measure())
    print(text)
    marked.write(PAGE, "penalties", text)


if __name__ == "__main__":
    main()
