"""Notebooks are committed without outputs, and run from top to bottom."""

import configparser
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("**/*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _repository():
    settings = configparser.ConfigParser()
    settings.read(FOLDER.parent / "setup.cfg", encoding="utf-8")
    return re.search(r"Source = (\S+)", settings["metadata"]["project_urls"])[1]


def test_notebooks_have_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert all(set(cell.metadata) <= {"tags", "mystnb"} for cell in cells)


def test_notebooks_begin_with_a_link_that_opens_them_in_colab(path):
    first = nbformat.read(path, as_version=4).cells[0].source
    assert first.startswith("[![Open in Colab]")
    repository = _repository().removeprefix("https://github.com/")
    place = f"/github/{repository}/blob/main/notebooks/{path.name})"
    assert place in first.splitlines()[0]


def test_notebooks_start_by_installing_the_package_where_it_is_missing(path):
    notebook = nbformat.read(path, as_version=4)
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "\ntry:\n    import keras_explainable" in first
    assert f'\n    %pip install -q "keras-explainable[demo] @ git+{_repository()}"\n' in first


# What follows the installation: the same training as in other notebooks and tests is done once.
TRAINED = """
from keras_explainable import demo as _demo


def _train(digits, *args, **options):
    import keras

    if not args and options == {{"epochs": 6, "verbose": 0}}:
        return keras.saving.load_model({path!r})
    return _trained(digits, *args, **options)


_trained, _demo.train = _demo.train, _train
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Those of Jupyter, of which there are many.
def test_notebooks_run(path, tmp_path, monkeypatch, classifier_file):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    # Figures are drawn into the notebook, whatever the other tests draw on.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source += TRAINED.format(path=str(classifier_file))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    drawn = [c for c in cells if any("image/png" in o.get("data", {}) for o in c.outputs)]
    assert drawn
    options = {cell.id: cell.metadata.get("mystnb", {}).get("image", {}) for cell in drawn}
    assert [name for name, image in options.items() if not image.get("alt")] == []
    outputs = [output for cell in cells for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert not re.search("retracing|warning", text, re.IGNORECASE), text
