"""What of a voice a face shows beside its words: emphasis, and that it has fallen silent. One number for each frame at
25 fps, from the loudness up to that frame and nothing later."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.protocols import Prosody
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME

FLOOR_DB = -60.0
SILENT_DB, WEAK_DB = 27.0, 18.0  # so far below its running peak a voice is silent, or weak
PEAK_FALL_DB_S = 1.5  # how fast that peak is forgotten
LEAST_PEAK_DB = -22.0  # that a voice is taken to have
FAST_S, SLOW_S = 0.1, 2.0  # over which loudness, and what is usual of it, are averaged
KNOWN_S = 0.4  # of speech, until it is known what is usual
EMPHASIS_FROM_DB, EMPHASIS_TO_DB = 1.5, 6.0  # above the usual
RISE_S, FALL_S = 0.12, 0.5  # in which emphasis shows and is gone
LOOKAHEAD_FRAMES = 8  # before a voice begins the mouth is free
HUSH_FROM_S, HUSH_TO_S, WAKE_S = 0.12, 0.28, 0.08  # of silence, until the mouth is shut; of sound, until it is free


NO_PROSODY = Prosody(np.zeros(0, np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True)
class Heard:
    """What listening remembers: samples of a frame that is not whole, averages in dB, and where both numbers stand."""

    pending: Array
    fast_db: float = FLOOR_DB
    usual_db: float = FLOOR_DB
    peak_db: float = LEAST_PEAK_DB
    silent_s: float = 1.0
    spoken_s: float = 0.0
    emphasis: float = 0.0
    hush: float = 1.0


def start_prosody() -> Heard:
    """Before the first sample there was silence."""
    return Heard(np.zeros(0, np.float32))


def extract_prosody(heard: Heard, samples: Array, *, last: bool = False) -> tuple[Prosody, Heard]:
    """Samples (N,) at 16 kHz, N from 0, to the frames that they complete; `last` completes the last one by silence."""
    waiting = np.concatenate([heard.pending, samples])
    if last:
        waiting = np.pad(waiting, (0, -len(waiting) % SAMPLES_PER_FRAME))
    frames = waiting[: len(waiting) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    now, rows = replace(heard, pending=waiting[frames.size :].copy()), []
    for level_db in _levels_db(frames):
        now = _next(now, float(level_db))
        rows.append((now.emphasis, now.hush))
    emphasis, gate = np.array(rows, np.float32).reshape(-1, 2).T
    return Prosody(emphasis, gate), now


def _levels_db(frames: Array) -> NDArray[np.float64]:
    power = (frames.astype(np.float64) ** 2).mean(1)
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10))))


def _next(heard: Heard, level_db: float) -> Heard:
    frame_s = 1 / FRAME_RATE_HZ
    peak_db = max(level_db, heard.peak_db - PEAK_FALL_DB_S * frame_s, LEAST_PEAK_DB)
    silent_s = heard.silent_s + frame_s if level_db < peak_db - SILENT_DB else 0.0
    fast_db = _towards(heard.fast_db, level_db, FAST_S)
    spoken_s, usual_db = heard.spoken_s, heard.usual_db
    if level_db >= peak_db - WEAK_DB:
        usual_db = _towards(usual_db, level_db, min(SLOW_S, spoken_s))
        spoken_s += frame_s
    above = np.clip((fast_db - usual_db - EMPHASIS_FROM_DB) / (EMPHASIS_TO_DB - EMPHASIS_FROM_DB), 0, 1)
    above = above if spoken_s >= KNOWN_S else 0.0
    shut = float(np.clip((silent_s - HUSH_FROM_S) / (HUSH_TO_S - HUSH_FROM_S), 0, 1))
    return replace(
        heard,
        fast_db=fast_db,
        usual_db=usual_db,
        peak_db=peak_db,
        silent_s=silent_s,
        spoken_s=spoken_s,
        emphasis=_towards(heard.emphasis, float(above), RISE_S if above > heard.emphasis else FALL_S),
        hush=max(shut, heard.hush - frame_s / WAKE_S),
    )


def _towards(value: float, goal: float, time_s: float) -> float:
    """One frame of exponential smoothing; at once where no time is given."""
    return value + (goal - value) * (1 - math.exp(-1 / (FRAME_RATE_HZ * time_s)) if time_s > 0 else 1)


def look_ahead(prosody: Prosody, frames: int) -> Prosody:
    """Return the first `frames` with the minimum of the silence gate over the LOOKAHEAD_FRAMES after each, so that the
    mouth opens before the sound."""
    gate = prosody.silence_gate
    if len(gate):
        padded = np.pad(gate, (0, LOOKAHEAD_FRAMES), mode="edge")
        gate = np.lib.stride_tricks.sliding_window_view(padded, LOOKAHEAD_FRAMES + 1).min(1)
    return Prosody(prosody.emphasis[:frames], gate[:frames])
