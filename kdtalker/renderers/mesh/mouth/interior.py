"""The network that draws the inside of the mouth, in torch; `InteriorNetwork` runs its graphs. It draws layers: tongue
and depth, lower teeth that follow the jaw, upper teeth.

The teeth are textures (RGBA) of a linear model that are chosen once for a source image, so that every frame shows the
same ones; a small network only shades them and draws what is behind. All images lie in the mouth's frame: the resting
mouth is PX_PER_WIDTH px wide and level in it, and the skull stands still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.renderers.mesh.mouth.frame import (
    CELL_PX,
    GEOMETRY_SIZE,
    HEIGHT_PX,
    LEAST_LOGIT,
    MAPS,
    TEXTURE_PX,
    WIDTH_PX,
)
from kdtalker.weights.checkpoint import read_checkpoint

COLOUR_SIZE = 6  # mean colours of skin and lips, RGB 0..1
LOWER_TOP_PX = 18.0  # row of the frame at which the lower teeth's texture begins while the jaw rests
JAW_SHARE = 0.8  # of the chin's motion, done by the lower teeth
SCALE_UNIT = 0.02  # unit of the log scale of teeth, which counts as much as a px of displacement
UPPER_REACH_PX, LOWER_REACH_PX = 4.0, 8.0  # displacement of the teeth for one unit of the network's output


@dataclass(frozen=True)
class Layers:
    """Hold the layers of images in the mouth's frame: background (B, 3, H, W); of the upper and the lower teeth, each
    in this order, colours (B, 2, 3, H, W) as shaded and alpha (B, 2, 1, H, W)."""

    background: Tensor
    colours: Tensor
    alpha: Tensor

    def composite(self) -> Tensor:
        """Composite the layers from back to front: (B, 3, H, W) in 0..1."""
        image = self.background
        for layer in (1, 0):
            image = image + self.alpha[:, layer] * (self.colours[:, layer] - image)
        return image


class MouthEncoder(nn.Module):
    """Encode a source image's mouth, open or closed, to the codes by which other frames of it are drawn."""

    def __init__(self, code_size: int, style_size: int, widths: Sequence[int] = (16, 32, 48, 64)) -> None:
        super().__init__()
        self.sizes = 2 * code_size, style_size, 6
        self.convs = nn.ModuleList(
            nn.Conv2d(inner, outer, 3, stride=2, padding=1) for inner, outer in zip((4, *widths), widths, strict=False)
        )
        self.mix = nn.Sequential(
            nn.Linear(widths[-1] * 4 * 5 + GEOMETRY_SIZE + COLOUR_SIZE, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU()
        )
        self.head = nn.Linear(128, sum(self.sizes))
        for weights in self.head.parameters():
            nn.init.zeros_(weights)

    def forward(self, picture: Tensor, mask: Tensor, geometry: Tensor, colour: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map pictures (B, 3, H, W) 0..1 in the mouth's frame, masks (B, 1, H, W), geometry and colour of the lips to
        code (B, 2, code_size), style (B, style_size) and place (B, 2, 3)."""
        x = F.avg_pool2d(2 * torch.cat([picture, mask], 1) - 1, 2)
        for conv in self.convs:
            x = F.silu(conv(x))
        pooled = F.adaptive_avg_pool2d(x, (4, 5)).flatten(1)
        code, style, place = self.head(self.mix(torch.cat([pooled, geometry, colour], 1))).split(self.sizes, 1)
        return rearrange(code, "b (layer k) -> b layer k", layer=2), style, place.reshape(-1, 2, 3)


class MouthInterior(nn.Module):
    """Draw the inside of the mouth from lips, colours and codes: a linear texture model of teeth and a network that
    shades them (deferred neural rendering, Thies et al. 2019, with teeth as the only texture).

    code_size: components of the texture model; style_size: numbers that describe what light and depth are like;
    plates: number of sharp details, of which one is added to the textures of a source image."""

    def __init__(self, code_size: int, style_size: int, width: int = 32, plates: int = 0) -> None:
        super().__init__()
        self.code_size, self.style_size, self.width = code_size, style_size, width
        shape = (2, 4, TEXTURE_PX, WIDTH_PX)
        self.mean = nn.Parameter(torch.zeros(shape))
        self.basis = nn.Parameter(0.02 * torch.randn(code_size, *shape))
        self.register_buffer("plates", torch.zeros(plates, *shape))
        self.register_buffer("plate_codes", torch.zeros(plates, 2, code_size))
        self.plates: Tensor
        self.plate_codes: Tensor
        self.encoder = MouthEncoder(code_size, style_size)
        self.teeth_colour = nn.Linear(COLOUR_SIZE, 3)
        self.base_colour = nn.Linear(COLOUR_SIZE, 3)
        self.global_net = nn.Sequential(
            nn.Linear(GEOMETRY_SIZE + COLOUR_SIZE + style_size, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU()
        )
        self.modulation, self.placement = nn.Linear(96, 3 * width), nn.Linear(96, 4)
        self.convs = nn.ModuleList(nn.Conv2d(channels, width, 3, padding=1) for channels in (MAPS, width, width))
        self.head = nn.Conv2d(width, 7, 3, padding=1)
        for weights in (*self.placement.parameters(), *self.head.parameters()):
            nn.init.zeros_(weights)

    def textures(self, code: Tensor, colour: Tensor) -> Tensor:
        """Compute the teeth textures (B, 2, 4, TEXTURE_PX, WIDTH_PX), RGBA in 0..1, upper and lower, of codes (B, 2,
        code_size) and colours (B, COLOUR_SIZE)."""
        logits = self.mean + torch.einsum("blk,klchw->blchw", code, self.basis)
        tint = F.pad(self.teeth_colour(colour), (0, 1))[:, None, :, None, None]
        return torch.sigmoid(logits + tint)

    @property
    def dimensions(self) -> dict[str, int]:
        """Return the arguments of the constructor."""
        return {
            "code_size": self.code_size, "style_size": self.style_size, "width": self.width, "plates": len(self.plates)
        }  # fmt: skip

    def set_plates(self, plates: Tensor, codes: Tensor) -> None:
        """Keep details (N, 2, 4, TEXTURE_PX, WIDTH_PX) of logits, and the codes (N, 2, code_size) of their films."""
        self.plates, self.plate_codes = plates, codes

    def plate_textures(self, code: Tensor, colour: Tensor) -> Tensor:
        """Compute the textures of one code (1, 2, code_size) and colour (1, COLOUR_SIZE) with the detail of each plate:
        (N, 2, 4, TEXTURE_PX, WIDTH_PX), of a model without plates the textures alone (N = 1). No plate shows
        this person's teeth; each adds sharp edges."""
        textures = self.textures(code, colour)
        return torch.sigmoid(torch.logit(textures, LEAST_LOGIT) + self.plates) if len(self.plates) else textures

    def nearest_plate(self, code: Tensor) -> Tensor:
        """Find the plate () whose code is nearest to a code (1, 2, code_size)."""
        return ((self.plate_codes - code) ** 2).sum((1, 2)).argmin() if len(self.plates) else torch.tensor(0)

    def encode(self, picture: Tensor, mask: Tensor, geometry: Tensor, colour: Tensor) -> tuple[Tensor, ...]:
        """Encode one photographed mouth, a uint8 picture (H, W, 3), mask (H, W), geometry (GEOMETRY_SIZE,) and colour
        (COLOUR_SIZE,): textures with each plate, the nearest plate (), style (style_size,) and place (2, 3)."""
        real = rearrange(picture, "h w c -> 1 c h w").float() / 255
        code, style, place = self.encoder(real, mask[None, None], geometry[None], colour[None])
        return self.plate_textures(code, colour[None]), self.nearest_plate(code), style[0], place[0]

    def draw(self, textures: Tensor, lips: tuple[Tensor, Tensor, Tensor], *codes: Tensor, saturation: Tensor) -> Tensor:
        """Draw one frame (H, W, 3) uint8 from textures (2, 4, TEXTURE_PX, WIDTH_PX), maps, geometry and jaw of a
        `LipShape`, the codes colour, style and place, and a saturation () 0..1."""
        batched = (lips[0][None], lips[1][None], lips[2][None])
        colour, style, place = (code[None] for code in codes)
        image = self(textures[None], batched, colour, style, place).composite()[0]
        grey = image.mean(0, keepdim=True)
        image = rearrange(grey + saturation * (image - grey), "c h w -> h w c")
        levels: Tensor = image.mul(255).round().clamp(0, 255).to(torch.uint8)
        return levels

    def forward(
        self, textures: Tensor, lips: tuple[Tensor, Tensor, Tensor], colour: Tensor, style: Tensor, place: Tensor
    ) -> Layers:
        """Draw layers; see `light` for the arguments."""
        background, gain, visible, moves, scale = self.light(lips, colour, style, place)
        moved = move_textures(textures, moves, scale)
        return Layers(background, moved[:, :, :3] * gain, moved[:, :, 3:] * visible)

    def light(
        self, lips: tuple[Tensor, Tensor, Tensor], colour: Tensor, style: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Predict all but the teeth's textures: background (B, 3, H, W); of the upper and the lower teeth the gain of
        colours and the visible share of alpha, both (B, 2, 1, H, W), moves (B, 2, 2) px, log scale across (B, 2).

        lips: maps, geometry and jaw of `LipShape`, with a batch axis; style (B, style_size); place (B, 2, 3): x and y
        in px and log scale across in SCALE_UNIT, of the upper and the lower teeth."""
        cells, base, moves, scale = self.predict_light_logits(lips, colour, style, place)
        light = F.interpolate(cells, scale_factor=CELL_PX, mode="bilinear", align_corners=False)
        background = torch.sigmoid(light[:, :3] + base[..., None, None])
        gain = torch.exp(light[:, 3:5])[:, :, None]
        visible = torch.sigmoid(light[:, 5:7] + 2)[:, :, None]
        return background, gain, visible, moves, scale

    def predict_light_logits(
        self, lips: tuple[Tensor, Tensor, Tensor], colour: Tensor, style: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict, from the arguments of `light`, for cells of CELL_PX px the logits (B, 7, rows, columns) of the
        background, the log gain and the logits of visibility, what is added to the background's, (B, 3), moves
        (B, 2, 2) px and log scale across (B, 2) of the teeth."""
        maps, geometry, jaw = lips
        hidden = self.global_net(torch.cat([geometry, colour, style], 1))
        x = maps
        for conv, bias in zip(self.convs, self.modulation(hidden)[..., None, None].chunk(3, 1), strict=True):
            now = F.silu(conv(x) + bias)
            x = now + x if x.shape == now.shape else now
        reach = maps.new_tensor([UPPER_REACH_PX, LOWER_REACH_PX])[:, None]
        moves = self.placement(hidden).reshape(-1, 2, 2) * reach
        moves = moves + torch.stack([torch.zeros_like(jaw), JAW_SHARE * jaw], 1)
        moves = moves + maps.new_tensor([[0.0, 0.0], [0.0, LOWER_TOP_PX]])
        return self.head(x), self.base_colour(colour), moves + place[..., :2], SCALE_UNIT * place[..., 2]

    @staticmethod
    def load(path: Path) -> MouthInterior:
        """Load a checkpoint for inference. Raises InputError where the file is missing or another model's."""
        header, state = read_checkpoint(path, ("code_size", "style_size", "width", "plates"))
        model = MouthInterior(**header).eval().requires_grad_(False)
        model.load_state_dict(state)
        return model


def move_textures(textures: Tensor, moves: Tensor, scale: Tensor) -> Tensor:
    """Resample textures (B, 2, C, TEXTURE_PX, WIDTH_PX) to images (B, 2, C, HEIGHT_PX, WIDTH_PX), moved by (B, 2, 2) px
    and scaled across around the middle by exp(scale), (B, 2). Bilinear interpolation along rows and columns is a matrix
    on either side, faster than sampling on a grid."""
    rows, columns = (torch.arange(side, device=textures.device) * 1.0 for side in (HEIGHT_PX, WIDTH_PX))
    middle = (WIDTH_PX - 1) / 2
    across = middle + torch.exp(-scale)[..., None] * (columns - middle - moves[..., :1])
    down = _interpolation(rows - moves[..., 1:], TEXTURE_PX)
    return down[:, :, None] @ (textures @ _interpolation(across, WIDTH_PX).transpose(-1, -2)[:, :, None])


def _interpolation(places: Tensor, size: int) -> Tensor:
    """Build matrices (..., N, size) of linear interpolation at places (..., N) of a row of `size` px, 0 beyond it."""
    distance = (places[..., None] - torch.arange(size, device=places.device)).abs()
    return (1 - distance).clamp(min=0)
