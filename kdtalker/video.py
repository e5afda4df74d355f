"""Pictures and films in, one film out. Frames are RGB uint8 (H, W, 3) and pass one at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from kdtalker.audio import FRAME_RATE_HZ, check_file
from kdtalker.errors import InputError, OutputError
from kdtalker.ffmpeg_process import FFmpegProcess, media_input, sound_track

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

Frame = NDArray[np.uint8]

_SOUND_RATE_HZ = 48_000
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


class VideoWriter:
    """Writes a film through one ffmpeg: H.264 (yuv420p, BT.709) and AAC in an MP4 that every phone plays.

    It grows under a temporary name beside the target and takes its name only when it is whole; on any error, Ctrl-C
    included, it is removed and a film that was there stays as it was. Odd sizes are made even by repeating the last
    row or column. The sound is cut or continued with silence to duration_s, or else to the length of the picture.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: float = FRAME_RATE_HZ,
        *,
        sound: Path | None = None,
        crf: int = 18,
        duration_s: float | None = None,
    ) -> None:
        """Sizes in px; sound: a file whose first sound track goes with the picture; crf: 0 (lossless) to 51.

        Raises InputError where the target is not an .mp4 in an existing folder or the sound is no file, and
        OutputError where the folder cannot be written.
        """
        if path.suffix.lower() != ".mp4":
            raise InputError(f"The output '{path}' does not end in .mp4, wanted the name of an MP4 film.")
        if path.is_dir():
            raise InputError(f"The output '{path}' is a folder, wanted the name of a film.")
        if sound is not None:
            check_file(sound, "a sound")
        self.path, self.width, self.height = path, width, height
        self._frames = 0
        self._partial = path.with_name(f".kdtalker-{uuid4().hex}.part")
        _claim(self._partial, path)
        try:
            self._encoder = FFmpegProcess(self._output(fps, sound, crf, duration_s), feed=True)
        except BaseException:
            self._partial.unlink(missing_ok=True)
            raise

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._encoder.kill()
            self._partial.unlink(missing_ok=True)

    def write(self, frame: Frame) -> None:
        """Append one frame (height, width, 3). Raises OutputError where ffmpeg has given up."""
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"frame {frame.dtype} {frame.shape}, wanted uint8 {(self.height, self.width, 3)}")
        if self.width % 2 or self.height % 2:
            frame = np.pad(frame, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        try:
            self._encoder.pipe.write(np.ascontiguousarray(frame).data.cast("B"))
        except OSError:
            self._fail()
        self._frames += 1

    def _finish(self) -> None:
        if not self._frames:
            raise OutputError(f"The film '{self.path}' would have no frames; nothing was written.")
        if self._encoder.wait() != 0:
            self._fail()
        try:
            self._partial.replace(self.path)
        except OSError as error:
            raise OutputError(f"The film '{self.path}' could not take its name ({error.strerror}).") from None

    def _fail(self) -> None:
        self._encoder.wait()
        raise OutputError(
            f"The film '{self.path}' could not be written ({self._encoder.reason()}); make room or write elsewhere."
        )

    def _output(self, fps: float, sound: Path | None, crf: int, duration_s: float | None) -> Any:
        """The ffmpeg-python graph: raw frames on stdin and the sound's file → MP4."""
        import ffmpeg

        size = f"{self.width + self.width % 2}x{self.height + self.height % 2}"
        picture = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=size, framerate=fps)
        picture = picture.video.filter(
            "scale", out_color_matrix="bt709", out_range="tv", flags="bicubic+accurate_rnd+full_chroma_int"
        )
        picture = picture.filter("format", "yuv420p").filter(
            "setparams", range="tv", color_primaries="bt709", color_trc="bt709", colorspace="bt709"
        )
        options = {
            "format": "mp4", "movflags": "+faststart", "vcodec": "libx264", "preset": "veryfast", "crf": crf,
            "threads": 2,
        }  # fmt: skip
        if sound is None:
            return ffmpeg.output(picture, f"file:{self._partial.absolute()}", **options)
        track = sound_track(sound, _SOUND_RATE_HZ)
        track = track.filter("aeval", "if(isnan(val(ch)),0,clip(val(ch),-1,1))", c="same")
        track = track.filter("aformat", channel_layouts="mono|stereo").filter("apad")
        if duration_s is None:
            options["shortest"] = None
        else:
            track = track.filter("atrim", end_sample=round(duration_s * _SOUND_RATE_HZ))
        options |= {"acodec": "aac", "audio_bitrate": "160k"}
        return ffmpeg.output(picture, track, f"file:{self._partial.absolute()}", **options)


def _claim(partial: Path, path: Path) -> None:
    """Create the temporary file, to learn now whether the film can be written at all."""
    try:
        partial.touch(exist_ok=False)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"The folder '{path.parent}' of the output does not exist; make it first.") from None
    except OSError as error:
        raise OutputError(
            f"The film '{path}' cannot be written ({error.strerror}); choose another folder or name."
        ) from None
