"""Faces are told apart by who they are, not by where they are in the picture."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker.core.errors import InputError
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from train.evaluate import identity
from train.evaluate.identity import SAME_PERSON, FaceRecogniser, identity_distance

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def embed():
    tracker, recogniser = FaceTracker(), FaceRecogniser()
    return lambda image: recogniser.embed(image, tracker.find(image)[0].landmarks)


def test_one_person_is_near_and_another_far(embed):
    hopper, astronaut = (read_image(EXAMPLES / name) for name in ("grace_hopper.jpg", "astronaut.png"))
    turned = cv2.warpAffine(hopper, cv2.getRotationMatrix2D((250, 250), 12, 0.8), hopper.shape[1::-1])
    known = embed(hopper)
    assert identity_distance(known, embed(hopper)) == 0
    assert identity_distance(known, embed(turned)) < 0.3
    assert identity_distance(known, embed(np.ascontiguousarray(hopper[:, ::-1]))) < SAME_PERSON
    assert identity_distance(known, embed(astronaut)) > SAME_PERSON


def test_without_dlib_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(identity, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'kdtalker\[train\]'"):
        FaceRecogniser()
