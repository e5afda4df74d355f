"""Driving films, and films whose head the portrait takes."""

from __future__ import annotations

from abuse.case import REAL, table

PICTURE = "--image face.png --output film.mp4"
HOPPER = "--image hopper.jpg --output film.mp4"


def _driven(*names: str, frames: object = 10, **fields: object) -> list:
    return [(name, f"{PICTURE} --driving {name}", "", {"frames": frames, **fields}) for name in names]


GOOD = table(
    "driving",
    0,
    *_driven("driving.mp4", "driving.mkv", "driving.webm", "clear.webm", "driving.mov", "driving.avi", "driving.ts"),
    *_driven("driving.gif", "10-bit.mp4", "hevc.mp4", "av1.mp4", "lossless.mkv", "odd.mp4", "variable.mkv"),
    *_driven("interlaced.mp4", "anamorphic.mp4", "rotated.mp4", frames=(9, 11)),
    *_driven("240-fps.mp4", frames=(9, 11)),
    *_driven("4k.mp4", "2x2.mp4", frames=5),
    *_driven("1-fps.mp4", frames=(74, 76)),
    *_driven("23.976-fps.mp4", frames=(12, 13)),
    *_driven("1-frame.mp4", frames=1),
    *_driven("offset.mkv", frames=(9, 11)),
    *_driven("spoken.mp4", frames=25),
    *_driven("cut-off.mp4", "cut-off.mkv", "cut-off.ts", frames=(10, 45)),
    ("an animated picture", f"{PICTURE} --driving animated.gif", "", {"frames": (1, 40)}),
    (
        "the head of a film",
        f"{PICTURE} --audio voice.wav --pose-from driving.mp4",
        "25 frames",
        {"frames": 25, "fast": True},
    ),
    ("the head of one frame", f"{PICTURE} --audio voice.wav --pose-from 1-frame.mp4", "25 frames", {"frames": 25}),
    ("head and sound of one film", f"{PICTURE} --audio spoken.mp4 --pose-from spoken.mp4", "2[5-7] frames"),
)

BAD = table(
    "driving",
    2,
    *[
        (name, f"{PICTURE} --driving {name}", name.replace(".", r"\."))
        for name in (
            "sound-only.mp4", "cover-art.mp3", "face.png", "good.jpg", "no-index.mp4", "head.mp4", "text.mp4",
            "empty.mp4", "voice.wav", "said.npz", "zip.mp3",
        )
    ],
    ("a missing one", f"{PICTURE} --driving none.mp4", "none.mp4.*[Nn]o such file"),
    ("a folder", f"{PICTURE} --driving .", "not a file|folder"),
    ("a pattern of pictures", f"{PICTURE} --driving %02d.png", "%02d.png"),
    ("a head from text", f"{PICTURE} --audio voice.wav --pose-from text.mp4", "text.mp4"),
    ("a head from sound", f"{PICTURE} --audio voice.wav --pose-from sound-only.mp4", "sound-only.mp4"),
    ("a head from a cut film", f"{PICTURE} --audio voice.wav --pose-from no-index.mp4", "no-index.mp4"),
    within_s=3.0,
)  # fmt: skip

FACES = table(
    "driving",
    0,
    ("a face", f"{HOPPER} --driving faces.mp4", "6 frames", {"frames": 6}),
    ("lost after three", f"{HOPPER} --driving face-lost.mp4", "kdtalker: note: .*3 ", {"frames": 6}),
    ("once only", f"{HOPPER} --driving face-once.mp4", "kdtalker: note: .*5 ", {"frames": 6}),
    ("late", f"{HOPPER} --driving face-late.mp4", "6 frames", {"frames": 6}),
    ("the head of a face", f"{HOPPER} --audio word.wav --pose-from faces.mp4", "5 frames", {"frames": 5}),
    program=REAL,
)

NO_FACES = table(
    "driving",
    2,
    ("none", f"{HOPPER} --driving no-face.mp4", "no-face.mp4|[Nn]o face"),
    ("none for the head", f"{HOPPER} --audio word.wav --pose-from no-face.mp4", "no-face.mp4|[Nn]o face"),
    program=REAL,
)

CASES = [*GOOD, *BAD, *FACES, *NO_FACES]
