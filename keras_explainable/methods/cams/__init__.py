"""Class activation maps: methods that weigh the activations of a layer."""

from keras_explainable.methods._activations import FUSIONS as FUSIONS
from keras_explainable.methods.cams.eigen import eigen_gradcam as eigen_gradcam
from keras_explainable.methods.cams.eigen import eigencam as eigencam
from keras_explainable.methods.cams.linear import cam as cam
from keras_explainable.methods.cams.masked import ablationcam as ablationcam
from keras_explainable.methods.cams.masked import scorecam as scorecam
from keras_explainable.methods.cams.minmax import d_minmax_gradcam as d_minmax_gradcam
from keras_explainable.methods.cams.minmax import d_minmaxcam as d_minmaxcam
from keras_explainable.methods.cams.minmax import minmax_gradcam as minmax_gradcam
from keras_explainable.methods.cams.minmax import minmaxcam as minmaxcam
from keras_explainable.methods.cams.weighted import gradcam as gradcam
from keras_explainable.methods.cams.weighted import gradcam_elementwise as gradcam_elementwise
from keras_explainable.methods.cams.weighted import gradcampp as gradcampp
from keras_explainable.methods.cams.weighted import hirescam as hirescam
from keras_explainable.methods.cams.weighted import layercam as layercam
from keras_explainable.methods.cams.weighted import xgradcam as xgradcam
from keras_explainable.methods.cams.weighted import zoomcam as zoomcam
