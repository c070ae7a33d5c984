"""Measure the memory of explaining a data set into a store, and kill it on the way.

Usage: `python benchmarks/streaming.py` prints a Markdown table, and with `--write` puts it into
`docs/large_data.md` between the markers there. Every run is a process of its own, which explains
synthetic images of 64² with Grad-CAM, all units of a MobileNetV2 with 20, from a `tf.data.Dataset`
that makes them as they are needed. Memory is the peak of the process.
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import marked  # noqa: E402

PAGE = Path(__file__).parents[1] / "docs" / "large_data.md"
SIZE, UNITS, BATCH = 64, 20, 32


def build():
    """Return the model."""
    import keras

    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2(
        weights=None, classes=UNITS, input_shape=(SIZE, SIZE, 3), classifier_activation="sigmoid"
    )


def images(number):
    """Return a data set of batches of images."""
    import tensorflow as tf

    def image(number):
        return tf.random.stateless_uniform((SIZE, SIZE, 3), (number, 0), -1, 1)

    return tf.data.Dataset.range(number).map(image).batch(BATCH)


def explain(path, num_images, dtype):
    """Explain images into a store; return the peak memory of this process, in bytes."""
    import keras_explainable as ke

    ke.gradcam(build(), images(num_images), path=path, dtype=dtype, verbose=0)
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte


def run(path, num_images, dtype, kill_after=None):
    """Explain in a process; return its peak memory, or `None` where it was killed."""
    command = [sys.executable, __file__, "--path", str(path), "--dtype", dtype]
    process = subprocess.Popen(
        [*command, "--images", str(num_images)], stdout=subprocess.PIPE, text=True
    )
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    output, _ = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return None
    if process.returncode:
        sys.exit(process.returncode)
    return int(output.split()[-1])


def same(first, second):
    """Tell whether two stores hold the same bits."""
    import numpy as np

    import keras_explainable as ke

    first, second = ke.Store(first), ke.Store(second)
    if len(first) != len(second) or not np.array_equal(first.logits, second.logits):
        return False
    rows = [slice(start, start + 100) for start in range(0, len(first), 100)]
    return all(np.array_equal(first[r][1], second[r][1]) for r in rows)


def measure(arguments):
    """Measure, and yield what is found, lines of Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole.h5"), Path(folder, "killed.h5")
        few = arguments.images // 10
        yield "| Images | Peak memory |\n| ---: | ---: |"
        for name, count in (("few.h5", few), (whole, arguments.images)):
            start = time.perf_counter()
            memory = run(Path(folder, name), count, arguments.dtype)
            seconds = time.perf_counter() - start
            yield f"| {count} | {memory / 1e9:.2f} GB |"
        yield f"\nThe larger file has {whole.stat().st_size / 1e6:.0f} MB."
        moments, kills = random.Random(arguments.seed), []
        while len(kills) < 3:
            moment = moments.uniform(0.1, 0.6) * seconds
            if run(killed, arguments.images, arguments.dtype, moment) is None:
                kills.append(f"{moment:.0f} s")
                continue
            killed.unlink()  # It was done before; begin anew.
            kills.clear()
        run(killed, arguments.images, arguments.dtype)
        bits = "the same bits" if same(whole, killed) else "OTHER BITS"
        yield f"Killed after {', '.join(kills)}, and begun again each time: {bits}."


def main():
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000, help="images (default: 5000)")
    parser.add_argument("--dtype", default="float16", help="type of the maps (default: float16)")
    parser.add_argument("--seed", type=int, default=0, help="seed of when to kill (default: 0)")
    parser.add_argument("--write", action="store_true", help="write into the documentation")
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.path:
        print(explain(arguments.path, arguments.images, arguments.dtype))
        return
    lines = []
    for line in measure(arguments):
        print(line, flush=True)
        lines.append(line)
    if arguments.write:
        marked.write(PAGE, "streaming", "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
