"""Motion templates (.pkl) written opcode by opcode: code of every kind, bombs, and numbers that cannot be."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
from abuse.case import Maker
from abuse.motions import MOTIONS, RanCode
from abuse.pictures import TEXT, content
from abuse.sounds import first_part

DUMP = b"\x80\x02"


def template(frames: int = 5, rate_hz: object = 25, **changes: object) -> dict[str, object]:
    """What a good one holds: a face that looks straight ahead."""
    motion = [{"scale": np.ones((1, 1), "f4"), "R": np.eye(3, dtype="f4")[None], "exp": np.zeros((1, 21, 3), "f4"),
               "t": np.zeros((1, 3), "f4")} for _ in range(frames)]  # fmt: skip
    ratios = {"c_eyes_lst": [np.full((1, 2), 0.3, "f4")] * frames, "c_lip_lst": [np.zeros((1, 1), "f4")] * frames}
    whole = {"n_frames": frames, "output_fps": rate_hz, "motion": motion, **ratios, **changes}
    return {name: value for name, value in whole.items() if value is not None}


def pickled(protocol: int = 4, **changes: object) -> Maker:
    return content(lambda: pickle.dumps(template(**changes), protocol))


def frame(**changes: object) -> Maker:
    """A template whose second frame has other values."""

    def write(path: Path) -> None:
        whole = template()
        whole["motion"][1].update(changes)
        path.write_bytes(pickle.dumps(whole))

    return write


def calls(module: str, name: str, argument: str) -> bytes:
    """Protocol 0: call a function by its name with one string."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


def _stack_global(module: str, name: str) -> bytes:
    words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    return b"\x80\x04" + words + b"\x93\x8c\x03ran\x85R."


def _nested_eval() -> bytes:
    return b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'mkdir'\ntR(S'ran'\ntR."


def _doubled(times: int) -> bytes:
    """Lists of the same two lists, `times` deep: 2^times leaves for whoever walks through them."""
    return DUMP + b"]q\x00" + b"".join(b"(h\x00h\x00l0(h\x00h\x00lq\x00" for _ in range(times)) + b"."


def _dictionary(motion: bytes) -> bytes:
    """{"motion": ..., "output_fps": 25, "n_frames": 2} with the value given as opcodes."""
    return (
        DUMP + b"}(X\x06\x00\x00\x00motion" + motion + b"X\x0a\x00\x00\x00output_fpsK\x19X\x08\x00\x00\x00n_framesK\x02u."
    )


def _array(kind: bytes, shape: bytes, raw: bytes) -> bytes:
    """A numpy array by `_frombuffer`, of any dtype and any shape."""
    dtype = b"cnumpy\ndtype\n(U" + bytes([len(kind)]) + kind + b"I0\nI1\ntR"
    return b"cnumpy.core.numeric\n_frombuffer\n(B" + struct.pack("<I", len(raw)) + raw + dtype + shape + b"U\x01CtR"


def _rotated_by(value: float) -> np.ndarray:
    return np.full((1, 3, 3), value, "f4")


CODE: dict[str, Maker] = {
    "os-system.pkl": content(calls("os", "system", "mkdir ran")),
    "posix-system.pkl": content(calls("posix", "system", "mkdir ran")),
    "subprocess.pkl": content(calls("subprocess", "getoutput", "mkdir ran")),
    "eval.pkl": content(calls("builtins", "eval", '__import__("os").mkdir("ran")')),
    "nested.pkl": content(_nested_eval()),
    "getattr.pkl": content(b"c__builtin__\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR."),
    "stack-global.pkl": content(_stack_global("os", "mkdir")),
    "dotted.pkl": content(_stack_global("numpy", "ndarray.tofile")),
    "dotted-module.pkl": content(_stack_global("numpy.core.multiarray", "os.mkdir")),
    "load.pkl": content(calls("numpy", "load", "said.npz")),
    "codec.pkl": content(b"c_codecs\nencode\n(S'ran'\nS'rot13'\ntR."),
    "decode.pkl": content(b"c_codecs\ndecode\n(S'ran'\nS'zip'\ntR."),
    "reduce.pkl": content(lambda: pickle.dumps({"motion": RanCode()})),
    "instance.pkl": content(b"(S'ran'\nios\nmkdir\n."),
    "object.pkl": content(b"(cos\nmkdir\nS'ran'\no."),
    "extension.pkl": content(b"\x80\x02\x82\x01."),
    "persistent.pkl": content(b"Pran\n."),
    "build.pkl": content(b"cnumpy\ndtype\n(S'f4'\ntR}S'__class__'\nS'os'\nsb."),
}

BOMBS: dict[str, Maker] = {
    "memo.pkl": content(b"\x80\x02Nr\xff\xff\xff\x3f."),
    "memo-text.pkl": content(b"Np1073741823\n."),
    "memo-most.pkl": content(b"\x80\x02Nr\xff\xff\xff\xff."),
    "memo-negative.pkl": content(b"Np-1\n."),
    "frame-bomb.pkl": content(b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f."),
    "bytes-bomb.pkl": content(b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc."),
    "bytearray-bomb.pkl": content(b"\x80\x05\x96\xff\xff\xff\x7f\x00\x00\x00\x00abc."),
    "text-bomb.pkl": content(b"\x80\x02X\xff\xff\xff\x7fabc."),
    "long-bomb.pkl": content(b"\x80\x02\x8b\xff\xff\xff\x7fabc."),
    "digits.pkl": content(b"I" + b"9" * 100_000 + b"\n."),
    "deep.pkl": content(DUMP + b"(" * 200_000 + b"t" * 200_000 + b"."),
    "deep-lists.pkl": content(DUMP + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "laughs.pkl": content(_doubled(60)),
    "laughs-motion.pkl": content(_dictionary(_doubled(60)[2:-1])),
    "shape-bomb.pkl": content(_dictionary(b"](" + _array(b"f4", b"(L1000000000000L\nt", bytes(8)) + b"e")),
    "object-array.pkl": content(_dictionary(b"](" + _array(b"O8", b"(I1\nt", bytes(8)) + b"e")),
}

NUMBERS: dict[str, Maker] = {
    "template.pkl": pickled(),
    "template-0.pkl": pickled(0),
    "nan-rotation.pkl": frame(R=_rotated_by(np.nan)),
    "infinite-rotation.pkl": frame(R=_rotated_by(np.inf)),
    "no-rotation.pkl": frame(R=_rotated_by(1)),
    "mirror.pkl": frame(R=-np.eye(3, dtype="f4")[None]),
    "nan-exp.pkl": frame(exp=np.full((1, 21, 3), np.nan, "f4")),
    "overflow-exp.pkl": frame(exp=np.full((1, 21, 3), 1e300)),
    "shape-exp.pkl": frame(exp=np.zeros((1, 20, 3), "f4")),
    "text-scale.pkl": frame(scale="one"),
    "none-t.pkl": frame(t=None),
    "complex-t.pkl": frame(t=np.zeros((1, 3), "c8")),
    "fps-0.pkl": pickled(rate_hz=0),
    "fps-nan.pkl": pickled(rate_hz=float("nan")),
    "fps-negative.pkl": pickled(rate_hz=-25),
    "fps-huge.pkl": pickled(rate_hz=1e18),
    "fps-text.pkl": pickled(rate_hz="fast"),
    "fps-list.pkl": pickled(rate_hz=[25, 25]),
    "frames-more.pkl": pickled(n_frames=10**12),
    "frames-none.pkl": pickled(frames=0),
    "frames-text.pkl": pickled(n_frames="five"),
    "no-motion.pkl": pickled(motion=None),
    "motion-number.pkl": pickled(motion=3),
    "motion-text.pkl": pickled(motion="abcde"),
    "eyes-short.pkl": pickled(c_eyes_lst=[np.zeros((1, 2), "f4")]),
    "eyes-nan.pkl": pickled(c_eyes_lst=[np.full((1, 2), np.nan, "f4")] * 5),
    "list.pkl": content(lambda: pickle.dumps([1, 2, 3])),
    "number.pkl": content(b"K\x03."),
    "cut.pkl": first_part(pickled(), 0.5),
    "empty.pkl": content(b""),
    "text.pkl": content(TEXT),
    "said.pkl": MOTIONS["said.npz"],
    "stop.pkl": content(b"."),
    "underflow.pkl": content(b"00000."),
}

TEMPLATES = {**CODE, **BOMBS, **NUMBERS}
