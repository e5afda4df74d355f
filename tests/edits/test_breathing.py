"""Breathing: the shoulders rise and fall, the head and the border of the square do not; --still stops it."""

from dataclasses import replace

import numpy as np
import toy
from test_acting import played

from kdtalker.core.options import Options
from kdtalker.edits.breathing import BREATH_RANGE_S, breathing_curve


def test_breaths_follow_from_seed_and_frame_alone():
    whole = breathing_curve(3, 0, 1500)
    assert whole[0] == 0 and whole.min() == 0 and whole.max() > 0.99
    np.testing.assert_array_equal(np.concatenate([breathing_curve(3, at, 100) for at in range(0, 1500, 100)]), whole)
    assert np.abs(breathing_curve(4, 0, 1500) - whole).max() > 0.5


def test_a_minute_has_as_many_breaths_as_a_speaker_takes_and_none_is_a_jolt():
    curve = breathing_curve(0, 0, 1500)
    heights = np.flatnonzero((curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:]))
    assert 60 / BREATH_RANGE_S[1] <= len(heights) <= 60 / BREATH_RANGE_S[0]
    assert np.abs(np.diff(curve)).max() < 0.1
    rising = np.diff(curve) > 0
    assert rising.sum() < (np.diff(curve) < 0).sum()


def test_a_film_breathes_unless_the_head_is_still():
    pipeline = toy.pipeline()
    portrait = pipeline.portrait(toy.picture())
    assert played(pipeline, portrait, Options()).breath.max() > 0.1
    assert not played(pipeline, portrait, replace(Options(), still=True)).breath.any()
