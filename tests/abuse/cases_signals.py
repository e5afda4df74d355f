"""Ctrl-C and its kin, from the first moment to the last."""

from __future__ import annotations

from abuse.case import PROCESS, TOY_PROCESS, table
from abuse.places import killed_run

LONG = "--image face.png --audio long.wav --output film.mp4"
REAL_LONG = "--image hopper.jpg --audio long.wav --output film.mp4"
TIMES_S = (0.08, 0.1, 0.15, 0.2, 0.25, 0.35, 0.45, 0.6, 0.8, 1.1, 1.5, 3.0, 5.0)  # of the process's CPU


def _hand(times: int, gap_s: float, name: str = "INT") -> tuple:
    """The same signal again and again while the film is being written."""
    return (("part", 0.1, name), *[("later", gap_s, name)] * (times - 1))


EARLY = table(
    "Ctrl-C",
    130,
    *[(f"after {at:g} s of work", REAL_LONG, "interrupted", {"signals": (("cpu", at, "INT"),)}) for at in TIMES_S],
    ("at the first moment", REAL_LONG, "", {"signals": (("cpu", 0.035, "INT"),)}),
    ("help, after 0.1 s", "--help", "interrupted|--image",
     {"signals": (("cpu", 0.1, "INT"),), "code": (0, 130), "fast": True}),
    ("twice after 0.2 s", REAL_LONG, "interrupted", {"signals": (("cpu", 0.2, "INT"), ("later", 0.02, "INT"))}),
    ("five times after 1 s", REAL_LONG, "interrupted",
     {"signals": (("cpu", 1.0, "INT"), *[("later", 0.01, "INT")] * 4)}),
    ("weights get, after 0.3 s", "weights get KDTalker.pth --weights w", "interrupted",
     {"signals": (("cpu", 0.3, "INT"),), "env": {"HF_ENDPOINT": "{hub}/slow"}, "made": ("w",)}),
    program=PROCESS,
    finding="V16",
)  # fmt: skip

WRITING = table(
    "Ctrl-C",
    130,
    ("while writing", LONG, "interrupted", {"signals": _hand(1, 0), "fast": True}),
    ("while writing, with motion", f"{LONG} --save-motion said.npz", "interrupted", {"signals": _hand(1, 0)}),
    ("twice while writing", LONG, "interrupted", {"signals": _hand(2, 0.02)}),
    ("five times in 40 ms", LONG, "interrupted", {"signals": _hand(5, 0.01), "fast": True}),
    ("ten times in 40 ms", LONG, "interrupted", {"signals": _hand(10, 0.004)}),
    ("at once, five times", LONG, "interrupted", {"signals": _hand(5, 0)}),
    ("held down for a second", LONG, "interrupted", {"signals": _hand(30, 0.033)}),
    ("while writing, in a terminal", LONG, "interrupted", {"signals": _hand(1, 0), "stdout": "tty", "stderr": "tty"}),
    ("with stderr closed", LONG, "", {"signals": _hand(1, 0), "stderr": "closed"}),
    ("a film without end", "--image face.png --audio half-an-hour.flac --output film.mp4", "interrupted",
     {"signals": _hand(1, 0)}),
    program=TOY_PROCESS,
    finding="V17",
    also=("long.wav", "said.npz"),
)  # fmt: skip

WRITING_REAL = table(
    "Ctrl-C",
    130,
    ("while writing, real", REAL_LONG, "interrupted", {"signals": _hand(1, 0)}),
    ("five times in 40 ms, real", REAL_LONG, "interrupted", {"signals": _hand(5, 0.01)}),
    program=PROCESS,
    finding="V17",
)

TERMINATED = table(
    "signals",
    143,
    ("TERM while writing", LONG, "ended by SIGTERM", {"signals": _hand(1, 0, "TERM"), "fast": True}),
    ("TERM twice", LONG, "", {"signals": _hand(2, 0.01, "TERM")}),
    ("TERM, then Ctrl-C", LONG, "", {"signals": (("part", 0.1, "TERM"), ("later", 0.01, "INT"))}),
    ("TERM while writing, with motion", f"{LONG} --save-motion said.npz", "", {"signals": _hand(1, 0, "TERM")}),
    ("TERM while writing, real", REAL_LONG, "", {"signals": _hand(1, 0, "TERM"), "program": PROCESS}),
    (
        "TERM while it speaks",
        f"--image face.png --output film.mp4 --text '{'a long word ' * 150}'",
        "",
        {"signals": (("later", 0.9, "TERM"),), "code": (143, -15)},
    ),
    ("TERM after 0.1 s", REAL_LONG, "", {"signals": (("cpu", 0.1, "TERM"),), "code": (143, -15), "program": PROCESS}),
    ("TERM after 1 s", REAL_LONG, "", {"signals": (("cpu", 1.0, "TERM"),), "code": (143, -15), "program": PROCESS}),
    ("TERM after 4 s", REAL_LONG, "", {"signals": (("cpu", 4.0, "TERM"),), "code": (143, -15), "program": PROCESS}),
    program=TOY_PROCESS,
    finding="V18",
    also=("long.wav", "said.npz"),
)

QUIT = table(
    "signals",
    131,
    ("QUIT while writing", LONG, "ended by SIGQUIT", {"signals": _hand(1, 0, "QUIT"), "fast": True}),
    program=TOY_PROCESS,
    finding="V18",
    also=("long.wav",),
)

HUNG_UP = table(
    "signals",
    129,
    ("HUP while writing", LONG, "ended by SIGHUP", {"signals": _hand(1, 0, "HUP"), "fast": True}),
    ("HUP, the terminal gone", LONG, "", {"signals": _hand(1, 0, "HUP"), "stderr": "broken", "stdout": "broken"}),
    ("HUP, then TERM", LONG, "", {"signals": (("part", 0.1, "HUP"), ("later", 0.01, "TERM"))}),
    ("HUP while writing, real", REAL_LONG, "", {"signals": _hand(1, 0, "HUP"), "program": PROCESS}),
    program=TOY_PROCESS,
    finding="V18",
    also=("long.wav",),
)

SURVIVED = table(
    "signals",
    0,
    ("STOP and CONT", LONG, "3000 frames", {"signals": (("part", 0.1, "STOP"), ("later", 0.3, "CONT"))}),
    ("WINCH", LONG, "3000 frames", {"signals": _hand(3, 0.05, "WINCH"), "stderr": "tty"}),
    ("PIPE", LONG, "3000 frames", {"signals": _hand(1, 0, "PIPE")}),
    ("the next run after KILL", "--image face.png --audio voice.wav --output film.mp4", "25 frames",
     {"before": (killed_run,), "gone": (".kdtalker-*.part",), "fast": True}),
    program=TOY_PROCESS,
    finding="V18",
    also=("long.wav",),
)  # fmt: skip

CASES = [*EARLY, *WRITING, *WRITING_REAL, *TERMINATED, *QUIT, *HUNG_UP, *SURVIVED]
