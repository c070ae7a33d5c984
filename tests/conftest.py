"""What all tests share: two logical devices, fixed seeds, and the data beside the project."""

import importlib.util
import os
import random
import sys
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf

from keras_explainable import demo

matplotlib.use("Agg")
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

SHARED = Path(__file__).parents[2] / "shared"


def script(name):
    """Import a script of `benchmarks` by its path, as other packages may have that name."""
    folder = Path(__file__).parents[1] / "benchmarks"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # What scripts share is there.
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def two_replicas():
    """Return a strategy of two devices, of which a process can train with several."""
    # By default their reductions go by numbers that start anew in each strategy, and get mixed up.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=reduction)


tf.random.set_seed(7)


@pytest.fixture(autouse=True)
def _seed():
    # Keras draws its seeds from these. That of TensorFlow is set once: setting it throws away what
    # is compiled for eager operations, which takes as long as half of all tests.
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002


@pytest.fixture
def _eagerly(request):
    """Run functions eagerly, as compiling them takes longer than the models that tests take.

    Tests marked "compiled" go without it in a module that uses it. That graphs give the maps of
    eager mode is tested for every method in `tests/contract`.
    """
    eager = request.node.get_closest_marker("compiled") is None
    tf.config.run_functions_eagerly(eager)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def shared():
    """Return the folder with real networks and reference outputs, where it is there."""
    if not SHARED.is_dir():
        pytest.skip("the folder `../shared` with real networks and references is absent")
    return SHARED


@pytest.fixture(scope="session")
def classifier_file(tmp_path_factory):
    """Return the file of a classifier of digits, of half the training; processes share it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "classifier.keras"
    if not path.exists():
        model = demo.train(demo.load_digits()[0], epochs=6, verbose=0)
        own = folder / f"classifier_{os.getpid()}.keras"
        model.save(own)
        own.replace(path)
    return path


@pytest.fixture
def classifier(classifier_file):
    """Return a classifier of digits, of half the training."""
    return keras.saving.load_model(classifier_file)
