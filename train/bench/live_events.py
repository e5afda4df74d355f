"""Measure when lips part at the onset of "pa", live and in a film."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kdtalker import Options, TalkingPortraitPipeline, read_image
from kdtalker.core.arrays import Array, Image
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.live.frames import Activity
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from kdtalker.tts.speak import synthesise_text

ONSETS, EVERY_S = 20, 1.2
CROSSED_AT = 0.25  # of the way from shut to the widest of the syllable
SEARCH_FRAMES = 20  # after an onset, and 5 before it


def measure_events(
    pipeline: TalkingPortraitPipeline[Any], lookahead: int, picture: Path
) -> tuple[dict[str, float], dict[str, Any]]:
    """Say "pa" again and again in silence, live and as a film; track both and compare when the lip aperture crosses a
    quarter of its range. No wall clock is involved: the session is stepped."""
    portrait = pipeline.portrait(read_image(picture), max_side=512)
    voice = _syllables()
    film = _aperture(pipeline, portrait, list(pipeline.animate(portrait, [voice], Options())))
    live = _aperture(pipeline, portrait, _live_frames(pipeline, portrait, voice, lookahead))
    lags = []
    for number in range(ONSETS):
        first = int(number * EVERY_S * FRAME_RATE_HZ + FRAME_RATE_HZ * EVERY_S / 2) - 5
        crossings = [_crossing(series[first : first + SEARCH_FRAMES]) for series in (film, live)]
        if None not in crossings:
            lags.append(1000 / FRAME_RATE_HZ * (crossings[1] - crossings[0]))  # type: ignore[operator]
    figures = {f"lips, live after film, p{share}, ms": float(np.percentile(lags, share)) for share in (50, 95)}
    figures["syllables that were found in both"] = float(len(lags))
    return figures, {"clock": "events", "lags_ms": lags, "film": film.tolist(), "live": live.tolist()}


def _syllables() -> Array:
    said = synthesise_text("pa.", None, SAMPLE_RATE_HZ)
    loud = np.flatnonzero(np.abs(said) > 0.02)
    said = said[loud[0] : loud[-1]]
    voice = np.zeros(int(ONSETS * EVERY_S * SAMPLE_RATE_HZ), np.float32)
    for number in range(ONSETS):
        begin = int((number + 0.5) * EVERY_S * SAMPLE_RATE_HZ)
        end = min(begin + len(said), len(voice))
        voice[begin:end] = said[: end - begin]
    return voice


def _live_frames(pipeline: TalkingPortraitPipeline[Any], portrait: Any, voice: Array, lookahead: int) -> list[Image]:
    """Return the pictures of the speech of a session that is stepped: as fast as any machine."""
    frames: list[Image] = []
    now = [0.0]
    session = LiveSession(pipeline, portrait, LiveOptions(lookahead=lookahead), clock=lambda: now[0], threads=False)
    session.push(voice)
    session.end_segment()
    wanted = -(-len(voice) // SAMPLES_PER_FRAME)
    while len(frames) < wanted:
        while session.work():
            pass
        frame = session.take()
        now[0] += 1 / FRAME_RATE_HZ
        if frame.activity is Activity.SPEECH:
            frames.append(frame.picture)
    session.close()
    return frames


def _aperture(pipeline: TalkingPortraitPipeline[Any], portrait: Any, frames: list[Image]) -> Array:
    """Track frames; return the opening of the lips (T,)."""
    tracked = list(pipeline.engine.track(frames))
    return np.concatenate([pipeline.engine.measure_openings(portrait.source, motion).lips for motion in tracked])


def _crossing(opening: Array) -> float | None:
    """Return the fractional frame at which an opening crosses a quarter of its range upward."""
    peak = int(opening.argmax())
    low = float(opening[: peak + 1].min())
    level = low + CROSSED_AT * (float(opening[peak]) - low)
    above = np.flatnonzero(opening[: peak + 1] <= level)
    if not len(above) or peak == 0 or float(opening[peak]) - low < 1e-3:
        return None
    frame = int(above[-1])
    return frame + float((level - opening[frame]) / max(opening[frame + 1] - opening[frame], 1e-9))
