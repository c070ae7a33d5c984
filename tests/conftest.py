"""What all tests share: two logical devices, fixed seeds, and the data beside the project."""

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


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(7)


@pytest.fixture(scope="session")
def shared():
    """Return the folder with real networks and reference outputs, where it is there."""
    if not SHARED.is_dir():
        pytest.skip("the folder `../shared` with real networks and references is absent")
    return SHARED
