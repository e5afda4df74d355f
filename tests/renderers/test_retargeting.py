"""How far eyes and lips shall be open, from the words of the command line to the engine."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import toy
from test_cli import driving_frames, write_film, write_wav
from test_template import template, written

from kdtalker.apps.cli import main
from kdtalker.core.protocols import Openings

SEEN = Openings(np.float32([0.1, 0.2]), np.float32([0.3, 0.4]))


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Calls the command line over a toy engine; gives the exit code and what the engine was asked for."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("face.png", toy.picture()[..., ::-1])
    write_wav("voice.wav", toy.sound(0.2))
    write_film("driving.mp4", driving_frames(5))
    written(tmp_path / "told.pkl", template())
    written(tmp_path / "silent.pkl", {name: value for name, value in template().items() if "lst" not in name})
    calls = []

    class RetargetingEngine(toy.ToyEngine):
        def track_openings(self, frames):
            return SEEN

        def retarget(self, source, eyes, lips):
            calls.append((eyes, lips))
            return lambda motion, frame: replace(motion, scale=motion.scale + 1)

    engine = toy.pipeline(RetargetingEngine())

    def call(*words):
        calls.clear()
        fixed = ("--image", "face.png", "--output", "film.mp4", "--save-motion", "made.npz", "--engine", "liveportrait")
        return main([*fixed, *words], load=lambda job: engine), calls

    return call


def test_a_number_reaches_the_engine_and_its_edit_the_film(asked, tmp_path):
    code, calls = asked("--audio", "voice.wav", "--retarget-eyes", "0.25")
    assert (code, calls) == (0, [(0.25, None)])
    edited = np.load(tmp_path / "made.npz")["scale"]
    assert asked("--audio", "voice.wav") == (0, [])
    np.testing.assert_allclose(edited, np.load(tmp_path / "made.npz")["scale"] + 1, atol=1e-6)


def test_a_driving_film_is_looked_through(asked):
    code, calls = asked("--driving", "driving.mp4", "--retarget-eyes", "driving", "--retarget-lips", "0.5")
    assert (code, calls) == (0, [(SEEN.eyes, 0.5)])


def test_a_template_tells_its_own(asked, capfd):
    _, calls = asked("--motion", "told.pkl", "--retarget-lips", "driving")
    ((eyes, lips),) = calls
    assert eyes is None and lips.shape == (25,) and lips[-1] > lips[0]
    assert asked("--motion", "silent.pkl", "--retarget-lips", "driving") == (2, [])
    assert "does not tell how far the lips are open" in capfd.readouterr().err
