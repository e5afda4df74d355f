"""Pictures and faces: what no eye and no decoder expects."""

from __future__ import annotations

from abuse.case import FILM, PROCESS, REAL, REAL_FILM, table

SOUND = "--audio voice.wav --output film.mp4"
WORD = "--audio word.wav --output film.mp4"
HOPPER = (256, 300)


def _films(*names: str) -> list:
    return [(name, f"--image {name} {SOUND}", "25 frames", {"frames": 25}) for name in names]


GOOD = table(
    "pictures",
    0,
    *_films("good.jpg", "good.webp", "good.avif", "good.bmp", "good.tiff", "good.gif", "good.ppm", "good.tga"),
    *_films("good.jp2", "good.ico", "cmyk.jpg", "progressive.jpg", "palette.png", "palette-clear.png", "bilevel.png"),
    *_films("grey-alpha.png", "16-bit.png", "animated.gif", "animated.webp", "lab.tiff", "jpeg.png", "odd.png"),
    *_films("exif-9.jpg"),
)

BAD = table(
    "pictures",
    2,
    *[
        (name, f"--image {name} {SOUND}", name)
        for name in (
            "cut.jpg", "cut.png", "cut.webp", "cut.avif", "cut.gif", "cut.tiff", "cut.bmp", "head.jpg", "head.png",
            "crc.png", "empty.png", "svg.png", "drawing.svg", "zip.png", "html.jpg", "random.jpg", "text.png",
            "nulls.png", "nothing.png", "negative.png", "loop.tiff", "voice.wav", "driving.mp4",
        )
    ],
    ("bomb.png", f"--image bomb.png {SOUND}", "megapixels"),
    ("nan.tiff", f"--image nan.tiff {SOUND}", "nan.tiff|25 frames", {"code": (0, 2)}),
    ("inf.tiff", f"--image inf.tiff {SOUND}", "inf.tiff|25 frames", {"code": (0, 2)}),
    ("a missing one", f"--image none.png {SOUND}", "none.png.*[Nn]o such file"),
    within_s=3.0,
)  # fmt: skip

EXTREME = table(
    "extreme pictures",
    2,
    ("100000 x 1", f"--image wide.png {WORD}", "100000 x 1|wide.png|[Nn]o face|too small", {"fast": True}),
    ("1 x 100000", f"--image tall.png {WORD}", "1 x 100000|tall.png|[Nn]o face|too small"),
    ("100000 x 1 behind", f"{REAL_FILM} --background wide.png", "100000 x 1|wide.png", {"fast": True}),
    ("1 x 100000 behind", f"{REAL_FILM} --background tall.png", "1 x 100000|tall.png"),
    ("3000 x 2", f"--image line.png {WORD}", "3000 x 2|line.png|[Nn]o face|too small"),
    ("1 x 1", f"--image 1x1.png {WORD}", "1x1.png|[Nn]o face|too small"),
    ("a comment of 70 MB", f"--image long-comment.png {WORD}", "long-comment.png|[Nn]o face", {"finding": ""}),
    ("88 megapixels of nothing", f"--image blank-88-megapixels.png {WORD}", "[Nn]o face", {"finding": ""}),
    program=REAL,
    finding="V3",
)

NO_FACES = table(
    "faces",
    2,
    ("white", f"--image white.png {WORD}", "[Nn]o face", {"fast": True}),
    ("noise", f"--image noise.png {WORD}", "[Nn]o face"),
    ("a landscape", f"--image landscape.jpg {WORD}", "[Nn]o face"),
    ("transparent all over", f"--image clear.png {WORD}", "[Nn]o face"),
    ("a tiny face", f"--image tiny.jpg {WORD}", "too small|[Nn]o face"),
    ("eyes and brow masked", f"--image masked.jpg {WORD}", "[Nn]o face"),
    ("a third face of two", f"--image two.jpg {WORD} --face 2", "[Ff]ace 2"),
    ("a box beside the faces", f"--image two.jpg {WORD} --box 0,290,20,20", "no face in the box"),
    ("a box beyond the picture", f"--image hopper.jpg {WORD} --box 5000,5000,9,9", "no face in the box"),
    (
        "a picture of no face for the page",
        f"--image noise.png {WORD} --engine mesh",
        "[Nn]o face",
        {"program": PROCESS},
    ),
    program=REAL,
)

FACES = table(
    "faces",
    0,
    *[(f"EXIF {n}", f"--image exif-{n}.jpg {WORD}", "5 frames", {"frames": 5, "size": HOPPER}) for n in range(1, 9)],
    ("the larger of two", f"--image two.jpg {WORD} --face 0", "5 frames"),
    ("the smaller of two", f"--image two.jpg {WORD} --face 1", "5 frames"),
    ("the one in a box", f"--image two.jpg {WORD} --box 340,150,80,80", "5 frames"),
    ("sideways", f"--image sideways.jpg {WORD}", "5 frames", {"size": HOPPER[::-1]}),
    ("upside down", f"--image upside-down.jpg {WORD}", "5 frames"),
    ("before a colour", f"{REAL_FILM} --background teal", "5 frames"),
    ("before another picture", f"{REAL_FILM} --background landscape.jpg", "5 frames"),
    ("before itself", f"{REAL_FILM} --background hopper.jpg", "5 frames"),
    ("before one pixel", f"{REAL_FILM} --background 1x1.png", "5 frames"),
    ("cropped", f"{REAL_FILM} --crop", "5 frames", {"size": (512, 512)}),
    program=REAL,
)

BACKGROUNDS = table(
    "backgrounds",
    2,
    ("a missing one", f"{FILM} --background missing.jpg", "missing.jpg.*[Nn]o such file", {"finding": "V12"}),
    ("missing in a missing folder", f"{FILM} --background no/b.png", "no/b.png.*[Nn]o such file", {"finding": "V12"}),
    ("a folder", f"{FILM} --background .", "folder|not a file"),
    ("cut", f"{FILM} --background cut.jpg", "cut.jpg"),
    ("text", f"{FILM} --background text.png", "text.png"),
    ("a film", f"{FILM} --background driving.mp4", "driving.mp4"),
    ("nothing", [*FILM.split(), "--background", ""], "."),
    ("as output", "--image face.png --audio voice.wav --background good.webp --output good.webp", "good.webp"),
    within_s=3.0,
)

CASES = [*GOOD, *BAD, *EXTREME, *NO_FACES, *FACES, *BACKGROUNDS]
