"""Visualise features: images that excite units, channels or layers of a model."""

from keras_explainable.features.maximizing import Maximization as Maximization
from keras_explainable.features.maximizing import maximize_activation as maximize_activation
