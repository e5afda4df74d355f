"""Who wears glasses."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker.face.landmarks import EYE_CONTOURS
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.renderers.mesh.eyes.glasses import glasses_stiffness, wears_glasses

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def faces():
    tracker, found = FaceTracker(), {}
    for path in ("grace_hopper.jpg", "astronaut.png"):
        picture = read_image(EXAMPLES / path)
        found[path.split(".")[0]] = picture, tracker.find(picture)[0].landmarks
    return found


def test_glasses_are_found_on_who_wears_some(faces):
    assert wears_glasses(*faces["grace_hopper"])
    assert not wears_glasses(*faces["astronaut"])


@pytest.mark.parametrize("light", [30, 90])
def test_a_painted_bridge_makes_glasses(faces, light):
    picture, landmarks = faces["astronaut"]
    (left, right), unit = landmarks[[133, 362], :2], np.linalg.norm(landmarks[133, :2] - landmarks[362, :2])
    ends = (tuple(map(int, end)) for end in (left - [0, 0.1 * unit], right - [0, 0.1 * unit]))
    drawn = cv2.line(picture.copy(), *ends, (light,) * 3, max(2, round(0.05 * unit)))
    assert wears_glasses(drawn, landmarks)


def test_brows_are_held_and_lids_and_mouths_are_not(faces):
    held = glasses_stiffness(faces["grace_hopper"][1])
    assert (held[[105, 334, 168, 6]] > 0.9).all()
    assert not held[[13, 14, 61, 291, 152, *EYE_CONTOURS[0], *EYE_CONTOURS[1]]].any()
