"""Read sound: any media file, decoded to 16 kHz mono in chunks."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.files import check_file
from kdtalker.core.rates import SAMPLE_RATE_HZ
from kdtalker.media.ffmpeg import FFmpegProcess, build_sound_track, check_ffmpeg, sample_index
from kdtalker.media.probe import SoundTrack, is_truncated, probe_sound

_log = logging.getLogger(__name__)


def read_sound(
    path: Path,
    start_s: float = 0.0,
    duration_s: float | None = None,
    *,
    report: bool = False,
    rate_hz: int = SAMPLE_RATE_HZ,
) -> Iterator[Array]:
    """Decode the first sound track of any media file, or the part of it that begins at start_s and lasts at most
    duration_s: chunks (≤ rate_hz,) of mono, the mean of all channels, within -1..1.

    NaN becomes silence; a track that begins after the video is padded with silence. A track shorter than its header
    declares is read to its end; `report` logs that. Raises InputError, at the latest with the first chunk, where there
    is no file, no sound track or no sound in it, and after the last chunk where decoding fails midway; OutputError
    where ffmpeg cannot be run.
    """
    check_file(path, "a sound or a film with sound")
    header = probe_sound(path)
    track = _mean_of_channels(build_sound_track(path, rate_hz, start_s), header.channels)
    if duration_s is not None:
        track = track.filter("atrim", end_sample=max(1, sample_index(duration_s, rate_hz)))
    output = track.output("pipe:", format="f32le", ac=1, ar=rate_hz)
    count = 0
    with FFmpegProcess(output, feed=False) as decoder:
        while content := decoder.pipe.read(4 * rate_hz):
            samples = np.frombuffer(content, "<f4", count=len(content) // 4)
            count += len(samples)
            yield np.clip(np.nan_to_num(samples, nan=0.0), -1.0, 1.0)
        has_failed = decoder.wait_for(path) != 0
        if has_failed and count:
            raise InputError(f"'{path}' breaks off after {count / rate_hz:.1f} s of sound ({decoder.reason()}).")
        if not count:
            check_ffmpeg()
            raise InputError(_no_sound_error(path, header, start_s, decoder.reason() if has_failed else ""))
    if report:
        _warn_if_truncated(path, header, start_s, duration_s, count / rate_hz)


def _mean_of_channels(track: Any, channels: int) -> Any:
    """Mix down to mono as the mean. ffmpeg's ac=1 would give 0.707 (left + right), 3 dB louder than the mean."""
    if channels == 1:
        return track
    total = "+".join(f"c{channel}" for channel in range(channels))
    return track.filter("pan", f"mono|c0<{total}")  # "<" normalises the gains to a sum of 1


def _no_sound_error(path: Path, header: SoundTrack, start_s: float, reason: str) -> str:
    """Explain why no sound was decoded, for an error message."""
    if start_s:
        return f"'{path}' has no sound from {start_s:g} s on, wanted a start before its end."
    if reason or header.declared_s:
        reason = f" ({reason})" if reason else ""
        return f"'{path}' is damaged: nothing of its sound can be decoded{reason}; wanted a whole file."
    return f"'{path}' has a sound track of zero length, wanted at least one sample."


def _warn_if_truncated(
    path: Path, header: SoundTrack, start_s: float, duration_s: float | None, found_s: float
) -> None:
    if header.declared_s is None:
        return
    wanted_s = min(header.declared_s - start_s, math.inf if duration_s is None else duration_s)
    if is_truncated(found_s, wanted_s):
        _log.warning(
            "The sound '%s' breaks off at %.1f s; its header declares %.1f s.",
            path, start_s + found_s, header.declared_s,
        )  # fmt: skip
