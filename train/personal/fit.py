"""Train a person's change of a student on a film, beside speech of others without film."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence, Sized

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.diffusion.calibration import POSE_AND_SHIFT
from kdtalker.diffusion.causal.network import CausalMotionNetwork
from kdtalker.diffusion.causal.personal import PREFIX
from train.distil.arm import draw_noise, free_run, own_frame, shift
from train.distil.methods.baselines import MotionLoss
from train.distil.methods.personal import PersonalBatch, PersonalConfig, PersonalLoss, PersonalMotion
from train.distil.recipe import DistilRecipe
from train.personal.film import HeardClip
from train.personal.student import BaseStudent

POOL = 256  # windows of others


def make_motion_loss(clips: list[HeardClip], mouth: Array) -> MotionLoss:
    """Make the loss of motion with the weights of distillation; lip gaps count in deviations of the person's own. Heads
    do not count: they stay as everybody's, whose noise moves them."""
    recipe = DistilRecipe()
    gaps = np.concatenate([clip.motion[:, 7:].numpy() for clip in clips]) @ mouth.T
    weights = torch.ones(MOTION_WIDTH)
    weights[POSE_AND_SHIFT] = 0
    lips = torch.from_numpy((mouth / (gaps.std(0)[:, None] + 1e-6)).T.astype(np.float32))
    return MotionLoss(weights, lips, recipe.lip_loss, recipe.difference_loss)


class PersonalBatches:
    """Draw batches of windows: of the person's clips, and as many out of a pool of others, random faces that speak
    other sounds as the student of everybody has them move. Random numbers follow from the seed and the step."""

    def __init__(
        self, base: CausalMotionNetwork, clips: list[HeardClip], others: list[Tensor], config: PersonalConfig
    ) -> None:
        """others: features (T, C) of sounds. Raises InputError where there is no clip or no sound as long as a
        window."""
        self._base, self._config = base, config
        self._clips = [clip for clip in clips if len(clip) >= config.frames]
        others = [features for features in others if len(features) >= config.frames]
        if not self._clips or not others:
            what = "The speech of others" if self._clips else "The film"
            raise InputError(
                f"{what} is never {config.frames / FRAME_RATE_HZ:.1f} s long without a cut, as a window is; give a "
                "longer one."
            )
        self._pool = self._speak(others)

    @torch.no_grad()
    def _speak(self, others: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Make features, portrait, motion and noise of POOL windows of others."""
        rng, generator = np.random.default_rng(self._config.seed), torch.Generator().manual_seed(self._config.seed)
        cuts = [_draw_window(others, self._config.frames, rng) for _ in range(POOL)]
        features = torch.stack([others[number][start : start + self._config.frames] for number, start in cuts])
        portrait = torch.randn(POOL, 3 * KEYPOINTS + MOTION_WIDTH, generator=generator)
        portrait[:, 3 * KEYPOINTS :][:, POSE_AND_SHIFT] = self._clips[0].still
        noise = draw_noise(self._base, POOL, self._config.frames, generator)
        return features, portrait, free_run(self._base, features, own_frame(portrait), portrait, noise), noise

    @torch.no_grad()
    def draw(self, step: int, current: CausalMotionNetwork) -> PersonalBatch:
        """Draw the batch of a step; current: the network as it is now, from whose own frames the person's windows go on
        in some."""
        config, rng = self._config, np.random.default_rng((self._config.seed, step))
        generator = torch.Generator().manual_seed((config.seed << 32) + step)
        own = [self._window(rng) for _ in range(config.windows)]
        features, portrait, motion = (torch.stack(part) for part in zip(*own, strict=True))
        noise = draw_noise(self._base, config.windows, config.frames, generator)
        given = motion
        if rng.random() < config.own_history:
            given = free_run(current, features, own_frame(portrait), portrait, noise)
        chosen = torch.from_numpy(rng.choice(POOL, config.windows, replace=False))
        pooled = [part[chosen] for part in self._pool]
        features, portrait, motion, noise = (
            torch.cat(pair) for pair in zip((features, portrait, motion, noise), pooled, strict=True)
        )
        given = torch.cat([given, pooled[2]])
        given = given + config.history_noise * torch.randn(given.shape, generator=generator)
        is_own = torch.cat([torch.ones(config.windows), torch.zeros(config.windows)])
        return PersonalBatch(features, motion, is_own, shift(given, own_frame(portrait)), portrait, noise)

    def _window(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Cut features, portrait (a frame of the clip) and motion of a window of the person."""
        number, start = _draw_window(self._clips, self._config.frames, rng)
        clip = self._clips[number]
        window = clip.cut(start, start + self._config.frames)
        return window.features, clip.portrait(int(rng.integers(len(clip)))), window.motion


def _draw_window(clips: Sequence[Sized], frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw clip and start of a window, all windows alike."""
    starts = np.array([len(clip) - frames + 1 for clip in clips])
    number = int(rng.choice(len(clips), p=starts / starts.sum()))
    return number, int(rng.integers(starts[number]))


def fit_person(
    student: BaseStudent, clips: list[HeardClip], others: list[Tensor], config: PersonalConfig
) -> PersonalMotion:
    """Train a person's change of a student. others: features (T, C) of the speech of others. Raises InputError where
    a clip or a sound is too short."""
    base = student.network.motion
    batches, person = PersonalBatches(base, clips, others, config), PersonalMotion(base, config.trained)
    loss_of, current = PersonalLoss(make_motion_loss(clips, student.mouth), config), copy.deepcopy(base)
    decayed = {id(weight) for name, weight in person.named_parameters() if "deltas" in name or "residual" in name}
    groups = [{"params": [weight for weight in person.parameters() if (id(weight) in decayed) == is_decayed],
               "weight_decay": config.decay * is_decayed} for is_decayed in (True, False)]  # fmt: skip
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], config.learning_rate, (0.9, 0.99))
    for step in tqdm(range(1, config.steps + 1), desc="learning", disable=None):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (0.5 + 0.5 * math.cos(math.pi * (step - 1) / config.steps))
        person.copy_to(current)
        loss, _ = loss_of(person, batches.draw(step, current))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(person.parameters(), 1.0)
        optimiser.step()
    return person


def personal_tensors(person: PersonalMotion, *, general: bool = False) -> dict[str, Tensor]:
    """Return the person's weights that differ from everybody's, named as a checkpoint has them; general: of the head
    that everybody else has, beside the trunk of everybody."""
    state = person.states()[0 if general else 1]
    first = dict(person.base.named_parameters())
    return {
        f"{PREFIX}motion.{name}": value.detach().clone()
        for name, value in state.items()
        if not torch.equal(value, first[name]) and (name.startswith("head.") or not general)
    }
