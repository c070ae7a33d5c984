"""Measure what metrics cost, in multiples of the forward passes of the model that they contain.

Usage: `python benchmarks/metrics.py` prints a Markdown table; `--json FILE` writes the numbers too.
Every case runs in a process of its own, where forward passes, in batches of 8 and of 32, and the
metrics take turns; the reference is the faster batch size. Memory is the peak of the process.
`--streaming` measures the memory of `ke.evaluate` on 200 and on 2,000 images instead.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MASKING = (
    "increase_in_confidence",
    "average_drop",
    "average_retention",
    "average_drop_of_others",
    "average_retention_of_others",
    "f1_plus",
    "f1_minus",
)
SIZE = 224
BATCH_SIZES = (8, 32)


class Case(NamedTuple):
    """What is measured.

    Attributes:
        metrics: names of the metrics.
        passes: number of forward passes of one image that they contain.
        options: of every metric.
        num_units: number of units explained of each of the 8 images.
        together: whether the metrics share their passes, and not run one after the other.
        evaluated: whether `ke.evaluate` computes them of the maps of Grad-CAM, which count as part
            of the reference.
        bound: what the ratio is to stay below.
    """

    metrics: tuple
    passes: int
    options: dict = {}  # noqa: RUF012
    num_units: int = 1
    together: bool = False
    evaluated: bool = False
    bound: float | None = None


CASES = {
    "insertion and deletion, 50 steps": Case(("insertion", "deletion"), 800, bound=1.15),
    "the seven masking metrics, 4 units": Case(
        MASKING, 8 * 4 * 2 + 8, num_units=4, together=True, bound=1.15
    ),
    "ke.evaluate, Grad-CAM and the seven masking metrics": Case(
        MASKING, 8 * 2, evaluated=True, bound=1.1
    ),
    "faithfulness_correlation, 100 sets": Case(("faithfulness_correlation",), 808),
    "road, 9 percentiles, both orders": Case(("road",), 8 * 9 * 2 + 8),
    "aupc, 5 regions, 10 copies": Case(
        ("aupc",), 8 * 5 * 10 + 8, {"num_regions": 5, "num_copies": 10}
    ),
}


def measure(name, turns, architecture):
    """Measure one case.

    Args:
        name: one of `CASES`.
        turns: how often to measure.
        architecture: one of `keras.applications`.

    Returns:
        dict with the ratio, the batch size and the seconds of a forward pass of one image, and the
        peak memory in bytes.
    """
    import numpy as np
    import tensorflow as tf
    from run import _build

    import keras_explainable as ke

    case, random = CASES[name], np.random.default_rng(0)
    model = _build(architecture, SIZE)
    images = random.random((8, SIZE, SIZE, 3), "float32")
    maps = random.random((8, 7, 7, case.num_units), "float32")
    units = random.integers(0, model.output_shape[-1], (8, case.num_units))
    forward = tf.function(lambda x: model(x, training=False))
    batches = {n: tf.constant(np.concatenate([images] * (n // 8))) for n in BATCH_SIZES}
    measured = _metrics(case, model, images, maps, units)
    functions = [lambda x=x: forward(x).numpy() for x in batches.values()] + [measured]
    sizes = [*BATCH_SIZES, None]
    if case.evaluated:
        functions.append(lambda: ke.gradcam(model, images, "argmax", verbose=0))
        sizes.append(None)
    times = [[] for _ in functions]
    for turn in range(turns + 1):
        for function, size, elapsed in zip(functions, sizes, times, strict=True):
            # As many images as a few batches of the larger size, which last long enough.
            repeats = 1 if size is None else 4 * max(BATCH_SIZES) // size
            start = time.perf_counter()
            for _ in range(repeats):
                function()
            # The first turn compiles.
            if turn:
                elapsed.append((time.perf_counter() - start) / repeats / (size or case.passes))
    eight, many, own, *maps = (statistics.median(elapsed) for elapsed in times)
    passes = [eight, many]
    best = min(passes)
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return {
        "ratio": own / (best + sum(maps)),
        "batch_size": BATCH_SIZES[passes.index(best)],
        "reference": best,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte,
    }


def _metrics(case, model, images, maps, units):
    """Return a function that computes the metrics of a case."""
    import tensorflow as tf

    import keras_explainable as ke
    from keras_explainable.metrics import _computing

    if case.evaluated:
        return lambda: ke.evaluate(
            model, images, "argmax", methods=["gradcam"], metrics=list(case.metrics), verbose=0
        )
    if not case.together:
        functions = [getattr(ke.metrics, name) for name in case.metrics]
        return lambda: [f(model, images, maps, units, **case.options) for f in functions]
    wanted = {name: (ke.metrics.registration(name), case.options) for name in case.metrics}
    exposed = _computing.exposed_model(model)
    step = tf.function(
        lambda x, maps, indices: _computing.scores(
            wanted, {"model": exposed, "x": x, "maps": maps, "indices": indices}
        )
    )
    tensors = tf.constant(images), tf.constant(maps), tf.constant(units, tf.int32)
    return lambda: [scores.values.numpy() for scores in step(*tensors).values()]


def stream(num_images):
    """Evaluate methods on images that are made as they are needed; return the peak memory."""
    import numpy as np
    import tensorflow as tf
    from run import _build

    import keras_explainable as ke

    def images():
        for number in range(num_images // 8):
            random = np.random.default_rng(number)
            yield random.random((8, 96, 96, 3), "float32"), {"masks": np.ones((8, 96, 96), "uint8")}

    shape = tf.TensorSpec((8, 96, 96, 3)), {"masks": tf.TensorSpec((8, 96, 96), tf.uint8)}
    dataset = tf.data.Dataset.from_generator(images, output_signature=shape)
    dataset = dataset.map(lambda x, more: (x, tf.zeros(8, tf.int32), more))
    metrics = ["average_drop", "insertion", "pointing_game", "sparseness", "localization_auc"]
    metrics[1] = ke.metrics.Insertion(num_steps=5)
    model = _build("MobileNetV2", 96)
    ke.evaluate(model, dataset, methods=["gradcam", "gradients"], metrics=metrics, verbose=0)
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte


def main():
    """Measure the cases asked for, and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="measurements per case (default: 5)")
    parser.add_argument("--model", default="ResNet50V2", help="one of keras.applications")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--only", help="measure the cases whose name holds this")
    parser.add_argument("--streaming", action="store_true", help="measure memory on many images")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.images:
        print(stream(arguments.images))
        return
    if arguments.streaming:
        for count in (200, 2000):
            command = [sys.executable, __file__, "--images", str(count)]
            finished = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{count} images: {int(finished.stdout.splitlines()[-1]) / 1e9:.2f} GB")
        return
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.turns, arguments.model)))
        return
    results = {}
    print("| case, 8 images | model | passes | times | bound | peak memory | one forward pass |")
    print("|---|---|---|---|---|---|---|")
    for name, case in CASES.items():
        if arguments.only and arguments.only not in name:
            continue
        command = [sys.executable, __file__, "--case", name, "--turns", str(arguments.turns)]
        command += ["--model", arguments.model]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            sys.exit(f"{name}: {finished.stderr}")
        result = results[name] = json.loads(finished.stdout.splitlines()[-1])
        print(
            f"| {name} | {arguments.model} {SIZE}² | {case.passes} | {result['ratio']:.2f} "
            f"| {f'≤ {case.bound}' if case.bound else ''} | {result['memory'] / 1e9:.2f} GB "
            f"| {result['reference'] * 1e3:.1f} ms in batches of {result['batch_size']} |",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
