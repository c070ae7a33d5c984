"""Files import from lower floors only, and only `_compat` knows what Keras keeps private."""

import ast
import collections
import re
from pathlib import Path

import keras
import pytest

import keras_explainable

ROOT = Path(keras_explainable.__file__).parent
# From the ground up. A package goes by its name with all that is in it, save what has a row itself.
FLOORS = (
    ("_axes", "_checks", "_compat", "_docstrings", "_showing", "_tables", "_typing", "_version"),
    (
        "filters",
        "inspection",
        "losses",
        "regularizers",
        "visualization",
    ),
    (
        "_identity",
        "_keeping",
        "_variation",
        "diagnostics",
        "layers",
        "methods._registry",
        "metrics._registry",
        "targets",
    ),
    # What the families of methods, and of metrics, share, above `inspection`.
    ("methods._units", "metrics._arguments", "metrics._explaining", "metrics._scoring"),
    ("metrics._computing", "metrics._ranking"),
    ("metrics._stateful",),
    ("methods._inputs", "methods._activations"),
    ("methods", "metrics"),
    ("engine",),
    ("evaluation", "demo", "features"),
    ("callbacks",),
    ("", "__main__"),
)
# Every name that Keras keeps private in what a user holds: a model, a layer, a symbolic tensor.
_MODEL = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
_HELD = (_MODEL, keras.Model(_MODEL.inputs, _MODEL.outputs), _MODEL.layers[0], _MODEL.inputs[0])
KERAS_PRIVATE = {name for held in _HELD for name in dir(held) if re.match("_[^_]", name)}
# Public in spite of their underscore, so that fields of a named tuple can have any name.
NAMED_TUPLE = {name for name in dir(collections.namedtuple("Empty", ())) if name[0] == "_"}


def _module(path):
    """Return the dotted name of a file inside the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text("utf-8")) for module, path in FILES.items()}


def floor(module):
    """Return the number of the floor that a module is on, or `None`."""
    rows = {name: number for number, names in enumerate(FLOORS) for name in names}
    parts = module.split(".")
    packages = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((rows[name] for name in packages if name in rows), None)


def imported(tree, module):
    """Return the modules of the package that a module imports, inside functions included."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    # What only type checkers import makes no floor depend on another.
    skipped = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for part in ast.walk(statement)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ["keras_explainable", *filter(None, package.split("."))]
                base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [base])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    inside = (n.split(".")[1:] for n in names if n.split(".")[0] == "keras_explainable")
    # What is no module is a name in one.
    return {".".join(p) if ".".join(p) in FILES else ".".join(p[:-1]) for p in inside}


def unit(module):
    """Return what may import within itself: a family, also as a package, or any other package."""
    depth = 2 if module.startswith(("methods.", "metrics.")) else 1
    return ".".join(module.split(".")[:depth])


def climbs(module, target):
    """Tell whether an import is forbidden."""
    opens_its_own = FILES[module].name == "__init__.py" and target.startswith(f"{module}.")
    same_unit = unit(module) == unit(target)
    return not (floor(target) < floor(module) or opens_its_own or same_unit)


def test_every_file_is_on_a_floor():
    assert [module for module in FILES if floor(module) is None] == []


@pytest.mark.parametrize("module", FILES)
def test_files_import_from_lower_floors_only(module):
    assert [t for t in sorted(imported(TREES[module], module)) if climbs(module, t)] == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("_checks", "from keras_explainable import filters"),
        ("filters", "from keras_explainable import inspection"),
        ("inspection", "from keras_explainable.methods._units import float_logits"),
        ("methods.cams", "from keras_explainable.methods.gradients import gradients"),
        ("methods.cams.eigen", "from keras_explainable.methods.meta import smooth"),
        ("methods.cams", "from keras_explainable.methods import gradients"),
        ("methods.cams", "from keras_explainable.methods import names"),
        ("methods.cams.linear", "from .. import gradients"),
        ("methods.cams.linear", "from ..gradients import gradients"),
        ("methods.cams", "def f():\n import keras_explainable.engine.explaining as e"),
        ("engine.explaining", "import keras_explainable as ke"),
        ("engine.explaining", "from keras_explainable import explain"),
        ("demo", "from .. import keras_explainable\nfrom keras_explainable import __version__"),
    ],
)
def test_an_import_that_climbs_is_noticed(module, statement):
    assert any(climbs(module, target) for target in imported(ast.parse(statement), module))


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("methods._units", "from keras_explainable.inspection import gather_units"),
        ("methods", "from keras_explainable.methods import cams"),
        ("methods.cams", "from keras_explainable.methods._registry import explaining_method"),
        ("engine.explaining", "from keras_explainable import methods, _compat"),
        ("engine.explaining", "from keras_explainable.engine import explaining"),
        ("", "from keras_explainable._version import __version__"),
        ("filters", "import keras\nfrom tensorflow import nest"),
        ("filters", "if TYPE_CHECKING:\n from keras_explainable.evaluation import Evaluation"),
    ],
)
def test_an_import_that_descends_is_allowed(module, statement):
    assert not any(climbs(module, target) for target in imported(ast.parse(statement), module))


def private(name):
    """Tell whether a name is private by its form."""
    return bool(re.fullmatch(r"_[A-Za-z]\w*|__internal__", name)) and name not in NAMED_TUPLE


def defined(tree):
    """Return the names that a file defines, save those that override what Keras keeps private."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            inherited = KERAS_PRIVATE if _derives_from_a_library(node) else set()
            names |= {name for part in ast.walk(node) for name in _names(part)} - inherited
    outside = ast.parse("")
    outside.body = [node for node in tree.body if not isinstance(node, ast.ClassDef)]
    return names.union(*(_names(node) for node in ast.walk(outside)), _classes(tree))


def _classes(tree):
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _derives_from_a_library(node):
    return any(ast.unparse(base).split(".")[0] in ("keras", "tf") for base in node.bases)


def _names(node):
    """Return what a node gives a name to."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return {node.id}
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        return {node.attr} if own else set()
    if isinstance(node, ast.Import):
        return {alias.asname for alias in node.names if alias.asname}
    return set()


OWN = set().union(*map(defined, TREES.values()), *(module.split(".") for module in FILES))


def private_uses(tree, own):
    """Return the names in a file that are private to Keras, TensorFlow or another package."""
    inside_text = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add))
        for part in ast.walk(node)
        if isinstance(part, ast.Constant)
    }
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
            if ast.unparse(node) in ("keras.src", "tf.python", "tensorflow.python"):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg:
            names = [node.arg]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.match(r"(keras\.src|tensorflow\.python)\b", node.value):
                found.append(node.value)
            names = [] if id(node) in inside_text else [node.value]
        elif isinstance(node, ast.ClassDef) and _derives_from_a_library(node):
            names = [n for part in ast.walk(node) for n in _names(part) if n in KERAS_PRIVATE]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            base = getattr(node, "module", None) or ""
            paths = [f"{base}.{alias.name}".strip(".").split(".") for alias in node.names]
            found += [
                ".".join(p) for p in paths if p[:2] in (["keras", "src"], ["tensorflow", "python"])
            ]
            names = [name for path in paths for name in path]
        found += [name for name in names if private(name) and name not in own]
    return sorted(set(found))


@pytest.mark.parametrize("module", sorted(set(FILES) - {"_compat"}))
def test_only_compat_knows_private_names(module):
    assert private_uses(TREES[module], OWN) == []


@pytest.mark.parametrize(
    "code",
    [
        "import keras.src.ops",
        "from keras.src import ops",
        "from keras import src",
        "from tensorflow.python.framework import ops",
        "keras.src.ops",
        "tf.__internal__.decorator",
        "importlib.import_module('keras.src.ops')",
        "model._run_through_graph(x)",
        "self._distribute_strategy",
        "layer._inbound_nodes = []",
        "getattr(model, '_functional', None)",
        "hasattr(layer, '_inbound_nodes')",
        "vars(layer)['_inbound_nodes']",
        "twin(layer, _inbound_nodes=[])",
        "state = {'_outbound_nodes': []}",
        "'_functional' in vars(model)",
        "class Mine(keras.Model):\n def f(self):\n  self._layers = []",
        "class Mine(keras.Model):\n def _setattr_hook(self, name, value): ...",
    ],
)
def test_a_private_name_is_noticed(code):
    tree = ast.parse(code)
    assert private_uses(tree, OWN | defined(tree)) != []


@pytest.mark.parametrize(
    "code",
    [
        "class Mine(keras.Model):\n def _mine(self):\n  self._kept = self._mine()",
        "class Mine:\n def f(self):\n  self._layers = {}\n  return self._layers",
        "def _helper(): ...\nmodule._helper()",
        "import keras as _keras\n_keras.__version__",
        "specimen._replace(model=model)",
        "f'{model.name}_exposed' + '_again'",
        "def __getattr__(name): return super().__getattr__(name)",
        "'a sentence about _inbound_nodes'",
    ],
)
def test_own_names_are_allowed(code):
    tree = ast.parse(code)
    assert private_uses(tree, OWN | defined(tree)) == []


def test_compat_is_seen_to_know_private_names():
    assert "_run_through_graph" in private_uses(TREES["_compat"], OWN)
