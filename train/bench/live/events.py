"""Measure when lips part at the onset of "pa", live and in a film."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kdtalker import Options
from kdtalker.core.arrays import Array, Image
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.live.frames import Activity
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from kdtalker.tts.speak import synthesise_text
from train.bench.live.subject import Measured, Pipeline, load_portrait

ONSETS = 100
VOICES = ("en-us", "en-us+f3", "en-us+m7", "en-gb+m3")  # in turns
SILENCE_S = (0.7, 1.1)  # between two syllables
AUDIBLE = 0.02  # of full scale, from which on a syllable is heard
CROSSED_AT = 0.25  # of the way from shut to the widest of the syllable
BEFORE_FRAMES, AFTER_FRAMES = 8, 15  # of an onset, in which its opening is sought
LEAST_OPENING = 0.02  # of a syllable whose opening counts


def measure_events(pipeline: Pipeline, lookahead: int, count: int = ONSETS) -> Measured:
    """Say "pa" again and again in silence, at irregular times, live and as a film in whole windows; track the rendered
    frames of both, and find when the opening of the lips crosses a quarter of its range. The lag of live lips is their
    time after the onset less the film's median time. No wall clock is involved: the session is stepped."""
    portrait, (voice, onsets) = load_portrait(pipeline), make_syllables(count)
    film = _openings(pipeline, portrait, pipeline.animate(portrait, [voice], Options()))
    live = _openings(pipeline, portrait, step_session(pipeline, portrait, voice, lookahead))
    film_ms, live_ms = (_delays(opening, onsets) for opening in (film, live))
    found = ~(np.isnan(film_ms) | np.isnan(live_ms))
    lags = live_ms[found] - np.median(film_ms[found])
    figures = {f"lips, live after film, p{share}, ms": float(np.percentile(lags, share)) for share in (5, 50, 95)}
    for name, delays in (("live", live_ms), ("film", film_ms)):
        figures[f"lips after sound, {name}, p50, ms"] = float(np.median(delays[found]))
    figures["syllables found in both"] = float(found.sum())
    raw = {"live_ms": live_ms, "film_ms": film_ms, "onsets": onsets, "film": film, "live": live}
    return figures, {name: values.tolist() for name, values in raw.items()}


def make_syllables(count: int) -> tuple[Array, Array]:
    """Return sound (N,) at 16 kHz and the samples (count,) at which its syllables begin. Times are irregular, so that
    onsets fall anywhere within a frame and within a hop."""
    rng = np.random.default_rng(0)
    said = [_trim(synthesise_text("pa.", voice, SAMPLE_RATE_HZ)) for voice in VOICES]
    pieces, onsets, length = [], [], 0
    for number in range(count):
        silence = np.zeros(int(rng.uniform(*SILENCE_S) * SAMPLE_RATE_HZ), np.float32)
        onsets.append(length + len(silence))
        pieces += [silence, said[number % len(said)]]
        length = onsets[-1] + len(pieces[-1])
    return np.concatenate([*pieces, np.zeros(SAMPLE_RATE_HZ, np.float32)]), np.array(onsets)


def _trim(sound: Array) -> Array:
    loud = np.flatnonzero(np.abs(sound) > AUDIBLE)
    return sound[loud[0] : loud[-1] + 1]


def step_session(pipeline: Pipeline, portrait: Any, voice: Array, lookahead: int) -> Iterator[Image]:
    """Yield the pictures of a reply of a session that is stepped: no machine is too slow for it."""
    now = 0.0
    options = LiveOptions(lookahead=lookahead, buffer_s=3600)
    with LiveSession(pipeline, portrait, options, clock=lambda: now, threads=False) as session:
        session.push(voice)
        session.end_segment()
        wanted = -(-len(voice) // SAMPLES_PER_FRAME)
        while wanted:
            while session.work():
                pass
            frame = session.take()
            now += 1 / FRAME_RATE_HZ
            if frame.activity is Activity.SPEECH:
                wanted -= 1
                yield frame.picture


def _openings(pipeline: Pipeline, portrait: Any, frames: Iterable[Image]) -> Array:
    """Track frames; return the opening of the lips (T,)."""
    tracked = pipeline.engine.track(frames)
    return np.concatenate([pipeline.engine.measure_openings(portrait.source, motion).lips for motion in tracked])


def _delays(opening: Array, onsets: Array) -> Array:
    """Return the time in ms from each onset to the crossing of an opening (T,); NaN where there is none."""
    delays = []
    for onset in onsets:
        first = onset // SAMPLES_PER_FRAME - BEFORE_FRAMES
        crossed = find_crossing(opening[first : first + BEFORE_FRAMES + AFTER_FRAMES])
        delays.append(1000 * ((first + crossed) / FRAME_RATE_HZ - onset / SAMPLE_RATE_HZ))
    return np.array(delays)


def find_crossing(opening: Array) -> float:
    """Return the fractional frame at which an opening (T,) last crosses a quarter of its range before its peak; NaN
    where it hardly moves."""
    peak = int(opening.argmax())
    low = float(opening[: peak + 1].min())
    level = low + CROSSED_AT * (float(opening[peak]) - low)
    below = np.flatnonzero(opening[:peak] <= level)
    if not len(below) or float(opening[peak]) - low < LEAST_OPENING:
        return float("nan")
    frame = int(below[-1])
    return frame + float((level - opening[frame]) / (opening[frame + 1] - opening[frame]))
