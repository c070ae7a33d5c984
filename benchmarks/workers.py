"""Measure two workers that write shards of one store against one process.

Usage: `python benchmarks/workers.py` prints a Markdown table; `--json FILE` writes the numbers too.
`--write` measures with and without `--pin`, and writes the ratios into `docs/large_data.md`.
All explain the images of `benchmarks/streaming.py`, with Grad-CAM and all units of a MobileNetV2,
into a store, as processes of this machine that are started at once. Two times are told: that of
whole processes, which import TensorFlow and build the model, and that of explaining, from the first
call that begins to the last that ends, compiling included. Ratios are those of medians.

One process takes all cores by itself, so that two workers share what it has; with `--pin`, every
process gets one core, as if it were a machine of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import marked  # noqa: E402
import streaming  # noqa: E402

PAGE = Path(__file__).parents[1] / "docs" / "large_data.md"
NUM_WORKERS = 2


def work(path, num_images, dtype, shard):
    """Explain in this process; return when explaining began and ended."""
    images, model = streaming.images(num_images), streaming.build()
    import keras_explainable as ke

    start = time.time()
    ke.gradcam(model, images, path=path, dtype=dtype, shard=shard, verbose=0)
    return start, time.time()


def run(path, num_images, dtype, shards, pin):
    """Explain in one process per shard; return the seconds of all and those of explaining."""
    command = [sys.executable, __file__, "--path", str(path), "--dtype", dtype]
    command += ["--images", str(num_images)]
    start, workers = time.perf_counter(), []
    cores = sorted(os.sched_getaffinity(0)) if pin else []
    for number, shard in enumerate(shards):
        own = ["--shard", *map(str, shard)] if shard else []
        own += ["--core", str(cores[number])] if pin else []
        worker = subprocess.Popen([*command, *own], stdout=subprocess.PIPE, text=True)
        workers.append(worker)
    outputs = [worker.communicate()[0] for worker in workers]
    seconds = time.perf_counter() - start
    if any(worker.returncode for worker in workers):
        sys.exit("A worker failed.")
    begins, ends = zip(*(map(float, output.split()[-2:]) for output in outputs), strict=True)
    return {"process": seconds, "explaining": max(ends) - min(begins)}


def measure(arguments, folder, pin):
    """Return the seconds of each turn of one process and of the workers, and compare the bits."""
    shards = [(index, NUM_WORKERS) for index in range(NUM_WORKERS)]
    found = {"one process": [], f"{NUM_WORKERS} workers": []}
    same = True
    for turn in range(arguments.turns):
        paths = [Path(folder, f"{kind}{turn}.h5") for kind in ("one", "workers")]
        for name, path, written in zip(found, paths, ([None], shards), strict=True):
            seconds = run(path, arguments.images, arguments.dtype, written, pin)
            found[name].append(seconds)
        same &= streaming.same(*paths)
        for path in Path(folder).iterdir():
            path.unlink()
    return {"images": arguments.images, "pinned": pin, "same": same, "seconds": found}


def table(measured):
    """Return the Markdown table of what was measured."""
    rows = ["| | whole processes | ratio | explaining | ratio |", "|---|---|---|---|---|"]
    reference = {}
    for name, turns in measured["seconds"].items():
        cells = []
        for kind in ("process", "explaining"):
            seconds = [turn[kind] for turn in turns]
            median = statistics.median(seconds)
            ratio = median / reference.setdefault(kind, median)
            cells += [f"{median:.1f} s ({min(seconds):.1f}–{max(seconds):.1f})", f"{ratio:.2f}"]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def render(measured):
    """Write the ratios as Markdown, a row for each way to give cores to processes."""
    lines = ["| Cores | Whole processes | Explaining |", "| --- | ---: | ---: |"]
    for found in measured:
        one, workers = (
            [statistics.median(turn[kind] for turn in turns) for kind in ("process", "explaining")]
            for turns in found["seconds"].values()
        )
        ratios = [f"{w / o:.2f}" for w, o in zip(workers, one, strict=True)]
        name = "one per process (`--pin`)" if found["pinned"] else "shared"
        lines.append(f"| {name} | {' | '.join(ratios)} |")
    return "\n".join(lines) + "\n"


def main():
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000, help="images (default: 5000)")
    parser.add_argument("--dtype", default="float16", help="type of the maps (default: float16)")
    parser.add_argument("--turns", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--pin", action="store_true", help="give each process one core (Linux)")
    parser.add_argument("--json", type=Path, help="file that the numbers are written to")
    parser.add_argument("--write", action="store_true", help="write into the documentation")
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shard", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    if arguments.path:
        print(*work(arguments.path, arguments.images, arguments.dtype, arguments.shard))
        return
    every = []
    for pin in (False, True) if arguments.write else (arguments.pin,):
        with tempfile.TemporaryDirectory() as folder:
            every.append(measure(arguments, folder, pin))
        cores = "a core each" if pin else f"{os.cpu_count()} cores"
        print(f"{arguments.images} images, medians of {arguments.turns} turns (range), {cores}:\n")
        print(table(every[-1]))
        print(f"\nThe same bits: {'yes' if every[-1]['same'] else 'no'}.\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(every, indent=2), "utf-8")
    if arguments.write:
        marked.write(PAGE, "workers", render(every))


if __name__ == "__main__":
    main()
