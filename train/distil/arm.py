"""One arm of the comparison as a module: student, phone head and methods, and the loss of a batch."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.diffusion.calibration import POSE_AND_SHIFT
from kdtalker.diffusion.causal.network import CausalMotionNetwork, StudentNetwork
from kdtalker.diffusion.causal.noise import HEAD_NOISE, advance_noise
from train.distil.distiller import DistilBatch, Distiller, Logged, Rollout, StudentOutput, TeacherOutput
from train.distil.phones import PHONES
from train.distil.recipe import DistilRecipe
from train.distil.registry import Ground, build_methods

MOST_NOISE = 3.0  # that is inferred, in standard deviations


class Arm(nn.Module):
    """Compute the loss of a batch: the sum of all methods. What methods ask for beside the student's plain outputs
    draws its random numbers from generators of its own."""

    def __init__(self, recipe: DistilRecipe, ground: Ground) -> None:
        super().__init__()
        self.student = StudentNetwork(recipe.student)
        self.phones = nn.Linear(recipe.student.encoder.widths[-1], len(PHONES))
        self.distillers = nn.ModuleList(build_methods(recipe.methods, ground, recipe.configs))
        self.probe = (ground.load_probe().eval().requires_grad_(False),)  # in a tuple: frozen, no part of this module
        self._recipe, self.logged = recipe, dict[str, float]()
        self._head_deviation = ground.head_deviation

    @property
    def methods(self) -> list[Distiller]:
        """Return the methods."""
        return cast("list[Distiller]", list(self.distillers))

    def start_step(self, step: int) -> float:
        """Tell all methods the step; return the factor of its learning rate."""
        rate = 1.0
        for method in self.methods:
            method.step, method.steps = step, self._recipe.steps
            rate *= method.rate
        return rate

    def forward(self, batch: DistilBatch) -> Tensor:
        """Compute the loss ()."""
        (probe,) = self.probe
        with torch.no_grad():
            logits = probe.to(batch.columns.device)(batch.features.float())
        given, before = self._draw_history(batch)
        targets = batch.samples.clone()
        targets[..., POSE_AND_SHIFT] = given[:, None, :, POSE_AND_SHIFT]
        teacher = TeacherOutput(batch.features, logits, batch.samples, targets)
        student = self.respond(batch, given, before)
        losses, logged = [], Logged()
        for method in self.methods:
            loss, figures = method.loss(student, teacher, batch)
            losses.append(loss)
            logged |= figures
        if self._recipe.gradient_share and self._recipe.method not in self._recipe.beside and self.training:
            scale = match_gradient(losses[-1], losses[:-1], student.stages[-1], self._recipe.gradient_share)
            losses[-1] = scale * losses[-1]
            logged["scale"] = scale.item()
        self.logged = logged
        return torch.stack(losses).sum()

    def _draw_history(self, batch: DistilBatch) -> tuple[Tensor, Tensor]:
        """Choose motion (B, T, 70) that the student goes on from, and the frame before it (B, 1, 70): the real one
        where there is one, else one of the teacher's samples."""
        is_real, number = batch.has_motion[:, None, None] > 0, self._step % batch.samples.shape[1]
        given = torch.where(is_real, batch.motion, batch.samples[:, number])
        return given, torch.where(is_real, batch.before[:, :1], batch.before[:, number + 1, None])

    def respond(self, batch: DistilBatch, given: Tensor, before: Tensor) -> StudentOutput:
        """Run the student on a batch with a history (B, T, 70) after the frame (B, 1, 70) before it."""
        recipe, motion = self._recipe, self.student.motion
        stages = self.student.encoder(batch.columns)
        features = stages[-1]
        noise = draw_noise(motion, len(features), features.shape[1], None).to(features.device)
        noise[..., HEAD_NOISE] = infer_head_noise(given, batch.samples, self._head_deviation)
        is_free = torch.rand(()) < recipe.own_history
        given = given + recipe.history_noise * torch.randn(given.shape, device=features.device)
        if is_free:
            with torch.no_grad():
                given = free_run(motion, features, before, batch.portrait, noise)
        hidden, _ = motion.trunk(features, shift(given, before), batch.portrait, noise)
        mean, log_variance = motion.predict(hidden, recipe.student.steps)
        needs = frozenset[str]().union(*(method.needs for method in self.methods))
        samples = self._sample(features, batch) if "samples" in needs else None
        rollouts = self._roll_out(features, batch) if "rollouts" in needs else None
        return StudentOutput(tuple(stages), self.phones(features), hidden, mean, log_variance, samples, rollouts)

    def _sample(self, features: Tensor, batch: DistilBatch) -> Tensor:
        """Predict K means (B', K, T, 70) with a noise trajectory each, from its own history, which goes on from one of
        the teacher's samples each."""
        motion, count, windows = self.student.motion, self._recipe.samples, self._recipe.sample_windows
        first = batch.before[:windows, 1:].repeat(1, -(-count // (batch.before.shape[1] - 1)), 1)[:, :count]
        features, portrait, noise = self._repeat(features[:windows], batch.portrait[:windows], count, 1)
        before = first.flatten(0, 1)[:, None]
        with torch.no_grad():
            frames = free_run(motion, features, before, portrait, noise)
        hidden, _ = motion.trunk(features, shift(frames, before), portrait, noise)
        return _by_clip(motion.predict(hidden, self._recipe.student.steps)[0], count)

    def _roll_out(self, features: Tensor, batch: DistilBatch) -> Rollout:
        """Draw G rollouts from the predicted Gaussians, then predict these frames again, with gradients."""
        motion, count = self.student.motion, self._recipe.kdrl.rollouts
        features, portrait, noise = self._repeat(features, batch.portrait, count, 2)
        before = batch.before[:, 1].repeat_interleave(count, 0)[:, None]
        with torch.no_grad():
            frames = free_run(motion, features, before, portrait, noise, generator=self._generator(3))
        hidden, _ = motion.trunk(features, shift(frames, before), portrait, noise)
        predicted = motion.predict(hidden, self._recipe.student.steps)
        return Rollout(*(_by_clip(one, count) for one in (frames, *predicted)))

    def _repeat(self, features: Tensor, portrait: Tensor, count: int, use: int) -> tuple[Tensor, Tensor, Tensor]:
        features, portrait = (one.repeat_interleave(count, 0) for one in (features, portrait))
        noise = draw_noise(self.student.motion, len(features), features.shape[1], self._generator(use))
        return features, portrait, noise.to(features.device)

    def _generator(self, use: int) -> torch.Generator:
        return torch.Generator().manual_seed(((self._recipe.seed * 10 + use) << 32) + self._step)

    @property
    def _step(self) -> int:
        return self.methods[0].step


def match_gradient(loss: Tensor, others: list[Tensor], at: Tensor, share: float) -> Tensor:
    """Compute the factor () that makes the gradient of a loss at a tensor `share` as large as that of the others
    together; 1 where either has none there."""
    norms = []
    for one in (loss, torch.stack(others).sum()):
        (gradient,) = torch.autograd.grad(one, at, retain_graph=True, allow_unused=True)
        norms.append(at.new_zeros(()) if gradient is None else gradient.norm())
    ours, theirs = norms
    return torch.where((ours > 0) & (theirs > 0), share * theirs / ours.clamp(min=1e-12), torch.ones_like(ours))


def infer_head_noise(motion: Tensor, samples: Tensor, deviation: Tensor) -> Tensor:
    """Infer the noise (B, T, 6) that moves a head so: what of its motion (B, T, 70) the sound does not explain, that is
    the difference from the mean of the teacher's samples (B, K, T, 70), in standard deviations (6,). Of motion that is
    one of these samples, it is the mean of the others."""
    heads, head = samples[..., POSE_AND_SHIFT], motion[..., POSE_AND_SHIFT]
    is_sample = (heads == head[:, None]).flatten(2).all(2)[..., None, None]
    others = (heads * ~is_sample).sum(1) / (~is_sample).sum(1)
    return ((head - others) / deviation.to(motion)).clamp(-MOST_NOISE, MOST_NOISE)


def _by_clip(rows: Tensor, count: int) -> Tensor:
    return rows.view(-1, count, *rows.shape[1:])


def draw_noise(motion: CausalMotionNetwork, size: int, frames: int, generator: torch.Generator | None) -> Tensor:
    """Draw noise trajectories (B, T, N) of variance 1, as of streams that have run for long."""
    memory = motion.config.noise_memory
    drive, second, *fresh = torch.randn(frames + 1, size, motion.config.noise, generator=generator)
    shared = (1 + memory**2) ** -0.5  # correlation of the process and of what drives it
    noise = shared * drive + (1 - shared**2) ** 0.5 * second, drive
    rows = [noise[0]]
    for white in fresh:
        noise = advance_noise(noise, white, memory)
        rows.append(noise[0])
    return torch.stack(rows, 1)


def own_frame(portrait: Tensor) -> Tensor:
    """Return a portrait's own motion (B, 1, 70), before the first frame of a clip."""
    return portrait[:, None, -MOTION_WIDTH:]


def shift(frames: Tensor, before: Tensor) -> Tensor:
    """Return the motion before each of frames (B, T, 70), before (B, 1, 70) being that before the first."""
    return torch.cat([before, frames[:, :-1]], 1)


def generate(motion: CausalMotionNetwork, features: Tensor, portrait: Tensor, noise: Tensor) -> Tensor:
    """Generate frames (B, T, 70) from the beginning, as `CausalMotionModel` does: expressions without noise, heads with
    noise."""
    before = own_frame(portrait)
    frames, heads = (free_run(motion, features, before, portrait, one) for one in (torch.zeros_like(noise), noise))
    frames[..., POSE_AND_SHIFT] = heads[..., POSE_AND_SHIFT]
    return frames


def free_run(
    motion: CausalMotionNetwork, features: Tensor, before: Tensor, portrait: Tensor, noise: Tensor, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Predict frames (B, T, 70), each from those before, the first from before (B, 1, 70); drawn from the predicted
    Gaussians where there is a generator."""
    state, frames = None, []
    for t in range(features.shape[1]):
        hidden, state = motion.trunk(features[:, t : t + 1], before, portrait, noise[:, t : t + 1], state)
        before, log_variance = motion.predict(hidden, motion.config.steps)
        if generator is not None:
            drawn = torch.randn(before.shape, generator=generator).to(before.device)
            before = before + (0.5 * log_variance).exp() * drawn
        frames.append(before)
    return torch.cat(frames, 1)
