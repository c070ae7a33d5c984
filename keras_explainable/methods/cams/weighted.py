"""Methods that weigh the activations of a layer by the gradients of the logits."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_explainable import _axes
from keras_explainable import inspection
from keras_explainable._typing import Inputs
from keras_explainable._typing import Tensors
from keras_explainable._typing import Units
from keras_explainable.methods._activations import einsum
from keras_explainable.methods._activations import explain_layers
from keras_explainable.methods._activations import is_everywhere
from keras_explainable.methods._activations import mean_over_positions
from keras_explainable.methods._activations import num_positions
from keras_explainable.methods._activations import weighted_sum
from keras_explainable.methods._registry import explaining_method


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"cam_is_gradcam", "class_sensitivity", "flip_equivariance", "linearity"},
)
def gradcam(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, fusion: str = "mean"
) -> Tensors:
    r"""Explain units with Grad-CAM, activations weighted by the mean gradient of the logit.

    .. math:: M_u = \sum_k \alpha_{uk} A_k, \quad
              \alpha_{uk} = \frac{1}{hw} \sum_{ij} \frac{\partial \ell_u}{\partial A_{ijk}}

    On a head that is one global average pooling and one linear layer, it is `cam` divided by the
    number of positions. Cost: one forward pass, and a backward pass from the logits to the
    activations per explained unit, or per position where those are fewer; with such a head, whose
    kernel is the gradient, a product with its kernel.

    Args:
        model: model that returns `[logits, *activations]`, see `inspection.expose`.
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        fusion: how the maps of several layers become one: "mean", "max" or "product", after each
            is rectified, stretched to [0, 1] and resized to the input. Without effect on one layer.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: if the activations have no positions, the logits are not `(batch, units)` or
            don't depend on the activations, or `fusion` is unknown.

    References:
        - Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
          Localization", ICCV 2017, equations 1 and 2. arXiv 1610.02391.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.gradcam(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """

    def explain(activations, gradient):
        return einsum("b...k,bk->b...", activations, mean_over_positions(gradient))

    return explain_layers(model, inputs, indices, explain, fusion=fusion, linear=True)


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"cam_is_gradcam", "class_sensitivity", "flip_equivariance", "linearity"},
)
def hirescam(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, fusion: str = "mean"
) -> Tensors:
    r"""Explain units with HiResCAM, activations times the gradient of the logit, place by place.

    .. math:: M_u = \sum_k A_k \odot \frac{\partial \ell_u}{\partial A_k}

    The sum of a map is the logit less its bias where the activations enter the logit through
    linear layers only. On a head that is one global average pooling and one linear layer, it is
    `gradcam`. Cost: that of `gradcam`.

    Args:
        model: as in `gradcam`.
        inputs: as in `gradcam`.
        indices: units to explain, as in `gradcam`. Defaults to every unit.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: as `gradcam`.

    References:
        - Draelos, Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
          convolutional neural networks", 2020. arXiv 2011.08891.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.hirescam(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """
    return explain_layers(model, inputs, indices, weighted_sum, fusion=fusion, linear=True)


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
)
def gradcam_elementwise(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, fusion: str = "mean"
) -> Tensors:
    r"""Explain units with element-wise Grad-CAM, the positive products of activation and gradient.

    .. math:: M_u = \sum_k \Big[ A_k \odot \frac{\partial \ell_u}{\partial A_k} \Big]^+

    It is `hirescam` with every kernel rectified before the sum, so that none takes away from
    another. Cost: one forward pass, and per explained unit a backward pass from the logits to the
    activations or, behind a linear head, a product with its kernel.

    Args:
        model: as in `gradcam`.
        inputs: as in `gradcam`.
        indices: units to explain, as in `gradcam`. Defaults to every unit.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: as `gradcam`.

    References:
        - Gildenblat et al., "PyTorch library for CAM methods", 2021, its `GradCAMElementWise`;
          there is no paper.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.gradcam_elementwise(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """

    def explain(activations, gradient):
        if not is_everywhere(gradient):
            return tf.reduce_sum(tf.nn.relu(activations * gradient), axis=-1)
        # A product is positive where both factors are, or neither.
        positive = weighted_sum(tf.nn.relu(activations), tf.nn.relu(gradient))
        return positive + weighted_sum(tf.nn.relu(-activations), tf.nn.relu(-gradient))

    return explain_layers(model, inputs, indices, explain, fusion=fusion)


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"cam_is_gradcam", "class_sensitivity", "flip_equivariance", "linearity"},
)
def xgradcam(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, fusion: str = "mean"
) -> Tensors:
    r"""Explain units with XGrad-CAM, activations weighted by their own share in the gradient.

    .. math:: M_u = \sum_k \alpha_{uk} A_k, \quad \alpha_{uk} = \sum_{ij}
              \frac{A_{ijk}}{\sum_{ab} A_{abk}} \frac{\partial \ell_u}{\partial A_{ijk}}

    A kernel whose activations sum to zero counts for nothing. On a head that is one global
    average pooling and one linear layer, it is `gradcam`. Cost: that of `gradcam`.

    Args:
        model: as in `gradcam`.
        inputs: as in `gradcam`.
        indices: units to explain, as in `gradcam`. Defaults to every unit.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: as `gradcam`.

    References:
        - Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs",
          BMVC 2020, equation 8. arXiv 2008.02312.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.xgradcam(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """

    def explain(activations, gradient):
        positions = _axes.spatial(activations.shape.rank)
        total = tf.reduce_sum(activations, positions)
        if is_everywhere(gradient):
            products = total * tf.reshape(gradient, (-1, gradient.shape[-1]))
        else:
            products = tf.reduce_sum(activations * gradient, positions)
        weights = tf.math.divide_no_nan(products, total)
        return einsum("b...k,bk->b...", activations, weights)

    return explain_layers(model, inputs, indices, explain, fusion=fusion, linear=True)


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
)
def layercam(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, fusion: str = "mean"
) -> Tensors:
    r"""Explain units with LayerCAM, activations weighted by their own positive gradient.

    .. math:: M_u = \sum_k A_k \odot \Big[ \frac{\partial \ell_u}{\partial A_k} \Big]^+

    It was made for the early layers of a network too, where maps are fine. Cost: one forward
    pass, and per explained unit a backward pass from the logits to the activations or, behind a
    linear head, a product with its kernel.

    Args:
        model: as in `gradcam`.
        inputs: as in `gradcam`.
        indices: units to explain, as in `gradcam`. Defaults to every unit.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: as `gradcam`.

    References:
        - Jiang, Zhang, Hou, Cheng, Wei, "LayerCAM: Exploring Hierarchical Class Activation Maps for
          Localization", IEEE TIP 2021, equations 7 and 8.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.layercam(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """

    def explain(activations, gradient):
        return weighted_sum(activations, tf.nn.relu(gradient))

    return explain_layers(model, inputs, indices, explain, fusion=fusion)


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
)
def gradcampp(
    model: keras.Model,
    inputs: Inputs,
    indices: Units = None,
    *,
    normalize_alpha: bool = False,
    fusion: str = "mean",
) -> Tensors:
    r"""Explain units with Grad-CAM++, activations weighted by their positive gradients.

    .. math:: M_u = \sum_k w_{uk} A_k, \quad w_{uk} = \sum_{ij} a_{ijk} D_{ijk}^+, \quad
              a_{ijk} = \frac{D_{ijk}^2}{2 D_{ijk}^2 + D_{ijk}^3 \sum_{ab} A_{abk}}, \quad
              D = \frac{\partial \ell_u}{\partial A}

    with :math:`a_{ijk}` 0 where :math:`D_{ijk}` is 0. The paper differentiates
    :math:`\exp(\ell_u)`, which multiplies a map by that positive constant; it is left out, for it
    overflows. Cost: one forward pass, and per explained unit a backward pass from the logits to the
    activations or, behind a linear head, a product with its kernel.

    Args:
        model: as in `gradcam`.
        inputs: as in `gradcam`.
        indices: units to explain, as in `gradcam`. Defaults to every unit.
        fusion: how several layers are fused, as in `gradcam`. Defaults to "mean".
        normalize_alpha: divide :math:`a` by its sum over the positions where the gradient is
            positive, as the authors' code does and their equation does not. Defaults to False.

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *positions, n)`, raw. Unit: logit.

    Raises:
        ValueError: as `gradcam`.

    References:
        - Chattopadhay, Sarkar, Howlader, Balasubramanian, "Grad-CAM++: Improved Visual Explanations
          for Deep Convolutional Networks", WACV 2018, equation 19. arXiv 1710.11063.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.gradcampp(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """

    def explain(activations, gradient):
        positions = _axes.spatial(activations.shape.rank)
        total = tf.reduce_sum(activations, positions, keepdims=True)
        positive = tf.nn.relu(gradient)
        # Reduced by the squared gradient, which may underflow.
        alpha = tf.math.divide_no_nan(tf.sign(positive), 2.0 + positive * total)
        weights = mean_over_positions(alpha * positive)
        if normalize_alpha:
            weights = tf.math.divide_no_nan(weights, mean_over_positions(alpha))
        else:
            weights *= tf.cast(num_positions(activations), tf.float32)
        return einsum("b...k,bk->b...", activations, weights)

    return explain_layers(model, inputs, indices, explain, fusion=fusion)


@explaining_method(
    family="cam",
    postprocessing="positive_normalize",
    axioms={"class_sensitivity", "flip_equivariance"},
    expose=inspection.expose_rectified,
)
def zoomcam(
    model: keras.Model, inputs: Inputs, indices: Units = None, *, fusion: str = "max"
) -> Tensors:
    r"""Explain units with Zoom-CAM, the rectified maps of many layers fused.

    .. math:: M_u = \max_l \, \mathrm{up} \, \psi \left( \Big[ \sum_k A_{lk} \odot
              \frac{\partial \ell_u}{\partial A_{lk}} \Big]^+ \right)

    with :math:`\psi` the stretching to [0, 1] and :math:`\mathrm{up}` the resizing to the input.
    The layers are all spatial activations of the network unless `layer` lists others. Cost: one
    forward and one backward pass per explained unit, which give the maps of all layers.

    Args:
        model: model that returns `[logits, *activations]`, see `inspection.expose_rectified`.
        inputs: tensor `(batch, *sizes, channels)`, or the structure that the model takes.
        indices: units to explain, as in `inspection.gather_units`. Defaults to every unit.
        fusion: how the maps of the layers become one: "max" (as in the paper), "mean" or "product".

    Returns:
        logits: float32 `(batch, n)`, before any activation.
        maps: float32 `(batch, *sizes, n)`, at the size of the input. From 0 to 1.

    Raises:
        ValueError: as `gradcam`.

    References:
        - Shi, Khademi, Li, van Gemert, "Zoom-CAM: Generating Fine-grained Pixel Annotations from
          Image Labels", ICPR 2020. arXiv 2010.08644.

    Example:
        >>> import keras, numpy as np, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> logits, maps = ke.zoomcam(model, np.ones((1, 64, 64, 3)), "argmax")
        >>> maps.shape
        (1, 64, 64, 1)
    """
    return explain_layers(model, inputs, indices, weighted_sum, fusion=fusion, always_fuse=True)
