"""Read videos: RGB uint8 frames (H, W, 3), one at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError
from kdtalker.core.files import check_file
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.media.ffmpeg import FFmpegProcess, check_ffmpeg, media_input
from kdtalker.media.probe import is_truncated, open_media, read_declared_duration

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_log = logging.getLogger(__name__)

MAX_FRAME_PIXELS = 8192 * 5120  # pixels of a frame at most (8K), as a small file can claim any size


@dataclass(frozen=True)
class VideoInfo:
    """Hold a video's header: upright size in px, duration, frame rate, and whether it has a sound track.

    is_declared: the duration is declared in the header, not estimated from the file's size.
    """

    width: int
    height: int
    duration_s: float
    fps: float
    has_sound: bool
    is_declared: bool


def probe_video(path: Path) -> VideoInfo:
    """Read the header of a video and decode its first frame.

    Raises InputError where there is no file, it cannot be decoded, has no video track, or is a playlist.
    """
    import av

    check_file(path, "a film")
    with open_media(path, "film", "mp4, webm, mov") as film:
        covers = av.stream.Disposition.attached_pic
        tracks = [track for track in film.streams.video if not track.disposition & covers]
        if not tracks or film.format.name.endswith("_pipe"):
            raise InputError(f"'{path}' has no moving picture, wanted a film.")
        try:
            frame = next(film.decode(tracks[0]))
        except (av.FFmpegError, OSError, StopIteration):
            raise InputError(f"'{path}' is damaged: not one frame of it can be decoded, wanted a whole film.") from None
        if frame.width * frame.height > MAX_FRAME_PIXELS:
            raise InputError(
                f"The frames of '{path}' have {frame.width} x {frame.height} px, wanted at most 8K; make them smaller."
            )
        width, height = round(frame.width * (tracks[0].sample_aspect_ratio or 1)), frame.height
        if frame.rotation % 180:
            width, height = height, width
        declared = read_declared_duration(path, film, tracks[0])
        duration_s = _estimate_duration(film, tracks[0]) if declared is None else declared
        rate = float(tracks[0].average_rate or 0)
        return VideoInfo(width, height, duration_s, rate, bool(film.streams.audio), declared is not None)


def _estimate_duration(film: InputContainer, track: VideoStream) -> float:
    """Estimate the duration in s from the track, or else from the container."""
    if track.duration and track.time_base:
        return float(track.duration * track.time_base)
    return (film.duration or 0) / 1_000_000  # µs, ffmpeg's AV_TIME_BASE


def read_video(path: Path, fps: float = FRAME_RATE_HZ, *, report: bool = False) -> Iterator[Image]:
    """Decode the frames of a video at a constant rate, upright, with square pixels.

    A video shorter than its header declares is read to its end; `report` logs that. Raises InputError as probe_video
    does, and after the last frame where decoding fails midway; OutputError where ffmpeg cannot be run.
    """
    info = probe_video(path)
    picture = media_input(path, threads=1).video.filter("fps", fps, start_time=0)
    picture = picture.filter("scale", "trunc(iw*sar+0.5)", "ih", flags="bicubic+accurate_rnd+full_chroma_int")
    output = picture.output("pipe:", format="image2pipe", vcodec="ppm", pix_fmt="rgb24")
    count = 0
    with FFmpegProcess(output, feed=False) as decoder:
        while (frame := _read_ppm(decoder.pipe)) is not None:
            count += 1
            yield frame
        has_failed = decoder.wait_for(path) != 0
        if not count:
            check_ffmpeg()
        if has_failed:
            raise InputError(f"'{path}' breaks off after {count} frames ({decoder.reason()}), wanted a whole film.")
    if report and info.is_declared and is_truncated(count / fps, info.duration_s):
        declared = round(info.duration_s * fps)
        _log.warning("The film '%s' breaks off after %d frames; its header declares %d.", path, count, declared)


class VideoFrames:
    """Iterate over the frames of a video any number of times; every pass decodes it anew by `read_video` and logs the
    same message where the video is truncated."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Image]:
        return read_video(self._path, report=True)


def _read_ppm(pipe: IO[bytes]) -> Image | None:
    """Parse the next image (H, W, 3) of a stream of binary PPM; None at its end or where it is truncated."""
    if pipe.readline() != b"P6\n":
        return None
    width, height = map(int, pipe.readline().split())
    pipe.readline()  # largest value, 255
    frame = np.empty((height, width, 3), np.uint8)
    missing = memoryview(frame.data).cast("B")
    while missing and (size := pipe.readinto(missing)):  # type: ignore[attr-defined]
        missing = missing[size:]
    return None if missing else frame
