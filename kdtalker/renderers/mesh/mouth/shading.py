"""Shade the skin around the mouth by a ratio image (Liu, Shan and Zhang 2001): what light and folds change between the
source image's expression and that of a frame, predicted by a small U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from numba import njit
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.core.arrays import Array, Image
from kdtalker.renderers.mesh.composite import sample_linear
from kdtalker.renderers.mesh.curves import soft_polygon
from kdtalker.renderers.mesh.eyes.parts import Crop, border_taper
from kdtalker.renderers.mesh.eyes.unet import Residual
from kdtalker.renderers.mesh.mouth.frame import ORIGIN, PX_PER_WIDTH, MouthFrame
from kdtalker.weights.checkpoint import read_checkpoint

SIDE_PX = 64  # side of the crop that the network sees
REACH, DROP = 0.95, 0.12  # half the crop's side, and its middle below that of the mouth, in mouth widths
INPUTS = 6  # channels: RGB, mask of the opening, displacement in x and y
DISPLACEMENT_UNIT_PX = 6.0  # of the crop
STILL_PX2 = 0.1  # mean square displacement at which half of the ratio is applied
MOST_LOG_RATIO = 0.4  # limit of the log ratio, approached softly
MOST_LIGHTER = 0.08  # largest log ratio that is drawn: dark folds keep their hue, and would glow if they got lighter
MOST_DISPLACEMENT_PX = 20.0  # of the crop: more is clipped


class RatioNetwork(nn.Module):
    """Predict the log of a ratio image from a warped crop and its displacement: luma at full resolution, chroma at
    half. widths: channels of the U-Net's levels."""

    def __init__(self, widths: Sequence[int] = (32, 48, 64)) -> None:
        super().__init__()
        self.dimensions = {"widths": list(widths)}
        steps = list(zip(widths, widths[1:], strict=False))
        self.stem = nn.Conv2d(4 * INPUTS + 2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(wide, narrow, 3, stride=2, padding=1) for wide, narrow in steps)
        self.encoder = nn.ModuleList(Residual(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(narrow, wide, 3, padding=1) for wide, narrow in steps)
        self.decoder = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 4 + 2, 3, padding=1)
        for weights in self.head.parameters():
            nn.init.zeros_(weights)
        self.register_buffer("taper", torch.from_numpy(border_taper(SIDE_PX)).float(), persistent=False)
        self.taper: Tensor
        along = torch.linspace(-1, 1, SIDE_PX // 2)
        self.register_buffer("place", torch.stack(torch.meshgrid(along, along, indexing="ij"))[None], persistent=False)
        self.place: Tensor

    def forward(self, warped: Tensor, mask: Tensor, displacement: Tensor) -> Tensor:
        """Map crops (B, 3, SIDE_PX, SIDE_PX) 0..1, masks (B, 1, ...) of the opening and displacements (B, 2, ...) px
        to log ratios (B, 3, ...), which fade out along the crop's border. Nothing changes where nothing has moved."""
        x = torch.cat([2 * warped - 1, mask, displacement / DISPLACEMENT_UNIT_PX], 1)
        x = self.stem(torch.cat([F.pixel_unshuffle(x, 2), self.place.expand(len(x), -1, -1, -1)], 1))
        skips = []
        for level, encoder in enumerate(self.encoder):
            x = encoder(x)
            skips.append(x)
            if level < len(self.down):
                x = self.down[level](F.silu(x))
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.up[level](F.silu(x)), scale_factor=2, mode="nearest")
            x = self.decoder[level](x + skips[level])
        out = self.head(F.silu(x))
        red, blue = F.interpolate(out[:, 4:], scale_factor=2, mode="bilinear", align_corners=False).unbind(1)
        ratio = F.pixel_shuffle(out[:, :4], 2) + torch.stack([red, -(red + blue) / 2, blue], 1)
        moved = (displacement**2).mean((1, 2, 3), keepdim=True)
        return MOST_LOG_RATIO * torch.tanh(ratio / MOST_LOG_RATIO) * (moved / (moved + STILL_PX2)) * self.taper

    @staticmethod
    def load(path: Path) -> RatioNetwork:
        """Load a checkpoint for inference. Raises InputError where the file is missing or another model's."""
        header, state = read_checkpoint(path, ("widths",))
        network = RatioNetwork(**header).eval().requires_grad_(False)
        network.load_state_dict(state)
        for weights in network.parameters():
            if weights.ndim == 4:
                weights.data = weights.data.contiguous(memory_format=torch.channels_last)  # faster on a CPU
        return network

    @torch.inference_mode()
    def predict(self, picture: Image, crop: Crop, opening: Array, displacement: Array) -> Array:
        """Predict the log ratio image (SIDE_PX, SIDE_PX, 3) of a warped frame (S, S, 3), 0 inside the mouth. opening
        (SIDE_PX, SIDE_PX) 0..1: mask of the opening; displacement (2, SIDE_PX, SIDE_PX) px of the crop."""
        view = rearrange(torch.from_numpy(crop.sample(picture)), "h w c -> 1 c h w") / 255
        ratio = self(view, torch.from_numpy(opening)[None, None], torch.from_numpy(displacement)[None])[0]
        outside = 1 - cv2.dilate(opening, np.ones((3, 3), np.uint8))
        log_ratio: Array = np.minimum(rearrange(ratio, "c h w -> h w c").numpy(), MOST_LIGHTER)
        return log_ratio * outside[..., None]


def apply_ratio(picture: Image, crop: Crop, log_ratio: Array) -> None:
    """Multiply the area of a crop in a frame (S, S, 3) by a ratio image, in place: its log (SIDE_PX, SIDE_PX, 3)."""
    low, high = crop.bounds(len(picture))
    if (high <= low).any():
        return
    matrix = crop.matrix.copy()
    matrix[:, 2] -= low
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    gain = cv2.warpAffine(cv2.exp(log_ratio), matrix, size, flags=cv2.INTER_LINEAR, borderValue=(1, 1, 1))
    area = picture[low[1] : high[1], low[0] : high[0]]
    area[:] = cv2.multiply(area, gain, dtype=cv2.CV_8U)


@njit(cache=True, nogil=True)
def weigh_ratio(log_ratio: Array, mask: Array, weight: float, saturation: float) -> Array:
    """Weigh a log ratio image (h, w, 3) by a mask (h, w) 0..1 and a weight; a saturation of 0 makes it grey."""
    weighed = np.empty_like(log_ratio)
    share, colourful = np.float32(weight), np.float32(saturation)
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            grey = (log_ratio[y, x, 0] + log_ratio[y, x, 1] + log_ratio[y, x, 2]) / np.float32(3)
            for channel in range(3):
                colour = grey + colourful * (log_ratio[y, x, channel] - grey)
                weighed[y, x, channel] = share * mask[y, x] * colour
    return weighed


def crop_around(frame: MouthFrame) -> Crop:
    """Compute the crop around a mouth, whose axes are those of the mouth's frame."""
    per_width = frame.matrix[:, :2] * PX_PER_WIDTH
    linear = per_width * (2 * REACH / SIDE_PX)
    middle = frame.matrix[:, :2] @ np.array(ORIGIN) + frame.matrix[:, 2] + DROP * per_width[:, 1]
    corner = middle - linear @ np.full(2, (SIDE_PX - 1) / 2)
    return Crop(np.c_[linear, corner].astype(np.float32), SIDE_PX, float(np.linalg.norm(linear[:, 0])))


def crop_mask(crop: Crop, contour: Array, blur_px: float = 0.6) -> Array:
    """Rasterise a contour (N, 2) px to a mask (SIDE_PX, SIDE_PX) 0..1 of the crop, blurred by blur_px of the crop."""
    return soft_polygon((SIDE_PX, SIDE_PX), crop.to_crop(contour).astype(np.float32), blur_px)


def measure_displacement(flow: Array, crop: Crop, source_crop: Crop) -> Array:
    """Compute the displacement of each px of a crop from the source image's crop, (2, SIDE_PX, SIDE_PX) px of the crop:
    the motion of the skin in the mouth's frame, in which turns of the head remain as parallax. flow (2, S, S):
    the frame's backward flow."""
    to_source_crop = np.ascontiguousarray(cv2.invertAffineTransform(source_crop.matrix), np.float32)
    return np.asarray(_measure_displacement(flow, crop.matrix, to_source_crop))


@njit(cache=True, nogil=True)
def _measure_displacement(flow: Array, matrix: Array, to_source_crop: Array) -> Array:
    displacement = np.empty((2, SIDE_PX, SIDE_PX), np.float32)
    last, most = np.float32(flow.shape[-1] - 1), np.float32(MOST_DISPLACEMENT_PX)
    for row in range(SIDE_PX):
        for column in range(SIDE_PX):
            x = matrix[0, 0] * column + matrix[0, 1] * row + matrix[0, 2]
            y = matrix[1, 0] * column + matrix[1, 1] * row + matrix[1, 2]
            inside_x, inside_y = min(max(x, 0), last), min(max(y, 0), last)
            u = sample_linear(flow[0], inside_x, inside_y) + x - inside_x  # beyond the picture nothing moves
            v = sample_linear(flow[1], inside_x, inside_y) + y - inside_y
            for axis, here in enumerate((column, row)):
                back = to_source_crop[axis, 0] * u + to_source_crop[axis, 1] * v + to_source_crop[axis, 2]
                displacement[axis, row, column] = min(max(back - here, -most), most)
    return displacement
