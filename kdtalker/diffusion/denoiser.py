"""The network that predicts motion: spatio-temporal attention over keypoint, reference and frame tokens.

Tokens are [canonical keypoints, reference frame, frames...], each 70 wide (KDTalker, arXiv 2503.12963,
section 3). One class holds the published network and our small one; every dimension comes from
`DenoiserConfig`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdtalker.diffusion.config import DenoiserConfig

LEADING_TOKENS = 2  # the canonical keypoints and the reference frame stand before the frames
_NEAR, _BUCKETS, _FARTHEST = (
    8,
    16,
    128,
)  # position bias: exact below 8 frames, logarithmic up to 128, per direction
_KERNEL = 5


class AudioAdapter(nn.Module):
    """Audio features to the condition: each frame's features are narrowed, then frames look at their
    neighbours.

    (B, frames, audio_input) to (B, frames, audio_width); frame t sees t - 2n ... t + 2n for n blocks.
    Features that are all zero are no audio: zeros come out, as in training where audio is dropped.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.audio_width
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.audio_input)
        self.input = nn.Linear(config.audio_input, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.adapter_blocks))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, _KERNEL, padding=_KERNEL // 2) for _ in range(config.adapter_blocks)
        )

    def forward(self, features: Tensor) -> Tensor:
        x: Tensor = self.input(self.norm(self.dropout(features)))
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = x + self.dropout(convolution(F.silu(norm(x)).transpose(1, 2)).transpose(1, 2))
        return x * (features != 0).any(dim=-1, keepdim=True)


class ModulatedBlock(nn.Module):
    """A residual block of one token, scaled and shifted by the token's condition (FiLM, arXiv 1709.07871)."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.modulation = nn.Linear(config.time_width + config.audio_width, 2 * config.width)
        self.input = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, N, width), condition (B, N, time_width + audio_width) after its SiLU, to (B, N, width)."""
        scale, shift = self.modulation(condition).chunk(2, dim=-1)
        h = F.silu(torch.addcmul(shift, self.norm(self.input(x)), scale + 1))
        residual: Tensor = self.dropout(F.silu(self.output(h)))
        return x + residual


class Attention(nn.Module):
    """Attention over all tokens; rotary positions on a head's first channels, and a shared position bias."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * inner, bias=False)
        self.output = nn.Linear(inner, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        """x (B, N, width), rotation two of (N, rotary_width / 2), bias (1, heads, N, N), to (B, N, width)."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        h = F.scaled_dot_product_attention(_rotate(q, *rotation), _rotate(k, *rotation), v, attn_mask=bias)
        residual: Tensor = self.dropout(self.output(h.transpose(1, 2).reshape(batch, tokens, -1)))
        return x + residual


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of pairs (a, b) to (a cos - b sin, b cos + a sin) (arXiv 2104.09864, eq. 34)."""
    turned, rest = x[..., : 2 * cosine.shape[-1]], x[..., 2 * cosine.shape[-1] :]
    a, b = turned[..., 0::2], turned[..., 1::2]
    pairs = torch.stack([a * cosine - b * sine, b * cosine + a * sine], dim=-1)
    return torch.cat([pairs.flatten(-2), rest], dim=-1)


class Layer(nn.Module):
    """Two modulated blocks, then attention."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.first = ModulatedBlock(config)
        self.second = ModulatedBlock(config)
        self.attention = Attention(config)

    def forward(self, x: Tensor, condition: Tensor, rotation: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        x = self.second(self.first(x, condition), condition)
        attended: Tensor = self.attention(x, rotation, bias)
        return attended


class Denoiser(nn.Module):
    """Predicts the noise or the clean motion of each token (see `DenoiserConfig.prediction`).

    Train with `denoiser(x, timesteps, denoiser.adapt(features))`. "No audio", for classifier-free guidance,
    is an adapted audio of zeros, which is also what features of zeros become.
    """

    rotary_frequencies: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.adapter = AudioAdapter(config) if config.adapter_blocks else None
        self.time = nn.Sequential(
            nn.Linear(config.width, config.time_width),
            nn.SiLU(),
            nn.Linear(config.time_width, config.time_width),
        )
        self.input = nn.Linear(config.motion_width, config.width)
        self.position_bias = nn.Embedding(2 * _BUCKETS, config.heads)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.output = nn.Linear(config.width, config.motion_width)
        powers = torch.arange(0, config.rotary_width, 2, dtype=torch.float32) / config.rotary_width
        self.register_buffer("rotary_frequencies", 10000.0**-powers)

    def adapt(self, features: Tensor) -> Tensor:
        """Encoder's features (B, frames, audio_input) to the condition's audio (B, frames, audio_width)."""
        if self.adapter is None:
            return features
        adapted: Tensor = self.adapter(features)
        return adapted

    def forward(self, x: Tensor, timesteps: Tensor, audio: Tensor) -> Tensor:
        """Tokens (B, N, 70) in noise to the prediction (B, N, 70); N = 2 + frames, any number of frames.

        timesteps: (B,) for all tokens of a sample, or (B, N) for each token, 0 for a frame that is known
        (`token_timesteps` makes them). audio: what `adapt` returned, (B, frames, audio_width), the two
        leading tokens getting zeros, or (B, N, audio_width) for every token.
        """
        tokens = x.shape[1]
        audio = F.pad(audio, (0, 0, tokens - audio.shape[1], 0))
        steps = timesteps if timesteps.ndim == 2 else timesteps[:, None]
        time = self.time(_sinusoid(steps, self.config.width)).expand(-1, tokens, -1)
        condition = F.silu(torch.cat([time, audio], dim=-1))
        angles = torch.arange(tokens, device=x.device)[:, None] * self.rotary_frequencies
        rotation = angles.cos(), angles.sin()
        bias = self.position_bias(_buckets(tokens, x.device)).permute(2, 0, 1)[None]
        h = self.input(x)
        for layer in self.layers:
            h = layer(h, condition, rotation, bias)
        prediction: Tensor = self.output(h)
        return prediction


def token_timesteps(timesteps: Tensor, known: Tensor) -> Tensor:
    """Timesteps (B,), known frames (B, frames) bool to timesteps (B, 2 + frames) of all tokens."""
    frames = timesteps[:, None] * ~known
    return torch.cat([timesteps[:, None].expand(-1, LEADING_TOKENS), frames], dim=1)


def _sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """(B, n) to (B, n, width): sines then cosines of falling frequencies (arXiv 1706.03762, section 3.5)."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[..., None].float() * torch.exp(steps * (-math.log(10000) / (half - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _buckets(tokens: int, device: torch.device) -> Tensor:
    """(N, N) of 0..31: the bias bucket of each query (row) and key (column) (arXiv 1910.10683)."""
    position = torch.arange(tokens, device=device)
    behind = position[:, None] - position[None, :]
    distance = behind.abs()
    far = (distance.clamp(min=1) / _NEAR).log() / math.log(_FARTHEST / _NEAR) * (_BUCKETS - _NEAR)
    bucket = torch.where(distance < _NEAR, distance, (_NEAR + far.long()).clamp(max=_BUCKETS - 1))
    return bucket + _BUCKETS * (behind < 0)
