"""Motion models of one's own (.safetensors): the shipped one with its header or its numbers changed."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from abuse.case import Maker
from abuse.motions import RanCode
from abuse.pictures import NOISE, TEXT, content

DATA = Path(__file__).resolve().parents[2] / "kdtalker" / "data"
MODEL = DATA / "mesh_motion.safetensors"
Header = dict[str, object]


def _read() -> tuple[Header, bytearray]:
    whole = MODEL.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    return json.loads(whole[8 : 8 + length]), bytearray(whole[8 + length :])


def changed(change: Callable[[Header, bytearray], None]) -> Maker:
    def write(path: Path) -> None:
        header, numbers = _read()
        change(header, numbers)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)

    return write


def said(name: str, value: object) -> Maker:
    """Another value for one entry of the metadata; strings are taken as they are, all else as JSON."""

    def change(header: Header, numbers: bytearray) -> None:
        header["__metadata__"][name] = value if isinstance(value, str) else json.dumps(value)

    return changed(change)


def config(**changes: object) -> Maker:
    def change(header: Header, numbers: bytearray) -> None:
        metadata = header["__metadata__"]
        whole = {**json.loads(metadata["config"]), **changes}
        metadata["config"] = json.dumps({name: value for name, value in whole.items() if value != "left out"})

    return changed(change)


def filled(value: float) -> Maker:
    """The first matrix of half precision full of one number."""

    def change(header: Header, numbers: bytearray) -> None:
        place = next(value for name, value in header.items() if name != "__metadata__" and value["dtype"] == "F16")
        begin, end = place["data_offsets"]
        numbers[begin:end] = np.full((end - begin) // 2, value, "<f2").tobytes()

    return changed(change)


def _tensor(change: Callable[[dict], object]) -> Maker:
    def write(header: Header, numbers: bytearray) -> None:
        change(header[next(name for name in header if name != "__metadata__")])

    return changed(write)


def _lost(header: Header, numbers: bytearray) -> None:
    """One tensor fewer: the last in the file, with its numbers."""
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][1])
    begin, _ = header.pop(last)["data_offsets"]
    del numbers[begin:]


def _renamed(header: Header, numbers: bytearray) -> None:
    name = next(name for name in header if name != "__metadata__")
    header["another.weight"] = header.pop(name)


def _half_of(path: Path) -> None:
    whole = MODEL.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _no_metadata(header: Header, numbers: bytearray) -> None:
    del header["__metadata__"]


CHECKPOINTS: dict[str, Maker] = {
    "model.safetensors": content(MODEL.read_bytes),
    "eyes.safetensors": content((DATA / "mesh_eyes.safetensors").read_bytes),
    "whisper.safetensors": content((DATA / "whisper_tiny_en_encoder.safetensors").read_bytes),
    "half.safetensors": _half_of,
    "8-bytes.safetensors": content(lambda: MODEL.read_bytes()[:8]),
    "long-header.safetensors": content(struct.pack("<Q", 10_000_000_000) + b"{" * 1000),
    "longest-header.safetensors": content(struct.pack("<Q", 2**64 - 1) + b"{}"),
    "pickle.safetensors": content(lambda: pickle.dumps(RanCode())),
    "text.safetensors": content(TEXT * 20),
    "random.safetensors": content(NOISE),
    "empty.safetensors": content(b""),
    "json-list.safetensors": content(struct.pack("<Q", 2) + b"[]"),
    "json-empty.safetensors": content(struct.pack("<Q", 2) + b"{}"),
    "json-nonsense.safetensors": content(struct.pack("<Q", 20) + b'{"a": {"dtype": 7}} '),
    "json-deep.safetensors": content(struct.pack("<Q", 20_000) + b"[" * 20_000),
    "no-metadata.safetensors": changed(_no_metadata),
    "config-null.safetensors": said("config", None),
    "config-list.safetensors": said("config", [1, 2]),
    "config-text.safetensors": said("config", '"text"'),
    "config-number.safetensors": said("config", 7),
    "config-broken.safetensors": said("config", "{"),
    "config-deep.safetensors": said("config", "[" * 50_000),
    "config-empty.safetensors": said("config", {}),
    "width-negative.safetensors": config(width=-8),
    "width-huge.safetensors": config(width=10**9),
    "width-text.safetensors": config(width="wide"),
    "width-null.safetensors": config(width=None),
    "width-list.safetensors": config(width=[256]),
    "layers-0.safetensors": config(layers=0),
    "layers-huge.safetensors": config(layers=10**9),
    "heads-0.safetensors": config(heads=0),
    "window-0.safetensors": config(window=0),
    "window-huge.safetensors": config(window=10**12),
    "overlap-long.safetensors": config(overlap=10**6),
    "dropout-nan.safetensors": config(dropout=float("nan")),
    "beta-nan.safetensors": config(beta_start=float("nan")),
    "steps-0.safetensors": config(train_timesteps=0),
    "scheduler.safetensors": config(scheduler="euler"),
    "encoder.safetensors": config(audio_encoder="hubert"),
    "encoder-other.safetensors": config(audio_input=512),
    "unknown-key.safetensors": config(colour="red"),
    "missing-key.safetensors": config(width="left out"),
    "space.safetensors": said("space", '"liveportrait"'),
    "space-unknown.safetensors": said("space", '"mars"'),
    "space-null.safetensors": said("space", None),
    "normalisation-null.safetensors": said("normalisation", None),
    "normalisation-list.safetensors": said("normalisation", []),
    "normalisation-empty.safetensors": said("normalisation", {}),
    "normalisation-nan.safetensors": said("normalisation", '{"mean": NaN, "std": Infinity}'),
    "card-null.safetensors": said("card", None),
    "card-list.safetensors": said("card", [1]),
    "nan-weights.safetensors": filled(np.nan),
    "inf-weights.safetensors": filled(np.inf),
    "large-weights.safetensors": filled(60_000),
    "lost-tensor.safetensors": changed(_lost),
    "renamed-tensor.safetensors": changed(_renamed),
    "turned-tensor.safetensors": _tensor(lambda tensor: tensor.update(shape=tensor["shape"][::-1] + [1])),
    "other-type.safetensors": _tensor(lambda tensor: tensor.update(dtype="Q9")),
    "overlapping.safetensors": _tensor(lambda tensor: tensor.update(data_offsets=[0, 10**12])),
}
