"""Pictures and films in. Frames are RGB uint8 (H, W, 3) and pass one at a time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from kdtalker.audio import FRAME_RATE_HZ, check_file
from kdtalker.errors import SHORTAGES, InputError, OutputError
from kdtalker.ffmpeg_process import FFmpegProcess, check_program, media_input
from kdtalker.media import declared_s, is_short, open_media

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

Frame = NDArray[np.uint8]

# Read by Pillow itself; others, as EPS, are handed to programs that run what is in them.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "ICO", "JPEG2000")
MOST_PIXELS = 8192 * 5120  # of a frame of a film: 8K, for what a small file claims takes memory all the same
_WHITE = (255, 255, 255, 255)


def read_image(path: Path) -> Frame:
    """A picture as RGB (H, W, 3), turned as its EXIF says, alpha laid over white, 16 bits cut to 8.

    Raises InputError where it is missing, a folder, empty, broken, no picture, or above Pillow's limit (89 MP);
    OutputError where memory is short.
    """
    check_file(path, "a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_known_formats()) as image:
                return np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise InputError(f"'{path}' has more than {limit} megapixels, wanted a smaller picture.") from None
    except UnidentifiedImageError:
        raise InputError(f"'{path}' is not a picture that can be read, wanted JPEG, PNG, WebP or such.") from None
    except MemoryError:
        raise OutputError(f"There is too little memory to read the picture '{path}'; give a smaller one.") from None
    except Exception as error:  # decoders raise anything over broken data
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            raise
        reason = str(error) or type(error).__name__
        raise InputError(f"'{path}' is a broken or truncated picture ({reason}), wanted a whole one.") from None


def _known_formats() -> list[str]:
    """List the formats that this version of Pillow has."""
    Image.init()
    return [name for name in PICTURE_FORMATS if name in Image.OPEN]


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # grey of 16 bits
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        solid = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", solid.size, _WHITE), solid).convert("RGB")
    return image.convert("RGB")


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


def read_film(path: Path, fps: float = FRAME_RATE_HZ, *, report: bool = False) -> Iterator[Frame]:
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

    def __iter__(self) -> Iterator[Frame]:
        return read_film(self._path, report=True)


def _read_ppm(pipe: IO[bytes]) -> Frame | None:
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
