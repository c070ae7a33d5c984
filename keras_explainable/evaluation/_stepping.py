"""Explain a batch and compute metrics of its maps, in one compiled and distributed step."""

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import _showing
from keras_explainable import engine
from keras_explainable import inspection
from keras_explainable import methods
from keras_explainable._checks import invalid
from keras_explainable._checks import renamed
from keras_explainable._keeping import Kept
from keras_explainable.engine._listening import listened
from keras_explainable.inspection import feeding
from keras_explainable.metrics import _arguments
from keras_explainable.metrics import _computing
from keras_explainable.metrics._explaining import Explanations
from keras_explainable.metrics._scoring import probability

# By which rounding may take a map out of its interval.
_TOLERANCE = 1e-4
_steps = Kept(16)


def step_for(method, model, judged, inputs=None, output=None, **arguments):
    """Return the `Step` of earlier calls with the same arguments, or a new one.

    Args:
        method: as for `Step`.
        model: as for `Step`.
        judged: as for `Step`.
        inputs: as for `Step`.
        output: as for `Step`; of a target, steps are kept by its kind, whatever its data.
        **arguments: those of `Step`.
    """
    target = output if isinstance(output, inspection.Target) else None
    built = output if target is None else target.template()
    metrics = {label: [m.registration.name, m.options] for label, m in judged.items()}
    shapes = repr(keras.tree.map_structure(np.shape, inputs))
    step = _steps.get(
        model,
        (method, list(metrics.items()), built, arguments, shapes),
        lambda: Step(method, model, judged, inputs=inputs, output=built, **arguments),
    )
    step.target = target
    return step


class NotFinite(ValueError):
    """Says that maps are not finite."""


class Step(engine.Explainer):
    """A method and metrics made ready for one model.

    Args:
        method: as for `engine.Explainer`.
        model: as for `engine.Explainer`.
        judged: dict from labels to `ExplanationMetric`s.
        threshold: probability above which a unit is detected.
        activation: function from logits to probabilities, or `None`.
        layer: as for `engine.Explainer`, dropped for a method that explains none.
        **arguments: those of `engine.Explainer`.
    """

    reduces_retracing = False  # Metrics have to know how many maps there are.

    def __init__(
        self, method, model, judged, *, threshold=0.5, activation=None, layer=None, **arguments
    ):
        if methods.registration(method).family == "cam":
            arguments = {"layer": layer, **arguments}
        super().__init__(method, model, **arguments)
        output, inputs = arguments.get("output"), arguments.pop("inputs", None)
        self.judge = _computing.exposed_model(model, output, inputs)
        judged = {label: (m.registration, m.options) for label, m in judged.items()}
        self.judged, self.judged_by_pairs = {}, {}
        self.judged_raw, self.judged_outside = {}, {}
        for label, (known, metric_options) in judged.items():
            self._group(known)[label] = known, metric_options
        self.explaining = functools.partial(engine.explain, method, verbose=0, **arguments)
        self.threshold = threshold
        self.probability = probability(self.judge, activation)
        self.is_exclusive = _is_exclusive(self.probability, self.num_units)

    def _group(self, known):
        """Return the dict of the metrics that are computed of the same maps as one."""
        if "explain" in known.needs:
            return self.judged_outside  # What explains again is compiled by itself.
        if known.raw:
            return self.judged_raw
        # They resize the maps of explained pairs alone, which is less than those of all units.
        return self.judged_by_pairs if known.needs == ("model",) else self.judged

    @property
    def all_judged(self):
        """All metrics, in the groups that they are computed in."""
        return self.judged | self.judged_by_pairs | self.judged_raw | self.judged_outside

    def checked(self, data):
        """Return data in the form that the step takes.

        Args:
            data: dict of "x", "y" and what metrics compare maps with.

        Returns:
            dict of arrays.

        Raises:
            TypeError: as `engine.Explainer.explain`, and if what goes with maps has a wrong type.
            ValueError: as `engine.Explainer.explain`, and if what goes with maps doesn't fit.
        """
        more = {name: value for name, value in data.items() if name not in ("x", "y")}
        y = "argmax" if data["y"] is None and self.is_exclusive else data["y"]
        labels = _labels(y, self.num_units)
        if labels is not None:
            y, more["detections"] = None, labels
        batch = self._arrays(data["x"], y, {}, self.target)
        chosen = "indices" in batch or "argmax" in batch
        for label, (known, _) in self.all_judged.items():
            if chosen and "labels" in known.needs:
                expected = f"an array of 0 and 1 for each unit, as {label!r} takes a map of each"
                raise invalid("y", expected, "indices of units")
        if "boxes" in more:
            more["boxes"] = _padded(more["boxes"])
        index = self.exposed.input_index
        num_samples, *sizes = keras.tree.flatten(batch["inputs"])[index].shape
        sizes = sizes[1:] if index in self.exposed.channels_first else sizes[:-1]
        num_maps = self.num_units
        if chosen:
            num_maps = batch["indices"].shape[1] if "indices" in batch else 1
        for array in keras.tree.flatten(batch["inputs"]):
            if keras.backend.is_float_dtype(array.dtype) and not np.isfinite(array).all():
                raise invalid("x", "finite values", "NaN or infinity")
        shape = num_samples, *sizes, num_maps
        beside = {**more, "indices": batch.get("indices")}
        with renamed(detections="y"):
            beside = _arguments.checked_beside(beside, shape, self.num_units)
        beside.pop("indices", None)  # The batch has them.
        return batch | {"beside": beside}

    def scores(self, model, batch, size=None):
        """Explain a batch, and compute the metrics.

        Args:
            model: `keras.Model`, as trained, which the step doesn't hold.
            batch: what `checked` returns, or some of its rows.
            size: number of samples that the batch is filled up to.

        Returns:
            dict from labels to dicts of the fields of `Scores`, arrays; and classes `(batch, n)`.
        """
        outputs = self.run_batch(batch, size)
        valid = outputs.pop("valid") > 0
        outputs = keras.tree.map_structure(lambda array: array[valid], outputs)
        self._check_maps(outputs)
        if self.judged_outside:
            given = {} if self.target is None else {"output": self.target}
            explain = functools.partial(self.explaining, **given)
            explain = Explanations(explain, model, self.judge)
            inputs = feeding.accepted(self.judge, batch["inputs"])
            maps, logits = outputs["maps"], outputs["logits"]
            arguments = {"x": inputs, "maps": maps, "logits": logits, **batch["beside"]}
            if "indices" in batch or "argmax" in batch:
                arguments["indices"] = outputs["classes"]
            found = _computing.scores(
                self.judged_outside,
                keras.tree.map_structure(tf.convert_to_tensor, arguments)
                | {"model": self.judge, "explain": explain},
            )
            outputs["scores"] |= self._fields(found, outputs["explained"])
        return outputs["scores"], outputs["classes"]

    def _check_maps(self, outputs):
        """Raise that maps are none that metrics can judge."""
        name = _showing.named(self.method.func)
        if not outputs["finite"].all():
            expected = f"methods with finite maps of these inputs, as {name} hasn't"
            raise NotFinite(str(invalid("methods", expected, "NaN or infinity")))
        judged = self.judged | self.judged_by_pairs
        judging = [label for label, (known, _) in judged.items() if known.unit_interval]
        low, high = outputs["lowest"].min(), outputs["highest"].max()
        if judging and (low < -_TOLERANCE or high > 1 + _TOLERANCE):
            expected = f"maps from 0 to 1 for {judging[0]}"
            hint = 'Choose another `postprocessing`, such as "positive_normalize".'
            raise invalid("methods", expected, f"{low:.4g} to {high:.4g} by {name}", hint)

    def _explain_eagerly(self, data):
        heard = listened(self, data, self.judge)
        inputs, logits, maps = heard.inputs, heard.logits, heard.maps
        arguments = {
            "model": self.judge,
            "x": inputs,
            "logits": tf.cast(logits, tf.float32),
            "indices": inspection.unit_indices(logits, heard.indices),
            **keras.tree.map_structure(tf.convert_to_tensor, data["beside"]),
        }
        classes, explained = self._explained(arguments)
        raw = _of_explained(tf.cast(maps, tf.float32), explained)
        maps = _of_explained(self._filtered(raw), explained)
        found = _computing.scores(self.judged_raw, arguments | {"maps": raw})
        found |= _computing.scores(self.judged_by_pairs, arguments | {"maps": maps})
        per_sample = tuple(range(1, maps.shape.rank))
        outputs = {
            "classes": classes,
            "finite": tf.reduce_all(tf.math.is_finite(maps), per_sample),
            "lowest": tf.reduce_min(maps, per_sample),
            "highest": tf.reduce_max(maps, per_sample),
        }
        if self.judged or self.judged_outside:
            arguments["maps"] = self._resized(maps, heard.shown)
        if self.judged_outside:
            outputs |= {"explained": explained, **{n: arguments[n] for n in ("maps", "logits")}}
        found |= _computing.scores(self.judged, arguments)
        return outputs | {"scores": self._fields(found, explained)}

    def _fields(self, found, explained):
        """Return scores as dicts, with no weight for maps of units that aren't explained."""
        judged = self.all_judged
        return {
            label: _fields(scores, explained if judged[label][0].per_class else None)
            for label, scores in found.items()
        }

    def _explained(self, arguments):
        """Return the unit of each map, `(batch, n)`, and 1 for those that are explained."""
        logits, indices = arguments["logits"], arguments["indices"]
        detections = arguments.get("detections")
        if indices is not None:
            return tf.cast(indices, tf.int32), tf.ones_like(indices, tf.float32)
        if detections is None:
            detections = self.probability(logits) > self.threshold
        units = tf.range(self.num_units)[None] + tf.zeros_like(logits, tf.int32)
        return units, tf.cast(detections, tf.float32)


def _of_explained(maps, explained):
    """Return maps of which those of units that aren't explained show nothing."""
    ones = tf.ones([maps.shape.rank - 2], tf.int32)
    shape = tf.concat([tf.shape(explained)[:1], ones, tf.shape(explained)[1:]], 0)
    return tf.where(tf.reshape(explained, shape) > 0, maps, 0.0)


def _fields(scores, explained):
    """Return scores as a dict, with no weight for maps of units that aren't explained."""
    weights = scores.weights
    if explained is not None and scores.values.shape[1] == explained.shape[1]:
        weights *= explained if weights.shape.rank == 2 else explained[..., None]
    fields = scores._replace(weights=weights)._asdict()
    return {name: field for name, field in fields.items() if field is not None}


def _padded(boxes):
    """Return boxes with rows of label -1, so that batches have few numbers of boxes."""
    if not isinstance(boxes, dict) or not {"boxes", "labels"} <= {*boxes}:
        return boxes  # The check says so.
    corners, labels = np.asarray(boxes["boxes"]), np.asarray(boxes["labels"])
    if labels.ndim != 2 or corners.shape[:-1] != labels.shape:
        return boxes
    added = (1 << max(labels.shape[1] - 1, 0).bit_length()) - labels.shape[1]
    corners = np.pad(corners, [(0, 0), (0, added), (0, 0)])
    return {"boxes": corners, "labels": np.pad(labels, [(0, 0), (0, added)], constant_values=-1)}


def _is_exclusive(function, num_units):
    """Tell whether probabilities add up to 1, as those of a softmax do."""
    # Logits whose values under no other function add up to 1 by chance.
    units = tf.range(num_units, dtype=tf.float32)
    sums = tf.reduce_sum(function(tf.stack([units % 3 + 0.37, units % 5 - 1.13])), axis=-1)
    return num_units > 1 and bool(tf.reduce_all(tf.abs(sums - 1) < 1e-3))


def _labels(y, num_units):
    """Return the 0 or 1 that `y` has for each unit, or `None` where it has indices."""
    if y is None or isinstance(y, str | int | np.integer):
        return None
    y = np.asarray(y)
    if num_units == 1 and y.ndim == 1:
        y = y[:, None]
    if y.ndim != 2 or y.shape[1] != num_units:
        return None
    binary = set(np.unique(y)) <= {0, 1}
    if num_units == 2 and binary and np.issubdtype(y.dtype, np.integer):
        hint = "Pass booleans or floats for labels, and `None` with `threshold=0` for all units."
        received = "integers 0 and 1, which may be indices or labels"
        raise invalid("y", "one index per sample, or labels, of two units", received, hint)
    if not binary and not np.issubdtype(y.dtype, np.integer):
        expected = "units, or an array of 0 and 1 for each unit"
        raise invalid("y", expected, f"values from {y.min():.4g} to {y.max():.4g}")
    return y if binary else None
