"""Figures and rasters of maps and of evaluations; matplotlib is only imported to draw one."""

from keras_explainable.visualization.evaluations import curves as curves
from keras_explainable.visualization.evaluations import table as table
from keras_explainable.visualization.maps import gallery as gallery
from keras_explainable.visualization.maps import grid as grid
from keras_explainable.visualization.maps import overlay as overlay
from keras_explainable.visualization.rasters import raster as raster
