"""Hyperparameters of training the motion model: one frozen dataclass, and two presets of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kdtalker.audio.encoders import DEFAULT_ENCODER, ENCODERS
from kdtalker.core.errors import InputError
from kdtalker.core.motion import SPACES
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.sliding import HOP_FRAMES, MOUTH_FRAMES
from train.harness.training import Training, number

_ENCODER = ENCODERS[DEFAULT_ENCODER]

OURS = DenoiserConfig(
    width=192, layers=4, heads=4, head_width=48, rotary_width=12, time_width=64, audio_width=128, adapter_blocks=3,
    dropout=0.2, prediction="sample", beta_schedule="squaredcos_cap_v2", scheduler="dpmsolver++",
    timestep_spacing="quadratic", window=64, context=10, overlap=14, relative=True, audio_encoder=DEFAULT_ENCODER,
    audio_input=_ENCODER.feature_size, audio_features=_ENCODER.description,
)  # fmt: skip


@dataclass(frozen=True)
class Recipe(Training):
    """Hold the hyperparameters of a training run; the defaults are ours, for the mesh engine. Those of Training, and:

    shards: folder to read. space: the keypoint space, "mesh" or "liveportrait". A row of the batch is a window of a
    clip. shortest_window: frames; `shorter_share` of the batches hold windows of a random length from there on. mirror:
    half of the windows are mirrored (data augmentation). corpus_share: of the windows that come from speakers with more
    than 50 clips. audio_drop: share of the windows without audio, for guidance (arXiv 2207.12598). audio_noise: in
    deviations of the features, on `audio_noise_share` of the windows. context_drop: share of the windows that continue
    from nothing; context_noise, canonical_noise: on known frames and on the portrait's keypoints, in deviations.
    head_share: weight of the head's six numbers together, the expression's 63 having 1. lip_loss, difference_loss:
    weights of the errors of lip gaps and of frame differences. calibration_films: regular expression of the
    films to whose faces a finished model is calibrated, so that films of other systems can be left out. validate_takes:
    so many clips of the validation split are sampled. begin_with: motion model whose weights, normalisation and
    calibration the run begins with. lookahead: least and most frames that live sound is heard beyond a hop; where it is
    given, the run learns the mouth of live sound: windows without known frames, encoded as live sound is.

    Raises InputError for a value outside its range or what does not go together.
    """

    run: Path = Path("runs/motion")
    shards: Path = Path("shards")
    space: str = "mesh"
    shortest_window: int = number(16, 2)
    shorter_share: float = number(0.4, 0, 1)
    mirror: bool = True
    corpus_share: float = number(0.35, 0, 1)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = number(0.02, 0)
    augmented_copies: int = number(3, 0)
    noisiest_share: float = number(0.15, 0, 1)
    audio_drop: float = number(0.12, 0, 1)
    audio_noise: float = number(0.5, 0)
    audio_noise_share: float = number(0.7, 0, 1)
    context_drop: float = number(0.5, 0, 1)
    context_noise: float = number(0.03, 0)
    canonical_noise: float = number(0.3, 0)
    head_share: float = number(1 / 3, 0)
    lip_loss: float = number(2.0, 0)
    difference_loss: float = number(2.0, 0)
    calibration_films: str = ""
    validate_takes: int = number(16, 0)
    begin_with: Path = Path()
    lookahead: tuple[int, ...] = ()
    model: DenoiserConfig = OURS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_word("space", SPACES)
        try:
            re.compile(self.calibration_films)
        except re.error as error:
            raise InputError(f"The recipe's calibration_films is no regular expression: {error}.") from None
        if self.lookahead and (len(self.lookahead) != 2 or not 0 <= self.lookahead[0] <= self.lookahead[1]):
            raise InputError(f"The recipe's lookahead is {list(self.lookahead)}, wanted two numbers, the least and the "
                             "most frames.")  # fmt: skip
        if self.shortest_window > self.model.window:
            raise InputError(f"The shortest window, {self.shortest_window}, is longer than one of the model's, "
                             f"{self.model.window} frames.")  # fmt: skip
        if self.space != "mesh" and self.mirror:
            raise InputError(f"Which keypoint of '{self.space}' mirrors which is not known; set mirror = false.")

    @property
    def longest_window(self) -> int:
        """Return the most frames of a window to learn from."""
        return MOUTH_FRAMES + HOP_FRAMES + self.lookahead[1] if self.lookahead else self.model.window


PRESETS = {
    "mesh": Recipe(),
    "live": Recipe(
        lookahead=(0, 6), steps=500, batch=48, learning_rate=3e-4, warm_up_steps=50, ema=0.98, noisiest_share=1,
        audio_noise_share=0.3, audio_noise=0.3, head_share=0.05, validate_every=100,
    ),
    # KDTalker (arXiv 2503.12963, section 4): the published model's sizes and its optimiser. How long it was trained,
    # how loud the noise is and whether weights were averaged it does not say: those are ours.
    "paper": Recipe(
        space="liveportrait", steps=200_000, batch=256, shortest_window=64, shorter_share=0, mirror=False,
        learning_rate=5.12e-4, betas=(0.95, 0.999), weight_decay=0.01, warm_up_steps=2000, clip=50, ema=0.999,
        augmented_copies=0, noisiest_share=0, audio_drop=0, audio_noise=0.5, audio_noise_share=0.7, context_noise=0,
        canonical_noise=0, head_share=6 / 63, lip_loss=0, difference_loss=0, workers=4, validate_every=5000,
        save_every=1000, model=DenoiserConfig(),
    ),
}  # fmt: skip
