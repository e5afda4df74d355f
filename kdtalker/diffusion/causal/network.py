"""Define the student in torch, to be trained: the causal audio encoder and the causal motion network. It runs in
numpy."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.audio.causal_config import CausalWhisperConfig, EncoderConfig
from kdtalker.audio.causal_network import CausalEncoderNetwork
from kdtalker.audio.causal_whisper_network import CausalWhisperNetwork
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.diffusion.causal.header import StudentConfig, StudentHeader, read_student_header
from kdtalker.diffusion.causal.inference import PORTRAIT_WIDTH, scale_inputs
from kdtalker.diffusion.causal.personal import read_student_arrays
from kdtalker.weights.checkpoint import write_checkpoint
from kdtalker.weights.strict import load_strictly

_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE = -6.0, 2.0


class MotionHead(nn.Module):
    """Map states (..., H), in a second step with a draft (..., 70) of the motion, to mean and log variance, (..., 140)
    together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, width)
        self.draft = nn.Linear(MOTION_WIDTH, width, bias=False)
        self.output = nn.Linear(width, 2 * MOTION_WIDTH)

    def forward(self, states: Tensor, draft: Tensor | None = None) -> Tensor:
        inner = self.input(states) if draft is None else self.input(states) + self.draft(draft)
        prediction: Tensor = self.output(F.silu(inner))
        return prediction


class CausalMotionNetwork(nn.Module):
    """Predict the motion of a frame from its audio feature, the frame before, the portrait and noise, by a recurrent
    layer: all that came before is in its state (B, H)."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.widths[-1]
        self.input = nn.Linear(width + MOTION_WIDTH + PORTRAIT_WIDTH + config.noise, config.inputs)
        self.recurrent = nn.GRU(config.inputs, config.hidden, batch_first=True)
        self.head = MotionHead(config.hidden)

    def trunk(
        self, features: Tensor, before: Tensor, portrait: Tensor, noise: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map features (B, T, C), the motion before each frame (B, T, 70), portrait (B, 133), noise (B, T, N) and the
        state before to hidden states (B, T, H) and the state after."""
        known = portrait[:, None].expand(-1, features.shape[1], -1)
        inputs = torch.cat([features, before, known, noise], -1)
        inputs[..., list(scale_inputs(self.config))] = 0
        inputs = F.silu(self.input(inputs))
        hidden, last = self.recurrent(inputs, None if state is None else state[None])
        return hidden, last[0]

    def predict(self, hidden: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Predict mean and log variance, (..., 70) each, from hidden states (..., H)."""
        draft, log_variance = None, None
        for _ in range(steps):
            draft, log_variance = split_prediction(self.head(hidden, draft))
        assert draft is not None and log_variance is not None
        return draft, log_variance


def split_prediction(prediction: Tensor) -> tuple[Tensor, Tensor]:
    """Split predictions (..., 140) into mean and log variance, the latter limited."""
    mean, log_variance = prediction.chunk(2, dim=-1)
    return mean, log_variance.clamp(_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE)


def make_encoder(config: EncoderConfig) -> CausalEncoderNetwork | CausalWhisperNetwork:
    """Make the audio encoder of a config."""
    return CausalWhisperNetwork(config) if isinstance(config, CausalWhisperConfig) else CausalEncoderNetwork(config)


class StudentNetwork(nn.Module):
    """Hold both networks of a student, and nothing else: its state dict is what is exported."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config.encoder)
        self.motion = CausalMotionNetwork(config)


def load_network(path: Path, personal: float | None = None) -> StudentNetwork:
    """Load the network of a student, in eval mode; personal: how much like the person that it holds, 0..1, None for 1
    where it holds one. Raises InputError where the file is missing, damaged or another model's, or holds nobody."""
    config = read_student_header(path).config
    state = {name: torch.from_numpy(value) for name, value in read_student_arrays(path, personal).items()}
    return load_strictly(lambda: StudentNetwork(config), state, path)


def save_student(path: Path, network: StudentNetwork, header: StudentHeader, *, half: bool = True) -> None:
    """Write a student as one safetensors file, matrices as float16 where `half`. Raises OutputError where there is no
    room."""
    values = {
        "space": header.space,
        "student": header.config.header(),
        "normalisation": header.normalisation.header(),
        "card": header.card,
    }
    write_checkpoint(path, network.state_dict(), values, half=half)
