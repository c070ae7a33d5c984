"""The site of the documentation, made by `make docs` of the pages in this folder.

The pages are written for GitHub, which shows them as they are. What it writes in another way than
Sphinx, mathematics and links out of this folder, is changed when a page is read.
"""

import configparser
import inspect
import itertools
import os
import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import keras_explainable as ke
from keras_explainable import _docstrings

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
napoleon_attr_annotations = False  # The docstrings tell types here, too.
napoleon_use_ivar = True
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"
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
    "evaluation.",
    "features.",
)

html_theme = "furo"
html_title = project  # Without a version, as the changelog tells of what isn't released yet.
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


class Metrics(SphinxDirective):
    """Lists the names of all metrics in a table, or, with the argument "classes", their classes."""

    optional_arguments = 1

    def run(self):
        """Return the table, in which names are links, or the names of the classes as entries."""
        known = [ke.metrics.registration(name) for name in ke.metrics.names()]
        if self.arguments:
            names = [registration.class_name for registration in known]
            lines = [
                f".. py:class:: {name}\n   :module: keras_explainable.metrics\n   :no-typesetting:"
                for name in names
            ]
            lines.append(", ".join(f"``{name}``" for name in names))
            return self.parse_text_to_nodes("\n\n".join(lines))
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - Category", "     - Metrics"]
        for category in ke.metrics.CATEGORIES:
            names = ", ".join(f"`metrics.{name}`" for name in ke.metrics.names(category))
            lines += [f"   * - {category}", f"     - {names.replace('`metrics.', '`~metrics.')}"]
        return self.parse_text_to_nodes("\n".join(lines))


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


# Arguments of metrics that the page tells of once.
SHARED = ("output", "batch_size", "return_weights")


def shortened(text, name):
    """Return the docstring of a metric without what stands on the page before it."""
    known = ke.metrics.registration(name)
    peers = itertools.takewhile(lambda peer: peer != name, ke.metrics.names(known.category))
    peers = [p for p in peers if ke.metrics.registration(p).protocol is known.protocol]
    told = {}  # Where the text of an argument stands first.
    for peer in peers:
        for argument, entry in _arguments(_sections(peer)["Args"]).items():
            told.setdefault((argument, entry), peer)
    parts, own, references = _docstrings.sections(text), [], {}
    for argument, entry in _arguments(parts["Args"]).items():
        same = re.fullmatch(r" as in `(\w+)`\.", entry)
        where = same[1] if same else told.get((argument, entry))
        if where is None:
            own.append(f"    {argument}:{entry}")
        else:
            references.setdefault(where, []).append(f"``{argument}``")
    paragraphs = parts[""].split("\n\n")
    if peers and known.protocol is not None:
        before = _sections(peers[0])[""].split("\n\n")
        paragraphs = [p for p in paragraphs if p not in before]
        if len("\n\n".join(paragraphs)) < len(parts[""]):
            references.setdefault(peers[0], []).insert(0, "other symbols")
    if references:
        listed = (f"as in `{where}`: {', '.join(names)}" for where, names in references.items())
        paragraphs.append("A" + "; ".join(listed)[1:] + ".")
    parts[""] = "\n\n".join(paragraphs)
    parts["Args"] = "\n".join(own)
    parts["Returns"] = parts["Returns"].partition(" With")[0]
    parts["Raises"] = ""
    return _docstrings.joined(parts)


def _sections(name):
    return _docstrings.sections(getattr(ke.metrics, name).__doc__)


def _arguments(section):
    """Return what is told of the arguments of a metric by their names, save the shared ones."""
    entries = (e.strip().partition(":") for e in _docstrings.entries(section).values())
    return {name: text for name, _, text in entries if name not in SHARED}


def change_docstring(app, what, name, obj, options, lines):
    """Write what is returned as a list, where it is several things, each with its name."""
    del app, what, options
    metric = name.removeprefix("keras_explainable.metrics.")
    if metric in ke.metrics.names() and inspect.isfunction(obj):
        lines[:] = shortened("\n".join(lines), metric).split("\n")
    # Code that goes on as a word, as in `Row`s.
    lines[:] = re.sub(r"(``.+?``|`[^`]+`)(\w?)", _ended, "\n".join(lines)).split("\n")
    if "Returns:" not in lines:
        return
    start = lines.index("Returns:")
    end = start + 1
    while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
        end += 1
    listed, text = False, []
    for line in lines[start + 1 : end]:
        item = re.match(r"    (\w+): (.*)", line)
        listed = listed or item is not None
        text.append(f"- **{item[1]}**: {item[2]}" if item else "  " * listed + line.strip())
    lines[start:end] = [":returns:", *(f"    {line}".rstrip() for line in text), ""]


def sign_class(app, what, name, obj, options, signature, annotation):
    """Take the signature of `__init__`, where Keras hides it."""
    del app, name, options, annotation
    if what == "class" and signature == "(*args, **kwargs)":
        _, *parameters = inspect.signature(obj.__init__).parameters.values()
        if all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            return "", None  # What functions make tells no arguments.
        parameters = [p.replace(annotation=p.empty) for p in parameters]
        return str(inspect.Signature(parameters)), None
    return None


def name_as_used(app, doctree):
    """Write names as users do, who `import keras_explainable as ke`."""
    del app
    for node in doctree.findall(addnodes.desc_addname):
        used = re.sub(r"^keras_explainable\.", "ke.", node.astext())
        node[:] = [nodes.Text(used)]


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
    app.add_directive("metrics", Metrics)
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", read_page)
    app.connect("html-page-context", link_source)
    app.connect("autodoc-process-docstring", change_docstring, priority=400)
    app.connect("autodoc-process-signature", sign_class)
    app.connect("doctree-read", name_as_used)
    app.connect("missing-reference", resolve)
