"""Detect syllable onsets causally and time head nods by them, one number a frame at 25 fps.

An onset is a local peak of the spectral flux (Bello et al. 2005, IEEE TSAP 13(5), section III) well above its running
mean, in a frame that is loud enough to be speech. The head dips so that it turns around, its speed least, right after
the onset: nods go with stressed syllables (Munhall et al. 2004, Psychological Science 15(2)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

BANDS, HIGHEST_HZ = 20, 7000.0  # mel bands of the spectral flux, from 0 Hz to this
BAND_FLOOR_DB = -60.0  # lower levels of a band count as this: steps out of digital silence are no stress
PEAK_FRAMES = 3  # an onset has the largest flux of so many frames before and after it
MEAN_S, LEAST_MEAN_DB = 3.0, 2.0  # time constant of the running mean of the flux; steady noise stays below this mean
FLUX_FROM, FLUX_TO = 1.5, 4.0  # flux over its running mean at which a nod is smallest, and largest
SMALLEST = 0.5  # size of the smallest nod, the largest being 1
GAP_FRAMES = 8  # nods are at least so far apart
DOWN_FRAMES, UP_FRAMES = 3, 6  # durations of a nod's way down and back
AFTER_ONSET_FRAMES = 1  # the head turns around so long after the onset
DELAY_FRAMES = PEAK_FRAMES - AFTER_ONSET_FRAMES + DOWN_FRAMES  # a nod is known so long after it begins
_PROGRESS = np.append(np.arange(DOWN_FRAMES) / DOWN_FRAMES, 1 - np.arange(UP_FRAMES + 1) / UP_FRAMES)
NOD: Array = np.asarray(smoothstep(_PROGRESS), np.float32)  # a whole nod, frame by frame


def _mel_edges() -> NDArray[np.intp]:
    """Compute the first FFT bin of each band and the end of the last."""
    mel = np.linspace(0, math.log1p(HIGHEST_HZ / 700), BANDS + 1)
    return np.rint(700 * np.expm1(mel) * SAMPLES_PER_FRAME / SAMPLE_RATE_HZ).astype(np.intp)


@dataclass(frozen=True)
class NodState:
    """Hold the state of a stream: the last frame's band levels in dB, the flux of the last frames and whether each was
    speech, the running mean of the flux and the frames in it, frames since the last onset, and the nods of the frames
    from DELAY_FRAMES ago on, as far as they are known."""

    levels_db: Array = field(default_factory=lambda: np.full(BANDS, BAND_FLOOR_DB, np.float32))
    flux: tuple[float, ...] = (0.0,) * (2 * PEAK_FRAMES + 1)
    is_speech: tuple[bool, ...] = (False,) * (PEAK_FRAMES + 1)
    mean_flux: float = 0.0
    frames: int = 0
    since_onset: int = GAP_FRAMES
    known: Array = field(default_factory=lambda: np.zeros(len(NOD), np.float32))


def band_levels_db(frames: Array) -> Array:
    """Compute the levels (T, BANDS) in dB of frames (T, 640)."""
    spectrum = np.fft.rfft(frames * np.hanning(SAMPLES_PER_FRAME), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) * (4 / SAMPLES_PER_FRAME) ** 2
    edges = _mel_edges()
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    return np.asarray(10 * np.log10(np.maximum(bands, 10 ** (BAND_FLOOR_DB / 10))), np.float32)


def advance_nods(state: NodState, levels_db: Array, *, is_speech: bool) -> tuple[float, NodState]:
    """Take the band levels (BANDS,) of a frame; return the nod 0..1 of the frame DELAY_FRAMES before."""
    new = float(np.maximum(levels_db - state.levels_db, 0).mean())
    frames = state.frames + 1
    share = max(1 / frames, 1 - math.exp(-1 / (FRAME_RATE_HZ * MEAN_S)))
    state = replace(
        state,
        levels_db=levels_db,
        flux=(*state.flux[1:], new),
        is_speech=(*state.is_speech[1:], is_speech),
        mean_flux=state.mean_flux + share * (new - state.mean_flux),
        frames=frames,
        since_onset=state.since_onset + 1,
        known=np.append(state.known[1:], np.float32(0)),
    )
    middle = state.flux[PEAK_FRAMES]
    ratio = middle / max(state.mean_flux, LEAST_MEAN_DB)
    is_peak = middle == max(state.flux) and ratio > FLUX_FROM and any(state.is_speech)
    if is_peak and state.since_onset >= GAP_FRAMES:
        size = SMALLEST + (1 - SMALLEST) * min(1.0, (ratio - FLUX_FROM) / (FLUX_TO - FLUX_FROM))
        state = replace(state, since_onset=0, known=np.asarray(state.known + size * NOD, np.float32))
    return float(state.known[0]), state
