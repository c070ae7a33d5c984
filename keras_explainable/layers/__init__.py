"""Layers for training with explanations, and for serving them."""

from keras_explainable.layers.gradients import InputGradients as InputGradients
from keras_explainable.layers.kernel_usage import KernelUsageConv2D as KernelUsageConv2D
from keras_explainable.layers.kernel_usage import KernelUsageDense as KernelUsageDense
from keras_explainable.layers.kernel_usage import used_kernel as used_kernel
from keras_explainable.layers.maps import ActivationMaps as ActivationMaps
from keras_explainable.layers.maps import with_activation_maps as with_activation_maps
