"""The mesh renderer's painters, learned from films: `python -m train.mesh mouth FILMS... --table TABLE --out RUN`.

A painter, of mouths or of eyes, learns to make warped parts the real ones (train/painter_pairs.py makes the pairs) by
the difference of colours and of gradients, and, when it has learned these, by a critic of patches (hinge loss; Isola et
al. 2017) that holds it to sharp teeth and lashes. One loop; the run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from kdtalker.checkpoint import write_checkpoint
from kdtalker.mesh.painter import Painter, as_input
from kdtalker.mesh.parts import EYES, MOUTH, Part, rim
from train.films import find_films
from train.painter_pairs import GOOD_EYES_PX, Pairs, load_pairs

BATCH, LEARNING_RATE, WARM_UP, EMA_DECAY = 16, 5e-4, 200, 0.998
CRITIC_FROM, CRITIC_RISE, CRITIC_WEIGHT, MATCH_WEIGHT = 0.35, 0.1, 0.01, 10  # first two as shares of all steps
INSIDE_WEIGHT, AROUND_WEIGHT, GRADIENT_WEIGHT = 5.0, 2.0, 1.0
COVER_WEIGHT = 0.04  # on painting where the photograph's own grain is wanted: outside the lips, inside the lids
UNMOVED_SHARE = 0.02  # of the crop: a pair counts by this and by how much its opening has changed
GREY = 0.15  # of the pairs lose their colours
MOST_GRAIN = 14.0  # levels; half of the pairs stay as they are


@dataclass(frozen=True)
class Plan:
    """What a painter is for: parts that look alike, its widths, whether the warp's own inside is worth keeping."""

    parts: tuple[Part, ...]
    widths: tuple[int, ...]
    keeps_inside: bool


PLANS = {"mouth": Plan((MOUTH,), (24, 48, 96, 160), False), "eyes": Plan(EYES, (16, 32, 64, 96), True)}


class Critic(nn.Module):
    """Patches of a painted mouth and its maps, (B, 6, side, side), to how real each looks; the features on the way."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 32, 64, 128)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(inner, outer, 4, 2, 1))
            for inner, outer in zip(widths, widths[1:], strict=False)
        )
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return [*features, self.last(x)]


@dataclass(frozen=True)
class Batch:
    """Views (B, 6, side, side) in -1..1 of warped and photographed parts, real (B, 3, side, side), appears and weight
    (B, 1, 1, 1)."""

    warped: Tensor
    photographed: Tensor
    real: Tensor
    appears: Tensor
    weight: Tensor


class Draw:
    """Draws batches: films by the root of their length and their sharpness, what has opened or shut sooner."""

    def __init__(self, films: list[Pairs]) -> None:
        self._films = films
        share = np.array([len(film.which) ** 0.5 * _worth(film) for film in films])
        self._share = share / share.sum()
        self._frames = [share / share.sum() for share in map(_opened, films)]

    def batch(self, rng: np.random.Generator) -> Batch:
        warped, photographed, real, appears, weight = [], [], [], [], []
        for film in rng.choice(len(self._films), BATCH, p=self._share):
            pairs = self._films[film]
            row = rng.choice(len(pairs.which), p=self._frames[film])
            three = (pairs.warped[row], pairs.photographed[pairs.which[row]], pairs.real[row])
            for into, picture in zip((warped, photographed, real), _varied(three, rng), strict=True):
                into.append(picture)
            appears.append(pairs.appears[row])
            weight.append(_worth(pairs))
        views = (torch.from_numpy(np.stack(pictures)) for pictures in (warped, photographed, real))
        return Batch(
            *(as_input(pictures).contiguous(memory_format=torch.channels_last) for pictures in views),
            *(torch.tensor(np.array(one, np.float32)).reshape(-1, 1, 1, 1) for one in (appears, weight)),
        )


def _opened(film: Pairs) -> NDArray[np.float64]:
    """(N,) how much further the opening of each pair is open, or shut, than the photographed one."""
    warped, photographed = (views[..., 3].mean((1, 2)) / 255 for views in (film.warped, film.photographed))
    return UNMOVED_SHARE + np.abs(warped - photographed[film.which])


def _worth(film: Pairs) -> float:
    return min(1.0, film.eyes_px / GOOD_EYES_PX)


def _varied(pictures: tuple[NDArray[np.uint8], ...], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """The same warped, photographed and real part in another light, grainier or not, mirrored or not. The grain of the
    warp is that of the real picture, but for the opening, so that a painter learns to leave it."""
    levels = np.arange(256) / 255
    gain, gamma, contrast = rng.uniform(0.8, 1.2, 3) * rng.uniform(0.75, 1.25), *rng.uniform((0.75, 0.8), (1.35, 1.5))
    curves = 127.5 + contrast * (255 * gain * levels[:, None] ** gamma - 127.5)
    mirrored, grey = rng.random() < 0.5, rng.random() < GREY
    strength, fineness = max(0, rng.uniform(-MOST_GRAIN, MOST_GRAIN)), rng.uniform(0.4, 1.3)
    grains = [_grain(pictures[0].shape[0], fineness, rng) for _ in range(2)] if strength else [0, 0]
    closed = 1 - pictures[0][..., 3:4] / 255
    varied = []
    for picture, grain in zip(pictures, (grains[0], grains[1], grains[0] * closed), strict=True):
        colours = np.stack([curves[picture[..., channel], channel] for channel in range(3)], -1)
        colours = colours.mean(-1, keepdims=True) if grey else colours
        changed = picture.copy()
        changed[..., :3] = np.clip(colours + strength * grain, 0, 255)
        varied.append(np.ascontiguousarray(changed[:, ::-1] if mirrored else changed))
    return varied


def _grain(side_px: int, fineness: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(side_px, side_px, 1), of deviation 1."""
    grain = cv2.GaussianBlur(rng.standard_normal((side_px, side_px), np.float32), (0, 0), fineness)
    return np.asarray(grain / grain.std(), np.float32)[..., None]


def painted(painter: Painter, batch: Batch) -> tuple[Tensor, Tensor]:
    """The mouth as it comes into the film, (B, 3, side, side), and how much of it is painted (B, 1, side, side)."""
    colours, covers = painter(batch.warped, batch.photographed)
    covers = batch.appears * covers.float() * torch.from_numpy(rim(covers.shape[-1]))
    under = batch.warped[:, :3]
    return under + covers * (colours.float() - under), covers


def likeness(made: Tensor, covers: Tensor, batch: Batch, plan: Plan) -> Tensor:
    """The loss without a critic."""
    maps = (batch.warped[:, 3:5] + 1) / 2
    inside, around = F.max_pool2d(maps, 5, 1, 2).split(1, 1)
    weight = batch.weight * (1 + AROUND_WEIGHT * around + (0 if plan.keeps_inside else INSIDE_WEIGHT) * inside)
    error = (weight * (made - batch.real).abs()).mean()
    for axis in (2, 3):
        steeper = (made - batch.real).diff(dim=axis).abs()
        error = error + GRADIENT_WEIGHT * (weight.narrow(axis, 1, steeper.shape[axis]) * steeper).mean()
    spared = maps[:, :1] if plan.keeps_inside else 1 - around
    return error + COVER_WEIGHT * (covers * spared).mean()


def validate(painter: Painter, films: list[Pairs]) -> dict[str, float]:
    """Peak signal to noise in dB over the people held out, mean of films: of the crop warped only, painted, and of
    what lies between the lips alone."""
    figures: dict[str, list[float]] = {"warped": [], "painted": [], "inside warped": [], "inside": []}
    for pairs in films:
        errors = []
        chosen = np.arange(0, len(pairs.which), 3)
        for rows in np.array_split(chosen, min(4, len(chosen))):
            views = (pairs.warped[rows], pairs.photographed[pairs.which[rows]], pairs.real[rows])
            appears = torch.from_numpy(pairs.appears[rows]).reshape(-1, 1, 1, 1)
            batch = Batch(*(as_input(torch.from_numpy(view)) for view in views), appears, appears)
            with torch.inference_mode():
                made, _ = painted(painter, batch)
            inside = (batch.warped[:, 3:4] > 0).float()
            for pictures in (batch.warped[:, :3], made):
                square = 127.5**2 * (pictures - batch.real) ** 2
                errors.append((square.mean(), (square * inside).sum() / (3 * inside.sum() + 1)))
        whole, within = np.array(errors).reshape(-1, 2, 2).mean(0).T
        for name, value in zip(figures, (*whole, *within), strict=True):
            figures[name].append(10 * math.log10(255**2 / float(value)))
    return {name: float(np.mean(values)) for name, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a painter on films.")
    parser.add_argument("part", choices=PLANS)
    parser.add_argument("films", type=Path, nargs="+")
    parser.add_argument("--table", type=Path, action="append", default=[], help="CSV with file, split, speaker")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: pairs, state, weights, log")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--validate-every", type=int, default=500)
    train(**{name.replace("-", "_"): value for name, value in vars(parser.parse_args()).items()})


def train(  # noqa: PLR0917 (as the command line has them)
    part: str, films: list[Path], table: list[Path], out: Path, steps: int, validate_every: int
) -> None:
    """The whole training in one loop."""
    out.mkdir(parents=True, exist_ok=True)
    plan = PLANS[part]
    pairs = load_pairs(find_films(films, table), plan.parts, out / "pairs")
    draw, unseen = Draw([one for one in pairs if one.split == "train"]), [one for one in pairs if one.split == "val"]
    torch.manual_seed(0)
    painter, critic = Painter(plan.parts[0].side_px, plan.widths).to(memory_format=torch.channels_last), Critic()
    averaged = copy.deepcopy(painter).eval().requires_grad_(False)
    paints = torch.optim.AdamW(painter.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
    judges = torch.optim.AdamW(critic.parameters(), LEARNING_RATE, betas=(0.5, 0.99))
    learners: dict[str, Any] = {
        "painter": painter,
        "critic": critic,
        "averaged": averaged,
        "paints": paints,
        "judges": judges,
    }
    done, state_file = 0, out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for name, learner in learners.items():
            learner.load_state_dict(state[name])
        done = state["step"]
    rng, losses = np.random.default_rng(done), []
    for step in tqdm(range(done + 1, steps + 1), initial=done, total=steps, disable=None):
        rate = min(1, step / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * min(1, step / steps)))
        for group in (*paints.param_groups, *judges.param_groups):
            group["lr"] = LEARNING_RATE * rate
        batch = draw.batch(rng)
        with torch.autocast("cpu", torch.bfloat16):
            made, covers = painted(painter, batch)
            loss = likeness(made, covers, batch, plan)
            losses.append(loss.item())
            strict = min(1.0, max(0.0, (step / steps - CRITIC_FROM) / CRITIC_RISE))
            if strict:
                loss = loss + strict * judged(critic, judges, made, batch)
        paints.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
        paints.step()
        with torch.no_grad():
            for kept, new in zip(averaged.parameters(), painter.parameters(), strict=True):
                kept.lerp_(new, 1 - min(EMA_DECAY, step / (step + 10)))
        if step % validate_every == 0 or step == steps:
            figures = validate(averaged, unseen) | {"step": step, "loss": float(np.mean(losses[-validate_every:]))}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(figures) + "\n")
            torch.save(
                {name: learner.state_dict() for name, learner in learners.items()} | {"step": step}, out / "state.part"
            )
            (out / "state.part").replace(state_file)
            write_checkpoint(out / f"{part}.safetensors", averaged.state_dict(), averaged.dimensions, half=True)


def judged(critic: Critic, judges: torch.optim.Optimizer, made: Tensor, batch: Batch) -> Tensor:
    """One step of the critic, then what it holds against the painter."""
    maps = batch.warped[:, 3:]
    real, false = torch.cat([batch.real, maps], 1), torch.cat([made, maps], 1)
    doubts = batch.weight * (F.relu(1 - critic(real)[-1]) + F.relu(1 + critic(false.detach())[-1]))
    judges.zero_grad()
    doubts.mean().backward()
    judges.step()
    *features, verdict = critic(false)
    with torch.no_grad():
        *wanted, _ = critic(real)
    match = sum(
        ((batch.weight * (one - other)).abs().mean() for one, other in zip(features, wanted, strict=True)),
        torch.zeros(()),
    )
    return CRITIC_WEIGHT * (MATCH_WEIGHT * match - (batch.weight * verdict).mean())


if __name__ == "__main__":
    main()
