"""Where films and motions go: names, links, pipes, devices, and what must not be replaced."""

from __future__ import annotations

from abuse.case import FILM, TOY_PROCESS, table
from abuse.places import (
    copied,
    device,
    fifo,
    file,
    folder,
    hard_link,
    link,
    mode,
    removed,
    small_disk,
    socket_file,
)

INPUT = "--image face.png --audio voice.wav"
NO_FILE = "not a (regular )?file|pipe|device|socket|folder"


def _to(name: str) -> list[str]:
    return [*INPUT.split(), "--output", name]


NAMES = table(
    "names",
    0,
    *[
        (name, _to(name), "25 frames", {"frames": 25})
        for name in (
            "with space.mp4", 'it\'s "quoted".mp4', "肖像 портрет 😀.mp4", "two\nlines.mp4", "%d.mp4",
            "%03d-frames.mp4", "semi;colon&and|more$(touch ran)`touch ran`.mp4", "back\\slash.mp4", "*.mp4",
            "file:film.mp4", "a:b.mp4", ".hidden.mp4", "..mp4.mp4", "x.png.mp4", "tab\there.mp4", "\x1b[31mred.mp4",
            "film.MP4", "pipe:1.mp4",
        )
    ],
    ("a dash first", [*INPUT.split(), "--output=-dash.mp4"], "25 frames", {"made": ("-dash.mp4",)}),
    ("251 letters and .mp4", _to("x" * 251 + ".mp4"), "25 frames", {"frames": 25, "finding": "V1", "fast": True}),
    ("not in UTF-8", _to("bad\udcff.mp4"), "25 frames", {"finding": "V7", "fast": True}),
    ("a folder not in UTF-8", _to("bad\udcff/film.mp4"), "25 frames",
     {"before": (folder("bad\udcff"),), "finding": "V7"}),
    ("a path with ..", _to("sub/../new.mp4"), "25 frames", {"before": (folder("sub"),), "made": ("new.mp4",)}),
    ("an absolute path", _to("{folder}/new.mp4"), "25 frames", {"made": ("new.mp4",)}),
    ("a dash in another folder", _to("../-dash.mp4"), "25 frames", {"cwd": "sub", "before": (
        folder("sub"), copied("face.png", "sub/face.png"), copied("voice.wav", "sub/voice.wav")),
        "made": ("-dash.mp4",)}),
)  # fmt: skip

LINKS = table(
    "links",
    0,
    ("to a film", FILM, "25 frames",
     {"before": (file("old.mp4"), link("film.mp4", "old.mp4")), "made": ("old.mp4",), "fast": True}),
    ("to a film elsewhere", FILM, "25 frames", {
        "before": (file("sub/old.mp4"), link("film.mp4", "{folder}/sub/old.mp4")), "made": ("sub/old.mp4",)}),
    ("to a link to a film", FILM, "25 frames", {
        "before": (file("old.mp4"), link("b.mp4", "old.mp4"), link("film.mp4", "b.mp4")), "made": ("old.mp4",)}),
    ("to nothing yet", FILM, "25 frames",
     {"before": (link("film.mp4", "new.mp4"),), "made": ("new.mp4",), "fast": True}),
    ("a folder that is a link", _to("way/new.mp4"), "25 frames", {
        "before": (folder("sub"), link("way", "sub")), "made": ("sub/new.mp4",)}),
    ("motion to a motion", f"{FILM} --save-motion new.npz", "25 frames", {
        "before": (file("old.npz"), link("new.npz", "old.npz")), "made": ("film.mp4", "old.npz"), "fast": True}),
    ("inputs that are links", "--image a.png --audio b.wav --output film.mp4", "25 frames", {
        "before": (link("a.png", "face.png"), link("b.wav", "voice.wav"))}),
    finding="V9",
)  # fmt: skip

REFUSED = table(
    "outputs",
    2,
    ("no ending", _to("film"), "film"),
    (".avi", _to("film.avi"), "film.avi"),
    (".mkv", _to("film.mkv"), "film.mkv"),
    (".npz", _to("film.npz"), "film.npz"),
    ("only an ending", _to(".mp4"), "mp4"),
    ("a missing folder", _to("no/film.mp4"), "'no'"),
    ("a file as folder", _to("voice.wav/film.mp4"), "voice.wav"),
    ("a folder", _to("sub.mp4"), "sub.mp4.*folder|folder.*sub.mp4", {"before": (folder("sub.mp4"),)}),
    ("a link to a folder", FILM, "folder", {"before": (folder("sub"), link("film.mp4", "sub"))}),
    ("a link to itself", FILM, "film.mp4", {"before": (link("film.mp4", "film.mp4"),)}),
    ("a loop of links", FILM, "film.mp4", {"before": (link("film.mp4", "b.mp4"), link("b.mp4", "film.mp4"))}),
    ("a link into a missing folder", FILM, "film.mp4|'no'|/no'", {"before": (link("film.mp4", "no/new.mp4"),)}),
    ("a pipe", FILM, NO_FILE, {"before": (fifo("film.mp4"),), "finding": "V9"}),
    ("a socket", FILM, NO_FILE, {"before": (socket_file("film.mp4"),)}),
    ("a device: null", FILM, NO_FILE, {"before": (device("film.mp4", 1, 3),)}),
    ("a device: full", FILM, NO_FILE, {"before": (device("film.mp4", 1, 7),)}),
    ("a link to a pipe", FILM, NO_FILE, {"before": (fifo("p"), link("film.mp4", "p")), "finding": "V9"}),
    ("a link to a device", FILM, NO_FILE, {"before": (device("n", 1, 3), link("film.mp4", "n"))}),
    ("/dev/null", _to("/dev/null"), "/dev/null", {"user": "nobody"}),
    ("/dev/full", _to("/dev/full"), "/dev/full", {"user": "nobody"}),
    ("/dev/stdout", _to("/dev/stdout"), "/dev/stdout", {"user": "nobody", "code": (1, 2)}),
    finding="V5",
    within_s=3.0,
)  # fmt: skip

INPUTS = table(
    "inputs as outputs",
    2,
    ("the picture", _to("face.png"), "face.png"),
    ("the sound, by another name", _to("sub/../voice.wav"), "voice.wav", {"before": (folder("sub"),)}),
    ("a hard link to the sound", "--image face.png --audio spoken.mp4 --output film.mp4", "film.mp4|spoken.mp4",
     {"before": (hard_link("film.mp4", "spoken.mp4"),)}),
    ("a link to the sound", "--image face.png --audio spoken.mp4 --output film.mp4", "film.mp4|spoken.mp4",
     {"before": (link("film.mp4", "spoken.mp4"),)}),
    ("the driving film", "--image face.png --driving driving.mp4 --output driving.mp4", "driving.mp4"),
    ("the head's film", f"{INPUT} --pose-from driving.mp4 --output driving.mp4", "driving.mp4"),
    ("the background", f"{INPUT} --background animated.gif --output animated.gif", "animated.gif"),
    ("motion over its motion", "--image face.png --motion said.npz --output film.mp4 --save-motion said.npz",
     "said.npz"),
    ("motion over the background", f"{FILM} --background b.npz --save-motion b.npz", "b.npz",
     {"before": (copied("good.webp", "b.npz"),), "also": ("good.webp",)}),
    ("motion over the model", f"{FILM} --checkpoint m.npz --save-motion m.npz", "m.npz",
     {"before": (copied("model.safetensors", "m.npz"),), "also": ("model.safetensors",)}),
    ("motion over the film", f"{INPUT} --output film.mp4 --save-motion film.mp4", "film.mp4"),
    ("motion over the film by a link", f"{FILM} --save-motion m.npz", "film.mp4|m.npz",
     {"before": (link("m.npz", "film.mp4"),)}),
    ("a weight file", f"{INPUT} --engine liveportrait --weights w --output w/spade_generator.mp4", "spade_generator",
     {"before": (file("w/motion_extractor.pth"), link("w/spade_generator.mp4", "motion_extractor.pth"))}),
    finding="V5",
    within_s=3.0,
)  # fmt: skip

MOTIONS = table(
    "save-motion",
    2,
    ("no .npz", f"{FILM} --save-motion said.bin", "said.bin.*npz", {"finding": "V4"}),
    ("no ending", f"{FILM} --save-motion said", "said.*npz", {"finding": "V4"}),
    ("as .mp4", f"{FILM} --save-motion said.mp4", "said.mp4.*npz", {"finding": "V4"}),
    ("a missing folder", f"{FILM} --save-motion no/said.npz", "'no'"),
    ("a folder", f"{FILM} --save-motion sub.npz", "sub.npz", {"before": (folder("sub.npz"),)}),
    ("a pipe", f"{FILM} --save-motion said.npz", NO_FILE, {"before": (fifo("said.npz"),), "finding": "V5"}),
    ("a device: null", f"{FILM} --save-motion n.npz", NO_FILE, {"before": (device("n.npz", 1, 3),), "finding": "V5"}),
    ("a device: full", f"{FILM} --save-motion n.npz", NO_FILE, {"before": (device("n.npz", 1, 7),), "finding": "V5"}),
    ("a link to a device", f"{FILM} --save-motion n.npz", NO_FILE,
     {"before": (device("n", 1, 7), link("n.npz", "n")), "finding": "V5"}),
    ("/dev/full", f"{FILM} --save-motion /dev/full", "/dev/full", {"user": "nobody", "finding": "V5"}),
    ("a loop of links", f"{FILM} --save-motion a.npz", "a.npz", {"before": (link("a.npz", "a.npz"),), "finding": "V5"}),
    within_s=3.0,
)  # fmt: skip

SAVED = table(
    "save-motion",
    0,
    ("new", f"{FILM} --save-motion new.npz", "25 frames"),
    ("over an old one", f"{FILM} --save-motion old.npz", "25 frames", {"before": (file("old.npz"),), "fast": True}),
    ("over the motion of another film", f"{FILM} --save-motion said.npz", "25 frames"),
    ("240 letters and .npz", f"{FILM} --save-motion {'m' * 236}.npz", "25 frames", {"finding": "V4"}),
    ("250 letters and .npz", f"{FILM} --save-motion {'m' * 246}.npz", "25 frames", {"finding": "V4", "fast": True}),
    ("251 letters and .npz", f"{FILM} --save-motion {'m' * 251}.npz", "25 frames", {"finding": "V4"}),
    ("upper case", f"{FILM} --save-motion NEW.NPZ", "25 frames"),
    ("not in UTF-8", f"{FILM} --save-motion bad\udcff.npz", "25 frames", {"finding": "V7"}),
)

LOST = table(
    "save-motion",
    1,
    ("a full disk", f"{FILM} --save-motion disk/said.npz", "said.npz",
     {"before": (small_disk("disk", 4096), file("disk/filler", bytes(3000))), "fast": True}),
    ("a full disk for the film", f"{INPUT} --output disk/film.mp4 --save-motion said.npz", "film.mp4",
     {"before": (small_disk("disk", 8192), file("disk/film.mp4"), file("said.npz")), "fast": True}),
    ("a read-only folder", f"{FILM} --save-motion locked/said.npz", "locked.*(read-only|[Pp]ermission)",
     {"before": (folder("locked", 0o555),), "user": "plain"}),
    ("a read-only folder for the film", f"{INPUT} --output locked/film.mp4 --save-motion said.npz",
     "locked.*(read-only|[Pp]ermission)", {"before": (folder("locked", 0o555), file("said.npz")), "user": "plain"}),
    finding="V4",
)  # fmt: skip

UNWRITABLE = table(
    "outputs",
    1,
    ("a read-only folder", _to("locked/film.mp4"), "locked.*(read-only|[Pp]ermission)",
     {"before": (folder("locked"), file("locked/film.mp4"), mode("locked", 0o555))}),
    ("a folder that may not be searched", _to("locked/film.mp4"), "locked", {"before": (folder("locked", 0o000),)}),
    ("below a folder that may not be searched", _to("locked/sub/o.mp4"), "locked",
     {"before": (folder("locked/sub"), mode("locked", 0o000))}),
    ("a folder that may be searched only", _to("locked/film.mp4"), "locked", {"before": (folder("locked", 0o111),)}),
    ("a link into a locked folder", FILM, "locked|film.mp4",
     {"before": (folder("locked", 0o000), link("film.mp4", "locked/new.mp4"))}),
    ("a read-only film", FILM, "film.mp4.*(read-only|[Pp]ermission)", {"before": (mode("film.mp4", 0o444),)}),
    ("a read-only motion", f"{FILM} --save-motion said.npz", "said.npz.*(read-only|[Pp]ermission)",
     {"before": (mode("said.npz", 0o444),)}),
    ("a folder of the kernel", _to("/proc/film.mp4"), "film.mp4|/proc", {"code": (1, 2)}),
    finding="V1",
    user="plain",
    within_s=3.0,
)  # fmt: skip

FINE = table(
    "outputs",
    0,
    ("no film there yet", FILM, "25 frames", {"before": (removed("film.mp4"),)}),
    ("as an ordinary user", FILM, "25 frames", {"user": "plain"}),
    ("in a fresh interpreter", FILM, "25 frames", {"program": TOY_PROCESS, "user": "plain"}),
)

CASES = [*NAMES, *LINKS, *REFUSED, *INPUTS, *MOTIONS, *SAVED, *LOST, *UNWRITABLE, *FINE]
