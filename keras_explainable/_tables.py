"""Tables of what there is, as text and as Markdown."""

import inspect
import re
import textwrap

_WIDTH = 100


def aligned(lines):
    """Write lines of cells as text, the cells of a column below each other.

    Args:
        lines: list of lists of strings, the headings first.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in ruled
    )


def markdown(lines):
    """Write lines of cells as Markdown.

    Args:
        lines: list of lists of strings, the headings first.
    """
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    head, *rows = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "| --- " * len(lines[0]) + "|", *rows]) + "\n"


def summary(function):
    """Return the first sentence of the docstring of a function, without markup and full stop."""
    text = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    text = re.sub(r":[\w:]+:(?=`)|[`*]", "", text)
    return re.split(r"\.(?: |$)", text, maxsplit=1)[0]


class Listing:
    """Rows that tell what there is: they print as a table, in a terminal and in a notebook.

    Args:
        rows: list of named tuples of strings: a name, what group it belongs to, a summary, and
            whatever else there is to say of it, by its name, empty for nothing.

    Attributes:
        rows: that list.
    """

    def __init__(self, rows):
        self.rows = list(rows)

    def __len__(self):
        """Count the rows."""
        return len(self.rows)

    def __iter__(self):
        """Go through the rows."""
        return iter(self.rows)

    def __str__(self):
        """Return the rows below their groups, in lines of 100 characters at most."""
        indent = max((len(row[0]) for row in self.rows), default=0) + 4
        lines, groups = [], dict.fromkeys(row[1] for row in self.rows)
        for group in groups:
            lines += [*[""] * bool(lines), group]
            for name, _, said, *others in (row for row in self.rows if row[1] == group):
                notes = zip(self.rows[0]._fields[3:], others, strict=True)
                # What goes without saying is left out, as that attention methods need attention.
                notes = "; ".join(f"{k}: {value}" for k, value in notes if value not in ("", group))
                broken = textwrap.wrap(said, _WIDTH - indent) or [""]
                if notes and len(broken[-1]) + len(notes) + 3 <= _WIDTH - indent:
                    broken[-1] += f" ({notes})"
                elif notes:
                    broken.append(f"({notes})")
                lines.append(f"  {name}".ljust(indent) + broken[0])
                lines += [" " * indent + line for line in broken[1:]]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_markdown_(self):
        if not self.rows:
            return ""
        rows = ([f"`{name}`", *others] for name, *others in self.rows)
        return markdown([list(self.rows[0]._fields), *rows])
