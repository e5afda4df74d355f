"""Probe media files: allowed demuxers, sound channels, declared durations."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdtalker.core.errors import SHORTAGES, InputError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Allowed demuxers of ffmpeg: those that read a single file. Excluded are those that follow links to other files: HLS,
# DASH, concat, SDP, image sequences, IMF and the like.
DEMUXERS = (
    "3dostr,aac,ac3,ac4,act,aea,aiff,alaw,amr,amrnb,amrwb,ape,apm,apng,aptx,asf,ast,au,av1,avi,bonk,caf,cavsvideo,"
    "codec2,dirac,dnxhd,dsf,dts,dtshd,dv,eac3,film_cpk,flac,flic,flv,frm,g722,g726,g729,gif,gsm,gxf,h261,h263,h264,"
    "hca,hevc,iff,ilbc,ircam,ivf,jpegxl_anim,kvag,live_flv,loas,m4v,matroska,mjpeg,mlp,mmf,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,mpegvideo,mpjpeg,mulaw,mxf,nistsphere,nsv,nut,obu,ogg,oma,pva,qcp,rm,rso,sbc,smjpeg,sox,spdif,swf,tak,"
    "truehd,tta,ty,vc1,vivo,voc,vqf,vvc,w64,wav,webp_anim,wsd,wtv,wv,xwma,yuv4mpegpipe,"
    "bmp_pipe,jpeg_pipe,jpegxl_pipe,png_pipe,tiff_pipe,webp_pipe"  # still images, refused later
)
MAX_CHANNELS = 64  # sound channels that ffmpeg can mix at most
TOLERANCE_S, TOLERANCE_SHARE = 0.5, 0.02  # error of declared durations: less than the larger of s and share

# Demuxers whose headers declare the duration; others estimate it or derive it from the file's content.
_DECLARING = {"aiff", "au", "flac", "matroska", "mov", "mp3", "tta", "wav", "wv"}
# First bytes and suffixes of files that link to other files.
_PLAYLIST = re.compile(
    rb"^(\xef\xbb\xbf)?\s*(#EXTM3U|ffconcat version|\[playlist\]|v=0\s+o=|<(MPD|asx|playlist|smil|SmoothStreamingMedia)"
    rb'|FILE\s+".*"\s+(WAVE|MP3|AIFF|BINARY))',
    re.IGNORECASE | re.MULTILINE,
)
_PLAYLIST_NAMES = {".m3u", ".m3u8"}
_PCM_TAGS = (1, 3, 0xFFFE)  # WAV format tags: integer, float, extensible
_MAX_DURATION_S = 1e7  # longer durations are treated as damaged
_STREAMED_FROM_BYTES = 0x7FFFF000  # size from which a WAV header is a placeholder of a streaming writer


@dataclass(frozen=True)
class SoundTrack:
    """Hold a sound track's header: number of channels, and the declared duration in s, if any."""

    channels: int
    declared_s: float | None


@contextmanager
def open_media(path: Path, kind: str, examples: str) -> Iterator[InputContainer]:
    """Open a media file with PyAV, whatever its name. kind, examples: what the error says was wanted.

    Raises InputError where it is a playlist, damaged, or no media file.
    """
    import av

    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path.absolute()}", options=options, metadata_errors="replace")
    except EOFError:
        raise InputError(f"'{path}' is damaged: it ends within its header; wanted a whole {kind}.") from None
    except (av.FFmpegError, OSError) as error:
        if error.errno in SHORTAGES:
            raise
        if is_playlist(path):
            raise InputError(
                f"'{path}' is a playlist, which leads to other files; give the sound or film itself."
            ) from None
        raise InputError(f"'{path}' is not a {kind} that can be decoded, wanted {examples} or such.") from None
    with container:
        yield container


def is_playlist(path: Path) -> bool:
    """Tell whether a file is a playlist, manifest, cue sheet or concat script, by its first 4 KiB or its suffix."""
    with path.open("rb") as file:
        return _PLAYLIST.search(file.read(4096)) is not None or path.suffix.lower() in _PLAYLIST_NAMES


def probe_sound(path: Path) -> SoundTrack:
    """Read the header of a file's first sound track. Raises InputError where there is none or it is damaged."""
    with open_media(path, "sound or film", "wav, mp3, m4a, ogg, flac, mp4") as container:
        if not container.streams.audio:
            raise InputError(f"'{path}' has no sound track, wanted a sound or a film with sound.")
        track = container.streams.audio[0]
        if track.codec_context is None:
            raise InputError(f"'{path}' holds sound of an unknown codec or is damaged; export it anew as wav or mp3.")
        channels = track.codec_context.channels
        if not 1 <= channels <= MAX_CHANNELS:
            found = f"{channels} channels" if channels else "no valid number of channels"
            raise InputError(
                f"'{path}' is damaged or unusual: its sound has {found}, wanted 1 to {MAX_CHANNELS}; export it anew."
            )
        return SoundTrack(channels, read_declared_duration(path, container, track))


def read_declared_duration(path: Path, container: InputContainer, track: AudioStream | VideoStream) -> float | None:
    """Read the duration in s that the header declares for a track.

    None where it declares none, or where an MP3 without Xing header only has its size over the bit rate: neither can
    show that the file is truncated.
    """
    name = container.format.name.split(",")[0]
    if name not in _DECLARING:
        return None
    if name == "wav":  # libavformat derives it from the file's size
        return _declared_by_wav(path)
    if name == "matroska":
        return _parse_clock(track.metadata.get("DURATION", ""))
    if not track.duration or not track.time_base:
        return None
    duration_s = float(track.duration * track.time_base)
    if name == "mp3" and track.bit_rate:
        by_size_s = container.size * 8 / track.bit_rate
        return None if abs(duration_s - by_size_s) < 0.01 * duration_s else duration_s
    return duration_s


def is_truncated(found_s: float, wanted_s: float | None) -> bool:
    """Tell whether a duration is shorter than the declared one by more than the tolerance."""
    return wanted_s is not None and wanted_s - found_s > max(TOLERANCE_S, TOLERANCE_SHARE * wanted_s)


def _declared_by_wav(path: Path) -> float | None:
    """Compute a WAV file's declared duration: size of the data chunk over the byte rate, PCM only."""
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return None
        file.seek(12)
        bits_per_s = 0
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                return size * 8 / bits_per_s if bits_per_s and size < _STREAMED_FROM_BYTES else None
            body = file.read(min(size, 16))
            if name == b"fmt " and len(body) == 16:
                tag, channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", body)
                bits_per_s = rate_hz * channels * bits if tag in _PCM_TAGS else 0
            file.seek(size + size % 2 - len(body), 1)
    return None


def _parse_clock(clock: str) -> float | None:
    """Parse H:MM:SS.fraction to s; None where it is no duration."""
    try:
        hours, minutes, seconds = (float(part) for part in clock.split(":"))
    except ValueError:
        return None
    duration_s = 3600 * hours + 60 * minutes + seconds
    return duration_s if 0 <= duration_s <= _MAX_DURATION_S else None
