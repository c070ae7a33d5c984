"""Time, memory and devices of a process."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Least number of turns, where one takes up to so many seconds: of something slow a few have to do.
LEAST_TURNS = {4.0: 5, 40.0: 3, float("inf"): 2}


def take_turns(reference, measured, seconds):
    """Time two functions in turns, each of which ends when its result is there.

    Args:
        reference: function without arguments that times are multiples of.
        measured: function without arguments.
        seconds: how long to go on, for as many turns as `LEAST_TURNS` says at least.

    Returns:
        dict, as in `summarize`.
    """
    reference()  # The first calls compile.
    own = elapsed(measured)
    base = elapsed(reference)
    if own < min(LEAST_TURNS):  # Of something slow, compiling is little.
        own = elapsed(measured)
    least = next(turns for most, turns in LEAST_TURNS.items() if own <= most)
    # One pass is known better by several, where they take no time next to what is measured.
    repeats = max(1, min(5, round(own / base / 10)))
    pairs = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(pairs) < least:
        turn = [[reference] * repeats, [measured]]
        # Neither is always the first.
        turn = turn[::-1] if len(pairs) % 2 else turn
        times = [[elapsed(function) for function in functions] for functions in turn]
        pairs.append(tuple(times[::-1] if len(pairs) % 2 else times))
    return summarize(pairs)


def elapsed(function):
    """Return the seconds that a function takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def summarize(pairs):
    """Summarize the seconds of two functions that took turns.

    Args:
        pairs: list of turns, each a pair of lists: the seconds of the reference, and of what was
            measured.

    Returns:
        dict of "ratio", "low" and "high", the median and the quartiles of the ratios within a turn;
        "reference" and "measured", the medians in seconds; and the number of "turns".
    """
    medians = [statistics.median(t for pair in pairs for t in pair[side]) for side in (0, 1)]
    ratios = [statistics.median(ours) / statistics.median(theirs) for theirs, ours in pairs]
    low, ratio, high = quartiles(ratios)
    return {
        "ratio": ratio,
        "low": low,
        "high": high,
        "reference": medians[0],
        "measured": medians[1],
        "turns": len(pairs),
    }


def quartiles(values):
    """Return the quartiles of at least one number."""
    if len(values) == 1:
        return list(values) * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def num_cores():
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def peak_memory():
    """Return the peak memory in bytes: of the GPU where there is one, else of the process."""
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte


def environment(dtype="float32", jit_compile=False):
    """Return a dict of what numbers depend on: device, cores, versions, dtype, XLA."""
    import keras
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    device = "CPU"
    if gpus:
        device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return {
        "device": device,
        "cores": num_cores(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "dtype": dtype,
        "jit_compile": jit_compile,
    }


def wait(outputs):
    """Wait for a tensor, or for the last one of a structure, by reading back one number of it."""
    import tensorflow as tf

    # Where nothing was computed yet, as on a GPU, what is behind in the queue waits for it.
    return tf.reshape(tf.nest.flatten(outputs)[-1], [-1])[0].numpy()


def in_process(script, *arguments, variables=None):
    """Run a script in a process of its own; return what it prints last, read as JSON.

    Args:
        script: path of the script.
        *arguments: of the command.
        variables: dict of environment variables. Defaults to none.

    Returns:
        what was printed, or a dict of the "error" where it fails.
    """
    command = [sys.executable, str(script), *map(str, arguments)]
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(variables or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        return {"error": error_of(done.stderr, done.returncode)}
    return json.loads(done.stdout.splitlines()[-1])


def error_of(text, code):
    """Return the line of a traceback that names the error, the first one of its message."""
    lines = [line for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line[:1].isalpha() and "Error" in line.split(":")[0]]
    if code < 0 and not named:
        return f"killed by signal {-code}"
    return (named or lines or [f"exit code {code}"])[-1][:200]
