"""The parts of pages that scripts write, each between a line that names the script and an end."""

END = "<!-- End. -->\n"


def markers(script):
    """Return the lines between which a script writes."""
    return f"<!-- Written by benchmarks/{script}.py. -->\n", END


def fill(page, script, text):
    """Return a page with a text in the part of a script, in place of what stands there."""
    begin, end = markers(script)
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"


def write(path, script, text):
    """Fill the part of a script in a file."""
    path.write_text(fill(path.read_text("utf-8"), script, text), "utf-8")
