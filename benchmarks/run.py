"""Measure what explanations cost, in multiples of the forward pass of the explained model.

Usage: `make bench` (or `python benchmarks/run.py`) measures, prints Markdown tables, and writes the
numbers to `build/speed.json` (`--json FILE` says where) and a plot of the cost by number of units
beside. On two processor cores it takes some 45 minutes, or with `--seconds` for each case as many
as it says. `--write` puts all that into the documentation: the tables into `docs/speed.md` and
`README.md`, between the markers there, `docs/speed.json` and `docs/images/speed_units.png`.
`--tables` writes these, but for the numbers, from `docs/speed.json`, and measures nothing.

It runs unchanged on a GPU, where the model and its inputs are on that. `--dtype` sets the policy of
the models, `--jit-compile` compiles with XLA. `--only TEXT` measures the cases whose name holds it.
What isn't measured keeps the numbers that the file has, if they are of the same environment.

Every case runs in a process of its own, where forward passes and explanations take turns; the ratio
is the median of those within a turn. Memory is the peak of the process, TensorFlow and weights
included, or on a GPU that of the device. A case that fails says so in its row.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import marked
from speed import cases
from speed import pages
from speed import precision
from speed import replicas
from speed import startup
from speed import timing
from speed import units

DTYPES = ("float32", "mixed_float16", "mixed_bfloat16")
STARTS = 3


def jobs():
    """Return pairs of a section and a name, in the order in which they are measured."""
    names = {
        "cases": cases.CASES,
        "units": units.METHODS,
        "startup": startup.KINDS,
        "precision": precision.VARIANTS,
        "replicas": ("one against two",),
    }
    return [(section, name) for section, listed in names.items() for name in listed]


def measure_here(section, name, options):
    """Measure in this process, and return what is found."""
    settings = options.dtype, options.jit_compile
    if section == "environment":
        return timing.environment(*settings)
    if section == "units":
        return units.measure(name, options.seconds / 2, *settings)
    if section == "startup":
        return startup.measure(name, *settings)
    if section == "precision":
        return precision.measure(name, options.seconds)
    if section == "replicas":
        return replicas.measure(int(name), options.seconds, *settings)
    return cases.measure(name, options.seconds, *settings)


def measure(section, name, options):
    """Measure in processes of their own, and return what is found."""

    def run(name):
        settings = ["--seconds", options.seconds, "--dtype", options.dtype]
        settings += ["--jit-compile"] * options.jit_compile
        return timing.in_process(__file__, "--case", section, name, *settings)

    if section == "startup":
        return medians([run(name) for _ in range(STARTS)])
    if section == "replicas":
        rounds = [[run(number) for number in (1, 2)] for _ in range(replicas.ROUNDS)]
        failures = [found for pair in rounds for found in pair if "error" in found]
        return failures[0] if failures else replicas.combine(rounds)
    return run(name)


def medians(found):
    """Return the median of each number of several dicts, or the first one with an error."""
    failures = [one for one in found if "error" in one]
    if failures:
        return failures[0]
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def read(path):
    """Return the results in a file, or none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def update(results, section, name, found):
    """Put what was found into results."""
    if section == "replicas":
        results[section] = found
    else:
        results.setdefault(section, {})[name] = found


def ordered(results):
    """Return results in the order of `jobs`, without what is no longer measured."""
    kept = {"environment": results["environment"]}
    for section, name in jobs():
        if section == "replicas":
            kept |= {section: results[section]} if section in results else {}
        elif name in results.get(section, {}):
            kept.setdefault(section, {})[name] = results[section][name]
    return kept | {key: results[key] for key in ("peers",) if key in results}


def run(options, path):
    """Measure what is asked for, note it in a file as it is found, and return all results."""
    wanted = [job for job in jobs() if options.only is None or options.only in ", ".join(job)]
    if not wanted:
        sys.exit(f"No case has {options.only!r} in its name.")
    results, now = read(path), measure("environment", "all", options)
    if results.get("environment", now) != now:
        if options.only and options.write:
            sys.exit(
                f"{path.name} has numbers of another environment: measure all, without --only."
            )
        results = {key: results[key] for key in ("peers",) if key in results}
    results["environment"] = now
    for turn, (section, name) in enumerate(wanted, 1):
        print(f"{turn} of {len(wanted)}: {section}, {name}", file=sys.stderr, flush=True)
        update(results, section, name, measure(section, name, options))
        results = ordered(results)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return results


def write_docs(results):
    """Write results into the documentation."""
    if results.get("units"):
        pages.draw(results["units"], pages.PLOT)
    marked.write(pages.PAGE, "run", pages.page_text(results))
    marked.write(pages.README, "run", pages.readme_table(results))


def main(arguments=None):
    """Measure the cases asked for, print their tables, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="time per case (default: 5)")
    parser.add_argument("--only", help="measure what has this in its name")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="policy of the models")
    parser.add_argument("--jit-compile", action="store_true", help="compile with XLA")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--write", action="store_true", help="write into the documentation")
    parser.add_argument("--tables", action="store_true", help="write that from the last numbers")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        print(json.dumps(measure_here(*options.case, options)))
        return
    path = options.json or timing.ROOT / "build" / "speed.json"
    path = pages.NUMBERS if options.write or options.tables else path
    results = read(path) if options.tables else run(options, path)
    print(pages.render(results))
    if options.write or options.tables:
        write_docs(results)
    elif results.get("units"):
        pages.draw(results["units"], path.with_suffix(".png"))


if __name__ == "__main__":
    main()
