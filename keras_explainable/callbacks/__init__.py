"""Watch explanations while a model is trained, with callbacks of `keras.Model.fit`."""

from keras_explainable.callbacks.explaining import Explain as Explain
from keras_explainable.callbacks.monitoring import Evaluate as Evaluate
