"""Small transformers of every make, all of which compute one of two functions of an image.

A patch embedding, a class token or none, two blocks of attention, and a linear head on the class
token or on the mean of the tokens. Weights go by the names of layers, so that all models with the
same head return the same. `KINDS` maps names to functions from a head, "class" or "mean", to a
model.
"""

import warnings
import zlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers

SIZE, SIDE, WIDTH, HEADS, UNITS = 8, 4, 8, 2, 3
BLOCKS = 2
POOLINGS = ("class", "mean")
IMAGES = np.random.default_rng(0).normal(size=(3, SIZE, SIZE, 3)).astype("float32")
ROLES = ("patch", "token", "position", "first", "attention", "second", "wide", "narrow", "last")


class Token(layers.Layer):
    """Puts a class token before the others."""

    def build(self, shape):
        self.value = self.add_weight(shape=(1, 1, shape[-1]), name="value")
        self.built = True

    def call(self, x):
        shape = (keras.ops.shape(x)[0], 1, WIDTH)
        token = keras.ops.broadcast_to(keras.ops.cast(self.value, x.dtype), shape)
        return keras.ops.concatenate([token, x], axis=1)


class Position(layers.Layer):
    """Adds what was learnt of each place."""

    def build(self, shape):
        self.value = self.add_weight(shape=(1, *shape[1:]), name="value")
        self.built = True

    def call(self, x):
        return x + keras.ops.cast(self.value, x.dtype)


class Dot(layers.Layer):
    """Attention written by hand: three Dense layers, and a softmax of the products."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.parts = {
            name: layers.Dense(WIDTH, name=name) for name in ("query", "key", "value", "output")
        }

    def build(self, shape):
        for part in self.parts.values():
            part.build(shape)
        self.built = True

    def call(self, x, *_):
        length, ops = x.shape[1], keras.ops

        def split(name):
            heads = ops.reshape(self.parts[name](x), (-1, length, HEADS, WIDTH // HEADS))
            return ops.transpose(heads, (0, 2, 1, 3))

        query, key = split("query"), split("key")
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / (WIDTH // HEADS) ** 0.5
        mixed = ops.matmul(ops.softmax(scores, axis=-1), split("value"))
        mixed = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, length, WIDTH))
        return self.parts["output"](mixed)


def _attention(number, **arguments):
    return layers.MultiHeadAttention(
        HEADS, WIDTH // HEADS, dropout=0.1, name=f"attention_{number}", **arguments
    )


class Block(layers.Layer):
    """A block written as a layer that is made of layers."""

    def __init__(self, number, attention=_attention, **arguments):
        super().__init__(name=f"block_{number}", **arguments)
        self.first = layers.LayerNormalization(name=f"first_{number}")
        self.attention = attention(number)
        self.second = layers.LayerNormalization(name=f"second_{number}")
        self.dense = [
            layers.Dense(2 * WIDTH, "gelu", name=f"wide_{number}"),
            layers.Dense(WIDTH, name=f"narrow_{number}"),
        ]

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)
        self.attention.build(*[shape] * (1 if isinstance(self.attention, Dot) else 2))
        self.dense[0].build(shape)
        self.dense[1].build((*shape[:-1], 2 * WIDTH))
        self.built = True

    def call(self, x, training=None):
        y = self.first(x)
        x = x + self.attention(y, y, training=training)
        y = self.second(x)
        for dense in self.dense:
            y = dense(y)
        return x + y


def _stem(x, pooling, **arguments):
    x = layers.Conv2D(WIDTH, 2, strides=2, name="patch", **arguments)(x)
    x = layers.Reshape((SIDE**2, WIDTH), **arguments)(x)
    x = Token(name="token", **arguments)(x) if pooling == "class" else x
    return Position(name="position", **arguments)(x)


def _block(x, number, **arguments):
    y = layers.LayerNormalization(name=f"first_{number}", **arguments)(x)
    x = x + _attention(number, **arguments)(y, y)
    y = layers.LayerNormalization(name=f"second_{number}", **arguments)(x)
    y = layers.Dense(2 * WIDTH, "gelu", name=f"wide_{number}", **arguments)(y)
    return x + layers.Dense(WIDTH, name=f"narrow_{number}", **arguments)(y)


def _pool(x, pooling, **arguments):
    x = layers.LayerNormalization(name="last", **arguments)(x)
    return x[:, 0] if pooling == "class" else layers.GlobalAveragePooling1D(**arguments)(x)


def _weigh(model):
    """Give every variable a value that goes by the names of its layer and its own."""
    for variable in model.weights:
        parts = variable.path.split("/")
        role = next(i for i, p in enumerate(parts) if p.split("_")[0] in (*ROLES, "head"))
        key = "/".join(parts[role:]).replace("attention_output", "output").encode()
        scale = 1.0 if b"gamma" in key or b"bias" not in key else 0.3
        values = np.random.default_rng(zlib.crc32(key)).normal(size=variable.shape.num_elements())
        values = values * scale / (WIDTH**0.5 if b"kernel" in key else 1)
        variable.assign(values.reshape(variable.shape))
    return model


def functional(pooling):
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = _stem(x, pooling)
    for number in range(BLOCKS):
        x = _block(x, number)
    x = layers.Dense(UNITS, "softmax", name="head")(_pool(x, pooling))
    return _weigh(keras.Model(inputs, x))


def nested(pooling):
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = _stem(x, pooling)
    for number in range(BLOCKS):
        x = _block(x, number)
    backbone = keras.Model(inputs, _pool(x, pooling), name="backbone")
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Dense(UNITS, name="head")(layers.Dropout(0.5)(backbone(inputs)))
    return _weigh(keras.Model(inputs, layers.Softmax()(x)))


def composite_layers(pooling, attention=_attention):
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = _stem(x, pooling)
    for number in range(BLOCKS):
        x = Block(number, attention)(x)
    return _weigh(keras.Model(inputs, layers.Dense(UNITS, name="head")(_pool(x, pooling))))


def softmax_by_hand(pooling):
    return composite_layers(pooling, lambda number: Dot(name=f"attention_{number}"))


class Transformer(keras.Model):
    """A transformer written as a class, with layers of its own."""

    def __init__(self, pooling, **arguments):
        super().__init__(**arguments)
        self.pooling = pooling
        self.patch = layers.Conv2D(WIDTH, 2, strides=2, name="patch")
        self.arrange = layers.Reshape((SIDE**2, WIDTH))
        self.token = Token(name="token") if pooling == "class" else layers.Identity()
        self.position = Position(name="position")
        self.blocks = [Block(number) for number in range(BLOCKS)]
        self.last = layers.LayerNormalization(name="last")
        self.mean = layers.GlobalAveragePooling1D()
        self.head = layers.Dense(UNITS, name="head")

    def call(self, inputs, training=False):
        x = self.position(self.token(self.arrange(self.patch(inputs))))
        for block in self.blocks:
            x = block(x, training=training)
        x = self.last(x)
        return keras.ops.softmax(self.head(x[:, 0] if self.pooling == "class" else self.mean(x)))


def _called(model):
    """Build a model by a call, as Keras can't build it from shapes, and says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model(IMAGES)
    return _weigh(model)


def subclassed(pooling):
    return _called(Transformer(pooling))


class WithTensorFlow(Transformer):
    """A transformer that can't be followed on symbolic tensors."""

    def call(self, inputs):
        x = self.patch(tf.reverse(tf.reverse(inputs, [1]), [1]))
        x = self.position(self.token(tf.reshape(x, (tf.shape(x)[0], SIDE**2, WIDTH))))
        for block in self.blocks:
            x = block(x)
        x = self.last(x)
        return tf.nn.softmax(self.head(x[:, 0] if self.pooling == "class" else self.mean(x)))


def subclassed_with_tensorflow(pooling):
    return _called(WithTensorFlow(pooling))


def mixed_precision(pooling):
    dtype = "mixed_bfloat16"
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = _stem(x, pooling, dtype=dtype)
    for number in range(BLOCKS):
        x = _block(x, number, dtype=dtype)
    x = layers.Dense(UNITS, name="head", dtype=dtype)(_pool(x, pooling, dtype=dtype))
    return _weigh(keras.Model(inputs, layers.Softmax(dtype="float32")(x)))


def loaded(pooling, folder):
    path = folder / "model.keras"
    functional(pooling).save(path)
    return keras.saving.load_model(path, custom_objects={"Token": Token, "Position": Position})


KINDS = {
    build.__name__: build
    for build in (
        functional,
        nested,
        composite_layers,
        softmax_by_hand,
        subclassed,
        subclassed_with_tensorflow,
        mixed_precision,
    )
}


# A transformer in which every token attends to patches by how bright they are, and takes their
# brightness over. It is written to the class token, or stays where it is; `4` and `-4` in all
# tokens keep layer normalization from changing the scale.
BRIGHT = (2, 1)


def knowing(pooling, dense=False):
    """Return a transformer that looks at what is bright; dense, with logits of every token."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(WIDTH, 2, strides=2, name="patch")(x)
    x = layers.Reshape((16, WIDTH))(x)
    x = Token(name="token")(x) if pooling == "class" else x
    for k in range(2):
        y = layers.LayerNormalization(name=f"first_{k}")(x)
        x = x + layers.MultiHeadAttention(1, 1, name=f"attention_{k}")(y, y)
        y = layers.LayerNormalization(name=f"second_{k}")(x)
        y = layers.Dense(WIDTH, "relu", name=f"wide_{k}")(y)
        x = x + layers.Dense(WIDTH, name=f"narrow_{k}")(y)
    if not dense:
        x = x[:, 0] if pooling == "class" else layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    one = np.eye(WIDTH)
    constant = 4 * one[2] - 4 * one[3]
    patch = np.zeros((2, 2, 3, WIDTH))
    patch[..., 0] = 1 / 12
    model.get_layer("patch").set_weights([patch, constant])
    for k in range(2):
        column, zero = one[:1].T[:, :, None], np.zeros((1, 1))
        # The query is the same for all, key and value are the brightness.
        weights = [0 * column, zero + 1, 6 * column, zero, column, zero]
        weights += [one[1][None, None], 0 * one[0]]
        model.get_layer(f"attention_{k}").set_weights(weights)
        # With a scale the sum over channels isn't zero, from which Eigen-CAM takes its sign, and
        # with an offset brightness is positive, by whose sum XGrad-CAM divides.
        model.get_layer(f"first_{k}").set_weights([1 + one[0], one[0]])
        model.get_layer(f"wide_{k}").set_weights([np.outer(one[0], one[0]), 0 * one[0]])
        model.get_layer(f"narrow_{k}").set_weights([0.1 * np.outer(one[0], one[0]), 0 * one[0]])
    # Unit 0 counts brightness, its own and what was taken over; unit 1 counts against it.
    model.get_layer("head").set_weights([np.outer(one[0] + one[1], [1, -1]), np.array([1, 0])])
    if pooling == "class":
        model.get_layer("token").set_weights([constant[None, None]])
    return model


def bright_images():
    """Return noise with one bright patch."""
    images = np.random.default_rng(0).uniform(0, 0.2, size=(2, 8, 8, 3)).astype("float32")
    i, j = BRIGHT
    images[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += 2
    return images
