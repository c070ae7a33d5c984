"""The engine: a method over data, compiled and distributed."""

from keras_explainable.engine.explaining import Explainer as Explainer
from keras_explainable.engine.explaining import explain as explain
from keras_explainable.engine.shortcuts import Shortcut as Shortcut
from keras_explainable.engine.shortcuts import shortcut as shortcut
from keras_explainable.engine.storing import Store as Store
