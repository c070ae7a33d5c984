"""Attention methods against NumPy, and every method on a transformer whose attention is known."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_explainable as ke
from tests import token_zoo

pytestmark = pytest.mark.usefixtures("_eagerly")

RAW = {"postprocessing": None, "resizing": False}
LENGTH = {"class": token_zoo.SIDE**2 + 1, "mean": token_zoo.SIDE**2}
_erf = np.vectorize(math.erf)


class Truth:
    """The functional transformer of the zoo in NumPy, in double precision."""

    def __init__(self, pooling):
        self.pooling = pooling
        self.model = token_zoo.functional(pooling)
        self.scores = [np.stack([self.forward(x[None])[1][k][0] for x in token_zoo.IMAGES])
                       for k in range(token_zoo.BLOCKS)]  # fmt: skip

    def _weights(self, name):
        return [w.numpy().astype("float64") for w in self.model.get_layer(name).weights]

    def _normalize(self, x, name):
        gamma, beta = self._weights(name)
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * gamma + beta

    def forward(self, images, moved=None):
        """Return logits, and the scores of each block, to which `moved` is added."""
        kernel, bias = self._weights("patch")
        patches = images.astype("float64").reshape(-1, 4, 2, 4, 2, 3).transpose(0, 1, 3, 2, 4, 5)
        x = np.einsum("nhwijc,ijck->nhwk", patches, kernel).reshape(-1, 16, 8) + bias
        if self.pooling == "class":
            token = np.broadcast_to(self._weights("token")[0], (len(x), 1, 8))
            x = np.concatenate([token, x], axis=1)
        x, found = x + self._weights("position")[0], []
        for k in range(token_zoo.BLOCKS):
            wq, bq, wk, bk, wv, bv, wo, bo = self._weights(f"attention_{k}")
            y = self._normalize(x, f"first_{k}")
            query, key, value = (
                np.einsum("ntc,chd->nhtd", y, w) + b[:, None]
                for w, b in ((wq, bq), (wk, bk), (wv, bv))
            )
            products = np.einsum("nhtd,nhsd->nhts", query, key) / np.sqrt(query.shape[-1])
            scores = np.exp(products - products.max(-1, keepdims=True))
            scores = scores / scores.sum(-1, keepdims=True)
            found.append(scores)
            scores = scores if moved is None else scores + moved[k]
            x = x + np.einsum("nhts,nhsd,hdc->ntc", scores, value, wo) + bo
            y = self._normalize(x, f"second_{k}")
            (wide, b), (narrow, c) = self._weights(f"wide_{k}"), self._weights(f"narrow_{k}")
            y = y @ wide + b
            x = x + (y * (1 + _erf(y / np.sqrt(2))) / 2) @ narrow + c
        x = self._normalize(x, "last")
        kernel, bias = self._weights("head")
        x = x[:, 0] if self.pooling == "class" else x.mean(1)
        return x @ kernel + bias, found

    @functools.cached_property
    def gradients(self):
        """Differentiate logits by scores: `(blocks, batch, units, heads, rows, columns)`."""
        shape = self.scores[0].shape[1:]
        count, step = math.prod(shape), 1e-5
        moves = step * np.eye(count).reshape(count, *shape)
        found = np.zeros((token_zoo.BLOCKS, len(token_zoo.IMAGES), token_zoo.UNITS, *shape))
        for k in range(token_zoo.BLOCKS):
            for n, image in enumerate(token_zoo.IMAGES):
                images = np.broadcast_to(image, (count, *image.shape))
                up, down = (
                    self.forward(images, [s * moves if i == k else 0 for i in range(2)])[0]
                    for s in (1, -1)
                )
                found[k, n] = ((up - down) / (2 * step)).T.reshape(-1, *shape)
        return found

    def patches(self, rows):
        """Take the row of the class token, or the mean, without the class token's column."""
        relevance = rows[..., 0, 1:] if self.pooling == "class" else rows.mean(-2)
        return relevance.reshape(*relevance.shape[:-1], 4, 4)


def attention_rollout(truth, heads="mean", discard_ratio=0.0):
    rolled = np.eye(LENGTH[truth.pooling])
    for scores in truth.scores:
        fused = getattr(np, heads)(scores, axis=1)
        for sample in fused:
            count = int(discard_ratio * sample.size)
            sample.ravel()[np.argsort(sample.ravel(), kind="stable")[:count]] = 0
        mixed = 0.5 * fused + 0.5 * np.eye(fused.shape[-1])
        rolled = mixed / mixed.sum(-1, keepdims=True) @ rolled
    return np.repeat(truth.patches(rolled)[:, None], token_zoo.UNITS, axis=1)


def getam(truth, first_block=1):
    total = 0
    for gradient, scores in list(zip(truth.gradients, truth.scores, strict=True))[first_block:]:
        weighed = np.maximum(gradient * scores[:, None], 0).mean(2)
        total = total + weighed * np.maximum(gradient, 0).mean(2)
    return truth.patches(total)


def legrad(truth):
    columns = np.maximum(truth.gradients, 0).mean((0, 3, 4))
    columns = columns[..., 1:] if truth.pooling == "class" else columns
    return columns.reshape(*columns.shape[:-1], 4, 4)


def attention_relevance(truth):
    relevance = np.eye(LENGTH[truth.pooling])
    for gradient, scores in zip(truth.gradients, truth.scores, strict=True):
        weighed = np.maximum(gradient * scores[:, None], 0).mean(2)
        relevance = relevance + weighed @ relevance
    return truth.patches(relevance)


CASES = [
    (attention_rollout, {}),
    (attention_rollout, {"heads": "max"}),
    (attention_rollout, {"heads": "min", "discard_ratio": 0.5}),
    (getam, {}),
    (getam, {"first_block": 0}),
    (legrad, {}),
    (attention_relevance, {}),
]


@functools.cache
def _truth(pooling):
    return Truth(pooling)


def test_every_attention_method_has_an_oracle():
    named = {n for n in ke.methods.names() if ke.methods.registration(n).family == "attention"}
    assert named == {oracle.__name__ for oracle, _ in CASES}


@pytest.mark.parametrize("pooling", token_zoo.POOLINGS)
def test_exposed_scores_are_those_of_every_block(pooling):
    truth = _truth(pooling)
    exposed = ke.inspection.expose_attention(truth.model)
    logits, *scores = exposed(token_zoo.IMAGES)
    np.testing.assert_allclose(logits, truth.forward(token_zoo.IMAGES)[0], atol=1e-4)
    assert len(scores) == token_zoo.BLOCKS
    for actual, desired in zip(scores, truth.scores, strict=True):
        np.testing.assert_allclose(actual, desired, atol=1e-5)


@pytest.mark.parametrize("pooling", token_zoo.POOLINGS)
@pytest.mark.parametrize(("oracle", "options"), CASES)
def test_maps_are_those_of_the_equation(oracle, options, pooling):
    truth = _truth(pooling)
    _, maps = ke.explain(oracle.__name__, truth.model, token_zoo.IMAGES, **RAW, **options)
    expected = np.moveaxis(oracle(truth, **options), 1, -1)
    np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())


def _of_tokens(is_subclassed=False):
    """Return a transformer with a class token and scores of every token, in either make."""
    pooled = token_zoo.functional("class")
    x = pooled.get_layer("last").output
    random = keras.initializers.RandomNormal(seed=0)
    model = keras.Model(pooled.input, layers.Dense(2, kernel_initializer=random)(x))
    if not is_subclassed:
        return model

    class WithTensorFlow(keras.Model):
        def __init__(self):
            super().__init__()
            self.model = model

        def call(self, x):
            return self.model(tf.reverse(tf.reverse(x, [1]), [1]))

    subclassed = WithTensorFlow()
    subclassed(token_zoo.IMAGES)
    return subclassed


@pytest.mark.parametrize("is_subclassed", [False, True])
def test_target_at_a_token_is_explained_by_the_attention_of_that_token(is_subclassed):
    model, images = _of_tokens(is_subclassed), tf.constant(token_zoo.IMAGES)
    exposed = ke.inspection.expose_attention(_of_tokens(), ke.targets.values())
    found = []
    for token in (4, 9):
        target = ke.targets.position(token)
        _, maps = ke.getam(model, token_zoo.IMAGES, 1, output=target, first_block=1, **RAW)
        with tf.GradientTape() as tape:
            outputs, *_, last = exposed(images)
            score = outputs[:, 2 * token + 1]
        gradients = tape.gradient(score, last).numpy()
        terms = (np.maximum(last * gradients, 0).mean(1), np.maximum(gradients, 0).mean(1))
        row = (terms[0] * terms[1])[:, token, 1:].reshape(-1, 4, 4)
        assert np.ptp(row, axis=(1, 2)).min() > 0
        np.testing.assert_allclose(maps[..., 0] * 17, row, atol=1e-4 * row.max())
        found.append(maps)
    assert np.abs(found[0] - found[1]).max() > 0.1 * np.abs(found[0]).max()


@pytest.mark.parametrize("method", sorted({oracle.__name__ for oracle, _ in CASES}))
def test_target_on_all_tokens_has_no_row_of_its_own(method):
    target = ke.targets.segment("all")
    exposed = ke.inspection.expose_attention(_of_tokens(), target)
    assert exposed.query is None
    _, maps = ke.explain(method, _of_tokens(), token_zoo.IMAGES, output=target, **RAW)
    assert np.ptp(maps, axis=(1, 2)).min() > 0


def test_options_are_checked():
    model, images = token_zoo.functional("class"), token_zoo.IMAGES
    with pytest.raises(ValueError, match=r"`heads`.*mean, max, min.*'sum'"):
        ke.attention_rollout(model, images, heads="sum")
    with pytest.raises(ValueError, match=r"`discard_ratio`.*below 1.*1\.0"):
        ke.attention_rollout(model, images, discard_ratio=1)
    with pytest.raises(ValueError, match=r"`first_block`.*the 2 blocks.*2"):
        ke.getam(model, images, first_block=2)
    with pytest.raises(ValueError, match=r"`layer`.*attention of all layers.*'patch'"):
        ke.legrad(model, images, layer="patch")
    with pytest.raises(ValueError, match=r"`model`.*expose_attention"):
        ke.methods.legrad(ke.inspection.expose(model), images)


def test_attention_of_one_head_without_weights_is_followed():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x))
    x = layers.Attention(name="attention")([x, x])
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    exposed = ke.inspection.expose_attention(model)
    assert [tuple(t.shape) for t in exposed.outputs] == [(None, 2), (None, 16, 16)]
    _, maps = ke.attention_rollout(model, token_zoo.IMAGES, **RAW)
    tokens = keras.Model(inputs, model.get_layer("attention").input[0])(token_zoo.IMAGES)
    scores = tf.nn.softmax(tf.matmul(tokens, tokens, transpose_b=True)).numpy()
    np.testing.assert_allclose(
        maps[..., 0], ((scores + np.eye(16)) / 2).mean(1).reshape(-1, 4, 4), atol=1e-6
    )


def test_attention_of_a_series_gives_a_map_of_its_steps():
    x = inputs = keras.Input((9, 4))
    x = x + layers.MultiHeadAttention(2, 2)(x, x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    series = np.random.default_rng(0).normal(size=(2, 9, 4)).astype("float32")
    for method in ("legrad", "attention_rollout", "gradcam"):
        assert ke.explain(method, model, series)[1].shape == (2, 9, 2)


class Closed(layers.Layer):
    """Attends, and calls a TensorFlow function, so that it can't be opened."""

    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(1, 2, name="hidden")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.built = True

    def call(self, x):
        return tf.add(x, self.attention(x, x))


def test_attention_that_is_left_out_is_warned_of():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x))
    x = x + layers.MultiHeadAttention(1, 2)(x, x)
    x = layers.GlobalAveragePooling1D()(Closed()(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.warns(UserWarning, match=r"attention of \['hidden'\].*can't be reached"):
        assert len(ke.inspection.expose_attention(model).outputs) == 2
