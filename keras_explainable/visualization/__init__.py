"""Figures of maps and of evaluations; matplotlib is only imported when one is drawn."""

from keras_explainable.visualization.evaluations import curves as curves
from keras_explainable.visualization.evaluations import table as table
from keras_explainable.visualization.maps import gallery as gallery
from keras_explainable.visualization.maps import grid as grid
from keras_explainable.visualization.maps import overlay as overlay
