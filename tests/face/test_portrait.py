"""Finding the face of a picture, and putting it back."""

import sys
import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker.core.errors import InputError
from kdtalker.face.portrait import Portrait, find_squares
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def tracker():
    return FaceTracker()


@pytest.fixture(scope="module")
def hopper():
    return read_image(EXAMPLES / "grace_hopper.jpg")


@pytest.fixture(scope="module")
def two(hopper):
    """Hopper on the left, Collins, smaller, on the right."""
    collins = read_image(EXAMPLES / "astronaut.png")
    tall = np.pad(collins, ((0, len(hopper) - len(collins)), (0, 0), (0, 0)))
    return np.concatenate([hopper, tall], axis=1)


def test_the_square_is_cut_and_pasted_without_a_trace(hopper, tracker):
    portrait = Portrait.find(hopper, tracker)
    assert portrait.face.shape == (portrait.side, portrait.side, 3)
    np.testing.assert_array_equal(portrait.paste(portrait.face), hopper)
    pasted = portrait.paste(np.zeros_like(portrait.face))
    assert (pasted != hopper).any()
    np.testing.assert_array_equal(pasted[:, : portrait.left], hopper[:, : portrait.left])


def test_the_largest_face_or_the_one_asked_for(two, tracker):
    largest, second = Portrait.find(two, tracker), Portrait.find(two, tracker, face=1)
    boxed = Portrait.find(two, tracker, box=(680, 60, 100, 120))
    assert largest.left + largest.side / 2 < 512 < second.left + second.side / 2
    assert boxed == second or (boxed.left, boxed.top, boxed.side) == (second.left, second.top, second.side)
    with pytest.raises(InputError, match="has 2"):
        Portrait.find(two, tracker, face=2)
    with pytest.raises(InputError, match="box"):
        Portrait.find(two, tracker, box=(0, 560, 20, 20))


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turned_pictures_are_looked_at_again(hopper, tracker, turn):
    assert Portrait.find(np.rot90(hopper, turn).copy(), tracker).side > 300


def test_a_small_face_in_a_large_room_is_found(hopper, tracker):
    room = np.full((1800, 1800, 3), 90, np.uint8)
    room[1000:1200, 300:470] = hopper[::3, ::3][:200, :170]
    assert Portrait.find(room, tracker).left > 150


def test_large_pictures_are_made_smaller_and_their_faces_stay_where_they_were(two, tracker):
    large = np.repeat(np.repeat(two, 4, axis=0), 4, axis=1)
    scale = 1920 / (4 * two.shape[1])
    for chosen in ({}, {"face": 1}, {"box": (680, 60, 100, 120)}):
        there = dict(chosen, box=tuple(4 * number for number in chosen["box"])) if "box" in chosen else chosen
        before, after = Portrait.find(two, tracker, **chosen), Portrait.find(large, tracker, **there)
        assert max(after.picture.shape) == 1920
        assert Portrait.find(large, tracker, max_side=4096, **there).picture is large
        expected = np.array([before.left, before.top, before.side]) * 4 * scale
        np.testing.assert_allclose([after.left, after.top, after.side], expected, atol=0.03 * after.side)
    squares = np.array([find_squares(picture, tracker) for picture in (two, large)])
    np.testing.assert_allclose(squares[1], 4 * squares[0], atol=0.03 * squares[1, :, 2].max())


def test_a_crop_of_a_large_picture_is_as_sharp_as_that(hopper, tracker):
    """The face of a group photograph is cut from the photograph, not from the smaller picture that it was found in."""
    room = np.full((600, 4000, 3), 90, np.uint8)
    room[:, 100:612] = hopper[:600]
    crop, expected = (Portrait.find(picture, tracker, crop=True).picture for picture in (room, hopper[:600]))

    def detail(picture):
        return cv2.Laplacian(picture, cv2.CV_32F).std()

    assert detail(crop) > 0.9 * detail(expected)


@pytest.mark.parametrize("shape", [(1, 100_000, 3), (100_000, 1, 3), (100, 2001, 3)])
def test_strips_are_refused(tracker, shape):
    strip = np.full(shape, 128, np.uint8)
    for look in (Portrait.find, find_squares):
        with pytest.raises(
            InputError, match=f"portrait has {shape[1]} x {shape[0]} px, wanted one side at most 20 times"
        ):
            look(strip, tracker)


def test_no_face_in_89_megapixels_is_told_in_5_s_of_cpu(tracker):
    began = time.process_time()
    with pytest.raises(InputError, match="No face"):
        Portrait.find(np.full((9400, 9400, 3), 200, np.uint8), tracker)
    assert time.process_time() - began < 5


def test_crop_is_a_square_of_512(hopper, tracker):
    assert Portrait.find(hopper, tracker, crop=True).picture.shape == (512, 512, 3)


def test_no_face_and_too_small_a_face_are_told(hopper, tracker):
    with pytest.raises(InputError, match="No face"):
        Portrait.find(np.full((400, 400, 3), 128, np.uint8), tracker)
    with pytest.raises(InputError, match="too small"):
        Portrait.find(hopper[::5, ::5].copy(), tracker)


def test_where_face_alignment_is_installed_it_is_asked_last(monkeypatch, tracker, hopper):
    """Its weights come from the network on first use; here stands only what happens when they cannot be had, and that
    a box it finds is taken up by the tracker."""

    class Detector:
        def __init__(self, device):
            pass

        def detect_from_image(self, picture):
            return [(180.0, 120.0, 380.0, 380.0, 0.9)]

    class Offline(Detector):
        def __init__(self, device):
            raise OSError("no network")

    module = types.ModuleType("face_alignment.detection.sfd")
    for name in ("face_alignment", "face_alignment.detection"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(FaceTracker, "find", lambda self, image, *, everywhere=False: [])
    module.FaceDetector = Detector
    assert Portrait.find(hopper, tracker).side > 300
    module.FaceDetector = Offline
    with pytest.raises(InputError, match="no network"):
        Portrait.find(hopper, tracker)
