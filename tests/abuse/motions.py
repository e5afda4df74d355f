"""Saved motions (.npz): good, damaged in every layer (zip, npy header, numbers), and made to burst."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from abuse.case import Maker
from abuse.pictures import TEXT, content
from abuse.sounds import first_part

SHAPES = {"scale": (1,), "pose": (3,), "shift": (3,), "expression": (21, 3), "gaze": (2,)}


class RanCode:
    """Unpickled, it makes a file in the folder."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def values(frames: int = 6, kind: str = "f4", **changes: object) -> dict[str, object]:
    value = 1 if np.dtype(kind).kind == "i" else 0.5
    numbers = {name: np.full((frames, *tail), value, kind) for name, tail in SHAPES.items()}
    whole = {**numbers, "version": 1, "space": "mesh", **changes}
    return {name: value for name, value in whole.items() if value is not None}


def archive(**changes: object) -> Maker:
    """A motion, with some of its members changed or (None) left out."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **values(**changes))

    return write


def members(change: Callable[[dict[str, bytes]], None], method: int = zipfile.ZIP_DEFLATED) -> Maker:
    """A motion whose members' bytes were changed before they were zipped."""

    def write(path: Path) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **values())
        with zipfile.ZipFile(buffer) as source:
            held = {name: source.read(name) for name in source.namelist()}
        change(held)
        with zipfile.ZipFile(path, "w", method) as file:
            for name, value in held.items():
                file.writestr(zipfile.ZipInfo(name), value, method)

    return write


def _bytes(change: Callable[[bytearray], None], maker: Maker) -> Maker:
    """The file of that maker with bytes changed afterwards."""

    def write(path: Path) -> None:
        maker(path)
        whole = bytearray(path.read_bytes())
        change(whole)
        path.write_bytes(whole)

    return write


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + body


def _scale(value: bytes) -> Maker:
    return members(lambda held: held.update({"scale.npy": value}))


def _header(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def _flip_middle(whole: bytearray) -> None:
    middle = len(whole) // 2
    whole[middle : middle + 8] = bytes(255 - byte for byte in whole[middle : middle + 8])


def _flip_stored(whole: bytearray) -> None:
    """A number within a stored member, so that only its CRC tells."""
    at = whole.find(struct.pack("<f", 0.5) * 3)
    whole[at] ^= 1


def _encrypt(whole: bytearray) -> None:
    """Say of every member that it is encrypted."""
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = whole.find(mark)
        while at >= 0:
            whole[at + offset] |= 1
            at = whole.find(mark, at + 4)


def _unknown_method(whole: bytearray) -> None:
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = whole.find(mark)
        while at >= 0:
            whole[at + offset] = 77
            at = whole.find(mark, at + 4)


def _bomb(path: Path) -> None:
    """A member of 256 MB of zeros in a quarter of a megabyte of zip."""
    head = npy(_header("(67108864, 1)"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        with file.open("scale.npy", "w", force_zip64=True) as member:
            member.write(head)
            for _ in range(16):
                member.write(bytes(1 << 24))
        for name, value in values().items():
            if name != "scale":
                buffer = io.BytesIO()
                np.save(buffer, np.asarray(value))
                file.writestr(f"{name}.npy", buffer.getvalue())


def _pickled() -> np.ndarray:
    array = np.empty(1, object)
    array[0] = RanCode()
    return array


def _object_array(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **values(scale=_pickled()))


GOOD = archive()
STORED = members(lambda held: None, zipfile.ZIP_STORED)

MOTIONS: dict[str, Maker] = {
    "said.npz": GOOD,
    "truncated.npz": first_part(GOOD, 0.9),
    "head.npz": content(lambda: b"PK\x03\x04" + bytes(36)),
    "short.npz": first_part(GOOD, 0.3),
    "corrupt.npz": _bytes(_flip_middle, GOOD),
    "deflate.npz": _bytes(lambda whole: whole.__setitem__(slice(60, 80), b"\xff" * 20), GOOD),
    "crc.npz": _bytes(_flip_stored, STORED),
    "encrypted.npz": _bytes(_encrypt, STORED),
    "method.npz": _bytes(_unknown_method, STORED),
    "directory.npz": _bytes(lambda whole: whole.__setitem__(slice(-10, -4), b"\xff" * 6), GOOD),
    "objects.npz": _object_array,
    "pickle.npz": content(lambda: pickle.dumps(RanCode())),
    "shapes.npz": archive(pose=np.zeros((6, 4), "f4")),
    "lengths.npz": archive(shift=np.zeros((5, 3), "f4")),
    "scalar.npz": archive(scale=np.float32(1)),
    "zero-scale.npz": archive(scale=np.zeros((6, 1), "f4")),
    "nan.npz": archive(pose=np.full((6, 3), np.nan, "f4")),
    "infinite.npz": archive(expression=np.full((6, 21, 3), np.inf, "f4")),
    "overflow.npz": archive(shift=np.full((6, 3), 1e300, "f8")),
    "large.npz": archive(shift=np.full((6, 3), 1e30, "f4")),
    "far.npz": archive(shift=np.repeat(np.float32([[0], [0], [1e30], [1e30], [1e30], [1e30]]), 3, axis=1)),
    "tiny.npz": archive(scale=np.full((6, 1), 1e-12, "f4")),
    "huge.npz": archive(scale=np.full((6, 1), 1e30, "f4")),
    "no-frames.npz": archive(frames=0),
    "version-2.npz": archive(version=2),
    "version-text.npz": archive(version="one"),
    "version-list.npz": archive(version=np.arange(3)),
    "version-huge.npz": archive(version=np.float64(np.inf)),
    "no-version.npz": archive(version=None),
    "no-pose.npz": archive(pose=None),
    "no-gaze.npz": archive(gaze=None),
    "more.npz": archive(extra=np.arange(4)),
    "space.npz": archive(space="liveportrait"),
    "unknown-space.npz": archive(space="mars\n\x1b[31m"),
    "text-numbers.npz": archive(scale=np.full((6, 1), "a")),
    "dates.npz": archive(scale=np.full((6, 1), 7, "datetime64[s]")),
    "complex.npz": archive(scale=np.full((6, 1), 1 + 1j)),
    "structured.npz": archive(scale=np.zeros((6, 1), [("a", "f4"), ("b", "i4")])),
    "half.npz": archive(kind="f2"),
    "double.npz": archive(kind="f8"),
    "big-endian.npz": archive(kind=">f4"),
    "integers.npz": archive(kind="i4"),
    "not-npy.npz": _scale(TEXT),
    "empty-member.npz": _scale(b""),
    "short-member.npz": _scale(npy(_header("(6, 1)"), bytes(8))),
    "many-numbers.npz": _scale(npy(_header("(1000000000000, 1)"), bytes(64))),
    "negative.npz": _scale(npy(_header("(-6, 1)"), bytes(24))),
    "overflowing.npz": _scale(npy(_header("(4294967296, 4294967296, 4294967296)"), bytes(24))),
    "nested.npz": _scale(npy("(" * 9000 + ")" * 9000)),
    "call.npz": _scale(npy("__import__('os').mkdir('ran')")),
    "object-header.npz": _scale(npy(_header("(1,)", "'|O'"), pickle.dumps(RanCode()))),
    "long-header.npz": _scale(npy(_header("(6, 1)") + " " * 2_000_000, bytes(24))),
    "bomb.npz": _bomb,
    "one-array.npz": content(lambda: npy(_header("(6, 1)"), bytes(24))),
    "no-members.npz": content(b"PK\x05\x06" + bytes(18)),
    "empty.npz": content(b""),
    "text.npz": content(TEXT),
    "long.npz": archive(frames=5000),
}
