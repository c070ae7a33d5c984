"""The CAM of a segmentation network whose logits are averaged is its segmentation."""

import numpy as np
import pytest

import keras_explainable as ke
from tests.real import photographs

NETWORKS = ("deeplabv3_mnv2_voc", "deeplabv3_mnv2_dm05_voc")


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("name", NETWORKS)
def test_cam_is_the_segmentation_less_the_bias(name):
    network = photographs.module("deeplab_voc")
    weights = photographs.WEIGHTS / f"{name}.npz"
    classifier = network.load(weights, head="cam")
    segmenter = network.load(weights, head="segmentation")
    _, entries = photographs.voc()
    x = [network.preprocess(network.letterbox(image)[0]) for _, image, _, _ in entries[:4]]
    x = np.stack(x)

    logits, maps = ke.cam(classifier, x, postprocessing=None, resizing=False)
    segmentation = segmenter.predict(x, verbose=0)
    wanted = segmentation - segmenter.get_layer("semantic").bias.numpy()
    assert maps.shape == wanted.shape == (4, 33, 33, 21)
    assert np.abs(maps - wanted).max() <= 2e-5 * np.abs(wanted).max()
    np.testing.assert_allclose(logits, segmentation.mean((1, 2)), rtol=0, atol=1e-4)
