"""What all tests share: two logical devices, fixed seeds, and the data beside the project."""

import importlib.util
from pathlib import Path

import keras
import matplotlib
import pytest
import tensorflow as tf

matplotlib.use("Agg")
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

SHARED = Path(__file__).parents[2] / "shared"


def script(name):
    """Import a script of `benchmarks` by its path, as other packages may have that name."""
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def two_replicas():
    """Return a strategy of two devices, of which a process can train with several."""
    # By default their reductions go by numbers that start anew in each strategy, and get mixed up.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=reduction)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(7)


@pytest.fixture(scope="session")
def shared():
    """Return the folder with real networks and reference outputs, where it is there."""
    if not SHARED.is_dir():
        pytest.skip("the folder `../shared` with real networks and references is absent")
    return SHARED
