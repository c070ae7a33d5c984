"""Methods that follow the attention of transformers."""

from keras_explainable.methods.attention.rolled import attention_rollout as attention_rollout
from keras_explainable.methods.attention.weighted import attention_relevance as attention_relevance
from keras_explainable.methods.attention.weighted import getam as getam
from keras_explainable.methods.attention.weighted import legrad as legrad
