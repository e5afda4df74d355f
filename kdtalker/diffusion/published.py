"""Load the published KDTalker checkpoint: names are mapped to ours, then it is loaded strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import LIVEPORTRAIT_SPACE
from kdtalker.core.npz import read_npz
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.denoiser import Denoiser
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.weights.strict import Find, load_strictly, rename_entry

_PARTS = ("scale", "yaw", "pitch", "roll", "t", "exp")  # in the order of a motion vector

_PREFIX = "point_model.model."

_ROTARY = re.compile(r"layers\.\d+\.2\.fn\.fn\.rotary_emb\.freqs")

_UNUSED = re.compile(r"positional_encoding\.freq_bands|layers\.\d+\.[01]\.block2\.norm\.(gamma|beta)")

_RENAMES = (
    (r"^time_mlp\.1\.", "time.0."),
    (r"^time_mlp\.3\.", "time.2."),
    (r"^input_projection\.", "input."),
    (r"^output_projection\.", "output."),
    (r"^time_rel_pos_bias\.relative_attention_bias\.", "position_bias."),
    (r"^(layers\.\d+)\.0\.", r"\1.first."),
    (r"^(layers\.\d+)\.1\.", r"\1.second."),
    (r"\.mlp\.1\.", ".modulation."),
    (r"\.block1\.proj\.", ".input."),
    (r"\.block1\.norm\.", ".norm."),
    (r"\.block2\.proj\.", ".output."),
    (r"^(layers\.\d+)\.2\.fn\.norm\.", r"\1.attention.norm."),
    (r"^(layers\.\d+)\.2\.fn\.fn\.to_qkv\.", r"\1.attention.qkv."),
    (r"^(layers\.\d+)\.2\.fn\.fn\.proj\.", r"\1.attention.output."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
)


def rename_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the names of the published state dict (its `model` entry) to those of `Denoiser`, to be loaded strictly.

    Left out are the tensors that the published network holds but never uses; its layers' equal rotary
    frequencies become one. Raises InputError for a name without the published prefix or rotary frequencies
    that differ.
    """
    renamed: dict[str, Tensor] = {}
    for published, value in state.items():
        name = published.removeprefix(_PREFIX)
        if name == published:
            raise InputError(f"The checkpoint holds '{published}', wanted names that begin with '{_PREFIX}'.")
        if _UNUSED.fullmatch(name):
            continue
        if _ROTARY.fullmatch(name):
            if not torch.equal(renamed.setdefault("rotary_frequencies", value), value):
                raise InputError(f"The checkpoint's '{published}' differs from that of other layers; it is damaged.")
            continue
        is_gain = name.endswith((".gamma", ".beta"))  # (1, 1, width)
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value.flatten() if is_gain else value
    return renamed


def read_normalisation(path: Path) -> Normalisation:
    """Read the published `norm.npz`: mean and std of each part of a motion vector, and of the canonical keypoints.

    A std of 0, of numbers that never change, counts as 1. Raises InputError where the file is not what it should be.
    """
    values = read_npz(path, [f"{part}_{kind}" for part in (*_PARTS, "kp") for kind in ("mean", "std")])
    try:
        mean, std = (np.concatenate([values[f"{part}_{kind}"].ravel() for part in _PARTS]) for kind in ("mean", "std"))
        canonical_mean, canonical_std = values["kp_mean"].ravel(), values["kp_std"].ravel()
        return Normalisation(mean, _usable(std), canonical_mean, _usable(canonical_std))
    except KeyError as error:
        raise InputError(f"'{path}' lacks {error}, wanted the published norm.npz; download it again.") from None
    except InputError as error:
        raise InputError(f"'{path}' is not the published norm.npz: {error}") from None


def _usable(spread: Array) -> Array:
    return np.where(spread == 0, np.float32(1), spread)


def load_published_model(find: Find, device: torch.device) -> DiffusionMotionModel:
    """Load KDTalker's published denoiser onto a device. Raises InputError where weights are missing or damaged."""
    path = find("KDTalker.pth")
    state = rename_entry(rename_published, path, "model")
    denoiser = load_strictly(lambda: Denoiser(DenoiserConfig()), state, path).to(device)
    return DiffusionMotionModel(denoiser, read_normalisation(find("norm.npz")), LIVEPORTRAIT_SPACE)
