"""Damaged, hostile and foreign .npz files: one sentence in our own words, without a warning and without their size."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kdtalker import Motion
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.diffusion.published import read_normalisation
from kdtalker.weights.files import check_contents
from kdtalker.weights.table import find_row

ROOT = Path(__file__).parents[2]


def members(**changes):
    """The arrays of a good motion, some of them changed or (None) left out."""
    motion = Motion.from_vector(np.ones((400, MOTION_WIDTH), np.float32), "mesh")
    parts = {name: getattr(motion, name) for name in ("scale", "pose", "shift", "expression", "gaze")}
    values = {**parts, "version": 1, "space": "mesh", **changes}
    return {name: value for name, value in values.items() if value is not None}


def packed(values, save=np.savez):
    buffer = io.BytesIO()
    save(buffer, **values)
    return buffer.getvalue()


def npy(descr, shape, body=b"", version=b"\x01\x00"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + body


def with_member(content, name="pose"):
    """A good motion one of whose members holds these bytes."""
    buffer = io.BytesIO(packed(members(**{name: None})))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(f"{name}.npy", content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def encrypted(content):
    """The flag of an encrypted member, in each local header and in the directory."""
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content = content[: at + place] + bytes([content[at + place] | 1]) + content[at + place + 1 :]
            at = content.find(signature, at + 4)
    return content


PLAIN, DEFLATED = packed(members()), packed(members(), np.savez_compressed)
UNREADABLE = "cannot be read as .npz, it is damaged, encrypted or no .npz."
DAMAGED = {
    "empty": (b"", UNREADABLE),
    "text": (b"<!doctype html>" * 50, UNREADABLE),
    "one array": (npy("<f4", "(2,)", bytes(8)), UNREADABLE),
    "cut": (DEFLATED[:600], UNREADABLE),
    "last bytes gone": (DEFLATED[:-40], UNREADABLE),
    "flipped": (flipped(PLAIN, len(PLAIN) // 2), UNREADABLE),
    "flipped where it is deflated": (flipped(DEFLATED, 300), UNREADABLE),
    "encrypted": (encrypted(PLAIN), UNREADABLE),
    "10^12 numbers": (with_member(npy("<f4", "(1000000000000, 3)", bytes(120))), "shape (1000000000000, 3)"),
    "negative": (with_member(npy("<f4", "(-400, 3)", bytes(4800))), "the shape (-400, 3)"),
    "twice negative": (with_member(npy("<f4", "(-400, -3)", bytes(4800))), "different lengths"),
    "longer than its header": (with_member(npy("<f4", "(1, 3)", bytes(120))), "holds 120 bytes of it"),
    "code for a header": (with_member(npy("<f4", "__import__('os').system('true')")), UNREADABLE),
    "deep header": (with_member(npy("<f4", "-" * 5000 + "1")), UNREADABLE),
    "no array": (with_member(b"hello"), UNREADABLE),
    "objects": (packed(members(pose=np.array([{}] * 3, object))), "holds something else as pose, wanted numbers"),
    "text for numbers": (packed(members(pose=np.array(["a"] * 3))), "holds something else as pose, wanted numbers"),
    "complex numbers": (packed(members(pose=np.ones((400, 3), complex))), "something else as pose"),
    "numbers for text": (packed(members(space=3)), "holds something else as space, wanted text"),
    "long text": (packed(members(space="x" * 10_000)), "holds something else as space, wanted text"),
    "another space": (packed(members(space="moon")), "space 'moon', known are mesh, liveportrait"),
    "lacks": (packed(members(pose=None)), "lacks pose, wanted a motion of this program"),
    "another version": (packed(members(version=2)), "has the motion format 2.0, this program reads 1"),
    "versions": (packed(members(version=[1, 1])), "has the motion format [1. 1.]"),
    "too large for float32": (packed(members(pose=np.full((400, 3), 1e300))), "pose holds numbers that are not finite"),
    "not finite": (packed(members(shift=np.full((400, 3), np.nan))), "shift holds numbers that are not finite"),
    "another length": (packed(members(pose=np.ones((399, 3)))), "different lengths"),
    "one number": (packed(members(gaze=1.0)), "different lengths"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_motion_ends_in_one_sentence_without_a_warning(tmp_path, case):
    content, told = DAMAGED[case]
    (tmp_path / "a.npz").write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(InputError) as caught:
        warnings.simplefilter("error")
        Motion.load(tmp_path / "a.npz")
    words = str(caught.value)
    assert str(tmp_path / "a.npz") in words and told in words
    assert "\n" not in words and "pickle" not in words and len(words) < 300 + len(str(tmp_path))


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    told = {tmp_path / "none.npz": "no file", tmp_path: "cannot be read", tmp_path / ("x" * 300): "File name too long"}
    for path, words in told.items():
        with pytest.raises(InputError, match=words):
            Motion.load(path)


@pytest.mark.parametrize("content", [PLAIN, DEFLATED, packed(members(gaze=None))], ids=["plain", "deflated", "no gaze"])
def test_what_is_whole_is_read(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    motion = Motion.load(tmp_path / "a.npz")
    assert motion.space == "mesh" and motion.gaze.shape == (400, 2)
    assert np.array_equal(motion.vector(), np.ones((400, MOTION_WIDTH), np.float32))


def claiming(content, size):
    """The zip whose directory says that the last member has this size once it is unpacked."""
    at = content.rfind(b"PK\x01\x02") + 24
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


def test_a_header_takes_no_memory_and_a_bomb_is_refused(tmp_path):
    header = npy("<f4", "(300000000, 3)")
    (tmp_path / "bomb.npz").write_bytes(claiming(with_member(header + bytes(100_000)), len(header) + 3_600_000_000))
    (tmp_path / "header.npz").write_bytes(DAMAGED["10^12 numbers"][0])
    code = """
import resource, sys
from pathlib import Path
from kdtalker.core.errors import InputError
from kdtalker.core.npz import read_npz
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        read_npz(Path(name), ("pose", "shift"))
    except InputError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, "header.npz", "bomb.npz"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    header, bomb, grown_kb = done.stdout.splitlines()
    assert "(1000000000000, 3)" in header and "holds 3,600,004,800 bytes of numbers, wanted at most" in bomb
    assert int(grown_kb) < 20_000


def normalisation(**changes):
    parts = {"scale": 1, "yaw": 1, "pitch": 1, "roll": 1, "t": 3, "exp": 63, "kp": 63}
    values = {f"{part}_{kind}": np.ones(n) for part, n in parts.items() for kind in ("mean", "std")}
    return {**values, **changes}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"exp_mean": np.full(63, 1e300)}, "holds numbers that cannot be used"),
        ({"exp_mean": np.array(["1"] * 63)}, "something else as exp_mean, wanted numbers"),
        ({"kp_std": np.full(63, np.inf)}, "holds numbers that cannot be used"),
    ],
)
def test_a_damaged_normalisation_ends_in_one_sentence_without_a_warning(tmp_path, change, told):
    (tmp_path / "norm.npz").write_bytes(packed(normalisation(**change)))
    with warnings.catch_warnings(), pytest.raises(InputError, match=f"norm.npz' .*{told}"):
        warnings.simplefilter("error")
        read_normalisation(tmp_path / "norm.npz")


NORM = packed(normalisation(), np.savez_compressed)


@pytest.mark.parametrize(
    "content", [NORM[:600], flipped(NORM, NORM.find(b"kp_std.npy") + 60), encrypted(NORM), b"<html>" * 99],
    ids=["cut", "flipped", "encrypted", "text"],
)  # fmt: skip
def test_the_published_normalisation_is_refused_alike_where_it_is_read_and_where_it_is_verified(tmp_path, content):
    path = tmp_path / "norm.npz"
    path.write_bytes(content)
    for read in (read_normalisation, lambda path: check_contents(find_row("norm.npz"), path)):
        with pytest.raises(InputError, match="norm.npz' cannot be read as .npz"):
            read(path)


def test_bytes_that_would_become_floats_count_as_floats(tmp_path):
    path = tmp_path / "wide.npz"
    np.savez_compressed(path, version=1, space="mesh", scale=np.ones((2**28 + 1, 1), np.int8))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="wanted at most"):
            Motion.load(path)
        assert path.stat().st_size < 500_000 and tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
