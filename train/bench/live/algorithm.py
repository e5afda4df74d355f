"""Measure the algorithmic delay of live motion, without a clock."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdtalker import Options
from kdtalker.core.arrays import Array
from kdtalker.core.rates import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from train.bench.live.subject import Measured, Pipeline, load_portrait, load_voice

CUT_FRAMES = range(30, 37)


def measure_algorithm(pipeline: Pipeline, lookahead: int) -> Measured:
    """Replace the sound from sample k on by zeros, for many k, and find the first frame that differs: its distance to k
    is what the algorithm waits for, in ms beyond the frame's own 40."""
    portrait, voice = load_portrait(pipeline), load_voice(3)
    whole = _generate(pipeline, portrait, voice, lookahead)
    waits = []
    for k in (SAMPLES_PER_FRAME * frame - 1 for frame in CUT_FRAMES):
        cut = np.where(np.arange(len(voice)) < k, voice, 0).astype(np.float32)
        differs = np.abs(_generate(pipeline, portrait, cut, lookahead) - whole).max(1) > 0
        waits.append(1000 * (k + 1 - SAMPLES_PER_FRAME * (int(differs.argmax()) + 1)) / SAMPLE_RATE_HZ)
    return {"algorithmic delay, ms": max(waits)}, {"waits_ms": waits}


def _generate(pipeline: Pipeline, portrait: Any, voice: Array, lookahead: int) -> Array:
    stream = pipeline.start_motion(portrait, Options(lookahead=lookahead))
    return np.concatenate([stream.push(voice).vector(), stream.flush().vector()])
