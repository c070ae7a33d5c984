"""Meta methods: functions from a method to a method that runs it several times."""

from keras_explainable.methods.meta.augmenting import REDUCTIONS as REDUCTIONS
from keras_explainable.methods.meta.augmenting import tta as tta
from keras_explainable.methods.meta.combining import guided as guided
from keras_explainable.methods.meta.noise import STATISTICS as STATISTICS
from keras_explainable.methods.meta.noise import smooth as smooth
from keras_explainable.methods.meta.taylor import smooth_taylor as smooth_taylor
