"""The tables of the documentation list what the package has."""

import inspect
import re
from pathlib import Path

import pytest

import keras_explainable as ke
from keras_explainable import _docstrings
from tests.conftest import script

ROOT = Path(__file__).parents[2]
METHODS = (ROOT / "docs" / "methods.md").read_text("utf-8")
METRICS = (ROOT / "docs" / "metrics.md").read_text("utf-8")
FEATURES = (ROOT / "docs" / "features.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")


def _table(text, heading):
    """Return the first table below a heading, a dictionary of cells for each of its rows."""
    below = text.split(f"\n{heading}\n" if heading[0] == "#" else heading, 1)[1]
    lines = re.search(r"^\|.*\n\|[ -:|]+\n((?:\|.*\n)+)", below, re.MULTILINE)
    head, rows = lines[0].splitlines()[0], lines[1].splitlines()
    names, *cells = ([cell.strip() for cell in row.split("|")[1:-1]] for row in (head, *rows))
    return [dict(zip(names, row, strict=True)) for row in cells]


def _section(text, heading):
    """Return what stands between a heading and the next one of its level or above."""
    level = len(heading.split()[0])
    below = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{2,{level}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def _in_code_style(text):
    return re.findall(r"(?<!\$)`([^`]+)`(?!\$)", text)


def _names(rows):
    return sorted(row["Name"].strip("`") for row in rows)


def _options(function):
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def test_table_of_methods_lists_the_registered_ones():
    assert _names(_table(METHODS, "## Equations")) == list(ke.methods.names())


def test_table_of_meta_methods_lists_the_registered_ones():
    assert _names(_table(METHODS, "## Meta methods")) == list(ke.methods.meta_names())


def test_table_of_methods_states_the_default_postprocessing():
    stated = {r["Name"]: r["Default postprocessing"] for r in _table(METHODS, "### Axioms")}
    registered = {
        f"`{name}`": f"`{ke.methods.registration(name).postprocessing}`"
        for name in ke.methods.names()
    }
    assert stated == registered


def test_table_of_methods_states_the_axioms():
    rows = _table(METHODS, "### Axioms")
    stated = {row["Name"].strip("`"): _in_code_style(row["Axioms"]) for row in rows}
    assert stated == {
        name: sorted(ke.methods.registration(name).axioms) for name in ke.methods.names()
    }


def test_every_axiom_is_told_below_the_table():
    told = re.findall(r"^- `(\w+)`: ", _section(METHODS, "### Axioms"), re.MULTILINE)
    declared = {
        axiom for name in ke.methods.names() for axiom in ke.methods.registration(name).axioms
    }
    assert told == sorted(declared)


def test_readme_names_methods_that_are_registered():
    named = {
        name
        for row in _table(README, "## Methods")
        for cell in row.values()
        for name in _in_code_style(cell)
        if name.isidentifier()
    }
    assert named
    assert named <= {*ke.methods.names(), *ke.methods.meta_names()}


def test_table_of_filters_lists_all_of_them():
    assert _names(_table(METHODS, "## Filters")) == sorted(ke.filters.FILTERS)


@pytest.mark.parametrize("name", ke.methods.names())
def test_every_method_has_a_section_that_tells_its_options(name):
    section = _section(METHODS, f"## `{name}`")
    if "Its options are those of `minmaxcam`" in section:
        section += _section(METHODS, "## `minmaxcam`")
    options = [parameter.name for parameter in ke.methods.registration(name).options]
    for option in options:
        assert f"`{option}`" in section, option
    assert ("no options" in section) == (not options)


@pytest.mark.parametrize("name", [*ke.methods.names(), *ke.methods.meta_names()])
def test_every_method_has_a_picture_below_its_heading(name):
    heading = f"### `{name}`" if name in ke.methods.meta_names() else f"## `{name}`"
    below = METHODS.split(f"\n{heading}\n", 1)[1].lstrip()
    assert re.match(rf"!\[.+\]\(images/methods/{name}\.png\)\n", below)


def test_pictures_of_methods_load_fast():
    images = ROOT / "docs" / "images"
    pictures = [images / "digits.png", images / "methods_digits.png", *images.glob("methods/*.png")]
    assert len(pictures) == 2 + len(ke.methods.names()) + len(ke.methods.meta_names())
    assert [path.name for path in pictures if path.stat().st_size > 300_000] == []


@pytest.mark.parametrize("name", ke.methods.meta_names())
def test_every_meta_method_has_a_section_that_tells_its_options(name):
    section = _section(_section(METHODS, "## Meta methods"), f"### `{name}`")
    for option in _options(ke.methods.get_meta(name)):
        assert f"`{option}`" in section, option


def test_page_of_features_tells_all_arguments_and_their_defaults():
    stated = {}
    for row in _table(FEATURES, "## Options"):
        names, defaults = _in_code_style(row["Option"]), row["Default"].replace("`", "").split(", ")
        stated |= dict(zip(names, defaults if len(defaults) > 1 else defaults * 9, strict=False))
    told = _in_code_style(
        " ".join(r["Arguments"] for r in _table(FEATURES, "## What is maximised"))
    )
    parameters = inspect.signature(ke.maximize_activation).parameters
    defaults = {name: _written(p.default) for name, p in parameters.items() if name in stated}
    assert defaults == stated
    others = set(parameters) - set(stated) - {"model", "value_range", "output"}
    assert others == {name.split("=")[0] for name in told} & set(parameters)


def _written(default):
    """Return a default as it stands in a table."""
    if isinstance(default, str):
        return f'"{default}"'
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    return f"{default:g}" if is_number else str(default)


def test_tables_of_uses_and_of_costs_list_all_methods():
    speed = (ROOT / "docs" / "speed.md").read_text("utf-8")
    costs = [
        row["Name"].strip("`")
        for heading in ("## Cost of each method", "Meta methods, of a method that takes $`M`$:")
        for row in _table(speed, heading)
    ]
    uses = [row["Name"] for row in _table(METHODS, "The same in a table, by family: ")]
    assert uses == [f"[`{name}`](#{name})" for name in costs]
    assert sorted(costs) == sorted([*ke.methods.names(), *ke.methods.meta_names()])


# Methods whose magnitudes are shown by default.
MAGNITUDES = (
    "smooth_taylor",
    "input_x_gradient",
    "integrated_gradients",
    "gnl_integrated_gradients",
)


def test_page_of_limits_has_the_numbers_of_the_sanity_check():
    sanity = (ROOT / "docs" / "sanity.md").read_text("utf-8")
    limits = (ROOT / "docs" / "limits.md").read_text("utf-8")
    columns = {"Head random": "digits", "All random": "conv 1"}
    columns |= dict.fromkeys(("Other digit", "Other scene"))
    measured = {}
    for heading in ("### Values", "### Magnitudes"):
        for row in _table(sanity, heading):
            name = row["Method"].strip("`")
            if heading == "### Values" or name.split("(")[0] in MAGNITUDES:
                measured[name] = [row[there or here] for here, there in columns.items()]
    stated = {
        name: [row[column] for column in columns]
        for row in _table(limits, "## A map that looks right may not depend on the model")
        for name in _in_code_style(row["Method"]) or [row["Method"]]
    }
    assert stated == measured


def test_page_of_references_has_those_of_the_docstrings():
    page = (ROOT / "docs" / "references.md").read_text("utf-8")
    functions = [ke.methods.get(name) for name in ke.methods.names()]
    functions += [ke.methods.get_meta(name) for name in ke.methods.meta_names()]
    functions += [ke.metrics.registration(name).function for name in ke.metrics.names()]
    cited = set()
    for function in functions:
        section = inspect.getdoc(function).partition("References:\n")[2].partition("\n\n")[0]
        entries = re.split(r"^ *- ", section, flags=re.MULTILINE)[1:]
        cited |= {" ".join(entry.split()) for entry in entries}
    titles = {match[1].rstrip(",.") for entry in cited if (match := re.search('"(.+?)"', entry))}
    assert len(titles) > 50
    assert sorted(title for title in titles if title not in page) == []


@pytest.mark.parametrize("name", ke.metrics.names())
def test_docstring_of_a_metric_tells_its_arguments_in_one_list(name):
    function = getattr(ke.metrics, name)
    sections = _docstrings.sections(function.__doc__)
    assert list(_docstrings.entries(sections["Args"])) == list(
        inspect.signature(function).parameters
    )
    assert function.__doc__.count("Args:") == 1
    assert sections["Returns"].startswith("    float32 values")
    # What the library passes between its functions is nothing for users.
    assert not re.search(r"MaskedScores|ExplainedInputs|PerturbedExplanations", function.__doc__)


# Those of the Citation File Format 1.2.0 that occur here.
TYPES = ("article", "conference-paper", "generic", "software")


def test_citation_file_cites_the_references_of_the_methods():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type", "license"} <= set(citation)
    page = (ROOT / "docs" / "references.md").read_text("utf-8")
    listed = page.split("\n## Metrics\n")[0]
    stated = {}
    for authors, title, rest in script("citation").listed(page):
        links = re.findall(r"\]\((\S+)\)", rest)
        stated[title] = authors, int(re.search(r"\b(19|20)\d\d\b", rest)[0]), links
    assert [r["title"] for r in citation["references"]] == list(stated)
    for reference in citation["references"]:
        authors, year, links = stated[reference["title"]]
        assert reference["type"] in TYPES
        assert reference["year"] == year
        parts = ("name", "name-particle", "family-names")
        cited = [" ".join(a[part] for part in parts if part in a) for a in reference["authors"]]
        if authors.endswith(" et al."):
            assert cited[0] == authors.removesuffix(" et al.")
            assert len(cited) > 1
        else:
            assert cited == authors.split(", ")
        address = reference.get("url") or reference.get("repository-code")
        if "doi" in reference:
            address = f"https://doi.org/{reference['doi']}"
        assert ([address] if address else []) == links
        venue = reference.get("conference", {}).get("name") or reference.get("journal")
        assert venue is None or venue in listed


def test_citation_file_is_what_make_cite_writes():
    page = (ROOT / "docs" / "references.md").read_text("utf-8")
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert script("citation").written(page, citation) == citation


def test_make_cite_adds_what_is_missing_and_drops_what_is_not_listed():
    yaml = pytest.importorskip("yaml")
    page = (
        "# References\n\n## Methods\n\n"
        '- Ada, van Bo, "Maps: One", ICML 2017. [arXiv 1](https://arxiv.org/abs/1).\n'
        f'- Cy et al., "{"Long " * 25}Maps", IEEE TIP 2021 (third).\n  [10.1/2](https://doi.org/10.1/2).\n'
        '- Di, "A Tool", 2020, without a paper. [tool](https://github.com/di/tool).\n'
        '- Eve, "Kept", 2019.\n\n## Metrics\n\n- Flo, "Of Metrics", 2018.\n'
    )
    kept = (
        "  - type: generic\n    title: Kept\n    authors:\n      - family-names: Eve\n"
        "        given-names: E.\n    year: 2019\n"
    )
    before = f"title: x\nreferences:\n{kept}{kept.replace('Kept', 'Dropped')}"
    after = script("citation").written(page, before)
    assert after.startswith("title: x\n")
    assert max(map(len, after.splitlines())) <= 100
    assert yaml.safe_load(after)["references"] == [
        {
            "type": "conference-paper",
            "title": "Maps: One",
            "authors": [{"family-names": "Ada"}, {"family-names": "van Bo"}],
            "year": 2017,
            "conference": {"name": "ICML 2017"},
            "url": "https://arxiv.org/abs/1",
        },
        {
            "type": "article",
            "title": "Long " * 25 + "Maps",
            "authors": [{"family-names": "Cy"}, {"name": "others"}],
            "year": 2021,
            "journal": "IEEE TIP",
            "doi": "10.1/2",
        },
        {
            "type": "generic",
            "title": "A Tool",
            "authors": [{"family-names": "Di"}],
            "year": 2020,
            "repository-code": "https://github.com/di/tool",
        },
        yaml.safe_load(kept)[0],
    ]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_parts_of_pages_are_written_by_scripts_that_are_there(page):
    text = page.read_text("utf-8")
    for name in re.findall(r"^<!-- Written by benchmarks/(\w+)\.py\. -->$", text, re.MULTILINE):
        script(name)
        written = (ROOT / "benchmarks" / f"{name}.py").read_text("utf-8")
        assert "marked.write(" in written
        part = text.split(f"benchmarks/{name}.py. -->\n")[1]
        assert "<!-- End. -->\n" in part.split("<!-- Written by")[0]


def test_numbers_of_training_have_the_form_of_their_scripts():
    text = (ROOT / "docs" / "training.md").read_text("utf-8")
    costs, penalties = script("training"), script("penalties")
    rows = costs.render({name: {"ratio": 1.0} for name in costs.CASES}).splitlines()
    assert all(row.rpartition("|")[0].rpartition("|")[0] in text for row in rows)
    values = {(name, weight): [[0.0], [1.0]] for name, _, weight in penalties.ROWS}
    rows = penalties.table(values).splitlines()
    assert all(row.split(" | ")[0] in text for row in rows)
    assert {train for _, train, _ in penalties.ROWS} <= set(penalties.example())


# The sections of the page of metrics, and what each has a table of.
SECTIONS = {
    "Faithfulness by masking": "faithfulness",
    "Faithfulness by curves": "faithfulness",
    "Localisation": "localization",
    "Robustness": "robustness",
    "Complexity": "complexity",
    "Randomisation": "randomization",
    "Fixations": "fixations",
}


def test_tables_of_metrics_list_the_registered_ones():
    for category in ke.metrics.CATEGORIES:
        rows = [
            row
            for heading, filed in SECTIONS.items()
            for row in (_table(METRICS, f"## {heading}") if filed == category else [])
        ]
        assert _names(rows) == list(ke.metrics.names(category))


@pytest.mark.parametrize("heading", SECTIONS)
def test_tables_of_metrics_state_what_is_registered(heading):
    words = {True: "higher", False: "lower", None: "neither"}
    for row in _table(METRICS, f"## {heading}"):
        known = ke.metrics.registration(row["Name"].strip("`"))
        assert row["Better"] == words[known.higher_is_better], known.name
        assert row["Needs"] == (", ".join(known.needs) or "–"), known.name
