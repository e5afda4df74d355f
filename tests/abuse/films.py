"""Driving films: of every kind, too large, too fast, cut off, and without or with a lost face."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from abuse.case import Maker
from abuse.pictures import TEXT, content, hopper
from abuse.sounds import encoded, ffmpeg, first_part, pcm, wav
from PIL import Image


def drawn(*words: str, source: str = "testsrc2=s=96x80:r=25:d=0.4") -> Maker:
    """A film of ffmpeg's own test picture."""
    return lambda path: ffmpeg(path, "-f", "lavfi", "-i", source, *(words or ("-pix_fmt", "yuv420p")))


def spoken(*words: str, source: str = "testsrc2=s=96x80:r=25:d=1") -> Maker:
    """The same with the toy's sound."""

    def write(path: Path) -> None:
        with tempfile.NamedTemporaryFile(suffix=".wav") as sound:
            Path(sound.name).write_bytes(wav(pcm()))
            ffmpeg(path, "-f", "lavfi", "-i", source, "-i", sound.name, "-pix_fmt", "yuv420p", *words)

    return write


def _from_pictures(pictures: Callable[[], Sequence[Image.Image]]) -> Maker:
    def write(path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for number, picture in enumerate(pictures()):
                picture.save(f"{folder}/{number:03}.png")
            ffmpeg(path, "-framerate", "25", "-i", f"{folder}/%03d.png", "-pix_fmt", "yuv420p")

    return write


def _faces(seen: str) -> Callable[[], list[Image.Image]]:
    """One picture for each letter: f for a face that moves on a little, - for a scene without one."""

    def pictures() -> list[Image.Image]:
        empty = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (300, 1, 3)))
        shown = hopper().crop((0, 0, 256, 300))
        return [shown.rotate(0.4 * at) if kind == "f" else empty for at, kind in enumerate(seen)]

    return pictures


def _cover_art(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sound, cover = Path(folder, "a.wav"), Path(folder, "a.png")
        sound.write_bytes(wav(pcm()))
        hopper().save(cover)
        ffmpeg(path, "-i", str(sound), "-i", str(cover), "-map", "0", "-map", "1", "-disposition:v", "attached_pic")


def _rotated(path: Path) -> None:
    with tempfile.NamedTemporaryFile(suffix=".mp4") as source:
        drawn()(Path(source.name))
        ffmpeg(path, "-display_rotation", "90", "-i", source.name, "-c", "copy")


def _late_index(maker: Maker, share: float) -> Maker:
    """The film with its index at the end, cut off before that."""
    return first_part(maker, share)


def _index_first(share: float, *, seconds: float = 2) -> Maker:
    source = f"testsrc2=s=96x80:r=25:d={seconds},noise=alls=40:allf=t"
    return first_part(drawn("-pix_fmt", "yuv420p", "-movflags", "+faststart", source=source), share)


FILMS: dict[str, Maker] = {
    "driving.mp4": drawn(),
    "spoken.mp4": spoken(),
    "driving.mkv": drawn(),
    "driving.webm": drawn("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-cpu-used", "8", "-deadline", "realtime"),
    "clear.webm": drawn("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-cpu-used", "8", "-deadline", "realtime"),
    "driving.mov": drawn("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"),
    "driving.avi": drawn("-c:v", "mpeg4"),
    "driving.ts": drawn(),
    "driving.gif": drawn("-r", "25"),
    "10-bit.mp4": drawn("-pix_fmt", "yuv420p10le"),
    "hevc.mp4": drawn("-c:v", "libx265", "-x265-params", "log-level=error", "-pix_fmt", "yuv420p"),
    "av1.mp4": drawn("-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1", "-pix_fmt", "yuv420p"),
    "lossless.mkv": drawn("-c:v", "ffv1"),
    "odd.mp4": drawn("-pix_fmt", "yuv444p", source="testsrc2=s=97x81:r=25:d=0.4"),
    "4k.mp4": drawn("-pix_fmt", "yuv420p", "-preset", "ultrafast", source="testsrc2=s=3840x2160:r=25:d=0.2"),
    "240-fps.mp4": drawn("-pix_fmt", "yuv420p", source="testsrc2=s=96x80:r=240:d=0.4"),
    "1-fps.mp4": drawn("-pix_fmt", "yuv420p", source="testsrc2=s=96x80:r=1:d=3"),
    "23.976-fps.mp4": drawn("-pix_fmt", "yuv420p", source="testsrc2=s=96x80:r=24000/1001:d=0.5"),
    "variable.mkv": drawn("-pix_fmt", "yuv420p", "-vf", "select='not(mod(n,3))+lt(n,4)'", "-fps_mode", "vfr"),
    "interlaced.mp4": drawn("-pix_fmt", "yuv420p", "-flags", "+ilme+ildct", "-vf", "interlace"),
    "anamorphic.mp4": drawn("-pix_fmt", "yuv420p", "-vf", "setsar=2/1"),
    "rotated.mp4": _rotated,
    "1-frame.mp4": drawn("-pix_fmt", "yuv420p", "-frames:v", "1"),
    "2x2.mp4": drawn("-pix_fmt", "yuv420p", source="testsrc2=s=2x2:r=25:d=0.2"),
    "offset.mkv": drawn("-pix_fmt", "yuv420p", "-output_ts_offset", "7"),
    "sound-only.mp4": encoded("-c:a", "aac"),
    "cover-art.mp3": _cover_art,
    "no-index.mp4": _late_index(drawn(), 0.5),
    "cut-off.mp4": _index_first(0.6),
    "cut-off.mkv": first_part(drawn(source="testsrc2=s=96x80:r=25:d=2,noise=alls=40:allf=t"), 0.6),
    "cut-off.ts": first_part(drawn(source="testsrc2=s=96x80:r=25:d=2,noise=alls=40:allf=t"), 0.6),
    "head.mp4": _late_index(drawn(), 0.02),
    "text.mp4": content(TEXT),
    "empty.mp4": content(b""),
    "faces.mp4": _from_pictures(_faces("ffffff")),
    "no-face.mp4": _from_pictures(_faces("------")),
    "face-lost.mp4": _from_pictures(_faces("fff---")),
    "face-late.mp4": _from_pictures(_faces("---fff")),
    "face-once.mp4": _from_pictures(_faces("f-----")),
    "face-upside-down.mp4": _from_pictures(lambda: [picture.rotate(180) for picture in _faces("fff")()]),
}
