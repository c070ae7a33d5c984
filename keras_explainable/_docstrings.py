"""Docstrings by their sections, of which those of functions made of others are put together."""

import inspect
import re
import textwrap

SECTIONS = ("Args", "Returns", "Raises", "References", "Example")


def sections(text):
    """Return the sections of a docstring by their titles, what comes before them by none."""
    begun, *rest = re.split(
        rf"^({'|'.join(SECTIONS)}):\n", inspect.cleandoc(text or ""), flags=re.MULTILINE
    )
    found = dict(zip(rest[::2], rest[1::2], strict=True))
    return {"": begun.strip()} | {title: found.get(title, "").rstrip() for title in SECTIONS}


def joined(parts):
    """Return the docstring that has these sections, those that are empty left out."""
    texts = (f"{title}:\n{parts[title]}" for title in SECTIONS if parts.get(title))
    return "\n\n".join(filter(None, [parts.get("", ""), *texts]))


def entries(section):
    """Return the entries of a section by what they are about."""
    found = re.split(r"^(?=    \S)", section, flags=re.MULTILINE)
    return {e.partition(":")[0].strip(): e.rstrip() for e in found if e.strip()}


def entry(name, text):
    """Return an entry of a section, in lines of 100 characters at most."""
    return filled(f"{name}: {text}", "    ")


def filled(text, further=""):
    """Return an indented text of a section, its lines after the first one further still."""
    indents = {"initial_indent": " " * 4, "subsequent_indent": " " * 4 + further}
    return textwrap.fill(text, 100, break_on_hyphens=False, **indents)
