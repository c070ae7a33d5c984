"""What objects print is a line that says what they are."""

import copy
import functools
import inspect
import pydoc
import re

import keras
import numpy as np
import pytest

import keras_explainable as ke
from keras_explainable import _showing


def _model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, name="late"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ],
        name="small",
    )


def test_explainers_tell_the_method_the_model_and_what_is_no_default():
    model = _model()
    assert repr(ke.Explainer("gradcam", model)) == "<Explainer of gradcam for 'small'>"
    explainer = ke.Explainer(
        ke.methods.smooth("gradients", num_samples=4),
        model,
        output=ke.targets.contrast(0, 1),
        resizing=(4, 4),
        postprocessing=ke.filters.positive,
    )
    assert repr(explainer) == str(explainer)
    assert repr(explainer) == (
        "<Explainer of smooth(gradients, num_samples=4) for 'small', "
        f"output={ke.targets.contrast(0, 1)!r}, postprocessing=positive, resizing=(4, 4)>"
    )
    explainer = ke.Explainer(
        "integrated_gradients", model, num_steps=8, baseline=np.ones((8, 8, 1), "float32")
    )
    assert repr(explainer) == (
        "<Explainer of integrated_gradients for 'small', num_steps=8, baseline=float32 (8, 8, 1)>"
    )
    layer = model.get_layer("late")
    assert repr(ke.Explainer("gradcam", model, layer=layer)).endswith(", layer='late'>")
    assert repr(ke.Explainer("gradcam", model, layer=[layer, "late"], resizing=False)).endswith(
        ", layer=['late', 'late'], resizing=False>"
    )


def test_methods_made_of_others_tell_of_which():
    smooth = ke.methods.smooth("gradients", num_samples=4)
    assert repr(smooth) == "smooth(gradients, num_samples=4)"
    assert repr(ke.methods.tta("gradcam")) == "tta(gradcam)"
    nested = ke.methods.tta(ke.methods.smooth("gradcam", stddev=0.1), scales=[1, 2])
    assert repr(nested) == "tta(smooth(gradcam, stddev=0.1), scales=(1, 2))"
    # The name, which labels tables, is short.
    assert nested.__name__ == "tta(smooth(gradcam))"
    assert ke.methods.smooth("gradients", num_samples=4) is smooth


def test_docstrings_of_methods_made_of_others_tell_of_which():
    smooth = ke.methods.smooth("gradients", num_samples=4)
    own = inspect.getdoc(ke.methods.get("gradients"))
    said = f"`smooth` of `gradients`, with num_samples=4.\n\n{own}"
    assert smooth.__doc__ == said
    assert said.splitlines()[0] in pydoc.plain(pydoc.render_doc(smooth))
    nested = ke.methods.tta(smooth)
    assert nested.__doc__ == f"`tta` of `smooth(gradients, num_samples=4)`.\n\n{said}"


def test_copies_of_methods_made_of_others_are_the_same_objects():
    smooth = ke.methods.smooth("gradients", num_samples=4)
    assert copy.copy(smooth) is smooth
    assert copy.deepcopy({"method": smooth})["method"] is smooth


def test_exposed_models_tell_what_they_return():
    exposed = ke.inspection.expose(_model())
    text = repr(exposed)
    assert re.fullmatch(r"<Exposed '\w+', logits \(None, 3\), activations \(None, 6, 6, 4\)>", text)
    assert repr(ke.inspection.expose(_model(), ())).endswith("logits (None, 3)>")
    many = ke.inspection.expose(_model(), ["late"] * 4)
    assert repr(many).endswith("activations (None, 6, 6, 4), (None, 6, 6, 4) and 2 more>")


def test_metrics_tell_their_options():
    assert repr(ke.metrics.AverageDrop()) == "<AverageDrop name=average_drop>"
    metric = ke.metrics.Insertion(num_steps=10, average="macro", num_classes=3)
    assert (
        repr(metric) == "<Insertion name=insertion, average='macro', num_classes=3, num_steps=10>"
    )
    sweep = ke.metrics.ThresholdSweep("segmentation_iou", thresholds=(0.2, 0.5))
    assert repr(sweep) == (
        "<ThresholdSweep name=best_segmentation_iou, "
        "segmentation_iou at 2 thresholds from 0.2 to 0.5>"
    )


def test_penalties_and_losses_tell_their_options():
    assert repr(ke.regularizers.Orthogonal(0.5)) == "<Orthogonal l=0.5>"
    assert repr(ke.regularizers.KernelUsage()) == (
        "<KernelUsage l=0.001, temperature=0.1, absolute=False, form='unused'>"
    )
    assert repr(ke.losses.EnergyOutside()) == "<EnergyOutside>"
    assert repr(ke.losses.EnergyOutside(relative=True, reduction="sum")) == (
        "<EnergyOutside reduction='sum', relative=True>"
    )
    assert repr(ke.losses.IgnoreLabelCrossentropy(label_smoothing=0.1)) == (
        "<IgnoreLabelCrossentropy label_smoothing=0.1>"
    )


def test_callbacks_tell_what_they_do(tmp_path):
    images = np.ones((2, 8, 8, 1), "float32")
    drawn = ke.callbacks.Explain(images, [0, 1], directory=tmp_path, layer="late", every=2)
    assert repr(drawn) == (
        "<Explain gradcam of 2 samples, every=2, layer='late', "
        f"directory={_showing.shown(str(tmp_path))}>"
    )
    judged = ke.callbacks.Evaluate(images, [0, 1], methods="cam", metrics="average_drop")
    assert repr(judged) == "<Evaluate val_average_drop, every=1>"


def test_registrations_tell_names():
    text = repr(ke.methods.registration("minmaxcam"))
    assert text.startswith("Registration(method=minmaxcam, family='cam', ")
    assert text.endswith("needs='linear head')")
    text = repr(ke.metrics.registration("insertion"))
    assert text.startswith("Registration(function=insertion, category='faithfulness', ")
    assert " at 0x" not in text
    for name in ke.methods.names():
        assert " at 0x" not in repr(ke.methods.registration(name))


def test_arrays_are_not_printed():
    found = ke.features.maximizing.Maximization(np.ones((2, 8, 8, 3)), np.ones((4, 2)))
    assert repr(found) == "Maximization(images=float64 (2, 8, 8, 3), trace=float64 (4, 2))"


class _Broken:
    def __repr__(self):
        return "<Broken of\ntwo lines>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.mean, "mean"),
        (functools.partial(np.clip, a_min=0), "partial(clip, a_min=0)"),
        (frozenset(["b", "a"]), "['a', 'b']"),
        ((1,), "(1,)"),
        ([np.ones(2), None], "[float64 (2,), None]"),
        (keras.ops.ones((2, 3)), "float32 (2, 3)"),
        ((), "()"),
        ([], "[]"),
        ({}, "{}"),
        ({"a": np.ones((9, 9)), 3: [np.mean]}, "{'a': float64 (9, 9), 3: [mean]}"),
        ([np.ones((9, 9))] * 7, f"[{'float64 (9, 9), ' * 6}...]"),
        (tuple(range(7)), "(0, 1, 2, 3, 4, 5, ...)"),
        (dict.fromkeys(range(7)), f"{{{', '.join(f'{i}: None' for i in range(6))}, ...}}"),
        (set(range(7)), "[0, 1, 2, 3, 4, 5, ...]"),
        (_Broken(), "<Broken of two lines>"),
    ],
)
def test_values_are_written_short(value, text):
    assert _showing.shown(value) == text


def test_long_values_are_cut():
    assert len(_showing.shown("a" * 500)) <= 80
    assert len(_showing.shown(list(range(500)))) <= 80


def test_defaults_are_left_out():
    def made(a, b=1, c=None, d=()):
        del a, b, c, d

    assert _showing.changed(made, {"a": 1, "b": True, "c": None, "d": (), "e": 2}) == {
        "a": 1,
        "b": True,
        "e": 2,
    }


def test_arrays_that_are_printed_alike_are_no_defaults():
    def function(*, baseline=np.full(3, 0.5)):  # noqa: B008
        return baseline

    default = inspect.signature(function).parameters["baseline"].default
    assert _showing.changed(function, {"baseline": default}) == {}
    assert list(_showing.changed(function, {"baseline": default + 1e-12})) == ["baseline"]
