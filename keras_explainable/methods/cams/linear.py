"""CAM: activations weighted by the kernel of a linear head."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import head_kernel
from keras_explainable.inspection import unit_indices
from keras_explainable.methods._activations import einsum
from keras_explainable.methods._activations import pooled_outputs
from keras_explainable.methods._registry import explaining_method


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"cam_is_gradcam", "class_sensitivity", "flip_equivariance"},
    needs="linear head",
)
def cam(model: keras.Model, inputs: Inputs, indices: Units = None) -> Tensors:
    r"""Explain units with CAM, the share of each position in a logit that averages them.

    .. math:: M_u = \sum_k W_{ku} A_k

    The bias of the head is left out, so a logit is the mean of its map plus the bias. Cost: one
    forward pass, whatever the number of units.

    Args:
        model: model made by `inspection.expose`, whose head is one global average pooling and one
            linear layer (Dense or 1×1 convolution).
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: if the head is another one; the message says what was found.

    References:
        - Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative
          Localization", CVPR 2016. arXiv 1512.04150.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.cam(model, np.ones((1, 64, 64, 3)), 7, resizing=False)
        >>> maps.shape
        (1, 2, 2, 1)
    """
    logits, activations = pooled_outputs(model, inputs)
    kernel = head_kernel(model)
    indices = unit_indices(logits, indices)
    if indices is None:
        maps = einsum("b...k,ku->b...u", activations, kernel)
    else:
        maps = einsum("b...k,kbu->b...u", activations, tf.gather(kernel, indices, axis=1))
    return gather_units(logits, indices), maps
