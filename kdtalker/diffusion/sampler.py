"""Sample one window of motion: diffusers' schedulers, classifier-free guidance, clean context frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdtalker.core.errors import InputError
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.denoiser import Denoiser, token_timesteps

_CANONICAL_START = 7  # the canonical token is seven zeros, where scale, pose and shift stand, then its 63 numbers


def make_scheduler(config: DenoiserConfig, steps: int) -> Any:
    """Make the diffusers scheduler that the config names, its timesteps set. It has state: each window needs its own.

    "ddim" is deterministic DDIM (arXiv 2010.02502, eta 0), "dpmsolver++" the second-order multistep solver (arXiv
    2211.01095). Of that one "leading" spacing would leave out up to half of the steps by diffusers' rounding, so it
    takes "trailing" or "quadratic". Where a head is turned, slow and alike in all frames of a window, is settled in
    the noisiest tenth of the timesteps, as the large shapes of large pictures are (arXiv 2301.11093, section 3.1);
    "quadratic" spacing t = 999 (1 - u^2) takes a third of its steps there, where even steps see one and make the
    head move too little. Imported here, because diffusers takes seconds to import. Raises InputError for a number of
    steps outside 1 ... train_timesteps.
    """
    if not 1 <= steps <= config.train_timesteps:
        raise InputError(f"{steps} sampling steps were asked for, wanted 1 to {config.train_timesteps}.")
    common = {
        "num_train_timesteps": config.train_timesteps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.beta_schedule,
        "prediction_type": config.prediction,
    }
    scheduler: Any
    if config.scheduler == "ddim":
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        spacing = config.timestep_spacing
        scheduler = DDIMScheduler(
            timestep_spacing=spacing, steps_offset=0, clip_sample=False, set_alpha_to_one=True, **common
        )
        scheduler.set_timesteps(steps)
        return scheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        timestep_spacing="trailing", algorithm_type="dpmsolver++", solver_order=2, **common
    )
    if config.timestep_spacing == "quadratic":
        scheduler.set_timesteps(timesteps=_quadratic(config.train_timesteps, steps))
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def _quadratic(train_timesteps: int, steps: int) -> list[int]:
    """Space timesteps quadratically, from the noisiest down, without duplicates."""
    places = {round((1 - (step / steps) ** 2) * (train_timesteps - 1)) for step in range(steps)}
    return sorted(places, reverse=True)


def leading_tokens(canonical: Tensor, reference: Tensor) -> Tensor:
    """Stack normalised canonical keypoints (B, 63) and reference frame (B, 70) as leading tokens (B, 2, 70)."""
    padded = torch.nn.functional.pad(canonical, (_CANONICAL_START, 0))
    return torch.stack([padded, reference], dim=1)


@dataclass(frozen=True)
class WindowBatch:
    """Hold the inputs that all sampling steps of B windows share: the denoiser, the clean tokens (B, 2 + K, 70) before
    the new frames, which of all frames are known (B, frames), and the adapted audio (B, frames, audio_width)."""

    denoiser: Denoiser
    clean: Tensor
    is_known: Tensor
    audio: Tensor

    @staticmethod
    def prepare(
        denoiser: Denoiser, canonical: Tensor, reference: Tensor, features: Tensor, *, known: Tensor, new_frames: int
    ) -> WindowBatch:
        """Adapt the audio and stack the clean tokens, see `sample_window`."""
        if new_frames + known.shape[1] != features.shape[1]:
            raise ValueError(
                f"{known.shape[1]} known and {new_frames} new frames need features, not {features.shape[1]}."
            )
        clean = torch.cat([leading_tokens(canonical, reference), known], dim=1)
        is_known = torch.arange(features.shape[1], device=known.device).expand(len(known), -1) < known.shape[1]
        return WindowBatch(denoiser, clean, is_known, denoiser.adapt(features))

    def predict(self, frames: Tensor, step: Tensor, guidances: list[float]) -> list[Tensor]:
        """Predict the new frames (B, frames - K, 70) of a step under each scale of guidance."""
        tokens, audio = torch.cat([self.clean, frames], dim=1), self.audio
        timesteps = token_timesteps(step.expand(len(frames)), self.is_known)
        if any(guidance != 1 for guidance in guidances):
            tokens, timesteps = tokens.repeat(2, 1, 1), timesteps.repeat(2, 1)
            audio = torch.cat([audio, torch.zeros_like(audio)])
        prediction = self.denoiser(tokens, timesteps, audio)[:, self.clean.shape[1] :]
        with_audio, without = prediction[: len(frames)], prediction[-len(frames) :]
        return [with_audio if guidance == 1 else without + guidance * (with_audio - without) for guidance in guidances]


@torch.inference_mode()
def sample_window(
    denoiser: Denoiser,
    canonical: Tensor,
    reference: Tensor,
    features: Tensor,
    *,
    known: Tensor,
    noise: Tensor,
    sampling: Sampling,
    mouth: Tensor | None = None,
    mouth_guidance: float = 1.0,
) -> Tensor:
    """Sample the unknown frames of B windows: (B, frames - K, 70), in normalised units.

    canonical (B, 63), reference (B, 70), features (B, frames, audio_input) of the audio encoder, known (B, K, 70) the
    clean frames that the window continues from (K may be 0), noise (B, frames - K, 70) standard normal, never scaled.
    sampling: 0 steps are the config's own number; guidance g: prediction = without + g (with - without) audio (arXiv
    2207.12598, with w = g - 1); 1 is none for what is sampled, and costs half. mouth (70, 70): projection onto the part
    of a motion that is the first prediction of the clean motion, its guidance times `mouth_guidance`, instead of a
    sample. The denoiser must be in eval mode, else its dropout joins in.
    """
    batch = WindowBatch.prepare(denoiser, canonical, reference, features, known=known, new_frames=noise.shape[1])
    solver = make_scheduler(denoiser.config, sampling.steps or denoiser.config.steps)
    frames, estimate = noise, None
    for step in solver.timesteps:
        guidances = [sampling.guidance]
        if mouth is not None and estimate is None:
            guidances = [sampling.guidance, sampling.guidance * mouth_guidance]
        prediction, *others = batch.predict(frames, step.to(noise.device), guidances)
        estimate = others[0] if others else estimate
        frames = solver.step(prediction, step, frames, return_dict=False)[0]
    return frames if mouth is None or estimate is None else frames + (estimate - frames) @ mouth
