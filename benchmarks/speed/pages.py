"""Tables in Markdown, the parts of pages that scripts write, and the plot."""

import math

from speed import cases
from speed import startup
from speed import timing
from speed import units

DOCS = timing.ROOT / "docs"
PAGE, NUMBERS = DOCS / "speed.md", DOCS / "speed.json"
PLOT = DOCS / "images" / "speed_units.png"
README = timing.ROOT / "README.md"
# Rows of the table in the README, and the case that each is about.
README_ROWS = (
    ("Grad-CAM, one class", "gradcam, one unit"),
    ("Grad-CAM, 1000 classes", "gradcam, 1000 units"),
    ("Gradients, one class", "gradients, one unit"),
    ("Integrated gradients, one class, 50 steps", "integrated_gradients, one unit, 50 steps"),
    ("`ke.gradcam` of one image, second call", "ke.gradcam of one image, second call"),
)


def table(head, rows, left=1):
    """Write a table in Markdown, whose first columns are aligned to the left."""
    aligned = ["---"] * left + ["---:"] * (len(head) - left)
    lines = [head, aligned, *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def number(value):
    """Write a ratio."""
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def failed(found):
    """Say how something failed, in a cell of a table."""
    return f"fails: {found['error']}".replace("|", "\\|")


CAMS, OTHERS, CALLS = (
    "Class activation maps, one unit",
    "Gradients, LRP and meta methods, one unit",
    "Whole calls",
)
# Headings of cases by what is in their names, which is left out below them.
HEADINGS = {
    ", 1000 units": "Class activation maps, 1000 units",
    ", 80 units, 16×16×2048 activations": "Class activation maps, 80 units, 16×16×2048 activations",
    ", transformer": "Transformers, one unit",
}


def heading_of(name):
    """Return the heading that a case stands below."""
    if name.startswith("ke."):
        return CALLS
    found = [heading for part, heading in HEADINGS.items() if part in name]
    return found[0] if found else CAMS if name.split(",")[0] in units.METHODS else OTHERS


def case_row(name, found, shown):
    """Return the cells of a case, by the name that is shown."""
    case, name = cases.CASES[name], shown
    if "error" in found:
        return [name, failed(found), *[""] * 5]
    ratio, memory = number(found["ratio"]), f"{found['memory'] / 1e9:.2f} GB"
    if case.bound and found["ratio"] > case.bound:
        ratio = f"**{ratio}**"
    if case.memory and found["memory"] > case.memory * 1e9:
        memory = f"**{memory}**"
    return [
        name,
        ratio,
        f"{number(found['low'])} to {number(found['high'])}",
        f"{case.bound:g}" if case.bound else "",
        memory + (f" (≤ {case.memory:g})" if case.memory else ""),
        f"{found['images'] / found['reference']:.1f}",
        f"{found['reference'] / found['measured']:.1%}",
    ]


def case_table(found):
    """Write the tables of cases, one for each heading."""
    head = ["Case", "Times", "Quartiles", "Bound", "Peak memory", "Reference, images/s", "Share"]
    groups = {}
    for name in found:
        groups.setdefault(heading_of(name), []).append(name)
    parts = []
    for heading, names in groups.items():
        models = {name: str(cases.CASES[name].model) for name in names}
        alike = len(set(models.values())) == 1
        rows = []
        for name in names:
            shown = name if alike else f"{name}, {models[name]}"
            for part in (", one unit", *HEADINGS):
                shown = shown.replace(part, "")
            rows.append(case_row(name, found[name], shown))
        model = f"{models[names[0]]}.\n\n" if alike else ""
        parts.append(f"#### {heading}\n\n{model}{table(head, rows)}")
    return "\n".join(parts)


def units_table(found):
    """Write the table of costs by number of units."""
    rows = []
    for method, counts in found.items():
        cells = [failed(counts)] if "error" in counts else []
        cells += [number(counts[str(n)]["ratio"]) for n in units.COUNTS if str(n) in counts]
        rows.append([f"`{method}`", *cells, *[""] * (len(units.COUNTS) - len(cells))])
    return table(["Method", *(f"{n} unit{'s' * (n > 1)}" for n in units.COUNTS)], rows)


def startup_table(found):
    """Write the table of what comes before the first map, and what its largest part is."""
    parts = ("exposing", "tracing", "first", "total", "second")
    rows, largest = [], {}
    for kind, times in found.items():
        name = "`model.predict`" if kind == "predict" else f"`{kind}`"
        if "error" in times:
            rows.append([name, failed(times), *[""] * 4])
            continue
        cells = [f"{times[part]:.2f} s" for part in parts]
        rows.append([name, *([""] if kind == "predict" else cells[:1]), *cells[1:]])
        if kind != "predict":
            most = max(parts[:3], key=times.get)
            share = times[most] / times["total"]
            largest.setdefault(most, []).append(f"{share:.0%} for {name}")
    head = ["", "exposing", "tracing", "first run", "first map", "second call"]
    said = (f" The largest part is {WORDS[m]}: {', '.join(s)}." for m, s in largest.items())
    return f"{table(head, rows)}\n{startup.MODEL}.{''.join(said)}\n"


WORDS = {
    "exposing": "making the model that returns activations",
    "tracing": "tracing",
    "first": "optimising the graph and running it for the first time",
}


def precision_table(found):
    """Write the table of mixed precision and XLA: speed over float32 without XLA, and errors."""
    rows = []
    for name, methods in found.items():
        if "error" in methods:
            rows.append([name, failed(methods), *[""] * 4])
            continue
        cells = []
        for times in methods.values():
            cells.append(number(1 / times["ratio"]))
            cells += [f"{times['error']:.1e}"] if "error" in times else []
        rows.append([name, *cells])
    head = ["", "forward pass, speed", "`gradcam`, speed", "error"]
    return table([*head, "`gradients`, speed", "error"], rows)


def replicas_table(found):
    """Write the table of one and of two replicas."""
    if "error" in found:
        return f"Two replicas: {failed(found)}\n"
    rows = []
    for name, title in (("predict", "`model.predict`"), ("explain", "`ke.gradcam`")):
        one, two = found[name]
        rows.append([title, f"{one * 1e3:.1f} ms", f"{two * 1e3:.1f} ms", f"{one / two:.2f}"])
    where = (
        f"{found['device']}s, a thread each on two cores" if found["pinned"] else found["device"]
    )
    rows = table(["For each image", "one replica", "two replicas", "gain"], rows)
    # Rounds that lie on either side of 1 don't tell a difference.
    gain = "more" if found["high"] < 1 else "less" if found["low"] > 1 else "as much"
    than = "as" if gain == "as much" else "than"
    return (
        f"{rows}\nReplicas on {where}. Explaining gains {gain} from a second replica {than} "
        f"predicting does: its cost over that of predicting changes by a factor of "
        f"{found['overhead']:.2f} ({found['low']:.2f} to {found['high']:.2f} in "
        f"{found['rounds']} rounds).\n"
    )


SECTIONS = {
    "cases": ("Methods", case_table),
    "units": ("Many units", units_table),
    "startup": ("The first map", startup_table),
    "precision": ("Mixed precision and XLA", precision_table),
    "replicas": ("Two replicas", replicas_table),
}


def setting(found):
    """Say what an environment is."""
    xla = "compiled with XLA" if found["jit_compile"] else "without XLA"
    return (
        f"Device: {found['device']}; cores: {found['cores']}; TensorFlow {found['tensorflow']}, "
        f"Keras {found['keras']}; {found['dtype']}, {xla}."
    )


def render(results, image=None):
    """Write results as Markdown, with a link to the plot, if there is one."""
    parts = [setting(results["environment"]) + "\n"]
    for key, (title, write_table) in SECTIONS.items():
        if results.get(key):
            parts += [f"### {title}\n", write_table(results[key])]
            if image and key == "units":
                parts += [f"![Cost by the number of explained units, for each method]({image})\n"]
    return "\n".join(parts)


def page_text(results):
    """Write the part of the page on speed."""
    text = render(results, PLOT.relative_to(DOCS))
    return f"{text}\nAll numbers are in [{NUMBERS.name}]({NUMBERS.name}).\n"


def readme_table(results):
    """Write the table of the README."""
    rows = []
    for label, name in README_ROWS:
        found = results["cases"].get(name, {"error": ""})
        if "error" in found:
            continue
        memory = f"{found['memory'] / 1e9:.2f} GB"
        rows.append([label, cases.CASES[name].model, number(found["ratio"]), memory])
    return table(["Explanation", "Model", "Times", "Peak memory"], rows, 2)


# Of Okabe and Ito, told apart by the colour-blind too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osD^vP*"


def draw(found, path):
    """Draw costs by number of units, a panel for each group of methods.

    Args:
        found: dict from methods to dicts from counts to what was measured.
        path: of the file.
    """
    import matplotlib

    matplotlib.use("agg")  # No screen is needed.
    from matplotlib import pyplot as plt

    font = {"font.size": 14, "axes.titlesize": 15}
    with plt.rc_context(font):
        figure, panels = plt.subplots(
            1, len(units.GROUPS), figsize=(15, 5.6), sharey=True, layout="constrained"
        )
        highest = 1.0
        for axes, (title, methods) in zip(panels, units.GROUPS.items(), strict=True):
            ends = {}
            looks = zip(methods, COLOURS, MARKS, strict=False)
            for method, colour, mark in looks:
                counts = found.get(method, {"error": ""})
                if "error" in counts:
                    continue
                x = [int(count) for count in counts]
                y = [times["ratio"] for times in counts.values()]
                axes.plot(x, y, color=colour, marker=mark, markersize=8, linewidth=2, alpha=0.9)
                ends[method] = (x[-1], y[-1], colour)
                highest = max(highest, *y)
            axes.set_title(title, loc="left")
            _label_ends(axes, ends)
        for axes in panels:
            _set_axes(axes, highest)
        panels[0].set_ylabel("times a forward pass")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _label_ends(axes, ends):
    """Write the name of each line beside its end, names at the last count apart from each other."""
    last = units.COUNTS[-1]
    names = sorted((n for n in ends if ends[n][0] == last), key=lambda name: ends[name][1])
    places = apart([math.log(ends[name][1]) for name in names], 0.15)
    # Grey and dotted, so that they are no part of the lines.
    line = {"arrowstyle": "-", "linewidth": 1, "linestyle": ":", "color": "0.55", "shrinkA": 2}
    line |= {"shrinkB": 7, "relpos": (0, 0.5)}
    for name, place in zip(names, places, strict=True):
        x, y, colour = ends[name]
        axes.annotate(
            name,
            (x, y),
            (2 * x, math.exp(place)),
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops=line,
        )
    for name in ends.keys() - names:
        x, y, colour = ends[name]
        axes.annotate(name, (x, y), (9, 0), textcoords="offset points", color=colour, va="center")


def apart(places, least):
    """Move sorted places upwards, as little as it takes for them to be `least` apart."""
    moved = []
    for place in places:
        moved.append(place if not moved else max(place, moved[-1] + least))
    return moved


def _set_axes(axes, highest):
    axes.set(xscale="log", yscale="log", xlim=(0.8, 60_000), ylim=(0.85, 1.4 * highest + 0.6))
    # What is right of the last count is room for names.
    axes.spines["bottom"].set_bounds(0.8, units.COUNTS[-1])
    axes.set_xlabel("explained units")
    axes.xaxis.set_label_coords(0.35, -0.1)
    axes.set_xticks(units.COUNTS, [str(count) for count in units.COUNTS])
    ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50) if tick < 1.4 * highest + 0.6]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", alpha=0.3)
    axes.hlines(ticks, 0.8, units.COUNTS[-1], color="0.69", alpha=0.3, linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
