"""Pictures and films in. Frames are RGB uint8 (H, W, 3) and pass one at a time."""

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
from kdtalker.media.ffmpeg import FFmpegProcess, check_program, media_input
from kdtalker.media.probe import declared_s, is_short, open_media

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_log = logging.getLogger(__name__)

MOST_PIXELS = 8192 * 5120  # of a frame of a film: 8K, for what a small file claims takes memory all the same


@dataclass(frozen=True)
class FilmInfo:
    """The header of a film: upright size in px, duration, frame rate, and whether it has a sound track. is_declared:
    the duration is the header's word for the picture, not an estimate from what the file holds."""

    width: int
    height: int
    duration_s: float
    fps: float
    has_sound: bool
    is_declared: bool


def film_info(path: Path) -> FilmInfo:
    """Read the header of a film. Raises InputError where there is no file, it cannot be decoded, has no moving picture
    or is a playlist."""
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
        if frame.width * frame.height > MOST_PIXELS:
            raise InputError(
                f"The frames of '{path}' have {frame.width} x {frame.height} px, wanted at most 8K; make them smaller."
            )
        width, height = round(frame.width * (tracks[0].sample_aspect_ratio or 1)), frame.height
        if frame.rotation % 180:
            width, height = height, width
        declared = declared_s(path, film, tracks[0])
        duration_s = _length_s(film, tracks[0]) if declared is None else declared
        rate = float(tracks[0].average_rate or 0)
        return FilmInfo(width, height, duration_s, rate, bool(film.streams.audio), declared is not None)


def _length_s(film: InputContainer, track: VideoStream) -> float:
    if track.duration and track.time_base:
        return float(track.duration * track.time_base)
    return (film.duration or 0) / 1_000_000  # ffmpeg's own unit, µs


def read_film(path: Path, fps: float = FRAME_RATE_HZ, *, report: bool = False) -> Iterator[Image]:
    """Decode the frames of a film at a constant rate, upright, with square pixels.

    A film that ends before the duration that its header declares is read as far as it goes, `report` logs that. Raises
    InputError as film_info does, and after the last frame where ffmpeg fails on the way; OutputError where ffmpeg
    cannot be run.
    """
    info = film_info(path)
    picture = media_input(path, threads=1).video.filter("fps", fps, start_time=0)
    picture = picture.filter("scale", "trunc(iw*sar+0.5)", "ih", flags="bicubic+accurate_rnd+full_chroma_int")
    output = picture.output("pipe:", format="image2pipe", vcodec="ppm", pix_fmt="rgb24")
    given = 0
    with FFmpegProcess(output, feed=False) as decoder:
        while (frame := _read_ppm(decoder.pipe)) is not None:
            given += 1
            yield frame
        has_failed = decoder.wait_for(path) != 0
        if not given:
            check_program()
        if has_failed:
            raise InputError(f"'{path}' breaks off after {given} frames ({decoder.reason()}), wanted a whole film.")
    if report and info.is_declared and is_short(given / fps, info.duration_s):
        declared = round(info.duration_s * fps)
        _log.warning("The film '%s' breaks off after %d frames; its header declares %d.", path, given, declared)


class VideoFrames:
    """The frames of a film as `read_film` gives them, decoded anew each time that they are iterated over. Each pass
    logs where the film breaks off, in the same words."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Image]:
        return read_film(self._path, report=True)


def _read_ppm(pipe: IO[bytes]) -> Image | None:
    """The next picture of a stream of binary PPM, None at its end or where it is cut off."""
    if pipe.readline() != b"P6\n":
        return None
    width, height = map(int, pipe.readline().split())
    pipe.readline()  # largest value, 255
    frame = np.empty((height, width, 3), np.uint8)
    missing = memoryview(frame.data).cast("B")
    while missing and (count := pipe.readinto(missing)):  # type: ignore[attr-defined]
        missing = missing[count:]
    return None if missing else frame
