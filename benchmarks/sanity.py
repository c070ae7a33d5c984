"""Check that maps depend on what a model has learnt, by randomising its weights layer by layer.

Usage: `python benchmarks/sanity.py` measures, prints Markdown tables, writes them into
`docs/sanity.md` between the markers there, and draws `docs/images/sanity.png`; `--json FILE` writes
the numbers too. On two processor cores it takes about six minutes, one of which is training.
`--plot` draws from the tables of the page, and measures nothing.

The cascading randomisation of Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018
(arXiv 1810.03292), on the classifier of handwritten digits that `make demo` trains:

1. The classifier is trained as there, with its seed. `NUM_SCENES` scenes of digits that it has
   never seen are drawn, and every digit that it detects in them is explained, by every registered
   method and some meta methods, with default options. Maps are raw: not filtered, and not resized,
   but by methods that do so themselves. Methods that take `detections` get those of the trained
   classifier at every step, so that what is compared are maps, not what is detected.
2. Weights are randomised in blocks from the output to the input, cumulatively, see `cascade`: first
   the Dense layer, then each convolution with the batch normalisation that follows it. A layer gets
   the weights that a new layer of its configuration starts with: Glorot uniform kernels and zero
   biases; for a batch normalisation a scale of one, an offset of zero, a moving mean of zero and a
   moving variance of one. All new weights are drawn at once, from a fixed seed, before the first
   step, so that those of a layer don't depend on the step.
3. After each step the same digits are explained again, and each map is compared with the one of the
   trained classifier by Spearman's rank correlation over positions, of its values and of their
   magnitudes. The mean over maps and over `SEEDS` is reported. The correlation with a constant map,
   which has no ranks, is taken as 0; such maps are counted.

Two columns tell what to compare with: the correlation between the maps of different digits of the
same scene, and between maps of different scenes, both of the trained classifier. A row of edges
(the magnitude of the Sobel gradient of the image) tells what a map gets that depends on the image
alone: 1 at every step.
"""

import argparse
import json
import re
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import keras
import marked
import matplotlib
import numpy as np
import tensorflow as tf

import keras_explainable as ke
from keras_explainable import demo
from keras_explainable.metrics.randomization.similarities import centred_ranks
from keras_explainable.metrics.randomization.similarities import correlations
from keras_explainable.metrics.randomization.weights import blocks

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "sanity.md"
PLOT = ROOT / "docs" / "images" / "sanity.png"

NUM_SCENES = 32
SEEDS = range(5)
STEPS = ("digits", "conv 5", "conv 4", "conv 3", "conv 2", "conv 1")
BASELINES = ("Other digit", "Other scene")
FAMILIES = ("cam", "gradient", "meta", "baseline")
EDGES = "edges of the image"
GAP = 0.4
COLORS = "magma_r"
LUMINANCE = (0.3, 0.59, 0.11)
MIDDLE = {"ha": "center", "va": "center", "fontsize": 10.5}
KINDS = {"signed": "Values", "magnitude": "Magnitudes"}


class Result(NamedTuple):
    """What is measured of a method. Each dict has the keys of `KINDS`.

    Attributes:
        family: one of `FAMILIES`.
        steps: dict of arrays `(seeds, steps)`, mean correlation with the map of the trained model.
        baselines: dict of pairs, mean correlation of the maps of different units of a scene, and of
            those of different scenes.
        num_constant: integer, number of maps that are constant, those of the trained model and
            those after every step and seed together.
        num_maps: integer, number of all these maps.
    """

    family: str
    steps: dict
    baselines: dict
    num_constant: int
    num_maps: int


def methods():
    """Return what is measured: a dict from the names of methods, as in code, to methods."""
    names = [
        name for name in ke.methods.names() if ke.methods.registration(name).needs != "attention"
    ]
    return {name: ke.methods.get(name) for name in names} | {
        'smooth("gradients")': ke.methods.smooth("gradients"),
        "smooth_taylor(num_samples=25)": ke.methods.smooth_taylor(num_samples=25),
        'tta("gradcam", scales=1)': ke.methods.tta("gradcam", scales=1),
    }


def cascade(model, seed=0):
    """Randomize the weights of a model in place, cumulatively, from the output to the input.

    Each layer of a block gets the weights that a new layer of its configuration starts with. The
    seeds of Keras, NumPy and Python are set.

    Args:
        model: as in `blocks`.
        seed: integer; the same seed gives the same weights.

    Yields:
        each block of layers, after it was randomised.
    """
    keras.utils.set_random_seed(seed)
    fresh = keras.models.clone_model(model)
    for block in blocks(model):
        for layer in block:
            layer.set_weights(fresh.get_layer(layer.name).get_weights())
        yield block


def measure(model, images, sources=None, seeds=SEEDS):
    """Measure how much of maps is left when the weights of their model are randomised.

    Args:
        model: functional `keras.Model`, a chain of layers, from images to probabilities. It is left
            with the weights that it came with.
        images: array `(images, height, width, channels)`, some with several detections.
        sources: dict from names to methods. Defaults to `methods()`.
        seeds: integers, one for each time that the weights are randomised.

    Returns:
        dict from names, and `EDGES`, to `Result`.

    Raises:
        ValueError: if there are no two images, or no image has two detections.
    """
    detections = model.predict(images, verbose=0) > demo.THRESHOLD
    scenes, units = np.nonzero(detections)
    if len(np.unique(scenes)) in (0, 1, len(scenes)):
        raise ValueError("Nothing to compare: one image, or no image with two detections.")
    explain = {
        name: _explaining(method, model, images[scenes], units, detections[scenes])
        for name, method in (methods() if sources is None else sources).items()
    }
    edges = tf.image.sobel_edges(tf.convert_to_tensor(images[scenes]))
    edges = np.linalg.norm(edges, axis=(-2, -1))
    explain[EDGES] = lambda: edges
    original = {name: _ranks_of_kinds(function()) for name, function in explain.items()}
    trained = model.get_weights()
    found = {name: {kind: [] for kind in KINDS} for name in explain}
    constant = {name: _num_constant(original[name]) for name in explain}
    for seed in seeds:
        for _ in cascade(model, seed):
            for name, function in explain.items():
                ranks = _ranks_of_kinds(function())
                constant[name] += _num_constant(ranks)
                for kind, values in found[name].items():
                    values.append(correlations(original[name][kind], ranks[kind]).mean())
        model.set_weights(trained)
    num_maps = len(units) * (1 + len(seeds) * len(blocks(model)))
    return {
        name: Result(
            _family(name),
            {kind: np.reshape(values, (len(seeds), -1)) for kind, values in by_kind.items()},
            {kind: _baselines(values, scenes) for kind, values in original[name].items()},
            constant[name],
            num_maps,
        )
        for name, by_kind in found.items()
    }


def _explaining(method, model, x, units, detections):
    """Return the function that explains with the weights that the model has when it is called."""
    explainer = ke.Explainer(method, model, postprocessing=None, resizing=False)
    takes_detections = "detections" in ke.methods.registration(method).sample_options
    options = {"detections": detections} if takes_detections else {}
    return lambda: explainer.explain(x, units, verbose=0, **options)[1][..., 0]


def _family(name):
    if name == EDGES:
        return "baseline"
    return ke.methods.registration(name).family if name in ke.methods.names() else "meta"


def _ranks_of_kinds(maps):
    signed = centred_ranks(maps)
    return {
        "signed": signed,
        "magnitude": centred_ranks(np.abs(maps)) if np.min(maps) < 0 else signed,
    }


def _num_constant(ranks):
    return int((~ranks["signed"].any(axis=1)).sum())


def _baselines(ranks, scenes):
    """Correlate the maps of every two units of a scene, and of every two scenes."""
    norms = np.linalg.norm(ranks, axis=1, keepdims=True)
    ranks = np.divide(ranks, norms, out=np.zeros_like(ranks), where=norms > 0)
    between = ranks @ ranks.T
    same = scenes[:, None] == scenes
    return between[same & ~np.eye(len(scenes), dtype=bool)].mean(), between[~same].mean()


def rows(results):
    """Sort the names of results, by family and by the last step in magnitude, highest first."""

    def key(name):
        last = results[name].steps["magnitude"].mean(axis=0)[-1]
        return FAMILIES.index(results[name].family), -round(float(last), 3), name

    return sorted(results, key=key)


def cells(result, kind):
    """Return the numbers of a row: the mean of every step over seeds, and `BASELINES`."""
    return [*result.steps[kind].mean(axis=0), *result.baselines[kind]]


def tables(results):
    """Return a Markdown table for the values of maps, and one for their magnitudes."""
    heads = ["Family", "Method", *STEPS, *BASELINES]
    lines = []
    for kind, title in KINDS.items():
        lines += [f"### {title}", "", f"| {' | '.join(heads)} |"]
        lines += [f"| --- | --- |{' ---: |' * (len(heads) - 2)}"]
        for name in rows(results):
            numbers = " | ".join(_number(value) for value in cells(results[name], kind))
            label = name if name == EDGES else f"`{name}`"
            lines.append(f"| {results[name].family} | {label} | {numbers} |")
        lines.append("")
    return "\n".join(lines)


def read(page):
    """Return the results in the tables of a page, in their order: what `draw` takes of them."""
    found = {}
    for kind, title in KINDS.items():
        section = page.split(f"### {title}\n")[1].split("\n#")[0]
        for line in re.findall(r"^\| [a-z].*", section, re.MULTILINE):
            family, name, *numbers = (cell.strip("` ") for cell in line.split("|")[1:-1])
            result = found.setdefault(name, Result(family, {}, {}, 0, 0))
            numbers = [float(number.replace("\N{MINUS SIGN}", "-")) for number in numbers]
            result.steps[kind] = np.asarray([numbers[: len(STEPS)]])
            result.baselines[kind] = numbers[len(STEPS) :]
    return found


def legend(results, num_scenes, exact):
    """Return the paragraph that says what the numbers are means over, and how far to trust them.

    Args:
        results: as `measure` returns them.
        num_scenes: integer.
        exact: share of the scenes whose labels the trained classifier gets all right.

    Returns:
        text of one paragraph.
    """
    some = next(iter(results.values()))
    seeds, steps = some.steps["signed"].shape
    num_digits = some.num_maps // (1 + seeds * steps)
    spread = [
        _number(max(r.steps[kind].std(axis=0)[step] for r in results.values() for kind in KINDS))
        for step in range(steps)
    ]
    constant = [
        f"{result.num_constant} of {result.num_maps} of `{name}`"
        for name, result in results.items()
        if result.num_constant
    ]
    text = (
        f"Means over {num_digits} digits detected in {num_scenes} scenes and {seeds} draws of the "
        f"random weights. The trained classifier gets all labels of {exact:.0%} of these scenes "
        f"right. The standard deviation of a number between draws is at most {', '.join(spread)} "
        f"in the {steps} steps. Constant maps, which count as 0: {', '.join(constant) or 'none'}. "
        f"Measured with Keras {keras.__version__} and TensorFlow {tf.__version__}."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False) + "\n"


def _number(value):
    """Write a number with two digits, without a negative zero."""
    return f"{round(float(value), 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")


def draw(results, names=None):
    """Draw both tables as heat maps.

    Args:
        results: as `measure` returns them.
        names: those of the rows. Defaults to `rows(results)`.

    Returns:
        matplotlib figure.
    """
    from matplotlib import pyplot as plt

    names = names or rows(results)
    families = [results[name].family for name in names]
    changes = [one != other for one, other in zip(families[:1] + families, families, strict=False)]
    tops = np.arange(len(names)) + GAP * np.cumsum(changes)
    lefts = np.arange(len(STEPS) + len(BASELINES), dtype=float)
    lefts[len(STEPS) :] += GAP
    colors = plt.cm.ScalarMappable(plt.Normalize(0, 1.12), COLORS)
    figure, panels = plt.subplots(1, 2, figsize=(13, 8.6), sharey=True, layout="constrained")
    for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
        for top, name in zip(tops, names, strict=True):
            for left, value in zip(lefts, cells(results[name], kind), strict=True):
                color = colors.to_rgba(value)
                axes.add_patch(plt.Rectangle((left, top), 0.97, 0.95, color=color, linewidth=0))
                ink = "white" if np.dot(color[:3], LUMINANCE) < 0.55 else "black"
                axes.text(left + 0.485, top + 0.5, _number(value), color=ink, **MIDDLE)
        heads = "after randomising up to", "trained model:\nmap of another"
        for text, columns in zip(heads, np.split(lefts, [len(STEPS)]), strict=True):
            axes.text(columns.mean() + 0.485, -1.55, text, color="0.3", **MIDDLE)
        axes.set_title(title, fontsize=14, pad=56)
        axes.set(xlim=(0, lefts[-1] + 1), ylim=(tops[-1] + 1, 0))
        labels = [*STEPS, *(name.split()[-1] for name in BASELINES)]
        axes.set_xticks(lefts + 0.485, labels, fontsize=10.5)
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)
    panels[0].set_yticks(tops + 0.5, names, fontsize=11)
    for family in set(families) - {"baseline"}:
        inside = tops[[other == family for other in families]]
        panels[0].text(-5.2, inside.mean() + 0.5, family, rotation=90, color="0.3", **MIDDLE)
    bar = figure.colorbar(colors, ax=panels, shrink=0.5, aspect=30, pad=0.02)
    bar.ax.set_ylim(0, 1)
    bar.set_label("Spearman's rank correlation", fontsize=11)
    bar.outline.set_visible(False)
    return figure


def main():
    """Train, measure, and write the page and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--plot", action="store_true", help="draw from the tables of the page")
    arguments = parser.parse_args()
    matplotlib.use("agg")  # No screen is needed.
    if arguments.plot:
        results = read(PAGE.read_text("utf-8"))
        draw(results, list(results)).savefig(PLOT, dpi=130)
        return
    start = time.perf_counter()
    train_digits, held_out_digits = demo.load_digits()
    print("Training a classifier of handwritten digits.", flush=True)
    model = demo.train(train_digits, verbose=0)
    scenes = demo.draw_scenes(held_out_digits, NUM_SCENES, seed=1)
    _, exact = demo.evaluate(model, scenes)
    print("Explaining it with trained and with random weights.\n", flush=True)
    results = measure(model, scenes.images)
    text = f"{legend(results, NUM_SCENES, exact)}\n{tables(results)}"
    print(text, flush=True)
    marked.write(PAGE, "sanity", text)
    draw(results).savefig(PLOT, dpi=130)
    seconds = time.perf_counter() - start
    print(f"Written in {seconds:.0f} seconds: {PAGE}, {PLOT}")
    if arguments.json:
        numbers = {
            "scenes": NUM_SCENES,
            "exact_match": float(exact),
            "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
            "seconds": seconds,
            "columns": [*STEPS, *BASELINES],
            "methods": {name: _plain(result) for name, result in results.items()},
        }
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")


def _plain(result):
    """Return a result as JSON has it, the correlations of every draw of weights included."""
    by_kind = {
        kind: {
            "means": [float(value) for value in cells(result, kind)],
            "draws": result.steps[kind].tolist(),
        }
        for kind in KINDS
    }
    counts = {"constant_maps": result.num_constant, "maps": result.num_maps}
    return {"family": result.family, **counts, **by_kind}


if __name__ == "__main__":
    main()
