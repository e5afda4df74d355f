"""LLaVA-KD (arXiv 2410.16236) as a recipe from sound to motion: distilled pre-training of the encoder (DPT), supervised
fine-tuning (SFT), distilled fine-tuning (DFT). Departures: pre-training is functional, the student's condition is heard
by the frozen teacher denoiser; relations are centred over time, near frames left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.diffusion.denoiser import LEADING_TOKENS, Denoiser, leading_tokens, token_timesteps
from kdtalker.diffusion.solver import make_scheduler
from train.distil.distiller import DistilBatch, Distiller, Logged, StudentOutput, TeacherOutput, kl_divergence
from train.distil.methods.baselines import LogitConfig, LogitKD, Supervised
from train.harness.training import CheckedConfig, number

DPT, SFT, DFT = STAGES = ("dpt", "sft", "dft")
RELATIONS = ("plain", "repaired", "batch")  # over the frames of a clip, so too but repaired, over frames of all clips


@dataclass(frozen=True)
class LLaVAConfig(CheckedConfig):
    """Weigh the terms. stages: one after the other, of equal length; condition, logits, relation: weights of the losses
    (in the paper 1, 1, 0.5); relations: kind; band: nearer frames are left out; fine_rate: factor of the learning rate
    in the last stage."""

    weight: float = number(1.0, 0)
    stages: tuple[str, ...] = STAGES
    condition: float = number(1.0, 0)
    logits: float = number(1.0, 0)
    relation: float = number(0.5, 0)
    relations: str = RELATIONS[2]
    rows: int = number(256, 2)
    band: int = number(2, 0)
    fine_rate: float = number(1 / 3, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_word("relations", RELATIONS)


def relation_loss(one: Tensor, other: Tensor, *, band: int = -1) -> Tensor:
    """Compute RDist, 1 - <R, R'> / (|R| |R'|) (B,), R the cosine similarities of the rows of (B, N, D) and (B, N, D').

    band: leave out pairs |i - j| <= band, after centring each sequence; -1: neither."""
    relations = []
    for rows in (one, other):
        centred = rows - rows.mean(1, keepdim=True) if band >= 0 else rows
        unit = nn.functional.normalize(centred, dim=-1)
        relations.append(unit @ unit.transpose(1, 2))
    place = torch.arange(one.shape[1], device=one.device)
    is_far = ((place[:, None] - place).abs() > band).to(one.dtype)
    ours, theirs = (torch.flatten(relation * is_far, 1) for relation in relations)
    return 1 - nn.functional.cosine_similarity(ours, theirs, dim=-1, eps=1e-12)


class FunctionalLoss(nn.Module):
    """Compute the squared error of what the frozen denoiser predicts from an audio condition against what it predicts
    from its own, at random noise and timesteps, which come from a generator of its own."""

    alphas: Tensor

    def __init__(self, denoiser: Denoiser, seed: int) -> None:
        super().__init__()
        denoiser.eval().requires_grad_(False)
        self._denoiser, self._seed = (denoiser,), seed  # in a tuple: no part of this module
        self.register_buffer("alphas", make_scheduler(denoiser.config, 1).alphas_cumprod, persistent=False)

    def forward(self, condition: Tensor, features: Tensor, clean: Tensor, portrait: Tensor, step: int) -> Tensor:
        """Take condition (B, T, audio_width), teacher's features (B, T, F), clean motion (B, T, 70), portrait
        (B, 133)."""
        denoiser = self._denoiser[0].to(clean.device)
        generator = torch.Generator().manual_seed((self._seed << 32) + step)
        timesteps = torch.randint(len(self.alphas), (len(clean),), generator=generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        alpha = self.alphas[timesteps][:, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        tokens = torch.cat([leading_tokens(portrait[:, :-MOTION_WIDTH], portrait[:, -MOTION_WIDTH:]), noisy], 1)
        steps = token_timesteps(timesteps, torch.zeros(clean.shape[:2], dtype=torch.bool, device=clean.device))
        with torch.no_grad():
            target = denoiser(tokens, steps, denoiser.adapt(features))
        error: Tensor = denoiser(tokens, steps, condition) - target
        return (error[:, LEADING_TOKENS:] ** 2).mean()


class LLaVA(Distiller):
    """Run the stages one after the other. DPT trains encoder and condition only; SFT never looks at the teacher."""

    def __init__(
        self, width: int, functional: FunctionalLoss, condition: int, supervised: Supervised, config: LLaVAConfig
    ) -> None:
        """width: of the student's output; condition: of the denoiser's audio condition."""
        super().__init__()
        self.projector = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, condition))
        self.functional, self.supervised, self._config = functional, supervised, config
        self.motion = LogitKD(LogitConfig(weight=0))

    @property
    def stage(self) -> str:
        """Return the stage of this step."""
        stages = self._config.stages
        return stages[min(len(stages) - 1, (self.step - 1) * len(stages) // self.steps)]

    @property
    def rate(self) -> float:
        return self._config.fine_rate if self.stage == DFT else 1.0

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config, stage = self._config, self.stage
        if stage == SFT:
            loss, logged = self.supervised.loss(student, teacher, batch)
            return config.weight * loss, logged
        relation = self._relation(student.stages[-1], teacher.features.detach().to(student.logits.dtype))
        divergence = kl_divergence(teacher.logits.detach(), student.logits).mean()  # MDist at every frame
        if stage == DPT:
            features, samples = teacher.features.detach().to(student.logits.dtype), teacher.samples.detach()
            condition = self.projector(student.stages[-1])
            task = config.condition * self.functional(condition, features, samples[:, 0], batch.portrait, self.step)
        else:
            task = self.supervised.loss(student, teacher, batch)[0] + self.motion.loss(student, teacher, batch)[0]
        loss = task + config.logits * divergence + config.relation * relation
        return config.weight * loss, {f"{stage} task": task.item(), "RDist": relation.item()}

    def _relation(self, ours: Tensor, theirs: Tensor) -> Tensor:
        config = self._config
        if config.relations == "batch":  # of each clip a few frames, far apart
            step = max(1, ours.shape[0] * ours.shape[1] // config.rows)
            ours, theirs = (rows[:, ::step].flatten(0, 1)[None, : config.rows] for rows in (ours, theirs))
        bands = {"plain": -1, "repaired": config.band, "batch": 0}
        return relation_loss(ours, theirs, band=bands[config.relations]).mean()
