"""Compare heads whose kernels are used sparingly with plain ones: the study of KUR.

Usage: `make kur` (or `python benchmarks/kernel_usage.py`) trains and measures, prints Markdown
tables, writes them into `docs/kernel_usage.md` between the markers there, the numbers into
`docs/kernel_usage.json`, and figures into `docs/images`. On two processor cores it takes ten to
fifteen minutes. `--quick` does it all at a small scale, and only prints; `--seeds N` changes the
number of repetitions; `--tables` writes tables and figures anew from the numbers of the last run,
and trains but the two networks whose maps are shown, again.

- *Digits*: scenes of handwritten digits in which five pairs of digits occur together in 80 % of the
  training scenes that have one of them, and independently of each other in the test scenes. A small
  network is trained from scratch.
- *VOC*: linear heads on frozen features of photographs of PASCAL VOC, from the folder
  `../shared/data` beside the project; without it this part is left out.

A seed sets the initial weights, of the backbone and of the head, and the order of the data; it is
the same for all heads, so that their differences are paired. Strengths of penalties are chosen on
validation data, with seeds that aren't reported.
"""

import argparse
import functools
import json
import time
from pathlib import Path
from typing import NamedTuple

import keras
import marked
import matplotlib
import numpy as np
import tensorflow as tf
from keras import layers
from scipy import stats
from sklearn.metrics import average_precision_score
from sklearn.metrics import fbeta_score
from sklearn.metrics import precision_score
from sklearn.metrics import recall_score

import keras_explainable as ke
from keras_explainable import demo

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FEATURES = ROOT.parent / "shared" / "data" / "voc_features.npz"
NAME = "kernel_usage"

CO_OCCURRENCE = 0.8
FILTERS = (16, 32, 48, 64)
TEMPERATURE = 0.1
# Of strengths about as good as the best one, the greatest is taken: it does most.
TOLERANCE = 0.005
SEEDS = 5
ALPHA_SEEDS = {"Digits": 3, "VOC": 5}
PLAIN, LAYER = "plain", "KUR layer"
PENALTIES = {
    "KUR penalty": functools.partial(ke.regularizers.KernelUsage, temperature=TEMPERATURE),
    "orthogonal": ke.regularizers.Orthogonal,
    "cosines": keras.regularizers.OrthogonalRegularizer,
    "L2": keras.regularizers.L2,
}
STRENGTHS = {
    "Digits": {
        "KUR penalty": (1e-3, 1e-2, 1e-1),
        "orthogonal": (1e-2, 1e-1, 1.0),
        "L2": (1e-3, 1e-2, 1e-1),
    },
    "VOC": {
        "KUR penalty": (1e-4, 1e-3, 1e-2),
        "orthogonal": (1e-2, 1e-1, 1.0, 10.0),
        "cosines": (1e-2, 1e-1, 1.0),
        "L2": (1e-4, 1e-3, 1e-2),
    },
}
ALPHAS = {
    "1": lambda units: {"alpha": 1.0},  # noqa: ARG005
    "√C": lambda units: {"alpha": units**0.5},
    "C": lambda units: {"alpha": float(units)},
    "2C": lambda units: {"alpha": 2.0 * units},
    "C, absolute": lambda units: {"alpha": float(units), "absolute": True},
}
MAPS = {"cam": "CAM", "minmaxcam": "MinMax-CAM"}
MAP_METRICS = {
    "average_drop": "AD",
    "average_drop_of_others": "ADO",
    "average_retention_of_others": "ARO",
    "energy_pointing_game": "energy",
}
# Heading, whether in percent, and the direction of what is better: 1, -1 or none.
COLUMNS = {
    "map": ("mAP", True, 1),
    "f2": ("F2", True, 1),
    "partner": ("false alarms, partner present", True, -1),
    "others": ("false alarms, partner absent", True, -1),
    "loss": ("loss", False, -1),
    "penalized": ("loss with penalty", False, -1),
    "precision": ("precision", True, 1),
    "recall": ("recall", True, 1),
    "correlation": ("mean \\|r\\|", False, -1),
    "usage": ("kernels used", None, 0),
    "positive": ("positive weights", True, 0),
    "ratio": ("ratio of norms", False, 0),
} | {
    f"{method} {metric}": (f"{short} of {title}", True, -1 if short in ("AD", "ARO") else 1)
    for method, title in MAPS.items()
    for metric, short in MAP_METRICS.items()
}
OF_HEADS = ("correlation", "usage", "positive")
OF_MAPS = tuple(f"{method} {metric}" for method in MAPS for metric in MAP_METRICS)
TABLES = {
    "Digits": ("map", "f2", "partner", "others", *OF_HEADS),
    "VOC": ("map", "f2", "loss", "penalized", "precision", "recall", *OF_HEADS),
}
# VOC 2007, ResNet101, validation, from the authors' logs; a loss with what penalties there are.
PUBLISHED = {
    PLAIN: (0.0732, 0.8696, 0.7984),
    LAYER: (0.0732, 0.8829, 0.7879),
    "orthogonal": (0.0721, 0.8795, 0.7963),
    "L2": (0.3804, 0.8613, 0.7245),
}
DRAWN = (PLAIN, LAYER, "KUR penalty")


class Scale(NamedTuple):
    """How much is trained and measured."""

    seeds: int = SEEDS
    num_train: int = 3200
    num_test: int = 400
    epochs: int = 5
    voc_epochs: int = 60


QUICK = Scale(seeds=2, num_train=64, num_test=32, epochs=1, voc_epochs=2)


def make_head(name, units, strength=None, **options):
    """Make an untrained head.

    Args:
        name: `PLAIN`, `LAYER` or a key of `PENALTIES`.
        units: number of units.
        strength: factor of the penalty.
        **options: arguments of the layer.
    """
    if name == LAYER:
        return ke.layers.KernelUsageDense(units, activation="sigmoid", name="head", **options)
    penalty = PENALTIES[name](strength) if name in PENALTIES else None
    return layers.Dense(units, "sigmoid", kernel_regularizer=penalty, name="head")


def fit(model, x, y, seed, epochs, rate, batch_size=32):
    """Train a model on data in an order that the seed alone tells."""
    data = tf.data.Dataset.from_tensor_slices((x, y)).cache()
    data = data.shuffle(len(x), seed=seed).batch(batch_size).prefetch(2)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", jit_compile=False)
    model.fit(data, epochs=epochs, shuffle=False, verbose=0)
    return model


class Digits:
    """Scenes of digits: biased ones to train and validate with, and others to test with."""

    title = "Digits"
    kernels, units = FILTERS[-1], demo.CLASSES

    def __init__(self, scale):
        self.scale = scale
        self.digits, held_out = demo.load_digits(held_out=0.3)
        cut = len(held_out.labels) // 3
        validation, test = (_part(held_out, part) for part in (slice(cut), slice(cut, None)))
        self.test = demo.draw_scenes(test, scale.num_test, seed=1000)
        self.biased = demo.draw_scenes(validation, scale.num_test, 1001, CO_OCCURRENCE)
        self.scenes = functools.lru_cache(1)(
            lambda seed: demo.draw_scenes(self.digits, scale.num_train, seed, CO_OCCURRENCE)
        )

    def train(self, seed, *head, **options):
        """Train a network from scratch; arguments are those of `make_head`, but for `units`."""
        name, *strength = head
        scenes = self.scenes(seed)
        keras.utils.set_random_seed(seed)
        base = demo.build_model(FILTERS)
        pooled = base.get_layer("average").output
        outputs = make_head(name, self.units, *strength, **options)(pooled)
        model = keras.Model(base.inputs, outputs)
        steps = self.scale.epochs * -(-len(scenes.images) // 32)
        rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
        return fit(model, scenes.images, scenes.labels, seed, self.scale.epochs, rate)

    def validate(self, seed, *head):
        """Train, and measure mAP on validation scenes with the bias of training."""
        model = self.train(seed, *head)
        return mean_average_precision(self.biased.labels, predict(model, self.biased.images))

    def measure(self, model, with_maps=True):
        """Return what is measured of a trained model, a dict from keys of `COLUMNS`."""
        labels, found = self.test.labels, predict(model, self.test.images)
        measured = scores(labels, found) | alarms(labels, found) | of_head(model)
        if with_maps:
            table = ke.evaluate(
                model, self.test.images, labels, methods=list(MAPS), metrics=list(MAP_METRICS),
                masks=self.test.masks, num_resamples=0, batch_size=50, verbose=0,
            )  # fmt: skip
            every = [row for row in table if row.unit == "all"]
            measured |= {f"{row.method} {row.metric}": row.value for row in every}
        return measured


class Voc:
    """Frozen features of photographs."""

    title = "VOC"
    kernels, units = 1280, 20
    class_names = (
        *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("table", "dog", "horse", "motorbike", "person", "plant", "sheep", "sofa", "train"),
        "monitor",
    )

    def __init__(self, scale):
        self.scale = scale
        self.x, self.y, self.test_x, self.test_y = load_features()

    def train(self, seed, *head, part=slice(None), **options):
        """Train a head; arguments are those of `make_head`, but for `units`."""
        name, *strength = head
        keras.utils.set_random_seed(seed)
        inputs = keras.Input(self.x.shape[1:])
        head = make_head(name, self.units, *strength, **options)
        model = keras.Model(inputs, head(inputs))
        return fit(model, self.x[part], self.y[part], seed, self.scale.voc_epochs, 3e-3)

    def validate(self, seed, *head):
        """Train on four fifths of the training images, and measure mAP on the last one."""
        order = np.random.default_rng(seed).permutation(len(self.x))
        left, part = np.split(order, [len(order) // 5])
        model = self.train(seed, *head, part=part)
        return mean_average_precision(self.y[left], predict(model, self.x[left]))

    def measure(self, model, with_maps=True):
        """Return what is measured of a trained head, a dict from keys of `COLUMNS`."""
        del with_maps  # There are no images.
        found = predict(model, self.test_x)
        loss = float(keras.ops.mean(keras.losses.binary_crossentropy(self.test_y, found)))
        measured = scores(self.test_y, found) | {
            "loss": loss,
            "penalized": loss + float(sum(model.losses)),
            "precision": precision_score(
                self.test_y, found > 0.5, average="micro", zero_division=0
            ),
            "recall": recall_score(self.test_y, found > 0.5, average="micro"),
        }
        return measured | of_head(model)


def load_features():
    """Return features and labels of the photographs to train with, and of those to test with."""
    data = np.load(FEATURES)
    x, y = data["features"].astype("float32"), data["labels"].astype("float32")
    train = data["split"] == "train"
    return x[train], y[train], x[~train], y[~train]


def _part(digits, part):
    images = {size: values[part] for size, values in digits.images.items()}
    return demo.Digits(images, digits.labels[part], digits.indices[part])


def predict(model, x):
    """Return probabilities."""
    return model.predict(x, batch_size=100, verbose=0)


def mean_average_precision(labels, found):
    """Return the mean over the classes that occur."""
    occurs = labels.any(axis=0)
    return float(average_precision_score(labels[:, occurs], found[:, occurs], average="macro"))


def scores(labels, found):
    """Return mAP, and F2 at a threshold of 0.5, the mean over classes."""
    f2 = fbeta_score(labels, found > 0.5, beta=2, average="macro", zero_division=0)
    return {"map": mean_average_precision(labels, found), "f2": float(f2)}


def alarms(labels, found):
    """Return how often absent digits are detected, with and without their partners there."""
    partner_of = dict(demo.PAIRS) | {other: one for one, other in demo.PAIRS}
    partners = [partner_of[digit] for digit in range(demo.CLASSES)]
    detected, absent, partner = found > 0.5, labels == 0, labels[:, partners] > 0
    return {
        "partner": float(detected[absent & partner].mean()),
        "others": float(detected[absent & ~partner].mean()),
    }


def of_head(model):
    """Measure the head of a model."""
    head = model.get_layer("head")
    return {
        "correlation": ke.diagnostics.mean_absolute_correlation(head),
        "usage": float(ke.diagnostics.kernel_usage(head).mean()),
        "positive": ke.diagnostics.share_of_positive_weights(head),
    }


def choose_strengths(study, seeds=(0,)):
    """Try the strengths of penalties on validation data.

    Args:
        study: `Digits` or `Voc`.
        seeds: integers, that no reported model has.

    Returns:
        dict from heads to dicts from strengths to mean validation mAP.
    """
    tried = {}
    for head, strengths in STRENGTHS[study.title].items():
        tried[head] = {
            f"{strength:g}": float(
                np.mean([study.validate(seed, head, strength) for seed in seeds])
            )
            for strength in strengths
        }
        print(f"{study.title}: mAP of validation with {head}: {tried[head]}", flush=True)
    return tried


def chosen(tried):
    """Return the greatest strength whose mAP is within `TOLERANCE` of the best."""
    best = max(tried.values())
    return max(float(strength) for strength, value in tried.items() if value >= best - TOLERANCE)


def run(study, tuning_seeds):
    """Train and measure all heads of a study.

    Returns:
        results: dict of what `kernel_usage.json` holds of it.
        models: dict of models of `DRAWN`, of the first seed.
    """
    tried = choose_strengths(study, tuning_seeds)
    heads = {PLAIN: (), LAYER: (), **{head: (chosen(values),) for head, values in tried.items()}}
    runs = {head: [] for head in heads}
    drawn, usages, matrices = {}, {head: [] for head in DRAWN}, {}
    for seed in range(1, study.scale.seeds + 1):
        for head, strength in heads.items():
            model = study.train(seed, head, *strength)
            runs[head].append(study.measure(model))
            if head in DRAWN:
                layer = model.get_layer("head")
                usages[head].append(ke.diagnostics.kernel_usage(layer).tolist())
                if seed == 1:
                    correlations = ke.diagnostics.class_correlations(layer)
                    matrices[head], drawn[head] = correlations.round(3).tolist(), model
        print(f"{study.title}: seed {seed} of {study.scale.seeds}", flush=True)
    results = {
        "tried": tried,
        "heads": {head: _columns(rows) for head, rows in runs.items()},
        "alphas": alphas(study, runs[LAYER]),
        "correlations": matrices,
        "usage": usages,
    }
    return results, drawn


def alphas(study, default):
    """Train and measure layers of kernel usage with other factors.

    Args:
        study: `Digits` or `Voc`.
        default: list of what was measured of the layer with its default.
    """
    seeds = range(1, min(ALPHA_SEEDS[study.title], study.scale.seeds) + 1)
    rows = {}
    for name, options in ALPHAS.items():
        options = options(study.units)
        if name == "C":
            rows[name] = [default[seed - 1] for seed in seeds]
        else:
            rows[name] = [
                study.measure(study.train(seed, LAYER, **options), with_maps=False)
                for seed in seeds
            ]
        kept = ("map", "f2", *OF_HEADS)
        rows[name] = [{key: row[key] for key in kept} for row in rows[name]]
        ratio = ratio_of_norms(study.kernels, study.units, **options)
        rows[name] = _columns([row | {"ratio": ratio} for row in rows[name]])
    print(f"{study.title}: factors", flush=True)
    return rows


def ratio_of_norms(kernels, units, **options):
    """Return the norm of the effective kernel of a new layer over that of the stored one."""
    keras.utils.set_random_seed(0)
    layer = ke.layers.KernelUsageDense(units, **options)
    layer.build((None, kernels))
    return float(np.linalg.norm(layer.effective_kernel) / np.linalg.norm(layer.kernel))


def _columns(rows):
    return {key: [round(float(row[key]), 5) for row in rows] for key in rows[0]}


def difference(values, plain):
    """Return the mean of paired differences, half their 95 % t-interval, and how many are above 0.

    Args:
        values: numbers, one per seed.
        plain: numbers of plain heads with the same seeds.
    """
    differences = np.subtract(values, plain)
    count = len(differences)
    half = np.nan
    if count > 1:
        half = stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    return float(differences.mean()), float(half), int((differences > 0).sum())


def _number(value, key, signed=False):
    places = {True: 1, False: 3, None: 1}[COLUMNS[key][1]]
    value = 100 * value if COLUMNS[key][1] else value
    return f"{value:{'+' if signed else ''}.{places}f}".replace("-", "−")


def _heading(key):
    name, _, direction = COLUMNS[key]
    return f"{name} {'↑' if direction > 0 else '↓'}" if direction else name


def _rows(lines, heads):
    head = f"| {' | '.join(heads)} |\n| --- |{' ---: |' * (len(heads) - 1)}\n"
    return head + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(runs, keys, first="Head"):
    """Write means and standard deviations over seeds as Markdown, a row for each head."""
    lines = []
    for head, values in runs.items():
        pairs = [(np.mean(values[key]), np.std(values[key], ddof=1), key) for key in keys]
        lines.append([head, *(f"{_number(m, key)} ± {_number(s, key)}" for m, s, key in pairs)])
    return _rows(lines, [first, *map(_heading, keys)])


def differences(runs, keys):
    """Write paired differences to plain heads as Markdown, a row for each metric."""
    others = [head for head in runs if head != PLAIN]
    lines = []
    for key in keys:
        cells = []
        for head in others:
            mean, half, above = difference(runs[head][key], runs[PLAIN][key])
            text = f"{_number(mean, key, signed=True)} ± {_number(half, key)}"
            text = f"**{text}**" if abs(mean) > half else text
            cells.append(f"{text} ({above}/{len(runs[PLAIN][key])})")
        lines.append([_heading(key), *cells])
    return _rows(lines, ["", *others])


def published():
    """Write the published figures as Markdown."""
    lines = [[head, *(f"{value:.4f}" for value in row)] for head, row in PUBLISHED.items()]
    return _rows(lines, ["Head", "loss", "precision", "recall"])


def strengths(tried):
    """Write what strengths were tried as Markdown."""
    lines = [
        [head, ", ".join(f"{float(s):g}: {100 * v:.1f}" for s, v in values.items()),
         f"{chosen(values):g}"]
        for head, values in tried.items()
    ]  # fmt: skip
    return _rows(lines, ["Penalty", "mAP of validation by strength", "chosen"])


def render(results):
    """Write results as Markdown."""
    parts = []
    for title, found in results["studies"].items():
        keys = TABLES[title]
        maps = OF_MAPS if OF_MAPS[0] in found["heads"][PLAIN] else ()
        parts += [f"### {title}\n", table(found["heads"], keys)]
        if maps:
            parts += [f"### {title}: maps\n", table(found["heads"], maps)]
        parts += [f"### {title}: differences to plain\n"]
        parts += [differences(found["heads"], (*keys, *maps))]
        parts += [f"### {title}: strengths of penalties\n", strengths(found["tried"])]
        first = next(iter(found["alphas"].values()))["map"]
        rows = {
            PLAIN: {k: v[: len(first)] for k, v in found["heads"][PLAIN].items()},
            **{f"α = {name}": values for name, values in found["alphas"].items()},
        }
        rows[PLAIN]["ratio"] = [1.0] * len(first)
        parts += [f"### {title}: the factor of the KUR layer (seeds: {len(first)})\n"]
        parts += [table(rows, ("map", "f2", *OF_HEADS, "ratio"))]
        if title == "VOC":
            parts += ["### Published\n", published()]
    return "\n".join(parts)


def draw(results, folder):
    """Draw correlations and usage from results."""
    for title, names, kernels in (("Digits", None, FILTERS[-1]), ("VOC", Voc.class_names, 1280)):
        if title not in results["studies"]:
            continue
        found = results["studies"][title]
        stem = f"{NAME}_{title.lower()}"
        matrices = {head: np.array(matrix) for head, matrix in found["correlations"].items()}
        figure = ke.visualization.correlations(matrices, names)
        figure.savefig(folder / f"{stem}_correlations.png", dpi=130)
        figure = ke.visualization.usage(found["usage"], names, num_kernels=kernels)
        figure.savefig(folder / f"{stem}_usage.png", dpi=130)


def draw_maps(models, scenes, num_scenes=3):
    """Draw maps of a plain and a KUR head, of pairs of digits that training scenes often had.

    Args:
        models: dict from heads to models.
        scenes: `demo.Scenes`.
        num_scenes: number of scenes in the figure, the first ones whose pair all models detect.

    Returns:
        the matplotlib figure.
    """
    models = {head: models[head] for head in (PLAIN, LAYER)}
    found = {head: predict(model, scenes.images) for head, model in models.items()}
    picked = []
    for scene, labels in enumerate(scenes.labels):
        pairs = [pair for pair in demo.PAIRS if labels[list(pair)].all()]
        seen = [p for p in pairs if all(v[scene, list(p)].min() > 0.5 for v in found.values())]
        picked += [(scene, list(seen[0]))] if seen else []
    picked = picked[:num_scenes] or [(0, [0, 1])]
    images = scenes.images[[scene for scene, _ in picked]]
    units = np.array([pair for _, pair in picked])
    maps = {}
    for method, name in MAPS.items():
        for head, model in models.items():
            all_units = ke.explain(method, model, images, verbose=0)[1]
            kept = [m[..., pair] for m, pair in zip(all_units, units, strict=True)]
            maps[f"{name}, {head}"] = kept
    titles = [[f"digit {unit}" for unit in pair] for pair in units]
    return ke.visualization.grid(images, maps, titles=titles, cell_size=1.4)


def measure(scale):
    """Train and measure all.

    Returns:
        results: what `kernel_usage.json` holds.
        maps: figure of maps.
    """
    start = time.perf_counter()
    results = {"scale": scale._asdict(), "studies": {}}
    study = Digits(scale)
    results["studies"]["Digits"], models = run(study, (0,))
    maps = draw_maps(models, study.test)
    if FEATURES.exists():
        results["studies"]["VOC"], _ = run(Voc(scale), (0, 100, 200))
    else:
        print("The features of photographs are absent: VOC is left out.")
    results["seconds"] = round(time.perf_counter() - start)
    return results, maps


def main(arguments=None):
    """Train, measure, and write the page, the numbers and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, help=f"number of repetitions, {SEEDS} by default")
    parser.add_argument("--quick", action="store_true", help="a small scale; only prints")
    parser.add_argument("--tables", action="store_true", help="write from the last run's numbers")
    options = parser.parse_args(arguments)
    matplotlib.use("agg")  # No screen is needed.
    tf.get_logger().setLevel("ERROR")  # Every model is traced, as it has to be.
    page, numbers, images = DOCS / f"{NAME}.md", DOCS / f"{NAME}.json", DOCS / "images"
    if options.tables:
        results = json.loads(numbers.read_text("utf-8"))
        study = Digits(Scale(**results["scale"]))
        maps = draw_maps({head: study.train(1, head) for head in (PLAIN, LAYER)}, study.test)
    else:
        scale = QUICK if options.quick else Scale()
        results, maps = measure(scale._replace(seeds=options.seeds or scale.seeds))
    text = render(results)
    print(f"{text}\nMeasured in {results['seconds']} seconds.")
    if not options.quick:
        maps.savefig(images / f"{NAME}_maps.png", dpi=130)
        draw(results, images)
        numbers.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        marked.write(page, NAME, text)


if __name__ == "__main__":
    main()
