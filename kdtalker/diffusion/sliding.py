"""Generate motion hop by hop, for live sound.

The mouth follows from the sound: with every hop it is estimated anew, for the hop and the frames heard after it, and
averaged with the estimate of the hop before. The head hardly does: it is sampled for a second and a half ahead, in
windows that continue from final frames, and blended from window to window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from kdtalker.audio.whisper import WhisperEncoder
from kdtalker.core.arrays import Array
from kdtalker.core.motion import MOTION_WIDTH, Motion
from kdtalker.core.protocols import AudioEncoder, Sampling, SlidingSpeech
from kdtalker.diffusion.calibration import Calibration
from kdtalker.diffusion.fir_smoothing import RADIUS, smooth
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.sampler import WindowBatch
from kdtalker.diffusion.windows import WindowState, context_frames, emit_frames, reference_token, sample_noise

HOP_FRAMES = 2  # frames of a hop: the first of them is heard one frame further than the last
HEARD_FRAMES = 24  # frames that are heard before a hop
MOUTH_FRAMES = 10  # of them, frames before a hop that a window of the mouth begins with
NEW_SHARE = 0.8  # share of the newer of two estimates of the mouth in a frame that both have
SEAM_SHARE = 0.5  # share of a mouth's step at the border of two hops that is left in each following frame
PLAN_FRAMES, BLENDED_FRAMES = 40, 10  # frames of a window of the head; those that two windows share
KEPT_FRAMES = 26  # of a window of the head, frames that are used: what follows is made again, with more sound
_MOUTH_NOISE = 2**31  # first frame number of the noise of mouths, far from that of heads

_NONE = np.zeros((0, MOTION_WIDTH), np.float32)


@dataclass(frozen=True)
class SlidingState:
    """Hold a stream of motion between hops as a value: final frames and the source in `window`; estimates of the mouth
    and samples of the head (n, 70) from the next frame on, normalised; the last vectors (RADIUS, 70) before smoothing,
    none before the first hop."""

    window: WindowState
    mouth: Array
    head: Array
    recent: Array


@dataclass(frozen=True)
class SlidingMotionModel:
    """Generate motion hop by hop (implements the protocol SlidingModel). head: model that samples all but the mouth;
    mouth: the one that estimates it, by this calibration; lookahead_frames: frames that are heard after a hop."""

    head: DiffusionMotionModel
    mouth: DiffusionMotionModel
    calibration: Calibration
    lookahead_frames: int

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> SlidingState:
        window = self.head.start(canonical, reference, silence, seed=seed, sampling=sampling)
        return SlidingState(window, _NONE, _NONE, _NONE)

    def slide(self, state: SlidingState, features: Array) -> tuple[Motion, SlidingState]:
        """Estimate and sample the next hop and the frames heard after it, smooth the hop. Raises InputError for numbers
        that no face has."""
        model, window = self.head, state.window
        mouth, head = self._estimate_mouth(state, features), self._sample_head(state, features)
        projection = self.calibration.mouth_matrix(model.normalisation.std)
        seen = head[: len(mouth) + RADIUS]  # the head is known further than the mouth, which is held
        held = np.concatenate([mouth, np.repeat(mouth[-1:], len(seen) - len(mouth), axis=0)])
        frames = np.asarray(seen + (held - seen) @ projection, np.float32)
        motion = model.decode(frames, window.rest)
        motion.require_plausible("The motion model is damaged or another file: its motion")
        vectors = motion.vector()
        before = state.recent if len(state.recent) else np.repeat(vectors[:1], RADIUS, axis=0)
        around = np.concatenate([before, vectors])
        final = Motion.from_vector(smooth(around[: HOP_FRAMES + 2 * RADIUS]), motion.space)
        window = emit_frames(model.config, window, frames[:HOP_FRAMES])
        return final, SlidingState(window, mouth[HOP_FRAMES:], head[HOP_FRAMES:], around[HOP_FRAMES:][:RADIUS])

    def _estimate_mouth(self, state: SlidingState, features: Array) -> Array:
        """Predict the mean motion (hop + look-ahead, 70) from noise alone, without known frames; average it with the
        prediction before, and let its step from the last final frame fade out."""
        model, window, count = self.mouth, state.window, HOP_FRAMES + self.lookahead_frames
        heard = features[None, -(MOUTH_FRAMES + count) :]
        batch = WindowBatch.prepare(
            model.denoiser,
            window.canonical[None],
            reference_token(model.config, window)[None],
            heard,
            known=_NONE[None],
            new_frames=heard.shape[1],
        )
        noise = sample_noise(window.seed, _MOUTH_NOISE + window.emitted, heard.shape[1])
        guidance = float(self.calibration.mouth_guidance) * window.sampling.guidance
        ((predicted,),) = batch.predict(noise[None], model.config.train_timesteps - 1, [guidance])
        mouth: Array = predicted[-count:].copy()
        older = state.mouth
        mouth[: len(older)] = older + np.float32(NEW_SHARE) * (mouth[: len(older)] - older)
        if window.emitted:
            fading = np.power(SEAM_SHARE, np.arange(1, count + 1), dtype=np.float32)[:, None]
            mouth += fading * (window.known[-1] - predicted[-count - 1])
        return mouth

    def _sample_head(self, state: SlidingState, features: Array) -> Array:
        """Return samples of the motion from the next frame on; where few are left, those of the next window of the head
        are blended in. Its frames that are not yet heard have no audio."""
        model, window, left = self.head, state.window, state.head
        if len(left) > BLENDED_FRAMES:
            return left
        known = len(context_frames(model.config, window))
        count = HOP_FRAMES + self.lookahead_frames
        unheard = np.zeros((PLAN_FRAMES - count, features.shape[1]), np.float32)  # no audio, as for guidance
        heard = np.concatenate([features[-(known + count) :], unheard])
        sampled: Array = model.sample([replace(window, features=heard)], known + PLAN_FRAMES)[0]
        weight = (np.arange(1, len(left) + 1, dtype=np.float32) / (len(left) + 1))[:, None]
        sampled[: len(left)] = (1 - weight) * left + weight * sampled[: len(left)]
        kept: Array = sampled[:KEPT_FRAMES]
        return kept


def sliding_speech(
    encoder: AudioEncoder[Any],
    model: DiffusionMotionModel,
    load_mouth: Callable[[], DiffusionMotionModel] | None = None,
) -> Callable[[int], SlidingSpeech] | None:
    """Build a factory of sliding models, by the number of look-ahead frames; None where these models cannot slide: one
    without context frames has no frames to continue from, one without calibration samples its mouth with the head, and
    other encoders do not encode a window anew. load_mouth: load the model of the mouth, where it is another one."""
    if not isinstance(encoder, WhisperEncoder) or not model.config.context or model.calibration is None:
        return None
    load_once = cache(load_mouth or (lambda: model))
    return lambda lookahead: _slide(encoder, model, load_once(), lookahead)


def _slide(
    encoder: WhisperEncoder, head: DiffusionMotionModel, mouth: DiffusionMotionModel, lookahead: int
) -> SlidingSpeech:
    assert mouth.calibration is not None
    heard = encoder.sliding(HEARD_FRAMES + HOP_FRAMES + lookahead)
    return SlidingSpeech(heard, SlidingMotionModel(head, mouth, mouth.calibration, lookahead), HOP_FRAMES, lookahead)
