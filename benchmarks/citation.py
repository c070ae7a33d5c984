"""Write the references of `CITATION.cff`, which are those of the methods in `docs/references.md`.

Usage: `make cite` (or `python benchmarks/citation.py`). An entry that is there stays as it is,
with what it tells besides, such as given names. One that is missing is added with what the page
says of it, and one that the page doesn't list is dropped.
"""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
JOURNALS = ("IEEE TIP", "IEEE TPAMI", "IJCV", "PLOS ONE")
LINE = 100


def listed(page):
    """Return authors, title and the rest of each reference of a page, before those of metrics."""
    methods = page.split("\n## Metrics\n")[0]
    return re.findall(r'^- (.+?), "(.+?)",\s+(.+(?:\n  .+)*)', methods, re.MULTILINE)


def written(page, citation):
    """Return the text of `CITATION.cff`, `citation` until now, with the references of a page."""
    head, _, tail = citation.partition("\nreferences:\n")
    entries = re.split(r"^(?=  - )", tail, flags=re.MULTILINE)[1:]
    known = {_title(entry): entry for entry in entries}
    return f"{head}\nreferences:\n" + "".join(
        known.get(title) or entry(authors, title, rest) for authors, title, rest in listed(page)
    )


def entry(authors, title, rest):
    """Return the lines of a reference, of what the page says of it."""
    venue, year = re.match(r"(?:(.+?) )??((?:19|20)\d\d)\b", rest).groups()
    is_journal = venue in JOURNALS
    kind = "generic" if not venue else "article" if is_journal else "conference-paper"
    link = re.search(r"\]\((\S+)\)", rest)
    lines = [f"  - type: {kind}", *_folded(title), "    authors:"]
    if authors.endswith(" et al."):
        names = [authors.removesuffix(" et al.")]
        others = ["      - name: others"]
    else:
        names, others = authors.split(", "), []
    lines += [f"      - family-names: {name}" for name in names] + others
    lines.append(f"    year: {year}")
    if is_journal:
        lines.append(f"    journal: {venue}")
    elif venue:
        lines += ["    conference:", f"      name: {venue} {year}"]
    if link:
        lines.append(f"    {_address(link[1])}")
    return "\n".join(lines) + "\n"


def _address(link):
    if link.startswith("https://doi.org/"):
        return "doi: " + link.removeprefix("https://doi.org/")
    return ("repository-code: " if link.startswith("https://github.com/") else "url: ") + link


def _folded(title):
    """Return the lines of a title, folded where it is long."""
    shown = f'"{title}"' if ":" in title else title
    if len(line := f"    title: {shown}") <= LINE:
        return [line]
    indent = " " * 6
    wrapped = textwrap.wrap(
        title,
        LINE,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return ["    title: >-", *wrapped]


def _title(entry):
    text = re.search(r"^    title: (.+?)\n    authors:", entry, re.DOTALL | re.MULTILINE)[1]
    return " ".join(text.removeprefix(">-").split()).strip('"')


def main():
    """Write the file."""
    path = ROOT / "CITATION.cff"
    page = (ROOT / "docs" / "references.md").read_text("utf-8")
    path.write_text(written(page, path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
