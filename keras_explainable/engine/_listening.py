"""Run the method of an explainer, and hear the logits of all units on the way."""

from typing import NamedTuple

import keras
import tensorflow as tf

from keras_explainable import inspection


class Heard(NamedTuple):
    """What a method was given and found.

    Attributes:
        inputs: what the exposed model takes.
        indices: units explained, as the method takes them.
        logits: tensor `(batch, units)`, of all units.
        maps: maps of the input that is shown.
        shown: that input.
        returned: logits and maps, as the method returned them.
    """

    inputs: object
    indices: object
    logits: tf.Tensor
    maps: tf.Tensor
    shown: tf.Tensor
    returned: tuple

    @property
    def units(self):
        """Units explained, an int32 tensor `(batch, n)`."""
        units = inspection.unit_indices(self.logits, self.indices)
        if units is None:
            units = tf.zeros_like(self.logits, tf.int32) + tf.range(tf.shape(self.logits)[-1])
        return tf.cast(units, tf.int32)


def listened(explainer, data, model):
    """Run the method of an explainer on a batch.

    Args:
        explainer: `Explainer`.
        data: batch, in the form that its step takes.
        model: model that returns the logits, for a method that doesn't compute them of the inputs.

    Returns:
        `Heard`.
    """
    inputs, indices = explainer._given(data)
    listening = _Listening(explainer.exposed, inputs)
    returned = explainer._apply(listening, inputs, indices, data.get("options", {}))
    logits = listening.logits
    if logits is None:
        logits = keras.tree.flatten(model(inputs, training=False))[0]
    index = explainer.exposed.input_index
    maps = returned[1] if tf.is_tensor(returned[1]) else keras.tree.flatten(returned[1])[index]
    return Heard(inputs, indices, logits, maps, keras.tree.flatten(inputs)[index], returned)


class _Listening:
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
