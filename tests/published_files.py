"""A folder of checkpoints laid out as the published ones are, on weights that anyone can regenerate."""

import json
from pathlib import Path

import numpy as np
import torch
from golden_weights import regenerate_all
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent / "golden"
KNOWN = ("wav2lip", "spade_generator")  # whose sha256 is in the table
# Weights that were never trained draw keypoints far outside the picture, where nothing moves; these bring them back.
CALM = {"fc_kp.weight": 0.1, "fc_exp.weight": 0.01, "fc_t.weight": 0.05, "shoulder.module.mlp.6.weight": 0.01,
        "mouth.module.mlp.6.weight": 0.01, "eye.module.mlp.10.weight": 0.01}  # fmt: skip
PARTS = {"scale": 1, "yaw": 1, "pitch": 1, "roll": 1, "t": 3, "exp": 63, "kp": 63}


def write_published_files(folder):
    """Write all checkpoints and norm.npz into `folder`; returns it."""
    layouts = json.loads((GOLDEN / "liveportrait_layout.json").read_text())
    layouts["KDTalker"] = json.loads((GOLDEN / "kdtalker_layout.json").read_text())
    for checkpoint, layout in layouts.items():
        state = regenerate_all(layout)
        for name, value in state.items():
            value.mul_(next((factor for end, factor in CALM.items() if name.endswith(end)), 1))
        if checkpoint == "stitching_retargeting_module":
            state = nested(state, ["retarget_shoulder", "retarget_mouth", "retarget_eye"])
        if checkpoint in KNOWN:  # these .pth files would be told from the published ones
            save_file(state, folder / f"{checkpoint}.safetensors")
        else:
            torch.save({"model": state, "step": 7} if checkpoint == "KDTalker" else state, folder / f"{checkpoint}.pth")
    calm = {"scale_mean": np.full(1, 1.2), "scale_std": np.full(1, 0.02)}
    calm |= {f"{part}_std": np.full(PARTS[part], 0.02) for part in ("t", "exp")}
    save_normalisation(folder / "norm.npz", **calm)
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
