"""The cases: methods, models and bounds, and how one is measured."""

from typing import NamedTuple

from speed import timing


class Model(NamedTuple):
    """A model with random weights, and a batch for it.

    Attributes:
        architecture: one of `keras.applications`, or "ViT-B/16".
        size: height and width of the images.
        batch: number of images.
        classes: number of units.
        activation: of the head.
    """

    architecture: str = "ResNet50V2"
    size: int = 224
    batch: int = 8
    classes: int = 1000
    activation: str = "softmax"

    def __str__(self):
        """Say what it is in a table."""
        return f"{self.architecture} {self.size}², batch {self.batch}"


class Case(NamedTuple):
    """What is measured.

    Attributes:
        method: name of a method, function from the package to a method, or what is called:
            "explain", "shortcut" or "maximize".
        options: of the method; `y` is the unit explained, `None` for all.
        model: `Model`.
        once: passes that are taken off the ratio before it is divided.
        per: number that the ratio is divided by, such as that of the steps.
        bound: what the ratio is to stay below.
        memory: what the memory is to stay below, in GB.
    """

    method: object
    options: dict
    model: Model = Model()
    once: int = 0
    per: int = 1
    bound: float | None = None
    memory: float | None = None


VIT = Model("ViT-B/16")
ONE, ALL = {"y": 7}, {}
STEPS = 32
CASES = {
    **{
        f"{name}, one unit": Case(name, ONE, bound=1.08)
        for name in (
            "gradcam",
            "hirescam",
            "xgradcam",
            "gradcampp",
            "layercam",
            "gradcam_elementwise",
            "eigen_gradcam",
            "minmax_gradcam",
            "d_minmax_gradcam",
        )
    },
    **{f"{name}, one unit": Case(name, ONE) for name in ("cam", "d_minmaxcam")},
    "eigencam": Case("eigencam", ONE, bound=1.2),
    "zoomcam, one unit, all activations": Case("zoomcam", ONE),
    **{
        f"{name}, 1000 units": Case(name, ALL, bound=1.15, memory=1.2)
        for name in ("gradcam", "hirescam", "xgradcam", "minmax_gradcam")
    },
    **{
        f"{name}, 1000 units": Case(name, ALL, memory=2.0)
        for name in (
            "cam",
            "minmaxcam",
            "d_minmaxcam",
            "layercam",
            "gradcampp",
            "gradcam_elementwise",
            "d_minmax_gradcam",
        )
    },
    **{
        f"{name}, 80 units, 16×16×2048 activations": Case(
            name, ALL, Model(size=512, classes=80, activation="sigmoid"), bound=1.5, memory=2.0
        )
        for name in ("gradcam", "hirescam", "xgradcam", "minmax_gradcam", "d_minmax_gradcam")
    },
    # All channels share one pass of the inputs as they are.
    "scorecam, one unit, per live channel": Case(
        "scorecam", {"y": 7, "top_k": 32}, once=1, per=32, bound=1.0
    ),
    "ablationcam, one unit, all 2048 channels": Case("ablationcam", ONE, bound=25),
    "gradients, one unit": Case("gradients", ONE, bound=2.25),
    "input_x_gradient, one unit": Case("input_x_gradient", ONE, bound=2.35),
    "guided_backprop, one unit": Case("guided_backprop", ONE, bound=2.35),
    "deconvnet, one unit": Case("deconvnet", ONE),
    "full_gradients, one unit": Case("full_gradients", ONE, bound=2.8, memory=1.6),
    "lrp, one unit": Case("lrp", ONE, bound=4),
    **{
        f"lrp, {composite}, one unit": Case("lrp", ONE | {"composite": composite} | options)
        for composite, options in (
            ("epsilon", {}),
            ("epsilon_plus_flat", {}),
            ("epsilon_alpha2_beta1", {}),
            ("epsilon_gamma_box", {"low": 0.0, "high": 1.0}),
        )
    },
    "guided(gradcam), one unit": Case(lambda ke: ke.methods.guided("gradcam"), ONE),
    "smooth(gradients), one unit, 20 samples": Case(
        lambda ke: ke.methods.smooth("gradients", num_samples=20), ONE, bound=43
    ),
    "integrated_gradients, one unit, 50 steps": Case(
        "integrated_gradients", ONE | {"num_steps": 50}, bound=107, memory=1.5
    ),
    "smooth_taylor(gradients), one unit, per sample": Case(
        lambda ke: ke.methods.smooth_taylor("gradients", num_samples=5), ONE, once=1, per=5
    ),
    "tta(gradcam), one unit, mirror image": Case(
        lambda ke: ke.methods.tta("gradcam", scales=1), ONE
    ),
    "gradcam, one unit, transformer": Case("gradcam", ONE, VIT, bound=1.15),
    "attention_rollout, transformer": Case("attention_rollout", ONE, VIT, bound=1.15),
    **{
        f"{name}, one unit, transformer": Case(name, ONE, VIT)
        for name in ("getam", "legrad", "attention_relevance")
    },
    "ke.explain of 64 images over the compiled gradcam": Case("explain", ONE, bound=1.05),
    "ke.gradcam of one image, second call": Case(
        "shortcut", ONE, Model("MobileNetV2", 96, 1), bound=1.4
    ),
    # One pass gives the scores of the images in the end.
    **{
        f"ke.maximize_activation, {name}, per step": Case(
            "maximize", {"parametrization": name}, Model("MobileNetV2"), once=1, per=STEPS
        )
        for name in ("fourier", "pixel")
    },
}


def build(model, dtype="float32"):
    """Build a model with random weights.

    Args:
        model: `Model`.
        dtype: policy of its layers.
    """
    import keras

    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(0)
    if model.architecture == "ViT-B/16":
        return _build_transformer(model.size, model.classes)
    return getattr(keras.applications, model.architecture)(
        weights=None,
        input_shape=(model.size, model.size, 3),
        classes=model.classes,
        classifier_activation=model.activation,
    )


def _build_transformer(size, classes, patch=16, width=768, num_blocks=12, num_heads=12):
    """Build a vision transformer with a class token from layers of Keras."""
    import keras
    from keras import layers

    class Tokens(layers.Layer):
        """Puts a class token before the others, and adds what is learnt of each place."""

        def build(self, shape):
            self.token = self.add_weight(shape=(1, 1, shape[-1]))
            self.places = self.add_weight(shape=(1, shape[1] + 1, shape[-1]))
            self.built = True

        def call(self, x):
            token = keras.ops.repeat(self.token, keras.ops.shape(x)[0], axis=0)
            return keras.ops.concatenate([token, x], axis=1) + self.places

    x = inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(width, patch, strides=patch)(x)
    x = Tokens()(layers.Reshape(((size // patch) ** 2, width))(x))
    for _ in range(num_blocks):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = x + layers.MultiHeadAttention(num_heads, width // num_heads)(y, y)
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x[:, 0]))


def images_for(model):
    """Return a batch of random images, a float32 array."""
    import numpy as np

    shape = (model.batch, model.size, model.size, 3)
    return np.random.default_rng(0).random(shape, "float32")


def on_device(images):
    """Put images where they are computed with, before anything is timed."""
    import tensorflow as tf

    with tf.device("GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"):
        return tf.identity(tf.constant(images))


def compiled(function, jit_compile=False):
    """Compile a function of a tensor."""
    import tensorflow as tf

    return tf.function(function, jit_compile=jit_compile, autograph=False)


def forward_of(keras_model, jit_compile=False):
    """Return the compiled forward pass of a model."""
    return compiled(lambda x: keras_model(x, training=False), jit_compile)


def step_of(method, keras_model, indices, jit_compile=False, **options):
    """Return a compiled method, from images to logits and raw maps.

    Args:
        method: name of a method, or function from the package to a method.
        keras_model: the model.
        indices: units to explain, integers `(batch, n)`, or `None` for all.
        jit_compile: whether to compile with XLA.
        **options: of the method.
    """
    import keras_explainable as ke

    method = method(ke) if callable(method) else method
    explainer = ke.Explainer(method, keras_model, **options)
    return compiled(lambda x: explainer.method(explainer.exposed, x, indices), jit_compile)


def measure(name, seconds, dtype, jit_compile):
    """Measure one case.

    Args:
        name: one of `CASES`.
        seconds: how long to measure.
        dtype: policy of the model.
        jit_compile: whether to compile with XLA.

    Returns:
        dict as of `timing.take_turns`, and the peak "memory" in bytes.
    """
    import numpy as np

    import keras_explainable as ke

    case = CASES[name]
    options = dict(case.options)
    unit = options.pop("y", None)
    model = build(case.model, dtype)
    images = images_for(case.model)
    tensor = on_device(images)
    if case.method == "explain":
        many = np.concatenate([images] * (64 // len(images)))
        step = step_of("gradcam", model, np.full((len(images), 1), unit), jit_compile)
        kept = {"batch_size": len(images), "resizing": False, "postprocessing": None, "verbose": 0}

        def reference():
            for _ in range(64 // len(images)):
                outputs = step(tensor)
            timing.wait(outputs)

        def measured():
            ke.gradcam(model, many, unit, jit_compile=jit_compile, **kept)
    else:
        forward = forward_of(model, jit_compile)

        def reference():
            timing.wait(forward(tensor))

        if case.method == "shortcut":

            def measured():
                ke.gradcam(model, images, unit, jit_compile=jit_compile)
        elif case.method == "maximize":
            options |= {"value_range": (-1, 1), "num_steps": STEPS, "batch_size": len(images)}

            def measured():
                units = np.arange(len(images))
                ke.maximize_activation(model, units, verbose=0, jit_compile=jit_compile, **options)
        else:
            indices = None if unit is None else np.full((len(images), 1), unit)
            step = step_of(case.method, model, indices, jit_compile, **options)

            def measured():
                timing.wait(step(tensor))

    found = timing.take_turns(reference, measured, seconds)
    for key in ("ratio", "low", "high"):
        found[key] = (found[key] - case.once) / case.per
    num_images = 64 if case.method == "explain" else case.model.batch
    return found | {"memory": timing.peak_memory(), "images": num_images}
