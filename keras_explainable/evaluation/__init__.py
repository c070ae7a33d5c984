"""Compare methods on data: which explanation to trust."""

from keras_explainable.evaluation.evaluating import evaluate as evaluate
from keras_explainable.evaluation.table import Evaluation as Evaluation
from keras_explainable.evaluation.table import Row as Row
