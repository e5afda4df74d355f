"""Motion models of one's own: whatever a header or a tensor can say that cannot be."""

from __future__ import annotations

from abuse.case import REAL, REAL_FILM, table
from abuse.checkpoints import CHECKPOINTS

GOOD = ("model.safetensors", "card-list.safetensors", "card-null.safetensors")
NOT_SURE = ("large-weights.safetensors", "unknown-key.safetensors", "beta-nan.safetensors")
V8 = ("config-null", "config-list", "config-text", "config-number", "nan-weights", "inf-weights", "config-deep",
      "layers-huge", "window-huge", "dropout-nan", "steps-0", "encoder")  # fmt: skip
FAST = ("config-null", "nan-weights", "half")

BAD = table(
    "checkpoints",
    2,
    *[
        (name.partition(".")[0], f"{REAL_FILM} --checkpoint {name}", name.replace(".", r"\."),
         {"finding": "V8" if name.startswith(V8) else "", "fast": name.startswith(FAST)})
        for name in CHECKPOINTS
        if name not in (*GOOD, *NOT_SURE)
    ],
    ("missing", f"{REAL_FILM} --checkpoint none.safetensors", "none.safetensors.*[Nn]o such file"),
    ("a folder", f"{REAL_FILM} --checkpoint .", "not a file|folder"),
    ("a picture", f"{REAL_FILM} --checkpoint hopper.jpg", "hopper.jpg"),
    ("of the other engine", f"{REAL_FILM} --checkpoint model.safetensors --engine liveportrait", "weights get|space"),
    program=REAL,
    within_s=10.0,
)  # fmt: skip

FINE = table(
    "checkpoints",
    0,
    ("the one of the package", f"{REAL_FILM} --checkpoint model.safetensors", "5 frames", {"frames": 5}),
    program=REAL,
)

EITHER = table(
    "checkpoints",
    (0, 2),
    *[
        (name.partition(".")[0], f"{REAL_FILM} --checkpoint {name}", f"{name}|5 frames|motion model is damaged")
        for name in (*GOOD[1:], *NOT_SURE)
    ],
    program=REAL,
)

CASES = [*BAD, *FINE, *EITHER]
