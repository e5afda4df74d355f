"""Frames as ffmpeg's yuv420p: BT.709, and only what differs from the frame before is converted."""

import cv2
import numpy as np
import pytest

from kdtalker.media.yuv import BLOCK_PX, YUVPlanes

WIDTH, HEIGHT = 200, 96


@pytest.fixture
def frame():
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return np.ascontiguousarray(cv2.GaussianBlur(noise, (0, 0), 1.5))


def convert(frame):
    """By the definition: Rec. ITU-R BT.709-6, items 3.2 to 3.4, in floating point."""
    red, green, blue = np.moveaxis(frame / 255, -1, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    cb, cr = (blue - luma) / 1.8556, (red - luma) / 1.5748
    chroma = [one.reshape(len(one) // 2, 2, -1, 2).mean((1, 3)) for one in (cb, cr)]
    return np.concatenate([16 + 219 * luma.ravel(), *(128 + 224 * one.ravel() for one in chroma)])


def test_planes_are_those_of_the_standard(frame):
    assert np.abs(YUVPlanes(HEIGHT, WIDTH).update(frame) - convert(frame)).max() < 0.51


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_are_the_ends_of_the_limited_range(level):
    planes = YUVPlanes(2, 2).update(np.full((2, 2, 3), level, np.uint8))
    assert planes.tolist() == [235 if level else 16] * 4 + [128] * 2


def test_only_what_changes_is_converted_and_the_planes_are_those_of_the_whole(frame):
    film = YUVPlanes(HEIGHT, WIDTH)
    film.update(frame)
    assert film.converted == -(-WIDTH // BLOCK_PX) * HEIGHT // 2
    film.update(frame.copy())
    assert film.converted == 0
    changed = frame.copy()
    changed[11:15, 70:75] = 255 - changed[11:15, 70:75]  # rows 10 to 15: three blocks
    planes = film.update(changed)
    assert film.converted == 3
    np.testing.assert_array_equal(planes, YUVPlanes(HEIGHT, WIDTH).update(changed))


def test_a_frame_may_be_changed_after_it_was_converted(frame):
    """Each frame is compared with what the last one was, not with what became of its array."""
    film, array = YUVPlanes(HEIGHT, WIDTH), frame.copy()
    film.update(array)
    array[:] = 0
    np.testing.assert_array_equal(film.update(array), YUVPlanes(HEIGHT, WIDTH).update(array))
