"""The published network, on weights that anyone can regenerate, gives the reference implementation's numbers.

`golden/kdtalker_layout.json` lists the checkpoint's tensors, `golden/kdtalker_outputs.npz` holds reference
outputs, large ones as 1024 values at flat indices with the whole array's standard deviation.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import assert_golden, regenerate, standard_normal

from kdtalker.core.errors import InputError
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.denoiser import Denoiser
from kdtalker.diffusion.published import rename_published
from kdtalker.diffusion.sampler import sample_window
from kdtalker.diffusion.solver import make_scheduler

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def published_state():
    layout = json.loads((GOLDEN / "kdtalker_layout.json").read_text())
    return {name: regenerate(name, shape) for name, shape in layout.items()}


@pytest.fixture(scope="module")
def denoiser(published_state):
    with torch.device("meta"):
        network = Denoiser(DenoiserConfig())
    network.load_state_dict(rename_published(published_state), strict=True, assign=True)
    return network.eval()


@pytest.fixture(scope="module")
def outputs():
    with np.load(GOLDEN / "kdtalker_outputs.npz") as file:
        return dict(file)


def test_golden_published_size(published_state):
    assert sum(value.numel() for value in published_state.values()) == pytest.approx(42.93e6, abs=5e3)


def test_golden_denoiser(denoiser, outputs):
    with torch.inference_mode():
        audio = denoiser.adapt(standard_normal("input:denoiser/audio", 2, 66, 512))
        found = denoiser(standard_normal("input:denoiser/x", 2, 66, 70), torch.tensor([999, 37]), audio)
    assert_golden(outputs, "denoiser/noise_pred", found)


def test_golden_scheduler(outputs):
    scheduler = make_scheduler(DenoiserConfig(), steps=10)
    assert scheduler.timesteps.tolist() == outputs["sample/timesteps"].tolist()
    np.testing.assert_allclose(scheduler.alphas_cumprod, outputs["scheduler/alphas_cumprod"], rtol=1e-6)


def test_golden_sample(denoiser, outputs):
    found = sample_window(
        denoiser,
        standard_normal("input:sample/canonical", 1, 63).numpy(),
        standard_normal("input:sample/reference", 1, 70).numpy(),
        standard_normal("input:sample/audio", 1, 64, 512).numpy(),
        known=np.zeros((1, 0, 70), np.float32),
        noise=standard_normal("input:sample/noise", 1, 64, 70).numpy(),
        sampling=Sampling(10),
    )
    assert_golden(outputs, "sample/motion", torch.from_numpy(found))


def test_golden_rename_keeps_every_tensor_but_the_unused(published_state):
    unused = {name for name in published_state if ".block2.norm." in name or name.endswith(".freq_bands")}
    frequencies = [name for name in published_state if name.endswith(".freqs")]
    renamed = rename_published(published_state)
    assert len(renamed) == len(published_state) - len(unused) - len(frequencies) + 1
    dropped = {*unused, *frequencies[1:]}
    kept = sorted(value.sum().item() for name, value in published_state.items() if name not in dropped)
    assert sorted(value.sum().item() for value in renamed.values()) == pytest.approx(kept, rel=1e-4)


def test_golden_load_refuses_a_tensor_it_does_not_know(published_state):
    strange = published_state | {"point_model.model.layers.0.0.block3.proj.weight": torch.zeros(2, 2)}
    with torch.device("meta"):
        network = Denoiser(DenoiserConfig())
    with pytest.raises(RuntimeError, match="block3"):
        network.load_state_dict(rename_published(strange), strict=True, assign=True)


def test_golden_rename_refuses_other_checkpoints(published_state):
    with pytest.raises(InputError, match="begin with 'point_model"):
        rename_published({"audio_encoder.weight": torch.zeros(1)})
    damaged = dict(published_state)
    damaged["point_model.model.layers.3.2.fn.fn.rotary_emb.freqs"] = torch.ones(6)
    with pytest.raises(InputError, match="damaged"):
        rename_published(damaged)
