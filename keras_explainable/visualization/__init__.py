"""Figures and rasters of maps, evaluations and heads; matplotlib is only imported to draw one."""

from keras_explainable.visualization.evaluations import curves as curves
from keras_explainable.visualization.evaluations import table as table
from keras_explainable.visualization.kernels import correlations as correlations
from keras_explainable.visualization.kernels import usage as usage
from keras_explainable.visualization.maps import gallery as gallery
from keras_explainable.visualization.maps import grid as grid
from keras_explainable.visualization.maps import overlay as overlay
from keras_explainable.visualization.rasters import raster as raster
