"""Train the motion model: `python -m train.motion SHARDS --out RUN`. Run it again and it goes on where it stopped.

Clean-motion prediction (arXiv 2202.00512, section 4) on windows of random length, of which a random number of first
frames is known; audio is dropped at random, for guidance (arXiv 2207.12598). Beside the mean square error there are
one on the gaps between the inner lips and one on frame differences.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kdtalker.audio_encoder import WhisperEncoder, encode_all
from kdtalker.denoiser import Denoiser, DenoiserConfig, token_timesteps
from kdtalker.diffusion import MotionModel
from kdtalker.mesh.geometry import SPACE, FaceModel
from kdtalker.motion import KEYPOINTS, MOTION_WIDTH, Array, Motion
from kdtalker.normalisation import Normalisation
from kdtalker.sampler import leading_tokens, make_scheduler
from kdtalker.tracker import LIP_PAIRS
from train.dataset import Take, load_takes, mirrored
from train.shards import load_shards

CONFIG = DenoiserConfig(
    width=192, layers=4, heads=4, head_width=48, rotary_width=12, time_width=64, audio_width=128, audio_input=2304,
    adapter_blocks=3, dropout=0.2, prediction="sample", beta_schedule="squaredcos_cap_v2", scheduler="dpmsolver++",
    timestep_spacing="quadratic", window=64, context=10, overlap=14, relative=True, audio_encoder="whisper-tiny.en",
    audio_features="layers 2, 3, 4 of the encoder, two 50 Hz steps a frame",
)  # fmt: skip
BATCH, SHORTEST_WINDOW = 24, 16
LEARNING_RATE, WARM_UP, EMA_DECAY, CLIP = 6e-4, 200, 0.998, 1.0
AUDIO_DROP, CONTEXT_DROP, CONTEXT_NOISE, CANONICAL_NOISE = 0.12, 0.5, 0.03, 0.3
AUDIO_NOISE, AUDIO_NOISE_SHARE = 0.5, 0.7  # in deviations of the features, and of the windows that get it (KDTalker)
LIP_LOSS, DIFFERENCE_LOSS, HEAD_LOSS = 2.0, 2.0, 1.0
CORPUS_SHARE = 0.35  # of windows that come from speakers with more than CORPUS_TAKES short takes
CORPUS_TAKES = 50


@dataclass(frozen=True)
class Batch:
    """x (B, F, 70) and its differences' partner are normalised; known (B, F) bool; features (B, F, C)."""

    x: Tensor
    known: Tensor
    features: Tensor
    canonical: Tensor
    reference: Tensor


def fit_normalisation(takes: list[Take]) -> Normalisation:
    """Means and deviations over the takes. Deviations of the expression are held above half of their root mean
    square, so that numbers that hardly move do not count as much as lips; scale gets the spread over people."""
    motion = np.concatenate([take.motion for take in takes])
    canonical = np.stack([take.canonical.reshape(-1) for take in takes])
    std = motion.std(0)
    std[7:] = np.maximum(std[7:], 0.5 * np.sqrt((std[7:] ** 2).mean()))
    std[4:7] = np.maximum(std[4:7], 1e-3)
    mean = motion.mean(0)
    mean[1:7] = 0
    return Normalisation(mean, std, canonical.mean(0), np.maximum(canonical.std(0), 0.01))


def batches(
    takes: list[Take], normalisation: Normalisation, model: FaceModel, rng: np.random.Generator
) -> Iterator[Batch]:
    """Windows of one random length a batch, mirrored half of the time."""
    takes = [take for take in takes if len(take.motion) > SHORTEST_WINDOW]
    counts = {take.speaker: sum(other.speaker == take.speaker for other in takes) for take in takes}
    is_corpus = np.array([counts[take.speaker] > CORPUS_TAKES for take in takes])
    weights = np.array([len(take.motion) for take in takes], float)
    for group, share in ((is_corpus, CORPUS_SHARE), (~is_corpus, 1 - CORPUS_SHARE)):
        weights[group] *= share / max(weights[group].sum(), 1)
    weights /= weights.sum()
    while True:
        length = int(rng.integers(SHORTEST_WINDOW, CONFIG.window + 1)) if rng.random() < 0.4 else CONFIG.window
        rows = []
        while len(rows) < BATCH:
            take = takes[rng.choice(len(takes), p=weights)]
            if len(take.motion) >= length:
                rows.append(window(take, length, normalisation, model, rng))
        x, features, canonical, reference = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        context = rng.integers(1, CONFIG.context + 1, BATCH) * (rng.random(BATCH) >= CONTEXT_DROP)
        known = torch.arange(length)[None] < torch.from_numpy(context)[:, None]
        yield Batch(x, known, features.float(), canonical, reference)


def window(
    take: Take, length: int, normalisation: Normalisation, model: FaceModel, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Normalised motion, features, canonical keypoints and a reference: a photograph of that person, which is some
    frame's face in the resting pose."""
    start = int(rng.integers(0, len(take.motion) - length + 1))
    motion, canonical = take.motion, take.canonical
    if rng.random() < 0.5:
        motion, canonical = mirrored(motion, canonical, model)
    photo = motion[int(rng.integers(len(motion)))].copy()
    photo[1:7] = 0
    noisy = normalisation.normalise_canonical(canonical.reshape(-1))
    noisy = noisy + CANONICAL_NOISE * rng.standard_normal(noisy.shape).astype(np.float32)
    frames = slice(start, start + length)
    return normalisation.normalise(motion[frames]), take.features[frames], noisy, normalisation.normalise(photo)


def lip_gaps(model: FaceModel, normalisation: Normalisation, takes: list[Take]) -> Tensor:
    """(63, pairs): maps normalised expressions to the gaps between inner lips, in units of their deviation."""
    upper, lower = np.array(LIP_PAIRS).T
    rows = np.zeros((len(upper), KEYPOINTS, 3), np.float32)
    rows[..., 1] = model.spreads[lower] - model.spreads[upper]
    gaps = rows.reshape(len(upper), -1)
    std = np.concatenate([take.motion[:, 7:] @ gaps.T for take in takes]).std(0)
    scaled: Array = (gaps * normalisation.std[7:] / std[:, None]).T
    return torch.from_numpy(scaled.astype(np.float32))


def loss_of(denoiser: Denoiser, batch: Batch, alphas: Tensor, gaps: Tensor, generator: torch.Generator) -> Tensor:
    """The training loss of one batch."""
    size = len(batch.x)
    places = 1 - torch.rand(size, generator=generator) ** 2  # as dense as the sampler's steps, see make_scheduler
    timesteps = (places * (len(alphas) - 1)).round().long()
    noise = torch.randn(batch.x.shape, generator=generator)
    alpha = alphas[timesteps][:, None, None]
    noisy = alpha.sqrt() * batch.x + (1 - alpha).sqrt() * noise
    known = batch.known[..., None]
    noisy = torch.where(known, batch.x + CONTEXT_NOISE * noise, noisy)
    keep = (torch.rand(size, generator=generator) >= AUDIO_DROP).float()[:, None, None]
    tokens = torch.cat([leading_tokens(batch.canonical, batch.reference), noisy], dim=1)
    loud = AUDIO_NOISE * (torch.rand(size, 1, 1, generator=generator) < AUDIO_NOISE_SHARE)
    spread = batch.features.std((0, 1))
    features = batch.features + loud * spread * torch.randn(batch.features.shape, generator=generator)
    audio = denoiser.adapt(features) * keep
    predicted = denoiser(tokens, token_timesteps(timesteps, batch.known), audio)[:, 2:]
    error = torch.where(known, 0.0, predicted - batch.x)
    weights = torch.ones(MOTION_WIDTH)
    weights[1:7] = HEAD_LOSS * 63 / 6 / 3  # the head's six numbers together weigh a third of the expression's 63
    parts = (error**2 * weights).mean()
    parts = parts + LIP_LOSS * ((error[..., 7:] @ gaps) ** 2).mean()
    return parts + DIFFERENCE_LOSS * ((error[:, 1:] - error[:, :-1]) ** 2 * weights).mean()


def validate(model: MotionModel, takes: list[Take], face: FaceModel, silence: Array) -> dict[str, float]:
    """Sampled mouths against real ones at lag 0, mean over takes: one seed's correlation and amplitude, and the
    correlation of the mean of four seeds."""
    gap = face.spreads[LIP_PAIRS[0][1]] - face.spreads[LIP_PAIRS[0][0]]
    figures: dict[str, list[float]] = {"r": [], "amplitude": [], "r_mean_of_4": [], "yaw": [], "pitch": []}
    for take in takes:
        first = take.motion[:1].copy()
        first[:, 1:7] = 0
        rest = Motion.from_vector(first, SPACE)
        states = [model.start(take.canonical, rest, seed, silence) for seed in range(4)]
        features = [take.features.astype(np.float32)] * 4
        motions = [motion for motion, _ in model.advance_many(states, features, steps=10, guidance=1.0, last=True)]
        sampled = np.stack([motion.expression[..., 1] @ gap for motion in motions])
        real = take.motion[:, 7:].reshape(-1, KEYPOINTS, 3)[..., 1] @ gap
        figures["r"] += [float(np.corrcoef(row, real)[0, 1]) for row in sampled]
        figures["amplitude"] += [float(row.std() / real.std()) for row in sampled]
        figures["r_mean_of_4"].append(float(np.corrcoef(sampled.mean(0), real)[0, 1]))
        for column, axis in enumerate(("yaw", "pitch")):
            figures[axis] += [
                float(motion.pose[:, column].std() / take.motion[:, 1 + column].std()) for motion in motions
            ]
    return {name: float(np.mean(values)) for name, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the motion model on shards.")
    parser.add_argument("shards", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: state, model, log, curves")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--validate-every", type=int, default=1000)
    train(**{name.replace("-", "_"): value for name, value in vars(parser.parse_args()).items()})


def train(shards: Path, out: Path, steps: int, validate_every: int) -> None:
    """The whole training in one loop."""
    out.mkdir(parents=True, exist_ok=True)
    face, encoder = FaceModel.load(), WhisperEncoder.load()
    takes = load_takes(load_shards(shards), encoder, face, shards / "features")
    silence = encode_all(encoder, np.zeros(32000, np.float32))[25]
    seen, unseen = ([take for take in takes if take.split == split] for split in ("train", "val"))
    normalisation = fit_normalisation(seen)
    torch.manual_seed(0)
    denoiser = Denoiser(CONFIG)
    averaged = copy.deepcopy(denoiser).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(denoiser.parameters(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.02)
    done, state_file = 0, out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        denoiser.load_state_dict(state["denoiser"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["step"]
    alphas = make_scheduler(CONFIG, 10).alphas_cumprod
    gaps = lip_gaps(face, normalisation, seen)
    generator = torch.Generator().manual_seed(done)
    source = batches(seen, normalisation, face, np.random.default_rng(done))
    losses = []
    for step in tqdm(range(done + 1, steps + 1), initial=done, total=steps, disable=None):
        rate = min(1, step / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * min(1, step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * rate
        loss = loss_of(denoiser, next(source), alphas, gaps, generator)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), CLIP)
        optimiser.step()
        losses.append(loss.item())
        with torch.no_grad():
            decay = min(EMA_DECAY, step / (step + 10))
            for kept, new in zip(averaged.parameters(), denoiser.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        if step % validate_every == 0 or step == steps:
            model = MotionModel(averaged, normalisation, SPACE)
            figures = validate(model, unseen, face, silence)
            figures |= {"step": step, "loss": float(np.mean(losses[-validate_every:]))}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(figures) + "\n")
            state = {"denoiser": denoiser.state_dict(), "averaged": averaged.state_dict(), "step": step}
            torch.save(state | {"optimiser": optimiser.state_dict()}, state_file.with_suffix(".part"))
            state_file.with_suffix(".part").replace(state_file)
            model.save(out / "motion.safetensors")
            draw_curves(out)


def draw_curves(out: Path) -> None:
    """curves.png from the log."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    axes[0].plot([row["step"] for row in rows], [row["loss"] for row in rows])
    axes[0].set(title="training loss", xlabel="step")
    for name in ("r", "r_mean_of_4", "amplitude", "yaw", "pitch"):
        axes[1].plot([row["step"] for row in rows], [row[name] for row in rows], label=name)
    axes[1].set(title="people held out, sampled", xlabel="step")
    axes[1].legend()
    figure.savefig(out / "curves.png")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
