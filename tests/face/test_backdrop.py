"""A person before another background: what is hers stays, what is not goes."""

import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker.core.errors import InputError
from kdtalker.face import segmentation
from kdtalker.face.background import replace_background
from kdtalker.face.litert import LiteRTModel
from kdtalker.face.segmentation import person_matte
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image

EXAMPLES = Path(__file__).parents[2] / "examples"
TEAL = (0, 128, 128)


@pytest.mark.parametrize("name", ["grace_hopper.jpg", "astronaut.png"])
def test_the_face_stays_and_the_corners_go(name):
    picture = read_image(EXAMPLES / name)
    laid = replace_background(picture, TEAL)
    inside = FaceTracker().find(picture)[0].landmarks[:, :2].round().astype(int)
    x, y = (0.8 * inside + 0.2 * inside.mean(0)).astype(int).T
    assert np.abs(laid[y, x].astype(int) - picture[y, x]).mean() < 2
    assert np.abs(laid[:20, -20:].astype(int) - TEAL).mean() < 3
    assert laid.shape == picture.shape and laid.dtype == np.uint8


def test_the_segmenter_is_loaded_once_and_serves_several_threads(monkeypatch):
    loaded = []

    def load(name):
        loaded.append(name)
        return LiteRTModel(name)

    monkeypatch.setattr(segmentation, "LiteRTModel", load)
    segmentation._segmenter.cache_clear()
    pictures = [read_image(EXAMPLES / name)[:400, :400] for name in ("grace_hopper.jpg", "astronaut.png")]
    alone = [person_matte(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        for number, matte in enumerate(pool.map(lambda number: person_matte(pictures[number % 2]), range(24))):
            np.testing.assert_array_equal(matte, alone[number % 2])
    assert len(loaded) == 1


def test_the_edge_is_soft_and_narrow():
    matte = person_matte(read_image(EXAMPLES / "astronaut.png"))
    assert 0.005 < ((matte > 0.02) & (matte < 0.98)).mean() < 0.15
    assert 0.3 < matte.mean() < 0.7


def test_a_background_picture_covers_and_keeps_its_shape():
    picture = read_image(EXAMPLES / "grace_hopper.jpg")
    stripes = np.zeros((50, 400, 3), np.uint8)
    stripes[:, 200:] = 255  # its middle is the picture's middle
    laid = replace_background(picture, stripes)
    assert laid[10, 5].max() < 30 and laid[10, -5].min() > 225


def test_a_large_picture_is_cut_out_like_a_small_one():
    """Above MATTE_SIDE_PX the matte is found on a smaller copy."""
    picture = read_image(EXAMPLES / "grace_hopper.jpg")
    large = cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    laid = cv2.resize(replace_background(large, TEAL), picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(laid.astype(int) - replace_background(picture, TEAL)).mean() < 2


@pytest.mark.parametrize("shape", [(1, 100_000, 3), (100_000, 1, 3)])
def test_strips_are_refused_in_front_and_behind(shape):
    picture, strip = read_image(EXAMPLES / "grace_hopper.jpg"), np.full(shape, 128, np.uint8)
    with pytest.raises(
        InputError, match=f"background has {shape[1]} x {shape[0]} px, wanted one side at most 20 times"
    ):
        replace_background(picture, strip)
    with pytest.raises(InputError, match="portrait has"):
        replace_background(strip, TEAL)


def test_a_long_background_takes_no_more_memory_than_the_picture():
    """A banner behind a portrait that stands: enlarged as a whole it would take 5 GB."""
    wide, tall = np.full((500, 10_000, 3), (9, 99, 199), np.uint8), np.full((9000, 450, 3), 90, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.abs(replace_background(tall, wide)[:100].astype(int) - (9, 99, 199)).mean() < 3
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 1000
