"""Compute the loss of the mouth's inside: reconstruction by codes of films and by those of the encoder, and priors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.renderers.mesh.mouth.frame import TEXTURE_PX
from kdtalker.renderers.mesh.mouth.interior import Layers, MouthInterior
from train.harness.texture import texture_loss
from train.interior.batches import MouthBatch
from train.interior.recipe import InteriorRecipe

# Rows of the upper and the lower texture between which teeth are expected, and the px above and below over which the
# penalty on misplaced alpha rises by one.
TEETH_ROWS, MISPLACED_PX = ((8, 50), (24, 56)), (8.0, 14.0)
WINDOW_PX, BORDER_PX = 16, 3  # side of the windows in which texture is compared; border of the opening left out
Codes = tuple[Tensor, Tensor, Tensor]  # code (B, 2, code_size), style (B, style_size) and place (B, 2, 3)


class FilmCodes(nn.Module):
    """Hold the latent codes of each film: code (N, 2, code_size), style (N, style_size), place (N, 2, 3) of its teeth;
    and jitter (frames, 2, 2) px, the error of tracking in each frame."""

    def __init__(self, films: int, frames: int, recipe: InteriorRecipe) -> None:
        super().__init__()
        self.code = nn.Parameter(0.3 * torch.randn(films, 2, recipe.code_size))
        self.style = nn.Parameter(0.01 * torch.randn(films, recipe.style_size))
        self.place = nn.Parameter(torch.zeros(films, 2, 3))
        self.jitter = nn.Parameter(torch.zeros(frames, 2, 2))

    def forward(self, batch: MouthBatch) -> Codes:
        """Look up code, style and place of each frame in a batch."""
        place = self.place[batch.film] + F.pad(self.jitter[batch.frame], (0, 1))
        return self.code[batch.film], self.style[batch.film], place


class InteriorLoss(nn.Module):
    """Compute the loss of a batch, and the part of it that the encoder's codes have."""

    misplaced: Tensor

    def __init__(self, model: MouthInterior, codes: FilmCodes, recipe: InteriorRecipe) -> None:
        super().__init__()
        self.model, self.codes, self._recipe = model, codes, recipe
        self.register_buffer("misplaced", misplacement(), persistent=False)

    def forward(self, batch: MouthBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the total loss (), the reconstruction loss () of what is drawn by the encoder's codes, and what is
        drawn (B, 3, H, W)."""
        recipe = self._recipe
        textures, layers = draw(self.model, batch, self.codes(batch))
        seen_textures, seen_layers = draw(self.model, batch, encode(self.model, batch, recipe.views_a_film))
        drawn = seen_layers.composite()
        encoded = reconstruction_loss(seen_layers, batch, recipe.gradient_weight)
        total = recipe.encoded_weight * encoded + reconstruction_loss(layers, batch, recipe.gradient_weight)
        total = total + recipe.texture_weight * texture_loss(
            drawn, batch.real, batch.weight * opening_interior(batch), WINDOW_PX
        )
        alpha = torch.cat([textures, seen_textures])[:, :, 3:]
        return total + self._priors(alpha, batch), encoded, drawn

    def _priors(self, alpha: Tensor, batch: MouthBatch) -> Tensor:
        """Compute the penalties on the alpha of textures and the Gaussian priors of a batch's codes."""
        recipe, codes, film = self._recipe, self.codes, batch.film
        priors = (
            (recipe.alpha_weight, alpha),
            (recipe.misplaced_weight, alpha * self.misplaced),
            (recipe.code_weight, codes.code[film] ** 2),
            (recipe.style_weight, codes.style[film] ** 2),
            (0.3 * recipe.place_weight, codes.place[film] ** 2),
            (recipe.place_weight, codes.jitter[batch.frame] ** 2),
        )
        return torch.stack([weight * values.mean() for weight, values in priors]).sum()


def opening_interior(batch: MouthBatch) -> Tensor:
    """Erode the mask (B, 1, H, W) of the opening by BORDER_PX, so that edges of lips are left out."""
    return -F.max_pool2d(-batch.mask, 2 * BORDER_PX + 1, 1, BORDER_PX)


def misplacement() -> Tensor:
    """Compute the penalty (2, 1, TEXTURE_PX, 1) on the alpha of the upper and lower teeth's texture, by row."""
    rows = torch.arange(TEXTURE_PX) * 1.0
    above, below = MISPLACED_PX
    beyond = [((top - rows) / above).clamp(min=0) + ((rows - end) / below).clamp(min=0) for top, end in TEETH_ROWS]
    return torch.stack(beyond)[:, None, :, None]


def encode(model: MouthInterior, batch: MouthBatch, views: int) -> Codes:
    """Encode the first of each `views` frames in a batch, the source image, for all of them."""
    first = (values[::views] for values in (batch.real, batch.mask, batch.geometry, batch.colour))
    code, style, place = (values.repeat_interleave(views, 0) for values in model.encoder(*first))
    return code, style, place


def draw(model: MouthInterior, batch: MouthBatch, codes: Codes) -> tuple[Tensor, Layers]:
    """Draw a batch with the codes of each frame, without plates; returns the textures too."""
    code, style, place = codes
    textures = model.textures(code, batch.colour)
    return textures, model(textures, batch.lips, batch.colour, style, place)


def reconstruction_loss(layers: Layers, batch: MouthBatch, gradient_weight: float) -> Tensor:
    """Compute the Charbonnier loss of colours and gradients inside the lips, and weakly on their border."""
    mask = 0.25 * F.max_pool2d(batch.mask, 5, 1, 2) + 0.75 * batch.mask
    weight = batch.weight * mask / (mask.mean((1, 2, 3), keepdim=True) + 0.01)
    error = layers.composite() - batch.real
    loss: Tensor = (weight * torch.sqrt(error**2 + 1e-4)).mean()
    for axis in (2, 3):
        steeper = error.diff(dim=axis)
        share = weight.narrow(axis, 1, steeper.shape[axis])
        loss = loss + gradient_weight * (share * torch.sqrt(steeper**2 + 1e-4)).mean()
    return loss
