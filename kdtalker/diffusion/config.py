"""Configure a motion model: its network and how it is sampled. Imports no torch, to be checked early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from kdtalker.audio.encoders import ENCODERS, PUBLISHED_ENCODER
from kdtalker.core.errors import InputError, quote
from kdtalker.core.motion import MOTION_WIDTH

STEPS = {"ddim": 50, "dpmsolver++": 6}  # default sampling steps of a window; DDIM as published
_CHOICES = {
    "prediction": ("epsilon", "sample"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "scheduler": tuple(STEPS),
    "timestep_spacing": ("leading", "trailing", "linspace", "quadratic"),
}
_RANGES = {  # wide enough for any model here, narrow enough that none asks for more memory than there is
    "width": (4, 8192),
    "layers": (1, 128),
    "heads": (1, 256),
    "head_width": (2, 1024),
    "time_width": (1, 8192),
    "audio_width": (1, 8192),
    "audio_input": (1, 65_536),
    "adapter_blocks": (0, 64),
    "dropout": (0, 0.99),
    "train_timesteps": (1, 10_000),
    "window": (1, 2000),
    "context": (0, 2000),
    "overlap": (0, 1000),
}


@dataclass(frozen=True)
class DenoiserConfig:
    """Configure a motion model, as in the header of its checkpoint; the defaults are the published model.

    width, layers, heads, head_width, rotary_width: the transformer. time_width + audio_width: the condition of a token.
    audio_encoder: its name in the registry; audio_features: a description of its features for people; audio_input:
    their number a frame; adapter_blocks: 0 feeds them as they are, n > 0 puts an AudioAdapter before the network.
    dropout: probability, during training only. prediction: the network's target, the noise ("epsilon") or the clean
    motion ("sample"). scheduler, timestep_spacing: how it is sampled, see `make_scheduler`. window, context, overlap:
    frames of a window, the most clean frames it continues from (0: the reference token is the last frame before the
    window), and the frames blended with the window before. relative: pose and shift are relative to the source's own,
    and the scale is the source's throughout; else it is sampled with the rest and stands in the next reference token.

    Raises InputError for a value that cannot be.
    """

    width: int = 768
    layers: int = 6
    heads: int = 12
    head_width: int = 64
    rotary_width: int = 12
    time_width: int = 256
    audio_width: int = 512
    audio_input: int = 512
    adapter_blocks: int = 0
    dropout: float = 0.0
    prediction: str = "epsilon"
    train_timesteps: int = 1000
    beta_schedule: str = "linear"
    beta_start: float = 1e-5
    beta_end: float = 8e-3
    scheduler: str = "ddim"
    timestep_spacing: str = "leading"
    window: int = 64
    context: int = 0
    overlap: int = 0
    relative: bool = False
    audio_encoder: str = PUBLISHED_ENCODER
    audio_features: str = ENCODERS[PUBLISHED_ENCODER].description

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"The model's {name} is {quote(getattr(self, name))}, known are {', '.join(allowed)}.")
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"The model's {name} is {quote(getattr(self, name))}, wanted {least} to {most}.")
        if self.width % 2:
            raise InputError(f"The model's width is {self.width}, wanted an even number.")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise InputError(
                f"The model's betas run from {self.beta_start} to {self.beta_end}, wanted 0 to 1, upwards."
            )
        if self.timestep_spacing == "quadratic" and self.scheduler != "dpmsolver++":
            raise InputError(f"The scheduler '{self.scheduler}' takes even steps; 'quadratic' needs 'dpmsolver++'.")
        if self.rotary_width % 2 or not 0 < self.rotary_width <= self.head_width:
            raise InputError(f"The model's rotary_width {self.rotary_width} must be even and within {self.head_width}.")
        if self.adapter_blocks == 0 and self.audio_input != self.audio_width:
            raise InputError(
                f"Without adapter audio_input {self.audio_input} must equal audio_width {self.audio_width}."
            )
        if self.context + 2 * self.overlap >= self.window:
            raise InputError(
                f"A window of {self.window} frames cannot hold {self.context} of context "
                f"and twice {self.overlap} of overlap."
            )

    @property
    def steps(self) -> int:
        """Return the default number of sampling steps of a window."""
        return STEPS[self.scheduler]

    def header(self) -> dict[str, object]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    @staticmethod
    def from_header(header: object) -> DenoiserConfig:
        """Read what `header` returned. Raises InputError where a field is missing, unknown or of another type."""
        if not isinstance(header, Mapping):
            raise InputError(f"The model's config is {quote(header)}, wanted its fields by name.")
        header = dict(header)
        width = header.pop("motion_width", MOTION_WIDTH)  # a field of older headers
        if type(width) is not int or width != MOTION_WIDTH:
            raise InputError(f"The model's motion_width is {quote(width)}, wanted {MOTION_WIDTH}.")
        known = {field.name: type(field.default) for field in fields(DenoiserConfig)}
        wrong = sorted(known.keys() ^ header.keys())
        if wrong:
            raise InputError(f"The model's header does not fit this program: {quote(wrong[0])} is missing or unknown.")
        for name, kind in known.items():
            if type(header[name]) is not kind:
                raise InputError(f"The model's header gives {name} as {quote(header[name])}, wanted {kind.__name__}.")
        return DenoiserConfig(**header)
