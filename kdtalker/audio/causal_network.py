"""Define the causal audio encoder in torch: four stages of convolutions over log-mel, the look-ahead in the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.audio.causal_config import CausalEncoderConfig
from kdtalker.audio.mel import MEL_BANDS


class CausalConv(nn.Conv1d):
    """Convolve (B, T, C) in time; a step sees itself and those before, the last inputs being a state in and out."""

    @property
    def kept(self) -> int:
        """Count the inputs that are kept between calls."""
        return int(self.kernel_size[0] - self.stride[0])

    def advance(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (B, n stride, C) and state (B, kept, C) to (B, n, D) and the next state."""
        if not x.shape[1]:
            return x.new_zeros(len(x), 0, self.out_channels), state
        inputs = torch.cat([state, x], 1)
        return self(inputs.transpose(1, 2)).transpose(1, 2), inputs[:, inputs.shape[1] - self.kept :]


class CausalStage(nn.Module):
    """Convolve with a stride, then add a residual block of two convolutions, pre-activated, normalised per step."""

    def __init__(self, inputs: int, width: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.input = CausalConv(inputs, width, kernel, stride)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.convolutions = nn.ModuleList(CausalConv(width, width, kernel) for _ in range(2))
        nn.init.zeros_(cast(CausalConv, self.convolutions[1]).weight)

    @property
    def all_convolutions(self) -> list[CausalConv]:
        """Return the convolutions in the order of their states."""
        return [self.input, *(cast(CausalConv, one) for one in self.convolutions)]

    def advance(self, x: Tensor, states: Sequence[Tensor], skip: int = 0) -> tuple[Tensor, list[Tensor]]:
        """Map x (B, n stride, C) to (B, n - skip, width): `skip` outputs of the first convolution are dropped."""
        x, state = self.input.advance(x, states[0])
        x, after = x[:, skip:], [state]
        h = x
        for norm, convolution, before in zip(self.norms, self.convolutions, states[1:], strict=True):
            h, state = cast(CausalConv, convolution).advance(F.silu(norm(h)), before)
            after.append(state)
        return x + h, after


class CausalEncoderNetwork(nn.Module):
    """Encode columns of log-mel to features at 25 Hz; `EncoderInference` runs it. Feature t hears the columns up to
    frame t + lookahead_frames: the last stage's outputs count from there on."""

    def __init__(self, config: CausalEncoderConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (MEL_BANDS, *config.widths)
        self.stages = nn.ModuleList(
            CausalStage(before, width, stride, config.kernel)
            for before, width, stride in zip(inputs, config.widths, config.strides, strict=False)
        )
        self.norm = nn.LayerNorm(config.widths[-1])

    def forward(self, columns: Tensor) -> list[Tensor]:
        """Encode columns (B, 4 (T + lookahead), 80) to the outputs of all stages, of T frames each: those of frame t
        are the newest that feature t hears. The last are the features (B, T, C)."""
        outputs, _ = self.advance(columns, self.initial(len(columns)), self.config.lookahead_frames)
        ahead = self.config.lookahead_frames
        shifted = [x[:, ahead * steps :] for x, steps in zip(outputs[:-1], self.config.steps, strict=False)]
        return [*shifted, outputs[-1]]

    def advance(self, x: Tensor, states: Sequence[Tensor], skip: int) -> tuple[list[Tensor], list[Tensor]]:
        """Advance all stages by columns (B, 4 n, 80); the last one drops `skip` frames."""
        outputs, after, last = [], [], len(self.stages) - 1
        for number, stage in enumerate(self.stages):
            mine = states[3 * number : 3 * number + 3]
            x, kept = cast(CausalStage, stage).advance(x, mine, skip if number == last else 0)
            outputs.append(x)
            after += kept
        return [*outputs[:-1], self.norm(x)], after

    @property
    def macs(self) -> int:
        """Count multiply-accumulate operations a frame, normalisations left out."""
        counts = (
            one.weight.numel() * steps
            for stage, steps in zip(self.stages, self.config.steps, strict=True)
            for one in cast(CausalStage, stage).all_convolutions
        )
        return sum(counts)

    def initial(self, size: int) -> list[Tensor]:
        """Return the states of silence that never was: zeros, as at the start of every sequence."""
        device = self.norm.weight.device
        convolutions = [one for stage in self.stages for one in cast(CausalStage, stage).all_convolutions]
        return [torch.zeros(size, one.kept, one.in_channels, device=device) for one in convolutions]
