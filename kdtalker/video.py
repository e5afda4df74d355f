"""Pictures and films in. Frames are RGB uint8 (H, W, 3) and pass one at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from kdtalker.audio import FRAME_RATE_HZ, check_file
from kdtalker.errors import InputError
from kdtalker.ffmpeg_process import FFmpegProcess, media_input

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

Frame = NDArray[np.uint8]

_WHITE = (255, 255, 255, 255)


def read_image(path: Path) -> Frame:
    """A picture as RGB (H, W, 3), turned as its EXIF says, alpha laid over white, 16 bits cut to 8.

    Raises InputError where it is missing, a folder, empty, broken, no picture, or above Pillow's limit (89 MP).
    """
    check_file(path, "a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise InputError(f"'{path}' has more than {limit} megapixels, wanted a smaller picture.") from None
    except UnidentifiedImageError:
        raise InputError(f"'{path}' is not a picture that can be read, wanted JPEG, PNG, WebP or such.") from None
    except Exception as error:  # decoders raise anything over broken data
        raise InputError(f"'{path}' is a broken or truncated picture ({error}), wanted a whole one.") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # grey of 16 bits
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        solid = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", solid.size, _WHITE), solid).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class FilmInfo:
    """What a film says of itself: upright size in px, length, frame rate, and whether it has a sound track."""

    width: int
    height: int
    duration_s: float
    fps: float
    has_sound: bool


def film_info(path: Path) -> FilmInfo:
    """Look into a film. Raises InputError where there is no file, it cannot be decoded or has no moving picture."""
    import av

    check_file(path, "a film")
    try:
        with av.open(f"file:{path.absolute()}") as film:
            covers = av.stream.Disposition.attached_pic
            tracks = [track for track in film.streams.video if not track.disposition & covers]
            if not tracks or film.format.name.endswith("_pipe") or film.format.name == "image2":
                raise InputError(f"'{path}' has no moving picture, wanted a film.")
            frame = next(film.decode(tracks[0]))
            width, height = round(frame.width * (tracks[0].sample_aspect_ratio or 1)), frame.height
            if frame.rotation % 180:
                width, height = height, width
            rate = float(tracks[0].average_rate or 0)
            return FilmInfo(width, height, _length_s(film, tracks[0]), rate, bool(film.streams.audio))
    except (av.FFmpegError, OSError, StopIteration):
        raise InputError(f"'{path}' is not a film that can be decoded, wanted mp4, webm, mov or such.") from None


def _length_s(film: InputContainer, track: VideoStream) -> float:
    if track.duration and track.time_base:
        return float(track.duration * track.time_base)
    return (film.duration or 0) / 1_000_000  # ffmpeg's own unit, µs


def read_film(path: Path, fps: float = FRAME_RATE_HZ) -> Iterator[Frame]:
    """The frames of a film at a constant rate, upright, with square pixels. Raises InputError as film_info does."""
    film_info(path)
    picture = media_input(path, threads=1).video.filter("fps", fps, start_time=0)
    picture = picture.filter("scale", "trunc(iw*sar+0.5)", "ih", flags="bicubic+accurate_rnd+full_chroma_int")
    output = picture.output("pipe:", format="image2pipe", vcodec="ppm", pix_fmt="rgb24")
    given = 0
    with FFmpegProcess(output, feed=False) as decoder:
        while (frame := _read_ppm(decoder.pipe)) is not None:
            given += 1
            yield frame
        if decoder.wait() != 0:
            raise InputError(f"'{path}' breaks off after {given} frames ({decoder.reason()}), wanted a whole film.")


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
