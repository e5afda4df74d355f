"""Close-up metrics: a film beside itself is equal, a blurred or darkened mouth is told from the real one."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker import read_image
from kdtalker.face.landmarks import MOUTH_CORNERS
from kdtalker.face.tracker import FaceTracker
from train.evaluate.closeup import CloseUpMeter

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def film():
    """Three frames of a photographed smile, each a px farther right, with its landmarks."""
    picture = read_image(EXAMPLES / "astronaut.png")
    landmarks = FaceTracker().find(picture)[0].landmarks
    frames = [np.roll(picture, shift, axis=1) for shift in range(3)]
    return frames, np.stack([landmarks + [shift, 0, 0] for shift in range(3)]).astype(np.float32)


def measured(film, change):
    frames, track = film
    meter = CloseUpMeter(track)
    for number, frame in enumerate(frames):
        made = frame.copy()
        left, right = track[number][list(MOUTH_CORNERS), :2].astype(int)
        area = np.s_[left[1] - 12 : right[1] + 16, left[0] : right[0]]
        made[area] = change(made[area])
        meter.add(number, frame, made, track[number])
    return meter.metrics()


def test_a_film_is_like_itself(film):
    figures = measured(film, lambda mouth: mouth)
    assert figures["gradient energy"] == figures["flicker"] == figures["mouth SSIM"] == 1
    assert figures["colour"] == 0
    assert figures["mouth PSNR dB"] == figures["face PSNR dB"] > 90


def test_a_blurred_mouth_has_less_texture(film):
    figures = measured(film, lambda mouth: cv2.GaussianBlur(mouth, (0, 0), 2))
    assert figures["gradient energy"] < 0.5
    assert figures["mouth SSIM"] < 0.99


def test_a_darker_mouth_has_another_colour(film):
    figures = measured(film, lambda mouth: mouth // 2)
    assert figures["colour"] > 30
    assert figures["mouth PSNR dB"] < figures["face PSNR dB"] < 60
