"""Published weight files (.pth) in miniature, and what is no such file; the table itself knows what belongs in them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

from abuse.case import Maker
from abuse.motions import RanCode
from abuse.pictures import HTML, TEXT, content
from abuse.sounds import first_part


def torch_saved(value: object, **how: object) -> Maker:
    def write(path: Path) -> None:
        import torch

        made = value() if callable(value) else value
        buffer = io.BytesIO()
        torch.save(made, buffer, **how)
        path.write_bytes(buffer.getvalue())

    return write


def _tensors() -> dict:
    import torch

    return {"first.conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "first.conv.bias": torch.ones(2)}


def _shared() -> dict:
    import torch

    whole = torch.arange(12.0)
    return {"a": whole, "b": whole, "part": whole[3:7]}


def _nested() -> dict:
    return {"model": _tensors(), "epoch": 3}


def _one() -> object:
    import torch

    return torch.ones(3)


def _bfloat() -> dict:
    return {name: value.bfloat16() for name, value in _tensors().items()}


GOOD = torch_saved(_tensors)

WEIGHTS: dict[str, Maker] = {
    "tensors.pth": GOOD,
    "KDTalker.pth": torch_saved({"model": RanCode()}),
    "old-format.pth": torch_saved(_tensors, _use_new_zipfile_serialization=False),
    "nested.pth": torch_saved(_nested),
    "shared.pth": torch_saved(_shared),
    "bfloat.pth": torch_saved(_bfloat),
    "no-tensors.pth": torch_saved({}),
    "one-tensor.pth": torch_saved(_one),
    "numbers.pth": torch_saved({"a": 1, "b": "text"}),
    "code.pth": torch_saved({"model": RanCode()}),
    "old-code.pth": torch_saved({"model": RanCode()}, _use_new_zipfile_serialization=False),
    "pickle.pth": content(lambda: pickle.dumps(RanCode())),
    "cut.pth": first_part(GOOD, 0.6),
    "text.pth": content(TEXT),
    "html.pth": content(HTML),
    "empty.pth": content(b""),
}
