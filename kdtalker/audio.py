"""Sound in: any file → 16 kHz mono in chunks, and the log-mel spectrogram that can be fed in pieces.

The mel is Whisper's ("Robust speech recognition via large-scale weak supervision", section 2.2): windows of
25 ms every 10 ms, 80 Slaney bands, logarithm limited to 8 decades below the loudest. The loudest of live sound
is not known yet, a running level stands in for it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtalker.errors import SHORTAGES, InputError
from kdtalker.ffmpeg_process import FFmpegProcess, check_program, sample_index, sound_track
from kdtalker.media import SoundTrack, is_short, probe_sound

_log = logging.getLogger(__name__)

Array = NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000
FRAME_RATE_HZ = 25
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ

MEL_BANDS = 80
MEL_WINDOW = 400  # samples
MEL_HOP = 160  # samples
MEL_COLUMNS_PER_FRAME = SAMPLES_PER_FRAME // MEL_HOP
MEL_BLOCK_FRAMES = 16  # the mel advances by blocks of this many 25 fps frames, however the sound is cut
MEL_BLOCK_COLUMNS = MEL_BLOCK_FRAMES * MEL_COLUMNS_PER_FRAME
MEL_SILENCE = -10.0  # log10 of the smallest power

_LEVEL_FLOOR = -1.5
_LEVEL_FALL = 0.05  # a block
_BLOCK_SAMPLES = MEL_BLOCK_COLUMNS * MEL_HOP
_BLOCK_REACH = _BLOCK_SAMPLES - MEL_HOP + MEL_WINDOW  # samples that the windows of one block touch


def frame_count(samples: int) -> int:
    """How many 25 fps frames a sound of that many samples lasts: the last one may be begun only."""
    return -(-samples // SAMPLES_PER_FRAME)


def read_sound(
    path: Path, start_s: float = 0.0, duration_s: float | None = None, *, report: bool = False
) -> Iterator[Array]:
    """Decode the first sound track of any media file, or the part of it that begins at start_s and lasts at most
    duration_s: chunks (≤ 16000,) of mono at 16 kHz, the mean of all channels, within -1..1.

    What is not a number becomes silence; a track that begins after the film is preceded by silence. A track that ends
    before the duration that its header declares is read as far as it goes, `report` logs that. Raises InputError, at
    the latest with the first chunk, where there is no file, no sound track or no sound in it, and after the last chunk
    where ffmpeg fails on the way, for then the reason is not known; OutputError where ffmpeg cannot be run.
    """
    check_file(path, "a sound or a film with sound")
    header = probe_sound(path)
    track = _mean_of_channels(sound_track(path, SAMPLE_RATE_HZ, start_s), header.channels)
    if duration_s is not None:
        track = track.filter("atrim", end_sample=max(1, sample_index(duration_s, SAMPLE_RATE_HZ)))
    output = track.output("pipe:", format="f32le", ac=1, ar=SAMPLE_RATE_HZ)
    given = 0
    with FFmpegProcess(output, feed=False) as decoder:
        while content := decoder.pipe.read(4 * SAMPLE_RATE_HZ):
            samples = np.frombuffer(content, "<f4", count=len(content) // 4)
            given += len(samples)
            yield np.clip(np.nan_to_num(samples, nan=0.0), -1.0, 1.0)
        has_failed = decoder.wait_for(path) != 0
        if has_failed and given:
            raise InputError(f"'{path}' breaks off after {given / SAMPLE_RATE_HZ:.1f} s of sound ({decoder.reason()}).")
        if not given:
            check_program()
            raise InputError(_why_no_sound(path, header, start_s, decoder.reason() if has_failed else ""))
    if report:
        _report_if_short(path, header, start_s, duration_s, given / SAMPLE_RATE_HZ)


def _mean_of_channels(track: Any, channels: int) -> Any:
    """Mix to mono. Not by ac=1 of ffmpeg: to float that is 0.707 (left + right), 3 dB louder than the mean."""
    if channels == 1:
        return track
    total = "+".join(f"c{channel}" for channel in range(channels))
    return track.filter("pan", f"mono|c0<{total}")  # "<" scales the gains to a sum of 1


def check_file(path: Path, wanted: str) -> None:
    """Raise InputError where the path is not a file with something in it that may be read, saying what was wanted."""
    try:
        empty = path.stat().st_size == 0
        is_file = path.is_file()
        if is_file:
            path.open("rb").close()
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            raise
        reason = error.strerror if isinstance(error, OSError) else "no valid name"
        raise InputError(f"'{path}' cannot be opened ({reason}), wanted {wanted}.") from None
    if not is_file:
        raise InputError(f"'{path}' is not a file, wanted {wanted}.")
    if empty:
        raise InputError(f"'{path}' is empty (0 bytes), wanted {wanted}.")


def _why_no_sound(path: Path, header: SoundTrack, start_s: float, reason: str) -> str:
    if start_s:
        return f"'{path}' has no sound from {start_s:g} s on, wanted a start before its end."
    if reason or header.declared_s:
        reason = f" ({reason})" if reason else ""
        return f"'{path}' is damaged: nothing of its sound can be decoded{reason}; wanted a whole file."
    return f"'{path}' has a sound track of zero length, wanted at least one sample."


def _report_if_short(path: Path, header: SoundTrack, start_s: float, duration_s: float | None, given_s: float) -> None:
    if header.declared_s is None:
        return
    wanted_s = min(header.declared_s - start_s, math.inf if duration_s is None else duration_s)
    if is_short(given_s, wanted_s):
        _log.warning(
            "The sound '%s' breaks off at %.1f s; its header declares %.1f s.",
            path, start_s + given_s, header.declared_s,
        )  # fmt: skip


@dataclass(frozen=True)
class MelState:
    """Where the mel stands: the samples (N,) that blocks still need, the running level (log10 of power)."""

    pending: Array
    level: float


def start_mel(lead_frames: int) -> MelState:
    """The state before the first sample; the first block begins with that many frames of silence."""
    lead_samples = lead_frames * SAMPLES_PER_FRAME + MEL_WINDOW // 2
    return MelState(np.zeros(lead_samples, np.float32), _LEVEL_FLOOR)


def advance_mel(state: MelState, samples: Array, filters: Array) -> tuple[list[tuple[Array, float]], MelState]:
    """Take samples (N,) in; give each finished block, log10 of mel power (80, 64), with the level after it.

    Column c of the sound is centred at sample 160·c. Each block is computed alone and from the same number of
    samples, so its bits do not depend on how the sound was cut. filters: (80, 201).
    """
    waiting = np.concatenate([state.pending, np.asarray(samples, np.float32)])
    level, start, blocks = state.level, 0, []
    while start + _BLOCK_REACH <= len(waiting):
        block = log_mel(waiting[start : start + _BLOCK_REACH], filters)
        level = max(float(block.max()), level - _LEVEL_FALL, _LEVEL_FLOOR)
        blocks.append((block, level))
        start += _BLOCK_SAMPLES
    return blocks, MelState(waiting[start:].copy(), level)


def log_mel(samples: Array, filters: Array) -> Array:
    """log10 of the mel power of windows that lie wholly inside the samples: (80, 1 + (N - 400) // 160)."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, MEL_WINDOW)[::MEL_HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL_WINDOW) / MEL_WINDOW)
    spectrum = np.fft.rfft(windows * hann, axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    mel = filters.astype(np.float64) @ power.T
    logarithm: NDArray[np.float64] = np.log10(np.maximum(mel, 10.0**MEL_SILENCE))
    return logarithm.astype(np.float32)


def scale_mel(log_power: Array, level: float) -> Array:
    """What Whisper's encoder reads: at most 8 decades below the level, then roughly -1..1."""
    return ((np.maximum(log_power, level - 8.0) + 4.0) / 4.0).astype(np.float32)
