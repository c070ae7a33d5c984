"""What a map of each of many units costs, by method."""

from speed import cases
from speed import timing

COUNTS = (1, 20, 80, 1000)
# The panel of methods whose cost grows with the units.
GROWING = "Something for each unit"
# Panels of the plot, and the options of their methods. Score-CAM takes a pass for each channel,
# which a few channels tell as well.
GROUPS = {
    "All units at once": {
        "cam": {},
        "gradcam": {},
        "hirescam": {},
        "xgradcam": {},
        "minmaxcam": {},
        "minmax_gradcam": {},
    },
    GROWING: {
        "gradcampp": {},
        "layercam": {},
        "gradcam_elementwise": {},
        "d_minmaxcam": {},
        "d_minmax_gradcam": {},
        "eigen_gradcam": {},
        "zoomcam": {},
    },
    "The same passes for all units": {"eigencam": {}, "ablationcam": {}, "scorecam": {"top_k": 4}},
}
METHODS = {name: options for group in GROUPS.values() for name, options in group.items()}
# Counts that are reckoned to take longer than this for one batch, in seconds, are left out.
LONGEST = 20.0


def measure(method, seconds, dtype, jit_compile):
    """Measure maps of the first units of a model with 1000.

    Args:
        method: one of `METHODS`.
        seconds: how long to measure each count.
        dtype: policy of the model.
        jit_compile: whether to compile with XLA.

    Returns:
        dict from counts, as text, to what `timing.take_turns` returns.
    """
    import numpy as np

    model = cases.Model()
    network = cases.build(model, dtype)
    tensor = cases.on_device(cases.images_for(model))
    forward = cases.forward_of(network, jit_compile)
    found, options, last = {}, METHODS[method], None
    for count in COUNTS:
        if last and reckoned(method, last, count) > LONGEST:
            break
        indices = None
        if count < model.classes:
            indices = np.tile(np.arange(count), (model.batch, 1))
        step = cases.step_of(method, network, indices, jit_compile, **options)

        def reference():
            timing.wait(forward(tensor))

        def measured(step=step):
            timing.wait(step(tensor))

        found[str(count)] = timing.take_turns(reference, measured, seconds)
        last = count, found[str(count)]
    return found


def reckoned(method, last, count):
    """Return about the seconds that a count will take, by the last one measured."""
    known, times = last
    above = max(0.0, times["measured"] - times["reference"])
    growth = count / known if method in GROUPS[GROWING] else 1
    return times["reference"] + above * growth
