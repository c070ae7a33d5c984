"""Does the prediction depend on what a map shows?"""

from keras_explainable.metrics.faithfulness import correlations as correlations
from keras_explainable.metrics.faithfulness import curves as curves
from keras_explainable.metrics.faithfulness import imputing as imputing
from keras_explainable.metrics.faithfulness import masking as masking
from keras_explainable.metrics.faithfulness import regions as regions
