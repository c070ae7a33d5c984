"""Look inside a model: its logits, its activations, its layers."""

from keras_explainable.inspection import feeding as feeding
from keras_explainable.inspection._heads import has_linear_kernel as has_linear_kernel
from keras_explainable.inspection._heads import linear_kernel as linear_kernel
from keras_explainable.inspection._targets import Target as Target
from keras_explainable.inspection._targets import as_target as as_target
from keras_explainable.inspection._targets import with_data as with_data
from keras_explainable.inspection.attending import expose_attention as expose_attention
from keras_explainable.inspection.exposing import Exposed as Exposed
from keras_explainable.inspection.exposing import expose as expose
from keras_explainable.inspection.exposing import expose_affine as expose_affine
from keras_explainable.inspection.exposing import expose_biases as expose_biases
from keras_explainable.inspection.exposing import expose_rectified as expose_rectified
from keras_explainable.inspection.exposing import head_kernel as head_kernel
from keras_explainable.inspection.guiding import expose_guided as expose_guided
from keras_explainable.inspection.relevance import COMPOSITES as COMPOSITES
from keras_explainable.inspection.relevance import expose_relevance as expose_relevance
from keras_explainable.inspection.searching import find_layers as find_layers
from keras_explainable.inspection.searching import layers_with_bias as layers_with_bias
from keras_explainable.inspection.units import gather_units as gather_units
from keras_explainable.inspection.units import unit_indices as unit_indices
