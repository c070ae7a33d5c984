"""Is what a map shows where the object is?"""

from keras_explainable.metrics.localization import boxes as boxes
from keras_explainable.metrics.localization import pointing as pointing
from keras_explainable.metrics.localization import salient as salient
from keras_explainable.metrics.localization import segmentation as segmentation
