"""A face is loaded once; its sessions share the portrait and the idle motion."""

import cv2
import numpy as np
import pytest
import toy

from kdtalker.core.errors import InputError
from kdtalker.live.face import LiveFace
from kdtalker.live.options import LiveOptions


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    path = tmp_path_factory.mktemp("face") / "portrait.png"
    cv2.imwrite(str(path), toy.picture(96, 80))
    return LiveFace.load(path, LiveOptions(pause_s=2.0, lookahead=-1), pipeline=toy.pipeline())


def test_frames_have_the_size_that_it_tells(face):
    with face.start(24_000) as session:
        frame = session.take()
    assert face.size == (96, 80) and frame.picture.shape == (80, 96, 3) and len(frame.sound) == 960


def test_pictures_have_even_sides_and_the_note_names_no_option_of_films(caplog):
    caplog.set_level("INFO")
    pictures = {(600, 512): (512, 436), (61, 45): (60, 44)}  # rows and columns, of the picture and of live frames
    for (height, width), (rows, columns) in pictures.items():
        image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        face = LiveFace.encode(toy.pipeline(), image)
        assert face.size == (columns, rows) == face.portrait.canvas.picture.shape[1::-1]
    (record,) = caplog.records
    assert record.getMessage().endswith("512 x 600 px was scaled down to 436 x 512 px, the size of live pictures.")


def test_sessions_share_the_idle_motion(face):
    with face.start(8_000) as one, face.start(48_000) as two:
        assert one.idle is two.idle is face.idle


def test_bad_input_is_said_in_a_sentence(face, tmp_path):
    with pytest.raises(InputError, match="multiple of 25"):
        face.start(11_000 + 1)
    with pytest.raises(InputError):
        LiveFace.load(tmp_path / "nobody.jpg", pipeline=toy.pipeline())
    cv2.imwrite(str(tmp_path / "plain.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="No face"):
        LiveFace.load(tmp_path / "plain.png", pipeline=toy.pipeline())
