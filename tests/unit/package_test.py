"""What importing the package takes, seen by a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONAL = ("matplotlib", "sklearn", "PIL", "pandas")


def _run(code, *paths, **variables):
    """Run code in a fresh interpreter; return its exit code, output and errors."""
    paths = [str(path) for path in (*paths, ROOT)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def _fake_keras(folder, version):
    """Write a module that says that it is Keras, on the backend that KERAS_BACKEND names."""
    (folder / "keras.py").write_text(
        "import os\n"
        f"__version__ = {version!r}\n"
        "class backend:\n"
        "    backend = staticmethod(lambda: os.environ['KERAS_BACKEND'])\n"
    )
    return folder


def test_importing_the_package_imports_nothing_optional():
    # Keras tries to import some of these itself, and does without.
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL}))\n"
        "import keras\n"
        f"for name in {OPTIONAL}: del sys.modules[name]\n"
        "import keras_explainable\n"
        f"print({{module.split('.')[0] for module in sys.modules}} & set({OPTIONAL}))\n"
    )
    done = _run(code)
    assert done.stdout.splitlines()[-1:] == ["set()"], done.stderr


@pytest.mark.parametrize("backend", ["jax", "numpy", "torch"])
def test_another_backend_is_refused_by_name(tmp_path, backend):
    folder = _fake_keras(tmp_path, "3.9.0")
    done = _run("import keras_explainable", folder, KERAS_BACKEND=backend)
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert error.startswith("ImportError: keras_explainable runs on the TensorFlow backend")
    assert f"found '{backend}'" in error
    assert "KERAS_BACKEND=tensorflow" in error


def test_the_backend_is_asked_of_keras_itself():
    code = (
        "import keras\n"
        "from unittest import mock\n"
        "with mock.patch('keras.backend.backend', lambda: 'jax'):\n"
        "    import keras_explainable\n"
    )
    error = _run(code).stderr.splitlines()[-1]
    assert error.startswith("ImportError: keras_explainable runs on the TensorFlow backend")
    assert "found 'jax'" in error


def test_keras_2_is_refused_with_its_version_and_what_to_do(tmp_path):
    folder = _fake_keras(tmp_path, "2.15.0")
    done = _run("import keras_explainable", folder, KERAS_BACKEND="tensorflow")
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert error.startswith("ImportError: keras_explainable needs Keras 3, and found Keras 2.15.0")
    assert 'pip install -U "keras>=3"' in error
    assert "TF_USE_LEGACY_KERAS" in error
