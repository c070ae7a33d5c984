"""Workers of `MultiWorkerMirroredStrategy`, real processes, explain as one does."""

import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_explainable as ke

BUILD = """
keras.utils.set_random_seed(0)
layers = [keras.layers.Conv2D(3, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
images = np.random.default_rng(0).normal(size=(13, 8, 8, 3)).astype("float32")
"""
WORKER = """
import sys
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras
import numpy as np
import keras_explainable as ke
folder = sys.argv[1]
with strategy.scope():
    exec(sys.argv[2])
task = strategy.cluster_resolver.task_id
batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
for name, x, options in (("arrays", images, {"batch_size": 4}), ("dataset", batches, {})):
    logits, maps = ke.gradcam(model, x, verbose=0, **options)
    np.savez(f"{folder}/{name}_{task}.npz", logits=logits, maps=maps)
    store = ke.gradcam(model, x, verbose=0, path=f"{folder}/{name}.h5", **options)
    assert np.array_equal(store.numpy()[1], maps)
"""


def _free_addresses(number):
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("localhost", 0))
    addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


@pytest.mark.slow
def test_two_workers_explain_as_one_process(tmp_path):
    addresses = _free_addresses(2)
    workers = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", WORKER, str(tmp_path), BUILD]
        workers.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    namespace = {"keras": keras, "np": np}
    exec(BUILD, namespace)
    logits, maps = ke.gradcam(namespace["model"], namespace["images"], batch_size=4, verbose=0)
    for name in ("arrays", "dataset"):
        for index in range(2):
            with np.load(tmp_path / f"{name}_{index}.npz") as found:
                np.testing.assert_array_equal(found["logits"], logits)
                np.testing.assert_array_equal(found["maps"], maps)
        np.testing.assert_array_equal(ke.Store(tmp_path / f"{name}.h5").numpy()[1], maps)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".parts")]
