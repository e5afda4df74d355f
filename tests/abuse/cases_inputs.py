"""Inputs that may not be read, that are no files, or whose names are not in UTF-8."""

from __future__ import annotations

from abuse.case import FILM, REAL, REAL_FILM, table
from abuse.places import copied, device, fifo, folder, link, mode, renamed, socket_file

PICTURE = "--image face.png --output film.mp4"
DENIED = "[Pp]ermission|may not be read|not readable"
NO_FILE = "not a (regular )?file|pipe|device|socket|folder"
BAD = "bad\udcff"

UNREADABLE = table(
    "unreadable",
    2,
    ("picture", FILM, f"face.png.*({DENIED})", {"before": (mode("face.png", 0),)}),
    ("sound", FILM, f"voice.wav.*({DENIED})", {"before": (mode("voice.wav", 0),)}),
    ("driving film", f"{PICTURE} --driving driving.mp4", f"driving.mp4.*({DENIED})",
     {"before": (mode("driving.mp4", 0),)}),
    ("film of the head", f"{FILM} --pose-from driving.mp4", f"driving.mp4.*({DENIED})",
     {"before": (mode("driving.mp4", 0),)}),
    ("motion", f"{PICTURE} --motion said.npz", f"said.npz.*({DENIED})", {"before": (mode("said.npz", 0),)}),
    ("template", f"{PICTURE} --engine liveportrait --motion template.pkl", f"template.pkl.*({DENIED})",
     {"before": (mode("template.pkl", 0),)}),
    ("background", f"{FILM} --background good.jpg", f"good.jpg.*({DENIED})", {"before": (mode("good.jpg", 0),)}),
    ("model", f"{REAL_FILM} --checkpoint model.safetensors", f"model.safetensors.*({DENIED})",
     {"before": (mode("model.safetensors", 0),), "program": REAL}),
    ("picture in a locked folder", "--image locked/a.png --audio voice.wav --output film.mp4",
     f"locked/a.png.*({DENIED})",
     {"before": (copied("face.png", "locked/a.png"), mode("locked", 0))}),
    ("sound in a locked folder", "--image face.png --audio locked/a.wav --output film.mp4", f"locked/a.wav.*({DENIED})",
     {"before": (copied("voice.wav", "locked/a.wav"), mode("locked", 0))}),
    ("background in a locked folder", f"{FILM} --background locked/b.png", f"locked/b.png.*({DENIED})",
     {"before": (copied("face.png", "locked/b.png"), mode("locked", 0)), "finding": "V1"}),
    ("weights in a locked folder", f"{FILM} --engine liveportrait --weights locked/w",
     f"locked/w.*({DENIED}|no folder)",
     {"before": (folder("locked/w"), mode("locked", 0)), "finding": "V1"}),
    user="plain",
    finding="V12",
    within_s=3.0,
)  # fmt: skip

NO_FILES = table(
    "no files",
    2,
    ("picture: a folder", "--image . --audio voice.wav --output film.mp4", NO_FILE),
    ("picture: a pipe", FILM, NO_FILE, {"before": (fifo("face.png"),)}),
    ("picture: a socket", FILM, NO_FILE, {"before": (socket_file("face.png"),)}),
    ("picture: endless zeros", FILM, NO_FILE, {"before": (device("face.png", 1, 5),)}),
    ("picture: a dangling link", FILM, "face.png.*[Nn]o such file", {"before": (link("face.png", "nowhere.png"),)}),
    ("picture: a loop of links", FILM, "face.png", {"before": (link("face.png", "face.png"),)}),
    ("sound: a folder", "--image face.png --audio . --output film.mp4", NO_FILE),
    ("sound: a pipe", FILM, NO_FILE, {"before": (fifo("voice.wav"),)}),
    ("sound: endless zeros", FILM, NO_FILE, {"before": (device("voice.wav", 1, 5),)}),
    ("sound: nothing ever", FILM, NO_FILE, {"before": (device("voice.wav", 1, 3),)}),
    ("driving: a pipe", f"{PICTURE} --driving driving.mp4", NO_FILE, {"before": (fifo("driving.mp4"),)}),
    ("motion: a pipe", f"{PICTURE} --motion said.npz", NO_FILE, {"before": (fifo("said.npz"),)}),
    ("template: endless zeros", f"{PICTURE} --engine liveportrait --motion template.pkl", NO_FILE,
     {"before": (device("template.pkl", 1, 5),)}),
    ("background: a pipe", f"{FILM} --background good.jpg", NO_FILE, {"before": (fifo("good.jpg"),)}),
    ("background: endless zeros", f"{FILM} --background good.jpg", NO_FILE, {"before": (device("good.jpg", 1, 5),)}),
    ("model: a pipe", f"{FILM} --checkpoint model.safetensors", NO_FILE, {"before": (fifo("model.safetensors"),)}),
    ("weights: a file", f"{FILM} --engine liveportrait --weights face.png", "face.png"),
    ("the memory of a process", "--image face.png --audio /proc/self/mem --output film.mp4", "/proc/self/mem"),
    within_s=3.0,
)  # fmt: skip

NAMES = table(
    "input names",
    2,
    ("a picture of two lines", ["--image", "two\nlines.png", "--audio", "voice.wav", "--output", "film.mp4"],
     "two.lines"),
    ("a name that colours the terminal", ["--image", "\x1b[31mred.png", "--audio", "voice.wav", "--output", "film.mp4"],
     r"red\.png.*No such file"),
    ("a missing sound not in UTF-8", f"--image face.png --audio {BAD}.wav --output film.mp4", "[Nn]o such file"),
    ("a broken picture not in UTF-8", f"--image {BAD}.png --audio voice.wav --output film.mp4", "bad",
     {"also": ("text.png",), "before": (renamed("text.png", f"{BAD}.png"),)}),
    ("a broken sound not in UTF-8", f"--image face.png --audio {BAD}.txt --output film.mp4", "bad",
     {"also": ("text.wav",), "before": (renamed("text.wav", f"{BAD}.txt"),)}),
    ("a broken film not in UTF-8", f"{PICTURE} --driving {BAD}.mp4", "bad",
     {"also": ("text.mp4",), "before": (renamed("text.mp4", f"{BAD}.mp4"),)}),
    ("a broken motion not in UTF-8", f"{PICTURE} --motion {BAD}.npz", "bad",
     {"also": ("text.npz",), "before": (renamed("text.npz", f"{BAD}.npz"),)}),
    ("a broken background not in UTF-8", f"{FILM} --background {BAD}.png", "bad",
     {"also": ("text.png",), "before": (renamed("text.png", f"{BAD}.png"),)}),
    ("a model not in UTF-8", f"{REAL_FILM} --checkpoint {BAD}.safetensors", "UTF-8.*rename", {
        "also": ("model.safetensors",), "before": (renamed("model.safetensors", f"{BAD}.safetensors"),),
        "program": REAL}),
    finding="V7",
    within_s=3.0,
)  # fmt: skip

GOOD_NAMES = table(
    "input names",
    0,
    ("a picture not in UTF-8", f"--image {BAD}.png --audio voice.wav --output film.mp4", "25 frames",
     {"before": (renamed("face.png", f"{BAD}.png"),), "fast": True}),
    ("a sound not in UTF-8", f"--image face.png --audio {BAD}.wav --output film.mp4", "25 frames",
     {"before": (renamed("voice.wav", f"{BAD}.wav"),), "fast": True}),
    ("a driving film not in UTF-8", f"{PICTURE} --driving {BAD}.mp4", "10 frames",
     {"also": ("driving.mp4",), "before": (renamed("driving.mp4", f"{BAD}.mp4"),), "fast": True}),
    ("a head not in UTF-8", f"{FILM} --pose-from {BAD}.mp4", "25 frames",
     {"also": ("driving.mp4",), "before": (renamed("driving.mp4", f"{BAD}.mp4"),)}),
    ("a motion not in UTF-8", f"{PICTURE} --motion {BAD}.npz", "6 frames",
     {"also": ("said.npz",), "before": (renamed("said.npz", f"{BAD}.npz"),)}),
    ("a background not in UTF-8", f"{FILM} --background {BAD}.png", "25 frames",
     {"also": ("good.webp",), "before": (renamed("good.webp", f"{BAD}.png"),)}),
    ("a picture of spaces and quotes", ["--image", " '\" .png", "--audio", "voice.wav", "--output", "film.mp4"],
     "25 frames", {"before": (renamed("face.png", " '\" .png"),)}),
    ("a sound like an option", ["--image", "face.png", "--audio=-i.wav", "--output", "film.mp4"], "25 frames",
     {"before": (renamed("voice.wav", "-i.wav"),)}),
    ("a sound like a protocol", ["--image", "face.png", "--audio", "http:voice.wav", "--output", "film.mp4"],
     "25 frames", {"before": (renamed("voice.wav", "http:voice.wav"),)}),
    ("a film like a pattern", ["--image", "face.png", "--driving", "%d.mp4", "--output", "film.mp4"], "10 frames",
     {"also": ("driving.mp4",), "before": (renamed("driving.mp4", "%d.mp4"),)}),
    finding="V7",
)  # fmt: skip

CASES = [*UNREADABLE, *NO_FILES, *NAMES, *GOOD_NAMES]
