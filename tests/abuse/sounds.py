"""Sounds: every usual kind, broken headers, ends that are cut off, and playlists that name other files."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import toy
from abuse.case import Maker
from abuse.pictures import HTML, NOISE, PICTURES, TEXT, content, of_kind

RATE_HZ = 16_000
HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n%s\n#EXT-X-ENDLIST\n"
DASH = b"""<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"
profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="audio/mp4"><Representation
id="1" bandwidth="64000"><BaseURL>%s</BaseURL></Representation></AdaptationSet></Period></MPD>"""


def wav(samples: np.ndarray, *, rate_hz: int = RATE_HZ, channels: int = 1, bits: int = 16, tag: int = 1,
        data_bytes: int | None = None) -> bytes:  # fmt: skip
    """A WAV file whose header says what it is told to; `samples` are its bytes."""
    raw = samples.tobytes()
    block = max(1, channels * bits // 8)
    head = struct.pack("<HHIIHH", tag, channels, rate_hz, min(rate_hz * block, 2**32 - 1), block & 0xFFFF, bits)
    size = len(raw) if data_bytes is None else data_bytes
    riff = b"RIFF" + struct.pack("<I", min(36 + size, 2**32 - 1)) + b"WAVE"
    return riff + b"fmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", size) + raw


def pcm(seconds: float = 1.0) -> np.ndarray:
    return (toy.sound(seconds) * 32767).astype("<i2")


def _filled(value: float, kind: str = "<f4") -> np.ndarray:
    samples = toy.sound(1.0).astype(kind)
    samples[4000:12_000] = value
    return samples


def ffmpeg(path: Path, *words: str) -> None:
    """Write the path by the ffmpeg that the program itself uses, the same bytes every time."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *words, "-fflags", "+bitexact",
               "-flags:a", "+bitexact", "-flags:v", "+bitexact", str(path)]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "SVT_LOG": "0"})


def encoded(*words: str, seconds: float = 1.0) -> Maker:
    """The toy's sound in another format, which the name's ending tells."""

    def write(path: Path) -> None:
        with tempfile.NamedTemporaryFile(suffix=".wav") as source:
            Path(source.name).write_bytes(wav(pcm(seconds)))
            ffmpeg(path, "-i", source.name, *words)

    return write


def first_part(maker: Maker, share: float) -> Maker:
    def write(path: Path) -> None:
        maker(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

    return write


def _tone(*words: str) -> Maker:
    return lambda path: ffmpeg(path, "-f", "lavfi", "-i", *words)


def _late_with_picture(path: Path) -> None:
    """A film whose sound begins half a second after its picture."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as source:
        Path(source.name).write_bytes(wav(pcm()))
        ffmpeg(path, "-f", "lavfi", "-i", "testsrc2=s=96x80:r=25:d=2", "-itsoffset", "0.5", "-i", source.name)


KINDS: dict[str, Maker] = {
    "good.mp3": encoded(),
    "good.m4a": encoded(),
    "good.aac": encoded(),
    "good.ogg": encoded("-c:a", "libvorbis"),
    "good.opus": encoded(),
    "good.oga": encoded("-c:a", "flac"),
    "sound.webm": encoded("-c:a", "libopus"),
    "good.flac": encoded(),
    "good.amr": encoded("-ar", "8000", "-ac", "1"),
    "good.3gp": encoded("-ar", "8000", "-ac", "1", "-c:a", "libopencore_amrnb"),
    "good.aiff": encoded(),
    "good.au": encoded(),
    "good.caf": encoded(),
    "good.w64": encoded(),
    "good.wv": encoded(),
    "good.wma": encoded(),
    "good.ac3": encoded(),
    "alac.m4a": encoded("-c:a", "alac"),
    "sound.mka": encoded("-c:a", "libmp3lame"),
    "sound.avi": encoded("-c:a", "ac3"),
    "a-law.wav": encoded("-c:a", "pcm_alaw"),
    "8-bit.wav": encoded("-c:a", "pcm_u8"),
    "24-bit.wav": encoded("-c:a", "pcm_s24le"),
    "32-bit.wav": encoded("-c:a", "pcm_s32le"),
    "float.wav": encoded("-c:a", "pcm_f32le"),
    "double.wav": encoded("-c:a", "pcm_f64le"),
    "8-khz.wav": encoded("-ar", "8000"),
    "96-khz.wav": encoded("-ar", "96000"),
    "384-khz.wav": encoded("-ar", "384000"),
    "8-channels.wav": encoded("-filter_complex", "asplit=8" + "".join(f"[{n}]" for n in "abcdefgh") + ";"
                              + "".join(f"[{n}]" for n in "abcdefgh") + "join=inputs=8:channel_layout=7.1"),
    "5.1.flac": encoded("-ac", "6"),
    "11025-hz.wav": encoded("-ar", "11025"),
    "3-hz.wav": content(lambda: wav(pcm()[:30], rate_hz=3)),
    "late.mp4": _late_with_picture,
    "rf64.wav": encoded("-rf64", "always"),
}  # fmt: skip

CONTENTS: dict[str, Maker] = {
    "voice.wav": content(lambda: wav(pcm())),
    "word.wav": content(lambda: wav(pcm(0.2))),
    "silence.wav": content(lambda: wav(pcm() * 0)),
    "constant.wav": content(lambda: wav(np.full(16_000, 20_000, "<i2"))),
    "full-scale.wav": content(lambda: wav(np.random.default_rng(1).choice(np.array([-32768, 32767], "<i2"), 16_000))),
    "nan.wav": content(lambda: wav(_filled(np.nan), bits=32, tag=3)),
    "inf.wav": content(lambda: wav(_filled(np.inf), bits=32, tag=3)),
    "loud.wav": content(lambda: wav(_filled(1e30), bits=32, tag=3)),
    "all-nan.wav": content(lambda: wav(np.full(16_000, np.nan, "<f4"), bits=32, tag=3)),
    "one.wav": content(lambda: wav(pcm()[:1])),
    "eight.wav": content(lambda: wav(pcm()[:8])),
    "10-hours.wav": content(lambda: wav(pcm(), data_bytes=10 * 3600 * 2 * RATE_HZ)),
    "endless.wav": content(lambda: wav(pcm(), data_bytes=2**32 - 1)),
    "long.wav": content(lambda: wav(np.tile(pcm(10), 12))),  # two minutes
    "half-an-hour.flac": _tone("sine=frequency=200:sample_rate=16000:duration=1800"),
}

DAMAGED: dict[str, Maker] = {
    "nothing.wav": content(lambda: wav(pcm()[:0])),
    "12-bytes.wav": content(lambda: wav(pcm())[:12]),
    "30-bytes.wav": content(lambda: wav(pcm())[:30]),
    "43-bytes.wav": content(lambda: wav(pcm())[:43]),
    "no-rate.wav": content(lambda: wav(pcm(), rate_hz=0)),
    "fast.wav": content(lambda: wav(pcm(), rate_hz=2**32 - 1)),
    "0-channels.wav": content(lambda: wav(pcm(), channels=0)),
    "65535-channels.wav": content(lambda: wav(pcm(), channels=65_535)),
    "0-bits.wav": content(lambda: wav(pcm(), bits=0)),
    "unknown-codec.wav": content(lambda: wav(pcm(), tag=0x7777)),
    "empty.wav": content(b""),
    "jpeg.wav": of_kind("JPEG"),
    "zip.mp3": PICTURES["zip.png"],
    "html.mp3": content(HTML),
    "random.mp3": content(NOISE),
    "text.wav": content(TEXT),
    "nulls.wav": content(bytes(1 << 16)),
    "cut.m4a": first_part(encoded(), 0.6),
    "cut.mp3": first_part(encoded(), 0.6),
    "cut.flac": first_part(encoded(), 0.3),
    "cut.ogg": first_part(encoded(seconds=4), 0.6),
    "cut.wav": content(lambda: wav(pcm())[:20_001]),
    "head.flac": first_part(encoded(), 0.004),
}

LISTS: dict[str, Maker] = {
    "remote.m3u8": content(HLS % b"http://127.0.0.1:9/a.ts"),
    "local.m3u8": content(HLS % b"voice.mp3"),
    "etc.m3u8": content(HLS % b"/etc/passwd"),
    "hidden.wav": content(HLS % b"voice.mp3"),
    "list.ffconcat": content(b"ffconcat version 1.0\nfile voice.wav\n"),
    "absolute.ffconcat": content(b"ffconcat version 1.0\nfile /etc/hostname\n"),
    "hidden.mp3": content(b"ffconcat version 1.0\nfile voice.wav\n"),
    "list.mpd": content(DASH % b"voice.mp4"),
    "list.m3u": content(b"#EXTM3U\n#EXTINF:1,voice\nvoice.wav\n"),
    "list.pls": content(b"[playlist]\nFile1=voice.wav\nNumberOfEntries=1\nVersion=2\n"),
    "list.sdp": content(b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9999 RTP/AVP 0\n"),
    "list.cue": content(b'FILE "voice.wav" WAVE\n TRACK 01 AUDIO\n  INDEX 01 00:00:00\n'),
    "metadata.txt": content(b";FFMETADATA1\ntitle=a\n"),
    "voice.mp3": encoded(),
}

SOUNDS = {**KINDS, **CONTENTS, **DAMAGED, **LISTS}
