"""LivePortrait's motion templates: read at any rate, nothing in them is run, everything else is refused by name."""

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from kdtalker.core.errors import InputError
from kdtalker.core.motion import rotation_matrix
from kdtalker.renderers.liveportrait.template import read_template

POSE = np.stack([np.linspace(-20, 20, 60), np.linspace(5, -15, 60), np.linspace(-170, -190, 60)], axis=1)
EXPRESSION = np.random.default_rng(0).standard_normal((60, 21, 3)).astype(np.float32) / 50


def template(frames=30, rate_hz=30, key="R", step=0.01, **changes):
    """A face that turns evenly and moves on by `step` a frame."""
    motion = [
        {
            "scale": np.float32([[1.5]]),
            key: rotation_matrix(POSE[i : i + 1]),
            "exp": EXPRESSION[i : i + 1],
            "t": np.float32([[0.1, step * i, 3]]),
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


def nested(levels):
    """10 lists in a list of 10 ... : 10^levels numbers, in a few bytes of pickle."""
    value = [0.0]
    for _ in range(levels):
        value = [value] * 10
    return value


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
    "other keypoints": (changed(exp=np.ones((1, 20, 3))), "60 numbers where 63 are wanted"),
    "not finite": (changed(t=np.full(3, np.nan)), "not finite"),
    "some lips": (template(c_lip_lst=[0.1]), "lip in 1 of 30"),
    "lips in another way": (template(c_lip_lst=3), "lip in none of 30"),
    "rotation not finite": (changed(R=np.full((1, 3, 3), np.nan)), "not finite"),
    "rotation beyond float32": (changed(R=np.full((1, 3, 3), 1e300)), "not finite"),
    "rotation beyond squares": (changed(R=np.full((1, 3, 3), 1e30)), "no rotations"),
    "text": (changed(t="abc"), "something else where numbers are wanted"),
    "lists in lists": (changed(exp=nested(9)), "something else where numbers are wanted"),
    "frames are no dicts": (template(motion=[99 * str(i) for i in range(30)]), "built in another way"),
    "frames are a dict": (template(motion={0: 1}), "30 frames and has no list of them"),
    "endless frames": (template(n_frames=float("inf")), "has inf frames"),
    "a rate beyond numbers": (template(output_fps=10**400), "built in another way"),
    "frames by reference": (template(output_fps=1, motion=template()["motion"] * 3000, n_frames=90_000), "cannot hold"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_no_template_is_refused_in_one_sentence(tmp_path, row):
    content, told = REFUSED[row]
    with warnings.catch_warnings(), pytest.raises(InputError, match=told) as caught:
        warnings.simplefilter("error")
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


def test_a_template_of_days_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("kdtalker.renderers.liveportrait.template.MAX_DURATION_S", 3600)
    path = written(tmp_path / "a.pkl", template())
    assert len(read_template(path).motion) == 25
    monkeypatch.setattr("kdtalker.renderers.liveportrait.template.MAX_DURATION_S", 0.5)
    with pytest.raises(InputError, match="a.pkl' is not a motion template of LivePortrait: it lasts 0 hours"):
        read_template(path)


BOMBS = {
    "a memo index of 10^9": b"\x80\x02Nr\xff\xff\xff\x3f.",
    "one in decimal digits": b"\x80\x02Np999999999999\n.",
    "tuples that end the process where they are hashed": b"\x80\x02})" + b"\x85" * 10**6 + b"Ns.",
    "the same by the memo": b"\x80\x02})q\x00" + b"h\x00\x85q\x00" * 10**5 + b"Ns.",
    "300,000 frames that are one": b"\x80\x02}(X\x06\x00\x00\x00motion](}q\x00" + b"h\x00" * 300_000 + b"eu.",
    "a frame of 2^60 bytes": b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"}.",
    "2^40 bytes": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"a.",
    "more than 64 MB": None,
}  # fmt: skip


def test_a_file_that_asks_for_memory_or_time_is_refused_at_once(tmp_path):
    """In a process of its own: one of them would end it, the others fill its memory."""
    for number, content in enumerate(BOMBS.values()):
        with (tmp_path / f"{number}.pkl").open("wb") as file:
            if content is None:
                file.truncate(64 * 2**20 + 1)
            else:
                file.write(content)
    code = """
import resource, sys, time
from pathlib import Path
from kdtalker.core.errors import InputError
from kdtalker.renderers.liveportrait.template import read_template
for number in range(int(sys.argv[1])):
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        read_template(Path(f"{number}.pkl"))
    except InputError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(round(time.process_time() - began, 3), grown // 1000, error)
"""
    command = [sys.executable, "-c", code, str(len(BOMBS))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    for name, line in zip(BOMBS, done.stdout.splitlines(), strict=True):
        took_s, grown_mb, told = line.split(" ", 2)
        assert float(took_s) < 1 and int(grown_mb) < (80 if "64 MB" in name else 10), (name, line)
        assert ("more than 64 MB" if "64 MB" in name else "damaged or no pickle") in told


def test_a_name_that_is_asked_for_is_told_in_short(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02c" + b"os\x1b[31m" * 50 + b"\nsystem\n.")
    with pytest.raises(InputError, match="holds code") as caught:
        read_template(tmp_path / "a.pkl")
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 250 + len(str(tmp_path))
