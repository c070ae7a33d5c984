"""Methods that explain with the gradient of the logits by the input."""

from keras_explainable.methods._inputs import REDUCTIONS as REDUCTIONS
from keras_explainable.methods.gradients.full import full_gradients as full_gradients
from keras_explainable.methods.gradients.integrated import RULES as RULES
from keras_explainable.methods.gradients.integrated import (
    integrated_gradients as integrated_gradients,
)
from keras_explainable.methods.gradients.vanilla import gradients as gradients
from keras_explainable.methods.gradients.vanilla import input_x_gradient as input_x_gradient
