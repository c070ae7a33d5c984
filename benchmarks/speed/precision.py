"""Speed and error of mixed precision and of XLA."""

from speed import cases
from speed import timing

METHODS = ("gradcam", "gradients")
# Policy of the model, and whether XLA compiles.
VARIANTS = {
    "float32, XLA": ("float32", True),
    "mixed_bfloat16": ("mixed_bfloat16", False),
    "mixed_bfloat16, XLA": ("mixed_bfloat16", True),
    "mixed_float16": ("mixed_float16", False),
    "mixed_float16, XLA": ("mixed_float16", True),
}


def measure(name, seconds):
    """Compare the maps of a variant with those of float32 without XLA.

    Args:
        name: one of `VARIANTS`.
        seconds: how long to measure.

    Returns:
        dict from methods, and "forward" for the forward pass, to dicts as of `timing.take_turns`,
        with the largest relative "error" of a value.
    """
    import numpy as np

    dtype, jit_compile = VARIANTS[name]
    model = cases.Model()
    networks = cases.build(model), cases.build(model, dtype)
    networks[1].set_weights(networks[0].get_weights())
    tensor = cases.on_device(cases.images_for(model))
    unit = np.full((model.batch, 1), 7)
    found = {}
    for method in ("forward", *METHODS):
        if method == "forward":
            steps = cases.forward_of(networks[0]), cases.forward_of(networks[1], jit_compile)
        else:
            steps = (
                cases.step_of(method, networks[0], unit),
                cases.step_of(method, networks[1], unit, jit_compile),
            )
        calls = [lambda step=step: timing.wait(step(tensor)) for step in steps]
        found[method] = timing.take_turns(*calls, seconds)
        if method != "forward":
            maps = [np.array(step(tensor)[1]) for step in steps]
            found[method]["error"] = relative_error(*maps)
    return found


def relative_error(expected, found):
    """Return the largest difference of a map, relative to its largest magnitude; of all, the worst.

    Args:
        expected: array `(batch, ...)`.
        found: array of the same shape.
    """
    import numpy as np

    axes = tuple(range(1, expected.ndim))
    largest = np.abs(expected).max(axes)
    return float((np.abs(found - expected).max(axes) / largest).max())
