"""Define Whisper's encoder with causal attention in torch, to be trained: its own weights are frozen, low-rank changes
of them are learned (LoRA). `causal_whisper_inference.py` runs it without torch."""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.audio.causal_config import POSITIONS, WHISPER_WIDTH, CausalWhisperConfig
from kdtalker.audio.causal_whisper import (
    HEADS,
    SIZES,
    position_codes,
    read_whisper,
)
from kdtalker.audio.whisper import STEPS_PER_FRAME

QUERIES = 512  # steps that attend at once: memory does not grow with the square of the sound


class LowRankLinear(nn.Module):
    """Add to a frozen linear layer a low-rank change of its matrix, up @ down, which begins as 0 (LoRA, eq. 3)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, rank: int) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) * weight.shape[1] ** -0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, x: Tensor) -> Tensor:
        change = F.linear(F.linear(x, self.down), self.up)
        return F.linear(x, self.weight, self.bias) + change


class CausalWhisperLayer(nn.Module):
    """Apply a pre-norm transformer layer whose steps attend to `left` frames before theirs and `ahead` after it."""

    def __init__(self, whisper: dict[str, Tensor], name: str, ahead: int, config: CausalWhisperConfig) -> None:
        super().__init__()
        self._ahead, self._left = ahead, config.left_frames
        for one in SIZES:
            own = whisper[f"{name}.{one}.weight"], whisper[f"{name}.{one}.bias"]
            self.add_module(one, LowRankLinear(*own, config.rank))
        for norm in ("attention_norm", "mlp_norm"):
            for kind in ("weight", "bias"):
                self.register_buffer(f"{norm}_{kind}", whisper[f"{name}.{norm}.{kind}"], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map steps (B, 2 n, WHISPER_WIDTH) of n frames to (B, 2 (n - ahead), WHISPER_WIDTH)."""
        steps = x.shape[1] - STEPS_PER_FRAME * self._ahead
        query, key, value = self.get_submodule("attention_in")(self._normalise(x, "attention_norm")).chunk(3, -1)
        q, k, v = (rearrange(one, "b t (h c) -> b h t c", h=HEADS) for one in (query[:, :steps], key, value))
        mixed = torch.cat([self._attend(q, k, v, first) for first in range(0, steps, QUERIES)], 2)
        x = x[:, :steps] + self.get_submodule("attention_out")(rearrange(mixed, "b h t c -> b t (h c)"))
        wide = F.gelu(self.get_submodule("mlp_in")(self._normalise(x, "mlp_norm")))
        out: Tensor = x + self.get_submodule("mlp_out")(wide)
        return out

    def _normalise(self, x: Tensor, norm: str) -> Tensor:
        weight, bias = (cast(Tensor, getattr(self, f"{norm}_{kind}")) for kind in ("weight", "bias"))
        return F.layer_norm(x, (WHISPER_WIDTH,), weight, bias)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, first: int) -> Tensor:
        """Attend from QUERIES steps, from `first` on, to the keys (B, H, L, C) that they see."""
        query, start = query[:, :, first : first + QUERIES], max(0, first - STEPS_PER_FRAME * self._left)
        seen = slice(start, first + query.shape[2] + STEPS_PER_FRAME * self._ahead)
        key, value = key[:, :, seen], value[:, :, seen]
        own = torch.arange(first, first + query.shape[2], device=query.device) // STEPS_PER_FRAME
        other = torch.arange(start, start + key.shape[2], device=query.device) // STEPS_PER_FRAME
        distance = other[None] - own[:, None]
        mask = (distance <= self._ahead) & (distance >= -self._left)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class CausalWhisperNetwork(nn.Module):
    """Encode columns of log-mel to features at 25 Hz; `WhisperInference` runs it. The two steps of a frame are the odd
    one of Whisper's and the next; their convolutions hear three quarters of the frame ahead."""

    positions: Tensor

    def __init__(self, config: CausalWhisperConfig) -> None:
        super().__init__()
        self.config = config
        whisper = {name: torch.from_numpy(value) for name, value in read_whisper().items()}
        for name in ("conv1", "conv2", "norm"):
            for kind in ("weight", "bias"):
                self.register_buffer(f"whisper_{name}_{kind}", whisper[f"{name}.{kind}"], persistent=False)
        self.register_buffer("positions", torch.from_numpy(position_codes()), persistent=False)
        self.blocks = nn.ModuleList(
            CausalWhisperLayer(whisper, f"blocks.{number}", ahead, config) for number, ahead in enumerate(config.ahead)
        )
        self.output = nn.Linear(STEPS_PER_FRAME * WHISPER_WIDTH, config.features)
        self.norm = nn.LayerNorm(config.features)

    def forward(self, columns: Tensor) -> list[Tensor]:
        """Encode columns (B, 4 (T + lookahead), 80) to the outputs of all stages, of T frames each: those of frame t
        are the newest that feature t hears. The last are the features (B, T, C). In training the stream has run for a
        random time before."""
        x = F.gelu(F.conv1d(columns.transpose(1, 2), *self._own("conv1")))
        x = F.gelu(F.conv1d(x, *self._own("conv2"), stride=2)).transpose(1, 2)
        first = int(torch.randint(POSITIONS, ())) if self.training else 1
        x = x + self.positions[(first + torch.arange(x.shape[1], device=x.device)) % POSITIONS]
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        normed = F.layer_norm(x, (WHISPER_WIDTH,), *self._own("norm"))
        features = self.norm(self.output(rearrange(normed, "b (t s) c -> b t (s c)", s=STEPS_PER_FRAME)))
        return [*(one[:, one.shape[1] - x.shape[1] :] for one in outputs[:-1]), features]

    @property
    def macs(self) -> int:
        """Count multiply-accumulate operations a frame as `WhisperInference` makes them, normalisations left out."""
        config, (first, second) = self.config, (self._own(name)[0] for name in ("conv1", "conv2"))
        stem = (2 * STEPS_PER_FRAME + 1) * first.numel() + STEPS_PER_FRAME * second.numel()
        linear = sum(outputs * inputs for outputs, inputs in SIZES.values()) * STEPS_PER_FRAME * WHISPER_WIDTH**2
        keys = [STEPS_PER_FRAME * (config.left_frames + 1 + ahead) for ahead in config.ahead]
        attention = 2 * STEPS_PER_FRAME * WHISPER_WIDTH * sum(keys)
        return stem + len(keys) * linear + attention + self.output.weight.numel()

    def _own(self, name: str) -> tuple[Tensor, Tensor]:
        weight, bias = (cast(Tensor, getattr(self, f"whisper_{name}_{kind}")) for kind in ("weight", "bias"))
        return weight, bias
