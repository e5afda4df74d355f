"""Which crop of the face a film is made in, from the words of the command line and from motion files."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import toy
from test_cli import driving_frames, write_film, write_wav
from test_template import template, written

from kdtalker.apps.cli import main
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MOTION_WIDTH, Motion
from kdtalker.edits.transfer import transfer_rotations
from kdtalker.media.video import VideoFrames, read_video
from kdtalker.renderers.liveportrait.engine import transfer_absolute
from kdtalker.renderers.liveportrait.template import read_template

MOTION = Motion.from_vector(np.random.default_rng(0).normal(1, 0.1, (4, MOTION_WIDTH)).astype(np.float32), "mesh")


@pytest.fixture
def framed(tmp_path, monkeypatch):
    """Calls the command line over a toy engine; gives the exit code and the framings that the portrait was found in."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("face.png", toy.picture()[..., ::-1])
    write_wav("voice.wav", toy.sound(0.2))
    write_film("driving.mp4", driving_frames(5))
    written(tmp_path / "template.pkl", template())
    for framing in ("speech", "driving"):
        replace(MOTION, framing=framing).save(tmp_path / f"{framing}.npz")
    framings = []

    class FramingEngine(toy.ToyEngine):
        def find_portrait(self, image, *, framing, **how):
            framings.append(framing)
            return super().find_portrait(image, framing=framing, **how)

    engine = toy.pipeline(FramingEngine())

    def call(*words):
        framings.clear()
        fixed = ("--image", "face.png", "--output", "film.mp4")
        return main([*fixed, *words], load=lambda job: engine), framings

    return call


@pytest.mark.parametrize(
    ("words", "framing"),
    [
        (("--audio", "voice.wav"), "speech"),
        (("--audio", "voice.wav", "--pose-from", "driving.mp4"), "speech"),
        (("--driving", "driving.mp4"), "driving"),
        (("--motion", "speech.npz"), "speech"),
        (("--motion", "driving.npz", "--audio", "voice.wav"), "driving"),
    ],
)
def test_what_moves_the_portrait_decides_how_it_is_cropped(framed, words, framing):
    assert framed(*words) == (0, [framing])


def test_a_template_is_a_driving_film_of_the_published_engine(framed, capfd):
    assert read_template(Path("template.pkl")).motion.framing == "driving"
    assert framed("--motion", "template.pkl") == (2, [])
    assert "choose --engine liveportrait" in capfd.readouterr().err


def test_a_motion_file_tells_its_framing_and_retargeting(tmp_path):
    motion = replace(MOTION, framing="driving", retarget=np.float32([[0.3, -1]] * 4))
    motion.save(tmp_path / "new.npz")
    read = Motion.load(tmp_path / "new.npz")
    assert read.framing == "driving" and read[1:3].framing == "driving"
    np.testing.assert_array_equal(read.retarget, motion.retarget)
    with np.load(tmp_path / "new.npz") as file:
        older = {name: file[name] for name in file if name not in ("framing", "retarget", "gaze")}
    np.savez(tmp_path / "old.npz", **older)
    read = Motion.load(tmp_path / "old.npz")
    assert read.framing == "speech" and (read.retarget == -1).all()
    np.savez(tmp_path / "other.npz", **older, framing="profile")
    with pytest.raises(InputError, match="'profile'.*speech, driving"):
        Motion.load(tmp_path / "other.npz")
    with pytest.raises(InputError, match="framing"):
        Motion.concatenate([motion, MOTION])


def test_another_framing_is_refused():
    with pytest.raises(InputError, match="'profile'.*speech and driving"):
        toy.pipeline().portrait(toy.picture(), framing="profile")


def test_a_head_from_another_crop_moves_as_far_for_its_size():
    """Of a face that is drawn 1.5 times as large its way is 1.5 times as long; an absolute place says nothing."""
    motion = replace(MOTION, scale=np.full((4, 1), 1.2, np.float32), framing="driving")
    rest = replace(MOTION[:1], scale=np.full((1, 1), 1.8, np.float32))
    found = transfer_rotations(motion, first=motion[:1], rest=rest)
    np.testing.assert_allclose(found.shift - rest.shift, 1.5 * (motion.shift - motion[:1].shift), atol=1e-5)
    assert found.framing == "speech"
    same = transfer_rotations(motion, first=motion[:1], rest=replace(rest, framing="driving"))
    np.testing.assert_allclose(same.shift - rest.shift, motion.shift - motion[:1].shift, atol=1e-5)
    np.testing.assert_array_equal(transfer_absolute(motion, rest=rest).shift, np.repeat(rest.shift, 4, axis=0))


def test_a_films_frames_can_be_gone_through_again(tmp_path):
    write_film(tmp_path / "film.mp4", driving_frames(4))
    frames, once = VideoFrames(tmp_path / "film.mp4"), list(read_video(tmp_path / "film.mp4"))
    for _ in range(2):
        np.testing.assert_array_equal(list(frames), once)
