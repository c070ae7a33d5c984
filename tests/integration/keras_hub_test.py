"""Transformers of KerasHub are explained, on the grid of their patches."""

import numpy as np
import pytest

import keras_explainable as ke

keras_hub = pytest.importorskip("keras_hub")

IMAGES = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
SMALL = {"image_shape": (64, 64, 3), "num_layers": 2, "num_heads": 2, "hidden_dim": 16}


def _vit(**options):
    backbone = keras_hub.models.ViTBackbone(patch_size=16, mlp_dim=32, **SMALL)
    return keras_hub.models.ViTImageClassifier(backbone=backbone, num_classes=4, **options)


def _deit():
    backbone = keras_hub.models.DeiTBackbone(patch_size=16, intermediate_dim=32, **SMALL)
    return keras_hub.models.DeiTImageClassifier(backbone=backbone, num_classes=4)


def _swin():
    backbone = keras_hub.models.SwinTransformerBackbone(
        image_shape=(64, 64, 3), embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4
    )
    return keras_hub.models.SwinTransformerImageClassifier(backbone=backbone, num_classes=4)


MODELS = {
    "vit": (_vit, 4, 17),
    "vit, pooled": (lambda: _vit(pooling="gap"), 4, 17),
    "deit": (_deit, 4, 18),
    "swin": (_swin, 8, None),
}


@pytest.mark.filterwarnings("ignore:Layer 'attn'")
@pytest.mark.parametrize("name", MODELS)
def test_maps_have_the_grid_of_the_patches(name):
    build, side, length = MODELS[name]
    model = build()
    expected = model(IMAGES, training=False)
    for method in ("gradcam", "ablationcam", "layercam"):
        logits, maps = ke.explain(method, model, IMAGES, 0, resizing=False, postprocessing=None)
        np.testing.assert_allclose(logits, expected[:, :1], atol=1e-4)
        assert maps.shape == (2, side, side, 1)
        assert np.ptp(maps, axis=(1, 2)).min() > 0
    if length is None:
        return
    exposed = ke.inspection.expose_attention(model)
    logits, *scores = exposed(IMAGES)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert [tuple(s.shape) for s in scores] == [(2, 2, length, length)] * 2
    for method in ("attention_rollout", "getam", "legrad", "attention_relevance"):
        assert ke.explain(method, model, IMAGES, "argmax", resizing=4)[1].shape == (2, 4, 4, 1)
