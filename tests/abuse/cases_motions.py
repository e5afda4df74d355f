"""Saved motions and motion templates: damaged, made to burst, holding code."""

from __future__ import annotations

from abuse.case import REAL, table
from abuse.motions import MOTIONS
from abuse.templates import BOMBS, CODE, NUMBERS

PICTURE = "--image face.png --output film.mp4"
GOOD_MOTIONS = ("said.npz", "no-gaze.npz", "more.npz", "half.npz", "double.npz", "big-endian.npz", "integers.npz")
NOT_SURE = ("large.npz", "long-header.npz", "long.npz", "overflow.npz")
V13 = ("overflow.npz", "nan-rotation.pkl", "infinite-rotation.pkl", "overflow-exp.pkl")


def _finding(name: str) -> str:
    return "V13" if name in V13 else "V2" if name in MOTIONS else "V6" if name.startswith("memo") else ""


GOOD = table(
    "motions",
    0,
    *[(name, f"{PICTURE} --motion {name}", "6 frames", {"frames": 6}) for name in GOOD_MOTIONS],
    ("with a voice", f"{PICTURE} --motion said.npz --audio voice.wav", "6 frames", {"frames": 6, "fast": True}),
    ("5000 frames", f"{PICTURE} --motion long.npz", "5000 frames", {"frames": 5000}),
    ("numbers too large for the picture", f"{PICTURE} --motion large.npz", "6 frames|large.npz", {"code": (0, 2)}),
)

BAD = table(
    "motions",
    2,
    *[
        (name, f"{PICTURE} --motion {name}", name.replace(".", r"\."),
         {"finding": _finding(name), "fast": None if name != "bomb.npz" else False})
        for name in MOTIONS
        if name not in (*GOOD_MOTIONS, *NOT_SURE, "space.npz")
    ],
    ("overflow.npz", f"{PICTURE} --motion overflow.npz", "overflow.npz", {"finding": "V13"}),
    ("a header of 2 MB", f"{PICTURE} --motion long-header.npz", "long-header.npz"),
    ("of another engine", f"{PICTURE} --motion space.npz", "liveportrait"),
    ("a missing one", f"{PICTURE} --motion none.npz", "none.npz.*[Nn]o such file"),
    ("a folder", f"{PICTURE} --motion .", "not a file|folder"),
    ("a picture", f"{PICTURE} --motion face.png", "face.png"),
    ("one more that is damaged, with a voice", f"{PICTURE} --audio voice.wav --motion crc.npz", "crc.npz",
     {"finding": "V2"}),
    within_s=3.0,
)  # fmt: skip

NUMBERS_TOO_LARGE = table(
    "motions",
    (0, 2),
    (
        "numbers too large, drawn",
        "--image hopper.jpg --output film.mp4 --motion large.npz",
        "6 frames|large.npz|motion",
    ),
    program=REAL,
)

QUICK = {*CODE, *BOMBS, *V13, "list.pkl", "cut.pkl", "fps-nan.pkl", "frames-more.pkl", "no-motion.pkl"}
GOOD_TEMPLATES = ("template.pkl", "template-0.pkl")
TEMPLATES = table(
    "templates",
    2,
    *[
        (name, f"{PICTURE} --engine liveportrait --motion {name}", name.replace(".", r"\."),
         {"finding": _finding(name), "also": ("said.npz",), "fast": None if name in QUICK else False})
        for name in (*CODE, *BOMBS, *NUMBERS)
        if name not in GOOD_TEMPLATES
    ],
    ("on the mesh", f"{PICTURE} --motion template.pkl", "choose --engine liveportrait"),
    ("without its networks", f"{PICTURE} --engine liveportrait --motion template.pkl", "weights get",
     {"program": REAL}),
    ("a missing one", f"{PICTURE} --engine liveportrait --motion none.pkl", "none.pkl.*[Nn]o such file"),
    within_s=3.0,
)  # fmt: skip

CASES = [*GOOD, *BAD, *NUMBERS_TOO_LARGE, *TEMPLATES]
