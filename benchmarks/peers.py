"""Compare the cost of methods with that in other libraries, each over its own forward pass.

Usage: `make peers` creates an environment with the other libraries, measures, and prints a Markdown
table; `--json FILE` writes the numbers too, `--write` puts both into the documentation, the table
between the markers of `docs/speed.md`, and a shorter one in the README. Libraries that are absent,
or fail, say so in their row.

All explain the same batch with a ResNet50 with random weights, that of `keras.applications` or of
torchvision, by the call that a user makes: `ke.gradcam(model, images, 7)` here, with its filter and
resizing. The forward pass is that of inference: compiled by TensorFlow, `torch.no_grad` in PyTorch.
Every row is measured in a process of its own, in which the forward pass and the explanation take
turns, on a GPU where there is one, else on all cores. *Times ours* is the ratio over that of this
library.
"""

import argparse
import importlib.util
import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import marked
from speed import cases
from speed import pages
from speed import timing

OURS = "keras-explainable"
MODEL = cases.Model("ResNet50")
UNIT = 7


def ours(method):
    """Return a forward pass and an explanation here, and their device."""
    import keras_explainable as ke

    model = cases.build(MODEL)
    images = cases.images_for(MODEL)
    tensor, forward = cases.on_device(images), cases.forward_of(model)

    def explain():
        ke.explain(method, model, images, UNIT, verbose=0)

    return lambda: timing.wait(forward(tensor)), explain, tensor.device.split(":")[-2]


def tf_keras_vis():
    """Return a forward pass here, Grad-CAM of tf-keras-vis, and their device."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
    from tf_keras_vis.utils.scores import CategoricalScore

    model = cases.build(MODEL)
    images = cases.images_for(MODEL)
    tensor, forward = cases.on_device(images), cases.forward_of(model)
    gradcam = Gradcam(model, model_modifier=ReplaceToLinear(), clone=True)
    scores = CategoricalScore([UNIT] * len(images))
    where = tensor.device.split(":")[-2]
    return lambda: timing.wait(forward(tensor)), lambda: gradcam(scores, images), where


def _torch():
    """Return a ResNet50 of torchvision, images, and its forward pass."""
    import torch
    import torchvision

    torch.manual_seed(0)
    torch.set_num_threads(timing.num_cores())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torchvision.models.resnet50(weights=None).eval().to(device)
    images = torch.from_numpy(cases.images_for(MODEL)).permute(0, 3, 1, 2).contiguous().to(device)

    def forward():
        with torch.no_grad():
            _wait(model(images))

    return model, images, forward


def _wait(output):
    """Wait for a tensor by reading back one number of it."""
    return output.detach().flatten()[0].item()


def captum():
    """Return a forward pass, Grad-CAM of captum, and their device."""
    from captum.attr import LayerGradCam

    model, images, forward = _torch()
    gradcam = LayerGradCam(model, model.layer4[-1])

    def explain():
        _wait(gradcam.attribute(images, target=UNIT))

    return forward, explain, images.device.type


def torchcam():
    """Return a forward pass, Grad-CAM of torchcam, and their device."""
    from torchcam.methods import GradCAM

    model, images, forward = _torch()
    gradcam = GradCAM(model, target_layer=model.layer4[-1])
    return forward, lambda: _wait(gradcam(UNIT, model(images))[0]), images.device.type


def pytorch_grad_cam(name):
    """Return a forward pass, a method of pytorch-grad-cam, and their device."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images, forward = _torch()
    explain = getattr(pytorch_grad_cam, name)(model, [model.layer4[-1]])
    targets = [ClassifierOutputTarget(UNIT)] * len(images)
    return forward, lambda: explain(input_tensor=images, targets=targets), images.device.type


# Methods, and for each library the module that it takes, and how to run it.
GRADCAM, FULL, EIGEN = "Grad-CAM, one class", "FullGrad, one class", "Eigen-CAM"
ROWS = {
    (GRADCAM, OURS): ("keras_explainable", lambda: ours("gradcam")),
    (GRADCAM, "captum"): ("captum", captum),
    (GRADCAM, "torchcam"): ("torchcam", torchcam),
    (GRADCAM, "pytorch-grad-cam"): ("pytorch_grad_cam", lambda: pytorch_grad_cam("GradCAM")),
    (GRADCAM, "tf-keras-vis"): ("tf_keras_vis", tf_keras_vis),
    (FULL, OURS): ("keras_explainable", lambda: ours("full_gradients")),
    (FULL, "pytorch-grad-cam"): ("pytorch_grad_cam", lambda: pytorch_grad_cam("FullGrad")),
    (EIGEN, OURS): ("keras_explainable", lambda: ours("eigencam")),
    (EIGEN, "pytorch-grad-cam"): ("pytorch_grad_cam", lambda: pytorch_grad_cam("EigenCAM")),
}


def measure(method, library, seconds):
    """Measure a row in this process."""
    warnings.simplefilter("ignore")
    module, prepare = ROWS[method, library]
    if importlib.util.find_spec(module) is None:
        return {"absent": True}
    forward, explain, device = prepare()
    device = "CPU" if device.lower() == "cpu" else "GPU"
    return timing.take_turns(forward, explain, seconds) | {"device": device}


def versions():
    """Return the versions of what is installed of the libraries."""
    from importlib import metadata

    names = ("tensorflow", "keras", "torch", "torchvision", "captum", "torchcam", "grad-cam")
    found = {}
    for name in (*names, "tf-keras-vis"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def rows(found):
    """Return the cells of all rows.

    Args:
        found: dict from methods to dicts from libraries to what was measured.
    """
    cells = []
    for method, library in ROWS:
        times = found.get(method, {}).get(library)
        if times is None:
            continue
        if "ratio" not in times:
            said = "not installed" if "absent" in times else pages.failed(times)
            cells.append([method, library, said, *[""] * 3])
            continue
        own = found[method].get(OURS, {}).get("ratio")
        relative = pages.number(times["ratio"] / own) if own and library != OURS else ""
        cells.append(
            [
                method,
                library,
                pages.number(times["ratio"]),
                f"{pages.number(times['low'])} to {pages.number(times['high'])}",
                f"{times['reference'] * 1e3:.0f} ms, {times['device']}",
                relative,
            ]
        )
    return cells


def render(results):
    """Write results as Markdown."""
    head = ["Method", "Library", "Times", "Quartiles", "Forward pass", "Times ours"]
    environment = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    where = f"Cores: {environment['cores']}; {MODEL}; {versions}."
    return f"{where}\n\n{pages.table(head, rows(results['found']), 2)}"


def readme_table(results):
    """Write the table of the README, a column for each library; a dash where nothing was found."""
    found = results["found"]
    libraries = list(dict.fromkeys(library for _, library in ROWS))
    lines = []
    for method in dict.fromkeys(method for method, _ in ROWS):
        ratios = [found.get(method, {}).get(library, {}).get("ratio") for library in libraries]
        lines.append([method, *("–" if ratio is None else pages.number(ratio) for ratio in ratios)])
    return pages.table(["", *libraries], lines)


def write_docs(results):
    """Write results into the documentation."""
    marked.write(pages.PAGE, "peers", render(results))
    marked.write(pages.README, "peers", readme_table(results))


def run(options):
    """Measure all rows asked for, each in a process."""
    environment = timing.in_process(__file__, "--case", "environment", "")
    found = {}
    for method, library in ROWS:
        if options.only and options.only not in f"{method}, {library}":
            continue
        print(f"{method}, {library}", file=sys.stderr, flush=True)
        arguments = ["--case", method, library, "--seconds", options.seconds]
        times = timing.in_process(__file__, *arguments)
        found.setdefault(method, {})[library] = times
    return {"environment": environment, "found": found}


def main(arguments=None):
    """Measure, print the table, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="time per row (default: 20)")
    parser.add_argument("--only", help="measure the rows whose method or library holds this")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--write", action="store_true", help="write into the documentation")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        if options.case[0] == "environment":
            found = timing.environment() | {"versions": versions()}
        else:
            found = measure(*options.case, options.seconds)
        print(json.dumps(found))
        return
    results = run(options)
    text = render(results)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if options.write:
        kept = json.loads(pages.NUMBERS.read_text("utf-8")) if pages.NUMBERS.exists() else {}
        kept["peers"] = results
        pages.NUMBERS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        write_docs(results)


if __name__ == "__main__":
    main()
