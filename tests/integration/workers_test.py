"""Workers, real processes, explain as one does, whether they wait for each other or not."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

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


SHARD = """
import os
import signal
import sys
import keras
import numpy as np
import tensorflow as tf
import keras_explainable as ke
from keras_explainable.engine import storing
path, index, kill, code = sys.argv[1:]
storing._PART_SECONDS = 0.0
exec(code)

class Dying(keras.callbacks.Callback):
    def on_predict_batch_end(self, batch, logs=None):
        print("batch", batch, flush=True)
        if batch == int(kill):
            os.kill(os.getpid(), signal.SIGKILL)

batches = tf.data.Dataset.from_tensor_slices(images).batch(2)
shard = int(index), 2
ke.gradcam(model, batches, path=path, shard=shard, callbacks=[Dying()], verbose=0)
"""


def _begin_shard(path, index, kill=-1):
    """Begin to write one of two shards in a process, which is killed after some batch."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", SHARD, str(path), str(index), str(kill), BUILD]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def _explained():
    """Return what one process explains."""
    namespace = {"keras": keras, "np": np}
    exec(BUILD, namespace)
    return ke.gradcam(namespace["model"], namespace["images"], batch_size=2, verbose=0)


def _check_equal(store, expected):
    for found, wanted in zip(store.numpy(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_a_killed_worker_is_started_again_by_itself(tmp_path):
    path = tmp_path / "maps.h5"
    workers = [_begin_shard(path, 0, kill=2), _begin_shard(path, 1)]
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0], errors
    with pytest.raises(ValueError, match="maps-00000-of-00002.h5"):
        ke.Store(path)
    worker = _begin_shard(path, 0)
    printed, error = worker.communicate(timeout=300)
    assert worker.returncode == 0, error
    # The batches that were written before it died aren't explained again.
    assert printed.splitlines() == ["batch 2", "batch 3"]
    _check_equal(ke.Store(path), _explained())


IMAGES = """
import os
import signal
import time
from pathlib import Path
import keras
import numpy as np
from keras_explainable.engine import storing
storing._PART_SECONDS = 0.0
folder = Path(__file__).parent
exec((folder / "build.txt").read_text())

class Images(keras.utils.PyDataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        with (folder / "loaded").open("a") as file:
            file.write(f"{os.getpid()} {index}\\n")
        if index == 5 and not (folder / "died").exists():
            (folder / "died").touch()
            # Batches are loaded ahead of those that are written.
            while not [*folder.glob("maps-00001-of-00002.h5.parts/*.npz")]:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return images[2 * index : 2 * index + 2]
"""
RAY = """
import ray
local = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
ray.init(num_cpus=2, object_store_memory=100_000_000, **local)
"""


@pytest.mark.slow
def test_the_job_of_the_documentation_outlives_a_worker_of_ray(tmp_path):
    pytest.importorskip("ray", reason='pip install "keras-explainable[distributed]"')
    root = Path(__file__).parents[2]
    text = (root / "docs" / "large_data.md").read_text("utf-8")
    job = re.search(r"^## A cluster with Ray.*?^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1]
    # Two processes, two shards, and a folder that is here.
    for written, here in (("/shared/", f"{tmp_path}/"), ("size=8", "size=2"), ("64", "2")):
        assert written in job
        job = job.replace(written, here)
    (tmp_path / "build.txt").write_text(BUILD)
    (tmp_path / "data.py").write_text(IMAGES)
    (tmp_path / "job.py").write_text(RAY + textwrap.dedent(job))
    namespace = {"keras": keras, "np": np}
    exec(BUILD, namespace)
    namespace["model"].save(tmp_path / "model.keras")
    environment = {
        **os.environ,
        "HOME": str(tmp_path),  # Ray keeps a file there.
        "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # Others may fill the memory of this machine.
    }
    command = [sys.executable, str(tmp_path / "job.py")]
    ended = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    loaded = [line.split() for line in (tmp_path / "loaded").read_text().splitlines()]
    # One process died in the batch 5; another loaded that again, and none that was written.
    assert len({process for process, number in loaded if number == "5"}) == 2
    assert [number for _, number in loaded].count("1") == 1
    _check_equal(ke.Store(tmp_path / "maps.h5"), _explained())
