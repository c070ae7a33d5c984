"""Run the method of an explainer, and hear the logits of all units on the way."""

from typing import NamedTuple

import keras
import tensorflow as tf


class Heard(NamedTuple):
    """What a method was given and found.

    Attributes:
        inputs: what the exposed model takes.
        indices: units explained, as the method takes them.
        logits: tensor `(batch, units)`, of all units.
        maps: maps of the input that is shown.
        shown: that input.
    """

    inputs: object
    indices: object
    logits: tf.Tensor
    maps: tf.Tensor
    shown: tf.Tensor


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
    _, maps = explainer.method(listening, inputs, indices, **data.get("options", {}))
    logits = listening.logits
    if logits is None:
        logits = keras.tree.flatten(model(inputs, training=False))[0]
    index = explainer.exposed.input_index
    maps = maps if tf.is_tensor(maps) else keras.tree.flatten(maps)[index]
    return Heard(inputs, indices, logits, maps, keras.tree.flatten(inputs)[index])


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
