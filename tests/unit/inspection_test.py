import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explainable as ke
from keras_explainable import inspection
from tests import zoo

layers = keras.layers


def _activations(model, *arguments, **options):
    """Return the activations that an endpoint gives on the images."""
    return inspection.expose(model, *arguments, **options)(zoo.IMAGES)[1].numpy()


RELU = zoo.activations()
CONVOLUTION_IS_BELOW_ZERO = zoo.activations() == 0


def _nested():
    return zoo.nested_with_pooling().model


ENDPOINTS = {
    "name": lambda _: "relu",
    "path": lambda _: "backbone/relu",
    "layer": lambda m: m.layers[1].get_layer("relu"),
    "tensor": lambda m: m.layers[1].get_layer("relu").output,
    "dict by name": lambda _: {"name": "backbone/relu"},
    "dict by layer": lambda m: {"layer": m.layers[1].get_layer("relu")},
    "dict by tensor": lambda m: {"layer": m.layers[1].get_layer("relu").output},
    "input of the pooling": lambda _: {"name": "pool", "link": "input"},
    "node": lambda _: {"name": "relu", "node": 0, "link": "output"},
    "default": lambda _: None,
    "list": lambda _: ["relu"],
}


@pytest.mark.parametrize("way", ENDPOINTS)
def test_every_way_of_naming_an_endpoint_finds_it(way):
    model = _nested()
    actual = _activations(model, ENDPOINTS[way](model))
    np.testing.assert_allclose(actual, RELU, rtol=1e-5, atol=1e-6)


def test_an_index_counts_the_layers_of_the_model():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    for index in (1, -3):
        expected = model.layers[1](zoo.IMAGES)
        np.testing.assert_allclose(_activations(model, index), expected, rtol=1e-6)


def test_symbolic_tensors_of_every_graph_are_endpoints():
    backbone = zoo._backbone()
    inputs = keras.Input((6, 6, 3))
    activations = backbone(inputs)
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(activations))
    model = zoo._weigh(keras.Model(inputs, x))
    for tensor in (activations, backbone.output, backbone.get_layer("relu").output):
        np.testing.assert_allclose(_activations(model, tensor), RELU, rtol=1e-5, atol=1e-6)


def test_a_symbolic_tensor_tells_the_call_of_a_shared_layer():
    shared = layers.Conv2D(3, 3, padding="same", activation="tanh", name="shared")
    inputs = keras.Input((6, 6, 3))
    once = shared(inputs)
    twice = shared(once)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(twice)))
    first = shared(zoo.IMAGES)
    np.testing.assert_allclose(_activations(model, once), first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(_activations(model, twice), shared(first), rtol=1e-5, atol=1e-6)


def test_several_endpoints_come_in_the_order_asked_for():
    exposed = inspection.expose(_nested(), ["relu", "conv"])
    _, relu, convolution = exposed(zoo.IMAGES)
    np.testing.assert_allclose(relu, np.maximum(convolution, 0))
    assert (convolution.numpy()[CONVOLUTION_IS_BELOW_ZERO] <= 0).all()
    assert len(inspection.expose(_nested(), ()).outputs) == 1


def test_the_call_of_a_shared_layer_is_chosen_by_node():
    model, x, *_ = zoo.siamese()
    for node, image in ((0, 0), (1, 1), (-1, 1)):
        exposed = inspection.expose(model, {"name": "backbone/relu", "node": node})
        expected = zoo.activations(x[image])
        np.testing.assert_allclose(exposed(x)[1], expected, rtol=1e-5, atol=1e-6)
        assert exposed.input_index == image
    with pytest.raises(ValueError, match=r"called 2 times.*\"node\": 0"):
        inspection.expose(model, "backbone/relu")
    with pytest.raises(ValueError, match=r"\"node\" below 2.*Received: 2"):
        inspection.expose(model, {"name": "relu", "node": 2})


def test_several_last_activations_are_warned_of():
    with pytest.warns(UserWarning, match=r"Several spatial activations.*`layer=`"):
        inspection.expose(zoo.siamese().model)


def test_the_first_of_several_outputs_is_warned_of():
    with pytest.warns(UserWarning, match=r"'other', 'species'.*explaining 'other'.*`output=`"):
        exposed = inspection.expose(zoo.several_outputs().model)
    assert exposed.outputs[0].shape == (None, 2)


@pytest.mark.parametrize("output", [1, -1, "species", {"name": "species"}])
def test_an_output_is_chosen_by_index_or_name(output):
    exposed = inspection.expose(zoo.several_outputs().model, outputs=output)
    np.testing.assert_allclose(exposed(zoo.IMAGES)[0], zoo.logits(), rtol=1e-5)


def test_outputs_of_a_dict_are_chosen_by_key():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    heads = {"kind": layers.Dense(2, name="x")(x), "age": layers.Dense(3, name="y")(x)}
    model = keras.Model(inputs, heads)
    for name, units in (("kind", 2), ("age", 3)):
        assert inspection.expose(model, outputs=name).outputs[0].shape == (None, units)


ACTIVATED = {
    "fused softmax": lambda x: layers.Dense(5, activation="softmax")(x),
    "fused sigmoid": lambda x: layers.Dense(5, activation="sigmoid")(x),
    "activation layer": lambda x: layers.Activation("softmax")(layers.Dense(5)(x)),
    "softmax layer": lambda x: layers.Softmax()(layers.Dense(5)(x)),
    "operation": lambda x: keras.ops.softmax(layers.Dense(5)(x)),
    "fused, then a cast": lambda x: layers.Activation("linear", dtype="float32")(
        layers.Dense(5, activation="softmax")(x)
    ),
    "fused, then reshaped": lambda x: layers.Reshape((5,))(
        layers.Reshape((1, 5))(layers.Dense(5, activation="softmax")(x))
    ),
    "convolution": lambda x: layers.Flatten()(
        layers.Conv2D(5, 1, activation="sigmoid")(layers.Reshape((1, 1, 4))(x))
    ),
    "convolution without flattening": lambda x: layers.Conv2D(5, 1, activation="softmax")(
        layers.Reshape((1, 1, 4))(x)
    ),
    "nothing to leave out": lambda x: layers.Dense(5)(x),
}


@pytest.mark.parametrize("head", ACTIVATED)
def test_logits_come_before_the_activation(head):
    x = inputs = keras.Input((6, 6, 3))
    x = layers.ReLU()(layers.Conv2D(4, 3, padding="same")(x))
    model = zoo._weigh(keras.Model(inputs, ACTIVATED[head](layers.GlobalAveragePooling2D()(x))))
    exposed = inspection.expose(model)
    logits = exposed(zoo.IMAGES)[0]
    np.testing.assert_allclose(logits, zoo.logits(), rtol=1e-4, atol=1e-5)
    if exposed.activation is not None:
        predictions = np.reshape(model(zoo.IMAGES), (3, 5))
        np.testing.assert_allclose(exposed.activation(logits), predictions, rtol=1e-5)
    assert (exposed.activation is None) == (head == "nothing to leave out")


def test_only_the_last_activation_is_left_out():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Dense(5, activation="relu")(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)))
    model = keras.Model(inputs, layers.Softmax()(x))
    exposed = inspection.expose(model)
    np.testing.assert_allclose(
        exposed(zoo.IMAGES)[0], keras.Model(inputs, x)(zoo.IMAGES), rtol=1e-5, atol=1e-6
    )
    predictions = exposed.activation(exposed(zoo.IMAGES)[0])
    np.testing.assert_allclose(predictions, model(zoo.IMAGES), rtol=1e-5)


def test_a_functional_model_with_a_call_of_its_own_is_not_taken_for_its_graph():
    class Doubled(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    specimen = zoo.functional().model
    model = Doubled(specimen.input, specimen.output)
    before = len(model.layers[1]._inbound_nodes)
    with pytest.raises(ValueError, match="no spatial activation"):
        inspection.expose(model, inputs=zoo.IMAGES)
    assert len(model.layers[1]._inbound_nodes) == before


def test_layers_behind_methods_and_closures_are_left_as_found():
    class Bound(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(4, 3, padding="same", name="conv")
            self.run = self.trunk
            self.head = layers.Dense(5, name="head")
            self.heads = lambda x: self.head(x)
            self.pool = layers.GlobalAveragePooling2D()

        def trunk(self, inputs):
            return keras.ops.relu(self.conv(inputs))

        def call(self, inputs):
            return self.heads(self.pool(self.run(inputs)))

    model = Bound()
    zoo._called(model)
    expected = tf.nn.relu(model.conv(zoo.IMAGES))
    np.testing.assert_allclose(_activations(model, "conv"), model.conv(zoo.IMAGES), atol=1e-5)
    np.testing.assert_allclose(_activations(model), expected, atol=1e-5)
    for layer in (model.conv, model.head):
        assert layer._inbound_nodes == []


def test_a_call_that_is_a_compiled_function_is_opened():
    class Compiled(zoo.Subclassed):
        @tf.function
        def call(self, inputs):
            return self.head(self.pool(self.trunk[1](self.trunk[0](inputs))))

    model = zoo._weigh(zoo._called(Compiled()))
    np.testing.assert_allclose(_activations(model), RELU, rtol=1e-5, atol=1e-6)


def test_the_output_of_a_lambda_is_warned_of():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)))
    model = keras.Model(inputs, layers.Lambda(keras.ops.softmax)(x))
    with pytest.warns(UserWarning, match=r"Lambda.*`output=`"):
        inspection.expose(model)


def test_inputs_of_a_dict_are_named_by_their_keys():
    image = keras.Input((6, 6, 3), name="image")
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image)))
    model = keras.Model({"image": image}, x)
    assert list(inspection.expose(model).input) == ["image"]
    assert inspection.expose(model).inputs[0].name == "image"


def test_squeeze_and_excitation_is_not_taken_for_the_last_pooling():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="last")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="sigmoid")(gate)
    x = layers.Multiply(name="excited")([x, gate])
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    inner = keras.Model(inputs, model.get_layer("excited").output)
    np.testing.assert_allclose(_activations(model), inner(zoo.IMAGES), rtol=1e-6)


POOLINGS = {
    "flatten": layers.Flatten(name="pooling"),
    "maximum": layers.GlobalMaxPooling2D(name="pooling"),
    "window": layers.AveragePooling2D(4, name="pooling"),
    "mean": lambda x: keras.ops.mean(x, axis=[1, 2]),
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_last_activation_is_what_any_pooling_takes(pooling):
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="last")(x)
    x = layers.Dense(2)(layers.Flatten()(POOLINGS[pooling](x)))
    model = keras.Model(inputs, x)
    expected = model.get_layer("last")(zoo.IMAGES)
    np.testing.assert_allclose(_activations(model), expected, rtol=1e-6)
    has_head = inspection.expose(model).head is not None
    assert has_head == (pooling in ("window", "mean"))


def test_a_model_without_spatial_activation_is_told_its_layers():
    stack = [keras.Input((6, 6, 3)), layers.Rescaling(2.0), layers.Flatten(), layers.Dense(2)]
    model = keras.Sequential(stack)
    with pytest.raises(ValueError, match=r"no spatial activation.*flatten\S* \(None, 108\).*dense"):
        inspection.expose(model)
    assert inspection.expose(model, ()).outputs[0].shape == (None, 2)


def test_logits_that_do_not_depend_on_the_layer_are_refused():
    x = inputs = keras.Input((6, 6, 3))
    aside = layers.Dense(3, name="aside")(layers.Conv2D(2, 3, name="branch")(x))
    x = layers.Conv2D(4, 3, name="last")(x)
    x = layers.Dense(2, name="main")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, [x, aside])
    with pytest.raises(ValueError, match=r"that the logits depend on.*'branch'"):
        inspection.expose(model, "branch", "main")


WRONG = [
    (("conw",), ValueError, r"a layer of the model.*'conw'.*'backbone/conv'"),
    ((17,), ValueError, r"index into the 3 layers.*17"),
    ((3.5,), TypeError, "a layer, its name, path or index"),
    (({"link": "output"},), ValueError, '"layer" or "name"'),
    (({"name": "relu", "link": "both"},), ValueError, "both"),
    (({"name": "relu", "nodes": 1},), ValueError, "nodes"),
    ((keras.Input((3,)),), ValueError, "a tensor computed inside the model"),
    ((None, 3), ValueError, r"`outputs`.*1 outputs.*3"),
    ((None, "species"), ValueError, r"`outputs`.*'species'"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_wrong_endpoints_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        inspection.expose(_nested(), *arguments)


def test_a_name_in_two_nested_models_asks_for_its_path():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Add()([zoo._backbone(name="left")(x), zoo._backbone(name="right")(x)])
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(ValueError, match=r"\['left/relu', 'right/relu'\].*'relu'"):
        inspection.expose(model, "relu")
    assert inspection.expose(model, "right/relu").outputs[1].shape == (None, 6, 6, 4)


def test_something_else_than_a_model_is_refused():
    with pytest.raises(TypeError, match=r"`keras.Model`.*'resnet50' \(of type str\)"):
        inspection.expose("resnet50")


def test_a_model_without_weights_is_refused():
    for model in (keras.Sequential([layers.Dense(2)]), zoo.Subclassed()):
        with pytest.raises(ValueError, match=r"`model`.*built.*Call it once on a batch"):
            inspection.expose(model)


def test_weights_are_shared():
    model = _nested()
    exposed = inspection.expose(model)
    assert {id(w) for w in exposed.weights} == {id(w) for w in model.weights}
    model.layers[-1].bias.assign(np.arange(5))
    expected = zoo.logits() - zoo.BIAS + np.arange(5)
    np.testing.assert_allclose(exposed(zoo.IMAGES)[0], expected, rtol=1e-5)


def test_a_subclassed_model_takes_inputs_of_the_shape_it_was_built_with():
    exposed = inspection.expose(zoo.subclassed().model)
    assert tuple(exposed.inputs[0].shape) == (None, 6, 6, 3)
    np.testing.assert_allclose(exposed(zoo.IMAGES)[1], RELU, rtol=1e-5, atol=1e-6)


def test_layers_inside_a_subclassed_model_are_found_by_name():
    for model in (zoo.subclassed().model, zoo.nested_subclassed().model):
        np.testing.assert_allclose(_activations(model, "relu"), RELU, rtol=1e-5, atol=1e-6)


def test_layers_are_found_by_class_and_property():
    model = _nested()
    assert list(inspection.find_layers(model, layers.Conv2D)) == ["backbone/conv"]
    both = inspection.find_layers(model, (layers.ReLU, layers.GlobalAveragePooling2D))
    assert list(both) == ["backbone/relu", "backbone/pool"]
    found = inspection.find_layers(model, lambda layer: "dense" in layer.name)
    assert list(found.values()) == [model.layers[-1]]


def test_layers_with_bias_are_those_that_add_one():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name="bare")(x)
    x = layers.BatchNormalization(center=False, name="normalization")(x)
    x = layers.LayerNormalization(center=False, name="centred")(x)
    x = layers.Conv2D(4, 3, name="biased")(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    assert list(inspection.layers_with_bias(model)) == ["normalization", "biased", "head"]


@pytest.mark.parametrize(
    "kind",
    ["subclassed_with_tensorflow", "backbone_with_tensorflow", "nested_backbone_with_tensorflow"],
)
def test_layers_are_reached_where_tensorflow_functions_are_called(kind):
    model = zoo.KINDS[kind]().model
    assert any(path.endswith("relu") for path in inspection.find_layers(model, layers.ReLU))
    for endpoint in ("relu", None, {"name": "pool", "link": "input"}):
        np.testing.assert_allclose(_activations(model, endpoint), RELU, rtol=1e-5, atol=1e-6)
    exposed = inspection.expose(model, "conv")
    np.testing.assert_allclose(tf.nn.relu(exposed(zoo.IMAGES)[1]), RELU, rtol=1e-5, atol=1e-6)
    predictions = exposed.activation(exposed(zoo.IMAGES)[0])
    np.testing.assert_allclose(predictions, model(zoo.IMAGES), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"Closest: '\S*conv'"):
        inspection.expose(model, "convv")


def test_logits_out_of_reach_are_told():
    class Bare(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(4, 3)
            self.weight = self.add_weight(shape=(4, 2))

        def call(self, inputs):
            return tf.nn.softmax(tf.reduce_mean(self.conv(inputs), [1, 2]) @ self.weight)

    with pytest.raises(ValueError, match="computed by TensorFlow functions, out of reach"):
        inspection.expose(zoo._called(Bare()))


def test_a_call_that_fails_is_quoted():
    class Failing(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(4, 3)
            self.failing = False

        def call(self, inputs):
            if self.failing:
                raise RuntimeError("as asked")
            return self.conv(inputs)

    model = zoo._called(Failing())
    model.failing = True
    with pytest.raises(ValueError, match=r"can't be reached.*RuntimeError: as asked"):
        inspection.expose(model)


VALUES = np.array([[1.0, 5.0, 2.0], [7.0, 8.0, 9.0]], "float32")
TAKEN = [
    (None, VALUES),
    (1, [[5.0], [8.0]]),
    ([2, 0], [[2.0], [7.0]]),
    ([[1, 0], [2, 2]], [[5.0, 1.0], [9.0, 9.0]]),
    ("argmax", [[5.0], [9.0]]),
]


@pytest.mark.parametrize(("indices", "expected"), TAKEN)
def test_units_are_gathered_sample_by_sample(indices, expected):
    np.testing.assert_array_equal(inspection.gather_units(VALUES, indices), expected)
    compiled = tf.function(inspection.gather_units)(VALUES, indices)
    np.testing.assert_array_equal(compiled, expected)


@pytest.mark.parametrize("indices", ["top", 1.5, [[[0]]]])
def test_indices_of_another_form_are_refused(indices):
    with pytest.raises(ValueError, match="`indices`"):
        inspection.gather_units(VALUES, indices)


@pytest.mark.parametrize(
    ("name", "size", "last"),
    [
        ("ResNet50V2", 64, "post_relu"),
        ("MobileNetV2", 64, "out_relu"),
        ("MobileNetV3Small", 64, None),
        ("EfficientNetB0", 64, "top_activation"),
        ("VGG16", 64, "block5_pool"),
        ("DenseNet121", 64, "relu"),
        ("ConvNeXtTiny", 64, None),
        ("Xception", 96, "block14_sepconv2_act"),
        ("InceptionV3", 139, "mixed10"),
        ("NASNetMobile", 64, None),
    ],
)
@pytest.mark.slow
def test_the_last_activation_of_known_architectures_is_found(name, size, last):
    application = getattr(keras.applications, name)
    top = application(weights=None, input_shape=(size, size, 3), classes=7)
    exposed = ke.inspection.expose(top)
    if last is None:
        backbone = application(weights=None, include_top=False, input_shape=(size, size, 3))
        assert exposed.outputs[1].shape[-3:] == backbone.output.shape[-3:]
    else:
        assert exposed.outputs[1].shape == top.get_layer(last).output.shape
    images = np.random.default_rng(0).normal(size=(1, size, size, 3)).astype("float32")
    predictions = keras.ops.softmax(exposed(images)[0])
    np.testing.assert_allclose(predictions, top(images), atol=1e-5)
    # Large graphs take long to compile; those of `tests/real` are.
    _, maps = ke.gradcam(top, images, 0, run_eagerly=True)
    assert maps.shape == (1, size, size, 1)


def _two_branches():
    """Build a model whose logits take the input beside the activations of its layers."""
    x = inputs = keras.Input((6, 6, 3))
    x = first = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(x)
    x = layers.Add()([layers.Conv2D(4, 3, padding="same", name="second")(x), first])
    x = layers.Concatenate()([layers.ReLU(name="third")(x), inputs])
    x = keras.ops.silu(layers.Conv2D(2, 5, name="fourth")(x))
    x = layers.Dense(4, activation="tanh")(layers.GlobalMaxPooling2D(keepdims=True)(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))


@pytest.mark.parametrize("kind", [*zoo.KINDS, "two_branches"])
def test_a_model_is_resumed_from_its_activations(kind):
    specimen = zoo.KINDS[kind]() if kind in zoo.KINDS else zoo.Specimen(_two_branches())
    exposed = ke.inspection.expose(
        specimen.model,
        specimen.options.get("layer"),
        specimen.options.get("output"),
        inputs=specimen.x,
    )
    inputs = keras.tree.map_structure(tf.convert_to_tensor, specimen.x)
    inputs = tuple(inputs) if isinstance(inputs, list) else inputs
    logits, activations = exposed(inputs, training=False)
    same = tf.cast(exposed.resume(inputs, activations), tf.float32)
    logits = tf.cast(logits, tf.float32)
    np.testing.assert_allclose(same, logits, rtol=1e-5, atol=1e-5)
    changed = tf.cast(exposed.resume(inputs, tf.zeros_like(activations)), tf.float32)
    assert not np.allclose(changed, logits, atol=1e-2)
    if kind in zoo.KINDS:  # Nothing but the bias is left of the zoo's models.
        np.testing.assert_allclose(changed, np.stack([zoo.BIAS] * 3), rtol=1e-2)


def test_a_model_is_resumed_from_each_of_its_layers():
    model = _two_branches()
    exposed = ke.inspection.expose(model, ["first", "third"])
    images = tf.constant(zoo.IMAGES)
    logits, first, third = exposed(images)
    for number, activations in enumerate((first, third)):
        np.testing.assert_allclose(exposed.resume(images, activations, number), logits, rtol=1e-5)
    # What is given in place of the first activations counts in both paths that take them.
    rest = exposed.resume(images, 0 * first)
    x = layers.ReLU()(model.get_layer("second")(0 * first))
    x = tf.nn.silu(model.get_layer("fourth")(tf.concat([x, images], -1)))
    x = model.layers[-3](tf.reduce_max(x, (1, 2), keepdims=True))
    model.layers[-1].activation = None
    np.testing.assert_allclose(model.layers[-1](x[:, 0, 0]), rest, rtol=1e-4, atol=1e-5)


def test_every_activation_is_exposed_in_order():
    exposed = ke.inspection.expose_rectified(_two_branches())
    shapes = [tuple(tensor.shape) for tensor in exposed.outputs]
    # The activation after the pooling has a single position.
    assert shapes == [(None, 3), (None, 6, 6, 4), (None, 6, 6, 4), (None, 2, 2, 2)]


def test_a_model_without_activations_is_exposed_at_the_default_layer():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(x))
    exposed = ke.inspection.expose_rectified(keras.Model(inputs, layers.Dense(2)(x)))
    assert [tuple(t.shape) for t in exposed.outputs] == [(None, 2), (None, 4, 4, 4)]


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_biases_are_exposed_before_activations(kind):
    specimen = zoo.KINDS[kind]()
    output = specimen.options.get("output")
    exposed = ke.inspection.expose_biases(specimen.model, output, inputs=specimen.x)
    logits, *outputs = keras.tree.flatten(exposed(specimen.x, training=False))
    assert len(outputs) == len(exposed.offsets)
    np.testing.assert_allclose(logits, zoo.logits(), rtol=0.05, atol=0.05)
    found = {path.rsplit("/", 1)[-1].split(":")[0]: read for path, read in exposed.offsets.items()}
    np.testing.assert_allclose(found["conv"](), zoo.OFFSET, rtol=1e-2)
    at = [path.rsplit("/", 1)[-1].split(":")[0] for path in exposed.offsets].index("conv")
    assert outputs[at].numpy().min() < -0.5  # Not rectified.


def test_a_layer_called_twice_has_two_biases():
    x = inputs = keras.Input((6, 6, 3))
    conv = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")
    x = layers.GlobalAveragePooling2D()(conv(conv(x)))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    assert list(ke.inspection.expose_biases(model).offsets) == ["conv", "conv:1", "head"]
