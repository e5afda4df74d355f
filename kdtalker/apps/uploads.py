"""Validate untrusted uploads: by content, not by file name, and within size limits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kdtalker.core.arrays import Image as RGB
from kdtalker.core.errors import InputError, KDTalkerError, OutputError
from kdtalker.core.files import check_file
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from kdtalker.media.ffmpeg import FFmpegProcess, check_ffmpeg, media_input, media_url
from kdtalker.media.picture import read_image
from kdtalker.media.probe import is_playlist
from kdtalker.media.sound import read_sound

PICTURES = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SOUNDS = "wav,mp3,mov,ogg,flac,matroska,aac,aiff,caf,amr"  # the only ffmpeg demuxers that uploads may use
FILMS = "mov,matroska,avi,mpegts,mpeg,flv"
_RATES = "8000|11025|12000|16000|22050|24000|32000|44100|48000"
_PIECE = 1 << 16  # bytes that are copied at a time
_FILM_SIDE_PX = 640  # the longer side of the copy, which is enough to track a head


@dataclass(frozen=True)
class UploadLimits:
    """Bound what one visitor may ask for."""

    voice_s: int = 120
    picture_megapixels: int = 40
    film_megapixels: int = 9
    file_megabytes: int = 50


def read_picture(path: Path, limits: UploadLimits) -> RGB:
    """Read an uploaded picture as RGB (H, W, 3). Raises InputError, before decoding, for no picture or a large one."""
    _check_size(path, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=PICTURES) as image:
                megapixels = image.width * image.height / 1e6
    except Image.DecompressionBombError:  # before its size can be asked
        megapixels = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise InputError(_too_large(f"more than {megapixels:.0f}", limits)) from None
    except UnidentifiedImageError:
        raise InputError("This is not a picture that can be read here, wanted JPEG, PNG or WebP.") from None
    except Exception as error:  # decoders raise anything over broken data
        raise InputError(
            f"This picture is broken ({_without(path, error) or type(error).__name__}), wanted a whole one."
        ) from None
    if megapixels > limits.picture_megapixels:
        raise InputError(_too_large(f"{megapixels:.0f}", limits))
    try:
        return read_image(path)
    except KDTalkerError as error:
        raise type(error)(_without(path, error)) from None


def _too_large(megapixels: str, limits: UploadLimits) -> str:
    return (
        f"This picture is too large: it has {megapixels} megapixels, wanted at most {limits.picture_megapixels}; "
        "make it smaller."
    )


def copy_sound(path: Path, copy: Path, limits: UploadLimits) -> float:
    """Convert the first sound track of an upload to a plain WAV; return its length in s.

    The length in the file's header is not trusted: reading stops at the limit. Raises InputError for what is no sound
    or too long.
    """
    _check_size(path, limits)
    track = media_input(path, format_whitelist=SOUNDS, t=limits.voice_s + 1).audio
    track = track.filter("aformat", sample_fmts="s16", channel_layouts="mono|stereo", sample_rates=_RATES)
    with FFmpegProcess(track.output("pipe:", format="wav"), feed=False) as decoder, copy.open("wb") as file:
        while content := decoder.pipe.read(_PIECE):
            file.write(content)
        failed = decoder.wait() != 0
    try:
        seconds = sum(map(len, read_sound(copy))) / SAMPLE_RATE_HZ
    except OutputError as error:
        raise OutputError(_without(copy, error)) from None
    except InputError:
        _refuse_playlist(path)
        check_ffmpeg()
        raise InputError(
            "There is no sound in this file that can be read, wanted wav, mp3, m4a, ogg or such."
        ) from None
    if failed:
        raise InputError(f"This sound breaks off after {seconds:.1f} s, wanted a whole one.")
    if seconds > limits.voice_s:
        raise InputError(f"This voice lasts longer than {limits.voice_s} s, wanted at most that; cut it shorter.")
    return seconds


def copy_film(path: Path, copy: Path, limits: UploadLimits, length_s: float) -> None:
    """Convert the first `length_s` seconds of an uploaded film to a small MP4. Raises InputError for what is no film or
    has larger frames than allowed."""
    _check_size(path, limits)
    pixels = limits.film_megapixels * 1_000_000
    track = media_input(path, format_whitelist=FILMS, t=length_s, max_pixels=pixels, threads=1).video
    smaller = f"min(1,{_FILM_SIDE_PX}/max(iw*sar,ih))"
    track = track.filter("fps", FRAME_RATE_HZ, start_time=0)
    track = track.filter("scale", f"2*ceil(iw*sar*{smaller}/2)", f"2*ceil(ih*{smaller}/2)").filter("setsar", 1)
    small = track.output(filename=media_url(copy), format="mp4", preset="ultrafast", crf=18, pix_fmt="yuv420p")
    with FFmpegProcess(small, feed=False) as converter:
        has_failed = converter.wait() != 0
    if has_failed or not copy.is_file() or not copy.stat().st_size:
        _refuse_playlist(path)
        check_ffmpeg()
        raise InputError(
            f"There is no film in this file that can be read, wanted mp4, webm, mov or such of at most "
            f"{limits.film_megapixels} megapixels a frame."
        )


def _refuse_playlist(path: Path) -> None:
    if is_playlist(path):
        raise InputError("This file is a playlist, which leads to other files; choose the sound or film itself.")


def _check_size(path: Path, limits: UploadLimits) -> None:
    try:
        check_file(path, "a file")
    except InputError:
        raise InputError("This file is empty or has gone; choose it again.") from None
    megabytes = path.stat().st_size / 1e6
    if megabytes > limits.file_megabytes:
        raise InputError(f"This file has {megabytes:.0f} MB, wanted at most {limits.file_megabytes}.")


def _without(path: Path, error: Exception) -> str:
    """Return an error's text without the path of a file on the server."""
    return str(error).replace(f"'{path}'", "This file").replace(str(path), "the file")
