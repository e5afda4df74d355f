"""Standard streams that are closed, full, or that nobody reads."""

from __future__ import annotations

from abuse.case import FILM, PROCESS, REAL_FILM, TOY_PROCESS, table

BAD = f"{FILM} --fps 30"
NOWHERE = {"stdin": "closed", "stdout": "closed", "stderr": "closed"}

CODES = table(
    "stderr",
    2,
    ("closed", BAD, "", {"stderr": "closed"}),
    ("full", BAD, "", {"stderr": "full"}),
    ("nobody reads it", BAD, "", {"stderr": "broken"}),
    ("all closed", BAD, "", NOWHERE),
    ("all full", BAD, "", {"stdout": "full", "stderr": "full"}),
    ("a terminal", BAD, "--fps", {"stderr": "tty"}),
    ("closed, a missing picture", "--image none.png --audio voice.wav --output film.mp4", "", {"stderr": "closed"}),
    ("closed, real", f"{REAL_FILM} --fps 3", "", {"stderr": "closed", "program": PROCESS}),
    ("full, real", f"{REAL_FILM} --fps 3", "", {"stderr": "full", "program": PROCESS}),
    ("closed, weights", "weights get nothing", "", {"stderr": "closed"}),
    program=TOY_PROCESS,
    finding="V14",
)

FILMS = table(
    "stderr",
    0,
    ("closed, a film", FILM, "25 frames", {"stderr": "closed"}),
    ("full, a film", FILM, "25 frames", {"stderr": "full"}),
    ("nobody reads it, a film", FILM, "25 frames", {"stderr": "broken"}),
    ("all closed, a film", FILM, "", NOWHERE),
    ("all closed, a film, real", REAL_FILM, "", {**NOWHERE, "program": PROCESS}),
    ("a terminal, a film", FILM, "25 frames", {"stderr": "tty"}),
    ("all a terminal, a film", FILM, "25 frames", {"stdout": "tty", "stderr": "tty"}),
    program=TOY_PROCESS,
    finding="V14",
)

MADE = table(
    "stdout",
    0,
    ("closed", FILM, "", {"stdout": "closed"}),
    ("full", FILM, "", {"stdout": "full"}),
    ("nobody reads it", FILM, "", {"stdout": "broken"}),
    ("closed, real", REAL_FILM, "", {"stdout": "closed", "program": PROCESS}),
    ("full, real", REAL_FILM, "", {"stdout": "full", "program": PROCESS}),
    ("stdin closed", FILM, "25 frames", {"stdin": "closed"}),
    ("stdin full of zeros", FILM, "25 frames", {"stdin": "/dev/zero"}),
    ("stdin and stdout closed", FILM, "", {"stdin": "closed", "stdout": "closed"}),
    ("quiet and closed", f"{FILM} --quiet", "", {"stdout": "closed"}),
    ("help, closed", "--help", "", {"stdout": "closed"}),
    ("help, nobody reads it", "--help", "", {"stdout": "broken"}),
    ("version, closed", "--version", "", {"stdout": "closed"}),
    ("weights list, closed", "weights list", "", {"stdout": "closed"}),
    ("weights list, nobody reads it", "weights list", "", {"stdout": "broken"}),
    ("voices, closed", "--voices", "", {"stdout": "closed"}),
    ("voices, nobody reads them", "--voices", "", {"stdout": "broken"}),
    program=TOY_PROCESS,
    finding="V15",
)

LOST = table(
    "stdout",
    1,
    ("help, full", "--help", "space|full|written", {"stdout": "full"}),
    ("version, full", "--version", "space|full|written", {"stdout": "full"}),
    ("weights list, full", "weights list", "space|full|written", {"stdout": "full"}),
    ("weights verify, full", "weights verify", "space|full|written", {"stdout": "full"}),
    ("weights help, full", "weights --help", "space|full|written", {"stdout": "full"}),
    ("voices, full", "--voices", "space|full|written", {"stdout": "full"}),
    program=TOY_PROCESS,
    finding="V15",
)

CASES = [*CODES, *FILMS, *MADE, *LOST]
