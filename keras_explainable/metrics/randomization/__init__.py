"""Do maps depend on what they should depend on: weights, units, the function of the model?"""

from keras_explainable.metrics.randomization import axioms as axioms
from keras_explainable.metrics.randomization import parameters as parameters
from keras_explainable.metrics.randomization import similarities as similarities
from keras_explainable.metrics.randomization import units as units
