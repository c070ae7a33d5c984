"""Methods that explain with the gradient of the logits by the input."""

from keras_explainable.methods._inputs import REDUCTIONS as REDUCTIONS
from keras_explainable.methods._registry import defined_in
from keras_explainable.methods.gradients import full as full
from keras_explainable.methods.gradients import guided as guided
from keras_explainable.methods.gradients import integrated as integrated
from keras_explainable.methods.gradients import relevance as relevance
from keras_explainable.methods.gradients import vanilla as vanilla
from keras_explainable.methods.gradients.integrated import RULES as RULES

globals().update(defined_in(__name__))
