"""Augmented copies: the same face with other sound, encoded with less of the future."""

from dataclasses import replace

import numpy as np
import pytest
from toy_shards import shard

from kdtalker.audio.encoders import load_encoder
from kdtalker.core.rates import frame_count
from train.data.augment import SPEED, load_augmented, perturb_sound, resample_frames


def test_frames_are_resampled_to_another_speed():
    ramp = np.stack([np.arange(50.0), 3 * np.arange(50.0)], axis=1)
    faster = resample_frames(ramp, 1.25)
    assert len(faster) == 40
    np.testing.assert_allclose(faster[:, 0], 1.25 * np.arange(40), atol=1e-4)
    np.testing.assert_allclose(resample_frames(ramp, 1.0), ramp)
    assert np.isfinite(resample_frames(ramp, 0.9)).all() and len(resample_frames(ramp, 0.9)) == 55


def test_sound_is_changed_but_not_its_length_or_peak():
    sound = np.random.default_rng(9).uniform(-0.5, 0.5, 16000).astype(np.float32)
    for seed in range(8):
        other = perturb_sound(sound, np.random.default_rng(seed))
        assert other.shape == sound.shape and other.dtype == np.float32
        assert np.abs(other).max() == pytest.approx(np.abs(sound).max(), abs=1e-3)
        assert np.abs(other - sound).max() > 0.01
    assert not perturb_sound(np.zeros(16000, np.float32), np.random.default_rng(0)).any()


def test_a_copy_is_made_once_and_always_the_same(tmp_path):
    encoder, one = load_encoder("whisper-tiny.en"), shard("a", frames=30)
    features, speed = load_augmented(one, encoder, tmp_path / "here", 0)
    again, same_speed = load_augmented(one, encoder, tmp_path / "there", 0)
    other, other_speed = load_augmented(one, encoder, tmp_path / "here", 1)
    assert SPEED[0] <= speed <= SPEED[1] and speed == same_speed != other_speed
    assert len(features) == frame_count(int(30 * 640 / speed)) and features.dtype == np.float16
    np.testing.assert_array_equal(features, again)
    assert len(other) != len(features) or np.abs(other.astype(np.float32) - features).max() > 0.1
    assert len(list((tmp_path / "here").iterdir())) == 2


def test_a_copy_of_other_sound_is_made_anew(tmp_path):
    encoder, one = load_encoder("whisper-tiny.en"), shard("a[1]", frames=30)
    before = np.array(load_augmented(one, encoder, tmp_path, 0)[0])
    changed = replace(one, sound=one.sound[::-1].copy())
    after, _ = load_augmented(changed, encoder, tmp_path, 0)
    assert len(after) == len(before) and np.abs(after.astype(np.float32) - before).max() > 0.1
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(load_augmented(one, encoder, tmp_path, 0)[0], before)
