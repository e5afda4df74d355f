"""LivePortrait's motion templates: read at any rate, nothing in them is run, everything else is refused by name."""

import os
import pickle

import numpy as np
import pytest
import torch

from kdtalker.errors import InputError
from kdtalker.liveportrait.template import read_template
from kdtalker.motion import rotation_matrix

POSE = np.stack([np.linspace(-20, 20, 60), np.linspace(5, -15, 60), np.linspace(-170, -190, 60)], axis=1)
EXPRESSION = np.random.default_rng(0).standard_normal((60, 21, 3)).astype(np.float32) / 50


def template(frames=30, rate_hz=30, key="R", **changes):
    """A face that turns evenly and moves on by 0.01 a frame."""
    motion = [
        {
            "scale": np.float32([[1.5]]),
            key: rotation_matrix(POSE[i : i + 1]),
            "exp": EXPRESSION[i : i + 1],
            "t": np.float32([[0.1, 0.01 * i, 3]]),
        }
        for i in range(frames)
    ]
    ratios = {
        "c_eyes_lst": [np.float32([[0.3, 0.4]])] * frames,
        "c_lip_lst": [np.float32([[0.02 * i]]) for i in range(frames)],
    }
    return {"n_frames": frames, "output_fps": rate_hz, "motion": motion, **ratios, **changes}


def written(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("key", ["R", "R_d"])
def test_a_template_is_read_as_it_is_at_25_frames_a_second(tmp_path, protocol, key):
    read = read_template(written(tmp_path / "a.pkl", template(rate_hz=25, key=key), protocol))
    motion = read.motion
    assert len(motion) == 30 and motion.space == "liveportrait"
    np.testing.assert_array_equal(motion.expression, EXPRESSION[:30])
    np.testing.assert_array_equal(motion.scale, np.full((30, 1), 1.5, np.float32))
    np.testing.assert_allclose(rotation_matrix(motion.pose), rotation_matrix(POSE[:30]), atol=1e-6)
    np.testing.assert_allclose(read.openings.eyes, 0.35, atol=1e-6)
    np.testing.assert_allclose(read.openings.lips, 0.02 * np.arange(30), atol=1e-6)


@pytest.mark.parametrize(("rate_hz", "frames"), [(20, 40), (30, 60), (np.float64(30), 60), (60, 60)])
def test_another_rate_is_led_to_25_frames_a_second(tmp_path, rate_hz, frames):
    read = read_template(written(tmp_path / "a.pkl", template(frames, rate_hz)))
    assert len(read.motion) == round(25 * frames / rate_hz)
    now = np.minimum(np.arange(len(read.motion)) * rate_hz / 25, frames - 1)
    np.testing.assert_allclose(read.motion.shift[:, 1], 0.01 * now, atol=1e-6)
    np.testing.assert_allclose(read.openings.lips, 0.02 * now, atol=1e-6)
    even = np.stack([np.interp(now, np.arange(60), angles) for angles in POSE.T], axis=1)
    np.testing.assert_allclose(rotation_matrix(read.motion.pose), rotation_matrix(even), atol=0.002)


def test_a_template_need_not_tell_of_eyes_and_lips(tmp_path):
    content = template()
    del content["c_eyes_lst"], content["c_lip_lst"]
    openings = read_template(written(tmp_path / "a.pkl", content)).openings
    assert openings.eyes is None and openings.lips is None


class Code:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_refused_by_name_and_not_run(tmp_path, protocol):
    content = template(c_lip_lst=[Code(tmp_path / "run")])
    with pytest.raises(InputError, match=r"a\.pkl' holds code \(posix\.mkdir\)"):
        read_template(written(tmp_path / "a.pkl", content, protocol))
    assert not (tmp_path / "run").exists()


def test_a_pickle_leaves_nothing_behind_in_the_reader(tmp_path):
    """A pickle may write attributes on what it names; the next one is read as before."""
    evil = b"\x80\x02c_codecs\nencode\n}(U\x0c__defaults__)U\x04evilK\x01ub."
    (tmp_path / "evil.pkl").write_bytes(evil)
    with pytest.raises(InputError):
        read_template(tmp_path / "evil.pkl")
    assert len(read_template(written(tmp_path / "a.pkl", template(), 2)).motion) == 25


def changed(**numbers):
    """A template of which the first frame has other numbers."""
    content = template()
    content["motion"][0].update(numbers)
    return content


REFUSED = {
    "tensor": (template(c_lip_lst=[torch.ones(1)]), r"holds code \(torch"),
    "numpy function": (template(c_lip_lst=[np.sum]), r"holds code \(numpy"),
    "objects": (template(c_lip_lst=[np.array([None])]), "holds an array of 'O8', wanted numbers"),
    "list": ([1], "holds one list"),
    "nothing": ({}, "lacks 'motion'"),
    "no rotation": (template(motion=[{"scale": 1.0}], n_frames=1), "lacks 'R'"),
    "no frames": (template(0), "has 0 frames and has 0"),
    "other number of frames": (template(n_frames=3), "has 3 frames and has 30"),
    "no rate": (template(output_fps=0), "frame rate is 0"),
    "not a rotation": (changed(R=np.ones((1, 3, 3))), "no rotations"),
    "other keypoints": (changed(exp=np.ones((1, 20, 3))), "size 60"),
    "not finite": (changed(t=np.full(3, np.nan)), "not finite"),
    "some lips": (template(c_lip_lst=[0.1]), "lip in 1 of 30"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_no_template_is_refused_in_one_sentence(tmp_path, row):
    content, told = REFUSED[row]
    with pytest.raises(InputError, match=told) as caught:
        read_template(written(tmp_path / "a.pkl", content))
    assert "a.pkl" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle\n" * 30, pickle.dumps(template())[:-100]], ids=["empty", "text", "cut"]
)
def test_what_is_no_pickle_is_refused(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pkl' cannot be read as a motion template"):
        read_template(tmp_path / "a.pkl")
    with pytest.raises(InputError, match="none.pkl' cannot be read .No such file"):
        read_template(tmp_path / "none.pkl")
