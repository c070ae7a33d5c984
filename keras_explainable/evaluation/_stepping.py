"""Explain a batch and compute metrics of its maps, in one compiled and distributed step."""

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_explainable import engine
from keras_explainable import inspection
from keras_explainable import methods
from keras_explainable._keeping import Kept
from keras_explainable.inspection import feeding
from keras_explainable.metrics import _arguments
from keras_explainable.metrics import _computing
from keras_explainable.metrics._explaining import Explanations
from keras_explainable.metrics._scoring import probability

_steps = Kept(16)


def step_for(method, model, judged, inputs=None, **arguments):
    """Return the `Step` of earlier calls with the same arguments, or a new one."""
    metrics = {label: [m.registration.name, m.options] for label, m in judged.items()}
    return _steps.get(
        model,
        (method, list(metrics.items()), arguments, keras.tree.map_structure(np.shape, inputs)),
        lambda: Step(method, model, judged, inputs=inputs, **arguments),
    )


class Listening:
    """An exposed model that notes the logits of its inputs when a method calls it.

    Args:
        exposed: `Exposed` model.
        inputs: tensors whose logits are wanted.
    """

    def __init__(self, exposed, inputs):
        self.exposed = exposed
        self.inputs = keras.tree.flatten(inputs)
        self.logits = None

    def __call__(self, inputs, *arguments, **options):
        outputs = self.exposed(inputs, *arguments, **options)
        flat = keras.tree.flatten(inputs)
        same = len(flat) == len(self.inputs)
        if same and all(a is b for a, b in zip(flat, self.inputs, strict=True)):
            logits = keras.tree.flatten(outputs)[0]
            # Those of a loop can't be read outside it.
            if tf.executing_eagerly() or logits.graph is tf.zeros(()).graph:
                self.logits = logits
        return outputs

    def __getattr__(self, name):
        return getattr(self.exposed, name)


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
        self.judged, self.judged_raw, self.judged_outside = {}, {}, {}
        for label, (known, metric_options) in judged.items():
            # What explains again is compiled by itself.
            group = self.judged_outside if "explain" in known.needs else self.judged
            group = self.judged_raw if known.raw else group
            group[label] = known, metric_options
        self.explain_again = functools.partial(engine.explain, method, verbose=0, **arguments)
        self.threshold = threshold
        self.probability = probability(self.judge, activation)
        self.is_exclusive = _is_exclusive(self.probability, self.num_units)

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
        if _is_multi_hot(y, self.num_units):
            y, more["detections"] = None, y
        batch = self._arrays(data["x"], y, {}, self.target)
        index = self.exposed.input_index
        num_samples, *sizes = keras.tree.flatten(batch["inputs"])[index].shape
        sizes = sizes[1:] if index in self.exposed.channels_first else sizes[:-1]
        num_maps = self.num_units
        if "indices" in batch or "argmax" in batch:
            num_maps = batch["indices"].shape[1] if "indices" in batch else 1
        shape = num_samples, *sizes, num_maps
        beside = {**more, "indices": batch.get("indices")}
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
        if self.judged_outside:
            explain = Explanations(self.explain_again, model, self.judge)
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

    def _explain_eagerly(self, data):
        inputs, indices = self._given(data)
        listening = Listening(self.exposed, inputs)
        _, maps = self.method(listening, inputs, indices, **data.get("options", {}))
        logits = listening.logits
        if logits is None:
            logits = keras.tree.flatten(self.judge(inputs, training=False))[0]
        index = self.exposed.input_index
        maps = maps if tf.is_tensor(maps) else keras.tree.flatten(maps)[index]
        arguments = {
            "model": self.judge,
            "x": inputs,
            "maps": self._finish(maps, keras.tree.flatten(inputs)[index]),
            "logits": tf.cast(logits, tf.float32),
            "indices": inspection.unit_indices(logits, indices),
            **keras.tree.map_structure(tf.convert_to_tensor, data["beside"]),
        }
        classes, explained = self._explained(arguments)
        found = _computing.scores(self.judged, arguments)
        raw = arguments | {"maps": tf.cast(maps, tf.float32)}
        found |= _computing.scores(self.judged_raw, raw)
        found = self._fields(found, explained)
        outputs = {"classes": classes, "scores": found}
        if self.judged_outside:
            outputs |= {"explained": explained, **{n: arguments[n] for n in ("maps", "logits")}}
        return outputs

    def _fields(self, found, explained):
        """Return scores as dicts, with no weight for maps of units that aren't explained."""
        judged = self.judged | self.judged_raw | self.judged_outside
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


def _fields(scores, explained):
    """Return scores as a dict, with no weight for maps of units that aren't explained."""
    weights = scores.weights
    if explained is not None and scores.values.shape[1] == explained.shape[1]:
        weights *= explained if weights.shape.rank == 2 else explained[..., None]
    fields = scores._replace(weights=weights)._asdict()
    return {name: field for name, field in fields.items() if field is not None}


def _is_exclusive(function, num_units):
    """Tell whether probabilities add up to 1, as those of a softmax do."""
    probabilities = function(tf.range(num_units, dtype=tf.float32)[None])
    return num_units > 1 and abs(float(tf.reduce_sum(probabilities)) - 1) < 1e-3


def _is_multi_hot(y, num_units):
    """Tell whether there is a 0 or 1 for each unit, rather than indices."""
    if y is None or isinstance(y, str | int):
        return False
    y = np.asarray(y)
    return y.ndim == 2 and y.shape[1] == num_units and set(np.unique(y)) <= {0, 1}
