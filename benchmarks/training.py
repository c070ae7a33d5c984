"""Measure what explanations cost while a model is trained.

Usage: `python benchmarks/training.py` prints a Markdown table; `--json FILE` writes the numbers
too, and `--write` writes the ratios into `docs/training.md`. Both cases take a ResNet50V2 with
random weights on images of 64². Every case runs in a process of its own, where what is measured and
its reference take turns; ratios are those of medians.

- The head: a step of training with `KernelUsageDense`, over one with a `Dense` head.
- The callback: the time that `Explain`, which writes PNG files, takes at the end of an epoch of
  `fit`, over that of `ke.gradcam` of the same samples there. Pictures are to take no longer than
  maps: twice in all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import marked

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
SIZE = 64
UNITS = 20
BATCH = 32
NUM_EXPLAINED = 8


class Case(NamedTuple):
    """What is measured.

    Attributes:
        measure: function from a number of turns to the ratio and the seconds of the reference.
        bound: what the ratio is to stay below.
        reference: what the ratio is a multiple of.
    """

    measure: object
    bound: float
    reference: str


def _data():
    import keras
    import numpy as np

    random = np.random.default_rng(0)
    # Smooth, as photographs are: noise can't be compressed, and takes longer to be written.
    images = random.random((BATCH, SIZE // 8, SIZE // 8, 3), "float32")
    images = keras.ops.convert_to_numpy(keras.ops.image.resize(images, (SIZE, SIZE)))
    return images, random.integers(0, 2, (BATCH, UNITS)).astype("float32")


def _model(head=None):
    """Build a classifier that can be trained."""
    import keras

    keras.utils.set_random_seed(0)
    backbone = keras.applications.ResNet50V2(
        weights=None, include_top=False, pooling="avg", input_shape=(SIZE, SIZE, 3)
    )
    head = (head or keras.layers.Dense)(UNITS, activation="sigmoid")
    model = keras.Model(backbone.input, head(backbone.output))
    model.compile(keras.optimizers.SGD(1e-3), "binary_crossentropy")
    return model


def _times(functions, turns):
    """Let functions take turns; return the seconds of each, the first turn left out."""
    times = [[] for _ in functions]
    for turn in range(turns + 1):
        for function, elapsed in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if turn:  # The first turn compiles.
                elapsed.append(time.perf_counter() - start)
    return times


def measure_head(turns):
    """Compare training steps of two heads."""
    import keras_explainable as ke

    models = _model(), _model(ke.layers.KernelUsageDense)
    images, labels = _data()
    steps = [lambda m=m: m.train_on_batch(images, labels) for m in models]
    plain, own = map(statistics.median, _times(steps, turns))
    return own / plain, plain


def measure_callback(turns):
    """Compare the time that the callback takes of an epoch of `fit` with that of its maps alone."""
    import keras

    import keras_explainable as ke

    model = _model()
    images, labels = (array[:NUM_EXPLAINED] for array in _data())
    units = [[number % UNITS] for number in range(NUM_EXPLAINED)]
    moments = []

    def look(*_):
        moments.append(time.perf_counter())

    looking = keras.callbacks.LambdaCallback(on_epoch_end=look)
    bare = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ke.gradcam(model, images, units))
    with tempfile.TemporaryDirectory() as folder:
        explain = ke.callbacks.Explain(images, units, directory=folder)
        callbacks = [looking, bare, looking, explain, looking]
        model.fit(images, labels, epochs=turns + 1, verbose=0, callbacks=callbacks)
    # The first epoch compiles `ke.gradcam`; the callback compiles before it.
    before, between, after = zip(
        *[moments[n : n + 3] for n in range(3, len(moments), 3)], strict=True
    )
    maps, own = (
        statistics.median(stop - start for start, stop in zip(*pair, strict=True))
        for pair in ((before, between), (between, after))
    )
    return own / maps, maps


CASES = {
    "a step of training with a `KernelUsageDense` head": Case(
        measure_head, 1.02, "with a `Dense` head"
    ),
    f"`Explain` of {NUM_EXPLAINED} samples in `fit`": Case(
        measure_callback, 2.0, "of `ke.gradcam` of them there"
    ),
}


def render(results):
    """Write the ratios as Markdown."""
    rows = [f"| {n} | {CASES[n].reference} | {r['ratio']:.2f} |" for n, r in results.items()]
    return "\n".join(["| Time of | Over that | Ratio |", "| --- | --- | ---: |", *rows]) + "\n"


def main():
    """Measure the cases asked for, and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=30, help="measurements (default: 30)")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--only", help="measure the cases whose name holds this")
    parser.add_argument("--write", action="store_true", help="write into the documentation")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(CASES[arguments.case].measure(arguments.turns)))
        return
    results = {}
    print(f"| case, ResNet50V2 {SIZE}² | times | bound | reference |")
    print("|---|---|---|---|")
    for name, case in CASES.items():
        if arguments.only and arguments.only not in name:
            continue
        command = [sys.executable, __file__, "--case", name, "--turns", str(arguments.turns)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            sys.exit(f"{name}: {finished.stderr}")
        ratio, seconds = json.loads(finished.stdout.splitlines()[-1])
        results[name] = {"ratio": ratio, "reference": seconds}
        print(
            f"| {name} | {ratio:.3f} | ≤ {case.bound} | {case.reference}, {seconds * 1e3:.1f} ms |",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    if arguments.write:
        marked.write(PAGE, "training", render(results))


if __name__ == "__main__":
    main()
