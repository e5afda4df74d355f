"""Denoiser of the motion diffusion model: a transformer over keypoint, reference and frame tokens.

Tokens are [canonical keypoints, reference frame, frames...], each 70 wide (KDTalker, arXiv 2503.12963,
section 3). One class holds the published network and our small one; every dimension comes from
`DenoiserConfig`.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kdtalker.core.arrays import Array
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.header import require_shapes
from kdtalker.weights.checkpoint import read_checkpoint

LEADING_TOKENS = 2  # the canonical keypoints and the reference frame stand before the frames
_NEAR, _BUCKETS, _FARTHEST = 8, 16, 128  # position bias per direction: exact below 8 frames, logarithmic up to 128
_KERNEL = 5  # frames that a convolution of the adapter sees


class AudioAdapter(nn.Module):
    """Project audio features to the condition: a linear layer, then residual convolutions over time.

    (B, frames, audio_input) to (B, frames, audio_width); frame t sees t - 2n ... t + 2n for n blocks.
    A frame of zeros is dropped audio (classifier-free guidance): zeros come out.
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
    """Residual MLP block with FiLM conditioning: scale and shift from a token's condition (arXiv 1709.07871)."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.modulation = nn.Linear(config.time_width + config.audio_width, 2 * config.width)
        self.input = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map x (B, N, width), condition (B, N, time_width + audio_width) after its SiLU, to (B, N, width)."""
        scale, shift = self.modulation(condition).chunk(2, dim=-1)
        h = F.silu(torch.addcmul(shift, self.norm(self.input(x)), scale + 1))
        residual: Tensor = self.dropout(F.silu(self.output(h)))
        return x + residual


class Attention(nn.Module):
    """Self-attention over all tokens: rotary embedding on a head's first channels and a shared position bias."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * inner, bias=False)
        self.output = nn.Linear(inner, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        """Map x (B, N, width), rotation two of (N, rotary_width / 2), bias (1, heads, N, N), to (B, N, width)."""
        q, k, v = rearrange(self.qkv(self.norm(x)), "b n (qkv heads c) -> qkv b heads n c", qkv=3, heads=self.heads)
        h = F.scaled_dot_product_attention(_rotate(q, *rotation), _rotate(k, *rotation), v, attn_mask=bias)
        residual: Tensor = self.dropout(self.output(rearrange(h, "b heads n c -> b n (heads c)")))
        return x + residual


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply the rotary embedding to pairs (a, b) to (a cos - b sin, b cos + a sin) (arXiv 2104.09864, eq. 34)."""
    rotary, rest = x[..., : 2 * cosine.shape[-1]], x[..., 2 * cosine.shape[-1] :]
    a, b = rotary[..., 0::2], rotary[..., 1::2]
    pairs = torch.stack([a * cosine - b * sine, b * cosine + a * sine], dim=-1)
    return torch.cat([rearrange(pairs, "... c two -> ... (c two)"), rest], dim=-1)


class Layer(nn.Module):
    """Transformer layer: two modulated blocks, then self-attention."""

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
    """Predict the noise or the clean motion of each token (see `DenoiserConfig.prediction`).

    Train with `denoiser(x, timesteps, denoiser.adapt(features))`. "No audio", for classifier-free guidance,
    is an adapted audio of zeros, which is also what features of zeros become. Implements MotionDenoiser, on any
    device; in eval mode, else its dropout joins in.
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
        self.input = nn.Linear(MOTION_WIDTH, config.width)
        self.position_bias = nn.Embedding(2 * _BUCKETS, config.heads)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.output = nn.Linear(config.width, MOTION_WIDTH)
        powers = torch.arange(0, config.rotary_width, 2, dtype=torch.float32) / config.rotary_width
        self.register_buffer("rotary_frequencies", 10000.0**-powers)

    def adapt(self, features: Tensor) -> Tensor:
        """Project features (B, frames, audio_input) to the condition's audio (B, frames, audio_width)."""
        if self.adapter is None:
            return features
        adapted: Tensor = self.adapter(features)
        return adapted

    def forward(self, x: Tensor, timesteps: Tensor, audio: Tensor) -> Tensor:
        """Denoise tokens (B, N, 70) to the prediction (B, N, 70); N = 2 + frames, any number of frames.

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
        bias = rearrange(self.position_bias(_buckets(tokens, x.device)), "q k heads -> 1 heads q k")
        h = self.input(x)
        for layer in self.layers:
            h = layer(h, condition, rotation, bias)
        prediction: Tensor = self.output(h)
        return prediction

    @torch.inference_mode()
    def encode_audio(self, features: Array) -> Array:
        return _to_array(self.adapt(self._to_device(features)))

    @torch.inference_mode()
    def denoise(self, tokens: Array, timesteps: Array, audio: Array) -> Array:
        return _to_array(self(*map(self._to_device, (tokens, timesteps, audio))))

    def _to_device(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.output.weight.device)


def load_denoiser(path: Path, config: DenoiserConfig) -> Denoiser:
    """Load the denoiser of a checkpoint, whose header says `config`, for inference. Raises InputError where the file
    does not fit it, or is damaged."""
    with torch.device("meta"):
        denoiser = Denoiser(config)
    require_shapes(path, {name: tuple(value.shape) for name, value in denoiser.state_dict().items()})
    denoiser.load_state_dict(read_checkpoint(path, ())[1], strict=True, assign=True)
    return denoiser.eval().requires_grad_(False)


def _to_array(values: Tensor) -> Array:
    array: Array = values.float().cpu().numpy()
    return array


def leading_tokens(canonical: Tensor, reference: Tensor) -> Tensor:
    """Stack normalised canonical keypoints (B, 63) and reference frame (B, 70) as leading tokens (B, 2, 70)."""
    padded = F.pad(canonical, (MOTION_WIDTH - canonical.shape[1], 0))
    return torch.stack([padded, reference], dim=1)


def token_timesteps(timesteps: Tensor, known: Tensor) -> Tensor:
    """Expand timesteps (B,) to those of all tokens (B, 2 + frames), 0 where known (B, frames) is true."""
    frames = timesteps[:, None] * ~known
    return torch.cat([timesteps[:, None].expand(-1, LEADING_TOKENS), frames], dim=1)


def _sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """Embed timesteps (B, n) as sinusoids (B, n, width), sines then cosines (arXiv 1706.03762, section 3.5)."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[..., None].float() * torch.exp(steps * (-math.log(10000) / (half - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _buckets(tokens: int, device: torch.device) -> Tensor:
    """Compute relative position buckets (N, N) in 0..31 of query (row) and key (column) (arXiv 1910.10683)."""
    position = torch.arange(tokens, device=device)
    behind = position[:, None] - position[None, :]
    distance = behind.abs()
    far = (distance.clamp(min=1) / _NEAR).log() / math.log(_FARTHEST / _NEAR) * (_BUCKETS - _NEAR)
    bucket = torch.where(distance < _NEAR, distance, (_NEAR + far.long()).clamp(max=_BUCKETS - 1))
    return bucket + _BUCKETS * (behind < 0)
