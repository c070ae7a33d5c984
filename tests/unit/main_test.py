import types

import keras
import numpy as np
import pytest
from PIL import Image

from keras_explainable import __main__ as command
from keras_explainable import visualization


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a folder of images and models, good and bad."""
    folder = tmp_path_factory.mktemp("command")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 18, 3), "uint8")
    Image.fromarray(pixels).save(folder / "photo.png")
    (folder / "other").mkdir()
    Image.fromarray(pixels[..., 0]).save(folder / "other" / "photo.png")
    (folder / "bad.png").write_text("not an image")
    (folder / "bad.keras").write_text("not a model")
    classifier((8, 8, 3)).save(folder / "model.keras")
    classifier((8, 8, 1)).save(folder / "grey.keras")
    classifier((None, None, 3)).save(folder / "any_size.keras")
    classifier((8, 8, 2)).save(folder / "two_channels.keras")
    model = classifier((8, 8, 3))
    keras.Model(model.inputs, [model.outputs[0]] * 2).save(folder / "two_outputs.keras")
    subclassed = Subclassed()
    subclassed.build((None, 8, 8, 3))
    subclassed.save(folder / "subclassed.keras")
    return folder


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.classifier = classifier((8, 8, 3))

    def call(self, inputs):
        return self.classifier(inputs)


def classifier(shape):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run the command line in the folder: its exit code, output and errors."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        capsys.readouterr()
        try:
            code = command.main([*arguments])
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def drawn(monkeypatch):
    """Record what is drawn."""
    calls = []
    grid = visualization.grid

    def record(images, maps, **options):
        calls.append((images, maps, options))
        return grid(images, maps, **options)

    monkeypatch.setattr(visualization, "grid", record)
    return calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("photo.png", "no model to explain: give --model PATH or --model NAME"),
        ("--model model.keras", "no image to explain: give at least one image file"),
        ("none.png --model model.keras", "no such image file: none.png"),
        ("other --model model.keras", "no such image file: other"),
        ("bad.png --model model.keras", "not an image that can be read: bad.png"),
        ("photo.png --model none.keras", "no such model file: none.keras"),
        ("photo.png --model bad.keras", "cannot load the model bad.keras: "),
        ("photo.png --model resnet50v", "named resnet50v; did you mean ResNet50V2?"),
        ("photo.png --model two_channels.keras", "takes inputs of shape (None, 8, 8, 2)"),
        ("photo.png --model two_outputs.keras", "gives outputs of shape [(None, 5), (None, 5)]"),
        ("photo.png --model model.keras --size 6 6", "takes images of 8 by 8 only"),
        ("photo.png --model any_size.keras", "any size: give --size HEIGHT WIDTH"),
        ("photo.png --model model.keras --method gradcm", "Did you mean 'gradcam'?"),
        ("photo.png --model model.keras --units 5", "--units 5: the units of the model are 0 to 4"),
        ("photo.png --model model.keras --units -1", "--units -1: the units of the model are 0"),
        ("photo.png --model model.keras --units top6", "--units top6: the model has 5 units"),
        ("photo.png --model model.keras --units top0", "--units takes numbers, or argmax"),
        ("photo.png --model model.keras --units argmax 3", "or top3 and the like, not: argmax 3"),
        ("photo.png --model model.keras --layer none", "'none'"),
        ("photo.png --model model.keras --output photo.png", "cannot write in photo.png"),
        ("photo.png --model model.keras --preprocessing x", "--preprocessing: invalid choice: 'x'"),
        ("--unknown", "unrecognized arguments: --unknown"),
    ],
)
def test_bad_requests_get_one_line_and_exit_code_2(run, arguments, message):
    code, output, errors = run(*arguments.split())
    assert code == 2
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("python -m keras_explainable: error: ")
    assert message in errors


def test_cheap_mistakes_are_found_before_the_model_is_loaded(run, monkeypatch):
    monkeypatch.setattr(command, "load_classifier", pytest.fail)
    for arguments in ("bad.png", "photo.png --method x", "photo.png --units x"):
        assert run(*arguments.split(), "--model", "model.keras")[0] == 2


def test_images_of_a_saved_model_are_explained(run, folder):
    code, output, errors = run(
        "photo.png", "other/photo.png", "--model", "model.keras", "--output", "maps"
    )
    assert (code, errors) == (0, "")
    paths = [folder / "maps" / "photo_gradcam.png", folder / "maps" / "photo_gradcam_2.png"]
    assert output.split() == [str(path.relative_to(folder)) for path in paths]
    for path in paths:
        with Image.open(path) as picture:
            width, height = picture.size
            assert width > 2 * height  # Image and map are side by side.
            assert np.asarray(picture.convert("L")).std() > 10


def test_pictures_hold_the_map_and_the_score_of_the_best_units(run, drawn, folder):
    assert run("photo.png", "--model", "model.keras", "--units", "top2")[0] == 0
    model = keras.saving.load_model(folder / "model.keras")
    image = Image.open(folder / "photo.png")
    pixels = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR), "float32")
    scores = model.predict(pixels[None], verbose=0)[0]
    best = np.argsort(-scores)[:2]
    ((images, maps, options),) = drawn
    assert options["titles"] == [[f"unit {unit} ({scores[unit]:.2f})" for unit in best]]
    assert options["captions"] == ["photo.png"]
    np.testing.assert_array_equal(images[0], np.asarray(image))
    weights = model.layers[0](pixels[None]).numpy()[0] @ model.layers[-1].kernel.numpy()[:, best]
    positive = np.maximum(weights, 0)
    lowest, highest = positive.min((0, 1)), positive.max((0, 1))
    expected = (positive - lowest) / (highest - lowest)
    np.testing.assert_allclose(maps["gradcam"][0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("preprocessing", "expected"), [("none", 255), ("unit", 1), ("symmetric", 1)]
)
def test_preprocessing_scales_pixels(preprocessing, expected):
    pixels = np.array([0.0, 127.5, 255.0])
    scaled = command.PREPROCESSINGS[preprocessing](pixels)
    np.testing.assert_allclose(scaled[-1], expected)
    np.testing.assert_allclose(scaled[0], -1 if preprocessing == "symmetric" else 0)
    np.testing.assert_allclose(scaled[1], scaled[[0, 2]].mean())


def test_every_option_changes_what_is_drawn(run, drawn):
    for options in (
        "--units 3",
        "--units 1 3",
        "--units 3 --preprocessing symmetric",
        "--units 3 --method gradients",
    ):
        assert run("photo.png", "--model", "model.keras", *options.split())[0] == 0
    plain, two, scaled, gradients = (list(maps.values())[0] for _, maps, _ in drawn)
    np.testing.assert_allclose(two[..., 1:], plain, atol=1e-6)
    assert two.shape[-1] == 2
    assert np.abs(scaled - plain).max() > 0.01
    assert np.abs(gradients - plain).max() > 0.01


def test_models_of_one_channel_take_grey_images(run, drawn):
    assert run("photo.png", "--model", "grey.keras")[0] == 0
    assert drawn[0][1]["gradcam"].shape == (1, 8, 8, 1)


def test_models_of_any_size_take_the_given_size(run, drawn):
    size = ("--size", "6", "10")
    assert run("photo.png", "--model", "any_size.keras", *size)[0] == 0
    assert drawn[0][1]["gradcam"].shape == (1, 6, 10, 1)


def test_saved_subclassed_models_are_explained(run, drawn):
    assert run("photo.png", "--model", "subclassed.keras")[0] == 0
    assert run("photo.png", "--model", "model.keras")[0] == 0
    maps, expected = (call[1]["gradcam"] for call in drawn)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_photographs_are_turned_upright(tmp_path):
    pixels = np.zeros((4, 8, 3), "uint8")
    pixels[:, :2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned by a quarter.
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned = np.asarray(command.load_image(tmp_path / "turned.png"))
    assert turned.shape == (8, 4, 3)
    assert (turned[:2] == 255).all()
    assert (turned[2:] == 0).all()


def test_every_application_is_found_in_any_case():
    for name in ("ResNet50V2", "MobileNetV3Small", "NASNetMobile", "VGG16", "ConvNeXtTiny"):
        module, constructor = command.find_application(name.lower())
        assert constructor is getattr(keras.applications, name)
        assert callable(module.preprocess_input)
    assert command.find_application("resnet50v2")[0] is keras.applications.resnet_v2


def test_named_models_use_their_preprocessing_and_class_names(run, drawn, folder, monkeypatch):
    names = np.array(["tench", "great_white_shark", "cock", "hen", "ostrich"])
    seen = []

    def decode_predictions(predictions, top):
        assert top == 1
        return [[(f"n{row.argmax()}", names[row[:5].argmax()], 1.0)] for row in predictions]

    def preprocess_input(pixels):
        seen.append(pixels.max())
        return pixels / 255.0

    module = types.SimpleNamespace(
        decode_predictions=decode_predictions, preprocess_input=preprocess_input
    )

    def constructor(weights):
        assert weights == "imagenet"
        return keras.saving.load_model(folder / "model.keras")

    monkeypatch.setattr(command, "find_application", lambda _: (module, constructor))
    assert run("photo.png", "--model", "SomeNet", "--units", "1")[0] == 0
    assert drawn[0][2]["titles"][0][0].startswith("great white shark (0.")
    assert len(seen) == 1
    assert seen[0] > 100
    assert run("photo.png", "--model", "SomeNet", "--preprocessing", "unit")[0] == 0
    assert len(seen) == 1


def test_failed_download_gets_one_line(run, monkeypatch):
    def constructor(weights):
        raise Exception(f"URL fetch failure\non {weights}")

    monkeypatch.setattr(
        command, "find_application", lambda _: (types.SimpleNamespace(), constructor)
    )
    code, _, errors = run("photo.png", "--model", "SomeNet")
    assert code == 2
    assert errors.endswith("cannot get the weights of SomeNet: URL fetch failure on imagenet\n")


def test_without_arguments_the_demonstration_runs(run, folder, monkeypatch):
    from keras_explainable import demo

    monkeypatch.setattr(command, "DEMO_SCENES", 8)
    train, study = demo.train, demo.study

    def detect_all(digits):
        model = train(digits, epochs=1, steps=1, batch_size=2, verbose=0)
        kernel, bias = model.layers[-1].get_weights()
        model.layers[-1].set_weights([kernel, bias + 50])
        return model

    monkeypatch.setattr(demo, "train", detect_all)
    monkeypatch.setattr(demo, "study", lambda *args, **kwargs: study(*args, 1, **kwargs))
    code, output, _ = run("--output", "study")
    assert code == 0
    assert "D-MinMax-CAM" in output
    assert "Uniform" in output
    assert "Picture: study/digits.png" in output
    with Image.open(folder / "study" / "digits.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_table_shows_shares_in_percent():
    study = types.SimpleNamespace(num_maps=7, shares={"Grad-CAM": (0.5, 0.125)})
    header, _, row = command.format_shares(study).splitlines()
    assert "7 maps" in header
    assert row.split() == ["Grad-CAM", "50.0%", "12.5%", "37.5%", "4.0"]


def test_help_names_every_method(run):
    code, output, _ = run("--help")
    assert code == 0
    for name in command.methods.names():
        assert name in output
