"""Class activation maps: methods that weight the activations of a layer."""

from keras_explainable.methods._activations import FUSIONS as FUSIONS
from keras_explainable.methods._registry import defined_in
from keras_explainable.methods.cams import eigen as eigen
from keras_explainable.methods.cams import linear as linear
from keras_explainable.methods.cams import masked as masked
from keras_explainable.methods.cams import minmax as minmax
from keras_explainable.methods.cams import weighted as weighted

globals().update(defined_in(__name__))
