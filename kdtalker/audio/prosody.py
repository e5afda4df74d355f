"""Causal prosody features, one row a frame at 25 fps: emphasis, a silence gate (energy-based VAD), and head nods."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from einops import rearrange, reduce
from numpy.typing import NDArray

from kdtalker.audio.nods import DELAY_FRAMES, NodState, advance_nods, band_levels_db
from kdtalker.core.arrays import Array
from kdtalker.core.protocols import Prosody
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME

FLOOR_DB = -60.0  # loudness of digital silence
VAD_THRESHOLD_DB = 27.0  # a frame this far below the running peak is silent
SPEECH_THRESHOLD_DB = 18.0  # a frame less far below the running peak counts as speech in the long-term loudness
PEAK_DECAY_DB_S = 1.5  # the running peak falls by this much a second
MIN_PEAK_DB = -22.0  # the running peak never falls below this
FAST_AVERAGE_S, SLOW_AVERAGE_S = 0.1, 2.0  # time constants of the short-term and the long-term loudness
WARM_UP_S = 0.4  # there is no emphasis before so much speech: the long-term loudness is not known yet
EMPHASIS_FROM_DB, EMPHASIS_TO_DB = 1.5, 6.0  # short-term over long-term loudness at which emphasis is 0, and 1
EMPHASIS_ATTACK_S, EMPHASIS_RELEASE_S = 0.12, 0.5  # time constants with which emphasis rises and falls
GATE_FROM_S, GATE_TO_S = 0.12, 0.28  # the silence gate rises from 0 to 1 between these durations of silence
GATE_RELEASE_S = 0.08  # the silence gate falls from 1 to 0 in this time once there is sound
LOOKAHEAD_FRAMES = 8  # the silence gate falls this many frames before the sound, where nobody waits for it


NO_PROSODY = Prosody(*np.zeros((3, 0), np.float32))


@dataclass(frozen=True)
class ProsodyState:
    """Hold the state of a stream: samples (N,) of an incomplete frame, loudness averages and running peak in dB,
    durations of silence and speech, state of the nods, and the last row."""

    pending: Array
    short_term_db: float = FLOOR_DB
    long_term_db: float = FLOOR_DB
    peak_db: float = MIN_PEAK_DB
    silence_s: float = 1.0
    speech_s: float = 0.0
    emphasis: float = 0.0
    silence_gate: float = 1.0
    nods: NodState = field(default_factory=NodState)
    nod: float = 0.0


def start_prosody() -> ProsodyState:
    """Return the state before the first sample, in silence."""
    return ProsodyState(np.zeros(0, np.float32))


def extract_prosody(state: ProsodyState, samples: Array, *, last: bool = False) -> tuple[Prosody, ProsodyState]:
    """Take samples (N,) at 16 kHz, N from 0; return the prosody of the frames that they complete. last: the sound ends,
    an incomplete frame is padded with silence."""
    pending = np.concatenate([state.pending, samples])
    if last:
        pending = np.pad(pending, (0, -len(pending) % SAMPLES_PER_FRAME))
    whole = len(pending) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
    state, rows = replace(state, pending=pending[whole:].copy()), []
    frames = rearrange(pending[:whole], "(t s) -> t s", s=SAMPLES_PER_FRAME)
    for level_db, bands_db in zip(_levels_db(frames), band_levels_db(frames), strict=True):
        state = _advance(state, float(level_db), bands_db)
        rows.append((state.emphasis, state.silence_gate, state.nod))
    return Prosody(*np.array(rows, np.float32).reshape(-1, 3).T), state


def _levels_db(frames: Array) -> NDArray[np.float64]:
    """Compute the loudness (T,) in dB of frames (T, 640)."""
    power = reduce(frames.astype(np.float64) ** 2, "t s -> t", "mean")
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10))))


def _advance(state: ProsodyState, level_db: float, bands_db: Array) -> ProsodyState:
    """Advance envelope follower, VAD and nods by one frame."""
    frame_s = 1 / FRAME_RATE_HZ
    peak_db = max(level_db, state.peak_db - PEAK_DECAY_DB_S * frame_s, MIN_PEAK_DB)
    silence_s = state.silence_s + frame_s if level_db < peak_db - VAD_THRESHOLD_DB else 0.0
    short_term_db = _smooth(state.short_term_db, level_db, FAST_AVERAGE_S)
    speech_s, long_term_db = state.speech_s, state.long_term_db
    if is_speech := level_db >= peak_db - SPEECH_THRESHOLD_DB:
        long_term_db = _smooth(long_term_db, level_db, min(SLOW_AVERAGE_S, speech_s))
        speech_s += frame_s
    excess = (short_term_db - long_term_db - EMPHASIS_FROM_DB) / (EMPHASIS_TO_DB - EMPHASIS_FROM_DB)
    target = float(np.clip(excess, 0, 1)) if speech_s >= WARM_UP_S else 0.0
    time_s = EMPHASIS_ATTACK_S if target > state.emphasis else EMPHASIS_RELEASE_S
    nod, nods = advance_nods(state.nods, bands_db, is_speech=is_speech)
    gate = float(np.clip((silence_s - GATE_FROM_S) / (GATE_TO_S - GATE_FROM_S), 0, 1))
    return replace(
        state,
        short_term_db=short_term_db,
        long_term_db=long_term_db,
        peak_db=peak_db,
        silence_s=silence_s,
        speech_s=speech_s,
        emphasis=_smooth(state.emphasis, target, time_s),
        silence_gate=max(gate, state.silence_gate - frame_s / GATE_RELEASE_S),
        nods=nods,
        nod=nod,
    )


def _smooth(value: float, target: float, time_s: float) -> float:
    """Advance an exponential moving average (EMA) by one frame; a time constant of 0 follows at once."""
    return value + (target - value) * (1 - math.exp(-1 / (FRAME_RATE_HZ * time_s)) if time_s > 0 else 1)


def look_ahead(prosody: Prosody, frames: int, lookahead: int = LOOKAHEAD_FRAMES) -> Prosody:
    """Apply a forward sliding-window minimum over `lookahead` frames to the silence gate of the first `frames`, so that
    the mouth opens before the sound, and advance the nods by their delay, as far as the look-ahead allows; the last one
    dies away where the sound ends."""
    gate, nod, delay = prosody.silence_gate, prosody.nod, min(DELAY_FRAMES, lookahead)
    if len(gate):
        padded = np.pad(gate, (0, lookahead), mode="edge")
        gate = np.lib.stride_tricks.sliding_window_view(padded, lookahead + 1).min(1)
        nod = np.pad(nod, (0, delay), mode="linear_ramp")[delay:]
    return Prosody(prosody.emphasis[:frames], gate[:frames], nod[:frames])
