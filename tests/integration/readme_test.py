"""The examples of the README and of the documentation run, and print what they say."""

import re
from pathlib import Path

import keras
import pytest

from keras_explainable.methods import _registry

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/features.md",
    "docs/index.md",
    "docs/large_data.md",
    "docs/methods.md",
    "docs/metrics.md",
    "docs/migrating.md",
    "docs/models.md",
    "docs/multilabel.md",
    "docs/quickstart.md",
    "docs/targets.md",
    "docs/training.md",
)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What a line prints stands beside it, `print(x)  # expected`, or below its block of code.
PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$|^# (.+)$", re.MULTILINE)


def _blocks(document):
    """Return the first line and the code of each block of Python."""
    text = (ROOT / document).read_text("utf-8")
    return [(text.count("\n", 0, m.start(1)), m[1]) for m in BLOCK.finditer(text)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_there_are_examples(document):
    assert _blocks(document)


def test_every_document_with_examples_is_run():
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("**/*.md")}
    assert {document for document in found if _blocks(document)} <= set(DOCUMENTS)


@pytest.fixture
def _as_before(monkeypatch):
    """Undo what examples set for the process: the policy, and methods that they register."""
    policy = keras.config.dtype_policy()
    monkeypatch.setattr(_registry, "_METHODS", dict(_registry._METHODS))
    yield
    keras.config.set_dtype_policy(policy)


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_run_and_print_what_they_say(document, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for line, code in _blocks(document):
        # Errors point into the document.
        exec(compile("\n" * line + code, str(ROOT / document), "exec"), namespace)
        expected = [beside or below for beside, below in PRINTED.findall(code)]
        # In a loop, every turn prints the same.
        printed = list(dict.fromkeys(capsys.readouterr().out.splitlines()))
        assert printed == list(dict.fromkeys(expected)), f"{document}, line {line}"
    for name in [name for name in namespace if name.startswith("test_")]:
        namespace[name]()
