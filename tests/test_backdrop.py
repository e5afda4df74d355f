"""A person before another background: what is hers stays, what is not goes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker.backdrop import lay_behind, person_matte
from kdtalker.tracker import FaceTracker
from kdtalker.video import read_image

EXAMPLES = Path(__file__).parent.parent / "examples"
TEAL = (0, 128, 128)


@pytest.mark.parametrize("name", ["grace_hopper.jpg", "astronaut.png"])
def test_the_face_stays_and_the_corners_go(name):
    picture = read_image(EXAMPLES / name)
    laid = lay_behind(picture, TEAL)
    inside = FaceTracker().find(picture)[0].landmarks[:, :2].round().astype(int)
    x, y = (0.8 * inside + 0.2 * inside.mean(0)).astype(int).T
    assert np.abs(laid[y, x].astype(int) - picture[y, x]).mean() < 2
    assert np.abs(laid[:20, -20:].astype(int) - TEAL).mean() < 3
    assert laid.shape == picture.shape and laid.dtype == np.uint8


def test_the_edge_is_soft_and_narrow():
    matte = person_matte(read_image(EXAMPLES / "astronaut.png"))
    assert 0.005 < ((matte > 0.02) & (matte < 0.98)).mean() < 0.15
    assert 0.3 < matte.mean() < 0.7


def test_a_background_picture_covers_and_keeps_its_shape():
    picture = read_image(EXAMPLES / "grace_hopper.jpg")
    stripes = np.zeros((50, 400, 3), np.uint8)
    stripes[:, 200:] = 255  # its middle is the picture's middle
    laid = lay_behind(picture, stripes)
    assert laid[10, 5].max() < 30 and laid[10, -5].min() > 225


def test_a_large_picture_is_cut_out_like_a_small_one():
    """Above FINEST_PX the matte is found on a smaller copy."""
    picture = read_image(EXAMPLES / "grace_hopper.jpg")
    large = cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    laid = cv2.resize(lay_behind(large, TEAL), picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(laid.astype(int) - lay_behind(picture, TEAL)).mean() < 2
