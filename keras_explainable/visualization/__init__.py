"""Figures of maps, of evaluations and of heads; matplotlib is only imported when one is drawn."""

from keras_explainable.visualization.evaluations import curves as curves
from keras_explainable.visualization.evaluations import table as table
from keras_explainable.visualization.kernels import correlations as correlations
from keras_explainable.visualization.kernels import usage as usage
from keras_explainable.visualization.maps import gallery as gallery
from keras_explainable.visualization.maps import grid as grid
from keras_explainable.visualization.maps import overlay as overlay
