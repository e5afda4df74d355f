"""Sounds that a portrait can say, and what is none."""

from __future__ import annotations

from abuse.case import table

PICTURE = "--image face.png --output film.mp4"
LISTS = ("remote.m3u8", "local.m3u8", "etc.m3u8", "hidden.wav", "list.ffconcat", "absolute.ffconcat", "hidden.mp3",
         "list.mpd", "list.m3u", "list.pls", "list.sdp", "list.cue", "metadata.txt")  # fmt: skip
BESIDE = ("voice.mp3", "spoken.mp4")  # what the lists name


def _heard(*names: str, frames: object = (24, 27), **fields: object) -> list:
    return [(name, f"{PICTURE} --audio {name}", "", {"frames": frames, **fields}) for name in names]


GOOD = table(
    "sounds",
    0,
    *_heard("good.aac", frames=(24, 28)),
    *_heard("good.mp3", "good.m4a", "good.ogg", "good.opus", "good.oga", "sound.webm", "good.flac"),
    *_heard("good.amr", "good.3gp", "good.aiff", "good.au", "good.caf", "good.w64", "good.wv", "good.wma", "good.ac3"),
    *_heard("alac.m4a", "sound.mka", "sound.avi", "spoken.mp4"),
    *_heard("a-law.wav", "8-bit.wav", "24-bit.wav", "32-bit.wav", "float.wav", "double.wav", "8-khz.wav", "96-khz.wav"),
    *_heard("384-khz.wav", "8-channels.wav", "5.1.flac", "11025-hz.wav", "rf64.wav", "cover-art.mp3", frames=(24, 27)),
    *_heard(
        "silence.wav", "constant.wav", "full-scale.wav", "nan.wav", "inf.wav", "loud.wav", "all-nan.wav", frames=25
    ),
    *_heard("10-hours.wav", "endless.wav", frames=25),
    *_heard("late.mp4", frames=(36, 40)),
    *_heard("one.wav", "eight.wav", frames=1),
    *_heard("3-hz.wav", frames=(200, 250)),
    *_heard("cut.wav", frames=(15, 17)),
    *_heard("cut.mp3", frames=(8, 20)),
    *_heard("cut.ogg", frames=(20, 80)),
    ("half an hour, two seconds of it", f"{PICTURE} --audio half-an-hour.flac --start 1700 --duration 2", "50 frames"),
    ("the end of half an hour", f"{PICTURE} --audio half-an-hour.flac --start 1799.5", "1[23] frames"),
)

LONG = table(
    "sounds",
    0,
    (
        "half an hour",
        "--image small.png --output film.mp4 --audio half-an-hour.flac",
        "45000 frames",
        {"frames": 45_000},
    ),
    within_s=240.0,
    fast=False,
)

BAD = table(
    "sounds",
    2,
    *[
        (name, f"{PICTURE} --audio {name}", name.replace(".", r"\."))
        for name in (
            "nothing.wav", "12-bytes.wav", "30-bytes.wav", "43-bytes.wav", "no-rate.wav", "0-bits.wav",
            "unknown-codec.wav", "empty.wav", "jpeg.wav", "zip.mp3", "html.mp3", "random.mp3", "text.wav", "nulls.wav",
            "cut.m4a", "face.png", "driving.mp4", "drawing.svg",
        )
    ],
    ("a missing one", f"{PICTURE} --audio none.wav", "none.wav.*[Nn]o such file"),
    ("0-channels.wav", f"{PICTURE} --audio 0-channels.wav", "0-channels.wav' (?!has a sound track of zero)",
     {"finding": "V12"}),
    ("65535-channels.wav", f"{PICTURE} --audio 65535-channels.wav", "65535-channels.wav' (?!has a sound track of zero)",
     {"finding": "V12"}),
    ("cut.flac", f"{PICTURE} --audio cut.flac", "cut.flac' (?!has a sound track of zero)|frames",
     {"finding": "V12", "code": (0, 2), "fast": True}),
    ("head.flac", f"{PICTURE} --audio head.flac", "head.flac' (?!has a sound track of zero)", {"finding": "V12"}),
    ("fast.wav", f"{PICTURE} --audio fast.wav", "fast.wav|frames", {"code": (0, 2)}),
    within_s=3.0,
)  # fmt: skip

PLAYLISTS = table(
    "playlists",
    2,
    *[(name, f"{PICTURE} --audio {name}", name, {"also": BESIDE}) for name in LISTS],
    *[(f"{name} as film", f"--image face.png --output film.mp4 --driving {name}", name, {"also": BESIDE})
      for name in ("remote.m3u8", "local.m3u8", "list.ffconcat", "list.mpd", "hidden.wav")],
    ("local.m3u8 as head", f"{PICTURE} --audio voice.wav --pose-from local.m3u8", "local.m3u8", {"also": BESIDE}),
    finding="V20",
    within_s=3.0,
)  # fmt: skip

CASES = [*GOOD, *LONG, *BAD, *PLAYLISTS]
