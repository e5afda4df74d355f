"""Sample one window of motion: steps of a solver, classifier-free guidance, clean context frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.network import MotionDenoiser
from kdtalker.diffusion.solver import solver_rows


@dataclass(frozen=True)
class WindowBatch:
    """Hold the inputs that all sampling steps of B windows share: the denoiser, the clean tokens (B, 2 + K, 70) before
    the new frames, which tokens (2 + frames,) are of known frames, and the adapted audio (B, frames, audio_width)."""

    denoiser: MotionDenoiser
    clean: Array
    is_known: NDArray[np.bool_]
    audio: Array

    @staticmethod
    def prepare(
        denoiser: MotionDenoiser, canonical: Array, reference: Array, features: Array, *, known: Array, new_frames: int
    ) -> WindowBatch:
        """Adapt the audio and stack the clean tokens, see `sample_window`."""
        if new_frames + known.shape[1] != features.shape[1]:
            raise ValueError(
                f"{known.shape[1]} known and {new_frames} new frames need features, not {features.shape[1]}."
            )
        padded = np.zeros((len(canonical), MOTION_WIDTH), np.float32)
        padded[:, -canonical.shape[1] :] = canonical  # zeros, where scale, pose and shift stand, then the keypoints
        clean = np.concatenate([padded[:, None], reference[:, None], known], axis=1)
        place = np.arange(2 + features.shape[1])
        is_known = (place >= 2) & (place < clean.shape[1])
        return WindowBatch(denoiser, clean, is_known, denoiser.encode_audio(features))

    def predict(self, frames: Array, timestep: float, guidances: list[float]) -> list[Array]:
        """Predict the new frames (B, frames - K, 70) of a step under each scale of guidance."""
        tokens, audio = np.concatenate([self.clean, frames], axis=1), self.audio
        if any(guidance != 1 for guidance in guidances):
            tokens, audio = np.concatenate([tokens, tokens]), np.concatenate([audio, np.zeros_like(audio)])
        timesteps = np.where(self.is_known, np.float32(0), np.float32(timestep))
        timesteps = np.repeat(timesteps[None], len(tokens), axis=0)
        prediction = self.denoiser.denoise(tokens, timesteps, audio)[:, self.clean.shape[1] :]
        with_audio, without = prediction[: len(frames)], prediction[-len(frames) :]
        return [with_audio if guidance == 1 else without + np.float32(guidance) * (with_audio - without)
                for guidance in guidances]  # fmt: skip


def sample_window(
    denoiser: MotionDenoiser,
    canonical: Array,
    reference: Array,
    features: Array,
    *,
    known: Array,
    noise: Array,
    sampling: Sampling,
    mouth: Array | None = None,
    mouth_guidance: float = 1.0,
) -> Array:
    """Sample the unknown frames of B windows: (B, frames - K, 70), in normalised units.

    canonical (B, 63), reference (B, 70), features (B, frames, audio_input) of the audio encoder, known (B, K, 70) the
    clean frames that the window continues from (K may be 0), noise (B, frames - K, 70) standard normal, never scaled.
    sampling: 0 steps are the config's own number; guidance g: prediction = without + g (with - without) audio (arXiv
    2207.12598, with w = g - 1); 1 is none for what is sampled, and costs half. mouth (70, 70): projection onto the part
    of a motion that is the first prediction of the clean motion, its guidance times `mouth_guidance`, instead of a
    sample.
    """
    rows = solver_rows(denoiser.config, sampling.steps or denoiser.config.steps)
    batch = WindowBatch.prepare(denoiser, canonical, reference, features, known=known, new_frames=noise.shape[1])
    frames, estimate = noise, None
    before = np.zeros_like(noise), np.zeros_like(noise)  # frames and prediction of the step before
    for timestep, *weights in rows:
        guidances = [sampling.guidance]
        if mouth is not None and estimate is None:
            guidances = [sampling.guidance, sampling.guidance * mouth_guidance]
        prediction, *others = batch.predict(frames, timestep, guidances)
        estimate = others[0] if others else estimate
        terms = zip(weights, (frames, prediction, *before), strict=True)
        before = frames, prediction
        frames = np.sum([weight * term for weight, term in terms], axis=0, dtype=np.float32)
    if mouth is None or estimate is None:
        return frames
    return np.asarray(frames + (estimate - frames) @ mouth, np.float32)
