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
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RESNET = ("ResNet50V2", 224, 8)
VIT = ("ViT-B/16", 224, 8)


class Case(NamedTuple):
    """What is measured.

    Attributes:
        method: name of a method, function from the package to a method, or what is called.
        options: of the method; `y` is the unit explained, `None` for all.
        per: number that the ratio is divided by, such as that of the steps.
        bound: what the ratio is to stay below.
        memory: what the memory is to stay below, in GB.
        model: architecture, one of `keras.applications` or "ViT-B/16", size of the images, batch.
    """

    method: object
    options: dict
    per: int = 1
    bound: float | None = None
    memory: float | None = None
    model: tuple = RESNET


SINGLE_BACKWARD = (
    "gradcampp",
    "hirescam",
    "gradcam_elementwise",
    "xgradcam",
    "layercam",
    "eigen_gradcam",
    "minmax_gradcam",
    "d_minmax_gradcam",
)
CASES = {
    "gradcam, one unit": Case("gradcam", {"y": 7}, bound=1.15),
    "gradcam, 1000 units": Case("gradcam", {}, bound=1.2, memory=1.5),
    "cam, one unit": Case("cam", {"y": 7}),
    "cam, 1000 units": Case("cam", {}),
    "minmaxcam, 1000 units": Case("minmaxcam", {}),
    "d_minmaxcam, one unit": Case("d_minmaxcam", {"y": 7}),
    **{f"{name}, one unit": Case(name, {"y": 7}, bound=1.15) for name in SINGLE_BACKWARD},
    "eigencam": Case("eigencam", {"y": 7}, bound=1.2),
    "zoomcam, one unit, all activations": Case("zoomcam", {"y": 7}),
    "scorecam, one unit, per live channel": Case(
        "scorecam", {"y": 7, "top_k": 32}, per=32, bound=1.1
    ),
    "ablationcam, one unit, all 2048 channels": Case("ablationcam", {"y": 7}, bound=25),
    "gradients, one unit": Case("gradients", {"y": 7}, bound=2.35),
    "input_x_gradient, one unit": Case("input_x_gradient", {"y": 7}, bound=2.35),
    "guided_backprop, one unit": Case("guided_backprop", {"y": 7}, bound=2.35),
    "deconvnet, one unit": Case("deconvnet", {"y": 7}),
    "lrp, one unit": Case("lrp", {"y": 7}, bound=4),
    **{
        f"lrp, {composite}, one unit": Case("lrp", {"y": 7, "composite": composite} | options)
        for composite, options in (
            ("epsilon", {}),
            ("epsilon_plus_flat", {}),
            ("epsilon_alpha2_beta1", {}),
            ("epsilon_gamma_box", {"low": 0.0, "high": 1.0}),
        )
    },
    "guided(gradcam), one unit": Case(lambda ke: ke.methods.guided("gradcam"), {"y": 7}),
    "full_gradients, one unit": Case("full_gradients", {"y": 7}, bound=2.8, memory=1.6),
    "integrated_gradients, one unit, per step": Case(
        "integrated_gradients", {"y": 7, "num_steps": 10}, per=10, bound=2.35
    ),
    "smooth(gradients), one unit, per sample": Case(
        lambda ke: ke.methods.smooth("gradients", num_samples=10), {"y": 7}, per=10, bound=2.35
    ),
    "smooth_taylor(gradients), one unit, per sample": Case(
        lambda ke: ke.methods.smooth_taylor("gradients", num_samples=10), {"y": 7}, per=10
    ),
    "tta(gradcam), one unit, mirror image": Case(
        lambda ke: ke.methods.tta("gradcam", scales=1), {"y": 7}
    ),
    "gradcam, one unit, transformer": Case("gradcam", {"y": 7}, bound=1.15, model=VIT),
    "attention_rollout, transformer": Case("attention_rollout", {"y": 7}, bound=1.15, model=VIT),
    **{
        f"{name}, one unit, transformer": Case(name, {"y": 7}, model=VIT)
        for name in ("getam", "legrad", "attention_relevance")
    },
    "ke.explain of 64 images over the compiled gradcam": Case("explain", {"y": 7}, bound=1.05),
    "ke.gradcam of one image, second call": Case(
        "shortcut", {"y": 7}, bound=1.8, model=("MobileNetV2", 96, 1)
    ),
}


def _median_ratio(reference, measured, seconds):
    """Let two functions take turns, and return the ratio of their median times."""
    times = [], []
    # Something slow is warm after once.
    start = time.perf_counter()
    while time.perf_counter() < start + seconds / 4:
        reference()
        measured()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for function, elapsed in zip((reference, measured), times, strict=True):
            start = time.perf_counter()
            function()
            elapsed.append(time.perf_counter() - start)
    medians = [statistics.median(elapsed) for elapsed in times]
    return medians[1] / medians[0], medians[0]


def _build(architecture, size):
    """Build a model with random weights."""
    import keras

    if architecture == "ViT-B/16":
        return _build_transformer(size)
    return getattr(keras.applications, architecture)(weights=None, input_shape=(size, size, 3))


def _build_transformer(size, patch=16, width=768, num_blocks=12, num_heads=12):
    """Build a vision transformer with a class token from layers of Keras."""
    import keras
    from keras import layers

    class Tokens(layers.Layer):
        """Puts a class token before the others, and adds what is learnt of each place."""

        def build(self, shape):
            self.token = self.add_weight(shape=(1, 1, shape[-1]))
            self.places = self.add_weight(shape=(1, shape[1] + 1, shape[-1]))
            self.built = True

        def call(self, x):
            token = keras.ops.repeat(self.token, keras.ops.shape(x)[0], axis=0)
            return keras.ops.concatenate([token, x], axis=1) + self.places

    x = inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(width, patch, strides=patch)(x)
    x = Tokens()(layers.Reshape(((size // patch) ** 2, width))(x))
    for _ in range(num_blocks):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = x + layers.MultiHeadAttention(num_heads, width // num_heads)(y, y)
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(inputs, layers.Dense(1000, activation="softmax")(x[:, 0]))


def measure(name, seconds):
    """Measure one case.

    Args:
        name: one of `CASES`.
        seconds: how long to measure.

    Returns:
        dict with the ratio, the seconds of the reference, and the peak memory in bytes.
    """
    import numpy as np
    import tensorflow as tf

    import keras_explainable as ke

    case = CASES[name]
    (architecture, size, batch), method = case.model, case.method
    options = dict(case.options)
    unit = options.pop("y", None)
    model = _build(architecture, size)
    images = np.random.default_rng(0).random((batch, size, size, 3), "float32")
    tensor = tf.constant(images)
    forward = tf.function(lambda x: model(x, training=False))

    def bare(method):
        method = method(ke) if callable(method) else method
        explainer = ke.Explainer(method, model, **options)
        indices = None if unit is None else tf.fill((batch, 1), unit)
        return tf.function(lambda x: explainer.method(explainer.exposed, x, indices))

    if method == "explain":
        many = np.concatenate([images] * (64 // batch))
        step = bare("gradcam")
        kept = {"batch_size": batch, "resizing": False, "postprocessing": None, "verbose": 0}

        def reference():
            for _ in range(64 // batch):
                outputs = step(tensor)
            return outputs[1].numpy()

        def measured():
            return ke.gradcam(model, many, unit, **kept)
    elif method == "shortcut":

        def reference():
            return forward(tensor).numpy()

        def measured():
            return ke.gradcam(model, images, unit)
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
    return {"ratio": ratio / case.per, "reference": elapsed, "memory": memory, "devices": devices}


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
    for name, case in CASES.items():
        (architecture, size, batch), bound, most = case.model, case.bound, case.memory
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
