"""No page of the documentation has a dead link, and the site shows what there is."""

import configparser
import json
import re
import unicodedata
from pathlib import Path

import pytest

import keras_explainable as ke

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *DOCS.glob("*.md"),
        *DOCS.glob("api/*.md"),
        *ROOT.glob("notebooks/*.ipynb"),
    ]
)
FENCE = re.compile(r"^ *(`{3,}).*?^ *\1 *$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
REFERENCE = "\n".join(path.read_text("utf-8") for path in DOCS.glob("api/*.md"))


def _text(path):
    """Return the Markdown of a page, without what stands in fences."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return FENCE.sub("", text)


def _anchors(path):
    """Return the names that headings can be linked by, as GitHub makes them."""
    anchors = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", _text(path), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*$]", r"\1", heading).lower()
        kept = (c for c in shown if c in " -_" or unicodedata.category(c)[0] in "LN")
        name = anchor = "".join(kept).replace(" ", "-")
        number = 0
        while anchor in anchors:
            number += 1
            anchor = f"{name}-{number}"
        anchors.add(anchor)
    return anchors


def _repository():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings["metadata"]["project_urls"].split()[2]


def _name(path):
    return path.relative_to(ROOT).as_posix()


def _dead(page):
    """Return the links to a file or a heading of the project that isn't there."""
    dead = []
    for link in LINK.findall(_text(page)):
        own = link.removeprefix(f"{_repository()}/blob/main/")
        if re.match(r"https?:|mailto:", own):
            continue
        target, _, anchor = own.partition("#")
        folder = page.parent if own == link else ROOT
        path = (folder / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_are_not_dead(page):
    assert _dead(page) == []


@pytest.mark.parametrize("page", sorted(ROOT.glob("notebooks/*.ipynb")), ids=_name)
def test_links_of_notebooks_work_where_they_are_opened_alone(page):
    links = LINK.findall(_text(page))
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    own = [link for link in links if link.startswith(f"{_repository()}/blob/main/")]
    assert own


def test_dead_links_are_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `two`\n\n## What doesn't\n\n## One two\n\n```\n# no heading\n```\n")
    assert _anchors(page) == {"one-two", "what-doesnt", "one-two-1"}
    away = f"{_repository()}/blob/main"
    page.write_text(f"[a]({away}/README.md#methods) [b]({away}/README.md#x) [c]({away}/d) [e](f)")
    assert _dead(page) == [f"{away}/README.md#x", f"{away}/d", "f"]
    text = "[a](b.md), ![p](c.png) [`d`](#e) [f [g]](h.md)"
    assert LINK.findall(text) == ["b.md", "c.png", "#e", "h.md"]


def test_every_page_is_in_the_contents():
    listed = set()
    for folder in (DOCS, DOCS / "api"):
        text = (folder / "index.md").read_text("utf-8")
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {_name(folder / f"{entry}.md") for entry in entries}
    written = {_name(path) for path in PAGES if path.is_relative_to(DOCS)}
    written |= {f"docs/notebooks/{path.stem}.md" for path in ROOT.glob("notebooks/*.ipynb")}
    assert written - {"docs/index.md"} == listed


def test_every_family_and_category_is_in_the_reference():
    families = {ke.methods.get(name).__module__.split(".")[2] for name in ke.methods.names()}
    for line in [f"methods {name}" for name in families] + ["meta"]:
        assert f".. registered:: {line}\n" in REFERENCE, line
    for category in ke.metrics.CATEGORIES:
        assert f".. registered:: metrics {category}\n" in REFERENCE, category


PACKAGES = ("callbacks", "evaluation", "features", "inspection", "layers", "metrics", "methods")
MODULES = ("diagnostics", "filters", "losses", "regularizers", "targets")


@pytest.mark.parametrize("package", [*PACKAGES, "visualization"])
def test_every_public_name_of_a_package_is_in_the_reference(package):
    module = getattr(ke, package)
    names = re.findall(r" import \w+ as (\w+)$", Path(module.__file__).read_text("utf-8"), re.M)
    public = [n for n in names if n[0] != "_" and not n.isupper() and callable(getattr(module, n))]
    assert public
    prefixes = (f"keras_explainable.{package}.", "keras_explainable.")
    for name in public:
        assert any(re.search(rf":: {re.escape(p)}{name}$", REFERENCE, re.M) for p in prefixes), name


def test_every_public_name_is_in_the_reference():
    for module in MODULES:
        assert f".. automodule:: keras_explainable.{module}\n   :members:" in REFERENCE, module
    for name in ("explain", "Explainer", "Store", "evaluate", "Evaluation", "maximize_activation"):
        assert re.search(rf":: keras_explainable\.{name}$", REFERENCE, re.M), name
