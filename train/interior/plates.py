"""Fit sharp teeth textures to single films (analysis by synthesis) and keep their details as plates.

A texture that serves many films is the mean of what is uncertain, so it has no edges. A film's own texture has them:
its detail, the high-pass part, is added to what the encoder predicts for a source image."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from train.harness.run import to_device
from train.harness.texture import texture_loss
from train.interior.batches import MouthBatch, MouthDataset
from train.interior.loss import WINDOW_PX, FilmCodes, opening_interior, reconstruction_loss
from train.interior.recipe import InteriorRecipe

FRAMES = 12  # of a film in each step
TEXTURE_RATE, STYLE_RATE, PLACE_RATE = 0.08, 0.02, 0.15  # learning rates, which fall linearly to 0
PRIOR_WEIGHT = 1e-3  # on squares of the detail and of jitter
HIGH_PASS_PX = 12.0  # standard deviation of the Gaussian that parts detail from the rest
DETAIL_SHARE = 0.8  # of the detail that is kept: edges of other teeth lie elsewhere
CHROMA_SHARE = 0.3  # of the detail's chroma that is kept: of other teeth it makes coloured rims


@dataclass(frozen=True)
class Plate:
    """Hold the detail (2, 4, TEXTURE_PX, WIDTH_PX) of one film's logits, the mean code (2, code_size) that the encoder
    gives its frames, and the reconstruction loss with it."""

    detail: Tensor
    code: Tensor
    loss: float


def fit_plates(model: MouthInterior, codes: FilmCodes, dataset: MouthDataset, recipe: InteriorRecipe) -> None:
    """Remove specks from a model's textures, fit the plates of the sharpest films that a dataset holds, and keep the
    best of them in the model."""
    with torch.no_grad():
        for textures in (model.mean, model.basis):
            textures.copy_(median_filter(textures))
    films = dataset.sharpest(recipe.plate_films) if recipe.plates else []
    plates = sorted((fit_plate(model, codes, dataset, film, recipe) for film in films), key=lambda plate: plate.loss)
    best = plates[: recipe.plates]
    if best:
        model.set_plates(torch.stack([plate.detail for plate in best]), torch.stack([plate.code for plate in best]))


def fit_plate(
    model: MouthInterior, codes: FilmCodes, dataset: MouthDataset, film: int, recipe: InteriorRecipe
) -> Plate:
    """Fit textures, style and the places of teeth to the frames of one film by Adam, the model held."""
    device = model.mean.device
    frames = to_device(dataset.all_open(film), device)
    rng = np.random.default_rng((recipe.seed, film))
    code, style, place = (values.detach() for values in codes(frames))
    base = torch.logit(model.textures(code[:1], frames.colour[:1]), 1e-3).detach()
    detail, styles, places = torch.zeros_like(base), style[:1].clone(), place.clone()
    for learnt in (detail, styles, places):
        learnt.requires_grad_()
    rates = (TEXTURE_RATE, STYLE_RATE, PLACE_RATE)
    optimiser = torch.optim.Adam([{"params": [one]} for one in (detail, styles, places)], betas=(0.9, 0.95))
    losses = []
    for step in range(recipe.plate_steps):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - step / recipe.plate_steps)
        rows = torch.from_numpy(rng.choice(len(frames.film), min(FRAMES, len(frames.film)), replace=False)).to(device)
        batch = MouthBatch(**{field.name: getattr(frames, field.name)[rows] for field in fields(frames)})
        textures = torch.sigmoid(base + detail).expand(len(rows), -1, -1, -1, -1)
        layers = model(textures, batch.lips, batch.colour, styles.expand(len(rows), -1), places[rows])
        inside = batch.weight * opening_interior(batch)
        loss = reconstruction_loss(layers, batch, recipe.gradient_weight)
        losses.append(float(loss.detach()) / float(batch.weight.mean()))
        loss = loss + texture_loss(layers.composite(), batch.real, inside, WINDOW_PX)
        loss = loss + PRIOR_WEIGHT * ((detail**2).mean() + ((places - place) ** 2).mean())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    logits = (base + detail).detach()[0]
    logits = median_filter(logits)
    high = logits - blur(logits, HIGH_PASS_PX)
    luma = high[:, :3].mean(1, keepdim=True)
    high[:, :3] = luma + CHROMA_SHARE * (high[:, :3] - luma)
    seen = model.encoder(frames.real, frames.mask, frames.geometry, frames.colour)[0].mean(0)
    return Plate(DETAIL_SHARE * high, seen, float(np.mean(losses[-recipe.plate_steps // 4 :])))


def median_filter(images: Tensor) -> Tensor:
    """Filter images (..., H, W) by the median of 3 x 3 px: it removes single px, which the texture loss makes."""
    flat = F.pad(images.reshape(-1, 1, *images.shape[-2:]), (1, 1, 1, 1), mode="replicate")
    return flat.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(-1).values.reshape(images.shape)


def blur(images: Tensor, sigma_px: float) -> Tensor:
    """Blur images (..., H, W) by a Gaussian, the border repeated."""
    reach = round(3 * sigma_px)
    kernel = torch.exp(-((torch.arange(-reach, reach + 1, device=images.device) / sigma_px) ** 2) / 2)
    kernel = kernel / kernel.sum()
    flat = images.reshape(-1, 1, *images.shape[-2:])
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), kernel[None, None, :, None])
    return F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel[None, None, None]).reshape(images.shape)
