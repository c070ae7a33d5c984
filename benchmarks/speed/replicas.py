"""What explaining on two devices takes over one, next to predicting."""

import os
import statistics

from speed import cases
from speed import timing

NUM_IMAGES, PER_REPLICA = 64, 16
# Processes of one and of two replicas take turns this many times.
ROUNDS = 3
# On a single core, threads of TensorFlow that wait take time from the one that computes.
NUM_CORES = 2


def pin():
    """Keep this process to the first cores, where the system can; before its threads start.

    Returns:
        whether it has them.
    """
    if not hasattr(os, "sched_setaffinity"):
        return False
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < NUM_CORES:
        return False
    os.sched_setaffinity(0, cores[:NUM_CORES])
    return True


def measure(num_replicas, seconds, dtype, jit_compile):
    """Time `ke.gradcam` and `predict` with some replicas.

    On GPUs, if there are two, replicas have one each; on a CPU a computing thread each, on the same
    two cores whether there are one or two.

    Args:
        num_replicas: 1 or 2.
        seconds: how long to measure.
        dtype: policy of the model.
        jit_compile: whether to compile with XLA.

    Returns:
        dict as of `timing.take_turns`, of which the reference is `predict`, and on what "device",
        and whether "pinned".
    """
    import numpy as np
    import tensorflow as tf

    import keras_explainable as ke

    kind = "GPU" if len(tf.config.list_physical_devices("GPU")) > 1 else "CPU"
    pinned = kind == "CPU" and pin()
    if kind == "CPU":
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(NUM_CORES)
        device = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * num_replicas
        tf.config.set_logical_device_configuration(device, logical)
    devices = [f"{kind}:{number}" for number in range(num_replicas)]
    strategy = tf.distribute.OneDeviceStrategy(devices[0])
    if num_replicas > 1:
        strategy = tf.distribute.MirroredStrategy(devices)
    model = cases.Model()
    with strategy.scope():
        network = cases.build(model, dtype)
        network.compile(jit_compile=jit_compile)
    images = cases.images_for(model)
    images = np.concatenate([images] * (NUM_IMAGES // len(images)))
    batch = PER_REPLICA * num_replicas

    def reference():
        network.predict(images, batch_size=batch, verbose=0)

    def measured():
        ke.gradcam(network, images, 7, batch_size=batch, verbose=0, jit_compile=jit_compile)

    found = timing.take_turns(reference, measured, seconds)
    return found | {"device": kind, "pinned": pinned}


def combine(rounds):
    """Put the rounds of one and of two replicas together.

    Args:
        rounds: list of pairs of what `measure` returns, for one replica and for two.

    Returns:
        dict of the medians over rounds: seconds per image of "predict" and "explain", a pair each;
        and of "overhead", by how much the ratio of the two grows, with the lowest and highest.
    """
    overheads = [two["ratio"] / one["ratio"] for one, two in rounds]
    found = {
        "overhead": statistics.median(overheads),
        "low": min(overheads),
        "high": max(overheads),
        "device": rounds[0][0]["device"],
        "pinned": all(part["pinned"] for pair in rounds for part in pair),
        "rounds": len(rounds),
    }
    for name, key in (("predict", "reference"), ("explain", "measured")):
        found[name] = [
            statistics.median(pair[side][key] for pair in rounds) / NUM_IMAGES for side in (0, 1)
        ]
    return found
