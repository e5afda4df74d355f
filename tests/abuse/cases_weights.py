"""`kdtalker weights`: hubs that are down or lie, folders that cannot be written, files that are no weights."""

from __future__ import annotations

from abuse.case import table
from abuse.places import device, fifo, file, folder, mode, small_disk

GET = "weights get KDTalker.pth"
GOT = ("w/KDTalker.pth", "w/KDTalker.pth.sha256")
HOME = ("../home/.cache", "../home/.cache/kdtalker")
TOLD = "KDTalker.pth.*(could not be fetched|could not be written)"


def _hub(name: str, manner: str, told: str) -> tuple:
    return name, f"{GET} --weights w", told, {"env": {"HF_ENDPOINT": f"{{hub}}/{manner}"}, "made": ("w",)}


WORDS = table(
    "weights",
    2,
    ("no action", "weights", "action|list", {"fast": True}),
    ("unknown action", "weights fetch", "fetch"),
    ("shortened flag", "weights list --weig .", "--weig"),
    ("unknown flag", "weights list --all", "--all"),
    ("unknown name to get", "weights get other.pth", "other.pth.*KDTalker.pth", {"fast": True}),
    ("unknown name to list", "weights list other.pth", "other.pth"),
    ("a path as name", "weights get ../../etc/passwd", "passwd"),
    ("no name", ["weights", "get", ""], "''"),
    ("list of a missing folder", "weights list --weights none", "'none'"),
    ("list of a file", "weights list --weights face.png", "face.png"),
    ("verify a missing folder", "weights verify --weights none", "'none'"),
    ("verify a missing file", "weights verify norm.npz", "weights get norm.npz"),
    ("verify a short file", "weights verify wav2lip.pth --weights w", "wav2lip.pth.*damaged", {
        "before": (file("w/wav2lip.pth", b"half"),)}),
    ("verify a page", "weights verify norm.npz --weights w", "norm.npz", {
        "before": (file("w/norm.npz", b"<!doctype html>"),)}),
    ("verify code", "weights verify KDTalker.pth --weights .", "mkdir|refused", {"also": ("KDTalker.pth",)}),
    ("verify a note that does not fit", "weights verify KDTalker.pth --weights w", "sha256", {
        "before": (file("w/KDTalker.pth"), file("w/KDTalker.pth.sha256", b"0" * 64))}),
    ("verify a bomb", "weights verify norm.npz --weights w", "norm.npz", {
        "before": (file("w/norm.npz", b"PK\x03\x04" + bytes(2000)),)}),
    ("offline", GET, "HF_HUB_OFFLINE", {"env": {"HF_HUB_OFFLINE": "1"}, "made": HOME}),
    within_s=10.0,
)  # fmt: skip

HUBS = table(
    "hubs",
    1,
    *[_hub(f"says {code}", f"{code}", f"{TOLD}.*{code}")
      for code in (400, 401, 403, 404, 410, 418, 429, 500, 502, 503)],
    _hub("sends in circles", "loop", TOLD),
    _hub("sends away", "away", TOLD),
    _hub("shows a page", "html", TOLD),
    _hub("talks nonsense", "garbage", TOLD),
    _hub("says nothing", "silent", TOLD),
    _hub("has an empty file", "nothing", TOLD),
    _hub("breaks off", "short", TOLD),
    _hub("sends other bytes", "damaged", TOLD),
    ("is down", f"{GET} --weights w", TOLD,
     {"env": {"HF_ENDPOINT": "http://127.0.0.1:9"}, "made": ("w",), "fast": True}),
    ("has no such name", f"{GET} --weights w", TOLD, {"env": {"HF_ENDPOINT": "http://hub.invalid"}, "made": ("w",)}),
    *[(f"is {address}", f"{GET} --weights w", "HF_ENDPOINT.*wanted an address", {
        "env": {"HF_ENDPOINT": address}, "made": ("w",), "code": 2, "fast": True})
      for address in ("ftp://127.0.0.1", "http://127.0.0.1:99999", "http://[::1", "not a URL", "")],
    ("is behind a proxy that is down", f"{GET} --weights w", TOLD, {
        "env": {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "http_proxy":
                "http://127.0.0.1:9", "NO_PROXY": None, "HF_ENDPOINT": "http://hub.invalid"}, "made": ("w",)}),
    ("is down, all files", "weights get --weights w", "could not be fetched", {
        "env": {"HF_ENDPOINT": "http://127.0.0.1:9"}, "made": ("w",)}),
)  # fmt: skip

PLACES = table(
    "weight folders",
    1,
    ("a file", f"{GET} --weights face.png", TOLD),
    ("below a file", f"{GET} --weights face.png/w", TOLD),
    ("read-only", f"{GET} --weights w", TOLD, {"before": (folder("w", 0o555),), "user": "plain", "fast": True}),
    ("in a read-only one", f"{GET} --weights locked/w", TOLD, {"before": (folder("locked", 0o555),), "user": "plain"}),
    ("not to be searched", f"{GET} --weights locked/w", f"{TOLD}|locked", {
        "before": (folder("locked", 0o000),), "user": "plain", "finding": "V1"}),
    ("HOME is read-only", GET, TOLD, {"before": (mode("../home", 0o555),), "user": "plain"}),
    ("a full disk", f"{GET} --weights w", TOLD, {
        "before": (small_disk("w", 4096), file("w/filler", bytes(4096)))}),
    ("a limit on file size", f"{GET} --weights w", TOLD, {"limits": {"FSIZE": 100}, "made": ("w",)}),
    env={"HF_ENDPOINT": "{hub}/good"},
)  # fmt: skip

FINE = table(
    "weights",
    0,
    ("list", "weights list", "norm.npz", {"fast": True}),
    ("list of one", "weights list norm.npz", "^norm.npz"),
    ("list of a folder", "weights list --weights .", "norm.npz"),
    ("list, the folder in a file", "weights list", "norm.npz", {"env": {"KDTALKER_WEIGHTS": "{folder}/face.png"}}),
    ("verify", "weights verify", "good, sha256"),
    ("verify one twice", "weights verify mesh_eyes.safetensors mesh_eyes.safetensors", "good, sha256"),
    ("get what came with the package", "weights get mesh_eyes.safetensors", "came with the package"),
    ("get", f"{GET} --weights w", "KDTalker.pth", {"made": ("w", *GOT), "env": {"HF_ENDPOINT": "{hub}/good"}}),
    ("get into a folder that is there", f"{GET} --weights w", "KDTalker.pth", {
        "made": GOT, "before": (folder("w"),), "env": {"HF_ENDPOINT": "{hub}/good"}}),
    ("get into HOME", GET, "KDTalker.pth", {
        "made": (*HOME, *[f"{HOME[1]}/{name[2:]}" for name in GOT]), "env": {"HF_ENDPOINT": "{hub}/good"}}),
    ("get over a file that is none", f"{GET} --weights w", "KDTalker.pth", {
        "made": GOT, "before": (file("w/KDTalker.pth"),), "env": {"HF_ENDPOINT": "{hub}/good"}}),
)  # fmt: skip

OUT = "out.safetensors"
CONVERTED = table(
    "convert",
    0,
    ("beside it", "weights convert tensors.pth", "tensors.safetensors",
     {"made": ("tensors.safetensors",)}),
    ("under a name", f"weights convert tensors.pth {OUT}", OUT, {"made": (OUT,)}),
    ("the older format", f"weights convert old-format.pth {OUT}", OUT, {"made": (OUT,)}),
    ("numbers of half the size", f"weights convert bfloat.pth {OUT}", OUT, {"made": (OUT,)}),
    ("tensors that share memory", f"weights convert shared.pth {OUT}", f"{OUT}|shared.pth", {
        "made": (OUT,), "code": (0, 2)}),
    ("tensors in a dict of the dict", f"weights convert nested.pth {OUT}", f"{OUT}|nested.pth", {
        "made": (OUT,), "code": (0, 2)}),
)  # fmt: skip

REFUSED = table(
    "convert",
    2,
    ("nothing", "weights convert", "convert|FILE"),
    ("three names", f"weights convert tensors.pth {OUT} more", "more|names|two"),
    *[
        (name, f"weights convert {name} {OUT}", name)
        for name in ("code.pth", "old-code.pth", "pickle.pth", "cut.pth", "text.pth", "html.pth", "empty.pth",
                     "one-tensor.pth", "no-tensors.pth", "numbers.pth", "face.png", "said.npz")
    ],
    ("a missing one", f"weights convert none.pth {OUT}", "[Nn]o (such )?file", {"fast": True}),
    ("a folder", f"weights convert . {OUT}", "folder|not a file", {"finding": "V12"}),
    ("a pipe", f"weights convert tensors.pth {OUT}", "pipe|not a (regular )?file", {"before": (fifo("tensors.pth"),)}),
    ("a long name", f"weights convert {'x' * 300}.pth {OUT}", "too long|no file", {"finding": "V1"}),
    ("into another format", "weights convert tensors.pth out.pth", "out.pth.*safetensors"),
    ("onto itself", "weights convert tensors.pth tensors.pth", "tensors.pth"),
    ("into a missing folder", "weights convert tensors.pth no/out.safetensors", "'no'"),
    ("into a pipe", f"weights convert tensors.pth {OUT}", OUT, {"before": (fifo(OUT),), "finding": "V5"}),
    ("into a device", f"weights convert tensors.pth {OUT}", OUT, {"before": (device(OUT, 1, 7),), "finding": "V5"}),
    ("not to be read", f"weights convert tensors.pth {OUT}", "tensors.pth.*[Pp]ermission", {
        "before": (mode("tensors.pth", 0),), "user": "plain", "finding": "V12"}),
)  # fmt: skip

LOST = table(
    "convert",
    1,
    ("into a read-only folder", "weights convert tensors.pth locked/out.safetensors", "locked", {
        "before": (folder("locked", 0o555),), "user": "plain"}),
    ("onto a full disk", "weights convert tensors.pth disk/out.safetensors", "out.safetensors", {
        "before": (small_disk("disk", 4096), file("disk/filler", bytes(4096)))}),
)  # fmt: skip

CASES = [*WORDS, *HUBS, *PLACES, *FINE, *CONVERTED, *REFUSED, *LOST]
