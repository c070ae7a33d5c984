"""Metrics of explanations: functions of arrays, and `keras.metrics.Metric`s by the same names."""

from __future__ import annotations

from typing import Any

from keras_explainable.metrics import faithfulness as faithfulness
from keras_explainable.metrics import fixations as fixations
from keras_explainable.metrics import localization as localization
from keras_explainable.metrics import randomization as randomization
from keras_explainable.metrics import robustness as robustness
from keras_explainable.metrics import spread as spread
from keras_explainable.metrics._computing import function_of as _function_of
from keras_explainable.metrics._registry import CATEGORIES as CATEGORIES
from keras_explainable.metrics._registry import Registration as Registration
from keras_explainable.metrics._registry import describe as describe
from keras_explainable.metrics._registry import explanation_metric as explanation_metric
from keras_explainable.metrics._registry import names as names
from keras_explainable.metrics._registry import registration as registration
from keras_explainable.metrics._scoring import Scores as Scores
from keras_explainable.metrics._stateful import ExplanationMetric as ExplanationMetric
from keras_explainable.metrics._stateful import class_of as _class_of
from keras_explainable.metrics._stateful import get as get
from keras_explainable.metrics._sweeping import ThresholdSweep as ThresholdSweep
from keras_explainable.metrics.localization.boxes import box_masks as box_masks
from keras_explainable.metrics.localization.boxes import extract_boxes as extract_boxes


def __dir__() -> list[str]:
    return sorted({*globals(), *names(), *(registration(name).class_name for name in names())})


def __getattr__(name: str) -> Any:
    """Find the function and the class of every registered metric."""
    if name in names():
        return _function_of(name)
    for metric in names():
        if registration(metric).class_name == name:
            return _class_of(metric)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
