"""Where tokens are found in images, and what is said where they aren't."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras import ops

import keras_explainable as ke
from tests import token_zoo

pytestmark = pytest.mark.usefixtures("_eagerly")

IMAGES = token_zoo.IMAGES
RAW = {"postprocessing": None, "resizing": False}


def _head(inputs, x):
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def _grid(model, layer=None, **options):
    """Return what an endpoint is exposed as, the logits checked."""
    exposed = ke.inspection.expose(model, layer, **options)
    logits, activations = exposed(IMAGES)
    alone = ke.inspection.expose(model, ())(IMAGES)
    np.testing.assert_allclose(logits, alone[0] if isinstance(alone, list) else alone, atol=1e-5)
    resumed = exposed.resume(tf.constant(IMAGES), activations)
    np.testing.assert_allclose(resumed, logits, rtol=1e-5, atol=1e-6)
    return activations.numpy()


class Patches(layers.Layer):
    """Cuts an image into patches, and puts other tokens before them."""

    def __init__(self, size, extra=0, **arguments):
        super().__init__(**arguments)
        self.size, self.extra = size, extra

    def call(self, images):
        patches = ops.image.extract_patches(images, self.size)
        patches = ops.reshape(patches, (-1, (8 // self.size) ** 2, 3 * self.size**2))
        return ops.pad(patches, ((0, 0), (self.extra, 0), (0, 0)))


class Embedding(layers.Layer):
    """A convolution and register tokens in one layer."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.convolution = layers.Conv2D(4, (2, 4), strides=(2, 4))

    def build(self, shape):
        self.convolution.build(shape)
        self.built = True

    def call(self, images):
        patches = ops.reshape(self.convolution(images), (-1, 8, 4))
        return ops.pad(patches, ((0, 0), (3, 0), (0, 0)))


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_patches_of_a_layer_that_cuts_them_are_square(extra):
    x = inputs = keras.Input((8, 8, 3))
    model = _head(inputs, layers.Dense(4, name="tokens")(Patches(2, extra)(x)))
    grid = _grid(model, "tokens")
    tokens = _grid(model, "tokens", reshape=False)
    np.testing.assert_array_equal(grid, tokens[:, extra:].reshape(3, 4, 4, 4))


def test_patches_of_a_layer_that_cuts_them_wider_than_high_are_found():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Lambda(lambda x: ops.reshape(ops.image.extract_patches(x, (2, 4)), (-1, 8, 24)))(x)
    model = _head(inputs, layers.Dense(4, name="tokens")(x))
    tokens = _grid(model, "tokens", reshape=False)
    np.testing.assert_array_equal(_grid(model, "tokens"), tokens.reshape(3, 4, 2, 4))


def test_grid_of_a_layer_that_holds_a_convolution_is_that_of_its_strides():
    x = inputs = keras.Input((8, 8, 3))
    model = _head(inputs, layers.Dense(4, name="tokens")(Embedding()(x)))
    tokens = _grid(model, "tokens", reshape=False)
    np.testing.assert_array_equal(_grid(model, "tokens"), tokens[:, 3:].reshape(3, 4, 2, 4))


def test_tokens_put_on_either_side_are_dropped():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x))
    two, one = layers.Dense(4)(x[:, :2]), layers.Dense(4)(x[:, 2:3])
    x = layers.Concatenate(axis=1)([two, x, one])
    model = _head(inputs, layers.Dense(4, name="tokens")(x))
    tokens = _grid(model, "tokens", reshape=False)
    assert tokens.shape[1] == 19
    np.testing.assert_array_equal(_grid(model, "tokens"), tokens[:, 2:18].reshape(3, 4, 4, 4))


class Among(layers.Layer):
    """Puts tokens before and after others, or makes them in other ways."""

    def __init__(self, build, **arguments):
        super().__init__(**arguments)
        self.join = build

    def call(self, x):
        return self.join(x, ops.zeros_like(x[:, :1]))


AMONG = {
    "first": (lambda x, t: ops.concatenate([t, x], 1), 1, (0, 8)),
    "last": (lambda x, t: ops.concatenate([x, t], 1), 0, (-1, 16)),
    "both": (lambda x, t: ops.concatenate([t, x, t, t], 1), 1, (17, 17)),
}


@pytest.mark.parametrize("place", AMONG)
def test_patches_are_found_where_a_closed_layer_puts_them(place):
    build, start, _ = AMONG[place]
    x = inputs = keras.Input((8, 8, 3))
    x = Among(build)(layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x)))
    model = _head(inputs, layers.Dense(4, name="tokens")(x))
    tokens = _grid(model, "tokens", reshape=False)
    desired = tokens[:, start : start + 16].reshape(3, 4, 4, 4)
    np.testing.assert_array_equal(_grid(model, "tokens"), desired)


@pytest.mark.parametrize(
    "join",
    [
        lambda x, t: ops.concatenate([x[:, :8], t, x[:, 8:]], 1),
        lambda x, t: ops.concatenate([t, ops.flip(x, 1)], 1),
        lambda x, t: ops.concatenate([t, ops.cumsum(x, 1)[:, 3:]], 1),
    ],
)
def test_patches_that_a_closed_layer_takes_apart_are_refused(join):
    x = inputs = keras.Input((8, 8, 3))
    x = Among(join)(layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x)))
    model = _head(inputs, layers.Dense(4, name="tokens")(x))
    with pytest.raises(ValueError, match=r"It isn't known where the tokens.*`reshape="):
        ke.inspection.expose(model, "tokens")


def _transposed(x):
    return layers.Reshape((16, 4))(layers.Permute((2, 1, 3))(x))


def _in_windows(x):
    x = ops.transpose(ops.reshape(x, (-1, 2, 2, 2, 2, 4)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, 16, 4))


def _in_windows_by_layers(x):
    x = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((2, 2, 2, 2, 4))(x))
    return layers.Reshape((16, 4))(x)


@pytest.mark.parametrize(
    "order",
    [
        _transposed,
        _in_windows,
        _in_windows_by_layers,
        lambda x: Among(lambda x, _: ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, 16, 4)))(x),
    ],
)
def test_patches_in_another_order_are_refused(order):
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Dense(4, name="tokens")(order(layers.Conv2D(4, 2, strides=2)(x)))
    model = _head(inputs, x + layers.MultiHeadAttention(2, 2)(x, x))
    with pytest.raises(ValueError, match=r"It isn't known where the tokens.*`reshape="):
        ke.inspection.expose(model, "tokens")
    with pytest.raises(ValueError, match=r"It isn't known where the 16 tokens"):
        ke.legrad(model, IMAGES)


def test_order_that_is_undone_is_followed():
    def shifted(x, shift):
        return ops.roll(x, (shift, shift), (1, 2))

    x = inputs = keras.Input((8, 8, 3))
    x = image = layers.Conv2D(4, 2, strides=2)(x)
    x = layers.Dense(4)(_windows(shifted(x, -1), True))
    x = shifted(ops.reshape(_windows(x, False), (-1, 4, 4, 4)), 1) + image
    model = _head(inputs, layers.Dense(4, name="tokens")(layers.Reshape((16, 4))(x)))
    tokens = _grid(model, "tokens", reshape=False)
    np.testing.assert_array_equal(_grid(model, "tokens"), tokens.reshape(3, 4, 4, 4))


def test_patches_cut_by_hand_are_found():
    x = inputs = keras.Input((8, 8, 3))
    x = ops.transpose(ops.reshape(x, (-1, 2, 4, 4, 2, 3)), (0, 1, 3, 2, 4, 5))
    model = _head(inputs, layers.Dense(5, name="tokens")(ops.reshape(x, (-1, 8, 24))))
    tokens = _grid(model, "tokens", reshape=False)
    np.testing.assert_array_equal(_grid(model, "tokens"), tokens.reshape(3, 2, 4, 5))


class Register(layers.Layer):
    """Puts tokens at the ends of others, which it learns."""

    def __init__(self, before, after):
        super().__init__()
        self.before, self.after = before, after

    def build(self, shape):
        self.value = self.add_weight(shape=(self.before + self.after, shape[-1]), name="value")
        self.built = True

    def call(self, x):
        tokens = ops.broadcast_to(self.value, (ops.shape(x)[0], *self.value.shape))
        return ops.concatenate([tokens[:, : self.before], x, tokens[:, self.before :]], 1)


class Closed(layers.Layer):
    """Reads tokens out of sight."""

    def call(self, x):
        return x[:, 0]


def _reading(before, after, head):
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x))
    x = Register(before, after)(x)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 2)(x, x))
    return keras.Model(inputs, layers.Dense(2)(head(x)))


@pytest.mark.parametrize(
    ("before", "after", "head", "query"),
    [
        (1, 0, lambda x: x[:, 0], 0),
        (0, 1, lambda x: x[:, -1], 16),
        (0, 1, Closed(), 16),
        (4, 0, lambda x: x[:, 2], 2),
        (4, 0, lambda x: layers.Flatten()(layers.Dense(4)(x[:, 1:])[:, :1]), 1),
        (2, 1, lambda x: (x[:, 0] + x[:, 1]) / 2, (0, 1)),
        (2, 1, lambda x: x[:, -1], 18),
        (2, 1, Closed(), (0, 1, 18)),
        (0, 0, Closed(), None),
        (2, 1, layers.GlobalAveragePooling1D(), None),
    ],
)
def test_row_is_that_of_the_token_that_the_head_reads(before, after, head, query):
    model = _reading(before, after, head)
    exposed = ke.inspection.expose_attention(model)
    assert exposed.query == query
    scores = exposed(IMAGES)[1].numpy().mean(1)
    scores = (scores + np.eye(scores.shape[-1])) / 2
    rows = scores.mean(1) if query is None else scores[:, np.atleast_1d(query)].mean(1)
    _, maps = ke.methods.get("attention_rollout")(exposed, IMAGES)
    desired = rows[:, before : before + 16].reshape(3, 4, 4)
    np.testing.assert_allclose(maps[..., 0], desired, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*was called on layer")
def test_row_is_found_among_operations_of_tensorflow():
    class ReadsLast(token_zoo.WithTensorFlow):
        def call(self, inputs):
            x = self.patch(tf.reverse(tf.reverse(inputs, [1]), [1]))
            x = tf.reshape(x, (tf.shape(x)[0], 16, token_zoo.WIDTH))
            x = tf.concat([x, x[:, :1] * 0, x[:, :1] * 0], axis=1)
            return self.head(self.last(self.blocks[0](x))[:, -1])

    model = ReadsLast("class")
    model(IMAGES)
    exposed = ke.inspection.expose_attention(model)
    assert exposed.query == 17
    assert exposed.arrange(exposed(IMAGES)[1][:, 0, 17][..., None]).shape == (3, 4, 4, 1)


def test_merged_patches_have_the_grid_of_their_stage():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4), name="first")(layers.Conv2D(4, 2, strides=2)(x))
    x = layers.Reshape((2, 2, 2, 2, 4))(x)
    x = layers.Reshape((4, 16))(layers.Permute((1, 3, 2, 4, 5))(x))
    model = _head(inputs, layers.Dense(6, name="second")(x))
    assert _grid(model, "first").shape == (3, 4, 4, 4)
    assert _grid(model).shape == (3, 2, 2, 6)
    assert _grid(model, reshape=(2, 2)).shape == (3, 2, 2, 6)


def _windows(x, ahead):
    """Cut `(batch, 4, 4, channels)` into windows of 2 by 2, or put them together."""
    channels = x.shape[-1]
    x = ops.transpose(ops.reshape(x, (-1, 2, 2, 2, 2, channels)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, 4, channels) if ahead else (-1, 16, channels))


def _model_with_windows():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 2, strides=2)(x)
    x = layers.Dense(4, name="inside")(_windows(x, True))
    x = x + layers.MultiHeadAttention(2, 2)(x, x)
    return _head(inputs, layers.LayerNormalization(name="after")(_windows(x, False)))


def test_windows_are_arranged_by_a_function_and_the_logits_depend_on_it():
    model = _model_with_windows()
    assert _grid(model).shape == (3, 4, 4, 4)

    def arrange(windows):
        return ops.reshape(_windows(windows, False), (-1, 4, 4, windows.shape[-1]))

    with pytest.raises(ValueError, match=r"tokens \(None, 4, 4\).*`reshape=\(height, width\)`"):
        ke.inspection.expose(model, "inside")
    logits, maps = ke.gradcam(model, IMAGES, layer="inside", reshape=arrange, **RAW)
    assert maps.shape == (3, 4, 4, 2)
    assert np.ptp(maps, axis=(1, 2)).min() > 0
    with pytest.raises(ValueError, match=r"the 4 tokens that attend.*windows.*`reshape="):
        ke.legrad(model, IMAGES)
    assert logits.shape == (3, 2)


# By gradients, and by calling what follows the layer.
RESUMED = ("gradcam", "ablationcam")


@pytest.mark.parametrize("kind", ["functional", "subclassed_with_tensorflow"])
def test_gradients_and_grids_given_are_those_of_the_tokens(kind):
    model = token_zoo.KINDS[kind]("class")
    layer = {"name": "block_1/first_1"} if "sub" in kind else "first_1"
    raw = {**RAW, "run_eagerly": True}
    expected = {m: ke.explain(m, model, IMAGES, layer=layer, **raw)[1] for m in RESUMED}
    assert np.abs(expected["gradcam"]).max() > 0

    def arrange(tokens):
        return ops.reshape(tokens[:, 1:], (-1, 4, 4, tokens.shape[-1]))

    for options in ({}, {"layer": layer, "reshape": (4, 4)}, {"layer": layer, "reshape": arrange}):
        for method, desired in expected.items():
            maps = ke.explain(method, model, IMAGES, **options, **raw)[1]
            np.testing.assert_allclose(maps, desired, atol=1e-5 * np.abs(desired).max())


def test_several_layers_of_tokens_are_fused():
    model = token_zoo.functional("class")
    _, maps = ke.gradcam(model, IMAGES, layer=["patch", "first_0", "second_0"])
    assert maps.shape == (3, 8, 8, 3)
    assert maps.max() > 0.5


def test_series_are_left_as_they_are():
    inputs = keras.Input((16, 3))
    model = _head(inputs, layers.Conv1D(4, 3, name="tokens")(inputs))
    exposed = ke.inspection.expose(model)
    assert tuple(exposed.outputs[1].shape) == (None, 14, 4)


def _four(tokens):
    return tf.reshape(tokens[:, 1:17], (-1, 4, 4, tokens.shape[-1]))


def test_sizes_given_and_functions_find_the_patches_before_other_tokens():
    model = _reading(0, 2, lambda x: x[:, -1])
    name = next(layer.name for layer in model.layers if "normalization" in layer.name)
    tokens = _grid(model, name, reshape=False)
    np.testing.assert_array_equal(
        _grid(model, name, reshape=(2, 8)), tokens[:, :16].reshape(3, 2, 8, 4)
    )
    turned = _grid(model, name, reshape=lambda t: _four(tf.roll(t, 1, 1))[:, ::-1])
    np.testing.assert_array_equal(turned, tokens[:, :16].reshape(3, 4, 4, 4)[:, ::-1])


def test_attention_of_an_unknown_number_of_tokens_asks_for_their_sizes():
    x = inputs = keras.Input((None, None, 3))
    x = layers.Reshape((-1, 4))(layers.Conv2D(4, 2, strides=2)(x))
    model = _head(inputs, layers.MultiHeadAttention(2, 2)(x, x))
    with pytest.raises(ValueError, match=r"number of tokens.*isn't known.*fixed size.*`reshape="):
        ke.legrad(model, IMAGES)


@pytest.mark.parametrize(
    ("reshape", "message"),
    [
        ("grid", r"`reshape`.*positive integers.*'grid'"),
        ((4, 0), r"`reshape`.*positive integers.*\(4, 0\)"),
        ((4, 4.0), r"`reshape`.*positive integers"),
        ((5, 5), r"`reshape`.*at most 17.*\(5, 5\)"),
        ((16,), r"`reshape`.*2 sizes.*\(16,\)"),
        ((2, 4), r"`reshape`.*as many patches.*\(4, 4\).*\(2, 4\)"),
        (lambda tokens: tokens, r"`reshape`.*2 axes between.*\(None, 17, 8\)"),
        (lambda tokens: 2 * _four(tokens), r"`reshape`.*selects and permutes"),
        (lambda tokens: _four(tokens)[..., :4], r"`reshape`.*selects and permutes"),
        (lambda tokens: _four((tokens + tokens[:, ::-1]) / 2), r"`reshape`.*selects and permutes"),
        (lambda tokens: _four(tokens)[:, ::-1] * 0, r"`reshape`.*selects and permutes"),
        (lambda tokens: _four(tf.repeat(tokens, 2, 1)), r"`reshape`.*at most once"),
    ],
)
def test_ways_to_reshape_that_are_none_are_refused(reshape, message):
    model = token_zoo.functional("class")
    with pytest.raises(ValueError, match=message):
        ke.gradcam(model, IMAGES, reshape=reshape)
    with pytest.raises(ValueError, match=r"`reshape`.*explains the input"):
        ke.gradients(model, IMAGES, reshape=(4, 4))


def test_default_layer_is_what_is_pooled_or_enters_the_last_attention():
    for pooling, layer in (("class", "first_1"), ("mean", "last")):
        model = token_zoo.functional(pooling)
        np.testing.assert_array_equal(_grid(model), _grid(model, layer))


def test_class_token_without_attention_in_reach_is_warned_of():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(4)(x)[:, 0]))
    with pytest.warns(UserWarning, match=r"single token.*`layer=`"):
        ke.inspection.expose(model)


def test_cam_of_pooled_tokens_needs_patches_only():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x))
    model = _head(inputs, layers.Concatenate(axis=1)([layers.Dense(4)(x[:, :1]), x]))
    with pytest.raises(ValueError, match=r"tokens that are no patches.*`gradcam`"):
        ke.cam(model, IMAGES)


class Windowed(layers.Layer):
    """A layer whose sizes, read from a symbolic tensor, can't be told from each other."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.attention = layers.MultiHeadAttention(1, 4)

    def build(self, shape):
        self.attention.build((None, 4, shape[-1]), (None, 4, shape[-1]))
        self.built = True

    def call(self, x):
        batch, channels = ops.shape(x)[0], x.shape[-1]
        y = ops.reshape(x, (-1, 4, channels))
        return ops.reshape(self.attention(y, y), (batch, -1, channels))


def test_a_layer_that_is_not_the_same_once_opened_stays_closed():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x))
    model = _head(inputs, Windowed(name="windowed")(x))
    assert _grid(model, reshape=(4, 4)).shape == (3, 4, 4, 4)
    assert list(ke.inspection.find_layers(model, layers.MultiHeadAttention)) == []


def test_sizes_that_a_layer_reads_from_its_tokens_are_settled():
    class Reading(Windowed):
        def call(self, x):
            batch, length, channels = ops.shape(x)
            y = ops.reshape(x, (batch, length, channels))
            return ops.reshape(self.attention(y, y), (batch, -1, channels))

    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(x))
    model = _head(inputs, Reading(name="reading")(x))
    assert _grid(model).shape == (3, 4, 4, 4)
    assert len(ke.inspection.find_layers(model, layers.MultiHeadAttention)) == 1
    assert ke.legrad(model, IMAGES)[1].shape == (3, 8, 8, 2)


def test_full_gradients_name_layer_normalization_and_attention():
    with pytest.warns(UserWarning, match=r"LayerNormalization.*MultiHeadAttention"):
        ke.inspection.expose_biases(token_zoo.composite_layers("class"))
