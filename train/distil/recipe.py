"""Define the recipe of a distillation: one arm of the comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kdtalker.audio.causal_config import CausalWhisperConfig
from kdtalker.diffusion.causal.header import StudentConfig
from train.distil.methods.acam import ACAMConfig
from train.distil.methods.balanced import BalancedConfig
from train.distil.methods.baselines import LogitConfig
from train.distil.methods.codes import CodesConfig
from train.distil.methods.kdrl import KDRLConfig
from train.distil.methods.llava import LLaVAConfig
from train.distil.methods.nkd import NKDConfig
from train.distil.methods.ofa import OFAConfig
from train.distil.methods.sinkhorn import SinkhornConfig
from train.distil.methods.talking import TalkingConfig
from train.distil.methods.uskd import USKDConfig
from train.distil.registry import METHOD_TABLES, MethodConfigs, check_methods
from train.harness.training import Training, number


@dataclass(frozen=True)
class DistilRecipe(Training):
    """Hold the settings of a distillation. Those of Training, and:

    cache: folder of the teacher's outputs; more: further ones; probe: the phone probe; teacher: motion model, by
    default the package's.
    method: the method; beside: methods that it is added to; each one's own settings are a table of its name.
    gradient_share: the method's gradient at the encoder's output is made so large beside theirs in each step; 0: its
    weight is as its table says.
    shuffles_teacher: its outputs are those of another window, a control: what is gained then is no knowledge.
    frames: of a window; delay: frames by which targets are later than the teacher's; own_history: share of the steps in
    which the motion model goes on from its own frames; history_noise: on given frames, in deviations; samples: motion
    samples of the student, for the first `sample_windows` of a batch, where a method asks for them; augments: noise,
    rooms and level on the student's sound alone; mask_share: of the mel bands and of the frames hidden in a stretch
    each; portrait_share: of the windows whose source image shows another frame of the clip. head_share, lip_loss,
    difference_loss: of the motion loss, as of the motion model.

    Raises InputError for a value outside its range and for unknown methods.
    """

    run: Path = Path("runs/distil")
    cache: Path = Path("teacher")
    more: tuple[Path, ...] = ()
    probe: Path = Path("probe.safetensors")
    teacher: Path = Path()
    method: str = "labels"
    beside: tuple[str, ...] = ("labels",)
    gradient_share: float = number(0.0, 0)
    frames: int = number(64, 8)
    delay: int = number(0, 0, 50)
    own_history: float = number(0.3, 0, 1)
    history_noise: float = number(0.05, 0)
    samples: int = number(8, 2)
    sample_windows: int = number(8, 1)
    augments: bool = True
    mask_share: float = number(0.15, 0, 1)
    portrait_share: float = number(0.0, 0, 1)
    shuffles_teacher: bool = False
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = number(0.02, 0)
    head_share: float = number(1 / 3, 0)
    lip_loss: float = number(2.0, 0)
    difference_loss: float = number(2.0, 0)
    validate_takes: int = number(64, 1)
    student: StudentConfig = field(default_factory=StudentConfig)
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_methods(self.methods)

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the names of all methods, each once."""
        return tuple(dict.fromkeys((*self.beside, self.method)))

    @property
    def configs(self) -> MethodConfigs:
        """Return the settings of all methods."""
        return MethodConfigs(**{name: getattr(self, name) for name in METHOD_TABLES})


PRESETS = {
    "distil": DistilRecipe(),
    "whisper": DistilRecipe(student=StudentConfig(CausalWhisperConfig())),
}
