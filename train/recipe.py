"""What a training of the motion model is made of: one frozen dataclass, and two presets of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kdtalker.denoiser import DenoiserConfig
from kdtalker.errors import InputError
from kdtalker.motion import SPACES

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}  # the words of accelerate
TRACKERS = ("tensorboard", "wandb", "none")
# What may change while a run goes on, because no number of the model depends on it.
AT_WILL = (
    "shards",
    "run",
    "device",
    "workers",
    "tracker",
    "log_every",
    "validate_every",
    "validate_takes",
    "save_every",
)

OURS = DenoiserConfig(
    width=192, layers=4, heads=4, head_width=48, rotary_width=12, time_width=64, audio_width=128, audio_input=2304,
    adapter_blocks=3, dropout=0.2, prediction="sample", beta_schedule="squaredcos_cap_v2", scheduler="dpmsolver++",
    timestep_spacing="quadratic", window=64, context=10, overlap=14, relative=True, audio_encoder="whisper-tiny.en",
    audio_features="layers 2, 3, 4 of the encoder, two 50 Hz steps a frame",
)  # fmt: skip


def _number(default: float, least: float, most: float = math.inf) -> Any:
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training; the defaults are ours, for the mesh engine.

    shards, run: folders to read and to write. space: the keypoint space, "mesh" or "liveportrait". batch: windows a
    step, over all processes. shortest_window: frames; `shorter_share` of the batches hold windows of a random length
    from there on. mirror: half of the windows are seen in a mirror. corpus_share: of the windows that come from
    speakers with more than 50 takes. ema: of the averaged weights. audio_drop: share of the windows without audio, for
    guidance (arXiv 2207.12598). audio_noise: in deviations of the features, on `audio_noise_share` of the windows.
    context_drop: share of the windows that continue from nothing; context_noise, canonical_noise: on known frames and
    on the portrait's keypoints, in deviations. head_share: weight of the head's six numbers together, the expression's
    63 having 1. lip_loss, difference_loss: weights of the errors of lip gaps and of frame differences.

    Raises InputError for a value outside its range or what does not go together.
    """

    shards: Path = Path("shards")
    run: Path = Path("runs/motion")
    space: str = "mesh"
    device: str = "auto"
    precision: str = "float32"
    tracker: str = "tensorboard"
    seed: int = _number(0, 0)
    steps: int = _number(4500, 1)
    batch: int = _number(24, 1)
    workers: int = _number(0, 0)
    shortest_window: int = _number(16, 2)
    shorter_share: float = _number(0.4, 0, 1)
    mirror: bool = True
    corpus_share: float = _number(0.35, 0, 1)
    learning_rate: float = _number(6e-4, 0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = _number(0.02, 0)
    warm_up_steps: int = _number(200, 0)
    clip: float = _number(1.0, 0)
    ema: float = _number(0.998, 0, 1)
    audio_drop: float = _number(0.12, 0, 1)
    audio_noise: float = _number(0.5, 0)
    audio_noise_share: float = _number(0.7, 0, 1)
    context_drop: float = _number(0.5, 0, 1)
    context_noise: float = _number(0.03, 0)
    canonical_noise: float = _number(0.3, 0)
    head_share: float = _number(1 / 3, 0)
    lip_loss: float = _number(2.0, 0)
    difference_loss: float = _number(2.0, 0)
    log_every: int = _number(50, 1)
    save_every: int = _number(250, 1)
    validate_every: int = _number(1000, 1)
    validate_takes: int = _number(16, 0)
    model: DenoiserConfig = OURS

    def __post_init__(self) -> None:
        for choice in fields(self):
            value, least, most = getattr(self, choice.name), choice.metadata.get("least"), choice.metadata.get("most")
            if least is not None and not least <= value <= most:
                wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
                raise InputError(f"The recipe's {choice.name} is {value}, wanted {wanted}.")
        for name, allowed in {"space": SPACES, "precision": PRECISIONS, "tracker": TRACKERS}.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"The recipe's {name} is '{getattr(self, name)}', known are {', '.join(allowed)}.")
        if self.shortest_window > self.model.window:
            raise InputError(f"The shortest window, {self.shortest_window}, is longer than one of the model's, "
                             f"{self.model.window} frames.")  # fmt: skip
        if self.space != "mesh" and self.mirror:
            raise InputError(f"Which keypoint of '{self.space}' mirrors which is not known; set mirror = false.")


PRESETS = {
    "mesh": Recipe(),
    # KDTalker (arXiv 2503.12963, section 4): the published model's sizes and its optimiser. How long it was trained,
    # how loud the noise is and whether weights were averaged it does not say: those are ours.
    "paper": Recipe(
        space="liveportrait", steps=200_000, batch=256, shortest_window=64, shorter_share=0, mirror=False,
        learning_rate=5.12e-4, betas=(0.95, 0.999), weight_decay=0.01, warm_up_steps=2000, clip=50, ema=0.999,
        audio_drop=0, audio_noise=0.5, audio_noise_share=0.7, context_noise=0, canonical_noise=0, head_share=6 / 63,
        lip_loss=0, difference_loss=0, workers=4, validate_every=5000, save_every=1000, model=DenoiserConfig(),
    ),
}  # fmt: skip
