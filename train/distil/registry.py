"""The table of methods: how each is built, and from what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from kdtalker.core.errors import InputError
from kdtalker.diffusion.causal.header import StudentConfig
from kdtalker.diffusion.denoiser import Denoiser
from train.distil.distiller import Distiller
from train.distil.methods.acam import ACAM, ACAMConfig
from train.distil.methods.balanced import Balanced, BalancedConfig
from train.distil.methods.baselines import FeatureRegression, LogitConfig, LogitKD, MotionLoss, Supervised
from train.distil.methods.codes import CodesConfig, MotionCodes
from train.distil.methods.kdrl import KDRL, KDRLConfig
from train.distil.methods.llava import FunctionalLoss, LLaVA, LLaVAConfig
from train.distil.methods.nkd import NKD, NKDConfig
from train.distil.methods.ofa import OFA, OFAConfig
from train.distil.methods.reward import MotionReward
from train.distil.methods.sinkhorn import SinkhornConfig, SinkhornPhones, SinkhornSamples
from train.distil.methods.talking import Talking, TalkingConfig, UpperLayers
from train.distil.methods.uskd import USKD, WEAK_STAGE, USKDConfig
from train.distil.phones import PHONES


@dataclass(frozen=True)
class MethodConfigs:
    """Hold the settings of all methods, a table of the recipe each."""

    logits: LogitConfig = field(default_factory=LogitConfig)
    codes: CodesConfig = field(default_factory=CodesConfig)
    ofa: OFAConfig = field(default_factory=OFAConfig)
    sinkhorn: SinkhornConfig = field(default_factory=SinkhornConfig)
    balanced: BalancedConfig = field(default_factory=BalancedConfig)
    nkd: NKDConfig = field(default_factory=NKDConfig)
    uskd: USKDConfig = field(default_factory=USKDConfig)
    talking: TalkingConfig = field(default_factory=TalkingConfig)
    acam: ACAMConfig = field(default_factory=ACAMConfig)
    llava: LLaVAConfig = field(default_factory=LLaVAConfig)
    kdrl: KDRLConfig = field(default_factory=KDRLConfig)


@dataclass(frozen=True)
class Ground:
    """Hold all that methods are built from: the student's config, the number of the teacher's features, weights (70,)
    of motion numbers, lips (63, n) and gap (63,), normalised expression to lip gaps and to their mean in standard
    deviations; head_deviation (6,) of pose and shift that sound does not explain; functions that load the teacher's
    frozen parts, each for itself, and that fit so many codes (V, n) of lip gaps."""

    student: StudentConfig
    features: int
    weights: Tensor
    lips: Tensor
    gap: Tensor
    head_deviation: Tensor
    lip_weight: float
    difference_weight: float
    load_probe: Callable[[], nn.Module]
    load_upper_layers: Callable[[], UpperLayers]
    load_denoiser: Callable[[], Denoiser]
    fit_codes: Callable[[int], Tensor]
    seed: int = 0

    def motion_loss(self) -> MotionLoss:
        """Make the loss of motion."""
        return MotionLoss(self.weights, self.lips, self.lip_weight, self.difference_weight)


Build = Callable[[Ground, MethodConfigs], Distiller]


def _llava(ground: Ground, configs: MethodConfigs) -> Distiller:
    denoiser = ground.load_denoiser()
    functional = FunctionalLoss(denoiser, ground.seed)
    width, audio = ground.student.encoder.widths[-1], denoiser.config.audio_width
    return LLaVA(width, functional, audio, Supervised(ground.motion_loss()), configs.llava)


def _talking(ground: Ground, configs: MethodConfigs) -> Distiller:
    widths = ground.student.encoder.widths
    return Talking(widths[WEAK_STAGE], widths[-1], ground.load_upper_layers(), configs.talking)


METHODS: Mapping[str, Build] = {
    "labels": lambda ground, configs: Supervised(ground.motion_loss()),
    "features": lambda ground, configs: FeatureRegression(
        ground.student.encoder.widths[-1], ground.features, ground.motion_loss()
    ),
    "logits": lambda ground, configs: LogitKD(configs.logits),
    "codes": lambda ground, configs: MotionCodes(
        ground.student.hidden, ground.fit_codes(configs.codes.codes), ground.lips, configs.codes
    ),
    "ofa": lambda ground, configs: OFA(
        ground.student.encoder.widths, ground.student.encoder.steps, len(PHONES), configs.ofa
    ),
    "sinkhorn-phones": lambda ground, configs: SinkhornPhones(configs.sinkhorn),
    "sinkhorn-samples": lambda ground, configs: SinkhornSamples(ground.lips, configs.sinkhorn),
    "balanced": lambda ground, configs: Balanced(ground.load_probe().requires_grad_(True), configs.balanced),
    "nkd": lambda ground, configs: NKD(configs.nkd),
    "uskd": lambda ground, configs: USKD(ground.student.encoder.widths[WEAK_STAGE], len(PHONES), configs.uskd),
    "talking": _talking,
    "acam": lambda ground, configs: ACAM(ground.student.encoder.widths[-1], ground.features // 6, configs.acam),
    "llava": _llava,
    "kdrl": lambda ground, configs: KDRL(MotionReward(ground.gap, configs.kdrl.reward), configs.kdrl),
}


def check_methods(names: tuple[str, ...]) -> None:
    """Raise InputError for an unknown method, and for one that is named twice."""
    for name in names:
        if name not in METHODS:
            raise InputError(f"The recipe names the method '{name}', known are {', '.join(METHODS)}.")
        if names.count(name) > 1:
            raise InputError(f"The recipe names the method '{name}' twice; set its weight in its table instead.")


def build_methods(names: tuple[str, ...], ground: Ground, configs: MethodConfigs) -> list[Distiller]:
    """Build methods by name. Each draws its first weights from a generator of its own, so that the student's are the
    same with and without it. Raises InputError as `check_methods`."""
    check_methods(names)
    built = []
    for name in names:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ground.seed * 1000 + list(METHODS).index(name))
            built.append(METHODS[name](ground, configs))
    return built


METHOD_TABLES = tuple(one.name for one in fields(MethodConfigs))
