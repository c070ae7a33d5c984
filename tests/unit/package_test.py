"""What importing the package takes, seen by a fresh interpreter, and how it is described."""

import configparser
import json
import os
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.conftest import script

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


def _setup(monkeypatch):
    """Return what `setup.py` gives to setuptools."""
    setuptools = pytest.importorskip("setuptools")
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def _repository():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings["metadata"]["project_urls"].split()[2]


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_package_is_installed_from_its_repository(page):
    text = (ROOT / page).read_text("utf-8")
    assert f'\npip install "keras-explainable @ git+{_repository()}"\n' in text


def test_links_of_the_description_work_without_a_checkout(monkeypatch):
    text = _setup(monkeypatch)["long_description"]
    repository = _repository()
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", text)
    assert len(links) > 20
    for is_picture, link in links:
        kind, path = re.fullmatch(rf"{repository}/(\w+)/main/([^#]+)(?:#.*)?", link).groups()
        assert kind == ("raw" if is_picture else "blob")
        assert (ROOT / path).is_file()
    # Nothing else differs from the README.
    relative = re.sub(rf"{repository}/(?:raw|blob)/main/", "", text)
    assert relative == (ROOT / "README.md").read_text("utf-8")


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


def test_importing_the_package_imports_no_other_package_beyond_those_of_keras():
    # What the time of the import goes to: `benchmarks/importing.py` measures it.
    code = (
        "import sys\n"
        "import keras, tensorflow\n"
        "before = set(sys.modules)\n"
        "import keras_explainable\n"
        "names = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(names - set(sys.stdlib_module_names)))\n"
    )
    done = _run(code)
    assert done.stdout.splitlines()[-1:] == ["['keras_explainable']"], done.stderr


def test_times_of_imports_are_medians_of_fresh_processes(monkeypatch, capsys, tmp_path):
    importing = script("importing")
    found, run = [[9.0, 9.0], [2.0, 0.25], [4.0, 0.2], [3.0, 0.3]], []

    def faked(command, **_):
        run.append(command)
        return types.SimpleNamespace(stdout=json.dumps(found[len(run) - 1]))

    monkeypatch.setattr(importing.subprocess, "run", faked)
    importing.main(["--turns", "3", "--json", str(tmp_path / "times.json")])
    printed = capsys.readouterr().out
    assert "| `keras` | 3.00 s | 2.00 s | 4.00 s |" in printed
    assert "| `keras_explainable`, after it | 0.25 s | 0.20 s | 0.30 s |" in printed
    assert printed.endswith("takes 0.25 s more than Keras (≤ 0.3).\n")
    assert len(run) == 4
    assert json.loads((tmp_path / "times.json").read_text()) == {
        importing.KERAS: [2.0, 4.0, 3.0],
        importing.OURS: [0.25, 0.2, 0.3],
    }
    assert importing.SCRIPT.index("import keras\n") < importing.SCRIPT.index(
        "import keras_explainable"
    )


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
