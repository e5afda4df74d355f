"""A machine that is full, small or set up strangely: disks, memory, open files, environment."""

from __future__ import annotations

import sys

from abuse.case import FILM, PROCESS, REAL, REAL_FILM, TOY_PROCESS, table
from abuse.places import file, folder, half_an_ffmpeg, renamed, small_disk

INPUT = "--image face.png --audio voice.wav"
MEMORY = "[Mm]emory"
FILES = "open files|files are open|file handles|descriptors"
NO_SPACE = "[Nn]o space|room|too large"
BIG = "--image large.png --audio voice.wav"

DISKS = table(
    "disk full",
    1,
    *[
        (f"{ending} on a small disk", f"{BIG} --output disk/film{ending}", f"film{ending}.*({NO_SPACE})",
         {"before": (small_disk("disk", 100_000), file(f"disk/film{ending}"))})
        for ending in (".mp4", ".mov", ".webm", ".gif")
    ],
    ("not even a name fits", f"{INPUT} --output disk/film.mp4", "film.mp4",
     {"before": (small_disk("disk", 4096), file("disk/filler", bytes(4096))), "fast": True}),
    ("a limit on file size", f"{BIG} --output film.mp4", "film.mp4", {"limits": {"FSIZE": 20_000}, "fast": True}),
    ("a limit on file size, with motion", f"{BIG} --output film.mp4 --save-motion said.npz", "film.mp4|said.npz",
     {"limits": {"FSIZE": 20_000}}),
)  # fmt: skip

LIMITS = table(
    "memory",
    1,
    ("12 open files", FILM, FILES, {"limits": {"NOFILE": 12}, "program": TOY_PROCESS, "fast": True}),
    ("6 open files", FILM, FILES, {"limits": {"NOFILE": 6}, "program": TOY_PROCESS}),
    ("12 open files, real", REAL_FILM, FILES, {"limits": {"NOFILE": 12}, "program": PROCESS}),
    ("6 open files, real", REAL_FILM, FILES, {"limits": {"NOFILE": 6}, "program": PROCESS}),
    ("300 MB of addresses", REAL_FILM, MEMORY, {"limits": {"AS": 300_000 << 10}, "program": PROCESS}),
    ("400 MB of addresses", REAL_FILM, MEMORY, {"limits": {"AS": 400_000 << 10}, "program": PROCESS, "fast": True}),
    ("700 MB of addresses", REAL_FILM, MEMORY, {"limits": {"AS": 700_000 << 10}, "program": PROCESS}),
    ("1 GB of addresses", REAL_FILM, MEMORY, {"limits": {"AS": 1_000_000 << 10}, "program": PROCESS}),
    ("88 megapixels in 700 MB", "--image blank-88-megapixels.png --audio word.wav --output film.mp4", MEMORY,
     {"limits": {"AS": 700_000 << 10}, "program": PROCESS}),
    finding="V10",
)  # fmt: skip

ENOUGH = table(
    "memory",
    (0, 1),
    ("2 GB of addresses", REAL_FILM, f"5 frames|{MEMORY}", {"limits": {"AS": 2_000_000 << 10}, "program": PROCESS}),
    ("20 open files", FILM, f"25 frames|{FILES}", {"limits": {"NOFILE": 20}, "program": TOY_PROCESS}),
    ("no further process", FILM, "25 frames|process|[Rr]esource", {"limits": {"NPROC": 1}, "program": TOY_PROCESS}),
    finding="V10",
)

FFMPEG = table(
    "ffmpeg",
    1,
    ("one that is not there", FILM, "/nope", {"env": {"IMAGEIO_FFMPEG_EXE": "/nope"}, "fast": True}),
    ("one that fails", FILM, "/bin/false|ffmpeg", {"env": {"IMAGEIO_FFMPEG_EXE": "/bin/false"}, "fast": True}),
    ("one that says nothing", FILM, "/bin/true|ffmpeg", {"env": {"IMAGEIO_FFMPEG_EXE": "/bin/true"}}),
    ("a folder", FILM, "ffmpeg|{folder}", {"env": {"IMAGEIO_FFMPEG_EXE": "{folder}"}}),
    ("a text", FILM, "ffmpeg|voice.wav", {"env": {"IMAGEIO_FFMPEG_EXE": "{folder}/voice.wav"}}),
    ("another program", FILM, "ffmpeg", {"env": {"IMAGEIO_FFMPEG_EXE": sys.executable}}),
    ("one that is not there, for a film",
     "--image face.png --driving driving.mp4 --output film.mp4", "/nope", {"env": {"IMAGEIO_FFMPEG_EXE": "/nope"}}),
    ("one that gives up while writing", FILM, "film.mp4", {
        "env": {"IMAGEIO_FFMPEG_EXE": "{folder}/half"}, "before": (half_an_ffmpeg("half"),), "fast": True}),
    finding="V10",
)  # fmt: skip

ENVIRONMENT = table(
    "environment",
    0,
    ("no HOME", FILM, "25 frames", {"env": {"HOME": None}, "fast": True}),
    ("no HOME, a fresh interpreter", FILM, "25 frames", {"env": {"HOME": None}, "program": TOY_PROCESS}),
    ("HOME is not there", REAL_FILM, "5 frames", {"env": {"HOME": "/nonexistent"}, "program": PROCESS}),
    ("HOME is a file", FILM, "25 frames", {"env": {"HOME": "{folder}/voice.wav"}, "program": TOY_PROCESS}),
    ("PATH is empty", REAL_FILM, "5 frames", {"env": {"PATH": ""}, "program": PROCESS}),
    ("TMPDIR is not there", REAL_FILM, "5 frames", {"env": {"TMPDIR": "/nonexistent"}, "program": PROCESS}),
    ("TMPDIR is locked", FILM, "25 frames", {
        "env": {"TMPDIR": "{folder}/locked"}, "before": (folder("locked", 0o000),), "user": "plain",
        "program": TOY_PROCESS}),
    ("C locale", FILM, "25 frames", {"env": {"LANG": "C", "LC_ALL": "C"}, "program": TOY_PROCESS}),
    ("C locale and no UTF-8", "--image фото.png --audio voice.wav --output фильм.mp4", "25 frames", {
        "env": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "program": TOY_PROCESS,
        "before": (renamed("face.png", "фото.png"),)}),
    ("stdout in ASCII", "--image face.png --audio voice.wav --output фильм.mp4", "25 frames", {
        "env": {"PYTHONIOENCODING": "ascii"}, "program": TOY_PROCESS}),
    ("-O", REAL_FILM, "5 frames", {"python": ("-O",), "program": PROCESS, "within_s": 60.0}),
    ("-OO", FILM, "25 frames", {"python": ("-OO",), "program": TOY_PROCESS}),
    ("numbers of threads that are none", REAL_FILM, "5 frames", {
        "env": {"OMP_NUM_THREADS": "none", "MKL_NUM_THREADS": "0"}, "program": PROCESS}),
    ("no terminal size", FILM, "25 frames", {"env": {"COLUMNS": "0", "LINES": "-1"}, "stderr": "tty"}),
    ("a mask that takes all", FILM, "25 frames", {"umask": 0o077, "user": "plain"}),
    ("weights in a file", FILM, "25 frames", {"env": {"KDTALKER_WEIGHTS": "{folder}/voice.wav"}}),
    ("two films in one folder", FILM, "25 frames", {
        "beside": "long.mp4", "also": ("long.wav",), "made": ("film.mp4", "long.mp4"), "finding": "V18"}),
    ("two runs for one film", FILM, "25 frames", {"beside": "film.mp4", "also": ("long.wav",)}),
    ("-W error", REAL_FILM, "5 frames", {"python": ("-W", "error"), "program": PROCESS, "finding": "V19"}),
    ("-W error, help", "--help", "--image",
     {"python": ("-W", "error"), "program": PROCESS, "finding": "V19", "fast": True}),
    ("-W error, the weights", "weights list", "norm.npz",
     {"python": ("-W", "error"), "program": PROCESS, "finding": "V19"}),
    ("-W error, a driving film", "--image hopper.jpg --driving faces.mp4 --output film.mp4", "6 frames",
     {"python": ("-W", "error"), "program": PROCESS, "finding": "V19"}),
)  # fmt: skip

ODD = table(
    "environment",
    2,
    ("-W error, a bad call", f"{REAL_FILM} --fps 3", "--fps", {"python": ("-W", "error"), "program": PROCESS,
     "finding": "V19", "fast": True}),
    ("-W error, a broken picture", "--image cut.jpg --audio word.wav --output film.mp4", "cut.jpg",
     {"python": ("-W", "error"), "program": PROCESS, "finding": "V19"}),
    ("a traceback is wanted", f"{FILM} --fps 30", "--fps", {
        "env": {"KDTALKER_DEBUG": "1"}, "debug": True, "program": TOY_PROCESS, "fast": True}),
    ("a device that is none", f"{REAL_FILM} --engine liveportrait --device tpu", "tpu|weights get", {"program": REAL}),
    ("no graphics card, or no weights", f"{REAL_FILM} --engine liveportrait --device cuda", "cuda|weights get",
     {"program": REAL}),
    ("no weights", f"{REAL_FILM} --engine liveportrait", "weights get", {"program": REAL}),
    ("half of the weights", f"{REAL_FILM} --engine liveportrait --weights w", "weights get", {
        "before": (file("w/norm.npz"),), "program": REAL}),
)  # fmt: skip

GONE = table(
    "environment",
    (0, 1, 2),
    ("the folder it runs in is gone", "--image {folder}/face.png --audio {folder}/voice.wav --output {folder}/film.mp4",
     "frames|folder|directory", {"cwd": "gone", "program": TOY_PROCESS, "made": ("film.mp4",), "fast": True}),
    ("the folder is gone, paths are relative", FILM, "face.png|folder|directory",
     {"cwd": "gone", "program": TOY_PROCESS}),
    ("a mask that takes everything", FILM, "film.mp4", {"umask": 0o777, "user": "plain"}),
)  # fmt: skip

NEWCOMER = table(
    "newcomer",
    2,
    ("no folder for results", f"{INPUT} --output results/demo.mp4", "'results'"),
    ("no names at all, real", "", "--image", {"program": PROCESS}),
    ("weights, no names", "weights", "action|list", {"program": PROCESS}),
    within_s=5.0,
)

BARE = table(
    "newcomer",
    1,
    ("without its packages", REAL_FILM, "numpy|pip install|package", {"python": ("-S",), "program": PROCESS}),
    (
        "without its packages, help",
        "--help",
        "numpy|pip install|package",
        {"python": ("-S",), "program": PROCESS, "fast": True},
    ),
    within_s=3.0,
)

CASES = [*DISKS, *LIMITS, *ENOUGH, *FFMPEG, *ENVIRONMENT, *ODD, *GONE, *NEWCOMER, *BARE]
