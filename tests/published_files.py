"""A folder of checkpoints laid out as the published ones are, on weights that anyone can regenerate."""

import json
from pathlib import Path

import numpy as np
import torch
from golden_weights import regenerate_all
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent / "golden"
KNOWN = ("wav2lip", "spade_generator")  # whose sha256 is in the table
PARTS = {"scale": 1, "yaw": 1, "pitch": 1, "roll": 1, "t": 3, "exp": 63, "kp": 63}


def write_published_files(folder):
    """Write all checkpoints and norm.npz into `folder`; returns it."""
    layouts = json.loads((GOLDEN / "liveportrait_layout.json").read_text())
    layouts["KDTalker"] = json.loads((GOLDEN / "kdtalker_layout.json").read_text())
    for checkpoint, layout in layouts.items():
        state = regenerate_all(layout)
        if checkpoint == "stitching_retargeting_module":
            state = nested(state, ["retarget_shoulder", "retarget_mouth", "retarget_eye"])
        if checkpoint in KNOWN:  # these .pth files would be told from the published ones
            save_file(state, folder / f"{checkpoint}.safetensors")
        else:
            torch.save({"model": state, "step": 7} if checkpoint == "KDTalker" else state, folder / f"{checkpoint}.pth")
    # Whatever weights that were never trained draw, a scale is above 0.
    save_normalisation(folder / "norm.npz", scale_mean=np.float32([1.5]), scale_std=np.float32([0.05]))
    return folder


def nested(state, names):
    """Tensors `name.rest` as {name: {rest: tensor}}."""
    return {
        name: {full.removeprefix(f"{name}."): value for full, value in state.items() if full.startswith(f"{name}.")}
        for name in names
    }


def save_normalisation(path, **changes):
    values = {
        f"{part}_{kind}": np.full(width, kind == "std") for part, width in PARTS.items() for kind in ("mean", "std")
    }
    np.savez(path, **{name: value for name, value in (values | changes).items() if value is not None})
