"""The contact sheet shows every method."""

import numpy as np
from PIL import Image

import keras_explainable as ke
from tests.real import contact_sheet


def test_every_method_is_shown_once():
    shown = [row.method for rows in contact_sheet.groups().values() for row in rows]
    assert len(shown) == len(set(shown))
    wrapped = [name for name in shown if "(" in name]
    applying = {n for n in ke.methods.names() if ke.methods.registration(n).needs != "attention"}
    assert set(shown) - set(wrapped) == applying
    assert {name.split("(")[0] for name in wrapped} == set(ke.methods.meta_names())


def test_sheet_is_drawn_pixel_by_pixel(tmp_path):
    image = np.full((448, 448, 3), 200, "uint8")
    image[:224] = 0, 0, 255
    left, right = np.zeros((2, 448, 448))
    left[:, :224], right[:, 224:] = 1, 1
    maps = {"A family": {"first": [left, right], "second": [right, left]}}
    captions = [("bus", "0.9, logit 2.2"), ("person", "0.8, logit 1.4")]
    path = tmp_path / "sheet.png"
    contact_sheet.save(contact_sheet.draw([image, image], captions, maps, "source"), path)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)

    cell, step = contact_sheet.CELL, contact_sheet.CELL + contact_sheet.GAP
    top = contact_sheet.MARGIN + contact_sheet.CAPTION + contact_sheet.TITLE
    start = contact_sheet.MARGIN
    photograph = sheet[top : top + cell, start : start + cell]
    assert (np.abs(photograph[: cell // 2] - [0, 0, 255]) < 24).all()
    assert (np.abs(photograph[cell // 2 :] - 200) < 24).all()
    top += cell + contact_sheet.SPACE + contact_sheet.HEADING + contact_sheet.TITLE
    strip = sheet[top : top + cell, start : start + cell + step]
    coloured = strip[..., 0] - strip[..., 2] > 16
    assert coloured[:, : cell // 2].all()
    assert not coloured[:, cell // 2 : step + cell // 2].any()
    assert coloured[:, step + cell // 2 :].all()
