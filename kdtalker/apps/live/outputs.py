"""Send live frames to a file, a pipe or a server by PyAV, or to a virtual camera."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import av.logging
from av.video.reformatter import ColorRange, Colorspace

from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.files import AtomicFile
from kdtalker.core.pcm import encode_pcm
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.frames import LiveFrame
from kdtalker.media.video_writer import TAG

SOUND_RATE_HZ = 48_000
FORMATS = {".mp4": "mp4", ".ts": "mpegts", ".mkv": "matroska"}
SCHEMES = {"udp": "mpegts", "rtmp": "flv", "rtmps": "flv", "whip+http": "whip", "whip+https": "whip"}
TARGETS = "- (MPEG-TS on stdout), FILE.mp4, .ts or .mkv, udp://HOST:PORT, rtmp://…, whip+https://…, or camera"
_BT709 = 1  # of colour primaries, transfer characteristics and matrix alike (ITU-T H.273), as films have it
_KEY_FRAMES_EVERY = 2 * FRAME_RATE_HZ
_X264 = {"preset": "superfast", "tune": "zerolatency", "profile": "baseline", "bf": "0", "crf": "23"}
_MUXER = {"mpegts": {"flush_packets": "1"}, "flv": {"flvflags": "no_duration_filesize"}}


class LiveOutput(Protocol):
    """Take the frames of a live session."""

    def write(self, frame: LiveFrame) -> None:
        """Send one frame with its sound. Raises OutputError."""
        ...

    def close(self) -> None:
        """Finish; what was written is kept."""
        ...

    def abort(self) -> None:
        """Give up; no file is left."""
        ...


def open_output(target: str, rate_hz: int = SOUND_RATE_HZ) -> LiveOutput:
    """Open a target, see TARGETS; rate_hz: of the sound. Raises InputError for another, OutputError where it cannot be
    opened."""
    if target == "camera":
        return CameraOutput()
    scheme = target.partition("://")[0].lower() if "://" in target else ""
    if target != "-" and scheme not in SCHEMES and (scheme or Path(target).suffix.lower() not in FORMATS):
        raise InputError(f"The target '{target}' is not known, wanted {TARGETS}.")
    return MuxedOutput(target, scheme, rate_hz)


class MuxedOutput:
    """Encode H.264 and AAC (for WHIP: Opus), and mux; the stream is opened with the first frame, whose size it has."""

    def __init__(self, target: str, scheme: str, rate_hz: int) -> None:
        self._target, self._rate_hz = target, rate_hz
        self._format = "mpegts" if target == "-" else SCHEMES.get(scheme) or FORMATS[Path(target).suffix.lower()]
        self._file = None if scheme or target == "-" else AtomicFile(Path(target))
        self._container: Any = None
        self._certificate = _make_certificate() if self._format == "whip" else {}

    def _open(self, width: int, height: int, files: ExitStack) -> None:
        """Open the stream; files: removes what is needed until the first frame was sent."""
        av.logging.set_level(av.logging.PANIC)  # errors are told as OutputError
        where = str(self._file.partial) if self._file else self._target.removeprefix("whip+")
        where = f"pipe:{os.dup(1)}" if self._target == "-" else where
        options = dict(_MUXER.get(self._format, {}))
        if self._certificate:
            folder = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="kdtalker-")))
            for name, content in self._certificate.items():
                (folder / name).write_bytes(content)
                options[name] = str(folder / name)
        self._container = av.open(where, "w", format=self._format, options=options, timeout=10.0)
        self._container.metadata["comment"] = TAG
        self._video = self._container.add_stream("libx264", rate=FRAME_RATE_HZ, options=_X264)
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        self._video.gop_size, self._video.thread_count = _KEY_FRAMES_EVERY, 1
        context = self._video.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG
        is_whip = self._format == "whip"
        self._audio = self._container.add_stream("libopus" if is_whip else "aac", rate=SOUND_RATE_HZ)
        self._audio.layout = "stereo" if is_whip else "mono"

    def write(self, frame: LiveFrame) -> None:
        """Encode and send one frame with its sound. Raises OutputError."""
        try:
            with ExitStack() as files:
                if self._container is None:
                    height, width = frame.picture.shape[:2]
                    self._open(width, height, files)
                self._mux(frame)
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from None

    def _mux(self, frame: LiveFrame) -> None:
        picture = av.VideoFrame.from_ndarray(frame.picture, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        picture.pts, picture.time_base = frame.index, Fraction(1, FRAME_RATE_HZ)
        sound = av.AudioFrame(format="s16", layout="mono", samples=len(frame.sound))
        sound.planes[0].update(encode_pcm(frame.sound))
        sound.sample_rate, sound.time_base = self._rate_hz, Fraction(1, self._rate_hz)
        sound.pts = frame.index * len(frame.sound)
        self._container.mux(self._audio.encode(sound))
        self._container.mux(self._video.encode(picture))

    def close(self) -> None:
        """Finish; a file then takes its name. Raises OutputError."""
        if self._container is None:
            self.abort()
            return
        try:
            for stream in (self._audio, self._video):
                self._container.mux(stream.encode(None))
            self._container.close()
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from None
        if self._file:
            self._file.commit()

    def abort(self) -> None:
        """Give up; no file is left."""
        if self._container is not None:
            with suppress(av.FFmpegError, OSError):
                self._container.close()
        if self._file:
            self._file.discard()

    def _failure(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or str(error)
        return OutputError(f"The target '{self._target}' takes no stream ({reason}); is it there, and does it listen?")


class CameraOutput:
    """Show pictures on a virtual camera (extra [camera]); such a camera has no sound."""

    def __init__(self) -> None:
        """Raises InputError without the extra."""
        try:
            import pyvirtualcam
        except ImportError:
            raise InputError("A virtual camera needs a package more: pip install 'kdtalker[camera]'.") from None
        self._library = pyvirtualcam
        self._camera: Any = None

    def write(self, frame: LiveFrame) -> None:
        """Show one picture. Raises OutputError."""
        height, width = frame.picture.shape[:2]
        try:
            self._camera = self._camera or self._library.Camera(width=width, height=height, fps=FRAME_RATE_HZ)
        except RuntimeError as error:
            raise OutputError(f"There is no virtual camera ({error}); on Linux load the module v4l2loopback.") from None
        self._camera.send(frame.picture)

    def close(self) -> None:
        """Release the camera."""
        if self._camera is not None:
            self._camera.close()

    abort = close


def _make_certificate() -> dict[str, bytes]:
    """Make key and certificate (ECDSA on P-256, which RFC 8827 asks of everyone; that of ffmpeg with GnuTLS is refused
    by some servers) as PEM, by the muxer's names. Raises InputError without the extra [webrtc]."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise InputError("WHIP needs a package more: pip install 'kdtalker[webrtc]'.") from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kdtalker")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
    encoding = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return {
        "cert_file": builder.sign(key, hashes.SHA256()).public_bytes(encoding),
        "key_file": key.private_bytes(encoding, *plain),
    }
