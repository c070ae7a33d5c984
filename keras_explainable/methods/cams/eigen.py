"""Methods that show the principal component of activations."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.inspection import gather_units
from keras_explainable.methods._activations import explain_layers
from keras_explainable.methods._activations import exposed_outputs
from keras_explainable.methods._activations import fuse
from keras_explainable.methods._registry import explaining_method


@explaining_method(family="cam", postprocessing="positive_normalize", axioms={"flip_equivariance"})
def eigencam(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    centered: bool = True,
    fusion: str = "mean",
) -> Tensors:
    r"""Explain an input with Eigen-CAM, the first principal component of its activations.

    .. math:: M = X v, \quad v = \arg\max_{\lVert v \rVert = 1} \lVert X v \rVert, \quad
              X_{ij,k} = A_{ijk} - \frac{1}{hw} \sum_{ab} A_{abk}

    Of the two signs of a component, it takes the one that goes with the sum of the activations.
    The map doesn't depend on the unit: every unit gets the same. Cost: one forward pass, and the
    eigenvectors of a matrix of as many rows as there are positions, or kernels if those are fewer.

    Args:
        model: as in `gradcam`.
        inputs: as in `gradcam`.
        indices: units to explain, as in `gradcam`. Defaults to every unit.
        centered: take the mean over positions off the activations first, as principal components
            have it; without, the map is that of the equation in the paper. Defaults to True.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: activation.

    Raises:
        ValueError: if the activations have no positions, or the logits are not `(batch, units)`.

    References:
        - Muhammad, Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", IJCNN
          2020. arXiv 2008.00299.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.eigencam(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """
    logits, layers = exposed_outputs(model, inputs, fusion)
    logits = gather_units(logits, indices)
    maps = [first_component(tf.cast(tensor, tf.float32), centered) for tensor in layers]
    maps = [tf.repeat(m[..., None], tf.shape(logits)[-1], axis=-1) for m in maps]
    return logits, fuse(maps, model, inputs, fusion)


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
)
def eigen_gradcam(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    centered: bool = True,
    fusion: str = "mean",
) -> Tensors:
    r"""Explain units with Eigen-Grad-CAM, the first component of activations times gradients.

    .. math:: M_u = X v, \quad v = \arg\max_{\lVert v \rVert = 1} \lVert X v \rVert, \quad
              X_{ij,k} = B_{ijk} - \frac{1}{hw} \sum_{ab} B_{abk}, \quad
              B = A \odot \frac{\partial \ell_u}{\partial A}

    Of the two signs of a component, it takes the one that goes with `hirescam`. Cost: one forward
    pass, and per explained unit a backward pass from the logits to the activations or, behind a
    linear head, a product with its kernel, and the eigenvectors of a matrix of as many rows as
    there are positions, or kernels if fewer.

    Args:
        model: as in `gradcam`.
        inputs: as in `gradcam`.
        indices: units to explain, as in `gradcam`. Defaults to every unit.
        centered: as in `eigencam`.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: as `gradcam`.

    References:
        - Gildenblat et al., "PyTorch library for CAM methods", 2021, its `EigenGradCAM`; there is
          no paper.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.eigen_gradcam(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """

    def explain(activations, gradient):
        return first_component(activations * gradient, centered)

    return explain_layers(model, inputs, indices, explain, fusion=fusion, whole=True)


def first_component(tensor: tf.Tensor, centered: bool) -> tf.Tensor:
    """Project `(batch, *positions, kernels)` on its first principal component."""
    shape = tf.shape(tensor)
    # In double precision, for the matrices below have the squares of the singular values.
    rows = tf.cast(tf.reshape(tensor, (shape[0], -1, tensor.shape[-1])), tf.float64)
    direction = tf.reduce_sum(rows, axis=-1)
    if centered:
        rows -= tf.reduce_mean(rows, axis=1, keepdims=True)
    positions = tensor.shape[1:-1].num_elements()
    if positions is not None and positions <= tensor.shape[-1]:
        values, vectors = tf.linalg.eigh(tf.matmul(rows, rows, transpose_b=True))
        component = tf.sqrt(tf.nn.relu(values[:, -1:])) * vectors[..., -1]
    else:
        _, vectors = tf.linalg.eigh(tf.matmul(rows, rows, transpose_a=True))
        component = tf.linalg.matvec(rows, vectors[..., -1])
    agreement = tf.reduce_sum(component * direction, axis=1, keepdims=True)
    component = tf.where(agreement < 0, -component, component)
    return tf.reshape(tf.cast(component, tf.float32), shape[:-1])
