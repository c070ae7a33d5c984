"""Explain what a Keras 3 model looked at, for each of its units."""

import typing as _types

import keras as _keras

if int(_keras.__version__.split(".")[0]) < 3:
    raise ImportError(
        f"keras_explainable needs Keras 3, and found Keras {_keras.__version__}. "
        'Run `pip install -U "keras>=3"` (and unset TF_USE_LEGACY_KERAS if it is set).'
    )
if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_explainable runs on the TensorFlow backend of Keras, and found "
        f"{_keras.backend.backend()!r}. Set the environment variable KERAS_BACKEND=tensorflow "
        "before Keras is imported, or change `backend` in ~/.keras/keras.json."
    )

from keras_explainable import callbacks as callbacks
from keras_explainable import diagnostics as diagnostics
from keras_explainable import engine as engine
from keras_explainable import evaluation as evaluation
from keras_explainable import features as features
from keras_explainable import filters as filters
from keras_explainable import inspection as inspection
from keras_explainable import layers as layers
from keras_explainable import losses as losses
from keras_explainable import methods as methods
from keras_explainable import metrics as metrics
from keras_explainable import regularizers as regularizers
from keras_explainable import targets as targets
from keras_explainable import visualization as visualization
from keras_explainable._version import __version__ as __version__
from keras_explainable.engine import Explainer as Explainer
from keras_explainable.engine import Store as Store
from keras_explainable.engine import explain as explain
from keras_explainable.evaluation import Evaluation as Evaluation
from keras_explainable.evaluation import evaluate as evaluate
from keras_explainable.features import maximize_activation as maximize_activation

# Checkers don't run the registry: to them every other name is a shortcut.
if _types.TYPE_CHECKING:

    def __getattr__(name: str) -> engine.Shortcut: ...

else:
    globals().update({name: engine.shortcut(name) for name in methods.names()})
