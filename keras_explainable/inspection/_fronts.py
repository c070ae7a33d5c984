"""Find the affine layers that a model starts with."""

import keras

from keras_explainable.inspection import _heads
from keras_explainable.inspection import _linear

_SCALING = (
    keras.layers.BatchNormalization,
    keras.layers.Normalization,
    keras.layers.Rescaling,
)
_PADDING = (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)


def last_affine(calls):
    """Find what the affine layers that come first make of the only input.

    Args:
        calls: list of `Call`, first ones first.

    Returns:
        list of a tensor, or of none where no kernel is among these layers.
    """
    made = {id(tensor) for call in calls for tensor in call.outputs}
    inputs = {id(t): t for call in calls for t in call.inputs if id(t) not in made}
    if len(inputs) != 1:
        return []
    [tensor] = inputs.values()
    found = []
    while True:
        takers = [call for call in calls if any(t is tensor for t in call.inputs)]
        if len(takers) != 1 or not _is_affine(takers[0]):
            return found
        [tensor] = takers[0].outputs
        # A padding at the end would only make what is summed larger.
        if _linear.is_linear(takers[0].layer) or (found and not _is_padding(takers[0])):
            found = [tensor]


def _is_padding(call):
    return isinstance(call.layer, _PADDING)


def _is_affine(call):
    layer = call.layer
    if len(call.inputs) != 1 or len(call.outputs) != 1:
        return False
    if _linear.is_linear(layer):
        return not _heads.is_nonlinear(layer.activation)
    return _linear.is_one_of(layer, (*_SCALING, *_PADDING))
