"""Measure what explanations cost, in multiples of the forward pass of the explained model.

Usage: `python benchmarks/run.py` prints a Markdown table; `--json FILE` writes the numbers too.
Every case runs in a process of its own, where forward passes and explanations take turns; the
ratio is that of the medians. Memory is the peak of the process, TensorFlow and weights included.
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

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CASES = {
    # Name: model, image size, batch, method, options, bound on the ratio, bound on memory in GB.
    "gradcam, one unit": ("ResNet50V2", 224, 8, "gradcam", {"y": 7}, 1.15, None),
    "gradcam, 1000 units": ("ResNet50V2", 224, 8, "gradcam", {}, 1.2, 1.5),
    "cam, one unit": ("ResNet50V2", 224, 8, "cam", {"y": 7}, None, None),
    "cam, 1000 units": ("ResNet50V2", 224, 8, "cam", {}, None, None),
    "minmaxcam, 1000 units": ("ResNet50V2", 224, 8, "minmaxcam", {}, None, None),
    "d_minmaxcam, one unit": ("ResNet50V2", 224, 8, "d_minmaxcam", {"y": 7}, None, None),
    "gradients, one unit": ("ResNet50V2", 224, 8, "gradients", {"y": 7}, 2.35, None),
    "ke.explain of 64 images over the compiled gradcam": (
        "ResNet50V2", 224, 8, "explain", {"y": 7}, 1.05, None,
    ),
    "ke.gradcam of one image, second call": ("MobileNetV2", 96, 1, "shortcut", {"y": 7}, 1.8, None),
}  # fmt: skip


def _median_ratio(reference, measured, seconds):
    """Let two functions take turns, and return the ratio of their median times."""
    times = [], []
    for function in (reference, measured) * 3:
        function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for function, elapsed in zip((reference, measured), times, strict=True):
            start = time.perf_counter()
            function()
            elapsed.append(time.perf_counter() - start)
    medians = [statistics.median(elapsed) for elapsed in times]
    return medians[1] / medians[0], medians[0]


def measure(name, seconds):
    """Measure one case.

    Args:
        name: one of `CASES`.
        seconds: how long to measure.

    Returns:
        dict with the ratio, the seconds of the reference, and the peak memory in bytes.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_explainable as ke

    architecture, size, batch, method, options, *_ = CASES[name]
    model = getattr(keras.applications, architecture)(weights=None, input_shape=(size, size, 3))
    images = np.random.default_rng(0).random((batch, size, size, 3), "float32")
    tensor = tf.constant(images)
    forward = tf.function(lambda x: model(x, training=False))

    def bare(method):
        exposed = ke.Explainer(method, model).exposed
        unit = options.get("y")
        indices = None if unit is None else tf.fill((batch, 1), unit)
        return tf.function(lambda x: ke.methods.get(method)(exposed, x, indices))

    if method == "explain":
        many = np.concatenate([images] * (64 // batch))
        step = bare("gradcam")
        kept = {"batch_size": batch, "resizing": False, "postprocessing": None, "verbose": 0}

        def reference():
            for _ in range(64 // batch):
                outputs = step(tensor)
            return outputs[1].numpy()

        def measured():
            return ke.gradcam(model, many, options["y"], **kept)
    elif method == "shortcut":

        def reference():
            return forward(tensor).numpy()

        def measured():
            return ke.gradcam(model, images, options["y"])
    else:
        step = bare(method)

        def reference():
            return forward(tensor).numpy()

        def measured():
            return step(tensor)[1].numpy()

    ratio, elapsed = _median_ratio(reference, measured, seconds)
    kilobyte = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte
    devices = sorted({device.device_type for device in tf.config.list_logical_devices()})
    return {"ratio": ratio, "reference": elapsed, "memory": memory, "devices": devices}


def main():
    """Measure the cases asked for, and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30, help="time per case (default: 30)")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--only", help="measure the cases whose name holds this")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.seconds)))
        return
    results = {}
    print("| case | model | times | bound | peak memory | one reference pass |")
    print("|---|---|---|---|---|---|")
    for name, (architecture, size, batch, *_, bound, most) in CASES.items():
        if arguments.only and arguments.only not in name:
            continue
        command = [sys.executable, __file__, "--case", name, "--seconds", str(arguments.seconds)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            sys.exit(f"{name}: {finished.stderr}")
        result = results[name] = json.loads(finished.stdout.splitlines()[-1])
        limit = f"≤ {bound}" if bound else ""
        memory = f"{result['memory'] / 1e9:.2f} GB" + (f" (≤ {most})" if most else "")
        print(
            f"| {name} | {architecture} {size}², batch {batch} | {result['ratio']:.2f} | {limit} "
            f"| {memory} | {result['reference'] * 1e3:.0f} ms on {'/'.join(result['devices'])} |",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
