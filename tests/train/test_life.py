"""Figures of life on motions with a known answer."""

import numpy as np

from kdtalker.core.motion import Motion
from kdtalker.diffusion.config import DenoiserConfig
from train.evaluate.life import HeadStability, speech_silence_speed_ratio, window_border_mask
from train.harness.curves import rms_loudness

CONFIG = DenoiserConfig(window=64, context=10, overlap=14)


def take(pose):
    vector = np.zeros((len(pose), 70), np.float32)
    vector[:, 0] = 1
    vector[:, 1:4] = pose
    return Motion.from_vector(vector, "mesh")


def test_a_head_that_moves_three_times_as_fast_in_speech_says_so():
    samples = np.zeros(200 * 640, np.float32)
    samples[: 100 * 640] = 0.3
    steps = np.where(np.arange(200) < 100, 0.6, 0.2)[:, None] * [1, 0, 0] * np.tile([[1], [1], [-1], [-1]], (50, 1))
    assert 2.5 < speech_silence_speed_ratio(np.cumsum(steps, axis=0), rms_loudness(samples)) < 3.5


def test_a_sound_without_pauses_tells_nothing():
    assert speech_silence_speed_ratio(np.zeros((100, 3)), rms_loudness(np.full(100 * 640, 0.3, np.float32))) is None


def test_a_jolt_where_windows_meet_is_seen_there():
    pose = np.random.default_rng(0).normal(0, 0.1, (200, 3))
    quiet = HeadStability.of([take(pose)], CONFIG)
    for border in np.flatnonzero(np.diff(window_border_mask(CONFIG, 200).astype(int)) == 1) + 3:
        pose[border:] += 5
    jolted = HeadStability.of([take(pose)], CONFIG)
    assert quiet.borders_deg < 1.3 * quiet.inside_deg
    assert jolted.borders_deg > 3 * jolted.inside_deg


def test_a_head_that_turns_away_for_good_drifts():
    pose = np.random.default_rng(0).normal(0, 1, (200, 3))
    assert max(HeadStability.of([take(pose)], CONFIG).drifts) < 0.5
    assert min(HeadStability.of([take(pose + np.arange(200)[:, None])], CONFIG).drifts[::3]) > 1
