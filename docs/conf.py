"""The site of the documentation, made by `make docs` of the pages in this folder.

The pages are written for GitHub, which shows them as they are. What it writes in another way than
Sphinx, mathematics and links out of this folder, is changed when a page is read.
"""

import configparser
import inspect
import os
import re
import shutil
from pathlib import Path

from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import keras_explainable as ke

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# Pages of the site that are files of the project, by the path of the file.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}


def _repository():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["metadata"]["project_urls"].strip().splitlines()
    return dict(re.split(r" *= *", line, maxsplit=1) for line in lines)["Source"]


REPOSITORY = _repository()
# Files are linked by a relative path, or, in notebooks, which Colab opens alone, by their address.
LINK = re.compile(rf"\]\((?:{REPOSITORY}/blob/main/([^)#\s]+)|(?![a-z]+:|#)([^)#\s]+))")

project = "keras-explainable"
author = "The keras-explainable authors"
copyright = author
release = version = ke.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx-mathjax-offline",  # Equations are drawn without a network, too.
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_static"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]  # That of notebooks.
myst_fence_as_directive = ["math"]

# Notebooks are shown as they are committed, without outputs, unless they are asked for.
nb_execution_mode = "cache" if os.environ.get("NOTEBOOKS") else "off"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_output_stderr = "remove"  # TensorFlow tells of its devices there.
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # The docstrings tell types, and shapes with them.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
# In docstrings, what stands in backticks is code, and a link if it is in the reference.
default_role = "py:obj"
smartquotes_action = "De"  # Strings are quoted as in code.
nitpick_ignore_regex = [("py:.*", r"(?!keras_explainable).*")]

# Where docstrings leave out a part of a name.
PREFIXES = (
    "",
    "methods.gradients.",
    "methods.cams.",
    "methods.attention.",
    "methods.",
    "metrics.",
    "inspection.",
)

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}


class Registered(SphinxDirective):
    """Documents the methods, meta methods or metrics that are registered.

    The argument is "methods" and a module, "meta", or "metrics" and a category.
    """

    required_arguments = 1
    optional_arguments = 1

    def run(self):
        """Return the documentation of each, sorted by name."""
        kind, *which = self.arguments
        module = kind
        if kind == "metrics":
            names = ke.metrics.names(*which)
        elif kind == "meta":
            module, names = "methods", ke.methods.meta_names()
        else:
            module = f"methods.{which[0]}"
            inside = f"keras_explainable.{module}."
            names = [
                n for n in ke.methods.names() if ke.methods.get(n).__module__.startswith(inside)
            ]
        lines = [f".. autofunction:: keras_explainable.{module}.{name}" for name in names]
        return self.parse_text_to_nodes("\n\n".join(lines))


def copy_notebooks(app):
    """Copy the notebooks beside the pages, where Sphinx finds them."""
    del app
    target = DOCS / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy2(notebook, target)


def read_page(app, docname, source):
    """Change what GitHub and Sphinx write in different ways."""
    file = next((file for file, page in PAGES.items() if page == f"{docname}.md"), None)
    if file in (None, "README.md"):
        is_notebook = docname.startswith("notebooks/")
        path = ROOT / f"{docname}.ipynb" if is_notebook else DOCS / f"{docname}.md"
    else:
        path = ROOT / file
        source[0] = path.read_text("utf-8")
        app.env.note_dependency(path)
    # What stands in fences is left alone.
    parts = re.split(r"(^ *```.*?^ *```$)", source[0], flags=re.DOTALL | re.MULTILINE)
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"\$`([^`]+)`\$", r"{math}`\1`", parts[index])
        parts[index] = LINK.sub(
            lambda match: f"]({_target(path, docname, match[2] or ROOT / match[1])}",
            parts[index],
        )
    source[0] = "".join(parts)


def link_source(app, pagename, templatename, context, doctree):
    """Link the source of a notebook where it is, beside the folder of the pages."""
    del app, templatename, doctree
    if pagename.startswith("notebooks/"):
        context["theme_source_directory"] = ""


def _target(path, docname, link):
    """Return a link from a page, of a link from the file that it is made of."""
    linked = Path(os.path.normpath(path.parent / link))
    inside = linked.relative_to(ROOT).as_posix()
    if inside in PAGES:
        linked = DOCS / PAGES[inside]
    elif inside.startswith("notebooks/"):
        linked = DOCS / inside
    elif not linked.is_relative_to(DOCS) or linked.suffix in (".py", ".json"):
        return f"{REPOSITORY}/{'tree' if linked.is_dir() else 'blob'}/main/{inside}"
    return Path(os.path.relpath(linked, (DOCS / docname).parent)).as_posix()


def _ended(match):
    return f"{match[1]}\\ {match[2]}" if match[2] else match[1]


def _arguments(match):
    return "Args:\n" + re.sub(r"(?m)^", "    ", match[1].rstrip()) + "\n"


def change_docstring(app, what, name, obj, options, lines):
    """Write what is returned as a list, where it is several things, each with its name."""
    del app, what, options
    if name.startswith("keras_explainable.metrics.") and inspect.isfunction(obj):
        # What the library passes to a metric, `scores` or `inputs`, is nothing for users.
        own = inspect.signature(obj).parameters
        told = (re.fullmatch(r"    (\w+): `[A-Z]\w+`\.", line) for line in lines)
        kept = [m is None or m[1] in own for m in told]
        text = "\n".join(line for line, keep in zip(lines, kept, strict=True) if keep)
        lines[:] = re.sub(r"(?m)^Returns:\n    `[A-Z]\w+`\.\n", "", text).split("\n")
    # Code that goes on as a word, as in `Row`s.
    ended = re.sub(r"(``.+?``|`[^`]+`)(\w?)", _ended, "\n".join(lines))
    # Metrics have arguments in common, which are told after their own.
    shared = re.sub(r"(?m)^And further:\n\n((?:.+\n)+)", _arguments, ended)
    shared = re.sub(r"(?m)^Args:\n\n", "", shared)
    lines[:] = shared.split("\n")
    if "Returns:" not in lines:
        return
    start = lines.index("Returns:")
    end = start + 1
    while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
        end += 1
    listed, text = False, []
    for line in lines[start + 1 : end]:
        line = line.removeprefix("    ")
        item = re.match(r"(\w+): (.*)", line)
        listed = listed or item is not None
        text.append(f"- **{item[1]}**: {item[2]}" if item else "  " * listed + line)
    lines[start:end] = [":returns:", *(f"    {line}".rstrip() for line in text), ""]


def sign_class(app, what, name, obj, options, signature, annotation):
    """Take the signature of `__init__`, where Keras hides it."""
    del app, name, options, annotation
    if what == "class" and signature == "(*args, **kwargs)":
        _, *parameters = inspect.signature(obj.__init__).parameters.values()
        parameters = [p.replace(annotation=p.empty) for p in parameters]
        return str(inspect.Signature(parameters)), None
    return None


def resolve(app, env, node, contnode):
    """Link short names in docstrings, as `inspection.expose`, or leave them as code."""
    if node.get("reftype") != "obj":
        return None
    objects = env.get_domain("py").objects
    for prefix in PREFIXES:
        found = objects.get(f"keras_explainable.{prefix}{node['reftarget'].removeprefix('ke.')}")
        if found is not None:
            page = node["refdoc"]
            return make_refnode(app.builder, page, found.docname, found.node_id, contnode)
    return contnode


def setup(app):
    """Connect what changes pages and docstrings."""
    app.add_directive("registered", Registered)
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", read_page)
    app.connect("html-page-context", link_source)
    app.connect("autodoc-process-docstring", change_docstring, priority=400)
    app.connect("autodoc-process-signature", sign_class)
    app.connect("missing-reference", resolve)
