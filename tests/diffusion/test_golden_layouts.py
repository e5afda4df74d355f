"""Every tensor of every published checkpoint, by name and shape, has its place in our networks; there are no others."""

import json
from pathlib import Path

import pytest
import torch

from kdtalker.audio.wav2lip import Wav2LipNetwork
from kdtalker.audio.wav2lip import rename_published as rename_wav2lip
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.denoiser import Denoiser
from kdtalker.diffusion.published import rename_published
from kdtalker.renderers.liveportrait.fast.folding import fold_spectral_norms
from kdtalker.renderers.liveportrait.nets.appearance import AppearanceExtractor
from kdtalker.renderers.liveportrait.nets.generator import SpadeGenerator
from kdtalker.renderers.liveportrait.nets.motion_extractor import MotionExtractor
from kdtalker.renderers.liveportrait.nets.retargeting import EYES, LIPS, STITCHING, RetargetingNetwork
from kdtalker.renderers.liveportrait.nets.warping import WarpingModule

GOLDEN = Path(__file__).parents[1] / "golden"
LAYOUTS = {
    **json.loads((GOLDEN / "liveportrait_layout.json").read_text()),
    "KDTalker": json.loads((GOLDEN / "kdtalker_layout.json").read_text()),
}


def part(name):
    """Of the file of the three small networks."""
    prefix = f"retarget_{name}.module."
    return lambda state: {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


NETWORKS = {
    "appearance": ("appearance_feature_extractor", AppearanceExtractor, dict),
    "motion": ("motion_extractor", MotionExtractor, dict),
    "warping": ("warping_module", WarpingModule, dict),
    "generator": ("spade_generator", SpadeGenerator, fold_spectral_norms),
    "stitching": ("stitching_retargeting_module", lambda: RetargetingNetwork(STITCHING), part("shoulder")),
    "lips": ("stitching_retargeting_module", lambda: RetargetingNetwork(LIPS), part("mouth")),
    "eyes": ("stitching_retargeting_module", lambda: RetargetingNetwork(EYES), part("eye")),
    "audio encoder": ("wav2lip", Wav2LipNetwork, rename_wav2lip),
    "denoiser": ("KDTalker", lambda: Denoiser(DenoiserConfig()), rename_published),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_golden_names_and_shapes(network):
    checkpoint, make, renamed = NETWORKS[network]
    published = {name: torch.ones(()).expand(shape) for name, shape in LAYOUTS[checkpoint].items()}
    with torch.device("meta"):
        ours = make().state_dict()
    found = {name: tuple(value.shape) for name, value in ours.items()}
    assert found == {name: tuple(value.shape) for name, value in renamed(published).items()}


def test_golden_every_checkpoint_has_its_networks():
    assert {checkpoint for checkpoint, _, _ in NETWORKS.values()} == set(LAYOUTS)
    small = LAYOUTS["stitching_retargeting_module"]
    assert sum(len(part(name)(small)) for name in ("shoulder", "mouth", "eye")) == len(small)
