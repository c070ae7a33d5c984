"""Compare methods by the metrics that mask inputs, on photographs and on scenes of digits.

Usage: `make study` (or `python benchmarks/faithfulness.py`) measures, prints Markdown tables,
writes them into `docs/faithfulness.md` between the markers there, and draws
`docs/images/faithfulness.png`. On two processor cores it takes two minutes. Photographs and
the trained network are those of the folder `../shared/data` beside the project; without it the
digits alone are measured, printed, and nothing is written.

The study of David, Pedrini, Dias, "MinMax-CAM", VISAPP 2022, on what is at hand:

- *VOC*: the 60 photographs of PASCAL VOC 2012 and the sigmoid head on MobileNetV2 of
  `tests/real/photographs.py`, at 448 × 448.
- *Digits*: `NUM_SCENES` scenes of one to four handwritten digits, and the classifier that
  `make demo` trains, with its seed.

Every class with a predicted probability above 0.5 is explained. Masks are maps after
`positive_normalize`, resized to the input; what they leave out is 0 after preprocessing. Values are
means over explained pairs, in percent, with 95 % intervals of 1,000 resamples of the images.
"""

import argparse
import sys
import time
from pathlib import Path

import marked
import matplotlib

import keras_explainable as ke
from keras_explainable import demo

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faithfulness.md"
PLOT = ROOT / "docs" / "images" / "faithfulness.png"

NUM_SCENES = 256
METRICS = (
    "increase_in_confidence",
    "average_drop",
    "average_retention",
    "average_drop_of_others",
    "average_retention_of_others",
    "f1_plus",
    "f1_minus",
)
SHORT = dict(zip(METRICS, ("IC", "AD", "AR", "ADO", "ARO", "F1⁺", "F1⁻"), strict=True))
METHODS = {
    "CAM": "cam",
    "Grad-CAM++": "gradcampp",
    "Score-CAM": "scorecam",
    "MinMax-CAM": "minmaxcam",
    "D-MinMax-CAM": "d_minmaxcam",
}
# Of its 1280 channels, which take a pass each, those with the highest activations.
SCORED_CHANNELS = 64
# COCO 2017, ResNet101V2, means weighted by the frequency of classes, by the authors' notebooks.
PUBLISHED = {
    "CAM": (26.83, 23.52, 23.58, 54.39, 6.26),
    "Grad-CAM++": (28.28, 15.33, 21.96, 21.74, 9.58),
    "MinMax-CAM": (19.32, 35.53, 20.53, 74.46, 3.90),
    "D-MinMax-CAM": (14.18, 43.36, 18.95, 78.66, 3.71),
}


def photographs(every=1):
    """Return the network trained on VOC, and its inputs.

    Args:
        every: take each n-th photograph.
    """
    import numpy as np

    sys.path.insert(0, str(ROOT))
    from tests.real import photographs as real

    _, listed = real.voc()
    model, preprocess = real.voc_classifier(448)
    pixels = np.stack([real.stretch(image, 448) for _, image, _, _ in listed[::every]])
    return model, preprocess(pixels)


def digits(num_scenes=NUM_SCENES, **training):
    """Return the classifier of digits, trained as by `make demo`, and scenes new to it."""
    train_digits, held_out = demo.load_digits()
    model = demo.train(train_digits, verbose=0, **training)
    return model, demo.draw_scenes(held_out, num_scenes, seed=1).images


def measure(model, x, methods=METHODS, scored_channels=None, batch_size=16, **options):
    """Evaluate methods.

    Args:
        model: `keras.Model`.
        x: inputs.
        methods: dict from labels to names of methods.
        scored_channels: number of channels that Score-CAM scores. Defaults to all.
        batch_size: samples per step.
        **options: further arguments of `ke.evaluate`.

    Returns:
        an `Evaluation` of `METRICS`, and of the metrics of others without samples that have none.
    """
    chosen = {
        label: (name, {"top_k": scored_channels} if name == "scorecam" else {})
        for label, name in methods.items()
    }
    metrics = {name: name for name in METRICS} | {
        f"{name}, several": ke.metrics.get(name).from_config({"others": "skip"})
        for name in METRICS
        if name.endswith("of_others")
    }
    return ke.evaluate(
        model, x, methods=chosen, metrics=metrics, batch_size=batch_size, verbose=0, **options
    )


def table(evaluation):
    """Write an evaluation as Markdown, in percent."""
    columns = {**SHORT, **{m: f"{SHORT[m.split(',')[0]]}, several" for m in evaluation.metrics[7:]}}
    arrows = {True: "↑", False: "↓"}
    rows = {}
    for metric, short in columns.items():
        found = [evaluation.select(method, metric, "all")[0] for method in evaluation.methods]
        cells = [f"{100 * r.value:.1f} ({100 * r.low:.1f} – {100 * r.high:.1f})" for r in found]
        rows[f"{short} {arrows[evaluation.higher_is_better[metric]]}"] = cells
    return markdown(evaluation.methods, rows)


def markdown(methods, rows):
    """Write a table with a column for each method."""
    lines = [f"| Metric | {' | '.join(methods)} |", f"| --- |{' ---: |' * len(methods)}"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def legend(evaluation, title, num_units):
    """Say what the numbers of a table are means over."""
    count, several = (
        evaluation.select(evaluation.methods[0], metric, "all")[0].count
        for metric in ("average_drop", "average_drop_of_others, several")
    )
    return (
        f"### {title}\n\n{evaluation.num_samples} images, {count} explained pairs of {num_units} "
        f"classes, {several} of them of images with several detections.\n"
    )


def published():
    """Write the published figures as Markdown."""
    columns = zip(*PUBLISHED.values(), strict=True)
    rows = {
        SHORT[metric]: [f"{value:.1f}" for value in values]
        for metric, values in zip(METRICS[:5], columns, strict=True)
    }
    return markdown(PUBLISHED, rows)


def main():
    """Measure, and write the page and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers, `-VOC` or `-digits` added")
    arguments = parser.parse_args()
    matplotlib.use("agg")  # No screen is needed.
    start = time.perf_counter()
    sources = {"Digits": (digits, {})}
    whole = (ROOT.parent / "shared" / "data").is_dir()
    if whole:
        sources = {"VOC": (photographs, {"scored_channels": SCORED_CHANNELS}), **sources}
    parts = []
    for title, (load, options) in sources.items():
        model, x = load()
        evaluation = measure(model, x, **options)
        parts += [legend(evaluation, title, model.output_shape[-1]), table(evaluation)]
        print("\n".join(parts[-2:]), flush=True)
        if arguments.json:
            evaluation.to_json(arguments.json.with_stem(f"{arguments.json.stem}-{title}"))
        if title == "VOC":
            figure = ke.visualization.table(evaluation, metrics=METRICS, percent=True)
            figure.savefig(PLOT, dpi=130)
    if whole:
        parts += ["### Published\n", "COCO 2017, ResNet101V2.\n", published()]
        marked.write(PAGE, "faithfulness", "\n".join(parts))
    print(f"Measured in {time.perf_counter() - start:.0f} seconds.")


if __name__ == "__main__":
    main()
